//! DataFusion's rules, each kept from the plans that it would make wrong. `tests/fuzz/README.md` has the statements that show
//! it; a rule that DataFusion mends loses its guard.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, NullEquality, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, cast};
use datafusion::optimizer::optimizer::{ApplyOrder, Optimizer};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::physical_expr::{LexOrdering, LexRequirement};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, ExecutionPlan, ExecutionPlanProperties, ReplaceChildrenOptions,
};

use crate::filter_columns::WholeFilters;
use crate::lists::ListsApart;
use crate::outer_joins::ForgetConstants;

type LogicalRule = Arc<dyn OptimizerRule + Send + Sync>;
type PhysicalRule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// DataFusion's logical rules in their order.
pub fn logical_rules() -> Vec<LogicalRule> {
    let guarded = |rule: LogicalRule| -> LogicalRule {
        let unfit: fn(&LogicalPlan) -> Result<bool> = match rule.name() {
            "push_down_filter" => filters_one_row,
            "eliminate_cross_join" => joins_nulls,
            "extract_equijoin_predicate" => has_keys_of_nulls,
            "single_distinct_aggregation_to_group_by" => return Arc::new(TypesKept { rule }),
            "simplify_expressions" => return Arc::new(ListsApart { rule }),
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
            "aggregate_statistics" => unfit_for_statistics,
            "ProjectionPushdown" => return Some(Arc::new(WholeFilters { rule })),
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
    rules.insert(check.unwrap_or(rules.len()), Arc::new(WholeSorts));
    // First, since the others look at what is constant; and again for what becomes constant when a join's sides change places.
    let swaps = rules.iter().position(|rule| rule.name() == "join_selection");
    rules.insert(swaps.map_or(0, |swaps| swaps + 1), Arc::new(ForgetConstants));
    rules.insert(0, Arc::new(ForgetConstants));
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

/// A rule whose plan gets the types of the plan that it stands for: a sum of sums of decimals has ten digits more than the sum,
/// and what stands above does not expect them.
#[derive(Debug)]
struct TypesKept {
    rule: LogicalRule,
}

impl OptimizerRule for TypesKept {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let wanted = Arc::clone(plan.schema());
        let rewritten = self.rule.rewrite(plan, config)?;
        if !rewritten.transformed {
            return Ok(rewritten);
        }
        rewritten.map_data(|plan| match plan {
            LogicalPlan::Projection(projection) => {
                let typed = |(index, expr): (usize, Expr)| {
                    let data_type = wanted.field(index).data_type();
                    if projection.schema.field(index).data_type() == data_type {
                        return expr;
                    }
                    let (qualifier, field) = wanted.qualified_field(index);
                    let plain = expr.unalias();
                    cast(plain, data_type.clone()).alias_qualified(qualifier.cloned(), field.name())
                };
                let exprs = projection.expr.iter().cloned().enumerate().map(typed).collect();
                Ok(LogicalPlan::Projection(Projection::try_new(exprs, projection.input)?))
            }
            other => Ok(other),
        })
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
    let mut input = filter.input.as_ref();
    // The rule makes one of two filters and goes on.
    while let LogicalPlan::Filter(filter) = input {
        input = filter.input.as_ref();
    }
    let LogicalPlan::Aggregate(aggregate) = input else {
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

/// A join that has keys which match NULLs: an equality that is made a key beside them would too.
fn has_keys_of_nulls(plan: &LogicalPlan) -> Result<bool> {
    Ok(matches!(
        plan,
        LogicalPlan::Join(join) if !join.on.is_empty() && join.null_equality == NullEquality::NullEqualsNull
    ))
}

fn search(found: bool) -> TreeNodeRecursion {
    if found {
        TreeNodeRecursion::Stop
    } else {
        TreeNodeRecursion::Continue
    }
}

/// True if a node of the plan is such.
fn any_node(plan: &Arc<dyn ExecutionPlan>, such: &dyn Fn(&Arc<dyn ExecutionPlan>) -> Result<bool>) -> Result<bool> {
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
    any_node(plan, &|node| match node.downcast_ref::<HashJoinExec>() {
        Some(join) => any_node(join.right(), &ambiguous),
        None => Ok(false),
    })
}

/// The rule that answers aggregates from statistics takes a filter above for none, and a file's count of distinct values for that of
/// the rows that a filter leaves.
fn unfit_for_statistics(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let counts_distinct = |node: &Arc<dyn ExecutionPlan>| {
        let aggregates = node.downcast_ref::<AggregateExec>().map(AggregateExec::aggr_expr);
        Ok(aggregates.is_some_and(|aggregates| aggregates.iter().any(|aggregate| aggregate.is_distinct())))
    };
    Ok(any_node(plan, &counts_distinct)? || filters_above_aggregates(plan)?)
}

/// An aggregate with a FILTER above another: the rule would look through the first for statistics that answer the second.
fn filters_above_aggregates(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let is_aggregate = |node: &Arc<dyn ExecutionPlan>| Ok(node.is::<AggregateExec>());
    any_node(plan, &|node| match node.downcast_ref::<AggregateExec>() {
        Some(aggregate) if aggregate.filter_expr().iter().any(Option::is_some) => {
            any_node(aggregate.input(), &is_aggregate)
        }
        _ => Ok(false),
    })
}

/// Sorts by the whole key, and what does not come in the order that is asked for.
///
/// The partitions of a top-k share what bounds it, also where a constant of each partition of a UNION ALL was left out of the
/// key: rows would be measured by another partition's bound. And sorts that DataFusion's rules push below a UNION ALL are not
/// found again there where a branch has one column twice.
#[derive(Debug)]
struct WholeSorts;

impl PhysicalOptimizerRule for WholeSorts {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let mut changed = false;
            let mut children = Vec::new();
            for (child, order) in node.children().into_iter().zip(node.required_input_ordering()) {
                let order = order.map(|order| order.into_single());
                let sorted = match order {
                    Some(order) => sorted(child, order)?,
                    None => None,
                };
                changed |= sorted.is_some();
                children.push(sorted.unwrap_or_else(|| Arc::clone(child)));
            }
            let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
            Ok(if changed {
                Transformed::yes(node.replace_children(children, options)?)
            } else {
                Transformed::no(node)
            })
        })
        .data()
    }

    fn name(&self) -> &str {
        "trireme_whole_sorts"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The rows in the order that is asked for; none if they come so, whole.
fn sorted(child: &Arc<dyn ExecutionPlan>, order: LexRequirement) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let whole = LexOrdering::from(order.clone());
    let top = child
        .downcast_ref::<SortExec>()
        .filter(|sort| sort.fetch().is_some() && sort.preserve_partitioning());
    if let Some(top) = top
        && top.expr().len() < whole.len()
    {
        let sort = SortExec::new(whole, Arc::clone(top.input()))
            .with_fetch(top.fetch())
            .with_preserve_partitioning(true);
        return Ok(Some(Arc::new(sort)));
    }
    if child.equivalence_properties().ordering_satisfy_requirement(order)? {
        return Ok(None);
    }
    let partitions = child.output_partitioning().partition_count();
    let sort = SortExec::new(whole, Arc::clone(child)).with_preserve_partitioning(partitions > 1);
    Ok(Some(Arc::new(sort)))
}
