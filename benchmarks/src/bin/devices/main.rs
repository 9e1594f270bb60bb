//! What devices can do: copies, reads by width, random reads by footprint, atomics by places, launches, waits, compiling.
//!
//! `devices [--out FILE] [--seconds-per-point S] [--memory BYTES] [--only cuda|opencl]` measures every device that is there, by
//! the drivers that the server has, writes a line per figure and all of them as JSON. The cost model's rates and the limits
//! that fragments are held against come from here. Without a device it says why and ends well.
//!
//! Each figure is the best of several runs, timed by the device where it tells. Results are checked: a device that adds
//! wrongly fails the run.

mod kernels;
mod measure;

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use trireme_device_cuda::CudaSettings;
use trireme_device_opencl::OpenClSettings;
use trireme_device_runtime::Driver;

/// What to measure, and for how long.
pub(crate) struct Options {
    /// Where JSON goes.
    out: Option<PathBuf>,
    /// Seconds that the runs of one figure may take.
    pub(crate) seconds: f64,
    /// The arena, at most.
    pub(crate) memory_bytes: u64,
    /// Only this backend.
    only: Option<String>,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        out: None,
        seconds: 0.2,
        memory_bytes: 16 << 30,
        only: None,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
        match arg.as_str() {
            "--out" => options.out = Some(value.into()),
            "--seconds-per-point" => options.seconds = value.parse()?,
            "--memory" => options.memory_bytes = value.parse()?,
            "--only" => options.only = Some(value),
            _ => return Err(format!("unknown option {arg}").into()),
        }
    }
    Ok(options)
}

/// A driver by slab size, so that copies can be measured by the size of their pieces.
pub(crate) type Open = Box<dyn Fn(usize) -> Option<Arc<dyn Driver>>>;

/// A backend's devices, each with a way to open it anew, and why there are none.
fn devices(backend: &str) -> (Vec<Open>, Option<String>) {
    let mut opened: Vec<Open> = Vec::new();
    let absent = match backend {
        "cuda" => {
            let (found, absent) = trireme_device_cuda::drivers(&CudaSettings::default());
            for position in 0..found.len() {
                opened.push(Box::new(move |slab_bytes| {
                    let settings = CudaSettings {
                        slab_bytes,
                        ..CudaSettings::default()
                    };
                    let driver = trireme_device_cuda::drivers(&settings).0.into_iter().nth(position)?;
                    Some(driver as Arc<dyn Driver>)
                }));
            }
            absent
        }
        _ => {
            let (found, absent) = trireme_device_opencl::drivers(&OpenClSettings::default());
            for position in 0..found.len() {
                opened.push(Box::new(move |slab_bytes| {
                    let settings = OpenClSettings {
                        slab_bytes,
                        ..OpenClSettings::default()
                    };
                    let driver = trireme_device_opencl::drivers(&settings).0.into_iter().nth(position)?;
                    Some(driver as Arc<dyn Driver>)
                }));
            }
            absent
        }
    };
    (opened, absent)
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let mut measured = Vec::new();
    let mut absent = serde_json::Map::new();
    let mut failed = false;
    for backend in ["cuda", "opencl"] {
        if options.only.as_deref().is_some_and(|only| only != backend) {
            continue;
        }
        let (found, reason) = devices(backend);
        if let Some(reason) = reason {
            println!("{backend}: {reason}");
            absent.insert(backend.to_owned(), Value::String(reason));
        }
        for open in found {
            match measure::device(backend, &open, &options) {
                Ok(figures) => measured.push(figures),
                Err(error) => {
                    println!("{backend}: {error}");
                    failed = true;
                }
            }
        }
    }
    if measured.is_empty() {
        println!("no device to measure");
    }
    let any_failed = |device: &Value| device["failed"].as_object().is_some_and(|failed| !failed.is_empty());
    failed |= measured.iter().any(any_failed);
    let all = json!({ "area": "devices", "settings": { "seconds_per_point": options.seconds }, "absent": absent, "devices": measured });
    if let Some(path) = &options.out {
        std::fs::write(path, serde_json::to_string_pretty(&all)? + "\n")?;
    }
    // What was measured is written all the same.
    if failed {
        return Err("some figures could not be measured".into());
    }
    Ok(())
}
