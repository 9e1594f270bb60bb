//! Runs kernels in the host, under every schedule that a device might choose.
