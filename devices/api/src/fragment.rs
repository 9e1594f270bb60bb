//! Fragments: fused pipelines as plain data, `source → steps → sink`, and the graph that one part of a plan becomes.
//!
//! ```text
//!  row of a fragment:  [ source columns ]  ─Filter→ same ─Project→ replaced ─Probe→ [ row ++ build columns ] ─▶ sink
//! ```
//!
//! Fragments stand in a graph in an order in which each reads only from earlier ones. A fragment's output is a table of rows
//! (aggregate, top-k, sort, emit) or a build side that later fragments probe.

use serde::{Deserialize, Serialize};

use crate::expr::Expr;
use crate::types::Type;

/// Version of the serialised form.
pub const GRAPH_VERSION: u32 = 1;

/// Position of a fragment in its graph.
pub type FragmentId = usize;

/// A column's name and type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Field {
    /// Name, for people.
    pub name: String,
    /// Type.
    pub data_type: Type,
    /// May hold NULL.
    pub nullable: bool,
}

/// The fragments of one fused part of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    /// [`GRAPH_VERSION`].
    pub version: u32,
    /// In an order of running; the last one's rows are the result.
    pub fragments: Vec<Fragment>,
    /// The tables that fragments scan: what [`crate::Inputs::scans`] must bind, in this order.
    pub scans: Vec<ScanSource>,
    /// Rows of streams of Arrow batches: what [`crate::Inputs::streams`] must bind, in this order.
    pub streams: Vec<Vec<Field>>,
    /// Types of parameters.
    pub parameters: Vec<Type>,
    /// Result columns: the first of the last fragment's. A last fragment that sorts may have more, which it only sorts by.
    pub output: Vec<Field>,
}

/// A table to scan. Which files hold it is exec's affair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScanSource {
    /// Name, for people.
    pub name: String,
    /// Columns, in the order in which fragments see them.
    pub columns: Vec<Field>,
}

/// One fused pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fragment {
    /// Where rows come from.
    pub source: Source,
    /// What happens to them, in order.
    pub steps: Vec<Step>,
    /// Where they go.
    pub sink: Sink,
    /// The columns of the output's rows; of a build sink: the payload columns that probes append.
    pub output: Vec<Field>,
}

/// Where rows come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Source {
    /// Table [`Graph::scans`]`[i]`, all its columns.
    Scan(usize),
    /// Arrow batches [`Graph::streams`]`[i]`.
    Stream(usize),
    /// The rows of an earlier fragment.
    Fragment(FragmentId),
}

/// What happens to a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Step {
    /// Keeps rows for which the predicate is true (not false, not NULL).
    Filter(Expr),
    /// Replaces the row.
    Project(Vec<Expr>),
    /// Joins with a build side.
    Probe(Probe),
}

/// How a probe joins. "Build" kinds give the rows of the build side after all rows were probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum JoinKind {
    /// row ++ build columns, for each match.
    Inner,
    /// As inner, and rows without a match with NULLs as build columns.
    Left,
    /// The row, once, if there is a match.
    Semi,
    /// The row if there is no match. With [`Probe::null_aware`]: NOT IN.
    Anti,
    /// The row ++ a boolean that says whether there is a match.
    Mark,
    /// As inner, and build rows without a match with NULLs as the row's columns.
    BuildOuter,
    /// As left and build outer together.
    Full,
    /// Only build columns: build rows with a match, each once.
    BuildSemi,
    /// Only build columns: build rows without a match.
    BuildAnti,
}

/// A probe of a build side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// The fragment whose sink is the build side.
    pub build: FragmentId,
    /// Kind.
    pub kind: JoinKind,
    /// Equal to the build's keys, in order. Empty: every build row is a candidate (a cross join, or a nested loop with
    /// `residual`).
    pub keys: Vec<Expr>,
    /// A further condition on row ++ build columns; a match needs it to be true.
    pub residual: Option<Expr>,
    /// NULL keys equal each other.
    pub null_equals_null: bool,
    /// NOT IN: nothing passes if the build side holds a NULL key, and a NULL row key passes only an empty build side.
    pub null_aware: bool,
}

/// Where rows go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Sink {
    /// Groups, then aggregates, as one row per group; without groups exactly one row.
    Aggregate {
        /// Group keys; NULL is a group, NaN is one group, −0.0 is 0.0's group.
        groups: Vec<Expr>,
        /// Aggregates.
        aggregates: Vec<Aggregate>,
    },
    /// A join table.
    Build(BuildSide),
    /// Sorted rows: the columns of the row, in key order; with `limit` only the first `limit` after `offset`.
    Sort {
        /// Keys, most significant first.
        keys: Vec<SortKey>,
        /// At most so many rows.
        limit: Option<usize>,
        /// Rows left out first.
        offset: usize,
    },
    /// The rows as they come; with `limit` any `limit` of them.
    Emit {
        /// At most so many rows.
        limit: Option<usize>,
        /// Rows left out first.
        offset: usize,
    },
}

/// What a build sink stores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BuildSide {
    /// Join keys; empty for cross joins.
    pub keys: Vec<Expr>,
    /// Columns of the row to keep, which probes append.
    pub payload: Vec<Expr>,
}

/// A sort key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SortKey {
    /// The key.
    pub expr: Expr,
    /// Largest first.
    pub descending: bool,
    /// NULLs before all others, whatever the direction.
    pub nulls_first: bool,
}

/// An aggregate and its result type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Aggregate {
    /// Function.
    pub function: AggregateFunction,
    /// Arguments; none for COUNT(*). First and last take one; the others one.
    pub argument: Option<Expr>,
    /// Over distinct values only.
    pub distinct: bool,
    /// FILTER (WHERE …).
    pub filter: Option<Expr>,
    /// Order of the rows, for first and last.
    pub order: Vec<SortKey>,
    /// Type of the result.
    pub data_type: Type,
}

/// Aggregate functions. All skip NULL arguments; over nothing COUNT is 0 and the others NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum AggregateFunction {
    Count,
    /// Exact for integers and decimals: overflow of the result type is an error.
    Sum,
    Min,
    Max,
    /// Float64 of numbers; of decimals a decimal, truncated as DataFusion does.
    Average,
    VarianceSample,
    VariancePopulation,
    StddevSample,
    StddevPopulation,
    BoolAnd,
    BoolOr,
    /// First in `order`, NULL included.
    First,
    /// Last in `order`, NULL included.
    Last,
}

impl Fragment {
    /// Fragments it reads from.
    pub fn inputs(&self) -> Vec<FragmentId> {
        let mut found: Vec<_> = self
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Probe(probe) => Some(probe.build),
                _ => None,
            })
            .collect();
        if let Source::Fragment(id) = self.source {
            found.push(id);
        }
        found
    }
}
