//! Constants below outer joins and grouping sets are none above them.
//!
//! DataFusion takes a column that is constant in an input for constant in the output too, although an outer join or ROLLUP
//! puts NULLs beside it: it then leaves out sorts by that column and groups by it batch by batch. Here the inputs of such
//! joins, and the results of such aggregates, are wrapped in an operator that moves batches and hides the constants.

use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::JoinType;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::{CardinalityEffect, replace_children_if_necessary};
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::{
    ChildStats, ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties,
    PlanProperties, ReplaceChildrenOptions, Statistics, StatisticsArgs,
};

/// Wraps what outer joins and grouping sets fill with NULLs, where it has constants.
#[derive(Debug)]
pub struct ForgetConstants;

impl PhysicalOptimizerRule for ForgetConstants {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            if has_sets(&node) && node.equivalence_properties().eq_group().iter().next().is_some() {
                return Ok(Transformed::yes(
                    Arc::new(NullFilledExec::new(node)) as Arc<dyn ExecutionPlan>
                ));
            }
            let Some(filled) = filled_sides(&node) else {
                return Ok(Transformed::no(node));
            };
            let mut changed = false;
            let children = node.children().into_iter().zip(filled).map(|(child, filled)| {
                if !filled || child.equivalence_properties().constants().is_empty() {
                    return Arc::clone(child);
                }
                changed = true;
                Arc::new(NullFilledExec::new(Arc::clone(child))) as Arc<dyn ExecutionPlan>
            });
            let children: Vec<_> = children.collect();
            Ok(if changed {
                Transformed::yes(replace_children_if_necessary(node, children)?)
            } else {
                Transformed::no(node)
            })
        })
        .data()
    }

    fn name(&self) -> &str {
        "forget_constants"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether it is an aggregate of several grouping sets.
fn has_sets(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.downcast_ref::<AggregateExec>()
        .is_some_and(|aggregate| !aggregate.group_expr().is_single())
}

/// Whether an outer join puts NULLs beside rows of the other side: left, right.
fn filled_sides(plan: &Arc<dyn ExecutionPlan>) -> Option<[bool; 2]> {
    let join_type = if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        *join.join_type()
    } else if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
        *join.join_type()
    } else {
        plan.downcast_ref::<SortMergeJoinExec>()?.join_type()
    };
    match join_type {
        JoinType::Left => Some([false, true]),
        JoinType::Right => Some([true, false]),
        JoinType::Full => Some([true, true]),
        _ => None,
    }
}

/// Hands on its input's batches; of its properties all but what is constant or equal.
#[derive(Debug, Clone)]
pub struct NullFilledExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl NullFilledExec {
    fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        let mut known = EquivalenceProperties::new(input.schema());
        known.add_orderings(input.equivalence_properties().oeq_class().clone());
        let properties = PlanProperties::clone(input.properties()).with_eq_properties(known);
        Self {
            input,
            properties: Arc::new(properties),
        }
    }
}

impl DisplayAs for NullFilledExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("NullFilledExec")
    }
}

impl ExecutionPlan for NullFilledExec {
    fn name(&self) -> &'static str {
        "NullFilledExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(match children.pop() {
            Some(input) => Arc::new(Self::new(input)),
            None => self,
        })
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::clone(&inputs[0]))
    }
}
