//! The catalog as DataFusion sees it.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::TableType;
use trireme_planner::ddl::{TableName, split_versioned_name};

use crate::catalog::{Catalog, INFORMATION_SCHEMA, SYSTEM_SCHEMA};
use crate::information_schema;
use crate::resolve::Source;

/// The catalog `trireme`.
#[derive(Debug)]
pub(crate) struct CatalogHandle {
    catalog: Arc<Catalog>,
}

impl CatalogHandle {
    pub(crate) fn new(catalog: Arc<Catalog>) -> Self {
        Self { catalog }
    }
}

impl CatalogProvider for CatalogHandle {
    fn schema_names(&self) -> Vec<String> {
        self.catalog.schemas()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match name {
            INFORMATION_SCHEMA => Some(information_schema::provider(Arc::clone(&self.catalog))),
            SYSTEM_SCHEMA => self.catalog.system.read().clone(),
            _ if self.catalog.schema_exists(name) => Some(Arc::new(SchemaHandle::new(Arc::clone(&self.catalog), name))),
            _ => None,
        }
    }
}

/// One schema of defined and discovered tables.
#[derive(Debug)]
pub(crate) struct SchemaHandle {
    catalog: Arc<Catalog>,
    schema: String,
}

impl SchemaHandle {
    pub(crate) fn new(catalog: Arc<Catalog>, schema: &str) -> Self {
        Self {
            catalog,
            schema: schema.to_owned(),
        }
    }

    fn name(&self, table: &str) -> TableName {
        TableName {
            schema: self.schema.clone(),
            table: table.to_owned(),
        }
    }
}

#[async_trait]
impl SchemaProvider for SchemaHandle {
    fn table_names(&self) -> Vec<String> {
        self.catalog.table_names(&self.schema)
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let (table, version) = split_versioned_name(name);
        Ok(self.catalog.table(&self.name(table), version.as_ref()).await?)
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        let (table, _) = split_versioned_name(name);
        Ok(match self.catalog.source(&self.name(table)) {
            Ok(None) => None,
            Ok(Some(Source::View(_))) => Some(TableType::View),
            // A name that several files claim is listed; using it says why it can't be.
            Ok(Some(_)) | Err(_) => Some(TableType::Base),
        })
    }

    fn table_exist(&self, name: &str) -> bool {
        let (table, _) = split_versioned_name(name);
        !matches!(self.catalog.source(&self.name(table)), Ok(None))
    }
}
