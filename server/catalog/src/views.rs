//! Views: a stored SELECT, planned anew at each use, so that it follows its tables.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::datasource::ViewTable;
use datafusion::logical_expr::LogicalPlan;
use trireme_exec::QueryError;
use trireme_planner::ddl::TableName;

use crate::catalog::Catalog;
use crate::definitions::View;
use crate::error::CatalogError;

/// Views in views.
const DEPTH_MAX: usize = 32;

/// Plans the SELECT of a view; the room that owns SQL implements it.
#[async_trait]
pub trait ViewPlanner: Send + Sync + std::fmt::Debug {
    /// Plans `sql`, looking unqualified names up in `schema`.
    async fn plan(&self, schema: &str, sql: &str) -> Result<LogicalPlan, QueryError>;
}

tokio::task_local! {
    /// The views that are being planned, outermost first: planning one inside itself is a circle.
    static PLANNING: Vec<TableName>;
}

impl Catalog {
    /// Plans a view as a table.
    pub(crate) async fn view(&self, name: &TableName, view: &View) -> Result<Arc<dyn TableProvider>, CatalogError> {
        let planner = self
            .planner
            .get()
            .ok_or_else(|| CatalogError::invalid("views can't be planned yet"))?;
        let mut stack = PLANNING.try_with(Clone::clone).unwrap_or_default();
        if stack.contains(name) {
            let circle: Vec<String> = stack.iter().map(TableName::to_string).collect();
            return Err(CatalogError::invalid_hint(
                format!("view {name} refers to itself (by way of {})", circle.join(", ")),
                "drop one of the views, or let it select from tables",
            ));
        }
        if stack.len() >= DEPTH_MAX {
            return Err(CatalogError::invalid(format!(
                "view {name} is more than {DEPTH_MAX} views deep"
            )));
        }
        stack.push(name.clone());
        let planned = PLANNING
            .scope(stack, planner.plan(&view.search_schema, &view.sql))
            .await;
        let plan = planned.map_err(|error| match &error.detail {
            Some(_) => error,
            None => error.with_detail(format!("while planning view {name}")),
        })?;
        Ok(Arc::new(ViewTable::new(plan, Some(view.sql.clone()))))
    }
}
