//! What fragments ran and what they took, for `system.fragments`: the latest ones.

use std::collections::VecDeque;
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

/// The latest runs.
#[derive(Default)]
pub struct History {
    runs: Mutex<VecDeque<FragmentRun>>,
}

impl History {
    pub(crate) fn add(&self, run: FragmentRun) {
        let mut runs = self.runs.lock();
        if runs.len() == KEPT {
            runs.pop_front();
        }
        runs.push_back(run);
    }

    /// The latest runs, oldest first.
    pub fn latest(&self) -> Vec<FragmentRun> {
        self.runs.lock().iter().cloned().collect()
    }
}
