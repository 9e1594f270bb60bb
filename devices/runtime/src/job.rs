//! A run from its loaded columns to its outputs, on a thread of the device.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use trireme_device_api::{DeviceError, FragmentId, FragmentReport, Output, Reservation, Rows, Sink};
use trireme_device_codegen::shape::Storage;
use trireme_device_codegen::{Hints, Program, ProgramOutput};

use crate::executor::{Job, Ran};
use crate::fills::{Brought, Columns, Fills, Plan, Resident};
use crate::held::Held;
use crate::kernels::{Loaded, Took};
use crate::memory::Memory;
use crate::programs::Lowered;
use crate::resident::{DeviceBuild, DeviceRows, Source};
use crate::run::{Run, Verdict};
use crate::task::Task;
use crate::texts::Texts;
use crate::tier::Kernels;
use crate::warming;

/// Tries without room on an empty device after which a run gives up: one may have ended in between.
const ALONE: u32 = 4;

/// Why columns were decoded on the host after all.
const UNDECODED: &str = "pages that the device could not decode";

/// What a run left.
pub(crate) struct Outcome {
    /// Outputs that others read.
    pub(crate) outputs: Vec<(FragmentId, Output)>,
    /// The result, when the graph's last fragment was among them, and its memory.
    pub(crate) result: Option<(Arc<Rows>, Reservation)>,
}

/// What a run tells whoever waits for it.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) outcome: Option<Result<Outcome, DeviceError>>,
    pub(crate) reports: Vec<(FragmentId, FragmentReport)>,
}

/// A run.
pub(crate) struct RunJob {
    pub(crate) task: Task,
    /// Let go when they have memory in the device.
    pub(crate) columns: Mutex<Columns>,
    pub(crate) fills: Fills,
    attempt: Mutex<Attempt>,
    pub(crate) told: Mutex<Told>,
    /// How long the host loaded columns.
    pub(crate) load_ns: AtomicU64,
    /// Nobody waits any more.
    pub(crate) abandoned: AtomicBool,
}

/// A program that can be launched.
pub(crate) struct Ready {
    lowered: Arc<Lowered>,
    pub(crate) module: Arc<Loaded>,
    /// It runs as data, and `module` is the runner.
    is_data: bool,
}

impl Ready {
    fn program(&self) -> Option<&Program> {
        match self.is_data {
            true => self.lowered.data.get()?.as_ref(),
            false => self.lowered.program.as_ref().ok(),
        }
    }
}

/// How a try ended.
enum Ended {
    Well(Outcome),
    NoRoom,
    /// Fragments (by position) need so many entries.
    TooSmall(Vec<(usize, u64)>),
}

/// What tries have found out.
struct Attempt {
    hints: Vec<Hints>,
    programs: Option<Vec<Arc<Lowered>>>,
    plan: Option<Plan>,
    reports: Vec<FragmentReport>,
    retries: u32,
    /// What it reads was swapped out and in, so that free memory adjoins.
    moved: bool,
    /// Tries one after another that found no room though nothing was used.
    alone: u32,
}

impl RunJob {
    /// Without columns yet.
    pub(crate) fn new(task: Task) -> Self {
        let hints = task.ids.iter().map(|id| task.core.hints(&task.graph, *id));
        let attempt = Attempt {
            hints: hints.collect(),
            programs: None,
            plan: None,
            reports: vec![FragmentReport::default(); task.ids.len()],
            retries: 0,
            moved: false,
            alone: 0,
        };
        Self {
            task,
            columns: Mutex::default(),
            fills: Fills::default(),
            attempt: Mutex::new(attempt),
            told: Mutex::default(),
            load_ns: AtomicU64::new(0),
            abandoned: AtomicBool::new(false),
        }
    }

    /// Whether it holds memory of the device already.
    pub(crate) fn holds(&self) -> bool {
        self.task.held().next().is_some()
    }

    /// Fails when nobody waits any more.
    ///
    /// # Errors
    /// [`DeviceError::Cancelled`], [`DeviceError::Device`].
    pub(crate) fn check(&self) -> Result<(), DeviceError> {
        if self.abandoned.load(Ordering::SeqCst) {
            return Err(DeviceError::Cancelled);
        }
        self.task.check()
    }

    /// None: there is no room.
    fn attempt(&self, attempt: &mut Attempt) -> Result<Option<Outcome>, DeviceError> {
        loop {
            self.check()?;
            let ready = self.ready(attempt)?;
            let Some(pins) = self.task.pin()? else {
                return Ok(None);
            };
            attempt.reports[0].restored_bytes += pins.iter().map(|pin| pin.bytes).sum::<u64>();
            if attempt.plan.is_none() && self.task.core.limits.chunk_bytes.is_none() {
                attempt.plan = Plan::new(&self.task, &self.columns.lock())?;
            }
            let programs: Vec<_> = ready.iter().filter_map(Ready::program).collect();
            let mut memory = None;
            if attempt.plan.is_some() {
                memory = Memory::allocate(&self.task, &programs)?;
            }
            if memory.is_none() {
                // Without its columns there may be room for the rest of it.
                attempt.plan = None;
                memory = Memory::allocate(&self.task, &programs)?;
            }
            let Some(memory) = memory else {
                if pins.is_empty() || std::mem::replace(&mut attempt.moved, true) {
                    return Ok(None);
                }
                // What it reads may lie in the middle of the only room: once, it comes back to another place.
                drop(pins);
                self.task.core.swap_out(u64::MAX)?;
                continue;
            };
            let mut run = Run::new(&self.task, programs, &ready, memory);
            let finished = match &mut attempt.plan {
                Some(plan) => {
                    self.columns.lock().clear();
                    let finished = self.run_all(&mut run, plan);
                    finished.map(|finished| Some((finished, plan.tables.clone())))
                }
                None => self.run_staged(&mut run).and_then(|texts| match texts {
                    Some(texts) => Ok(Some((run.finish()?, texts))),
                    None => Ok(None),
                }),
            };
            let ended = finished.and_then(|finished| match finished {
                None => Ok(Ended::NoRoom),
                Some(((Verdict::Fine, front), tables)) => self.outcome(&mut run, &tables, &front).map(Ended::Well),
                Some(((Verdict::Capacity(needed), _), _)) => Ok(Ended::TooSmall(needed)),
            });
            for ((report, more), ready) in attempt.reports.iter_mut().zip(&run.reports).zip(&ready) {
                add(report, more);
                if ready.is_data {
                    self.task.core.ran_as_data(&ready.lowered, more.kernel_ns);
                }
            }
            drop(run);
            drop(pins);
            if !self.pages_were_fine(attempt, ended.is_ok())? {
                continue;
            }
            match ended? {
                Ended::Well(outcome) => return Ok(Some(outcome)),
                Ended::NoRoom => return Ok(None),
                Ended::TooSmall(needed) => self.again(attempt, &needed)?,
            }
        }
    }

    /// False when the device met pages that it could not decode, or had no room for them: then the run was for nothing, and the
    /// host decodes them for the next one.
    fn pages_were_fine(&self, attempt: &mut Attempt, ended_well: bool) -> Result<bool, DeviceError> {
        let (fine, syncs) = match self.fills.decoding.lock().verify(&self.task.core) {
            Ok(verified) => verified,
            // The run's own error says more.
            Err(_) if !ended_well => return Ok(true),
            Err(error) => return Err(error),
        };
        let Some(report) = attempt.reports.first_mut() else {
            return Ok(true);
        };
        report.syncs += syncs;
        if !fine {
            *report.host_decoded.entry(UNDECODED).or_default() += 1;
            attempt.plan = None;
            for column in self.columns.lock().iter_mut().flatten().flatten() {
                if matches!(column, Some(Brought::Encoded(_))) {
                    *column = None;
                }
            }
        }
        Ok(fine)
    }

    /// Queues all fragments, each after its columns, and waits.
    fn run_all(&self, run: &mut Run<'_>, plan: &mut Plan) -> Result<(Verdict, Vec<u8>), DeviceError> {
        run.begin(&plan.tables)?;
        for (position, id) in self.task.ids.iter().enumerate() {
            self.check()?;
            if let Some(table) = self.task.table_index(*id) {
                let began = Instant::now();
                let copied = self
                    .fills
                    .run(&self.task.core, plan.take_fills(table), true, &|| self.wake())?;
                let staging = run.copied(position, copied, nanoseconds(began));
                run.hold(staging);
            }
            run.queue(position)?;
        }
        run.finish()
    }

    pub(crate) fn wake(&self) {
        if let Some(wake) = &self.task.inputs.wake {
            wake();
        }
    }

    /// Copies a column for the run, if one waits.
    pub(crate) fn help(&self) -> bool {
        self.fills.help(&self.task.core)
    }

    /// Lowers the fragments; gives how many modules there are to compile.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] with the reason.
    pub(crate) fn lower(&self) -> Result<usize, DeviceError> {
        let mut attempt = self.attempt.lock();
        let programs = self.task.lower(&attempt.hints)?;
        let count = programs.len();
        attempt.programs = Some(programs);
        Ok(count)
    }

    /// Compiles the module of the fragment at a position, in this thread, unless it is known.
    ///
    /// # Errors
    /// Those of the driver.
    pub(crate) fn compile(&self, position: usize) -> Result<(), DeviceError> {
        let lowered = self
            .attempt
            .lock()
            .programs
            .as_ref()
            .map(|all| Arc::clone(&all[position]));
        let Some(lowered) = lowered else { return Ok(()) };
        if self.task.core.as_data(&lowered)?.is_some() {
            return Ok(());
        }
        let (_, took) = self.module(&lowered)?;
        let report = &mut self.attempt.lock().reports[position];
        report.compiled += u32::from(took.compiled);
        report.compile_ns += took.ns;
        Ok(())
    }

    /// Notes why a column of a table is decoded on the host.
    pub(crate) fn decoded_on_host(&self, table: usize, reason: &'static str) {
        let reads = |id: &FragmentId| self.task.table_index(*id) == Some(table);
        let position = self.task.ids.iter().position(reads).unwrap_or(0);
        if let Some(report) = self.attempt.lock().reports.get_mut(position) {
            *report.host_decoded.entry(reason).or_default() += 1;
        }
    }

    fn module(&self, lowered: &Lowered) -> Result<(Arc<Loaded>, Took), DeviceError> {
        let kernels = &self.task.core.kernels;
        match (lowered.module.get(), &lowered.program) {
            (Some(module), _) => {
                kernels.cached.fetch_add(1, Ordering::Relaxed);
                Ok((Arc::clone(module), Took::default()))
            }
            (None, Ok(program)) => {
                let (module, took) = kernels.get(&program.module)?;
                Ok((Arc::clone(lowered.module.get_or_init(|| module)), took))
            }
            (None, Err(reason)) => Err(DeviceError::Unsupported(reason.clone())),
        }
    }

    /// The programs with their modules.
    fn ready(&self, attempt: &mut Attempt) -> Result<Vec<Ready>, DeviceError> {
        let programs = match &attempt.programs {
            Some(programs) => programs.clone(),
            None => self.task.lower(&attempt.hints)?,
        };
        attempt.programs = Some(programs.clone());
        let mut ready = Vec::new();
        for (lowered, report) in programs.into_iter().zip(&mut attempt.reports) {
            let data = self.task.core.as_data(&lowered)?;
            report.interpreted = data.is_some();
            let (module, is_data) = match (data, lowered.module.get()) {
                (Some(runner), _) => (runner, true),
                (None, Some(module)) => (Arc::clone(module), false),
                (None, None) => {
                    let (module, took) = self.module(&lowered)?;
                    report.compiled += u32::from(took.compiled);
                    report.compile_ns += took.ns;
                    (module, false)
                }
            };
            ready.push(Ready {
                lowered,
                module,
                is_data,
            });
        }
        if self.task.core.limits.kernels == Kernels::Auto {
            let data = ready.iter().filter(|ready| ready.is_data);
            let cold = data.map(|ready| Arc::clone(&ready.lowered)).collect();
            warming::compile(&self.task.core, cold, Vec::new());
        }
        Ok(ready)
    }

    /// Larger tables for the next try.
    fn again(&self, attempt: &mut Attempt, needed: &[(usize, u64)]) -> Result<(), DeviceError> {
        attempt.retries += 1;
        if attempt.retries > self.task.core.limits.retries {
            return Err(DeviceError::OutOfMemory(format!(
                "a table of the device was still too small after {} tries",
                attempt.retries
            )));
        }
        attempt.programs = None;
        for (position, needed) in needed {
            let hint = &mut attempt.hints[*position];
            let doubled = hint.capacity.unwrap_or(0).saturating_mul(2);
            let capacity = Some(doubled.max(*needed).max(1024));
            hint.capacity = capacity;
            let (core, graph, id) = (&self.task.core, &self.task.graph, self.task.ids[*position]);
            core.programs
                .learn(graph, id, |known| known.capacity = known.capacity.max(capacity));
            attempt.reports[*position].retries += 1;
        }
        Ok(())
    }

    fn outcome(&self, run: &mut Run<'_>, tables: &[Resident], front: &[u8]) -> Result<Outcome, DeviceError> {
        let task = &self.task;
        let wanted = task.wanted();
        let last = task.graph.fragments.len() - 1;
        let texts = run.texts(tables);
        run.count_rows(front)?;
        for position in run.large(front)? {
            task.core.learn_large(&task.graph, task.ids[position]);
        }
        for (id, report) in task.ids.iter().zip(&run.reports) {
            let groups =
                matches!(&task.graph.fragments[*id].sink, Sink::Aggregate { groups, .. } if !groups.is_empty());
            if let Some(rows) = report.output_rows.filter(|_| groups) {
                task.core.learn_groups(&task.graph, *id, rows);
            }
        }
        let mut outcome = Outcome {
            outputs: Vec::new(),
            result: None,
        };
        for (position, id) in task.ids.iter().enumerate().filter(|(position, _)| wanted[*position]) {
            match &run.programs[position].output {
                ProgramOutput::Rows(rows) => {
                    let count = run.count(rows.count, front)?;
                    if count > rows.bound {
                        let most = rows.bound;
                        return Err(DeviceError::Internal(format!("{count} rows where at most {most} are")));
                    }
                    if *id == last {
                        outcome.result = Some(self.result(run, position, count, &texts, front)?);
                        continue;
                    }
                    let resident = DeviceRows {
                        held: self.held(run, position, &texts),
                        fields: task.graph.fragments[*id].output.clone(),
                        rows: rows.clone(),
                        count,
                        pool: Arc::clone(&task.inputs.pool),
                        reserved: Mutex::default(),
                    };
                    outcome.outputs.push((*id, Output::Resident(Arc::new(resident))));
                }
                ProgramOutput::Build(shape) => {
                    let table = Arc::new(DeviceBuild {
                        held: self.held(run, position, &texts),
                        shape: shape.clone(),
                    });
                    outcome.outputs.push((*id, Output::Build { table, rows: 0 }));
                }
            }
        }
        Ok(outcome)
    }

    /// What an output keeps.
    fn held(&self, run: &Run<'_>, position: usize, texts: &Texts) -> Arc<Held> {
        // Without handles nothing of the columns is kept.
        let has_texts = match &run.programs[position].output {
            ProgramOutput::Rows(rows) => {
                let mut columns = rows.columns.iter();
                columns.any(|column| column.shape.storage == Storage::Handles)
            }
            ProgramOutput::Build(_) => true,
        };
        let (places, blocks) = run.kept(position);
        let texts = if has_texts { texts.clone() } else { Texts::default() };
        Held::new(&self.task.core, &places, blocks, texts, &self.task.inputs.pool)
    }

    /// The graph's result, in the host's memory.
    fn result(
        &self,
        run: &mut Run<'_>,
        position: usize,
        count: u64,
        texts: &Texts,
        front: &[u8],
    ) -> Result<(Arc<Rows>, Reservation), DeviceError> {
        let task = &self.task;
        let fields = &task.graph.fragments[task.ids[position]].output;
        let ProgramOutput::Rows(rows) = &run.programs[position].output else {
            return Err(DeviceError::Internal("the last fragment leaves no rows".to_owned()));
        };
        let mut reservation = Reservation::new(&task.inputs.pool);
        let began = Instant::now();
        let download = |source: Source<'_>| -> Result<_, DeviceError> {
            let rows = source.download(rows, fields, count, &mut reservation)?;
            Ok((rows, source.syncs.get(), source.bytes.get()))
        };
        let (rows, syncs, bytes) = run.with_source(texts, front, download)?;
        let report = &mut run.reports[position];
        report.copy_ns += nanoseconds(began);
        report.syncs += syncs;
        report.downloaded_bytes += bytes;
        Ok((Arc::new(rows), reservation))
    }

    fn tell(&self, outcome: Result<Outcome, DeviceError>) {
        if let Err(error) = &outcome {
            self.task.core.note(error);
        }
        let mut reports = std::mem::take(&mut self.attempt.lock().reports);
        if let Some(last) = reports.last_mut() {
            last.load_ns = self.load_ns.load(Ordering::SeqCst);
        }
        let mut told = self.told.lock();
        told.reports = self.task.ids.iter().copied().zip(reports).collect();
        told.outcome = Some(outcome);
        drop(told);
        self.wake();
    }

    /// Nobody else has used memory at several tries: waiting gives no more room.
    fn is_alone(&self, attempt: &mut Attempt) -> bool {
        if self.task.core.arena.used() > 0 {
            attempt.alone = 0;
        } else {
            attempt.alone += 1;
        }
        attempt.alone >= ALONE
    }

    fn no_room(&self) -> DeviceError {
        let arena = &self.task.core.arena;
        DeviceError::OutOfMemory(format!(
            "no room on {} for {} bytes: {} of {} bytes are used, limited by {}",
            self.task.core.driver.info().device.id,
            self.task.core.refused.load(Ordering::Relaxed),
            arena.used(),
            arena.bytes(),
            self.task.core.limits.setting
        ))
    }
}

pub(crate) fn nanoseconds(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn add(report: &mut FragmentReport, more: &FragmentReport) {
    report.uploaded_bytes += more.uploaded_bytes;
    report.encoded_bytes += more.encoded_bytes;
    report.decoded_bytes += more.decoded_bytes;
    report.downloaded_bytes += more.downloaded_bytes;
    report.launches += more.launches;
    report.syncs += more.syncs;
    report.copy_ns += more.copy_ns;
    report.kernel_ns += more.kernel_ns;
    report.input_rows = more.input_rows;
    report.output_rows = more.output_rows;
}

impl Job for RunJob {
    fn run(&self, last: bool) -> Ran {
        let outcome = {
            let mut attempt = self.attempt.lock();
            // Whoever waits must hear of it, whatever happens.
            match catch_unwind(AssertUnwindSafe(|| self.attempt(&mut attempt))) {
                Ok(Ok(None)) if !last && !self.is_alone(&mut attempt) => return Ran::Again,
                Ok(Ok(None)) => Err(self.no_room()),
                Ok(Ok(Some(outcome))) => Ok(outcome),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(DeviceError::Internal("a run panicked".to_owned())),
            }
        };
        {
            // What it held is free before anybody hears of its end.
            let mut attempt = self.attempt.lock();
            (attempt.plan, attempt.programs) = (None, None);
            self.columns.lock().clear();
        };
        self.tell(outcome);
        Ran::Done
    }
}
