//! What DataFusion takes to be determined by a key, kept to what is.
//!
//! A subquery's groups are unique, a join repeats them, and their keys still determine what stood beside them. DataFusion 55
//! takes an aggregate over such a join for unique by such a key alone, though it groups by more, and an UNNEST for as unique as
//! its input: it leaves out keys of ORDER BY, GROUP BY and DISTINCT, and whole joins, and rows come out that are wrong, too many
//! or in the wrong order. Here the keys of such aggregates get names of their own, by which DataFusion does not know them, and
//! the input of an UNNEST gives its keys as calls, which are no columns.

mod groups;

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Dependency, Result};
use datafusion::logical_expr::{
    Aggregate, ColumnarValue, Distinct, Expr, LogicalPlan, Projection, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Unnest, Volatility,
};
use datafusion::optimizer::replace_distinct_aggregate::ReplaceDistinctWithAggregate;
use datafusion::optimizer::{AnalyzerRule, OptimizerContext, OptimizerRule};

use crate::semantics::is_alone;
pub(crate) use groups::{marked, unmarked};

/// The analyzer's last rule. Later rules compute dependencies anew, and find the same.
#[derive(Debug)]
pub(crate) struct Dependencies;

impl AnalyzerRule for Dependencies {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        if !may_mislead(&plan)? {
            return Ok(plan);
        }
        // Those of a DISTINCT are seen when it is an aggregate. One of DISTINCT ON gives none.
        let (rule, context) = (ReplaceDistinctWithAggregate::new(), OptimizerContext::new());
        let plan = plan.transform_up_with_subqueries(|node| match node.recompute_schema()? {
            node @ LogicalPlan::Distinct(Distinct::All(_)) => rule.rewrite(node, &context),
            other => Ok(Transformed::no(other)),
        })?;
        plan.data
            .transform_up_with_subqueries(|node| sound(node.recompute_schema()?))
            .data()
    }

    fn name(&self) -> &str {
        "trireme_dependencies"
    }
}

/// Whether there are unique keys, and a node that repeats them below another that asks for keys.
fn may_mislead(plan: &LogicalPlan) -> Result<bool> {
    let (mut keys, mut joins, mut unnests) = (0, 0, 0);
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::Aggregate(aggregate) if !aggregate.group_expr.is_empty() => keys += 1,
            LogicalPlan::Distinct(_) | LogicalPlan::Window(_) => keys += 1,
            LogicalPlan::Join(_) => joins += 1,
            LogicalPlan::Unnest(_) => unnests += 1,
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(keys > 1 && joins > 0 || keys > 0 && unnests > 0)
}

/// The node without false dependencies; those of its inputs are right.
fn sound(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match plan {
        LogicalPlan::Aggregate(aggregate) if overreaches(aggregate.input.schema(), &aggregate.group_expr) => {
            if !is_alone(&aggregate.input) {
                let input = Arc::new(joined_without_keys(aggregate.input.as_ref().clone())?);
                let aggregate = Aggregate::try_new(input, aggregate.group_expr, aggregate.aggr_expr)?;
                return Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)));
            }
            if asks_grouping(&aggregate)? {
                return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
            }
            renamed(aggregate).map(Transformed::yes)
        }
        LogicalPlan::Distinct(Distinct::On(mut distinct))
            if overreaches(distinct.input.schema(), &distinct.on_expr) =>
        {
            let keys = std::mem::take(&mut distinct.on_expr);
            distinct.on_expr = keys.into_iter().enumerate().map(as_key).collect();
            Ok(Transformed::yes(LogicalPlan::Distinct(Distinct::On(distinct))))
        }
        LogicalPlan::Unnest(unnest)
            if !unnest.input.schema().functional_dependencies().is_empty() && is_alone(&unnest.input) =>
        {
            let input = Arc::new(LogicalPlan::Projection(without_keys(&unnest.input)?));
            let unnest = LogicalPlan::Unnest(Unnest { input, ..unnest });
            Ok(Transformed::yes(unnest.recompute_schema()?))
        }
        LogicalPlan::Join(join) if !is_alone(&join.right) && !join.schema.functional_dependencies().is_empty() => {
            // A LATERAL's groups are those of one row before it.
            let plain = without_keys(&Arc::new(LogicalPlan::Join(join)))?;
            Ok(Transformed::yes(LogicalPlan::Projection(plain)))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Whether a key that is not unique is among the groups, and does not determine all of them.
fn overreaches(input: &DFSchema, groups: &[Expr]) -> bool {
    let groups: Vec<String> = groups.iter().map(|group| group.schema_name().to_string()).collect();
    let name = |index: &usize| {
        let (qualifier, field) = input.qualified_field(*index);
        Column::new(qualifier.cloned(), field.name()).flat_name()
    };
    input.functional_dependencies().iter().any(|dependency| {
        let targets: Vec<String> = dependency.target_indices.iter().map(name).collect();
        dependency.mode == Dependency::Multi
            && dependency
                .source_indices
                .iter()
                .all(|index| groups.contains(&name(index)))
            && !groups.iter().all(|group| targets.contains(group))
    })
}

/// `grouping(x)` finds the group by its expression; it is a number once the analyzer has been there.
fn asks_grouping(aggregate: &Aggregate) -> Result<bool> {
    let asks = |expr: &Expr| {
        expr.exists(|node| Ok(matches!(node, Expr::AggregateFunction(call) if call.func.name() == "grouping")))
    };
    aggregate
        .aggr_expr
        .iter()
        .try_fold(false, |found, expr| Ok(found || asks(expr)?))
}

fn as_key((at, expr): (usize, Expr)) -> Expr {
    expr.alias(format!("trireme_key_{at}"))
}

/// The aggregate with other names for its groups, below a projection that gives them their own.
fn renamed(aggregate: Aggregate) -> Result<LogicalPlan> {
    let Aggregate {
        input,
        group_expr,
        aggr_expr,
        schema,
        ..
    } = aggregate;
    let groups: Vec<Expr> = group_expr.into_iter().enumerate().map(as_key).collect();
    let aggregate = Aggregate::try_new(input, groups, aggr_expr)?;
    let named = aggregate.schema.columns().into_iter().zip(schema.columns());
    let exprs = named.map(|(found, due)| match found == due {
        true => Expr::Column(found),
        false => Expr::Column(found).alias_qualified(due.relation, due.name),
    });
    let exprs = exprs.collect();
    let projection = Projection::try_new(exprs, Arc::new(LogicalPlan::Aggregate(aggregate)))?;
    Ok(LogicalPlan::Projection(projection))
}

/// The plan whose joins know no keys of the sides that stand alone.
fn joined_without_keys(plan: LogicalPlan) -> Result<LogicalPlan> {
    let hide = |side: &mut Arc<LogicalPlan>| -> Result<()> {
        if is_alone(side) && !side.schema().functional_dependencies().is_empty() {
            *side = Arc::new(LogicalPlan::Projection(without_keys(side)?));
        }
        Ok(())
    };
    plan.transform_up(|node| match node {
        LogicalPlan::Join(mut join) => {
            hide(&mut join.left)?;
            hide(&mut join.right)?;
            Ok(Transformed::yes(LogicalPlan::Join(join).recompute_schema()?))
        }
        other => Ok(Transformed::yes(other.recompute_schema()?)),
    })
    .data()
}

/// All columns, and nothing that is known to be a key.
fn without_keys(input: &Arc<LogicalPlan>) -> Result<Projection> {
    let schema = input.schema();
    let dependencies = schema.functional_dependencies();
    let is_key = |at: usize| dependencies.iter().any(|found| found.source_indices.contains(&at));
    let call = ScalarUDF::new_from_impl(Plain {
        signature: Signature::any(1, Volatility::Immutable),
    });
    let columns = schema.columns().into_iter().enumerate();
    let exprs = columns.map(|(at, column)| match is_key(at) {
        true => call
            .call(vec![Expr::Column(column.clone())])
            .alias_qualified(column.relation, column.name),
        false => Expr::Column(column),
    });
    Projection::try_new(exprs.collect(), Arc::clone(input))
}

/// Gives its argument.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Plain {
    signature: Signature,
}

impl ScalarUDFImpl for Plain {
    fn name(&self) -> &str {
        "trireme_plain"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(args[0].clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::clone(&args.arg_fields[0]))
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(args.args.swap_remove(0))
    }
}
