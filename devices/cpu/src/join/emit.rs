//! From first build rows to pairs: for cross joins, for tables whose keys are unique, and along the chains of others.

use std::sync::atomic::Ordering;

use super::probe::{Buffers, PAIRS, Scratch};
use super::table::Chain;
use crate::isa::Isa;
use crate::tile::NO_ROW;

impl Scratch {
    /// Every build row for each row.
    pub(super) fn cross(&mut self, build_rows: u32, outer: bool) {
        while self.rows.len() < PAIRS && self.row < self.tile_rows {
            if build_rows == 0 && outer {
                self.rows.push(self.row as u32);
                self.build.push(NO_ROW);
            }
            let room = (PAIRS - self.rows.len()) as u32;
            let end = build_rows.min(self.following.saturating_add(room));
            self.build.extend(self.following..end);
            self.rows.resize(self.build.len(), self.row as u32);
            self.following = end;
            if end == build_rows {
                self.row += 1;
                self.following = 0;
            }
        }
    }

    /// At most one build row for each row.
    pub(super) fn unique(&mut self, outer: bool, isa: Isa) {
        let end = self.tile_rows.min(self.row + PAIRS);
        let heads = &self.buffers.heads[self.row..end];
        if outer {
            self.rows.extend(self.row as u32..end as u32);
            // 0 − 1 wraps to "no row".
            self.build.extend(heads.iter().map(|head| head.wrapping_sub(1)));
        } else {
            emit_unique(isa, heads, self.row as u32, &mut self.rows, &mut self.build);
        }
        self.row = end;
    }

    /// The rows whose chains are followed: those with a match, of an outer join all.
    fn list(&mut self, outer: bool, isa: Isa) {
        let Buffers {
            heads, hits, firsts, ..
        } = &mut *self.buffers;
        hits.clear();
        firsts.clear();
        if outer {
            hits.extend(0..heads.len() as u32);
            firsts.extend_from_slice(heads);
        } else {
            emit_unique(isa, heads, 0, hits, firsts);
            firsts.iter_mut().for_each(|first| *first += 1);
        }
        self.tile_rows = hits.len();
        self.listed = true;
    }

    /// The chain of each row.
    pub(super) fn chained(&mut self, chain: &Chain, outer: bool, isa: Isa) {
        if !self.listed {
            self.list(outer, isa);
        }
        let mut links = Links::default();
        while self.row < self.tile_rows && self.rows.len() + LEVELS <= PAIRS {
            if self.following != 0 {
                self.follow(chain);
                continue;
            }
            let end = self.tile_rows.min(self.row + BLOCK);
            let levels = links.load(&self.buffers.firsts[self.row..end], chain);
            for at in 0..end - self.row {
                if self.rows.len() + LEVELS > PAIRS || self.following != 0 {
                    break;
                }
                let before = self.build.len();
                for level in levels {
                    if level[at] == 0 {
                        break;
                    }
                    self.build.push(level[at] - 1);
                }
                if self.build.len() == before + LEVELS {
                    let last = self.build[before + LEVELS - 1] as usize;
                    self.following = chain[last].load(Ordering::Relaxed);
                } else if self.build.len() == before && outer {
                    self.build.push(NO_ROW);
                }
                let row = self.buffers.hits[self.row];
                for _ in before..self.build.len() {
                    self.rows.push(row);
                }
                self.row += usize::from(self.following == 0);
            }
        }
    }

    /// The rest of the chain of a row that was begun.
    fn follow(&mut self, chain: &Chain) {
        while self.following != 0 && self.build.len() < PAIRS {
            self.build.push(self.following - 1);
            self.following = chain[self.following as usize - 1].load(Ordering::Relaxed);
        }
        let row = self.buffers.hits.get(self.row).copied().unwrap_or_default();
        self.rows.resize(self.build.len(), row);
        self.row += usize::from(self.following == 0);
    }
}

/// Rows whose chains are followed side by side, so that many accesses are under way at once.
const BLOCK: usize = 64;

/// Links that are followed side by side; longer chains are ended one after another.
const LEVELS: usize = 8;

/// The first links of a block of chains: `levels[0]` are the heads, 0 ends a chain.
struct Links {
    levels: [[u32; BLOCK]; LEVELS],
}

impl Default for Links {
    fn default() -> Self {
        Self {
            levels: [[0; BLOCK]; LEVELS],
        }
    }
}

impl Links {
    /// The levels at which some chain has a link.
    fn load(&mut self, heads: &[u32], chain: &Chain) -> &[[u32; BLOCK]] {
        let mut open = [0_u8; BLOCK];
        let mut count = 0;
        self.levels[0][..heads.len()].copy_from_slice(heads);
        for (at, head) in heads.iter().enumerate() {
            open[count] = at as u8;
            count += usize::from(*head != 0);
        }
        for level in 1..LEVELS {
            let [.., before, after] = &mut self.levels[..=level] else {
                break;
            };
            if count == 0 {
                return &self.levels[..level];
            }
            after.fill(0);
            let active = count;
            count = 0;
            for place in 0..active {
                let at = open[place];
                let next = chain[before[at as usize] as usize - 1].load(Ordering::Relaxed);
                after[at as usize] = next;
                open[count] = at;
                count += usize::from(next != 0);
            }
        }
        &self.levels
    }
}

/// Appends a pair for each of `heads` that isn't 0: its row, counted from `first_row`, and the build row, which is the head − 1.
fn emit_unique(isa: Isa, heads: &[u32], first_row: u32, rows: &mut Vec<u32>, build: &mut Vec<u32>) {
    // Room for one full store after the last pair.
    rows.reserve(heads.len() + 16);
    build.reserve(heads.len() + 16);
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 {
        // SAFETY: this value exists only where `Isa::detect` found AVX-512 F, BW, DQ and VL; room was made above.
        unsafe { emit_avx512(heads, first_row, rows, build) };
        return;
    }
    let _ = isa;
    emit_plain(heads, first_row, rows, build);
}

/// Writes each pair and moves on only past those that match: no branch to mispredict.
fn emit_plain(heads: &[u32], first_row: u32, rows: &mut Vec<u32>, build: &mut Vec<u32>) {
    let mut count = rows.len();
    rows.resize(count + heads.len(), 0);
    build.resize(count + heads.len(), 0);
    for (row, head) in (first_row..).zip(heads) {
        rows[count] = row;
        build[count] = head.wrapping_sub(1);
        count += usize::from(*head != 0);
    }
    rows.truncate(count);
    build.truncate(count);
}

/// # Safety
///
/// Both vectors are of one length and have room for 16 more values than heads.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
unsafe fn emit_avx512(heads: &[u32], first_row: u32, rows: &mut Vec<u32>, build: &mut Vec<u32>) {
    use std::arch::x86_64::{
        _mm512_add_epi32, _mm512_loadu_si512, _mm512_maskz_compress_epi32, _mm512_set1_epi32, _mm512_setr_epi32,
        _mm512_storeu_si512, _mm512_sub_epi32, _mm512_test_epi32_mask,
    };

    let one = _mm512_set1_epi32(1);
    let step = _mm512_set1_epi32(16);
    let mut positions = _mm512_add_epi32(
        _mm512_set1_epi32(first_row.cast_signed()),
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
    );
    let mut count = rows.len();
    let (chunks, tail) = heads.as_chunks::<16>();
    for chunk in chunks {
        // SAFETY: the chunk is 16 values of 32 bits.
        let heads = unsafe { _mm512_loadu_si512(chunk.as_ptr().cast()) };
        let mask = _mm512_test_epi32_mask(heads, heads);
        let found = _mm512_maskz_compress_epi32(mask, positions);
        let before = _mm512_maskz_compress_epi32(mask, _mm512_sub_epi32(heads, one));
        // SAFETY: at most 16 values after one for each head seen so far.
        unsafe {
            _mm512_storeu_si512(rows.as_mut_ptr().add(count).cast(), found);
            _mm512_storeu_si512(build.as_mut_ptr().add(count).cast(), before);
        }
        count += mask.count_ones() as usize;
        positions = _mm512_add_epi32(positions, step);
    }
    // SAFETY: so many were written.
    unsafe {
        rows.set_len(count);
        build.set_len(count);
    }
    let done = first_row + (heads.len() - tail.len()) as u32;
    for (row, head) in (done..).zip(tail).filter(|(_, head)| **head != 0) {
        rows.push(row);
        build.push(head - 1);
    }
}
