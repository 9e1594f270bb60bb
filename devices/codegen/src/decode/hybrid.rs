//! Runs of equal values and runs of packed bits, one after the other: indexes into dictionaries.

use super::functions::{after_varint, bits, varint};
use super::page::{fault, mine};
use crate::build::{Builder, u64};
use crate::ir::{Expr, Scalar, Stmt, Var};

/// Where runs lie.
#[derive(Clone, Copy)]
pub(super) struct Runs {
    /// Their first byte, U64; moved.
    pub(super) at: Var,
    /// The byte after the last, U64.
    pub(super) end: Var,
    /// Bits of a value, U32, at most 32.
    pub(super) width: Var,
    /// Values that are wanted, U64.
    pub(super) count: Var,
    /// Where faults are noted, U64.
    pub(super) fault: Var,
}

/// Gives each value to one work-item: `emit(position, value)`, both U64.
pub(super) fn hybrid(b: &mut Builder, group: u32, runs: Runs, emit: &mut dyn FnMut(&mut Builder, Expr, Expr)) {
    let Runs {
        at,
        end,
        width,
        count,
        fault,
    } = runs;
    let leave = |b: &mut Builder| fault_and_leave(b, fault);
    let done = b.set(Scalar::U64, u64(0));
    let wide = b.set(Scalar::U64, Expr::from(width).to(Scalar::U64));
    b.repeat(|b| {
        let left = Expr::from(count).minus(done.into());
        b.when(Expr::from(done).ge(count.into()), |b| b.push(Stmt::Break));
        b.when(Expr::from(at).ge(end.into()), leave);
        let header = b.set(Scalar::U64, varint(at.into(), end.into()));
        b.assign(at, after_varint(at.into(), end.into()));
        // No more than what is wanted, so that nothing below overflows.
        let length = b.set(Scalar::U64, Expr::from(header).shr(u64(1)).min(count.into()));
        let packed = b.set(Scalar::Bool, Expr::from(header).and(u64(1)).ne(u64(0)));
        let whole = Expr::from(packed).select(Expr::from(length).times(u64(8)), length.into());
        let values = b.set(Scalar::U64, whole.min(left));
        let used = Expr::from(packed).select(Expr::from(values), u64(1)).times(wide.into());
        let used = used.plus(u64(7)).shr(u64(3));
        b.when(used.gt(Expr::from(end).minus(at.into())), leave);
        let bytes = Expr::from(packed).select(
            Expr::from(length).times(wide.into()),
            Expr::from(wide).plus(u64(7)).shr(u64(3)),
        );
        let start = b.set(Scalar::U64, at.into());
        b.assign(at, Expr::from(at).plus(bytes));
        let stride = b.set(Scalar::U64, Expr::from(packed).select(wide.into(), u64(0)));
        mine(b, group, values.into(), |b, index| {
            let position = Expr::from(index).times(stride.into());
            let value = b.set(Scalar::U64, bits(start.into(), position, width.into()));
            emit(b, Expr::from(done).plus(index.into()), value.into());
        });
        b.assign(done, Expr::from(done).plus(values.into()));
    });
}

fn fault_and_leave(b: &mut Builder, at: Var) {
    fault(b, at);
    b.push(Stmt::Break);
}
