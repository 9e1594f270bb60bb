//! A simulated object store: S3, GCS and Azure dialects over in-memory and synthetic objects, with latency, bandwidth and
//! faults.
