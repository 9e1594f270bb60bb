//! Columns with one value per file: what the path of a partitioned table says.

use std::sync::Arc;

use arrow::buffer::BooleanBuffer;
use trireme_device_api::{
    Carrier, Codes, ColumnProfile, DeviceColumn, Dictionary, Strings, Type, Value, Values, ZoneMap,
};

/// Values by file.
pub(crate) struct Constants {
    values: Vec<Value>,
    /// Of a string column: distinct values, ascending.
    dictionary: Option<Arc<Dictionary>>,
}

impl Constants {
    pub(crate) fn new(values: Vec<Value>, data_type: &Type) -> Self {
        let dictionary = data_type.is_bytes().then(|| {
            let of = |value: &Value| match value {
                Value::Bytes(bytes) => Some(Arc::clone(bytes)),
                _ => None,
            };
            let mut distinct: Vec<Arc<[u8]>> = values.iter().filter_map(of).collect();
            distinct.sort_unstable();
            distinct.dedup();
            Arc::new(Dictionary::new(Strings::from_values(
                distinct.iter().map(AsRef::as_ref),
            )))
        });
        Self { values, dictionary }
    }

    pub(crate) fn value(&self, file: usize) -> &Value {
        &self.values[file]
    }

    pub(crate) fn zone(&self, file: usize, rows: usize) -> ZoneMap {
        ZoneMap {
            range: match self.values[file] {
                Value::Int(value) => Some((value, value)),
                _ => None,
            },
            null_count: if self.values[file] == Value::Null { rows } else { 0 },
            sorted: true,
            run_length: rows as f32,
        }
    }

    /// All rows of a segment.
    pub(crate) fn column(&self, file: usize, rows: usize, data_type: &Type) -> DeviceColumn {
        let values = match &self.values[file] {
            Value::Null => Values::Nulls,
            Value::Boolean(true) => Values::Booleans(BooleanBuffer::new_set(rows)),
            Value::Boolean(false) => Values::Booleans(BooleanBuffer::new_unset(rows)),
            Value::Int(value) => match i64::try_from(*value) {
                Ok(base) => Values::Integers {
                    carrier: Carrier::I8(vec![0; rows].into()),
                    base,
                },
                Err(_) => Values::Wide(vec![*value; rows].into()),
            },
            Value::Float(value) if *data_type == Type::Float32 => Values::Float32(vec![*value as f32; rows].into()),
            Value::Float(value) => Values::Float64(vec![*value; rows].into()),
            Value::Bytes(bytes) => self.codes(bytes, rows),
            Value::Interval(value) => Values::Intervals(vec![*value; rows].into()),
        };
        DeviceColumn {
            data_type: data_type.clone(),
            rows,
            values,
            validity: None,
            zone: self.zone(file, rows),
        }
    }

    fn codes(&self, value: &[u8], rows: usize) -> Values {
        let Some(dictionary) = &self.dictionary else {
            return Values::Nulls;
        };
        let values = dictionary.len() as u32;
        let code = (0..values).find(|code| dictionary.get(*code) == value).unwrap_or(0);
        let codes = match values {
            ..=0x100 => Codes::U8(vec![code as u8; rows].into()),
            0x101..=0x1_0000 => Codes::U16(vec![code as u16; rows].into()),
            _ => Codes::U32(vec![code; rows].into()),
        };
        Values::Codes {
            codes,
            dictionary: Arc::clone(dictionary),
        }
    }

    pub(crate) fn profile(&self, data_type: &Type) -> ColumnProfile {
        let of = |value: &Value| match value {
            Value::Int(value) => Some(*value),
            _ => None,
        };
        let low = self.values.iter().filter_map(of).min();
        let high = self.values.iter().filter_map(of).max();
        ColumnProfile {
            data_type: data_type.clone(),
            range: low.zip(high).or_else(|| data_type.is_integral().then_some((0, 0))),
            nullable: self.values.contains(&Value::Null),
            distinct: self.dictionary.as_ref().map(|dictionary| dictionary.len()),
            dictionary: self.dictionary.clone(),
        }
    }
}
