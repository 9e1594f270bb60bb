//! One run of fragments on the device: uploads, launches, and one wait at the end.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use trireme_device_api::{DeviceError, FragmentReport, Source as RowSource};
use trireme_device_codegen::shape::{COLUMN_WORDS, RegionRef, TABLE_HEADER_WORDS};
use trireme_device_codegen::{
    Fault, Groups, Lifetime, Program, ProgramOutput, STATUS_FAULTS, STATUS_LARGE, STATUS_NEEDED, When, Word,
};

use crate::accelerator::Core;
use crate::arena::Block;
use crate::driver::{Event, Queue};
use crate::fills::{Copied, Resident};
use crate::job::Ready;
use crate::memory::{Memory, fill_word};
use crate::resident::Source;
use crate::task::{Given, Task};
use crate::texts::Texts;
use crate::uploaded::Uploaded;

/// How a run went.
pub(crate) enum Verdict {
    /// Well.
    Fine,
    /// Fragments (by position) need so many entries.
    Capacity(Vec<(usize, u64)>),
}

/// Tries to wait for a queue.
const IDLE_TRIES: u32 = 3;

/// A run under way.
pub(crate) struct Run<'a> {
    pub(crate) task: &'a Task,
    pub(crate) programs: Vec<&'a Program>,
    ready: &'a [Ready],
    pub(crate) memory: Memory,
    pub(crate) reports: Vec<FragmentReport>,
    /// Before the first program, and after each, where the device tells times.
    marks: Vec<Arc<dyn Event>>,
    /// What it reads, until it is done.
    pins: Vec<Arc<Uploaded>>,
    /// Pages and their tables, likewise.
    staging: Vec<Arc<Block>>,
    queued: bool,
}

impl Core {
    /// Copies from the device and counts it; waits.
    ///
    /// # Errors
    /// When the device is lost.
    pub(crate) fn download(&self, at: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.counters
            .downloaded_bytes
            .fetch_add(into.len() as u64, Ordering::Relaxed);
        self.driver.download(Queue::Compute, at, into)
    }

    /// Waits for all that was queued, as far as the device can be waited for.
    pub(crate) fn idle(&self) {
        for queue in [Queue::Copy, Queue::Compute] {
            // A driver that fails once may answer the next time; memory in use must not be given back.
            for _ in 0..IDLE_TRIES {
                match self.driver.record(queue).and_then(|event| event.wait()) {
                    Ok(()) | Err(DeviceError::Device(_)) => break,
                    Err(_) => {}
                }
            }
        }
    }
}

impl<'a> Run<'a> {
    /// With memory.
    pub(crate) fn new(task: &'a Task, programs: Vec<&'a Program>, ready: &'a [Ready], memory: Memory) -> Self {
        Self {
            task,
            reports: vec![FragmentReport::default(); programs.len()],
            programs,
            ready,
            memory,
            marks: Vec::new(),
            pins: Vec::new(),
            staging: Vec::new(),
            queued: false,
        }
    }

    fn place(&self, region: RegionRef) -> Result<u64, DeviceError> {
        let here = self.memory.places.get(&region).copied();
        here.or_else(|| self.task.held().find_map(|held| held.place(region)))
            .ok_or_else(|| DeviceError::Internal(format!("{region:?} is not in the device's memory")))
    }

    /// Copies what programs start from; `columns` by table, as [`Task::tables`].
    ///
    /// # Errors
    /// When the device is lost.
    pub(crate) fn begin(&mut self, columns: &[Resident]) -> Result<(), DeviceError> {
        self.queued = true;
        let core = &self.task.core;
        let mut content = vec![0_u64; size(self.memory.meta.bytes()) / 8];
        for (position, program) in self.programs.iter().enumerate() {
            let mut put = |start: u64, words: &[u64]| {
                let start = size(start) / 8;
                content[start..start + words.len()].copy_from_slice(words);
            };
            put(self.memory.words[position], &self.words(position, program)?);
            let table = self.task.table_index(self.task.ids[position]);
            // Those of chunks come later.
            let columns = table.and_then(|table| columns.get(table));
            if let (Some(start), Some(columns)) = (self.memory.segments[position], columns) {
                put(start, &self.segment_table(position, 0..columns.len(), columns));
            }
        }
        let mut copied = 0;
        for table in &self.memory.new_tables {
            upload(core, table.block.at(), &table.content)?;
            copied += table.content.len() as u64;
            core.columns.keep_table(table);
        }
        let bytes: Vec<u8> = content.iter().flat_map(|word| word.to_le_bytes()).collect();
        upload(core, self.memory.meta.at(), &bytes)?;
        copied += bytes.len() as u64;
        core.counters.uploaded_bytes.fetch_add(copied, Ordering::Relaxed);
        if let Some(report) = self.reports.first_mut() {
            report.uploaded_bytes += copied;
        }
        self.fill_front()?;
        self.mark()
    }

    fn mark(&mut self) -> Result<(), DeviceError> {
        self.marks.push(self.task.core.driver.record(Queue::Compute)?);
        Ok(())
    }

    /// Queues a program whose columns are there.
    ///
    /// # Errors
    /// When the device is lost.
    pub(crate) fn queue(&mut self, position: usize) -> Result<(), DeviceError> {
        self.start(position)?;
        self.launch(position, When::Chunk)?;
        self.end(position)
    }

    /// Queues what comes before the first chunk.
    ///
    /// # Errors
    /// When the device is lost.
    pub(crate) fn start(&mut self, position: usize) -> Result<(), DeviceError> {
        self.fill(position)?;
        self.launch(position, When::Before)
    }

    /// Queues what comes after the last chunk.
    ///
    /// # Errors
    /// When the device is lost.
    pub(crate) fn end(&mut self, position: usize) -> Result<(), DeviceError> {
        self.launch(position, When::After)?;
        self.task.core.counters.fragments.fetch_add(1, Ordering::Relaxed);
        self.mark()
    }

    /// Holds columns until it is done.
    pub(crate) fn pin(&mut self, columns: &Resident) {
        self.pins.extend(columns.iter().flatten().flatten().cloned());
    }

    /// Holds memory until it is done.
    pub(crate) fn hold(&mut self, staging: Vec<Arc<Block>>) {
        self.staging.extend(staging);
    }

    /// Counts what was copied for a fragment; gives the memory that must be held.
    pub(crate) fn copied(&mut self, position: usize, copied: Copied, ns: u64) -> Vec<Arc<Block>> {
        let report = &mut self.reports[position];
        report.uploaded_bytes += copied.bytes;
        report.encoded_bytes += copied.encoded;
        report.decoded_bytes += copied.decoded;
        report.copy_ns += ns;
        copied.held
    }

    /// Counts a wait for the device.
    pub(crate) fn waited(&mut self, position: usize) {
        self.task.core.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.reports[position].syncs += 1;
    }

    fn words(&self, position: usize, program: &Program) -> Result<Vec<u64>, DeviceError> {
        let meta = self.memory.meta.at();
        let resolve = |word: &Word| {
            Ok(match word {
                Word::Value(value) => *value,
                Word::Region(region, plus) => self.place(*region)? + plus,
                Word::Segments => self.memory.segments[position]
                    .map(|at| meta + at)
                    .ok_or_else(|| DeviceError::Internal("segments of resident rows".to_owned()))?,
                Word::Table(table) => self.memory.tables[position][*table].block.at(),
                Word::Block => meta + self.memory.words[position],
            })
        };
        program.words.iter().map(resolve).collect()
    }

    /// The segment table of some segments, whose columns are given by segment.
    pub(crate) fn segment_table(
        &self,
        position: usize,
        segments: std::ops::Range<usize>,
        columns: &Resident,
    ) -> Vec<u64> {
        let Some(table) = self.task.table(self.task.ids[position]) else {
            return Vec::new();
        };
        let tile_rows = self.programs[position].tile_rows.max(1);
        let mut words = vec![0_u64; TABLE_HEADER_WORDS];
        let mut tiles = 0;
        for (segment, columns) in segments.zip(columns) {
            let rows = table.input.rows(segment) as u64;
            if rows == 0 {
                continue;
            }
            words[0] += 1;
            words.extend([rows, tiles]);
            tiles += rows.div_ceil(tile_rows);
            for column in columns {
                let at = |block: &Option<Block>| block.as_ref().map_or(0, Block::at);
                words.extend(column.as_ref().map_or([0; COLUMN_WORDS], |column| {
                    let base = column.base.cast_unsigned();
                    [at(&column.values), base, at(&column.validity), at(&column.bytes)]
                }));
            }
        }
        words[1] = tiles;
        words
    }

    /// Puts another segment table in a program's place, for what is queued from now on.
    ///
    /// # Errors
    /// When the device is lost.
    pub(crate) fn replace_segments(&self, position: usize, words: &[u64]) -> Result<(), DeviceError> {
        let Some(offset) = self.memory.segments[position] else {
            return Ok(());
        };
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        upload(&self.task.core, self.memory.meta.at() + offset, &bytes)
    }

    /// Puts into the front's regions what must stand there, neighbours at once.
    fn fill_front(&self) -> Result<(), DeviceError> {
        let mut runs: Vec<(u64, u64, u64)> = Vec::new();
        for region in &self.memory.in_front {
            let position = self.task.ids.iter().position(|id| *id == region.fragment);
            let Some(memory) = position.and_then(|position| self.programs[position].regions.get(region.region)) else {
                continue;
            };
            let (at, bytes) = (self.place(*region)?, memory.bytes.next_multiple_of(16));
            let Some(word) = fill_word(memory.fill) else { continue };
            match runs.last_mut() {
                Some((start, length, with)) if *start + *length == at && *with == word => *length += bytes,
                _ => runs.push((at, bytes, word)),
            }
        }
        let driver = &self.task.core.driver;
        runs.into_iter()
            .filter(|(_, bytes, _)| *bytes > 0)
            .try_for_each(|(at, bytes, word)| driver.fill(Queue::Compute, at, bytes, word))
    }

    /// Puts into regions what must stand there at the start.
    fn fill(&self, position: usize) -> Result<(), DeviceError> {
        let fragment = self.task.ids[position];
        for (region, memory) in self.programs[position].regions.iter().enumerate() {
            let reference = RegionRef { fragment, region };
            let Some(word) = fill_word(memory.fill) else { continue };
            if self.memory.in_front.contains(&reference) || memory.bytes == 0 {
                continue;
            }
            let bytes = memory.bytes.next_multiple_of(8);
            let at = self.place(reference)?;
            self.task.core.driver.fill(Queue::Compute, at, bytes, word)?;
        }
        Ok(())
    }

    /// Queues a program's launches of one phase.
    ///
    /// # Errors
    /// When the device is lost.
    pub(crate) fn launch(&mut self, position: usize, when: When) -> Result<(), DeviceError> {
        let core = &self.task.core;
        let info = core.driver.info();
        let block = self.memory.meta.at() + self.memory.words[position];
        for launch in self.programs[position]
            .launches
            .iter()
            .filter(|launch| launch.when == when)
        {
            let groups = match launch.groups {
                Groups::One => 1,
                Groups::Rows(rows) => {
                    let most = rows.div_ceil(u64::from(info.target.group.max(1)));
                    u32::try_from(most).unwrap_or(u32::MAX).clamp(1, info.groups.max(1))
                }
            };
            let module = self.ready[position].module.id();
            core.driver
                .launch(Queue::Compute, module, launch.kernel, groups, block + launch.block * 8)?;
            self.reports[position].launches += 1;
            core.counters.launches.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Waits, and says how it went; the front's bytes come back.
    ///
    /// # Errors
    /// The query's own, when a kernel found one; when the device is lost.
    pub(crate) fn finish(&mut self) -> Result<(Verdict, Vec<u8>), DeviceError> {
        let mut front = vec![0_u8; size(self.memory.front_bytes)];
        self.task.core.download(self.memory.front.at(), &mut front)?;
        self.queued = false;
        self.read_marks();
        if let Some(report) = self.reports.last_mut() {
            report.syncs += 1;
            report.downloaded_bytes += front.len() as u64;
        }
        let mut needed = Vec::new();
        for (position, program) in self.programs.iter().enumerate() {
            let status = self.place(program.status)? - self.memory.front.at();
            let word = |index: usize| word_at(&front, size(status) + index * 8);
            let faults = word(STATUS_FAULTS);
            let found = program
                .faults
                .iter()
                .enumerate()
                .filter(|(bit, _)| faults >> bit & 1 == 1);
            let found: Vec<_> = found.map(|(_, fault)| fault).collect();
            if found.iter().any(|fault| **fault == Fault::Capacity) {
                needed.push((position, word(STATUS_NEEDED)));
                // What comes after had wrong inputs.
                break;
            }
            if let Some(Fault::Error(error)) = found.first() {
                return Err(error.clone());
            }
        }
        match needed.is_empty() {
            true => Ok((Verdict::Fine, front)),
            false => Ok((Verdict::Capacity(needed), front)),
        }
    }

    /// Fragments whose tables were larger than the device's cache, by position, from the front's bytes.
    ///
    /// # Errors
    /// When a status is not there.
    pub(crate) fn large(&self, front: &[u8]) -> Result<Vec<usize>, DeviceError> {
        let mut found = Vec::new();
        for (position, program) in self.programs.iter().enumerate() {
            let status = self.place(program.status)? - self.memory.front.at();
            if word_at(front, size(status) + STATUS_LARGE * 8) != 0 {
                found.push(position);
            }
        }
        Ok(found)
    }

    /// Times of kernels, where the device tells.
    fn read_marks(&mut self) {
        let times: Vec<_> = self.marks.iter().map(|mark| mark.time_ns()).collect();
        for (report, pair) in self.reports.iter_mut().zip(times.windows(2)) {
            if let [Some(before), Some(after)] = pair {
                report.kernel_ns += after.saturating_sub(*before);
            }
        }
    }

    /// Notes how many rows fragments read and left, from the front's bytes.
    ///
    /// # Errors
    /// When a count is not there.
    pub(crate) fn count_rows(&mut self, front: &[u8]) -> Result<(), DeviceError> {
        for (position, id) in self.task.ids.iter().enumerate() {
            let input = match (&self.task.graph.fragments[*id].source, self.task.table(*id)) {
                (_, Some(table)) => Some(table.shape.rows),
                (RowSource::Fragment(read), None) => match self.task.ids.iter().position(|id| id == read) {
                    Some(earlier) => self.reports[earlier].output_rows,
                    None => match &self.task.given[*read] {
                        Some(Given::Rows(rows)) => Some(rows.count),
                        _ => None,
                    },
                },
                _ => None,
            };
            let output = match &self.programs[position].output {
                ProgramOutput::Rows(rows) => Some(self.count(rows.count, front)?),
                ProgramOutput::Build(_) => None,
            };
            self.reports[position].input_rows = input.unwrap_or(0);
            self.reports[position].output_rows = output;
        }
        Ok(())
    }

    /// The number of rows of an output, from the front's bytes.
    ///
    /// # Errors
    /// When it is not there.
    pub(crate) fn count(&self, region: RegionRef, front: &[u8]) -> Result<u64, DeviceError> {
        let offset = self.place(region)?.checked_sub(self.memory.front.at());
        match offset {
            Some(offset) if size(offset) + 8 <= front.len() => Ok(word_at(front, size(offset))),
            _ => Err(DeviceError::Internal(format!("{region:?} is not with the status"))),
        }
    }

    /// Strings that handles of this run may mean; `columns` are all that it reads.
    pub(crate) fn texts(&self, columns: &[Resident]) -> Texts {
        let mut texts = Texts::default();
        let columns = columns.iter().flatten().flatten().flatten();
        columns.for_each(|column| texts.add_column(column));
        self.memory
            .tables
            .iter()
            .flatten()
            .for_each(|table| texts.add_table(table));
        self.task.held().for_each(|held| texts.add(&held.texts));
        texts
    }

    /// Where the rows of an output are copied from; `front` is what [`Run::finish`] gave.
    pub(crate) fn with_source<T>(&self, texts: &Texts, front: &[u8], act: impl FnOnce(Source<'_>) -> T) -> T {
        act(Source {
            core: &self.task.core,
            place: &|region| self.place(region).ok(),
            texts,
            known: (self.memory.front.at(), front),
            syncs: Cell::new(0),
            bytes: Cell::new(0),
        })
    }

    /// Memory of outputs: their regions, and nothing that is only needed while it runs.
    pub(crate) fn kept(&self, position: usize) -> (HashMap<RegionRef, u64>, Vec<Arc<Block>>) {
        let fragment = self.task.ids[position];
        let (mut places, mut blocks) = (HashMap::new(), vec![Arc::clone(&self.memory.front)]);
        for (region, memory) in self.programs[position].regions.iter().enumerate() {
            let reference = RegionRef { fragment, region };
            if memory.lifetime == Lifetime::Output {
                places.extend(self.memory.places.get(&reference).map(|at| (reference, *at)));
                blocks.extend(self.memory.blocks.get(&reference).cloned());
            }
        }
        (places, blocks)
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        // Memory is given back when the device is done with it.
        if self.queued {
            self.task.core.idle();
        }
    }
}

fn word_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Copies to the device, before what is queued for kernels from now on.
fn upload(core: &Core, at: u64, bytes: &[u8]) -> Result<(), DeviceError> {
    if bytes.is_empty() {
        return Ok(());
    }
    core.driver
        .upload(Queue::Compute, at, bytes.len() as u64, &mut |offset, slab| {
            let start = size(offset);
            slab.copy_from_slice(&bytes[start..start + slab.len()]);
            Ok(())
        })
}
