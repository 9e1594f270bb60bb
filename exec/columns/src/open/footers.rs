//! Footers of all files of all scans, those that the cache lacks read together.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::task::JoinSet;
use trireme_device_api::DeviceError;

use super::{Metas, Opener};
use crate::files::FileId;
use crate::footer::FileMeta;
use crate::source::Source;

/// Threads that read footers of local files.
const THREADS: usize = 16;

/// All, if the cache holds them.
pub(super) fn held(opener: &Opener) -> Option<Metas> {
    let footers = &opener.cache.inner.footers;
    let of = |opening: &super::Opening| opening.files.iter().map(|(id, _)| footers.get(id)).collect();
    opener.openings.iter().map(of).collect()
}

/// All, wherever they are.
pub(super) async fn read(opener: &Opener) -> Result<Metas, DeviceError> {
    let footers = &opener.cache.inner.footers;
    let mut found: HashMap<Arc<FileId>, Option<Arc<FileMeta>>> = HashMap::new();
    let mut missing = Vec::new();
    for opening in opener.openings.iter() {
        for (id, source) in &opening.files {
            if found.contains_key(id) {
                continue;
            }
            let held = footers.get(id);
            if held.is_none() {
                missing.push((Arc::clone(id), source.clone(), Arc::from(opening.table.name.as_str())));
            }
            found.insert(Arc::clone(id), held);
        }
    }
    let (local, remote): (Vec<Missing>, _) = missing.into_iter().partition(|(_, source, _)| source.is_local());
    let mut metas = Vec::new();
    if !local.is_empty() {
        metas.extend(opener.blocking(move || read_blocking(&local)).await?);
    }
    if !remote.is_empty() {
        metas.extend(read_together(opener, remote).await?);
    }
    for meta in metas {
        footers.insert(Arc::clone(&meta.id), Arc::clone(&meta));
        found.insert(Arc::clone(&meta.id), Some(meta));
    }
    let unread = || DeviceError::Internal("a footer was not read".to_owned());
    let of = |(id, _): &(Arc<FileId>, Source)| found.get(id).and_then(Clone::clone).ok_or_else(unread);
    let table = |opening: &super::Opening| opening.files.iter().map(of).collect();
    opener.openings.iter().map(table).collect()
}

/// A file, and the name of its table.
type Missing = (Arc<FileId>, Source, Arc<str>);

fn read_blocking(missing: &[Missing]) -> Result<Vec<Arc<FileMeta>>, DeviceError> {
    let found = Mutex::new(Vec::with_capacity(missing.len()));
    in_parallel(missing.len(), THREADS, |at| {
        let (id, source, _) = &missing[at];
        let meta = FileMeta::read(Arc::clone(id), source)?;
        found.lock().push(Arc::new(meta));
        Ok(())
    })?;
    Ok(found.into_inner())
}

async fn read_together(opener: &Opener, missing: Vec<Missing>) -> Result<Vec<Arc<FileMeta>>, DeviceError> {
    let Some(runtime) = &opener.runtime else {
        return read_blocking(&missing);
    };
    // A set ends its tasks when it is dropped. How many requests are under way is the store's affair.
    let mut tasks: JoinSet<Result<Arc<FileMeta>, DeviceError>> = JoinSet::new();
    for (id, source, table) in missing {
        let tails = Arc::clone(&opener.cache.inner.tails);
        let read = async move {
            let tail_bytes = tails.get(&table);
            let (meta, footer_bytes) = FileMeta::read_remote(id, &source, tail_bytes).await?;
            tails.saw(&table, footer_bytes);
            Ok(Arc::new(meta))
        };
        tasks.spawn_on(read, runtime);
    }
    let mut metas = Vec::with_capacity(tasks.len());
    while let Some(done) = tasks.join_next().await {
        metas.push(done.map_err(|error| DeviceError::Internal(format!("reading a footer: {error}")))??);
    }
    Ok(metas)
}

/// Runs `work` for 0, 1, … `count` on up to `threads` threads; the first error ends it.
pub(super) fn in_parallel(
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
