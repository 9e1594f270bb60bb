//! Kernels with planted faults, which must be found, and right ones, which must pass every schedule.

mod faults;
mod hash;

use crate::build::{Builder, bool, place, u32, u64};
use crate::interpreter::{Code, Machine, Schedule, Stats, Violation, ViolationKind};
use crate::ir::{Atomic, Elem, Expr, Function, Kernel, Module, Scalar, Stmt, Target};

/// Words 0 … of the block.
fn word(word: u32) -> Expr {
    Expr::Word(word)
}

/// Number of a work-item among all, U64.
fn global(group: u32) -> Expr {
    let base = Expr::GroupIndex.times(u32(group));
    base.plus(Expr::LocalIndex).to(Scalar::U64)
}

fn module(group: u32, functions: Vec<Function>, kernel: Kernel) -> Module {
    Module {
        group,
        functions,
        kernels: vec![kernel],
    }
}

/// Runs a kernel over arrays of words, which stand in words 0, 1, … of the block; gives the arrays back.
fn run(module: &Module, groups: u32, arrays: &[Vec<u64>], schedule: &Schedule) -> Result<Vec<Vec<u64>>, Violation> {
    let mut machine = Machine::new(1 << 20);
    let mut places = Vec::new();
    for array in arrays {
        let at = machine.place(array.len() as u64 * 8)?;
        machine.write_words(at, array)?;
        places.push(at);
    }
    let block = machine.place(places.len() as u64 * 8)?;
    machine.write_words(block, &places)?;
    machine.launch(module, 0, groups, block, schedule)?;
    let arrays = places.iter().zip(arrays);
    arrays
        .map(|(at, array)| machine.read_words(*at, array.len() as u64))
        .collect()
}

/// What is found by the first of many schedules that finds something.
fn found(module: &Module, groups: u32, arrays: &[Vec<u64>]) -> Option<Violation> {
    (0..200).find_map(|seed| run(module, groups, arrays, &Schedule::seeded(seed)).err())
}

fn kind_found(module: &Module, groups: u32, arrays: &[Vec<u64>]) -> Option<ViolationKind> {
    found(module, groups, arrays).map(|violation| violation.kind)
}

/// Sums array 0 into array 1 by one atomic per work-item.
fn sum_kernel(group: u32, rows: u64) -> Module {
    let mut b = Builder::new();
    let total = b.set(Scalar::U64, u64(0));
    let step = Expr::Groups.times(u32(group)).to(Scalar::U64);
    b.range(Scalar::U64, global(group), u64(rows), step, |b, row| {
        let value = b.load(place(Elem::U64, word(0), row.into()));
        b.assign(total, Expr::from(total).plus(value.into()));
    });
    b.atomic(
        Target::Arena(place(Elem::U64, word(1), u64(0))),
        Atomic::Add(total.into()),
    );
    module(group, Vec::new(), b.kernel("sum", 2))
}

#[test]
fn a_sum_is_the_same_under_every_schedule() {
    let rows: Vec<u64> = (0..1000).map(|row| row * row).collect();
    let expected: u64 = rows.iter().sum();
    for seed in 0..100 {
        for groups in [1, 3] {
            let arrays = [rows.clone(), vec![5]];
            let after = run(&sum_kernel(8, 1000), groups, &arrays, &Schedule::seeded(seed));
            assert_eq!(after, Ok(vec![rows.clone(), vec![expected + 5]]), "seed {seed}");
        }
    }
}

#[test]
fn functions_loops_and_branches_do_what_they_say() {
    // The number of steps of Collatz's sequence, with a return inside the loop.
    let mut f = Builder::new();
    let n = f.var(Scalar::U64);
    let steps = f.set(Scalar::U64, u64(0));
    f.repeat(|f| {
        f.when(Expr::from(n).eq(u64(1)), |f| f.push(Stmt::Return(steps.into())));
        f.assign(steps, Expr::from(steps).plus(u64(1)));
        f.when(Expr::from(n).rem(u64(2)).eq(u64(0)), |f| {
            f.assign(n, Expr::from(n).over(u64(2)));
            f.push(Stmt::Continue);
        });
        f.assign(n, Expr::from(n).times(u64(3)).plus(u64(1)));
    });
    let function = f.function("collatz", 1, Scalar::U64);
    let mut b = Builder::new();
    let at = b.set(Scalar::U64, global(4));
    let call = |value| crate::build::call(crate::ir::FunctionId(0), vec![value]);
    let one = call(Expr::from(at).plus(u64(1)));
    b.store(
        place(Elem::U64, word(0), at.into()),
        one.plus(call(Expr::from(at).plus(u64(2)))),
    );
    let module = module(4, vec![function], b.kernel("twice", 1));
    let after = run(&module, 2, &[vec![0; 8]], &Schedule::seeded(7)).unwrap();
    // Steps of 1 … 9: 0 1 7 2 5 8 16 3 19.
    assert_eq!(after, [[1, 8, 9, 7, 13, 24, 19, 22]]);
}

#[test]
fn a_tree_of_sums_in_local_memory_needs_its_barriers() {
    let tree = |barriers: bool| {
        let mut b = Builder::new();
        let local = b.local(Elem::U64, 8);
        let own = b.set(Scalar::U32, Expr::LocalIndex);
        let value = b.load(place(Elem::U64, word(0), Expr::from(own).to(Scalar::U64)));
        b.push(Stmt::StoreLocal(local, own.into(), value.into()));
        b.push(Stmt::Barrier);
        let width = b.set(Scalar::U32, u32(4));
        b.repeat(|b| {
            b.when(Expr::from(width).eq(u32(0)), |b| b.push(Stmt::Break));
            b.when(Expr::from(own).lt(width.into()), |b| {
                let other = Expr::LoadLocal(local, Box::new(Expr::from(own).plus(width.into())));
                let sum = Expr::LoadLocal(local, Box::new(own.into())).plus(other);
                b.push(Stmt::StoreLocal(local, own.into(), sum));
            });
            if barriers {
                b.push(Stmt::Barrier);
            }
            b.assign(width, Expr::from(width).shr(u32(1)));
        });
        b.when(Expr::from(own).eq(u32(0)), |b| {
            let sum = Expr::LoadLocal(local, Box::new(u32(0)));
            b.store(place(Elem::U64, word(1), u64(0)), sum);
        });
        module(8, Vec::new(), b.kernel("tree", 2))
    };
    let arrays = [(1..=8).collect(), vec![0]];
    for seed in 0..100 {
        let after = run(&tree(true), 1, &arrays, &Schedule::seeded(seed));
        assert_eq!(after.map(|arrays| arrays[1].clone()), Ok(vec![36]), "seed {seed}");
    }
    assert_eq!(kind_found(&tree(false), 1, &arrays), Some(ViolationKind::Race));
}

#[test]
fn a_violation_says_where_and_who() {
    let mut b = Builder::new();
    b.when(global(4).eq(u64(6)), |b| {
        b.store(place(Elem::U32, word(0), u64(4)), u32(1));
    });
    let module = module(4, Vec::new(), b.kernel("writes_behind", 1));
    let violation = run(&module, 2, &[vec![0; 2]], &Schedule::sequential()).unwrap_err();
    assert_eq!(violation.kind, ViolationKind::OutOfBounds);
    assert_eq!(violation.item, Some((1, 2)));
    assert_eq!(violation.address, Some(256 + 16));
    assert_eq!(violation.kernel, "writes_behind");
    assert_eq!(violation.statement, "0.then.0: U32 word0[4] = 1");
}

#[test]
fn what_is_not_typed_does_not_run() {
    let invalid = |make: &dyn Fn(&mut Builder)| {
        let mut b = Builder::new();
        make(&mut b);
        let result = Code::new(&module(8, Vec::new(), b.kernel("k", 1)));
        result.map(|_| ()).map_err(|violation| violation.kind)
    };
    let wrong = Err(ViolationKind::Invalid);
    assert_eq!(invalid(&|b| _ = b.set(Scalar::U32, u32(1).plus(u32(2)))), Ok(()));
    assert_eq!(invalid(&|b| _ = b.set(Scalar::U32, u32(1).plus(u64(2)))), wrong);
    assert_eq!(invalid(&|b| _ = b.set(Scalar::U32, u64(1))), wrong);
    assert_eq!(
        invalid(&|b| _ = b.set(Scalar::Bool, bool(true).plus(bool(true)))),
        wrong
    );
    assert_eq!(invalid(&|b| _ = b.set(Scalar::U64, word(1))), wrong);
    assert_eq!(invalid(&|b| b.push(Stmt::Break)), wrong);
    assert_eq!(invalid(&|b| b.push(Stmt::Return(u32(1)))), wrong);
    assert_eq!(invalid(&|b| b.store(place(Elem::U32, word(0), u64(0)), u64(1))), wrong);
    assert_eq!(invalid(&|b| b.store(place(Elem::U32, u32(0), u64(0)), u32(1))), wrong);
    assert_eq!(invalid(&|b| b.when(u32(1), |_| {})), wrong);
    let small = Target::Arena(place(Elem::U8, word(0), u64(0)));
    assert_eq!(invalid(&|b| b.atomic(small.clone(), Atomic::Load)), wrong);
}

#[test]
fn functions_have_no_side_effects_and_return() {
    let checked = |make: &dyn Fn(&mut Builder)| {
        let mut f = Builder::new();
        make(&mut f);
        let function = f.function("f", 0, Scalar::U32);
        let result = Code::new(&module(8, vec![function], Builder::new().kernel("k", 1)));
        result.map(|_| ()).map_err(|violation| violation.what)
    };
    assert_eq!(checked(&|f| f.push(Stmt::Return(u32(1)))), Ok(()));
    assert!(checked(&|f| f.when(bool(true), |f| f.push(Stmt::Return(u32(1))))).is_err());
    assert!(checked(&|f| f.push(Stmt::Barrier)).is_err());
    assert!(checked(&|f| f.store(place(Elem::U32, u64(0), u64(0)), u32(1))).is_err());
    let recursive = crate::build::call(crate::ir::FunctionId(0), Vec::new());
    assert!(checked(&|f| f.push(Stmt::Return(recursive.clone()))).is_err());
}

#[test]
fn what_a_launch_does_is_counted() {
    let mut machine = Machine::new(1 << 16);
    let at = machine.place(16).unwrap();
    machine.write_words(at, &[3, 4]).unwrap();
    let total = machine.place(8).unwrap();
    machine.fill(total, 8, 0).unwrap();
    let block = machine.place(16).unwrap();
    machine.write_words(block, &[at, total]).unwrap();
    let stats = machine.launch(&sum_kernel(8, 2), 0, 1, block, &Schedule::sequential());
    assert!(
        matches!(
            stats,
            Ok(Stats {
                accesses: 8,
                barriers: 0,
                ..
            })
        ),
        "{stats:?}"
    );
    assert_eq!(machine.read_words(total, 1), Ok(vec![7]));
    assert_eq!(machine.allocated(), (3, 40));
}
