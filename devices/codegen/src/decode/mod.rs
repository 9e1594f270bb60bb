//! Pages of Parquet, decoded on the device: what is packed on disk is uploaded as it is, and unpacked where it is used.
//!
//! ```text
//!  table of pages ─▶ a group per page (groups loop over the rest)
//!    values   ─plain │ dictionary │ delta─▶ carriers             value − base, a value per row that is not NULL
//!    ranks    validity and dense carriers ─▶ a carrier per row   where the page has NULLs
//! ```
//!
//! Cursors through headers of runs and blocks are the same in all work-items of a group, which compute them side by side; only
//! the values of a run or block are divided. So no group waits for another, and one launch does any number of pages. Pages are
//! decompressed before, and levels are bits of validity. What a page says is never trusted: a cursor that would leave it, an
//! index beyond the dictionary, a value out of its range or a count that is wrong sets the column's fault word, and the page's
//! rows hold the range's least value.
//!
//! The format: <https://parquet.apache.org/docs/file-format/data-pages/encodings/>.

mod delta;
mod functions;
mod hybrid;
mod page;
mod ranks;

pub use page::{Encoding, Lane, PAGE_WORDS, Page};

use crate::ir::{Elem, Module};

/// Words of the block: the table of pages, and their number.
pub const BLOCK_WORDS: u32 = 2;

/// A module with one kernel, `decode_pages`, that decodes pages into arrays of `elem`: U8, U16, U32 or U64, which are the bits
/// of carriers, codes and floats. Texts differ by element and group only.
///
/// What is read from pages is read by aligned words of 8 bytes: the memory that they lie in must be a multiple of 8 long.
pub fn module(elem: Elem, group: u32) -> Module {
    Module {
        group,
        functions: functions::all(),
        kernels: vec![page::kernel(elem, group)],
    }
}
