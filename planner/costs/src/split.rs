//! Whether one fragment's rows are shared between the processor and a device that run it at the same time.
//!
//! ```text
//!  morsels of the scan    ▓▓▓▓▓▓▓▓▓▓▓▓░░░░░░░     processor  fixed ├──────(1 − x) × its rows──────┤
//!                         processor ─▶   ◀─ device device  builds, start ├──x × its rows──┤ result │
//! ```
//!
//! Both end together when `x = (processor − device's fixed) / (processor + device's rows)`, all in milliseconds. Only what can be
//! cut is: a scan whose rows don't depend on one another, into an aggregate whose parts can be added up. Build sides are made by
//! both. One fragment of a graph is shared, the one that gains most. A device made of the processor's own cores adds nothing.

use serde::{Deserialize, Serialize};
use trireme_device_api::{
    AggregateFunction, DeviceKind, Fragment, FragmentId, Graph, JoinKind, Sink, Source, Step, Type,
};

use crate::objective::{Goal, Objective, Totals};
use crate::place::Candidate;
use crate::predict::Prediction;

/// What the processor ends within this time is not shared: that parts are lowered, asked for and merged takes some of it.
const SPLIT_MS_MIN: f64 = 5.0;

/// Whether fragments are shared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CoExecution {
    /// Where the cost model expects a gain.
    Auto,
    /// Never.
    #[default]
    Off,
    /// Wherever it is possible, for tests.
    Always,
}

impl CoExecution {
    /// By its name, as settings have it.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Auto, Self::Off, Self::Always]
            .into_iter()
            .find(|each| each.name() == name)
    }

    /// As settings have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Off => "off",
            Self::Always => "always",
        }
    }
}

/// A fragment that is shared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Split {
    /// The fragment; it and all it reads are on the processor too.
    pub fragment: FragmentId,
    /// Position of the device among the candidates.
    pub candidate: usize,
    /// What the device makes for itself first: all that the fragment reads, ascending.
    pub builds: Vec<FragmentId>,
    /// Part of the rows that the device is expected to run, 0 … 1.
    pub share: f64,
    /// Time of both together.
    pub ms: f64,
    /// Of the processor alone.
    pub host_ms: f64,
    /// Of the device alone, with what it makes first.
    pub device_ms: f64,
}

/// What a fragment reads, and what that reads.
fn read_by(graph: &Graph, fragment: FragmentId) -> Vec<FragmentId> {
    let mut found = Vec::new();
    let mut open = vec![fragment];
    while let Some(id) = open.pop() {
        for input in graph.fragments.get(id).map(Fragment::inputs).unwrap_or_default() {
            if !found.contains(&input) {
                found.push(input);
                open.push(input);
            }
        }
    }
    found.sort_unstable();
    found
}

/// What a device needs for itself to run a part of a fragment.
///
/// # Errors
/// Why the fragment can't be cut.
pub fn needs_of(graph: &Graph, fragment: FragmentId) -> Result<Vec<FragmentId>, String> {
    let Some(of) = graph.fragments.get(fragment) else {
        return Err("there is no such fragment".to_owned());
    };
    if !matches!(of.source, Source::Scan(_)) {
        return Err("it does not scan a table".to_owned());
    }
    for step in &of.steps {
        if let Step::Probe(probe) = step
            && !matches!(
                probe.kind,
                JoinKind::Inner | JoinKind::Left | JoinKind::Semi | JoinKind::Anti | JoinKind::Mark
            )
        {
            return Err("it leaves rows of a build side, which all of its rows decide".to_owned());
        }
    }
    let Sink::Aggregate { aggregates, .. } = &of.sink else {
        return Err("it does not aggregate".to_owned());
    };
    for aggregate in aggregates {
        let numbers = |data_type: &Type| data_type.is_integral() || matches!(data_type, Type::Float32 | Type::Float64);
        let argument = aggregate.argument.as_ref().map(|argument| &argument.data_type);
        let cuts = match aggregate.function {
            AggregateFunction::Count
            | AggregateFunction::Sum
            | AggregateFunction::Min
            | AggregateFunction::Max
            | AggregateFunction::BoolAnd
            | AggregateFunction::BoolOr => true,
            // Of a decimal the mean is a decimal; what else there is has no sum of its own type.
            AggregateFunction::Average => argument.is_some_and(|argument| match argument {
                Type::Decimal { .. } => matches!(aggregate.data_type, Type::Decimal { .. }),
                other => numbers(other) && aggregate.data_type == Type::Float64,
            }),
            _ => false,
        };
        if !cuts || aggregate.distinct {
            return Err("an aggregate's parts can't be added up".to_owned());
        }
    }
    let needs = read_by(graph, fragment);
    if needs
        .iter()
        .any(|id| matches!(graph.fragments[*id].source, Source::Stream(_)))
    {
        return Err("a build side comes from a stream, which is read once".to_owned());
    }
    Ok(needs)
}

/// The best split of any fragment, if one is wanted, possible and worth it.
///
/// # Errors
/// Why not, where something is to be said about it.
pub(crate) fn best(
    graph: &Graph,
    candidates: &[Candidate<'_>],
    options: &[Vec<Result<Prediction, String>>],
    objective: &Objective,
) -> Result<Split, String> {
    let always = objective.co_execution == CoExecution::Always;
    if objective.co_execution == CoExecution::Off || candidates.len() < 2 {
        return Err(String::new());
    }
    if objective.goal != Goal::Latency || objective.is_bound() || objective.pinned.iter().any(Option::is_some) {
        return Err("only a placement for latency, without bounds and pins, is shared".to_owned());
    }
    let mut why = String::new();
    let mut found: Option<Split> = None;
    for (fragment, of) in options.iter().enumerate() {
        let Some(Ok(host)) = of.first() else { continue };
        if !always && host.total_ms < SPLIT_MS_MIN {
            continue;
        }
        let needs = match needs_of(graph, fragment) {
            Ok(needs) => needs,
            Err(reason) => {
                why = format!("fragment {fragment} is not shared: {reason}");
                continue;
            }
        };
        for (candidate, device) in candidates.iter().enumerate().skip(1) {
            if device.profile.kind == DeviceKind::Cpu && !always {
                why = format!(
                    "fragment {fragment} is not shared: {} is the processor's cores",
                    device.profile.id
                );
                continue;
            }
            let made: Option<Vec<&Prediction>> = needs.iter().map(|id| options[*id][candidate].as_ref().ok()).collect();
            let (Some(made), Ok(there)) = (made, &of[candidate]) else {
                why = format!(
                    "fragment {fragment} is not shared: {} can't run all of it",
                    device.profile.id
                );
                continue;
            };
            let builds_ms = made.iter().map(|cost| cost.total_ms).sum();
            let split = of_times(
                fragment,
                candidate,
                needs.clone(),
                (host, &candidates[0]),
                (there, device),
                builds_ms,
            );
            let gain_ms = |split: &Split| split.host_ms - split.ms;
            if found.as_ref().is_none_or(|found| gain_ms(&split) > gain_ms(found)) {
                found = Some(split);
            }
        }
    }
    found.ok_or(why)
}

/// How a fragment is shared that takes so long on either.
fn of_times(
    fragment: FragmentId,
    candidate: usize,
    builds: Vec<FragmentId>,
    (host, processor): (&Prediction, &Candidate<'_>),
    (there, device): (&Prediction, &Candidate<'_>),
    builds_ms: f64,
) -> Split {
    // Its memory is read by the copies too.
    let copied_ms = there.upload_bytes / processor.profile.memory_bytes_per_second_max.max(1.0) * 1e3;
    let host_fixed_ms = host.queue_ms + host.compile_ms + host.start_ms;
    let host_ms = (host.total_ms - host_fixed_ms).max(0.0);
    let fixed_ms = builds_ms + there.queue_ms + there.compile_ms + there.start_ms + device.profile.sync_ms;
    let rows_ms = (there.total_ms - there.queue_ms - there.compile_ms - there.start_ms).max(0.0);
    let share = (host_fixed_ms + host_ms - fixed_ms) / (host_ms + rows_ms - copied_ms).max(1e-9);
    let share = share.clamp(0.0, 1.0);
    let both_ms = host_fixed_ms + (1.0 - share) * host_ms + share * copied_ms;
    Split {
        fragment,
        candidate,
        builds,
        share,
        ms: both_ms.max(fixed_ms + share * rows_ms),
        host_ms: host.total_ms,
        device_ms: fixed_ms + rows_ms,
    }
}

impl Split {
    /// The totals of a placement that has the fragment on the processor, when it is shared.
    pub(crate) fn applied(&self, totals: Totals, device: &Candidate<'_>) -> Totals {
        let profile = device.profile;
        Totals {
            ms: totals.ms - self.host_ms + self.ms,
            usd: totals.usd + self.ms * profile.price_usd_per_hour / 3.6e6,
            joules: totals.joules + self.ms * profile.power.active_watts / 1e3,
            ..totals
        }
    }
}

#[cfg(test)]
mod tests {
    use trireme_device_api::{Aggregate, Expr, GRAPH_VERSION, Node, Probe};

    use super::*;
    use crate::catalogue::{catalogue, reference};

    fn cost(total_ms: f64, start_ms: f64) -> Prediction {
        Prediction {
            total_ms,
            start_ms,
            ..Prediction::default()
        }
    }

    fn aggregate(function: AggregateFunction) -> Aggregate {
        let data_type = Type::Int64;
        Aggregate {
            function,
            argument: Some(Expr {
                node: Node::Column(0),
                data_type: data_type.clone(),
            }),
            distinct: false,
            filter: None,
            order: Vec::new(),
            data_type,
        }
    }

    fn graph(kind: JoinKind, function: AggregateFunction) -> Graph {
        let build = Fragment {
            source: Source::Scan(0),
            steps: Vec::new(),
            sink: Sink::Build(trireme_device_api::BuildSide {
                keys: Vec::new(),
                payload: Vec::new(),
            }),
            output: Vec::new(),
        };
        let probe = Step::Probe(Probe {
            build: 0,
            kind,
            keys: Vec::new(),
            residual: None,
            null_equals_null: false,
            null_aware: false,
        });
        let sums = Fragment {
            source: Source::Scan(1),
            steps: vec![probe],
            sink: Sink::Aggregate {
                groups: Vec::new(),
                aggregates: vec![aggregate(function)],
            },
            output: Vec::new(),
        };
        Graph {
            version: GRAPH_VERSION,
            fragments: vec![build, sums],
            scans: Vec::new(),
            streams: Vec::new(),
            parameters: Vec::new(),
            output: Vec::new(),
        }
    }

    fn split_of(host_ms: f64, device_ms: f64, build_ms: f64, co_execution: CoExecution) -> Result<Split, String> {
        let devices = catalogue().unwrap();
        let (processor, device) = (reference(), devices.iter().find(|device| !device.is_host()).unwrap());
        let candidates = [Candidate::new(&processor), Candidate::new(device)];
        let objective = Objective {
            co_execution,
            ..Objective::default()
        };
        let options = [
            vec![Ok(cost(0.1, 0.0)), Ok(cost(build_ms, 0.0))],
            vec![Ok(cost(host_ms, 0.0)), Ok(cost(device_ms, 0.0))],
        ];
        let graph = graph(JoinKind::Inner, AggregateFunction::Sum);
        best(&graph, &candidates, &options, &objective)
    }

    #[test]
    fn both_end_together() {
        let split = split_of(100.0, 100.0, 0.0, CoExecution::Auto).unwrap();
        assert!(
            (split.share - 0.5).abs() < 0.01 && (split.ms - 50.0).abs() < 1.0,
            "{split:?}"
        );
        assert_eq!(split.builds, [0]);
        let slow = split_of(100.0, 900.0, 0.0, CoExecution::Auto).unwrap();
        assert!(
            (slow.share - 0.1).abs() < 0.01 && (slow.ms - 90.0).abs() < 1.0,
            "{slow:?}"
        );
        // What the device must make first takes longer than the processor takes for all.
        let late = split_of(100.0, 10.0, 200.0, CoExecution::Auto).unwrap();
        assert!(late.share.abs() < 1e-9 && late.ms >= 100.0, "{late:?}");
        assert!(split_of(100.0, 100.0, 0.0, CoExecution::Off).is_err());
        assert!(
            split_of(0.4, 0.4, 0.0, CoExecution::Auto).is_err(),
            "too short to look at"
        );
    }

    #[test]
    fn only_what_can_be_added_up_is_cut() {
        assert_eq!(needs_of(&graph(JoinKind::Left, AggregateFunction::Max), 1), Ok(vec![0]));
        for (kind, function, says) in [
            (JoinKind::BuildSemi, AggregateFunction::Sum, "build side"),
            (JoinKind::Inner, AggregateFunction::VarianceSample, "added up"),
            (JoinKind::Inner, AggregateFunction::First, "added up"),
        ] {
            let error = needs_of(&graph(kind, function), 1).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        let of_build = needs_of(&graph(JoinKind::Inner, AggregateFunction::Sum), 0);
        assert!(of_build.unwrap_err().contains("aggregate"));
    }
}
