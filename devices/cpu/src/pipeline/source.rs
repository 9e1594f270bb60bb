//! Where a pipeline's rows come from, cut into morsels.
//!
//! A scan's segments are loaded when a worker first wants a morsel of them, column by column, by as many workers as there
//! are; a segment's columns are let go when its last morsel is done, so that a scan larger than memory streams through it.
//! No worker waits for a store: a column whose bytes are under way is passed over, and so is its segment for one that is here.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use trireme_device_api::{
    Bounds, DeviceColumn, DeviceError, Expr, Field, Fragment, JoinKind, MORSEL_ROWS, Node, RowTest, Rows, ScanInput,
    Sink, Step, StreamInput, StreamPoll, Values, ZoneMap,
};

use crate::vector::Shape;

use super::late::Late;
use super::loads::Loads;

/// Segments loaded at a time: the one that is worked on, and the next.
const LOADING: usize = 2;

/// Segments after the first that is not loaded that are looked at for one whose bytes are here.
const LOOK_AHEAD: usize = 8;

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
    /// The morsels of all segments before this one are handed out.
    first: AtomicUsize,
    /// Morsels that were released.
    done: AtomicUsize,
    /// Morsels, and their rows.
    morsels: usize,
    rows: usize,
    scan: Option<Arc<dyn ScanInput>>,
    loads: Loads,
    used: Vec<usize>,
    /// For segments of which columns are put off.
    late: Option<Late>,
}

struct Segment {
    rows: usize,
    /// Loaded in two steps: what filters test, and the rest if a row passes.
    late: bool,
    /// None when its rows are not wanted.
    morsels: usize,
    /// Morsels handed out; may count beyond.
    next: AtomicUsize,
    state: Mutex<SegmentState>,
}

#[derive(Default)]
struct SegmentState {
    columns: Option<Columns>,
    /// By used column.
    loading: Vec<Loading>,
    loaded: usize,
    morsels_left: usize,
    /// Of a late segment: a row passes.
    passed: bool,
}

#[derive(Clone, Default)]
enum Loading {
    #[default]
    No,
    /// By some worker.
    Claimed,
    Loaded(Arc<DeviceColumn>),
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
    /// Over a scan; segments in which no row passes the test by their zone maps are left out.
    pub(super) fn scan(scan: &Arc<dyn ScanInput>, fragment: &Fragment, test: &RowTest, late: Option<Late>) -> Self {
        let used = used_columns(fragment, scan.columns().len());
        let segment = |segment| {
            let wanted = may_pass(scan.as_ref(), segment, test);
            if !wanted {
                scan.dismiss(segment);
            }
            let mut made = Segment::new(scan.rows(segment), wanted, None, used.len());
            made.late = late.is_some() && scan.late(segment);
            made
        };
        let segments = (0..scan.segments()).map(segment).collect();
        let mut segments = Segments::new(segments, Some(Arc::clone(scan)), used);
        segments.late = late;
        Source::Segments(segments)
    }

    /// Over the rows of an earlier fragment.
    pub(super) fn rows(rows: &Rows) -> Self {
        let segment =
            |(rows, columns): &(usize, Vec<Arc<DeviceColumn>>)| Segment::new(*rows, true, Some(columns.clone()), 0);
        let segments = rows.segments.iter().map(segment).collect();
        Source::Segments(Segments::new(segments, None, Vec::new()))
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
            Source::Segments(segments) => Some(segments.rows),
            Source::Stream(_) => None,
        }
    }

    /// Time in which columns were loaded.
    pub(super) fn loaded_for(&self) -> Duration {
        match self {
            Source::Segments(segments) => segments.loads.total(),
            Source::Stream(_) => Duration::ZERO,
        }
    }

    /// A morsel for one worker.
    pub(super) fn next(&self) -> Result<Next, DeviceError> {
        match self {
            Source::Segments(segments) => segments.next(),
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

    /// No further morsel will be asked for: what of a scan was not loaded is not needed.
    pub(super) fn stop(&self) {
        if let Source::Segments(segments) = self
            && let Some(scan) = &segments.scan
        {
            let first = segments.first.load(Ordering::Relaxed);
            let left = segments.segments.iter().enumerate().skip(first);
            for (index, _) in left.filter(|(_, segment)| !segment.is_out()) {
                scan.dismiss(index);
            }
        }
    }

    /// Every morsel was released.
    pub(super) fn finished(&self) -> bool {
        match self {
            Source::Segments(segments) => segments.done.load(Ordering::SeqCst) == segments.morsels,
            Source::Stream(stream) => {
                stream.ended.load(Ordering::SeqCst) && stream.in_flight.load(Ordering::SeqCst) == 0
            }
        }
    }
}

/// False when a segment's zone maps rule out every row.
fn may_pass(scan: &dyn ScanInput, segment: usize, test: &RowTest) -> bool {
    // A column is often tested twice, and its zone map is not free.
    let mut seen: Vec<(usize, Option<Bounds>)> = Vec::new();
    test.may_pass(&mut |column, test| {
        let at = seen.iter().position(|(other, _)| *other == column).unwrap_or_else(|| {
            let zone = scan.zone(segment, column);
            seen.push((column, zone.as_ref().map(Bounds::of_zone)));
            seen.len() - 1
        });
        seen[at].1.as_ref().is_none_or(|bounds| test.may_pass(bounds))
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Segment {
    fn new(rows: usize, wanted: bool, columns: Option<Vec<Arc<DeviceColumn>>>, used: usize) -> Self {
        let morsels = if wanted { rows.div_ceil(MORSEL_ROWS) } else { 0 };
        Self {
            rows,
            late: false,
            morsels,
            next: AtomicUsize::new(0),
            state: Mutex::new(SegmentState {
                columns: columns.map(Arc::new),
                loading: vec![Loading::No; used],
                loaded: 0,
                morsels_left: morsels,
                passed: false,
            }),
        }
    }

    /// All its morsels are handed out.
    fn is_out(&self) -> bool {
        self.next.load(Ordering::Relaxed) >= self.morsels
    }

    /// A morsel of a segment that is loaded.
    fn morsel(&self, segment: usize, columns: Columns) -> Option<Morsel> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let start = number * MORSEL_ROWS;
        (number < self.morsels).then(|| Morsel {
            columns,
            start,
            rows: MORSEL_ROWS.min(self.rows - start),
            segment,
        })
    }
}

impl Segments {
    fn new(segments: Vec<Segment>, scan: Option<Arc<dyn ScanInput>>, used: Vec<usize>) -> Self {
        let wanted = segments.iter().filter(|segment| segment.morsels > 0);
        Self {
            morsels: wanted.clone().map(|segment| segment.morsels).sum(),
            rows: wanted.map(|segment| segment.rows).sum(),
            first: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            segments,
            scan,
            loads: Loads::default(),
            used,
            late: None,
        }
    }

    /// A morsel of the first segment that is loaded; else this worker helps to load the first ones.
    fn next(&self) -> Result<Next, DeviceError> {
        let first = self.first.load(Ordering::Relaxed);
        let (mut out, mut ahead) = (0, 0);
        for index in first..self.segments.len() {
            let segment = &self.segments[index];
            if segment.is_out() {
                if index == first + out {
                    out += 1;
                    self.first.fetch_max(first + out, Ordering::Relaxed);
                }
                continue;
            }
            let loaded = lock(&segment.state).columns.clone();
            if let Some(columns) = loaded {
                match segment.morsel(index, columns) {
                    Some(morsel) if self.claims(&morsel) => return Ok(Next::Morsel(morsel)),
                    Some(_) => {
                        self.release(index);
                        return Ok(Next::Loaded);
                    }
                    None => continue,
                }
            }
            if self.load_one(index, ahead < LOADING)? {
                return Ok(Next::Loaded);
            }
            ahead += 1;
            if ahead == LOOK_AHEAD {
                break;
            }
        }
        Ok(match first + out == self.segments.len() {
            true => Next::End,
            false => Next::Waiting,
        })
    }

    /// False when another reader of the scan has these rows.
    fn claims(&self, morsel: &Morsel) -> bool {
        let scan = self.scan.as_ref();
        scan.is_none_or(|scan| scan.claim(morsel.segment, morsel.start))
    }

    /// Loads one column that nobody has claimed and whose bytes are here; unless it is `due`, only when the others' are too.
    fn load_one(&self, index: usize, due: bool) -> Result<bool, DeviceError> {
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
            let Some(claimed) = self.loadable(scan, index, &state, due) else {
                return Ok(false);
            };
            state.loading[claimed] = Loading::Claimed;
            claimed
        };
        let column = self.loads.during(|| scan.load(index, self.used[claimed]))?;
        let mut state = lock(&segment.state);
        state.loading[claimed] = Loading::Loaded(column);
        state.loaded += 1;
        if let Some(late) = self.late.as_ref().filter(|_| segment.late && !state.passed) {
            if state.loaded < late.first.len() {
                return Ok(true);
            }
            let columns = self.assemble(scan, segment.rows, &state.loading);
            drop(state);
            // Until this is known nobody finds a column to load.
            if !late.any_row_passes(&columns, segment.rows)? {
                self.leave_out(scan, index);
                return Ok(true);
            }
            lock(&segment.state).passed = true;
            return Ok(true);
        }
        if state.loaded == self.used.len() {
            let loaded = std::mem::take(&mut state.loading);
            state.columns = Some(self.assemble(scan, segment.rows, &loaded));
        }
        Ok(true)
    }

    /// No row of a segment passes: its morsels are done.
    fn leave_out(&self, scan: &Arc<dyn ScanInput>, index: usize) {
        let segment = &self.segments[index];
        scan.dismiss(index);
        let mut state = lock(&segment.state);
        state.loading.clear();
        state.morsels_left = 0;
        drop(state);
        segment.next.store(segment.morsels, Ordering::Relaxed);
        self.done.fetch_add(segment.morsels, Ordering::SeqCst);
    }

    /// The position of a column that can be loaded now.
    fn loadable(&self, scan: &Arc<dyn ScanInput>, index: usize, state: &SegmentState, due: bool) -> Option<usize> {
        let first = match &self.late {
            Some(late) if self.segments[index].late && !state.passed => Some(&late.first),
            _ => None,
        };
        let free = |at: &usize| {
            let now = first.is_none_or(|first| first.contains(at));
            now && matches!(state.loading.get(*at), Some(Loading::No))
        };
        let mut free = (0..self.used.len()).filter(free);
        let ready = |at: usize| scan.ready(index, self.used[at]);
        if due {
            // Until one is ready all are asked, so that all are fetched.
            return free.find(|at| ready(*at));
        }
        let first = free.next()?;
        (ready(first) && free.all(ready)).then_some(first)
    }

    fn assemble(&self, scan: &Arc<dyn ScanInput>, rows: usize, loaded: &[Loading]) -> Columns {
        let mut columns: Vec<_> = scan
            .columns()
            .iter()
            .map(|profile| placeholder(&profile.data_type, rows))
            .collect();
        for (column, index) in loaded.iter().zip(&self.used) {
            if let Loading::Loaded(column) = column {
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
