//! Sort keys as numbers: the keys of a row become one integer (or one byte string) whose plain order is the asked one.
//!
//! A key whose values have known bounds is a *code* of as few bits as the bounds need: integers less their smallest value,
//! strings by rank in their dictionary, floats by their ordered bits; NULL is the code below or above all others, and a
//! descending key is turned over. If the codes of all keys fit 64 or 128 bits they are put side by side. Else a row's key is a
//! byte string: codes with the highest byte first, strings escaped so that a shorter one comes first; the first 24 bytes are
//! kept beside the row, the rest (the *tail*) apart, looked at only when these are equal.
//!
//! ```text
//!  packed:  │ code of key 1 │ code of key 2 │ … │                      u64 or u128
//!  bytes:   │ NULL? │ b y t e s 00 FF … 00 00 │ code of key 2 │ …      3 × u64 ++ tail
//! ```

use std::sync::Arc;

use trireme_device_api::{DeviceError, Type};

use crate::compact::kept;
use crate::isa::{Isa, primitive};
use crate::number::{Number, and_bytes, between};
use crate::vector::{Data, Shape, Vector};

use super::packed::{PREFIX_BYTES, Packed, SortKey};

/// Bytes of the widest code.
const CODE_BYTES: usize = 16;

/// How to order by one key.
#[derive(Debug, Clone)]
pub(crate) struct KeyOrder {
    /// What is known of the key.
    pub(crate) shape: Shape,
    /// Largest first.
    pub(crate) descending: bool,
    /// NULLs first, whatever the direction.
    pub(crate) nulls_first: bool,
}

/// How one key becomes a code or bytes.
#[derive(Debug)]
enum Kind {
    /// Integers and booleans.
    Integers {
        low: i128,
        high: i128,
    },
    Float32,
    Float64,
    /// By code of the dictionary: the finished sort code.
    Ranks(Arc<[u32]>),
    Bytes,
    Interval,
    /// NULL throughout.
    Null,
}

#[derive(Debug)]
pub(super) struct Key {
    kind: Kind,
    descending: bool,
    nulls_first: bool,
    nullable: bool,
    /// The largest code, NULL's included; none when the key has no code.
    most: Option<u128>,
}

/// How much room a row's key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// 64 bits.
    One,
    /// 128 bits.
    Two,
    /// A byte string.
    Bytes,
}

/// How rows become keys.
#[derive(Debug)]
pub(crate) struct Plan {
    keys: Vec<Key>,
    isa: Isa,
    pub(super) width: Width,
}

/// The parts of keys that follow the first 24 bytes, by row.
#[derive(Debug, Default)]
pub(super) struct Tails {
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

impl Tails {
    pub(super) fn get(&self, row: usize) -> &[u8] {
        let from = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.bytes[from..self.ends[row]]
    }

    pub(super) fn size_bytes(&self) -> usize {
        size_of_val(self.ends.as_slice()) + self.bytes.len()
    }

    /// Only these rows, in this order.
    pub(super) fn keep(&mut self, rows: impl Iterator<Item = usize>) {
        let mut kept = Self::default();
        for row in rows {
            kept.push(self.get(row));
        }
        *self = kept;
    }

    pub(super) fn push(&mut self, tail: &[u8]) {
        self.bytes.extend_from_slice(tail);
        self.ends.push(self.bytes.len());
    }
}

/// What the first key must be for a row to be among the best: a cheap look before keys are made.
#[derive(Debug)]
pub(super) enum Bound {
    /// Anything.
    Open,
    /// From `least` to `most`, or NULL if `nulls`.
    Integers { least: i128, most: i128, nulls: bool },
    /// A code of at most this.
    Code(u128),
    /// At most (or, descending, at least) these bytes.
    Bytes(Vec<u8>),
    /// NULL, before all bytes.
    OnlyNulls,
}

impl Plan {
    pub(crate) fn new(orders: &[KeyOrder]) -> Self {
        let keys: Vec<_> = orders.iter().map(Key::new).collect();
        let mut plan = Self {
            keys,
            isa: Isa::detect(),
            width: Width::Bytes,
        };
        plan.width = match plan.bits() {
            Some(0..=64) => Width::One,
            Some(65..=128) => Width::Two,
            _ => Width::Bytes,
        };
        plan
    }

    /// Bits of a packed key; none when a key has no code.
    pub(crate) fn bits(&self) -> Option<u32> {
        self.keys.iter().map(Key::bits).sum()
    }

    /// Packed keys of all rows in place of what is in `out`. Only when they fit.
    pub(crate) fn pack<K: Packed>(
        &self,
        vectors: &[Vector<'_>],
        rows: usize,
        out: &mut Vec<K>,
    ) -> Result<(), DeviceError> {
        self.check(vectors, rows)?;
        out.clear();
        out.resize(rows, K::default());
        for (key, vector) in self.keys.iter().zip(vectors) {
            key.pack_into(self.isa, vector, out)?;
        }
        Ok(())
    }

    /// Prefixes and tails of the given rows, appended. Only for [`Width::Bytes`].
    pub(super) fn encode<K: SortKey>(
        &self,
        vectors: &[Vector<'_>],
        rows: &[u32],
        prefixes: &mut Vec<K>,
        tails: &mut Tails,
    ) -> Result<(), DeviceError> {
        prefixes.clear();
        self.encode_each(vectors, rows.iter().copied(), |_, key| {
            let mut prefix = [0; PREFIX_BYTES];
            let first = key.len().min(PREFIX_BYTES);
            prefix[..first].copy_from_slice(&key[..first]);
            prefixes.push(K::of_bytes(prefix));
            tails.push(&key[first..]);
        })
    }

    /// Calls `take` with each of these rows and its key as a byte string.
    pub(crate) fn encode_each(
        &self,
        vectors: &[Vector<'_>],
        rows: impl Iterator<Item = u32>,
        mut take: impl FnMut(u32, &[u8]),
    ) -> Result<(), DeviceError> {
        let codes = self.codes(vectors)?;
        let mut key = Vec::new();
        for at in rows {
            let row = at as usize;
            key.clear();
            for ((field, vector), codes) in self.keys.iter().zip(vectors).zip(&codes) {
                match field.code_bytes() {
                    Some(bytes) => key.extend_from_slice(&codes[row].to_be_bytes()[CODE_BYTES - bytes..]),
                    None => field.encode_into(vector, row, &mut key),
                }
            }
            take(at, &key);
        }
        Ok(())
    }

    /// Codes of the keys that have them, else nothing.
    fn codes(&self, vectors: &[Vector<'_>]) -> Result<Vec<Vec<u128>>, DeviceError> {
        let rows = vectors.first().map_or(0, Vector::len);
        self.check(vectors, rows)?;
        let of = |(key, vector): (&Key, &Vector<'_>)| {
            let mut codes = Vec::new();
            if key.most.is_some() {
                codes.resize(rows, 0);
                key.pack_into(self.isa, vector, &mut codes)?;
            }
            Ok(codes)
        };
        self.keys.iter().zip(vectors).map(of).collect()
    }

    fn check(&self, vectors: &[Vector<'_>], rows: usize) -> Result<(), DeviceError> {
        if vectors.len() == self.keys.len() && vectors.iter().all(|vector| vector.len() == rows) {
            return Ok(());
        }
        let text = format!("{} sort key vectors for {} keys", vectors.len(), self.keys.len());
        Err(DeviceError::Internal(text))
    }

    /// What a first key must be to be no worse than that of a row; `tail` of its key, which is empty for packed ones.
    pub(super) fn bound<K: SortKey>(&self, key: K, tail: &[u8]) -> Bound {
        let Some(first) = self.keys.first() else {
            return Bound::Open;
        };
        if self.width != Width::Bytes {
            let room = self.keys[1..].iter().filter_map(Key::bits).sum();
            let code = key.code().checked_shr(room).unwrap_or(0);
            return first.code_bound(code).unwrap_or(Bound::Open);
        }
        let prefix = key.bytes();
        match first.code_bytes() {
            None => first.bytes_bound(&[&prefix[..], tail].concat()),
            Some(bytes) => {
                let mut code = [0; CODE_BYTES];
                code[CODE_BYTES - bytes..].copy_from_slice(&prefix[..bytes]);
                let code = u128::from_be_bytes(code);
                first.code_bound(code).unwrap_or(Bound::Code(code))
            }
        }
    }

    /// The rows whose first key is within the bound, into `found`; false when all may be.
    pub(super) fn within(&self, bound: &Bound, vector: &Vector<'_>, found: &mut Vec<u32>) -> Result<bool, DeviceError> {
        found.clear();
        let rows = vector.len();
        let Some(first) = self.keys.first() else {
            return Ok(false);
        };
        match bound {
            Bound::Open => return Ok(false),
            Bound::Integers { least, most, nulls } => {
                let Some(mut inside) = first.inside(self.isa, vector, *least, *most) else {
                    return Ok(false);
                };
                match &vector.valid {
                    Some(valid) if *nulls => inside.iter_mut().zip(valid.iter()).for_each(|(i, v)| *i |= v ^ 1),
                    Some(valid) => and_bytes(self.isa, &mut inside, valid),
                    None => {}
                }
                *found = kept(self.isa, &inside, 0);
            }
            Bound::Code(code) => {
                let mut codes = vec![0_u128; rows];
                first.pack_into(self.isa, vector, &mut codes)?;
                found.extend((0..rows as u32).filter(|row| codes[*row as usize] <= *code));
            }
            Bound::OnlyNulls => found.extend((0..rows as u32).filter(|row| vector.is_null(*row as usize))),
            Bound::Bytes(value) => first.within_bytes(vector, value, found),
        }
        Ok(true)
    }
}

/// The first eight bytes as a number of the same order, zeros after the last.
fn prefix(value: &[u8]) -> u64 {
    match value.first_chunk::<8>() {
        Some(chunk) => u64::from_be_bytes(*chunk),
        None => {
            let mut bytes = [0; 8];
            bytes[..value.len()].copy_from_slice(value);
            u64::from_be_bytes(bytes)
        }
    }
}

impl Key {
    fn new(order: &KeyOrder) -> Self {
        let shape = &order.shape;
        let nulls = u128::from(shape.nullable);
        let above = u128::from(shape.nullable && order.nulls_first);
        let (kind, most) = match (&shape.data_type, &shape.dictionary) {
            (Type::Null, _) => (Kind::Null, Some(0)),
            (Type::Boolean, _) => (Kind::Integers { low: 0, high: 1 }, Some(1 + nulls)),
            (Type::Float32, _) => (Kind::Float32, Some(u32::MAX.into())),
            (Type::Float64, _) => (Kind::Float64, Some(u64::MAX.into())),
            (Type::Interval(_), _) => (Kind::Interval, None),
            (_, Some(dictionary)) => {
                let last = (dictionary.len() as u32).saturating_sub(1);
                let turned = |rank: &u32| if order.descending { last - rank } else { *rank };
                let codes = dictionary.ranks().iter().map(|rank| turned(rank) + above as u32);
                (Kind::Ranks(codes.collect()), Some(u128::from(last) + nulls))
            }
            (other, None) => match (shape.range, other.value_range()) {
                (Some((low, high)), Some((least, most))) => {
                    let (low, high) = (low.max(least), high.min(most));
                    let (low, high) = if low <= high { (low, high) } else { (0, 0) };
                    (
                        Kind::Integers { low, high },
                        Some(high.wrapping_sub(low).cast_unsigned() + nulls),
                    )
                }
                (None, Some((low, high))) => (
                    Kind::Integers { low, high },
                    Some(high.wrapping_sub(low).cast_unsigned() + nulls),
                ),
                _ => (Kind::Bytes, None),
            },
        };
        Self {
            kind,
            descending: order.descending,
            nulls_first: order.nulls_first,
            nullable: shape.nullable,
            most,
        }
    }

    /// Bits of a code.
    fn bits(&self) -> Option<u32> {
        self.most.map(|most| u128::BITS - most.leading_zeros())
    }

    /// Whole bytes of a code.
    fn code_bytes(&self) -> Option<usize> {
        self.bits().map(|bits| bits.div_ceil(8) as usize)
    }

    fn null_code(&self) -> u128 {
        if self.nulls_first { 0 } else { self.most.unwrap_or(0) }
    }

    fn pack_into<K: Packed>(&self, isa: Isa, vector: &Vector<'_>, out: &mut [K]) -> Result<(), DeviceError> {
        let bits = self.bits().unwrap_or(0);
        let null = K::of_code(self.null_code());
        let valid = vector.valid.as_deref();
        match (&vector.data, &self.kind) {
            (Data::Null(_), _) | (_, Kind::Null) => place(out, bits, (0..vector.len()).map(|_| null), None, null),
            (Data::Bool(values), Kind::Integers { .. }) => {
                let values: Vec<i8> = values.iter().map(|value| *value as i8).collect();
                self.pack_integers(isa, &values, out, valid);
            }
            (Data::I8(values), Kind::Integers { .. }) => self.pack_integers(isa, values, out, valid),
            (Data::I16(values), Kind::Integers { .. }) => self.pack_integers(isa, values, out, valid),
            (Data::I32(values), Kind::Integers { .. }) => self.pack_integers(isa, values, out, valid),
            (Data::I64(values), Kind::Integers { .. }) => self.pack_integers(isa, values, out, valid),
            (Data::I128(values), Kind::Integers { .. }) => self.pack_integers(isa, values, out, valid),
            (Data::Codes(codes, _), Kind::Ranks(ranks)) if !ranks.is_empty() => {
                let codes = codes.iter().map(|code| K::of_code(ranks[*code as usize].into()));
                place(out, bits, codes, valid, null);
            }
            (Data::Codes(..), Kind::Ranks(_)) => place(out, bits, (0..vector.len()).map(|_| null), None, null),
            (Data::F32(values), Kind::Float32) => {
                let turn = if self.descending { u32::MAX } else { 0 };
                let codes = values.iter().map(|value| K::of_code((ordered32(*value) ^ turn).into()));
                place(out, bits, codes, valid, null);
            }
            (Data::F64(values), Kind::Float64) => {
                let turn = if self.descending { u64::MAX } else { 0 };
                let codes = values.iter().map(|value| K::of_code((ordered64(*value) ^ turn).into()));
                place(out, bits, codes, valid, null);
            }
            _ => {
                return Err(DeviceError::Internal(
                    "a sort key's vector is not of its shape".to_owned(),
                ));
            }
        }
        Ok(())
    }

    fn pack_integers<T: Number, K: Packed>(&self, isa: Isa, values: &[T], out: &mut [K], valid: Option<&[u8]>) {
        let Kind::Integers { low, high } = self.kind else {
            return;
        };
        let bits = self.bits().unwrap_or(0);
        let null = K::of_code(self.null_code());
        let above = K::of_code(u128::from(self.nullable && self.nulls_first));
        if self.descending {
            place_below(isa, out, bits, values, K::of(high).plus(above), valid, null);
        } else {
            place_above(isa, out, bits, values, K::of(low).minus(above), valid, null);
        }
    }

    /// The key as bytes: strings and intervals, which have no code.
    fn encode_into(&self, vector: &Vector<'_>, row: usize, out: &mut Vec<u8>) {
        let null = vector.is_null(row);
        if self.nullable {
            out.push(u8::from(null != self.nulls_first));
        }
        if null {
            return;
        }
        let start = out.len();
        if let (Data::Interval(values), Kind::Interval) = (&vector.data, &self.kind) {
            let value = values[row];
            out.extend_from_slice(&(value.months.cast_unsigned() ^ 1 << 31).to_be_bytes());
            out.extend_from_slice(&(value.days.cast_unsigned() ^ 1 << 31).to_be_bytes());
            out.extend_from_slice(&(value.nanoseconds.cast_unsigned() ^ 1 << 63).to_be_bytes());
        } else {
            for (at, run) in vector.bytes_at(row).split(|byte| *byte == 0).enumerate() {
                if at > 0 {
                    out.extend_from_slice(&[0, 0xff]);
                }
                out.extend_from_slice(run);
            }
            out.extend_from_slice(&[0, 0]);
        }
        if self.descending {
            out[start..].iter_mut().for_each(|byte| *byte = !*byte);
        }
    }

    fn code_bound(&self, code: u128) -> Option<Bound> {
        let Kind::Integers { low, high } = self.kind else {
            return None;
        };
        let nulls_first = self.nullable && self.nulls_first;
        if self.nullable && code == self.null_code() {
            // NULL is the worst that is needed: before all others nothing else will do, after them everything does.
            return Some(if nulls_first {
                Bound::Integers {
                    least: 1,
                    most: 0,
                    nulls: true,
                }
            } else {
                Bound::Open
            });
        }
        let distance = (code - u128::from(nulls_first)).cast_signed();
        let (least, most) = if self.descending {
            (high.wrapping_sub(distance), high)
        } else {
            (low, low.wrapping_add(distance))
        };
        Some(Bound::Integers {
            least,
            most,
            nulls: nulls_first,
        })
    }

    /// The bound that an encoded string sets.
    fn bytes_bound(&self, key: &[u8]) -> Bound {
        if !matches!(self.kind, Kind::Bytes) {
            return Bound::Open;
        }
        let mut rest = key;
        if self.nullable {
            let null = u8::from(!self.nulls_first);
            if rest[0] == null {
                return if self.nulls_first {
                    Bound::OnlyNulls
                } else {
                    Bound::Open
                };
            }
            rest = &rest[1..];
        }
        let turn = if self.descending { 0xff } else { 0 };
        let mut value = Vec::new();
        let mut bytes = rest.iter().map(|byte| byte ^ turn);
        while let Some(byte) = bytes.next() {
            if byte == 0 && bytes.next() != Some(0xff) {
                break;
            }
            value.push(byte);
        }
        Bound::Bytes(value)
    }

    /// The rows whose value is no worse than the best that is known to be needed.
    fn within_bytes(&self, vector: &Vector<'_>, most: &[u8], found: &mut Vec<u32>) {
        let limit = prefix(most);
        let admits = |row: usize| {
            if vector.is_null(row) {
                return self.nulls_first;
            }
            let value = vector.bytes_at(row);
            let ordering = prefix(value).cmp(&limit).then_with(|| value.cmp(most));
            if self.descending {
                ordering.is_ge()
            } else {
                ordering.is_le()
            }
        };
        found.extend((0..vector.len()).filter(|row| admits(*row)).map(|row| row as u32));
    }

    /// 1 for each value, NULL rows' included, from `least` to `most`; none for vectors that aren't integral.
    fn inside(&self, isa: Isa, vector: &Vector<'_>, least: i128, most: i128) -> Option<Vec<u8>> {
        fn inside<T: Number>(isa: Isa, values: &[T], least: i128, most: i128) -> Vec<u8> {
            let (lane_least, lane_most) = T::LANE.range();
            let (least, most) = (least.max(lane_least), most.min(lane_most));
            if least > most {
                return vec![0; values.len()];
            }
            between(isa, values, T::of(least), T::of(most), false)
        }
        Some(match &vector.data {
            Data::Bool(values) => {
                let within = |value: &u8| u8::from((least..=most).contains(&i128::from(*value)));
                values.iter().map(within).collect()
            }
            Data::I8(values) => inside(isa, values, least, most),
            Data::I16(values) => inside(isa, values, least, most),
            Data::I32(values) => inside(isa, values, least, most),
            Data::I64(values) => inside(isa, values, least, most),
            Data::I128(values) => inside(isa, values, least, most),
            _ => return None,
        })
    }
}

primitive! {
    /// Adds codes that say how far values are above `from`.
    fn place_above[T: Number, K: Packed](out: &mut [K], bits: u32, values: &[T], from: K, valid: Option<&[u8]>, null: K) {
        place(out, bits, values.iter().map(|value| K::of(value.wide()).minus(from)), valid, null);
    }
}

primitive! {
    /// Adds codes that say how far values are below `from`.
    fn place_below[T: Number, K: Packed](out: &mut [K], bits: u32, values: &[T], from: K, valid: Option<&[u8]>, null: K) {
        place(out, bits, values.iter().map(|value| from.minus(K::of(value.wide()))), valid, null);
    }
}

/// Adds codes of `bits` below what is there.
#[inline(always)]
fn place<K: Packed>(out: &mut [K], bits: u32, codes: impl Iterator<Item = K>, valid: Option<&[u8]>, null: K) {
    match valid {
        None => {
            for (slot, code) in out.iter_mut().zip(codes) {
                *slot = slot.then(bits, code);
            }
        }
        Some(valid) => {
            for ((slot, code), valid) in out.iter_mut().zip(codes).zip(valid) {
                *slot = slot.then(bits, if *valid != 0 { code } else { null });
            }
        }
    }
}

/// Bits in the order of values: −0.0 is 0.0, all NaNs are one, above infinity. Neither 0 nor the maximum occurs, also turned over.
fn ordered64(value: f64) -> u64 {
    let bits = if value.is_nan() {
        f64::NAN.to_bits() & !(1 << 63)
    } else {
        (value + 0.0).to_bits()
    };
    bits ^ if bits >> 63 == 1 { u64::MAX } else { 1 << 63 }
}

/// As [`ordered64`].
fn ordered32(value: f32) -> u32 {
    let bits = if value.is_nan() {
        f32::NAN.to_bits() & !(1 << 31)
    } else {
        (value + 0.0).to_bits()
    };
    bits ^ if bits >> 31 == 1 { u32::MAX } else { 1 << 31 }
}
