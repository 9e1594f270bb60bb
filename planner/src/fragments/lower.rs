//! DataFusion's operators as relations, from the leaves up.
//!
//! What can't be lowered is a stream for what stands above it, with the reason noted.

use std::cell::RefCell;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, NullEquality};
use datafusion::logical_expr::physical_planning_context::SubqueryIndex;
use datafusion::physical_expr::expressions::DynamicFilterPhysicalExpr;
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_expr::{PhysicalExpr, split_conjunction};
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::buffer::BufferExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use trireme_device_api::{Expr, Field, JoinKind, Node, SortKey, Type};
use trireme_exec::operators::{FileColumn, FileScan};
use trireme_exec::statistics::Statistics;

use super::aggregate::{aggregates, gives_states, reading, sort_keys};
use super::expr::{Scope, fused_type, is_infallible, weight};
use super::grouping::{self, Grouping, KnownSets};
use super::join::JoinSpec;
use super::parameter::Parameters;
use super::scalar;
use super::scan::{TableScan, table_scan};
use super::tree::{Join, Op, RelationId, Tree};
use super::{Reason, Scalars};
use crate::outer_joins::NullFilledExec;

/// A plan on its way to relations.
pub(super) struct Lowering<'a> {
    pub(super) tree: Tree,
    pub(super) parameters: RefCell<Parameters>,
    /// Why parts became streams.
    pub(super) reasons: Vec<Reason>,
    /// Scalar subqueries of enclosing plans, innermost last.
    scalars: Vec<Scalars>,
    enclosing: &'a [Scalars],
    pub(super) joins: JoinOrder<'a>,
    /// Grouping sets that stand in the tree.
    sets: KnownSets,
}

type Lowered = Result<RelationId, String>;

/// How joins are ordered.
#[derive(Clone, Copy)]
pub struct JoinOrder<'a> {
    /// By estimated cost; else as DataFusion left them.
    pub by_cost: bool,
    /// Distinct values of a scan's column, if the column cache has counted them.
    pub distinct: &'a dyn Fn(&FileScan, &FileColumn) -> Option<f64>,
    /// What earlier runs and ANALYZE found.
    pub statistics: &'a Arc<Statistics>,
}

/// What expressions are over: a relation, and where DataFusion's columns stand in it.
struct From<'a> {
    relation: RelationId,
    schema: &'a Schema,
    columns: Vec<Expr>,
}

/// The operator below one that only moves rows between partitions, tasks or batches.
pub(super) fn seen_through(plan: &dyn ExecutionPlan) -> Option<&Arc<dyn ExecutionPlan>> {
    if plan.fetch().is_some() {
        return None;
    }
    let moves = plan.is::<RepartitionExec>()
        || plan.is::<CoalescePartitionsExec>()
        || plan.is::<CooperativeExec>()
        || plan.is::<NullFilledExec>()
        || plan.is::<BufferExec>()
        || plan.is::<SortPreservingMergeExec>()
        || matches!(plan.name(), "CoalesceBatchesExec" | "OutputRequirementExec");
    if moves { plan.children().first().copied() } else { None }
}

/// Whether a plan sorts rows itself.
fn sorts(plan: &dyn ExecutionPlan) -> bool {
    plan.is::<SortExec>()
        || plan.is::<SortPreservingMergeExec>()
        || plan.children().into_iter().any(|child| sorts(child.as_ref()))
}

/// The columns of a plan's schema, or the type that no fragment takes.
pub(super) fn fused_fields(schema: &Schema) -> Result<Vec<Field>, String> {
    schema
        .fields()
        .iter()
        .map(|field| {
            Ok(Field {
                name: field.name().clone(),
                data_type: fused_type(field.data_type())?,
                nullable: field.is_nullable(),
            })
        })
        .collect()
}

impl<'a> Lowering<'a> {
    pub(super) fn new(enclosing: &'a [Scalars], joins: JoinOrder<'a>) -> Self {
        Self {
            tree: Tree::default(),
            parameters: RefCell::default(),
            reasons: Vec::new(),
            scalars: Vec::new(),
            enclosing,
            joins,
            sets: KnownSets::new(),
        }
    }

    /// The relation of an operator, or why it has none.
    pub(super) fn node(&mut self, plan: &dyn ExecutionPlan) -> Lowered {
        if let Some(scan) = table_scan(plan) {
            return self.scan(scan?, &plan.schema());
        }
        if let Some(filter) = plan.downcast_ref::<FilterExec>() {
            return self.filter(filter);
        }
        if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
            let exprs: Vec<_> = projection.expr().iter().map(|expr| Arc::clone(&expr.expr)).collect();
            let (input, exprs) = self.widened(projection.input(), &exprs)?;
            return Ok(self.tree.project(input, exprs, fused_fields(&plan.schema())?));
        }
        if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
            return self.aggregate(aggregate, &plan.schema());
        }
        if let Some(sort) = plan.downcast_ref::<SortExec>() {
            return self.sort(sort.input(), sort.expr(), sort.fetch());
        }
        if let Some(merge) = plan.downcast_ref::<SortPreservingMergeExec>() {
            return self.sort(merge.input(), merge.expr(), merge.fetch());
        }
        if let Some(limit) = plan.downcast_ref::<GlobalLimitExec>() {
            let input = self.input(limit.input())?;
            return self.limited(input, limit.input().as_ref(), limit.fetch(), limit.skip());
        }
        if let Some(limit) = plan.downcast_ref::<LocalLimitExec>() {
            let input = self.input(limit.input())?;
            return self.limited(input, limit.input().as_ref(), Some(limit.fetch()), 0);
        }
        if let Some(subqueries) = plan.downcast_ref::<ScalarSubqueryExec>() {
            self.scalars.push(Scalars::of(subqueries));
            let input = self.node(subqueries.input().as_ref());
            self.scalars.pop();
            return input;
        }
        if let Some(limit) = plan
            .downcast_ref::<CoalescePartitionsExec>()
            .and_then(|plan| plan.fetch())
        {
            let input = self.input(plan.children()[0])?;
            return Ok(self.tree.limit(input, Some(limit), 0));
        }
        if let Some(below) = seen_through(plan) {
            return self.node(below.as_ref());
        }
        self.any_join(plan)
    }

    /// The relation of an operator, or a stream of its rows.
    pub(super) fn input(&mut self, plan: &Arc<dyn ExecutionPlan>) -> Lowered {
        if let Some(below) = seen_through(plan.as_ref())
            && !plan.is::<SortPreservingMergeExec>()
        {
            return self.input(below);
        }
        let noted = self.reasons.len();
        let reason = match self.node(plan.as_ref()) {
            Ok(relation) => return Ok(relation),
            Err(reason) => reason,
        };
        // What was noted below is noted again when the stream's own operators are looked at.
        self.reasons.truncate(noted);
        if self.reads_scalars(plan) {
            return Err(format!("{} reads a scalar subquery: {reason}", plan.name()));
        }
        let fields = fused_fields(&plan.schema())?;
        if !is_quiet(plan) {
            self.reasons.push(Reason::new(plan.as_ref(), reason));
        }
        Ok(self.tree.add(Op::Stream(Arc::clone(plan)), fields))
    }

    /// True when a plan's expressions read values that only a node above it makes, which is part of the graph and so will not
    /// make them.
    fn reads_scalars(&self, plan: &Arc<dyn ExecutionPlan>) -> bool {
        let mut found = false;
        let walked = plan.apply(|node| {
            node.apply_expressions(&mut |expr| {
                let reads = |subquery: &&ScalarSubqueryExpr| {
                    self.scalars.iter().any(|scalars| scalars.find(subquery).is_some())
                };
                found |= subqueries_of(expr).iter().any(reads);
                Ok(TreeNodeRecursion::Continue)
            })
        });
        found || walked.is_err()
    }

    /// Expressions over a relation's columns.
    pub(super) fn exprs(&self, input: RelationId, exprs: &[Arc<dyn PhysicalExpr>]) -> Result<Vec<Expr>, String> {
        let schema = self.schema(input);
        let columns = self.tree.columns(input);
        let scope = self.scope(&schema, &columns);
        exprs.iter().map(|expr| scope.lower(expr)).collect()
    }

    fn scope<'s>(&'s self, schema: &'s Schema, columns: &'s [Expr]) -> Scope<'s> {
        Scope {
            schema,
            columns,
            subquery: &|_| None,
            parameters: &self.parameters,
        }
    }

    fn schema(&self, relation: RelationId) -> Schema {
        Field::schema(self.tree.fields(relation)).as_ref().clone()
    }

    fn scan(&mut self, scan: TableScan, schema: &Schema) -> Lowered {
        let TableScan {
            mut scan,
            nullable,
            table,
            positions,
            projection,
            kept,
            predicate,
            limit,
        } = scan;
        scan.statistics.sketch = self.joins.statistics.sketches.get(scan.version());
        if scan.statistics.sketch.is_none() {
            let mut columns = std::mem::take(&mut scan.statistics.columns);
            for (column, known) in scan.columns.iter().zip(&mut columns) {
                if known.distinct.is_none() {
                    known.distinct = (self.joins.distinct)(&scan, column);
                    known.cached = known.distinct.is_some();
                }
            }
            scan.statistics.columns = columns;
        }
        let mut relation = self.tree.scan(scan, &nullable);
        let all = self.tree.columns(relation);
        if let Some(kept) = kept {
            relation = self.tree.filter(relation, vec![all[kept].clone()]);
        }
        // Columns that nobody reads stand for nothing.
        let columns: Vec<_> = positions
            .iter()
            .map(|position| position.map_or_else(|| Expr::column(usize::MAX, Type::Null), |at| all[at].clone()))
            .collect();
        if let Some(predicate) = &predicate {
            let from = From {
                relation,
                schema: &table,
                columns: columns.clone(),
            };
            relation = self.filtered(from, conjuncts(predicate))?;
        }
        relation = self.tree.limit(relation, limit, 0);
        let Some(projection) = projection else {
            let own: Option<Vec<usize>> = kept.map(|kept| (0..kept).collect());
            return Ok(own.map_or(relation, |own| self.tree.pick(relation, &own)));
        };
        let from = From {
            relation,
            schema: &table,
            columns,
        };
        let (relation, exprs) = self.with_scalars(from, &projection)?;
        let fields = fused_fields(schema)?;
        Ok(self.tree.project(relation, exprs, fields))
    }

    fn filter(&mut self, filter: &FilterExec) -> Lowered {
        let input = self.input(filter.input())?;
        let schema = self.schema(input);
        let from = From {
            relation: input,
            schema: &schema,
            columns: self.tree.columns(input),
        };
        let mut relation = self.filtered(from, conjuncts(filter.predicate()))?;
        if let Some(projection) = filter.projection() {
            relation = self.tree.pick(relation, projection);
        }
        self.limited(relation, filter, ExecutionPlan::fetch(filter), 0)
    }

    /// Filters, with those that read scalar subqueries last.
    fn filtered(&mut self, mut from: From<'_>, conjuncts: Vec<Arc<dyn PhysicalExpr>>) -> Lowered {
        let (scalar, plain): (Vec<_>, Vec<_>) = conjuncts
            .into_iter()
            .partition(|conjunct| !subqueries_of(conjunct).is_empty());
        let scope = self.scope(from.schema, &from.columns);
        let plain = plain.iter().map(|expr| scope.lower(expr)).collect::<Result<_, _>>()?;
        from.relation = self.tree.filter(from.relation, in_order(plain));
        if scalar.is_empty() {
            return Ok(from.relation);
        }
        let width = self.tree.fields(from.relation).len();
        let (wide, predicates) = self.with_scalars(from, &scalar)?;
        let filtered = self.tree.filter(wide, in_order(predicates));
        Ok(self.tree.pick(filtered, &(0..width).collect::<Vec<_>>()))
    }

    fn aggregate(&mut self, aggregate: &AggregateExec, schema: &SchemaRef) -> Lowered {
        if gives_states(aggregate) {
            return Err("it gives partial states".to_owned());
        }
        let reading = reading(aggregate)?;
        let by = reading.group_expr();
        let keys: Vec<_> = by.expr().iter().map(|(expr, _)| Arc::clone(expr)).collect();
        let (input, keys) = self.widened(reading.input(), &keys)?;
        let input = self.tree.unordered(input);
        let input_schema = self.schema(input);
        let columns = self.tree.columns(input);
        let scope = self.scope(&input_schema, &columns);
        let aggregates = aggregates(aggregate, reading, &scope)?;
        let fields = fused_fields(schema)?;
        if by.has_grouping_set() {
            let grouping = Grouping {
                keys,
                sets: by.groups(),
                aggregates,
                fields,
            };
            return grouping::aggregated(&mut self.tree, &mut self.sets, input, grouping);
        }
        let op = Op::Aggregate {
            input,
            groups: keys,
            aggregates,
        };
        Ok(self.tree.add(op, fields))
    }

    fn sort<'k>(
        &mut self,
        input: &Arc<dyn ExecutionPlan>,
        keys: impl IntoIterator<Item = &'k datafusion::physical_expr::PhysicalSortExpr>,
        fetch: Option<usize>,
    ) -> Lowered {
        let input = self.input(input)?;
        let keys = self.sort_keys(input, keys)?;
        Ok(self.tree.sort(input, keys, fetch))
    }

    pub(super) fn sort_keys<'k>(
        &self,
        input: RelationId,
        keys: impl IntoIterator<Item = &'k datafusion::physical_expr::PhysicalSortExpr>,
    ) -> Result<Vec<SortKey>, String> {
        let schema = self.schema(input);
        let columns = self.tree.columns(input);
        let scope = self.scope(&schema, &columns);
        sort_keys(keys, &scope)
    }

    fn any_join(&mut self, plan: &dyn ExecutionPlan) -> Lowered {
        let mark = |join_type: JoinType| {
            matches!(join_type, JoinType::LeftMark | JoinType::RightMark).then(|| Field {
                name: "mark".to_owned(),
                data_type: Type::Boolean,
                nullable: false,
            })
        };
        let mut spec = JoinSpec {
            join_type: JoinType::Inner,
            on: &[],
            filter: None,
            null_equality: NullEquality::NullEqualsNothing,
            null_aware: false,
            projection: None,
            mark: None,
        };
        if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
            spec.join_type = join.join_type;
            spec.on = &join.on;
            spec.filter = join.filter.as_ref();
            spec.null_equality = join.null_equality;
            spec.null_aware = join.null_aware;
            spec.projection = join.projection.as_deref();
        } else if let Some(join) = plan.downcast_ref::<SortMergeJoinExec>() {
            spec.join_type = join.join_type();
            spec.on = join.on();
            spec.filter = join.filter().as_ref();
            spec.null_equality = join.null_equality();
        } else if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
            spec.join_type = *join.join_type();
            spec.filter = join.filter();
            spec.projection = join.projection().as_deref();
        } else if !plan.is::<CrossJoinExec>() {
            return Err("it is not among the fused operators".to_owned());
        }
        spec.mark = mark(spec.join_type);
        let children = plan.children();
        let (left, right) = (self.input(children[0])?, self.input(children[1])?);
        let right = match children[1].output_ordering() {
            Some(order)
                if plan.maintains_input_order()[1] && !self.tree.is_sorted(right) && sorts(children[1].as_ref()) =>
            {
                let keys = self.sort_keys(right, order)?;
                self.tree.sort(right, keys, None)
            }
            _ => right,
        };
        let joined = self.join(left, right, &spec)?;
        self.limited(joined, plan, plan.fetch(), 0)
    }

    /// At most `limit` of an operator's rows after `skip`. Which rows those are may hang on an order that the operator keeps from
    /// a sort below it; a relation keeps none, so that it is sorted anew.
    fn limited(
        &mut self,
        relation: RelationId,
        plan: &dyn ExecutionPlan,
        limit: Option<usize>,
        skip: usize,
    ) -> Lowered {
        let limits = limit.is_some() || skip > 0;
        let kept = plan
            .output_ordering()
            .filter(|_| limits && !self.tree.is_sorted(relation));
        let Some(order) = kept else {
            return Ok(self.tree.limit(relation, limit, skip));
        };
        if !sorts(plan) {
            return Err("the limit takes rows in the order of their files".to_owned());
        }
        let keys = self.sort_keys(relation, order)?;
        let sorted = self.tree.sort(relation, keys, None);
        Ok(self.tree.limit(sorted, limit, skip))
    }

    /// The input and expressions over it, with a column more for each scalar subquery that they read.
    fn widened(
        &mut self,
        input: &Arc<dyn ExecutionPlan>,
        exprs: &[Arc<dyn PhysicalExpr>],
    ) -> Result<(RelationId, Vec<Expr>), String> {
        let relation = self.input(input)?;
        let schema = self.schema(relation);
        let from = From {
            relation,
            schema: &schema,
            columns: self.tree.columns(relation),
        };
        self.with_scalars(from, exprs)
    }

    fn with_scalars(
        &mut self,
        from: From<'_>,
        exprs: &[Arc<dyn PhysicalExpr>],
    ) -> Result<(RelationId, Vec<Expr>), String> {
        let mut wide = from.relation;
        let mut values: Vec<(&ScalarSubqueryExpr, Expr)> = Vec::new();
        for found in exprs.iter().flat_map(subqueries_of) {
            if !values.iter().any(|(known, _)| same_subquery(known, found)) {
                let (next, value) = self.scalar(wide, found)?;
                wide = next;
                values.push((found, value));
            }
        }
        let scope = Scope {
            subquery: &|found| {
                let value = values.iter().find(|(known, _)| same_subquery(known, found));
                value.map(|(_, value)| value.clone())
            },
            ..self.scope(from.schema, &from.columns)
        };
        let exprs = exprs.iter().map(|expr| scope.lower(expr)).collect::<Result<_, _>>()?;
        Ok((wide, exprs))
    }

    /// The relation with the subquery's value as one more column, and that column; or the value, when it is a constant.
    fn scalar(&mut self, input: RelationId, found: &ScalarSubqueryExpr) -> Result<(RelationId, Expr), String> {
        let own = self.scalars.iter().rev().find_map(|scalars| scalars.find(found));
        let outer = || self.enclosing.iter().rev().find_map(|scalars| scalars.find(found));
        let is_outer = own.is_none();
        let link = own.or_else(outer).ok_or("a scalar subquery of an outer plan")?;
        let build = self.input(&link)?;
        // The outer plan runs its operators too, and some run only once.
        if is_outer && self.tree.reads_stream(build) {
            return Err("a scalar subquery that runs in an outer plan is not fused".to_owned());
        }
        let bounds = self.tree.row_bounds(build);
        if let (Op::Project { exprs, .. }, (1, Some(1))) = (&self.tree.get(build).op, bounds)
            && let Some(Expr {
                node: Node::Literal(_), ..
            }) = exprs.first()
        {
            return Ok((input, exprs[0].clone()));
        }
        let build = self.tree.pick(build, &[0]);
        let (build, kind) = match bounds {
            (1, Some(1)) => (build, JoinKind::Inner),
            (_, Some(0 | 1)) => (build, JoinKind::Left),
            _ => (scalar::at_most_one_row(&mut self.tree, build), JoinKind::Inner),
        };
        let joined = self.tree.join(
            Join {
                probe: input,
                build,
                kind,
                probe_keys: Vec::new(),
                build_keys: Vec::new(),
                residual: None,
                null_equals_null: false,
                null_aware: false,
            },
            None,
        );
        let value = self
            .tree
            .columns(joined)
            .pop()
            .ok_or("a scalar subquery without column")?;
        Ok((joined, value))
    }
}

impl Scalars {
    pub(super) fn of(plan: &ScalarSubqueryExec) -> Self {
        Self {
            results: plan.results().clone(),
            links: plan.subqueries().to_vec(),
        }
    }

    fn find(&self, found: &ScalarSubqueryExpr) -> Option<Arc<dyn ExecutionPlan>> {
        let mine = self.results == *found.results();
        let link = self.links.iter().find(|link| mine && link.index == index_of(found));
        link.map(|link| Arc::clone(&link.plan))
    }
}

fn same_subquery(a: &ScalarSubqueryExpr, b: &ScalarSubqueryExpr) -> bool {
    a.results() == b.results() && index_of(a) == index_of(b)
}

#[expect(deprecated, reason = "nothing else tells which of a plan's subqueries it is")]
fn index_of(found: &ScalarSubqueryExpr) -> SubqueryIndex {
    found.index()
}

/// The parts of a conjunction, without filters that only prune.
fn conjuncts(predicate: &Arc<dyn PhysicalExpr>) -> Vec<Arc<dyn PhysicalExpr>> {
    split_conjunction(predicate)
        .into_iter()
        .filter(|conjunct| !conjunct.is::<DynamicFilterPhysicalExpr>())
        .cloned()
        .collect()
}

/// Those that can't fail first, the cheapest of them before the others; those that can, in the order in which they stand.
fn in_order(predicates: Vec<Expr>) -> Vec<Expr> {
    let (mut safe, fallible): (Vec<_>, Vec<_>) = predicates.into_iter().partition(is_infallible);
    safe.sort_by_key(weight);
    safe.extend(fallible);
    safe
}

fn subqueries_of(expr: &Arc<dyn PhysicalExpr>) -> Vec<&ScalarSubqueryExpr> {
    if let Some(found) = expr.downcast_ref::<ScalarSubqueryExpr>() {
        return vec![found];
    }
    expr.children().into_iter().flat_map(subqueries_of).collect()
}

/// Operators of which saying why they stay helps nobody: leaves that hold no table, ends of plans, and those whose reason is
/// that of the operator below.
pub(super) fn is_quiet(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let name = plan.name();
    matches!(name, "EmptyExec" | "PlaceholderRowExec" | "WorkTableExec")
        || matches!(name, "ExplainExec" | "AnalyzeExec" | "DataSinkExec")
        || seen_through(plan.as_ref()).is_some() && !plan.is::<SortPreservingMergeExec>()
}
