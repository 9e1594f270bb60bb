//! Functions of the contract: those with a loop of their own over the bytes of strings, the others by their reference, row by
//! row.

use std::borrow::Cow;

use trireme_device_api::{Answer, Argument, Descriptor, DeviceError, Function, Strings, Type, Value, substring_range};

use super::constant::constant;
use super::text::views;
use super::{Compiled, Input, Node, like, not_integral, slice};
use crate::like::Matcher;
use crate::number::{Number, by_lane, map_values};
use crate::vector::{Data, Shape, Vector, both_valid};

/// Builds a call.
pub(super) fn build(function: Function, args: Vec<Compiled>, data_type: &Type) -> Result<Compiled, DeviceError> {
    let descriptor = function.descriptor();
    let is_null = |arg: &Compiled| arg.constant == Some(Value::Null) || arg.shape.data_type == Type::Null;
    if descriptor.strict && args.iter().any(is_null) && !args.iter().any(|arg| arg.fails) {
        return Ok(constant(Value::Null, data_type));
    }
    let constants: Vec<Option<Value>> = args.iter().map(|arg| arg.constant.clone()).collect();
    let mut operands = args.into_iter();
    match (function, &constants[..], operands.next()) {
        (Function::Substring, [_, Some(Value::Int(start)), length @ ..], Some(text)) => {
            if let Some((first, after)) = fixed_range(*start, length) {
                return Ok(slice::part(text, first, after, data_type));
            }
            Ok(call(descriptor, text, operands, data_type, &constants))
        }
        (Function::Left, [_, Some(Value::Int(count))], Some(text)) if *count >= 0 => {
            let after = usize::try_from(*count).unwrap_or(usize::MAX);
            Ok(slice::part(text, 0, after, data_type))
        }
        (Function::StartsWith, [_, Some(Value::Bytes(part))], Some(text)) => {
            Ok(like::search(text, Matcher::starting_with(part), false))
        }
        (Function::EndsWith, [_, Some(Value::Bytes(part))], Some(text)) => {
            Ok(like::search(text, Matcher::ending_with(part), false))
        }
        (Function::Contains, [_, Some(Value::Bytes(part))], Some(text)) => {
            Ok(like::search(text, Matcher::containing(part), false))
        }
        (Function::OctetLength, [_], Some(text)) => Ok(slice::length(text, false, data_type)),
        (Function::CharacterLength, [_], Some(text)) => Ok(slice::length(text, true, data_type)),
        (Function::Upper, [_], Some(text)) => Ok(slice::folded(text, true, data_type)),
        (Function::Lower, [_], Some(text)) => Ok(slice::folded(text, false, data_type)),
        (_, _, Some(first)) => Ok(call(descriptor, first, operands, data_type, &constants)),
        (_, _, None) => Err(DeviceError::Internal(format!("{} without arguments", function.name()))),
    }
}

/// The characters of a substring, when they are known and there is no error in them.
fn fixed_range(start: i128, length: &[Option<Value>]) -> Option<(usize, usize)> {
    let start = i64::try_from(start).ok()?;
    let length = match length {
        [] => None,
        [Some(Value::Int(length))] => Some(i64::try_from(*length).ok()?),
        _ => return None,
    };
    let (first, after) = substring_range(start, length).ok()?;
    let clamp = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    Some((clamp(first), clamp(after)))
}

fn call(
    descriptor: &'static Descriptor,
    first: Compiled,
    rest: impl Iterator<Item = Compiled>,
    data_type: &Type,
    constants: &[Option<Value>],
) -> Compiled {
    let args: Vec<Compiled> = std::iter::once(first).chain(rest).collect();
    let nullable = descriptor.strict && args.iter().any(|arg| arg.shape.nullable);
    let fails = (descriptor.may_fail)(constants) || args.iter().any(|arg| arg.fails);
    let shape = Shape::of_type(data_type.clone(), nullable);
    let node = Call {
        descriptor,
        args,
        shape: shape.clone(),
    };
    Compiled::new(node, shape, fails, true)
}

/// A call of the reference for each row.
struct Call {
    descriptor: &'static Descriptor,
    args: Vec<Compiled>,
    shape: Shape,
}

/// The values of an argument.
enum Values<'v> {
    Texts(Cow<'v, [&'v [u8]]>),
    Integers(Cow<'v, [i64]>),
}

impl Node for Call {
    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        let vectors = self.args.iter().map(|arg| arg.eval(input));
        let vectors = vectors.collect::<Result<Vec<_>, _>>()?;
        let mut valid = None;
        if self.descriptor.strict {
            for vector in &vectors {
                let mine = vector.valid.as_ref().map(|valid| Cow::Owned(valid.to_vec()));
                valid = both_valid(valid, mine, input.isa);
            }
        }
        let data = self.rows(&vectors, valid.as_deref(), input)?;
        Ok(Vector { data, valid })
    }
}

impl Call {
    fn rows<'x>(
        &self,
        vectors: &[Vector<'_>],
        valid: Option<&[u8]>,
        input: &Input<'_, '_>,
    ) -> Result<Data<'x>, DeviceError> {
        let values = vectors.iter().map(|vector| match &vector.data {
            Data::Bytes(_) | Data::Strings(_) | Data::Codes(..) => Ok(Values::Texts(views(vector))),
            _ => Ok(Values::Integers(vector.to_i64(input.isa).ok_or_else(not_integral)?)),
        });
        let values = values.collect::<Result<Vec<_>, DeviceError>>()?;
        let mut results = Results::of(&self.shape);
        let mut args = Vec::with_capacity(values.len());
        for row in 0..input.rows {
            if valid.is_some_and(|valid| valid[row] == 0) {
                results.push(None);
                continue;
            }
            args.clear();
            for (values, vector) in values.iter().zip(vectors) {
                args.push(match values {
                    _ if vector.is_null(row) => Argument::Null,
                    Values::Integers(integers) => Argument::Int(integers[row]),
                    Values::Texts(texts) => Argument::Text(utf8(texts[row])?),
                });
            }
            results.push(Some(
                (self.descriptor.reference)(&args).map_err(DeviceError::Arithmetic)?,
            ));
        }
        results.finish(&self.shape)
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, DeviceError> {
    std::str::from_utf8(bytes).map_err(|error| DeviceError::Internal(format!("a string is not UTF-8: {error}")))
}

/// Answers, as they come.
#[derive(Default)]
struct Results {
    booleans: Vec<u8>,
    integers: Vec<i64>,
    offsets: Vec<u32>,
    bytes: Vec<u8>,
    is_text: bool,
}

impl Results {
    fn of(shape: &Shape) -> Self {
        Self {
            offsets: vec![0],
            is_text: shape.data_type.is_text(),
            ..Self::default()
        }
    }

    fn push(&mut self, answer: Option<Answer<'_>>) {
        match answer {
            Some(Answer::Text(text)) => self.bytes.extend_from_slice(text.as_bytes()),
            Some(Answer::Boolean(value)) => self.booleans.push(u8::from(value)),
            Some(Answer::Int(value)) => self.integers.push(value),
            None if self.is_text => {}
            None => {
                self.booleans.push(0);
                self.integers.push(0);
            }
        }
        self.offsets.push(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX));
    }

    fn finish<'x>(self, shape: &Shape) -> Result<Data<'x>, DeviceError> {
        if self.is_text {
            let strings = Strings {
                offsets: self.offsets.into(),
                bytes: self.bytes.into(),
            };
            return Ok(Data::Strings(strings.addressed()?));
        }
        if shape.data_type == Type::Boolean {
            return Ok(Data::Bool(self.booleans.into()));
        }
        let lane = shape.lane().ok_or_else(not_integral)?;
        Ok(by_lane!(lane, T => T::data(map_values(&self.integers, |value: i64| T::of(value.into())).into())))
    }
}
