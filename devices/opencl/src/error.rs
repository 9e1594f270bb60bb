//! OpenCL's error codes: their names, what they mean for a query, and the latch that a lost device falls into.

use std::sync::OnceLock;

use opencl_sys as cl;
use opencl_sys::cl_int;
use trireme_device_api::{DeviceError, DeviceState};

/// Whether a device still works. The first loss is kept for good.
pub(crate) struct Health {
    device: String,
    lost: OnceLock<String>,
}

impl Health {
    pub(crate) fn new(device: String) -> Self {
        Self {
            device,
            lost: OnceLock::new(),
        }
    }

    pub(crate) fn state(&self) -> DeviceState {
        self.lost
            .get()
            .map_or(DeviceState::Ready, |reason| DeviceState::Off(reason.clone()))
    }

    /// # Errors
    /// When the device is lost.
    pub(crate) fn alive(&self) -> Result<(), DeviceError> {
        match self.lost.get() {
            Some(reason) => Err(DeviceError::Device(reason.clone())),
            None => Ok(()),
        }
    }

    /// An error of `what` was asked, unless the code says that it went well.
    pub(crate) fn check(&self, what: &str, code: cl_int) -> Result<(), DeviceError> {
        if code >= 0 {
            return Ok(());
        }
        let text = format!("{}: {what}: {}", self.device, name(code));
        Err(match code {
            cl::CL_MEM_OBJECT_ALLOCATION_FAILURE | cl::CL_OUT_OF_HOST_MEMORY => DeviceError::OutOfMemory(text),
            code if is_loss(code) => DeviceError::Device(self.lost.get_or_init(|| text).clone()),
            _ => DeviceError::Internal(text),
        })
    }

    /// As [`Health::check`] of a command that ran: whatever it failed with, the device is lost.
    pub(crate) fn check_run(&self, what: &str, code: cl_int) -> Result<(), DeviceError> {
        if code >= 0 {
            return Ok(());
        }
        let text = format!("{}: {what}: {}", self.device, name(code));
        Err(DeviceError::Device(self.lost.get_or_init(|| text).clone()))
    }
}

/// Codes after which nothing else of the device's works.
fn is_loss(code: cl_int) -> bool {
    matches!(
        code,
        cl::CL_DEVICE_NOT_AVAILABLE
            | cl::CL_OUT_OF_RESOURCES
            | cl::CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST
            | cl::CL_INVALID_CONTEXT
            | cl::CL_INVALID_COMMAND_QUEUE
            | cl::CL_CONTEXT_TERMINATED_KHR
    )
}

/// A code's name in OpenCL's specification.
pub(crate) fn name(code: cl_int) -> String {
    let known = match code {
        cl::CL_DEVICE_NOT_FOUND => "CL_DEVICE_NOT_FOUND",
        cl::CL_DEVICE_NOT_AVAILABLE => "CL_DEVICE_NOT_AVAILABLE",
        cl::CL_COMPILER_NOT_AVAILABLE => "CL_COMPILER_NOT_AVAILABLE",
        cl::CL_MEM_OBJECT_ALLOCATION_FAILURE => "CL_MEM_OBJECT_ALLOCATION_FAILURE",
        cl::CL_OUT_OF_RESOURCES => "CL_OUT_OF_RESOURCES",
        cl::CL_OUT_OF_HOST_MEMORY => "CL_OUT_OF_HOST_MEMORY",
        cl::CL_BUILD_PROGRAM_FAILURE => "CL_BUILD_PROGRAM_FAILURE",
        cl::CL_MAP_FAILURE => "CL_MAP_FAILURE",
        cl::CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST => "CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST",
        cl::CL_INVALID_VALUE => "CL_INVALID_VALUE",
        cl::CL_INVALID_CONTEXT => "CL_INVALID_CONTEXT",
        cl::CL_INVALID_COMMAND_QUEUE => "CL_INVALID_COMMAND_QUEUE",
        cl::CL_INVALID_BINARY => "CL_INVALID_BINARY",
        cl::CL_INVALID_BUILD_OPTIONS => "CL_INVALID_BUILD_OPTIONS",
        cl::CL_INVALID_PROGRAM_EXECUTABLE => "CL_INVALID_PROGRAM_EXECUTABLE",
        cl::CL_INVALID_KERNEL_NAME => "CL_INVALID_KERNEL_NAME",
        cl::CL_INVALID_KERNEL_ARGS => "CL_INVALID_KERNEL_ARGS",
        cl::CL_INVALID_ARG_SIZE => "CL_INVALID_ARG_SIZE",
        cl::CL_INVALID_WORK_GROUP_SIZE => "CL_INVALID_WORK_GROUP_SIZE",
        cl::CL_INVALID_WORK_ITEM_SIZE => "CL_INVALID_WORK_ITEM_SIZE",
        cl::CL_INVALID_BUFFER_SIZE => "CL_INVALID_BUFFER_SIZE",
        cl::CL_INVALID_OPERATION => "CL_INVALID_OPERATION",
        cl::CL_PLATFORM_NOT_FOUND_KHR => "CL_PLATFORM_NOT_FOUND_KHR",
        cl::CL_CONTEXT_TERMINATED_KHR => "CL_CONTEXT_TERMINATED_KHR",
        _ => return format!("OpenCL error {code}"),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_device_stays_lost_and_short_memory_is_no_loss() {
        let health = Health::new("opencl0".to_owned());
        let short = health.check("the arena", cl::CL_MEM_OBJECT_ALLOCATION_FAILURE);
        assert!(matches!(short, Err(DeviceError::OutOfMemory(_))), "{short:?}");
        assert_eq!(health.alive(), Ok(()));
        let lost = health.check("a launch", cl::CL_OUT_OF_RESOURCES);
        assert_eq!(
            lost,
            Err(DeviceError::Device("opencl0: a launch: CL_OUT_OF_RESOURCES".to_owned()))
        );
        let later = health.check("a copy", cl::CL_INVALID_CONTEXT);
        assert_eq!(later, lost, "the first loss is the one that is told");
        assert_eq!(health.alive(), lost);
        assert_eq!(
            health.state(),
            DeviceState::Off("opencl0: a launch: CL_OUT_OF_RESOURCES".to_owned())
        );
    }
}
