//! To be written.

use trireme_device_api::SortKey;

use super::{Lowered, Lowering, Sink, Unsupported};

/// The sink that sorts.
pub(super) fn sink(
    l: &mut Lowering<'_>,
    keys: &[SortKey],
    limit: Option<usize>,
    offset: usize,
) -> Lowered<Box<dyn Sink>> {
    let _ = (l, keys, limit, offset);
    Err(Unsupported("not yet".to_owned()))
}
