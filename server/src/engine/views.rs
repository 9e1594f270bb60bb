//! Views: their text is planned anew at each use.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::logical_expr::LogicalPlan;
use trireme_catalog::ViewPlanner;
use trireme_exec::QueryError;

use super::states::States;

/// Plans a view's text in the base state, whatever session asks for it.
#[derive(Debug)]
pub(super) struct Views {
    states: Arc<States>,
}

impl Views {
    /// Over the states that sessions are made from.
    pub(super) fn new(states: Arc<States>) -> Self {
        Self { states }
    }
}

#[async_trait]
impl ViewPlanner for Views {
    async fn plan(&self, schema: &str, sql: &str) -> Result<LogicalPlan, QueryError> {
        let functions = self.states.functions();
        let state = self.states.session(schema, &BTreeMap::new(), &functions)?;
        trireme_planner::plan_view(&state, sql).await
    }
}
