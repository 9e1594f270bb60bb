//! One kernel for each rule, which breaks it.

use super::*;
use crate::build::{i32, i64};
use crate::ir::{Const, LocalId, Var};

/// A kernel of one work-item per group of one.
fn single(make: impl FnOnce(&mut Builder)) -> Module {
    let mut b = Builder::new();
    make(&mut b);
    module(1, Vec::new(), b.kernel("single", 2))
}

fn words(at: u32, index: u64) -> crate::ir::Place {
    place(Elem::U64, word(at), u64(index))
}

fn loads(place: crate::ir::Place) -> Expr {
    Expr::Load { place, constant: false }
}

fn kind_of_single(make: impl FnOnce(&mut Builder)) -> Option<ViolationKind> {
    kind_found(&single(make), 1, &[vec![0; 4], vec![0; 4]])
}

#[test]
fn bounds_and_alignment() {
    assert_eq!(kind_of_single(|b| b.store(words(0, 3), u64(1))), None);
    assert_eq!(
        kind_of_single(|b| b.store(words(0, 4), u64(1))),
        Some(ViolationKind::OutOfBounds)
    );
    // The second array can't be reached from the first one's base.
    assert_eq!(
        kind_of_single(|b| b.store(words(0, 32), u64(1))),
        Some(ViolationKind::OutOfBounds)
    );
    assert_eq!(
        kind_of_single(|b| b.store(words(0, u64::MAX), u64(1))),
        Some(ViolationKind::OutOfBounds)
    );
    assert_eq!(
        kind_of_single(|b| b.store(place(Elem::U64, u64(0), u64(0)), u64(1))),
        Some(ViolationKind::OutOfBounds)
    );
    assert_eq!(
        kind_of_single(|b| b.store(place(Elem::U64, word(0).plus(u64(4)), u64(0)), u64(1))),
        Some(ViolationKind::Misaligned)
    );
    // 128-bit elements are aligned to 8.
    let wide = || Expr::Const(Const::I128(-1));
    assert_eq!(
        kind_of_single(|b| b.store(place(Elem::I128, word(0).plus(u64(8)), u64(0)), wide())),
        None
    );
    assert_eq!(
        kind_of_single(|b| b.store(place(Elem::I128, word(0).plus(u64(8)), u64(1)), wide())),
        Some(ViolationKind::OutOfBounds)
    );
}

#[test]
fn memory_that_was_given_back() {
    let mut machine = Machine::new(4096);
    let data = machine.place(64).unwrap();
    let block = machine.place(16).unwrap();
    machine.write_words(block, &[data, data]).unwrap();
    let module = single(|b| b.store(words(0, 0), u64(1)));
    assert!(machine.launch(&module, 0, 1, block, &Schedule::sequential()).is_ok());
    machine.free(data).unwrap();
    let violation = machine.launch(&module, 0, 1, block, &Schedule::sequential());
    assert_eq!(
        violation.map_err(|violation| violation.kind),
        Err(ViolationKind::UseAfterFree)
    );
    assert!(machine.free(data).is_err());
    assert!(machine.read(data, 8).is_err());
}

#[test]
fn memory_that_was_never_written() {
    let mut machine = Machine::new(4096);
    let data = machine.place(64).unwrap();
    let block = machine.place(16).unwrap();
    machine.write_words(block, &[data, data]).unwrap();
    let reads = single(|b| _ = b.set(Scalar::U64, loads(words(0, 1))));
    let writes = single(|b| b.store(place(Elem::U32, word(0), u64(2)), u32(1)));
    let kind = |machine: &mut Machine, module: &Module| {
        let result = machine.launch(module, 0, 1, block, &Schedule::sequential());
        result.map(|_| ()).map_err(|violation| violation.kind)
    };
    assert_eq!(kind(&mut machine, &reads), Err(ViolationKind::UninitialisedMemory));
    assert_eq!(kind(&mut machine, &writes), Ok(()));
    // Half of it is still missing.
    assert_eq!(kind(&mut machine, &reads), Err(ViolationKind::UninitialisedMemory));
    machine.fill(data, 64, 0).unwrap();
    assert_eq!(kind(&mut machine, &reads), Ok(()));
    // A block that is too short, or was never written.
    machine.free(block).unwrap();
    let block = machine.place(8).unwrap();
    let read_second = single(|b| _ = b.set(Scalar::U64, word(1)));
    let result = machine.launch(&read_second, 0, 1, block, &Schedule::sequential());
    assert_eq!(
        result.map_err(|violation| violation.kind),
        Err(ViolationKind::OutOfBounds)
    );
    let read_first = single(|b| _ = b.set(Scalar::U64, word(0)));
    let result = machine.launch(&read_first, 0, 1, block, &Schedule::sequential());
    assert_eq!(
        result.map_err(|violation| violation.kind),
        Err(ViolationKind::UninitialisedMemory)
    );
}

#[test]
fn variables_and_local_memory_without_values() {
    let kind = kind_of_single(|b| {
        let var = b.var(Scalar::U64);
        b.store(words(0, 0), var.into());
    });
    assert_eq!(kind, Some(ViolationKind::UninitialisedVariable));
    // Assigned on the way that is taken.
    let on_one_way = |taken: bool| {
        kind_of_single(|b| {
            let var = b.var(Scalar::U64);
            let condition = Expr::Groups.eq(u32(if taken { 1 } else { 2 }));
            b.when(condition, |b| b.assign(var, u64(1)));
            b.store(words(0, 0), var.into());
        })
    };
    assert_eq!(on_one_way(true), None);
    assert_eq!(on_one_way(false), Some(ViolationKind::UninitialisedVariable));
    let local = |index: u32, len: u32| {
        kind_of_single(|b| {
            let local = b.local(Elem::U32, len);
            b.push(Stmt::StoreLocal(local, u32(0), u32(7)));
            b.set(Scalar::U32, Expr::LoadLocal(LocalId(0), Box::new(u32(index))));
        })
    };
    assert_eq!(local(0, 2), None);
    assert_eq!(local(1, 2), Some(ViolationKind::UninitialisedLocal));
    assert_eq!(local(1, 1), Some(ViolationKind::LocalOutOfBounds));
}

#[test]
fn a_functions_variables_have_no_values_when_it_is_called_again() {
    let mut f = Builder::new();
    let first = f.var(Scalar::Bool);
    let kept = f.var(Scalar::U64);
    f.when(first.into(), |f| f.assign(kept, u64(1)));
    f.push(Stmt::Return(kept.into()));
    let function = f.function("keeps", 1, Scalar::U64);
    let mut b = Builder::new();
    b.range(Scalar::U64, u64(0), u64(2), u64(1), |b, index| {
        let first = Expr::from(index).eq(u64(0));
        b.set(Scalar::U64, crate::build::call(crate::ir::FunctionId(0), vec![first]));
    });
    let module = module(1, vec![function], b.kernel("calls", 0));
    assert_eq!(kind_found(&module, 1, &[]), Some(ViolationKind::UninitialisedVariable));
}

#[test]
fn arithmetic_without_a_result() {
    let computed = |scalar: Scalar, make: &dyn Fn(Var) -> Expr, value: Expr| {
        kind_of_single(|b| {
            let var = b.set(scalar, value);
            b.push(Stmt::Assign(var, make(var)));
        })
    };
    let int = Scalar::I32;
    assert_eq!(computed(int, &|v| Expr::from(v).over(i32(-1)), i32(i32::MAX)), None);
    assert_eq!(
        computed(int, &|v| Expr::from(v).over(i32(-1)), i32(i32::MIN)),
        Some(ViolationKind::DivisionOverflow)
    );
    assert_eq!(
        computed(Scalar::I64, &|v| i64(1).rem(v.into()), i64(0)),
        Some(ViolationKind::DivisionByZero)
    );
    assert_eq!(
        computed(Scalar::U32, &|v| u32(1).shl(v.into()), u32(32)),
        Some(ViolationKind::ShiftWidth)
    );
    assert_eq!(
        kind_of_single(|b| _ = b.set(int, Expr::Const(Const::F64(1e10)).to(int))),
        Some(ViolationKind::FloatRange)
    );
}

#[test]
fn barriers_that_not_all_reach() {
    // A condition that the text doesn't tell to be divergent: read at one place, after a store of one work-item's own.
    let diverging = |otherwise: bool| {
        let mut b = Builder::new();
        let local = b.local(Elem::U32, 1);
        b.when(Expr::LocalIndex.eq(u32(0)), |b| {
            b.push(Stmt::StoreLocal(local, u32(0), u32(0)))
        });
        b.push(Stmt::Barrier);
        let seen = b.set(Scalar::U32, Expr::LoadLocal(local, Box::new(u32(0))));
        b.push(Stmt::StoreLocal(local, u32(0), u32(1)));
        let barrier = b.block(|b| b.push(Stmt::Barrier));
        b.push(Stmt::If {
            condition: Expr::from(seen).eq(u32(0)),
            then: barrier.clone(),
            otherwise: if otherwise { barrier } else { Vec::new() },
        });
        module(4, Vec::new(), b.kernel("diverges", 0))
    };
    for seed in 0..20 {
        for otherwise in [false, true] {
            let schedule = Schedule {
                races: false,
                order: crate::interpreter::Order::OneByOne,
                ..Schedule::seeded(seed)
            };
            let kind = run(&diverging(otherwise), 2, &[], &schedule).map_err(|violation| violation.kind);
            assert_eq!(kind, Err(ViolationKind::Divergence), "seed {seed}");
        }
    }
}

#[test]
fn barriers_under_what_depends_on_the_work_item() {
    let valid = |make: &dyn Fn(&mut Builder)| {
        let mut b = Builder::new();
        make(&mut b);
        Code::new(&module(8, Vec::new(), b.kernel("k", 1)))
            .map(|_| ())
            .map_err(|violation| violation.what)
    };
    let barrier = |b: &mut Builder| b.push(Stmt::Barrier);
    let own = || Expr::LocalIndex.lt(u32(3));
    assert_eq!(valid(&|b| b.when(Expr::GroupIndex.lt(u32(3)), barrier)), Ok(()));
    assert!(valid(&|b| b.when(own(), barrier)).is_err());
    // After what parts them they meet again, but not in the loop that some have left.
    assert_eq!(
        valid(&|b| {
            b.when(own(), |b| _ = b.set(Scalar::U32, u32(1)));
            barrier(b);
        }),
        Ok(())
    );
    let leaves = |b: &mut Builder, inside: bool| {
        b.repeat(|b| {
            b.when(own(), |b| b.push(Stmt::Break));
            if inside {
                barrier(b);
            }
        });
        barrier(b);
    };
    assert_eq!(valid(&|b| leaves(b, false)), Ok(()));
    assert!(valid(&|b| leaves(b, true)).is_err());
    // What an atomic gave, and a variable that only some assign, which the next round of a loop asks for.
    let flag = || Target::Arena(words(0, 0));
    assert!(
        valid(&|b| {
            let old = b.fetch(Scalar::U64, flag(), Atomic::Add(u64(1)));
            b.when(Expr::from(old).eq(u64(0)), barrier);
        })
        .is_err()
    );
    assert!(
        valid(&|b| {
            let var = b.set(Scalar::U32, u32(0));
            b.repeat(|b| {
                b.when(Expr::from(var).eq(u32(1)), barrier);
                b.when(own(), |b| b.assign(var, u32(1)));
                b.when(Expr::Groups.eq(u32(7)), |b| b.push(Stmt::Break));
            });
        })
        .is_err()
    );
    // A place that is the same for all.
    assert_eq!(valid(&|b| b.when(loads(words(0, 0)).eq(u64(0)), barrier)), Ok(()));
    let own_place = || place(Elem::U64, word(0), Expr::LocalIndex);
    assert!(valid(&|b| b.when(loads(own_place()).eq(u64(0)), barrier)).is_err());
}

#[test]
fn stores_to_one_place_race() {
    let all_store = |value: fn() -> Expr| {
        let mut b = Builder::new();
        b.store(words(0, 0), value());
        module(4, Vec::new(), b.kernel("races", 1))
    };
    for seed in 0..20 {
        // Equal values are no excuse.
        let result = run(&all_store(|| u64(1)), 1, &[vec![0]], &Schedule::seeded(seed));
        assert_eq!(
            result.map_err(|violation| violation.kind),
            Err(ViolationKind::Race),
            "seed {seed}"
        );
    }
    // Neighbours of one word don't.
    let mut b = Builder::new();
    b.store(place(Elem::U8, word(0), global(4)), u32(1));
    let bytes = module(4, Vec::new(), b.kernel("bytes", 1));
    assert_eq!(kind_found(&bytes, 2, &[vec![0]]), None);
    // Wider accesses meet narrower ones.
    let mut b = Builder::new();
    b.push(Stmt::If {
        condition: Expr::LocalIndex.eq(u32(0)),
        then: vec![Stmt::Store(place(Elem::U8, word(0), u64(5)), u32(1))],
        otherwise: vec![Stmt::Store(words(0, 0), u64(1))],
    });
    let mixed = module(2, Vec::new(), b.kernel("mixed", 1));
    for seed in 0..20 {
        let result = run(&mixed, 1, &[vec![0]], &Schedule::seeded(seed));
        assert_eq!(result.map_err(|violation| violation.kind), Err(ViolationKind::Race));
    }
}

#[test]
fn barriers_order_a_group_and_no_other() {
    let shift = || {
        let mut b = Builder::new();
        b.store(place(Elem::U64, word(0), global(4)), global(4));
        b.push(Stmt::Barrier);
        let next = global(4).plus(u64(1)).rem(Expr::Groups.to(Scalar::U64).times(u64(4)));
        let value = b.set(Scalar::U64, loads(place(Elem::U64, word(0), next)));
        b.store(place(Elem::U64, word(1), global(4)), value.into());
        module(4, Vec::new(), b.kernel("shift", 2))
    };
    for seed in 0..50 {
        let one = run(&shift(), 1, &[vec![0; 4], vec![0; 4]], &Schedule::seeded(seed)).unwrap();
        assert_eq!(one[1], [1, 2, 3, 0]);
        let two = run(&shift(), 2, &[vec![0; 8], vec![0; 8]], &Schedule::seeded(seed));
        assert_eq!(
            two.map_err(|violation| violation.kind),
            Err(ViolationKind::Race),
            "seed {seed}"
        );
    }
}

#[test]
fn constants_do_not_change_while_a_kernel_runs() {
    // Even by the same work-item, even in order.
    let kind = kind_of_single(|b| {
        b.load(words(0, 0));
        b.store(words(0, 0), u64(1));
    });
    assert_eq!(kind, Some(ViolationKind::ConstantWritten));
    let kind = kind_of_single(|b| {
        b.atomic(Target::Arena(words(0, 0)), Atomic::Add(u64(1)));
        b.load(words(0, 0));
    });
    assert_eq!(kind, Some(ViolationKind::ConstantWritten));
    // A plain load of what others change by atomics.
    let mut b = Builder::new();
    b.atomic(Target::Arena(words(0, 0)), Atomic::Add(u64(1)));
    b.set(Scalar::U64, loads(words(0, 0)));
    let mixes = module(2, Vec::new(), b.kernel("mixes", 1));
    assert_eq!(kind_found(&mixes, 1, &[vec![0]]), Some(ViolationKind::Race));
}

#[test]
fn waiting_for_another_does_not_end() {
    let mut b = Builder::new();
    let flag = || Target::Arena(words(0, 0));
    b.when(global(2).eq(u64(1)), |b| b.atomic(flag(), Atomic::Store(u64(1))));
    b.when(global(2).eq(u64(0)), |b| {
        b.repeat(|b| {
            let seen = b.fetch(Scalar::U64, flag(), Atomic::Load);
            b.when(Expr::from(seen).eq(u64(1)), |b| b.push(Stmt::Break));
        });
    });
    let module = module(2, Vec::new(), b.kernel("waits", 1));
    let schedule = Schedule {
        operations_max: 10_000,
        ..Schedule::sequential()
    };
    let result = run(&module, 1, &[vec![0]], &schedule);
    assert_eq!(result.map_err(|violation| violation.kind), Err(ViolationKind::Endless));
}

/// Two flags by relaxed atomics: who reads the second one set may still read the first one unset, unless there are fences.
#[test]
fn atomic_loads_may_give_older_values() {
    let message = |fences: bool| {
        let mut b = Builder::new();
        let target = |index| Target::Arena(words(0, index));
        b.when(global(1).eq(u64(0)), |b| {
            b.atomic(target(0), Atomic::Store(u64(1)));
            if fences {
                b.push(Stmt::Fence);
            }
            b.atomic(target(1), Atomic::Store(u64(1)));
        });
        b.when(global(1).eq(u64(1)), |b| {
            let second = b.fetch(Scalar::U64, target(1), Atomic::Load);
            if fences {
                b.push(Stmt::Fence);
            }
            let first = b.fetch(Scalar::U64, target(0), Atomic::Load);
            let again = b.fetch(Scalar::U64, target(0), Atomic::Load);
            b.store(words(1, 0), second.into());
            b.store(words(1, 1), first.into());
            b.store(words(1, 2), again.into());
        });
        module(1, Vec::new(), b.kernel("message", 2))
    };
    let mut outcomes = std::collections::BTreeSet::new();
    for fences in [false, true] {
        for seed in 0..200 {
            let schedule = Schedule::seeded(seed);
            let after = run(&message(fences), 2, &[vec![0; 2], vec![0; 3]], &schedule).unwrap();
            outcomes.insert((fences, after[1].clone()));
        }
    }
    assert!(outcomes.contains(&(false, vec![1, 0, 0])), "{outcomes:?}");
    assert!(outcomes.contains(&(true, vec![1, 1, 1])), "{outcomes:?}");
    // With fences what was written before is seen, and a place never goes back.
    let forbidden = |(fences, seen): &(bool, Vec<u64>)| (*fences && seen[0] == 1 && seen[1] == 0) || seen[1] > seen[2];
    assert!(!outcomes.iter().any(forbidden), "{outcomes:?}");
}
