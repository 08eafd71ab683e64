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
