//! What was learned of single shapes: fragments that do the same over about as many rows, as repeated queries have them.
//!
//! A shape's mean error outweighs the general model the more of its runs were seen. Shapes that were not seen for longest are
//! forgotten first.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Correction;
use crate::facts::FragmentFacts;

/// Shapes that are remembered.
const SHAPES_MAX: usize = 2_000;
/// A shape's correction is between 1 / this and this: runs of itself are better evidence than runs of others.
const SHAPE_FACTOR_MAX: f64 = 8.0;
/// Runs of a shape that count as much as all that was learned of others.
const RUNS_HALF: f64 = 1.0;
/// Of a shape's mean, so much is the latest run's, at least.
const STEP: f64 = 0.2;
/// Sizes that are one shape: so many to a factor of ten.
const SIZES_PER_DECADE: f64 = 2.0;
/// Residencies that are one shape: columns are there, are half of the time, are most of it.
const RESIDENCIES: f64 = 2.0;

/// A shape.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Shape {
    runs: u32,
    /// Mean of ln(observed / predicted).
    mean: f64,
    /// Mean square of what is left.
    square: f64,
    /// Number of the latest run.
    used: u64,
}

/// All shapes, by device, variant and what a fragment does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Shapes {
    #[serde(default)]
    runs: u64,
    #[serde(default)]
    known: BTreeMap<String, Shape>,
}

impl Shapes {
    pub(super) fn learn(&mut self, key: Option<String>, log_ratio: f64) {
        let Some(key) = key else { return };
        let target = log_ratio.clamp(-SHAPE_FACTOR_MAX.ln(), SHAPE_FACTOR_MAX.ln());
        self.runs += 1;
        if self.known.len() >= SHAPES_MAX && !self.known.contains_key(&key) {
            let oldest = self.known.iter().min_by_key(|(_, shape)| shape.used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.known.remove(&oldest);
            }
        }
        let shape = self.known.entry(key).or_insert(Shape {
            runs: 0,
            mean: 0.0,
            square: 0.0,
            used: 0,
        });
        let error = target - shape.mean;
        if shape.runs > 0 {
            let step = STEP.max(1.0 / f64::from(shape.runs));
            shape.square += step * (error * error - shape.square);
        }
        shape.runs = shape.runs.saturating_add(1);
        shape.mean += STEP.max(1.0 / f64::from(shape.runs)) * error;
        shape.used = self.runs;
    }

    /// What is known of the shape, mixed with what is known of others.
    pub(super) fn correction(&self, key: Option<&str>, general: Option<Correction>) -> Option<Correction> {
        let Some(shape) = key.and_then(|key| self.known.get(key)) else {
            return general;
        };
        let runs = f64::from(shape.runs);
        let weight = runs / (runs + RUNS_HALF);
        let (other, other_sigma) =
            general.map_or((0.0, shape.mean.abs()), |general| (general.factor.ln(), general.sigma));
        let ln = weight * shape.mean + (1.0 - weight) * other;
        Some(Correction {
            factor: ln.exp(),
            sigma: weight * shape.square.sqrt() + (1.0 - weight) * other_sigma,
        })
    }

    pub(super) fn reset(&mut self, prefix: &str) {
        self.known.retain(|key, _| !key.starts_with(prefix));
    }
}

/// What a fragment's shape is known by; none of fragments without a text.
pub(super) fn key(device: &str, variant: &str, facts: &FragmentFacts, moved_share: f64) -> Option<String> {
    if facts.text.is_empty() {
        return None;
    }
    let size = (facts.source_rows.rows.max(1.0).log10() * SIZES_PER_DECADE).round();
    let sink = (facts.sink_rows().rows.max(1.0).log10() * SIZES_PER_DECADE).round();
    let moved = (moved_share * RESIDENCIES).round();
    Some(format!(
        "{device}/{variant}/{}/{}/{size}/{sink}/{moved}",
        facts.text, facts.nodes
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, wanted: f64) {
        assert!((found / wanted - 1.0).abs() < 0.02, "{found} is not {wanted}");
    }

    fn factor(shapes: &Shapes, key: &str, general: Option<Correction>) -> f64 {
        shapes
            .correction(Some(key), general)
            .map_or(1.0, |correction| correction.factor)
    }

    #[test]
    fn a_shape_is_learned_in_few_runs_and_others_are_left() {
        let mut shapes = Shapes::default();
        shapes.learn(Some("a".to_owned()), 4_f64.ln());
        // One run counts as much as what is known of others: nothing, or a factor.
        near(factor(&shapes, "a", None), 2.0);
        let general = Some(Correction {
            factor: 2.0,
            sigma: 0.1,
        });
        near(factor(&shapes, "a", general), 8_f64.sqrt());
        for _ in 0..20 {
            shapes.learn(Some("a".to_owned()), 4_f64.ln());
        }
        assert!((factor(&shapes, "a", None) - 4.0).abs() < 0.4);
        assert_eq!(shapes.correction(Some("b"), general), general);
        assert_eq!(shapes.correction(None, general), general);
        shapes.learn(None, 1.0);
        assert_eq!(shapes.known.len(), 1);
    }

    #[test]
    fn corrections_are_bounded_and_follow_what_changes() {
        let mut shapes = Shapes::default();
        for _ in 0..100 {
            shapes.learn(Some("a".to_owned()), 100_f64.ln());
        }
        assert!(factor(&shapes, "a", None) <= SHAPE_FACTOR_MAX);
        for _ in 0..30 {
            shapes.learn(Some("a".to_owned()), 0.5_f64.ln());
        }
        assert!((factor(&shapes, "a", None) - 0.5).abs() < 0.1);
    }

    #[test]
    fn the_shapes_that_were_not_seen_for_longest_are_forgotten() {
        let mut shapes = Shapes::default();
        for number in 0..SHAPES_MAX {
            shapes.learn(Some(format!("cpu0/{number}")), 1.0);
        }
        shapes.learn(Some("cpu0/0".to_owned()), 1.0);
        shapes.learn(Some("cuda0/new".to_owned()), 1.0);
        assert_eq!(shapes.known.len(), SHAPES_MAX);
        assert!(shapes.known.contains_key("cpu0/0") && !shapes.known.contains_key("cpu0/1"));
        shapes.reset("cpu0/");
        assert_eq!(shapes.known.len(), 1);
    }
}
