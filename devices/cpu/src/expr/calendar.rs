//! The proleptic Gregorian calendar: days since 1970-01-01 to year, month and day, and back.
//!
//! After H. Hinnant, "chrono-compatible low-level date algorithms": eras of 400 years that begin on 1 March.

use crate::number::map_values;

/// Days of 0001-01-01 and 9999-12-31: what the 32-bit loops take.
pub(super) const COMMON_DAYS: (i64, i64) = (-719_162, 2_932_896);

const DAYS_PER_ERA: i64 = 146_097;
/// From 0000-03-01 to 1970-01-01.
const EPOCH: i64 = 719_468;

/// A day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Civil {
    pub(super) year: i64,
    /// From 1.
    pub(super) month: i64,
    /// From 1.
    pub(super) day: i64,
}

/// The day of any number that 48 bits hold.
pub(super) fn civil(days: i64) -> Civil {
    let shifted = days.wrapping_add(EPOCH);
    let era = shifted.div_euclid(DAYS_PER_ERA);
    let (year, month, day) = of_era(shifted.rem_euclid(DAYS_PER_ERA) as u32);
    Civil {
        year: i64::from(year) + era * 400,
        month: month.into(),
        day: day.into(),
    }
}

/// Year, month and day of a day of an era.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "loops over it must take on the features of their caller"
)]
fn of_era(day_of_era: u32) -> (u32, u32, u32) {
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + u32::from(month <= 2), month, day)
}

/// Days since 1970-01-01.
pub(super) fn days_of(civil: Civil) -> i64 {
    let year = civil.year - i64::from(civil.month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted = (civil.month + 9) % 12;
    let day_of_year = (153 * shifted + 2) / 5 + civil.day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * DAYS_PER_ERA + day_of_era - EPOCH
}

/// The same day of a later (or earlier) month, clipped to the month's last day.
pub(super) fn add_months(days: i64, months: i64) -> i64 {
    let Civil { year, month, day } = civil(days);
    let shifted = year * 12 + month - 1 + months;
    let (year, month) = (shifted.div_euclid(12), shifted.rem_euclid(12) + 1);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    days_of(Civil {
        year,
        month,
        day: day.min(last),
    })
}

/// The ISO week, from 1 to 53.
pub(super) fn iso_week(days: i64) -> i64 {
    // The Thursday of the week lies in the year that the week counts for.
    let thursday = days - (days + 3).rem_euclid(7) + 3;
    let year = civil(thursday).year;
    let first = days_of(Civil { year, month: 1, day: 1 });
    (thursday - first) / 7 + 1
}

/// Years of days within [`COMMON_DAYS`].
#[inline(always)]
#[allow(clippy::inline_always, reason = "the loop must take on the features of its caller")]
pub(super) fn years(days: &[i32]) -> Vec<i32> {
    map_values(days, |days| {
        let shifted = days.wrapping_add(EPOCH as i32) as u32;
        let era = shifted / DAYS_PER_ERA as u32;
        (of_era(shifted - era * DAYS_PER_ERA as u32).0 + era * 400) as i32
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_civil_are_inverse() {
        let mut expected = Civil {
            year: 1,
            month: 1,
            day: 1,
        };
        for days in COMMON_DAYS.0..=COMMON_DAYS.0 + 400_000 {
            assert_eq!(civil(days), expected);
            assert_eq!(days_of(expected), days);
            let next = civil(days + 1);
            assert!(next.day == expected.day + 1 || next.day == 1);
            expected = next;
        }
        let known = |year, month, day| Civil { year, month, day };
        assert_eq!(civil(0), known(1970, 1, 1));
        assert_eq!(civil(-1), known(1969, 12, 31));
        assert_eq!(civil(11_016), known(2000, 2, 29));
        assert_eq!(civil(COMMON_DAYS.0), known(1, 1, 1));
        assert_eq!(civil(COMMON_DAYS.1), known(9999, 12, 31));
        assert_eq!(civil(-719_529), known(-1, 12, 31).with_year(-1));
    }

    impl Civil {
        fn with_year(mut self, year: i64) -> Self {
            self.year = year;
            self
        }
    }

    #[test]
    fn months_clip() {
        let day = |year, month, day| days_of(Civil { year, month, day });
        assert_eq!(add_months(day(2024, 1, 31), 1), day(2024, 2, 29));
        assert_eq!(add_months(day(2023, 1, 31), 1), day(2023, 2, 28));
        assert_eq!(add_months(day(2024, 2, 29), 12), day(2025, 2, 28));
        assert_eq!(add_months(day(2024, 3, 31), -1), day(2024, 2, 29));
        assert_eq!(add_months(day(2024, 1, 15), -13), day(2022, 12, 15));
    }

    #[test]
    fn weeks_are_iso() {
        let day = |year, month, day| days_of(Civil { year, month, day });
        assert_eq!(iso_week(day(2021, 1, 3)), 53);
        assert_eq!(iso_week(day(2021, 1, 4)), 1);
        assert_eq!(iso_week(day(2024, 12, 30)), 1);
        assert_eq!(iso_week(day(2020, 12, 31)), 53);
    }
}
