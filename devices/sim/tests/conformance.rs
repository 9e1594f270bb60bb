//! Lowered graphs against the naive interpreter of graphs, under drawn schedules: random graphs and the systematic matrix.
//!
//! `TRIREME_CONFORMANCE_CASES` random cases from `TRIREME_CONFORMANCE_SEED` instead of the usual few; every
//! `TRIREME_CONFORMANCE_EVERY`-th case of the matrix, all of it with `TRIREME_CONFORMANCE_FULL`, a part with
//! `TRIREME_CONFORMANCE_SHARD=1/20`; `TRIREME_SCHEDULES`
//! schedules of each family of kernels (the part `TRIREME_FAMILIES=1/8` of them), or of cases whose name has
//! `TRIREME_CONFORMANCE_NAME` in it; `TRIREME_SIM` is the device's script. `TRIREME_CONFORMANCE_SURVEY` goes on past
//! mismatches and prints so many of different sorts; with `TRIREME_CONFORMANCE_JOINS` of graphs with joins only.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panics")]

mod kit;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use kit::{Fresh, number};
use trireme_device_api::{AggregateFunction, Graph, Sink, Step};
use trireme_device_sim::Script;
use trireme_device_testkit::conformance::{Extent, Shard, check, check_all, check_within, matrix_cases, survey_where};
use trireme_device_testkit::generate::{self, Case};

fn script() -> Script {
    let text = std::env::var("TRIREME_SIM").unwrap_or_else(|_| "memory=64MiB".to_owned());
    text.parse().unwrap()
}

fn extent() -> Extent {
    if std::env::var_os("TRIREME_CONFORMANCE_FULL").is_some() {
        Extent::Full
    } else {
        Extent::Quick
    }
}

/// Larger tables take the interpreter of kernels minutes, and are for devices that compile.
const INTERPRETED_ROWS: usize = 210_000;

fn rows(case: &Case) -> usize {
    let tables = case.data.scans.iter().chain(&case.data.streams);
    tables.map(Vec::len).sum()
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn has_join(case: &Case) -> bool {
    let mut fragments = case.graph.fragments.iter();
    fragments.any(|fragment| fragment.steps.iter().any(|step| matches!(step, Step::Probe(_))))
}

#[test]
fn random_graphs() {
    let cases = usize::try_from(number("TRIREME_CONFORMANCE_CASES", 100)).unwrap();
    let seed = number("TRIREME_CONFORMANCE_SEED", 1);
    let summary = check(&Fresh::new(script()), seed, cases).unwrap();
    println!("seed {seed}: {summary}");
}

#[test]
fn systematic_graphs() {
    let every = usize::try_from(number("TRIREME_CONFORMANCE_EVERY", 24)).unwrap();
    let first = usize::try_from(number("TRIREME_CONFORMANCE_SEED", 1)).unwrap() % every;
    if let Some(shard) = Shard::from_env().unwrap() {
        let began = Instant::now();
        let left_out = AtomicUsize::new(0);
        let cases = shard.cases(Extent::Full).filter(|case| {
            let small = rows(case) <= INTERPRETED_ROWS;
            left_out.fetch_add(usize::from(!small), Ordering::Relaxed);
            small
        });
        let summary = check_within(&Fresh::new(script()), None, threads(), cases).unwrap();
        println!("{}", shard.report(&summary, began.elapsed()));
        println!(
            "left out: {} cases of more than {INTERPRETED_ROWS} rows",
            left_out.into_inner()
        );
        return;
    }
    let cases = matrix_cases(extent()).skip(first).step_by(every);
    let summary = check_all(&Fresh::new(script()), cases).unwrap();
    println!("each {every}-th from {first}: {summary}");
}

/// The kernel that runs programs, itself run by the interpreter: a few graphs, since one is as slow as the other.
#[test]
fn graphs_as_data() {
    let cases = usize::try_from(number("TRIREME_DATA_CASES", 3)).unwrap();
    let seed = number("TRIREME_CONFORMANCE_SEED", 1);
    let small = (seed..).map(generate::graph).filter(|case| rows(case) <= 60);
    let summary = check_all(&Fresh::as_data(script()), small.take(cases)).unwrap();
    println!("seed {seed}: {summary}");
    assert!(summary.rows > 0, "nothing ran: {summary}");
}

/// Rows put in order before every hash table, which here is never too large.
#[test]
fn graphs_in_order_of_hashes() {
    let cases = usize::try_from(number("TRIREME_ORDER_CASES", 60)).unwrap();
    let seed = number("TRIREME_CONFORMANCE_SEED", 1);
    let device = Fresh::in_order(script());
    let random = (seed..).map(generate::graph).filter(has_join).take(cases);
    println!("seed {seed}: {}", check_all(&device, random).unwrap());
    let every = usize::try_from(number("TRIREME_CONFORMANCE_EVERY", 24)).unwrap();
    let joins = matrix_cases(extent()).filter(has_join).skip(1).step_by(every);
    println!("{}", check_all(&device, joins).unwrap());
}

/// What decides which kernels a graph becomes.
fn family(graph: &Graph) -> String {
    let mut parts = Vec::new();
    for fragment in &graph.fragments {
        for step in &fragment.steps {
            if let Step::Probe(probe) = step {
                let kinds = [probe.residual.is_some(), probe.null_aware, probe.null_equals_null];
                parts.push(format!("{:?} probe by {} keys {kinds:?}", probe.kind, probe.keys.len()));
            }
        }
        parts.push(match &fragment.sink {
            Sink::Aggregate { groups, aggregates } => {
                let distinct = aggregates.iter().any(|aggregate| aggregate.distinct);
                let first = [AggregateFunction::First, AggregateFunction::Last];
                let ordered = aggregates.iter().any(|aggregate| first.contains(&aggregate.function));
                format!(
                    "aggregates by {} keys, distinct {distinct}, ordered {ordered}",
                    groups.len().min(2)
                )
            }
            Sink::Build(side) => format!("build by {} keys", side.keys.len()),
            Sink::Sort { limit, .. } => format!("sort, limited {}", limit.is_some()),
            Sink::Emit { limit, .. } => format!("emit, limited {}", limit.is_some()),
        });
    }
    parts.join("; ")
}

/// Enough for several groups of work-items and more than one tile each; a hundred schedules of more take hours.
const FAMILY_ROWS: usize = 1_000;

/// The case of each family in which most happens in few rows; its smallest where all have more.
fn families() -> BTreeMap<String, Case> {
    let mut found: BTreeMap<String, Case> = BTreeMap::new();
    if let Ok(part) = std::env::var("TRIREME_CONFORMANCE_NAME") {
        let named = matrix_cases(extent()).filter(|case| case.name.contains(&part));
        return named.map(|case| (case.name.clone(), case)).collect();
    }
    for case in matrix_cases(extent()) {
        let known = found.entry(family(&case.graph)).or_insert_with(|| case.clone());
        let better = match (rows(known), rows(&case)) {
            (known, rows) if rows <= FAMILY_ROWS => known < rows || known > FAMILY_ROWS,
            (known, rows) => rows < known,
        };
        if better {
            *known = case;
        }
    }
    found
}

#[test]
fn families_of_kernels_under_many_schedules() {
    let first = number("TRIREME_CONFORMANCE_SEED", 1);
    let schedules = number("TRIREME_SCHEDULES", 1);
    let part = std::env::var("TRIREME_FAMILIES").unwrap_or_else(|_| "1/1".to_owned());
    let families = families();
    let families: Vec<_> = part.parse::<Shard>().unwrap().part(families).collect();
    let began = Instant::now();
    let runs = families
        .iter()
        .flat_map(|family| (first..first + schedules).map(move |seed| (family, seed)));
    let runs = Mutex::new(runs);
    let next = || runs.lock().unwrap().next();
    let work = || {
        while let Some(((family, case), seed)) = next() {
            let script = Script {
                schedule: Some(seed),
                seed,
                ..script()
            };
            let mut devices = vec![Fresh::new(script.clone())];
            // Its hash tables are also filled in the order of hashes.
            devices.extend(has_join(case).then(|| Fresh::in_order(script)));
            for device in devices {
                let summary = check_all(&device, [case.clone()]);
                let summary = summary.unwrap_or_else(|mismatch| panic!("{family}, schedule {seed}: {mismatch}"));
                if seed == first && !summary.unsupported.is_empty() {
                    println!("{family}: {:?}", summary.unsupported);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        (0..threads()).for_each(|_| drop(scope.spawn(work)));
    });
    println!(
        "{} families (part {part}), schedules {first} … {}, in {:.1} minutes",
        families.len(),
        first + schedules - 1,
        began.elapsed().as_secs_f64() / 60.0
    );
}

#[test]
#[ignore = "for who mends kernels"]
fn a_survey_of_what_differs() {
    let cases = usize::try_from(number("TRIREME_CONFORMANCE_CASES", 300)).unwrap();
    let most = usize::try_from(number("TRIREME_CONFORMANCE_SURVEY", 10)).unwrap();
    let seed = number("TRIREME_CONFORMANCE_SEED", 1);
    let joins = std::env::var_os("TRIREME_CONFORMANCE_JOINS").is_some();
    let variant = Fresh::new(script());
    let (summary, found) = survey_where(&variant, (seed, cases), Some(extent()), most, &|case| {
        !joins || has_join(case)
    });
    for mismatch in &found {
        println!("{mismatch}");
    }
    println!("{summary}");
    assert!(found.is_empty(), "{} sorts of mismatches", found.len());
}
