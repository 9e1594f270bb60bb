//! Whether a variant's rows are an answer: the same rows in any order, those of a sort in the order of its keys, floats that
//! depend on the order of summation within what that may change.

use std::collections::HashMap;

use trireme_device_api::{DeviceError, Graph, Sink, Type, Value};

use crate::interpreter::{Answer, Place, sort_keys};
use crate::values::{Key, Row};

/// Relative tolerance of floats that are sums.
const RELATIVE: f64 = 1e-9;

/// Compares a variant's rows with what the interpreter says.
///
/// # Errors
/// What is different, for people.
pub fn compare(graph: &Graph, parameters: &[Value], expected: &Answer, actual: &[Row]) -> Result<(), String> {
    if expected.rows.len() != actual.len() {
        return Err(format!("{} rows, expected are {}", actual.len(), expected.rows.len()));
    }
    if let Some(row) = actual.iter().position(|row| row.len() != graph.output.len()) {
        return Err(format!("row {row} has {} columns", actual[row].len()));
    }
    match graph.fragments.last().map(|last| &last.sink) {
        Some(Sink::Sort { keys, .. }) => {
            let places = |rows: &[Row]| {
                let places = rows.iter().map(|row| sort_keys(keys, row, parameters));
                places
                    .collect::<Result<Vec<Vec<Place>>, DeviceError>>()
                    .map_err(|error| error.to_string())
            };
            let (wanted, found) = (places(&expected.rows)?, places(actual)?);
            if let Some(row) = (0..found.len()).find(|row| found[*row] != wanted[*row]) {
                return Err(format!(
                    "row {row} is out of order: {:?}, expected is {:?}",
                    found[row], wanted[row]
                ));
            }
            among(graph, expected, actual)
        }
        _ => among(graph, expected, actual),
    }
}

/// Each row is one of the candidates, each of those taken once.
fn among(graph: &Graph, expected: &Answer, actual: &[Row]) -> Result<(), String> {
    let types: Vec<Type> = graph.output.iter().map(|field| field.data_type.clone()).collect();
    let exact = |row: &Row| -> Vec<Key> {
        let columns = (0..types.len()).filter(|column| expected.slack[*column].is_none());
        columns.map(|column| Key::of(&row[column], &types[column])).collect()
    };
    let mut candidates: HashMap<Vec<Key>, Vec<&Row>> = HashMap::new();
    for row in &expected.candidates {
        candidates.entry(exact(row)).or_default().push(row);
    }
    for (index, row) in actual.iter().enumerate() {
        let similar = candidates.get_mut(&exact(row));
        let found = similar.and_then(|similar| {
            let position = similar
                .iter()
                .position(|candidate| close_rows(candidate, row, &expected.slack))?;
            Some(similar.swap_remove(position))
        });
        if found.is_none() {
            return Err(format!("row {index} is not expected, or not so often"));
        }
    }
    Ok(())
}

fn close_rows(expected: &Row, actual: &Row, slack: &[Option<f64>]) -> bool {
    slack
        .iter()
        .enumerate()
        .all(|(column, slack)| match (slack, &expected[column], &actual[column]) {
            (None, _, _) => true,
            (Some(slack), Value::Float(expected), Value::Float(actual)) => close(*expected, *actual, *slack),
            (Some(_), expected, actual) => expected == actual,
        })
}

fn close(expected: f64, actual: f64, slack: f64) -> bool {
    slack.is_infinite()
        || expected == actual
        || (expected.is_nan() && actual.is_nan())
        || (expected - actual).abs() <= slack + RELATIVE * expected.abs().max(actual.abs())
}
