//! Graphs of variants that only count, and of some that fail, come late, or leave rows where only they can read them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use trireme_device_api::{
    BuildSide, Cost, Fragment, GRAPH_VERSION, JoinKind, Probe, Resident, Sink, Source, Step, Support, Unlimited,
    Workload,
};

use super::*;
use crate::pool::WorkerPool;

const STEPS: usize = 40;

/// Notes what is prepared with which inputs there, and what ends.
#[derive(Default)]
pub(crate) struct Noted {
    prepared: Mutex<Vec<(FragmentId, Vec<bool>)>>,
    finished: Mutex<Vec<FragmentId>>,
    fails: Option<FragmentId>,
}

#[derive(Default)]
pub(crate) struct Counting(Arc<Noted>);

struct Steps {
    id: FragmentId,
    left: AtomicUsize,
    inside: AtomicUsize,
    noted: Arc<Noted>,
}

impl Variant for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn device(&self) -> &str {
        "test0"
    }

    fn support(&self, _graph: &Graph, _fragment: FragmentId) -> Support {
        Support::Supported
    }

    fn estimate(&self, _graph: &Graph, _fragment: FragmentId, _workload: &Workload) -> Cost {
        Cost::default()
    }

    fn prepare(
        &self,
        _graph: &Arc<Graph>,
        fragment: FragmentId,
        _inputs: &Inputs,
        outputs: &[Option<Output>],
    ) -> Result<Arc<dyn Kernel>, DeviceError> {
        let there = outputs.iter().map(Option::is_some).collect();
        self.0.prepared.lock().push((fragment, there));
        Ok(Arc::new(Steps {
            id: fragment,
            left: AtomicUsize::new(STEPS),
            inside: AtomicUsize::new(0),
            noted: Arc::clone(&self.0),
        }))
    }
}

impl Kernel for Steps {
    fn step(&self, _worker: usize) -> Result<Progress, DeviceError> {
        self.inside.fetch_add(1, Ordering::SeqCst);
        std::thread::yield_now();
        let left = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        self.inside.fetch_sub(1, Ordering::SeqCst);
        match left {
            Ok(_) if self.noted.fails == Some(self.id) => Err(DeviceError::Arithmetic("overflow".to_owned())),
            Ok(_) => Ok(Progress::More),
            Err(_) => Ok(Progress::Done),
        }
    }

    fn finish(&self) -> Result<Output, DeviceError> {
        assert_eq!(
            self.inside.load(Ordering::SeqCst),
            0,
            "finished while a worker is inside"
        );
        self.noted.finished.lock().push(self.id);
        Ok(Output::Rows(Arc::new(Rows::default())))
    }
}

/// Each fragment reads the ones listed.
fn graph(reads: &[&[FragmentId]]) -> Arc<Graph> {
    let fragment = |builds: &&[FragmentId]| Fragment {
        source: Source::Scan(0),
        steps: builds
            .iter()
            .map(|build| {
                Step::Probe(Probe {
                    build: *build,
                    kind: JoinKind::Inner,
                    keys: Vec::new(),
                    residual: None,
                    null_equals_null: false,
                    null_aware: false,
                })
            })
            .collect(),
        sink: Sink::Emit { limit: None, offset: 0 },
        output: Vec::new(),
    };
    Arc::new(Graph {
        version: GRAPH_VERSION,
        fragments: reads.iter().map(fragment).collect(),
        scans: Vec::new(),
        streams: Vec::new(),
        parameters: Vec::new(),
        output: Vec::new(),
    })
}

fn inputs(pool: &WorkerPool, cancelled: &Arc<AtomicBool>) -> Inputs {
    Inputs {
        scans: Vec::new(),
        streams: Vec::new(),
        parameters: Vec::new(),
        workers: pool.workers(),
        pool: Arc::new(Unlimited),
        cancelled: Arc::clone(cancelled),
        batch_rows: 8192,
        emit: None,
        wake: None,
    }
}

async fn run(reads: &[&[FragmentId]], noted: &Arc<Noted>) -> Result<(), DeviceError> {
    let pool = WorkerPool::new(3).unwrap();
    let cancelled = Arc::new(AtomicBool::new(false));
    let inputs = inputs(&pool, &cancelled);
    let hooks = Hooks {
        wake: pool.waker(),
        took: Box::new(|_| {}),
        begun: Box::new(|| false),
        steer: None,
    };
    let graph = graph(reads);
    let variant: Arc<dyn Variant> = Arc::new(Counting(Arc::clone(noted)));
    let kernel = GraphKernel::new(&graph, inputs, Placement::single(&graph, &variant), &variant, hooks);
    let kernel = Arc::new(kernel);
    pool.run(Arc::clone(&kernel) as _, &cancelled).await?;
    kernel.finish().map(drop)
}

#[tokio::test]
async fn each_fragment_is_finished_once_after_those_it_reads() {
    let reads: [&[FragmentId]; 6] = [&[], &[], &[0], &[0, 1], &[2], &[3, 4]];
    for _ in 0..50 {
        let noted = Arc::new(Noted::default());
        run(&reads, &noted).await.unwrap();
        let mut finished = noted.finished.lock().clone();
        let place = |id: FragmentId| finished.iter().position(|other| *other == id);
        for (id, inputs) in reads.iter().enumerate() {
            assert!(inputs.iter().all(|input| place(*input) < place(id)), "{finished:?}");
        }
        finished.sort_unstable();
        assert_eq!(finished, [0, 1, 2, 3, 4, 5]);
        for (id, there) in noted.prepared.lock().iter() {
            assert!(reads[*id].iter().all(|input| there[*input]), "{id}: {there:?}");
        }
        // The last reads 3 and 4 only: what they were made from is gone.
        let last = noted.prepared.lock().last().cloned().unwrap();
        assert_eq!(last, (5, vec![false, false, false, true, true, false]));
    }
}

#[tokio::test]
async fn a_failing_fragment_ends_the_graph() {
    let noted = Arc::new(Noted {
        fails: Some(1),
        ..Noted::default()
    });
    let failed = run(&[&[], &[0], &[1]], &noted).await;
    assert_eq!(failed, Err(DeviceError::Arithmetic("overflow".to_owned())));
    assert_eq!(*noted.finished.lock(), [0]);
}

/// What a fake device leaves stays in its memory, and may be lost.
struct FakeRows(Arc<AtomicBool>);

impl Resident for FakeRows {
    fn rows_max(&self) -> u64 {
        0
    }

    fn download(&self) -> Result<Arc<Rows>, DeviceError> {
        match self.0.load(Ordering::SeqCst) {
            true => Err(DeviceError::Device("gone".to_owned())),
            false => Ok(Arc::new(Rows::default())),
        }
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn std::any::Any + Send + Sync> {
        self
    }
}

/// A device of two steps a fragment.
#[derive(Default)]
struct Fake {
    name: &'static str,
    /// Fragments as they ended.
    ran: Mutex<Vec<FragmentId>>,
    /// Fails when one of these is stepped, once.
    fails: Mutex<Option<(FragmentId, DeviceError)>>,
    lost: Arc<AtomicBool>,
    /// What it was given for fragments: true is rows in the host's memory.
    given: Mutex<Vec<(FragmentId, bool)>>,
}

struct FakeKernel {
    device: Arc<Fake>,
    ids: Vec<FragmentId>,
    builds: Vec<FragmentId>,
    steps: AtomicUsize,
}

struct FakeVariant(Arc<Fake>);

impl Variant for FakeVariant {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn device(&self) -> &str {
        self.0.name
    }

    fn support(&self, _graph: &Graph, _fragment: FragmentId) -> Support {
        Support::Supported
    }

    fn estimate(&self, _graph: &Graph, _fragment: FragmentId, _workload: &Workload) -> Cost {
        Cost::default()
    }

    fn prepare_many(
        &self,
        graph: &Arc<Graph>,
        fragments: &[FragmentId],
        _inputs: &Inputs,
        outputs: &[Option<Output>],
    ) -> Result<Arc<dyn Kernel>, DeviceError> {
        for id in fragments {
            for input in graph.fragments[*id].inputs() {
                if !fragments.contains(&input) {
                    let output = outputs[input].as_ref().expect("its input is there");
                    self.0.given.lock().push((input, matches!(output, Output::Rows(_))));
                    if let Output::Build { table, .. } = output {
                        let made_by = table.downcast_ref::<String>().expect("a name");
                        assert_eq!(made_by, self.0.name, "a join table of another device");
                    }
                }
            }
        }
        let is_build = |id: &&FragmentId| matches!(graph.fragments[**id].sink, Sink::Build(_));
        Ok(Arc::new(FakeKernel {
            device: Arc::clone(&self.0),
            ids: fragments.to_vec(),
            builds: fragments.iter().filter(is_build).copied().collect(),
            steps: AtomicUsize::new(0),
        }))
    }

    fn prepare(
        &self,
        graph: &Arc<Graph>,
        fragment: FragmentId,
        inputs: &Inputs,
        outputs: &[Option<Output>],
    ) -> Result<Arc<dyn Kernel>, DeviceError> {
        self.prepare_many(graph, &[fragment], inputs, outputs)
    }
}

impl Kernel for FakeKernel {
    fn step(&self, _worker: usize) -> Result<Progress, DeviceError> {
        let mut fails = self.device.fails.lock();
        if fails.as_ref().is_some_and(|(id, _)| self.ids.contains(id)) {
            let (_, error) = fails.take().expect("it is there");
            self.device
                .lost
                .store(matches!(error, DeviceError::Device(_)), Ordering::SeqCst);
            return Err(error);
        }
        let done = self.steps.fetch_add(1, Ordering::SeqCst) > 0;
        Ok(if done { Progress::Done } else { Progress::More })
    }

    fn finish(&self) -> Result<Output, DeviceError> {
        let of = |id: &FragmentId| match (self.builds.contains(id), self.device.name) {
            (true, name) => Output::Build {
                table: Arc::new(name.to_owned()),
                rows: 0,
            },
            (false, "host") => Output::Rows(Arc::default()),
            (false, _) => Output::Resident(Arc::new(FakeRows(Arc::clone(&self.device.lost)))),
        };
        self.device.ran.lock().extend(&self.ids);
        match self.device.name {
            "host" => Ok(of(&self.ids[0])),
            _ => Ok(Output::Many(self.ids.iter().map(|id| (*id, of(id))).collect())),
        }
    }
}

/// (fragment, devices of all from then on).
type Turns = Mutex<Vec<(FragmentId, Vec<Option<Arc<dyn Variant>>>)>>;

/// Follows a script: once a fragment ended, or is about to start, the rest goes there.
struct Script {
    after: Turns,
    before: Turns,
    told: Mutex<Vec<Resteer>>,
}

impl Script {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            after: Mutex::default(),
            before: Mutex::default(),
            told: Mutex::default(),
        })
    }
}

fn record() -> Resteer {
    Resteer {
        run: 0,
        at: std::time::SystemTime::now(),
        since: Duration::ZERO,
        trigger: "a test".to_owned(),
        fallback: None,
        moved: true,
        before: Vec::new(),
        after: Vec::new(),
        stay_ms: None,
        go_ms: None,
    }
}

fn verdict(on: Vec<Option<Arc<dyn Variant>>>, lost: &[&str]) -> Verdict {
    Verdict {
        record: record(),
        seats: Seats {
            breaks: vec![false; on.len()],
            on,
            lost: lost.iter().map(|name| (*name).to_owned()).collect(),
            fallback: (!lost.is_empty()).then(|| "lost".to_owned()),
        },
    }
}

fn turn(turns: &Turns, unit: &Unit) -> Option<Verdict> {
    let mut turns = turns.lock();
    let at = turns.iter().position(|(id, _)| unit.fragments.contains(id))?;
    Some(verdict(turns.remove(at).1, &[]))
}

impl Steer for Script {
    fn starts(&self, unit: &Unit, _standing: &[Standing]) -> Result<Start, DeviceError> {
        Ok(turn(&self.before, unit).map_or(Start::Now, |verdict| Start::Anew(Box::new(verdict))))
    }

    fn steps(&self, _device: &str, _fragments: &[FragmentId]) -> Result<(), DeviceError> {
        Ok(())
    }

    fn busy_ms(&self, _device: &str) -> Option<f64> {
        None
    }

    fn shares(&self, _fragment: FragmentId, _device: &str, _expected_ms: f64) {}

    fn alone(&self, _fragment: FragmentId, _device: &str, _why: &str) {}

    fn held(&self, _device: &str, began: Instant) -> Option<Instant> {
        // Everything ends a little later, so that this is seen as well.
        Some(began + Duration::from_millis(2)).filter(|until| *until > Instant::now())
    }

    fn ended(&self, unit: &Unit, _rows: &[Option<u64>], _time: Duration, standing: &[Standing]) -> Option<Verdict> {
        assert!(unit.fragments.iter().all(|id| standing[*id] == Standing::Done));
        turn(&self.after, unit)
    }

    fn failed(&self, unit: &Unit, error: &DeviceError, standing: &[Standing]) -> Option<Verdict> {
        let lost = matches!(error, DeviceError::Device(_));
        let lost: &[&str] = if lost { &[unit.variant.device()] } else { &[] };
        Some(verdict(vec![None; standing.len()], lost))
    }

    fn tell(&self, record: Resteer) {
        self.told.lock().push(record);
    }
}

/// A host and a device, and a graph of which each fragment reads the ones listed; those of `builds` are join tables.
struct Bench {
    host: Arc<Fake>,
    device: Arc<Fake>,
    script: Arc<Script>,
    graph: Arc<Graph>,
}

impl Bench {
    fn new(reads: &[&[FragmentId]], builds: &[FragmentId]) -> Self {
        let mut graph = Arc::unwrap_or_clone(graph(reads));
        for id in builds {
            graph.fragments[*id].sink = Sink::Build(BuildSide {
                keys: Vec::new(),
                payload: Vec::new(),
            });
        }
        let fake = |name| {
            Arc::new(Fake {
                name,
                ..Fake::default()
            })
        };
        Self {
            host: fake("host"),
            device: fake("dev0"),
            script: Script::new(),
            graph: Arc::new(graph),
        }
    }

    fn on(&self, on_device: &[FragmentId]) -> Vec<Option<Arc<dyn Variant>>> {
        let device: Arc<dyn Variant> = Arc::new(FakeVariant(Arc::clone(&self.device)));
        (0..self.graph.fragments.len())
            .map(|id| on_device.contains(&id).then(|| Arc::clone(&device)))
            .collect()
    }

    /// What was prepared to run in the end, or the error.
    async fn run(&self, on_device: &[FragmentId], breaks: &[FragmentId], begun: bool) -> Result<(), DeviceError> {
        let pool = WorkerPool::new(3).unwrap();
        let cancelled = Arc::new(AtomicBool::new(false));
        let host: Arc<dyn Variant> = Arc::new(FakeVariant(Arc::clone(&self.host)));
        let count = self.graph.fragments.len();
        let breaks: Vec<bool> = (0..count).map(|id| breaks.contains(&id)).collect();
        let units = crate::placement::units(&self.graph, &vec![true; count], &self.on(on_device), &host, &breaks);
        let placement = Placement {
            units,
            reasons: vec![None; count],
            decided: None,
            helper: None,
            claim: None,
        };
        let hooks = Hooks {
            wake: pool.waker(),
            took: Box::new(|_| {}),
            begun: Box::new(move || begun),
            steer: Some(Arc::clone(&self.script) as _),
        };
        let inputs = inputs(&pool, &cancelled);
        let kernel = Arc::new(GraphKernel::new(&self.graph, inputs, placement, &host, hooks));
        pool.run(Arc::clone(&kernel) as _, &cancelled).await?;
        kernel.finish().map(drop)
    }

    fn ran(&self) -> (Vec<FragmentId>, Vec<FragmentId>) {
        let sorted = |fake: &Fake| {
            let mut ran = fake.ran.lock().clone();
            ran.sort_unstable();
            ran
        };
        (sorted(&self.host), sorted(&self.device))
    }

    fn fail(&self, id: FragmentId, error: DeviceError) {
        *self.device.fails.lock() = Some((id, error));
    }
}

fn lost() -> DeviceError {
    DeviceError::Device("gone".to_owned())
}

#[tokio::test]
async fn what_has_not_started_goes_to_the_device_and_back() {
    let bench = Bench::new(&[&[], &[0], &[1], &[2]], &[]);
    bench.script.after.lock().push((0, bench.on(&[1, 2])));
    bench.run(&[], &[], false).await.unwrap();
    assert_eq!(bench.ran(), (vec![0, 3], vec![1, 2]));
    assert_eq!(*bench.device.given.lock(), [(0, true)], "the host's rows are uploaded");
    assert!(
        bench.host.given.lock().contains(&(2, true)),
        "the device's rows are downloaded"
    );

    let bench = Bench::new(&[&[], &[0], &[1]], &[]);
    bench.script.after.lock().push((0, bench.on(&[0])));
    bench.run(&[0, 1, 2], &[0], false).await.unwrap();
    assert_eq!(bench.ran(), (vec![1, 2], vec![0]));
    assert_eq!(bench.script.told.lock().len(), 1);
}

#[tokio::test]
async fn a_unit_moves_as_it_is_about_to_start() {
    let bench = Bench::new(&[&[], &[0], &[1]], &[]);
    bench.script.before.lock().push((1, bench.on(&[0])));
    bench.run(&[0, 1], &[0], false).await.unwrap();
    assert_eq!(bench.ran(), (vec![1, 2], vec![0]));
}

#[tokio::test]
async fn what_ended_on_the_host_stays_when_the_device_is_lost() {
    // 1 reads 0 of the host; 2 fails when 1 is in the device's memory alone.
    for _ in 0..20 {
        let bench = Bench::new(&[&[], &[0], &[1], &[2]], &[]);
        bench.fail(2, lost());
        bench.run(&[1, 2], &[1], false).await.unwrap();
        assert_eq!(bench.ran(), (vec![0, 1, 2, 3], vec![1]));
    }
}

#[tokio::test]
async fn rows_that_can_be_downloaded_are_not_made_again() {
    let bench = Bench::new(&[&[], &[0], &[1], &[2]], &[]);
    bench.fail(2, DeviceError::OutOfMemory("full".to_owned()));
    bench.run(&[1, 2], &[1], false).await.unwrap();
    assert_eq!(bench.ran(), (vec![0, 2, 3], vec![1]));
    // A join table can't be: it is made again, from the rows that it was made of.
    let bench = Bench::new(&[&[], &[0], &[1], &[2]], &[1]);
    bench.fail(2, DeviceError::OutOfMemory("full".to_owned()));
    bench.run(&[1, 2], &[1], false).await.unwrap();
    assert_eq!(bench.ran(), (vec![0, 1, 2, 3], vec![1]));
}

#[tokio::test]
async fn a_device_that_is_lost_when_its_rows_are_fetched() {
    let bench = Bench::new(&[&[], &[0], &[1], &[]], &[]);
    bench.device.lost.store(true, Ordering::SeqCst);
    bench.run(&[0, 1], &[], false).await.unwrap();
    assert_eq!(bench.ran(), (vec![0, 1, 2, 3], vec![0, 1]));
}

#[tokio::test]
async fn a_value_s_fault_and_a_row_that_is_out_fail_the_graph() {
    let bench = Bench::new(&[&[], &[0]], &[]);
    let error = DeviceError::Arithmetic("overflow".to_owned());
    bench.fail(1, error.clone());
    assert_eq!(bench.run(&[0, 1], &[], false).await, Err(error));
    let bench = Bench::new(&[&[], &[0]], &[]);
    bench.fail(1, lost());
    assert_eq!(bench.run(&[0, 1], &[], true).await, Err(lost()));
    assert!(bench.script.told.lock().is_empty());
}

#[tokio::test]
async fn a_stream_that_was_read_is_not_read_again() {
    let streams = |bench: &mut Bench| {
        let mut graph = bench.graph.as_ref().clone();
        graph.fragments[0].source = Source::Stream(0);
        bench.graph = Arc::new(graph);
    };
    let mut bench = Bench::new(&[&[], &[0], &[1]], &[]);
    streams(&mut bench);
    bench.fail(0, lost());
    assert_eq!(bench.run(&[0, 1], &[], false).await, Err(lost()));
    // Its rows are the host's: only what follows runs again.
    let mut bench = Bench::new(&[&[], &[0], &[1]], &[]);
    streams(&mut bench);
    bench.fail(1, lost());
    bench.run(&[1, 2], &[], false).await.unwrap();
    assert_eq!(bench.ran().0, [0, 1, 2]);
}
