//! The leading filters of a fragment, and the keys of its joins, as far as they test source columns: a morsel at a time, before it
//! is cut into tiles.
//!
//! ```text
//!  morsel ──tests──▶ a bit per row ──few left──▶ tiles of the rows that are left, from as much of the morsel as they need
//!                                  ──many─────▶ tiles of adjacent rows, with a mask where the sink takes one
//! ```
//!
//! A column is read once from end to end, as the processor's prefetching likes it, and a tile costs the same whether its rows
//! stand close or far apart. Tiles follow from the bits and the row they begin at alone, so a step that stopped within one
//! finds it again.

use std::sync::Arc;

use trireme_device_api::{DeviceError, JoinKind};

use crate::bits::{WORD_ROWS, all, bytes, count, positions};
use crate::expr::{ColumnTest, Program, Span};
use crate::isa::Isa;
use crate::tile::Selection;
use crate::vector::{Shape, TILE_ROWS};

use super::source::Morsel;
use super::stages::{COMPACT_BELOW, Stage};

/// Tests that every row passes before the first stage.
pub(super) struct Sieve {
    tests: Vec<ColumnTest>,
}

/// The rows of a morsel that passed.
pub(super) struct Sieved {
    /// None when all did.
    words: Option<Vec<u64>>,
    /// Tiles have a mask rather than positions.
    masked: bool,
}

/// The next tile of a morsel.
pub(super) struct Cut {
    pub(super) selection: Selection,
    pub(super) rows: usize,
    pub(super) mask: Option<Vec<u8>>,
    /// Rows of the morsel that are done with it.
    pub(super) covered: usize,
}

impl Sieve {
    /// Takes the tests out of the leading filters, and filters without others out of the stages; `rows` are the shapes before
    /// each stage. Says how many stages are gone.
    pub(super) fn take(stages: &mut Vec<Stage>, rows: &mut Vec<Vec<Shape>>) -> (Self, usize) {
        let (mut tests, mut gone) = (Vec::new(), 0);
        // What comes after a filter that may fail must not spare it a row.
        let leading = |stage: &Stage| matches!(stage, Stage::Filter(program) if !program.can_fail());
        let mut at = 0;
        while stages.get(at).is_some_and(leading) {
            if let Stage::Filter(program) = &mut stages[at]
                && program.take_tests(&mut tests)
            {
                stages.remove(at);
                rows.remove(at);
                gone += 1;
            } else {
                at += 1;
            }
        }
        screens(stages, rows.first().map_or(0, Vec::len), &mut tests);
        (Self { tests }, gone)
    }

    /// Tests the rows of a morsel; `masks`: what follows takes a mask.
    ///
    /// # Errors
    /// As [`ColumnTest::apply`].
    pub(super) fn sift(&self, morsel: &Morsel, masks: bool, isa: Isa) -> Result<Sieved, DeviceError> {
        if self.tests.is_empty() {
            return Ok(Sieved {
                words: None,
                masked: false,
            });
        }
        let mut words = all(morsel.rows);
        let span = Span {
            columns: &morsel.columns,
            start: morsel.start,
            rows: morsel.rows,
        };
        for test in &self.tests {
            test.apply(span, &mut words, isa)?;
        }
        let kept = count(&words);
        Ok(Sieved {
            words: (kept < morsel.rows).then_some(words),
            masked: masks && kept * COMPACT_BELOW >= morsel.rows,
        })
    }
}

/// Tests of source columns by the keys of joins that leave out rows without a match.
fn screens(stages: &[Stage], columns: usize, tests: &mut Vec<ColumnTest>) {
    for stage in stages {
        let probe = match stage {
            Stage::Filter(program) if !program.can_fail() => continue,
            Stage::Probe(probe) => probe,
            _ => return,
        };
        // Rows that such an expression fails for must be seen.
        if probe.keys.iter().chain(&probe.residual).any(Program::can_fail) {
            return;
        }
        let (drops, goes_on) = match probe.kind {
            JoinKind::Inner | JoinKind::Semi => (true, true),
            JoinKind::BuildOuter | JoinKind::BuildSemi | JoinKind::BuildAnti => (true, false),
            JoinKind::Left | JoinKind::Anti | JoinKind::Mark => (false, true),
            JoinKind::Full => (false, false),
        };
        if drops
            && !probe.prober.how.nulls_equal
            && let Some(keys) = probe.table.held_keys()
            && let Some(column) = probe
                .keys
                .get(keys.key)
                .and_then(Program::column)
                .filter(|column| *column < columns)
        {
            tests.push(ColumnTest::Held {
                column,
                table: Arc::clone(&probe.table),
            });
        }
        // Behind a join that remembers what it found every row must be seen.
        if !goes_on {
            return;
        }
    }
}

impl Sieved {
    /// The tile that begins at row `done` of a morsel; none of its rows may be left.
    pub(super) fn cut(&self, morsel: &Morsel, done: usize, isa: Isa) -> Cut {
        let start = morsel.start + done;
        let whole = |rows: usize| Cut {
            selection: Selection::Range(start),
            rows,
            mask: None,
            covered: rows,
        };
        let (left, first) = (morsel.rows - done, done / WORD_ROWS);
        let tile = TILE_ROWS.min(left);
        let Some(words) = &self.words else {
            return whole(tile);
        };
        if self.masked {
            let words = &words[first..first + tile.div_ceil(WORD_ROWS)];
            return match count(words) {
                kept if kept == tile => whole(tile),
                0 => Cut { rows: 0, ..whole(tile) },
                _ => Cut {
                    mask: Some(bytes(words, tile)),
                    ..whole(tile)
                },
            };
        }
        let (positions, taken) = positions(isa, &words[first..], start as u32, TILE_ROWS);
        let covered = left.min(taken * WORD_ROWS);
        if positions.len() == covered {
            return whole(covered);
        }
        Cut {
            rows: positions.len(),
            selection: Selection::Positions(positions),
            mask: None,
            covered,
        }
    }
}
