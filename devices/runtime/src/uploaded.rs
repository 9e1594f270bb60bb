//! A column in device memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use trireme_device_api::{DeviceColumn, DeviceError};
use trireme_device_codegen::shape::{ColumnShape, Storage};

use crate::accelerator::Core;
use crate::arena::Block;
use crate::driver::Queue;
use crate::image::{Image, Piece};

/// A column of one segment in device memory; pinned while it is held.
#[derive(Debug)]
pub(crate) struct Uploaded {
    /// What is added to each element.
    pub(crate) base: i64,
    /// Values, codes, offsets.
    pub(crate) values: Option<Block>,
    /// Bits.
    pub(crate) validity: Option<Block>,
    /// Bytes of strings.
    pub(crate) bytes: Option<Block>,
    /// Where the host finds the strings of handles.
    pub(crate) host: Option<Arc<DeviceColumn>>,
    upload_ns: AtomicU64,
}

impl Uploaded {
    /// Memory for an image; none if there is no room.
    pub(crate) fn allocate(
        core: &Core,
        image: &Image,
        column: &Arc<DeviceColumn>,
        shape: &ColumnShape,
    ) -> Result<Option<Self>, DeviceError> {
        let mut blocks = [None, None, None];
        for (block, piece) in blocks.iter_mut().zip([&image.values, &image.validity, &image.bytes]) {
            if let Some(piece) = piece {
                match core.room(piece.bytes())? {
                    Some(found) => *block = Some(found),
                    None => return Ok(None),
                }
            }
        }
        let [values, validity, bytes] = blocks;
        Ok(Some(Self {
            base: image.base,
            values,
            validity,
            bytes,
            host: (shape.storage == Storage::Offsets).then(|| Arc::clone(column)),
            upload_ns: AtomicU64::new(0),
        }))
    }

    /// Copies an image to its memory; returns the bytes.
    pub(crate) fn fill(&self, core: &Core, queue: Queue, image: &Image) -> Result<u64, DeviceError> {
        let mut copied = 0;
        let pairs = [
            (&self.values, &image.values),
            (&self.validity, &image.validity),
            (&self.bytes, &image.bytes),
        ];
        for (block, piece) in pairs {
            if let (Some(block), Some(piece)) = (block, piece) {
                copied += upload(core, queue, block.at(), piece)?;
            }
        }
        Ok(copied)
    }

    /// Notes how long the copy took.
    pub(crate) fn took(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.upload_ns.store(ns, Ordering::Relaxed);
    }

    /// How long the copy took.
    pub(crate) fn upload_ns(&self) -> u64 {
        self.upload_ns.load(Ordering::Relaxed)
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> u64 {
        let blocks = [&self.values, &self.validity, &self.bytes];
        blocks
            .into_iter()
            .flatten()
            .map(|block| crate::arena::aligned(block.bytes()))
            .sum()
    }
}

fn upload(core: &Core, queue: Queue, at: u64, piece: &Piece) -> Result<u64, DeviceError> {
    let bytes = piece.bytes();
    if bytes > 0 {
        core.driver.upload(queue, at, bytes, &mut |offset, slab| {
            piece.write(offset, slab);
            Ok(())
        })?;
    }
    Ok(bytes)
}
