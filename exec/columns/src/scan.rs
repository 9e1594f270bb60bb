//! A bound scan: segments of columns that are decoded when they are first wanted.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use trireme_device_api::{
    Codes, ColumnProfile, DeviceColumn, DeviceError, DevicePool, Dictionary, ScanInput, Values, ZoneMap,
};

use crate::cache::{Inner, Key, Need};
use crate::decode::{self, Failure, Shape, Task};
use crate::dictionary::Domain;
use crate::files::{ColumnRequest, FileId};
use crate::footer::{FileColumn, FileMeta};
use crate::keep::{self, Kept};
use crate::open::constant::Constants;
use crate::segments::{Promise, Segment};
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
}

pub(crate) enum ColumnKind {
    /// In files, by file; strings have a domain.
    Stored {
        files: Vec<FileColumn>,
        domain: Option<Arc<Domain>>,
    },
    /// One value per file.
    Constant(Constants),
}

/// All of a scan but what is known only when its strings were read.
pub(crate) struct Core {
    pub(crate) cache: Arc<Inner>,
    pub(crate) pool: Arc<dyn DevicePool>,
    pub(crate) table: Arc<str>,
    pub(crate) files: Vec<(Arc<FileMeta>, Source)>,
    pub(crate) segments: Vec<Segment>,
    pub(crate) columns: Vec<Column>,
}

impl Core {
    pub(crate) fn file_id(&self, segment: &Segment) -> &Arc<FileId> {
        &self.files[segment.file].0.id
    }

    pub(crate) fn key(&self, segment: usize, column: usize) -> Key {
        let (segment, column) = (&self.segments[segment], &self.columns[column]);
        let domain = match &column.kind {
            ColumnKind::Stored {
                domain: Some(domain), ..
            } if !column.is_raw.load(Ordering::Acquire) => Some(domain.id),
            _ => None,
        };
        Key {
            file: Arc::clone(self.file_id(segment)),
            first_row: segment.first_row,
            column: Arc::clone(&column.name),
            data_type: column.request.data_type.clone(),
            domain,
        }
    }

    /// The column of the segment; codes have no dictionary yet.
    pub(crate) fn fetch(&self, segment: usize, column: usize) -> Result<Arc<DeviceColumn>, Failure> {
        let key = self.key(segment, column);
        let (at, of) = (&self.segments[segment], &self.columns[column]);
        let (files, domain) = match &of.kind {
            ColumnKind::Constant(constants) => {
                return Ok(Arc::new(constants.column(at.file, at.rows, &of.request.data_type)));
            }
            ColumnKind::Stored { files, domain } => (files, domain.as_ref()),
        };
        let (meta, source) = &self.files[at.file];
        let Some(leaf) = files[at.file].leaf() else {
            return Ok(Arc::new(decode::nulls(at.rows, &of.request.data_type)));
        };
        let domain = domain.filter(|_| key.domain.is_some());
        let take = |bytes: usize| self.cache.take(bytes, &self.pool);
        let task = Task {
            source,
            metadata: &meta.metadata,
            segment: at,
            leaf,
            physical: match &files[at.file] {
                FileColumn::Pages { physical, .. } => Some(*physical),
                _ => None,
            },
            data_type: &of.request.data_type,
            name: &of.name,
            range: of.promises[segment].zone.range,
            shape: match domain {
                Some(domain) => Shape::Codes(domain, &take),
                None => Shape::Values,
            },
            pool: &self.pool,
            arrow_reads: &self.cache.counters.arrow_reads,
        };
        let need = need(&task);
        self.cache
            .get(&key, &self.table, domain, need, &self.pool, || decode::decode(&task))
    }
}

fn need(task: &Task<'_>) -> Need {
    let rows = task.segment.rows;
    let groups = task.segment.parts.iter();
    let uncompressed: i64 = groups
        .map(|part| {
            task.metadata
                .row_group(part.row_group)
                .column(task.leaf)
                .uncompressed_size()
        })
        .sum();
    let uncompressed = usize::try_from(uncompressed).unwrap_or(0);
    Need {
        bytes: decode::estimate_bytes(task, uncompressed) + rows.div_ceil(8),
        work: (uncompressed + rows) as f64,
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
        match &self.core.columns[column].kind {
            ColumnKind::Stored { .. } => Some(self.core.cache.identities.hash_one(self.core.key(segment, column))),
            ColumnKind::Constant(_) => None,
        }
    }

    fn load(&self, segment: usize, column: usize) -> Result<Arc<DeviceColumn>, DeviceError> {
        let slot = segment * self.profiles.len() + column;
        if let Some(held) = self.slots[slot].lock().upgrade() {
            return Ok(held);
        }
        let fetched = self.core.fetch(segment, column)?;
        let loaded = match &self.profiles[column].dictionary {
            Some(dictionary) => with_dictionary(fetched, dictionary),
            None => fetched,
        };
        Ok(self.remember(slot, column, loaded))
    }
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
