//! The tables of build sides: which one, where it lies, how a key is looked up.

use super::super::{Key, KeyWord, Lowered, Lowering, Unsupported};
use super::BuildShape;
use super::link::{self, HashTable, half};
use super::probe::load;
use crate::build::{bool, place, u32, u64};
use crate::ir::{Elem, Expr as Ir, Scalar, Stmt, Var};
use crate::shape::RegionRef;

/// Words of a build side's tally.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tally {
    /// 1 when some row has a NULL key.
    NullKey = 0,
    /// 1 when some key of a dense table has a second row.
    Repeated = 1,
    /// Buckets in use minus one, of a hash table.
    Mask = 2,
}

/// Words of the tally.
pub(super) const TALLY_WORDS: u64 = 3;

/// How build rows are found by key.
#[derive(Debug, Clone)]
pub(super) enum Table {
    /// No keys: every row is a candidate.
    Every,
    /// A bit per key, 32 to an element.
    Bits(RegionRef),
    /// `heads[key]` and `next[row]`: row + 1 or 0.
    Dense {
        heads: RegionRef,
        /// None where keys are unique.
        next: Option<RegionRef>,
        /// A bit per key, as [`Table::Bits`], where the heads are too many for the cache and most are likely to be 0.
        bits: Option<RegionRef>,
    },
    /// Chains by hash.
    Hash(HashTable),
}

/// The rows that may match a key, one after another.
pub(super) struct Walk {
    /// U32: the next candidate + 1, 0 after the last.
    pub(super) head: Var,
    /// Bool: rows after the first are to be looked for, of dense tables.
    repeated: Option<Ir>,
    /// U32, of hash tables: what the entries' upper halves are compared with.
    half: Option<Var>,
}

impl Lowering<'_> {
    /// The key's bit; false where `absent`.
    pub(super) fn join_bit(&mut self, bits: RegionRef, key: &Key, absent: Option<Ir>) -> Lowered<Var> {
        let found = self.b.set(Scalar::Bool, bool(false));
        let base = self.base(bits);
        let bit = key_number(key);
        self.unless(absent, |l| {
            let index = bit.clone().shr(u64(5));
            let word = l.b.load(place(Elem::U32, base, index));
            let shift = bit.to(Scalar::U32).and(u32(31));
            l.b.assign(found, Ir::from(word).shr(shift).and(u32(1)).ne(u32(0)));
            Ok(())
        })?;
        Ok(found)
    }

    /// The first candidate of a key; none where `absent`.
    pub(super) fn join_walk(&mut self, build: &BuildShape, key: &Key, absent: Option<Ir>) -> Lowered<Walk> {
        let head = self.b.set(Scalar::U32, u32(0));
        let (mut repeated, mut hashed) = (None, None);
        match &build.table {
            Table::Every => {
                let count = load(self, build.count, 0);
                self.b.assign(head, count.to(Scalar::U32));
            }
            Table::Bits(_) => return Err(Unsupported("rows of a bitmap".to_owned())),
            Table::Dense { heads, next, bits } => {
                let base = self.base(*heads);
                let index = key_number(key);
                let absent = match bits {
                    Some(bits) => Some(Ir::from(self.join_bit(*bits, key, absent)?).not()),
                    None => absent,
                };
                self.unless(absent, |l| {
                    let first = l.b.load(place(Elem::U32, base, index));
                    l.b.assign(head, first.into());
                    Ok(())
                })?;
                if next.is_some() {
                    let word = load(self, build.tally, Tally::Repeated as usize);
                    repeated = Some(self.b.set(Scalar::Bool, word.ne(u64(0))).into());
                }
            }
            Table::Hash(table) => {
                let tag = self.b.set(Scalar::U32, u32(0));
                self.unless(absent, |l| {
                    let hash = l.hash(key);
                    l.b.assign(tag, half(hash.into()));
                    let mask = load(l, build.tally, Tally::Mask as usize);
                    link::look_up(l, table, (tag.into(), mask), head)
                })?;
                hashed = Some(tag);
            }
        }
        Ok(Walk {
            head,
            repeated,
            half: hashed,
        })
    }

    /// Calls `inside` for each candidate whose key is equal, with its number (U32), until the last one or a break.
    pub(super) fn join_each(
        &mut self,
        build: &BuildShape,
        key: &Key,
        walk: &Walk,
        inside: &mut dyn FnMut(&mut Self, Ir) -> Lowered<()>,
    ) -> Lowered<()> {
        if let Table::Dense { next: None, .. } = build.table {
            let found = Ir::from(walk.head).ne(u32(0));
            return self.repeat(|l| {
                l.b.when(found.not(), |b| b.push(Stmt::Break));
                let at = l.b.set(Scalar::U32, Ir::from(walk.head).minus(u32(1)));
                inside(l, at.into())?;
                l.b.push(Stmt::Break);
                Ok(())
            });
        }
        self.repeat(|l| {
            l.b.when(Ir::from(walk.head).eq(u32(0)), |b| b.push(Stmt::Break));
            l.join_candidate(build, key, walk, inside)
        })
    }

    /// One candidate, and on to the next.
    pub(super) fn join_candidate(
        &mut self,
        build: &BuildShape,
        key: &Key,
        walk: &Walk,
        inside: &mut dyn FnMut(&mut Self, Ir) -> Lowered<()>,
    ) -> Lowered<()> {
        let at = self.b.set(Scalar::U32, Ir::from(walk.head).minus(u32(1)));
        match &build.table {
            Table::Every | Table::Bits(_) => {
                self.b.assign(walk.head, at.into());
                inside(self, at.into())
            }
            Table::Dense { next, .. } => {
                self.b.assign(walk.head, u32(0));
                if let (Some(next), Some(repeated)) = (next, &walk.repeated) {
                    let base = self.base(*next);
                    self.when(repeated.clone(), |l| {
                        let following = l.b.load(place(Elem::U32, base, at.into()));
                        l.b.assign(walk.head, following.into());
                        Ok(())
                    })?;
                }
                inside(self, at.into())
            }
            Table::Hash(table) => self.join_entry(table, key, walk, at.into(), inside),
        }
    }

    /// A candidate of a hash table, whose key may be another.
    fn join_entry(
        &mut self,
        table: &HashTable,
        key: &Key,
        walk: &Walk,
        at: Ir,
        inside: &mut dyn FnMut(&mut Self, Ir) -> Lowered<()>,
    ) -> Lowered<()> {
        let base = self.base(table.entries);
        let first = at.clone().to(Scalar::U64).times(u64(table.words + 1));
        let first = self.b.set(Scalar::U64, first);
        let word = |b: &mut crate::build::Builder, word: u64| {
            b.load(place(Elem::U64, base.clone(), Ir::from(first).plus(u64(word))))
        };
        let last = word(&mut self.b, table.words);
        self.b.assign(walk.head, Ir::from(last).to(Scalar::U32));
        let is_text = key.words.iter().any(|word| matches!(word, KeyWord::Text(_)));
        let compare = |l: &mut Self, inside: &mut dyn FnMut(&mut Self, Ir) -> Lowered<()>| {
            let stored: Vec<Ir> = (0..table.words).map(|at| word(&mut l.b, at).into()).collect();
            let equal = l.equal(key, &stored);
            l.when(equal, |l| inside(l, at))
        };
        match walk.half {
            // What takes long to compare, or to load, is only compared where the hashes are equal.
            Some(tag) if is_text || table.words > 1 => {
                let same = half(last.into()).eq(tag.into());
                self.when(same, |l| compare(l, inside))
            }
            _ => compare(self, inside),
        }
    }

    /// Runs `inside` where a condition, if there is one, is false.
    pub(super) fn unless(
        &mut self,
        condition: Option<Ir>,
        inside: impl FnOnce(&mut Self) -> Lowered<()>,
    ) -> Lowered<()> {
        match condition {
            Some(condition) => self.when(condition.not(), inside),
            None => inside(self),
        }
    }
}

/// The number that a dense key is.
pub(super) fn key_number(key: &Key) -> Ir {
    key.words.first().map_or(u64(0), KeyWord::ir)
}

/// Either of two conditions, where both may be absent.
pub(super) fn either(first: Option<Ir>, second: Option<Ir>) -> Option<Ir> {
    match (first, second) {
        (Some(first), Some(second)) => Some(first.or(second)),
        (first, second) => first.or(second),
    }
}
