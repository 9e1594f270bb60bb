//! Functions that read packed bytes: bits anywhere, and numbers of seven bits a byte.

use crate::build::{Builder, call, place, u32, u64};
use crate::ir::{Elem, Expr, Function, FunctionId, Scalar, Stmt};

/// In the order of their numbers.
pub(super) fn all() -> Vec<Function> {
    vec![bits_function(), varint_function(), after_function()]
}

/// `width` bits (U32, 0 to 64) from bit `position` (U64) of the bytes at `at` (U64); U64.
pub(super) fn bits(at: Expr, position: Expr, width: Expr) -> Expr {
    call(FunctionId(0), [at, position, width])
}

/// The number that begins at `at`, of bytes before `end`; U64.
pub(super) fn varint(at: Expr, end: Expr) -> Expr {
    call(FunctionId(1), [at, end])
}

/// Where the number that begins at `at` ends, at most `end`; U64.
pub(super) fn after_varint(at: Expr, end: Expr) -> Expr {
    call(FunctionId(2), [at, end])
}

/// A number whose sign is its last bit, as two's complement in U64.
pub(super) fn zigzag(number: Expr) -> Expr {
    let sign = u64(0).minus(number.clone().and(u64(1)));
    number.shr(u64(1)).xor(sign)
}

/// A byte as U64.
pub(super) fn byte(at: Expr) -> Expr {
    let place = place(Elem::U8, at, u64(0));
    Expr::Load { place, constant: true }.to(Scalar::U64)
}

fn bits_function() -> Function {
    let mut b = Builder::new();
    let (at, position, width) = (b.var(Scalar::U64), b.var(Scalar::U64), b.var(Scalar::U32));
    b.when(Expr::from(width).eq(u32(0)), |b| b.push(Stmt::Return(u64(0))));
    let base = b.set(Scalar::U64, Expr::from(at).and(u64(!7)));
    let inside = Expr::from(at).and(u64(7)).shl(u64(3));
    let first = b.set(Scalar::U64, Expr::from(position).plus(inside));
    let word = b.set(Scalar::U64, Expr::from(first).shr(u64(6)));
    let shift = b.set(Scalar::U64, Expr::from(first).and(u64(63)));
    let low = b.load(place(Elem::U64, base.into(), word.into()));
    let value = b.set(Scalar::U64, Expr::from(low).shr(shift.into()));
    let wide = b.set(Scalar::U64, Expr::from(width).to(Scalar::U64));
    // The next word only where it is needed: it may lie outside. Then the shift is not 0.
    b.when(Expr::from(shift).plus(wide.into()).gt(u64(64)), |b| {
        let high = b.load(place(Elem::U64, base.into(), Expr::from(word).plus(u64(1))));
        let high = Expr::from(high).shl(u64(64).minus(shift.into()));
        b.assign(value, Expr::from(value).or(high));
    });
    let mask = u64(u64::MAX).shr(u64(64).minus(wide.into()));
    b.push(Stmt::Return(Expr::from(value).and(mask)));
    b.function("bits", 3, Scalar::U64)
}

fn varint_function() -> Function {
    let mut b = Builder::new();
    let (at, end) = (b.var(Scalar::U64), b.var(Scalar::U64));
    let number = b.set(Scalar::U64, u64(0));
    let shift = b.set(Scalar::U64, u64(0));
    b.repeat(|b| {
        let over = Expr::from(at).ge(end.into()).or(Expr::from(shift).gt(u64(63)));
        b.when(over, |b| b.push(Stmt::Break));
        let next = b.set(Scalar::U64, byte(at.into()));
        let seven = Expr::from(next).and(u64(127)).shl(shift.into());
        b.assign(number, Expr::from(number).or(seven));
        b.when(Expr::from(next).lt(u64(128)), |b| b.push(Stmt::Break));
        b.assign(at, Expr::from(at).plus(u64(1)));
        b.assign(shift, Expr::from(shift).plus(u64(7)));
    });
    b.push(Stmt::Return(number.into()));
    b.function("varint", 2, Scalar::U64)
}

fn after_function() -> Function {
    let mut b = Builder::new();
    let (at, end) = (b.var(Scalar::U64), b.var(Scalar::U64));
    b.repeat(|b| {
        b.when(Expr::from(at).ge(end.into()), |b| b.push(Stmt::Break));
        let next = b.set(Scalar::U64, byte(at.into()));
        b.assign(at, Expr::from(at).plus(u64(1)));
        b.when(Expr::from(next).lt(u64(128)), |b| b.push(Stmt::Break));
    });
    b.push(Stmt::Return(at.into()));
    b.function("after_varint", 2, Scalar::U64)
}
