//! From strings to the codes of a dictionary: what joins two columns that have different ones.

use std::sync::Arc;

use trireme_device_api::Dictionary;

use super::hash::hash_bytes;

/// The code of a string that isn't in the dictionary: larger than all codes.
pub(crate) const MISS: u32 = u32::MAX;

/// Finds codes by string.
#[derive(Debug)]
pub(crate) struct DictionaryIndex {
    dictionary: Arc<Dictionary>,
    /// Code + 1, 0 for none; at most half are taken.
    slots: Vec<u32>,
}

impl DictionaryIndex {
    /// Memory for an index of a dictionary.
    pub(crate) fn bytes(dictionary: &Dictionary) -> usize {
        (dictionary.len() * 2).max(2).next_power_of_two() * size_of::<u32>()
    }

    /// Over all codes.
    pub(crate) fn new(dictionary: &Arc<Dictionary>) -> Self {
        let mut slots = vec![0; Self::bytes(dictionary) / size_of::<u32>()];
        let mask = slots.len() - 1;
        for code in 0..dictionary.len() as u32 {
            let mut at = hash_bytes(dictionary.get(code)) as usize & mask;
            while slots[at] != 0 {
                at = (at + 1) & mask;
            }
            slots[at] = code + 1;
        }
        Self {
            dictionary: Arc::clone(dictionary),
            slots,
        }
    }

    /// The string's code, or [`MISS`].
    pub(crate) fn code(&self, value: &[u8]) -> u32 {
        let mask = self.slots.len() - 1;
        let mut at = hash_bytes(value) as usize & mask;
        loop {
            match self.slots[at] {
                0 => return MISS,
                code if self.dictionary.get(code - 1) == value => return code - 1,
                _ => at = (at + 1) & mask,
            }
        }
    }

    /// This dictionary's codes by the codes of another.
    pub(crate) fn translate(&self, from: &Dictionary) -> Vec<u32> {
        (0..from.len() as u32).map(|code| self.code(from.get(code))).collect()
    }
}
