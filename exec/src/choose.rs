//! Where the fragments of a bound graph run: chosen when it runs, so that what is resident, busy and free is what it is then.
//!
//! ```text
//!  devices that the session allows and that are ready ──▶ cost model ──▶ are their kernels compiled? does it all work there?
//!        ▲                                                                   │ no: those are left out, and compiled meanwhile
//!        └───────────────────────────────────────────────────────────────────┘ yes: units, and a claim that others see
//! ```
//!
//! Under `require` and `verify`, and where costs don't decide, the first device takes all that it can.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use trireme_costs::monitor::LATE_MS_MIN;
use trireme_costs::{CoExecution, Decision, Facts, Known, Objective, PlaceError, Split};
use trireme_device_api::{Device, DeviceKind, DeviceState, Graph, Inputs, Support, Variant};

use crate::costs::{CostModel, Here, Situation};
use crate::devices::{Allowed, DeviceChoice, DeviceMode};
use crate::error::{ErrorClass, QueryError};
use crate::fused::FragmentRuntime;
use crate::operators::FragmentPlan;
use crate::placement::{Decided, Placement};
use crate::split::{COMPILING, Helper, Parts};

/// Devices beside the processor that the cost model compares.
const DEVICES_MAX: usize = 7;

impl FragmentRuntime {
    /// The devices that a graph may run on beside the processor, as they are now.
    pub(crate) fn devices_of(&self, choice: &DeviceChoice) -> Vec<Arc<dyn Device>> {
        let insists = match choice.mode {
            DeviceMode::Require => true,
            // The processor alone would be compared with itself.
            DeviceMode::Verify => matches!(choice.allowed, Allowed::Named(_)),
            _ => false,
        };
        // One that was latched off after the plan was made would only fail.
        let takes_work = |device: &Arc<dyn Device>| insists || device.info().state == DeviceState::Ready;
        let mut devices: Vec<_> = match &choice.allowed {
            Allowed::Processor => Vec::new(),
            Allowed::Named(names) => {
                let named = names.iter().filter_map(|name| self.devices().get(name));
                named.filter(|device| takes_work(device)).cloned().collect()
            }
            Allowed::Accelerators => {
                // A query that doesn't demand a device doesn't wait until all drivers have started.
                let found = match (choice.mode, &choice.pins) {
                    (DeviceMode::Auto, None) => self.devices().known(),
                    _ => Some(self.devices().wait()),
                };
                let all = found.map_or(&[][..], |found| &found.devices);
                let accelerates = |device: &&Arc<dyn Device>| {
                    let info = device.info();
                    info.kind != DeviceKind::Cpu || choice.demands(&info.id)
                };
                let ready = all.iter().filter(accelerates);
                ready.filter(|device| takes_work(device)).cloned().collect()
            }
        };
        devices.truncate(DEVICES_MAX);
        devices
    }

    /// Device and variant, for EXPLAIN.
    pub fn variant_name(&self, choice: &DeviceChoice) -> String {
        let name = |variant: &Arc<dyn Variant>| format!("{}/{}", variant.device(), variant.name());
        let devices = self.devices_of(choice);
        match devices.first() {
            None => name(self.host()),
            Some(_) if choice.is_by_cost() => {
                let devices = devices.iter().map(|device| name(&device.variant()));
                let all: Vec<_> = std::iter::once(name(self.host())).chain(devices).collect();
                format!("by cost of {}", all.join(", "))
            }
            Some(first) => name(&first.variant()),
        }
    }

    /// Where the fragments of a bound graph run, among devices that its choice allows.
    ///
    /// # Errors
    /// When no placement is within the session's bounds.
    pub(crate) fn place(
        &self,
        plan: &FragmentPlan,
        inputs: &Inputs,
        devices: &[Arc<dyn Device>],
    ) -> Result<Placement, QueryError> {
        let began = Instant::now();
        let placed = self.placed(plan, inputs, devices);
        self.placing().add(began.elapsed());
        placed
    }

    fn placed(
        &self,
        plan: &FragmentPlan,
        inputs: &Inputs,
        devices: &[Arc<dyn Device>],
    ) -> Result<Placement, QueryError> {
        let choice = &plan.choice;
        if choice.is_by_cost() && (!devices.is_empty() || choice.limits()) {
            return self.by_cost(plan, inputs, devices);
        }
        Ok(match devices.first() {
            None => Placement::single(&plan.graph, self.host()),
            Some(device) => self.by_rule(plan, inputs, device),
        })
    }

    /// The device takes all that it can.
    fn by_rule(&self, plan: &FragmentPlan, inputs: &Inputs, device: &Arc<dyn Device>) -> Placement {
        let (graph, variant) = (&plan.graph, device.variant());
        if plan.choice.mode == DeviceMode::Auto && !variant.warm(graph, inputs) {
            let mut placement = Placement::single(graph, self.host());
            placement.reasons.fill(Some(COMPILING.to_owned()));
            return placement;
        }
        let support = variant.support_bound(graph, inputs);
        Placement::split(graph, &variant, &support, self.host())
    }

    /// What a graph is placed for, and what a user should know of it.
    fn objective_of(&self, plan: &FragmentPlan) -> (Objective, Vec<String>) {
        let (mut objective, notes) = plan.choice.objective(plan.graph.fragments.len());
        if !self.costs().co_executes() {
            objective.co_execution = CoExecution::Off;
        }
        (objective, notes)
    }

    fn by_cost(
        &self,
        plan: &FragmentPlan,
        inputs: &Inputs,
        devices: &[Arc<dyn Device>],
    ) -> Result<Placement, QueryError> {
        let here = Here::bound(self.host(), self.load(), inputs);
        let bound = |device| Situation::bound(device, inputs, &here);
        let mut situations: Vec<_> = devices.iter().map(bound).collect();
        let (mut objective, mut notes) = self.objective_of(plan);
        let facts = CostModel::facts_of(plan, &Known::default());
        // Each turn asks one device more what it supports, or leaves one more out.
        for _ in 0..=2 * devices.len() + 2 {
            let decided = self.decide_among((plan, &facts), &here, &situations, &mut objective, &mut notes);
            let decision = match decided {
                Ok(decided) => decided,
                Err(error @ PlaceError::Infeasible { .. }) => return Err(out_of_bounds(&error)),
                Err(error) => {
                    tracing::warn!(%error, "the cost model places nothing: all runs on the processor");
                    return Ok(Placement::single(&plan.graph, self.host()));
                }
            };
            if !self.is_possible(plan, inputs, &decision, &mut situations) {
                continue;
            }
            let helper = match &decision.split {
                Ok(split) => self.helper(plan, inputs, split, &decision, &situations),
                Err(_) => Ok(None),
            };
            let helper = match helper {
                Ok(helper) => helper,
                Err(why) => {
                    objective.co_execution = CoExecution::Off;
                    notes.push(why);
                    continue;
                }
            };
            let left_out = situations
                .iter()
                .filter_map(|situation| Some((situation, situation.left_out?)));
            notes.extend(left_out.map(|(situation, why)| format!("{}: {why}", situation.device.info().id)));
            let mut placement = self.carry_out(plan, &situations, Decided { facts, decision, notes });
            placement.helper = helper;
            return Ok(placement);
        }
        Ok(Placement::single(&plan.graph, self.host()))
    }

    /// The decision; without the pins when they can't be kept, which is told.
    fn decide_among(
        &self,
        (plan, facts): (&FragmentPlan, &Facts),
        here: &Here<'_>,
        situations: &[Situation],
        objective: &mut Objective,
        notes: &mut Vec<String>,
    ) -> Result<Decision, PlaceError> {
        let (costs, graph) = (self.costs(), &plan.graph);
        let decide = |objective: &Objective| costs.decide(graph, facts, here, situations, objective);
        match decide(objective) {
            Err(error) if objective.pinned.iter().any(Option::is_some) && !is_out_of_bounds(&error) => {
                notes.push(not_kept(&error.to_string()));
                objective.pinned = Vec::new();
                decide(objective)
            }
            other => other,
        }
    }

    /// Whether the devices that a decision uses can do what it asks of them; else it is noted what they can't.
    fn is_possible(
        &self,
        plan: &FragmentPlan,
        inputs: &Inputs,
        decision: &Decision,
        situations: &mut [Situation],
    ) -> bool {
        let mut possible = true;
        for situation in situations.iter_mut().filter(|situation| situation.left_out.is_none()) {
            let id = situation.device.info().id;
            let Some(candidate) = decision.devices.iter().position(|device| *device == id) else {
                continue;
            };
            let here = || (0..decision.chosen.len()).filter(|fragment| decision.chosen[*fragment] == candidate);
            if here().next().is_none() {
                continue;
            }
            let variant = situation.device.variant();
            if situation.support.is_none() {
                let support = variant.support_bound(&plan.graph, inputs);
                possible &= here().all(|fragment| support.get(fragment) == Some(&Support::Supported));
                situation.support = Some(support);
            }
            // Whoever pins a fragment to a device waits for its kernels.
            let insists = plan.choice.pins.is_some() && decision.pins_any(candidate);
            if possible && !insists && !variant.warm(&plan.graph, inputs) {
                situation.left_out = Some(COMPILING);
                possible = false;
            }
        }
        possible
    }

    /// Who shares a fragment, when it can.
    ///
    /// # Errors
    /// Why it can't, for people.
    fn helper(
        &self,
        plan: &FragmentPlan,
        inputs: &Inputs,
        split: &Split,
        decision: &Decision,
        situations: &[Situation],
    ) -> Result<Option<Arc<Helper>>, String> {
        let fragment = split.fragment;
        let supports = |variant: &Arc<dyn Variant>, graph: &Arc<Graph>| variant.support_bound(graph, inputs);
        let Some((variant, parts)) = shared(plan, split, decision, situations, supports)? else {
            return Ok(None);
        };
        if !variant.warm(&parts.graph, inputs) {
            return Err(not_shared(split, decision, COMPILING));
        }
        let always = plan.choice.objective.co_execution == CoExecution::Always;
        // What is always shared may be far from what was predicted.
        let late_ms = if always { 20.0 * LATE_MS_MIN } else { LATE_MS_MIN };
        Ok(Some(Arc::new(Helper {
            fragment,
            variant,
            parts,
            share: split.share,
            host_ms: split.host_ms,
            device_ms: split.device_ms,
            late_min: Duration::try_from_secs_f64(late_ms / 1e3).unwrap_or_default(),
            always,
        })))
    }

    fn carry_out(&self, plan: &FragmentPlan, situations: &[Situation], decided: Decided) -> Placement {
        let decision = &decided.decision;
        let ids: Vec<_> = situations.iter().map(|situation| situation.device.info().id).collect();
        let device = |candidate: usize| ids.iter().position(|id| *id == decision.devices[candidate]);
        let at: Vec<_> = decision.chosen.iter().map(|candidate| device(*candidate)).collect();
        let variants: Vec<_> = situations.iter().map(|situation| situation.device.variant()).collect();
        let mut placement = Placement::assigned(&plan.graph, &at, &variants, self.host());
        if !situations.is_empty() {
            let on_host = |(id, at): (usize, &Option<usize>)| at.is_none().then(|| why_here(decision, id, situations));
            placement.reasons = at.iter().enumerate().map(on_host).collect();
        }
        let claim = self.load().begin();
        claim.take(decision, |_| true);
        placement.claim = Some(claim);
        placement.decided = Some(Arc::new(decided));
        placement
    }

    /// What the cost model says of a plan, over these devices of the catalogue, or over those that the session allows.
    ///
    /// # Errors
    /// When a device is not in the catalogue, or nothing can be placed.
    pub fn decide(&self, plan: &FragmentPlan, what_if: &[String]) -> Result<Decided, String> {
        let choice = &plan.choice;
        let (mut objective, mut notes) = self.objective_of(plan);
        if !what_if.is_empty() {
            objective.pinned = Vec::new();
            let (facts, decision) = self.costs().what_if(plan, self.host(), what_if, &objective)?;
            return Ok(Decided { facts, decision, notes });
        }
        let devices = self.devices_of(choice);
        let situations: Vec<_> = devices.iter().map(Situation::unbound).collect();
        let facts = CostModel::facts_of(plan, &Known::default());
        let here = Here::unbound(self.host(), self.load());
        let mut decide = |objective: &mut Objective| {
            let decided = self.decide_among((plan, &facts), &here, &situations, objective, &mut notes);
            decided.map_err(|error| error.to_string())
        };
        let mut decision = decide(&mut objective)?;
        // A run would find that the device can't: nothing is said to be shared that won't be.
        if let Ok(split) = &decision.split
            && let Err(why) = shared(plan, split, &decision, &situations, unbound)
        {
            objective.co_execution = CoExecution::Off;
            decision = decide(&mut objective)?;
            notes.push(why);
        }
        if !choice.is_by_cost() {
            notes.push("it does not run by cost: trireme.placement or trireme.device_mode decides where".to_owned());
        }
        Ok(Decided { facts, decision, notes })
    }
}

/// Who shares a fragment, and what it runs.
type Sharing = (Arc<dyn Variant>, Parts);

/// The device that shares a fragment, and what it would run; none when the fragment can't be cut after all.
///
/// # Errors
/// Why the device can't, for people.
fn shared(
    plan: &FragmentPlan,
    split: &Split,
    decision: &Decision,
    situations: &[Situation],
    supports: impl Fn(&Arc<dyn Variant>, &Arc<Graph>) -> Vec<Support>,
) -> Result<Option<Sharing>, String> {
    let id = &decision.devices[split.candidate];
    let found = situations.iter().find(|situation| situation.device.info().id == *id);
    let parts = Parts::of(&plan.graph, split.fragment, &split.builds);
    let (Some(situation), Some(parts)) = (found, parts) else {
        return Ok(None);
    };
    let variant = situation.device.variant();
    let support = supports(&variant, &parts.graph);
    let cant = support.iter().find_map(|support| match support {
        Support::Supported => None,
        Support::Unsupported { reason } => Some(reason.as_str()),
    });
    match cant {
        Some(reason) => Err(not_shared(split, decision, reason)),
        None => Ok(Some((variant, parts))),
    }
}

fn not_shared(split: &Split, decision: &Decision, reason: &str) -> String {
    let device = &decision.devices[split.candidate];
    format!("fragment {} is not shared with {device}: {reason}", split.fragment)
}

/// What a variant supports of a graph whose inputs are not bound.
fn unbound(variant: &Arc<dyn Variant>, graph: &Arc<Graph>) -> Vec<Support> {
    (0..graph.fragments.len())
        .map(|id| variant.support(graph, id))
        .collect()
}

/// Why a fragment stays on the processor.
fn why_here(decision: &Decision, fragment: usize, situations: &[Situation]) -> String {
    if let Some(reason) = situations.iter().find_map(|situation| situation.left_out) {
        return reason.to_owned();
    }
    let options = decision.options.get(fragment);
    let cost = |candidate: usize| options.and_then(|of| of.get(candidate)).map(Result::as_ref);
    let here = cost(0).and_then(Result::ok).map_or(f64::NAN, |cost| cost.total_ms);
    let there = (1..decision.devices.len()).map(|candidate| match cost(candidate) {
        Some(Ok(cost)) => format!("{:.2} ms on {}", cost.total_ms, decision.devices[candidate]),
        Some(Err(reason)) => format!("{}: {reason}", decision.devices[candidate]),
        None => decision.devices[candidate].clone(),
    });
    format!("by cost: {}, {here:.2} ms here", there.collect::<Vec<_>>().join(", "))
}

fn is_out_of_bounds(error: &PlaceError) -> bool {
    matches!(error, PlaceError::Infeasible { .. })
}

/// The error of a query that no placement lets keep within its bounds.
fn out_of_bounds(error: &PlaceError) -> QueryError {
    QueryError::new(ErrorClass::Precondition, error.to_string())
        .with_hint("raise trireme.max_ms, trireme.max_usd or trireme.max_joules, or set them to 0, which is none")
}

fn not_kept(reason: &str) -> String {
    format!("the pinned placement is not kept: {reason}")
}

impl DeviceChoice {
    /// The cost model chooses: nobody insists on a device.
    pub(crate) fn is_by_cost(&self) -> bool {
        self.by_cost && self.mode == DeviceMode::Auto
    }

    /// Something is to be kept even where there is only the processor.
    fn limits(&self) -> bool {
        self.objective.is_bound() || self.pins.is_some()
    }

    /// Some fragment is pinned to the device.
    fn demands(&self, device: &str) -> bool {
        let mut pins = self.pins.iter().flat_map(|pins| pins.devices.values());
        pins.any(|pinned| pinned == device)
    }

    /// What a graph of so many fragments is placed for, and what a user should know of it.
    fn objective(&self, fragments: usize) -> (Objective, Vec<String>) {
        let mut objective = self.objective.clone();
        match self.pins.as_ref().map(|pins| pins.by_fragment(fragments)) {
            None => (objective, Vec::new()),
            Some(Ok(pinned)) => {
                objective.pinned = pinned;
                (objective, Vec::new())
            }
            Some(Err(reason)) => (objective, vec![not_kept(&reason)]),
        }
    }
}

/// How long choosing took.
#[derive(Default)]
pub(crate) struct Placing {
    count: AtomicU64,
    us: AtomicU64,
    over_1_ms: AtomicU64,
    over_5_ms: AtomicU64,
}

/// How long planning fragments, or choosing where they run, has taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PlacingCounts {
    /// Plans that were made, or graphs that were placed.
    pub count: u64,
    /// Time in all, in microseconds.
    pub us: u64,
    /// Of these, those that took longer than 1 ms.
    pub over_1_ms: u64,
    /// Of these, those that took longer than 5 ms.
    pub over_5_ms: u64,
}

impl Placing {
    pub(crate) fn add(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.us.fetch_add(us, Ordering::Relaxed);
        self.over_1_ms.fetch_add(u64::from(us > 1_000), Ordering::Relaxed);
        self.over_5_ms.fetch_add(u64::from(us > 5_000), Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> PlacingCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PlacingCounts {
            count: read(&self.count),
            us: read(&self.us),
            over_1_ms: read(&self.over_1_ms),
            over_5_ms: read(&self.over_5_ms),
        }
    }
}
