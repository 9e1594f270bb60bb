//! Results of aggregates from a slot's words.

use trireme_device_api::{DeviceError, Type};

use super::best::Best;
use super::cells::float_of;
use super::plan::{Finish, Operation, Order, ROWS_MAX, Recipe};
use crate::build::{bool, i64, place, u64};
use crate::ir::{Const, Elem, Expr as Ir, Scalar, Unary, Var};
use crate::lower::{Kind, Lowered, Lowering, Shape, Unsupported, Value};
use crate::program::{Fault, Word};

/// A slot whose words have been read.
pub(super) struct Slot<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) words: &'a [Var],
    /// No group has more rows.
    pub(super) rows: u64,
    pub(super) bests: &'a [Best],
}

/// A float of the text.
pub(super) fn float(value: f64) -> Ir {
    Ir::Const(Const::F64(value))
}

/// An integer of a lane, as a word of the block where one holds it.
pub(super) fn literal(l: &mut Lowering<'_>, lane: Scalar, value: i128) -> Ir {
    match (lane, i64::try_from(value)) {
        (Scalar::I128, Err(_)) => Ir::Const(Const::I128(value)),
        (_, narrow) => {
            let word = l.word(Word::Value(narrow.unwrap_or_default().cast_unsigned()));
            match lane {
                Scalar::U64 => word,
                Scalar::I64 => word.to(Scalar::I64),
                lane => word.to(Scalar::I64).to(lane),
            }
        }
    }
}

/// The range of sums of `rows` values.
fn total_range((low, high): (i128, i128), rows: u64, nullable: bool) -> (i128, i128) {
    let rows = i128::from(rows.clamp(1, ROWS_MAX));
    let least = if low < 0 { low.saturating_mul(rows) } else { low };
    let most = if high > 0 { high.saturating_mul(rows) } else { high };
    if nullable {
        (least.min(0), most.max(0))
    } else {
        (least, most)
    }
}

fn overflow(data_type: &Type, name: &str) -> Fault {
    let kind = match data_type {
        Type::Decimal { .. } => "decimal",
        _ => "integer",
    };
    Fault::Error(DeviceError::Arithmetic(format!("{kind} overflow in {name}")))
}

fn fault_when(l: &mut Lowering<'_>, condition: Ir, fault: Fault) -> Lowered<()> {
    l.when(condition, |l| {
        l.fault(fault);
        Ok(())
    })
}

/// A value in the lane of its range, which holds what a wider register has.
fn integer(
    l: &mut Lowering<'_>,
    (ir, from): (Ir, Scalar),
    range: (i128, i128),
    null: Option<Ir>,
    data_type: &Type,
) -> Value {
    let lane = Shape::lane(range);
    Value {
        ir: l.b.set(lane, if from == lane { ir } else { ir.to(lane) }).into(),
        null,
        shape: Shape {
            data_type: data_type.clone(),
            kind: Kind::Integer(lane),
            range: Some(range),
        },
    }
}

fn other(l: &mut Lowering<'_>, kind: Kind, ir: Ir, null: Option<Ir>, data_type: &Type) -> Value {
    let scalar = match kind {
        Kind::Boolean => Scalar::Bool,
        Kind::Float32 => Scalar::F32,
        Kind::Float64 => Scalar::F64,
        Kind::Code(_) => Scalar::U32,
        _ => Scalar::U64,
    };
    Value {
        ir: l.b.set(scalar, ir).into(),
        null,
        shape: Shape {
            data_type: data_type.clone(),
            kind,
            range: None,
        },
    }
}

fn float_result(l: &mut Lowering<'_>, ir: Ir, null: Option<Ir>, data_type: &Type) -> Value {
    match data_type {
        Type::Float32 => other(l, Kind::Float32, ir.to(Scalar::F32), null, data_type),
        _ => other(l, Kind::Float64, ir, null, data_type),
    }
}

impl Slot<'_> {
    fn word(&self, primitive: usize, word: u32) -> Ir {
        self.words[(self.recipe.primitives[primitive].at + word) as usize].into()
    }

    /// Bool: there was no value.
    fn none(&self, l: &mut Lowering<'_>, count: Option<usize>) -> Option<Ir> {
        let count = self.word(count?, 0);
        Some(l.b.set(Scalar::Bool, count.eq(u64(0))).into())
    }

    pub(super) fn result(&self, l: &mut Lowering<'_>, finish: &Finish, data_type: &Type) -> Lowered<Value> {
        let counts = (0, i128::from(self.rows.clamp(1, ROWS_MAX)));
        match finish {
            Finish::Zero => {
                let zero = literal(l, Scalar::I64, 0);
                Ok(integer(l, (zero, Scalar::I64), (0, 0), None, data_type))
            }
            Finish::Null => Ok(Value {
                ir: bool(false),
                null: Some(bool(true)),
                shape: Shape {
                    data_type: data_type.clone(),
                    kind: Kind::Null,
                    range: None,
                },
            }),
            Finish::Count(count) => {
                let count = self.word(*count, 0);
                Ok(integer(l, (count, Scalar::U64), counts, None, data_type))
            }
            Finish::Sum { sum, count, range } => self.sum(l, *sum, *count, *range, data_type),
            Finish::SumFloat { sum, count } => {
                let null = self.none(l, *count);
                Ok(float_result(l, float_of(self.word(*sum, 0)), null, data_type))
            }
            Finish::AverageDecimal { .. } => self.decimal_average(l, finish, data_type),
            Finish::AverageFloat {
                sum,
                count,
                divisor,
                nullable,
            } => {
                let null = nullable.then_some(*count).and_then(|count| self.none(l, Some(count)));
                let total = self.total_float(*sum);
                let total = if *divisor == 1.0 {
                    total
                } else {
                    total.over(float(*divisor))
                };
                let count = self.word(*count, 0).to(Scalar::F64);
                Ok(float_result(l, total.over(count), null, data_type))
            }
            Finish::Extreme { state, count, nullable } => self.extreme(l, *state, *count, *nullable, data_type),
            Finish::ExtremeText { state, nullable } => {
                let word = self.word(*state, 0);
                let none = word.clone().eq(u64(0));
                let handle = none.clone().select(u64(0), word.minus(u64(1)));
                let null = nullable.then(|| l.b.set(Scalar::Bool, none).into());
                Ok(other(l, Kind::Text, handle, null, data_type))
            }
            Finish::Best { state, best, nullable } => {
                let word = self.word(*state, 0);
                self.bests[*best].result(l, &word, *nullable)
            }
            Finish::Variance { .. } => self.variance(l, finish, data_type),
        }
    }

    fn sum_words(&self, sum: usize) -> u32 {
        self.recipe.primitives[sum].operation.words()
    }

    /// The low 128 bits of a sum, or 64 where it has only these: and their type.
    fn total(&self, sum: usize) -> (Ir, Scalar) {
        match self.sum_words(sum) {
            1 => (self.word(sum, 0).to(Scalar::I64), Scalar::I64),
            _ => (wide(self.word(sum, 0), self.word(sum, 1)), Scalar::I128),
        }
    }

    fn total_float(&self, sum: usize) -> Ir {
        if self.recipe.primitives[sum].operation == Operation::SumFloat {
            return float_of(self.word(sum, 0));
        }
        if self.sum_words(sum) < 3 {
            return self.total(sum).0.to(Scalar::F64);
        }
        let two_to_64 = float(2_f64.powi(64));
        let high = self.word(sum, 2).to(Scalar::I64).to(Scalar::F64);
        let middle = self.word(sum, 1).to(Scalar::F64);
        let low = self.word(sum, 0).to(Scalar::F64);
        high.times(two_to_64.clone()).plus(middle).times(two_to_64).plus(low)
    }

    fn sum(
        &self,
        l: &mut Lowering<'_>,
        sum: usize,
        count: Option<usize>,
        range: (i128, i128),
        data_type: &Type,
    ) -> Lowered<Value> {
        let null = self.none(l, count);
        let (total, lane) = self.total(sum);
        let total: Ir = l.b.set(lane, total).into();
        if self.sum_words(sum) == 3 {
            let sign = self.word(sum, 1).to(Scalar::I64).shr(i64(63));
            let lost = self.word(sum, 2).to(Scalar::I64).ne(sign);
            fault_when(l, lost, overflow(data_type, "sum"))?;
        }
        let range = total_range(range, self.rows, null.is_some());
        let range = limited(l, &total, lane, range, overflow(data_type, "sum"), data_type)?;
        Ok(integer(l, (total, lane), range, null, data_type))
    }

    fn decimal_average(&self, l: &mut Lowering<'_>, finish: &Finish, data_type: &Type) -> Lowered<Value> {
        let Finish::AverageDecimal {
            sum,
            count,
            factor,
            range,
            nullable,
        } = finish
        else {
            return Err(misplaced());
        };
        let none: Ir = l.b.set(Scalar::Bool, self.word(*count, 0).eq(u64(0))).into();
        let rows = none.clone().select(u64(1), self.word(*count, 0));
        let (total, from) = self.total(*sum);
        let way = Division::of(from, *range, self.rows, *factor, self.sum_words(*sum));
        let lane = way.lane;
        let total: Ir = l.b.set(lane, if from == lane { total } else { total.to(lane) }).into();
        let rows: Ir = l.b.set(lane, rows.to(lane)).into();
        let by = literal(l, lane, *factor);
        let mean = if way.at_once {
            total.times(by).over(rows)
        } else {
            // The quotient and what is left of it are scaled apart.
            let (quotient, rest) = if self.sum_words(*sum) == 3 {
                self.long_quotient(l, *sum, &rows)
            } else {
                let quotient: Ir = l.b.set(lane, total.clone().over(rows.clone())).into();
                let rest = total.minus(quotient.clone().times(rows.clone()));
                (quotient, l.b.set(lane, rest).into())
            };
            if lane == Scalar::I128 {
                let most = i128::MAX / factor - 1;
                let (low, high) = (literal(l, lane, -most), literal(l, lane, most));
                let lost = quotient.clone().lt(low).or(quotient.clone().gt(high));
                fault_when(l, lost, overflow(data_type, "avg"))?;
            }
            quotient.times(by.clone()).plus(rest.times(by).over(rows))
        };
        let mean: Ir = l.b.set(lane, mean).into();
        let (low, high) = (range.0.min(0), range.1.max(0));
        let means = (low.saturating_mul(*factor), high.saturating_mul(*factor));
        let means = limited(l, &mean, lane, means, overflow(data_type, "avg"), data_type)?;
        Ok(integer(l, (mean, lane), means, nullable.then_some(none), data_type))
    }

    /// Quotient and rest, as I128, of a sum of three words by the rows (I128) that it is of: word by word, from the top. The
    /// quotient fits, for it lies between the values.
    fn long_quotient(&self, l: &mut Lowering<'_>, sum: usize, rows: &Ir) -> (Ir, Ir) {
        let word = |at: u32| self.word(sum, at);
        let negative: Ir = l.b.set(Scalar::Bool, word(2).to(Scalar::I64).lt(i64(0))).into();
        let complement = |word: Ir| Ir::Unary(Unary::Complement, Box::new(word));
        let mut carry: Ir = u64(1);
        let mut words: Vec<Ir> = Vec::new();
        for at in 0..3 {
            let turned = l.b.set(Scalar::U64, complement(word(at)).plus(carry.clone()));
            let carries = Ir::from(turned).lt(carry).select(u64(1), u64(0));
            carry = l.b.set(Scalar::U64, carries).into();
            let magnitude = negative.clone().select(turned.into(), word(at));
            words.push(l.b.set(Scalar::U64, magnitude).into());
        }
        let mut rest = Ir::Const(Const::I128(0));
        let mut quotient = rest.clone();
        for word in words.into_iter().rev() {
            let two_to_64 = Ir::Const(Const::I128(1 << 64));
            let part: Ir =
                l.b.set(Scalar::I128, rest.times(two_to_64.clone()).plus(word.to(Scalar::I128)))
                    .into();
            let digit: Ir = l.b.set(Scalar::I128, part.clone().over(rows.clone())).into();
            rest =
                l.b.set(Scalar::I128, part.minus(digit.clone().times(rows.clone())))
                    .into();
            quotient = l.b.set(Scalar::I128, quotient.times(two_to_64).plus(digit)).into();
        }
        let signed = |l: &mut Lowering<'_>, value: Ir| {
            let value = negative.clone().select(value.clone().negate(), value);
            l.b.set(Scalar::I128, value).into()
        };
        let quotient = signed(l, quotient);
        (quotient, signed(l, rest))
    }

    fn extreme(
        &self,
        l: &mut Lowering<'_>,
        state: usize,
        count: Option<usize>,
        nullable: bool,
        data_type: &Type,
    ) -> Lowered<Value> {
        let primitive = &self.recipe.primitives[state];
        let Operation::Extreme { max, order } = &primitive.operation else {
            return Err(misplaced());
        };
        let word = self.word(state, 0);
        let mut null = self.none(l, count);
        if nullable && null.is_none() {
            null = Some(l.b.set(Scalar::Bool, word.clone().eq(u64(0))).into());
        }
        Ok(match order {
            Order::Float => {
                let function = l.function("float_of_order", |_| super::fold::float_of_order());
                let order = if *max {
                    word
                } else {
                    Ir::Unary(Unary::Complement, Box::new(word))
                };
                let value = crate::build::call(function, [order]);
                float_result(l, value, null, data_type)
            }
            Order::Boolean => {
                let best = word.eq(u64(2));
                let value = if *max { best } else { best.not() };
                other(l, Kind::Boolean, value, null, data_type)
            }
            Order::Rank(dictionary) => {
                let most = l.word(Word::Value((dictionary.len() as u64).max(1) - 1));
                let place_of_word = word.max(u64(1)).minus(u64(1));
                let rank = if *max { place_of_word } else { most.minus(place_of_word) };
                let table = l.table(super::finish::codes_by_rank(dictionary));
                let code = l.b.load(place(Elem::U32, table, rank));
                other(
                    l,
                    Kind::Code(std::sync::Arc::clone(dictionary)),
                    code.into(),
                    null,
                    data_type,
                )
            }
            Order::Integer { low, high } => {
                let offset = u64::from(order.tells_none());
                let distance = word.max(u64(offset)).minus(u64(offset));
                let lane = Shape::lane((*low, *high));
                let work = if lane == Scalar::I128 { lane } else { Scalar::U64 };
                let distance = if work == Scalar::U64 {
                    distance
                } else {
                    distance.to(work)
                };
                let value = if *max {
                    literal(l, work, *low).plus(distance)
                } else {
                    literal(l, work, *high).minus(distance)
                };
                integer(l, (value, work), (*low, *high), null, data_type)
            }
        })
    }

    fn variance(&self, l: &mut Lowering<'_>, finish: &Finish, data_type: &Type) -> Lowered<Value> {
        let Finish::Variance {
            moments,
            count,
            divisor,
            sample,
            root,
        } = finish
        else {
            return Err(misplaced());
        };
        let less = u64::from(*sample);
        let count = self.word(*count, 0);
        let null: Ir = l.b.set(Scalar::Bool, count.clone().le(u64(less))).into();
        let rows: Ir = l.b.set(Scalar::U64, null.clone().select(u64(less + 1), count)).into();
        let squares = match &self.recipe.primitives[*moments].operation {
            Operation::Moments { .. } => {
                let (sum, squares) = (float_of(self.word(*moments, 1)), float_of(self.word(*moments, 2)));
                squares.minus(sum.clone().times(sum).over(rows.clone().to(Scalar::F64)))
            }
            Operation::ExactMoments { sum, squares, .. } => {
                let squares = exact_squares(self, l, *moments, (*sum, *squares), rows.clone())?;
                squares.over(float(divisor * divisor))
            }
            _ => return Err(misplaced()),
        };
        let squares: Ir = l.b.set(Scalar::F64, squares).into();
        let squares = squares.clone().lt(float(0.0)).select(float(0.0), squares);
        let variance: Ir = squares.over(rows.minus(u64(less)).to(Scalar::F64));
        let value = if *root {
            Ir::Unary(Unary::SquareRoot, Box::new(variance))
        } else {
            variance
        };
        Ok(float_result(l, value, Some(null), data_type))
    }
}

/// `Σ(y − mean)²` as a float, exact up to its last steps: with the mean rounded to an integer, in integers.
fn exact_squares(
    slot: &Slot<'_>,
    l: &mut Lowering<'_>,
    moments: usize,
    (sum, squares): (u32, u32),
    rows: Ir,
) -> Lowered<Ir> {
    let lane = if sum == 1 && squares == 1 {
        Scalar::I64
    } else {
        Scalar::I128
    };
    let part = |first: u32, words: u32| match (words, lane) {
        (1, Scalar::I64) => slot.word(moments, first).to(Scalar::I64),
        (1, _) => slot.word(moments, first).to(Scalar::I64).to(lane),
        _ => wide(slot.word(moments, first), slot.word(moments, first + 1)),
    };
    let total: Ir = l.b.set(lane, part(0, sum)).into();
    let squares: Ir = l.b.set(lane, part(sum, squares)).into();
    let count: Ir = l.b.set(lane, rows.clone().to(lane)).into();
    let mean = l.b.set(lane, total.clone().over(count.clone()));
    let rest = l.b.set(lane, total.clone().minus(Ir::from(mean).times(count.clone())));
    let (zero, one) = (literal(l, lane, 0), literal(l, lane, 1));
    let twice = Ir::from(rest).plus(rest.into());
    let (up, down) = (twice.clone().gt(count.clone()), twice.lt(zero.minus(count.clone())));
    let (up, down) = (l.b.set(Scalar::Bool, up), l.b.set(Scalar::Bool, down));
    for (when, step) in [(up, 1), (down, -1)] {
        l.b.when(when.into(), |b| {
            let (next, left) = if step == 1 {
                (Ir::from(mean).plus(one.clone()), Ir::from(rest).minus(count.clone()))
            } else {
                (Ir::from(mean).minus(one.clone()), Ir::from(rest).plus(count.clone()))
            };
            b.assign(mean, next);
            b.assign(rest, left);
        });
    }
    let whole = squares
        .minus(Ir::from(mean).times(total))
        .minus(Ir::from(mean).times(rest.into()));
    let rest: Ir = l.b.set(Scalar::F64, Ir::from(rest).to(Scalar::F64)).into();
    Ok(whole
        .to(Scalar::F64)
        .minus(rest.clone().times(rest).over(rows.to(Scalar::F64))))
}

/// How `total · factor / rows` is computed without leaving its registers.
struct Division {
    lane: Scalar,
    /// As it is written; else quotient and rest of the total are scaled apart.
    at_once: bool,
}

impl Division {
    /// Of a total of so many words, in `from`, of `rows` values in a range.
    fn of(from: Scalar, range: (i128, i128), rows: u64, factor: i128, words: u32) -> Self {
        let (low, high) = total_range(range, rows, true);
        let rows = i128::from(rows.clamp(1, ROWS_MAX));
        let within = |bounds: [i128; 2], most: i128| {
            let mut bounds = bounds.into_iter();
            bounds.all(|bound| bound.checked_mul(factor).is_some_and(|scaled| scaled.abs() <= most))
        };
        let word = i128::from(i64::MAX);
        let narrow = from == Scalar::I64;
        let (lane, at_once) = if narrow && within([low, high], word) {
            (Scalar::I64, true)
        } else if narrow && within([range.0, range.1], word) && within([rows, rows], word) {
            (Scalar::I64, false)
        } else {
            (Scalar::I128, words < 3 && within([low, high], i128::MAX))
        };
        Self { lane, at_once }
    }
}

/// I128 of two words.
pub(super) fn wide(low: Ir, high: Ir) -> Ir {
    let high = high.to(Scalar::I64).to(Scalar::I128);
    let two_to_64 = Ir::Const(Const::I128(1 << 64));
    high.times(two_to_64).plus(low.to(Scalar::I128))
}

/// Notes a fault where a value of a lane, in `range`, is outside its type; gives the range that is left.
fn limited(
    l: &mut Lowering<'_>,
    value: &Ir,
    lane: Scalar,
    (low, high): (i128, i128),
    fault: Fault,
    data_type: &Type,
) -> Lowered<(i128, i128)> {
    let Some((least, most)) = data_type.value_range() else {
        return Err(Unsupported(format!("an integral result of type {data_type:?}")));
    };
    let held = match lane {
        Scalar::I64 => (i64::MIN.into(), i64::MAX.into()),
        _ => (i128::MIN, i128::MAX),
    };
    let mut outside = None;
    if low < least && held.0 < least {
        outside = Some(value.clone().lt(literal(l, lane, least)));
    }
    if high > most && held.1 > most {
        let above = value.clone().gt(literal(l, lane, most));
        outside = Some(outside.map_or(above.clone(), |below: Ir| below.or(above)));
    }
    if let Some(outside) = outside {
        fault_when(l, outside, fault)?;
    }
    Ok((low.max(least).min(most), high.min(most).max(least)))
}

fn misplaced() -> Unsupported {
    Unsupported("an aggregate that has another state than it needs".to_owned())
}
