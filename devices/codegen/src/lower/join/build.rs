//! The sink that makes a build side: rows are stored column by column, and their keys put into a table.

use trireme_device_api::{BuildSide, Expr, FragmentId, Graph, Node, Source, Step};

use super::super::emit::RowStore;
use super::super::partition::Large;
use super::super::{Key, KeyShape, Lowered, Lowering, Nulls, Row, Sink, Unsupported, Value};
use super::table::{TALLY_WORDS, Table, Tally, key_number};
use super::unique::has_unique_keys;
use super::uses::Uses;
use super::{BuildShape, ROWS_MAX};
use crate::build::{bool, place, u32, u64};
use crate::ir::{Atomic, Elem, Expr as Ir, Scalar, Target, Var};
use crate::program::{Fill, Lifetime, ProgramOutput, Region};
use crate::shape::RegionRef;

/// Tables of heads by key with up to so many keys are always taken.
const DENSE_ALWAYS: u64 = 1 << 20;

/// And up to so many keys per row.
const DENSE_PER_ROW: u64 = 8;

/// As for heads, but a bit per key.
const BITS_ALWAYS: u64 = 1 << 23;
const BITS_PER_ROW: u64 = 128;

/// In the last word of an entry, instead of the next row: the row has no key that equals any.
pub(super) const NOT_KEYED: u64 = u32::MAX as u64;

/// The sink of a build side.
pub(crate) fn build_sink(l: &mut Lowering<'_>, side: &BuildSide) -> Lowered<Box<dyn Sink>> {
    let capacity = l.rows_guess().max(1);
    if capacity > ROWS_MAX {
        return Err(Unsupported("a build side of more rows than kernels number".to_owned()));
    }
    let exact = l.rows_bound().is_some();
    let store = RowStore::new(l, "build", capacity, Lifetime::Output);
    let tally = region(l, "build tally", TALLY_WORDS * 8, Fill::Byte(0));
    let mut build = Build {
        uses: Uses::of(l.graph, l.fragment),
        unique: (exact && capacity == 1) || has_unique_keys(l.graph, l.fragment, side),
        side: side.clone(),
        exact,
        store,
        tally,
        layout: None,
        waiting: None,
        noted: None,
    };
    if l.bound.hints.partition.is_some()
        && let Some(keys) = l.look(&|l, row| side.keys.iter().map(|key| l.expr(row, key)).collect())?
    {
        build.layout(l, &keys)?;
    }
    Ok(Box::new(build))
}

/// Memory that lives as long as the build side.
pub(super) fn region(l: &mut Lowering<'_>, name: &str, bytes: u64, fill: Fill) -> RegionRef {
    l.region(Region {
        name: name.to_owned(),
        bytes,
        fill,
        lifetime: Lifetime::Output,
    })
}

struct Build {
    side: BuildSide,
    uses: Uses,
    unique: bool,
    /// No more rows arrive than there is room for.
    exact: bool,
    store: RowStore,
    tally: RegionRef,
    /// Chosen when the first row is lowered.
    layout: Option<Layout>,
    /// The key of the row that waits for its place.
    waiting: Option<Key>,
    noted: Option<Noted>,
}

/// Bool, by kernel and work-item: what it has noted already, or found noted.
#[derive(Clone, Copy)]
struct Noted {
    /// [`Tally::NullKey`].
    null_key: Var,
    /// [`Tally::Repeated`].
    repeated: Var,
    /// That there are rows, where they aren't counted.
    some: Var,
}

#[derive(Clone)]
struct Layout {
    scales: Vec<i8>,
    key: KeyShape,
    table: Table,
}

impl Build {
    fn layout(&mut self, l: &mut Lowering<'_>, keys: &[Value]) -> Lowered<Layout> {
        if let Some(layout) = &self.layout {
            return Ok(layout.clone());
        }
        let nulls = if self.uses.nulls_equal {
            Nulls::Group
        } else {
            Nulls::Any
        };
        let key = KeyShape::of(keys, nulls);
        let table = self.choose(l, &key);
        let layout = Layout {
            scales: keys.iter().map(super::probe::scale).collect(),
            key,
            table,
        };
        self.layout = Some(layout.clone());
        Ok(layout)
    }

    fn choose(&self, l: &mut Lowering<'_>, key: &KeyShape) -> Table {
        let rows = self.store.capacity;
        let filtered = is_filtered(l.graph, l.fragment);
        let dense = key.dense().map(|keys| keys.max(1));
        if self.side.keys.is_empty() {
            return Table::Every;
        }
        if let Some(keys) = dense.filter(|keys| *keys <= BITS_ALWAYS || *keys / BITS_PER_ROW <= rows)
            && !self.uses.rows
        {
            return Table::Bits(bits(l, keys));
        }
        if let Some(keys) = dense.filter(|keys| *keys <= DENSE_ALWAYS || *keys / DENSE_PER_ROW <= rows) {
            let heads = region(l, "build heads", keys * 4, Fill::Byte(0));
            let next = (!self.unique).then(|| region(l, "build next", rows * 4, Fill::Nothing));
            let bits = (filtered && keys > l.cached_words()).then(|| bits(l, keys));
            return Table::Dense { heads, next, bits };
        }
        Table::Hash(super::link::hash_table(l, rows, key.words() as u64, filtered))
    }

    /// The row's payload, as far as it is needed; what may fail is computed all the same.
    fn payload(&self, l: &mut Lowering<'_>, row: &mut Row) -> Lowered<Vec<Value>> {
        let mut values = Vec::new();
        for (expr, used) in self.side.payload.iter().zip(&self.uses.payload) {
            if *used {
                values.push(l.expr(row, expr)?);
            } else if !is_plain(expr) {
                l.expr(row, expr)?;
            }
        }
        Ok(values)
    }

    fn noted(&self) -> Lowered<Noted> {
        let outside = || Unsupported("a row outside of a kernel".to_owned());
        self.noted.ok_or_else(outside)
    }

    fn entering<'t>(&self, table: &'t Table) -> Lowered<Entering<'t>> {
        Ok(Entering {
            table,
            tally: self.tally,
            repeated: self.noted()?.repeated,
        })
    }

    /// A row whose key is all that counts.
    fn existence(&self, l: &mut Lowering<'_>, bits: RegionRef, key: &Key) -> Lowered<()> {
        if self.uses.null_aware {
            let count = l.base(self.store.count);
            note(l, Target::Arena(place(Elem::U64, count, u64(0))), self.noted()?.some)?;
        }
        l.unless(key.null.clone(), |l| {
            set_bit(l, bits, key);
            Ok(())
        })
    }
}

/// A bit per key.
fn bits(l: &mut Lowering<'_>, keys: u64) -> RegionRef {
    region(l, "build bits", keys.div_ceil(32) * 4, Fill::Byte(0))
}

fn set_bit(l: &mut Lowering<'_>, bits: RegionRef, key: &Key) {
    let base = l.base(bits);
    let number = key_number(key);
    let target = Target::Arena(place(Elem::U32, base, number.clone().shr(u64(5))));
    let bit = u32(1).shl(number.to(Scalar::U32).and(u32(31)));
    l.b.atomic(target, Atomic::Or(bit));
}

/// Some of the rows that there were are left out on the way to a fragment's sink.
fn is_filtered(graph: &Graph, fragment: FragmentId) -> bool {
    let Some(fragment) = graph.fragments.get(fragment) else {
        return false;
    };
    let leaves_out = |step: &Step| !matches!(step, Step::Project(_));
    let before = match fragment.source {
        Source::Fragment(source) => is_filtered(graph, source),
        Source::Scan(_) | Source::Stream(_) => false,
    };
    before || fragment.steps.iter().any(leaves_out)
}

/// It can't fail.
fn is_plain(expr: &Expr) -> bool {
    matches!(expr.node, Node::Column(_) | Node::Literal(_) | Node::Parameter(_))
}

fn tally_target(l: &mut Lowering<'_>, tally: RegionRef, word: Tally) -> Target {
    let base = l.base(tally);
    Target::Arena(place(Elem::U64, base, u64(word as u64)))
}

/// Sets a word to 1, without looking at it again and again.
fn note(l: &mut Lowering<'_>, target: Target, noted: Var) -> Lowered<()> {
    l.when(Ir::from(noted).not(), |l| {
        l.b.assign(noted, bool(true));
        let known = l.b.fetch(Scalar::U64, target.clone(), Atomic::Load);
        l.when(Ir::from(known).eq(u64(0)), |l| {
            l.b.atomic(target, Atomic::Store(u64(1)));
            Ok(())
        })
    })
}

/// Where rows are entered.
struct Entering<'t> {
    table: &'t Table,
    tally: RegionRef,
    /// See [`Noted`].
    repeated: Var,
}

/// Puts the row at `at` (U64) into the table.
fn enter(l: &mut Lowering<'_>, into: &Entering<'_>, key: &Key, at: &Ir) -> Lowered<()> {
    match into.table {
        Table::Every | Table::Bits(_) => Ok(()),
        Table::Dense { heads, next, bits } => {
            let (heads, next) = (l.base(*heads), next.map(|next| l.base(next)));
            let (number, at) = (key_number(key), at.clone());
            l.unless(key.null.clone(), |l| {
                if let Some(bits) = bits {
                    set_bit(l, *bits, key);
                }
                let target = Target::Arena(place(Elem::U32, heads, number));
                let entry = at.clone().to(Scalar::U32).plus(u32(1));
                let Some(next) = next else {
                    l.b.atomic(target, Atomic::Store(entry));
                    return Ok(());
                };
                let old = l.b.fetch(Scalar::U32, target, Atomic::Exchange(entry));
                l.b.store(place(Elem::U32, next, at), old.into());
                l.when(Ir::from(old).ne(u32(0)), |l| {
                    let repeated = tally_target(l, into.tally, Tally::Repeated);
                    note(l, repeated, into.repeated)
                })
            })
        }
        Table::Hash(hash) => super::link::store_entry(l, hash, key, at),
    }
}

impl Sink for Build {
    fn large(&self) -> Option<Large> {
        match &self.layout.as_ref()?.table {
            Table::Hash(table) => table.large(self.store.capacity),
            Table::Every | Table::Bits(_) | Table::Dense { .. } => None,
        }
    }

    fn hash(&mut self, l: &mut Lowering<'_>, row: &mut Row) -> Lowered<Ir> {
        let keys: Vec<Value> = self
            .side
            .keys
            .iter()
            .map(|key| l.expr(row, key))
            .collect::<Lowered<_>>()?;
        let layout = self.layout(l, &keys)?;
        let key = l.key(&layout.key, &keys)?;
        Ok(l.hash(&key).into())
    }

    fn begin(&mut self, l: &mut Lowering<'_>) -> Lowered<()> {
        let [null_key, repeated, some] = [(); 3].map(|()| l.b.set(Scalar::Bool, bool(false)));
        self.noted = Some(Noted {
            null_key,
            repeated,
            some,
        });
        self.store.begin(l)
    }

    fn row(&mut self, l: &mut Lowering<'_>, row: &mut Row) -> Lowered<()> {
        let mut keys = Vec::new();
        for key in &self.side.keys {
            keys.push(l.expr(row, key)?);
        }
        let payload = self.payload(l, row)?;
        let layout = self.layout(l, &keys)?;
        let key = if keys.is_empty() {
            Key {
                words: Vec::new(),
                null: None,
                impossible: None,
            }
        } else {
            l.key(&layout.key, &keys)?
        };
        if self.uses.null_aware
            && let Some(null) = super::probe::any_null(l, &keys)
        {
            let target = tally_target(l, self.tally, Tally::NullKey);
            let noted = self.noted()?.null_key;
            l.when(null, |l| note(l, target, noted))?;
        }
        if let Table::Bits(bits) = layout.table {
            return self.existence(l, bits, &key);
        }
        let kept_anyway = self.uses.unmatched || self.uses.null_aware;
        let absent = key.null.clone().filter(|_| !kept_anyway);
        let into = self.entering(&layout.table)?;
        let (store, cuts) = (&mut self.store, !self.exact);
        l.unless(absent, |l| {
            store.row_then(l, payload, 0, cuts, &mut |l, at| enter(l, &into, &key, at))
        })?;
        self.waiting = Some(key);
        Ok(())
    }

    fn slot_end(&mut self, l: &mut Lowering<'_>) -> Lowered<()> {
        let (Some(layout), Some(key)) = (&self.layout, self.waiting.take()) else {
            return Ok(());
        };
        let layout = layout.clone();
        let (into, cuts) = (self.entering(&layout.table)?, !self.exact);
        self.store
            .slot_end_then(l, 0, cuts, &mut |l, at| enter(l, &into, &key, at))
    }

    fn end(&mut self, _: &mut Lowering<'_>) -> Lowered<()> {
        self.store.end();
        self.waiting = None;
        Ok(())
    }

    fn finish(&mut self, l: &mut Lowering<'_>) -> Lowered<ProgramOutput> {
        let Some(layout) = self.layout.clone() else {
            return Err(Unsupported("no row reaches the build side".to_owned()));
        };
        if !self.exact && !matches!(layout.table, Table::Bits(_)) {
            self.store.cut(l, 0, u64::MAX)?;
        }
        if let Table::Hash(hash) = &layout.table {
            super::link::kernels(l, hash, (self.store.count, self.tally, self.store.capacity))?;
        }
        let mut stored = self.store.columns.clone().unwrap_or_default().into_iter();
        let columns = self
            .uses
            .payload
            .iter()
            .map(|used| used.then(|| stored.next()).flatten());
        Ok(ProgramOutput::Build(BuildShape {
            scales: layout.scales,
            key: layout.key,
            nulls_equal: self.uses.nulls_equal,
            table: layout.table,
            columns: columns.collect(),
            count: self.store.count,
            tally: self.tally,
            bound: self.store.capacity,
            unique: self.unique,
        }))
    }
}
