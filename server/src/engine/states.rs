//! Session states: the base with a session's schema and settings, and the functions that users defined.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use datafusion::execution::SessionState;
use parking_lot::Mutex;
use trireme_catalog::Catalog;
use trireme_exec::QueryError;
use trireme_planner::functions::FunctionSet;
use trireme_planner::session;

/// What session states are made from.
pub(super) struct States {
    base: SessionState,
    catalog: Weak<Catalog>,
    functions: Mutex<Arc<FunctionSet>>,
}

impl std::fmt::Debug for States {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("States").finish_non_exhaustive()
    }
}

impl States {
    /// Over the state that every session starts from.
    pub(super) fn new(base: SessionState, catalog: &Arc<Catalog>) -> Self {
        let functions = FunctionSet::compile(&base, &catalog.functions());
        Self {
            base,
            catalog: Arc::downgrade(catalog),
            functions: Mutex::new(Arc::new(functions)),
        }
    }

    /// The state that every session starts from.
    pub(super) fn base(&self) -> &SessionState {
        &self.base
    }

    /// The functions as the catalog has them now, planned.
    pub(super) fn functions(&self) -> Arc<FunctionSet> {
        let mut planned = self.functions.lock();
        if let Some(catalog) = self.catalog.upgrade() {
            let defined = catalog.functions();
            if defined.version != planned.version() {
                *planned = Arc::new(FunctionSet::compile(&self.base, &defined));
            }
        }
        Arc::clone(&planned)
    }

    /// A session's state. Its clock is not set.
    ///
    /// # Errors
    /// When a setting's value is refused.
    pub(super) fn session(
        &self,
        schema: &str,
        settings: &BTreeMap<String, String>,
        functions: &Arc<FunctionSet>,
    ) -> Result<SessionState, QueryError> {
        let mut state = session::session_state(&self.base, schema, settings)?;
        functions.register(&mut state)?;
        Ok(state)
    }
}
