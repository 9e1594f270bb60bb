//! The catalog as a server uses it: SQL in, DDL in, files changed from outside, restarts.

mod discovered;
mod managed;
mod remote;
mod views_and_schemas;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use async_trait::async_trait;
use datafusion::execution::SessionState;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use trireme_exec::QueryError;
use trireme_exec::io::{self, LakeOptions, Locations, StoreRegistry};
use trireme_planner::ddl::{Ddl, ExternalTable, FileFormat, IfExists, ManagedSource, TableName};

use crate::{Applied, CATALOG_NAME, Catalog, CatalogError, CatalogOptions, DEFAULT_SCHEMA, ViewPlanner};

/// A data folder and the catalog on it.
struct Lake {
    folder: tempfile::TempDir,
    allowed: Vec<String>,
    catalog: Option<Arc<Catalog>>,
}

/// Plans views with plain DataFusion.
#[derive(Debug)]
struct Planner(std::sync::Weak<Catalog>);

#[async_trait]
impl ViewPlanner for Planner {
    async fn plan(&self, schema: &str, sql: &str) -> Result<LogicalPlan, QueryError> {
        let context = context(&self.0.upgrade().unwrap(), schema);
        Ok(context.state().create_logical_plan(sql).await?)
    }
}

fn context(catalog: &Arc<Catalog>, schema: &str) -> SessionContext {
    let config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG_NAME, schema)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(false)
        .with_target_partitions(2);
    let context = SessionContext::new_with_config_rt(config, Arc::clone(catalog.session.runtime_env()));
    context.register_catalog(CATALOG_NAME, catalog.provider());
    context
}

impl Lake {
    async fn new() -> Self {
        Self::allowing(&[]).await
    }

    async fn allowing(allowed: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut lake = Self {
            folder,
            allowed: allowed.iter().map(|text| (*text).to_owned()).collect(),
            catalog: None,
        };
        lake.open().await.unwrap();
        lake
    }

    async fn open(&mut self) -> Result<(), CatalogError> {
        let locations = Arc::new(Locations::new(self.folder.path(), &self.allowed).unwrap());
        let stores = Arc::new(StoreRegistry::new(
            Arc::clone(&locations),
            io::Lake::new(LakeOptions::default()),
        ));
        let runtime = RuntimeEnvBuilder::new()
            .with_object_store_registry(Arc::clone(&stores) as Arc<_>)
            .with_object_list_cache_limit(0)
            .build_arc()
            .unwrap();
        let catalog = Catalog::open(CatalogOptions {
            data_dir: self.folder.path().to_owned(),
            refresh_interval: Duration::ZERO,
            plan_ahead: true,
            sync_writes: true,
            locations,
            stores,
            runtime,
            secrets_key: None,
            session_config: SessionConfig::new(),
        })
        .await?;
        catalog.set_planner(Arc::new(Planner(Arc::downgrade(&catalog))));
        self.catalog = Some(catalog);
        Ok(())
    }

    async fn restart(&mut self) {
        self.catalog = None;
        self.open().await.unwrap();
    }

    fn catalog(&self) -> &Arc<Catalog> {
        self.catalog.as_ref().unwrap()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn write_parquet(&self, name: &str, batch: &RecordBatch) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = std::fs::File::create(path).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
    }

    fn session(&self) -> Arc<SessionState> {
        Arc::new(context(self.catalog(), DEFAULT_SCHEMA).state())
    }

    async fn try_sql(&self, sql: &str) -> Result<Vec<RecordBatch>, QueryError> {
        let context = context(self.catalog(), DEFAULT_SCHEMA);
        Ok(context.sql(sql).await?.collect().await?)
    }

    async fn sql(&self, sql: &str) -> String {
        let batches = self.try_sql(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        rows(&batches)
    }

    async fn error(&self, sql: &str) -> String {
        self.try_sql(sql)
            .await
            .map(|batches| rows(&batches))
            .unwrap_err()
            .to_string()
    }

    async fn plan(&self, sql: &str) -> LogicalPlan {
        context(self.catalog(), DEFAULT_SCHEMA)
            .state()
            .create_logical_plan(sql)
            .await
            .unwrap()
    }

    async fn apply(&self, ddl: Ddl) -> Result<Applied, CatalogError> {
        self.catalog().apply(self.session(), ddl).await
    }

    async fn create_as(&self, table: &str, query: &str) -> Result<Applied, CatalogError> {
        let source = ManagedSource::Query(Box::new(self.plan(query).await));
        self.apply(create(table, source, IfExists::Fail)).await
    }
}

fn create(table: &str, source: ManagedSource, if_exists: IfExists) -> Ddl {
    Ddl::CreateTable {
        name: name(table),
        source,
        keys: vec![],
        partition_columns: vec![],
        if_exists,
    }
}

fn name(text: &str) -> TableName {
    let (schema, table) = text.split_once('.').unwrap_or((DEFAULT_SCHEMA, text));
    TableName {
        schema: schema.to_owned(),
        table: table.to_owned(),
    }
}

fn external(table: &str, format: FileFormat, location: &str, options: &[(&str, &str)]) -> ExternalTable {
    ExternalTable {
        name: name(table),
        columns: None,
        format,
        location: location.to_owned(),
        partition_columns: vec![],
        options: options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        keys: vec![],
        sql: format!("CREATE EXTERNAL TABLE {table} …"),
    }
}

/// One line per row, values separated by spaces.
fn rows(batches: &[RecordBatch]) -> String {
    let table = pretty_format_batches(batches).unwrap().to_string();
    let lines = table.lines().filter(|line| line.starts_with('|')).skip(1);
    lines
        .map(|line| {
            line.split('|')
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn tables_on_disk(folder: &Path) -> usize {
    std::fs::read_dir(folder.join(".trireme/tables")).unwrap().count()
}
