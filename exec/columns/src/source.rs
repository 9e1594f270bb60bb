//! Bytes of a file: ranges of a local file, or of an object of a store behind the lake.
//!
//! Objects are requested on the runtime that opened the scan while the caller waits; that runtime must have other threads
//! than the callers'. What is fetched ahead comes through `fetches.rs`, not from here. A file that is not the one that was
//! listed is an error, never a mixture of two.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::{Buf, Bytes};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use tokio::runtime::Handle;
use trireme_device_api::DeviceError;
use trireme_lake::{Account, ObjectRef, Planned, Read as LakeRead, ReadClass, TieredStore};

use crate::files::{TableFile, TableFiles};

/// One file.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) size_bytes: u64,
    location: Path,
    place: Place,
}

#[derive(Clone)]
enum Place {
    /// A path, and the time of the last change that the file must have, if that is known.
    Local(PathBuf, Option<i64>),
    Lake(Arc<TieredStore>, Arc<ObjectRef>, Arc<Account>, Option<Handle>),
    Store(Arc<dyn ObjectStore>, Option<String>, Option<Handle>),
}

impl Source {
    /// Of a file of a table.
    pub(crate) fn new(table: &TableFiles, file: &TableFile) -> Self {
        let runtime = || Handle::try_current().ok();
        let place = match (&file.local, &table.lake) {
            (Some(path), _) => Place::Local(path.clone(), file.modified_us),
            (None, Some(store)) => {
                let object = ObjectRef {
                    location: file.location.clone(),
                    size_bytes: file.size_bytes,
                    e_tag: file.e_tag.clone(),
                    version: file.version.clone(),
                };
                let account = Arc::clone(&table.account);
                Place::Lake(Arc::clone(store), Arc::new(object), account, runtime())
            }
            (None, None) => {
                // A weak tag matches nothing.
                let e_tag = file.e_tag.clone().filter(|e_tag| !e_tag.starts_with("W/"));
                Place::Store(Arc::clone(&table.store), e_tag, runtime())
            }
        };
        Self {
            size_bytes: file.size_bytes,
            location: file.location.clone(),
            place,
        }
    }

    /// It is read from the local file system, at once.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.place, Place::Local(..))
    }

    /// A range to be fetched ahead; none where that is not done.
    pub(crate) fn planned(&self, range: Range<u64>, class: ReadClass) -> Option<Planned> {
        match &self.place {
            Place::Lake(store, object, account, Some(_)) if range.end <= self.size_bytes => Some(Planned {
                store: Arc::clone(store),
                object: Arc::clone(object),
                range,
                class,
                account: Arc::clone(account),
            }),
            _ => None,
        }
    }

    /// Reads a range, blocking.
    ///
    /// # Errors
    /// [`DeviceError::Read`], and [`DeviceError::Input`] of a range that the file does not have.
    pub(crate) fn read(&self, range: Range<u64>) -> Result<Bytes, DeviceError> {
        self.check(&range)?;
        let runtime = match &self.place {
            Place::Local(path, modified_us) => return self.read_local(path, *modified_us, &range),
            Place::Lake(.., runtime) | Place::Store(.., runtime) => runtime.as_ref(),
        };
        let source = self.clone();
        let read = async move { source.read_remote(range).await };
        match runtime {
            Some(runtime) => {
                let (sender, receiver) = std::sync::mpsc::sync_channel(1);
                runtime.spawn(async move {
                    // The receiver is only gone when nobody waits any more.
                    let _ = sender.send(read.await);
                });
                receiver.recv().map_err(|_| gone())?
            }
            None => {
                // This thread may be running another executor.
                let answer = std::thread::scope(|scope| scope.spawn(|| futures::executor::block_on(read)).join());
                answer.map_err(|_| gone())?
            }
        }
    }

    /// Reads a range of a file that is not local.
    ///
    /// # Errors
    /// [`DeviceError::Read`], and [`DeviceError::Input`] of a range that the file does not have.
    pub(crate) async fn read_remote(&self, range: Range<u64>) -> Result<Bytes, DeviceError> {
        self.check(&range)?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let answer = match &self.place {
            Place::Local(..) => return self.read(range),
            Place::Lake(store, object, account, _) => {
                let read = LakeRead {
                    object: Arc::clone(object),
                    range,
                    class: ReadClass::Demand,
                    account: Some(Arc::clone(account)),
                };
                store.read(&read).await
            }
            Place::Store(store, e_tag, _) => {
                let options = GetOptions {
                    if_match: e_tag.clone(),
                    range: Some(GetRange::Bounded(range)),
                    ..GetOptions::default()
                };
                match store.get_opts(&self.location, options).await {
                    Ok(answer) => answer.bytes().await,
                    Err(error) => Err(error),
                }
            }
        };
        answer.map_err(DeviceError::read)
    }

    /// Reads some ranges of a file that is not local, neighbours together.
    ///
    /// # Errors
    /// [`DeviceError::Read`], and [`DeviceError::Input`] of a range that the file does not have.
    pub(crate) async fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, DeviceError> {
        if let Place::Lake(store, object, account, _) = &self.place {
            let read = store.read_ranges(object, ranges, ReadClass::Demand, Some(account));
            return read.await.map_err(DeviceError::read);
        }
        let mut found = Vec::with_capacity(ranges.len());
        for range in ranges {
            found.push(self.read_remote(range.clone()).await?);
        }
        Ok(found)
    }

    fn read_local(&self, path: &PathBuf, modified_us: Option<i64>, range: &Range<u64>) -> Result<Bytes, DeviceError> {
        let unreadable = |error| unreadable(path, error);
        let mut file = File::open(path).map_err(unreadable)?;
        let read = read_range(&mut file, range);
        // Looked at afterwards: what was read is of the file that was listed.
        let metadata = file.metadata().map_err(unreadable)?;
        let found_us = metadata
            .modified()
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
            .and_then(|since| i64::try_from(since.as_micros()).ok());
        let other_time = modified_us.is_some_and(|due| found_us.is_some_and(|found| found != due));
        if metadata.len() != self.size_bytes || other_time {
            return Err(replaced(path));
        }
        read.map_err(unreadable)
    }

    fn check(&self, range: &Range<u64>) -> Result<(), DeviceError> {
        if range.start > range.end || range.end > self.size_bytes {
            return Err(DeviceError::Input(format!(
                "can't read {}: bytes {} to {} of {} were asked for",
                self.location, range.start, range.end, self.size_bytes
            )));
        }
        Ok(())
    }

    /// The error of a file that isn't what it should be.
    pub(crate) fn corrupt(&self, error: impl std::fmt::Display) -> DeviceError {
        DeviceError::Input(format!("can't decode {}: {error}", self.location))
    }
}

fn gone() -> DeviceError {
    DeviceError::Internal("the reading thread is gone".to_owned())
}

/// A file system's error as a store would say it.
fn unreadable(path: &FilePath, error: std::io::Error) -> DeviceError {
    let (kind, source) = (error.kind(), error.into());
    let path = path.display().to_string();
    DeviceError::read(match kind {
        ErrorKind::NotFound => object_store::Error::NotFound { path, source },
        ErrorKind::PermissionDenied => object_store::Error::PermissionDenied { path, source },
        _ => object_store::Error::Generic {
            store: "local",
            source: format!("{path}: {source}").into(),
        },
    })
}

fn replaced(path: &FilePath) -> DeviceError {
    DeviceError::read(object_store::Error::Precondition {
        path: path.display().to_string(),
        source: "it was replaced during the scan".into(),
    })
}

fn read_range(file: &mut File, range: &Range<u64>) -> std::io::Result<Bytes> {
    file.seek(SeekFrom::Start(range.start))?;
    let length = usize::try_from(range.end - range.start).map_err(std::io::Error::other)?;
    let mut bytes = Vec::with_capacity(length);
    file.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() < length {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes.into())
}

/// Ranges of a file that were read beforehand, for Parquet's readers.
#[derive(Clone)]
pub(crate) struct Ranges {
    size_bytes: u64,
    ranges: Vec<(u64, Bytes)>,
}

impl Ranges {
    pub(crate) fn new(size_bytes: u64, ranges: Vec<(u64, Bytes)>) -> Self {
        Self { size_bytes, ranges }
    }

    fn find(&self, start: u64) -> parquet::errors::Result<Bytes> {
        for (first, bytes) in &self.ranges {
            if let Some(skip) = start.checked_sub(*first)
                && skip < bytes.len() as u64
            {
                return Ok(bytes.slice(skip as usize..));
            }
        }
        Err(ParquetError::EOF(format!(
            "offset {start} is outside of the column's bytes"
        )))
    }
}

impl Length for Ranges {
    fn len(&self) -> u64 {
        self.size_bytes
    }
}

impl ChunkReader for Ranges {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(self.find(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let found = self.find(start)?;
        if found.len() < length {
            return Err(ParquetError::EOF(format!(
                "{length} bytes at offset {start} are more than the column has"
            )));
        }
        Ok(found.slice(..length))
    }
}
