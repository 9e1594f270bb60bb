//! CASE. Where nothing can fail and nothing is slow, all branches are evaluated and blended; else each branch sees only the
//! rows that reach it.

use std::collections::HashMap;
use std::sync::Arc;

use trireme_device_api::{DeviceError, Dictionary, Strings, Type, Value};

use super::constant::constant;
use super::{Compiled, Input, Mask, Node, range};
use crate::compact::kept;
use crate::isa::{Isa, primitive};
use crate::number::{Number, map, map_values};
use crate::vector::{Data, Shape, Vector};

/// Dictionaries with more entries in all aren't united: results are strings then.
const UNITED_ENTRIES_MAX: usize = 1 << 16;

/// Builds CASE of conditions and values; a missing ELSE is NULL.
pub(super) fn build(
    branches: Vec<(Compiled, Compiled)>,
    otherwise: Option<Compiled>,
    data_type: &Type,
) -> Result<Compiled, DeviceError> {
    let otherwise = otherwise.unwrap_or_else(|| constant(Value::Null, data_type));
    let mut live = Vec::new();
    let mut last = None;
    for (condition, value) in branches {
        match condition.constant {
            Some(Value::Boolean(true)) => {
                last = Some(value);
                break;
            }
            Some(_) => {}
            None => live.push((condition, value)),
        }
    }
    let otherwise = last.unwrap_or(otherwise);
    if live.is_empty() {
        return Ok(otherwise);
    }
    let results: Vec<&Compiled> = live.iter().map(|(_, value)| value).chain([&otherwise]).collect();
    let (shape, maps) = united(&results, data_type);
    let all = || {
        live.iter()
            .flat_map(|(condition, value)| [condition, value])
            .chain([&otherwise])
    };
    let (fails, costly) = (all().any(|part| part.fails), all().any(|part| part.costly));
    let lazy = all().skip(1).any(Compiled::selective);
    let node = Case {
        lazy,
        branches: live,
        otherwise,
        shape: shape.clone(),
        maps,
    };
    Ok(Compiled::new(node, shape, fails, costly))
}

/// The shape that holds all results, and how each result's codes become codes of its dictionary.
fn united(results: &[&Compiled], data_type: &Type) -> (Shape, Vec<Option<Vec<u32>>>) {
    let mut shape = Shape::of_type(data_type.clone(), results.iter().any(|result| result.shape.nullable));
    let is_null = |result: &&&Compiled| result.constant == Some(Value::Null);
    if data_type.is_integral() {
        let ranges = results
            .iter()
            .filter(|result| !is_null(result))
            .map(|result| result.shape.range);
        shape.range = ranges.reduce(range::union).flatten().or(Some((0, 0)));
    }
    let mut maps = vec![None; results.len()];
    if !data_type.is_bytes() {
        return (shape, maps);
    }
    let dictionaries: Option<Vec<&Arc<Dictionary>>> =
        results.iter().map(|result| result.shape.dictionary.as_ref()).collect();
    let Some(dictionaries) = dictionaries else {
        return (shape, maps);
    };
    if let [first, rest @ ..] = dictionaries.as_slice()
        && rest.iter().all(|other| Arc::ptr_eq(first, other))
    {
        shape.dictionary = Some(Arc::clone(first));
        return (shape, maps);
    }
    if dictionaries.iter().map(|dictionary| dictionary.len()).sum::<usize>() > UNITED_ENTRIES_MAX {
        return (shape, maps);
    }
    let mut codes: HashMap<&[u8], u32> = HashMap::new();
    let mut values: Vec<&[u8]> = Vec::new();
    for (map, dictionary) in maps.iter_mut().zip(&dictionaries) {
        let code_of = |code: usize| {
            let value = dictionary.get(code as u32);
            *codes.entry(value).or_insert_with(|| {
                values.push(value);
                values.len() as u32 - 1
            })
        };
        *map = Some((0..dictionary.len()).map(code_of).collect());
    }
    shape.distinct = Some(values.len());
    shape.dictionary = Some(Arc::new(Dictionary::new(Strings::from_values(values))));
    (shape, maps)
}

struct Case {
    branches: Vec<(Compiled, Compiled)>,
    otherwise: Compiled,
    lazy: bool,
    shape: Shape,
    /// For each result, ELSE last.
    maps: Vec<Option<Vec<u32>>>,
}

impl Node for Case {
    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        if self.lazy {
            self.row_by_row(input)
        } else {
            self.blended(input)
        }
    }
}

impl Case {
    fn blended<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        let count = self.branches.len();
        let mut result = self.fitted(count, self.otherwise.eval(input)?, input.isa);
        for (at, (condition, value)) in self.branches.iter().enumerate().rev() {
            let mut mask = Mask::default();
            condition.truth(input, &mut mask)?;
            let value = self.fitted(at, value.eval(input)?, input.isa);
            result = match mask.bytes {
                None => value,
                Some(mask) => blend(&mask, value, result, &self.shape, input.isa)?,
            };
        }
        Ok(result)
    }

    fn row_by_row<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        let isa = input.isa;
        let mut open: Vec<u32> = (0..input.rows as u32).collect();
        let mut pieces = Vec::new();
        for (at, (condition, value)) in self.branches.iter().enumerate() {
            if open.is_empty() {
                break;
            }
            let mut mask = Mask::default();
            condition.truth(&input.select(&open), &mut mask)?;
            let mask = mask.bytes.unwrap_or_else(|| vec![1; open.len()]);
            let pick = |mask: &[u8]| map_values(&kept(isa, mask, 0), |at| open[at as usize]);
            let taken = pick(&mask);
            let rest = pick(&map(isa, &mask, |byte: u8| byte ^ 1));
            if !taken.is_empty() {
                let vector = self.fitted(at, value.eval(&input.select(&taken))?, isa);
                pieces.push((taken, vector));
            }
            open = rest;
        }
        if !open.is_empty() {
            let vector = self.fitted(self.branches.len(), self.otherwise.eval(&input.select(&open))?, isa);
            pieces.push((open, vector));
        }
        assemble(&pieces, &self.shape, input.rows)
    }

    /// A result in the lane, or the codes, of the CASE.
    fn fitted<'x>(&self, at: usize, vector: Vector<'x>, isa: Isa) -> Vector<'x> {
        if matches!(vector.data, Data::Null(_)) {
            return Vector::nulls(&self.shape, vector.len());
        }
        if let Some(lane) = self.shape.lane() {
            return vector.into_lane(lane, isa);
        }
        match (vector.data, &self.shape.dictionary, &self.maps[at]) {
            (Data::Codes(codes, _), Some(dictionary), Some(map)) => {
                let codes = map_values(&codes, |code| map.get(code as usize).copied().unwrap_or_default());
                Vector {
                    data: Data::Codes(codes.into(), Arc::clone(dictionary)),
                    valid: vector.valid,
                }
            }
            (data, ..) => Vector {
                data,
                valid: vector.valid,
            },
        }
    }
}

/// `a` where the mask is 1, else `b`; both are of the shape.
fn blend<'x>(mask: &[u8], a: Vector<'x>, b: Vector<'x>, shape: &Shape, isa: Isa) -> Result<Vector<'x>, DeviceError> {
    let data = match (&a.data, &b.data) {
        (Data::Bool(a), Data::Bool(b)) => Data::Bool(either(isa, mask, a, b).into()),
        (Data::I8(a), Data::I8(b)) => i8::data(either(isa, mask, a, b).into()),
        (Data::I16(a), Data::I16(b)) => i16::data(either(isa, mask, a, b).into()),
        (Data::I32(a), Data::I32(b)) => i32::data(either(isa, mask, a, b).into()),
        (Data::I64(a), Data::I64(b)) => i64::data(either(isa, mask, a, b).into()),
        (Data::I128(a), Data::I128(b)) => i128::data(either(isa, mask, a, b).into()),
        (Data::F32(a), Data::F32(b)) => Data::F32(either(isa, mask, a, b).into()),
        (Data::F64(a), Data::F64(b)) => Data::F64(either(isa, mask, a, b).into()),
        (Data::Codes(a, dictionary), Data::Codes(b, other)) if Arc::ptr_eq(dictionary, other) => {
            Data::Codes(either(isa, mask, a, b).into(), Arc::clone(dictionary))
        }
        _ => {
            let taken = kept(isa, mask, 0);
            let rest = kept(isa, &map(isa, mask, |byte: u8| byte ^ 1), 0);
            let (a, b) = (a.take(&taken), b.take(&rest));
            return assemble(&[(taken, a), (rest, b)], shape, mask.len());
        }
    };
    let valid = match (&a.valid, &b.valid) {
        (None, None) => None,
        (a, b) => {
            let ones = vec![1_u8; mask.len()];
            let side = |valid: &Option<std::borrow::Cow<'x, [u8]>>| valid.as_deref().unwrap_or(&ones).to_vec();
            Some(either(isa, mask, &side(a), &side(b)).into())
        }
    };
    Ok(Vector { data, valid })
}

primitive! {
    fn either[T: Copy](mask: &[u8], a: &[T], b: &[T]) -> Vec<T> {
        let rows = mask.len().min(a.len()).min(b.len());
        let mut out = b[..rows].to_vec();
        for ((out, mask), a) in out.iter_mut().zip(mask).zip(a) {
            *out = if *mask != 0 { *a } else { *out };
        }
        out
    }
}

/// One vector of pieces and the rows that they are; together they are all rows.
pub(super) fn assemble<'x>(
    pieces: &[(Vec<u32>, Vector<'x>)],
    shape: &Shape,
    rows: usize,
) -> Result<Vector<'x>, DeviceError> {
    macro_rules! scatter {
        ($data:ident) => {{
            let mut out = Vec::new();
            for (at, piece) in pieces {
                if let Data::$data(values) = &piece.data {
                    out.resize(rows, values.first().copied().unwrap_or_default());
                    for (row, value) in at.iter().zip(values.iter()) {
                        out[*row as usize] = *value;
                    }
                }
            }
            out.resize(rows, Default::default());
            Data::$data(out.into())
        }};
    }
    let data = match pieces.first().map(|(_, piece)| &piece.data) {
        None => return Ok(Vector::nulls(shape, rows)),
        Some(Data::Bool(_)) => scatter!(Bool),
        Some(Data::I8(_)) => scatter!(I8),
        Some(Data::I16(_)) => scatter!(I16),
        Some(Data::I32(_)) => scatter!(I32),
        Some(Data::I64(_)) => scatter!(I64),
        Some(Data::I128(_)) => scatter!(I128),
        Some(Data::F32(_)) => scatter!(F32),
        Some(Data::F64(_)) => scatter!(F64),
        Some(Data::Interval(_)) => scatter!(Interval),
        Some(Data::Null(_)) => Data::Null(rows),
        Some(Data::Codes(..) | Data::Bytes(_) | Data::Strings(_)) => strings(pieces, shape, rows)?,
    };
    let nulls = pieces.iter().any(|(_, piece)| piece.has_nulls());
    let valid = nulls.then(|| {
        let mut valid = vec![1_u8; rows];
        for (at, piece) in pieces {
            for (inner, row) in at.iter().enumerate() {
                valid[*row as usize] = u8::from(!piece.is_null(inner));
            }
        }
        valid.into()
    });
    Ok(Vector { data, valid })
}

fn strings<'x>(pieces: &[(Vec<u32>, Vector<'x>)], shape: &Shape, rows: usize) -> Result<Data<'x>, DeviceError> {
    if let Some(dictionary) = &shape.dictionary {
        let mut codes = vec![0; rows];
        for (at, piece) in pieces {
            if let Data::Codes(values, _) = &piece.data {
                for (row, value) in at.iter().zip(values.iter()) {
                    codes[*row as usize] = *value;
                }
            }
        }
        return Ok(Data::Codes(codes.into(), Arc::clone(dictionary)));
    }
    if pieces.iter().all(|(_, piece)| matches!(piece.data, Data::Bytes(_))) {
        let mut out: Vec<&'x [u8]> = vec![&[]; rows];
        for (at, piece) in pieces {
            if let Data::Bytes(values) = &piece.data {
                for (row, value) in at.iter().zip(values) {
                    out[*row as usize] = value;
                }
            }
        }
        return Ok(Data::Bytes(out));
    }
    let mut out: Vec<&[u8]> = vec![&[]; rows];
    for (at, piece) in pieces {
        for (inner, row) in at.iter().enumerate() {
            out[*row as usize] = piece.bytes_at(inner);
        }
    }
    Ok(Data::Strings(Strings::from_values(out).addressed()?))
}
