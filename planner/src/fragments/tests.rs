//! Physical plans made from SQL over small Parquet files, as graphs.

mod operators;
mod refusals;
mod run;
mod statistics;
mod tables;
mod tpch;
mod valid;

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use trireme_exec::statistics::Statistics;

use super::{JoinOrder, Lowered, Outcome, explain, lower};

static STATISTICS: LazyLock<Arc<Statistics>> = LazyLock::new(Arc::default);

fn joins() -> JoinOrder<'static> {
    JoinOrder {
        by_cost: true,
        distinct: &|_, _| None,
        statistics: &STATISTICS,
    }
}

async fn plan(context: &SessionContext, sql: &str) -> Arc<dyn ExecutionPlan> {
    let planned = async { context.sql(sql).await?.create_physical_plan().await };
    planned.await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// The graph, checked.
fn fused(plan: &Arc<dyn ExecutionPlan>) -> Result<Lowered, String> {
    match lower(plan) {
        Outcome::Fused(lowered) => {
            valid::check(&lowered.graph, plan.schema().as_ref());
            assert_eq!(lowered.graph.scans.len(), lowered.scans.len());
            assert_eq!(lowered.graph.streams.len(), lowered.streams.len());
            for (fields, stream) in lowered.graph.streams.iter().zip(&lowered.streams) {
                let schema = stream.schema();
                assert_eq!(fields.len(), schema.fields().len());
                for (field, column) in fields.iter().zip(schema.fields()) {
                    assert_eq!(&field.data_type.to_arrow(), column.data_type());
                }
            }
            Ok(*lowered)
        }
        Outcome::Refused { reason } => Err(reason),
    }
}

/// The graph's lines, or why there is none.
fn shown(plan: &Arc<dyn ExecutionPlan>) -> String {
    match fused(plan) {
        Ok(lowered) => {
            let mut text = explain::lines(&lowered.graph).join("\n");
            for stream in &lowered.streams {
                let _ = write!(text, "\nstream {}", stream.name());
            }
            text
        }
        Err(reason) => format!("refused: {reason}"),
    }
}
