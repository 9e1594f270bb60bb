//! The catalog itself: what it holds, and how it is opened.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use datafusion::catalog::{CatalogProvider, SchemaProvider};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::prelude::SessionConfig;
use parking_lot::{Mutex, RwLock};
use trireme_exec::io::{Locations, StoreRegistry};
use trireme_planner::ddl::{Functions, Key, TableName};

use crate::definitions::{Definitions, Snapshot};
use crate::delta;
use crate::discover;
use crate::error::CatalogError;
use crate::folder::Folder;
use crate::leases::Leases;
use crate::provider::CatalogHandle;
use crate::resolve::Cached;
use crate::secrets::{SecretKey, SecretsFile};
use crate::sketching::Sketching;
use crate::statistics::{SketchOptions, StatisticsFile};
use crate::views::ViewPlanner;

/// The one catalog's name.
pub const CATALOG_NAME: &str = "trireme";
/// The schema of unqualified names, and of everything directly in the data folder.
pub const DEFAULT_SCHEMA: &str = "public";
/// The schema that describes the others.
pub(crate) const INFORMATION_SCHEMA: &str = "information_schema";
/// The schema that the server registers.
pub(crate) const SYSTEM_SCHEMA: &str = "system";

/// What the catalog needs to be opened.
#[derive(Debug)]
pub struct CatalogOptions {
    /// The data folder; created when it is missing.
    pub data_dir: PathBuf,
    /// How long a table's files are taken as unchanged; zero checks at every statement.
    pub refresh_interval: Duration,
    /// Whether queries may start before a remote table's files were looked at again.
    pub plan_ahead: bool,
    /// Whether changes of managed tables are on the disk before they are answered.
    pub sync_writes: bool,
    /// The allow-list.
    pub locations: Arc<Locations>,
    /// The object stores; the same that `runtime` uses.
    pub stores: Arc<StoreRegistry>,
    /// The environment that files are sampled in.
    pub runtime: Arc<RuntimeEnv>,
    /// Seals the file of secrets.
    pub secrets_key: Option<SecretKey>,
    /// Reader settings (view types, header default) for inferred columns; the sessions should use the same.
    pub session_config: SessionConfig,
}

/// What a statement did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Rows written or counted, where the statement has a count.
    pub rows: Option<u64>,
}

/// See the crate.
pub struct Catalog {
    pub(crate) locations: Arc<Locations>,
    pub(crate) stores: Arc<StoreRegistry>,
    pub(crate) refresh_interval: Duration,
    pub(crate) plan_ahead: bool,
    pub(crate) sync_writes: bool,
    /// Tables that were found changed after a query had started.
    pub(crate) changed_ahead: AtomicU64,
    pub(crate) session: Arc<SessionState>,
    pub(crate) folder: Folder,
    pub(crate) definitions: RwLock<Snapshot>,
    pub(crate) functions: RwLock<Arc<Functions>>,
    /// Held while definitions change on disk and in memory.
    pub(crate) changing: tokio::sync::Mutex<()>,
    pub(crate) leases: Leases,
    pub(crate) tables: Mutex<HashMap<TableName, Cached>>,
    pub(crate) deltas: Mutex<HashMap<String, delta::Opened>>,
    pub(crate) statistics: RwLock<StatisticsFile>,
    /// Where plans look for samples, and how many rows each has.
    pub(crate) sketches: OnceLock<SketchOptions>,
    /// Tables that wait to be analysed unasked.
    pub(crate) sketching: Sketching,
    pub(crate) secrets: RwLock<SecretsFile>,
    pub(crate) planner: OnceLock<Arc<dyn ViewPlanner>>,
    pub(crate) system: RwLock<Option<Arc<dyn SchemaProvider>>>,
    pub(crate) this: Weak<Self>,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog")
            .field("data", &self.data_dir())
            .finish_non_exhaustive()
    }
}

impl Catalog {
    /// Takes the folder's lock, checks its format version, loads the definitions and removes what a crash left.
    ///
    /// # Errors
    /// [`CatalogError::Locked`], [`CatalogError::FormatVersion`], [`CatalogError::Corrupt`], [`CatalogError::Io`].
    pub async fn open(options: CatalogOptions) -> Result<Arc<Self>, CatalogError> {
        std::fs::create_dir_all(&options.data_dir).map_err(CatalogError::io(&options.data_dir))?;
        let (folder, definitions) = Folder::open(options.locations.data_folder())?;
        delta::register_log_stores();
        let statistics = StatisticsFile::load(&folder)?;
        let secrets = SecretsFile::open(&folder.secrets_file(), options.secrets_key)?;
        options.stores.set_secrets(secrets.secrets());
        let mut config = options.session_config;
        config.options_mut().execution.listing_table_ignore_subdirectory = false;
        let session = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(options.runtime)
            .with_default_features()
            .build();
        let catalog = Arc::new_cyclic(|this| Self {
            locations: options.locations,
            stores: options.stores,
            refresh_interval: options.refresh_interval,
            plan_ahead: options.plan_ahead,
            sync_writes: options.sync_writes,
            changed_ahead: AtomicU64::new(0),
            session: Arc::new(session),
            folder,
            functions: RwLock::new(Arc::new(Functions {
                version: 0,
                definitions: definitions.functions.clone(),
            })),
            definitions: RwLock::new(Arc::new(definitions)),
            changing: tokio::sync::Mutex::new(()),
            leases: Leases::default(),
            tables: Mutex::new(HashMap::new()),
            deltas: Mutex::new(HashMap::new()),
            statistics: RwLock::new(statistics),
            sketches: OnceLock::new(),
            sketching: Sketching::default(),
            secrets: RwLock::new(secrets),
            planner: OnceLock::new(),
            system: RwLock::new(None),
            this: Weak::clone(this),
        });
        catalog.prune_statistics().await;
        Ok(catalog)
    }

    /// The object stores.
    pub fn stores(&self) -> &Arc<StoreRegistry> {
        &self.stores
    }

    /// What DataFusion resolves names with.
    pub fn provider(self: &Arc<Self>) -> Arc<dyn CatalogProvider> {
        Arc::new(CatalogHandle::new(Arc::clone(self)))
    }

    /// Adds the schema `system`.
    pub fn register_system(&self, schema: Arc<dyn SchemaProvider>) {
        *self.system.write() = Some(schema);
    }

    /// Sets who plans the views' SELECTs; the first call counts.
    pub fn set_planner(&self, planner: Arc<dyn ViewPlanner>) {
        let _ = self.planner.set(planner);
    }

    /// Names of all schemas, sorted.
    pub fn schemas(&self) -> Vec<String> {
        let mut names = discover::schemas(self.data_dir());
        names.extend(self.snapshot().schemas.iter().cloned());
        names.push(DEFAULT_SCHEMA.to_owned());
        names.push(INFORMATION_SCHEMA.to_owned());
        if self.system.read().is_some() {
            names.push(SYSTEM_SCHEMA.to_owned());
        }
        names.sort();
        names.dedup();
        names
    }

    /// True for a schema that statements can name.
    pub fn schema_exists(&self, name: &str) -> bool {
        match name {
            DEFAULT_SCHEMA | INFORMATION_SCHEMA => true,
            SYSTEM_SCHEMA => self.system.read().is_some(),
            _ => self.snapshot().schemas.contains(name) || discover::schema_folder(self.data_dir(), name).is_some(),
        }
    }

    /// All informational keys, by table.
    pub fn keys(&self) -> Vec<(TableName, Vec<Key>)> {
        let definitions = self.snapshot();
        let mut all = Vec::new();
        for (schema, tables) in &definitions.keys {
            for (table, keys) in tables {
                all.push((
                    TableName {
                        schema: schema.clone(),
                        table: table.clone(),
                    },
                    keys.clone(),
                ));
            }
        }
        all
    }

    /// The functions that users defined.
    pub fn functions(&self) -> Arc<Functions> {
        Arc::clone(&self.functions.read())
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.locations.data_folder()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Arc::clone(&self.definitions.read())
    }

    /// Makes changed definitions the catalog's: on disk first, then for everybody. The caller holds `changing`.
    pub(crate) fn commit(&self, definitions: Definitions, touched: &TableName) -> Result<(), CatalogError> {
        self.folder.commit(&definitions)?;
        let mut functions = self.functions.write();
        if functions.definitions != definitions.functions {
            *functions = Arc::new(Functions {
                version: functions.version + 1,
                definitions: definitions.functions.clone(),
            });
        }
        drop(functions);
        *self.definitions.write() = Arc::new(definitions);
        self.tables.lock().remove(touched);
        Ok(())
    }
}
