//! Back from DataFusion's expressions, as the rules left them, to the operators that they stand for: what lowering reads.
//!
//! Fragments have these semantics themselves: their arithmetic is checked, their floats are ordered as SQL orders them, and AND
//! and OR reach only the rows that they should.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, CaseExpr, Literal, NegativeExpr, NotExpr};
use datafusion::physical_expr::utils::{collect_columns, split_disjunction};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr, conjunction, split_conjunction};

use super::arithmetic::{CheckedOperator, checked_operator};
use super::floats::CANONICAL;

type Shared = Arc<dyn PhysicalExpr>;

/// The expression in plain operators, meant with the semantics of `SEMANTICS.md`.
///
/// # Errors
/// None that is known; DataFusion's rebuilding of expressions may.
pub fn plain(expr: &Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
    Arc::clone(expr)
        .transform_up(|expr| {
            if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() {
                return Ok(operation(call).map_or_else(|| Transformed::no(Arc::clone(&expr)), Transformed::yes));
            }
            if let Some(case) = expr.downcast_ref::<CaseExpr>() {
                return Ok(unguarded(case).map_or_else(|| Transformed::no(Arc::clone(&expr)), Transformed::yes));
            }
            if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
                return Ok(ordinary(&expr, binary).map_or_else(|| Transformed::no(Arc::clone(&expr)), Transformed::yes));
            }
            Ok(Transformed::no(expr))
        })
        .map(|expr| expr.data)
}

/// The name of the aggregate function that a function of these rules stands for.
pub fn plain_aggregate(name: &str) -> &str {
    match name {
        "float_min" => "min",
        "float_max" => "max",
        other => other,
    }
}

fn operation(call: &ScalarFunctionExpr) -> Option<Arc<dyn PhysicalExpr>> {
    if call.fun().name() == CANONICAL {
        return call.args().first().map(Arc::clone);
    }
    let operator = checked_operator(call.fun())?;
    match (operator.binary(), call.args()) {
        (Some(operator), [left, right]) => Some(Arc::new(
            BinaryExpr::new(Arc::clone(left), operator, Arc::clone(right)).with_fail_on_overflow(true),
        )),
        (None, [operand]) if operator == CheckedOperator::Negate => {
            Some(Arc::new(NegativeExpr::new(Arc::clone(operand))))
        }
        _ => None,
    }
}

/// The AND or OR that a CASE guards.
fn unguarded(case: &CaseExpr) -> Option<Arc<dyn PhysicalExpr>> {
    let (Some(left), [(_, right), (_, decided)], Some(otherwise)) =
        (case.expr(), case.when_then_expr(), case.else_expr())
    else {
        return None;
    };
    let otherwise = otherwise.downcast_ref::<BinaryExpr>()?;
    let is = |expr: &Arc<dyn PhysicalExpr>, value: Option<bool>| {
        expr.downcast_ref::<Literal>()
            .is_some_and(|literal| literal.value() == &ScalarValue::Boolean(value))
    };
    let wanted = match otherwise.op() {
        Operator::And => false,
        Operator::Or => true,
        _ => return None,
    };
    let at_end = is(otherwise.left(), None) || is(otherwise.left(), Some(!wanted));
    let is_guard = is(decided, Some(wanted)) && at_end && otherwise.right() == right;
    is_guard.then(|| {
        Arc::new(BinaryExpr::new(Arc::clone(left), *otherwise.op(), Arc::clone(right))) as Arc<dyn PhysicalExpr>
    })
}

/// The AND or OR without what it says of NaN beside a comparison that implies it.
fn ordinary(expr: &Arc<dyn PhysicalExpr>, binary: &BinaryExpr) -> Option<Arc<dyn PhysicalExpr>> {
    let is_and = match binary.op() {
        Operator::And => true,
        Operator::Or => false,
        _ => return None,
    };
    let mut terms: Vec<_> = terms_of(expr, is_and).into_iter().map(Arc::clone).collect();
    let before = terms.len();
    while let Some((comparison, place, remark)) = whole(&terms, is_and) {
        terms[place] = comparison;
        terms.remove(remark);
    }
    let implied = |operand: &Arc<dyn PhysicalExpr>| {
        terms.iter().any(|term| {
            term.downcast_ref::<BinaryExpr>().is_some_and(|comparison| {
                comparison.left() == operand && implies(is_and, *comparison.op(), comparison.right())
            })
        })
    };
    let kept: Vec<_> = terms
        .iter()
        .filter(|term| !nan_operand(term, is_and).is_some_and(implied))
        .map(Arc::clone)
        .collect();
    if kept.len() == before {
        return None;
    }
    if is_and {
        return Some(conjunction(kept));
    }
    kept.into_iter()
        .reduce(|left, right| Arc::new(BinaryExpr::new(left, Operator::Or, right)))
}

fn terms_of(expr: &Arc<dyn PhysicalExpr>, is_and: bool) -> Vec<&Arc<dyn PhysicalExpr>> {
    if is_and {
        split_conjunction(expr)
    } else {
        split_disjunction(expr)
    }
}

/// Whether the comparison with the constant says itself what stands beside it; beside NaN, only some do.
fn implies(is_and: bool, op: Operator, constant: &Arc<dyn PhysicalExpr>) -> bool {
    match (is_and, op) {
        (true, Operator::Lt) | (false, Operator::GtEq) => collect_columns(constant).is_empty(),
        (true, Operator::LtEq | Operator::Eq) | (false, Operator::Gt | Operator::NotEq) => is_number(constant),
        _ => false,
    }
}

/// A comparison with a constant that may be NaN: the comparison, its place, and the place of the remark about both NaNs.
fn whole(terms: &[Arc<dyn PhysicalExpr>], is_and: bool) -> Option<(Arc<dyn PhysicalExpr>, usize, usize)> {
    for (remark, term) in terms.iter().enumerate() {
        let Some((x, constant, is_negated)) = both_nan(term, is_and) else {
            continue;
        };
        for (place, term) in terms.iter().enumerate() {
            for part in terms_of(term, !is_and) {
                let Some(comparison) = part.downcast_ref::<BinaryExpr>() else {
                    continue;
                };
                let fits = match comparison.op() {
                    Operator::Eq | Operator::LtEq => !is_and && !is_negated,
                    Operator::Gt => !is_and && is_negated,
                    Operator::NotEq => is_and,
                    _ => false,
                };
                let alone = terms_of(term, !is_and)
                    .into_iter()
                    .all(|other| other == part || nan_operand(other, !is_and) == Some(&x));
                if fits && alone && comparison.left() == &x && comparison.right() == &constant {
                    return Some((Arc::clone(part), place, remark));
                }
            }
        }
    }
    None
}

/// `isnan(x) AND isnan(c)` or `isnan(x) AND NOT isnan(c)` within an OR; within an AND `NOT (isnan(x) AND isnan(c))` or
/// `NOT isnan(x) OR NOT isnan(c)`: x, c, and whether c's is negated.
fn both_nan(term: &Arc<dyn PhysicalExpr>, is_and: bool) -> Option<(Shared, Shared, bool)> {
    if is_and && let Some(not) = term.downcast_ref::<NotExpr>() {
        return both_nan(not.arg(), false).filter(|(.., is_negated)| !is_negated);
    }
    let [x, constant] = terms_of(term, !is_and).try_into().ok()?;
    let x = nan_operand(x, is_and)?;
    if let Some(constant) = nan_operand(constant, is_and) {
        return Some((Arc::clone(x), Arc::clone(constant), false));
    }
    let constant = nan_operand(constant, !is_and)?;
    (!is_and).then(|| (Arc::clone(x), Arc::clone(constant), true))
}

/// Whether it is a constant, and not NaN.
fn is_number(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.downcast_ref::<Literal>()
        .is_some_and(|literal| match literal.value() {
            ScalarValue::Float64(Some(value)) => !value.is_nan(),
            ScalarValue::Float32(Some(value)) => !value.is_nan(),
            _ => false,
        })
}

/// The operand of `NOT isnan(…)`, or of `isnan(…)`.
fn nan_operand(term: &Arc<dyn PhysicalExpr>, is_negated: bool) -> Option<&Arc<dyn PhysicalExpr>> {
    let call = if is_negated {
        term.downcast_ref::<NotExpr>()?.arg()
    } else {
        term
    };
    let call = call.downcast_ref::<ScalarFunctionExpr>()?;
    match (call.fun().name(), call.args()) {
        ("isnan", [operand]) => Some(operand),
        _ => None,
    }
}
