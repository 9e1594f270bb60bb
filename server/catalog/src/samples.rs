//! Samples of tables' rows, as ANALYZE takes them and as they are on disk: Arrow files, one per version of a table's files.
//!
//! Only advice: what can't be read is as if it had never been there.

use std::fs::File;
use std::path::Path;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::SendableRecordBatchStream;
use futures::TryStreamExt;
use trireme_exec::statistics::{TableSketch, mix};

use crate::error::CatalogError;
use crate::statistics::ColumnStatisticsEntry;

/// At most so many rows of `rows`, one of each equal stretch, at a place in it that is the same every time.
pub(crate) async fn take(
    mut stream: SendableRecordBatchStream,
    rows: u64,
    wanted: usize,
) -> Result<Option<RecordBatch>, CatalogError> {
    let schema = stream.schema();
    let wanted = (wanted as u64).min(rows);
    let place = |at: u64| {
        let (start, end) = (at * rows / wanted, (at + 1) * rows / wanted);
        start + mix(at) % (end - start).max(1)
    };
    let (mut next, mut first) = (0_u64, 0_u64);
    let mut taken = Vec::new();
    while let Some(batch) = stream.try_next().await? {
        let end = first + batch.num_rows() as u64;
        let mut places = Vec::new();
        while next < wanted && place(next) < end {
            places.extend(
                place(next)
                    .checked_sub(first)
                    .and_then(|place| u32::try_from(place).ok()),
            );
            next += 1;
        }
        if !places.is_empty() {
            let places = UInt32Array::from(places);
            taken.push(take_record_batch(&batch, &places).map_err(DataFusionError::from)?);
        }
        first = end;
        if next == wanted {
            break;
        }
    }
    if taken.is_empty() {
        return Ok(None);
    }
    let sample = concat_batches(&schema, &taken).map_err(DataFusionError::from)?;
    Ok(Some(sample))
}

/// Writes a sample; after a crash there is none or all of it.
pub(crate) fn write(path: &Path, sample: &RecordBatch) -> Result<(), CatalogError> {
    let fresh = path.with_extension("new");
    let file = File::create(&fresh).map_err(CatalogError::io(&fresh))?;
    let written = FileWriter::try_new(file, &sample.schema()).and_then(|mut writer| {
        writer.write(sample)?;
        writer.finish()
    });
    written.map_err(DataFusionError::from)?;
    std::fs::rename(&fresh, path).map_err(CatalogError::io(path))
}

/// The sketch of a table from its sample and what was counted.
pub(crate) fn sketch(path: &Path, columns: &[ColumnStatisticsEntry], rows: u64) -> Option<TableSketch> {
    let read = || -> Result<RecordBatch, arrow::error::ArrowError> {
        let reader = FileReader::try_new(File::open(path)?, None)?;
        let schema = reader.schema();
        let batches = reader.collect::<Result<Vec<_>, _>>()?;
        concat_batches(&schema, &batches)
    };
    let sample = match read() {
        Ok(sample) => sample,
        Err(error) => {
            tracing::warn!(%error, file = %path.display(), "a table's sample can't be read; run ANALYZE again");
            return None;
        }
    };
    let distinct = |name: &str| {
        let entry = columns.iter().find(|entry| entry.column == name)?;
        entry.distinct.map(|distinct| distinct as f64)
    };
    Some(TableSketch::new(rows as f64, &sample, &distinct))
}
