//! Every fault in every phase, at every call: right rows or a named error that lets the query fall back, no memory left
//! behind, nobody waiting for ever, and a device that works again where the fault was not its end.
//!
//! Each `TRIREME_FAULT_EVERY`-th call fails, 1 for all; `TRIREME_FAULT_SEEDS` random graphs with a random fault each, from
//! `TRIREME_FAULT_SEED`, instead of the usual few.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panics")]

mod kit;

use std::sync::{Arc, Barrier, mpsc};
use std::time::{Duration, Instant};

use kit::graphs::join_group_sort;
use kit::number;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use trireme_device_api::{Device, DeviceError, DevicePool, DeviceState, ErrorAction, Variant};
use trireme_device_cpu::FusedVariant;
use trireme_device_runtime::{Accelerator, Encoded, Limits};
use trireme_device_sim::{FaultKind, Injection, Phase, Script, SimDriver, device};
use trireme_device_testkit::conformance::compare;
use trireme_device_testkit::driver::{Together, run_as, unsupported_bound};
use trireme_device_testkit::generate::{self, Case};
use trireme_device_testkit::inputs::{CountingPool, Layout, Segmentation, bind};
use trireme_device_testkit::interpreter::{Answer, interpret};
use trireme_device_testkit::values::Row;

/// A run that takes longer waits for ever.
const STUCK_AFTER: Duration = Duration::from_secs(300);

/// How long a device's threads may take to give back what they hold.
const SETTLES_WITHIN: Duration = Duration::from_secs(60);

type Made = (Arc<SimDriver>, Accelerator);
type Rows = Result<Vec<Row>, DeviceError>;

fn limits() -> Limits {
    Limits {
        wait: Duration::from_millis(200),
        encoded: Encoded::On,
        ..Limits::default()
    }
}

fn made(script: &Script) -> Result<Made, DeviceError> {
    let host: Arc<dyn Variant> = Arc::new(FusedVariant::new());
    device(script, 0, &host, limits())
}

/// Runs a case; none where its fragments aren't taken with these inputs.
fn run(device: &Made, case: &Case, layout_seed: u64, threads: usize, together: Together) -> Option<Rows> {
    let pool = Arc::new(CountingPool::new(usize::MAX));
    let shared: Arc<dyn DevicePool> = Arc::<CountingPool>::clone(&pool);
    let layout = Layout {
        segmentation: case.segmentation,
        ..Layout::default()
    };
    let mut rng = SmallRng::seed_from_u64(layout_seed);
    let variant = device.1.variant();
    let inputs = bind(&case.graph, &case.data, &layout, &shared, &mut rng).unwrap();
    drop(shared);
    if unsupported_bound(variant.as_ref(), &case.graph, &inputs).is_some() {
        return None;
    }
    let rows = run_as(variant.as_ref(), &case.graph, inputs, threads, together);
    settled("the pool's reservations", || pool.check().is_ok());
    Some(rows)
}

fn settled(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < SETTLES_WITHIN, "{what} were not given back");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until a run's last threads are done with it: only columns are in the device's memory.
fn is_idle(accelerator: &Accelerator) {
    settled("a run's blocks", || {
        let vitals = accelerator.vitals();
        vitals.used_bytes == vitals.columns_bytes
    });
}

/// That only columns are in the device's memory, and then nothing.
fn gives_everything_back(device: Made) {
    let (driver, accelerator) = device;
    is_idle(&accelerator);
    drop(accelerator);
    settled("the device's blocks", || driver.allocated() == (0, 0));
    settled("the device's modules", || driver.modules() == 0);
}

/// A case with what it gives.
struct Judged {
    case: Case,
    expected: Result<Answer, DeviceError>,
}

impl Judged {
    fn new(case: Case) -> Self {
        let expected = interpret(&case.graph, &case.data);
        Self { case, expected }
    }

    /// That rows, or the query's own error, are right.
    fn right(&self, rows: &Rows) -> Result<(), String> {
        match (&self.expected, rows) {
            (Ok(answer), Ok(rows)) => compare(&self.case.graph, &self.case.data.parameters, answer, rows),
            (Err(DeviceError::Arithmetic(_)), Err(DeviceError::Arithmetic(_))) => Ok(()),
            (_, rows) => Err(format!("{rows:?}")),
        }
    }

    /// Whether an error is the one that a fault must lead to.
    fn named(&self, kind: FaultKind, error: &DeviceError) -> bool {
        let fits = match kind {
            FaultKind::OutOfMemory => matches!(error, DeviceError::OutOfMemory(_)),
            FaultKind::Lost => matches!(error, DeviceError::Device(_)),
            FaultKind::Error | FaultKind::Wrong => matches!(error, DeviceError::Internal(_)),
        };
        fits && error.action() == ErrorAction::FallBack
    }
}

/// How a run with a fault went.
#[derive(Debug, PartialEq, Eq)]
enum Went {
    /// The fault was not reached.
    Untouched,
    /// It was, and the run gave its rows nevertheless, or the error that belongs to the fault.
    Survived,
    /// The graph is not taken.
    Unsupported,
}

/// Runs a case on a device with one fault, and once more.
fn with_fault(judged: &Judged, script: &Script, threads: usize, together: Together) -> Went {
    let injection = script.injections[0];
    let device = match made(script) {
        Ok(device) => device,
        Err(error) => {
            assert_eq!(injection.phase, Some(Phase::Reserve), "{error:?}");
            assert!(judged.named(injection.kind, &error), "{error:?}");
            return Went::Survived;
        }
    };
    let seed = judged.case.seed;
    let Some(first) = run(&device, &judged.case, seed, threads, together) else {
        return Went::Unsupported;
    };
    assert_eq!(device.0.violation(), None);
    is_idle(&device.1);
    let fired = device.0.fired();
    match (&first, judged.right(&first)) {
        (_, Ok(())) => {}
        (Err(error), Err(_)) if fired && judged.named(injection.kind, error) => {}
        (_, Err(what)) => panic!("fault reached: {fired}; {what}"),
    }
    // Once more: a lost device stays off, all others work.
    let off = matches!(device.1.info().state, DeviceState::Off(_));
    assert_eq!(
        off,
        fired && injection.kind == FaultKind::Lost,
        "{:?}",
        device.1.info().state
    );
    match run(&device, &judged.case, seed, threads, together) {
        Some(Err(DeviceError::Device(_))) | None if off => {}
        Some(second) if !off => {
            // The fault may lie in the second run.
            let reached = device.0.fired() && !fired;
            match (&second, judged.right(&second)) {
                (_, Ok(())) => {}
                (Err(error), Err(_)) if reached && judged.named(injection.kind, error) => {}
                (_, Err(what)) => panic!("the second run: {what}"),
            }
        }
        second => panic!("the second run, off: {off}: {second:?}"),
    }
    assert_eq!(device.0.violation(), None);
    gives_everything_back(device);
    if fired { Went::Survived } else { Went::Untouched }
}

/// Runs in a thread of its own, so that one that hangs has a name.
fn within_time<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        let _ = send.send(work());
    });
    match receive.recv_timeout(STUCK_AFTER) {
        Ok(done) => done,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{name} hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let reason = worker.join().unwrap_err();
            let text = reason.downcast_ref::<String>().cloned();
            panic!("{name}: {}", text.unwrap_or_else(|| "a panic".to_owned()));
        }
    }
}

fn script(seed: u64, memory_bytes: u64, injection: Injection) -> Script {
    Script {
        memory_bytes,
        seed,
        injections: vec![injection],
        ..Script::default()
    }
}

fn called(kind: FaultKind, phase: Phase, nth: u64) -> Injection {
    Injection {
        kind,
        phase: Some(phase),
        nth,
        onwards: false,
    }
}

/// Which faults a phase knows.
fn kinds(phase: Phase) -> &'static [FaultKind] {
    match phase {
        Phase::Reserve | Phase::Allocation => &[FaultKind::OutOfMemory, FaultKind::Lost],
        Phase::Load => &FaultKind::ALL,
        Phase::Compile => &[FaultKind::Error, FaultKind::Lost],
        Phase::Upload | Phase::Launch => &[FaultKind::OutOfMemory, FaultKind::Error, FaultKind::Lost],
        Phase::Download | Phase::Fill | Phase::Copy | Phase::Event => &[FaultKind::Error, FaultKind::Lost],
    }
}

/// Memory for everything.
const PLENTY: u64 = 64 << 20;

fn every_call(case: impl Fn() -> Case, memory_bytes: u64, together: Together) {
    let every = number("TRIREME_FAULT_EVERY", 6).max(1);
    for phase in Phase::ALL {
        for (first, kind) in (0..).zip(kinds(phase)) {
            let mut nth = 1 + first % every;
            loop {
                let judged = Judged::new(case());
                let name = format!(
                    "{}: {}@{}:{nth}, {together:?}",
                    judged.case.name,
                    kind.name(),
                    phase.name()
                );
                let injection = called(*kind, phase, nth);
                let went = within_time(&name, move || {
                    with_fault(&judged, &script(nth, memory_bytes, injection), 2, together)
                });
                assert_ne!(went, Went::Unsupported, "{name}");
                if went == Went::Untouched {
                    break;
                }
                nth += every;
            }
            println!(
                "{} at {}: each {every}-th call, before call {nth}",
                kind.name(),
                phase.name()
            );
        }
    }
}

#[test]
fn every_fault_at_every_call_of_fragments_that_run_as_one() {
    every_call(|| join_group_sort(1, 40, 150), PLENTY, Together::All);
}

#[test]
fn every_fault_at_every_call_of_fragments_that_run_one_by_one() {
    every_call(|| join_group_sort(2, 40, 150), PLENTY, Together::No);
}

/// Bytes of the arena that a case takes, from its beginning, where there is plenty.
fn peak_bytes(case: &Case) -> u64 {
    let judged = Judged::new(case.clone());
    let device = made(&Script::default()).unwrap();
    let rows = run(&device, case, case.seed, 1, Together::All).unwrap();
    judged.right(&rows).unwrap();
    let peak = device.0.peak_bytes();
    gives_everything_back(device);
    peak
}

#[test]
fn every_fault_at_every_call_of_a_table_that_comes_in_chunks() {
    let case = || Case {
        segmentation: Segmentation::Of(100),
        ..join_group_sort(3, 20, 1_500)
    };
    let peak = peak_bytes(&case());
    let judged = Judged::new(case());
    let fits = |memory: &u64| {
        let script = Script {
            memory_bytes: *memory,
            ..Script::default()
        };
        let device = made(&script).unwrap();
        let rows = run(&device, &judged.case, 3, 1, Together::All).unwrap();
        judged.right(&rows).is_ok()
    };
    let memory = (4..9).map(|tenth| peak * tenth / 10).find(fits).unwrap();
    println!("{memory} bytes, all at once takes {peak}");
    every_call(case, memory, Together::All);
}

#[test]
fn a_slow_device_is_only_slow() {
    let judged = Judged::new(join_group_sort(5, 40, 150));
    let script = Script {
        slow: Duration::from_millis(2),
        ..Script::default()
    };
    let device = made(&script).unwrap();
    let rows = run(&device, &judged.case, 5, 2, Together::All).unwrap();
    assert_eq!(judged.right(&rows), Ok(()));
    gives_everything_back(device);
}

/// A random graph, a random fault of a random phase, at a call that a run without faults makes.
fn random_fault(seed: u64) -> Went {
    let case = generate::graph(seed);
    let mut rng = SmallRng::seed_from_u64(seed ^ 0xfa17);
    let together = if rng.random_bool(0.5) {
        Together::All
    } else {
        Together::No
    };
    let threads = rng.random_range(1..4);
    let judged = Judged::new(case);
    if matches!(judged.expected, Err(DeviceError::Unsupported(_))) {
        return Went::Unsupported;
    }
    let device = made(&Script {
        seed,
        ..Script::default()
    });
    let device = device.unwrap();
    let Some(rows) = run(&device, &judged.case, seed, threads, together) else {
        return Went::Unsupported;
    };
    judged.right(&rows).unwrap();
    let phase = Phase::ALL[rng.random_range(1..Phase::ALL.len())];
    let kinds = kinds(phase);
    let kind = kinds[rng.random_range(0..kinds.len())];
    let nth = rng.random_range(1..=device.0.count(phase).max(1));
    gives_everything_back(device);
    with_fault(
        &judged,
        &script(seed, PLENTY, called(kind, phase, nth)),
        threads,
        together,
    )
}

#[test]
fn random_faults_of_random_graphs() {
    let first = number("TRIREME_FAULT_SEED", 1);
    let seeds = number("TRIREME_FAULT_SEEDS", 100);
    let mut reached = 0;
    for seed in first..first + seeds {
        let went = within_time(&format!("seed {seed}"), move || random_fault(seed));
        reached += u64::from(went == Went::Survived);
    }
    println!("seeds {first} … {}: {reached} faults reached", first + seeds - 1);
    assert!(reached * 4 >= seeds, "only {reached} of {seeds} faults were reached");
}

/// Many graphs at once where there is memory for one: each waits for its turn.
#[test]
fn sixteen_graphs_share_memory_for_one() {
    sixteen(Together::All);
}

/// The same fragment by fragment: what one leaves for its next is in the others' way, goes to the host and comes back.
#[test]
fn sixteen_graphs_swap_what_they_leave_between_fragments() {
    let swaps = sixteen(Together::No);
    assert!(swaps > 0, "nothing was swapped");
}

/// How many outputs were swapped.
fn sixteen(together: Together) -> u64 {
    let mut swaps = 0;
    let judged = Arc::new(Judged::new(join_group_sort(3, 60, 400)));
    let peak = peak_bytes(&judged.case);
    for seed in 0..3 {
        let began = Instant::now();
        let host: Arc<dyn Variant> = Arc::new(FusedVariant::new());
        let script = Script {
            memory_bytes: peak + peak / 4,
            seed,
            ..Script::default()
        };
        let limits = Limits {
            wait: Duration::from_secs(240),
            ..Limits::default()
        };
        let device = Arc::new(device(&script, 0, &host, limits).unwrap());
        // All at once, however long the machine takes to start them.
        let start = Arc::new(Barrier::new(16));
        let workers: Vec<_> = (0..16)
            .map(|worker| {
                let (device, judged, start) = (Arc::clone(&device), Arc::clone(&judged), Arc::clone(&start));
                std::thread::spawn(move || {
                    start.wait();
                    let rows = run(&device, &judged.case, 3, 1, together).unwrap();
                    let after = began.elapsed();
                    assert_eq!(
                        judged.right(&rows),
                        Ok(()),
                        "seed {seed}, worker {worker}, after {after:?}"
                    );
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        println!("seed {seed}: {:?} with {peak} bytes", began.elapsed());
        assert_eq!(device.0.violation(), None);
        swaps += device.1.vitals().swaps;
        gives_everything_back(Arc::into_inner(device).unwrap());
    }
    swaps
}
