//! What a row's value adds to a slot.

use std::sync::Arc;

use super::cells::{Cells, Part, Shared, parts_of};
use super::plan::{Fold, Operation, Order, Primitive};
use super::result::{float, literal};
use crate::build::{Builder, call, i64, u64};
use crate::ir::{Expr as Ir, Function, Scalar, Stmt, Unary};
use crate::lower::{Kind, Lowered, Lowering, Unsupported, Value};
use crate::program::Word;

/// A primitive's part of a row: words to fold, or a float that the slot's shift is taken from.
#[derive(Debug, Clone)]
pub(super) enum Share {
    Words(Part),
    /// F64.
    Moments {
        at: u32,
        value: Ir,
    },
}

impl Share {
    /// Of a value that is not NULL; counts need none.
    pub(super) fn new(l: &mut Lowering<'_>, primitive: &Primitive, value: Option<&Value>) -> Lowered<Vec<Self>> {
        if let Operation::Best(_) = primitive.operation {
            return Ok(Vec::new());
        }
        let Some(value) = value.filter(|_| primitive.operation != Operation::Count) else {
            return Ok(words(primitive, &[u64(1)]));
        };
        Ok(match &primitive.operation {
            Operation::Count | Operation::Best(_) => Vec::new(),
            Operation::Sum { words: count, .. } => {
                let lane = lane(value)?;
                words(primitive, &extended(l, value.ir.clone(), lane, *count))
            }
            Operation::SumFloat => {
                let bits = widened(value)?.bits(Scalar::U64);
                words(primitive, &[l.b.set(Scalar::U64, bits).into()])
            }
            Operation::Extreme { max, order } => {
                let code = code(l, value, order, *max)?;
                words(primitive, &[l.b.set(Scalar::U64, code).into()])
            }
            Operation::ExtremeText { .. } => {
                if !matches!(value.shape.kind, Kind::Text) {
                    return Err(differs());
                }
                let word = value.ir.clone().plus(u64(1));
                words(primitive, &[l.b.set(Scalar::U64, word).into()])
            }
            Operation::Moments { divisor } => {
                let number = match value.shape.kind {
                    Kind::Integer(_) => value.ir.clone().to(Scalar::F64),
                    _ => widened(value)?,
                };
                let number = if *divisor == 1.0 {
                    number
                } else {
                    number.over(float(*divisor))
                };
                let value = l.b.set(Scalar::F64, number).into();
                let at = primitive.at;
                vec![Share::Moments { at, value }]
            }
            Operation::ExactMoments {
                middle, sum, squares, ..
            } => exact(l, primitive, value, (*middle, *sum, *squares))?,
        })
    }

    /// Folds it in. `shared` is the slot in the arena, which private cells belong to.
    pub(super) fn fold(&self, l: &mut Lowering<'_>, cells: &Cells, shared: &Shared) -> Lowered<()> {
        match self {
            Share::Words(part) => cells.fold(l, part),
            Share::Moments { at, value } => {
                let bits = value.clone().bits(Scalar::U64);
                // 0 says that there is none yet, so 0.0 stands as −0.0, which makes no difference.
                let first = bits.clone().eq(u64(0)).select(u64(1 << 63), bits);
                let first = l.b.set(Scalar::U64, first);
                let shift = cells.once(l, shared, *at, first.into())?;
                let distance = value.clone().minus(shift.bits(Scalar::F64));
                let distance: Ir = l.b.set(Scalar::F64, distance).into();
                let square = distance.clone().times(distance.clone());
                for (at, value) in [(at + 1, distance), (at + 2, square)] {
                    let word = l.b.set(Scalar::U64, value.bits(Scalar::U64));
                    let part = Part {
                        at,
                        fold: Fold::AddFloat,
                        words: vec![word.into()],
                    };
                    cells.fold(l, &part)?;
                }
                Ok(())
            }
        }
    }
}

fn words(primitive: &Primitive, words: &[Ir]) -> Vec<Share> {
    let parts = parts_of(primitive, |at| words[(at - primitive.at) as usize].clone());
    parts.into_iter().map(Share::Words).collect()
}

fn differs() -> Unsupported {
    Unsupported("an aggregate whose rows differ in shape".to_owned())
}

fn lane(value: &Value) -> Lowered<Scalar> {
    match value.shape.kind {
        Kind::Integer(lane) => Ok(lane),
        _ => Err(differs()),
    }
}

/// F64 of either float.
fn widened(value: &Value) -> Lowered<Ir> {
    match value.shape.kind {
        Kind::Float32 => Ok(value.ir.clone().to(Scalar::F64)),
        Kind::Float64 => Ok(value.ir.clone()),
        _ => Err(differs()),
    }
}

/// An integer as so many words, two's complement.
fn extended(l: &mut Lowering<'_>, ir: Ir, lane: Scalar, count: u32) -> Vec<Ir> {
    let low = l.b.set(Scalar::U64, ir.clone().to(Scalar::U64));
    let mut words = vec![low.into()];
    if count > 1 {
        let high = match lane {
            Scalar::I128 => Ir::Unary(Unary::High, Box::new(ir)),
            Scalar::I64 => ir.shr(i64(63)),
            _ => ir.to(Scalar::I64).shr(i64(63)),
        };
        let high: Ir = l.b.set(Scalar::I64, high).into();
        words.push(l.b.set(Scalar::U64, high.clone().to(Scalar::U64)).into());
        if count > 2 {
            let sign = high.shr(i64(63)).to(Scalar::U64);
            words.push(l.b.set(Scalar::U64, sign).into());
        }
    }
    words
}

/// The code of a value: larger where the value is better.
fn code(l: &mut Lowering<'_>, value: &Value, order: &Order, max: bool) -> Lowered<Ir> {
    Ok(match (order, &value.shape.kind) {
        (Order::Boolean, Kind::Boolean) => {
            let (first, second) = if max { (2, 1) } else { (1, 2) };
            value.ir.clone().select(u64(first), u64(second))
        }
        (Order::Float, _) => {
            let canonical = canonical(l, widened(value)?);
            let function = l.function("order_of_float", |_| order_of_float());
            let order = call(function, [canonical]);
            if max {
                order
            } else {
                Ir::Unary(Unary::Complement, Box::new(order))
            }
        }
        (Order::Rank(dictionary), Kind::Code(known)) if Arc::ptr_eq(dictionary, known) => {
            let rank = l.rank(value.ir.clone(), dictionary);
            let rank = l.b.set(Scalar::U64, rank.to(Scalar::U64));
            if max {
                Ir::from(rank).plus(u64(1))
            } else {
                let count = (dictionary.len() as u64).max(1);
                l.word(Word::Value(count)).minus(rank.into())
            }
        }
        (Order::Integer { low, high }, Kind::Integer(lane)) => {
            let offset = u64(order.tells_none().into());
            let work = if *lane == Scalar::I128 { *lane } else { Scalar::U64 };
            let number = if *lane == work {
                value.ir.clone()
            } else {
                value.ir.clone().to(work)
            };
            // Words wrap to the right distance; a wider bound than the value's lane is met by its low word.
            let distance = if max {
                let low = bound(l, work, *low);
                number.minus(low)
            } else {
                bound(l, work, *high).minus(number)
            };
            let distance = if work == Scalar::U64 {
                distance
            } else {
                distance.to(Scalar::U64)
            };
            distance.plus(offset)
        }
        _ => return Err(differs()),
    })
}

/// A bound of a range as I128, or its low word.
fn bound(l: &mut Lowering<'_>, work: Scalar, value: i128) -> Ir {
    if work == Scalar::U64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the low word is meant"
        )]
        let low = value as u64;
        return l.word(Word::Value(low));
    }
    literal(l, work, value)
}

/// U64: the float's bits, one NaN, no −0.0.
fn canonical(l: &mut Lowering<'_>, value: Ir) -> Ir {
    let value: Ir = l.b.set(Scalar::F64, value).into();
    l.canonical_f64(value)
}

/// U64 of canonical bits: in the order of the floats, never 0 nor all ones.
fn order_of_float() -> Function {
    let mut b = Builder::new();
    let bits = b.var(Scalar::U64);
    let negative = Ir::from(bits).shr(u64(63)).ne(u64(0));
    let falling = Ir::Unary(Unary::Complement, Box::new(bits.into()));
    let rising = Ir::from(bits).or(u64(1 << 63));
    b.push(Stmt::Return(negative.select(falling, rising)));
    b.function("order_of_float", 1, Scalar::U64)
}

/// F64 of an order word.
pub(super) fn float_of_order() -> Function {
    let mut b = Builder::new();
    let order = b.var(Scalar::U64);
    let positive = Ir::from(order).shr(u64(63)).ne(u64(0));
    let falling = Ir::Unary(Unary::Complement, Box::new(order.into()));
    let rising = Ir::from(order).and(u64((1 << 63) - 1));
    b.push(Stmt::Return(positive.select(rising, falling).bits(Scalar::F64)));
    b.function("float_of_order", 1, Scalar::F64)
}

/// Distances from `middle` and their squares.
fn exact(
    l: &mut Lowering<'_>,
    primitive: &Primitive,
    value: &Value,
    (middle, sum, squares): (i128, u32, u32),
) -> Lowered<Vec<Share>> {
    let from = lane(value)?;
    let wide = from == Scalar::I128 || i64::try_from(middle).is_err();
    let work = if wide { Scalar::I128 } else { Scalar::I64 };
    let number = if from == work {
        value.ir.clone()
    } else {
        value.ir.clone().to(work)
    };
    let middle = literal(l, work, middle);
    let distance = number.minus(middle);
    // Within a word: sums of them are within two.
    let distance = if wide { distance.to(Scalar::I64) } else { distance };
    let distance: Ir = l.b.set(Scalar::I64, distance).into();
    let square: Ir = if squares == 1 {
        l.b.set(Scalar::I64, distance.clone().times(distance.clone())).into()
    } else {
        let wide = distance.clone().to(Scalar::I128);
        l.b.set(Scalar::I128, wide.clone().times(wide)).into()
    };
    let lane = if squares == 1 { Scalar::I64 } else { Scalar::I128 };
    let mut all = extended(l, distance, Scalar::I64, sum);
    all.extend(extended(l, square, lane, squares));
    Ok(words(primitive, &all))
}
