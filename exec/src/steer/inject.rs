//! Faults, slowness and mis-estimates that a session plants, so that tests and benchmarks need no luck.
//!
//! ```text
//!  oom@opencl0:fragment2   lost@opencl0:morsel3   lost@opencl0:40ms   slow@opencl0:10   busy@opencl0:200   rows@fragment1:1000
//! ```
//!
//! `oom` and `lost` strike when a fragment starts, at a step of a worker on the device, or so long after the graph began; without
//! a place, as soon as the device is used. They strike the graph, not the device: nothing else is told that it is lost.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use trireme_device_api::{DeviceError, FragmentId, Graph, Value};

use crate::operators::{Expectations, Expected, Provenance};

/// Parts of one text.
const PARTS_MAX: usize = 16;
/// The longest time that may be planted.
const MS_MAX: f64 = 60_000.0;

/// What is planted into every graph of a session.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inject {
    faults: Vec<Fault>,
    /// By device: its units take so many times as long.
    slow: Vec<(String, f64)>,
    /// By device: others have it for so long.
    busy: Vec<(String, f64)>,
    /// By fragment: its rows are expected to be so many times as many.
    rows: Vec<(FragmentId, f64)>,
}

#[derive(Debug, Clone, PartialEq)]
struct Fault {
    lost: bool,
    device: String,
    place: Place,
}

#[derive(Debug, Clone, PartialEq)]
enum Place {
    Anywhere,
    Fragment(FragmentId),
    Morsel(u64),
    After(Duration),
}

/// Why a text is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("trireme.inject can't plant \"{0}\"")]
pub struct InjectError(String);

impl InjectError {
    /// What can be planted.
    pub fn hint(&self) -> &'static str {
        "parts, with commas between them: oom@DEVICE or lost@DEVICE, each with :fragmentN, :morselN or :Nms; slow@DEVICE:FACTOR; \
         busy@DEVICE:MS; rows@fragmentN:FACTOR"
    }
}

fn positive(text: &str, most: f64) -> Option<f64> {
    text.parse::<f64>().ok().filter(|value| *value > 0.0 && *value <= most)
}

fn place(text: &str) -> Option<Place> {
    if let Some(id) = text.strip_prefix("fragment") {
        return Some(Place::Fragment(id.parse().ok()?));
    }
    if let Some(number) = text.strip_prefix("morsel") {
        return Some(Place::Morsel(number.parse().ok()?));
    }
    let ms = positive(text.strip_suffix("ms")?, MS_MAX)?;
    Some(Place::After(Duration::from_secs_f64(ms / 1e3)))
}

impl FromStr for Inject {
    type Err = InjectError;

    fn from_str(text: &str) -> Result<Self, InjectError> {
        let mut inject = Self::default();
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        for (number, part) in parts.enumerate() {
            let known = number < PARTS_MAX && inject.add(part).is_some();
            if !known {
                return Err(InjectError(part.to_owned()));
            }
        }
        Ok(inject)
    }
}

impl Inject {
    fn add(&mut self, part: &str) -> Option<()> {
        let (kind, rest) = part.split_once('@')?;
        let (target, value) = rest.split_once(':').unwrap_or((rest, ""));
        let device = || Some(target.to_owned()).filter(|device| !device.is_empty());
        match kind {
            "oom" | "lost" => self.faults.push(Fault {
                lost: kind == "lost",
                device: device()?,
                place: match value {
                    "" => Place::Anywhere,
                    value => place(value)?,
                },
            }),
            "slow" => self.slow.push((device()?, positive(value, 1e3)?)),
            "busy" => self
                .busy
                .push((device()?, positive(value.trim_end_matches("ms"), MS_MAX)?)),
            "rows" => {
                let id = target.strip_prefix("fragment")?.parse().ok()?;
                self.rows.push((id, positive(value, 1e12)?));
            }
            _ => return None,
        }
        Some(())
    }

    /// Nothing is planted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What planner expects, with the planted mis-estimates.
    pub fn plant(&self, expectations: Arc<dyn Expectations>) -> Arc<dyn Expectations> {
        match self.rows.is_empty() {
            true => expectations,
            false => Arc::new(Planted {
                inner: expectations,
                rows: self.rows.clone(),
            }),
        }
    }

    pub(crate) fn slow(&self, device: &str) -> Option<f64> {
        of(&self.slow, device)
    }

    pub(crate) fn busy_ms(&self, device: &str) -> Option<f64> {
        of(&self.busy, device)
    }
}

fn of(values: &[(String, f64)], device: &str) -> Option<f64> {
    values.iter().find(|(name, _)| name == device).map(|(_, value)| *value)
}

/// Of one run of a graph: each fault strikes once.
pub(crate) struct Faults {
    pub(crate) inject: Inject,
    /// By fault: steps on its device; struck when it has the highest bit.
    steps: Vec<AtomicU64>,
}

const STRUCK: u64 = 1 << 63;

impl Faults {
    pub(crate) fn new(inject: Inject) -> Self {
        let steps = inject.faults.iter().map(|_| AtomicU64::new(0)).collect();
        Self { inject, steps }
    }

    /// Fragments on a device start, or a worker steps them, so long after the graph began.
    ///
    /// # Errors
    /// The planted one.
    pub(crate) fn check(
        &self,
        device: &str,
        fragments: &[FragmentId],
        since: Duration,
        step: bool,
    ) -> Result<(), DeviceError> {
        for (fault, steps) in self.inject.faults.iter().zip(&self.steps) {
            if fault.device != device {
                continue;
            }
            let seen = match step {
                true => steps.fetch_add(1, Ordering::SeqCst) + 1,
                false => steps.load(Ordering::SeqCst),
            };
            let strikes = match &fault.place {
                Place::Anywhere => true,
                Place::Fragment(id) => fragments.contains(id),
                Place::Morsel(number) => step && seen >= *number,
                Place::After(time) => since >= *time,
            };
            // A device that is lost stays lost for this graph.
            let again = fault.lost || seen & STRUCK == 0;
            if strikes && again {
                steps.fetch_or(STRUCK, Ordering::SeqCst);
                return Err(fault.error());
            }
        }
        Ok(())
    }
}

impl Fault {
    fn error(&self) -> DeviceError {
        let device = &self.device;
        match self.lost {
            true => DeviceError::Device(format!("{device} is lost, as trireme.inject says")),
            false => DeviceError::OutOfMemory(format!("{device} has no memory left, as trireme.inject says")),
        }
    }
}

/// Expectations that are wrong on purpose, and right again where rows were counted.
struct Planted {
    inner: Arc<dyn Expectations>,
    rows: Vec<(FragmentId, f64)>,
}

impl fmt::Debug for Planted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, planted {:?}", self.inner, self.rows)
    }
}

impl Expectations for Planted {
    fn rows(&self, graph: &Graph, parameters: &[Value], counted: &[Option<f64>]) -> Vec<Expected> {
        let mut counted = counted.to_vec();
        counted.resize(graph.fragments.len(), None);
        let mut planted = Vec::new();
        for (id, factor) in &self.rows {
            let right = self.inner.rows(graph, parameters, &counted);
            if let (Some(expected), Some(None)) = (right.get(*id), counted.get(*id)) {
                counted[*id] = Some((expected.output_rows * factor).max(1.0));
                planted.push(*id);
            }
        }
        let mut rows = self.inner.rows(graph, parameters, &counted);
        for id in planted {
            rows[id].provenance = Provenance::Default;
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_planted() {
        let inject: Inject =
            "oom@opencl0:fragment2, lost@opencl0:morsel3,slow@opencl0:10, rows@fragment1:1000, busy@opencl0:200ms"
                .parse()
                .unwrap();
        assert_eq!(inject.slow("opencl0"), Some(10.0));
        assert_eq!(inject.busy_ms("opencl0"), Some(200.0));
        assert_eq!(inject.slow("cuda0"), None);
        assert!("".parse::<Inject>().unwrap().is_empty());
        for wrong in [
            "oom",
            "oom@",
            "boom@opencl0",
            "slow@opencl0",
            "slow@opencl0:-1",
            "rows@1:10",
            "lost@a:3s",
        ] {
            let error = wrong.parse::<Inject>().unwrap_err();
            assert!(error.to_string().contains(wrong), "{error}");
        }
    }

    #[test]
    fn faults_strike_where_they_are_planted() {
        let faults = Faults::new("oom@d:fragment2, lost@e:morsel3".parse().unwrap());
        let at = Duration::ZERO;
        let check = |device, ids: &[usize], step| faults.check(device, ids, at, step);
        assert!(check("d", &[0, 1], true).is_ok() && check("e", &[2], false).is_ok());
        assert!(matches!(check("d", &[1, 2], false), Err(DeviceError::OutOfMemory(_))));
        // There is memory again.
        assert!(check("d", &[1, 2], false).is_ok());
        assert!(check("e", &[0], true).is_ok() && check("e", &[0], true).is_ok());
        assert!(matches!(check("e", &[0], true), Err(DeviceError::Device(_))));
        assert!(check("e", &[0], true).is_err(), "a lost device is lost");
        let late = Faults::new("lost@d:5ms".parse().unwrap());
        assert!(late.check("d", &[0], Duration::from_millis(4), true).is_ok());
        assert!(late.check("d", &[0], Duration::from_millis(5), true).is_err());
    }
}
