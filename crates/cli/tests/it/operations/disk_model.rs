//! A disk that forgets: what strace saw a server do to its data folder, played back as a power cut may have left it.
//!
//! Only what was synced is sure to be there. A sync covers what had returned before the sync began: of a file its content and length,
//! of a folder the names in it, `syncfs` everything. What was not synced is there as [`Mercy`] has it. Names that
//! were not synced go in the order they came, the last first, as from a journal; blocks of content go one by one.

use super::strace::{Call, Trace};
use super::writer::Dice;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Content is written, or lost, in blocks of so many bytes.
const BLOCK_BYTES: usize = 4096;

/// What becomes of that which was not synced.
pub(crate) enum Mercy {
    /// Gone.
    None,
    /// All of it is there: what is left when a process dies and the machine does not.
    All,
    /// As the dice say.
    Dice(Dice),
}

enum Event {
    Write {
        inode: usize,
        offset: usize,
        bytes: Vec<u8>,
    },
    Length {
        inode: usize,
        bytes: usize,
    },
    /// Names come to mean an inode, or nothing, both of a rename at once: filesystems that can do without a check after
    /// a power cut see to that.
    Names(Vec<(String, Option<usize>)>),
    Sync(Reach),
}

enum Reach {
    Everything,
    Inode(usize),
    Folder(String),
}

/// What happened to a folder, by the lines of the log on which calls began and ended.
pub(crate) struct Disk {
    /// Contents at the beginning, by inode.
    contents: Vec<Vec<u8>>,
    /// Names at the beginning.
    names: BTreeMap<String, usize>,
    events: Vec<(usize, usize, Event)>,
}

impl Disk {
    /// A folder as it is now, all of it durable.
    pub(crate) fn of(folder: &Path) -> Disk {
        let mut disk = Disk { contents: Vec::new(), names: BTreeMap::new(), events: Vec::new() };
        let mut folders = vec![folder.to_owned()];
        while let Some(next) = folders.pop() {
            for entry in std::fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    disk.names.insert(path.to_str().unwrap().to_owned(), disk.contents.len());
                    disk.contents.push(std::fs::read(path).unwrap());
                }
            }
        }
        disk
    }

    /// Adds what a trace says was done below `folder`.
    pub(crate) fn record(&mut self, folder: &Path, trace: &Trace) {
        let folder = folder.to_str().unwrap();
        let mut recorder = Recorder { now: self.names.clone(), before: HashMap::new(), disk: self };
        for call in trace.calls.iter().filter(|call| call.ok) {
            recorder.record(folder, call);
        }
    }

    /// How many calls changed something.
    pub(crate) fn changes(&self) -> usize {
        self.events.iter().filter(|(_, _, event)| !matches!(event, Event::Sync(_))).count()
    }

    /// What is found after a power cut at this line of the log: names and contents.
    pub(crate) fn after(&self, cut: usize, mut mercy: Mercy) -> BTreeMap<String, Vec<u8>> {
        let (mut contents, mut names) = (self.contents.clone(), self.names.clone());
        let begun: Vec<_> = self.events.iter().filter(|(start, _, _)| *start <= cut).collect();
        let is_durable = |end: usize, event: &Event| {
            let mut syncs = begun.iter().filter(|(start, done, _)| *start > end && *done <= cut);
            syncs.any(|(_, _, sync)| matches!(sync, Event::Sync(reach) if reach.covers(event)))
        };
        let unsure = begun
            .iter()
            .filter(|(_, end, event)| matches!(event, Event::Names(_)) && !is_durable(*end, event));
        let mut names_kept = mercy.of_names(unsure.count() as u64);
        for (_, end, event) in &begun {
            let durable = is_durable(*end, event);
            match event {
                Event::Write { inode, offset, bytes } => {
                    let content = &mut contents[*inode];
                    let mut done = 0;
                    while done < bytes.len() {
                        let at = offset + done;
                        let len = (BLOCK_BYTES - at % BLOCK_BYTES).min(bytes.len() - done);
                        if durable || mercy.keeps() {
                            let length = content.len().max(at + len);
                            content.resize(length, 0);
                            content[at..at + len].copy_from_slice(&bytes[done..done + len]);
                        }
                        done += len;
                    }
                }
                Event::Length { inode, bytes } if durable || mercy.keeps() => {
                    contents[*inode].resize(*bytes, 0)
                }
                Event::Names(changed) if durable || names_kept > 0 => {
                    names_kept -= u64::from(!durable);
                    for (path, inode) in changed {
                        match inode {
                            Some(inode) => drop(names.insert(path.clone(), *inode)),
                            None => drop(names.remove(path)),
                        }
                    }
                }
                Event::Names(_) => {}
                Event::Length { .. } | Event::Sync(_) => {}
            }
        }
        names.into_iter().map(|(path, inode)| (path, contents[inode].clone())).collect()
    }
}

impl Mercy {
    fn keeps(&mut self) -> bool {
        match self {
            Mercy::None => false,
            Mercy::All => true,
            Mercy::Dice(dice) => dice.below(2) == 0,
        }
    }

    fn of_names(&mut self, many: u64) -> u64 {
        match self {
            Mercy::None => 0,
            Mercy::All => many,
            Mercy::Dice(dice) => dice.below(many + 1),
        }
    }
}

impl Reach {
    fn covers(&self, event: &Event) -> bool {
        match (self, event) {
            (Reach::Everything, _) => true,
            (Reach::Inode(synced), Event::Write { inode, .. } | Event::Length { inode, .. }) => {
                synced == inode
            }
            (Reach::Folder(folder), Event::Names(changed)) => {
                let parent = |path: &str| path.rsplit_once('/').is_some_and(|(parent, _)| parent == folder);
                changed.iter().any(|(path, _)| parent(path))
            }
            _ => false,
        }
    }
}

/// Turns calls into events.
struct Recorder<'a> {
    /// What names mean at this point of the log, and what they meant once.
    now: BTreeMap<String, usize>,
    before: HashMap<String, usize>,
    disk: &'a mut Disk,
}

impl Recorder<'_> {
    fn record(&mut self, folder: &str, call: &Call) {
        let strings = call.strings();
        let texts: Vec<String> = strings.iter().map(|s| String::from_utf8_lossy(s).into_owned()).collect();
        let number = |from_end: usize| call.numbers().iter().rev().nth(from_end).copied().unwrap_or(0);
        let opened = call.descriptor().filter(|path| path.starts_with(folder));
        match (call.name.as_str(), &texts[..]) {
            ("openat", [path, ..]) if path.starts_with(folder) && call.text.contains("O_CREAT") => {
                self.create(call, path);
            }
            ("rename" | "renameat" | "renameat2", [from, to]) if to.starts_with(folder) => {
                let inode = self.inode(from);
                self.names(call, &[(to, Some(inode)), (from, None)]);
            }
            ("unlink" | "unlinkat", [path]) if path.starts_with(folder) => self.names(call, &[(path, None)]),
            ("mkdir" | "mkdirat" | "link" | "linkat" | "symlink", [.., path]) => {
                assert!(!path.starts_with(folder), "the model knows no {}", call.text);
            }
            ("syncfs", _) => self.push(call, Event::Sync(Reach::Everything)),
            (name, _) => {
                let Some(path) = opened else { return };
                match name {
                    "pwrite64" => {
                        let (inode, offset) = (self.inode(path), number(0));
                        self.push(call, Event::Write { inode, offset, bytes: strings[0].clone() });
                    }
                    "ftruncate" => {
                        let (inode, bytes) = (self.inode(path), number(0));
                        self.push(call, Event::Length { inode, bytes });
                    }
                    "fallocate" => {
                        let (inode, bytes) = (self.inode(path), number(0) + number(1));
                        self.push(call, Event::Length { inode, bytes });
                    }
                    "fsync" | "fdatasync" if Path::new(path).is_dir() => {
                        self.push(call, Event::Sync(Reach::Folder(path.to_owned())));
                    }
                    "fsync" | "fdatasync" => {
                        let inode = self.inode(path);
                        self.push(call, Event::Sync(Reach::Inode(inode)));
                    }
                    "write" | "writev" | "pwritev" | "pwritev2" | "copy_file_range" => {
                        panic!("the model knows no {}", &call.text[..call.text.len().min(200)])
                    }
                    _ => {}
                }
            }
        }
    }

    fn create(&mut self, call: &Call, path: &str) {
        match self.now.get(path).copied() {
            None => {
                self.disk.contents.push(Vec::new());
                self.names(call, &[(path, Some(self.disk.contents.len() - 1))]);
            }
            Some(inode) if call.text.contains("O_TRUNC") => {
                self.push(call, Event::Length { inode, bytes: 0 })
            }
            Some(_) => {}
        }
    }

    fn names(&mut self, call: &Call, changed: &[(&str, Option<usize>)]) {
        for (path, inode) in changed {
            let old = match inode {
                Some(inode) => self.now.insert((*path).to_owned(), *inode),
                None => self.now.remove(*path),
            };
            self.before.extend(old.map(|old| ((*path).to_owned(), old)));
        }
        let changed = changed.iter().map(|(path, inode)| ((*path).to_owned(), *inode)).collect();
        self.push(call, Event::Names(changed));
    }

    fn inode(&self, path: &str) -> usize {
        let known = self.now.get(path).or_else(|| self.before.get(path));
        *known.unwrap_or_else(|| panic!("a file that was never made: {path}"))
    }

    fn push(&mut self, call: &Call, event: Event) {
        self.disk.events.push((call.start, call.end, event));
    }
}
