//! The steps of a fragment, compiled, and the way of a tile through them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use trireme_device_api::{
    BinaryOperator, DeviceError, Expr, Fragment, Inputs, JoinKind, Node, Output, Probe, Step, Type,
};

use crate::expr::Program;
use crate::isa::Isa;
use crate::join::BuildTable;
use crate::join::probe::{ProbeKind, Prober};
use crate::number::{and_bytes, count_ones};
use crate::tile::{Slot, Tile};
use crate::vector::Shape;

use super::live;
use super::probing::exists;
use super::sieve::{Sieve, Sieved};
use super::source::{Morsel, column_shape};
use super::walk::{Flow, Walk};

/// A filter that keeps less than one row in so many has its survivors compacted; otherwise the mask travels to the sink.
pub(super) const COMPACT_BELOW: usize = 4;

/// All steps of a fragment.
pub(super) struct Stages {
    /// What the source's rows pass before all stages.
    sieve: Sieve,
    pub(super) stages: Vec<Stage>,
    /// Shapes of the row before each stage, and of the last.
    pub(super) rows: Vec<Vec<Shape>>,
    /// Stages whose build rows flow on after the source has ended, in order.
    build_phases: Vec<usize>,
    /// From this stage on a mask passes all, and the sink takes it.
    masked_from: usize,
    pub(super) isa: Isa,
    /// Looked at for every piece of a join that multiplies rows: one tile may give millions.
    pub(super) cancelled: Arc<AtomicBool>,
}

pub(super) enum Stage {
    Filter(Program),
    Project(Vec<Projection>),
    Probe(Box<ProbeStage>),
}

impl Stage {
    /// A mask may pass it: it leaves out rows and says which, or computes what it also may for rows that are left out.
    fn masks(&self) -> bool {
        match self {
            Stage::Filter(_) => true,
            Stage::Probe(probe) => probe.masks,
            Stage::Project(projections) => !projections.iter().any(Projection::is_selective),
        }
    }
}

pub(super) enum Projection {
    Keep(usize),
    Compute(Box<Program>),
}

impl Projection {
    fn is_selective(&self) -> bool {
        matches!(self, Projection::Compute(program) if program.is_selective())
    }
}

pub(super) struct ProbeStage {
    pub(super) prober: Prober,
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
        let (sieve, gone) = Sieve::take(&mut stages, &mut rows);
        build_phases.iter_mut().for_each(|stage| *stage -= gone);
        let row = rows.last().map_or(0, Vec::len);
        live::mark(&mut stages, live::in_sink(&fragment.sink, row));
        let masked = stages.iter().rev().take_while(|stage| stage.masks()).count();
        Ok(Self {
            sieve,
            masked_from: if sink_takes_masks(fragment) {
                stages.len() - masked
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

    /// The rows of a morsel that pass the tests before all stages.
    pub(super) fn sift(&self, morsel: &Morsel) -> Result<Sieved, DeviceError> {
        self.sieve.sift(morsel, self.masked_from == 0, self.isa)
    }

    /// Shapes of the row that the sink gets.
    pub(super) fn row(&self) -> &[Shape] {
        self.rows.last().map_or(&[], Vec::as_slice)
    }

    /// Stages that give build rows after the source.
    pub(super) fn build_phases(&self) -> &[usize] {
        &self.build_phases
    }

    /// For each column of the last row that an inner join brought as it stands in a build side: the stage, and the build side's
    /// column.
    pub(super) fn payload_columns(&self) -> Vec<Option<(usize, usize)>> {
        let mut columns = vec![None; self.rows.first().map_or(0, Vec::len)];
        for (index, stage) in self.stages.iter().enumerate() {
            let probe = match stage {
                Stage::Filter(_) => continue,
                Stage::Project(projections) => {
                    let kept = |projection: &Projection| match projection {
                        Projection::Keep(column) => columns.get(*column).copied().flatten(),
                        Projection::Compute(_) => None,
                    };
                    columns = projections.iter().map(kept).collect();
                    continue;
                }
                Stage::Probe(probe) => probe,
            };
            let payload = 0..probe.table.payload().len();
            match probe.kind {
                JoinKind::Semi | JoinKind::Anti => {}
                JoinKind::Inner => columns.extend(payload.map(|column| Some((index, column)))),
                JoinKind::Left => columns.extend(payload.map(|_| None)),
                JoinKind::Mark => columns.push(None),
                JoinKind::BuildOuter | JoinKind::Full => columns = vec![None; columns.len() + payload.len()],
                JoinKind::BuildSemi | JoinKind::BuildAnti => columns = vec![None; payload.len()],
            }
        }
        columns
    }

    /// The build side of a stage.
    pub(super) fn build_table(&self, stage: usize) -> Option<&Arc<BuildTable>> {
        match self.stages.get(stage) {
            Some(Stage::Probe(probe)) => Some(&probe.table),
            _ => None,
        }
    }

    /// Rows of a stage's build side.
    pub(super) fn build_rows(&self, stage: usize) -> usize {
        match self.stages.get(stage) {
            Some(Stage::Probe(probe)) => probe.table.rows(),
            _ => 0,
        }
    }

    /// Sends a tile, of which only rows of the mask count, through the stages from `from` on, as far as the walk goes.
    pub(super) fn push<'t>(
        &'t self,
        mut tile: Tile<'t>,
        from: usize,
        mut mask: Option<Vec<u8>>,
        walk: &mut Walk<'_>,
        consume: &mut Consume<'_>,
    ) -> Result<Flow, DeviceError> {
        for (index, stage) in self.stages.iter().enumerate().skip(from) {
            if tile.rows == 0 {
                return Ok(Flow::Done);
            }
            match stage {
                Stage::Probe(probe) if !probe.masks => return self.probe(probe, index, tile, walk, consume),
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
                        return Ok(Flow::Done);
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
            return Ok(Flow::Done);
        }
        consume(&mut tile, mask.as_deref())?;
        Ok(Flow::Done)
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
