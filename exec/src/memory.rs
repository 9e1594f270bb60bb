//! Memory limits: one pool for the process, and a share of it that one query may not exceed, so that a greedy query fails
//! alone.
//!
//! ```text
//!  operators ──▶ QueryPool (limit of one query) ──▶ process pool (exec.memory_bytes, spillable consumers share fairly)
//! ```

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::resources_datafusion_err;
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};

/// The part of the process's pool that one query may take.
#[derive(Debug)]
pub struct QueryPool {
    parent: Arc<dyn MemoryPool>,
    limit_bytes: usize,
    used_bytes: AtomicUsize,
    peak_bytes: AtomicUsize,
}

impl QueryPool {
    /// A share of `parent` of at most `limit_bytes`.
    pub fn new(parent: Arc<dyn MemoryPool>, limit_bytes: usize) -> Self {
        Self {
            parent,
            limit_bytes,
            used_bytes: AtomicUsize::new(0),
            peak_bytes: AtomicUsize::new(0),
        }
    }

    /// The most the query held at once, in bytes.
    pub fn peak_bytes(&self) -> usize {
        self.peak_bytes.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) -> usize {
        let now = self.used_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak_bytes.fetch_max(now, Ordering::Relaxed);
        now
    }
}

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query pool of {} bytes in {}", self.limit_bytes, self.parent)
    }
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &str {
        "query"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.parent.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.parent.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.add(additional);
        self.parent.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.used_bytes.fetch_sub(shrink, Ordering::Relaxed);
        self.parent.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let now = self.add(additional);
        let granted = if now > self.limit_bytes {
            Err(resources_datafusion_err!(
                "{} asked for {additional} bytes; the query holds {} of its {} bytes (exec.query_memory_bytes)",
                reservation.consumer().name(),
                now - additional,
                self.limit_bytes
            ))
        } else {
            self.parent.try_grow(reservation, additional)
        };
        if granted.is_err() {
            self.used_bytes.fetch_sub(additional, Ordering::Relaxed);
        }
        granted
    }

    fn reserved(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit_bytes)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::GreedyMemoryPool;

    use super::*;

    #[test]
    fn a_query_stops_at_its_own_limit_and_gives_everything_back() {
        let parent: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1000));
        let pool: Arc<dyn MemoryPool> = Arc::new(QueryPool::new(Arc::clone(&parent), 100));
        let reservation = MemoryConsumer::new("sort").register(&pool);
        reservation.try_grow(90).unwrap();
        let error = reservation.try_grow(20).unwrap_err().to_string();
        assert!(error.contains("query_memory_bytes"), "{error}");
        assert_eq!(parent.reserved(), 90);
        drop(reservation);
        assert_eq!((parent.reserved(), pool.reserved()), (0, 0));
    }
}
