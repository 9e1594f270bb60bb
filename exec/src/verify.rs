//! `device_mode = verify`: whether two variants gave the same rows.
//!
//! Rows are compared as multisets. Floats may differ in their last bits, since sums of them depend on order; where a limit
//! cuts between rows that are equal by the sort's keys, only the keys must be the same.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows as Encoded, SortField};
use trireme_device_api::{DeviceError, Graph, Node, Rows, Sink};

/// Relative difference of floats that counts as none.
const TOLERANCE: f64 = 1e-9;

/// What both variants gave, if it is the same.
///
/// # Errors
/// [`DeviceError::Internal`] with the first difference.
pub(crate) fn compare(graph: &Graph, device: &Rows, host: &Rows) -> Result<(), DeviceError> {
    if device.rows() != host.rows() {
        return Err(DeviceError::Internal(format!(
            "verify: the device gave {} rows, the processor {}",
            device.rows(),
            host.rows()
        )));
    }
    let columns = comparable(graph);
    let table =
        |rows: &Rows| Table::new(graph, rows, &columns).map_err(|error| DeviceError::Internal(error.to_string()));
    let (device, host) = (table(device)?, table(host)?);
    for (mine, theirs) in device.sorted().into_iter().zip(host.sorted()) {
        if device.exact.row(mine) != host.exact.row(theirs) || !close(&device.floats, mine, &host.floats, theirs) {
            return Err(DeviceError::Internal(format!(
                "verify: the device gave a row {}, the processor {}",
                device.show(mine),
                host.show(theirs)
            )));
        }
    }
    Ok(())
}

/// Positions of the result's columns that don't depend on which of equal rows a limit leaves.
fn comparable(graph: &Graph) -> Vec<usize> {
    let all = || (0..graph.output.len()).collect();
    match graph.fragments.last().map(|fragment| &fragment.sink) {
        Some(Sink::Emit { limit: Some(_), .. }) => Vec::new(),
        Some(Sink::Sort {
            keys, limit: Some(_), ..
        }) => keys
            .iter()
            .filter_map(|key| match key.expr.node {
                Node::Column(index) if index < graph.output.len() => Some(index),
                _ => None,
            })
            .collect(),
        _ => all(),
    }
}

/// Columns side by side: all but floats in a form that compares, floats as they are.
struct Table {
    batch: RecordBatch,
    exact: Encoded,
    floats: Vec<ArrayRef>,
}

impl Table {
    fn new(graph: &Graph, rows: &Rows, columns: &[usize]) -> Result<Self, ArrowError> {
        let batches: Vec<RecordBatch> = rows
            .to_batches(&graph.output, rows.rows().max(1))
            .collect::<Result<_, _>>()
            .map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
        let schema = match batches.first() {
            Some(batch) => batch.schema(),
            None => Arc::new(arrow::datatypes::Schema::empty()),
        };
        let batch = arrow::compute::concat_batches(&schema, &batches)?;
        let is_float = |array: &ArrayRef| matches!(array.data_type(), DataType::Float32 | DataType::Float64);
        let wanted = columns.iter().filter_map(|index| batch.columns().get(*index));
        let (floats, exact): (Vec<ArrayRef>, Vec<ArrayRef>) = wanted.cloned().partition(is_float);
        let fields = exact.iter().map(|array| SortField::new(array.data_type().clone()));
        let converter = RowConverter::new(fields.collect())?;
        let exact = match exact.is_empty() {
            // Without columns it would have no rows.
            true => RowConverter::new(vec![SortField::new(DataType::Null)])?
                .convert_columns(&[arrow::array::new_null_array(&DataType::Null, batch.num_rows())])?,
            false => converter.convert_columns(&exact)?,
        };
        let floats = floats
            .iter()
            .map(|array| cast(array, &DataType::Float64))
            .collect::<Result<_, _>>()?;
        Ok(Self { batch, exact, floats })
    }

    fn sorted(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.batch.num_rows()).collect();
        order.sort_by(|left, right| {
            let exact = self.exact.row(*left).cmp(&self.exact.row(*right));
            self.floats.iter().fold(exact, |known, column| {
                known.then_with(|| {
                    float(column, *left)
                        .partial_cmp(&float(column, *right))
                        .unwrap_or(Ordering::Equal)
                })
            })
        });
        order
    }

    fn show(&self, row: usize) -> String {
        let shown = |array: &ArrayRef| {
            arrow::util::display::array_value_to_string(array, row).unwrap_or_else(|error| error.to_string())
        };
        let values: Vec<_> = self.batch.columns().iter().map(shown).collect();
        format!("({})", values.join(", "))
    }
}

/// NaN is largest, NULL is NaN's neighbour: the order only has to be the same on both sides.
fn float(column: &ArrayRef, row: usize) -> (bool, bool, f64) {
    let values = column.as_primitive::<Float64Type>();
    let value = values.value(row);
    let null = values.is_null(row);
    (
        null,
        !null && value.is_nan(),
        if null || value.is_nan() { 0.0 } else { value },
    )
}

fn close(device: &[ArrayRef], mine: usize, host: &[ArrayRef], theirs: usize) -> bool {
    device.iter().zip(host).all(|(device, host)| {
        let (left, right) = (float(device, mine), float(host, theirs));
        let same_kind = (left.0, left.1) == (right.0, right.1);
        let difference = (left.2 - right.2).abs();
        #[expect(clippy::float_cmp, reason = "infinities are equal or not")]
        let equal = left.2 == right.2;
        same_kind && (equal || difference <= TOLERANCE * left.2.abs().max(right.2.abs()).max(1e-300))
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array};
    use trireme_device_api::{DeviceColumn, Field, Fragment, GRAPH_VERSION, Source, Type};

    use super::*;

    fn graph() -> Graph {
        let field = |name: &str, data_type| Field {
            name: name.to_owned(),
            data_type,
            nullable: true,
        };
        let output = vec![field("a", Type::Int64), field("b", Type::Float64)];
        Graph {
            version: GRAPH_VERSION,
            fragments: vec![Fragment {
                source: Source::Scan(0),
                steps: Vec::new(),
                sink: Sink::Emit { limit: None, offset: 0 },
                output: output.clone(),
            }],
            scans: Vec::new(),
            streams: Vec::new(),
            parameters: Vec::new(),
            output,
        }
    }

    fn rows(a: &[Option<i64>], b: &[Option<f64>]) -> Rows {
        let arrays: [ArrayRef; 2] = [
            Arc::new(Int64Array::from(a.to_vec())),
            Arc::new(Float64Array::from(b.to_vec())),
        ];
        let types = [Type::Int64, Type::Float64];
        let columns = arrays.iter().zip(types);
        let columns = columns.map(|(array, data_type)| Arc::new(DeviceColumn::from_arrow(array, &data_type).unwrap()));
        Rows {
            segments: vec![(a.len(), columns.collect())],
            held: Vec::new(),
        }
    }

    #[test]
    fn order_and_last_bits_do_not_matter() {
        let device = rows(&[Some(1), None, Some(2)], &[Some(0.1 + 0.2), Some(f64::NAN), None]);
        let host = rows(&[Some(2), Some(1), None], &[None, Some(0.3), Some(f64::NAN)]);
        assert_eq!(compare(&graph(), &device, &host), Ok(()));
    }

    #[test]
    fn differences_are_shown() {
        let host = rows(&[Some(1), Some(2)], &[Some(1.0), Some(2.0)]);
        for (a, b) in [
            (vec![Some(1), Some(1)], vec![Some(1.0), Some(2.0)]),
            (vec![Some(1), Some(2)], vec![Some(1.0), Some(2.1)]),
            (vec![Some(1), None], vec![Some(1.0), Some(2.0)]),
            (vec![Some(1), Some(2)], vec![Some(1.0), Some(f64::NAN)]),
            (vec![Some(1)], vec![Some(1.0)]),
        ] {
            let error = compare(&graph(), &rows(&a, &b), &host).unwrap_err();
            assert!(error.to_string().contains("verify: the device gave"), "{error}");
        }
    }
}
