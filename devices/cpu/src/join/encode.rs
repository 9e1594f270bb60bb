//! Join keys as bytes, for keys that aren't all numbers or are too wide for one: equal keys have equal bytes, others don't.
//!
//! ```text
//!  one string key     the string itself
//!  several keys       numbers (floats by their normalised bits, codes): 16 bytes · strings: length, bytes
//!  NULLs that match   each key is led by a byte: 0 for NULL, else 1
//! ```

use trireme_device_api::{Dictionary, Interval};

use super::keys::{KeyColumn, KeyValue, Numbers};

/// A key whose values go into bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ByteColumn<'v> {
    Numbers(KeyColumn<'v>),
    Strings(&'v [&'v [u8]], Option<&'v [u8]>),
    /// Codes whose strings are encoded.
    Decoded(&'v [u32], &'v Dictionary, Option<&'v [u8]>),
    Intervals(&'v [Interval], Option<&'v [u8]>),
}

/// Encoded keys of many rows.
#[derive(Debug, Default)]
pub(crate) struct EncodedKeys {
    ends: Vec<usize>,
    bytes: Vec<u8>,
    /// 0 where the key holds a NULL that matches nothing; its bytes mean nothing then.
    found: Vec<u8>,
}

impl EncodedKeys {
    /// A row's key.
    pub(crate) fn get(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.bytes[start..self.ends[row]]
    }

    /// 1 for rows whose key may match.
    pub(crate) fn found(&self) -> &[u8] {
        &self.found
    }

    /// Most memory that these keys may take in addition.
    pub(crate) fn growth_bytes(&self, keys: &[ByteColumn<'_>], rows: usize) -> usize {
        let values: usize = keys
            .iter()
            .map(|key| match key {
                ByteColumn::Strings(values, _) => values.iter().map(|value| value.len() + 5).sum(),
                ByteColumn::Decoded(codes, dictionary, valid) => (0..codes.len())
                    .filter(|row| is_valid(*valid, *row))
                    .map(|row| dictionary.get(codes[row]).len() + 5)
                    .sum(),
                ByteColumn::Numbers(_) | ByteColumn::Intervals(..) => rows * 17,
            })
            .sum();
        let doubled = |length: usize, capacity: usize, more: usize| {
            if length + more <= capacity {
                0
            } else {
                (capacity * 2).max(length + more) - capacity
            }
        };
        doubled(self.bytes.len(), self.bytes.capacity(), values)
            + doubled(self.ends.len(), self.ends.capacity(), rows) * (size_of::<usize>() + 1)
    }

    /// Forgets all rows.
    pub(crate) fn clear(&mut self) {
        self.ends.clear();
        self.bytes.clear();
        self.found.clear();
    }

    /// Appends the keys of `rows` rows. `nulls`: NULL is a value.
    pub(crate) fn push(&mut self, keys: &[ByteColumn<'_>], rows: usize, nulls: bool) {
        let plain = keys.len() == 1 && !nulls;
        for row in 0..rows {
            let mut found = 1;
            for key in keys {
                let valid = key.is_valid(row);
                if nulls {
                    self.bytes.push(u8::from(valid));
                }
                if valid {
                    self.push_value(key, row, plain);
                } else if !nulls {
                    found = 0;
                }
            }
            self.ends.push(self.bytes.len());
            self.found.push(found);
        }
    }

    fn push_value(&mut self, key: &ByteColumn<'_>, row: usize, plain: bool) {
        match key {
            ByteColumn::Strings(values, _) => self.push_string(values[row], plain),
            ByteColumn::Decoded(codes, dictionary, _) => self.push_string(dictionary.get(codes[row]), plain),
            ByteColumn::Intervals(values, _) => {
                self.bytes.extend_from_slice(&values[row].months.to_le_bytes());
                self.bytes.extend_from_slice(&values[row].days.to_le_bytes());
                self.bytes.extend_from_slice(&values[row].nanoseconds.to_le_bytes());
            }
            ByteColumn::Numbers(column) => {
                let number = match column.numbers {
                    Numbers::Bool(values) => i128::from(values[row]),
                    Numbers::I8(values) => i128::from(values[row]),
                    Numbers::I16(values) => i128::from(values[row]),
                    Numbers::I32(values) => i128::from(values[row]),
                    Numbers::I64(values) => i128::from(values[row]),
                    Numbers::I128(values) => values[row],
                    Numbers::F32(values) => i128::from(values[row].key()),
                    Numbers::F64(values) => i128::from(values[row].key()),
                    Numbers::Codes(values) => i128::from(values[row]),
                    Numbers::Null => 0,
                };
                self.bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
    }

    fn push_string(&mut self, value: &[u8], plain: bool) {
        if !plain {
            self.bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        }
        self.bytes.extend_from_slice(value);
    }
}

impl ByteColumn<'_> {
    fn is_valid(&self, row: usize) -> bool {
        match self {
            ByteColumn::Numbers(column) => !matches!(column.numbers, Numbers::Null) && is_valid(column.valid, row),
            ByteColumn::Strings(_, valid) | ByteColumn::Decoded(_, _, valid) | ByteColumn::Intervals(_, valid) => {
                is_valid(*valid, row)
            }
        }
    }
}

fn is_valid(valid: Option<&[u8]>, row: usize) -> bool {
    valid.is_none_or(|valid| valid[row] != 0)
}
