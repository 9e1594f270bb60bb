//! Sorted rows: the first few by selection in each group, else all of them.

use trireme_device_api::SortKey;

use super::{Lowered, Lowering, Sink};

mod full;
mod group;
pub(super) mod order;
mod select;
mod top;

use full::{FullSort, Limits};
use top::TopRows;

/// The sink that sorts.
pub(super) fn sink<'s>(
    l: &mut Lowering<'_>,
    keys: &'s [SortKey],
    limit: Option<usize>,
    offset: usize,
) -> Lowered<Box<dyn Sink + 's>> {
    let limits = Limits {
        offset: offset as u64,
        most: limit.map_or(u64::MAX, |limit| limit as u64),
    };
    if let Some(top) = TopRows::new(l, keys, limits)? {
        return Ok(Box::new(top));
    }
    Ok(Box::new(FullSort::new(l, keys, limits)?))
}
