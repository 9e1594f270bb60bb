//! What an aggregate groups by: values of expressions, or the build rows that strings come from instead of their bytes.
//!
//! ```text
//!  GROUP BY c_custkey, c_name, c_phone, o_year      all but the last are columns of one build side, and there are strings among them
//!  key     [ first build row like this one | o_year ]
//!  first   build row ─▶ the first that was met with the same columns, + 1; 0 until the row is met      4 bytes a build row
//! ```
//!
//! A join brings each build row again and again; here its columns are compared with others' once, when it is met first, and copied
//! once per group, when the result is made. Rows are found by a hash of their numbers, which mostly tell them apart; those that have
//! the numbers of another row and differ from it are found by a hash of everything, so that no chain of rows becomes long.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use trireme_device_api::{DeviceColumn, DeviceError, Expr, Inputs, Node, Reservation, Values};

use super::lock;
use super::source::column_shape;
use super::stages::Stages;
use crate::aggregate::Segment;
use crate::builder::ColumnBuilder;
use crate::expr::Program;
use crate::isa::Isa;
use crate::join::hash::{hash_bytes, hash_u64, hash_u128};
use crate::join::{BuildTable, Zeroed};
use crate::load::{Picked, load};
use crate::tile::Tile;
use crate::vector::{Data, Shape, Vector};

/// Rows are met behind so many locks.
const SHARDS: usize = 16;
/// From so many build rows on it is worth making the result in several tasks.
const PARTED_FROM_ROWS: usize = 1 << 13;

/// The keys of an aggregate, and what its result's columns are made of.
pub(super) struct Groups {
    keys: Vec<Key>,
    columns: Vec<Origin>,
    isa: Isa,
    /// Of result columns that were copied from build sides.
    copied: Mutex<Reservation>,
}

enum Key {
    Value(Box<Program>),
    Row(Box<RowKey>),
}

/// Where a group column of the result comes from.
#[derive(Clone, Copy)]
enum Origin {
    Key(usize),
    /// A column of the build side of a [`Key::Row`].
    Payload {
        key: usize,
        column: usize,
    },
}

impl Groups {
    /// Of `exprs` over `row`, the last row of `stages` and what was added to it.
    ///
    /// # Errors
    /// An expression doesn't compile; or memory is short.
    pub(super) fn compile(
        exprs: &[Expr],
        row: &[Shape],
        stages: &Stages,
        inputs: &Inputs,
        isa: Isa,
    ) -> Result<Self, DeviceError> {
        let sources = stages.payload_columns();
        let source = |expr: &Expr| match expr.node {
            // Of equal floats the result has the positive zero, whichever was met.
            Node::Column(index) if !expr.data_type.is_float() => sources.get(index).copied().flatten(),
            _ => None,
        };
        let is_string = |expr: &&Expr| match expr.node {
            Node::Column(index) => row[index].data_type.is_bytes() && row[index].dictionary.is_none(),
            _ => false,
        };
        let mut strings: Vec<usize> = exprs
            .iter()
            .filter(is_string)
            .filter_map(|expr| Some(source(expr)?.0))
            .collect();
        strings.dedup();
        let mut keys = Vec::new();
        let mut columns = Vec::new();
        // By key, the stage whose build rows it is.
        let mut stages_of: Vec<Option<usize>> = Vec::new();
        for expr in exprs {
            let Some((stage, column)) = source(expr).filter(|(stage, _)| strings.contains(stage)) else {
                columns.push(Origin::Key(keys.len()));
                stages_of.push(None);
                keys.push(Key::Value(Box::new(Program::compile(
                    expr,
                    row,
                    &inputs.parameters,
                    isa,
                )?)));
                continue;
            };
            let known = stages_of.iter().position(|of| *of == Some(stage));
            let key = known.unwrap_or(keys.len());
            columns.push(Origin::Payload { key, column });
            if let (Some(Key::Row(row)), _) = (keys.get_mut(key), known) {
                row.columns.push(column);
            } else if let (Node::Column(slot), Some(table)) = (&expr.node, stages.build_table(stage)) {
                stages_of.push(Some(stage));
                keys.push(Key::Row(Box::new(RowKey::new(table, *slot, column, inputs)?)));
            }
        }
        for key in &mut keys {
            if let Key::Row(row) = key {
                row.choose();
            }
        }
        Ok(Self {
            keys,
            columns,
            isa,
            copied: Mutex::new(Reservation::new(&inputs.pool)),
        })
    }

    /// Group columns of the result.
    pub(super) fn columns(&self) -> usize {
        self.columns.len()
    }

    /// What the aggregate's keys look like.
    pub(super) fn shapes(&self) -> Vec<Shape> {
        let shape = |key: &Key| match key {
            Key::Value(program) => program.shape().clone(),
            Key::Row(row) => row.shape(),
        };
        self.keys.iter().map(shape).collect()
    }

    /// Whether a group of the result is dear enough for several tasks to make them.
    pub(super) fn parted(&self) -> bool {
        let large = |key: &Key| matches!(key, Key::Row(row) if row.table.rows() >= PARTED_FROM_ROWS);
        self.keys.iter().any(large)
    }

    /// The expressions that are evaluated.
    pub(super) fn programs(&self) -> impl Iterator<Item = &Program> {
        self.keys.iter().filter_map(|key| match key {
            Key::Value(program) => Some(&**program),
            Key::Row(_) => None,
        })
    }

    /// The keys that are build rows, of the rows of a tile; before columns of the tile are computed.
    ///
    /// # Errors
    /// Memory is short.
    pub(super) fn rows(&self, tile: &Tile<'_>) -> Result<Vec<Option<Vector<'static>>>, DeviceError> {
        let rows = |key: &Key| match key {
            Key::Value(_) => Ok(None),
            Key::Row(row) => row.of(tile).map(Some),
        };
        self.keys.iter().map(rows).collect()
    }

    /// All keys of a tile; `rows` are what [`Groups::rows`] gave.
    ///
    /// # Errors
    /// Of expressions.
    pub(super) fn values<'t>(
        &self,
        tile: &'t Tile<'_>,
        rows: Vec<Option<Vector<'static>>>,
        evaluate: impl Fn(&Program, &'t Tile<'_>) -> Result<Vector<'t>, DeviceError>,
    ) -> Result<Vec<Vector<'t>>, DeviceError> {
        let value = |(key, row): (&Key, Option<Vector<'static>>)| match (key, row) {
            (_, Some(row)) => Ok(row),
            (Key::Value(program), None) => evaluate(program, tile),
            (Key::Row(_), None) => Err(DeviceError::Internal("a build row is not known".to_owned())),
        };
        self.keys.iter().zip(rows).map(value).collect()
    }

    /// A part of the aggregate's result, with the columns that were asked for instead of build rows.
    ///
    /// # Errors
    /// Memory is short.
    pub(super) fn expand(&self, (rows, before): Segment) -> Result<Segment, DeviceError> {
        if self.keys.iter().all(|key| matches!(key, Key::Value(_))) {
            return Ok((rows, before));
        }
        let mut positions: Vec<Option<Vec<u32>>> = Vec::with_capacity(self.keys.len());
        for (key, column) in self.keys.iter().zip(&before) {
            positions.push(match (key, &column.values) {
                (Key::Value(_), _) => None,
                (Key::Row(_), Values::Integers { carrier, base }) => {
                    Some((0..rows).map(|row| (base + carrier.get(row)) as u32).collect())
                }
                _ => return Err(DeviceError::Internal("build rows are not numbers".to_owned())),
            });
        }
        let mut columns = Vec::with_capacity(self.columns.len() + before.len() - self.keys.len());
        for origin in &self.columns {
            columns.push(match *origin {
                Origin::Key(key) => Arc::clone(&before[key]),
                Origin::Payload { key, column } => match (&self.keys[key], &positions[key]) {
                    (Key::Row(row), Some(positions)) => self.copy(&row.table.payload()[column], positions)?,
                    _ => return Err(DeviceError::Internal("a group's build row is not known".to_owned())),
                },
            });
        }
        columns.extend(before.into_iter().skip(self.keys.len()));
        Ok((rows, columns))
    }

    /// Some rows of a column.
    fn copy(&self, column: &DeviceColumn, positions: &[u32]) -> Result<Arc<DeviceColumn>, DeviceError> {
        let shape = column_shape(column);
        let vector = load(column, &shape, Picked::Positions(positions), self.isa)?;
        let mut builder = ColumnBuilder::new(&shape);
        lock(&self.copied).grow(builder.growth_bytes(Some(&vector), positions.len()))?;
        builder.push(&vector)?;
        Ok(Arc::new(builder.finish()))
    }
}

/// The row of a build side, as a key that is equal where the columns it stands for are.
struct RowKey {
    table: Arc<BuildTable>,
    /// A column of the tile that comes from the table.
    slot: usize,
    /// Columns of the table that are grouped by.
    columns: Vec<usize>,
    /// Those that are no strings; all, when all are.
    quick: Vec<usize>,
    first: Zeroed<AtomicU32>,
    shards: Vec<Mutex<Shard>>,
    _held: Reservation,
}

/// Rows that were met, those whose hashes end alike.
struct Shard {
    /// By the hash of their quick columns, one row for each hash.
    quick: Met,
    /// By the hash of all columns: those that differ from the row of their quick hash.
    rest: Met,
    held: Reservation,
}

impl RowKey {
    fn new(table: &Arc<BuildTable>, slot: usize, column: usize, inputs: &Inputs) -> Result<Self, DeviceError> {
        let mut held = Reservation::new(&inputs.pool);
        held.grow(table.rows() * size_of::<AtomicU32>())?;
        let shard = || Shard {
            quick: Met::default(),
            rest: Met::default(),
            held: Reservation::new(&inputs.pool),
        };
        Ok(Self {
            table: Arc::clone(table),
            slot,
            columns: vec![column],
            quick: Vec::new(),
            first: Zeroed::new(table.rows()),
            shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(),
            _held: held,
        })
    }

    /// Chooses the quick columns, when all columns are known.
    fn choose(&mut self) {
        let payload = self.table.payload();
        let is_quick = |column: &usize| !matches!(payload[*column].values, Values::Strings(_));
        self.quick = self.columns.iter().copied().filter(is_quick).collect();
        if self.quick.is_empty() {
            self.quick.clone_from(&self.columns);
        }
    }

    fn shape(&self) -> Shape {
        let most = self.table.rows().saturating_sub(1) as i128;
        Shape {
            range: Some((0, most)),
            ..Shape::of_type(trireme_device_api::Type::Int64, false)
        }
    }

    fn of(&self, tile: &Tile<'_>) -> Result<Vector<'static>, DeviceError> {
        let outside = || DeviceError::Internal("a tile's build rows are not known".to_owned());
        let positions = tile.positions(self.slot).ok_or_else(outside)?;
        let mut firsts = Vec::with_capacity(positions.len());
        for &row in &*positions {
            let first = self.first.get(row as usize).ok_or_else(outside)?;
            let first = match first.load(Ordering::Relaxed) {
                0 => self.meet(row)?,
                known => known - 1,
            };
            firsts.push(i64::from(first));
        }
        Ok(Vector::new(Data::I64(firsts.into())))
    }

    /// The first row that was met with this row's columns.
    fn meet(&self, row: u32) -> Result<u32, DeviceError> {
        let quick = self.hash(&self.quick, row);
        let mut shard = lock(&self.shards[quick as usize % SHARDS]);
        let Shard { quick: met, rest, held } = &mut *shard;
        let first = match met.find(quick, row, |_| true, held)? {
            None => row,
            Some(other) if self.same(other, row) => other,
            Some(_) => {
                let all = self.hash(&self.columns, row);
                let found = rest.find(all, row, |other| self.same(other, row), held)?;
                found.unwrap_or(row)
            }
        };
        self.first[row as usize].store(first + 1, Ordering::Relaxed);
        Ok(first)
    }

    fn hash(&self, columns: &[usize], row: u32) -> u64 {
        let payload = self.table.payload();
        columns.iter().fold(0, |hash, column| {
            let value = match value(&payload[*column], row as usize) {
                Cell::Null => 1,
                Cell::Number(number) => hash_u128(number),
                Cell::Bytes(bytes) => hash_bytes(bytes),
            };
            hash_u64(hash.rotate_left(1) ^ value)
        })
    }

    fn same(&self, one: u32, other: u32) -> bool {
        let payload = self.table.payload();
        one == other
            || self.columns.iter().all(|column| {
                let column = &payload[*column];
                value(column, one as usize) == value(column, other as usize)
            })
    }
}

/// A value, equal to those it is grouped with.
#[derive(PartialEq)]
enum Cell<'a> {
    Null,
    /// Of a column without strings; numbers of one column are compared with each other only.
    Number(u128),
    Bytes(&'a [u8]),
}

fn value(column: &DeviceColumn, row: usize) -> Cell<'_> {
    if column.is_null(row) {
        return Cell::Null;
    }
    Cell::Number(match &column.values {
        Values::Integers { carrier, .. } => (carrier.get(row).cast_unsigned()).into(),
        Values::Wide(values) => values[row].cast_unsigned(),
        Values::Booleans(values) => values.value(row).into(),
        Values::Codes { codes, .. } => codes.get(row).into(),
        Values::Strings(strings) => return Cell::Bytes(strings.get(row)),
        // Neither are grouped by their rows.
        Values::Float32(_) | Values::Float64(_) | Values::Intervals(_) | Values::Nulls => return Cell::Null,
    })
}

/// Rows by hash, open-addressed and at most half full; an entry is the hash's upper half and the row + 1.
#[derive(Default)]
struct Met {
    entries: Vec<u64>,
    used: usize,
}

impl Met {
    /// A row with this hash that is the `same`; without one, `row` is added.
    ///
    /// # Errors
    /// Memory is short.
    fn find(
        &mut self,
        hash: u64,
        row: u32,
        same: impl Fn(u32) -> bool,
        held: &mut Reservation,
    ) -> Result<Option<u32>, DeviceError> {
        if self.used * 2 >= self.entries.len() {
            self.grow(held)?;
        }
        let mask = self.entries.len() - 1;
        let mut place = (hash >> 32) as usize & mask;
        loop {
            let entry = self.entries[place];
            if entry == 0 {
                self.entries[place] = hash >> 32 << 32 | u64::from(row + 1);
                self.used += 1;
                return Ok(None);
            }
            let other = entry as u32 - 1;
            if (entry ^ hash) >> 32 == 0 && same(other) {
                return Ok(Some(other));
            }
            place = (place + 1) & mask;
        }
    }

    fn grow(&mut self, held: &mut Reservation) -> Result<(), DeviceError> {
        let length = (self.entries.len() * 2).max(64);
        held.grow((length - self.entries.len()) * size_of::<u64>())?;
        let mask = length - 1;
        let mut entries = vec![0_u64; length];
        for &entry in self.entries.iter().filter(|entry| **entry != 0) {
            let mut place = (entry >> 32) as usize & mask;
            while entries[place] != 0 {
                place = (place + 1) & mask;
            }
            entries[place] = entry;
        }
        self.entries = entries;
        Ok(())
    }
}
