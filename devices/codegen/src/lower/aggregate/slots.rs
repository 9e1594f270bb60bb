//! Where the words of slots are.

use super::cells::Shared;
use super::known::Known;
use super::table::zeroed;
use crate::build::{u32, u64};
use crate::ir::{Expr as Ir, Scalar};
use crate::lower::{Kind, Lowering, Shape, Value};
use crate::program::Word;
use crate::shape::RegionRef;

/// Words that copies of slots take at most, and copies.
const COPIES_WORDS: u64 = 1 << 17;
const COPIES_MAX: u64 = 8;

/// Where the words of slots are. Few slots have several copies, which groups of work-items share out among each other so
/// that they wait less for each other's atomics.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slots {
    region: RegionRef,
    stride: u64,
    first: u64,
    /// A power of two.
    pub(super) copies: u64,
    /// Words from one copy to the next.
    distance: u64,
}

impl Slots {
    pub(super) fn new(region: RegionRef, stride: u64, first: u64) -> Self {
        Self {
            region,
            stride,
            first,
            copies: 1,
            distance: 0,
        }
    }

    /// So many slots of so many words.
    pub(super) fn copied(l: &mut Lowering<'_>, slots: u64, words: u64) -> Self {
        let distance = slots * words;
        let copies = match COPIES_WORDS / distance.max(1) {
            0 => 1,
            most => 1 << most.min(COPIES_MAX).ilog2(),
        };
        Self {
            copies,
            distance,
            ..Self::new(zeroed(l, "groups", distance * copies * 8), words, 0)
        }
    }

    /// A slot of words, none of a table's.
    pub(super) fn one(l: &mut Lowering<'_>, words: u64) -> Self {
        Self::new(zeroed(l, "total", words.max(1) * 8), words, 0)
    }

    /// The words of a slot (U64), in the first copy.
    pub(super) fn shared(self, l: &mut Lowering<'_>, slot: Ir) -> Shared {
        let first = slot.times(u64(self.stride)).plus(u64(self.first));
        let base = l.base(self.region);
        Shared::in_arena(base, l.b.set(Scalar::U64, first).into())
    }

    /// The words of a slot (U64) in another copy (U64).
    pub(super) fn copy(self, l: &mut Lowering<'_>, slot: Ir, copy: Ir) -> Shared {
        let distance = l.word(Word::Value(self.distance));
        let first = slot.times(u64(self.stride)).plus(copy.times(distance));
        let base = l.base(self.region);
        Shared::in_arena(base, l.b.set(Scalar::U64, first).into())
    }

    /// The words of a slot (U64) in this group of work-items' copy.
    pub(super) fn own(self, l: &mut Lowering<'_>, slot: Ir) -> Shared {
        if self.copies == 1 {
            return self.shared(l, slot);
        }
        let most = u32(u32::try_from(self.copies).unwrap_or(1) - 1);
        self.copy(l, slot, Ir::GroupIndex.and(most).to(Scalar::U64))
    }
}

/// A slot's number as a part of a key.
pub(super) fn slot_known(slots: u64) -> Known {
    let range = (0, i128::from(slots.max(1)) - 1);
    Known {
        shape: Shape {
            data_type: trireme_device_api::Type::Int64,
            kind: Kind::Integer(Shape::lane(range)),
            range: Some(range),
        },
        nullable: false,
    }
}

/// A slot (U64) of so many, as a part of a key.
pub(super) fn slot_value(slots: u64, slot: Ir) -> Value {
    let known = slot_known(slots);
    let lane = Shape::lane(known.bounds());
    known.value(slot.to(lane), None)
}
