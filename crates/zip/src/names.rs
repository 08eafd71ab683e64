//! Names for entries: safe on every system, unique even where case does not count.

mod fold;
mod safe;

pub use safe::safe_name;

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use fold::Folded;
use safe::{MAX_COMPONENT, cut, split_extension};

/// Room kept in a component for ` (` + up to 20 digits + `)`, so that the stem does not depend on the number.
const SUFFIX_ROOM: usize = 23;

/// The name an entry got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned<'a> {
    /// Safe and unique; borrowed if the wish was fulfilled.
    pub name: Cow<'a, str>,
    /// Whether it differs from the wish.
    pub renamed: bool,
}

/// Turns wished names into safe, unique ones. A name is only settled when all are known, because a file must make
/// way for a folder that a later name brings; hence first [`push`](Self::push) all, then [`assign`](Self::assign).
///
/// Rules: each name becomes what [`safe_name`] says. A name equal to an earlier one gets ` (1)`, ` (2)`, … before
/// its extension (folders: at the end). A file named like a folder that another entry is, or lives under, is renamed
/// the same way. "Equal" means equal after NFC and case folding, approximated by NFC, then lower, upper and lower
/// case character by character, then NFC: somewhat coarser than Unicode's simple folding (`ß` equals `ss`, `ς` equals
/// `σ`), which costs a needless rename at worst. Names are settled in input order; nothing else plays a part.
///
/// A repeated folder entry is renamed like any other; drop repeats beforehand if they mean the same folder.
#[derive(Debug, Default)]
pub struct EntryNames<'a> {
    wished: Vec<Assigned<'a>>,
    /// Folded paths without trailing `/` -> is there an entry of that name? (`false`: only a folder others live in.)
    /// Whole strings, so no collision of hashes can be made on purpose; never iterated, so the seed cannot show.
    seats: HashMap<Folded<'a>, bool>,
    /// Bytes of the last pushed name that are its folder.
    last_parent: usize,
}

impl<'a> EntryNames<'a> {
    /// No names so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, with room for `names` names.
    pub fn with_capacity(names: usize) -> Self {
        Self {
            wished: Vec::with_capacity(names),
            seats: HashMap::with_capacity(names + names / 16),
            last_parent: 0,
        }
    }

    /// All at once: one answer per wish, in the same order.
    pub fn assign_all(wished: impl IntoIterator<Item = &'a str>) -> Vec<Assigned<'a>> {
        let wished = wished.into_iter();
        let mut names = Self::with_capacity(wished.size_hint().0);
        for wish in wished {
            names.push(wish);
        }
        names.assign()
    }

    /// Adds a wish; a trailing `/` asks for a folder entry.
    pub fn push(&mut self, wish: &'a str) {
        let name = safe_name(wish);
        let parent = match name.strip_suffix('/') {
            Some(folder) => folder.len(),
            None => name.rfind('/').unwrap_or(0),
        };
        let known = self.wished.last().is_some_and(|last| {
            self.last_parent == parent && last.name.as_bytes()[..parent] == name.as_bytes()[..parent]
        });
        if parent > 0 && !known {
            self.seat_folders(&folded(&name, parent));
        }
        self.last_parent = parent;
        self.wished.push(Assigned { renamed: matches!(name, Cow::Owned(_)), name });
    }

    /// Notes `folder` and the folders it lies in, up to the first that is known, whose own are known as well.
    fn seat_folders(&mut self, folder: &Folded<'a>) {
        let mut end = folder.text().len();
        while !self.seats.contains_key(&folder.folder(end)) {
            self.seats.insert(folder.to_folder(end), false);
            match folder.text()[..end].rfind('/') {
                Some(slash) => end = slash,
                None => break,
            }
        }
    }

    /// Settles all names: one answer per push, in the same order.
    pub fn assign(mut self) -> Vec<Assigned<'a>> {
        let mut numbers = Numbers::default();
        for assigned in &mut self.wished {
            let path = assigned.name.strip_suffix('/').unwrap_or(&assigned.name).len();
            let folder = path < assigned.name.len();
            match self.seats.entry(folded(&assigned.name, path)) {
                Entry::Vacant(seat) => {
                    seat.insert(true);
                }
                Entry::Occupied(mut seat) if folder && !*seat.get() => {
                    seat.insert(true);
                }
                Entry::Occupied(_) => {
                    let name = numbers.next_free(&assigned.name[..path], folder, &mut self.seats);
                    *assigned = Assigned { name: Cow::Owned(name), renamed: true };
                }
            }
        }
        self.wished
    }
}

/// The key of the first `len` bytes of a safe name, borrowed from the wish where possible.
fn folded<'a>(name: &Cow<'a, str>, len: usize) -> Folded<'a> {
    Folded::new(match name {
        Cow::Borrowed(name) => Cow::Borrowed(&name[..len]),
        Cow::Owned(name) => Cow::Owned(name[..len].to_owned()),
    })
}

/// The last number given per stem and extension, so that a thousand equal names do not probe a million times.
#[derive(Default)]
struct Numbers(HashMap<Folded<'static>, u64>);

impl Numbers {
    /// The first free `stem (n).ext` for a path without trailing `/`; takes the seat.
    fn next_free(&mut self, path: &str, folder: bool, seats: &mut HashMap<Folded<'_>, bool>) -> String {
        let (parent, leaf) = path.split_at(path.rfind('/').map_or(0, |slash| slash + 1));
        let (stem, extension) = if folder { (leaf, "") } else { split_extension(leaf) };
        let stem = cut(stem, MAX_COMPONENT - SUFFIX_ROOM - extension.len());
        let kind = Folded::new(Cow::Owned(format!("{parent}{stem}/{extension}")));
        let number = self.0.entry(kind).or_insert(0);
        loop {
            *number += 1;
            let mut name = format!("{parent}{stem} ({number}){extension}");
            if let Entry::Vacant(seat) = seats.entry(Folded::new(Cow::Owned(name.clone()))) {
                seat.insert(true);
                if folder {
                    name.push('/');
                }
                return name;
            }
        }
    }
}
