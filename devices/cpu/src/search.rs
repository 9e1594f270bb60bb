//! Finding a text in a long run of bytes: many values, one after another.
//!
//! A general searcher looks for two bytes of the needle that are rare in most texts, and compares where both stand. In
//! columns of a few words that come again and again they are not rare, and most time goes into comparing. Here up to four
//! bytes of the needle, spread over it, must stand in their places, 64 places at once, and a word decides what is left.

use memchr::memmem::Finder;

use crate::bytes::{eight, low_bytes};
use crate::isa::Isa;

/// Places that one round looks at.
#[cfg(target_arch = "x86_64")]
const ROUND: usize = 64;

/// A text to be found.
#[derive(Debug)]
pub(crate) struct Searcher {
    finder: Finder<'static>,
    isa: Isa,
    /// Places in the needle that are looked at first, ascending, the last byte's at the end.
    places: [usize; 4],
    /// Up to eight of the needle's first bytes, and where they stand in a word.
    word: u64,
    mask: u64,
}

impl Searcher {
    pub(crate) fn new(needle: &[u8]) -> Self {
        Self::of(needle, Isa::detect())
    }

    pub(crate) fn of(needle: &[u8], isa: Isa) -> Self {
        let last = needle.len().saturating_sub(1);
        let mask = low_bytes(needle.len().min(8));
        Self {
            finder: Finder::new(needle).into_owned(),
            isa,
            places: [0, last / 3, last * 2 / 3, last],
            word: eight(needle, 0) & mask,
            mask,
        }
    }

    pub(crate) fn needle(&self) -> &[u8] {
        self.finder.needle()
    }

    /// The first place from `from` on at which the needle stands.
    pub(crate) fn find(&self, bytes: &[u8], from: usize) -> Option<usize> {
        #[cfg(target_arch = "x86_64")]
        if self.isa >= Isa::Avx2 && self.needle().len() > 1 {
            let round = if self.isa == Isa::Avx512 {
                // SAFETY: this value exists only where `Isa::detect` found AVX-512 BW.
                |searcher: &Self, bytes: &[u8], from| unsafe { searcher.find_avx512(bytes, from) }
            } else {
                // SAFETY: this value exists only where `Isa::detect` found AVX2.
                |searcher: &Self, bytes: &[u8], from| unsafe { searcher.find_avx2(bytes, from) }
            };
            let (found, done) = round(self, bytes, from);
            return found.or_else(|| self.find_plain(bytes, done));
        }
        self.find_plain(bytes, from)
    }

    fn find_plain(&self, bytes: &[u8], from: usize) -> Option<usize> {
        let found = self.finder.find(bytes.get(from..)?)?;
        Some(from + found)
    }

    /// Whether the needle stands at a place that has room for it.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn stands(&self, bytes: &[u8], at: usize) -> bool {
        let needle = self.needle();
        eight(bytes, at) & self.mask == self.word
            && (needle.len() <= 8 || bytes.get(at + 8..at + needle.len()) == Some(&needle[8..]))
    }

    /// The first of the marked places at which the needle stands.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn first(&self, bytes: &[u8], at: usize, mut marks: u64) -> Option<usize> {
        while marks != 0 {
            let place = at + marks.trailing_zeros() as usize;
            if self.stands(bytes, place) {
                return Some(place);
            }
            marks &= marks - 1;
        }
        None
    }

    /// What was found in whole rounds, and where they ended.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,bmi1,bmi2,lzcnt,popcnt")]
    fn find_avx512(&self, bytes: &[u8], from: usize) -> (Option<usize>, usize) {
        use std::arch::x86_64::{
            _mm512_cmpeq_epi8_mask, _mm512_loadu_si512, _mm512_mask_cmpeq_epi8_mask, _mm512_set1_epi8,
        };

        let [first, second, third, last] = self.places;
        let needle = self.needle();
        let wanted_first = _mm512_set1_epi8(needle[first].cast_signed());
        let wanted_second = _mm512_set1_epi8(needle[second].cast_signed());
        let wanted_third = _mm512_set1_epi8(needle[third].cast_signed());
        let wanted_last = _mm512_set1_epi8(needle[last].cast_signed());
        let mut at = from;
        while at + last + ROUND <= bytes.len() {
            // SAFETY: the round's last place has room for the needle.
            let (firsts, seconds, thirds, lasts) = unsafe {
                let start = bytes.as_ptr().add(at);
                (
                    _mm512_loadu_si512(start.add(first).cast()),
                    _mm512_loadu_si512(start.add(second).cast()),
                    _mm512_loadu_si512(start.add(third).cast()),
                    _mm512_loadu_si512(start.add(last).cast()),
                )
            };
            let mut marks = _mm512_cmpeq_epi8_mask(lasts, wanted_last);
            marks = _mm512_mask_cmpeq_epi8_mask(marks, firsts, wanted_first);
            marks = _mm512_mask_cmpeq_epi8_mask(marks, seconds, wanted_second);
            marks = _mm512_mask_cmpeq_epi8_mask(marks, thirds, wanted_third);
            if marks != 0
                && let Some(found) = self.first(bytes, at, marks)
            {
                return (Some(found), found);
            }
            at += ROUND;
        }
        (None, at)
    }

    /// As [`Searcher::find_avx512`].
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    fn find_avx2(&self, bytes: &[u8], from: usize) -> (Option<usize>, usize) {
        use std::arch::x86_64::{
            _mm256_and_si256, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_set1_epi8,
        };

        let needle = self.needle();
        let mut wanted = [_mm256_set1_epi8(0); 4];
        for (wanted, place) in wanted.iter_mut().zip(self.places) {
            *wanted = _mm256_set1_epi8(needle[place].cast_signed());
        }
        let mut at = from;
        while at + needle.len() - 1 + ROUND <= bytes.len() {
            let mut marks = 0;
            for half in [0, ROUND / 2] {
                let mut all = _mm256_set1_epi8(-1);
                for (wanted, place) in wanted.iter().zip(self.places) {
                    // SAFETY: the round's last place has room for the needle.
                    let loaded = unsafe { _mm256_loadu_si256(bytes.as_ptr().add(at + half + place).cast()) };
                    all = _mm256_and_si256(all, _mm256_cmpeq_epi8(loaded, *wanted));
                }
                marks |= u64::from(_mm256_movemask_epi8(all).cast_unsigned()) << half;
            }
            if marks != 0
                && let Some(found) = self.first(bytes, at, marks)
            {
                return (Some(found), found);
            }
            at += ROUND;
        }
        (None, at)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn it_finds_what_a_plain_search_finds() {
        let seed: u64 = rand::rng().random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..600 {
            let letters = random.random_range(1..4_u8);
            let length = [0, 1, 63, 64, 65, 130, 700][random.random_range(0..7)];
            let mut letter = || b'a' + random.random_range(0..letters);
            let mut bytes: Vec<u8> = (0..length).map(|_| letter()).collect();
            let size = [1, 2, 3, 4, 7, 8, 9, 20][random.random_range(0..8)];
            let needle: Vec<u8> = (0..size).map(|_| b'a' + random.random_range(0..letters)).collect();
            if random.random() && length >= size {
                let at = random.random_range(0..=length - size);
                bytes[at..at + size].copy_from_slice(&needle);
            }
            for isa in Isa::all_available() {
                let searcher = Searcher::of(&needle, isa);
                let mut from = 0;
                loop {
                    let plain = bytes[from..].windows(size).position(|window| window == needle);
                    let plain = plain.map(|at| from + at);
                    assert_eq!(searcher.find(&bytes, from), plain, "{isa:?} {needle:?} from {from}");
                    let Some(found) = plain else { break };
                    from = found + 1;
                }
                assert_eq!(searcher.find(&bytes, length + 1), None);
            }
        }
    }
}
