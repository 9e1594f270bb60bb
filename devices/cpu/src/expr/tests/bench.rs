//! Nanoseconds per row of what hot pipelines ask for; run it optimised:
//! `cargo test --release -p trireme-device-cpu expr::tests::bench -- --ignored --nocapture`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow::buffer::ScalarBuffer;
use trireme_device_api::{
    BinaryOperator, Carrier, Codes, DatePart, DeviceColumn, Dictionary, Expr, Node, Strings, Type, Value, Values,
    ZoneMap,
};

use super::generate::dec;
use crate::expr::Program;
use crate::isa::Isa;
use crate::tile::{Origin, Selection, Slot, Tile};
use crate::vector::{Shape, TILE_ROWS};

const ROWS: usize = 1 << 18;
const REPEATS: usize = 30;

struct Segment {
    shapes: Vec<Shape>,
    columns: Vec<Arc<DeviceColumn>>,
}

impl Segment {
    fn push(&mut self, shape: Shape, values: Values) {
        self.columns.push(Arc::new(DeviceColumn {
            data_type: shape.data_type.clone(),
            rows: ROWS,
            values,
            validity: None,
            zone: ZoneMap::default(),
        }));
        self.shapes.push(shape);
    }

    fn integers(&mut self, data_type: Type, low: i64, high: i64) {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            low + (state % ((high - low) as u64 + 1)) as i64
        };
        let carrier = match high.max(-low) {
            0..=127 => Carrier::I8((0..ROWS).map(|_| next() as i8).collect()),
            128..=32_767 => Carrier::I16((0..ROWS).map(|_| next() as i16).collect()),
            32_768..=2_147_483_647 => Carrier::I32((0..ROWS).map(|_| next() as i32).collect()),
            _ => Carrier::I64((0..ROWS).map(|_| next()).collect()),
        };
        let mut shape = Shape::of_type(data_type, false);
        shape.range = Some((low.into(), high.into()));
        self.push(shape, Values::Integers { carrier, base: 0 });
    }
}

fn segment() -> Segment {
    let mut segment = Segment {
        shapes: Vec::new(),
        columns: Vec::new(),
    };
    segment.integers(dec(15, 2), 0, 10);
    segment.integers(dec(15, 2), 100, 5000);
    segment.integers(dec(15, 2), 90_000, 10_494_950);
    segment.integers(Type::Int64, 0, i64::MAX / 4);
    segment.integers(Type::Date32, 8036, 10_591);
    segment.integers(dec(15, 2), 0, 8);
    let words = ["AIR", "FOB", "MAIL", "RAIL", "REG AIR", "SHIP", "TRUCK"];
    let dictionary = Arc::new(Dictionary::new(Strings::from_values(
        words.iter().map(|word| word.as_bytes()),
    )));
    let codes: ScalarBuffer<u8> = (0..ROWS).map(|row| (row * 31 % 7) as u8).collect();
    let mut shape = Shape::of_type(Type::Utf8, false);
    shape.dictionary = Some(Arc::clone(&dictionary));
    segment.push(
        shape,
        Values::Codes {
            codes: Codes::U8(codes),
            dictionary,
        },
    );
    let texts: Vec<String> = (0..ROWS)
        .map(|row| format!("furiously {} deposits haggle {} requests", row * 7919 % 1000, row % 13))
        .collect();
    let strings = Strings::from_values(texts.iter().map(|text| text.as_bytes()));
    segment.push(Shape::of_type(Type::Utf8, false), Values::Strings(strings));
    segment
}

fn tile(segment: &Segment, selection: Selection, rows: usize) -> Tile<'_> {
    Tile {
        rows,
        origins: vec![Origin {
            columns: &segment.columns,
            selection,
        }],
        slots: (0..segment.columns.len())
            .map(|column| Slot::Origin { origin: 0, column })
            .collect(),
    }
}

fn measure(name: &str, segment: &Segment, mut run: impl FnMut(&mut Tile<'_>)) {
    let mut best = f64::MAX;
    for _ in 0..REPEATS {
        let begin = Instant::now();
        for start in (0..ROWS).step_by(TILE_ROWS) {
            run(&mut tile(segment, Selection::Range(start), TILE_ROWS));
        }
        best = best.min(begin.elapsed().as_nanos() as f64 / ROWS as f64);
    }
    println!("  {name:<44} {best:>7.3} ns/row   {:>6.2} rows/ns", 1.0 / best);
}

fn int(value: i128, data_type: Type) -> Expr {
    Expr::literal(Value::Int(value), data_type)
}

fn compare(op: BinaryOperator, column: usize, data_type: &Type, value: i128) -> Expr {
    let column = Expr::column(column, data_type.clone());
    Expr::binary(op, column, int(value, data_type.clone()), Type::Boolean)
}

fn and(left: Expr, right: Expr) -> Expr {
    Expr::binary(BinaryOperator::And, left, right, Type::Boolean)
}

fn q6() -> Expr {
    use BinaryOperator::{GreaterOrEqual, Less, LessOrEqual};
    let date = and(
        compare(GreaterOrEqual, 4, &Type::Date32, 8766),
        compare(Less, 4, &Type::Date32, 9131),
    );
    let discount = and(
        compare(GreaterOrEqual, 0, &dec(15, 2), 5),
        compare(LessOrEqual, 0, &dec(15, 2), 7),
    );
    and(and(date, discount), compare(Less, 1, &dec(15, 2), 2400))
}

fn disc_price() -> Expr {
    let one = Expr::binary(
        BinaryOperator::Subtract,
        int(100, dec(15, 2)),
        Expr::column(0, dec(15, 2)),
        dec(16, 2),
    );
    Expr::binary(BinaryOperator::Multiply, Expr::column(2, dec(15, 2)), one, dec(32, 4))
}

fn charge() -> Expr {
    let tax = Expr::binary(
        BinaryOperator::Add,
        int(100, dec(15, 2)),
        Expr::column(5, dec(15, 2)),
        dec(16, 2),
    );
    Expr::binary(BinaryOperator::Multiply, disc_price(), tax, dec(38, 6))
}

struct Bench<'s> {
    segment: &'s Segment,
    isa: Isa,
}

impl Bench<'_> {
    fn compile(&self, expr: &Expr) -> Program {
        Program::compile(expr, &self.segment.shapes, &[], self.isa).unwrap()
    }

    fn mask(&self, name: &str, expr: &Expr) {
        let program = self.compile(expr);
        measure(name, self.segment, |tile| {
            black_box(program.mask(tile).unwrap());
        });
    }

    fn eval(&self, name: &str, expr: &Expr) {
        let program = self.compile(expr);
        measure(name, self.segment, |tile| {
            black_box(program.eval(tile).unwrap());
        });
    }

    fn numbers(&self) {
        use BinaryOperator::{Add, Divide, Less};
        self.mask("mask i8 < constant", &compare(Less, 0, &dec(15, 2), 5));
        self.mask("mask i16 < constant", &compare(Less, 1, &dec(15, 2), 2400));
        self.mask("mask i32 < constant", &compare(Less, 2, &dec(15, 2), 5_000_000));
        self.mask(
            "mask i64 < constant",
            &compare(Less, 3, &Type::Int64, i128::from(i64::MAX / 8)),
        );
        self.mask("mask Q6 (i16 range, i8 range, i16)", &q6());
        self.eval("eval Q1 price*(1-discount)", &disc_price());
        self.eval("eval Q1 price*(1-discount)*(1+tax)", &charge());
        let column = |index| Expr::column(index, dec(15, 2));
        self.eval(
            "eval i32 / i16 decimals",
            &Expr::binary(Divide, column(2), column(1), dec(30, 6)),
        );
        let wide = || Expr::column(3, Type::Int64);
        let sum = Expr::binary(Add, wide(), wide(), Type::Int64);
        self.eval(
            "eval i64 sum of four (checked)",
            &Expr::binary(Add, sum.clone(), sum, Type::Int64),
        );
        let node = Node::Extract {
            part: DatePart::Year,
            expr: Box::new(Expr::column(4, Type::Date32)),
        };
        let data_type = Type::Int32;
        self.eval("eval EXTRACT(YEAR)", &Expr { node, data_type });
    }

    fn texts(&self) {
        let text = |word: &str| Expr::literal(Value::Bytes(word.as_bytes().into()), Type::Utf8);
        let boolean = |node| Expr {
            node,
            data_type: Type::Boolean,
        };
        let mode = || Expr::column(6, Type::Utf8);
        let among = Node::InList {
            expr: Box::new(mode()),
            list: vec![text("MAIL"), text("SHIP")],
            negated: false,
        };
        self.mask("mask dictionary IN ('MAIL', 'SHIP')", &boolean(among));
        let equal = Expr::binary(BinaryOperator::Equal, mode(), text("RAIL"), Type::Boolean);
        self.mask("mask dictionary = 'RAIL'", &equal);
        for pattern in ["%special%requests%", "%99 deposits%"] {
            let like = Node::Like {
                expr: Box::new(Expr::column(7, Type::Utf8)),
                pattern: Box::new(text(pattern)),
                negated: false,
                case_insensitive: false,
            };
            self.mask(&format!("mask raw LIKE '{pattern}'"), &boolean(like));
        }
    }

    fn filters(&self) {
        let filter = self.compile(&q6());
        let keep = |program: &Program, tile: &mut Tile<'_>| {
            if let Some(mask) = program.mask(tile).unwrap() {
                tile.retain(&mask, self.isa);
            }
        };
        measure("filter Q6: mask and retain", self.segment, |tile| keep(&filter, tile));
        let filter = self.compile(&compare(BinaryOperator::Less, 2, &dec(15, 2), 5_000_000));
        let charge = self.compile(&charge());
        measure("half filtered, charge of the rest (per row in)", self.segment, |tile| {
            keep(&filter, tile);
            black_box(charge.eval(tile).unwrap());
        });
    }
}

#[test]
#[ignore = "a measurement"]
fn nanoseconds_per_row() {
    let segment = segment();
    for isa in Isa::all_available() {
        println!("{}", isa.name());
        let bench = Bench { segment: &segment, isa };
        bench.numbers();
        bench.texts();
        bench.filters();
    }
}
