//! DDL: what each statement checks, writes and commits.
//!
//! Rows are written before the name is taken, outside the lock; the lock covers the last look at the name and the commit.

use std::path::PathBuf;
use std::sync::Arc;

use datafusion::execution::SessionState;
use trireme_planner::ddl::{Ddl, ExternalTable, FileFormat, IfExists, Key, ManagedSource, TableName};
use uuid::Uuid;

use crate::catalog::{Applied, Catalog, DEFAULT_SCHEMA, INFORMATION_SCHEMA, SYSTEM_SCHEMA};
use crate::definitions::{Definition, External, View};
use crate::discover;
use crate::error::CatalogError;
use crate::functions;
use crate::ingest;
use crate::names::nearest;
use crate::resolve::{Source, canonical};

pub(crate) const DONE: Applied = Applied { rows: None };

impl Catalog {
    /// Carries out one change.
    ///
    /// # Errors
    /// Any [`CatalogError`]; the definitions and all tables are then as before.
    pub async fn apply(&self, session: Arc<SessionState>, ddl: Ddl) -> Result<Applied, CatalogError> {
        match ddl {
            Ddl::CreateExternalTable { table, if_exists } => self.create_external(table, if_exists).await,
            Ddl::CreateTable {
                name,
                source,
                keys,
                partition_columns,
                if_exists,
            } => {
                self.create_table(&session, name, source, keys, partition_columns, if_exists)
                    .await
            }
            Ddl::CreateView {
                name,
                query_sql,
                plan: _,
                if_exists,
            } => {
                let search_schema = session.config_options().catalog.default_schema.clone();
                self.create_view(
                    name,
                    View {
                        sql: query_sql,
                        search_schema,
                    },
                    if_exists,
                )
                .await
            }
            Ddl::CreateSchema { name, if_exists } => self.create_schema(name, if_exists).await,
            Ddl::DropTable { name, missing_ok } => self.drop_table(name, missing_ok).await,
            Ddl::DropView { name, missing_ok } => self.drop_view(name, missing_ok).await,
            Ddl::DropSchema {
                name,
                missing_ok,
                cascade,
            } => self.drop_schema(name, missing_ok, cascade).await,
            Ddl::CreateFunction {
                name,
                definition,
                if_exists,
            } => self.create_function(&name, definition, if_exists).await,
            Ddl::DropFunction { name, missing_ok } => self.drop_function(&name, missing_ok).await,
            Ddl::CreateSecret { definition, if_exists } => self.create_secret(*definition, if_exists).await,
            Ddl::DropSecret { name, missing_ok } => self.drop_secret(&name, missing_ok).await,
            Ddl::AddKey { name, key } => self.add_key(name, key).await,
            Ddl::Analyze { name } => self.analyze(&session, &name).await,
            Ddl::PinPlacement { schema, shape, pinned } => self.pin(schema, shape, pinned).await,
            Ddl::UnpinPlacement { schema, shape } => self.unpin(&schema, &shape).await,
        }
    }

    async fn create_external(&self, table: ExternalTable, if_exists: IfExists) -> Result<Applied, CatalogError> {
        if self.keeps(&table.name, if_exists, false)? {
            return Ok(DONE);
        }
        let external = External::new(&table)?;
        let is_parquet = table.format == FileFormat::Parquet;
        let source = Source::External(external.clone());
        let listing = self.listing(&table.name, &source).await?;
        let provider = self.external_table(&table.name, &external, &listing).await?;
        self.check_keys(&table.name, &provider.schema(), &table.keys).await?;
        let (keys, definition) = (table.keys, Definition::External(external));
        let is_new = self.define(&table.name, definition, keys, if_exists).await?;
        if is_new && is_parquet {
            self.sketch_registered(&table.name);
        }
        Ok(DONE)
    }

    async fn create_table(
        &self,
        session: &SessionState,
        name: TableName,
        source: ManagedSource,
        keys: Vec<Key>,
        partition_columns: Vec<String>,
        if_exists: IfExists,
    ) -> Result<Applied, CatalogError> {
        if self.keeps(&name, if_exists, false)? {
            return Ok(DONE);
        }
        let (rows, is_query) = match &source {
            ManagedSource::Columns(columns) => (ingest::empty(columns)?, false),
            ManagedSource::Query(query) => (ingest::converted(session, query, &partition_columns).await?, true),
        };
        let schema = Arc::clone(rows.plan.schema().inner());
        self.check_keys(&name, &schema, &keys).await?;
        for column in &partition_columns {
            column_exists(&schema, column)?;
        }
        if partition_columns.len() == schema.fields().len() {
            return Err(CatalogError::invalid(
                "a table needs a column that it is not partitioned by",
            ));
        }
        let folder = Uuid::new_v4().simple().to_string();
        let unfinished = Unfinished {
            path: Some(self.folder.table(&folder)),
        };
        std::fs::create_dir_all(self.folder.table(&folder)).map_err(CatalogError::io(self.folder.table(&folder)))?;
        let written = self.write_new(session, &name, &folder, rows, partition_columns).await?;
        if self
            .define(&name, Definition::Managed { folder }, keys, if_exists)
            .await?
        {
            unfinished.keep();
        }
        Ok(Applied {
            rows: is_query.then_some(written),
        })
    }

    async fn create_view(&self, name: TableName, view: View, if_exists: IfExists) -> Result<Applied, CatalogError> {
        if self.keeps(&name, if_exists, true)? {
            return Ok(DONE);
        }
        // Planning it under its own name finds circles.
        let planned = self.view(&name, &view).await?;
        ingest_names(&planned.schema())?;
        self.define(&name, Definition::View(view), Vec::new(), if_exists)
            .await?;
        Ok(DONE)
    }

    async fn create_schema(&self, name: String, if_exists: IfExists) -> Result<Applied, CatalogError> {
        let _changing = self.changing.lock().await;
        if self.schema_exists(&name) || name == SYSTEM_SCHEMA {
            return match if_exists {
                IfExists::Keep => Ok(DONE),
                IfExists::Fail | IfExists::Replace => Err(CatalogError::AlreadyExists { what: "schema", name }),
            };
        }
        if name.is_empty() {
            return Err(CatalogError::invalid("a schema needs a name"));
        }
        let mut definitions = (*self.snapshot()).clone();
        definitions.schemas.insert(name.clone());
        self.commit(
            definitions,
            &TableName {
                schema: name,
                table: String::new(),
            },
        )?;
        Ok(DONE)
    }

    async fn drop_table(&self, name: TableName, missing_ok: bool) -> Result<Applied, CatalogError> {
        let _changing = self.changing.lock().await;
        match self.source(&name) {
            Ok(Some(Source::Managed(_) | Source::External(_))) => self.undefine(&name),
            Ok(Some(Source::View(_))) => Err(CatalogError::invalid_hint(
                format!("{name} is a view"),
                format!("use DROP VIEW {name}"),
            )),
            Ok(Some(Source::Discovered(_))) | Err(_) => Err(CatalogError::ReadOnly {
                name: format!("table {name}"),
                reason: "it is a file or folder of the data folder",
            }),
            Ok(None) if missing_ok => Ok(DONE),
            Ok(None) => Err(self.not_found("table", &name)),
        }
    }

    async fn drop_view(&self, name: TableName, missing_ok: bool) -> Result<Applied, CatalogError> {
        let _changing = self.changing.lock().await;
        match self.source(&name)? {
            Some(Source::View(_)) => self.undefine(&name),
            Some(_) => Err(CatalogError::invalid_hint(
                format!("{name} is a table, not a view"),
                format!("use DROP TABLE {name}"),
            )),
            None if missing_ok => Ok(DONE),
            None => Err(self.not_found("view", &name)),
        }
    }

    async fn drop_schema(&self, name: String, missing_ok: bool, cascade: bool) -> Result<Applied, CatalogError> {
        let _changing = self.changing.lock().await;
        let mut definitions = (*self.snapshot()).clone();
        if [DEFAULT_SCHEMA, INFORMATION_SCHEMA, SYSTEM_SCHEMA].contains(&name.as_str()) {
            return Err(CatalogError::ReadOnly {
                name: format!("schema {name}"),
                reason: "it is a part of the server",
            });
        }
        if discover::schema_folder(self.data_dir(), &name).is_some() {
            return Err(CatalogError::ReadOnly {
                name: format!("schema {name}"),
                reason: "it is a folder of the data folder",
            });
        }
        if !definitions.schemas.remove(&name) {
            return if missing_ok {
                Ok(DONE)
            } else {
                Err(self.no_schema(&name))
            };
        }
        let tables = definitions.tables.remove(&name).unwrap_or_default();
        let functions = definitions.functions.remove(&name).unwrap_or_default();
        if !cascade && let Some(first) = tables.keys().chain(functions.keys()).next() {
            let content = if tables.is_empty() {
                functions::count(functions.len())
            } else {
                count(tables.len())
            };
            return Err(CatalogError::invalid_hint(
                format!("schema {name} is not empty: it has {content} ({first}, for example)"),
                format!("drop what is in it first, or use DROP SCHEMA {name} CASCADE"),
            ));
        }
        definitions.keys.remove(&name);
        self.commit(
            definitions,
            &TableName {
                schema: name.clone(),
                table: String::new(),
            },
        )?;
        self.tables.lock().retain(|table, _| table.schema != name);
        self.forget_statistics(|table| table.schema == name);
        for definition in tables.values() {
            self.remove_files(definition);
        }
        Ok(DONE)
    }

    async fn add_key(&self, name: TableName, key: Key) -> Result<Applied, CatalogError> {
        let Some(source) = self.source(&name)? else {
            return Err(self.not_found("table", &name));
        };
        let Some(table) = self.table(&name, None).await? else {
            return Err(self.not_found("table", &name));
        };
        let name = canonical(&name, &source);
        self.check_keys(&name, &table.schema(), std::slice::from_ref(&key))
            .await?;
        let _changing = self.changing.lock().await;
        let mut definitions = (*self.snapshot()).clone();
        let mut keys = definitions.keys(&name).to_vec();
        let primary = |key: &Key| matches!(key, Key::Primary { .. });
        if primary(&key) && keys.iter().any(primary) {
            return Err(CatalogError::invalid(format!("table {name} has a primary key already")));
        }
        keys.push(key);
        definitions.set_keys(&name, keys);
        self.commit(definitions, &name)?;
        Ok(DONE)
    }

    /// Whether `IF NOT EXISTS` ends the statement here; an error when the name can't be taken.
    fn keeps(&self, name: &TableName, if_exists: IfExists, view: bool) -> Result<bool, CatalogError> {
        if [INFORMATION_SCHEMA, SYSTEM_SCHEMA].contains(&name.schema.as_str()) {
            return Err(CatalogError::ReadOnly {
                name: format!("schema {}", name.schema),
                reason: "it is a part of the server",
            });
        }
        if !self.schema_exists(&name.schema) {
            return Err(self.no_schema(&name.schema));
        }
        if name.table.is_empty() || name.table.contains(trireme_planner::ddl::VERSION_MARK) {
            return Err(CatalogError::invalid("a table needs a name"));
        }
        // Several files with one name also have the name.
        let taken = match self.source(name) {
            Ok(None) => return Ok(false),
            Ok(Some(source)) => source,
            Err(_) => {
                return Err(CatalogError::AlreadyExists {
                    what: "table",
                    name: name.to_string(),
                });
            }
        };
        let replaceable = match &taken {
            Source::View(_) => view,
            Source::Managed(_) | Source::External(_) => !view,
            Source::Discovered(_) => false,
        };
        match if_exists {
            IfExists::Keep => Ok(true),
            IfExists::Replace if replaceable => Ok(false),
            IfExists::Replace | IfExists::Fail => Err(CatalogError::AlreadyExists {
                what: taken.what(),
                name: name.to_string(),
            }),
        }
    }

    /// Takes the name: the last look at it, the commit, and the removal of what was replaced. False when somebody took the
    /// name meanwhile and `IF NOT EXISTS` keeps that.
    async fn define(
        &self,
        name: &TableName,
        definition: Definition,
        keys: Vec<Key>,
        if_exists: IfExists,
    ) -> Result<bool, CatalogError> {
        let _changing = self.changing.lock().await;
        let is_view = matches!(definition, Definition::View(_));
        if self.keeps(name, if_exists, is_view)? {
            return Ok(false);
        }
        let mut definitions = (*self.snapshot()).clone();
        let replaced = definitions.remove_table(name);
        definitions.set_table(name, definition);
        definitions.set_keys(name, keys);
        self.commit(definitions, name)?;
        if let Some(replaced) = replaced {
            self.remove_files(&replaced);
        }
        Ok(true)
    }

    /// The caller holds `changing`.
    fn undefine(&self, name: &TableName) -> Result<Applied, CatalogError> {
        let mut definitions = (*self.snapshot()).clone();
        let removed = definitions.remove_table(name);
        self.commit(definitions, name)?;
        self.forget_statistics(|table| table == name);
        if let Some(definition) = removed {
            self.remove_files(&definition);
        }
        Ok(DONE)
    }

    /// Removes a managed table's files after its definition is gone, once nobody reads them.
    fn remove_files(&self, definition: &Definition) {
        let Definition::Managed { folder } = definition else {
            return;
        };
        self.forget_delta(folder);
        self.leases.remove(self.folder.table(folder));
    }

    pub(crate) fn no_schema(&self, name: &str) -> CatalogError {
        CatalogError::NotFound {
            what: "schema",
            name: name.to_owned(),
            candidates: nearest(name, self.schemas()),
        }
    }

    async fn check_keys(
        &self,
        name: &TableName,
        schema: &arrow::datatypes::Schema,
        keys: &[Key],
    ) -> Result<(), CatalogError> {
        if keys.iter().filter(|key| matches!(key, Key::Primary { .. })).count() > 1 {
            return Err(CatalogError::invalid(format!(
                "table {name} can have one primary key only"
            )));
        }
        for key in keys {
            match key {
                Key::Primary { columns, .. } => columns.iter().try_for_each(|column| column_exists(schema, column))?,
                Key::Foreign {
                    columns,
                    references,
                    referenced_columns,
                    ..
                } => {
                    columns.iter().try_for_each(|column| column_exists(schema, column))?;
                    if !referenced_columns.is_empty() && referenced_columns.len() != columns.len() {
                        return Err(CatalogError::invalid(
                            "a foreign key refers to as many columns as it has",
                        ));
                    }
                    if references == name {
                        referenced_columns
                            .iter()
                            .try_for_each(|column| column_exists(schema, column))?;
                        continue;
                    }
                    let Some(other) = Box::pin(self.table(references, None)).await? else {
                        return Err(self.not_found("table", references));
                    };
                    referenced_columns
                        .iter()
                        .try_for_each(|column| column_exists(&other.schema(), column))?;
                }
            }
        }
        Ok(())
    }
}

fn count(tables: usize) -> String {
    if tables == 1 {
        "one table or view".to_owned()
    } else {
        format!("{tables} tables and views")
    }
}

fn column_exists(schema: &arrow::datatypes::Schema, column: &str) -> Result<(), CatalogError> {
    if schema.field_with_name(column).is_ok() {
        return Ok(());
    }
    let candidates = nearest(column, schema.fields().iter().map(|field| field.name().clone()));
    Err(CatalogError::NotFound {
        what: "column",
        name: column.to_owned(),
        candidates,
    })
}

/// Columns of a view can be named only when their names differ.
fn ingest_names(schema: &arrow::datatypes::Schema) -> Result<(), CatalogError> {
    let mut names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
    names.sort();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(CatalogError::invalid_hint(
            format!("column {} appears twice", pair[0]),
            "give each column a name of its own with AS",
        )),
        None => Ok(()),
    }
}

/// A managed table's folder until its definition is committed: a statement that fails or is cancelled takes it along.
struct Unfinished {
    path: Option<PathBuf>,
}

impl Unfinished {
    fn keep(mut self) {
        self.path = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && let Err(error) = std::fs::remove_dir_all(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "an unfinished table's files can't be removed; the next start will try again");
        }
    }
}
