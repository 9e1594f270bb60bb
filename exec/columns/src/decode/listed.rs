//! The values of a string column by its dictionary pages alone, where the footer says that all data pages are codes of them.
//!
//! So a scan that must know all values before it runs reads a page per row group; the codes are decoded when they are first
//! loaded, by whoever runs on them, and not at all where no row is wanted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parquet::column::page::{Page, PageReader};
use parquet::file::serialized_reader::SerializedPageReader;
use trireme_device_api::Reservation;

use super::pages::PageError;
use super::physical::Physical;
use super::strings::codes_of_page;
use super::{Failure, Shape, Task};
use crate::segments::{dictionary_range, is_listed};
use crate::source::Ranges;

/// Gives all values of a segment of a local file codes; false where only decoding it can.
///
/// # Errors
/// When values are too many, the file can't be read, or memory is short.
pub(crate) fn intern(task: &Task<'_>) -> Result<bool, Failure> {
    let is_listed = || is_listed(task.metadata, task.segment, task.leaf);
    if task.physical != Some(Physical::Bytes) || !task.source.is_local() || !is_listed() {
        return Ok(false);
    }
    let interned = catch_unwind(AssertUnwindSafe(|| intern_pages(task)));
    match interned {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(PageError::Failed(failure))) => Err(failure),
        // Decoding all pages will say what is wrong.
        Ok(Err(_)) | Err(_) => Ok(false),
    }
}

fn intern_pages(task: &Task<'_>) -> Result<bool, PageError> {
    let Shape::Codes(domain, take) = task.shape else {
        return Ok(false);
    };
    let mut last = None;
    for part in task.segment.parts.iter() {
        if last.replace(part.row_group) == Some(part.row_group) {
            continue;
        }
        let group = task.metadata.row_group(part.row_group);
        let chunk = group.column(task.leaf);
        let Some(range) = dictionary_range(chunk) else {
            return Ok(false);
        };
        let mut reservation = Reservation::new(task.pool);
        let bytes = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let failed = |error| PageError::Failed(Failure::Device(error));
        reservation.grow(bytes).map_err(failed)?;
        let read = task.source.read(range.clone()).map_err(failed)?;
        let ranges = Arc::new(Ranges::new(task.source.size_bytes, vec![(range.start, read)]));
        let rows = usize::try_from(group.num_rows()).unwrap_or(0);
        let mut pages = SerializedPageReader::new(ranges, chunk, rows, None)?;
        let Some(Page::DictionaryPage { buf, num_values, .. }) = pages.get_next_page()? else {
            return Ok(false);
        };
        codes_of_page(domain, take, task.data_type.is_text(), &buf, num_values as usize)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use parquet::basic::Encoding;
    use trireme_device_api::DeviceError;

    use super::super::pages::Target;
    use super::super::strings::Coded;
    use super::*;
    use crate::budget::Lease;
    use crate::dictionary::Domain;

    #[test]
    fn strings_in_pages_that_should_be_codes_are_an_error_and_no_value() {
        let take = |_| -> Result<Lease, DeviceError> { Err(DeviceError::Internal("nothing is taken".to_owned())) };
        let domain = Domain::new();
        let mut target: Coded<'_, u8> = Coded::new(&domain, &take, true, true, 1);
        let page = Bytes::from_static(b"\x01\0\0\0x");
        let appended = target.append(Encoding::PLAIN, &page, 1);
        assert!(
            matches!(&appended, Err(PageError::Failed(Failure::Device(DeviceError::Unsupported(text)))) if text.contains("footer")),
            "{appended:?}"
        );
        assert_eq!(domain.lock().len(), 0);
    }
}
