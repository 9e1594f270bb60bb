//! IN over constants.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use trireme_device_api::{BinaryOperator, DeviceError, Type, Value};

use super::arithmetic::scale;
use super::constant::constant;
use super::text::views;
use super::words::{self, WORD_BYTES};
use super::{ColumnTest, Compiled, Input, Node, compare, not_boolean, not_integral};
use crate::isa::primitive;
use crate::join::hash::{hash_bytes, hash_u64};
use crate::number::{Number, by_lane, map, map_values};
use crate::vector::{Data, Lane, Shape, Vector};

/// Up to so many integers are compared one after another.
const COMPARED_MAX: usize = 8;
/// In longer lists the same value may stand twice: looking for it would take longer than it saves.
const DISTINCT_MAX: usize = 64;
/// A table of bytes spans at most so many integers.
const TABLE_SPAN_MAX: i128 = 1 << 16;

/// Builds `operand IN (list)`, or NOT IN.
pub(super) fn build(operand: Compiled, list: &[Compiled], negated: bool) -> Result<Compiled, DeviceError> {
    let mut values: Vec<Value> = Vec::new();
    let mut has_null = false;
    for item in list {
        match &item.constant {
            Some(Value::Null) => has_null = true,
            Some(value) if list.len() > DISTINCT_MAX || !values.contains(value) => {
                if scale(&item.shape.data_type) != scale(&operand.shape.data_type) {
                    return Err(DeviceError::Unsupported(
                        "IN over decimals of several scales is not fused".to_owned(),
                    ));
                }
                values.push(value.clone());
            }
            Some(_) => {}
            None => {
                return Err(DeviceError::Unsupported(
                    "IN over values that aren't constant is not fused".to_owned(),
                ));
            }
        }
    }
    if operand.constant == Some(Value::Null) || operand.shape.data_type == Type::Null {
        return Ok(constant(Value::Null, &Type::Boolean));
    }
    if let (false, [value], Some(_)) = (has_null, values.as_slice(), operand.shape.range) {
        let operator = if negated {
            BinaryOperator::NotEqual
        } else {
            BinaryOperator::Equal
        };
        let value = constant(value.clone(), &operand.shape.data_type);
        return compare::build(operator, operand, value);
    }
    let set = Set::new(&operand, &values)?;
    let shape = Shape::of_type(Type::Boolean, operand.shape.nullable || has_null);
    let (fails, costly) = (operand.fails, operand.costly || matches!(set, Set::Bytes(_)));
    let node = InList {
        operand,
        set,
        has_null,
        negated,
    };
    Ok(Compiled::new(node, shape, fails, costly))
}

/// The constants, in a form that suits their number.
enum Set {
    Few(Lane, Vec<i128>),
    /// 1 at `value - base`.
    Table(i128, Vec<u8>),
    Integers(HashSet<i128>),
    Floats(Vec<f64>),
    /// As [`float_key`] has them.
    FloatTable(HashSet<u64>),
    Booleans([u8; 2]),
    /// Strings of up to seven bytes, each as a word.
    Words(Words),
    Bytes(Strings),
}

/// Words, compared one after another or looked up.
enum Words {
    Few(Vec<i64>),
    Table(HashSet<i64, BuildHasherDefault<WordHasher>>),
}

/// Strings of which some are longer than words.
enum Strings {
    Few(Vec<Box<[u8]>>),
    Table(HashSet<Box<[u8]>, BuildHasherDefault<WordHasher>>),
}

impl Set {
    fn new(operand: &Compiled, values: &[Value]) -> Result<Self, DeviceError> {
        let mismatch = || DeviceError::Internal("IN over values of another type".to_owned());
        match &operand.shape.data_type {
            Type::Boolean => {
                let mut table = [0; 2];
                for value in values {
                    match value {
                        Value::Boolean(value) => table[usize::from(*value)] = 1,
                        _ => return Err(mismatch()),
                    }
                }
                Ok(Set::Booleans(table))
            }
            data_type if data_type.is_float() => {
                let float = |value: &Value| match value {
                    Value::Float(value) => Ok(*value),
                    _ => Err(mismatch()),
                };
                let floats = values.iter().map(float).collect::<Result<Vec<_>, _>>()?;
                Ok(match floats.len() {
                    ..=COMPARED_MAX => Set::Floats(floats),
                    _ => Set::FloatTable(floats.into_iter().map(float_key).collect()),
                })
            }
            data_type if data_type.is_bytes() => {
                let mut strings = Vec::new();
                for value in values {
                    match value {
                        Value::Bytes(value) => strings.push(value.as_ref()),
                        _ => return Err(mismatch()),
                    }
                }
                Ok(Self::of_strings(&strings))
            }
            _ => {
                let (low, high) = operand.range()?;
                let mut integers = Vec::new();
                for value in values {
                    match value {
                        Value::Int(value) if (low..=high).contains(value) => integers.push(*value),
                        Value::Int(_) => {}
                        _ => return Err(mismatch()),
                    }
                }
                Ok(Self::of_integers(integers, Lane::of_range(low, high)))
            }
        }
    }

    fn of_strings(values: &[&[u8]]) -> Self {
        let short = values.iter().all(|value| value.len() <= WORD_BYTES);
        match (short, values.len() <= COMPARED_MAX) {
            (true, few) => {
                let words = values.iter().map(|value| words::word(value));
                Set::Words(if few {
                    Words::Few(words.collect())
                } else {
                    Words::Table(words.collect())
                })
            }
            (false, few) => {
                let values = values.iter().map(|value| Box::from(*value));
                Set::Bytes(if few {
                    Strings::Few(values.collect())
                } else {
                    Strings::Table(values.collect())
                })
            }
        }
    }

    fn of_integers(values: Vec<i128>, lane: Lane) -> Self {
        if values.len() <= COMPARED_MAX {
            return Set::Few(lane, values);
        }
        let (low, high) = values
            .iter()
            .fold((i128::MAX, i128::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
        if high.checked_sub(low).is_some_and(|span| span < TABLE_SPAN_MAX) {
            let mut table = vec![0; (high - low) as usize + 1];
            for value in &values {
                table[(value - low) as usize] = 1;
            }
            return Set::Table(low, table);
        }
        Set::Integers(values.into_iter().collect())
    }
}

struct InList {
    operand: Compiled,
    set: Set,
    has_null: bool,
    negated: bool,
}

impl Node for InList {
    fn take_tests(&mut self, tests: &mut Vec<ColumnTest>) -> bool {
        // With a NULL among them NOT IN is TRUE for no row.
        let (Set::Few(_, values), Some(column), false) =
            (&self.set, self.operand.column, self.has_null && self.negated)
        else {
            return false;
        };
        tests.push(ColumnTest::Runs {
            column,
            runs: values.iter().map(|value| (*value, *value)).collect(),
            negated: self.negated,
        });
        true
    }

    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        let (found, valid) = match &self.set {
            Set::Words(set) => {
                let (words, valid) = words::of(&self.operand, input)?;
                let found = match set {
                    Words::Few(few) => any_of(input.isa, &words, few),
                    Words::Table(table) => map_values(&words, |word| u8::from(table.contains(&word))),
                };
                (found, valid)
            }
            _ => {
                let vector = self.operand.eval(input)?;
                (self.found(&vector, input)?, vector.valid)
            }
        };
        let valid = match (self.has_null, valid) {
            (false, valid) => valid,
            (true, None) => Some(found.clone().into()),
            (true, Some(valid)) => Some(crate::number::zip(input.isa, &found, &valid, |a: u8, b: u8| a & b).into()),
        };
        let values = if self.negated {
            map(input.isa, &found, |found: u8| found ^ 1)
        } else {
            found
        };
        Ok(Vector {
            data: Data::Bool(values.into()),
            valid,
        })
    }
}

impl InList {
    /// 1 where the value is among the constants.
    fn found(&self, vector: &Vector<'_>, input: &Input<'_, '_>) -> Result<Vec<u8>, DeviceError> {
        let isa = input.isa;
        Ok(match &self.set {
            Set::Few(lane, few) => by_lane!(*lane, T => {
                let values = vector.integers::<T>(isa).ok_or_else(not_integral)?;
                let few: Vec<T> = few.iter().map(|value| T::of(*value)).collect();
                any_of(isa, &values, &few)
            }),
            Set::Table(base, table) => {
                let at = |value: i128| {
                    value
                        .checked_sub(*base)
                        .and_then(|at| table.get(usize::try_from(at).ok()?))
                };
                match vector.to_i64(isa) {
                    Some(values) => {
                        let base = *base as i64;
                        map_values(&values, |value: i64| {
                            table.get(value.wrapping_sub(base) as usize).copied().unwrap_or(0)
                        })
                    }
                    None => integers(vector, input, |value| at(value) == Some(&1))?,
                }
            }
            Set::Integers(set) => integers(vector, input, |value| set.contains(&value))?,
            Set::Booleans(table) => match &vector.data {
                Data::Bool(values) => map_values(values, |value| table[usize::from(value & 1)]),
                _ => return Err(not_boolean()),
            },
            Set::Floats(set) => {
                let contains = |value: f64| u8::from(set.iter().any(|x| *x == value || (x.is_nan() && value.is_nan())));
                match &vector.data {
                    Data::F32(values) => map_values(values, |value| contains(value.into())),
                    Data::F64(values) => map_values(values, contains),
                    _ => return Err(not_integral()),
                }
            }
            Set::FloatTable(set) => {
                let contains = |value: f64| u8::from(set.contains(&float_key(value)));
                match &vector.data {
                    Data::F32(values) => map_values(values, |value| contains(value.into())),
                    Data::F64(values) => map_values(values, contains),
                    _ => return Err(not_integral()),
                }
            }
            Set::Words(_) => return Err(DeviceError::Internal("words of a vector".to_owned())),
            Set::Bytes(Strings::Few(few)) => views(vector)
                .iter()
                .map(|value| u8::from(few.iter().any(|one| one.as_ref() == *value)))
                .collect(),
            Set::Bytes(Strings::Table(set)) => {
                let values = views(vector);
                values.iter().map(|value| u8::from(set.contains(*value))).collect()
            }
        })
    }
}

/// The same for both zeros, and for all NaN.
fn float_key(value: f64) -> u64 {
    match value {
        _ if value.is_nan() => f64::NAN.to_bits(),
        0.0 => 0,
        _ => value.to_bits(),
    }
}

fn integers(vector: &Vector<'_>, input: &Input<'_, '_>, test: impl Fn(i128) -> bool) -> Result<Vec<u8>, DeviceError> {
    let values = vector.to_i128(input.isa).ok_or_else(not_integral)?;
    Ok(values.iter().map(|value| u8::from(test(*value))).collect())
}

/// Few instructions for keys that nobody chooses to collide: they stand in the query.
#[derive(Default)]
struct WordHasher(u64);

impl Hasher for WordHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.write_u64(hash_bytes(bytes));
    }

    fn write_i64(&mut self, word: i64) {
        self.write_u64(word.cast_unsigned());
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = hash_u64(self.0 ^ word);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

primitive! {
    fn any_of[T: Number](values: &[T], few: &[T]) -> Vec<u8> {
        let mut found = vec![0; values.len()];
        for one in few {
            for (found, value) in found.iter_mut().zip(values) {
                *found |= u8::from(value == one);
            }
        }
        found
    }
}
