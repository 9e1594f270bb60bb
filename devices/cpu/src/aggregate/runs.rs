//! Runs of equal keys: sorted and clustered input looks up and updates a group once for each run, not for each row.
//!
//! Sums of runs come from one running sum over the tile and two reads of it per run, without a branch per row: the length of
//! runs of real data (lines per order) can't be predicted.

use std::borrow::Cow;

use crate::aggregate::input::{Input, Lanes, integers};
use crate::aggregate::primitive::{Operation, Primitive};
use crate::aggregate::state::Sum;
use crate::compact::kept;
use crate::isa::{Isa, primitive};

/// Fewer rows than these aren't worth a look.
const LEAST_ROWS: usize = 64;

/// Whether all primitives can take a run of a tile of `rows` rows at once, and runs are worth a look (or wanted: `any`).
pub(super) fn summable(primitives: &[Primitive], rows: usize, any: bool) -> bool {
    (any || rows >= LEAST_ROWS)
        && primitives.iter().all(|primitive| match primitive.operation {
            Operation::Rows | Operation::Valid => true,
            Operation::Sum { largest } => Sum::fits_word(largest, rows),
            _ => false,
        })
}

/// Where runs of equal keys start, and the end of the last; none when runs are short, unless they may be (`any`).
pub(super) fn starts<K: Copy + Eq>(isa: Isa, keys: &[K], any: bool) -> Option<Vec<u32>> {
    let mut changed = vec![0; keys.len().saturating_sub(1)];
    let runs = changes(isa, keys, &mut changed) + 1;
    if runs * 2 > keys.len() && !any {
        return None;
    }
    let mut starts = vec![0];
    starts.extend(kept(isa, &changed, 1));
    starts.push(keys.len() as u32);
    Some(starts)
}

primitive! {
    /// 1 for each key but the first that differs from the one before; how many do.
    fn changes[K: Copy + Eq](keys: &[K], changed: &mut [u8]) -> usize {
        let pairs = keys.iter().zip(&keys[1.min(keys.len())..]);
        for (changed, (before, after)) in changed.iter_mut().zip(pairs) {
            *changed = u8::from(before != after);
        }
        changed.iter().fold(0_u32, |count, changed| count + u32::from(*changed)) as usize
    }
}

/// The input of each run: its rows' sum, or count.
pub(super) fn reduce<'a>(primitive: &Primitive, input: &Input, selected: Option<&[u32]>, starts: &[u32]) -> Input<'a> {
    let rows = starts.last().map_or(0, |&end| end as usize);
    // The sum of the rows before each row.
    let mut running = vec![0_i64; rows + 1];
    let after = running[1..].iter_mut();
    let mut total = 0_i64;
    let row_of = |place: usize| selected.map_or(place, |selected| selected[place] as usize);
    if matches!(primitive.operation, Operation::Sum { .. }) {
        integers!(&input.lanes, i64, |values, widen| match (&input.pass, selected) {
            (None, None) => {
                for (after, &value) in after.zip(values.iter()) {
                    total = total.wrapping_add(widen(value));
                    *after = total;
                }
            }
            (pass, _) => {
                for (after, row) in after.zip((0..rows).map(row_of)) {
                    let counts = pass.as_ref().is_none_or(|pass| pass[row] != 0);
                    total = total.wrapping_add(if counts { widen(values[row]) } else { 0 });
                    *after = total;
                }
            }
        }, else ());
    } else if let Some(pass) = &input.pass {
        for (after, row) in after.zip((0..rows).map(row_of)) {
            total += i64::from(pass[row]);
            *after = total;
        }
    } else {
        let lengths = starts.windows(2).map(|pair| i64::from(pair[1] - pair[0]));
        return Input {
            lanes: Lanes::I64(lengths.collect()),
            pass: None,
        };
    }
    let sums: Vec<i64> = starts
        .windows(2)
        .map(|pair| running[pair[1] as usize].wrapping_sub(running[pair[0] as usize]))
        .collect();
    Input {
        lanes: Lanes::I64(Cow::Owned(sums)),
        pass: None,
    }
}
