//! A bit per value of one key, before a hash table of several: most rows that match nothing are told by it alone.
//!
//! ```text
//!  (ps_partkey, ps_suppkey) of 5 % of the parts      a row of lineitem ─ bit of l_partkey set? ─▶ pack both keys, hash, look up
//! ```
//!
//! Bits of a key's range fit the nearest caches where its hash table doesn't, and testing one takes less than hashing.

use trireme_device_api::{DeviceError, Reservation};

use super::build::key_columns;
use super::finish::Building;
use super::keys::{KeyKind, Packing};
use super::table::ranks::Ranks;
use crate::isa::Isa;
use crate::vector::Vector;

/// Keys of a wider range get no bits: they would not stay in the second-level cache.
const RANGE_MAX: u128 = 1 << 22;
/// At most one value in so many of its range may be there.
const SPARSE: usize = 4;
/// A key that occurs more often than this is taken to have all values of its range.
const ROWS_PER_VALUE: u128 = 2;

/// The values of one key that are there.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) key: usize,
    pub(super) packing: Packing,
    pub(super) held: Ranks,
}

impl Screen {
    /// Of the key that leaves out most; none when none is sparse. For build sides whose keys are `packing`.
    ///
    /// # Errors
    /// Memory is short.
    pub(super) fn of(
        building: &Building,
        packing: &Packing,
        reservation: &mut Reservation,
    ) -> Result<Option<Self>, DeviceError> {
        let kinds = &building.table.kinds;
        let mut best: Option<Self> = None;
        for (key, _) in kinds
            .iter()
            .enumerate()
            .filter(|(_, kind)| matches!(kind, KeyKind::Integer(_)))
        {
            let Some(packing) = packing.only(key).filter(|_| kinds.len() > 1) else {
                continue;
            };
            let size = packing.size();
            if size > RANGE_MAX || building.table.rows as u128 > ROWS_PER_VALUE * size {
                continue;
            }
            reservation.grow(Ranks::bytes(size as usize))?;
            let held = Ranks::new(size as usize, |see| building.each_position(&packing, Some(key), see));
            let share = |screen: &Self| screen.held.count() as f64 / screen.packing.size() as f64;
            let screen = Self { key, packing, held };
            let sparse = screen.held.count() * SPARSE <= size as usize;
            if sparse && best.as_ref().is_none_or(|best| share(&screen) < share(best)) {
                best = Some(screen);
            }
        }
        Ok(best)
    }

    /// The rows of a tile that may match, where they are few.
    pub(super) fn passing(&self, isa: Isa, keys: &[Vector<'_>], rows: usize, nulls: bool) -> Option<Vec<u32>> {
        let column = key_columns(keys.get(self.key..=self.key)?, &[None]);
        if column.is_empty() {
            return None;
        }
        let mut positions = Vec::new();
        self.packing.pack_positions(isa, &column, rows, nulls, &mut positions);
        let passing = self.held.passing(isa, &positions);
        (passing.len() * 2 <= rows).then_some(passing)
    }
}
