//! Aggregates taken apart into what is accumulated, and how results are put together again.
//!
//! AVG needs a sum and a count, SUM needs to know whether there was a value at all; several aggregates of one query share
//! them. So a fragment's aggregates become a list of distinct *primitives*, each one state array, and one *finish* per
//! aggregate. TPC-H Q1's eight aggregates are five sums and one count.

use std::sync::Arc;

use trireme_device_api::{Aggregate, AggregateFunction, Dictionary, Type};

use crate::vector::Shape;

/// What one state array accumulates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Operation {
    /// Rows.
    Rows,
    /// Rows whose argument is a value.
    Valid,
    /// Exact sum of integral values, none of them larger than `largest` in magnitude.
    Sum { largest: u128 },
    /// Sum of floats.
    SumFloat,
    /// Smallest or largest value that has a 64-bit order key.
    Extreme { max: bool },
    /// Of integral values beyond 64 bits.
    ExtremeWide { max: bool },
    /// Of strings that aren't codes.
    ExtremeBytes { max: bool },
    /// Count, mean and sum of squared distances of `value / divisor`.
    Moments { divisor: f64 },
    /// Count and sum of distinct values.
    Distinct { kind: DistinctKind },
}

/// How a distinct value is kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum DistinctKind {
    /// Integral, below `2^bits` after subtraction of `low`.
    Integral { low: i128, bits: u32 },
    /// Floats, by their bits.
    Float,
    /// Strings.
    Bytes,
}

/// One state array: what, of which aggregate's argument, under which aggregate's FILTER.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Primitive {
    pub(super) operation: Operation,
    pub(super) argument: usize,
    pub(super) filter: Option<usize>,
    /// Validity of the argument matters.
    pub(super) nullable: bool,
}

/// How a 64-bit order key becomes a value again.
#[derive(Debug, Clone)]
pub(super) enum Order {
    Integer,
    Boolean,
    Float,
    /// The place in byte order.
    Rank(Arc<Dictionary>),
}

/// How an aggregate's result follows from primitives, which are named by position.
#[derive(Debug, Clone)]
pub(super) enum Finish {
    Count(usize),
    /// NULL where `count` is 0; `count` is none where each group has a value.
    Sum {
        sum: usize,
        count: Option<usize>,
    },
    /// `sum · factor / count`, truncated.
    AverageDecimal {
        sum: usize,
        count: usize,
        factor: i128,
    },
    /// `sum / divisor / count`.
    AverageFloat {
        sum: usize,
        count: usize,
        divisor: f64,
    },
    Extreme {
        state: usize,
        count: Option<usize>,
        order: Order,
    },
    ExtremeWide {
        state: usize,
        count: Option<usize>,
    },
    ExtremeBytes(usize),
    Variance {
        moments: usize,
        sample: bool,
        root: bool,
    },
    CountDistinct(usize),
    SumDistinct(usize),
    AverageDistinct {
        state: usize,
        divisor: f64,
        factor: Option<i128>,
    },
}

/// The primitives of a fragment and how they make its aggregates.
#[derive(Debug, Clone, Default)]
pub(super) struct Recipe {
    pub(super) primitives: Vec<Primitive>,
    pub(super) finishes: Vec<(Finish, Type)>,
}

/// Whether an aggregate can be computed.
///
/// # Errors
/// Why not.
pub(super) fn supported(aggregate: &Aggregate) -> Result<(), String> {
    let name = format!("{:?}", aggregate.function).to_uppercase();
    let Some(argument) = &aggregate.argument else {
        return match (aggregate.function, aggregate.distinct) {
            (AggregateFunction::Count, false) => Ok(()),
            _ => Err(format!("{name} without an argument is not fused")),
        };
    };
    let data_type = &argument.data_type;
    let number = data_type.is_integer() || data_type.is_float() || matches!(data_type, Type::Decimal { .. });
    let fine = match aggregate.function {
        AggregateFunction::Count => {
            !aggregate.distinct || !matches!(data_type, Type::Interval(_)) && *data_type != Type::Null
        }
        AggregateFunction::Sum => number && sums(data_type, &aggregate.data_type),
        AggregateFunction::Average => number && averages(data_type, &aggregate.data_type),
        AggregateFunction::Min | AggregateFunction::Max => {
            let ordered = data_type.is_integral() || data_type.is_float() || data_type.is_bytes();
            (ordered || *data_type == Type::Boolean) && *data_type == aggregate.data_type
        }
        AggregateFunction::VarianceSample
        | AggregateFunction::VariancePopulation
        | AggregateFunction::StddevSample
        | AggregateFunction::StddevPopulation => number && aggregate.data_type == Type::Float64 && !aggregate.distinct,
        AggregateFunction::BoolAnd | AggregateFunction::BoolOr => *data_type == Type::Boolean,
        AggregateFunction::First | AggregateFunction::Last => *data_type == aggregate.data_type,
    };
    if fine {
        Ok(())
    } else {
        let distinct = if aggregate.distinct { "DISTINCT " } else { "" };
        let result = &aggregate.data_type;
        Err(format!("{name}({distinct}{data_type:?}) as {result:?} is not fused"))
    }
}

fn sums(argument: &Type, result: &Type) -> bool {
    match (argument, result) {
        (Type::Decimal { scale, .. }, Type::Decimal { scale: kept, .. }) => scale == kept,
        (Type::Decimal { .. }, _) => false,
        (argument, result) if argument.is_float() => result.is_float(),
        (_, result) => result.is_integer(),
    }
}

fn averages(argument: &Type, result: &Type) -> bool {
    match (argument, result) {
        (Type::Decimal { scale, .. }, Type::Decimal { scale: finer, .. }) => finer >= scale && finer - scale <= 18,
        (_, result) => *result == Type::Float64,
    }
}

/// `10^scale` as a float.
fn power(scale: i8) -> f64 {
    10_f64.powi(i32::from(scale))
}

fn scale_of(data_type: &Type) -> i8 {
    match data_type {
        Type::Decimal { scale, .. } => *scale,
        _ => 0,
    }
}

impl Recipe {
    /// Takes `aggregates` apart. `grouped` says that a group without rows doesn't exist.
    ///
    /// # Errors
    /// Why an aggregate isn't supported.
    pub(super) fn new(aggregates: &[(Aggregate, Option<Shape>)], grouped: bool) -> Result<Self, String> {
        let mut recipe = Recipe::default();
        for (index, (aggregate, shape)) in aggregates.iter().enumerate() {
            supported(aggregate)?;
            let same = |other: &(Aggregate, _)| other.0.argument == aggregate.argument;
            let argument = aggregates.iter().position(same).unwrap_or(index);
            let filter = aggregate.filter.as_ref().map(|wanted| {
                let same = |other: &(Aggregate, _)| other.0.filter.as_ref() == Some(wanted);
                aggregates.iter().position(same).unwrap_or(index)
            });
            let finish = match shape {
                None => Finish::Count(recipe.add(Operation::Rows, argument, filter, false)),
                Some(shape) => recipe.part(aggregate, shape, argument, filter, grouped),
            };
            recipe.finishes.push((finish, aggregate.data_type.clone()));
        }
        Ok(recipe)
    }

    /// All aggregates are COUNT(DISTINCT) of the same values of all rows.
    pub(super) fn counts_values(&self) -> bool {
        let counts = |(finish, _): &(Finish, Type)| matches!(finish, Finish::CountDistinct(0));
        matches!(&self.primitives[..], [only] if only.filter.is_none()) && self.finishes.iter().all(counts)
    }

    fn add(&mut self, operation: Operation, argument: usize, filter: Option<usize>, nullable: bool) -> usize {
        let argument = if operation == Operation::Rows { 0 } else { argument };
        let wanted = Primitive {
            operation,
            argument,
            filter,
            nullable,
        };
        if let Some(found) = self.primitives.iter().position(|primitive| *primitive == wanted) {
            return found;
        }
        self.primitives.push(wanted);
        self.primitives.len() - 1
    }

    /// The count of values under the filter.
    fn count(&mut self, argument: usize, filter: Option<usize>, nullable: bool) -> usize {
        let operation = if nullable { Operation::Valid } else { Operation::Rows };
        self.add(operation, argument, filter, nullable)
    }

    fn part(
        &mut self,
        aggregate: &Aggregate,
        shape: &Shape,
        argument: usize,
        filter: Option<usize>,
        grouped: bool,
    ) -> Finish {
        let nullable = shape.nullable || shape.data_type == Type::Null;
        let function = aggregate.function;
        let ordinary = matches!(
            function,
            AggregateFunction::Count | AggregateFunction::Sum | AggregateFunction::Average
        );
        if aggregate.distinct && ordinary {
            return self.distinct(aggregate, shape, argument, filter);
        }
        let present = |recipe: &mut Self| {
            let needed = nullable || filter.is_some() || !grouped;
            needed.then(|| recipe.count(argument, filter, nullable))
        };
        match function {
            AggregateFunction::Count => Finish::Count(self.count(argument, filter, nullable)),
            AggregateFunction::Sum => Finish::Sum {
                sum: self.add(sum_of(shape), argument, filter, nullable),
                count: present(self),
            },
            AggregateFunction::Average => {
                let sum = self.add(sum_of(shape), argument, filter, nullable);
                let count = self.count(argument, filter, nullable);
                let scale = scale_of(&shape.data_type);
                match &aggregate.data_type {
                    Type::Decimal { scale: finer, .. } => Finish::AverageDecimal {
                        sum,
                        count,
                        factor: 10_i128.pow((finer - scale).unsigned_abs().into()),
                    },
                    _ => Finish::AverageFloat {
                        sum,
                        count,
                        divisor: power(scale),
                    },
                }
            }
            AggregateFunction::VarianceSample
            | AggregateFunction::VariancePopulation
            | AggregateFunction::StddevSample
            | AggregateFunction::StddevPopulation => {
                let divisor = power(scale_of(&shape.data_type));
                Finish::Variance {
                    moments: self.add(Operation::Moments { divisor }, argument, filter, nullable),
                    sample: matches!(
                        function,
                        AggregateFunction::VarianceSample | AggregateFunction::StddevSample
                    ),
                    root: matches!(
                        function,
                        AggregateFunction::StddevSample | AggregateFunction::StddevPopulation
                    ),
                }
            }
            AggregateFunction::Min
            | AggregateFunction::Max
            | AggregateFunction::BoolAnd
            | AggregateFunction::BoolOr
            | AggregateFunction::First
            | AggregateFunction::Last => {
                let max = matches!(function, AggregateFunction::Max | AggregateFunction::BoolOr);
                self.extreme(shape, max, argument, filter, present)
            }
        }
    }

    fn extreme(
        &mut self,
        shape: &Shape,
        max: bool,
        argument: usize,
        filter: Option<usize>,
        present: impl FnOnce(&mut Self) -> Option<usize>,
    ) -> Finish {
        let nullable = shape.nullable;
        if shape.data_type.is_bytes() && shape.dictionary.is_none() {
            return Finish::ExtremeBytes(self.add(Operation::ExtremeBytes { max }, argument, filter, nullable));
        }
        let (low, high) = bounds(shape);
        if i64::try_from(low).is_err() || i64::try_from(high).is_err() {
            let state = self.add(Operation::ExtremeWide { max }, argument, filter, nullable);
            let count = present(self);
            return Finish::ExtremeWide { state, count };
        }
        let order = match &shape.dictionary {
            Some(dictionary) => Order::Rank(Arc::clone(dictionary)),
            None if shape.data_type.is_float() => Order::Float,
            None if shape.data_type == Type::Boolean => Order::Boolean,
            None => Order::Integer,
        };
        let state = self.add(Operation::Extreme { max }, argument, filter, nullable);
        let count = present(self);
        Finish::Extreme { state, count, order }
    }

    fn distinct(&mut self, aggregate: &Aggregate, shape: &Shape, argument: usize, filter: Option<usize>) -> Finish {
        let kind = if shape.data_type.is_bytes() && shape.dictionary.is_none() {
            DistinctKind::Bytes
        } else if shape.data_type.is_float() {
            DistinctKind::Float
        } else {
            let (low, high) = bounds(shape);
            let span = high.wrapping_sub(low).cast_unsigned();
            DistinctKind::Integral {
                low,
                bits: 128 - span.leading_zeros(),
            }
        };
        let state = self.add(Operation::Distinct { kind }, argument, filter, shape.nullable);
        match aggregate.function {
            AggregateFunction::Count => Finish::CountDistinct(state),
            AggregateFunction::Sum => Finish::SumDistinct(state),
            _ => {
                let scale = scale_of(&shape.data_type);
                let factor = match &aggregate.data_type {
                    Type::Decimal { scale: finer, .. } => Some(10_i128.pow((finer - scale).unsigned_abs().into())),
                    _ => None,
                };
                Finish::AverageDistinct {
                    state,
                    divisor: power(scale),
                    factor,
                }
            }
        }
    }
}

/// Bounds of a shape's integral values: its own, else its type's; codes and booleans by number.
pub(super) fn bounds(shape: &Shape) -> (i128, i128) {
    if let Some(dictionary) = &shape.dictionary {
        return (0, (dictionary.len() as i128 - 1).max(0));
    }
    let full = match shape.data_type {
        Type::Boolean => (0, 1),
        _ => shape.data_type.value_range().unwrap_or((0, 0)),
    };
    let (low, high) = shape.range.unwrap_or(full);
    (low, high.max(low))
}

fn sum_of(shape: &Shape) -> Operation {
    if shape.data_type.is_float() {
        return Operation::SumFloat;
    }
    let (low, high) = bounds(shape);
    Operation::Sum {
        largest: low.unsigned_abs().max(high.unsigned_abs()),
    }
}
