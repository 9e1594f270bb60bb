//! A column as its file has it: pages, for devices that decode them.
//!
//! ```text
//!  page     [ values of rows that are not NULL ]      plain │ indexes into a dictionary │ differences
//!             of all its rows, of which `skip` are passed over and `keep` stand in the segment
//!  rows     | skip | keep … |  from row `first` of the segment on
//! ```
//!
//! Pages are decompressed, and levels are bits of validity already. What a page says is not trusted: who decodes checks every
//! value against the range that was promised, every index against the dictionary, and every cursor against the page's end.

use std::sync::Arc;

use arrow::buffer::{BooleanBuffer, Buffer};

use crate::column::DeviceColumn;
use crate::memory::Reservation;

/// How the values of a page are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageEncoding {
    /// One after another, the least significant byte first.
    Plain,
    /// A byte that says how wide indexes are, then indexes into this dictionary of the column as runs.
    Dictionary(usize),
    /// DELTA_BINARY_PACKED.
    Delta,
}

/// A page, or a run of its rows.
#[derive(Debug, Clone)]
pub struct EncodedPage {
    /// How its values are encoded.
    pub encoding: PageEncoding,
    /// The values.
    pub bytes: Buffer,
    /// Values of the page.
    pub values: usize,
    /// Rows of the page before the first one that is kept.
    pub skip: usize,
    /// Values of the rows that are skipped.
    pub passed: usize,
    /// Rows that are kept.
    pub keep: usize,
    /// Row of the segment of the first one.
    pub first: usize,
    /// Some of the page's rows are NULL.
    pub nullable: bool,
}

/// What decoded values are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum EncodedType {
    /// Integers. Plain and delta pages hold them in so many bytes, 4 or 8.
    Integers {
        /// Bytes of a plain value; 0 where all pages have dictionaries.
        bytes: u32,
        /// Plain values of 4 bytes have a sign.
        signed: bool,
        /// All values lie in it, or the file is wrong.
        range: (i64, i64),
    },
    /// 32-bit floats.
    Float32,
    /// 64-bit floats.
    Float64,
    /// Codes of the column's dictionary, below this number; all pages have dictionaries.
    Codes(u32),
}

/// A column of one segment, still encoded.
pub struct EncodedColumn {
    /// Rows of the segment.
    pub rows: usize,
    /// What values are.
    pub values: EncodedType,
    /// Pages, in order of their rows; together they keep every row once.
    pub pages: Vec<EncodedPage>,
    /// Dictionaries of pages: integers in two's complement, codes, bits of floats.
    pub dictionaries: Vec<Vec<u64>>,
    /// A set bit is a value; none when no row is NULL.
    pub validity: Option<BooleanBuffer>,
    /// The memory of all of it.
    pub reservation: Reservation,
}

/// What a scan hands out to a device that decodes.
pub enum Loaded {
    /// Pages.
    Encoded(Arc<EncodedColumn>),
    /// The decoded column, and why its pages are of no use to the device; none when the host had it already.
    Decoded(Arc<DeviceColumn>, Option<&'static str>),
}
