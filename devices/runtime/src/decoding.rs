//! The pages of a run, decoded on the device as soon as they are there.
//!
//! ```text
//!  copy     [ pages │ pages │ … ][ table of pages ][ decode: a launch per width of elements ] ─event─▶ compute
//!  end      one word back: did any page hold what it can't?      then the run is done again, with columns the host decodes
//! ```
//!
//! Columns that were decoded here are kept for others only when that word has been seen.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use trireme_device_api::DeviceError;
use trireme_device_codegen::decode::{PAGE_WORDS, Page, module};
use trireme_device_codegen::ir::{Elem, Module};

use crate::accelerator::{Core, Encoded};
use crate::arena::Block;
use crate::columns::Key;
use crate::driver::Queue;
use crate::fills::{Content, Fill};
use crate::kernels::{Loaded, Peeked};
use crate::uploaded::Uploaded;

/// Elements that pages are decoded into.
const ELEMENTS: [Elem; 4] = [Elem::U8, Elem::U16, Elem::U32, Elem::U64];

/// What a run has decoded so far.
#[derive(Default)]
pub(crate) struct Decoding {
    /// A word for faults, once there is something to decode.
    faults: Option<Block>,
    /// Columns that are kept if there was none.
    keep: Vec<(Key, Arc<Uploaded>)>,
    /// Kernels that may still run.
    kernels: Vec<Arc<Loaded>>,
    /// Memory of what was queued last, until somebody takes it.
    pub(crate) held: Vec<Arc<Block>>,
    /// There was no room, or a fault: the run is done again without pages.
    refused: bool,
}

/// Kernels that decode, as a device needs them.
pub(crate) fn modules(core: &Core) -> Vec<Module> {
    ELEMENTS.into_iter().map(|elem| decoder(core, elem)).collect()
}

fn decoder(core: &Core, elem: Elem) -> Module {
    module(elem, core.driver.info().target.group)
}

/// The kernel that decodes into an element, compiled in this thread unless it is known.
///
/// # Errors
/// Those of the driver.
pub(crate) fn loaded(core: &Core, elem: Elem) -> Result<Arc<Loaded>, DeviceError> {
    core.kernels.get(&decoder(core, elem)).map(|(loaded, _)| loaded)
}

/// Whether the kernel may be used: it is loaded, or whoever wants it waits for it.
pub(crate) fn is_ready(core: &Core, elem: Elem) -> bool {
    let peek = || core.kernels.peek(&decoder(core, elem));
    core.limits.encoded == Encoded::On || matches!(peek(), Peeked::Loaded(_))
}

impl Decoding {
    /// Queues the decoding of what was copied; [`Decoding::held`] must be held until it is done.
    ///
    /// # Errors
    /// When there is no room, or the device is lost.
    pub(crate) fn queue(&mut self, core: &Core, fills: &[Arc<Fill>], keep: bool) -> Result<(), DeviceError> {
        let packed = |fill: &Arc<Fill>| matches!(fill.content, Content::Packed(..));
        if !fills.iter().any(packed) {
            return Ok(());
        }
        let fault = self.fault(core)?;
        let mut by_element: Vec<Vec<Page>> = vec![Vec::new(); ELEMENTS.len()];
        for fill in fills {
            let Content::Packed(packed, staging) = &fill.content else {
                continue;
            };
            self.held.push(Arc::clone(staging));
            if let Some(at) = ELEMENTS.iter().position(|elem| *elem == packed.elem) {
                by_element[at].extend(packed.pages(staging.at(), &fill.uploaded, fault));
            }
            if let (Some(key), true) = (fill.key, keep) {
                self.keep.push((key, Arc::clone(&fill.uploaded)));
            }
        }
        self.launch(core, &by_element)
    }

    /// The word for faults, which is zero.
    fn fault(&mut self, core: &Core) -> Result<u64, DeviceError> {
        if let Some(block) = &self.faults {
            return Ok(block.at());
        }
        let Some(block) = core.room(8)? else {
            return Err(self.refuse());
        };
        core.driver.fill(Queue::Copy, block.at(), 8, 0)?;
        let at = block.at();
        self.faults = Some(block);
        Ok(at)
    }

    /// A launch per element that there are pages of.
    fn launch(&mut self, core: &Core, by_element: &[Vec<Page>]) -> Result<(), DeviceError> {
        let words: usize = by_element.iter().map(|pages| 2 + pages.len() * PAGE_WORDS).sum();
        let Some(block) = core.room(words as u64 * 8)? else {
            return Err(self.refuse());
        };
        let block = Arc::new(block);
        self.held.push(Arc::clone(&block));
        self.start(core, by_element, &block, words)
    }

    fn start(&mut self, core: &Core, by_element: &[Vec<Page>], block: &Block, words: usize) -> Result<(), DeviceError> {
        let mut content: Vec<u64> = Vec::with_capacity(words);
        let mut starts = Vec::new();
        for pages in by_element {
            let start = block.at() + content.len() as u64 * 8;
            starts.push(start);
            content.extend([start + 16, pages.len() as u64]);
            content.extend(pages.iter().flat_map(Page::words));
        }
        let bytes: Vec<u8> = content.iter().flat_map(|word| word.to_le_bytes()).collect();
        core.driver
            .upload(Queue::Copy, block.at(), bytes.len() as u64, &mut |offset, slab| {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                slab.copy_from_slice(&bytes[start..start + slab.len()]);
                Ok(())
            })?;
        let most = core.driver.info().groups.max(1);
        for ((pages, start), elem) in by_element.iter().zip(starts).zip(ELEMENTS) {
            if pages.is_empty() {
                continue;
            }
            let groups = u32::try_from(pages.len()).unwrap_or(u32::MAX).min(most);
            let kernel = loaded(core, elem)?;
            core.driver.launch(Queue::Copy, kernel.id(), 0, groups, start)?;
            self.kernels.push(kernel);
            core.counters.launches.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn refuse(&mut self) -> DeviceError {
        self.refused = true;
        DeviceError::OutOfMemory("no room for pages to be decoded".to_owned())
    }

    /// Whether all pages were as they should be, now that the run is done or has failed; then columns are kept. False: the run
    /// counts for nothing. Gives the waits too.
    ///
    /// # Errors
    /// When the device is lost.
    pub(crate) fn verify(&mut self, core: &Core) -> Result<(bool, u32), DeviceError> {
        let found = std::mem::take(self);
        // A run that was refused room has ended already; a device that is lost says so at the next one.
        let Some(faults) = found.faults.filter(|_| !found.refused) else {
            return Ok((!found.refused, 0));
        };
        let mut word = [0_u8; 8];
        core.counters.syncs.fetch_add(1, Ordering::Relaxed);
        core.driver.download(Queue::Copy, faults.at(), &mut word)?;
        let fine = word == [0; 8];
        if fine {
            for (key, uploaded) in &found.keep {
                core.columns.keep_column(*key, uploaded);
            }
        }
        Ok((fine, 1))
    }
}
