//! How many rows and distinct values conditions, joins and groups are expected to leave: the rules that joins are ordered by,
//! fragments placed, and figures made.
//!
//! By samples and distinct counts where there are some; else by bounds, where an integral column without a count has at most as
//! many distinct values as its bounds allow and conditions are taken to be independent. Whoever walks a plan or a graph brings
//! what it knows of tables and what earlier runs counted; nothing here changes a result.

mod bits;
mod conditions;
mod joins;
mod lanes;
mod sample;
mod sketch;

use std::cell::Cell;
use std::sync::Arc;

use trireme_device_api::{DatePart, Expr, Function, Node, Type, Value};

pub use conditions::split;
pub use joins::{Meets, Pairing, Side, match_rows};
pub use sample::Part;
pub use sketch::{ColumnSketch, Common, TableSketch, Values, mix};

use sample::Reader;

/// Rows of a stream or table of which nothing is known.
pub const ROWS_UNKNOWN: f64 = 10_000.0;
/// Distinct strings of a column of which nothing is known: this power of its rows.
const TEXT_DISTINCT_POWER: f64 = 0.5;
const DAYS_OF_YEAR: f64 = 365.25;
const PREFIXES_PER_CHARACTER: f64 = 12.0;
/// Conditions on aggregates look for the exception.
const HAVING: f64 = 0.3;
/// Values of samples that one plan may look at where nobody says.
pub const SAMPLE_VALUES_MAX: u64 = 2_000_000;

/// How rows are estimated: with these values of parameters, looking at so many values of samples.
pub struct Rules<'a> {
    /// Values of the graph's parameters, as far as they are known.
    pub parameters: &'a [Value],
    budget: Cell<u64>,
}

impl<'a> Rules<'a> {
    /// With the usual budget.
    pub fn new(parameters: &'a [Value]) -> Self {
        Self::within(parameters, SAMPLE_VALUES_MAX)
    }

    /// Looks at no more values of samples; what was found before costs nothing.
    pub fn within(parameters: &'a [Value], sample_values: u64) -> Self {
        Self {
            parameters,
            budget: Cell::new(sample_values),
        }
    }

    fn reader<'r>(&'r self, column: &'r dyn Fn(usize) -> Option<usize>) -> Reader<'r> {
        Reader {
            column,
            parameters: self.parameters,
            budget: &self.budget,
        }
    }

    /// The same rows as these expressions; of those that one sample answers for, the values in it are counted.
    pub fn projected(&self, input: &Estimate, exprs: &[Expr]) -> Estimate {
        let mut made = input.projected(exprs);
        for (column, expr) in made.columns.iter_mut().zip(exprs) {
            let part = input.part_of(expr).filter(|_| column_of(expr).is_none());
            let Some(part) = part.and_then(|part| input.parts.get(usize::from(part))) else {
                continue;
            };
            let at = |index: usize| Some(usize::from(input.columns.get(index)?.sampled?.1));
            if let Some(distinct) = part.distinct(&[expr], &self.reader(&at)) {
                let among = kept_distinct(distinct, part.rows, input.rows);
                *column = ColumnEstimate::made(among.min(column.distinct).max(1.0), input.rows);
            }
        }
        made
    }

    /// What conditions on aggregates leave.
    pub fn having(&self, groups: &Estimate, predicates: &[Expr]) -> Estimate {
        self.filtered(groups, predicates).scaled(HAVING)
    }
}

/// What is expected of a column.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ColumnEstimate {
    /// Distinct values.
    pub distinct: f64,
    /// Distinct values of the whole column that it comes from.
    pub domain: f64,
    /// Rows of the table that it comes from.
    pub base_rows: f64,
    /// Bounds of an integral column, in units of its values.
    pub range: Option<(f64, f64)>,
    /// Whether `domain` was counted, not guessed.
    pub counted: bool,
    /// The part of the estimate and the column of its sketch that it comes from.
    pub sampled: Option<(u16, u16)>,
    /// The part of the rows that is NULL, where no join has changed it.
    pub nulls: Option<f64>,
}

/// What is expected of a relation.
#[derive(Debug, Clone)]
pub struct Estimate {
    /// Rows.
    pub rows: f64,
    /// By column.
    pub columns: Vec<ColumnEstimate>,
    /// Samples of the tables that it was made from.
    pub parts: Arc<[Part]>,
}

impl ColumnEstimate {
    /// A column of a table of so many rows, by its distinct values and its bounds if they are known.
    pub fn of_table(rows: f64, distinct: Option<f64>, range: Option<(f64, f64)>, data_type: &Type) -> Self {
        let of_range = range.map(|(low, high)| high - low + 1.0);
        let guess = if data_type.is_bytes() {
            rows.powf(TEXT_DISTINCT_POWER)
        } else {
            rows
        };
        Self {
            counted: distinct.is_some(),
            range: range.filter(|_| data_type.is_integral()),
            ..Self::made(distinct.or(of_range).unwrap_or(guess).clamp(1.0, rows.max(1.0)), rows)
        }
    }

    /// The part of the rows that has a value.
    fn present(self) -> f64 {
        1.0 - self.nulls.unwrap_or(0.0)
    }

    /// The same column among so many rows.
    pub fn of_rows(self, rows: f64) -> Self {
        Self {
            distinct: self.distinct.min(rows.max(1.0)),
            ..self
        }
    }

    /// The same column behind so many parts of another estimate.
    pub fn moved(self, parts: usize) -> Self {
        let parts = u16::try_from(parts).unwrap_or(u16::MAX);
        Self {
            sampled: self.sampled.map(|(part, column)| (part.saturating_add(parts), column)),
            ..self
        }
    }

    /// A column that is made, not read.
    pub fn made(distinct: f64, rows: f64) -> Self {
        Self {
            distinct,
            domain: distinct,
            base_rows: rows,
            ..Self::default()
        }
    }
}

impl Estimate {
    fn column(&self, expr: &Expr) -> Option<&ColumnEstimate> {
        column_of(expr).and_then(|index| self.columns.get(index))
    }

    /// The one part that an expression's columns all come from.
    fn part_of(&self, expr: &Expr) -> Option<u16> {
        let mut parts = expr
            .columns()
            .into_iter()
            .map(|index| self.columns.get(index)?.sampled.map(|(part, _)| part));
        let first = parts.next()??;
        parts.all(|part| part == Some(first)).then_some(first)
    }

    /// Whether a sample answers for all of an expression's columns.
    pub fn is_sampled(&self, expr: &Expr) -> bool {
        self.part_of(expr).is_some()
    }

    /// Distinct values of an expression.
    pub fn distinct(&self, expr: &Expr) -> f64 {
        let own = match &expr.node {
            Node::Column(index) => self.columns.get(*index).map_or(self.rows, |column| column.distinct),
            Node::Extract { part, expr } => self.distinct(expr).min(self.parts(*part, expr)),
            Node::Function {
                function: Function::Substring,
                args,
            } => args
                .first()
                .map_or(self.rows, |text| self.distinct(text).min(prefixes(args))),
            _ => expr
                .columns()
                .into_iter()
                .map(|index| self.columns.get(index).map_or(self.rows, |column| column.distinct))
                .product(),
        };
        own.min(self.rows).max(1.0)
    }

    /// The same rows as these expressions.
    pub fn projected(&self, exprs: &[Expr]) -> Self {
        let columns = exprs.iter().map(|expr| match &expr.node {
            Node::Column(index) => self.columns[*index],
            _ => ColumnEstimate::made(self.distinct(expr), self.rows),
        });
        Self {
            rows: self.rows,
            columns: columns.collect(),
            parts: Arc::clone(&self.parts),
        }
    }

    /// As many rows as a limit lets pass.
    pub fn limited(&self, limit: Option<usize>, offset: usize) -> Self {
        let most = limit.map_or(f64::INFINITY, |limit| limit as f64);
        let rows = (self.rows - offset as f64).clamp(1.0, most.max(1.0));
        self.scaled(rows / self.rows.max(1.0))
    }

    /// So many rows, as was counted.
    pub fn with_rows(&self, rows: f64) -> Self {
        let columns = self.columns.iter().map(|column| column.of_rows(rows));
        Self {
            rows,
            columns: columns.collect(),
            parts: Arc::clone(&self.parts),
        }
    }

    /// Distinct values that a part of a date can have.
    fn parts(&self, part: DatePart, date: &Expr) -> f64 {
        let range = match (&date.node, &date.data_type) {
            (Node::Column(index), Type::Date32) => self.columns.get(*index).and_then(|column| column.range),
            _ => None,
        };
        let days = range.map_or(f64::INFINITY, |(low, high)| high - low + 1.0);
        match part {
            DatePart::Year => (days / DAYS_OF_YEAR).ceil() + 1.0,
            DatePart::Quarter => 4.0,
            DatePart::Month => 12.0,
            DatePart::Week => 53.0,
            DatePart::Day => 31.0,
            DatePart::DayOfWeek => 7.0,
            DatePart::DayOfYear => 366.0,
            DatePart::Hour => 24.0,
            DatePart::Minute | DatePart::Second => 60.0,
        }
    }

    /// With a part of its rows.
    pub fn scaled(&self, part: f64) -> Self {
        let rows = (self.rows * part).max(1.0);
        let columns = self.columns.iter().map(|column| ColumnEstimate {
            distinct: kept_distinct(column.distinct, self.rows, rows),
            ..*column
        });
        Self {
            rows,
            columns: columns.collect(),
            parts: Arc::clone(&self.parts),
        }
    }
}

/// Distinct prefixes of texts: so many per character that is kept.
fn prefixes(args: &[Expr]) -> f64 {
    match args.get(2).map(|length| &length.node) {
        Some(Node::Literal(Value::Int(length))) => PREFIXES_PER_CHARACTER.powf((*length).clamp(0, 12) as f64),
        _ => f64::INFINITY,
    }
}

/// Distinct values left when `after` of `before` rows are, chosen without regard to the value.
fn kept_distinct(distinct: f64, before: f64, after: f64) -> f64 {
    if after >= before || before <= 0.0 {
        return distinct.min(after.max(1.0));
    }
    let rows_per_value = before / distinct.max(1.0);
    // 1 − (1 − after / before) ^ rows_per_value, also where the part is very small.
    let some_left = -(rows_per_value * (-after / before).ln_1p()).exp_m1();
    (distinct * some_left).clamp(1.0, after.max(1.0))
}

fn column_of(expr: &Expr) -> Option<usize> {
    match expr.node {
        Node::Column(index) => Some(index),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
