//! Devices that one doesn't have, described by a few numbers, and the formulas that make rates of these.
//!
//! ```text
//!  processor, a core:  the rates of REFERENCE (measured), times `core_rate`; memory in all: memory_bytes_per_second
//!  accelerator:        stream = 0.85 × memory bandwidth (narrow carriers a little less)
//!                      random = bandwidth / SECTOR_BYTES of the cache or the memory that the footprint fits
//!                      updates, inserts = random / 2, contended below 1,000 groups
//!                      link = its rate, reached at 1 MiB; a copy takes `link_latency_ms` whatever its size
//! ```
//!
//! Good enough to compare machines, and marked as what it is: [`Provenance::Catalogue`].

use serde::Deserialize;
use toml::{Table, Value};
use trireme_device_api::DeviceKind;

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

/// A core of a server's processor of 2024, at `core_rate` 1.
struct Reference {
    stream_bytes_per_second: [(f64, f64); 4],
    random_in_cache_per_second: [(f64, f64); 2],
    random_in_memory_per_second: f64,
    operations: Operations,
}

const REFERENCE: Reference = Reference {
    stream_bytes_per_second: [(1.0, 4e9), (2.0, 7e9), (4.0, 10e9), (8.0, 13e9)],
    random_in_cache_per_second: [(16_384.0, 900e6), (1e6, 500e6)],
    random_in_memory_per_second: 100e6,
    operations: Operations {
        simple_per_second: 1.8e9,
        wide_per_second: 300e6,
        text_bytes_per_second: 2.5e9,
        host_calls_per_second: 20e6,
        comparisons_per_second: 150e6,
    },
};

/// A line of the catalogue.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    id: String,
    kind: String,
    name: String,
    memory_bytes: f64,
    memory_bytes_per_second: f64,
    cache_bytes: f64,
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
        let rate = self.core_rate.unwrap_or(1.0);
        let mut random = REFERENCE.random_in_cache_per_second.to_vec();
        random.push((self.cache_bytes.max(2e6), random[1].1 * 0.8));
        random.push((self.cache_bytes.max(2e6) * 8.0, REFERENCE.random_in_memory_per_second));
        let random = Curve::new(random).scaled(rate);
        let updates = vec![(1.0, 500e6), (1e3, 350e6), (1e5, 150e6), (1e7, 40e6)];
        let operations = &REFERENCE.operations;
        Ok(Profile {
            version: PROFILE_VERSION,
            id: self.id.clone(),
            kind: DeviceKind::Cpu,
            name: self.name.clone(),
            driver: String::new(),
            provenance: Provenance::Catalogue,
            workers: cores,
            morsel_rows: MORSEL_ROWS,
            worker_efficiency: 0.9,
            overlap: 0.0,
            memory_bytes: self.memory_bytes,
            memory_bytes_per_second_max: self.memory_bytes_per_second,
            stream_bytes_per_second_by_carrier_bytes: Curve::new(REFERENCE.stream_bytes_per_second.to_vec())
                .scaled(rate),
            inserts_per_second_by_footprint_bytes: random.scaled(UPDATES_PER_ACCESS),
            random_accesses_per_second_by_footprint_bytes: random,
            group_updates_per_second_by_groups: Curve::new(updates).scaled(rate),
            operations: Operations {
                simple_per_second: operations.simple_per_second * rate,
                wide_per_second: operations.wide_per_second * rate,
                text_bytes_per_second: operations.text_bytes_per_second * rate,
                host_calls_per_second: operations.host_calls_per_second * rate,
                comparisons_per_second: operations.comparisons_per_second * rate,
            },
            decode_bytes_per_second: Some(1.2e9 * rate),
            upload: None,
            download: None,
            chunk_rows: CHUNK_ROWS,
            start_ms: 0.02,
            launch_ms: 0.0,
            launches: 0.0,
            sync_ms: 0.0,
            compile_ms_by_nodes: Curve::flat(1e-6),
            power: self.power(),
            price_usd_per_hour: self.price_usd_per_hour,
        })
    }

    fn accelerator(&self, kind: DeviceKind) -> Result<Profile, CatalogueError> {
        let link_rate = self.needs("link_bytes_per_second", self.link_bytes_per_second)?;
        let cache_rate = self.needs("cache_bytes_per_second", self.cache_bytes_per_second)?;
        let operations = self.needs("operations_per_second", self.operations_per_second)?;
        let is_gpu = kind == DeviceKind::Gpu;
        let link = Link {
            bytes_per_second_by_bytes: Curve::new(vec![(4_096.0, link_rate * 0.2), (1_048_576.0, link_rate)]),
            latency_ms: self.link_latency_ms.unwrap_or(0.01),
        };
        let in_memory = self.memory_bytes_per_second / SECTOR_BYTES;
        let random = Curve::new(vec![
            (self.cache_bytes, cache_rate / SECTOR_BYTES),
            (self.cache_bytes * 4.0, in_memory),
            (self.memory_bytes, in_memory * 0.6),
        ]);
        let tables = random.scaled(UPDATES_PER_ACCESS);
        let contended = tables.at(1.0) * if is_gpu { 0.3 } else { 1.0 };
        let updates = vec![
            (1.0, contended),
            (1e3, tables.at(1.0)),
            (self.cache_bytes / SECTOR_BYTES, tables.at(1.0)),
            (self.cache_bytes, tables.at(self.memory_bytes)),
        ];
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
            workers: 1,
            morsel_rows: CHUNK_ROWS,
            worker_efficiency: 1.0,
            overlap: 0.8,
            memory_bytes: self.memory_bytes * 0.9,
            memory_bytes_per_second_max: self.memory_bytes_per_second,
            stream_bytes_per_second_by_carrier_bytes: Curve::new(vec![(1.0, stream * 0.7), (4.0, stream)]),
            random_accesses_per_second_by_footprint_bytes: random,
            group_updates_per_second_by_groups: Curve::new(updates),
            inserts_per_second_by_footprint_bytes: tables,
            operations: Operations {
                simple_per_second: operations,
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
}
