//! What a simulated device is like, as text: `memory=64MiB,oom@allocation:7,lost@launch:3,seed=5`.
//!
//! | part | means | default |
//! | --- | --- | --- |
//! | `memory=64MiB` | bytes of the arena; B, KiB, MiB, GiB | 64MiB |
//! | `group=8`, `items=4`, `groups=3` | work-items of a group, rows of each in a tile, groups at once | 8, 4, 3 |
//! | `local=32KiB` | local memory of a group | 32KiB |
//! | `wide=on` | kernels are lowered as for a graphics processor | on |
//! | `large=4KiB` | rows are put in order for larger hash tables, from the second run on | never |
//! | `seed=5` | of schedules and queues | 0 |
//! | `schedule=any` | `any`: drawn for each launch; `sequential`: one work-item after another; a number: this seed for all | any |
//! | `races=on` | races are looked for, where schedules are drawn | on |
//! | `stale=on` | atomic loads may give values that were replaced, where races are looked for | on |
//! | `lag=on` | queued work is done late, and out of step with the other queue | on |
//! | `slow=200us` | each call takes so long; us, ms, s | none |
//! | `texts=FOLDER` | the CUDA text of each module that is compiled is written there, for `check-kernels` | none |
//! | `run=off` | kernels are compiled and launched, but nothing runs: for `texts` | on |
//! | `KIND@PHASE:N` | the N-th call of a phase fails; `N+`: all from the N-th on | |
//!
//! Kinds: `oom`, `error`, `wrong` (a binary of another version), `lost` (the device stays off). Phases: those of [`Phase`], and
//! `any`.

use std::path::PathBuf;
use std::time::Duration;

use crate::faults::Phase;

/// Why a script is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScriptError(String);

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// Memory is short.
    OutOfMemory,
    /// The driver fails; the device goes on.
    Error,
    /// A binary of another version.
    Wrong,
    /// The device is lost and stays so.
    Lost,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [FaultKind; 4] = [
        FaultKind::OutOfMemory,
        FaultKind::Error,
        FaultKind::Wrong,
        FaultKind::Lost,
    ];

    /// As scripts write it.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::OutOfMemory => "oom",
            FaultKind::Error => "error",
            FaultKind::Wrong => "wrong",
            FaultKind::Lost => "lost",
        }
    }
}

/// A call that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Injection {
    /// How.
    pub kind: FaultKind,
    /// Calls of this phase are counted; none: all calls.
    pub phase: Option<Phase>,
    /// Which one, from 1.
    pub nth: u64,
    /// And all after it.
    pub onwards: bool,
}

impl Injection {
    pub(crate) fn is_due(&self, count: u64) -> bool {
        count == self.nth || (self.onwards && count > self.nth)
    }
}

/// What a simulated device is like.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a script")]
pub struct Script {
    /// Bytes of the arena at most.
    pub memory_bytes: u64,
    /// Work-items of a group.
    pub group: u32,
    /// Rows of a work-item in a tile.
    pub items: u32,
    /// Groups that run at once.
    pub groups: u32,
    /// Local memory of a group.
    pub local_bytes: u32,
    /// Lowered as for a graphics processor.
    pub wide: bool,
    /// Rows are put in order for larger hash tables.
    pub large_bytes: Option<u64>,
    /// Of all that is drawn.
    pub seed: u64,
    /// Schedules are drawn; else one work-item after another.
    pub scheduled: bool,
    /// One schedule for all launches, by its seed.
    pub schedule: Option<u64>,
    /// Races are looked for.
    pub races: bool,
    /// Atomic loads may give older values.
    pub stale: bool,
    /// Queues lag.
    pub lag: bool,
    /// Time that each call takes.
    pub slow: Duration,
    /// Where texts of kernels are written.
    pub texts: Option<PathBuf>,
    /// Launched kernels run.
    pub run: bool,
    /// What fails.
    pub injections: Vec<Injection>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            group: 8,
            items: 4,
            groups: 3,
            local_bytes: 32 << 10,
            wide: true,
            large_bytes: None,
            seed: 0,
            scheduled: true,
            schedule: None,
            races: true,
            stale: true,
            lag: true,
            slow: Duration::ZERO,
            texts: None,
            run: true,
            injections: Vec::new(),
        }
    }
}

impl std::str::FromStr for Script {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Self, ScriptError> {
        let mut script = Script::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let known = match (part.split_once('='), part.split_once('@')) {
                (Some((name, value)), _) => script.set(name.trim(), value.trim()),
                (None, Some((kind, place))) => {
                    injection(kind, place).map(|injection| script.injections.push(injection))
                }
                (None, None) => None,
            };
            known.ok_or_else(|| {
                ScriptError(format!(
                    "the simulated device's script has a part \"{part}\", which it can't"
                ))
            })?;
        }
        Ok(script)
    }
}

impl Script {
    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "memory" => self.memory_bytes = bytes(value)?,
            "group" => self.group = number(value).filter(|group: &u32| group.is_power_of_two() && *group >= 8)?,
            "items" => self.items = number(value).filter(|items| *items > 0)?,
            "groups" => self.groups = number(value).filter(|groups| *groups > 0)?,
            "local" => self.local_bytes = u32::try_from(bytes(value)?).ok()?,
            "wide" => self.wide = switch(value)?,
            "large" => self.large_bytes = Some(bytes(value)?),
            "seed" => self.seed = number(value)?,
            "schedule" => {
                (self.scheduled, self.schedule) = match value {
                    "any" => (true, None),
                    "sequential" => (false, None),
                    seed => (true, Some(number(seed)?)),
                }
            }
            "races" => self.races = switch(value)?,
            "stale" => self.stale = switch(value)?,
            "lag" => self.lag = switch(value)?,
            "slow" => self.slow = duration(value)?,
            "run" => self.run = switch(value)?,
            "texts" => self.texts = Some(PathBuf::from(value)),
            _ => return None,
        }
        Some(())
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn switch(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

/// A number and a unit.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn bytes(text: &str) -> Option<u64> {
    with_unit(
        text,
        &[("", 1), ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)],
    )
}

fn duration(text: &str) -> Option<Duration> {
    with_unit(text, &[("us", 1), ("ms", 1_000), ("s", 1_000_000)]).map(Duration::from_micros)
}

/// `oom`, `allocation:7+`.
fn injection(kind: &str, place: &str) -> Option<Injection> {
    let kind = FaultKind::ALL.into_iter().find(|known| known.name() == kind)?;
    let (phase, nth) = place.split_once(':')?;
    let phase = match phase {
        "any" => None,
        name => Some(Phase::ALL.into_iter().find(|known| known.name() == name)?),
    };
    let (nth, onwards) = match nth.strip_suffix('+') {
        Some(nth) => (nth, true),
        None => (nth, false),
    };
    Some(Injection {
        kind,
        phase,
        nth: number(nth).filter(|nth| *nth > 0)?,
        onwards,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_read() {
        let script: Script = "memory=3MiB, oom@allocation:7,lost@any:3+,seed=5,schedule=9,slow=200us"
            .parse()
            .unwrap();
        assert_eq!(
            script,
            Script {
                memory_bytes: 3 << 20,
                seed: 5,
                schedule: Some(9),
                slow: Duration::from_micros(200),
                injections: vec![
                    Injection {
                        kind: FaultKind::OutOfMemory,
                        phase: Some(Phase::Allocation),
                        nth: 7,
                        onwards: false,
                    },
                    Injection {
                        kind: FaultKind::Lost,
                        phase: None,
                        nth: 3,
                        onwards: true,
                    },
                ],
                ..Script::default()
            }
        );
        assert_eq!("".parse(), Ok(Script::default()));
        for wrong in [
            "memory=64Mb",
            "oom@nowhere:1",
            "oom@load:0",
            "oom@load",
            "group=12",
            "what",
            "slow=3",
        ] {
            let error = wrong.parse::<Script>().unwrap_err();
            assert!(error.to_string().contains(wrong), "{error}");
        }
    }
}
