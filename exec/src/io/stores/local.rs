//! The local file system, guarded.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;

use super::guarded;
use crate::io::locations::Locations;

/// The whole file system behind the allow-list: object paths are absolute paths.
pub(crate) fn build(locations: &Arc<Locations>) -> Arc<dyn ObjectStore> {
    guarded::local(locations, Arc::new(LocalFileSystem::new()))
}
