//! Rows put in order of their keys' hashes, before a table that is larger than the device's cache: what is looked up at one time
//! then lies in one part of the table, which the cache holds.
//!
//! ```text
//!  main     steps before the table ─▶ parked rows, as they come     the hash's top bits say which part; parts are counted
//!  scatter  tile: rows by part ─▶ a place for each part's rows (one atomic) ─▶ rows, part after part
//!  resume   rows, part after part ─▶ the table: steps from it on, the sink
//! ```
//!
//! Tables are entered by the top bits of the same hash, so a part of the rows is a part of the table. Nothing depends on the
//! order: it is the same table, with the same atomics. It costs that the rows are written and read twice, so it is only done
//! where an earlier run said that the table was too large ([`crate::Hints::partition`]), once per fragment, and within memory.

use trireme_device_api::{Fragment, Step};

use super::emit::RowStore;
use super::output::storage_elem;
use super::source::{Columns, main_kernel, rows_kernel};
use super::{Kind, Lowered, Lowering, ProgramOutput, Row, Shape, Sink, Unsupported, Value, join};
use crate::build::{place, u32, u64};
use crate::ir::{Atomic, Elem, Expr as Ir, LocalId, Scalar, Stmt, Target};
use crate::program::{Fill, Groups, Lifetime, Region, When};
use crate::shape::{RegionRef, ResidentColumn};
use crate::used_columns;

/// Parts, as bits of their number: at least and at most. A group of work-items has a counter for each in local memory.
const BITS_MIN: u32 = 3;
const BITS_MAX: u32 = 8;
/// A part is so small a share of the cache: several are worked on at a time.
const PARTS_PER_CACHE: u64 = 4;
/// Rows that kernels number by 32 bits.
const ROWS_MAX: u64 = 1 << 31;
/// Rows of a work-item between two turns of a group for places, at least: a turn costs an atomic for each part.
const ITEMS_MIN: u32 = 16;

/// A table that rows are put in order for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Large {
    /// How large it may be.
    pub(crate) bytes: u64,
    /// Memory that the rows may take on their way.
    pub(crate) room_bytes: u64,
}

/// Where rows are parked.
struct Point {
    /// Before this step; behind the last one for the sink.
    step: usize,
    table: Large,
    /// There are at most so many rows.
    rows: u64,
}

fn point(l: &Lowering<'_>, sink: &dyn Sink) -> Option<Point> {
    let steps = &l.fragment().steps;
    let probed = steps.iter().enumerate().find_map(|(step, probe)| match probe {
        Step::Probe(probe) => Some((step, join::large(l.build_shape(probe)?)?)),
        _ => None,
    });
    let (step, table) = match probed {
        Some(probed) => probed,
        None => (steps.len(), sink.large()?),
    };
    let rows = l.rows_bound_before(step).filter(|rows| *rows < ROWS_MAX)?;
    Some(Point { step, table, rows })
}

/// The main kernel and those that go with it. Gives the rows of a tile of the source, and whether rows are parked on their way.
pub(super) fn kernels(l: &mut Lowering<'_>, sink: &mut dyn Sink) -> Lowered<(u64, bool)> {
    let Some(point) = point(l, sink).filter(|_| l.partitions) else {
        return Ok((main_kernel(l, sink)?, false));
    };
    let mut park = Park::new(l, &point, sink);
    l.until = Some(point.step);
    let tile_rows = main_kernel(l, &mut park);
    l.until = None;
    let tile_rows = tile_rows?;
    let scattered = park.scatter(l, &point)?;
    l.first_step = point.step;
    let resumed = rows_kernel(
        l,
        "resume",
        (park.store.count, point.rows),
        Columns::Parked(&scattered),
        sink,
    );
    l.first_step = 0;
    resumed?;
    Ok((tile_rows, true))
}

/// The sink of the main kernel: rows wait here.
struct Park<'s> {
    bits: u32,
    step: usize,
    sink: &'s mut dyn Sink,
    /// The columns that the rest reads, then the part.
    store: RowStore,
    /// By column of the row; none where nobody reads it.
    used: Option<Vec<bool>>,
    /// U32 by part: rows.
    counts: RegionRef,
    local: LocalId,
}

impl<'s> Park<'s> {
    fn new(l: &mut Lowering<'_>, point: &Point, sink: &'s mut dyn Sink) -> Self {
        let cache = l.cached_words() * 4;
        let parts = (point.table.bytes / (cache / PARTS_PER_CACHE).max(1)).max(1);
        let bits = (u64::BITS - (parts - 1).leading_zeros()).clamp(BITS_MIN, BITS_MAX);
        Self {
            bits,
            step: point.step,
            sink,
            store: RowStore::new(l, "parked", point.rows.max(1), Lifetime::Scratch),
            used: None,
            counts: counters(l, "parked parts", bits),
            local: LocalId(0),
        }
    }

    fn parts(&self) -> u32 {
        1 << self.bits
    }

    /// U32: the part of a hash (U64).
    fn part(&self, hash: Ir) -> Ir {
        hash.shr(u64(u64::from(u64::BITS - self.bits))).to(Scalar::U32)
    }

    /// Of the row, what the rest reads.
    fn kept(&mut self, l: &mut Lowering<'_>, row: &mut Row) -> Lowered<Vec<Value>> {
        let used = self.used.get_or_insert_with(|| {
            let fragment = l.fragment();
            let rest = Fragment {
                steps: fragment.steps[self.step..].to_vec(),
                ..fragment.clone()
            };
            used_columns(&rest, row.slots.len())
        });
        let used = used.iter().enumerate().filter(|(_, used)| **used);
        used.map(|(index, _)| row.column(l, index)).collect()
    }

    /// The kernel that puts parked rows in order; gives their columns, by column of the row.
    fn scatter(&mut self, l: &mut Lowering<'_>, point: &Point) -> Lowered<Vec<Option<ResidentColumn>>> {
        let (Some(columns), Some(used)) = (self.store.columns.clone(), self.used.take()) else {
            return Err(Unsupported("no row is parked".to_owned()));
        };
        let Some((part, columns)) = columns.split_last() else {
            return Err(Unsupported("rows are parked without their parts".to_owned()));
        };
        let moved: Vec<ResidentColumn> = columns.iter().map(|column| twin(l, column, point.rows)).collect();
        let bytes = |column: &ResidentColumn| {
            let regions = column.values.iter().chain(&column.validity);
            regions.map(|region| l.parts.regions[region.region].bytes).sum::<u64>()
        };
        if 2 * columns.iter().map(bytes).sum::<u64>() > point.table.room_bytes {
            return Err(Unsupported("parked rows take too much memory".to_owned()));
        }
        let taken = counters(l, "taken places", self.bits);
        let scatter = Scatter {
            bits: self.bits,
            count: self.store.count,
            part: part.clone(),
            counts: self.counts,
            taken,
            pairs: columns.iter().zip(&moved).collect(),
        };
        let kernel = l.kernel("scatter", |l| scatter.write(l))?;
        l.launch(kernel, Groups::Rows(point.rows), When::After);
        let mut moved = moved.into_iter();
        Ok(used.iter().map(|used| used.then(|| moved.next()).flatten()).collect())
    }
}

fn counters(l: &mut Lowering<'_>, name: &str, bits: u32) -> RegionRef {
    l.region(Region {
        name: name.to_owned(),
        bytes: 4 << bits,
        fill: Fill::Byte(0),
        lifetime: Lifetime::Scratch,
    })
}

/// A column as another one, of so many rows.
fn twin(l: &mut Lowering<'_>, column: &ResidentColumn, rows: u64) -> ResidentColumn {
    let mut region = |name: &str, bytes: u32| {
        l.region(Region {
            name: name.to_owned(),
            bytes: rows.max(1) * u64::from(bytes),
            fill: Fill::Nothing,
            lifetime: Lifetime::Scratch,
        })
    };
    let elem = storage_elem(column.shape.storage).map_or(0, Elem::bytes);
    ResidentColumn {
        shape: column.shape.clone(),
        values: column.values.map(|_| region("scattered", elem)),
        validity: column.validity.map(|_| region("scattered validity", 1)),
    }
}

/// Sets a local counter for each part to 0. Uniform code, without a barrier.
fn clear(l: &mut Lowering<'_>, counters: LocalId, parts: u32) {
    let group = u32(l.target.group);
    l.b.range(Scalar::U32, Ir::LocalIndex, u32(parts), group, |b, part| {
        b.push(Stmt::StoreLocal(counters, part.into(), u32(0)));
    });
}

impl Sink for Park<'_> {
    fn begin(&mut self, l: &mut Lowering<'_>) -> Lowered<()> {
        self.local = l.b.local(Elem::U32, self.parts());
        clear(l, self.local, self.parts());
        l.b.push(Stmt::Barrier);
        self.store.begin(l)
    }

    fn row(&mut self, l: &mut Lowering<'_>, row: &mut Row) -> Lowered<()> {
        let mut values = self.kept(l, row)?;
        let mut keyed = row.clone();
        let hash = match l.fragment().steps.get(self.step) {
            Some(Step::Probe(probe)) => join::probe_hash(l, probe, &mut keyed)?,
            _ => self.sink.hash(l, &mut keyed)?,
        };
        let part = l.b.set(Scalar::U32, self.part(hash));
        let target = Target::Local(self.local, part.into());
        l.b.atomic(target, Atomic::Add(u32(1)));
        let number = l.b.set(Scalar::I32, Ir::from(part).to(Scalar::I32));
        values.push(Value {
            ir: number.into(),
            null: None,
            shape: Shape {
                data_type: trireme_device_api::Type::Int16,
                kind: Kind::Integer(Scalar::I32),
                range: Some((0, i128::from(self.parts()) - 1)),
            },
        });
        self.store.row(l, values, 0, false)
    }

    fn slot_end(&mut self, l: &mut Lowering<'_>) -> Lowered<()> {
        self.store.slot_end(l, 0, false)
    }

    fn end(&mut self, l: &mut Lowering<'_>) -> Lowered<()> {
        self.store.end();
        l.b.push(Stmt::Barrier);
        let counts = l.base(self.counts);
        let (local, group) = (self.local, u32(l.target.group));
        l.b.range(Scalar::U32, Ir::LocalIndex, u32(self.parts()), group, |b, part| {
            let rows = b.set(Scalar::U32, Ir::LoadLocal(local, Box::new(part.into())));
            b.when(Ir::from(rows).ne(u32(0)), |b| {
                let target = Target::Arena(place(Elem::U32, counts.clone(), part.into()));
                b.atomic(target, Atomic::Add(rows.into()));
            });
        });
        Ok(())
    }

    fn finish(&mut self, _: &mut Lowering<'_>) -> Lowered<ProgramOutput> {
        Err(Unsupported("a sink that only keeps rows waiting".to_owned()))
    }
}

/// What the kernel that orders rows works on.
struct Scatter<'c> {
    bits: u32,
    count: RegionRef,
    part: ResidentColumn,
    /// U32 by part: rows of the whole.
    counts: RegionRef,
    /// U32 by part: places that groups of work-items have taken.
    taken: RegionRef,
    /// From, to.
    pairs: Vec<(&'c ResidentColumn, &'c ResidentColumn)>,
}

impl Scatter<'_> {
    fn write(&self, l: &mut Lowering<'_>) -> Lowered<()> {
        let parts = 1 << self.bits;
        let [starts, rows_of] = [(); 2].map(|()| l.b.local(Elem::U32, parts));
        self.starts(l, starts, parts);
        let count = l.base(self.count);
        let count = l.b.load(place(Elem::U64, count, u64(0)));
        let rows = l.b.set(Scalar::U32, Ir::from(count).to(Scalar::U32));
        let group = l.target.group;
        let tile = group * l.target.items.max(ITEMS_MIN);
        let first = l.b.set(Scalar::U32, Ir::GroupIndex.times(u32(tile)));
        let step = Ir::Groups.times(u32(tile));
        l.range(Scalar::U32, (first.into(), rows.into(), step), |l, start| {
            let end = l.b.set(Scalar::U32, start.clone().plus(u32(tile)).min(rows.into()));
            let bounds = (start.plus(Ir::LocalIndex), Ir::from(end), u32(group));
            clear(l, rows_of, parts);
            l.b.push(Stmt::Barrier);
            l.range(Scalar::U32, bounds.clone(), |l, row| {
                let part = self.part_of(l, &row);
                l.b.atomic(Target::Local(rows_of, part), Atomic::Add(u32(1)));
                Ok(())
            })?;
            l.b.push(Stmt::Barrier);
            self.take(l, starts, rows_of, parts);
            l.b.push(Stmt::Barrier);
            l.range(Scalar::U32, bounds, |l, row| {
                let part = self.part_of(l, &row);
                let to =
                    l.b.fetch(Scalar::U32, Target::Local(rows_of, part), Atomic::Add(u32(1)));
                self.pairs.iter().for_each(|pair| copy(l, *pair, &row, &to.into()));
                Ok(())
            })?;
            l.b.push(Stmt::Barrier);
            Ok(())
        })
    }

    /// Where each part begins.
    fn starts(&self, l: &mut Lowering<'_>, starts: LocalId, parts: u32) {
        let counts = l.base(self.counts);
        l.b.when(Ir::LocalIndex.eq(u32(0)), |b| {
            let sum = b.set(Scalar::U32, u32(0));
            b.range(Scalar::U32, u32(0), u32(parts), u32(1), |b, part| {
                b.push(Stmt::StoreLocal(starts, part.into(), sum.into()));
                let rows = b.load(place(Elem::U32, counts.clone(), part.into()));
                b.assign(sum, Ir::from(sum).plus(rows.into()));
            });
        });
        l.b.push(Stmt::Barrier);
    }

    /// Makes the number of a tile's rows of each part the place of the first of them.
    fn take(&self, l: &mut Lowering<'_>, starts: LocalId, rows_of: LocalId, parts: u32) {
        let taken = l.base(self.taken);
        let group = u32(l.target.group);
        l.b.range(Scalar::U32, Ir::LocalIndex, u32(parts), group, |b, part| {
            let rows = b.set(Scalar::U32, Ir::LoadLocal(rows_of, Box::new(part.into())));
            b.when(Ir::from(rows).ne(u32(0)), |b| {
                let target = Target::Arena(place(Elem::U32, taken.clone(), part.into()));
                let before = b.fetch(Scalar::U32, target, Atomic::Add(rows.into()));
                let start = Ir::LoadLocal(starts, Box::new(part.into()));
                let start = b.set(Scalar::U32, start.plus(before.into()));
                b.push(Stmt::StoreLocal(rows_of, part.into(), start.into()));
            });
        });
    }

    fn part_of(&self, l: &mut Lowering<'_>, row: &Ir) -> Ir {
        let (Some(region), Some(elem)) = (self.part.values, storage_elem(self.part.shape.storage)) else {
            return u32(0);
        };
        let base = l.base(region);
        let part = l.b.load(place(elem, base, row.clone()));
        l.b.set(Scalar::U32, Ir::from(part).to(Scalar::U32)).into()
    }
}

/// Row `from` of one column as row `to` of its twin (both U32).
fn copy(l: &mut Lowering<'_>, (column, twin): (&ResidentColumn, &ResidentColumn), from: &Ir, to: &Ir) {
    let values = storage_elem(column.shape.storage).map(|elem| (elem, column.values, twin.values));
    let validity = (Elem::U8, column.validity, twin.validity);
    for (elem, source, target) in values.into_iter().chain([validity]) {
        let (Some(source), Some(target)) = (source, target) else {
            continue;
        };
        let (source, target) = (l.base(source), l.base(target));
        let value = l.b.load(place(elem, source, from.clone()));
        l.b.store(place(elem, target, to.clone()), value.into());
    }
}
