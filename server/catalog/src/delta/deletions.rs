//! Deletion vectors: rows of files that are no longer there, as row selections of their scans.
//!
//! They are read when a scan needs them, and kept with the table's version.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::catalog::Session;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetRowSelection;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, SessionStateBuilder};
use deltalake::delta_datafusion::{DeltaScanNext, FileSelection, MissingSelectedFilePolicy};
use object_store::ObjectStore;
use object_store::path::Path;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use url::Url;

/// Runs of kept and deleted rows that are kept in memory for a table; what is beyond is read again.
const RUNS_MAX: usize = 4 << 20;

/// Those of one version of a table.
pub(crate) struct Deletions {
    table: DeltaScanNext,
    root: Url,
    store: Arc<dyn ObjectStore>,
    /// Rows of the files that have a vector, deleted ones among them.
    rows: HashMap<Path, u64>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    runs: usize,
    selections: HashMap<Path, RowSelection>,
}

impl Deletions {
    /// Of the table at `root`; `rows` has the files with vectors.
    pub(super) fn new(table: DeltaScanNext, root: Url, store: Arc<dyn ObjectStore>, rows: HashMap<Path, u64>) -> Self {
        Self {
            table,
            root,
            store,
            rows,
            known: Mutex::default(),
        }
    }

    /// Makes the files be read without their deleted rows.
    pub(crate) async fn attach(&self, state: &dyn Session, files: &mut [PartitionedFile]) -> Result<()> {
        let has = |file: &&PartitionedFile| self.rows.contains_key(&file.object_meta.location);
        let wanted: Vec<Path> = files
            .iter()
            .filter(has)
            .map(|file| file.object_meta.location.clone())
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let selections = self.selections(state, wanted).await?;
        for file in files {
            let location = &file.object_meta.location;
            if !self.rows.contains_key(location) {
                continue;
            }
            let missing = || DataFusionError::Execution(format!("the deletion vector of {location} can't be read"));
            let selection = selections.get(location).ok_or_else(missing)?.clone();
            file.extensions.insert(ParquetRowSelection::new(selection));
        }
        Ok(())
    }

    async fn selections(&self, state: &dyn Session, wanted: Vec<Path>) -> Result<HashMap<Path, RowSelection>> {
        let mut found = HashMap::with_capacity(wanted.len());
        let mut missing = Vec::new();
        {
            let known = self.known.lock();
            for path in wanted {
                match known.selections.get(&path) {
                    Some(selection) => {
                        found.insert(path, selection.clone());
                    }
                    None => missing.push(path),
                }
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        let session = self.session(state)?;
        let urls = missing.iter().map(|path| {
            let mut url = self.root.clone();
            url.set_path(&format!("/{}", path.as_ref().replace('%', "%25")));
            url.to_string()
        });
        let selected = FileSelection::from_file_paths(urls).with_missing_file_policy(MissingSelectedFilePolicy::Ignore);
        let table = self.table.clone().with_file_selection(selected);
        let mut vectors = table.deletion_vectors(&session).await?;
        if vectors.len() < missing.len() {
            // Names that the log spells in another way.
            vectors = self.table.deletion_vectors(&session).await?;
        }
        for vector in vectors {
            let url = Url::parse(&vector.filepath).map_err(|error| DataFusionError::External(Box::new(error)))?;
            let path = Path::from_url_path(url.path())?;
            let selection = selection(&vector.keep_mask, self.rows.get(&path).copied());
            self.keep(&path, &selection);
            found.insert(path, selection);
        }
        Ok(found)
    }

    fn keep(&self, path: &Path, selection: &RowSelection) {
        let runs = selection.iter().count();
        let mut known = self.known.lock();
        if known.runs + runs <= RUNS_MAX {
            known.runs += runs;
            known.selections.insert(path.clone(), selection.clone());
        }
    }

    /// A session whose only store is the table's: the reader looks stores up by bucket alone, whatever the table's options.
    fn session(&self, state: &dyn Session) -> Result<SessionState> {
        let stores = Arc::new(DefaultObjectStoreRegistry::new());
        stores.register_store(&self.root, Arc::clone(&self.store));
        let runtime = RuntimeEnvBuilder::new()
            .with_object_store_registry(stores)
            .build_arc()?;
        let state = state.as_any().downcast_ref::<SessionState>();
        let state = state.ok_or_else(|| DataFusionError::Internal("a session of another kind".to_owned()))?;
        Ok(SessionStateBuilder::new_from_existing(state.clone())
            .with_runtime_env(runtime)
            .build())
    }
}

/// A mask as runs of rows. Rows behind its end are kept.
fn selection(keep: &[bool], rows: Option<u64>) -> RowSelection {
    let mut runs: Vec<RowSelector> = Vec::new();
    for chunk in keep.chunk_by(|left, right| left == right) {
        runs.push(match chunk.first() {
            Some(true) => RowSelector::select(chunk.len()),
            _ => RowSelector::skip(chunk.len()),
        });
    }
    let rows = rows.and_then(|rows| usize::try_from(rows).ok()).unwrap_or(keep.len());
    if rows > keep.len() {
        runs.push(RowSelector::select(rows - keep.len()));
    }
    runs.into()
}
