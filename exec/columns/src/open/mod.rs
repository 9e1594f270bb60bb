//! Opening the scans of a graph: footers, segments, bounds, what to fetch, and the dictionaries of string columns.
//!
//! ```text
//!  files ─▶ footers, all at once ─▶ drafts: segments that hold wanted rows ─▶ plan ─▶ one Prefetch over all scans
//!                                    └─▶ Bloom filters, page indexes: fewer   └─▶ dictionaries, read as they come
//! ```
//!
//! Strings get their codes here, unless the cache knows all values of their column: kernels need the complete dictionary, or
//! that there is none, before they run. Of a local file whose footer says that all pages are codes, dictionary pages alone are
//! read; else the column is decoded. A far scan with a filter and a limit has no dictionary: its strings are read segment by
//! segment, as all other columns, which are decoded when they are first loaded.

mod columns;
pub(crate) mod constant;
mod dictionaries;
mod draft;
mod footers;
pub(crate) mod kept;
mod late;
mod plan;
mod refine;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use trireme_device_api::{DeviceError, ScanInput};

use crate::cache::ColumnCache;
use crate::fetches::{Arrivals, QueryWindow, Starter};
use crate::files::{FileId, OpenOptions, TableFiles};
use crate::footer::FileMeta;
use crate::scan::Scan;
use crate::source::Source;
use draft::Draft;

/// Tables of more files are never bound in passing.
const WARM_FILES: usize = 64;

/// A table on its way to a scan.
pub(crate) struct Opening {
    pub(crate) table: TableFiles,
    pub(crate) files: Vec<(Arc<FileId>, Source)>,
}

/// What opening takes beside tables and cache.
#[derive(Clone)]
struct Opener {
    cache: ColumnCache,
    openings: Arc<Vec<Opening>>,
    options: OpenOptions,
    window: Arc<QueryWindow>,
    arrivals: Arc<Arrivals>,
    runtime: Option<Handle>,
    /// Nobody waits for it any more.
    dropped: Arc<AtomicBool>,
}

/// By table.
type Metas = Vec<Vec<Arc<FileMeta>>>;

/// In the order of the tables.
type Scans = Vec<Arc<dyn ScanInput>>;

impl ColumnCache {
    /// Binds a scan of a table, as [`ColumnCache::open_all`].
    ///
    /// # Errors
    /// [`DeviceError::Input`] when a file can't be read, [`DeviceError::Unsupported`] when a column is nested,
    /// [`DeviceError::OutOfMemory`].
    pub async fn open(&self, table: TableFiles, options: OpenOptions) -> Result<Arc<dyn ScanInput>, DeviceError> {
        let mut opened = self.open_all(vec![table], options).await?;
        let scan = opened.pop();
        scan.ok_or_else(|| DeviceError::Internal("a scan was not opened".to_owned()))
    }

    /// Binds all scans of a graph: their footers are read together, and what they will need is fetched ahead in the order of
    /// its use. What the cache knows all about is bound here and now; else this runs on the runtime's blocking threads (without
    /// a runtime, on this thread) and on `workers` more while dictionaries are read.
    ///
    /// # Errors
    /// As [`ColumnCache::open`].
    pub async fn open_all(&self, tables: Vec<TableFiles>, options: OpenOptions) -> Result<Scans, DeviceError> {
        let openings: Vec<Opening> = tables.into_iter().map(Opening::new).collect();
        for opening in &openings {
            self.inner.saw_versions(opening.files.iter().map(|(id, _)| id));
        }
        let opener = Opener {
            cache: self.clone(),
            openings: Arc::new(openings),
            window: QueryWindow::new(options.window_bytes, &options.pool),
            arrivals: Arrivals::new(&options.woken),
            options,
            runtime: Handle::try_current().ok(),
            dropped: Arc::default(),
        };
        let guard = DropGuard(Arc::clone(&opener.dropped));
        let opened = opener.open().await;
        drop(guard);
        opened
    }
}

impl Opening {
    fn new(table: TableFiles) -> Self {
        let store_url: Arc<str> = table.store_url.as_str().into();
        let of = |file: &crate::TableFile| {
            let id = FileId {
                store_url: Arc::clone(&store_url),
                location: file.location.clone(),
                size_bytes: file.size_bytes,
                version: file.version.clone(),
            };
            (Arc::new(id), Source::new(&table, file))
        };
        Self {
            files: table.files.iter().map(of).collect(),
            table,
        }
    }
}

/// Tells the blocking part that nobody waits any more.
struct DropGuard(Arc<AtomicBool>);

impl Drop for DropGuard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Opener {
    async fn open(&self) -> Result<Scans, DeviceError> {
        let files: usize = self.openings.iter().map(|opening| opening.files.len()).sum();
        let few = files <= WARM_FILES;
        if few && let Some(metas) = footers::held(self) {
            let (mut drafts, asks) = self.drafts(&metas)?;
            if let Some(answers) = refine::held(self, &asks) {
                self.refine(&mut drafts, answers);
                if let Some(scans) = self.finish(drafts, true)? {
                    return Ok(scans);
                }
            }
        }
        let metas = footers::read(self).await?;
        let opener = self.clone();
        let (mut drafts, asks) = self.blocking(move || opener.drafts(&metas)).await?;
        let answers = refine::read(self, asks).await?;
        let opener = self.clone();
        let opened = self.blocking(move || {
            opener.refine(&mut drafts, answers);
            opener.finish(drafts, false)
        });
        let not_opened = || DeviceError::Internal("a scan was not opened".to_owned());
        opened.await?.ok_or_else(not_opened)
    }

    /// Scans as their footers tell, and what else is worth asking their files.
    fn drafts(&self, metas: &Metas) -> Result<(Vec<Draft>, Vec<Vec<refine::Ask>>), DeviceError> {
        let mut drafts = Vec::with_capacity(metas.len());
        let mut asks = Vec::with_capacity(metas.len());
        for (opening, metas) in self.openings.iter().zip(metas) {
            let draft = Draft::new(&self.cache, opening, metas)?;
            asks.push(refine::asks(&self.cache, opening, &draft));
            drafts.push(draft);
        }
        Ok((drafts, asks))
    }

    fn refine(&self, drafts: &mut [Draft], answers: Vec<refine::Answers>) {
        for ((draft, opening), answers) in drafts.iter_mut().zip(self.openings.iter()).zip(answers) {
            refine::apply(opening, draft, answers);
        }
    }

    /// With `in_passing` nothing is read and nobody is waited for: none when that would be needed.
    fn finish(&self, drafts: Vec<Draft>, in_passing: bool) -> Result<Option<Scans>, DeviceError> {
        let openings = self.openings.iter();
        let cores: Vec<_> = drafts
            .into_iter()
            .zip(openings)
            .map(|(draft, opening)| draft.core(&self.cache, opening, &self.options.pool))
            .collect();
        let Some(unknown) = dictionaries::unknown(self, &cores, in_passing) else {
            return Ok(None);
        };
        plan::start(self, &cores, &unknown)?;
        dictionaries::read(self, &cores, unknown)?;
        plan::start_again(self, &cores)?;
        let scan = |core| {
            let dictionaries = dictionaries::complete(&core);
            let profiles = columns::profiles(&core, dictionaries);
            Arc::new(Scan::new(core, profiles)) as Arc<dyn ScanInput>
        };
        Ok(Some(cores.into_iter().map(scan).collect()))
    }

    /// Scans in the order in which they are read.
    fn order(&self) -> Vec<usize> {
        let count = self.openings.len();
        let mut order: Vec<usize> = Vec::with_capacity(count);
        for scan in self.options.order.iter().copied().chain(0..count) {
            if scan < count && !order.contains(&scan) {
                order.push(scan);
            }
        }
        order
    }

    /// Runs something that blocks; on this thread where there is no runtime.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, DeviceError> + Send + 'static,
    ) -> Result<T, DeviceError> {
        let Some(runtime) = &self.runtime else {
            return work();
        };
        let (sender, receiver) = oneshot::channel();
        runtime.spawn_blocking(move || {
            // The receiver is gone when the query is.
            let _ = sender.send(work());
        });
        let answer = receiver.await;
        answer.map_err(|error| DeviceError::Internal(format!("opening a scan: {error}")))?
    }

    /// None without a runtime: then nothing is fetched ahead.
    fn starter(&self) -> Option<Starter> {
        let runtime = self.runtime.clone()?;
        Some(Starter {
            window: Arc::clone(&self.window),
            runtime,
            arrivals: Arc::clone(&self.arrivals),
        })
    }

    fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Relaxed)
    }
}
