//! Columns that are handed out encoded, to devices that decode pages themselves.
//!
//! A column that the host has decoded already is handed out as it is; so is one whose pages are no fewer bytes, or that devices
//! can't decode. What is read to find that out is decoded here, not read again.

use std::sync::Arc;

use trireme_device_api::{DeviceError, EncodedColumn, Loaded};

use crate::decode::{Failure, Task, encoded};
use crate::scan::{ColumnKind, Scan};
use crate::segments::page_bytes;

/// What a page takes beside its values, at most: its place among the others.
const PAGE_BYTES: usize = 8;

/// Nothing is gained.
const AS_LARGE: &str = "pages that are no smaller than the decoded column";

/// Pages for a device; else the reason.
type Pages = Result<EncodedColumn, &'static str>;

impl Scan {
    /// See [`trireme_device_api::ScanInput::load_encoded`].
    ///
    /// # Errors
    /// As [`trireme_device_api::ScanInput::load`].
    pub(crate) fn encoded(&self, segment: usize, column: usize, decoded_bytes: usize) -> Result<Loaded, DeviceError> {
        let (core, slot) = (&self.core, segment * self.profiles.len() + column);
        let decoded = |column| Loaded::Decoded(column, None);
        if let Some(held) = self.held(slot) {
            return Ok(decoded(held));
        }
        let stored = matches!(core.columns[column].kind, ColumnKind::Stored { .. });
        if !stored || core.made(segment, column).is_some() || core.cache.peek(&core.key(segment, column)).is_some() {
            return Ok(decoded(self.handed_out(slot, column, core.fetch(segment, column)?)?));
        }
        let dictionary = self.profiles[column].dictionary.as_ref();
        let codes = dictionary.and_then(|dictionary| u32::try_from(dictionary.len()).ok());
        let handed = core.with_task(segment, column, |task, domain| {
            match pages(task, codes, decoded_bytes)? {
                Ok(encoded) => {
                    core.book(task);
                    drop(core.fetches.claim(segment, column));
                    Ok(Ok(encoded))
                }
                Err(reason) => Ok(Err((core.decoded(segment, column, task, domain)?, reason))),
            }
        })?;
        Ok(match handed.map_err(|failure: Failure| DeviceError::from(failure))? {
            Ok(encoded) => Loaded::Encoded(Arc::new(encoded)),
            Err((fetched, reason)) => Loaded::Decoded(self.handed_out(slot, column, fetched)?, Some(reason)),
        })
    }
}

fn pages(task: &Task<'_>, codes: Option<u32>, decoded_bytes: usize) -> Result<Pages, DeviceError> {
    let values = match encoded::values(task, codes) {
        Ok(values) => values,
        Err(reason) => return Ok(Err(reason)),
    };
    let uncompressed = page_bytes(task.metadata, task.segment, task.leaf);
    if uncompressed >= decoded_bytes {
        return Ok(Err(AS_LARGE));
    }
    let found = encoded::collect(task, values)?;
    // No element is wider.
    let width = (decoded_bytes / task.segment.rows.max(1)).min(16);
    Ok(
        found.and_then(|encoded| match sent_bytes(&encoded, width) < decoded_bytes {
            true => Ok(encoded),
            // Of a page of which few rows are wanted, all is sent.
            false => Err(AS_LARGE),
        }),
    )
}

/// Bytes that a device is sent, whose elements are so wide.
fn sent_bytes(encoded: &EncodedColumn, width: usize) -> usize {
    let entries: usize = encoded.dictionaries.iter().map(Vec::len).sum();
    let (mut bytes, mut last) = (entries * width, None);
    for page in &encoded.pages {
        let name = (page.bytes.as_ptr(), page.bytes.len());
        if last.replace(name) != Some(name) {
            bytes += page.bytes.len() + PAGE_BYTES;
        }
    }
    bytes
}
