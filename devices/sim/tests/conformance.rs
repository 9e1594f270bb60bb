//! Lowered graphs against the naive interpreter of graphs, under drawn schedules: random graphs and the systematic matrix.
//!
//! `TRIREME_CONFORMANCE_CASES` random cases from `TRIREME_CONFORMANCE_SEED` instead of the usual few; the whole matrix with
//! `TRIREME_CONFORMANCE_FULL`; `TRIREME_SIM` is the device's script. `TRIREME_CONFORMANCE_SURVEY` goes on past mismatches and
//! prints so many of different sorts; with `TRIREME_CONFORMANCE_JOINS` of graphs with joins only.

mod kit;

use kit::{Fresh, number};
use trireme_device_api::Step;
use trireme_device_sim::Script;
use trireme_device_testkit::conformance::{Extent, check, matrix, survey_where};
use trireme_device_testkit::generate::Case;

fn script() -> Script {
    let text = std::env::var("TRIREME_SIM").unwrap_or_else(|_| "memory=16MiB".to_owned());
    text.parse().unwrap()
}

fn extent() -> Extent {
    if std::env::var_os("TRIREME_CONFORMANCE_FULL").is_some() {
        Extent::Full
    } else {
        Extent::Quick
    }
}

fn has_join(case: &Case) -> bool {
    let mut fragments = case.graph.fragments.iter();
    fragments.any(|fragment| fragment.steps.iter().any(|step| matches!(step, Step::Probe(_))))
}

#[test]
fn random_graphs() {
    let cases = usize::try_from(number("TRIREME_CONFORMANCE_CASES", 150)).unwrap();
    let seed = number("TRIREME_CONFORMANCE_SEED", 1);
    let summary = check(&Fresh::new(script()), seed, cases).unwrap();
    println!("seed {seed}: {summary}");
}

#[test]
fn systematic_graphs() {
    let summary = matrix(&Fresh::new(script()), extent()).unwrap();
    println!("{summary}");
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
