//! Compiled kernels: in memory while the process runs, and in a folder for the next one.
//!
//! ```text
//!  key = SHA-256(format, text, driver's identity), each with its length      file: magic │ digest of what follows │ binary
//! ```
//!
//! Within the process a module is found by the digest of its structure, before it is printed: printing takes longer.
//!
//! A file is written under a name of its own and renamed, so that no reader sees half of one; what is cut short, garbled or
//! refused by the driver is a miss. The folder is a convenience: no failure of it fails a query.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use trireme_device_api::DeviceError;
use trireme_device_codegen::ir::Module;

use crate::driver::{Driver, ModuleId};

/// Of the files' format and of what the key is made from.
const MAGIC: &[u8; 8] = b"TRKERN01";

/// Bytes before the binary: magic and digest.
const HEADER_BYTES: usize = 8 + 32;

/// Modules that stay loaded.
const LOADED_MAX: usize = 2048;

/// Digest of what a module is made from.
type Key = [u8; 32];

/// A loaded module; forgotten by the driver when nobody holds it any more.
pub(crate) struct Loaded {
    driver: Arc<dyn Driver>,
    id: ModuleId,
}

impl Loaded {
    /// The driver's name for it.
    pub(crate) fn id(&self) -> ModuleId {
        self.id
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.driver.unload(self.id);
    }
}

/// What it took to get a module.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Took {
    /// It was compiled.
    pub(crate) compiled: bool,
    /// Time to compile and load.
    pub(crate) ns: u64,
}

/// A module's place; locked while it is compiled, so that nobody else compiles it too.
#[derive(Default)]
struct Slot {
    loaded: Mutex<Option<Arc<Loaded>>>,
    /// It could not be made the last time.
    failed: AtomicBool,
    used: AtomicU64,
}

/// What is known of a module without waiting.
pub(crate) enum Peeked {
    Loaded(Arc<Loaded>),
    /// It could not be made the last time.
    Failed,
    Unknown,
}

/// Modules by what they are made from.
pub(crate) struct KernelCache {
    driver: Arc<dyn Driver>,
    folder: Option<Folder>,
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
    /// The same, by digests of structures.
    by_structure: Mutex<HashMap<Key, Arc<Slot>>>,
    clock: AtomicU64,
    pub(crate) compiled: AtomicU64,
    compile_ns: AtomicU64,
    pub(crate) cached: AtomicU64,
}

impl KernelCache {
    /// With a folder of at most so many bytes, if there is one and the driver's binaries may be kept.
    pub(crate) fn new(driver: Arc<dyn Driver>, folder: Option<(PathBuf, u64)>) -> Self {
        let keeps = driver.info().identity.is_some();
        Self {
            folder: folder
                .filter(|_| keeps)
                .map(|(path, bytes_max)| Folder { path, bytes_max }),
            driver,
            slots: Mutex::default(),
            by_structure: Mutex::default(),
            clock: AtomicU64::new(0),
            compiled: AtomicU64::new(0),
            compile_ns: AtomicU64::new(0),
            cached: AtomicU64::new(0),
        }
    }

    /// Whether the module is loaded; never waits for somebody who compiles it.
    pub(crate) fn peek(&self, module: &Module) -> Peeked {
        let Some(slot) = self.known(&structure(module)) else {
            return Peeked::Unknown;
        };
        if slot.failed.load(Ordering::Relaxed) {
            return Peeked::Failed;
        }
        let loaded = slot.loaded.try_lock().and_then(|place| place.clone());
        loaded.map_or(Peeked::Unknown, Peeked::Loaded)
    }

    fn known(&self, structure: &Key) -> Option<Arc<Slot>> {
        self.by_structure.lock().get(structure).map(Arc::clone)
    }

    /// The module, compiled in this thread if it is not known.
    ///
    /// # Errors
    /// Those of the driver.
    pub(crate) fn get(&self, module: &Module) -> Result<(Arc<Loaded>, Took), DeviceError> {
        let structure = structure(module);
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        if let Some(slot) = self.known(&structure)
            && let Some(loaded) = &*slot.loaded.lock()
        {
            slot.used.store(now, Ordering::Relaxed);
            self.cached.fetch_add(1, Ordering::Relaxed);
            return Ok((Arc::clone(loaded), Took::default()));
        }
        let text = self.driver.text(module);
        let key = key(&text, self.driver.info().identity.as_deref().unwrap_or_default());
        let slot = Arc::clone(self.slots.lock().entry(key).or_default());
        slot.used.store(now, Ordering::Relaxed);
        self.remember(structure, &slot);
        let mut place = slot.loaded.lock();
        if let Some(loaded) = &*place {
            self.cached.fetch_add(1, Ordering::Relaxed);
            return Ok((Arc::clone(loaded), Took::default()));
        }
        let began = Instant::now();
        let made = self.load(module, &text, &key);
        slot.failed.store(made.is_err(), Ordering::Relaxed);
        let (id, compiled) = made?;
        let loaded = Arc::new(Loaded {
            driver: Arc::clone(&self.driver),
            id,
        });
        *place = Some(Arc::clone(&loaded));
        drop(place);
        self.shrink();
        let counter = if compiled { &self.compiled } else { &self.cached };
        counter.fetch_add(1, Ordering::Relaxed);
        let took = Took {
            compiled,
            ns: u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX),
        };
        if compiled {
            self.compile_ns.fetch_add(took.ns, Ordering::Relaxed);
        }
        Ok((loaded, took))
    }

    /// What compiling a module has taken, on average, if any was.
    pub(crate) fn mean_compile_ns(&self) -> Option<f64> {
        let count = self.compiled.load(Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "an average")]
        let mean = self.compile_ns.load(Ordering::Relaxed) as f64 / count as f64;
        (count > 0).then_some(mean)
    }

    /// From the folder, or compiled (true).
    fn load(&self, module: &Module, text: &str, key: &Key) -> Result<(ModuleId, bool), DeviceError> {
        if let Some(folder) = &self.folder
            && let Some(binary) = folder.read(key)
        {
            match self.driver.load(module, &binary) {
                Ok(id) => return Ok((id, false)),
                Err(error @ (DeviceError::Device(_) | DeviceError::OutOfMemory(_))) => return Err(error),
                // Made by another compiler than its key says.
                Err(_) => folder.remove(key),
            }
        }
        let binary = self.driver.compile(module, text)?;
        let id = self.driver.load(module, &binary)?;
        if let Some(folder) = &self.folder {
            folder.write(key, &binary);
        }
        Ok((id, true))
    }

    fn remember(&self, structure: Key, slot: &Arc<Slot>) {
        let mut known = self.by_structure.lock();
        if known.len() >= 2 * LOADED_MAX {
            known.clear();
        }
        known.insert(structure, Arc::clone(slot));
    }

    /// Forgets the modules that were not used for longest, when there are too many.
    fn shrink(&self) {
        let mut slots = self.slots.lock();
        if slots.len() <= LOADED_MAX {
            return;
        }
        let mut used: Vec<_> = slots.values().map(|slot| slot.used.load(Ordering::Relaxed)).collect();
        let middle = used.len() / 4;
        let (_, oldest, _) = used.select_nth_unstable(middle);
        let oldest = *oldest;
        slots.retain(|_, slot| slot.used.load(Ordering::Relaxed) >= oldest);
        self.by_structure
            .lock()
            .retain(|_, slot| slot.used.load(Ordering::Relaxed) >= oldest);
    }
}

fn key(text: &str, identity: &str) -> Key {
    let mut digest = Sha256::new();
    for part in [MAGIC.as_slice(), text.as_bytes(), identity.as_bytes()] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// Digest of a module's structure.
fn structure(module: &Module) -> Key {
    let mut bytes = Bytes(Vec::with_capacity(16 << 10));
    module.hash(&mut bytes);
    Sha256::digest(&bytes.0).into()
}

/// Keeps what is hashed, in few bytes: small numbers are frequent. What differs stays different, since the length of each
/// number shows in its bytes.
struct Bytes(Vec<u8>);

impl Bytes {
    fn put(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(0x80 | (value & 0x7f) as u8);
            value >>= 7;
        }
        self.0.push((value & 0x7f) as u8);
    }
}

impl Hasher for Bytes {
    fn finish(&self) -> u64 {
        self.0.len() as u64
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn write_u32(&mut self, value: u32) {
        self.put(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.put(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.put(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.put(value.cast_unsigned() as u64);
    }
}

/// Binaries in files.
struct Folder {
    path: PathBuf,
    bytes_max: u64,
}

impl Folder {
    fn file(&self, key: &Key) -> PathBuf {
        let name: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        self.path.join(name + ".kernel")
    }

    /// The binary, if there is a whole one.
    fn read(&self, key: &Key) -> Option<Vec<u8>> {
        let path = self.file(key);
        let mut content = std::fs::read(&path).ok()?;
        let (magic, digest) = (content.get(..8)?, content.get(8..HEADER_BYTES)?);
        let is_whole = magic == MAGIC && *digest == digest_of(key, &content[HEADER_BYTES..]);
        if !is_whole {
            self.remove(key);
            return None;
        }
        // What is used stays longest.
        if let Ok(file) = std::fs::File::options().append(true).open(&path) {
            let _ = file.set_modified(SystemTime::now());
        }
        content.drain(..HEADER_BYTES);
        Some(content)
    }

    fn write(&self, key: &Key, binary: &[u8]) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        if (binary.len() + HEADER_BYTES) as u64 > self.bytes_max || std::fs::create_dir_all(&self.path).is_err() {
            return;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = self.path.join(format!("{}-{number}.tmp", std::process::id()));
        let mut content = Vec::with_capacity(HEADER_BYTES + binary.len());
        content.extend_from_slice(MAGIC);
        content.extend_from_slice(&digest_of(key, binary));
        content.extend_from_slice(binary);
        let written = std::fs::write(&temporary, content).and_then(|()| std::fs::rename(&temporary, self.file(key)));
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        self.shrink();
    }

    fn remove(&self, key: &Key) {
        let _ = std::fs::remove_file(self.file(key));
    }

    /// Removes what was not used for longest, until the rest is within the limit.
    fn shrink(&self) {
        let mut files = files(&self.path);
        let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        files.sort_unstable();
        for (_, size, path) in files {
            if bytes <= self.bytes_max {
                break;
            }
            if std::fs::remove_file(path).is_ok() {
                bytes -= size;
            }
        }
    }
}

/// Of the key too, so that a file under another's name is foreign.
fn digest_of(key: &Key, binary: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(key);
    digest.update(binary);
    digest.finalize().into()
}

/// The cache's files: when they were used last, their size.
fn files(folder: &Path) -> Vec<(SystemTime, u64, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let known = |path: &Path| {
        path.extension()
            .is_some_and(|found| found == "kernel" || found == "tmp")
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let (path, metadata) = (entry.path(), entry.metadata().ok()?);
            known(&path).then_some((metadata.modified().ok()?, metadata.len(), path))
        })
        .collect()
}
