//! Opening a scan: footers, segments, bounds, and the dictionaries of string columns.
//!
//! String columns are decoded here, unless the cache knows all their values: kernels need the complete dictionary, or that
//! there is none, before they run. All other columns are decoded when they are first loaded.

pub(crate) mod constant;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use trireme_device_api::{ColumnProfile, DeviceError, DevicePool, ScanInput, ZoneMap};

use crate::cache::ColumnCache;
use crate::decode::Failure;
use crate::dictionary::Domain;
use crate::files::{ColumnRequest, ColumnSource, FileId, OpenOptions, TableFiles};
use crate::footer::{FileColumn, FileMeta};
use crate::scan::{Column, ColumnKind, Core, Scan};
use crate::segments::{self, Promise, Segment};
use crate::source::Source;

/// Tables of more files are never bound in passing.
const WARM_FILES: usize = 64;

/// Footers read at a time.
const FOOTERS_AT_ONCE: usize = 16;

impl ColumnCache {
    /// Binds a scan of a table. What the cache knows all about is bound here and now; else this runs on the runtime's
    /// blocking threads (without a runtime, on this thread) and on `workers` more while strings are decoded; `pool` is the
    /// query's, for what the cache has no room for.
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
    /// its use.
    ///
    /// # Errors
    /// As [`ColumnCache::open`].
    pub async fn open_all(
        &self,
        tables: Vec<TableFiles>,
        options: OpenOptions,
    ) -> Result<Vec<Arc<dyn ScanInput>>, DeviceError> {
        let mut opened = Vec::with_capacity(tables.len());
        for table in tables {
            opened.push(self.open_one(table, &options).await?);
        }
        Ok(opened)
    }

    async fn open_one(&self, table: TableFiles, options: &OpenOptions) -> Result<Arc<dyn ScanInput>, DeviceError> {
        let (pool, workers) = (Arc::clone(&options.pool), options.workers);
        let files: Vec<(Arc<FileId>, Source)> = sources(&table);
        if files.len() <= WARM_FILES
            && let Some(scan) = open(self, &table, workers, &files, &pool, None)?
        {
            return Ok(scan);
        }
        let cache = self.clone();
        let dropped = Arc::new(AtomicBool::new(false));
        let guard = DropGuard(Arc::clone(&dropped));
        let work = move || {
            let opened = open(&cache, &table, workers, &files, &pool, Some(&dropped))?;
            opened.ok_or_else(|| DeviceError::Internal("a scan was not opened".to_owned()))
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return work();
        };
        let (sender, receiver) = oneshot::channel();
        runtime.spawn_blocking(move || {
            // The receiver is gone when the query is.
            let _ = sender.send(work());
        });
        let answer = receiver.await;
        drop(guard);
        answer.map_err(|error| DeviceError::Internal(format!("opening a scan: {error}")))?
    }
}

/// Tells the blocking part that nobody waits any more.
struct DropGuard(Arc<AtomicBool>);

impl Drop for DropGuard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn sources(table: &TableFiles) -> Vec<(Arc<FileId>, Source)> {
    let store_url: Arc<str> = table.store_url.as_str().into();
    let of = |file: &crate::TableFile| {
        let id = FileId {
            store_url: Arc::clone(&store_url),
            location: file.location.clone(),
            size_bytes: file.size_bytes,
            version: file.version.clone(),
        };
        let source = match &file.local {
            Some(path) => Source::local(file.location.clone(), path.clone(), file.size_bytes),
            None => Source::stored(file.location.clone(), Arc::clone(&table.store), file.size_bytes),
        };
        (Arc::new(id), source)
    };
    table.files.iter().map(of).collect()
}

/// Without `dropped` nothing is read and nobody is waited for: none when that would be needed.
fn open(
    cache: &ColumnCache,
    table: &TableFiles,
    workers: usize,
    files: &[(Arc<FileId>, Source)],
    pool: &Arc<dyn DevicePool>,
    dropped: Option<&AtomicBool>,
) -> Result<Option<Arc<dyn ScanInput>>, DeviceError> {
    cache.inner.saw_versions(files.iter().map(|(id, _)| id));
    let Some(metas) = footers(cache, files, dropped.is_some())? else {
        return Ok(None);
    };
    let cut = |(file, meta): (usize, &Arc<FileMeta>)| segments::plan(file, &meta.metadata, cache.inner.segment_rows);
    let segments: Vec<Segment> = metas.iter().enumerate().flat_map(cut).collect();
    let rows = segments.iter().map(|segment| segment.rows).sum();
    let columns = table
        .columns
        .iter()
        .map(|request| column(cache, table, request, &metas, &segments, rows))
        .collect::<Result<Vec<_>, _>>()?;
    let core = Core {
        cache: Arc::clone(&cache.inner),
        pool: Arc::clone(pool),
        table: table.name.as_str().into(),
        files: metas
            .into_iter()
            .zip(files.iter().map(|(_, source)| source.clone()))
            .collect(),
        segments,
        columns,
    };
    let Some(dictionaries) = dictionaries(&core, workers.max(1), dropped)? else {
        return Ok(None);
    };
    let profiles = profiles(&core, dictionaries);
    Ok(Some(Arc::new(Scan::new(core, profiles))))
}

/// Runs `work` for 0, 1, … `count` on up to `threads` threads; the first error ends it.
fn in_parallel(
    count: usize,
    threads: usize,
    work: impl Fn(usize) -> Result<(), DeviceError> + Sync,
) -> Result<(), DeviceError> {
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<DeviceError>> = Mutex::new(None);
    let run = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return;
            }
            if let Err(error) = work(at) {
                next.store(count, Ordering::Relaxed);
                failed.lock().get_or_insert(error);
                return;
            }
        }
    };
    let threads = threads.min(count);
    if threads <= 1 {
        run();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(run);
            }
        });
    }
    failed.into_inner().map_or(Ok(()), Err)
}

fn footers(
    cache: &ColumnCache,
    files: &[(Arc<FileId>, Source)],
    may_read: bool,
) -> Result<Option<Vec<Arc<FileMeta>>>, DeviceError> {
    let footers = &cache.inner.footers;
    let mut metas: Vec<Option<Arc<FileMeta>>> = files.iter().map(|(id, _)| footers.get(id)).collect();
    let missing: Vec<usize> = (0..files.len()).filter(|file| metas[*file].is_none()).collect();
    if !may_read && !missing.is_empty() {
        return Ok(None);
    }
    let found: Vec<Mutex<Option<Arc<FileMeta>>>> = missing.iter().map(|_| Mutex::new(None)).collect();
    in_parallel(missing.len(), FOOTERS_AT_ONCE, |at| {
        let (id, source) = &files[missing[at]];
        let meta = Arc::new(FileMeta::read(Arc::clone(id), source)?);
        footers.insert(Arc::clone(id), Arc::clone(&meta));
        *found[at].lock() = Some(meta);
        Ok(())
    })?;
    for (file, meta) in missing.into_iter().zip(found) {
        metas[file] = meta.into_inner();
    }
    let unread = || DeviceError::Internal("a footer was not read".to_owned());
    metas
        .into_iter()
        .map(|meta| meta.ok_or_else(unread))
        .collect::<Result<_, _>>()
        .map(Some)
}

fn column(
    cache: &ColumnCache,
    table: &TableFiles,
    request: &ColumnRequest,
    metas: &[Arc<FileMeta>],
    segments: &[Segment],
    rows: usize,
) -> Result<Column, DeviceError> {
    match &request.source {
        ColumnSource::Partition(at) => {
            let missing = || DeviceError::Internal(format!("a file without partition value {at}"));
            let value = |file: &crate::TableFile| file.partition.get(*at).cloned().ok_or_else(missing);
            let values = table.files.iter().map(value).collect::<Result<Vec<_>, _>>()?;
            let constants = constant::Constants::new(values, &request.data_type);
            let promise = |segment: &Segment| Promise {
                zone: constants.zone(segment.file, segment.rows),
                known_nulls: true,
            };
            Ok(Column {
                request: request.clone(),
                name: format!("partition {at}").into(),
                promises: segments.iter().map(promise).collect(),
                kind: ColumnKind::Constant(constants),
                is_raw: AtomicBool::new(false),
            })
        }
        ColumnSource::File(name) => {
            let of = |meta: &Arc<FileMeta>| meta.column(name, &request.data_type);
            let files = metas.iter().map(of).collect::<Result<Vec<_>, _>>()?;
            let name: Arc<str> = name.as_str().into();
            let promise = |segment: &Segment| promise(segment, &metas[segment.file], &files[segment.file], request);
            let promises = segments.iter().map(promise).collect();
            let text = request.data_type.is_text();
            let domain = request
                .data_type
                .is_bytes()
                .then(|| cache.inner.domain(&table.name, &name, text, rows));

            Ok(Column {
                request: request.clone(),
                name,
                promises,
                is_raw: AtomicBool::new(domain.as_ref().is_some_and(|domain| domain.is_raw)),
                kind: ColumnKind::Stored { files, domain },
            })
        }
    }
}

fn promise(segment: &Segment, meta: &FileMeta, column: &FileColumn, request: &ColumnRequest) -> Promise {
    match column {
        FileColumn::Missing => Promise {
            zone: ZoneMap {
                range: None,
                null_count: segment.rows,
                sorted: true,
                run_length: segment.rows as f32,
            },
            known_nulls: true,
        },
        FileColumn::Pages { leaf, physical } => {
            segments::promise(&meta.metadata, segment, *leaf, Some(*physical), &request.data_type)
        }
        FileColumn::Arrow { leaf } => segments::promise(&meta.metadata, segment, *leaf, None, &request.data_type),
    }
}

/// By column.
type Dictionaries = Vec<Option<Arc<trireme_device_api::Dictionary>>>;

/// Complete dictionaries by column; none where a column is strings, or of another type.
fn dictionaries(
    core: &Core,
    workers: usize,
    dropped: Option<&AtomicBool>,
) -> Result<Option<Dictionaries>, DeviceError> {
    let mut unknown = Vec::new();
    for (at, column) in core.columns.iter().enumerate() {
        if let Some((domain, files)) = coded(column) {
            let values = match dropped {
                Some(_) => domain.lock(),
                None => match domain.try_lock() {
                    Some(values) => values,
                    None => return Ok(None),
                },
            };
            let in_file = |segment: &&Segment| files[segment.file].leaf().is_some();
            for (number, segment) in core.segments.iter().enumerate().filter(|(_, segment)| in_file(segment)) {
                if !values.covers(&(Arc::clone(core.file_id(segment)), segment.first_row)) {
                    unknown.push((number, at));
                }
            }
        }
    }
    if dropped.is_none() && !unknown.is_empty() {
        return Ok(None);
    }
    in_parallel(unknown.len(), workers, |at| {
        if dropped.is_some_and(|dropped| dropped.load(Ordering::Relaxed)) {
            return Err(DeviceError::Cancelled);
        }
        let (segment, column) = unknown[at];
        intern(core, segment, column)
    })?;
    let of = |column: &Column| {
        let (domain, _) = coded(column)?;
        let mut values = domain.lock();
        let dictionary = values.snapshot();
        let cached = values.is_cached();
        drop(values);
        if !cached {
            core.cache.forget(domain);
        }
        Some(dictionary)
    };
    Ok(Some(core.columns.iter().map(of).collect()))
}

fn coded(column: &Column) -> Option<(&Arc<Domain>, &[FileColumn])> {
    match &column.kind {
        ColumnKind::Stored {
            files,
            domain: Some(domain),
        } if !column.is_raw.load(Ordering::Acquire) => Some((domain, files)),
        _ => None,
    }
}

/// Gives codes to all values of a segment, or finds that they are too many.
fn intern(core: &Core, segment: usize, column: usize) -> Result<(), DeviceError> {
    let of = &core.columns[column];
    let Some((domain, _)) = coded(of) else {
        return Ok(());
    };
    match core.fetch(segment, column) {
        Ok(fetched) => {
            let at = &core.segments[segment];
            let place = (Arc::clone(core.file_id(at)), at.first_row);
            domain.lock().cover(place, fetched.rows);
            Ok(())
        }
        Err(Failure::TooMany) => {
            of.is_raw.store(true, Ordering::Release);
            core.cache.make_raw(domain);
            Ok(())
        }
        Err(Failure::Device(error)) => Err(error),
    }
}

fn profiles(core: &Core, dictionaries: Dictionaries) -> Vec<ColumnProfile> {
    let of = |(at, dictionary): (usize, Option<Arc<trireme_device_api::Dictionary>>)| {
        let column = &core.columns[at];
        let data_type = &column.request.data_type;
        if let ColumnKind::Constant(constants) = &column.kind {
            return constants.profile(data_type);
        }
        let mut range: Option<(i128, i128)> = None;
        let mut nullable = false;
        for (segment, promise) in column.promises.iter().enumerate() {
            let held = core.cache.peek(&core.key(segment, at));
            let zone = held.map_or(promise.zone, |held| held.zone);
            nullable |= zone.null_count > 0;
            if let Some((low, high)) = zone.range {
                range = Some(range.map_or((low, high), |(l, h)| (l.min(low), h.max(high))));
            }
        }
        ColumnProfile {
            data_type: data_type.clone(),
            range: range.or_else(|| data_type.is_integral().then_some((0, 0))),
            nullable,
            distinct: dictionary.as_ref().map(|dictionary| dictionary.len()),
            dictionary,
        }
    };
    dictionaries.into_iter().enumerate().map(of).collect()
}
