//! One small kernel as text, in both dialects. What the text does is tested where it is compiled (`tests/`).

use super::{Dialect, print};
use crate::build::{Builder, call, place, u32, u64};
use crate::ir::{Atomic, Elem, Expr, FunctionId, Module, Scalar, Stmt, Target, Var};

/// Sums a column of 32-bit values that are not -1, per work-item, then in the group, then over all groups.
fn module() -> Module {
    let mut f = Builder::new();
    let (x, y) = (f.var(Scalar::I64), f.var(Scalar::I64));
    let difference = Expr::from(x).minus(Expr::from(y).times(crate::build::i64(-3)));
    f.push(Stmt::Return(
        difference.clone().lt(crate::build::i64(0)).select(difference, x.into()),
    ));
    let function = f.function("decrease", 2, Scalar::I64);

    let mut b = Builder::new();
    b.push(Stmt::Comment("Sum of a column.".to_owned()));
    let partial = b.local(Elem::I64, 1);
    let sum = b.set(Scalar::I64, crate::build::i64(0));
    b.when(Expr::LocalIndex.eq(u32(0)), |b| {
        b.push(Stmt::StoreLocal(partial, u32(0), Expr::from(sum)))
    });
    b.push(Stmt::Barrier);
    let first = Expr::GroupIndex.times(u32(64)).plus(Expr::LocalIndex).to(Scalar::U64);
    b.range(
        Scalar::U64,
        first,
        Expr::Word(1),
        Expr::Groups.times(u32(64)).to(Scalar::U64),
        |b, row| {
            let value = b.load(place(Elem::I32, Expr::Word(0), row.into()));
            b.when(Expr::from(value).ne(crate::build::i32(-1)), |b| {
                let value = call(FunctionId(0), [Expr::from(value).to(Scalar::I64), crate::build::i64(1)]);
                b.assign(sum, Expr::from(sum).plus(value));
            });
        },
    );
    b.atomic(Target::Local(partial, u32(0)), Atomic::Add(sum.into()));
    b.push(Stmt::Barrier);
    b.when(Expr::LocalIndex.eq(u32(0)), |b| {
        let total = Expr::LoadLocal(partial, Box::new(u32(0)));
        b.atomic(
            Target::Arena(place(Elem::I64, Expr::Word(2), u64(0))),
            Atomic::Add(total),
        );
    });
    assert_eq!(b.scalar(Var(0)), Scalar::I64);
    Module {
        group: 64,
        functions: vec![function],
        kernels: vec![b.kernel("column_sum", 3)],
    }
}

const BELOW: &str = "
FUNCTION i64 fn_decrease(GLOBAL u8* arena, i64 v0, i64 v1) {
    return ((i64)((u64)v0 - (u64)v1 * (u64)-3) < (i64)0) ? (i64)((u64)v0 - (u64)v1 * (u64)-3) : v0;
}

KERNEL(64) column_sum(GLOBAL u8* arena, u64 block) {
    LOCAL i64 l0[1];
    const u64 w0 = WORD(0);
    const u64 w1 = WORD(1);
    const u64 w2 = WORD(2);
    i32 v2;
    i64 v0;
    u64 v1;
    // Sum of a column.
    v0 = (i64)0;
    if (LOCAL_INDEX == 0u) {
        l0[0u] = v0;
    }
    BARRIER();
    v1 = (u64)(GROUP_INDEX * 64u + LOCAL_INDEX);
    LOOP {
        if (v1 >= w1) break;
        v2 = LOAD_CONSTANT(i32, w0, v1);
        if (v2 != -1) {
            v0 = (i64)((u64)v0 + (u64)fn_decrease(arena, (i64)v2, (i64)1));
        }
        v1 = v1 + (u64)(GROUPS * 64u);
    }
    ATOMIC_ADD(LOCAL, i64, &l0[0u], v0);
    BARRIER();
    if (LOCAL_INDEX == 0u) {
        ATOMIC_ADD(GLOBAL, i64, AT(i64, w2, (u64)0), l0[0u]);
    }
}
";

#[test]
fn dialects_differ_in_their_prelude_only() {
    for (dialect, word) in [
        (Dialect::Cuda, "__syncthreads"),
        (Dialect::OpenCl, "reqd_work_group_size"),
    ] {
        let text = print(&module(), dialect);
        let below = match dialect {
            Dialect::Cuda => BELOW
                .lines()
                .filter(|line| !line.contains("const u64 w"))
                .fold(String::new(), |text, line| text + line + "\n"),
            Dialect::OpenCl => BELOW.to_owned(),
        };
        assert!(text.ends_with(&below), "{text}");
        assert!(text.contains(word), "{text}");
        assert!(
            text.contains("ATOMIC_ADD(S, T, p, x)") && !text.contains("wide"),
            "{text}"
        );
        if let Ok(folder) = std::env::var("TRIREME_PRINT_TO") {
            std::fs::write(format!("{folder}/{dialect:?}.txt"), text).unwrap();
        }
    }
}
