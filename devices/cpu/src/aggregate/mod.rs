//! The aggregate sink: groups of rows and their aggregates, tile by tile.
//!
//! ```text
//!  tile ─keys──▶ slots or hashes ─(runs)─▶ ids ──▶ one loop per primitive over arrays of states
//!
//!  Single, Tiny      SIMD passes over the tile, no ids                                  a table per worker
//!  Direct            slot = mixed-radix number of the codes, ≤ 64 Ki slots              a table per worker
//!  DirectShared      the same, ≤ 16 Mi slots, in pages of ≤ 64 Ki                       one table for all, a lock per page
//!                    while keys ascend: no slots, the next run is the next group   a list per worker
//!  Packed64/128      keys of bits, hashed                        ≤ 128 Ki groups: a table per worker; above: one for all,
//!  Bytes             keys of bytes, hashed                       in partitions by hash with a lock each
//! ```
//!
//! The rung follows from what is known of the keys before the first row; a worker leaves its own table for the shared
//! partitions when it has met many groups. So memory doesn't multiply with workers where it is large, what is hot stays in
//! the worker's cache where it is small, and merging is either little or nothing.
//!
//! This module evaluates no expression: it takes vectors of keys and arguments.

#[cfg(test)]
mod bench;
mod buffer;
mod clustered;
mod column;
mod distinct;
mod few;
mod hash;
mod input;
mod keys;
#[cfg(target_arch = "x86_64")]
mod masked;
mod ordered;
mod output;
mod primitive;
mod runs;
mod shared;
mod small;
mod state;
mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_large;
#[cfg(test)]
mod tests_model;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use trireme_device_api::{Aggregate, DeviceError, DevicePool, Rows, Type};

use crate::aggregate::buffer::Buffers;
use crate::aggregate::clustered::{Ascending, Ordered as InOrder};
use crate::aggregate::few::Few;
use crate::aggregate::hash::Keys;
use crate::aggregate::input::{Input, Pick, input};
use crate::aggregate::keys::{DIRECT_SLOTS, KeyPlan, Rung};
use crate::aggregate::primitive::{Operation, Recipe, supported};
use crate::aggregate::shared::Parted;
use crate::aggregate::table::Table;
use crate::isa::{Isa, primitive};
use crate::vector::{Shape, Vector};

pub(crate) use ordered::Ordered;
pub(crate) use output::Segment;

/// Bits of a slot within its page of the shared direct table: up to 1,024 pages, but no very small ones. The rows that wait for
/// a page should be more than the cache lines of its states.
fn page_bits(slots: usize) -> u32 {
    (usize::BITS - slots.leading_zeros()).saturating_sub(10).clamp(12, 16)
}

/// Groups of a worker's own hash table; more go to the shared partitions.
const LOCAL_GROUPS: usize = 1 << 17;
/// Bits of the hash that choose a partition.
const PARTITION_BITS: std::ops::RangeInclusive<u32> = 4..=9;

/// An aggregate sink, made ready: shared by all workers.
pub(crate) struct AggregatePlan {
    keys: KeyPlan,
    recipe: Recipe,
    isa: Isa,
    workers: usize,
    pool: Arc<dyn DevicePool>,
    /// Pages of slots or partitions of keys, made when first needed.
    parts: Vec<Mutex<Option<Table>>>,
    /// How far a slot, or a hash, is shifted to give its part.
    part_shift: u32,
    /// Workers without a table of their own go to the partitions.
    shared: AtomicBool,
    /// Keys may turn out to come in ascending order.
    may_ascend: bool,
    /// It doesn't.
    disorder: AtomicBool,
    /// Entries wait in buffers by part, since a word for each primitive says all.
    buffered: bool,
    /// Keys that waited in buffers, and those of them that became groups.
    applied: AtomicUsize,
    made: AtomicUsize,
    /// COUNT(DISTINCT x) without groups: x is the key, and the result is how many groups there are.
    counts_values: bool,
    /// [`LOCAL_GROUPS`], unless a test wants less.
    local_groups: usize,
}

/// What one worker accumulates.
pub(crate) struct Local {
    table: Option<Table>,
    ascending: Option<Ascending>,
    buffers: Option<Buffers>,
    few: Option<Few>,
    scratch: Scratch,
}

/// Kept between tiles to save allocations.
struct Scratch {
    bytes: Vec<u8>,
    slots: Vec<u32>,
    keys: Keys,
    hashes: Vec<u64>,
    ids: Vec<u32>,
}

/// Locals on their way into the result.
pub(crate) struct Merge {
    tables: Vec<(Parted, Table)>,
    /// All groups, where their keys came in order; a task for each range.
    in_order: Option<InOrder>,
    buffers: Vec<Buffers>,
    /// One task folds everything into one table.
    whole: bool,
    segments: Vec<Mutex<Vec<Segment>>>,
    /// Distinct values so far, where these are counted.
    values: AtomicUsize,
}

impl Merge {
    /// How many calls of [`AggregatePlan::merge`] there are to make, in any order and at once.
    pub(crate) fn tasks(&self) -> usize {
        self.segments.len()
    }

    /// Makes each segment of a task's result anew.
    ///
    /// # Errors
    /// Of `rewrite`.
    pub(crate) fn rewrite(
        &self,
        task: usize,
        rewrite: impl Fn(Segment) -> Result<Segment, DeviceError>,
    ) -> Result<(), DeviceError> {
        let mut segments = self.segments[task].lock();
        let before = std::mem::take(&mut *segments);
        *segments = before.into_iter().map(rewrite).collect::<Result<_, _>>()?;
        Ok(())
    }
}

impl AggregatePlan {
    /// Whether this module can compute `aggregates` by `groups`.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn support(groups: &[Type], aggregates: &[Aggregate]) -> Result<(), String> {
        if let Some(group) = groups.iter().find(|group| matches!(group, Type::Interval(_))) {
            return Err(format!("grouping by {group:?} is not fused"));
        }
        aggregates.iter().try_for_each(supported)
    }

    /// Over keys of shapes `groups` and arguments of the shapes given. About `rows_hint` rows are expected. `parted`: the result is
    /// made in several tasks, where there are slots enough.
    ///
    /// # Errors
    /// Unsupported; or memory is short.
    pub(crate) fn new(
        groups: &[Shape],
        aggregates: &[(Aggregate, Option<Shape>)],
        workers: usize,
        isa: Isa,
        pool: &Arc<dyn DevicePool>,
        rows_hint: usize,
        parted: bool,
    ) -> Result<Self, DeviceError> {
        let force = parted && KeyPlan::new(groups, rows_hint, None).rung == Rung::Direct;
        let force = force.then_some(Rung::DirectShared);
        Self::with_rung(groups, aggregates, workers, isa, pool, rows_hint, force)
    }

    fn with_rung(
        groups: &[Shape],
        aggregates: &[(Aggregate, Option<Shape>)],
        workers: usize,
        isa: Isa,
        pool: &Arc<dyn DevicePool>,
        rows_hint: usize,
        force: Option<Rung>,
    ) -> Result<Self, DeviceError> {
        let mut recipe = Recipe::new(aggregates, !groups.is_empty()).map_err(DeviceError::Unsupported)?;
        let counted = aggregates.first().and_then(|(_, shape)| shape.as_ref());
        let counted = counted.filter(|_| groups.is_empty() && recipe.counts_values());
        let keys = KeyPlan::new(counted.map_or(groups, std::slice::from_ref), rows_hint, force);
        let counts_values = counted.is_some();
        if counts_values {
            recipe.primitives.clear();
        }
        let workers = workers.max(1);
        let buffered = recipe.primitives.iter().all(buffer::fits);
        let bits = if buffered {
            *PARTITION_BITS.end()
        } else {
            (workers.next_power_of_two().trailing_zeros() + 2).clamp(*PARTITION_BITS.start(), *PARTITION_BITS.end())
        };
        let may_ascend = !counts_values && Self::may_ascend(keys.rung, &recipe.primitives);
        let (parts, part_shift) = match keys.rung {
            Rung::Single | Rung::Tiny | Rung::Direct => (1, u32::BITS - 1),
            Rung::DirectShared => (keys.slots.div_ceil(1 << page_bits(keys.slots)), page_bits(keys.slots)),
            Rung::Packed64 | Rung::Packed128 | Rung::Bytes => (1 << bits, u64::BITS - bits),
        };
        Ok(Self {
            keys,
            recipe,
            isa,
            workers,
            pool: Arc::clone(pool),
            parts: (0..parts).map(|_| Mutex::new(None)).collect(),
            part_shift,
            shared: AtomicBool::new(false),
            may_ascend,
            disorder: AtomicBool::new(false),
            buffered,
            applied: AtomicUsize::new(0),
            made: AtomicUsize::new(0),
            counts_values,
            local_groups: LOCAL_GROUPS,
        })
    }

    /// With fewer partitions, which fill sooner.
    #[cfg(test)]
    pub(crate) fn with_two_partitions(mut self) -> Self {
        self.parts.truncate(2);
        self.part_shift = u64::BITS - 1;
        self
    }

    /// Whether `update` reads the argument of aggregate `index`; an equal expression's argument is read once.
    pub(crate) fn reads_argument(&self, index: usize) -> bool {
        let reads = |primitive: &primitive::Primitive| {
            let value = !matches!(primitive.operation, Operation::Rows);
            value && primitive.argument == index
        };
        self.counts_values && index == 0 || self.recipe.primitives.iter().any(reads)
    }

    /// Whether `update` reads the FILTER of aggregate `index`.
    pub(crate) fn reads_filter(&self, index: usize) -> bool {
        self.recipe
            .primitives
            .iter()
            .any(|primitive| primitive.filter == Some(index))
    }

    /// The rung, for measurements.
    #[cfg(test)]
    pub(crate) fn rung(&self) -> &'static str {
        match self.keys.rung {
            Rung::Single => "single",
            Rung::Tiny => "tiny",
            Rung::Direct => "direct",
            Rung::DirectShared => "direct shared",
            Rung::Packed64 => "hash of 64 bits",
            Rung::Packed128 => "hash of 128 bits",
            Rung::Bytes => "hash of bytes",
        }
    }

    /// A worker's state before its first row.
    pub(crate) fn local(&self) -> Local {
        Local {
            table: None,
            ascending: None,
            buffers: None,
            few: None,
            scratch: Scratch {
                bytes: Vec::new(),
                slots: Vec::new(),
                keys: self.keys.empty_keys(),
                hashes: Vec::new(),
                ids: Vec::new(),
            },
        }
    }

    /// Folds a tile of `rows` rows in. Rows whose `mask` is 0 don't count; a `filters` entry of 0 leaves a row out of one
    /// aggregate. What `reads_argument` and `reads_filter` deny may be none.
    ///
    /// # Errors
    /// Memory is short, or a key is outside its shape's range.
    pub(crate) fn update(
        &self,
        local: &mut Local,
        groups: &[Vector],
        arguments: &[Option<Vector>],
        filters: &[Option<Vec<u8>>],
        mask: Option<&[u8]>,
        rows: usize,
    ) -> Result<(), DeviceError> {
        let inputs = || {
            let primitives = self.recipe.primitives.iter();
            let inputs = primitives.map(|primitive| input(primitive, arguments, filters, rows));
            inputs.collect::<Vec<_>>()
        };
        if rows == 0 {
            return Ok(());
        }
        let groups = match arguments.first() {
            Some(Some(values)) if self.counts_values => std::slice::from_ref(values),
            _ => groups,
        };
        if matches!(self.keys.rung, Rung::Single | Rung::Tiny) {
            return self.update_small(local, groups, &inputs(), mask, rows);
        }
        if self.update_few(local, groups, &inputs, mask, rows)? {
            return Ok(());
        }
        let selected = mask.and_then(selection);
        let selected = selected.as_deref();
        if selected.is_some_and(<[u32]>::is_empty) {
            return Ok(());
        }
        let counted = selected.map_or(rows, <[u32]>::len);
        let ascends = self.ascends();
        let starts = self.runs(local, groups, selected, rows, ascends);
        let inputs = inputs();
        let Some(starts) = starts else {
            if ascends {
                self.disorder.store(true, Ordering::Relaxed);
            }
            return self.update_entries(local, &inputs, selected, counted);
        };
        let heads = &starts[..starts.len() - 1];
        let Scratch { slots, keys, .. } = &mut local.scratch;
        if self.keys.direct() {
            *slots = heads.iter().map(|&row| slots[row as usize]).collect();
        } else {
            *keys = keys.clone_at(heads);
        }
        let primitives = self.recipe.primitives.iter().zip(&inputs);
        let reduced: Vec<Input> = primitives
            .map(|(primitive, input)| runs::reduce(primitive, input, selected, &starts))
            .collect();
        if ascends && self.append(local, &reduced, counted)? {
            return Ok(());
        }
        self.update_entries(local, &reduced, None, counted)
    }

    /// Puts the keys of rows into the scratch; where runs of them start, if that is worth it.
    fn runs(
        &self,
        local: &mut Local,
        groups: &[Vector],
        selected: Option<&[u32]>,
        rows: usize,
        ascends: bool,
    ) -> Option<Vec<u32>> {
        let any = ascends && local.ascending.is_some();
        let counted = selected.map_or(rows, <[u32]>::len);
        let summable = runs::summable(&self.recipe.primitives, counted, any);
        let Scratch { slots, keys, .. } = &mut local.scratch;
        if self.keys.direct() {
            self.keys.slots_of(self.isa, groups, rows, slots);
            if let Some(selected) = selected {
                *slots = selected.iter().map(|&row| slots[row as usize]).collect();
            }
            return summable.then(|| runs::starts(self.isa, slots, any)).flatten();
        }
        self.keys.keys_of(self.isa, groups, rows, keys);
        if let Some(selected) = selected {
            *keys = keys.clone_at(selected);
        }
        match keys {
            Keys::U64(keys) if summable => runs::starts(self.isa, keys, false),
            Keys::U128(keys) if summable => runs::starts(self.isa, keys, false),
            _ => None,
        }
    }

    /// Keys are in the scratch, one per entry; entry `i` stands for row `rows[i]`, or row `i`, of the inputs.
    fn update_entries(
        &self,
        local: &mut Local,
        inputs: &[Input],
        rows: Option<&[u32]>,
        counted: usize,
    ) -> Result<(), DeviceError> {
        if self.keys.direct() {
            let (_, largest) = spread(self.isa, &local.scratch.slots);
            if largest as usize >= self.keys.slots {
                return Err(DeviceError::Internal("a group key is outside its range".into()));
            }
        }
        match self.keys.rung {
            Rung::Single | Rung::Tiny | Rung::Direct => {
                let table = self.own_table(&mut local.table)?;
                table.make_room(counted, 0)?;
                table.update(Pick::new(&local.scratch.slots, rows), inputs, counted);
                Ok(())
            }
            Rung::DirectShared => self.update_pages(local, inputs, rows, counted),
            Rung::Packed64 | Rung::Packed128 | Rung::Bytes => self.update_hashed(local, inputs, rows, counted),
        }
    }

    fn own_table<'a>(&self, table: &'a mut Option<Table>) -> Result<&'a mut Table, DeviceError> {
        let made = match table.take() {
            Some(table) => table,
            None if self.keys.direct() => Table::direct(self.keys.slots, &self.recipe.primitives, &self.pool)?,
            None => Table::hashed(&self.keys.empty_keys(), &self.recipe.primitives, &self.pool)?,
        };
        Ok(table.insert(made))
    }

    /// Begins to merge, when no update runs any more.
    pub(crate) fn start_merge(&self, locals: Vec<Local>) -> Merge {
        let shared =
            self.parts.iter().any(|part| part.lock().is_some()) || locals.iter().any(|local| local.buffers.is_some());
        let mut tables = Vec::new();
        let mut buffers = Vec::new();
        let mut ascending = Vec::new();
        for local in locals {
            tables.extend(local.table);
            buffers.extend(local.buffers);
            ascending.extend(local.ascending);
        }
        if !ascending.is_empty() {
            match self.in_order(ascending) {
                Ok(in_order) => {
                    return Merge {
                        tables: Vec::new(),
                        buffers: Vec::new(),
                        whole: false,
                        segments: in_order.ranges.iter().map(|_| Mutex::new(Vec::new())).collect(),
                        in_order: Some(in_order),
                        values: AtomicUsize::new(0),
                    };
                }
                Err(others) => tables.extend(others),
            }
        }
        let groups: usize = tables.iter().map(Table::groups).sum();
        let whole = match self.keys.rung {
            Rung::DirectShared => false,
            Rung::Single | Rung::Tiny | Rung::Direct => true,
            _ => !shared && (tables.len() <= 1 || groups <= DIRECT_SLOTS),
        };
        let tasks = if whole { 1 } else { self.parts.len() };
        if whole && tables.len() > 1 {
            // The others are folded into the largest, where it stands.
            tables.sort_by_key(|table| table.groups() + table.distinct_values());
            *self.parts[0].lock() = tables.pop();
        }
        let tables = tables
            .into_iter()
            .map(|table| (self.shares(&table, whole), table))
            .collect();
        Merge {
            tables,
            in_order: None,
            buffers,
            whole,
            segments: (0..tasks).map(|_| Mutex::new(Vec::new())).collect(),
            values: AtomicUsize::new(0),
        }
    }

    /// Merges one part and makes its rows.
    ///
    /// # Errors
    /// Memory is short, or a result is outside its type.
    pub(crate) fn merge(&self, merge: &Merge, task: usize) -> Result<(), DeviceError> {
        if let Some(in_order) = &merge.in_order {
            let (table, range) = &in_order.ranges[task];
            let groups: Vec<u32> = (range.start as u32..range.end as u32).collect();
            let segment = output::segment(&self.keys, &self.recipe, &in_order.tables[*table], 0, &groups)?;
            merge.segments[task].lock().push(segment);
            return Ok(());
        }
        let alone = merge.whole && self.parts[0].lock().is_none();
        if let ([(_, only)], true) = (&merge.tables[..], alone) {
            return self.finish_part(merge, task, only, 0);
        }
        for (shares, table) in &merge.tables {
            self.fold(table, shares, task)?;
        }
        self.expect(task, &merge.buffers)?;
        for buffers in &merge.buffers {
            self.apply(task, buffers)?;
        }
        if self.keys.columns.is_empty() {
            self.in_part(0, |_| Ok(()))?;
        }
        let held = self.parts[task].lock().take();
        if let Some(table) = held {
            let base = if self.keys.direct() { task << self.part_shift } else { 0 };
            self.finish_part(merge, task, &table, base)?;
        }
        Ok(())
    }

    fn finish_part(&self, merge: &Merge, task: usize, table: &Table, base: usize) -> Result<(), DeviceError> {
        if self.counts_values {
            let values = output::values(&self.keys, table, base);
            merge.values.fetch_add(values, Ordering::Relaxed);
        } else {
            *merge.segments[task].lock() = output::segments(&self.keys, &self.recipe, table, base)?;
        }
        Ok(())
    }

    /// The result, after all tasks: group columns, then aggregates. Without groups one row, else only groups that have rows.
    pub(crate) fn output(&self, merge: Merge) -> Rows {
        if self.counts_values {
            return output::count(&self.recipe, merge.values.into_inner());
        }
        let columns = |(rows, columns): Segment| (rows > 0).then_some((rows, columns));
        let segments = merge.segments.into_iter().flat_map(Mutex::into_inner);
        Rows {
            segments: segments.filter_map(columns).collect(),
            held: Vec::new(),
        }
    }
}

primitive! {
    /// The least and the largest.
    fn spread[](slots: &[u32]) -> (u32, u32) {
        let (mut least, mut largest) = (u32::MAX, 0);
        for &slot in slots {
            least = least.min(slot);
            largest = largest.max(slot);
        }
        (least, largest)
    }
}

/// Rows whose mask is 1; none when that is all.
fn selection(mask: &[u8]) -> Option<Vec<u32>> {
    let count: usize = mask.iter().map(|&pass| usize::from(pass)).sum();
    if count == mask.len() {
        return None;
    }
    let mut rows = vec![0_u32; mask.len() + 1];
    let mut found = 0;
    for (row, &pass) in (0_u32..).zip(mask) {
        rows[found] = row;
        found += usize::from(pass);
    }
    rows.truncate(found);
    Some(rows)
}
