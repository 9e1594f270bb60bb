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
use crate::packed::Packed;

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
        let bytes = |piece: &Option<Piece>| piece.as_ref().map(Piece::bytes);
        let sizes = [bytes(&image.values), bytes(&image.validity), bytes(&image.bytes)];
        let host = (shape.storage == Storage::Offsets).then(|| Arc::clone(column));
        Self::with(core, image.base, sizes, host)
    }

    /// Memory for a column that is decoded on the device; none if there is no room.
    pub(crate) fn allocate_decoded(core: &Core, packed: &Packed) -> Result<Option<Self>, DeviceError> {
        let validity = packed.validity().as_ref().map(Piece::bytes);
        Self::with(core, packed.base(), [Some(packed.values_bytes()), validity, None], None)
    }

    fn with(
        core: &Core,
        base: i64,
        sizes: [Option<u64>; 3],
        host: Option<Arc<DeviceColumn>>,
    ) -> Result<Option<Self>, DeviceError> {
        let mut blocks = [None, None, None];
        for (block, bytes) in blocks.iter_mut().zip(sizes) {
            if let Some(bytes) = bytes {
                match core.room(bytes)? {
                    Some(found) => *block = Some(found),
                    None => return Ok(None),
                }
            }
        }
        let [values, validity, bytes] = blocks;
        Ok(Some(Self {
            base,
            values,
            validity,
            bytes,
            host,
            upload_ns: AtomicU64::new(0),
        }))
    }

    /// Copies pages to `staging`, and the bits of validity to their memory; returns the bytes.
    pub(crate) fn fill_encoded(
        &self,
        core: &Core,
        queue: Queue,
        packed: &Packed,
        staging: &Block,
    ) -> Result<u64, DeviceError> {
        let mut copied = packed.sent();
        core.driver.upload(queue, staging.at(), copied, &mut |offset, slab| {
            packed.write(offset, slab);
            Ok(())
        })?;
        if let (Some(block), Some(piece)) = (&self.validity, packed.validity()) {
            copied += upload(core, queue, block.at(), &piece)?;
        }
        Ok(copied)
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
