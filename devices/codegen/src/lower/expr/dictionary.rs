//! Expressions of one dictionary column: the host evaluates them for every entry, and rows look the result up by code.
//!
//! ```text
//!  entries  [ "AIR" | "MAIL" | "SHIP" | NULL ]   ──host──▶  table [ 0 | 1 | 1 | NULL ]
//!  rows     codes 2 0 0 1 …                      ──look up─▶      1 0 0 1 …
//! ```
//!
//! An entry's error counts only when a row uses the entry.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use trireme_device_api::{
    Carrier, DeviceColumn, DeviceError, Dictionary, Expr, Strings, Type, Value as Constant, Values, ZoneMap,
};

use super::range::Range;
use super::register::{Number, boolean, convert, integral, number, other};
use super::table::Table;
use super::value_at;
use crate::build;
use crate::ir::{Elem, Expr as Ir, Scalar};
use crate::lower::{Kind, Lowered, Lowering, Shape, Unsupported, Value};
use crate::program::Word;

/// Entries whose truths fit one word.
const MASK_ENTRIES: usize = 64;
/// So many entries may fail, with so many different errors.
const ERRORS_MAX: usize = 1 << 10;
const MESSAGES_MAX: usize = 16;
/// Ranges of integers with more values aren't worth a table.
const SPAN_MAX: i128 = 1 << 13;

/// What an expression is for every entry of a dictionary.
#[derive(Debug)]
pub(super) struct Derived {
    form: Form,
    nulls: Nulls,
    /// By entry: 0, or 1 + the error's position.
    errors: Option<(Table, Vec<DeviceError>)>,
}

/// The values of a column: what an expression is evaluated for. NULL comes after the last.
#[derive(Clone)]
enum Source {
    Dictionary(Type, Arc<Dictionary>),
    /// From the first integer, so many.
    Integers(Type, i64, u32),
}

impl Source {
    fn len(&self) -> usize {
        match self {
            Source::Dictionary(_, dictionary) => dictionary.len(),
            Source::Integers(.., count) => *count as usize,
        }
    }

    fn is(&self, other: &Source) -> bool {
        match (self, other) {
            (Source::Dictionary(x, a), Source::Dictionary(y, b)) => x == y && Arc::ptr_eq(a, b),
            (Source::Integers(x, a, m), Source::Integers(y, b, n)) => (x, a, m) == (y, b, n),
            _ => false,
        }
    }

    /// Entries `from..to` as a column.
    fn entries(&self, from: usize, to: usize) -> DeviceColumn {
        let values = match self {
            Source::Dictionary(_, dictionary) => Values::Strings(strings(dictionary, from, to)),
            Source::Integers(_, low, count) => {
                let value = |entry: usize| i64::try_from(entry.min(*count as usize - 1)).unwrap_or_default();
                Values::Integers {
                    carrier: Carrier::I64((from..to).map(|entry| low + value(entry)).collect::<Vec<i64>>().into()),
                    base: 0,
                }
            }
        };
        let (Source::Dictionary(data_type, _) | Source::Integers(data_type, ..)) = self;
        let range = match self {
            Source::Dictionary(..) => None,
            Source::Integers(_, low, count) => Some((i128::from(*low), i128::from(*low) + i128::from(*count) - 1)),
        };
        let has_null = to > self.len();
        DeviceColumn {
            data_type: data_type.clone(),
            rows: to - from,
            zone: ZoneMap {
                range,
                null_count: usize::from(has_null),
                run_length: 1.0,
                ..ZoneMap::default()
            },
            values,
            validity: has_null.then(|| (from..to).map(|entry| entry < self.len()).collect()),
        }
    }
}

/// An expression over column 0 that was evaluated.
pub(super) struct Known {
    source: Source,
    nullable: bool,
    expr: Expr,
    derived: Rc<Derived>,
}

#[derive(Debug)]
enum Form {
    /// The same for all.
    Constant(Constant),
    /// A bit per entry.
    Mask(u64),
    /// True for codes from the first to the last.
    Run(u32, u32),
    Truths(Table),
    Integers(Table, Range),
    Floats(Table),
    Codes(Table, Arc<Dictionary>),
}

/// Where the result is NULL.
#[derive(Debug)]
enum Nulls {
    Never,
    /// Where the code is.
    Source,
    Mask(u64),
    Entries(Table),
}

impl Lowering<'_> {
    /// An expression whose only column has these codes.
    pub(super) fn over_dictionary(
        &mut self,
        code: &Value,
        dictionary: &Arc<Dictionary>,
        expr: &Expr,
    ) -> Lowered<Value> {
        let source = Source::Dictionary(code.shape.data_type.clone(), Arc::clone(dictionary));
        self.over_entries(code, source, expr)
    }

    /// An expression whose only column has these integers, when they are few.
    pub(super) fn over_integers(&mut self, value: &Value, expr: &Expr) -> Lowered<Option<Value>> {
        let number = number(value)?;
        let (low, high) = number.range;
        let (Ok(first), Some(span)) = (i64::try_from(low), high.checked_sub(low)) else {
            return Ok(None);
        };
        let Ok(count) = u32::try_from(span + 1) else {
            return Ok(None);
        };
        if span >= SPAN_MAX || i64::try_from(high).is_err() {
            return Ok(None);
        }
        let lane = number.lane();
        let start = self.literal(low).to(lane);
        let code = number.ir.minus(start).to(Scalar::U32);
        let code = Value {
            ir: self.keep(Scalar::U32, code),
            ..value.clone()
        };
        let source = Source::Integers(value.shape.data_type.clone(), first, count);
        self.over_entries(&code, source, expr).map(Some)
    }

    fn over_entries(&mut self, code: &Value, source: Source, expr: &Expr) -> Lowered<Value> {
        let mut expr = expr.clone();
        expr.map_columns(&|_| 0);
        let nullable = code.null.is_some();
        let entries = source.len();
        let known = self.parts.expressions.known.iter();
        let mut known = known.filter(|known| known.source.is(&source) && known.nullable == nullable);
        let derived = match known.find(|known| known.expr == expr) {
            Some(known) => Rc::clone(&known.derived),
            None => {
                let derived = Rc::new(self.derive(&source, nullable, &expr)?);
                self.parts.expressions.known.push(Known {
                    source,
                    nullable,
                    expr: expr.clone(),
                    derived: Rc::clone(&derived),
                });
                derived
            }
        };
        self.derived(code, entries, &derived, &expr.data_type)
    }

    fn derive(&self, source: &Source, nullable: bool, expr: &Expr) -> Lowered<Derived> {
        let count = u32::try_from(source.len()).map_err(|_| Unsupported("a dictionary of 2^32 entries".to_owned()))?;
        let mut values = vec![Constant::Null; source.len() + 1];
        let mut errors = BTreeMap::new();
        let mut open = vec![(0, count + 1)];
        while let Some((from, to)) = open.pop() {
            let column = source.entries(from as usize, to as usize);
            match self.bound.host.evaluate(expr, &column, self.bound.parameters) {
                Ok(column) => {
                    for (row, value) in values[from as usize..to as usize].iter_mut().enumerate() {
                        *value = value_at(&column, row);
                    }
                }
                Err(error @ (DeviceError::Arithmetic(_) | DeviceError::Input(_))) if to - from == 1 => {
                    errors.insert(from, error);
                    if errors.len() > ERRORS_MAX {
                        return Err(Unsupported("an expression that fails for many strings".to_owned()));
                    }
                }
                Err(DeviceError::Arithmetic(_) | DeviceError::Input(_)) => {
                    let middle = from + (to - from) / 2;
                    open.extend([(from, middle), (middle, to)]);
                }
                Err(error) => return Err(Unsupported(error.to_string())),
            }
        }
        let reachable = source.len() + usize::from(nullable);
        Ok(Derived {
            form: form(&values, reachable, &expr.data_type)?,
            nulls: nulls(&values, reachable, nullable),
            errors: error_table(&errors, values.len(), reachable)?,
        })
    }

    /// The look-up.
    fn derived(&mut self, code: &Value, entries: usize, derived: &Derived, data_type: &Type) -> Lowered<Value> {
        let source = matches!(derived.nulls, Nulls::Source);
        let index = match &code.null {
            Some(null) if !source || derived.errors.is_some() => {
                let last = self.word(Word::Value(entries as u64)).to(Scalar::U32);
                self.keep(Scalar::U32, null.clone().select(last, code.ir.clone()))
            }
            _ => code.ir.clone(),
        };
        if let Some((table, errors)) = &derived.errors {
            let found = self.look_up(table, index.clone());
            for (number, error) in (1_u32..).zip(errors) {
                self.fail(found.clone().eq(build::u32(number)), None, error.clone());
            }
        }
        let null = match &derived.nulls {
            Nulls::Never => None,
            Nulls::Source => code.null.clone(),
            Nulls::Mask(mask) => Some(self.bit(*mask, &index)),
            Nulls::Entries(table) => {
                let null = self.look_up(table, index.clone());
                Some(self.flag(null.ne(build::u32(0))))
            }
        };
        Ok(match &derived.form {
            Form::Constant(value) => {
                let mut value = self.constant(Ok(value.clone()), data_type)?;
                value.null = value.null.or(null);
                value
            }
            Form::Mask(mask) => boolean(self.bit(*mask, &index), null),
            Form::Run(first, last) => boolean(self.in_run(*first, *last, index), null),
            Form::Truths(table) => {
                let truth = self.look_up(table, index);
                boolean(self.flag(truth.ne(build::u32(0))), null)
            }
            Form::Integers(table, range) => {
                let ir = self.look_up(table, index);
                let ir = convert(ir, table.elem.scalar(), Shape::lane(*range));
                let ir = self.keep(Shape::lane(*range), ir);
                integral(data_type, Number { ir, range: *range }, null)
            }
            Form::Floats(table) => {
                let kind = if table.elem == Elem::F32 {
                    Kind::Float32
                } else {
                    Kind::Float64
                };
                other(data_type, kind, self.look_up(table, index), null)
            }
            Form::Codes(table, dictionary) => {
                let code = self.look_up(table, index);
                other(data_type, Kind::Code(Arc::clone(dictionary)), code, null)
            }
        })
    }

    /// Bit `index` (U32, below 64) of a word.
    fn bit(&mut self, mask: u64, index: &Ir) -> Ir {
        let mask = self.word(Word::Value(mask));
        let bit = mask.shr(index.clone().to(Scalar::U64)).and(build::u64(1));
        self.flag(bit.ne(build::u64(0)))
    }

    fn in_run(&mut self, first: u32, last: u32, code: Ir) -> Ir {
        let word = |l: &mut Self, value: u32| l.word(Word::Value(value.into())).to(Scalar::U32);
        let start = word(self, first);
        let inside = if first == last {
            code.eq(start)
        } else {
            let span = word(self, last - first);
            code.minus(start).le(span)
        };
        self.flag(inside)
    }
}

fn form(values: &[Constant], reachable: usize, data_type: &Type) -> Lowered<Form> {
    let reached = || values.iter().take(reachable).filter(|value| **value != Constant::Null);
    let Some(first) = reached().next() else {
        return Ok(Form::Constant(Constant::Null));
    };
    let unsupported = || Unsupported(format!("a table of {data_type:?}"));
    if reached().all(|value| same(value, first)) && !matches!(first, Constant::Interval(_)) {
        return Ok(Form::Constant(first.clone()));
    }
    Ok(match first {
        Constant::Boolean(_) => truths(values),
        Constant::Int(first) => {
            let int = |value: &Constant| match value {
                Constant::Int(value) => Some(*value),
                _ => None,
            };
            let range = reached().filter_map(int);
            let range = range.fold((*first, *first), |(low, high), value| (low.min(value), high.max(value)));
            let integers = values.iter().map(|value| int(value).unwrap_or(*first));
            // What no row reaches may lie outside.
            let integers = integers.map(|value| value.clamp(range.0, range.1));
            Form::Integers(Table::of_integers(integers, range), range)
        }
        Constant::Float(_) => {
            let float = |value: &Constant| match value {
                Constant::Float(value) => *value,
                _ => 0.0,
            };
            Form::Floats(floats(values.iter().map(float), data_type))
        }
        Constant::Bytes(_) => codes(values),
        Constant::Interval(_) | Constant::Null => return Err(unsupported()),
    })
}

fn same(a: &Constant, b: &Constant) -> bool {
    match (a, b) {
        (Constant::Float(a), Constant::Float(b)) => a.to_bits() == b.to_bits(),
        _ => a == b,
    }
}

fn truths(values: &[Constant]) -> Form {
    let is_true = |value: &Constant| *value == Constant::Boolean(true);
    if values.len() <= MASK_ENTRIES {
        return Form::Mask(bits(values.iter().map(is_true)));
    }
    let first = values.iter().position(is_true).unwrap_or_default();
    let last = values.iter().rposition(is_true).unwrap_or_default();
    if values[first..=last].iter().all(is_true)
        && let (Ok(first), Ok(last)) = (u32::try_from(first), u32::try_from(last))
    {
        return Form::Run(first, last);
    }
    Form::Truths(Table::of_flags(values.iter().map(is_true)))
}

fn bits(flags: impl Iterator<Item = bool>) -> u64 {
    flags
        .enumerate()
        .fold(0, |mask, (at, flag)| mask | (u64::from(flag) << at))
}

fn floats(values: impl Iterator<Item = f64>, data_type: &Type) -> Table {
    if *data_type == Type::Float32 {
        #[expect(clippy::cast_possible_truncation, reason = "a 32-bit float is exact in 64")]
        let narrow = |value: f64| (value as f32).to_le_bytes();
        return Table {
            elem: Elem::F32,
            content: values.flat_map(narrow).collect(),
        };
    }
    Table {
        elem: Elem::F64,
        content: values.flat_map(f64::to_le_bytes).collect(),
    }
}

/// Strings become codes of a dictionary of their own.
fn codes<'v>(values: &'v [Constant]) -> Form {
    let mut known: HashMap<&[u8], u32> = HashMap::new();
    let mut distinct: Vec<&[u8]> = Vec::new();
    let mut code_of = |value: &'v Constant| match value {
        Constant::Bytes(bytes) => *known.entry(bytes).or_insert_with(|| {
            distinct.push(bytes);
            u32::try_from(distinct.len() - 1).unwrap_or(u32::MAX)
        }),
        _ => 0,
    };
    let codes: Vec<u32> = values.iter().map(&mut code_of).collect();
    let table = Table::of_codes(&codes, distinct.len());
    Form::Codes(table, Arc::new(Dictionary::new(Strings::from_values(distinct))))
}

fn nulls(values: &[Constant], reachable: usize, nullable: bool) -> Nulls {
    let is_null = |value: &Constant| *value == Constant::Null;
    let entries = values.len() - 1;
    let some = values.iter().take(entries).any(is_null);
    match (some, nullable && is_null(&values[entries])) {
        (false, false) => Nulls::Never,
        (false, true) => Nulls::Source,
        _ if values.iter().take(reachable).all(is_null) => Nulls::Never,
        _ if values.len() <= MASK_ENTRIES => Nulls::Mask(bits(values.iter().map(is_null))),
        _ => Nulls::Entries(Table::of_flags(values.iter().map(is_null))),
    }
}

fn error_table(
    errors: &BTreeMap<u32, DeviceError>,
    entries: usize,
    reachable: usize,
) -> Lowered<Option<(Table, Vec<DeviceError>)>> {
    let mut messages: Vec<DeviceError> = Vec::new();
    let mut numbers = vec![0_u32; entries];
    for (entry, error) in errors {
        if *entry as usize >= reachable {
            continue;
        }
        let known = messages.iter().position(|other| other == error);
        let position = known.unwrap_or_else(|| {
            messages.push(error.clone());
            messages.len() - 1
        });
        numbers[*entry as usize] = u32::try_from(position + 1).unwrap_or(u32::MAX);
    }
    if messages.len() > MESSAGES_MAX {
        return Err(Unsupported("an expression that fails in many ways".to_owned()));
    }
    Ok((!messages.is_empty()).then(|| (Table::of_codes(&numbers, MESSAGES_MAX + 1), messages)))
}

/// Entries `from..to` of a dictionary; the one after the last is empty.
fn strings(dictionary: &Dictionary, from: usize, to: usize) -> Strings {
    let end = to.min(dictionary.len());
    let strings = dictionary.values();
    let mut offsets: Vec<u32> = strings.offsets.get(from..=end).unwrap_or(&[0]).to_vec();
    let last = offsets.last().copied().unwrap_or_default();
    offsets.resize(to - from + 1, last);
    Strings {
        offsets: offsets.into(),
        bytes: strings.bytes.clone(),
    }
}
