//! When a second request is sent in place of a slow one, and how many of them are allowed.
//!
//! The rule is "after the 95th percentile of recent first bytes, at most so many per hundred requests", within two bounds.
//! Where more than a twentieth of the requests is slow, that percentile is itself a slow one; and where all are about equal,
//! whoever is late by it will answer before a second request can: those are saved for the ones that are really late.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::controller::Measures;

/// A token is one request; in hundredths, because each request earns `percent` of them.
const TOKEN: i64 = 100;
/// Tokens that can be saved for a bad moment.
const SAVED_TOKENS: i64 = 8;
/// First bytes below this are never hedged: the second one would come no sooner.
const AFTER_MIN: Duration = Duration::from_millis(3);
const MEDIANS: (f64, f64) = (2.5, 3.5);

/// A bucket of second requests.
#[derive(Debug)]
pub(crate) struct HedgeBudget {
    percent: i64,
    tokens: AtomicI64,
}

impl HedgeBudget {
    pub(crate) fn new(percent: u32) -> Self {
        Self {
            percent: i64::from(percent.min(100)),
            tokens: AtomicI64::new(0),
        }
    }

    /// A first request was sent.
    pub(crate) fn earn(&self) {
        if self.percent > 0 {
            let add = |tokens: i64| Some((tokens + self.percent).min(SAVED_TOKENS * TOKEN));
            let _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        }
    }

    /// Takes a second request; false when there is none.
    pub(crate) fn take(&self) -> bool {
        let take = |tokens: i64| (tokens >= TOKEN).then(|| tokens - TOKEN);
        self.tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }

    /// Gives one back that was not sent.
    pub(crate) fn put_back(&self) {
        self.tokens.fetch_add(TOKEN, Ordering::Relaxed);
    }

    /// After what time a second request is worth it; none before enough is measured, or when switched off.
    pub(crate) fn after(&self, measures: &Measures, bytes: u64) -> Option<Duration> {
        if self.percent == 0 {
            return None;
        }
        let first = measures.first_bytes(bytes)?;
        let after = first.p95.clamp(first.p50 * MEDIANS.0, first.p50 * MEDIANS.1);
        Some(Duration::from_secs_f64(after).max(AFTER_MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_per_hundred_and_not_one_more() {
        let budget = HedgeBudget::new(5);
        let taken: usize = (0..1000)
            .map(|_| {
                budget.earn();
                usize::from(budget.take())
            })
            .sum();
        assert_eq!(taken, 50);
        let none = HedgeBudget::new(0);
        (0..1000).for_each(|_| none.earn());
        assert!(!none.take());
    }

    #[test]
    fn no_hedge_before_anything_is_known() {
        let (budget, measures) = (HedgeBudget::new(5), Measures::default());
        assert_eq!(budget.after(&measures, 1000), None);
        for at in 0..100 {
            measures.first_byte(1000, Duration::from_millis(if at % 10 == 0 { 300 } else { 30 }));
        }
        assert_eq!(budget.after(&measures, 1000), Some(Duration::from_millis(105)));
        assert_eq!(HedgeBudget::new(0).after(&measures, 1000), None);
    }
}
