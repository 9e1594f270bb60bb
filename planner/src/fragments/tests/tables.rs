//! TPC-H's tables with few rows of arbitrary values, so that DataFusion's plans have their usual shape.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};

use crate::joins::YieldingJoins;
use crate::semantics;

/// Name, rows, columns.
const TABLES: &[(&str, i32, &str)] = &[
    ("region", 5, "r_regionkey i64, r_name text, r_comment text"),
    (
        "nation",
        25,
        "n_nationkey i64, n_name text, n_regionkey i64, n_comment text",
    ),
    (
        "supplier",
        20,
        "s_suppkey i64, s_name text, s_address text, s_nationkey i64, s_phone text, s_acctbal money, s_comment text",
    ),
    (
        "part",
        400,
        "p_partkey i64, p_name text, p_mfgr text, p_brand text, p_type text, p_size i32, p_container text, \
         p_retailprice money, p_comment text",
    ),
    (
        "partsupp",
        1_600,
        "ps_partkey i64, ps_suppkey i64, ps_availqty i32, ps_supplycost money, ps_comment text",
    ),
    (
        "customer",
        300,
        "c_custkey i64, c_name text, c_address text, c_nationkey i64, c_phone text, c_acctbal money, \
         c_mktsegment text, c_comment text",
    ),
    (
        "orders",
        3_000,
        "o_orderkey i64, o_custkey i64, o_orderstatus text, o_totalprice money, o_orderdate date, \
         o_orderpriority text, o_clerk text, o_shippriority i32, o_comment text",
    ),
    (
        "lineitem",
        12_000,
        "l_orderkey i64, l_partkey i64, l_suppkey i64, l_linenumber i32, l_quantity money, l_extendedprice money, \
         l_discount money, l_tax money, l_returnflag text, l_linestatus text, l_shipdate date, l_commitdate date, \
         l_receiptdate date, l_shipinstruct text, l_shipmode text, l_comment text",
    ),
];

fn column(kind: &str, rows: i32) -> ArrayRef {
    let values = 0..rows;
    match kind {
        "i64" => Arc::new(Int64Array::from_iter_values(values.map(i64::from))),
        "i32" => Arc::new(Int32Array::from_iter_values(values)),
        "text" => Arc::new(StringArray::from_iter_values(values.map(|row| format!("text {row}")))),
        "money" => Arc::new(
            Decimal128Array::from_iter_values(values.map(|row| i128::from(row % 5_000)))
                .with_precision_and_scale(15, 2)
                .unwrap(),
        ),
        // 1992 to 1998.
        "date" => Arc::new(Date32Array::from_iter_values(values.map(|row| 8_035 + row % 2_500))),
        other => panic!("type {other}"),
    }
}

pub(super) fn batch(columns: &str, rows: i32) -> RecordBatch {
    let (fields, arrays): (Vec<_>, Vec<_>) = columns
        .split(',')
        .map(|column_text| {
            let (name, kind) = column_text.trim().split_once(' ').unwrap();
            let array = column(kind, rows);
            (Field::new(name, array.data_type().clone(), true), array)
        })
        .unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

pub(super) fn write(path: &Path, batch: &RecordBatch) {
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

/// A context that plans as the server does, before fragments.
pub(super) fn context(config: SessionConfig) -> SessionContext {
    let builder = SessionStateBuilder::new().with_config(config).with_default_features();
    let builder = builder.with_physical_optimizer_rule(Arc::new(YieldingJoins));
    SessionContext::new_with_state(semantics::install(builder).build())
}

/// A session over the tables.
pub(super) async fn session() -> (tempfile::TempDir, SessionContext) {
    let folder = tempfile::tempdir().unwrap();
    let context = context(SessionConfig::new().with_target_partitions(4));
    for (name, rows, columns) in TABLES {
        let path = folder.path().join(format!("{name}.parquet"));
        write(&path, &batch(columns, *rows));
        context
            .register_parquet(*name, path.to_str().unwrap(), ParquetReadOptions::default())
            .await
            .unwrap();
    }
    (folder, context)
}
