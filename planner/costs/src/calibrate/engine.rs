//! The processor as queries' fragments find it: graphs as queries have them, run by its fused variant and all workers.
//!
//! ```text
//!  plain loops ([`super::host`]) ─▶ how this machine's rates stand to the base's ─┐
//!  queries' graphs over few rows and many, caches and workers cold ───────────────┴─▶ fit ([`super::fit`])
//! ```
//!
//! A loop over the same columns finds them in its caches and its workers awake; a query doesn't. So before each run as much
//! memory is read as caches hold, by as many threads, and workers go to sleep meanwhile.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::device::{Bench, Runner};
use super::fit::{Knob, Sample, fitted};
use super::queries::{Query, Tables, queries};
use super::{Effort, Micro};
use crate::profile::Profile;

/// Read between two runs by each worker: more than the caches of a core, as a query's client, service and planner leave them.
const CACHED_BYTES: usize = 8 << 20;
/// Then nobody has anything to do for so long.
const PAUSE: Duration = Duration::from_millis(2);
/// What is fitted to the times.
pub(super) const KNOBS: [Knob; 26] = [
    Knob::Start,
    Knob::Wake,
    Knob::Node,
    Knob::Spread,
    Knob::Loss,
    Knob::Rate(Micro::Stream(1)),
    Knob::Rate(Micro::Stream(2)),
    Knob::Rate(Micro::Stream(4)),
    Knob::Rate(Micro::Stream(8)),
    Knob::Rate(Micro::Simple),
    Knob::Rate(Micro::Test),
    Knob::Rate(Micro::Gather),
    Knob::Rate(Micro::Random(8)),
    Knob::Rate(Micro::Random(512)),
    Knob::Rate(Micro::Random(16 << 10)),
    Knob::Rate(Micro::Insert(512)),
    Knob::Rate(Micro::Insert(16 << 10)),
    Knob::Rate(Micro::Update(4)),
    Knob::Rate(Micro::Update(1 << 10)),
    Knob::Rate(Micro::Update(1 << 18)),
    Knob::Rate(Micro::Hash),
    Knob::Rate(Micro::NewGroups),
    Knob::Rate(Micro::Write),
    Knob::Rate(Micro::Divide),
    Knob::Rate(Micro::Text),
    Knob::Rate(Micro::Sort),
];

impl Effort {
    fn engine_limit(self) -> Duration {
        match self {
            Effort::Quick => Duration::from_millis(850),
            // Times are told in tests, not taken: all of it is to be done, on a slow machine too.
            Effort::Full => Duration::from_secs(if cfg!(test) { 120 } else { 8 }),
        }
    }

    /// Rows of the first table.
    pub(super) fn sizes(self) -> &'static [usize] {
        match self {
            Effort::Quick => &[1 << 13, 1 << 20, 1 << 17],
            Effort::Full => &[1 << 13, 1 << 21, 1 << 16, 1 << 19],
        }
    }

    /// Runs of each, at most.
    pub(super) fn runs(self) -> usize {
        match self {
            Effort::Quick => 3,
            Effort::Full => 6,
        }
    }
}

/// A profile with what graphs say; what they don't stays.
pub(super) fn measured(profile: Profile, runner: &mut dyn Runner, effort: Effort) -> Profile {
    let workers = profile.workers as usize;
    let mut bench = Bench {
        runner,
        began: Instant::now(),
        limit: effort.engine_limit(),
        effort,
        segments_max: 1,
        compiled: Vec::new(),
        samples: Vec::new(),
    };
    bench.time_queries(&mut || cool(workers));
    fitted(&profile, &KNOBS, &bench.samples)
}

impl Bench<'_> {
    /// What queries take; `before` each of their runs something else is done.
    pub(super) fn time_queries(&mut self, before: &mut dyn FnMut()) {
        let (effort, queries) = (self.effort, queries());
        let Some(smallest) = effort.sizes().first() else {
            return;
        };
        let mut tables = Tables::new(*smallest);
        for rows in effort.sizes() {
            if rows != smallest {
                tables = tables.resized(*rows);
            }
            for query in queries.iter().filter(|query| query.grows() || rows == smallest) {
                if self.is_over() {
                    return;
                }
                let samples = self.sampled(query, &tables, before);
                self.samples.extend(samples);
            }
        }
    }

    /// A query's fragments, as far as they are told apart; the whole of it where they are not.
    fn sampled(&mut self, query: &Query, tables: &Tables, before: &mut dyn FnMut()) -> Vec<Sample> {
        let bound = tables.bound(query);
        let Ok(first) = self.ready(&query.graph, &bound) else {
            return Vec::new();
        };
        let (mut whole_ms, mut parts_ms) = (first.ms, first.fragments_ms);
        for _ in 0..self.effort.runs() {
            before();
            let Ok(ran) = self.runner.run(&query.graph, &bound.inputs) else {
                return Vec::new();
            };
            whole_ms = whole_ms.min(ran.ms);
            for (least, ms) in parts_ms.iter_mut().zip(ran.fragments_ms) {
                *least = least.min(ms);
            }
            if self.is_over() {
                break;
            }
        }
        let sample = |fragment, ms| Sample {
            facts: bound.facts.clone(),
            fragment,
            ms,
        };
        match parts_ms.len() == query.graph.fragments.len() {
            true => (0..).zip(parts_ms).map(|(id, ms)| sample(Some(id), ms)).collect(),
            false => vec![sample(None, whole_ms)],
        }
    }
}

/// Reads other memory with so many threads, then lets workers fall asleep.
pub(super) fn cool(workers: usize) {
    let values = vec![1_u64; CACHED_BYTES / 8];
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                black_box(
                    black_box(&values)
                        .iter()
                        .fold(0_u64, |sum, value| sum.wrapping_add(*value)),
                )
            });
        }
    });
    std::thread::sleep(PAUSE);
}

#[cfg(test)]
mod tests;
