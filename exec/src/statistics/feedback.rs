//! Rows that sub-plans were seen to have, by fingerprint: what a run counted, the next plans by.
//!
//! A fingerprint (planner makes it) stands for a sub-plan whatever the order of its joins, with its literals and the version of
//! every file that it reads. So a count never goes stale: after a change nobody asks for it, and it is forgotten in time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;

/// Counts of sub-plans.
#[derive(Debug)]
pub struct Feedback {
    /// Sub-plans that are remembered; 0 is none.
    most: usize,
    held: AtomicUsize,
    state: Mutex<State>,
    hits: AtomicU64,
    learned: AtomicU64,
    forgotten: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    counts: HashMap<u64, Counted>,
    tick: u64,
}

/// What was counted of a sub-plan.
#[derive(Debug, Clone)]
pub struct Counted {
    /// Rows when it last ran.
    pub rows: f64,
    /// What was expected before anything was counted.
    pub expected: f64,
    /// Runs.
    pub runs: u64,
    /// Estimates that were made by it.
    pub uses: u64,
    /// When it last ran.
    pub at: SystemTime,
    /// What it is, for people.
    pub text: Arc<str>,
    /// When it was last touched.
    tick: u64,
}

/// Totals, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeedbackCounts {
    /// Sub-plans that are remembered.
    pub entries: u64,
    /// Estimates that were made by them.
    pub hits: u64,
    /// Counts that were taken.
    pub learned: u64,
    /// Sub-plans that were forgotten for others.
    pub forgotten: u64,
}

impl Default for Feedback {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Feedback {
    /// Remembers so many sub-plans.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            held: AtomicUsize::new(0),
            state: Mutex::default(),
            hits: AtomicU64::new(0),
            learned: AtomicU64::new(0),
            forgotten: AtomicU64::new(0),
        }
    }

    /// True when nothing is remembered at all, so that nobody needs to ask.
    pub fn is_empty(&self) -> bool {
        self.held.load(Ordering::Relaxed) == 0
    }

    /// False when it is switched off.
    pub fn learns(&self) -> bool {
        self.most > 0
    }

    /// Rows that a sub-plan had.
    pub fn rows(&self, fingerprint: u64) -> Option<f64> {
        if self.is_empty() {
            return None;
        }
        let mut state = self.state.lock();
        state.tick += 1;
        let tick = state.tick;
        let counted = state.counts.get_mut(&fingerprint)?;
        counted.tick = tick;
        counted.uses += 1;
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(counted.rows)
    }

    /// Takes what a run counted.
    pub fn learn(&self, fingerprint: u64, rows: f64, expected: f64, text: &Arc<str>) {
        if !self.learns() {
            return;
        }
        self.learned.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.lock();
        state.tick += 1;
        let tick = state.tick;
        let at = SystemTime::now();
        let fresh = Counted {
            rows,
            expected,
            runs: 0,
            uses: 0,
            at,
            text: Arc::clone(text),
            tick,
        };
        let counted = state.counts.entry(fingerprint).or_insert(fresh);
        (counted.rows, counted.at, counted.tick) = (rows, at, tick);
        counted.runs += 1;
        if state.counts.len() > self.most {
            self.forget_oldest(&mut state);
        }
        self.held.store(state.counts.len(), Ordering::Relaxed);
    }

    /// An eighth of the room is made at once, so that making it costs nothing per count.
    fn forget_oldest(&self, state: &mut State) {
        let mut ticks: Vec<u64> = state.counts.values().map(|counted| counted.tick).collect();
        let kept = self.most - self.most / 8;
        let gone = ticks.len() - kept.min(ticks.len());
        if gone == 0 {
            return;
        }
        let (_, last, _) = ticks.select_nth_unstable(gone - 1);
        let last = *last;
        state.counts.retain(|_, counted| counted.tick > last);
        self.forgotten.fetch_add(gone as u64, Ordering::Relaxed);
    }

    /// Totals.
    pub fn counts(&self) -> FeedbackCounts {
        let read = |of: &AtomicU64| of.load(Ordering::Relaxed);
        FeedbackCounts {
            entries: self.held.load(Ordering::Relaxed) as u64,
            hits: read(&self.hits),
            learned: read(&self.learned),
            forgotten: read(&self.forgotten),
        }
    }

    /// Everything that is remembered, the latest first.
    pub fn all(&self) -> Vec<(u64, Counted)> {
        let state = self.state.lock();
        let mut all: Vec<_> = state
            .counts
            .iter()
            .map(|(name, counted)| (*name, counted.clone()))
            .collect();
        all.sort_by_key(|(_, counted)| std::cmp::Reverse(counted.tick));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_bounded_and_the_untouched_go_first() {
        let feedback = Feedback::new(8);
        let text: Arc<str> = "part".into();
        for name in 0..8 {
            feedback.learn(name, 10.0, 1.0, &text);
        }
        assert_eq!(feedback.rows(0), Some(10.0));
        feedback.learn(8, 20.0, 1.0, &text);
        assert_eq!(feedback.counts().entries, 7);
        assert_eq!(feedback.counts().forgotten, 2);
        assert_eq!(feedback.rows(0), Some(10.0), "it was asked for");
        assert_eq!(feedback.rows(1), None);
        assert_eq!(feedback.rows(8), Some(20.0));
    }

    #[test]
    fn the_latest_count_holds() {
        let feedback = Feedback::new(8);
        let text: Arc<str> = "part".into();
        feedback.learn(1, 10.0, 1.0, &text);
        feedback.learn(1, 30.0, 10.0, &text);
        let all = feedback.all();
        assert_eq!((all[0].1.rows, all[0].1.expected, all[0].1.runs), (30.0, 1.0, 2));
    }

    #[test]
    fn none_is_remembered_when_it_is_off() {
        let feedback = Feedback::new(0);
        feedback.learn(1, 10.0, 1.0, &"part".into());
        assert_eq!(feedback.rows(1), None);
        assert_eq!(feedback.counts(), FeedbackCounts::default());
    }
}
