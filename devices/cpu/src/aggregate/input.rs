//! Arguments as update loops read them: plain slices, and which rows count.

use std::borrow::Cow;

use crate::aggregate::primitive::{Operation, Primitive};
use crate::vector::{Data, Vector};

/// Values of an argument by row; none for counts.
#[derive(Debug)]
pub(super) enum Lanes<'a> {
    None,
    Bool(&'a [u8]),
    I8(&'a [i8]),
    I16(&'a [i16]),
    I32(&'a [i32]),
    I64(Cow<'a, [i64]>),
    I128(&'a [i128]),
    F32(&'a [f32]),
    F64(Cow<'a, [f64]>),
    Codes(&'a [u32]),
    Bytes(Cow<'a, [&'a [u8]]>),
}

/// What one primitive reads of a tile.
#[derive(Debug)]
pub(super) struct Input<'a> {
    pub(super) lanes: Lanes<'a>,
    /// 1 for rows that count; none when all do.
    pub(super) pass: Option<Cow<'a, [u8]>>,
}

/// Which rows update which groups.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pick<'a> {
    pub(super) ids: &'a [u32],
    /// The row of each id; none when they are rows in order, from `start` on.
    pub(super) rows: Option<&'a [u32]>,
    pub(super) start: usize,
}

impl<'a> Pick<'a> {
    pub(super) fn new(ids: &'a [u32], rows: Option<&'a [u32]>) -> Self {
        Self { ids, rows, start: 0 }
    }

    /// Calls `f` with each id and row.
    #[inline(always)]
    pub(super) fn each(&self, mut f: impl FnMut(usize, usize)) {
        match self.rows {
            None => {
                for (row, &id) in (self.start..).zip(self.ids) {
                    f(id as usize, row);
                }
            }
            Some(rows) => {
                for (&id, &row) in self.ids.iter().zip(rows) {
                    f(id as usize, row as usize);
                }
            }
        }
    }
}

/// Runs `$body` with `$values` bound to the slice and `$widen` to a function from its values to `$wide`; not for floats,
/// codes and bytes.
macro_rules! integers {
    ($lanes:expr, $wide:ty, |$values:ident, $widen:ident| $body:expr, else $other:expr) => {
        match $lanes {
            Lanes::Bool($values) => integers!(@with u8, $wide, $widen, $body),
            Lanes::I8($values) => integers!(@with i8, $wide, $widen, $body),
            Lanes::I16($values) => integers!(@with i16, $wide, $widen, $body),
            Lanes::I32($values) => integers!(@with i32, $wide, $widen, $body),
            Lanes::I64($values) => {
                let $values: &[i64] = $values;
                integers!(@with i64, $wide, $widen, $body)
            }
            Lanes::I128($values) => integers!(@with i128, $wide, $widen, $body),
            _ => $other,
        }
    };
    (@with $narrow:ty, $wide:ty, $widen:ident, $body:expr) => {{
        #[inline(always)]
        fn $widen(value: $narrow) -> $wide {
            value as $wide
        }
        $body
    }};
}
pub(super) use integers;

/// Floats as integers of the same order; NaN is one value and the largest.
#[inline(always)]
pub(super) fn order_of(value: f64) -> i64 {
    let value = if value.is_nan() { f64::NAN.abs() } else { value };
    let bits = value.to_bits().cast_signed();
    bits ^ (((bits >> 63).cast_unsigned()) >> 1).cast_signed()
}

/// The float of an order key.
pub(super) fn float_of(order: i64) -> f64 {
    let bits = order ^ (((order >> 63).cast_unsigned()) >> 1).cast_signed();
    f64::from_bits(bits.cast_unsigned())
}

/// The bits of a float as a key: NaN is one, −0.0 is 0.0.
#[inline(always)]
pub(super) fn key_of(value: f64) -> u64 {
    if value.is_nan() {
        f64::NAN.abs().to_bits()
    } else {
        (value + 0.0).to_bits()
    }
}

fn both<'a>(left: Option<Cow<'a, [u8]>>, right: Option<&'a [u8]>) -> Option<Cow<'a, [u8]>> {
    match (left, right) {
        (Some(left), Some(right)) => Some(Cow::Owned(left.iter().zip(right).map(|(a, b)| a & b).collect())),
        (None, Some(right)) => Some(Cow::Borrowed(right)),
        (left, None) => left,
    }
}

/// The input of `primitive` in a tile of `rows` rows.
pub(super) fn input<'a>(
    primitive: &Primitive,
    arguments: &'a [Option<Vector<'a>>],
    filters: &'a [Option<Vec<u8>>],
    rows: usize,
) -> Input<'a> {
    let filter = primitive
        .filter
        .and_then(|index| filters.get(index))
        .and_then(|filter| filter.as_deref());
    let vector = match primitive.operation {
        Operation::Rows => None,
        _ => arguments.get(primitive.argument).and_then(|argument| argument.as_ref()),
    };
    let Some(vector) = vector else {
        let pass = filter.map(Cow::Borrowed);
        return Input {
            lanes: Lanes::None,
            pass,
        };
    };
    let valid = match &vector.data {
        Data::Null(_) => Some(Cow::Owned(vec![0_u8; rows])),
        _ if !primitive.nullable => None,
        _ => vector.valid.as_deref().map(Cow::Borrowed),
    };
    let ordered = matches!(primitive.operation, Operation::Extreme { .. });
    let lanes = match primitive.operation {
        Operation::Valid => Lanes::None,
        _ => lanes(&vector.data, ordered),
    };
    Input {
        lanes,
        pass: both(valid, filter),
    }
}

/// `ordered`: as integers that compare as the values do.
fn lanes<'a>(data: &'a Data<'a>, ordered: bool) -> Lanes<'a> {
    match data {
        Data::Bool(values) => Lanes::Bool(values),
        Data::I8(values) => Lanes::I8(values),
        Data::I16(values) => Lanes::I16(values),
        Data::I32(values) => Lanes::I32(values),
        Data::I64(values) => Lanes::I64(Cow::Borrowed(values)),
        Data::I128(values) => Lanes::I128(values),
        Data::F32(values) if ordered => Lanes::I64(values.iter().map(|&value| order_of(value.into())).collect()),
        Data::F64(values) if ordered => Lanes::I64(values.iter().map(|&value| order_of(value)).collect()),
        Data::F32(values) => Lanes::F32(values),
        Data::F64(values) => Lanes::F64(Cow::Borrowed(values)),
        Data::Codes(codes, dictionary) if ordered => {
            let ranks = dictionary.ranks();
            let rank = |&code: &u32| ranks.get(code as usize).map_or(0, |&rank| i64::from(rank));
            Lanes::I64(codes.iter().map(rank).collect())
        }
        Data::Codes(codes, _) => Lanes::Codes(codes),
        Data::Bytes(values) => Lanes::Bytes(Cow::Borrowed(values)),
        Data::Strings(strings) => Lanes::Bytes((0..strings.len()).map(|row| strings.get(row)).collect()),
        Data::Interval(_) | Data::Null(_) => Lanes::None,
    }
}
