//! How columns lie in device memory, and what is known of them.
//!
//! ```text
//!  scan       segment table (64-bit words in the arena)
//!               [0] segments   [1] tiles of all segments
//!               per segment:  rows, first tile, then per column: values, base, validity, bytes
//!             values  carriers (value = base + carrier), codes, floats, bits of booleans, or u32 offsets of strings
//!             validity  bits, row i at bit i of byte i / 8; 0 when the segment has no NULLs      bytes  the strings' bytes
//!
//!  resident   what an earlier fragment left: one array per column (no base), a byte per row where NULLs may be,
//!             booleans as bytes, strings as handles; the number of rows is a word in the arena
//! ```
//!
//! A string in registers is a *handle*: `offset << 24 | length`, the place of its bytes in the arena. Bytes never move: a
//! substring is another handle, and the host finds the string of a handle in the column that it uploaded.

use std::sync::Arc;

use trireme_device_api::{Dictionary, Type};

use crate::ir::Elem;

/// Bits of a handle that hold the length in bytes.
pub const HANDLE_LENGTH_BITS: u32 = 24;

/// Words before the first segment of a segment table.
pub const TABLE_HEADER_WORDS: usize = 2;

/// Words of a segment before its columns: rows, first tile.
pub const SEGMENT_HEADER_WORDS: usize = 2;

/// Words of a column in a segment: values, base, validity, bytes.
pub const COLUMN_WORDS: usize = 4;

/// How a column's values lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// Integral types of up to 64 bits: `base + element`; the base is 0 in resident columns. I8, I16, I32 or I64.
    Integer(Elem),
    /// Integral types of 128 bits.
    Wide,
    /// 32-bit floats.
    Float32,
    /// 64-bit floats.
    Float64,
    /// A bit per row: in scans.
    Bits,
    /// A byte per row, 0 or 1: resident booleans.
    Bytes,
    /// Codes of the column's dictionary: U8, U16 or U32.
    Code(Elem),
    /// Offsets (u32, one more than rows) and bytes: strings of scans.
    Offsets,
    /// Handles (u64): resident strings.
    Handles,
    /// Nothing: NULL in every row.
    Null,
}

/// A column, and what is known of it.
#[derive(Debug, Clone)]
pub struct ColumnShape {
    /// Logical type.
    pub data_type: Type,
    /// How it lies in memory.
    pub storage: Storage,
    /// NULLs may occur.
    pub nullable: bool,
    /// Bounds of integral values.
    pub range: Option<(i128, i128)>,
    /// Of codes.
    pub dictionary: Option<Arc<Dictionary>>,
    /// Rows of equal values stand together, as far as is known (a hint: results never depend on it).
    pub clustered: bool,
}

/// A table of segments.
#[derive(Debug, Clone, Default)]
pub struct ScanShape {
    /// Columns.
    pub columns: Vec<ColumnShape>,
    /// Rows of all segments.
    pub rows: u64,
    /// Segments at most; [`u64::MAX`] when that isn't known.
    pub segments: u64,
}

/// Where a region of a program lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RegionRef {
    /// The fragment whose program it is.
    pub fragment: usize,
    /// Position in [`crate::Program::regions`].
    pub region: usize,
}

/// A resident column.
#[derive(Debug, Clone)]
pub struct ResidentColumn {
    /// What it is.
    pub shape: ColumnShape,
    /// Its values; none of [`Storage::Null`].
    pub values: Option<RegionRef>,
    /// A byte per row, 1 is a value; none when the shape is not nullable.
    pub validity: Option<RegionRef>,
}

/// Rows that a fragment left in device memory.
#[derive(Debug, Clone)]
pub struct ResidentRows {
    /// Columns.
    pub columns: Vec<ResidentColumn>,
    /// A u64: how many rows there are.
    pub count: RegionRef,
    /// There are at most so many.
    pub bound: u64,
}
