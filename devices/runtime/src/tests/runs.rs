//! Runs in too little memory, again, side by side, cancelled, dropped, and on a device that is lost.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use trireme_device_api::{Device, DeviceError, DeviceState, Graph, Output, Progress};
use trireme_device_testkit::conformance::compare;
use trireme_device_testkit::driver::{Together, run, run_as, step_until_done, values_of};
use trireme_device_testkit::inputs::CountingPool;
use trireme_device_testkit::values::Row;

use super::driver::TestDriver;
use super::kit::{
    Named, accelerator, emitting, expected, filtered_then_grouped, grouping, inputs, no_leak, rows, summing,
};
use crate::accelerator::{Accelerator, Limits};
use crate::tier::Kernels;

fn check(device: &Accelerator, graph: &Arc<Graph>, scan: &Arc<Named>, rows: &[Row]) -> Result<(), DeviceError> {
    let pool = Arc::new(CountingPool::new(usize::MAX));
    let actual = run_as(device.variant().as_ref(), graph, inputs(scan, &pool), 2, Together::All)?;
    compare(graph, &[], &expected(graph, rows), &actual).unwrap();
    pool.check().unwrap();
    Ok(())
}

/// There will be room, but a thread of the device may be late to give it back.
fn patient() -> Limits {
    Limits {
        wait: Duration::from_secs(240),
        ..Limits::default()
    }
}

#[test]
fn a_table_larger_than_the_memory_comes_in_chunks() {
    let mut rng = SmallRng::seed_from_u64(1);
    let rows = rows(4_000, 7, &mut rng);
    let scan = Named::new(&rows, 100, 1);
    for graph in [grouping(), emitting()] {
        let (mut fits, mut chunked, mut refused) = (0, 0, 0);
        for kilobytes in [2, 8, 24, 48, 96, 110, 128, 256, 2_048] {
            let driver = TestDriver::new(kilobytes << 10);
            let device = accelerator(
                &driver,
                Limits {
                    wait: Duration::from_millis(5),
                    ..Limits::default()
                },
            );
            match check(&device, &graph, &scan, &rows) {
                Ok(()) if device.vitals().syncs > 1 => chunked += 1,
                Ok(()) => fits += 1,
                Err(DeviceError::OutOfMemory(_)) => refused += 1,
                Err(error) => panic!("{kilobytes} KiB: {error}"),
            }
            no_leak(&driver, &device);
        }
        println!("{fits} fit, {chunked} in chunks, {refused} refused");
        assert!(fits > 0 && chunked > 0 && refused > 0);
    }
}

#[test]
fn columns_stay_in_device_memory() {
    let mut rng = SmallRng::seed_from_u64(2);
    let rows = rows(1_000, 5, &mut rng);
    let scan = Named::new(&rows, 300, 2);
    let driver = TestDriver::new(8 << 20);
    let device = accelerator(&driver, Limits::default());
    check(&device, &grouping(), &scan, &rows).unwrap();
    let (first, loads) = (device.vitals(), scan.loads.load(Ordering::SeqCst));
    assert!(first.columns_bytes > 0 && loads == 8);
    check(&device, &grouping(), &scan, &rows).unwrap();
    assert_eq!(scan.loads.load(Ordering::SeqCst), loads, "nothing is loaded again");
    let second = device.vitals();
    let columns = 1_000 * 2;
    assert!(second.uploaded_bytes - first.uploaded_bytes < columns, "{second:?}");
    assert_eq!(second.compiled, first.compiled);
    no_leak(&driver, &device);
}

#[test]
fn what_is_used_often_stays_when_room_is_made() {
    const ARENA_BYTES: u64 = 96 << 10;
    let mut rng = SmallRng::seed_from_u64(3);
    let table: Vec<_> = rows(2_000, 5, &mut rng);
    let driver = TestDriver::new(ARENA_BYTES);
    let device = accelerator(&driver, patient());
    let often = Named::new(&table, 500, 1);
    for number in 0..30 {
        check(&device, &summing(), &often, &table).unwrap();
        check(&device, &summing(), &often, &table).unwrap();
        check(&device, &summing(), &Named::new(&table, 500, 2 + number), &table).unwrap();
        let vitals = device.vitals();
        assert!(vitals.columns_bytes <= vitals.used_bytes && vitals.used_bytes <= ARENA_BYTES);
    }
    assert!(device.vitals().evictions > 0);
    let loads = often.loads.load(Ordering::SeqCst);
    assert!(loads < 30 * 4 / 2, "{loads} loads of what is used most");
    no_leak(&driver, &device);
}

#[test]
fn many_runs_on_a_device_with_memory_for_one_end() {
    let mut rng = SmallRng::seed_from_u64(4);
    let table = rows(2_000, 50, &mut rng);
    let driver = TestDriver::new(24 << 10);
    let device = accelerator(&driver, patient());
    std::thread::scope(|scope| {
        let start = |number: u64| {
            let (device, table) = (&device, &table);
            scope.spawn(move || {
                // One segment: it fits alone, and in no chunks.
                let scan = Named::new(table, 2_000, number);
                check(device, &summing(), &scan, table)
            })
        };
        let running: Vec<_> = (0..16).map(start).collect();
        let ended: Vec<_> = running.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(ended.iter().all(Result::is_ok), "{ended:?}");
    });
    no_leak(&driver, &device);
}

/// Queries that wait for their turn between two fragments hold what the others need: it goes to the host and comes back.
#[test]
fn what_waiting_queries_hold_is_swapped() {
    let mut rng = SmallRng::seed_from_u64(9);
    let table = rows(2_000, 50, &mut rng);
    let graph = filtered_then_grouped();
    let right = expected(&graph, &table);
    let pool = Arc::new(CountingPool::new(usize::MAX));
    // Of some 30 KiB each.
    let driver = TestDriver::new(352 << 10);
    let device = accelerator(&driver, patient());
    let variant = device.variant();
    let first = |number: u64| {
        let inputs = inputs(&Named::new(&table, 500, number), &pool);
        let kernel = variant.prepare(&graph, 0, &inputs, &[None, None]).unwrap();
        (
            inputs,
            step_until_done(kernel.as_ref(), 1)
                .and_then(|()| kernel.finish())
                .unwrap(),
        )
    };
    let waiting: Vec<_> = (0..16).map(first).collect();
    let mut restored = 0;
    for (inputs, output) in waiting {
        let outputs = [Some(output), None];
        let kernel = variant.prepare(&graph, 1, &inputs, &outputs).unwrap();
        step_until_done(kernel.as_ref(), 1).unwrap();
        let reports = kernel.reports();
        restored += reports.iter().map(|(_, report)| report.restored_bytes).sum::<u64>();
        let Output::Rows(rows) = kernel.finish().unwrap() else {
            panic!("no rows")
        };
        compare(&graph, &[], &right, &values_of(&rows).unwrap()).unwrap();
    }
    let vitals = device.vitals();
    assert!(
        vitals.swaps > 0 && restored > 0 && restored <= vitals.swapped_bytes,
        "{restored}: {vitals:?}"
    );
    drop(variant);
    pool.check().unwrap();
    no_leak(&driver, &device);
}

/// A first run doesn't wait for the compiler, and the next one has its kernels.
#[test]
fn fragments_run_as_data_until_their_kernels_are_compiled() {
    let mut rng = SmallRng::seed_from_u64(10);
    let table = rows(40, 5, &mut rng);
    let scan = Named::new(&table, 40, 1);
    let driver = TestDriver::new(8 << 20);
    let limits = Limits {
        kernels: Kernels::Auto,
        ..Limits::default()
    };
    let device = accelerator(&driver, limits);
    device.core().pretend_rate(1e9);
    let until = |done: &dyn Fn() -> bool| {
        while !done() {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    until(&|| device.core().bridges(&[]));
    let graph = grouping();
    check(&device, &graph, &scan, &table).unwrap();
    assert_eq!(device.vitals().interpreted, 1, "{:?}", device.vitals());
    until(&|| device.vitals().compiled == 2);
    check(&device, &graph, &scan, &table).unwrap();
    assert_eq!(device.vitals().interpreted, 1, "{:?}", device.vitals());
    no_leak(&driver, &device);
}

#[test]
fn failures_at_every_allocation_leave_nothing_behind() {
    let mut rng = SmallRng::seed_from_u64(5);
    let table = rows(300, 5, &mut rng);
    for graph in [grouping(), emitting()] {
        for fail_at in 0.. {
            let driver = TestDriver::new(1 << 20);
            driver.fail_at.store(fail_at, Ordering::SeqCst);
            let device = accelerator(&driver, Limits::default());
            let ended = check(&device, &graph, &Named::new(&table, 100, 1), &table);
            no_leak(&driver, &device);
            match ended {
                Ok(()) => {
                    assert!(fail_at > 5, "{fail_at}");
                    break;
                }
                Err(error) => assert!(matches!(error, DeviceError::OutOfMemory(_)), "{fail_at}: {error}"),
            }
        }
    }
}

#[test]
fn a_lost_device_stays_off() {
    let mut rng = SmallRng::seed_from_u64(6);
    let table = rows(300, 5, &mut rng);
    let driver = TestDriver::new(1 << 20);
    let device = accelerator(&driver, Limits::default());
    let scan = Named::new(&table, 100, 1);
    check(&device, &grouping(), &scan, &table).unwrap();
    driver
        .lost_at
        .store(driver.launches.load(Ordering::SeqCst), Ordering::SeqCst);
    let lost = check(&device, &grouping(), &scan, &table);
    assert!(matches!(lost, Err(DeviceError::Device(_))), "{lost:?}");
    driver.lost_at.store(usize::MAX, Ordering::SeqCst);
    assert!(matches!(device.info().state, DeviceState::Off(_)));
    let after = check(&device, &grouping(), &scan, &table);
    assert!(matches!(after, Err(DeviceError::Device(_))), "{after:?}");
    no_leak(&driver, &device);
}

#[test]
fn a_run_is_cancelled_or_dropped_at_any_step() {
    let mut rng = SmallRng::seed_from_u64(7);
    let table = rows(500, 5, &mut rng);
    let driver = TestDriver::new(1 << 20);
    let device = accelerator(&driver, Limits::default());
    let graph = emitting();
    for steps in 0..40 {
        let pool = Arc::new(CountingPool::new(usize::MAX));
        let inputs = inputs(&Named::new(&table, 100, 100 + steps), &pool);
        let kernel = device.variant().prepare_many(&graph, &[0], &inputs, &[None]).unwrap();
        let mut ended = Progress::More;
        for _ in 0..steps {
            ended = kernel.step(0).unwrap();
            std::thread::sleep(Duration::from_micros(50));
        }
        if steps % 2 == 0 && ended != Progress::Done {
            inputs.cancelled.store(true, Ordering::SeqCst);
            let error = loop {
                match kernel.step(1) {
                    Ok(Progress::Done) => break None,
                    Ok(_) => std::thread::yield_now(),
                    Err(error) => break Some(error),
                }
            };
            assert!(matches!(error, None | Some(DeviceError::Cancelled)), "{error:?}");
        }
        drop((kernel, inputs));
    }
    let scan = Named::new(&table, 100, 1);
    check(&device, &graph, &scan, &table).unwrap();
    no_leak(&driver, &device);
}

#[test]
fn fragments_run_one_by_one_too() {
    let mut rng = SmallRng::seed_from_u64(8);
    let table = rows(500, 5, &mut rng);
    let driver = TestDriver::new(1 << 20);
    let device = accelerator(&driver, Limits::default());
    let pool = Arc::new(CountingPool::new(usize::MAX));
    let graph = grouping();
    let inputs = inputs(&Named::new(&table, 100, 1), &pool);
    let actual = run(device.variant().as_ref(), &graph, inputs, 1).unwrap();
    compare(&graph, &[], &expected(&graph, &table), &actual).unwrap();
}

/// What the host does for a run, on a device that does nothing. For release builds.
#[test]
#[ignore = "measures"]
fn what_a_run_takes_on_the_host() {
    const RUNS: u32 = 200;
    let mut rng = SmallRng::seed_from_u64(9);
    let table = rows(6_000, 5, &mut rng);
    let driver = TestDriver::new(64 << 20);
    driver.idle.store(true, Ordering::SeqCst);
    let device = accelerator(&driver, Limits::default());
    let scan = Named::new(&table, 100, 1);
    let pool = Arc::new(CountingPool::new(usize::MAX));
    let once = |graph: &Arc<Graph>, bound: bool| {
        let inputs = inputs(&scan, &pool);
        let variant = device.variant();
        if bound {
            variant.support_bound(graph, &inputs);
        }
        let kernel = variant.prepare_many(graph, &[0], &inputs, &[None]).unwrap();
        while kernel.step(0).unwrap() != Progress::Done {
            std::thread::sleep(Duration::from_micros(20));
        }
        kernel.finish().unwrap();
    };
    // Of all threads: the clock would count what others do on the machine.
    let busy_ns = || -> u64 {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let of = |task: std::io::Result<std::fs::DirEntry>| {
            let text = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
            text.split(' ').next().unwrap().parse::<u64>().unwrap()
        };
        tasks.map(of).sum()
    };
    for (name, graph) in [
        ("grouping", grouping()),
        ("emitting", emitting()),
        ("summing", summing()),
    ] {
        once(&graph, true);
        for (how, renew, bound) in [
            ("again", false, false),
            ("placed", false, true),
            ("new values", true, true),
        ] {
            let began = busy_ns();
            for _ in 0..RUNS {
                let graph = if renew {
                    Arc::new(Graph::clone(&graph))
                } else {
                    Arc::clone(&graph)
                };
                once(&graph, bound);
            }
            let took = Duration::from_nanos((busy_ns() - began) / u64::from(RUNS));
            println!("{name}, {how}: {took:?}");
        }
    }
}
