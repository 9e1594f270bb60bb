//! Scans of a simulated store by DataFusion's operators.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{Int64Type, Schema};
use datafusion::datasource::memory::DataSourceExec;
use datafusion::datasource::physical_plan::{FileScanConfigBuilder, ParquetSource};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use object_store::ObjectStoreExt;
use object_store::aws::AmazonS3Builder;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use simstore::{Config, Kind, Profile, SimStore};
use trireme_lake::{Lake, LakeOptions};

use super::*;
use crate::QueryError;
use crate::error::ErrorClass;
use crate::io::pinned;

const GROUPS: usize = 12;
const ROWS: usize = 20_000;

/// Rows of one value, in row groups of equal size.
fn content(value: i64) -> Vec<u8> {
    let column = || Arc::new(Int64Array::from(vec![value; ROWS])) as _;
    let batch = RecordBatch::try_from_iter([("a", column()), ("b", column()), ("c", column())]).unwrap();
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_max_row_group_row_count(Some(ROWS))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    for _ in 0..GROUPS {
        writer.write(&batch).unwrap();
    }
    writer.into_inner().unwrap()
}

struct Remote {
    sim: SimStore,
    context: SessionContext,
    lake: Arc<TieredStore>,
    _lake: Arc<Lake>,
}

impl Remote {
    fn new() -> Self {
        let sim = SimStore::start(Config::with_profile(Profile::near())).unwrap();
        let plain = AmazonS3Builder::new()
            .with_endpoint(sim.url())
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_bucket_name("lake")
            .with_access_key_id("key")
            .with_secret_access_key("secret")
            .build()
            .unwrap();
        let tiers = Lake::new(LakeOptions {
            memory_bytes: 0,
            ..LakeOptions::default()
        });
        let lake = tiers.wrap("s3://lake", "s3://lake", Arc::new(plain));
        let context = SessionContext::new();
        context.register_object_store(&"s3://lake".parse().unwrap(), Arc::clone(&lake) as _);
        sim.put("lake", "t.parquet", content(1)).unwrap();
        Self {
            sim,
            context,
            lake,
            _lake: tiers,
        }
    }

    async fn scan(&self, columns: Vec<usize>) -> SendableRecordBatchStream {
        let meta = self.lake.head(&"t.parquet".into()).await.unwrap();
        let schema = Schema::new(
            ["a", "b", "c"]
                .map(|name| arrow::datatypes::Field::new(name, arrow::datatypes::DataType::Int64, true))
                .to_vec(),
        );
        let source = Arc::new(ParquetSource::new(Arc::new(schema)));
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse("s3://lake").unwrap(), source)
            .with_file(PartitionedFile::new_from_meta(meta))
            .with_projection_indices(Some(columns))
            .unwrap()
            .build();
        let runtime = self.context.runtime_env();
        let plan = pinned(
            DataSourceExec::from_data_source(config),
            &runtime,
            Some(Arc::clone(&self.lake)),
        )
        .unwrap();
        execute_stream(plan, self.context.task_ctx()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row_groups_that_follow_are_fetched_while_one_is_decoded() {
    let remote = Remote::new();
    remote.sim.reset_counters();
    let mut rows = remote.scan(vec![0, 2]).await;
    let mut sum = 0;
    while let Some(batch) = rows.next().await {
        let batch = batch.unwrap();
        sum += batch.column(1).as_primitive::<Int64Type>().values().iter().sum::<i64>();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(sum, (GROUPS * ROWS) as i64);
    let mut gets = remote.sim.requests();
    gets.retain(|request| request.kind == Kind::Get);
    let at_once = |start_us: u64| {
        let running = gets
            .iter()
            .filter(|get| get.start_us <= start_us && start_us < get.end_us);
        running.count()
    };
    let most = gets.iter().map(|get| at_once(get.start_us)).max().unwrap();
    assert!(most >= 3, "at most {most} requests at a time");
    // All columns are neighbours; the one that isn't wanted may come along, but nothing twice.
    let ranges = gets.iter().filter_map(|get| get.range.clone());
    let bytes = ranges.map(|range| range.end - range.start).sum::<u64>();
    let size = content(1).len() as u64;
    assert!(bytes < size * 5 / 4, "{bytes} of {size} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_object_is_an_error_and_never_a_mixture() {
    let remote = Remote::new();
    let mut rows = remote.scan(vec![0]).await;
    let first = rows.next().await.unwrap().unwrap();
    assert_eq!(first.column(0).as_primitive::<Int64Type>().value(0), 1);
    remote.sim.put("lake", "t.parquet", content(2)).unwrap();
    let mut failed = None;
    while let Some(batch) = rows.next().await {
        match batch {
            Ok(batch) => assert!(
                batch
                    .column(0)
                    .as_primitive::<Int64Type>()
                    .values()
                    .iter()
                    .all(|value| *value == 1)
            ),
            Err(error) => failed = Some(QueryError::from(error)),
        }
    }
    let failed = failed.expect("most of the file was not fetched yet");
    assert_eq!(failed.class, ErrorClass::Conflict, "{failed}");
    assert!(failed.message.contains("t.parquet was replaced"), "{failed}");
    // The next statement lists it anew, and doesn't take the old footer for it.
    let mut rows = remote.scan(vec![1]).await;
    let mut sum = 0;
    while let Some(batch) = rows.next().await {
        sum += batch
            .unwrap()
            .column(0)
            .as_primitive::<Int64Type>()
            .values()
            .iter()
            .sum::<i64>();
    }
    assert_eq!(sum, 2 * (GROUPS * ROWS) as i64);
}
