//! The kernels that measure a device, in the language that fragments are lowered to: what they reach, fragments can reach.
//!
//! Their block: where the data lies, how many accesses, where the result goes, a mask of places.

use trireme_device_codegen::build::{Builder, place, u32, u64};
use trireme_device_codegen::ir::{Atomic, Elem, Expr, Kernel, Module, Scalar, Stmt, Target};

/// Words of the block.
pub(crate) const WORDS: u32 = 4;
const DATA: Expr = Expr::Word(0);
const COUNT: Expr = Expr::Word(1);
const RESULT: Expr = Expr::Word(2);
const MASK: Expr = Expr::Word(3);

/// Elements whose sequential reads are measured, with their names.
pub(crate) const READS: [(Elem, &str); 5] = [
    (Elem::U8, "u8"),
    (Elem::U16, "u16"),
    (Elem::U32, "u32"),
    (Elem::U64, "u64"),
    (Elem::I128, "i128"),
];

/// Elements whose random reads are measured.
pub(crate) const RANDOM: [(Elem, &str); 2] = [(Elem::U32, "u32"), (Elem::U64, "u64")];

/// Entries of the local array that atomics are measured in.
pub(crate) const LOCAL_SLOTS: u32 = 1024;

/// Kernel `k` of [`module`] by name.
pub(crate) fn position(module: &Module, name: &str) -> Option<usize> {
    module.kernels.iter().position(|kernel| kernel.name == name)
}

/// All kernels, for groups of `group` work-items.
pub(crate) fn module(group: u32) -> Module {
    let mut kernels = vec![Builder::new().kernel("nothing", WORDS)];
    for (elem, name) in READS {
        kernels.push(reads(group, elem, &format!("read_{name}"), false));
    }
    for (elem, name) in RANDOM {
        kernels.push(reads(group, elem, &format!("random_{name}"), true));
    }
    kernels.push(adds(group, Elem::U32, "add_u32"));
    kernels.push(adds(group, Elem::U64, "add_u64"));
    kernels.push(local_adds(group));
    Module {
        group,
        functions: Vec::new(),
        kernels,
    }
}

/// Only one of them: for times of compiling.
pub(crate) fn one(group: u32, name: &str) -> Module {
    let mut module = module(group);
    module.kernels.retain(|kernel| kernel.name == name);
    module
}

/// Runs `inside` for 0 … count − 1, neighbours in neighbouring work-items.
fn rows(b: &mut Builder, group: u32, inside: impl FnOnce(&mut Builder, Expr)) {
    let first = Expr::GroupIndex
        .to(Scalar::U64)
        .times(u64(group.into()))
        .plus(Expr::LocalIndex.to(Scalar::U64));
    let step = Expr::Groups.to(Scalar::U64).times(u64(group.into()));
    b.range(Scalar::U64, first, COUNT, step, |b, row| inside(b, row.into()));
}

/// A place that looks like chance: multiply, keep the upper half, mask.
fn scattered(row: Expr) -> Expr {
    row.times(u64(0x9E37_79B9_7F4A_7C15)).shr(u64(20)).and(MASK)
}

/// Sums values, each group's sum added to the result.
fn reads(group: u32, elem: Elem, name: &str, random: bool) -> Kernel {
    let mut b = Builder::new();
    let sum = b.set(Scalar::U64, u64(0));
    let total = b.local(Elem::U64, 1);
    b.when(Expr::LocalIndex.eq(u32(0)), |b| {
        b.push(Stmt::StoreLocal(total, u32(0), u64(0)))
    });
    b.push(Stmt::Barrier);
    rows(&mut b, group, |b, row| {
        let index = if random { scattered(row) } else { row };
        let value = b.load(place(elem, DATA, index));
        b.assign(sum, Expr::from(sum).plus(Expr::from(value).to(Scalar::U64)));
    });
    b.atomic(Target::Local(total, u32(0)), Atomic::Add(sum.into()));
    b.push(Stmt::Barrier);
    b.when(Expr::LocalIndex.eq(u32(0)), |b| {
        let sum = Expr::LoadLocal(total, Box::new(u32(0)));
        b.atomic(Target::Arena(place(Elem::U64, RESULT, u64(0))), Atomic::Add(sum));
    });
    b.kernel(name, WORDS)
}

/// Adds one at scattered places of the arena.
fn adds(group: u32, elem: Elem, name: &str) -> Kernel {
    let mut b = Builder::new();
    let one = if elem == Elem::U64 { u64(1) } else { u32(1) };
    rows(&mut b, group, |b, row| {
        b.atomic(Target::Arena(place(elem, DATA, scattered(row))), Atomic::Add(one));
    });
    b.kernel(name, WORDS)
}

/// Adds one at scattered places of a local array, and the array to the result.
fn local_adds(group: u32) -> Kernel {
    let mut b = Builder::new();
    let slots = b.local(Elem::U64, LOCAL_SLOTS);
    b.range(
        Scalar::U32,
        Expr::LocalIndex,
        u32(LOCAL_SLOTS),
        u32(group),
        |b, slot| {
            b.push(Stmt::StoreLocal(slots, slot.into(), u64(0)));
        },
    );
    b.push(Stmt::Barrier);
    rows(&mut b, group, |b, row| {
        b.atomic(
            Target::Local(slots, scattered(row).to(Scalar::U32)),
            Atomic::Add(u64(1)),
        );
    });
    b.push(Stmt::Barrier);
    b.range(
        Scalar::U32,
        Expr::LocalIndex,
        u32(LOCAL_SLOTS),
        u32(group),
        |b, slot| {
            let count = Expr::LoadLocal(slots, Box::new(slot.into()));
            b.atomic(Target::Arena(place(Elem::U64, RESULT, u64(0))), Atomic::Add(count));
        },
    );
    b.kernel("local_u64", WORDS)
}
