//! Operations over columns of a sample: 64-bit numbers, floats, bytes, truth values.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use chrono::{DateTime, Datelike, NaiveDate, Timelike};
use trireme_device_api::{BinaryOperator, DatePart, Expr, TimeUnit, Type, Value};

use super::sketch::{TableSketch, Values};

/// Days from the first of January of year 1 to that of 1970.
const DAYS_TO_1970: i32 = 719_163;

/// Values of an expression by row.
pub(super) enum Lane<'a> {
    Ints(Cow<'a, [Option<i64>]>),
    Floats(Cow<'a, [Option<f64>]>),
    Bytes(Vec<Option<&'a [u8]>>),
    Truth(Vec<Option<bool>>),
}

impl Lane<'_> {
    pub(super) fn hash(&self, row: usize) -> u64 {
        let mut hasher = DefaultHasher::new();
        match self {
            Lane::Ints(values) => values[row].hash(&mut hasher),
            Lane::Floats(values) => values[row].map(f64::to_bits).hash(&mut hasher),
            Lane::Bytes(values) => values[row].hash(&mut hasher),
            Lane::Truth(values) => values[row].hash(&mut hasher),
        }
        hasher.finish()
    }

    pub(super) fn is_null(&self, row: usize) -> bool {
        match self {
            Lane::Ints(values) => values[row].is_none(),
            Lane::Floats(values) => values[row].is_none(),
            Lane::Bytes(values) => values[row].is_none(),
            Lane::Truth(values) => values[row].is_none(),
        }
    }
}

/// Rows that an expression is evaluated for.
#[derive(Clone, Copy)]
pub(super) struct Over<'r> {
    pub(super) sketch: &'r TableSketch,
    /// None: all.
    pub(super) rows: Option<&'r [u32]>,
}

impl Over<'_> {
    pub(super) fn len(self) -> usize {
        self.rows.map_or(self.sketch.sampled, <[u32]>::len)
    }
}

pub(super) fn of_values<'r>(values: &'r Values, over: Over<'r>) -> Option<Lane<'r>> {
    Some(match (values, over.rows) {
        (Values::Ints(values), None) => Lane::Ints(Cow::Borrowed(values)),
        (Values::Ints(values), Some(rows)) => Lane::Ints(rows.iter().map(|row| values[*row as usize]).collect()),
        (Values::Floats(values), None) => Lane::Floats(Cow::Borrowed(values)),
        (Values::Floats(values), Some(rows)) => Lane::Floats(rows.iter().map(|row| values[*row as usize]).collect()),
        (Values::Bytes(_), None) => Lane::Bytes((0..over.len()).map(|row| values.bytes(row)).collect()),
        (Values::Bytes(_), Some(rows)) => Lane::Bytes(rows.iter().map(|row| values.bytes(*row as usize)).collect()),
        (Values::None, _) => return None,
    })
}

pub(super) fn repeated<'e>(value: &'e Value, data_type: &Type, rows: usize) -> Option<Lane<'e>> {
    Some(match value {
        Value::Int(value) => Lane::Ints(vec![Some(i64::try_from(*value).ok()?); rows].into()),
        Value::Float(value) => Lane::Floats(vec![Some(*value); rows].into()),
        Value::Bytes(value) => Lane::Bytes(vec![Some(value.as_ref()); rows]),
        Value::Boolean(value) => Lane::Truth(vec![Some(*value); rows]),
        Value::Null if data_type.is_bytes() => Lane::Bytes(vec![None; rows]),
        Value::Null if *data_type == Type::Boolean => Lane::Truth(vec![None; rows]),
        Value::Null if data_type.is_float() => Lane::Floats(vec![None; rows].into()),
        Value::Null => Lane::Ints(vec![None; rows].into()),
        Value::Interval(_) => return None,
    })
}

fn scale(data_type: &Type) -> Option<i8> {
    match data_type {
        Type::Decimal { scale, .. } => Some(*scale),
        _ => None,
    }
}

fn zipped<T: Copy, R>(a: &[Option<T>], b: &[Option<T>], of: impl Fn(T, T) -> Option<R>) -> Vec<Option<R>> {
    a.iter().zip(b).map(|(a, b)| of((*a)?, (*b)?)).collect()
}

pub(super) fn binary<'e>(
    op: BinaryOperator,
    left: (&Expr, Lane<'e>),
    right: (&Expr, Lane<'e>),
    result: &Type,
) -> Option<Lane<'e>> {
    use BinaryOperator::{
        Add, And, Equal, Greater, GreaterOrEqual, Less, LessOrEqual, Multiply, NotEqual, Or, Subtract,
    };
    use std::cmp::Ordering;
    let scales = (scale(&left.0.data_type), scale(&right.0.data_type));
    let holds = |order: Ordering| match op {
        Equal => order.is_eq(),
        NotEqual => order.is_ne(),
        Less => order.is_lt(),
        LessOrEqual => order.is_le(),
        Greater => order.is_gt(),
        _ => order.is_ge(),
    };
    let compares = matches!(op, Equal | NotEqual | Less | LessOrEqual | Greater | GreaterOrEqual);
    match (left.1, right.1) {
        (Lane::Truth(a), Lane::Truth(b)) if matches!(op, And | Or) => {
            let decided = op == Or;
            let both = a.into_iter().zip(b).map(|(a, b)| match (a, b) {
                (Some(a), _) if a == decided => Some(decided),
                (_, Some(b)) if b == decided => Some(decided),
                (Some(_), Some(_)) => Some(!decided),
                _ => None,
            });
            Some(Lane::Truth(both.collect()))
        }
        (Lane::Ints(a), Lane::Ints(b)) if compares && scales.0 == scales.1 => {
            Some(Lane::Truth(zipped(&a, &b, |a, b| Some(holds(a.cmp(&b))))))
        }
        (Lane::Floats(a), Lane::Floats(b)) if compares => {
            Some(Lane::Truth(zipped(&a, &b, |a, b| Some(holds(a.total_cmp(&b))))))
        }
        (Lane::Bytes(a), Lane::Bytes(b)) if compares => Some(Lane::Truth(zipped(&a, &b, |a, b| Some(holds(a.cmp(b)))))),
        (Lane::Ints(a), Lane::Ints(b)) => {
            let made = scale(result).unwrap_or(0);
            let (a_scale, b_scale) = (scales.0.unwrap_or(0), scales.1.unwrap_or(0));
            let values = match op {
                Add if a_scale == b_scale && made == a_scale => zipped(&a, &b, i64::checked_add),
                Subtract if a_scale == b_scale && made == a_scale => zipped(&a, &b, i64::checked_sub),
                Multiply if a_scale + b_scale == made => zipped(&a, &b, i64::checked_mul),
                _ => return None,
            };
            Some(Lane::Ints(values.into()))
        }
        (Lane::Floats(a), Lane::Floats(b)) => {
            let values = match op {
                Add => zipped(&a, &b, |a, b| Some(a + b)),
                Subtract => zipped(&a, &b, |a, b| Some(a - b)),
                Multiply => zipped(&a, &b, |a, b| Some(a * b)),
                _ => return None,
            };
            Some(Lane::Floats(values.into()))
        }
        _ => None,
    }
}

pub(super) fn in_list<'e>(lane: &Lane<'_>, list: &[&Value], negated: bool) -> Option<Lane<'e>> {
    let found = |found: bool| Some(found != negated);
    let found: Vec<Option<bool>> = match lane {
        Lane::Ints(values) => {
            let list: Vec<i64> = list.iter().filter_map(|value| int(value)).collect();
            values.iter().map(|value| found(list.contains(&(*value)?))).collect()
        }
        Lane::Bytes(values) => {
            let text = |value: &&'_ Value| match value {
                Value::Bytes(bytes) => Some(Arc::clone(bytes)),
                _ => None,
            };
            let list: Vec<Arc<[u8]>> = list.iter().filter_map(text).collect();
            let within = |value: &[u8]| list.iter().any(|item| item.as_ref() == value);
            values.iter().map(|value| found(within((*value)?))).collect()
        }
        _ => return None,
    };
    Some(Lane::Truth(found))
}

fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Int(value) => i64::try_from(*value).ok(),
        _ => None,
    }
}

pub(super) fn cast<'e>(lane: Lane<'e>, from: &Type, to: &Type) -> Option<Lane<'e>> {
    match lane {
        Lane::Bytes(values) if to.is_bytes() => Some(Lane::Bytes(values)),
        Lane::Floats(values) if to.is_float() => Some(Lane::Floats(values)),
        Lane::Ints(values) if to.is_float() => {
            let unit = 10_f64.powi(i32::from(scale(from).unwrap_or(0)));
            Some(Lane::Floats(
                values
                    .iter()
                    .map(|value| value.map(|value| value as f64 / unit))
                    .collect(),
            ))
        }
        Lane::Ints(values) if plain(from) && plain(to) => {
            let up = u32::try_from(scale(to).unwrap_or(0) - scale(from).unwrap_or(0)).ok()?;
            let factor = 10_i64.checked_pow(up)?;
            Some(Lane::Ints(
                values
                    .iter()
                    .map(|value| value.and_then(|value| value.checked_mul(factor)))
                    .collect(),
            ))
        }
        Lane::Ints(values) if from == to => Some(Lane::Ints(values)),
        _ => None,
    }
}

/// Integers and decimals.
fn plain(data_type: &Type) -> bool {
    data_type.is_integer() || matches!(data_type, Type::Decimal { .. })
}

pub(super) fn extract(part: DatePart, value: i64, data_type: &Type) -> Option<i64> {
    let time = match data_type {
        Type::Date32 => {
            let days = i32::try_from(value).ok()?;
            let days = days.checked_add(DAYS_TO_1970)?;
            NaiveDate::from_num_days_from_ce_opt(days)?.and_hms_opt(0, 0, 0)?
        }
        Type::Timestamp { unit, .. } => match unit {
            TimeUnit::Second => DateTime::from_timestamp(value, 0)?.naive_utc(),
            TimeUnit::Millisecond => DateTime::from_timestamp_millis(value)?.naive_utc(),
            TimeUnit::Microsecond => DateTime::from_timestamp_micros(value)?.naive_utc(),
            TimeUnit::Nanosecond => DateTime::from_timestamp_nanos(value).naive_utc(),
        },
        _ => return None,
    };
    Some(match part {
        DatePart::Year => time.year().into(),
        DatePart::Quarter => i64::from(time.month().div_ceil(3)),
        DatePart::Month => time.month().into(),
        DatePart::Week => time.iso_week().week().into(),
        DatePart::Day => time.day().into(),
        DatePart::DayOfWeek => time.weekday().num_days_from_sunday().into(),
        DatePart::DayOfYear => time.ordinal().into(),
        DatePart::Hour => time.hour().into(),
        DatePart::Minute => time.minute().into(),
        DatePart::Second => time.second().into(),
    })
}

/// Characters from the first, which is 1.
pub(super) fn substring(value: &[u8], start: usize, length: usize) -> &[u8] {
    let Ok(text) = std::str::from_utf8(value) else {
        return value;
    };
    let mut starts = text.char_indices().map(|(at, _)| at).skip(start.saturating_sub(1));
    let first = starts.next().unwrap_or(text.len());
    let last = match length {
        0 => first,
        length => starts.nth(length - 1).unwrap_or(text.len()),
    };
    &value[first..last]
}

pub(super) fn like(
    values: &[Option<&[u8]>],
    pattern: &[u8],
    case_insensitive: bool,
    negated: bool,
) -> Vec<Option<bool>> {
    let lower = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_lowercase().into_bytes();
    let lowered = lower(pattern);
    let matches = |value: &[u8]| match case_insensitive {
        true => is_like(&lower(value), &lowered),
        false => is_like(value, pattern),
    };
    values
        .iter()
        .map(|value| value.map(|value| matches(value) != negated))
        .collect()
}

/// `%` any run, `_` one character, backslash escapes.
fn is_like(mut value: &[u8], mut pattern: &[u8]) -> bool {
    // Where to go on when what follows the latest `%` doesn't match here.
    let mut again: Option<(&[u8], &[u8])> = None;
    loop {
        let step = match pattern {
            [] if value.is_empty() => return true,
            [b'%', rest @ ..] => {
                again = Some((value, rest));
                pattern = rest;
                continue;
            }
            [b'_', rest @ ..] if !value.is_empty() => Some((character(value), rest)),
            [b'\\', escaped, rest @ ..] if value.first() == Some(escaped) => Some((&value[1..], rest)),
            [plain, rest @ ..] if !matches!(plain, b'_' | b'\\') && value.first() == Some(plain) => {
                Some((&value[1..], rest))
            }
            _ => None,
        };
        match (step, again) {
            (Some(next), _) => (value, pattern) = next,
            (None, Some((from, after))) if !from.is_empty() => {
                again = Some((&from[1..], after));
                (value, pattern) = (&from[1..], after);
            }
            _ => return false,
        }
    }
}

/// What follows the first character.
fn character(value: &[u8]) -> &[u8] {
    let width = value[1..].iter().take_while(|byte| **byte & 0xc0 == 0x80).count();
    &value[1 + width..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_sql_says() {
        let cases: [(&str, &str, bool); 9] = [
            ("abc", "abc", true),
            ("abc", "a%", true),
            ("abc", "%c", true),
            ("aXbXc", "a%b%c", true),
            ("abc", "a_c", true),
            ("aäc", "a_c", true),
            ("abc", "a_", false),
            ("a%c", "a\\%c", true),
            ("abbc", "%bc%d", false),
        ];
        for (value, pattern, expected) in cases {
            assert_eq!(
                is_like(value.as_bytes(), pattern.as_bytes()),
                expected,
                "{value} LIKE {pattern}"
            );
        }
    }

    #[test]
    fn substrings_count_characters() {
        assert_eq!(substring("zürich".as_bytes(), 1, 2), "zü".as_bytes());
        assert_eq!(substring(b"abc", 2, usize::MAX), b"bc");
        assert_eq!(substring(b"abc", 9, 2), b"");
    }
}
