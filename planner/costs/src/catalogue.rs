//! Devices that one doesn't have, described by a few numbers, and the formulas that make rates of these.
//!
//! ```text
//!  processor, a core:  the rates of [`reference`], times `core_rate`; memory in all: memory_bytes_per_second
//!  accelerator:        stream = 0.85 × memory bandwidth (narrow carriers a little less)
//!                      random = bandwidth / SECTOR_BYTES of the cache or the memory that the footprint fits
//!                      updates, inserts = random / 2, contended below 1,000 groups
//!                      link = its rate, reached at 1 MiB; a copy takes `link_latency_ms` whatever its size
//! ```
//!
//! Good enough to compare machines, and marked as what it is: [`Provenance::Catalogue`].

use std::sync::LazyLock;

use serde::Deserialize;
use toml::{Table, Value};
use trireme_device_api::{DeviceInfo, DeviceKind, Vitals};

use crate::profile::{Curve, Link, Operations, PROFILE_VERSION, Power, Profile, Provenance};

const TEXT: &str = include_str!("catalogue.toml");

/// What an accelerator's memory gives at least, for one access.
const SECTOR_BYTES: f64 = 32.0;
/// Of a maker's bandwidth, what reading in order reaches.
const STREAM_SHARE: f64 = 0.85;
/// Adding to a table is a read and a write.
const UPDATES_PER_ACCESS: f64 = 0.5;
/// Rows that a worker takes at once.
pub(crate) const MORSEL_ROWS: f64 = 32_768.0;
/// Rows of a segment: accelerators get their source in such pieces when it doesn't fit.
const CHUNK_ROWS: f64 = 1_048_576.0;

/// A core of an AMD EPYC of 2024 (Zen 5, 4 GHz), at `core_rate` 1: fitted to the fragments' times in `testdata`, which the fused
/// variant took there with one worker.
pub fn reference() -> Profile {
    Profile {
        version: PROFILE_VERSION,
        id: "cpu0".to_owned(),
        kind: DeviceKind::Cpu,
        name: "reference".to_owned(),
        driver: String::new(),
        provenance: Provenance::Catalogue,
        measured_unix_s: None,
        workers: 1,
        morsel_rows: MORSEL_ROWS,
        worker_efficiency: 0.9,
        spread_ms: 0.1,
        overlap: 0.0,
        memory_bytes: 8e9,
        memory_bytes_per_second_max: 72e9,
        stream_bytes_per_second_by_carrier_bytes: Curve::new(vec![(1.0, 12e9), (2.0, 24e9), (4.0, 13e9), (8.0, 24e9)]),
        write_bytes_per_second: 3.9e9,
        random_accesses_per_second_by_footprint_bytes: Curve::new(vec![
            (8e3, 1.9e9),
            (64e3, 1.4e9),
            (1e6, 900e6),
            (16e6, 350e6),
            (256e6, 125e6),
        ]),
        group_updates_per_second_by_groups: Curve::new(vec![
            (4.0, 1.5e9),
            (64.0, 1.8e9),
            (1e3, 650e6),
            (16e3, 750e6),
            (256e3, 500e6),
            (4e6, 200e6),
        ]),
        inserts_per_second_by_footprint_bytes: Curve::new(vec![(64e3, 1.8e9), (1e6, 850e6), (32e6, 360e6)]),
        operations: Operations {
            simple_per_second: 41e9,
            tests_per_second: 4e9,
            gathers_per_second: 2.7e9,
            hashes_per_second: 110e6,
            new_groups_per_second: 45e6,
            wide_per_second: 420e6,
            text_bytes_per_second: 5.3e9,
            host_calls_per_second: 20e6,
            comparisons_per_second: 650e6,
        },
        decode_bytes_per_second: Some(1.2e9),
        upload: None,
        download: None,
        chunk_rows: CHUNK_ROWS,
        start_ms: 0.02,
        wake_ms: 0.02,
        node_ms: 0.0005,
        launch_ms: 0.0,
        launches: 0.0,
        sync_ms: 0.0,
        compile_ms_by_nodes: Curve::flat(1e-6),
        power: Power {
            active_watts: 10.0,
            idle_watts: 3.0,
            provenance: Provenance::Modelled,
        },
        price_usd_per_hour: 0.05,
    }
}

/// With every rate of work multiplied.
pub(crate) fn scaled(profile: &Profile, factor: f64) -> Profile {
    let operations = &profile.operations;
    Profile {
        stream_bytes_per_second_by_carrier_bytes: profile.stream_bytes_per_second_by_carrier_bytes.scaled(factor),
        write_bytes_per_second: profile.write_bytes_per_second * factor,
        random_accesses_per_second_by_footprint_bytes: profile
            .random_accesses_per_second_by_footprint_bytes
            .scaled(factor),
        group_updates_per_second_by_groups: profile.group_updates_per_second_by_groups.scaled(factor),
        inserts_per_second_by_footprint_bytes: profile.inserts_per_second_by_footprint_bytes.scaled(factor),
        operations: Operations {
            simple_per_second: operations.simple_per_second * factor,
            tests_per_second: operations.tests_per_second * factor,
            gathers_per_second: operations.gathers_per_second * factor,
            hashes_per_second: operations.hashes_per_second * factor,
            new_groups_per_second: operations.new_groups_per_second * factor,
            wide_per_second: operations.wide_per_second * factor,
            text_bytes_per_second: operations.text_bytes_per_second * factor,
            host_calls_per_second: operations.host_calls_per_second * factor,
            comparisons_per_second: operations.comparisons_per_second * factor,
        },
        decode_bytes_per_second: profile.decode_bytes_per_second.map(|rate| rate * factor),
        ..profile.clone()
    }
}

/// A line of the catalogue.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    id: String,
    kind: String,
    name: String,
    memory_bytes: f64,
    memory_bytes_per_second: f64,
    #[serde(default)]
    cache_bytes: Option<f64>,
    price_usd_per_hour: f64,
    active_watts: f64,
    idle_watts: f64,
    #[serde(default)]
    cores: Option<u32>,
    #[serde(default)]
    core_rate: Option<f64>,
    #[serde(default)]
    cache_bytes_per_second: Option<f64>,
    #[serde(default)]
    operations_per_second: Option<f64>,
    /// For people.
    #[serde(default)]
    link: Option<String>,
    #[serde(default)]
    link_bytes_per_second: Option<f64>,
    #[serde(default)]
    link_latency_ms: Option<f64>,
    #[serde(default)]
    launch_ms: Option<f64>,
    #[serde(default)]
    sync_ms: Option<f64>,
    #[serde(default)]
    compile_ms: Option<f64>,
}

/// Rows put into groups, by their number: few contend where there are many workers, many are not cached.
fn updates(tables: &Curve, cache_bytes: f64, memory_bytes: f64, contended: bool) -> Curve {
    let most = tables.at(1.0);
    Curve::new(vec![
        (1.0, most * if contended { 0.3 } else { 1.0 }),
        (1e3, most),
        (cache_bytes / SECTOR_BYTES, most),
        (cache_bytes, tables.at(memory_bytes)),
    ])
}

/// What can be wrong with a description.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// No TOML, or not of this form.
    #[error("the description of devices can't be read: {0}")]
    Unreadable(#[from] toml::de::Error),
    /// `like` names nothing.
    #[error("device \"{id}\" is like \"{like}\", which is not in the catalogue: {known}")]
    Unknown {
        /// The device.
        id: String,
        /// What it names.
        like: String,
        /// What there is.
        known: String,
    },
    /// A field lacks that its kind needs.
    #[error("device \"{id}\" has no {field}, which a {kind} needs")]
    Lacks {
        /// The device.
        id: String,
        /// Its kind.
        kind: String,
        /// The field.
        field: &'static str,
    },
    /// A number that can't be.
    #[error(transparent)]
    Impossible(#[from] crate::profile::ProfileError),
}

/// All devices of the catalogue.
///
/// # Errors
/// When the catalogue itself is wrong, which a test rules out.
pub fn catalogue() -> Result<Vec<Profile>, CatalogueError> {
    described(TEXT)
}

/// The devices that a text of the catalogue's form describes, as in `devices.toml`.
///
/// # Errors
/// When it isn't of that form, names devices that aren't there, or holds impossible numbers.
pub fn described(text: &str) -> Result<Vec<Profile>, CatalogueError> {
    let known = tables(TEXT)?;
    tables(text)?
        .into_iter()
        .map(|table| {
            let described: Described = Value::Table(resolved(table, &known)?).try_into()?;
            let profile = described.profile()?;
            profile.check()?;
            Ok(profile)
        })
        .collect()
}

fn tables(text: &str) -> Result<Vec<Table>, toml::de::Error> {
    #[derive(Deserialize)]
    struct File {
        device: Vec<Table>,
    }
    Ok(toml::from_str::<File>(text)?.device)
}

/// With the fields of the device that it is like.
fn resolved(mut table: Table, known: &[Table]) -> Result<Table, CatalogueError> {
    let Some(Value::String(like)) = table.remove("like") else {
        return Ok(table);
    };
    let id = |table: &Table| table.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(base) = known.iter().find(|base| id(base) == like) else {
        return Err(CatalogueError::Unknown {
            id: id(&table),
            like,
            known: known.iter().map(id).collect::<Vec<_>>().join(", "),
        });
    };
    let mut resolved = base.clone();
    resolved.extend(table);
    Ok(resolved)
}

impl Described {
    fn profile(&self) -> Result<Profile, CatalogueError> {
        match self.kind.as_str() {
            "cpu" => self.processor(),
            "fpga" => self.accelerator(DeviceKind::Fpga),
            _ => self.accelerator(DeviceKind::Gpu),
        }
    }

    fn needs<T>(&self, field: &'static str, value: Option<T>) -> Result<T, CatalogueError> {
        value.ok_or_else(|| CatalogueError::Lacks {
            id: self.id.clone(),
            kind: self.kind.clone(),
            field,
        })
    }

    fn power(&self) -> Power {
        Power {
            active_watts: self.active_watts,
            idle_watts: self.idle_watts,
            provenance: Provenance::Catalogue,
        }
    }

    fn processor(&self) -> Result<Profile, CatalogueError> {
        let cores = self.needs("cores", self.cores)?;
        Ok(Profile {
            id: self.id.clone(),
            name: self.name.clone(),
            workers: cores,
            memory_bytes: self.memory_bytes,
            memory_bytes_per_second_max: self.memory_bytes_per_second,
            power: self.power(),
            price_usd_per_hour: self.price_usd_per_hour,
            ..scaled(&reference(), self.core_rate.unwrap_or(1.0))
        })
    }

    fn accelerator(&self, kind: DeviceKind) -> Result<Profile, CatalogueError> {
        let link_rate = self.needs("link_bytes_per_second", self.link_bytes_per_second)?;
        let cache_rate = self.needs("cache_bytes_per_second", self.cache_bytes_per_second)?;
        let cache_bytes = self.needs("cache_bytes", self.cache_bytes)?;
        let operations = self.needs("operations_per_second", self.operations_per_second)?;
        let is_gpu = kind == DeviceKind::Gpu;
        let link = link(link_rate, self.link_latency_ms.unwrap_or(0.01));
        let in_memory = self.memory_bytes_per_second / SECTOR_BYTES;
        let random = Curve::new(vec![
            (cache_bytes, cache_rate / SECTOR_BYTES),
            (cache_bytes * 4.0, in_memory),
            (self.memory_bytes, in_memory * 0.6),
        ]);
        let tables = random.scaled(UPDATES_PER_ACCESS);
        let updates = updates(&tables, cache_bytes, self.memory_bytes, is_gpu);
        let stream = self.memory_bytes_per_second * STREAM_SHARE;
        Ok(Profile {
            version: PROFILE_VERSION,
            id: self.id.clone(),
            kind,
            name: match &self.link {
                Some(link) => format!("{}, {link}", self.name),
                None => self.name.clone(),
            },
            driver: String::new(),
            provenance: Provenance::Catalogue,
            measured_unix_s: None,
            workers: 1,
            morsel_rows: CHUNK_ROWS,
            worker_efficiency: 1.0,
            spread_ms: 0.0,
            overlap: 0.8,
            memory_bytes: self.memory_bytes * 0.9,
            memory_bytes_per_second_max: self.memory_bytes_per_second,
            stream_bytes_per_second_by_carrier_bytes: Curve::new(vec![(1.0, stream * 0.7), (4.0, stream)]),
            write_bytes_per_second: stream,
            random_accesses_per_second_by_footprint_bytes: random,
            group_updates_per_second_by_groups: updates,
            inserts_per_second_by_footprint_bytes: tables,
            operations: Operations {
                simple_per_second: operations,
                tests_per_second: operations,
                gathers_per_second: in_memory,
                hashes_per_second: operations / 20.0,
                new_groups_per_second: in_memory / 4.0,
                wide_per_second: operations / 10.0,
                text_bytes_per_second: stream * 0.2,
                host_calls_per_second: 20e6,
                comparisons_per_second: operations / 20.0,
            },
            decode_bytes_per_second: None,
            upload: Some(link.clone()),
            download: Some(link),
            chunk_rows: CHUNK_ROWS,
            start_ms: 0.05,
            wake_ms: 0.0,
            node_ms: 0.0,
            launch_ms: self.launch_ms.unwrap_or(if is_gpu { 0.006 } else { 0.03 }),
            launches: 3.0,
            sync_ms: self.sync_ms.unwrap_or(0.02),
            compile_ms_by_nodes: match (self.compile_ms, is_gpu) {
                (Some(ms), _) => Curve::flat(ms),
                (None, true) => Curve::new(vec![(4.0, 25.0), (40.0, 45.0), (400.0, 200.0)]),
                (None, false) => Curve::flat(80.0),
            },
            power: self.power(),
            price_usd_per_hour: self.price_usd_per_hour,
        })
    }
}

/// A link that reaches its rate with copies of 1 MiB.
fn link(bytes_per_second: f64, latency_ms: f64) -> Link {
    Link {
        bytes_per_second_by_bytes: Curve::new(vec![(4_096.0, bytes_per_second * 0.2), (1_048_576.0, bytes_per_second)]),
        latency_ms,
    }
}

/// A profile of a device that is there but was not measured: the catalogue's whose model its name holds, else the least of its
/// kind, with what the device tells of itself. None when the catalogue has nothing of its kind.
pub fn of_device(info: &DeviceInfo, vitals: &Vitals) -> Option<Profile> {
    // Asked for each graph that is placed.
    static KNOWN: LazyLock<Vec<Profile>> = LazyLock::new(|| catalogue().unwrap_or_default());
    let known = &*KNOWN;
    // A processor behind a driver has memory of its own, as far as copies are concerned.
    let accelerators = || known.iter().filter(|profile| !profile.is_host());
    let model = |profile: &&Profile| {
        let words = profile.name.split([',', ' ']);
        // "NVIDIA H200, 141 GB": the second word is the model.
        words
            .clone()
            .nth(1)
            .is_some_and(|model| !model.is_empty() && info.name.contains(model))
    };
    let by_name = accelerators().find(model);
    let profile = by_name.or_else(|| accelerators().find(|profile| profile.kind == info.kind));
    let mut profile = profile.or_else(|| accelerators().next())?.clone();
    if let Some(rate) = vitals.read_bytes_per_second.filter(|rate| *rate > 0.0) {
        let described = profile.memory_bytes_per_second_max * STREAM_SHARE;
        profile = scaled(&profile, rate / described);
        profile.memory_bytes_per_second_max = rate / STREAM_SHARE;
        profile.provenance = Provenance::Measured;
    }
    if let Some(rate) = vitals.upload_bytes_per_second.filter(|rate| *rate > 0.0) {
        let latency_ms = profile.upload.as_ref().map_or(0.01, |link| link.latency_ms);
        profile.upload = Some(link(rate, latency_ms));
        profile.download = Some(link(rate, latency_ms));
    }
    if info.memory_bytes > 0 {
        profile.memory_bytes = info.memory_bytes as f64;
    }
    profile.id.clone_from(&info.id);
    profile.name.clone_from(&info.name);
    profile.kind = info.kind;
    Some(profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_sound() {
        let devices = catalogue().unwrap();
        let kinds = |kind| devices.iter().filter(|device| device.kind == kind).count();
        assert!(kinds(DeviceKind::Cpu) >= 4 && kinds(DeviceKind::Gpu) >= 5 && kinds(DeviceKind::Fpga) >= 3);
        for device in &devices {
            assert_eq!(device.is_host(), device.kind == DeviceKind::Cpu, "{}", device.id);
            assert_eq!(
                devices.iter().filter(|other| other.id == device.id).count(),
                1,
                "{}",
                device.id
            );
            let text = device.to_json().unwrap();
            assert_eq!(&Profile::from_json(&text).unwrap(), device);
        }
    }

    #[test]
    fn a_machine_is_like_one_of_the_catalogue() {
        let text = "[[device]]\nlike = \"gpu-h200\"\nid = \"cuda0\"\nprice_usd_per_hour = 9.0\n";
        let devices = described(text).unwrap();
        let catalogue = catalogue().unwrap();
        let base = catalogue.iter().find(|device| device.id == "gpu-h200").unwrap();
        assert_eq!(devices[0].id, "cuda0");
        assert!((devices[0].price_usd_per_hour - 9.0).abs() < 1e-9);
        assert_eq!(devices[0].upload, base.upload);
        let unknown = described("[[device]]\nlike = \"gpu\"\nid = \"cuda0\"\n").unwrap_err();
        assert!(unknown.to_string().contains("gpu-h200"), "{unknown}");
        let impossible = "[[device]]\nlike = \"gpu-h200\"\nid = \"cuda0\"\nactive_watts = -1.0\n";
        assert!(described(impossible).unwrap_err().to_string().contains("active_watts"));
        let lacking = "[[device]]\nid = \"x\"\nkind = \"gpu\"\nname = \"x\"\nmemory_bytes = 1e9\nmemory_bytes_per_second = 1e9\n\
                       cache_bytes = 1e6\nprice_usd_per_hour = 0.0\nactive_watts = 1.0\nidle_watts = 1.0\n";
        assert!(
            described(lacking)
                .unwrap_err()
                .to_string()
                .contains("link_bytes_per_second")
        );
    }

    #[test]
    fn a_device_that_is_there_is_known_by_its_name_and_what_it_measured() {
        let info = |name: &str, kind| DeviceInfo {
            id: "cuda0".to_owned(),
            kind,
            name: name.to_owned(),
            state: trireme_device_api::DeviceState::Ready,
            cores: 132,
            memory_bytes: 1_000_000,
            features: Vec::new(),
        };
        let told = Vitals {
            upload_bytes_per_second: Some(1e9),
            read_bytes_per_second: Some(4.08e11),
            ..Vitals::default()
        };
        let h200 = catalogue()
            .unwrap()
            .into_iter()
            .find(|device| device.id == "gpu-h200")
            .unwrap();
        let known = of_device(&info("NVIDIA H200", DeviceKind::Gpu), &Vitals::default()).unwrap();
        assert_eq!((known.id.as_str(), known.provenance), ("cuda0", Provenance::Catalogue));
        assert_eq!(known.price_usd_per_hour, h200.price_usd_per_hour);
        assert_eq!(known.operations, h200.operations);
        let measured = of_device(&info("NVIDIA H200", DeviceKind::Gpu), &told).unwrap();
        measured.check().unwrap();
        assert_eq!(measured.provenance, Provenance::Measured);
        let tenth = h200.operations.hashes_per_second / 10.0;
        assert!((measured.operations.hashes_per_second / tenth - 1.0).abs() < 1e-9);
        assert!((measured.upload.unwrap().bytes_per_second_by_bytes.at(1e7) - 1e9).abs() < 1.0);
        let unknown = of_device(&info("cpu-haswell", DeviceKind::Cpu), &told).unwrap();
        assert!(!unknown.is_host() && unknown.check().is_ok());
    }
}
