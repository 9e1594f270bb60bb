//! What ANALYZE kept of tables, by version of their files.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use trireme_costs::rows::TableSketch;

/// Tables whose sketches are loaded before a plan asks for them.
const WARM_MAX: usize = 256;

/// Sketches by version of a table's files.
#[derive(Debug, Default)]
pub struct Sketches {
    tables: RwLock<HashMap<u64, Arc<Lazy>>>,
}

/// Reads a sketch, when a plan first asks for it.
pub type Load = Box<dyn Fn() -> Option<TableSketch> + Send + Sync>;

struct Lazy {
    load: Load,
    loaded: OnceLock<Option<Arc<TableSketch>>>,
}

impl Lazy {
    fn get(&self) -> Option<Arc<TableSketch>> {
        self.loaded.get_or_init(|| (self.load)().map(Arc::new)).clone()
    }
}

impl fmt::Debug for Lazy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lazy")
            .field("loaded", &self.loaded)
            .finish_non_exhaustive()
    }
}

impl Sketches {
    /// The sketch of files in this version.
    pub fn get(&self, version: u64) -> Option<Arc<TableSketch>> {
        let lazy = Arc::clone(self.tables.read().get(&version)?);
        lazy.get()
    }

    /// Loads all, so that no plan waits for them.
    pub fn warm(&self) {
        let tables: Vec<_> = self.tables.read().values().take(WARM_MAX).cloned().collect();
        for lazy in tables {
            if let Some(sketch) = lazy.get() {
                sketch.warm();
            }
        }
    }

    /// Replaces all: what to load when a plan asks for it. What was loaded stays.
    pub fn set(&self, tables: impl Iterator<Item = (u64, Load)>) {
        let mut known = self.tables.write();
        let lazy = |(version, load)| {
            let fresh = || {
                Arc::new(Lazy {
                    load,
                    loaded: OnceLock::new(),
                })
            };
            (version, known.get(&version).cloned().unwrap_or_else(fresh))
        };
        *known = tables.map(lazy).collect();
    }
}
