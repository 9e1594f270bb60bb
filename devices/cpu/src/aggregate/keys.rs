//! Group keys: how the columns of a row become one number, or one byte string, and back.
//!
//! ```text
//!  code of a column   NULL → 0, else value − low + (1 where NULL may occur)            below its cardinality
//!  Direct             … code₀ · n₁ · n₂ + code₁ · n₂ + code₂                           the slot of an array; rows in order ascend
//!  Packed             code₀ | code₁ << b₀ | code₂ << (b₀ + b₁) …                      64 or 128 bits
//!  Bytes              [null? value …]  with the length before each string
//! ```

use trireme_device_api::Type;

use crate::aggregate::hash::{Arena, Keys};
use crate::aggregate::input::key_of;
use crate::aggregate::primitive::bounds;
use crate::isa::{Isa, primitive};
use crate::vector::{Data, Shape, Vector};

/// How a column's values become codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CodeKind {
    /// Integers, booleans, dictionary codes.
    Integral,
    Float32,
    Float64,
    Bytes,
    Null,
}

/// One group column.
#[derive(Debug, Clone)]
pub(super) struct KeyColumn {
    pub(super) shape: Shape,
    pub(super) kind: CodeKind,
    pub(super) low: i128,
    pub(super) nullable: bool,
    /// Codes are below it; 0 means more than 128 bits.
    pub(super) cardinality: u128,
    /// Bits of a code.
    pub(super) bits: u32,
    /// Multiplier in a direct slot.
    pub(super) stride: u32,
    /// Shift in a packed key.
    pub(super) shift: u32,
}

impl KeyColumn {
    fn new(shape: &Shape) -> Self {
        let kind = match &shape.data_type {
            Type::Null => CodeKind::Null,
            Type::Float32 => CodeKind::Float32,
            Type::Float64 => CodeKind::Float64,
            data_type if data_type.is_bytes() && shape.dictionary.is_none() => CodeKind::Bytes,
            _ => CodeKind::Integral,
        };
        let nullable = shape.nullable;
        let (low, span) = match kind {
            CodeKind::Integral => {
                let (low, high) = bounds(shape);
                (low, high.wrapping_sub(low).cast_unsigned())
            }
            CodeKind::Float32 => (0, u128::from(u32::MAX)),
            CodeKind::Float64 => (0, u128::from(u64::MAX)),
            CodeKind::Bytes => (0, u128::MAX),
            CodeKind::Null => (0, 0),
        };
        let cardinality = span
            .checked_add(1 + u128::from(nullable && kind != CodeKind::Null))
            .unwrap_or(0);
        let bits = if cardinality == 0 {
            129
        } else {
            128 - (cardinality - 1).leading_zeros()
        };
        Self {
            shape: shape.clone(),
            kind,
            low,
            nullable: nullable && kind != CodeKind::Null,
            cardinality,
            bits,
            stride: 0,
            shift: 0,
        }
    }
}

/// How rows find their groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rung {
    /// No keys.
    Single,
    /// A handful of slots, one byte a row.
    Tiny,
    /// An array of slots for each worker.
    Direct,
    /// One array of slots for all workers, in pages behind locks.
    DirectShared,
    /// A hash table of 64-bit keys.
    Packed64,
    /// A hash table of 128-bit keys.
    Packed128,
    /// A hash table of byte strings.
    Bytes,
}

/// Slots of the tiny rung at most.
pub(super) const TINY_SLOTS: usize = 16;
/// Slots that each worker may have for itself.
pub(super) const DIRECT_SLOTS: usize = 1 << 16;
/// Slots of a direct array at most.
const SHARED_SLOTS: usize = 1 << 24;

/// The keys of a fragment.
#[derive(Debug)]
pub(super) struct KeyPlan {
    pub(super) columns: Vec<KeyColumn>,
    pub(super) rung: Rung,
    /// Of a direct rung, else 0.
    pub(super) slots: usize,
}

impl KeyPlan {
    /// Chooses the rung. `force` is for tests: a higher rung than needed.
    pub(super) fn new(groups: &[Shape], rows_hint: usize, force: Option<Rung>) -> Self {
        let mut columns: Vec<KeyColumn> = groups.iter().map(KeyColumn::new).collect();
        let mut slots = Some(1_u32);
        let mut shift = 0_u32;
        for column in columns.iter_mut().rev() {
            column.stride = slots.unwrap_or(0);
            let cardinality = u32::try_from(column.cardinality).ok().filter(|&count| count != 0);
            slots = slots.and_then(|slots| slots.checked_mul(cardinality?));
        }
        for column in &mut columns {
            column.shift = shift;
            shift = shift.saturating_add(column.bits);
        }
        let slots = slots.map_or(usize::MAX, |slots| slots as usize);
        let most = rows_hint.saturating_mul(8).clamp(DIRECT_SLOTS, SHARED_SLOTS);
        let fitting = if columns.is_empty() {
            Rung::Single
        } else if slots <= TINY_SLOTS {
            Rung::Tiny
        } else if slots <= DIRECT_SLOTS {
            Rung::Direct
        } else if slots <= most {
            Rung::DirectShared
        } else if shift <= 64 {
            Rung::Packed64
        } else if shift <= 128 {
            Rung::Packed128
        } else {
            Rung::Bytes
        };
        let rung = force.unwrap_or(fitting);
        let direct = matches!(rung, Rung::Single | Rung::Tiny | Rung::Direct | Rung::DirectShared);
        Self {
            columns,
            rung,
            slots: if direct { slots } else { 0 },
        }
    }

    /// Packed keys that name a slot.
    pub(super) fn direct(&self) -> bool {
        self.slots > 0
    }

    /// Keys of no rows.
    pub(super) fn empty_keys(&self) -> Keys {
        match self.rung {
            Rung::Packed128 => Keys::U128(Vec::new()),
            Rung::Bytes => Keys::Bytes(Arena::default()),
            _ => Keys::U64(Vec::new()),
        }
    }

    /// The slot of each row.
    pub(super) fn slots_of(&self, isa: Isa, groups: &[Vector], rows: usize, slots: &mut Vec<u32>) {
        slots.clear();
        slots.resize(rows, 0);
        for (column, vector) in self.columns.iter().zip(groups) {
            let (low, stride) = (column.low as u32, column.stride);
            let (shift, valid) = valid_of(column, vector);
            coded!(vector, |values| add_slots(
                isa,
                values,
                low.wrapping_sub(shift.into()),
                stride,
                valid,
                slots
            ));
        }
    }

    /// The slot of each row in a byte, for the tiny rung.
    pub(super) fn byte_slots_of(&self, isa: Isa, groups: &[Vector], rows: usize, slots: &mut Vec<u8>) {
        slots.clear();
        slots.resize(rows, 0);
        for (column, vector) in self.columns.iter().zip(groups) {
            let (low, stride) = (column.low as u8, column.stride as u8);
            let (shift, valid) = valid_of(column, vector);
            coded!(vector, |values| add_bytes(
                isa,
                values,
                low.wrapping_sub(shift),
                stride,
                valid,
                slots
            ));
        }
    }

    /// The key of each row, for hashing.
    pub(super) fn keys_of(&self, isa: Isa, groups: &[Vector], rows: usize, keys: &mut Keys) {
        keys.clear();
        match keys {
            Keys::U64(keys) => {
                keys.resize(rows, 0);
                for (column, vector) in self.columns.iter().zip(groups) {
                    let (low, bits) = (column.low as u64, column.shift.min(63));
                    let (shift, valid) = valid_of(column, vector);
                    coded!(vector, |values| add_keys(
                        isa,
                        values,
                        low.wrapping_sub(shift.into()),
                        bits,
                        valid,
                        keys
                    ));
                }
            }
            Keys::U128(keys) => {
                keys.resize(rows, 0);
                for (column, vector) in self.columns.iter().zip(groups) {
                    let (low, bits) = (column.low as u128, column.shift.min(127));
                    let (shift, valid) = valid_of(column, vector);
                    coded!(vector, |values| add_wide(
                        isa,
                        values,
                        low.wrapping_sub(shift.into()),
                        bits,
                        valid,
                        keys
                    ));
                }
            }
            Keys::Bytes(arena) => self.encode(groups, rows, arena),
        }
    }

    fn encode(&self, groups: &[Vector], rows: usize, arena: &mut Arena) {
        for row in 0..rows {
            for (column, vector) in self.columns.iter().zip(groups) {
                encode_value(column, vector, row, arena);
            }
            arena.end();
        }
    }
}

/// What NULL adds to codes, and which rows aren't NULL; none when none is.
fn valid_of<'a>(column: &KeyColumn, vector: &'a Vector) -> (u8, Option<&'a [u8]>) {
    if column.nullable {
        (1, vector.valid.as_deref())
    } else {
        (0, None)
    }
}

/// Runs `$body` with `$values` bound to the slice of a vector's values; not for strings, and not where all are NULL: code 0.
macro_rules! coded {
    ($vector:expr, |$values:ident| $body:expr) => {
        match &$vector.data {
            Data::Bool($values) => $body,
            Data::I8($values) => $body,
            Data::I16($values) => $body,
            Data::I32($values) => $body,
            Data::I64($values) => $body,
            Data::I128($values) => $body,
            Data::Codes($values, _) => $body,
            Data::F32($values) => $body,
            Data::F64($values) => $body,
            Data::Bytes(_) | Data::Strings(_) | Data::Interval(_) | Data::Null(_) => {}
        }
    };
}
use coded;

/// A value as an unsigned number; those of one column differ from each other after truncation to the bits of its codes.
pub(crate) trait Code: Copy {
    fn wide(self) -> u128;
    #[inline(always)]
    fn word(self) -> u64 {
        self.wide() as u64
    }
}

macro_rules! code {
    ($($t:ty),*) => { $(impl Code for $t {
        #[inline(always)]
        fn wide(self) -> u128 {
            self as u128
        }
        #[inline(always)]
        fn word(self) -> u64 {
            self as u64
        }
    })* };
}
code!(u8, i8, i16, i32, u32, i64, i128);

impl Code for f32 {
    #[inline(always)]
    fn wide(self) -> u128 {
        let canonical = if self.is_nan() { f32::NAN.abs() } else { self + 0.0 };
        canonical.to_bits().into()
    }
}

impl Code for f64 {
    #[inline(always)]
    fn wide(self) -> u128 {
        key_of(self).into()
    }
}

/// Defines a function that adds a column's codes, each of them `placed`, to the slots or keys of rows.
macro_rules! adding {
    ($name:ident, $word:ty, $place:ident: $place_type:ty, |$value:ident| $read:expr, |$code:ident| $placed:expr) => {
        primitive! {
            fn $name[T: Code](
                values: &[T],
                low: $word,
                $place: $place_type,
                valid: Option<&[u8]>,
                slots: &mut [$word],
            ) {
                match valid {
                    None => {
                        for (slot, &$value) in slots.iter_mut().zip(values) {
                            let $code = ($read).wrapping_sub(low);
                            *slot = slot.wrapping_add($placed);
                        }
                    }
                    Some(valid) => {
                        for ((slot, &$value), &valid) in slots.iter_mut().zip(values).zip(valid) {
                            let $code = ($read).wrapping_sub(low) & <$word>::MIN.wrapping_sub(<$word>::from(valid != 0));
                            *slot = slot.wrapping_add($placed);
                        }
                    }
                }
            }
        }
    };
}
adding!(add_bytes, u8, stride: u8, |value| value.word() as u8, |code| code.wrapping_mul(stride));
adding!(add_slots, u32, stride: u32, |value| value.word() as u32, |code| code.wrapping_mul(stride));
adding!(add_keys, u64, bits: u32, |value| value.word(), |code| code << bits);
adding!(add_wide, u128, bits: u32, |value| value.wide(), |code| code << bits);

fn encode_value(column: &KeyColumn, vector: &Vector, row: usize, arena: &mut Arena) {
    let null = matches!(vector.data, Data::Null(_))
        || column.nullable && vector.valid.as_ref().is_some_and(|valid| valid[row] == 0);
    if column.nullable || column.kind == CodeKind::Null {
        arena.bytes.push(u8::from(null));
    }
    if null {
        return;
    }
    let string = match &vector.data {
        Data::Bytes(values) => Some(values[row]),
        Data::Strings(strings) => Some(strings.get(row)),
        _ => None,
    };
    if let Some(value) = string {
        arena.bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        arena.bytes.extend_from_slice(value);
        return;
    }
    let low = column.low;
    let width = value_width(column);
    coded!(vector, |values| {
        let code = values[row].wide().wrapping_sub(low.cast_unsigned());
        arena.bytes.extend_from_slice(&code.to_le_bytes()[..width]);
    });
}

/// Bytes of a value that is no string in an encoded key.
pub(super) fn value_width(column: &KeyColumn) -> usize {
    (column.bits.min(128) as usize).div_ceil(8)
}
