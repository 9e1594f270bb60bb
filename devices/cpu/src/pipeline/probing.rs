//! The way of a tile through a probe: from its rows to pairs, or to those rows that pass, and from build rows to tiles.

use std::ops::Range;
use std::sync::atomic::Ordering;

use trireme_device_api::{DeviceError, JoinKind};

use crate::join::probe::{PAIRS, Scratch};
use crate::tile::{Origin, Selection, Slot, Tile};
use crate::vector::{Data, TILE_ROWS, Vector};

use super::stages::{Consume, ProbeStage, Stage, Stages};
use super::walk::{Flow, Place, Walk};

/// Takes pairs that match: as a tile of row ++ build columns, and as rows of the tile beside build rows.
type TakePairs<'t, 's> = dyn FnMut(Tile<'t>, &[u32], &[u32], &mut Walk<'_>) -> Result<Flow, DeviceError> + 's;

impl Stages {
    pub(super) fn probe<'t>(
        &'t self,
        probe: &'t ProbeStage,
        index: usize,
        mut tile: Tile<'t>,
        walk: &mut Walk<'_>,
        consume: &mut Consume<'_>,
    ) -> Result<Flow, DeviceError> {
        let prober = &probe.prober;
        let mut scratch = Scratch::default();
        let keys = eval_keys(probe, &tile)?;
        prober.start(&mut scratch, &keys, tile.rows);
        tile.forget(&probe.live);
        match probe.kind {
            JoinKind::Semi | JoinKind::Anti | JoinKind::Mark if probe.residual.is_none() => {
                let mut exists = Vec::new();
                prober.exists(&scratch, &mut exists);
                prober.decide(&keys, &mut exists);
                self.after_exists(probe, index, tile, exists, walk, consume)
            }
            JoinKind::Semi | JoinKind::Anti | JoinKind::Mark => {
                let Some(found) = self.exists_where(probe, &tile, &mut scratch, walk)? else {
                    return Ok(Flow::Stopped);
                };
                if walk.enough() {
                    // Which rows have a match is not known.
                    return Ok(Flow::Done);
                }
                let mut exists = found.clone();
                prober.decide(&keys, &mut exists);
                let flow = self.after_exists(probe, index, tile, exists, walk, consume)?;
                Ok(stopped_after(flow, found, walk))
            }
            JoinKind::BuildSemi | JoinKind::BuildAnti if probe.residual.is_none() => {
                prober.mark_found(&scratch);
                Ok(Flow::Done)
            }
            JoinKind::BuildSemi | JoinKind::BuildAnti => {
                let mut mark = |_: Tile<'t>, _: &[u32], build: &[u32], _: &mut Walk<'_>| {
                    prober.mark(build);
                    Ok(Flow::Done)
                };
                self.all_matches(probe, &tile, &mut scratch, walk, &mut mark)
            }
            JoinKind::Inner if probe.residual.is_none() && probe.table.is_unique() && tile.rows <= PAIRS => {
                if !prober.next(&mut scratch) {
                    return Ok(Flow::Done);
                }
                tile.take(&scratch.rows);
                add_build(
                    &mut tile,
                    probe,
                    Selection::Positions(std::mem::take(&mut scratch.build)),
                );
                drop(scratch);
                self.push(tile, index + 1, None, walk, consume)
            }
            JoinKind::Inner => {
                let mut on = |pairs: Tile<'t>, _: &[u32], _: &[u32], walk: &mut Walk<'_>| {
                    self.push(pairs, index + 1, None, walk, consume)
                };
                self.all_matches(probe, &tile, &mut scratch, walk, &mut on)
            }
            JoinKind::Left | JoinKind::BuildOuter | JoinKind::Full => {
                self.probe_outer(probe, index, &tile, &mut scratch, walk, consume)
            }
        }
    }

    /// 1 for the rows for which a pair passes the residual; none when the walk stopped.
    fn exists_where<'t>(
        &'t self,
        probe: &'t ProbeStage,
        tile: &Tile<'t>,
        scratch: &mut Scratch,
        walk: &mut Walk<'_>,
    ) -> Result<Option<Vec<u8>>, DeviceError> {
        let place = walk.enter().unwrap_or_default();
        if place.rest {
            return Ok(Some(place.flags));
        }
        let mut exists = place.flags;
        exists.resize(tile.rows, 0);
        scratch.seek(place.pairs);
        let mut note = |_: Tile<'t>, rows: &[u32], _: &[u32], _: &mut Walk<'_>| {
            for row in rows {
                exists[*row as usize] = 1;
            }
            Ok(Flow::Done)
        };
        let stopped = self.matches(probe, tile, scratch, walk, &mut note)?;
        Ok(match stopped {
            None => Some(exists),
            Some(pairs) => {
                walk.stop(Place {
                    pairs,
                    flags: exists,
                    rest: false,
                });
                None
            }
        })
    }

    /// Probes that also give rows without a match; without a residual the prober gives the tile's own among the pairs.
    fn probe_outer<'t>(
        &'t self,
        probe: &'t ProbeStage,
        index: usize,
        tile: &Tile<'t>,
        scratch: &mut Scratch,
        walk: &mut Walk<'_>,
        consume: &mut Consume<'_>,
    ) -> Result<Flow, DeviceError> {
        let later = probe.kind != JoinKind::BuildOuter && probe.residual.is_some();
        let place = walk.enter().unwrap_or_default();
        let mut unmatched = place.flags;
        unmatched.resize(if later { tile.rows } else { 0 }, 1);
        if !place.rest {
            scratch.seek(place.pairs);
            let mut on = |pairs: Tile<'t>, rows: &[u32], build: &[u32], walk: &mut Walk<'_>| {
                if later {
                    for row in rows {
                        unmatched[*row as usize] = 0;
                    }
                }
                if probe.kind != JoinKind::Left {
                    probe.prober.mark(build);
                }
                self.push(pairs, index + 1, None, walk, consume)
            };
            if let Some(pairs) = self.matches(probe, tile, scratch, walk, &mut on)? {
                return Ok(walk.stop(Place {
                    pairs,
                    flags: unmatched,
                    rest: false,
                }));
            }
        }
        if !later || walk.enough() {
            return Ok(Flow::Done);
        }
        let mut rest = tile.clone();
        rest.retain(&unmatched, self.isa);
        if rest.rows == 0 {
            return Ok(Flow::Done);
        }
        add_build(&mut rest, probe, Selection::NoRows);
        let flow = self.push(rest, index + 1, None, walk, consume)?;
        Ok(stopped_after(flow, unmatched, walk))
    }

    /// After a semi, anti or mark probe: `exists` says which rows pass (mark: which have a match).
    fn after_exists<'t>(
        &'t self,
        probe: &ProbeStage,
        index: usize,
        mut tile: Tile<'t>,
        exists: Vec<u8>,
        walk: &mut Walk<'_>,
        consume: &mut Consume<'_>,
    ) -> Result<Flow, DeviceError> {
        if probe.kind == JoinKind::Mark {
            tile.slots.push(Slot::Computed(Vector::new(Data::Bool(exists.into()))));
        } else {
            tile.retain(&exists, self.isa);
        }
        self.push(tile, index + 1, None, walk, consume)
    }

    /// As [`Stages::matches`], for probes that need nothing more to go on.
    fn all_matches<'t>(
        &self,
        probe: &'t ProbeStage,
        tile: &Tile<'t>,
        scratch: &mut Scratch,
        walk: &mut Walk<'_>,
        each: &mut TakePairs<'t, '_>,
    ) -> Result<Flow, DeviceError> {
        if let Some(place) = walk.enter() {
            scratch.seek(place.pairs);
        }
        Ok(match self.matches(probe, tile, scratch, walk, each)? {
            None => Flow::Done,
            Some(pairs) => walk.stop(Place {
                pairs,
                ..Place::default()
            }),
        })
    }

    /// Calls `each` with the pairs that match (as a tile of row ++ build columns), their rows and their build rows. Gives the
    /// place to go on from, if the walk stopped.
    fn matches<'t>(
        &self,
        probe: &'t ProbeStage,
        tile: &Tile<'t>,
        scratch: &mut Scratch,
        walk: &mut Walk<'_>,
        each: &mut TakePairs<'t, '_>,
    ) -> Result<Option<(usize, u32)>, DeviceError> {
        loop {
            let before = scratch.place();
            if walk.enough() || !probe.prober.next(scratch) {
                return Ok(None);
            }
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(DeviceError::Cancelled);
            }
            if self.piece(probe, tile, scratch, walk, each)? == Flow::Stopped {
                return Ok(Some(before));
            }
            if walk.spend(scratch.rows.len()) {
                return Ok(Some(scratch.place()));
            }
        }
    }

    /// The pairs that the prober gave last.
    fn piece<'t>(
        &self,
        probe: &'t ProbeStage,
        tile: &Tile<'t>,
        scratch: &Scratch,
        walk: &mut Walk<'_>,
        each: &mut TakePairs<'t, '_>,
    ) -> Result<Flow, DeviceError> {
        let mut pairs = tile.picked_rows(&scratch.rows);
        add_build(&mut pairs, probe, Selection::Positions(scratch.build.clone()));
        let Some(residual) = &probe.residual else {
            return each(pairs, &scratch.rows, &scratch.build, walk);
        };
        let Some(keep) = residual.mask(&pairs)? else {
            return each(pairs, &scratch.rows, &scratch.build, walk);
        };
        let (rows, build) = (kept(&scratch.rows, &keep), kept(&scratch.build, &keep));
        if rows.is_empty() {
            return Ok(Flow::Done);
        }
        pairs.retain(&keep, self.isa);
        each(pairs, &rows, &build, walk)
    }

    /// The build rows of a stage, after the source: those with a match (semi) or without one. Gives the row to go on from, if
    /// `push` stopped.
    pub(super) fn build_side(
        &self,
        stage: usize,
        rows: Range<usize>,
        push: &mut dyn FnMut(Tile<'_>) -> Result<Flow, DeviceError>,
    ) -> Result<Option<usize>, DeviceError> {
        let Some(Stage::Probe(probe)) = self.stages.get(stage) else {
            return Ok(None);
        };
        let wanted = probe.kind == JoinKind::BuildSemi;
        let mut start = rows.start;
        while start < rows.end {
            let from = start;
            let mut positions = Vec::new();
            start = probe
                .prober
                .build_rows(wanted, (start, rows.end), TILE_ROWS, &mut positions);
            if positions.is_empty() {
                continue;
            }
            let before = &self.rows[stage];
            let own = matches!(probe.kind, JoinKind::BuildSemi | JoinKind::BuildAnti);
            let slots = if own { &[][..] } else { before };
            let mut tile = Tile {
                rows: positions.len(),
                origins: Vec::new(),
                slots: slots
                    .iter()
                    .map(|shape| Slot::Computed(Vector::nulls(shape, positions.len())))
                    .collect(),
            };
            add_build(&mut tile, probe, Selection::Positions(positions));
            if push(tile)? == Flow::Stopped {
                return Ok(Some(from));
            }
        }
        Ok(None)
    }
}

/// What follows from a probe's flags was sent on: if that stopped, the pairs need not be made again.
fn stopped_after(flow: Flow, flags: Vec<u8>, walk: &mut Walk<'_>) -> Flow {
    match flow {
        Flow::Done => Flow::Done,
        Flow::Stopped => walk.stop(Place {
            flags,
            rest: true,
            ..Place::default()
        }),
    }
}

/// Appends the build side's columns to a tile's row.
fn add_build<'a>(tile: &mut Tile<'a>, probe: &'a ProbeStage, selection: Selection) {
    let origin = tile.origins.len();
    let columns = probe.table.payload();
    tile.origins.push(Origin { columns, selection });
    tile.slots
        .extend((0..columns.len()).map(|column| Slot::Origin { origin, column }));
}

fn eval_keys<'a>(probe: &ProbeStage, tile: &Tile<'a>) -> Result<Vec<Vector<'a>>, DeviceError> {
    probe.keys.iter().map(|program| program.eval(tile)).collect()
}

/// Which rows pass a probe that makes no pairs. Build columns that nobody reads are added to the row.
pub(super) fn exists<'a>(probe: &'a ProbeStage, tile: &mut Tile<'a>) -> Result<Vec<u8>, DeviceError> {
    let keys = eval_keys(probe, tile)?;
    let mut exists = Vec::with_capacity(tile.rows);
    let mut scratch = Scratch::default();
    probe.prober.only_exists(&mut scratch, &keys, tile.rows, &mut exists);
    probe.prober.decide(&keys, &mut exists);
    tile.forget(&probe.live);
    if probe.kind == JoinKind::Inner {
        add_build(tile, probe, Selection::NoRows);
    }
    Ok(exists)
}

fn kept(values: &[u32], keep: &[u8]) -> Vec<u32> {
    let pairs = values.iter().zip(keep);
    pairs.filter(|(_, keep)| **keep != 0).map(|(value, _)| *value).collect()
}
