//! Aggregates taken apart into what is accumulated, and how results are put together again.
//!
//! ```text
//!  slot of a group:   [ rows | primitive | primitive (two words) | … ]      64-bit words, all 0 before the first row
//! ```
//!
//! AVG needs a sum and a count, SUM needs to know whether there was a value at all; several aggregates share them. So a
//! fragment's aggregates become distinct *primitives*, each a few words of a slot, and one *finish* per aggregate. Every
//! primitive's neutral element is 0 and every fold is commutative, so that private, replicated and shared slots can be
//! folded into each other in any order.

use std::sync::Arc;

use trireme_device_api::{Aggregate, AggregateFunction, Dictionary, SortKey, Type};

use super::best::Wanted;
use super::known::Known;
use crate::lower::{Kind, Lowered, Unsupported};

/// Rows that no device ever counts: what stands for an unknown bound.
pub(super) const ROWS_MAX: u64 = 1 << 48;

/// What a primitive accumulates.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operation {
    /// Rows, or values.
    Count,
    /// Exact sum of integral values, none larger than `largest` in magnitude: two's complement of so many words.
    Sum { words: u32, largest: u128 },
    /// Sum of `value` as F64.
    SumFloat,
    /// Largest code; the code of a value grows with it, or falls for MIN, and is not 0 where 0 says that there was none.
    Extreme { max: bool, order: Order },
    /// Handle of the smallest or largest bytes, plus one.
    ExtremeText { max: bool },
    /// A value of the group, and sums of distances from it and of their squares: `shift, sum, squares`.
    Moments { divisor: f64 },
    /// An entry of [`Recipe::bests`], by position.
    Best(usize),
    /// Exact sums of distances from `middle`, at most `largest`, and of their squares.
    ExactMoments {
        middle: i128,
        largest: u128,
        sum: u32,
        squares: u32,
    },
}

/// How values become codes that [`Operation::Extreme`] compares.
#[derive(Debug, Clone)]
pub(super) enum Order {
    /// By distance from the lower (MAX) or upper (MIN) bound; plus one where 64 bits have room for it.
    Integer { low: i128, high: i128 },
    /// False, true.
    Boolean,
    /// By bits; never 0.
    Float,
    /// By place in byte order.
    Rank(Arc<Dictionary>),
}

impl PartialEq for Order {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Order::Integer { low, high }, Order::Integer { low: from, high: to }) => (low, high) == (from, to),
            (Order::Boolean, Order::Boolean) | (Order::Float, Order::Float) => true,
            (Order::Rank(left), Order::Rank(right)) => Arc::ptr_eq(left, right),
            _ => false,
        }
    }
}

impl Order {
    /// The largest code.
    fn most(&self) -> Option<u128> {
        match self {
            Order::Integer { low, high } => Some(high.checked_sub(*low)?.unsigned_abs() + 1),
            Order::Boolean => Some(2),
            Order::Float => None,
            Order::Rank(dictionary) => Some(dictionary.len() as u128 + 1),
        }
    }

    /// Codes begin at 1, so that 0 says that there was no value.
    pub(super) fn tells_none(&self) -> bool {
        match self {
            Order::Integer { low, high } => high.wrapping_sub(*low) < i128::from(u64::MAX),
            _ => true,
        }
    }
}

/// How words of a slot are folded into each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fold {
    /// Sum of so many words with carry.
    Add(u32),
    /// Sum of F64, as bits.
    AddFloat,
    /// The larger.
    Max,
    /// Handle plus one of the larger or smaller bytes.
    Text { max: bool },
    /// Chosen once for all.
    Once,
}

impl Fold {
    pub(super) fn words(self) -> u32 {
        match self {
            Fold::Add(words) => words,
            _ => 1,
        }
    }
}

impl Operation {
    pub(super) fn folds(&self) -> Vec<Fold> {
        match self {
            Operation::Count => vec![Fold::Add(1)],
            Operation::Sum { words, .. } => vec![Fold::Add(*words)],
            Operation::SumFloat => vec![Fold::AddFloat],
            Operation::Extreme { .. } => vec![Fold::Max],
            Operation::ExtremeText { max } => vec![Fold::Text { max: *max }],
            Operation::Best(_) => vec![Fold::Once],
            Operation::Moments { .. } => vec![Fold::Once, Fold::AddFloat, Fold::AddFloat],
            Operation::ExactMoments { sum, squares, .. } => vec![Fold::Add(*sum), Fold::Add(*squares)],
        }
    }

    /// What the words of each fold hold, in magnitude, after so many rows; none where that isn't known.
    pub(super) fn magnitudes(&self, rows: u64) -> Vec<Option<u128>> {
        let sum = |largest: u128| largest.checked_mul(u128::from(rows));
        match self {
            Operation::Count => vec![sum(1)],
            Operation::Sum { largest, .. } => vec![sum(*largest)],
            Operation::ExactMoments { largest, .. } => {
                vec![sum(*largest), largest.checked_mul(*largest).and_then(sum)]
            }
            Operation::Extreme { order, .. } => vec![order.most()],
            _ => self.folds().iter().map(|_| None).collect(),
        }
    }

    pub(super) fn words(&self) -> u32 {
        self.folds().iter().map(|fold| fold.words()).sum()
    }
}

/// What, of which argument, of which rows.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Primitive {
    pub(super) operation: Operation,
    /// Position among [`Recipe::arguments`]; none counts rows.
    pub(super) argument: Option<usize>,
    /// Position among [`Recipe::filters`].
    pub(super) filter: Option<usize>,
    /// Only values that are new to their group.
    pub(super) distinct: bool,
    /// First word in the slot.
    pub(super) at: u32,
}

/// How an aggregate's result follows from primitives, which are named by position.
#[derive(Debug, Clone)]
pub(super) enum Finish {
    /// 0.
    Zero,
    /// NULL.
    Null,
    Count(usize),
    /// NULL where `count` is 0; none where each group has a value.
    Sum {
        sum: usize,
        count: Option<usize>,
        range: (i128, i128),
    },
    SumFloat {
        sum: usize,
        count: Option<usize>,
    },
    /// `sum · factor / count`, truncated; `range` is the argument's.
    AverageDecimal {
        sum: usize,
        count: usize,
        factor: i128,
        range: (i128, i128),
        nullable: bool,
    },
    /// `sum / divisor / count`.
    AverageFloat {
        sum: usize,
        count: usize,
        divisor: f64,
        nullable: bool,
    },
    Extreme {
        state: usize,
        count: Option<usize>,
        nullable: bool,
    },
    ExtremeText {
        state: usize,
        nullable: bool,
    },
    /// The entry of the best row.
    Best {
        state: usize,
        best: usize,
        nullable: bool,
    },
    Variance {
        moments: usize,
        count: usize,
        divisor: f64,
        sample: bool,
        root: bool,
    },
}

/// The primitives of a fragment and how they make its aggregates.
#[derive(Debug, Default)]
pub(super) struct Recipe {
    pub(super) primitives: Vec<Primitive>,
    pub(super) finishes: Vec<(Finish, Type)>,
    /// Words of a slot.
    pub(super) words: u32,
    /// What is kept with the row that it is of.
    pub(super) bests: Vec<Wanted>,
}

/// What the arguments of one aggregate are.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) argument: Option<(usize, &'a Known)>,
    pub(super) filter: Option<usize>,
}

/// Whether an aggregate can be computed.
fn supported(aggregate: &Aggregate) -> Lowered<()> {
    let name = format!("{:?}", aggregate.function).to_uppercase();
    let Some(argument) = &aggregate.argument else {
        return match (aggregate.function, aggregate.distinct) {
            (AggregateFunction::Count, false) => Ok(()),
            _ => Err(Unsupported(format!("{name} without an argument is not fused"))),
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
        return Ok(());
    }
    let distinct = if aggregate.distinct { "DISTINCT " } else { "" };
    let result = &aggregate.data_type;
    Err(Unsupported(format!(
        "{name}({distinct}{data_type:?}) as {result:?} is not fused"
    )))
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

fn scale_of(data_type: &Type) -> i8 {
    match data_type {
        Type::Decimal { scale, .. } => *scale,
        _ => 0,
    }
}

fn divisor_of(data_type: &Type) -> f64 {
    10_f64.powi(i32::from(scale_of(data_type)))
}

/// Words that hold every sum of `rows` values of at most `largest` in magnitude; none when three don't.
fn sum_words(largest: u128, rows: u64) -> Option<u32> {
    match largest.checked_mul(u128::from(rows)) {
        Some(most) if most <= i64::MAX.unsigned_abs().into() => Some(1),
        Some(most) if most <= i128::MAX.unsigned_abs() => Some(2),
        _ => (largest <= i128::MAX.unsigned_abs()).then_some(3),
    }
}

fn largest((low, high): (i128, i128)) -> u128 {
    low.unsigned_abs().max(high.unsigned_abs())
}

impl Recipe {
    /// Takes `aggregates` apart. With `groups` a group without rows doesn't exist, and word 0 of a slot counts its rows.
    pub(super) fn new(aggregates: &[(Aggregate, Source<'_>)], groups: bool, rows: Option<u64>) -> Lowered<Self> {
        let mut recipe = Recipe::default();
        let rows = rows.unwrap_or(ROWS_MAX).clamp(1, ROWS_MAX);
        if groups {
            recipe.add(Operation::Count, None, None, false);
        }
        for (aggregate, source) in aggregates {
            supported(aggregate)?;
            let finish = match source.argument {
                None => Finish::Count(recipe.add(Operation::Count, None, source.filter, false)),
                Some((_, known)) if matches!(known.shape.kind, Kind::Null) => match aggregate.function {
                    AggregateFunction::Count => Finish::Zero,
                    _ => Finish::Null,
                },
                Some((argument, known)) => {
                    let part = Part {
                        aggregate,
                        argument,
                        known,
                        filter: source.filter,
                        groups,
                        rows,
                    };
                    part.finish(&mut recipe)?
                }
            };
            recipe.finishes.push((finish, aggregate.data_type.clone()));
        }
        Ok(recipe)
    }

    fn add(&mut self, operation: Operation, argument: Option<usize>, filter: Option<usize>, distinct: bool) -> usize {
        let wanted = Primitive {
            operation,
            argument,
            filter,
            distinct,
            at: self.words,
        };
        let same = |other: &Primitive| {
            let at = wanted.at;
            Primitive { at, ..other.clone() } == wanted
        };
        if let Some(found) = self.primitives.iter().position(same) {
            return found;
        }
        self.words += wanted.operation.words();
        self.primitives.push(wanted);
        self.primitives.len() - 1
    }
}

/// One aggregate of values.
struct Part<'a> {
    aggregate: &'a Aggregate,
    argument: usize,
    known: &'a Known,
    filter: Option<usize>,
    groups: bool,
    rows: u64,
}

impl Part<'_> {
    fn add(&self, recipe: &mut Recipe, operation: Operation) -> usize {
        let once = matches!(
            self.aggregate.function,
            AggregateFunction::Count | AggregateFunction::Sum | AggregateFunction::Average
        );
        recipe.add(
            operation,
            Some(self.argument),
            self.filter,
            self.aggregate.distinct && once,
        )
    }

    /// How many values there are.
    fn count(&self, recipe: &mut Recipe) -> usize {
        if self.known.nullable || self.aggregate.distinct {
            return self.add(recipe, Operation::Count);
        }
        recipe.add(Operation::Count, None, self.filter, false)
    }

    /// A group may be without a value.
    fn nullable(&self) -> bool {
        self.known.nullable || self.filter.is_some() || !self.groups
    }

    fn present(&self, recipe: &mut Recipe) -> Option<usize> {
        self.nullable().then(|| self.count(recipe))
    }

    fn sum(&self, recipe: &mut Recipe) -> Lowered<usize> {
        if self.known.shape.data_type.is_float() {
            return Ok(self.add(recipe, Operation::SumFloat));
        }
        let largest = largest(self.known.bounds());
        let words = sum_words(largest, self.rows);
        let words = words.ok_or_else(|| Unsupported("sums beyond 192 bits".to_owned()))?;
        Ok(self.add(recipe, Operation::Sum { words, largest }))
    }

    fn finish(&self, recipe: &mut Recipe) -> Lowered<Finish> {
        let data_type = &self.known.shape.data_type;
        Ok(match self.aggregate.function {
            AggregateFunction::Count => Finish::Count(self.count(recipe)),
            AggregateFunction::Sum => {
                let sum = self.sum(recipe)?;
                let count = self.present(recipe);
                if data_type.is_float() {
                    Finish::SumFloat { sum, count }
                } else {
                    let range = self.known.bounds();
                    Finish::Sum { sum, count, range }
                }
            }
            AggregateFunction::Average => self.average(recipe)?,
            AggregateFunction::VarianceSample
            | AggregateFunction::VariancePopulation
            | AggregateFunction::StddevSample
            | AggregateFunction::StddevPopulation => self.variance(recipe),
            AggregateFunction::Min | AggregateFunction::BoolAnd => self.extreme(recipe, false)?,
            AggregateFunction::Max | AggregateFunction::BoolOr => self.extreme(recipe, true)?,
            AggregateFunction::First => self.best(recipe, &self.aggregate.order, false, false)?,
            AggregateFunction::Last => self.best(recipe, &self.aggregate.order, true, false)?,
        })
    }

    fn average(&self, recipe: &mut Recipe) -> Lowered<Finish> {
        let data_type = &self.known.shape.data_type;
        let sum = self.sum(recipe)?;
        let count = self.count(recipe);
        let Type::Decimal { scale: finer, .. } = &self.aggregate.data_type else {
            return Ok(Finish::AverageFloat {
                sum,
                count,
                divisor: divisor_of(data_type),
                nullable: self.nullable(),
            });
        };
        Ok(Finish::AverageDecimal {
            sum,
            count,
            factor: 10_i128.pow((finer - scale_of(data_type)).unsigned_abs().into()),
            range: self.known.bounds(),
            nullable: self.nullable(),
        })
    }

    fn variance(&self, recipe: &mut Recipe) -> Finish {
        use AggregateFunction as Function;
        let data_type = &self.known.shape.data_type;
        let (low, high) = self.known.bounds();
        let divisor = divisor_of(data_type);
        let operation = if data_type.is_float() {
            None
        } else {
            self.exact_moments(low, high)
        };
        let moments = self.add(recipe, operation.unwrap_or(Operation::Moments { divisor }));
        Finish::Variance {
            moments,
            count: self.count(recipe),
            divisor,
            sample: matches!(
                self.aggregate.function,
                Function::VarianceSample | Function::StddevSample
            ),
            root: matches!(
                self.aggregate.function,
                Function::StddevSample | Function::StddevPopulation
            ),
        }
    }

    fn exact_moments(&self, low: i128, high: i128) -> Option<Operation> {
        let span = high.checked_sub(low)?;
        let middle = low + span / 2;
        let most = (span / 2 + 1).unsigned_abs();
        let squares = sum_words(most.checked_mul(most)?, self.rows).filter(|words| *words < 3)?;
        let sum = sum_words(most, self.rows).filter(|words| *words < 3)?;
        Some(Operation::ExactMoments {
            middle,
            largest: most,
            sum,
            squares,
        })
    }

    fn extreme(&self, recipe: &mut Recipe, max: bool) -> Lowered<Finish> {
        let nullable = self.nullable();
        let order = match &self.known.shape.kind {
            Kind::Text => {
                let state = self.add(recipe, Operation::ExtremeText { max });
                return Ok(Finish::ExtremeText { state, nullable });
            }
            Kind::Boolean => Order::Boolean,
            Kind::Float32 | Kind::Float64 => Order::Float,
            Kind::Code(dictionary) => Order::Rank(Arc::clone(dictionary)),
            _ => {
                let (low, high) = self.known.bounds();
                let span = high.checked_sub(low);
                if span.is_none_or(|span| span > i128::from(u64::MAX)) {
                    return self.wide_extreme(recipe, max);
                }
                Order::Integer { low, high }
            }
        };
        let count = (nullable && !order.tells_none()).then(|| self.count(recipe));
        let state = self.add(recipe, Operation::Extreme { max, order });
        Ok(Finish::Extreme { state, count, nullable })
    }

    fn wide_extreme(&self, recipe: &mut Recipe, max: bool) -> Lowered<Finish> {
        let argument = self.aggregate.argument.clone();
        let expr = argument.ok_or_else(|| Unsupported("MIN or MAX of nothing".to_owned()))?;
        let key = SortKey {
            expr,
            descending: max,
            nulls_first: false,
        };
        self.best(recipe, &[key], false, true)
    }

    fn best(&self, recipe: &mut Recipe, keys: &[SortKey], last: bool, values_only: bool) -> Lowered<Finish> {
        let argument = self.aggregate.argument.clone();
        let argument = argument.ok_or_else(|| Unsupported("FIRST or LAST of nothing".to_owned()))?;
        let best = recipe.bests.len();
        recipe.bests.push(Wanted {
            argument,
            known: self.known.clone(),
            filter: self.filter,
            keys: keys.to_vec(),
            last,
            values_only,
            at: recipe.words,
        });
        Ok(Finish::Best {
            state: recipe.add(Operation::Best(best), None, self.filter, false),
            best,
            nullable: self.nullable(),
        })
    }
}
