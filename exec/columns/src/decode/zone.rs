//! What is found out about values after they were decoded.

use arrow::datatypes::ArrowNativeType;
use trireme_device_api::{Carrier, Codes, DeviceColumn, Values};

/// Rows of a sample, and samples.
const SAMPLE_ROWS: usize = 1024;
const SAMPLES: usize = 4;

/// Estimates the length of runs from a few places.
pub(crate) fn sample_runs(column: &mut DeviceColumn) {
    column.zone.run_length = match &column.values {
        Values::Integers { carrier, .. } => match carrier {
            Carrier::I8(values) => runs(values),
            Carrier::I16(values) => runs(values),
            Carrier::I32(values) => runs(values),
            Carrier::I64(values) => runs(values),
        },
        Values::Codes { codes, .. } => match codes {
            Codes::U8(values) => runs(values),
            Codes::U16(values) => runs(values),
            Codes::U32(values) => runs(values),
        },
        _ => 1.0,
    };
}

fn runs<T: ArrowNativeType>(values: &[T]) -> f32 {
    let (mut rows, mut ends) = (0, 0);
    for sample in 0..SAMPLES {
        let start = values.len() / SAMPLES * sample;
        let rest = &values[start..];
        let part = &rest[..SAMPLE_ROWS.min(rest.len())];
        rows += part.len();
        ends += part.windows(2).filter(|pair| pair[0] != pair[1]).count();
    }
    rows as f32 / (ends + 1) as f32
}
