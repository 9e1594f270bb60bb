//! The rule that puts fragments into DataFusion's plan, last of all rules.
//!
//! What is fused a plain rule decides, where it runs costs do. Under `trireme.cpu_variant = auto` a part of the plan is fused
//! when it scans a table's files; under `fused` wherever it can be. What stays DataFusion's is listed with its reason at the
//! plan's root.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};
use trireme_device_api::Support;
use trireme_exec::devices::DeviceChoice;
use trireme_exec::fused::FragmentRuntime;
use trireme_exec::operators::{Expectations, FragmentExec, FragmentPlan};
use trireme_exec::statistics::cached;
use trireme_exec::steer::inject::Inject;

use crate::fragments::{self, JoinOrder, Lowered, Reason};
use crate::joins::tamed;
use crate::options::TriremeOptions;
use crate::placing;

/// Why `auto` leaves a part alone.
const NO_FILES: &str = "it scans no table's files";

/// Replaces what can be fused.
#[derive(Clone)]
pub struct FuseFragments {
    runtime: Arc<FragmentRuntime>,
}

impl FuseFragments {
    /// A rule whose fragments run on `runtime`.
    pub fn new(runtime: Arc<FragmentRuntime>) -> Self {
        Self { runtime }
    }

    fn node(
        &self,
        lowered: Lowered,
        backup: Arc<dyn ExecutionPlan>,
        choice: DeviceChoice,
        planning_us: &Arc<AtomicU64>,
    ) -> Arc<dyn ExecutionPlan> {
        let text = fragments::explain::lines(&lowered.graph);
        let plan = FragmentPlan {
            graph: Arc::new(lowered.graph),
            scans: lowered.scans,
            parameters: Vec::new(),
            text,
            ordered: lowered.ordered,
            validity: lowered.validity,
            expectations: planted(lowered.expectations, &choice.inject),
            choice,
            planning_us: Arc::clone(planning_us),
        };
        Arc::new(FragmentExec::new(
            plan,
            lowered.streams,
            backup,
            Arc::clone(&self.runtime),
        ))
    }
}

/// Estimates with the mistakes that a session plants.
fn planted(expectations: Arc<dyn Expectations>, inject: &str) -> Arc<dyn Expectations> {
    match inject.parse::<Inject>() {
        Ok(inject) => inject.plant(expectations),
        // It was checked when it was set.
        Err(_) => expectations,
    }
}

impl fmt::Debug for FuseFragments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FuseFragments")
    }
}

impl PhysicalOptimizerRule for FuseFragments {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let defaults = TriremeOptions::default();
        let options = config.extensions.get::<TriremeOptions>().unwrap_or(&defaults);
        if options.device_mode == "off" || options.cpu_variant == "datafusion" {
            return tamed(plan);
        }
        let began = Instant::now();
        let planning_us = Arc::new(AtomicU64::new(0));
        let everything = options.cpu_variant == "fused";
        let devices = placing::candidates(self.runtime.devices(), options);
        let accept = |lowered: &Lowered| -> Result<(), String> {
            if !everything && lowered.scans.is_empty() {
                return Err(NO_FILES.to_owned());
            }
            match self.runtime.support(&lowered.graph) {
                Support::Supported => Ok(()),
                Support::Unsupported { reason } => Err(reason),
            }
        };
        let make = |lowered: Lowered, backup: Arc<dyn ExecutionPlan>| {
            let choice = devices.choose(&lowered.scans)?;
            Ok(self.node(lowered, tamed(backup)?, choice, &planning_us))
        };
        let joins = JoinOrder {
            by_cost: options.reorder_joins,
            distinct: &|scan, column| cached::distinct(self.runtime.columns(), scan, column),
            statistics: self.runtime.statistics(),
        };
        let (plan, mut reasons) = fragments::rewrite(plan, joins, &accept, &make)?;
        let plan = tamed(plan)?;
        let took = began.elapsed();
        planning_us.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.runtime.planned_in(took);
        // A plan over no files is no news.
        reasons.retain(|reason| reason.reason != NO_FILES);
        if reasons.is_empty() {
            return Ok(plan);
        }
        Ok(Arc::new(UnfusedExec::new(plan, reasons)))
    }

    fn name(&self) -> &str {
        "fuse_fragments"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Says in EXPLAIN what was not fused and why; costs nothing.
#[derive(Debug)]
pub struct UnfusedExec {
    input: Arc<dyn ExecutionPlan>,
    reasons: Vec<Reason>,
}

impl UnfusedExec {
    fn new(input: Arc<dyn ExecutionPlan>, reasons: Vec<Reason>) -> Self {
        Self { input, reasons }
    }

    /// What was not fused, and why.
    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }
}

impl DisplayAs for UnfusedExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let mut reasons: Vec<_> = self.reasons.iter().map(ToString::to_string).collect();
        reasons.dedup();
        match format {
            DisplayFormatType::TreeRender => writeln!(f, "{}", reasons.join("\n")),
            _ => write!(f, "UnfusedExec: {}", reasons.join("; ")),
        }
    }
}

impl ExecutionPlan for UnfusedExec {
    fn name(&self) -> &'static str {
        "UnfusedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(match children.pop() {
            Some(input) => Arc::new(Self::new(input, self.reasons.clone())),
            None => self,
        })
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }
}
