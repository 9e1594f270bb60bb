//! Expressions over the sample that ANALYZE took of a table: which rows pass conditions, how many groups they make.
//!
//! Column at a time, in 64 bits; what is made of one column is made once per distinct value. What can't be evaluated has no
//! answer and is guessed elsewhere, and so is what would look at more values than a plan may. Results may differ from a device's
//! in corners (overflow, a character's case): they are estimates.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use trireme_device_api::{Expr, Function, Node, Value};

use super::bits::Bits;
use super::lanes::{Lane, Over, binary, cast, extract, in_list, like, of_values, repeated, substring};
use super::sketch::{Keyed, Seen, TableSketch, mix, place};

/// A table's sample, of which a part of the rows is left.
#[derive(Debug, Clone)]
pub struct Part {
    pub(super) sketch: Arc<TableSketch>,
    /// The rows of the sample that passed; none: all.
    pub(super) kept: Option<Kept>,
    /// Rows of the table that passed.
    pub(super) rows: f64,
}

/// Rows of a sample that passed some conditions.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) rows: Arc<Bits>,
    pub(super) count: usize,
    /// Names the conditions, in any order.
    pub(super) name: u64,
}

/// A plan has looked at as many values of samples as it may.
pub(super) struct Spent;

/// Rows of a sample of which so few pass say little.
pub(super) const FEW: usize = 3;
/// Sampled rows by which combinations of values are counted.
const COUNTED_MAX: usize = 2_000;

impl Part {
    /// A whole table of so many rows.
    pub fn of(sketch: &Arc<TableSketch>, rows: f64) -> Self {
        Self {
            sketch: Arc::clone(sketch),
            kept: None,
            rows,
        }
    }

    /// Sampled rows that are left.
    pub(super) fn left(&self) -> usize {
        self.kept.as_ref().map_or(self.sketch.sampled, |kept| kept.count)
    }

    fn name(&self) -> u64 {
        self.kept.as_ref().map_or(0, |kept| kept.name)
    }

    /// The sample is the table.
    pub(super) fn is_whole(&self) -> bool {
        self.sketch.sampled as f64 >= self.sketch.rows
    }

    /// Distinct values that expressions have together in the rows that are left; none when they can't be evaluated, or the
    /// sample is too small.
    pub(super) fn distinct(&self, exprs: &[&Expr], reader: &Reader<'_>) -> Option<f64> {
        let left = self.left();
        if left == 0 || (left < 30 && !self.is_whole()) {
            return None;
        }
        let name = exprs
            .iter()
            .fold(self.name(), |name, expr| mix(name.rotate_left(9) ^ reader.name(expr)));
        let seen = self.sketch.seen(name, || self.count(exprs, reader))?;
        let all = if self.is_whole() { seen.rows } else { self.rows };
        Some(of_sample(seen.distinct, seen.once, seen.rows, all))
    }

    fn count(&self, exprs: &[&Expr], reader: &Reader<'_>) -> Result<Option<Seen>, Spent> {
        let mut codes = Vec::with_capacity(exprs.len());
        for expr in exprs {
            match reader.codes(expr, &self.sketch)? {
                Some(of) => codes.push(of),
                None => return Ok(None),
            }
        }
        let all;
        let rows = match &self.kept {
            Some(kept) => kept.rows.as_ref(),
            None => {
                all = Bits::all(self.sketch.sampled);
                &all
            }
        };
        reader.spend(self.left() * exprs.len())?;
        let (mut distinct, mut once, mut count) = (0_u32, 0_u32, 0_u32);
        if let [codes] = codes.as_slice() {
            let most = codes.iter().max().map_or(0, |most| *most as usize + 1);
            let mut seen = vec![0_u8; most];
            for row in rows.iter() {
                let times = &mut seen[codes[row] as usize];
                *times = times.saturating_add(1);
                count += 1;
            }
            for times in seen {
                distinct += u32::from(times > 0);
                once += u32::from(times == 1);
            }
        } else {
            let every = if self.is_whole() {
                1
            } else {
                self.left().div_ceil(COUNTED_MAX) as u64
            };
            let mut seen: Keyed<u32> = Keyed::default();
            for row in rows.iter().filter(|row| mix(*row as u64).is_multiple_of(every)) {
                let key = codes
                    .iter()
                    .fold(0, |key, codes| mix(key ^ u64::from(codes[row]) ^ 0x9e37_79b9_7f4a_7c15));
                *seen.entry(key).or_default() += 1;
                count += 1;
            }
            distinct = place(seen.len());
            once = place(seen.values().filter(|times| **times == 1).count());
        }
        Ok(Some(Seen {
            distinct: distinct.into(),
            once: once.into(),
            rows: count.into(),
        }))
    }
}

/// Distinct values among `all` rows of which `sampled` have `distinct`, `once` of them one time: Haas and Stokes' estimator.
fn of_sample(distinct: f64, once: f64, sampled: f64, all: f64) -> f64 {
    if sampled >= all {
        return distinct;
    }
    let unseen = sampled - once + once * sampled / all;
    (sampled * distinct / unseen.max(1.0)).clamp(distinct, all.max(distinct))
}

/// How expressions read a sample: where each of their columns stands in it, parameters' values, and how many values may still
/// be looked at.
pub(super) struct Reader<'a> {
    pub(super) column: &'a dyn Fn(usize) -> Option<usize>,
    pub(super) parameters: &'a [Value],
    pub(super) budget: &'a Cell<u64>,
}

impl Reader<'_> {
    /// Rows for which a condition is true.
    pub(super) fn truth(&self, expr: &Expr, sketch: &TableSketch) -> Option<(Arc<Bits>, u64)> {
        let name = self.name(expr);
        let mask = sketch.mask(name, || self.evaluate(expr, sketch))?;
        Some((mask, name))
    }

    fn evaluate(&self, expr: &Expr, sketch: &TableSketch) -> Result<Option<Bits>, Spent> {
        let codes = self.only_column(expr).and_then(|column| sketch.codes(column));
        let rows = codes.map(|codes| codes.first.as_slice());
        let over = Over { sketch, rows };
        self.spend(over.len() * weight(expr) + sketch.sampled / 8)?;
        let truth: Vec<bool> = match self.lane(expr, over) {
            Some(Lane::Truth(values)) => values.into_iter().map(|value| value == Some(true)).collect(),
            Some(Lane::Ints(values)) => values.iter().map(|value| *value == Some(1)).collect(),
            _ => return Ok(None),
        };
        Ok(Some(match codes {
            Some(codes) => Bits::of(sketch.sampled, |row| truth[codes.of[row] as usize]),
            None => Bits::of(sketch.sampled, |row| truth[row]),
        }))
    }

    /// A number for each row of the sample, the same for the same value.
    fn codes<'s>(&self, expr: &Expr, sketch: &'s TableSketch) -> Result<Option<Cow<'s, [u32]>>, Spent> {
        let of_column = self.only_column(expr).and_then(|column| sketch.codes(column));
        if let (Node::Column(_), Some(codes)) = (&expr.node, of_column) {
            return Ok(Some(Cow::Borrowed(&codes.of)));
        }
        let over = Over {
            sketch,
            rows: of_column.map(|codes| codes.first.as_slice()),
        };
        self.spend(over.len() * (weight(expr) + 1))?;
        let Some(lane) = self.lane(expr, over) else {
            return Ok(None);
        };
        let mut known: HashMap<u64, u32> = HashMap::new();
        let made: Vec<u32> = (0..over.len())
            .map(|row| {
                let next = place(known.len());
                *known.entry(lane.hash(row)).or_insert(next)
            })
            .collect();
        Ok(Some(Cow::Owned(match of_column {
            Some(codes) => codes.of.iter().map(|code| made[*code as usize]).collect(),
            None => made,
        })))
    }

    fn spend(&self, values: usize) -> Result<(), Spent> {
        let left = self.budget.get().checked_sub(values as u64).ok_or(Spent)?;
        self.budget.set(left);
        Ok(())
    }

    /// The one column of the sample that an expression reads.
    fn only_column(&self, expr: &Expr) -> Option<usize> {
        match expr.columns().into_iter().collect::<Vec<_>>().as_slice() {
            [only] => (self.column)(*only),
            _ => None,
        }
    }

    /// Names an expression over the sample's columns, with parameters' values.
    fn name(&self, expr: &Expr) -> u64 {
        if let Node::Column(index) = expr.node {
            return mix((self.column)(index).unwrap_or(usize::MAX) as u64 ^ 0xc01);
        }
        let mut own = expr.clone();
        own.map_columns(&|column| (self.column)(column).unwrap_or(usize::MAX));
        let mut digest = Digest(DefaultHasher::new());
        // This writer takes everything.
        let _ = write!(digest, "{own:?}");
        expr.visit(&mut |expr| {
            if let Node::Parameter(index) = expr.node {
                let _ = write!(digest, "{:?}", self.parameters.get(index));
            }
        });
        digest.0.finish()
    }

    fn constant<'e>(&'e self, expr: &'e Expr) -> Option<&'e Value> {
        match &expr.node {
            Node::Literal(value) => Some(value),
            Node::Parameter(index) => self.parameters.get(*index),
            _ => None,
        }
    }

    fn lane<'e>(&'e self, expr: &'e Expr, over: Over<'e>) -> Option<Lane<'e>> {
        let rows = over.len();
        if let Some(value) = self.constant(expr) {
            return repeated(value, &expr.data_type, rows);
        }
        match &expr.node {
            Node::Column(column) => of_values(&over.sketch.columns.get((self.column)(*column)?)?.values, over),
            Node::Binary { op, left, right } => {
                let (a, b) = (self.lane(left, over)?, self.lane(right, over)?);
                binary(*op, (left, a), (right, b), &expr.data_type)
            }
            Node::Not(inner) => match self.lane(inner, over)? {
                Lane::Truth(values) => Some(Lane::Truth(
                    values.into_iter().map(|value| value.map(|value| !value)).collect(),
                )),
                _ => None,
            },
            Node::IsNull(inner) => {
                let lane = self.lane(inner, over)?;
                Some(Lane::Truth((0..rows).map(|row| Some(lane.is_null(row))).collect()))
            }
            Node::IsNotNull(inner) => {
                let lane = self.lane(inner, over)?;
                Some(Lane::Truth((0..rows).map(|row| Some(!lane.is_null(row))).collect()))
            }
            Node::InList { expr, list, negated } => {
                let lane = self.lane(expr, over)?;
                let list: Option<Vec<&Value>> = list.iter().map(|item| self.constant(item)).collect();
                in_list(&lane, &list?, *negated)
            }
            Node::Like {
                expr,
                pattern,
                negated,
                case_insensitive,
            } => {
                let Lane::Bytes(values) = self.lane(expr, over)? else {
                    return None;
                };
                let Value::Bytes(pattern) = self.constant(pattern)? else {
                    return None;
                };
                Some(Lane::Truth(like(&values, pattern, *case_insensitive, *negated)))
            }
            Node::Cast { expr: inner, .. } => cast(self.lane(inner, over)?, &inner.data_type, &expr.data_type),
            Node::Extract { part, expr: inner } => match self.lane(inner, over)? {
                Lane::Ints(values) => {
                    let parts = values.iter().map(|value| extract(*part, (*value)?, &inner.data_type));
                    Some(Lane::Ints(parts.collect()))
                }
                _ => None,
            },
            Node::Function {
                function: Function::Substring,
                args,
            } => {
                let Lane::Bytes(values) = self.lane(args.first()?, over)? else {
                    return None;
                };
                let number = |at: usize| match args.get(at).map(|arg| self.constant(arg)) {
                    Some(Some(Value::Int(value))) => usize::try_from(*value).ok(),
                    None => Some(usize::MAX),
                    _ => None,
                };
                let (start, length) = (number(1)?, number(2)?);
                let cut = |value: &'e [u8]| substring(value, start, length);
                Some(Lane::Bytes(values.into_iter().map(|value| value.map(cut)).collect()))
            }
            _ => None,
        }
    }
}

/// About how much longer than a comparison an expression takes.
fn weight(expr: &Expr) -> usize {
    let mut weight = 0;
    expr.visit(&mut |expr| {
        weight += match &expr.node {
            Node::Like { .. } | Node::Function { .. } | Node::Extract { .. } => 8,
            Node::InList { list, .. } => list.len(),
            Node::Column(_) | Node::Literal(_) | Node::Parameter(_) => 0,
            _ => 1,
        }
    });
    weight
}

struct Digest(DefaultHasher);

impl Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_tell_keys_from_categories() {
        assert!(
            (of_sample(1_000.0, 1_000.0, 1_000.0, 1e6) - 1e6).abs() < 1.0,
            "all differ"
        );
        assert!((of_sample(7.0, 0.0, 1_000.0, 1e6) - 7.0).abs() < 0.1, "few values");
        assert_eq!(of_sample(50.0, 10.0, 100.0, 100.0), 50.0, "the sample is the table");
    }
}
