//! What decoding takes, by kind of pages: learned from every column that is decoded, so that whoever places work knows before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::decode::Physical;

/// What the latest column counts for.
const STEP: f64 = 0.1;
/// A column that took this many times longer, or shorter, than expected counts as if it had been so many.
const STRAY: f64 = 8.0;
/// Shorter than this a time says little.
const SHORTEST: Duration = Duration::from_micros(20);

/// Pages that take about as long for each of their bytes and rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Numbers one by one.
    Plain,
    /// Numbers by a dictionary of the file.
    Listed,
    /// Codes by a dictionary of the file.
    Codes,
    /// Codes of strings that are looked up one by one.
    Interned,
    /// Strings as they are.
    Strings,
    /// Strings by a dictionary of the file.
    Spelled,
    /// By Arrow's reader.
    Arrow,
}

impl Kind {
    /// Of a column with these pages; `codes` if strings become codes, `listed` if the file has a dictionary of all of them.
    pub(crate) fn of(physical: Option<Physical>, codes: bool, listed: bool) -> Self {
        match (physical, codes, listed) {
            (None, ..) => Kind::Arrow,
            (Some(Physical::Bytes), true, true) => Kind::Codes,
            (Some(Physical::Bytes), true, false) => Kind::Interned,
            (Some(Physical::Bytes), false, true) => Kind::Spelled,
            (Some(Physical::Bytes), false, false) => Kind::Strings,
            (Some(_), _, true) => Kind::Listed,
            (Some(_), _, false) => Kind::Plain,
        }
    }
}

/// Nanoseconds for each byte of uncompressed pages and each row, by [`Kind`].
#[derive(Debug)]
pub(crate) struct Rates([AtomicU64; 7]);

impl Default for Rates {
    fn default() -> Self {
        // As measured on a server's core of 2023; the first columns correct them.
        Self([0.4, 0.8, 0.9, 2.0, 0.4, 3.0, 4.0].map(|rate: f64| AtomicU64::new(rate.to_bits())))
    }
}

impl Rates {
    /// Expected time of so much work, in nanoseconds.
    pub(crate) fn expected_ns(&self, kind: Kind, work: f64) -> f64 {
        work * f64::from_bits(self.0[kind as usize].load(Ordering::Relaxed))
    }

    /// So much work took so long.
    pub(crate) fn learn(&self, kind: Kind, work: f64, took: Duration) {
        if took < SHORTEST || work < 1.0 {
            return;
        }
        let seen = took.as_nanos() as f64 / work;
        let step = |bits: u64| {
            let known = f64::from_bits(bits);
            let ratio = (seen / known).clamp(1.0 / STRAY, STRAY);
            Some((known * ratio.powf(STEP)).to_bits())
        };
        // The closure always gives a value.
        let _ = self.0[kind as usize].fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_what_was_seen_and_strays_hardly_count() {
        let rates = Rates::default();
        let before = rates.expected_ns(Kind::Strings, 1e6);
        for _ in 0..100 {
            rates.learn(Kind::Plain, 1e6, Duration::from_millis(3));
        }
        assert!((rates.expected_ns(Kind::Plain, 1e6) / 3e6 - 1.0).abs() < 0.05);
        assert_eq!(rates.expected_ns(Kind::Strings, 1e6), before);
        rates.learn(Kind::Plain, 1e6, Duration::from_secs(30));
        assert!(rates.expected_ns(Kind::Plain, 1e6) < 3e6 * 1.3);
        // Too short to say anything.
        rates.learn(Kind::Plain, 1e6, Duration::from_micros(1));
        assert!(rates.expected_ns(Kind::Plain, 1e6) > 3e6);
    }
}
