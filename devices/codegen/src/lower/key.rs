//! Keys of groups and joins: values as canonical words, equal exactly where SQL says that the keys are.
//!
//! ```text
//!  part      fields of 64-bit words, first fit                       NULL (with Nulls::Group)
//!   integer   value − low, as many bits as the range needs            0, and values from 1 on; or a bit of its own
//!   code      of the part's dictionary                                likewise
//!   float     bits, one NaN, −0.0 as 0.0      wide   two words        a bit of its own
//!   text      a word: the handle, compared by its bytes               a bit of its own
//! ```
//!
//! Both sides of a join use the build's [`KeyShape`]; a probe's value that it can't express equals no build key. Reading
//! stored words back as values is `key_values`.

use std::sync::Arc;

use trireme_device_api::Dictionary;

use super::{Kind, Lowered, Lowering, Shape, Unsupported, Value};
use crate::build::{Builder, bool, call, u64};
use crate::ir::{Const, Expr as Ir, Function, Scalar, Stmt, Var};
use crate::program::Word;

mod code;
mod find;
mod values;

/// What NULL parts of a key do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nulls {
    /// NULL is a value of its own.
    Group,
    /// A key with a NULL part equals nothing: see [`Key::null`].
    Any,
}

/// How the values of a key become words.
#[derive(Debug, Clone)]
pub(crate) struct KeyShape {
    nulls: Nulls,
    parts: Vec<Part>,
    words: Vec<WordKind>,
}

/// A key in registers.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    /// As many as [`KeyShape::words`].
    pub(crate) words: Vec<KeyWord>,
    /// Bool, with [`Nulls::Any`]: some part is NULL; none when that can't be. The words are defined but mean nothing then.
    pub(crate) null: Option<Ir>,
    /// Bool, of probes' keys: equal to no key that the shape expresses; none when that can't be.
    pub(crate) impossible: Option<Ir>,
}

/// A word of a key: a variable or constant.
#[derive(Debug, Clone)]
pub(crate) enum KeyWord {
    /// U64, equal when equal.
    Plain(Ir),
    /// U64, a handle: equal when the bytes are.
    Text(Ir),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WordKind {
    /// Fields; so many bits are taken.
    Plain {
        bits: u32,
    },
    Text,
}

#[derive(Debug, Clone)]
struct Part {
    shape: Shape,
    coding: Coding,
    null: NullCoding,
}

#[derive(Debug, Clone)]
enum Coding {
    /// `value − low`, at most `most`.
    Integer {
        field: Field,
        low: i128,
        most: u64,
    },
    /// Low word, high word.
    Wide([Field; 2]),
    Boolean(Field),
    Code {
        field: Field,
        dictionary: Arc<Dictionary>,
    },
    Float32(Field),
    Float64(Field),
    /// The word.
    Text(usize),
    /// NULL throughout.
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NullCoding {
    /// There are none.
    Never,
    /// The field's 0; values count from 1.
    Inside,
    /// A bit.
    Flag(Field),
    /// The part has no field.
    Always,
}

/// Bits of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    word: usize,
    shift: u32,
    bits: u32,
}

impl KeyWord {
    /// The word to store.
    pub(crate) fn ir(&self) -> Ir {
        match self {
            KeyWord::Plain(ir) | KeyWord::Text(ir) => ir.clone(),
        }
    }
}

impl KeyShape {
    /// For these values and all others of their shapes.
    pub(crate) fn of(values: &[Value], nulls: Nulls) -> Self {
        let mut shape = Self {
            nulls,
            parts: Vec::new(),
            words: Vec::new(),
        };
        for value in values {
            let part = shape.part(value);
            shape.parts.push(part);
        }
        shape
    }

    /// How many words a key has: 0 for a key without parts.
    pub(crate) fn words(&self) -> usize {
        self.words.len()
    }

    /// Where a key is one plain word: it is below this.
    pub(crate) fn dense(&self) -> Option<u64> {
        match self.words.as_slice() {
            [WordKind::Plain { .. }] => {}
            _ => return None,
        }
        let mut most = 0_u64;
        for part in &self.parts {
            let inside = u64::from(part.null == NullCoding::Inside);
            let (field, value) = match &part.coding {
                Coding::Integer { field, most, .. } => (field, most.checked_add(inside)?),
                Coding::Boolean(field) => (field, 1 + inside),
                Coding::Code { field, dictionary } => (field, (dictionary.len() as u64).max(1) - 1 + inside),
                Coding::Float32(_) | Coding::Float64(_) | Coding::Wide(_) => return None,
                Coding::Text(_) | Coding::Nothing => continue,
            };
            most |= value << field.shift;
            if let NullCoding::Flag(field) = part.null {
                most |= 1 << field.shift;
            }
        }
        most.checked_add(1)
    }

    /// Makes room.
    fn field(&mut self, bits: u32) -> Field {
        let free = self
            .words
            .iter()
            .position(|word| matches!(word, WordKind::Plain { bits: taken } if taken + bits <= 64));
        let word = free.unwrap_or_else(|| {
            self.words.push(WordKind::Plain { bits: 0 });
            self.words.len() - 1
        });
        let WordKind::Plain { bits: taken } = &mut self.words[word] else {
            return Field { word, shift: 0, bits };
        };
        let shift = *taken;
        *taken += bits;
        Field { word, shift, bits }
    }

    /// Room for values 0 … `most`, and for NULL.
    fn counted(&mut self, most: u64, nullable: bool) -> (Field, NullCoding) {
        match (nullable, most.checked_add(1)) {
            (false, _) => (self.field(bits_of(most)), NullCoding::Never),
            (true, Some(most)) => (self.field(bits_of(most)), NullCoding::Inside),
            (true, None) => {
                let field = self.field(64);
                (field, NullCoding::Flag(self.field(1)))
            }
        }
    }

    fn part(&mut self, value: &Value) -> Part {
        let nullable = value.null.is_some() && self.nulls == Nulls::Group;
        let (coding, counted) = match &value.shape.kind {
            Kind::Null => (Coding::Nothing, Some(NullCoding::Always)),
            Kind::Boolean => {
                let (field, null) = self.counted(1, nullable);
                (Coding::Boolean(field), Some(null))
            }
            Kind::Code(dictionary) => {
                let (field, null) = self.counted((dictionary.len() as u64).max(1) - 1, nullable);
                let dictionary = Arc::clone(dictionary);
                (Coding::Code { field, dictionary }, Some(null))
            }
            Kind::Integer(lane) => {
                let (low, high) = value.shape.range.unwrap_or(lane_range(*lane));
                match high.checked_sub(low).map(u64::try_from) {
                    Some(Ok(most)) => {
                        let (field, null) = self.counted(most, nullable);
                        (Coding::Integer { field, low, most }, Some(null))
                    }
                    _ => (Coding::Wide([self.field(64), self.field(64)]), None),
                }
            }
            Kind::Float32 => (Coding::Float32(self.field(32)), None),
            Kind::Float64 => (Coding::Float64(self.field(64)), None),
            Kind::Text => {
                self.words.push(WordKind::Text);
                (Coding::Text(self.words.len() - 1), None)
            }
        };
        let null = counted.unwrap_or_else(|| match nullable {
            true => NullCoding::Flag(self.field(1)),
            false => NullCoding::Never,
        });
        Part {
            shape: value.shape.clone(),
            coding,
            null,
        }
    }
}

/// Bits of numbers up to this one; at least one.
fn bits_of(most: u64) -> u32 {
    (64 - most.leading_zeros()).max(1)
}

fn lane_range(lane: Scalar) -> (i128, i128) {
    match lane {
        Scalar::I32 => (i32::MIN.into(), i32::MAX.into()),
        Scalar::I64 => (i64::MIN.into(), i64::MAX.into()),
        _ => (i128::MIN, i128::MAX),
    }
}

impl Lowering<'_> {
    /// A well mixed hash, U64.
    pub(crate) fn hash(&mut self, key: &Key) -> Var {
        let mut hash: Option<Ir> = None;
        for word in &key.words {
            let word = match word {
                KeyWord::Plain(ir) => ir.clone(),
                KeyWord::Text(ir) => self.text_hash(ir.clone()),
            };
            // An odd multiple in between: words don't commute, and don't cancel each other.
            let next = match hash {
                None => word,
                Some(before) => before.times(u64(0x9e37_79b9_7f4a_7c15)).plus(word),
            };
            hash = Some(self.mixed(next));
        }
        self.b.set(Scalar::U64, hash.unwrap_or(u64(0)))
    }

    /// U64: the finaliser of MurmurHash3.
    fn mixed(&mut self, word: Ir) -> Ir {
        let function = self.function("mix", |_| mix());
        call(function, [word])
    }

    /// Bool: whether a key equals stored words, which are cheap expressions.
    pub(crate) fn equal(&mut self, key: &Key, stored: &[Ir]) -> Ir {
        let mut plain: Option<Ir> = None;
        let mut texts = Vec::new();
        for (word, stored) in key.words.iter().zip(stored) {
            match word {
                KeyWord::Plain(ir) => {
                    let equal = ir.clone().eq(stored.clone());
                    plain = Some(match plain {
                        None => equal,
                        Some(before) => before.and(equal),
                    });
                }
                KeyWord::Text(ir) => texts.push((ir.clone(), stored.clone())),
            }
        }
        let equal = self.b.set(Scalar::Bool, plain.unwrap_or(bool(true)));
        for (ir, stored) in texts {
            let same = self.text_equal(ir, stored);
            self.b.when(equal.into(), |b| b.assign(equal, same));
        }
        equal.into()
    }
}

fn mix() -> Function {
    let mut b = Builder::new();
    let word = b.var(Scalar::U64);
    for multiplier in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        let folded = Ir::from(word).xor(Ir::from(word).shr(u64(33)));
        b.assign(word, folded.times(u64(multiplier)));
    }
    b.push(Stmt::Return(Ir::from(word).xor(Ir::from(word).shr(u64(33)))));
    b.function("mix", 1, Scalar::U64)
}
