//! The CUDA driver's result codes: what they mean for a query, and the latch that a faulty device falls into.
//!
//! After some faults every later call fails, in the whole process: an illegal address, an uncorrectable memory error, a launch
//! that failed. Such a fault is kept, with its first name, and the device stays off. Short memory is none.

use std::ffi::{CStr, c_char, c_int};
use std::sync::{Arc, OnceLock};

use trireme_device_api::{DeviceError, DeviceState};

use crate::sys::Cuda;

const OUT_OF_MEMORY: c_int = 2;
/// Answer of `cuEventQuery` while work goes on.
pub(crate) const NOT_READY: c_int = 600;
const LAUNCH_OUT_OF_RESOURCES: c_int = 701;

/// Codes after which nothing works any more, from `cuda.h`.
const STICKY: &[c_int] = &[
    3,   // not initialised
    4,   // deinitialised: the process ends
    46,  // device unavailable
    201, // invalid context
    214, // uncorrectable memory error
    220, // uncorrectable NVLink error
    226, // contained error
    700, // illegal address
    702, // launch timeout
    709, // context destroyed
    710, // assert
    714, // hardware stack error
    715, // illegal instruction
    716, // misaligned address
    717, // invalid address space
    718, // invalid program counter
    719, // launch failed
    721, // tensor memory leak
    802, // system not ready
    810, // multi-process service gone
    999, // unknown
];

/// Whether a device still works. The first loss is kept for good.
pub(crate) struct Health {
    device: String,
    cuda: Option<Arc<Cuda>>,
    lost: OnceLock<String>,
}

impl Health {
    pub(crate) fn new(device: String, cuda: Option<Arc<Cuda>>) -> Self {
        Self {
            device,
            cuda,
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

    /// An error of what was asked, unless the code says that it went well.
    pub(crate) fn check(&self, what: &str, code: c_int) -> Result<(), DeviceError> {
        if code == 0 {
            return Ok(());
        }
        let text = format!("{}: {what}: {}", self.device, name(self.cuda.as_deref(), code));
        Err(match code {
            OUT_OF_MEMORY => DeviceError::OutOfMemory(text),
            LAUNCH_OUT_OF_RESOURCES => DeviceError::Unsupported(text),
            code if STICKY.contains(&code) => DeviceError::Device(self.lost.get_or_init(|| text).clone()),
            _ => DeviceError::Internal(text),
        })
    }
}

/// A code's name, as the driver says.
pub(crate) fn name(cuda: Option<&Cuda>, code: c_int) -> String {
    let text = |ask: unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int| {
        let mut place: *const c_char = std::ptr::null();
        // SAFETY: the driver writes a pointer to a constant text, or leaves null.
        let answer = unsafe { ask(code, &raw mut place) };
        // SAFETY: not null, so a constant text that ends with a zero.
        (answer == 0 && !place.is_null()).then(|| unsafe { CStr::from_ptr(place) }.to_string_lossy().into_owned())
    };
    let named = cuda.and_then(|cuda| Some((text(cuda.error_name)?, text(cuda.error_text)?)));
    named.map_or_else(
        || format!("CUDA error {code}"),
        |(name, text)| format!("{name} ({text})"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_faulty_device_stays_off_and_short_memory_is_no_fault() {
        let health = Health::new("cuda0".to_owned(), None);
        let short = health.check("the arena", 2);
        assert_eq!(
            short,
            Err(DeviceError::OutOfMemory("cuda0: the arena: CUDA error 2".to_owned()))
        );
        assert!(matches!(health.check("a launch", 1), Err(DeviceError::Internal(_))));
        assert!(matches!(
            health.check("a launch", 701),
            Err(DeviceError::Unsupported(_))
        ));
        assert_eq!(health.alive(), Ok(()));
        let lost = health.check("waiting", 700);
        assert_eq!(
            lost,
            Err(DeviceError::Device("cuda0: waiting: CUDA error 700".to_owned()))
        );
        assert_eq!(
            health.check("a copy", 719),
            lost,
            "the first fault is the one that is told"
        );
        assert_eq!(health.alive(), lost);
        assert_eq!(
            health.state(),
            DeviceState::Off("cuda0: waiting: CUDA error 700".to_owned())
        );
    }
}
