//! Where a pipeline's rows go: one interface over the sinks, so that the kernel knows none of them.
//!
//! ```text
//!  consume (per worker, no locks) ─▶ seal (once) ─▶ run_task × tasks (by any workers) ─▶ output (once)
//! ```

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use trireme_device_api::{
    Aggregate, DeviceColumn, DeviceError, Emit, Expr, Field, Fragment, Graph, Inputs, Output, Reservation, Rows,
    Sink as GraphSink,
};

use super::common::share;
use super::groups::Groups;
use super::lock;
use super::ordered::{self, OrderedArgument, where_true};
use super::stages::Stages;
use crate::aggregate::{AggregatePlan, Local as AggregateLocal, Merge};
use crate::builder::ColumnBuilder;
use crate::emit::BatchBuilder;
use crate::expr::Program;
use crate::isa::Isa;
use crate::join::{BuildLocal, BuildPlan, BuildUse, Building};
use crate::sort::{Admitted, KeyOrder, SortLocal, SortSink as Sorter};
use crate::tile::{Slot, Tile};
use crate::vector::{Data, Shape, Vector};

/// Groups expected where the source's rows aren't known.
const ROWS_UNKNOWN: usize = 1 << 20;

/// A compiled sink.
pub(super) enum Sink {
    Aggregate(Box<AggregateSink>),
    Build(Box<BuildSink>),
    Sort(Box<SortSink>),
    Emit(Box<EmitSink>),
}

/// What one worker keeps.
pub(super) enum SinkLocal {
    Aggregate(Box<AggregateLocal>),
    Build(Box<BuildLocal>),
    Sort(Box<SortLocal>),
    Batches(Box<BatchBuilder>),
    Columns(Box<CollectLocal>),
    /// Handed over to the sink.
    Taken,
}

pub(super) struct AggregateSink {
    plan: AggregatePlan,
    groups: Groups,
    arguments: Vec<Option<Program>>,
    filters: Vec<Option<Program>>,
    /// By aggregate, what else FIRST and LAST need.
    ordered: Vec<Option<OrderedArgument>>,
    /// Columns that several programs read: gathered once.
    shared: Vec<(usize, Shape)>,
    /// What several programs compute, as columns after the row's.
    common: Vec<Program>,
    /// Columns of the row.
    columns: usize,
    isa: Isa,
    merging: Mutex<Option<Arc<Merge>>>,
}

pub(super) struct BuildSink {
    plan: Arc<BuildPlan>,
    keys: Vec<Program>,
    payload: Vec<Program>,
    building: Mutex<Option<Arc<Building>>>,
}

pub(super) struct SortSink {
    sorter: Sorter,
    keys: Vec<Program>,
    row: Vec<Shape>,
    isa: Isa,
}

pub(super) struct EmitSink {
    fields: Vec<Field>,
    row: Vec<Shape>,
    offset: usize,
    end: Option<usize>,
    /// Rows that came so far, over all workers; only counted where there is an offset or a limit.
    seen: AtomicUsize,
    emit: Option<Arc<dyn Emit>>,
    batch_rows: usize,
    collected: Mutex<Vec<(usize, Vec<Arc<DeviceColumn>>)>>,
    reservations: Mutex<Vec<Reservation>>,
    isa: Isa,
}

/// Rows of a worker that stay columns, for the fragments that read them.
pub(super) struct CollectLocal {
    builders: Vec<ColumnBuilder>,
    rows: usize,
    reservation: Reservation,
}

fn compile_all(exprs: &[Expr], row: &[Shape], inputs: &Inputs, isa: Isa) -> Result<Vec<Program>, DeviceError> {
    exprs
        .iter()
        .map(|expr| Program::compile(expr, row, &inputs.parameters, isa))
        .collect()
}

fn eval_all<'a>(programs: &[Program], tile: &Tile<'a>) -> Result<Vec<Vector<'a>>, DeviceError> {
    programs.iter().map(|program| program.eval(tile)).collect()
}

fn shapes(programs: &[Program]) -> Vec<Shape> {
    programs.iter().map(|program| program.shape().clone()).collect()
}

impl Sink {
    pub(super) fn compile(
        graph: &Graph,
        id: usize,
        stages: &Stages,
        inputs: &Inputs,
        isa: Isa,
        emits: bool,
        rows: Option<usize>,
    ) -> Result<Self, DeviceError> {
        let fragment: &Fragment = &graph.fragments[id];
        let row = stages.row();
        let compile = |exprs: &[Expr]| compile_all(exprs, row, inputs, isa);
        Ok(match &fragment.sink {
            GraphSink::Aggregate { .. } => Sink::Aggregate(Box::new(AggregateSink::compile(
                fragment,
                stages,
                inputs,
                isa,
                rows.unwrap_or(ROWS_UNKNOWN),
            )?)),
            GraphSink::Build(build) => {
                let (keys, payload) = (compile(&build.keys)?, compile(&build.payload)?);
                let uses = BuildUse::of(graph, id);
                let plan = BuildPlan::new(&shapes(&keys), &shapes(&payload), uses, &inputs.pool, isa);
                Sink::Build(Box::new(BuildSink {
                    plan: Arc::new(plan),
                    keys,
                    payload: if uses.rows { payload } else { Vec::new() },
                    building: Mutex::new(None),
                }))
            }
            GraphSink::Sort { keys, limit, offset } => {
                let exprs: Vec<_> = keys.iter().map(|key| key.expr.clone()).collect();
                let programs = compile(&exprs)?;
                let orders: Vec<_> = keys
                    .iter()
                    .zip(&programs)
                    .map(|(key, program)| KeyOrder {
                        shape: program.shape().clone(),
                        descending: key.descending,
                        nulls_first: key.nulls_first,
                    })
                    .collect();
                Sink::Sort(Box::new(SortSink {
                    sorter: Sorter::new(&orders, row, *limit, *offset, &inputs.pool),
                    keys: programs,
                    row: row.to_vec(),
                    isa,
                }))
            }
            GraphSink::Emit { limit, offset } => Sink::Emit(Box::new(EmitSink {
                fields: fragment.output.clone(),
                row: row.to_vec(),
                offset: *offset,
                end: limit.map(|limit| limit.saturating_add(*offset)),
                seen: AtomicUsize::new(0),
                emit: inputs.emit.clone().filter(|_| emits),
                batch_rows: inputs.batch_rows,
                collected: Mutex::new(Vec::new()),
                reservations: Mutex::new(Vec::new()),
                isa,
            })),
        })
    }

    /// A worker's state.
    pub(super) fn local(&self, inputs: &Inputs) -> SinkLocal {
        match self {
            Sink::Aggregate(sink) => SinkLocal::Aggregate(Box::new(sink.plan.local())),
            Sink::Build(sink) => SinkLocal::Build(Box::new(BuildLocal::new(&sink.plan))),
            Sink::Sort(sink) => SinkLocal::Sort(Box::new(sink.sorter.local())),
            Sink::Emit(sink) if sink.emit.is_some() => {
                SinkLocal::Batches(Box::new(BatchBuilder::new(&sink.fields, sink.batch_rows)))
            }
            Sink::Emit(sink) => SinkLocal::Columns(Box::new(CollectLocal {
                builders: sink.row.iter().map(ColumnBuilder::new).collect(),
                rows: 0,
                reservation: Reservation::new(&inputs.pool),
            })),
        }
    }

    /// Only aggregates take masks; the others get tiles whose rows all count.
    pub(super) fn takes_masks(&self) -> bool {
        match self {
            Sink::Aggregate(sink) => {
                let programs = sink.groups.programs().chain(sink.arguments.iter().flatten());
                let programs = programs.chain(sink.ordered.iter().flatten().flat_map(OrderedArgument::keys));
                !programs.chain(sink.filters.iter().flatten()).any(Program::can_fail)
            }
            _ => false,
        }
    }

    /// Takes a tile; true when the sink needs no more rows.
    pub(super) fn consume(
        &self,
        tile: &mut Tile<'_>,
        mask: Option<&[u8]>,
        local: &mut SinkLocal,
    ) -> Result<bool, DeviceError> {
        match (self, local) {
            (Sink::Aggregate(sink), SinkLocal::Aggregate(local)) => sink.consume(tile, mask, local).map(|()| false),
            (Sink::Build(sink), SinkLocal::Build(local)) => {
                let keys = eval_all(&sink.keys, tile)?;
                let payload = eval_all(&sink.payload, tile)?;
                local.push(&keys, &payload, tile.rows).map(|()| false)
            }
            (Sink::Sort(sink), SinkLocal::Sort(local)) => {
                if let [first, rest @ ..] = &sink.keys[..]
                    && local.is_bounded()
                    && !rest.iter().any(Program::can_fail)
                {
                    let first = first.view(tile)?;
                    if let Some(rows) = local.within(&first)? {
                        let rows = rows.to_vec();
                        if rows.is_empty() {
                            return Ok(false);
                        }
                        drop(first);
                        tile.take(&rows);
                    }
                }
                let keys = eval_all(&sink.keys, tile)?;
                let columns = match local.admit(&keys, tile.rows)? {
                    Admitted::None => return Ok(false),
                    Admitted::All => row_vectors(tile, &sink.row, sink.isa)?,
                    Admitted::Some(rows) => picked_vectors(tile, &sink.row, rows, sink.isa)?,
                };
                local.append(&columns).map(|()| false)
            }
            (Sink::Emit(sink), local) => sink.consume(tile, local),
            _ => Err(DeviceError::Internal("a sink got another's state".to_owned())),
        }
    }

    /// No row follows.
    pub(super) fn seal(&self, locals: Vec<SinkLocal>) -> Result<(), DeviceError> {
        match self {
            Sink::Aggregate(sink) => {
                let locals = locals.into_iter().filter_map(|local| match local {
                    SinkLocal::Aggregate(local) => Some(*local),
                    _ => None,
                });
                *lock(&sink.merging) = Some(Arc::new(sink.plan.start_merge(locals.collect())));
            }
            Sink::Build(sink) => {
                let locals = locals.into_iter().filter_map(|local| match local {
                    SinkLocal::Build(local) => Some(*local),
                    _ => None,
                });
                *lock(&sink.building) = Some(Arc::new(Building::new(&sink.plan, locals.collect())?));
            }
            Sink::Sort(sink) => {
                let locals = locals.into_iter().filter_map(|local| match local {
                    SinkLocal::Sort(local) => Some(*local),
                    _ => None,
                });
                sink.sorter.seal(locals.collect())?;
            }
            Sink::Emit(sink) => sink.seal(locals)?,
        }
        Ok(())
    }

    /// Tasks after the seal.
    pub(super) fn tasks(&self) -> usize {
        match self {
            Sink::Aggregate(sink) => lock(&sink.merging).as_ref().map_or(0, |merge| merge.tasks()),
            Sink::Build(sink) => lock(&sink.building).as_ref().map_or(0, |building| building.tasks()),
            Sink::Sort(sink) => sink.sorter.tasks(),
            Sink::Emit(_) => 0,
        }
    }

    /// Runs a task; each once.
    pub(super) fn run_task(&self, task: usize) -> Result<(), DeviceError> {
        match self {
            Sink::Aggregate(sink) => {
                let merge = lock(&sink.merging).clone();
                let Some(merge) = merge else { return Ok(()) };
                sink.plan.merge(&merge, task)?;
                merge.rewrite(task, |segment| sink.groups.expand(segment))
            }
            Sink::Build(sink) => {
                let building = lock(&sink.building).clone();
                building.map_or(Ok(()), |building| building.run_task(task))
            }
            Sink::Sort(sink) => sink.sorter.run_task(task),
            Sink::Emit(_) => Ok(()),
        }
    }

    /// What the fragment leaves, after all tasks.
    pub(super) fn output(&self) -> Result<Output, DeviceError> {
        let unsealed = || DeviceError::Internal("a fragment was finished before its end".to_owned());
        let rows = match self {
            Sink::Aggregate(sink) => {
                let merge = lock(&sink.merging)
                    .take()
                    .and_then(Arc::into_inner)
                    .ok_or_else(unsealed)?;
                ordered::values(sink.plan.output(merge), &sink.ordered, sink.groups.columns())?
            }
            Sink::Build(sink) => {
                let building = lock(&sink.building)
                    .take()
                    .and_then(Arc::into_inner)
                    .ok_or_else(unsealed)?;
                let table = building.finish()?;
                let rows = table.rows();
                return Ok(Output::Build {
                    table: Arc::new(table),
                    rows,
                });
            }
            Sink::Sort(sink) => sink.sorter.finish()?,
            Sink::Emit(sink) => Rows {
                segments: std::mem::take(&mut *lock(&sink.collected)),
                held: lock(&sink.reservations).drain(..).map(Arc::new).collect(),
            },
        };
        Ok(Output::Rows(Arc::new(rows)))
    }
}

fn row_vectors<'a>(tile: &Tile<'a>, row: &[Shape], isa: Isa) -> Result<Vec<Vector<'a>>, DeviceError> {
    row.iter()
        .enumerate()
        .map(|(index, shape)| tile.slot(index, shape, isa))
        .collect()
}

fn picked_vectors<'a>(tile: &Tile<'a>, row: &[Shape], rows: &[u32], isa: Isa) -> Result<Vec<Vector<'a>>, DeviceError> {
    row.iter()
        .enumerate()
        .map(|(index, shape)| tile.picked(index, shape, rows, isa))
        .collect()
}

impl AggregateSink {
    fn compile(
        fragment: &Fragment,
        stages: &Stages,
        inputs: &Inputs,
        isa: Isa,
        rows: usize,
    ) -> Result<Self, DeviceError> {
        let GraphSink::Aggregate { groups, aggregates } = &fragment.sink else {
            return Err(DeviceError::Internal("no aggregate".to_owned()));
        };
        let (mut groups, mut aggregates) = (groups.clone(), aggregates.clone());
        let mut exprs: Vec<&mut Expr> = groups.iter_mut().collect();
        for aggregate in &mut aggregates {
            exprs.extend(aggregate.argument.iter_mut().chain(&mut aggregate.filter));
        }
        let mut row = stages.row().to_vec();
        let common = share(&mut exprs, &mut row, &inputs.parameters, isa)?;
        let row = row.as_slice();
        let groups = Groups::compile(&groups, row, stages, inputs, isa)?;
        let one = |expr: &Option<Expr>| {
            expr.as_ref()
                .map(|expr| Program::compile(expr, row, &inputs.parameters, isa))
                .transpose()
        };
        let mut arguments = Vec::with_capacity(aggregates.len());
        for aggregate in &mut aggregates {
            let mut program = one(&aggregate.argument)?;
            if aggregate.filter.is_some() && program.as_ref().is_some_and(Program::can_fail) {
                aggregate.argument = filtered(aggregate);
                program = one(&aggregate.argument)?;
            }
            arguments.push(program);
        }
        let filters = aggregates
            .iter()
            .map(|aggregate| one(&aggregate.filter))
            .collect::<Result<Vec<_>, _>>()?;
        let ordered = aggregates
            .iter()
            .zip(&arguments)
            .map(|(aggregate, argument)| OrderedArgument::compile(aggregate, argument.as_ref(), row, inputs, isa))
            .collect::<Result<Vec<_>, _>>()?;
        let described = described(&aggregates, &arguments, &ordered);
        let keys = groups.shapes();
        let plan = AggregatePlan::new(
            &keys,
            &described,
            inputs.workers,
            isa,
            &inputs.pool,
            rows,
            groups.parted(),
        )?;
        let programs = groups.programs().chain(arguments.iter().chain(&filters).flatten());
        let programs = programs.chain(ordered.iter().flatten().flat_map(OrderedArgument::keys));
        let mut readers = vec![0; row.len()];
        for index in programs.chain(&common).flat_map(Program::columns) {
            readers[*index] += 1;
        }
        let of_row = readers.iter().zip(row).take(row.len() - common.len());
        let shared = of_row.enumerate().filter(|(_, (count, _))| **count > 1);
        let shared = shared.map(|(index, (_, shape))| (index, shape.clone())).collect();
        Ok(Self {
            plan,
            groups,
            arguments,
            filters,
            ordered,
            shared,
            columns: row.len() - common.len(),
            common,
            isa,
            merging: Mutex::new(None),
        })
    }

    fn consume(&self, tile: &mut Tile<'_>, mask: Option<&[u8]>, local: &mut AggregateLocal) -> Result<(), DeviceError> {
        let rows = self.groups.rows(tile)?;
        for (index, shape) in &self.shared {
            tile.materialise(*index, shape, self.isa)?;
        }
        tile.slots.truncate(self.columns);
        for program in &self.common {
            let vector = program.eval(tile)?;
            tile.slots.push(Slot::Computed(vector));
        }
        let tile = &*tile;
        let groups = self.groups.values(tile, rows, group)?;
        let mut arguments = Vec::with_capacity(self.arguments.len());
        for (index, program) in self.arguments.iter().enumerate() {
            arguments.push(match program {
                Some(program) if self.plan.reads_argument(index) || program.can_fail() => {
                    let values = program.eval(tile)?;
                    Some(match &self.ordered[index] {
                        Some(ordered) => ordered.argument(tile, &values)?,
                        None => values,
                    })
                }
                _ => None,
            });
        }
        let mut filters = Vec::with_capacity(self.filters.len());
        for (index, program) in self.filters.iter().enumerate() {
            filters.push(match program {
                Some(program) if self.plan.reads_filter(index) || program.can_fail() => program.mask(tile)?,
                _ => None,
            });
        }
        let groups: Vec<_> = groups.iter().map(sliced).collect();
        let arguments: Vec<_> = arguments.iter().map(|vector| vector.as_ref().map(sliced)).collect();
        self.plan.update(local, &groups, &arguments, &filters, mask, tile.rows)
    }
}

/// What the plan is made of: the aggregates, or what stands in for them, and the shapes of their arguments.
fn described(
    aggregates: &[Aggregate],
    arguments: &[Option<Program>],
    ordered: &[Option<OrderedArgument>],
) -> Vec<(Aggregate, Option<Shape>)> {
    let arguments = arguments.iter().zip(ordered);
    let each = aggregates.iter().zip(arguments).enumerate();
    each.map(|(index, (aggregate, (argument, ordered)))| match ordered {
        Some(ordered) => {
            let (instead, shape) = ordered.aggregate(aggregate, index);
            (instead, Some(shape))
        }
        None => (
            aggregate.clone(),
            argument.as_ref().map(|program| program.shape().clone()),
        ),
    })
    .collect()
}

/// A group key; codes of a byte stay bytes.
fn group<'t>(program: &Program, tile: &'t Tile<'_>) -> Result<Vector<'t>, DeviceError> {
    match program.column().and_then(|index| tile.narrow_codes(index)) {
        Some(codes) => Ok(Vector::new(Data::Bool(Cow::Borrowed(codes)))),
        None => program.view(tile),
    }
}

/// The argument where the filter passes, so that it can only fail there.
fn filtered(aggregate: &Aggregate) -> Option<Expr> {
    Some(where_true(aggregate.filter.as_ref()?, aggregate.argument.as_ref()?))
}

/// The same vector; strings that an expression made as slices of them.
fn sliced<'a>(vector: &'a Vector<'_>) -> Vector<'a> {
    match &vector.data {
        Data::Strings(strings) => {
            let slices = (0..strings.len()).map(|row| strings.get(row)).collect();
            Vector::new(Data::Bytes(slices)).with_valid(vector.valid.as_deref().map(Cow::Borrowed))
        }
        _ => vector.borrowed(),
    }
}

impl EmitSink {
    fn consume(&self, tile: &Tile<'_>, local: &mut SinkLocal) -> Result<bool, DeviceError> {
        let mut enough = false;
        let limited = self.offset > 0 || self.end.is_some();
        let mut cut;
        let mut tile = tile;
        if limited {
            let first = self.seen.fetch_add(tile.rows, Ordering::SeqCst);
            let end = self.end.unwrap_or(usize::MAX);
            enough = first.saturating_add(tile.rows) >= end;
            let from = self.offset.saturating_sub(first).min(tile.rows);
            let to = end.saturating_sub(first).min(tile.rows);
            if from >= to {
                return Ok(enough);
            }
            if to - from < tile.rows {
                let rows: Vec<u32> = (from as u32..to as u32).collect();
                cut = tile.clone();
                cut.take(&rows);
                tile = &cut;
            }
        }
        let vectors = row_vectors(tile, &self.row, self.isa)?;
        match local {
            SinkLocal::Batches(builder) => {
                let Some(emit) = &self.emit else { return Ok(enough) };
                builder.push(&vectors, 0, tile.rows, &mut |batch| emit.push(batch))?;
            }
            SinkLocal::Columns(local) => {
                for (builder, vector) in local.builders.iter_mut().zip(&vectors) {
                    local.reservation.grow(builder.growth_bytes(Some(vector), tile.rows))?;
                    builder.push(vector)?;
                }
                local.rows += tile.rows;
            }
            _ => return Err(DeviceError::Internal("a sink got another's state".to_owned())),
        }
        Ok(enough)
    }

    fn seal(&self, locals: Vec<SinkLocal>) -> Result<(), DeviceError> {
        for local in locals {
            match local {
                SinkLocal::Batches(mut builder) => {
                    if let (Some(emit), Some(batch)) = (&self.emit, builder.flush()?) {
                        emit.push(batch);
                    }
                }
                SinkLocal::Columns(local) if local.rows > 0 => {
                    let CollectLocal {
                        builders,
                        rows,
                        reservation,
                    } = *local;
                    let columns = builders.into_iter().map(|builder| Arc::new(builder.finish())).collect();
                    lock(&self.collected).push((rows, columns));
                    lock(&self.reservations).push(reservation);
                }
                _ => {}
            }
        }
        Ok(())
    }
}
