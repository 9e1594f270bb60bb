//! Memory: reserved before it is allocated, given back on drop.

use std::fmt;
use std::sync::Arc;

use crate::error::DeviceError;

/// A limit that reservations come from.
pub trait DevicePool: Send + Sync {
    /// Takes `bytes`.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] when they are not there; nothing was taken.
    fn reserve(&self, bytes: usize) -> Result<(), DeviceError>;

    /// Gives `bytes` back.
    fn release(&self, bytes: usize);
}

/// No limit; for tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unlimited;

impl DevicePool for Unlimited {
    fn reserve(&self, _bytes: usize) -> Result<(), DeviceError> {
        Ok(())
    }

    fn release(&self, _bytes: usize) {}
}

/// Reserved bytes, given back on drop.
pub struct Reservation {
    pool: Arc<dyn DevicePool>,
    bytes: usize,
}

impl Reservation {
    /// Nothing yet.
    pub fn new(pool: &Arc<dyn DevicePool>) -> Self {
        Self {
            pool: Arc::clone(pool),
            bytes: 0,
        }
    }

    /// Takes `bytes` more.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`]; what was held stays held.
    pub fn grow(&mut self, bytes: usize) -> Result<(), DeviceError> {
        self.pool.reserve(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Holds at least `bytes`.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`]; what was held stays held.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), DeviceError> {
        self.grow(bytes.saturating_sub(self.bytes))
    }

    /// Gives some back, at most what is held.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.pool.release(bytes);
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reservation({})", self.bytes)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.pool.release(self.bytes);
    }
}
