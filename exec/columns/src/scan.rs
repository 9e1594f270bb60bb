//! A bound scan: segments of columns that are decoded when they are first wanted.

use std::cell::{OnceCell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use trireme_device_api::{
    Codes, ColumnProfile, DeviceColumn, DeviceError, DevicePool, Dictionary, Loaded, ScanInput, Values, ZoneMap,
};
use trireme_lake::{Account, Planned, ReadClass};

use crate::cache::{Inner, Key, Need};
use crate::decode::{self, Failure, Shape, Task};
use crate::dictionary::{Domain, Place};
use crate::fetches::{Fetches, Plan, Readiness};
use crate::files::{ColumnRequest, FileId};
use crate::footer::{FileColumn, FileMeta};
use crate::keep::{self, Kept};
use crate::open::constant::Constants;
use crate::open::kept::KeptRows;
use crate::pages::Pages;
use crate::rates::Kind;
use crate::segments::{self, Part, Promise, Segment};
use crate::source::Source;

/// Segments of a column that a scan holds on to, so that the workers of neighbouring morsels share them.
const RECENT: usize = 4;

/// What a scan knows of one of its columns.
pub(crate) struct Column {
    pub(crate) request: ColumnRequest,
    pub(crate) name: Arc<str>,
    pub(crate) kind: ColumnKind,
    /// Strings stay strings; settled when the scan is open.
    pub(crate) is_raw: AtomicBool,
    /// By segment.
    pub(crate) promises: Vec<Promise>,
    /// Of the segments that were left out: what a device keeps of a column must not depend on a query's constants.
    pub(crate) left_out: Option<Promise>,
}

pub(crate) enum ColumnKind {
    /// In files, by file; strings have a domain.
    Stored {
        files: Vec<FileColumn>,
        domain: Option<Arc<Domain>>,
    },
    /// One value per file.
    Constant(Constants),
    /// Which rows are still there.
    Kept(KeptRows),
}

impl Column {
    /// Position among the leaves of a file; none where the file hasn't it.
    pub(crate) fn leaf(&self, file: usize) -> Option<usize> {
        match &self.kind {
            ColumnKind::Stored { files, .. } => files[file].leaf(),
            ColumnKind::Constant(_) | ColumnKind::Kept(_) => None,
        }
    }

    /// Its domain may have values that came after a dictionary of it.
    fn may_exceed(&self, dictionary: &Dictionary) -> bool {
        let ColumnKind::Stored {
            domain: Some(domain), ..
        } = &self.kind
        else {
            return false;
        };
        domain.try_lock().is_none_or(|values| values.len() > dictionary.len())
    }

    /// Names it in the cache.
    pub(crate) fn key(&self, file: &Arc<FileId>, segment: &Segment) -> Key {
        let domain = match &self.kind {
            ColumnKind::Stored { domain, .. } if !self.is_raw.load(Ordering::Acquire) => domain.as_ref(),
            _ => None,
        };
        self.key_in(file, segment, domain)
    }

    /// Names what is codes of a domain, or values, in the cache.
    fn key_in(&self, file: &Arc<FileId>, segment: &Segment, domain: Option<&Arc<Domain>>) -> Key {
        Key {
            file: Arc::clone(file),
            first_row: segment.first_row,
            selection: segment.selection(),
            column: Arc::clone(&self.name),
            data_type: self.request.data_type.clone(),
            domain: domain.map(|domain| domain.id),
        }
    }
}

/// All of a scan but what is known only when its strings were read.
pub(crate) struct Core {
    pub(crate) cache: Arc<Inner>,
    pub(crate) pool: Arc<dyn DevicePool>,
    pub(crate) table: Arc<str>,
    pub(crate) files: Vec<(Arc<FileMeta>, Source)>,
    pub(crate) segments: Vec<Segment>,
    pub(crate) columns: Vec<Column>,
    /// Of chunks that are not read whole, by file, row group and leaf.
    pub(crate) pages: HashMap<(usize, usize, usize), Arc<Pages>>,
    pub(crate) fetches: Fetches,
    pub(crate) account: Arc<Account>,
    /// Fragments that go over it.
    pub(crate) readers: usize,
    /// The reader may stop before the end of far files.
    pub(crate) stops: bool,
    /// Columns that no filter tests were put off.
    pub(crate) late: AtomicBool,
}

impl Core {
    pub(crate) fn file_id(&self, segment: &Segment) -> &Arc<FileId> {
        &self.files[segment.file].0.id
    }

    pub(crate) fn key(&self, segment: usize, column: usize) -> Key {
        let segment = &self.segments[segment];
        self.columns[column].key(self.file_id(segment), segment)
    }

    pub(crate) fn place(&self, segment: &Segment) -> Place {
        (
            Arc::clone(self.file_id(segment)),
            segment.first_row,
            segment.selection(),
        )
    }

    /// As [`segments::is_spelled_out`].
    pub(crate) fn is_spelled_out(&self, segment: &Segment, column: usize) -> bool {
        let leaf = self.columns[column].leaf(segment.file);
        leaf.is_some_and(|leaf| segments::is_spelled_out(&self.files[segment.file].0.metadata, segment, leaf))
    }

    /// Bytes of dictionary pages that have all values of a column of strings of a local file; none where only all of its pages have.
    pub(crate) fn listed_bytes(&self, segment: &Segment, column: usize) -> Option<usize> {
        let (meta, source) = &self.files[segment.file];
        let ColumnKind::Stored { files, .. } = &self.columns[column].kind else {
            return None;
        };
        let leaf = match files[segment.file] {
            FileColumn::Pages { leaf, physical } if physical == decode::Physical::Bytes && source.is_local() => leaf,
            _ => return None,
        };
        if !segments::is_listed(&meta.metadata, segment, leaf) {
            return None;
        }
        let of = |part: &Part| segments::dictionary_range(meta.metadata.row_group(part.row_group).column(leaf));
        let ranges = segment.parts.iter().filter_map(of);
        let bytes: u64 = ranges.map(|range| range.end - range.start).sum();
        usize::try_from(bytes).ok()
    }

    /// The bytes of a column of a segment; none where its file hasn't it.
    ///
    /// # Errors
    /// When they can't be where the footer says.
    pub(crate) fn ranges(&self, segment: usize, column: usize) -> Result<Vec<Range<u64>>, DeviceError> {
        let (at, of) = (&self.segments[segment], &self.columns[column]);
        let (meta, source) = &self.files[at.file];
        let Some(leaf) = of.leaf(at.file) else {
            return Ok(Vec::new());
        };
        let wrong = || source.corrupt(format!("column {}: its place is wrong", of.name));
        let pages = |row_group: usize| self.pages.get(&(at.file, row_group, leaf));
        segments::ranges(&meta.metadata, at, leaf, &pages).ok_or_else(wrong)
    }

    /// The column of the segment as ranges to be fetched ahead; none where that isn't done, or the cache holds it.
    pub(crate) fn planned(&self, segment: usize, column: usize, class: ReadClass) -> Result<Vec<Planned>, DeviceError> {
        let at = &self.segments[segment];
        let (_, source) = &self.files[at.file];
        if source.is_local() || self.columns[column].leaf(at.file).is_none() {
            return Ok(Vec::new());
        }
        if self.cache.peek(&self.key(segment, column)).is_some() {
            return Ok(Vec::new());
        }
        let ranges = self.ranges(segment, column)?.into_iter();
        let planned: Option<Vec<Planned>> = ranges.map(|range| source.planned(range, class)).collect();
        Ok(planned.unwrap_or_default())
    }

    /// Its bytes are on their way, and urgent now.
    pub(crate) fn is_under_way(&self, segment: usize, column: usize) -> bool {
        match self.fetches.readiness(segment, column) {
            Readiness::Ready => false,
            Readiness::UnderWay => true,
            Readiness::Due => self.begin(segment, column),
        }
    }

    /// Begins to fetch what was put off; false when it is not fetched ahead.
    fn begin(&self, segment: usize, column: usize) -> bool {
        // What is wrong with its ranges, loading it will tell.
        let planned = self.planned(segment, column, ReadClass::Near).unwrap_or_default();
        let Some(starter) = self.fetches.starter().filter(|_| !planned.is_empty()) else {
            return false;
        };
        let mut plan = Plan::default();
        plan.add(&self.fetches, segment, column, planned);
        plan.start(starter);
        true
    }

    /// The column of the segment; codes have no dictionary yet.
    pub(crate) fn fetch(&self, segment: usize, column: usize) -> Result<Arc<DeviceColumn>, Failure> {
        match self.made(segment, column) {
            Some(made) => Ok(Arc::new(made)),
            None => self.with_task(segment, column, |task, domain| {
                self.decoded(segment, column, task, domain)
            })?,
        }
    }

    /// A column that no file has.
    pub(crate) fn made(&self, segment: usize, column: usize) -> Option<DeviceColumn> {
        let (at, of) = (&self.segments[segment], &self.columns[column]);
        match &of.kind {
            ColumnKind::Constant(constants) => Some(constants.column(at.file, at.rows, &of.request.data_type)),
            ColumnKind::Kept(kept) => Some(kept.column(at, &self.files[at.file].0.metadata)),
            ColumnKind::Stored { files, .. } => match files[at.file].leaf() {
                Some(_) => None,
                None => Some(decode::nulls(at.rows, &of.request.data_type)),
            },
        }
    }

    /// The column, by the cache.
    pub(crate) fn decoded(
        &self,
        segment: usize,
        column: usize,
        task: &Task<'_>,
        domain: Option<&Arc<Domain>>,
    ) -> Result<Arc<DeviceColumn>, Failure> {
        let at = &self.segments[segment];
        // Of what is decoded: another worker may find the dictionary too large meanwhile.
        let key = self.columns[column].key_in(self.file_id(at), at, domain);
        let need = need(task);
        let found = self.cache.get(&key, &self.table, domain, need, &self.pool, || {
            self.book(task);
            decode::decode(task)
        });
        // The cache had it, or another query's thread decoded it.
        drop(self.fetches.claim(segment, column));
        found
    }

    /// What decoding the column of a segment will take, in nanoseconds of one worker, when the cache doesn't have it.
    fn decode_ns(&self, segment: usize, column: usize) -> f64 {
        let (at, of) = (&self.segments[segment], &self.columns[column]);
        let ColumnKind::Stored { files, domain } = &of.kind else {
            return 0.0;
        };
        let physical = match files[at.file] {
            FileColumn::Missing => return 0.0,
            FileColumn::Pages { physical, .. } => Some(physical),
            FileColumn::Arrow { .. } => None,
        };
        let (meta, _) = &self.files[at.file];
        let Some(leaf) = of.leaf(at.file) else { return 0.0 };
        if self.cache.peek(&self.key(segment, column)).is_some() {
            return 0.0;
        }
        let codes = domain.is_some() && !of.is_raw.load(Ordering::Acquire);
        let is_listed = !segments::is_spelled_out(&meta.metadata, at, leaf);
        let work = segments::page_bytes(&meta.metadata, at, leaf) + at.rows;
        let kind = Kind::of(physical, codes, is_listed);
        self.cache.rates.expected_ns(kind, work as f64)
    }

    /// Its bytes are used.
    pub(crate) fn book(&self, task: &Task<'_>) {
        if !task.source.is_local() {
            let bytes = task.ranges.iter().map(|range| range.end - range.start).sum();
            self.account.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// With what decoding a stored column takes; its domain, when it is codes.
    ///
    /// # Errors
    /// When its place in the file is wrong.
    pub(crate) fn with_task<T>(
        &self,
        segment: usize,
        column: usize,
        work: impl FnOnce(&Task<'_>, Option<&Arc<Domain>>) -> T,
    ) -> Result<T, DeviceError> {
        let (at, of) = (&self.segments[segment], &self.columns[column]);
        let (meta, source) = &self.files[at.file];
        let (ColumnKind::Stored { files, domain }, Some(leaf)) = (&of.kind, of.leaf(at.file)) else {
            return Err(DeviceError::Internal(format!("no file has column {}", of.name)));
        };
        let domain = domain.as_ref().filter(|_| !of.is_raw.load(Ordering::Acquire));
        let take = |bytes: usize| self.cache.take(bytes, &self.pool);
        let ranges = self.ranges(segment, column)?;
        let pages = |row_group: usize| self.pages.get(&(at.file, row_group, leaf));
        let fetch = OnceCell::new();
        // Once, though a column may be looked at twice: as pages, and then to be decoded.
        let bytes: RefCell<Vec<Option<Bytes>>> = RefCell::new(vec![None; ranges.len()]);
        let read = |at: usize| {
            if let Some(known) = &bytes.borrow()[at] {
                return Ok(known.clone());
            }
            let found = match fetch.get_or_init(|| self.fetches.claim(segment, column)) {
                Some(fetch) => fetch.take(at).map_err(DeviceError::read),
                None => source.read(ranges[at].clone()),
            }?;
            bytes.borrow_mut()[at] = Some(found.clone());
            Ok(found)
        };
        let task = Task {
            source,
            metadata: &meta.metadata,
            segment: at,
            leaf,
            ranges: &ranges,
            read: &read,
            pages: &pages,
            physical: match &files[at.file] {
                FileColumn::Pages { physical, .. } => Some(*physical),
                _ => None,
            },
            data_type: &of.request.data_type,
            name: &of.name,
            range: of.promises[segment].zone.range,
            null_count: of.promises[segment].zone.null_count,
            shape: match domain {
                Some(domain) => Shape::Codes(domain, &take),
                None => Shape::Values,
            },
            pool: &self.pool,
            arrow_reads: &self.cache.counters.arrow_reads,
        };
        Ok(work(&task, domain))
    }
}

fn need(task: &Task<'_>) -> Need {
    let rows = task.segment.rows;
    let uncompressed = segments::page_bytes(task.metadata, task.segment, task.leaf);
    let is_listed = !segments::is_spelled_out(task.metadata, task.segment, task.leaf);
    Need {
        bytes: decode::estimate_bytes(task, uncompressed) + rows.div_ceil(8),
        work: (uncompressed + rows) as f64,
        kind: Kind::of(task.physical, matches!(task.shape, Shape::Codes(..)), is_listed),
    }
}

/// A bound scan.
pub(crate) struct Scan {
    pub(crate) core: Core,
    pub(crate) profiles: Vec<ColumnProfile>,
    /// By segment, then column.
    slots: Vec<Mutex<Weak<DeviceColumn>>>,
    /// By column.
    recent: Vec<Mutex<VecDeque<Arc<DeviceColumn>>>>,
}

impl Scan {
    pub(crate) fn new(core: Core, profiles: Vec<ColumnProfile>) -> Self {
        let slots = core.segments.len() * core.columns.len();
        Self {
            slots: (0..slots).map(|_| Mutex::new(Weak::new())).collect(),
            recent: profiles.iter().map(|_| Mutex::new(VecDeque::new())).collect(),
            core,
            profiles,
        }
    }

    /// The decoded column of a slot, if anybody holds it.
    pub(crate) fn held(&self, slot: usize) -> Option<Arc<DeviceColumn>> {
        self.slots[slot].lock().upgrade()
    }

    /// What was fetched, with the scan's dictionary.
    ///
    /// # Errors
    /// When the file has values that the dictionary lacks, though it was complete by the footer.
    pub(crate) fn handed_out(
        &self,
        slot: usize,
        column: usize,
        fetched: Arc<DeviceColumn>,
    ) -> Result<Arc<DeviceColumn>, DeviceError> {
        let loaded = match &self.profiles[column].dictionary {
            Some(dictionary) => {
                if self.core.columns[column].may_exceed(dictionary) && exceeds(&fetched, dictionary.len()) {
                    let text = "strings that the scan's dictionary lacks, against the file's footer";
                    return Err(DeviceError::Unsupported(text.to_owned()));
                }
                with_dictionary(fetched, dictionary)
            }
            None => fetched,
        };
        Ok(self.remember(slot, column, loaded))
    }

    fn remember(&self, slot: usize, column: usize, loaded: Arc<DeviceColumn>) -> Arc<DeviceColumn> {
        let mut held = self.slots[slot].lock();
        if let Some(other) = held.upgrade() {
            return other;
        }
        *held = Arc::downgrade(&loaded);
        drop(held);
        let mut recent = self.recent[column].lock();
        recent.push_back(Arc::clone(&loaded));
        let oldest = if recent.len() > RECENT {
            recent.pop_front()
        } else {
            None
        };
        drop(recent);
        drop(oldest);
        loaded
    }
}

impl ScanInput for Scan {
    fn columns(&self) -> &[ColumnProfile] {
        &self.profiles
    }

    fn segments(&self) -> usize {
        self.core.segments.len()
    }

    fn rows(&self, segment: usize) -> usize {
        self.core.segments[segment].rows
    }

    fn zone(&self, segment: usize, column: usize) -> Option<ZoneMap> {
        let slot = segment * self.profiles.len() + column;
        if let Some(loaded) = self.slots[slot].lock().upgrade() {
            return Some(loaded.zone);
        }
        if let Some(held) = self.core.cache.peek(&self.core.key(segment, column)) {
            return Some(held.zone);
        }
        Some(self.core.columns[column].promises[segment].zone)
    }

    fn identity(&self, segment: usize, column: usize) -> Option<u64> {
        let cache = &self.core.cache;
        match &self.core.columns[column].kind {
            // Who keeps nothing for the next query doesn't let devices keep it either.
            ColumnKind::Stored { .. } if cache.is_enabled() => {
                Some(cache.identities.hash_one(self.core.key(segment, column)))
            }
            _ => None,
        }
    }

    fn ready(&self, segment: usize, column: usize) -> bool {
        if self.core.fetches.is_empty() {
            return true;
        }
        let slot = segment * self.profiles.len() + column;
        if self.slots[slot].lock().strong_count() > 0 {
            return true;
        }
        !self.core.is_under_way(segment, column)
    }

    fn late(&self, _segment: usize) -> bool {
        self.core.late.load(Ordering::Relaxed)
    }

    fn decode_ns(&self, segment: usize, column: usize) -> f64 {
        let slot = segment * self.profiles.len() + column;
        if self.slots[slot].lock().strong_count() > 0 {
            return 0.0;
        }
        self.core.decode_ns(segment, column)
    }

    fn dismiss(&self, segment: usize) {
        if self.core.readers <= 1 && !self.core.fetches.is_empty() {
            let columns = 0..self.profiles.len();
            let put_off = columns.filter(|column| self.core.fetches.cancel(segment, *column));
            let ranges = put_off.count() as u64;
            self.core.account.cancelled_ranges.fetch_add(ranges, Ordering::Relaxed);
        }
    }

    fn load_encoded(&self, segment: usize, column: usize, decoded_bytes: usize) -> Result<Loaded, DeviceError> {
        self.encoded(segment, column, decoded_bytes)
    }

    fn load(&self, segment: usize, column: usize) -> Result<Arc<DeviceColumn>, DeviceError> {
        let slot = segment * self.profiles.len() + column;
        if let Some(held) = self.slots[slot].lock().upgrade() {
            return Ok(held);
        }
        let fetched = self.core.fetch(segment, column)?;
        self.handed_out(slot, column, fetched)
    }
}

/// Some code is none of a dictionary of so many values. Rows that are NULL have one too, which devices look up; it is 0 where
/// all are.
fn exceeds(column: &DeviceColumn, values: usize) -> bool {
    let Values::Codes { codes, .. } = &column.values else {
        return false;
    };
    let most = match codes {
        Codes::U8(codes) => codes.iter().max().map(|code| usize::from(*code)),
        Codes::U16(codes) => codes.iter().max().map(|code| usize::from(*code)),
        Codes::U32(codes) => codes.iter().max().map(|code| *code as usize),
    };
    let no_values = most == Some(0) && column.zone.null_count == column.rows;
    most.is_some_and(|most| most >= values) && !no_values
}

/// The codes of a held column with the scan's dictionary; they keep the held column, which is how the cache sees that it is in
/// use.
fn with_dictionary(column: Arc<DeviceColumn>, dictionary: &Arc<Dictionary>) -> Arc<DeviceColumn> {
    let Values::Codes { codes, .. } = &column.values else {
        return column;
    };
    let codes: Codes = codes.clone();
    let kept: Kept = Arc::clone(&column) as Kept;
    Arc::new(DeviceColumn {
        data_type: column.data_type.clone(),
        rows: column.rows,
        values: Values::Codes {
            codes: keep::codes(codes, &kept),
            dictionary: Arc::clone(dictionary),
        },
        validity: column.validity.clone(),
        zone: column.zone,
    })
}
