//! IN over constants: compared one after another while they are few, else looked up.

use std::sync::Arc;

use trireme_device_api::{BinaryOperator, Dictionary, Expr, Strings, Type, Value as Constant};

use super::compare::floats;
use super::range::scale;
use super::register::{Number, boolean, constant, convert, is_null, null_of, number};
use super::table::Table;
use crate::build::{self, Builder, call, place};
use crate::ir::{Elem, Expr as Ir, Function, Scalar, Stmt};
use crate::lower::{Kind, Lowered, Lowering, Unsupported, Value};
use crate::program::Word;
use crate::shape::HANDLE_LENGTH_BITS;

/// Up to so many constants are compared one after another.
const COMPARED_MAX: usize = 8;
/// Floats, which have no table.
const FLOATS_MAX: usize = 64;
/// A table of flags spans at most so many integers.
const TABLE_SPAN_MAX: i128 = 1 << 16;

impl Lowering<'_> {
    /// `operand IN (list)`, or NOT IN.
    pub(super) fn in_list(&mut self, operand: &Value, list: &[Expr], negated: bool) -> Lowered<Value> {
        let mut values: Vec<Constant> = Vec::new();
        let mut has_null = false;
        for item in list {
            match self.folded(item)? {
                Some(Ok(Constant::Null)) => has_null = true,
                Some(Ok(value)) if scale(&item.data_type) == scale(&operand.shape.data_type) => {
                    if !values.contains(&value) {
                        values.push(value);
                    }
                }
                _ => {
                    return Err(Unsupported(
                        "IN over values that aren't constants of one scale".to_owned(),
                    ));
                }
            }
        }
        if list.is_empty() {
            return Ok(boolean(build::bool(negated), None));
        }
        if is_null(operand) {
            return Ok(null_of(&Type::Boolean));
        }
        let found = self.among(operand, &values)?;
        let found = self.flag(found);
        let missing = has_null.then(|| self.flag(found.clone().not()));
        let null = self.either_null(operand.null.clone(), missing);
        let ir = if negated { self.flag(found.not()) } else { found };
        Ok(boolean(ir, null))
    }

    fn among(&mut self, operand: &Value, values: &[Constant]) -> Lowered<Ir> {
        let any = |irs: Vec<Ir>| irs.into_iter().reduce(Ir::or).unwrap_or(build::bool(false));
        match &operand.shape.kind {
            Kind::Integer(_) => {
                let number = number(operand)?;
                let inside = values.iter().filter_map(|value| match value {
                    Constant::Int(value) if *value >= number.range.0 && *value <= number.range.1 => Some(*value),
                    _ => None,
                });
                let mut inside: Vec<i128> = inside.collect();
                inside.sort_unstable();
                Ok(self.among_integers(&number, &inside))
            }
            Kind::Boolean => {
                let has = |truth: bool| values.contains(&Constant::Boolean(truth));
                Ok(match (has(true), has(false)) {
                    (true, true) => build::bool(true),
                    (true, false) => operand.ir.clone(),
                    (false, true) => operand.ir.clone().not(),
                    (false, false) => build::bool(false),
                })
            }
            Kind::Float32 | Kind::Float64 if values.len() <= FLOATS_MAX => {
                let mut tests = Vec::new();
                for value in values {
                    let value = self.plain_constant(value, &operand.shape.data_type)?;
                    tests.push(floats(BinaryOperator::Equal, operand.ir.clone(), value.ir));
                }
                Ok(any(tests))
            }
            Kind::Text | Kind::Code(_) => self.among_strings(operand, values),
            _ => Err(Unsupported(format!("IN over {} values", values.len()))),
        }
    }

    fn among_integers(&mut self, operand: &Number, values: &[i128]) -> Ir {
        let lane = operand.lane();
        let (Some(low), Some(high)) = (values.first(), values.last()) else {
            return build::bool(false);
        };
        if values.len() <= COMPARED_MAX {
            let tests = values
                .iter()
                .map(|value| operand.ir.clone().eq(self.literal(*value).to(lane)));
            return tests.reduce(Ir::or).unwrap_or(build::bool(false));
        }
        if high - low < TABLE_SPAN_MAX {
            let flags = (*low..=*high).map(|value| values.binary_search(&value).is_ok());
            let table = Table::of_flags(flags);
            let (first, last) = (self.literal(*low).to(lane), self.literal(*high).to(lane));
            let inside = operand.ir.clone().ge(first.clone()).and(operand.ir.clone().le(last));
            let inside = self.flag(inside);
            let at = inside
                .clone()
                .select(operand.ir.clone().minus(first), constant(lane, 0));
            let flag = self.look_up(&table, at.to(Scalar::U32));
            return inside.and(flag.ne(build::u32(0)));
        }
        let (elem, wide) = match lane {
            Scalar::I128 => (Elem::I128, Scalar::I128),
            _ => (Elem::I64, Scalar::I64),
        };
        let width = elem.bytes() as usize;
        let bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes().into_iter().take(width));
        let base = self.table(bytes.collect::<Arc<[u8]>>());
        let count = self.word(Word::Value(values.len() as u64)).to(Scalar::U32);
        let name = if elem == Elem::I128 {
            "among_wide"
        } else {
            "among_integers"
        };
        let function = self.function(name, |_| search(name, elem, None));
        call(function, [base, count, convert(operand.ir.clone(), lane, wide)])
    }

    fn among_strings(&mut self, operand: &Value, values: &[Constant]) -> Lowered<Ir> {
        let strings = values.iter().filter_map(|value| match value {
            Constant::Bytes(bytes) => Some(bytes.as_ref()),
            _ => None,
        });
        let mut strings: Vec<&[u8]> = strings.collect();
        let text = self.handle(operand)?;
        if strings.len() <= COMPARED_MAX {
            let mut tests = build::bool(false);
            for string in strings {
                let constant = self.text_constant(string, &operand.shape.data_type);
                let handle = self.handle(&constant)?;
                let equal = self.text_equal(text.clone(), handle);
                tests = if tests == build::bool(false) {
                    equal
                } else {
                    tests.or(equal)
                };
            }
            return Ok(tests);
        }
        strings.sort_unstable();
        let count = self.word(Word::Value(strings.len() as u64)).to(Scalar::U32);
        let sorted = Arc::new(Dictionary::new(Strings::from_values(strings)));
        let content = self.uploaded(&sorted)?;
        let base = self.table(content);
        let function = self.function("among_strings", |l| {
            let compare = l.text_comparer();
            search("among_strings", Elem::U64, Some(compare))
        });
        Ok(call(function, [base, count, text]))
    }
}

/// Whether `count` ascending elements at `base` have a value, by halves. With a function that compares, elements are handles
/// relative to the base.
fn search(name: &str, elem: Elem, compare: Option<crate::ir::FunctionId>) -> Function {
    let mut f = Builder::new();
    let (base, count, value) = (f.var(Scalar::U64), f.var(Scalar::U32), f.var(elem.scalar()));
    let low = f.set(Scalar::U32, build::u32(0));
    let high = f.set(Scalar::U32, count.into());
    f.repeat(|f| {
        f.when(Ir::from(low).ge(high.into()), |f| {
            f.push(Stmt::Return(build::bool(false)));
        });
        let middle = Ir::from(low).plus(high.into()).shr(build::u32(1));
        let middle = f.set(Scalar::U32, middle);
        let element = f.load(place(elem, base.into(), middle.into()));
        let (equal, below) = match compare {
            None => (Ir::from(element).eq(value.into()), Ir::from(element).lt(value.into())),
            Some(compare) => {
                let shifted = Ir::from(base).shl(build::u64(HANDLE_LENGTH_BITS.into()));
                let order = call(compare, [Ir::from(element).plus(shifted), value.into()]);
                let order = f.set(Scalar::I32, order);
                (Ir::from(order).eq(build::i32(0)), Ir::from(order).lt(build::i32(0)))
            }
        };
        f.when(equal, |f| f.push(Stmt::Return(build::bool(true))));
        let then = f.block(|f| f.assign(low, Ir::from(middle).plus(build::u32(1))));
        let otherwise = f.block(|f| f.assign(high, middle.into()));
        f.push(Stmt::If {
            condition: below,
            then,
            otherwise,
        });
    });
    f.function(name, 3, Scalar::Bool)
}
