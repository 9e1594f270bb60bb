//! The node that runs a graph of fragments in the place of a part of DataFusion's plan.
//!
//! It keeps that part as its backup: when no device can run the graph after all (memory, a lost device, input that isn't as
//! it was described) and no row has been handed out, the backup runs instead, is counted, and is named in EXPLAIN ANALYZE.
//!
//! ```text
//!  FileScans ──ColumnCache──▶ ┐
//!  children  ──StreamBuffer─▶ ├─ fragment 0 ▶ fragment 1 ▶ … ▶ last ──EmitBuffer──▶ stream
//!  parameters ───────────────▶┘                                  └─ failed before the first row ──▶ backup's stream
//! ```

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType, reset_plan_states};
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    ReplaceChildrenOptions, execute_stream,
};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use parking_lot::Mutex;
use trireme_device_api::{ErrorAction, Graph, Value};

use super::run::{Observations, Run, RunError, tell_fallback};
use super::stream::{EmitBuffer, EmitEnd};
use super::{Expectations, FileScan};
use crate::devices::{DeviceChoice, DeviceMode};
use crate::fused::{FragmentRuntime, query_error};
use crate::history::{FragmentRun, Resteer};
use crate::placement::Decided;
use crate::statistics::Statistics;

/// What holds of the values of a plan's rows when its partitions are one: a sort above may count on it.
fn same_values(plan: &Arc<dyn ExecutionPlan>) -> EquivalenceProperties {
    let mut known = plan.properties().equivalence_properties().clone();
    known.clear_per_partition_constants();
    let mut equivalences = EquivalenceProperties::new(plan.schema());
    match equivalences.add_equivalence_group(known.eq_group().clone()) {
        Ok(()) => equivalences,
        Err(_) => EquivalenceProperties::new(plan.schema()),
    }
}

/// What planner decided: the graph and what it runs on.
#[derive(Debug, Clone)]
pub struct FragmentPlan {
    /// The fragments.
    pub graph: Arc<Graph>,
    /// Tables, as the graph's scans.
    pub scans: Vec<FileScan>,
    /// Values of the graph's parameters.
    pub parameters: Vec<Value>,
    /// One line per fragment, for EXPLAIN.
    pub text: Vec<String>,
    /// The rows come in the order that the replaced part promised.
    pub ordered: bool,
    /// For which parameters the graph is a good plan; it is a right one for all.
    pub validity: Arc<dyn PlanValidity>,
    /// How many rows its fragments are expected to have.
    pub expectations: Arc<dyn Expectations>,
    /// Where it runs.
    pub choice: DeviceChoice,
    /// Microseconds that putting fragments into the whole plan took; whoever takes them first leaves 0.
    pub planning_us: Arc<AtomicU64>,
}

/// Says whether a plan that was made for some values of its parameters suits others.
pub trait PlanValidity: fmt::Debug + Send + Sync {
    /// It does.
    fn holds(&self, parameters: &[Value]) -> bool;
}

/// See the module.
pub struct FragmentExec {
    plan: FragmentPlan,
    streams: Vec<Arc<dyn ExecutionPlan>>,
    backup: Arc<dyn ExecutionPlan>,
    runtime: Arc<FragmentRuntime>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    /// Of the latest run.
    observed: Mutex<Arc<Mutex<Observations>>>,
}

impl FragmentExec {
    /// A node in the place of `backup`, with one output partition. `streams` are the graph's streams.
    pub fn new(
        plan: FragmentPlan,
        streams: Vec<Arc<dyn ExecutionPlan>>,
        backup: Arc<dyn ExecutionPlan>,
        runtime: Arc<FragmentRuntime>,
    ) -> Self {
        let mut equivalences = same_values(&backup);
        if let Some(ordering) = backup.properties().output_ordering().filter(|_| plan.ordered) {
            equivalences.add_ordering(ordering.clone());
        }
        let properties = PlanProperties::new(
            equivalences,
            Partitioning::UnknownPartitioning(1),
            EmissionType::Both,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Self {
            plan,
            streams,
            backup,
            runtime,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
            observed: Mutex::default(),
        }
    }

    /// What it runs.
    pub fn plan(&self) -> &FragmentPlan {
        &self.plan
    }

    /// What is known of tables and earlier runs.
    pub fn statistics(&self) -> &Arc<Statistics> {
        self.runtime.statistics()
    }

    /// What it stands for.
    pub fn backup(&self) -> &Arc<dyn ExecutionPlan> {
        &self.backup
    }

    /// The same with other values of the graph's parameters.
    #[must_use]
    pub fn with_parameters(&self, parameters: Vec<Value>, backup: Arc<dyn ExecutionPlan>) -> Self {
        Self {
            plan: FragmentPlan {
                parameters,
                ..self.plan.clone()
            },
            streams: self.streams.clone(),
            backup,
            runtime: Arc::clone(&self.runtime),
            properties: Arc::clone(&self.properties),
            metrics: ExecutionPlanMetricsSet::new(),
            observed: Mutex::default(),
        }
    }

    /// What the cost model says of it, on these devices of the catalogue, or on those that are there.
    ///
    /// # Errors
    /// When a device is not in the catalogue, or nothing can be placed.
    pub fn decide(&self, devices: &[String]) -> std::result::Result<Decided, String> {
        self.runtime.decide(&self.plan, devices)
    }

    /// What its fragments took when they last ran.
    pub fn observed(&self) -> Vec<FragmentRun> {
        let latest = Arc::clone(&self.observed.lock());
        let observed = latest.lock();
        observed.fragments.clone()
    }

    /// How its latest run was placed anew.
    pub fn resteers(&self) -> Vec<Resteer> {
        let latest = Arc::clone(&self.observed.lock());
        let observed = latest.lock();
        observed.resteers.clone()
    }
}

impl fmt::Debug for FragmentExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FragmentExec")
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

impl DisplayAs for FragmentExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let count = self.plan.graph.fragments.len();
        let on = self.runtime.variant_name(&self.plan.choice);
        match format {
            DisplayFormatType::TreeRender => {
                writeln!(f, "on={on}")?;
                for line in &self.plan.text {
                    writeln!(f, "{line}")?;
                }
                Ok(())
            }
            _ => {
                write!(
                    f,
                    "FragmentExec: {on}, fragments={count} [{}]",
                    self.plan.text.join(" | ")
                )
            }
        }
    }
}

impl ExecutionPlan for FragmentExec {
    fn name(&self) -> &'static str {
        "FragmentExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.streams.iter().collect()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(
            self.plan.clone(),
            children,
            Arc::clone(&self.backup),
            Arc::clone(&self.runtime),
        )))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let emit = EmitBuffer::new();
        let observed: Arc<Mutex<Observations>> = Arc::default();
        *self.observed.lock() = Arc::clone(&observed);
        let run = Run {
            plan: self.plan.clone(),
            streams: self.streams.clone(),
            runtime: Arc::clone(&self.runtime),
            context: Arc::clone(&context),
            emit: Arc::clone(&emit),
            elapsed: MetricBuilder::new(&self.metrics).elapsed_compute(partition),
            times: (0..self.plan.graph.fragments.len())
                .map(|id| MetricBuilder::new(&self.metrics).subset_time(format!("fragment_{id}_time"), partition))
                .collect(),
            metrics: self.metrics.clone(),
            observed,
        };
        // Whoever polls the stream runs it: a task of its own would be woken by another thread at the end of every query.
        let outcome = async move {
            // Also when the run panics: the stream would wait for ever.
            let _ends = EmitEnd(Arc::clone(&run.emit));
            run.run().await
        };
        Ok(Box::pin(FragmentStream {
            schema: self.schema(),
            emit,
            source: Source::Device(outcome.boxed()),
            delivered: false,
            require: self.plan.choice.mode == DeviceMode::Require,
            backup: Arc::clone(&self.backup),
            context,
            runtime: Arc::clone(&self.runtime),
            fallbacks: MetricBuilder::new(&self.metrics).global_counter("fallbacks"),
            metrics: self.metrics.clone(),
            output_rows: MetricBuilder::new(&self.metrics).output_rows(partition),
        }))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

enum Source {
    Device(BoxFuture<'static, Result<(), RunError>>),
    /// The run is over; what it gave may not all be taken.
    Over(Result<(), RunError>),
    Backup(SendableRecordBatchStream),
    Ended,
}

struct FragmentStream {
    schema: SchemaRef,
    emit: Arc<EmitBuffer>,
    source: Source,
    delivered: bool,
    require: bool,
    backup: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    runtime: Arc<FragmentRuntime>,
    fallbacks: Count,
    metrics: ExecutionPlanMetricsSet,
    output_rows: Count,
}

impl FragmentStream {
    /// What follows the device's last batch: the end, an error, or the backup's rows.
    fn after(&mut self, outcome: Result<(), RunError>) -> Option<Result<()>> {
        let error = match outcome {
            Ok(()) => {
                self.source = Source::Ended;
                return None;
            }
            Err(RunError::Query(error)) => return Some(Err(error)),
            Err(RunError::Device(error)) => error,
        };
        if error.action() == ErrorAction::Fail || self.delivered || self.require {
            return Some(Err(query_error(&error)));
        }
        self.fallbacks.add(1);
        tell_fallback(&self.metrics, &error.to_string());
        self.runtime.fell_back(&error.to_string());
        // Streams of the graph may be nodes of the backup that have begun already.
        let backup = reset_plan_states(Arc::clone(&self.backup));
        match backup.and_then(|backup| execute_stream(backup, Arc::clone(&self.context))) {
            Ok(stream) => {
                self.source = Source::Backup(stream);
                Some(Ok(()))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

impl Stream for FragmentStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match &mut self.source {
                Source::Ended => return Poll::Ready(None),
                Source::Backup(stream) => return stream.poll_next_unpin(context),
                Source::Device(_) | Source::Over(_) => {}
            }
            if let Poll::Ready(Some((batch, room))) = self.emit.poll_next(context) {
                if room {
                    self.runtime.pool().wake();
                }
                let batch = match batch {
                    Ok(batch) => batch,
                    Err(error) => {
                        self.source = Source::Ended;
                        return Poll::Ready(Some(Err(query_error(&error))));
                    }
                };
                self.delivered = true;
                self.output_rows.add(batch.num_rows());
                return Poll::Ready(Some(as_promised(&batch, &self.schema)));
            }
            match std::mem::replace(&mut self.source, Source::Ended) {
                Source::Device(mut run) => {
                    self.source = match run.poll_unpin(context) {
                        Poll::Ready(outcome) => Source::Over(outcome),
                        Poll::Pending => {
                            self.source = Source::Device(run);
                            return Poll::Pending;
                        }
                    };
                }
                Source::Over(outcome) => {
                    if let Some(Err(error)) = self.after(outcome) {
                        return Poll::Ready(Some(Err(error)));
                    }
                }
                Source::Ended | Source::Backup(_) => {}
            }
        }
    }
}

/// The batch under the schema of the part that the node stands for, which names columns and says which may be NULL.
fn as_promised(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let columns = batch.columns().to_vec();
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(DataFusionError::from)
}

impl RecordBatchStream for FragmentStream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}
