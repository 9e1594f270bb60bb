//! Placement put to the test: devices whose true rates are hidden from the model, and what the choice costs against the best.
//!
//! ```text
//!  catalogue ──perturbed──▶ true profiles ──formulas + what they leave out──▶ true times   (hidden)
//!      │                                                                          │
//!      └──────▶ the model's profiles ──▶ place ──▶ chosen ──── runs there ────────┤──▶ learned corrections
//!                                                                                 ▼
//!                     regret = true time of chosen / least true time of {chosen, all processor, all device, every single flip} − 1
//! ```
//!
//! The true times differ from the model's in three ways, so that the test is not circular: every rate is off by a factor of its
//! own; every (device, sink) has a bias that no rate explains; and a fragment's time bends with its shape by what the formulas
//! don't know. The random numbers are the caller's seed's.

use std::collections::HashMap;

use serde::Serialize;

use crate::facts::{Facts, FragmentFacts, SinkKind};
use crate::objective::Objective;
use crate::place::{Candidate, Decision, Environment, PlaceError, place};
use crate::predict::{Surroundings, predict, transfer};
use crate::profile::{Curve, Link, Operations, Profile};
use crate::residual::Library;
use crate::search::{Problem, islands};
use crate::{Totals, recorded::Query};

/// How far true devices are from what the model believes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Perturbation {
    /// Rates are off by up to this factor, log-uniformly.
    pub rate_factor: f64,
    /// A (device, sink) is off by up to this factor more.
    pub sink_factor: f64,
    /// A run is off by up to this factor more.
    pub noise_factor: f64,
}

impl Default for Perturbation {
    fn default() -> Self {
        Self {
            rate_factor: 1.6,
            sink_factor: 1.5,
            noise_factor: 1.05,
        }
    }
}

/// Numbers that look random: splitmix64.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 … 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Between 1 / `most` and `most`, log-uniformly.
    pub fn factor(&mut self, most: f64) -> f64 {
        most.powf(2.0 * self.share() - 1.0)
    }
}

/// A device as it really is.
#[derive(Debug, Clone)]
pub struct TrueDevice {
    profile: Profile,
    /// By sink: what no rate explains.
    bias: HashMap<SinkKind, f64>,
    noise_factor: f64,
}

impl TrueDevice {
    /// What the model believes, perturbed.
    pub fn new(believed: &Profile, perturbation: &Perturbation, chance: &mut Chance) -> Self {
        let sinks = [
            SinkKind::Total,
            SinkKind::Group,
            SinkKind::Build,
            SinkKind::Sort,
            SinkKind::Emit,
        ];
        Self {
            profile: perturbed(believed, perturbation.rate_factor, chance),
            bias: sinks
                .into_iter()
                .map(|sink| (sink, chance.factor(perturbation.sink_factor)))
                .collect(),
            noise_factor: perturbation.noise_factor,
        }
    }

    /// The time of a run there, without waits.
    fn ms(&self, needs: &FragmentFacts, around: &Surroundings, chance: &mut Chance) -> f64 {
        let cost = predict(needs, &self.profile, around);
        let bias = self.bias.get(&needs.sink).copied().unwrap_or(1.0);
        // Few rows of many cost more than the formulas know, many of many less.
        let kept = (needs.sink_rows().rows.max(1.0) / needs.source_rows.rows.max(1.0)).min(1.0);
        let bend = 1.15 - 0.3 * kept;
        (cost.total_ms - cost.kernel_ms) + cost.kernel_ms * bias * bend * chance.factor(self.noise_factor)
    }
}

fn perturbed(profile: &Profile, most: f64, chance: &mut Chance) -> Profile {
    let mut curve = |curve: &Curve| {
        let points = curve.points().iter().map(|(at, value)| (*at, *value));
        // Neighbours go together: one factor for the small, one for the large, a mixture between.
        let (small, large) = (chance.factor(most), chance.factor(most));
        let count = curve.points().len().max(2) - 1;
        let mixed = points.enumerate().map(|(index, (at, value))| {
            let share = index as f64 / count as f64;
            (at, value * small.powf(1.0 - share) * large.powf(share))
        });
        Curve::new(mixed.collect())
    };
    let stream = curve(&profile.stream_bytes_per_second_by_carrier_bytes);
    let random = curve(&profile.random_accesses_per_second_by_footprint_bytes);
    let updates = curve(&profile.group_updates_per_second_by_groups);
    let inserts = curve(&profile.inserts_per_second_by_footprint_bytes);
    let compile = curve(&profile.compile_ms_by_nodes);
    let mut link = |link: &Option<Link>| {
        link.as_ref().map(|link| Link {
            bytes_per_second_by_bytes: curve(&link.bytes_per_second_by_bytes),
            latency_ms: link.latency_ms,
        })
    };
    let (upload, download) = (link(&profile.upload), link(&profile.download));
    let mut of = |value: f64| value * chance.factor(most);
    let operations = &profile.operations;
    Profile {
        stream_bytes_per_second_by_carrier_bytes: stream,
        random_accesses_per_second_by_footprint_bytes: random,
        group_updates_per_second_by_groups: updates,
        inserts_per_second_by_footprint_bytes: inserts,
        compile_ms_by_nodes: compile,
        upload,
        download,
        write_bytes_per_second: of(profile.write_bytes_per_second),
        operations: Operations {
            simple_per_second: of(operations.simple_per_second),
            tests_per_second: of(operations.tests_per_second),
            gathers_per_second: of(operations.gathers_per_second),
            hashes_per_second: of(operations.hashes_per_second),
            new_groups_per_second: of(operations.new_groups_per_second),
            wide_per_second: of(operations.wide_per_second),
            text_bytes_per_second: of(operations.text_bytes_per_second),
            host_calls_per_second: of(operations.host_calls_per_second),
            comparisons_per_second: of(operations.comparisons_per_second),
        },
        decode_bytes_per_second: profile.decode_bytes_per_second.map(&mut of),
        start_ms: of(profile.start_ms),
        launch_ms: of(profile.launch_ms),
        sync_ms: of(profile.sync_ms),
        ..profile.clone()
    }
}

/// A machine: what the model believes of its devices, and how they are. The first is the processor.
#[derive(Debug, Clone)]
pub struct Machine {
    /// What the model knows.
    pub believed: Vec<Profile>,
    truth: Vec<TrueDevice>,
}

/// A query with true rows, and the rows that the model expects.
#[derive(Debug, Clone)]
pub struct Case<'a> {
    /// The query.
    pub query: &'a Query,
    /// True needs.
    pub truth: Facts,
    /// Expected needs.
    pub expected: Facts,
    /// Share of all columns that accelerators hold.
    pub resident_share: f64,
    /// Share of all columns that the host's memory holds.
    pub host_share: f64,
}

/// What a decision was worth.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// By fragment: the device.
    pub chosen: Vec<usize>,
    /// True time of what was chosen.
    pub chosen_ms: f64,
    /// Least true time of what it is compared with.
    pub best_ms: f64,
    /// That placement.
    pub best: Vec<usize>,
    /// True time of each device alone, where it can run all.
    pub alone_ms: Vec<f64>,
    /// Predicted time of what was chosen.
    pub predicted_ms: f64,
}

impl Outcome {
    /// What the choice lost, as a part of the best.
    pub fn regret(&self) -> f64 {
        self.chosen_ms / self.best_ms - 1.0
    }
}

impl Machine {
    /// Devices of the catalogue, each perturbed in its own way.
    pub fn new(believed: Vec<Profile>, perturbation: &Perturbation, chance: &mut Chance) -> Self {
        let truth = believed
            .iter()
            .map(|profile| TrueDevice::new(profile, perturbation, chance))
            .collect();
        Self { believed, truth }
    }

    /// Places a query, runs every alternative, learns from what was chosen.
    ///
    /// # Errors
    /// When it can't be placed.
    pub fn run(
        &self,
        case: &Case<'_>,
        objective: &Objective,
        library: &mut Library,
        chance: &mut Chance,
    ) -> Result<(Outcome, Decision), PlaceError> {
        let scans = case.query.graph.scans.len();
        let candidates: Vec<_> = self
            .believed
            .iter()
            .map(|profile| {
                let share = if profile.is_host() {
                    case.host_share
                } else {
                    case.resident_share
                };
                Candidate {
                    resident: vec![share; scans],
                    ..Candidate::new(profile)
                }
            })
            .collect();
        let environment = Environment {
            library: Some(library),
            ..Environment::default()
        };
        let decision = place(&case.query.graph, &case.expected, &candidates, &environment, objective)?;
        let problem = self.true_problem(case, chance);
        let outcome = compare(&problem, &decision);
        self.learn(case, &decision, &problem, library);
        Ok((outcome, decision))
    }

    /// Runs a query on a device alone, to learn: what a background job does with what wasn't chosen.
    ///
    /// # Errors
    /// When it can't be placed there.
    pub fn explore(
        &self,
        case: &Case<'_>,
        device: usize,
        library: &mut Library,
        chance: &mut Chance,
    ) -> Result<(), PlaceError> {
        let id = self.believed.get(device).map(|profile| profile.id.clone());
        let pinned = Objective {
            pinned: vec![id; case.truth.fragments.len()],
            ..Objective::default()
        };
        self.run(case, &pinned, library, chance).map(|_| ())
    }

    /// True times of every fragment everywhere.
    fn true_problem(&self, case: &Case<'_>, chance: &mut Chance) -> Problem {
        let count = self.truth.len();
        let totals = |ms: f64| Totals {
            ms,
            ..Totals::default()
        };
        let costs = case.truth.fragments.iter().map(|needs| {
            let of = |device: &TrueDevice| totals(device.ms(needs, &self.around(case, &device.profile), &mut *chance));
            self.truth.iter().map(of).map(Some).collect()
        });
        let costs = costs.collect();
        let between = |bytes: f64, from: usize, to: Option<usize>| {
            let to = to.map(|to| &self.truth[to].profile);
            totals(transfer(bytes, Some(&self.truth[from].profile), to).total_ms)
        };
        let moves = case.truth.fragments.iter().map(|needs| {
            let from = needs.source_fragment()?;
            let bytes = case.truth.fragments[from].output_bytes;
            let pairs = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
            let moved = pairs.map(|(from, to)| {
                if from == to {
                    totals(0.0)
                } else {
                    between(bytes, from, Some(to))
                }
            });
            Some((from, moved.collect()))
        });
        let builds: Vec<_> = case
            .truth
            .fragments
            .iter()
            .map(|needs| needs.builds.as_slice())
            .collect();
        let last_bytes = case.truth.fragments.last().map_or(0.0, |needs| needs.output_bytes);
        Problem {
            candidates: count,
            costs,
            islands: islands(&builds),
            moves: moves.collect(),
            results: (0..count).map(|from| between(last_bytes, from, None)).collect(),
            free_bytes: vec![f64::INFINITY; count],
        }
    }

    fn around(&self, case: &Case<'_>, device: &Profile) -> Surroundings {
        let host = &self.truth[0].profile;
        Surroundings {
            host_share: case.host_share,
            device_share: if device.is_host() { 0.0 } else { case.resident_share },
            host_decode_bytes_per_second: host.decode_bytes_per_second.unwrap_or(1e9) * f64::from(host.workers),
            ..Surroundings::default()
        }
    }

    /// From the fragments that ran, by the rows that were there.
    fn learn(&self, case: &Case<'_>, decision: &Decision, problem: &Problem, library: &mut Library) {
        for (id, needs) in case.truth.fragments.iter().enumerate() {
            let at = decision.chosen[id];
            let believed = &self.believed[at];
            let around = Surroundings {
                host_decode_bytes_per_second: self.believed[0].decode_bytes_per_second.unwrap_or(1e9)
                    * f64::from(self.believed[0].workers),
                ..self.around(case, believed)
            };
            let bare = predict(needs, believed, &around);
            if let Some(seen) = problem.costs[id][at] {
                library.learn(&believed.id, "fused", needs, &bare, seen.ms);
            }
        }
    }
}

/// Against each device alone, and every island flipped to every other device.
fn compare(problem: &Problem, decision: &Decision) -> Outcome {
    let ms = |chosen: &[usize]| problem.cost_of(chosen).map_or(f64::INFINITY, |totals| totals.ms);
    let fragments = decision.chosen.len();
    let alone: Vec<Vec<usize>> = (0..problem.candidates).map(|device| vec![device; fragments]).collect();
    let mut others = alone.clone();
    let mut of_islands = problem.islands.clone();
    of_islands.dedup();
    for base in alone.iter().chain([&decision.chosen]) {
        for island in &of_islands {
            for device in 0..problem.candidates {
                let flipped = base.iter().zip(&problem.islands);
                others.push(
                    flipped
                        .map(|(at, of)| if of == island { device } else { *at })
                        .collect(),
                );
            }
        }
    }
    let chosen_ms = ms(&decision.chosen);
    let mut best = (chosen_ms, decision.chosen.clone());
    for other in others {
        let other_ms = ms(&other);
        if other_ms < best.0 {
            best = (other_ms, other);
        }
    }
    Outcome {
        chosen: decision.chosen.clone(),
        chosen_ms,
        best_ms: best.0,
        best: best.1,
        alone_ms: alone.iter().map(|alone| ms(alone)).collect(),
        predicted_ms: decision.totals.ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::tests::device;
    use crate::recorded::Workload;

    fn queries() -> Vec<Query> {
        Workload::from_json(include_str!("../testdata/tpch.json"))
            .unwrap()
            .queries
    }

    fn case(query: &Query) -> Case<'_> {
        let facts = query.runs[2].facts(query);
        Case {
            query,
            truth: facts.clone(),
            expected: facts,
            resident_share: 1.0,
            host_share: 1.0,
        }
    }

    #[test]
    fn without_perturbation_there_is_no_regret() {
        let none = Perturbation {
            rate_factor: 1.0,
            sink_factor: 1.0,
            noise_factor: 1.0,
        };
        let mut chance = Chance::new(1);
        let machine = Machine::new(vec![device("cpu-2c"), device("gpu-h200")], &none, &mut chance);
        let greedy = Objective {
            gain_share_min: 0.0,
            gain_ms_min: 0.0,
            gain_sigmas_min: 0.0,
            search_ms_min: 0.0,
            ..Objective::default()
        };
        let mut regret = 0.0_f64;
        for query in &queries() {
            let mut library = Library::default();
            let (outcome, _) = machine.run(&case(query), &greedy, &mut library, &mut chance).unwrap();
            assert!(outcome.best_ms <= outcome.alone_ms[0] && outcome.best_ms <= outcome.alone_ms[1]);
            regret = regret.max(outcome.regret());
        }
        // Only the bend is left, which the model doesn't know.
        assert!(regret < 0.1, "{regret}");
    }

    #[test]
    fn hidden_rates_are_learned() {
        let mut chance = Chance::new(2);
        let believed = vec![device("cpu-16c"), device("gpu-l4")];
        let machine = Machine::new(believed, &Perturbation::default(), &mut chance);
        let queries = queries();
        let mut library = Library::default();
        let mut errors = Vec::new();
        for _ in 0..6 {
            let mut sum = 0.0;
            for query in &queries {
                let (outcome, _) = machine
                    .run(&case(query), &Objective::default(), &mut library, &mut chance)
                    .unwrap();
                sum += (outcome.predicted_ms / outcome.chosen_ms).ln().abs();
            }
            errors.push(sum / queries.len() as f64);
        }
        assert!(errors[5] < 0.8 * errors[0], "{errors:?}");
    }

    #[test]
    fn chance_is_a_seeds() {
        let (mut a, mut b) = (Chance::new(7), Chance::new(7));
        let factors: Vec<f64> = (0..1000).map(|_| a.factor(2.0)).collect();
        assert!(
            factors
                .iter()
                .all(|factor| (0.5..=2.0).contains(factor) && *factor == b.factor(2.0))
        );
        let mean = factors.iter().map(|factor| factor.ln()).sum::<f64>() / 1000.0;
        assert!(mean.abs() < 0.05, "{mean}");
    }
}
