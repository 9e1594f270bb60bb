//! A placed graph as the cost model watches it run: what was expected where, and what is best for the rest of it.

use std::sync::Arc;

use trireme_costs::monitor::{self, Event, Monitor, Resteered, Trigger};
use trireme_costs::{Candidate, Decision, Environment, Facts, Known, Library, PlaceError, Profile, RowsFrom};
use trireme_device_api::{Device, FragmentId, Source, Support, Variant};

use super::{CostModel, facts};
use crate::operators::FragmentPlan;

/// A part of an island that is over in less is not worth a wait for it.
const BREAK_MS_MIN: f64 = 10.0;

/// A device that fragments may be on, as it stood when the graph was placed. The first is the processor.
struct Seat {
    profile: Profile,
    variant: Arc<dyn Variant>,
    support: Vec<Support>,
    free_bytes: f64,
}

/// See the module.
pub(crate) struct Watch {
    plan: FragmentPlan,
    seats: Vec<Seat>,
    library: Arc<Library>,
    facts: Facts,
    decision: Decision,
    monitor: Monitor,
    counted: Vec<Option<f64>>,
}

impl CostModel {
    /// Of a graph whose fragments are `on` these devices, none of them the processor; `others` it may use besides.
    ///
    /// # Errors
    /// When nothing is known of a device, or a fragment can't be where it is.
    pub(crate) fn watch(
        &self,
        plan: &FragmentPlan,
        host: &Arc<dyn Variant>,
        others: &[Arc<dyn Device>],
        on: &[Option<Arc<dyn Variant>>],
    ) -> Result<Watch, PlaceError> {
        let graph = &plan.graph;
        let support = |variant: &Arc<dyn Variant>| {
            (0..graph.fragments.len())
                .map(|id| variant.support(graph, id))
                .collect()
        };
        let processor = self.processor.read().clone();
        let mut seats = vec![Seat {
            support: support(host),
            variant: Arc::clone(host),
            free_bytes: processor.memory_bytes,
            profile: processor,
        }];
        for device in others {
            let vitals = device.vitals();
            let Some(profile) = self.profile_of(&device.info(), &vitals) else {
                continue;
            };
            let free_bytes = profile.memory_bytes - vitals.used_bytes as f64 + vitals.columns_bytes as f64;
            seats.push(Seat {
                support: support(&device.variant()),
                variant: device.variant(),
                free_bytes: free_bytes.max(0.0),
                profile,
            });
        }
        let expected = plan.expectations.rows(graph, &plan.parameters, &[]);
        let facts = facts(graph, &plan.scans, &plan.parameters, &expected, &Known::default());
        let library = Arc::clone(&self.library.lock());
        let names: Vec<String> = on
            .iter()
            .map(|variant| variant.as_ref().unwrap_or(host).device().to_owned())
            .collect();
        let decision = monitor::placed(
            graph,
            &facts,
            &candidates(&seats),
            &environment(&library),
            &plan.choice.objective,
            &names,
        )?;
        Ok(Watch {
            monitor: Monitor::new(&facts),
            counted: vec![None; names.len()],
            plan: plan.clone(),
            seats,
            library,
            facts,
            decision,
        })
    }
}

fn candidates(seats: &[Seat]) -> Vec<Candidate<'_>> {
    let mut all = Vec::with_capacity(seats.len());
    for seat in seats {
        all.push(Candidate {
            variant: seat.variant.name(),
            support: seat.support.clone(),
            free_bytes: seat.free_bytes,
            ..Candidate::new(&seat.profile)
        });
    }
    all
}

fn environment(library: &Library) -> Environment<'_> {
    Environment {
        library: Some(library),
        ..Environment::default()
    }
}

impl Watch {
    /// What is expected now.
    pub(crate) fn decision(&self) -> &Decision {
        &self.decision
    }

    /// Devices by fragment.
    pub(crate) fn on(&self) -> Vec<Option<Arc<dyn Variant>>> {
        let of = |at: &usize| (*at > 0).then(|| Arc::clone(&self.seats[*at].variant));
        self.decision.chosen.iter().map(of).collect()
    }

    /// Where an island is cut, so that what is read of it can go elsewhere once its rows are counted: only where the count is
    /// uncertain, and both parts take a while.
    pub(crate) fn breaks(&self) -> Vec<bool> {
        let graph = &self.plan.graph;
        let on_device = |id: &FragmentId| self.decision.chosen[*id] > 0;
        let is_read = |id: FragmentId| {
            let mut readers = (id + 1..graph.fragments.len()).filter(on_device);
            readers.any(|reader| graph.fragments[reader].source == Source::Fragment(id))
        };
        let total =
            |ids: std::ops::Range<FragmentId>| -> f64 { ids.filter(on_device).map(|id| self.expected_ms(id)).sum() };
        let count = graph.fragments.len();
        (0..count)
            .map(|id| {
                let from = self.facts.fragments[id].output_rows.from;
                on_device(&id)
                    && !matches!(from, RowsFrom::Exact | RowsFrom::Feedback)
                    && is_read(id)
                    && total(0..id + 1) >= BREAK_MS_MIN
                    && total(id + 1..count) >= BREAK_MS_MIN
            })
            .collect()
    }

    /// Time of a fragment where it is, by what is known.
    pub(crate) fn expected_ms(&self, id: FragmentId) -> f64 {
        let cost = self
            .decision
            .options
            .get(id)
            .and_then(|of| of.get(self.decision.chosen[id]));
        cost.and_then(|cost| cost.as_ref().ok())
            .map_or(0.0, |cost| cost.total_ms)
    }

    /// Rows that a fragment is expected to leave, by what is known.
    pub(crate) fn expected_rows(&self, id: FragmentId) -> f64 {
        self.facts.fragments.get(id).map_or(0.0, |needs| needs.output_rows.rows)
    }

    pub(crate) fn started(&mut self, ids: &[FragmentId]) {
        ids.iter().for_each(|id| self.monitor.started(*id));
    }

    pub(crate) fn again(&mut self, id: FragmentId) {
        self.monitor.again(id);
    }

    /// A reason to decide anew, if it is one.
    pub(crate) fn see(&mut self, event: &Event) -> Option<Trigger> {
        if let Event::Ended {
            fragment, output_rows, ..
        } = event
        {
            self.counted[*fragment] = Some(*output_rows);
        }
        self.monitor.see(event, &self.facts, &self.decision)
    }

    /// Decides anew and takes that for what is expected from now on. What devices support now that inputs are bound, which takes
    /// longer than all else, is asked of them only when something would move to one.
    ///
    /// # Errors
    /// When what remains can't be placed.
    pub(crate) fn resteer(
        &mut self,
        trigger: Trigger,
        supports: impl Fn(&Arc<dyn Variant>) -> Vec<Support>,
    ) -> Result<Resteered, PlaceError> {
        let mut asked = vec![false; self.seats.len()];
        let resteered = loop {
            let resteered = self.weigh(trigger.clone())?;
            let mut used = resteered.decision.chosen.iter().copied().filter(|at| *at > 0);
            match used.find(|at| resteered.moved && !asked[*at]) {
                Some(at) => {
                    let seat = &mut self.seats[at];
                    seat.support = supports(&seat.variant);
                    asked[at] = true;
                }
                None => break resteered,
            }
        };
        self.facts = resteered.facts.clone();
        self.decision = resteered.decision.clone();
        Ok(resteered)
    }

    fn weigh(&self, trigger: Trigger) -> Result<Resteered, PlaceError> {
        let (graph, parameters) = (&self.plan.graph, &self.plan.parameters);
        let expected = self.plan.expectations.rows(graph, parameters, &self.counted);
        let facts = facts(graph, &self.plan.scans, parameters, &expected, &self.monitor.known());
        self.monitor.resteer(
            trigger,
            graph,
            facts,
            &candidates(&self.seats),
            &environment(&self.library),
            &self.decision,
        )
    }

    /// Names of devices by fragment.
    pub(crate) fn names(&self) -> Vec<String> {
        let chosen = self.decision.chosen.iter();
        chosen.map(|at| self.decision.devices[*at].clone()).collect()
    }
}
