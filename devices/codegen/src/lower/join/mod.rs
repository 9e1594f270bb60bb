//! Build sides and probes.
//!
//! ```text
//!  build     row ─▶ count += 1 ─▶ payload columns [row]
//!                                 keys ─▶ table
//!
//!  bits      a bit per key                                                 no probe asks for rows, keys lie near each other
//!  dense     heads[key] = row + 1 ─▶ next[row] = another row + 1 ─▶ … 0    keys lie near each other; bits in front of many
//!  hash      heads[hash] = row + 1 ─▶ entries[row] = (key's words, next)   else (`link`)
//!
//!  probe     keys ─▶ table ─▶ for each match: the remaining steps, the sink
//!  pass      for each build row that was (not) matched: the remaining steps, the sink
//! ```
//!
//! Launches of the build end before those of a probe begin, so a table is only read while it is probed. What a probe notes of
//! build rows (whether a row matched them) is a region of the probe's program.

mod build;
mod link;
mod probe;
mod rows;
mod table;
#[cfg(test)]
mod tests;
mod unique;
mod uses;

use trireme_device_api::{JoinKind, Probe};

pub(super) use build::build_sink;
pub(super) use probe::{pass_row, probe, probe_hash};
pub(super) use uses::has_pass;

use super::KeyShape;
use super::partition::Large;
use crate::shape::{RegionRef, ResidentColumn};
use table::Table;

/// Build rows have numbers of 32 bits, which tables hold plus one.
const ROWS_MAX: u64 = (1 << 31) - 2;

/// A build side in device memory, as probes see it.
#[derive(Debug, Clone)]
pub struct BuildShape {
    /// Decimal scales of the keys: integers of one scale only are compared.
    scales: Vec<i8>,
    /// How keys become words.
    key: KeyShape,
    /// NULL is a value of the keys.
    nulls_equal: bool,
    table: Table,
    /// Payload; none where no probe reads it.
    columns: Vec<Option<ResidentColumn>>,
    /// A u64: how many rows there are; where no probe asks for rows, whether there are any, if a probe asks for that.
    count: RegionRef,
    /// Words about the whole, by [`table::Tally`].
    tally: RegionRef,
    /// There are at most so many rows.
    bound: u64,
    /// No two rows have equal keys.
    unique: bool,
}

impl BuildShape {
    /// Upper bound of the build rows that one row matches.
    fn matches_max(&self) -> u64 {
        if self.unique { 1 } else { self.bound }
    }
}

/// The table, where rows are put in order for it.
pub(super) fn large(shape: &BuildShape) -> Option<Large> {
    match &shape.table {
        Table::Hash(table) => table.large(shape.bound),
        Table::Every | Table::Bits(_) | Table::Dense { .. } => None,
    }
}

/// There are at most so many build rows.
pub(super) fn build_rows_bound(shape: &BuildShape) -> u64 {
    shape.bound
}

/// Whether one row may become several.
pub(super) fn multiplies(shape: Option<&BuildShape>, probe: &Probe) -> bool {
    uses::appends(probe.kind) && shape.is_none_or(|shape| shape.matches_max() > 1)
}

/// Upper bound of the rows behind a probe (those of its pass included) of at most `rows` rows; none when it multiplies.
pub(super) fn rows_after(shape: Option<&BuildShape>, probe: &Probe, rows: u64) -> Option<u64> {
    /// Products up to this are bounds that tables can be made for.
    const SMALL: u64 = 1 << 11;
    let shape = shape?;
    let pairs = match shape.matches_max() {
        most @ (0 | 1) => Some(rows * most),
        most => rows.checked_mul(most).filter(|pairs| *pairs <= SMALL),
    };
    match probe.kind {
        JoinKind::Semi | JoinKind::Anti | JoinKind::Mark => Some(rows),
        JoinKind::BuildSemi | JoinKind::BuildAnti => Some(shape.bound),
        JoinKind::Inner => pairs,
        JoinKind::BuildOuter => pairs.map(|pairs| pairs + shape.bound),
        JoinKind::Left => pairs.map(|pairs| pairs.max(rows)),
        JoinKind::Full => pairs.map(|pairs| pairs.max(rows) + shape.bound),
    }
}
