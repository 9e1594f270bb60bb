//! Expressions of a wanted type over given columns.

use arrow::compute::can_cast_types;
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use trireme_device_api::{AggregateFunction, BinaryOperator, DatePart, Expr, IntervalKind, Node, Type, Value};

use super::data::{Flavor, all_types, literal_of, value};
use super::{Column, host};
use crate::values::text;

/// Draws expressions.
pub(super) struct Expressions<'a> {
    pub(super) rng: &'a mut SmallRng,
    pub(super) columns: &'a [Column],
    /// Types and values of the graph's parameters; new ones are added.
    pub(super) parameters: &'a mut Vec<(Type, Value)>,
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

/// The type of arithmetic on two operands that are both of a type (decimals: of any two), as DataFusion has it.
pub fn arithmetic_type(op: BinaryOperator, left: &Type, right: &Type) -> Option<Type> {
    use BinaryOperator as Op;
    match (left, right) {
        (
            Type::Decimal {
                precision: p1,
                scale: s1,
            },
            Type::Decimal {
                precision: p2,
                scale: s2,
            },
        ) => {
            let (p1, s1, p2, s2) = (i16::from(*p1), i16::from(*s1), i16::from(*p2), i16::from(*s2));
            let (precision, scale) = match op {
                Op::Add | Op::Subtract => ((p1 - s1).max(p2 - s2) + s1.max(s2) + 1, s1.max(s2)),
                Op::Multiply => (p1 + p2 + 1, s1 + s2),
                Op::Divide => {
                    let scale = (s1 + 4).min(38);
                    (p1 + scale - s1 + s2, scale)
                }
                Op::Remainder => ((p1 - s1).min(p2 - s2) + s1.max(s2), s1.max(s2)),
                _ => return None,
            };
            let precision = u8::try_from(precision.clamp(1, 38)).ok()?;
            let scale = i8::try_from(scale)
                .ok()
                .filter(|scale| i16::from(*scale) <= i16::from(precision))?;
            Some(Type::Decimal { precision, scale })
        }
        (left, right) if left != right => None,
        (Type::Float32 | Type::Float64, _) if ARITHMETIC.contains(&op) => Some(left.clone()),
        _ if left.is_integer() => Some(left.clone()),
        _ => None,
    }
}

/// The type of an aggregate of an argument, as DataFusion has it; none where there is no such aggregate.
pub fn aggregate_type(function: AggregateFunction, argument: &Type) -> Option<Type> {
    use AggregateFunction as Function;
    let number = argument.is_integer() || argument.is_float() || matches!(argument, Type::Decimal { .. });
    match (function, argument) {
        (Function::Count, _) => Some(Type::Int64),
        (Function::First | Function::Last, _) => Some(argument.clone()),
        (Function::Min | Function::Max, Type::Null | Type::Interval(_)) => None,
        (Function::Min | Function::Max, _) => Some(argument.clone()),
        (Function::Sum, Type::Int8 | Type::Int16 | Type::Int32 | Type::Int64) => Some(Type::Int64),
        (Function::Sum, Type::UInt8 | Type::UInt16 | Type::UInt32 | Type::UInt64) => Some(Type::UInt64),
        (Function::Sum, Type::Float32 | Type::Float64) => Some(Type::Float64),
        (Function::Sum, Type::Decimal { precision, scale }) => Some(Type::Decimal {
            precision: precision.saturating_add(10).min(38),
            scale: *scale,
        }),
        (Function::Average, Type::Decimal { precision, scale }) => Some(Type::Decimal {
            precision: precision.saturating_add(4).min(38),
            scale: scale.saturating_add(4).min(38),
        }),
        (Function::BoolAnd | Function::BoolOr, Type::Boolean) => Some(Type::Boolean),
        (
            Function::Average
            | Function::VarianceSample
            | Function::VariancePopulation
            | Function::StddevSample
            | Function::StddevPopulation,
            _,
        ) if number => Some(Type::Float64),
        _ => None,
    }
}

/// An expression over columns, of a type or of any; parameters that it needs are added.
pub fn expression(
    wanted: Option<&Type>,
    columns: &[Column],
    depth: usize,
    parameters: &mut Vec<(Type, Value)>,
    rng: &mut SmallRng,
) -> Expr {
    let mut expressions = Expressions {
        rng,
        columns,
        parameters,
    };
    let any = expressions.some_type();
    expressions.expr(wanted.unwrap_or(&any), depth)
}

impl Expressions<'_> {
    /// An expression of the type, at most so deep.
    pub(super) fn expr(&mut self, wanted: &Type, depth: usize) -> Expr {
        if depth == 0 || self.rng.random_bool(0.2) {
            return self.leaf(wanted);
        }
        match self.rng.random_range(0..10) {
            0 => self.case(wanted, depth),
            1 => self.cast(wanted, depth),
            _ => self.operation(wanted, depth),
        }
    }

    /// A boolean one that compares, mostly.
    pub(super) fn predicate(&mut self, depth: usize) -> Expr {
        if self.rng.random_bool(0.6) {
            self.comparison(depth)
        } else {
            self.expr(&Type::Boolean, depth.max(1))
        }
    }

    /// The type of some exact column, or any.
    pub(super) fn some_type(&mut self) -> Type {
        let exact: Vec<&Column> = self.columns.iter().filter(|column| column.exact).collect();
        match exact.choose(self.rng) {
            Some(column) if self.rng.random_bool(0.85) => column.field.data_type.clone(),
            _ => all_types().choose(self.rng).cloned().unwrap_or(Type::Null),
        }
    }

    fn constant(&mut self, wanted: &Type) -> Expr {
        if self.rng.random_bool(0.15) && !matches!(wanted, Type::Null) {
            let value = value(wanted, Flavor::Small, self.rng);
            self.parameters.push((wanted.clone(), value));
            return Expr {
                node: Node::Parameter(self.parameters.len() - 1),
                data_type: wanted.clone(),
            };
        }
        literal_of(wanted, self.rng)
    }

    pub(super) fn leaf(&mut self, wanted: &Type) -> Expr {
        let fitting: Vec<usize> = (0..self.columns.len())
            .filter(|index| self.columns[*index].exact && self.columns[*index].field.data_type == *wanted)
            .collect();
        match fitting.choose(self.rng) {
            Some(index) if self.rng.random_bool(0.85) => Expr::column(*index, wanted.clone()),
            _ => self.constant(wanted),
        }
    }

    fn case(&mut self, wanted: &Type, depth: usize) -> Expr {
        let branches = (0..self.rng.random_range(1..3)).map(|_| {
            let condition = self.predicate(depth - 1);
            (condition, self.expr(wanted, depth - 1))
        });
        let branches = branches.collect();
        let otherwise = self
            .rng
            .random_bool(0.7)
            .then(|| Box::new(self.expr(wanted, depth - 1)));
        Expr {
            node: Node::Case { branches, otherwise },
            data_type: wanted.clone(),
        }
    }

    fn cast(&mut self, wanted: &Type, depth: usize) -> Expr {
        let from = self.some_type();
        if from == *wanted || !can_cast_types(&from.to_arrow(), &wanted.to_arrow()) {
            return self.operation(wanted, depth);
        }
        let operand = self.expr(&from, depth - 1);
        self.cast_of(operand, wanted)
    }

    fn cast_of(&mut self, operand: Expr, wanted: &Type) -> Expr {
        if operand.data_type == *wanted {
            return operand;
        }
        Expr {
            node: Node::Cast {
                expr: Box::new(operand),
                safe: self.rng.random_bool(0.6),
            },
            data_type: wanted.clone(),
        }
    }

    fn operation(&mut self, wanted: &Type, depth: usize) -> Expr {
        match wanted {
            Type::Boolean => self.boolean(depth),
            Type::Int32 if self.rng.random_bool(0.4) => self.int32(depth),
            Type::Decimal { .. } => self.decimal(wanted, depth),
            Type::Date32 | Type::Timestamp { zone: None, .. } => self.plus_interval(wanted, depth),
            Type::Interval(_) | Type::Null | Type::Time(_) | Type::Timestamp { .. } => self.leaf(wanted),
            _ if wanted.is_text() => match self.rng.random_bool(0.8) {
                true => self
                    .function(wanted, wanted, depth)
                    .unwrap_or_else(|| self.leaf(wanted)),
                false => {
                    let argument = self.expr(wanted, depth - 1);
                    host::upper(argument)
                }
            },
            _ if wanted.is_bytes() => self.leaf(wanted),
            _ => self.number(wanted, depth),
        }
    }

    fn number(&mut self, wanted: &Type, depth: usize) -> Expr {
        if self.rng.random_bool(0.1) && !matches!(wanted, Type::UInt8 | Type::UInt16 | Type::UInt32 | Type::UInt64) {
            let operand = self.expr(wanted, depth - 1);
            return Expr {
                node: Node::Negate(Box::new(operand)),
                data_type: wanted.clone(),
            };
        }
        let bits = [BinaryOperator::BitAnd, BinaryOperator::BitOr, BinaryOperator::BitXor];
        let op = if wanted.is_integer() && self.rng.random_bool(0.15) {
            bits[self.rng.random_range(0..3)]
        } else {
            ARITHMETIC[self.rng.random_range(0..5)]
        };
        let left = self.expr(wanted, depth - 1);
        let right = self.right_operand(op, wanted, depth);
        Expr::binary(op, left, right, wanted.clone())
    }

    /// A divisor is mostly a constant that isn't zero.
    fn right_operand(&mut self, op: BinaryOperator, wanted: &Type, depth: usize) -> Expr {
        if matches!(op, BinaryOperator::Divide | BinaryOperator::Remainder) && self.rng.random_bool(0.8) {
            let seven = match wanted {
                Type::Float32 | Type::Float64 => Value::Float(3.5),
                _ => Value::Int(self.rng.random_range(1..9)),
            };
            return Expr::literal(seven, wanted.clone());
        }
        self.expr(wanted, depth - 1)
    }

    fn decimal(&mut self, wanted: &Type, depth: usize) -> Expr {
        let decimals: Vec<Type> = all_types()
            .into_iter()
            .filter(|data_type| matches!(data_type, Type::Decimal { .. }))
            .collect();
        let op = ARITHMETIC[self.rng.random_range(0..5)];
        let left = decimals[self.rng.random_range(0..decimals.len())].clone();
        let right = decimals[self.rng.random_range(0..decimals.len())].clone();
        let Some(result) = arithmetic_type(op, &left, &right) else {
            return self.leaf(wanted);
        };
        let left = self.expr(&left, depth - 1);
        let right = self.right_operand(op, &right, depth);
        let operation = Expr::binary(op, left, right, result);
        self.cast_of(operation, wanted)
    }

    fn plus_interval(&mut self, wanted: &Type, depth: usize) -> Expr {
        let kinds = [
            IntervalKind::YearMonth,
            IntervalKind::DayTime,
            IntervalKind::MonthDayNano,
        ];
        let interval = Type::Interval(kinds[self.rng.random_range(0..3)]);
        let left = self.expr(wanted, depth - 1);
        let right = self.leaf(&interval);
        if self.rng.random_bool(0.1) {
            return Expr::binary(BinaryOperator::Add, right, left, wanted.clone());
        }
        let op = ARITHMETIC[self.rng.random_range(0..2)];
        Expr::binary(op, left, right, wanted.clone())
    }

    fn int32(&mut self, depth: usize) -> Expr {
        let wanted = self.some_type();
        match &wanted {
            Type::Date32 | Type::Timestamp { zone: None, .. } => Expr {
                node: Node::Extract {
                    part: PARTS[self.rng.random_range(0..PARTS.len())],
                    expr: Box::new(self.expr(&wanted, depth - 1)),
                },
                data_type: Type::Int32,
            },
            text if text.is_text() => match self.function(text, &Type::Int32, depth) {
                Some(call) if self.rng.random_bool(0.8) => call,
                _ => {
                    let argument = self.expr(&wanted, depth - 1);
                    host::length(argument)
                }
            },
            _ => self.number(&Type::Int32, depth),
        }
    }

    fn comparison(&mut self, depth: usize) -> Expr {
        let mut wanted = self.some_type();
        if matches!(wanted, Type::Interval(_) | Type::Null) {
            wanted = Type::Int64;
        }
        let depth = depth.saturating_sub(1);
        let left = self.expr(&wanted, depth);
        let right = match &wanted {
            Type::Decimal { precision: 18.., scale } if self.rng.random_bool(0.2) => {
                let scale = (*scale + 2).min(12);
                self.expr(&Type::Decimal { precision: 20, scale }, depth)
            }
            _ => self.expr(&wanted, depth),
        };
        let op = COMPARISONS[self.rng.random_range(0..COMPARISONS.len())];
        Expr::binary(op, left, right, Type::Boolean)
    }

    fn boolean(&mut self, depth: usize) -> Expr {
        let node = match self.rng.random_range(0..10) {
            0..3 => return self.comparison(depth),
            3 | 4 => {
                let op = if self.rng.random_bool(0.5) {
                    BinaryOperator::And
                } else {
                    BinaryOperator::Or
                };
                let left = self.predicate(depth - 1);
                return Expr::binary(op, left, self.predicate(depth - 1), Type::Boolean);
            }
            5 => Node::Not(Box::new(self.predicate(depth - 1))),
            6 | 7 => {
                let operand = self.some_type();
                let operand = Box::new(self.expr(&operand, depth - 1));
                if self.rng.random_bool(0.5) {
                    Node::IsNull(operand)
                } else {
                    Node::IsNotNull(operand)
                }
            }
            8 if self.rng.random_bool(0.5) => return self.in_list(depth),
            9 if self.rng.random_bool(0.5) => return self.text_test(depth),
            _ => return self.like(depth),
        };
        Expr {
            node,
            data_type: Type::Boolean,
        }
    }

    fn in_list(&mut self, depth: usize) -> Expr {
        let mut wanted = self.some_type();
        if matches!(wanted, Type::Interval(_) | Type::Null) {
            wanted = Type::Utf8;
        }
        let expr = Box::new(self.expr(&wanted, depth - 1));
        let most = if self.rng.random_bool(0.1) { 40 } else { 5 };
        let list = (0..self.rng.random_range(1..=most))
            .map(|_| self.constant(&wanted))
            .collect();
        Expr {
            node: Node::InList {
                expr,
                list,
                negated: self.rng.random_bool(0.4),
            },
            data_type: Type::Boolean,
        }
    }

    fn like(&mut self, depth: usize) -> Expr {
        let wanted = self.some_text();
        let pattern = self.pattern();
        Expr {
            node: Node::Like {
                expr: Box::new(self.expr(&wanted, depth - 1)),
                pattern: Box::new(Expr::literal(text(&pattern), wanted)),
                negated: self.rng.random_bool(0.3),
                case_insensitive: self.rng.random_bool(0.3),
            },
            data_type: Type::Boolean,
        }
    }

    fn text_test(&mut self, depth: usize) -> Expr {
        let wanted = self.some_text();
        let call = self.function(&wanted, &Type::Boolean, depth);
        call.unwrap_or_else(|| self.leaf(&Type::Boolean))
    }

    fn some_text(&mut self) -> Type {
        let texts = [Type::Utf8, Type::LargeUtf8, Type::Utf8View];
        match self.some_type() {
            found if found.is_text() => found,
            _ => texts[self.rng.random_range(0..3)].clone(),
        }
    }

    /// Mostly one that some usual string nearly matches.
    fn pattern(&mut self) -> String {
        let pieces = ["%", "_", "a", "b", "ä", "\\%", "\\_", "\\\\", "A", "€", "ab"];
        if self.rng.random_bool(0.4) {
            return (0..self.rng.random_range(0..5))
                .filter_map(|_| pieces.choose(self.rng))
                .copied()
                .collect();
        }
        let Value::Bytes(usual) = value(&Type::Utf8, Flavor::Small, self.rng) else {
            return String::new();
        };
        let mut pattern = String::new();
        for c in String::from_utf8_lossy(&usual).chars() {
            match self.rng.random_range(0..10) {
                0 => pattern.push('%'),
                1 => pattern.push('_'),
                2 => pattern.extend(c.to_uppercase()),
                3 => pattern.extend(c.to_lowercase()),
                4 => pattern.extend(['%', c]),
                5 => pattern.extend(['\\', c]),
                _ => pattern.push(c),
            }
        }
        pattern
    }
}
