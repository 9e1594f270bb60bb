//! What a read is: which version of which object, how urgent, and on whose account.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use object_store::ObjectMeta;
use object_store::path::Path;

/// One version of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectRef {
    /// Within its store.
    pub location: Path,
    /// Size.
    pub size_bytes: u64,
    /// Sent as `If-Match`: a replaced object is an error, not a mixture.
    pub e_tag: Option<String>,
    /// What changes when the content does: the entity tag, or time and size.
    pub version: String,
}

impl ObjectRef {
    /// By what a store lists.
    pub fn new(meta: &ObjectMeta) -> Self {
        // Listings of some stores leave out the quotes that answers have.
        let version = (meta.e_tag.as_deref())
            .map(|e_tag| e_tag.trim_matches('"').to_owned())
            .or_else(|| meta.version.clone())
            .unwrap_or_else(|| format!("{}-{}", meta.last_modified.timestamp_micros(), meta.size));
        Self {
            location: meta.location.clone(),
            size_bytes: meta.size,
            e_tag: meta.e_tag.clone(),
            version,
        }
    }
}

/// How urgent a read is; the most urgent first. Reads that come through [`object_store::GetOptions`] carry it (and an
/// `Arc<Account>`) in their extensions; without it they are [`ReadClass::Demand`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReadClass {
    /// Somebody waits.
    #[default]
    Demand,
    /// Needed soon for certain.
    Near,
    /// Needed unless a filter or a limit says otherwise.
    Far,
    /// Writes.
    Upload,
}

/// One read of a range.
#[derive(Debug, Clone)]
pub struct Read {
    /// Of which object.
    pub object: Arc<ObjectRef>,
    /// Bytes.
    pub range: Range<u64>,
    /// How urgent.
    pub class: ReadClass,
    /// Who pays.
    pub account: Option<Arc<Account>>,
}

/// What one scan, or one query, has read. Shared by everything that reads for it.
#[derive(Debug, Default)]
pub struct Account {
    /// Bytes that its plans will need, as far as they are known: large scans pass by the memory tier.
    pub planned_bytes: AtomicU64,
    /// Bytes that were asked for.
    pub needed_bytes: AtomicU64,
    /// Bytes that were decoded, from wherever they came: what of all this was of use.
    pub used_bytes: AtomicU64,
    /// Bytes that came from the store, hedges' losers not among them.
    pub fetched_bytes: AtomicU64,
    /// Of the fetched bytes: gaps between merged ranges.
    pub gap_bytes: AtomicU64,
    /// Of the fetched bytes: prefetched and never taken.
    pub wasted_bytes: AtomicU64,
    /// Bytes from the memory tier.
    pub memory_bytes: AtomicU64,
    /// Bytes from the disk tier.
    pub disk_bytes: AtomicU64,
    /// Requests sent, retries and hedges among them.
    pub requests: AtomicU64,
    /// Second requests sent.
    pub hedges: AtomicU64,
    /// Second requests that were first.
    pub hedges_won: AtomicU64,
    /// Bytes that losers brought before they were cancelled.
    pub hedge_bytes: AtomicU64,
    /// Requests sent again after an error.
    pub retries: AtomicU64,
    /// Times that a reader had to wait, and how long.
    pub waits: AtomicU64,
    /// See `waits`.
    pub wait_ns: AtomicU64,
    /// Ranges that were planned and then not needed (a filter learned more, a limit was reached).
    pub cancelled_ranges: AtomicU64,
    /// Bytes per second that the store brought at most to all its readers, when this one read last.
    pub store_rate: AtomicU64,
    began: OnceLock<Instant>,
    /// Since `began`, until bytes came last.
    fetching_ns: AtomicU64,
}

/// The numbers of an [`Account`] at one moment; fields as there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields of Account")]
pub struct AccountTotals {
    pub needed_bytes: u64,
    pub used_bytes: u64,
    pub fetched_bytes: u64,
    pub gap_bytes: u64,
    pub wasted_bytes: u64,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub requests: u64,
    pub hedges: u64,
    pub hedges_won: u64,
    pub hedge_bytes: u64,
    pub retries: u64,
    pub waits: u64,
    pub wait_ns: u64,
    pub cancelled_ranges: u64,
    pub store_rate: u64,
    pub fetching_ns: u64,
}

impl AccountTotals {
    /// Bytes per second that came while it fetched.
    pub fn goodput(&self) -> u64 {
        let bytes = u128::from(self.fetched_bytes) * 1_000_000_000;
        let rate = bytes / u128::from(self.fetching_ns.max(1));
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    /// Bytes that came from the tiers, per hundred that were asked for; none when nothing was.
    pub fn hit_percent(&self) -> Option<u64> {
        let hits = self.memory_bytes + self.disk_bytes;
        (hits * 100).checked_div(hits + self.fetched_bytes)
    }
}

impl Account {
    /// A request goes out.
    pub(crate) fn asked(&self) {
        self.began.get_or_init(Instant::now);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes came from a store that brings so many per second at most.
    pub(crate) fn fetched(&self, bytes: u64, store_rate: u64) {
        self.fetched_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.store_rate.store(store_rate, Ordering::Relaxed);
        if let Some(began) = self.began.get() {
            let since = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.fetching_ns.fetch_max(since, Ordering::Relaxed);
        }
    }

    /// A reader had to wait so long.
    pub(crate) fn count_wait(&self, waited_ns: u64) {
        self.waits.fetch_add(1, Ordering::Relaxed);
        self.wait_ns.fetch_add(waited_ns, Ordering::Relaxed);
    }

    /// The numbers now.
    pub fn totals(&self) -> AccountTotals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        AccountTotals {
            needed_bytes: read(&self.needed_bytes),
            used_bytes: read(&self.used_bytes),
            fetched_bytes: read(&self.fetched_bytes),
            gap_bytes: read(&self.gap_bytes),
            wasted_bytes: read(&self.wasted_bytes),
            memory_bytes: read(&self.memory_bytes),
            disk_bytes: read(&self.disk_bytes),
            requests: read(&self.requests),
            hedges: read(&self.hedges),
            hedges_won: read(&self.hedges_won),
            hedge_bytes: read(&self.hedge_bytes),
            retries: read(&self.retries),
            waits: read(&self.waits),
            wait_ns: read(&self.wait_ns),
            cancelled_ranges: read(&self.cancelled_ranges),
            store_rate: read(&self.store_rate),
            fetching_ns: read(&self.fetching_ns),
        }
    }
}

/// The counters that one read moves: its store's, and those of whoever reads.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    store: Arc<Account>,
    reader: Option<Arc<Account>>,
}

impl Meter {
    pub(crate) fn new(store: Arc<Account>, reader: Option<Arc<Account>>) -> Self {
        Self { store, reader }
    }

    pub(crate) fn reader(&self) -> Option<&Account> {
        self.reader.as_deref()
    }

    fn each(&self, tell: impl Fn(&Account)) {
        tell(&self.store);
        self.reader.as_deref().into_iter().for_each(tell);
    }

    pub(crate) fn asked(&self) {
        self.each(Account::asked);
    }

    pub(crate) fn fetched(&self, bytes: u64, store_rate: u64) {
        self.each(|account| account.fetched(bytes, store_rate));
    }

    pub(crate) fn add(&self, counter: fn(&Account) -> &AtomicU64, amount: u64) {
        self.each(|account| {
            counter(account).fetch_add(amount, Ordering::Relaxed);
        });
    }
}
