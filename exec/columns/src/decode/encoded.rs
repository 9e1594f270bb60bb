//! Pages as they are, for devices that decode them: decompressed, levels as bits of validity, dictionaries as plain numbers.
//!
//! What a device can't decode is found before bytes are read where the footer tells, else while pages are collected; then the
//! column is decoded here, and the reason is told.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::buffer::{BooleanBuffer, Buffer};
use bytes::Bytes;
use parquet::basic::Encoding;
use trireme_device_api::{DeviceError, EncodedColumn, EncodedPage, EncodedType, PageEncoding, Reservation};

use super::flat::Lane;
use super::pages::{self, PageError, Target};
use super::physical::Physical;
use super::plain::plain;
use super::strings::codes_of_page;
use super::validity::Validity;
use super::{Shape, Task, chunks};
use crate::segments::{is_partial, is_spelled_out};

/// Values that need a device's 128 bits.
const WIDE: &str = "values of more than 64 bits";

/// Pages, or why there are none.
pub(crate) type Pages = Result<EncodedColumn, &'static str>;

/// What a device would decode; or why it doesn't, as far as the footer tells. `codes` are the codes of a string column.
pub(crate) fn values(task: &Task<'_>, codes: Option<u32>) -> Result<EncodedType, &'static str> {
    let Some(physical) = task.physical else {
        return Err("values are cast, or nested");
    };
    let spelled_out = || is_spelled_out(task.metadata, task.segment, task.leaf);
    let integers = |bytes: u32, signed: bool| {
        let narrow = |(low, high)| Some((i64::try_from(low).ok()?, i64::try_from(high).ok()?));
        match task.range {
            None => Err("no values but NULL"),
            Some(range) => match narrow(range) {
                None => Err(WIDE),
                Some(_) if bytes == 0 && spelled_out() => Err("plain values that are no integers of 4 or 8 bytes"),
                Some(range) => Ok(EncodedType::Integers { bytes, signed, range }),
            },
        }
    };
    match physical {
        Physical::Boolean => Err("booleans"),
        Physical::Int32 => integers(4, true),
        Physical::UInt32 => integers(4, false),
        Physical::Int64 | Physical::UInt64 => integers(8, true),
        Physical::Int96(_) | Physical::Fixed(_) => integers(0, true),
        Physical::Float32 => Ok(EncodedType::Float32),
        Physical::Float64 => Ok(EncodedType::Float64),
        Physical::Bytes => match codes {
            None => Err("strings without a dictionary"),
            Some(_) if spelled_out() => Err("pages of strings without a dictionary"),
            Some(codes) => Ok(EncodedType::Codes(codes)),
        },
    }
}

/// Collects the pages of the segment.
///
/// # Errors
/// When bytes can't be read, or memory is short. What is corrupt, decoding it on the host will tell.
pub(crate) fn collect(task: &Task<'_>, values: EncodedType) -> Result<Pages, DeviceError> {
    let (ranges, compressed) = chunks(task)?;
    let mut target = Collected {
        task,
        values,
        partial: is_part_of_groups(task),
        rows: 0,
        pages: Vec::new(),
        dictionaries: Vec::new(),
        valid: None,
        reservation: Reservation::new(task.pool),
        refused: None,
    };
    let read = AssertUnwindSafe(|| {
        let mut validity = Validity::default();
        pages::read(task, &ranges, &mut target, &mut validity).map(|()| validity)
    });
    let read = catch_unwind(read).unwrap_or_else(|_| Err(PageError::corrupt("a malformed column")));
    drop(compressed);
    let Collected {
        rows,
        pages,
        dictionaries,
        reservation,
        refused,
        ..
    } = target;
    let validity = match read {
        Err(PageError::Failed(super::Failure::Device(error @ DeviceError::OutOfMemory(_)))) => return Err(error),
        Err(_) => return Ok(Err(refused.unwrap_or("pages that are not as they should be"))),
        Ok(_) if rows != task.segment.rows => return Ok(Err("pages that are not as they should be")),
        Ok(validity) => validity.finish().0,
    };
    Ok(Ok(EncodedColumn {
        rows,
        values,
        pages,
        dictionaries,
        validity,
        reservation,
    }))
}

fn is_part_of_groups(task: &Task<'_>) -> bool {
    let mut groups = task
        .segment
        .parts
        .chunk_by(|left, right| left.row_group == right.row_group);
    groups.any(|parts| {
        let rows = parts
            .first()
            .map(|part| task.metadata.row_group(part.row_group).num_rows());
        parts.len() > 1 || rows.is_some_and(|rows| is_partial(parts, usize::try_from(rows).unwrap_or(0)))
    })
}

/// Pages so far.
struct Collected<'a, 't> {
    task: &'a Task<'t>,
    values: EncodedType,
    /// Rows of some pages may be left out.
    partial: bool,
    rows: usize,
    pages: Vec<EncodedPage>,
    dictionaries: Vec<Vec<u64>>,
    /// Which rows of the last page are values, where that will be asked.
    valid: Option<BooleanBuffer>,
    reservation: Reservation,
    refused: Option<&'static str>,
}

impl Collected<'_, '_> {
    fn refuse(&mut self, reason: &'static str) -> PageError {
        self.refused = Some(reason);
        PageError::Unknown
    }

    fn reserve(&mut self, bytes: usize) -> Result<(), PageError> {
        let reserved = self.reservation.grow(bytes);
        reserved.map_err(|error| PageError::Failed(error.into()))
    }

    /// Integers of the file's type as they are; their range is checked here, since a device sees only what became of them.
    fn integers(&mut self, page: &Bytes, count: usize, range: (i64, i64)) -> Result<Vec<u64>, PageError> {
        let Some(physical) = self.task.physical else {
            return Err(PageError::Unknown);
        };
        let values = plain(Encoding::PLAIN, page, count, physical.width_bytes(), false)?;
        let mut found: Vec<i64> = Vec::with_capacity(count);
        if <i64 as Lane>::place(&values, physical, 0, &mut found) == Err(PageError::Narrow) {
            return Err(self.refuse(WIDE));
        }
        let (low, high) = range;
        if found.iter().any(|value| *value < low || *value > high) {
            return Err(self.refuse("values that are not what the file's statistics say"));
        }
        Ok(found.into_iter().map(i64::cast_unsigned).collect())
    }
}

impl Target for Collected<'_, '_> {
    fn len(&self) -> usize {
        self.rows
    }

    fn dictionary(&mut self, page: &Bytes, count: usize) -> Result<(), PageError> {
        self.reserve(count * 8)?;
        let entries = match self.values {
            EncodedType::Integers { range, .. } => self.integers(page, count, range)?,
            EncodedType::Float32 => {
                let values = plain(Encoding::PLAIN, page, count, 4, false)?;
                let (words, _) = values.as_chunks::<4>();
                words.iter().map(|word| u64::from(u32::from_le_bytes(*word))).collect()
            }
            EncodedType::Float64 => {
                let values = plain(Encoding::PLAIN, page, count, 8, false)?;
                let (words, _) = values.as_chunks::<8>();
                words.iter().map(|word| u64::from_le_bytes(*word)).collect()
            }
            EncodedType::Codes(known) => {
                let Shape::Codes(domain, take) = self.task.shape else {
                    return Err(PageError::Unknown);
                };
                let codes = codes_of_page(domain, take, self.task.data_type.is_text(), page, count)?;
                if codes.iter().any(|code| *code >= known) {
                    return Err(self.refuse("strings that the dictionary lacks"));
                }
                codes.into_iter().map(u64::from).collect()
            }
        };
        self.dictionaries.push(entries);
        Ok(())
    }

    fn append(&mut self, encoding: Encoding, page: &Bytes, count: usize) -> Result<(), PageError> {
        let integers = matches!(self.values, EncodedType::Integers { bytes: 4 | 8, .. });
        let floats = matches!(self.values, EncodedType::Float32 | EncodedType::Float64);
        let encoding = match encoding {
            Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY => match self.dictionaries.len().checked_sub(1) {
                Some(last) => PageEncoding::Dictionary(last),
                None => return Err(PageError::corrupt("indexes without a dictionary")),
            },
            Encoding::PLAIN if integers || floats => PageEncoding::Plain,
            Encoding::DELTA_BINARY_PACKED if integers => PageEncoding::Delta,
            Encoding::PLAIN => return Err(self.refuse("plain values that are no integers of 4 or 8 bytes")),
            _ => return Err(self.refuse("an encoding that devices don't know")),
        };
        self.reserve(page.len())?;
        self.pages.push(EncodedPage {
            encoding,
            bytes: Buffer::from(page.clone()),
            values: count,
            skip: 0,
            passed: 0,
            keep: count,
            first: self.rows,
            nullable: false,
        });
        self.rows += count;
        self.valid = None;
        Ok(())
    }

    fn spread(&mut self, rows: usize, count: usize, validity: &Validity) {
        let first = self.rows - count;
        if count == 0 {
            self.pages.push(EncodedPage {
                encoding: PageEncoding::Plain,
                bytes: Buffer::from(Bytes::new()),
                values: 0,
                skip: 0,
                passed: 0,
                keep: 0,
                first,
                nullable: true,
            });
        }
        if let Some(page) = self.pages.last_mut() {
            (page.keep, page.nullable) = (rows, true);
        }
        self.rows = first + rows;
        let start = validity.rows() - rows;
        let valid = |row: usize| validity.is_valid(start + row);
        self.valid = self.partial.then(|| BooleanBuffer::collect_bool(rows, valid));
    }

    fn keep(&mut self, from: usize, ranges: &[Range<usize>]) {
        let Some(page) = self.pages.pop() else { return };
        self.rows = from;
        for range in ranges {
            let skip = range.start - from;
            let passed = match &self.valid {
                Some(valid) => valid.slice(0, skip).count_set_bits(),
                None => skip,
            };
            self.pages.push(EncodedPage {
                skip,
                passed,
                keep: range.len(),
                first: self.rows,
                ..page.clone()
            });
            self.rows += range.len();
        }
    }
}
