//! Admission: how many statements run at once, how many may wait, and how long. Metadata commands never wait here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use trireme_exec::{ErrorClass, QueryError};

use crate::telemetry::Metrics;

/// Limits of the queue.
#[derive(Debug, Clone, Copy)]
pub struct AdmissionLimits {
    /// Statements that run at once.
    pub running_max: usize,
    /// Statements that may wait.
    pub queued_max: usize,
    /// How long one may wait.
    pub wait: Duration,
}

/// The queue, first come first served.
pub struct Admission {
    limits: AdmissionLimits,
    slots: Arc<Semaphore>,
    waiting: AtomicUsize,
    metrics: Metrics,
}

/// The right to run; given back on drop.
#[derive(Debug)]
pub struct Permit {
    _slot: OwnedSemaphorePermit,
    running: prometheus::IntGauge,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.running.dec();
    }
}

/// Keeps the count of waiters right, also when the waiting client goes away.
struct Waiting<'a>(&'a Admission);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.queries_queued.dec();
    }
}

impl Admission {
    /// A queue with these limits.
    pub fn new(limits: AdmissionLimits, metrics: Metrics) -> Self {
        Self {
            limits,
            slots: Arc::new(Semaphore::new(limits.running_max.max(1))),
            waiting: AtomicUsize::new(0),
            metrics,
        }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// Unavailable (clients retry it) when the queue is full or the wait too long.
    pub async fn admit(&self) -> Result<Permit, QueryError> {
        let began = Instant::now();
        let slot = match Arc::clone(&self.slots).try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => self.wait().await?,
        };
        self.metrics.queue_seconds.observe(began.elapsed().as_secs_f64());
        Ok(self.permit(slot))
    }

    /// A turn, if there is one at once and more than half of the slots are free: whoever may not come for it shall be in nobody's way.
    pub fn try_admit(&self) -> Option<Permit> {
        if self.slots.available_permits() * 2 <= self.limits.running_max {
            return None;
        }
        self.metrics.queue_seconds.observe(0.0);
        Arc::clone(&self.slots)
            .try_acquire_owned()
            .ok()
            .map(|slot| self.permit(slot))
    }

    fn permit(&self, slot: OwnedSemaphorePermit) -> Permit {
        let running = self.metrics.queries_running.clone();
        running.inc();
        Permit { _slot: slot, running }
    }

    async fn wait(&self) -> Result<OwnedSemaphorePermit, QueryError> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        self.metrics.queries_queued.inc();
        let _waiting = Waiting(self);
        if before >= self.limits.queued_max {
            return Err(self.refuse("queue_full", format!("{before} statements wait already")));
        }
        match tokio::time::timeout(self.limits.wait, Arc::clone(&self.slots).acquire_owned()).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) => Err(self.refuse("draining", "the server shuts down".to_owned())),
            Err(_) => Err(self.refuse("wait", format!("no turn within {} s", self.limits.wait.as_secs()))),
        }
    }

    /// Refuses everybody from now on.
    pub fn close(&self) {
        self.slots.close();
    }

    fn refuse(&self, reason: &str, detail: String) -> QueryError {
        self.metrics.admission_rejected_total.with_label_values(&[reason]).inc();
        QueryError::new(ErrorClass::Unavailable, "the server is busy")
            .with_detail(detail)
            .with_hint("try again later, or raise limits.max_running, limits.max_queued or limits.queue_wait_seconds")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_is_refused_and_slots_come_back() {
        let limits = AdmissionLimits {
            running_max: 1,
            queued_max: 0,
            wait: Duration::from_millis(10),
        };
        let admission = Admission::new(limits, Metrics::new().unwrap());
        let first = admission.admit().await.unwrap();
        assert_eq!(admission.admit().await.unwrap_err().class, ErrorClass::Unavailable);
        drop(first);
        assert!(admission.admit().await.is_ok());
    }
}
