//! The `fused` variant of an accelerator.

use std::sync::Arc;

use trireme_device_api::{
    Cost, DeviceError, FragmentId, Graph, Inputs, Kernel, Output, ScanInput, Support, Variant, Workload,
};

use crate::accelerator::Core;
use crate::kernel::RunKernel;
use crate::task::{self, Task, support};
use crate::tier::Kernels;
use crate::warming;

/// Bytes that a device reads in a nanosecond; a guess until costs are calibrated.
const BYTES_PER_NS: f64 = 16.0;

/// What a run takes whatever it does: launches and waits.
const RUN_NS: f64 = 100_000.0;

/// Fused pipelines on an accelerator.
pub(crate) struct AcceleratorVariant {
    core: Arc<Core>,
}

impl AcceleratorVariant {
    /// Of a device.
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }
}

impl Variant for AcceleratorVariant {
    fn name(&self) -> &'static str {
        "fused"
    }

    fn device(&self) -> &str {
        &self.core.driver.info().device.id
    }

    /// Only [`Variant::support_bound`] can tell: whether strings come as codes decides most of it.
    fn support(&self, _graph: &Graph, _fragment: FragmentId) -> Support {
        Support::Supported
    }

    fn estimate(&self, _graph: &Graph, _fragment: FragmentId, workload: &Workload) -> Cost {
        let rows = workload.rows.max(0.0) + workload.output_rows.max(0.0);
        Cost {
            total_ns: RUN_NS + workload.bytes.max(0.0) / BYTES_PER_NS + rows / BYTES_PER_NS,
            memory_bytes: workload.bytes.max(0.0) + workload.table_rows.max(0.0) * 32.0,
        }
    }

    fn support_bound(&self, graph: &Arc<Graph>, inputs: &Inputs) -> Vec<Support> {
        support(&self.core, graph, inputs)
    }

    fn warm(&self, graph: &Arc<Graph>, inputs: &Inputs) -> bool {
        let cold = warming::cold(&self.core, task::programs(&self.core, graph, inputs));
        if cold.is_empty() {
            return true;
        }
        let bridges = self.core.bridges(&cold);
        if self.core.limits.kernels != Kernels::Interpreted {
            warming::compile(&self.core, cold, warming::cold_decoders(&self.core));
        }
        bridges
    }

    fn resident(&self, inputs: &Inputs) -> Vec<f64> {
        let share = |scan: &Arc<dyn ScanInput>| self.core.columns.share(scan.as_ref());
        inputs.scans.iter().map(share).collect()
    }

    fn prepare_many(
        &self,
        graph: &Arc<Graph>,
        fragments: &[FragmentId],
        inputs: &Inputs,
        outputs: &[Option<Output>],
    ) -> Result<Arc<dyn Kernel>, DeviceError> {
        self.core.check()?;
        if fragments.is_empty() {
            return Err(DeviceError::Internal("a run of no fragments".to_owned()));
        }
        let task = Task::new(&self.core, graph, fragments, inputs, outputs)?;
        Ok(Arc::new(RunKernel::new(task, false)))
    }

    fn prepare(
        &self,
        graph: &Arc<Graph>,
        fragment: FragmentId,
        inputs: &Inputs,
        outputs: &[Option<Output>],
    ) -> Result<Arc<dyn Kernel>, DeviceError> {
        self.core.check()?;
        let task = Task::new(&self.core, graph, &[fragment], inputs, outputs)?;
        Ok(Arc::new(RunKernel::new(task, true)))
    }
}
