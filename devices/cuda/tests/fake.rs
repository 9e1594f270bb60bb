//! The driver over a fake libcuda of host memory (`fake/libcuda.c`), which does all work as late as CUDA allows.
//!
//! What it can't show: whether kernels run, and how fast anything is. Skipped, with a line, where there is no C compiler or no
//! NVRTC.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests fail by panicking; numbers are cut on purpose"
)]

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use trireme_device_api::{DeviceError, DeviceState};
use trireme_device_codegen::ir::{Body, Kernel, Module};
use trireme_device_cuda::{CudaDriver, CudaSettings, drivers};
use trireme_device_runtime::{Driver, ModuleId, Queue};

const ARENA_BYTES: u64 = 16 << 20;

/// A driver of a fake device of its own: a fault stays in the library that it happened in.
fn driver() -> Option<(Arc<CudaDriver>, tempfile::TempDir)> {
    let folder = tempfile::tempdir().expect("a folder");
    let library = folder.path().join("libcuda.so");
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fake/libcuda.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-w", "-o"])
        .arg(&library)
        .arg(&source)
        .status();
    if !built.is_ok_and(|status| status.success()) {
        println!("skipped: no C compiler");
        return None;
    }
    let settings = CudaSettings {
        libraries: vec![library.to_string_lossy().into_owned()],
        monitors: Vec::new(),
        slab_bytes: 1 << 17,
        slabs_max: 3,
        ..CudaSettings::default()
    };
    let (found, absent) = drivers(&settings);
    let Some(driver) = found.first() else {
        let reason = absent.unwrap_or_default();
        assert!(reason.contains("which compiles kernels"), "{reason}");
        println!("skipped: {reason}");
        return None;
    };
    driver.reserve(ARENA_BYTES).expect("an arena");
    Some((Arc::clone(driver), folder))
}

fn module(names: &[&str], group: u32) -> Module {
    let kernel = |name: &&str| Kernel {
        name: (*name).to_owned(),
        locals: Vec::new(),
        words: 1,
        body: Body::default(),
    };
    Module {
        group,
        functions: Vec::new(),
        kernels: names.iter().map(kernel).collect(),
    }
}

/// Machine code for the fake one.
fn loaded(driver: &CudaDriver) -> ModuleId {
    driver
        .load(&module(&["twice", "fault"], 256), b"\x7fELF")
        .expect("loaded")
}

fn put(driver: &CudaDriver, queue: Queue, at: u64, bytes: &[u8]) {
    driver
        .upload(queue, at, bytes.len() as u64, &mut |offset, piece| {
            piece.copy_from_slice(&bytes[usize::try_from(offset).expect("fits")..][..piece.len()]);
            Ok(())
        })
        .expect("uploaded");
}

fn get(driver: &CudaDriver, queue: Queue, at: u64, bytes: usize) -> Vec<u8> {
    let mut into = vec![0xEE; bytes];
    driver.download(queue, at, &mut into).expect("downloaded");
    into
}

fn word(driver: &CudaDriver, queue: Queue, at: u64) -> u64 {
    u64::from_le_bytes(get(driver, queue, at, 8).try_into().expect("8 bytes"))
}

#[test]
fn bytes_come_back_as_they_went_though_slabs_are_few() {
    let Some((driver, _folder)) = driver() else { return };
    for bytes in [0, 1, 65_536, 65_537, 1 << 17, 3_000_001] {
        let sent: Vec<u8> = (0..bytes).map(|i: usize| (i.wrapping_mul(31) >> 3) as u8).collect();
        for queue in [Queue::Copy, Queue::Compute] {
            put(&driver, queue, 77, &sent);
            assert!(get(&driver, queue, 77, bytes) == sent, "{bytes} bytes");
        }
    }
    assert!(driver.pinned_bytes() <= 64 * 65_536 + 3 * (1 << 17));
    assert!(
        driver
            .upload(Queue::Copy, ARENA_BYTES - 1, 2, &mut |_, _| Ok(()))
            .is_err(),
        "outside the arena"
    );
}

#[test]
fn words_are_filled_whatever_their_halves() {
    let Some((driver, _folder)) = driver() else { return };
    for (round, value) in [0, u64::MAX, 1 << 63, 0x0123_4567_89AB_CDEF, 7].into_iter().enumerate() {
        let at = 4096 * (round as u64 + 1);
        driver.fill(Queue::Compute, at, 800, value).expect("filled");
        let bytes = get(&driver, Queue::Compute, at - 8, 816);
        assert_eq!(
            (&bytes[..8], &bytes[808..]),
            ([0xA5; 8].as_slice(), [0xA5; 8].as_slice()),
            "not beyond"
        );
        assert!(
            bytes[8..808].chunks(8).all(|word| word == value.to_le_bytes()),
            "{value:x}"
        );
    }
    driver.copy(Queue::Compute, 4 * 4096, 1 << 20, 800).expect("copied");
    assert_eq!(word(&driver, Queue::Compute, (1 << 20) + 792), 0x0123_4567_89AB_CDEF);
}

#[test]
fn queues_wait_for_each_others_events() {
    let Some((driver, _folder)) = driver() else { return };
    let id = loaded(&driver);
    for round in 0..10_u64 {
        put(&driver, Queue::Copy, 64, &round.to_le_bytes());
        let uploaded = driver.record(Queue::Copy).expect("a point");
        driver.after(Queue::Compute, &uploaded).expect("ordered");
        driver.launch(Queue::Compute, id, 0, 9, 64).expect("launched");
        let computed = driver.record(Queue::Compute).expect("a point");
        driver.after(Queue::Copy, &computed).expect("ordered");
        assert_eq!(word(&driver, Queue::Copy, 64), 2 * round);
        assert_eq!((uploaded.done(), computed.done()), (Ok(true), Ok(true)));
    }
}

#[test]
fn events_know_when_they_are_done_and_the_time_between_them() {
    let Some((driver, _folder)) = driver() else { return };
    let first = driver.record(Queue::Compute).expect("a point");
    let second = driver.record(Queue::Compute).expect("a point");
    assert_eq!((first.done(), first.time_ns()), (Ok(false), None));
    second.wait().expect("done");
    assert_eq!(first.done(), Ok(true));
    // The later one asked first: times of earlier events are right too.
    let (end, start) = (second.time_ns().expect("a time"), first.time_ns().expect("a time"));
    assert_eq!(end - start, 250_000);
    assert_eq!(second.time_ns(), Some(end), "the same whenever it is asked");
}

#[test]
fn kernels_that_are_not_there_or_too_large_are_refused() {
    let Some((driver, _folder)) = driver() else { return };
    let missing = driver.load(&module(&["missing"], 256), b"\x7fELF");
    assert!(matches!(missing, Err(DeviceError::Internal(_))), "{missing:?}");
    let large = driver.load(&module(&["twice"], 1024), b"\x7fELF");
    assert!(matches!(large, Err(DeviceError::Unsupported(_))), "{large:?}");
    let text = driver.load(&module(&["twice"], 256), b".version 8.0");
    assert!(matches!(text, Err(DeviceError::Internal(_))), "no PTX: {text:?}");
    let id = loaded(&driver);
    driver.unload(id);
    assert!(matches!(
        driver.launch(Queue::Compute, id, 0, 1, 0),
        Err(DeviceError::Internal(_))
    ));
    assert_eq!(driver.state(), DeviceState::Ready);
    assert_eq!(driver.info().groups, 3 * 2048 / 256);
    assert_eq!(driver.info().arena_bytes_max, (1 << 30) / 10 * 9 / 256 * 256);
}

#[test]
fn a_fault_turns_the_device_off_for_good() {
    let Some((driver, _folder)) = driver() else { return };
    let id = loaded(&driver);
    put(&driver, Queue::Compute, 64, &5_u64.to_le_bytes());
    driver
        .launch(Queue::Compute, id, 1, 1, 64)
        .expect("a fault shows later");
    assert_eq!(driver.state(), DeviceState::Ready);
    let lost = driver.download(Queue::Compute, 64, &mut [0; 8]);
    let reason = "cuda0: running: CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was encountered)";
    assert_eq!(lost, Err(DeviceError::Device(reason.to_owned())));
    assert_eq!(driver.state(), DeviceState::Off(reason.to_owned()));
    assert_eq!(driver.fill(Queue::Compute, 0, 8, 0), lost);
    assert_eq!(driver.launch(Queue::Compute, id, 0, 1, 64), lost);
    assert_eq!(driver.upload(Queue::Copy, 0, 8, &mut |_, _| Ok(())), lost);
    assert_eq!(driver.record(Queue::Copy).map(|_| ()), lost);
    assert_eq!(driver.load(&module(&["twice"], 256), b"\x7fELF").map(|_| ()), lost);
}

#[test]
fn an_arena_that_is_too_large_is_short_memory_and_no_fault() {
    let Some((driver, _folder)) = driver() else { return };
    let short = driver.reserve(1 << 40);
    assert!(matches!(short, Err(DeviceError::OutOfMemory(_))), "{short:?}");
    assert_eq!(driver.state(), DeviceState::Ready);
    assert!(driver.reserve(4096).is_err(), "an arena is reserved once");
}

#[test]
fn several_threads_work_on_one_device() {
    let Some((driver, _folder)) = driver() else { return };
    let id = loaded(&driver);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let driver = &driver;
            scope.spawn(move || {
                let at = thread << 20;
                for round in 0..10_u64 {
                    let sent = vec![u8::try_from(round * 4 + thread).expect("small"); 300_000];
                    put(driver, Queue::Compute, at, &sent);
                    driver
                        .launch(Queue::Compute, id, 0, 1, at + (1 << 19))
                        .expect("launched");
                    assert!(get(driver, Queue::Compute, at, 300_000) == sent);
                }
            });
        }
    });
}
