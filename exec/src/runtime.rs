//! The runtime environment: process-wide memory pool, spill folder, caches and object stores.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::execution::cache::cache_manager::CacheManagerConfig;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool, TrackConsumersPool};
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};

use crate::error::QueryError;
use crate::memory::QueryPool;
use crate::spill_folder::SpillFolder;

/// How large everything may get.
#[derive(Debug, Clone)]
pub struct RuntimeLimits {
    /// Memory that all queries together may reserve.
    pub memory_bytes: usize,
    /// Memory that one query may reserve.
    pub query_memory_bytes: usize,
    /// Where servers have their folders of spill files.
    pub spill_folder: PathBuf,
    /// Bytes that all spill files together may take.
    pub spill_bytes_max: u64,
    /// Bytes of file footers kept in memory.
    pub metadata_cache_bytes: usize,
}

/// The process's runtime and the limits each query gets from it.
#[derive(Debug, Clone)]
pub struct Runtime {
    env: Arc<RuntimeEnv>,
    query_memory_bytes: usize,
    _spill_folder: Arc<SpillFolder>,
}

impl Runtime {
    /// Builds the environment and the spill folder.
    ///
    /// # Errors
    /// When the spill folder can't be used.
    pub fn new(limits: &RuntimeLimits, stores: Arc<dyn ObjectStoreRegistry>) -> Result<Self, QueryError> {
        let spill_folder = SpillFolder::claim(&limits.spill_folder).map_err(|error| {
            QueryError::new(
                crate::ErrorClass::Precondition,
                format!("the spill folder {} can't be used", limits.spill_folder.display()),
            )
            .with_detail(error.to_string())
            .with_hint("set exec.spill_dir to a writable folder")
        })?;
        let reported_consumers = NonZeroUsize::new(5).unwrap_or(NonZeroUsize::MIN);
        let pool = TrackConsumersPool::new(FairSpillPool::new(limits.memory_bytes), reported_consumers);
        let disk = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![spill_folder.path().to_owned()]))
            .with_max_temp_directory_size(limits.spill_bytes_max);
        // A cached file list would hide files that were just written: the catalog checks files itself.
        let caches = CacheManagerConfig {
            list_files_cache: None,
            list_files_cache_limit: 0,
            metadata_cache_limit: limits.metadata_cache_bytes,
            ..CacheManagerConfig::default()
        };
        let env = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(pool))
            .with_disk_manager_builder(disk)
            .with_cache_manager(caches)
            .with_object_store_registry(stores)
            .build_arc()?;
        Ok(Self {
            env,
            query_memory_bytes: limits.query_memory_bytes.min(limits.memory_bytes),
            _spill_folder: Arc::new(spill_folder),
        })
    }

    /// The environment shared by all queries.
    pub fn env(&self) -> &Arc<RuntimeEnv> {
        &self.env
    }

    /// Bytes reserved by all running queries.
    pub fn reserved_bytes(&self) -> usize {
        self.env.memory_pool.reserved()
    }

    /// The environment of one query, with its own memory limit.
    pub fn for_query(&self) -> (Arc<RuntimeEnv>, Arc<QueryPool>) {
        let pool = Arc::new(QueryPool::new(
            Arc::clone(&self.env.memory_pool),
            self.query_memory_bytes,
        ));
        let env = RuntimeEnv {
            memory_pool: Arc::clone(&pool) as Arc<dyn MemoryPool>,
            disk_manager: Arc::clone(&self.env.disk_manager),
            cache_manager: Arc::clone(&self.env.cache_manager),
            object_store_registry: Arc::clone(&self.env.object_store_registry),
        };
        (Arc::new(env), pool)
    }
}
