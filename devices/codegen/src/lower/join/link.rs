//! Hash tables of build sides: entries are stored with their rows, and put into chains when all rows are known.
//!
//! ```text
//!  main    entries[row] = key's words, (hash << 32 | 0)
//!  zero    heads[0 … buckets) = 0            buckets: a power of two ≥ 2 × rows that there are, which the device counts
//!  link    heads[top bits of hash] = row + 1,   entries[row]'s last word = hash << 32 | what was there before
//! ```
//!
//! So a filtered build side has a table of the size of what is left, however many rows it might have been.
//!
//! Where rows are filtered before they are built from, most rows that probe have no match: a Bloom filter, a sixteenth as many
//! blocks of 64 bits as there are buckets, keeps them away from a table that is too large for the cache.

use super::super::partition::Large;
use super::super::{Key, KeyWord, Lowered, Lowering};
use super::build::{NOT_KEYED, region};
use super::table::Tally;
use crate::build::{bool, place, u32, u64};
use crate::ir::{Atomic, Elem, Expr as Ir, Scalar, Target, Unary, Var};
use crate::program::{Fill, Groups, When};
use crate::shape::RegionRef;

/// The fewest buckets.
const BUCKETS_MIN: u64 = 64;

/// Up to so many buckets are cleared before the first launch, all of them; else a kernel clears those in use.
const CLEARED_BEFORE: u64 = if cfg!(test) { 64 } else { 1 << 16 };

/// Where a hash table lies.
#[derive(Debug, Clone)]
pub(super) struct HashTable {
    /// U32 by the high half of a key's hash, masked: row + 1 or 0.
    pub(super) heads: RegionRef,
    /// Blocks of bits, U64.
    pub(super) bloom: Option<RegionRef>,
    /// By row, U64: the key's words; then the high half of its hash over the next row + 1, or 0.
    pub(super) entries: RegionRef,
    pub(super) words: u64,
    /// Rows are put in order for it, in so many bytes of memory.
    pub(super) partition: Option<u64>,
}

fn buckets(rows: u64) -> u64 {
    (rows * 2).next_power_of_two().max(BUCKETS_MIN)
}

/// Buckets for which one block of the Bloom filter stands: a power of two.
const BUCKETS_PER_BLOCK: u32 = 16;

/// Memory of a hash table; with a Bloom filter if probes are expected to find little.
pub(super) fn hash_table(l: &mut Lowering<'_>, rows: u64, words: u64, selective: bool) -> HashTable {
    let blooms = selective && buckets(rows) > l.cached_words();
    let bloom = blooms.then(|| {
        let blocks = buckets(rows) / u64::from(BUCKETS_PER_BLOCK);
        region(l, "build bloom", blocks * 8, Fill::Nothing)
    });
    let fill = if buckets(rows) <= CLEARED_BEFORE {
        Fill::Byte(0)
    } else {
        Fill::Nothing
    };
    HashTable {
        heads: region(l, "build heads", buckets(rows) * 4, fill),
        bloom,
        entries: region(l, "build entries", rows * (words + 1) * 8, Fill::Nothing),
        words,
        partition: l.bound.hints.partition,
    }
}

impl HashTable {
    /// For so many rows.
    pub(super) fn large(&self, rows: u64) -> Option<Large> {
        Some(Large {
            bytes: rows * self.row_bytes(),
            room_bytes: self.partition?,
        })
    }

    fn row_bytes(&self) -> u64 {
        // Two buckets at least.
        2 * 4 + (self.words + 1) * 8
    }
}

impl Lowering<'_> {
    /// Tables of 32-bit words are in the device's cache up to so many words.
    pub(crate) fn cached_words(&self) -> u64 {
        match self.target.wide {
            _ if cfg!(test) => 32,
            true => 1 << 23,
            false => 1 << 18,
        }
    }
}

/// A key's block (by its number, U64) and its bits in it (U64).
fn bloom_bits(l: &mut Lowering<'_>, hash: Ir, mask: Ir) -> (Ir, Ir) {
    let mixed = l.b.set(Scalar::U64, hash.times(u64(0x9e37_79b9_7f4a_7c15)));
    let blocks = mask.shr(u64(BUCKETS_PER_BLOCK.trailing_zeros().into()));
    let block = Ir::from(mixed).shr(u64(32)).and(blocks);
    let bit = |shift: u64| u64(1).shl(Ir::from(mixed).shr(u64(shift)).and(u64(63)));
    let bits = bit(2).or(bit(8)).or(bit(14)).or(bit(20));
    (block, l.b.set(Scalar::U64, bits).into())
}

/// The first row + 1 of the bucket of a hash's upper half (U32), or 0: assigned to `head`.
pub(super) fn look_up(l: &mut Lowering<'_>, table: &HashTable, (half, mask): (Ir, Ir), head: Var) -> Lowered<()> {
    let heads = l.base(table.heads);
    let wide = l.b.set(Scalar::U64, half.to(Scalar::U64));
    let mask = l.b.set(Scalar::U64, mask);
    let maybe = l.b.set(Scalar::Bool, bool(true));
    if let Some(bloom) = table.bloom {
        let from = u64(l.cached_words());
        l.when(Ir::from(mask).ge(from), |l| {
            let base = l.base(bloom);
            let (block, bits) = bloom_bits(l, wide.into(), mask.into());
            let block = l.b.load(place(Elem::U64, base, block));
            l.b.assign(maybe, Ir::from(block).and(bits.clone()).eq(bits));
            Ok(())
        })?;
    }
    l.when(maybe.into(), |l| {
        let first = l.b.load(place(Elem::U32, heads, bucket(wide.into(), mask.into())));
        l.b.assign(head, first.into());
        Ok(())
    })
}

/// The bucket of a hash's upper half (U64), by its top bits: rows in order of their hashes meet buckets in order.
fn bucket(half: Ir, mask: Ir) -> Ir {
    half.times(mask.plus(u64(1))).shr(u64(32))
}

/// The half of a key's hash that the table goes by, U32.
pub(super) fn half(hash: Ir) -> Ir {
    hash.shr(u64(32)).to(Scalar::U32)
}

/// Stores the entry of the row at `at` (U64).
pub(super) fn store_entry(l: &mut Lowering<'_>, table: &HashTable, key: &Key, at: &Ir) -> Lowered<()> {
    let base = l.base(table.entries);
    let first = l.b.set(Scalar::U64, at.clone().times(u64(table.words + 1)));
    let last = Ir::from(first).plus(u64(table.words));
    let link = l.b.set(Scalar::U64, u64(NOT_KEYED));
    l.unless(key.null.clone(), |l| {
        let hash = l.hash(key);
        l.b.assign(link, Ir::from(hash).and(u64(!u64::from(u32::MAX))));
        for (word, value) in (0..).zip(key.words.iter().map(KeyWord::ir)) {
            let index = Ir::from(first).plus(u64(word));
            l.b.store(place(Elem::U64, base.clone(), index), value);
        }
        Ok(())
    })?;
    l.b.store(place(Elem::U64, base, last), link.into());
    Ok(())
}

/// The kernels that put all rows into chains.
pub(super) fn kernels(
    l: &mut Lowering<'_>,
    table: &HashTable,
    (count, tally, capacity): (RegionRef, RegionRef, u64),
) -> Lowered<()> {
    if buckets(capacity) > CLEARED_BEFORE || table.bloom.is_some() {
        let kernel = l.kernel("zero", |l| {
            let mask = mask(l, count);
            let heads = l.base(table.heads);
            // Two at a time; there are at least 64.
            each(l, mask.clone().shr(u64(1)).plus(u64(1)), |l, pair| {
                l.b.store(place(Elem::U64, heads, pair), u64(0));
                Ok(())
            })?;
            let Some(bloom) = table.bloom else { return Ok(()) };
            let bloom = l.base(bloom);
            let blocks = mask.shr(u64(BUCKETS_PER_BLOCK.trailing_zeros().into())).plus(u64(1));
            each(l, blocks, |l, block| {
                l.b.store(place(Elem::U64, bloom, block), u64(0));
                Ok(())
            })
        })?;
        l.launch(kernel, Groups::Rows(buckets(capacity) / 2), When::After);
    }
    let kernel = l.kernel("link", |l| link(l, table, count, tally))?;
    l.launch(kernel, Groups::Rows(capacity), When::After);
    Ok(())
}

fn link(l: &mut Lowering<'_>, table: &HashTable, count: RegionRef, tally: RegionRef) -> Lowered<()> {
    let mask = mask(l, count);
    let (heads, entries, tally) = (l.base(table.heads), l.base(table.entries), l.base(tally));
    l.b.when(Ir::GroupIndex.plus(Ir::LocalIndex).eq(u32(0)), |b| {
        b.store(place(Elem::U64, tally, u64(Tally::Mask as u64)), mask.clone());
    });
    let count = l.base(count);
    let rows = l.b.load(place(Elem::U64, count, u64(0)));
    note_large(l, table, rows)?;
    let words = table.words;
    each(l, rows.into(), |l, row| {
        let last = row.clone().times(u64(words + 1)).plus(u64(words));
        let last = place(Elem::U64, entries, last);
        let known = l.b.set(
            Scalar::U64,
            Ir::Load {
                place: last.clone(),
                constant: false,
            },
        );
        let hash = Ir::from(known).shr(u64(32));
        l.when(Ir::from(known).ne(u64(NOT_KEYED)), |l| {
            let hash = l.b.set(Scalar::U64, hash);
            if let Some(bloom) = table.bloom {
                let bloom = l.base(bloom);
                let from = u64(l.cached_words());
                l.when(mask.clone().ge(from), |l| {
                    let (block, bits) = bloom_bits(l, hash.into(), mask.clone());
                    let target = Target::Arena(place(Elem::U64, bloom, block));
                    l.b.atomic(target, Atomic::Or(bits));
                    Ok(())
                })?;
            }
            let target = Target::Arena(place(Elem::U32, heads, bucket(hash.into(), mask)));
            let entry = row.to(Scalar::U32).plus(u32(1));
            let old = l.b.fetch(Scalar::U32, target, Atomic::Exchange(entry));
            l.b.store(last, Ir::from(known).or(Ir::from(old).to(Scalar::U64)));
            Ok(())
        })
    })
}

/// Notes whether it is worth putting rows in order for the table of so many, unless that is done.
fn note_large(l: &mut Lowering<'_>, table: &HashTable, rows: Var) -> Lowered<()> {
    let (None, Some(bytes)) = (table.partition, l.target.large_bytes) else {
        return Ok(());
    };
    let most = u64(bytes / table.row_bytes());
    let one = Ir::GroupIndex.plus(Ir::LocalIndex).eq(u32(0));
    l.when(one.and(Ir::from(rows).gt(most)), |l| {
        l.note_large();
        Ok(())
    })
}

/// U64: buckets in use minus one.
fn mask(l: &mut Lowering<'_>, count: RegionRef) -> Ir {
    let count = l.base(count);
    let rows = l.b.load(place(Elem::U64, count, u64(0)));
    let wanted = Ir::from(rows).times(u64(2)).max(u64(BUCKETS_MIN)).minus(u64(1));
    let zeros = Ir::Unary(Unary::LeadingZeros, Box::new(wanted));
    // The wanted number is at least 63, so the shift is by less than 64.
    l.b.set(Scalar::U64, u64(u64::MAX).shr(zeros)).into()
}

/// `inside` for all numbers (U64) below `end`, shared among all work-items.
fn each(l: &mut Lowering<'_>, end: Ir, inside: impl FnOnce(&mut Lowering<'_>, Ir) -> Lowered<()>) -> Lowered<()> {
    let group = u64(u64::from(l.target.group));
    let first = Ir::GroupIndex.to(Scalar::U64).times(group.clone());
    let first = first.plus(Ir::LocalIndex.to(Scalar::U64));
    let step = Ir::Groups.to(Scalar::U64).times(group);
    l.range(Scalar::U64, (first, end, step), inside)
}
