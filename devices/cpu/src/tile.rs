//! The rows in flight between two steps of a pipeline.
//!
//! A tile names its rows by position in where they come from (the source segment, and the build side of each probe so far);
//! columns are loaded when an expression asks for them, so a row that a filter or probe drops costs nothing more.
//!
//! ```text
//!  slots:    [ Origin 0 col 0 | Origin 0 col 1 | Origin 1 col 0 | Computed ]      one per column of the fragment's row
//!  origins:  0: rows 4096..6144 of the segment (Range), later [4097, 4100, …] (Positions)
//!            1: rows of the first probe's build side; NO_ROW where an outer probe found no match
//! ```

use std::borrow::Cow;
use std::sync::Arc;

use trireme_device_api::{Codes, DeviceColumn, DeviceError, Values};

use crate::compact::kept;
use crate::isa::Isa;
use crate::load::{Picked, load, read_ahead, validity};
use crate::number::{count_ones, map_values};
use crate::vector::{Data, Shape, Vector};

/// The position of "no row": all columns are NULL.
pub(crate) const NO_ROW: u32 = u32::MAX;

/// Which rows of an origin a tile holds.
#[derive(Debug, Clone)]
pub(crate) enum Selection {
    /// `start..start + tile.rows`.
    Range(usize),
    /// One position per row of the tile; may hold [`NO_ROW`].
    Positions(Vec<u32>),
    /// [`NO_ROW`] for all rows.
    NoRows,
}

/// Where rows come from: the columns of a source segment, or the payload of a build side.
#[derive(Debug, Clone)]
pub(crate) struct Origin<'a> {
    pub(crate) columns: &'a [Arc<DeviceColumn>],
    pub(crate) selection: Selection,
}

/// A column of the fragment's row.
#[derive(Debug, Clone)]
pub(crate) enum Slot<'a> {
    /// Column `column` of origin `origin`.
    Origin { origin: usize, column: usize },
    /// Computed by a projection or a mark probe; `tile.rows` values.
    Computed(Vector<'a>),
}

/// A column that nobody reads any more.
const FORGOTTEN: Slot<'static> = Slot::Origin {
    origin: usize::MAX,
    column: 0,
};

/// Up to [`crate::vector::TILE_ROWS`] rows (more after a probe with many matches: probes split their output).
#[derive(Debug, Clone)]
pub(crate) struct Tile<'a> {
    pub(crate) rows: usize,
    pub(crate) origins: Vec<Origin<'a>>,
    pub(crate) slots: Vec<Slot<'a>>,
}

/// Strings as they lie in a segment: value `i` is `bytes[offsets[i]..offsets[i + 1]]`.
#[derive(Debug)]
pub(crate) struct RawStrings<'a> {
    pub(crate) offsets: &'a [u32],
    pub(crate) bytes: &'a [u8],
    /// As [`Vector::valid`].
    pub(crate) valid: Option<Cow<'a, [u8]>>,
}

/// A vector, unless the rows of a join repeat its strings beyond what offsets can tell.
fn addressed(vector: Vector<'_>) -> Result<Vector<'_>, DeviceError> {
    if let Data::Strings(strings) = &vector.data {
        strings.check_addressed()?;
    }
    Ok(vector)
}

impl<'a> Tile<'a> {
    /// The values of a column, of its shape; a contiguous range borrows from the segment where it can.
    ///
    /// # Errors
    /// [`DeviceError::Internal`] when there is no such column, or it isn't of the shape.
    pub(crate) fn slot(&self, index: usize, shape: &Shape, isa: Isa) -> Result<Vector<'a>, DeviceError> {
        match self.find(index)? {
            Slot::Computed(vector) => addressed(vector.clone()),
            Slot::Origin { origin, column } => self.load(*origin, *column, shape, None, isa),
        }
    }

    /// As [`Tile::slot`], borrowing also from columns that were computed.
    ///
    /// # Errors
    /// As [`Tile::slot`].
    pub(crate) fn view<'t>(&'t self, index: usize, shape: &Shape, isa: Isa) -> Result<Vector<'t>, DeviceError> {
        match self.find(index)? {
            Slot::Computed(vector) => addressed(vector.borrowed()),
            Slot::Origin { origin, column } => self.load(*origin, *column, shape, None, isa),
        }
    }

    /// Some rows of a column.
    ///
    /// # Errors
    /// As [`Tile::slot`].
    pub(crate) fn picked(
        &self,
        index: usize,
        shape: &Shape,
        rows: &[u32],
        isa: Isa,
    ) -> Result<Vector<'a>, DeviceError> {
        match self.find(index)? {
            Slot::Computed(vector) => addressed(vector.take(rows)),
            Slot::Origin { origin, column } => self.load(*origin, *column, shape, Some(rows), isa),
        }
    }

    /// Where a column's rows stand in what they come from; none of a column that was computed, or has no rows.
    pub(crate) fn positions(&self, index: usize) -> Option<Cow<'_, [u32]>> {
        let Slot::Origin { origin, .. } = *self.slots.get(index)? else {
            return None;
        };
        match &self.origins.get(origin)?.selection {
            Selection::Range(start) => Some((*start as u32..(*start + self.rows) as u32).collect()),
            Selection::Positions(positions) => Some(Cow::Borrowed(positions)),
            Selection::NoRows => None,
        }
    }

    /// The codes of a column that are a byte each, contiguous, and never NULL, as they lie in the segment.
    pub(crate) fn narrow_codes(&self, index: usize) -> Option<&'a [u8]> {
        let Slot::Origin { origin, column } = *self.slots.get(index)? else {
            return None;
        };
        let origin = self.origins.get(origin)?;
        let columns: &'a [Arc<DeviceColumn>] = origin.columns;
        let column = columns.get(column)?;
        match (&column.values, &column.validity, &origin.selection) {
            (
                Values::Codes {
                    codes: Codes::U8(codes),
                    ..
                },
                None,
                Selection::Range(start),
            ) => {
                read_ahead(codes, *start, self.rows);
                codes.get(*start..*start + self.rows)
            }
            _ => None,
        }
    }

    /// A column of strings that lie one after another: their offsets, all bytes, and which rows have a value.
    pub(crate) fn raw_strings(&self, index: usize) -> Option<RawStrings<'a>> {
        let Slot::Origin { origin, column } = *self.slots.get(index)? else {
            return None;
        };
        let origin = self.origins.get(origin)?;
        let columns: &'a [Arc<DeviceColumn>] = origin.columns;
        let column = columns.get(column)?;
        match (&column.values, &origin.selection) {
            (Values::Strings(strings), Selection::Range(start)) => Some(RawStrings {
                offsets: strings.offsets.get(*start..=*start + self.rows)?,
                bytes: &strings.bytes,
                valid: validity(column.validity.as_ref(), Picked::Range(*start, self.rows)),
            }),
            _ => None,
        }
    }

    /// Loads a column now and keeps it with the tile: worth it when several expressions read it by position.
    ///
    /// # Errors
    /// As [`Tile::slot`].
    pub(crate) fn materialise(&mut self, index: usize, shape: &Shape, isa: Isa) -> Result<(), DeviceError> {
        if matches!(self.find(index)?, Slot::Origin { .. }) {
            let vector = self.slot(index, shape, isa)?;
            self.slots[index] = Slot::Computed(vector);
        }
        Ok(())
    }

    /// Keeps the rows whose byte is 1; all are 0 or 1, one per row.
    pub(crate) fn retain(&mut self, keep: &[u8], isa: Isa) {
        debug_assert_eq!(keep.len(), self.rows);
        let kept_rows = count_ones(isa, keep);
        if kept_rows == self.rows {
            return;
        }
        let rows = kept(isa, keep, 0);
        self.take(&rows);
    }

    /// The rows at these positions of the tile, which may repeat.
    pub(crate) fn take(&mut self, rows: &[u32]) {
        // A join of every row with one other keeps the tile as it is, and its loads contiguous.
        if rows.len() == self.rows && rows.iter().zip(0..).all(|(row, at)| *row == at) {
            return;
        }
        for origin in &mut self.origins {
            match &mut origin.selection {
                Selection::Range(start) => {
                    let start = *start as u32;
                    origin.selection = Selection::Positions(map_values(rows, |row| row + start));
                }
                Selection::Positions(positions) => *positions = compose(positions, rows),
                Selection::NoRows => {}
            }
        }
        for slot in &mut self.slots {
            if let Slot::Computed(vector) = slot {
                *vector = vector.take(rows);
            }
        }
        self.rows = rows.len();
    }

    /// A tile of the rows at these positions, which may repeat: as a clone and [`Tile::take`], at the cost of one.
    pub(crate) fn picked_rows(&self, rows: &[u32]) -> Tile<'a> {
        if rows.len() == self.rows && rows.iter().zip(0..).all(|(row, at)| *row == at) {
            return self.clone();
        }
        let selection = |selection: &Selection| match selection {
            Selection::Range(start) => {
                let start = *start as u32;
                Selection::Positions(map_values(rows, |row| row + start))
            }
            Selection::Positions(positions) => Selection::Positions(compose(positions, rows)),
            Selection::NoRows => Selection::NoRows,
        };
        let origin = |origin: &Origin<'a>| Origin {
            columns: origin.columns,
            selection: selection(&origin.selection),
        };
        let slot = |slot: &Slot<'a>| match slot {
            Slot::Computed(vector) => Slot::Computed(vector.take(rows)),
            other => other.clone(),
        };
        Tile {
            rows: rows.len(),
            origins: self.origins.iter().map(origin).collect(),
            slots: self.slots.iter().map(slot).collect(),
        }
    }

    /// Lets go of columns that nobody reads any more, so that taking rows costs nothing for them. Reading one is an error.
    pub(crate) fn forget(&mut self, live: &[bool]) {
        for (slot, live) in self.slots.iter_mut().zip(live) {
            if !live {
                *slot = FORGOTTEN;
            }
        }
        for (index, held) in self.origins.iter_mut().enumerate() {
            let read = |slot: &Slot<'_>| matches!(slot, Slot::Origin { origin, .. } if *origin == index);
            if !matches!(held.selection, Selection::NoRows) && !self.slots.iter().any(read) {
                held.selection = Selection::NoRows;
            }
        }
    }

    fn find(&self, index: usize) -> Result<&Slot<'a>, DeviceError> {
        self.slots
            .get(index)
            .ok_or_else(|| DeviceError::Internal(format!("a tile has no column {index}")))
    }

    fn load(
        &self,
        origin: usize,
        column: usize,
        shape: &Shape,
        rows: Option<&[u32]>,
        isa: Isa,
    ) -> Result<Vector<'a>, DeviceError> {
        let missing = || DeviceError::Internal(format!("a tile has no origin {origin} with column {column}"));
        let origin = self.origins.get(origin).ok_or_else(missing)?;
        let columns: &'a [Arc<DeviceColumn>] = origin.columns;
        let values = columns.get(column).ok_or_else(missing);
        match (&origin.selection, rows) {
            (Selection::Range(start), None) => load(values?, shape, Picked::Range(*start, self.rows), isa),
            (Selection::Range(start), Some(rows)) => {
                let start = *start as u32;
                let positions = map_values(rows, |row| row + start);
                load(values?, shape, Picked::Positions(&positions), isa)
            }
            (Selection::Positions(positions), None) => load(values?, shape, Picked::Positions(positions), isa),
            (Selection::Positions(positions), Some(rows)) => {
                load(values?, shape, Picked::Positions(&compose(positions, rows)), isa)
            }
            (Selection::NoRows, rows) => Ok(Vector::nulls(shape, rows.map_or(self.rows, <[u32]>::len))),
        }
    }
}

fn compose(positions: &[u32], rows: &[u32]) -> Vec<u32> {
    map_values(rows, |row| positions.get(row as usize).copied().unwrap_or(NO_ROW))
}
