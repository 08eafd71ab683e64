//! What a stage's bytes are stored as, written down for the ledger: which writer's part of a slot counts, and which objects
//! hold what is not a whole slot yet. Text, a line for each run: `p FROM UNTIL LANE`, `l FROM UNTIL NAME CRC32`, `w FROM UNTIL`,
//! `d FROM UNTIL LANE MARK`.

use aws_lc_rs::digest;
use carrack_domain::upload::Receipt;
use carrack_domain::{Error, Result};
use std::fmt::Write;

/// Bytes from one offset until another, and where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) from: u64,
    pub(super) until: u64,
    pub(super) place: Place,
}

/// See [`Run`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Whole slots, as parts in this lane.
    Parts(u32),
    /// An object of its own, by its random name, with its CRC-32.
    Loose(u64, u32),
    /// The final object.
    Whole,
    /// A whole slot, as a part in this lane that came to S3 past us: who sent it may send it again, so only the one with
    /// this [`mark`] counts.
    Direct(u32, u128),
}

/// What tells a part from another under the same number: of its ETag.
pub(super) fn mark(e_tag: &str) -> u128 {
    let hash = digest::digest(&digest::SHA256, e_tag.trim_matches('"').as_bytes());
    u128::from_be_bytes(std::array::from_fn(|at| hash.as_ref()[at]))
}

impl Run {
    pub(super) fn len(&self) -> u64 {
        self.until - self.from
    }
}

/// Runs in order. What is added later takes the place of what it covers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Runs(Vec<Run>);

impl Runs {
    pub(super) fn parse(receipt: &Receipt) -> Result<Runs> {
        let damaged = || Error::broken("a receipt that cannot be read");
        let text = std::str::from_utf8(receipt).map_err(|_| damaged())?;
        let mut runs = Runs::default();
        for line in text.lines() {
            runs.add(parse(line).ok_or_else(damaged)?);
        }
        Ok(runs)
    }

    pub(super) fn encode(&self) -> Receipt {
        let mut text = String::new();
        for Run { from, until, place } in &self.0 {
            // Writing to a string does not fail.
            let _written = match place {
                Place::Parts(lane) => writeln!(text, "p {from} {until} {lane}"),
                Place::Loose(name, crc32) => writeln!(text, "l {from} {until} {name:016x} {crc32:08x}"),
                Place::Whole => writeln!(text, "w {from} {until}"),
                Place::Direct(lane, mark) => writeln!(text, "d {from} {until} {lane} {mark:032x}"),
            };
        }
        text.into()
    }

    pub(super) fn add(&mut self, run: Run) {
        self.0.retain(|other| other.from < run.from || other.until > run.until);
        let at = self.0.partition_point(|other| other.from < run.from);
        self.0.insert(at, run);
        self.join(at);
        if at > 0 {
            self.join(at - 1);
        }
    }

    /// Makes one run of parts of the one at `at` and the next, where they are neighbours in a lane.
    fn join(&mut self, at: usize) {
        if let [one, next] = self.0.get(at..at + 2).unwrap_or_default()
            && one.until == next.from
            && one.place == next.place
            && matches!(one.place, Place::Parts(_))
        {
            self.0[at].until = self.0[at + 1].until;
            self.0.remove(at + 1);
        }
    }

    pub(super) fn extend(&mut self, other: Runs) {
        other.0.into_iter().for_each(|run| self.add(run));
    }

    /// Whether any of it is in objects of their own.
    pub(super) fn has_loose(&self) -> bool {
        self.0.iter().any(|run| matches!(run.place, Place::Loose(..)))
    }

    /// The loose runs that make up exactly these bytes; `None` when they do not.
    pub(super) fn loose(&self, from: u64, until: u64) -> Option<Vec<Run>> {
        let mut found = Vec::new();
        let mut at = from;
        for run in self.0.iter().filter(|run| run.from >= from && run.until <= until) {
            if run.from != at || !matches!(run.place, Place::Loose(..)) {
                return None;
            }
            at = run.until;
            found.push(*run);
        }
        (at == until).then_some(found)
    }

    /// The lane of the parts that hold these bytes.
    pub(super) fn lane(&self, from: u64, until: u64) -> Option<u32> {
        self.0.iter().find_map(|run| match run.place {
            Place::Parts(lane) if run.from <= from && until <= run.until => Some(lane),
            Place::Parts(_) | Place::Loose(..) | Place::Whole | Place::Direct(..) => None,
        })
    }

    /// The lane and the mark of the part that came past us and holds exactly these bytes.
    pub(super) fn direct(&self, from: u64, until: u64) -> Option<(u32, u128)> {
        self.0.iter().find_map(|run| match run.place {
            Place::Direct(lane, mark) if (run.from, run.until) == (from, until) => Some((lane, mark)),
            Place::Parts(_) | Place::Loose(..) | Place::Whole | Place::Direct(..) => None,
        })
    }

    /// Whether the final object has these bytes.
    pub(super) fn is_whole(&self, size: u64) -> bool {
        self.0.iter().any(|run| run.place == Place::Whole && run.from == 0 && run.until == size)
    }
}

fn parse(line: &str) -> Option<Run> {
    let mut words = line.split(' ');
    let kind = words.next()?;
    let (from, until) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let place = match kind {
        "p" => Place::Parts(words.next()?.parse().ok()?),
        "l" => Place::Loose(
            u64::from_str_radix(words.next()?, 16).ok()?,
            u32::from_str_radix(words.next()?, 16).ok()?,
        ),
        "w" => Place::Whole,
        "d" => Place::Direct(words.next()?.parse().ok()?, u128::from_str_radix(words.next()?, 16).ok()?),
        _ => return None,
    };
    (words.next().is_none() && from < until).then_some(Run { from, until, place })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(from: u64, until: u64, place: Place) -> Run {
        Run { from, until, place }
    }

    #[test]
    fn they_are_read_as_they_were_written() {
        let mut runs = Runs::default();
        for part in [run(8, 16, Place::Parts(1)), run(0, 8, Place::Parts(1)), run(16, 20, Place::Loose(7, 9))]
        {
            runs.add(part);
        }
        assert_eq!(&runs.encode()[..], b"p 0 16 1\nl 16 20 0000000000000007 00000009\n");
        assert_eq!(Runs::parse(&runs.encode()).unwrap(), runs);
        let direct = run(0, 8, Place::Direct(3, mark("\"e\"")));
        let mut runs = Runs::default();
        runs.add(direct);
        runs.add(run(8, 16, Place::Direct(3, mark("f"))));
        assert_eq!(Runs::parse(&runs.encode()).unwrap(), runs);
        assert_eq!(runs.direct(0, 8), Some((3, mark("e"))));
        assert_eq!((runs.direct(0, 16), runs.lane(0, 8), mark("e") == mark("f")), (None, None, false));
        for bad in ["d 0 1 0", "d 0 1 0 x", "x 0 1", "p 0 1", "p 1 1 0", "l 0 1 g 0", "w 0 1 2", "p 0 1 2 3"]
        {
            assert!(Runs::parse(&Receipt::copy_from_slice(bad.as_bytes())).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_comes_later_takes_the_place_of_what_it_covers() {
        let mut runs = Runs::default();
        runs.add(run(0, 3, Place::Loose(1, 0)));
        runs.add(run(3, 5, Place::Loose(2, 0)));
        assert_eq!(runs.loose(0, 5).unwrap().len(), 2);
        assert_eq!(runs.loose(0, 6), None);
        runs.add(run(0, 8, Place::Parts(2)));
        assert_eq!((runs.lane(0, 8), runs.lane(0, 9), runs.has_loose()), (Some(2), None, false));
        runs.add(run(8, 16, Place::Parts(3)));
        assert_eq!((runs.lane(8, 16), runs.lane(0, 16)), (Some(3), None));
    }
}
