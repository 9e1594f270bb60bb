//! Decoding times, for people: `cargo test --release -p trireme-columns -- --ignored --nocapture`.

use std::path::PathBuf;

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use trireme_device_api::Type;

use super::round_trip::{expected, found};
use super::write::{open, table};
use crate::{ColumnCache, Limits};

/// The folder of TPC-H tables as Parquet at scale 1, in `TRIREME_TPCH`.
fn folder() -> PathBuf {
    std::env::var("TRIREME_TPCH").expect("TRIREME_TPCH is not set").into()
}

fn money() -> Type {
    Type::Decimal {
        precision: 15,
        scale: 2,
    }
}

fn lineitem() -> Vec<(&'static str, Type)> {
    vec![
        ("l_orderkey", Type::Int64),
        ("l_partkey", Type::Int64),
        ("l_suppkey", Type::Int64),
        ("l_linenumber", Type::Int32),
        ("l_quantity", money()),
        ("l_extendedprice", money()),
        ("l_discount", money()),
        ("l_tax", money()),
        ("l_returnflag", Type::Utf8View),
        ("l_linestatus", Type::Utf8View),
        ("l_shipdate", Type::Date32),
        ("l_commitdate", Type::Date32),
        ("l_receiptdate", Type::Date32),
        ("l_shipinstruct", Type::Utf8View),
        ("l_shipmode", Type::Utf8View),
        ("l_comment", Type::Utf8View),
    ]
}

/// Milliseconds that this thread ran: other load doesn't count. Zero where the system doesn't tell.
fn cpu_ms() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|ns| ns.parse().ok())
        .map_or(0.0, |ns: f64| ns / 1e6)
}

/// Milliseconds of the processor to open, and to open and load all, on this thread.
fn decode(columns: &[(&str, Type)]) -> (f64, f64, crate::Metrics) {
    let cache = ColumnCache::new(Limits {
        budget_bytes: 4 << 30,
        ..Limits::default()
    });
    let files = table(&folder(), &["lineitem.parquet"], columns, true);
    let start = cpu_ms();
    let scan = open(&cache, files).unwrap();
    let open_ms = cpu_ms() - start;
    for segment in 0..scan.segments() {
        for column in 0..columns.len() {
            scan.load(segment, column).unwrap();
        }
    }
    (open_ms, cpu_ms() - start, cache.metrics())
}

#[test]
#[ignore = "a measurement"]
fn lineitem_of_scale_one() {
    let all = lineitem();
    for column in &all {
        let best = (0..3).map(|_| decode(std::slice::from_ref(column)));
        let (open_ms, all_ms, metrics) = best.min_by(|left, right| left.1.total_cmp(&right.1)).unwrap();
        let bytes = metrics.decoded_bytes;
        println!(
            "{:16} open {open_ms:7.1} ms, all {all_ms:7.1} ms, {bytes} bytes, {} misses",
            column.0, metrics.misses
        );
    }
    let eight: Vec<_> = all
        .iter()
        .filter(|(name, _)| {
            [
                "l_quantity",
                "l_extendedprice",
                "l_discount",
                "l_tax",
                "l_returnflag",
                "l_linestatus",
                "l_shipdate",
                "l_orderkey",
            ]
            .contains(name)
        })
        .cloned()
        .collect();
    let times = (0..5).map(|_| decode(&eight).1);
    println!(
        "eight columns: {:.1} ms (target ≤ 400)",
        times.min_by(f64::total_cmp).unwrap()
    );
}

#[test]
#[ignore = "takes the data of a benchmark"]
fn all_tables_are_what_arrow_reads() {
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.ends_with(".parquet") {
            continue;
        }
        let file = std::fs::File::open(&path).unwrap();
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let fields = builder.schema().fields().clone();
        for (at, field) in fields.iter().enumerate() {
            let wanted = Type::from_arrow(field.data_type()).unwrap();
            let cache = ColumnCache::new(Limits::default());
            let files = table(&folder(), &[&name], &[(field.name(), wanted.clone())], true);
            let scan = open(&cache, files).unwrap();
            let coded = scan.columns()[0].distinct;
            assert!(
                found(scan.as_ref(), 0) == expected(&path, at, &wanted),
                "{name} {field}"
            );
            println!("{name} {field}: {coded:?} {:?}", cache.snapshot()[0].carrier);
        }
    }
}
