//! From keys to slots: tables of keys that grow while kernels run, without locks and without waiting.
//!
//! ```text
//!  packed    key + 1 as a word, in the slot itself or in an array          one compare-exchange claims it
//!  wide      u32 slots: entry + 1 ─▶ entries: key words, column by column  stored, fence, then published
//!  bits      a bit per possible key                                         for sets only
//! ```
//!
//! A work-item that loses the race for a slot keeps the entry it had made ready for its next new key. Probing is bounded: a
//! table that is too full is a fault, and the row is dropped, for the fragment runs again.

use super::known::Known;
use super::radix::Radix;
use super::slots::{Slots, slot_known};
use crate::build::{bool, place, u32, u64};
use crate::ir::{Atomic, Elem, Expr as Ir, Scalar, Stmt, Target, Var};
use crate::lower::partition::Large;
use crate::lower::{Key, KeyShape, KeyWord, Lowered, Lowering, Nulls, Unsupported, Value};
use crate::program::{Fill, Lifetime, Region, STATUS_FAULTS, Word};
use crate::shape::RegionRef;

/// A slot for each possible key where there are no more of these than so many per row, or than this; and where they take no
/// more memory.
const DENSE_PER_ROW: u64 = 8;
const DENSE_MIN: u64 = 4096;
const DENSE_MAX: u64 = 1 << 17;
const DENSE_BYTES_MAX: u64 = 1 << 31;
/// A table may be made for half of the rows where it takes no more memory than this, else for a quarter.
const ROOMY_BYTES: u64 = 128 << 20;
/// The least guess of the number of keys.
const KEYS_MIN: u64 = 1 << 16;
/// The same where an earlier run counted groups.
const COUNTED_MIN: u64 = 1 << 13;
/// Entries of a table of wide keys that work-items may hold unpublished, at least: each may hold one when all slots are empty.
const SPARES: u64 = 1 << 16;
/// Slots that are tried for one key.
const PROBES_MAX: u32 = 512;
/// Between two looks at the status.
const PROBES_STEP: u32 = 32;
/// A set of bits has no more of them than this, or than so many per row.
const BITS_MAX: u64 = 1 << 23;
const BITS_PER_ROW: u64 = 32;

/// A table of keys.
#[derive(Debug)]
pub(super) struct Table {
    shape: KeyShape,
    keys: Keys,
    room: Room,
}

/// How many keys a table is made for.
#[derive(Debug, Clone, Copy)]
struct Room {
    keys: u64,
    /// What the next one is made for where that was too few.
    next: u64,
    /// There can't be more.
    all: bool,
}

#[derive(Debug)]
enum Keys {
    /// The key's number is the slot.
    Dense(Radix),
    /// Word `slot · stride` is the key plus one.
    Packed {
        words: RegionRef,
        stride: u64,
        slots: u64,
    },
    Wide(Wide),
    Bits {
        bits: RegionRef,
    },
}

#[derive(Debug)]
struct Wide {
    /// U32: entry + 1, or 0.
    slots: RegionRef,
    mask: u64,
    /// U64 by word and entry.
    keys: RegionRef,
    entries: u64,
    /// U64: entries taken.
    taken: RegionRef,
    /// U32: an entry of this work-item's, plus one, that nobody knows of.
    spare: Option<Var>,
}

/// Where a key is.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// U64. Unspecified where not found.
    pub(super) slot: Ir,
    /// Bool: there was room; none when there always is.
    pub(super) found: Option<Ir>,
    /// Bool: this work-item's row brought the key.
    pub(super) new: Ir,
}

/// What a table knows a slot by.
#[derive(Debug, Clone)]
pub(super) enum Named {
    /// Its number (U64).
    Slot(Ir),
    Key(Key),
}

impl Named {
    /// Bool: this is what a slot (U64) has, or the words (U64, cheap expressions) of its key.
    pub(super) fn same(&self, l: &mut Lowering<'_>, slot: &Ir, words: &[Ir]) -> Ir {
        match self {
            Named::Slot(number) => number.clone().eq(slot.clone()),
            Named::Key(key) => l.equal(key, words),
        }
    }

    /// The key's words.
    pub(super) fn words(&self) -> Vec<Ir> {
        match self {
            Named::Slot(_) => Vec::new(),
            Named::Key(key) => key.words.iter().map(KeyWord::ir).collect(),
        }
    }
}

/// U64: where a key is looked for first, by the top bits of its hash: what is near there is near here.
fn first_slot(l: &mut Lowering<'_>, key: &Key, mask: u64) -> Var {
    let hash = l.hash(key);
    let shift = l.word(Word::Value(mask.leading_zeros().min(63).into()));
    l.b.set(Scalar::U64, Ir::from(hash).shr(shift))
}

/// What a table of wide keys, or of the words that its user adds to each slot, needs.
pub(super) fn zeroed(l: &mut Lowering<'_>, name: &str, bytes: u64) -> RegionRef {
    l.region(Region {
        name: name.to_owned(),
        bytes: bytes.next_multiple_of(8),
        fill: Fill::Byte(0),
        lifetime: Lifetime::Scratch,
    })
}

/// How many keys to expect, of at most `domain` different ones. A slot takes about so many bytes. A table of groups is as large
/// as an earlier run's groups ask for: to clear it, and to go over it, costs more than most rows do. Should there be more, it is
/// as large the next time as if nothing had been counted.
fn expected(l: &Lowering<'_>, domain: Option<u64>, slot_bytes: u64, is_groups: bool) -> Room {
    let rows = l.rows_guess();
    let half = rows / 2;
    let guess = if half.saturating_mul(2 * slot_bytes) <= ROOMY_BYTES {
        half
    } else {
        rows / 4
    };
    let guess = guess.max(KEYS_MIN).max(l.bound.hints.capacity.unwrap_or(0));
    let most = l.rows_bound().unwrap_or(u64::MAX).min(domain.unwrap_or(u64::MAX));
    let hints = &l.bound.hints;
    let counted = hints
        .groups
        .filter(|_| is_groups && hints.capacity.is_none() && most > guess);
    let made_for = match counted {
        Some(groups) => guess.min(groups.saturating_mul(2).max(COUNTED_MIN)),
        None => guess,
    };
    let possible = |keys: u64| keys.min(most).clamp(1, 1 << 30);
    let keys = possible(made_for);
    Room {
        keys,
        next: keys.saturating_mul(4).max(possible(guess)),
        all: most <= made_for,
    }
}

impl Room {
    /// For all keys that there can be.
    fn all(keys: u64) -> Self {
        Self {
            keys,
            next: keys,
            all: true,
        }
    }
}

fn key_shape(known: &[Known], nulls: Nulls) -> KeyShape {
    let values: Vec<Value> = known
        .iter()
        .map(|known| known.value(u64(0), known.nullable.then(|| bool(false))))
        .collect();
    KeyShape::of(&values, nulls)
}

impl Table {
    /// Of groups, whose slots have `words` more words; gives their region, where the first of slot `s` is word
    /// `s · stride + first`.
    pub(super) fn groups(l: &mut Lowering<'_>, known: &[Known], words: u64) -> Lowered<(Self, Slots)> {
        let shape = key_shape(known, Nulls::Group);
        let rows = l.rows_bound().unwrap_or(DENSE_MAX);
        let most = rows.saturating_mul(DENSE_PER_ROW).max(DENSE_MIN);
        let small = |keys: u64| keys <= most && keys.saturating_mul(words * 8) <= DENSE_BYTES_MAX;
        if let Some(radix) = Radix::new(known).filter(|radix| small(radix.count)) {
            let slots = radix.count;
            let table = Self {
                shape,
                keys: Keys::Dense(radix),
                room: Room::all(slots),
            };
            return Ok((table, Slots::copied(l, slots, words)));
        }
        let domain = shape.dense();
        let room = expected(l, domain, (words + 1) * 8, true);
        let slots = (room.keys * 2).next_power_of_two();
        if domain.is_some_and(|keys| keys < u64::MAX) {
            let region = zeroed(l, "groups", slots * (words + 1) * 8);
            let keys = Keys::Packed {
                words: region,
                stride: words + 1,
                slots,
            };
            let table = Self { shape, keys, room };
            return Ok((table, Slots::new(region, words + 1, 1)));
        }
        let wide = Wide::new(l, &shape, room.keys);
        let region = zeroed(l, "groups", wide.entries * words * 8);
        let keys = Keys::Wide(wide);
        let table = Self { shape, keys, room };
        Ok((table, Slots::new(region, words, 0)))
    }

    /// Of values that are not NULL, by slot of their group (of so many).
    pub(super) fn set(l: &mut Lowering<'_>, slots: Option<u64>, value: &Known) -> Lowered<Self> {
        let mut known: Vec<Known> = slots.map(slot_known).into_iter().collect();
        known.push(Known {
            nullable: false,
            ..value.clone()
        });
        let shape = key_shape(&known, Nulls::Group);
        let domain = if shape.words() == 0 { Some(1) } else { shape.dense() };
        let rows = l.rows_bound().unwrap_or(0);
        let most = rows.saturating_mul(BITS_PER_ROW).clamp(BITS_MAX, 1 << 33);
        if let Some(keys) = domain.filter(|keys| *keys <= most) {
            let bits = zeroed(l, "values", keys.div_ceil(8));
            let keys = Keys::Bits { bits };
            return Ok(Self {
                shape,
                keys,
                room: Room::all(u64::MAX),
            });
        }
        let room = expected(l, domain, 8, false);
        let slots = (room.keys * 2).next_power_of_two();
        let keys = if domain.is_some_and(|keys| keys < u64::MAX) {
            let words = zeroed(l, "values", slots * 8);
            Keys::Packed {
                words,
                stride: 1,
                slots,
            }
        } else {
            Keys::Wide(Wide::new(l, &shape, room.keys))
        };
        Ok(Self { shape, keys, room })
    }

    /// Slots are below this.
    pub(super) fn slots(&self) -> u64 {
        match &self.keys {
            Keys::Dense(radix) => radix.count,
            Keys::Packed { slots, .. } => *slots,
            Keys::Wide(wide) => wide.entries,
            Keys::Bits { .. } => 0,
        }
    }

    /// All possible keys have a slot of their own.
    pub(super) fn dense(&self) -> bool {
        matches!(self.keys, Keys::Dense(_))
    }

    /// Slots that hashes are spread over, and the bytes that one takes with so many words; none where keys aren't hashed.
    fn hashed(&self, words: u64) -> Option<(u64, u64)> {
        match &self.keys {
            Keys::Packed { slots, stride, .. } => Some((*slots, stride * 8)),
            // As many entries as half of the slots.
            Keys::Wide(wide) => Some((wide.mask + 1, 4 + (self.shape.words() as u64 + words) * 4)),
            Keys::Dense(_) | Keys::Bits { .. } => None,
        }
    }

    /// The table of groups of so many words, where an earlier run says that it is larger than the cache.
    pub(super) fn large(&self, l: &Lowering<'_>, words: u64) -> Option<Large> {
        let (slots, slot_bytes) = self.hashed(words)?;
        Some(Large {
            bytes: slots * slot_bytes,
            room_bytes: l.bound.hints.partition?,
        })
    }

    /// From how many groups of so many words on it is worth putting rows in order for it, unless that is done. Keys lie
    /// anywhere: each touches two sectors of memory for itself.
    pub(super) fn large_from(&self, l: &Lowering<'_>, words: u64) -> Option<u64> {
        /// Bytes of two sectors.
        const TOUCHED: u64 = 64;
        let (_, slot_bytes) = self.hashed(words)?;
        let most = l.target.large_bytes? / slot_bytes.max(TOUCHED);
        (l.bound.hints.partition.is_none() && most < self.slots()).then_some(most)
    }

    /// U64: the hash by whose top bits keys have their places.
    pub(super) fn hash(&self, l: &mut Lowering<'_>, values: &[Value]) -> Lowered<Ir> {
        if self.hashed(0).is_none() {
            return Err(Unsupported("a table without hashes".to_owned()));
        }
        let key = l.key(&self.shape, values)?;
        Ok(l.hash(&key).into())
    }

    /// At the start of a kernel.
    pub(super) fn begin(&mut self, l: &mut Lowering<'_>) {
        if let Keys::Wide(wide) = &mut self.keys {
            wide.spare = Some(l.b.set(Scalar::U32, u32(0)));
        }
    }

    /// The slot of these values, made if there is none yet.
    pub(super) fn find(&self, l: &mut Lowering<'_>, values: &[Value]) -> Lowered<Found> {
        let named = self.named(l, values)?;
        self.find_named(l, &named)
    }

    /// What tells these values' slot from others'.
    pub(super) fn named(&self, l: &mut Lowering<'_>, values: &[Value]) -> Lowered<Named> {
        let Keys::Dense(radix) = &self.keys else {
            return Ok(Named::Key(l.key(&self.shape, values)?));
        };
        let number = radix.number(l, values)?;
        let number = match radix.scalar() {
            Scalar::U64 => number,
            _ => number.to(Scalar::U64),
        };
        Ok(Named::Slot(number))
    }

    /// Keys are one word below all ones, which are hashed.
    pub(super) fn one_word(&self) -> bool {
        matches!(self.keys, Keys::Packed { .. }) && self.key_words() == 1
    }

    /// Words of a [`Named::Key`].
    pub(super) fn key_words(&self) -> usize {
        if self.dense() { 0 } else { self.shape.words() }
    }

    /// As [`Table::find`].
    pub(super) fn find_named(&self, l: &mut Lowering<'_>, named: &Named) -> Lowered<Found> {
        let key = match named {
            Named::Slot(slot) => {
                return Ok(Found {
                    slot: slot.clone(),
                    found: None,
                    new: bool(false),
                });
            }
            Named::Key(key) => key,
        };
        match &self.keys {
            Keys::Dense(_) => Err(Unsupported("a dense table without numbers".to_owned())),
            Keys::Packed { words, stride, slots } => self.packed(l, key, (*words, *stride, *slots - 1)),
            Keys::Wide(wide) => self.wide(l, key, wide),
            Keys::Bits { bits } => {
                let bit = key.words.first().map_or(u64(0), KeyWord::ir);
                let base = l.base(*bits);
                let target = Target::Arena(place(Elem::U32, base, bit.clone().shr(u64(5))));
                let mask = u32(1).shl(bit.to(Scalar::U32).and(u32(31)));
                let mask = l.b.set(Scalar::U32, mask);
                let held = l.b.fetch(Scalar::U32, target.clone(), Atomic::Load);
                let new = l.b.set(Scalar::Bool, Ir::from(held).and(mask.into()).eq(u32(0)));
                l.b.when(new.into(), |b| {
                    let held = b.fetch(Scalar::U32, target, Atomic::Or(mask.into()));
                    b.assign(new, Ir::from(held).and(mask.into()).eq(u32(0)));
                });
                Ok(Found {
                    slot: u64(0),
                    found: None,
                    new: new.into(),
                })
            }
        }
    }

    fn packed(&self, l: &mut Lowering<'_>, key: &Key, table: (RegionRef, u64, u64)) -> Lowered<Found> {
        let (words, stride, mask) = table;
        let word = key.words.first().map_or(u64(0), |word| word.ir());
        let word = l.b.set(Scalar::U64, word.plus(u64(1)));
        let slot = first_slot(l, key, mask);
        let mask = l.word(Word::Value(mask));
        let found = l.b.set(Scalar::Bool, bool(true));
        let new = l.b.set(Scalar::Bool, bool(false));
        let probes = l.b.set(Scalar::U32, u32(0));
        let base = l.base(words);
        l.repeat(|l| {
            let index = Ir::from(slot).times(u64(stride));
            let target = Target::Arena(place(Elem::U64, base, index));
            let held = l.b.fetch(Scalar::U64, target.clone(), Atomic::Load);
            l.b.when(Ir::from(held).eq(u64(0)), |b| {
                let (expected, value) = (u64(0), word.into());
                let before = b.fetch(Scalar::U64, target, Atomic::CompareExchange { expected, value });
                b.assign(held, before.into());
                b.when(Ir::from(before).eq(u64(0)), |b| {
                    b.assign(new, bool(true));
                    b.push(Stmt::Break);
                });
            });
            l.b.when(Ir::from(held).eq(word.into()), |b| b.push(Stmt::Break));
            l.b.assign(slot, Ir::from(slot).plus(u64(1)).and(mask));
            self.give_up(l, probes, found);
            Ok(())
        })?;
        Ok(Found {
            slot: slot.into(),
            found: Some(found.into()),
            new: new.into(),
        })
    }

    /// Counts a probe, and leaves the loop where there were too many or the table is known to be too small.
    fn give_up(&self, l: &mut Lowering<'_>, probes: Var, found: Var) {
        if self.room.all {
            return;
        }
        l.b.assign(probes, Ir::from(probes).plus(u32(1)));
        let seldom = Ir::from(probes).and(u32(PROBES_STEP - 1)).eq(u32(0));
        let most = u32(PROBES_MAX);
        let status = l.base(l.status);
        l.b.begin();
        let target = Target::Arena(place(Elem::U64, status, u64(STATUS_FAULTS as u64)));
        let faults = l.b.fetch(Scalar::U64, target, Atomic::Load);
        l.b.begin();
        self.too_small(l);
        let fault = l.b.end();
        l.b.push(Stmt::If {
            condition: Ir::from(probes).ge(most.clone()),
            then: fault,
            otherwise: Vec::new(),
        });
        let stop = Ir::from(probes).ge(most).or(Ir::from(faults).ne(u64(0)));
        l.b.when(stop, |b| {
            b.assign(found, bool(false));
            b.push(Stmt::Break);
        });
        let then = l.b.end();
        l.b.push(Stmt::If {
            condition: seldom,
            then,
            otherwise: Vec::new(),
        });
    }

    fn too_small(&self, l: &mut Lowering<'_>) {
        let needed = l.word(Word::Value(self.room.next));
        l.capacity_fault(needed);
    }

    fn wide(&self, l: &mut Lowering<'_>, key: &Key, wide: &Wide) -> Lowered<Found> {
        let Some(spare) = wide.spare else {
            return Err(Unsupported("a table outside of a kernel".to_owned()));
        };
        let at = first_slot(l, key, wide.mask);
        let mask = l.word(Word::Value(wide.mask));
        let entry = l.b.set(Scalar::U32, u32(0));
        let found = l.b.set(Scalar::Bool, bool(true));
        let new = l.b.set(Scalar::Bool, bool(false));
        let written = l.b.set(Scalar::Bool, bool(false));
        let probes = l.b.set(Scalar::U32, u32(0));
        let slots = l.base(wide.slots);
        l.repeat(|l| {
            let target = Target::Arena(place(Elem::U32, slots, at.into()));
            let held = l.b.fetch(Scalar::U32, target.clone(), Atomic::Load);
            l.when(Ir::from(held).eq(u32(0)), |l| {
                self.prepare(l, key, wide, (spare, written, found));
                l.b.push(Stmt::Fence);
                let (expected, value) = (u32(0), spare.into());
                let before =
                    l.b.fetch(Scalar::U32, target, Atomic::CompareExchange { expected, value });
                l.b.assign(held, before.into());
                l.b.when(Ir::from(before).eq(u32(0)), |b| {
                    b.assign(entry, spare.into());
                    b.assign(spare, u32(0));
                    b.assign(new, bool(true));
                    b.push(Stmt::Break);
                });
                Ok(())
            })?;
            l.b.push(Stmt::Fence);
            let index = l.b.set(Scalar::U64, Ir::from(held).minus(u32(1)).to(Scalar::U64));
            let stored = wide.load(l, index.into(), false);
            let equal = l.equal(key, &stored);
            l.b.when(equal, |b| {
                b.assign(entry, held.into());
                b.push(Stmt::Break);
            });
            l.b.assign(at, Ir::from(at).plus(u64(1)).and(mask));
            self.give_up(l, probes, found);
            Ok(())
        })?;
        let slot = l.b.set(Scalar::U64, Ir::from(entry).minus(u32(1)).to(Scalar::U64));
        Ok(Found {
            slot: slot.into(),
            found: Some(found.into()),
            new: new.into(),
        })
    }

    /// Writes the key into an entry that nobody knows of; leaves the loop where there is none left.
    fn prepare(&self, l: &mut Lowering<'_>, key: &Key, wide: &Wide, (spare, written, found): (Var, Var, Var)) {
        let taken = l.base(wide.taken);
        let entries = l.word(Word::Value(wide.entries));
        l.b.begin();
        let target = Target::Arena(place(Elem::U64, taken, u64(0)));
        let entry = l.b.fetch(Scalar::U64, target, Atomic::Add(u64(1)));
        l.b.begin();
        self.too_small(l);
        l.b.assign(found, bool(false));
        l.b.push(Stmt::Break);
        let full = l.b.end();
        l.b.push(Stmt::If {
            condition: Ir::from(entry).ge(entries.clone()),
            then: full,
            otherwise: Vec::new(),
        });
        l.b.assign(spare, Ir::from(entry).to(Scalar::U32).plus(u32(1)));
        let then = l.b.end();
        l.b.push(Stmt::If {
            condition: Ir::from(spare).eq(u32(0)),
            then,
            otherwise: Vec::new(),
        });
        let keys = l.base(wide.keys);
        l.b.when(Ir::from(written).not(), |b| {
            let entry = b.set(Scalar::U64, Ir::from(spare).minus(u32(1)).to(Scalar::U64));
            for (position, word) in (0..).zip(&key.words) {
                let index = u64(position).times(entries.clone()).plus(entry.into());
                b.store(place(Elem::U64, keys.clone(), index), word.ir());
            }
            b.assign(written, bool(true));
        });
    }

    /// The key of a slot (U64) that has one. For kernels that run later.
    pub(super) fn key(&self, l: &mut Lowering<'_>, slot: Ir) -> Vec<Value> {
        let stored = match &self.keys {
            Keys::Dense(radix) => return radix.values(l, &slot),
            Keys::Bits { .. } => vec![slot],
            Keys::Packed { words, stride, .. } => {
                let base = l.base(*words);
                let word = l.b.load(place(Elem::U64, base, slot.times(u64(*stride))));
                vec![l.b.set(Scalar::U64, Ir::from(word).minus(u64(1))).into()]
            }
            Keys::Wide(wide) => wide.load(l, slot, true),
        };
        l.key_values(&self.shape, &stored)
    }
}

impl Wide {
    fn new(l: &mut Lowering<'_>, shape: &KeyShape, expected: u64) -> Self {
        let slots = (expected * 2).next_power_of_two();
        let held = SPARES.max(l.target.work_items.into());
        let entries = (expected + held).min(l.rows_bound().unwrap_or(u64::MAX)).max(1);
        let words = shape.words() as u64;
        Self {
            slots: zeroed(l, "slots", slots * 4),
            mask: slots - 1,
            keys: l.region(Region {
                name: "keys".to_owned(),
                bytes: entries * words.max(1) * 8,
                fill: Fill::Nothing,
                lifetime: Lifetime::Scratch,
            }),
            entries,
            taken: zeroed(l, "entries", 8),
            spare: None,
        }
    }

    fn load(&self, l: &mut Lowering<'_>, entry: Ir, constant: bool) -> Vec<Ir> {
        let base = l.base(self.keys);
        let entries = l.word(Word::Value(self.entries));
        let words = l.parts.regions[self.keys.region].bytes / 8 / self.entries;
        (0..words)
            .map(|position| {
                let index = u64(position).times(entries.clone()).plus(entry.clone());
                let place = place(Elem::U64, base.clone(), index);
                l.b.set(Scalar::U64, Ir::Load { place, constant }).into()
            })
            .collect()
    }
}
