//! The disk tier against a model, across restarts, and with files that somebody has damaged.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use object_store::path::Path;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::testing::content_of;

const SLOT_BYTES: u64 = 128 << 10;
const OBJECT_BYTES: usize = 600_000;

struct Bench {
    dir: TempDir,
    runtime: Runtime,
    store: Arc<str>,
}

impl Bench {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .build()
                .unwrap(),
            store: Arc::from("s3://bucket"),
        }
    }

    fn options(&self, slots: u64) -> DiskOptions {
        DiskOptions {
            dir: self.dir.path().join("cache"),
            budget_bytes: slots * SLOT_BYTES,
            slot_bytes: SLOT_BYTES,
        }
    }

    fn open(&self, slots: u64) -> Disk {
        let disk = Disk::open(&self.options(slots)).unwrap();
        disk.flush();
        disk
    }

    fn file(&self) -> PathBuf {
        self.options(2).dir.join(format!("slots-{SLOT_BYTES}.bin"))
    }

    fn bytes(&self, object: &ObjectRef, range: &Range<u64>) -> Bytes {
        content_of(&format!("{}#{}", object.location, object.version), range.clone())
    }

    fn put(&self, disk: &Disk, object: &Arc<ObjectRef>, range: Range<u64>) {
        let bytes = self.bytes(object, &range);
        disk.offer(&self.store, object, range.start, &bytes);
    }

    /// Whether it is there; if so, it is right.
    fn has(&self, disk: &Disk, object: &Arc<ObjectRef>, range: Range<u64>) -> bool {
        let found = self.runtime.block_on(disk.get(&self.store, object, &range));
        if let Some(bytes) = &found {
            assert!(*bytes == self.bytes(object, &range), "{} {range:?}", object.location);
        }
        found.is_some()
    }
}

fn object(path: &str, version: &str) -> Arc<ObjectRef> {
    Arc::new(ObjectRef {
        location: Path::from(path),
        size_bytes: OBJECT_BYTES as u64,
        e_tag: None,
        version: version.to_owned(),
    })
}

#[test]
fn ranges_of_any_size_are_found_also_after_a_restart() {
    let bench = Bench::new();
    let (a, b) = (object("dir/a", "1"), object("dir/b", "1"));
    for restart in [false, true, true] {
        let disk = bench.open(16);
        if !restart {
            bench.put(&disk, &a, 100_000..500_000);
            bench.put(&disk, &b, 7..8);
            bench.put(&disk, &b, 8..70_000);
            disk.flush();
        }
        assert!(bench.has(&disk, &a, 100_000..500_000), "restart {restart}");
        assert!(bench.has(&disk, &a, 165_537..400_001));
        assert!(bench.has(&disk, &b, 7..70_000));
        assert!(bench.has(&disk, &b, 65_543..65_545));
        assert!(!bench.has(&disk, &b, 6..10));
        assert!(!bench.has(&disk, &b, 60_000..70_001));
        assert!(!bench.has(&disk, &object("dir/a", "2"), 200_000..200_001));
        assert_eq!(disk.counts(), (4, 3, 0));
        assert_eq!(disk.used_bytes(), 400_000 + 70_000 - 7);
        let mut rows = Vec::new();
        disk.rows(&mut rows, 100);
        assert!(
            rows.iter()
                .any(|row| row.path == "dir/a" && row.version == "1" && row.hits > 0)
        );
    }
}

#[test]
fn the_budget_is_kept_and_what_is_read_stays() {
    let bench = Bench::new();
    let disk = bench.open(8);
    let (hot, old) = (object("hot", "1"), object("old", "1"));
    bench.put(&disk, &hot, 0..20_000);
    bench.put(&disk, &old, 0..20_000);
    for round in 0..200 {
        let other = object(&format!("{round}"), "1");
        bench.put(&disk, &other, 0..30_000);
        disk.flush();
        assert!(bench.has(&disk, &other, 0..30_000));
        assert!(bench.has(&disk, &hot, 0..20_000), "round {round}");
        assert!(disk.used_bytes() <= 8 * SLOT_BYTES);
        assert!(fs::metadata(bench.file()).unwrap().len() <= 8 * SLOT_BYTES);
    }
    assert!(!bench.has(&disk, &old, 0..20_000));
    assert_eq!(disk.counts().2, 0);
    // A smaller budget cuts the file, and what is left is right.
    drop(disk);
    let disk = bench.open(4);
    assert!(fs::metadata(bench.file()).unwrap().len() <= 4 * SLOT_BYTES);
    let found = (0..200).filter(|round| bench.has(&disk, &object(&format!("{round}"), "1"), 0..30_000));
    assert!((1..=16).contains(&found.count()));
}

#[test]
fn a_new_version_and_clear_forget() {
    let bench = Bench::new();
    let disk = bench.open(8);
    bench.put(&disk, &object("a", "1"), 0..50_000);
    bench.put(&disk, &object("b", "1"), 0..50_000);
    disk.flush();
    disk.forget_others("s3://bucket", &object("a", "2"));
    assert_eq!(disk.used_bytes(), 50_000);
    assert!(!bench.has(&disk, &object("a", "1"), 0..10));
    bench.put(&disk, &object("a", "2"), 0..50_000);
    disk.flush();
    drop(disk);
    let disk = bench.open(8);
    assert!(bench.has(&disk, &object("a", "2"), 0..50_000));
    assert!(!bench.has(&disk, &object("a", "1"), 0..10));
    disk.clear();
    assert_eq!(disk.used_bytes(), 0);
    disk.flush();
    drop(disk);
    let disk = bench.open(8);
    assert_eq!(disk.used_bytes(), 0);
    bench.put(&disk, &object("b", "1"), 0..50_000);
    disk.flush();
    assert!(bench.has(&disk, &object("b", "1"), 0..50_000));
}

#[test]
fn any_damaged_byte_is_a_miss() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let bench = Bench::new();
    let objects: Vec<_> = (0..6).map(|index| object(&format!("o{index}"), "1")).collect();
    let disk = bench.open(8);
    for one in &objects {
        bench.put(&disk, one, 1000..101_000);
    }
    disk.flush();
    drop(disk);
    let whole = fs::read(bench.file()).unwrap();
    for round in 0..24 {
        let mut wrong = whole.clone();
        // Headers more often than their share.
        let at = match round % 3 {
            0 => random.random_range(0..5) * SLOT_BYTES as usize + random.random_range(0..200),
            1 => random.random_range(0..5) * SLOT_BYTES as usize + (4 << 10) + random.random_range(0..200),
            _ => random.random_range(0..wrong.len()),
        };
        wrong[at] ^= 1 << random.random_range(0..8);
        if random.random_bool(0.3) {
            let (from, to) = (random.random_range(0..wrong.len()), random.random_range(0..wrong.len()));
            wrong[from.min(to)..from.max(to)].fill(0);
        }
        fs::write(bench.file(), wrong).unwrap();
        let disk = bench.open(8);
        for one in &objects {
            let start = random.random_range(1000..100_000);
            let end = random.random_range(start + 1..=101_000);
            bench.has(&disk, one, 1000..101_000);
            bench.has(&disk, one, start..end);
        }
        let (hits, misses, errors) = disk.counts();
        assert_eq!(hits + misses, 12);
        assert!(errors <= 6);
        // Damaged slots are used again.
        for one in &objects {
            bench.put(&disk, one, 1000..101_000);
        }
        disk.flush();
        assert!(objects.iter().all(|one| bench.has(&disk, one, 1000..101_000)));
        drop(disk);
    }
}

#[test]
fn files_cut_at_any_point_are_read_as_far_as_they_are_right() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let bench = Bench::new();
    let objects: Vec<_> = (0..20).map(|index| object(&format!("o{index}"), "1")).collect();
    for _ in 0..20 {
        let disk = bench.open(12);
        for one in &objects {
            let start = random.random_range(0..400_000);
            bench.put(&disk, one, start..start + random.random_range(1..100_000));
            if random.random_bool(0.3) {
                disk.flush();
            }
        }
        disk.flush();
        drop(disk);
        let length = fs::metadata(bench.file()).unwrap().len();
        let file = OpenOptions::new().write(true).open(bench.file()).unwrap();
        file.set_len(random.random_range(0..=length)).unwrap();
        let disk = bench.open(12);
        for one in &objects {
            let start = random.random_range(0..400_000);
            bench.has(&disk, one, start..start + random.random_range(1..50_000));
        }
    }
}

#[test]
fn a_header_that_names_what_was_overwritten_is_no_answer() {
    // As if the process had been killed between payload and header, and the headers' wiping had been lost.
    let bench = Bench::new();
    let disk = bench.open(2);
    let (a, b) = (object("a", "1"), object("b", "1"));
    bench.put(&disk, &a, 0..60_000);
    disk.flush();
    drop(disk);
    let old = fs::read(bench.file()).unwrap();
    let disk = bench.open(2);
    for index in 0..4 {
        bench.put(&disk, &object(&format!("{index}"), "1"), 0..100_000);
        bench.put(&disk, &b, 0..60_000);
        disk.flush();
    }
    drop(disk);
    let mut new = fs::read(bench.file()).unwrap();
    new[..8 << 10].copy_from_slice(&old[..8 << 10]);
    fs::write(bench.file(), new).unwrap();
    let disk = bench.open(2);
    assert!(!bench.has(&disk, &a, 0..60_000));
    assert_eq!(disk.counts().2, 1);
}

#[test]
fn a_folder_that_cannot_be_used_has_a_reason() {
    let bench = Bench::new();
    let disk = bench.open(4);
    let again = Disk::open(&bench.options(4)).err().unwrap();
    assert!(matches!(again, Unusable::Locked(_)), "{again}");
    drop(disk);
    let small = Disk::open(&bench.options(1)).err().unwrap();
    assert!(matches!(small, Unusable::Small(..)), "{small}");
    let mut options = bench.options(4);
    options.dir = bench.dir.path().join("file");
    fs::write(&options.dir, "no folder").unwrap();
    let folder = Disk::open(&options).err().unwrap();
    assert!(matches!(folder, Unusable::Folder(..)), "{folder}");
    let mode = fs::metadata(bench.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn an_error_of_writing_switches_the_tier_off() {
    let bench = Bench::new();
    let mut disk = bench.open(4);
    let a = object("a", "1");
    bench.put(&disk, &a, 0..1000);
    disk.flush();
    // The same tier over a file that can only be read.
    let inner = Arc::new(Inner {
        layout: disk.inner.layout,
        file: File::open(bench.file()).unwrap(),
        table: Mutex::new(Table::new(4)),
        counts: Counts::default(),
        off: Mutex::new(None),
        stopping: AtomicBool::new(false),
    });
    let (jobs, receiver) = sync_channel(QUEUE_JOBS);
    let thread = start_writer(&inner, receiver, 4).unwrap();
    let old = std::mem::replace(&mut disk.inner, inner);
    let old_jobs = std::mem::replace(&mut disk.jobs, jobs);
    let old_thread = disk.thread.replace(thread);
    disk.flush();
    assert!(bench.has(&disk, &a, 0..1000));
    bench.put(&disk, &a, 2000..3000);
    disk.flush();
    assert!(disk.off().unwrap().contains("can't be written"), "{:?}", disk.off());
    assert!(!bench.has(&disk, &a, 0..1000));
    bench.put(&disk, &a, 0..1000);
    disk.flush();
    assert!(!bench.has(&disk, &a, 0..1000));
    old.stopping.store(true, Ordering::Relaxed);
    drop((old, old_jobs));
    old_thread.unwrap().join().unwrap();
}

#[test]
fn readers_and_writers_at_once_see_only_what_is_right() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let bench = Bench::new();
    let disk = Arc::new(bench.open(6));
    let store = &bench.store;
    let hits: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4u64)
            .map(|worker| {
                let (disk, runtime) = (Arc::clone(&disk), &bench.runtime);
                scope.spawn(move || {
                    let mut random = StdRng::seed_from_u64(seed ^ worker);
                    let mut hits = 0;
                    for round in 0..400 {
                        let path = format!("o{}", random.random_range(0..6));
                        let version = format!("{}", round / 150);
                        let one = object(&path, &version);
                        let start = random.random_range(0..90_000u64);
                        let range = start..start + random.random_range(1..10_000);
                        let expected = content_of(&format!("{path}#{version}"), range.clone());
                        if random.random_bool(0.4) {
                            disk.offer(store, &one, range.start, &expected);
                        } else if let Some(bytes) = runtime.block_on(disk.get(store, &one, &range)) {
                            assert!(bytes == expected, "{path}#{version} {range:?}");
                            hits += 1;
                        }
                        if random.random_bool(0.01) {
                            disk.clear();
                        }
                        if random.random_bool(0.02) {
                            disk.forget_others(store, &one);
                        }
                    }
                    hits
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    println!("{hits} hits");
    disk.flush();
    assert_eq!(disk.counts().2, 0, "nothing was damaged");
    assert_eq!(disk.off(), None);
    let mut rows = Vec::new();
    disk.rows(&mut rows, usize::MAX);
    assert_eq!(rows.iter().map(|row| row.bytes).sum::<u64>(), disk.used_bytes());
    assert!(disk.inner.table.lock().slots.iter().all(|slot| slot.readers == 0));
}
