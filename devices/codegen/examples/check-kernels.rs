//! Compiles printed kernels for every architecture that is claimed, and says what they take: `check-kernels [--allow NAME]…
//! PATH…`, where a path is a file of CUDA text or a folder of files `*.cu`, as `print` writes them for `Dialect::Cuda`.
//!
//! A line per kernel and architecture (`ms` is that of its module), then figures. Fails when a text doesn't compile, when a
//! kernel that is not allowed to spills registers, or when compiling takes too long. Needs NVRTC, but no GPU.

#![allow(clippy::expect_used, reason = "a tool of the tests, which ends with the reason")]

#[path = "../tests/compiled/nvrtc.rs"]
mod nvrtc;
#[path = "../tests/compiled/usage.rs"]
mod usage;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nvrtc::{ARCHITECTURES, Nvrtc};
use trireme_device_codegen::print::CUDA_OPTIONS;
use usage::usages;

/// Time to compile that a query may wait for, per kernel.
const COMPILE_MS_P50_MAX: f64 = 40.0;

/// What has been seen so far.
#[derive(Default)]
struct Report {
    /// Per module and architecture, divided by its kernels.
    kernel_ms: Vec<f64>,
    module_ms: Vec<f64>,
    kernels: usize,
    registers_max: u64,
    spilling: Vec<String>,
    failed: usize,
}

fn main() -> ExitCode {
    let (mut allowed, mut paths) = (Vec::new(), Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--allow" {
            allowed.extend(args.next());
        } else {
            paths.push(PathBuf::from(arg));
        }
    }
    let Some(nvrtc) = Nvrtc::get() else {
        return ExitCode::SUCCESS;
    };
    // The first compilation of a process loads the compiler's own tables.
    nvrtc.compile(
        "extern \"C\" __global__ void first() {}",
        ARCHITECTURES[0],
        CUDA_OPTIONS,
    );
    let mut report = Report::default();
    println!("registers  stack  spilled  shared     ms  kernel");
    for path in paths.iter().flat_map(|path| texts(path)) {
        check(nvrtc, &path, &allowed, &mut report);
    }
    conclude(report)
}

/// The files of a folder, or the file.
fn texts(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let entries = std::fs::read_dir(path).expect("a folder");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "cu"));
    paths.sort();
    paths
}

fn check(nvrtc: &Nvrtc, path: &Path, allowed: &[String], report: &mut Report) {
    let text = std::fs::read_to_string(path).expect("a text");
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    for architecture in ARCHITECTURES {
        let compiled = nvrtc.compile(&text, architecture, CUDA_OPTIONS);
        if compiled.cubin.is_none() {
            eprintln!("{}: {architecture}: {}", path.display(), compiled.log);
            report.failed += 1;
            continue;
        }
        let ms = compiled.time.as_secs_f64() * 1e3;
        let usages = usages(&compiled.log);
        for each in &usages {
            let spilled = each.spill_store_bytes + each.spill_load_bytes;
            let (registers, stack, shared) = (each.registers, each.stack_bytes, each.shared_bytes);
            let kernel = format!("{name}/{}", each.kernel);
            println!("{registers:>9}  {stack:>5}  {spilled:>7}  {shared:>6}  {ms:>5.1}  {kernel} {architecture}");
            report.registers_max = report.registers_max.max(registers);
            if each.spills() && !allowed.iter().any(|allowed| kernel.contains(allowed)) {
                report.spilling.push(format!("{kernel} {architecture}"));
            }
        }
        report.kernels += usages.len();
        report.module_ms.push(ms);
        report.kernel_ms.extend(usages.iter().map(|_| ms / usages.len() as f64));
    }
}

fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values
        .get(values.len().saturating_sub(1) * percent / 100)
        .copied()
        .unwrap_or(0.0)
}

/// Prints the sums. Times are told, and fail nothing: machines are busy.
fn conclude(mut report: Report) -> ExitCode {
    let verdict = |good: bool| if good { "ok" } else { "short" };
    let p50 = percentile(&mut report.kernel_ms, 50);
    println!("\nkernels = {}", report.kernels);
    println!(
        "kernel_compile_ms_p50 = {p50:.1} ms (target ≤ {COMPILE_MS_P50_MAX}) {}",
        verdict(p50 <= COMPILE_MS_P50_MAX)
    );
    println!(
        "kernel_compile_ms_p99 = {:.1} ms",
        percentile(&mut report.kernel_ms, 99)
    );
    println!(
        "module_compile_ms_p50 = {:.1} ms",
        percentile(&mut report.module_ms, 50)
    );
    println!(
        "module_compile_ms_p99 = {:.1} ms",
        percentile(&mut report.module_ms, 99)
    );
    println!("registers_max = {}", report.registers_max);
    println!(
        "spilling_kernels = {} (target ≤ 0) {}",
        report.spilling.len(),
        verdict(report.spilling.is_empty())
    );
    report.spilling.iter().for_each(|kernel| println!("  {kernel}"));
    println!(
        "failed = {} (target ≤ 0) {}",
        report.failed,
        verdict(report.failed == 0)
    );
    ExitCode::from(u8::from(!report.spilling.is_empty() || report.failed > 0))
}
