//! Checked arithmetic over arrays.
//!
//! Integers are computed wrapping, in loops that vectorise, while the signs of an overflow are gathered; only if there were
//! any, the rows are looked at one by one, since a NULL's slot may hold anything. Decimals are DataFusion's own kernels, and
//! then the result's digits are checked; a product of decimals whose values fit 64 bits is one multiplication.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, Datum, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::compute::kernels::numeric;
use arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, Int8Type, Int16Type,
    Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::ColumnarValue;

use super::arithmetic::CheckedOperator;
use super::quotients::Quotient;

/// `left operator right` of the type `result`.
///
/// # Errors
/// A value outside that type, in a row where neither operand is NULL.
pub(super) fn binary(
    operator: CheckedOperator,
    left: &ColumnarValue,
    right: &ColumnarValue,
    result: &DataType,
    rows: usize,
) -> Result<ColumnarValue> {
    let is_scalar = matches!((left, right), (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)));
    let rows = if is_scalar { 1 } else { rows };
    if is_null(left) || is_null(right) {
        return Ok(ColumnarValue::Scalar(ScalarValue::try_from(result)?));
    }
    let left = Operand::of(left)?;
    let right = Operand::of(right)?;
    let values = match result {
        DataType::Int8 => integers::<Int8Type>(operator, &left, &right, rows)?,
        DataType::Int16 => integers::<Int16Type>(operator, &left, &right, rows)?,
        DataType::Int32 => integers::<Int32Type>(operator, &left, &right, rows)?,
        DataType::Int64 => integers::<Int64Type>(operator, &left, &right, rows)?,
        DataType::UInt8 => integers::<UInt8Type>(operator, &left, &right, rows)?,
        DataType::UInt16 => integers::<UInt16Type>(operator, &left, &right, rows)?,
        DataType::UInt32 => integers::<UInt32Type>(operator, &left, &right, rows)?,
        DataType::UInt64 => integers::<UInt64Type>(operator, &left, &right, rows)?,
        DataType::Decimal32(..) => decimals::<Decimal32Type>(operator, &left, &right, result)?,
        DataType::Decimal64(..) => decimals::<Decimal64Type>(operator, &left, &right, result)?,
        DataType::Decimal128(..) if matches!(operator, CheckedOperator::Divide | CheckedOperator::Remainder) => {
            quotients(operator, &left, &right, result)?
        }
        DataType::Decimal128(..) => match narrow_product(operator, &left, &right, result) {
            Some(product) => digits_checked::<Decimal128Type>(operator, product, result)?,
            None => decimals::<Decimal128Type>(operator, &left, &right, result)?,
        },
        DataType::Decimal256(..) => decimals::<Decimal256Type>(operator, &left, &right, result)?,
        other => return exec_err!("checked arithmetic of {other}"),
    };
    if is_scalar {
        return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?));
    }
    Ok(ColumnarValue::Array(values))
}

/// The negated operand.
///
/// # Errors
/// The smallest value of its type, in a row that is not NULL.
pub(super) fn negate(operand: &ColumnarValue) -> Result<ColumnarValue> {
    let checked = match operand {
        operand if is_null(operand) => return Ok(operand.clone()),
        ColumnarValue::Array(array) => numeric::neg(array.as_ref()).map(ColumnarValue::Array),
        ColumnarValue::Scalar(scalar) => {
            let negated = numeric::neg(scalar.to_array()?.as_ref());
            return match negated {
                Ok(array) => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?)),
                Err(_) => overflow("integer", CheckedOperator::Negate),
            };
        }
    };
    match checked {
        Ok(value) => Ok(value),
        Err(_) => overflow("integer", CheckedOperator::Negate),
    }
}

fn overflow<T>(kind: &str, operator: CheckedOperator) -> Result<T> {
    exec_err!("{kind} overflow in {}", operator.symbol())
}

/// NULL throughout. Outer joins are planned with predicates evaluated over columns of the null type.
fn is_null(value: &ColumnarValue) -> bool {
    match value {
        ColumnarValue::Scalar(scalar) => scalar.is_null(),
        ColumnarValue::Array(array) => array.data_type() == &DataType::Null,
    }
}

/// An array, or a constant as an array of one.
struct Operand {
    array: ArrayRef,
    constant: bool,
}

impl Operand {
    fn of(value: &ColumnarValue) -> Result<Self> {
        Ok(match value {
            ColumnarValue::Array(array) => Self {
                array: Arc::clone(array),
                constant: false,
            },
            ColumnarValue::Scalar(scalar) => Self {
                array: scalar.to_array()?,
                constant: true,
            },
        })
    }

    fn slots<T: ArrowPrimitiveType>(&self) -> Slots<'_, T::Native> {
        let values = self.array.as_primitive::<T>().values().as_ref();
        match values {
            [value] if self.constant => Slots::Constant(*value),
            values => Slots::Each(values),
        }
    }

    fn nulls(&self) -> Option<&NullBuffer> {
        self.array.nulls()
    }
}

impl Datum for Operand {
    fn get(&self) -> (&dyn Array, bool) {
        (self.array.as_ref(), self.constant)
    }
}

#[derive(Clone, Copy)]
enum Slots<'a, N> {
    Each(&'a [N]),
    Constant(N),
}

impl<N: Copy> Slots<'_, N> {
    /// `combine` for every row.
    fn zip<O>(self, other: Self, rows: usize, mut combine: impl FnMut(N, N) -> O) -> Vec<O> {
        match (self, other) {
            (Self::Each(left), Self::Each(right)) => left
                .iter()
                .zip(right)
                .map(|(left, right)| combine(*left, *right))
                .collect(),
            (Self::Each(left), Self::Constant(right)) => left.iter().map(|left| combine(*left, right)).collect(),
            (Self::Constant(left), Self::Each(right)) => right.iter().map(|right| combine(left, *right)).collect(),
            (Self::Constant(left), Self::Constant(right)) => (0..rows).map(|_| combine(left, right)).collect(),
        }
    }

    fn at(self, row: usize) -> N {
        match self {
            Self::Each(values) => values[row],
            Self::Constant(value) => value,
        }
    }

    fn all(self, mut test: impl FnMut(N) -> bool) -> bool {
        match self {
            // Without a branch per value.
            Self::Each(values) => values.iter().fold(true, |all, value| all & test(*value)),
            Self::Constant(value) => test(value),
        }
    }
}

/// Native integers: wrapping results, with a word whose top bit tells an overflow.
trait Lane: ArrowNativeTypeOp {
    fn add(self, other: Self) -> (Self, Self);
    fn subtract(self, other: Self) -> (Self, Self);
    /// The flag is nonzero after an overflow, and may be nonzero without one.
    fn multiply(self, other: Self) -> (Self, Self);
    fn or(self, other: Self) -> Self;
    fn top(self) -> bool;
}

macro_rules! signed {
    ($($native:ty, $wide:ty);*) => {$(
        impl Lane for $native {
            fn add(self, other: Self) -> (Self, Self) {
                let sum = self.wrapping_add(other);
                (sum, (self ^ sum) & (other ^ sum))
            }
            fn subtract(self, other: Self) -> (Self, Self) {
                let difference = self.wrapping_sub(other);
                (difference, (self ^ other) & (self ^ difference))
            }
            fn multiply(self, other: Self) -> (Self, Self) {
                let product = self.wrapping_mul(other);
                let differs = <$wide>::from(self) * <$wide>::from(other) != <$wide>::from(product);
                (product, if differs { -1 } else { 0 })
            }
            fn or(self, other: Self) -> Self {
                self | other
            }
            fn top(self) -> bool {
                self < 0
            }
        }
    )*};
}

macro_rules! unsigned {
    ($($native:ty, $wide:ty);*) => {$(
        impl Lane for $native {
            fn add(self, other: Self) -> (Self, Self) {
                let sum = self.wrapping_add(other);
                (sum, (self & other) | ((self | other) & !sum))
            }
            fn subtract(self, other: Self) -> (Self, Self) {
                let difference = self.wrapping_sub(other);
                (difference, (!self & other) | (!(self ^ other) & difference))
            }
            fn multiply(self, other: Self) -> (Self, Self) {
                let product = self.wrapping_mul(other);
                let differs = <$wide>::from(self) * <$wide>::from(other) != <$wide>::from(product);
                (product, if differs { <$native>::MAX } else { 0 })
            }
            fn or(self, other: Self) -> Self {
                self | other
            }
            fn top(self) -> bool {
                self.leading_zeros() == 0
            }
        }
    )*};
}

signed!(i8, i16; i16, i32; i32, i64; i64, i128);
unsigned!(u8, u16; u16, u32; u32, u64; u64, u128);

fn integers<T>(operator: CheckedOperator, left: &Operand, right: &Operand, rows: usize) -> Result<ArrayRef>
where
    T: ArrowPrimitiveType<Native: Lane>,
{
    let (l, r) = (left.slots::<T>(), right.slots::<T>());
    let nulls = NullBuffer::union(left.nulls(), right.nulls());
    let mut flags = T::Native::ZERO;
    let values = match operator {
        CheckedOperator::Add => l.zip(r, rows, |l, r| flagged(l.add(r), &mut flags)),
        CheckedOperator::Subtract => l.zip(r, rows, |l, r| flagged(l.subtract(r), &mut flags)),
        _ => l.zip(r, rows, |l, r| flagged(l.multiply(r), &mut flags)),
    };
    if flags.top() {
        let is_valid = |row: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        let overflows = |row: usize| {
            let (l, r) = (l.at(row), r.at(row));
            match operator {
                CheckedOperator::Add => l.add_checked(r),
                CheckedOperator::Subtract => l.sub_checked(r),
                _ => l.mul_checked(r),
            }
            .is_err()
        };
        if (0..values.len()).any(|row| is_valid(row) && overflows(row)) {
            return overflow("integer", operator);
        }
    }
    Ok(Arc::new(PrimitiveArray::<T>::try_new(values.into(), nulls)?))
}

fn flagged<N: Lane>((value, flag): (N, N), flags: &mut N) -> N {
    *flags = flags.or(flag);
    value
}

fn decimals<T: DecimalType>(
    operator: CheckedOperator,
    left: &Operand,
    right: &Operand,
    result: &DataType,
) -> Result<ArrayRef> {
    let computed = match operator {
        CheckedOperator::Add => numeric::add(left, right),
        CheckedOperator::Subtract => numeric::sub(left, right),
        _ => numeric::mul(left, right),
    };
    match computed {
        Ok(values) => digits_checked::<T>(operator, values, result),
        Err(arrow::error::ArrowError::ArithmeticOverflow(_)) => overflow("decimal", operator),
        Err(other) => Err(other.into()),
    }
}

/// Quotients or remainders of Decimal128 operands.
fn quotients(operator: CheckedOperator, left: &Operand, right: &Operand, result: &DataType) -> Result<ArrayRef> {
    let (l, r) = (left.slots::<Decimal128Type>(), right.slots::<Decimal128Type>());
    let nulls = NullBuffer::union(left.nulls(), right.nulls());
    let types = (left.array.data_type(), right.array.data_type(), result);
    let quotient = Quotient::new(operator, types)?;
    let one = |row: usize| match &nulls {
        Some(nulls) if nulls.is_null(row) => Ok(0),
        _ => quotient.of(l.at(row), r.at(row)),
    };
    let rows = if left.constant {
        right.array.len()
    } else {
        left.array.len()
    };
    let values = (0..rows).map(one).collect::<Result<Vec<i128>>>()?;
    let array = PrimitiveArray::<Decimal128Type>::try_new(values.into(), nulls)?;
    Ok(Arc::new(array.with_data_type(result.clone())))
}

/// The product of Decimal128 operands that all fit 64 bits; `None` for others.
fn narrow_product(operator: CheckedOperator, left: &Operand, right: &Operand, result: &DataType) -> Option<ArrayRef> {
    if operator != CheckedOperator::Multiply {
        return None;
    }
    let (l, r) = (left.slots::<Decimal128Type>(), right.slots::<Decimal128Type>());
    let narrow = |value: i128| i128::from(low(value)) == value;
    if !l.all(narrow) || !r.all(narrow) {
        return None;
    }
    let rows = if left.constant {
        right.array.len()
    } else {
        left.array.len()
    };
    let values = l.zip(r, rows, |l, r| i128::from(low(l)) * i128::from(low(r)));
    let nulls = NullBuffer::union(left.nulls(), right.nulls());
    let array = PrimitiveArray::<Decimal128Type>::try_new(values.into(), nulls).ok()?;
    Some(Arc::new(array.with_data_type(result.clone())))
}

/// The low 64 bits.
#[expect(clippy::cast_possible_truncation, reason = "that is what it is for")]
fn low(value: i128) -> i64 {
    value as i64
}

fn digits_checked<T: DecimalType>(operator: CheckedOperator, values: ArrayRef, result: &DataType) -> Result<ArrayRef> {
    if digits_fit::<T>(values.as_primitive(), result) {
        Ok(values)
    } else {
        overflow("decimal", operator)
    }
}

/// Whether all values have at most the digits of the decimal type.
pub(super) fn digits_fit<T: DecimalType>(values: &PrimitiveArray<T>, data_type: &DataType) -> bool {
    let (DataType::Decimal32(digits, _)
    | DataType::Decimal64(digits, _)
    | DataType::Decimal128(digits, _)
    | DataType::Decimal256(digits, _)) = data_type
    else {
        return true;
    };
    let fits = |value: T::Native| T::is_valid_decimal_precision(value, *digits);
    // Slots of NULLs too, first: most often all are in order.
    values.values().iter().fold(true, |all, value| all & fits(*value)) || values.iter().flatten().all(fits)
}
