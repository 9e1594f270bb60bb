//! Joins that multiply rows must give way to others, and those that only ask whether there is a row must not multiply.
//!
//! DataFusion makes the leaves of a plan yield, but a cross or nested-loop join gives any number of batches from one batch
//! of a leaf: it would hold its thread for minutes, deaf to cancellation and time-outs.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{ColumnStatistics, JoinType};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::{HashJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};

/// Makes every such join yield as the leaves do.
#[derive(Debug)]
pub struct YieldingJoins;

impl PhysicalOptimizerRule for YieldingJoins {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            Ok(match node.name() {
                "CrossJoinExec" | "NestedLoopJoinExec" | "PiecewiseMergeJoinExec" => {
                    Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>)
                }
                _ => Transformed::no(node),
            })
        })
        .data()
    }

    fn name(&self) -> &str {
        "yielding_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Makes the side of semi and anti joins that gives no columns distinct, and hash and merge joins give way. DataFusion's hash
/// join goes through all pairs of equal keys: quadratic where keys are few, and one batch of the other side gives any number.
/// It gives way between batches of its result only, so pairs that all fail a further condition still hold the thread.
///
/// To be done last, since what looks for joins among a plan's nodes finds them with another node above.
///
/// # Errors
/// When a node can't be made.
pub fn tamed(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let yielding = |node| Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>);
    plan.transform_up(|node| {
        let Some(join) = node.downcast_ref::<HashJoinExec>() else {
            let merges = node.is::<SortMergeJoinExec>();
            return Ok(if merges { yielding(node) } else { Transformed::no(node) });
        };
        let (left, right) = (Arc::clone(join.left()), Arc::clone(join.right()));
        let children = match join.join_type() {
            JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark if may_repeat(&right)? => {
                vec![left, distinct(right)?]
            }
            JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark if may_repeat(&left)? => {
                vec![distinct(left)?, right]
            }
            _ => return Ok(yielding(node)),
        };
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        node.replace_children(children, options).map(yielding)
    })
    .data()
}

/// Different rows that are few enough to be worth finding.
const FEW_ROWS: u64 = 4096;

/// False where types or statistics say that there are many different rows. An aggregate that finds few repeats lets rows pass
/// soon, so that nothing is lost where nothing is known.
fn may_repeat(side: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    if side.is::<AggregateExec>() || side.schema().fields().is_empty() {
        return Ok(false);
    }
    let statistics = StatisticsContext::new().compute(side.as_ref(), &StatisticsArgs::new())?;
    let mut rows = 1_u64;
    for (index, field) in side.schema().fields().iter().enumerate() {
        let known = statistics.column_statistics.get(index);
        if field.data_type().is_nested() {
            return Ok(false);
        }
        rows = rows.saturating_mul(values_max(field.data_type(), known).unwrap_or(1));
    }
    Ok(rows <= FEW_ROWS)
}

/// How many different values a column has at most, or by what ANALYZE found.
fn values_max(data_type: &DataType, known: Option<&ColumnStatistics>) -> Option<u64> {
    let by_type = match data_type {
        DataType::Boolean => Some(3),
        DataType::Int8 | DataType::UInt8 => Some(257),
        _ => None,
    };
    let counted = known.and_then(|known| {
        known
            .distinct_count
            .get_value()
            .map(|count| (*count as u64).saturating_add(1))
    });
    let by_range = known.filter(|_| data_type.is_integer()).and_then(|known| {
        let (least, most) = (known.min_value.get_value()?, known.max_value.get_value()?);
        most.distance(least).map(|distance| (distance as u64).saturating_add(2))
    });
    [by_type, counted, by_range].into_iter().flatten().min()
}

/// The rows of each partition without repeats.
fn distinct(side: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = side.schema();
    let column = |(index, name): (usize, &String)| {
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(name, index));
        (column, name.clone())
    };
    let names = schema.fields().iter().map(|field| field.name());
    let group = PhysicalGroupBy::new_single(names.enumerate().map(column).collect());
    let rows = AggregateExec::try_new(AggregateMode::Partial, group, Vec::new(), Vec::new(), side, schema)?;
    Ok(Arc::new(rows))
}
