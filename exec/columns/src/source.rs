//! Bytes of a file: ranges of a local file or of an object, read by blocking threads.
//!
//! Objects are requested on the runtime that opened the scan while the caller waits; that runtime must have other threads
//! than the callers'. There is no prefetch and no merging of ranges here.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use tokio::runtime::Handle;
use trireme_device_api::DeviceError;

/// One file.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) size_bytes: u64,
    location: Path,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Local(PathBuf),
    Store(Arc<dyn ObjectStore>, Option<Handle>),
}

impl Source {
    pub(crate) fn local(location: Path, path: PathBuf, size_bytes: u64) -> Self {
        Self {
            size_bytes,
            location,
            place: Place::Local(path),
        }
    }

    pub(crate) fn stored(location: Path, store: Arc<dyn ObjectStore>, size_bytes: u64) -> Self {
        Self {
            size_bytes,
            location,
            place: Place::Store(store, Handle::try_current().ok()),
        }
    }

    /// Reads a range, blocking.
    ///
    /// # Errors
    /// [`DeviceError::Input`].
    pub(crate) fn read(&self, range: Range<u64>) -> Result<Bytes, DeviceError> {
        if range.start > range.end || range.end > self.size_bytes {
            return Err(self.unreadable(format!(
                "bytes {} to {} of {} were asked for",
                range.start, range.end, self.size_bytes
            )));
        }
        match &self.place {
            Place::Local(path) => read_local(path, &range).map_err(|error| self.unreadable(error)),
            Place::Store(store, Some(handle)) => {
                let (sender, receiver) = std::sync::mpsc::sync_channel(1);
                let (store, location) = (Arc::clone(store), self.location.clone());
                handle.spawn(async move {
                    // The receiver is only gone when nobody waits any more.
                    let _ = sender.send(store.get_range(&location, range).await);
                });
                let answer = receiver.recv().map_err(|error| self.unreadable(error))?;
                answer.map_err(|error| self.unreadable(error))
            }
            Place::Store(store, None) => {
                let read = || futures::executor::block_on(store.get_range(&self.location, range));
                // This thread may be running another executor.
                let answer = std::thread::scope(|scope| scope.spawn(read).join());
                let answer = answer.map_err(|_| self.unreadable("the reading thread is gone"))?;
                answer.map_err(|error| self.unreadable(error))
            }
        }
    }

    fn unreadable(&self, error: impl std::fmt::Display) -> DeviceError {
        DeviceError::Input(format!("can't read {}: {error}", self.location))
    }

    /// The error of a file that isn't what it should be.
    pub(crate) fn corrupt(&self, error: impl std::fmt::Display) -> DeviceError {
        DeviceError::Input(format!("can't decode {}: {error}", self.location))
    }
}

fn read_local(path: &PathBuf, range: &Range<u64>) -> std::io::Result<Bytes> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(range.start))?;
    let length = usize::try_from(range.end - range.start).map_err(std::io::Error::other)?;
    let mut bytes = Vec::with_capacity(length);
    file.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() < length {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
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
