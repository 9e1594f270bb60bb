//! A stream of batches that isn't always ready.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use rand::Rng;
use trireme_device_api::{DeviceError, Field, StreamInput, StreamPoll};

use crate::arrays::batch_of;
use crate::values::Row;

/// Batches in memory; says Waiting at every third poll.
pub struct MemoryStream {
    batches: Mutex<VecDeque<RecordBatch>>,
    polls: AtomicUsize,
}

impl MemoryStream {
    /// Rows cut into batches of random sizes, some empty, all slices of larger batches.
    ///
    /// # Errors
    /// [`DeviceError::Internal`] when a value doesn't belong to its column.
    pub fn new(fields: &[Field], rows: &[Row], rng: &mut impl Rng) -> Result<Self, DeviceError> {
        let largest = [1, 7, 100, 3_000, 100_000][rng.random_range(0..5)];
        let mut batches = VecDeque::new();
        let mut start = 0;
        if rng.random_bool(0.3) {
            batches.push_back(batch_of(&[], fields)?);
        }
        while start < rows.len() {
            let length = rng.random_range(1..=largest).min(rows.len() - start);
            let before = start.min(3);
            let whole = batch_of(&rows[start - before..start + length], fields)?;
            batches.push_back(whole.slice(before, length));
            start += length;
            if rng.random_bool(0.1) {
                batches.push_back(whole.slice(0, 0));
            }
        }
        Ok(Self {
            batches: Mutex::new(batches),
            polls: AtomicUsize::new(rng.random_range(0..3)),
        })
    }
}

impl StreamInput for MemoryStream {
    fn poll(&self) -> Result<StreamPoll, DeviceError> {
        if self.polls.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
            return Ok(StreamPoll::Waiting);
        }
        let mut batches = self.batches.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(batches.pop_front().map_or(StreamPoll::End, StreamPoll::Batch))
    }
}
