//! Which fragments of a graph run on which variant, and which of them as one.
//!
//! ```text
//!  device   0 ─▶ 1 ─▶ 3          units: {0, 1, 3} as one island, 2 and 4 by themselves
//!  host          2 ─▶ 3 ─▶ 4     an island waits for all its host inputs before it starts
//! ```
//!
//! A build side and its probes stay together, since only the device that made a join table can read it. Several devices may take
//! part, each with islands of its own; rows go from one to another by way of the host. Nothing here chooses a device:
//! [`crate::choose`] does. A graph that runs may be placed anew ([`crate::steer`]): then only what is left to run is made into
//! units.

use std::collections::BTreeMap;
use std::sync::Arc;

use trireme_costs::{Decision, Facts};
use trireme_device_api::{FragmentId, Graph, Step, Support, Variant};

use crate::load::Claim;
use crate::split::Helper;

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
    /// What the cost model said, when it was asked.
    pub(crate) decided: Option<Arc<Decided>>,
    /// What this run takes of the devices, as others see it; held while it runs.
    pub(crate) claim: Option<Arc<Claim>>,
    /// Who shares a fragment with the processor.
    pub(crate) helper: Option<Arc<Helper>>,
}

/// What the cost model said of a run.
pub struct Decided {
    /// What fragments need.
    pub facts: Facts,
    /// Where they go.
    pub decision: Decision,
    /// What a user should know: a pin that could not be kept, devices that were left out.
    pub notes: Vec<String>,
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
            decided: None,
            claim: None,
            helper: None,
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
        let at: Vec<_> = reasons.iter().map(|reason| reason.is_none().then_some(0)).collect();
        Self {
            reasons,
            ..Self::assigned(graph, &at, std::slice::from_ref(device), host)
        }
    }

    /// By fragment its device, or the host. A build side and its probes must be together.
    pub(crate) fn assigned(
        graph: &Graph,
        at: &[Option<usize>],
        devices: &[Arc<dyn Variant>],
        host: &Arc<dyn Variant>,
    ) -> Self {
        let all = vec![true; at.len()];
        Self {
            units: grouped(graph, &all, at, devices, host, &vec![false; at.len()]),
            reasons: vec![None; at.len()],
            decided: None,
            claim: None,
            helper: None,
        }
    }

    /// By fragment: the device that it is on beside the host.
    pub(crate) fn devices(&self) -> Vec<Option<Arc<dyn Variant>>> {
        let mut on = vec![None; self.reasons.len()];
        for unit in self.units.iter().filter(|unit| unit.island) {
            for id in &unit.fragments {
                on[*id] = Some(Arc::clone(&unit.variant));
            }
        }
        on
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

/// Units of the fragments in `todo`, each on its device or the host. What reads a fragment in `breaks` waits for its end.
pub(crate) fn units(
    graph: &Graph,
    todo: &[bool],
    on: &[Option<Arc<dyn Variant>>],
    host: &Arc<dyn Variant>,
    breaks: &[bool],
) -> Vec<Unit> {
    let mut devices: Vec<Arc<dyn Variant>> = Vec::new();
    let mut at = Vec::with_capacity(on.len());
    for variant in on {
        let known = |variant: &Arc<dyn Variant>| devices.iter().position(|each| each.device() == variant.device());
        let place = variant.as_ref().map(|variant| known(variant).ok_or(variant));
        at.push(match place {
            None => None,
            Some(Ok(place)) => Some(place),
            Some(Err(variant)) => {
                devices.push(Arc::clone(variant));
                Some(devices.len() - 1)
            }
        });
    }
    grouped(graph, todo, &at, &devices, host, breaks)
}

fn grouped(
    graph: &Graph,
    todo: &[bool],
    at: &[Option<usize>],
    devices: &[Arc<dyn Variant>],
    host: &Arc<dyn Variant>,
    breaks: &[bool],
) -> Vec<Unit> {
    let levels = levels(graph, todo, at, breaks);
    let mut islands: BTreeMap<(usize, usize), Vec<FragmentId>> = BTreeMap::new();
    let mut units = Vec::new();
    for id in (0..todo.len()).filter(|id| todo[*id]) {
        match at[id] {
            Some(device) => islands.entry((levels[id], device)).or_default().push(id),
            None => units.push(Unit {
                fragments: vec![id],
                variant: Arc::clone(host),
                island: false,
            }),
        }
    }
    units.extend(islands.into_iter().map(|((_, device), fragments)| Unit {
        fragments,
        variant: Arc::clone(&devices[device]),
        island: true,
    }));
    units.sort_by_key(|unit| unit.fragments[0]);
    units
}

/// The island that a fragment of the device belongs to; for a fragment of the host, how many islands it waits for. Along no path
/// does it fall, and it rises where rows leave a device or an island ends: so no island waits for itself.
fn levels(graph: &Graph, todo: &[bool], at: &[Option<usize>], breaks: &[bool]) -> Vec<usize> {
    let mut levels: Vec<usize> = Vec::with_capacity(graph.fragments.len());
    for (id, fragment) in graph.fragments.iter().enumerate() {
        // What isn't to be run waits for none of these.
        let inputs = fragment.inputs().into_iter().filter(|input| todo[*input]);
        let level = inputs.map(|input| {
            let ends = at[input].is_some() && (at[input] != at[id] || breaks[input]);
            levels[input] + usize::from(ends)
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

    #[test]
    fn rows_that_leave_a_device_start_an_island() {
        // 0 on a, 1 on b reads it, 2 on a reads that; 3 on b reads nothing; 4 on the host reads 2 and 3.
        let graph = graph(vec![
            fragment(Source::Scan(0), &[]),
            fragment(Source::Fragment(0), &[]),
            fragment(Source::Fragment(1), &[]),
            fragment(Source::Scan(1), &[]),
            fragment(Source::Fragment(2), &[3]),
        ]);
        let variant: Arc<dyn Variant> = Arc::new(Counting::default());
        let devices = [Arc::clone(&variant), Arc::clone(&variant)];
        let placement = Placement::assigned(&graph, &[Some(0), Some(1), Some(0), Some(1), None], &devices, &variant);
        let units: Vec<_> = placement
            .units
            .iter()
            .map(|unit| (unit.fragments.clone(), unit.island))
            .collect();
        let one = |id| (vec![id], true);
        assert_eq!(units, [one(0), one(1), one(2), one(3), (vec![4], false)]);
        let together = Placement::assigned(&graph, &[Some(0), Some(0), Some(0), Some(1), None], &devices, &variant);
        let units: Vec<_> = together.units.iter().map(|unit| unit.fragments.clone()).collect();
        assert_eq!(units, [vec![0, 1, 2], vec![3], vec![4]]);
    }

    #[test]
    fn only_what_is_left_is_made_into_units() {
        let graph = graph(vec![
            fragment(Source::Scan(0), &[]),
            fragment(Source::Fragment(0), &[]),
            fragment(Source::Fragment(1), &[]),
        ]);
        let variant: Arc<dyn Variant> = Arc::new(Counting::default());
        let on = vec![Some(Arc::clone(&variant)); 3];
        let of = |todo: &[bool], breaks: &[bool]| -> Vec<Vec<FragmentId>> {
            let units = units(&graph, todo, &on, &variant, breaks);
            units.into_iter().map(|unit| unit.fragments).collect()
        };
        assert_eq!(of(&[true; 3], &[false; 3]), [[0, 1, 2]]);
        assert_eq!(of(&[true; 3], &[true, false, false]), [vec![0], vec![1, 2]]);
        assert_eq!(of(&[false, true, true], &[true, false, false]), [[1, 2]]);
    }
}
