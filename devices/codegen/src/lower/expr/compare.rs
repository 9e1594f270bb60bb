//! Comparisons: integers and decimals of any scales, booleans, floats with their one NaN, strings.

use trireme_device_api::{BinaryOperator, Expr};

use super::arithmetic::scaled;
use super::range::{Range, power_of_ten, scale};
use super::register::{Number, boolean, constant, is_null, null_of, number, wider};
use crate::build;
use crate::ir::Expr as Ir;
use crate::lower::{Kind, Lowered, Lowering, Row, Shape, Unsupported, Value};

use trireme_device_api::Type;

/// The result, when bounds decide it.
fn decide(operator: BinaryOperator, l: Range, r: Range) -> Option<bool> {
    let (less, greater) = (l.1 < r.0, l.0 > r.1);
    let (at_most, at_least) = (l.1 <= r.0, l.0 >= r.1);
    match operator {
        BinaryOperator::Equal => (less || greater).then_some(false),
        BinaryOperator::NotEqual => (less || greater).then_some(true),
        BinaryOperator::Less => less.then_some(true).or(at_least.then_some(false)),
        BinaryOperator::LessOrEqual => at_most.then_some(true).or(greater.then_some(false)),
        BinaryOperator::Greater => greater.then_some(true).or(at_most.then_some(false)),
        BinaryOperator::GreaterOrEqual => at_least.then_some(true).or(less.then_some(false)),
        _ => None,
    }
}

/// A comparison of registers of one type that have an order of their own.
pub(super) fn plain(operator: BinaryOperator, a: Ir, b: Ir) -> Ir {
    match operator {
        BinaryOperator::Equal => a.eq(b),
        BinaryOperator::NotEqual => a.ne(b),
        BinaryOperator::Less => a.lt(b),
        BinaryOperator::LessOrEqual => a.le(b),
        BinaryOperator::Greater => a.gt(b),
        _ => a.ge(b),
    }
}

/// A comparison of floats: NaN equals NaN and is larger than everything; −0.0 equals 0.0.
pub(super) fn floats(operator: BinaryOperator, a: Ir, b: Ir) -> Ir {
    let nan = |x: &Ir| x.clone().ne(x.clone());
    let same = |a: Ir, b: Ir| a.clone().eq(b.clone()).or(nan(&a).and(nan(&b)));
    let below = |a: Ir, b: Ir| a.clone().lt(b.clone()).or(nan(&b).and(nan(&a).not()));
    match operator {
        BinaryOperator::Equal => same(a, b),
        BinaryOperator::NotEqual => same(a, b).not(),
        BinaryOperator::Less => below(a, b),
        BinaryOperator::Greater => below(b, a),
        BinaryOperator::LessOrEqual => below(b, a).not(),
        _ => below(a, b).not(),
    }
}

impl Lowering<'_> {
    /// `left operator right`.
    pub(super) fn comparison(
        &mut self,
        row: &mut Row,
        op: BinaryOperator,
        left: &Expr,
        right: &Expr,
    ) -> Lowered<Value> {
        let null_safe = matches!(op, BinaryOperator::Distinct | BinaryOperator::NotDistinct);
        if !null_safe && let Some(comparison) = self.with_constant(op, left, right)? {
            return self.bounded(row, &comparison);
        }
        let l = self.expr(row, left)?;
        let r = self.expr(row, right)?;
        if null_safe {
            return self.null_safe(op, &l, &r);
        }
        self.compare(op, &l, &r)
    }

    /// A comparison that is NULL where an operand is.
    pub(super) fn compare(&mut self, op: BinaryOperator, l: &Value, r: &Value) -> Lowered<Value> {
        if is_null(l) || is_null(r) {
            return Ok(null_of(&Type::Boolean));
        }
        let null = self.either_null(l.null.clone(), r.null.clone());
        let ir = match (&l.shape.kind, &r.shape.kind) {
            (Kind::Integer(_), Kind::Integer(_)) => self.integers(op, l, r)?,
            (Kind::Boolean, Kind::Boolean) => {
                let (a, b) = (l.ir.clone(), r.ir.clone());
                match op {
                    BinaryOperator::Equal => a.xor(b).not(),
                    BinaryOperator::NotEqual => a.xor(b),
                    BinaryOperator::Less => a.not().and(b),
                    BinaryOperator::LessOrEqual => a.not().or(b),
                    BinaryOperator::Greater => a.and(b.not()),
                    _ => a.or(b.not()),
                }
            }
            (Kind::Float32, Kind::Float32) | (Kind::Float64, Kind::Float64) => floats(op, l.ir.clone(), r.ir.clone()),
            (Kind::Code(_) | Kind::Text, Kind::Code(_) | Kind::Text) => self.compare_strings(op, l, r)?,
            _ => {
                let (a, b) = (&l.shape.data_type, &r.shape.data_type);
                return Err(Unsupported(format!("a comparison of {a:?} and {b:?} has no kernel")));
            }
        };
        Ok(boolean(self.flag(ir), null))
    }

    /// IS [NOT] DISTINCT FROM: NULL equals NULL and nothing else.
    fn null_safe(&mut self, op: BinaryOperator, l: &Value, r: &Value) -> Lowered<Value> {
        let null = |value: &Value| value.null.clone().unwrap_or(build::bool(false));
        let (ln, rn) = (null(l), null(r));
        let distinct = if is_null(l) || is_null(r) {
            ln.xor(rn)
        } else {
            let differ = self.compare(BinaryOperator::NotEqual, l, r)?.ir;
            if l.null.is_none() && r.null.is_none() {
                differ
            } else {
                ln.clone().xor(rn.clone()).or(ln.or(rn).not().and(differ))
            }
        };
        let ir = match op {
            BinaryOperator::Distinct => distinct,
            _ => distinct.not(),
        };
        Ok(boolean(self.flag(ir), None))
    }

    /// Of an integral value with a number of its scale.
    pub(super) fn compare_integers(&mut self, op: BinaryOperator, left: &Value, right: &Number) -> Lowered<Value> {
        if is_null(left) {
            return Ok(null_of(&Type::Boolean));
        }
        let l = number(left)?;
        let ir = self.numbers(op, &l, right);
        Ok(boolean(self.flag(ir), left.null.clone()))
    }

    fn numbers(&mut self, op: BinaryOperator, l: &Number, r: &Number) -> Ir {
        if let Some(decided) = decide(op, l.range, r.range) {
            return build::bool(decided);
        }
        let lane = wider(l.lane(), r.lane());
        plain(op, l.to(lane), r.to(lane))
    }

    fn integers(&mut self, op: BinaryOperator, l: &Value, r: &Value) -> Lowered<Ir> {
        let (ls, rs) = (scale(&l.shape.data_type), scale(&r.shape.data_type));
        let (a, b) = (number(l)?, number(r)?);
        let (left, right) = (ls.max(rs) - ls, ls.max(rs) - rs);
        if scaled(a.range, left).is_some() && scaled(b.range, right).is_some() {
            let (a, b) = (self.shifted(&a, left)?, self.shifted(&b, right)?);
            return Ok(self.numbers(op, &a, &b));
        }
        if left > 0 {
            self.scaled_comparison(op, &a, left, &b)
        } else {
            self.scaled_comparison(op.mirrored(), &b, right, &a)
        }
    }

    /// `a · 10^digits operator b` where the left side may leave 128 bits: `b` is cut into the digits that `a` has and the rest.
    fn scaled_comparison(&mut self, op: BinaryOperator, a: &Number, digits: i32, b: &Number) -> Lowered<Ir> {
        let Some(power) = power_of_ten(digits) else {
            return Err(Unsupported(format!("a decimal at {digits} more digits")));
        };
        let lane = wider(wider(a.lane(), b.lane()), Shape::lane((power, power)));
        let power = constant(lane, power);
        let (a, b) = (a.to(lane), self.keep(lane, b.to(lane)));
        let quotient = self.keep(lane, b.clone().over(power.clone()));
        let rest = self.keep(lane, b.rem(power));
        let zero = constant(lane, 0);
        // Where the digits are equal the rest decides.
        let side = |op: BinaryOperator| plain(op, a.clone(), quotient.clone());
        let tie = plain(op, zero, rest);
        Ok(match op {
            BinaryOperator::Equal => side(BinaryOperator::Equal).and(tie),
            BinaryOperator::NotEqual => side(BinaryOperator::NotEqual).or(tie),
            BinaryOperator::Less | BinaryOperator::LessOrEqual => {
                side(BinaryOperator::Less).or(side(BinaryOperator::Equal).and(tie))
            }
            _ => side(BinaryOperator::Greater).or(side(BinaryOperator::Equal).and(tie)),
        })
    }
}
