//! Micro-graphs: what a device is timed at, as graphs of its own contract over tables that are made here.
//!
//! ```text
//!  trial = graph × (tables, and the same with few rows where it matters)
//!    time(large) − time(small) = what the rows that are more took: starting, launching and waiting are in both
//! ```
//!
//! A table's segments share their buffers and have identities of their own: a device that keeps columns holds each, the host
//! one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use trireme_device_api::{
    Aggregate, AggregateFunction, BinaryOperator, BuildSide, Carrier, ColumnProfile, DeviceColumn, DeviceError, Expr,
    Field, Fragment, FragmentId, GRAPH_VERSION, Graph, Inputs, JoinKind, Node, Probe, ScanInput, ScanSource, Sink,
    SortKey, Source, Step, Strings, Type, Unlimited, Value, Values, ZoneMap,
};

use super::Micro;
use crate::facts::{ColumnFacts, Facts, Known, Rows, ScanFacts};

/// Rows of a segment: as many as columns of files have.
pub(super) const SEGMENT_ROWS: usize = 1 << 20;
/// Rows of a table that only costs its start.
const FEW_ROWS: usize = 1 << 10;
/// Values that are summed.
const SMALL: u64 = 100;
/// Keys that no array holds.
const WIDE: u64 = 1 << 62;
/// An odd multiplier whose products have random high bits.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
const TEXT: &[u8] = b"carefully final deposits sleep furiously";

/// A column's values.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fill {
    /// Below a number, at random, in carriers of so many bytes.
    Random(u64, u8),
    /// The rows' numbers, in 4 bytes.
    Row,
    /// So many numbers from a wide range.
    Wide(u64),
    /// Strings.
    Text,
}

/// A table to make.
#[derive(Debug, Clone)]
pub(super) struct Table {
    columns: Vec<Fill>,
    rows: usize,
    /// More segments of the same rows may be added.
    grows: bool,
}

/// Something that a device is timed at.
#[derive(Debug, Clone)]
pub(super) struct Trial {
    pub(super) micro: Micro,
    pub(super) graph: Arc<Graph>,
    large: Vec<Table>,
    small: Vec<Table>,
}

/// A trial's tables, to be run on and to be predicted for.
pub(super) struct Bound {
    pub(super) inputs: Inputs,
    pub(super) facts: Facts,
}

impl Trial {
    /// The tables with many rows, the growing ones with so many segments.
    pub(super) fn large(&self, segments: usize) -> Bound {
        self.bound(&self.large, segments)
    }

    /// The tables with few.
    pub(super) fn small(&self) -> Bound {
        self.bound(&self.small, 1)
    }

    /// More segments make it longer.
    pub(super) fn grows(&self) -> bool {
        self.large.iter().any(|table| table.grows)
    }

    fn bound(&self, tables: &[Table], segments: usize) -> Bound {
        let count = |table: &Table| if table.grows { segments } else { 1 };
        let scans: Vec<Arc<dyn ScanInput>> = tables
            .iter()
            .map(|table| Arc::new(Made::new(table, count(table))) as Arc<dyn ScanInput>)
            .collect();
        let facts: Vec<_> = tables.iter().map(|table| table.facts(count(table))).collect();
        Bound {
            facts: Facts::of(&self.graph, &facts, &[], &[], &Known::default()),
            inputs: Inputs {
                scans,
                ..nothing_bound()
            },
        }
    }
}

pub(super) fn nothing_bound() -> Inputs {
    Inputs {
        scans: Vec::new(),
        streams: Vec::new(),
        parameters: Vec::new(),
        workers: 1,
        pool: Arc::new(Unlimited),
        cancelled: Arc::new(AtomicBool::new(false)),
        batch_rows: 8_192,
        emit: None,
        wake: None,
    }
}

impl Fill {
    fn values(self) -> u64 {
        match self {
            Fill::Random(values, _) | Fill::Wide(values) => values,
            Fill::Row | Fill::Text => u64::MAX,
        }
    }

    fn bytes(self) -> f64 {
        match self {
            Fill::Random(_, bytes) => f64::from(bytes),
            Fill::Row => 4.0,
            Fill::Wide(_) => 8.0,
            Fill::Text => TEXT.len() as f64 + 4.0,
        }
    }

    fn data_type(self) -> Type {
        match self {
            Fill::Text => Type::Utf8,
            _ => Type::Int64,
        }
    }

    fn range(self, rows: usize) -> Option<(i128, i128)> {
        Some(match self {
            Fill::Random(values, _) => (0, i128::from(values) - 1),
            Fill::Row => (0, rows as i128 - 1),
            Fill::Wide(_) => (0, i128::from(WIDE)),
            Fill::Text => return None,
        })
    }

    fn value(self, row: u64) -> u64 {
        let mixed = |value: u64| value.wrapping_add(1).wrapping_mul(MULTIPLIER);
        match self {
            Fill::Random(values, _) => (mixed(row) >> 24) % values,
            Fill::Wide(values) => mixed((mixed(row) >> 24) % values) % WIDE,
            Fill::Row | Fill::Text => row,
        }
    }

    /// Rows from `first` on, of a table of so many.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "values are below what their carrier holds"
    )]
    fn column(self, first: usize, rows: usize, all: usize) -> DeviceColumn {
        let values = || (first as u64..(first + rows) as u64).map(|row| self.value(row));
        let carrier = match self {
            Fill::Text => None,
            Fill::Random(_, 1) => Some(Carrier::I8(values().map(|value| value as i8).collect())),
            Fill::Random(_, 2) => Some(Carrier::I16(values().map(|value| value as i16).collect())),
            Fill::Random(_, 4) | Fill::Row => Some(Carrier::I32(values().map(|value| value as i32).collect())),
            Fill::Random(..) | Fill::Wide(_) => Some(Carrier::I64(values().map(|value| value as i64).collect())),
        };
        DeviceColumn {
            data_type: self.data_type(),
            rows,
            values: match carrier {
                Some(carrier) => Values::Integers { carrier, base: 0 },
                None => Values::Strings(Strings::from_values((0..rows).map(|_| TEXT))),
            },
            validity: None,
            zone: ZoneMap {
                range: self.range(all),
                null_count: 0,
                sorted: false,
                run_length: 1.0,
            },
        }
    }
}

impl Table {
    pub(super) fn of_rows(rows: usize, columns: &[Fill]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows,
            grows: false,
        }
    }

    pub(super) fn facts(&self, segments: usize) -> ScanFacts {
        let rows = (self.rows * segments) as f64;
        let column = |fill: &Fill| ColumnFacts {
            carrier_bytes: fill.bytes(),
            encoded_bytes: fill.bytes(),
            distinct: match fill {
                Fill::Text => Some(1.0),
                _ => Some((fill.values() as f64).min(self.rows as f64)),
            },
            range: fill.range(self.rows).map(|(low, high)| (low as f64, high as f64)),
            dictionary_entries: None,
        };
        ScanFacts {
            rows: Rows::exact(rows),
            columns: self.columns.iter().map(column).collect(),
        }
    }
}

/// A table that was made.
pub(super) struct Made {
    profiles: Vec<ColumnProfile>,
    /// Segments that differ, and their columns; those beyond repeat them.
    parts: Vec<Vec<Arc<DeviceColumn>>>,
    segments: usize,
    /// Of the first column of the first segment.
    identity: u64,
}

impl Made {
    pub(super) fn new(table: &Table, segments: usize) -> Self {
        /// Far from the hashes that files' columns have, as far as that can be.
        static NEXT: AtomicU64 = AtomicU64::new(0xca11_b8a7_0000_0000);
        let profile = |fill: &Fill| ColumnProfile {
            data_type: fill.data_type(),
            range: fill.range(table.rows),
            nullable: false,
            dictionary: None,
            distinct: None,
        };
        let rows = table.rows;
        let part = |first: usize| -> Vec<_> {
            let each = SEGMENT_ROWS.min(rows - first);
            let columns = table.columns.iter();
            columns.map(|fill| Arc::new(fill.column(first, each, rows))).collect()
        };
        let parts: Vec<_> = (0..rows).step_by(SEGMENT_ROWS).map(part).collect();
        let segments = segments * parts.len();
        let count = (segments * table.columns.len()) as u64;
        Self {
            profiles: table.columns.iter().map(profile).collect(),
            parts,
            segments,
            identity: NEXT.fetch_add(count, Ordering::Relaxed),
        }
    }
}

impl Made {
    fn at(&self, segment: usize, column: usize) -> Option<&Arc<DeviceColumn>> {
        self.parts.get(segment % self.parts.len().max(1))?.get(column)
    }
}

impl ScanInput for Made {
    fn columns(&self) -> &[ColumnProfile] {
        &self.profiles
    }

    fn segments(&self) -> usize {
        self.segments
    }

    fn rows(&self, segment: usize) -> usize {
        self.at(segment, 0).map_or(0, |column| column.rows)
    }

    fn zone(&self, segment: usize, column: usize) -> Option<ZoneMap> {
        Some(self.at(segment, column)?.zone)
    }

    fn identity(&self, segment: usize, column: usize) -> Option<u64> {
        Some(self.identity + (segment * self.profiles.len() + column) as u64)
    }

    fn load(&self, segment: usize, column: usize) -> Result<Arc<DeviceColumn>, DeviceError> {
        let column = self.at(segment, column).map(Arc::clone);
        column.ok_or_else(|| DeviceError::Internal("a micro-graph has no such column".to_owned()))
    }
}

pub(super) fn column(index: usize) -> Expr {
    Expr::column(index, Type::Int64)
}

pub(super) fn number(value: i128) -> Expr {
    Expr::literal(Value::Int(value), Type::Int64)
}

pub(super) fn binary(op: BinaryOperator, left: Expr, right: Expr) -> Expr {
    let data_type = match op {
        BinaryOperator::Less => Type::Boolean,
        _ => Type::Int64,
    };
    Expr::binary(op, left, right, data_type)
}

pub(super) fn aggregate(function: AggregateFunction, argument: Option<Expr>) -> Aggregate {
    Aggregate {
        function,
        argument,
        distinct: false,
        filter: None,
        order: Vec::new(),
        data_type: Type::Int64,
    }
}

/// Columns of a fragment's rows; of those that aggregate the last may be NULL.
fn fields(count: usize, sink: &Sink) -> Vec<Field> {
    let field = |index| Field {
        name: format!("c{index}"),
        data_type: Type::Int64,
        nullable: matches!(sink, Sink::Aggregate { .. }) && index + 1 == count,
    };
    (0..count).map(field).collect()
}

pub(super) fn fragment(source: Source, steps: Vec<Step>, sink: Sink, columns: usize) -> Fragment {
    Fragment {
        source,
        steps,
        output: fields(columns, &sink),
        sink,
    }
}

/// The sum of an expression over a source, grouped by others.
pub(super) fn sum(source: Source, steps: Vec<Step>, groups: Vec<Expr>, of: Expr) -> Fragment {
    let columns = groups.len() + 1;
    let aggregates = vec![aggregate(AggregateFunction::Sum, Some(of))];
    fragment(source, steps, Sink::Aggregate { groups, aggregates }, columns)
}

pub(super) fn emit(source: Source, columns: usize) -> Fragment {
    fragment(source, Vec::new(), Sink::Emit { limit: None, offset: 0 }, columns)
}

/// A table of so many segments' rows.
fn many(columns: &[Fill]) -> Table {
    Table {
        columns: columns.to_vec(),
        rows: SEGMENT_ROWS,
        grows: true,
    }
}

/// A graph of fragments over tables of these columns.
pub(super) fn graph_of<'a>(fragments: Vec<Fragment>, tables: impl IntoIterator<Item = &'a [Fill]>) -> Arc<Graph> {
    let field = |(index, fill): (usize, &Fill)| Field {
        name: format!("c{index}"),
        data_type: fill.data_type(),
        nullable: false,
    };
    let scan = |columns: &[Fill]| ScanSource {
        name: "made".to_owned(),
        columns: columns.iter().enumerate().map(field).collect(),
    };
    let output = fragments.last().map(|fragment| fragment.output.clone());
    Arc::new(Graph {
        version: GRAPH_VERSION,
        scans: tables.into_iter().map(scan).collect(),
        fragments,
        streams: Vec::new(),
        parameters: Vec::new(),
        output: output.unwrap_or_default(),
    })
}

fn trial(micro: Micro, fragments: Vec<Fragment>, large: Vec<Table>, small: Vec<Table>) -> Trial {
    Trial {
        micro,
        graph: graph_of(fragments, large.iter().map(|table| table.columns.as_slice())),
        large,
        small,
    }
}

/// Fragments over one table.
fn over(micro: Micro, fragments: Vec<Fragment>, columns: &[Fill]) -> Trial {
    let small = vec![Table::of_rows(FEW_ROWS, columns)];
    trial(micro, fragments, vec![many(columns)], small)
}

/// A chain of so many fragments over few rows: what each costs by itself.
pub(super) fn chain(fragments: usize) -> Trial {
    let mut all: Vec<_> = (1..fragments)
        .map(|id| match id {
            1 => emit(Source::Scan(0), 1),
            _ => emit(Source::Fragment(id - 2), 1),
        })
        .collect();
    let source = match all.len() {
        0 => Source::Scan(0),
        count => Source::Fragment(count - 1),
    };
    all.push(sum(source, Vec::new(), Vec::new(), column(0)));
    over(Micro::Launch, all, &[Fill::Random(SMALL, 4)])
}

/// A table of so many KiB, to be copied to the device; its sum needs it there.
pub(super) fn copied(kib: u32) -> Trial {
    let rows = (kib as usize * 128).clamp(FEW_ROWS / 8, SEGMENT_ROWS * 16);
    let columns = [Fill::Random(SMALL, 8)];
    let graph = vec![sum(Source::Scan(0), Vec::new(), Vec::new(), column(0))];
    let large = vec![Table {
        rows: rows.min(SEGMENT_ROWS),
        ..many(&columns)
    }];
    trial(Micro::Upload(kib), graph, large.clone(), large)
}

/// Segments of [`copied`].
pub(super) fn copied_segments(kib: u32) -> usize {
    (kib as usize * 128).div_ceil(SEGMENT_ROWS).max(1)
}

/// Rows of so many KiB that come back.
pub(super) fn returned(kib: u32) -> Trial {
    let rows = (kib as usize * 128).max(FEW_ROWS / 8);
    let columns = [Fill::Random(SMALL, 8)];
    let large = vec![Table::of_rows(rows, &columns)];
    let small = vec![Table::of_rows(FEW_ROWS / 8, &columns)];
    trial(Micro::Download(kib), vec![emit(Source::Scan(0), 1)], large, small)
}

pub(super) fn build_of(source: Source, steps: Vec<Step>, key: usize, payload: &[usize]) -> Fragment {
    let side = BuildSide {
        keys: vec![column(key)],
        payload: payload.iter().map(|at| column(*at)).collect(),
    };
    fragment(source, steps, Sink::Build(side), payload.len())
}

pub(super) fn probe(build: FragmentId, key: usize) -> Step {
    Step::Probe(Probe {
        build,
        kind: JoinKind::Inner,
        keys: vec![column(key)],
        residual: None,
        null_equals_null: false,
        null_aware: false,
    })
}

/// Keys of a dense join table of so many KiB.
fn keys(kib: u32) -> usize {
    kib as usize * 256
}

fn join(micro: Micro, kib: u32, filled: bool) -> Trial {
    let keys = keys(kib);
    let fragments = vec![
        build_of(Source::Scan(0), Vec::new(), 0, &[]),
        sum(Source::Scan(1), vec![probe(0, 0)], Vec::new(), column(0)),
    ];
    let build = Table::of_rows(keys, &[Fill::Row]);
    let probes = [Fill::Random(keys as u64, 4)];
    let few = Table::of_rows(FEW_ROWS, &probes);
    match filled {
        // The build side is there in both.
        true => trial(micro, fragments, vec![build.clone(), many(&probes)], vec![build, few]),
        false => {
            let little = Table::of_rows(FEW_ROWS, &[Fill::Row]);
            trial(micro, fragments, vec![build, few.clone()], vec![little, few])
        }
    }
}

fn simple() -> Expr {
    let ops = [BinaryOperator::Add, BinaryOperator::Multiply, BinaryOperator::Subtract];
    (0..9).fold(column(0), |expr, step| {
        let operand = if step % 3 == 1 { number(2) } else { column(0) };
        binary(ops[step % 3], expr, operand)
    })
}

/// Strings that hold a word.
pub(super) fn searched(index: usize) -> Step {
    let pattern = Value::Bytes(b"%special%"[..].into());
    Step::Filter(Expr {
        node: Node::Like {
            expr: Box::new(Expr::column(index, Type::Utf8)),
            pattern: Box::new(Expr::literal(pattern, Type::Utf8)),
            negated: false,
            case_insensitive: false,
        },
        data_type: Type::Boolean,
    })
}

fn text_search() -> Fragment {
    let sink = Sink::Aggregate {
        groups: Vec::new(),
        aggregates: vec![aggregate(AggregateFunction::Count, None)],
    };
    fragment(Source::Scan(0), vec![searched(0)], sink, 1)
}

fn sorted() -> Vec<Fragment> {
    let key = SortKey {
        expr: column(0),
        descending: false,
        nulls_first: false,
    };
    let sort = Sink::Sort {
        keys: vec![key],
        limit: None,
        offset: 0,
    };
    vec![
        fragment(Source::Scan(0), Vec::new(), sort, 1),
        sum(Source::Fragment(0), Vec::new(), Vec::new(), column(0)),
    ]
}

/// The graph by which something is measured; none for what is measured otherwise.
pub(super) fn of(micro: Micro) -> Option<Trial> {
    let scan = || Source::Scan(0);
    let total = |of: Expr| vec![sum(scan(), Vec::new(), Vec::new(), of)];
    let by_key = || vec![sum(scan(), Vec::new(), vec![column(0)], column(1))];
    let small = |bytes: u8| Fill::Random(SMALL, bytes);
    Some(match micro {
        Micro::Stream(bytes) => over(micro, total(column(0)), &[small(bytes)]),
        Micro::Simple => over(micro, total(simple()), &[small(4)]),
        Micro::Divide => over(
            micro,
            total(binary(BinaryOperator::Divide, column(0), number(7))),
            &[small(4)],
        ),
        Micro::Gather => {
            let few = binary(BinaryOperator::Less, column(0), number(5));
            let graph = vec![sum(scan(), vec![Step::Filter(few)], Vec::new(), column(1))];
            over(micro, graph, &[small(1), small(4)])
        }
        Micro::Write => over(
            micro,
            vec![
                emit(scan(), 1),
                sum(Source::Fragment(0), Vec::new(), Vec::new(), column(0)),
            ],
            &[small(8)],
        ),
        Micro::Update(groups) => over(micro, by_key(), &[Fill::Random(groups.into(), 4), small(4)]),
        Micro::Hash => over(micro, by_key(), &[Fill::Wide(1 << 10), small(4)]),
        Micro::NewGroups => {
            let columns = [Fill::Wide(1 << 17), small(4)];
            let large = vec![Table::of_rows(1 << 18, &columns)];
            trial(micro, by_key(), large, vec![Table::of_rows(FEW_ROWS, &columns)])
        }
        Micro::Insert(kib) => join(micro, kib, false),
        Micro::Random(kib) => join(micro, kib, true),
        Micro::Text => over(micro, vec![text_search()], &[Fill::Text]),
        Micro::Sort => {
            let columns = [Fill::Random(1 << 30, 4)];
            let large = vec![Table::of_rows(1 << 18, &columns)];
            trial(micro, sorted(), large, vec![Table::of_rows(FEW_ROWS, &columns)])
        }
        Micro::StreamAll | Micro::Launch | Micro::Test | Micro::Upload(_) | Micro::Download(_) => return None,
    })
}
