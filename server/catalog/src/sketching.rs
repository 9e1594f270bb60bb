//! Tables that are analysed unasked: when CREATE EXTERNAL TABLE registers them, and when a statement uses one whose files
//! nobody analysed as they are now.
//!
//! ```text
//!  registered ─┐
//!  used ───────┴─▶ queue ─▶ one thread that yields to all others ─▶ local? few bytes? ─▶ ANALYZE, kept like any other
//! ```
//!
//! The thread touches no store: a read under way there is shared with statements, and belongs to the runtime that began it.
//! Nobody waits for it, and whatever goes wrong is only noted: the table may be gone meanwhile. The thread ends with the queue.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt;
use parking_lot::Mutex;
use trireme_exec::io::Access;
use trireme_exec::statistics::file_scan;
use trireme_planner::ddl::{FileFormat, TableName};

use crate::catalog::Catalog;
use crate::discover::FoundKind;
use crate::error::CatalogError;
use crate::resolve::Source;

/// Tables that may wait; others wait for a later statement.
const QUEUE_MAX: usize = 256;
/// Tables of which statistics are kept, before no more are analysed unasked.
const TABLES_MAX: usize = 1_000;
/// A table whose files change all the time is analysed no more often.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// What one table may take.
const TIME_MAX: Duration = Duration::from_secs(60);

/// The queue, and what came of it.
#[derive(Debug, Default)]
pub(crate) struct Sketching {
    state: Mutex<State>,
    done: AtomicU64,
    left: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<TableName>,
    /// Its thread is there.
    works: bool,
    /// When tables were analysed, or looked at and left, last.
    last: HashMap<TableName, Instant>,
}

/// Totals, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SketchCounts {
    /// Tables that were analysed unasked.
    pub done: u64,
    /// Tables that were not: too large, not Parquet, in a store, or gone.
    pub left: u64,
}

impl Sketching {
    /// A table is being analysed or looked at: what uses it meanwhile asks for nothing.
    pub(crate) fn began(&self, table: &TableName) {
        let mut state = self.state.lock();
        if state.last.len() >= TABLES_MAX {
            state.last.retain(|_, at| at.elapsed() < AGAIN_AFTER);
        }
        state.last.insert(table.clone(), Instant::now());
    }

    fn counts(&self) -> SketchCounts {
        SketchCounts {
            done: self.done.load(Ordering::Relaxed),
            left: self.left.load(Ordering::Relaxed),
        }
    }
}

impl Catalog {
    /// Tables that were analysed unasked, so far.
    pub fn sketch_counts(&self) -> SketchCounts {
        self.sketching.counts()
    }

    /// A new table is analysed in the background.
    pub(crate) fn sketch_registered(&self, table: &TableName) {
        self.sketch_later(table);
    }

    /// A statement reads a table. `looked` is of the table's files in their present state: they are looked at once.
    pub(crate) fn sketch_used(&self, table: &TableName, looked: &AtomicBool) {
        let on_use = self.sketches.get().is_some_and(|options| options.sketch_on_use);
        if !on_use || looked.load(Ordering::Relaxed) {
            return;
        }
        let signature = self.tables.lock().get(table).map(|cached| cached.signature.clone());
        let is_known = signature.is_some_and(|signature| self.is_fresh(table, &signature));
        if is_known || self.sketch_later(table) {
            looked.store(true, Ordering::Relaxed);
        }
    }

    /// False when it has to be asked again later.
    fn sketch_later(&self, table: &TableName) -> bool {
        let most = self.sketches.get().map_or(0, |options| options.sketch_below_bytes);
        let Some(catalog) = self.this.upgrade().filter(|_| most > 0) else {
            return true;
        };
        let mut state = self.sketching.state.lock();
        let is_recent = state.last.get(table).is_some_and(|at| at.elapsed() < AGAIN_AFTER);
        if is_recent || state.queue.len() >= QUEUE_MAX {
            return false;
        }
        if state.queue.contains(table) {
            return true;
        }
        state.queue.push_back(table.clone());
        if !state.works {
            let work = move || catalog.sketch_all();
            let begun = std::thread::Builder::new().name("sketch".to_owned()).spawn(work);
            state.works = begun.is_ok();
        }
        true
    }

    /// The thread's work.
    fn sketch_all(&self) {
        let _works = Works(&self.sketching);
        if let Some(options) = self.sketches.get() {
            (options.yields)();
        }
        // Of its own, so that all that it starts has this thread's priority.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        loop {
            let mut state = self.sketching.state.lock();
            let (Some(table), Ok(runtime)) = (state.queue.pop_front(), &runtime) else {
                state.works = false;
                return;
            };
            drop(state);
            let sketch = async { tokio::time::timeout(TIME_MAX, self.sketch(&table)).await };
            let left = match runtime.block_on(AssertUnwindSafe(sketch).catch_unwind()) {
                Ok(Ok(Ok(None))) => {
                    self.sketching.done.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                Ok(Ok(Ok(Some(reason)))) => reason.to_owned(),
                Ok(Ok(Err(error))) => error.to_string(),
                Ok(Err(_)) => "it took too long".to_owned(),
                Err(_) => "its reader panicked".to_owned(),
            };
            self.sketching.left.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%table, reason = %left, "a table is not analysed unasked");
        }
    }

    /// Analyses a table of few bytes; else says why it doesn't.
    async fn sketch(&self, name: &TableName) -> Result<Option<&'static str>, CatalogError> {
        self.sketching.began(name);
        let (Some(options), Some(source)) = (self.sketches.get(), self.source(name)?) else {
            return Ok(Some("it is gone"));
        };
        if matches!(source, Source::View(_)) {
            return Ok(Some("it is a view"));
        }
        if !self.is_local(&source)? {
            return Ok(Some("its files are in a store"));
        }
        let signature = self.listing(name, &source).await?.signature;
        if self.is_fresh(name, &signature) {
            return Ok(Some("it was analysed meanwhile"));
        }
        if !is_delta(&source) && signature.bytes > options.sketch_below_bytes {
            return Ok(Some("it is large"));
        }
        if !self.statistics.read().has_room(name, TABLES_MAX) {
            self.prune_statistics().await;
            if !self.statistics.read().has_room(name, TABLES_MAX) {
                return Ok(Some("statistics of too many tables are kept"));
            }
        }
        let Some(table) = self.table(name, None).await? else {
            return Ok(Some("it is gone"));
        };
        let session = Arc::clone(&self.session);
        let plan = table.scan(session.as_ref(), None, &[], None).await?;
        let Some(scan) = file_scan(&plan) else {
            return Ok(Some("it is not Parquet files"));
        };
        if !scan.object_store_url.as_str().starts_with("file:") {
            return Ok(Some("its files are in a store"));
        }
        let mut sizes = HashMap::new();
        for file in scan.file_groups.iter().flat_map(|group| group.files()) {
            sizes.insert(&file.object_meta.location, file.object_meta.size);
        }
        if sizes.values().sum::<u64>() > options.sketch_below_bytes {
            return Ok(Some("it is large"));
        }
        self.analyze(&session, name).await?;
        Ok(None)
    }

    fn is_local(&self, source: &Source) -> Result<bool, CatalogError> {
        let Source::External(external) = source else {
            return Ok(true);
        };
        let location = self.locations.resolve(&external.location, Access::Read)?;
        Ok(location.path.is_some())
    }
}

/// Its listing is that of its log, which says nothing of its files' bytes.
fn is_delta(source: &Source) -> bool {
    match source {
        Source::Managed(_) => true,
        Source::External(external) => external.format == FileFormat::Delta,
        Source::Discovered(found) => found.kind == FoundKind::Delta,
        Source::View(_) => false,
    }
}

/// Lets another thread begin when this one panics. One that ends says so while it holds the queue.
struct Works<'a>(&'a Sketching);

impl Drop for Works<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.state.lock().works = false;
        }
    }
}
