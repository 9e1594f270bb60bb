//! Filters before columns: segments of which a store keeps most columns back are tested first, and left out when no row passes.
//!
//! The tested columns of such a segment are loaded, the filters that stand before anything else go over them until a row
//! passes, and only then are the other columns asked for. That row's filters run again with all others: what is spared is
//! fetching, not computing.

use trireme_device_api::{DeviceError, Expr, Fragment, Inputs, ScanInput, Step};

use crate::expr::Program;
use crate::isa::Isa;
use crate::tile::{Origin, Selection, Slot, Tile};
use crate::vector::{Shape, TILE_ROWS};

use super::source::{Columns, used_columns};

/// The leading filters, and the columns that they test.
pub(super) struct Late {
    filters: Vec<Program>,
    /// By position among the used columns.
    pub(super) first: Vec<usize>,
}

impl Late {
    /// None when no column is put off, when filters test all columns, or when one of them may fail: a row that fails must be
    /// seen as ever.
    pub(super) fn compile(
        fragment: &Fragment,
        scan: &dyn ScanInput,
        row: &[Shape],
        inputs: &Inputs,
        isa: Isa,
    ) -> Result<Option<Self>, DeviceError> {
        if !(0..scan.segments()).any(|segment| scan.late(segment)) {
            return Ok(None);
        }
        let predicates: Vec<&Expr> = fragment
            .steps
            .iter()
            .map_while(|step| match step {
                Step::Filter(predicate) => Some(predicate),
                _ => None,
            })
            .collect();
        let compile = |predicate: &&Expr| Program::compile(predicate, row, &inputs.parameters, isa);
        let filters = predicates.iter().map(compile).collect::<Result<Vec<_>, _>>()?;
        let used = used_columns(fragment, row.len());
        let tested = |at: &usize| {
            predicates
                .iter()
                .any(|predicate| predicate.columns().contains(&used[*at]))
        };
        let first: Vec<usize> = (0..used.len()).filter(tested).collect();
        let helps = !first.is_empty() && first.len() < used.len() && !filters.iter().any(Program::can_fail);
        Ok(helps.then_some(Self { filters, first }))
    }

    /// Whether any row passes; columns that are not tested may be anything.
    pub(super) fn any_row_passes(&self, columns: &Columns, rows: usize) -> Result<bool, DeviceError> {
        let slots: Vec<_> = (0..columns.len())
            .map(|column| Slot::Origin { origin: 0, column })
            .collect();
        for start in (0..rows).step_by(TILE_ROWS) {
            let tile = Tile {
                rows: TILE_ROWS.min(rows - start),
                origins: vec![Origin {
                    columns,
                    selection: Selection::Range(start),
                }],
                slots: slots.clone(),
            };
            let mut passing = vec![1_u8; tile.rows];
            for filter in &self.filters {
                if let Some(mask) = filter.mask(&tile)? {
                    passing.iter_mut().zip(&mask).for_each(|(passes, one)| *passes &= one);
                }
            }
            if passing.contains(&1) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
