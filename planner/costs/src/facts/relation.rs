//! What is expected of a set of rows and its columns while a fragment is walked through.

use trireme_device_api::{Expr, Field, Node};

use super::{ColumnFacts, ROWS_UNKNOWN, Rows, RowsFrom, ScanFacts, type_bytes};

/// Distinct strings of a column of which nothing is known: this power of its rows.
const TEXT_DISTINCT_POWER: f64 = 0.5;

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

/// What is expected of a column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Column {
    /// Bytes of a value in memory.
    pub(super) bytes: f64,
    /// The same in its file.
    pub(super) encoded_bytes: f64,
    pub(super) distinct: f64,
    /// Distinct values of the whole column that it comes from, and that one's rows.
    pub(super) domain: f64,
    pub(super) base_rows: f64,
    pub(super) range: Option<(f64, f64)>,
    pub(super) text: Text,
    pub(super) origin: Origin,
    /// Whether `distinct` is more than a guess.
    pub(super) known: bool,
}

/// What is expected of a set of rows.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Relation {
    pub(super) rows: Rows,
    pub(super) columns: Vec<Column>,
}

impl Column {
    fn of_scan(facts: &ColumnFacts, position: usize, is_text: bool, rows: f64) -> Self {
        let of_range = facts.range.map(|(low, high)| high - low + 1.0);
        let known = facts.distinct.or(facts.dictionary_entries).or(of_range);
        let text = match (is_text, facts.dictionary_entries) {
            (true, Some(_)) => Text::Codes,
            (true, None) => Text::Raw,
            (false, _) => Text::No,
        };
        let guess = match text {
            Text::Raw => rows.powf(TEXT_DISTINCT_POWER),
            _ => rows,
        };
        let distinct = known.unwrap_or(guess).min(rows).max(1.0);
        Self {
            bytes: facts.carrier_bytes,
            encoded_bytes: facts.encoded_bytes,
            distinct,
            domain: distinct,
            base_rows: rows,
            range: facts.range,
            text,
            origin: Origin::Source(position),
            known: known.is_some(),
        }
    }

    /// A column that an expression makes.
    pub(super) fn made(expr: &Expr, relation: &Relation) -> Self {
        let distinct = relation.distinct(expr);
        let bytes = type_bytes(&expr.data_type);
        Self {
            bytes,
            encoded_bytes: bytes,
            distinct,
            domain: distinct,
            base_rows: relation.rows.rows,
            range: None,
            text: if expr.data_type.is_bytes() { Text::Raw } else { Text::No },
            origin: Origin::Made,
            known: false,
        }
    }

    /// The same column among so many rows.
    fn among(self, rows: f64) -> Self {
        Self {
            distinct: self.distinct.min(rows.max(1.0)),
            ..self
        }
    }
}

impl Relation {
    pub(super) fn of_scan(facts: &ScanFacts, fields: &[Field]) -> Self {
        let rows = facts.rows.rows.max(0.0);
        let is_text = |position: usize| fields.get(position).is_some_and(|field| field.data_type.is_bytes());
        let columns = facts.columns.iter().enumerate();
        Self {
            rows: Rows { rows, ..facts.rows },
            columns: columns
                .map(|(position, column)| Column::of_scan(column, position, is_text(position), rows.max(1.0)))
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
            _ => Column::made(expr, self),
        }
    }

    /// Bytes of a row.
    pub(super) fn row_bytes(&self) -> f64 {
        self.columns.iter().map(|column| column.bytes).sum()
    }

    /// Distinct values of an expression.
    pub(super) fn distinct(&self, expr: &Expr) -> f64 {
        let of = |index: usize| self.columns.get(index).map_or(self.rows.rows, |column| column.distinct);
        let values: f64 = match expr.node {
            Node::Column(index) => of(index),
            _ => expr.columns().into_iter().map(of).product(),
        };
        values.min(self.rows.rows).max(1.0)
    }

    /// Whether distinct values of an expression are more than a guess.
    pub(super) fn is_known(&self, expr: &Expr) -> bool {
        let columns = expr.columns();
        !columns.is_empty()
            && columns
                .into_iter()
                .all(|index| self.columns.get(index).is_some_and(|column| column.known))
    }

    /// Distinct values of the whole columns that keys come from.
    pub(super) fn domain<'e>(&self, keys: impl Iterator<Item = &'e Expr>) -> f64 {
        let (mut values, mut rows) = (1.0, 1.0_f64);
        for key in keys {
            let column = self.column(key);
            values *= column.domain;
            rows = rows.max(column.base_rows);
        }
        // Keys of several columns go together: there are no more of them than rows.
        values.min(rows)
    }

    /// With a part of its rows.
    pub(super) fn scaled(&self, part: f64, from: RowsFrom) -> Self {
        let rows = self.rows.rows * part;
        let columns = self.columns.iter().map(|column| Column {
            distinct: kept_distinct(column.distinct, self.rows.rows, rows),
            ..*column
        });
        Self {
            rows: Rows {
                rows,
                from: self.rows.from.max(from),
            },
            columns: columns.collect(),
        }
    }

    /// With another count of rows.
    pub(super) fn counted(mut self, rows: Rows) -> Self {
        let part = rows.rows / self.rows.rows.max(1e-9);
        if part < 1.0 {
            self = self.scaled(part, RowsFrom::Exact);
        }
        self.rows = rows;
        for column in &mut self.columns {
            *column = column.among(rows.rows);
        }
        self
    }
}

/// Distinct values left when `after` of `before` rows are, chosen without regard to the value.
pub(super) fn kept_distinct(distinct: f64, before: f64, after: f64) -> f64 {
    if after >= before || before <= 0.0 {
        return distinct.min(after.max(1.0));
    }
    let rows_per_value = before / distinct.max(1.0);
    // 1 − (1 − after / before) ^ rows_per_value, also where the part is very small.
    let some_left = -(rows_per_value * (-after / before).ln_1p()).exp_m1();
    (distinct * some_left).clamp(1.0, after.max(1.0))
}
