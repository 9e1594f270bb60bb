//! Runs saved graphs of fragments over their files, again and again, without planner and service: where a query's time goes.
//!
//! `fragments FOLDER [NAME…]` reads `FOLDER/NAME.json` (what a server with `exec.graph_dir` writes), runs each graph [`RUNS`] times on
//! resident columns, and prints the least time of each fragment and of the whole by the clock, then the mean time on all
//! processors, which says more where others use them too. `WORKERS` and `RUNS` of the environment say how many.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use trireme_columns::{ColumnCache, Limits, SavedGraph};
use trireme_device_api::{DeviceError, Emit, Graph, Inputs, Kernel, Output, Progress, Unlimited, Variant};
use trireme_device_cpu::FusedVariant;

/// As the server has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RUNS: u32 = 15;

/// Drops what it gets.
struct Sink;

impl Emit for Sink {
    fn ready(&self) -> bool {
        true
    }

    fn push(&self, _batch: arrow::array::RecordBatch) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    // As the server's default is.
    trireme_device_cpu::keep_freed_memory(Duration::from_secs(60));
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().ok_or("usage: fragments FOLDER [NAME…]")?);
    let wanted: Vec<String> = args.collect();
    let workers = std::env::var("WORKERS").map_or(Ok(2), |text| text.parse())?;
    let runs = std::env::var("RUNS").map_or(Ok(RUNS), |text| text.parse())?;
    let cache = ColumnCache::new(Limits {
        budget_bytes: 8 << 30,
        ..Limits::default()
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let variant: Arc<dyn Variant> = Arc::new(FusedVariant::new());
    let mut names: Vec<_> = std::fs::read_dir(&folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    names.sort();
    for path in names {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !wanted.is_empty() && !wanted.contains(&name) {
            continue;
        }
        let saved: SavedGraph = serde_json::from_slice(&std::fs::read(&path)?)?;
        let graph = Arc::new(saved.graph);
        let mut least = BTreeMap::new();
        let mut used = BTreeMap::new();
        let mut total = Duration::MAX;
        for _ in 0..runs {
            let began = Instant::now();
            let mut scans = Vec::new();
            for scan in &saved.scans {
                scans.push(runtime.block_on(scan.open(&cache, Arc::new(Unlimited), workers))?);
            }
            least
                .entry("open".to_owned())
                .and_modify(|least: &mut Duration| *least = (*least).min(began.elapsed()))
                .or_insert_with(|| began.elapsed());
            let inputs = Inputs {
                scans,
                streams: Vec::new(),
                parameters: saved.parameters.clone(),
                workers,
                pool: Arc::new(Unlimited),
                cancelled: Arc::new(AtomicBool::new(false)),
                batch_rows: 8192,
                emit: Some(Arc::new(Sink)),
                wake: None,
            };
            run(variant.as_ref(), &graph, &inputs, &mut |id, time, processors| {
                let least = least.entry(format!("{id}")).or_insert(time);
                *least = (*least).min(time);
                *used.entry(format!("{id}")).or_insert(Duration::ZERO) += processors;
            })?;
            total = total.min(began.elapsed());
        }
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let parts: Vec<_> = least
            .iter()
            .map(|(part, time)| {
                let processors = used.get(part).copied().unwrap_or_default() / runs;
                format!("{part}:{:.2}/{:.2}", ms(*time), ms(processors))
            })
            .collect();
        let all = used.values().sum::<Duration>() / runs;
        println!("{name} {:.2}/{:.2} ms  [{}]", ms(total), ms(all), parts.join(" "));
    }
    Ok(())
}

/// Time that this thread has been on a processor, where the system says so.
fn on_processor() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|text| text.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or_default())
}

/// Runs the fragments in order; `took` hears of each one's time, and of its time on processors.
fn run(
    variant: &dyn Variant,
    graph: &Arc<Graph>,
    inputs: &Inputs,
    took: &mut dyn FnMut(usize, Duration, Duration),
) -> Result<(), DeviceError> {
    let mut outputs: Vec<Option<Output>> = vec![None; graph.fragments.len()];
    for id in 0..graph.fragments.len() {
        let (began, before) = (Instant::now(), on_processor());
        let kernel = variant.prepare(graph, id, inputs, &outputs)?;
        let others = step(&kernel, inputs.workers)?;
        outputs[id] = Some(kernel.finish()?);
        took(id, began.elapsed(), on_processor() - before + others);
    }
    Ok(())
}

/// Steps a kernel from so many threads until it is done; the others' time on processors.
fn step(kernel: &Arc<dyn Kernel>, workers: usize) -> Result<Duration, DeviceError> {
    let stop = AtomicBool::new(false);
    let barrier = Barrier::new(workers);
    let work = &|worker: usize| -> Result<(), DeviceError> {
        barrier.wait();
        while !stop.load(Ordering::Acquire) {
            match kernel.step(worker) {
                Ok(Progress::More) => {}
                Ok(Progress::Waiting) => std::hint::spin_loop(),
                Ok(Progress::Done) => stop.store(true, Ordering::Release),
                Err(error) => {
                    stop.store(true, Ordering::Release);
                    return Err(error);
                }
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let other = move |worker: usize| {
            let before = on_processor();
            work(worker).map(|()| on_processor() - before)
        };
        let threads: Vec<_> = (1..workers).map(|worker| scope.spawn(move || other(worker))).collect();
        let mut outcome = work(0).map(|()| Duration::ZERO);
        for thread in threads {
            let others = thread.join().unwrap_or(Ok(Duration::ZERO));
            outcome = outcome.and_then(|all| Ok(all + others?));
        }
        outcome
    })
}
