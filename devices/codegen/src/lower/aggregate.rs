//! To be written.

use trireme_device_api::{Aggregate, Expr};

use super::{Lowered, Lowering, Sink, Unsupported};

/// The sink of groups and aggregates.
pub(super) fn sink(l: &mut Lowering<'_>, groups: &[Expr], aggregates: &[Aggregate]) -> Lowered<Box<dyn Sink>> {
    let _ = (l, groups, aggregates);
    Err(Unsupported("not yet".to_owned()))
}
