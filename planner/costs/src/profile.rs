//! What is known of a device's speed, as readable JSON: measured here, taken from a catalogue, or modelled.
//!
//! All rates are those of *one worker*: a core of a processor, the whole of an accelerator. A worker's rate times the workers
//! that a fragment can use is the device's, up to `memory_bytes_per_second_max`, which all workers share. Rates that depend on
//! something are a [`Curve`] over it. Nothing here predicts: [`crate::predict`] has the formulas.

use serde::{Deserialize, Serialize};
use trireme_device_api::DeviceKind;

/// Version of the serialised form.
pub const PROFILE_VERSION: u32 = 1;

/// Where a profile's numbers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provenance {
    /// Measured on this machine.
    Measured,
    /// From a description of such devices.
    Catalogue,
    /// Computed from other numbers.
    Modelled,
    /// As the configuration says.
    Configured,
}

impl Provenance {
    /// As shown to people.
    pub fn name(self) -> &'static str {
        match self {
            Provenance::Measured => "measured",
            Provenance::Catalogue => "catalogue",
            Provenance::Modelled => "modelled",
            Provenance::Configured => "configured",
        }
    }
}

/// A value over a size: straight lines between measured points on logarithmic scales, constant outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Curve(Vec<(f64, f64)>);

impl Curve {
    /// Through points of positive sizes and values; they are sorted by size.
    pub fn new(mut points: Vec<(f64, f64)>) -> Self {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self(points)
    }

    /// The same everywhere.
    pub fn flat(value: f64) -> Self {
        Self(vec![(1.0, value)])
    }

    /// Size and value of each point.
    pub fn points(&self) -> &[(f64, f64)] {
        &self.0
    }

    /// With each value multiplied.
    pub fn scaled(&self, factor: f64) -> Self {
        Self(self.0.iter().map(|(size, value)| (*size, value * factor)).collect())
    }

    /// The value at a size; 0 of a curve without points.
    pub fn at(&self, size: f64) -> f64 {
        let above = self.0.partition_point(|(x, _)| *x <= size);
        match (above.checked_sub(1).map(|below| self.0[below]), self.0.get(above)) {
            (Some((x0, y0)), Some((x1, y1))) => {
                let share = (size / x0).ln() / (x1 / x0).ln();
                y0 * (y1 / y0).powf(share)
            }
            (Some((_, y)), None) | (None, Some(&(_, y))) => y,
            (None, None) => 0.0,
        }
    }

    fn is_sound(&self) -> bool {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        !self.0.is_empty()
            && self.0.iter().all(|(x, y)| positive(*x) && positive(*y))
            && self.0.windows(2).all(|pair| pair[0].0 < pair[1].0)
    }
}

/// Copies between the host and a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Rate of one copy by its size.
    pub bytes_per_second_by_bytes: Curve,
    /// What a copy takes whatever its size.
    pub latency_ms: f64,
}

/// How fast a worker evaluates expressions over rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operations {
    /// Nodes × rows of arithmetic, comparisons, logic, look-ups of dictionary codes.
    pub simple_per_second: f64,
    /// Rows tested by a condition, beside its expression.
    #[serde(default = "untold")]
    pub tests_per_second: f64,
    /// Values read by position, for the rows that filters left.
    pub gathers_per_second: f64,
    /// Keys hashed, and compared with what is found.
    pub hashes_per_second: f64,
    /// Hashed groups that weren't there before.
    pub new_groups_per_second: f64,
    /// Divisions and parts of dates.
    pub wide_per_second: f64,
    /// Bytes of strings that are compared or searched.
    pub text_bytes_per_second: f64,
    /// Rows of functions that the host evaluates.
    pub host_calls_per_second: f64,
    /// Comparisons of sorts.
    pub comparisons_per_second: f64,
}

/// A rate that older profiles don't have: nothing is lost by it.
fn untold() -> f64 {
    1e15
}

/// Power drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Power {
    /// While it works.
    pub active_watts: f64,
    /// While it waits.
    pub idle_watts: f64,
    /// Of these two.
    pub provenance: Provenance,
}

/// A device's rates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// [`PROFILE_VERSION`].
    pub version: u32,
    /// Short name, unique in the process: `cpu0`.
    pub id: String,
    /// Kind.
    #[serde(with = "kind_name")]
    pub kind: DeviceKind,
    /// Model, for people.
    pub name: String,
    /// What the numbers hold for: versions of driver and product. Others measure anew.
    #[serde(default)]
    pub driver: String,
    /// Of the rates.
    pub provenance: Provenance,
    /// When they were measured, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_unix_s: Option<u64>,

    /// Workers: cores of a processor, 1 of an accelerator.
    pub workers: u32,
    /// Rows that a worker takes at once: fewer rows than this per worker leave workers idle.
    pub morsel_rows: f64,
    /// The part of a further worker's rate that is gained by it.
    pub worker_efficiency: f64,
    /// What the first worker does alone, until the others have woken up and joined it.
    #[serde(default)]
    pub spread_ms: f64,
    /// 1: reads, look-ups and arithmetic happen at the same time; 0: one after another.
    pub overlap: f64,

    /// Memory that columns and tables may take.
    pub memory_bytes: f64,
    /// What all workers read together at most.
    pub memory_bytes_per_second_max: f64,
    /// Reading columns in order, by width of the carrier.
    pub stream_bytes_per_second_by_carrier_bytes: Curve,
    /// Writing results and payload.
    pub write_bytes_per_second: f64,
    /// Reading at random, by size of what is read from.
    pub random_accesses_per_second_by_footprint_bytes: Curve,
    /// Adding a row to a group's aggregates, by number of groups: few groups contend, many miss caches.
    pub group_updates_per_second_by_groups: Curve,
    /// Inserting a row into a join table, by size of the table.
    pub inserts_per_second_by_footprint_bytes: Curve,
    /// Expressions.
    pub operations: Operations,
    /// Columns made from pages of files; none where the host does it.
    #[serde(default)]
    pub decode_bytes_per_second: Option<f64>,

    /// To the device; none where the host's memory is its own.
    #[serde(default)]
    pub upload: Option<Link>,
    /// From the device.
    #[serde(default)]
    pub download: Option<Link>,
    /// Rows that are copied while those before are worked at; fewer are copied first, then worked at.
    pub chunk_rows: f64,
    /// Preparing and starting one fragment, compiled before.
    pub start_ms: f64,
    /// What the first fragment of a graph takes beside that: workers wake, and nothing is in caches.
    #[serde(default)]
    pub wake_ms: f64,
    /// Preparing a node of its expressions.
    #[serde(default)]
    pub node_ms: f64,
    /// Launching one kernel.
    pub launch_ms: f64,
    /// Kernels per fragment and chunk.
    pub launches: f64,
    /// Waiting for the device until it has noticed that it is done.
    pub sync_ms: f64,
    /// Compiling a fragment, by nodes of its expressions.
    pub compile_ms_by_nodes: Curve,

    /// Power.
    pub power: Power,
    /// Rent of the whole device.
    pub price_usd_per_hour: f64,
}

/// What is wrong with a profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Not JSON, or not of this form.
    #[error("the profile can't be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// Written by another version.
    #[error("the profile has version {found}; this program reads version {PROFILE_VERSION}: measure again")]
    Version {
        /// Its version.
        found: u32,
    },
    /// A number that can't be.
    #[error("the profile of \"{id}\" holds an impossible {field}")]
    Impossible {
        /// The device.
        id: String,
        /// The field.
        field: &'static str,
    },
}

impl Profile {
    /// From JSON.
    ///
    /// # Errors
    /// When it isn't a profile of this version, or holds impossible numbers.
    pub fn from_json(text: &str) -> Result<Self, ProfileError> {
        let value: serde_json::Value = serde_json::from_str(text)?;
        let version = value.get("version").and_then(serde_json::Value::as_u64);
        if let Some(found) = version.and_then(|found| u32::try_from(found).ok())
            && found != PROFILE_VERSION
        {
            return Err(ProfileError::Version { found });
        }
        let profile: Self = serde_json::from_value(value)?;
        profile.check()?;
        Ok(profile)
    }

    /// As JSON, for people too.
    ///
    /// # Errors
    /// Only of the serialiser.
    pub fn to_json(&self) -> Result<String, ProfileError> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Whether every number can be.
    ///
    /// # Errors
    /// Names the first that can't.
    pub fn check(&self) -> Result<(), ProfileError> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let not_negative = |value: f64| value.is_finite() && value >= 0.0;
        let links = [&self.upload, &self.download];
        let links_hold = links
            .into_iter()
            .flatten()
            .all(|link| link.bytes_per_second_by_bytes.is_sound() && not_negative(link.latency_ms));
        let operations = &self.operations;
        let checks = [
            ("workers", self.workers > 0),
            ("morsel_rows", positive(self.morsel_rows)),
            ("worker_efficiency", (0.0..=1.0).contains(&self.worker_efficiency)),
            ("spread_ms", not_negative(self.spread_ms)),
            ("overlap", (0.0..=1.0).contains(&self.overlap)),
            ("memory_bytes", positive(self.memory_bytes)),
            (
                "memory_bytes_per_second_max",
                positive(self.memory_bytes_per_second_max),
            ),
            ("stream rate", self.stream_bytes_per_second_by_carrier_bytes.is_sound()),
            ("write_bytes_per_second", positive(self.write_bytes_per_second)),
            (
                "random rate",
                self.random_accesses_per_second_by_footprint_bytes.is_sound(),
            ),
            ("group rate", self.group_updates_per_second_by_groups.is_sound()),
            ("insert rate", self.inserts_per_second_by_footprint_bytes.is_sound()),
            ("compile time", self.compile_ms_by_nodes.is_sound()),
            ("simple_per_second", positive(operations.simple_per_second)),
            ("tests_per_second", positive(operations.tests_per_second)),
            ("gathers_per_second", positive(operations.gathers_per_second)),
            ("hashes_per_second", positive(operations.hashes_per_second)),
            ("new_groups_per_second", positive(operations.new_groups_per_second)),
            ("wide_per_second", positive(operations.wide_per_second)),
            ("text_bytes_per_second", positive(operations.text_bytes_per_second)),
            ("host_calls_per_second", positive(operations.host_calls_per_second)),
            ("comparisons_per_second", positive(operations.comparisons_per_second)),
            ("decode rate", self.decode_bytes_per_second.is_none_or(positive)),
            ("link", links_hold && self.upload.is_some() == self.download.is_some()),
            ("chunk_rows", positive(self.chunk_rows)),
            ("start_ms", not_negative(self.start_ms)),
            ("wake_ms", not_negative(self.wake_ms)),
            ("node_ms", not_negative(self.node_ms)),
            ("launch_ms", not_negative(self.launch_ms)),
            ("launches", not_negative(self.launches)),
            ("sync_ms", not_negative(self.sync_ms)),
            ("active_watts", not_negative(self.power.active_watts)),
            ("idle_watts", not_negative(self.power.idle_watts)),
            ("price_usd_per_hour", not_negative(self.price_usd_per_hour)),
        ];
        match checks.into_iter().find(|(_, holds)| !holds) {
            Some((field, _)) => Err(ProfileError::Impossible {
                id: self.id.clone(),
                field,
            }),
            None => Ok(()),
        }
    }

    /// Its memory is the host's: nothing is copied.
    pub fn is_host(&self) -> bool {
        self.upload.is_none()
    }

    /// Whether a profile that was measured as `driver` still holds.
    pub fn holds_for(&self, id: &str, name: &str, driver: &str) -> bool {
        self.version == PROFILE_VERSION && self.id == id && self.name == name && self.driver == driver
    }
}

/// Kinds by their name.
mod kind_name {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use trireme_device_api::DeviceKind;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
    pub(super) fn serialize<S: Serializer>(kind: &DeviceKind, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(kind.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DeviceKind, D::Error> {
        let name = String::deserialize(deserializer)?;
        [DeviceKind::Cpu, DeviceKind::Gpu, DeviceKind::Fpga]
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| D::Error::custom(format!("\"{name}\" is no kind of device: cpu, gpu or fpga")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::catalogue;

    #[test]
    fn curves_are_straight_on_logarithmic_scales() {
        let curve = Curve::new(vec![(1e6, 10.0), (1e2, 1000.0)]);
        assert!((curve.at(1e4) - 100.0).abs() < 1e-9);
        assert!((curve.at(1.0) - 1000.0).abs() < 1e-9 && (curve.at(1e9) - 10.0).abs() < 1e-9);
        assert!((Curve::flat(7.0).at(123.0) - 7.0).abs() < 1e-12);
    }

    #[test]
    fn profiles_are_versioned_and_checked() {
        let device = catalogue().unwrap().swap_remove(0);
        let text = device.to_json().unwrap();
        assert!(text.contains("\"kind\": \"cpu\""), "{text}");
        assert_eq!(Profile::from_json(&text).unwrap(), device);
        let newer = text.replacen("\"version\": 1", "\"version\": 9", 1);
        assert!(matches!(
            Profile::from_json(&newer),
            Err(ProfileError::Version { found: 9 })
        ));
        let mut wrong = device.clone();
        wrong.operations.simple_per_second = 0.0;
        let refused = Profile::from_json(&wrong.to_json().unwrap()).unwrap_err();
        assert!(refused.to_string().contains("simple_per_second"), "{refused}");
        assert!(device.holds_for("cpu-2c", &device.name, "") && !device.holds_for("cpu-2c", &device.name, "2"));
    }
}
