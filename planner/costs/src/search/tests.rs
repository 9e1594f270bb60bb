//! The search against enumeration.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::objective::Goal;

/// A random DAG: fragments read from or probe earlier ones, some can't run everywhere.
fn random_problem(random: &mut StdRng) -> Problem {
    let candidates = random.random_range(1..=4);
    let count = random.random_range(1..=7);
    let mut builds: Vec<Vec<usize>> = Vec::new();
    let mut moves = Vec::new();
    let mut costs = Vec::new();
    for id in 0..count {
        let any = |random: &mut StdRng| random.random_range(0..id);
        builds.push(if id > 0 && random.random_bool(0.3) {
            vec![any(random)]
        } else {
            Vec::new()
        });
        let from = (id > 0 && random.random_bool(0.6)).then(|| any(random));
        moves.push(from.map(|from| {
            let pairs = (0..candidates * candidates).map(|pair| match pair / candidates == pair % candidates {
                true => Totals::default(),
                false => totals(random),
            });
            (from, pairs.collect())
        }));
        let of = (0..candidates).map(|candidate| {
            let mut cost = totals(random);
            cost.device_bytes = if candidate == 0 {
                0.0
            } else {
                random.random_range(0..10_i32).into()
            };
            (candidate == 0 || random.random_bool(0.8)).then_some(cost)
        });
        costs.push(of.collect());
    }
    let builds: Vec<&[usize]> = builds.iter().map(Vec::as_slice).collect();
    let mut free_bytes = vec![25.0; candidates];
    free_bytes[0] = f64::INFINITY;
    Problem {
        candidates,
        costs,
        islands: islands(&builds),
        moves,
        results: (0..candidates).map(|_| totals(random)).collect(),
        free_bytes,
    }
}

/// Small whole numbers, so that sums are exact in any order.
fn totals(random: &mut StdRng) -> Totals {
    let mut whole = || f64::from(random.random_range(0..20_i32));
    Totals {
        ms: whole(),
        usd: whole(),
        joules: whole(),
        device_bytes: 0.0,
    }
}

/// Every placement that is possible.
fn all(problem: &Problem, pins: &[Option<usize>]) -> Vec<Found> {
    let count = problem.costs.len();
    let mut found = Vec::new();
    for number in 0..problem.candidates.pow(u32::try_from(count).unwrap()) {
        let chosen: Vec<usize> = (0..count)
            .map(|id| number / problem.candidates.pow(u32::try_from(id).unwrap()) % problem.candidates)
            .collect();
        let together = (0..count).all(|id| chosen[id] == chosen[problem.islands[id]]);
        let pinned = pins
            .iter()
            .zip(&chosen)
            .all(|(pin, chosen)| pin.is_none_or(|pin| pin == *chosen));
        let Some(totals) = problem.cost_of(&chosen) else {
            continue;
        };
        let fits = (0..problem.candidates).all(|candidate| {
            let of = chosen.iter().enumerate().filter(|(_, chosen)| **chosen == candidate);
            let bytes: f64 = of
                .map(|(id, _)| problem.costs[id][candidate].unwrap().device_bytes)
                .sum();
            bytes <= problem.free_bytes[candidate]
        });
        if together && pinned && fits {
            found.push(Found { chosen, totals });
        }
    }
    found
}

#[test]
fn finds_what_enumeration_finds() {
    let seed = rand::rng().random::<u64>();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut exact = 0;
    for round in 0..300 {
        let problem = random_problem(&mut random);
        let mut pins = vec![None; problem.costs.len()];
        if random.random_bool(0.3) {
            pins[0] = Some(0);
        }
        let every = all(&problem, &pins);
        for goal in [Goal::Latency, Goal::Cost, Goal::Energy] {
            let objective = Objective::of(goal);
            let front = problem.front(&pins, &objective);
            assert_eq!(front.found.is_empty(), every.is_empty(), "seed {seed} round {round}");
            let least = |found: &[Found]| {
                found
                    .iter()
                    .map(|found| goal.of(&found.totals))
                    .fold(f64::MAX, f64::min)
            };
            if front.cut == 0 {
                exact += 1;
                assert_eq!(
                    least(&front.found),
                    least(&every),
                    "seed {seed} round {round} {goal:?} {problem:?}"
                );
            }
            for found in &front.found {
                assert_eq!(
                    problem.cost_of(&found.chosen),
                    Some(found.totals),
                    "seed {seed} round {round}"
                );
            }
        }
    }
    assert!(exact > 800, "{exact}");
}

#[test]
fn keeps_what_bounds_need() {
    let seed = rand::rng().random::<u64>();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut bounded = 0;
    for round in 0..300 {
        let problem = random_problem(&mut random);
        let every = all(&problem, &[]);
        // The fastest of those that spend at most the median.
        let mut spent: Vec<f64> = every.iter().map(|found| found.totals.usd).collect();
        spent.sort_by(f64::total_cmp);
        let objective = Objective {
            max_usd: Some(spent[spent.len() / 2]),
            ..Objective::default()
        };
        let within = |found: &&Found| objective.excess(&found.totals) <= 1.0;
        let least = |found: &[Found]| {
            found
                .iter()
                .filter(within)
                .map(|found| found.totals.ms)
                .fold(f64::MAX, f64::min)
        };
        let front = problem.front(&[], &objective);
        if front.cut == 0 {
            bounded += 1;
            assert_eq!(least(&front.found), least(&every), "seed {seed} round {round}");
        }
    }
    assert!(bounded > 200, "{bounded}");
}

#[test]
fn builds_and_probes_are_islands() {
    assert_eq!(islands(&[&[], &[0], &[], &[2], &[1, 3]]), [0, 0, 0, 0, 0]);
    assert_eq!(islands(&[&[], &[0], &[], &[2]]), [0, 0, 2, 2]);
}

#[test]
fn limits_cut_and_say_so() {
    let mut random = StdRng::seed_from_u64(1);
    let count = 40;
    let costs = (0..count)
        .map(|_| (0..4).map(|_| Some(totals(&mut random))).collect())
        .collect();
    let problem = Problem {
        candidates: 4,
        costs,
        islands: (0..count).collect(),
        moves: vec![None; count],
        results: vec![Totals::default(); 4],
        free_bytes: vec![f64::INFINITY; 4],
    };
    // Balanced: all three values matter.
    let front = problem.front(&[], &Objective::of(Goal::Balanced));
    assert!(front.cut > 0 && !front.found.is_empty() && front.found.len() <= LABELS_MAX * 4);
    let fastest: f64 = (0..count)
        .map(|id| {
            problem.costs[id]
                .iter()
                .flatten()
                .map(|cost| cost.ms)
                .fold(f64::MAX, f64::min)
        })
        .sum();
    let least = front.found.iter().map(|found| found.totals.ms).fold(f64::MAX, f64::min);
    assert_eq!(least, fastest);
}
