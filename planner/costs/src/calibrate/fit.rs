//! Rates that explain what graphs took, all of them at once.
//!
//! ```text
//!  least  Σ over samples (ln predicted − ln observed)²  +  PULL Σ over rates (ln ratio − mean of these)²
//! ```
//!
//! by Gauss–Newton steps with derivatives by differences. A rate that no sample depends on moves as the others do on average: a
//! machine that is slower than the base in what could be seen is slower in the rest.

use super::{Micro, Ratios};
use crate::facts::{Facts, FragmentFacts};
use crate::predict::{Surroundings, predict, transfer};
use crate::profile::Profile;

/// What leaving the others costs a rate, beside a sample that is off by as much.
const PULL: f64 = 0.05;
/// What the mean's leaving the base costs: next to nothing.
const ANCHOR: f64 = 0.01;
/// Errors beyond this factor count by themselves, not by their squares: one stray sample must not turn all rates.
const STRAY: f64 = 1.5;
/// Rates are within this factor of the base's.
const RATIO_MAX: f64 = 30.0;
const STEPS: usize = 25;
/// A step changes no rate by more than this factor.
const STEP_MAX: f64 = 2.0;
const DIFFERENCE: f64 = 1e-3;

/// What is fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Knob {
    /// A rate.
    Rate(Micro),
    /// What a fragment takes before its first row.
    Start,
    /// What the first fragment of a graph takes beside that.
    Wake,
    /// What preparing a node of its expressions takes.
    Node,
    /// What the first worker does alone.
    Spread,
    /// What a further worker doesn't gain.
    Loss,
}

/// A graph that ran, or one of its fragments.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) facts: Facts,
    /// One of its fragments, the last one until its rows are in the host's memory; none: all.
    pub(super) fragment: Option<usize>,
    pub(super) ms: f64,
}

/// A base with these knobs turned until it explains the samples.
pub(super) fn fitted(base: &Profile, knobs: &[Knob], samples: &[Sample]) -> Profile {
    let mut turned = vec![0.0; knobs.len()];
    if samples.is_empty() {
        return base.clone();
    }
    let mut least = (cost(base, knobs, samples, &turned), turned.clone());
    for _ in 0..STEPS {
        let Some(step) = step(base, knobs, samples, &turned) else {
            break;
        };
        for (value, step) in turned.iter_mut().zip(&step) {
            let most = STEP_MAX.ln();
            *value = (*value + step.clamp(-most, most)).clamp(-RATIO_MAX.ln(), RATIO_MAX.ln());
        }
        let now = cost(base, knobs, samples, &turned);
        if now < least.0 {
            least = (now, turned.clone());
        }
    }
    applied(base, knobs, &least.1)
}

/// A base with knobs turned by these logarithms.
fn applied(base: &Profile, knobs: &[Knob], turned: &[f64]) -> Profile {
    let mut ratios = Vec::new();
    let mut profile = base.clone();
    for (knob, turned) in knobs.iter().zip(turned) {
        let ratio = turned.exp();
        match knob {
            Knob::Rate(micro) => ratios.push((*micro, ratio)),
            Knob::Start => {
                profile.start_ms *= ratio;
                profile.launch_ms *= ratio;
            }
            Knob::Wake => profile.wake_ms *= ratio,
            Knob::Node => profile.node_ms *= ratio,
            Knob::Spread => profile.spread_ms *= ratio,
            Knob::Loss => profile.worker_efficiency = 1.0 - ((1.0 - base.worker_efficiency) * ratio).min(1.0),
        }
    }
    let mut fitted = Ratios(&ratios).applied(&profile);
    // Nothing here decodes, or asks the host.
    fitted.decode_bytes_per_second = base.decode_bytes_per_second;
    fitted.operations.host_calls_per_second = base.operations.host_calls_per_second;
    fitted
}

fn predicted_ms(profile: &Profile, sample: &Sample) -> f64 {
    let around = Surroundings {
        device_share: 1.0,
        ..Surroundings::default()
    };
    let fragments = &sample.facts.fragments;
    let of = |(id, facts): (usize, &FragmentFacts)| {
        let returned_ms = match id + 1 == fragments.len() {
            true => transfer(facts.output_bytes, Some(profile), None).total_ms,
            false => 0.0,
        };
        predict(facts, profile, &around).total_ms + returned_ms
    };
    let mut each = fragments.iter().enumerate();
    match sample.fragment {
        Some(id) => each.nth(id).map_or(0.0, of),
        None => each.map(of).sum(),
    }
}

/// By sample: ln observed − ln predicted.
fn errors(profile: &Profile, samples: &[Sample]) -> Vec<f64> {
    let error = |sample: &Sample| (sample.ms.max(1e-6) / predicted_ms(profile, sample).max(1e-6)).ln();
    samples.iter().map(error).collect()
}

fn cost(base: &Profile, knobs: &[Knob], samples: &[Sample], turned: &[f64]) -> f64 {
    let stray = STRAY.ln();
    let each = errors(&applied(base, knobs, turned), samples).into_iter().map(f64::abs);
    let off: f64 = each
        .map(|error| {
            if error <= stray {
                error * error
            } else {
                stray * (2.0 * error - stray)
            }
        })
        .sum();
    let mean = turned.iter().sum::<f64>() / turned.len().max(1) as f64;
    let pulled: f64 = turned.iter().map(|value| (value - mean) * (value - mean)).sum();
    off + PULL * pulled + ANCHOR * mean * mean
}

/// A Gauss–Newton step.
fn step(base: &Profile, knobs: &[Knob], samples: &[Sample], turned: &[f64]) -> Option<Vec<f64>> {
    let count = knobs.len();
    let errors_now = errors(&applied(base, knobs, turned), samples);
    // By knob, by sample: what the prediction gains.
    let gains: Vec<Vec<f64>> = (0..count)
        .map(|at| {
            let mut other = turned.to_vec();
            other[at] += DIFFERENCE;
            let then = errors(&applied(base, knobs, &other), samples);
            errors_now
                .iter()
                .zip(&then)
                .map(|(now, then)| (now - then) / DIFFERENCE)
                .collect()
        })
        .collect();
    let weights: Vec<f64> = errors_now
        .iter()
        .map(|error| (STRAY.ln() / error.abs().max(1e-9)).min(1.0))
        .collect();
    let mean = turned.iter().sum::<f64>() / count as f64;
    let mut matrix = vec![vec![0.0; count]; count];
    let mut right = vec![0.0; count];
    for row in 0..count {
        for column in 0..count {
            let each = gains[row].iter().zip(&gains[column]).zip(&weights);
            matrix[row][column] = each.map(|((a, b), weight)| a * b * weight).sum::<f64>()
                + (ANCHOR / count as f64 - PULL) / count as f64;
        }
        matrix[row][row] += PULL + 1e-9;
        let each = gains[row].iter().zip(&errors_now).zip(&weights);
        right[row] = each.map(|((gain, error), weight)| gain * error * weight).sum::<f64>()
            - PULL * (turned[row] - mean)
            - ANCHOR * mean / count as f64;
    }
    solved(matrix, right)
}

/// The solution of linear equations, by elimination with the largest pivots; none when there is no single one.
fn solved(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Option<Vec<f64>> {
    let count = right.len();
    for at in 0..count {
        let pivot = (at..count).max_by(|a, b| matrix[*a][at].abs().total_cmp(&matrix[*b][at].abs()))?;
        matrix.swap(at, pivot);
        right.swap(at, pivot);
        if matrix[at][at].abs() < 1e-12 || !matrix[at][at].is_finite() {
            return None;
        }
        for row in at + 1..count {
            let factor = matrix[row][at] / matrix[at][at];
            let (above, below) = matrix.split_at_mut(row);
            for (value, pivot) in below[0].iter_mut().zip(&above[at]).skip(at) {
                *value -= factor * pivot;
            }
            right[row] -= factor * right[at];
        }
    }
    for at in (0..count).rev() {
        let known: f64 = (at + 1..count).map(|column| matrix[at][column] * right[column]).sum();
        right[at] = (right[at] - known) / matrix[at][at];
    }
    right.iter().all(|value| value.is_finite()).then_some(right)
}
