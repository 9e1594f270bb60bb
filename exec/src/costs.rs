//! What running fragments costs on this machine's devices, and where the cost model would put them.
//!
//! Keeps the devices' profiles (measured ones are files of a folder, others come from the catalogue) and what was learned from
//! runs. [`trireme_costs`] has the formulas and the search; here plans, devices and settings become its arguments.

mod judged;
mod measure;
pub(crate) mod watch;

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};
use trireme_costs::calibrate::{self, Effort, Machine, Runner};
use trireme_costs::catalogue;
use trireme_costs::residual::Model;
use trireme_costs::{
    Candidate, Decision, Environment, Facts, Known, Library, Objective, PlaceError, Profile, Provenance as Measured,
    Rows, RowsFrom, ScanFacts,
};
use trireme_device_api::{
    Device, DeviceInfo, FragmentId, FragmentReport, Graph, Inputs, ScanInput, ScanSource, Source, Support, Value,
    Variant, Vitals,
};

use crate::load::Load;
use crate::operators::{Expected, FileScan, FragmentPlan, Provenance};

pub use judged::Judged;
pub use measure::{Measured as MeasuredDevice, Told};

/// What was learned, in the folder of profiles.
const LIBRARY_FILE: &str = "models.json";
/// Files written, so that no two are written under one name.
static WRITES: AtomicU64 = AtomicU64::new(0);
/// Strings of more values are not codes.
const DICTIONARY_MAX: f64 = 1e6;

/// The machine's cost model.
pub struct CostModel {
    folder: Option<PathBuf>,
    machine: Machine,
    host: Option<Arc<dyn Variant>>,
    processor: RwLock<Profile>,
    others: RwLock<Vec<Profile>>,
    /// What was last taken of devices that nobody measured.
    taken: RwLock<HashMap<String, Profile>>,
    library: Mutex<Arc<Library>>,
    learns: bool,
    /// Something was learned that the folder doesn't have.
    unsaved: AtomicBool,
    saving: Mutex<()>,
    measuring: Mutex<()>,
    told: Told,
    judged: Mutex<judged::Ring>,
    resteers: bool,
    co_executes: bool,
}

/// A fragment that ran: what it was expected to be and what it was.
pub struct Observed {
    /// Number of the run.
    pub run: u64,
    /// The fragment.
    pub fragment: FragmentId,
    /// Device's id.
    pub device: String,
    /// Variant.
    pub variant: &'static str,
    /// Time.
    pub ms: f64,
    /// Counts.
    pub report: FragmentReport,
}

/// A device at the moment when a graph is placed.
pub(crate) struct Situation {
    pub(crate) device: Arc<dyn Device>,
    /// As the device says of the bound graph; none until it was asked, which takes longer than the rest.
    pub(crate) support: Option<Vec<Support>>,
    /// By scan: the share that is in its memory.
    pub(crate) resident: Vec<f64>,
    /// By scan: time in which the host decodes what it lacks.
    pub(crate) decode_ms: Vec<f64>,
    /// Why it is no candidate.
    pub(crate) left_out: Option<&'static str>,
}

/// The processor at that moment.
pub(crate) struct Here<'a> {
    pub(crate) variant: &'a Arc<dyn Variant>,
    /// What is claimed of all devices.
    pub(crate) load: &'a Load,
    /// By scan: time in which it decodes what isn't decoded.
    pub(crate) decode_ms: Vec<f64>,
}

/// Segments of a scan that are looked at for what is decoded; of more, so many of them.
const SEGMENTS_LOOKED_AT: usize = 32;

impl<'a> Here<'a> {
    /// With nothing to decode.
    pub(crate) fn unbound(variant: &'a Arc<dyn Variant>, load: &'a Load) -> Self {
        Self {
            variant,
            load,
            decode_ms: Vec::new(),
        }
    }

    /// Of a bound graph.
    pub(crate) fn bound(variant: &'a Arc<dyn Variant>, load: &'a Load, inputs: &Inputs) -> Self {
        let decode_ms = |scan: &Arc<dyn ScanInput>| {
            let step = scan.segments().div_ceil(SEGMENTS_LOOKED_AT).max(1);
            let (mut sum_ns, mut longest_ns) = (0.0, 0.0_f64);
            for segment in (0..scan.segments()).step_by(step) {
                for column in 0..scan.columns().len() {
                    let ns = scan.decode_ns(segment, column);
                    sum_ns += ns * step as f64;
                    longest_ns = longest_ns.max(ns);
                }
            }
            // Workers decode column by column.
            (sum_ns / inputs.workers.max(1) as f64).max(longest_ns) / 1e6
        };
        Self {
            decode_ms: inputs.scans.iter().map(decode_ms).collect(),
            ..Self::unbound(variant, load)
        }
    }
}

impl Situation {
    /// Of a graph that isn't bound.
    pub(crate) fn unbound(device: &Arc<dyn Device>) -> Self {
        Self {
            device: Arc::clone(device),
            support: None,
            resident: Vec::new(),
            decode_ms: Vec::new(),
            left_out: None,
        }
    }

    /// Of a bound graph of which the host has so much to decode.
    pub(crate) fn bound(device: &Arc<dyn Device>, inputs: &Inputs, host: &Here<'_>) -> Self {
        let resident = device.variant().resident(inputs);
        let lacks = |(scan, ms): (usize, &f64)| (1.0 - resident.get(scan).unwrap_or(&0.0)) * ms;
        Self {
            decode_ms: host.decode_ms.iter().enumerate().map(lacks).collect(),
            resident,
            ..Self::unbound(device)
        }
    }
}

impl CostModel {
    /// Profiles and models of a folder, as far as they hold for this machine; the catalogue's where nothing was measured.
    pub fn open(folder: Option<PathBuf>, processor: &DeviceInfo, workers: usize, learns: bool) -> Self {
        let read = |name: &str| {
            let path = folder.as_ref()?.join(name);
            std::fs::read_to_string(path).ok()
        };
        let machine = machine(processor, workers);
        let measured = read(&file_of(&processor.id)).and_then(|text| Profile::from_json(&text).ok());
        let measured = measured.filter(|profile| profile.holds_for(&machine.id, &machine.name, &machine.driver));
        let measured = measured.filter(|profile| profile.workers == machine.workers);
        let library = read(LIBRARY_FILE).and_then(|text| Library::from_json(&text).ok());
        Self {
            processor: RwLock::new(measured.unwrap_or_else(|| machine.base())),
            machine,
            host: None,
            folder,
            others: RwLock::default(),
            taken: RwLock::default(),
            library: Mutex::new(Arc::new(library.unwrap_or_default())),
            learns,
            unsaved: AtomicBool::new(false),
            saving: Mutex::default(),
            measuring: Mutex::default(),
            told: Told::default(),
            judged: Mutex::default(),
            resteers: true,
            co_executes: true,
        }
    }

    /// Whether running graphs are placed anew when they run otherwise than expected.
    #[must_use]
    pub fn with_resteer(self, resteers: bool) -> Self {
        Self { resteers, ..self }
    }

    /// Whether fragments may be shared by the processor and a device.
    #[must_use]
    pub fn with_co_execution(self, co_executes: bool) -> Self {
        Self { co_executes, ..self }
    }

    pub(crate) fn co_executes(&self) -> bool {
        self.co_executes
    }

    pub(crate) fn resteers(&self) -> bool {
        self.resteers
    }

    /// True when the processor's rates are those of this machine, not assumed.
    pub fn is_measured(&self) -> bool {
        self.processor.read().provenance == Measured::Measured
    }

    /// For whoever measures devices, until it is dropped: two at once would measure each other. Waits for its turn.
    pub fn measuring(&self) -> MutexGuard<'_, ()> {
        self.measuring.lock()
    }

    /// The same; none when another one measures.
    pub fn try_measuring(&self) -> Option<MutexGuard<'_, ()>> {
        self.measuring.try_lock()
    }

    /// Measures the processor, which takes seconds of all its cores, and keeps the profile.
    ///
    /// # Errors
    /// When it can't be written; it is used all the same.
    pub fn calibrate(&self, effort: Effort) -> std::io::Result<Profile> {
        let mut runner = self.host_runner();
        let runner = runner.as_mut().map(|runner| runner as &mut dyn Runner);
        let profile = self.powered(calibrate::processor(&self.machine, runner, effort), effort);
        self.set_profile(profile.clone())?;
        Ok(self.told.applied(profile))
    }

    /// The profiles in use, the processor's first.
    pub fn profiles(&self) -> Vec<Profile> {
        let processor = self.processor.read().clone();
        std::iter::once(processor)
            .chain(self.others.read().iter().cloned())
            .collect()
    }

    /// Takes a measured profile; it is kept in the folder.
    ///
    /// # Errors
    /// When it can't be written; it is used all the same.
    pub fn set_profile(&self, profile: Profile) -> std::io::Result<()> {
        let text = profile.to_json().map_err(std::io::Error::other)?;
        let name = file_of(&profile.id);
        // The file keeps what was measured; what is told may change.
        let profile = self.told.applied(profile);
        if profile.is_host() {
            *self.processor.write() = profile;
        } else {
            let mut others = self.others.write();
            others.retain(|other| other.id != profile.id);
            others.push(profile);
        }
        self.write(&name, &text)
    }

    fn write(&self, name: &str, text: &str) -> std::io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        std::fs::create_dir_all(folder)?;
        let (process, number) = (std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed));
        let fresh = folder.join(format!("{name}.{process}-{number}.new"));
        let write = || {
            let mut file = File::create(&fresh)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&fresh, folder.join(name))
        };
        write().inspect_err(|_| drop(std::fs::remove_file(&fresh)))
    }

    /// What was learned: (model, what it says), for `system.models`.
    pub fn models(&self) -> Vec<(String, Model)> {
        let library = self.library.lock();
        library
            .models()
            .map(|(key, model)| (key.to_owned(), model.clone()))
            .collect()
    }

    /// The profile of a device beside the processor; none where nothing like it is known.
    fn profile_of(&self, info: &DeviceInfo, vitals: &Vitals) -> Option<Profile> {
        if let Some(measured) = self.kept(info) {
            return Some(measured);
        }
        // What the device has measured of itself changes as it works.
        let profile = self.told.applied(catalogue::of_device(info, vitals)?);
        self.taken.write().insert(profile.id.clone(), profile.clone());
        Some(profile)
    }

    /// What a plan's fragments need; counts come before what was expected.
    pub(crate) fn facts_of(plan: &FragmentPlan, counted: &Known) -> Facts {
        let expected = plan.expectations.rows(&plan.graph, &plan.parameters, &[]);
        facts(&plan.graph, &plan.scans, &plan.parameters, &expected, counted)
    }

    /// Where a plan's fragments would run, among devices as they are at this moment.
    ///
    /// # Errors
    /// When the objective's bounds or pins can't be kept.
    pub(crate) fn decide(
        &self,
        graph: &Graph,
        facts: &Facts,
        host: &Here<'_>,
        situations: &[Situation],
        objective: &Objective,
    ) -> Result<Decision, PlaceError> {
        let load = host.load;
        let processor = self.processor.read().clone();
        let others: Vec<_> = situations
            .iter()
            .filter(|situation| situation.left_out.is_none())
            .filter_map(|situation| {
                let vitals = situation.device.vitals();
                Some((self.profile_of(&situation.device.info(), &vitals)?, situation, vitals))
            })
            .collect();
        let mut candidates = vec![candidate(&processor, host.variant, graph)];
        candidates[0].others_ms = load.of(&processor.id).left_ms;
        candidates[0].decode_ms.clone_from(&host.decode_ms);
        for (profile, situation, vitals) in &others {
            let mut other = candidate(profile, &situation.device.variant(), graph);
            if let Some(support) = &situation.support {
                other.support.clone_from(support);
            }
            other.resident.clone_from(&situation.resident);
            other.decode_ms.clone_from(&situation.decode_ms);
            let taken = load.of(&profile.id);
            // What others claim and don't hold yet is taken too.
            let held = vitals.used_bytes as f64 - vitals.columns_bytes as f64;
            other.free_bytes = (profile.memory_bytes - held.max(taken.bytes)).max(0.0);
            other.others_ms = taken.left_ms;
            candidates.push(other);
        }
        let library = Arc::clone(&self.library.lock());
        let environment = Environment {
            library: Some(&library),
            ..Environment::default()
        };
        trireme_costs::place(graph, facts, &candidates, &environment, objective)
    }

    /// As [`CostModel::decide`], with devices of the catalogue beside this processor: they are taken to support what it does.
    ///
    /// # Errors
    /// When the catalogue has no such device, or nothing can be placed.
    pub fn what_if(
        &self,
        plan: &FragmentPlan,
        host: &Arc<dyn Variant>,
        names: &[String],
        objective: &Objective,
    ) -> Result<(Facts, Decision), String> {
        let known = catalogue::catalogue().map_err(|error| error.to_string())?;
        let of = |name: &String| {
            let found = known.iter().find(|profile| profile.id == *name && !profile.is_host());
            found.ok_or_else(|| {
                let ids = known
                    .iter()
                    .filter(|profile| !profile.is_host())
                    .map(|profile| profile.id.as_str());
                format!(
                    "the catalogue has no device \"{name}\"; it has {}",
                    ids.collect::<Vec<_>>().join(", ")
                )
            })
        };
        let profiles = names.iter().map(of).collect::<Result<Vec<_>, _>>()?;
        let graph = &plan.graph;
        let expected = plan.expectations.rows(graph, &plan.parameters, &[]);
        let facts = facts(graph, &plan.scans, &plan.parameters, &expected, &Known::default());
        let processor = self.processor.read().clone();
        let candidates = std::iter::once(&processor).chain(profiles);
        let candidates: Vec<_> = candidates.map(|profile| candidate(profile, host, graph)).collect();
        let decision = trireme_costs::place(graph, &facts, &candidates, &Environment::default(), objective);
        Ok((facts, decision.map_err(|error| error.to_string())?))
    }

    /// Learns from a run on the processor or a device.
    pub fn learn(&self, plan: &FragmentPlan, observed: &[Observed]) {
        if !self.learns || observed.is_empty() {
            return;
        }
        let graph = &plan.graph;
        let mut known = Known::default();
        for seen in observed {
            let Some(fragment) = graph.fragments.get(seen.fragment) else {
                continue;
            };
            if let Some(rows) = seen.report.output_rows {
                known.outputs.insert(seen.fragment, Rows::exact(rows as f64));
            }
            if let (Some(rows), steps @ 1..) = (seen.report.sink_rows, fragment.steps.len()) {
                known.steps.insert((seen.fragment, steps), Rows::exact(rows as f64));
            }
        }
        let expected = plan.expectations.rows(graph, &plan.parameters, &[]);
        let counted = facts(graph, &plan.scans, &plan.parameters, &expected, &known);
        let hoped = facts(graph, &plan.scans, &plan.parameters, &expected, &Known::default());
        let mut profiles = self.profiles();
        profiles.extend(self.taken.read().values().cloned());
        let mut library = self.library.lock();
        // Neither what was interpreted nor what was compiled meanwhile says anything of compiled kernels.
        for lesson in self.judge(graph, observed, &profiles, (&counted, &hoped), &library) {
            let seen = &observed[lesson.seen];
            if let Some(needs) = counted.fragments.get(seen.fragment) {
                Arc::make_mut(&mut library).learn(&seen.device, seen.variant, needs, &lesson.bare, lesson.own_ms);
            }
        }
        self.unsaved.store(true, Ordering::Release);
    }

    /// Writes what was learned since the last time, if anything was.
    ///
    /// # Errors
    /// When that can't be written; the next call tries again.
    pub fn save(&self) -> std::io::Result<()> {
        let _one = self.saving.lock();
        if !self.unsaved.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let library = Arc::clone(&self.library.lock());
        self.keep(library.to_json().map_err(std::io::Error::other))
    }

    /// Writes what was learned, or remembers that it is unsaved.
    fn keep(&self, text: std::io::Result<String>) -> std::io::Result<()> {
        let saved = text.and_then(|text| self.write(LIBRARY_FILE, &text));
        saved.inspect_err(|_| self.unsaved.store(true, Ordering::Release))
    }

    /// Forgets what was learned, in the folder too.
    ///
    /// # Errors
    /// When that can't be written; the next [`CostModel::save`] tries again.
    pub fn forget(&self) -> std::io::Result<()> {
        let _one = self.saving.lock();
        let mut library = self.library.lock();
        Arc::make_mut(&mut library).reset("");
        self.unsaved.store(false, Ordering::Release);
        let text = library.to_json().map_err(std::io::Error::other);
        drop(library);
        self.keep(text)
    }
}

fn file_of(id: &str) -> String {
    format!("{id}.json")
}

fn read_profile(folder: &Path, id: &str) -> Option<Profile> {
    Profile::from_json(&std::fs::read_to_string(folder.join(file_of(id))).ok()?).ok()
}

fn candidate<'a>(profile: &'a Profile, variant: &Arc<dyn Variant>, graph: &Graph) -> Candidate<'a> {
    let support: Vec<Support> = (0..graph.fragments.len())
        .map(|id| variant.support(graph, id))
        .collect();
    Candidate {
        variant: variant.name(),
        support,
        ..Candidate::new(profile)
    }
}

fn machine(processor: &DeviceInfo, workers: usize) -> Machine {
    Machine {
        id: processor.id.clone(),
        name: processor.name.clone(),
        workers: u32::try_from(workers.max(1)).unwrap_or(u32::MAX),
        memory_bytes: processor.memory_bytes as f64,
        ..Machine::this()
    }
}

/// What a graph's fragments need; counts come before what planner expected.
fn facts(graph: &Graph, scans: &[FileScan], parameters: &[Value], expected: &[Expected], counted: &Known) -> Facts {
    let mut known = Known::default();
    let mut streams = vec![Rows::guessed(1.0); graph.streams.len()];
    for (id, expected) in expected.iter().enumerate() {
        let rows = |rows: f64| Rows {
            rows,
            from: rows_from(expected.provenance),
        };
        for (step, after) in expected.step_rows.iter().enumerate() {
            known.steps.insert((id, step + 1), rows(*after));
        }
        known.outputs.insert(id, rows(expected.output_rows));
        if let Some(Source::Stream(stream)) = graph.fragments.get(id).map(|fragment| &fragment.source) {
            streams[*stream] = rows(expected.source_rows);
        }
    }
    known.steps.extend(counted.steps.iter().map(|(at, rows)| (*at, *rows)));
    known
        .outputs
        .extend(counted.outputs.iter().map(|(id, rows)| (*id, *rows)));
    let scans: Vec<ScanFacts> = graph.scans.iter().zip(scans).map(scan_facts).collect();
    Facts::of(graph, &scans, &streams, parameters, &known)
}

fn rows_from(provenance: Provenance) -> RowsFrom {
    match provenance {
        Provenance::Exact => RowsFrom::Exact,
        Provenance::Feedback => RowsFrom::Feedback,
        Provenance::Sketch | Provenance::Cache | Provenance::Bounds => RowsFrom::Sketch,
        Provenance::Sample => RowsFrom::Sample,
        Provenance::Default => RowsFrom::Default,
    }
}

fn scan_facts((source, scan): (&ScanSource, &FileScan)) -> ScanFacts {
    let mut facts = ScanFacts::of(source, scan.statistics.rows);
    let known = facts
        .columns
        .iter_mut()
        .zip(&scan.statistics.columns)
        .zip(&scan.columns);
    for ((column, known), of) in known {
        column.distinct = known.distinct;
        column.range = known.range.filter(|_| of.data_type.is_integral());
        if let Some((low, high)) = column.range {
            column.carrier_bytes = carrier_bytes(high - low);
            column.encoded_bytes = column.encoded_bytes.min(column.carrier_bytes);
        } else if of.data_type.is_bytes() && known.distinct.is_some_and(|distinct| distinct < DICTIONARY_MAX) {
            column.dictionary_entries = known.distinct;
            column.carrier_bytes = known.distinct.map_or(4.0, carrier_bytes);
        }
    }
    facts
}

/// Bytes of the carrier of values that are so far apart.
fn carrier_bytes(spread: f64) -> f64 {
    match spread {
        ..=255.0 => 1.0,
        ..=65_535.0 => 2.0,
        ..=4_294_967_295.0 => 4.0,
        _ => 8.0,
    }
}
