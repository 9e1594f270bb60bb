//! Columns in device memory.

use std::sync::Arc;

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
                match core.arena.allocate(piece.bytes())? {
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
