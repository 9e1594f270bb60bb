//! The cache: columns of segments by (file version, column, segment), within a budget, by cost-aware frequency.
//!
//! ```text
//!  key ─▶ entry? ── hit
//!         flight? ─ wait for the thread that decodes it
//!         lease of the budget (evicting what is worth less), else of the query's pool ─▶ decode ─▶ keep if leased here
//! ```
//!
//! What is kept and what goes, `state.rs` says.
//!
//! Invariants: the budget is never exceeded, since leases are taken before memory; a column is decoded once, however many
//! threads want it at a time; a lease ends with the last reader's buffer, so what is evicted while in use still counts.

use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use moka::sync::Cache as FooterCache;
use object_store::path::Path;
use parking_lot::Mutex;
use trireme_device_api::{DeviceColumn, DeviceError, DevicePool, Type};

use crate::budget::{Budget, Lease};
use crate::decode::Failure;
use crate::dictionary::Domain;
use crate::files::FileId;
use crate::footer::{FileMeta, Tails};
use crate::keep::{self, Kept};
use crate::metrics::{ColumnRow, Counters, Metrics, add, read};
use crate::rates::{Kind, Rates};
use crate::segments::Part;
use crate::state::{Entry, Flight, State, value_of};

/// Limits of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of columns and dictionaries.
    pub budget_bytes: usize,
    /// Bytes of footers, and of what else files say of their columns.
    pub footer_bytes: usize,
    /// Rows of a segment at most, and at least one. Columns of segments of another size are not found again.
    pub segment_rows: usize,
    /// Off: every scan decodes for itself.
    pub enabled: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            budget_bytes: 1 << 30,
            footer_bytes: 64 << 20,
            segment_rows: 1 << 20,
            enabled: true,
        }
    }
}

/// The column cache of a process. Clones are the same cache.
#[derive(Clone)]
pub struct ColumnCache {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    // Settings.
    enabled: AtomicBool,
    pub(crate) segment_rows: usize,
    /// Makes a column's key a number; differs from process to process.
    pub(crate) identities: RandomState,
    // State.
    state: Mutex<State>,
    pub(crate) footers: FooterCache<Arc<FileId>, Arc<FileMeta>>,
    /// Indexes of pages and Bloom filters, by where they begin.
    pub(crate) indexes: FooterCache<(Arc<FileId>, u64), Bytes>,
    pub(crate) tails: Arc<Tails>,
    pub(crate) counters: Counters,
    pub(crate) rates: Rates,
    // Resources.
    budget: Arc<Budget>,
}

/// Names a column of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) file: Arc<FileId>,
    pub(crate) first_row: u64,
    /// The segment's rows that it has, unless all.
    pub(crate) selection: Option<Arc<[Part]>>,
    pub(crate) column: Arc<str>,
    pub(crate) data_type: Type,
    /// The domain of codes; none of strings and all else.
    pub(crate) domain: Option<u64>,
}

/// What a load expects to need.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    pub(crate) bytes: usize,
    /// Work of decoding, in the same unit for all columns: bytes and rows.
    pub(crate) work: f64,
    pub(crate) kind: Kind,
}

impl ColumnCache {
    /// An empty cache.
    pub fn new(limits: Limits) -> Self {
        let footers = FooterCache::builder()
            .weigher(|_: &Arc<FileId>, meta: &Arc<FileMeta>| u32::try_from(meta.size_bytes()).unwrap_or(u32::MAX))
            .max_capacity(limits.footer_bytes as u64 / 4 * 3)
            .build();
        let indexes = FooterCache::builder()
            .weigher(|_: &(Arc<FileId>, u64), bytes: &Bytes| u32::try_from(bytes.len() + 128).unwrap_or(u32::MAX))
            .max_capacity(limits.footer_bytes as u64 / 4)
            .build();
        Self {
            inner: Arc::new(Inner {
                enabled: AtomicBool::new(limits.enabled),
                segment_rows: limits.segment_rows.max(1),
                identities: RandomState::new(),
                state: Mutex::new(State::default()),
                footers,
                indexes,
                tails: Arc::default(),
                counters: Counters::default(),
                rates: Rates::default(),
                budget: Budget::new(limits.budget_bytes),
            }),
        }
    }

    /// Switches the cache on or off; off empties it.
    pub fn set_enabled(&self, enabled: bool) {
        self.inner.enabled.store(enabled, Ordering::Release);
        if !enabled {
            self.clear();
        }
    }

    /// Whether columns are kept.
    pub fn is_enabled(&self) -> bool {
        self.inner.is_enabled()
    }

    /// Changes the budget; what no longer fits and is not in use goes.
    pub fn set_budget_bytes(&self, bytes: usize) {
        self.inner.budget.set_limit_bytes(bytes);
        self.shrink(self.inner.budget.used_bytes().saturating_sub(bytes));
    }

    /// Lets go of all columns, dictionaries and footers. Running scans keep what they hold.
    pub fn clear(&self) {
        // Memory is given back outside of the lock.
        let gone = self.inner.state.lock().clear();
        let evicted = gone.entries.len();
        drop(gone);
        self.inner.footers.invalidate_all();
        self.inner.indexes.invalidate_all();
        add(&self.inner.counters.evictions, evicted);
    }

    /// Lets go of all columns and dictionaries, not of footers.
    #[cfg(test)]
    pub(crate) fn clear_columns(&self) {
        drop(self.inner.state.lock().clear());
    }

    /// Lets go of at least `bytes`, the least worth first, if so much is not in use. Returns the bytes given back.
    pub fn shrink(&self, bytes: usize) -> usize {
        let budget = &self.inner.budget;
        let before = budget.used_bytes();
        let goal = before.saturating_sub(bytes);
        let mut state = self.inner.state.lock();
        while budget.used_bytes() > goal && state.evict_one(f64::INFINITY, &self.inner.counters) {}
        drop(state);
        before.saturating_sub(budget.used_bytes())
    }

    /// Distinct values seen of a table's column of strings. A column whose values are too many for codes has as many as it
    /// likes.
    pub fn distinct(&self, table: &str, column: &str) -> Option<usize> {
        let domain = {
            let state = self.inner.state.lock();
            let key = |is_text| (table.to_owned(), Arc::from(column), is_text);
            let held = |is_text| state.domains.get(&key(is_text)).map(Arc::clone);
            held(true).or_else(|| held(false))?
        };
        if domain.is_raw {
            return Some(usize::MAX);
        }
        let count = domain.try_lock().map(|values| values.len());
        count.filter(|count| *count > 0)
    }

    /// Counters.
    pub fn metrics(&self) -> Metrics {
        let counters = &self.inner.counters;
        Metrics {
            hits: read(&counters.hits),
            misses: read(&counters.misses),
            uncached: read(&counters.uncached),
            evictions: read(&counters.evictions),
            decoded_bytes: read(&counters.decoded_bytes),
            decode_ns: read(&counters.decode_ns),
            arrow_reads: read(&counters.arrow_reads),
            used_bytes: self.inner.budget.used_bytes() as u64,
            budget_bytes: self.inner.budget.limit_bytes() as u64,
            entries: self.inner.state.lock().entries.len() as u64,
        }
    }

    /// What is held, for `system.columns`.
    pub fn snapshot(&self) -> Vec<ColumnRow> {
        let state = self.inner.state.lock();
        let row = |(key, entry): (&Key, &Entry)| ColumnRow {
            table: entry.table.to_string(),
            column: key.column.to_string(),
            store_url: key.file.store_url.to_string(),
            file: key.file.location.to_string(),
            version: key.file.version.clone(),
            first_row: key.first_row,
            rows: entry.column.rows as u64,
            data_type: key.data_type.to_arrow().to_string(),
            carrier: carrier_name(&entry.column),
            bytes: entry.bytes as u64,
            null_count: entry.column.zone.null_count as u64,
            hits: u64::from(entry.uses) - 1,
            decode_ns: entry.decode_ns,
            pinned: Arc::strong_count(&entry.column) > 1,
        };
        state.entries.iter().map(row).collect()
    }
}

impl Inner {
    /// What is made of the columns that are held of a file.
    pub(crate) fn each_of_file<T>(
        &self,
        store_url: &str,
        location: &Path,
        make: impl Fn(&Key, &Entry) -> Option<T>,
    ) -> Vec<T> {
        let state = self.state.lock();
        let held = state.of_file(store_url, location);
        held.filter_map(|(key, entry)| make(key, entry)).collect()
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Acquire)
    }

    /// A held column, without counting a use.
    pub(crate) fn peek(&self, key: &Key) -> Option<Arc<DeviceColumn>> {
        let state = self.state.lock();
        state.entries.get(key).map(|entry| Arc::clone(&entry.column))
    }

    /// Bytes of the budget for something that stays while it is used, else of the query's pool.
    pub(crate) fn take(&self, bytes: usize, pool: &Arc<dyn DevicePool>) -> Result<Lease, DeviceError> {
        match self.take_cached(bytes, f64::INFINITY) {
            Some(lease) => Ok(lease),
            None => Lease::of_query(pool, bytes),
        }
    }

    fn take_cached(&self, bytes: usize, value: f64) -> Option<Lease> {
        if !self.is_enabled() || bytes > self.budget.limit_bytes() {
            return None;
        }
        if let Some(lease) = Lease::of_cache(&self.budget, bytes) {
            return Some(lease);
        }
        let mut state = self.state.lock();
        while state.evict_one(value, &self.counters) {
            if let Some(lease) = Lease::of_cache(&self.budget, bytes) {
                return Some(lease);
            }
        }
        None
    }

    /// The dictionary of a table's column: the same for all scans, until half of the rows it has seen must be of files that are
    /// gone. (A dictionary's lock is never taken under the cache's: growing takes them the other way round.)
    pub(crate) fn domain(&self, table: &str, column: &Arc<str>, is_text: bool, rows: usize) -> Arc<Domain> {
        let domain = Domain::new();
        domain.lock().is_fresh(rows);
        if !self.is_enabled() {
            return domain;
        }
        let key = (table.to_owned(), Arc::clone(column), is_text);
        let held = self.state.lock().domains.get(&key).map(Arc::clone);
        if let Some(held) = held
            && held.lock().is_fresh(rows)
        {
            return held;
        }
        self.state.lock().domains.insert(key, Arc::clone(&domain));
        domain
    }

    /// Later scans don't find this dictionary, nor codes of it.
    pub(crate) fn forget(&self, domain: &Arc<Domain>) {
        let mut state = self.state.lock();
        state.domains.retain(|_, held| !Arc::ptr_eq(held, domain));
        state.remove_codes(domain.id);
    }

    /// Later scans find that the column is strings; codes of this dictionary are of no use to them.
    pub(crate) fn make_raw(&self, domain: &Arc<Domain>) {
        let mut state = self.state.lock();
        for held in state.domains.values_mut().filter(|held| Arc::ptr_eq(held, domain)) {
            *held = Domain::raw();
        }
        state.remove_codes(domain.id);
    }

    /// Lets go of columns of other versions of these files.
    pub(crate) fn saw_versions<'a>(&self, files: impl Iterator<Item = &'a Arc<FileId>>) {
        let mut state = self.state.lock();
        for file in files {
            add(&self.counters.evictions, state.saw_version(file));
        }
    }

    /// The column: held, or decoded by another thread right now, or by this one.
    pub(crate) fn get(
        &self,
        key: &Key,
        table: &Arc<str>,
        domain: Option<&Arc<Domain>>,
        need: Need,
        pool: &Arc<dyn DevicePool>,
        decode: impl FnOnce() -> Result<DeviceColumn, Failure>,
    ) -> Result<Arc<DeviceColumn>, Failure> {
        let flight = loop {
            let others = {
                let mut state = self.state.lock();
                if let Some(column) = state.hit(key) {
                    add(&self.counters.hits, 1);
                    return Ok(column);
                }
                match state.flights.get(key) {
                    Some(flight) => Arc::clone(flight),
                    None => {
                        let flight = Arc::new(Flight::default());
                        state.flights.insert(key.clone(), Arc::clone(&flight));
                        break flight;
                    }
                }
            };
            match others.wait() {
                // Another query's memory ended, not this one's.
                Err(Failure::Device(DeviceError::OutOfMemory(_))) => std::thread::yield_now(),
                answer => {
                    add(&self.counters.hits, 1);
                    return answer;
                }
            }
        };
        let mut landing = Landing {
            inner: self,
            key,
            flight,
            answer: None,
        };
        let answer = self.decode(key, table, domain, need, pool, decode);
        landing.answer = Some(answer.clone());
        answer
    }

    fn decode(
        &self,
        key: &Key,
        table: &Arc<str>,
        domain: Option<&Arc<Domain>>,
        need: Need,
        pool: &Arc<dyn DevicePool>,
        decode: impl FnOnce() -> Result<DeviceColumn, Failure>,
    ) -> Result<Arc<DeviceColumn>, Failure> {
        let uses = self.state.lock().uses_of(key);
        let mut lease = match self.take_cached(need.bytes, value_of(uses, need.work, need.bytes)) {
            Some(lease) => lease,
            None => Lease::of_query(pool, need.bytes)?,
        };
        let start = Instant::now();
        let column = decode()?;
        let took = start.elapsed();
        self.rates.learn(need.kind, need.work, took);
        let decode_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bytes = column.size_bytes();
        if bytes > lease.bytes() {
            let whole = self.take_cached(bytes, value_of(uses, need.work, bytes));
            lease = match whole {
                Some(lease) => lease,
                None => Lease::of_query(pool, bytes)?,
            };
        }
        lease.shrink_to(bytes);
        add(&self.counters.misses, 1);
        add(&self.counters.decoded_bytes, bytes);
        add(&self.counters.decode_ns, decode_ns as usize);
        let cached = lease.is_cached() && self.is_enabled();
        let kept: Kept = Arc::new(lease);
        let column = Arc::new(keep::column(column, &kept));
        if !cached || domain.is_some_and(|domain| !domain.lock().is_cached()) {
            add(&self.counters.uncached, 1);
            return Ok(column);
        }
        let entry = Entry {
            column: Arc::clone(&column),
            table: Arc::clone(table),
            bytes,
            decode_ns,
            work: need.work,
            uses,
            place: (0, 0),
            _domain: domain.map(Arc::clone),
            _lease: kept,
        };
        self.state.lock().insert(key.clone(), entry);
        Ok(column)
    }
}

/// Lands a flight whatever happens, so that nobody waits for ever.
struct Landing<'a> {
    inner: &'a Inner,
    key: &'a Key,
    flight: Arc<Flight>,
    answer: Option<Result<Arc<DeviceColumn>, Failure>>,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        // First: who was told of another's failure looks for a flight again.
        self.inner.state.lock().flights.remove(self.key);
        let lost = || DeviceError::Internal("the thread that decoded a column is gone".to_owned());
        self.flight
            .land(self.answer.take().unwrap_or_else(|| Err(lost().into())));
    }
}

fn carrier_name(column: &DeviceColumn) -> &'static str {
    use trireme_device_api::{Carrier, Codes, Values};
    match &column.values {
        Values::Integers { carrier, .. } => match carrier {
            Carrier::I8(_) => "int8",
            Carrier::I16(_) => "int16",
            Carrier::I32(_) => "int32",
            Carrier::I64(_) => "int64",
        },
        Values::Wide(_) => "int128",
        Values::Float32(_) => "float32",
        Values::Float64(_) => "float64",
        Values::Booleans(_) => "bits",
        Values::Codes { codes, .. } => match codes {
            Codes::U8(_) => "code8",
            Codes::U16(_) => "code16",
            Codes::U32(_) => "code32",
        },
        Values::Strings(_) => "strings",
        Values::Intervals(_) => "intervals",
        Values::Nulls => "nulls",
    }
}
