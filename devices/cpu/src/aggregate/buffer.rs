//! Rows on their way to a part of the shared table, kept until there are many for it.
//!
//! With many groups a random row misses the caches and the address translation once for each array it touches. Gathering
//! rows by part first, a few thousand each, lets a part's arrays stay in the second-level cache while they are updated, and
//! takes its lock once. What waits is small: the key, and one 64-bit word for each primitive.

use std::borrow::Cow;

use trireme_device_api::{DeviceError, Reservation};

use crate::aggregate::hash::Keys;
use crate::aggregate::input::{Input, Lanes, integers};
use crate::aggregate::primitive::{Operation, Primitive};
use crate::vector::TILE_ROWS;

/// Bytes that one worker's buffers may take, about.
const BUFFER_BYTES: usize = 48 << 20;

/// One worker's buffers: part `p` has entries `p · room .. p · room + fill[p]` of each array.
pub(super) struct Buffers {
    keys: Keys,
    /// By primitive.
    values: Vec<Vec<i64>>,
    fill: Vec<u32>,
    /// Rows of the source that entries of a part stand for, at most.
    counted: Vec<usize>,
    room: usize,
    /// Where the entries of a tile go.
    places: Vec<u32>,
    _reservation: Reservation,
}

/// What waits for one part.
pub(super) struct Pending<'a> {
    pub(super) keys: Keys,
    pub(super) inputs: Vec<Input<'a>>,
    pub(super) counted: usize,
}

/// Whether a word says what a row means to a primitive.
pub(super) fn fits(primitive: &Primitive) -> bool {
    match primitive.operation {
        Operation::Rows | Operation::Valid | Operation::SumFloat | Operation::Extreme { .. } => true,
        Operation::Sum { largest } => largest <= i64::MAX.unsigned_abs().into(),
        _ => false,
    }
}

impl Buffers {
    /// For `parts` parts and `primitives` words a row.
    ///
    /// # Errors
    /// Memory is short.
    pub(super) fn new(
        parts: usize,
        keys: &Keys,
        primitives: usize,
        mut reservation: Reservation,
    ) -> Result<Self, DeviceError> {
        let width = 16 + primitives * 8;
        let room = (BUFFER_BYTES / parts.max(1) / width).clamp(2 * TILE_ROWS, 4 * TILE_ROWS);
        reservation.grow(room * width * parts)?;
        let cells = room * parts;
        Ok(Self {
            keys: match keys {
                Keys::U128(_) => Keys::U128(vec![0; cells]),
                _ => Keys::U64(vec![0; cells]),
            },
            values: (0..primitives).map(|_| vec![0; cells]).collect(),
            fill: vec![0; parts],
            counted: vec![0; parts],
            room,
            places: Vec::new(),
            _reservation: reservation,
        })
    }

    /// Parts that have no room for another [`TILE_ROWS`] entries.
    pub(super) fn full(&self) -> Vec<usize> {
        let most = (self.room - TILE_ROWS) as u32;
        let parts = self.fill.iter().enumerate();
        parts.filter(|(_, fill)| **fill > most).map(|(part, _)| part).collect()
    }

    /// Adds at most [`TILE_ROWS`] entries, from `start` on, to their parts, none of which is full. Each stands for one row,
    /// or for some of `clustered` rows.
    pub(super) fn push(
        &mut self,
        start: usize,
        parts: impl Iterator<Item = u32>,
        keys: &Keys,
        values: &[Vec<i64>],
        clustered: Option<usize>,
    ) {
        self.places.clear();
        for part in parts {
            let part = part as usize;
            let fill = &mut self.fill[part];
            self.places.push((part * self.room) as u32 + *fill);
            *fill += 1;
            self.counted[part] += clustered.unwrap_or(1);
        }
        let places = &self.places;
        match (&mut self.keys, keys) {
            (Keys::U64(kept), Keys::U64(keys)) => scatter(kept, places, &keys[start..]),
            (Keys::U128(kept), Keys::U128(keys)) => scatter(kept, places, &keys[start..]),
            _ => {}
        }
        for (kept, values) in self.values.iter_mut().zip(values) {
            scatter(kept, places, &values[start..]);
        }
    }

    /// What waits for a part.
    pub(super) fn pending(&self, part: usize, primitives: &[Primitive]) -> Pending<'_> {
        let start = part * self.room;
        let range = start..start + self.fill[part] as usize;
        let keys = match &self.keys {
            Keys::U64(keys) => Keys::U64(keys[range.clone()].to_vec()),
            Keys::U128(keys) => Keys::U128(keys[range.clone()].to_vec()),
            Keys::Bytes(_) => self.keys.empty(),
        };
        let mut inputs = Vec::with_capacity(primitives.len());
        for (primitive, values) in primitives.iter().zip(&self.values) {
            let values = &values[range.clone()];
            inputs.push(Input {
                lanes: match primitive.operation {
                    Operation::SumFloat => {
                        let floats = values.iter().map(|&value| f64::from_bits(value.cast_unsigned()));
                        Lanes::F64(floats.collect())
                    }
                    _ => Lanes::I64(Cow::Borrowed(values)),
                },
                pass: None,
            });
        }
        let counted = self.counted[part];
        Pending { keys, inputs, counted }
    }

    /// A part's entries are in its table.
    pub(super) fn clear(&mut self, part: usize) {
        self.fill[part] = 0;
        self.counted[part] = 0;
    }
}

fn scatter<T: Copy>(kept: &mut [T], places: &[u32], values: &[T]) {
    for (&place, &value) in places.iter().zip(values) {
        kept[place as usize] = value;
    }
}

/// The word of each entry for a primitive; a row that doesn't pass has the neutral one.
pub(super) fn words(primitive: &Primitive, input: &Input, rows: Option<&[u32]>, entries: usize) -> Vec<i64> {
    let neutral = match primitive.operation {
        Operation::Extreme { max: true } => i64::MIN,
        Operation::Extreme { max: false } => i64::MAX,
        _ => 0,
    };
    let row_of = |entry: usize| rows.map_or(entry, |rows| rows[entry] as usize);
    let pass = |row: usize| input.pass.as_ref().is_none_or(|pass| pass[row] != 0);
    let gather = |value: &dyn Fn(usize) -> i64| -> Vec<i64> {
        let rows = (0..entries).map(row_of);
        rows.map(|row| if pass(row) { value(row) } else { neutral }).collect()
    };
    let bits = |value: f64| value.to_bits().cast_signed();
    match &input.lanes {
        Lanes::None => match primitive.operation {
            Operation::Rows | Operation::Valid if input.pass.is_none() => vec![1; entries],
            Operation::Rows | Operation::Valid => gather(&|_| 1),
            _ => vec![neutral; entries],
        },
        Lanes::F32(values) => gather(&|row| bits(values[row].into())),
        Lanes::F64(values) => gather(&|row| bits(values[row])),
        lanes => integers!(lanes, i64, |values, widen| match (rows, &input.pass) {
            (None, None) => values[..entries].iter().map(|&value| widen(value)).collect(),
            (Some(rows), None) => rows.iter().map(|&row| widen(values[row as usize])).collect(),
            _ => {
                let rows = (0..entries).map(row_of);
                rows.map(|row| if pass(row) { widen(values[row]) } else { neutral }).collect()
            }
        }, else vec![neutral; entries]),
    }
}
