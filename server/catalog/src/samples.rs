//! Samples of tables' rows, as ANALYZE takes them and as they are on disk: Arrow files, one per version of a table's files.
//!
//! Only advice: what can't be read is as if it had never been there.

use std::fs::File;
use std::path::Path;

use arrow::array::{
    Array, ArrayData, BinaryViewArray, RecordBatch, RecordBatchOptions, StringViewArray, UInt32Array, make_array,
};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::SendableRecordBatchStream;
use futures::TryStreamExt;
use trireme_exec::statistics::{TableSketch, mix};

use crate::error::CatalogError;
use crate::statistics::ColumnStatisticsEntry;

/// What a sample may take, in memory and nearly so on disk.
const BYTES_MAX: usize = 16 << 20;

/// At most so many rows of `rows`, one of each equal stretch, at a place in it that is the same every time. Where they take more
/// than [`BYTES_MAX`], the stretches are twice as long, as often as that is needed; none where one row takes more.
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
    let (mut next, mut step, mut first) = (0_u64, 1_u64, 0_u64);
    let (mut taken, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = stream.try_next().await? {
        let end = first + batch.num_rows() as u64;
        let mut places = Vec::new();
        while next < wanted && place(next) < end {
            places.extend(
                place(next)
                    .checked_sub(first)
                    .and_then(|place| u32::try_from(place).ok()),
            );
            next += step;
        }
        if !places.is_empty() {
            let rows = rows_at(&batch, places).map_err(DataFusionError::from)?;
            bytes += rows.get_array_memory_size();
            taken.push(rows);
        }
        if bytes > BYTES_MAX {
            let (rows, times) = thinned(&schema, &taken).map_err(DataFusionError::from)?;
            step *= times;
            next = next.next_multiple_of(step);
            bytes = rows.get_array_memory_size();
            taken = vec![rows];
        }
        first = end;
        if next >= wanted {
            break;
        }
    }
    if taken.is_empty() {
        return Ok(None);
    }
    let sample = together(&schema, &taken).map_err(DataFusionError::from)?;
    Ok((sample.get_array_memory_size() <= BYTES_MAX).then_some(sample))
}

/// Every second row, or every fourth, … until they take half of what they may; also how many are one now.
fn thinned(schema: &SchemaRef, taken: &[RecordBatch]) -> Result<(RecordBatch, u64), ArrowError> {
    let mut rows = together(schema, taken)?;
    let mut times = 1;
    while rows.get_array_memory_size() > BYTES_MAX / 2 && rows.num_rows() > 1 {
        let every_second = (0..u32::try_from(rows.num_rows()).unwrap_or(u32::MAX)).step_by(2);
        rows = rows_at(&rows, every_second.collect())?;
        times *= 2;
    }
    Ok((rows, times))
}

fn rows_at(batch: &RecordBatch, places: Vec<u32>) -> Result<RecordBatch, ArrowError> {
    compact(&take_record_batch(batch, &UInt32Array::from(places))?)
}

fn together(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch, ArrowError> {
    compact(&concat_batches(schema, batches)?)
}

/// Without the text and bytes that no value has: taking rows of views keeps all that they were taken from.
fn compact(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter();
    let columns = columns.map(|column| Ok(make_array(compact_data(column.to_data())?)));
    let columns = columns.collect::<Result<Vec<_>, ArrowError>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns, &options)
}

fn compact_data(data: ArrayData) -> Result<ArrayData, ArrowError> {
    match data.data_type() {
        DataType::Utf8View => Ok(StringViewArray::from(data).gc().into_data()),
        DataType::BinaryView => Ok(BinaryViewArray::from(data).gc().into_data()),
        _ if data.child_data().is_empty() => Ok(data),
        _ => {
            let children = data.child_data().iter().cloned().map(compact_data);
            let children = children.collect::<Result<Vec<_>, _>>()?;
            data.into_builder().child_data(children).build()
        }
    }
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
    let read = || -> Result<RecordBatch, ArrowError> {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array, ListArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::{Field, Int64Type};
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

    use super::*;

    /// Batches of so many rows: a number, and a text of so many bytes, once by itself and once in a list.
    async fn sampled(batches: i64, rows: i64, bytes: usize, wanted: usize) -> Option<RecordBatch> {
        let batch = |from: i64| {
            let zeros = "0".repeat(bytes);
            let texts = (from..from + rows).map(|row| format!("{zeros}{row}"));
            let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
            let field = Arc::new(Field::new("item", DataType::Utf8View, true));
            let one_each = OffsetBuffer::from_lengths(vec![1; texts.len()]);
            let lists: ArrayRef = Arc::new(ListArray::new(field, one_each, Arc::clone(&texts), None));
            let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + rows));
            RecordBatch::try_from_iter([("number", numbers), ("text", texts), ("list", lists)]).unwrap()
        };
        let all: Vec<_> = (0..batches).map(|at| Ok(batch(at * rows))).collect();
        let stream = RecordBatchStreamAdapter::new(batch(0).schema(), futures::stream::iter(all));
        let rows = (batches * rows).unsigned_abs();
        take(Box::pin(stream), rows, wanted).await.unwrap()
    }

    #[tokio::test]
    async fn a_sample_has_its_own_text_only() {
        let sample = sampled(4, 1000, 500, 40).await.unwrap();
        assert_eq!(sample.num_rows(), 40);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sample.arrow");
        write(&path, &sample).unwrap();
        let written = std::fs::metadata(path).unwrap().len();
        assert!(written < 60_000, "{written} bytes for 40 rows of 1000");
        let numbers = sample.column(0).as_primitive::<Int64Type>();
        let texts = sample.column(1).as_string_view();
        for (number, text) in numbers.values().iter().zip(texts) {
            assert_eq!(text.unwrap().parse::<i64>().unwrap(), *number);
        }
    }

    #[tokio::test]
    async fn of_large_rows_a_sample_has_fewer_all_over_the_table() {
        let sample = sampled(32, 4, 200_000, 128).await.unwrap();
        assert!(sample.get_array_memory_size() <= BYTES_MAX);
        let numbers = sample.column(0).as_primitive::<Int64Type>().values();
        assert!((16..64).contains(&numbers.len()), "{numbers:?}");
        let apart: Vec<i64> = numbers.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(apart.iter().all(|rows| *rows == apart[0]), "{numbers:?}");
        assert!(sampled(1, 2, BYTES_MAX / 2 + 1, 2).await.is_none());
    }
}
