//! Random columns, in all carriers, with their profiles.

use std::sync::Arc;

use arrow::buffer::BooleanBuffer;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trireme_device_api::{Carrier, Codes, DeviceColumn, Dictionary, Strings, TimeUnit, Type, Value, Values, ZoneMap};

use crate::tile::{NO_ROW, Origin, Selection, Slot, Tile};
use crate::vector::Shape;

pub(super) const WORDS: [&str; 12] = [
    "",
    "a",
    "AIR",
    "MAIL",
    "SHIP",
    "äöü",
    "special requests",
    "100%",
    "a_b",
    "abc",
    "abcabc",
    "zz",
];

/// A row of columns: their shapes, a segment, and the segment's values.
pub(super) struct Table {
    pub(super) shapes: Vec<Shape>,
    pub(super) columns: Vec<Arc<DeviceColumn>>,
    pub(super) rows: Vec<Vec<Value>>,
}

/// What nulls a column has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nulls {
    None,
    Some,
    All,
}

struct Maker {
    random: StdRng,
    rows: usize,
    table: Table,
}

/// Random columns of all types.
pub(super) fn table(seed: u64, rows: usize) -> Table {
    let mut maker = Maker {
        random: StdRng::seed_from_u64(seed),
        rows,
        table: Table {
            shapes: Vec::new(),
            columns: Vec::new(),
            rows: vec![Vec::new(); rows],
        },
    };
    let dec = |precision, scale| Type::Decimal { precision, scale };
    let stamp = Type::Timestamp {
        unit: TimeUnit::Microsecond,
        zone: None,
    };
    maker.integers(Type::Int8, -128, 127, Nulls::None);
    maker.integers(Type::Int16, -300, 300, Nulls::Some);
    maker.integers(Type::Int32, 1000, 1100, Nulls::Some);
    maker.integers(Type::Int32, i32::MIN.into(), i32::MAX.into(), Nulls::None);
    maker.integers(Type::Int64, i64::MIN.into(), i64::MAX.into(), Nulls::Some);
    maker.integers(Type::Int64, -5, 5, Nulls::None);
    maker.integers(Type::UInt8, 0, 255, Nulls::Some);
    maker.integers(Type::UInt64, 0, u64::MAX.into(), Nulls::Some);
    maker.integers(dec(15, 2), 90_000, 10_494_950, Nulls::None);
    maker.integers(dec(15, 2), 0, 10, Nulls::Some);
    let most = 10_i128.pow(38) - 1;
    maker.integers(dec(38, 4), -most, most, Nulls::Some);
    maker.integers(Type::Date32, -10_000, 20_000, Nulls::Some);
    maker.integers(Type::Date32, -700_000, 2_900_000, Nulls::None);
    maker.integers(stamp, -2_000_000_000_000_000, 4_000_000_000_000_000, Nulls::Some);
    maker.floats(Nulls::Some, true);
    maker.floats(Nulls::None, false);
    maker.booleans(Nulls::Some);
    maker.booleans(Nulls::None);
    let first = dictionary(&WORDS[..9]);
    maker.codes(&first, Nulls::Some);
    maker.codes(&first, Nulls::None);
    maker.codes(&dictionary(&WORDS[3..]), Nulls::Some);
    maker.strings(Nulls::Some);
    maker.integers(Type::Int32, 0, 9, Nulls::All);
    maker.table
}

fn dictionary(words: &[&str]) -> Arc<Dictionary> {
    Arc::new(Dictionary::new(Strings::from_values(
        words.iter().map(|word| word.as_bytes()),
    )))
}

impl Maker {
    fn null(&mut self, nulls: Nulls) -> bool {
        match nulls {
            Nulls::None => false,
            Nulls::Some => self.random.random_range(0..4) == 0,
            Nulls::All => true,
        }
    }

    fn push(&mut self, shape: Shape, values: Values, logical: Vec<Value>, keep_valid: bool) {
        let valid: BooleanBuffer = logical.iter().map(|value| *value != Value::Null).collect();
        let column = DeviceColumn {
            data_type: shape.data_type.clone(),
            rows: self.rows,
            values,
            validity: keep_valid.then_some(valid),
            zone: ZoneMap::default(),
        };
        for (row, value) in self.table.rows.iter_mut().zip(logical) {
            row.push(value);
        }
        self.table.shapes.push(shape);
        self.table.columns.push(Arc::new(column));
    }

    fn integers(&mut self, data_type: Type, low: i128, high: i128, nulls: Nulls) {
        let mut raw = Vec::new();
        let mut logical = Vec::new();
        for _ in 0..self.rows {
            let value = match self.random.random_range(0..8) {
                0 => low,
                1 => high,
                2 => 0.clamp(low, high),
                _ => self.random.random_range(low..=high),
            };
            raw.push(value);
            logical.push(if self.null(nulls) {
                Value::Null
            } else {
                Value::Int(value)
            });
        }
        let mut shape = Shape::of_type(data_type, nulls != Nulls::None);
        shape.range = Some((low, high));
        let values = self.carried(&raw, low, high);
        let all_null = nulls == Nulls::All;
        let values = if all_null { Values::Nulls } else { values };
        self.push(shape, values, logical, nulls == Nulls::Some);
    }

    /// In any carrier that holds the values, perhaps over a base.
    fn carried(&mut self, raw: &[i128], low: i128, high: i128) -> Values {
        if i64::try_from(low).is_err() || i64::try_from(high).is_err() {
            return Values::Wide(raw.to_vec().into());
        }
        let base = match self.random.random_range(0..3) {
            0 => 0,
            1 => low as i64,
            _ => (low + (high - low) / 2) as i64,
        };
        let offsets: Vec<i128> = raw.iter().map(|value| value - i128::from(base)).collect();
        let (least, most) = (low - i128::from(base), high - i128::from(base));
        let width = self.random.random_range(0..2);
        let carrier = if width == 0 && least >= -128 && most <= 127 {
            Carrier::I8(offsets.iter().map(|v| *v as i8).collect())
        } else if width == 0 && least >= -32_768 && most <= 32_767 {
            Carrier::I16(offsets.iter().map(|v| *v as i16).collect())
        } else if least >= i32::MIN.into() && most <= i32::MAX.into() {
            Carrier::I32(offsets.iter().map(|v| *v as i32).collect())
        } else if i64::try_from(least).is_ok() && i64::try_from(most).is_ok() {
            Carrier::I64(offsets.iter().map(|v| *v as i64).collect())
        } else {
            return Values::Integers {
                carrier: Carrier::I64(raw.iter().map(|v| *v as i64).collect()),
                base: 0,
            };
        };
        Values::Integers { carrier, base }
    }

    fn floats(&mut self, nulls: Nulls, wide: bool) {
        let special = [
            0.0,
            -0.0,
            1.0,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            -1.5,
            1e300,
            3.0,
        ];
        let mut raw = Vec::new();
        let mut logical = Vec::new();
        for _ in 0..self.rows {
            let value = special[self.random.random_range(0..special.len())];
            let value = if wide { value } else { f64::from(value as f32) };
            raw.push(value);
            logical.push(if self.null(nulls) {
                Value::Null
            } else {
                Value::Float(value)
            });
        }
        let data_type = if wide { Type::Float64 } else { Type::Float32 };
        let values = if wide {
            Values::Float64(raw.into())
        } else {
            Values::Float32(raw.into_iter().map(|value| value as f32).collect())
        };
        self.push(
            Shape::of_type(data_type, nulls != Nulls::None),
            values,
            logical,
            nulls == Nulls::Some,
        );
    }

    fn booleans(&mut self, nulls: Nulls) {
        let raw: Vec<bool> = (0..self.rows).map(|_| self.random.random_bool(0.5)).collect();
        let logical = raw.iter().map(|value| {
            if self.null(nulls) {
                Value::Null
            } else {
                Value::Boolean(*value)
            }
        });
        let logical = logical.collect();
        let shape = Shape::of_type(Type::Boolean, nulls != Nulls::None);
        self.push(
            shape,
            Values::Booleans(raw.into_iter().collect()),
            logical,
            nulls == Nulls::Some,
        );
    }

    fn codes(&mut self, dictionary: &Arc<Dictionary>, nulls: Nulls) {
        let count = dictionary.len() as u32;
        let raw: Vec<u32> = (0..self.rows).map(|_| self.random.random_range(0..count)).collect();
        let logical = raw.iter().map(|code| {
            if self.null(nulls) {
                Value::Null
            } else {
                Value::Bytes(dictionary.get(*code).into())
            }
        });
        let logical = logical.collect();
        let mut shape = Shape::of_type(Type::Utf8, nulls != Nulls::None);
        shape.dictionary = Some(Arc::clone(dictionary));
        let codes = match self.random.random_range(0..3) {
            0 => Codes::U8(raw.iter().map(|code| *code as u8).collect()),
            1 => Codes::U16(raw.iter().map(|code| *code as u16).collect()),
            _ => Codes::U32(raw.into()),
        };
        let dictionary = Arc::clone(dictionary);
        self.push(
            shape,
            Values::Codes { codes, dictionary },
            logical,
            nulls == Nulls::Some,
        );
    }

    fn strings(&mut self, nulls: Nulls) {
        let raw: Vec<&str> = (0..self.rows)
            .map(|_| WORDS[self.random.random_range(0..WORDS.len())])
            .collect();
        let logical = raw.iter().map(|word| {
            if self.null(nulls) {
                Value::Null
            } else {
                Value::Bytes(word.as_bytes().into())
            }
        });
        let logical = logical.collect();
        let values = Values::Strings(Strings::from_values(raw.iter().map(|word| word.as_bytes())));
        self.push(
            Shape::of_type(Type::Utf8, nulls != Nulls::None),
            values,
            logical,
            nulls == Nulls::Some,
        );
    }
}

impl Table {
    /// All rows, from a row on.
    pub(super) fn tile(&self, start: usize) -> Tile<'_> {
        self.tile_of(Selection::Range(start), self.rows.len() - start)
    }

    /// Some rows, in any order.
    pub(super) fn tile_at(&self, positions: &[u32]) -> Tile<'_> {
        self.tile_of(Selection::Positions(positions.to_vec()), positions.len())
    }

    fn tile_of(&self, selection: Selection, rows: usize) -> Tile<'_> {
        let origin = Origin {
            columns: &self.columns,
            selection,
        };
        Tile {
            rows,
            origins: vec![origin],
            slots: (0..self.columns.len())
                .map(|column| Slot::Origin { origin: 0, column })
                .collect(),
        }
    }

    /// The values of a position.
    pub(super) fn row(&self, position: u32) -> Vec<Value> {
        if position == NO_ROW {
            return vec![Value::Null; self.columns.len()];
        }
        self.rows[position as usize].clone()
    }
}
