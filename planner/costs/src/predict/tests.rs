//! The formulas, by hand.

use trireme_device_api::Source;

use super::*;
use crate::catalogue::catalogue;
use crate::facts::{Rows, SinkKind};
use crate::recorded::Workload;

/// A device of round numbers.
fn device(id: &str) -> Profile {
    let mut device = catalogue().unwrap().into_iter().find(|device| device.id == id).unwrap();
    device.overlap = 0.0;
    device.stream_bytes_per_second_by_carrier_bytes = Curve::flat(1e9);
    device.random_accesses_per_second_by_footprint_bytes = Curve::new(vec![(1e3, 1e9), (1e6, 1e8)]);
    device.inserts_per_second_by_footprint_bytes = Curve::flat(1e8);
    device.group_updates_per_second_by_groups = Curve::flat(1e8);
    device.memory_bytes_per_second_max = 2.5e9;
    device.worker_efficiency = 1.0;
    device.spread_ms = 0.0;
    (device.wake_ms, device.node_ms) = (0.0, 0.0);
    device.start_ms = 0.5;
    device
}

fn facts(rows: f64) -> FragmentFacts {
    FragmentFacts {
        text: String::new(),
        first: false,
        source: Source::Scan(0),
        builds: Vec::new(),
        sink: SinkKind::Total,
        source_rows: Rows::exact(rows),
        source_bytes: rows * 4.0,
        encoded_bytes: rows * 2.0,
        step_rows: Vec::new(),
        output_rows: Rows::exact(1.0),
        output_bytes: 8.0,
        table_bytes: 100.0,
        nodes: 10.0,
        work: Work {
            rows,
            streams: vec![(4.0, rows * 4.0)],
            ..Work::default()
        },
    }
}

fn near(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-6 * b.abs().max(1e-3), "{a} is not {b}");
}

#[test]
fn one_worker_reads_at_its_rate_and_all_at_most_at_the_memorys() {
    let host = device("cpu-2c");
    let around = Surroundings::default();
    // One morsel, one worker: 4 bytes a row at 1 GB/s.
    near(predict(&facts(1e4), &host, &around).kernel_ms, 0.04);
    near(predict(&facts(1e4), &host, &around).total_ms, 0.54);
    // Two workers.
    near(predict(&facts(1e7), &host, &around).kernel_ms, 20.0);
    let mut many = host.clone();
    many.workers = 16;
    near(predict(&facts(1e7), &many, &around).kernel_ms, 16.0);
    let half = Surroundings {
        free_share: 0.5,
        ..Surroundings::default()
    };
    near(predict(&facts(1e7), &host, &half).kernel_ms, 40.0);
}

#[test]
fn terms_add_up_or_hide_each_other() {
    let mut host = device("cpu-2c");
    host.workers = 1;
    let mut needs = facts(1e6);
    needs.work.lookups = vec![Random {
        footprint_bytes: 1e6,
        accesses: 1e6,
        hashed: false,
    }];
    needs.work.updates = vec![Updates {
        groups: 10.0,
        rows: 1e5,
        hashed: false,
    }];
    let around = Surroundings::default();
    let cost = predict(&needs, &host, &around);
    near(cost.stream_ms, 4.0);
    near(cost.lookup_ms, 10.0);
    near(cost.table_ms, 1.0);
    near(cost.kernel_ms, 15.0);
    host.overlap = 1.0;
    near(predict(&needs, &host, &around).kernel_ms, 10.0);
    host.overlap = 0.5;
    near(predict(&needs, &host, &around).kernel_ms, 12.5);
}

#[test]
fn cold_reads_take_the_longer_of_fetch_and_decode() {
    let mut host = device("cpu-2c");
    host.workers = 1;
    host.decode_bytes_per_second = Some(4e9);
    let cold = |store_bytes_per_second: f64| Surroundings {
        host_share: 0.0,
        store_bytes_per_second,
        store_latency_ms: 10.0,
        ..Surroundings::default()
    };
    let rows = 1e6;
    // 2 MB at 1 GB/s after 10 ms; decoding 4 MB at 4 GB/s and computing at 1 GB/s go on meanwhile: there is one chunk, so nothing is hidden.
    let cost = predict(&facts(rows), &host, &cold(1e9));
    near(cost.fetch_ms, 12.0);
    near(cost.decode_ms, 1.0);
    near(cost.total_ms, 0.5 + 12.0 + 5.0);
    // Of many chunks the shorter is hidden, but for its first.
    host.chunk_rows = rows / 100.0;
    near(predict(&facts(rows), &host, &cold(1e9)).total_ms, 0.5 + 12.0 + 0.05);
    near(predict(&facts(rows), &host, &Surroundings::default()).fetch_ms, 0.0);
}

#[test]
fn accelerators_pay_for_copies_launches_and_compilation() {
    let mut gpu = device("gpu-h200");
    gpu.upload = Some(Link {
        bytes_per_second_by_bytes: Curve::flat(1e9),
        latency_ms: 0.1,
    });
    gpu.compile_ms_by_nodes = Curve::flat(30.0);
    gpu.launch_ms = 0.01;
    gpu.launches = 3.0;
    let rows = 1e6;
    let resident = Surroundings {
        device_share: 1.0,
        ..Surroundings::default()
    };
    let there = predict(&facts(rows), &gpu, &resident);
    near(there.upload_ms, 0.0);
    near(there.total_ms, 0.5 + 0.03 + 4.0);
    let here = predict(&facts(rows), &gpu, &Surroundings::default());
    near(here.upload_ms, 4.1);
    near(here.upload_bytes, 4e6);
    near(here.total_ms, 0.5 + 0.03 + 4.1 + 4.0);
    let half = Surroundings {
        device_share: 0.5,
        ..Surroundings::default()
    };
    near(predict(&facts(rows), &gpu, &half).upload_ms, 2.1);
    let cold = Surroundings {
        warm: false,
        expected_uses: 10.0,
        queue_ms: 7.0,
        ..resident
    };
    let cost = predict(&facts(rows), &gpu, &cold);
    near(cost.compile_ms, 3.0);
    near(cost.total_ms - there.total_ms, 10.0);
    // Waiting costs nothing, compiling does.
    near(cost.usd, (there.total_ms + 3.0) * gpu.price_usd_per_hour / 3.6e6);
    near(cost.joules, (there.total_ms + 3.0) * gpu.power.active_watts / 1e3);
}

#[test]
fn a_source_that_does_not_fit_comes_in_chunks() {
    let mut gpu = device("gpu-h200");
    gpu.upload = Some(Link {
        bytes_per_second_by_bytes: Curve::flat(1e9),
        latency_ms: 0.0,
    });
    gpu.chunk_rows = 1e5;
    gpu.start_ms = 0.0;
    (gpu.launches, gpu.launch_ms) = (2.0, 0.01);
    let ms = |free_bytes: f64| {
        let around = Surroundings {
            free_bytes,
            ..Surroundings::default()
        };
        predict(&facts(1e6), &gpu, &around).total_ms
    };
    near(ms(1e9), 0.02 + 4.0 + 4.0);
    // Ten chunks: ten times the launches, and a tenth of the copies is not hidden.
    near(ms(1e6), 0.2 + 4.0 + 0.4);
}

#[test]
fn more_work_never_costs_less() {
    for device in catalogue().unwrap() {
        let mut last = 0.0;
        for exponent in 0..10 {
            let cost = predict(&facts(10_f64.powi(exponent)), &device, &Surroundings::default());
            assert!(
                cost.total_ms >= last && cost.total_ms.is_finite(),
                "{} at 1e{exponent}",
                device.id
            );
            last = cost.total_ms;
        }
    }
}

#[test]
fn rows_between_devices_go_by_way_of_the_host() {
    let host = device("cpu-2c");
    let mut gpu = device("gpu-h200");
    let link = |rate: f64| {
        Some(Link {
            bytes_per_second_by_bytes: Curve::flat(rate),
            latency_ms: 0.1,
        })
    };
    gpu.upload = link(1e9);
    gpu.download = link(2e9);
    gpu.sync_ms = 0.25;
    near(transfer(1e6, Some(&host), Some(&gpu)).total_ms, 1.1);
    near(transfer(1e6, Some(&gpu), None).total_ms, 0.25 + 0.6);
    near(transfer(1e6, Some(&gpu), Some(&gpu)).total_ms, 0.25 + 0.6 + 1.1);
    near(transfer(1e6, Some(&host), None).total_ms, 0.0);
}

#[test]
fn a_correction_leaves_waits_alone() {
    let gpu = device("gpu-h200");
    let around = Surroundings {
        warm: false,
        queue_ms: 5.0,
        ..Surroundings::default()
    };
    let bare = predict(&facts(1e6), &gpu, &around);
    let twice = bare.corrected(2.0, 0.1, 0.0);
    let ran_ms = bare.total_ms - bare.queue_ms - bare.compile_ms;
    near(twice.total_ms, bare.total_ms + ran_ms);
    near(twice.sigma_ms, ran_ms * 0.2);
    near(
        twice.joules / bare.joules,
        (twice.total_ms - 5.0) / (bare.total_ms - 5.0),
    );
}

/// The larger over the smaller of predicted and observed times of recorded fragments of at least `ms_min`, ascending.
fn recorded_errors(ms_min: f64) -> Vec<f64> {
    let mut errors = Vec::new();
    for text in [
        include_str!("../../testdata/tpch.json"),
        include_str!("../../testdata/ssb.json"),
        include_str!("../../testdata/clickbench.json"),
    ] {
        for query in Workload::from_json(text).unwrap().queries {
            for run in &query.runs {
                for (needs, ran) in run.facts(&query).fragments.iter().zip(&run.fragments) {
                    let predicted = predict(needs, &crate::catalogue::reference(), &Surroundings::default());
                    let ratio = predicted.total_ms / ran.ms;
                    if ran.ms >= ms_min {
                        errors.push(ratio.max(1.0 / ratio));
                    }
                }
            }
        }
    }
    errors.sort_by(f64::total_cmp);
    errors
}

#[test]
fn recorded_fragments_took_what_is_predicted() {
    for (ms_min, most) in [(0.03, (1.6, 5.0)), (0.1, (1.5, 4.0)), (1.0, (1.5, 3.0))] {
        let errors = recorded_errors(ms_min);
        let (median, p95) = (errors[errors.len() / 2], errors[errors.len() * 95 / 100]);
        println!(
            "{} fragments of {ms_min} ms and more: median {median:.2}, p95 {p95:.2}",
            errors.len()
        );
        assert!(median <= most.0 && p95 <= most.1, "{ms_min} ms: {median} {p95}");
    }
}
