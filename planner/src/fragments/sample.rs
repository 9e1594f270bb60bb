//! Expressions over the sample that ANALYZE took of a table: which rows pass conditions, how many groups they make.
//!
//! Column at a time, in 64 bits; what it can't evaluate has no answer and is guessed elsewhere. Results may differ from a
//! device's in corners (overflow, a character's case): they are estimates.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use chrono::{DateTime, Datelike, NaiveDate, Timelike};
use trireme_device_api::{BinaryOperator, DatePart, Expr, Function, Node, TimeUnit, Type, Value};
use trireme_exec::statistics::{TableSketch, Values, mix};

/// A table's sample, of which a part of the rows is left.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) sketch: Arc<TableSketch>,
    /// The rows of the sample that passed; none: all.
    pub(super) kept: Option<Arc<[bool]>>,
    /// Rows of the table that passed.
    pub(super) rows: f64,
}

/// Rows of a sample of which so few pass say little.
pub(super) const FEW: usize = 3;
/// Sampled rows by which distinct values are estimated.
const COUNTED_MAX: usize = 2_000;
/// Days from the first of January of year 1 to that of 1970.
const DAYS_TO_1970: i32 = 719_163;

impl Part {
    pub(super) fn of(sketch: &Arc<TableSketch>, rows: f64) -> Self {
        Self {
            sketch: Arc::clone(sketch),
            kept: None,
            rows,
        }
    }

    /// Sampled rows that are left.
    pub(super) fn left(&self) -> usize {
        match &self.kept {
            Some(kept) => kept.iter().filter(|kept| **kept).count(),
            None => self.sketch.sampled,
        }
    }

    /// The sample is the table.
    pub(super) fn is_whole(&self) -> bool {
        self.sketch.sampled as f64 >= self.sketch.rows
    }

    /// Distinct values that expressions have together in the rows that are left; none when they can't be evaluated, or the
    /// sample is too small.
    pub(super) fn distinct(&self, exprs: &[&Expr], reader: &Reader<'_>) -> Option<f64> {
        let left = self.left();
        if left == 0 || (left < 30 && !self.is_whole()) {
            return None;
        }
        let lanes: Option<Vec<Lane<'_>>> = exprs.iter().map(|expr| reader.lane(expr, &self.sketch)).collect();
        let lanes = lanes?;
        let every = if self.is_whole() {
            1
        } else {
            left.div_ceil(COUNTED_MAX) as u64
        };
        let rows = (0..self.sketch.sampled).filter(|row| self.kept.as_ref().is_none_or(|kept| kept[*row]));
        let mut seen: HashMap<u64, u32> = HashMap::new();
        let mut count = 0_u32;
        for row in rows.filter(|row| mix(*row as u64).is_multiple_of(every)) {
            let mut hasher = DefaultHasher::new();
            lanes.iter().for_each(|lane| lane.hash(row, &mut hasher));
            *seen.entry(hasher.finish()).or_default() += 1;
            count += 1;
        }
        let once = seen.values().filter(|times| **times == 1).count();
        let all = if self.is_whole() { f64::from(count) } else { self.rows };
        Some(of_sample(seen.len() as f64, once as f64, f64::from(count), all))
    }
}

/// Distinct values among `all` rows of which `sampled` have `distinct`, `once` of them one time: Haas and Stokes' estimator.
fn of_sample(distinct: f64, once: f64, sampled: f64, all: f64) -> f64 {
    if sampled >= all {
        return distinct;
    }
    let unseen = sampled - once + once * sampled / all;
    (sampled * distinct / unseen.max(1.0)).clamp(distinct, all.max(distinct))
}

/// Values of an expression by row of the sample.
pub(super) enum Lane<'a> {
    Ints(Cow<'a, [Option<i64>]>),
    Floats(Cow<'a, [Option<f64>]>),
    Bytes(Vec<Option<&'a [u8]>>),
    Truth(Vec<Option<bool>>),
}

impl Lane<'_> {
    fn hash(&self, row: usize, hasher: &mut DefaultHasher) {
        match self {
            Lane::Ints(values) => values[row].hash(hasher),
            Lane::Floats(values) => values[row].map(f64::to_bits).hash(hasher),
            Lane::Bytes(values) => values[row].hash(hasher),
            Lane::Truth(values) => values[row].hash(hasher),
        }
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Lane::Ints(values) => values[row].is_none(),
            Lane::Floats(values) => values[row].is_none(),
            Lane::Bytes(values) => values[row].is_none(),
            Lane::Truth(values) => values[row].is_none(),
        }
    }
}

/// How expressions read a sample: where each of their columns stands in it, and parameters' values.
pub(super) struct Reader<'a> {
    pub(super) column: &'a dyn Fn(usize) -> Option<usize>,
    pub(super) parameters: &'a [Value],
}

impl Reader<'_> {
    /// Rows for which a condition is true.
    pub(super) fn truth(&self, expr: &Expr, sketch: &TableSketch) -> Option<Vec<bool>> {
        match self.lane(expr, sketch)? {
            Lane::Truth(values) => Some(values.into_iter().map(|value| value == Some(true)).collect()),
            Lane::Ints(values) => Some(values.iter().map(|value| *value == Some(1)).collect()),
            _ => None,
        }
    }

    fn constant<'e>(&'e self, expr: &'e Expr) -> Option<&'e Value> {
        match &expr.node {
            Node::Literal(value) => Some(value),
            Node::Parameter(index) => self.parameters.get(*index),
            _ => None,
        }
    }

    fn lane<'e>(&'e self, expr: &'e Expr, sketch: &'e TableSketch) -> Option<Lane<'e>> {
        let rows = sketch.sampled;
        if let Some(value) = self.constant(expr) {
            return repeated(value, &expr.data_type, rows);
        }
        match &expr.node {
            Node::Column(column) => of_values(&sketch.columns.get((self.column)(*column)?)?.values, rows),
            Node::Binary { op, left, right } => {
                let (a, b) = (self.lane(left, sketch)?, self.lane(right, sketch)?);
                binary(*op, (left, a), (right, b), &expr.data_type)
            }
            Node::Not(inner) => match self.lane(inner, sketch)? {
                Lane::Truth(values) => Some(Lane::Truth(
                    values.into_iter().map(|value| value.map(|value| !value)).collect(),
                )),
                _ => None,
            },
            Node::IsNull(inner) => {
                let lane = self.lane(inner, sketch)?;
                Some(Lane::Truth((0..rows).map(|row| Some(lane.is_null(row))).collect()))
            }
            Node::IsNotNull(inner) => {
                let lane = self.lane(inner, sketch)?;
                Some(Lane::Truth((0..rows).map(|row| Some(!lane.is_null(row))).collect()))
            }
            Node::InList { expr, list, negated } => {
                let lane = self.lane(expr, sketch)?;
                let list: Option<Vec<&Value>> = list.iter().map(|item| self.constant(item)).collect();
                in_list(&lane, &list?, *negated)
            }
            Node::Like {
                expr,
                pattern,
                negated,
                case_insensitive,
            } => {
                let Lane::Bytes(values) = self.lane(expr, sketch)? else {
                    return None;
                };
                let Value::Bytes(pattern) = self.constant(pattern)? else {
                    return None;
                };
                Some(Lane::Truth(like(&values, pattern, *case_insensitive, *negated)))
            }
            Node::Cast { expr: inner, .. } => cast(self.lane(inner, sketch)?, &inner.data_type, &expr.data_type),
            Node::Extract { part, expr: inner } => match self.lane(inner, sketch)? {
                Lane::Ints(values) => {
                    let parts = values.iter().map(|value| extract(*part, (*value)?, &inner.data_type));
                    Some(Lane::Ints(parts.collect()))
                }
                _ => None,
            },
            Node::Function {
                function: Function::Substring,
                args,
            } => {
                let Lane::Bytes(values) = self.lane(args.first()?, sketch)? else {
                    return None;
                };
                let number = |at: usize| match args.get(at).map(|arg| self.constant(arg)) {
                    Some(Some(Value::Int(value))) => usize::try_from(*value).ok(),
                    None => Some(usize::MAX),
                    _ => None,
                };
                let (start, length) = (number(1)?, number(2)?);
                let cut = |value: &'e [u8]| substring(value, start, length);
                Some(Lane::Bytes(values.into_iter().map(|value| value.map(cut)).collect()))
            }
            _ => None,
        }
    }
}

fn of_values(values: &Values, rows: usize) -> Option<Lane<'_>> {
    Some(match values {
        Values::Ints(values) => Lane::Ints(Cow::Borrowed(values)),
        Values::Floats(values) => Lane::Floats(Cow::Borrowed(values)),
        Values::Bytes(_) => Lane::Bytes((0..rows).map(|row| values.bytes(row)).collect()),
        Values::None => return None,
    })
}

fn repeated<'e>(value: &'e Value, data_type: &Type, rows: usize) -> Option<Lane<'e>> {
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

fn binary<'e>(
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

fn in_list<'e>(lane: &Lane<'_>, list: &[&Value], negated: bool) -> Option<Lane<'e>> {
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

fn cast<'e>(lane: Lane<'e>, from: &Type, to: &Type) -> Option<Lane<'e>> {
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
    matches!(
        data_type,
        Type::Int8
            | Type::Int16
            | Type::Int32
            | Type::Int64
            | Type::UInt8
            | Type::UInt16
            | Type::UInt32
            | Type::UInt64
            | Type::Decimal { .. }
    )
}

fn extract(part: DatePart, value: i64, data_type: &Type) -> Option<i64> {
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
fn substring(value: &[u8], start: usize, length: usize) -> &[u8] {
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

fn like(values: &[Option<&[u8]>], pattern: &[u8], case_insensitive: bool, negated: bool) -> Vec<Option<bool>> {
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
    fn samples_tell_keys_from_categories() {
        assert!(
            (of_sample(1_000.0, 1_000.0, 1_000.0, 1e6) - 1e6).abs() < 1.0,
            "all differ"
        );
        assert!((of_sample(7.0, 0.0, 1_000.0, 1e6) - 7.0).abs() < 0.1, "few values");
        assert_eq!(of_sample(50.0, 10.0, 100.0, 100.0), 50.0, "the sample is the table");
    }

    #[test]
    fn substrings_count_characters() {
        assert_eq!(substring("zürich".as_bytes(), 1, 2), "zü".as_bytes());
        assert_eq!(substring(b"abc", 2, usize::MAX), b"bc");
        assert_eq!(substring(b"abc", 9, 2), b"");
    }
}
