//! The shapes a result can be printed in, one file each.
//!
//! A writer gets the schema once, then batches, then the end. Writers for programs (csv, tsv, json, jsonl) and the vertical
//! and markdown shapes print each batch as it comes, so that a result of any size needs constant memory. Only the table has
//! to see rows before it knows its widths; it holds back a bounded number of them.

mod cells;
mod csv;
mod json;
mod markdown;
mod table;
mod vertical;

use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use clap::ValueEnum;

use crate::error::Failure;

pub(crate) use cells::Columns;

/// The name after `--format` and `\format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    Table,
    Csv,
    Tsv,
    Json,
    Jsonl,
    Markdown,
    Vertical,
}

impl Shape {
    /// Programs read the others: nothing but the result may stand in their output.
    pub(crate) fn is_for_people(self) -> bool {
        matches!(self, Self::Table | Self::Markdown | Self::Vertical)
    }

    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    pub(crate) fn from_name(name: &str) -> std::result::Result<Self, Failure> {
        Self::from_str(name, true).map_err(|_| {
            let names: Vec<String> = Self::value_variants().iter().map(|s| s.name()).collect();
            Failure::new(format!("unknown format \"{name}\"")).with_hint(format!("use one of: {}", names.join(", ")))
        })
    }
}

/// How one result is printed.
#[derive(Debug, Clone)]
pub(crate) struct Style {
    pub(crate) shape: Shape,
    pub(crate) tuples_only: bool,
    /// Printed in place of NULL; JSON has its own.
    pub(crate) null: String,
    pub(crate) title: Option<String>,
    pub(crate) footer: Vec<String>,
    /// Whether `(N rows)` follows.
    pub(crate) count_rows: bool,
}

impl Style {
    pub(crate) fn new(shape: Shape) -> Self {
        Self {
            shape,
            tuples_only: false,
            null: String::new(),
            title: None,
            footer: Vec::new(),
            count_rows: true,
        }
    }

    /// What stands below the rows for people: footers, or the number of rows.
    fn footer_lines(&self, rows: usize) -> Vec<String> {
        if self.tuples_only {
            return Vec::new();
        }
        let mut lines = self.footer.clone();
        if self.count_rows {
            lines.push(match rows {
                1 => "(1 row)".to_owned(),
                n => format!("({n} rows)"),
            });
        }
        lines
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum FormatError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

impl From<FormatError> for Failure {
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::Io(error) => error.into(),
            FormatError::Arrow(error) => error.into(),
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, FormatError>;

/// Prints one result. `begin` comes first and once, `end` last and once.
pub(crate) trait ResultWriter: Send {
    fn begin(&mut self, schema: &SchemaRef, out: &mut dyn Write) -> Result<()>;
    fn batch(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<()>;
    fn end(&mut self, out: &mut dyn Write) -> Result<()>;
}

pub(crate) fn writer(style: Style) -> Box<dyn ResultWriter> {
    match style.shape {
        Shape::Table => Box::new(table::Table::new(style)),
        Shape::Csv => Box::new(csv::Delimited::csv(style)),
        Shape::Tsv => Box::new(csv::Delimited::tsv(style)),
        Shape::Json => Box::new(json::Json::array()),
        Shape::Jsonl => Box::new(json::Json::lines()),
        Shape::Markdown => Box::new(markdown::Markdown::new(style)),
        Shape::Vertical => Box::new(vertical::Vertical::new(style)),
    }
}

/// Builds a result of our own, such as a list of tables. Rows are as long as `headers`; `None` is NULL.
pub(crate) fn text_batch(
    headers: &[&str],
    rows: &[Vec<Option<String>>],
) -> std::result::Result<RecordBatch, ArrowError> {
    let fields: Vec<Field> = headers
        .iter()
        .map(|name| Field::new(*name, DataType::Utf8, true))
        .collect();
    let columns: Vec<ArrayRef> = (0..headers.len())
        .map(|index| {
            let column: StringArray = rows.iter().map(|row| row.get(index).cloned().flatten()).collect();
            Arc::new(column) as ArrayRef
        })
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use arrow::array::{BooleanArray, Decimal128Array, Float64Array, Int64Array};

    /// Every kind of value that a shape has to get right.
    pub(crate) fn sample() -> RecordBatch {
        let price = Decimal128Array::from(vec![Some(1050), None, Some(-5)])
            .with_precision_and_scale(10, 2)
            .unwrap();
        RecordBatch::try_from_iter(vec![
            (
                "id",
                Arc::new(Int64Array::from(vec![Some(1), Some(20), None])) as ArrayRef,
            ),
            (
                "name",
                Arc::new(StringArray::from(vec![Some("a|b"), None, Some("say \"hi\", \\ü")])),
            ),
            ("ok", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
            (
                "ratio",
                Arc::new(Float64Array::from(vec![Some(0.5), Some(f64::NAN), None])),
            ),
            ("price", Arc::new(price)),
        ])
        .unwrap()
    }

    pub(crate) fn print(style: Style, batches: &[RecordBatch]) -> String {
        let mut out = Vec::new();
        let mut writer = writer(style);
        writer.begin(&batches[0].schema(), &mut out).unwrap();
        for batch in batches {
            writer.batch(batch, &mut out).unwrap();
        }
        writer.end(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    pub(crate) fn texts(values: &[(&str, &[Option<&str>])]) -> RecordBatch {
        RecordBatch::try_from_iter(
            values
                .iter()
                .map(|(name, column)| (*name, Arc::new(StringArray::from(column.to_vec())) as ArrayRef)),
        )
        .unwrap()
    }
}
