//! What comes after both parts of a shared fragment: their rows are merged.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::concat;
use trireme_device_api::{
    DeviceColumn, DeviceError, Field, FragmentId, FragmentReport, Inputs, Output, Progress, Rows,
};

use super::crew::{Crew, Stepped};
use super::{Device, End, Host, SplitKernel};

impl SplitKernel {
    pub(super) fn step_end(&self, worker: usize) -> Result<Option<Progress>, DeviceError> {
        let mut state = self.state.lock();
        let both = matches!((&state.host, &state.device), (Host::Ended, Device::Ended));
        match &state.end {
            End::NotYet if both => {
                if self.morsels.free_rows() > 0 {
                    state.host = Host::Begins;
                    return Ok(None);
                }
                state.end = End::Busy;
                let parts = std::mem::take(&mut state.parts);
                drop(state);
                let rows = together(&parts, self.helper.parts.fields())?;
                self.merge(1, Output::Rows(Arc::new(rows)))?;
                Ok(Some(Progress::More))
            }
            End::NotYet => Ok(None),
            End::Busy => Ok(Some(Progress::Waiting)),
            End::Whole(kernel) => {
                let kernel = Arc::clone(kernel);
                drop(state);
                Ok(Some(kernel.step(worker)?))
            }
            End::Merges(crew, id) => {
                let (crew, id) = (Arc::clone(crew), *id);
                drop(state);
                self.step_merge(worker, &crew, id).map(Some)
            }
            End::Done(_) => Ok(Some(Progress::Done)),
        }
    }

    /// Prepares a fragment of the merging graph, which reads what the one before left.
    fn merge(&self, id: FragmentId, before: Output) -> Result<(), DeviceError> {
        let graph = &self.helper.parts.merge;
        let end = match id < graph.fragments.len() {
            false => End::Done(Some(before)),
            true => {
                let mut outputs = vec![None; graph.fragments.len()];
                outputs[id - 1] = Some(before);
                let inputs = Inputs {
                    emit: None,
                    ..self.inputs.clone()
                };
                let kernel = self.host.prepare(graph, id, &inputs, &outputs)?;
                End::Merges(Arc::new(Crew::new(kernel)), id)
            }
        };
        self.state.lock().end = end;
        self.wake();
        Ok(())
    }

    fn step_merge(&self, worker: usize, crew: &Crew, id: FragmentId) -> Result<Progress, DeviceError> {
        match crew.step(worker) {
            Stepped::Goes(progress) => return Ok(progress),
            Stepped::Last(Some(error)) => return Err(error),
            Stepped::Last(None) => {}
        }
        self.state.lock().end = End::Busy;
        let output = crew.kernel().finish()?;
        self.merge(id + 1, output)?;
        Ok(Progress::More)
    }
}

pub(super) fn rows_of(output: Output) -> Result<Arc<Rows>, DeviceError> {
    match output {
        Output::Rows(rows) => Ok(rows),
        Output::Resident(rows) => rows.download(),
        _ => Err(DeviceError::Internal("a part left no rows".to_owned())),
    }
}

/// Adds what a part took.
pub(super) fn add(sum: &mut FragmentReport, part: &FragmentReport) {
    sum.input_rows += part.input_rows;
    sum.sink_rows = part.sink_rows.map(|rows| rows + sum.sink_rows.unwrap_or(0));
    sum.uploaded_bytes += part.uploaded_bytes;
    sum.encoded_bytes += part.encoded_bytes;
    sum.decoded_bytes += part.decoded_bytes;
    sum.downloaded_bytes += part.downloaded_bytes;
    sum.restored_bytes += part.restored_bytes;
    sum.launches += part.launches;
    sum.syncs += part.syncs;
    sum.retries += part.retries;
    sum.compiled += part.compiled;
    sum.interpreted |= part.interpreted;
    sum.compile_ns += part.compile_ns;
    sum.kernel_ns += part.kernel_ns;
    sum.copy_ns += part.copy_ns;
    sum.load_ns += part.load_ns;
    for (reason, columns) in &part.host_decoded {
        *sum.host_decoded.entry(reason).or_default() += columns;
    }
}

/// The rows of all parts as one segment: each device has carriers and dictionaries of its own.
fn together(parts: &[Arc<Rows>], fields: &[Field]) -> Result<Rows, DeviceError> {
    let internal = |error: arrow::error::ArrowError| DeviceError::Internal(error.to_string());
    let segments = || {
        parts
            .iter()
            .flat_map(|rows| &rows.segments)
            .filter(|(rows, _)| *rows > 0)
    };
    let rows = segments().map(|(rows, _)| rows).sum();
    if rows == 0 {
        return Ok(Rows::default());
    }
    let mut columns = Vec::with_capacity(fields.len());
    for (at, field) in fields.iter().enumerate() {
        let arrays = segments().map(|(rows, columns)| columns[at].to_arrow(0, *rows));
        let arrays: Vec<ArrayRef> = arrays.collect::<Result<_, _>>()?;
        let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
        let array = concat(&arrays).map_err(internal)?;
        columns.push(Arc::new(DeviceColumn::from_arrow(&array, &field.data_type)?));
    }
    Ok(Rows {
        segments: vec![(rows, columns)],
        held: Vec::new(),
    })
}
