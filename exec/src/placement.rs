//! Which fragments of a graph run on which variant, and which of them as one.
//!
//! ```text
//!  device   0 ─▶ 1 ─▶ 3          units: {0, 1, 3} as one island, 2 and 4 by themselves
//!  host          2 ─▶ 3 ─▶ 4     an island waits for all its host inputs before it starts
//! ```
//!
//! A build side and its probes stay together, since only the device that made a join table can read it. Nothing here chooses
//! a device: that was planner's.

use std::sync::Arc;

use trireme_device_api::{FragmentId, Graph, Step, Support, Variant};

/// Fragments that run as one, ascending.
#[derive(Clone)]
pub(crate) struct Unit {
    pub(crate) fragments: Vec<FragmentId>,
    pub(crate) variant: Arc<dyn Variant>,
    /// Prepared by [`Variant::prepare_many`].
    pub(crate) island: bool,
}

/// A placed graph.
#[derive(Clone)]
pub(crate) struct Placement {
    pub(crate) units: Vec<Unit>,
    /// By fragment: why it is not on the device; none when it is, or when there was none to choose.
    pub(crate) reasons: Vec<Option<String>>,
}

impl Placement {
    /// All fragments on one variant, each by itself.
    pub(crate) fn single(graph: &Graph, variant: &Arc<dyn Variant>) -> Self {
        let unit = |id| Unit {
            fragments: vec![id],
            variant: Arc::clone(variant),
            island: false,
        };
        Self {
            units: (0..graph.fragments.len()).map(unit).collect(),
            reasons: vec![None; graph.fragments.len()],
        }
    }

    /// What the device supports on the device, the rest on the host.
    pub(crate) fn split(
        graph: &Graph,
        device: &Arc<dyn Variant>,
        support: &[Support],
        host: &Arc<dyn Variant>,
    ) -> Self {
        let reasons = kept_together(graph, support);
        let levels = levels(graph, &reasons);
        let islands = levels.iter().copied().max().map_or(0, |level| level + 1);
        let on_device = |id: &FragmentId| reasons[*id].is_none();
        let mut units: Vec<Unit> = (0..islands)
            .map(|level| Unit {
                fragments: (0..levels.len())
                    .filter(|id| on_device(id) && levels[*id] == level)
                    .collect(),
                variant: Arc::clone(device),
                island: true,
            })
            .filter(|unit| !unit.fragments.is_empty())
            .collect();
        units.extend((0..levels.len()).filter(|id| !on_device(id)).map(|id| Unit {
            fragments: vec![id],
            variant: Arc::clone(host),
            island: false,
        }));
        units.sort_by_key(|unit| unit.fragments[0]);
        Self { units, reasons }
    }

    /// Any fragment runs elsewhere than on `host`.
    pub(crate) fn uses_device(&self) -> bool {
        self.units.iter().any(|unit| unit.island)
    }
}

/// Why each fragment stays on the host; a fragment that must be with one of these stays too.
fn kept_together(graph: &Graph, support: &[Support]) -> Vec<Option<String>> {
    let mut reasons: Vec<Option<String>> = support
        .iter()
        .map(|support| match support {
            Support::Supported => None,
            Support::Unsupported { reason } => Some(reason.clone()),
        })
        .collect();
    loop {
        let mut changed = false;
        for (id, fragment) in graph.fragments.iter().enumerate() {
            for step in &fragment.steps {
                let Step::Probe(probe) = step else { continue };
                let (stays, goes) = match (&reasons[id], &reasons[probe.build]) {
                    (Some(_), None) => (id, probe.build),
                    (None, Some(_)) => (probe.build, id),
                    _ => continue,
                };
                reasons[goes] = Some(format!("it joins with fragment {stays}, which runs on the host"));
                changed = true;
            }
        }
        if !changed {
            return reasons;
        }
    }
}

/// The island that a fragment of the device belongs to; for a fragment of the host, how many islands it waits for.
fn levels(graph: &Graph, reasons: &[Option<String>]) -> Vec<usize> {
    let mut levels: Vec<usize> = Vec::with_capacity(graph.fragments.len());
    for (id, fragment) in graph.fragments.iter().enumerate() {
        let level = fragment.inputs().into_iter().map(|input| {
            let crosses_to_host = reasons[id].is_some() && reasons[input].is_none();
            levels[input] + usize::from(crosses_to_host)
        });
        levels.push(level.max().unwrap_or(0));
    }
    levels
}

#[cfg(test)]
mod tests {
    use trireme_device_api::{Fragment, GRAPH_VERSION, JoinKind, Probe, Sink, Source};

    use super::*;
    use crate::graph::tests::Counting;

    fn fragment(source: Source, builds: &[FragmentId]) -> Fragment {
        let probe = |build: &FragmentId| {
            Step::Probe(Probe {
                build: *build,
                kind: JoinKind::Inner,
                keys: Vec::new(),
                residual: None,
                null_equals_null: false,
                null_aware: false,
            })
        };
        Fragment {
            source,
            steps: builds.iter().map(probe).collect(),
            sink: Sink::Emit { limit: None, offset: 0 },
            output: Vec::new(),
        }
    }

    fn graph(fragments: Vec<Fragment>) -> Graph {
        Graph {
            version: GRAPH_VERSION,
            fragments,
            scans: Vec::new(),
            streams: Vec::new(),
            parameters: Vec::new(),
            output: Vec::new(),
        }
    }

    fn split(graph: &Graph, unsupported: &[FragmentId]) -> (Vec<(Vec<FragmentId>, bool)>, Vec<bool>) {
        let support: Vec<_> = (0..graph.fragments.len())
            .map(|id| match unsupported.contains(&id) {
                true => Support::Unsupported {
                    reason: "no".to_owned(),
                },
                false => Support::Supported,
            })
            .collect();
        let variant: Arc<dyn Variant> = Arc::new(Counting::default());
        let placement = Placement::split(graph, &variant, &support, &variant);
        let units = placement
            .units
            .iter()
            .map(|unit| (unit.fragments.clone(), unit.island))
            .collect();
        (units, placement.reasons.iter().map(Option::is_none).collect())
    }

    #[test]
    fn what_is_supported_is_one_island() {
        let graph = graph(vec![
            fragment(Source::Scan(0), &[]),
            fragment(Source::Scan(1), &[0]),
            fragment(Source::Fragment(1), &[]),
        ]);
        assert_eq!(split(&graph, &[]).0, [(vec![0, 1, 2], true)]);
        assert_eq!(split(&graph, &[2]).0, [(vec![0, 1], true), (vec![2], false)]);
    }

    #[test]
    fn probes_stay_with_their_builds() {
        let graph = graph(vec![
            fragment(Source::Scan(0), &[]),
            fragment(Source::Scan(1), &[0]),
            fragment(Source::Scan(2), &[1]),
            fragment(Source::Fragment(2), &[]),
        ]);
        let (units, on_device) = split(&graph, &[0]);
        assert_eq!(on_device, [false, false, false, true]);
        assert_eq!(
            units,
            [(vec![0], false), (vec![1], false), (vec![2], false), (vec![3], true)]
        );
    }

    #[test]
    fn islands_wait_for_the_host_between_them() {
        // 0 on the device, 1 on the host reads it, 2 on the device reads that; 3 on the device reads nothing of theirs.
        let graph = graph(vec![
            fragment(Source::Scan(0), &[]),
            fragment(Source::Fragment(0), &[]),
            fragment(Source::Fragment(1), &[]),
            fragment(Source::Scan(1), &[]),
        ]);
        assert_eq!(
            split(&graph, &[1]).0,
            [(vec![0, 3], true), (vec![1], false), (vec![2], true)]
        );
    }
}
