//! Machines without CUDA, or with half of it: no device, a reason, no panic, at once.
//!
//! Drivers without a device are built here, of a few lines of C, where a C compiler is.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests fail by panicking; numbers are cut on purpose"
)]

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use trireme_device_cuda::{CudaSettings, drivers};

/// The reason why there is no device.
fn reason(settings: &CudaSettings) -> String {
    let started = Instant::now();
    let (found, absent) = drivers(settings);
    let took = started.elapsed();
    assert!(found.is_empty());
    // Nothing is waited for; the rest is what others do on the machine, and its disk.
    assert!(took < Duration::from_secs(60), "{took:?}");
    absent.expect("a reason")
}

/// A library of these functions, or none where there is no C compiler.
fn library(folder: &tempfile::TempDir, name: &str, text: &str) -> Option<String> {
    let (source, library): (PathBuf, PathBuf) = (folder.path().join(format!("{name}.c")), folder.path().join(name));
    std::fs::write(&source, text).expect("written");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source)
        .status();
    if !built.is_ok_and(|status| status.success()) {
        println!("skipped: no C compiler");
        return None;
    }
    Some(library.to_string_lossy().into_owned())
}

/// All functions that the driver is asked for; those in `special` as given.
fn stub(special: &[(&str, &str)]) -> String {
    let names = include_str!("../src/sys.rs")
        .split('"')
        .filter(|word| word.starts_with("cu") && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
    let mut text = String::new();
    for name in names {
        let body = special
            .iter()
            .find(|(known, _)| *known == name)
            .map_or("return 999;", |(_, body)| *body);
        text.push_str(&format!("int {name}(void *a, void *b, void *c) {{ {body} }}\n"));
    }
    text
}

fn settings(library: &str) -> CudaSettings {
    CudaSettings {
        libraries: vec![library.to_owned()],
        monitors: Vec::new(),
        ..CudaSettings::default()
    }
}

const VERSION_13: (&str, &str) = ("cuDriverGetVersion", "*(int*)a = 13000; return 0;");

#[test]
fn no_driver() {
    assert_eq!(
        reason(&settings("libNoSuchCuda.so.1")),
        "libNoSuchCuda.so.1 was not found"
    );
}

#[test]
fn a_driver_without_a_device() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = stub(&[("cuInit", "return 100;")]);
    let Some(path) = library(&folder, "libnodevice.so", &text) else {
        return;
    };
    let reason = reason(&settings(&path));
    assert!(reason.ends_with("has no device: CUDA error 100"), "{reason}");
}

#[test]
fn a_driver_that_lists_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let special = [
        ("cuInit", "return 0;"),
        VERSION_13,
        ("cuDeviceGetCount", "*(int*)a = 0; return 0;"),
    ];
    let Some(path) = library(&folder, "libempty.so", &stub(&special)) else {
        return;
    };
    let reason = reason(&settings(&path));
    assert!(
        reason == "the CUDA driver has no device that is asked for" || reason.contains("which compiles kernels"),
        "{reason}"
    );
}

#[test]
fn a_driver_that_lacks_a_function() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(path) = library(&folder, "libold.so", "int cuInit(unsigned f) { return 0; }\n") else {
        return;
    };
    let reason = reason(&settings(&path));
    assert!(reason.ends_with("has no cuDriverGetVersion"), "{reason}");
}

#[test]
fn no_compiler() {
    let folder = tempfile::tempdir().expect("a folder");
    let special = [("cuInit", "return 0;"), VERSION_13];
    let Some(path) = library(&folder, "libworks.so", &stub(&special)) else {
        return;
    };
    let settings = CudaSettings {
        compilers: vec!["libNoSuchNvrtc.so.13".to_owned(), "libNoSuchNvrtc.so.12".to_owned()],
        ..settings(&path)
    };
    assert_eq!(
        reason(&settings),
        "libNoSuchNvrtc.so.13 or libNoSuchNvrtc.so.12 was not found, which compiles kernels"
    );
}

#[test]
fn a_compiler_that_is_newer_than_the_driver() {
    let folder = tempfile::tempdir().expect("a folder");
    let special = [
        ("cuInit", "return 0;"),
        ("cuDriverGetVersion", "*(int*)a = 11040; return 0;"),
    ];
    let Some(path) = library(&folder, "libolder.so", &stub(&special)) else {
        return;
    };
    let reason = reason(&settings(&path));
    assert!(
        reason.ends_with("the driver loads kernels of CUDA 11 at most") || reason.contains("which compiles kernels"),
        "{reason}"
    );
}

#[test]
fn a_device_that_gives_no_context() {
    let folder = tempfile::tempdir().expect("a folder");
    let attribute =
        "int what = (int)(long)b; *(int*)a = what == 75 ? 9 : what == 76 ? 0 : what == 20 ? 0 : 100; return 0;";
    let special = [
        ("cuInit", "return 0;"),
        VERSION_13,
        ("cuDeviceGetCount", "*(int*)a = 1; return 0;"),
        ("cuDeviceGet", "*(int*)a = 0; return 0;"),
        ("cuDeviceGetName", "((char*)a)[0] = 'X'; ((char*)a)[1] = 0; return 0;"),
        ("cuDeviceTotalMem_v2", "*(long*)a = 1 << 30; return 0;"),
        ("cuDeviceGetAttribute", attribute),
        ("cuDevicePrimaryCtxRetain", "return 46;"),
    ];
    let Some(path) = library(&folder, "libbusy.so", &stub(&special)) else {
        return;
    };
    let reason = reason(&settings(&path));
    assert!(
        reason == "X is not used: cuda0: taking a context: CUDA error 46" || reason.contains("which compiles kernels"),
        "{reason}"
    );
}
