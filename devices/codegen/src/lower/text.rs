//! Functions over bytes that handles name: equality, order, hashes.
//!
//! All access is byte by byte: handles begin anywhere.

use super::Lowering;
use crate::build::{Builder, call, i32, place, u32, u64};
use crate::ir::{Elem, Expr as Ir, Function, FunctionId, Scalar, Stmt, Var};
use crate::shape::HANDLE_LENGTH_BITS;

/// Where a handle's bytes are, U64.
pub(crate) fn handle_offset(handle: Ir) -> Ir {
    handle.shr(u64(u64::from(HANDLE_LENGTH_BITS)))
}

/// How many bytes a handle has, U32.
pub(crate) fn handle_length(handle: Ir) -> Ir {
    handle.to(Scalar::U32).and(u32((1 << HANDLE_LENGTH_BITS) - 1))
}

fn byte(base: Var, index: Ir) -> Ir {
    Ir::Load {
        place: place(Elem::U8, base.into(), index),
        constant: true,
    }
}

impl Lowering<'_> {
    /// Bool: the bytes of two handles are equal.
    pub(crate) fn text_equal(&mut self, left: Ir, right: Ir) -> Ir {
        let function = self.function("text_equal", |_| text_equal());
        call(function, [left, right])
    }

    /// I32: −1, 0 or 1 as the first handle's bytes are less than, equal to or greater than the second's.
    pub(crate) fn text_compare(&mut self, left: Ir, right: Ir) -> Ir {
        let function = self.text_comparer();
        call(function, [left, right])
    }

    /// [`Lowering::text_compare`] as a function, for functions that call it.
    pub(crate) fn text_comparer(&mut self) -> FunctionId {
        self.function("text_compare", |_| text_compare())
    }

    /// U64: a hash of a handle's bytes.
    pub(crate) fn text_hash(&mut self, handle: Ir) -> Ir {
        let function = self.function("text_hash", |_| text_hash());
        call(function, [handle])
    }
}

fn text_equal() -> Function {
    let mut b = Builder::new();
    let (left, right) = (b.var(Scalar::U64), b.var(Scalar::U64));
    let returns = |b: &mut Builder, value: bool| b.push(Stmt::Return(crate::build::bool(value)));
    b.when(Ir::from(left).eq(right.into()), |b| returns(b, true));
    let length = b.set(Scalar::U32, handle_length(left.into()));
    b.when(handle_length(right.into()).ne(length.into()), |b| returns(b, false));
    let from = b.set(Scalar::U64, handle_offset(left.into()));
    let to = b.set(Scalar::U64, handle_offset(right.into()));
    b.range(Scalar::U32, u32(0), length.into(), u32(1), |b, at| {
        let differ = byte(from, at.into()).ne(byte(to, at.into()));
        b.when(differ, |b| returns(b, false));
    });
    returns(&mut b, true);
    b.function("text_equal", 2, Scalar::Bool)
}

fn text_compare() -> Function {
    let mut b = Builder::new();
    let (left, right) = (b.var(Scalar::U64), b.var(Scalar::U64));
    let lengths = [left, right].map(|handle| b.set(Scalar::U32, handle_length(handle.into())));
    let from = b.set(Scalar::U64, handle_offset(left.into()));
    let to = b.set(Scalar::U64, handle_offset(right.into()));
    let order = |first: Ir, second: Ir| {
        first
            .clone()
            .lt(second.clone())
            .select(i32(-1), first.gt(second).select(i32(1), i32(0)))
    };
    let shorter = b.set(Scalar::U32, Ir::from(lengths[0]).min(lengths[1].into()));
    b.range(Scalar::U32, u32(0), shorter.into(), u32(1), |b, at| {
        let first = b.set(Scalar::U32, byte(from, at.into()));
        let second = b.set(Scalar::U32, byte(to, at.into()));
        b.when(Ir::from(first).ne(second.into()), |b| {
            b.push(Stmt::Return(order(first.into(), second.into())));
        });
    });
    b.push(Stmt::Return(order(lengths[0].into(), lengths[1].into())));
    b.function("text_compare", 2, Scalar::I32)
}

fn text_hash() -> Function {
    let mut b = Builder::new();
    let handle = b.var(Scalar::U64);
    let length = b.set(Scalar::U32, handle_length(handle.into()));
    let from = b.set(Scalar::U64, handle_offset(handle.into()));
    // FNV-1a, whose low bits are weak: users mix the result.
    let hash = b.set(Scalar::U64, u64(0xcbf2_9ce4_8422_2325));
    b.range(Scalar::U32, u32(0), length.into(), u32(1), |b, at| {
        let next = Ir::from(hash).xor(byte(from, at.into()).to(Scalar::U64));
        b.assign(hash, next.times(u64(0x0000_0100_0000_01b3)));
    });
    b.push(Stmt::Return(hash.into()));
    b.function("text_hash", 1, Scalar::U64)
}
