//! From DataFusion's physical plan to graphs of fragments.
//!
//! ```text
//!  ExecutionPlan ──lower──▶ Tree of relations ──order──▶ joins anew ──needs, emit──▶ Graph, scans, streams
//!                             what can't: a stream, with its reason
//! ```
//!
//! [`rewrite`] walks a plan from its root and replaces each largest part that can be lowered. It decides nothing by cost:
//! its caller accepts or declines each part.

mod aggregate;
mod assumptions;
mod emit;
mod estimate;
mod expected;
pub mod explain;
mod expr;
mod grouping;
mod host;
mod join;
mod lower;
mod name;
mod needs;
mod order;
mod parameter;
mod reduce;
mod rewrite;
mod scalar;
mod scan;
mod tree;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use datafusion::logical_expr::physical_planning_context::ScalarSubqueryResults;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryLink;
use trireme_device_api::Graph;
use trireme_exec::operators::{Expectations, FileScan, PlanValidity};

pub use lower::JoinOrder;
pub use parameter::{PARAMETER_FUNCTION, ParameterFunction};
pub use rewrite::{foreseen, lower, rewrite};

/// A part of a plan as a graph.
#[derive(Debug, Clone)]
pub struct Lowered {
    /// The fragments.
    pub graph: Graph,
    /// What the graph's scans are bound to, in their order.
    pub scans: Vec<FileScan>,
    /// What the graph's streams are bound to, in their order.
    pub streams: Vec<Arc<dyn ExecutionPlan>>,
    /// The rows come in the order that the replaced node promised; false also when it promised none.
    pub ordered: bool,
    /// For which values of the parameters the order of the joins is a good one.
    pub validity: Arc<dyn PlanValidity>,
    /// How many rows its fragments are expected to have.
    pub expectations: Arc<dyn Expectations>,
}

/// Whether a plan's root could be lowered.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It could.
    Fused(Box<Lowered>),
    /// It couldn't.
    Refused {
        /// Why.
        reason: String,
    },
}

/// Why an operator stayed DataFusion's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The operator.
    pub node: String,
    /// Why, for people.
    pub reason: String,
}

impl Reason {
    fn new(plan: &dyn ExecutionPlan, reason: impl Into<String>) -> Self {
        Self {
            node: plan.name().to_owned(),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.node, self.reason)
    }
}

/// The scalar subqueries of one plan, whose values its expressions read.
#[derive(Clone)]
struct Scalars {
    results: ScalarSubqueryResults,
    links: Vec<ScalarSubqueryLink>,
}
