//! Where rows come from: the loops of main kernels over segments, resident rows and build rows, and the loads of columns.
//!
//! ```text
//!  for tile = group, group + groups, …:                       segments: advance to the tile's segment
//!     words of the segment that its columns need (hoisted)
//!     for k in 0 … items:  row = start of tile + k · GROUP + local index; for runs: + local index · items + k
//!        if row < rows { steps … sink's row }
//!        sink's end of slot
//! ```
//!
//! A column is loaded where it is first asked for, so that filtered rows don't load what only the rest reads.

use trireme_device_api::Source;

use super::steps::lazy;
use super::{Input, Kind, Lowered, Lowering, Pass, Row, Shape, Sink, Unsupported, Value};
use crate::build::{Builder, bool, place, u32, u64};
use crate::ir::{Elem, Expr as Ir, Scalar, Stmt, Var};
use crate::program::{Groups, When, Word};
use crate::shape::{
    COLUMN_WORDS, ColumnShape, HANDLE_LENGTH_BITS, RegionRef, ResidentColumn, ResidentRows, SEGMENT_HEADER_WORDS,
    ScanShape, Storage, TABLE_HEADER_WORDS,
};

/// Rows that kernels number by 32 bits.
const ROWS_MAX: u64 = 1 << 31;

/// Words of a column in the segment table.
const VALUES: usize = 0;
const BASE: usize = 1;
const VALIDITY: usize = 2;
const BYTES: usize = 3;

/// What a tile needs to know of its segment, loaded once per tile.
#[derive(Default)]
pub(super) struct Hoist {
    stmts: Vec<Stmt>,
    /// By column and word.
    known: Vec<((usize, usize), Var)>,
    /// U64: where the segment's words begin in the table.
    segment: Option<Var>,
}

enum Rows<'a> {
    Segments(&'a ScanShape),
    Resident(&'a ResidentRows),
}

impl<'a> Lowering<'a> {
    fn source_rows(&self) -> Lowered<Rows<'a>> {
        let absent = || Unsupported("the source is not bound".to_owned());
        let bound = self.bound;
        match self.fragment().source {
            Source::Scan(index) => bound.scans.get(index).map(Rows::Segments).ok_or_else(absent),
            Source::Stream(index) => match bound.streams.get(index) {
                Some(Some(shape)) => Ok(Rows::Segments(shape)),
                _ => Err(absent()),
            },
            Source::Fragment(id) => match bound.outputs.get(id) {
                Some(Some(Input::Resident(rows))) => Ok(Rows::Resident(rows)),
                Some(Some(Input::Segments(shape))) => Ok(Rows::Segments(shape)),
                _ => Err(absent()),
            },
        }
    }

    /// Upper bound of the source's rows.
    pub(crate) fn source_bound(&self) -> u64 {
        match self.source_rows() {
            Ok(Rows::Segments(shape)) => shape.rows,
            Ok(Rows::Resident(rows)) => rows.bound,
            Err(_) => 0,
        }
    }
}

impl Lowering<'_> {
    /// Upper bound of the rows that one work-item brings to the sink in one kernel, where that is known: none where probes
    /// multiply or give build rows.
    pub(crate) fn rows_of_one(&self) -> Option<u64> {
        if self.multiplies() || self.has_passes() || self.first_step > 0 || self.until.is_some() {
            return None;
        }
        let tiles = match self.source_rows() {
            Ok(Rows::Segments(shape)) => (shape.rows / u64::from(self.tile_rows())).checked_add(shape.segments)?,
            Ok(Rows::Resident(rows)) => rows.bound / u64::from(self.tile_rows()) + 1,
            Err(_) => return None,
        };
        tiles.checked_mul(u64::from(self.target.items))
    }
}

/// The kernel over the source's rows. Gives the rows of one tile of a segment table, 0 when there is none.
pub(super) fn main_kernel(l: &mut Lowering<'_>, sink: &mut dyn Sink) -> Lowered<u64> {
    let rows = l.source_rows()?;
    let bound = l.source_bound();
    let kernel = l.kernel("pipeline", |l| {
        sink.begin(l)?;
        match rows {
            Rows::Segments(shape) => segments(l, shape, sink)?,
            Rows::Resident(rows) => resident(l, rows, sink)?,
        }
        sink.end(l)
    })?;
    l.launch(kernel, Groups::Rows(bound), When::Chunk);
    Ok(match rows {
        Rows::Segments(_) => u64::from(l.tile_rows()),
        Rows::Resident(_) => 0,
    })
}

/// A kernel for each probe whose build rows go on.
pub(super) fn pass_kernels(l: &mut Lowering<'_>, sink: &mut dyn Sink) -> Lowered<()> {
    // A pass may note later ones, behind itself.
    let mut done = 0;
    while let Some(pass) = l.passes.get(done).cloned() {
        done += 1;
        let kernel = l.kernel(&format!("pass_{}", pass.step), |l| {
            sink.begin(l)?;
            build_rows(l, &pass, sink)?;
            sink.end(l)
        })?;
        l.launch(kernel, Groups::Rows(pass.bound), When::After);
    }
    Ok(())
}

impl Lowering<'_> {
    /// By column of the source: rows of equal values are thought to stand together.
    pub(crate) fn clustered_columns(&self) -> Vec<bool> {
        match self.source_rows() {
            Ok(Rows::Segments(shape)) => shape.columns.iter().map(|column| column.clustered).collect(),
            Ok(Rows::Resident(rows)) => rows.columns.iter().map(|column| column.shape.clustered).collect(),
            Err(_) => Vec::new(),
        }
    }

    /// U32: the row of a tile that begins at row `start` which is number `k` of this work-item's (both U32).
    fn row_of_tile(&self, start: Ir, k: Ir, in_runs: bool) -> Ir {
        if in_runs {
            start.plus(Ir::LocalIndex.times(u32(self.target.items))).plus(k)
        } else {
            start.plus(k.times(u32(self.target.group))).plus(Ir::LocalIndex)
        }
    }

    fn tile_rows(&self) -> u32 {
        self.target.group * self.target.items
    }

    /// The first tile of the group, the tiles' end and how far apart the group's tiles are.
    fn tiles_of_group(&mut self, sink: &dyn Sink, end: Ir) -> (Ir, Ir, Ir) {
        let Some(most) = sink.groups_max() else {
            return (Ir::GroupIndex, end, Ir::Groups);
        };
        let end = Ir::GroupIndex.lt(u32(most)).select(end, u32(0));
        let end = self.b.set(Scalar::U32, end);
        (Ir::GroupIndex, end.into(), Ir::Groups.min(u32(most)))
    }

    /// Notes whether a tile is the group's last, for sinks that ask.
    fn note_last_tile(&mut self, sink: &dyn Sink, tile: &Ir, (_, end, step): (Ir, Ir, Ir)) {
        let last = || tile.clone().plus(step).ge(end);
        self.last_slot = sink
            .groups_max()
            .map(|_| last())
            .map(|last| self.b.set(Scalar::Bool, last).into());
    }

    /// The row slots of a tile that begins at row `start` of `rows` (both U32). `body` gets a row's number in the source and
    /// in the work-item's part of the tile.
    fn tile(&mut self, (start, rows): (Ir, Ir), sink: &mut dyn Sink, body: &mut Body<'_>) -> Lowered<()> {
        let mut slot = |l: &mut Self, k: Ir| {
            let row = l.row_of_tile(start.clone(), k.clone(), sink.in_runs());
            let row = l.b.set(Scalar::U32, row);
            l.when(Ir::from(row).lt(rows.clone()), |l| body(l, &row.into(), &k, sink))?;
            let last_tile = l.last_slot.take();
            let last = k.eq(u32(l.target.items - 1));
            l.last_slot = last_tile.clone().map(|tile| tile.and(last));
            let ended = sink.slot_end(l);
            l.last_slot = last_tile;
            ended
        };
        if self.target.items == 1 {
            return slot(self, u32(0));
        }
        self.range(Scalar::U32, (u32(0), u32(self.target.items), u32(1)), slot)
    }

    /// A tile of the source's rows, which go through all steps.
    fn source_tile(&mut self, (start, rows): (Ir, Ir), columns: Columns<'_>, sink: &mut dyn Sink) -> Lowered<()> {
        let mut ahead = Vec::new();
        if self.target.wide && self.target.items > 1 {
            let places = (0..self.target.items).map(|k| {
                let row = self.row_of_tile(start.clone(), u32(k), sink.in_runs());
                // Slots behind the last row load that one.
                self.b.set(Scalar::U32, row.min(rows.clone().minus(u32(1)))).into()
            });
            let places: Vec<Ir> = places.collect();
            ahead = self.load_ahead(columns.len(), &places, &mut |l, index, row| columns.load(l, index, row))?;
        }
        self.tile((start, rows), sink, &mut |l, index, k, sink| {
            let mut row = columns.row(index);
            super::ahead::put(&ahead, k, &mut row);
            let first = l.first_step;
            l.steps(first, &mut row, sink)
        })
    }

    /// Tiles of `count` rows that stand one after another.
    fn tiles(&mut self, count: RegionRef, sink: &mut dyn Sink, tile: &mut Tile<'_>) -> Lowered<()> {
        let count = self.base(count);
        let count = self.b.load(place(Elem::U64, count, u64(0)));
        let rows = self.b.set(Scalar::U32, Ir::from(count).to(Scalar::U32));
        let tile_rows = u32(self.tile_rows());
        let tiles = Ir::from(rows).plus(u32(self.tile_rows() - 1)).over(tile_rows.clone());
        let bounds = self.tiles_of_group(sink, tiles);
        self.range(Scalar::U32, bounds.clone(), |l, number| {
            l.note_last_tile(sink, &number, bounds);
            let start = l.b.set(Scalar::U32, number.times(tile_rows));
            tile(l, (start.into(), rows.into()), sink)
        })
    }
}

/// Writes what happens to a row: number in the source, number in the work-item's part of the tile, both U32.
type Body<'b> = dyn FnMut(&mut Lowering<'_>, &Ir, &Ir, &mut dyn Sink) -> Lowered<()> + 'b;

/// Writes a tile: the first row's number, how many rows there are, both U32.
type Tile<'t> = dyn FnMut(&mut Lowering<'_>, (Ir, Ir), &mut dyn Sink) -> Lowered<()> + 't;

/// Columns of the source.
#[derive(Clone, Copy)]
pub(super) enum Columns<'a> {
    Segments(&'a [ColumnShape]),
    Resident(&'a [ResidentColumn]),
    /// None where nobody reads it.
    Parked(&'a [Option<ResidentColumn>]),
}

impl Columns<'_> {
    fn len(self) -> usize {
        match self {
            Columns::Segments(columns) => columns.len(),
            Columns::Resident(columns) => columns.len(),
            Columns::Parked(columns) => columns.len(),
        }
    }

    fn load(self, l: &mut Lowering<'_>, index: usize, row: &Ir) -> Lowered<Value> {
        match self {
            Columns::Segments(columns) => segment_value(l, index, &columns[index], row),
            Columns::Resident(columns) => resident_value(l, &columns[index], row),
            Columns::Parked(columns) => parked_value(l, columns[index].as_ref(), row),
        }
    }

    fn row(self, row: &Ir) -> Row {
        match self {
            Columns::Segments(columns) => segment_row(columns, row),
            Columns::Resident(columns) => resident_row(columns, row),
            Columns::Parked(columns) => {
                let slots = columns.iter().map(|column| {
                    let (column, row) = (column.clone(), row.clone());
                    lazy(move |l| parked_value(l, column.as_ref(), &row))
                });
                Row { slots: slots.collect() }
            }
        }
    }
}

fn parked_value(l: &mut Lowering<'_>, column: Option<&ResidentColumn>, row: &Ir) -> Lowered<Value> {
    let column = column.ok_or_else(|| Unsupported("a column that was not kept".to_owned()))?;
    resident_value(l, column, row)
}

/// A kernel over rows that an earlier one left, `count` of them and at most `bound`.
pub(super) fn rows_kernel(
    l: &mut Lowering<'_>,
    name: &str,
    (count, bound): (RegionRef, u64),
    columns: Columns<'_>,
    sink: &mut dyn Sink,
) -> Lowered<()> {
    let kernel = l.kernel(name, |l| {
        sink.begin(l)?;
        l.tiles(count, sink, &mut |l, bounds, sink| l.source_tile(bounds, columns, sink))?;
        sink.end(l)
    })?;
    l.launch(kernel, Groups::Rows(bound), When::After);
    Ok(())
}

fn resident(l: &mut Lowering<'_>, rows: &ResidentRows, sink: &mut dyn Sink) -> Lowered<()> {
    if rows.bound >= ROWS_MAX {
        return Err(Unsupported("more rows than kernels number".to_owned()));
    }
    let columns = Columns::Resident(&rows.columns);
    l.tiles(rows.count, sink, &mut |l, bounds, sink| {
        l.source_tile(bounds, columns, sink)
    })
}

fn build_rows(l: &mut Lowering<'_>, pass: &Pass, sink: &mut dyn Sink) -> Lowered<()> {
    if pass.bound >= ROWS_MAX {
        return Err(Unsupported("more rows than kernels number".to_owned()));
    }
    l.tiles(pass.count, sink, &mut |l, bounds, sink| {
        l.tile(bounds, sink, &mut |l, index, _, sink| {
            super::join::pass_row(l, pass, index, sink)
        })
    })
}

fn segments(l: &mut Lowering<'_>, shape: &ScanShape, sink: &mut dyn Sink) -> Lowered<()> {
    let table = l.word(Word::Segments);
    let word = |b: &mut Builder, index: Ir| b.load(place(Elem::U64, table.clone(), index));
    let stride = u64((SEGMENT_HEADER_WORDS + shape.columns.len() * COLUMN_WORDS) as u64);
    let last = word(&mut l.b, u64(0));
    let last = l.b.set(Scalar::U64, stride.clone().times(last.into()));
    let tiles = word(&mut l.b, u64(1));
    let segment = l.b.set(Scalar::U64, u64(TABLE_HEADER_WORDS as u64));
    let tile_rows = u64(u64::from(l.tile_rows()));
    let bounds = l.tiles_of_group(sink, Ir::from(tiles).to(Scalar::U32));
    l.range(Scalar::U32, bounds.clone(), |l, tile| {
        l.note_last_tile(sink, &tile, bounds);
        let tile = tile.to(Scalar::U64);
        l.b.repeat(|b| {
            let next = b.set(Scalar::U64, Ir::from(segment).plus(stride.clone()));
            b.when(Ir::from(next).gt(last.into()), |b| b.push(Stmt::Break));
            let first_tile = word(b, Ir::from(next).plus(u64(1)));
            b.when(Ir::from(first_tile).gt(tile.clone()), |b| b.push(Stmt::Break));
            b.assign(segment, next.into());
        });
        let rows = word(&mut l.b, segment.into());
        let rows = l.b.set(Scalar::U32, Ir::from(rows).to(Scalar::U32));
        let first_tile = word(&mut l.b, Ir::from(segment).plus(u64(1)));
        let start = tile.minus(first_tile.into()).times(tile_rows).to(Scalar::U32);
        let start = l.b.set(Scalar::U32, start);
        l.hoist.segment = Some(segment);
        let columns = Columns::Segments(&shape.columns);
        let body = l.block(|l| l.source_tile((start.into(), rows.into()), columns, sink))?;
        let hoist = std::mem::take(&mut l.hoist);
        hoist.stmts.into_iter().chain(body).for_each(|stmt| l.b.push(stmt));
        Ok(())
    })
}

impl Lowering<'_> {
    /// A word of a column in the current segment, loaded once per tile and kept as `scalar`.
    fn segment_word(&mut self, column: usize, word: usize, scalar: Scalar) -> Ir {
        let known = self.hoist.known.iter().find(|(key, _)| *key == (column, word));
        if let Some((_, var)) = known {
            return (*var).into();
        }
        let table = self.word(Word::Segments);
        let segment = self.hoist.segment.map_or(u64(0), Ir::from);
        let offset = SEGMENT_HEADER_WORDS + column * COLUMN_WORDS + word;
        self.b.begin();
        let index = segment.plus(u64(offset as u64));
        let mut var = self.b.load(place(Elem::U64, table, index));
        if scalar != Scalar::U64 {
            var = self.b.set(scalar, Ir::from(var).to(Scalar::I64).to(scalar));
        }
        let stmts = self.b.end();
        self.hoist.stmts.extend(stmts);
        self.hoist.known.push(((column, word), var));
        var.into()
    }
}

/// What is known of a column's values.
pub(crate) fn column_shape(column: &ColumnShape) -> Lowered<Shape> {
    let integral = |storage: (i128, i128)| {
        let known = column.range.or(column.data_type.value_range()).unwrap_or(storage);
        let (low, high) = (known.0.max(storage.0), known.1.min(storage.1));
        (low.min(high), low.max(high))
    };
    let mut range = None;
    let kind = match column.storage {
        Storage::Integer(_) | Storage::Wide => {
            let storage = if column.storage == Storage::Wide {
                (i128::MIN, i128::MAX)
            } else {
                (i64::MIN.into(), i64::MAX.into())
            };
            let known = integral(storage);
            range = Some(known);
            Kind::Integer(Shape::lane(known))
        }
        Storage::Float32 => Kind::Float32,
        Storage::Float64 => Kind::Float64,
        Storage::Bits | Storage::Bytes => Kind::Boolean,
        Storage::Code(_) => match &column.dictionary {
            Some(dictionary) => Kind::Code(std::sync::Arc::clone(dictionary)),
            None => return Err(Unsupported("codes without a dictionary".to_owned())),
        },
        Storage::Offsets | Storage::Handles => Kind::Text,
        Storage::Null => Kind::Null,
    };
    Ok(Shape {
        data_type: column.data_type.clone(),
        kind,
        range,
    })
}

fn segment_row(columns: &[ColumnShape], row: &Ir) -> Row {
    let slots = columns.iter().enumerate().map(|(index, column)| {
        let (column, row) = (column.clone(), row.clone());
        lazy(move |l| segment_value(l, index, &column, &row))
    });
    Row { slots: slots.collect() }
}

fn segment_value(l: &mut Lowering<'_>, index: usize, column: &ColumnShape, row: &Ir) -> Lowered<Value> {
    let shape = column_shape(column)?;
    if column.storage == Storage::Null {
        return Ok(null_value(shape));
    }
    let null = column.nullable.then(|| {
        let validity = l.segment_word(index, VALIDITY, Scalar::U64);
        let null = l.b.set(Scalar::Bool, bool(false));
        l.b.when(validity.clone().ne(u64(0)), |b| {
            let bit = bit_at(b, validity, row);
            b.assign(null, bit.eq(u32(0)));
        });
        null.into()
    });
    let values = l.segment_word(index, VALUES, Scalar::U64);
    let ir = match column.storage {
        Storage::Bits => {
            let bit = bit_at(&mut l.b, values, row);
            l.b.set(Scalar::Bool, bit.ne(u32(0)))
        }
        Storage::Offsets => {
            let bytes = l.segment_word(index, BYTES, Scalar::U64);
            let start = l.b.load(place(Elem::U32, values.clone(), row.clone()));
            let end = l.b.load(place(Elem::U32, values, row.clone().plus(u32(1))));
            let length = Ir::from(end).minus(start.into()).to(Scalar::U64);
            let offset = bytes.plus(Ir::from(start).to(Scalar::U64));
            let handle = offset.shl(u64(u64::from(HANDLE_LENGTH_BITS))).or(length);
            l.b.set(Scalar::U64, handle)
        }
        Storage::Integer(elem) => {
            // Sums wrap in the narrower register, and the range says that the true sum fits it.
            let lane = match shape.kind {
                Kind::Integer(Scalar::I32) => Scalar::I32,
                _ => Scalar::I64,
            };
            let base = l.segment_word(index, BASE, lane);
            let carrier = l.b.load(place(elem, values, row.clone()));
            let sum = l.b.set(lane, Ir::from(carrier).to(lane).plus(base));
            in_lane(l, sum, &shape)
        }
        storage => stored_value(l, storage, &shape, values, row),
    };
    Ok(Value {
        ir: ir.into(),
        null,
        shape,
    })
}

/// Bit `row` of the bits at `base`, U32.
fn bit_at(b: &mut Builder, base: Ir, row: &Ir) -> Ir {
    let byte = b.load(place(Elem::U8, base, row.clone().shr(u32(3))));
    Ir::from(byte).shr(row.clone().and(u32(7))).and(u32(1))
}

/// Row number `row` (U32) of resident columns.
pub(crate) fn resident_row(columns: &[ResidentColumn], row: &Ir) -> Row {
    let slots = columns.iter().map(|column| {
        let (column, row) = (column.clone(), row.clone());
        lazy(move |l| resident_value(l, &column, &row))
    });
    Row { slots: slots.collect() }
}

/// Row number `row` (U32) of a resident column.
pub(crate) fn resident_value(l: &mut Lowering<'_>, column: &ResidentColumn, row: &Ir) -> Lowered<Value> {
    let shape = column_shape(&column.shape)?;
    let Some(values) = column.values else {
        return Ok(null_value(shape));
    };
    let null = column.validity.map(|validity| {
        let validity = l.base(validity);
        let byte = l.b.load(place(Elem::U8, validity, row.clone()));
        l.b.set(Scalar::Bool, Ir::from(byte).eq(u32(0))).into()
    });
    let values = l.base(values);
    let ir = stored_value(l, column.shape.storage, &shape, values, row);
    Ok(Value {
        ir: ir.into(),
        null,
        shape,
    })
}

/// A value that stands as it is at `values`.
fn stored_value(l: &mut Lowering<'_>, storage: Storage, shape: &Shape, values: Ir, row: &Ir) -> Var {
    let elem = match storage {
        Storage::Integer(elem) | Storage::Code(elem) => elem,
        Storage::Wide => Elem::I128,
        Storage::Float32 => Elem::F32,
        Storage::Float64 => Elem::F64,
        Storage::Bytes | Storage::Bits => Elem::U8,
        Storage::Offsets => Elem::U32,
        Storage::Handles | Storage::Null => Elem::U64,
    };
    let loaded = l.b.load(place(elem, values, row.clone()));
    if storage == Storage::Bytes {
        return l.b.set(Scalar::Bool, Ir::from(loaded).ne(u32(0)));
    }
    in_lane(l, loaded, shape)
}

/// An integer in the register that its range asks for.
fn in_lane(l: &mut Lowering<'_>, loaded: Var, shape: &Shape) -> Var {
    match shape.kind {
        Kind::Integer(lane) if lane != l.b.scalar(loaded) => l.b.set(lane, Ir::from(loaded).to(lane)),
        _ => loaded,
    }
}

/// NULL.
pub(crate) fn null_value(shape: Shape) -> Value {
    Value {
        ir: bool(false),
        null: Some(bool(true)),
        shape,
    }
}
