//! The process's lake: its tiers, and the stores that were wrapped.

use std::collections::HashMap;
use std::sync::Arc;

use object_store::ObjectStore;
use parking_lot::Mutex;

use crate::buffers::Buffers;
use crate::metrics::{CacheRow, LakeMetrics};
use crate::options::LakeOptions;
use crate::store::{Clients, TieredStore};
use crate::tiers::Tiers;

/// See the module.
pub struct Lake {
    options: LakeOptions,
    tiers: Arc<Tiers>,
    buffers: Arc<Buffers>,
    stores: Mutex<HashMap<String, Arc<TieredStore>>>,
}

impl Lake {
    /// A lake within these limits. A disk tier that can't be used is left out, with a warning in the log.
    pub fn new(options: LakeOptions) -> Arc<Self> {
        Arc::new(Self {
            tiers: Tiers::new(&options),
            options,
            buffers: Arc::default(),
            stores: Mutex::new(HashMap::new()),
        })
    }

    /// Limits and switches.
    pub fn options(&self) -> &LakeOptions {
        &self.options
    }

    /// Wraps the store of `key` (its URL, as the registry knows it, options' fingerprint and all). `name` is for people.
    pub fn wrap(&self, key: &str, name: &str, inner: Arc<dyn ObjectStore>) -> Arc<TieredStore> {
        self.wrap_clients(key, name, inner.into())
    }

    /// [`Lake::wrap`] of a store with clients of its own for reading.
    pub fn wrap_clients(&self, key: &str, name: &str, clients: Clients) -> Arc<TieredStore> {
        let store = TieredStore::new(key, name, clients, &self.options, &self.tiers, &self.buffers);
        self.stores.lock().insert(key.to_owned(), Arc::clone(&store));
        store
    }

    /// The wrapped store of a key.
    pub fn store(&self, key: &str) -> Option<Arc<TieredStore>> {
        self.stores.lock().get(key).cloned()
    }

    /// Counters.
    pub fn metrics(&self) -> LakeMetrics {
        let mut metrics = self.tiers.metrics();
        metrics.stores = self.stores.lock().values().map(|store| store.metrics()).collect();
        metrics.stores.sort_by(|left, right| left.store.cmp(&right.store));
        metrics
    }

    /// Forgets what the tiers hold.
    pub fn clear(&self) {
        self.tiers.clear();
    }

    /// What the tiers hold.
    pub fn cache_rows(&self) -> Vec<CacheRow> {
        let mut rows = self.tiers.rows();
        let stores = self.stores.lock();
        for row in &mut rows {
            if let Some(store) = stores.get(&row.store) {
                row.store = store.name().to_owned();
            }
        }
        rows
    }
}
