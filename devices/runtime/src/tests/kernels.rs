//! The kernel cache: a second process compiles nothing, and no state of the folder does harm.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use trireme_device_codegen::build::{Builder, u32, u64};
use trireme_device_codegen::ir::{Elem, Module};

use super::driver::TestDriver;
use crate::driver::Driver;
use crate::kernels::KernelCache;

/// A kernel that stores a number.
fn module(number: u32) -> Module {
    let mut b = Builder::new();
    let place = trireme_device_codegen::build::place(Elem::U32, trireme_device_codegen::ir::Expr::Word(0), u64(0));
    b.store(place, u32(number));
    Module {
        group: 8,
        functions: Vec::new(),
        kernels: vec![b.kernel("stores", 1)],
    }
}

fn cache(folder: &Path, identity: Option<&str>, bytes: u64) -> (Arc<TestDriver>, KernelCache) {
    let driver = TestDriver::with_identity(1 << 16, identity);
    let shared: Arc<dyn Driver> = Arc::<TestDriver>::clone(&driver);
    (driver, KernelCache::new(shared, Some((folder.to_owned(), bytes))))
}

/// Gets the modules in a new cache over the folder; how many were compiled.
fn compiled(folder: &Path, identity: Option<&str>, numbers: std::ops::Range<u32>) -> usize {
    let (driver, cache) = cache(folder, identity, 1 << 20);
    for number in numbers {
        let (first, _) = cache.get(&module(number)).unwrap();
        let (again, took) = cache.get(&module(number)).unwrap();
        assert!(Arc::ptr_eq(&first, &again) && !took.compiled);
    }
    driver.compiled.load(Ordering::SeqCst)
}

fn only_file(folder: &Path) -> std::path::PathBuf {
    let files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[test]
fn a_second_process_compiles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(compiled(folder.path(), Some("compiler 1"), 0..5), 5);
    assert_eq!(compiled(folder.path(), Some("compiler 1"), 0..5), 0);
    assert_eq!(compiled(folder.path(), Some("compiler 2"), 0..5), 5, "another compiler");
    assert_eq!(compiled(folder.path(), None, 0..5), 5, "binaries of no known compiler");
}

#[test]
fn any_flipped_or_missing_byte_is_a_miss() {
    let folder = tempfile::tempdir().unwrap();
    compiled(folder.path(), Some("c"), 0..1);
    let path = only_file(folder.path());
    let whole = std::fs::read(&path).unwrap();
    for byte in 0..whole.len() {
        let mut changed = whole.clone();
        changed[byte] ^= 1;
        std::fs::write(&path, changed).unwrap();
        assert_eq!(compiled(folder.path(), Some("c"), 0..1), 1, "byte {byte}");
        std::fs::write(&path, &whole[..byte]).unwrap();
        assert_eq!(compiled(folder.path(), Some("c"), 0..1), 1, "{byte} bytes");
    }
    assert_eq!(compiled(folder.path(), Some("c"), 0..1), 0, "it recovered");
    // A whole file under another module's name.
    compiled(folder.path(), Some("c"), 1..2);
    let other = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|found| *found != path)
        .unwrap();
    std::fs::copy(&path, other).unwrap();
    assert_eq!(compiled(folder.path(), Some("c"), 1..2), 1);
}

#[test]
fn writers_side_by_side_leave_whole_files() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| compiled(folder.path(), Some("c"), 0..8));
        }
    });
    assert_eq!(compiled(folder.path(), Some("c"), 0..8), 0);
}

#[test]
fn one_cache_compiles_a_module_once() {
    let folder = tempfile::tempdir().unwrap();
    let (driver, cache) = cache(folder.path(), None, 1 << 20);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| (0..8).for_each(|number| drop(cache.get(&module(number)).unwrap())));
        }
    });
    assert_eq!(driver.compiled.load(Ordering::SeqCst), 8);
}

#[test]
fn the_folder_stays_within_its_limit_and_may_be_none() {
    let folder = tempfile::tempdir().unwrap();
    let (_, small) = cache(folder.path(), Some("c"), 500);
    (0..10).for_each(|number| drop(small.get(&module(number)).unwrap()));
    let sizes = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len());
    let bytes: u64 = sizes.sum();
    assert!(bytes > 0 && bytes <= 500, "{bytes}");
    let file = folder.path().join("file");
    std::fs::write(&file, "no folder").unwrap();
    let (_, none) = cache(&file, Some("c"), 1 << 20);
    none.get(&module(0)).unwrap();
}
