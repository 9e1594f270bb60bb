//! Bandwidth: when so many bytes will have been carried.
//!
//! A lane carries one chunk after another at its rate; a chunk is handed over when its last byte would have come. Deadlines
//! are absolute, so that late timers do not add up.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How much of missed time may be caught up.
const SLACK: Duration = Duration::from_millis(20);

/// See the module.
#[derive(Debug)]
pub(crate) struct Lane {
    free_at: Mutex<Instant>,
}

impl Lane {
    pub(crate) fn new() -> Self {
        Self {
            free_at: Mutex::new(Instant::now()),
        }
    }

    /// Time that passed unused is not caught up.
    pub(crate) fn begin(&self) {
        let mut free_at = self.free_at.lock();
        *free_at = (*free_at).max(Instant::now());
    }

    /// When so many more bytes will have been carried at this rate; 0 means at once.
    pub(crate) fn carry(&self, bytes: u64, bytes_per_second: u64) -> Option<Instant> {
        if bytes_per_second == 0 {
            return None;
        }
        let earliest = Instant::now().checked_sub(SLACK);
        let mut free_at = self.free_at.lock();
        if let Some(earliest) = earliest {
            *free_at = (*free_at).max(earliest);
        }
        *free_at += duration_of(bytes, bytes_per_second);
        Some(*free_at)
    }

    /// Something else holds this lane up until then.
    pub(crate) fn hold(&self, until: Instant) {
        let mut free_at = self.free_at.lock();
        *free_at = (*free_at).max(until);
    }
}

fn duration_of(bytes: u64, bytes_per_second: u64) -> Duration {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_second);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Bytes to hand over at once: 8 ms of a connection, so that timers are few.
pub(crate) fn chunk_bytes(bytes_per_second: u64) -> u64 {
    if bytes_per_second == 0 {
        return 2 << 20;
    }
    (bytes_per_second / 125).clamp(16 << 10, 1 << 20)
}

/// Requests of a prefix, at so many per second, with a burst of a tenth of a second.
#[derive(Debug)]
pub(crate) struct Gate {
    tokens: f64,
    at: Instant,
}

impl Gate {
    pub(crate) fn new(per_second: u32) -> Self {
        Self {
            tokens: burst(per_second),
            at: Instant::now(),
        }
    }

    /// True when one more may pass.
    pub(crate) fn pass(&mut self, per_second: u32) -> bool {
        let now = Instant::now();
        let gained = now.duration_since(self.at).as_secs_f64() * f64::from(per_second);
        self.at = now;
        self.tokens = (self.tokens + gained).min(burst(per_second));
        let passes = self.tokens >= 1.0;
        if passes {
            self.tokens -= 1.0;
        }
        passes
    }
}

fn burst(per_second: u32) -> f64 {
    (f64::from(per_second) / 10.0).max(1.0)
}
