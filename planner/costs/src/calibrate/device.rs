//! Measures a device through its variant, by micro-graphs: rates with which the formulas give the times that those took.
//!
//! ```text
//!  start, launch, wait    a chain of fragments over few rows, by its length
//!  each rate, in order    time(large) − time(small) = prediction(large) − prediction(small), solved for that rate;
//!                         what is solved before stays
//!  all rates together     queries' graphs, explained by them ([`super::fit`])
//!  copies                 the same run over columns that are there, and over new ones
//!  compilation            what first runs tell
//! ```
//!
//! The base gives what could not be measured, and the shapes of curves between measured points. Nothing is known of the
//! device but the contract: a graphics processor, an FPGA, a processor behind a driver, a simulated one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use trireme_device_api::{DeviceError, DeviceInfo, DeviceKind, FragmentReport, Graph, Inputs, Vitals};

use super::engine::{KNOBS, cool};
use super::fit::{Sample, fitted};
use super::graphs::{self, Bound, Trial};
use super::{Effort, Micro, RATIO_MAX, Ratios, now_unix_s};
use crate::catalogue;
use crate::facts::Facts;
use crate::predict::{Surroundings, predict};
use crate::profile::{Curve, Link, Profile, Provenance};

/// What is measured, the most important first: time may run out.
const ORDER: [Micro; 18] = [
    Micro::Stream(4),
    Micro::Simple,
    Micro::Update(1 << 10),
    Micro::Insert(512),
    Micro::Random(512),
    Micro::Hash,
    Micro::Stream(8),
    Micro::Stream(1),
    Micro::Gather,
    Micro::Update(4),
    Micro::Update(1 << 18),
    Micro::Insert(16 << 10),
    Micro::Random(16 << 10),
    Micro::Write,
    Micro::NewGroups,
    Micro::Divide,
    Micro::Sort,
    Micro::Text,
];
/// So many of these are measured also when time is over …
const ORDER_LEAST: usize = 5;
/// … but not when it is so many times over.
const OVERTIME: u32 = 10;
/// Of the time, what rates by themselves may take; queries take the rest.
const ALONE_SHARE: f64 = 0.6;
/// Sizes of copies, in KiB.
const COPIES: [u32; 3] = [64, 1 << 10, 16 << 10];
/// Fragments of the long chain.
const CHAIN: usize = 3;
/// Runs of each table, at least and at most.
const RUNS: usize = 3;
const RUNS_MAX: usize = 20;
/// What rows take must be this part of what starting takes, and this long, to be told from it.
const TELLING_SHARE: f64 = 0.5;
const TELLING_MS: f64 = 0.5;
/// What starting takes, before it is fitted.
const LEAST_MS: f64 = 0.01;
/// Segments of the largest table.
const SEGMENTS_MAX: usize = 64;
/// Of the device's memory, what a trial may take.
const MEMORY_SHARE: f64 = 0.125;
/// Bytes of a row of the widest trial.
const ROW_BYTES: f64 = 44.0;
/// Between two looks whether kernels are compiled.
const COMPILES: Duration = Duration::from_millis(5);
/// Steps of the search for a rate: far finer than what is measured.
const STEPS: u32 = 40;

impl Effort {
    /// For a device.
    fn limit(self) -> Duration {
        match self {
            Effort::Quick => Duration::from_millis(1_300),
            // Times are told in tests, not taken: all of it is to be done, on a slow machine too.
            Effort::Full => Duration::from_secs(if cfg!(test) { 300 } else { 30 }),
        }
    }
}

/// What a profile of a device was measured as: versions of the product and the driver, and the machine that it is in.
pub fn driver_of(info: &DeviceInfo, machine: &str) -> String {
    let parts = [env!("CARGO_PKG_VERSION"), machine];
    let features = info.features.iter().map(String::as_str);
    parts
        .into_iter()
        .chain(features)
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

/// Measures a device beside the processor. `machine` is what it is in.
///
/// # Errors
/// What the device's first graph failed with; later failures leave rates as the base has them.
pub fn accelerator(
    info: &DeviceInfo,
    vitals: &Vitals,
    runner: &mut dyn Runner,
    machine: &str,
    effort: Effort,
) -> Result<Profile, DeviceError> {
    let base = catalogue::of_device(info, vitals);
    let base = base.ok_or_else(|| DeviceError::Internal("the catalogue is empty".to_owned()))?;
    let base = Profile {
        driver: driver_of(info, machine),
        // A processor behind a driver does one thing after the other.
        overlap: if info.kind == DeviceKind::Cpu {
            0.0
        } else {
            base.overlap
        },
        ..base
    };
    let segments_max = info.memory_bytes as f64 * MEMORY_SHARE / ROW_BYTES / graphs::SEGMENT_ROWS as f64;
    let segments_max = (1..=SEGMENTS_MAX)
        .rev()
        .find(|segments| *segments as f64 <= segments_max)
        .unwrap_or(1);
    let mut bench = Bench {
        runner,
        began: Instant::now(),
        limit: effort.limit(),
        effort,
        segments_max,
        compiled: Vec::new(),
        samples: Vec::new(),
    };
    let base = bench.started(base)?;
    let mut ratios = Vec::new();
    for (at, micro) in ORDER.into_iter().enumerate() {
        // On a machine with other work the first few are worth their time.
        if bench.began.elapsed() >= bench.limit.mul_f64(ALONE_SHARE) && (at >= ORDER_LEAST || bench.is_long_over()) {
            break;
        }
        if let Some(ratio) = graphs::of(micro).and_then(|trial| bench.solved(&trial, &base, &ratios)) {
            ratios.push((micro, ratio));
        }
    }
    if ratios.is_empty() {
        return Err(DeviceError::Internal("nothing could be measured in time".to_owned()));
    }
    let seen = median(ratios.iter().map(|(_, ratio)| *ratio).collect()).unwrap_or(1.0);
    // What could not be measured is as far from the base as what could.
    let unseen = ORDER
        .into_iter()
        .filter(|micro| !ratios.iter().any(|(known, _)| known == micro));
    let assumed: Vec<_> = unseen
        .filter(|micro| !has_neighbours(*micro))
        .map(|micro| (micro, seen))
        .collect();
    ratios.extend(assumed);
    let profile = Ratios(&ratios).applied(&base);
    let mut profile = bench.explained(profile);
    let widest = profile.stream_bytes_per_second_by_carrier_bytes.points();
    let most = widest.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    profile.memory_bytes_per_second_max = most;
    bench.copies(&mut profile);
    profile.compile_ms_by_nodes = bench.compilation(&base.compile_ms_by_nodes);
    profile.provenance = Provenance::Measured;
    profile.measured_unix_s = now_unix_s();
    Ok(profile)
}

/// A point of a curve: others stand for it.
fn has_neighbours(micro: Micro) -> bool {
    matches!(
        micro,
        Micro::Stream(_) | Micro::Update(_) | Micro::Insert(_) | Micro::Random(_)
    )
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// A run of a micro-graph.
#[derive(Debug, Clone, Default)]
pub struct Ran {
    /// What its fragments took, as the times of queries' fragments are taken, until the rows are in the host's memory.
    pub ms: f64,
    /// By fragment, where they can be told apart.
    pub fragments_ms: Vec<f64>,
    /// What the device counted.
    pub reports: Vec<FragmentReport>,
}

/// Runs micro-graphs, best as queries' graphs are run: what that takes beside the kernels is part of the profile.
pub trait Runner {
    /// Runs one alone.
    ///
    /// # Errors
    /// As the fragments fail.
    fn run(&mut self, graph: &Arc<Graph>, inputs: &Inputs) -> Result<Ran, DeviceError>;
}

pub(super) struct Bench<'a> {
    pub(super) runner: &'a mut dyn Runner,
    pub(super) began: Instant,
    pub(super) limit: Duration,
    pub(super) effort: Effort,
    pub(super) segments_max: usize,
    /// Compilations: nodes and time.
    pub(super) compiled: Vec<(f64, f64)>,
    /// What was timed so far.
    pub(super) samples: Vec<Sample>,
}

impl Bench<'_> {
    pub(super) fn is_over(&self) -> bool {
        self.began.elapsed() >= self.limit
    }

    fn is_long_over(&self) -> bool {
        self.began.elapsed() >= self.limit * OVERTIME
    }

    /// The first run that is as later ones.
    pub(super) fn ready(&mut self, graph: &Arc<Graph>, bound: &Bound) -> Result<Ran, DeviceError> {
        let mut first = self.runner.run(graph, &bound.inputs)?;
        // What runs as data runs otherwise when its own kernels are compiled, which happens beside it.
        while first.reports.iter().any(|report| report.interpreted) {
            if self.is_long_over() {
                return Err(DeviceError::Unsupported(
                    "its kernels are not compiled in time".to_owned(),
                ));
            }
            std::thread::sleep(COMPILES);
            first = self.runner.run(graph, &bound.inputs)?;
        }
        let compile_ms: f64 = first.reports.iter().map(|report| report.compile_ns as f64 / 1e6).sum();
        if compile_ms > 0.0 && first.reports.iter().any(|report| report.compiled > 0) {
            let nodes = bound.facts.fragments.iter().map(|facts| facts.nodes.max(1.0)).sum();
            self.compiled.push((nodes, compile_ms));
        }
        Ok(first)
    }

    /// The least time over a trial's tables.
    pub(super) fn least(&mut self, trial: &Trial, bound: &Bound) -> Result<Ran, DeviceError> {
        let mut least = self.ready(&trial.graph, bound)?;
        let began = Instant::now();
        let mut runs = 0;
        while runs < RUNS || (began.elapsed() < self.effort.budget() / 4 && runs < RUNS_MAX) {
            let next = self.runner.run(&trial.graph, &bound.inputs)?;
            if next.ms < least.ms {
                least = next;
            }
            runs += 1;
            if runs >= RUNS && self.is_over() {
                break;
            }
        }
        Ok(least)
    }

    /// Starting, launching, waiting.
    pub(super) fn started(&mut self, base: Profile) -> Result<Profile, DeviceError> {
        let (one, many) = (graphs::chain(1), graphs::chain(CHAIN));
        let first = self.least(&one, &one.small())?;
        let Ok(last) = self.least(&many, &many.small()) else {
            return Ok(base);
        };
        let each_ms = ((last.ms - first.ms) / (CHAIN - 1) as f64).clamp(0.0, first.ms);
        let launched: u32 = last.reports.iter().map(|report| report.launches).sum();
        let launches = match launched {
            0 => base.launches,
            launched => f64::from(launched) / CHAIN as f64,
        };
        // The host prepares a fragment about as long as it launches a kernel: nothing here tells them apart.
        let launch_ms = each_ms / (launches + 1.0);
        let link = |link: Option<Link>| {
            link.map(|link| Link {
                latency_ms: 0.0,
                ..link
            })
        };
        Ok(Profile {
            start_ms: each_ms - launches * launch_ms,
            launch_ms,
            launches,
            sync_ms: (first.ms - each_ms).max(0.0),
            // Of a result it is part of the wait.
            download: link(base.download.clone()),
            ..base
        })
    }

    /// What the base's rate must be multiplied by; none when the device can't run it, or rows took too little to be told.
    fn solved(&mut self, trial: &Trial, base: &Profile, measured: &[(Micro, f64)]) -> Option<f64> {
        let small = trial.small();
        let few = self.least(trial, &small).ok()?;
        let mut segments = 1;
        let (large, ms) = loop {
            let large = trial.large(segments);
            let ms = self.least(trial, &large).ok()?.ms - few.ms;
            let tells = ms > TELLING_MS && ms > few.ms * TELLING_SHARE;
            if tells || !trial.grows() || segments >= self.segments_max || self.is_over() {
                break (large, ms);
            }
            segments = (segments * 4).min(self.segments_max);
        };
        if ms <= 0.0 {
            return None;
        }
        self.samples.push(Sample {
            facts: large.facts.clone(),
            fragment: None,
            ms: ms + few.ms,
        });
        let predicted_ms = |ratio: f64| {
            let with: Vec<_> = measured.iter().copied().chain([(trial.micro, ratio)]).collect();
            let profile = Ratios(&with).applied(base);
            kernel_ms(&large.facts, &profile) - kernel_ms(&small.facts, &profile)
        };
        Some(solve(predicted_ms, ms))
    }

    /// With rates that explain what queries take as well, as far as there is time for these.
    fn explained(&mut self, profile: Profile) -> Profile {
        let workers = match profile.kind {
            DeviceKind::Cpu => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            _ => 0,
        };
        self.time_queries(&mut || cool(workers));
        // What is nothing can't be multiplied.
        let profile = Profile {
            start_ms: profile.start_ms.max(LEAST_MS),
            wake_ms: profile.wake_ms.max(LEAST_MS),
            node_ms: profile.node_ms.max(LEAST_MS / 100.0),
            ..profile
        };
        fitted(&profile, &KNOBS, &self.samples)
    }

    /// Copies to the device and back, where it has a link at all.
    fn copies(&mut self, profile: &mut Profile) {
        if let Some(link) = profile.upload.clone() {
            let mut seen = Vec::new();
            for kib in COPIES {
                if self.is_over() {
                    break;
                }
                let trial = graphs::copied(kib);
                let segments = graphs::copied_segments(kib);
                let there = trial.large(segments);
                let Ok(resident) = self.least(&trial, &there) else {
                    break;
                };
                let mut least_ms = f64::INFINITY;
                for _ in 0..RUNS {
                    let fresh = trial.large(segments);
                    let Ok(ran) = self.runner.run(&trial.graph, &fresh.inputs) else {
                        break;
                    };
                    least_ms = least_ms.min(ran.ms - resident.ms);
                }
                seen.push((f64::from(kib) * 1024.0, least_ms));
            }
            profile.upload = Some(linked(link, &seen));
        }
        if let Some(link) = profile.download.clone() {
            let mut seen = Vec::new();
            for kib in COPIES {
                if self.is_over() {
                    break;
                }
                let trial = graphs::returned(kib.min(8 << 10));
                let (small, large) = (trial.small(), trial.large(1));
                let (Ok(few), Ok(many)) = (self.least(&trial, &small), self.least(&trial, &large)) else {
                    break;
                };
                let worked_ms = kernel_ms(&large.facts, profile) - kernel_ms(&small.facts, profile);
                let bytes = large.facts.fragments.iter().map(|facts| facts.output_bytes).sum();
                seen.push((bytes, many.ms - few.ms - worked_ms));
            }
            let link = linked(link, &seen);
            profile.download = Some(Link {
                latency_ms: 0.0,
                ..link
            });
        }
    }

    /// The base's curve through what was seen.
    fn compilation(&self, base: &Curve) -> Curve {
        match median(self.compiled.iter().map(|(nodes, ms)| ms / base.at(*nodes)).collect()) {
            Some(ratio) => base.scaled(ratio.clamp(1.0 / RATIO_MAX, RATIO_MAX)),
            None => base.clone(),
        }
    }
}

/// A link through copies of bytes that took so many ms: the smallest one's time is its latency, the others give rates.
fn linked(base: Link, seen: &[(f64, f64)]) -> Link {
    let Some((smallest, least_ms)) = seen.first().copied() else {
        return base;
    };
    let told: Vec<_> = seen.iter().skip(1).filter(|(_, ms)| *ms > 1e-3).copied().collect();
    let Some((largest, most_ms)) = told.last().copied() else {
        return base;
    };
    let rate = (largest - smallest) / ((most_ms - least_ms).max(most_ms * 0.1) / 1e3);
    let latency_ms = (least_ms - smallest / rate * 1e3).max(0.0);
    let points = told
        .iter()
        .map(|(bytes, ms)| (*bytes, bytes / ((ms - latency_ms).max(ms * 0.1) / 1e3)))
        .collect();
    Link {
        bytes_per_second_by_bytes: Curve::new(points),
        latency_ms,
    }
}

/// Time of computing, by the formulas.
fn kernel_ms(facts: &Facts, profile: &Profile) -> f64 {
    let around = Surroundings {
        device_share: 1.0,
        ..Surroundings::default()
    };
    let each = facts
        .fragments
        .iter()
        .map(|facts| predict(facts, profile, &around).kernel_ms);
    each.sum()
}

/// The ratio for which a falling prediction is what was measured; at the bounds when none is.
fn solve(predicted_ms: impl Fn(f64) -> f64, ms: f64) -> f64 {
    let (mut low, mut high) = (-RATIO_MAX.ln(), RATIO_MAX.ln());
    for _ in 0..STEPS {
        let middle = f64::midpoint(low, high);
        if predicted_ms(middle.exp()) > ms {
            low = middle;
        } else {
            high = middle;
        }
    }
    let found = f64::midpoint(low, high).exp();
    // When the rates before explain it all, this one is as quick as can't be seen.
    if found > RATIO_MAX * 0.99 {
        seen_at_least(&predicted_ms)
    } else {
        found
    }
}

/// The ratio from which on the prediction hardly falls.
fn seen_at_least(predicted_ms: &impl Fn(f64) -> f64) -> f64 {
    let rest = predicted_ms(RATIO_MAX);
    let mut ratio = 1.0 / RATIO_MAX;
    while ratio < RATIO_MAX && predicted_ms(ratio) > rest * 1.1 {
        ratio *= 1.5;
    }
    ratio
}

#[cfg(test)]
pub(super) mod tests;
