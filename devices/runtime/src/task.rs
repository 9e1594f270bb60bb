//! What a run is about: the fragments, where their rows come from, and what is known of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use trireme_device_api::{
    DeviceError, FragmentId, Graph, Inputs, Output, Reservation, Rows, ScanInput, Sink, Source, StreamInput, Support,
};
use trireme_device_codegen::shape::{ScanShape, Storage};
use trireme_device_codegen::{Bound, Hints, Input, Program, ProgramOutput};

use crate::accelerator::Core;
use crate::columns::Key;
use crate::held::{Held, Pin};
use crate::programs::{Lineage, Lowered};
use crate::resident::{DeviceBuild, DeviceRows};
use crate::shapes::{RowsInput, field_shapes, scan_shape, used_by};

/// Segments that are uploaded for fragments to read.
#[derive(Clone)]
pub(crate) struct Table {
    pub(crate) input: Arc<dyn ScanInput>,
    pub(crate) shape: ScanShape,
}

impl Table {
    /// Whether a column of a segment is read from memory.
    pub(crate) fn reads(&self, segment: usize, column: usize) -> bool {
        self.shape.columns[column].storage != Storage::Null && self.input.rows(segment) > 0
    }

    /// Whether a column is in the device's memory already.
    pub(crate) fn is_resident(&self, core: &Core, segment: usize, column: usize) -> bool {
        let identity = self.input.identity(segment, column);
        identity.is_some_and(|identity| core.columns.has(Key::column(identity, &self.shape.columns[column])))
    }
}

/// What an earlier run left.
#[derive(Clone)]
pub(crate) enum Given {
    Rows(Arc<DeviceRows>),
    Build(Arc<DeviceBuild>),
    Host(Table),
}

/// The fragments of a run and their inputs.
pub(crate) struct Task {
    pub(crate) core: Arc<Core>,
    pub(crate) graph: Arc<Graph>,
    pub(crate) ids: Vec<FragmentId>,
    pub(crate) inputs: Inputs,
    /// Of every scan, whether it is read here or not.
    pub(crate) scans: Vec<Table>,
    /// Of streams that were read to their end.
    pub(crate) streams: Vec<Option<Table>>,
    pub(crate) given: Vec<Option<Given>>,
    /// Host memory of streams.
    reserved: Vec<Reservation>,
}

/// Columns of a graph's scan that any fragment reads.
fn used_of(graph: &Graph, source: &Source, width: usize) -> Vec<bool> {
    let mut used = vec![false; width];
    for fragment in graph.fragments.iter().filter(|fragment| fragment.source == *source) {
        for (used, here) in used.iter_mut().zip(used_by(fragment, width)) {
            *used |= here;
        }
    }
    used
}

fn reads(graph: &Graph, ids: &[FragmentId], source: &Source) -> bool {
    ids.iter().any(|id| {
        graph
            .fragments
            .get(*id)
            .is_some_and(|fragment| fragment.source == *source)
    })
}

/// The tables of all scans; those that no fragment of `ids` reads have no columns to load.
fn scan_tables(graph: &Graph, ids: &[FragmentId], inputs: &Inputs) -> Result<Vec<Table>, DeviceError> {
    let tables = inputs.scans.iter().enumerate().map(|(index, input)| {
        let source = Source::Scan(index);
        let width = input.columns().len();
        let used = if reads(graph, ids, &source) {
            used_of(graph, &source, width)
        } else {
            vec![false; width]
        };
        Ok(Table {
            shape: scan_shape(input.as_ref(), &used)?,
            input: Arc::clone(input),
        })
    });
    tables.collect()
}

impl Task {
    /// Binds fragments to their inputs; nothing is loaded.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] for types that lie in no device's memory, [`DeviceError::Internal`] when an input is
    /// missing.
    pub(crate) fn new(
        core: &Arc<Core>,
        graph: &Arc<Graph>,
        ids: &[FragmentId],
        inputs: &Inputs,
        outputs: &[Option<Output>],
    ) -> Result<Self, DeviceError> {
        let scans = scan_tables(graph, ids, inputs)?;
        let mut given = vec![None; graph.fragments.len()];
        for id in ids {
            let fragment = graph
                .fragments
                .get(*id)
                .ok_or_else(|| DeviceError::Internal(format!("the graph has no fragment {id}")))?;
            for read in fragment.inputs().into_iter().filter(|read| !ids.contains(read)) {
                if given[read].is_none() {
                    let output = outputs.get(read).and_then(Option::as_ref);
                    given[read] = Some(bind(core, graph, read, output)?);
                }
            }
        }
        Ok(Self {
            core: Arc::clone(core),
            graph: Arc::clone(graph),
            ids: ids.to_vec(),
            inputs: inputs.clone(),
            scans,
            streams: vec![None; graph.streams.len()],
            given,
            reserved: Vec::new(),
        })
    }

    /// Fails when the query was cancelled or the device is off.
    ///
    /// # Errors
    /// [`DeviceError::Cancelled`], [`DeviceError::Device`].
    pub(crate) fn check(&self) -> Result<(), DeviceError> {
        if self.inputs.cancelled.load(Ordering::SeqCst) {
            return Err(DeviceError::Cancelled);
        }
        self.core.check()
    }

    /// Streams that must be read first.
    pub(crate) fn streams(&self) -> Vec<(usize, Arc<dyn StreamInput>)> {
        let streams = self.inputs.streams.iter().enumerate();
        streams
            .filter(|(index, _)| reads(&self.graph, &self.ids, &Source::Stream(*index)))
            .map(|(index, stream)| (index, Arc::clone(stream)))
            .collect()
    }

    /// What a stream was read to, and the memory that it takes.
    ///
    /// # Errors
    /// As [`Task::new`].
    pub(crate) fn bind_stream(
        &mut self,
        index: usize,
        rows: Rows,
        reservation: Reservation,
    ) -> Result<(), DeviceError> {
        self.reserved.push(reservation);
        let fields = &self.graph.streams[index];
        let input = RowsInput::new(Arc::new(rows), fields);
        let used = used_of(&self.graph, &Source::Stream(index), fields.len());
        self.streams[index] = Some(Table {
            shape: scan_shape(&input, &used)?,
            input: Arc::new(input),
        });
        Ok(())
    }

    /// The segments that a fragment reads, if it reads segments.
    pub(crate) fn table(&self, id: FragmentId) -> Option<&Table> {
        match &self.graph.fragments[id].source {
            Source::Scan(index) => self.scans.get(*index),
            Source::Stream(index) => self.streams.get(*index)?.as_ref(),
            Source::Fragment(read) => match self.given.get(*read)? {
                Some(Given::Host(table)) => Some(table),
                _ => None,
            },
        }
    }

    /// All segments that fragments of this run read, each once.
    pub(crate) fn tables(&self) -> Vec<&Table> {
        self.sources()
            .into_iter()
            .filter_map(|(id, _)| self.table(id))
            .collect()
    }

    /// Position of a fragment's segments among [`Task::tables`].
    pub(crate) fn table_index(&self, id: FragmentId) -> Option<usize> {
        let source = &self.graph.fragments[id].source;
        self.sources().iter().position(|(_, other)| *other == source)
    }

    /// The sources that are segments, each with the first fragment that reads it.
    fn sources(&self) -> Vec<(FragmentId, &Source)> {
        let mut found: Vec<(FragmentId, &Source)> = Vec::new();
        for id in self.ids.iter().filter(|id| self.table(**id).is_some()) {
            let source = &self.graph.fragments[*id].source;
            if !found.iter().any(|(_, other)| *other == source) {
                found.push((*id, source));
            }
        }
        found
    }

    /// Memory of earlier runs that this one reads.
    pub(crate) fn held(&self) -> impl Iterator<Item = &Arc<Held>> {
        self.given.iter().flatten().filter_map(|given| match given {
            Given::Rows(rows) => Some(&rows.held),
            Given::Build(build) => Some(&build.held),
            Given::Host(_) => None,
        })
    }

    /// Keeps that memory in the device; none if there is no room for what was swapped out.
    ///
    /// # Errors
    /// When the driver refuses, or the device is lost.
    pub(crate) fn pin(&self) -> Result<Option<Vec<Pin>>, DeviceError> {
        self.held().map(Held::pin).collect()
    }

    /// The programs, in order.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] with the reason.
    pub(crate) fn lower(&self, hints: &[Hints]) -> Result<Vec<Arc<Lowered>>, DeviceError> {
        let scans: Vec<_> = self.scans.iter().map(|table| table.shape.clone()).collect();
        let streams: Vec<_> = self
            .streams
            .iter()
            .map(|table| table.as_ref().map(|table| table.shape.clone()))
            .collect();
        let mut outputs: Vec<_> = self.given.iter().map(|given| given.as_ref().map(input_of)).collect();
        let mut lineage: Lineage = vec![None; self.graph.fragments.len()];
        let mut programs = Vec::new();
        for (id, hints) in self.ids.iter().zip(hints) {
            let bound = Bound {
                scans: &scans,
                streams: &streams,
                outputs: &outputs,
                parameters: &self.inputs.parameters,
                host: &self.core.host,
                hints: *hints,
            };
            let target = self.core.driver.info().target;
            let lowered = self.core.programs.lower(&self.graph, *id, &bound, &lineage, target);
            match &lowered.program {
                Ok(program) => outputs[*id] = Some(output_of(program)),
                Err(reason) => return Err(DeviceError::Unsupported(reason.clone())),
            }
            lineage[*id] = Some(Arc::clone(&lowered));
            programs.push(lowered);
        }
        Ok(programs)
    }

    /// Fragments of this run whose outputs somebody else reads; one that runs alone always leaves its own.
    pub(crate) fn wanted(&self) -> Vec<bool> {
        let last = self.graph.fragments.len().saturating_sub(1);
        let read_outside = |id: FragmentId| {
            let others = self.graph.fragments.iter().enumerate();
            others
                .filter(|(other, _)| !self.ids.contains(other))
                .any(|(_, fragment)| fragment.inputs().contains(&id))
        };
        let alone = self.ids.len() == 1;
        let wanted = |id: &FragmentId| alone || *id == last || read_outside(*id);
        self.ids.iter().map(wanted).collect()
    }
}

fn input_of(given: &Given) -> Input {
    match given {
        Given::Rows(rows) => Input::Resident(rows.rows.clone()),
        Given::Build(build) => Input::Build(build.shape.clone()),
        Given::Host(table) => Input::Segments(table.shape.clone()),
    }
}

fn output_of(program: &Program) -> Input {
    match &program.output {
        ProgramOutput::Rows(rows) => Input::Resident(rows.clone()),
        ProgramOutput::Build(build) => Input::Build(build.clone()),
    }
}

fn bind(core: &Arc<Core>, graph: &Graph, id: FragmentId, output: Option<&Output>) -> Result<Given, DeviceError> {
    let foreign = || DeviceError::Internal(format!("fragment {id} left a build side of another device"));
    let rows = match output {
        None => return Err(DeviceError::Internal(format!("fragment {id} has not run"))),
        Some(Output::Many(_)) => return Err(DeviceError::Internal("outputs are given one by one".to_owned())),
        Some(Output::Build { table, .. }) => {
            let build = Arc::clone(table).downcast::<DeviceBuild>().map_err(|_| foreign())?;
            return if Arc::ptr_eq(&build.held.core, core) {
                Ok(Given::Build(build))
            } else {
                Err(foreign())
            };
        }
        Some(Output::Resident(resident)) => match Arc::clone(resident).as_any().downcast::<DeviceRows>() {
            Ok(rows) if Arc::ptr_eq(&rows.held.core, core) => return Ok(Given::Rows(rows)),
            _ => resident.download()?,
        },
        Some(Output::Rows(rows)) => Arc::clone(rows),
    };
    let fields = &graph.fragments[id].output;
    let input = RowsInput::new(rows, fields);
    let used = used_of(graph, &Source::Fragment(id), fields.len());
    Ok(Given::Host(Table {
        shape: scan_shape(&input, &used)?,
        input: Arc::new(input),
    }))
}

/// Whether each fragment can be lowered with these inputs; fragments of `foreign` run elsewhere.
pub(crate) fn support(core: &Core, graph: &Arc<Graph>, inputs: &Inputs) -> Vec<Support> {
    let count = graph.fragments.len();
    let mut reasons: Vec<Option<String>> = vec![None; count];
    // A build and its probes run on one device: what rules out one rules out the others, until nothing changes.
    loop {
        let before = reasons.clone();
        lower_all(core, graph, inputs, &mut reasons);
        for (id, fragment) in graph.fragments.iter().enumerate() {
            for read in fragment.inputs() {
                if !matches!(graph.fragments[read].sink, Sink::Build(_)) {
                    continue;
                }
                match (reasons[id].clone(), reasons[read].clone()) {
                    (Some(_), None) => reasons[read] = Some(format!("fragment {id}, which probes it, runs elsewhere")),
                    (None, Some(_)) => reasons[id] = Some(format!("fragment {read}, which it probes, runs elsewhere")),
                    _ => {}
                }
            }
        }
        if reasons == before {
            break;
        }
    }
    let answer = |reason: Option<String>| match reason {
        None => Support::Supported,
        Some(reason) => Support::Unsupported { reason },
    };
    reasons.into_iter().map(answer).collect()
}

/// The programs of the fragments that can be lowered with these inputs.
pub(crate) fn programs(core: &Core, graph: &Arc<Graph>, inputs: &Inputs) -> Vec<Arc<Lowered>> {
    let mut reasons = vec![None; graph.fragments.len()];
    lower_all(core, graph, inputs, &mut reasons)
        .into_iter()
        .flatten()
        .collect()
}

fn lower_all(core: &Core, graph: &Arc<Graph>, inputs: &Inputs, reasons: &mut [Option<String>]) -> Lineage {
    let ids: Vec<_> = (0..graph.fragments.len()).filter(|id| reasons[*id].is_none()).collect();
    let scans: Vec<_> = inputs
        .scans
        .iter()
        .enumerate()
        .map(|(index, input)| {
            let used = used_of(graph, &Source::Scan(index), input.columns().len());
            scan_shape(input.as_ref(), &used)
        })
        .collect();
    let none = ScanShape::default();
    let shapes: Vec<_> = scans
        .iter()
        .map(|shape| shape.as_ref().unwrap_or(&none).clone())
        .collect();
    let streams: Vec<_> = graph
        .streams
        .iter()
        .enumerate()
        .map(|(index, fields)| field_shapes(fields, &used_of(graph, &Source::Stream(index), fields.len()), None))
        .collect();
    let stream_shapes: Vec<_> = streams.iter().map(|shape| shape.as_ref().ok().cloned()).collect();
    let mut outputs: Vec<Option<Input>> = vec![None; graph.fragments.len()];
    let mut lineage: Lineage = vec![None; graph.fragments.len()];
    for (id, fragment) in graph.fragments.iter().enumerate() {
        let elsewhere = || {
            let used = used_of(graph, &Source::Fragment(id), fragment.output.len());
            field_shapes(&fragment.output, &used, None).ok().map(Input::Segments)
        };
        if !ids.contains(&id) {
            outputs[id] = elsewhere();
            continue;
        }
        let source = match &fragment.source {
            Source::Scan(index) => scans.get(*index).and_then(|shape| shape.as_ref().err()),
            Source::Stream(index) => streams.get(*index).and_then(|shape| shape.as_ref().err()),
            Source::Fragment(_) => None,
        };
        let bound = Bound {
            scans: &shapes,
            streams: &stream_shapes,
            outputs: &outputs,
            parameters: &inputs.parameters,
            host: &core.host,
            hints: core.hints(graph, id),
        };
        let lowered = match (source, fragment.inputs().iter().find(|read| outputs[**read].is_none())) {
            (Some(error), _) => Err(error.to_string()),
            (None, Some(read)) => Err(format!("fragment {read} leaves what can't be read here")),
            (None, None) => {
                let target = core.driver.info().target;
                let lowered = core.programs.lower(graph, id, &bound, &lineage, target);
                let answer = lowered.program.as_ref().map(output_of).map_err(Clone::clone);
                lineage[id] = Some(lowered);
                answer
            }
        };
        match lowered {
            Ok(output) => outputs[id] = Some(output),
            Err(reason) => {
                lineage[id] = None;
                reasons[id] = Some(reason);
                outputs[id] = elsewhere();
            }
        }
    }
    lineage
}
