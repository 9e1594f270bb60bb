//! What is expected of a set of rows and its columns while a fragment is walked through.

use std::sync::Arc;

use trireme_device_api::{Expr, Field, Node, Type};

use super::{ColumnFacts, Rows, RowsFrom, ScanFacts, type_bytes};
use crate::rows::{ColumnEstimate, Estimate, ROWS_UNKNOWN};

/// How values of text stand in memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Text {
    /// It is no text.
    No,
    /// Codes of a dictionary.
    Codes,
    /// Strings.
    Raw,
}

/// Where a column's values are before something reads them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Origin {
    /// A column of the fragment's source.
    Source(usize),
    /// The payload of a build side, by number of the column among those of all probes.
    Payload(usize),
    /// It was made from others.
    Made,
}

/// What a column is, beside what is expected of its values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Column {
    /// Bytes of a value in memory.
    pub(super) bytes: f64,
    /// The same in its file.
    pub(super) encoded_bytes: f64,
    pub(super) text: Text,
    pub(super) origin: Origin,
    /// Whether its distinct values are more than a guess.
    pub(super) known: bool,
}

/// What is expected of a set of rows.
#[derive(Debug, Clone)]
pub(super) struct Relation {
    /// As they are known; the estimate's are at least one.
    pub(super) rows: Rows,
    pub(super) estimate: Estimate,
    pub(super) columns: Vec<Column>,
}

impl Column {
    fn of_scan(facts: &ColumnFacts, position: usize, is_text: bool) -> Self {
        Self {
            bytes: facts.carrier_bytes,
            encoded_bytes: facts.encoded_bytes,
            text: match (is_text, facts.dictionary_entries) {
                (true, Some(_)) => Text::Codes,
                (true, None) => Text::Raw,
                (false, _) => Text::No,
            },
            origin: Origin::Source(position),
            known: facts.distinct.is_some() || facts.dictionary_entries.is_some() || facts.range.is_some(),
        }
    }

    /// A column that is made here.
    pub(super) fn made(data_type: &Type) -> Self {
        let bytes = type_bytes(data_type);
        Self {
            bytes,
            encoded_bytes: bytes,
            text: if data_type.is_bytes() { Text::Raw } else { Text::No },
            origin: Origin::Made,
            known: false,
        }
    }
}

impl Relation {
    pub(super) fn of_scan(facts: &ScanFacts, fields: &[Field]) -> Self {
        let rows = facts.rows.rows.max(0.0);
        let type_of = |position: usize| fields.get(position).map_or(&Type::Null, |field| &field.data_type);
        let columns = facts.columns.iter().enumerate();
        let estimates = columns.clone().map(|(position, column)| {
            let distinct = column.distinct.or(column.dictionary_entries);
            ColumnEstimate::of_table(rows.max(1.0), distinct, column.range, type_of(position))
        });
        Self {
            rows: Rows { rows, ..facts.rows },
            estimate: Estimate {
                rows: rows.max(1.0),
                columns: estimates.collect(),
                parts: Arc::default(),
            },
            columns: columns
                .map(|(position, column)| Column::of_scan(column, position, type_of(position).is_bytes()))
                .collect(),
        }
    }

    /// Of Arrow batches.
    pub(super) fn of_stream(rows: Option<Rows>, fields: &[Field]) -> Self {
        let facts = ScanFacts {
            rows: rows.unwrap_or(Rows::guessed(ROWS_UNKNOWN)),
            columns: fields
                .iter()
                .map(|field| ColumnFacts::of_type(&field.data_type))
                .collect(),
        };
        Self::of_scan(&facts, fields)
    }

    /// Estimated rows of these columns.
    pub(super) fn estimated(estimate: Estimate, from: RowsFrom, columns: Vec<Column>) -> Self {
        Self {
            rows: Rows {
                rows: estimate.rows,
                from,
            },
            estimate,
            columns,
        }
    }

    /// As the source of a fragment.
    pub(super) fn into_source(mut self) -> Self {
        for (position, column) in self.columns.iter_mut().enumerate() {
            column.origin = Origin::Source(position);
        }
        self
    }

    /// The column that an expression is, or makes.
    pub(super) fn column(&self, expr: &Expr) -> Column {
        match expr.node {
            Node::Column(index) if index < self.columns.len() => self.columns[index],
            _ => Column::made(&expr.data_type),
        }
    }

    /// These expressions of its rows.
    pub(super) fn projected(&self, exprs: &[Expr]) -> Self {
        Self {
            rows: self.rows,
            estimate: self.estimate.projected(exprs),
            columns: exprs.iter().map(|expr| self.column(expr)).collect(),
        }
    }

    /// Bytes of a row.
    pub(super) fn row_bytes(&self) -> f64 {
        self.columns.iter().map(|column| column.bytes).sum()
    }

    /// Whether distinct values of an expression are more than a guess.
    pub(super) fn is_known(&self, expr: &Expr) -> bool {
        let columns = expr.columns();
        !columns.is_empty()
            && columns
                .into_iter()
                .all(|index| self.columns.get(index).is_some_and(|column| column.known))
    }

    /// With another count of rows.
    pub(super) fn counted(mut self, rows: Rows) -> Self {
        let part = rows.rows / self.estimate.rows;
        self.estimate = match part < 1.0 {
            true => self.estimate.scaled(part),
            false => self.estimate.with_rows(rows.rows),
        };
        self.rows = rows;
        self
    }
}
