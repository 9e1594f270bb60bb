//! Whether columns that no filter tests are put off until some row of their segment is known to pass.
//!
//! Putting off costs a round trip per segment, so it must be likely that most segments have no such row: constants that few
//! rows can equal, by how far the column's values reach, where neither bounds nor Bloom filters could tell.

use std::sync::atomic::Ordering;

use trireme_device_api::{BinaryOperator, ColumnTest, RowTest, Value};

use crate::scan::{ColumnKind, Core};

/// Rows that pass in a segment, about, below which its other columns are put off.
const ROWS_MAX: f64 = 0.25;

/// Bytes of other columns of the scan below which that is not worth a round trip.
const WORTH_BYTES: u64 = if cfg!(test) { 64 << 10 } else { 4 << 20 };

/// Decides; gives the tested columns.
pub(super) fn decide(core: &Core, test: &RowTest) -> Option<Vec<bool>> {
    if *test == RowTest::True || core.readers != 1 || core.segments.is_empty() {
        return None;
    }
    let rows = core.segments.iter().map(|segment| segment.rows).max()?;
    if share(core, test) * rows as f64 > ROWS_MAX {
        return None;
    }
    let mut tested = vec![false; core.columns.len()];
    test.visit(&mut |column, _| {
        if let Some(of) = tested.get_mut(column) {
            *of = true;
        }
    });
    let mut bytes = 0_u64;
    for segment in 0..core.segments.len() {
        for column in (0..core.columns.len()).filter(|column| !tested[*column]) {
            let strings = matches!(&core.columns[column].kind, ColumnKind::Stored { domain: Some(_), .. });
            if !strings || core.columns[column].is_raw.load(Ordering::Acquire) {
                let ranges = core.ranges(segment, column).unwrap_or_default();
                bytes += ranges.iter().map(|range| range.end - range.start).sum::<u64>();
            }
        }
    }
    (bytes >= WORTH_BYTES).then_some(tested)
}

/// The share of rows that pass, about; not less where values are spread evenly.
fn share(core: &Core, test: &RowTest) -> f64 {
    match test {
        RowTest::True => 1.0,
        // As if columns had nothing to do with one another.
        RowTest::All(tests) => {
            let each: f64 = tests.iter().map(|test| share(core, test)).product();
            each * of_ranges(core, tests)
        }
        RowTest::Any(tests) => tests.iter().map(|test| share(core, test)).sum::<f64>().min(1.0),
        RowTest::Column(column, test) => match (test.points(), reach(core, *column)) {
            (Some(points), Some((low, high))) => (points.len() as f64 / (high - low + 1) as f64).min(1.0),
            _ => 1.0,
        },
    }
}

/// Conditions from both sides on one column.
fn of_ranges(core: &Core, tests: &[RowTest]) -> f64 {
    let mut least = 1.0_f64;
    for column in 0..core.columns.len() {
        let Some((low, high)) = reach(core, column) else {
            continue;
        };
        let (mut from, mut to) = (low, high);
        for test in tests {
            match test {
                RowTest::Column(of, ColumnTest::Compare(op, Value::Int(value))) if *of == column => match op {
                    BinaryOperator::Greater | BinaryOperator::GreaterOrEqual => from = from.max(*value),
                    BinaryOperator::Less | BinaryOperator::LessOrEqual => to = to.min(*value),
                    _ => {}
                },
                _ => {}
            }
        }
        least = least.min(((to - from).max(0) + 1) as f64 / (high - low + 1) as f64);
    }
    least
}

/// How far a column's values reach over all segments, where that is known of integers.
fn reach(core: &Core, column: usize) -> Option<(i128, i128)> {
    let of = core.columns.get(column)?;
    let mut ranges = of.promises.iter().map(|promise| promise.zone.range);
    let first = ranges.next()??;
    ranges
        .try_fold(first, |(low, high), range| {
            let (least, most) = range?;
            Some((low.min(least), high.max(most)))
        })
        .filter(|(low, high)| high.checked_sub(*low).is_some_and(|reach| reach < i128::MAX / 2))
}
