//! Which ranges of one object are read by one request: neighbours whose gap costs less than a request, and long ranges in
//! parts. Pure arithmetic; the gap comes from what the store measures.

use std::ops::Range;

/// Gaps are at most one byte in so many of a merged request. Merging saves a request's first byte, but first bytes of parallel
/// requests overlap, and when the network card is the limit a byte of a gap costs what a needed one costs.
const GAP_SHARE: u64 = 12;
/// Gaps that are merged whatever their share: they weigh no more than a request's own headers.
const GAP_FREE_BYTES: u64 = 4 << 10;

/// Ranges that one request reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Merged {
    /// From the first to the last byte of its members.
    pub(crate) range: Range<u64>,
    /// Indices of the ranges that were given, by their first byte.
    pub(crate) members: Vec<usize>,
    /// Bytes that no member needs.
    pub(crate) gap_bytes: u64,
}

/// Merges ranges (in any order; they may overlap) whose gap is at most `gap_bytes`, while the merged range is no longer than
/// `longest_bytes` and gaps are a small part of it. A range that is longer stays alone, except for what lies wholly within it. Sorted by first byte.
pub(crate) fn coalesce(ranges: &[Range<u64>], gap_bytes: u64, longest_bytes: u64) -> Vec<Merged> {
    let mut order: Vec<usize> = (0..ranges.len()).collect();
    order.sort_by_key(|&index| (ranges[index].start, ranges[index].end, index));
    let mut merged: Vec<Merged> = Vec::new();
    for index in order {
        let range = &ranges[index];
        let end = range.end.max(range.start);
        if let Some(last) = merged.last_mut() {
            let gap = range.start.saturating_sub(last.range.end);
            let joined_end = last.range.end.max(end);
            let within = end <= last.range.end;
            let total = joined_end - last.range.start;
            let cheap = gap <= GAP_FREE_BYTES || (last.gap_bytes + gap).saturating_mul(GAP_SHARE) <= total;
            if within || (gap <= gap_bytes && cheap && total <= longest_bytes) {
                last.range.end = joined_end;
                last.members.push(index);
                last.gap_bytes += gap;
                continue;
            }
        }
        merged.push(Merged {
            range: range.start..end,
            members: vec![index],
            gap_bytes: 0,
        });
    }
    merged
}

/// Cuts a range that is longer than `split_bytes` into parts of `part_bytes`; the last one may be up to half a part longer.
pub(crate) fn split(range: &Range<u64>, split_bytes: u64, part_bytes: u64) -> Vec<Range<u64>> {
    if range.end.saturating_sub(range.start) <= split_bytes || part_bytes == 0 {
        return vec![range.clone()];
    }
    let mut parts = Vec::new();
    let mut start = range.start;
    while range.end - start > part_bytes + part_bytes / 2 {
        parts.push(start..start + part_bytes);
        start += part_bytes;
    }
    parts.push(start..range.end);
    parts
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn neighbours_are_one_request() {
        let merged = coalesce(&[20..30, 0..10, 13..20, 100..110], 3, 1000);
        assert_eq!(merged.len(), 2);
        assert_eq!(merged[0].range, 0..30);
        assert_eq!(merged[0].members, [1, 2, 0]);
        assert_eq!(merged[0].gap_bytes, 3);
        assert_eq!(merged[1].range, 100..110);
    }

    #[test]
    fn no_longer_than_allowed_unless_one_range_is() {
        let merged = coalesce(&[0..10, 10..20, 20..30, 50..150, 60..70], 5, 20);
        let ranges: Vec<_> = merged.iter().map(|merged| merged.range.clone()).collect();
        assert_eq!(ranges, [0..20, 20..30, 50..150]);
        assert_eq!(merged[2].members, [3, 4]);
    }

    #[test]
    fn gaps_stay_a_small_part() {
        const K: u64 = 1 << 10;
        let near = coalesce(&[0..500 * K, 550 * K..1000 * K], 1000 * K, 16_000 * K);
        assert_eq!((near.len(), near[0].gap_bytes), (1, 50 * K));
        let far = coalesce(&[0..500 * K, 1000 * K..1500 * K], 1000 * K, 16_000 * K);
        assert_eq!(far.len(), 2);
    }

    #[test]
    fn long_ranges_are_cut_and_nothing_is_lost() {
        let parts = |start: u64, end: u64| -> Vec<(u64, u64)> {
            split(&(start..end), 16, 8)
                .into_iter()
                .map(|part| (part.start, part.end))
                .collect()
        };
        assert_eq!(parts(5, 21), [(5, 21)]);
        assert_eq!(parts(5, 22), [(5, 13), (13, 22)]);
        assert_eq!(parts(0, 30), [(0, 8), (8, 16), (16, 24), (24, 30)]);
        assert_eq!(parts(7, 7), [(7, 7)]);
    }

    #[test]
    fn random_ranges_are_covered_once() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..500 {
            let ranges: Vec<Range<u64>> = (0..random.random_range(0..40))
                .map(|_| {
                    let start = random.random_range(0..2000);
                    start..start + random.random_range(0..100)
                })
                .collect();
            let (gap_max, longest) = (random.random_range(0..60), random.random_range(1..400));
            let merged = coalesce(&ranges, gap_max, longest);
            let mut seen = vec![0; ranges.len()];
            for one in &merged {
                let mut covered = vec![false; (one.range.end - one.range.start) as usize];
                for &member in &one.members {
                    seen[member] += 1;
                    let range = &ranges[member];
                    assert!(one.range.start <= range.start && range.end <= one.range.end);
                    for at in range.clone() {
                        covered[(at - one.range.start) as usize] = true;
                    }
                }
                assert_eq!(
                    covered.iter().filter(|covered| !**covered).count() as u64,
                    one.gap_bytes
                );
                let alone = one.members.iter().any(|&member| ranges[member] == one.range);
                assert!(alone || one.range.end - one.range.start <= longest);
            }
            assert!(seen.iter().all(|count| *count == 1));
            for pair in merged.windows(2) {
                assert!(pair[0].range.start <= pair[1].range.start);
            }
        }
    }
}
