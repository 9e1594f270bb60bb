//! What a variant runs on in tests: tables in every layout that the contract allows, streams that make it wait, and a pool
//! that counts.

pub mod pages;
mod pool;
mod scan;
mod stream;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rand::Rng;
use trireme_device_api::{DeviceError, DevicePool, Graph, Inputs, ScanInput, StreamInput};

pub use pool::CountingPool;
pub use scan::{Layout, MemoryScan, Segmentation};
pub use stream::MemoryStream;

use crate::interpreter::Data;

/// Binds rows to a graph, in layouts and segments that `rng` draws.
///
/// # Errors
/// [`DeviceError::Internal`] when a value doesn't belong to its column.
pub fn bind(
    graph: &Graph,
    data: &Data,
    layout: &Layout,
    pool: &Arc<dyn DevicePool>,
    rng: &mut impl Rng,
) -> Result<Inputs, DeviceError> {
    let mut scans: Vec<Arc<dyn ScanInput>> = Vec::new();
    for (source, rows) in graph.scans.iter().zip(&data.scans) {
        scans.push(Arc::new(MemoryScan::new(&source.columns, rows, layout, rng)?));
    }
    let mut streams: Vec<Arc<dyn StreamInput>> = Vec::new();
    for (fields, rows) in graph.streams.iter().zip(&data.streams) {
        streams.push(Arc::new(MemoryStream::new(fields, rows, rng)?));
    }
    Ok(Inputs {
        scans,
        streams,
        parameters: data.parameters.clone(),
        workers: 1,
        pool: Arc::clone(pool),
        cancelled: Arc::new(AtomicBool::new(false)),
        batch_rows: 1024,
        emit: None,
        wake: None,
    })
}
