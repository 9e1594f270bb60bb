//! The physical rule that keeps errors to the rows that reach an operation.
//!
//! DataFusion evaluates the right side of AND and OR for rows that the left side has decided, unless nearly all are decided.
//! Here, a filter becomes one filter of the conditions that can't fail below one of each that can; an AND or OR elsewhere whose
//! right side can fail becomes a CASE. It runs last, on what is left after pushing down and pruning. Where nothing can fail,
//! nothing changes.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::datasource::source::DataSourceExec;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, CaseExpr, lit};
use datafusion::physical_expr::{PhysicalExpr, conjunction, split_conjunction};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateInputMode};
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

use super::fallible::is_fallible;

/// See the module.
#[derive(Debug)]
pub(super) struct Reach;

impl PhysicalOptimizerRule for Reach {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            if let Some(filter) = node.downcast_ref::<FilterExec>() {
                return staged(filter)
                    .map(|it| it.map_or_else(|| Transformed::no(Arc::clone(&node)), Transformed::yes));
            }
            if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
                return projected(projection)
                    .map(|it| it.map_or_else(|| Transformed::no(Arc::clone(&node)), Transformed::yes));
            }
            if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
                return aggregated(aggregate)
                    .map(|it| it.map_or_else(|| Transformed::no(Arc::clone(&node)), Transformed::yes));
            }
            joined(&node).map(|it| it.map_or_else(|| Transformed::no(Arc::clone(&node)), Transformed::yes))
        })
        .data()
    }

    fn name(&self) -> &str {
        "trireme_reach"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The same for projections over scans, before they are pushed into the scans, where [`Reach`] doesn't see them.
#[derive(Debug)]
pub(super) struct ReachOfScans;

impl PhysicalOptimizerRule for ReachOfScans {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let projection = node.downcast_ref::<ProjectionExec>();
            let over_scan = projection.filter(|projection| projection.input().is::<DataSourceExec>());
            let Some(projection) = over_scan else {
                return Ok(Transformed::no(node));
            };
            projected(projection).map(|it| it.map_or_else(|| Transformed::no(Arc::clone(&node)), Transformed::yes))
        })
        .data()
    }

    fn name(&self) -> &str {
        "trireme_reach_of_scans"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The filter in stages; `None` if it is well as it is.
fn staged(filter: &FilterExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let schema = filter.input().schema();
    let conditions = split_conjunction(filter.predicate());
    let mut safe = Vec::new();
    let mut stages = Vec::new();
    let mut changed = false;
    for condition in conditions {
        if !is_fallible(condition, &schema) {
            safe.push(Arc::clone(condition));
            continue;
        }
        let guarded = guarded(condition, &schema)?;
        changed |= guarded.transformed;
        stages.push(guarded.data);
    }
    let Some(last) = stages.pop() else { return Ok(None) };
    if !changed && stages.is_empty() && safe.is_empty() {
        return Ok(None);
    }
    let stage = |predicate, input| {
        FilterExecBuilder::new(predicate, input)
            .with_default_selectivity(filter.default_selectivity())
            .with_batch_size(filter.batch_size())
            .build()
            .map(|stage| Arc::new(stage) as Arc<dyn ExecutionPlan>)
    };
    let mut input = Arc::clone(filter.input());
    if !safe.is_empty() {
        input = stage(conjunction(safe), input)?;
    }
    for condition in stages {
        input = stage(condition, input)?;
    }
    let last = FilterExecBuilder::from(filter)
        .with_predicate(last)
        .with_input(input)
        .build()?;
    Ok(Some(Arc::new(last)))
}

fn projected(projection: &ProjectionExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let schema = projection.input().schema();
    let mut changed = false;
    let mut columns = Vec::with_capacity(projection.expr().len());
    for column in projection.expr() {
        let guarded = guarded(&column.expr, &schema)?;
        changed |= guarded.transformed;
        columns.push(ProjectionExpr {
            expr: guarded.data,
            alias: column.alias.clone(),
        });
    }
    if !changed {
        return Ok(None);
    }
    Ok(Some(Arc::new(ProjectionExec::try_new(
        columns,
        Arc::clone(projection.input()),
    )?)))
}

/// The aggregate with its arguments so, and reached only by rows that its FILTER keeps; `None` if it is well as it is.
fn aggregated(node: &AggregateExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if node.mode().input_mode() != AggregateInputMode::Raw {
        return Ok(None);
    }
    let schema = node.input_schema();
    let mut changed = false;
    let mut functions = Vec::with_capacity(node.aggr_expr().len());
    for (function, filter) in node.aggr_expr().iter().zip(node.filter_expr()) {
        let all = function.all_expressions();
        let any = all.args.iter().any(|arg| is_fallible(arg, &schema));
        if !any || function.is_reversed() {
            functions.push(Arc::clone(function));
            continue;
        }
        let args = all
            .args
            .iter()
            .map(|arg| {
                // Some functions want a constant to stay one.
                if !is_fallible(arg, &schema) {
                    return Ok(Arc::clone(arg));
                }
                let arg = guarded(arg, &schema)?.data;
                let Some(filter) = filter else { return Ok(arg) };
                // The second branch, never taken, has CASE look at each condition before its value: with one branch it
                // evaluates a constant for no rows too.
                let never = (lit(false), lit(ScalarValue::try_from(arg.data_type(&schema)?)?));
                let kept = CaseExpr::try_new(None, vec![(Arc::clone(filter), arg), never], None)?;
                Ok(Arc::new(kept) as Arc<dyn PhysicalExpr>)
            })
            .collect::<Result<Vec<_>>>()?;
        match function.with_new_expressions(args, all.order_by_exprs) {
            Some(rewritten) => {
                changed = true;
                functions.push(Arc::new(rewritten));
            }
            None => functions.push(Arc::clone(function)),
        }
    }
    Ok(changed.then(|| Arc::new(node.with_new_aggr_exprs(functions)) as Arc<dyn ExecutionPlan>))
}

/// The join with its condition so; `None` if it is well as it is.
fn joined(node: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        let Some(filter) = join.filter().map(condition).transpose()?.flatten() else {
            return Ok(None);
        };
        return join.builder().with_filter(Some(filter)).build_exec().map(Some);
    }
    if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        let Some(filter) = join.filter().map(condition).transpose()?.flatten() else {
            return Ok(None);
        };
        let join = NestedLoopJoinExecBuilder::from(join)
            .with_filter(Some(filter))
            .build()?;
        return Ok(Some(Arc::new(join)));
    }
    Ok(None)
}

/// A join's condition: what can't fail first, the rest guarded by it.
fn condition(filter: &JoinFilter) -> Result<Option<JoinFilter>> {
    let schema = filter.schema();
    let (fallible, mut ordered): (Vec<_>, Vec<_>) = split_conjunction(filter.expression())
        .into_iter()
        .map(Arc::clone)
        .partition(|condition| is_fallible(condition, schema));
    if fallible.is_empty() {
        return Ok(None);
    }
    ordered.extend(fallible);
    let expression = guarded(&conjunction(ordered), schema)?.data;
    Ok(Some(JoinFilter::new(
        expression,
        filter.column_indices().to_vec(),
        Arc::clone(schema),
    )))
}

/// The expression, with a CASE for each AND and OR whose right side can fail.
///
/// `a AND b` becomes `CASE a WHEN true THEN b WHEN false THEN false ELSE NULL AND b END`: no row sees a part twice.
fn guarded(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Transformed<Arc<dyn PhysicalExpr>>> {
    Arc::clone(expr).transform_up(|expr| {
        let Some(binary) = expr.downcast_ref::<BinaryExpr>() else {
            return Ok(Transformed::no(expr));
        };
        let decided = match binary.op() {
            Operator::And => false,
            Operator::Or => true,
            _ => return Ok(Transformed::no(expr)),
        };
        if !is_fallible(binary.right(), schema) {
            return Ok(Transformed::no(expr));
        }
        // Where the left side is never NULL, no row gets to the end, and it must not make the whole nullable.
        let unknown = if binary.left().nullable(schema)? {
            None
        } else {
            Some(!decided)
        };
        let unknown: Arc<dyn PhysicalExpr> = lit(ScalarValue::Boolean(unknown));
        let otherwise = BinaryExpr::new(unknown, *binary.op(), Arc::clone(binary.right()));
        let branches = vec![
            (lit(!decided), Arc::clone(binary.right())),
            (lit(decided), lit(decided)),
        ];
        let case = CaseExpr::try_new(Some(Arc::clone(binary.left())), branches, Some(Arc::new(otherwise)))?;
        Ok(Transformed::yes(Arc::new(case)))
    })
}
