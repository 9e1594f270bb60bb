//! Keeps lists that one value is looked up in from being merged.
//!
//! DataFusion's simplifier makes one list of two by comparing what their elements are written as: `x IN (1, 2) AND x NOT IN
//! (2, NULL)` becomes `x IN (1)`, which forgets the NULL; `x IN (a) AND x NOT IN (b)` becomes `x IN (a)`, whatever `a` and `b`
//! hold, parameters of a kept plan among them; lists without a common element become a constant, which is wrong where `x` is
//! NULL. While it works, such lists stand within a function that it does not look into: all of the same columns, since it makes `x`
//! of `CAST(x AS …)` or `x + 0` before it merges.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

/// The simplifier, which merges no lists but those of one OR, or one AND of NOT IN.
pub(crate) struct ListsApart {
    pub(crate) rule: Arc<dyn OptimizerRule + Send + Sync>,
}

impl fmt::Debug for ListsApart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListsApart").field("rule", &self.rule.name()).finish()
    }
}

impl OptimizerRule for ListsApart {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let mut mergeable = false;
        plan.apply_expressions(|expr| {
            mergeable |= has_twins(&operands(expr)?);
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !mergeable {
            return self.rule.rewrite(plan, config);
        }
        let preserver = NamePreserver::new(&plan);
        let mut names = VecDeque::new();
        let plan = plan.map_expressions(|expr| {
            let name = preserver.save(&expr);
            let named = matches!(expr, Expr::Alias(_));
            let apart = set_apart(expr)?;
            names.push_back((name, (!named).then(|| apart.data.schema_name().to_string())));
            Ok(apart)
        })?;
        self.rule.rewrite(plan.data, config)?.transform_data(|plan| {
            plan.map_expressions(|expr| {
                let expr = expr.transform_up(|expr| Ok(let_go(expr)))?;
                Ok(match names.pop_front() {
                    Some((name, Some(apart))) => expr.update_data(|expr| name.restore(without_name(expr, &apart))),
                    _ => expr,
                })
            })
        })
    }
}

/// An expression without the name that it had while its lists were set apart.
fn without_name(expr: Expr, name: &str) -> Expr {
    match expr {
        Expr::Alias(alias) if alias.name == name => *alias.expr,
        other => other,
    }
}

/// What each of the expression's lists is asked for.
fn operands(expr: &Expr) -> Result<Vec<Expr>> {
    let mut operands = Vec::new();
    collect(expr, &mut operands)?;
    Ok(operands)
}

/// Of comparisons that become one list only once; what stands within lists has lists too.
fn collect(expr: &Expr, operands: &mut Vec<Expr>) -> Result<()> {
    let mut within = |expr: &Expr| {
        expr.apply_children(|child| {
            collect(child, operands)?;
            Ok(TreeNodeRecursion::Continue)
        })
    };
    match operand(expr) {
        None => within(expr).map(drop),
        Some(found) => {
            let found = found.clone();
            let mut parts = vec![expr];
            while let Some(part) = parts.pop() {
                match part {
                    Expr::BinaryExpr(BinaryExpr { left, op, right }) if op.is_logic_operator() => {
                        parts.extend([left.as_ref(), right.as_ref()]);
                    }
                    part => drop(within(part)?),
                }
            }
            operands.push(found);
            Ok(())
        }
    }
}

/// The value that a list, or comparisons that become one, is asked for.
fn operand(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::InList(list) => Some(&list.expr),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let negated = match op {
                Operator::Or => false,
                Operator::And => true,
                _ => return None,
            };
            let of_left = member(left, negated)?;
            alike(member(right, negated)?, of_left).then_some(of_left)
        }
        _ => None,
    }
}

/// What a part of `x = a OR x IN (…)` compares, or, negated, of `x <> a AND x NOT IN (…)`.
fn member(expr: &Expr, negated: bool) -> Option<&Expr> {
    let (compares, joins) = if negated {
        (Operator::NotEq, Operator::And)
    } else {
        (Operator::Eq, Operator::Or)
    };
    match expr {
        Expr::BinaryExpr(binary) if binary.op == compares => [&binary.left, &binary.right]
            .into_iter()
            .map(Box::as_ref)
            .find(|side| !side.column_refs().is_empty()),
        Expr::BinaryExpr(binary) if binary.op == joins => operand(expr),
        Expr::InList(list) if list.negated == negated => Some(&list.expr),
        _ => None,
    }
}

/// Whether simpler forms of two expressions may be one: they are, or are made of the same columns.
fn alike(one: &Expr, other: &Expr) -> bool {
    let columns = one.column_refs();
    one == other || (!columns.is_empty() && columns == other.column_refs())
}

fn has_twins(operands: &[Expr]) -> bool {
    operands
        .iter()
        .enumerate()
        .any(|(index, operand)| operands[..index].iter().any(|other| alike(other, operand)))
}

fn set_apart(expr: Expr) -> Result<Transformed<Expr>> {
    let operands = operands(&expr)?;
    if !has_twins(&operands) {
        return Ok(Transformed::no(expr));
    }
    // From below: lists may stand within lists, and what is set apart is simplified within.
    expr.transform_up(|expr| {
        Ok(match operand(&expr) {
            Some(operand) if operands.iter().filter(|other| alike(other, operand)).count() > 1 => {
                Transformed::yes(apart().call(vec![expr]))
            }
            _ => Transformed::no(expr),
        })
    })
}

fn let_go(expr: Expr) -> Transformed<Expr> {
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, mut args }) if func.inner().is::<Apart>() && args.len() == 1 => {
            Transformed::yes(args.remove(0))
        }
        other => Transformed::no(other),
    }
}

fn apart() -> &'static ScalarUDF {
    static FUNCTION: LazyLock<ScalarUDF> = LazyLock::new(|| {
        ScalarUDF::new_from_impl(Apart {
            signature: Signature::any(1, Volatility::Immutable),
        })
    });
    &FUNCTION
}

/// Its operand, under the operand's name.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Apart {
    signature: Signature,
}

impl ScalarUDFImpl for Apart {
    fn name(&self) -> &'static str {
        "apart"
    }

    fn schema_name(&self, operands: &[Expr]) -> Result<String> {
        match operands {
            [operand] => Ok(operand.schema_name().to_string()),
            _ => plan_err!("apart has one argument"),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        match args.arg_fields {
            [field] => Ok(Arc::clone(field)),
            _ => plan_err!("apart has one argument"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match <[ColumnarValue; 1]>::try_from(args.args) {
            Ok([value]) => Ok(value),
            Err(_) => exec_err!("apart has one argument"),
        }
    }
}
