//! What a placement is chosen for, and what it must keep within.

use serde::{Deserialize, Serialize};

use crate::split::CoExecution;

/// What a placement costs in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Time.
    pub ms: f64,
    /// Rent of what is occupied.
    pub usd: f64,
    /// Energy.
    pub joules: f64,
    /// Memory of accelerators.
    pub device_bytes: f64,
}

impl Totals {
    /// Of two parts, one after the other.
    pub fn plus(self, other: Self) -> Self {
        Self {
            ms: self.ms + other.ms,
            usd: self.usd + other.usd,
            joules: self.joules + other.joules,
            device_bytes: self.device_bytes + other.device_bytes,
        }
    }
}

/// What is to be least.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// Time.
    #[default]
    Latency,
    /// Rent.
    Cost,
    /// Energy.
    Energy,
    /// The product of the three.
    Balanced,
}

impl Goal {
    /// By its name, as settings have it.
    pub fn named(name: &str) -> Option<Self> {
        [Goal::Latency, Goal::Cost, Goal::Energy, Goal::Balanced]
            .into_iter()
            .find(|goal| goal.name() == name)
    }

    /// As settings have it.
    pub fn name(self) -> &'static str {
        match self {
            Goal::Latency => "latency",
            Goal::Cost => "cost",
            Goal::Energy => "energy",
            Goal::Balanced => "balanced",
        }
    }

    /// What is to be least, of a placement.
    pub fn of(self, totals: &Totals) -> f64 {
        match self {
            Goal::Latency => totals.ms,
            Goal::Cost => totals.usd,
            Goal::Energy => totals.joules,
            Goal::Balanced => (totals.ms * totals.usd.max(1e-15) * totals.joules.max(1e-12)).cbrt(),
        }
    }
}

/// What a placement is chosen for, and what it must keep within.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Objective {
    /// What is to be least.
    pub goal: Goal,
    /// At most this time.
    pub max_ms: Option<f64>,
    /// At most this rent.
    pub max_usd: Option<f64>,
    /// At most this energy.
    pub max_joules: Option<f64>,
    /// By fragment: the id of the device it must run on. A session that pins nothing leaves it empty.
    pub pinned: Vec<Option<String>>,
    /// Leave the processor only for more than this part of its time …
    pub gain_share_min: f64,
    /// … and more than this. The larger, the more short queries forgo: `examples/regret` prints what several values come to.
    pub gain_ms_min: f64,
    /// … and more than so many standard deviations of the error to be expected of the gain.
    pub gain_sigmas_min: f64,
    /// Queries that the processor ends within this time stay there, unsearched.
    pub search_ms_min: f64,
    /// Whether a fragment's rows may be shared by the processor and a device.
    pub co_execution: CoExecution,
}

impl Default for Objective {
    fn default() -> Self {
        Self {
            goal: Goal::Latency,
            max_ms: None,
            max_usd: None,
            max_joules: None,
            pinned: Vec::new(),
            gain_share_min: 0.15,
            gain_ms_min: 0.1,
            gain_sigmas_min: 1.0,
            search_ms_min: 0.2,
            co_execution: CoExecution::Off,
        }
    }
}

impl Objective {
    /// For a goal, without bounds.
    pub fn of(goal: Goal) -> Self {
        Self {
            goal,
            ..Self::default()
        }
    }

    /// Whether anything but the goal limits the choice.
    pub fn is_bound(&self) -> bool {
        self.max_ms.is_some() || self.max_usd.is_some() || self.max_joules.is_some()
    }

    /// How far a placement is outside the bounds: the largest ratio to a bound; at most 1 is within.
    pub(crate) fn excess(&self, totals: &Totals) -> f64 {
        let ratio = |value: f64, bound: Option<f64>| bound.map_or(0.0, |bound| value / bound.max(1e-12));
        ratio(totals.ms, self.max_ms)
            .max(ratio(totals.usd, self.max_usd))
            .max(ratio(totals.joules, self.max_joules))
    }

    /// The bounds, for people.
    pub(crate) fn bounds_text(&self) -> String {
        let bounds = [
            self.max_ms.map(|ms| format!("{ms} ms")),
            self.max_usd.map(|usd| format!("{usd} USD")),
            self.max_joules.map(|joules| format!("{joules} J")),
        ];
        bounds.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// Whether a placement gains enough over the processor's to leave it. `sigma_ms` is the error to be expected of the gain.
    pub(crate) fn gains_enough(&self, totals: &Totals, host: &Totals, sigma_ms: f64) -> bool {
        let (value, of_host) = (self.goal.of(totals), self.goal.of(host));
        let share = (of_host - value) / of_host.max(1e-15);
        if self.goal != Goal::Latency {
            return share > self.gain_share_min;
        }
        let gain_ms = host.ms - totals.ms;
        share > self.gain_share_min && gain_ms > self.gain_ms_min && gain_ms > sigma_ms * self.gain_sigmas_min
    }
}
