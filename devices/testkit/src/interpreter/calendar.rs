//! The proleptic Gregorian calendar, in plain integers: parts of dates and dates plus intervals.

use trireme_device_api::{DatePart, DeviceError, Interval, Type};

use super::overflow;

const NANOS_PER_SECOND: i128 = 1_000_000_000;
const SECONDS_PER_DAY: i128 = 86_400;

/// 260,000 years: what lies further from 1970 has no calendar in the libraries that variants use, and is not judged.
const DAYS_MAX: i128 = 95_000_000;

/// A day as year, month 1–12 and day 1–31.
fn civil(days: i128) -> (i128, i128, i128) {
    // Shifted so that a year starts in March: the leap day is the last of the year.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i128::from(month <= 2);
    (year, month, day)
}

/// Days since 1970-01-01.
fn days_of(year: i128, month: i128, day: i128) -> i128 {
    let year = year - i128::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn days_in_month(year: i128, month: i128) -> i128 {
    let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    days_of(next_year, next_month, 1) - days_of(year, month, 1)
}

/// Months later, the day clipped to the month's last.
fn add_months(days: i128, months: i128) -> i128 {
    let (year, month, day) = civil(days);
    let months = year * 12 + month - 1 + months;
    let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
    days_of(year, month, day.min(days_in_month(year, month)))
}

/// ISO 8601 week: week 1 holds the year's first Thursday.
fn iso_week(days: i128) -> i128 {
    let monday_based = (days + 3).rem_euclid(7);
    let thursday = days - monday_based + 3;
    let (year, _, _) = civil(thursday);
    (thursday - days_of(year, 1, 1)) / 7 + 1
}

fn judged(days: i128) -> Result<i128, DeviceError> {
    if days.abs() > DAYS_MAX {
        return Err(DeviceError::Unsupported(
            "dates beyond 260,000 years are not judged".to_owned(),
        ));
    }
    Ok(days)
}

/// A part of a date or timestamp.
pub(crate) fn extract(part: DatePart, value: i128, data_type: &Type) -> Result<i128, DeviceError> {
    let seconds = match data_type {
        Type::Date32 => value * SECONDS_PER_DAY,
        Type::Timestamp { unit, zone: None } => value.div_euclid(unit.per_second().into()),
        other => return Err(DeviceError::Unsupported(format!("EXTRACT from {other:?}"))),
    };
    let (days, second) = (seconds.div_euclid(SECONDS_PER_DAY), seconds.rem_euclid(SECONDS_PER_DAY));
    let (year, month, day) = civil(judged(days)?);
    Ok(match part {
        DatePart::Year => year,
        DatePart::Quarter => (month - 1) / 3 + 1,
        DatePart::Month => month,
        DatePart::Week => iso_week(days),
        DatePart::Day => day,
        DatePart::DayOfWeek => (days + 4).rem_euclid(7),
        DatePart::DayOfYear => days - days_of(year, 1, 1) + 1,
        DatePart::Hour => second / 3_600,
        DatePart::Minute => second / 60 % 60,
        DatePart::Second => second % 60,
    })
}

/// A date or local timestamp plus (`sign` 1) or minus (−1) an interval: months, then days, then nanoseconds. A date takes
/// only the whole days of the nanoseconds, truncated.
pub(crate) fn add_interval(value: i128, data_type: &Type, sign: i128, delta: Interval) -> Result<i128, DeviceError> {
    let (months, days) = (sign * i128::from(delta.months), sign * i128::from(delta.days));
    let nanos = sign * i128::from(delta.nanoseconds);
    let result = match data_type {
        Type::Date32 => {
            judged(value)?;
            let day = judged(add_months(value, months))?;
            day + days + nanos / (SECONDS_PER_DAY * NANOS_PER_SECOND)
        }
        Type::Timestamp { unit, zone: None } => {
            let per_day = SECONDS_PER_DAY * i128::from(unit.per_second());
            let nanos_per_unit = NANOS_PER_SECOND / i128::from(unit.per_second());
            let day = judged(add_months(judged(value.div_euclid(per_day))?, months))? + days;
            let units = day * per_day + value.rem_euclid(per_day);
            (units * nanos_per_unit + nanos).div_euclid(nanos_per_unit)
        }
        other => return Err(DeviceError::Unsupported(format!("{other:?} plus an interval"))),
    };
    match data_type.value_range() {
        Some((low, high)) if (low..=high).contains(&result) => Ok(result),
        _ => Err(overflow("date arithmetic")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn civil_is_the_inverse_of_days_over_three_eras() {
        let mut expected = (1600, 1, 1);
        for days in days_of(1600, 1, 1)..days_of(2801, 1, 1) {
            assert_eq!(civil(days), expected);
            assert_eq!(days_of(expected.0, expected.1, expected.2), days);
            let leap = expected.0 % 4 == 0 && (expected.0 % 100 != 0 || expected.0 % 400 == 0);
            let last = match expected.1 {
                2 => 28 + i128::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected.2 += 1;
            if expected.2 > last {
                expected = (expected.0, expected.1 + 1, 1);
            }
            if expected.1 > 12 {
                expected = (expected.0 + 1, 1, 1);
            }
        }
    }

    #[test]
    fn weeks_and_months_at_the_ends_of_years() {
        for (year, month, day, week) in [(2005, 1, 1, 53), (2005, 1, 3, 1), (2008, 12, 29, 1), (2010, 1, 3, 53)] {
            assert_eq!(iso_week(days_of(year, month, day)), week);
        }
        assert_eq!(add_months(days_of(2024, 1, 31), 1), days_of(2024, 2, 29));
        assert_eq!(add_months(days_of(2024, 3, 31), -13), days_of(2023, 2, 28));
        assert_eq!(extract(DatePart::DayOfWeek, 0, &Type::Date32), Ok(4));
    }
}
