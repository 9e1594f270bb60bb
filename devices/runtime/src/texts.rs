//! Where the strings of handles stand in the host's memory.
//!
//! A handle names bytes in the arena: of an uploaded string column, of a table of constants, or a part of one. Whoever keeps
//! handles keeps [`Texts`] too, which keep the memory that the handles mean.

use std::collections::BTreeMap;
use std::sync::Arc;

use trireme_device_api::{DeviceError, Values};
use trireme_device_codegen::shape::HANDLE_LENGTH_BITS;

use crate::arena::Block;
use crate::uploaded::Uploaded;

/// Bytes by their place in the arena.
#[derive(Debug, Clone, Default)]
pub(crate) struct Texts {
    by_place: BTreeMap<u64, Text>,
}

#[derive(Debug, Clone)]
enum Text {
    Column(Arc<Uploaded>),
    Table(Arc<Table>),
}

/// A table of constants in device memory.
#[derive(Debug)]
pub(crate) struct Table {
    /// Its memory.
    pub(crate) block: Block,
    /// What stands there.
    pub(crate) content: Arc<[u8]>,
}

impl Texts {
    /// The strings of a column, if it has such.
    pub(crate) fn add_column(&mut self, column: &Arc<Uploaded>) {
        if let (Some(block), Some(_)) = (&column.bytes, &column.host) {
            self.by_place.insert(block.at(), Text::Column(Arc::clone(column)));
        }
    }

    /// The bytes of a table.
    pub(crate) fn add_table(&mut self, table: &Arc<Table>) {
        self.by_place.insert(table.block.at(), Text::Table(Arc::clone(table)));
    }

    /// Those of an earlier output.
    pub(crate) fn add(&mut self, other: &Texts) {
        self.by_place
            .extend(other.by_place.iter().map(|(at, text)| (*at, text.clone())));
    }

    /// The bytes of a handle.
    ///
    /// # Errors
    /// [`DeviceError::Internal`] when nothing stands there.
    pub(crate) fn get(&self, handle: u64) -> Result<&[u8], DeviceError> {
        let (at, length) = (handle >> HANDLE_LENGTH_BITS, handle & ((1 << HANDLE_LENGTH_BITS) - 1));
        if length == 0 {
            return Ok(&[]);
        }
        let lost = || DeviceError::Internal(format!("no string stands at {at}..+{length}"));
        let (start, text) = self.by_place.range(..=at).next_back().ok_or_else(lost)?;
        let from = usize::try_from(at - start).unwrap_or(usize::MAX);
        let end = from.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
        text.bytes().get(from..end).ok_or_else(lost)
    }
}

impl Text {
    fn bytes(&self) -> &[u8] {
        match self {
            Text::Column(column) => match column.host.as_ref().map(|column| &column.values) {
                Some(Values::Strings(strings)) => {
                    let first = strings.offsets.first().map_or(0, |first| *first as usize);
                    &strings.bytes[first..]
                }
                _ => &[],
            },
            Text::Table(table) => &table.content,
        }
    }
}
