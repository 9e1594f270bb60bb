//! What running a fragment takes, in units that a device's rates are given for.
//!
//! ```text
//!  a column is read once, by the rows that are left when an expression first asks for it:
//!    bytes = all its bytes × the share of cache lines that hold a row that is left
//! ```

use serde::{Deserialize, Serialize};
use trireme_device_api::{BinaryOperator, Expr, Node, Type};

use super::TEXT_BYTES;
use super::relation::{Origin, Relation, Text};

/// What a processor reads from memory at once.
const LINE_BYTES: f64 = 64.0;
/// Simple operations that one on floats costs as much as: integers are computed in lanes as narrow as their values, floats in eight
/// bytes. Seen in k-means steps, on the processor and in its kernels.
const PER_FLOAT: f64 = 10.0;
/// Constants of an IN list that cost as much as one comparison.
const LIST_PER_OPERATION: f64 = 4.0;

/// Accesses at random places of a range of memory.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Random {
    /// Size of the range.
    pub footprint_bytes: f64,
    /// Accesses.
    pub accesses: f64,
    /// Places are found by a hash of the key, not by the key itself.
    pub hashed: bool,
}

/// Rows put into groups.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Updates {
    /// Groups.
    pub groups: f64,
    /// Rows.
    pub rows: f64,
    /// Groups are found by a hash of the key, not by the key itself.
    pub hashed: bool,
}

/// What running a fragment takes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// Rows of the source.
    pub rows: f64,
    /// Columns read in order: bytes of the carrier, bytes in all.
    pub streams: Vec<(f64, f64)>,
    /// Look-ups in build sides, and of their payload.
    pub lookups: Vec<Random>,
    /// Rows put into the build side.
    pub inserts: Option<Random>,
    /// Rows put into groups.
    pub updates: Vec<Updates>,
    /// Values of columns read by position, for the rows that filters and probes left.
    pub gathered_values: f64,
    /// Rows that conditions were tested for: those that are left are numbered.
    #[serde(default)]
    pub tested_rows: f64,
    /// Nodes × rows of simple expressions.
    pub simple_operations: f64,
    /// Nodes × rows of divisions and parts of dates.
    pub wide_operations: f64,
    /// Bytes of strings that are compared or searched.
    pub text_bytes: f64,
    /// Rows of functions that the host evaluates.
    pub host_calls: f64,
    /// Comparisons of sorts.
    pub comparisons: f64,
    /// Bytes written as result or payload.
    pub written_bytes: f64,
}

impl Work {
    /// Everything times a factor: a fragment that stops early.
    pub(super) fn scale(&mut self, factor: f64) {
        self.streams.iter_mut().for_each(|(_, bytes)| *bytes *= factor);
        self.lookups.iter_mut().for_each(|lookup| lookup.accesses *= factor);
        self.updates.iter_mut().for_each(|update| update.rows *= factor);
        for value in [
            &mut self.rows,
            &mut self.gathered_values,
            &mut self.tested_rows,
            &mut self.simple_operations,
            &mut self.wide_operations,
            &mut self.text_bytes,
            &mut self.host_calls,
            &mut self.comparisons,
        ] {
            *value *= factor;
        }
    }
}

/// Adds up a fragment's work while its steps are walked through.
pub(super) struct Meter {
    pub(super) work: Work,
    /// Nodes of all expressions.
    pub(super) nodes: f64,
    /// By source column: its bytes per value, in memory and in files, and the rows that read it first.
    source: Vec<(f64, f64, Option<f64>)>,
    /// By payload column: whether it was read, and the size of what it is read from.
    payload: Vec<(bool, f64)>,
}

impl Meter {
    pub(super) fn new(source: &Relation) -> Self {
        Self {
            work: Work {
                rows: source.rows.rows,
                ..Work::default()
            },
            nodes: 0.0,
            source: source
                .columns
                .iter()
                .map(|column| (column.bytes, column.encoded_bytes, None))
                .collect(),
            payload: Vec::new(),
        }
    }

    /// A new payload column, read from so many bytes.
    pub(super) fn payload(&mut self, footprint_bytes: f64) -> Origin {
        self.payload.push((false, footprint_bytes));
        Origin::Payload(self.payload.len() - 1)
    }

    /// The rows of a relation evaluate an expression.
    pub(super) fn evaluate(&mut self, expr: &Expr, relation: &Relation) {
        let rows = relation.rows.rows;
        let columns = expr.columns();
        columns.iter().for_each(|index| self.read(*index, relation));
        expr.visit(&mut |_| self.nodes += 1.0);
        let codes = |index: &usize| {
            relation
                .columns
                .get(*index)
                .is_some_and(|column| column.text == Text::Codes)
        };
        match (&expr.node, columns.as_slice()) {
            (Node::Column(_), _) => {}
            // Evaluated once per entry of the dictionary; rows look it up.
            (_, [column]) if codes(column) => {
                self.work.simple_operations += rows;
                self.work.text_bytes += relation.estimate.columns[*column].domain * TEXT_BYTES;
            }
            _ => self.operate(expr, relation),
        }
    }

    /// The rows of a relation hash, compare and copy these keys.
    pub(super) fn keys<'e>(&mut self, keys: impl Iterator<Item = &'e Expr>, relation: &Relation) {
        for key in keys {
            self.evaluate(key, relation);
            let column = relation.column(key);
            if column.text == Text::Raw {
                self.work.text_bytes += relation.rows.rows * column.bytes;
            }
        }
    }

    /// All columns of a relation are read.
    pub(super) fn read_all(&mut self, relation: &Relation) {
        (0..relation.columns.len()).for_each(|index| self.read(index, relation));
    }

    fn read(&mut self, index: usize, relation: &Relation) {
        let rows = relation.rows.rows;
        match relation.columns.get(index).map(|column| column.origin) {
            Some(Origin::Source(position)) => {
                if let Some((_, _, first @ None)) = self.source.get_mut(position) {
                    *first = Some(rows);
                    if rows < self.work.rows {
                        self.work.gathered_values += rows;
                    }
                }
            }
            Some(Origin::Payload(position)) => {
                if let Some((read @ false, footprint_bytes)) = self.payload.get_mut(position) {
                    *read = true;
                    self.work.lookups.push(Random {
                        footprint_bytes: *footprint_bytes,
                        accesses: rows,
                        hashed: false,
                    });
                }
            }
            Some(Origin::Made) | None => {}
        }
    }

    fn operate(&mut self, expr: &Expr, relation: &Relation) {
        let rows = relation.rows.rows;
        let work = &mut self.work;
        let text = |operand: &Expr| match relation.column(operand) {
            column if column.text == Text::Raw => column.bytes,
            _ => 0.0,
        };
        let is_code =
            |operand: &Expr| matches!(operand.node, Node::Column(_)) && relation.column(operand).text == Text::Codes;
        match &expr.node {
            Node::Column(_) | Node::Literal(_) | Node::Parameter(_) => {}
            Node::Binary { op, left, right } => match op {
                BinaryOperator::Divide | BinaryOperator::Remainder => work.wide_operations += rows,
                _ if left.data_type.is_bytes() && !is_code(left) && !is_code(right) => {
                    work.text_bytes += rows * text(left).max(text(right));
                }
                _ => work.simple_operations += rows * weight(&left.data_type),
            },
            Node::Like { expr, .. } if is_code(expr) => work.simple_operations += rows,
            Node::Like { expr, .. } => work.text_bytes += rows * text(expr),
            Node::InList { expr, list, .. } => match text(expr) {
                0.0 => work.simple_operations += rows * (list.len() as f64 / LIST_PER_OPERATION).ceil(),
                bytes => work.text_bytes += rows * bytes,
            },
            Node::Extract { .. } => work.wide_operations += rows,
            Node::Function { args, .. } => match args.iter().map(text).sum() {
                0.0 => work.simple_operations += rows,
                bytes => work.text_bytes += rows * bytes,
            },
            Node::Host { .. } => work.host_calls += rows,
            _ => work.simple_operations += rows * weight(&expr.data_type),
        }
        expr.children()
            .into_iter()
            .for_each(|child| self.operate(child, relation));
    }

    /// The work, when all steps are done, and the bytes of the source that it reads: in memory, and in files.
    pub(super) fn finish(mut self) -> (Work, f64, f64) {
        let rows = self.work.rows;
        let (mut memory_bytes, mut file_bytes) = (0.0, 0.0);
        for (bytes, encoded_bytes, first) in self.source {
            let Some(first) = first else { continue };
            memory_bytes += bytes * rows;
            file_bytes += encoded_bytes * rows;
            let per_line = (LINE_BYTES / bytes.max(0.125)).max(1.0);
            let share = 1.0 - (1.0 - (first / rows.max(1.0)).min(1.0)).powf(per_line);
            self.work.streams.push((bytes, bytes * rows * share));
        }
        (self.work, memory_bytes, file_bytes)
    }
}

fn weight(data_type: &Type) -> f64 {
    match data_type {
        Type::Float32 | Type::Float64 => PER_FLOAT,
        _ => 1.0,
    }
}
