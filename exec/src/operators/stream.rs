//! The two ends of a graph that speak DataFusion's streams: batches that operators below make, and batches for those above.
//!
//! ```text
//!  operator ──task──▶ [ StreamBuffer ≤ 8 ] ──poll──▶ kernels ──push──▶ [ EmitBuffer ] ──▶ FragmentExec's stream
//! ```

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use arrow::array::RecordBatch;
use datafusion::common::runtime::JoinSet;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio::sync::Notify;
use trireme_device_api::{DeviceError, DevicePool, Emit, Reservation, StreamInput, StreamPoll};

use crate::driver::panicked;
use crate::pool::WorkerPool;

/// Batches of one stream that may wait for kernels.
const STREAM_BATCHES: usize = 8;
/// Batches of a result that may wait for the client before kernels pause.
const EMIT_BATCHES: usize = 16;

/// Batches of an operator, read ahead by tasks that end with the buffer.
pub(super) struct StreamBuffer {
    state: Arc<StreamState>,
    _tasks: JoinSet<()>,
}

struct StreamState {
    inner: Mutex<StreamInner>,
    room: Notify,
}

struct StreamInner {
    batches: VecDeque<RecordBatch>,
    open: usize,
    failed: Option<DataFusionError>,
}

impl StreamBuffer {
    /// Starts all partitions of `plan`.
    pub(super) fn start(
        plan: &Arc<dyn ExecutionPlan>,
        context: &Arc<TaskContext>,
        pool: &Arc<WorkerPool>,
    ) -> Result<Arc<Self>> {
        let partitions = plan.output_partitioning().partition_count();
        let state = Arc::new(StreamState {
            inner: Mutex::new(StreamInner {
                batches: VecDeque::new(),
                open: partitions,
                failed: None,
            }),
            room: Notify::new(),
        });
        let mut tasks = JoinSet::new();
        for partition in 0..partitions {
            let mut stream = plan.execute(partition, Arc::clone(context))?;
            let state = Arc::clone(&state);
            let pool = Arc::clone(pool);
            tasks.spawn(async move {
                let read = async {
                    while let Some(batch) = stream.next().await {
                        let failed = batch.is_err();
                        state.put(batch).await;
                        pool.wake();
                        if failed {
                            break;
                        }
                    }
                };
                let ended = AssertUnwindSafe(read).catch_unwind().await;
                let mut inner = state.inner.lock();
                if let Err(panic) = ended {
                    // Kernels would wait for a batch for ever.
                    inner.failed = Some(DataFusionError::External(Box::new(panicked(panic.as_ref()))));
                }
                inner.open -= 1;
                drop(inner);
                pool.wake();
            });
        }
        Ok(Arc::new(Self { state, _tasks: tasks }))
    }

    /// The operator's own error, which says more than the device's.
    pub(super) fn take_error(&self) -> Option<DataFusionError> {
        self.state.inner.lock().failed.take()
    }
}

impl StreamState {
    async fn put(&self, batch: Result<RecordBatch>) {
        loop {
            let room = self.room.notified();
            {
                let mut inner = self.inner.lock();
                match &batch {
                    Err(_) => {
                        inner.failed = batch.err();
                        return;
                    }
                    Ok(batch) if inner.batches.len() < STREAM_BATCHES => {
                        inner.batches.push_back(batch.clone());
                        return;
                    }
                    Ok(_) => {}
                }
            }
            room.await;
        }
    }
}

impl StreamInput for StreamBuffer {
    fn poll(&self) -> Result<StreamPoll, DeviceError> {
        let mut inner = self.state.inner.lock();
        if let Some(error) = &inner.failed {
            return Err(DeviceError::Input(error.strip_backtrace()));
        }
        match inner.batches.pop_front() {
            Some(batch) => {
                self.state.room.notify_one();
                Ok(StreamPoll::Batch(batch))
            }
            None if inner.open == 0 => Ok(StreamPoll::End),
            None => Ok(StreamPoll::Waiting),
        }
    }
}

/// Result batches on their way to the stream.
pub(super) struct EmitBuffer {
    inner: Mutex<EmitInner>,
    memory: Arc<dyn DevicePool>,
}

struct EmitInner {
    batches: VecDeque<Queued>,
    /// Of those batches, how many memory could not be had for.
    unreserved: usize,
    /// A batch was pushed: whoever reads may have it.
    begun: bool,
    ended: bool,
    waker: Option<Waker>,
}

/// A batch, and the memory that it holds of the query's share until it is read.
struct Queued {
    batch: RecordBatch,
    reservation: Option<Reservation>,
}

/// Ends the buffer when it is dropped.
pub(super) struct EmitEnd(pub(super) Arc<EmitBuffer>);

impl Drop for EmitEnd {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl EmitBuffer {
    /// Of batches that hold memory of the query's share.
    pub(super) fn new(memory: Arc<dyn DevicePool>) -> Arc<Self> {
        Arc::new(Self {
            memory,
            inner: Mutex::new(EmitInner {
                batches: VecDeque::new(),
                unreserved: 0,
                begun: false,
                ended: false,
                waker: None,
            }),
        })
    }

    /// A batch was pushed.
    pub(super) fn begun(&self) -> bool {
        self.inner.lock().begun
    }

    /// No batch follows.
    pub(super) fn end(&self) {
        let mut inner = self.inner.lock();
        inner.ended = true;
        if let Some(waker) = inner.waker.take() {
            waker.wake();
        }
    }

    /// The next batch; none at the end. The flag says that kernels may go on.
    pub(super) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<(RecordBatch, bool)>> {
        let mut inner = self.inner.lock();
        match inner.batches.pop_front() {
            Some(queued) => {
                let full = inner.batches.len() + 1 == EMIT_BATCHES || inner.unreserved > 0;
                inner.unreserved -= usize::from(queued.reservation.is_none());
                Poll::Ready(Some((queued.batch, full)))
            }
            None if inner.ended => Poll::Ready(None),
            None => {
                inner.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Takes a batch of rows that hold their memory themselves.
    pub(super) fn put(&self, batch: RecordBatch) {
        let reservation = Some(Reservation::new(&self.memory));
        self.queue(Queued { batch, reservation });
    }

    fn queue(&self, queued: Queued) {
        let mut inner = self.inner.lock();
        inner.unreserved += usize::from(queued.reservation.is_none());
        inner.batches.push_back(queued);
        inner.begun = true;
        if let Some(waker) = inner.waker.take() {
            waker.wake();
        }
    }
}

impl Emit for EmitBuffer {
    fn ready(&self) -> bool {
        let inner = self.inner.lock();
        inner.batches.len() < EMIT_BATCHES && inner.unreserved == 0
    }

    /// What there is no memory for is kept, but kernels pause until it was read.
    fn push(&self, batch: RecordBatch) {
        let mut reservation = Reservation::new(&self.memory);
        let reserved = reservation.grow(batch.get_array_memory_size()).is_ok();
        let reservation = reserved.then_some(reservation);
        self.queue(Queued { batch, reservation });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::driver::tests::panicking_plan;

    /// Room for so many bytes.
    struct Room(AtomicUsize);

    impl DevicePool for Room {
        fn reserve(&self, bytes: usize) -> Result<(), DeviceError> {
            let less = |left: usize| left.checked_sub(bytes);
            let left = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
            left.map(drop).map_err(|_| DeviceError::OutOfMemory(String::new()))
        }

        fn release(&self, bytes: usize) {
            self.0.fetch_add(bytes, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn batches_hold_memory_until_they_are_read_and_kernels_pause_without() {
        let schema = Schema::new(vec![Field::new("x", DataType::Int64, false)]);
        let values: ArrayRef = Arc::new(Int64Array::from(vec![7; 1000]));
        let batch = RecordBatch::try_new(Arc::new(schema), vec![values]).expect("a batch");
        let size = batch.get_array_memory_size();
        let room = Arc::new(Room(AtomicUsize::new(2 * size + size / 2)));
        let buffer = EmitBuffer::new(Arc::clone(&room) as _);
        for left in [size + size / 2, size / 2] {
            buffer.push(batch.clone());
            assert_eq!(room.0.load(Ordering::SeqCst), left);
            assert!(buffer.ready());
        }
        buffer.push(batch.clone());
        assert!(!buffer.ready(), "there is no memory for the third");
        let read = || std::future::poll_fn(|context| buffer.poll_next(context));
        for left in [size + size / 2, 2 * size + size / 2, 2 * size + size / 2] {
            let (_, go_on) = read().await.expect("a batch");
            assert!(go_on, "whoever waits is woken");
            assert_eq!(room.0.load(Ordering::SeqCst), left);
        }
        assert!(buffer.ready());
    }

    #[tokio::test]
    async fn a_panic_of_an_operator_ends_its_stream() {
        let pool = WorkerPool::new(1).expect("threads");
        let buffer =
            StreamBuffer::start(&panicking_plan(), &Arc::new(TaskContext::default()), &pool).expect("a stream");
        for _ in 0..500 {
            match buffer.poll() {
                Ok(StreamPoll::Waiting) => tokio::time::sleep(Duration::from_millis(10)).await,
                Ok(_) => panic!("there is nothing to give"),
                Err(error) => {
                    assert!(error.to_string().contains("boom"), "{error}");
                    return;
                }
            }
        }
        panic!("it waits for ever");
    }
}
