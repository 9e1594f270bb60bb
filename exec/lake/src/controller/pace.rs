//! How many requests may be in flight: grows while more of them bring more bytes, shrinks when the store says so.
//!
//! ```text
//!  Start ── doubles per round, until two rounds bring nothing ──▶ Hold ── now and then a few more, kept if they
//!    │                                                            ▲         bring more
//!    └── throttled: half of it ──▶ Careful ── a few more a round ─┘ at the old limit
//! ```
//!
//! It does not look for fewer that bring as much: rounds differ by more than such a step does, and a limit that is too low
//! costs time, while one that is too high costs nothing but the order among readers. Pure: time and counters come from
//! outside.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Never fewer, whatever the store says.
pub(crate) const FLOOR: usize = 4;
/// A round in which more requests brought less than this many times the bytes is one without growth.
const GROWTH: f64 = 1.2;
/// The least limit with this share of the best goodput is kept.
const AS_GOOD: f64 = 0.92;
/// What is left of the best goodput with each round: networks change.
const FORGOTTEN: f64 = 0.998;
/// Time between two probes for more.
const PROBE_EVERY: Duration = Duration::from_secs(3);
/// Least time between two halvings; nothing grows in it.
const COOL_DOWN: Duration = Duration::from_millis(700);
/// Answers that are looked at for throttling, and how many of them say "throttled" before anything is done: a store that
/// fails a few requests at random is not helped by fewer of them.
const WATCHED: usize = 32;
const THROTTLED_MIN: usize = 3;
const THROTTLED_PERCENT: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Start { fruitless: u32 },
    Hold { next_probe: Instant },
    Probe { back_to: usize, goodput: f64 },
    Careful { until: usize },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Pace {
    limit: usize,
    floor: usize,
    max: usize,
    phase: Phase,
    /// The round that is measured: its begin, bytes before it, whether the limit was what held requests back.
    begin: Instant,
    begin_bytes: u64,
    begin_limit: usize,
    saturated: bool,
    /// The round that passes before one is measured after a change.
    settling: bool,
    /// Limits of earlier rounds and their bytes per second.
    rounds: Vec<(usize, f64)>,
    best: f64,
    cool_until: Instant,
    answers: VecDeque<bool>,
}

impl Pace {
    pub(crate) fn new(start: usize, max: usize, now: Instant) -> Self {
        let max = max.max(1);
        let floor = FLOOR.min(max);
        let limit = start.clamp(floor, max);
        Self {
            limit,
            begin_limit: limit,
            floor,
            max,
            phase: Phase::Start { fruitless: 0 },
            begin: now,
            begin_bytes: 0,
            saturated: false,
            settling: false,
            rounds: Vec::new(),
            best: 0.0,
            cool_until: now,
            answers: VecDeque::with_capacity(WATCHED),
        }
    }

    /// Requests that may be in flight.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// The most bytes per second that were seen in a round.
    pub(crate) fn best(&self) -> f64 {
        self.best
    }

    /// An answer came (or did not).
    pub(crate) fn answered(&mut self, now: Instant, throttled: bool) {
        if self.answers.len() == WATCHED {
            self.answers.pop_front();
        }
        self.answers.push_back(throttled);
        if throttled {
            let count = self.answers.iter().filter(|throttled| **throttled).count();
            if count >= THROTTLED_MIN && count * 100 >= self.answers.len() * THROTTLED_PERCENT && now >= self.cool_until
            {
                self.halve(now);
            }
        } else if matches!(self.phase, Phase::Start { .. })
            && self.saturated
            && self.limit < self.max.min(self.begin_limit * 2)
        {
            self.limit += 1;
        }
    }

    fn halve(&mut self, now: Instant) {
        let until = match self.phase {
            Phase::Careful { until } => until.max(self.limit),
            Phase::Probe { back_to, .. } => back_to,
            _ => self.limit,
        };
        self.limit = (self.limit / 2).max(self.floor);
        self.phase = Phase::Careful { until };
        self.cool_until = now + COOL_DOWN;
        self.answers.clear();
        self.rounds.clear();
        self.settling = true;
        self.begin = now;
        self.begin_limit = self.limit;
    }

    /// Looks whether a round is over. `bytes` arrived since the start of all; `waiting`: somebody waits for a slot;
    /// `first_byte`: what an answer takes at least.
    pub(crate) fn tick(&mut self, now: Instant, bytes: u64, waiting: bool, first_byte: Duration) {
        self.saturated |= waiting;
        let length = (first_byte * 2).clamp(Duration::from_millis(40), Duration::from_millis(500));
        let passed = now.saturating_duration_since(self.begin);
        if passed < length {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let goodput = bytes.saturating_sub(self.begin_bytes) as f64 / passed.as_secs_f64();
        // A round that nothing looked at for long was idle.
        let measured = self.saturated && !self.settling && passed < length * 8;
        let (saturated, limit) = (self.saturated, self.begin_limit.midpoint(self.limit));
        self.begin = now;
        self.begin_bytes = bytes;
        self.saturated = waiting;
        self.settling = false;
        if measured {
            self.best *= FORGOTTEN;
        }
        self.best = self.best.max(goodput);
        if measured {
            self.judge(now, limit, goodput);
        } else if !saturated && matches!(self.phase, Phase::Probe { .. }) {
            self.back(now);
        }
        self.begin_limit = self.limit;
    }

    /// A round with `limit` requests in flight has brought `goodput` bytes per second.
    fn judge(&mut self, now: Instant, limit: usize, goodput: f64) {
        match self.phase {
            Phase::Start { fruitless } => {
                let before = self.rounds.iter().map(|(_, goodput)| *goodput).fold(0.0, f64::max);
                self.rounds.push((limit, goodput));
                let fruitless = if goodput >= before * GROWTH { 0 } else { fruitless + 1 };
                self.phase = Phase::Start { fruitless };
                if fruitless >= 2 || self.limit >= self.max {
                    self.settle_down(now);
                }
            }
            Phase::Hold { next_probe } if now >= next_probe && self.limit < self.max => {
                self.phase = Phase::Probe {
                    back_to: self.limit,
                    goodput,
                };
                self.limit = (self.limit + (self.limit / 4).max(2)).min(self.max);
                self.settling = true;
            }
            Phase::Hold { .. } => {}
            Phase::Probe {
                back_to,
                goodput: before,
            } => {
                #[expect(clippy::cast_precision_loss, reason = "small numbers")]
                let grown = self.limit as f64 / back_to as f64;
                if goodput >= before * (1.0 + (grown - 1.0) / 2.0) {
                    self.phase = Phase::Hold { next_probe: now };
                } else {
                    self.back(now);
                }
            }
            Phase::Careful { until } => {
                if now < self.cool_until {
                    return;
                }
                if self.limit >= until {
                    self.phase = Phase::Hold {
                        next_probe: now + PROBE_EVERY,
                    };
                } else {
                    self.limit = (self.limit + (self.limit / 8).max(1)).min(until).min(self.max);
                }
            }
        }
    }

    /// The end of the start: the least limit that was about as good as the best.
    fn settle_down(&mut self, now: Instant) {
        let best = self.rounds.iter().map(|(_, goodput)| *goodput).fold(0.0, f64::max);
        if let Some(limit) = (self.rounds.iter())
            .filter(|(_, goodput)| *goodput >= best * AS_GOOD)
            .map(|(limit, _)| *limit)
            .min()
        {
            self.limit = limit.clamp(self.floor, self.max);
        }
        self.rounds.clear();
        self.settling = true;
        self.phase = Phase::Hold {
            next_probe: now + PROBE_EVERY,
        };
    }

    fn back(&mut self, now: Instant) {
        if let Phase::Probe { back_to, .. } = self.phase {
            self.limit = back_to;
        }
        self.settling = true;
        self.phase = Phase::Hold {
            next_probe: now + PROBE_EVERY,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(10);
    const FIRST_BYTE: Duration = Duration::from_millis(30);

    /// A store whose goodput is `per_request` bytes per second and request, `most` in all; plays `seconds`.
    fn play(pace: &mut Pace, now: &mut Instant, bytes: &mut f64, seconds: f64, per_request: f64, most: f64) {
        let mut answers = 0.0;
        for _ in 0..(seconds * 100.0) as usize {
            *now += STEP;
            let rate = (pace.limit() as f64 * per_request).min(most);
            *bytes += rate * STEP.as_secs_f64();
            answers += rate * STEP.as_secs_f64() / 1e6;
            while answers >= 1.0 {
                answers -= 1.0;
                pace.answered(*now, false);
            }
            pace.tick(*now, *bytes as u64, true, FIRST_BYTE);
        }
    }

    #[test]
    fn grows_while_bytes_grow_and_stays_where_they_end() {
        let (mut now, mut bytes) = (Instant::now(), 0.0);
        let mut pace = Pace::new(32, 256, now);
        play(&mut pace, &mut now, &mut bytes, 3.0, 5e6, 800e6);
        assert!((140..=256).contains(&pace.limit()), "{}", pace.limit());
        assert!(pace.best() > 700e6);
        // One that is full with what it starts with.
        let mut pace = Pace::new(32, 256, now);
        play(&mut pace, &mut now, &mut bytes, 2.0, 45e6, 1.25e9);
        assert!((32..=140).contains(&pace.limit()), "{}", pace.limit());
    }

    #[test]
    fn a_limit_that_nobody_needs_does_not_grow() {
        let (start, mut bytes) = (Instant::now(), 0);
        let mut pace = Pace::new(32, 256, start);
        for step in 0..500 {
            bytes += 1_000_000;
            let now = start + STEP * step;
            pace.answered(now, false);
            pace.tick(now, bytes, false, FIRST_BYTE);
        }
        assert_eq!(pace.limit(), 32);
    }

    #[test]
    fn throttling_halves_once_per_cool_down_and_never_below_the_floor() {
        let start = Instant::now();
        let mut pace = Pace::new(32, 256, start);
        for _ in 0..100 {
            pace.answered(start, true);
        }
        assert_eq!(pace.limit(), 16);
        let mut now = start;
        for _ in 0..1000 {
            now += STEP;
            pace.answered(now, true);
        }
        assert_eq!(pace.limit(), FLOOR);
        let mut bytes = 0.0;
        play(&mut pace, &mut now, &mut bytes, 20.0, 10e6, 1e9);
        assert!(pace.limit() >= 32, "{}", pace.limit());
    }

    #[test]
    fn a_few_failures_at_random_change_little() {
        let start = Instant::now();
        let mut pace = Pace::new(32, 256, start);
        for at in 0..1000 {
            pace.answered(start + STEP * at, at % 33 == 0);
        }
        assert_eq!(pace.limit(), 32);
    }
}
