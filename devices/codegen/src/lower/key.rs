//! Keys of groups and joins: values as canonical words, equal exactly where SQL says that the keys are.
//!
//! ```text
//!  values ─KeyShape─▶ words (U64 each)     one word where all parts' ranges fit 64 bits together
//! ```
//!
//! Both sides of a join use the build's [`KeyShape`]; a probe's value that it can't express equals no build key.

use super::{Lowered, Lowering, Unsupported, Value};
use crate::ir::{Expr as Ir, Var};

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
pub(crate) struct KeyShape {}

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
    pub(crate) fn of(values: &[Value], nulls: Nulls) -> Lowered<Self> {
        let _ = (values, nulls);
        Err(Unsupported("not yet".to_owned()))
    }

    /// How many words a key has: 0 for a key without parts.
    pub(crate) fn words(&self) -> usize {
        0
    }

    /// Where a key is one plain word: how many values the word can have (0 … n − 1, NULLs among them).
    pub(crate) fn dense(&self) -> Option<u64> {
        None
    }
}

impl Lowering<'_> {
    /// The key of some values; their shapes may differ from those that the shape was made for.
    pub(crate) fn key(&mut self, shape: &KeyShape, values: &[Value]) -> Lowered<Key> {
        let _ = (shape, values);
        Err(Unsupported("not yet".to_owned()))
    }

    /// The values of a stored key, in the shapes that the key's shape was made for.
    pub(crate) fn key_values(&mut self, shape: &KeyShape, stored: &[Ir]) -> Lowered<Vec<Value>> {
        let _ = (shape, stored);
        Err(Unsupported("not yet".to_owned()))
    }

    /// A well mixed hash, U64.
    pub(crate) fn hash(&mut self, key: &Key) -> Lowered<Var> {
        let _ = key;
        Err(Unsupported("not yet".to_owned()))
    }

    /// Bool: whether a key equals stored words, which are cheap expressions.
    pub(crate) fn equal(&mut self, key: &Key, stored: &[Ir]) -> Lowered<Ir> {
        let _ = (key, stored);
        Err(Unsupported("not yet".to_owned()))
    }
}
