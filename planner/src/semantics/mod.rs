//! Brings DataFusion's own operators to Trireme's semantics, which `SEMANTICS.md` states.
//!
//! DataFusion's integer arithmetic and sums wrap, and its decimals may leave their precision. [`analyzer`] replaces such
//! operations in the logical plan, before constants are folded, by [`arithmetic`]'s checked functions and by [`sum`]'s exact
//! sum; operations whose operand types prove that nothing can go wrong stay DataFusion's. The functions' names, types and
//! nullability are those of the operators they stand for, so schemas don't change.

mod absent;
mod analyzer;
mod arithmetic;
mod bounds;
mod carried;
mod correlated;
mod extremes;
mod fallible;
mod filters;
mod floats;
mod intervals;
mod kernels;
mod keys;
mod percentile;
mod plain;
mod predicates;
mod quantified;
mod quotients;
mod ranges;
mod reach;
mod references;
mod scalars;
mod subqueries;
mod sum;
#[cfg(test)]
mod tests;
mod years;

pub(crate) use absent::with_absent_values;
pub use arithmetic::{CheckedOperator, checked_operator};
pub use floats::canonical_floats;
pub(crate) use intervals::{INTERVAL_TIMES, interval_times};
pub(crate) use percentile::percentile_cont;
pub use plain::{plain, plain_aggregate};
pub(crate) use references::is_alone;

use std::sync::Arc;

use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::physical_optimizer::PhysicalOptimizerRule;

use crate::dependencies::Dependencies;

/// The physical rules, with ours that come before all.
pub fn before(
    mut rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>>,
) -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    rules.insert(0, Arc::new(bounds::FloatBounds));
    rules.insert(0, Arc::new(reach::ReachOfScans));
    rules
}

/// Adds the rules to a state that has DataFusion's defaults.
pub fn install(builder: SessionStateBuilder) -> SessionStateBuilder {
    builder
        .with_analyzer_rule(Arc::new(references::References))
        .with_analyzer_rule(Arc::new(predicates::Predicates))
        .with_analyzer_rule(Arc::new(analyzer::Semantics))
        .with_analyzer_rule(Arc::new(quantified::Quantified))
        .with_analyzer_rule(Arc::new(scalars::Scalars))
        .with_analyzer_rule(Arc::new(correlated::Correlated))
        .with_analyzer_rule(Arc::new(subqueries::NullsOfSubqueries))
        .with_analyzer_rule(Arc::new(Dependencies))
        .with_physical_optimizer_rule(Arc::new(reach::Reach))
}
