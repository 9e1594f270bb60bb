//! Device columns from Arrow arrays and back.
//!
//! Arrow is how rows arrive from other operators and how results leave. Coming in, integers are narrowed to the smallest
//! carrier against a base, all string layouts become one, and dictionaries stay codes; going out, a column takes exactly the
//! layout of its logical type. Files are not read here: their pages are decoded straight into carriers elsewhere.

mod export;
mod import;
#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "random values are cut to size")]
mod tests;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};

use crate::error::DeviceError;
use crate::fragment::Field;
use crate::variant::Rows;

impl Field {
    /// The field of Arrow batches.
    pub fn to_arrow(&self) -> arrow::datatypes::Field {
        arrow::datatypes::Field::new(&self.name, self.data_type.to_arrow(), self.nullable)
    }

    /// The schema of Arrow batches with these columns.
    pub fn schema(fields: &[Field]) -> SchemaRef {
        Arc::new(Schema::new(fields.iter().map(Field::to_arrow).collect::<Vec<_>>()))
    }
}

impl Rows {
    /// The rows as Arrow batches of at most `batch_rows` rows (at least one); a batch never spans segments. `fields` name and
    /// type the columns; further columns (a sort's hidden keys) are left out. Without rows there is no batch.
    ///
    /// Each batch is an error of [`DeviceError::Internal`] if the columns are not what `fields` say.
    pub fn to_batches(
        &self,
        fields: &[Field],
        batch_rows: usize,
    ) -> impl Iterator<Item = Result<RecordBatch, DeviceError>> {
        let schema = Field::schema(fields);
        let step = batch_rows.max(1);
        self.segments.iter().enumerate().flat_map(move |(segment, (rows, _))| {
            let schema = Arc::clone(&schema);
            (0..*rows)
                .step_by(step)
                .map(move |start| self.batch(&schema, segment, start, step.min(rows - start)))
        })
    }

    /// Rows of a segment as an Arrow batch, as [`Rows::to_batches`] gives them.
    ///
    /// # Errors
    /// [`DeviceError::Internal`] if the columns are not what the schema says.
    pub fn batch(
        &self,
        schema: &SchemaRef,
        segment: usize,
        start: usize,
        count: usize,
    ) -> Result<RecordBatch, DeviceError> {
        let columns = self.segments[segment].1.iter().take(schema.fields().len());
        let arrays = columns.map(|column| column.to_arrow(start, count));
        record_batch(schema, arrays.collect::<Result<_, _>>()?, count)
    }
}

fn record_batch(schema: &SchemaRef, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, DeviceError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)
        .map_err(|error| DeviceError::Internal(format!("result columns: {error}")))
}
