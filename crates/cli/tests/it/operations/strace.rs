//! What `strace -f -y -o FILE` wrote, as calls with a beginning and an end: calls of several threads overlap.

use std::collections::HashMap;

/// One system call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The line on which it began.
    pub(crate) start: usize,
    /// The line on which it returned.
    pub(crate) end: usize,
    pub(crate) name: String,
    /// The whole of it, arguments and result.
    pub(crate) text: String,
    /// Whether it succeeded.
    pub(crate) ok: bool,
}

impl Call {
    /// Brings bytes of a request.
    pub(crate) fn reads(&self) -> bool {
        matches!(self.name.as_str(), "read" | "readv" | "recvfrom" | "recvmsg")
    }

    /// Takes bytes of an answer.
    pub(crate) fn writes(&self) -> bool {
        matches!(self.name.as_str(), "write" | "writev" | "sendto" | "sendmsg")
    }
}

impl Call {
    /// The path of its first argument, a descriptor (`-y`).
    pub(crate) fn descriptor(&self) -> Option<&str> {
        let arguments = self.text.split_once('(')?.1;
        let (number, rest) = arguments.split_once('<')?;
        number
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| rest.split_once('>').map(|(path, _)| path))?
    }

    /// Its arguments that are strings, as they were in memory.
    pub(crate) fn strings(&self) -> Vec<Vec<u8>> {
        let (mut strings, mut open) = (Vec::new(), None::<Vec<u8>>);
        let mut bytes = self.text.bytes();
        while let Some(byte) = bytes.next() {
            match (&mut open, byte) {
                (None, b'"') => open = Some(Vec::new()),
                (None, _) => {}
                (Some(_), b'"') => strings.extend(open.take()),
                (Some(string), b'\\') => string.push(unescape(&mut bytes)),
                (Some(string), byte) => string.push(byte),
            }
        }
        strings
    }

    /// Its arguments that are plain numbers, behind the last string.
    pub(crate) fn numbers(&self) -> Vec<usize> {
        let arguments = self.text.rsplit_once(") ").map_or("", |(arguments, _)| arguments);
        let behind = arguments.rsplit_once('"').map_or(arguments, |(_, behind)| behind);
        behind.split(", ").filter_map(|word| word.trim().parse().ok()).collect()
    }
}

fn unescape(bytes: &mut impl Iterator<Item = u8>) -> u8 {
    match bytes.next().unwrap() {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'f' => 0x0c,
        b'x' => {
            let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
            u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
        }
        other => other,
    }
}

/// All calls, by their end.
pub(crate) struct Trace {
    pub(crate) calls: Vec<Call>,
}

impl Trace {
    pub(crate) fn parse(log: &str) -> Trace {
        let mut calls = Vec::new();
        let mut unfinished: HashMap<&str, (usize, String)> = HashMap::new();
        for (line, text) in log.lines().enumerate() {
            let Some((thread, text)) = text.split_once(' ') else { continue };
            let text = text.trim_start();
            if let Some(begun) = text.strip_suffix(" <unfinished ...>") {
                unfinished.insert(thread, (line, begun.to_owned()));
                continue;
            }
            let (start, whole) = match text.strip_prefix("<... ") {
                Some(rest) => {
                    let Some((start, begun)) = unfinished.remove(thread) else { continue };
                    let rest = rest.split_once(" resumed>").map_or("", |(_, rest)| rest);
                    (start, begun + rest)
                }
                None => (line, text.to_owned()),
            };
            let Some((name, _)) = whole.split_once('(') else { continue };
            let result = whole.rsplit_once(" = ").map_or("?", |(_, result)| result);
            let ok = !result.starts_with('-') && !result.starts_with('?');
            calls.push(Call { start, end: line, name: name.to_owned(), ok, text: whole });
        }
        Trace { calls }
    }

    /// The first call from line `from` on that is so.
    pub(crate) fn first(&self, from: usize, is: impl Fn(&Call) -> bool) -> Option<&Call> {
        self.calls.iter().find(|call| call.start >= from && is(call))
    }

    /// The call that brought the line of a request, which may have come in two pieces.
    pub(crate) fn arrival(&self, line: &str) -> Option<&Call> {
        let mut before: HashMap<&str, &str> = HashMap::new();
        self.calls.iter().filter(|call| call.reads()).find(|call| {
            let Some((descriptor, bytes)) = call.text.split_once(", \"") else { return false };
            let Some((bytes, _)) = bytes.rsplit_once('"') else { return false };
            let earlier = before.insert(descriptor, bytes).unwrap_or("");
            format!("{earlier}{bytes}").contains(line)
        })
    }
}
