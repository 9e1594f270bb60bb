//! Measures a device: about a dozen micro-kernels, and what their rates say of the engine's.
//!
//! ```text
//!  rate here = rate of a base profile × (micro-kernel here / the same where the base was made)
//! ```
//!
//! A micro-kernel is simpler than what the engine does, so its own rate would promise too much; the ratio of two machines
//! carries over. The base of processors is [`crate::catalogue::reference`]. What a [`Probe`] can't measure stays as the base has
//! it. Then all rates are fitted to what graphs like queries' take (`queries`, `fit`). Learned corrections do the rest.

mod device;
mod energy;
mod engine;
mod fit;
mod graphs;
mod host;
mod queries;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::catalogue::reference;
use crate::profile::{Curve, Link, Operations, Power, Profile, Provenance};

pub use device::{Ran, Runner, accelerator, driver_of};
pub use energy::{Counters, POWERCAP};
pub use host::HostProbe;

/// Rates further than this from the base's are not believed.
const RATIO_MAX: f64 = 1e4;

/// Something small that a device can be timed at; rates are per second, of one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Micro {
    /// Bytes of a column in order, by bytes of its carrier.
    Stream(u8),
    /// The same by all workers together, carriers of 8 bytes.
    StreamAll,
    /// Nodes × rows of plain arithmetic.
    Simple,
    /// Fragments started.
    Launch,
    /// Bytes written in order.
    Write,
    /// Accesses at random places, by size of the memory in KiB.
    Random(u32),
    /// Rows put into a join table of so many KiB.
    Insert(u32),
    /// Rows tested by conditions.
    Test,
    /// Values read at ascending positions with gaps.
    Gather,
    /// Rows added to sums, by groups.
    Update(u32),
    /// Keys hashed and found in a table.
    Hash,
    /// Hashed groups that weren't there before.
    NewGroups,
    /// Divisions.
    Divide,
    /// Bytes of strings searched.
    Text,
    /// Comparisons of a sort.
    Sort,
    /// Bytes of a copy to the device, by its size in KiB.
    Upload(u32),
    /// Bytes of a copy back, by its size in KiB.
    Download(u32),
}

/// Everything that is measured by plain loops; a device's variant is measured by graphs ([`accelerator`]).
pub const MICROS: [Micro; 22] = [
    Micro::Stream(1),
    Micro::Stream(2),
    Micro::Stream(4),
    Micro::Stream(8),
    Micro::StreamAll,
    Micro::Write,
    Micro::Random(8),
    Micro::Random(512),
    Micro::Random(16 << 10),
    Micro::Random(128 << 10),
    Micro::Gather,
    Micro::Update(4),
    Micro::Update(1 << 10),
    Micro::Update(1 << 18),
    Micro::Hash,
    Micro::Divide,
    Micro::Text,
    Micro::Sort,
    Micro::Upload(64),
    Micro::Upload(16 << 10),
    Micro::Download(64),
    Micro::Download(16 << 10),
];

/// How long measuring the processor and one device may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Less than 3 s in all.
    Quick,
    /// Less than 60 s in all.
    Full,
}

impl Effort {
    /// For one micro-kernel, its preparation left out.
    pub fn budget(self) -> Duration {
        match self {
            Effort::Quick => Duration::from_millis(15),
            Effort::Full => Duration::from_millis(600),
        }
    }
}

/// Runs micro-kernels on a device.
pub trait Probe {
    /// The rate per second; none where this device or probe can't tell.
    fn rate(&mut self, micro: Micro, budget: Duration) -> Option<f64>;

    /// The rate where the base profile was made; by default the base's own.
    fn reference(&self, micro: Micro, base: &Profile) -> Option<f64> {
        own(micro, base)
    }
}

/// What a profile itself says of a micro-kernel.
fn own(micro: Micro, base: &Profile) -> Option<f64> {
    let link = |link: &Option<Link>, kib: u32| link.as_ref().map(|link| link.bytes_per_second_by_bytes.at(bytes(kib)));
    Some(match micro {
        Micro::Stream(carrier) => base.stream_bytes_per_second_by_carrier_bytes.at(carrier.into()),
        Micro::StreamAll => base.memory_bytes_per_second_max,
        Micro::Write => base.write_bytes_per_second,
        Micro::Random(kib) => base.random_accesses_per_second_by_footprint_bytes.at(bytes(kib)),
        Micro::Test => base.operations.tests_per_second,
        Micro::Gather => base.operations.gathers_per_second,
        Micro::Update(groups) => base.group_updates_per_second_by_groups.at(groups.into()),
        Micro::Hash => base.operations.hashes_per_second,
        Micro::Divide => base.operations.wide_per_second,
        Micro::Text => base.operations.text_bytes_per_second,
        Micro::Sort => base.operations.comparisons_per_second,
        Micro::Simple => base.operations.simple_per_second,
        Micro::Insert(kib) => base.inserts_per_second_by_footprint_bytes.at(bytes(kib)),
        Micro::NewGroups => base.operations.new_groups_per_second,
        Micro::Launch => 1e3 / base.launch_ms.max(1e-9),
        Micro::Upload(kib) => return link(&base.upload, kib),
        Micro::Download(kib) => return link(&base.download, kib),
    })
}

/// Seconds since 1970, when the clock tells.
fn now_unix_s() -> Option<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(since.as_secs())
}

fn bytes(kib: u32) -> f64 {
    f64::from(kib) * 1024.0
}

/// Measures a device; rates that the probe can't tell stay as in `base`, as does all that is no rate.
pub fn calibrate(probe: &mut dyn Probe, base: &Profile, effort: Effort) -> Profile {
    let mut measured: Vec<(Micro, f64)> = Vec::new();
    // Making the largest table takes longer than all the rest.
    let is_done = |micro: &Micro| effort == Effort::Full || !matches!(micro, Micro::Random(kib) if *kib > 16 << 10);
    for micro in MICROS.into_iter().filter(is_done) {
        let rate = probe.rate(micro, effort.budget());
        let reference = probe.reference(micro, base);
        if let (Some(rate), Some(reference)) = (rate, reference)
            && rate.is_finite()
            && rate > 0.0
            && reference > 0.0
        {
            measured.push((micro, (rate / reference).clamp(0.02, 50.0)));
        }
    }
    let mut profile = Ratios(&measured).applied(base);
    if !measured.is_empty() {
        profile.provenance = Provenance::Measured;
        profile.measured_unix_s = now_unix_s();
    }
    profile
}

/// Here to where the base was made, by micro-kernel.
struct Ratios<'a>(&'a [(Micro, f64)]);

impl Ratios<'_> {
    fn of(&self, micro: Micro) -> f64 {
        self.known(micro).unwrap_or(1.0)
    }

    fn known(&self, micro: Micro) -> Option<f64> {
        self.0.iter().find(|(each, _)| *each == micro).map(|(_, ratio)| *ratio)
    }

    /// A curve with each value multiplied by the ratio at its size.
    fn curve(&self, base: &Curve, size: impl Fn(Micro) -> Option<f64>) -> Curve {
        let ratios: Vec<_> = self
            .0
            .iter()
            .filter_map(|(micro, ratio)| Some((size(*micro)?, *ratio)))
            .collect();
        if ratios.is_empty() {
            return base.clone();
        }
        let ratios = Curve::new(ratios);
        Curve::new(
            base.points()
                .iter()
                .map(|(at, value)| (*at, value * ratios.at(*at)))
                .collect(),
        )
    }

    fn link(&self, base: &Option<Link>, size: impl Fn(Micro) -> Option<f64>) -> Option<Link> {
        base.as_ref().map(|link| Link {
            bytes_per_second_by_bytes: self.curve(&link.bytes_per_second_by_bytes, size),
            latency_ms: link.latency_ms,
        })
    }

    fn applied(&self, base: &Profile) -> Profile {
        let random = |micro: Micro| match micro {
            Micro::Random(kib) => Some(bytes(kib)),
            _ => None,
        };
        let stream = |micro: Micro| match micro {
            Micro::Stream(carrier) => Some(f64::from(carrier)),
            _ => None,
        };
        let groups = |micro: Micro| match micro {
            Micro::Update(groups) => Some(f64::from(groups)),
            _ => None,
        };
        let upload = |micro: Micro| match micro {
            Micro::Upload(kib) => Some(bytes(kib)),
            _ => None,
        };
        let download = |micro: Micro| match micro {
            Micro::Download(kib) => Some(bytes(kib)),
            _ => None,
        };
        let insert = |micro: Micro| match micro {
            Micro::Insert(kib) => Some(bytes(kib)),
            _ => None,
        };
        let operations = &base.operations;
        let inserts = &base.inserts_per_second_by_footprint_bytes;
        let is_inserting = self.0.iter().any(|(micro, _)| insert(*micro).is_some());
        let simple = self.known(Micro::Simple).unwrap_or_else(|| self.of(Micro::Stream(4)));
        let new_groups = self
            .known(Micro::NewGroups)
            .unwrap_or_else(|| self.of(Micro::Random(16 << 10)));
        let random_rates = &base.random_accesses_per_second_by_footprint_bytes;
        Profile {
            stream_bytes_per_second_by_carrier_bytes: self
                .curve(&base.stream_bytes_per_second_by_carrier_bytes, stream),
            memory_bytes_per_second_max: base.memory_bytes_per_second_max * self.of(Micro::StreamAll),
            write_bytes_per_second: base.write_bytes_per_second * self.of(Micro::Write),
            random_accesses_per_second_by_footprint_bytes: self.curve(random_rates, random),
            inserts_per_second_by_footprint_bytes: match is_inserting {
                true => self.curve(inserts, insert),
                false => self.curve(inserts, random),
            },
            group_updates_per_second_by_groups: self.curve(&base.group_updates_per_second_by_groups, groups),
            operations: Operations {
                simple_per_second: operations.simple_per_second * simple,
                tests_per_second: operations.tests_per_second * self.of(Micro::Test),
                gathers_per_second: operations.gathers_per_second * self.of(Micro::Gather),
                hashes_per_second: operations.hashes_per_second * self.of(Micro::Hash),
                new_groups_per_second: operations.new_groups_per_second * new_groups,
                wide_per_second: operations.wide_per_second * self.of(Micro::Divide),
                text_bytes_per_second: operations.text_bytes_per_second * self.of(Micro::Text),
                host_calls_per_second: operations.host_calls_per_second * self.of(Micro::Hash),
                comparisons_per_second: operations.comparisons_per_second * self.of(Micro::Sort),
            },
            decode_bytes_per_second: base.decode_bytes_per_second.map(|rate| rate * self.of(Micro::Write)),
            upload: self.link(&base.upload, upload),
            download: self.link(&base.download, download),
            ..base.clone()
        }
    }
}

/// A processor: what it is called, how large it is, what it costs.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// Id of the device.
    pub id: String,
    /// Model, for people.
    pub name: String,
    /// Version of the product: another one measures anew.
    pub driver: String,
    /// Threads that run fragments.
    pub workers: u32,
    /// Memory.
    pub memory_bytes: f64,
    /// Power while it works and while it waits, when it was measured or configured.
    pub watts: Option<(f64, f64)>,
    /// Rent of the whole machine.
    pub price_usd_per_hour: f64,
}

/// Of a thread, when nothing is known: a share of a server's processor.
const WORKER_WATTS: (f64, f64) = (10.0, 3.0);
/// Of a thread, when nothing is configured.
const WORKER_USD_PER_HOUR: f64 = 0.05;

impl Machine {
    /// This machine, as far as it tells.
    pub fn this() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers = u32::try_from(workers).unwrap_or(u32::MAX);
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let kib = field(&read("/proc/meminfo"), "MemTotal");
        let kib = kib.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
        Self {
            id: "cpu0".to_owned(),
            name: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            driver: env!("CARGO_PKG_VERSION").to_owned(),
            workers,
            memory_bytes: kib.map_or(8e9, |kib| kib * 1024.0),
            watts: None,
            price_usd_per_hour: f64::from(workers) * WORKER_USD_PER_HOUR,
        }
    }

    /// The reference's rates with this machine's size.
    pub fn base(&self) -> Profile {
        let (active_watts, idle_watts) = self.watts.unwrap_or((
            f64::from(self.workers) * WORKER_WATTS.0,
            f64::from(self.workers) * WORKER_WATTS.1,
        ));
        Profile {
            id: self.id.clone(),
            name: self.name.clone(),
            driver: self.driver.clone(),
            provenance: Provenance::Modelled,
            workers: self.workers,
            memory_bytes: self.memory_bytes,
            power: Power {
                active_watts,
                idle_watts,
                provenance: if self.watts.is_some() {
                    Provenance::Measured
                } else {
                    Provenance::Modelled
                },
            },
            price_usd_per_hour: self.price_usd_per_hour,
            ..reference()
        }
    }
}

/// This machine's processor, by micro-kernels, and by micro-graphs where there is something that runs them.
pub fn processor(machine: &Machine, runner: Option<&mut dyn Runner>, effort: Effort) -> Profile {
    let profile = calibrate(&mut HostProbe::new(machine.workers), &machine.base(), effort);
    match runner {
        Some(runner) => engine::measured(profile, runner, effort),
        None => profile,
    }
}

#[cfg(test)]
mod tests;
