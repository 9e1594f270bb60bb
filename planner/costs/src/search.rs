//! The cheapest placement: label-setting dynamic programming over the fragments, in their order.
//!
//! ```text
//!  islands   a build side and all that probe it are on one device: fragments joined by probes are placed together
//!  state     the devices of islands that later fragments still belong to, or read from
//!  label     (ms, usd, joules, bytes by device) so far; per state only those that no other beats in all that matters, at most
//!            LABELS_MAX. What matters: the objective's own value, what has a bound, memory where it could run short
//!
//!   fragment 0 ──▶ states {cpu, gpu} ──fragment 1──▶ {cpu·cpu, cpu·gpu, gpu·cpu, gpu·gpu} ──(0 is read no more)──▶ {cpu, gpu} …
//! ```
//!
//! The result is exact as long as neither limit cuts; what was cut is counted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::objective::{Goal, Objective, Totals};

/// Labels kept per state.
pub(crate) const LABELS_MAX: usize = 32;
/// States kept per fragment: TPC-H's plans need at most 16 with four devices.
const STATES_MAX: usize = 1024;
/// Devices that are searched over.
pub(crate) const CANDIDATES_MAX: usize = 8;
/// An island that no later fragment needs.
const CLOSED: u8 = u8::MAX;

/// What there is to choose from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Problem {
    /// Devices.
    pub(crate) candidates: usize,
    /// By fragment and candidate: its cost; none where it can't run.
    pub(crate) costs: Vec<Vec<Option<Totals>>>,
    /// By fragment: its island.
    pub(crate) islands: Vec<usize>,
    /// By fragment: the fragment whose rows it reads, and by candidates from × to: what moving them costs.
    pub(crate) moves: Vec<Option<(usize, Vec<Totals>)>>,
    /// By candidate: what moving the result to the client costs.
    pub(crate) results: Vec<Totals>,
    /// By candidate: memory that is free.
    pub(crate) free_bytes: Vec<f64>,
}

/// A placement and its cost.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    /// By fragment.
    pub(crate) chosen: Vec<usize>,
    pub(crate) totals: Totals,
}

/// All placements that nothing beats.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Front {
    pub(crate) found: Vec<Found>,
    /// Labels looked at.
    pub(crate) labels: usize,
    /// Labels and states that the limits cut.
    pub(crate) cut: usize,
}

#[derive(Clone, Copy)]
struct Label {
    totals: Totals,
    bytes: [f64; CANDIDATES_MAX],
    /// The last choice in the trail.
    trail: usize,
}

/// A choice for an island, and the one before.
#[derive(Clone, Copy)]
struct Choice {
    before: usize,
    island: usize,
    candidate: u8,
}

impl Problem {
    /// The placements that nothing beats, with some fragments pinned to candidates.
    pub(crate) fn front(&self, pins: &[Option<usize>], objective: &Objective) -> Front {
        let mut front = Front::default();
        let mut trail: Vec<Choice> = Vec::new();
        let last_needed = self.last_needed();
        let matters = Matters::of(objective, self);
        let start = Label {
            totals: Totals::default(),
            bytes: [0.0; CANDIDATES_MAX],
            trail: usize::MAX,
        };
        let closed = vec![CLOSED; self.islands.len()];
        let mut states: HashMap<Vec<u8>, Vec<Label>> = HashMap::from([(closed, vec![start])]);
        for (fragment, costs) in self.costs.iter().enumerate() {
            let island = self.islands[fragment];
            let pin = pins.get(fragment).copied().flatten();
            let mut next: HashMap<Vec<u8>, Vec<Label>> = HashMap::new();
            for (state, labels) in states {
                let placed = state[island];
                for (candidate, cost) in (0_u8..).zip(costs) {
                    let Some(cost) = cost else { continue };
                    let elsewhere = placed != CLOSED && placed != candidate;
                    if elsewhere || pin.is_some_and(|pin| pin != usize::from(candidate)) {
                        continue;
                    }
                    let cost = cost.plus(self.moved(fragment, &state, candidate));
                    let mut key = state.clone();
                    key[island] = candidate;
                    for (each, needed) in key.iter_mut().zip(&last_needed) {
                        if *needed <= fragment {
                            *each = CLOSED;
                        }
                    }
                    let extended = self.extend(&labels, cost, candidate, placed == CLOSED, island, &mut trail);
                    front.labels += extended.len();
                    match next.entry(key) {
                        Entry::Vacant(entry) => {
                            entry.insert(extended);
                        }
                        Entry::Occupied(mut entry) => {
                            front.cut += merge(entry.get_mut(), extended, objective, &matters)
                        }
                    }
                }
            }
            front.cut += cut_states(&mut next, objective);
            states = next;
        }
        let results = states.into_values().flatten();
        front.found = results.map(|label| self.found(&label, &trail)).collect();
        front
    }

    /// The cost of a given placement; none when it isn't possible.
    pub(crate) fn cost_of(&self, chosen: &[usize]) -> Option<Totals> {
        let mut totals = Totals::default();
        for (fragment, costs) in self.costs.iter().enumerate() {
            let candidate = *chosen.get(fragment)?;
            totals = totals.plus((*costs.get(candidate)?)?);
            if let Some((from, moves)) = &self.moves[fragment] {
                totals = totals.plus(moves[chosen[*from] * self.candidates + candidate]);
            }
        }
        let last = chosen.last()?;
        Some(totals.plus(self.results[*last]))
    }

    /// By island: the last fragment that belongs to it, or reads from it; the client reads what the last one leaves.
    fn last_needed(&self) -> Vec<usize> {
        let mut needed = vec![0; self.islands.len()];
        for (fragment, island) in self.islands.iter().enumerate() {
            needed[*island] = fragment;
            if let Some((from, _)) = &self.moves[fragment] {
                needed[self.islands[*from]] = fragment;
            }
        }
        if let Some(last) = self.islands.last() {
            needed[*last] = self.islands.len();
        }
        needed
    }

    /// What it costs that a fragment's rows come from where they are.
    fn moved(&self, fragment: usize, state: &[u8], candidate: u8) -> Totals {
        let Some((from, moves)) = &self.moves[fragment] else {
            return Totals::default();
        };
        let at = state[self.islands[*from]];
        match at {
            // Its own island is placed by this very fragment.
            CLOSED => Totals::default(),
            at => moves[usize::from(at) * self.candidates + usize::from(candidate)],
        }
    }

    fn extend(
        &self,
        labels: &[Label],
        cost: Totals,
        candidate: u8,
        is_new: bool,
        island: usize,
        trail: &mut Vec<Choice>,
    ) -> Vec<Label> {
        let at = usize::from(candidate);
        let mut extended = Vec::with_capacity(labels.len());
        for label in labels {
            let mut bytes = label.bytes;
            bytes[at] += cost.device_bytes;
            if bytes[at] > self.free_bytes[at] {
                continue;
            }
            let mut last = label.trail;
            if is_new {
                trail.push(Choice {
                    before: last,
                    island,
                    candidate,
                });
                last = trail.len() - 1;
            }
            extended.push(Label {
                totals: label.totals.plus(cost),
                bytes,
                trail: last,
            });
        }
        extended
    }

    fn found(&self, label: &Label, trail: &[Choice]) -> Found {
        let mut of_island = vec![0_usize; self.islands.len()];
        let mut at = label.trail;
        while let Some(choice) = trail.get(at) {
            of_island[choice.island] = usize::from(choice.candidate);
            at = choice.before;
        }
        let chosen: Vec<_> = self.islands.iter().map(|island| of_island[*island]).collect();
        let result = chosen.last().map_or(Totals::default(), |last| self.results[*last]);
        Found {
            chosen,
            totals: label.totals.plus(result),
        }
    }
}

/// What one label must not be worse in to beat another.
struct Matters {
    ms: bool,
    usd: bool,
    joules: bool,
    /// Memory of some device could run short.
    bytes: bool,
}

impl Matters {
    fn of(objective: &Objective, problem: &Problem) -> Self {
        let goal = |goal: Goal| objective.goal == goal || objective.goal == Goal::Balanced;
        let most = |candidate: usize| -> f64 {
            let of = problem.costs.iter().filter_map(|costs| costs[candidate]);
            of.map(|cost| cost.device_bytes).sum()
        };
        Self {
            ms: goal(Goal::Latency) || objective.max_ms.is_some(),
            usd: goal(Goal::Cost) || objective.max_usd.is_some(),
            joules: goal(Goal::Energy) || objective.max_joules.is_some(),
            bytes: (0..problem.candidates).any(|candidate| most(candidate) > problem.free_bytes[candidate]),
        }
    }

    fn beats(&self, label: &Label, other: &Label) -> bool {
        let (a, b) = (&label.totals, &other.totals);
        (!self.ms || a.ms <= b.ms)
            && (!self.usd || a.usd <= b.usd)
            && (!self.joules || a.joules <= b.joules)
            && (!self.bytes || label.bytes.iter().zip(&other.bytes).all(|(a, b)| a <= b))
    }
}

/// Keeps what nothing beats; the number of labels that the limit cut.
fn merge(labels: &mut Vec<Label>, more: Vec<Label>, objective: &Objective, matters: &Matters) -> usize {
    for label in more {
        if labels.iter().any(|other| matters.beats(other, &label)) {
            continue;
        }
        labels.retain(|other| !matters.beats(&label, other));
        labels.push(label);
    }
    let cut = labels.len().saturating_sub(LABELS_MAX);
    if cut > 0 {
        let by = |value: fn(&Totals) -> f64| move |a: &Label, b: &Label| value(&a.totals).total_cmp(&value(&b.totals));
        // The least of each value stays, so that bounds on it can be kept.
        let values: [fn(&Totals) -> f64; 4] = [|t| t.ms, |t| t.usd, |t| t.joules, |t| t.device_bytes];
        let least: Vec<Label> = values
            .into_iter()
            .filter_map(|value| labels.iter().copied().min_by(by(value)))
            .collect();
        labels.sort_by(|a, b| objective.goal.of(&a.totals).total_cmp(&objective.goal.of(&b.totals)));
        labels.truncate(LABELS_MAX - values.len());
        labels.extend(least);
    }
    cut
}

fn cut_states(states: &mut HashMap<Vec<u8>, Vec<Label>>, objective: &Objective) -> usize {
    let cut = states.len().saturating_sub(STATES_MAX);
    if cut > 0 {
        let least = |labels: &[Label]| {
            labels
                .iter()
                .map(|label| objective.goal.of(&label.totals))
                .fold(f64::MAX, f64::min)
        };
        let mut values: Vec<f64> = states.values().map(|labels| least(labels)).collect();
        values.sort_by(f64::total_cmp);
        let most = values[STATES_MAX - 1];
        states.retain(|_, labels| least(labels) <= most);
    }
    cut
}

/// By fragment: the first fragment of its island, given the fragments that each probes.
pub(crate) fn islands(builds: &[&[usize]]) -> Vec<usize> {
    let mut island: Vec<usize> = (0..builds.len()).collect();
    for (fragment, builds) in builds.iter().enumerate() {
        for build in *builds {
            let (from, to) = (
                island[fragment].max(island[*build]),
                island[fragment].min(island[*build]),
            );
            island
                .iter_mut()
                .filter(|each| **each == from)
                .for_each(|each| *each = to);
        }
    }
    island
}

#[cfg(test)]
mod tests;
