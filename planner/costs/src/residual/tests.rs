//! What is learned, and what is not trusted.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trireme_device_api::Source;

use super::*;
use crate::facts::{Rows, Work};
use crate::place::tests::device;
use crate::predict::{Surroundings, predict};

fn facts(rows: f64) -> FragmentFacts {
    FragmentFacts {
        text: String::new(),
        first: false,
        source: Source::Scan(0),
        builds: Vec::new(),
        sink: SinkKind::Total,
        source_rows: Rows::exact(rows),
        source_bytes: rows * 8.0,
        encoded_bytes: rows * 4.0,
        step_rows: Vec::new(),
        output_rows: Rows::exact(1.0),
        output_bytes: 8.0,
        table_bytes: 0.0,
        nodes: 5.0,
        work: Work {
            rows,
            streams: vec![(8.0, rows * 8.0)],
            ..Work::default()
        },
    }
}

/// Runs of random sizes; `truth` is observed over predicted.
fn learned(runs: usize, seed: u64, truth: impl Fn(f64, &mut StdRng) -> f64) -> Library {
    let cpu = device("cpu-2c");
    let mut random = StdRng::seed_from_u64(seed);
    let mut library = Library::default();
    for _ in 0..runs {
        let rows = 10_f64.powf(random.random_range(4.0..7.0));
        let bare = predict(&facts(rows), &cpu, &Surroundings::default());
        let observed_ms = bare.total_ms * truth(rows, &mut random);
        library.learn("cpu-2c", "fused", &facts(rows), &bare, observed_ms);
    }
    library
}

fn correction(library: &Library, rows: f64) -> f64 {
    let bare = predict(&facts(rows), &device("cpu-2c"), &Surroundings::default());
    library.corrected("cpu-2c", "fused", &facts(rows), bare).correction
}

#[test]
fn a_steady_error_is_learned_after_eight_runs() {
    let truth = |_: f64, _: &mut StdRng| 2.0;
    assert_eq!(correction(&learned(7, 1, truth), 1e5), 1.0);
    let twenty = correction(&learned(20, 1, truth), 1e5);
    assert!((1.8..2.2).contains(&twenty), "{twenty}");
}

#[test]
fn an_error_that_depends_on_the_size_is_learned() {
    // Too low by 2 at 10,000 rows, too high by 2 at 10 million.
    let truth = |rows: f64, _: &mut StdRng| 2.0 * 4_f64.powf(-(rows.log10() - 4.0) / 3.0);
    let library = learned(60, 2, truth);
    let (small, large) = (correction(&library, 2e4), correction(&library, 5e6));
    assert!(small > 1.4 && large < 0.75, "{small} {large}");
}

#[test]
fn noise_alone_is_not_used_or_stays_small() {
    let seed = rand::rng().random::<u64>();
    println!("seed {seed}");
    let truth = |_: f64, random: &mut StdRng| random.random_range(-0.3_f64..0.3).exp();
    let library = learned(100, seed, truth);
    for rows in [2e4, 1e5, 1e6, 5e6] {
        let factor = correction(&library, rows);
        assert!((0.8..1.25).contains(&factor), "seed {seed}: {factor} at {rows}");
    }
}

#[test]
fn corrections_are_bounded_and_stay_within_what_was_seen() {
    let library = learned(50, 3, |_, _| 100.0);
    assert!((correction(&library, 1e5) - FACTOR_MAX).abs() < 1e-9);
    assert_eq!(correction(&library, 1e9), 1.0);
    assert_eq!(correction(&library, 10.0), 1.0);
}

#[test]
fn old_runs_are_forgotten() {
    let cpu = device("cpu-2c");
    let mut library = learned(50, 4, |_, _| 0.5);
    let mut random = StdRng::seed_from_u64(5);
    for _ in 0..200 {
        let rows = 10_f64.powf(random.random_range(4.0..7.0));
        let bare = predict(&facts(rows), &cpu, &Surroundings::default());
        library.learn("cpu-2c", "fused", &facts(rows), &bare, bare.total_ms * 2.0);
    }
    let now = correction(&library, 1e5);
    assert!((1.7..2.3).contains(&now), "{now}");
}

#[test]
fn errors_fall_within_twenty_runs() {
    let truth =
        |rows: f64, random: &mut StdRng| 1.7 * (rows / 1e5).powf(0.1) * random.random_range(-0.05_f64..0.05).exp();
    let library = learned(20, 6, truth);
    let (_, model) = library.models().next().unwrap();
    assert!(
        model.corrected_error < 0.8 * model.bare_error,
        "{} {}",
        model.corrected_error,
        model.bare_error
    );
    assert_eq!(model.unused(), None);
}

#[test]
fn a_library_is_kept_as_json_and_reset() {
    let mut library = learned(20, 7, |_, _| 2.0);
    let text = library.to_json().unwrap();
    let again = Library::from_json(&text).unwrap();
    // Numbers may differ in their last bit.
    assert!((correction(&again, 1e5) - correction(&library, 1e5)).abs() < 1e-9);
    assert_eq!(again.models().next().unwrap().1.runs, 20);
    assert!(text.contains("cpu-2c/fused/total"), "{text}");
    let newer = text.replacen("\"version\": 2", "\"version\": 3", 1);
    assert!(matches!(
        Library::from_json(&newer),
        Err(LibraryError::Version { found: 3 })
    ));
    assert_eq!(library.reset("cuda0/"), 0);
    assert_eq!(library.reset("cpu-2c/"), 1);
    assert_eq!(correction(&library, 1e5), 1.0);
}

#[test]
fn what_was_learned_over_resident_columns_holds_for_running_where_they_are_not() {
    let accelerator = device("gpu-l4");
    let resident = Surroundings {
        device_share: 1.0,
        ..Surroundings::default()
    };
    let needs = FragmentFacts {
        text: "scan points".to_owned(),
        ..facts(1e6)
    };
    let (there, elsewhere) = (
        predict(&needs, &accelerator, &resident),
        predict(&needs, &accelerator, &Surroundings::default()),
    );
    let moved_ms = elsewhere.total_ms - there.total_ms;
    assert!(elsewhere.upload_ms > 0.0 && moved_ms > 0.0);
    let mut library = Library::default();
    for _ in 0..20 {
        library.learn("gpu-l4", "fused", &needs, &there, there.total_ms * 4.0);
    }
    let of = |library: &Library, bare| library.corrected("gpu-l4", "fused", &needs, bare).total_ms;
    let wanted_ms = of(&library, there) + moved_ms;
    assert!((of(&library, elsewhere) / wanted_ms - 1.0).abs() < 0.02, "{wanted_ms}");
    // Once it has run so, that is what counts.
    for _ in 0..20 {
        library.learn("gpu-l4", "fused", &needs, &elsewhere, elsewhere.total_ms * 1.5);
    }
    let found_ms = of(&library, elsewhere);
    assert!((found_ms / elsewhere.total_ms - 1.5).abs() < 0.15, "{found_ms}");
}

#[test]
fn impossible_runs_are_not_learned_from() {
    let cpu = device("cpu-2c");
    let bare = predict(&facts(1e5), &cpu, &Surroundings::default());
    let mut library = Library::default();
    for ms in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        library.learn("cpu-2c", "fused", &facts(1e5), &bare, ms);
    }
    assert_eq!(library.models().count(), 0);
}
