//! Strings in registers: codes of dictionaries and handles of bytes; how they compare, and how one becomes the other.
//!
//! ```text
//!  one dictionary        equal by code, in order by rank
//!  two dictionaries      equal by the other's code of the same string, in order by ranks among the strings of both
//!  handles               byte by byte; a dictionary's entries are uploaded where they meet handles
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use trireme_device_api::{BinaryOperator, Dictionary, Strings};

use super::compare::plain;
use super::register::other;
use super::table::Table;
use crate::build;
use crate::ir::{Expr as Ir, Scalar};
use crate::lower::{Kind, Lowered, Lowering, Unsupported, Value};
use crate::program::Word;
use crate::shape::HANDLE_LENGTH_BITS;

use trireme_device_api::Type;

/// Dictionaries with more entries in all aren't united: results are handles then.
const UNITED_ENTRIES_MAX: usize = 1 << 16;
/// What a code is that the other dictionary doesn't have.
const ABSENT: u32 = u32::MAX;
/// Bytes before the first string of an uploaded dictionary of one entry.
const ENTRY_BYTES: u64 = 8;

/// What was made of dictionaries, so that it is made and uploaded once.
#[derive(Default)]
pub(super) struct Made {
    constants: Vec<Arc<Dictionary>>,
    ranks: Vec<(Arc<Dictionary>, Table)>,
    texts: Vec<(Arc<Dictionary>, Arc<[u8]>)>,
    /// Of the first in the second.
    translations: Vec<(Arc<Dictionary>, Arc<Dictionary>, Table)>,
    merged: Vec<(Arc<Dictionary>, Arc<Dictionary>, Table, Table)>,
    united: Vec<(Vec<Arc<Dictionary>>, United)>,
}

/// A dictionary of the strings of several, and their codes in it.
#[derive(Clone)]
pub(super) struct United {
    pub(super) dictionary: Arc<Dictionary>,
    pub(super) codes: Vec<Table>,
}

fn same_all(a: &[Arc<Dictionary>], b: &[Arc<Dictionary>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

fn codes_of(dictionary: &Dictionary) -> impl Iterator<Item = u32> {
    (0..dictionary.len()).map(|code| u32::try_from(code).unwrap_or(u32::MAX))
}

impl Lowering<'_> {
    /// A constant string: the code of a dictionary of one entry.
    pub(super) fn text_constant(&mut self, bytes: &[u8], data_type: &Type) -> Value {
        let made = &mut self.parts.expressions.made;
        let known = made.constants.iter().position(|known| known.get(0) == bytes);
        let at = known.unwrap_or_else(|| {
            let dictionary = Dictionary::new(Strings::from_values([bytes]));
            made.constants.push(Arc::new(dictionary));
            made.constants.len() - 1
        });
        let dictionary = Arc::clone(&made.constants[at]);
        other(data_type, Kind::Code(dictionary), build::u32(0), None)
    }

    /// The place of a code in byte order, U32.
    pub(crate) fn rank(&mut self, code: Ir, dictionary: &Arc<Dictionary>) -> Ir {
        let made = &mut self.parts.expressions.made;
        let known = made.ranks.iter().find(|(known, _)| Arc::ptr_eq(known, dictionary));
        let table = match known {
            Some((_, table)) => table.clone(),
            None => {
                let ranks = dictionary.ranks();
                let table = Table::of_codes(if ranks.is_empty() { &[0] } else { ranks }, dictionary.len());
                made.ranks.push((Arc::clone(dictionary), table.clone()));
                table
            }
        };
        self.look_up(&table, code)
    }

    /// The handle of a string, U64.
    pub(crate) fn handle(&mut self, value: &Value) -> Lowered<Ir> {
        let dictionary = match &value.shape.kind {
            Kind::Text => return Ok(value.ir.clone()),
            Kind::Code(dictionary) => Arc::clone(dictionary),
            Kind::Null => return Ok(build::u64(0)),
            _ => return Err(Unsupported(format!("{:?} as a string", value.shape.data_type))),
        };
        let content = self.uploaded(&dictionary)?;
        let base = self.table(content);
        let shift = build::u64(HANDLE_LENGTH_BITS.into());
        if dictionary.len() == 1 {
            let length = self.word(Word::Value(dictionary.get(0).len() as u64));
            let handle = base.plus(build::u64(ENTRY_BYTES)).shl(shift).or(length);
            return Ok(self.keep(Scalar::U64, handle));
        }
        let place = build::place(crate::ir::Elem::U64, base.clone(), value.ir.clone());
        let relative = Ir::from(self.b.load(place));
        Ok(self.keep(Scalar::U64, relative.plus(base.shl(shift))))
    }

    /// A dictionary's entries for the device: handles relative to the table, then the bytes.
    pub(crate) fn uploaded(&mut self, dictionary: &Arc<Dictionary>) -> Lowered<Arc<[u8]>> {
        let made = &mut self.parts.expressions.made;
        if let Some((_, content)) = made.texts.iter().find(|(known, _)| Arc::ptr_eq(known, dictionary)) {
            return Ok(Arc::clone(content));
        }
        let count = dictionary.len().max(1) as u64;
        let mut handles = Vec::new();
        let mut bytes = Vec::new();
        for code in codes_of(dictionary) {
            let value = dictionary.get(code);
            if value.len() >> HANDLE_LENGTH_BITS != 0 {
                return Err(Unsupported("a string of 16 MiB".to_owned()));
            }
            let offset = count * 8 + bytes.len() as u64;
            handles.push(offset << HANDLE_LENGTH_BITS | value.len() as u64);
            bytes.extend_from_slice(value);
        }
        handles.resize(handles.len().max(1), 0);
        let content: Arc<[u8]> = handles.into_iter().flat_map(u64::to_le_bytes).chain(bytes).collect();
        made.texts.push((Arc::clone(dictionary), Arc::clone(&content)));
        Ok(content)
    }

    /// `left operator right` of strings that aren't NULL.
    pub(super) fn compare_strings(&mut self, op: BinaryOperator, left: &Value, right: &Value) -> Lowered<Ir> {
        let equality = matches!(op, BinaryOperator::Equal | BinaryOperator::NotEqual);
        if let (Kind::Code(a), Kind::Code(b)) = (&left.shape.kind, &right.shape.kind) {
            let (l, r) = (left.ir.clone(), right.ir.clone());
            let (l, r) = match (Arc::ptr_eq(a, b), equality) {
                (true, true) => (l, r),
                (true, false) => (self.rank(l, a), self.rank(r, a)),
                (false, true) if a.len() < b.len() => (self.in_dictionary(l, a, b), r),
                (false, true) => (l, self.in_dictionary(r, b, a)),
                (false, false) => self.merged_ranks((l, a), (r, b)),
            };
            return Ok(plain(op, l, r));
        }
        let (l, r) = (self.handle(left)?, self.handle(right)?);
        Ok(match op {
            BinaryOperator::Equal => self.text_equal(l, r),
            BinaryOperator::NotEqual => self.text_equal(l, r).not(),
            _ => {
                let order = self.text_compare(l, r);
                plain(op, order, build::i32(0))
            }
        })
    }

    /// The code of the same string in another dictionary, U32; [`u32::MAX`] where it isn't there.
    fn in_dictionary(&mut self, code: Ir, from: &Arc<Dictionary>, to: &Arc<Dictionary>) -> Ir {
        if Arc::ptr_eq(from, to) {
            return code;
        }
        let made = &mut self.parts.expressions.made;
        let known = made
            .translations
            .iter()
            .find(|(a, b, _)| Arc::ptr_eq(a, from) && Arc::ptr_eq(b, to));
        let table = match known {
            Some((.., table)) => table.clone(),
            None => {
                let codes: HashMap<&[u8], u32> = codes_of(to).map(|code| (to.get(code), code)).collect();
                let find = |code| codes.get(from.get(code)).copied().unwrap_or(ABSENT);
                let mut found: Vec<u32> = codes_of(from).map(find).collect();
                found.resize(found.len().max(1), ABSENT);
                let table = Table::of_u32(&found);
                made.translations
                    .push((Arc::clone(from), Arc::clone(to), table.clone()));
                table
            }
        };
        self.look_up(&table, code)
    }

    /// The places of two codes among the strings of both dictionaries.
    fn merged_ranks(&mut self, (l, a): (Ir, &Arc<Dictionary>), (r, b): (Ir, &Arc<Dictionary>)) -> (Ir, Ir) {
        let made = &mut self.parts.expressions.made;
        let known = made
            .merged
            .iter()
            .find(|(x, y, ..)| Arc::ptr_eq(x, a) && Arc::ptr_eq(y, b));
        let (left, right) = match known {
            Some((.., left, right)) => (left.clone(), right.clone()),
            None => {
                let (left, right) = merged(a, b);
                made.merged
                    .push((Arc::clone(a), Arc::clone(b), left.clone(), right.clone()));
                (left, right)
            }
        };
        (self.look_up(&left, l), self.look_up(&right, r))
    }

    /// One dictionary of several; none where it would be too large.
    pub(super) fn united(&mut self, dictionaries: &[Arc<Dictionary>]) -> Option<United> {
        let made = &mut self.parts.expressions.made;
        if let Some((_, united)) = made.united.iter().find(|(known, _)| same_all(known, dictionaries)) {
            return Some(united.clone());
        }
        if dictionaries.iter().map(|dictionary| dictionary.len()).sum::<usize>() > UNITED_ENTRIES_MAX {
            return None;
        }
        let mut known: HashMap<&[u8], u32> = HashMap::new();
        let mut values: Vec<&[u8]> = Vec::new();
        let mut all = Vec::new();
        for dictionary in dictionaries {
            let mut codes: Vec<u32> = Vec::with_capacity(dictionary.len());
            for code in codes_of(dictionary) {
                let value = dictionary.get(code);
                codes.push(*known.entry(value).or_insert_with(|| {
                    values.push(value);
                    u32::try_from(values.len() - 1).unwrap_or(u32::MAX)
                }));
            }
            codes.resize(codes.len().max(1), 0);
            all.push(codes);
        }
        let united = United {
            codes: all.iter().map(|codes| Table::of_codes(codes, values.len())).collect(),
            dictionary: Arc::new(Dictionary::new(Strings::from_values(values))),
        };
        made.united.push((dictionaries.to_vec(), united.clone()));
        Some(united)
    }
}

/// Ranks of the strings of two dictionaries among those of both; equal strings have one rank.
fn merged(a: &Dictionary, b: &Dictionary) -> (Table, Table) {
    let order = |dictionary: &Dictionary| {
        let mut order: Vec<u32> = codes_of(dictionary).collect();
        let ranks = Arc::clone(dictionary.ranks());
        order.sort_unstable_by_key(|code| ranks[*code as usize]);
        order
    };
    let (left, right) = (order(a), order(b));
    let (mut lefts, mut rights) = (vec![0; left.len().max(1)], vec![0; right.len().max(1)]);
    let (mut i, mut j, mut rank) = (0, 0, 0_u32);
    while i < left.len() || j < right.len() {
        let ordering = match (left.get(i), right.get(j)) {
            (Some(l), Some(r)) => a.get(*l).cmp(b.get(*r)),
            (Some(_), None) => std::cmp::Ordering::Less,
            _ => std::cmp::Ordering::Greater,
        };
        if ordering.is_le() {
            lefts[left[i] as usize] = rank;
            i += 1;
        }
        if ordering.is_ge() {
            rights[right[j] as usize] = rank;
            j += 1;
        }
        rank += 1;
    }
    let count = rank as usize;
    (Table::of_codes(&lefts, count), Table::of_codes(&rights, count))
}
