//! A store that reads files only as they were listed: a file that was replaced since is an error, never a mixture.
//!
//! Remote requests carry the entity tag as `If-Match`. Local files are compared by size and time, when they are opened and
//! again after their bytes were read: a rename leaves the opened file as it was, and writing in place shows in its time.
//! Files that a table's log names have no time to compare with, only a size; their names are never used twice.

use std::collections::HashMap;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::future::try_join_all;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, coalesce_ranges,
};
use trireme_lake::{Account, ObjectRef, Read, ReadClass, TieredStore};

/// Bytes of a local file that are read at a time.
const CHUNK_BYTES: u64 = 1 << 20;

/// How [`ObjectMeta::version`] begins for files whose times are not the store's: a table's log names them.
const FROM_LOG: &str = "log ";

/// The version of a file that a table's log names.
pub fn version_from_log(modified: DateTime<Utc>, size_bytes: u64) -> String {
    format!("{FROM_LOG}{}-{size_bytes}", modified.timestamp_micros())
}

/// Whether a file's time is not its store's to compare with. The Delta reader's own scans say 1970.
pub fn is_from_log(meta: &ObjectMeta) -> bool {
    let version = meta.version.as_deref();
    version.is_some_and(|version| version.starts_with(FROM_LOG)) || meta.last_modified == DateTime::UNIX_EPOCH
}

/// A file as it was listed.
#[derive(Debug, Clone)]
struct Pin {
    object: Arc<ObjectRef>,
    modified: Option<DateTime<Utc>>,
}

impl Pin {
    /// By what a store, or a log, said of it.
    fn new(meta: &ObjectMeta) -> Self {
        Self {
            object: Arc::new(ObjectRef::new(meta)),
            modified: (meta.e_tag.is_none() && !is_from_log(meta)).then_some(meta.last_modified),
        }
    }

    fn check(&self, size_bytes: u64, modified: Option<DateTime<Utc>>) -> Result<()> {
        let same = match (self.modified, modified) {
            (Some(listed), Some(now)) => listed == now,
            _ => true,
        };
        if same && size_bytes == self.object.size_bytes {
            return Ok(());
        }
        Err(object_store::Error::Precondition {
            path: self.object.location.to_string(),
            source: "its size or time is another than when it was listed".into(),
        })
    }

    fn check_file(&self, metadata: &Metadata) -> Result<()> {
        self.check(metadata.len(), metadata.modified().ok().map(DateTime::from))
    }
}

/// See the module.
pub struct PinnedStore {
    inner: Arc<dyn ObjectStore>,
    /// The same store's tiers, when it is remote.
    lake: Option<Arc<TieredStore>>,
    pins: HashMap<Path, Pin>,
    account: Option<Arc<Account>>,
}

impl PinnedStore {
    /// `files` only as they are described; other files of the store as they are. `lake` is `inner`'s, if it has one.
    pub fn new<'a>(
        inner: Arc<dyn ObjectStore>,
        lake: Option<Arc<TieredStore>>,
        files: impl Iterator<Item = &'a ObjectMeta>,
    ) -> Self {
        Self {
            inner,
            lake,
            pins: files.map(|meta| (meta.location.clone(), Pin::new(meta))).collect(),
            account: None,
        }
    }

    /// Reads on this account.
    pub fn with_account(self, account: Arc<Account>) -> Self {
        Self {
            account: Some(account),
            ..self
        }
    }

    async fn tiered(&self, lake: &Arc<TieredStore>, pin: &Pin, range: Range<u64>) -> Result<Bytes> {
        let read = Read {
            object: Arc::clone(&pin.object),
            range,
            class: ReadClass::Demand,
            account: self.account.clone(),
        };
        lake.read(&read).await
    }
}

impl fmt::Debug for PinnedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinnedStore({} files of {})", self.pins.len(), self.inner)
    }
}

impl fmt::Display for PinnedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for PinnedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, mut options: GetOptions) -> Result<GetResult> {
        let Some(pin) = self.pins.get(location) else {
            return self.inner.get_opts(location, options).await;
        };
        options.if_match.clone_from(&pin.object.e_tag);
        let result = self.inner.get_opts(location, options).await?;
        pin.check(result.meta.size, Some(result.meta.last_modified))?;
        Ok(match result.payload {
            GetResultPayload::File(file, _) => GetResult {
                payload: GetResultPayload::Stream(watched(file, result.range.clone(), pin.clone())),
                ..result
            },
            payload => GetResult { payload, ..result },
        })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let Some(pin) = self.pins.get(location) else {
            return self.inner.get_ranges(location, ranges).await;
        };
        // What has no tag is asked for with its time, which the tiers don't know.
        if let Some(lake) = self.lake.as_ref().filter(|_| pin.modified.is_none()) {
            let read = |range| self.tiered(lake, pin, range);
            return coalesce_ranges(ranges, read, lake.gap_bytes()).await;
        }
        if pin.object.e_tag.is_some() || self.lake.is_some() {
            let read = |range: Range<u64>| async move {
                let options = GetOptions::new().with_range(Some(range));
                self.get_opts(location, options).await?.bytes().await
            };
            return try_join_all(ranges.iter().cloned().map(read)).await;
        }
        let bytes = self.inner.get_ranges(location, ranges).await?;
        // After the bytes: what was written before they were read shows by now.
        let now = self.inner.head(location).await?;
        pin.check(now.size, Some(now.last_modified))?;
        Ok(bytes)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

/// The bytes of an opened file, compared with its pin once they are all read.
fn watched(file: File, range: Range<u64>, pin: Pin) -> BoxStream<'static, Result<Bytes>> {
    let file = Arc::new(file);
    futures::stream::try_unfold(range.start, move |at| {
        let (file, end, pin) = (Arc::clone(&file), range.end, pin.clone());
        async move {
            let work = move || chunk(&file, at, end, &pin);
            tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
                Err(object_store::Error::Generic {
                    store: "local",
                    source: Box::new(error),
                })
            })
        }
    })
    .try_filter(|bytes: &Bytes| futures::future::ready(!bytes.is_empty()))
    .boxed()
}

/// The next bytes and where they end; none after the last, when the file is still what it was.
fn chunk(file: &File, at: u64, end: u64, pin: &Pin) -> Result<Option<(Bytes, u64)>> {
    let failed = |error: std::io::Error| object_store::Error::Generic {
        store: "local",
        source: Box::new(error),
    };
    if at >= end {
        return pin.check_file(&file.metadata().map_err(failed)?).map(|()| None);
    }
    let length = (end - at).min(CHUNK_BYTES);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let mut from: &File = file;
    let read = from.seek(SeekFrom::Start(at)).and_then(|_| from.read_exact(&mut bytes));
    if let Err(error) = read {
        // A file that was cut says so rather than that it ended.
        pin.check_file(&file.metadata().map_err(failed)?)?;
        return Err(failed(error));
    }
    Ok(Some((bytes.into(), at + length)))
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt as _;
    use object_store::local::LocalFileSystem;
    use object_store::memory::InMemory;

    use super::*;

    fn replaced<T>(result: &Result<T>) -> bool {
        matches!(result, Err(object_store::Error::Precondition { .. }))
    }

    #[tokio::test]
    async fn a_local_file_is_read_as_it_was_listed_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let long = vec![b'x'; (CHUNK_BYTES * 5 / 2) as usize];
        std::fs::write(&path, &long).unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
        let location = Path::from("a.csv");
        let mut meta = store.head(&location).await.unwrap();
        meta.e_tag = None;
        let pinned = PinnedStore::new(Arc::clone(&store), None, std::iter::once(&meta));
        assert_eq!(pinned.get(&location).await.unwrap().bytes().await.unwrap(), long);
        assert_eq!(pinned.get_ranges(&location, &[1..3, 9..10]).await.unwrap()[1], "x");

        // Replaced by a rename while it is read: the old file to its end.
        let mut stream = pinned.get(&location).await.unwrap().into_stream();
        let first = stream.next().await.unwrap().unwrap();
        let other = folder.path().join("b.csv");
        // Longer than the file system's clock ticks.
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::write(&other, vec![b'y'; long.len()]).unwrap();
        std::fs::rename(&other, &path).unwrap();
        let rest: Vec<Bytes> = stream.try_collect().await.unwrap();
        assert_eq!(first.len() + rest.iter().map(Bytes::len).sum::<usize>(), long.len());
        assert!(rest.iter().all(|bytes| bytes.iter().all(|byte| *byte == b'x')));
        assert!(replaced(&pinned.get(&location).await));
        assert!(replaced(&pinned.get_ranges(&location, &[0..1, 5..6]).await));

        // Written in place while it is read: an error at the end.
        let mut meta = store.head(&location).await.unwrap();
        meta.e_tag = None;
        let pinned = PinnedStore::new(store, None, std::iter::once(&meta));
        let mut stream = pinned.get(&location).await.unwrap().into_stream();
        stream.next().await.unwrap().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::write(&path, vec![b'z'; long.len()]).unwrap();
        assert!(replaced(&stream.try_collect::<Vec<Bytes>>().await));
    }

    #[tokio::test]
    async fn an_object_is_read_by_its_entity_tag() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let location = Path::from("a");
        store.put(&location, "one".into()).await.unwrap();
        let meta = store.head(&location).await.unwrap();
        let pinned = PinnedStore::new(Arc::clone(&store), None, std::iter::once(&meta));
        assert_eq!(pinned.get_ranges(&location, &[0..1, 2..3]).await.unwrap()[1], "e");
        store.put(&location, "two".into()).await.unwrap();
        assert!(replaced(&pinned.get(&location).await));
        assert!(replaced(&pinned.get_ranges(&location, &[0..1, 1..2]).await));
    }
}
