//! One cell as text, the same in every shape: what arrow prints, with NULL told apart from any text.

use std::fmt::Write as _;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::Result;

/// NULLs inside lists and structs are printed as a word: an empty place between two commas would look like an empty text.
const OPTIONS: FormatOptions<'static> = FormatOptions::new().with_null("NULL").with_display_error(true);

/// The cells of one batch.
pub(crate) struct Columns<'a> {
    columns: Vec<Column<'a>>,
    rows: usize,
}

struct Column<'a> {
    formatter: ArrayFormatter<'a>,
    /// Logical ones: a dictionary or a union can hold NULL without saying so in its own buffer.
    nulls: Option<NullBuffer>,
}

impl<'a> Columns<'a> {
    pub(crate) fn new(batch: &'a RecordBatch) -> Result<Self> {
        let columns = batch
            .columns()
            .iter()
            .map(|array: &'a ArrayRef| {
                Ok(Column {
                    formatter: ArrayFormatter::try_new(array.as_ref(), &OPTIONS)?,
                    nulls: array.logical_nulls(),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            columns,
            rows: batch.num_rows(),
        })
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn len(&self) -> usize {
        self.columns.len()
    }

    /// Puts the cell's text into `text`, which is emptied first. False means NULL, and no text.
    pub(crate) fn read(&self, column: usize, row: usize, text: &mut String) -> bool {
        text.clear();
        let Some(column) = self.columns.get(column) else {
            return false;
        };
        if column.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return false;
        }
        let _ = write!(text, "{}", column.formatter.value(row));
        true
    }
}

/// Which columns hold numbers and so are aligned to the right.
pub(super) fn numeric_columns(schema: &Schema) -> Vec<bool> {
    schema
        .fields()
        .iter()
        .map(|field| match field.data_type() {
            DataType::Dictionary(_, value) => value.is_numeric(),
            other => other.is_numeric(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, Int32Array, ListArray, NullArray, StringArray, TimestampMillisecondArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn cell(array: ArrayRef, row: usize) -> Option<String> {
        let batch = RecordBatch::try_from_iter_with_nullable(vec![("c", array, true)]).unwrap();
        let mut text = String::new();
        let columns = Columns::new(&batch).unwrap();
        columns.read(0, row, &mut text).then_some(text)
    }

    #[test]
    fn hidden_nulls_are_seen() {
        assert_eq!(cell(Arc::new(NullArray::new(1)), 0), None);
        let values = Arc::new(StringArray::from(vec![Some("x"), None]));
        let keys = Int32Array::from(vec![0, 1]);
        let dictionary = DictionaryArray::<Int32Type>::new(keys, values);
        assert_eq!(cell(Arc::new(dictionary.clone()), 0).as_deref(), Some("x"));
        assert_eq!(cell(Arc::new(dictionary), 1), None);
    }

    #[test]
    fn nested_and_zoned_values_print() {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None])]);
        assert_eq!(cell(Arc::new(list), 0).as_deref(), Some("[1, NULL]"));
        let time = TimestampMillisecondArray::from(vec![0]).with_timezone("Europe/Berlin");
        assert_eq!(cell(Arc::new(time), 0).as_deref(), Some("1970-01-01T01:00:00+01:00"));
    }
}
