//! Pages of Parquet, written here as the format says, and what they hold.

use rand::Rng;
use rand::rngs::StdRng;
use trireme_device_codegen::decode::{BLOCK_WORDS, Encoding, PAGE_WORDS, Page};
use trireme_device_codegen::interpreter::Machine;
use trireme_device_codegen::ir::Elem;

/// Pages of one column in an arena that begins with the block.
pub(crate) struct Column {
    elem: Elem,
    arena: Vec<u8>,
    /// Allocations in the arena: place and bytes.
    spaces: Vec<(usize, usize)>,
    pages: Vec<Page>,
    /// Value of each row.
    rows: Vec<Option<u64>>,
    output: usize,
    validity: usize,
}

/// A page that another writer (Arrow's) wrote, in hexadecimal digits.
pub(crate) struct Written {
    pub(crate) encoding: Encoding,
    pub(crate) levels: &'static str,
    pub(crate) values: &'static str,
    pub(crate) dictionary: &'static str,
}

fn hex(text: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("digits");
    (0..text.len()).step_by(2).map(digits).collect()
}

fn varint(into: &mut Vec<u8>, mut number: u64) {
    while number > 127 {
        into.push(number as u8 | 128);
        number >>= 7;
    }
    into.push(number as u8);
}

fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

fn pack(into: &mut Vec<u8>, values: &[u64], width: u32) {
    let mut bits = vec![0_u8; (values.len() * width as usize).div_ceil(8)];
    for (position, value) in values.iter().enumerate() {
        for bit in 0..width as usize {
            let at = position * width as usize + bit;
            bits[at / 8] |= ((value >> bit & 1) as u8) << (at % 8);
        }
    }
    into.extend(bits);
}

/// Runs of any lengths.
fn runs(rng: &mut StdRng, values: &[u64], width: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut left = values;
    while let Some(first) = left.first() {
        let equal = left.iter().take_while(|value| *value == first).count();
        if equal > 8 || rng.random_range(0..4) == 0 {
            let run = rng.random_range(1..=equal);
            varint(&mut bytes, (run as u64) << 1);
            bytes.extend(&first.to_le_bytes()[..width.div_ceil(8) as usize]);
            left = &left[run..];
        } else {
            let eights = rng.random_range(1..=left.len().div_ceil(8).min(63));
            let mut run = left[..left.len().min(eights * 8)].to_vec();
            left = &left[run.len()..];
            run.resize(eights * 8, 0);
            varint(&mut bytes, (eights as u64) << 1 | 1);
            pack(&mut bytes, &run, width);
        }
    }
    bytes
}

fn deltas(rng: &mut StdRng, values: &[u64]) -> Vec<u8> {
    let minis = rng.random_range(1..=4_usize);
    let mini = 32 * rng.random_range(1..=3_usize);
    let mut bytes = Vec::new();
    for number in [minis * mini, minis, values.len()] {
        varint(&mut bytes, number as u64);
    }
    varint(&mut bytes, values.first().map_or(0, |first| zigzag(*first as i64)));
    let differences: Vec<i64> = values
        .windows(2)
        .map(|pair| pair[1].wrapping_sub(pair[0]) as i64)
        .collect();
    for block in differences.chunks(minis * mini) {
        let least = *block.iter().min().expect("some");
        varint(&mut bytes, zigzag(least));
        let packed: Vec<u64> = block.iter().map(|value| value.wrapping_sub(least) as u64).collect();
        let width = |mini: &[u64]| 64 - mini.iter().max().expect("some").leading_zeros();
        let mut widths: Vec<u8> = packed.chunks(mini).map(|mini| width(mini) as u8).collect();
        widths.resize(minis, 0);
        bytes.extend(&widths);
        for (part, width) in packed.chunks(mini).zip(widths) {
            let mut part = part.to_vec();
            part.resize(mini, 0);
            pack(&mut bytes, &part, u32::from(width));
        }
    }
    bytes
}

impl Column {
    fn new(elem: Elem, pages: usize) -> Self {
        let arena = vec![0; (BLOCK_WORDS as usize + pages * PAGE_WORDS) * 8];
        Self {
            elem,
            spaces: vec![(0, arena.len())],
            arena,
            pages: Vec::new(),
            rows: Vec::new(),
            output: 0,
            validity: 0,
        }
    }

    /// One page that another writer wrote.
    pub(crate) fn written(written: &Written, rows: Vec<Option<i32>>) -> Self {
        let mut column = Self::new(Elem::U32, 1);
        let mut put = |text: &str| {
            let bytes = hex(text);
            let at = column.space(bytes.len());
            column.arena[at..at + bytes.len()].copy_from_slice(&bytes);
            (at as u64, (at + bytes.len()) as u64)
        };
        let (at, end) = put(written.values);
        let levels = Some(put(written.levels));
        let (dictionary, dictionary_end) = put(written.dictionary);
        column.pages.push(Page {
            encoding: written.encoding,
            at,
            end,
            values: rows.iter().flatten().count() as u64,
            rows: rows.len() as u64,
            output: 0,
            first: 0,
            dictionary: (dictionary, (dictionary_end - dictionary) / 4),
            levels,
            validity: 0,
            dense: 0,
        });
        column.rows = rows
            .iter()
            .map(|value| value.map(|value| u64::from(value as u32)))
            .collect();
        column.finished()
    }

    pub(crate) fn random(rng: &mut StdRng, elem: Elem, pages: usize) -> Self {
        let mut column = Self::new(elem, pages);
        for _ in 0..pages {
            column.page(rng);
        }
        column.finished()
    }

    /// With arrays for what is decoded.
    fn finished(mut self) -> Self {
        let elem = self.elem;
        let (rows, bytes) = (self.rows.len(), elem.bytes() as usize);
        self.output = self.space(rows * bytes);
        self.validity = self.space(rows);
        let (output, validity) = (self.output as u64, self.validity as u64);
        for position in 0..self.pages.len() {
            let dense = self.space(self.pages[position].values as usize * bytes);
            let page = &mut self.pages[position];
            (page.output, page.validity, page.dense) = (output, validity, dense as u64);
        }
        self.block();
        self
    }

    /// Room, at a place that is a multiple of 8.
    fn space(&mut self, bytes: usize) -> usize {
        let (at, bytes) = (self.arena.len(), bytes.next_multiple_of(8).max(8));
        self.arena.resize(at + bytes, 0xcc);
        self.spaces.push((at, bytes));
        at
    }

    /// Bytes at any place.
    fn put(&mut self, rng: &mut StdRng, bytes: &[u8]) -> (u64, u64) {
        let shift = rng.random_range(0..8);
        let at = self.space(bytes.len() + shift) + shift;
        self.arena[at..at + bytes.len()].copy_from_slice(bytes);
        (at as u64, (at + bytes.len()) as u64)
    }

    fn page(&mut self, rng: &mut StdRng) {
        let bits = self.elem.bytes() * 8;
        let boolean = self.elem == Elem::U8;
        let rows = rng.random_range(0..500_usize);
        let share = [0.0, 0.5, 0.95, 1.0][rng.random_range(0..4)];
        let optional = rng.random::<bool>();
        let narrow = rng.random_range(0..bits);
        let values: Vec<u64> = (0..rows)
            .scan(0, |last, _| {
                if rng.random_range(0..4) > 0 {
                    *last = (rng.random::<u64>() >> (64 - bits) >> narrow) & if boolean { 1 } else { u64::MAX };
                }
                Some(*last)
            })
            .collect();
        let valid: Vec<bool> = (0..rows).map(|_| !optional || rng.random_bool(share)).collect();
        let held: Vec<u64> = values
            .iter()
            .zip(&valid)
            .filter(|(_, valid)| **valid)
            .map(|(value, _)| *value)
            .collect();
        let (encoding, bytes, dictionary) = self.encoded(rng, &held);
        let (at, end) = self.put(rng, &bytes);
        let levels = optional.then(|| {
            let levels: Vec<u64> = valid.iter().map(|valid| u64::from(*valid)).collect();
            let levels = runs(rng, &levels, 1);
            self.put(rng, &levels)
        });
        self.pages.push(Page {
            encoding,
            at,
            end,
            values: held.len() as u64,
            rows: rows as u64,
            output: 0,
            first: self.rows.len() as u64,
            dictionary,
            levels,
            validity: 0,
            dense: 0,
        });
        self.rows
            .extend(values.iter().zip(valid).map(|(value, valid)| valid.then_some(*value)));
    }

    fn encoded(&mut self, rng: &mut StdRng, held: &[u64]) -> (Encoding, Vec<u8>, (u64, u64)) {
        let boolean = self.elem == Elem::U8;
        let width = self.elem.bytes() as usize;
        match rng.random_range(0..3) {
            0 if boolean => {
                let mut bytes = Vec::new();
                pack(&mut bytes, held, 1);
                (Encoding::Plain, bytes, (0, 0))
            }
            0 => (
                Encoding::Plain,
                held.iter()
                    .flat_map(|value| value.to_le_bytes()[..width].to_vec())
                    .collect(),
                (0, 0),
            ),
            1 if boolean => (Encoding::Runs, runs(rng, held, 1), (0, 0)),
            1 => (Encoding::Delta, deltas(rng, held), (0, 0)),
            _ => {
                let mut distinct = held.to_vec();
                distinct.sort_unstable();
                distinct.dedup();
                let bits = 64 - (distinct.len().max(1) as u64 - 1).leading_zeros() + rng.random_range(0..3);
                let indexes: Vec<u64> = held
                    .iter()
                    .map(|value| distinct.binary_search(value).expect("there") as u64)
                    .collect();
                let bytes = [vec![bits as u8], runs(rng, &indexes, bits)].concat();
                let entries: Vec<u8> = distinct
                    .iter()
                    .flat_map(|value| value.to_le_bytes()[..width].to_vec())
                    .collect();
                let at = self.space(entries.len());
                self.arena[at..at + entries.len()].copy_from_slice(&entries);
                (Encoding::Dictionary, bytes, (at as u64, distinct.len() as u64))
            }
        }
    }

    /// Block and table of pages.
    fn block(&mut self) {
        let table = u64::from(BLOCK_WORDS) * 8;
        let fault = self.space(8) as u64;
        self.arena[fault as usize..][..8].fill(0);
        let words = [table, self.pages.len() as u64, fault].into_iter();
        let words: Vec<u64> = words.chain(self.pages.iter().flat_map(Page::words)).collect();
        for (place, word) in self.arena.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
    }

    pub(crate) fn arena(&self) -> Vec<u8> {
        self.arena.clone()
    }

    /// Cuts some page short, or claims something wrong of it.
    pub(crate) fn damage(&mut self, rng: &mut StdRng) {
        let position = rng.random_range(0..self.pages.len());
        let (at, end) = (self.pages[position].at as usize, self.pages[position].end as usize);
        if at == end {
            return;
        }
        match rng.random_range(0..3) {
            0 => self.pages[position].end = rng.random_range(at..end) as u64,
            1 => {
                let byte = rng.random_range(at..end.min(at + 12));
                self.arena[byte] ^= 1 << rng.random_range(0..8);
            }
            _ => self.arena[at..end].fill_with(|| rng.random()),
        }
        let table = BLOCK_WORDS as usize * 8;
        for (place, word) in self.arena[table..]
            .chunks_exact_mut(8)
            .zip(self.pages.iter().flat_map(Page::words))
        {
            place.copy_from_slice(&word.to_le_bytes());
        }
    }

    /// A machine to whose eyes each page and array is an allocation of its own.
    pub(crate) fn machine(&self) -> Machine {
        let mut machine = Machine::new(self.arena.len());
        for (at, bytes) in &self.spaces {
            machine.allocate(*at as u64, *bytes as u64).expect("memory");
            machine.write(*at as u64, &self.arena[*at..at + bytes]).expect("inside");
        }
        machine
    }

    /// Compares what a run left.
    pub(crate) fn check(&self, arena: &[u8], about: &str) {
        let word = |at: usize| u64::from_le_bytes(arena[at..at + 8].try_into().expect("a word"));
        assert_eq!(word(word(16) as usize), 0, "{about}: a fault");
        let bytes = self.elem.bytes() as usize;
        for page in &self.pages {
            for row in page.first as usize..(page.first + page.rows) as usize {
                let mut value = [0; 8];
                value[..bytes].copy_from_slice(&arena[self.output + row * bytes..][..bytes]);
                let valid = page.levels.is_none() || arena[self.validity + row] == 1;
                let got = valid.then_some(u64::from_le_bytes(value));
                assert_eq!(got, self.rows[row], "{about}: row {row} of {page:?}");
            }
        }
    }
}
