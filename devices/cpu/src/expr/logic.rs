//! Three-valued logic: AND, OR, NOT, IS NULL.
//!
//! A conjunction is flat. As a predicate it narrows one mask, part by part; parts that may fail or are slow see only the rows
//! that earlier parts left open.

use std::borrow::Cow;

use trireme_device_api::{BinaryOperator, DeviceError, Expr, Node as ExprNode, Type, Value};

use super::bound::{Bound, bound};
use super::compare::interval;
use super::constant::constant;
use super::{ColumnTest, Compiled, Compiler, Input, Mask, Node, in_list, not_boolean};
use crate::compact::kept;
use crate::isa::Isa;
use crate::number::{map, zip};
use crate::vector::{Data, Shape, Vector};

/// Builds a conjunction (or disjunction) of `expr` and all that hang on it by the same operator.
pub(super) fn junction(
    compiler: &Compiler<'_>,
    expr: &Expr,
    operator: BinaryOperator,
) -> Result<Compiled, DeviceError> {
    let and = operator == BinaryOperator::And;
    let mut exprs = Vec::new();
    flatten(expr, operator, &mut exprs);
    let mut parts = Vec::new();
    let merged = if and {
        bounded(compiler, &exprs)?
    } else {
        listed(compiler, &exprs)?
    };
    for part in merged {
        match part.constant {
            Some(Value::Boolean(value)) if value == and => {}
            // What comes after a constant that decides is never reached.
            Some(Value::Boolean(_)) if parts.is_empty() => return Ok(part),
            _ => parts.push(part),
        }
    }
    if parts.len() < 2 {
        return Ok(parts
            .pop()
            .unwrap_or_else(|| constant(Value::Boolean(and), &Type::Boolean)));
    }
    if !parts.iter().any(|part| part.fails) {
        parts.sort_by_key(|part| part.costly);
    }
    let nullable = parts.iter().any(|part| part.shape.nullable);
    let (fails, costly) = (
        parts.iter().any(|part| part.fails),
        parts.iter().any(|part| part.costly),
    );
    Ok(Compiled::new(
        Junction { and, parts },
        Shape::of_type(Type::Boolean, nullable),
        fails,
        costly,
    ))
}

fn flatten<'e>(expr: &'e Expr, operator: BinaryOperator, into: &mut Vec<&'e Expr>) {
    match &expr.node {
        ExprNode::Binary { op, left, right } if *op == operator => {
            flatten(left, operator, into);
            flatten(right, operator, into);
        }
        _ => into.push(expr),
    }
}

/// Conjuncts with those that bound one operand from both sides made into one.
fn bounded(compiler: &Compiler<'_>, exprs: &[&Expr]) -> Result<Vec<Compiled>, DeviceError> {
    let bounds: Vec<Option<Bound<'_>>> = exprs
        .iter()
        .map(|expr| bound(compiler, expr))
        .collect::<Result<_, _>>()?;
    let mut used = vec![false; exprs.len()];
    let mut parts = Vec::new();
    for (at, expr) in exprs.iter().enumerate() {
        if used[at] {
            continue;
        }
        let Some(first) = bounds[at].as_ref() else {
            parts.push(compiler.compile(expr)?);
            continue;
        };
        let (mut low, mut high, mut count) = (first.low, first.high, 1);
        for later in at + 1..exprs.len() {
            if let Some(other) = &bounds[later]
                && other.operand == first.operand
            {
                used[later] = true;
                count += 1;
                (low, high) = (low.max(other.low), high.min(other.high));
            }
        }
        parts.push(if count == 1 {
            compiler.compile(expr)?
        } else {
            interval(compiler.compile(first.operand)?, low, high, false)?
        });
    }
    Ok(parts)
}

/// Alternatives, with neighbours that ask whether one operand equals a constant made into one IN.
fn listed(compiler: &Compiler<'_>, exprs: &[&Expr]) -> Result<Vec<Compiled>, DeviceError> {
    let mut parts = Vec::new();
    let mut rest = exprs;
    while let Some((first, others)) = rest.split_first() {
        rest = others;
        let Some((operand, constants)) = membership(first) else {
            parts.push(compiler.compile(first)?);
            continue;
        };
        let same = others
            .iter()
            .map_while(|other| membership(other).filter(|(other, _)| *other == operand));
        let more: Vec<_> = same.collect();
        let list = constants.iter().chain(more.iter().flat_map(|(_, constants)| constants));
        let list = list
            .map(|constant| compiler.compile(constant))
            .collect::<Result<Vec<_>, _>>()?;
        if more.is_empty() || list.iter().any(|constant| constant.constant.is_none()) {
            parts.push(compiler.compile(first)?);
            continue;
        }
        rest = &others[more.len()..];
        parts.push(in_list::build(compiler.compile(operand)?, &list, false)?);
    }
    Ok(parts)
}

/// An operand, and the constants of its type of which it must equal one.
fn membership(expr: &Expr) -> Option<(&Expr, Vec<&Expr>)> {
    let (operand, constants): (&Expr, Vec<&Expr>) = match &expr.node {
        ExprNode::Binary {
            op: BinaryOperator::Equal,
            left,
            right,
        } => (left, vec![right]),
        ExprNode::InList {
            expr,
            list,
            negated: false,
        } => (expr, list.iter().collect()),
        _ => return None,
    };
    let fits = |constant: &&Expr| constant.data_type == operand.data_type && constant.columns().is_empty();
    (operand.data_type != Type::Null && constants.iter().all(fits)).then_some((operand, constants))
}

/// AND or OR of two or more.
struct Junction {
    and: bool,
    parts: Vec<Compiled>,
}

impl Node for Junction {
    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        let mut result: Option<Logic<'x>> = None;
        for part in &self.parts {
            result = Some(match result {
                None => Logic::of(part.eval(input)?, input.rows)?,
                Some(so_far) => self.next(so_far, part, input)?,
            });
        }
        let Logic { values, valid } = result.ok_or_else(not_boolean)?;
        Ok(Vector {
            data: Data::Bool(values),
            valid,
        })
    }

    fn take_tests(&mut self, tests: &mut Vec<ColumnTest>) -> bool {
        if self.and {
            self.parts.retain_mut(|part| !part.node.take_tests(tests));
        }
        self.parts.is_empty()
    }

    fn truth(&self, input: &Input<'_, '_>, mask: &mut Mask) -> Result<(), DeviceError> {
        if !self.and && !self.parts.iter().any(|part| part.fails) {
            let either = self.either(input)?;
            mask.and(either.into(), input.isa);
            return Ok(());
        }
        // A part that may fail must also see rows for which earlier parts are NULL; a mask can't tell them from FALSE.
        let first_failing = self
            .parts
            .iter()
            .position(|part| part.fails)
            .unwrap_or(self.parts.len());
        let exact = !self.parts[..first_failing].iter().any(|part| part.shape.nullable) && mask.bytes.is_none();
        let any_failing = first_failing < self.parts.len();
        if !self.and || (any_failing && !(exact && first_failing + 1 == self.parts.len())) {
            let vector = Logic::of(self.eval(input)?, input.rows)?;
            mask.and(vector.is_true(input.isa), input.isa);
            return Ok(());
        }
        for part in &self.parts {
            match &mut mask.bytes {
                Some(bytes) if part.selective() => narrow(part, input, bytes)?,
                Some(bytes) if !bytes.contains(&1) => break,
                _ => part.truth(input, mask)?,
            }
        }
        Ok(())
    }
}

/// Evaluates a conjunct for the rows that the mask holds.
fn narrow(part: &Compiled, input: &Input<'_, '_>, bytes: &mut [u8]) -> Result<(), DeviceError> {
    let rows = kept(input.isa, bytes, 0);
    if rows.is_empty() {
        return Ok(());
    }
    let mut inner = Mask::default();
    part.truth(&input.select(&rows), &mut inner)?;
    if let Some(inner) = inner.bytes {
        for (row, truth) in rows.iter().zip(inner) {
            bytes[*row as usize] = truth;
        }
    }
    Ok(())
}

impl Junction {
    /// 1 where some part is TRUE; no part may fail.
    fn either(&self, input: &Input<'_, '_>) -> Result<Vec<u8>, DeviceError> {
        let isa = input.isa;
        let mut found = vec![0; input.rows];
        for part in &self.parts {
            let mut mask = Mask::default();
            if part.costly {
                let open = kept(isa, &map(isa, &found, |byte: u8| byte ^ 1), 0);
                part.truth(&input.select(&open), &mut mask)?;
                for (at, row) in open.iter().enumerate() {
                    found[*row as usize] = mask.bytes.as_ref().map_or(1, |bytes| bytes[at]);
                }
            } else {
                part.truth(input, &mut mask)?;
                match mask.bytes {
                    None => return Ok(vec![1; input.rows]),
                    Some(bytes) => found = zip(isa, &found, &bytes, |a: u8, b: u8| a | b),
                }
            }
        }
        Ok(found)
    }

    /// One more part.
    fn next<'x>(&self, so_far: Logic<'x>, part: &Compiled, input: &Input<'_, 'x>) -> Result<Logic<'x>, DeviceError> {
        let isa = input.isa;
        if !part.selective() {
            return Ok(so_far.join(&Logic::of(part.eval(input)?, input.rows)?, self.and, isa));
        }
        let decided = if self.and {
            so_far.is_false(isa)
        } else {
            so_far.is_true(isa)
        };
        let open = kept(isa, &map(isa, &decided, |byte: u8| byte ^ 1), 0);
        if open.is_empty() {
            return Ok(so_far);
        }
        let inner = input.select(&open);
        let inner = Logic::of(part.eval(&inner)?, inner.rows)?;
        let mut all = Logic {
            values: vec![u8::from(self.and); input.rows].into(),
            valid: inner.valid.as_ref().map(|_| vec![1; input.rows].into()),
        };
        let values = all.values.to_mut();
        for (row, value) in open.iter().zip(inner.values.iter()) {
            values[*row as usize] = *value;
        }
        if let (Some(valid), Some(inner)) = (&mut all.valid, &inner.valid) {
            let valid = valid.to_mut();
            for (row, value) in open.iter().zip(inner.iter()) {
                valid[*row as usize] = *value;
            }
        }
        Ok(so_far.join(&all, self.and, isa))
    }
}

/// A boolean vector.
struct Logic<'x> {
    values: Cow<'x, [u8]>,
    valid: Option<Cow<'x, [u8]>>,
}

impl<'x> Logic<'x> {
    fn of(vector: Vector<'x>, rows: usize) -> Result<Self, DeviceError> {
        match vector.data {
            Data::Bool(values) => Ok(Self {
                values,
                valid: vector.valid,
            }),
            Data::Null(_) => Ok(Self {
                values: vec![0; rows].into(),
                valid: Some(vec![0; rows].into()),
            }),
            _ => Err(not_boolean()),
        }
    }

    fn is_true(&self, isa: Isa) -> Cow<'_, [u8]> {
        match &self.valid {
            None => Cow::Borrowed(&self.values),
            Some(valid) => zip(isa, &self.values, valid, |value: u8, valid: u8| value & valid).into(),
        }
    }

    fn is_false(&self, isa: Isa) -> Cow<'_, [u8]> {
        match &self.valid {
            None => map(isa, &self.values, |value: u8| value ^ 1).into(),
            Some(valid) => zip(isa, &self.values, valid, |value: u8, valid: u8| (value ^ 1) & valid).into(),
        }
    }

    /// Kleene's AND or OR.
    fn join(self, other: &Logic<'_>, and: bool, isa: Isa) -> Logic<'x> {
        if self.valid.is_none() && other.valid.is_none() {
            let values = if and {
                zip(isa, &self.values, &other.values, |a: u8, b: u8| a & b)
            } else {
                zip(isa, &self.values, &other.values, |a: u8, b: u8| a | b)
            };
            return Logic {
                values: values.into(),
                valid: None,
            };
        }
        let meet = |a: &[u8], b: &[u8]| zip(isa, a, b, |a: u8, b: u8| a & b);
        let either = |a: &[u8], b: &[u8]| zip(isa, a, b, |a: u8, b: u8| a | b);
        let (a_true, b_true) = (self.is_true(isa), other.is_true(isa));
        let (a_false, b_false) = (self.is_false(isa), other.is_false(isa));
        let (truths, falses) = if and {
            (meet(&a_true, &b_true), either(&a_false, &b_false))
        } else {
            (either(&a_true, &b_true), meet(&a_false, &b_false))
        };
        let valid = either(&truths, &falses);
        Logic {
            values: truths.into(),
            valid: Some(valid.into()),
        }
    }
}

/// Builds NOT.
pub(super) fn not(operand: Compiled) -> Compiled {
    let shape = operand.shape.clone();
    let (fails, costly) = (operand.fails, operand.costly);
    Compiled::new(Not { operand }, shape, fails, costly)
}

struct Not {
    operand: Compiled,
}

impl Node for Not {
    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        let Logic { values, valid } = Logic::of(self.operand.eval(input)?, input.rows)?;
        let data = Data::Bool(map(input.isa, &values, |value: u8| value ^ 1).into());
        Ok(Vector { data, valid })
    }
}

/// Builds IS NULL, or with `negated` IS NOT NULL.
pub(super) fn is_null(operand: Compiled, negated: bool) -> Compiled {
    if !operand.shape.nullable && !operand.fails {
        return constant(Value::Boolean(negated), &Type::Boolean);
    }
    let (fails, costly) = (operand.fails, operand.costly);
    let shape = Shape::of_type(Type::Boolean, false);
    Compiled::new(IsNull { operand, negated }, shape, fails, costly)
}

struct IsNull {
    operand: Compiled,
    negated: bool,
}

impl Node for IsNull {
    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        let vector = self.operand.eval(input)?;
        let null = u8::from(!self.negated);
        let values = match (&vector.data, vector.valid) {
            (Data::Null(rows), _) => vec![null; *rows].into(),
            (_, None) => vec![null ^ 1; input.rows].into(),
            (_, Some(valid)) if self.negated => valid,
            (_, Some(valid)) => map(input.isa, &valid, |valid: u8| valid ^ 1).into(),
        };
        Ok(Vector::new(Data::Bool(values)))
    }
}
