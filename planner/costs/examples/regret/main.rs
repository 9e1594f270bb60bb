//! Placement's figures: regret on devices whose rates are hidden from the model, against simple rules, errors of predicted
//! times, small inputs, objectives, and what choosing takes. `regret [seeds]`; a line per figure, as all benchmarks have it.

mod figures;

use std::time::Instant;

use figures::{at_least, figure, percentile, sorted};
use trireme_costs::catalogue::{catalogue, described, reference};
use trireme_costs::recorded::{Query, Run, Workload};
use trireme_costs::simulate::{Case, Chance, Machine, Outcome, Perturbation};
use trireme_costs::{Candidate, Environment, Facts, Goal, Library, Objective, Profile, Surroundings, place, predict};

type Failure = Box<dyn std::error::Error>;

/// Runs of every case before its regret counts: what a server has seen after a while.
const ROUNDS: usize = 4;
/// Of the cases, so many are also run where they were not placed, to learn.
const EXPLORED: f64 = 0.1;
/// Options differ when the best is this much quicker than the processor, or it than the best device.
const DIFFERS: f64 = 1.1;

/// Machines: the processor, then accelerators.
const MACHINES: [&[&str]; 5] = [
    &["cpu-16c", "gpu-h200"],
    &["cpu-16c", "gpu-l4"],
    &["cpu-2c", "fpga-u55c"],
    &["cpu-48c", "gpu-a100-pcie"],
    &["cpu-16c", "gpu-t4", "fpga-agilex"],
];

/// Machines of three classes, each the best somewhere: a strong card beside a weak overlay, and the other way round.
const THREE_CLASSES: [&str; 2] = [
    r#"
[[device]]
like = "cpu-16c"
id = "cpu0"
[[device]]
like = "gpu-l4"
id = "gpu0"
[[device]]
like = "fpga-u55c"
id = "fpga0"
"#,
    r#"
[[device]]
like = "cpu-16c"
id = "cpu0"
[[device]]
like = "gpu-t4"
id = "gpu0"
memory_bytes_per_second = 60e9
cache_bytes_per_second = 200e9
operations_per_second = 2e11
link_bytes_per_second = 3e9
[[device]]
like = "fpga-u55c"
id = "fpga0"
memory_bytes_per_second = 1.2e12
cache_bytes_per_second = 4e12
operations_per_second = 2e12
link_bytes_per_second = 24e9
"#,
];

fn main() -> Result<(), Failure> {
    let seeds: u64 = std::env::args().nth(1).map_or(Ok(4), |text| text.parse())?;
    let workloads = workloads()?;
    let cases = cases(&workloads);
    figure("cases", cases.len() as f64, "", None);
    for (name, expected) in [("true_rows", false), ("estimated_rows", true)] {
        let machines: Result<Vec<_>, _> = MACHINES.into_iter().map(devices).collect();
        let outcomes = outcomes(&cases, &machines?, seeds, expected, &Objective::default())?;
        regret(name, &outcomes);
        if !expected {
            fools(&outcomes);
        }
    }
    three_classes(&cases, seeds)?;
    thresholds(&cases)?;
    predictions(&workloads);
    small_inputs(&workloads)?;
    objectives(&cases)?;
    overhead(&cases)
}

fn workloads() -> Result<Vec<Workload>, Failure> {
    let texts = [
        include_str!("../../testdata/tpch.json"),
        include_str!("../../testdata/ssb.json"),
        include_str!("../../testdata/clickbench.json"),
    ];
    texts.into_iter().map(|text| Ok(Workload::from_json(text)?)).collect()
}

/// Every query at the sizes it was recorded at and at larger ones, cold, in the host's memory, and resident.
fn cases(workloads: &[Workload]) -> Vec<Case<'_>> {
    let mut cases = Vec::new();
    for query in workloads.iter().flat_map(|workload| &workload.queries) {
        for run in sizes(query) {
            for (host_share, resident_share) in [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)] {
                cases.push(Case {
                    query,
                    truth: run.facts(query),
                    expected: run.estimated(query),
                    resident_share,
                    host_share,
                });
            }
        }
    }
    cases
}

fn sizes(query: &Query) -> Vec<Run> {
    let mut sizes = query.runs.clone();
    if let Some(last) = query.runs.last() {
        sizes.extend([10.0, 100.0].map(|factor| last.grown(factor)));
    }
    sizes
}

fn devices(ids: &[&str]) -> Result<Vec<Profile>, Failure> {
    let known = catalogue()?;
    let of = |id: &&str| known.iter().find(|device| device.id == **id).cloned();
    Ok(ids.iter().filter_map(of).collect())
}

/// Each case on each machine, before learning and after, with what a rule by rows would have chosen.
struct Seen {
    bare: Outcome,
    learned: Outcome,
    rows_max: f64,
}

fn outcomes(
    cases: &[Case<'_>],
    machines: &[Vec<Profile>],
    seeds: u64,
    expected: bool,
    objective: &Objective,
) -> Result<Vec<Seen>, Failure> {
    let mut seen = Vec::new();
    for seed in 0..seeds {
        for believed in machines {
            let mut chance = Chance::new(seed + 1);
            let machine = Machine::new(believed.clone(), &Perturbation::default(), &mut chance);
            let mut library = Library::default();
            let mut bare = Vec::new();
            let mut learned = Vec::new();
            for round in 0..=ROUNDS {
                for case in cases {
                    let case = Case {
                        expected: if expected {
                            case.expected.clone()
                        } else {
                            case.truth.clone()
                        },
                        ..case.clone()
                    };
                    if round == 0 {
                        let mut nothing = Library::default();
                        bare.push(machine.run(&case, objective, &mut nothing, &mut chance)?.0);
                    } else if round == ROUNDS {
                        learned.push(machine.run(&case, objective, &mut library.clone(), &mut chance)?.0);
                    } else {
                        let (outcome, _) = machine.run(&case, objective, &mut library, &mut chance)?;
                        let other = usize::from(outcome.chosen.iter().all(|device| *device == 0));
                        if chance.share() < EXPLORED {
                            // What doesn't fit there is not run there.
                            let _ = machine.explore(&case, other, &mut library, &mut chance);
                        }
                    }
                }
            }
            let rows = |case: &Case<'_>| {
                case.truth
                    .fragments
                    .iter()
                    .map(|needs| needs.source_rows.rows)
                    .fold(0.0, f64::max)
            };
            let pairs = bare.into_iter().zip(learned).zip(cases);
            seen.extend(pairs.map(|((bare, learned), case)| Seen {
                bare,
                learned,
                rows_max: rows(case),
            }));
        }
    }
    Ok(seen)
}

fn regret(name: &str, seen: &[Seen]) {
    for (stage, of) in [
        ("bare", (|seen| &seen.bare) as fn(&Seen) -> &Outcome),
        ("learned", |seen| &seen.learned),
    ] {
        let judged = stage == "learned";
        let target = |most: f64| judged.then_some(most);
        let all = || seen.iter().map(of);
        let regrets: Vec<f64> = sorted(all().map(Outcome::regret));
        let summed = all().map(|each| each.chosen_ms).sum::<f64>() / all().map(|each| each.best_ms).sum::<f64>() - 1.0;
        let geomean = (regrets.iter().map(|regret| regret.ln_1p()).sum::<f64>() / regrets.len() as f64).exp();
        figure(
            &format!("regret_{name}_{stage}_summed"),
            summed * 100.0,
            "%",
            target(5.0),
        );
        figure(&format!("regret_{name}_{stage}_geomean"), geomean, "×", target(1.03));
        figure(
            &format!("regret_{name}_{stage}_p95"),
            percentile(&regrets, 0.95) * 100.0,
            "%",
            target(25.0),
        );
        let beyond = sorted(all().map(|each| {
            if each.chosen_ms - each.best_ms <= 1.0 {
                0.0
            } else {
                each.regret()
            }
        }));
        figure(
            &format!("regret_{name}_{stage}_p95_beyond_1ms"),
            percentile(&beyond, 0.95) * 100.0,
            "%",
            None,
        );
        let harmed = all()
            .filter(|each| each.chosen_ms > each.alone_ms[0] * 1.1 + 2.0)
            .count();
        figure(
            &format!("harmed_{name}_{stage}"),
            100.0 * harmed as f64 / seen.len() as f64,
            "%",
            target(0.0),
        );
        if let Some(right) = right_device(all()) {
            at_least(
                &format!("right_device_{name}_{stage}"),
                right * 100.0,
                "%",
                judged.then_some(90.0),
            );
        }
    }
}

/// Of the cases in which the processor alone and the best device alone differ, the part in which the better one is nearer to
/// what was chosen.
fn right_device<'a>(all: impl Iterator<Item = &'a Outcome>) -> Option<f64> {
    let (mut differ, mut right) = (0.0, 0.0);
    for each in all {
        let (host, device) = (each.alone_ms[0], best_device_ms(each));
        if (host / device).max(device / host) <= DIFFERS {
            continue;
        }
        differ += 1.0;
        // A mixture that is at least as quick as the better of both is right too.
        right += f64::from(u8::from(each.chosen_ms <= host.min(device) * DIFFERS));
    }
    (differ > 0.0).then_some(right / differ)
}

fn best_device_ms(outcome: &Outcome) -> f64 {
    outcome.alone_ms.iter().skip(1).copied().fold(f64::INFINITY, f64::min)
}

/// Regret where processor, card and overlay are each the best alone in a third of the cases: rules of one device must lose.
fn three_classes(cases: &[Case<'_>], seeds: u64) -> Result<(), Failure> {
    let machines: Result<Vec<_>, _> = THREE_CLASSES.into_iter().map(described).collect();
    let mut classes: [Vec<Seen>; 3] = Default::default();
    for seen in outcomes(cases, &machines?, seeds.min(2), false, &Objective::default())? {
        let alone = seen.learned.alone_ms.iter().enumerate();
        let best = alone.min_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(class, _)| class);
        classes[best].push(seen);
    }
    let count = classes.iter().map(Vec::len).min().unwrap_or(0);
    if count == 0 {
        figure("three_classes_cases", 0.0, "", None);
        return Ok(());
    }
    // As many of each, spread over all.
    let spread = |class: Vec<Seen>| {
        let taken: Vec<usize> = (0..count).map(|at| at * class.len() / count).collect();
        let kept = class.into_iter().enumerate();
        kept.filter_map(|(at, seen)| taken.contains(&at).then_some(seen))
            .collect::<Vec<_>>()
    };
    let seen: Vec<Seen> = classes.into_iter().flat_map(spread).collect();
    figure("three_classes_cases", seen.len() as f64, "", None);
    let best: f64 = seen.iter().map(|each| each.learned.best_ms).sum();
    let summed = |of: Rule<'_>| seen.iter().map(of).sum::<f64>() / best - 1.0;
    let ours = summed(&|each| each.learned.chosen_ms);
    figure("three_classes_regret", ours * 100.0, "%", Some(5.0));
    let rules: [(&str, Rule<'_>); 5] = [
        ("processor", &|each| each.learned.alone_ms[0]),
        ("gpu", &|each| each.learned.alone_ms[1]),
        ("overlay", &|each| each.learned.alone_ms[2]),
        ("gpu_above_1M_rows", &|each| {
            each.learned.alone_ms[usize::from(each.rows_max > 1e6)]
        }),
        ("overlay_above_1M_rows", &|each| {
            each.learned.alone_ms[2 * usize::from(each.rows_max > 1e6)]
        }),
    ];
    let mut least = f64::INFINITY;
    for (name, rule) in rules {
        let regret = summed(rule);
        least = least.min(regret);
        figure(&format!("three_classes_regret_{name}"), regret * 100.0, "%", None);
    }
    figure("three_classes_regret_to_best_rule", ours / least, "×", Some(0.5));
    Ok(())
}

/// What a rule would have taken.
type Rule<'a> = &'a dyn Fn(&Seen) -> f64;

/// Rules that need no model: always the processor, always the first device, that device above a million rows.
fn fools(seen: &[Seen]) {
    let favoured = seen
        .iter()
        .filter(|each| best_device_ms(&each.learned) < each.learned.alone_ms[0])
        .count();
    at_least(
        "cases_that_favour_a_device",
        100.0 * favoured as f64 / seen.len() as f64,
        "%",
        Some(30.0),
    );
    let best: f64 = seen.iter().map(|each| each.learned.best_ms).sum();
    let summed = |of: Rule<'_>| seen.iter().map(of).sum::<f64>() / best - 1.0;
    let ours = summed(&|each| each.learned.chosen_ms);
    let rules: [(&str, Rule<'_>); 3] = [
        ("always_processor", &|each| each.learned.alone_ms[0]),
        ("always_device", &|each| each.learned.alone_ms[1]),
        ("device_above_1M_rows", &|each| {
            each.learned.alone_ms[usize::from(each.rows_max > 1e6)]
        }),
    ];
    let mut least = f64::INFINITY;
    for (name, rule) in rules {
        let regret = summed(rule);
        least = least.min(regret);
        figure(&format!("regret_{name}_summed"), regret * 100.0, "%", None);
    }
    figure("regret_to_best_rule", ours / least, "×", Some(0.5));
}

/// What leaving the processor must gain, and what is searched at all: why the defaults are what they are.
fn thresholds(cases: &[Case<'_>]) -> Result<(), Failure> {
    let machines: Result<Vec<_>, _> = MACHINES.into_iter().map(devices).collect();
    let machines = machines?;
    for (gain_ms_min, search_ms_min) in [(2.0, 5.0), (0.5, 1.0), (0.2, 0.5), (0.1, 0.2), (0.0, 0.0)] {
        let objective = Objective {
            gain_ms_min,
            search_ms_min,
            ..Objective::default()
        };
        let seen = outcomes(cases, &machines, 1, false, &objective)?;
        let all = || seen.iter().map(|seen| &seen.learned);
        let regrets = sorted(all().map(Outcome::regret));
        let lost_ms = all().map(|each| each.chosen_ms - each.best_ms).sum::<f64>() / seen.len() as f64;
        let harmed = all()
            .filter(|each| each.chosen_ms > each.alone_ms[0] * 1.1 + 0.2)
            .count();
        let name = format!("gain_{gain_ms_min}ms_search_{search_ms_min}ms");
        figure(
            &format!("{name}_regret_p95"),
            percentile(&regrets, 0.95) * 100.0,
            "%",
            None,
        );
        figure(&format!("{name}_lost"), lost_ms * 1e3, "us", None);
        let share = 100.0 * harmed as f64 / seen.len() as f64;
        figure(&format!("{name}_slower_by_10_percent_and_200us"), share, "%", None);
    }
    Ok(())
}

/// Times of the recorded fragments, as the formulas predict them on the machine where they ran.
fn predictions(workloads: &[Workload]) {
    let host = reference();
    for (name, ms_min) in [("all_fragments", 0.03), ("fragments_above_1ms", 1.0)] {
        let mut bare = Vec::new();
        let mut with_rows = Vec::new();
        let mut corrected = Vec::new();
        let unseen = unseen(workloads, &host, ms_min);
        let mut library = Library::default();
        for round in 0..3 {
            for query in workloads.iter().flat_map(|workload| &workload.queries) {
                for run in &query.runs {
                    let (truth, expected) = (run.facts(query), run.estimated(query));
                    for (id, ran) in run.fragments.iter().enumerate().filter(|(_, ran)| ran.ms >= ms_min) {
                        let ms = |facts: &Facts| predict(&facts.fragments[id], &host, &Surroundings::default());
                        let error = |predicted: f64| (predicted / ran.ms).max(ran.ms / predicted);
                        let predicted = ms(&truth);
                        let better = library.corrected(&host.id, "fused", &truth.fragments[id], predicted);
                        if round == 0 {
                            bare.push(error(predicted.total_ms));
                            with_rows.push(error(ms(&expected).total_ms));
                        }
                        if round == 2 {
                            corrected.push(error(better.total_ms));
                        }
                        library.learn(&host.id, "fused", &truth.fragments[id], &predicted, ran.ms);
                    }
                }
            }
        }
        for (kind, errors, targets) in [
            ("formulas", bare, (1.5, 3.0)),
            ("learned", corrected, (1.25, 2.0)),
            ("learned_of_other_queries", unseen, (1.25, 2.0)),
            ("estimated_rows", with_rows, (1.6, 5.0)),
        ] {
            let errors = sorted(errors.into_iter());
            figure(
                &format!("q_error_{name}_{kind}_median"),
                percentile(&errors, 0.5),
                "×",
                Some(targets.0),
            );
            figure(
                &format!("q_error_{name}_{kind}_p95"),
                percentile(&errors, 0.95),
                "×",
                Some(targets.1),
            );
        }
    }
}

/// The errors with what was learned of the other half of the queries only.
fn unseen(workloads: &[Workload], host: &Profile, ms_min: f64) -> Vec<f64> {
    let mut errors = Vec::new();
    for half in 0..2 {
        let mut library = Library::default();
        for learns in [true, false] {
            let queries = workloads.iter().flat_map(|workload| &workload.queries).enumerate();
            for (_, query) in queries.filter(|(at, _)| (at % 2 == half) == learns) {
                for run in &query.runs {
                    let truth = run.facts(query);
                    for (id, ran) in run.fragments.iter().enumerate().filter(|(_, ran)| ran.ms >= ms_min) {
                        let needs = &truth.fragments[id];
                        let bare = predict(needs, host, &Surroundings::default());
                        if learns {
                            library.learn(&host.id, "fused", needs, &bare, ran.ms);
                        } else {
                            let predicted = library.corrected(&host.id, "fused", needs, bare).total_ms;
                            errors.push((predicted / ran.ms).max(ran.ms / predicted));
                        }
                    }
                }
            }
        }
    }
    errors
}

/// TPC-H's first query over ever more rows, on devices as they are believed: where the device begins to be chosen.
fn small_inputs(workloads: &[Workload]) -> Result<(), Failure> {
    let devices = devices(&["cpu-16c", "gpu-h200"])?;
    let Some(query) = workloads[0].queries.iter().find(|query| query.name == "q01") else {
        return Ok(());
    };
    let run = &query.runs[2];
    let (mut crossing, mut lost_ms) = (0.0, 0.0_f64);
    for step in 0..=32 {
        let factor = 10_f64.powf(f64::from(step) / 4.0 - 6.0);
        let facts = run.grown(factor).facts(query);
        let mut resident = Candidate::new(&devices[1]);
        resident.resident = vec![1.0; query.graph.scans.len()];
        let candidates = [Candidate::new(&devices[0]), resident];
        let decision = place(
            &query.graph,
            &facts,
            &candidates,
            &Environment::default(),
            &Objective::default(),
        )?;
        let greedy = Objective {
            gain_share_min: 0.0,
            gain_ms_min: 0.0,
            gain_sigmas_min: 0.0,
            search_ms_min: 0.0,
            ..Objective::default()
        };
        let best = place(&query.graph, &facts, &candidates, &Environment::default(), &greedy)?;
        let lost = decision.totals.ms - best.totals.ms;
        if facts.fragments[0].source_rows.rows <= 1e6 && lost > best.totals.ms * 0.05 {
            lost_ms = lost_ms.max(lost);
        }
        if crossing == 0.0 && decision.chosen.contains(&1) {
            crossing = facts.fragments[0].source_rows.rows;
        }
    }
    figure("small_inputs_lost_to_1e6_rows", lost_ms, "ms", Some(1.0));
    figure("q01_rows_where_an_h200_is_chosen", crossing / 1e6, "million", None);
    Ok(())
}

/// What goals and bounds change, over the larger cases that are in the host's memory.
fn objectives(cases: &[Case<'_>]) -> Result<(), Failure> {
    let devices = devices(&["cpu-16c", "gpu-h200", "fpga-u55c"])?;
    let candidates: Vec<_> = devices.iter().map(Candidate::new).collect();
    let goals = [Goal::Latency, Goal::Cost, Goal::Energy, Goal::Balanced];
    let (mut changed, mut count, mut broken) = (0.0, 0.0, 0.0);
    for case in cases
        .iter()
        .filter(|case| case.host_share > 0.0 && case.resident_share == 0.0)
    {
        let of = |objective: &Objective| {
            place(
                &case.query.graph,
                &case.truth,
                &candidates,
                &Environment::default(),
                objective,
            )
        };
        let fast = of(&Objective::of(Goal::Latency))?;
        let chosen: Result<Vec<_>, _> = goals.into_iter().map(|goal| of(&Objective::of(goal))).collect();
        let chosen = chosen?;
        count += 1.0;
        changed += f64::from(u8::from(chosen.iter().any(|other| other.chosen != fast.chosen)));
        let bounded = Objective {
            max_ms: Some(fast.totals.ms * 1.2),
            ..Objective::of(Goal::Cost)
        };
        broken += f64::from(u8::from(of(&bounded)?.totals.ms > fast.totals.ms * 1.2));
    }
    figure("goals_that_change_the_placement", 100.0 * changed / count, "%", None);
    figure("bounds_broken", broken, "", Some(0.0));
    Ok(())
}

/// Facts and search of every case with four devices, none too short to be searched.
fn overhead(cases: &[Case<'_>]) -> Result<(), Failure> {
    let devices = devices(&["cpu-16c", "gpu-h200", "gpu-l4", "fpga-u55c"])?;
    let candidates: Vec<_> = devices.iter().map(Candidate::new).collect();
    let objective = Objective {
        search_ms_min: 0.0,
        ..Objective::default()
    };
    let mut facts_ms = Vec::new();
    let mut place_ms = Vec::new();
    for case in cases {
        let run = &case.query.runs[0];
        let start = Instant::now();
        let facts = run.estimated(case.query);
        facts_ms.push(start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        place(
            &case.query.graph,
            &facts,
            &candidates,
            &Environment::default(),
            &objective,
        )?;
        place_ms.push(start.elapsed().as_secs_f64() * 1e3);
    }
    for (name, times, targets) in [("facts", facts_ms, None), ("place", place_ms, Some((1.0, 5.0)))] {
        let times = sorted(times.into_iter());
        figure(
            &format!("{name}_p50"),
            percentile(&times, 0.5),
            "ms",
            targets.map(|(p50, _)| p50),
        );
        figure(
            &format!("{name}_p99"),
            percentile(&times, 0.99),
            "ms",
            targets.map(|(_, p99)| p99),
        );
    }
    Ok(())
}
