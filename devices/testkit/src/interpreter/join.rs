//! Joins by trying all pairs of rows with equal keys.

use std::collections::HashMap;

use trireme_device_api::{DeviceError, Expr, JoinKind, Probe, Value};

use super::evaluate::{evaluate, truth};
use super::{Built, Table};
use crate::values::{Key, Row};

/// Beyond so many rows a case takes too long to be judged; it is left out.
const ROWS_MAX: usize = 300_000;

fn keys_of(keys: &[Expr], row: &[Value], parameters: &[Value]) -> Result<Vec<Key>, DeviceError> {
    keys.iter()
        .map(|key| Ok(Key::of(&evaluate(key, row, parameters)?, &key.data_type)))
        .collect()
}

/// Rows of the probe side and of the build side that match each other.
struct Matches {
    /// For each row, the build rows that match it.
    of_row: Vec<Vec<usize>>,
    /// For each build row, whether some row matches it.
    build_matched: Vec<bool>,
}

fn find_matches(probe: &Probe, table: &Table, built: &Built, parameters: &[Value]) -> Result<Matches, DeviceError> {
    let mut by_key: HashMap<&[Key], Vec<usize>> = HashMap::new();
    for (index, (keys, _)) in built.rows.iter().enumerate() {
        if probe.null_equals_null || !keys.contains(&Key::Null) {
            by_key.entry(keys).or_default().push(index);
        }
    }
    let mut matches = Matches {
        of_row: Vec::new(),
        build_matched: vec![false; built.rows.len()],
    };
    let mut total = 0;
    for row in &table.rows {
        let keys = keys_of(&probe.keys, row, parameters)?;
        let mut found = Vec::new();
        for &candidate in by_key.get(keys.as_slice()).map_or(&[][..], Vec::as_slice) {
            let is_match = match &probe.residual {
                Some(residual) => {
                    let pair = [row.as_slice(), built.rows[candidate].1.as_slice()].concat();
                    truth(&evaluate(residual, &pair, parameters)?)? == Some(true)
                }
                None => true,
            };
            if is_match {
                found.push(candidate);
                matches.build_matched[candidate] = true;
            }
        }
        total += found.len();
        if total > ROWS_MAX {
            return Err(DeviceError::Unsupported(
                "the interpreter takes no more rows".to_owned(),
            ));
        }
        matches.of_row.push(found);
    }
    Ok(matches)
}

/// The rows after a probe.
pub(crate) fn probe(probe: &Probe, table: Table, built: &Built, parameters: &[Value]) -> Result<Table, DeviceError> {
    let matches = find_matches(probe, &table, built, parameters)?;
    let row_nulls = vec![Value::Null; table.slack.len()];
    let build_nulls = vec![Value::Null; built.slack.len()];
    let mut rows: Vec<Row> = Vec::new();
    for (row, found) in table.rows.iter().zip(&matches.of_row) {
        match probe.kind {
            JoinKind::Inner | JoinKind::Left | JoinKind::BuildOuter | JoinKind::Full => {
                rows.extend(
                    found
                        .iter()
                        .map(|build| [row.as_slice(), &built.rows[*build].1].concat()),
                );
                if found.is_empty() && matches!(probe.kind, JoinKind::Left | JoinKind::Full) {
                    rows.push([row.as_slice(), &build_nulls].concat());
                }
            }
            JoinKind::Semi if !found.is_empty() => rows.push(row.clone()),
            JoinKind::Anti if found.is_empty() && passes_not_in(probe, row, built, parameters)? => {
                rows.push(row.clone());
            }
            JoinKind::Mark => rows.push([row.as_slice(), &[Value::Boolean(!found.is_empty())]].concat()),
            JoinKind::Semi | JoinKind::Anti | JoinKind::BuildSemi | JoinKind::BuildAnti => {}
        }
    }
    for ((_, payload), matched) in built.rows.iter().zip(&matches.build_matched) {
        match probe.kind {
            JoinKind::BuildOuter | JoinKind::Full if !matched => rows.push([row_nulls.as_slice(), payload].concat()),
            JoinKind::BuildSemi if *matched => rows.push(payload.clone()),
            JoinKind::BuildAnti if !matched => rows.push(payload.clone()),
            _ => {}
        }
    }
    let slack = match probe.kind {
        JoinKind::Inner | JoinKind::Left | JoinKind::BuildOuter | JoinKind::Full => {
            [table.slack, built.slack.clone()].concat()
        }
        JoinKind::Semi | JoinKind::Anti => table.slack,
        JoinKind::Mark => [table.slack, vec![None]].concat(),
        JoinKind::BuildSemi | JoinKind::BuildAnti => built.slack.clone(),
    };
    Ok(Table { rows, slack })
}

/// NOT IN: a NULL on either side leaves it unknown, unless the build side is empty.
fn passes_not_in(probe: &Probe, row: &[Value], built: &Built, parameters: &[Value]) -> Result<bool, DeviceError> {
    if !probe.null_aware || built.rows.is_empty() {
        return Ok(true);
    }
    let build_has_null = built.rows.iter().any(|(keys, _)| keys.contains(&Key::Null));
    let row_has_null = keys_of(&probe.keys, row, parameters)?.contains(&Key::Null);
    Ok(!build_has_null && !row_has_null)
}
