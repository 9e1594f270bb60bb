//! Which build rows have a match, for the kinds of join that give build rows at the end.

use std::sync::atomic::Ordering;

use super::probe::{Prober, Scratch};
use super::table::{Index, prefetch};

/// How many rows ahead chains are asked for.
const AHEAD: usize = 16;

impl Prober {
    /// Notes that these build rows have a match ([`crate::tile::NO_ROW`] is skipped), for kinds that give build rows at the end.
    pub(crate) fn mark(&self, build: &[u32]) {
        let Some(matched) = &self.matched else { return };
        for row in build {
            if let Some(flag) = matched.get(*row as usize)
                && flag.load(Ordering::Relaxed) == 0
            {
                flag.store(1, Ordering::Relaxed);
            }
        }
    }

    /// Notes all build rows that match the started tile's rows: as [`Prober::next`] and [`Prober::mark`] would without
    /// residual, but each build row is visited only once.
    pub(crate) fn mark_found(&self, scratch: &Scratch) {
        let Some(matched) = &self.matched else { return };
        if matches!(self.table.index, Index::All) {
            // The first tile with rows decides it for all, first to last.
            let is_decided = matched.last().is_none_or(|flag| flag.load(Ordering::Relaxed) == 1);
            if scratch.tile_rows > 0 && !is_decided {
                matched.iter().for_each(|flag| flag.store(1, Ordering::Relaxed));
            }
            return;
        }
        let heads = &scratch.buffers.heads;
        for (at, head) in heads.iter().enumerate() {
            if let Some(head) = heads.get(at + AHEAD) {
                prefetch(matched, head.wrapping_sub(1) as usize);
            }
            let mut next = *head;
            // Chains are marked from their first row on, by whoever found it unmarked: the rest is marked too, or will be.
            while next != 0 && matched[next as usize - 1].load(Ordering::Relaxed) == 0 {
                matched[next as usize - 1].store(1, Ordering::Relaxed);
                let link = self.table.chain.get(next as usize - 1);
                next = link.map_or(0, |link| link.load(Ordering::Relaxed));
            }
        }
    }

    /// After all rows were probed: build rows with (or without) a match from `start` on and before `end`, at most `most` of
    /// them, appended to `rows`; the place to go on from.
    pub(crate) fn build_rows(
        &self,
        matched: bool,
        (start, end): (usize, usize),
        most: usize,
        rows: &mut Vec<u32>,
    ) -> usize {
        let wanted = u8::from(matched);
        let limit = rows.len() + most;
        let end = end.min(self.table.rows());
        let mut at = start;
        while at < end && rows.len() < limit {
            let held = self
                .matched
                .as_ref()
                .map_or(0, |flags| flags[at].load(Ordering::Relaxed));
            if held == wanted {
                rows.push(at as u32);
            }
            at += 1;
        }
        at
    }
}
