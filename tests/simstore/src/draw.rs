//! Chance: what a request meets, drawn from the seed and the request's number.
//!
//! The n-th request meets the same whatever ran before it, so that a run is repeated by its seed as far as the order of its
//! requests is. Scripted faults come before chance.

use std::time::Duration;

use crate::config::Profile;
use crate::counters::Kind;

/// A well-mixed word of a counter (splitmix64).
pub(crate) fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// What can go wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// This status: 500 `InternalError`, 503 `SlowDown`, or another.
    Error(u16),
    /// The first byte is later by this factor.
    Slow(f64),
    /// The body stops midway for so long.
    Stall(Duration),
    /// Reset before the response; the request has happened.
    ResetAfter,
    /// Reset before the response; nothing has happened.
    ResetBefore,
    /// Reset within the body.
    ResetBody,
    /// Closed within the body.
    Truncate,
    /// A 200 whose body is an error; nothing has happened.
    ErrorIn200,
}

impl Fault {
    /// For counters.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Error(500) => "error_500",
            Self::Error(503) => "error_503",
            Self::Error(_) => "error_other",
            Self::Slow(_) => "slow",
            Self::Stall(_) => "stall",
            Self::ResetAfter | Self::ResetBefore | Self::ResetBody => "reset",
            Self::Truncate => "truncate",
            Self::ErrorIn200 => "error_in_200",
        }
    }
}

/// Faults of the next requests that fit, whatever chance says.
#[derive(Debug, Clone)]
pub struct Script {
    /// Of this kind; any.
    pub kind: Option<Kind>,
    /// Whose key contains this.
    pub key_contains: String,
    /// How many of them pass first.
    pub skip: u32,
    /// How many of them meet the fault.
    pub times: u32,
    /// What they meet.
    pub fault: Fault,
}

/// What one request meets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Fate {
    pub(crate) first_byte: Duration,
    pub(crate) fault: Option<Fault>,
    /// Where in the body a fault is: a fraction.
    pub(crate) place: f64,
}

/// Numbers for one request.
struct Draw {
    state: u64,
}

impl Draw {
    fn new(seed: u64, number: u64) -> Self {
        Self {
            state: mix(seed ^ mix(number.wrapping_add(0x5851_f42d_4c95_7f2d))),
        }
    }

    /// In [0, 1).
    #[allow(clippy::cast_precision_loss, reason = "53 bits are exact")]
    fn unit(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.state) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Normal, by Box and Muller.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// Draws the fate of a request. `scripted` comes before chance.
pub(crate) fn fate(profile: &Profile, seed: u64, number: u64, kind: Kind, scripted: Option<Fault>) -> Fate {
    let mut draw = Draw::new(seed, number);
    let normal = draw.normal();
    let place = draw.unit();
    let fault = scripted.or_else(|| by_chance(profile, kind, &mut draw));
    let mut first_byte_ms = profile.first_byte_ms * (profile.first_byte_sigma * normal).exp();
    if let Some(Fault::Slow(factor)) = fault {
        first_byte_ms *= factor;
    }
    Fate {
        first_byte: Duration::from_secs_f64(first_byte_ms.max(0.0) / 1e3),
        fault,
        place,
    }
}

fn by_chance(profile: &Profile, kind: Kind, draw: &mut Draw) -> Option<Fault> {
    let faults = &profile.faults;
    let coin = draw.unit();
    let mut chance = draw.unit() * 100.0;
    let mut falls = |percent: f64| {
        chance -= percent;
        chance < 0.0
    };
    if falls(faults.error_500_percent) {
        return Some(Fault::Error(500));
    }
    if falls(faults.error_503_percent) {
        return Some(Fault::Error(503));
    }
    if falls(faults.slow_percent) {
        let factor = if faults.slow_factor > 0.0 {
            faults.slow_factor
        } else {
            10.0
        };
        return Some(Fault::Slow(factor));
    }
    if falls(faults.reset_percent) {
        return Some(match (kind == Kind::Get, coin < 0.5) {
            (true, true) => Fault::ResetBody,
            (false, true) => Fault::ResetAfter,
            (_, false) => Fault::ResetBefore,
        });
    }
    if kind == Kind::Get && falls(faults.stall_percent) {
        let stall_ms = if faults.stall_ms > 0 { faults.stall_ms } else { 30_000 };
        return Some(Fault::Stall(Duration::from_millis(stall_ms)));
    }
    if kind == Kind::Get && falls(faults.truncate_percent) {
        return Some(Fault::Truncate);
    }
    if matches!(kind, Kind::Complete | Kind::Copy) && falls(faults.error_in_200_percent) {
        return Some(Fault::ErrorIn200);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_keeps_to_the_profile_and_to_the_seed() {
        let profile = Profile::sick();
        let fates = |seed| (0..100_000).map(move |number| fate(&Profile::sick(), seed, number, Kind::Get, None));
        let drawn: Vec<Fate> = fates(1).collect();
        assert_eq!(drawn, fates(1).collect::<Vec<_>>());
        assert_ne!(drawn, fates(2).collect::<Vec<_>>());

        let mut times: Vec<f64> = drawn.iter().map(|each| each.first_byte.as_secs_f64() * 1e3).collect();
        times.sort_by(f64::total_cmp);
        let at = |quantile: usize| times[times.len() * quantile / 1000];
        assert!((at(500) / profile.first_byte_ms - 1.0).abs() < 0.02, "{}", at(500));
        // One sigma above the median.
        assert!(
            (at(841) / (profile.first_byte_ms * 0.4f64.exp()) - 1.0).abs() < 0.03,
            "{}",
            at(841)
        );

        let share = |name: &str| {
            let count = drawn
                .iter()
                .filter(|each| each.fault.is_some_and(|fault| fault.name() == name))
                .count();
            f64::from(u32::try_from(count).unwrap()) / 1e3
        };
        assert!((share("error_503") - 3.0).abs() < 0.3);
        assert!((share("stall") - 1.0).abs() < 0.15);
        assert!((share("reset") - 0.5).abs() < 0.1);
        assert!(share("truncate") == 0.0);
    }
}
