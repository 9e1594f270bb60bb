//! Delta tables: managed ones, and users' own to read.
//!
//! Opened tables are kept and brought up to date from their logs; a provider is one version's snapshot.

mod deletions;
mod files;
mod statistics;
mod table;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use datafusion::catalog::TableProvider;
use deltalake::delta_datafusion::{DeltaScanConfig, DeltaScanNext};
use deltalake::kernel::EagerSnapshot;
use deltalake::logstore::{
    LogStore, LogStoreFactory, ObjectStoreRef, StorageConfig, default_logstore, logstore_factories,
};
use deltalake::{DeltaResult, DeltaTable, DeltaTableBuilder, DeltaTableError};
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use trireme_exec::io::{Access, StoreOptions};
use trireme_planner::ddl::{FileFormat, TableName, TableVersionRef};
use url::Url;

use crate::catalog::Catalog;
use crate::definitions::External;
use crate::describe::TableKind;
use crate::discover::{Found, FoundKind};
use crate::error::CatalogError;
use crate::files::file_url;
use crate::fileset::{FileSet, Known};
use crate::listing;
use crate::resolve::{Source, no_versions};
use crate::synced::SyncedFiles;
use crate::table::CatalogTable;

pub(crate) use deletions::Deletions;

/// Schemes of stores whose Delta logs are read as plain files.
const REMOTE_SCHEMES: &[&str] = &["s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "http", "https"];

/// Where a Delta table is and how it is reached.
#[derive(Clone)]
struct Place {
    url: Url,
    store: ObjectStoreRef,
}

/// A table that was opened, and the newest entry of its log then.
#[derive(Clone)]
pub(crate) struct Opened {
    table: DeltaTable,
    commit: Option<ObjectMeta>,
}

impl Catalog {
    pub(crate) async fn managed_table(
        &self,
        name: &TableName,
        folder: &str,
    ) -> Result<Arc<dyn TableProvider>, CatalogError> {
        let place = self.managed_place(folder)?;
        let opened = self.newest(name, &place).await?;
        let inner = self.delta_provider(name, &opened.table, &place)?;
        Ok(Arc::new(CatalogTable::managed(
            self,
            name,
            inner,
            Some(folder.to_owned()),
        )))
    }

    pub(crate) async fn discovered_delta(
        &self,
        name: &TableName,
        found: &Found,
    ) -> Result<Arc<dyn TableProvider>, CatalogError> {
        let place = self.discovered_place(found)?;
        let opened = self.newest(name, &place).await?;
        let inner = self.delta_provider(name, &opened.table, &place)?;
        Ok(Arc::new(CatalogTable::files(self, name, TableKind::Discovered, inner)))
    }

    pub(crate) async fn external_delta(
        &self,
        name: &TableName,
        external: &External,
    ) -> Result<Arc<dyn TableProvider>, CatalogError> {
        let place = self.external_place(external)?;
        let opened = self.newest(name, &place).await?;
        let inner = self.delta_provider(name, &opened.table, &place)?;
        Ok(Arc::new(CatalogTable::files(self, name, TableKind::External, inner)))
    }

    /// A table as it was.
    pub(crate) async fn table_version(
        &self,
        name: &TableName,
        source: &Source,
        version: &TableVersionRef,
    ) -> Result<Arc<dyn TableProvider>, CatalogError> {
        let (place, kind) = match source {
            Source::Managed(folder) => (self.managed_place(folder)?, TableKind::Managed),
            Source::Discovered(found) if found.kind == FoundKind::Delta => {
                (self.discovered_place(found)?, TableKind::Discovered)
            }
            Source::External(external) if external.format == FileFormat::Delta => {
                (self.external_place(external)?, TableKind::External)
            }
            Source::View(_) => return Err(no_versions(name, "a view")),
            _ => return Err(no_versions(name, "made of plain files")),
        };
        let newest = self.newest(name, &place).await?.table;
        let table = match version {
            TableVersionRef::Version(number) => at_version(name, newest, *number).await?,
            TableVersionRef::Timestamp(text) => at_timestamp(name, newest, text).await?,
        };
        let inner = self.delta_provider(name, &table, &place)?;
        Ok(match kind {
            TableKind::Managed => Arc::new(CatalogTable::managed(self, name, inner, None)),
            kind => Arc::new(CatalogTable::files(self, name, kind, inner)),
        })
    }

    /// A managed table at its newest version.
    pub(crate) async fn managed_delta(&self, name: &TableName, folder: &str) -> Result<DeltaTable, CatalogError> {
        let place = self.managed_place(folder)?;
        Ok(self.newest(name, &place).await?.table)
    }

    /// What the newest entry of a remote table's log is: another whenever the table is.
    pub(crate) async fn external_delta_state(
        &self,
        name: &TableName,
        external: &External,
    ) -> Result<ObjectMeta, CatalogError> {
        let opened = self.newest(name, &self.external_place(external)?).await?;
        Ok(opened.commit.unwrap_or_else(unknown_state))
    }

    /// A managed table that is about to be created.
    pub(crate) fn new_delta(&self, name: &TableName, folder: &str) -> Result<DeltaTable, CatalogError> {
        let place = self.managed_place(folder)?;
        builder(place)
            .and_then(DeltaTableBuilder::build)
            .map_err(|error| CatalogError::delta(&name.to_string(), error))
    }

    fn managed_place(&self, folder: &str) -> Result<Place, CatalogError> {
        // Not the guarded store: only the catalog itself writes here.
        let url = file_url(&self.folder.table(folder), true)?;
        let store: Arc<dyn ObjectStore> = match self.sync_writes {
            true => Arc::new(SyncedFiles::new()),
            false => Arc::new(LocalFileSystem::new()),
        };
        Ok(Place { url, store })
    }

    fn discovered_place(&self, found: &Found) -> Result<Place, CatalogError> {
        let path = listing::checked(&self.locations, &found.path)?;
        self.local_place(&path)
    }

    fn local_place(&self, path: &Path) -> Result<Place, CatalogError> {
        let url = file_url(path, true)?;
        let store = self.session.runtime_env().object_store_registry.get_store(&url)?;
        Ok(Place { url, store })
    }

    fn external_place(&self, external: &External) -> Result<Place, CatalogError> {
        let location = self.locations.resolve(&external.location, Access::Read)?;
        if let Some(path) = &location.path {
            return self.local_place(path);
        }
        let options = StoreOptions::from_options(location.url.scheme(), &external.options)?;
        let bound = self.stores.bind(&location.url, &options)?;
        let registry = &self.session.runtime_env().object_store_registry;
        let store = registry.get_store(&bound)?;
        Ok(Place { url: bound, store })
    }

    /// The table as it is now. One that was opened before is brought up to date; one that was made anew in the same place,
    /// maybe with the same number of versions, is opened anew.
    async fn newest(&self, name: &TableName, place: &Place) -> Result<Opened, CatalogError> {
        let key = place.url.to_string();
        let failed = |error| CatalogError::delta(&name.to_string(), error);
        let known = self.deltas.lock().get(&key).cloned();
        let opened = match known {
            Some(known) => match newer(place, &known).await.map_err(|error| failed(error.into()))? {
                Newer::Nothing => return Ok(known),
                Newer::Entries => {
                    let mut table = known.table;
                    table.update_state().await.map(|()| table)
                }
                Newer::Table => open(place).await,
            },
            None => open(place).await,
        };
        let table = match opened {
            Ok(table) => table,
            Err(error) => {
                self.deltas.lock().remove(&key);
                return Err(failed(error));
            }
        };
        let commit = entry(place, &table).await;
        let opened = Opened { table, commit };
        self.deltas.lock().insert(key, opened.clone());
        Ok(opened)
    }

    /// Forgets an opened table whose files are being removed.
    pub(crate) fn forget_delta(&self, folder: &str) {
        if let Ok(place) = self.managed_place(folder) {
            self.deltas.lock().remove(place.url.as_str());
        }
    }

    fn delta_provider(
        &self,
        name: &TableName,
        table: &DeltaTable,
        place: &Place,
    ) -> Result<Arc<dyn TableProvider>, CatalogError> {
        let failed = |error| CatalogError::delta(&name.to_string(), error);
        let snapshot = table.snapshot().map_err(failed)?.snapshot().clone();
        // Partition columns keep their declared type: dictionaries would reach clients.
        let config = DeltaScanConfig::new_from_session(self.session.as_ref()).with_wrap_partition_values(false);
        let reader = DeltaScanNext::new(snapshot.clone(), config);
        let reader = reader.map_err(|error| CatalogError::unreadable_delta(&name.to_string(), error))?;
        let files = self.delta_files(&snapshot, &reader, place);
        let files = files
            .inspect_err(|reason| tracing::debug!(%name, reason, "read by the Delta reader"))
            .ok();
        Ok(Arc::new(table::DeltaTable { reader, files }))
    }

    /// The version's files as a set, or why they are none.
    fn delta_files(&self, snapshot: &EagerSnapshot, reader: &DeltaScanNext, place: &Place) -> Result<FileSet, String> {
        let columns = files::Columns::new(snapshot, reader.schema())?;
        let root = object_store::path::Path::from_url_path(place.url.path()).map_err(|error| error.to_string())?;
        let found = columns.files(snapshot, &root)?;
        let deletions = (!found.with_deletions.is_empty()).then(|| {
            let store = Arc::clone(&place.store);
            Box::new(Deletions::new(
                reader.clone(),
                place.url.clone(),
                store,
                found.with_deletions,
            ))
        });
        Ok(FileSet {
            store: place.url.clone(),
            stores: Arc::clone(&self.stores),
            files: found.files,
            table: columns.table(),
            schema: columns.schema,
            positions: columns.positions,
            reader: Arc::new(files::reader(&self.session)),
            known: Known::Log {
                bounds: found.bounds,
                deletions,
            },
            definition: None,
        })
    }
}

/// What became of a table since it was opened.
enum Newer {
    Nothing,
    /// More entries of its log.
    Entries,
    /// It is another one.
    Table,
}

/// Looks at the log behind the entry that was the newest.
async fn newer(place: &Place, known: &Opened) -> object_store::Result<Newer> {
    let (Some(version), Some(commit)) = (known.table.version(), &known.commit) else {
        return Ok(Newer::Table);
    };
    let log = log_folder(place)?;
    // Before all names of this version's entries.
    let before = log.clone().join(format!("{version:020}"));
    let mut entries = place.store.list_with_offset(Some(&log), &before);
    let (mut same, mut more) = (false, false);
    while let Some(entry) = entries.try_next().await? {
        let name = entry.location.filename().unwrap_or_default();
        if let Some(number) = name.strip_suffix(".json").and_then(|number| number.parse::<u64>().ok()) {
            same |= number == version && entry == *commit;
            more |= number > version;
        }
    }
    Ok(match (same, more) {
        (false, _) => Newer::Table,
        (true, true) => Newer::Entries,
        (true, false) => Newer::Nothing,
    })
}

fn log_folder(place: &Place) -> object_store::Result<object_store::path::Path> {
    let root = object_store::path::Path::from_url_path(place.url.path())?;
    Ok(root.join(listing::DELTA_LOG))
}

async fn open(place: &Place) -> DeltaResult<DeltaTable> {
    let mut table = builder(place.clone())?.build()?;
    table.load().await?;
    Ok(table)
}

/// The log's entry of the version that a table is at, if it is still there.
async fn entry(place: &Place, table: &DeltaTable) -> Option<ObjectMeta> {
    let name = format!("{:020}.json", table.version()?);
    let log = log_folder(place).ok()?;
    let before = log.clone().join(name.trim_end_matches(".json"));
    let mut entries = place.store.list_with_offset(Some(&log), &before);
    while let Ok(Some(entry)) = entries.try_next().await {
        if entry.location.filename() == Some(name.as_str()) {
            return Some(entry);
        }
    }
    None
}

fn builder(place: Place) -> DeltaResult<DeltaTableBuilder> {
    Ok(DeltaTableBuilder::from_url(place.url.clone())?.with_storage_backend(place.store, place.url))
}

async fn at_version(name: &TableName, mut table: DeltaTable, version: u64) -> Result<DeltaTable, CatalogError> {
    let newest = table.version().unwrap_or_default();
    if version > newest {
        return Err(CatalogError::invalid_hint(
            format!("table {name} has no version {version}; the newest is {newest}"),
            "versions count from 0 and go up by one with every change",
        ));
    }
    match table.load_version(version).await {
        Ok(()) => Ok(table),
        Err(error) => {
            tracing::debug!(%name, version, %error, "an old version can't be loaded");
            Err(CatalogError::invalid(format!(
                "version {version} of table {name} is not kept any more; the newest is {newest}"
            )))
        }
    }
}

async fn at_timestamp(name: &TableName, mut table: DeltaTable, text: &str) -> Result<DeltaTable, CatalogError> {
    let wanted = parse_timestamp(text).ok_or_else(|| {
        CatalogError::invalid_hint(
            format!("{text} is not a time"),
            "write it as 2024-01-31T12:00:00Z or 2024-01-31 12:00:00 (UTC)",
        )
    })?;
    let failed = |error| CatalogError::delta(&name.to_string(), error);
    table.load_with_datetime(wanted).await.map_err(failed)?;
    let version = table.version().unwrap_or_default();
    let began = commit_time(&table, version).await.map_err(failed)?;
    if began > wanted {
        return Err(CatalogError::invalid(format!(
            "table {name} has no version from {text}; its oldest, {version}, is from {}",
            began.to_rfc3339()
        )));
    }
    Ok(table)
}

async fn commit_time(table: &DeltaTable, version: u64) -> DeltaResult<DateTime<Utc>> {
    let known = table
        .snapshot()?
        .version_timestamp(version)
        .and_then(DateTime::from_timestamp_millis);
    if let Some(time) = known {
        return Ok(time);
    }
    let entry = object_store::path::Path::from(format!("{}/{version:020}.json", listing::DELTA_LOG));
    Ok(table
        .object_store()
        .head(&entry)
        .await
        .map_err(DeltaTableError::from)?
        .last_modified)
}

fn parse_timestamp(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.with_timezone(&Utc));
    }
    let formats = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"];
    if let Some(time) = formats
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
    {
        return Some(time.and_utc());
    }
    NaiveDate::parse_from_str(text, "%Y-%m-%d")
        .ok()?
        .and_hms_opt(0, 0, 0)
        .map(|time| time.and_utc())
}

/// Stands for the state of a table that can't be told: never the same twice.
fn unknown_state() -> ObjectMeta {
    ObjectMeta {
        location: object_store::path::Path::default(),
        last_modified: DateTime::UNIX_EPOCH,
        size: 0,
        e_tag: Some(uuid::Uuid::new_v4().to_string()),
        version: None,
    }
}

/// Reads a Delta log from whatever store is behind it.
#[derive(Debug)]
struct PlainLogStore;

impl LogStoreFactory for PlainLogStore {
    fn with_options(
        &self,
        prefixed_store: ObjectStoreRef,
        root_store: ObjectStoreRef,
        location: &Url,
        options: &StorageConfig,
    ) -> DeltaResult<Arc<dyn LogStore>> {
        Ok(default_logstore(prefixed_store, root_store, location, options))
    }
}

/// Makes the Delta reader accept the schemes of our stores.
pub(crate) fn register_log_stores() {
    let factories = logstore_factories();
    let schemes: HashMap<Url, Arc<dyn LogStoreFactory>> = REMOTE_SCHEMES
        .iter()
        .filter_map(|scheme| Url::parse(&format!("{scheme}://")).ok())
        .map(|url| (url, Arc::new(PlainLogStore) as Arc<dyn LogStoreFactory>))
        .collect();
    for (url, factory) in schemes {
        factories.entry(url).or_insert(factory);
    }
}
