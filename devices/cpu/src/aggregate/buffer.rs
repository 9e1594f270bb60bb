//! Rows on their way to a part of the shared table, kept until there are many for it.
//!
//! With many groups a random row misses the caches and the address translation once for each array it touches. Gathering
//! rows by part first, a few thousand each, lets a part's arrays stay in the second-level cache while they are updated, and
//! takes its lock once. What waits is small: the key, and for each primitive nothing, 32 or 64 bits, as its values need.
//!
//! Where most rows are groups of their own, a part's arrays outgrow that cache, too. Then what fills is set aside until all rows
//! have come, and each part's arrays are made and gone over once.

use std::borrow::Cow;
use std::ops::Range;

use trireme_device_api::{DeviceError, Reservation};

use crate::aggregate::hash::Keys;
use crate::aggregate::input::{Input, Lanes, integers};
use crate::aggregate::primitive::{Operation, Primitive};
use crate::vector::TILE_ROWS;

/// Bytes that one worker's buffers may take, about.
const BUFFER_BYTES: usize = 48 << 20;

/// Keys of entries: slots within their part, or keys to hash.
#[derive(Debug, Clone, Copy)]
pub(super) enum Entries<'a> {
    Slots(&'a [u32]),
    Keys(&'a Keys),
}

/// Keys by cell.
enum Cells {
    Slots(Vec<u32>),
    U64(Vec<u64>),
    U128(Vec<u128>),
}

/// What entries mean to a primitive.
pub(super) enum Words<'a> {
    /// 1 each.
    Ones,
    Ints(Cow<'a, [i32]>),
    Longs(Cow<'a, [i64]>),
}

/// The same by cell, as wide as was needed so far.
enum Column {
    Ones,
    Ints(Vec<i32>),
    Longs(Vec<i64>),
}

/// One worker's buffers: part `p` has cells `p · room .. p · room + fill[p]` of each array.
pub(super) struct Buffers {
    keys: Cells,
    /// By primitive.
    columns: Vec<Column>,
    fill: Vec<u32>,
    /// Rows of the source that cells of a part stand for at most, beside one each.
    further: Vec<usize>,
    room: usize,
    /// By part, cells that were full.
    aside: Vec<Vec<Aside>>,
    aside_bytes: usize,
    /// How often cells could have been set aside.
    fills: usize,
    /// Where the entries of a tile go.
    places: Vec<u32>,
    reservation: Reservation,
}

/// See [`Buffers::set_aside`].
const LOOKED_AT: usize = 4;

/// Of one worker's entries so many bytes are set aside at most.
const ASIDE_BYTES: usize = 256 << 20;

/// What once waited in a part's cells.
struct Aside {
    bytes: usize,
    keys: Keys,
    columns: Vec<Column>,
    counted: usize,
}

/// Keys that wait for one part.
pub(super) enum Waiting<'a> {
    Slots(&'a [u32]),
    Keys(Cow<'a, Keys>),
}

/// Some of what waits for one part.
pub(super) struct Pending<'a> {
    pub(super) keys: Waiting<'a>,
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

impl Entries<'_> {
    pub(super) fn len(self) -> usize {
        match self {
            Entries::Slots(slots) => slots.len(),
            Entries::Keys(keys) => keys.len(),
        }
    }
}

impl Words<'_> {
    fn width_bytes(&self) -> usize {
        match self {
            Words::Ones => 0,
            Words::Ints(_) => 4,
            Words::Longs(_) => 8,
        }
    }
}

impl Column {
    fn width_bytes(&self) -> usize {
        match self {
            Column::Ones => 0,
            Column::Ints(_) => 4,
            Column::Longs(_) => 8,
        }
    }

    fn copy(&self, range: Range<usize>) -> Self {
        match self {
            Column::Ones => Column::Ones,
            Column::Ints(values) => Column::Ints(values[range].to_vec()),
            Column::Longs(values) => Column::Longs(values[range].to_vec()),
        }
    }

    /// What cells mean to a primitive.
    fn input(&self, primitive: &Primitive, range: Range<usize>) -> Input<'_> {
        let count = matches!(primitive.operation, Operation::Rows | Operation::Valid);
        let lanes = match self {
            Column::Ones => Lanes::None,
            Column::Ints(values) if count => Lanes::I64(values[range].iter().map(|&value| value.into()).collect()),
            Column::Ints(values) => Lanes::I32(&values[range]),
            Column::Longs(values) if primitive.operation == Operation::SumFloat => {
                let bits = values[range].iter();
                Lanes::F64(bits.map(|&value| f64::from_bits(value.cast_unsigned())).collect())
            }
            Column::Longs(values) => Lanes::I64(Cow::Borrowed(&values[range])),
        };
        Input { lanes, pass: None }
    }

    /// Makes it wide enough.
    fn widen(&mut self, words: &Words, cells: usize) {
        match (&mut *self, words) {
            (Column::Ones, Words::Ints(_)) => *self = Column::Ints(vec![1; cells]),
            (Column::Ones, Words::Longs(_)) => *self = Column::Longs(vec![1; cells]),
            (Column::Ints(ints), Words::Longs(_)) => {
                *self = Column::Longs(ints.iter().map(|&value| value.into()).collect());
            }
            _ => {}
        }
    }

    /// Puts entries from `start` on into cells.
    fn put(&mut self, places: &[u32], words: &Words, start: usize) {
        match (self, words) {
            (Column::Ints(kept), Words::Ints(values)) => scatter(kept, places, &values[start..]),
            (Column::Longs(kept), Words::Longs(values)) => scatter(kept, places, &values[start..]),
            (Column::Longs(kept), Words::Ints(values)) => {
                for (&place, &value) in places.iter().zip(&values[start..]) {
                    kept[place as usize] = value.into();
                }
            }
            (Column::Ints(kept), Words::Ones) => places.iter().for_each(|&place| kept[place as usize] = 1),
            (Column::Longs(kept), Words::Ones) => places.iter().for_each(|&place| kept[place as usize] = 1),
            _ => {}
        }
    }
}

impl Buffers {
    /// For `parts` parts, of keys and words like these.
    ///
    /// # Errors
    /// Memory is short.
    pub(super) fn new(
        parts: usize,
        keys: Entries,
        words: &[Words],
        mut reservation: Reservation,
    ) -> Result<Self, DeviceError> {
        let key_bytes = match keys {
            Entries::Slots(_) => 4,
            Entries::Keys(Keys::U128(_)) => 16,
            Entries::Keys(_) => 8,
        };
        let width = key_bytes + words.iter().map(Words::width_bytes).sum::<usize>();
        let room = BUFFER_BYTES / parts.max(1) / width;
        let room = room.clamp(TILE_ROWS + TILE_ROWS / 2, 8 * TILE_ROWS);
        let cells = room * parts;
        reservation.grow(cells * key_bytes)?;
        let mut made = Self {
            keys: match keys {
                Entries::Slots(_) => Cells::Slots(vec![0; cells]),
                Entries::Keys(Keys::U128(_)) => Cells::U128(vec![0; cells]),
                Entries::Keys(_) => Cells::U64(vec![0; cells]),
            },
            columns: words.iter().map(|_| Column::Ones).collect(),
            fill: vec![0; parts],
            further: vec![0; parts],
            room,
            aside: (0..parts).map(|_| Vec::new()).collect(),
            aside_bytes: 0,
            fills: 0,
            places: Vec::new(),
            reservation,
        };
        made.widen(words)?;
        Ok(made)
    }

    /// Makes room for values as wide as these.
    ///
    /// # Errors
    /// Memory is short.
    pub(super) fn widen(&mut self, words: &[Words]) -> Result<(), DeviceError> {
        let cells = self.room * self.fill.len();
        for (column, words) in self.columns.iter_mut().zip(words) {
            let more = words.width_bytes().saturating_sub(column.width_bytes());
            self.reservation.grow(more * cells)?;
            column.widen(words, cells);
        }
        Ok(())
    }

    /// Parts that have no room for another [`TILE_ROWS`] entries.
    pub(super) fn full(&self) -> Vec<usize> {
        let most = (self.room - TILE_ROWS) as u32;
        let parts = self.fill.iter().enumerate();
        parts.filter(|(_, fill)| **fill > most).map(|(part, _)| part).collect()
    }

    /// Adds at most [`TILE_ROWS`] entries, from `start` on, to their parts, none of which is full; columns are wide enough.
    /// Each entry stands for one row, or for some of `clustered` rows.
    pub(super) fn push(
        &mut self,
        start: usize,
        parts: &[u32],
        keys: Entries,
        words: &[Words],
        clustered: Option<usize>,
    ) {
        let (room, fill) = (self.room as u32, &mut self.fill);
        self.places.clear();
        self.places.extend(parts.iter().map(|&part| {
            let fill = &mut fill[part as usize];
            *fill += 1;
            part * room + *fill - 1
        }));
        if let Some(clustered) = clustered {
            for &part in parts {
                self.further[part as usize] += clustered;
            }
        }
        let places = &self.places;
        match (&mut self.keys, keys) {
            (Cells::Slots(kept), Entries::Slots(slots)) => scatter(kept, places, &slots[start..]),
            (Cells::U64(kept), Entries::Keys(Keys::U64(keys))) => scatter(kept, places, &keys[start..]),
            (Cells::U128(kept), Entries::Keys(Keys::U128(keys))) => scatter(kept, places, &keys[start..]),
            _ => {}
        }
        for (column, words) in self.columns.iter_mut().zip(words) {
            column.put(places, words, start);
        }
    }

    /// Sets aside what waits in a part's cells; false where keys are slots, memory is short, or for one in [`LOOKED_AT`], which
    /// goes into its table and so tells whether rows are still groups of their own.
    pub(super) fn set_aside(&mut self, part: usize) -> bool {
        self.fills += 1;
        if self.fills.is_multiple_of(LOOKED_AT) {
            return false;
        }
        let range = self.cells_of(part);
        let key_bytes = match &self.keys {
            Cells::Slots(_) => return false,
            Cells::U64(_) => 8,
            Cells::U128(_) => 16,
        };
        let width = key_bytes + self.columns.iter().map(Column::width_bytes).sum::<usize>();
        let bytes = range.len() * width;
        let Some(keys) = self.keys_at(range.clone()) else {
            return false;
        };
        if self.aside_bytes + bytes > ASIDE_BYTES || self.reservation.grow(bytes).is_err() {
            return false;
        }
        self.aside_bytes += bytes;
        self.aside[part].push(Aside {
            bytes,
            keys,
            columns: self.columns.iter().map(|column| column.copy(range.clone())).collect(),
            counted: self.further[part].saturating_add(range.len()),
        });
        (self.fill[part], self.further[part]) = (0, 0);
        true
    }

    /// Entries that wait for a part.
    pub(super) fn waiting(&self, part: usize) -> usize {
        let aside: usize = self.aside[part].iter().map(|aside| aside.keys.len()).sum();
        aside + self.fill[part] as usize
    }

    fn cells_of(&self, part: usize) -> Range<usize> {
        part * self.room..part * self.room + self.fill[part] as usize
    }

    /// A copy of keys that aren't slots.
    fn keys_at(&self, range: Range<usize>) -> Option<Keys> {
        match &self.keys {
            Cells::Slots(_) => None,
            Cells::U64(keys) => Some(Keys::U64(keys[range].to_vec())),
            Cells::U128(keys) => Some(Keys::U128(keys[range].to_vec())),
        }
    }

    /// What waits for a part, in the order in which it came.
    pub(super) fn pending<'b>(&'b self, part: usize, primitives: &'b [Primitive]) -> impl Iterator<Item = Pending<'b>> {
        let inputs = |columns: &'b [Column], range: Range<usize>| {
            let columns = primitives.iter().zip(columns);
            columns
                .map(|(primitive, column)| column.input(primitive, range.clone()))
                .collect()
        };
        let aside = self.aside[part].iter().map(move |aside| Pending {
            keys: Waiting::Keys(Cow::Borrowed(&aside.keys)),
            inputs: inputs(&aside.columns, 0..aside.keys.len()),
            counted: aside.counted,
        });
        let range = self.cells_of(part);
        let keys = match &self.keys {
            Cells::Slots(slots) => Some(Waiting::Slots(&slots[range.clone()])),
            _ => self.keys_at(range.clone()).map(|keys| Waiting::Keys(Cow::Owned(keys))),
        };
        let last = keys.filter(|_| !range.is_empty()).map(|keys| Pending {
            keys,
            inputs: inputs(&self.columns, range.clone()),
            counted: self.further[part].saturating_add(range.len()),
        });
        aside.chain(last)
    }

    /// A part's entries are in its table.
    pub(super) fn clear(&mut self, part: usize) {
        self.fill[part] = 0;
        self.further[part] = 0;
        let bytes = self.aside[part].drain(..).map(|aside| aside.bytes).sum();
        self.aside_bytes -= bytes;
        self.reservation.shrink(bytes);
    }
}

fn scatter<T: Copy>(kept: &mut [T], places: &[u32], values: &[T]) {
    for (&place, &value) in places.iter().zip(values) {
        kept[place as usize] = value;
    }
}

/// The word of each entry for a primitive; a row that doesn't pass has the neutral one. `clustered`: rows that one entry may
/// stand for.
pub(super) fn words<'a>(
    primitive: &Primitive,
    input: &'a Input,
    rows: Option<&[u32]>,
    entries: usize,
    clustered: Option<usize>,
) -> Words<'a> {
    let neutral = match primitive.operation {
        Operation::Extreme { max: true } => i64::MIN,
        Operation::Extreme { max: false } => i64::MAX,
        _ => 0,
    };
    let row_of = |entry: usize| rows.map_or(entry, |rows| rows[entry] as usize);
    let pass = |row: usize| input.pass.as_ref().is_none_or(|pass| pass[row] != 0);
    let gather = |value: &dyn Fn(usize) -> i64| -> Cow<'a, [i64]> {
        let rows = (0..entries).map(row_of);
        rows.map(|row| if pass(row) { value(row) } else { neutral }).collect()
    };
    let bits = |value: f64| value.to_bits().cast_signed();
    let narrow = match primitive.operation {
        Operation::Rows | Operation::Valid => clustered.unwrap_or(1) <= i32::MAX as usize,
        Operation::Sum { largest } => largest
            .checked_mul(clustered.unwrap_or(1) as u128)
            .is_some_and(|most| most <= i32::MAX.unsigned_abs().into()),
        _ => false,
    };
    match &input.lanes {
        Lanes::None => match primitive.operation {
            Operation::Rows | Operation::Valid if input.pass.is_none() => Words::Ones,
            Operation::Rows | Operation::Valid => {
                Words::Ints((0..entries).map(|entry| i32::from(pass(row_of(entry)))).collect())
            }
            _ => Words::Longs(vec![neutral; entries].into()),
        },
        Lanes::F32(values) => Words::Longs(gather(&|row| bits(values[row].into()))),
        Lanes::F64(values) => Words::Longs(gather(&|row| bits(values[row]))),
        Lanes::I32(values) if narrow && rows.is_none() && input.pass.is_none() => {
            Words::Ints(Cow::Borrowed(&values[..entries]))
        }
        Lanes::I64(values) if !narrow && rows.is_none() && input.pass.is_none() => {
            Words::Longs(Cow::Borrowed(&values[..entries]))
        }
        lanes => integers!(lanes, i64, |values, widen| match (rows, &input.pass) {
            (None, None) if narrow => Words::Ints(values[..entries].iter().map(|&value| widen(value) as i32).collect()),
            (None, None) => Words::Longs(values[..entries].iter().map(|&value| widen(value)).collect()),
            (Some(rows), None) if narrow => {
                Words::Ints(rows.iter().map(|&row| widen(values[row as usize]) as i32).collect())
            }
            (Some(rows), None) => Words::Longs(rows.iter().map(|&row| widen(values[row as usize])).collect()),
            _ => Words::Longs(gather(&|row| widen(values[row]))),
        }, else Words::Longs(vec![neutral; entries].into())),
    }
}
