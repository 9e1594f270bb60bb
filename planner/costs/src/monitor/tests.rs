//! Planted surprises.

use super::*;
use crate::place::Why;
use crate::place::tests::{device, facts, graph};
use crate::profile::Profile;

fn candidates<'a>(host: &'a Profile, gpu: &'a Profile) -> Vec<Candidate<'a>> {
    let mut resident = Candidate::new(gpu);
    resident.resident = vec![1.0, 1.0];
    vec![Candidate::new(host), resident]
}

/// Large resident tables, all on the device.
fn placed(rows: f64) -> (Profile, Profile, Facts, Decision) {
    let (host, gpu) = (device("cpu-2c"), device("gpu-h200"));
    let facts = facts(rows);
    let decision = place(
        &graph(),
        &facts,
        &candidates(&host, &gpu),
        &Environment::default(),
        &Objective::default(),
    )
    .unwrap();
    (host, gpu, facts, decision)
}

fn ended(fragment: usize, facts: &Facts, decision: &Decision, rows_factor: f64, ms_factor: f64) -> Event {
    let cost = decision.options[fragment][decision.chosen[fragment]].as_ref().unwrap();
    Event::Ended {
        fragment,
        output_rows: facts.fragments[fragment].output_rows.rows * rows_factor,
        ms: cost.total_ms * ms_factor,
    }
}

#[test]
fn what_was_expected_triggers_nothing() {
    let (_, _, facts, decision) = placed(1e8);
    let mut monitor = Monitor::new(&facts);
    assert_eq!(
        monitor.see(&ended(0, &facts, &decision, 1.9, 1.9), &facts, &decision),
        None
    );
    let Some(Trigger::Rows { ratio, .. }) = monitor.see(&ended(1, &facts, &decision, 0.1, 1.0), &facts, &decision)
    else {
        panic!("rows");
    };
    assert!((ratio - 0.1).abs() < 1e-3);
    let late = ended(1, &facts, &decision, 1.0, 100.0);
    assert!(matches!(
        monitor.see(&late, &facts, &decision),
        Some(Trigger::Late { fragment: 1, .. })
    ));
    // Nothing remains after the last.
    assert_eq!(
        monitor.see(&ended(2, &facts, &decision, 100.0, 100.0), &facts, &decision),
        None
    );
}

#[test]
fn few_rows_and_little_time_are_never_a_reason() {
    let (_, _, facts, decision) = placed(1e3);
    assert_eq!(decision.why, Why::Short);
    let mut monitor = Monitor::new(&facts);
    assert_eq!(
        monitor.see(&ended(0, &facts, &decision, 3.0, 3.0), &facts, &decision),
        None
    );
}

#[test]
fn what_is_lost_is_left_and_its_rows_are_made_anew() {
    let (host, gpu, facts, decision) = placed(1e8);
    assert_eq!(decision.chosen[..2], [1, 1]);
    let mut monitor = Monitor::new(&facts);
    monitor.see(&ended(0, &facts, &decision, 1.0, 1.0), &facts, &decision);
    let lost = Event::Lost {
        device: "gpu-h200".to_owned(),
    };
    let trigger = monitor.see(&lost, &facts, &decision).unwrap();
    let environment = Environment::default();
    let again = monitor
        .resteer(
            trigger,
            &graph(),
            facts,
            &candidates(&host, &gpu),
            &environment,
            &decision,
        )
        .unwrap();
    assert!(again.moved && again.stay.is_none());
    assert_eq!(again.decision.chosen, [0, 0, 0]);
    assert!(again.decision.options[1][1].as_ref().unwrap_err().contains("lost"));
}

#[test]
fn what_does_not_fit_moves_with_its_build() {
    let (host, gpu, facts, decision) = placed(1e8);
    let mut monitor = Monitor::new(&facts);
    let trigger = monitor
        .see(&Event::OutOfMemory { fragment: 1 }, &facts, &decision)
        .unwrap();
    let environment = Environment::default();
    let again = monitor
        .resteer(
            trigger,
            &graph(),
            facts,
            &candidates(&host, &gpu),
            &environment,
            &decision,
        )
        .unwrap();
    assert_eq!(again.decision.chosen[..2], [0, 0]);
}

#[test]
fn fewer_rows_than_expected_stay_unless_moving_gains() {
    let (host, gpu, facts, decision) = placed(1e8);
    let mut monitor = Monitor::new(&facts);
    monitor.see(&ended(0, &facts, &decision, 1.0, 1.0), &facts, &decision);
    let trigger = monitor
        .see(&ended(1, &facts, &decision, 1e-3, 1.0), &facts, &decision)
        .unwrap();
    let environment = Environment::default();
    let again = monitor
        .resteer(
            trigger,
            &graph(),
            facts,
            &candidates(&host, &gpu),
            &environment,
            &decision,
        )
        .unwrap();
    // What ran stays; the sort moves only if that gains.
    assert_eq!(again.decision.chosen[..2], [1, 1]);
    let stay = again.stay.unwrap();
    assert!(again.go.ms <= stay.ms);
    assert!(!again.moved || again.go.ms < stay.ms * 0.9);
    assert_eq!(monitor.known().outputs.len(), 2);
}

#[test]
fn a_busy_device_is_left_when_waiting_takes_longer() {
    let (host, gpu, facts, decision) = placed(1e8);
    let of = |queue_ms: f64| {
        let mut monitor = Monitor::new(&facts);
        let busy = Event::Busy {
            device: "gpu-h200".to_owned(),
            queue_ms,
        };
        let trigger = monitor.see(&busy, &facts, &decision).unwrap();
        let (environment, candidates) = (Environment::default(), candidates(&host, &gpu));
        monitor
            .resteer(trigger, &graph(), facts.clone(), &candidates, &environment, &decision)
            .unwrap()
    };
    assert_eq!(of(0.001).decision.chosen, decision.chosen);
    let away = of(1e6);
    assert!(away.moved && away.decision.chosen == [0, 0, 0]);
    let unused = Event::Busy {
        device: "cpu-2c".to_owned(),
        queue_ms: 10.0,
    };
    let uses_host = decision.chosen.contains(&0);
    assert_eq!(
        Monitor::new(&facts).see(&unused, &facts, &decision).is_some(),
        uses_host
    );
}

#[test]
fn a_device_that_was_late_is_late_with_the_rest() {
    let (host, gpu, facts, _) = placed(1e8);
    let (environment, candidates, graph) = (Environment::default(), candidates(&host, &gpu), graph());
    let on = ["cpu-2c", "cpu-2c", "gpu-h200"].map(ToOwned::to_owned);
    let objective = Objective::default();
    let decision = super::placed(&graph, &facts, &candidates, &environment, &objective, &on).unwrap();
    assert_eq!(decision.chosen, [0, 0, 1]);
    let again = |factor: f64| {
        let mut monitor = Monitor::new(&facts);
        monitor.see(&ended(0, &facts, &decision, 1.0, factor), &facts, &decision);
        let trigger = Trigger::Late {
            fragment: 0,
            ratio: factor,
        };
        monitor
            .resteer(trigger, &graph, facts.clone(), &candidates, &environment, &decision)
            .unwrap()
    };
    let (calm, late) = (again(1.0), again(1000.0));
    let host_ms = |of: &Resteered| of.decision.options[2][0].as_ref().unwrap().total_ms;
    assert!(
        host_ms(&late) > 50.0 * host_ms(&calm),
        "{} {}",
        host_ms(&late),
        host_ms(&calm)
    );
}

#[test]
fn what_runs_is_not_moved() {
    let (host, gpu, facts, decision) = placed(1e8);
    let environment = Environment::default();
    let candidates = candidates(&host, &gpu);
    let busy = Event::Busy {
        device: "gpu-h200".to_owned(),
        queue_ms: 1e6,
    };
    let mut monitor = Monitor::new(&facts);
    (0..2).for_each(|id| monitor.started(id));
    let trigger = monitor.see(&busy, &facts, &decision);
    // Only a fragment that has not started can leave.
    let waits = decision.chosen[2] == 1;
    assert_eq!(trigger.is_some(), waits);
    let again = monitor
        .resteer(
            Trigger::Busy {
                device: "gpu-h200".to_owned(),
            },
            &graph(),
            facts,
            &candidates,
            &environment,
            &decision,
        )
        .unwrap();
    assert_eq!(again.decision.chosen[..2], decision.chosen[..2]);
}
