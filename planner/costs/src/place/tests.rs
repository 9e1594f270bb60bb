//! Decisions over a small graph.

use trireme_device_api::{BuildSide, Expr, Fragment, GRAPH_VERSION, JoinKind, Probe, ScanSource, Sink, Step, Type};

use super::*;
use crate::catalogue::catalogue;
use crate::explain::{self, Reason};
use crate::facts::{ColumnFacts, Known, Rows, ScanFacts};
use crate::objective::Goal;

pub(crate) fn device(id: &str) -> Profile {
    catalogue().unwrap().into_iter().find(|device| device.id == id).unwrap()
}

fn column(index: usize) -> Expr {
    Expr::column(index, Type::Int32)
}

/// A build side, a probe that groups, a sort of the groups.
pub(crate) fn graph() -> Graph {
    let field = |name: &str| trireme_device_api::Field {
        name: name.to_owned(),
        data_type: Type::Int32,
        nullable: false,
    };
    let scan = |name: &str| ScanSource {
        name: name.to_owned(),
        columns: vec![field("key"), field("value")],
    };
    let fragment = |source, steps, sink| Fragment {
        source,
        steps,
        sink,
        output: Vec::new(),
    };
    let probe = Step::Probe(Probe {
        build: 0,
        kind: JoinKind::Inner,
        keys: vec![column(0)],
        residual: None,
        null_equals_null: false,
        null_aware: false,
    });
    let group = Sink::Aggregate {
        groups: vec![column(3)],
        aggregates: Vec::new(),
    };
    let sort = Sink::Sort {
        keys: Vec::new(),
        limit: None,
        offset: 0,
    };
    Graph {
        version: GRAPH_VERSION,
        fragments: vec![
            fragment(
                Source::Scan(0),
                Vec::new(),
                Sink::Build(BuildSide {
                    keys: vec![column(0)],
                    payload: vec![column(0), column(1)],
                }),
            ),
            fragment(Source::Scan(1), vec![probe], group),
            fragment(Source::Fragment(1), Vec::new(), sort),
        ],
        scans: vec![scan("orders"), scan("lines")],
        streams: Vec::new(),
        parameters: Vec::new(),
        output: Vec::new(),
    }
}

pub(crate) fn facts(rows: f64) -> Facts {
    let table = |rows: f64| ScanFacts {
        rows: Rows::exact(rows),
        columns: vec![
            ColumnFacts {
                distinct: Some(rows / 10.0),
                ..ColumnFacts::of_type(&Type::Int32)
            };
            2
        ],
    };
    Facts::of(&graph(), &[table(rows / 4.0), table(rows)], &[], &[], &Known::default())
}

fn decide(rows: f64, candidates: &[Candidate<'_>], objective: &Objective) -> Result<Decision, PlaceError> {
    place(&graph(), &facts(rows), candidates, &Environment::default(), objective)
}

fn reasons(rows: f64, decision: &Decision) -> Vec<Reason> {
    explain::rows(&facts(rows), decision)
        .into_iter()
        .map(|row| row.reason)
        .collect()
}

#[test]
fn large_resident_inputs_leave_the_processor_small_ones_stay() {
    let (host, gpu) = (device("cpu-2c"), device("gpu-h200"));
    let mut resident = Candidate::new(&gpu);
    resident.resident = vec![1.0, 1.0];
    let candidates = [Candidate::new(&host), resident];
    let large = decide(1e8, &candidates, &Objective::default()).unwrap();
    assert_eq!(large.chosen[..2], [1, 1]);
    assert_eq!(large.why, Why::Best);
    assert!(large.totals.ms < large.host.unwrap().ms / 5.0, "{:?}", large.totals);
    let small = decide(1e3, &candidates, &Objective::default()).unwrap();
    assert_eq!((small.chosen.as_slice(), small.why), (&[0, 0, 0][..], Why::Short));
    assert_eq!(small.labels, (0, 0));
}

#[test]
fn the_processor_is_left_only_for_a_gain() {
    let host = device("cpu-2c");
    let mut near = device("cpu-2c");
    near.id = "near".to_owned();
    let operations = &mut near.stream_bytes_per_second_by_carrier_bytes;
    *operations = operations.scaled(1.05);
    let candidates = [Candidate::new(&host), Candidate::new(&near)];
    let decision = decide(1e7, &candidates, &Objective::default()).unwrap();
    assert_eq!(
        (decision.chosen.as_slice(), decision.why),
        (&[0, 0, 0][..], Why::DoNoHarm)
    );
    let (chosen, totals) = decision.forgone.clone().unwrap();
    assert!(chosen.contains(&1) && totals.ms < decision.totals.ms);
    assert_eq!(reasons(1e7, &decision)[0], Reason::DoNoHarm);
    let eager = Objective {
        gain_share_min: 0.0,
        gain_ms_min: 0.0,
        gain_sigmas_min: 0.0,
        ..Objective::default()
    };
    assert_eq!(decide(1e7, &candidates, &eager).unwrap().why, Why::Best);
}

#[test]
fn what_a_device_cannot_run_stays_with_its_probes() {
    let (host, gpu) = (device("cpu-2c"), device("gpu-h200"));
    let mut candidate = Candidate::new(&gpu);
    candidate.resident = vec![1.0, 1.0];
    candidate.support = vec![Support::Unsupported {
        reason: "strings as keys".to_owned(),
    }];
    let decision = decide(1e8, &[Candidate::new(&host), candidate], &Objective::default()).unwrap();
    assert_eq!(decision.chosen[..2], [0, 0]);
    let rows = explain::rows(&facts(1e8), &decision);
    assert_eq!(
        (rows[1].reason, rows[1].detail.as_str()),
        (Reason::Unsupported, "strings as keys")
    );
    assert_eq!(rows[3].reason, Reason::KeptWith);
    assert_eq!(rows[3].detail, "it joins with fragment 0, which can't run there");
    assert_eq!(rows[3].cost, None);
    assert_eq!(rows[0].reason, Reason::Only);
}

#[test]
fn memory_is_a_limit() {
    let (host, gpu) = (device("cpu-2c"), device("gpu-h200"));
    let mut candidate = Candidate::new(&gpu);
    candidate.resident = vec![1.0, 1.0];
    candidate.free_bytes = 1e6;
    let decision = decide(1e8, &[Candidate::new(&host), candidate], &Objective::default()).unwrap();
    assert_eq!(decision.chosen, [0, 0, 0]);
    assert!(decision.options[0][1].as_ref().unwrap_err().contains("MiB of memory"));
}

#[test]
fn pins_are_kept_or_refused_with_the_reason() {
    let (host, gpu) = (device("cpu-2c"), device("gpu-h200"));
    let mut candidate = Candidate::new(&gpu);
    candidate.support = vec![
        Support::Supported,
        Support::Supported,
        Support::Unsupported {
            reason: "sorts by strings".to_owned(),
        },
    ];
    let candidates = [Candidate::new(&host), candidate];
    let pinned = |pins: &[Option<&str>]| Objective {
        pinned: pins.iter().map(|pin| pin.map(str::to_owned)).collect(),
        ..Objective::default()
    };
    let decision = decide(1e3, &candidates, &pinned(&[Some("gpu-h200")])).unwrap();
    assert_eq!(decision.chosen, [1, 1, 0]);
    assert_eq!(decision.host, None);
    let all = reasons(1e3, &decision);
    assert_eq!((all[0], all[1]), (Reason::PinnedElsewhere, Reason::Pinned));
    let refused = decide(1e3, &candidates, &pinned(&[None, None, Some("gpu-h200")])).unwrap_err();
    assert!(refused.to_string().contains("sorts by strings"), "{refused}");
    let unknown = decide(1e3, &candidates, &pinned(&[Some("tpu0")])).unwrap_err();
    assert!(unknown.to_string().contains("no such device"), "{unknown}");
    let apart = decide(1e3, &candidates, &pinned(&[Some("gpu-h200"), Some("cpu-2c")])).unwrap_err();
    assert!(apart.to_string().contains("with their probes"), "{apart}");
}

#[test]
fn objectives_choose_differently_and_keep_bounds() {
    let (host, mut gpu) = (device("cpu-16c"), device("gpu-h200"));
    gpu.price_usd_per_hour = 100.0;
    let mut candidate = Candidate::new(&gpu);
    candidate.resident = vec![0.0, 0.0];
    let candidates = [Candidate::new(&host), candidate];
    let of = |objective: &Objective| decide(1e8, &candidates, objective);
    let fast = of(&Objective::of(Goal::Latency)).unwrap();
    let cheap = of(&Objective::of(Goal::Cost)).unwrap();
    let frugal = of(&Objective::of(Goal::Energy)).unwrap();
    assert!(fast.totals.ms <= cheap.totals.ms && cheap.totals.usd <= fast.totals.usd);
    assert!(frugal.totals.joules <= fast.totals.joules);
    assert_ne!(fast.chosen, cheap.chosen);
    let bounded = Objective {
        max_usd: Some(cheap.totals.usd * 1.01),
        ..Objective::of(Goal::Latency)
    };
    assert!(of(&bounded).unwrap().totals.usd <= cheap.totals.usd * 1.01);
    let impossible = Objective {
        max_ms: Some(fast.totals.ms / 2.0),
        ..Objective::of(Goal::Cost)
    };
    let PlaceError::Infeasible { nearest, bounds, .. } = of(&impossible).unwrap_err() else {
        panic!("infeasible");
    };
    assert!((nearest.ms - fast.totals.ms).abs() < 1e-9, "{nearest:?}");
    assert!(bounds.ends_with(" ms"), "{bounds}");
}

#[test]
fn a_cold_kernel_is_paid_by_its_uses() {
    let (host, gpu) = (device("cpu-2c"), device("gpu-h200"));
    let mut candidate = Candidate::new(&gpu);
    candidate.resident = vec![1.0, 1.0];
    candidate.warm = false;
    let candidates = [Candidate::new(&host), candidate];
    let ms = |expected_uses: f64| {
        let environment = Environment {
            expected_uses,
            ..Environment::default()
        };
        let decision = place(&graph(), &facts(1e8), &candidates, &environment, &Objective::default()).unwrap();
        decision.options[1][1].as_ref().unwrap().compile_ms
    };
    assert!(ms(1.0) > 20.0 && (ms(1.0) / ms(100.0) - 100.0).abs() < 1e-6);
}

#[test]
fn others_on_a_device_delay_a_graph_once_and_move_it_away() {
    let (host, gpu) = (device("cpu-16c"), device("gpu-h200"));
    let total = |others: &[f64]| {
        let mut candidate = Candidate::new(&gpu);
        candidate.resident = vec![1.0, 1.0];
        candidate.others_ms = others.to_vec();
        let decision = decide(1e8, &[Candidate::new(&host), candidate], &Objective::default()).unwrap();
        let there = decision
            .options
            .iter()
            .map(|options| options[1].as_ref().unwrap().total_ms);
        (there.sum::<f64>(), decision.chosen)
    };
    let (idle_ms, chosen) = total(&[]);
    assert_eq!(chosen, [1, 1, 1]);
    // One that ends soon delays by its own time, one that lasts by ours: each in turn.
    let (soon_ms, _) = total(&[idle_ms / 10.0]);
    assert!((soon_ms - idle_ms * 1.1).abs() < 1e-6, "{soon_ms} {idle_ms}");
    let (shared_ms, _) = total(&[1e6]);
    assert!((shared_ms - idle_ms * 2.0).abs() < 1e-6, "{shared_ms} {idle_ms}");
    assert_eq!(total(&[1e6; 200]).1, [0, 0, 0]);
}

#[test]
fn the_processor_comes_first() {
    let gpu = device("gpu-h200");
    assert_eq!(
        decide(1.0, &[Candidate::new(&gpu)], &Objective::default()).unwrap_err(),
        PlaceError::Candidates
    );
    assert_eq!(
        decide(1.0, &[], &Objective::default()).unwrap_err(),
        PlaceError::Candidates
    );
}
