//! What administrators call: measuring devices anew, and forgetting what was learned.

use std::sync::Arc;

use trireme_costs::calibrate::Effort;
use trireme_exec::fused::FragmentRuntime;
use trireme_exec::{ErrorClass, QueryError};
use trireme_planner::procedures::Procedure;

/// Runs it; gives what it counts: devices that were measured, models that were forgotten.
///
/// # Errors
/// When another calibration runs, or the processor's profile can't be kept.
pub(super) async fn call(fragments: &Arc<FragmentRuntime>, procedure: Procedure) -> Result<u64, QueryError> {
    match procedure {
        Procedure::ResetModels => {
            let models = fragments.costs().models().len() as u64;
            let kept = fragments.costs().forget();
            kept.map_err(|error| QueryError::new(ErrorClass::Internal, format!("the models can't be kept: {error}")))?;
            Ok(models)
        }
        Procedure::Calibrate { full } => {
            let effort = if full { Effort::Full } else { Effort::Quick };
            let fragments = Arc::clone(fragments);
            let measured = tokio::task::spawn_blocking(move || calibrate(&fragments, effort)).await;
            measured.map_err(|error| QueryError::new(ErrorClass::Internal, error.to_string()))?
        }
    }
}

fn calibrate(fragments: &FragmentRuntime, effort: Effort) -> Result<u64, QueryError> {
    let costs = fragments.costs();
    let Some(_one) = costs.try_measuring() else {
        let error = QueryError::new(ErrorClass::Conflict, "the devices are being measured already");
        return Err(error.with_hint(
            "another calibrate(), or the first measurement after the server's start, ends within seconds; \
             system.devices.measured_at says when it did",
        ));
    };
    let kept = costs.calibrate(effort);
    kept.map_err(|error| QueryError::new(ErrorClass::Internal, format!("the profile can't be kept: {error}")))?;
    let mut measured = 1;
    for device in &fragments.devices().wait().devices {
        match costs.calibrate_device(device, effort) {
            Ok(_) => measured += 1,
            Err(reason) => {
                tracing::warn!(device = %device.info().id, %reason, "a device is not measured; its rates are assumed");
            }
        }
    }
    Ok(measured)
}
