//! Build sides and probes.

/// A build side in device memory, as probes see it.
#[derive(Debug, Clone)]
pub struct BuildShape {}
