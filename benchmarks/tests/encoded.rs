//! Parquet files whose pages are decoded on a device, simulated and by OpenCL, against the processor, which decodes them
//! itself: all types, NULLs, many small pages, dictionaries that overflow to plain values, segments that cut row groups.
//!
//! `TRIREME_SEED` and `TRIREME_ROUNDS`; without an OpenCL device that part says so and passes, unless
//! `TRIREME_REQUIRE_OPENCL=1`.
#![allow(clippy::panic, clippy::unwrap_used, reason = "tests fail by panics")]

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use object_store::local::LocalFileSystem;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterVersion};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use trireme_columns::{
    ColumnCache, ColumnRequest, ColumnSource, Limits as CacheLimits, OpenOptions, TableFile, TableFiles,
};
use trireme_device_api::{
    Backend, Device, Field, Fragment, FragmentReport, GRAPH_VERSION, Graph, Inputs, Output, RowTest, ScanInput,
    ScanSource, Sink, Source, Type, Unlimited, Variant,
};
use trireme_device_cpu::FusedVariant;
use trireme_device_opencl::{OpenClBackend, OpenClSettings};
use trireme_device_runtime::{Encoded, Limits};
use trireme_device_sim::{Script, device};
use trireme_device_testkit::driver::{last_rows, run, step_until_done};

fn types() -> Vec<DataType> {
    vec![
        DataType::Boolean,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::UInt8,
        DataType::UInt32,
        DataType::UInt64,
        DataType::Float32,
        DataType::Float64,
        DataType::Decimal128(9, 2),
        DataType::Decimal128(15, 2),
        DataType::Decimal128(30, 3),
        DataType::Date32,
        DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Utf8,
        DataType::Binary,
    ]
}

/// Values of any distribution, as a type holds them.
fn array(rng: &mut StdRng, data_type: &DataType, rows: usize) -> ArrayRef {
    let most = match data_type {
        DataType::Boolean => 1,
        DataType::Int8 => 127,
        DataType::Int16 => 30_000,
        DataType::UInt8 => 255,
        DataType::Int32 | DataType::Date32 | DataType::Decimal128(9, _) => 9_999_999,
        DataType::UInt32 => i64::from(u32::MAX),
        DataType::Time64(_) => 86_399_999_999,
        DataType::Decimal128(15, _) => 9_999_999_999_999,
        _ => i64::MAX / 4,
    };
    let most = match rng.random_range(0..4) {
        0 => most.min(rng.random_range(1..300)),
        1 => most.min(100_000),
        _ => most,
    };
    let unsigned = data_type.is_unsigned_integer()
        || matches!(data_type, DataType::Boolean | DataType::Time64(_) | DataType::Date32);
    let least = if unsigned || rng.random() { 0 } else { -most };
    let nulls = *[0.0, 0.0, 0.1, 0.9, 1.0].choose(rng).unwrap();
    let repeat = *[0.0, 0.5, 0.98].choose(rng).unwrap();
    let mut last = rng.random_range(least..=most);
    let values: Int64Array = (0..rows)
        .map(|_| {
            if !rng.random_bool(repeat) {
                last = rng.random_range(least..=most);
            }
            (!rng.random_bool(nulls)).then_some(last)
        })
        .collect();
    let through = match data_type {
        DataType::Binary => DataType::Utf8,
        DataType::Date32 => DataType::Int32,
        other => other.clone(),
    };
    if let DataType::Decimal128(precision, scale) = data_type {
        let wide = cast(&values, &DataType::Decimal128(38, 0)).unwrap();
        let wide = wide.as_any().downcast_ref::<arrow::array::Decimal128Array>().unwrap();
        return Arc::new(wide.clone().with_precision_and_scale(*precision, *scale).unwrap());
    }
    cast(&cast(&values, &through).unwrap(), data_type).unwrap()
}

fn properties(rng: &mut StdRng) -> WriterProperties {
    let compression = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::ZSTD(ZstdLevel::default()),
    ];
    let version = *[WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0]
        .choose(rng)
        .unwrap();
    let mut properties = WriterProperties::builder()
        .set_compression(*compression.choose(rng).unwrap())
        .set_writer_version(version)
        .set_dictionary_enabled(rng.random_bool(0.6))
        .set_dictionary_page_size_limit(*[300, 1 << 20].choose(rng).unwrap())
        .set_data_page_row_count_limit(*[37, 700, 20_000].choose(rng).unwrap())
        .set_write_batch_size(*[16, 1024].choose(rng).unwrap())
        .set_max_row_group_row_count(Some(*[350, 1 << 20].choose(rng).unwrap()));
    if rng.random() {
        for number in 1..8 {
            properties = properties.set_column_encoding(format!("c{number}").into(), Encoding::DELTA_BINARY_PACKED);
        }
    }
    properties.build()
}

/// A file with a column of each type.
fn write(path: &Path, rng: &mut StdRng, rows: usize) -> Vec<Type> {
    let types = types();
    let arrays = types.iter().enumerate().map(|(number, data_type)| {
        let array = array(rng, data_type, rows);
        (format!("c{number}"), array)
    });
    let batch = RecordBatch::try_from_iter_with_nullable(arrays.map(|(name, array)| (name, array, true))).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties(rng))).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    types
        .iter()
        .map(|data_type| Type::from_arrow(data_type).unwrap())
        .collect()
}

fn open(cache: &ColumnCache, folder: &Path, types: &[Type]) -> Arc<dyn ScanInput> {
    let path = folder.join("a.parquet");
    let size_bytes = std::fs::metadata(&path).unwrap().len();
    let table = TableFiles {
        name: "t".to_owned(),
        store_url: "file:///".to_owned(),
        store: Arc::new(LocalFileSystem::new_with_prefix(folder).unwrap()),
        lake: None,
        account: Arc::default(),
        files: vec![TableFile {
            location: "a.parquet".into(),
            size_bytes,
            version: size_bytes.to_string(),
            e_tag: None,
            modified_us: None,
            local: Some(path),
            partition: Vec::new(),
            kept: None,
        }],
        columns: types
            .iter()
            .enumerate()
            .map(|(number, data_type)| ColumnRequest {
                source: ColumnSource::File(format!("c{number}")),
                data_type: data_type.clone(),
            })
            .collect(),
        test: RowTest::True,
        limit: None,
        readers: 1,
        stops: false,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let options = OpenOptions::new(Arc::new(Unlimited), 1);
    let opened = runtime.block_on(cache.open(table, options)).unwrap();
    // What opening decoded for dictionaries is cold again.
    cache.shrink(usize::MAX);
    opened
}

/// All rows, as they are.
fn graph(types: &[Type]) -> Arc<Graph> {
    let field = |(number, data_type): (usize, &Type)| Field {
        name: format!("c{number}"),
        data_type: data_type.clone(),
        nullable: true,
    };
    let fields: Vec<Field> = types.iter().enumerate().map(field).collect();
    Arc::new(Graph {
        version: GRAPH_VERSION,
        fragments: vec![Fragment {
            source: Source::Scan(0),
            steps: Vec::new(),
            sink: Sink::Emit { limit: None, offset: 0 },
            output: fields.clone(),
        }],
        scans: vec![ScanSource {
            name: "t".to_owned(),
            columns: fields.clone(),
        }],
        streams: Vec::new(),
        parameters: Vec::new(),
        output: fields,
    })
}

fn inputs(scan: Arc<dyn ScanInput>) -> Inputs {
    Inputs {
        scans: vec![scan],
        streams: Vec::new(),
        parameters: Vec::new(),
        workers: 2,
        pool: Arc::new(Unlimited),
        cancelled: Arc::default(),
        batch_rows: 1024,
        emit: None,
        wake: None,
    }
}

fn sorted(rows: Vec<trireme_device_testkit::values::Row>) -> Vec<String> {
    let mut texts: Vec<String> = rows.into_iter().map(|row| format!("{row:?}")).collect();
    texts.sort_unstable();
    texts
}

/// Rows of a device, and what it took.
fn on_device(variant: &dyn Variant, graph: &Arc<Graph>, inputs: &Inputs) -> (Vec<String>, FragmentReport) {
    let kernel = variant.prepare_many(graph, &[0], inputs, &[None]).unwrap();
    step_until_done(kernel.as_ref(), 2).unwrap();
    let Output::Many(mut outputs) = kernel.finish().unwrap() else {
        panic!("many outputs");
    };
    let rows = last_rows(outputs.pop().map(|(_, output)| output)).unwrap();
    let (_, report) = kernel.reports().pop().unwrap();
    (sorted(rows), report)
}

fn check(name: &str, rounds: u64, sizes: &[usize], fresh: &dyn Fn(u64) -> Arc<dyn Variant>) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("TRIREME_SEED").unwrap_or_else(rand::random);
    let rounds = number("TRIREME_ROUNDS").unwrap_or(rounds);
    println!("TRIREME_SEED={seed}");
    let folder = tempfile::tempdir().unwrap();
    let (mut encoded, mut decoded, mut reasons) = (0, 0, std::collections::BTreeMap::new());
    for round in 0..rounds {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_add(round));
        let rows = *sizes.choose(&mut rng).unwrap();
        let types = write(&folder.path().join("a.parquet"), &mut rng, rows);
        let cache = ColumnCache::new(CacheLimits {
            segment_rows: *[100, 400, 1 << 20].choose(&mut rng).unwrap(),
            ..CacheLimits::default()
        });
        let graph = graph(&types);
        let due = run(
            &FusedVariant::new(),
            &graph,
            inputs(open(&cache, folder.path(), &types)),
            1,
        )
        .unwrap();
        let scan = open(&cache, folder.path(), &types);
        let (found, report) = on_device(fresh(seed ^ round).as_ref(), &graph, &inputs(scan));
        let due = sorted(due);
        assert_eq!(found.len(), due.len(), "{name}, round {round}");
        if let Some((found, due)) = found.iter().zip(&due).find(|(found, due)| found != due) {
            panic!("{name}, round {round}, {rows} rows: {found} is not {due}");
        }
        encoded += report.encoded_bytes;
        decoded += report.decoded_bytes;
        for (reason, count) in report.host_decoded {
            *reasons.entry(reason).or_insert(0) += count;
        }
    }
    println!("{name}: {encoded} bytes encoded became {decoded}; on the host: {reasons:?}");
    assert!(encoded > 0 && encoded < decoded, "{encoded} {decoded}");
    let faults = reasons.get("pages that the device could not decode");
    assert_eq!(faults, None, "{reasons:?}");
}

#[test]
fn the_simulated_device_decodes_pages() {
    let host: Arc<dyn Variant> = Arc::new(FusedVariant::new());
    check("simulated", 5, &[31, 500, 900], &|seed| {
        let script = Script {
            seed,
            ..Script::default()
        };
        let limits = Limits {
            encoded: Encoded::On,
            ..Limits::default()
        };
        let (_, device) = device(&script, 0, &host, limits).unwrap();
        device.variant()
    });
}

#[test]
fn opencl_decodes_pages() {
    let settings = OpenClSettings {
        arena_bytes_max: Some(64 << 20),
        limits: Limits {
            encoded: Encoded::On,
            ..Limits::default()
        },
        options: "-cl-opt-disable".to_owned(),
        ..OpenClSettings::default()
    };
    let probed = OpenClBackend::new(settings, Arc::new(FusedVariant::new())).probe();
    let Some(device) = probed.devices.into_iter().next() else {
        let reason = probed.absent.unwrap_or_default();
        assert!(
            std::env::var("TRIREME_REQUIRE_OPENCL").is_err(),
            "no OpenCL device: {reason}"
        );
        println!("skipped: no OpenCL device: {reason}");
        return;
    };
    check("OpenCL", 4, &[500, 2_100, 5_000], &|_| device.variant());
}
