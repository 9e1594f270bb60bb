//! The first or last row of a group in some order: FIRST, LAST, and extremes of values that are no single word.
//!
//! ```text
//!  slot's word: entry + 1 ─▶ entries: [ words of the order | value ]      written, fence, then published
//! ```
//!
//! A row that comes before what the slot names writes an entry of its own and puts that in its place, or sees that somebody
//! else was better meanwhile. Entries that were replaced stay, for others may still read them; there are never more than
//! rows.

use trireme_device_api::{Expr, SortKey};

use super::cells::Shared;
use super::known::Known;
use crate::build::{bool, i32, place, u64};
use crate::ir::{Atomic, Elem, Expr as Ir, Scalar, Stmt, Target, Unary, Var};
use crate::lower::sort::order::{Order, compare_words};
use crate::lower::{Kind, Lowered, Lowering, Row, Unsupported, Value};
use crate::program::{Fill, Lifetime, Region, Word};
use crate::shape::RegionRef;

/// The least guess of the number of entries.
const ENTRIES_MIN: u64 = 1 << 16;

/// What is looked for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// The value to keep.
    pub(super) argument: Expr,
    pub(super) known: Known,
    /// Position among the filters.
    pub(super) filter: Option<usize>,
    pub(super) keys: Vec<SortKey>,
    /// The last in the order of the keys, not the first.
    pub(super) last: bool,
    /// Rows whose value is NULL don't count.
    pub(super) values_only: bool,
    /// The slot's word.
    pub(super) at: u32,
}

/// The entries of one aggregate.
pub(super) struct Best {
    pub(super) wanted: Wanted,
    /// Made by the first row.
    order: Option<Order>,
    entries: Option<RegionRef>,
    capacity: u64,
    /// U64: entries taken.
    taken: RegionRef,
    /// U64: an entry of this work-item's, plus one, that nobody knows of.
    spare: Option<Var>,
}

impl Best {
    pub(super) fn new(l: &mut Lowering<'_>, wanted: Wanted) -> Self {
        let guess = (l.rows_guess() / 4)
            .max(ENTRIES_MIN)
            .max(l.target.work_items.into())
            .max(l.bound.hints.capacity.unwrap_or(0));
        Self {
            wanted,
            order: None,
            entries: None,
            capacity: guess.min(l.rows_bound().unwrap_or(u64::MAX)).max(1),
            taken: l.region(Region {
                name: "best entries".to_owned(),
                bytes: 8,
                fill: Fill::Byte(0),
                lifetime: Lifetime::Scratch,
            }),
            spare: None,
        }
    }

    /// At the start of a kernel.
    pub(super) fn begin(&mut self, l: &mut Lowering<'_>) {
        self.spare = Some(l.b.set(Scalar::U64, u64(0)));
    }

    /// A row of the slot.
    pub(super) fn row(&mut self, l: &mut Lowering<'_>, row: &mut Row, slot: &Shared) -> Lowered<()> {
        let value = l.expr(row, &self.wanted.argument)?;
        if !self.wanted.values_only {
            return self.offer(l, row, &value, slot);
        }
        match value.null.clone() {
            _ if matches!(value.shape.kind, Kind::Null) => Ok(()),
            None => self.offer(l, row, &value, slot),
            Some(null) => {
                let mut inner = row.clone();
                l.when(null.not(), |l| self.offer(l, &mut inner, &value, slot))
            }
        }
    }

    fn offer(&mut self, l: &mut Lowering<'_>, row: &mut Row, value: &Value, slot: &Shared) -> Lowered<()> {
        let keys = self.wanted.keys.clone();
        let mut mine = l.order_words(&keys, &mut self.order, row)?;
        let order = self.order.as_ref().map_or_else(Vec::new, |order| order.words.clone());
        let mut words: Vec<Ir> = mine.drain(..).map(|word| word.ir).collect();
        words.extend(self.stored(l, value)?);
        let entries = self.entries(l, words.len());
        let entries = l.base(entries);
        let width = words.len() as u64;
        let spare = self
            .spare
            .ok_or_else(|| Unsupported("an entry outside of a kernel".to_owned()))?;
        let target = slot.target(self.wanted.at);
        let held = l.b.fetch(Scalar::U64, target.clone(), Atomic::Load);
        let ready = l.b.set(Scalar::Bool, bool(false));
        let comparer = l.comparer(&order);
        l.repeat(|l| {
            l.b.when(Ir::from(held).ne(u64(0)), |b| {
                b.push(Stmt::Fence);
                let first = b.set(Scalar::U64, Ir::from(held).minus(u64(1)).times(u64(width)));
                let compared = compare_words(b, (&order, 0), comparer, &mut |_, index| {
                    let index_ir = Ir::from(first).plus(u64(index as u64));
                    let place = place(Elem::U64, entries.clone(), index_ir);
                    let constant = false;
                    (words[index].clone(), Ir::Load { place, constant })
                });
                let worse = match self.wanted.last {
                    false => Ir::from(compared).ge(i32(0)),
                    true => Ir::from(compared).le(i32(0)),
                };
                b.when(worse, |b| b.push(Stmt::Break));
            });
            l.when(Ir::from(ready).not(), |l| {
                self.take(l, spare);
                let first = l.b.set(Scalar::U64, Ir::from(spare).minus(u64(1)).times(u64(width)));
                for (index, word) in (0..).zip(&words) {
                    let place = place(Elem::U64, entries.clone(), Ir::from(first).plus(u64(index)));
                    l.b.store(place, word.clone());
                }
                l.b.assign(ready, bool(true));
                Ok(())
            })?;
            l.b.push(Stmt::Fence);
            let (expected, value) = (held.into(), spare.into());
            let seen =
                l.b.fetch(Scalar::U64, target, Atomic::CompareExchange { expected, value });
            l.b.when(Ir::from(seen).eq(held.into()), |b| {
                b.assign(spare, u64(0));
                b.push(Stmt::Break);
            });
            l.b.assign(held, seen.into());
            Ok(())
        })
    }

    /// An entry to write; leaves the loop where there is none left.
    fn take(&self, l: &mut Lowering<'_>, spare: Var) {
        let taken = l.base(self.taken);
        let capacity = l.word(Word::Value(self.capacity));
        let needed = l.word(Word::Value(self.capacity.saturating_mul(4)));
        l.b.begin();
        let target = Target::Arena(place(Elem::U64, taken, u64(0)));
        let entry = l.b.fetch(Scalar::U64, target, Atomic::Add(u64(1)));
        l.b.begin();
        l.capacity_fault(needed);
        l.b.push(Stmt::Break);
        let full = l.b.end();
        l.b.push(Stmt::If {
            condition: Ir::from(entry).ge(capacity),
            then: full,
            otherwise: Vec::new(),
        });
        l.b.assign(spare, Ir::from(entry).plus(u64(1)));
        let then = l.b.end();
        l.b.push(Stmt::If {
            condition: Ir::from(spare).eq(u64(0)),
            then,
            otherwise: Vec::new(),
        });
    }

    fn entries(&mut self, l: &mut Lowering<'_>, width: usize) -> RegionRef {
        let capacity = self.capacity;
        *self.entries.get_or_insert_with(|| {
            l.region(Region {
                name: "best rows".to_owned(),
                bytes: capacity * width as u64 * 8,
                fill: Fill::Nothing,
                lifetime: Lifetime::Scratch,
            })
        })
    }

    /// Words of the kept value: whether it is one, where it may be NULL; then itself.
    fn stored(&self, l: &mut Lowering<'_>, value: &Value) -> Lowered<Vec<Ir>> {
        let known = &self.wanted.known;
        let null = match (&value.shape.kind, &value.null) {
            (Kind::Null, _) => bool(true),
            (_, null) => null.clone().unwrap_or(bool(false)),
        };
        let mut words = Vec::new();
        if self.flagged() {
            words.push(null.clone().select(u64(0), u64(1)));
        }
        let ir = value.ir.clone();
        let bits = match (&known.shape.kind, &value.shape.kind) {
            (kind, Kind::Null) => vec![u64(0); kept_words(kind)],
            (Kind::Boolean, Kind::Boolean) => vec![ir.select(u64(1), u64(0))],
            (Kind::Integer(Scalar::I128), Kind::Integer(lane)) => {
                let wide = if *lane == Scalar::I128 { ir } else { ir.to(Scalar::I128) };
                let wide: Ir = l.b.set(Scalar::I128, wide).into();
                let high = Ir::Unary(Unary::High, Box::new(wide.clone()));
                vec![wide.to(Scalar::U64), high.to(Scalar::U64)]
            }
            (Kind::Integer(_), Kind::Integer(_)) | (Kind::Code(_), Kind::Code(_)) => vec![ir.to(Scalar::U64)],
            (Kind::Float32, Kind::Float32) => vec![ir.bits(Scalar::U32).to(Scalar::U64)],
            (Kind::Float64, Kind::Float64) => vec![ir.bits(Scalar::U64)],
            (Kind::Text, Kind::Text) => vec![ir],
            _ => return Err(Unsupported("FIRST or LAST of values that differ in shape".to_owned())),
        };
        words.extend(bits);
        Ok(words
            .into_iter()
            .map(|word| l.b.set(Scalar::U64, word).into())
            .collect())
    }

    fn flagged(&self) -> bool {
        self.wanted.known.nullable && !self.wanted.values_only
    }

    /// The value that the slot's word names. For kernels that run later.
    pub(super) fn result(&self, l: &mut Lowering<'_>, word: &Ir, nullable: bool) -> Lowered<Value> {
        let known = &self.wanted.known;
        let (Some(entries), Some(order)) = (self.entries, &self.order) else {
            let value = known.value(bool(false), Some(bool(true)));
            return Ok(Known::nothing(&value.shape.data_type).value(value.ir, value.null));
        };
        let none: Ir = l.b.set(Scalar::Bool, word.clone().eq(u64(0))).into();
        let kept = kept_words(&known.shape.kind);
        let width = (order.words.len() + usize::from(self.flagged()) + kept) as u64;
        let base = l.base(entries);
        let read: Vec<Var> = (0..kept + usize::from(self.flagged()))
            .map(|_| l.b.set(Scalar::U64, u64(0)))
            .collect();
        let first = word
            .clone()
            .minus(u64(1))
            .times(u64(width))
            .plus(u64(order.words.len() as u64));
        l.b.when(none.clone().not(), |b| {
            let first = b.set(Scalar::U64, first);
            for (index, var) in (0..).zip(&read) {
                let place = place(Elem::U64, base.clone(), Ir::from(first).plus(u64(index)));
                b.assign(*var, Ir::Load { place, constant: true });
            }
        });
        let null = match (self.flagged(), nullable) {
            (true, _) => Some(l.b.set(Scalar::Bool, Ir::from(read[0]).eq(u64(0))).into()),
            (false, true) => Some(none.clone()),
            (false, false) => None,
        };
        let words: Vec<Ir> = read[usize::from(self.flagged())..]
            .iter()
            .map(|var| (*var).into())
            .collect();
        Ok(known.value(restored(l, known, &words), null))
    }
}

fn kept_words(kind: &Kind) -> usize {
    match kind {
        Kind::Integer(Scalar::I128) => 2,
        _ => 1,
    }
}

/// The value of kept words, in its register; 0 stands where none was kept.
fn restored(l: &mut Lowering<'_>, known: &Known, words: &[Ir]) -> Ir {
    let word = words[0].clone();
    match &known.shape.kind {
        Kind::Boolean => l.b.set(Scalar::Bool, word.ne(u64(0))),
        Kind::Integer(Scalar::I128) => l.b.set(Scalar::I128, super::result::wide(word, words[1].clone())),
        Kind::Integer(lane) => l.b.set(*lane, word.to(*lane)),
        Kind::Code(_) => l.b.set(Scalar::U32, word.to(Scalar::U32)),
        Kind::Float32 => l.b.set(Scalar::F32, word.to(Scalar::U32).bits(Scalar::F32)),
        Kind::Float64 => l.b.set(Scalar::F64, word.bits(Scalar::F64)),
        Kind::Text | Kind::Null => l.b.set(Scalar::U64, word),
    }
    .into()
}
