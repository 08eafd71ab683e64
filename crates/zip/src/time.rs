//! Times in headers: always from UTC, so that the host's time zone reaches no byte.

const DAY: i64 = 86_400;
/// 1980-01-01T00:00:00Z, the first moment the DOS format can say.
const DOS_FIRST: i64 = 315_532_800;
/// 2107-12-31T23:59:58Z, the last one.
const DOS_LAST: i64 = 4_354_819_198;

/// MS-DOS `(time, date)` in UTC (4.4.6): two-second steps, rounded down, clamped to 1980..=2107.
pub(crate) fn dos(modified: i64) -> (u16, u16) {
    let seconds = modified.clamp(DOS_FIRST, DOS_LAST);
    let (year, month, day) = civil(seconds / DAY);
    let rest = seconds % DAY;
    let time = (rest / 3_600) << 11 | (rest % 3_600 / 60) << 5 | (rest % 60 / 2);
    let date = (year - 1980) << 9 | month << 5 | day;
    (time as u16, date as u16)
}

/// The 32-bit seconds of the `UT` extra field (0x5455), clamped to 0..=2^31-1: readers disagree whether the field is
/// signed, and in this span both readings are the same.
pub(crate) fn unix(modified: i64) -> u32 {
    modified.clamp(0, i64::from(i32::MAX)) as u32
}

/// Gregorian `(year, month, day)` of a day number counted from 1970-01-01, for days >= 0.
///
/// Years are counted from March, so the leap day is the last of its year and month lengths follow one formula.
fn civil(days: i64) -> (i64, i64, i64) {
    // Day 0 of the count is 0000-03-01; an era is 400 years.
    let since = days + 719_468;
    let era = since / 146_097;
    let of_era = since % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(modified: i64) -> (u16, u16, u16, u16, u16, u16) {
        let (time, date) = dos(modified);
        (1980 + (date >> 9), date >> 5 & 15, date & 31, time >> 11, time >> 5 & 63, (time & 31) * 2)
    }

    #[test]
    fn known_moments() {
        assert_eq!(fields(1_700_000_001), (2023, 11, 14, 22, 13, 20));
        assert_eq!(fields(951_868_799), (2000, 2, 29, 23, 59, 58));
        assert_eq!(fields(951_868_800), (2000, 3, 1, 0, 0, 0));
        assert_eq!(fields(4_107_542_400), (2100, 3, 1, 0, 0, 0));
        assert_eq!(fields(4_107_542_399), (2100, 2, 28, 23, 59, 58));
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..60_000 {
            assert_eq!(civil(days), (year, month, day));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = match month {
                2 if leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > last {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }

    #[test]
    fn clamped_at_both_ends() {
        for early in [i64::MIN, -1, 0, DOS_FIRST - 1, DOS_FIRST] {
            assert_eq!(fields(early), (1980, 1, 1, 0, 0, 0));
        }
        for late in [DOS_LAST, DOS_LAST + 1, i64::MAX] {
            assert_eq!(fields(late), (2107, 12, 31, 23, 59, 58));
        }
        assert_eq!((unix(-1), unix(5), unix(1 << 31), unix(i64::MAX)), (0, 5, 0x7FFF_FFFF, 0x7FFF_FFFF));
    }
}
