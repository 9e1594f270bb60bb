//! Sort keys as words whose order is the keys' order.
//!
//! ```text
//!  all keys' fields one after another, most significant bit first:   │ word 0          │ word 1 …
//!   integer   value − low in as many bits as its range needs, NULL one below or one above; a code: its rank
//!   float     sign and bits turned into an order, one NaN on top, −0.0 as 0.0
//!   text      8 bytes, the first ones, then a word for itself: the handle, compared by all bytes
//!  a descending field is complemented; NULLs go where the key says
//! ```

use std::sync::Arc;

use trireme_device_api::{Dictionary, SortKey};

use crate::build::{Builder, bool, call, i32, place, u32, u64};
use crate::ir::{Const, Elem, Expr as Ir, Function, FunctionId, Scalar, Stmt, Var};
use crate::lower::text::{handle_length, handle_offset};
use crate::lower::{Kind, Lowered, Lowering, Row, Shape, Unsupported, Value};
use crate::program::Word;

/// How rows are compared.
pub(crate) struct Order {
    parts: Vec<Part>,
    /// Words of a row, most significant first.
    pub(crate) words: Vec<OrderWord>,
}

/// A word of a row's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OrderWord {
    /// By its value.
    Plain,
    /// By the bytes that the handle names.
    Text { descending: bool },
}

struct Part {
    coding: Coding,
    descending: bool,
    nulls_first: bool,
    nullable: bool,
}

enum Coding {
    Integer { low: i128, most: u64 },
    Wide,
    Boolean,
    Code(Arc<Dictionary>),
    Float32,
    Float64,
    Text,
    Nothing,
}

/// A number to compare by, U64 and below 2^bits.
struct Field {
    ir: Ir,
    bits: u32,
}

/// Puts fields one after another.
#[derive(Default)]
struct Packer {
    words: Vec<(Ir, OrderWord)>,
    /// The word that is being filled, and its bits so far.
    open: Option<(Ir, u32)>,
}

impl Packer {
    fn put(&mut self, field: Field) {
        let Field { ir, bits } = field;
        let (word, taken) = self.open.take().unwrap_or((u64(0), 0));
        let free = 64 - taken;
        if bits <= free {
            let word = join(word, taken, shifted_left(ir, free - bits));
            self.open = Some((word, taken + bits));
            return;
        }
        if free == 0 {
            self.words.push((word, OrderWord::Plain));
            return self.put(Field { ir, bits });
        }
        let rest = bits - free;
        let full = join(word, taken, ir.clone().shr(u64(rest.into())));
        self.words.push((full, OrderWord::Plain));
        let low = ir.and(u64((1 << rest) - 1));
        self.put(Field { ir: low, bits: rest });
    }

    fn text(&mut self, handle: Ir, descending: bool) {
        self.close();
        self.words.push((handle, OrderWord::Text { descending }));
    }

    fn close(&mut self) {
        if let Some((word, _)) = self.open.take() {
            self.words.push((word, OrderWord::Plain));
        }
    }

    /// The words, at least one.
    fn finished(mut self) -> Vec<(Ir, OrderWord)> {
        self.close();
        if self.words.is_empty() {
            self.words.push((u64(0), OrderWord::Plain));
        }
        self.words
    }
}

fn shifted_left(ir: Ir, bits: u32) -> Ir {
    match bits {
        0 => ir,
        bits => ir.shl(u64(bits.into())),
    }
}

fn join(word: Ir, taken: u32, other: Ir) -> Ir {
    if taken == 0 { other } else { word.or(other) }
}

impl Order {
    /// For keys of these values and all others of their shapes.
    pub(crate) fn of(keys: &[SortKey], values: &[Value]) -> Self {
        let parts = keys.iter().zip(values).map(|(key, value)| Part {
            coding: Coding::of(value),
            descending: key.descending,
            nulls_first: key.nulls_first,
            nullable: value.null.is_some(),
        });
        let parts: Vec<Part> = parts.collect();
        let mut packer = Packer::default();
        for part in &parts {
            for bits in part.bits() {
                packer.put(Field { ir: u64(0), bits });
            }
            if let Coding::Text = part.coding {
                packer.text(u64(0), part.descending);
            }
        }
        let words = packer.finished().into_iter().map(|(_, word)| word).collect();
        Self { parts, words }
    }
}

impl Part {
    /// Bits of its fields.
    fn bits(&self) -> Vec<u32> {
        let counted = |most: u64| match (self.nullable, most.checked_add(1)) {
            (false, _) => vec![bits_of(most)],
            (true, Some(above)) => vec![bits_of(above)],
            (true, None) => vec![1, 64],
        };
        let mut bits = match &self.coding {
            Coding::Nothing => return Vec::new(),
            Coding::Integer { most, .. } => return counted(*most),
            Coding::Boolean => return counted(1),
            Coding::Code(dictionary) => return counted(most_code(dictionary)),
            Coding::Float32 => vec![32],
            Coding::Float64 | Coding::Text => vec![64],
            Coding::Wide => vec![64, 64],
        };
        if self.nullable {
            bits.insert(0, 1);
        }
        bits
    }
}

/// The largest code.
fn most_code(dictionary: &Dictionary) -> u64 {
    (dictionary.len() as u64).max(1) - 1
}

impl Coding {
    fn of(value: &Value) -> Self {
        match &value.shape.kind {
            Kind::Boolean => Coding::Boolean,
            Kind::Integer(lane) => {
                let (low, high) = value.shape.range.unwrap_or(match lane {
                    Scalar::I32 => (i32::MIN.into(), i32::MAX.into()),
                    Scalar::I64 => (i64::MIN.into(), i64::MAX.into()),
                    _ => (i128::MIN, i128::MAX),
                });
                match high.checked_sub(low).map(u64::try_from) {
                    Some(Ok(most)) => Coding::Integer { low, most },
                    _ => Coding::Wide,
                }
            }
            Kind::Float32 => Coding::Float32,
            Kind::Float64 => Coding::Float64,
            Kind::Code(dictionary) => Coding::Code(Arc::clone(dictionary)),
            Kind::Text => Coding::Text,
            Kind::Null => Coding::Nothing,
        }
    }
}

impl Lowering<'_> {
    /// The words of the current row's keys. The first row decides the order, where there is none yet.
    pub(crate) fn order_words(
        &mut self,
        keys: &[SortKey],
        order: &mut Option<Order>,
        row: &mut Row,
    ) -> Lowered<Vec<Value>> {
        let values = self.sort_keys(keys, row)?;
        let order = order.get_or_insert_with(|| Order::of(keys, &values));
        self.words_in(order, values)
    }

    /// The current row's keys.
    pub(super) fn sort_keys(&mut self, keys: &[SortKey], row: &mut Row) -> Lowered<Vec<Value>> {
        keys.iter().map(|key| self.expr(row, &key.expr)).collect()
    }

    /// The keys and, where rows arrive from several kernels, the columns of all rows, as [`Lowering::look`] gives them.
    pub(super) fn look_at_rows(&mut self, keys: &[SortKey]) -> Lowered<Option<(Vec<Value>, Vec<Value>)>> {
        let values = self.look(&|l, row| {
            let mut values = l.sort_keys(keys, row)?;
            if l.has_passes() {
                values.extend(l.values(row)?);
            }
            Ok(values)
        })?;
        Ok(values.map(|mut keyed| {
            let values = keyed.split_off(keys.len());
            (keyed, values)
        }))
    }

    /// The words of keys.
    pub(super) fn words_in(&mut self, order: &Order, mut keys: Vec<Value>) -> Lowered<Vec<Value>> {
        let mut packer = Packer::default();
        for (part, value) in order.parts.iter().zip(&mut keys) {
            if matches!((&part.coding, &value.shape.kind), (Coding::Text, Kind::Code(_))) {
                value.ir = self.handle(value)?;
                value.shape.kind = Kind::Text;
            }
            self.order_part(part, value, &mut packer)?;
        }
        let words = packer.finished().into_iter();
        Ok(words
            .map(|(ir, _)| word_value(self.b.set(Scalar::U64, ir).into()))
            .collect())
    }

    fn order_part(&mut self, part: &Part, value: &Value, packer: &mut Packer) -> Lowered<()> {
        let is_null = matches!(value.shape.kind, Kind::Null);
        if value.null.is_some() && !part.nullable {
            return Err(Unsupported("a sort key that is NULL in some rows only".to_owned()));
        }
        if let Coding::Nothing = part.coding {
            return match is_null {
                true => Ok(()),
                false => Err(Unsupported("a sort key that is NULL in other rows".to_owned())),
            };
        }
        let inside = match self.counted(part, value)? {
            Some((ir, most)) => {
                let ir = if part.descending { u64(most).minus(ir) } else { ir };
                match (part.nullable, most.checked_add(1)) {
                    (false, _) => {
                        packer.put(Field {
                            ir,
                            bits: bits_of(most),
                        });
                        return Ok(());
                    }
                    (true, Some(above)) => Ok((ir, above)),
                    (true, None) => Err(vec![Field { ir, bits: 64 }]),
                }
            }
            None => Err(self.fields(part, value)?),
        };
        let null = value.null.clone().unwrap_or(bool(false));
        match inside {
            Ok((ir, above)) => {
                let ir = match part.nulls_first {
                    true => null.clone().select(u64(0), ir.plus(u64(1))),
                    false => null.clone().select(u64(above), ir),
                };
                let bits = bits_of(above);
                packer.put(Field { ir, bits });
            }
            Err(fields) => {
                if part.nullable {
                    let (of_null, of_value) = if part.nulls_first { (0, 1) } else { (1, 0) };
                    let ir = null.clone().select(u64(of_null), u64(of_value));
                    packer.put(Field { ir, bits: 1 });
                }
                for Field { ir, bits } in fields {
                    let ir = null.clone().select(u64(0), ir);
                    packer.put(Field { ir, bits });
                }
            }
        }
        if let (Coding::Text, false) = (&part.coding, is_null) {
            packer.text(null.select(u64(0), value.ir.clone()), part.descending);
        } else if let Coding::Text = part.coding {
            packer.text(u64(0), part.descending);
        }
        Ok(())
    }

    /// Numbers 0 … most in the keys' order, where they are counted.
    fn counted(&mut self, part: &Part, value: &Value) -> Lowered<Option<(Ir, u64)>> {
        let is_null = matches!(value.shape.kind, Kind::Null);
        let ir = value.ir.clone();
        Ok(Some(match (&part.coding, &value.shape.kind) {
            (Coding::Integer { most, .. }, _) if is_null => (u64(0), *most),
            (Coding::Boolean, _) if is_null => (u64(0), 1),
            (Coding::Code(dictionary), _) if is_null => (u64(0), most_code(dictionary)),
            (Coding::Integer { low, most }, Kind::Integer(_)) => {
                let low = self.word(Word::Value(low_word(*low)));
                (ir.to(Scalar::I64).to(Scalar::U64).minus(low), *most)
            }
            (Coding::Boolean, Kind::Boolean) => (ir.select(u64(1), u64(0)), 1),
            (Coding::Code(dictionary), Kind::Code(other)) if Arc::ptr_eq(dictionary, other) => {
                let code = match &value.null {
                    Some(null) => null.clone().select(u32(0), ir),
                    None => ir,
                };
                let rank = self.rank(code, dictionary);
                (rank.to(Scalar::U64), most_code(dictionary))
            }
            (Coding::Integer { .. } | Coding::Boolean | Coding::Code(_), _) => return Err(differs()),
            _ => return Ok(None),
        }))
    }

    /// Numbers to compare one after another, with a descending key's turned round.
    fn fields(&mut self, part: &Part, value: &Value) -> Lowered<Vec<Field>> {
        let is_null = matches!(value.shape.kind, Kind::Null);
        let zero = |bits: u32| Field { ir: u64(0), bits };
        let ir = value.ir.clone();
        let fields = match (&part.coding, &value.shape.kind) {
            (Coding::Wide, _) if is_null => vec![zero(64), zero(64)],
            (Coding::Float32, _) if is_null => vec![zero(32)],
            (Coding::Float64 | Coding::Text, _) if is_null => vec![zero(64)],
            (Coding::Wide, Kind::Integer(_)) => self.wide_fields(ir),
            (Coding::Float32, Kind::Float32) => {
                let bits = self.canonical_f32(ir);
                let negative = bits.clone().shr(u32(31)).ne(u32(0));
                let flipped = bits.clone().xor(negative.select(u32(u32::MAX), u32(1 << 31)));
                vec![Field {
                    ir: flipped.to(Scalar::U64),
                    bits: 32,
                }]
            }
            (Coding::Float64, Kind::Float64) => {
                let bits = self.canonical_f64(ir);
                let negative = bits.clone().shr(u64(63)).ne(u64(0));
                let ir = bits.clone().xor(negative.select(u64(u64::MAX), u64(1 << 63)));
                vec![Field { ir, bits: 64 }]
            }
            (Coding::Text, Kind::Text) => {
                let handle = match &value.null {
                    Some(null) => null.clone().select(u64(0), ir),
                    None => ir,
                };
                let function = self.function("text_prefix", |_| text_prefix());
                let prefix = self.b.set(Scalar::U64, call(function, [handle]));
                vec![Field {
                    ir: prefix.into(),
                    bits: 64,
                }]
            }
            _ => return Err(differs()),
        };
        let turned = fields.into_iter().map(|Field { ir, bits }| {
            let most = u64::MAX >> (64 - bits);
            let ir = if part.descending { u64(most).minus(ir) } else { ir };
            Field { ir, bits }
        });
        Ok(turned.collect())
    }

    /// High word with its sign turned round, low word.
    fn wide_fields(&mut self, ir: Ir) -> Vec<Field> {
        let wide = self.b.set(Scalar::I128, ir.to(Scalar::I128));
        let low = self.b.set(Scalar::U64, Ir::from(wide).to(Scalar::U64));
        let rest = Ir::from(wide).minus(Ir::from(low).to(Scalar::I128));
        let high = rest.over(Ir::Const(Const::I128(1 << 64))).to(Scalar::U64);
        let high = high.xor(u64(1 << 63));
        [high, low.into()].map(|ir| Field { ir, bits: 64 }).into()
    }

    /// The function that compares texts, if the order has any.
    pub(crate) fn comparer(&mut self, order: &[OrderWord]) -> Option<FunctionId> {
        let texts = order.iter().any(|word| *word != OrderWord::Plain);
        texts.then(|| self.text_comparer())
    }
}

/// I32: negative, 0 or positive as the first row's words come before, with or after the second's. `word` gives both rows'
/// words of a number, and is asked inside the branch that needs them.
pub(crate) fn compare_words(
    b: &mut Builder,
    (order, from): (&[OrderWord], usize),
    comparer: Option<FunctionId>,
    word: &mut dyn FnMut(&mut Builder, usize) -> (Ir, Ir),
) -> Var {
    let result = b.set(Scalar::I32, i32(0));
    for (index, kind) in order.iter().enumerate().skip(from) {
        b.begin();
        let (first, second) = word(b, index);
        let value = match (kind, comparer) {
            (OrderWord::Text { descending: false }, Some(function)) => call(function, [first, second]),
            (OrderWord::Text { descending: true }, Some(function)) => call(function, [second, first]),
            _ => {
                let (first, second) = (b.set(Scalar::U64, first), b.set(Scalar::U64, second));
                let more = Ir::from(first).gt(second.into()).select(i32(1), i32(0));
                Ir::from(first).lt(second.into()).select(i32(-1), more)
            }
        };
        b.assign(result, value);
        let then = b.end();
        if index == from {
            then.into_iter().for_each(|stmt| b.push(stmt));
        } else {
            b.push(Stmt::If {
                condition: Ir::from(result).eq(i32(0)),
                then,
                otherwise: Vec::new(),
            });
        }
    }
    result
}

/// A word of a key as a value that a resident column of U64 takes.
pub(super) fn word_value(ir: Ir) -> Value {
    Value {
        ir,
        null: None,
        shape: Shape {
            data_type: trireme_device_api::Type::Binary,
            kind: Kind::Text,
            range: None,
        },
    }
}

fn differs() -> Unsupported {
    Unsupported("a sort key whose rows differ in shape".to_owned())
}

fn bits_of(most: u64) -> u32 {
    (64 - most.leading_zeros()).max(1)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the low word is meant"
)]
fn low_word(value: i128) -> u64 {
    value as u64
}

/// The first 8 bytes, the first one on top; 0 where there are fewer.
fn text_prefix() -> Function {
    let mut b = Builder::new();
    let handle = b.var(Scalar::U64);
    let length = b.set(Scalar::U32, handle_length(handle.into()));
    let from = b.set(Scalar::U64, handle_offset(handle.into()));
    let prefix = b.set(Scalar::U64, u64(0));
    b.range(Scalar::U32, u32(0), u32(8), u32(1), |b, at| {
        b.assign(prefix, Ir::from(prefix).shl(u64(8)));
        b.when(Ir::from(at).lt(length.into()), |b| {
            let byte = b.load(place(Elem::U8, from.into(), at.into()));
            b.assign(prefix, Ir::from(prefix).or(Ir::from(byte).to(Scalar::U64)));
        });
    });
    b.push(Stmt::Return(prefix.into()));
    b.function("text_prefix", 1, Scalar::U64)
}
