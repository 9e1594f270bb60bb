//! Benchmarks that run in the process get their targets here, so that they share one crate and one link.
//!
//! What is measured from outside, over the wire, are the Python scripts beside this crate: `bench_service.py` and the form of
//! all figures, `figures.py`.
