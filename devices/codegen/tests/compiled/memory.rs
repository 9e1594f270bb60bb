//! Everything in the language that is not an expression of a row: memory of all widths, functions, loops, atomics, order
//! between work-items.

use trireme_device_codegen::build::{Builder, call, i32, place, u32, u64};
use trireme_device_codegen::ir::{Atomic, Elem, Expr, Function, FunctionId, Kernel, Module, Scalar, Stmt, Target, Var};

/// Work-items of a group.
pub(crate) const GROUP: u32 = 32;

const ELEMS: [Elem; 11] = [
    Elem::I8,
    Elem::U8,
    Elem::I16,
    Elem::U16,
    Elem::I32,
    Elem::U32,
    Elem::I64,
    Elem::U64,
    Elem::I128,
    Elem::F32,
    Elem::F64,
];

/// Elements of atomics.
pub(crate) const ATOMIC: [Elem; 4] = [Elem::U32, Elem::I32, Elem::U64, Elem::I64];

fn id() -> Expr {
    Expr::GroupIndex.times(u32(GROUP)).plus(Expr::LocalIndex)
}

/// Kernel `widths`: word 0 holds 64-bit integers; per element a column of them as that element (by way of a local array),
/// widened again, as 64-bit integers, at word 1 + position; what they were read from follows them.
///
/// Kernel `loops`: the steps of Collatz's sequence from word 0's numbers at word 1.
///
/// Kernel `atomics`: see [`atomics`].
pub(crate) fn module() -> Module {
    Module {
        group: GROUP,
        functions: vec![half(), collatz()],
        kernels: vec![widths(), loops(), atomics(), counting()],
    }
}

fn widths() -> Kernel {
    let mut b = Builder::new();
    let value = b.load(place(Elem::I64, Expr::Word(0), id()));
    for (position, elem) in (1_u32..).zip(ELEMS) {
        let local = b.local(elem, GROUP);
        let scalar = elem.scalar();
        b.push(Stmt::StoreLocal(local, Expr::LocalIndex, Expr::from(value).to(scalar)));
        b.push(Stmt::Barrier);
        // Another's value, and back to its own place.
        let other = Expr::LocalIndex.xor(u32(1));
        let other = b.set(scalar, Expr::LoadLocal(local, Box::new(other)));
        let base = Expr::Word(position);
        let raw = base.clone().plus(Expr::Groups.times(u32(GROUP * 8)).to(Scalar::U64));
        b.store(place(elem, raw.clone(), id().xor(u32(1))), other.into());
        b.push(Stmt::Barrier);
        let again = Expr::Load {
            place: place(elem, raw, id()),
            constant: false,
        };
        let again = b.set(scalar, again);
        b.store(
            place(Elem::I64, base, u64(0).plus(id().to(Scalar::U64))),
            Expr::from(again).to(Scalar::I64),
        );
    }
    b.kernel("widths", 12)
}

/// What `widths` must leave for a value.
pub(crate) fn widened(value: i64) -> Vec<i64> {
    vec![
        i64::from(value as i8),
        i64::from(value as u8),
        i64::from(value as i16),
        i64::from(value as u16),
        i64::from(value as i32),
        i64::from(value as u32),
        value,
        value,
        value,
        value as f32 as i64,
        value as f64 as i64,
    ]
}

fn half() -> Function {
    let mut b = Builder::new();
    let x = b.var(Scalar::U64);
    b.push(Stmt::Return(Expr::from(x).shr(u64(1))));
    b.function("half", 1, Scalar::U64)
}

/// Steps of Collatz's sequence down to 1, at most `limit`; reads the number from the arena.
fn collatz() -> Function {
    let mut b = Builder::new();
    let (base, index, limit) = (b.var(Scalar::U64), b.var(Scalar::U32), b.var(Scalar::I32));
    let x = b.load(place(Elem::U64, base.into(), index.into()));
    let steps = b.set(Scalar::I32, i32(0));
    b.repeat(|b| {
        b.when(Expr::from(x).le(u64(1)).or(Expr::from(steps).ge(limit.into())), |b| {
            b.push(Stmt::Break)
        });
        b.assign(steps, Expr::from(steps).plus(i32(1)));
        b.when(Expr::from(x).and(u64(1)).eq(u64(0)), |b| {
            b.assign(x, call(FunctionId(0), [Expr::from(x)]));
            b.push(Stmt::Continue);
        });
        b.assign(x, Expr::from(x).times(u64(3)).plus(u64(1)));
    });
    let stmt = Stmt::If {
        condition: Expr::from(x).gt(u64(1)),
        then: vec![Stmt::Return(i32(-1))],
        otherwise: vec![Stmt::If {
            condition: Expr::from(x).eq(u64(1)),
            then: vec![Stmt::Return(steps.into())],
            otherwise: vec![Stmt::Comment("zero\\".to_owned()), Stmt::Return(i32(0))],
        }],
    };
    b.push(stmt);
    b.function("collatz", 3, Scalar::I32)
}

/// What `loops` must leave for a number.
pub(crate) fn steps(mut x: u64) -> i64 {
    let mut steps = 0;
    while x > 1 && steps < 50 {
        x = if x.is_multiple_of(2) { x / 2 } else { 3 * x + 1 };
        steps += 1;
    }
    if x > 1 { -1 } else { steps }
}

fn loops() -> Kernel {
    let mut b = Builder::new();
    let steps = call(FunctionId(1), [Expr::Word(0), id(), i32(50)]);
    b.store(place(Elem::I64, Expr::Word(1), id()), steps.to(Scalar::I64));
    b.kernel("loops", 2)
}

/// Slots of each element in `atomics`.
pub(crate) const SLOTS: usize = 8;

/// Word 0 is an array of 64-bit words, [`SLOTS`] for each of [`ATOMIC`], all zero before; the id's of all work-items, less 40,
/// are: 0 added, 1 the least, 2 the largest, 3 or'ed (as bits below 31), 4 some one, 5 how many found another's value by
/// exchange, 6 added by compare and exchange, 7 added in local memory and then by a load.
fn atomics() -> Kernel {
    let mut b = Builder::new();
    for (position, elem) in (0_u32..).zip(ATOMIC) {
        let scalar = elem.scalar();
        let sum = b.local(elem, 2);
        b.when(Expr::LocalIndex.eq(u32(0)), |b| {
            b.atomic(Target::Local(sum, u32(0)), Atomic::Store(u32(0).to(scalar)));
            b.push(Stmt::StoreLocal(sum, u32(1), u32(0).to(scalar)));
        });
        b.push(Stmt::Barrier);
        let value = b.set(scalar, id().to(Scalar::I32).minus(i32(40)).to(scalar));
        let at = |slot: u32| {
            let base = Expr::Word(0).plus(u64(u64::from(position) * 8 * SLOTS as u64 + u64::from(slot) * 8));
            Target::Arena(place(elem, base, u32(0)))
        };
        let bit = u32(1).shl(id().rem(u32(31))).to(scalar);
        b.atomic(at(0), Atomic::Add(value.into()));
        b.atomic(at(1), Atomic::Min(value.into()));
        b.atomic(at(2), Atomic::Max(value.into()));
        b.atomic(at(3), Atomic::Or(bit));
        b.push(Stmt::Fence);
        let old = b.fetch(scalar, at(4), Atomic::Exchange(value.into()));
        b.when(Expr::from(old).ne(u32(0).to(scalar)), |b| {
            b.atomic(at(5), Atomic::Add(u32(1).to(scalar)))
        });
        exchange(&mut b, scalar, &at(6), value);
        b.atomic(Target::Local(sum, u32(0)), Atomic::Add(value.into()));
        exchange(&mut b, scalar, &Target::Local(sum, u32(1)), value);
        for op in [
            Atomic::Min(value.into()),
            Atomic::Max(value.into()),
            Atomic::Or(value.into()),
            Atomic::Exchange(value.into()),
        ] {
            let spare = b.local(elem, 1);
            b.when(Expr::LocalIndex.eq(u32(0)), |b| {
                b.push(Stmt::StoreLocal(spare, u32(0), value.into()))
            });
            b.push(Stmt::Barrier);
            b.atomic(Target::Local(spare, u32(0)), op);
        }
        b.push(Stmt::Barrier);
        b.when(Expr::LocalIndex.eq(u32(0)), |b| {
            let first = b.fetch(scalar, Target::Local(sum, u32(0)), Atomic::Load);
            let second = Expr::LoadLocal(sum, Box::new(u32(1)));
            b.atomic(at(7), Atomic::Add(Expr::from(first).plus(second)));
        });
    }
    b.kernel("atomics", 1)
}

/// Word 0 is an array of words: a number of work-items with odd ids, then those ids in the order of counting. Word 1 likewise,
/// for each group by itself, by a counter in local memory; its ids stand behind those of groups before it.
fn counting() -> Kernel {
    let mut b = Builder::new();
    let counter = b.local(Elem::U32, 1);
    b.when(Expr::LocalIndex.eq(u32(0)), |b| {
        b.push(Stmt::StoreLocal(counter, u32(0), u32(0)))
    });
    b.push(Stmt::Barrier);
    b.when(id().rem(u32(2)).eq(u32(1)), |b| {
        let target = Target::Arena(place(Elem::U64, Expr::Word(0), u64(0)));
        let at = b.fetch(Scalar::U64, target, Atomic::Add(u64(1)));
        let id = id().to(Scalar::U64);
        b.store(place(Elem::U64, Expr::Word(0), Expr::from(at).plus(u64(1))), id.clone());
        let at = b.fetch(Scalar::U32, Target::Local(counter, u32(0)), Atomic::Add(u32(1)));
        let at = Expr::GroupIndex.times(u32(GROUP / 2)).plus(at.into()).plus(u32(1));
        b.store(place(Elem::U64, Expr::Word(1), at), id);
    });
    b.kernel("counting", 2)
}

/// Adds by compare and exchange.
fn exchange(b: &mut Builder, scalar: Scalar, at: &Target, value: Var) {
    let seen = b.fetch(scalar, at.clone(), Atomic::Load);
    b.repeat(|b| {
        let value = Expr::from(seen).plus(value.into());
        let old = b.fetch(
            scalar,
            at.clone(),
            Atomic::CompareExchange {
                expected: seen.into(),
                value,
            },
        );
        b.when(Expr::from(old).eq(seen.into()), |b| b.push(Stmt::Break));
        b.assign(seen, old.into());
    });
}

/// What `atomics` must leave, per slot, in an element of so many bits; none where the schedule decides.
pub(crate) fn slots(items: i64, elem: Elem) -> [Option<u64>; SLOTS] {
    let ids = || (0..items).map(|id| id - 40);
    let unsigned = matches!(elem, Elem::U32 | Elem::U64);
    let mask = if elem.bytes() == 4 {
        u64::from(u32::MAX)
    } else {
        u64::MAX
    };
    let bits = |value: i64| Some(value as u64 & mask);
    let sum: i64 = ids().sum();
    // Zero stood there before; −1 is the largest unsigned number. There are more than 40 work-items.
    let (least, largest) = if unsigned { (0, -1) } else { (-40, items - 41) };
    let or = (0..items).fold(0, |bits, id| bits | 1_u32 << (id % 31));
    [
        bits(sum),
        bits(least),
        bits(largest),
        Some(u64::from(or)),
        None,
        bits(items - 2),
        bits(sum),
        bits(2 * sum),
    ]
}
