//! Bytes of the column cache: a limit, what is taken of it, and leases that give back on drop.
//!
//! Invariant: `used ≤ limit` at every moment, unless the limit itself was lowered; a lease is taken before its memory is
//! allocated and lives as long as the memory does, evicted or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use trireme_device_api::DevicePool;

/// A limit in bytes and what is taken of it.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    limit_bytes: AtomicUsize,
    used_bytes: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes: AtomicUsize::new(limit_bytes),
            used_bytes: AtomicUsize::new(0),
        })
    }

    pub(crate) fn limit_bytes(&self) -> usize {
        self.limit_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_limit_bytes(&self, bytes: usize) {
        self.limit_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let limit = self.limit_bytes();
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= limit);
        self.used_bytes
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, fits)
            .is_ok()
    }

    fn give(&self, bytes: usize) {
        self.used_bytes.fetch_sub(bytes, Ordering::AcqRel);
    }
}

enum From {
    Cache(Arc<Budget>),
    Query(Arc<dyn DevicePool>),
}

/// Bytes taken from the cache's budget or a query's pool, given back on drop.
pub(crate) struct Lease {
    from: From,
    bytes: usize,
}

impl Lease {
    /// Of the cache's budget; none when it is not there.
    pub(crate) fn of_cache(budget: &Arc<Budget>, bytes: usize) -> Option<Self> {
        budget.take(bytes).then(|| Self {
            from: From::Cache(Arc::clone(budget)),
            bytes,
        })
    }

    /// Of a query's pool.
    ///
    /// # Errors
    /// [`trireme_device_api::DeviceError::OutOfMemory`].
    pub(crate) fn of_query(pool: &Arc<dyn DevicePool>, bytes: usize) -> Result<Self, trireme_device_api::DeviceError> {
        pool.reserve(bytes)?;
        Ok(Self {
            from: From::Query(Arc::clone(pool)),
            bytes,
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_cached(&self) -> bool {
        matches!(self.from, From::Cache(_))
    }

    /// Gives back all but `bytes`, which are at most those held.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let extra = self.bytes.saturating_sub(bytes);
        self.bytes -= extra;
        self.give(extra);
    }

    fn give(&self, bytes: usize) {
        match &self.from {
            From::Cache(budget) => budget.give(bytes),
            From::Query(pool) => pool.release(bytes),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.give(self.bytes);
    }
}
