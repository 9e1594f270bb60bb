//! The `fused` variant: what it takes, and how a fragment becomes a kernel.

use std::sync::Arc;

use trireme_device_api::{
    Cost, DeviceError, Expr, Fragment, FragmentId, Graph, Inputs, Kernel, Output, Sink, Step, Support, Type, Variant,
    Workload,
};

use crate::aggregate::AggregatePlan;
use crate::expr;
use crate::isa::Isa;
use crate::pipeline::{FusedKernel, STEP_PAIRS};

/// Bytes that one core streams through simple primitives in a nanosecond; a guess until costs are calibrated.
const BYTES_PER_NS: f64 = 4.0;

/// Fused pipelines on the processor.
#[derive(Debug, Clone)]
pub struct FusedVariant {
    isa: Isa,
    step_pairs: usize,
}

impl FusedVariant {
    /// With the best instruction set there is.
    pub fn new() -> Self {
        Self {
            isa: Isa::detect(),
            step_pairs: STEP_PAIRS,
        }
    }

    /// With a lesser one, for tests: `avx512`, `avx2` or `baseline`; none if the processor lacks it.
    pub fn with_instructions(name: &str) -> Option<Self> {
        Isa::from_name(name).map(|isa| Self { isa, ..Self::new() })
    }

    /// With steps that end after so many pairs of a join, for tests.
    #[must_use]
    pub fn with_step_pairs(mut self, pairs: usize) -> Self {
        self.step_pairs = pairs;
        self
    }

    /// The instruction sets that the processor has, the best last.
    pub fn instructions() -> Vec<&'static str> {
        Isa::all_available().into_iter().map(Isa::name).collect()
    }
}

impl Default for FusedVariant {
    fn default() -> Self {
        Self::new()
    }
}

impl Variant for FusedVariant {
    fn name(&self) -> &'static str {
        "fused"
    }

    fn device(&self) -> &str {
        "cpu0"
    }

    fn support(&self, graph: &Graph, fragment: FragmentId) -> Support {
        let Some(fragment) = graph.fragments.get(fragment) else {
            return Support::Unsupported {
                reason: format!("the graph has no fragment {fragment}"),
            };
        };
        match check(fragment) {
            Ok(()) => Support::Supported,
            Err(reason) => Support::Unsupported { reason },
        }
    }

    fn estimate(&self, _graph: &Graph, _fragment: FragmentId, workload: &Workload) -> Cost {
        let rows = workload.rows.max(0.0) + workload.output_rows.max(0.0);
        Cost {
            total_ns: workload.bytes.max(0.0) / BYTES_PER_NS + rows,
            memory_bytes: workload.table_rows.max(0.0) * 32.0,
        }
    }

    fn prepare(
        &self,
        graph: &Arc<Graph>,
        fragment: FragmentId,
        inputs: &Inputs,
        outputs: &[Option<Output>],
    ) -> Result<Arc<dyn Kernel>, DeviceError> {
        let kernel = FusedKernel::new(graph, fragment, inputs, outputs, self.isa, self.step_pairs)?;
        Ok(Arc::new(kernel))
    }
}

/// The first thing that isn't fused.
fn check(fragment: &Fragment) -> Result<(), String> {
    let all = |exprs: &[Expr]| exprs.iter().try_for_each(expr::support);
    for step in &fragment.steps {
        match step {
            Step::Filter(predicate) => expr::support(predicate)?,
            Step::Project(exprs) => all(exprs)?,
            Step::Probe(probe) => {
                all(&probe.keys)?;
                probe.residual.iter().try_for_each(expr::support)?;
                keys(&probe.keys)?;
            }
        }
    }
    match &fragment.sink {
        Sink::Aggregate { groups, aggregates } => {
            all(groups)?;
            for aggregate in aggregates {
                let order = aggregate.order.iter().map(|key| &key.expr);
                let exprs = aggregate.argument.iter().chain(&aggregate.filter).chain(order);
                exprs.into_iter().try_for_each(expr::support)?;
            }
            let types: Vec<_> = groups.iter().map(|expr| expr.data_type.clone()).collect();
            AggregatePlan::support(&types, aggregates)
        }
        Sink::Build(build) => {
            all(&build.keys)?;
            all(&build.payload)?;
            keys(&build.keys)
        }
        Sink::Sort { keys: sort, .. } => {
            for key in sort {
                expr::support(&key.expr)?;
                if matches!(key.expr.data_type, Type::Interval(_)) {
                    return Err("intervals are not sorted by fused pipelines".to_owned());
                }
            }
            Ok(())
        }
        Sink::Emit { .. } => Ok(()),
    }
}

fn keys(keys: &[Expr]) -> Result<(), String> {
    match keys.iter().find(|key| matches!(key.data_type, Type::Interval(_))) {
        Some(_) => Err("intervals are no join keys of fused pipelines".to_owned()),
        None => Ok(()),
    }
}
