//! Machines without OpenCL, or with its loader alone: no device, a reason, no panic, at once.
#![allow(clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::process::Command;
use std::time::{Duration, Instant};

use trireme_device_opencl::{OpenClSettings, OpenClType, drivers};

/// Nothing is waited for; the rest is what others do on the machine.
const AT_ONCE: Duration = Duration::from_secs(5);

/// What a process of this program's finds, with the variables set.
fn found_with(variables: &[(&str, &str)]) -> String {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program)
        .args(["--ignored", "--exact", "--nocapture", "tells_what_it_finds"])
        .envs(variables.iter().copied())
        .output()
        .expect("run");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = text.lines().find_map(|line| line.split_once("found: "));
    found.expect("a line").1.to_owned()
}

#[test]
#[ignore = "the tests here run it in a process of its own"]
fn tells_what_it_finds() {
    let started = Instant::now();
    let (found, absent) = drivers(&OpenClSettings::default());
    let took = started.elapsed();
    if found.is_empty() {
        assert!(took < AT_ONCE, "{took:?}");
    }
    println!("\nfound: {} {}", found.len(), absent.unwrap_or_default());
}

#[test]
fn a_loader_without_platforms() {
    let text = found_with(&[("OCL_ICD_VENDORS", "/nonexistent")]);
    assert!(
        ["0 no OpenCL platform is installed", "0 libOpenCL.so.1 was not found"].contains(&text.as_str()),
        "{text}"
    );
}

#[test]
fn a_platform_without_devices() {
    // PoCL's list of drivers; others don't read it.
    let text = found_with(&[("POCL_DEVICES", "")]);
    assert!(!text.starts_with("0 ") || text.len() > 2, "none, and no reason: {text}");
}

#[test]
fn devices_that_nobody_asks_for() {
    for settings in [
        OpenClSettings {
            types: vec![OpenClType::Accelerator],
            ..OpenClSettings::default()
        },
        OpenClSettings {
            names: vec!["a name that no device has".to_owned()],
            ..OpenClSettings::default()
        },
    ] {
        let (found, absent) = drivers(&settings);
        if found.is_empty() {
            assert!(absent.is_some(), "a reason");
        }
    }
}

#[test]
fn a_missing_library() {
    let started = Instant::now();
    let settings = OpenClSettings {
        libraries: vec!["libNoSuchOpenCL.so.7".to_owned(), "libNorThis.so".to_owned()],
        ..OpenClSettings::default()
    };
    let (found, absent) = drivers(&settings);
    assert!(found.is_empty());
    assert_eq!(
        absent.as_deref(),
        Some("libNoSuchOpenCL.so.7 or libNorThis.so was not found")
    );
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
}
