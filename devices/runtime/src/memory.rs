//! The memory of a run, taken at once or not at all.
//!
//! ```text
//!  front    [ status of each program │ counts of rows │ a small result ][ small regions that are filled ]
//!             one copy back tells how it went                             a few fills set them all
//!  meta     [ words of each program │ segment tables ]                      one copy to the device
//!  regions  a block each; where they are large, those that are needed at different times share memory
//!  tables   constants, kept in the device's tier of columns
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use trireme_device_api::DeviceError;
use trireme_device_codegen::shape::{COLUMN_WORDS, RegionRef, SEGMENT_HEADER_WORDS, TABLE_HEADER_WORDS};
use trireme_device_codegen::{Fill, Lifetime, Program, ProgramOutput, Word};

use crate::arena::{Block, aligned};
use crate::resident::element_bytes;
use crate::task::Task;
use crate::texts;

/// Results of up to so many bytes come with the status.
const SMALL_RESULT_BYTES: u64 = 64 << 10;

/// Filled regions of up to so many bytes lie in the front.
const SMALL_REGION_BYTES: u64 = 4 << 10;

/// Programs share memory when it would take this part of the arena otherwise.
const SHARED_FROM: u64 = 8;

/// The memory of a run.
pub(crate) struct Memory {
    /// Where regions lie.
    pub(crate) places: HashMap<RegionRef, u64>,
    /// Regions with a block of their own.
    pub(crate) blocks: HashMap<RegionRef, Arc<Block>>,
    pub(crate) front: Arc<Block>,
    /// Regions of the front, in order, and the bytes of those that are copied back.
    pub(crate) in_front: Vec<RegionRef>,
    pub(crate) front_bytes: u64,
    pub(crate) meta: Block,
    /// In the meta block: words of each program.
    pub(crate) words: Vec<u64>,
    /// In the meta block: the segment table of each program that reads segments.
    pub(crate) segments: Vec<Option<u64>>,
    /// Constants of each program, and which of them must be copied.
    pub(crate) tables: Vec<Vec<Arc<texts::Table>>>,
    pub(crate) new_tables: Vec<Arc<texts::Table>>,
    /// What programs share.
    _scratch: Option<Block>,
}

/// A place in the memory that programs share.
struct Live {
    start: u64,
    end: u64,
    last: usize,
}

/// The first place for so many bytes between regions, which are in order.
fn gap(live: &[Live], bytes: u64) -> u64 {
    let mut start = 0;
    for other in live {
        if other.start.saturating_sub(start) >= bytes {
            break;
        }
        start = start.max(other.end);
    }
    start
}

/// The programs of a run and what they are lowered from.
struct Layout<'a> {
    task: &'a Task,
    programs: &'a [&'a Program],
    places: HashMap<RegionRef, u64>,
    blocks: HashMap<RegionRef, Arc<Block>>,
}

impl Memory {
    /// Takes all that the run needs; none if there is no room.
    ///
    /// # Errors
    /// When the driver refuses.
    pub(crate) fn allocate(task: &Task, programs: &[&Program]) -> Result<Option<Self>, DeviceError> {
        let mut layout = Layout {
            task,
            programs,
            places: HashMap::new(),
            blocks: HashMap::new(),
        };
        let Some((front, in_front, front_bytes)) = layout.front()? else {
            return Ok(None);
        };
        let Some(scratch) = layout.shared()? else {
            return Ok(None);
        };
        if !layout.regions()? {
            return Ok(None);
        }
        let Some((tables, new_tables)) = layout.tables()? else {
            return Ok(None);
        };
        let (mut meta_bytes, mut words, mut segments) = (0, Vec::new(), Vec::new());
        for (program, id) in programs.iter().zip(&task.ids) {
            words.push(meta_bytes);
            meta_bytes += aligned(program.words.len() as u64 * 8);
            segments.push(task.table(*id).map(|table| {
                let at = meta_bytes;
                let filled = (0..table.input.segments()).filter(|segment| table.input.rows(*segment) > 0);
                let words = segment_words(filled.count(), table.shape.columns.len());
                meta_bytes += aligned(words as u64 * 8);
                at
            }));
        }
        let Some(meta) = task.core.room(meta_bytes)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            places: layout.places,
            blocks: layout.blocks,
            front: Arc::new(front),
            in_front,
            front_bytes,
            meta,
            words,
            segments,
            tables,
            new_tables,
            _scratch: scratch,
        }))
    }
}

/// Words of a segment table.
fn segment_words(segments: usize, width: usize) -> usize {
    TABLE_HEADER_WORDS + segments * (SEGMENT_HEADER_WORDS + width * COLUMN_WORDS)
}

type Tables = (Vec<Vec<Arc<texts::Table>>>, Vec<Arc<texts::Table>>);

impl Layout<'_> {
    fn bytes(&self, region: RegionRef) -> u64 {
        let position = self.task.ids.iter().position(|id| *id == region.fragment);
        let region = position.and_then(|position| self.programs[position].regions.get(region.region));
        region.map_or(0, |region| region.bytes)
    }

    /// All regions of the programs that have no place yet.
    fn left(&self) -> Vec<RegionRef> {
        let mut found = Vec::new();
        for (program, id) in self.programs.iter().zip(&self.task.ids) {
            for index in 0..program.regions.len() {
                let reference = RegionRef {
                    fragment: *id,
                    region: index,
                };
                if !self.places.contains_key(&reference) {
                    found.push(reference);
                }
            }
        }
        found
    }

    fn front(&mut self) -> Result<Option<(Block, Vec<RegionRef>, u64)>, DeviceError> {
        let mut in_front = front_regions(self.task, self.programs);
        let (copied, mut end, mut copied_bytes) = (in_front.len(), 0, 0);
        let small = self.small_regions(&in_front);
        in_front.extend(small);
        for (number, region) in in_front.iter().enumerate() {
            self.places.insert(*region, end);
            end += self.bytes(*region).next_multiple_of(16);
            if number < copied {
                copied_bytes = end;
            }
        }
        let front = self.task.core.room(end)?;
        for place in self.places.values_mut() {
            *place += front.as_ref().map_or(0, Block::at);
        }
        Ok(front.map(|front| (front, in_front, copied_bytes)))
    }

    /// Small regions that are filled, those with the same fill together.
    fn small_regions(&self, in_front: &[RegionRef]) -> Vec<RegionRef> {
        let mut found = Vec::new();
        for (program, id) in self.programs.iter().zip(&self.task.ids) {
            for (index, region) in program.regions.iter().enumerate() {
                let reference = RegionRef {
                    fragment: *id,
                    region: index,
                };
                let fill = fill_word(region.fill);
                if let (Some(word), true) = (fill, region.bytes <= SMALL_REGION_BYTES)
                    && !in_front.contains(&reference)
                {
                    found.push((word, reference));
                }
            }
        }
        found.sort_by_key(|(word, _)| *word);
        found.into_iter().map(|(_, reference)| reference).collect()
    }

    /// Memory that programs share, if they do; none if there is no room.
    fn shared(&mut self) -> Result<Option<Option<Block>>, DeviceError> {
        let regions = self.shareable();
        let sizes: Vec<_> = regions
            .iter()
            .map(|(region, ..)| aligned(self.bytes(*region)))
            .collect();
        let (mut live, mut offsets, mut most): (Vec<Live>, Vec<u64>, u64) = (Vec::new(), Vec::new(), 0);
        for ((_, first, last), bytes) in regions.iter().zip(&sizes) {
            live.retain(|other| other.last >= *first);
            let start = gap(&live, *bytes);
            let at = live.partition_point(|other| other.start < start);
            live.insert(
                at,
                Live {
                    start,
                    end: start + bytes,
                    last: *last,
                },
            );
            offsets.push(start);
            most = most.max(start + bytes);
        }
        let core = &self.task.core;
        let all: u64 = sizes.iter().sum();
        let is_large = core.limits.chunk_bytes.is_some() || all >= core.arena.bytes() / SHARED_FROM;
        if all == most || !is_large {
            return Ok(Some(None));
        }
        let Some(block) = core.room(most)? else {
            return Ok(None);
        };
        for ((region, ..), offset) in regions.iter().zip(offsets) {
            self.places.insert(*region, block.at() + offset);
        }
        Ok(Some(Some(block)))
    }

    /// Regions that nobody outside of the run reads, with the first and last program that do; in order of the first.
    fn shareable(&self) -> Vec<(RegionRef, usize, usize)> {
        let wanted = self.task.wanted();
        let mut found = Vec::new();
        for region in self.left() {
            let Some(first) = self.task.ids.iter().position(|id| *id == region.fragment) else {
                continue;
            };
            if wanted[first] && self.programs[first].regions[region.region].lifetime == Lifetime::Output {
                continue;
            }
            let reads = |program: &Program| {
                let mut words = program.words.iter();
                words.any(|word| matches!(word, Word::Region(read, _) if *read == region))
            };
            let last = self
                .programs
                .iter()
                .rposition(|program| reads(program))
                .unwrap_or(first);
            found.push((region, first, last.max(first)));
        }
        found
    }

    /// False: there is no room.
    fn regions(&mut self) -> Result<bool, DeviceError> {
        for region in self.left() {
            let Some(block) = self.task.core.room(self.bytes(region))? else {
                return Ok(false);
            };
            self.places.insert(region, block.at());
            self.blocks.insert(region, Arc::new(block));
        }
        Ok(true)
    }

    fn tables(&self) -> Result<Option<Tables>, DeviceError> {
        let core = &self.task.core;
        let (mut all, mut new): Tables = (Vec::new(), Vec::new());
        for program in self.programs {
            let mut own = Vec::new();
            for content in &program.tables {
                let here = new.iter().find(|table| *table.content == **content).cloned();
                if let Some(table) = here.or_else(|| core.columns.table(content)) {
                    own.push(table);
                    continue;
                }
                let Some(block) = core.room(content.len() as u64)? else {
                    return Ok(None);
                };
                let table = Arc::new(texts::Table {
                    block,
                    content: Arc::clone(content),
                });
                new.push(Arc::clone(&table));
                own.push(table);
            }
            all.push(own);
        }
        Ok(Some((all, new)))
    }
}

/// Regions that are read with the status: the status, counts, and the last rows where they are few.
fn front_regions(task: &Task, programs: &[&Program]) -> Vec<RegionRef> {
    let mut found: Vec<_> = programs.iter().map(|program| program.status).collect();
    let last = task.graph.fragments.len() - 1;
    for (program, id) in programs.iter().zip(&task.ids) {
        if let ProgramOutput::Rows(rows) = &program.output {
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
        let new = task.ids.contains(&region.fragment) && !seen.contains(region);
        seen.push(*region);
        new
    });
    found
}

/// The word that fills a region; none when anything may stand there.
pub(crate) fn fill_word(fill: Fill) -> Option<u64> {
    match fill {
        Fill::Nothing => None,
        Fill::Byte(byte) => Some(u64::from_le_bytes([byte; 8])),
        Fill::Word(word) => Some(word),
    }
}
