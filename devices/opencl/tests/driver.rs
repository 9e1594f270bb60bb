//! The driver on whatever OpenCL device is there: PoCL on a machine without a card.
//!
//! Without one these tests say so and pass, unless `TRIREME_REQUIRE_OPENCL=1`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests fail by panicking; numbers are cut on purpose"
)]

use std::sync::Arc;

use trireme_device_api::{DeviceError, DeviceState};
use trireme_device_codegen::ir::{Body, Kernel, Module};
use trireme_device_opencl::{OpenClDriver, OpenClSettings, drivers};
use trireme_device_runtime::{Driver, ModuleId, Queue};

/// The first device with an arena of 64 MiB, or none.
fn driver() -> Option<Arc<OpenClDriver>> {
    driver_with(None)
}

fn driver_with(binaries: Option<bool>) -> Option<Arc<OpenClDriver>> {
    let settings = OpenClSettings {
        binaries,
        slab_bytes: 1 << 17,
        slabs_max: 3,
        ..OpenClSettings::default()
    };
    let (found, absent) = drivers(&settings);
    let Some(driver) = found.first() else {
        let reason = absent.unwrap_or_default();
        assert!(
            std::env::var("TRIREME_REQUIRE_OPENCL").is_err(),
            "no OpenCL device: {reason}"
        );
        println!("skipped: no OpenCL device: {reason}");
        return None;
    };
    driver.reserve(64 << 20).expect("an arena");
    Some(Arc::clone(driver))
}

fn module(names: &[&str], group: u32) -> Module {
    let kernel = |name: &&str| Kernel {
        name: (*name).to_owned(),
        locals: Vec::new(),
        words: 4,
        body: Body::default(),
    };
    Module {
        group,
        functions: Vec::new(),
        kernels: names.iter().map(kernel).collect(),
    }
}

fn loaded(driver: &OpenClDriver, module: &Module, text: &str) -> ModuleId {
    let binary = driver.compile(module, text).expect("compiled");
    driver.load(module, &binary).expect("loaded")
}

fn put(driver: &OpenClDriver, queue: Queue, at: u64, bytes: &[u8]) {
    let mut next = 0;
    driver
        .upload(queue, at, bytes.len() as u64, &mut |offset, piece| {
            assert_eq!(offset, next, "in order");
            next += piece.len() as u64;
            piece.copy_from_slice(&bytes[usize::try_from(offset).expect("fits")..][..piece.len()]);
            Ok(())
        })
        .expect("uploaded");
    assert_eq!(next, bytes.len() as u64);
}

fn get(driver: &OpenClDriver, queue: Queue, at: u64, bytes: usize) -> Vec<u8> {
    let mut into = vec![0xEE; bytes];
    driver.download(queue, at, &mut into).expect("downloaded");
    into
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes
        .chunks(8)
        .map(|word| u64::from_le_bytes(word.try_into().expect("8")))
        .collect()
}

fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..bytes)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state.to_le_bytes()[5]
        })
        .collect()
}

#[test]
fn bytes_come_back_as_they_went() {
    let Some(driver) = driver() else { return };
    // Empty, small slabs, large slabs, and, where memory is the host's, mapped; at odd places too.
    for (round, bytes) in [
        0,
        1,
        7,
        4096,
        65_536,
        65_537,
        1 << 19,
        (1 << 20) - 1,
        1 << 20,
        9_999_999,
    ]
    .into_iter()
    .enumerate()
    {
        for queue in [Queue::Compute, Queue::Copy] {
            let at = 1024 + round as u64;
            let sent = noise(bytes, round as u64);
            put(&driver, queue, at, &sent);
            assert_eq!(get(&driver, queue, at, bytes), sent, "{bytes} bytes");
        }
    }
    assert!(
        driver.pinned_bytes() <= 64 * 65_536 + 3 * (1 << 17),
        "{} bytes are pinned",
        driver.pinned_bytes()
    );
}

#[test]
fn what_fails_to_write_fails_the_upload_alone() {
    let Some(driver) = driver() else { return };
    for bytes in [100, 5 << 20] {
        let failed = driver.upload(Queue::Copy, 0, bytes, &mut |_, _| Err(DeviceError::Cancelled));
        assert_eq!(failed, Err(DeviceError::Cancelled));
        put(&driver, Queue::Copy, 0, &noise(5 << 20, bytes));
        assert_eq!(get(&driver, Queue::Copy, 0, 5 << 20), noise(5 << 20, bytes));
    }
    assert_eq!(driver.state(), DeviceState::Ready);
}

#[test]
fn words_are_filled_and_copied() {
    let Some(driver) = driver() else { return };
    driver
        .fill(Queue::Compute, 0, 1 << 20, 0x0123_4567_89AB_CDEF)
        .expect("filled");
    driver.fill(Queue::Compute, 512, 16, u64::MAX).expect("filled");
    driver.fill(Queue::Compute, 512, 0, 1).expect("nothing filled");
    driver.copy(Queue::Compute, 504, 2 << 20, 32).expect("copied");
    driver.copy(Queue::Compute, 504, 3 << 20, 0).expect("nothing copied");
    let expected = [0x0123_4567_89AB_CDEF, u64::MAX, u64::MAX, 0x0123_4567_89AB_CDEF];
    assert_eq!(words(&get(&driver, Queue::Compute, 2 << 20, 32)), expected);
    assert_eq!(
        words(&get(&driver, Queue::Compute, (1 << 20) - 8, 8)),
        [0x0123_4567_89AB_CDEF]
    );
}

const ATOMICS: &str = r"
#pragma OPENCL EXTENSION cl_khr_int64_base_atomics : enable
#pragma OPENCL EXTENSION cl_khr_int64_extended_atomics : enable
__attribute__((reqd_work_group_size(64, 1, 1)))
__kernel void sum(__global uchar *arena, ulong block) {
    __global ulong *words = (__global ulong *)(arena + block);
    ulong rows = words[0];
    __global const uint *values = (__global const uint *)(arena + words[1]);
    volatile __global ulong *to = (volatile __global ulong *)(arena + words[2]);
    for (ulong row = get_global_id(0); row < rows; row += get_global_size(0)) {
        atom_add(to, (ulong)values[row]);
        atom_max(to + 1, (ulong)values[row]);
        atom_min(to + 2, (ulong)values[row]);
        atom_or(to + 3, 1UL << (values[row] & 63));
    }
}
__attribute__((reqd_work_group_size(64, 1, 1)))
__kernel void twice(__global uchar *arena, ulong block) {
    __global ulong *words = (__global ulong *)(arena + block);
    __global ulong *to = (__global ulong *)(arena + words[2]);
    if (get_global_id(0) == 0) to[0] *= 2;
}
";

#[test]
fn kernels_run_in_order_with_atomics_of_64_bits() {
    let Some(driver) = driver() else { return };
    let module = module(&["sum", "twice"], 64);
    let id = loaded(&driver, &module, ATOMICS);
    let rows = 100_000_u32;
    let values: Vec<u8> = (0..rows)
        .flat_map(|row| row.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    put(&driver, Queue::Copy, 1 << 20, &values);
    let uploaded = driver.record(Queue::Copy).expect("a point");
    driver.after(Queue::Compute, &uploaded).expect("ordered");
    let block: Vec<u8> = [u64::from(rows), 1 << 20, 4096, 0]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    put(&driver, Queue::Compute, 256, &block);
    driver.fill(Queue::Compute, 4096, 32, 0).expect("filled");
    driver.fill(Queue::Compute, 4112, 8, u64::MAX).expect("filled");
    let start = driver.record(Queue::Compute).expect("a point");
    driver.launch(Queue::Compute, id, 0, 7, 256).expect("launched");
    driver.launch(Queue::Compute, id, 1, 1, 256).expect("launched");
    let end = driver.record(Queue::Compute).expect("a point");
    end.wait().expect("done");
    assert_eq!(end.done(), Ok(true));
    assert_eq!(uploaded.done(), Ok(true));
    let expected: Vec<u64> = (0..rows)
        .map(|row| u64::from(row.wrapping_mul(2_654_435_761)))
        .collect();
    let got = words(&get(&driver, Queue::Compute, 4096, 32));
    assert_eq!(got[0], 2 * expected.iter().sum::<u64>());
    assert_eq!(got[1], *expected.iter().max().expect("some"));
    assert_eq!(got[2], *expected.iter().min().expect("some"));
    assert_eq!(got[3], u64::MAX);
    if let (Some(start), Some(end)) = (start.time_ns(), end.time_ns()) {
        assert!(start <= end && end - start < 60_000_000_000, "{start} … {end}");
    }
    driver.unload(id);
    let gone = driver.launch(Queue::Compute, id, 0, 1, 256);
    assert!(matches!(gone, Err(DeviceError::Internal(_))), "{gone:?}");
}

#[test]
fn a_queue_waits_for_the_other_ones_event() {
    let Some(driver) = driver() else { return };
    let id = loaded(&driver, &module(&["sum", "twice"], 64), ATOMICS);
    put(
        &driver,
        Queue::Compute,
        0,
        &[0, 0, 4096_u64]
            .iter()
            .flat_map(|word: &u64| word.to_le_bytes())
            .collect::<Vec<_>>(),
    );
    driver.fill(Queue::Compute, 4096, 8, 1).expect("filled");
    for _ in 0..40 {
        driver.launch(Queue::Compute, id, 1, 1, 0).expect("launched");
    }
    let computed = driver.record(Queue::Compute).expect("a point");
    driver.after(Queue::Copy, &computed).expect("ordered");
    assert_eq!(words(&get(&driver, Queue::Copy, 4096, 8)), [1 << 40]);
}

#[test]
fn several_threads_launch_one_kernel() {
    let Some(driver) = driver() else { return };
    let id = loaded(&driver, &module(&["sum", "twice"], 64), ATOMICS);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let driver = &driver;
            scope.spawn(move || {
                let (block, at) = (thread * 64, 4096 + thread * 8);
                let bytes: Vec<u8> = [0, 0, at].iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
                for round in 0..20_u64 {
                    put(driver, Queue::Compute, block, &bytes);
                    driver.fill(Queue::Compute, at, 8, round + thread).expect("filled");
                    driver.launch(Queue::Compute, id, 1, 1, block).expect("launched");
                    assert_eq!(words(&get(driver, Queue::Compute, at, 8)), [2 * (round + thread)]);
                }
            });
        }
    });
}

/// Both ways: a binary, and the text in a binary's place.
#[test]
fn what_was_compiled_can_be_loaded_twice_and_by_another_driver() {
    for binaries in [true, false] {
        let (Some(first), Some(second)) = (driver_with(Some(binaries)), driver_with(Some(binaries))) else {
            return;
        };
        assert_eq!(first.info().identity.is_some(), binaries);
        let module = module(&["sum", "twice"], 64);
        let binary = first.compile(&module, ATOMICS).expect("compiled");
        for driver in [&first, &first, &second] {
            let id = driver.load(&module, &binary).expect("loaded");
            put(
                driver,
                Queue::Compute,
                0,
                &[0, 0, 4096_u64]
                    .iter()
                    .flat_map(|word: &u64| word.to_le_bytes())
                    .collect::<Vec<_>>(),
            );
            driver.fill(Queue::Compute, 4096, 8, 21).expect("filled");
            driver.launch(Queue::Compute, id, 1, 1, 0).expect("launched");
            assert_eq!(words(&get(driver, Queue::Compute, 4096, 8)), [42]);
            driver.unload(id);
        }
    }
}

#[test]
fn refusals_are_told_and_lose_nothing() {
    let Some(driver) = driver_with(Some(true)) else { return };
    let module = module(&["sum"], 64);
    let error = driver.compile(&module, "__kernel void sum(__global uchar *a, ulong b) { nonsense; }");
    let Err(DeviceError::Internal(text)) = error else {
        panic!("{error:?}")
    };
    assert!(text.contains("nonsense"), "{text}");
    assert!(driver.load(&module, b"this is no binary").is_err());
    assert!(driver.load(&module, b"").is_err());
    assert!(driver.reserve(1 << 20).is_err(), "an arena is reserved once");
    assert_eq!(driver.state(), DeviceState::Ready);
    assert!(
        driver
            .info()
            .identity
            .as_deref()
            .is_some_and(|identity| identity.contains("-cl-std="))
    );
}

#[test]
fn an_arena_that_is_too_large_is_short_memory() {
    let (found, _) = drivers(&OpenClSettings::default());
    let Some(driver) = found.first() else { return };
    let error = driver.reserve(1 << 50);
    assert!(matches!(error, Err(DeviceError::OutOfMemory(_))), "{error:?}");
    assert!(driver.fill(Queue::Compute, 0, 8, 0).is_err(), "no arena, no work");
    assert_eq!(driver.state(), DeviceState::Ready);
    driver
        .reserve(driver.info().arena_bytes_max)
        .expect("the largest arena is to be had");
}
