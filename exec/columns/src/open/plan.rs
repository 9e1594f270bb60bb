//! What to fetch ahead, in the order of its use.
//!
//! ```text
//!  near  strings whose dictionaries must be complete before anything runs        scan by scan, segment by segment
//!  far   all other columns, those that filters test first                        scan by scan, segment by segment
//!  none  columns that are put off until a row is known to pass (`late.rs`)       once they are asked for
//! ```
//!
//! What the column cache holds is not planned.

use std::sync::atomic::Ordering;

use trireme_device_api::{DeviceError, RowTest};
use trireme_lake::ReadClass;

use super::dictionaries::Unknown;
use super::{Opener, late};
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
    let starter = opener.starter();
    for scan in opener.order() {
        let core = &cores[scan];
        let Some(starter) = starter.as_ref().filter(|_| !core.fetches.is_empty()) else {
            continue;
        };
        let test = &opener.openings[scan].table.test;
        let tested = late::decide(core, test).filter(|_| opener.options.put_off);
        core.late.store(tested.is_some(), Ordering::Relaxed);
        let columns = order(core, test);
        for segment in 0..core.segments.len() {
            for column in &columns {
                if planned[scan][segment * core.columns.len() + column] {
                    continue;
                }
                if tested.as_ref().is_some_and(|tested| !tested[*column]) {
                    core.fetches.put_off(segment, *column, starter);
                } else {
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
        let late = core.late.load(Ordering::Relaxed);
        for segment in 0..core.segments.len() {
            for (column, of) in core.columns.iter().enumerate() {
                let strings = matches!(&of.kind, ColumnKind::Stored { domain: Some(_), .. });
                if strings && !core.fetches.is_planned(segment, column) {
                    match core.fetches.starter() {
                        Some(starter) if late => core.fetches.put_off(segment, column, starter),
                        _ => add(&mut plan, core, segment, column, ReadClass::Far)?,
                    }
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
    let planned = core.planned(segment, column, class)?;
    plan.add(&core.fetches, segment, column, planned);
    Ok(())
}

fn begin(opener: &Opener, plan: Plan<'_>) {
    if let Some(starter) = opener.starter() {
        plan.start(&starter);
    }
}
