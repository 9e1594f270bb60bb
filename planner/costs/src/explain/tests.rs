//! What users see.

use super::*;
use crate::objective::Objective;
use crate::place::tests::{device, facts, graph};
use crate::place::{Candidate, Environment, place};

fn decision(rows: f64) -> (Facts, Decision) {
    let (host, gpu) = (device("cpu-2c"), device("gpu-h200"));
    let mut resident = Candidate::new(&gpu);
    resident.resident = vec![1.0, 1.0];
    let candidates = [Candidate::new(&host), resident];
    let facts = facts(rows);
    let decision = place(
        &graph(),
        &facts,
        &candidates,
        &Environment::default(),
        &Objective::default(),
    )
    .unwrap();
    (facts, decision)
}

#[test]
fn a_row_for_each_fragment_and_candidate() {
    let (facts, decision) = decision(1e8);
    let rows = rows(&facts, &decision);
    assert_eq!(rows.len(), 3 * 2);
    for pair in rows.chunks(2) {
        assert_eq!(pair.iter().filter(|row| row.chosen).count(), 1);
    }
    // What wasn't chosen would take more, by as much as the margin says.
    let host = &rows[2];
    assert!(!host.chosen && host.margin_ms.unwrap() > 0.0);
    assert_eq!(host.reason, Reason::Worse);
    let pinned = Objective {
        pinned: vec![Some("cpu-2c".to_owned())],
        gain_share_min: 0.0,
        gain_ms_min: 0.0,
        gain_sigmas_min: 0.0,
        ..Objective::default()
    };
    let (cpu, gpu) = (device("cpu-2c"), device("gpu-h200"));
    let mut resident = Candidate::new(&gpu);
    resident.resident = vec![1.0, 1.0];
    let candidates = [Candidate::new(&cpu), resident];
    let other = place(&graph(), &facts, &candidates, &Environment::default(), &pinned).unwrap();
    assert!((other.totals.ms - decision.totals.ms - host.margin_ms.unwrap()).abs() < 1e-9);
}

#[test]
fn text_json_and_mermaid_name_the_same_devices() {
    let (facts, decision) = decision(1e8);
    let text = text(&facts, &decision);
    assert!(
        text.contains("fragment 1 on gpu-h200: lines → probe 0 → group"),
        "{text}"
    );
    assert!(text.contains("rows 100.0M (exact)"), "{text}");
    assert!(text.contains("* gpu-h200/fused"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&json(0, &facts, &decision, &[]).unwrap()).unwrap();
    assert_eq!(json["chosen"][1], "gpu-h200");
    assert_eq!(json["rows"].as_array().unwrap().len(), 6);
    assert!(json["rows"][3]["cost"]["kernel_ms"].as_f64().unwrap() > 0.0);
    let mermaid = mermaid(&facts, &decision);
    assert!(
        mermaid.contains("f0 -->|build| f1") && mermaid.contains("gpu-h200"),
        "{mermaid}"
    );
}
