//! Programs that were lowered before: deciding where a graph runs lowers it, and running it would lower it again.
//!
//! A program is the same when its graph is (the same, not an equal one: cached plans keep theirs), its parameters, what is
//! known of its source, and the programs that it reads from.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use trireme_device_api::{FragmentId, Graph, Source, Value};
use trireme_device_codegen::shape::{ColumnShape, ScanShape};
use trireme_device_codegen::{Bound, Hints, Input, Program, Target, lower};

use crate::kernels::Loaded;

/// Programs that are kept.
const KEPT_MAX: usize = 256;

/// A lowered fragment, or why it is none.
pub(crate) struct Lowered {
    number: u64,
    known: Option<Known>,
    /// The program, or the reason.
    pub(crate) program: Result<Program, String>,
    /// Its module, once it was loaded.
    pub(crate) module: OnceLock<Arc<Loaded>>,
    /// Somebody compiles it in the background.
    pub(crate) warming: AtomicBool,
    /// The program as data, once it was wanted; none when it can't be.
    pub(crate) data: OnceLock<Option<Program>>,
}

/// What a program was made from.
struct Known {
    graph: Arc<Graph>,
    id: FragmentId,
    parameters: Vec<Value>,
    hints: Hints,
    source: Option<ScanShape>,
    /// Numbers of the programs that it reads from.
    inputs: Vec<u64>,
}

impl Known {
    fn is(&self, other: &Known) -> bool {
        Arc::ptr_eq(&self.graph, &other.graph)
            && self.id == other.id
            && self.hints == other.hints
            && self.inputs == other.inputs
            && self.parameters == other.parameters
            && match (&self.source, &other.source) {
                (None, None) => true,
                (Some(left), Some(right)) => same_scan(left, right),
                _ => false,
            }
    }
}

fn same_scan(left: &ScanShape, right: &ScanShape) -> bool {
    left.rows == right.rows
        && left.segments == right.segments
        && left.columns.len() == right.columns.len()
        && left
            .columns
            .iter()
            .zip(&right.columns)
            .all(|(left, right)| same_column(left, right))
}

fn same_column(left: &ColumnShape, right: &ColumnShape) -> bool {
    let same_dictionary = match (&left.dictionary, &right.dictionary) {
        (None, None) => true,
        (Some(left), Some(right)) => Arc::ptr_eq(left, right),
        _ => false,
    };
    same_dictionary
        && left.data_type == right.data_type
        && left.storage == right.storage
        && left.nullable == right.nullable
        && left.range == right.range
        && left.clustered == right.clustered
}

/// The lowered fragments of a graph so far.
pub(crate) type Lineage = Vec<Option<Arc<Lowered>>>;

/// What runs of a graph's fragment have found out.
struct Learned {
    graph: Arc<Graph>,
    id: FragmentId,
    hints: Hints,
}

/// Lowered fragments, the latest last.
#[derive(Default)]
pub(crate) struct Programs {
    kept: Mutex<VecDeque<Arc<Lowered>>>,
    learned: Mutex<VecDeque<Learned>>,
    next: AtomicU64,
}

impl Programs {
    /// Lowers a fragment, or finds that it was. `lineage` holds what the outputs in `bound` were lowered to, where they were.
    pub(crate) fn lower(
        &self,
        graph: &Arc<Graph>,
        id: FragmentId,
        bound: &Bound<'_>,
        lineage: &Lineage,
        target: Target,
    ) -> Arc<Lowered> {
        let known = known(graph, id, bound, lineage);
        if let Some(known) = &known {
            let kept = self.kept.lock();
            let mut same = kept.iter().rev();
            let same = same.find(|kept| kept.known.as_ref().is_some_and(|kept| kept.is(known)));
            if let Some(same) = same {
                return Arc::clone(same);
            }
        }
        // A bug there costs the fragment its device, and nobody else anything.
        let program = match catch_unwind(AssertUnwindSafe(|| lower(graph, id, bound, target))) {
            Ok(lowered) => lowered.map_err(|reason| reason.0),
            Err(_) => Err("lowering it panicked".to_owned()),
        };
        let keep = known.is_some();
        let lowered = Arc::new(Lowered {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            known,
            program,
            module: OnceLock::new(),
            warming: AtomicBool::new(false),
            data: OnceLock::new(),
        });
        if keep {
            let mut kept = self.kept.lock();
            if kept.len() >= KEPT_MAX {
                kept.pop_front();
            }
            kept.push_back(Arc::clone(&lowered));
        }
        lowered
    }

    /// What an earlier run of the fragment found out, so that the next doesn't run twice too.
    pub(crate) fn hints(&self, graph: &Arc<Graph>, id: FragmentId) -> Hints {
        let learned = self.learned.lock();
        let found = learned
            .iter()
            .find(|learned| learned.id == id && Arc::ptr_eq(&learned.graph, graph));
        found.map_or_else(Hints::default, |learned| learned.hints)
    }

    /// Notes what a run found out, beside what others of the same graph do at the same time.
    pub(crate) fn learn(&self, graph: &Arc<Graph>, id: FragmentId, note: impl FnOnce(&mut Hints)) {
        let mut learned = self.learned.lock();
        let known = learned
            .iter()
            .position(|learned| learned.id == id && Arc::ptr_eq(&learned.graph, graph));
        let known = known.and_then(|at| learned.remove(at));
        let mut hints = known.map_or_else(Hints::default, |known| known.hints);
        note(&mut hints);
        if learned.len() >= KEPT_MAX {
            learned.pop_front();
        }
        learned.push_back(Learned {
            graph: Arc::clone(graph),
            id,
            hints,
        });
    }

    /// Forgets all.
    pub(crate) fn clear(&self) {
        self.learned.lock().clear();
        self.kept.lock().clear();
    }
}

/// What the program would be made from; none when that can't be told by name.
fn known(graph: &Arc<Graph>, id: FragmentId, bound: &Bound<'_>, lineage: &Lineage) -> Option<Known> {
    let fragment = &graph.fragments[id];
    let mut source = match &fragment.source {
        Source::Scan(index) => bound.scans.get(*index).cloned(),
        Source::Stream(index) => bound.streams.get(*index)?.clone(),
        Source::Fragment(_) => None,
    };
    let mut inputs = Vec::new();
    for read in fragment.inputs() {
        match (&lineage[read], &bound.outputs[read]) {
            (Some(lowered), _) => inputs.push(lowered.number),
            (None, Some(Input::Segments(shape))) if fragment.source == Source::Fragment(read) => {
                source = Some(shape.clone());
            }
            _ => return None,
        }
    }
    Some(Known {
        graph: Arc::clone(graph),
        id,
        parameters: bound.parameters.to_vec(),
        hints: bound.hints,
        source,
        inputs,
    })
}
