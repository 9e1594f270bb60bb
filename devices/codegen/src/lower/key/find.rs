//! The code of a string in a dictionary, looked up on the device.
//!
//! ```text
//!  handle ─hash─▶ slots ─▶ code + 1 ─▶ its string, compared      slots and strings are uploaded
//! ```

use std::sync::Arc;

use trireme_device_api::Dictionary;

use super::code::NO_CODE;
use super::{Ir, Lowered, Lowering, Scalar, Stmt, Word, u64};
use crate::build::{Builder, call, place, u32};
use crate::ir::{Elem, Function};
use crate::shape::HANDLE_LENGTH_BITS;

impl Lowering<'_> {
    /// U32: the code of a handle's string, or [`NO_CODE`].
    pub(super) fn found(&mut self, dictionary: &Arc<Dictionary>, handle: Ir) -> Lowered<Ir> {
        if dictionary.is_empty() {
            return Ok(u32(NO_CODE));
        }
        let entries = self.uploaded(dictionary)?;
        let entries = self.table(entries);
        let slots = slots(dictionary);
        let mask = self.word(Word::Value(slots.len() as u64 / 4 - 1));
        let slots = self.table(slots);
        let function = self.function("code_of", code_of);
        let code = call(function, [handle, slots, mask, entries]);
        Ok(self.b.set(Scalar::U32, code).into())
    }
}

/// Code + 1 by hash, 0 for none; at most half are taken.
fn slots(dictionary: &Dictionary) -> Arc<[u8]> {
    let mut slots = vec![0_u32; (dictionary.len() * 2).next_power_of_two()];
    let mask = slots.len() - 1;
    for code in 0..u32::try_from(dictionary.len()).unwrap_or(NO_CODE) {
        let hash = hash(dictionary.get(code)) & mask as u64;
        let mut at = usize::try_from(hash).unwrap_or(0);
        while slots[at] != 0 {
            at = (at + 1) & mask;
        }
        slots[at] = code + 1;
    }
    slots.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// As [`Lowering::text_hash`], then folded.
fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    fnv ^ (fnv >> 32)
}

/// `code_of(handle, slots, mask, entries)`.
fn code_of(l: &mut Lowering<'_>) -> Function {
    let mut b = Builder::new();
    let [handle, slots, mask, entries] = [(); 4].map(|()| b.var(Scalar::U64));
    let fnv = l.text_hash(handle.into());
    let fnv = b.set(Scalar::U64, fnv);
    let folded = Ir::from(fnv).xor(Ir::from(fnv).shr(u64(32)));
    let at = b.set(Scalar::U64, folded.and(mask.into()));
    b.repeat(|b| {
        let slot = b.load(place(Elem::U32, slots.into(), at.into()));
        b.when(Ir::from(slot).eq(u32(0)), |b| b.push(Stmt::Return(u32(NO_CODE))));
        let code = b.set(Scalar::U32, Ir::from(slot).minus(u32(1)));
        let relative = b.load(place(Elem::U64, entries.into(), code.into()));
        let base = Ir::from(entries).shl(u64(HANDLE_LENGTH_BITS.into()));
        let equal = l.text_equal(Ir::from(relative).plus(base), handle.into());
        b.when(equal, |b| b.push(Stmt::Return(code.into())));
        b.assign(at, Ir::from(at).plus(u64(1)).and(mask.into()));
    });
    b.push(Stmt::Return(u32(NO_CODE)));
    b.function("code_of", 4, Scalar::U32)
}

#[cfg(test)]
mod tests {
    use trireme_device_api::{Dictionary, Strings};

    use super::{hash, slots};

    #[test]
    fn every_entry_is_found_from_its_place_on() {
        let values: Vec<String> = (0..100).map(|value| format!("value {value}")).collect();
        let dictionary = Dictionary::new(Strings::from_values(values.iter().map(String::as_bytes)));
        let slots = slots(&dictionary);
        let slot = |at: usize| u32::from_le_bytes(slots[at * 4..at * 4 + 4].try_into().unwrap());
        let mask = slots.len() / 4 - 1;
        for (code, value) in (1..).zip(&values) {
            let mut at = usize::try_from(hash(value.as_bytes())).unwrap() & mask;
            while slot(at) != code {
                assert_ne!(slot(at), 0, "{value}");
                at = (at + 1) & mask;
            }
        }
    }
}
