//! What a Delta log says of a file's rows, as bounds that hold and as statistics that say how sure they are.
//!
//! Bounds are valid, not tight: strings may be cut, timestamps are cut to milliseconds, and rows may have been deleted since.
//! Floats have none here, because writers leave NaN out of them.

use arrow::datatypes::{DataType, Field, TimeUnit};
use chrono::{DateTime, NaiveDate, NaiveDateTime};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::fileset::FileBounds;

/// Decimals of more digits don't survive being a JSON number.
const DECIMAL_DIGITS_MAX: u8 = 15;

/// The `stats` of a file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LogStatistics {
    pub(super) num_records: Option<u64>,
    tight_bounds: Option<bool>,
    #[serde(default)]
    min_values: Option<Map<String, Value>>,
    #[serde(default)]
    max_values: Option<Map<String, Value>>,
    #[serde(default)]
    null_count: Option<Map<String, Value>>,
}

impl LogStatistics {
    /// What can't be understood is not known.
    pub(super) fn parse(text: Option<&str>) -> Self {
        text.and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    /// Of a column, by its name in the files.
    pub(super) fn bounds(&self, stored: &Field) -> FileBounds {
        let of = |values: &Option<Map<String, Value>>, upper| {
            let value = values.as_ref()?.get(stored.name())?;
            scalar(value, stored.data_type(), upper)
        };
        let (min, max) = (of(&self.min_values, false), of(&self.max_values, true));
        let crossed =
            matches!((&min, &max), (Some(min), Some(max)) if min.partial_cmp(max).is_none_or(|order| order.is_gt()));
        let nulls = self
            .null_count
            .as_ref()
            .and_then(|counts| counts.get(stored.name())?.as_u64());
        match crossed {
            true => FileBounds {
                nulls,
                ..FileBounds::default()
            },
            false => FileBounds { min, max, nulls },
        }
    }

    /// Of a file with so many deleted rows, by its columns' bounds.
    pub(super) fn statistics(&self, deleted: u64, size_bytes: u64, columns: &[(&Field, FileBounds)]) -> Statistics {
        let count = |number: u64| usize::try_from(number).ok();
        let rows = self.num_records.and_then(|rows| count(rows.checked_sub(deleted)?));
        let tight = deleted == 0 && self.tight_bounds != Some(false);
        let of = |(field, bounds): &(&Field, FileBounds)| {
            let mut column = ColumnStatistics::new_unknown();
            let value = |value: &Option<ScalarValue>| match value {
                Some(value) if tight && is_attained(field.data_type()) => Precision::Exact(value.clone()),
                Some(value) => Precision::Inexact(value.clone()),
                None => Precision::Absent,
            };
            column.min_value = value(&bounds.min);
            column.max_value = value(&bounds.max);
            column.null_count = match bounds.nulls.and_then(count) {
                Some(nulls) if tight => Precision::Exact(nulls),
                Some(nulls) => Precision::Inexact(nulls),
                None => Precision::Absent,
            };
            column
        };
        Statistics {
            num_rows: rows.map_or(Precision::Absent, Precision::Exact),
            total_byte_size: count(size_bytes).map_or(Precision::Absent, Precision::Inexact),
            column_statistics: columns.iter().map(of).collect(),
        }
    }
}

/// Bounds of these types are values of rows when no row was deleted.
fn is_attained(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Date32 | DataType::Boolean)
}

fn scalar(value: &Value, data_type: &DataType, upper: bool) -> Option<ScalarValue> {
    match data_type {
        data_type if data_type.is_integer() => {
            let value = ScalarValue::Int64(Some(value.as_i64()?));
            let cast = value.cast_to(data_type).ok()?;
            (!cast.is_null()).then_some(cast)
        }
        DataType::Boolean => Some(ScalarValue::Boolean(Some(value.as_bool()?))),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            ScalarValue::try_from_string(value.as_str()?.to_owned(), data_type).ok()
        }
        DataType::Date32 => {
            let date = NaiveDate::parse_from_str(value.as_str()?, "%Y-%m-%d").ok()?;
            let days = date.signed_duration_since(NaiveDate::default()).num_days();
            Some(ScalarValue::Date32(Some(i32::try_from(days).ok()?)))
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let micros = timestamp(value.as_str()?, upper)?;
            Some(ScalarValue::TimestampMicrosecond(Some(micros), zone.clone()))
        }
        DataType::Decimal128(precision, _) if *precision <= DECIMAL_DIGITS_MAX => {
            let text = match value {
                Value::Number(number) => number.to_string(),
                Value::String(text) => text.clone(),
                _ => return None,
            };
            ScalarValue::try_from_string(text, data_type).ok()
        }
        _ => None,
    }
}

/// Microseconds; an upper bound is that of the millisecond which may be all that was written.
fn timestamp(text: &str, upper: bool) -> Option<i64> {
    let micros = match DateTime::parse_from_rfc3339(text) {
        Ok(time) => time.timestamp_micros(),
        Err(_) => {
            let formats = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"];
            let time = formats
                .iter()
                .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())?;
            time.and_utc().timestamp_micros()
        }
    };
    match upper {
        true => micros.checked_sub(micros.rem_euclid(1000))?.checked_add(999),
        false => Some(micros),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_for_all_rows() {
        let text = r#"{"numRecords":10,"tightBounds":true,"minValues":{"i":-3,"s":"a","t":"2024-01-01T00:00:00.123Z","d":1.25,"f":0.5,"x":9},
            "maxValues":{"i":7,"s":"z","t":"2024-01-01T00:00:00.456Z","d":2.5,"f":1.5,"x":3},"nullCount":{"i":0,"s":2,"nested":{"a":1}}}"#;
        let log = LogStatistics::parse(Some(text));
        let bounds = |name: &str, data_type| log.bounds(&Field::new(name, data_type, true));
        let i = bounds("i", DataType::Int32);
        assert_eq!(
            (i.min, i.max, i.nulls),
            (
                Some(ScalarValue::Int32(Some(-3))),
                Some(ScalarValue::Int32(Some(7))),
                Some(0)
            )
        );
        assert_eq!(bounds("s", DataType::Utf8View).nulls, Some(2));
        let t = bounds("t", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
        assert!(t.max.unwrap().to_string().ends_with("456999"));
        assert!(t.min.unwrap().to_string().ends_with("123000"));
        let d = bounds("d", DataType::Decimal128(10, 2));
        assert_eq!(d.max, Some(ScalarValue::Decimal128(Some(250), 10, 2)));
        assert!(bounds("d", DataType::Decimal128(20, 2)).max.is_none());
        assert!(bounds("f", DataType::Float64).max.is_none());
        assert!(bounds("x", DataType::Int64).min.is_none(), "crossed bounds are none");
        assert!(bounds("nested", DataType::Int64).nulls.is_none());
        assert!(bounds("i", DataType::Int8).max.is_some());
        assert!(LogStatistics::parse(Some("{")).num_records.is_none());
    }

    #[test]
    fn deleted_rows_make_bounds_uncertain() {
        let log = LogStatistics::parse(Some(
            r#"{"numRecords":10,"minValues":{"i":1},"maxValues":{"i":2},"nullCount":{"i":0}}"#,
        ));
        let field = Field::new("i", DataType::Int64, true);
        let of = |deleted| log.statistics(deleted, 100, &[(&field, log.bounds(&field))]);
        assert_eq!(of(0).num_rows, Precision::Exact(10));
        assert!(matches!(of(0).column_statistics[0].max_value, Precision::Exact(_)));
        assert_eq!(of(3).num_rows, Precision::Exact(7));
        assert!(matches!(of(3).column_statistics[0].max_value, Precision::Inexact(_)));
        assert_eq!(of(11).num_rows, Precision::Absent);
    }
}
