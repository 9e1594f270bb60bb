//! Learned corrections: what the formulas get wrong, seen in runs.
//!
//! ```text
//!  per (device, variant, sink kind):   ln(observed / predicted) ≈ weights · features
//!  recursive least squares with a ridge and forgetting: a run changes the weights in O(features²), older runs count less
//!  a run's error is measured before the run is learned from: every run is held out once
//!  per shape of a fragment (what it does, over about as many rows): the mean of the same, which outweighs the model with its runs
//! ```
//!
//! A model's correction is used only after [`RUNS_MIN`] runs, only while it errs less than the bare formulas on held-out runs, only for
//! fragments within the range it has seen, and never beyond a factor of [`FACTOR_MAX`]. The library of models is JSON.

mod shapes;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::facts::{FragmentFacts, SinkKind};
use crate::predict::Prediction;

/// Version of the serialised form.
pub const LIBRARY_VERSION: u32 = 2;
/// Runs before a model is used.
pub const RUNS_MIN: u32 = 8;
/// A correction is between 1 / this and this.
pub const FACTOR_MAX: f64 = 3.0;
/// What a run counts for when the next is learned from.
const FORGETTING: f64 = 0.98;
/// Pulls weights to 0; the larger, the more runs it takes.
const RIDGE: f64 = 0.5;
/// Of the errors that decide, so much is the latest run's.
const ERROR_STEP: f64 = 0.1;
/// A model must err less than this part of the formulas' own error.
const BETTER: f64 = 0.95;
/// Features may be this far outside of what was seen; they are logarithms / 10, so this is a factor of e^0.7 = 2.
const RANGE_MARGIN: f64 = 0.07;
/// The trace of the covariance is not let grow beyond this when runs bring nothing new.
const TRACE_MAX: f64 = 1e3;

/// Features' names, in order: what models are read by.
pub const FEATURES: [&str; 10] = [
    "constant",
    "ln_predicted_ms",
    "ln_source_rows",
    "ln_source_bytes",
    "ln_sink_rows",
    "ln_output_rows",
    "lookup_share",
    "table_share",
    "compute_share",
    "moved_share",
];
const COUNT: usize = FEATURES.len();

/// What a fragment is described by.
pub type Features = [f64; COUNT];

/// Describes a fragment; `bare` is the formulas' prediction.
pub fn features(facts: &FragmentFacts, bare: &Prediction) -> Features {
    let size = |value: f64| value.max(0.0).ln_1p() / 10.0;
    let parts_ms = bare.stream_ms + bare.lookup_ms + bare.table_ms + bare.compute_ms;
    let share = |ms: f64| ms / parts_ms.max(1e-9);
    [
        1.0,
        size(bare.total_ms * 1e3),
        size(facts.source_rows.rows),
        size(facts.source_bytes),
        size(facts.sink_rows().rows),
        size(facts.output_rows.rows),
        share(bare.lookup_ms),
        share(bare.table_ms),
        share(bare.compute_ms),
        moved_share(bare),
    ]
}

/// Of a run's time, the part in which columns are on their way: fetched, decoded, copied. Nothing that is learned of one
/// residency says much of another.
fn moved_share(bare: &Prediction) -> f64 {
    let moved_ms = bare.fetch_ms + bare.decode_ms + bare.upload_ms;
    moved_ms / (moved_ms + bare.start_ms + bare.kernel_ms).max(1e-9)
}

/// A correction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Correction {
    /// Predicted times are multiplied by it.
    pub factor: f64,
    /// One standard deviation of what is left, as a part of the time.
    pub sigma: f64,
}

/// What was learned of one (device, variant, sink kind).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Runs that were learned from.
    pub runs: u32,
    /// By feature, as [`FEATURES`].
    pub weights: Features,
    /// Mean error of the formulas: |ln(observed / predicted)|, later runs counting more.
    pub bare_error: f64,
    /// The same with the correction, each run before it was learned from.
    pub corrected_error: f64,
    /// Mean square of that.
    pub corrected_square: f64,
    /// Smallest and largest features seen.
    pub seen: [(f64, f64); COUNT],
    covariance: [Features; COUNT],
}

impl Default for Model {
    fn default() -> Self {
        let mut covariance = [[0.0; COUNT]; COUNT];
        for (index, row) in covariance.iter_mut().enumerate() {
            row[index] = 1.0 / RIDGE;
        }
        Self {
            runs: 0,
            weights: [0.0; COUNT],
            bare_error: 0.0,
            corrected_error: 0.0,
            corrected_square: 0.0,
            seen: [(f64::MAX, f64::MIN); COUNT],
            covariance,
        }
    }
}

impl Model {
    /// The correction, when it is to be trusted.
    pub fn correction(&self, features: &Features) -> Option<Correction> {
        let better = self.corrected_error < self.bare_error * BETTER;
        (self.runs >= RUNS_MIN && better && self.has_seen(features)).then(|| Correction {
            factor: self.raw(features).exp(),
            sigma: self.corrected_square.sqrt(),
        })
    }

    /// Why it isn't used, for people; none when it is, for fragments that it has seen the like of.
    pub fn unused(&self) -> Option<String> {
        if self.runs < RUNS_MIN {
            return Some(format!("{} of {RUNS_MIN} runs", self.runs));
        }
        (self.corrected_error >= self.bare_error * BETTER).then(|| "no better than the formulas".to_owned())
    }

    /// Learns from a run.
    fn learn(&mut self, features: &Features, log_ratio: f64) {
        // Beyond the bounds nothing could be corrected anyway; one stray run must not turn the weights.
        let target = log_ratio.clamp(-2.0 * FACTOR_MAX.ln(), 2.0 * FACTOR_MAX.ln());
        let error = target - self.raw(features);
        // The first runs count fully, so that a start at zero isn't taken for a good one.
        let step = ERROR_STEP.max(1.0 / f64::from(self.runs + 1));
        self.bare_error += step * (target.abs() - self.bare_error);
        self.corrected_error += step * (error.abs() - self.corrected_error);
        self.corrected_square += step * (error * error - self.corrected_square);
        for ((low, high), value) in self.seen.iter_mut().zip(features) {
            *low = low.min(*value);
            *high = high.max(*value);
        }
        self.runs = self.runs.saturating_add(1);
        self.update(features, target);
    }

    fn update(&mut self, features: &Features, target: f64) {
        let spread: Features = std::array::from_fn(|row| dot(&self.covariance[row], features));
        let gain: Features = spread.map(|value| value / (FORGETTING + dot(features, &spread)));
        let error = target - dot(&self.weights, features);
        for (weight, gain) in self.weights.iter_mut().zip(&gain) {
            *weight += gain * error;
        }
        for (row, gain) in self.covariance.iter_mut().zip(&gain) {
            for (value, spread) in row.iter_mut().zip(&spread) {
                *value -= gain * spread;
            }
        }
        let trace: f64 = (0..COUNT).map(|index| self.covariance[index][index]).sum();
        if trace / FORGETTING < TRACE_MAX {
            self.covariance
                .iter_mut()
                .flatten()
                .for_each(|value| *value /= FORGETTING);
        }
    }

    fn raw(&self, features: &Features) -> f64 {
        dot(&self.weights, features).clamp(-FACTOR_MAX.ln(), FACTOR_MAX.ln())
    }

    fn has_seen(&self, features: &Features) -> bool {
        let within =
            |((low, high), value): (&(f64, f64), &f64)| (low - RANGE_MARGIN..=high + RANGE_MARGIN).contains(value);
        self.seen.iter().zip(features).all(within)
    }
}

fn dot(a: &Features, b: &Features) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// What can be wrong with a library's text.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// Not JSON, or not of this form.
    #[error("the library of cost models can't be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// Written by another version.
    #[error(
        "the library of cost models has version {found}; this program reads version {LIBRARY_VERSION}: it learns anew"
    )]
    Version {
        /// Its version.
        found: u32,
    },
}

/// All models, by `device/variant/sink`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Library {
    version: u32,
    models: BTreeMap<String, Model>,
    #[serde(default)]
    shapes: shapes::Shapes,
}

impl Default for Library {
    fn default() -> Self {
        Self {
            version: LIBRARY_VERSION,
            models: BTreeMap::new(),
            shapes: shapes::Shapes::default(),
        }
    }
}

impl Library {
    /// Learns from a run: `bare` is what the formulas predict without a correction, on the rows that were really there;
    /// `observed_ms` what it took, waits for the device and compilation left out of both.
    pub fn learn(&mut self, device: &str, variant: &str, facts: &FragmentFacts, bare: &Prediction, observed_ms: f64) {
        let predicted_ms = bare.total_ms - bare.queue_ms - bare.compile_ms;
        if !(observed_ms.is_finite() && observed_ms > 0.0 && predicted_ms.is_finite() && predicted_ms > 0.0) {
            return;
        }
        let model = self.models.entry(key(device, variant, facts.sink)).or_default();
        let log_ratio = (observed_ms / predicted_ms).ln();
        model.learn(&features(facts, bare), log_ratio);
        self.shapes
            .learn(shapes::key(device, variant, facts, moved_share(bare)), log_ratio);
    }

    /// A prediction with what was learned, where that is to be trusted.
    pub fn corrected(&self, device: &str, variant: &str, facts: &FragmentFacts, bare: Prediction) -> Prediction {
        if self.models.is_empty() {
            return bare;
        }
        if let Some(Correction { factor, sigma }) = self.correction(device, variant, facts, &bare) {
            return bare.corrected(factor, sigma, 0.0);
        }
        // Of columns on their way nothing is known: what was learned over resident ones holds for the rest.
        let resident = bare.resident();
        match self.correction(device, variant, facts, &resident) {
            Some(Correction { factor, sigma }) => {
                let mut corrected = bare.corrected(factor, sigma, bare.total_ms - resident.total_ms);
                // Parts may overlap: none of those that were not corrected ends sooner.
                let slowest_ms = bare.fetch_ms.max(bare.decode_ms).max(bare.upload_ms);
                corrected.total_ms = corrected.total_ms.max(bare.queue_ms + bare.compile_ms + slowest_ms);
                corrected
            }
            None => bare,
        }
    }

    fn correction(&self, device: &str, variant: &str, facts: &FragmentFacts, bare: &Prediction) -> Option<Correction> {
        let model = self.models.get(&key(device, variant, facts.sink));
        let general = model.and_then(|model| model.correction(&features(facts, bare)));
        let shape = shapes::key(device, variant, facts, moved_share(bare));
        self.shapes.correction(shape.as_deref(), general)
    }

    /// Models by `device/variant/sink`, for people.
    pub fn models(&self) -> impl Iterator<Item = (&str, &Model)> {
        self.models.iter().map(|(key, model)| (key.as_str(), model))
    }

    /// Forgets the models, and shapes, whose key starts so; all with "". The number of them.
    pub fn reset(&mut self, prefix: &str) -> usize {
        let before = self.models.len();
        self.models.retain(|key, _| !key.starts_with(prefix));
        self.shapes.reset(prefix);
        before - self.models.len()
    }

    /// From JSON.
    ///
    /// # Errors
    /// When it is no library of this version.
    pub fn from_json(text: &str) -> Result<Self, LibraryError> {
        let value: serde_json::Value = serde_json::from_str(text)?;
        let version = value.get("version").and_then(serde_json::Value::as_u64);
        if let Some(found) = version.and_then(|found| u32::try_from(found).ok())
            && found != LIBRARY_VERSION
        {
            return Err(LibraryError::Version { found });
        }
        Ok(serde_json::from_value(value)?)
    }

    /// As JSON, for people too.
    ///
    /// # Errors
    /// Only of the serialiser.
    pub fn to_json(&self) -> Result<String, LibraryError> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

fn key(device: &str, variant: &str, sink: SinkKind) -> String {
    format!("{device}/{variant}/{}", sink.name())
}

#[cfg(test)]
mod tests;
