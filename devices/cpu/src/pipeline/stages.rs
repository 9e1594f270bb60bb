//! The steps of a fragment, compiled, and the way of a tile through them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use trireme_device_api::{
    BinaryOperator, DeviceError, Expr, Fragment, Inputs, JoinKind, Node, Output, Probe, Step, Type,
};

use crate::expr::Program;
use crate::isa::Isa;
use crate::join::BuildTable;
use crate::join::probe::{PAIRS, ProbeKind, Prober, Scratch};
use crate::number::{and_bytes, count_ones};
use crate::tile::{Origin, Selection, Slot, Tile};
use crate::vector::{Data, Shape, TILE_ROWS, Vector};

use super::live;
use super::source::column_shape;

/// A filter that keeps less than one row in so many has its survivors compacted; otherwise the mask travels to the sink.
const COMPACT_BELOW: usize = 4;

/// All steps of a fragment.
pub(super) struct Stages {
    stages: Vec<Stage>,
    /// Shapes of the row before each stage, and of the last.
    rows: Vec<Vec<Shape>>,
    /// Stages whose build rows flow on after the source has ended, in order.
    build_phases: Vec<usize>,
    /// From this stage on there are only filters, and the sink takes masks.
    masked_from: usize,
    isa: Isa,
    /// Looked at for every piece of a join that multiplies rows: one tile may give millions.
    cancelled: Arc<AtomicBool>,
}

pub(super) enum Stage {
    Filter(Program),
    Project(Vec<Projection>),
    Probe(Box<ProbeStage>),
}

impl Stage {
    /// It only leaves out rows, and says which by a mask.
    fn masks(&self) -> bool {
        match self {
            Stage::Filter(_) => true,
            Stage::Probe(probe) => probe.masks,
            Stage::Project(_) => false,
        }
    }
}

pub(super) enum Projection {
    Keep(usize),
    Compute(Box<Program>),
}

pub(super) struct ProbeStage {
    prober: Prober,
    pub(super) table: Arc<BuildTable>,
    pub(super) keys: Vec<Program>,
    pub(super) residual: Option<Program>,
    pub(super) kind: JoinKind,
    /// Columns of the row before.
    pub(super) columns: usize,
    /// Rows pass or don't, and no build column is read: no pairs are made.
    pub(super) masks: bool,
    /// Columns of the row before that a later stage, the residual or the sink reads.
    pub(super) live: Vec<bool>,
}

/// Takes tiles at the end of the stages, with a mask of rows that count.
pub(super) type Consume<'s> = dyn FnMut(&mut Tile<'_>, Option<&[u8]>) -> Result<(), DeviceError> + 's;

/// Takes pairs that match: as a tile of row ++ build columns, and as rows of the tile beside build rows.
type TakePairs<'t, 's> = dyn FnMut(Tile<'t>, &[u32], &[u32]) -> Result<(), DeviceError> + 's;

impl Stages {
    /// Compiles the steps of a fragment whose source has rows of these shapes.
    pub(super) fn compile(
        fragment: &Fragment,
        row: Vec<Shape>,
        inputs: &Inputs,
        outputs: &[Option<Output>],
        isa: Isa,
    ) -> Result<Self, DeviceError> {
        let mut stages: Vec<Stage> = Vec::new();
        let mut rows = vec![row];
        let mut build_phases = Vec::new();
        // Conjuncts that are cheap and can't fail become one: a tile is compacted once.
        let mut cheap: Option<Expr> = None;
        for step in &fragment.steps {
            let row = rows.last().map_or(&[][..], Vec::as_slice);
            let compile = |expr: &Expr| Program::compile(expr, row, &inputs.parameters, isa);
            match step {
                Step::Filter(predicate) => {
                    if let Some(stage) = filter(predicate, row, &mut cheap, stages.last_mut(), &compile)? {
                        let row = row.to_vec();
                        stages.push(stage);
                        rows.push(row);
                    }
                }
                Step::Project(exprs) => {
                    cheap = None;
                    let mut next = Vec::with_capacity(exprs.len());
                    let mut projections = Vec::with_capacity(exprs.len());
                    for expr in exprs {
                        if let Node::Column(index) = expr.node {
                            next.push(shape_at(row, index)?);
                            projections.push(Projection::Keep(index));
                        } else {
                            let program = compile(expr)?;
                            next.push(program.shape().clone());
                            projections.push(Projection::Compute(Box::new(program)));
                        }
                    }
                    stages.push(Stage::Project(projections));
                    rows.push(next);
                }
                Step::Probe(probe) => {
                    cheap = None;
                    let (stage, next) = compile_probe(probe, row, inputs, outputs, isa)?;
                    if matches!(
                        probe.kind,
                        JoinKind::BuildOuter | JoinKind::Full | JoinKind::BuildSemi | JoinKind::BuildAnti
                    ) {
                        build_phases.push(stages.len());
                    }
                    stages.push(Stage::Probe(Box::new(stage)));
                    rows.push(next);
                }
            }
        }
        let row = rows.last().map_or(0, Vec::len);
        live::mark(&mut stages, live::in_sink(&fragment.sink, row));
        let filters = stages.iter().rev().take_while(|stage| stage.masks()).count();
        Ok(Self {
            masked_from: if sink_takes_masks(fragment) {
                stages.len() - filters
            } else {
                usize::MAX
            },
            stages,
            rows,
            build_phases,
            isa,
            cancelled: Arc::clone(&inputs.cancelled),
        })
    }

    /// Shapes of the row that the sink gets.
    pub(super) fn row(&self) -> &[Shape] {
        self.rows.last().map_or(&[], Vec::as_slice)
    }

    /// Stages that give build rows after the source.
    pub(super) fn build_phases(&self) -> &[usize] {
        &self.build_phases
    }

    /// Rows of a stage's build side.
    pub(super) fn build_rows(&self, stage: usize) -> usize {
        match self.stages.get(stage) {
            Some(Stage::Probe(probe)) => probe.table.rows(),
            _ => 0,
        }
    }

    /// Sends a tile through the stages from `from` on.
    pub(super) fn push<'t>(
        &'t self,
        mut tile: Tile<'t>,
        from: usize,
        consume: &mut Consume<'_>,
    ) -> Result<(), DeviceError> {
        let mut mask: Option<Vec<u8>> = None;
        for (index, stage) in self.stages.iter().enumerate().skip(from) {
            if tile.rows == 0 {
                return Ok(());
            }
            match stage {
                Stage::Probe(probe) if !probe.masks => return self.probe(probe, index, tile, consume),
                Stage::Project(projections) => self.project(projections, &mut tile)?,
                Stage::Filter(_) | Stage::Probe(_) => {
                    let programs = match stage {
                        Stage::Filter(program) => std::slice::from_ref(program),
                        Stage::Probe(probe) => probe.keys.as_slice(),
                        Stage::Project(_) => &[],
                    };
                    if programs.iter().any(Program::can_fail)
                        && let Some(mask) = mask.take()
                    {
                        tile.retain(&mask, self.isa);
                    }
                    let found = match stage {
                        Stage::Filter(program) => program.mask(&tile)?,
                        Stage::Probe(probe) => Some(exists(probe, &mut tile)?),
                        Stage::Project(_) => None,
                    };
                    let Some(found) = found else {
                        continue;
                    };
                    mask = Some(match mask.take() {
                        Some(before) => and(before, &found, self.isa),
                        None => found,
                    });
                    let kept = mask.as_deref().map_or(tile.rows, |mask| count_ones(self.isa, mask));
                    if kept == 0 {
                        return Ok(());
                    }
                    if kept == tile.rows {
                        mask = None;
                    } else if index < self.masked_from || kept * COMPACT_BELOW < tile.rows {
                        tile.retain(&mask.take().unwrap_or_default(), self.isa);
                    }
                }
            }
        }
        if tile.rows == 0 {
            return Ok(());
        }
        consume(&mut tile, mask.as_deref())
    }

    fn project(&self, projections: &[Projection], tile: &mut Tile<'_>) -> Result<(), DeviceError> {
        let mut slots = Vec::with_capacity(projections.len());
        for projection in projections {
            slots.push(match projection {
                Projection::Keep(index) => tile
                    .slots
                    .get(*index)
                    .cloned()
                    .ok_or_else(|| DeviceError::Internal(format!("a tile has no column {index}")))?,
                Projection::Compute(program) => Slot::Computed(program.eval(tile)?),
            });
        }
        tile.slots = slots;
        Ok(())
    }

    fn probe<'t>(
        &'t self,
        probe: &'t ProbeStage,
        index: usize,
        mut tile: Tile<'t>,
        consume: &mut Consume<'_>,
    ) -> Result<(), DeviceError> {
        let prober = &probe.prober;
        let mut scratch = Scratch::default();
        let keys = eval_keys(probe, &tile)?;
        prober.start(&mut scratch, &keys, tile.rows);
        tile.forget(&probe.live);
        match probe.kind {
            JoinKind::Semi | JoinKind::Anti | JoinKind::Mark => {
                let mut exists = Vec::new();
                if probe.residual.is_none() {
                    prober.exists(&scratch, &mut exists);
                } else {
                    exists.resize(tile.rows, 0);
                    self.matches(probe, &tile, &mut scratch, &mut |_, rows, _| {
                        for row in rows {
                            exists[*row as usize] = 1;
                        }
                        Ok(())
                    })?;
                }
                prober.decide(&keys, &mut exists);
                self.after_exists(probe, index, tile, exists, consume)
            }
            JoinKind::BuildSemi | JoinKind::BuildAnti if probe.residual.is_none() => {
                prober.mark_found(&scratch);
                Ok(())
            }
            JoinKind::BuildSemi | JoinKind::BuildAnti => {
                self.matches(probe, &tile, &mut scratch, &mut |_, _, build| {
                    prober.mark(build);
                    Ok(())
                })
            }
            JoinKind::Inner if probe.residual.is_none() && probe.table.is_unique() && tile.rows <= PAIRS => {
                if !prober.next(&mut scratch) {
                    return Ok(());
                }
                tile.take(&scratch.rows);
                add_build(
                    &mut tile,
                    probe,
                    Selection::Positions(std::mem::take(&mut scratch.build)),
                );
                drop(scratch);
                self.push(tile, index + 1, consume)
            }
            JoinKind::Inner => self.matches(probe, &tile, &mut scratch, &mut |pairs, _, _| {
                self.push(pairs, index + 1, consume)
            }),
            JoinKind::Left | JoinKind::BuildOuter | JoinKind::Full => {
                self.probe_outer(probe, index, &tile, &mut scratch, consume)
            }
        }
    }

    /// Probes that also give rows without a match; without a residual the prober gives the tile's own among the pairs.
    fn probe_outer(
        &self,
        probe: &ProbeStage,
        index: usize,
        tile: &Tile<'_>,
        scratch: &mut Scratch,
        consume: &mut Consume<'_>,
    ) -> Result<(), DeviceError> {
        let later = probe.kind != JoinKind::BuildOuter && probe.residual.is_some();
        let mut unmatched = vec![1_u8; if later { tile.rows } else { 0 }];
        self.matches(probe, tile, scratch, &mut |pairs, rows, build| {
            if later {
                for row in rows {
                    unmatched[*row as usize] = 0;
                }
            }
            if probe.kind != JoinKind::Left {
                probe.prober.mark(build);
            }
            self.push(pairs, index + 1, consume)
        })?;
        if later {
            let mut rest = tile.clone();
            rest.retain(&unmatched, self.isa);
            if rest.rows > 0 {
                add_build(&mut rest, probe, Selection::NoRows);
                self.push(rest, index + 1, consume)?;
            }
        }
        Ok(())
    }

    /// After a semi, anti or mark probe: `exists` says which rows pass (mark: which have a match).
    fn after_exists(
        &self,
        probe: &ProbeStage,
        index: usize,
        mut tile: Tile<'_>,
        exists: Vec<u8>,
        consume: &mut Consume<'_>,
    ) -> Result<(), DeviceError> {
        if probe.kind == JoinKind::Mark {
            tile.slots.push(Slot::Computed(Vector::new(Data::Bool(exists.into()))));
        } else {
            tile.retain(&exists, self.isa);
        }
        self.push(tile, index + 1, consume)
    }

    /// Calls `each` with the pairs that match (as a tile of row ++ build columns), their rows and their build rows.
    fn matches<'t>(
        &self,
        probe: &'t ProbeStage,
        tile: &Tile<'t>,
        scratch: &mut Scratch,
        each: &mut TakePairs<'t, '_>,
    ) -> Result<(), DeviceError> {
        while probe.prober.next(scratch) {
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(DeviceError::Cancelled);
            }
            let mut pairs = tile.picked_rows(&scratch.rows);
            add_build(&mut pairs, probe, Selection::Positions(scratch.build.clone()));
            let Some(residual) = &probe.residual else {
                each(pairs, &scratch.rows, &scratch.build)?;
                continue;
            };
            let Some(keep) = residual.mask(&pairs)? else {
                each(pairs, &scratch.rows, &scratch.build)?;
                continue;
            };
            let (rows, build) = (kept(&scratch.rows, &keep), kept(&scratch.build, &keep));
            if !rows.is_empty() {
                pairs.retain(&keep, self.isa);
                each(pairs, &rows, &build)?;
            }
        }
        Ok(())
    }

    /// The build rows of a stage, after the source: those with a match (semi) or without one.
    pub(super) fn build_side(
        &self,
        stage: usize,
        rows: Range<usize>,
        push: &mut dyn FnMut(Tile<'_>) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        let Some(Stage::Probe(probe)) = self.stages.get(stage) else {
            return Ok(());
        };
        let wanted = probe.kind == JoinKind::BuildSemi;
        let mut start = rows.start;
        while start < rows.end {
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
            push(tile)?;
        }
        Ok(())
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
fn exists<'a>(probe: &'a ProbeStage, tile: &mut Tile<'a>) -> Result<Vec<u8>, DeviceError> {
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

/// The stage of a filter; none when it went into the one before, as both are cheap and can't fail. `cheap` is what that one tests.
fn filter(
    predicate: &Expr,
    row: &[Shape],
    cheap: &mut Option<Expr>,
    before: Option<&mut Stage>,
    compile: &dyn Fn(&Expr) -> Result<Program, DeviceError>,
) -> Result<Option<Stage>, DeviceError> {
    let program = compile(predicate)?;
    let plain = !program.can_fail() && is_cheap(predicate, row);
    if plain && let (Some(tested), Some(Stage::Filter(last))) = (cheap.as_ref(), before) {
        let both = Expr::binary(BinaryOperator::And, tested.clone(), predicate.clone(), Type::Boolean);
        *last = compile(&both)?;
        *cheap = Some(both);
        return Ok(None);
    }
    *cheap = plain.then(|| predicate.clone());
    Ok(Some(Stage::Filter(program)))
}

fn compile_probe(
    probe: &Probe,
    row: &[Shape],
    inputs: &Inputs,
    outputs: &[Option<Output>],
    isa: Isa,
) -> Result<(ProbeStage, Vec<Shape>), DeviceError> {
    let Some(Some(Output::Build { table, .. })) = outputs.get(probe.build) else {
        return Err(DeviceError::Internal(format!(
            "fragment {} left no build side",
            probe.build
        )));
    };
    let table = Arc::clone(table)
        .downcast::<BuildTable>()
        .map_err(|_| DeviceError::Internal("a build side of another device".to_owned()))?;
    let keys = probe
        .keys
        .iter()
        .map(|key| Program::compile(key, row, &inputs.parameters, isa))
        .collect::<Result<Vec<_>, _>>()?;
    let key_shapes: Vec<_> = keys.iter().map(|key| key.shape().clone()).collect();
    let how = ProbeKind {
        kind: probe.kind,
        nulls_equal: probe.null_equals_null,
        null_aware: probe.null_aware,
        residual: probe.residual.is_some(),
    };
    let prober = Prober::new(&table, &key_shapes, how, &inputs.pool, isa)?;
    let nullable = |shape: &Shape| Shape {
        nullable: true,
        ..shape.clone()
    };
    let payload: Vec<_> = table.payload().iter().map(|column| column_shape(column)).collect();
    let payload = payload.as_slice();
    let residual = probe
        .residual
        .as_ref()
        .map(|residual| {
            let pair: Vec<_> = row.iter().chain(payload).cloned().collect();
            Program::compile(residual, &pair, &inputs.parameters, isa)
        })
        .transpose()?;
    let next = match probe.kind {
        JoinKind::Inner => row.iter().chain(payload).cloned().collect(),
        JoinKind::Left => row.iter().cloned().chain(payload.iter().map(nullable)).collect(),
        JoinKind::BuildOuter => row.iter().map(nullable).chain(payload.iter().cloned()).collect(),
        JoinKind::Full => row.iter().chain(payload).map(nullable).collect(),
        JoinKind::Semi | JoinKind::Anti => row.to_vec(),
        JoinKind::Mark => row
            .iter()
            .cloned()
            .chain([Shape::of_type(Type::Boolean, true)])
            .collect(),
        JoinKind::BuildSemi | JoinKind::BuildAnti => payload.to_vec(),
    };
    let stage = ProbeStage {
        prober,
        table,
        keys,
        residual,
        kind: probe.kind,
        columns: row.len(),
        masks: false,
        live: Vec::new(),
    };
    Ok((stage, next))
}

/// 1 where both are.
fn and(mut a: Vec<u8>, b: &[u8], isa: Isa) -> Vec<u8> {
    and_bytes(isa, &mut a, b);
    a
}

fn kept(values: &[u32], keep: &[u8]) -> Vec<u32> {
    let pairs = values.iter().zip(keep);
    pairs.filter(|(_, keep)| **keep != 0).map(|(value, _)| *value).collect()
}

/// Only aggregates leave out rows by a mask.
fn sink_takes_masks(fragment: &Fragment) -> bool {
    matches!(fragment.sink, trireme_device_api::Sink::Aggregate { .. })
}

fn shape_at(row: &[Shape], index: usize) -> Result<Shape, DeviceError> {
    row.get(index)
        .cloned()
        .ok_or_else(|| DeviceError::Internal(format!("a row has no column {index}")))
}

/// Comparisons and logic over numbers and codes: worth evaluating for rows that another conjunct drops.
fn is_cheap(expr: &Expr, row: &[Shape]) -> bool {
    let mut cheap = true;
    expr.visit(&mut |expr| {
        cheap &= match &expr.node {
            Node::Column(index) => row
                .get(*index)
                .is_some_and(|shape| !shape.data_type.is_bytes() || shape.dictionary.is_some()),
            Node::Literal(_) | Node::Parameter(_) | Node::Not(_) | Node::IsNull(_) | Node::IsNotNull(_) => true,
            Node::Binary { .. } | Node::InList { .. } | Node::Like { .. } => true,
            Node::Cast { expr: operand, .. } => {
                expr.data_type.is_integral() && operand.data_type.is_integral() || is_constant(operand)
            }
            _ => false,
        };
    });
    cheap
}

fn is_constant(expr: &Expr) -> bool {
    matches!(expr.node, Node::Literal(_) | Node::Parameter(_))
}
