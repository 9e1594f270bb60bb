//! Values and columns: small and extreme, with every pattern of NULLs.

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use trireme_device_api::{Expr, IntervalKind, TimeUnit, Type, Value};

use crate::values::{interval, narrow_float, text};

/// Where a column is NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nulls {
    /// Nowhere.
    None,
    /// Here and there.
    Some,
    /// In runs of dozens of rows.
    Runs,
    /// Everywhere.
    All,
}

impl Nulls {
    /// All patterns.
    pub const ALL: [Nulls; 4] = [Nulls::None, Nulls::Some, Nulls::Runs, Nulls::All];
}

/// What a column's values are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// A handful of small values, so that joins match, groups are large and little overflows.
    Small,
    /// Everything that the type holds, of all magnitudes.
    Wide,
    /// The type's ends, zero and what is special.
    Extreme,
    /// One value, nearly always.
    Skewed,
    /// Ascending.
    Sorted,
}

impl Flavor {
    /// Any, small ones often.
    pub fn draw(rng: &mut SmallRng) -> Self {
        match rng.random_range(0..20) {
            0..11 => Flavor::Small,
            11..15 => Flavor::Wide,
            15..16 => Flavor::Extreme,
            16..18 => Flavor::Skewed,
            _ => Flavor::Sorted,
        }
    }
}

/// One of every type (of decimals, times and timestamps a few).
pub fn all_types() -> Vec<Type> {
    let decimal = |precision, scale| Type::Decimal { precision, scale };
    let timestamp = |unit, zone: Option<&str>| Type::Timestamp {
        unit,
        zone: zone.map(Into::into),
    };
    vec![
        Type::Boolean,
        Type::Int8,
        Type::Int16,
        Type::Int32,
        Type::Int64,
        Type::UInt8,
        Type::UInt16,
        Type::UInt32,
        Type::UInt64,
        Type::Float32,
        Type::Float64,
        decimal(5, 2),
        decimal(15, 2),
        decimal(18, 4),
        decimal(38, 0),
        decimal(38, 10),
        Type::Date32,
        Type::Time(TimeUnit::Second),
        Type::Time(TimeUnit::Microsecond),
        timestamp(TimeUnit::Second, None),
        timestamp(TimeUnit::Millisecond, None),
        timestamp(TimeUnit::Microsecond, None),
        timestamp(TimeUnit::Nanosecond, None),
        timestamp(TimeUnit::Microsecond, Some("UTC")),
        timestamp(TimeUnit::Millisecond, Some("Europe/Berlin")),
        Type::Interval(IntervalKind::YearMonth),
        Type::Interval(IntervalKind::DayTime),
        Type::Interval(IntervalKind::MonthDayNano),
        Type::Utf8,
        Type::LargeUtf8,
        Type::Utf8View,
        Type::Binary,
        Type::LargeBinary,
        Type::BinaryView,
        Type::Null,
    ]
}

/// Values of strings that are tried often.
const TEXTS: [&str; 18] = [
    "",
    "a",
    "b",
    "ab",
    "abc",
    "A",
    "ä",
    "Ä",
    "€uro",
    "日本語",
    "a%b",
    "a_b",
    "a\\b",
    "a longer string than fits a view's twelve bytes",
    "12",
    "-7",
    "1.5",
    "2020-02-29",
];

/// A value of the type, never NULL (but for the null type).
pub fn value(data_type: &Type, flavor: Flavor, rng: &mut SmallRng) -> Value {
    match data_type {
        Type::Null => Value::Null,
        Type::Boolean => Value::Boolean(rng.random_bool(0.5)),
        Type::Float32 => match float(flavor, f64::from(f32::MAX), rng) {
            value if value.is_nan() => Value::Float(value),
            value => Value::Float(narrow_float(value).into()),
        },
        Type::Float64 => Value::Float(float(flavor, f64::MAX, rng)),
        Type::Interval(kind) => interval_of(*kind, flavor, rng),
        _ if data_type.is_text() => string(flavor, rng),
        _ if data_type.is_bytes() => match string(flavor, rng) {
            Value::Bytes(bytes) if rng.random_bool(0.3) => Value::Bytes([bytes.as_ref(), &[0xff, 0]].concat().into()),
            value => value,
        },
        _ => Value::Int(integral(data_type, flavor, rng)),
    }
}

fn float(flavor: Flavor, largest: f64, rng: &mut SmallRng) -> f64 {
    let special = [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        0.0,
        -0.0,
        largest,
        -largest,
        1e-40,
    ];
    match flavor {
        Flavor::Extreme => *special.choose(rng).unwrap_or(&0.0),
        Flavor::Wide => rng.random_range(-1.0..1.0) * 10_f64.powi(rng.random_range(-20..20)),
        _ if rng.random_bool(0.03) => *special[..5].choose(rng).unwrap_or(&0.0),
        _ => f64::from(rng.random_range(-6..=9)) * 0.5,
    }
}

fn string(flavor: Flavor, rng: &mut SmallRng) -> Value {
    if matches!(flavor, Flavor::Wide | Flavor::Sorted) {
        let length = rng.random_range(0..20);
        let letters = ['a', 'b', 'c', 'x', 'é', '€', '%', '_', '0', '🦀'];
        let string: String = (0..length).filter_map(|_| letters.choose(rng)).collect();
        return text(&string);
    }
    text(TEXTS.choose(rng).copied().unwrap_or_default())
}

fn interval_of(kind: IntervalKind, flavor: Flavor, rng: &mut SmallRng) -> Value {
    let most = if flavor == Flavor::Wide { 1_000 } else { 3 };
    let (months, days) = (rng.random_range(-most..=most), rng.random_range(-most..=most));
    let millis = i64::from(rng.random_range(-most..=most)) * 3_600_123;
    match kind {
        IntervalKind::YearMonth => interval(months, 0, 0),
        IntervalKind::DayTime => interval(0, days, millis % 1_000_000_000 * 1_000_000),
        IntervalKind::MonthDayNano => interval(months, days, millis * 1_000_001),
    }
}

/// Bounds of the values that are generated: dates of the years 1 to 9999, times of one day.
fn bounds(data_type: &Type) -> (i128, i128) {
    let year_one = -719_162_i128;
    let year_ten_thousand = 2_932_896_i128;
    match data_type {
        Type::Date32 => (year_one, year_ten_thousand),
        Type::Time(unit) => (0, i128::from(unit.per_second()) * 86_400 - 1),
        Type::Timestamp { unit, .. } => {
            let per_day = i128::from(unit.per_second()) * 86_400;
            (
                (year_one * per_day).max(i64::MIN.into()),
                (year_ten_thousand * per_day).min(i64::MAX.into()),
            )
        }
        _ => data_type.value_range().unwrap_or((0, 0)),
    }
}

fn integral(data_type: &Type, flavor: Flavor, rng: &mut SmallRng) -> i128 {
    let (low, high) = bounds(data_type);
    let drawn = match flavor {
        Flavor::Extreme => [low, low + 1, -1, 0, 1, high - 1, high]
            .choose(rng)
            .copied()
            .unwrap_or_default(),
        Flavor::Wide => {
            let bits = rng.random_range(1..127);
            let magnitude = rng.random_range(0..=(1_i128 << bits) - 1);
            if rng.random_bool(0.5) { magnitude } else { -magnitude }
        }
        _ => match data_type {
            Type::Decimal { scale: 0.., .. } => rng.random_range(-5..=9) * 25,
            Type::Date32 => 18_000 + rng.random_range(0..10) * 37,
            Type::Time(_) => rng.random_range(0..20) * 1_801,
            Type::Timestamp { unit, .. } => {
                let seconds = (18_000 + rng.random_range(0..5) * 37) * 86_400 + rng.random_range(0..5) * 5_003;
                seconds * i128::from(unit.per_second()) + rng.random_range(0..2)
            }
            _ => rng.random_range(-3..=9),
        },
    };
    if (low..=high).contains(&drawn) {
        drawn
    } else {
        // Folded into the type's range, magnitudes roughly kept.
        let width = (high - low).min(i128::MAX - 1) + 1;
        drawn.rem_euclid(width).clamp(low, high)
    }
}

/// A column of `rows` values.
pub fn column(data_type: &Type, rows: usize, nulls: Nulls, flavor: Flavor, rng: &mut SmallRng) -> Vec<Value> {
    let usual = value(data_type, Flavor::Small, rng);
    let mut values: Vec<Value> = (0..rows)
        .map(|_| {
            if flavor == Flavor::Skewed && rng.random_bool(0.9) {
                usual.clone()
            } else {
                value(data_type, flavor, rng)
            }
        })
        .collect();
    if flavor == Flavor::Sorted {
        values.sort_by(|a, b| crate::values::compare(a, data_type, b, data_type));
    }
    let mut in_run = false;
    for value in &mut values {
        if rng.random_bool(0.04) {
            in_run = !in_run;
        }
        let is_null = match nulls {
            Nulls::None => false,
            Nulls::Some => rng.random_bool(0.2),
            Nulls::Runs => in_run,
            Nulls::All => true,
        };
        if is_null {
            *value = Value::Null;
        }
    }
    values
}

/// A literal of the type; NULL now and then.
pub fn literal_of(data_type: &Type, rng: &mut SmallRng) -> Expr {
    let drawn = match rng.random_range(0..20) {
        0 => Value::Null,
        1 => value(data_type, Flavor::Wide, rng),
        _ => value(data_type, Flavor::Small, rng),
    };
    Expr::literal(drawn, data_type.clone())
}
