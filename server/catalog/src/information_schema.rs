//! `information_schema`: DataFusion's own views over a lenient look at the catalog.
//!
//! Lenient: a table that can't be read keeps its row in `tables` and has none in `columns`; one damaged file must not make
//! the listing fail.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::information_schema::InformationSchemaProvider;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::TableType;

use crate::catalog::{CATALOG_NAME, Catalog};
use crate::provider::CatalogHandle;

/// The schema `information_schema`.
pub(crate) fn provider(catalog: Arc<Catalog>) -> Arc<dyn SchemaProvider> {
    Arc::new(InformationSchemaProvider::new(Arc::new(LenientList { catalog })))
}

#[derive(Debug)]
struct LenientList {
    catalog: Arc<Catalog>,
}

impl CatalogProviderList for LenientList {
    fn register_catalog(&self, _name: String, _catalog: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG_NAME.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        let handle = CatalogHandle::new(Arc::clone(&self.catalog));
        (name == CATALOG_NAME).then(|| Arc::new(LenientCatalog { handle }) as Arc<dyn CatalogProvider>)
    }
}

#[derive(Debug)]
struct LenientCatalog {
    handle: CatalogHandle,
}

impl CatalogProvider for LenientCatalog {
    fn schema_names(&self) -> Vec<String> {
        self.handle.schema_names()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let schema = self.handle.schema(name)?;
        Some(Arc::new(LenientSchema { schema }))
    }
}

#[derive(Debug)]
struct LenientSchema {
    schema: Arc<dyn SchemaProvider>,
}

#[async_trait]
impl SchemaProvider for LenientSchema {
    fn table_names(&self) -> Vec<String> {
        self.schema.table_names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        match self.schema.table(name).await {
            Ok(table) => Ok(table),
            Err(error) => {
                tracing::debug!(table = name, %error, "left out of a listing of columns");
                Ok(None)
            }
        }
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        Ok(self.schema.table_type(name).await.unwrap_or(Some(TableType::Base)))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.schema.table_exist(name)
    }
}
