//! Shows a decision: one row per fragment and candidate with every number, as a tree of text, JSON, or Mermaid.
//!
//! A row's margin is what the whole query would take more if the fragment were put there, the others then chosen anew.

use std::fmt::Write as _;

use serde::Serialize;

use crate::facts::{Facts, RowsFrom};
use crate::place::{Decision, KEPT_WITH, Why};
use crate::predict::Prediction;

/// Why a candidate was chosen for a fragment, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It is part of the best placement.
    Best,
    /// It was demanded.
    Pinned,
    /// It runs a part of the rows, the processor the others.
    Shared,
    /// There is nothing else that can run it.
    Only,
    /// The processor ends so soon that nothing was searched.
    ShortQuery,
    /// The best placement gains too little over the processor's.
    DoNoHarm,
    /// The whole would be worse.
    Worse,
    /// Another device was demanded.
    PinnedElsewhere,
    /// The device can't run it.
    Unsupported,
    /// Its build side or probes can't run there.
    KeptWith,
    /// No placement with it is within the bounds.
    OutOfBounds,
}

impl Reason {
    /// As in EXPLAIN.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Best => "best",
            Reason::Pinned => "pinned",
            Reason::Shared => "shared",
            Reason::Only => "only",
            Reason::ShortQuery => "short_query",
            Reason::DoNoHarm => "do_no_harm",
            Reason::Worse => "worse",
            Reason::PinnedElsewhere => "pinned_elsewhere",
            Reason::Unsupported => "unsupported",
            Reason::KeptWith => "kept_with",
            Reason::OutOfBounds => "out_of_bounds",
        }
    }
}

/// A fragment on a candidate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The fragment.
    pub fragment: usize,
    /// What it does.
    pub text: String,
    /// Id of the device.
    pub device: String,
    /// Variant.
    pub variant: String,
    /// The fragment runs there.
    pub chosen: bool,
    /// Why, or why not.
    pub reason: Reason,
    /// More about it, for people.
    pub detail: String,
    /// Rows of the source, and where the count comes from.
    pub source_rows: f64,
    /// Of these.
    pub source_rows_from: RowsFrom,
    /// Rows it leaves, and where the count comes from.
    pub output_rows: f64,
    /// Of these.
    pub output_rows_from: RowsFrom,
    /// Bytes of the source that it reads.
    pub source_bytes: f64,
    /// Moving its input there from where the chosen placement has it; only of what was chosen.
    pub input_ms: f64,
    /// The costs; none where it can't run.
    pub cost: Option<Prediction>,
    /// What the whole query would take more with it there; 0 for what was chosen, none where it can't be.
    pub margin_ms: Option<f64>,
}

/// One row per fragment and candidate, in their order.
pub fn rows(facts: &Facts, decision: &Decision) -> Vec<Row> {
    let mut rows = Vec::new();
    for (fragment, needs) in facts.fragments.iter().enumerate() {
        let options = &decision.options[fragment];
        for (candidate, option) in options.iter().enumerate() {
            let chosen = decision.chosen[fragment] == candidate;
            let margin_ms = match chosen {
                true => Some(0.0),
                false => option
                    .as_ref()
                    .ok()
                    .and_then(|_| margin_ms(decision, fragment, candidate)),
            };
            let (reason, detail) = reason(decision, fragment, candidate, margin_ms);
            rows.push(Row {
                fragment,
                text: needs.text.clone(),
                device: decision.devices[candidate].clone(),
                variant: decision.variants[candidate].clone(),
                chosen,
                reason,
                detail,
                source_rows: needs.source_rows.rows,
                source_rows_from: needs.source_rows.from,
                output_rows: needs.output_rows.rows,
                output_rows_from: needs.output_rows.from,
                source_bytes: needs.source_bytes,
                input_ms: if chosen {
                    decision.inputs[fragment].total_ms
                } else {
                    0.0
                },
                cost: option.as_ref().ok().copied(),
                margin_ms,
            });
        }
    }
    rows
}

/// What the best placement with a fragment there takes more than the chosen one.
fn margin_ms(decision: &Decision, fragment: usize, candidate: usize) -> Option<f64> {
    let mut pins = decision.pins.clone();
    if pins[fragment].is_some_and(|pin| pin != candidate) {
        return None;
    }
    pins[fragment] = Some(candidate);
    let front = decision.problem.front(&pins, &decision.objective);
    let within = front
        .found
        .iter()
        .filter(|found| decision.objective.excess(&found.totals) <= 1.0);
    let best = within.map(|found| found.totals).min_by(|a, b| {
        let goal = decision.objective.goal;
        goal.of(a).total_cmp(&goal.of(b))
    });
    best.map(|best| best.ms - decision.totals.ms)
}

fn reason(decision: &Decision, fragment: usize, candidate: usize, margin_ms: Option<f64>) -> (Reason, String) {
    let options = &decision.options[fragment];
    let pin = decision.pins[fragment];
    if let Err(why) = &options[candidate] {
        let reason = if why.starts_with(KEPT_WITH) {
            Reason::KeptWith
        } else {
            Reason::Unsupported
        };
        return (reason, why.clone());
    }
    if let Ok(split) = &decision.split
        && split.fragment == fragment
        && [0, split.candidate].contains(&candidate)
    {
        let there = split.share * 100.0;
        let percent = if candidate == 0 { 100.0 - there } else { there };
        return (Reason::Shared, format!("{percent:.0} % of the rows"));
    }
    let gain = |totals: &crate::Totals| format!("the best placement takes {:.3} ms", totals.ms);
    if decision.chosen[fragment] == candidate {
        let others = options.iter().filter(|option| option.is_ok()).count() > 1;
        return match (decision.why, pin) {
            (_, Some(_)) => (Reason::Pinned, String::new()),
            (_, None) if !others => (Reason::Only, String::new()),
            (Why::Short, None) => (Reason::ShortQuery, String::new()),
            (Why::DoNoHarm, None) => {
                let forgone = decision.forgone.as_ref();
                (
                    Reason::DoNoHarm,
                    forgone.map_or_else(String::new, |(_, totals)| gain(totals)),
                )
            }
            (Why::Best | Why::Alone, None) => (Reason::Best, String::new()),
        };
    }
    match (pin, margin_ms) {
        (Some(_), _) => (Reason::PinnedElsewhere, String::new()),
        (None, None) => (Reason::OutOfBounds, String::new()),
        (None, Some(_)) if decision.why == Why::Short => (Reason::ShortQuery, String::new()),
        (None, Some(margin)) if margin < 0.0 => (Reason::DoNoHarm, "it gains too little".to_owned()),
        (None, Some(_)) => (Reason::Worse, String::new()),
    }
}

/// What was chosen, in one line.
pub fn summary(decision: &Decision) -> String {
    let totals = &decision.totals;
    let mut text = format!(
        "placement: {:.3} ms, {:.3e} USD, {:.3} J, objective {}",
        totals.ms,
        totals.usd,
        totals.joules,
        decision.objective.goal.name()
    );
    if decision.objective.is_bound() {
        let _ = write!(text, " within {}", decision.objective.bounds_text());
    }
    if let Some(host) = decision.host.filter(|host| host != totals) {
        let _ = write!(text, "; {} alone {:.3} ms", decision.devices[0], host.ms);
    }
    if let Some(shared) = shared(decision) {
        let _ = write!(text, "; {shared}");
    }
    text += match decision.why {
        Why::Best | Why::Alone => "",
        Why::Short => "; too short to search",
        Why::DoNoHarm => "; leaving the processor gains too little",
    };
    text
}

/// The fragment that is shared, or why none is; none when nothing is to be said.
fn shared(decision: &Decision) -> Option<String> {
    Some(match &decision.split {
        Err(why) if why.is_empty() => return None,
        Err(why) => why.clone(),
        Ok(split) => format!(
            "fragment {} shared with {}: {:.0} % of its rows there, {:.3} ms together, {:.3} on {} alone, {:.3} there",
            split.fragment,
            decision.devices[split.candidate],
            split.share * 100.0,
            split.ms,
            split.host_ms,
            decision.devices[0],
            split.device_ms,
        ),
    })
}

/// A tree: the result's fragment first, what it reads below it, candidates of each below those.
pub fn text(facts: &Facts, decision: &Decision) -> String {
    let rows = rows(facts, decision);
    let mut text = summary(decision) + "\n";
    if let Some(last) = facts.fragments.len().checked_sub(1) {
        tree(facts, &rows, decision.devices.len(), last, 0, &mut text);
    }
    text
}

fn tree(facts: &Facts, rows: &[Row], candidates: usize, fragment: usize, depth: usize, text: &mut String) {
    let needs = &facts.fragments[fragment];
    let of = &rows[fragment * candidates..(fragment + 1) * candidates];
    let indent = "  ".repeat(depth);
    let device = of.iter().find(|row| row.chosen).map_or("", |row| row.device.as_str());
    let _ = writeln!(
        text,
        "{indent}fragment {fragment} on {device}: {}   rows {} ({}) → {} ({}), {}",
        needs.text,
        count(needs.source_rows.rows),
        needs.source_rows.from.name(),
        count(needs.output_rows.rows),
        needs.output_rows.from.name(),
        bytes(needs.source_bytes),
    );
    for row in of {
        let _ = writeln!(text, "{indent}  {}", line(row));
    }
    for input in needs.builds.iter().copied().chain(needs.source_fragment()) {
        tree(facts, rows, candidates, input, depth + 1, text);
    }
}

fn line(row: &Row) -> String {
    let mark = if row.chosen { '*' } else { ' ' };
    let mut line = format!("{mark} {}/{}", row.device, row.variant);
    if let Some(cost) = &row.cost {
        let _ = write!(line, " {:.3} ms", cost.total_ms);
        let parts = [
            ("compile", cost.compile_ms),
            ("queue", cost.queue_ms),
            ("start", cost.start_ms),
            ("input", row.input_ms),
            ("fetch", cost.fetch_ms),
            ("decode", cost.decode_ms),
            ("upload", cost.upload_ms),
            ("kernel", cost.kernel_ms),
        ];
        let parts: Vec<_> = parts
            .into_iter()
            .filter(|(_, ms)| *ms >= 5e-4)
            .map(|(name, ms)| format!("{name} {ms:.3}"))
            .collect();
        let _ = write!(line, " ({})", parts.join(", "));
        if (cost.correction - 1.0).abs() > 1e-9 {
            let _ = write!(line, " × {:.2} learned", cost.correction);
        }
        let _ = write!(
            line,
            ", {:.3e} USD, {:.3} J, {}",
            cost.usd,
            cost.joules,
            bytes(cost.memory_bytes)
        );
    }
    let _ = write!(line, "; {}", row.reason.name());
    if let Some(margin) = row.margin_ms.filter(|_| !row.chosen) {
        let _ = write!(line, " {margin:+.3} ms");
    }
    if !row.detail.is_empty() {
        let _ = write!(line, ": {}", row.detail);
    }
    line
}

/// As JSON: the decision and all rows. What is edited in `chosen` can be pinned: see [`crate::Pins`].
///
/// # Errors
/// Only of the serialiser.
pub fn json(graph: usize, facts: &Facts, decision: &Decision, notes: &[String]) -> Result<String, serde_json::Error> {
    let totals = |totals: &crate::Totals| serde_json::json!({ "ms": totals.ms, "usd": totals.usd, "joules": totals.joules, "device_bytes": totals.device_bytes });
    let chosen: Vec<_> = decision
        .chosen
        .iter()
        .map(|at| decision.devices[*at].as_str())
        .collect();
    let value = serde_json::json!({
        "graph": graph,
        "objective": decision.objective.goal.name(),
        "bounds": decision.objective.bounds_text(),
        "notes": notes,
        "chosen": chosen,
        "totals": totals(&decision.totals),
        "processor": decision.host.as_ref().map(totals),
        "why": match decision.why {
            Why::Best => "best",
            Why::Short => "short_query",
            Why::DoNoHarm => "do_no_harm",
            Why::Alone => "only",
        },
        "shared": decision.split.as_ref().ok().map(|split| serde_json::json!({
            "fragment": split.fragment,
            "device": decision.devices[split.candidate],
            "share": split.share,
            "ms": split.ms,
            "processor_ms": split.host_ms,
            "device_ms": split.device_ms,
        })),
        "rows": rows(facts, decision),
    });
    serde_json::to_string_pretty(&value)
}

/// As a Mermaid flow chart: a box per fragment with its device and time, an arrow per input, dashed where rows change devices.
pub fn mermaid(facts: &Facts, decision: &Decision) -> String {
    let mut text = String::from("flowchart BT\n");
    for (fragment, needs) in facts.fragments.iter().enumerate() {
        let chosen = decision.chosen[fragment];
        let ms = decision.options[fragment][chosen]
            .as_ref()
            .map_or(0.0, |cost| cost.total_ms);
        let label = needs.text.replace('"', "'");
        let shared = decision.split.as_ref().ok().filter(|split| split.fragment == fragment);
        let shared = shared.map_or_else(String::new, |split| format!(" + {}", decision.devices[split.candidate]));
        let _ = writeln!(
            text,
            "  f{fragment}[\"{fragment}: {label}<br/>{}{shared} {ms:.3} ms\"]",
            decision.devices[chosen]
        );
    }
    for (fragment, needs) in facts.fragments.iter().enumerate() {
        for build in &needs.builds {
            let _ = writeln!(text, "  f{build} -->|build| f{fragment}");
        }
        if let Some(from) = needs.source_fragment() {
            let arrow = if decision.chosen[from] == decision.chosen[fragment] {
                "-->"
            } else {
                "-.->"
            };
            let rows = count(facts.fragments[from].output_rows.rows);
            let _ = writeln!(text, "  f{from} {arrow}|{rows} rows| f{fragment}");
        }
    }
    text
}

/// Rows in few digits.
fn count(rows: f64) -> String {
    match rows {
        rows if rows >= 9.95e8 => format!("{:.1}G", rows / 1e9),
        rows if rows >= 9.95e5 => format!("{:.1}M", rows / 1e6),
        rows if rows >= 9.95e3 => format!("{:.1}k", rows / 1e3),
        rows => format!("{rows:.0}"),
    }
}

fn bytes(bytes: f64) -> String {
    match bytes {
        bytes if bytes >= 1e9 => format!("{:.2} GB", bytes / 1e9),
        bytes if bytes >= 1e6 => format!("{:.2} MB", bytes / 1e6),
        bytes => format!("{:.2} kB", bytes / 1e3),
    }
}

#[cfg(test)]
mod tests;
