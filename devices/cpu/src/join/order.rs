//! The order of a build side's rows: keys that ascend without repeats need no table of rows.
//!
//! ```text
//!  worker 0:  1..=2048   4097..=6144  …        sorted by their first key, the pieces of all workers ascend, or they don't
//!  worker 1:  2049..=4096   …                  without gaps the build row is the key − the least one; with gaps it is the
//!                                              number of the key among those that are there
//! ```
//!
//! Keys of a table in the order of its primary key ascend, also after a filter. As long as they have no gaps they aren't even
//! kept: a piece says them all.

use trireme_device_api::{DeviceError, Reservation};

use super::keys::Numbers;
use crate::builder::{ColumnBuilder, Part};
use crate::isa::{Isa, primitive};
use crate::vector::{Data, Shape, TILE_ROWS, Vector};

/// More pieces of one worker are not kept in mind.
const PIECES_MAX: usize = 1 << 14;

/// Rows whose keys ascend.
#[derive(Debug, Clone, Copy)]
struct Piece {
    first: i64,
    last: i64,
    rows: usize,
}

impl Piece {
    fn without_gaps(&self) -> bool {
        self.last.wrapping_sub(self.first) as u64 == self.rows as u64 - 1
    }

    /// Of one key's values; none when they are not integers that ascend.
    fn of(isa: Isa, keys: &Vector<'_>) -> Option<Self> {
        if keys.has_nulls() {
            return None;
        }
        fn ends<T: Copy + PartialOrd + Into<i64>>(isa: Isa, values: &[T]) -> Option<Piece> {
            let (first, last) = (*values.first()?, *values.last()?);
            ascend(isa, &values[..values.len() - 1], &values[1..]).then(|| Piece {
                first: first.into(),
                last: last.into(),
                rows: values.len(),
            })
        }
        match Numbers::of(&keys.data)? {
            Numbers::I8(values) => ends(isa, values),
            Numbers::I16(values) => ends(isa, values),
            Numbers::I32(values) => ends(isa, values),
            Numbers::I64(values) => ends(isa, values),
            _ => None,
        }
    }
}

primitive! {
    /// Each of `values` is less than the one beside it in `next`.
    fn ascend[T: Copy + PartialOrd](values: &[T], next: &[T]) -> bool {
        let mut descends = 0_u8;
        for (value, next) in values.iter().zip(next) {
            descends |= u8::from(*value >= *next);
        }
        descends == 0
    }
}

/// The pieces of one worker, in the order in which they came.
#[derive(Debug)]
pub(super) struct Order {
    pieces: Vec<Piece>,
    /// All keys so far are in pieces.
    ascends: bool,
    /// No key is in its builder: the pieces, which have no gaps, say them all.
    unkept: bool,
}

impl Order {
    /// `known`: there is one key, of integers.
    pub(super) fn new(known: bool) -> Self {
        Self {
            pieces: Vec::new(),
            ascends: known,
            unkept: known,
        }
    }

    /// Takes note of the next keys, and gives their bounds if it knows them; unless [`Order::is_unkept`], their builder must take
    /// them.
    ///
    /// # Errors
    /// When memory is short.
    pub(super) fn note(
        &mut self,
        (isa, shape): (Isa, &Shape),
        keys: &Vector<'_>,
        builder: &mut ColumnBuilder,
        reservation: &mut Reservation,
    ) -> Result<Option<(i64, i64)>, DeviceError> {
        if !self.ascends {
            return Ok(None);
        }
        let piece = Piece::of(isa, keys).filter(|_| self.pieces.len() < PIECES_MAX);
        if self.unkept && !piece.is_some_and(|piece| piece.without_gaps()) {
            self.keep((isa, shape), builder, reservation)?;
        }
        let Some(piece) = piece else {
            self.ascends = false;
            self.pieces = Vec::new();
            return Ok(None);
        };
        match self.pieces.last_mut() {
            Some(last)
                if last.last.checked_add(1) == Some(piece.first) && last.without_gaps() && piece.without_gaps() =>
            {
                last.last = piece.last;
                last.rows += piece.rows;
            }
            _ => {
                if self.pieces.len() == self.pieces.capacity() {
                    let more = self.pieces.len().max(16);
                    reservation.grow(more * size_of::<Piece>())?;
                    self.pieces.reserve_exact(more);
                }
                self.pieces.push(piece);
            }
        }
        Ok(Some((piece.first, piece.last)))
    }

    /// No key so far is in its builder.
    pub(super) fn is_unkept(&self) -> bool {
        self.unkept
    }

    /// Puts keys into their builder that were not.
    ///
    /// # Errors
    /// When memory is short.
    pub(super) fn keep(
        &mut self,
        (isa, shape): (Isa, &Shape),
        builder: &mut ColumnBuilder,
        reservation: &mut Reservation,
    ) -> Result<(), DeviceError> {
        if !std::mem::replace(&mut self.unkept, false) {
            return Ok(());
        }
        for piece in &self.pieces {
            let mut first = piece.first;
            loop {
                let last = piece.last.min(first.saturating_add(TILE_ROWS as i64 - 1));
                let keys: Vec<i64> = (first..=last).collect();
                let rows = keys.len();
                let mut vector = Vector::new(Data::I64(keys.into()));
                if let Some(lane) = shape.lane() {
                    vector = vector.into_lane(lane, isa);
                }
                reservation.grow(builder.growth_bytes(Some(&vector), rows))?;
                builder.push(&vector)?;
                if last == piece.last {
                    break;
                }
                first = last + 1;
            }
        }
        Ok(())
    }
}

/// The rows of all workers in the order of their keys; none when keys repeat, or rows of a worker don't ascend.
pub(super) fn ascending<'o>(workers: impl Iterator<Item = &'o Order>) -> Option<Vec<Part>> {
    let mut pieces = Vec::new();
    for (worker, order) in workers.enumerate() {
        if !order.ascends {
            return None;
        }
        let mut start = 0;
        for piece in &order.pieces {
            let end = start + piece.rows;
            pieces.push((
                *piece,
                Part {
                    builder: worker,
                    rows: start..end,
                },
            ));
            start = end;
        }
    }
    pieces.sort_by_key(|(piece, _)| piece.first);
    let ascend = pieces
        .iter()
        .zip(pieces.iter().skip(1))
        .all(|(a, b)| a.0.last < b.0.first);
    ascend.then(|| pieces.into_iter().map(|(_, part)| part).collect())
}
