//! DataFusion's rules, each kept from the plans that it would make wrong. `tests/fuzz/README.md` has the statements that show
//! it; a rule that DataFusion mends loses its guard.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, NullEquality, Result};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::optimizer::{ApplyOrder, Optimizer};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::physical_expr::LexOrdering;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, ExecutionPlan, ExecutionPlanProperties, ReplaceChildrenOptions,
};

type LogicalRule = Arc<dyn OptimizerRule + Send + Sync>;
type PhysicalRule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// DataFusion's logical rules in their order.
pub fn logical_rules() -> Vec<LogicalRule> {
    let guarded = |rule: LogicalRule| -> LogicalRule {
        let unfit: fn(&LogicalPlan) -> Result<bool> = match rule.name() {
            "push_down_filter" => filters_one_row,
            "eliminate_cross_join" => joins_nulls,
            _ => return rule,
        };
        Arc::new(Guarded { rule, unfit })
    };
    Optimizer::new().rules.into_iter().map(guarded).collect()
}

/// DataFusion's physical rules in their order, but for its first push-down of filters: at joins it takes columns of the other
/// side for its own by their names, and wrong rows come out. The logical plan's push-down has done that work already.
pub fn physical_rules() -> Vec<PhysicalRule> {
    let guarded = |rule: PhysicalRule| -> Option<PhysicalRule> {
        let unfit: fn(&Arc<dyn ExecutionPlan>) -> Result<bool> = match rule.name() {
            "FilterPushdown" => return None,
            "FilterPushdown(Post)" => filters_by_ambiguous_names,
            "aggregate_statistics" => filters_above_aggregates,
            _ => return Some(rule),
        };
        Some(Arc::new(Guarded { rule, unfit }))
    };
    let mut rules: Vec<_> = PhysicalOptimizer::default()
        .rules
        .into_iter()
        .filter_map(guarded)
        .collect();
    let check = rules.iter().position(|rule| rule.name() == "SanityCheckPlan");
    rules.insert(check.unwrap_or(rules.len()), Arc::new(MissingSorts));
    rules
}

/// A rule that leaves some plans alone.
#[derive(Debug)]
struct Guarded<R: ?Sized, P> {
    unfit: fn(&P) -> Result<bool>,
    rule: Arc<R>,
}

impl OptimizerRule for Guarded<dyn OptimizerRule + Send + Sync, LogicalPlan> {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if (self.unfit)(&plan)? {
            return Ok(Transformed::no(plan));
        }
        self.rule.rewrite(plan, config)
    }
}

impl PhysicalOptimizerRule for Guarded<dyn PhysicalOptimizerRule + Send + Sync, Arc<dyn ExecutionPlan>> {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        if (self.unfit)(&plan)? {
            return Ok(plan);
        }
        self.rule.optimize(plan, config)
    }

    fn name(&self) -> &str {
        self.rule.name()
    }

    fn schema_check(&self) -> bool {
        self.rule.schema_check()
    }
}

/// An aggregate that gives a row for no rows, below a condition: conditions without columns would be pushed below it, and the
/// row would stay.
fn filters_one_row(plan: &LogicalPlan) -> Result<bool> {
    let LogicalPlan::Filter(filter) = plan else {
        return Ok(false);
    };
    let LogicalPlan::Aggregate(aggregate) = filter.input.as_ref() else {
        return Ok(false);
    };
    let groups = &aggregate.group_expr;
    Ok(groups.is_empty() || groups.iter().any(|group| matches!(group, Expr::GroupingSet(_))))
}

/// A join on IS NOT DISTINCT FROM somewhere: taken apart with others, all would be put together again with one kind of
/// equality.
fn joins_nulls(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= matches!(
            node,
            LogicalPlan::Join(join)
                if join.join_type == JoinType::Inner && join.null_equality == NullEquality::NullEqualsNull
        );
        Ok(search(found))
    })?;
    Ok(found)
}

fn search(found: bool) -> TreeNodeRecursion {
    if found {
        TreeNodeRecursion::Stop
    } else {
        TreeNodeRecursion::Continue
    }
}

/// True if a node of the plan is such.
fn any_node(
    plan: &Arc<dyn ExecutionPlan>,
    such: &mut dyn FnMut(&Arc<dyn ExecutionPlan>) -> Result<bool>,
) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        found = found || such(node)?;
        Ok(search(found))
    })?;
    Ok(found)
}

/// A join that would hand what it learnt of its keys to rows below that have two columns of one name: the filter is moved from
/// node to node by names, and may end at the wrong column.
fn filters_by_ambiguous_names(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let ambiguous = |node: &Arc<dyn ExecutionPlan>| {
        let schema = node.schema();
        let names: HashSet<_> = schema.fields().iter().map(|field| field.name()).collect();
        Ok(names.len() < schema.fields().len())
    };
    any_node(plan, &mut |node| match node.downcast_ref::<HashJoinExec>() {
        Some(join) => any_node(join.right(), &mut |below| ambiguous(below)),
        None => Ok(false),
    })
}

/// An aggregate with a FILTER above another: the rule would look through the first for statistics that answer the second.
fn filters_above_aggregates(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let is_aggregate = |node: &Arc<dyn ExecutionPlan>| Ok(node.is::<AggregateExec>());
    any_node(plan, &mut |node| match node.downcast_ref::<AggregateExec>() {
        Some(aggregate) if aggregate.filter_expr().iter().any(Option::is_some) => {
            any_node(aggregate.input(), &mut |below| is_aggregate(below))
        }
        _ => Ok(false),
    })
}

/// Sorts what does not come in the order that is asked for. DataFusion's rules push sorts below a UNION ALL and then don't
/// find the order again where a branch has one column twice.
#[derive(Debug)]
struct MissingSorts;

impl PhysicalOptimizerRule for MissingSorts {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let mut sorted = false;
            let mut children = Vec::new();
            for (child, order) in node.children().into_iter().zip(node.required_input_ordering()) {
                let child = Arc::clone(child);
                let Some(order) = order.map(|order| order.into_single()) else {
                    children.push(child);
                    continue;
                };
                if child
                    .equivalence_properties()
                    .ordering_satisfy_requirement(order.clone())?
                {
                    children.push(child);
                    continue;
                }
                let partitions = child.output_partitioning().partition_count();
                let sort = SortExec::new(LexOrdering::from(order), child).with_preserve_partitioning(partitions > 1);
                children.push(Arc::new(sort) as Arc<dyn ExecutionPlan>);
                sorted = true;
            }
            Ok(if sorted {
                Transformed::yes(
                    node.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))?,
                )
            } else {
                Transformed::no(node)
            })
        })
        .data()
    }

    fn name(&self) -> &str {
        "trireme_missing_sorts"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
