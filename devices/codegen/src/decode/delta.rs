//! DELTA_BINARY_PACKED: blocks of differences, packed by their least in miniblocks of different widths. A group takes the
//! values of a block side by side, as many as it has work-items, and adds them up by a scan.

use super::functions::{after_varint, bits, byte, varint, zigzag};
use super::page::{fault, scan};
use crate::build::{Builder, bool, u32, u64};
use crate::ir::{Expr, LocalId, Scalar, Stmt, Var};

/// Where the values lie.
#[derive(Clone, Copy)]
pub(super) struct Deltas {
    /// The first byte, U64; moved.
    pub(super) at: Var,
    /// The byte after the last, U64.
    pub(super) end: Var,
    /// Values that are wanted, U64.
    pub(super) count: Var,
    /// U64, one per work-item.
    pub(super) sums: LocalId,
    /// Where faults are noted, U64.
    pub(super) fault: Var,
}

/// What the header says.
#[derive(Clone, Copy)]
struct Header {
    /// Values of a block.
    block: Var,
    /// Miniblocks of a block.
    minis: Var,
    /// Values of a miniblock, a multiple of 8.
    mini: Var,
}

/// Gives each value to one work-item: `emit(position, value)`, both U64, the value modulo 2⁶⁴.
pub(super) fn delta(b: &mut Builder, group: u32, deltas: Deltas, emit: &mut dyn FnMut(&mut Builder, Expr, Expr)) {
    let Deltas {
        at,
        end,
        count,
        fault: noted,
        ..
    } = deltas;
    let next = |b: &mut Builder| {
        let number = b.set(Scalar::U64, varint(at.into(), end.into()));
        b.assign(at, after_varint(at.into(), end.into()));
        number
    };
    let (block, minis, total) = (next(b), next(b), next(b));
    let first = next(b);
    let carry = b.set(Scalar::U64, zigzag(first.into()));
    // Blocks of any sensible size; what divides by zero or overflows is none.
    let sane = Expr::from(minis)
        .ge(u64(1))
        .and(Expr::from(block).ge(Expr::from(minis)));
    let sane = sane.and(Expr::from(block).le(u64(1 << 20)));
    let good = b.set(Scalar::Bool, sane);
    let divisor = Expr::from(good).select(minis.into(), u64(1));
    let mini = b.set(Scalar::U64, Expr::from(block).over(divisor));
    let even = Expr::from(mini).times(minis.into()).eq(block.into());
    let even = even.and(Expr::from(mini).and(u64(7)).eq(u64(0)));
    let enough = Expr::from(total).eq(count.into());
    b.assign(good, Expr::from(good).and(even).and(enough));
    let wanted = Expr::from(count).gt(u64(0));
    b.when(wanted.clone().and(Expr::from(good).not()), |b| fault(b, noted));
    b.when(wanted.and(good.into()), |b| {
        b.when(Expr::LocalIndex.eq(u32(0)), |b| emit(b, u64(0), carry.into()));
        let done = b.set(Scalar::U64, u64(1));
        b.repeat(|b| {
            b.when(Expr::from(done).ge(count.into()), |b| b.push(Stmt::Break));
            blocks(b, group, deltas, Header { block, minis, mini }, done, carry, emit);
        });
    });
}

/// One block; leaves the loop around it at a fault.
fn blocks(
    b: &mut Builder,
    group: u32,
    deltas: Deltas,
    header: Header,
    done: Var,
    carry: Var,
    emit: &mut dyn FnMut(&mut Builder, Expr, Expr),
) {
    let Deltas {
        at,
        end,
        count,
        sums,
        fault: noted,
    } = deltas;
    let least = b.set(Scalar::U64, zigzag(varint(at.into(), end.into())));
    b.assign(at, after_varint(at.into(), end.into()));
    let widths = b.set(Scalar::U64, at.into());
    let short = Expr::from(header.minis).gt(Expr::from(end).minus(at.into()));
    b.when(short, |b| {
        fault(b, noted);
        b.push(Stmt::Break);
    });
    let body = b.set(Scalar::U64, Expr::from(at).plus(header.minis.into()));
    let values = Expr::from(header.block).min(Expr::from(count).minus(done.into()));
    let values = b.set(Scalar::U64, values);
    // Bytes of the miniblocks that hold wanted values; others may be absent.
    let wanted = Expr::from(values)
        .plus(header.mini.into())
        .minus(u64(1))
        .over(header.mini.into());
    let wanted = b.set(Scalar::U64, wanted);
    let broad = b.set(Scalar::Bool, bool(false));
    let bytes = b.set(Scalar::U64, u64(0));
    b.range(Scalar::U64, u64(0), wanted.into(), u64(1), |b, index| {
        let width = b.set(Scalar::U64, byte(Expr::from(widths).plus(index.into())));
        b.assign(broad, Expr::from(broad).or(Expr::from(width).gt(u64(64))));
        b.assign(bytes, Expr::from(bytes).plus(mini_bytes(width, header)));
    });
    let short = Expr::from(bytes).gt(Expr::from(end).minus(body.into()));
    b.when(short.or(broad.into()), |b| {
        fault(b, noted);
        b.push(Stmt::Break);
    });
    b.assign(at, Expr::from(body).plus(bytes.into()));
    let step = u64(u64::from(group));
    b.range(Scalar::U64, u64(0), values.into(), step, |b, tile| {
        let index = b.set(Scalar::U64, Expr::from(tile).plus(Expr::LocalIndex.to(Scalar::U64)));
        let inside = b.set(Scalar::Bool, Expr::from(index).lt(values.into()));
        let difference = b.set(Scalar::U64, u64(0));
        b.when(inside.into(), |b| {
            let packed = unpacked(b, header, widths, body, index);
            b.assign(difference, Expr::from(least).plus(packed.into()));
        });
        let (sum, all) = scan(b, group, sums, difference);
        b.when(inside.into(), |b| {
            let position = Expr::from(done).plus(index.into());
            emit(b, position, Expr::from(carry).plus(sum.into()));
        });
        b.assign(carry, Expr::from(carry).plus(all.into()));
    });
    b.assign(done, Expr::from(done).plus(values.into()));
}

fn mini_bytes(width: Var, header: Header) -> Expr {
    Expr::from(width).times(Expr::from(header.mini).shr(u64(3)))
}

/// The packed value `index` of a block.
fn unpacked(b: &mut Builder, header: Header, widths: Var, body: Var, index: Var) -> Var {
    let number = b.set(Scalar::U64, Expr::from(index).over(header.mini.into()));
    let at = b.set(Scalar::U64, body.into());
    b.range(Scalar::U64, u64(0), number.into(), u64(1), |b, before| {
        let width = b.set(Scalar::U64, byte(Expr::from(widths).plus(before.into())));
        b.assign(at, Expr::from(at).plus(mini_bytes(width, header)));
    });
    let width = b.set(Scalar::U64, byte(Expr::from(widths).plus(number.into())));
    let inside = Expr::from(index).minus(Expr::from(number).times(header.mini.into()));
    let value = bits(at.into(), inside.times(width.into()), Expr::from(width).to(Scalar::U32));
    b.set(Scalar::U64, value)
}
