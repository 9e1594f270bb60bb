//! What the server tells about itself: log lines on standard error, and metrics.
//!
//! Every metric is one row of a table ([`metrics!`]) with name, kind, labels and help; the handles, the registration
//! and the reference `server/METRICS.md` come from it. Labels take values from closed sets only (commands, outcomes,
//! error codes), never a user's text, so that the number of time series stays bounded.

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing_subscriber::EnvFilter;
use trireme_config::{LogFormat, LogLevel};

use trireme_lake::LakeMetrics;

use crate::engine::EngineCounts;

/// A log filter in `tracing` syntax; wins over `server.log_level`.
pub const LOG_VARIABLE: &str = "TRIREME_LOG";

/// Why log lines cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter in the environment is wrong.
    #[error("{LOG_VARIABLE} is not a log filter: {0}; an example is \"info,trireme_exec=debug\"")]
    Filter(String),
    /// Somebody else took the logs.
    #[error("cannot start logging: {0}")]
    Taken(String),
    /// Two metrics collide.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Sends log lines of this process to standard error.
///
/// # Errors
/// A wrong filter in `TRIREME_LOG`, or logging that was started before.
pub fn init_logs(format: LogFormat, level: LogLevel) -> Result<(), TelemetryError> {
    let filter = match std::env::var(LOG_VARIABLE) {
        Ok(text) if !text.trim().is_empty() => text,
        _ => default_filter(level),
    };
    let filter = EnvFilter::try_new(filter).map_err(|error| TelemetryError::Filter(error.to_string()))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => lines
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .try_init(),
    };
    started.map_err(|error| TelemetryError::Taken(error.to_string()))
}

/// The libraries of the wire log every frame below `info`, which buries our own lines and may show headers.
fn default_filter(level: LogLevel) -> String {
    let quiet = match level {
        LogLevel::Error => "error",
        _ => "warn",
    };
    let noisy = [
        "buoyant_kernel",
        "h2",
        "hyper",
        "hyper_util",
        "tower",
        "rustls",
        "tonic",
        "reqwest",
        "delta_kernel",
        "sqlparser",
    ];
    let mut filter = level.word().to_string();
    for library in noisy {
        let _ = write!(filter, ",{library}={quiet}");
    }
    filter
}

/// One row of the table, for the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricRow {
    /// Name in the text format.
    pub name: &'static str,
    /// counter, gauge or histogram.
    pub kind: &'static str,
    /// Label names.
    pub labels: &'static [&'static str],
    /// What it counts.
    pub help: &'static str,
}

/// Makes a handle of each kind; one impl for each type that a row of [`metrics!`] can have.
trait Handle: Collector + Clone + Sized + 'static {
    const KIND: &'static str;
    fn make(row: &MetricRow) -> prometheus::Result<Self>;
}

impl Handle for IntCounter {
    const KIND: &'static str = "counter";
    fn make(row: &MetricRow) -> prometheus::Result<Self> {
        Self::new(row.name, row.help)
    }
}

impl Handle for IntCounterVec {
    const KIND: &'static str = "counter";
    fn make(row: &MetricRow) -> prometheus::Result<Self> {
        Self::new(Opts::new(row.name, row.help), row.labels)
    }
}

impl Handle for IntGauge {
    const KIND: &'static str = "gauge";
    fn make(row: &MetricRow) -> prometheus::Result<Self> {
        Self::new(row.name, row.help)
    }
}

impl Handle for GaugeVec {
    const KIND: &'static str = "gauge";
    fn make(row: &MetricRow) -> prometheus::Result<Self> {
        Self::new(Opts::new(row.name, row.help), row.labels)
    }
}

impl Handle for Gauge {
    const KIND: &'static str = "gauge";
    fn make(row: &MetricRow) -> prometheus::Result<Self> {
        Self::new(row.name, row.help)
    }
}

impl Handle for Histogram {
    const KIND: &'static str = "histogram";
    fn make(row: &MetricRow) -> prometheus::Result<Self> {
        Self::with_opts(HistogramOpts::new(row.name, row.help).buckets(SECONDS_BUCKETS.to_vec()))
    }
}

/// From what `SELECT 1` needs to what a long report needs.
const SECONDS_BUCKETS: [f64; 17] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0,
];

macro_rules! metrics {
    ($( $(#[doc = $help:literal])+ $field:ident: $Type:ty = $name:literal $([$($label:literal),+])?; )+) => {
        /// Handles of every metric, and the registry that holds them. Clones share the values.
        #[derive(Clone)]
        pub struct Metrics {
            $( $(#[doc = $help])+ pub $field: $Type, )+
            registry: Registry,
        }

        impl Metrics {
            /// A fresh set, all zero.
            ///
            /// # Errors
            /// Two rows with one name.
            pub fn new() -> Result<Self, TelemetryError> {
                let registry = Registry::new();
                $(
                    let $field: $Type = Handle::make(&MetricRow {
                        name: $name,
                        kind: <$Type as Handle>::KIND,
                        labels: &[$($($label),+)?],
                        help: concat!($($help),+).trim_start(),
                    })?;
                    registry.register(Box::new($field.clone()))?;
                )+
                Ok(Self { $($field,)+ registry })
            }

            /// The table, for the reference.
            pub fn rows() -> Vec<MetricRow> {
                vec![$( MetricRow {
                    name: $name,
                    kind: <$Type as Handle>::KIND,
                    labels: &[$($($label),+)?],
                    help: concat!($($help),+).trim_start(),
                }, )+]
            }
        }
    };
}

metrics! {
    /// Statements that ended, by command (SELECT, INSERT, ...) and outcome (finished, failed, cancelled).
    queries_total: IntCounterVec = "trireme_queries_total" ["command", "outcome"];
    /// Time from the start of a statement to its last row.
    query_seconds: Histogram = "trireme_query_seconds";
    /// Time that statements waited for their turn.
    queue_seconds: Histogram = "trireme_queue_seconds";
    /// Statements that run now.
    queries_running: IntGauge = "trireme_queries_running";
    /// Statements that wait for their turn now.
    queries_queued: IntGauge = "trireme_queries_queued";
    /// Rows of results that were sent.
    rows_sent_total: IntCounter = "trireme_rows_sent_total";
    /// Bytes of results that were sent, before TLS.
    bytes_sent_total: IntCounter = "trireme_bytes_sent_total";
    /// Rows that clients sent in.
    rows_received_total: IntCounter = "trireme_rows_received_total";
    /// Requests by method.
    requests_total: IntCounterVec = "trireme_requests_total" ["method"];
    /// Open sessions.
    sessions: IntGauge = "trireme_sessions";
    /// Open connections.
    connections: IntGauge = "trireme_connections";
    /// Connections that were closed because there were too many.
    connections_rejected_total: IntCounter = "trireme_connections_rejected_total";
    /// Prepared statements that sessions hold.
    prepared_statements: IntGauge = "trireme_prepared_statements";
    /// Results that wait to be fetched.
    tickets: IntGauge = "trireme_tickets";
    /// Queries that ran before they were fetched, by what became of it: fetched, or given up (cancelled ones are neither).
    started_ahead_total: IntCounterVec = "trireme_queries_started_ahead_total" ["end"];
    /// Statements that were refused before they ran, by reason.
    admission_rejected_total: IntCounterVec = "trireme_admission_rejected_total" ["reason"];
    /// Logins and tokens that were refused, by reason.
    auth_failures_total: IntCounterVec = "trireme_auth_failures_total" ["reason"];
    /// Errors that were sent to clients, by gRPC code.
    errors_total: IntCounterVec = "trireme_errors_total" ["code"];
    /// Memory that running queries hold.
    memory_reserved_bytes: IntGauge = "trireme_memory_reserved_bytes";
    /// Memory that running queries may hold together.
    memory_limit_bytes: IntGauge = "trireme_memory_limit_bytes";
    /// Bytes that running queries have spilled.
    spilled_bytes: IntGauge = "trireme_spilled_bytes";
    /// Memory of the process, as the operating system counts it.
    process_resident_bytes: IntGauge = "trireme_process_resident_bytes";
    /// Memory that the column cache holds.
    column_cache_bytes: IntGauge = "trireme_column_cache_bytes";
    /// Memory that the column cache may hold.
    column_cache_limit_bytes: IntGauge = "trireme_column_cache_limit_bytes";
    /// Columns of segments that scans found in the column cache.
    column_cache_hits_total: IntCounter = "trireme_column_cache_hits_total";
    /// Columns of segments that scans had to decode.
    column_cache_misses_total: IntCounter = "trireme_column_cache_misses_total";
    /// Columns of segments that the column cache let go.
    column_cache_evictions_total: IntCounter = "trireme_column_cache_evictions_total";
    /// Fused parts of plans that were run.
    fragment_graphs_total: IntCounter = "trireme_fragment_graphs_total";
    /// Fused parts of plans whose backup ran instead.
    fragment_fallbacks_total: IntCounter = "trireme_fragment_fallbacks_total";
    /// Fused parts of plans for which it was chosen where they run.
    placements_total: IntCounter = "trireme_placements_total";
    /// Time that choosing took, in microseconds.
    placing_microseconds_total: IntCounter = "trireme_placing_microseconds_total";
    /// Choices that took longer than 1 ms.
    placements_over_1ms_total: IntCounter = "trireme_placements_over_1ms_total";
    /// Choices that took longer than 5 ms.
    placements_over_5ms_total: IntCounter = "trireme_placements_over_5ms_total";
    /// Plans that fragments were put into.
    fused_plans_total: IntCounter = "trireme_fused_plans_total";
    /// Time that planning fragments took beside DataFusion's own planning: lowering, estimates, the order of joins.
    fusing_microseconds_total: IntCounter = "trireme_fusing_microseconds_total";
    /// Plans whose fragments took longer than 1 ms to be planned.
    fused_plans_over_1ms_total: IntCounter = "trireme_fused_plans_over_1ms_total";
    /// Plans whose fragments took longer than 5 ms to be planned.
    fused_plans_over_5ms_total: IntCounter = "trireme_fused_plans_over_5ms_total";
    /// Times that a running fused part of a plan was placed anew.
    fragment_resteers_total: IntCounter = "trireme_fragment_resteers_total";
    /// Fragments of which a device ran some of the rows, the processor the others.
    fragments_shared_total: IntCounter = "trireme_fragments_shared_total";
    /// Rows that devices ran of these.
    fragments_shared_rows_total: IntCounter = "trireme_fragments_shared_rows_total";
    /// Sub-plans whose rows are remembered from their runs.
    feedback_entries: IntGauge = "trireme_feedback_entries";
    /// Rows that runs counted and that were kept for the plans to come.
    feedback_learned_total: IntCounter = "trireme_feedback_learned_total";
    /// Estimates that were made by what earlier runs counted.
    feedback_hits_total: IntCounter = "trireme_feedback_hits_total";
    /// Sub-plans that were forgotten to make room.
    feedback_forgotten_total: IntCounter = "trireme_feedback_forgotten_total";
    /// Fragments that ran on devices beside the processor.
    device_fragments_total: IntCounter = "trireme_device_fragments_total";
    /// Kernels launched on devices beside the processor.
    device_launches_total: IntCounter = "trireme_device_launches_total";
    /// Times that a thread waited for a device.
    device_syncs_total: IntCounter = "trireme_device_syncs_total";
    /// Bytes copied to devices.
    device_uploaded_bytes_total: IntCounter = "trireme_device_uploaded_bytes_total";
    /// Bytes copied from devices.
    device_downloaded_bytes_total: IntCounter = "trireme_device_downloaded_bytes_total";
    /// Fragments that devices interpreted, before their own kernels were compiled.
    device_fragments_interpreted_total: IntCounter = "trireme_device_fragments_interpreted_total";
    /// Outputs of waiting queries that were swapped from devices to the host's memory.
    device_swaps_total: IntCounter = "trireme_device_swaps_total";
    /// Kernels compiled for devices.
    device_kernels_compiled_total: IntCounter = "trireme_device_kernels_compiled_total";
    /// Memory of devices in use.
    device_memory_bytes: IntGauge = "trireme_device_memory_bytes";
    /// Devices that take work, without the processor.
    devices_ready: IntGauge = "trireme_devices_ready";
    /// Devices that were there and take no work any more.
    devices_off: IntGauge = "trireme_devices_off";
    /// Requests sent to object stores, retries and second requests among them, by store.
    lake_requests_total: IntCounterVec = "trireme_lake_requests_total" ["store"];
    /// Bytes that scans asked of object stores, by store.
    lake_needed_bytes_total: IntCounterVec = "trireme_lake_needed_bytes_total" ["store"];
    /// Bytes that came from object stores, by store.
    lake_fetched_bytes_total: IntCounterVec = "trireme_lake_fetched_bytes_total" ["store"];
    /// Of these: gaps between ranges that were fetched as one, and bytes fetched ahead that nobody took, by store.
    lake_wasted_bytes_total: IntCounterVec = "trireme_lake_wasted_bytes_total" ["store"];
    /// Second requests for late first bytes, by store.
    lake_hedges_total: IntCounterVec = "trireme_lake_hedges_total" ["store"];
    /// Second requests that came first, by store.
    lake_hedges_won_total: IntCounterVec = "trireme_lake_hedges_won_total" ["store"];
    /// Requests that were sent again after an error, by store.
    lake_retries_total: IntCounterVec = "trireme_lake_retries_total" ["store"];
    /// Answers that said "slow down", by store.
    lake_throttled_total: IntCounterVec = "trireme_lake_throttled_total" ["store"];
    /// Times that a reader waited for bytes, by store.
    lake_waits_total: IntCounterVec = "trireme_lake_waits_total" ["store"];
    /// Requests in flight now, by store.
    lake_in_flight: GaugeVec = "trireme_lake_in_flight" ["store"];
    /// Requests that may be in flight, by store.
    lake_in_flight_limit: GaugeVec = "trireme_lake_in_flight_limit" ["store"];
    /// Bytes per second that arrived lately, by store.
    lake_goodput_bytes_per_second: GaugeVec = "trireme_lake_goodput_bytes_per_second" ["store"];
    /// Bytes per second that the store is believed to give, by store.
    lake_estimated_bytes_per_second: GaugeVec = "trireme_lake_estimated_bytes_per_second" ["store"];
    /// Bytes of objects held, by tier (memory, disk).
    lake_tier_bytes: GaugeVec = "trireme_lake_tier_bytes" ["tier"];
    /// Bytes of objects that may be held, by tier.
    lake_tier_limit_bytes: GaugeVec = "trireme_lake_tier_limit_bytes" ["tier"];
    /// Reads that a tier answered, by tier.
    lake_tier_hits_total: IntCounterVec = "trireme_lake_tier_hits_total" ["tier"];
    /// Reads that a tier could not answer, by tier.
    lake_tier_misses_total: IntCounterVec = "trireme_lake_tier_misses_total" ["tier"];
    /// Slots of the disk tier that were damaged or could not be read or written.
    lake_disk_errors_total: IntCounter = "trireme_lake_disk_errors_total";
    /// Bytes fetched ahead of need that wait to be taken.
    lake_window_bytes: IntGauge = "trireme_lake_window_bytes";
    /// Most bytes that were fetched ahead at the same time, so far.
    lake_window_peak_bytes: IntGauge = "trireme_lake_window_peak_bytes";
    /// Statements whose plan came from the plan cache.
    plan_cache_hits_total: IntCounter = "trireme_plan_cache_hits_total";
    /// Statements that the plan cache had no plan for.
    plan_cache_misses_total: IntCounter = "trireme_plan_cache_misses_total";
    /// Kept plans that were made anew because runs or ANALYZE told of other numbers of rows than they were made by.
    plans_made_anew_total: IntCounter = "trireme_plans_made_anew_total";
    /// Tables that were analysed unasked, when they were registered or used.
    tables_sketched_total: IntCounter = "trireme_tables_sketched_total";
    /// Tables that were to be analysed unasked and were not: too large, not Parquet, in a store, or gone.
    tables_not_sketched_total: IntCounter = "trireme_tables_not_sketched_total";
    /// Remote tables whose files were found changed after a query over them had started: it was run again.
    catalog_changed_ahead_total: IntCounter = "trireme_catalog_changed_ahead_total";
    /// When the server started, in seconds since 1970.
    start_seconds: Gauge = "trireme_start_seconds";
    /// How long the server took from start until ready.
    startup_duration_seconds: Gauge = "trireme_startup_duration_seconds";
}

impl Metrics {
    /// The start of the server is now.
    pub fn mark_start(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.start_seconds.set(now.as_secs_f64());
    }

    /// Takes over what the engine has counted.
    pub fn engine_counts(&self, counts: &EngineCounts) {
        let gauge = |metric: &IntGauge, value: u64| metric.set(i64::try_from(value).unwrap_or(i64::MAX));
        let counter = |metric: &IntCounter, value: u64| metric.inc_by(value.saturating_sub(metric.get()));
        gauge(&self.column_cache_bytes, counts.columns.used_bytes);
        gauge(&self.column_cache_limit_bytes, counts.columns.budget_bytes);
        counter(&self.column_cache_hits_total, counts.columns.hits);
        counter(&self.column_cache_misses_total, counts.columns.misses);
        counter(&self.column_cache_evictions_total, counts.columns.evictions);
        counter(&self.placements_total, counts.fragments.placing.count);
        counter(&self.placing_microseconds_total, counts.fragments.placing.us);
        counter(&self.placements_over_1ms_total, counts.fragments.placing.over_1_ms);
        counter(&self.placements_over_5ms_total, counts.fragments.placing.over_5_ms);
        counter(&self.fused_plans_total, counts.fragments.planning.count);
        counter(&self.fusing_microseconds_total, counts.fragments.planning.us);
        counter(&self.fused_plans_over_1ms_total, counts.fragments.planning.over_1_ms);
        counter(&self.fused_plans_over_5ms_total, counts.fragments.planning.over_5_ms);
        counter(&self.fragment_graphs_total, counts.fragments.graphs);
        counter(&self.fragment_fallbacks_total, counts.fragments.fallbacks);
        counter(&self.fragment_resteers_total, counts.fragments.resteers);
        counter(&self.fragments_shared_total, counts.fragments.shared);
        counter(&self.fragments_shared_rows_total, counts.fragments.shared_rows);
        let feedback = &counts.fragments.feedback;
        gauge(&self.feedback_entries, feedback.entries);
        counter(&self.feedback_learned_total, feedback.learned);
        counter(&self.feedback_hits_total, feedback.hits);
        counter(&self.feedback_forgotten_total, feedback.forgotten);
        let devices = &counts.devices;
        counter(&self.device_fragments_total, devices.vitals.fragments);
        counter(&self.device_launches_total, devices.vitals.launches);
        counter(&self.device_syncs_total, devices.vitals.syncs);
        counter(&self.device_uploaded_bytes_total, devices.vitals.uploaded_bytes);
        counter(&self.device_downloaded_bytes_total, devices.vitals.downloaded_bytes);
        counter(&self.device_swaps_total, devices.vitals.swaps);
        let interpreted = devices.vitals.interpreted;
        counter(&self.device_fragments_interpreted_total, interpreted);
        counter(&self.device_kernels_compiled_total, devices.vitals.compiled);
        gauge(&self.device_memory_bytes, devices.vitals.used_bytes);
        gauge(&self.devices_ready, devices.ready);
        gauge(&self.devices_off, devices.off);
        counter(&self.plan_cache_hits_total, counts.plan_hits);
        counter(&self.plan_cache_misses_total, counts.plan_misses);
        counter(&self.catalog_changed_ahead_total, counts.changed_ahead);
        counter(&self.plans_made_anew_total, counts.replanned);
        counter(&self.tables_sketched_total, counts.sketched);
        counter(&self.tables_not_sketched_total, counts.not_sketched);
        self.lake_counts(&counts.lake);
    }

    fn lake_counts(&self, lake: &LakeMetrics) {
        let counter = |metric: &IntCounterVec, label: &str, value: u64| {
            let metric = metric.with_label_values(&[label]);
            metric.inc_by(value.saturating_sub(metric.get()));
        };
        let gauge = |metric: &GaugeVec, label: &str, value: f64| metric.with_label_values(&[label]).set(value);
        for store in &lake.stores {
            let (name, totals) = (store.store.as_str(), &store.totals);
            counter(&self.lake_requests_total, name, totals.requests);
            counter(&self.lake_needed_bytes_total, name, totals.needed_bytes);
            counter(&self.lake_fetched_bytes_total, name, totals.fetched_bytes);
            counter(
                &self.lake_wasted_bytes_total,
                name,
                totals.gap_bytes + totals.wasted_bytes,
            );
            counter(&self.lake_hedges_total, name, totals.hedges);
            counter(&self.lake_hedges_won_total, name, totals.hedges_won);
            counter(&self.lake_retries_total, name, totals.retries);
            counter(&self.lake_throttled_total, name, store.throttled);
            counter(&self.lake_waits_total, name, totals.waits);
            gauge(&self.lake_in_flight, name, store.in_flight as f64);
            gauge(&self.lake_in_flight_limit, name, store.in_flight_limit as f64);
            gauge(
                &self.lake_goodput_bytes_per_second,
                name,
                store.goodput_bytes_per_second,
            );
            gauge(
                &self.lake_estimated_bytes_per_second,
                name,
                store.estimated_bytes_per_second,
            );
        }
        gauge(&self.lake_tier_bytes, "memory", lake.memory_used_bytes as f64);
        gauge(&self.lake_tier_bytes, "disk", lake.disk_used_bytes as f64);
        gauge(&self.lake_tier_limit_bytes, "memory", lake.memory_budget_bytes as f64);
        gauge(&self.lake_tier_limit_bytes, "disk", lake.disk_budget_bytes as f64);
        counter(&self.lake_tier_hits_total, "memory", lake.memory_hits);
        counter(&self.lake_tier_hits_total, "disk", lake.disk_hits);
        counter(&self.lake_tier_misses_total, "memory", lake.memory_misses);
        counter(&self.lake_tier_misses_total, "disk", lake.disk_misses);
        let errors = &self.lake_disk_errors_total;
        errors.inc_by(lake.disk_errors.saturating_sub(errors.get()));
        self.lake_window_bytes
            .set(i64::try_from(lake.window_used_bytes).unwrap_or(i64::MAX));
        self.lake_window_peak_bytes
            .set(i64::try_from(lake.window_peak_bytes).unwrap_or(i64::MAX));
    }

    /// Everything in the Prometheus text format.
    ///
    /// # Errors
    /// A metric that cannot be written, which would be a fault of ours.
    pub fn render(&self) -> Result<String, TelemetryError> {
        if let Some(bytes) = resident_bytes() {
            self.process_resident_bytes.set(bytes);
        }
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }
}

/// Resident memory of this process; `None` where the system does not say.
pub fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: i64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}

/// `server/METRICS.md`.
pub fn metrics_markdown() -> String {
    let mut out = String::from(
        "# Metrics\n\n\
         `GET /metrics` on the HTTP address, in the Prometheus text format. Generated from the table in\n\
         `server/src/telemetry.rs`; `UPDATE=1 cargo test --profile ci --workspace` writes it anew.\n\n\
         | name | kind | labels | what it counts |\n| --- | --- | --- | --- |\n",
    );
    for row in Metrics::rows() {
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} |",
            row.name,
            row.kind,
            row.labels.join(", "),
            row.help
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_rendered() {
        let metrics = Metrics::new().unwrap();
        metrics.queries_total.with_label_values(&["SELECT", "finished"]).inc();
        metrics.query_seconds.observe(0.002);
        metrics.sessions.set(3);
        metrics.mark_start();
        let text = metrics.render().unwrap();
        assert!(
            text.contains("trireme_queries_total{command=\"SELECT\",outcome=\"finished\"} 1"),
            "{text}"
        );
        assert!(text.contains("trireme_query_seconds_bucket{le=\"0.0025\"} 1"));
        assert!(text.contains("trireme_sessions 3"));
        assert!(text.contains("# TYPE trireme_rows_sent_total counter"));
        assert!(resident_bytes().is_none_or(|bytes| bytes > 0));
    }

    #[test]
    fn names_follow_the_conventions() {
        for row in Metrics::rows() {
            assert!(row.name.starts_with("trireme_"), "{}", row.name);
            assert_eq!(row.kind == "counter", row.name.ends_with("_total"), "{}", row.name);
            assert!(row.help.ends_with('.'), "{}", row.name);
        }
    }

    /// The reference in the tree is what the table says; `UPDATE=1` writes it.
    #[test]
    fn the_reference_is_fresh() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("METRICS.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, metrics_markdown()).unwrap();
        }
        let on_disk = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            on_disk == metrics_markdown(),
            "METRICS.md is stale; run UPDATE=1 cargo test --profile ci --workspace"
        );
    }

    #[test]
    fn filters_are_valid() {
        for level in [LogLevel::Error, LogLevel::Info, LogLevel::Trace] {
            EnvFilter::try_new(default_filter(level)).unwrap();
        }
    }
}
