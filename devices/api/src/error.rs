//! Errors of devices, by what the caller can do about them.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

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

/// The error of a store, a file system or an operator below, shared by all who wait for the same bytes. It is equal to
/// itself alone.
#[derive(Debug, Clone)]
pub struct ReadFault(Arc<dyn Error + Send + Sync>);

impl ReadFault {
    /// The error, to be told by its type.
    pub fn cause(&self) -> &(dyn Error + Send + Sync + 'static) {
        self.0.as_ref()
    }
}

impl fmt::Display for ReadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq for ReadFault {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ReadFault {}

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
    /// Input is not what it should be.
    #[error("{0}")]
    Input(String),
    /// Input could not be had, with the error of what it is read from.
    #[error("{0}")]
    Read(ReadFault),
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
    /// Input could not be had.
    pub fn read(cause: impl Error + Send + Sync + 'static) -> Self {
        DeviceError::Read(ReadFault(Arc::new(cause)))
    }

    /// What to do about it.
    pub fn action(&self) -> ErrorAction {
        match self {
            DeviceError::Unsupported(_)
            | DeviceError::OutOfMemory(_)
            | DeviceError::Device(_)
            | DeviceError::Internal(_) => ErrorAction::FallBack,
            DeviceError::Arithmetic(_) | DeviceError::Input(_) | DeviceError::Read(_) | DeviceError::Cancelled => {
                ErrorAction::Fail
            }
        }
    }
}
