//! Compiled kernels, in memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use trireme_device_api::DeviceError;
use trireme_device_codegen::ir::Module;

use crate::driver::{Driver, ModuleId};

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

/// Modules by what they are made from.
pub(crate) struct KernelCache {
    driver: Arc<dyn Driver>,
    loaded: Mutex<HashMap<Key, Arc<Loaded>>>,
    pub(crate) compiled: AtomicU64,
    pub(crate) cached: AtomicU64,
}

impl KernelCache {
    /// Empty.
    pub(crate) fn new(driver: Arc<dyn Driver>) -> Self {
        Self {
            driver,
            loaded: Mutex::default(),
            compiled: AtomicU64::new(0),
            cached: AtomicU64::new(0),
        }
    }

    /// The module, compiled in this thread if it isn't known.
    ///
    /// # Errors
    /// Those of the driver.
    pub(crate) fn get(&self, module: &Module) -> Result<(Arc<Loaded>, Took), DeviceError> {
        let text = self.driver.text(module);
        let key: Key = Sha256::digest(text.as_bytes()).into();
        if let Some(loaded) = self.loaded.lock().get(&key) {
            self.cached.fetch_add(1, Ordering::Relaxed);
            return Ok((Arc::clone(loaded), Took::default()));
        }
        let began = Instant::now();
        let binary = self.driver.compile(module, &text)?;
        let id = self.driver.load(module, &binary)?;
        let loaded = Arc::new(Loaded {
            driver: Arc::clone(&self.driver),
            id,
        });
        self.compiled.fetch_add(1, Ordering::Relaxed);
        self.loaded.lock().insert(key, Arc::clone(&loaded));
        let took = Took {
            compiled: true,
            ns: u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX),
        };
        Ok((loaded, took))
    }
}
