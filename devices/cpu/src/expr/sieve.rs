//! Conjuncts that test columns of a segment as they lie, a morsel at a time: bits instead of vectors, carriers instead of lanes.
//!
//! ```text
//!  a AND b AND c  ──take_tests──▶  b            evaluated as ever, for the rows that are left
//!                                  [ a | c ]    ──apply(segment, rows)──▶  a bit per row
//! ```
//!
//! They can't fail, so that their order doesn't matter. What a segment's zone map decides isn't compared.

use std::sync::Arc;

use arrow::buffer::BooleanBuffer;
use trireme_device_api::{Carrier, Codes, DeviceColumn, DeviceError, Dictionary, Values};

use super::not_integral;
use crate::bits::{Order, Run, held, in_order, in_runs};
use crate::isa::Isa;
use crate::join::BuildTable;
use crate::number::{Convert, Number, convert, convert_base};
use crate::vector::TILE_ROWS;

/// A test of source columns, by their positions.
pub(crate) enum ColumnTest {
    /// An integral value lies in one of these runs, ends included; with `negated` in none.
    Runs {
        column: usize,
        runs: Vec<(i128, i128)>,
        negated: bool,
    },
    /// A string's code lies in one of these runs.
    Codes {
        column: usize,
        dictionary: Arc<Dictionary>,
        runs: Vec<(u32, u32)>,
    },
    /// A join key's value is, for all that is known, in the build side: see [`BuildTable::held_keys`].
    Held { column: usize, table: Arc<BuildTable> },
    /// Two integral columns of one scale stand in this order; with `negated` they don't.
    Order {
        left: usize,
        order: Order,
        right: usize,
        negated: bool,
    },
}

/// Rows of a segment.
#[derive(Clone, Copy)]
pub(crate) struct Span<'s> {
    pub(crate) columns: &'s [Arc<DeviceColumn>],
    pub(crate) start: usize,
    pub(crate) rows: usize,
}

impl<'s> Span<'s> {
    fn column(&self, index: usize) -> Result<&'s DeviceColumn, DeviceError> {
        let missing = || DeviceError::Internal(format!("a segment has no column {index}"));
        self.columns.get(index).map(AsRef::as_ref).ok_or_else(missing)
    }

    fn of<T>(&self, values: &'s [T]) -> &'s [T] {
        &values[self.start..self.start + self.rows]
    }

    /// Takes out rows that are NULL.
    fn not_null(&self, validity: Option<&BooleanBuffer>, words: &mut [u64]) {
        let Some(validity) = validity else { return };
        let bits = validity.inner().bit_chunks(validity.offset() + self.start, self.rows);
        for (word, valid) in words.iter_mut().zip(bits.iter_padded()) {
            *word &= valid;
        }
    }
}

impl ColumnTest {
    /// Takes out the rows, of those whose bits are set, for which it isn't TRUE.
    ///
    /// # Errors
    /// [`DeviceError::Internal`] when a column isn't what it was promised to be.
    pub(crate) fn apply(&self, span: Span<'_>, words: &mut [u64], isa: Isa) -> Result<(), DeviceError> {
        match self {
            ColumnTest::Runs { column, runs, negated } => in_ranges(span, *column, runs, *negated, words, isa),
            ColumnTest::Held { column, table } => joins(span, *column, table, words, isa),
            ColumnTest::Codes {
                column,
                dictionary,
                runs,
            } => of_codes(span, *column, dictionary, runs, words, isa),
            ColumnTest::Order {
                left,
                order,
                right,
                negated,
            } => {
                let (left, right) = (span.column(*left)?, span.column(*right)?);
                span.not_null(left.validity.as_ref(), words);
                span.not_null(right.validity.as_ref(), words);
                ordered(span, left, *order, right, *negated, words, isa)
            }
        }
    }
}

fn in_ranges(
    span: Span<'_>,
    column: usize,
    runs: &[(i128, i128)],
    negated: bool,
    words: &mut [u64],
    isa: Isa,
) -> Result<(), DeviceError> {
    let column = span.column(column)?;
    span.not_null(column.validity.as_ref(), words);
    let all = column.zone.range.is_some_and(|(least, most)| {
        let holds = |(low, high): &(i128, i128)| *low <= least && most <= *high;
        runs.iter().any(holds)
    });
    match &column.values {
        Values::Nulls => words.fill(0),
        _ if all => decided(!negated, words),
        Values::Wide(values) => carried(span.of(values), runs, 0, negated, words, isa),
        Values::Integers { carrier, base } => match carrier {
            Carrier::I8(values) => carried(span.of(values), runs, *base, negated, words, isa),
            Carrier::I16(values) => carried(span.of(values), runs, *base, negated, words, isa),
            Carrier::I32(values) => carried(span.of(values), runs, *base, negated, words, isa),
            Carrier::I64(values) => carried(span.of(values), runs, *base, negated, words, isa),
        },
        _ => return Err(not_integral()),
    }
    Ok(())
}

fn decided(passes: bool, words: &mut [u64]) {
    if !passes {
        words.fill(0);
    }
}

/// Runs of values, over carriers that lie `base` below them.
fn carried<T: Number>(values: &[T], runs: &[(i128, i128)], base: i64, negated: bool, words: &mut [u64], isa: Isa) {
    let (least, most) = T::LANE.range();
    let mut within: Vec<Run<T>> = Vec::with_capacity(runs.len());
    for (low, high) in runs {
        let below = |bound: i128| bound.saturating_sub(base.into());
        let (low, high) = (below(*low).max(least), below(*high).min(most));
        if (low, high) == (least, most) {
            return decided(!negated, words);
        }
        if low <= high {
            within.push((T::of(low), T::of(high).above(T::of(low))));
        }
    }
    if within.is_empty() {
        return decided(negated, words);
    }
    in_runs(isa, values, &within, negated, words);
}

fn of_codes(
    span: Span<'_>,
    column: usize,
    expected: &Arc<Dictionary>,
    runs: &[(u32, u32)],
    words: &mut [u64],
    isa: Isa,
) -> Result<(), DeviceError> {
    let column = span.column(column)?;
    span.not_null(column.validity.as_ref(), words);
    let (codes, dictionary) = match &column.values {
        Values::Nulls => {
            words.fill(0);
            return Ok(());
        }
        Values::Codes { codes, dictionary } => (codes, dictionary),
        _ => return Err(DeviceError::Internal("a column is not codes as promised".to_owned())),
    };
    if !Arc::ptr_eq(dictionary, expected) && dictionary.len() > expected.len() {
        return Err(DeviceError::Internal(
            "a dictionary grew after it was promised to be complete".to_owned(),
        ));
    }
    match codes {
        Codes::U8(codes) => coded(signed::<_, i8>(span.of(codes)), u8::MAX.into(), runs, words, isa),
        Codes::U16(codes) => coded(signed::<_, i16>(span.of(codes)), u16::MAX.into(), runs, words, isa),
        Codes::U32(codes) => coded(signed::<_, i32>(span.of(codes)), u32::MAX, runs, words, isa),
    }
    Ok(())
}

fn joins(span: Span<'_>, column: usize, table: &BuildTable, words: &mut [u64], isa: Isa) -> Result<(), DeviceError> {
    let column = span.column(column)?;
    span.not_null(column.validity.as_ref(), words);
    let (Some(keys), Values::Integers { carrier, base }) = (table.held_keys(), &column.values) else {
        if matches!(column.values, Values::Nulls) {
            words.fill(0);
        }
        return Ok(());
    };
    let least = keys.least.saturating_sub((*base).into());
    match carrier {
        Carrier::I8(values) => held(isa, span.of(values), least, keys.words, words),
        Carrier::I16(values) => held(isa, span.of(values), least, keys.words, words),
        Carrier::I32(values) => held(isa, span.of(values), least, keys.words, words),
        Carrier::I64(values) => held(isa, span.of(values), least, keys.words, words),
    }
    Ok(())
}

/// An unsigned integer and the signed one of its width.
trait Unsigned<S> {}
impl Unsigned<i8> for u8 {}
impl Unsigned<i16> for u16 {}
impl Unsigned<i32> for u32 {}

/// Tests of runs count from their first value and wrap: whether values are signed makes no difference.
fn signed<U: Unsigned<S>, S: Number>(values: &[U]) -> &[S] {
    // SAFETY: both are integers of one width.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
}

fn coded<T: Number>(codes: &[T], most: u32, runs: &[(u32, u32)], words: &mut [u64], isa: Isa) {
    let of = |code: u32| T::of(code.into());
    let within: Vec<Run<T>> = runs
        .iter()
        .filter(|(low, _)| *low <= most)
        .map(|(low, high)| (of(*low), of((*high).min(most)).above(of(*low))))
        .collect();
    if within.is_empty() {
        words.fill(0);
    } else {
        in_runs(isa, codes, &within, false, words);
    }
}

fn ordered(
    span: Span<'_>,
    left: &DeviceColumn,
    order: Order,
    right: &DeviceColumn,
    negated: bool,
    words: &mut [u64],
    isa: Isa,
) -> Result<(), DeviceError> {
    if let (Values::Integers { carrier: l, base: a }, Values::Integers { carrier: r, base: b }) =
        (&left.values, &right.values)
    {
        match (l, r) {
            (Carrier::I8(l), Carrier::I8(r)) if a == b => {
                in_order(isa, span.of(l), order, span.of(r), negated, words);
            }
            (Carrier::I16(l), Carrier::I16(r)) if a == b => {
                in_order(isa, span.of(l), order, span.of(r), negated, words);
            }
            (Carrier::I32(l), Carrier::I32(r)) if a == b => {
                in_order(isa, span.of(l), order, span.of(r), negated, words);
            }
            (Carrier::I64(l), Carrier::I64(r)) if a == b => {
                in_order(isa, span.of(l), order, span.of(r), negated, words);
            }
            _ => return in_one_lane::<i64>(span, left, order, right, negated, words, isa),
        }
        return Ok(());
    }
    in_one_lane::<i128>(span, left, order, right, negated, words, isa)
}

/// Columns carried differently, piece by piece in a lane that holds both.
fn in_one_lane<T: Number>(
    span: Span<'_>,
    left: &DeviceColumn,
    order: Order,
    right: &DeviceColumn,
    negated: bool,
    words: &mut [u64],
    isa: Isa,
) -> Result<(), DeviceError>
where
    i8: Convert<T>,
    i16: Convert<T>,
    i32: Convert<T>,
    i64: Convert<T>,
    i128: Convert<T>,
{
    if matches!(left.values, Values::Nulls) || matches!(right.values, Values::Nulls) {
        words.fill(0);
        return Ok(());
    }
    for (number, words) in words.chunks_mut(TILE_ROWS / crate::bits::WORD_ROWS).enumerate() {
        let piece = Span {
            start: span.start + number * TILE_ROWS,
            rows: TILE_ROWS.min(span.rows - number * TILE_ROWS),
            ..span
        };
        let (left, right) = (widened::<T>(piece, left, isa)?, widened::<T>(piece, right, isa)?);
        in_order(isa, &left, order, &right, negated, words);
    }
    Ok(())
}

fn widened<T: Number>(span: Span<'_>, column: &DeviceColumn, isa: Isa) -> Result<Vec<T>, DeviceError>
where
    i8: Convert<T>,
    i16: Convert<T>,
    i32: Convert<T>,
    i64: Convert<T>,
    i128: Convert<T>,
{
    let rows = span.start..span.start + span.rows;
    Ok(match &column.values {
        Values::Integers { carrier, base } => {
            let base = T::of((*base).into());
            match carrier {
                Carrier::I8(values) => convert_base(isa, &values[rows], base),
                Carrier::I16(values) => convert_base(isa, &values[rows], base),
                Carrier::I32(values) => convert_base(isa, &values[rows], base),
                Carrier::I64(values) => convert_base(isa, &values[rows], base),
            }
        }
        Values::Wide(values) => convert(isa, &values[rows]),
        _ => return Err(not_integral()),
    })
}
