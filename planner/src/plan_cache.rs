//! The plan cache: queries that differ only in constants share one plan.
//!
//! ```text
//!  text ─parse─▶ shape + values ─▶ [ entries ] ── same tables, settings, rights ──▶ fragments with the values: no planning
//!                                       └─ first seen: noted; seen again: planned once more without values, and kept
//! ```
//!
//! Only plans that are one graph of fragments without streams are kept: every value then enters where kernels are prepared.
//! A plan is used while each of its tables is the same object of the catalog, which makes a new one when files change, and for
//! values that don't change by much how many rows its scans are expected to give; others are planned as they come. It is made
//! anew when what its runs counted would have ordered its joins otherwise (`anew`).

mod anew;
pub mod shape;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::{FunctionRegistry, SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    ReplaceChildrenOptions, execute_stream,
};
use datafusion::sql::parser::Statement;
use datafusion::sql::resolve::resolve_table_references;
use futures::TryStreamExt;
use trireme_exec::QueryError;
use trireme_exec::operators::FragmentExec;

use crate::fragments::ParameterFunction;
use crate::options::TriremeOptions;
use crate::{functions, physical};
use anew::MadeBy;
use shape::Shape;

/// What identifies a cached plan: whose session it is for, and the shape.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PlanKey {
    /// Schema, settings, user and the state of user-defined functions, as text.
    pub session: String,
    /// The shape's text.
    pub shape: String,
}

/// Cached plans by shape.
pub struct PlanCache {
    entries: moka::sync::Cache<PlanKey, Entry>,
    hits: AtomicU64,
    misses: AtomicU64,
    replanned: AtomicU64,
}

#[derive(Clone)]
enum Entry {
    Seen,
    Refused(Arc<str>),
    Kept(Arc<Kept>),
}

struct Kept {
    plan: Arc<dyn ExecutionPlan>,
    schema: SchemaRef,
    tables: Vec<(TableReference, Arc<dyn TableProvider>)>,
    hits: AtomicU64,
    made_by: MadeBy,
}

/// What the cache says to a query.
pub enum Cached {
    /// A plan with the query's values, and its schema.
    Plan(Arc<dyn ExecutionPlan>, SchemaRef),
    /// Nothing yet; plan it, then [`PlanCache::learn`].
    Learn,
    /// Nothing, and nothing to learn.
    Plain,
}

/// A line of `system.plans`.
#[derive(Debug, Clone)]
pub struct PlanRow {
    /// The shape.
    pub shape: String,
    /// `kept`, `seen once`, or why it isn't kept.
    pub state: String,
    /// Uses of the plan.
    pub hits: u64,
    /// Times that it was made anew because other rows were counted than it was made by.
    pub made_anew: u64,
}

impl PlanCache {
    /// A cache of at most so many shapes; 0 is none.
    pub fn new(shapes_max: u64) -> Self {
        Self {
            entries: moka::sync::Cache::new(shapes_max),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            replanned: AtomicU64::new(0),
        }
    }

    /// Hits and misses.
    pub fn counts(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    /// Kept plans that were made anew.
    pub fn replanned(&self) -> u64 {
        self.replanned.load(Ordering::Relaxed)
    }

    /// Every shape.
    pub fn rows(&self) -> Vec<PlanRow> {
        let mut rows: Vec<_> = self
            .entries
            .iter()
            .map(|(key, entry)| {
                let (state, hits) = match &entry {
                    Entry::Seen => ("seen once".to_owned(), 0),
                    Entry::Refused(reason) => (reason.to_string(), 0),
                    Entry::Kept(kept) => ("kept".to_owned(), kept.hits.load(Ordering::Relaxed)),
                };
                PlanRow {
                    shape: key.shape.clone(),
                    state,
                    hits,
                    made_anew: match entry {
                        Entry::Kept(kept) => kept.made_by.times.into(),
                        _ => 0,
                    },
                }
            })
            .collect();
        rows.sort_by(|a, b| b.hits.cmp(&a.hits).then_with(|| a.shape.cmp(&b.shape)));
        rows
    }

    /// The plan of a shape for these values, if there is a valid one.
    pub async fn lookup(
        &self,
        key: &PlanKey,
        state: &Arc<SessionState>,
        shape: &Shape,
        original: &Statement,
    ) -> Cached {
        let entry = self.entries.get(key);
        let Some(Entry::Kept(kept)) = entry else {
            self.misses.fetch_add(1, Ordering::Relaxed);
            return match entry {
                None => {
                    self.entries.insert(key.clone(), Entry::Seen);
                    Cached::Plain
                }
                Some(Entry::Refused(_)) => Cached::Plain,
                _ => Cached::Learn,
            };
        };
        if !kept.is_current(state).await {
            self.misses.fetch_add(1, Ordering::Relaxed);
            self.entries.insert(key.clone(), Entry::Seen);
            return Cached::Learn;
        }
        let kept = self.up_to_date(key, state, kept).await;
        let Some(node) = kept.node() else {
            return Cached::Plain;
        };
        if !node.plan().validity.holds(&shape.values) {
            self.misses.fetch_add(1, Ordering::Relaxed);
            return Cached::Plain;
        }
        self.hits.fetch_add(1, Ordering::Relaxed);
        let backup = Arc::new(ReplannedExec::new(
            Arc::clone(state),
            original.clone(),
            kept.plan.schema(),
        ));
        let plan = node.with_parameters(shape.values.clone(), backup);
        Cached::Plan(Arc::new(plan), Arc::clone(&kept.schema))
    }

    /// The plan that is used now: what is kept, or made anew.
    async fn up_to_date(&self, key: &PlanKey, state: &Arc<SessionState>, kept: Arc<Kept>) -> Arc<Kept> {
        // One of those who use it at the same time finds each number.
        let uses = kept.hits.fetch_add(1, Ordering::Relaxed) + 1;
        if !kept.node().is_some_and(|node| kept.made_by.is_outdated(node, uses)) {
            return kept;
        }
        let Ok(mut anew) = keep(state, &kept.made_by.shape, &kept.schema).await else {
            return kept;
        };
        self.replanned.fetch_add(1, Ordering::Relaxed);
        anew.made_by.times = kept.made_by.times + 1;
        anew.hits = AtomicU64::new(uses);
        let anew = Arc::new(anew);
        self.entries.insert(key.clone(), Entry::Kept(Arc::clone(&anew)));
        anew
    }

    /// The columns of a shape whose plan is kept and may be used: they are the same for all values.
    pub async fn schema(&self, key: &PlanKey, state: &SessionState) -> Option<SchemaRef> {
        let Some(Entry::Kept(kept)) = self.entries.get(key) else {
            return None;
        };
        kept.is_current(state).await.then(|| Arc::clone(&kept.schema))
    }

    /// Plans a shape without its values and keeps the plan if it may be used for all values. `schema` is what the query's
    /// ordinary plan promised.
    pub async fn learn(&self, key: PlanKey, state: &Arc<SessionState>, shape: &Shape, schema: &SchemaRef) {
        let entry = match keep(state, shape, schema).await {
            Ok(kept) => Entry::Kept(Arc::new(kept)),
            Err(reason) => Entry::Refused(reason.into()),
        };
        self.entries.insert(key, entry);
    }
}

impl Kept {
    fn node(&self) -> Option<&FragmentExec> {
        self.plan.downcast_ref()
    }

    /// Its tables are those that it was planned for.
    async fn is_current(&self, state: &SessionState) -> bool {
        for (name, provider) in &self.tables {
            let current = table(state, name).await;
            if !current.is_some_and(|current| Arc::ptr_eq(&current, provider)) {
                return false;
            }
        }
        true
    }
}

async fn table(state: &SessionState, name: &TableReference) -> Option<Arc<dyn TableProvider>> {
    let catalog = &state.config_options().catalog;
    let resolved = name.clone().resolve(&catalog.default_catalog, &catalog.default_schema);
    let schema = state
        .catalog_list()
        .catalog(&resolved.catalog)?
        .schema(&resolved.schema)?;
    schema.table(&resolved.table).await.ok().flatten()
}

async fn keep(state: &Arc<SessionState>, shape: &Shape, schema: &SchemaRef) -> Result<Kept, String> {
    let text = |error: QueryError| error.message;
    let mut planning = state.as_ref().clone();
    planning
        .register_udf(Arc::new(ParameterFunction::udf(&shape.values)))
        .map_err(|error| error.strip_backtrace())?;
    let (names, _) = resolve_table_references(&shape.statement, true).map_err(|error| error.strip_backtrace())?;
    let mut tables = Vec::with_capacity(names.len());
    for name in names {
        let Some(provider) = table(&planning, &name).await else {
            return Err("it reads something that is no table".to_owned());
        };
        if provider.get_logical_plan().is_some() {
            return Err("it reads a view".to_owned());
        }
        tables.push((name, provider));
    }
    let plan = functions::query_to_plan(&planning, shape.statement.clone())
        .await
        .map_err(|error| format!("its constants decide its plan: {}", error.strip_backtrace()))?;
    let analyzed = physical::analyze(&planning, &plan).map_err(text)?;
    if physical::reads_clock(&analyzed).map_err(text)? {
        return Err("it reads the clock".to_owned());
    }
    let plan = physical::physical_plan(&planning, analyzed).await.map_err(text)?;
    let Some(node) = plan.downcast_ref::<FragmentExec>() else {
        return Err("it is not fused as a whole".to_owned());
    };
    if !node.children().is_empty() {
        return Err("it is not fused as a whole".to_owned());
    }
    if !same_columns(&plan.schema(), schema) {
        return Err("its constants decide its columns".to_owned());
    }
    let made_by = MadeBy::of(node, shape, 0);
    Ok(Kept {
        made_by,
        plan,
        schema: Arc::clone(schema),
        tables,
        hits: AtomicU64::new(0),
    })
}

/// Same names; same types but for how strings are laid out, which the output is conformed to anyway.
fn same_columns(planned: &SchemaRef, promised: &SchemaRef) -> bool {
    planned.fields().len() == promised.fields().len()
        && planned
            .fields()
            .iter()
            .zip(promised.fields())
            .all(|(planned, promised)| planned.name() == promised.name())
}

/// Plans a statement when it is run, by DataFusion's operators alone: the backup of a cached plan.
struct ReplannedExec {
    state: Arc<SessionState>,
    statement: Statement,
    properties: Arc<PlanProperties>,
}

impl ReplannedExec {
    fn new(state: Arc<SessionState>, statement: Statement, schema: SchemaRef) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Both,
            Boundedness::Bounded,
        );
        Self {
            state,
            statement,
            properties: Arc::new(properties),
        }
    }
}

impl fmt::Debug for ReplannedExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplannedExec")
    }
}

impl DisplayAs for ReplannedExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("ReplannedExec")
    }
}

impl ExecutionPlan for ReplannedExec {
    fn name(&self) -> &'static str {
        "ReplannedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let mut state = self.state.as_ref().clone();
        let statement = self.statement.clone();
        let rows = async move {
            if let Some(options) = state.config_mut().options_mut().extensions.get_mut::<TriremeOptions>() {
                "datafusion".clone_into(&mut options.cpu_variant);
            }
            let plan = functions::query_to_plan(&state, statement).await?;
            let plan = state.create_physical_plan(&plan).await?;
            execute_stream(plan, context)
        };
        let schema = self.schema();
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            schema,
            futures::stream::once(rows).try_flatten(),
        )))
    }
}
