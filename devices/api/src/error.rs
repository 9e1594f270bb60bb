//! Errors of devices, by what the caller can do about them.

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorAction {
    /// Try the same again.
    Retry,
    /// Run the fragment's backup: the device can't, the query can.
    FallBack,
    /// Fail the query: it would fail everywhere.
    Fail,
}

/// What went wrong on a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The fragment turned out not to be supported, with the reason.
    #[error("{0}")]
    Unsupported(String),
    /// Memory is short; the text names what was asked, held and limited, and the setting.
    #[error("{0}")]
    OutOfMemory(String),
    /// A value's fault: overflow, division by zero, a cast that doesn't fit. The query's own.
    #[error("{0}")]
    Arithmetic(String),
    /// Input can't be read.
    #[error("{0}")]
    Input(String),
    /// The query was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The device is lost or faulty.
    #[error("{0}")]
    Device(String),
    /// A bug of ours, caught.
    #[error("internal error: {0}")]
    Internal(String),
}

impl DeviceError {
    /// What to do about it.
    pub fn action(&self) -> ErrorAction {
        match self {
            DeviceError::Unsupported(_)
            | DeviceError::OutOfMemory(_)
            | DeviceError::Device(_)
            | DeviceError::Internal(_) => ErrorAction::FallBack,
            DeviceError::Arithmetic(_) | DeviceError::Input(_) | DeviceError::Cancelled => ErrorAction::Fail,
        }
    }
}
