//! Strings: pages of them, as offsets and bytes, or as codes of the column's dictionary.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Encoding;
use trireme_device_api::{DeviceError, DevicePool, Reservation};

use super::Failure;
use super::hybrid::{each_index, look_up};
use super::pages::{PageError, Target, keep, spread};
use super::plain::deltas;
use super::validity::Validity;
use crate::dictionary::{Domain, Refused, TakeBytes};

/// Calls `each` with the values of a page that is not dictionary indices.
pub(crate) fn each_value(
    encoding: Encoding,
    page: &[u8],
    count: usize,
    mut each: impl FnMut(&[u8]) -> Result<(), PageError>,
) -> Result<(), PageError> {
    let mut data = page;
    match encoding {
        Encoding::PLAIN => {
            for _ in 0..count {
                let length = data.first_chunk::<4>().ok_or_else(too_few)?;
                let (value, rest) = data[4..]
                    .split_at_checked(u32::from_le_bytes(*length) as usize)
                    .ok_or_else(too_few)?;
                data = rest;
                each(value)?;
            }
            Ok(())
        }
        Encoding::DELTA_LENGTH_BYTE_ARRAY => {
            let lengths = lengths(&mut data, count)?;
            for length in lengths {
                let (value, rest) = data.split_at_checked(length).ok_or_else(too_few)?;
                data = rest;
                each(value)?;
            }
            Ok(())
        }
        Encoding::DELTA_BYTE_ARRAY => {
            let prefixes = lengths(&mut data, count)?;
            let suffixes = lengths(&mut data, count)?;
            let mut value: Vec<u8> = Vec::new();
            for (prefix, suffix) in prefixes.into_iter().zip(suffixes) {
                let (end, rest) = data.split_at_checked(suffix).ok_or_else(too_few)?;
                data = rest;
                if prefix > value.len() {
                    return Err(PageError::corrupt("a prefix longer than the value before"));
                }
                value.truncate(prefix);
                value.extend_from_slice(end);
                each(&value)?;
            }
            Ok(())
        }
        _ => Err(PageError::Unknown),
    }
}

fn lengths(data: &mut &[u8], count: usize) -> Result<Vec<usize>, PageError> {
    let mut lengths = Vec::with_capacity(count.min(data.len() * 64));
    // Lengths have 32 bits and wrap as such.
    deltas(data, count, |length| lengths.push(length as u32 as usize))?;
    Ok(lengths)
}

fn too_few() -> PageError {
    PageError::corrupt("values end early")
}

/// A page's dictionary.
fn entries(page: &Bytes, count: usize) -> Result<Vec<Range<usize>>, PageError> {
    let mut entries = Vec::with_capacity(count.min(page.len() / 4));
    let mut start = 0;
    each_value(Encoding::PLAIN, page, count, |value| {
        start += 4;
        entries.push(start..start + value.len());
        start += value.len();
        Ok(())
    })?;
    Ok(entries)
}

/// Bytes that are made room for at most before they are there.
const AHEAD_BYTES: usize = 16 << 20;

/// Offsets and bytes being filled.
pub(crate) struct Spelled {
    pub(crate) offsets: Vec<u32>,
    pub(crate) bytes: Vec<u8>,
    rows: usize,
    dictionary: (Bytes, Vec<Range<usize>>),
    foreseen: usize,
    beyond: Reservation,
}

impl Spelled {
    /// `bytes` are about what the strings take, and are the caller's to reserve.
    pub(crate) fn new(rows: usize, bytes: usize, pool: &Arc<dyn DevicePool>) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self {
            offsets,
            bytes: Vec::with_capacity(bytes),
            rows,
            dictionary: (Bytes::new(), Vec::new()),
            foreseen: bytes,
            beyond: Reservation::new(pool),
        }
    }

    /// Reserves what is more than was foreseen: a dictionary's entries may be repeated without end.
    fn reserve_beyond(&mut self, more: usize) -> Result<(), PageError> {
        let beyond = (self.bytes.len() + more).saturating_sub(self.foreseen);
        let grown = self.beyond.grow_to(beyond);
        grown.map_err(|error| PageError::Failed(error.into()))
    }
}

fn end_of(bytes: &[u8]) -> Result<u32, PageError> {
    u32::try_from(bytes.len()).map_err(|_| {
        let text = "more than 4 GiB of strings in one segment";
        PageError::Failed(DeviceError::Unsupported(text.to_owned()).into())
    })
}

impl Target for Spelled {
    fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    fn dictionary(&mut self, page: &Bytes, count: usize) -> Result<(), PageError> {
        self.dictionary = (page.clone(), entries(page, count)?);
        // As if each were used as often: growing in many steps would copy what is there each time.
        let mean = (page.len() / count.max(1)).saturating_sub(4);
        let left = self.rows.saturating_sub(self.len());
        self.bytes.reserve(mean.saturating_mul(left).min(AHEAD_BYTES));
        Ok(())
    }

    fn append(&mut self, encoding: Encoding, page: &Bytes, count: usize) -> Result<(), PageError> {
        if matches!(encoding, Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY) {
            let mut more = 0;
            let entries = &self.dictionary.1;
            each_index(page, count, entries.len(), |index, times| {
                more += entries[index].len() * times;
                Ok::<(), PageError>(())
            })?;
            self.reserve_beyond(more)?;
        }
        let (offsets, bytes) = (&mut self.offsets, &mut self.bytes);
        let mut push = |value: &[u8]| {
            bytes.extend_from_slice(value);
            offsets.push(end_of(bytes)?);
            Ok(())
        };
        if !matches!(encoding, Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY) {
            return each_value(encoding, page, count, push);
        }
        let (values, entries) = &self.dictionary;
        each_index(page, count, entries.len(), |index, times| {
            let value = &values[entries[index].clone()];
            (0..times).try_for_each(|_| push(value))
        })
    }

    fn spread(&mut self, rows: usize, count: usize, validity: &Validity) {
        // The end of a NULL is that of the value before.
        let start = self.offsets.len() - count;
        let first = validity.rows() - rows;
        let before = self.offsets[start - 1];
        self.offsets.resize(start + rows, before);
        let mut dense = count;
        for row in (0..rows).rev() {
            self.offsets[start + row] = match dense {
                0 => before,
                _ => self.offsets[start + dense - 1],
            };
            dense -= usize::from(validity.is_valid(first + row));
        }
    }

    fn keep(&mut self, from: usize, ranges: &[Range<usize>]) {
        let (mut row, mut end) = (from, self.offsets[from]);
        for range in ranges {
            let (first, last) = (self.offsets[range.start], self.offsets[range.end]);
            self.bytes.copy_within(first as usize..last as usize, end as usize);
            for kept in range.clone() {
                row += 1;
                self.offsets[row] = self.offsets[kept + 1] - (first - end);
            }
            end += last - first;
        }
        self.bytes.truncate(end as usize);
        self.offsets.truncate(row + 1);
    }
}

/// A carrier of codes.
pub(crate) trait Code: Copy + Default {
    /// None when it does not fit.
    fn of(code: u32) -> Option<Self>;
}

impl Code for u8 {
    fn of(code: u32) -> Option<Self> {
        u8::try_from(code).ok()
    }
}

impl Code for u16 {
    fn of(code: u32) -> Option<Self> {
        u16::try_from(code).ok()
    }
}

impl Code for u32 {
    fn of(code: u32) -> Option<Self> {
        Some(code)
    }
}

/// Codes being filled.
pub(crate) struct Coded<'a, T> {
    domain: &'a Domain,
    take: TakeBytes<'a>,
    is_text: bool,
    /// The footer says that all pages are codes.
    is_listed: bool,
    /// Codes of the page's dictionary.
    dictionary: Vec<T>,
    pub(crate) out: Vec<T>,
}

impl<'a, T: Code> Coded<'a, T> {
    pub(crate) fn new(domain: &'a Domain, take: TakeBytes<'a>, is_text: bool, is_listed: bool, rows: usize) -> Self {
        Self {
            domain,
            take,
            is_text,
            is_listed,
            dictionary: Vec::new(),
            out: Vec::with_capacity(rows),
        }
    }
}

/// Appends the codes of a page's values, which are given codes where they have none.
fn intern<T: Code>(
    domain: &Domain,
    take: TakeBytes<'_>,
    is_text: bool,
    (encoding, page, count): (Encoding, &[u8], usize),
    rows_before: usize,
    codes: &mut Vec<T>,
) -> Result<(), PageError> {
    let mut interner = domain.lock();
    let mut rows = rows_before;
    each_value(encoding, page, count, |value| {
        rows += 1;
        let code = interner
            .intern(value, is_text, rows, take)
            .map_err(|refused| match refused {
                Refused::NotText => PageError::corrupt("a string that is not UTF-8"),
                refused => PageError::Failed(Failure::from(refused)),
            })?;
        codes.push(T::of(code).ok_or(PageError::Narrow)?);
        Ok(())
    })
}

/// The codes of a dictionary page's values.
pub(crate) fn codes_of_page(
    domain: &Domain,
    take: TakeBytes<'_>,
    is_text: bool,
    page: &Bytes,
    count: usize,
) -> Result<Vec<u32>, PageError> {
    let mut codes = Vec::with_capacity(count.min(page.len() / 4));
    // How many rows stand behind a dictionary's values is not known yet: they are as many as may be.
    let rows = usize::MAX / 4;
    let values = (Encoding::PLAIN, page.as_ref(), count);
    intern(domain, take, is_text, values, rows, &mut codes)?;
    Ok(codes)
}

impl<T: Code> Target for Coded<'_, T> {
    fn len(&self) -> usize {
        self.out.len()
    }

    fn dictionary(&mut self, page: &Bytes, count: usize) -> Result<(), PageError> {
        self.dictionary.clear();
        // How many rows stand behind a dictionary's values is not known yet: they are as many as may be.
        let rows = usize::MAX / 4;
        let values = (Encoding::PLAIN, page.as_ref(), count);
        intern(self.domain, self.take, self.is_text, values, rows, &mut self.dictionary)
    }

    fn append(&mut self, encoding: Encoding, page: &Bytes, count: usize) -> Result<(), PageError> {
        if matches!(encoding, Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY) {
            return look_up(page, count, &self.dictionary, &mut self.out);
        }
        if self.is_listed {
            // Scans were opened with the dictionary's values alone: another reader has to take this file.
            let text = "a page of strings that are not codes, against the file's footer";
            return Err(PageError::Failed(DeviceError::Unsupported(text.to_owned()).into()));
        }
        let values = (encoding, page.as_ref(), count);
        let rows = self.out.len();
        intern(self.domain, self.take, self.is_text, values, rows, &mut self.out)
    }

    fn spread(&mut self, rows: usize, count: usize, validity: &Validity) {
        spread(&mut self.out, rows, count, validity);
    }

    fn keep(&mut self, from: usize, ranges: &[Range<usize>]) {
        keep(&mut self.out, from, ranges);
    }
}
