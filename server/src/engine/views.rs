//! Views: their text is planned anew at each use.

use async_trait::async_trait;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use trireme_catalog::ViewPlanner;
use trireme_exec::QueryError;
use trireme_planner::statement::PlannedStatement;
use trireme_planner::{Planned, session};

/// Plans a view's text in the base state, whatever session asks for it.
#[derive(Debug)]
pub(super) struct Views {
    base: SessionState,
}

impl Views {
    /// Over the state that every session starts from.
    pub(super) fn new(base: SessionState) -> Self {
        Self { base }
    }
}

#[async_trait]
impl ViewPlanner for Views {
    async fn plan(&self, schema: &str, sql: &str) -> Result<LogicalPlan, QueryError> {
        let planned = async {
            let state = session::session_state(&self.base, schema, &std::collections::BTreeMap::new())?;
            trireme_planner::plan(&state, sql).await
        };
        match planned.await? {
            PlannedStatement {
                planned: Planned::Rows(plan),
                ..
            } => Ok(plan),
            _ => Err(QueryError::invalid("a view's text is no query")),
        }
    }
}
