//! Reads objects of a simulated store as a scan does, and prints what share of the store's ceiling that was.
//!
//! `cargo run --release -p trireme-lake --example scan -- near 64 32 1024 256` reads 64 objects of 32 MiB in ranges of
//! 1024 KiB, at most 256 MiB ahead. `SLOWER=5` divides the bandwidths, for machines that are too slow or too busy;
//! `THREADS` are those of the reader's runtime.
//!
//! The ceiling is the store's total bandwidth plus one first byte. The store runs in this process; its own share of the
//! processor is taken off.

use std::sync::Arc;
use std::time::{Duration, Instant};

use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig};
use simstore::{Config, Profile, SimStore};
use tokio::runtime::Runtime;
use trireme_lake::{Account, Clients, Lake, LakeOptions, ObjectRef, Planned, Prefetch, ReadClass, TieredStore, Window};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

struct Endless;

impl Window for Endless {
    fn take(&self, _bytes: usize) -> bool {
        true
    }

    fn give(&self, _bytes: usize) {}
}

fn client(url: &str, retries: usize) -> Result<Arc<dyn ObjectStore>, AnyError> {
    let retry = RetryConfig {
        max_retries: retries,
        ..RetryConfig::default()
    };
    let options = ClientOptions::new()
        .with_allow_http(true)
        .with_timeout(Duration::from_secs(300));
    let store = AmazonS3Builder::new()
        .with_endpoint(url)
        .with_bucket_name("lake")
        .with_region("us-east-1")
        .with_access_key_id("any")
        .with_secret_access_key("any")
        .with_client_options(options)
        .with_retry(retry)
        .build()?;
    Ok(Arc::new(store))
}

/// Seconds of processor time of this process: user and system.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / 100.0
}

fn variable(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok().and_then(|text| text.parse().ok());
    given.unwrap_or(default)
}

/// What is read.
struct Scan {
    profile: Profile,
    objects: u64,
    size_bytes: u64,
    range_bytes: u64,
    window_bytes: usize,
}

impl Scan {
    fn from_arguments() -> Result<Self, AnyError> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let number = |index: usize, default: u64| {
            let given = arguments.get(index).and_then(|text| text.parse::<u64>().ok());
            given.unwrap_or(default)
        };
        let name = arguments.first().map_or("near", String::as_str);
        let mut profile = Profile::named(name).ok_or("no such profile")?;
        let slower = variable("SLOWER", 1);
        profile.connection_bytes_per_second /= slower;
        profile.total_bytes_per_second /= slower;
        Ok(Self {
            profile,
            objects: number(1, 64),
            size_bytes: number(2, 32) << 20,
            range_bytes: number(3, 1024) << 10,
            window_bytes: usize::try_from(number(4, 256))? << 20,
        })
    }

    fn plan(
        &self,
        store: &Arc<TieredStore>,
        runtime: &Runtime,
        account: &Arc<Account>,
    ) -> Result<Vec<Planned>, AnyError> {
        let mut planned = Vec::new();
        for object in 0..self.objects {
            let meta = runtime.block_on(store.head(&Path::from(format!("data/{object}"))))?;
            let object = Arc::new(ObjectRef::new(&meta));
            for start in (0..self.size_bytes).step_by(usize::try_from(self.range_bytes)?) {
                planned.push(Planned {
                    store: Arc::clone(store),
                    object: Arc::clone(&object),
                    range: start..(start + self.range_bytes).min(self.size_bytes),
                    class: ReadClass::Near,
                    account: Arc::clone(account),
                });
            }
        }
        Ok(planned)
    }

    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn report(&self, run: usize, bytes: usize, seconds: f64, cpu: f64, sim_cpu: f64) {
        let gb = bytes as f64 / 1e9;
        let ceiling = match self.profile.total_bytes_per_second {
            0 => 0.0,
            total => bytes as f64 / total as f64 + self.profile.first_byte_ms / 1e3,
        };
        println!(
            "run {run}: {gb:.2} GB in {seconds:.3} s = {:.2} GB/s, {:.0} % of the ceiling, client {:.2} s/GB, store {:.2} s/GB of processor",
            gb / seconds,
            100.0 * ceiling / seconds,
            cpu / gb,
            sim_cpu / gb,
        );
    }
}

fn main() -> Result<(), AnyError> {
    let scan = Scan::from_arguments()?;
    let sim = SimStore::start(Config::with_profile(scan.profile.clone()))?;
    let piece = simstore::synthetic_bytes(1, 0..scan.size_bytes);
    for object in 0..scan.objects {
        sim.put_pieces("lake", &format!("data/{object}"), vec![piece.clone()])?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(usize::try_from(variable("THREADS", 2))?)
        .enable_all()
        .build()?;
    let lake = Lake::new(LakeOptions {
        memory_bytes: 0,
        ..LakeOptions::default()
    });
    let clients = Clients {
        readers: vec![client(&sim.url(), 0)?, client(&sim.url(), 0)?],
        other: client(&sim.url(), 10)?,
    };
    let store = lake.wrap_clients("k", "s3://lake", clients);
    for run in 0..3 {
        let account = Arc::new(Account::default());
        let planned = scan.plan(&store, &runtime, &account)?;
        sim.reset_counters();
        let (cpu, sim_cpu, begun) = (cpu_seconds(), sim.counters().cpu_seconds, Instant::now());
        let count = planned.len();
        let prefetch = Prefetch::start(
            planned,
            scan.window_bytes,
            Arc::new(Endless),
            runtime.handle(),
            Arc::new(|| {}),
        );
        let mut bytes = 0;
        for index in 0..count {
            bytes += prefetch.take_blocking(index)?.len();
        }
        let seconds = begun.elapsed().as_secs_f64();
        let sim_cpu = sim.counters().cpu_seconds - sim_cpu;
        scan.report(run, bytes, seconds, cpu_seconds() - cpu - sim_cpu, sim_cpu);
        println!("  {:?}\n  {:?}", account.totals(), store.metrics());
    }
    Ok(())
}
