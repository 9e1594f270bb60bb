//! What requests lately took: first bytes by size class, rates of single connections. From this follow hedges, deadlines and
//! the gaps that are worth merging. Without enough samples it says nothing rather than something wrong.

use std::time::Duration;

use parking_lot::Mutex;

/// Samples kept of each kind.
const KEPT: usize = 512;
/// Fewer say nothing.
const ENOUGH: usize = 24;
/// Percentiles are taken anew after so many samples.
const RENEW: usize = 16;
/// Bodies below this say little about a connection's rate.
const RATE_MIN_BYTES: u64 = 128 << 10;
/// Upper ends of the size classes.
const CLASS_BYTES: [u64; 2] = [256 << 10, 4 << 20];

/// Percentiles of one kind of sample.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Percentiles {
    pub(crate) p10: f64,
    pub(crate) p50: f64,
    pub(crate) p95: f64,
}

#[derive(Debug, Default)]
struct Ring {
    samples: Vec<f64>,
    next: usize,
    fresh: usize,
    percentiles: Option<Percentiles>,
}

impl Ring {
    fn push(&mut self, sample: f64) {
        if self.samples.len() < KEPT {
            self.samples.push(sample);
        } else {
            self.samples[self.next] = sample;
            self.next = (self.next + 1) % KEPT;
        }
        self.fresh += 1;
        if self.samples.len() >= ENOUGH && (self.fresh >= RENEW || self.percentiles.is_none()) {
            self.fresh = 0;
            let mut sorted = self.samples.clone();
            sorted.sort_by(f64::total_cmp);
            let at = |percent: usize| sorted[(sorted.len() - 1) * percent / 100];
            self.percentiles = Some(Percentiles {
                p10: at(10),
                p50: at(50),
                p95: at(95),
            });
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    first_byte: [Ring; CLASS_BYTES.len() + 1],
    any_first_byte: Ring,
    rates: Ring,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Measures {
    inner: Mutex<Inner>,
}

impl Measures {
    /// A first byte of an answer of `bytes` came after `waited`; also what is known when one was given up.
    pub(crate) fn first_byte(&self, bytes: u64, waited: Duration) {
        let mut inner = self.inner.lock();
        inner.first_byte[class(bytes)].push(waited.as_secs_f64());
        inner.any_first_byte.push(waited.as_secs_f64());
    }

    /// A body of `bytes` came within `took`, first byte to last.
    pub(crate) fn body(&self, bytes: u64, took: Duration) {
        if bytes >= RATE_MIN_BYTES && !took.is_zero() {
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            self.inner.lock().rates.push(bytes as f64 / took.as_secs_f64());
        }
    }

    /// Seconds to the first byte of answers of about this size, or of any.
    pub(crate) fn first_bytes(&self, bytes: u64) -> Option<Percentiles> {
        let inner = self.inner.lock();
        inner.first_byte[class(bytes)]
            .percentiles
            .or(inner.any_first_byte.percentiles)
    }

    /// Seconds to the first byte of any answer.
    pub(crate) fn any_first_bytes(&self) -> Option<Percentiles> {
        self.inner.lock().any_first_byte.percentiles
    }

    /// Bytes per second of one connection.
    pub(crate) fn rates(&self) -> Option<Percentiles> {
        self.inner.lock().rates.percentiles
    }
}

fn class(bytes: u64) -> usize {
    CLASS_BYTES.iter().filter(|end| bytes > **end).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_samples_say_nothing_many_say_what_they_are() {
        let measures = Measures::default();
        for at in 0..100_u64 {
            assert_eq!(measures.first_bytes(1).is_some(), at >= 24, "after {at}");
            measures.first_byte(1000, Duration::from_millis(at));
        }
        let first = measures.first_bytes(1 << 30).unwrap();
        assert!(first.p50 > 0.035 && first.p50 < 0.060, "{first:?}");
        assert!(first.p95 > 0.075 && first.p95 < 0.099, "{first:?}");
        assert_eq!(measures.rates(), None);
        for _ in 0..30 {
            measures.body(1 << 20, Duration::from_millis(20));
        }
        let rate = measures.rates().unwrap().p50;
        assert!((rate - 52_428_800.0).abs() < 1.0, "{rate}");
    }
}
