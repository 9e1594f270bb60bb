//! Expressions of one column with few values, evaluated once per value when they are compiled: those of a dictionary, and
//! slow ones (host functions, text) of integers and dates whose range is short.
//!
//! ```text
//!  entries  [ "AIR" | "MAIL" | "SHIP" | NULL ]   ──expression──▶  table [ 0 | 1 | 1 | NULL ]
//!  rows     codes 2 0 0 1 …                      ──look up─────▶        1 0 0 1 …
//! ```
//!
//! An entry's error counts only when a row uses the entry.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use trireme_device_api::{DeviceError, Dictionary, Expr, Node as ExprNode, Strings, Type};

use super::case::assemble;
use super::constant::{constant, fail};
use super::{ColumnTest, Compiled, Compiler, Input, Mask, Node, Slots, not_integral};
use crate::isa::{Isa, primitive};
use crate::number::{Number, by_lane, map_values, zip};
use crate::tile::RawStrings;
use crate::vector::{Data, Lane, Shape, TILE_ROWS, Vector};

/// Dictionaries with more entries aren't worth a table; they are evaluated row by row.
const ENTRIES_MAX: usize = 1 << 20;
/// Ranges of integers with more values aren't worth a table.
const SPAN_MAX: i128 = 1 << 13;
/// Bytes of texts that a table may hold.
const MADE_BYTES_MAX: usize = 32 << 20;
/// Entries whose error is kept.
const ERRORS_MAX: usize = SPAN_MAX as usize;
/// A predicate whose TRUE codes make at most so many runs is a few comparisons, else a look-up.
const RUNS_MAX: usize = 6;

/// Builds a look-up of an expression whose only column has few values; none when it isn't such.
pub(super) fn build(compiler: &Compiler<'_>, expr: &Expr) -> Result<Option<Compiled>, DeviceError> {
    let [column] = expr.columns()[..] else {
        return Ok(None);
    };
    if !compiler.tables || matches!(expr.data_type, Type::Interval(_) | Type::Null) {
        return Ok(None);
    }
    let Some((shape, entries)) = compiler
        .row
        .get(column)
        .and_then(|shape| Some((shape, Entries::of(shape, expr)?)))
    else {
        return Ok(None);
    };
    let mut row = compiler.row.to_vec();
    row[column] = Shape {
        dictionary: None,
        distinct: None,
        nullable: true,
        ..shape.clone()
    };
    let inner = Compiler {
        row: &row,
        parameters: compiler.parameters,
        isa: compiler.isa,
        tables: false,
    };
    let compiled = inner.compile(expr)?;
    if compiled.constant.is_some() {
        return Ok(Some(compiled));
    }
    let (offsets, valid) = entries.raw();
    let all = AllEntries {
        entries: &entries,
        offsets: &offsets,
        valid: &valid,
    };
    let piece_rows = if makes_strings(expr) { TILE_ROWS } else { usize::MAX };
    let Some((values, errors)) = evaluate(&compiled, &all, piece_rows, compiler.isa)? else {
        return Ok(None);
    };
    let low = entries.low();
    Ok(Some(table(
        values,
        errors,
        &compiled.shape,
        (column, low),
        shape,
        compiler.isa,
    )))
}

/// The values of a column, and NULL as the last row.
enum Entries<'d> {
    Dictionary(&'d Dictionary),
    /// From the first integer, so many.
    Integers(i128, u32),
}

impl<'d> Entries<'d> {
    fn of(shape: &'d Shape, expr: &Expr) -> Option<Self> {
        if let Some(dictionary) = &shape.dictionary {
            return (dictionary.len() <= ENTRIES_MAX).then_some(Entries::Dictionary(dictionary));
        }
        let (low, high) = shape.range?;
        let _ = (i64::try_from(low).ok()?, i64::try_from(high).ok()?);
        let span = high.checked_sub(low).filter(|span| *span < SPAN_MAX)?;
        let mut slow = false;
        expr.visit(&mut |expr| {
            slow |= match &expr.node {
                ExprNode::Host { .. } => true,
                ExprNode::Cast { expr: operand, .. } => expr.data_type.is_bytes() != operand.data_type.is_bytes(),
                _ => false,
            };
        });
        slow.then_some(Entries::Integers(low, span as u32 + 1))
    }

    fn len(&self) -> usize {
        match self {
            Entries::Dictionary(dictionary) => dictionary.len(),
            Entries::Integers(_, count) => *count as usize,
        }
    }

    /// The offsets of a dictionary's strings, with an empty one for NULL, and which entries are values.
    fn raw(&self) -> (Vec<u32>, Vec<u8>) {
        match self {
            Entries::Dictionary(dictionary) => {
                let offsets = &dictionary.values().offsets;
                let last = offsets.last().copied().unwrap_or_default();
                let mut valid = vec![1; dictionary.len()];
                valid.push(0);
                let first = offsets.is_empty().then_some(0);
                (
                    first.into_iter().chain(offsets.iter().copied()).chain([last]).collect(),
                    valid,
                )
            }
            Entries::Integers(..) => Default::default(),
        }
    }

    fn low(&self) -> Option<i128> {
        match self {
            Entries::Dictionary(_) => None,
            Entries::Integers(low, _) => Some(*low),
        }
    }
}

/// The entries as rows of a tile.
struct AllEntries<'e> {
    entries: &'e Entries<'e>,
    /// Of a dictionary's strings, and of an empty one for NULL.
    offsets: &'e [u32],
    valid: &'e [u8],
}

impl<'e> Slots<'e> for AllEntries<'e> {
    fn raw_strings(&self, _: usize) -> Option<RawStrings<'e>> {
        match self.entries {
            Entries::Dictionary(dictionary) => Some(RawStrings {
                offsets: self.offsets,
                bytes: &dictionary.values().bytes,
                valid: Some(self.valid.into()),
            }),
            Entries::Integers(..) => None,
        }
    }

    fn slot(&self, _: usize, shape: &Shape, selected: Option<&[u32]>, _: Isa) -> Result<Vector<'e>, DeviceError> {
        let null = self.entries.len() as u32;
        let every: Vec<u32>;
        let rows = match selected {
            Some(rows) => rows,
            None => {
                every = (0..=null).collect();
                &every
            }
        };
        let data = match self.entries {
            Entries::Dictionary(dictionary) => {
                let value = |row: &u32| if *row < null { dictionary.get(*row) } else { &[][..] };
                Data::Bytes(rows.iter().map(value).collect())
            }
            Entries::Integers(low, _) => by_lane!(shape.lane().ok_or_else(not_integral)?, T => {
                let value = |row: u32| T::of(low + i128::from(if row < null { row } else { 0 }));
                T::data(map_values(rows, value).into())
            }),
        };
        let valid: Vec<u8> = rows.iter().map(|row| u8::from(*row < null)).collect();
        Ok(Vector::new(data).with_valid(Some(valid.into())))
    }
}

/// True if texts are made on the way, which nobody reserves memory for.
fn makes_strings(expr: &Expr) -> bool {
    let mut makes = false;
    expr.visit(&mut |expr| {
        makes |= expr.data_type.is_bytes() && !matches!(expr.node, ExprNode::Column(_) | ExprNode::Literal(_));
    });
    makes
}

type Errors = BTreeMap<u32, DeviceError>;

/// The values of all entries and NULL, and the errors of those that have one; none when that is too much to keep.
fn evaluate<'e>(
    compiled: &Compiled,
    all: &AllEntries<'e>,
    piece_rows: usize,
    isa: Isa,
) -> Result<Option<(Vector<'e>, Errors)>, DeviceError> {
    let rows = all.entries.len() + 1;
    let input = Input::new(all, rows, isa);
    if rows <= piece_rows {
        match compiled.eval(&input) {
            Err(DeviceError::Arithmetic(_) | DeviceError::Input(_)) => {}
            other => return other.map(|vector| Some((vector, Errors::new()))),
        }
    }
    let mut errors = Errors::new();
    let mut pieces = Vec::new();
    let mut made_bytes = 0;
    let every: Vec<u32> = (0..rows as u32).collect();
    let mut open: Vec<Vec<u32>> = every.chunks(piece_rows.min(rows)).map(<[u32]>::to_vec).collect();
    while let Some(part) = open.pop() {
        match compiled.eval(&input.select(&part)) {
            Ok(vector) => {
                if let Data::Strings(strings) = &vector.data {
                    made_bytes += strings.size_bytes();
                }
                pieces.push((part, vector));
            }
            Err(error @ (DeviceError::Arithmetic(_) | DeviceError::Input(_))) => {
                if let [entry] = part[..] {
                    errors.insert(entry, error);
                    pieces.push((part, Vector::nulls(&compiled.shape, 1)));
                } else {
                    let (low, high) = part.split_at(part.len() / 2);
                    open.extend([low.to_vec(), high.to_vec()]);
                }
            }
            Err(error) => return Err(error),
        }
        if made_bytes > MADE_BYTES_MAX || errors.len() > ERRORS_MAX {
            return Ok(None);
        }
    }
    let values = match (pieces.len(), pieces.pop()) {
        (1, Some((_, vector))) => vector,
        (_, last) => {
            pieces.extend(last);
            assemble(&pieces, &compiled.shape, rows)?
        }
    };
    Ok(Some((values, errors)))
}

/// The node that looks up, or a constant when all entries give the same.
fn table(
    values: Vector<'_>,
    mut errors: Errors,
    shape: &Shape,
    (column, low): (usize, Option<i128>),
    operand: &Shape,
    isa: Isa,
) -> Compiled {
    let entries = values.len() - 1;
    let reachable = if operand.nullable { entries + 1 } else { entries };
    errors.retain(|row, _| (*row as usize) < reachable);
    let mut shape = shape.clone();
    shape.nullable = (0..reachable).any(|row| values.is_null(row));
    shape.distinct = Some(reachable);
    if reachable > 0 && errors.is_empty() {
        let first = values.value(0);
        if (1..reachable).all(|row| values.value(row) == first) {
            return constant(first, &shape.data_type);
        }
    }
    if let Some(error) = errors.values().next().filter(|_| errors.len() == reachable) {
        return fail(error.clone(), &shape);
    }
    let values = owned(&values, &mut shape, reachable, isa);
    let runs = true_runs(&values, operand.nullable).filter(|_| errors.is_empty());
    let fails = !errors.is_empty();
    let node = Lookup {
        column,
        low,
        operand: operand.clone(),
        values,
        null: entries as u32,
        errors,
        runs,
    };
    Compiled::new(node, shape, fails, false)
}

/// The table in its narrowest form: strings become codes of a dictionary of their own, integers take their lane.
fn owned(values: &Vector<'_>, shape: &mut Shape, reachable: usize, isa: Isa) -> Vector<'static> {
    let valid = values.valid.as_ref().map(|valid| Cow::Owned(valid.to_vec()));
    let rows = values.len();
    let data = match &values.data {
        Data::Codes(..) | Data::Bytes(_) | Data::Strings(_) => {
            let mut known: HashMap<&[u8], u32> = HashMap::new();
            let mut distinct: Vec<&[u8]> = Vec::new();
            let mut codes = vec![0; rows];
            for (row, code) in codes.iter_mut().enumerate().filter(|(row, _)| !values.is_null(*row)) {
                let value = values.bytes_at(row);
                *code = *known.entry(value).or_insert_with(|| {
                    distinct.push(value);
                    distinct.len() as u32 - 1
                });
            }
            shape.distinct = Some(distinct.len());
            let dictionary = Arc::new(Dictionary::new(Strings::from_values(distinct)));
            shape.dictionary = Some(Arc::clone(&dictionary));
            Data::Codes(codes.into(), dictionary)
        }
        Data::Bool(values) => Data::Bool(values.to_vec().into()),
        Data::F32(values) => Data::F32(values.to_vec().into()),
        Data::F64(values) => Data::F64(values.to_vec().into()),
        Data::Interval(values) => Data::Interval(values.clone()),
        Data::Null(rows) => Data::Null(*rows),
        _ => {
            let integers = values.to_i128(isa).unwrap_or_default();
            let used = (0..reachable)
                .filter(|row| !values.is_null(*row))
                .map(|row| integers[row]);
            let (low, high) = used.fold((i128::MAX, i128::MIN), |(l, h), value| (l.min(value), h.max(value)));
            let range = if low <= high { (low, high) } else { (0, 0) };
            shape.range = Some(range);
            by_lane!(Lane::of_range(range.0, range.1), T => T::data(map_values(&integers, T::of).into()))
        }
    };
    Vector { data, valid }
}

/// The runs of codes whose entry is TRUE, when they are few, no entry is NULL, and NULL stays NULL.
fn true_runs(values: &Vector<'_>, nullable: bool) -> Option<Vec<(u32, u32)>> {
    let Data::Bool(truths) = &values.data else {
        return None;
    };
    let entries = truths.len() - 1;
    if (0..entries).any(|row| values.is_null(row)) || (nullable && !values.is_null(entries)) {
        return None;
    }
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for code in (0..entries as u32).filter(|code| truths[*code as usize] == 1) {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == code => *last = code,
            _ => runs.push((code, code)),
        }
        if runs.len() > RUNS_MAX {
            return None;
        }
    }
    Some(runs)
}

struct Lookup {
    column: usize,
    /// What the codes of an integral column are counted from.
    low: Option<i128>,
    operand: Shape,
    /// By code; the last entry is for NULL.
    values: Vector<'static>,
    null: u32,
    errors: Errors,
    /// Codes of TRUE.
    runs: Option<Vec<(u32, u32)>>,
}

impl Node for Lookup {
    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        if let Some((values, valid)) = self.truths(input)? {
            return Ok(Vector::new(Data::Bool(values.into())).with_valid(valid));
        }
        let (codes, valid) = self.codes(input)?;
        let codes = match &valid {
            None => codes,
            Some(valid) => {
                let null = self.null;
                zip(
                    input.isa,
                    &codes,
                    valid,
                    |code: u32, valid: u8| if valid == 0 { null } else { code },
                )
                .into()
            }
        };
        if !self.errors.is_empty()
            && let Some(error) = codes.iter().find_map(|code| self.errors.get(code))
        {
            return Err(error.clone());
        }
        Ok(self.values.take(&codes))
    }

    fn take_tests(&mut self, tests: &mut Vec<ColumnTest>) -> bool {
        let (Some(runs), Some(dictionary)) = (&self.runs, &self.operand.dictionary) else {
            return false;
        };
        tests.push(ColumnTest::Codes {
            column: self.column,
            dictionary: Arc::clone(dictionary),
            runs: runs.clone(),
        });
        true
    }

    fn truth(&self, input: &Input<'_, '_>, mask: &mut Mask) -> Result<(), DeviceError> {
        let (values, valid) = match self.truths(input)? {
            Some(truths) => truths,
            None => {
                let Vector { data, valid } = self.eval(input)?;
                let Data::Bool(values) = data else {
                    return Err(super::not_boolean());
                };
                (values.into_owned(), valid)
            }
        };
        mask.and(values.into(), input.isa);
        if let Some(valid) = valid {
            mask.and(valid, input.isa);
        }
        Ok(())
    }
}

type Bytes<'x> = Option<Cow<'x, [u8]>>;

impl Lookup {
    /// By comparisons, where the table is a few runs.
    fn truths<'x>(&self, input: &Input<'_, 'x>) -> Result<Option<(Vec<u8>, Bytes<'x>)>, DeviceError> {
        let Some(runs) = &self.runs else {
            return Ok(None);
        };
        if let Some(codes) = input.narrow_codes(self.column).filter(|_| self.low.is_none()) {
            return Ok(Some((
                in_runs(input.isa, codes, &narrow_runs(runs), u8::wrapping_sub),
                None,
            )));
        }
        let (codes, valid) = self.codes(input)?;
        Ok(Some((in_runs(input.isa, &codes, runs, u32::wrapping_sub), valid)))
    }

    fn codes<'x>(&self, input: &Input<'_, 'x>) -> Result<(Cow<'x, [u32]>, Bytes<'x>), DeviceError> {
        let vector = input.column(self.column, &self.operand)?;
        if let Some(low) = self.low {
            let values = vector.to_i64(input.isa).ok_or_else(not_integral)?;
            let low = low as i64;
            let codes = map_values(&values, |value| value.wrapping_sub(low) as u32);
            drop(values);
            return Ok((codes.into(), vector.valid));
        }
        match vector.data {
            Data::Codes(codes, _) => Ok((codes, vector.valid)),
            _ => Err(DeviceError::Internal("a dictionary column is not codes".to_owned())),
        }
    }
}

/// What of the runs one-byte codes can lie in: a segment's codes may be narrower than the dictionary needs.
fn narrow_runs(runs: &[(u32, u32)]) -> Vec<(u8, u8)> {
    let reachable = runs
        .iter()
        .filter_map(|(first, last)| Some((u8::try_from(*first).ok()?, *last)));
    reachable
        .map(|(first, last)| (first, u8::try_from(last).unwrap_or(u8::MAX)))
        .collect()
}

primitive! {
    /// 1 where a code lies in one of the runs.
    fn in_runs[T: Copy + Ord, F: Fn(T, T) -> T](codes: &[T], runs: &[(T, T)], minus: F) -> Vec<u8> {
        let mut found = vec![0_u8; codes.len()];
        for (first, last) in runs {
            let span = minus(*last, *first);
            for (found, code) in found.iter_mut().zip(codes) {
                *found |= u8::from(minus(*code, *first) <= span);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::narrow_runs;

    #[test]
    fn runs_beyond_one_byte_are_cut_there() {
        assert_eq!(narrow_runs(&[(0, 3), (5, 464), (300, 310)]), [(0, 3), (5, 255)]);
    }
}
