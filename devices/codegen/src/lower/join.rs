//! Build sides and probes.

use trireme_device_api::{BuildSide, JoinKind, Probe};

use super::{Lowered, Lowering, Pass, Row, Sink, Unsupported};
use crate::ir::Expr as Ir;

/// A build side in device memory, as probes see it.
#[derive(Debug, Clone)]
pub struct BuildShape {}

/// The sink that builds.
pub(super) fn build_sink(l: &mut Lowering<'_>, side: &BuildSide) -> Lowered<Box<dyn Sink>> {
    let _ = (l, side);
    Err(Unsupported("not yet".to_owned()))
}

/// The probe at step `index`: for each match the remaining steps ([`Lowering::steps`] from `index + 1`).
pub(super) fn probe(
    l: &mut Lowering<'_>,
    index: usize,
    probe: &Probe,
    row: &mut Row,
    sink: &mut dyn Sink,
) -> Lowered<()> {
    let _ = (l, index, probe, row, sink);
    Err(Unsupported("not yet".to_owned()))
}

/// Build row number `build_row` (U32, below the pass's count) in the kernel of a pass: the remaining steps, if it is to pass.
pub(super) fn pass_row(l: &mut Lowering<'_>, pass: &Pass, build_row: &Ir, sink: &mut dyn Sink) -> Lowered<()> {
    let _ = (l, pass, build_row, sink);
    Err(Unsupported("not yet".to_owned()))
}

/// There are at most so many build rows.
pub(super) fn build_rows_bound(shape: &BuildShape) -> u64 {
    let _ = shape;
    0
}

/// Upper bound of the rows behind a probe (those of its pass included) of at most `rows` rows; none when it multiplies.
pub(super) fn rows_after(shape: Option<&BuildShape>, probe: &Probe, rows: u64) -> Option<u64> {
    let build = build_rows_bound(shape?);
    match probe.kind {
        JoinKind::Semi | JoinKind::Anti | JoinKind::Mark => Some(rows),
        JoinKind::BuildSemi | JoinKind::BuildAnti => Some(build),
        JoinKind::Inner | JoinKind::Left | JoinKind::BuildOuter | JoinKind::Full => None,
    }
}
