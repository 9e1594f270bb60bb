//! A hash table that many work-items fill without locks: keys of a slot are stored before a fence and a compare-exchange
//! makes the slot known, so that others may read them after theirs.

use super::*;

/// What is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// The fence between the keys' store and their publication.
    Release,
    /// The fence between seeing a slot and reading its key.
    Acquire,
    /// Publication by a plain store.
    PlainPublication,
}

const SLOTS: u64 = 64;

/// Array 0: rows' keys. 1: slots, group + 1. 2: number of groups. 3: keys by group. 4: counts by group.
fn table(rows: u64, fault: Fault) -> Module {
    let mut b = Builder::new();
    let step = Expr::Groups.times(u32(8)).to(Scalar::U64);
    b.range(Scalar::U64, global(8), u64(rows), step, |b, row| {
        let key = b.load(place(Elem::U64, word(0), row.into()));
        let slot = b.set(Scalar::U64, Expr::from(key).times(u64(0x9e37)).rem(u64(SLOTS)));
        // The group that this work-item made ready and nobody took yet: + 1, 0 is none.
        let own = b.set(Scalar::U64, u64(0));
        let group = b.set(Scalar::U64, u64(0));
        b.repeat(|b| {
            let target = Target::Arena(place(Elem::U64, word(1), slot.into()));
            let seen = b.fetch(Scalar::U64, target.clone(), Atomic::Load);
            b.when(Expr::from(seen).eq(u64(0)), |b| {
                b.when(Expr::from(own).eq(u64(0)), |b| {
                    let counter = Target::Arena(place(Elem::U64, word(2), u64(0)));
                    let new = b.fetch(Scalar::U64, counter, Atomic::Add(u64(1)));
                    b.store(place(Elem::U64, word(3), new.into()), key.into());
                    b.assign(own, Expr::from(new).plus(u64(1)));
                });
                if fault != Fault::Release {
                    b.push(Stmt::Fence);
                }
                if fault == Fault::PlainPublication {
                    b.store(place(Elem::U64, word(1), slot.into()), own.into());
                    b.assign(group, Expr::from(own).minus(u64(1)));
                    b.push(Stmt::Break);
                } else {
                    let op = Atomic::CompareExchange {
                        expected: u64(0),
                        value: own.into(),
                    };
                    let won = b.fetch(Scalar::U64, target.clone(), op);
                    b.when(Expr::from(won).eq(u64(0)), |b| {
                        b.assign(group, Expr::from(own).minus(u64(1)));
                        b.push(Stmt::Break);
                    });
                    b.assign(seen, won.into());
                }
            });
            if fault != Fault::Acquire {
                b.push(Stmt::Fence);
            }
            b.assign(group, Expr::from(seen).minus(u64(1)));
            let place_of_key = place(Elem::U64, word(3), group.into());
            let other = b.set(
                Scalar::U64,
                Expr::Load {
                    place: place_of_key,
                    constant: false,
                },
            );
            b.when(Expr::from(other).eq(key.into()), |b| b.push(Stmt::Break));
            b.assign(slot, Expr::from(slot).plus(u64(1)).rem(u64(SLOTS)));
        });
        let count = Target::Arena(place(Elem::U64, word(4), group.into()));
        b.atomic(count, Atomic::Add(u64(1)));
    });
    module(8, Vec::new(), b.kernel("group", 5))
}

fn arrays(rows: u64) -> Vec<Vec<u64>> {
    let keys = (0..rows).map(|row| row * row % 23 + 1).collect();
    let made = usize::try_from(rows).unwrap();
    vec![keys, vec![0; 64], vec![0], vec![0; made], vec![0; made]]
}

#[test]
fn with_all_fences_it_passes_every_schedule() {
    let rows = 96;
    let keys = arrays(rows)[0].clone();
    for seed in 0..150 {
        let after = run(&table(rows, Fault::None), 3, &arrays(rows), &Schedule::seeded(seed));
        let after = after.unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        let mut counted = std::collections::BTreeMap::new();
        for (key, count) in after[3].iter().zip(&after[4]).filter(|(_, count)| **count > 0) {
            assert_eq!(counted.insert(*key, *count), None, "seed {seed}: two groups of {key}");
        }
        let mut expected = std::collections::BTreeMap::new();
        for key in &keys {
            *expected.entry(*key).or_insert(0) += 1;
        }
        assert_eq!(counted, expected, "seed {seed}");
    }
}

#[test]
fn without_one_of_them_it_is_found() {
    for fault in [Fault::Release, Fault::Acquire, Fault::PlainPublication] {
        let kind = kind_found(&table(96, fault), 3, &arrays(96));
        assert_eq!(kind, Some(ViolationKind::Race), "{fault:?}");
    }
}
