//! A running graph is steered: what has not started goes elsewhere when the run is other than it was expected to be.
//!
//! ```text
//!  a unit ends ───▶ rows outside [½, 2], late? ──▶ Monitor: true counts, search again ──▶ moves for > 10 %, switching paid
//!  a unit starts ─▶ others have the device?    ──▶ the same, with its queue
//!  a unit fails ──▶ no memory, lost            ──▶ without it; what a lost device alone has is made again, on the processor
//! ```
//!
//! [`crate::graph`] says what happens and follows; [`trireme_costs::monitor`] judges. Nothing is weighed before something is
//! out of the ordinary, unless the graph is on a device. Fragments that ran stay, and so do those that must be with them.

pub mod inject;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use trireme_costs::monitor::{Event, LATE_MS_MIN, Trigger};
use trireme_device_api::{Device, DeviceError, FragmentId, Inputs, Support, Variant};

use crate::costs::watch::Watch;
use crate::devices::DeviceMode;
use crate::fused::FragmentRuntime;
use crate::graph::{Seats, Standing, Start, Steer, Verdict};
use crate::history::Resteer;
use crate::load::Claim;
use crate::operators::FragmentPlan;
use crate::placement::{self, Placement, Unit};
use inject::{Faults, Inject};

/// Graphs that keep surprising are left alone after so many looks.
const LOOKS_MAX: usize = 16;
/// Graphs on the processor are not watched before.
const LOOK_AFTER: Duration = Duration::from_millis(5);
/// Shorter queues change nothing.
const BUSY_MS_MIN: f64 = LATE_MS_MIN;

/// A unit that ended.
struct Ending {
    fragments: Vec<FragmentId>,
    rows: Vec<Option<u64>>,
    time: Duration,
}

/// What left no choice.
#[derive(Clone, Copy)]
struct Failure<'a> {
    error: &'a DeviceError,
    device: &'a str,
}

/// Who steers one run of a graph.
pub(crate) struct Steering {
    runtime: Arc<FragmentRuntime>,
    plan: FragmentPlan,
    inputs: Inputs,
    /// Those that the session allows beside the processor.
    others: Vec<Arc<dyn Device>>,
    /// Else faults are planted, and nothing more.
    active: bool,
    /// The cost model says where fragments run.
    by_cost: bool,
    run: u64,
    /// What others see of it.
    claim: Arc<Claim>,
    began: Instant,
    faults: Faults,
    /// Columns that had been decoded when it began: what decodes is late for another reason.
    misses: u64,
    looks: AtomicUsize,
    /// The fragment of which a device runs a part: its time says nothing of the processor's.
    shared: AtomicUsize,
    /// By fragment that comes first in a unit: a bit when it was asked about its device's queue.
    asked: AtomicU64,
    breaks: Mutex<Vec<bool>>,
    /// By fragment: where it is.
    on: Mutex<Vec<Option<Arc<dyn Variant>>>>,
    watch: Mutex<Option<Watch>>,
    /// What ended that the cost model has not heard of.
    endings: Mutex<Vec<Ending>>,
    tell: Box<dyn Fn(Resteer) + Send + Sync>,
}

impl FragmentRuntime {
    /// Who steers a run; none when there is nothing to steer to. May cut the placement's islands.
    pub(crate) fn steering(
        self: &Arc<Self>,
        (plan, inputs, others): (&FragmentPlan, &Inputs, Vec<Arc<dyn Device>>),
        placement: &mut Placement,
        run: u64,
        tell: Box<dyn Fn(Resteer) + Send + Sync>,
    ) -> Option<Arc<Steering>> {
        let choice = &plan.choice;
        // It was checked when it was set.
        let inject: Inject = choice.inject.parse().unwrap_or_default();
        let active = choice.resteer
            && choice.mode == DeviceMode::Auto
            && self.costs().resteers()
            && choice.pins.is_none()
            && !others.is_empty();
        if !active && inject.is_empty() && placement.helper.is_none() {
            return None;
        }
        let on = placement.devices();
        let steering = Steering {
            runtime: Arc::clone(self),
            plan: plan.clone(),
            inputs: inputs.clone(),
            others,
            active,
            by_cost: choice.by_cost,
            run,
            claim: placement.claim.clone().unwrap_or_else(|| self.load().begin()),
            began: Instant::now(),
            faults: Faults::new(inject),
            misses: self.columns().metrics().misses,
            looks: AtomicUsize::new(0),
            shared: AtomicUsize::new(usize::MAX),
            asked: AtomicU64::new(0),
            breaks: Mutex::new(vec![false; on.len()]),
            on: Mutex::new(on),
            watch: Mutex::default(),
            endings: Mutex::default(),
            tell,
        };
        if active && choice.by_cost && placement.uses_device() {
            steering.cut(placement);
        }
        Some(Arc::new(steering))
    }
}

impl Steering {
    /// Something is on a device at this moment.
    pub(crate) fn used_device(&self) -> bool {
        self.on.lock().iter().any(Option::is_some)
    }

    /// Islands end where something may be learned.
    fn cut(&self, placement: &mut Placement) {
        let breaks = self.watched(|watch| watch.breaks());
        let Some(breaks) = breaks.filter(|breaks| breaks.contains(&true)) else {
            return;
        };
        let all = vec![true; breaks.len()];
        let host = self.runtime.host();
        placement.units = placement::units(&self.plan.graph, &all, &self.on.lock(), host, &breaks);
        *self.breaks.lock() = breaks;
    }

    /// What the cost model expects; it is asked the first time that somebody wants to know.
    fn watched<T>(&self, what: impl FnOnce(&mut Watch) -> T) -> Option<T> {
        if !self.by_cost {
            return None;
        }
        let mut watch = self.watch.lock();
        if watch.is_none() {
            let on = self.on.lock().clone();
            let made = self
                .runtime
                .costs()
                .watch(&self.plan, self.runtime.host(), &self.others, &on);
            match made {
                Ok(made) => *watch = Some(made),
                Err(error) => {
                    tracing::debug!(%error, "a run is not watched");
                    return None;
                }
            }
        }
        watch.as_mut().map(what)
    }

    /// Decides anew; none when all stays, which is told.
    fn again(&self, trigger: Trigger, standing: &[Standing], failure: Option<Failure<'_>>) -> Option<Verdict> {
        let text = trigger.text();
        let graph = &self.plan.graph;
        let supports = |variant: &Arc<dyn Variant>| match variant.warm(graph, &self.inputs) {
            true => variant.support_bound(graph, &self.inputs),
            false => {
                let reason = "its kernels are being compiled".to_owned();
                vec![Support::Unsupported { reason }; graph.fragments.len()]
            }
        };
        // Compiling begins for devices that only stand by; those in use are warm.
        let uses_device = self.on.lock().iter().any(Option::is_some);
        let weighed = self.watched(|watch| {
            let before = watch.names();
            let resteered = watch.resteer(trigger, |variant| match uses_device {
                true => variant.support_bound(graph, &self.inputs),
                false => supports(variant),
            })?;
            Ok::<_, trireme_costs::PlaceError>((before, watch.names(), watch.on(), resteered))
        })?;
        let (before, after, on, resteered) = match weighed {
            Ok(weighed) => weighed,
            Err(error) => {
                tracing::debug!(%error, "a run is not placed anew");
                return None;
            }
        };
        let record = self.record(text, before, after, failure);
        let record = Resteer {
            stay_ms: resteered.stay.map(|totals| totals.ms),
            go_ms: Some(resteered.go.ms),
            ..record
        };
        if !resteered.moved && failure.is_none() {
            self.tell(record);
            return None;
        }
        let left = |id: FragmentId| standing[id] != Standing::Done;
        self.watched(|watch| self.claim.take(watch.decision(), left));
        // What runs or ran is where it is; the search has no say in it unless it has to run again.
        let mut seats = on;
        let now = self.on.lock();
        for id in (0..seats.len()).filter(|id| failure.is_none() && standing[*id] != Standing::Waits) {
            seats[id].clone_from(&now[id]);
        }
        drop(now);
        Some(self.verdict(record, seats, failure))
    }

    fn record(
        &self,
        trigger: String,
        before: Vec<String>,
        after: Vec<String>,
        failure: Option<Failure<'_>>,
    ) -> Resteer {
        Resteer {
            run: self.run,
            at: SystemTime::now(),
            since: self.began.elapsed(),
            trigger,
            fallback: failure.map(|failure| failure.error.to_string()),
            moved: before != after,
            before,
            after,
            stay_ms: None,
            go_ms: None,
        }
    }

    fn verdict(&self, record: Resteer, on: Vec<Option<Arc<dyn Variant>>>, failure: Option<Failure<'_>>) -> Verdict {
        let lost = failure.filter(|failure| matches!(failure.error, DeviceError::Device(_)));
        let seats = Seats {
            lost: lost.iter().map(|failure| failure.device.to_owned()).collect(),
            on,
            breaks: self.breaks.lock().clone(),
            fallback: failure.map(|failure| failure.error.to_string()),
        };
        Verdict { record, seats }
    }

    fn looks_on(&self) -> bool {
        self.active && self.looks.fetch_add(1, Ordering::Relaxed) < LOOKS_MAX
    }

    /// Without the cost model: all that is left goes to the processor.
    fn to_host(&self, failure: Failure<'_>) -> Verdict {
        let host = self.runtime.host().device();
        let name =
            |variant: &Option<Arc<dyn Variant>>| variant.as_ref().map_or(host, |variant| variant.device()).to_owned();
        let before: Vec<String> = self.on.lock().iter().map(name).collect();
        let after = vec![host.to_owned(); before.len()];
        let on = vec![None; before.len()];
        let text = format!("{} failed", failure.device);
        let record = self.record(text, before, after, Some(failure));
        self.verdict(record, on, Some(failure))
    }

    /// Events of fragments that ended: what a unit took is shared as was expected.
    fn events(&self, watch: &Watch, ending: &Ending) -> Vec<Event> {
        let expected_ms: f64 = ending.fragments.iter().map(|id| watch.expected_ms(*id)).sum();
        let decoded = self.runtime.columns().metrics().misses != self.misses;
        let shared = ending.fragments.contains(&self.shared.load(Ordering::Relaxed));
        let ratio = match decoded || shared {
            true => 1.0,
            false => ending.time.as_secs_f64() * 1e3 / expected_ms.max(1e-6),
        };
        let event = |(id, rows): (&FragmentId, &Option<u64>)| Event::Ended {
            fragment: *id,
            output_rows: rows.map_or_else(|| watch.expected_rows(*id), |rows| rows as f64),
            ms: watch.expected_ms(*id) * ratio,
        };
        ending.fragments.iter().zip(&ending.rows).map(event).collect()
    }

    /// What started before it was watched stays as well.
    fn sync(watch: &mut Watch, standing: &[Standing]) {
        for (id, standing) in standing.iter().enumerate() {
            if *standing != Standing::Waits {
                watch.started(&[id]);
            }
        }
    }

    /// A unit asks once whether it should wait for its device.
    fn asks(&self, unit: &Unit) -> bool {
        let bit = 1_u64 << (unit.fragments[0] % 64);
        self.asked.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}

impl Steer for Steering {
    fn starts(&self, unit: &Unit, standing: &[Standing]) -> Result<Start, DeviceError> {
        let device = unit.variant.device();
        self.faults
            .check(device, &unit.fragments, self.began.elapsed(), false)?;
        if unit.island && self.asks(unit) {
            let planted_ms = self.faults.inject.busy_ms(device);
            let queue_ms = self.claim.waiting_ms(device) + planted_ms.unwrap_or(0.0);
            if queue_ms >= BUSY_MS_MIN && self.looks_on() {
                let event = Event::Busy {
                    device: device.to_owned(),
                    queue_ms,
                };
                let trigger = self.watched(|watch| {
                    Self::sync(watch, standing);
                    watch.see(&event)
                });
                let trigger = trigger.flatten();
                if let Some(verdict) = trigger.and_then(|trigger| self.again(trigger, standing, None)) {
                    return Ok(Start::Anew(Box::new(verdict)));
                }
            }
            if let Some(ms) = planted_ms {
                return Ok(Start::Later(Instant::now() + Duration::from_secs_f64(ms / 1e3)));
            }
        }
        let mut watch = self.watch.lock();
        let expected_ms = watch.as_mut().map_or(0.0, |watch| {
            watch.started(&unit.fragments);
            unit.fragments.iter().map(|id| watch.expected_ms(*id)).sum()
        });
        drop(watch);
        if unit.island {
            let first = unit.fragments[0];
            self.claim.enter(first, device, expected_ms);
        }
        Ok(Start::Now)
    }

    fn steps(&self, device: &str, fragments: &[FragmentId]) -> Result<(), DeviceError> {
        self.faults.check(device, fragments, self.began.elapsed(), true)
    }

    fn held(&self, device: &str, began: Instant) -> Option<Instant> {
        let factor = self.faults.inject.slow(device)?;
        Some(began + began.elapsed().mul_f64(factor)).filter(|until| *until > Instant::now())
    }

    fn busy_ms(&self, device: &str) -> Option<f64> {
        self.faults.inject.busy_ms(device)
    }

    fn shares(&self, fragment: FragmentId, device: &str, expected_ms: f64) {
        self.shared.store(fragment, Ordering::Relaxed);
        self.claim.enter(fragment, device, expected_ms);
    }

    fn alone(&self, fragment: FragmentId, device: &str, why: &str) {
        self.claim.leave(fragment);
        let host = self.runtime.host().device();
        let name =
            |variant: &Option<Arc<dyn Variant>>| variant.as_ref().map_or(host, |variant| variant.device()).to_owned();
        let after: Vec<String> = self.on.lock().iter().map(name).collect();
        let mut before = after.clone();
        before[fragment] = format!("{host} + {device}");
        (self.tell)(Resteer {
            run: self.run,
            at: SystemTime::now(),
            since: self.began.elapsed(),
            trigger: format!("{device} left fragment {fragment} to {host}"),
            fallback: Some(why.to_owned()),
            moved: true,
            before,
            after,
            stay_ms: None,
            go_ms: None,
        });
    }

    fn ended(&self, unit: &Unit, rows: &[Option<u64>], time: Duration, standing: &[Standing]) -> Option<Verdict> {
        self.claim.leave(unit.fragments[0]);
        if !self.active || !self.by_cost || !standing.contains(&Standing::Waits) {
            return None;
        }
        let mut endings = self.endings.lock();
        endings.push(Ending {
            fragments: unit.fragments.clone(),
            rows: rows.to_vec(),
            time,
        });
        // What is on the processor and over so soon isn't worth a look.
        if !self.used_device() && self.began.elapsed() < LOOK_AFTER {
            return None;
        }
        let endings = std::mem::take(&mut *endings);
        let trigger = self.watched(|watch| {
            Self::sync(watch, standing);
            let events: Vec<_> = endings.iter().flat_map(|ending| self.events(watch, ending)).collect();
            // The first says why; all are counted.
            let mut triggers: Vec<Trigger> = events.iter().filter_map(|event| watch.see(event)).collect();
            (!triggers.is_empty()).then(|| triggers.swap_remove(0))
        });
        let trigger = trigger.flatten()?;
        self.looks_on().then(|| self.again(trigger, standing, None)).flatten()
    }

    fn failed(&self, unit: &Unit, error: &DeviceError, standing: &[Standing]) -> Option<Verdict> {
        self.claim.leave(unit.fragments[0]);
        if !self.active {
            return None;
        }
        let failure = Failure {
            error,
            device: unit.variant.device(),
        };
        let event = |fragment: FragmentId| match error {
            DeviceError::Device(_) => Event::Lost {
                device: failure.device.to_owned(),
            },
            DeviceError::OutOfMemory(_) => Event::OutOfMemory { fragment },
            other => Event::Refused {
                fragment,
                reason: other.to_string(),
            },
        };
        let trigger = self.watched(|watch| {
            let waits = (0..standing.len()).filter(|id| standing[*id] == Standing::Waits);
            waits.for_each(|id| watch.again(id));
            Self::sync(watch, standing);
            let seen = unit.fragments.iter().filter_map(|id| watch.see(&event(*id)));
            seen.last()
        });
        let anew = trigger
            .flatten()
            .and_then(|trigger| self.again(trigger, standing, Some(failure)));
        // Whatever the cost model says, nothing more is tried on a device that failed without it.
        Some(anew.unwrap_or_else(|| self.to_host(failure)))
    }

    fn tell(&self, record: Resteer) {
        if record.moved {
            let names = &record.after;
            let variant = |name: &String| {
                let of = self.others.iter().map(|device| device.variant());
                of.into_iter().find(|variant| variant.device() == name)
            };
            *self.on.lock() = names.iter().map(variant).collect();
        }
        (self.tell)(record);
    }
}
