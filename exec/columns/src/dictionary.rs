//! The append-only dictionary of a string column: one per table and column, shared by its segments, whatever their files.
//!
//! Codes are given in order of first sight and never change, so codes of an older snapshot hold in every newer one. A column
//! with too many values against its rows is no dictionary column; a scan that finds this leaves the codes to the scans that have
//! them, and an empty domain that says so to those after it.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use trireme_device_api::{DeviceError, Dictionary, Strings};

use crate::budget::Lease;
use crate::files::FileId;
use crate::segments::Part;

/// Values that a dictionary may always have.
const SMALL_VALUES: usize = 64 << 10;
/// And at most, however many rows there are.
const LARGE_VALUES: usize = 4 << 20;
/// Bytes of values at most.
const LARGE_BYTES: usize = 256 << 20;

/// Why a value has no code.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Refused {
    /// Too many values: the column is strings, not codes.
    TooMany,
    /// It is not UTF-8.
    NotText,
    /// Memory is short.
    Memory(DeviceError),
}

/// Names a segment: its file, its first row, and its rows unless it has all of them.
pub(crate) type Place = (Arc<FileId>, u64, Option<Arc<[Part]>>);

/// Where a dictionary's memory comes from.
pub(crate) type TakeBytes<'a> = &'a dyn Fn(usize) -> Result<Lease, DeviceError>;

/// One column's dictionary.
pub(crate) struct Domain {
    pub(crate) id: u64,
    /// Values are too many; this one has none.
    pub(crate) is_raw: bool,
    values: Mutex<Interner>,
}

impl Domain {
    pub(crate) fn new() -> Arc<Self> {
        Self::of(false)
    }

    /// Of a column that is strings.
    pub(crate) fn raw() -> Arc<Self> {
        Self::of(true)
    }

    fn of(is_raw: bool) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            is_raw,
            values: Mutex::new(Interner::new()),
        })
    }

    /// Its values, unless some are being added at this moment.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, Interner>> {
        self.values.try_lock()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Interner> {
        self.values.lock()
    }
}

/// Bytes to codes.
pub(crate) struct Interner {
    // Settings.
    seed: u64,
    // State.
    /// Of the largest scan; the limit depends on it.
    total_rows: usize,
    offsets: Vec<u32>,
    bytes: Vec<u8>,
    /// Code + 1, or 0; open addressing.
    slots: Vec<u32>,
    hashes: Vec<u32>,
    /// Rows whose values were looked at.
    seen_rows: usize,
    covered: HashSet<Place>,
    snapshot: Option<Arc<Dictionary>>,
    // Resources.
    reserved_bytes: usize,
    leases: Vec<Lease>,
}

impl Interner {
    fn new() -> Self {
        Self {
            seed: RandomState::new().hash_one(0),
            total_rows: 0,
            offsets: vec![0],
            bytes: Vec::new(),
            slots: vec![0; 64],
            hashes: Vec::new(),
            seen_rows: 0,
            covered: HashSet::new(),
            snapshot: None,
            reserved_bytes: 0,
            leases: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Tells the rows of a scan. False when the rows seen are more than twice those of the largest scan: most values may be
    /// of files that are gone.
    pub(crate) fn is_fresh(&mut self, rows: usize) -> bool {
        self.total_rows = self.total_rows.max(rows);
        self.seen_rows <= self.total_rows.saturating_mul(2).max(1 << 20)
    }

    /// Whether all values of a segment have codes.
    pub(crate) fn covers(&self, segment: &Place) -> bool {
        let whole = |(file, first_row, _): &Place| (Arc::clone(file), *first_row, None);
        self.covered.contains(segment) || (segment.2.is_some() && self.covered.contains(&whole(segment)))
    }

    /// All values of a segment have codes.
    pub(crate) fn cover(&mut self, segment: Place, rows: usize) {
        if self.covered.insert(segment) {
            self.seen_rows += rows;
        }
    }

    /// The code of a value, new or not; new ones are looked at if they must be text. `rows_before` is the rows of this segment
    /// before it.
    ///
    /// # Errors
    /// [`Refused`]; nothing changed.
    pub(crate) fn intern(
        &mut self,
        value: &[u8],
        is_text: bool,
        rows_before: usize,
        take: TakeBytes<'_>,
    ) -> Result<u32, Refused> {
        let hash = hash_of(self.seed, value);
        let mask = self.slots.len() - 1;
        let mut place = hash as usize & mask;
        loop {
            match self.slots[place] {
                0 => break,
                code_and_one => {
                    let code = code_and_one as usize - 1;
                    if self.hashes[code] == (hash >> 32) as u32 && self.get(code) == value {
                        return Ok(code_and_one - 1);
                    }
                }
            }
            place = (place + 1) & mask;
        }
        if is_text && std::str::from_utf8(value).is_err() {
            return Err(Refused::NotText);
        }
        self.check_limit(value.len(), rows_before)?;
        self.make_room(value.len(), take)?;
        let code = self.hashes.len() as u32;
        self.bytes.extend_from_slice(value);
        self.offsets.push(self.bytes.len() as u32);
        self.hashes.push((hash >> 32) as u32);
        self.slots[place] = code + 1;
        if self.hashes.len() * 2 > self.slots.len() {
            self.rehash();
        }
        Ok(code)
    }

    fn get(&self, code: usize) -> &[u8] {
        &self.bytes[self.offsets[code] as usize..self.offsets[code + 1] as usize]
    }

    fn check_limit(&self, length: usize, rows_before: usize) -> Result<(), Refused> {
        let values = self.len() + 1;
        if values <= SMALL_VALUES && self.bytes.len() + length <= LARGE_BYTES {
            return Ok(());
        }
        let early = values > SMALL_VALUES.max(self.total_rows / 16) && values > (self.seen_rows + rows_before) / 2;
        let limit = SMALL_VALUES.max((self.total_rows / 4).min(LARGE_VALUES));
        match early || values > limit || self.bytes.len() + length > LARGE_BYTES {
            true => Err(Refused::TooMany),
            false => Ok(()),
        }
    }

    /// Reserves ahead of the vectors' growth, for them and one snapshot.
    fn make_room(&mut self, length: usize, take: TakeBytes<'_>) -> Result<(), Refused> {
        let due = (self.bytes.len() + length) * 3 + (self.len() + 1) * 40;
        if due > self.reserved_bytes {
            let more = (due * 2).max(4096) - self.reserved_bytes;
            self.leases.push(take(more).map_err(Refused::Memory)?);
            self.reserved_bytes += more;
        }
        Ok(())
    }

    fn rehash(&mut self) {
        let mask = self.slots.len() * 2 - 1;
        let mut slots = vec![0_u32; mask + 1];
        for code in 0..self.len() {
            let mut place = hash_of(self.seed, self.get(code)) as usize & mask;
            while slots[place] != 0 {
                place = (place + 1) & mask;
            }
            slots[place] = code as u32 + 1;
        }
        self.slots = slots;
    }

    /// All values so far.
    pub(crate) fn snapshot(&mut self) -> Arc<Dictionary> {
        if let Some(last) = &self.snapshot
            && last.len() == self.len()
        {
            return Arc::clone(last);
        }
        let values = Strings {
            offsets: self.offsets.clone().into(),
            bytes: self.bytes.clone().into(),
        };
        let dictionary = Arc::new(Dictionary::new(values));
        self.snapshot = Some(Arc::clone(&dictionary));
        dictionary
    }

    /// All leases come from the cache's budget.
    pub(crate) fn is_cached(&self) -> bool {
        self.leases.iter().all(Lease::is_cached)
    }
}

/// Folded multiplication over words of 8 bytes, as in wyhash.
fn hash_of(seed: u64, bytes: &[u8]) -> u64 {
    const FIRST: u64 = 0x9e37_79b9_7f4a_7c15;
    const SECOND: u64 = 0xd6e8_feb8_6659_fd93;
    let fold = |left: u64, right: u64| {
        let product = u128::from(left) * u128::from(right);
        product as u64 ^ (product >> 64) as u64
    };
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(SECOND);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = fold(hash ^ u64::from_le_bytes(*word), FIRST);
    }
    let mut last = [0_u8; 8];
    last[..rest.len()].copy_from_slice(rest);
    fold(fold(hash ^ u64::from_le_bytes(last), FIRST) ^ seed, SECOND)
}
