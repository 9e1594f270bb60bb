//! What a store has served: requests by kind, bytes, faults, how many at once; per bucket and in total, and the last requests
//! one by one.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the operations of the S3 interface")]
pub enum Kind {
    Get,
    Head,
    List,
    Put,
    Delete,
    Copy,
    Create,
    Part,
    Complete,
    Abort,
    Other,
}

const KINDS: [Kind; 11] = [
    Kind::Get,
    Kind::Head,
    Kind::List,
    Kind::Put,
    Kind::Delete,
    Kind::Copy,
    Kind::Create,
    Kind::Part,
    Kind::Complete,
    Kind::Abort,
    Kind::Other,
];

/// Numbers of a bucket, or of all, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Requests that came in, by kind; kinds without any are left out.
    pub requests: BTreeMap<Kind, u64>,
    /// Answers of 400 and above, faults among them.
    pub refused: u64,
    /// Bytes of bodies sent and received.
    pub sent_bytes: u64,
    /// See `sent_bytes`.
    pub received_bytes: u64,
    /// Faults given, by name.
    pub faults: BTreeMap<String, u64>,
    /// Requests under way now, and at most since the last reset.
    pub in_flight: u64,
    /// See `in_flight`.
    pub in_flight_max: u64,
}

impl Tally {
    /// Requests of a kind.
    pub fn of(&self, kind: Kind) -> u64 {
        self.requests.get(&kind).copied().unwrap_or(0)
    }

    /// All requests.
    pub fn requests(&self) -> u64 {
        self.requests.values().sum()
    }

    /// All faults.
    pub fn faults(&self) -> u64 {
        self.faults.values().sum()
    }
}

/// The numbers of a store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// All buckets together.
    pub total: Tally,
    /// By bucket.
    pub buckets: BTreeMap<String, Tally>,
    /// Connections accepted since the last reset, and open now.
    pub connections: u64,
    /// See `connections`.
    pub connections_open: u64,
    /// Processor time of the store's own threads since the last reset.
    pub cpu_seconds: f64,
    /// Time since the last reset.
    pub seconds: f64,
}

/// One request, as it went. Times are since the last reset of the counters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// Its number since the store's start.
    pub number: u64,
    /// What it was.
    pub kind: Kind,
    /// Bucket, and key (of a list: its prefix).
    pub bucket: String,
    /// See `bucket`.
    pub key: String,
    /// Of a GET: the bytes of the answer.
    pub range: Option<Range<u64>>,
    /// Which connection it came by.
    pub connection: u64,
    /// Answer; 0 when there was none.
    pub status: u16,
    /// Fault given.
    pub fault: Option<String>,
    /// Came in; its answer began; its last byte was handed over, or the client went away.
    pub start_us: u64,
    /// See `start_us`.
    pub first_byte_us: u64,
    /// See `start_us`.
    pub end_us: u64,
    /// Bytes of the body that were handed over.
    pub sent_bytes: u64,
}

#[derive(Debug, Default)]
struct Meter {
    requests: [AtomicU64; KINDS.len()],
    refused: AtomicU64,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    faults: Mutex<BTreeMap<&'static str, u64>>,
    in_flight: AtomicU64,
    in_flight_max: AtomicU64,
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Meter {
    fn begin(&self, kind: Kind) {
        add(&self.requests[kind as usize], 1);
        let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.in_flight_max.fetch_max(now, Ordering::Relaxed);
    }

    fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    fn read(&self) -> Tally {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tally {
            requests: KINDS
                .iter()
                .map(|kind| (*kind, value(&self.requests[*kind as usize])))
                .filter(|(_, count)| *count > 0)
                .collect(),
            refused: value(&self.refused),
            sent_bytes: value(&self.sent_bytes),
            received_bytes: value(&self.received_bytes),
            faults: self
                .faults
                .lock()
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
            in_flight: value(&self.in_flight),
            in_flight_max: value(&self.in_flight_max),
        }
    }

    /// What is under way stays under way.
    fn reset(&self) {
        for counter in &self.requests {
            counter.store(0, Ordering::Relaxed);
        }
        for counter in [&self.refused, &self.sent_bytes, &self.received_bytes] {
            counter.store(0, Ordering::Relaxed);
        }
        self.faults.lock().clear();
        self.in_flight_max
            .store(self.in_flight.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// All that a store counts.
#[derive(Debug)]
pub(crate) struct Ledger {
    total: Arc<Meter>,
    buckets: Mutex<BTreeMap<String, Arc<Meter>>>,
    connections: AtomicU64,
    connections_open: AtomicU64,
    since: Mutex<(Instant, f64)>,
    log: Mutex<VecDeque<RequestRecord>>,
    log_requests: usize,
}

impl Ledger {
    pub(crate) fn new(log_requests: usize) -> Self {
        Self {
            total: Arc::default(),
            buckets: Mutex::default(),
            connections: AtomicU64::new(0),
            connections_open: AtomicU64::new(0),
            since: Mutex::new((Instant::now(), cpu_seconds())),
            log: Mutex::default(),
            log_requests,
        }
    }

    pub(crate) fn connected(&self) -> u64 {
        add(&self.connections_open, 1);
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn disconnected(&self) {
        self.connections_open.fetch_sub(1, Ordering::Relaxed);
    }

    fn elapsed_us(&self) -> u64 {
        u64::try_from(self.since.lock().0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub(crate) fn begin(
        self: &Arc<Self>,
        number: u64,
        kind: Kind,
        bucket: &str,
        key: &str,
        connection: u64,
    ) -> Running {
        let meter = Arc::clone(self.buckets.lock().entry(bucket.to_owned()).or_default());
        meter.begin(kind);
        self.total.begin(kind);
        Running {
            record: RequestRecord {
                number,
                kind,
                bucket: bucket.to_owned(),
                key: key.to_owned(),
                range: None,
                connection,
                status: 0,
                fault: None,
                start_us: self.elapsed_us(),
                first_byte_us: 0,
                end_us: 0,
                sent_bytes: 0,
            },
            meter,
            ledger: Arc::clone(self),
        }
    }

    pub(crate) fn read(&self) -> Counters {
        let (since, cpu_before) = *self.since.lock();
        Counters {
            total: self.total.read(),
            buckets: self
                .buckets
                .lock()
                .iter()
                .map(|(name, meter)| (name.clone(), meter.read()))
                .collect(),
            connections: self.connections.load(Ordering::Relaxed),
            connections_open: self.connections_open.load(Ordering::Relaxed),
            cpu_seconds: cpu_seconds() - cpu_before,
            seconds: since.elapsed().as_secs_f64(),
        }
    }

    pub(crate) fn reset(&self) {
        self.total.reset();
        for meter in self.buckets.lock().values() {
            meter.reset();
        }
        self.connections.store(0, Ordering::Relaxed);
        *self.since.lock() = (Instant::now(), cpu_seconds());
        self.log.lock().clear();
    }

    pub(crate) fn log(&self) -> Vec<RequestRecord> {
        self.log.lock().iter().cloned().collect()
    }
}

/// A request under way; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) record: RequestRecord,
    meter: Arc<Meter>,
    ledger: Arc<Ledger>,
}

impl Running {
    fn both(&self) -> [&Meter; 2] {
        [&self.meter, &self.ledger.total]
    }

    pub(crate) fn received(&self, bytes: u64) {
        for meter in self.both() {
            add(&meter.received_bytes, bytes);
        }
    }

    pub(crate) fn sent(&mut self, bytes: u64) {
        for meter in self.both() {
            add(&meter.sent_bytes, bytes);
        }
        self.record.sent_bytes += bytes;
    }

    pub(crate) fn fault(&mut self, name: &'static str) {
        for meter in self.both() {
            *meter.faults.lock().entry(name).or_default() += 1;
        }
        self.record.fault = Some(name.to_owned());
    }

    pub(crate) fn answered(&mut self, status: u16) {
        if status >= 400 {
            for meter in self.both() {
                add(&meter.refused, 1);
            }
        }
        self.record.status = status;
        self.record.first_byte_us = self.ledger.elapsed_us();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for meter in self.both() {
            meter.end();
        }
        if self.ledger.log_requests == 0 {
            return;
        }
        self.record.end_us = self.ledger.elapsed_us();
        let mut log = self.ledger.log.lock();
        if log.len() == self.ledger.log_requests {
            log.pop_front();
        }
        log.push_back(self.record.clone());
    }
}

/// Name of the threads that serve; their processor time is the store's.
pub(crate) const THREAD_NAME: &str = "simstore";

/// Processor time of all threads of this process that are named so; 0 where the kernel doesn't say.
fn cpu_seconds() -> f64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return 0.0;
    };
    let nanos = tasks.flatten().filter_map(|task| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        if name.trim_end() != THREAD_NAME {
            return None;
        }
        let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    });
    std::time::Duration::from_nanos(nanos.sum()).as_secs_f64()
}
