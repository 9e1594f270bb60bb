//! One run of fragments on the device: memory, uploads, launches, and one wait at the end.
//!
//! ```text
//!  front    [ status of each program │ counts of outputs │ a small result ]   one copy back tells how it went
//!  meta     [ words of each program │ segment tables ]                        one copy to the device
//!  regions  one block each
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use trireme_device_api::{DeviceError, FragmentReport};
use trireme_device_codegen::shape::{COLUMN_WORDS, RegionRef, SEGMENT_HEADER_WORDS, TABLE_HEADER_WORDS};
use trireme_device_codegen::{
    Fault, Fill, Groups, Lifetime, Program, ProgramOutput, STATUS_FAULTS, STATUS_NEEDED, Word,
};

use crate::accelerator::Core;
use crate::arena::{Block, aligned};
use crate::columns::Uploaded;
use crate::driver::Queue;
use crate::kernels::Loaded;
use crate::resident::{Source, element_bytes};
use crate::task::Task;
use crate::texts::{Table, Texts};

/// Results of up to so many bytes come with the status.
const SMALL_RESULT_BYTES: u64 = 64 << 10;

/// Columns of one table, by segment and column; none where nobody reads.
pub(crate) type Resident = Vec<Vec<Option<Arc<Uploaded>>>>;

/// How a run went.
pub(crate) enum Verdict {
    /// Well.
    Fine,
    /// Fragments (by position) need so many entries.
    Capacity(Vec<(usize, u64)>),
}

/// A run under way.
pub(crate) struct Run<'a> {
    pub(crate) task: &'a Task,
    pub(crate) programs: &'a [Program],
    pub(crate) modules: &'a [Arc<Loaded>],
    /// By table, as [`Task::tables`].
    pub(crate) columns: &'a [Resident],
    pub(crate) memory: Memory,
    pub(crate) reports: Vec<FragmentReport>,
    queued: bool,
}

/// The memory of a run.
pub(crate) struct Memory {
    pub(crate) places: HashMap<RegionRef, u64>,
    pub(crate) blocks: HashMap<RegionRef, Arc<Block>>,
    pub(crate) front: Arc<Block>,
    front_bytes: u64,
    meta: Block,
    /// In the meta block: words of each program.
    words: Vec<u64>,
    /// In the meta block: the segment table of each program that reads segments.
    segments: Vec<Option<u64>>,
    pub(crate) tables: Vec<Vec<Arc<Table>>>,
}

/// Regions that are read with the status: the status, counts, and the last rows where they are few.
fn front_regions(task: &Task, programs: &[Program], wanted: &[bool]) -> Vec<RegionRef> {
    let mut found: Vec<_> = programs.iter().map(|program| program.status).collect();
    let last = task.graph.fragments.len() - 1;
    for ((program, id), wanted) in programs.iter().zip(&task.ids).zip(wanted) {
        if let (ProgramOutput::Rows(rows), true) = (&program.output, wanted) {
            found.push(rows.count);
            let row: usize = rows
                .columns
                .iter()
                .map(|column| element_bytes(column.shape.storage) + 1)
                .sum();
            if *id == last && rows.bound.saturating_mul(row as u64) <= SMALL_RESULT_BYTES {
                found.extend(
                    rows.columns
                        .iter()
                        .flat_map(|column| column.values.into_iter().chain(column.validity)),
                );
            }
        }
    }
    let mut seen = Vec::new();
    found.retain(|region| {
        let own = task.ids.contains(&region.fragment);
        let new = own && !seen.contains(region);
        seen.push(*region);
        new
    });
    found
}

/// Words of a segment table.
fn segment_words(rows: &[usize], width: usize) -> usize {
    TABLE_HEADER_WORDS + rows.iter().filter(|rows| **rows > 0).count() * (SEGMENT_HEADER_WORDS + width * COLUMN_WORDS)
}

impl Memory {
    /// Takes all that the run needs; none if there is no room.
    ///
    /// # Errors
    /// When the driver refuses.
    pub(crate) fn allocate(task: &Task, programs: &[Program], wanted: &[bool]) -> Result<Option<Self>, DeviceError> {
        let arena = &task.core.arena;
        let bytes_of = |region: RegionRef| {
            let position = task.ids.iter().position(|id| *id == region.fragment);
            position
                .and_then(|position| programs[position].regions.get(region.region))
                .map_or(0, |region| region.bytes)
        };
        let mut front_bytes = 0;
        let mut places = HashMap::new();
        let in_front = front_regions(task, programs, wanted);
        for region in &in_front {
            places.insert(*region, front_bytes);
            front_bytes += bytes_of(*region).next_multiple_of(16);
        }
        let Some(front) = arena.allocate(front_bytes)? else {
            return Ok(None);
        };
        for place in places.values_mut() {
            *place += front.at();
        }
        let mut blocks = HashMap::new();
        for (program, id) in programs.iter().zip(&task.ids) {
            for (index, region) in program.regions.iter().enumerate() {
                let reference = RegionRef {
                    fragment: *id,
                    region: index,
                };
                if places.contains_key(&reference) {
                    continue;
                }
                let Some(block) = arena.allocate(region.bytes)? else {
                    return Ok(None);
                };
                places.insert(reference, block.at());
                blocks.insert(reference, Arc::new(block));
            }
        }
        let mut meta_bytes = 0;
        let mut words = Vec::new();
        let mut segments = Vec::new();
        let mut tables = Vec::new();
        for (program, id) in programs.iter().zip(&task.ids) {
            words.push(meta_bytes);
            meta_bytes += aligned(program.words.len() as u64 * 8);
            segments.push(task.table(*id).map(|table| {
                let at = meta_bytes;
                let rows: Vec<_> = (0..table.input.segments())
                    .map(|segment| table.input.rows(segment))
                    .collect();
                meta_bytes += aligned(segment_words(&rows, table.shape.columns.len()) as u64 * 8);
                at
            }));
            let mut own = Vec::new();
            for content in &program.tables {
                let Some(block) = arena.allocate(content.len() as u64)? else {
                    return Ok(None);
                };
                own.push(Arc::new(Table {
                    block,
                    content: Arc::clone(content),
                }));
            }
            tables.push(own);
        }
        let Some(meta) = arena.allocate(meta_bytes)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            places,
            blocks,
            front: Arc::new(front),
            front_bytes,
            meta,
            words,
            segments,
            tables,
        }))
    }
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
}

impl<'a> Run<'a> {
    /// With memory, and columns that are there.
    pub(crate) fn new(
        task: &'a Task,
        programs: &'a [Program],
        modules: &'a [Arc<Loaded>],
        columns: &'a [Resident],
        memory: Memory,
    ) -> Self {
        Self {
            task,
            programs,
            modules,
            columns,
            memory,
            reports: vec![FragmentReport::default(); programs.len()],
            queued: false,
        }
    }

    fn place(&self, region: RegionRef) -> Result<u64, DeviceError> {
        let here = self.memory.places.get(&region).copied();
        here.or_else(|| self.task.held().find_map(|held| held.place(region)))
            .ok_or_else(|| DeviceError::Internal(format!("{region:?} is not in the device's memory")))
    }

    /// Queues everything.
    ///
    /// # Errors
    /// When the device is lost.
    pub(crate) fn start(&mut self) -> Result<(), DeviceError> {
        self.queued = true;
        self.upload_meta()?;
        for position in 0..self.programs.len() {
            self.fill(position)?;
            self.launch(position)?;
        }
        Ok(())
    }

    fn upload_meta(&mut self) -> Result<(), DeviceError> {
        let driver = &self.task.core.driver;
        let at = self.memory.meta.at();
        let mut content = vec![0_u64; self.memory.meta.bytes() as usize / 8];
        for (position, program) in self.programs.iter().enumerate() {
            let mut put = |start: u64, words: &[u64]| {
                let start = start as usize / 8;
                content[start..start + words.len()].copy_from_slice(words);
            };
            put(self.memory.words[position], &self.words(position, program)?);
            if let Some(start) = self.memory.segments[position] {
                put(start, &self.segment_table(position, program)?);
            }
            for table in &self.memory.tables[position] {
                let (content, bytes) = (&table.content, table.content.len() as u64);
                if bytes > 0 {
                    driver.upload(Queue::Compute, table.block.at(), bytes, &mut |offset, slab| {
                        let start = offset as usize;
                        slab.copy_from_slice(&content[start..start + slab.len()]);
                        Ok(())
                    })?;
                }
                self.reports[position].uploaded_bytes += bytes;
            }
        }
        let bytes: Vec<u8> = content.iter().flat_map(|word| word.to_le_bytes()).collect();
        driver.upload(Queue::Compute, at, bytes.len() as u64, &mut |offset, slab| {
            let start = offset as usize;
            slab.copy_from_slice(&bytes[start..start + slab.len()]);
            Ok(())
        })
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
            })
        };
        program.words.iter().map(resolve).collect()
    }

    fn segment_table(&self, position: usize, program: &Program) -> Result<Vec<u64>, DeviceError> {
        let id = self.task.ids[position];
        let (Some(table), Some(columns)) = (self.task.table(id), self.task.table_index(id)) else {
            return Ok(Vec::new());
        };
        let columns = &self.columns[columns];
        let mut words = vec![0_u64; TABLE_HEADER_WORDS];
        let mut tiles = 0;
        for segment in 0..table.input.segments() {
            let rows = table.input.rows(segment) as u64;
            if rows == 0 {
                continue;
            }
            words[0] += 1;
            words.extend([rows, tiles]);
            tiles += rows.div_ceil(program.tile_rows.max(1));
            for column in &columns[segment] {
                let at = |block: &Option<Block>| block.as_ref().map_or(0, Block::at);
                match column {
                    Some(column) => words.extend([
                        at(&column.values),
                        column.base as u64,
                        at(&column.validity),
                        at(&column.bytes),
                    ]),
                    None => words.extend([0; COLUMN_WORDS]),
                }
            }
        }
        words[1] = tiles;
        Ok(words)
    }

    /// Puts into regions what must stand there at the start.
    fn fill(&mut self, position: usize) -> Result<(), DeviceError> {
        let fragment = self.task.ids[position];
        for (region, memory) in self.programs[position].regions.iter().enumerate() {
            let word = match memory.fill {
                Fill::Nothing => continue,
                Fill::Byte(byte) => u64::from_le_bytes([byte; 8]),
                Fill::Word(word) => word,
            };
            let at = self.place(RegionRef { fragment, region })?;
            let bytes = memory.bytes.next_multiple_of(8);
            if bytes > 0 {
                self.task.core.driver.fill(Queue::Compute, at, bytes, word)?;
            }
        }
        Ok(())
    }

    fn launch(&mut self, position: usize) -> Result<(), DeviceError> {
        let core = &self.task.core;
        let program = &self.programs[position];
        let info = core.driver.info();
        let block = self.memory.meta.at() + self.memory.words[position];
        for launch in &program.launches {
            let groups = match launch.groups {
                Groups::One => 1,
                Groups::Rows(rows) => {
                    let most = rows.div_ceil(u64::from(info.target.group.max(1)));
                    u32::try_from(most).unwrap_or(u32::MAX).clamp(1, info.groups.max(1))
                }
            };
            let module = self.modules[position].id();
            core.driver
                .launch(Queue::Compute, module, launch.kernel, groups, block)?;
            self.reports[position].launches += 1;
            core.counters.launches.fetch_add(1, Ordering::Relaxed);
        }
        core.counters.fragments.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Waits, and says how it went; the front's bytes come back.
    ///
    /// # Errors
    /// The query's own, when a kernel found one; when the device is lost.
    pub(crate) fn finish(&mut self) -> Result<(Verdict, Vec<u8>), DeviceError> {
        let mut front = vec![0_u8; self.memory.front_bytes as usize];
        self.task.core.download(self.memory.front.at(), &mut front)?;
        self.queued = false;
        if let Some(report) = self.reports.last_mut() {
            report.syncs += 1;
            report.downloaded_bytes += front.len() as u64;
        }
        let mut needed = Vec::new();
        for (position, program) in self.programs.iter().enumerate() {
            let status = self.place(program.status)? - self.memory.front.at();
            let word = |index: usize| word_at(&front, status as usize + index * 8);
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

    /// The number of rows of an output, from the front's bytes.
    pub(crate) fn count(&self, region: RegionRef, front: &[u8]) -> Result<u64, DeviceError> {
        let at = self.place(region)?;
        match at.checked_sub(self.memory.front.at()) {
            Some(offset) if offset + 8 <= front.len() as u64 => Ok(word_at(front, offset as usize)),
            _ => {
                let mut word = [0; 8];
                self.task.core.download(at, &mut word)?;
                Ok(u64::from_le_bytes(word))
            }
        }
    }

    /// Strings that handles of this run may mean.
    pub(crate) fn texts(&self) -> Texts {
        let mut texts = Texts::default();
        self.columns
            .iter()
            .flatten()
            .flatten()
            .flatten()
            .for_each(|column| texts.add_column(column));
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
        if self.queued
            && let Ok(event) = self.task.core.driver.record(Queue::Compute)
        {
            let _ = event.wait();
        }
    }
}

fn word_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
