//! Runs whose columns don't fit into the device's memory: their segments come in chunks, two at a time.
//!
//! ```text
//!  copy     [ chunk 0 ][ chunk 1 ]      [ chunk 2 ]      …      strings stay whole: handles must stay valid
//!  compute            [ kernel 0 ][ kernel 1 ][ kernel 2 ]      chunk n + 2 takes the memory of chunk n
//! ```
//!
//! Fragments take turns: each has the memory that the others' columns don't take at that time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use trireme_device_api::DeviceError;
use trireme_device_codegen::When;
use trireme_device_codegen::shape::Storage;

use crate::accelerator::Core;
use crate::arena::Block;
use crate::driver::{Event, Queue};
use crate::fills::{Fill, Placed, Resident, place};
use crate::job::{RunJob, nanoseconds};
use crate::run::Run;
use crate::task::Table;

/// Chunks whose memory is taken at once.
const CHUNKS: usize = 2;

/// What must be held until a chunk's kernels are done.
struct Chunk {
    event: Option<Arc<dyn Event>>,
    #[expect(dead_code, reason = "held")]
    columns: Resident,
    staging: Vec<Arc<Block>>,
}

/// Chunks whose kernels may still run.
struct Flying<'a> {
    core: &'a Core,
    chunks: VecDeque<Chunk>,
}

impl Flying<'_> {
    /// Waits for the oldest; false if there is none.
    fn land(&mut self) -> Result<bool, DeviceError> {
        let Some(chunk) = self.chunks.front() else {
            return Ok(false);
        };
        if let Some(event) = &chunk.event {
            event.wait()?;
        }
        self.chunks.pop_front();
        Ok(true)
    }
}

impl Drop for Flying<'_> {
    fn drop(&mut self) {
        // After a failure too, memory is given back when the device is done with it.
        if !self.chunks.is_empty() {
            self.core.idle();
        }
    }
}

/// How putting columns together went.
enum Gathered {
    All,
    /// Up to this segment.
    NoRoom(usize),
}

impl RunJob {
    /// Queues all fragments, a chunk of segments at a time; gives the string columns of each table. None: there is no room.
    ///
    /// # Errors
    /// As those of a run.
    pub(crate) fn run_staged(&self, run: &mut Run<'_>) -> Result<Option<Vec<Resident>>, DeviceError> {
        run.begin(&[])?;
        let mut texts: Vec<Resident> = self.task.tables().iter().map(|_| Resident::new()).collect();
        for (position, id) in self.task.ids.iter().enumerate() {
            self.check()?;
            let (Some(table), Some(number)) = (self.task.table(*id), self.task.table_index(*id)) else {
                run.queue(position)?;
                continue;
            };
            if texts[number].is_empty() {
                match self.strings(run, position, table, number)? {
                    Some(columns) => texts[number] = columns,
                    None => return Ok(None),
                }
            }
            if !self.chunks(run, position, table, number, &texts[number])? {
                return Ok(None);
            }
        }
        Ok(Some(texts))
    }

    /// The string columns of all segments; none if there is no room.
    fn strings(
        &self,
        run: &mut Run<'_>,
        position: usize,
        table: &Table,
        number: usize,
    ) -> Result<Option<Resident>, DeviceError> {
        let width = table.shape.columns.len();
        let mut columns: Resident = vec![vec![None; width]; table.input.segments()];
        let mut fills = Vec::new();
        let is_string = |column: &usize| table.shape.columns[*column].storage == Storage::Offsets;
        let wanted: Vec<_> = (0..width).filter(is_string).collect();
        match self.gather(table, number, 0, u64::MAX, &wanted, &mut columns, &mut fills)? {
            Gathered::All => {
                run.pin(&columns);
                let staging = self.copy(run, position, fills)?;
                run.hold(staging);
                Ok(Some(columns))
            }
            Gathered::NoRoom(_) => Ok(None),
        }
    }

    /// Runs a fragment; false if there is no room.
    fn chunks(
        &self,
        run: &mut Run<'_>,
        position: usize,
        table: &Table,
        number: usize,
        strings: &Resident,
    ) -> Result<bool, DeviceError> {
        let core = &self.task.core;
        let width = table.shape.columns.len();
        let is_string = |column: &usize| table.shape.columns[*column].storage == Storage::Offsets;
        let wanted: Vec<_> = (0..width).filter(|column| !is_string(column)).collect();
        let free = core.arena.bytes() - core.arena.used() + core.columns.bytes();
        let in_chunks = run.programs[position].takes_chunks;
        let most = match core.limits.chunk_bytes {
            _ if !in_chunks => u64::MAX,
            Some(most) => most,
            None => free / (CHUNKS as u64 + 1),
        };
        let mut flying = Flying {
            core,
            chunks: VecDeque::new(),
        };
        run.start(position)?;
        let (mut start, count) = (0, table.input.segments());
        loop {
            self.check()?;
            let (mut chunk, mut fills) = (strings[start..].to_vec(), Vec::new());
            let gathered = self.gather(table, number, start, most, &wanted, &mut chunk, &mut fills)?;
            let end = match gathered {
                Gathered::All => count,
                Gathered::NoRoom(end) => end,
            };
            chunk.truncate(end - start);
            if end < count && !in_chunks {
                return Ok(false);
            }
            if end == start && start < count {
                // Not one segment: the memory of an earlier chunk is needed first.
                drop((chunk, fills));
                if !flying.land()? {
                    return Ok(false);
                }
                run.waited(position);
                continue;
            }
            let words = run.segment_table(position, start..end, &chunk);
            flying.chunks.push_back(Chunk {
                event: None,
                columns: chunk,
                staging: Vec::new(),
            });
            let staging = self.copy(run, position, fills)?;
            if let Some(chunk) = flying.chunks.back_mut() {
                chunk.staging.extend(staging);
            }
            run.replace_segments(position, &words)?;
            run.launch(position, When::Chunk)?;
            if let Some(chunk) = flying.chunks.back_mut() {
                chunk.event = Some(core.driver.record(Queue::Compute)?);
            }
            start = end;
            if start == count {
                break;
            }
            if flying.chunks.len() >= CHUNKS {
                flying.land()?;
                run.waited(position);
            }
        }
        run.end(position)?;
        // The next fragment needs the memory.
        while flying.land()? {
            run.waited(position);
        }
        Ok(true)
    }

    /// Pins or makes room for columns of segments `start..`, whose slots are `into`, up to about `most` bytes.
    #[expect(clippy::too_many_arguments, reason = "what is gathered, and where to")]
    fn gather(
        &self,
        table: &Table,
        number: usize,
        start: usize,
        most: u64,
        wanted: &[usize],
        into: &mut Resident,
        fills: &mut Vec<Fill>,
    ) -> Result<Gathered, DeviceError> {
        let mut bytes = 0;
        let columns = self.columns.lock();
        for segment in start..table.input.segments() {
            if bytes >= most {
                return Ok(Gathered::NoRoom(segment));
            }
            let (before, slots) = (fills.len(), into[segment - start].clone());
            for column in wanted.iter().copied().filter(|column| table.reads(segment, *column)) {
                let loaded = columns
                    .get(number)
                    .and_then(|segments| segments[segment][column].as_ref());
                let uploaded = match place(&self.task.core, table, segment, column, loaded)? {
                    Placed::There(uploaded) => uploaded,
                    Placed::Fill(fill) => {
                        let uploaded = Arc::clone(&fill.uploaded);
                        fills.push(fill);
                        uploaded
                    }
                    Placed::NoRoom => {
                        // Nothing of this segment is kept.
                        fills.truncate(before);
                        into[segment - start] = slots;
                        return Ok(Gathered::NoRoom(segment));
                    }
                };
                bytes += uploaded.bytes();
                into[segment - start][column] = Some(uploaded);
            }
        }
        Ok(Gathered::All)
    }

    /// Copies; gives memory to be held until the kernels are done.
    fn copy(&self, run: &mut Run<'_>, position: usize, fills: Vec<Fill>) -> Result<Vec<Arc<Block>>, DeviceError> {
        let began = Instant::now();
        let copied = self.fills.run(&self.task.core, fills, false, &|| self.wake())?;
        Ok(run.copied(position, copied, nanoseconds(began)))
    }
}
