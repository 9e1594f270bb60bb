//! Random well-typed expressions over the columns of `data::table`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, StringArray};
use rand::Rng;
use rand::rngs::StdRng;
use trireme_device_api::{
    BinaryOperator, DatePart, Expr, HostFunction, HostFunctionRef, Interval, IntervalKind, Node, TimeUnit, Type, Value,
};

use super::data::WORDS;
use crate::vector::Shape;

struct Generator<'g> {
    random: &'g mut StdRng,
    row: &'g [Shape],
}

/// An expression of any type.
pub(super) fn expression(random: &mut StdRng, row: &[Shape]) -> Expr {
    let mut generator = Generator { random, row };
    let depth = generator.random.random_range(1..5);
    if generator.flip(2) {
        return generator.boolean(depth);
    }
    let data_type = generator.data_type();
    generator.value(&data_type, depth)
}

pub(super) fn dec(precision: u8, scale: i8) -> Type {
    Type::Decimal { precision, scale }
}

pub(super) fn stamp() -> Type {
    Type::Timestamp {
        unit: TimeUnit::Microsecond,
        zone: None,
    }
}

const COMPARISONS: [BinaryOperator; 8] = [
    BinaryOperator::Equal,
    BinaryOperator::NotEqual,
    BinaryOperator::Less,
    BinaryOperator::LessOrEqual,
    BinaryOperator::Greater,
    BinaryOperator::GreaterOrEqual,
    BinaryOperator::Distinct,
    BinaryOperator::NotDistinct,
];

const ARITHMETIC: [BinaryOperator; 5] = [
    BinaryOperator::Add,
    BinaryOperator::Subtract,
    BinaryOperator::Multiply,
    BinaryOperator::Divide,
    BinaryOperator::Remainder,
];

const PARTS: [DatePart; 10] = [
    DatePart::Year,
    DatePart::Quarter,
    DatePart::Month,
    DatePart::Week,
    DatePart::Day,
    DatePart::DayOfWeek,
    DatePart::DayOfYear,
    DatePart::Hour,
    DatePart::Minute,
    DatePart::Second,
];

impl Generator<'_> {
    fn flip(&mut self, of: u32) -> bool {
        self.random.random_range(0..of) == 0
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.random.random_range(0..of.len())].clone()
    }

    fn data_type(&mut self) -> Type {
        let types = [
            Type::Int8,
            Type::Int16,
            Type::Int32,
            Type::Int64,
            Type::UInt8,
            Type::UInt64,
            dec(15, 2),
            dec(38, 4),
            Type::Float64,
            Type::Float32,
            Type::Date32,
            stamp(),
            Type::Utf8,
            Type::Boolean,
        ];
        self.pick(&types)
    }

    fn boolean(&mut self, depth: u32) -> Expr {
        if depth == 0 {
            return self.leaf(&Type::Boolean);
        }
        let depth = depth - 1;
        let node = match self.random.random_range(0..12) {
            0 | 1 => {
                let op = self.pick(&[BinaryOperator::And, BinaryOperator::Or]);
                return Expr::binary(op, self.boolean(depth), self.boolean(depth), Type::Boolean);
            }
            2 => Node::Not(Box::new(self.boolean(depth))),
            3 => {
                let data_type = self.data_type();
                let operand = Box::new(self.value(&data_type, depth));
                if self.flip(2) {
                    Node::IsNull(operand)
                } else {
                    Node::IsNotNull(operand)
                }
            }
            4 => {
                let data_type = self.data_type();
                let count = self.pick(&[1, 2, 5, 20]);
                Node::InList {
                    expr: Box::new(self.value(&data_type, depth)),
                    list: (0..count).map(|_| self.constant(&data_type)).collect(),
                    negated: self.flip(2),
                }
            }
            5 => self.like(depth),
            6 => self.case(&Type::Boolean, depth),
            7 => {
                // Both bounds of one operand.
                let data_type = self.data_type();
                let operand = self.value(&data_type, depth);
                let low = self.constant(&data_type);
                let high = self.constant(&data_type);
                let (first, second) = (self.pick(&COMPARISONS[..6]), self.pick(&COMPARISONS[..6]));
                let left = Expr::binary(first, operand.clone(), low, Type::Boolean);
                let right = Expr::binary(second, high, operand, Type::Boolean);
                return Expr::binary(BinaryOperator::And, left, right, Type::Boolean);
            }
            _ => {
                let data_type = self.data_type();
                let op = self.pick(&COMPARISONS);
                let left = self.value(&data_type, depth);
                let other = match data_type {
                    Type::Decimal { .. } if self.flip(2) => dec(15, 2),
                    other => other,
                };
                let right = if self.flip(2) {
                    self.constant(&other)
                } else {
                    self.value(&other, depth)
                };
                return Expr::binary(op, left, right, Type::Boolean);
            }
        };
        Expr {
            node,
            data_type: Type::Boolean,
        }
    }

    fn like(&mut self, depth: u32) -> Node {
        let patterns = [
            "%", "A%", "%a", "%e%s%", "_", "%b_", r"%\%", "", "MAIL", "a%c", "%ÄÖ%", "%abc%c",
        ];
        let pattern = self.pick(&patterns);
        Node::Like {
            expr: Box::new(self.value(&Type::Utf8, depth)),
            pattern: Box::new(Expr::literal(Value::Bytes(pattern.as_bytes().into()), Type::Utf8)),
            negated: self.flip(2),
            case_insensitive: self.flip(3),
        }
    }

    fn case(&mut self, data_type: &Type, depth: u32) -> Node {
        let count = self.random.random_range(1..3);
        Node::Case {
            branches: (0..count)
                .map(|_| (self.boolean(depth), self.value(data_type, depth)))
                .collect(),
            otherwise: (!self.flip(3)).then(|| Box::new(self.value(data_type, depth))),
        }
    }

    fn value(&mut self, data_type: &Type, depth: u32) -> Expr {
        if *data_type == Type::Boolean {
            return self.boolean(depth);
        }
        if depth == 0 || self.flip(6) {
            return self.leaf(data_type);
        }
        let depth = depth - 1;
        let with = |node| Expr {
            node,
            data_type: data_type.clone(),
        };
        match self.random.random_range(0..6) {
            0 => with(self.case(data_type, depth)),
            1 => {
                let from = self.data_type();
                let from = if from == Type::Boolean { Type::Int32 } else { from };
                let operand = Box::new(self.value(&from, depth));
                with(Node::Cast {
                    expr: operand,
                    safe: self.flip(2),
                })
            }
            _ => self.special(data_type, depth),
        }
    }

    /// What only this type has.
    fn special(&mut self, data_type: &Type, depth: u32) -> Expr {
        let with = |node| Expr {
            node,
            data_type: data_type.clone(),
        };
        match data_type {
            Type::Date32 => {
                let interval = self.interval();
                let op = self.pick(&ARITHMETIC[..2]);
                Expr::binary(op, self.value(data_type, depth), interval, Type::Date32)
            }
            Type::Timestamp { .. } => {
                let interval = self.interval();
                let op = self.pick(&ARITHMETIC[..2]);
                Expr::binary(op, self.value(data_type, depth), interval, stamp())
            }
            Type::Utf8 => with(Node::Host {
                function: function("upper", Upper),
                args: vec![self.value(&Type::Utf8, depth)],
            }),
            Type::Int32 if self.flip(2) => {
                let from = self.pick(&[Type::Date32, stamp()]);
                with(Node::Extract {
                    part: self.pick(&PARTS),
                    expr: Box::new(self.value(&from, depth)),
                })
            }
            Type::Int32 if self.flip(2) => with(Node::Host {
                function: function("length", Length),
                args: vec![self.value(&Type::Utf8, depth)],
            }),
            Type::Int64 if self.flip(4) => {
                let op = self.pick(&[BinaryOperator::BitAnd, BinaryOperator::BitOr, BinaryOperator::BitXor]);
                Expr::binary(
                    op,
                    self.value(data_type, depth),
                    self.value(data_type, depth),
                    Type::Int64,
                )
            }
            Type::Decimal { .. } => {
                let from = self.pick(&[dec(15, 2), dec(38, 4)]);
                let op = self.pick(&ARITHMETIC);
                Expr::binary(
                    op,
                    self.value(&from, depth),
                    self.value(&dec(15, 2), depth),
                    data_type.clone(),
                )
            }
            _ if self.flip(8) => with(Node::Negate(Box::new(self.value(data_type, depth)))),
            _ => {
                let op = self.pick(&ARITHMETIC);
                Expr::binary(
                    op,
                    self.value(data_type, depth),
                    self.value(data_type, depth),
                    data_type.clone(),
                )
            }
        }
    }

    fn interval(&mut self) -> Expr {
        let interval = Interval {
            months: self.pick(&[0, 0, 1, -3, 12]),
            days: self.pick(&[0, 1, -40]),
            nanoseconds: self.pick(&[0, 0, 1_500, -90_000_000_000_000]),
        };
        Expr::literal(Value::Interval(interval), Type::Interval(IntervalKind::MonthDayNano))
    }

    fn leaf(&mut self, data_type: &Type) -> Expr {
        let columns: Vec<usize> = (0..self.row.len())
            .filter(|at| self.row[*at].data_type == *data_type)
            .collect();
        if self.flip(4) {
            return self.constant(data_type);
        }
        Expr::column(self.pick(&columns), data_type.clone())
    }

    fn constant(&mut self, data_type: &Type) -> Expr {
        if self.flip(12) {
            return Expr::literal(Value::Null, data_type.clone());
        }
        if *data_type == Type::Int64 && self.flip(4) {
            return Expr {
                node: Node::Parameter(self.random.random_range(0..2)),
                data_type: Type::Int64,
            };
        }
        let value = match data_type {
            Type::Boolean => Value::Boolean(self.flip(2)),
            Type::Float64 | Type::Float32 => Value::Float(self.pick(&[0.0, -0.0, 1.0, f64::NAN, 3.0, -1.5])),
            Type::Utf8 => Value::Bytes(self.pick(&WORDS).as_bytes().into()),
            Type::Date32 => Value::Int(self.random.random_range(-10_010..20_010)),
            Type::Timestamp { .. } => {
                Value::Int(self.random.random_range(-2_000_000_000_000_000..4_000_000_000_000_000))
            }
            _ => {
                let (low, high) = data_type.value_range().unwrap();
                let small = self.random.random_range(-20..20_i128).clamp(low, high);
                let value = self.random.random_range(0..1100_i128).clamp(low, high);
                Value::Int(self.pick(&[0, 1, low, high, small, small, value, value]))
            }
        };
        Expr::literal(value, data_type.clone())
    }
}

pub(super) fn function(name: &str, implementation: impl HostFunction + 'static) -> HostFunctionRef {
    HostFunctionRef {
        name: name.to_owned(),
        implementation: Some(Arc::new(implementation)),
    }
}

/// Upper case; an error for "MAIL".
pub(super) struct Upper;

impl HostFunction for Upper {
    fn evaluate(&self, args: &[ArrayRef], _rows: usize) -> Result<ArrayRef, String> {
        let values = args[0].as_string::<i32>();
        let one = |value: Option<&str>| match value {
            Some("MAIL") => Err("no mail".to_owned()),
            other => Ok(other.map(str::to_uppercase)),
        };
        let result: Result<StringArray, String> = values.iter().map(one).collect();
        Ok(Arc::new(result?))
    }
}

/// Characters.
pub(super) struct Length;

impl HostFunction for Length {
    fn evaluate(&self, args: &[ArrayRef], rows: usize) -> Result<ArrayRef, String> {
        assert_eq!(args[0].len(), rows);
        let values = args[0].as_string::<i32>();
        let lengths = values
            .iter()
            .map(|value| value.map(|value| value.chars().count() as i32));
        Ok(Arc::new(lengths.collect::<Int32Array>()))
    }
}

/// An expression in one line.
pub(super) fn show(expr: &Expr) -> String {
    let list = |exprs: &[&Expr]| exprs.iter().map(|expr| show(expr)).collect::<Vec<_>>().join(", ");
    let name = match &expr.node {
        Node::Column(index) => format!("#{index}"),
        Node::Literal(Value::Bytes(bytes)) => format!("'{}'", String::from_utf8_lossy(bytes)),
        Node::Literal(value) => format!("{value:?}"),
        Node::Parameter(index) => format!("${index}"),
        Node::Binary { op, .. } => format!("{op:?}"),
        Node::Not(_) => "Not".to_owned(),
        Node::Negate(_) => "Negate".to_owned(),
        Node::IsNull(_) => "IsNull".to_owned(),
        Node::IsNotNull(_) => "IsNotNull".to_owned(),
        Node::Cast { safe, .. } => format!("Cast(safe={safe})"),
        Node::Case { otherwise, .. } => format!("Case(else={})", otherwise.is_some()),
        Node::InList { negated, .. } => format!("In(negated={negated})"),
        Node::Like { negated, .. } => format!("Like(negated={negated})"),
        Node::Extract { part, .. } => format!("{part:?}"),
        Node::Function { function, .. } => function.name().to_owned(),
        Node::Host { function, .. } => function.name.clone(),
    };
    match expr.children()[..] {
        [] => format!("{name}:{:?}", expr.data_type),
        ref children => format!("{name}({}):{:?}", list(children), expr.data_type),
    }
}
