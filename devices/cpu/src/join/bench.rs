//! What building and probing cost per row: `cargo test --release -p trireme-device-cpu join::bench -- --ignored --nocapture`.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use trireme_device_api::{DevicePool, JoinKind, Type, Unlimited};

use super::probe::{ProbeKind, Prober, Scratch};
use super::{BuildLocal, BuildPlan, BuildTable, BuildUse, Building};
use crate::isa::Isa;
use crate::vector::{Data, Shape, TILE_ROWS, Vector};

const PROBE_ROWS: usize = 6_000_000;
/// Rows are kept by so many workers.
const WORKERS: usize = 2;

fn shape(range: (i128, i128)) -> Shape {
    Shape {
        data_type: Type::Int64,
        range: Some(range),
        nullable: false,
        dictionary: None,
        distinct: None,
    }
}

/// Time this thread ran: other processes don't count, where the system tells.
struct Clock {
    wall: std::time::Instant,
    run_ns: Option<u64>,
}

impl Clock {
    fn now() -> Self {
        Self {
            wall: std::time::Instant::now(),
            run_ns: Self::run_ns(),
        }
    }

    fn run_ns() -> Option<u64> {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        text.split(' ').next()?.parse().ok()
    }

    fn elapsed(&self) -> Duration {
        match (self.run_ns, Self::run_ns()) {
            (Some(begin), Some(end)) => Duration::from_nanos(end - begin),
            _ => self.wall.elapsed(),
        }
    }
}

/// Builds from these keys, and prints what each part took.
fn build(name: &str, keys: &[i32], rows: bool) -> Arc<BuildTable> {
    let pool: Arc<dyn DevicePool> = Arc::new(Unlimited);
    let uses = BuildUse {
        rows,
        nulls_equal: false,
    };
    let key = shape((0, i32::MAX.into()));
    let plan = Arc::new(BuildPlan::new(
        std::slice::from_ref(&key),
        std::slice::from_ref(&key),
        uses,
        &pool,
        Isa::detect(),
    ));
    let mut locals: Vec<_> = (0..WORKERS).map(|_| BuildLocal::new(&plan)).collect();
    let begin = Clock::now();
    for (tile, keys) in keys.chunks(TILE_ROWS).enumerate() {
        let vector = Vector::new(Data::I32(keys.into()));
        let payload = Vector::new(Data::I32(keys.into()));
        locals[tile % WORKERS].push(&[vector], &[payload], keys.len()).unwrap();
    }
    let pushed = begin.elapsed();
    let building = Building::new(&plan, locals).unwrap();
    let inserts = Clock::now();
    for task in 0..building.tasks() {
        if task == building.insert_tasks() {
            println!(
                "  inserted in {:.2} ns/row",
                inserts.elapsed().as_nanos() as f64 / keys.len() as f64
            );
        }
        building.run_task(task).unwrap();
    }
    let table = Arc::new(building.finish().unwrap());
    let each = |time: Duration| time.as_nanos() as f64 / keys.len() as f64;
    println!(
        "{name}: {} rows, {}, unique {}: push {:.2} ns/row, finish {:.2} ns/row",
        keys.len(),
        table.index_name(),
        table.is_unique(),
        each(pushed),
        each(begin.elapsed() - pushed)
    );
    table
}

fn probe(name: &str, table: &Arc<BuildTable>, keys: &[i32], kind: JoinKind) {
    let pool: Arc<dyn DevicePool> = Arc::new(Unlimited);
    let how = ProbeKind {
        kind,
        nulls_equal: false,
        null_aware: false,
        residual: false,
    };
    let prober = Prober::new(table, &[shape((0, i32::MAX.into()))], how, &pool, Isa::detect()).unwrap();
    let mut best = f64::MAX;
    let mut found = 0;
    for _ in 0..5 {
        let begin = Clock::now();
        found = 0;
        let mut keep = Vec::new();
        for keys in keys.chunks(TILE_ROWS) {
            let vectors = [Vector::new(Data::I32(keys.into()))];
            let mut scratch = Scratch::default();
            prober.start(&mut scratch, &vectors, keys.len());
            match kind {
                JoinKind::Semi => {
                    prober.exists(&scratch, &mut keep);
                    found += keep.iter().map(|byte| usize::from(*byte)).sum::<usize>();
                }
                JoinKind::BuildSemi => prober.mark_found(&scratch),
                _ => {
                    while prober.next(&mut scratch) {
                        found += scratch.rows.len();
                    }
                }
            }
        }
        best = best.min(begin.elapsed().as_nanos() as f64 / keys.len() as f64);
    }
    println!(
        "    {name} {kind:?}: {best:.2} ns/row, {:.3} matches/row",
        found as f64 / keys.len() as f64
    );
}

#[test]
#[ignore = "takes seconds; a measurement"]
fn nanoseconds_per_row() {
    let mut random = StdRng::seed_from_u64(1);
    let mut shuffled = |count: i32, step: i32| {
        let mut keys: Vec<i32> = (0..count).map(|key| key * step).collect();
        keys.shuffle(&mut random);
        keys
    };
    let sparse = 1_000;
    let many = shuffled(1_500_000, 1);
    let few = shuffled(100_000, 4 * sparse);
    let wide = shuffled(1_500_000, sparse);
    let ascending: Vec<i32> = (0..1_500_000).collect();
    let mut draw =
        |below: i32, step: i32| -> Vec<i32> { (0..PROBE_ROWS).map(|_| random.random_range(0..below) * step).collect() };
    let orders: Vec<i32> = (0..PROBE_ROWS as i32).map(|row| row / 4).collect();
    let uniform = draw(1_500_000, 1);
    let half = draw(3_000_000, 1);

    let dense = build("dense ascending", &ascending, true);
    probe("ascending keys", &dense, &orders, JoinKind::Inner);
    let dense = build("dense shuffled", &many, true);
    probe("ascending keys", &dense, &orders, JoinKind::Inner);
    probe("random keys", &dense, &uniform, JoinKind::Inner);
    probe("random keys, half missing", &dense, &half, JoinKind::Inner);
    probe("random keys", &dense, &uniform, JoinKind::BuildSemi);
    probe("ascending keys", &dense, &orders, JoinKind::BuildSemi);
    let small: Vec<i32> = many.iter().filter(|key| **key % 7 == 0).copied().collect();
    let dense = build("dense 1 of 7", &small, true);
    probe("random keys", &dense, &uniform, JoinKind::Inner);
    probe("ascending keys", &dense, &orders, JoinKind::Inner);
    let nation: Vec<i32> = (0..25).collect();
    let dense = build("25 rows", &nation, true);
    let keys: Vec<i32> = uniform.iter().map(|key| key % 25).collect();
    probe("random keys", &dense, &keys, JoinKind::Inner);

    let duplicates: Vec<i32> = many.iter().map(|key| key / 4).collect();
    let chained = build("dense, 4 rows a key", &duplicates, true);
    let keys: Vec<i32> = uniform.iter().map(|key| key / 4).collect();
    probe("random keys", &chained, &keys, JoinKind::Inner);

    let bitmap = build("bitmap", &shuffled_part(&many, 200_000), false);
    probe("random keys", &bitmap, &uniform, JoinKind::Semi);
    probe("ascending keys", &bitmap, &orders, JoinKind::Semi);

    let hits: Vec<i32> = uniform.iter().map(|key| (key % 100_000) * 4 * sparse).collect();
    let hash = build("hash", &few, true);
    probe("random keys", &hash, &hits, JoinKind::Inner);
    let misses: Vec<i32> = uniform.iter().map(|key| key * 260 + 1).collect();
    probe("random keys, none there", &hash, &misses, JoinKind::Inner);

    let hash = build("hash", &wide, true);
    let hits: Vec<i32> = uniform.iter().map(|key| key * sparse).collect();
    probe("random keys", &hash, &hits, JoinKind::Inner);
    let some: Vec<i32> = uniform
        .iter()
        .map(|key| key * sparse + i32::from(key % 10 != 0))
        .collect();
    probe("random keys, 1 of 10 there", &hash, &some, JoinKind::Inner);
    let ascending: Vec<i32> = orders.iter().map(|key| key * sparse).collect();
    probe("ascending keys", &hash, &ascending, JoinKind::Inner);
}

fn shuffled_part(keys: &[i32], count: usize) -> Vec<i32> {
    keys[..count].to_vec()
}
