//! Pages of Parquet, written here as the format says, and what they hold.

use rand::Rng;
use rand::rngs::StdRng;
use trireme_device_codegen::decode::{BLOCK_WORDS, Encoding, Lane, PAGE_WORDS, Page};
use trireme_device_codegen::interpreter::Machine;
use trireme_device_codegen::ir::Elem;
use trireme_device_testkit::inputs::pages::{deltas, runs};

/// Pages of one column in an arena that begins with the block.
pub(crate) struct Column {
    elem: Elem,
    lane: Lane,
    arena: Vec<u8>,
    /// Allocations in the arena: place and bytes.
    spaces: Vec<(usize, usize)>,
    pages: Vec<Page>,
    /// Value of each row.
    rows: Vec<Option<i64>>,
    output: usize,
}

/// A page that another writer (Arrow's) wrote, in hexadecimal digits.
pub(crate) struct Written {
    pub(crate) encoding: Encoding,
    pub(crate) values: &'static str,
    pub(crate) dictionary: &'static str,
}

fn hex(text: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("digits");
    (0..text.len()).step_by(2).map(digits).collect()
}

/// A lane whose values become the element.
fn lane(rng: &mut StdRng, elem: Elem) -> Lane {
    let bytes = if rng.random() { 4 } else { 8 };
    let signed = rng.random();
    let (least, most) = match (bytes, signed) {
        (4, true) => (i64::from(i32::MIN), i64::from(i32::MAX)),
        (4, false) => (0, i64::from(u32::MAX)),
        _ => (i64::MIN, i64::MAX),
    };
    let widest = u64::MAX >> (64 - elem.bytes() * 8) >> rng.random_range(0..elem.bytes() * 8);
    let room = most.wrapping_sub(least).cast_unsigned();
    let span = widest.min(room);
    let low = least.wrapping_add_unsigned(if room == span {
        0
    } else {
        rng.random_range(0..=room - span)
    });
    let base = if elem == Elem::U64 {
        0
    } else {
        low.wrapping_add_unsigned(span / 2)
    };
    Lane {
        bytes,
        signed,
        low,
        span,
        base,
    }
}

impl Column {
    fn new(elem: Elem, lane: Lane, pages: usize) -> Self {
        let arena = vec![0; (BLOCK_WORDS as usize + pages * PAGE_WORDS) * 8];
        Self {
            elem,
            lane,
            spaces: vec![(0, arena.len())],
            arena,
            pages: Vec::new(),
            rows: Vec::new(),
            output: 0,
        }
    }

    /// One page that another writer wrote.
    pub(crate) fn written(written: &Written, rows: Vec<Option<i32>>) -> Self {
        let lane = Lane {
            bytes: 4,
            signed: true,
            low: -1000,
            span: 1_000_000,
            base: 0,
        };
        let mut column = Self::new(Elem::U32, lane, 1);
        let mut put = |text: &str| {
            let bytes = hex(text);
            let at = column.space(bytes.len());
            column.arena[at..at + bytes.len()].copy_from_slice(&bytes);
            (at as u64, (at + bytes.len()) as u64)
        };
        let (at, end) = put(written.values);
        let (dictionary, dictionary_end) = put(written.dictionary);
        column.pages.push(Page {
            encoding: written.encoding,
            at,
            end,
            values: rows.iter().flatten().count() as u64,
            skip: 0,
            passed: 0,
            keep: rows.len() as u64,
            output: 0,
            first: 0,
            dictionary: (dictionary, (dictionary_end - dictionary) / 4),
            lane,
            validity: Some(0),
            dense: 0,
            fault: 0,
        });
        column.rows = rows.into_iter().map(|value| value.map(i64::from)).collect();
        column.finished()
    }

    /// One page of bytes from −75 to 180 with rows that are NULL, carried as two's complement around 53.
    pub(crate) fn around(rows: Vec<Option<i64>>) -> Self {
        let lane = Lane {
            bytes: 4,
            signed: true,
            low: -75,
            span: 255,
            base: 53,
        };
        let mut column = Self::new(Elem::U8, lane, 1);
        let held: Vec<u8> = rows
            .iter()
            .flatten()
            .flat_map(|value| value.to_le_bytes()[..4].to_vec())
            .collect();
        let at = column.space(held.len());
        column.arena[at..at + held.len()].copy_from_slice(&held);
        column.pages.push(Page {
            encoding: Encoding::Plain,
            at: at as u64,
            end: (at + held.len()) as u64,
            values: rows.iter().flatten().count() as u64,
            skip: 0,
            passed: 0,
            keep: rows.len() as u64,
            output: 0,
            first: 0,
            dictionary: (0, 0),
            lane,
            validity: Some(0),
            dense: 0,
            fault: 0,
        });
        column.rows = rows;
        column.finished()
    }

    /// The decoded values, also of rows that are NULL.
    pub(crate) fn bytes(&self, arena: &[u8]) -> Vec<i64> {
        let decoded = &arena[self.output..][..self.rows.len()];
        let value = |byte: &u8| i64::from(byte.cast_signed()) + self.lane.base;
        decoded.iter().map(value).collect()
    }

    pub(crate) fn random(rng: &mut StdRng, elem: Elem, pages: usize) -> Self {
        let lane = lane(rng, elem);
        let mut column = Self::new(elem, lane, pages);
        for _ in 0..pages {
            column.page(rng);
        }
        column.finished()
    }

    /// With arrays for what is decoded.
    fn finished(mut self) -> Self {
        let (rows, bytes) = (self.rows.len(), self.elem.bytes() as usize);
        let output = self.space(rows * bytes);
        let validity = self.space(rows.div_ceil(8));
        for (byte, rows) in self.arena[validity..].iter_mut().zip(self.rows.chunks(8)) {
            let bits = rows.iter().enumerate();
            *byte = bits.map(|(bit, value)| u8::from(value.is_some()) << bit).sum();
        }
        for position in 0..self.pages.len() {
            let dense = self.space(self.pages[position].values as usize * bytes) as u64;
            let page = &mut self.pages[position];
            (page.output, page.dense) = (output as u64, dense);
            page.validity = page.validity.map(|_| validity as u64);
        }
        self.output = output;
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
        let rows = rng.random_range(0..500_usize);
        let share = [0.0, 0.5, 0.95, 1.0][rng.random_range(0..4)];
        let optional = rng.random::<bool>();
        let Lane { low, span, .. } = self.lane;
        let narrow = span >> rng.random_range(0..64);
        let values: Vec<i64> = (0..rows)
            .scan(low, |last, _| {
                if rng.random_range(0..4) > 0 {
                    *last = low.wrapping_add_unsigned(rng.random_range(0..=narrow));
                }
                Some(*last)
            })
            .collect();
        let valid: Vec<bool> = (0..rows).map(|_| !optional || rng.random_bool(share)).collect();
        let pairs = values.iter().zip(&valid);
        let held: Vec<i64> = pairs.filter(|(_, valid)| **valid).map(|(value, _)| *value).collect();
        let skip = if rng.random() { 0 } else { rng.random_range(0..=rows) };
        let keep = if rng.random() {
            rows - skip
        } else {
            rng.random_range(0..=rows - skip)
        };
        let (encoding, bytes, dictionary) = self.encoded(rng, &held);
        let (at, end) = self.put(rng, &bytes);
        self.pages.push(Page {
            encoding,
            at,
            end,
            values: held.len() as u64,
            skip: skip as u64,
            passed: valid[..skip].iter().filter(|valid| **valid).count() as u64,
            keep: keep as u64,
            output: 0,
            first: self.rows.len() as u64,
            dictionary,
            lane: self.lane,
            validity: optional.then_some(0),
            dense: 0,
            fault: 0,
        });
        let rows = values.into_iter().zip(valid).skip(skip).take(keep);
        self.rows.extend(rows.map(|(value, valid)| valid.then_some(value)));
    }

    fn element(&self, value: i64) -> Vec<u8> {
        let element = value.wrapping_sub(self.lane.base);
        element.to_le_bytes()[..self.elem.bytes() as usize].to_vec()
    }

    fn encoded(&mut self, rng: &mut StdRng, held: &[i64]) -> (Encoding, Vec<u8>, (u64, u64)) {
        let plain = |value: &i64| value.to_le_bytes()[..self.lane.bytes as usize].to_vec();
        match rng.random_range(0..3) {
            0 => (Encoding::Plain, held.iter().flat_map(plain).collect(), (0, 0)),
            1 => {
                // Numbers of 4 bytes wrap as such.
                let cut = |value: &i64| match self.lane.bytes {
                    4 => i64::from(*value as i32).cast_unsigned(),
                    _ => value.cast_unsigned(),
                };
                let values: Vec<u64> = held.iter().map(cut).collect();
                (Encoding::Delta, deltas(rng, &values), (0, 0))
            }
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
                let entries: Vec<u8> = distinct.iter().flat_map(|value| self.element(*value)).collect();
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
        self.pages.iter_mut().for_each(|page| page.fault = fault);
        let words = [table, self.pages.len() as u64].into_iter();
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
        self.block_again();
    }

    /// Cuts the last byte of the last page off.
    pub(crate) fn cut(&mut self) {
        if let Some(page) = self.pages.last_mut() {
            page.end -= 1;
        }
        self.block_again();
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

    /// Whatever a page holds, rows have values of the range.
    pub(crate) fn check_range(&self, machine: &Machine) {
        let (bytes, lane) = (self.elem.bytes() as usize, self.lane);
        let most = u64::MAX >> (64 - bytes * 8);
        for page in &self.pages {
            for row in page.first as usize..(page.first + page.keep) as usize {
                let at = (self.output + row * bytes) as u64;
                let mut element = [0; 8];
                element[..bytes].copy_from_slice(machine.read(at, bytes as u64).expect("inside"));
                let value = u64::from_le_bytes(element).wrapping_add_signed(lane.base);
                let above = value.wrapping_sub(lane.low.cast_unsigned()) & most;
                assert!(above <= lane.span, "row {row} of {page:?} is {above} above the least");
            }
        }
    }

    /// Whether a run found something wrong.
    pub(crate) fn is_faulty(&self, arena: &[u8]) -> bool {
        let at = self.pages[0].fault as usize;
        arena[at..at + 8] != [0; 8]
    }

    /// Claims that values lie in a range that one of them doesn't; false when there is none.
    pub(crate) fn narrow(&mut self) -> bool {
        let plain = |page: &&Page| page.encoding != Encoding::Dictionary && page.values > 0;
        let Some(page) = self.pages.iter().find(plain) else {
            return false;
        };
        let (first, end) = (page.first as usize, (page.first + page.keep) as usize);
        let Some(value) = self.rows[first..end].iter().flatten().next().copied() else {
            return false;
        };
        for page in &mut self.pages {
            (page.lane.low, page.lane.span) = (value.wrapping_add(1), 0);
        }
        self.block_again();
        true
    }

    fn block_again(&mut self) {
        let table = BLOCK_WORDS as usize * 8;
        for (place, word) in self.arena[table..]
            .chunks_exact_mut(8)
            .zip(self.pages.iter().flat_map(Page::words))
        {
            place.copy_from_slice(&word.to_le_bytes());
        }
    }

    /// Compares what a run left.
    pub(crate) fn check(&self, arena: &[u8], about: &str) {
        assert!(!self.is_faulty(arena), "{about}: a fault");
        let bytes = self.elem.bytes() as usize;
        for page in &self.pages {
            for row in page.first as usize..(page.first + page.keep) as usize {
                let got = &arena[self.output + row * bytes..][..bytes];
                // A row without a value has one of the range, too.
                let due = self.element(self.rows[row].unwrap_or(self.lane.low));
                assert_eq!(got, due, "{about}: row {row} of {page:?}");
            }
        }
    }
}
