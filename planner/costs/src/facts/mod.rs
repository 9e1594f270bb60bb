//! What a fragment needs, whatever runs it: bytes to read, rows to look up, operations, groups, rows out.
//!
//! ```text
//!  Graph ─┐
//!  scans ─┼─▶ rows after each step ─▶ Work: bytes by carrier, accesses by footprint, operations, inserts, updates
//!  known ─┘    (estimate)             (work)
//! ```
//!
//! Every row count says where it comes from. What is known (`known`: true counts, fed-back ones, another estimator's) comes
//! before what [`crate::rows`] estimates. Times are [`crate::predict`]'s affair.

mod estimate;
mod relation;
mod work;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use trireme_device_api::{FragmentId, Graph, ScanSource, Sink, Source, Step, Type, Value};

pub use work::{Random, Updates, Work};

use estimate::Estimator;
use relation::Relation;

use crate::rows::ROWS_UNKNOWN;

/// Where a row count comes from, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowsFrom {
    /// Counted.
    Exact,
    /// Seen in an earlier run of the same sub-plan.
    Feedback,
    /// Computed from distinct counts, bounds, histograms.
    Sketch,
    /// Found in a sample.
    Sample,
    /// Guessed.
    Default,
}

impl RowsFrom {
    /// As EXPLAIN shows it.
    pub fn name(self) -> &'static str {
        match self {
            RowsFrom::Exact => "exact",
            RowsFrom::Feedback => "feedback",
            RowsFrom::Sketch => "sketch",
            RowsFrom::Sample => "sample",
            RowsFrom::Default => "default",
        }
    }
}

/// A row count and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    /// Rows.
    pub rows: f64,
    /// Of this count.
    pub from: RowsFrom,
}

impl Rows {
    /// Counted rows.
    pub fn exact(rows: f64) -> Self {
        Self {
            rows,
            from: RowsFrom::Exact,
        }
    }

    /// Guessed rows.
    pub fn guessed(rows: f64) -> Self {
        Self {
            rows,
            from: RowsFrom::Default,
        }
    }
}

/// What is known of a column of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnFacts {
    /// Bytes of a value in memory: the carrier's width; of strings that are no codes, their mean length and offset.
    pub carrier_bytes: f64,
    /// Bytes of a value in its file, compressed.
    pub encoded_bytes: f64,
    /// Distinct values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distinct: Option<f64>,
    /// Bounds of an integral column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<(f64, f64)>,
    /// Entries of its dictionary, when strings are codes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dictionary_entries: Option<f64>,
}

/// Bytes in files to bytes in memory, when nothing is known.
const ENCODED_SHARE: f64 = 0.6;
/// Bytes of a string of which nothing is known.
const TEXT_BYTES: f64 = 20.0;

impl ColumnFacts {
    /// Of a column of which only the type is known.
    pub fn of_type(data_type: &Type) -> Self {
        let carrier_bytes = type_bytes(data_type);
        Self {
            carrier_bytes,
            encoded_bytes: carrier_bytes * ENCODED_SHARE,
            distinct: None,
            range: None,
            dictionary_entries: None,
        }
    }
}

/// What is known of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScanFacts {
    /// Rows, after partitions and row groups were left out.
    pub rows: Rows,
    /// Columns, as [`ScanSource::columns`].
    pub columns: Vec<ColumnFacts>,
}

impl ScanFacts {
    /// Of a table of which only the rows may be known.
    pub fn of(scan: &ScanSource, rows: Option<f64>) -> Self {
        Self {
            rows: rows.map_or(Rows::guessed(ROWS_UNKNOWN), Rows::exact),
            columns: scan
                .columns
                .iter()
                .map(|field| ColumnFacts::of_type(&field.data_type))
                .collect(),
        }
    }
}

/// Row counts that come before estimates.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    /// Rows after a step, by fragment and number of steps done.
    pub steps: HashMap<(FragmentId, usize), Rows>,
    /// Rows that a fragment leaves: groups, build rows, result rows.
    pub outputs: HashMap<FragmentId, Rows>,
}

/// What happens at the end of a fragment; learned corrections are kept by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkKind {
    /// One row of aggregates.
    Total,
    /// Groups.
    Group,
    /// A join table.
    Build,
    /// Sorted rows, or the first of them.
    Sort,
    /// Rows as they come.
    Emit,
}

impl SinkKind {
    fn of(sink: &Sink) -> Self {
        match sink {
            Sink::Aggregate { groups, .. } if groups.is_empty() => SinkKind::Total,
            Sink::Aggregate { .. } => SinkKind::Group,
            Sink::Build(_) => SinkKind::Build,
            Sink::Sort { .. } => SinkKind::Sort,
            Sink::Emit { .. } => SinkKind::Emit,
        }
    }

    /// As EXPLAIN shows it.
    pub fn name(self) -> &'static str {
        match self {
            SinkKind::Total => "total",
            SinkKind::Group => "group",
            SinkKind::Build => "build",
            SinkKind::Sort => "sort",
            SinkKind::Emit => "emit",
        }
    }
}

/// What a fragment needs.
#[derive(Debug, Clone, PartialEq)]
pub struct FragmentFacts {
    /// What it does, in few words: `lineitem → filter → probe 1 → group`.
    pub text: String,
    /// It is the first of its graph.
    pub first: bool,
    /// Where rows come from.
    pub source: Source,
    /// Build sides that it probes: they must be on its device.
    pub builds: Vec<FragmentId>,
    /// Its end.
    pub sink: SinkKind,
    /// Rows of the source.
    pub source_rows: Rows,
    /// Bytes of the source's columns that it reads, in memory.
    pub source_bytes: f64,
    /// The same in files.
    pub encoded_bytes: f64,
    /// Rows after each step; the last are the sink's.
    pub step_rows: Vec<Rows>,
    /// Rows it leaves: groups, build rows, result rows.
    pub output_rows: Rows,
    /// Bytes of these.
    pub output_bytes: f64,
    /// Memory of its table: groups or build side.
    pub table_bytes: f64,
    /// Nodes of its expressions: what compilers get.
    pub nodes: f64,
    /// What running it takes.
    pub work: Work,
}

impl FragmentFacts {
    /// Rows that reach the sink.
    pub fn sink_rows(&self) -> Rows {
        self.step_rows.last().copied().unwrap_or(self.source_rows)
    }

    /// The fragment whose rows it reads.
    pub fn source_fragment(&self) -> Option<FragmentId> {
        match self.source {
            Source::Fragment(id) => Some(id),
            Source::Scan(_) | Source::Stream(_) => None,
        }
    }
}

/// What a graph's fragments need.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// By fragment.
    pub fragments: Vec<FragmentFacts>,
}

impl Facts {
    /// From a graph and what is known of its tables (as [`Graph::scans`]), streams (rows, as [`Graph::streams`]) and parameters.
    /// What is missing is guessed.
    pub fn of(graph: &Graph, scans: &[ScanFacts], streams: &[Rows], parameters: &[Value], known: &Known) -> Self {
        let mut estimator = Estimator::new(parameters, known);
        let mut fragments = Vec::with_capacity(graph.fragments.len());
        for (id, fragment) in graph.fragments.iter().enumerate() {
            let source = match fragment.source {
                Source::Scan(scan) => match (scans.get(scan), graph.scans.get(scan)) {
                    (Some(facts), Some(scan)) => Relation::of_scan(facts, &scan.columns),
                    (None, Some(scan)) => Relation::of_scan(&ScanFacts::of(scan, None), &scan.columns),
                    (_, None) => Relation::of_stream(None, &[]),
                },
                Source::Stream(stream) => {
                    let fields = graph.streams.get(stream).map_or(&[][..], Vec::as_slice);
                    Relation::of_stream(streams.get(stream).copied(), fields)
                }
                Source::Fragment(input) => estimator.output(input),
            };
            let mut facts = estimator.fragment(id, fragment, source);
            facts.text = text(graph, id);
            fragments.push(facts);
        }
        Self { fragments }
    }
}

/// A fragment in few words.
fn text(graph: &Graph, id: FragmentId) -> String {
    let fragment = &graph.fragments[id];
    let mut text = match fragment.source {
        Source::Scan(scan) => graph
            .scans
            .get(scan)
            .map_or_else(|| format!("scan {scan}"), |scan| scan.name.clone()),
        Source::Stream(stream) => format!("stream {stream}"),
        Source::Fragment(input) => format!("fragment {input}"),
    };
    for step in &fragment.steps {
        match step {
            Step::Filter(_) => text += " → filter",
            Step::Project(_) => {}
            Step::Probe(probe) => text += &format!(" → probe {}", probe.build),
        }
    }
    text + " → " + SinkKind::of(&fragment.sink).name()
}

/// Bytes of a value in memory when only its type is known.
pub(crate) fn type_bytes(data_type: &Type) -> f64 {
    match data_type {
        Type::Null => 0.0,
        Type::Boolean => 0.125,
        Type::Int8 | Type::UInt8 => 1.0,
        Type::Int16 | Type::UInt16 => 2.0,
        Type::Int32 | Type::UInt32 | Type::Float32 | Type::Date32 => 4.0,
        Type::Decimal { precision, .. } if *precision <= 9 => 4.0,
        Type::Int64 | Type::UInt64 | Type::Float64 | Type::Time(_) | Type::Timestamp { .. } => 8.0,
        Type::Decimal { precision, .. } if *precision <= 18 => 8.0,
        Type::Decimal { .. } | Type::Interval(_) => 16.0,
        Type::Utf8 | Type::LargeUtf8 | Type::Utf8View | Type::Binary | Type::LargeBinary | Type::BinaryView => {
            TEXT_BYTES
        }
    }
}

#[cfg(test)]
mod tests;
