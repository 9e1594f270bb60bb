//! One run of a fragment node's graph: binds its inputs, runs it where it was placed, and on the processor when the device fails.
//!
//! ```text
//!  bind ─▶ place ─▶ run ─┬─ rows ─▶ EmitBuffer
//!                        └─ the device failed before a row was handed out ─▶ run on the processor, counted and named
//! ```
//!
//! A run that may be steered ([`crate::steer`]) mends itself where it can: only what the failure took runs again. The whole
//! runs again only where it can't.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, Time};
use parking_lot::Mutex;
use trireme_device_api::{Device, DeviceError, DevicePool, ErrorAction, Inputs, Rows, StreamInput};

use super::stream::{EmitBuffer, StreamBuffer};
use trireme_lake::Account;

use super::fallbacks::FALLBACK;
use super::reads::tell_reads;
use super::{Expected, FragmentPlan};
use crate::costs::Observed;
use crate::devices::DeviceMode;
use crate::fused::{FragmentRuntime, Memory};
use crate::graph::{Hooks, Steer, Took};
use crate::history::{FragmentRun, Resteer};
use crate::placement::Placement;
use crate::verify;

/// One run of a graph.
pub(super) struct Run {
    pub(super) plan: FragmentPlan,
    pub(super) streams: Vec<Arc<dyn ExecutionPlan>>,
    pub(super) runtime: Arc<FragmentRuntime>,
    pub(super) context: Arc<TaskContext>,
    pub(super) emit: Arc<EmitBuffer>,
    pub(super) elapsed: Time,
    /// Of each fragment, from its preparation to its output.
    pub(super) times: Vec<Time>,
    pub(super) metrics: ExecutionPlanMetricsSet,
    pub(super) observed: Arc<Mutex<Observations>>,
}

/// What came of one run.
#[derive(Default)]
pub(super) struct Observations {
    pub(super) fragments: Vec<FragmentRun>,
    pub(super) resteers: Vec<Resteer>,
}

/// Why a run failed.
pub(super) enum RunError {
    Device(DeviceError),
    Query(DataFusionError),
}

impl From<DeviceError> for RunError {
    fn from(error: DeviceError) -> Self {
        RunError::Device(error)
    }
}

/// EXPLAIN ANALYZE says why.
pub(super) fn tell_fallback(metrics: &ExecutionPlanMetricsSet, error: &str) {
    MetricBuilder::new(metrics)
        .global_counter(format!("{FALLBACK}{error})"))
        .add(1);
}

impl Run {
    pub(super) async fn run(self) -> Result<(), RunError> {
        let timer = self.elapsed.timer();
        self.runtime.save(&self.plan);
        let memory = Memory::of(self.context.memory_pool());
        let accounts: Vec<Arc<Account>> = self.plan.scans.iter().map(|_| Arc::default()).collect();
        let result = self.bound(&memory, &accounts).await;
        tell_reads(&self.metrics, &self.plan, &accounts);
        timer.done();
        if result.is_ok() {
            self.remember();
        }
        // Times with other graphs beside say nothing of running.
        if result.is_ok() && self.runtime.load().runs() == 0 {
            // Nobody waits for it.
            tokio::spawn(async move { self.learn() });
        }
        result
    }

    async fn bound(&self, memory: &Arc<dyn DevicePool>, accounts: &[Arc<Account>]) -> Result<(), RunError> {
        let runtime = &self.runtime;
        // Once a run: a device may be latched off at any moment.
        let devices = runtime.devices_of(&self.plan.choice);
        let scans = runtime
            .open_all(&self.plan, accounts, &self.context, memory, !devices.is_empty())
            .await?;
        let buffers = self
            .streams
            .iter()
            .map(|plan| StreamBuffer::start(plan, &self.context, self.runtime.pool()))
            .collect::<Result<Vec<_>>>()
            .map_err(RunError::Query)?;
        let pool = self.runtime.pool();
        let inputs = Inputs {
            scans,
            streams: buffers
                .iter()
                .map(|buffer| Arc::clone(buffer) as Arc<dyn StreamInput>)
                .collect(),
            parameters: self.plan.parameters.clone(),
            workers: pool.workers(),
            pool: Arc::clone(memory),
            cancelled: Arc::new(AtomicBool::new(false)),
            batch_rows: self.context.session_config().batch_size(),
            emit: Some(Arc::clone(&self.emit) as _),
            wake: Some(Arc::from(pool.waker())),
        };
        let placing = Instant::now();
        let placement = runtime.place(&self.plan, &inputs, &devices);
        let us = usize::try_from(placing.elapsed().as_micros()).unwrap_or(usize::MAX);
        MetricBuilder::new(&self.metrics).global_counter("placing_us").add(us);
        // Of a plan that was kept nothing is left.
        let planned = self.plan.planning_us.swap(0, Ordering::Relaxed);
        let us = usize::try_from(planned).unwrap_or(usize::MAX);
        MetricBuilder::new(&self.metrics).global_counter("planning_us").add(us);
        let placement = placement.map_err(|error| RunError::Query(DataFusionError::External(Box::new(error))))?;
        let claim = placement.claim.clone();
        let ran = self.rows(&inputs, placement, devices).await;
        // Workers may hold what ran a little longer.
        if let Some(claim) = claim {
            claim.end();
        }
        let last = match ran {
            // An operator below failed: its own error says more than the device's.
            Err(DeviceError::Input(text)) => {
                let own = buffers.iter().find_map(|buffer| buffer.take_error());
                return Err(own.map_or(RunError::Device(DeviceError::Input(text)), RunError::Query));
            }
            other => other?,
        };
        self.emit.push_rows(last, &self.plan.graph.output, inputs.batch_rows)?;
        Ok(())
    }

    /// The rows that were not emitted, from wherever the graph ran.
    async fn rows(
        &self,
        inputs: &Inputs,
        mut placement: Placement,
        devices: Vec<Arc<dyn Device>>,
    ) -> Result<Arc<Rows>, DeviceError> {
        if let Some(decided) = &placement.decided {
            for note in &decided.notes {
                MetricBuilder::new(&self.metrics).global_counter(note.clone()).add(1);
            }
        }
        for (id, reason) in placement.reasons.iter().enumerate() {
            if let Some(reason) = reason {
                let name = format!("fragment_{id}_on_host ({reason})");
                MetricBuilder::new(&self.metrics).global_counter(name).add(1);
            }
        }
        let mode = self.plan.choice.mode;
        if placement.uses_device() && mode == DeviceMode::Verify && inputs.streams.is_empty() {
            return self.verified(inputs, placement).await;
        }
        let used_device = placement.uses_device();
        let run = self.runtime.begin();
        let tell = self.tell_resteer();
        let steering = self
            .runtime
            .steering((&self.plan, inputs, devices), &mut placement, run, tell);
        let steer = steering.clone().map(|steering| steering as Arc<dyn Steer>);
        let result = self.run_on(inputs, placement, run, None, steer).await;
        let used_device = used_device || steering.is_some_and(|steering| steering.used_device());
        if !used_device {
            return result;
        }
        let error = match result {
            Err(error) if error.action() != ErrorAction::Fail => error,
            other => return other,
        };
        // A stream was read: only the backup, which starts its operators again, can run now.
        if mode == DeviceMode::Require || self.emit.begun() || !inputs.streams.is_empty() {
            return Err(error);
        }
        MetricBuilder::new(&self.metrics).global_counter("fallbacks").add(1);
        tell_fallback(&self.metrics, &error.to_string());
        self.runtime.fell_back(&error.to_string());
        let host = self.runtime.place_on_host(&self.plan.graph);
        let run = self.runtime.begin();
        self.run_on(inputs, host, run, Some(&error), None).await
    }

    async fn verified(&self, inputs: &Inputs, placement: Placement) -> Result<Arc<Rows>, DeviceError> {
        let kept = Inputs {
            emit: None,
            ..inputs.clone()
        };
        let device = self.run_on(&kept, placement, self.runtime.begin(), None, None).await?;
        let host = self.runtime.place_on_host(&self.plan.graph);
        let host = self.run_on(&kept, host, self.runtime.begin(), None, None).await?;
        verify::compare(&self.plan.graph, &device, &host)?;
        MetricBuilder::new(&self.metrics).global_counter("verified").add(1);
        Ok(device)
    }

    async fn run_on(
        &self,
        inputs: &Inputs,
        placement: Placement,
        run: u64,
        fallback: Option<&DeviceError>,
        steer: Option<Arc<dyn Steer>>,
    ) -> Result<Arc<Rows>, DeviceError> {
        let inputs = Inputs {
            cancelled: Arc::new(AtomicBool::new(false)),
            ..inputs.clone()
        };
        let times = self.times.clone();
        let metrics = self.metrics.clone();
        let observed = Arc::clone(&self.observed);
        let runtime = Arc::clone(&self.runtime);
        let text = self.plan.text.clone();
        let fallback = fallback.map(ToString::to_string);
        let expected = self.plan.expectations.rows(&self.plan.graph, &inputs.parameters, &[]);
        let took = move |took: Took<'_>| {
            times[took.fragment].add_duration(took.time);
            let expected = expected.get(took.fragment);
            tell_report(&metrics, &took, expected);
            runtime.shared(took.report.shared.as_ref().map_or(0, |shared| shared.rows));
            let ran = FragmentRun {
                run,
                at: SystemTime::now(),
                fragment: took.fragment,
                text: text.get(took.fragment).cloned().unwrap_or_default(),
                device: took.variant.device().to_owned(),
                variant: took.variant.name(),
                time: took.time,
                report: took.report,
                fallback: took.fallback.or_else(|| fallback.clone()),
                expected: expected.cloned(),
            };
            observed.lock().fragments.push(ran.clone());
            runtime.history().add(ran);
        };
        let emit = Arc::clone(&self.emit);
        let hooks = Hooks {
            wake: self.runtime.pool().waker(),
            took: Box::new(took),
            begun: Box::new(move || emit.begun()),
            steer,
        };
        self.runtime.run_graph(&self.plan.graph, inputs, placement, hooks).await
    }

    /// EXPLAIN ANALYZE, the history and the counts hear of what was steered.
    fn tell_resteer(&self) -> Box<dyn Fn(Resteer) + Send + Sync> {
        let metrics = self.metrics.clone();
        let observed = Arc::clone(&self.observed);
        let runtime = Arc::clone(&self.runtime);
        Box::new(move |resteer| {
            if let Some(error) = &resteer.fallback {
                MetricBuilder::new(&metrics).global_counter("fallbacks").add(1);
                tell_fallback(&metrics, error);
            }
            let moved = usize::from(resteer.moved);
            MetricBuilder::new(&metrics).global_counter("resteers").add(moved);
            let name = format!("resteer ({resteer})");
            MetricBuilder::new(&metrics).global_counter(name).add(1);
            runtime.resteered(&resteer);
            observed.lock().resteers.push(resteer);
        })
    }
}

impl Run {
    /// Keeps what was counted for the plans to come.
    fn remember(&self) {
        let feedback = &self.runtime.statistics().feedback;
        if !feedback.learns() {
            return;
        }
        let observed = self.observed.lock().fragments.clone();
        let last = observed.iter().map(|seen| seen.run).max();
        for seen in observed.iter().filter(|seen| Some(seen.run) == last) {
            let Some(expected) = &seen.expected else { continue };
            let sink = expected.sink_name.zip(seen.report.sink_rows);
            let output = expected.output_name.zip(seen.report.output_rows);
            let text: Arc<str> = seen.text.as_str().into();
            if let Some((name, rows)) = sink {
                feedback.learn(name, rows as f64, expected.sink_rows(), &text);
            }
            if let Some((name, rows)) = output.filter(|_| expected.output_name != expected.sink_name) {
                feedback.learn(name, rows as f64, expected.output_rows, &text);
            }
        }
    }

    /// The cost model learns from what this run took, from the last attempt if the graph ran again elsewhere.
    fn learn(&self) {
        // What was planted teaches nothing.
        if !self.plan.choice.inject.is_empty() {
            return;
        }
        let observed = self.observed.lock().fragments.clone();
        let last = observed.iter().map(|seen| seen.run).max();
        let of_run = observed.iter().filter(|seen| Some(seen.run) == last);
        // Neither does what two devices took together.
        let seen: Vec<_> = of_run
            .filter(|seen| seen.report.shared.is_none())
            .map(|seen| Observed {
                run: seen.run,
                fragment: seen.fragment,
                device: seen.device.clone(),
                variant: seen.variant,
                ms: seen.time.as_secs_f64() * 1e3,
                report: seen.report.clone(),
            })
            .collect();
        self.runtime.costs().learn(&self.plan, &seen);
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "an estimate; what is too large is the largest"
)]
fn whole(rows: f64) -> u64 {
    rows as u64
}

/// What a device counted, for EXPLAIN ANALYZE.
fn tell_report(metrics: &ExecutionPlanMetricsSet, took: &Took<'_>, expected: Option<&Expected>) {
    let report = &took.report;
    let tell = |name: &str, count: Option<u64>| {
        if let Some(count) = count.and_then(|count| usize::try_from(count).ok()) {
            let name = format!("fragment_{}_{name}", took.fragment);
            MetricBuilder::new(metrics).global_counter(name).add(count);
        }
    };
    tell("input_rows", Some(report.input_rows).filter(|rows| *rows > 0));
    tell("sink_rows", report.sink_rows);
    tell("output_rows", report.output_rows);
    tell("load_us", Some(report.load_ns / 1_000).filter(|us| *us > 0));
    if let Some(expected) = expected {
        tell("expected_sink_rows", Some(whole(expected.sink_rows())));
        tell("expected_output_rows", Some(whole(expected.output_rows)));
    }
    if let Some(shared) = &report.shared {
        tell(&format!("shared_with_{}_rows", shared.device), Some(shared.rows));
        tell(
            &format!("shared_with_{}_chunks", shared.device),
            Some(shared.chunks.into()),
        );
        if let Some(why) = &shared.left {
            tell(&format!("left_by_{} ({why})", shared.device), Some(1));
        }
    }
    if report.launches == 0 {
        return;
    }
    let prefix = format!("fragment_{}_{}", took.fragment, took.variant.device());
    let counts = [
        ("launches", u64::from(report.launches)),
        ("syncs", u64::from(report.syncs)),
        ("retries", u64::from(report.retries)),
        ("uploaded_bytes", report.uploaded_bytes),
        ("encoded_bytes", report.encoded_bytes),
        ("decoded_bytes", report.decoded_bytes),
        ("downloaded_bytes", report.downloaded_bytes),
        ("restored_bytes", report.restored_bytes),
        ("interpreted", u64::from(report.interpreted)),
        ("compile_us", report.compile_ns / 1_000),
        ("kernel_us", report.kernel_ns / 1_000),
        ("copy_us", report.copy_ns / 1_000),
    ];
    for (name, count) in counts {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        MetricBuilder::new(metrics)
            .global_counter(format!("{prefix}_{name}"))
            .add(count);
    }
    for (reason, columns) in &report.host_decoded {
        let name = format!("{prefix}_decoded_on_host ({reason})");
        let columns = usize::try_from(*columns).unwrap_or(usize::MAX);
        MetricBuilder::new(metrics).global_counter(name).add(columns);
    }
}
