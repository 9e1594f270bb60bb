//! What running graphs takes: worker threads, the devices' variants, the column cache, and memory from the query's pool.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::BooleanBufferBuilder;
use arrow::buffer::BooleanBuffer;
use arrow::error::ArrowError;
use datafusion::common::ScalarValue;
use datafusion::datasource::physical_plan::parquet::ParquetRowSelection;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use parking_lot::Mutex;
use trireme_columns::{
    ColumnCache, ColumnRequest, ColumnSource as Source, OpenOptions, SavedGraph, SavedScan, TableFile, TableFiles,
};
use trireme_device_api::{
    DeviceError, DevicePool, Graph, Inputs, Kernel, Output, Rows, ScanInput, Source as GraphSource, Support, Value,
    Variant,
};

use trireme_lake::{Account, Lake};

use crate::choose::{Placing, PlacingCounts};
use crate::costs::CostModel;
use crate::devices::Devices;
use crate::error::{DAMAGED_HINT, ErrorClass, QueryError};
use crate::graph::{GraphKernel, Hooks};
use crate::history::{History, Resteer};
use crate::io::{StoreRegistry, is_from_log};
use crate::load::Load;
use crate::operators::{ColumnSource, FileScan, FragmentPlan};
use crate::placement::Placement;
use crate::pool::WorkerPool;
use crate::statistics::{FeedbackCounts, Statistics};

/// What is known of devices' costs and of tables' rows.
pub struct Known {
    /// See [`CostModel`].
    pub costs: CostModel,
    /// See [`Statistics`].
    pub statistics: Arc<Statistics>,
}

/// Runs graphs; one per process.
pub struct FragmentRuntime {
    pool: Arc<WorkerPool>,
    variant: Arc<dyn Variant>,
    columns: Arc<ColumnCache>,
    lake: Arc<Lake>,
    devices: Devices,
    costs: CostModel,
    load: Arc<Load>,
    placing: Placing,
    planning: Placing,
    statistics: Arc<Statistics>,
    history: History,
    /// Where graphs that run are written.
    graph_dir: Option<PathBuf>,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    graphs: AtomicU64,
    fallbacks: AtomicU64,
    resteers: AtomicU64,
    shared: AtomicU64,
    shared_rows: AtomicU64,
    last_fallback: Mutex<Option<String>>,
}

/// What has run so far.
#[derive(Debug, Clone, Default)]
pub struct FragmentCounts {
    /// Graphs that were started.
    pub graphs: u64,
    /// Graphs whose backup ran instead.
    pub fallbacks: u64,
    /// Times that a running graph was placed anew.
    pub resteers: u64,
    /// Fragments of which a device ran some of the rows, and these rows.
    pub shared: u64,
    /// See above.
    pub shared_rows: u64,
    /// Why the last fallback was.
    pub last_fallback: Option<String>,
    /// How long choosing where they run has taken.
    pub placing: PlacingCounts,
    /// Putting fragments into plans.
    pub planning: PlacingCounts,
    /// What was learned of their rows.
    pub feedback: FeedbackCounts,
}

impl FragmentRuntime {
    /// A runtime over these parts; `variant` is the processor's. Graphs that run are written to `graph_dir`.
    pub fn new(
        pool: Arc<WorkerPool>,
        variant: Arc<dyn Variant>,
        columns: Arc<ColumnCache>,
        lake: Arc<Lake>,
        devices: Devices,
        known: Known,
        graph_dir: Option<PathBuf>,
    ) -> Arc<Self> {
        let Known { costs, statistics } = known;
        Arc::new(Self {
            pool,
            variant,
            columns,
            lake,
            devices,
            costs,
            load: Arc::default(),
            placing: Placing::default(),
            planning: Placing::default(),
            statistics,
            history: History::default(),
            graph_dir,
            counters: Counters::default(),
        })
    }

    /// The threads.
    pub fn pool(&self) -> &Arc<WorkerPool> {
        &self.pool
    }

    /// The column cache.
    pub fn columns(&self) -> &Arc<ColumnCache> {
        &self.columns
    }

    /// The devices beside the processor.
    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// What running on each device costs.
    pub fn costs(&self) -> &CostModel {
        &self.costs
    }

    /// The processor's variant.
    pub(crate) fn host(&self) -> &Arc<dyn Variant> {
        &self.variant
    }

    /// What running graphs take of the devices.
    pub(crate) fn load(&self) -> &Arc<Load> {
        &self.load
    }

    /// How long choosing where they run takes.
    /// Takes how long fragments took to be put into a plan.
    pub fn planned_in(&self, took: Duration) {
        self.planning.add(took);
    }

    pub(crate) fn placing(&self) -> &Placing {
        &self.placing
    }

    /// What is known of tables and plans.
    pub fn statistics(&self) -> &Arc<Statistics> {
        &self.statistics
    }

    /// What ran.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Writes a graph that runs over local files, where a folder for them is set.
    pub(crate) fn save(&self, plan: &FragmentPlan) {
        let Some(folder) = &self.graph_dir else { return };
        let local = |scan: &FileScan| {
            let files = scan
                .files
                .iter()
                .map(|file| PathBuf::from(format!("/{}", file.object_meta.location)));
            let columns = scan
                .columns
                .iter()
                .map(|column| (column.name.clone(), column.data_type.clone()));
            SavedScan {
                name: scan.name.clone(),
                files: files.collect(),
                columns: columns.collect(),
            }
        };
        let saved = SavedGraph {
            graph: plan.graph.as_ref().clone(),
            scans: plan.scans.iter().map(local).collect(),
            parameters: plan.parameters.clone(),
        };
        let name = format!("graph-{}.json", self.counters.graphs.load(Ordering::Relaxed));
        // Only benchmarks read them; a query doesn't fail for it.
        if let Ok(text) = serde_json::to_vec(&saved) {
            let _ = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(folder.join(name), text));
        }
    }

    /// The first fragment that can't run on the processor, with the reason: it runs what other devices can't.
    pub fn support(&self, graph: &Graph) -> Support {
        (0..graph.fragments.len())
            .map(|id| self.variant.support(graph, id))
            .find(|support| *support != Support::Supported)
            .unwrap_or(Support::Supported)
    }

    /// All on the processor.
    pub(crate) fn place_on_host(&self, graph: &Graph) -> Placement {
        Placement::single(graph, &self.variant)
    }

    /// Counts of runs.
    pub fn counts(&self) -> FragmentCounts {
        FragmentCounts {
            graphs: self.counters.graphs.load(Ordering::Relaxed),
            fallbacks: self.counters.fallbacks.load(Ordering::Relaxed),
            resteers: self.counters.resteers.load(Ordering::Relaxed),
            shared: self.counters.shared.load(Ordering::Relaxed),
            shared_rows: self.counters.shared_rows.load(Ordering::Relaxed),
            last_fallback: self.counters.last_fallback.lock().clone(),
            placing: self.placing.counts(),
            planning: self.planning.counts(),
            feedback: self.statistics.feedback.counts(),
        }
    }

    pub(crate) fn fell_back(&self, error: &str) {
        self.counters.fallbacks.fetch_add(1, Ordering::Relaxed);
        *self.counters.last_fallback.lock() = Some(error.to_owned());
    }

    /// A device ran rows of a fragment of the processor.
    pub(crate) fn shared(&self, rows: u64) {
        self.counters.shared.fetch_add(u64::from(rows > 0), Ordering::Relaxed);
        self.counters.shared_rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// A running graph was looked at again.
    pub(crate) fn resteered(&self, resteer: &Resteer) {
        self.counters
            .resteers
            .fetch_add(u64::from(resteer.moved), Ordering::Relaxed);
        if let Some(error) = &resteer.fallback {
            self.fell_back(error);
        }
        self.history.add_resteer(resteer.clone());
    }

    /// Binds the files of all scans of a graph; what is read of each is booked on its account.
    pub(crate) async fn open_all(
        &self,
        plan: &FragmentPlan,
        accounts: &[Arc<Account>],
        context: &TaskContext,
        memory: &Arc<dyn DevicePool>,
        has_devices: bool,
    ) -> Result<Vec<Arc<dyn ScanInput>>, DeviceError> {
        let scans = plan.scans.iter().zip(accounts).enumerate();
        let tables = scans.map(|(at, (scan, account))| {
            let mut table = table(plan, at, scan, context)?;
            table.lake = self.lake.store(&StoreRegistry::key(scan.store.as_ref()));
            table.account = Arc::clone(account);
            Ok(table)
        });
        let tables = tables.collect::<Result<Vec<_>, DeviceError>>()?;
        let sources = plan.graph.fragments.iter().map(|fragment| &fragment.source);
        let order = sources.filter_map(|source| match source {
            GraphSource::Scan(scan) => Some(*scan),
            _ => None,
        });
        let options = OpenOptions {
            order: order.collect(),
            put_off: !has_devices,
            woken: Arc::from(self.pool.waker()),
            window_bytes: self.lake.options().window_bytes,
            ..OpenOptions::new(Arc::clone(memory), self.pool.workers())
        };
        self.columns.open_all(tables, options).await
    }

    /// Runs all fragments; the last one's rows, unless they were emitted.
    pub(crate) async fn run_graph(
        &self,
        graph: &Arc<Graph>,
        inputs: Inputs,
        placement: Placement,
        hooks: Hooks,
    ) -> Result<Arc<Rows>, DeviceError> {
        let cancelled = Arc::clone(&inputs.cancelled);
        let kernel = Arc::new(GraphKernel::new(graph, inputs, placement, &self.variant, hooks));
        self.pool.run(Arc::clone(&kernel) as _, &cancelled).await?;
        match kernel.finish()? {
            Output::Rows(rows) => Ok(rows),
            _ => Err(DeviceError::Internal(
                "a graph left something else than rows".to_owned(),
            )),
        }
    }

    /// A number for a graph's run.
    pub(crate) fn begin(&self) -> u64 {
        self.counters.graphs.fetch_add(1, Ordering::Relaxed)
    }
}

/// Scan `at` of a plan as its files.
fn table(plan: &FragmentPlan, at: usize, scan: &FileScan, context: &TaskContext) -> Result<TableFiles, DeviceError> {
    let store = context
        .runtime_env()
        .object_store(&scan.store)
        .map_err(DeviceError::read)?;
    let local = scan.store.as_str().starts_with("file:");
    let files = scan
        .files
        .iter()
        .map(|file| {
            let mut table_file = TableFile::new(&file.object_meta);
            // A log has times of its own.
            let listed = local && !is_from_log(&file.object_meta);
            table_file.modified_us = listed.then(|| file.object_meta.last_modified.timestamp_micros());
            table_file.local = local.then(|| PathBuf::from(format!("/{}", file.object_meta.location)));
            table_file.kept = file.extension::<ParquetRowSelection>().map(kept);
            table_file.partition = file.partition_values.iter().map(value).collect::<Option<_>>()?;
            Some(table_file)
        })
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| DeviceError::Unsupported("a partition column's type is not fused".to_owned()))?;
    let columns = scan
        .columns
        .iter()
        .map(|column| ColumnRequest {
            source: match column.source {
                ColumnSource::File => Source::File(column.name.clone()),
                ColumnSource::Partition(index) => Source::Partition(index),
                ColumnSource::Kept => Source::Kept,
            },
            data_type: column.data_type.clone(),
        })
        .collect();
    Ok(TableFiles {
        name: scan.name.clone(),
        store_url: scan.store.as_str().to_owned(),
        store,
        lake: None,
        account: Arc::default(),
        files,
        columns,
        test: plan.graph.scan_test(at, &plan.parameters),
        limit: plan.graph.scan_limit(at),
        stops: plan.graph.scan_stops(at),
        readers: plan.graph.readers(at).count(),
    })
}

/// A selection by row.
fn kept(selection: &ParquetRowSelection) -> BooleanBuffer {
    let mut rows = BooleanBufferBuilder::new(0);
    for run in selection.selection().iter() {
        rows.append_n(run.row_count, !run.skip);
    }
    rows.finish()
}

/// A partition value, of the types that folders' names have.
fn value(scalar: &ScalarValue) -> Option<Value> {
    let int = |value: i128| Some(Value::Int(value));
    match scalar {
        scalar if scalar.is_null() => Some(Value::Null),
        ScalarValue::Boolean(Some(value)) => Some(Value::Boolean(*value)),
        ScalarValue::Int8(Some(value)) => int((*value).into()),
        ScalarValue::Int16(Some(value)) => int((*value).into()),
        ScalarValue::Int32(Some(value)) | ScalarValue::Date32(Some(value)) => int((*value).into()),
        ScalarValue::Int64(Some(value))
        | ScalarValue::TimestampSecond(Some(value), _)
        | ScalarValue::TimestampMillisecond(Some(value), _)
        | ScalarValue::TimestampMicrosecond(Some(value), _)
        | ScalarValue::TimestampNanosecond(Some(value), _) => int((*value).into()),
        ScalarValue::UInt8(Some(value)) => int((*value).into()),
        ScalarValue::UInt16(Some(value)) => int((*value).into()),
        ScalarValue::UInt32(Some(value)) => int((*value).into()),
        ScalarValue::UInt64(Some(value)) => int((*value).into()),
        ScalarValue::Decimal128(Some(value), ..) => int(*value),
        ScalarValue::Float32(Some(value)) => Some(Value::Float((*value).into())),
        ScalarValue::Float64(Some(value)) => Some(Value::Float(*value)),
        ScalarValue::Utf8(Some(value)) | ScalarValue::LargeUtf8(Some(value)) | ScalarValue::Utf8View(Some(value)) => {
            Some(Value::Bytes(value.as_bytes().into()))
        }
        ScalarValue::Binary(Some(value)) => Some(Value::Bytes(value.as_slice().into())),
        ScalarValue::Dictionary(_, value) => self::value(value),
        _ => None,
    }
}

/// A query's memory, as devices see it.
pub(crate) struct Memory {
    reservation: Mutex<MemoryReservation>,
}

impl Memory {
    pub(crate) fn of(pool: &Arc<dyn MemoryPool>) -> Arc<dyn DevicePool> {
        Arc::new(Self {
            reservation: Mutex::new(MemoryConsumer::new("fused pipelines").register(pool)),
        })
    }
}

impl DevicePool for Memory {
    fn reserve(&self, bytes: usize) -> Result<(), DeviceError> {
        self.reservation
            .lock()
            .try_grow(bytes)
            .map_err(|error| DeviceError::OutOfMemory(error.strip_backtrace()))
    }

    fn release(&self, bytes: usize) {
        let reservation = self.reservation.lock();
        reservation.shrink(bytes.min(reservation.size()));
    }
}

/// A device's error as the query's.
pub(crate) fn query_error(error: &DeviceError) -> DataFusionError {
    let ours = |class, text: &str| DataFusionError::External(Box::new(QueryError::new(class, text)));
    match error {
        DeviceError::Arithmetic(text) if text.starts_with("division by zero") => {
            DataFusionError::ArrowError(Box::new(ArrowError::DivideByZero), None)
        }
        DeviceError::Arithmetic(text) => DataFusionError::Execution(text.clone()),
        DeviceError::Input(text) => {
            let error = QueryError::new(ErrorClass::Corrupt, text);
            DataFusionError::External(Box::new(error.with_hint(DAMAGED_HINT)))
        }
        DeviceError::Read(fault) => DataFusionError::External(Box::new(QueryError::of_cause(fault.cause()))),
        DeviceError::OutOfMemory(text) => DataFusionError::ResourcesExhausted(text.clone()),
        DeviceError::Cancelled => ours(ErrorClass::Cancelled, "the query was cancelled"),
        DeviceError::Unsupported(text) => DataFusionError::NotImplemented(text.clone()),
        other => ours(ErrorClass::Internal, &other.to_string()),
    }
}
