//! The device's tier of the column cache: what was uploaded stays, until its memory is needed for something else.
//!
//! ```text
//!  entry   priority = clock + uses × (time to upload it again / bytes)      clock = priority of what was dropped last
//!          pinned while somebody holds it        dropped: the lowest priority that nobody holds
//! ```
//!
//! Greedy-Dual-Size-Frequency (Cherkasova 1998): what is used often and is costly to bring back stays, and what was used often
//! long ago ages, since the clock rises with each drop. When room is made, a little more is made than is needed, so that
//! the next allocation doesn't drop one entry more each time. Nothing here changes a result.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;
use trireme_device_api::ScanInput;
use trireme_device_codegen::ir::Elem;
use trireme_device_codegen::shape::{ColumnShape, Storage};

use crate::arena::aligned;
use crate::texts::Table;
use crate::uploaded::Uploaded;

/// Of what is asked, the part that is made free beyond it.
const SLACK: u64 = 8;

/// Tables of constants that are kept, at most.
const TABLES_MAX: usize = 4096;

/// What is known of an entry by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// Content of a column, how it lies in memory, and whether its validity does.
    Column(u64, u8, bool),
    /// Digest and length of a table.
    Table(u64, usize),
}

impl Key {
    /// Of a column's content.
    pub(crate) fn column(identity: u64, shape: &ColumnShape) -> Self {
        Key::Column(identity, storage_number(shape.storage), shape.nullable)
    }

    fn table(content: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        Key::Table(hasher.finish(), content.len())
    }
}

fn storage_number(storage: Storage) -> u8 {
    let elem = |elem: Elem| u8::try_from(elem.bytes()).unwrap_or(0);
    match storage {
        Storage::Integer(of) => elem(of),
        Storage::Code(of) => 0x20 + elem(of),
        Storage::Wide => 0x40,
        Storage::Float32 => 0x41,
        Storage::Float64 => 0x42,
        Storage::Bits => 0x43,
        Storage::Bytes => 0x44,
        Storage::Offsets => 0x45,
        Storage::Handles => 0x46,
        Storage::Null => 0x47,
    }
}

#[derive(Clone)]
enum Content {
    Column(Arc<Uploaded>),
    Table(Arc<Table>),
}

impl Content {
    fn bytes(&self) -> u64 {
        match self {
            Content::Column(column) => column.bytes(),
            Content::Table(table) => aligned(table.block.bytes()),
        }
    }

    /// Nobody but the tier holds it.
    fn is_free(&self) -> bool {
        match self {
            Content::Column(column) => Arc::strong_count(column) == 1,
            Content::Table(table) => Arc::strong_count(table) == 1,
        }
    }
}

struct Entry {
    content: Content,
    uses: u32,
    /// Time to upload a byte again, in nanoseconds.
    ns_per_byte: f64,
    priority: f64,
}

impl Entry {
    fn used(&mut self, clock: f64) {
        self.uses = self.uses.saturating_add(1);
        self.priority = clock + f64::from(self.uses) * self.ns_per_byte;
    }
}

#[derive(Default)]
struct State {
    entries: HashMap<Key, Entry>,
    /// By identity of a column's content: in how many forms it is there.
    identities: HashMap<u64, u32>,
    bytes: u64,
    tables: usize,
    clock: f64,
    evictions: u64,
}

impl State {
    /// An entry that had this priority is dropped.
    fn take_out(&mut self, key: Key, priority: f64) -> Option<Content> {
        let Entry { content, .. } = self.entries.remove(&key)?;
        self.bytes -= content.bytes();
        if let Key::Column(identity, ..) = key
            && let Some(forms) = self.identities.get_mut(&identity)
        {
            *forms -= 1;
            if *forms == 0 {
                self.identities.remove(&identity);
            }
        }
        self.tables -= usize::from(matches!(content, Content::Table(_)));
        self.evictions += u64::from(matches!(content, Content::Column(_)));
        self.clock = self.clock.max(priority);
        Some(content)
    }
}

/// Columns and tables that are in device memory.
#[derive(Default)]
pub(crate) struct Tier(Mutex<State>);

impl Tier {
    /// A column that is there, pinned while it is held.
    pub(crate) fn column(&self, key: Key) -> Option<Arc<Uploaded>> {
        match self.take(key)? {
            Content::Column(column) => Some(column),
            Content::Table(_) => None,
        }
    }

    /// Whether a column is there, without a use.
    pub(crate) fn has(&self, key: Key) -> bool {
        self.0.lock().entries.contains_key(&key)
    }

    /// The part of a scan's values that is there, 0 … 1.
    #[expect(clippy::cast_precision_loss, reason = "a share is an estimate")]
    pub(crate) fn share(&self, scan: &dyn ScanInput) -> f64 {
        let state = self.0.lock();
        let (mut there, mut all) = (0_usize, 0_usize);
        for segment in 0..scan.segments() {
            let rows = scan.rows(segment);
            for column in 0..scan.columns().len() {
                let identity = scan.identity(segment, column);
                all += rows;
                there += identity.map_or(0, |identity| {
                    rows * usize::from(state.identities.contains_key(&identity))
                });
            }
        }
        there as f64 / all.max(1) as f64
    }

    /// A table with this content that is there, pinned while it is held.
    pub(crate) fn table(&self, content: &[u8]) -> Option<Arc<Table>> {
        match self.take(Key::table(content))? {
            Content::Table(table) if *table.content == *content => Some(table),
            _ => None,
        }
    }

    fn take(&self, key: Key) -> Option<Content> {
        let mut state = self.0.lock();
        let clock = state.clock;
        let entry = state.entries.get_mut(&key)?;
        entry.used(clock);
        Some(entry.content.clone())
    }

    /// Keeps a column, whose upload is ordered before all work that is queued from now on.
    pub(crate) fn keep_column(&self, key: Key, column: &Arc<Uploaded>) {
        self.keep(key, Content::Column(Arc::clone(column)), column.upload_ns());
    }

    /// Keeps a table, as [`Tier::keep_column`].
    pub(crate) fn keep_table(&self, table: &Arc<Table>) {
        let old = self.shrink_tables();
        self.keep(Key::table(&table.content), Content::Table(Arc::clone(table)), 0);
        drop(old);
    }

    /// Takes a part of the tables out when there are too many: each set of constants has its own, and few come again.
    fn shrink_tables(&self) -> Vec<Content> {
        let mut state = self.0.lock();
        if state.tables < TABLES_MAX {
            return Vec::new();
        }
        let is_free_table = |entry: &Entry| matches!(entry.content, Content::Table(_)) && entry.content.is_free();
        let mut free: Vec<(Key, f64)> = state
            .entries
            .iter()
            .filter(|(_, entry)| is_free_table(entry))
            .map(|(key, entry)| (*key, entry.priority))
            .collect();
        free.sort_unstable_by(|(_, left), (_, right)| left.total_cmp(right));
        free.truncate(TABLES_MAX / 4);
        let taken = free
            .into_iter()
            .filter_map(|(key, priority)| state.take_out(key, priority));
        taken.collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "a priority is an estimate")]
    fn keep(&self, key: Key, content: Content, ns: u64) {
        let mut state = self.0.lock();
        let bytes = content.bytes();
        let is_table = matches!(content, Content::Table(_));
        let mut entry = Entry {
            content,
            uses: 0,
            // At least what a copy takes, so that a measured zero doesn't make an entry worthless.
            ns_per_byte: (ns as f64 / bytes.max(1) as f64).max(0.02),
            priority: 0.0,
        };
        entry.used(state.clock);
        // Another run may have uploaded the same; the older one stays.
        if let std::collections::hash_map::Entry::Vacant(place) = state.entries.entry(key) {
            place.insert(entry);
            if let Key::Column(identity, ..) = key {
                *state.identities.entry(identity).or_default() += 1;
            }
            state.bytes += bytes;
            state.tables += usize::from(is_table);
        }
    }

    /// Drops entries for `bytes` bytes and a little more, as far as nobody holds them; false when none was dropped.
    pub(crate) fn evict(&self, bytes: u64) -> bool {
        let wanted = bytes.saturating_add(bytes / SLACK);
        let mut dropped = Vec::new();
        let mut state = self.0.lock();
        let mut free: Vec<(Key, f64)> = state
            .entries
            .iter()
            .filter(|(_, entry)| entry.content.is_free())
            .map(|(key, entry)| (*key, entry.priority))
            .collect();
        free.sort_unstable_by(|(_, left), (_, right)| left.total_cmp(right));
        let mut freed = 0;
        for (key, priority) in free {
            if freed >= wanted {
                break;
            }
            if let Some(content) = state.take_out(key, priority) {
                freed += content.bytes();
                dropped.push(content);
            }
        }
        drop(state);
        !dropped.is_empty()
    }

    /// Bytes that entries take.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.lock().bytes
    }

    /// Columns dropped since the start.
    pub(crate) fn evictions(&self) -> u64 {
        self.0.lock().evictions
    }
}
