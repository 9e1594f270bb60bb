//! What to fetch ahead, in the order of its use.
//!
//! ```text
//!  near  strings whose dictionaries must be complete before anything runs        scan by scan, segment by segment
//!  far   all other columns, those that filters test first                        scan by scan, segment by segment
//! ```
//!
//! What the column cache holds is not planned.

use trireme_device_api::{DeviceError, RowTest};
use trireme_lake::{Planned, ReadClass};

use super::Opener;
use super::dictionaries::Unknown;
use crate::fetches::Plan;
use crate::scan::{ColumnKind, Core};

/// Begins to fetch; `unknown` are the strings that are decoded while the scans are opened.
pub(super) fn start(opener: &Opener, cores: &[Core], unknown: &[Unknown]) -> Result<(), DeviceError> {
    let mut plan = Plan::default();
    let mut planned: Vec<Vec<bool>> = cores.iter().map(|core| vec![false; slots(core)]).collect();
    for each in unknown.iter().filter(|each| !each.doubtful) {
        let core = &cores[each.scan];
        if let Some(slot) = planned[each.scan].get_mut(each.segment * core.columns.len() + each.column) {
            *slot = true;
            add(&mut plan, core, each.segment, each.column, ReadClass::Near)?;
        }
    }
    for scan in opener.order() {
        let core = &cores[scan];
        if core.fetches.is_empty() {
            continue;
        }
        let columns = order(core, &opener.openings[scan].table.test);
        for segment in 0..core.segments.len() {
            for column in &columns {
                if !planned[scan][segment * core.columns.len() + column] {
                    add(&mut plan, core, segment, *column, ReadClass::Far)?;
                }
            }
        }
    }
    begin(opener, plan);
    Ok(())
}

/// Once more what was fetched for a dictionary and could not be kept, or turned out to have too many values for one.
pub(super) fn start_again(opener: &Opener, cores: &[Core]) -> Result<(), DeviceError> {
    let mut plan = Plan::default();
    for scan in opener.order() {
        let core = &cores[scan];
        if core.fetches.is_empty() {
            continue;
        }
        for segment in 0..core.segments.len() {
            for (column, of) in core.columns.iter().enumerate() {
                let strings = matches!(&of.kind, ColumnKind::Stored { domain: Some(_), .. });
                if strings && !core.fetches.is_planned(segment, column) {
                    add(&mut plan, core, segment, column, ReadClass::Far)?;
                }
            }
        }
    }
    begin(opener, plan);
    Ok(())
}

fn slots(core: &Core) -> usize {
    match core.fetches.is_empty() {
        true => 0,
        false => core.segments.len() * core.columns.len(),
    }
}

/// Columns, those that are tested first.
fn order(core: &Core, test: &RowTest) -> Vec<usize> {
    let mut tested = vec![false; core.columns.len()];
    test.visit(&mut |column, _| {
        if let Some(of) = tested.get_mut(column) {
            *of = true;
        }
    });
    let mut columns: Vec<usize> = (0..core.columns.len()).collect();
    columns.sort_by_key(|column| !tested[*column]);
    columns
}

fn add<'a>(
    plan: &mut Plan<'a>,
    core: &'a Core,
    segment: usize,
    column: usize,
    class: ReadClass,
) -> Result<(), DeviceError> {
    let at = &core.segments[segment];
    let (_, source) = &core.files[at.file];
    if source.is_local() || core.columns[column].leaf(at.file).is_none() {
        return Ok(());
    }
    if core.cache.peek(&core.key(segment, column)).is_some() {
        return Ok(());
    }
    let ranges = core.ranges(segment, column)?;
    let planned: Option<Vec<Planned>> = ranges.into_iter().map(|range| source.planned(range, class)).collect();
    plan.add(&core.fetches, segment, column, planned.unwrap_or_default());
    Ok(())
}

fn begin(opener: &Opener, plan: Plan<'_>) {
    if let Some(runtime) = &opener.runtime {
        plan.start(&opener.window, runtime, &opener.arrivals);
    }
}
