//! What fragments ran and what they took, for `system.fragments`, and which graphs were placed anew while they ran, for
//! `system.resteers`: the latest ones.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use trireme_device_api::FragmentReport;

use crate::operators::Expected;

/// Fragments that are remembered.
const KEPT: usize = 2_000;

/// A fragment that ran.
#[derive(Debug, Clone)]
pub struct FragmentRun {
    /// Number of the graph's run in this process.
    pub run: u64,
    /// When it was done.
    pub at: SystemTime,
    /// Position in its graph.
    pub fragment: usize,
    /// What it does, as in EXPLAIN.
    pub text: String,
    /// The device it ran on.
    pub device: String,
    /// And how.
    pub variant: &'static str,
    /// From its preparation to its output; of several that ran as one, the last has the time of all.
    pub time: Duration,
    /// What the device counted.
    pub report: FragmentReport,
    /// Why it ran here and not on the device that was chosen.
    pub fallback: Option<String>,
    /// What planner expected of it.
    pub expected: Option<Expected>,
}

/// What has not started of a running graph was placed anew, or that was weighed.
#[derive(Debug, Clone)]
pub struct Resteer {
    /// Number of the graph's run in this process.
    pub run: u64,
    /// When.
    pub at: SystemTime,
    /// Since the graph began.
    pub since: Duration,
    /// Why, for people.
    pub trigger: String,
    /// The error that left no choice.
    pub fallback: Option<String>,
    /// Something runs elsewhere from now on.
    pub moved: bool,
    /// By fragment: the device it was on …
    pub before: Vec<String>,
    /// … and is on from now on.
    pub after: Vec<String>,
    /// What remains as it was, by what is known now, in milliseconds; none when it can't stay, or nothing is known.
    pub stay_ms: Option<f64>,
    /// The same as it is from now on, the cost of switching included.
    pub go_ms: Option<f64>,
}

impl Resteer {
    /// The fragments that move: `1, 2 cpu0 → opencl0`.
    pub fn moves(&self) -> String {
        let mut moves: Vec<(&str, &str, Vec<String>)> = Vec::new();
        for (id, (from, to)) in self.before.iter().zip(&self.after).enumerate() {
            if from == to {
                continue;
            }
            match moves.iter_mut().find(|(f, t, _)| f == from && t == to) {
                Some((_, _, ids)) => ids.push(id.to_string()),
                None => moves.push((from, to, vec![id.to_string()])),
            }
        }
        let each = moves
            .iter()
            .map(|(from, to, ids)| format!("{} {from} → {to}", ids.join(", ")));
        each.collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for Resteer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since_ms = self.since.as_secs_f64() * 1e3;
        write!(f, "after {since_ms:.1} ms {}: ", self.trigger)?;
        match self.moved {
            true => write!(f, "fragments {}", self.moves())?,
            false => f.write_str("stays")?,
        }
        match (self.stay_ms, self.go_ms) {
            (Some(stay), Some(go)) if self.moved => write!(f, ", {stay:.1} → {go:.1} ms expected"),
            (_, Some(go)) => write!(f, ", {go:.1} ms expected"),
            _ => Ok(()),
        }
    }
}

/// The latest runs.
#[derive(Default)]
pub struct History {
    runs: Mutex<VecDeque<FragmentRun>>,
    resteers: Mutex<VecDeque<Resteer>>,
}

fn push<T>(latest: &Mutex<VecDeque<T>>, one: T) {
    let mut latest = latest.lock();
    if latest.len() == KEPT {
        latest.pop_front();
    }
    latest.push_back(one);
}

impl History {
    pub(crate) fn add(&self, run: FragmentRun) {
        push(&self.runs, run);
    }

    pub(crate) fn add_resteer(&self, resteer: Resteer) {
        push(&self.resteers, resteer);
    }

    /// The latest runs, oldest first.
    pub fn latest(&self) -> Vec<FragmentRun> {
        self.runs.lock().iter().cloned().collect()
    }

    /// The latest looks at running graphs, oldest first.
    pub fn resteers(&self) -> Vec<Resteer> {
        self.resteers.lock().iter().cloned().collect()
    }
}
