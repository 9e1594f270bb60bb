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
use arrow::datatypes::SchemaRef;
use datafusion::common::runtime::JoinSet;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio::sync::Notify;
use trireme_device_api::{DeviceColumn, DeviceError, Emit, Field, Rows, StreamInput, StreamPoll, Values};

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

/// The last rows, which become batches when they are asked for: a client may be slow, and batches are wider than columns.
struct Rest {
    rows: Arc<Rows>,
    schema: SchemaRef,
    batch_rows: usize,
    segment: usize,
    start: usize,
}

impl Iterator for Rest {
    type Item = Result<RecordBatch, DeviceError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (rows, _) = self.rows.segments.get(self.segment)?;
            if self.start < *rows {
                let (start, count) = (self.start, self.batch_rows.min(rows - self.start));
                self.start += count;
                return Some(self.rows.batch(&self.schema, self.segment, start, count));
            }
            (self.segment, self.start) = (self.segment + 1, 0);
        }
    }
}

/// Result batches on their way to the stream.
pub(super) struct EmitBuffer {
    inner: Mutex<EmitInner>,
}

struct EmitInner {
    batches: VecDeque<RecordBatch>,
    rest: Option<Rest>,
    /// A batch was pushed: whoever reads may have it.
    begun: bool,
    ended: bool,
    waker: Option<Waker>,
}

/// Ends the buffer when it is dropped.
pub(super) struct EmitEnd(pub(super) Arc<EmitBuffer>);

impl Drop for EmitEnd {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl EmitBuffer {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(EmitInner {
                batches: VecDeque::new(),
                rest: None,
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

    /// Takes the last rows.
    ///
    /// # Errors
    /// When they don't fit into batches.
    pub(super) fn push_rows(&self, rows: Arc<Rows>, fields: &[Field], batch_rows: usize) -> Result<(), DeviceError> {
        if !rows
            .segments
            .iter()
            .flat_map(|(_, columns)| columns)
            .all(|column| fits(column, batch_rows))
        {
            // Whether a batch of them is too large is to be known while others may still run it.
            for batch in rows.to_batches(fields, batch_rows) {
                self.push(batch?);
            }
            return Ok(());
        }
        self.inner.lock().rest = Some(Rest {
            rows,
            schema: Field::schema(fields),
            batch_rows: batch_rows.max(1),
            segment: 0,
            start: 0,
        });
        Ok(())
    }

    /// The next batch; none at the end. The flag says that kernels may go on.
    pub(super) fn poll_next(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Option<(Result<RecordBatch, DeviceError>, bool)>> {
        let mut inner = self.inner.lock();
        match inner.batches.pop_front() {
            Some(batch) => Poll::Ready(Some((Ok(batch), inner.batches.len() + 1 == EMIT_BATCHES))),
            None if let Some(batch) = inner.rest.as_mut().and_then(Iterator::next) => Poll::Ready(Some((batch, false))),
            None if inner.ended => Poll::Ready(None),
            None => {
                inner.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Whether any batch of a column is one that Arrow's offsets can tell.
fn fits(column: &DeviceColumn, batch_rows: usize) -> bool {
    let (rows, most) = (column.rows.min(batch_rows), i32::MAX as usize);
    match &column.values {
        Values::Strings(strings) => strings.bytes.len() <= most,
        Values::Codes { dictionary, .. } => {
            let values = dictionary.values();
            let longest = || values.offsets.windows(2).map(|ends| ends[1] - ends[0]).max();
            values.bytes.len().saturating_mul(rows) <= most
                || (longest().unwrap_or(0) as usize).saturating_mul(rows) <= most
        }
        _ => true,
    }
}

impl Emit for EmitBuffer {
    fn ready(&self) -> bool {
        self.inner.lock().batches.len() < EMIT_BATCHES
    }

    fn push(&self, batch: RecordBatch) {
        let mut inner = self.inner.lock();
        inner.batches.push_back(batch);
        inner.begun = true;
        if let Some(waker) = inner.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::driver::tests::panicking_plan;

    #[tokio::test]
    async fn a_panic_of_an_operator_ends_its_stream() {
        let pool = WorkerPool::new(1).expect("threads");
        let buffer =
            StreamBuffer::start(&panicking_plan(), &Arc::new(TaskContext::default()), &pool).expect("a stream");
        for _ in 0..3000 {
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
