//! Watches a placed graph while it runs, and decides again on what remains when it runs differently from what was expected.
//!
//! ```text
//!  a fragment ends ──▶ rows outside [½, 2] of the estimate? time above 2 ×?  ──▶ true counts, search again on what remains
//!  a device        ──▶ out of memory, lost, busy?                            ──▶ without it, or with its queue
//! ```
//!
//! A running query changes devices only when that gains more than [`SWITCH_SHARE`] of what remains; a device that is lost or
//! too small leaves no choice. Fragments that ran or run stay where they are, and so do builds that later fragments probe. A
//! device whose fragments were late, by true counts, is taken to be late with the rest as well.

use trireme_device_api::{FragmentId, Graph, Support};

use crate::facts::{Facts, Rows};
use crate::objective::{Objective, Totals};
use crate::place::{Candidate, Decision, Environment, PlaceError, place};
use crate::search::islands;
use crate::split::CoExecution;

/// Rows are as expected within this factor.
pub const ROWS_FACTOR: f64 = 2.0;
/// Times are as expected below this factor.
pub const TIME_FACTOR: f64 = 2.0;
/// Less than this is never late.
pub const LATE_MS_MIN: f64 = 5.0;
/// Fewer rows than these more or less change nothing.
pub const ROWS_MIN: f64 = 10_000.0;
/// What remains must gain this part to be moved.
pub const SWITCH_SHARE: f64 = 0.1;
/// The least of its rates that a late device is taken to have left.
const FREE_SHARE_MIN: f64 = 1e-3;

/// The decision that a placement is: `on` has the device of each fragment. What is compared later begins with it.
///
/// # Errors
/// When a fragment can't be where it is, by what is known of the devices.
pub fn placed(
    graph: &Graph,
    facts: &Facts,
    candidates: &[Candidate<'_>],
    environment: &Environment<'_>,
    objective: &Objective,
    on: &[String],
) -> Result<Decision, PlaceError> {
    let pinned = Objective {
        goal: objective.goal,
        pinned: on.iter().cloned().map(Some).collect(),
        search_ms_min: 0.0,
        ..Objective::default()
    };
    let mut decision = place(graph, facts, candidates, environment, &pinned)?;
    decision.objective = objective.clone();
    Ok(decision)
}

/// What was seen.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A fragment ended: rows it left, and its time.
    Ended {
        /// The fragment.
        fragment: FragmentId,
        /// Rows it left.
        output_rows: f64,
        /// Its time.
        ms: f64,
    },
    /// A fragment didn't fit into the memory of its device.
    OutOfMemory {
        /// The fragment.
        fragment: FragmentId,
    },
    /// A fragment can't run on its device after all.
    Refused {
        /// The fragment.
        fragment: FragmentId,
        /// Why.
        reason: String,
    },
    /// A device takes no more work.
    Lost {
        /// Its id.
        device: String,
    },
    /// A device is taken by others for so long.
    Busy {
        /// Its id.
        device: String,
        /// Time.
        queue_ms: f64,
    },
}

/// Why the rest is decided anew.
#[derive(Debug, Clone, PartialEq)]
pub enum Trigger {
    /// Rows over the estimate, outside [½, 2].
    Rows {
        /// The fragment.
        fragment: FragmentId,
        /// Seen over expected.
        ratio: f64,
    },
    /// Time over the prediction, above 2.
    Late {
        /// The fragment.
        fragment: FragmentId,
        /// Seen over expected.
        ratio: f64,
    },
    /// A fragment didn't fit.
    OutOfMemory {
        /// The fragment.
        fragment: FragmentId,
    },
    /// A fragment can't run where it was.
    Refused {
        /// The fragment.
        fragment: FragmentId,
        /// Why.
        reason: String,
    },
    /// A device is lost.
    Lost {
        /// Its id.
        device: String,
    },
    /// A device is busy.
    Busy {
        /// Its id.
        device: String,
    },
}

impl Trigger {
    /// For people.
    pub fn text(&self) -> String {
        match self {
            Trigger::Rows { fragment, ratio } if *ratio < 1.0 => {
                format!("fragment {fragment} left {:.1} × fewer rows than expected", 1.0 / ratio)
            }
            Trigger::Rows { fragment, ratio } => format!("fragment {fragment} left {ratio:.1} × the rows expected"),
            Trigger::Late { fragment, ratio } => format!("fragment {fragment} took {ratio:.2} × the time expected"),
            Trigger::OutOfMemory { fragment } => format!("fragment {fragment} did not fit into the device's memory"),
            Trigger::Refused { fragment, reason } => format!("fragment {fragment} failed on its device: {reason}"),
            Trigger::Lost { device } => format!("{device} is lost"),
            Trigger::Busy { device } => format!("{device} is busy"),
        }
    }

    /// The fragments can't stay where they are.
    fn forces(&self) -> bool {
        matches!(
            self,
            Trigger::OutOfMemory { .. } | Trigger::Refused { .. } | Trigger::Lost { .. }
        )
    }
}

/// What is to happen with the rest of a query.
#[derive(Debug, Clone)]
pub struct Resteered {
    /// Why.
    pub trigger: Trigger,
    /// The new decision; its choices for fragments that ran are those they ran by.
    pub decision: Decision,
    /// What fragments need, with the counts that are known by now.
    pub facts: Facts,
    /// Whether anything moves.
    pub moved: bool,
    /// What remains, as it was placed, by what is known now; none when it can't stay.
    pub stay: Option<Totals>,
    /// The same as it is placed from now on.
    pub go: Totals,
}

/// Watches one run.
#[derive(Debug, Clone)]
pub struct Monitor {
    /// By fragment: rows it left and its time, when it ended.
    ended: Vec<Option<(f64, f64)>>,
    /// By fragment: it runs, or ran.
    started: Vec<bool>,
    /// By fragment: the first one that must be on the same device.
    islands: Vec<usize>,
    lost: Vec<String>,
    busy: Vec<(String, f64)>,
    /// Fragments that did not run, the devices where, and why.
    refused: Vec<(FragmentId, String, String)>,
}

impl Monitor {
    /// Of a run of these fragments.
    pub fn new(facts: &Facts) -> Self {
        let builds: Vec<_> = facts.fragments.iter().map(|needs| needs.builds.as_slice()).collect();
        Self {
            ended: vec![None; builds.len()],
            started: vec![false; builds.len()],
            islands: islands(&builds),
            lost: Vec::new(),
            busy: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// A fragment starts: it stays where it is.
    pub fn started(&mut self, fragment: FragmentId) {
        if let Some(started) = self.started.get_mut(fragment) {
            *started = true;
        }
    }

    /// A fragment that ran will run again: its rows are gone.
    pub fn again(&mut self, fragment: FragmentId) {
        if let (Some(started), Some(ended)) = (self.started.get_mut(fragment), self.ended.get_mut(fragment)) {
            *started = false;
            *ended = None;
        }
    }

    /// Notes what was seen; a reason to decide anew, if it is one.
    pub fn see(&mut self, event: &Event, facts: &Facts, decision: &Decision) -> Option<Trigger> {
        match event {
            Event::Ended {
                fragment,
                output_rows,
                ms,
            } => {
                *self.ended.get_mut(*fragment)? = Some((*output_rows, *ms));
                self.started[*fragment] = true;
                let is_last = self.ended.iter().all(Option::is_some);
                (!is_last).then(|| unexpected(*fragment, *output_rows, *ms, facts, decision))?
            }
            Event::OutOfMemory { fragment } => {
                let device = decision.devices.get(*decision.chosen.get(*fragment)?)?;
                let reason = "it did not fit into the device's memory".to_owned();
                self.refused.push((*fragment, device.clone(), reason));
                Some(Trigger::OutOfMemory { fragment: *fragment })
            }
            Event::Refused { fragment, reason } => {
                let device = decision.devices.get(*decision.chosen.get(*fragment)?)?;
                self.refused.push((*fragment, device.clone(), reason.clone()));
                Some(Trigger::Refused {
                    fragment: *fragment,
                    reason: reason.clone(),
                })
            }
            Event::Lost { device } => {
                self.lost.push(device.clone());
                Some(Trigger::Lost { device: device.clone() })
            }
            Event::Busy { device, queue_ms } => {
                self.busy.push((device.clone(), *queue_ms));
                let expects = decision.devices.iter().position(|each| each == device);
                let waits = |id: &usize| !self.started[*id] && Some(decision.chosen[*id]) == expects;
                (0..self.ended.len())
                    .any(|id| waits(&id))
                    .then(|| Trigger::Busy { device: device.clone() })
            }
        }
    }

    /// Decides anew on what has not ended. `facts` are those with the counts of what has: see [`Monitor::known`].
    ///
    /// # Errors
    /// When what remains can't be placed, or the objective's bounds can't be kept any more.
    pub fn resteer(
        &self,
        trigger: Trigger,
        graph: &Graph,
        facts: Facts,
        candidates: &[Candidate<'_>],
        environment: &Environment<'_>,
        before: &Decision,
    ) -> Result<Resteered, PlaceError> {
        let mut candidates = self.candidates_now(graph, candidates, before);
        let mut objective = Objective {
            search_ms_min: 0.0,
            pinned: self.pins(before),
            // What is shared is said before it runs; whoever shares it looks after it.
            co_execution: CoExecution::Off,
            ..before.objective.clone()
        };
        let mut decision = place(graph, &facts, &candidates, environment, &objective)?;
        if self.slow_down(&mut candidates, &decision, before) {
            decision = place(graph, &facts, &candidates, environment, &objective)?;
        }
        // What ran is paid for.
        let cost = |chosen: &[usize]| {
            decision
                .problem
                .cost_of(chosen)
                .map(|all| self.remaining(all, chosen, &decision, before))
        };
        let stay = cost(&before.chosen).filter(|_| !trigger.forces() || self.can_stay(before));
        let go = cost(&decision.chosen).unwrap_or(decision.totals);
        let goal = objective.goal;
        let gains = stay.is_none_or(|stay| goal.of(&go) < goal.of(&stay) * (1.0 - SWITCH_SHARE));
        let mut moved = decision.chosen != before.chosen;
        let mut go = go;
        if moved
            && !gains
            && let Some(stay) = stay
        {
            // It stays: pinned, so that inputs and totals are those of where it is.
            objective.pinned = before
                .chosen
                .iter()
                .map(|at| Some(before.devices[*at].clone()))
                .collect();
            decision = place(graph, &facts, &candidates, environment, &objective)?;
            (moved, go) = (false, stay);
        }
        // What is pinned for this search is not what the user pinned.
        decision.objective = before.objective.clone();
        Ok(Resteered {
            trigger,
            decision,
            facts,
            moved,
            stay,
            go,
        })
    }

    /// Counts of what has ended, to make facts with.
    pub fn known(&self) -> crate::facts::Known {
        let outputs = self.ended.iter().enumerate().filter_map(|(id, ended)| {
            let (rows, _) = (*ended)?;
            Some((id, Rows::exact(rows)))
        });
        crate::facts::Known {
            outputs: outputs.collect(),
            ..crate::facts::Known::default()
        }
    }

    /// Fragments that ran or run stay where they are; pins of the user stay as well, where they can be kept.
    fn pins(&self, before: &Decision) -> Vec<Option<String>> {
        let of = |id: usize| {
            let ran = self.started[id].then(|| before.devices[before.chosen[id]].clone());
            let pinned = before.objective.pinned.get(id).cloned().flatten();
            ran.or(pinned).filter(|device| !self.is_left(id, device))
        };
        (0..self.ended.len()).map(of).collect()
    }

    /// A fragment can't be on a device any more: it is lost, or refused what must be with it.
    fn is_left(&self, id: FragmentId, device: &String) -> bool {
        let refused = |(other, by, _): &(FragmentId, String, String)| {
            by == device && self.islands.get(*other) == self.islands.get(id)
        };
        self.lost.contains(device) || self.refused.iter().any(refused)
    }

    /// Takes from devices what they were late by, by true counts; false when none was.
    fn slow_down(&self, candidates: &mut [Candidate<'_>], now: &Decision, before: &Decision) -> bool {
        let mut slowed = false;
        for (at, candidate) in candidates.iter_mut().enumerate() {
            let device = &candidate.profile.id;
            let (mut took_ms, mut expected_ms) = (0.0, 0.0);
            for (id, ended) in self.ended.iter().enumerate() {
                let ran_here = before.devices.get(before.chosen[id]) == Some(device);
                if let (Some((_, ms)), true, Ok(cost)) = (ended, ran_here, &now.options[id][at]) {
                    took_ms += ms;
                    expected_ms += cost.total_ms;
                }
            }
            if took_ms > expected_ms * TIME_FACTOR && took_ms - expected_ms >= LATE_MS_MIN {
                candidate.free_share *= (expected_ms / took_ms).max(FREE_SHARE_MIN);
                slowed = true;
            }
        }
        slowed
    }

    fn candidates_now<'a>(&self, graph: &Graph, candidates: &[Candidate<'a>], before: &Decision) -> Vec<Candidate<'a>> {
        let refuse = |candidate: &mut Candidate<'a>, id: FragmentId, reason: &str| {
            candidate
                .support
                .resize(graph.fragments.len().max(candidate.support.len()), Support::Supported);
            candidate.support[id] = Support::Unsupported {
                reason: reason.to_owned(),
            };
        };
        let mut now = candidates.to_vec();
        for candidate in &mut now {
            let id = &candidate.profile.id;
            if let Some((_, queue_ms)) = self.busy.iter().rev().find(|(device, _)| device == id) {
                candidate.queue_ms = *queue_ms;
            }
            if self.lost.contains(id) {
                (0..graph.fragments.len()).for_each(|fragment| refuse(candidate, fragment, "the device is lost"));
            }
            for (fragment, device, reason) in &self.refused {
                if device == id && before.devices.contains(device) {
                    refuse(candidate, *fragment, reason);
                }
            }
        }
        now
    }

    /// Nothing that has to run, or to be read, is on a device that is lost or refused it.
    fn can_stay(&self, before: &Decision) -> bool {
        (0..self.ended.len()).all(|id| !self.is_left(id, &before.devices[before.chosen[id]]))
    }

    /// Of a placement's cost, what fragments take that haven't ended, or whose rows are lost.
    fn remaining(&self, all: Totals, chosen: &[usize], decision: &Decision, before: &Decision) -> Totals {
        let is_kept = |id: usize| !self.is_left(id, &before.devices[before.chosen[id]]);
        let ended = self.ended.iter().zip(chosen).enumerate();
        let spent = ended.filter(|(id, (ended, _))| ended.is_some() && is_kept(*id));
        let costs = spent.filter_map(|(id, (_, at))| decision.options[id][*at].as_ref().ok());
        costs.fold(all, |rest, cost| Totals {
            ms: rest.ms - cost.total_ms,
            usd: rest.usd - cost.usd,
            joules: rest.joules - cost.joules,
            device_bytes: rest.device_bytes,
        })
    }
}

/// Whether an ended fragment was other than expected, so that the rest may be better elsewhere.
fn unexpected(fragment: FragmentId, rows: f64, ms: f64, facts: &Facts, decision: &Decision) -> Option<Trigger> {
    let expected_rows = facts.fragments.get(fragment)?.output_rows.rows;
    let ratio = rows.max(1.0) / expected_rows.max(1.0);
    let matters = (rows - expected_rows).abs() >= ROWS_MIN;
    if matters && !(1.0 / ROWS_FACTOR..=ROWS_FACTOR).contains(&ratio) {
        return Some(Trigger::Rows { fragment, ratio });
    }
    let expected_ms = decision
        .options
        .get(fragment)?
        .get(decision.chosen[fragment])?
        .as_ref()
        .ok()?
        .total_ms;
    let ratio = ms / expected_ms.max(1e-6);
    (ratio > TIME_FACTOR && ms - expected_ms >= LATE_MS_MIN).then_some(Trigger::Late { fragment, ratio })
}

#[cfg(test)]
mod tests;
