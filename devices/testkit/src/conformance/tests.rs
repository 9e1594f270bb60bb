//! The kit judges itself: a variant that is the interpreter passes, and ones that are wrong in one thing are caught.

use std::sync::{Arc, Mutex};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use trireme_device_api::{
    BinaryOperator, Cost, DeviceError, Expr, FragmentId, Graph, Inputs, JoinKind, Kernel, Node, Output, Progress,
    Reservation, Rows, ScanInput, Sink, Step, StreamPoll, Support, Value, Variant, Workload,
};

use super::{Extent, Summary, check, matrix};

use crate::arrays::{batch_of, rows_of};
use crate::generate::Case;
use crate::inputs::{Layout, MemoryScan};
use crate::interpreter::{Data, interpret};
use crate::values::{Row, value_of};

/// The interpreter as a variant, with something wrong in it.
#[derive(Default, Clone, Copy)]
struct Mutant {
    graph: Option<fn(&mut Graph)>,
    data: Option<fn(&mut Data)>,
    rows: Option<fn(&mut Vec<Row>)>,
    swallows_errors: bool,
    leaks: bool,
    panics: bool,
    claims_no_nulls: bool,
}

struct Interpreting {
    mutant: Mutant,
    graph: Arc<Graph>,
    fragment: FragmentId,
    inputs: Inputs,
    streams: Mutex<Vec<Vec<Row>>>,
    _reservation: Reservation,
}

impl Variant for Mutant {
    fn name(&self) -> &'static str {
        "interpreter"
    }

    fn device(&self) -> &str {
        "test0"
    }

    fn support(&self, _graph: &Graph, _fragment: FragmentId) -> Support {
        Support::Supported
    }

    fn estimate(&self, _graph: &Graph, _fragment: FragmentId, _workload: &Workload) -> Cost {
        Cost::default()
    }

    fn prepare(
        &self,
        graph: &Arc<Graph>,
        fragment: FragmentId,
        inputs: &Inputs,
        _outputs: &[Option<Output>],
    ) -> Result<Arc<dyn Kernel>, DeviceError> {
        let mut reservation = Reservation::new(&inputs.pool);
        reservation.grow(100)?;
        if self.leaks {
            inputs.pool.reserve(1)?;
        }
        Ok(Arc::new(Interpreting {
            mutant: *self,
            graph: Arc::clone(graph),
            fragment,
            inputs: inputs.clone(),
            streams: Mutex::new(vec![Vec::new(); graph.streams.len()]),
            _reservation: reservation,
        }))
    }
}

fn rows_of_scan(scan: &dyn ScanInput) -> Vec<Row> {
    let mut rows = Vec::new();
    for segment in 0..scan.segments() {
        let columns: Vec<_> = (0..scan.columns().len())
            .map(|c| scan.load(segment, c).unwrap())
            .collect();
        for row in 0..scan.rows(segment) {
            rows.push(columns.iter().map(|column| value_of(column, row).unwrap()).collect());
        }
    }
    rows
}

impl Interpreting {
    fn is_last(&self) -> bool {
        self.fragment + 1 == self.graph.fragments.len()
    }
}

impl Kernel for Interpreting {
    fn step(&self, _worker: usize) -> Result<Progress, DeviceError> {
        let mut streams = self.streams.lock().unwrap();
        if !self.is_last() {
            return Ok(Progress::Done);
        }
        for (index, stream) in self.inputs.streams.iter().enumerate() {
            match stream.poll()? {
                StreamPoll::Batch(batch) => {
                    streams[index].extend(rows_of(&batch, &self.graph.streams[index])?);
                    return Ok(Progress::More);
                }
                StreamPoll::Waiting => return Ok(Progress::Waiting),
                StreamPoll::End => {}
            }
        }
        Ok(Progress::Done)
    }

    fn finish(&self) -> Result<Output, DeviceError> {
        if !self.is_last() {
            return Ok(match self.graph.fragments[self.fragment].sink {
                Sink::Build(_) => Output::Build {
                    table: Arc::new(()),
                    rows: 0,
                },
                _ => Output::Rows(Arc::default()),
            });
        }
        assert!(!self.mutant.panics, "on purpose");
        let mut data = Data {
            scans: self
                .inputs
                .scans
                .iter()
                .map(|scan| rows_of_scan(scan.as_ref()))
                .collect(),
            streams: self.streams.lock().unwrap().clone(),
            parameters: self.inputs.parameters.clone(),
        };
        let mut graph = Graph::clone(&self.graph);
        if let Some(mutate) = self.mutant.graph {
            mutate(&mut graph);
        }
        if let Some(mutate) = self.mutant.data {
            mutate(&mut data);
        }
        let mut rows = match interpret(&graph, &data) {
            Err(_) if self.mutant.swallows_errors => Vec::new(),
            answer => answer?.rows,
        };
        if let Some(mutate) = self.mutant.rows {
            mutate(&mut rows);
        }
        if let Some(emit) = &self.inputs.emit {
            emit.push(batch_of(&rows, &self.graph.output)?);
            return Ok(Output::Rows(Arc::default()));
        }
        let mut rng = SmallRng::seed_from_u64(rows.len().try_into().unwrap());
        let scan = MemoryScan::new(&self.graph.output, &rows, &Layout::default(), &mut rng)?;
        let segments = (0..scan.segments()).map(|segment| {
            let columns = (0..self.graph.output.len()).map(|column| {
                let column = scan.load(segment, column).unwrap();
                let mut column = trireme_device_api::DeviceColumn::clone(&column);
                if self.mutant.claims_no_nulls && !matches!(column.values, trireme_device_api::Values::Nulls) {
                    column.validity = None;
                }
                Arc::new(column)
            });
            (scan.rows(segment), columns.collect())
        });
        let segments = segments.collect();
        Ok(Output::Rows(Arc::new(Rows {
            segments,
            held: Vec::new(),
        })))
    }
}

#[test]
fn the_interpreter_conforms() {
    let summary: Summary = check(&Mutant::default(), 1, 600).unwrap();
    println!("{summary}");
    assert!(summary.rows > 300, "{summary}");
    assert!(summary.errors > 5 && summary.unjudged < 60, "{summary}");
    let summary = matrix(&Mutant::default(), Extent::Quick).unwrap();
    println!("{summary}");
}

/// Changes each expression of a graph.
fn each_expr(graph: &mut Graph, change: fn(&mut Expr)) {
    fn walk(expr: &mut Expr, change: fn(&mut Expr)) {
        change(expr);
        for child in expr.children_mut() {
            walk(child, change);
        }
    }
    for fragment in &mut graph.fragments {
        for root in super::shrink::roots(fragment) {
            walk(root, change);
        }
    }
}

fn each_probe(graph: &mut Graph, change: fn(&mut trireme_device_api::Probe)) {
    for step in graph.fragments.iter_mut().flat_map(|fragment| &mut fragment.steps) {
        if let Step::Probe(probe) = step {
            change(probe);
        }
    }
}

fn each_aggregate(graph: &mut Graph, change: fn(&mut trireme_device_api::Aggregate)) {
    for fragment in &mut graph.fragments {
        if let Sink::Aggregate { aggregates, .. } = &mut fragment.sink {
            aggregates.iter_mut().for_each(change);
        }
    }
}

fn swap(op: BinaryOperator) -> BinaryOperator {
    match op {
        BinaryOperator::Less => BinaryOperator::LessOrEqual,
        other => other,
    }
}

fn with_graph(graph: fn(&mut Graph)) -> Mutant {
    Mutant {
        graph: Some(graph),
        ..Mutant::default()
    }
}

fn with_rows(rows: fn(&mut Vec<Row>)) -> Mutant {
    Mutant {
        rows: Some(rows),
        ..Mutant::default()
    }
}

fn wrong_in_rows() -> Vec<(&'static str, Mutant)> {
    vec![
        ("loses a row", with_rows(|rows| drop(rows.pop()))),
        ("repeats a row", with_rows(|rows| rows.extend(rows.first().cloned()))),
        ("reverses", with_rows(|rows| rows.reverse())),
        (
            "a NULL becomes another value",
            with_rows(|rows| {
                for value in rows.iter_mut().flatten() {
                    if *value == Value::Boolean(false) {
                        *value = Value::Null;
                    }
                }
            }),
        ),
        (
            "< is <=",
            with_graph(|graph| {
                each_expr(graph, |expr| {
                    if let Node::Binary { op, .. } = &mut expr.node {
                        *op = swap(*op);
                    }
                });
            }),
        ),
        (
            "LIKE is ILIKE",
            with_graph(|graph| {
                each_expr(graph, |expr| {
                    if let Node::Like { case_insensitive, .. } = &mut expr.node {
                        *case_insensitive = true;
                    }
                });
            }),
        ),
        (
            "swallows errors",
            Mutant {
                swallows_errors: true,
                ..Mutant::default()
            },
        ),
        (
            "leaks",
            Mutant {
                leaks: true,
                ..Mutant::default()
            },
        ),
        (
            "panics",
            Mutant {
                panics: true,
                ..Mutant::default()
            },
        ),
        (
            "claims that nothing is NULL",
            Mutant {
                claims_no_nulls: true,
                ..Mutant::default()
            },
        ),
        (
            "loses the last row of a table",
            Mutant {
                data: Some(|data| data.scans.iter_mut().for_each(|rows| drop(rows.pop()))),
                ..Mutant::default()
            },
        ),
    ]
}

fn wrong_in_joins_and_aggregates() -> Vec<(&'static str, Mutant)> {
    vec![
        (
            "left is inner",
            with_graph(|graph| {
                each_probe(graph, |probe| {
                    if probe.kind == JoinKind::Left {
                        probe.kind = JoinKind::Inner;
                    }
                });
            }),
        ),
        (
            "NULL keys match",
            with_graph(|graph| each_probe(graph, |probe| probe.null_equals_null = true)),
        ),
        (
            "NOT IN is not null-aware",
            with_graph(|graph| each_probe(graph, |probe| probe.null_aware = false)),
        ),
        (
            "no residual",
            with_graph(|graph| each_probe(graph, |probe| probe.residual = None)),
        ),
        (
            "no distinct",
            with_graph(|graph| each_aggregate(graph, |aggregate| aggregate.distinct = false)),
        ),
        (
            "no FILTER",
            with_graph(|graph| each_aggregate(graph, |aggregate| aggregate.filter = None)),
        ),
        (
            "first in another order",
            with_graph(|graph| {
                each_aggregate(graph, |aggregate| {
                    for key in &mut aggregate.order {
                        key.descending = !key.descending;
                    }
                });
            }),
        ),
    ]
}

#[test]
fn mutants_are_caught() {
    let cases: Vec<Case> = (0..300).map(super::generate::graph).collect();
    for (name, mutant) in wrong_in_rows().into_iter().chain(wrong_in_joins_and_aggregates()) {
        let random = || cases.iter().find_map(|case| super::judge(&mutant, case).err());
        let systematic = || super::matrix::some(&mut |case| super::judge(&mutant, &case).map(drop)).err();
        let found = random().or_else(systematic);
        assert!(found.is_some(), "{name} was not caught");
    }
}

#[test]
fn a_mismatch_is_reported_small() {
    let mutant = Mutant {
        graph: Some(|graph| {
            each_expr(graph, |expr| {
                if let Node::Binary { op, .. } = &mut expr.node {
                    *op = swap(*op);
                }
            });
        }),
        ..Mutant::default()
    };
    let mismatch = check(&mutant, 1, 3_000).unwrap_err();
    println!("{mismatch}");
    let rows: usize = mismatch
        .case
        .data
        .scans
        .iter()
        .chain(&mismatch.case.data.streams)
        .map(Vec::len)
        .sum();
    assert!(rows <= 4, "{mismatch}");
    assert!(mismatch.to_string().contains(" < "), "{mismatch}");
}
