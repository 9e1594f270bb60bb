//! How many rows pass conditions: by the table's sample where there is one, else by bounds, distinct values and rules of thumb.

use std::collections::HashMap;
use std::sync::Arc;

use trireme_device_api::{BinaryOperator, Expr, Node, Type, Value};

use super::bits::Bits;
use super::sample::{FEW, Kept, Part};
use super::{ColumnEstimate, Estimate, Rules};

const LIKE_PREFIX: f64 = 0.05;
const LIKE_WITHIN: f64 = 0.08;
const RANGE: f64 = 1.0 / 3.0;
const NULLS: f64 = 0.05;
const OTHER: f64 = 0.25;

impl Rules<'_> {
    /// The rows of `input` for which all predicates hold.
    pub fn filtered(&self, input: &Estimate, predicates: &[Expr]) -> Estimate {
        let mut conjuncts = Vec::new();
        for predicate in predicates {
            split(predicate, &mut conjuncts);
        }
        let pinned: Vec<_> = conjuncts.iter().filter_map(|conjunct| pinned(conjunct)).collect();
        let sampled = self.sampled(input, &mut conjuncts);
        let (input, mut part) = match &sampled {
            Some((thinned, part)) => (thinned, *part),
            None => (input, 1.0),
        };
        let mut columns: HashMap<usize, ColumnEstimate> = HashMap::new();
        for conjunct in conjuncts {
            let bounds = self.bounds(conjunct);
            // Later bounds of a column are within those before.
            let known = bounds.map(|(index, ..)| columns.get(&index).copied().unwrap_or(input.columns[index]));
            if let (Some((index, low, high)), Some(column)) = (bounds, known)
                && let Some((share, range)) = share(column.range, (low, high))
            {
                part *= share * column.present();
                let distinct = (column.distinct * share).max(1.0);
                columns.insert(
                    index,
                    ColumnEstimate {
                        distinct,
                        range,
                        nulls: None,
                        ..column
                    },
                );
                continue;
            }
            part *= self.selectivity(input, conjunct);
        }
        let before = input;
        let mut kept = input.scaled(part.clamp(1e-9, 1.0));
        if sampled.is_some() {
            self.recount(before, &mut kept);
        }
        for (index, column) in columns {
            kept.columns[index].distinct = kept.columns[index].distinct.min(column.distinct);
            kept.columns[index].range = column.range;
        }
        for (index, values) in pinned {
            if let Some(column) = kept.columns.get_mut(index) {
                column.distinct = column.distinct.min(values);
            }
        }
        kept
    }

    /// Takes the conditions that samples answer, and gives the estimate with thinner samples and the part of its rows that
    /// pass these. What passes too few rows of a sample is left to the rules of thumb, within what the sample rules out.
    fn sampled(&self, input: &Estimate, conjuncts: &mut Vec<&Expr>) -> Option<(Estimate, f64)> {
        if input.parts.is_empty() {
            return None;
        }
        let mut masks: HashMap<u16, Vec<(usize, Mask)>> = HashMap::new();
        for (at, conjunct) in conjuncts.iter().enumerate() {
            let Some(part) = input.part_of(conjunct) else { continue };
            let column = |index: usize| Some(usize::from(input.columns.get(index)?.sampled?.1));
            let reader = self.reader(&column);
            if let Some(mask) = reader.truth(conjunct, &input.parts[usize::from(part)].sketch) {
                masks.entry(part).or_default().push((at, mask));
            }
        }
        let mut parts = input.parts.to_vec();
        let (mut share, mut answered) = (1.0, Vec::new());
        for (part, masks) in masks {
            let own = &mut parts[usize::from(part)];
            let found = thin(own, &masks, &|at| self.selectivity(input, conjuncts[at]));
            share *= found.0;
            answered.extend(found.1);
        }
        let mut at = 0;
        conjuncts.retain(|_| {
            at += 1;
            !answered.contains(&(at - 1))
        });
        let parts = parts.into();
        (!answered.is_empty()).then(|| (Estimate { parts, ..input.clone() }, share))
    }

    /// Distinct values of the columns whose samples were thinned out.
    fn recount(&self, before: &Estimate, kept: &mut Estimate) {
        for index in 0..kept.columns.len() {
            let Some((part, at)) = kept.columns[index].sampled else {
                continue;
            };
            let part = &kept.parts[usize::from(part)];
            if part.kept.is_none() {
                continue;
            }
            let column = |_: usize| Some(usize::from(at));
            let reader = self.reader(&column);
            let expr = Expr::column(0, Type::Null);
            if let Some(distinct) = part.distinct(&[&expr], &reader) {
                let most = before.columns[index].distinct.min(kept.rows).max(1.0);
                kept.columns[index].distinct = distinct.clamp(1.0, most);
            }
        }
    }

    /// A comparison of a column with a known constant, as closed bounds.
    fn bounds(&self, expr: &Expr) -> Option<(usize, f64, f64)> {
        let Node::Binary { op, left, right } = &expr.node else {
            return None;
        };
        let (column, value, op) = match (&left.node, &right.node) {
            (Node::Column(index), _) => (*index, self.constant(right)?, *op),
            (_, Node::Column(index)) => (*index, self.constant(left)?, op.mirrored()),
            _ => return None,
        };
        match op {
            BinaryOperator::Less => Some((column, f64::NEG_INFINITY, value - 1.0)),
            BinaryOperator::LessOrEqual => Some((column, f64::NEG_INFINITY, value)),
            BinaryOperator::Greater => Some((column, value + 1.0, f64::INFINITY)),
            BinaryOperator::GreaterOrEqual => Some((column, value, f64::INFINITY)),
            _ => None,
        }
    }

    fn constant(&self, expr: &Expr) -> Option<f64> {
        let value = match &expr.node {
            Node::Literal(value) => value,
            Node::Parameter(index) => self.parameters.get(*index)?,
            _ => return None,
        };
        match value {
            Value::Int(value) => Some(*value as f64),
            Value::Float(value) if value.is_finite() => Some(*value),
            _ => None,
        }
    }

    /// The part of the rows for which a condition holds.
    fn selectivity(&self, input: &Estimate, expr: &Expr) -> f64 {
        let all = |negated: bool, part: f64| if negated { 1.0 - part } else { part };
        match &expr.node {
            Node::Literal(Value::Boolean(value)) => f64::from(u8::from(*value)),
            Node::Binary { op, left, right } => match op {
                BinaryOperator::And => self.selectivity(input, left) * self.selectivity(input, right),
                BinaryOperator::Or => {
                    let (a, b) = (self.selectivity(input, left), self.selectivity(input, right));
                    a + b - a * b
                }
                BinaryOperator::Equal | BinaryOperator::NotDistinct => {
                    present(input, left) * present(input, right) / input.distinct(left).max(input.distinct(right))
                }
                BinaryOperator::NotEqual | BinaryOperator::Distinct => {
                    1.0 - 1.0 / input.distinct(left).max(input.distinct(right)).max(1.01)
                }
                _ if left.columns().is_empty() || right.columns().is_empty() => {
                    let share = self
                        .bounds(expr)
                        .and_then(|(index, low, high)| share(input.columns[index].range, (low, high)));
                    share.map_or(RANGE, |(share, _)| share)
                }
                _ => 0.5,
            },
            Node::Not(inner) => 1.0 - self.selectivity(input, inner),
            Node::InList { expr, list, negated } => {
                let part = (list.len() as f64 / input.distinct(expr)).min(1.0);
                present(input, expr) * all(*negated, part)
            }
            Node::Like { pattern, negated, .. } => {
                let within = match &pattern.node {
                    Node::Literal(Value::Bytes(bytes)) => bytes.first() == Some(&b'%'),
                    Node::Parameter(index) => {
                        matches!(self.parameters.get(*index), Some(Value::Bytes(bytes)) if bytes.first() == Some(&b'%'))
                    }
                    _ => true,
                };
                all(*negated, if within { LIKE_WITHIN } else { LIKE_PREFIX })
            }
            // All that are known to be read are true.
            Node::Column(index) if input.columns.get(*index).is_some_and(|column| column.distinct <= 1.0) => 1.0,
            Node::IsNull(of) => nulls(input, of),
            Node::IsNotNull(of) => 1.0 - nulls(input, of),
            _ => OTHER,
        }
    }
}

/// The part of the rows in which an expression is NULL.
fn nulls(input: &Estimate, expr: &Expr) -> f64 {
    input.column(expr).and_then(|column| column.nulls).unwrap_or(NULLS)
}

/// The part of the rows in which it is not, as far as that is known.
fn present(input: &Estimate, expr: &Expr) -> f64 {
    input.column(expr).map_or(1.0, |column| column.present())
}

/// A column of which a condition leaves so many values at most.
fn pinned(conjunct: &Expr) -> Option<(usize, f64)> {
    match &conjunct.node {
        Node::Binary {
            op: BinaryOperator::Equal | BinaryOperator::NotDistinct,
            left,
            right,
        } => match (&left.node, &right.node) {
            (Node::Column(index), _) if right.columns().is_empty() => Some((*index, 1.0)),
            (_, Node::Column(index)) if left.columns().is_empty() => Some((*index, 1.0)),
            _ => None,
        },
        Node::InList {
            expr,
            list,
            negated: false,
        } => match expr.node {
            Node::Column(index) => Some((index, list.len() as f64)),
            _ => None,
        },
        _ => None,
    }
}

/// Rows of a sample for which a condition is true, and the condition's name.
type Mask = (Arc<Bits>, u64);

/// Takes from a part's sample what conditions leave out: the part of its rows that pass, and which conditions that answers.
fn thin(own: &mut Part, masks: &[(usize, Mask)], guess: &dyn Fn(usize) -> f64) -> (f64, Vec<usize>) {
    let all = || Kept {
        rows: Arc::new(Bits::all(own.sketch.sampled)),
        count: own.sketch.sampled,
        name: 0,
    };
    let before = own.kept.clone().unwrap_or_else(all);
    if before.count == 0 {
        return (1.0, Vec::new());
    }
    let among = before.count as f64;
    let whole = own.is_whole();
    let (mut joint, mut name) = (before.rows.as_ref().clone(), before.name);
    let (mut independent, mut share) = (1.0, 1.0_f64);
    let mut answered = Vec::new();
    for (at, (mask, of)) in masks {
        let passed = before.rows.common(mask);
        answered.push(*at);
        if passed < FEW && !whole {
            share *= guess(*at).min(FEW as f64 / among);
            continue;
        }
        independent *= passed as f64 / among;
        joint.keep(mask);
        name = name.wrapping_add(*of | 1);
    }
    let together = joint.count();
    share *= if together >= FEW || whole {
        together as f64 / among
    } else {
        independent.min(FEW as f64 / among)
    };
    own.kept = Some(Kept {
        rows: Arc::new(joint),
        count: together,
        name,
    });
    own.rows = (own.rows * share).max(1.0);
    (share, answered)
}

/// The part of a closed range of integral values that is within bounds, and what is left of the range.
fn share(range: Option<(f64, f64)>, bounds: (f64, f64)) -> Option<(f64, Option<(f64, f64)>)> {
    let (least, most) = range?;
    let (low, high) = (least.max(bounds.0), most.min(bounds.1));
    let share = ((high - low + 1.0) / (most - least + 1.0)).clamp(0.0, 1.0);
    Some((share, (low <= high).then_some((low, high))))
}

pub fn split<'e>(expr: &'e Expr, conjuncts: &mut Vec<&'e Expr>) {
    match &expr.node {
        Node::Binary {
            op: BinaryOperator::And,
            left,
            right,
        } => {
            split(left, conjuncts);
            split(right, conjuncts);
        }
        _ => conjuncts.push(expr),
    }
}
