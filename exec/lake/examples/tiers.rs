//! Figures of the tiers: the disk tier against raw reads of a file, the memory tier against local memory, and the hit rate of a
//! cache of a tenth under a Zipf workload.
//!
//! `cargo run --release -p trireme-lake --example tiers [disk|memory|zipf]…`; `TMPDIR` says which disk.

use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trireme_lake::{Lake, LakeOptions, ObjectRef, Read, ReadClass, TieredStore};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const RANGE_BYTES: u64 = 4 << 20;
const RANGES: u64 = 64;
/// As a prefetch has them under way; what a loaded machine takes to wake a task is hidden then.
const READERS: usize = 16;
const ROUNDS: usize = 5;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|one| one == name);
    if runs("disk") {
        runtime.block_on(disk())?;
    }
    if runs("memory") {
        runtime.block_on(memory())?;
    }
    if runs("zipf") {
        runtime.block_on(zipf())?;
    }
    Ok(())
}

fn figure(name: &str, value: f64, unit: &str, target: Option<(&str, f64)>) {
    let verdict = target.map_or_else(String::new, |(sign, target)| {
        let holds = if sign == "≤" {
            value <= target
        } else {
            value >= target
        };
        format!(" (target {sign} {target}) {}", if holds { "ok" } else { "short" })
    });
    println!("{name} = {value:.3} {unit}{verdict}");
}

fn object(path: &str, size_bytes: u64) -> Arc<ObjectRef> {
    Arc::new(ObjectRef::new(&ObjectMeta {
        location: Path::from(path),
        last_modified: chrono::DateTime::UNIX_EPOCH,
        size: size_bytes,
        e_tag: None,
        version: None,
    }))
}

fn noise(seed: u64, bytes: u64) -> Result<Vec<u8>> {
    let mut noise = vec![0; usize::try_from(bytes)?];
    StdRng::seed_from_u64(seed).fill(noise.as_mut_slice());
    Ok(noise)
}

fn range(index: u64) -> std::ops::Range<u64> {
    index * RANGE_BYTES..(index + 1) * RANGE_BYTES
}

/// All ranges once, several at a time; the seconds.
async fn read_all(store: &Arc<TieredStore>, object: &Arc<ObjectRef>, class: ReadClass) -> Result<f64> {
    let begun = Instant::now();
    let reads = stream::iter(0..RANGES).map(|index| {
        let (store, object) = (Arc::clone(store), Arc::clone(object));
        tokio::spawn(async move {
            let read = Read {
                object,
                range: range(index),
                class,
                account: None,
            };
            store.read(&read).await.map(|bytes| touch(&bytes))
        })
    });
    let sums: Vec<_> = reads.buffer_unordered(READERS).try_collect().await?;
    for sum in sums {
        black_box(sum?);
    }
    Ok(begun.elapsed().as_secs_f64())
}

/// Looks at every cache line.
fn touch(bytes: &Bytes) -> u64 {
    bytes.iter().step_by(64).map(|byte| u64::from(*byte)).sum()
}

async fn raw_all(file: &Arc<File>) -> Result<f64> {
    let begun = Instant::now();
    let reads = stream::iter(0..RANGES).map(|index| {
        let file = Arc::clone(file);
        tokio::task::spawn_blocking(move || -> std::io::Result<u64> {
            let mut bytes = vec![0; usize::try_from(RANGE_BYTES).unwrap_or_default()];
            file.read_exact_at(&mut bytes, index * RANGE_BYTES)?;
            Ok(touch(&Bytes::from(bytes)))
        })
    });
    let sums: Vec<_> = reads.buffer_unordered(READERS).try_collect().await?;
    for sum in sums {
        black_box(sum?);
    }
    Ok(begun.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// In turns, once out of the page cache's reach, once within it.
async fn disk() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let inner = Arc::new(InMemory::new());
    let bytes = noise(1, RANGES * RANGE_BYTES)?;
    let raw_path = dir.path().join("raw");
    let mut raw = File::options()
        .create_new(true)
        .read(true)
        .write(true)
        .open(&raw_path)?;
    raw.write_all(&bytes)?;
    let raw = Arc::new(raw);
    inner.put(&Path::from("a"), bytes.into()).await?;
    let object = object("a", RANGES * RANGE_BYTES);
    let cache = dir.path().join("cache");
    let lake = Lake::new(LakeOptions {
        memory_bytes: 0,
        disk_dir: Some(cache.clone()),
        disk_bytes: 2 * RANGES * RANGE_BYTES,
        ..LakeOptions::default()
    });
    let store = lake.wrap("bench", "bench", inner as Arc<dyn ObjectStore>);
    for _ in 0..20 {
        read_all(&store, &object, ReadClass::Near).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let before = lake.metrics().disk_hits;
        read_all(&store, &object, ReadClass::Near).await?;
        if lake.metrics().disk_hits - before == RANGES {
            break;
        }
    }
    let slots = std::fs::read_dir(&cache)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "bin"))
        .ok_or("no file of slots")?;
    for cold in [true, false] {
        let before = lake.metrics().disk_hits;
        let (mut tier, mut file) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            if cold {
                forget(&raw_path)?;
            }
            file.push(raw_all(&raw).await?);
            if cold {
                forget(&slots)?;
            }
            tier.push(read_all(&store, &object, ReadClass::Near).await?);
        }
        if lake.metrics().disk_hits - before != RANGES * ROUNDS as u64 {
            return Err(format!("not all reads were of the disk tier: {:?}", lake.metrics()).into());
        }
        let gigabytes = (RANGES * RANGE_BYTES) as f64 / 1e9;
        let (tier, file) = (median(tier), median(file));
        let (suffix, target) = if cold {
            ("", Some(("≥", 0.85)))
        } else {
            ("_page_cache", None)
        };
        figure(&format!("lake_raw_file_reads{suffix}"), gigabytes / file, "GB/s", None);
        figure(&format!("lake_disk_tier_reads{suffix}"), gigabytes / tier, "GB/s", None);
        figure(&format!("lake_disk_tier_share_of_raw{suffix}"), file / tier, "", target);
    }
    Ok(())
}

/// Drops a file from the page cache.
fn forget(path: &std::path::Path) -> Result<()> {
    let mut of = std::ffi::OsString::from("of=");
    of.push(path);
    let status = std::process::Command::new("dd")
        .arg(of)
        .args(["oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"])
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err("dd failed".into())
    }
}

async fn memory() -> Result<()> {
    let inner = Arc::new(InMemory::new());
    let bytes = Bytes::from(noise(1, RANGES * RANGE_BYTES)?);
    inner.put(&Path::from("a"), bytes.clone().into()).await?;
    let object = object("a", RANGES * RANGE_BYTES);
    let lake = Lake::new(LakeOptions {
        memory_bytes: usize::try_from(4 * RANGES * RANGE_BYTES)?,
        ..LakeOptions::default()
    });
    let store = lake.wrap("bench", "bench", inner as Arc<dyn ObjectStore>);
    read_all(&store, &object, ReadClass::Near).await?;
    let hits = lake.metrics().memory_hits;
    let (mut tier, mut local) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let sums = stream::iter(0..RANGES).map(|index| {
            let range = range(index);
            let part = bytes.slice(index_of(range.start)..index_of(range.end));
            tokio::spawn(async move { touch(&part) })
        });
        let sums: Vec<u64> = sums.buffer_unordered(READERS).try_collect().await?;
        black_box(sums);
        local.push(begun.elapsed().as_secs_f64());
        tier.push(read_all(&store, &object, ReadClass::Near).await?);
    }
    if lake.metrics().memory_hits - hits != RANGES * ROUNDS as u64 {
        return Err(format!("not all reads were of the memory tier: {:?}", lake.metrics()).into());
    }
    figure(
        "lake_memory_tier_time_to_local_memory",
        median(tier) / median(local),
        "",
        Some(("≤", 1.05)),
    );
    Ok(())
}

fn index_of(byte: u64) -> usize {
    usize::try_from(byte).unwrap_or(usize::MAX)
}

/// Objects of 64 KiB, the most wanted first; both tiers each of a tenth of them.
async fn zipf() -> Result<()> {
    const OBJECTS: usize = 4000;
    const BYTES: u64 = 64 << 10;
    const READS: usize = 40_000;
    const EXPONENT: f64 = 1.0;
    let weights: Vec<f64> = (1..=OBJECTS).map(|rank| (rank as f64).powf(-EXPONENT)).collect();
    let total: f64 = weights.iter().sum();
    let mut sum = 0.0;
    let cumulative: Vec<f64> = weights
        .iter()
        .map(|weight| {
            sum += weight / total;
            sum
        })
        .collect();
    let tenth = OBJECTS / 10;
    figure("lake_zipf_best_possible_hit_rate", cumulative[tenth - 1], "", None);
    for disk in [false, true] {
        let dir = tempfile::tempdir()?;
        let inner = Arc::new(InMemory::new());
        let content = Bytes::from(noise(2, BYTES)?);
        for rank in 0..OBJECTS {
            inner
                .put(&Path::from(format!("{rank}")), content.clone().into())
                .await?;
        }
        let budget_bytes = tenth as u64 * BYTES;
        let lake = Lake::new(LakeOptions {
            memory_bytes: if disk { 0 } else { usize::try_from(budget_bytes)? },
            disk_dir: disk.then(|| dir.path().join("cache")),
            disk_bytes: budget_bytes,
            disk_slot_bytes: 1 << 20,
            ..LakeOptions::default()
        });
        let store = lake.wrap("bench", "bench", inner as Arc<dyn ObjectStore>);
        let mut random = StdRng::seed_from_u64(3);
        let hits = |lake: &Lake| {
            let metrics = lake.metrics();
            metrics.memory_hits + metrics.disk_hits
        };
        let mut warm = 0;
        for at in 0..READS {
            if at == READS / 2 {
                warm = hits(&lake);
            }
            let drawn: f64 = random.random();
            let rank = cumulative.partition_point(|sum| *sum < drawn);
            let read = Read {
                object: object(&format!("{}", rank.min(OBJECTS - 1)), BYTES),
                range: 0..BYTES,
                class: ReadClass::Near,
                account: None,
            };
            store.read(&read).await?;
        }
        let rate = (hits(&lake) - warm) as f64 / (READS / 2) as f64;
        let name = if disk { "disk" } else { "memory" };
        figure(&format!("lake_zipf_hit_rate_of_a_tenth_{name}"), rate, "", None);
    }
    Ok(())
}
