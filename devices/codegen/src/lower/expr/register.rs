//! Registers: integral operands with their bounds, constants and words in a lane, flags of NULL, and faults.

use trireme_device_api::{DeviceError, Type, Value as Constant};

use super::range::Range;
use crate::build;
use crate::ir::{Const, Expr as Ir, Scalar, Stmt};
use crate::lower::{Fault, Kind, Lowered, Lowering, Shape, Unsupported, Value};
use crate::program::Word;

/// An integral operand, in the lane of its range; in range also where it is NULL.
#[derive(Debug, Clone)]
pub(super) struct Number {
    pub(super) ir: Ir,
    pub(super) range: Range,
}

impl Number {
    pub(super) fn lane(&self) -> Scalar {
        Shape::lane(self.range)
    }

    /// In another lane: widened, or its low bits.
    pub(super) fn to(&self, lane: Scalar) -> Ir {
        convert(self.ir.clone(), self.lane(), lane)
    }
}

/// The lane's value in another lane.
pub(super) fn convert(ir: Ir, from: Scalar, to: Scalar) -> Ir {
    if from == to { ir } else { ir.to(to) }
}

/// The wider of two integral lanes.
pub(super) fn wider(a: Scalar, b: Scalar) -> Scalar {
    match (a, b) {
        (Scalar::I128, _) | (_, Scalar::I128) => Scalar::I128,
        (Scalar::I64, _) | (_, Scalar::I64) => Scalar::I64,
        _ => Scalar::I32,
    }
}

/// The values that a lane holds.
pub(super) fn lane_range(lane: Scalar) -> Range {
    match lane {
        Scalar::I32 => (i32::MIN.into(), i32::MAX.into()),
        Scalar::I64 => (i64::MIN.into(), i64::MAX.into()),
        _ => (i128::MIN, i128::MAX),
    }
}

/// A constant of the text, for what depends on types and ranges alone; the lane holds it.
pub(super) fn constant(lane: Scalar, value: i128) -> Ir {
    Ir::Const(match lane {
        Scalar::I32 => Const::I32(i32::try_from(value).unwrap_or_default()),
        Scalar::I64 => Const::I64(i64::try_from(value).unwrap_or_default()),
        _ => Const::I128(value),
    })
}

/// The low and the high 64 bits.
pub(super) fn halves(value: i128) -> (u64, u64) {
    let bytes = value.to_le_bytes();
    let half = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(word)
    };
    (half(0), half(8))
}

/// An operand that must be integral.
pub(super) fn number(value: &Value) -> Lowered<Number> {
    match (&value.shape.kind, value.shape.range) {
        (Kind::Integer(_), Some(range)) => Ok(Number {
            ir: value.ir.clone(),
            range,
        }),
        _ => Err(Unsupported(format!("{:?} as an integer", value.shape.data_type))),
    }
}

/// An integral value.
pub(super) fn integral(data_type: &Type, number: Number, null: Option<Ir>) -> Value {
    let kind = Kind::Integer(number.lane());
    Value {
        ir: number.ir,
        null,
        shape: Shape {
            data_type: data_type.clone(),
            kind,
            range: Some(number.range),
        },
    }
}

/// A value that isn't integral.
pub(super) fn other(data_type: &Type, kind: Kind, ir: Ir, null: Option<Ir>) -> Value {
    Value {
        ir,
        null,
        shape: Shape {
            data_type: data_type.clone(),
            kind,
            range: None,
        },
    }
}

/// A boolean value.
pub(super) fn boolean(ir: Ir, null: Option<Ir>) -> Value {
    other(&Type::Boolean, Kind::Boolean, ir, null)
}

/// NULL.
pub(super) fn null_of(data_type: &Type) -> Value {
    other(data_type, Kind::Null, build::bool(false), Some(build::bool(true)))
}

/// True when it is NULL in every row.
pub(super) fn is_null(value: &Value) -> bool {
    matches!(value.shape.kind, Kind::Null)
}

/// True for what costs nothing to use again.
fn is_cheap(ir: &Ir) -> bool {
    match ir {
        Ir::Var(_) | Ir::Const(_) | Ir::Word(_) => true,
        Ir::Convert(_, inner) => matches!(inner.as_ref(), Ir::Word(_)),
        _ => false,
    }
}

impl Lowering<'_> {
    /// The same value, cheap to use many times.
    pub(super) fn keep(&mut self, scalar: Scalar, ir: Ir) -> Ir {
        if is_cheap(&ir) {
            return ir;
        }
        self.b.set(scalar, ir).into()
    }

    /// A flag, kept.
    pub(super) fn flag(&mut self, ir: Ir) -> Ir {
        self.keep(Scalar::Bool, ir)
    }

    /// NULL where either is.
    pub(super) fn either_null(&mut self, a: Option<Ir>, b: Option<Ir>) -> Option<Ir> {
        match (a, b) {
            (None, other) | (other, None) => other,
            (Some(a), Some(b)) if a == b => Some(a),
            (Some(a), Some(b)) => Some(self.flag(a.or(b))),
        }
    }

    /// An integer of the query, as words of the block.
    pub(super) fn literal(&mut self, value: i128) -> Number {
        let range = (value, value);
        let (low, high) = halves(value);
        let low = self.word(Word::Value(low));
        let ir = match Shape::lane(range) {
            Scalar::I128 => {
                let high = self.word(Word::Value(high)).to(Scalar::I64).to(Scalar::I128);
                let high = high.times(constant(Scalar::I128, 1 << 64));
                self.keep(Scalar::I128, high.plus(low.to(Scalar::I128)))
            }
            lane => low.to(lane),
        };
        Number { ir, range }
    }

    /// A constant of the query that isn't text.
    pub(super) fn plain_constant(&mut self, value: &Constant, data_type: &Type) -> Lowered<Value> {
        Ok(match value {
            Constant::Null => null_of(data_type),
            Constant::Boolean(value) => boolean(build::bool(*value), None),
            Constant::Int(value) => integral(data_type, self.literal(*value), None),
            Constant::Float(value) if *data_type == Type::Float32 => {
                #[expect(clippy::cast_possible_truncation, reason = "a 32-bit float is exact in 64")]
                let bits = (*value as f32).to_bits();
                let word = self.word(Word::Value(bits.into())).to(Scalar::U32);
                let ir = self.keep(Scalar::F32, word.bits(Scalar::F32));
                other(data_type, Kind::Float32, ir, None)
            }
            Constant::Float(value) => {
                let word = self.word(Word::Value(value.to_bits()));
                let ir = self.keep(Scalar::F64, word.bits(Scalar::F64));
                other(data_type, Kind::Float64, ir, None)
            }
            Constant::Bytes(_) | Constant::Interval(_) => {
                return Err(Unsupported(format!("a constant of type {data_type:?} as a value")));
            }
        })
    }

    /// Raises an error where the flag is set and the value isn't NULL.
    pub(super) fn fail(&mut self, bad: Ir, null: Option<&Ir>, error: DeviceError) {
        let condition = match null {
            Some(null) => bad.and(null.clone().not()),
            None => bad,
        };
        self.b.begin();
        self.fault(Fault::Error(error));
        let then = self.b.end();
        self.b.push(Stmt::If {
            condition,
            then,
            otherwise: Vec::new(),
        });
        self.parts.expressions.faults += 1;
    }
}

/// An error of arithmetic, in the words of all variants.
pub(super) fn arithmetic_error(message: &str) -> DeviceError {
    DeviceError::Arithmetic(message.to_owned())
}
