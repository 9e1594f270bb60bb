//! Projects one expression of a small table: layouts, memory, interpreter, and the result read back.

use std::sync::Arc;

use trireme_device_api::{
    DeviceColumn, DeviceError, Dictionary, Expr, Field, Fragment, GRAPH_VERSION, Graph, ScanSource, Sink, Source, Step,
    Strings, Type, Value, Values, ZoneMap,
};
use trireme_device_testkit::interpreter::evaluate;
use trireme_device_testkit::values::value_of;

use crate::bytecode::{Room, interpreted};
use crate::interpreter::{Code, Machine, Schedule};
use crate::ir::Elem;
use crate::lower::{Bound, Hints, Host, Lowered, Target, lower};
use crate::program::{Fault, Fill, Groups, Program, ProgramOutput, Word};
use crate::shape::{ColumnShape, HANDLE_LENGTH_BITS, RegionRef, ResidentRows, ScanShape, Storage};

/// A column and how it lies.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) data_type: Type,
    pub(super) values: Vec<Value>,
    /// Strings by themselves, not as codes.
    pub(super) raw: bool,
    /// The range of the values is known.
    pub(super) exact_range: bool,
}

pub(super) struct Table {
    pub(super) columns: Vec<Column>,
    pub(super) rows: usize,
}

pub(super) enum Outcome {
    Rows(Vec<Value>),
    Fault(DeviceError),
}

impl Table {
    pub(super) fn row(&self, row: usize) -> Vec<Value> {
        self.columns.iter().map(|column| column.values[row].clone()).collect()
    }
}

/// Equal, and floats by their bits, but for NaNs.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()),
        _ => a == b,
    }
}

/// Evaluates naively.
struct NaiveHost;

impl Host for NaiveHost {
    fn evaluate(&self, expr: &Expr, entries: &DeviceColumn, parameters: &[Value]) -> Result<DeviceColumn, DeviceError> {
        let value = |row| evaluate(expr, &[value_of(entries, row)?], parameters);
        let values = (0..entries.rows).map(value).collect::<Result<Vec<_>, _>>()?;
        Ok(column_of(&values, &expr.data_type))
    }
}

fn column_of(values: &[Value], data_type: &Type) -> DeviceColumn {
    let int = |value: &Value| match value {
        Value::Int(value) => *value,
        _ => 0,
    };
    let float = |value: &Value| match value {
        Value::Float(value) => *value,
        _ => 0.0,
    };
    let stored = match data_type {
        Type::Null => Values::Nulls,
        Type::Boolean => Values::Booleans(values.iter().map(|value| *value == Value::Boolean(true)).collect()),
        Type::Float32 => Values::Float32(
            values
                .iter()
                .map(|value| float(value) as f32)
                .collect::<Vec<_>>()
                .into(),
        ),
        Type::Float64 => Values::Float64(values.iter().map(float).collect::<Vec<_>>().into()),
        Type::Interval(_) => {
            let interval = |value: &Value| match value {
                Value::Interval(interval) => *interval,
                _ => Default::default(),
            };
            Values::Intervals(values.iter().map(interval).collect())
        }
        data_type if data_type.is_bytes() => Values::Strings(strings(values)),
        _ => Values::Wide(values.iter().map(int).collect::<Vec<_>>().into()),
    };
    let nulls = values.contains(&Value::Null) && *data_type != Type::Null;
    DeviceColumn {
        data_type: data_type.clone(),
        rows: values.len(),
        values: stored,
        validity: nulls.then(|| values.iter().map(|value| *value != Value::Null).collect()),
        zone: ZoneMap::default(),
    }
}

fn strings(values: &[Value]) -> Strings {
    Strings::from_values(values.iter().map(|value| match value {
        Value::Bytes(bytes) => bytes.as_ref(),
        _ => &[],
    }))
}

impl Column {
    fn nullable(&self) -> bool {
        self.values.contains(&Value::Null)
    }

    fn integers(&self) -> impl Iterator<Item = i128> {
        self.values.iter().filter_map(|value| match value {
            Value::Int(value) => Some(*value),
            _ => None,
        })
    }

    fn range(&self) -> Option<(i128, i128)> {
        let known = self.integers().min().zip(self.integers().max());
        match self.data_type.value_range() {
            Some(_) if self.exact_range => known.or(Some((0, 0))),
            other => other,
        }
    }

    fn dictionary(&self) -> Option<Arc<Dictionary>> {
        if !self.data_type.is_bytes() || self.raw {
            return None;
        }
        let mut distinct: Vec<&[u8]> = Vec::new();
        for value in &self.values {
            if let Value::Bytes(bytes) = value
                && !distinct.contains(&bytes.as_ref())
            {
                distinct.push(bytes);
            }
        }
        Some(Arc::new(Dictionary::new(Strings::from_values(distinct))))
    }

    fn shape(&self) -> ColumnShape {
        let range = self.range();
        let wide = range.is_some_and(|(low, high)| i64::try_from(low).is_err() || i64::try_from(high).is_err());
        let storage = match &self.data_type {
            Type::Null => Storage::Null,
            Type::Boolean => Storage::Bits,
            Type::Float32 => Storage::Float32,
            Type::Float64 => Storage::Float64,
            data_type if data_type.is_bytes() && self.raw => Storage::Offsets,
            data_type if data_type.is_bytes() => Storage::Code(Elem::U8),
            _ if wide => Storage::Wide,
            _ => Storage::Integer(Elem::I64),
        };
        ColumnShape {
            data_type: self.data_type.clone(),
            storage,
            nullable: self.nullable(),
            range,
            dictionary: self.dictionary(),
            clustered: false,
        }
    }

    /// Values, base, validity, bytes.
    fn upload(&self, machine: &mut Machine, shape: &ColumnShape) -> [u64; 4] {
        let mut write = |bytes: &[u8]| {
            let at = machine.place(bytes.len().next_multiple_of(8).max(8) as u64).unwrap();
            machine.write(at, bytes).unwrap();
            at
        };
        let any = self.integers().next().unwrap_or(shape.range.map_or(0, |(low, _)| low));
        let ints = self.values.iter().map(|value| match value {
            Value::Int(value) => *value,
            _ => any,
        });
        let floats = self.values.iter().map(|value| match value {
            Value::Float(value) => *value,
            _ => 0.0,
        });
        let bits = |flags: Vec<bool>| {
            let mut bits = vec![0_u8; flags.len().div_ceil(8)];
            for (at, flag) in flags.into_iter().enumerate() {
                bits[at / 8] |= u8::from(flag) << (at % 8);
            }
            bits
        };
        let validity = match shape.nullable && shape.storage != Storage::Null {
            true => write(&bits(self.values.iter().map(|value| *value != Value::Null).collect())),
            false => 0,
        };
        let mut more = 0;
        let base = 5_i64;
        let values = match shape.storage {
            Storage::Integer(_) => {
                let carrier = ints.map(|value| i64::try_from(value).unwrap().wrapping_sub(base));
                write(&carrier.flat_map(i64::to_le_bytes).collect::<Vec<u8>>())
            }
            Storage::Wide => write(&ints.flat_map(i128::to_le_bytes).collect::<Vec<u8>>()),
            Storage::Float32 => write(
                &floats
                    .flat_map(|value| (value as f32).to_le_bytes())
                    .collect::<Vec<u8>>(),
            ),
            Storage::Float64 => write(&floats.flat_map(f64::to_le_bytes).collect::<Vec<u8>>()),
            Storage::Bits => write(&bits(
                self.values.iter().map(|value| *value == Value::Boolean(true)).collect(),
            )),
            Storage::Code(_) => {
                let dictionary = shape.dictionary.as_ref().unwrap();
                let code = |value: &Value| match value {
                    Value::Bytes(bytes) => (0..dictionary.len())
                        .position(|code| dictionary.get(code as u32) == bytes.as_ref())
                        .unwrap() as u8,
                    _ => 0,
                };
                write(&self.values.iter().map(code).collect::<Vec<u8>>())
            }
            Storage::Offsets => {
                let strings = strings(&self.values);
                more = write(&strings.bytes);
                write(
                    &strings
                        .offsets
                        .iter()
                        .flat_map(|offset| offset.to_le_bytes())
                        .collect::<Vec<u8>>(),
                )
            }
            _ => 0,
        };
        [values, base.cast_unsigned(), validity, more]
    }
}

/// The expression's value for each row, or a fault of some row.
pub(super) fn project(table: &Table, expr: &Expr, parameters: &[Value], seed: u64) -> Lowered<Outcome> {
    let ids = Column {
        data_type: Type::Int64,
        values: (0..table.rows).map(|row| Value::Int(row as i128)).collect(),
        raw: false,
        exact_range: true,
    };
    let columns: Vec<&Column> = table.columns.iter().chain([&ids]).collect();
    let scan = ScanShape {
        columns: columns.iter().map(|column| column.shape()).collect(),
        rows: table.rows as u64,
        segments: u64::MAX,
    };
    let graph = graph(&columns, expr);
    let bound = Bound {
        scans: std::slice::from_ref(&scan),
        streams: &[],
        outputs: &[],
        parameters,
        host: &NaiveHost,
        hints: Hints::default(),
    };
    let target = Target {
        group: 8,
        items: 1,
        work_items: 64,
        local_bytes: 1 << 14,
        wide: true,
        large_bytes: None,
    };
    let program = lower(&graph, 0, &bound, target)?;
    Ok(run(&program, &columns, &scan, seed))
}

fn graph(columns: &[&Column], expr: &Expr) -> Graph {
    let field = |data_type: &Type| Field {
        name: "c".to_owned(),
        data_type: data_type.clone(),
        nullable: true,
    };
    let output = vec![field(&Type::Int64), field(&expr.data_type)];
    let id = Expr::column(columns.len() - 1, Type::Int64);
    Graph {
        version: GRAPH_VERSION,
        fragments: vec![Fragment {
            source: Source::Scan(0),
            steps: vec![Step::Project(vec![id, expr.clone()])],
            sink: Sink::Emit { limit: None, offset: 0 },
            output: output.clone(),
        }],
        scans: vec![ScanSource {
            name: "t".to_owned(),
            columns: columns.iter().map(|column| field(&column.data_type)).collect(),
        }],
        streams: Vec::new(),
        parameters: Vec::new(),
        output,
    }
}

fn as_data(program: &Program) -> Program {
    let room = Room {
        bytes: 1 << 18,
        groups: 2,
    };
    interpreted(program, room).unwrap()
}

fn run(program: &Program, columns: &[&Column], scan: &ScanShape, seed: u64) -> Outcome {
    let mut machine = Machine::new(1 << 20);
    let data = (seed % 64 == 7).then(|| as_data(program));
    let program = data.as_ref().unwrap_or(program);
    let mut regions = Vec::new();
    for region in &program.regions {
        let bytes = region.bytes.next_multiple_of(8).max(8);
        let at = machine.place(bytes).unwrap();
        match region.fill {
            Fill::Nothing => {}
            Fill::Byte(byte) => machine.fill(at, bytes, u64::from_le_bytes([byte; 8])).unwrap(),
            Fill::Word(word) => machine.fill(at, bytes, word).unwrap(),
        }
        regions.push(at);
    }
    let rows = scan.rows;
    let mut words = vec![1, rows.div_ceil(program.tile_rows), rows, 0];
    for (column, shape) in columns.iter().zip(&scan.columns) {
        words.extend(column.upload(&mut machine, shape));
    }
    let segments = machine.place(words.len() as u64 * 8).unwrap();
    machine.write_words(segments, &words).unwrap();
    let tables: Vec<u64> = program
        .tables
        .iter()
        .map(|content| {
            let at = machine.place(content.len().max(8) as u64).unwrap();
            machine.write(at, content).unwrap();
            at
        })
        .collect();
    let at = machine.place(program.words.len().max(1) as u64 * 8).unwrap();
    let block: Vec<u64> = program
        .words
        .iter()
        .map(|word| match *word {
            Word::Value(value) => value,
            Word::Region(region, more) => regions[region.region] + more,
            Word::Segments => segments,
            Word::Block => at,
            Word::Table(table) => tables[table],
        })
        .collect();
    machine.write_words(at, &block).unwrap();
    let code = Code::new(&program.module).unwrap_or_else(|wrong| panic!("SEED={seed}: {wrong}"));
    for launch in &program.launches {
        let groups = match launch.groups {
            Groups::One => 1,
            Groups::Rows(_) => 2,
        };
        let at = at + launch.block * 8;
        let stats = machine.run(&code, launch.kernel, groups, at, &Schedule::sequential());
        stats.unwrap_or_else(|wrong| panic!("SEED={seed}: {wrong}"));
    }
    let status = machine.read_words(regions[program.status.region], 1).unwrap()[0];
    if status != 0 {
        let fault = &program.faults[status.trailing_zeros() as usize];
        let Fault::Error(error) = fault else {
            panic!("SEED={seed}: {fault:?}");
        };
        return Outcome::Fault(error.clone());
    }
    let ProgramOutput::Rows(resident) = &program.output else {
        panic!("SEED={seed}: no rows");
    };
    Outcome::Rows(read(&machine, &regions, resident, rows))
}

fn read(machine: &Machine, regions: &[u64], resident: &ResidentRows, rows: u64) -> Vec<Value> {
    let place = |region: RegionRef| regions[region.region];
    let count = machine.read_words(place(resident.count), 1).unwrap()[0];
    assert_eq!(count, rows);
    let mut found = vec![Value::Null; usize::try_from(rows).unwrap()];
    for row in 0..rows {
        let value = |column: usize| {
            let column = &resident.columns[column];
            let Some(values) = column.values else {
                return Value::Null;
            };
            if let Some(validity) = column.validity
                && machine.read(place(validity) + row, 1).unwrap() == [0]
            {
                return Value::Null;
            }
            stored(machine, &column.shape, place(values), row)
        };
        let Value::Int(id) = value(0) else {
            panic!("a row without number");
        };
        found[usize::try_from(id).unwrap()] = value(1);
    }
    found
}

fn stored(machine: &Machine, shape: &ColumnShape, values: u64, row: u64) -> Value {
    let raw = |bytes: u64| machine.read(values + row * bytes, bytes).unwrap();
    let unsigned = |bytes: u64| {
        raw(bytes)
            .iter()
            .rev()
            .fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
    };
    match shape.storage {
        Storage::Integer(elem) => {
            let bytes = u64::from(elem.bytes());
            let unused = 64 - 8 * bytes;
            Value::Int(((unsigned(bytes) << unused).cast_signed() >> unused).into())
        }
        Storage::Wide => Value::Int(i128::from_le_bytes(raw(16).try_into().unwrap())),
        Storage::Float32 => Value::Float(f32::from_le_bytes(raw(4).try_into().unwrap()).into()),
        Storage::Float64 => Value::Float(f64::from_le_bytes(raw(8).try_into().unwrap())),
        Storage::Bytes => Value::Boolean(raw(1) != [0]),
        Storage::Code(elem) => {
            let code = unsigned(u64::from(elem.bytes()));
            Value::Bytes(
                shape
                    .dictionary
                    .as_ref()
                    .unwrap()
                    .get(u32::try_from(code).unwrap())
                    .into(),
            )
        }
        Storage::Handles => {
            let handle = unsigned(8);
            let (at, length) = (handle >> HANDLE_LENGTH_BITS, handle & ((1 << HANDLE_LENGTH_BITS) - 1));
            Value::Bytes(if length == 0 {
                [].into()
            } else {
                machine.read(at, length).unwrap().into()
            })
        }
        other => panic!("{other:?}"),
    }
}

/// Days since 1970-01-01, counted.
pub(super) fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let years: i64 = if year >= 1970 {
        (1970..year).map(|year| 365 + i64::from(leap(year))).sum()
    } else {
        -(year..1970).map(|year| 365 + i64::from(leap(year))).sum::<i64>()
    };
    let lengths = [31, 28 + i64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    years + lengths[..(month - 1) as usize].iter().sum::<i64>() + day - 1
}
