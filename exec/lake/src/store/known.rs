//! What was last seen of objects: version, size, time. For callers that name no version, so that the parts of one call are of
//! one version and long objects are read in parallel at once. It is never believed without an answer of the store that
//! confirms it in the same call.

use moka::sync::Cache;
use object_store::ObjectMeta;
use object_store::path::Path;

/// Objects remembered.
const OBJECTS_MAX: u64 = 100_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Known(Cache<Path, ObjectMeta>);

impl Known {
    pub(super) fn new() -> Self {
        Self(Cache::new(OBJECTS_MAX))
    }

    pub(super) fn remember(&self, meta: &ObjectMeta) {
        self.0.insert(meta.location.clone(), meta.clone());
    }

    pub(super) fn get(&self, location: &Path) -> Option<ObjectMeta> {
        self.0.get(location)
    }

    pub(super) fn forget(&self, location: &Path) {
        self.0.invalidate(location);
    }
}
