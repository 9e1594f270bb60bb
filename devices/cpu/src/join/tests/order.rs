//! Build sides whose keys ascend, and those whose rows many tasks insert.

use super::*;
use crate::vector::TILE_ROWS;

/// Keys as tiles that workers push, in this order; each payload is the key's double.
fn table_of(tiles: &[(usize, Vec<i32>)], workers: usize, uses: BuildUse) -> Arc<BuildTable> {
    let pool: Arc<dyn DevicePool> = Arc::new(Unlimited);
    let side = Side::Int(-1_000_000, 100_000_000);
    let plan = Arc::new(BuildPlan::new(
        &[side.shape()],
        &[side.shape()],
        uses,
        &pool,
        Isa::detect(),
    ));
    let mut locals: Vec<_> = (0..workers).map(|_| BuildLocal::new(&plan)).collect();
    for (worker, keys) in tiles {
        let doubles: Vec<i32> = keys.iter().map(|key| key * 2).collect();
        let vectors = [
            Vector::new(Data::I32(keys.into())),
            Vector::new(Data::I32(doubles.into())),
        ];
        locals[*worker].push(&vectors[..1], &vectors[1..], keys.len()).unwrap();
    }
    let building = Building::new(&plan, locals).unwrap();
    (0..building.tasks()).for_each(|task| building.run_task(task).unwrap());
    Arc::new(building.finish().unwrap())
}

#[test]
fn keys_in_order_are_found_by_themselves() {
    let mut random = StdRng::seed_from_u64(5);
    let steps = [("same", 1..2), ("sorted", 1..30), ("dense", 0..4), ("dense", -2..4)];
    for (name, step) in steps {
        for workers in [1, 2, 3] {
            let mut key = -7;
            let mut tiles = Vec::new();
            for tile in 0..40 {
                let rows = random.random_range(1..1500);
                // Some keys begin without gaps and then have them.
                let mut keys = Vec::new();
                for _ in 0..rows {
                    key += if tile < 2 { 1 } else { random.random_range(step.clone()) };
                    keys.push(key);
                }
                tiles.push((random.random_range(0..workers), keys));
            }
            for rows in [true, false] {
                let uses = BuildUse {
                    rows,
                    nulls_equal: false,
                };
                let table = table_of(&tiles, workers, uses);
                let expected = if rows || name == "same" { name } else { "bitmap" };
                assert_eq!(table.index_name(), expected);
                check(&table, &tiles, key, rows);
            }
        }
    }
}

/// Asks for all keys around those of the tiles.
fn check(table: &Arc<BuildTable>, tiles: &[(usize, Vec<i32>)], most: i32, rows: bool) {
    let mut counts = std::collections::HashMap::new();
    for key in tiles.iter().flat_map(|(_, keys)| keys) {
        *counts.entry(*key).or_insert(0) += 1;
    }
    let pool: Arc<dyn DevicePool> = Arc::new(Unlimited);
    let shape = Side::Int(-1_000_000, 100_000_000).shape();
    let kind = if rows { JoinKind::Inner } else { JoinKind::Semi };
    let prober = Prober::new(table, &[shape], how(kind, false), &pool, Isa::detect()).unwrap();
    let wanted: Vec<i32> = (-100..most + 100).collect();
    for wanted in wanted.chunks(TILE_ROWS) {
        let mut scratch = Scratch::default();
        prober.start(&mut scratch, &[Vector::new(Data::I32(wanted.into()))], wanted.len());
        if !rows {
            let mut keep = Vec::new();
            prober.exists(&scratch, &mut keep);
            assert!(
                keep.iter()
                    .zip(wanted)
                    .all(|(keep, key)| (*keep == 1) == counts.contains_key(key))
            );
            continue;
        }
        let mut found = vec![0; wanted.len()];
        while prober.next(&mut scratch) {
            for (row, build) in scratch.rows.iter().zip(&scratch.build) {
                found[*row as usize] += 1;
                let trireme_device_api::Values::Integers { carrier, base } = &table.payload()[0].values else {
                    panic!("no integers");
                };
                assert_eq!(
                    base + carrier.get(*build as usize),
                    i64::from(wanted[*row as usize]) * 2
                );
            }
        }
        for (found, key) in found.iter().zip(wanted) {
            assert_eq!(*found, counts.get(key).copied().unwrap_or(0), "{key}");
        }
    }
}

#[test]
fn many_rows_are_inserted_by_many_tasks() {
    let mut random = StdRng::seed_from_u64(3);
    let pool: Arc<dyn DevicePool> = Arc::new(Unlimited);
    let side = Side::Int(0, 1 << 30);
    let uses = BuildUse {
        rows: true,
        nulls_equal: false,
    };
    let keys: Vec<i32> = (0..150_000).map(|_| random.random_range(0..100_000)).collect();
    for (ladder, bloom) in [
        (Ladder::Dense, false),
        (Ladder::Ranked, false),
        (Ladder::Hash, true),
        (Ladder::Compared, false),
    ] {
        let plan = Arc::new(BuildPlan::new(&[side.shape()], &[], uses, &pool, Isa::detect()).forced(ladder, bloom));
        let mut locals: Vec<_> = (0..3).map(|_| BuildLocal::new(&plan)).collect();
        for (local, keys) in locals.iter_mut().zip(keys.chunks(50_000)) {
            local
                .push(&[Vector::new(Data::I32(keys.into()))], &[], keys.len())
                .unwrap();
        }
        let building = Building::new(&plan, locals).unwrap();
        assert!(building.tasks() > 2);
        let next = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        let task = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        if task >= building.tasks() {
                            return;
                        }
                        building.run_task(task).unwrap();
                    }
                });
            }
        });
        let table = Arc::new(building.finish().unwrap());
        let prober = Prober::new(
            &table,
            &[side.shape()],
            how(JoinKind::Inner, false),
            &pool,
            Isa::detect(),
        )
        .unwrap();
        let wanted: Vec<i32> = (0..100_000).collect();
        let mut scratch = Scratch::default();
        let mut seen = vec![false; keys.len()];
        for wanted in wanted.chunks(2048) {
            prober.start(&mut scratch, &[Vector::new(Data::I32(wanted.into()))], wanted.len());
            while prober.next(&mut scratch) {
                for (row, build) in scratch.rows.iter().zip(&scratch.build) {
                    assert_eq!(wanted[*row as usize], keys[*build as usize]);
                    assert!(!std::mem::replace(&mut seen[*build as usize], true));
                }
            }
        }
        assert!(seen.iter().all(|seen| *seen));
    }
}
