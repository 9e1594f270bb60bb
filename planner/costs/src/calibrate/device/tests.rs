//! A device that takes the times of hidden rates is measured.

use std::collections::HashSet;

use trireme_device_api::DeviceState;

use super::*;
use crate::facts::{ColumnFacts, Known, ScanFacts};
use crate::predict::transfer;

/// Takes as long as the formulas say of a profile that nobody is told.
struct Hidden {
    profile: Profile,
    known: HashSet<u64>,
    runs: usize,
}

/// What a graph needs, as far as its tables tell.
pub(in crate::calibrate) fn facts_of(graph: &Graph, inputs: &Inputs) -> Facts {
    let of = |scan: &Arc<dyn trireme_device_api::ScanInput>| {
        let rows = (0..scan.segments()).map(|segment| scan.rows(segment)).sum::<usize>() as f64;
        let columns = (0..scan.columns().len()).map(|column| {
            let loaded = scan.load(0, column).unwrap();
            let profile = &scan.columns()[column];
            let bytes = loaded.size_bytes() as f64 / loaded.rows as f64;
            let mut facts = ColumnFacts::of_type(&profile.data_type);
            facts.carrier_bytes = bytes;
            facts.range = profile.range.map(|(low, high)| (low as f64, high as f64));
            // Wide keys are few values of a wide range.
            facts.distinct = Some(match profile.range {
                Some((_, high)) if high >= 1 << 40 => (loaded.rows as f64 / 2.0).min(1_024.0),
                Some((low, high)) => ((high - low + 1) as f64).min(rows),
                None => 1.0,
            });
            facts
        });
        ScanFacts {
            rows: crate::facts::Rows::exact(rows),
            columns: columns.collect(),
        }
    };
    let scans: Vec<_> = inputs.scans.iter().map(of).collect();
    Facts::of(graph, &scans, &[], &[], &Known::default())
}

impl Hidden {
    /// Bytes of columns that were not here before.
    fn fresh_bytes(&mut self, inputs: &Inputs) -> f64 {
        let mut bytes = 0;
        for scan in &inputs.scans {
            for segment in 0..scan.segments() {
                for column in 0..scan.columns().len() {
                    if self.known.insert(scan.identity(segment, column).unwrap()) {
                        bytes += scan.load(segment, column).unwrap().size_bytes();
                    }
                }
            }
        }
        bytes as f64
    }
}

impl Runner for Hidden {
    fn run(&mut self, graph: &Arc<Graph>, inputs: &Inputs) -> Result<Ran, DeviceError> {
        let facts = facts_of(graph, inputs);
        let around = Surroundings {
            device_share: 1.0,
            ..Surroundings::default()
        };
        let each = facts
            .fragments
            .iter()
            .map(|facts| predict(facts, &self.profile, &around).total_ms);
        let worked_ms: f64 = each.sum();
        let output = facts.fragments.last().map_or(0.0, |facts| facts.output_bytes);
        let fresh = self.fresh_bytes(inputs);
        let moved =
            transfer(fresh, None, Some(&self.profile)).total_ms + transfer(output, Some(&self.profile), None).total_ms;
        self.runs += 1;
        let report = FragmentReport {
            launches: 3,
            compiled: u32::from(self.runs == 1),
            compile_ns: if self.runs == 1 { 5_000_000 } else { 0 },
            ..FragmentReport::default()
        };
        Ok(Ran {
            ms: worked_ms + moved,
            fragments_ms: Vec::new(),
            reports: vec![report; graph.fragments.len()],
        })
    }
}

/// A device whose kernels do nothing, or which is gone.
struct Idle {
    fails: bool,
}

impl Runner for Idle {
    fn run(&mut self, _graph: &Arc<Graph>, _inputs: &Inputs) -> Result<Ran, DeviceError> {
        match self.fails {
            true => Err(DeviceError::Device("gone".to_owned())),
            false => Ok(Ran::default()),
        }
    }
}

fn info() -> DeviceInfo {
    DeviceInfo {
        id: "hidden0".to_owned(),
        kind: DeviceKind::Gpu,
        name: "NVIDIA T4".to_owned(),
        state: DeviceState::Ready,
        cores: 40,
        memory_bytes: 16_000_000_000,
        features: vec!["driver 550.1".to_owned()],
    }
}

fn hidden() -> Profile {
    let profile = catalogue::of_device(&info(), &Vitals::default()).unwrap();
    let mut profile = catalogue::scaled(&profile, 0.02);
    profile.operations.simple_per_second *= 0.1;
    profile.operations.hashes_per_second *= 0.2;
    profile.start_ms = 0.2;
    profile.sync_ms = 0.4;
    profile.memory_bytes_per_second_max = 1e12;
    profile.upload = profile.upload.map(|_| Link {
        bytes_per_second_by_bytes: Curve::flat(2e9),
        latency_ms: 0.1,
    });
    profile.download = profile.upload.clone().map(|link| Link {
        latency_ms: 0.0,
        ..link
    });
    profile
}

fn near(what: &str, found: f64, wanted: f64, factor: f64) {
    let ratio = (found / wanted).max(wanted / found);
    assert!(ratio < factor, "{what}: {found:.3e} is not {wanted:.3e}");
}

#[test]
fn hidden_rates_are_found() {
    let wanted = hidden();
    let mut runner = Hidden {
        profile: wanted.clone(),
        known: HashSet::new(),
        runs: 0,
    };
    let found = accelerator(&info(), &Vitals::default(), &mut runner, "test", Effort::Full).unwrap();
    found.check().unwrap();
    assert_eq!(found.provenance, Provenance::Measured);
    assert!(found.measured_unix_s.is_some());
    let stream = |profile: &Profile| profile.stream_bytes_per_second_by_carrier_bytes.at(4.0);
    near("stream", stream(&found), stream(&wanted), 1.2);
    let (operations, hidden) = (&found.operations, &wanted.operations);
    near("simple", operations.simple_per_second, hidden.simple_per_second, 1.2);
    near("hashes", operations.hashes_per_second, hidden.hashes_per_second, 1.5);
    near("divisions", operations.wide_per_second, hidden.wide_per_second, 1.5);
    let update = |profile: &Profile| profile.group_updates_per_second_by_groups.at(1e3);
    near("updates", update(&found), update(&wanted), 1.5);
    let random = |profile: &Profile| profile.random_accesses_per_second_by_footprint_bytes.at(524_288.0);
    near("look-ups", random(&found), random(&wanted), 1.5);
    let waits = |profile: &Profile| profile.start_ms + profile.launches * profile.launch_ms + profile.sync_ms;
    near("start and wait", waits(&found), waits(&wanted), 1.2);
    let up = |profile: &Profile| profile.upload.as_ref().unwrap().bytes_per_second_by_bytes.at(1e7);
    near("upload", up(&found), up(&wanted), 1.2);
    let down = |profile: &Profile| profile.download.as_ref().unwrap().bytes_per_second_by_bytes.at(8e6);
    near("download", down(&found), down(&wanted), 1.5);
    assert!(
        found.compile_ms_by_nodes.at(1.0) < 20.0,
        "{:?}",
        found.compile_ms_by_nodes
    );
    let text = found.to_json().unwrap();
    assert_eq!(
        Profile::from_json(&text).unwrap().measured_unix_s,
        found.measured_unix_s
    );
}

#[test]
fn a_profile_holds_for_one_machine_and_driver() {
    let mut runner = Hidden {
        profile: hidden(),
        known: HashSet::new(),
        runs: 0,
    };
    let found = accelerator(&info(), &Vitals::default(), &mut runner, "test", Effort::Quick).unwrap();
    assert!(found.driver.contains("driver 550.1") && found.driver.contains("test"));
    assert!(found.holds_for("hidden0", "NVIDIA T4", &driver_of(&info(), "test")));
    assert!(!found.holds_for("hidden0", "NVIDIA T4", &driver_of(&info(), "another machine")));
}

#[test]
fn a_device_that_does_nothing_ends_in_time() {
    let began = Instant::now();
    // Nothing takes time there: whatever is said of it must be possible.
    if let Ok(found) = accelerator(
        &info(),
        &Vitals::default(),
        &mut Idle { fails: false },
        "test",
        Effort::Quick,
    ) {
        found.check().unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

#[test]
fn a_device_that_fails_is_not_measured() {
    let mut gone = Idle { fails: true };
    let error = accelerator(&info(), &Vitals::default(), &mut gone, "", Effort::Quick).unwrap_err();
    assert!(error.to_string().contains("gone"), "{error}");
}

#[test]
fn rates_are_solved_for_and_bounded() {
    let ratio = solve(|ratio| 10.0 / ratio, 5.0);
    assert!((ratio - 2.0).abs() < 1e-3, "{ratio}");
    // What remains is more than what was measured: the rate only must not matter.
    let ratio = solve(|ratio| 10.0 + 1.0 / ratio, 5.0);
    assert!((0.5..10.0).contains(&ratio), "{ratio}");
}

#[test]
fn links_have_a_latency_and_rates() {
    let base = hidden().upload.unwrap();
    let ms = |bytes: f64| (bytes, 0.1 + bytes / 2e9 * 1e3);
    let link = linked(base.clone(), &[ms(65_536.0), ms(1e6), ms(1.6e7)]);
    near("latency", link.latency_ms, 0.1, 1.1);
    near("rate", link.bytes_per_second_by_bytes.at(1e7), 2e9, 1.1);
    assert_eq!(linked(base.clone(), &[]), base);
}
