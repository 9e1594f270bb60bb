//! Where a pipeline's rows come from, cut into morsels.
//!
//! A scan's segments are loaded when a worker first wants a morsel of them, column by column, by as many workers as there
//! are; a segment's columns are let go when its last morsel is done, so that a scan larger than memory streams through it.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use trireme_device_api::{
    BinaryOperator, DeviceColumn, DeviceError, Expr, Field, Fragment, JoinKind, Node, Rows, ScanInput, Sink, Step,
    StreamInput, StreamPoll, Value, Values, ZoneMap,
};

use crate::vector::Shape;

/// Rows of a morsel: long enough to forget the hand-over, short enough to share the work.
pub(super) const MORSEL_ROWS: usize = 32 * 1024;

/// Columns of a segment; those that the fragment doesn't read are empty.
pub(super) type Columns = Arc<Vec<Arc<DeviceColumn>>>;

/// A morsel: some rows of a segment.
pub(super) struct Morsel {
    pub(super) columns: Columns,
    pub(super) start: usize,
    pub(super) rows: usize,
    segment: usize,
}

/// What asking for a morsel gives.
pub(super) enum Next {
    Morsel(Morsel),
    /// A column was loaded instead.
    Loaded,
    Waiting,
    End,
}

/// A bound source.
pub(super) enum Source {
    Segments(Segments),
    Stream(Stream),
}

/// A scan, or an earlier fragment's rows.
pub(super) struct Segments {
    segments: Vec<Segment>,
    /// (segment, start, rows), in order.
    morsels: Vec<(usize, usize, usize)>,
    next: AtomicUsize,
    done: AtomicUsize,
    scan: Option<Arc<dyn ScanInput>>,
    used: Vec<usize>,
}

struct Segment {
    rows: usize,
    state: Mutex<SegmentState>,
}

#[derive(Default)]
struct SegmentState {
    columns: Option<Columns>,
    loading: Vec<Option<Arc<DeviceColumn>>>,
    claimed: usize,
    loaded: usize,
    morsels_left: usize,
}

/// A stream of batches.
pub(super) struct Stream {
    input: Arc<dyn StreamInput>,
    fields: Vec<Field>,
    used: Vec<usize>,
    in_flight: AtomicUsize,
    ended: AtomicBool,
}

fn placeholder(field_type: &trireme_device_api::Type, rows: usize) -> Arc<DeviceColumn> {
    Arc::new(DeviceColumn {
        data_type: field_type.clone(),
        rows,
        values: Values::Nulls,
        validity: None,
        zone: ZoneMap::default(),
    })
}

impl Source {
    /// Over a scan; segments that the leading filters rule out by their zone maps are left out.
    pub(super) fn scan(scan: &Arc<dyn ScanInput>, fragment: &Fragment, parameters: &[Value]) -> Self {
        let used = used_columns(fragment, scan.columns().len());
        let tests = zone_tests(fragment, parameters);
        let mut morsels = Vec::new();
        let segments = (0..scan.segments())
            .map(|segment| {
                let rows = scan.rows(segment);
                let ruled_out = tests.iter().any(|test| {
                    scan.zone(segment, test.column)
                        .is_some_and(|zone| test.rules_out(&zone))
                });
                let before = morsels.len();
                if !ruled_out {
                    cut(segment, rows, &mut morsels);
                }
                Segment {
                    rows,
                    state: Mutex::new(SegmentState {
                        loading: vec![None; used.len()],
                        morsels_left: morsels.len() - before,
                        ..SegmentState::default()
                    }),
                }
            })
            .collect();
        Source::Segments(Segments {
            segments,
            morsels,
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            scan: Some(Arc::clone(scan)),
            used,
        })
    }

    /// Over the rows of an earlier fragment.
    pub(super) fn rows(rows: &Rows) -> Self {
        let mut morsels = Vec::new();
        let segments = rows
            .segments
            .iter()
            .enumerate()
            .map(|(segment, (count, columns))| {
                let before = morsels.len();
                cut(segment, *count, &mut morsels);
                Segment {
                    rows: *count,
                    state: Mutex::new(SegmentState {
                        columns: Some(Arc::new(columns.clone())),
                        morsels_left: morsels.len() - before,
                        ..SegmentState::default()
                    }),
                }
            })
            .collect();
        Source::Segments(Segments {
            segments,
            morsels,
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            scan: None,
            used: Vec::new(),
        })
    }

    /// Over batches.
    pub(super) fn stream(input: &Arc<dyn StreamInput>, fields: &[Field], fragment: &Fragment) -> Self {
        Source::Stream(Stream {
            input: Arc::clone(input),
            fields: fields.to_vec(),
            used: used_columns(fragment, fields.len()),
            in_flight: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        })
    }

    /// Rows, when known.
    pub(super) fn row_count(&self) -> Option<usize> {
        match self {
            Source::Segments(segments) => Some(segments.morsels.iter().map(|(_, _, rows)| rows).sum()),
            Source::Stream(_) => None,
        }
    }

    /// A morsel for one worker; `kept` is the worker's place for a morsel whose segment is still being loaded.
    pub(super) fn next(&self, kept: &mut Option<usize>) -> Result<Next, DeviceError> {
        match self {
            Source::Segments(segments) => segments.next(kept),
            Source::Stream(stream) => stream.next(),
        }
    }

    /// A morsel is done.
    pub(super) fn release(&self, morsel: &Morsel) {
        match self {
            Source::Segments(segments) => segments.release(morsel.segment),
            Source::Stream(stream) => {
                stream.in_flight.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    /// Every morsel was released.
    pub(super) fn finished(&self) -> bool {
        match self {
            Source::Segments(segments) => segments.done.load(Ordering::SeqCst) == segments.morsels.len(),
            Source::Stream(stream) => {
                stream.ended.load(Ordering::SeqCst) && stream.in_flight.load(Ordering::SeqCst) == 0
            }
        }
    }
}

fn cut(segment: usize, rows: usize, morsels: &mut Vec<(usize, usize, usize)>) {
    let mut start = 0;
    while start < rows {
        let take = MORSEL_ROWS.min(rows - start);
        morsels.push((segment, start, take));
        start += take;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Segments {
    fn next(&self, kept: &mut Option<usize>) -> Result<Next, DeviceError> {
        let index = kept.take().unwrap_or_else(|| self.next.fetch_add(1, Ordering::Relaxed));
        let Some(&(segment, start, rows)) = self.morsels.get(index) else {
            return Ok(Next::End);
        };
        let ready = lock(&self.segments[segment].state).columns.clone();
        if let Some(columns) = ready {
            return Ok(Next::Morsel(Morsel {
                columns,
                start,
                rows,
                segment,
            }));
        }
        *kept = Some(index);
        // Help with this segment; when all its columns are claimed, with the next one.
        for ahead in [segment, segment + 1] {
            if ahead < self.segments.len() && self.load_one(ahead)? {
                return Ok(Next::Loaded);
            }
        }
        Ok(Next::Waiting)
    }

    /// Loads one column that nobody has claimed.
    fn load_one(&self, index: usize) -> Result<bool, DeviceError> {
        let Some(scan) = &self.scan else { return Ok(false) };
        let segment = &self.segments[index];
        let claimed = {
            let mut state = lock(&segment.state);
            if state.columns.is_some() || state.morsels_left == 0 {
                return Ok(false);
            }
            if self.used.is_empty() {
                state.columns = Some(self.assemble(scan, segment.rows, &[]));
                return Ok(true);
            }
            if state.claimed == self.used.len() {
                return Ok(false);
            }
            state.claimed += 1;
            state.claimed - 1
        };
        let column = scan.load(index, self.used[claimed])?;
        let mut state = lock(&segment.state);
        state.loading[claimed] = Some(column);
        state.loaded += 1;
        if state.loaded == self.used.len() {
            let loaded = std::mem::take(&mut state.loading);
            state.columns = Some(self.assemble(scan, segment.rows, &loaded));
        }
        Ok(true)
    }

    fn assemble(&self, scan: &Arc<dyn ScanInput>, rows: usize, loaded: &[Option<Arc<DeviceColumn>>]) -> Columns {
        let mut columns: Vec<_> = scan
            .columns()
            .iter()
            .map(|profile| placeholder(&profile.data_type, rows))
            .collect();
        for (column, index) in loaded.iter().zip(&self.used) {
            if let Some(column) = column {
                columns[*index] = Arc::clone(column);
            }
        }
        Arc::new(columns)
    }

    fn release(&self, segment: usize) {
        let mut state = lock(&self.segments[segment].state);
        state.morsels_left = state.morsels_left.saturating_sub(1);
        if state.morsels_left == 0 {
            state.columns = None;
        }
        drop(state);
        self.done.fetch_add(1, Ordering::SeqCst);
    }
}

impl Stream {
    fn next(&self) -> Result<Next, DeviceError> {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let batch = match self.input.poll()? {
            StreamPoll::Batch(batch) => batch,
            StreamPoll::Waiting => {
                self.in_flight.fetch_sub(1, Ordering::SeqCst);
                return Ok(Next::Waiting);
            }
            StreamPoll::End => {
                self.ended.store(true, Ordering::SeqCst);
                self.in_flight.fetch_sub(1, Ordering::SeqCst);
                return Ok(Next::End);
            }
        };
        let rows = batch.num_rows();
        let mut columns: Vec<_> = self
            .fields
            .iter()
            .map(|field| placeholder(&field.data_type, rows))
            .collect();
        for &index in &self.used {
            let column = DeviceColumn::from_arrow(batch.column(index), &self.fields[index].data_type)?;
            columns[index] = Arc::new(column);
        }
        Ok(Next::Morsel(Morsel {
            columns: Arc::new(columns),
            start: 0,
            rows,
            segment: 0,
        }))
    }
}

/// Which source columns the fragment reads, ascending.
pub(super) fn used_columns(fragment: &Fragment, count: usize) -> Vec<usize> {
    let mut used = vec![false; count];
    // What each column of the current row is: a source column, or something else.
    let mut row: Vec<Option<usize>> = (0..count).map(Some).collect();
    for step in &fragment.steps {
        match step {
            Step::Filter(predicate) => mark(&row, predicate, &mut used),
            Step::Project(exprs) => {
                let mut next = Vec::with_capacity(exprs.len());
                for expr in exprs {
                    match expr.node {
                        Node::Column(index) => next.push(row.get(index).copied().flatten()),
                        _ => {
                            mark(&row, expr, &mut used);
                            next.push(None);
                        }
                    }
                }
                row = next;
            }
            Step::Probe(probe) => {
                for expr in probe.keys.iter().chain(&probe.residual) {
                    mark(&row, expr, &mut used);
                }
                if matches!(probe.kind, JoinKind::BuildSemi | JoinKind::BuildAnti) {
                    row.clear();
                }
                // Later columns come from the build side.
            }
        }
    }
    match &fragment.sink {
        Sink::Aggregate { groups, aggregates } => {
            for expr in groups {
                mark(&row, expr, &mut used);
            }
            for aggregate in aggregates {
                let order = aggregate.order.iter().map(|key| &key.expr);
                for expr in aggregate.argument.iter().chain(&aggregate.filter).chain(order) {
                    mark(&row, expr, &mut used);
                }
            }
        }
        Sink::Build(build) => {
            for expr in build.keys.iter().chain(&build.payload) {
                mark(&row, expr, &mut used);
            }
        }
        Sink::Sort { .. } | Sink::Emit { .. } => {
            for source in row.iter().flatten() {
                used[*source] = true;
            }
            if let Sink::Sort { keys, .. } = &fragment.sink {
                for key in keys {
                    mark(&row, &key.expr, &mut used);
                }
            }
        }
    }
    (0..count).filter(|index| used[*index]).collect()
}

/// Notes the source columns that an expression over the current row reads.
fn mark(row: &[Option<usize>], expr: &Expr, used: &mut [bool]) {
    for index in expr.columns() {
        if let Some(Some(source)) = row.get(index) {
            used[*source] = true;
        }
    }
}

/// A comparison of a source column with a constant that rows must pass.
struct ZoneTest {
    column: usize,
    op: BinaryOperator,
    value: i128,
}

impl ZoneTest {
    fn rules_out(&self, zone: &ZoneMap) -> bool {
        let Some((low, high)) = zone.range else { return false };
        match self.op {
            BinaryOperator::Equal => self.value < low || self.value > high,
            BinaryOperator::Less => low >= self.value,
            BinaryOperator::LessOrEqual => low > self.value,
            BinaryOperator::Greater => high <= self.value,
            BinaryOperator::GreaterOrEqual => high < self.value,
            _ => false,
        }
    }
}

/// The tests in the filters that stand before anything else.
fn zone_tests(fragment: &Fragment, parameters: &[Value]) -> Vec<ZoneTest> {
    let mut tests = Vec::new();
    for step in &fragment.steps {
        let Step::Filter(predicate) = step else { break };
        conjuncts(predicate, &mut |expr| {
            let Node::Binary { op, left, right } = &expr.node else {
                return;
            };
            if left.data_type != right.data_type || !left.data_type.is_integral() {
                return;
            }
            let constant = |expr: &Expr| match &expr.node {
                Node::Literal(Value::Int(value)) => Some(*value),
                Node::Parameter(index) => match parameters.get(*index) {
                    Some(Value::Int(value)) => Some(*value),
                    _ => None,
                },
                _ => None,
            };
            if let (Node::Column(column), Some(value)) = (&left.node, constant(right)) {
                tests.push(ZoneTest {
                    column: *column,
                    op: *op,
                    value,
                });
            } else if let (Some(value), Node::Column(column)) = (constant(left), &right.node) {
                tests.push(ZoneTest {
                    column: *column,
                    op: flipped(*op),
                    value,
                });
            }
        });
    }
    tests
}

fn conjuncts<'a>(expr: &'a Expr, see: &mut dyn FnMut(&'a Expr)) {
    match &expr.node {
        Node::Binary {
            op: BinaryOperator::And,
            left,
            right,
        } => {
            conjuncts(left, see);
            conjuncts(right, see);
        }
        _ => see(expr),
    }
}

fn flipped(op: BinaryOperator) -> BinaryOperator {
    match op {
        BinaryOperator::Less => BinaryOperator::Greater,
        BinaryOperator::LessOrEqual => BinaryOperator::GreaterOrEqual,
        BinaryOperator::Greater => BinaryOperator::Less,
        BinaryOperator::GreaterOrEqual => BinaryOperator::LessOrEqual,
        other => other,
    }
}

/// The shapes of an earlier fragment's rows.
pub(super) fn row_shapes(rows: &Rows, fields: &[Field]) -> Vec<Shape> {
    fields
        .iter()
        .enumerate()
        .map(|(index, field)| {
            let mut all = Shape::of_type(field.data_type.clone(), false);
            all.range = None;
            for (_, columns) in &rows.segments {
                let own = column_shape(&columns[index]);
                all.nullable |= own.nullable;
                all.dictionary = all.dictionary.or(own.dictionary);
                all.range = match (all.range, own.range) {
                    (Some((low, high)), Some((own_low, own_high))) => Some((low.min(own_low), high.max(own_high))),
                    (range, own) => range.or(own),
                };
            }
            if field.data_type.is_integral() {
                all.range = all.range.or(Some((0, 0)));
            }
            all
        })
        .collect()
}

/// What is known of a column that is there.
pub(super) fn column_shape(column: &DeviceColumn) -> Shape {
    let values = column.rows > column.zone.null_count && !matches!(column.values, Values::Nulls);
    let range = match column.data_type.value_range() {
        None => None,
        Some(_) if !values => Some((0, 0)),
        Some(all) => Some(column.zone.range.unwrap_or(all)),
    };
    Shape {
        data_type: column.data_type.clone(),
        range,
        nullable: column.validity.is_some() || matches!(column.values, Values::Nulls),
        dictionary: match &column.values {
            Values::Codes { dictionary, .. } => Some(Arc::clone(dictionary)),
            _ => None,
        },
        distinct: None,
    }
}
