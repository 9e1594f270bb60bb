//! The threads that run kernels: one per core, shared by all queries, a morsel at a time.
//!
//! No query has a thread of its own. A worker goes round the running kernels and does one step of each in turn, so that a
//! short query isn't kept waiting by a long one; a kernel that waits (for input, for the client, for another worker to end a
//! phase) is passed over, and when all wait the worker sleeps until it is woken or a millisecond has passed.
//!
//! ```text
//!  run(kernel) ──▶ [ job | job | job ] ◀── worker 0, worker 1, …: step, step, step
//!     ▲ done when a step said so, or failed, and no worker is inside it
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;
use trireme_device_api::{DeviceError, Kernel, Progress};

/// Expressions recurse; only what is used takes memory.
const STACK_BYTES: usize = 16 << 20;
/// How long a worker sleeps when every kernel waits, unless it is woken.
const NAP: Duration = Duration::from_millis(1);
/// How long a worker without work watches for a signal before it sleeps: waking it takes longer than most hand-overs
/// between the fragments of a graph.
const WATCH: Duration = Duration::from_micros(30);

/// Threads that step kernels.
pub struct WorkerPool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    jobs: Mutex<Vec<Arc<Job>>>,
    wake: Condvar,
    /// Counts wake-ups, so that none is lost between a worker's round and its sleep.
    signals: AtomicU64,
    sleeping: AtomicUsize,
    closed: AtomicBool,
}

struct Job {
    kernel: Arc<dyn Kernel>,
    cancelled: Arc<AtomicBool>,
    /// Set once no further step may begin.
    closed: AtomicBool,
    outcome: Mutex<Outcome>,
}

struct Outcome {
    inside: usize,
    result: Option<Result<(), DeviceError>>,
    tell: Option<oneshot::Sender<Result<(), DeviceError>>>,
}

impl WorkerPool {
    /// A pool of `workers` threads.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn new(workers: usize) -> std::io::Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            jobs: Mutex::new(Vec::new()),
            wake: Condvar::new(),
            signals: AtomicU64::new(0),
            sleeping: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        });
        let threads = (0..workers.max(1))
            .map(|worker| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("worker-{worker}"))
                    .stack_size(STACK_BYTES)
                    .spawn(move || shared.work(worker))
            })
            .collect::<std::io::Result<Vec<_>>>()?;
        Ok(Arc::new(Self { shared, threads }))
    }

    /// Threads.
    pub fn workers(&self) -> usize {
        self.threads.len()
    }

    /// Something that a kernel may wait for has come.
    pub fn wake(&self) {
        self.shared.signal();
    }

    /// [`WorkerPool::wake`] for a kernel to keep, which must not keep the pool.
    pub(crate) fn waker(&self) -> Box<dyn Fn() + Send + Sync> {
        let shared = Arc::clone(&self.shared);
        Box::new(move || shared.signal())
    }

    /// Steps `kernel` until it is done. Dropping the future sets `cancelled` and lets go of the kernel.
    ///
    /// # Errors
    /// What a step failed with.
    pub async fn run(&self, kernel: Arc<dyn Kernel>, cancelled: &Arc<AtomicBool>) -> Result<(), DeviceError> {
        let (tell, told) = oneshot::channel();
        let job = Arc::new(Job {
            kernel,
            cancelled: Arc::clone(cancelled),
            closed: AtomicBool::new(false),
            outcome: Mutex::new(Outcome {
                inside: 0,
                result: None,
                tell: Some(tell),
            }),
        });
        let guard = JobGuard {
            shared: &self.shared,
            job: &job,
        };
        self.shared.jobs.lock().push(Arc::clone(&job));
        self.shared.signal();
        let outcome = told.await.unwrap_or(Err(DeviceError::Cancelled));
        drop(guard);
        outcome
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.signal();
        for thread in self.threads.drain(..) {
            // The last handle may be dropped by a worker itself, as the end of a query that nobody awaits.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

/// Ends a job whose future is dropped.
struct JobGuard<'a> {
    shared: &'a Shared,
    job: &'a Arc<Job>,
}

impl Drop for JobGuard<'_> {
    fn drop(&mut self) {
        if !self.job.closed.load(Ordering::SeqCst) {
            self.job.cancelled.store(true, Ordering::SeqCst);
            self.job.end(Err(DeviceError::Cancelled));
        }
        self.shared.jobs.lock().retain(|job| !Arc::ptr_eq(job, self.job));
    }
}

impl Shared {
    fn signal(&self) {
        self.signals.fetch_add(1, Ordering::SeqCst);
        if self.sleeping.load(Ordering::SeqCst) > 0 {
            let _jobs = self.jobs.lock();
            self.wake.notify_all();
        }
    }

    /// A step may have begun a phase that others can share: one sleeper looks, and nudges the next if so.
    fn nudge(&self) {
        if self.sleeping.load(Ordering::SeqCst) > 0 {
            self.signals.fetch_add(1, Ordering::SeqCst);
            let _jobs = self.jobs.lock();
            self.wake.notify_one();
        }
    }

    fn work(&self, worker: usize) {
        let mut turn = worker;
        while !self.closed.load(Ordering::SeqCst) {
            let seen = self.signals.load(Ordering::SeqCst);
            let jobs = self.jobs.lock().clone();
            let mut worked = false;
            for offset in 0..jobs.len() {
                let job = &jobs[(turn + offset) % jobs.len()];
                worked |= job.step(worker, self);
            }
            turn = turn.wrapping_add(1);
            // A clone of a finished job would keep its memory until the next round.
            drop(jobs);
            if worked {
                self.nudge();
            } else {
                self.sleep(seen);
            }
        }
    }

    fn sleep(&self, seen: u64) {
        let began = Instant::now();
        while began.elapsed() < WATCH {
            if self.signals.load(Ordering::SeqCst) != seen || self.closed.load(Ordering::SeqCst) {
                return;
            }
            std::hint::spin_loop();
        }
        let mut jobs = self.jobs.lock();
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        if self.signals.load(Ordering::SeqCst) == seen && !self.closed.load(Ordering::SeqCst) {
            if jobs.is_empty() {
                self.wake.wait(&mut jobs);
            } else {
                self.wake.wait_for(&mut jobs, NAP);
            }
        }
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Job {
    /// One step, if the job takes any; true when it did work.
    fn step(&self, worker: usize, shared: &Shared) -> bool {
        {
            let mut outcome = self.outcome.lock();
            if self.closed.load(Ordering::SeqCst) {
                return false;
            }
            outcome.inside += 1;
        }
        let stepped = if self.cancelled.load(Ordering::SeqCst) {
            Err(DeviceError::Cancelled)
        } else {
            catch_unwind(AssertUnwindSafe(|| self.kernel.step(worker)))
                .unwrap_or_else(|_| Err(DeviceError::Internal("a kernel panicked".to_owned())))
        };
        let worked = match stepped {
            Ok(Progress::More) => true,
            Ok(Progress::Waiting) => false,
            Ok(Progress::Done) => {
                self.close(Ok(()));
                true
            }
            Err(error) => {
                self.close(Err(error));
                true
            }
        };
        let mut outcome = self.outcome.lock();
        outcome.inside -= 1;
        if self.closed.load(Ordering::SeqCst) {
            shared.forget(self);
            outcome.tell_when_empty();
        }
        worked
    }

    fn close(&self, result: Result<(), DeviceError>) {
        let mut outcome = self.outcome.lock();
        self.closed.store(true, Ordering::SeqCst);
        // A failure wins over an end that another worker saw.
        if outcome.result.as_ref().is_none_or(Result::is_ok) {
            outcome.result = Some(result);
        }
    }

    fn end(&self, result: Result<(), DeviceError>) {
        self.close(result);
        self.outcome.lock().tell_when_empty();
    }
}

impl Shared {
    fn forget(&self, job: &Job) {
        self.jobs.lock().retain(|other| !std::ptr::eq(Arc::as_ptr(other), job));
    }
}

impl Outcome {
    fn tell_when_empty(&mut self) {
        if self.inside == 0
            && let (Some(tell), Some(result)) = (self.tell.take(), self.result.take())
        {
            // A receiver that is gone has no use for it.
            let _ = tell.send(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use trireme_device_api::{Output, Rows};

    use super::*;

    struct Counter {
        left: AtomicUsize,
        done: AtomicUsize,
        fail_at: usize,
    }

    impl Counter {
        fn new(steps: usize, fail_at: usize) -> Arc<Self> {
            Arc::new(Self {
                left: AtomicUsize::new(steps),
                done: AtomicUsize::new(0),
                fail_at,
            })
        }
    }

    impl Kernel for Counter {
        fn step(&self, _worker: usize) -> Result<Progress, DeviceError> {
            let left = self
                .left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            let Ok(left) = left else { return Ok(Progress::Done) };
            if left == self.fail_at {
                return Err(DeviceError::Arithmetic("division by zero".to_owned()));
            }
            self.done.fetch_add(1, Ordering::SeqCst);
            Ok(Progress::More)
        }

        fn finish(&self) -> Result<Output, DeviceError> {
            Ok(Output::Rows(Arc::new(Rows::default())))
        }
    }

    #[tokio::test]
    async fn every_step_of_many_kernels_is_done_once() {
        let pool = WorkerPool::new(3).unwrap();
        let kernels: Vec<_> = (0..20).map(|steps| Counter::new(steps * 10, usize::MAX)).collect();
        let runs = kernels.iter().map(|kernel| {
            let cancelled = Arc::new(AtomicBool::new(false));
            let pool = Arc::clone(&pool);
            let kernel: Arc<dyn Kernel> = Arc::clone(kernel) as _;
            async move { pool.run(kernel, &cancelled).await }
        });
        for outcome in futures::future::join_all(runs).await {
            outcome.unwrap();
        }
        for (index, kernel) in kernels.iter().enumerate() {
            assert_eq!(kernel.done.load(Ordering::SeqCst), index * 10);
        }
    }

    #[tokio::test]
    async fn a_failure_ends_its_kernel_and_no_other() {
        let pool = WorkerPool::new(2).unwrap();
        let cancelled = Arc::new(AtomicBool::new(false));
        let failed = pool.run(Counter::new(100, 50), &cancelled).await;
        assert_eq!(failed, Err(DeviceError::Arithmetic("division by zero".to_owned())));
        pool.run(Counter::new(100, usize::MAX), &cancelled).await.unwrap();
    }

    #[tokio::test]
    async fn a_dropped_run_is_cancelled() {
        struct Endless(AtomicUsize);
        impl Kernel for Endless {
            fn step(&self, _worker: usize) -> Result<Progress, DeviceError> {
                self.0.fetch_add(1, Ordering::SeqCst);
                Ok(Progress::Waiting)
            }
            fn finish(&self) -> Result<Output, DeviceError> {
                Err(DeviceError::Cancelled)
            }
        }
        let pool = WorkerPool::new(1).unwrap();
        let cancelled = Arc::new(AtomicBool::new(false));
        let kernel = Arc::new(Endless(AtomicUsize::new(0)));
        let run = pool.run(Arc::clone(&kernel) as _, &cancelled);
        assert!(tokio::time::timeout(Duration::from_millis(20), run).await.is_err());
        assert!(cancelled.load(Ordering::SeqCst));
        pool.run(Counter::new(5, usize::MAX), &Arc::new(AtomicBool::new(false)))
            .await
            .unwrap();
        assert_eq!(Arc::strong_count(&kernel), 1);
    }
}
