//! One device's figures.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use trireme_device_codegen::ir::Module;
use trireme_device_runtime::{Driver, ModuleId, Queue};

use crate::kernels::{LOCAL_SLOTS, RANDOM, READS, module, one, position};
use crate::{Open, Options};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Where the block, the result and the data lie in the arena.
const BLOCK: u64 = 0;
const RESULT: u64 = 4096;
const DATA: u64 = 65_536;

/// Runs of one figure, at least and at most.
const RUNS: (usize, usize) = (3, 20);

/// A device that is measured.
struct Bench<'a> {
    driver: Arc<dyn Driver>,
    options: &'a Options,
    arena_bytes: u64,
    loaded: ModuleId,
    module: Module,
    figures: serde_json::Map<String, Value>,
}

/// All figures of one device, as JSON, and what could not be measured.
pub(crate) fn device(backend: &str, open: &Open, options: &Options) -> Outcome<Value> {
    let mut copies = serde_json::Map::new();
    for slab_bytes in [256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20] {
        let driver = open(slab_bytes).ok_or("the device is gone")?;
        copy_rates(driver.as_ref(), slab_bytes, options, &mut copies)?;
    }
    let driver = open(4 << 20).ok_or("the device is gone")?;
    let info = driver.info().clone();
    println!(
        "{}: {} ({})",
        info.device.id,
        info.device.name,
        info.device.features.join(", ")
    );
    let arena_bytes = info.arena_bytes_max.min(options.memory_bytes);
    driver.reserve(arena_bytes)?;
    let module = module(info.target.group);
    let mut figures = copies;
    let loaded = compile(driver.as_ref(), &module, info.target.group, &mut figures)?;
    let mut bench = Bench {
        driver,
        options,
        arena_bytes,
        loaded,
        module,
        figures,
    };
    let mut failed = serde_json::Map::new();
    for name in [
        "latencies",
        "memory",
        "reads",
        "random reads",
        "atomics",
        "local atomics",
    ] {
        let measured = match name {
            "latencies" => bench.latencies(),
            "memory" => bench.memory(),
            "reads" => bench.reads(),
            "random reads" => bench.random_reads(),
            "atomics" => bench.atomics(),
            _ => bench.local_atomics(),
        };
        if let Err(error) = measured {
            println!("{name}: {error}");
            failed.insert(name.to_owned(), Value::String(error.to_string()));
        }
    }
    Ok(json!({
        "backend": backend,
        "id": info.device.id,
        "name": info.device.name,
        "features": info.device.features,
        "cores": info.device.cores,
        "memory_bytes": info.device.memory_bytes,
        "arena_bytes": arena_bytes,
        "group": info.target.group,
        "groups": info.groups,
        "identity": info.identity,
        "figures": bench.figures,
        "failed": failed,
    }))
}

fn note(figures: &mut serde_json::Map<String, Value>, name: &str, value: f64, unit: &str) {
    println!("{name} = {value:.3} {unit}");
    figures.insert(name.to_owned(), json!({ "value": value, "unit": unit }));
}

/// The least seconds of several runs.
fn least(options: &Options, mut run: impl FnMut() -> Outcome<f64>) -> Outcome<f64> {
    let began = Instant::now();
    let mut least = f64::INFINITY;
    for done in 0..RUNS.1 {
        if done >= RUNS.0 && began.elapsed().as_secs_f64() > options.seconds {
            break;
        }
        least = least.min(run()?);
    }
    Ok(least)
}

/// Gigabytes (10⁹) or thousand millions per second.
#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn giga(amount: u64, seconds: f64) -> f64 {
    amount as f64 / seconds.max(1e-12) / 1e9
}

/// Copies of 256 MiB in pieces of a slab's size: of pinned memory alone, of memory that is first copied to it, and back.
fn copy_rates(
    driver: &dyn Driver,
    slab_bytes: usize,
    options: &Options,
    figures: &mut serde_json::Map<String, Value>,
) -> Outcome<()> {
    let bytes = (256 << 20_u64).min(driver.info().arena_bytes_max - DATA);
    driver.reserve(DATA + bytes)?;
    let mut host = vec![7_u8; usize::try_from(bytes)?];
    let piece = format!("{}_KiB", slab_bytes >> 10);
    // A device of the host's memory is written to in place: there is nothing to copy.
    if driver.info().target.wide {
        let seconds = least(options, || {
            let began = Instant::now();
            driver.upload(Queue::Copy, DATA, bytes, &mut |_, _| Ok(()))?;
            driver.record(Queue::Copy)?.wait()?;
            Ok(began.elapsed().as_secs_f64())
        })?;
        note(figures, &format!("upload_pinned_{piece}"), giga(bytes, seconds), "GB/s");
    }
    let seconds = least(options, || {
        let began = Instant::now();
        driver.upload(Queue::Copy, DATA, bytes, &mut |offset, slab| {
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            slab.copy_from_slice(&host[from..from + slab.len()]);
            Ok(())
        })?;
        driver.record(Queue::Copy)?.wait()?;
        Ok(began.elapsed().as_secs_f64())
    })?;
    note(figures, &format!("upload_{piece}"), giga(bytes, seconds), "GB/s");
    let seconds = least(options, || {
        host.fill(0);
        let began = Instant::now();
        driver.download(Queue::Copy, DATA, &mut host)?;
        Ok(began.elapsed().as_secs_f64())
    })?;
    note(figures, &format!("download_{piece}"), giga(bytes, seconds), "GB/s");
    if host.iter().any(|byte| *byte != 7) {
        return Err("bytes that were copied to the device came back changed".into());
    }
    Ok(())
}

/// Compiles each kernel by itself and all together, and loads all.
fn compile(
    driver: &dyn Driver,
    module: &Module,
    group: u32,
    figures: &mut serde_json::Map<String, Value>,
) -> Outcome<ModuleId> {
    let mut each: Vec<f64> = Vec::new();
    for kernel in &module.kernels {
        let one = one(group, &kernel.name);
        let text = driver.text(&one);
        let began = Instant::now();
        driver.compile(&one, &text)?;
        each.push(began.elapsed().as_secs_f64() * 1e3);
    }
    each.sort_by(f64::total_cmp);
    note(figures, "compile_one_kernel_median", each[each.len() / 2], "ms");
    note(figures, "compile_one_kernel_most", each[each.len() - 1], "ms");
    let text = driver.text(module);
    let began = Instant::now();
    let binary = driver.compile(module, &text)?;
    note(
        figures,
        "compile_all_kernels",
        began.elapsed().as_secs_f64() * 1e3,
        "ms",
    );
    let began = Instant::now();
    let loaded = driver.load(module, &binary)?;
    note(figures, "load_all_kernels", began.elapsed().as_secs_f64() * 1e3, "ms");
    Ok(loaded)
}

impl Bench<'_> {
    fn note(&mut self, name: &str, value: f64, unit: &str) {
        note(&mut self.figures, name, value, unit);
    }

    /// Writes the block.
    fn block(&self, count: u64, mask: u64) -> Outcome<()> {
        let words: Vec<u8> = [DATA, count, RESULT, mask]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        self.driver
            .upload(Queue::Compute, BLOCK, words.len() as u64, &mut |_, slab| {
                slab.copy_from_slice(&words);
                Ok(())
            })?;
        Ok(())
    }

    /// Seconds of one launch, by the device's clock where it has one.
    fn launch(&self, name: &str, groups: u32) -> Outcome<f64> {
        let kernel = position(&self.module, name).ok_or("no such kernel")?;
        let start = self.driver.record(Queue::Compute)?;
        start.wait()?;
        let began = Instant::now();
        self.driver.launch(Queue::Compute, self.loaded, kernel, groups, BLOCK)?;
        let end = self.driver.record(Queue::Compute)?;
        end.wait()?;
        let seconds = began.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a time")]
        let by_device = start
            .time_ns()
            .zip(end.time_ns())
            .map(|(start, end)| end.saturating_sub(start) as f64 / 1e9);
        // The point before was long past when the launch came, where a queue was empty.
        Ok(by_device.map_or(seconds, |by_device| by_device.min(seconds)))
    }

    fn result(&self) -> Outcome<u64> {
        let mut bytes = [0; 8];
        self.driver.download(Queue::Compute, RESULT, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn groups(&self) -> u32 {
        self.driver.info().groups
    }

    /// Accesses that take some hundredth of a second.
    fn accesses(&self) -> u64 {
        if self.driver.info().target.wide {
            1 << 27
        } else {
            1 << 22
        }
    }

    /// An empty launch, a launch that is waited for, a small upload, a small download.
    fn latencies(&mut self) -> Outcome<()> {
        self.block(0, 0)?;
        self.launch("nothing", self.groups())?;
        let kernel = position(&self.module, "nothing").ok_or("no such kernel")?;
        let driver = Arc::clone(&self.driver);
        let launch = |groups| driver.launch(Queue::Compute, self.loaded, kernel, groups, BLOCK);
        let many = least(self.options, || {
            let began = Instant::now();
            for _ in 0..200 {
                launch(self.groups())?;
            }
            driver.record(Queue::Compute)?.wait()?;
            Ok(began.elapsed().as_secs_f64() / 200.0)
        })?;
        let waited = least(self.options, || {
            let began = Instant::now();
            launch(1)?;
            driver.record(Queue::Compute)?.wait()?;
            Ok(began.elapsed().as_secs_f64())
        })?;
        let mut status = [0; 16];
        let down = least(self.options, || {
            let began = Instant::now();
            driver.download(Queue::Compute, RESULT, &mut status)?;
            Ok(began.elapsed().as_secs_f64())
        })?;
        let up = least(self.options, || {
            let began = Instant::now();
            driver.upload(Queue::Compute, RESULT, 1024, &mut |_, _| Ok(()))?;
            driver.record(Queue::Compute)?.wait()?;
            Ok(began.elapsed().as_secs_f64())
        })?;
        self.note("launch", many * 1e6, "µs");
        self.note("launch_and_wait", waited * 1e6, "µs");
        self.note("download_16_B", down * 1e6, "µs");
        self.note("upload_1_KiB_and_wait", up * 1e6, "µs");
        Ok(())
    }

    /// Fills and copies within the device.
    fn memory(&mut self) -> Outcome<()> {
        let half = (self.arena_bytes - DATA) / 2 / 4096 * 4096;
        let bytes = half.min(if self.driver.info().target.wide {
            2 << 30
        } else {
            128 << 20
        });
        let driver = Arc::clone(&self.driver);
        let timed = |work: &dyn Fn() -> Outcome<()>| {
            let began = Instant::now();
            work()?;
            driver.record(Queue::Compute)?.wait()?;
            Ok(began.elapsed().as_secs_f64())
        };
        for (name, word) in [("fill_zero", 0), ("fill_words", 1 << 63)] {
            let seconds = least(self.options, || {
                timed(&|| Ok(driver.fill(Queue::Compute, DATA, bytes, word)?))
            })?;
            self.note(name, giga(bytes, seconds), "GB/s");
        }
        let seconds = least(self.options, || {
            timed(&|| Ok(driver.copy(Queue::Compute, DATA, DATA + half, bytes)?))
        })?;
        self.note("copy_read_and_written", giga(2 * bytes, seconds), "GB/s");
        Ok(())
    }

    /// Sequential reads by width of the elements, and by groups.
    fn reads(&mut self) -> Outcome<()> {
        let most = if self.driver.info().target.wide {
            4 << 30
        } else {
            128 << 20
        };
        let bytes = (self.arena_bytes - DATA).min(most) / 4096 * 4096;
        self.driver.fill(Queue::Compute, DATA, bytes, 0x0101_0101_0101_0101)?;
        for (elem, name) in READS {
            let count = bytes / u64::from(elem.bytes());
            self.block(count, 0)?;
            let kernel = format!("read_{name}");
            self.driver.fill(Queue::Compute, RESULT, 8, 0)?;
            self.launch(&kernel, self.groups())?;
            let each = (0..elem.bytes().min(8)).fold(0_u64, |sum, byte| sum | 1 << (8 * byte));
            if self.result()? != count.wrapping_mul(each) {
                return Err(format!("the device sums {name} wrongly").into());
            }
            let seconds = least(self.options, || self.launch(&kernel, self.groups()))?;
            self.note(&kernel, giga(bytes, seconds), "GB/s");
        }
        self.block(bytes / 4, 0)?;
        let few = [8, 4, 2].map(|share| self.groups() / share);
        for groups in few.into_iter().filter(|groups| *groups > 0) {
            let seconds = least(self.options, || self.launch("read_u32", groups))?;
            self.note(&format!("read_u32_{groups}_groups"), giga(bytes, seconds), "GB/s");
        }
        Ok(())
    }

    /// Random reads by footprint, from what caches hold to what no page table does.
    fn random_reads(&mut self) -> Outcome<()> {
        let count = self.accesses();
        for (elem, name) in RANDOM {
            let mut bytes = 1 << 20;
            while bytes <= self.arena_bytes - DATA {
                self.driver.fill(Queue::Compute, DATA, bytes, 0)?;
                self.block(count, bytes / u64::from(elem.bytes()) - 1)?;
                let kernel = format!("random_{name}");
                let seconds = least(self.options, || self.launch(&kernel, self.groups()))?;
                self.note(&format!("{kernel}_{}_MiB", bytes >> 20), giga(count, seconds), "G/s");
                bytes *= 4;
            }
        }
        Ok(())
    }

    /// Atomic additions by number of places.
    fn atomics(&mut self) -> Outcome<()> {
        let count = self.accesses() / 4;
        for (width, name) in [(4_u64, "add_u32"), (8, "add_u64")] {
            for bits in [0, 4, 8, 12, 16, 20, 24, 28] {
                let places = 1_u64 << bits;
                if places * width > self.arena_bytes - DATA {
                    continue;
                }
                // One place is slow; it needs no many accesses.
                let count = if bits < 8 { count / 16 } else { count };
                self.block(count, places - 1)?;
                self.driver
                    .fill(Queue::Compute, DATA, (places * width).next_multiple_of(8), 0)?;
                let seconds = least(self.options, || self.launch(name, self.groups()))?;
                self.note(&format!("{name}_{places}_places"), giga(count, seconds), "G/s");
            }
        }
        Ok(())
    }

    /// Atomic additions in local memory, with one group up to all.
    fn local_atomics(&mut self) -> Outcome<()> {
        let count = self.accesses() / 4;
        for places in [1, 32, LOCAL_SLOTS] {
            self.block(count, u64::from(places) - 1)?;
            self.driver.fill(Queue::Compute, RESULT, 8, 0)?;
            self.launch("local_u64", self.groups())?;
            if self.result()? != count {
                return Err("the device counts wrongly in local memory".into());
            }
            let seconds = least(self.options, || self.launch("local_u64", self.groups()))?;
            self.note(&format!("local_u64_{places}_places"), giga(count, seconds), "G/s");
        }
        Ok(())
    }
}
