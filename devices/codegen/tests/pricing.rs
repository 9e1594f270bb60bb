//! TPC-H's pricing summary (Q1: eight aggregates of four groups) as kernels for a graphics processor: launches, registers.
//!
//! `TRIREME_KERNELS=folder` keeps the CUDA texts, for `check-kernels`.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

#[path = "compiled/nvrtc.rs"]
#[allow(dead_code, reason = "a part is used")]
mod nvrtc;
#[path = "compiled/usage.rs"]
#[allow(dead_code, reason = "a part is used")]
mod usage;

use std::sync::Arc;

use nvrtc::Nvrtc;
use trireme_device_api::{
    Aggregate, AggregateFunction, BinaryOperator, DeviceColumn, DeviceError, Dictionary, Expr, Field, Fragment,
    GRAPH_VERSION, Graph, ScanSource, Sink, Source, Step, Strings, Type, Value,
};
use trireme_device_codegen::ir::Elem;
use trireme_device_codegen::print::{CUDA_OPTIONS, Dialect, print};
use trireme_device_codegen::shape::{ColumnShape, ScanShape, Storage};
use trireme_device_codegen::{Bound, Hints, Host, Program, Target, lower};
use usage::usages;

const fn decimal(precision: u8, scale: i8) -> Type {
    Type::Decimal { precision, scale }
}

/// Quantity, extended price, discount, tax, return flag, line status, ship date.
fn columns() -> Vec<(&'static str, Type, (i128, i128), Storage)> {
    let whole = |elem| Storage::Integer(elem);
    vec![
        ("l_quantity", decimal(15, 2), (100, 5_000), whole(Elem::I16)),
        (
            "l_extendedprice",
            decimal(15, 2),
            (90_100, 10_494_950),
            whole(Elem::I32),
        ),
        ("l_discount", decimal(15, 2), (0, 10), whole(Elem::I8)),
        ("l_tax", decimal(15, 2), (0, 8), whole(Elem::I8)),
        ("l_returnflag", Type::Utf8View, (0, 2), Storage::Code(Elem::U8)),
        ("l_linestatus", Type::Utf8View, (0, 1), Storage::Code(Elem::U8)),
        ("l_shipdate", Type::Date32, (8_036, 10_561), whole(Elem::I16)),
    ]
}

fn scan(rows: u64) -> ScanShape {
    let dictionary = |values: &[&str]| {
        let values = Strings::from_values(values.iter().map(|value| value.as_bytes()));
        Some(Arc::new(Dictionary::new(values)))
    };
    let columns = columns()
        .into_iter()
        .map(|(name, data_type, range, storage)| ColumnShape {
            data_type,
            storage,
            nullable: false,
            range: (!matches!(storage, Storage::Code(_))).then_some(range),
            dictionary: match name {
                "l_returnflag" => dictionary(&["A", "N", "R"]),
                "l_linestatus" => dictionary(&["F", "O"]),
                _ => None,
            },
            clustered: false,
        });
    ScanShape {
        columns: columns.collect(),
        rows,
        segments: rows.div_ceil(1 << 20),
    }
}

fn field(name: &str, data_type: Type) -> Field {
    Field {
        name: name.to_owned(),
        data_type,
        nullable: false,
    }
}

fn graph() -> Graph {
    use BinaryOperator::{Add, LessOrEqual, Multiply, Subtract};
    let column = |index: usize| Expr::column(index, columns()[index].1.clone());
    let one = || Expr::literal(Value::Int(1), decimal(20, 0));
    let date = Expr::literal(Value::Int(10_471), Type::Date32);
    let filter = Expr::binary(LessOrEqual, column(6), date, Type::Boolean);
    let rest = Expr::binary(Subtract, one(), column(2), decimal(23, 2));
    let price = Expr::binary(Multiply, column(1), rest, decimal(38, 4));
    let taxed = Expr::binary(Add, one(), column(3), decimal(23, 2));
    let charge = Expr::binary(Multiply, price.clone(), taxed, decimal(38, 6));
    let aggregate = |function, argument: Option<Expr>, data_type: Type| Aggregate {
        function,
        argument,
        distinct: false,
        filter: None,
        order: Vec::new(),
        data_type,
    };
    let sum = |argument, data_type| aggregate(AggregateFunction::Sum, Some(argument), data_type);
    let average = |index| aggregate(AggregateFunction::Average, Some(column(index)), decimal(19, 6));
    let aggregates = vec![
        sum(column(0), decimal(25, 2)),
        sum(column(1), decimal(25, 2)),
        sum(price, decimal(38, 4)),
        sum(charge, decimal(38, 6)),
        average(0),
        average(1),
        average(2),
        aggregate(AggregateFunction::Count, None, Type::Int64),
    ];
    let groups = vec![column(4), column(5)];
    let types = groups.iter().map(|group| group.data_type.clone());
    let types = types.chain(aggregates.iter().map(|aggregate| aggregate.data_type.clone()));
    let output: Vec<Field> = types.map(|data_type| field("result", data_type)).collect();
    let fields = columns()
        .into_iter()
        .map(|(name, data_type, ..)| field(name, data_type));
    Graph {
        version: GRAPH_VERSION,
        scans: vec![ScanSource {
            name: "lineitem".to_owned(),
            columns: fields.collect(),
        }],
        streams: Vec::new(),
        fragments: vec![Fragment {
            source: Source::Scan(0),
            steps: vec![Step::Filter(filter)],
            sink: Sink::Aggregate { groups, aggregates },
            output: output.clone(),
        }],
        parameters: Vec::new(),
        output,
    }
}

/// Nothing here is asked of the host.
struct NoHost;

impl Host for NoHost {
    fn evaluate(&self, _: &Expr, _: &DeviceColumn, _: &[Value]) -> Result<DeviceColumn, DeviceError> {
        Err(DeviceError::Internal("the host was asked".to_owned()))
    }
}

fn program(rows: u64, wide: bool) -> Program {
    let scans = [scan(rows)];
    let bound = Bound {
        scans: &scans,
        streams: &[],
        outputs: &[None],
        parameters: &[],
        host: &NoHost,
        hints: Hints::default(),
    };
    let target = Target {
        group: if wide { 256 } else { 64 },
        items: 4,
        work_items: 1 << 16,
        local_bytes: 48 << 10,
        wide,
        large_bytes: None,
    };
    lower(&graph(), 0, &bound, target).unwrap()
}

#[test]
fn the_pricing_summary_fits_registers() {
    for (name, rows) in [("q1_sf1", 6_001_215), ("q1_sf100", 600_037_902)] {
        let program = program(rows, true);
        assert!(program.launches.len() <= 3, "{name}: {:?}", program.launches);
        let text = print(&program.module, Dialect::Cuda);
        if let Ok(folder) = std::env::var("TRIREME_KERNELS") {
            std::fs::write(format!("{folder}/{name}.cu"), &text).unwrap();
        }
        let Some(nvrtc) = Nvrtc::get() else {
            continue;
        };
        let compiled = nvrtc.compile(&text, "sm_90", CUDA_OPTIONS);
        assert!(compiled.cubin.is_some(), "{name}: {}", compiled.log);
        for usage in usages(&compiled.log) {
            let (kernel, registers) = (&usage.kernel, usage.registers);
            println!("{name}: {kernel}: {registers} registers");
            assert!(!usage.spills(), "{name}: {kernel} spills");
            assert!(registers <= 128, "{name}: {kernel} takes {registers} registers");
        }
    }
}

#[test]
fn the_text_is_the_same_for_all_amounts_of_rows_of_a_class() {
    let text = |rows| print(&program(rows, false).module, Dialect::OpenCl);
    assert_eq!(text(6_001_215), text(5_999_999));
}
