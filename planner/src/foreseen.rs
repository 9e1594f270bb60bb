//! Our estimates of rows, for DataFusion's own planning.
//!
//! DataFusion 55 asks a registry of providers in one place: where it chooses which side of a join is built. What fragments take
//! over is ordered after that, by the same estimates, and stays so: no rule of DataFusion's comes behind. So the registry is
//! used where DataFusion's operators run (`trireme.cpu_variant = datafusion`, `trireme.device_mode = off`), or where a session
//! sets `datafusion.optimizer.use_statistics_registry`.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::stats::Precision;
use datafusion::common::{Result, Statistics};
use datafusion::physical_plan::operator_statistics::{
    ExtendedStatistics, StatisticsProvider, StatisticsRegistry, StatisticsResult,
};
use datafusion::physical_plan::{ExecutionPlan, PlanProperties};
use parking_lot::Mutex;
use trireme_exec::fused::FragmentRuntime;
use trireme_exec::statistics::cached;

use crate::fragments::{self, JoinOrder};

/// Operators whose estimates are kept: those of a few plans.
const KEPT: usize = 512;
/// Bytes of a value of text.
const TEXT_BYTES: usize = 20;

/// An operator's properties, and its rows if they can be told.
type Known = (Arc<PlanProperties>, Option<f64>);

/// See the module.
pub(crate) struct Foreseen {
    runtime: Arc<FragmentRuntime>,
    /// By the place of an operator's properties, which are held so that nothing else gets that place.
    known: Mutex<HashMap<usize, Known>>,
}

impl Foreseen {
    /// DataFusion's own providers behind ours.
    pub(crate) fn registry(runtime: &Arc<FragmentRuntime>) -> StatisticsRegistry {
        let mut registry = StatisticsRegistry::default_with_builtin_providers();
        registry.register(Arc::new(Self {
            runtime: Arc::clone(runtime),
            known: Mutex::default(),
        }));
        registry
    }

    fn rows(&self, plan: &dyn ExecutionPlan) -> Option<f64> {
        let place = Arc::as_ptr(plan.properties()) as usize;
        if let Some((_, rows)) = self.known.lock().get(&place) {
            return *rows;
        }
        let joins = JoinOrder {
            by_cost: false,
            distinct: &|scan, column| cached::distinct(self.runtime.columns(), scan, column),
            statistics: self.runtime.statistics(),
        };
        let rows = fragments::foreseen(plan, joins);
        let mut known = self.known.lock();
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(place, (Arc::clone(plan.properties()), rows));
        rows
    }
}

impl fmt::Debug for Foreseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Foreseen")
    }
}

impl StatisticsProvider for Foreseen {
    fn compute_statistics(&self, plan: &dyn ExecutionPlan, _: &[ExtendedStatistics]) -> Result<StatisticsResult> {
        let Some(rows) = self.rows(plan) else {
            return Ok(StatisticsResult::Delegate);
        };
        let schema = plan.schema();
        let row_bytes: usize = schema.fields().iter().map(|field| width(field.data_type())).sum();
        let rows = counted(rows);
        Ok(StatisticsResult::Computed(ExtendedStatistics::new(Statistics {
            num_rows: Precision::Inexact(rows),
            total_byte_size: Precision::Inexact(rows.saturating_mul(row_bytes)),
            ..Statistics::new_unknown(&schema)
        })))
    }
}

/// Estimated rows as a count.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a float out of range becomes the largest count"
)]
fn counted(rows: f64) -> usize {
    rows.round().max(1.0) as usize
}

fn width(data_type: &DataType) -> usize {
    data_type.primitive_width().unwrap_or(match data_type {
        DataType::Boolean | DataType::Null => 1,
        _ => TEXT_BYTES,
    })
}
