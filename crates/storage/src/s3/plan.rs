//! How a stage is cut into the parts of a multipart upload: a function of what is known when it is made.
//!
//! A *slot* is a run of bytes that becomes one part. Its number follows from where it begins, and from who writes it: each
//! slot has several numbers, *lanes*, so that what a displaced writer had under way cannot take the place of what another one
//! was acknowledged for. S3 wants numbers that ascend and 10,000 at most, not that they have no gaps.

use carrack_domain::{Code, Error, Result};

/// The least that S3 takes as a part that is not the last.
pub(super) const PART_BYTES_MIN: u64 = 5 << 20;
/// A part unless something speaks for another size.
const PART_BYTES: u64 = 8 << 20;
/// The most numbers that S3 has.
const NUMBERS: u64 = 10_000;
/// Parts grow rather than be more than these, so that lanes are left.
const SLOTS_COMFORT: u64 = 2_500;
/// More lanes than these are of no use.
const LANES_MAX: u64 = 100;
/// Of an unknown length: as many slots of each size, doubled three times, and the lanes of each.
const GROWTH_SLOTS: u64 = 1_000;
const GROWTH_STEPS: u64 = 3;
const GROWTH_LANES: u32 = 2;
/// The least lanes of which one can be for those who send parts past this process.
const DIRECT_LANES: u32 = 2;

/// See the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// Bytes of a slot, of the first ones when they grow.
    pub(super) part: u64,
    /// Bytes of the whole, if they were known.
    pub(super) size: Option<u64>,
    /// Numbers of each slot; 0: the whole is smaller than a part and is put as one object.
    pub(super) lanes: u32,
    /// Whether the last lane is for those who send parts past this process.
    pub(super) direct: bool,
}

/// See [`Plan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) index: u64,
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Plan {
    /// A plan for `size` bytes that come in extents of `extent` bytes, of parts of at most `most` bytes. `too_large` for
    /// what does not fit into 10,000 of these.
    pub(super) fn new(size: Option<u64>, extent: Option<u64>, most: u64) -> Result<Plan> {
        let Some(size) = size else {
            return Ok(Plan {
                part: PART_BYTES.min(most >> GROWTH_STEPS).max(PART_BYTES_MIN),
                size,
                lanes: GROWTH_LANES,
                direct: false,
            });
        };
        let aligned = extent.and_then(|extent| {
            let pieces =
                (extent.div_ceil(most)..=extent / PART_BYTES_MIN).find(|n| *n > 0 && extent % n == 0)?;
            Some(extent / pieces)
        });
        let mut part = aligned.unwrap_or(PART_BYTES.min(most));
        while aligned.is_none() && size.div_ceil(part) > SLOTS_COMFORT && part * 2 <= most {
            part *= 2;
        }
        if size.div_ceil(part) > NUMBERS {
            part = size.div_ceil(NUMBERS);
        }
        if part > most {
            return Err(Error::new(
                Code::TooLarge,
                format!(
                    "Files of more than {} bytes are more than this server can store in S3.",
                    most * NUMBERS
                ),
            ));
        }
        let slots = size.div_ceil(part);
        let lanes = if slots <= 1 { 0 } else { (NUMBERS / slots).min(LANES_MAX) as u32 };
        Ok(Plan { part, size: Some(size), lanes, direct: false })
    }

    /// The plan with a lane for those who send parts past this process, where that is possible: what comes in extents that
    /// are slots, and has a number left for each.
    pub(super) fn with_direct(self, extent: u64) -> Plan {
        let lanes = match self.size {
            Some(size) if self.part == extent && size > 0 => {
                if size <= self.part {
                    DIRECT_LANES
                } else {
                    self.lanes
                }
            }
            Some(_) | None => 0,
        };
        if lanes < DIRECT_LANES { self } else { Plan { lanes, direct: true, ..self } }
    }

    /// Writers in processes like this one that can write parts.
    pub(super) fn writers(&self) -> u32 {
        self.lanes - u32::from(self.direct)
    }

    /// The lane of those who send parts past this process.
    pub(super) fn direct_lane(&self) -> Option<u32> {
        self.direct.then(|| self.writers())
    }

    /// The slot that the byte at `offset` is in; `too_large` for one that no part can hold.
    pub(super) fn slot(&self, offset: u64) -> Result<Slot> {
        let (index, start, len) = match self.size {
            Some(_) => (offset / self.part, offset - offset % self.part, self.part),
            None => self.growing(offset),
        };
        let end = self.size.map_or(start + len, |size| (start + len).min(size.max(offset + 1)));
        if index >= NUMBERS / u64::from(self.lanes.max(1)) {
            return Err(Error::new(
                Code::TooLarge,
                "The upload has no announced length and has outgrown what can be stored then. Begin again, with its length.",
            ));
        }
        Ok(Slot { index, start, end })
    }

    fn growing(&self, offset: u64) -> (u64, u64, u64) {
        let (mut begin, mut first, mut len) = (0, 0, self.part);
        for _ in 0..GROWTH_STEPS {
            let end = begin + GROWTH_SLOTS * len;
            if offset < end {
                break;
            }
            (begin, first, len) = (end, first + GROWTH_SLOTS, len * 2);
        }
        let within = (offset - begin) / len;
        (first + within, begin + within * len, len)
    }

    /// The part number of a slot in a lane.
    pub(super) fn number(&self, slot: Slot, lane: u32) -> u64 {
        1 + slot.index * u64::from(self.lanes) + u64::from(lane)
    }

    /// Where the slot begins that has this number in the direct lane, if it is one of those.
    pub(super) fn direct_offset(&self, number: u64) -> Option<u64> {
        let lanes = u64::from(self.lanes);
        let (index, lane) = ((number.checked_sub(1)?).checked_div(lanes)?, (number - 1) % lanes);
        (self.direct_lane().map(u64::from) == Some(lane)).then_some(index * self.part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOST: u64 = 64 << 20;

    #[test]
    fn parts_are_those_of_the_client_where_that_fits() {
        let part = |size, extent| Plan::new(Some(size), Some(extent), MOST).unwrap().part;
        assert_eq!(part(1 << 30, 8 << 20), 8 << 20);
        assert_eq!(part(1 << 30, 10_000_000), 10_000_000);
        assert_eq!(part(10 << 30, 1 << 30), 64 << 20);
        assert_eq!(part(1 << 30, 1 << 20), 8 << 20, "too small for S3");
        assert_eq!(Plan::new(Some(5), None, MOST).unwrap().lanes, 0, "one object");
        assert_eq!(Plan::new(Some(1 << 40), None, MOST).unwrap_err().code(), Code::TooLarge);
        assert_eq!(Plan::new(Some(100 << 30), None, MOST).unwrap().part, 64 << 20);
    }

    #[test]
    fn one_lane_is_for_those_who_send_past_this_process() {
        let plan = |size, extent| Plan::new(Some(size), Some(extent), MOST).unwrap().with_direct(extent);
        let many = plan(1 << 30, 8 << 20);
        assert_eq!((many.lanes, many.writers(), many.direct_lane()), (78, 77, Some(77)));
        let slot = many.slot(24 << 20).unwrap();
        assert_eq!(many.direct_offset(many.number(slot, 77)), Some(24 << 20));
        assert_eq!(many.direct_offset(many.number(slot, 76)), None);
        assert_eq!(many.direct_offset(0), None);
        assert_eq!((plan(5, 8 << 20).lanes, plan(5, 8 << 20).direct_lane()), (2, Some(1)), "a single part");
        for other in
            [plan(1 << 30, 1 << 20), plan(10 << 30, 1 << 30), plan(0, 8 << 20), plan(60 << 30, 8 << 20)]
        {
            assert_eq!((other.direct_lane(), other.writers()), (None, other.lanes), "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn slots_cover_everything_and_numbers_ascend(size in proptest::option::of(1..600_u64 << 30), at in 0..150_u64 << 30) {
            let plan = Plan::new(size, None, MOST).unwrap();
            let at = size.map_or(at, |size| at % size);
            let slot = plan.slot(at).unwrap();
            prop_assert!(slot.start <= at && at < slot.end);
            let last = plan.number(slot, plan.lanes.saturating_sub(1));
            prop_assert!((1..=NUMBERS).contains(&last));
            if size.is_none_or(|size| slot.end < size) {
                prop_assert!(slot.end - slot.start >= PART_BYTES_MIN);
                let next = plan.slot(slot.end).unwrap();
                prop_assert_eq!((next.index, next.start), (slot.index + 1, slot.end));
                prop_assert!(plan.number(next, 0) > last);
            }
        }
    }
}
