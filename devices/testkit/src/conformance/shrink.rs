//! Makes a failing case small: fewer rows, fewer steps, smaller expressions, plainer values, as long as it still fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use trireme_device_api::{
    DeviceError, Expr, Fragment, Graph, JoinKind, Node, Sink, Source, Step, Type, Value, Variant,
};

use super::{Mismatch, judge};
use crate::generate::{Case, field};
use crate::interpreter::Data;
use crate::values::Row;

/// No shrinking after this.
const PATIENCE: Duration = Duration::from_secs(60);

/// The smallest case found that fails in the same kind of way.
pub(super) fn shrink(variant: &dyn Variant, mismatch: Box<Mismatch>) -> Box<Mismatch> {
    if matches!(
        mismatch.expected,
        Err(DeviceError::OutOfMemory(_) | DeviceError::Cancelled)
    ) {
        // Not a matter of values.
        return mismatch;
    }
    let deadline = Instant::now() + PATIENCE;
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut best = mismatch;
    let kind = kind_of(&best);
    loop {
        let mut improved = false;
        for transform in [fewer_rows, simpler_graphs, simpler_expressions, simpler_values] {
            while let Some(better) = first_failing(variant, transform(&best.case), &kind, deadline) {
                best = better;
                improved = true;
            }
        }
        if !improved || Instant::now() > deadline {
            break;
        }
    }
    std::panic::set_hook(hook);
    best
}

/// Panics, errors and wrong rows are different faults.
fn kind_of(mismatch: &Mismatch) -> (bool, bool, bool) {
    (
        mismatch.actual.is_none(),
        matches!(mismatch.actual, Some(Err(_))),
        mismatch.expected.is_err(),
    )
}

fn first_failing(
    variant: &dyn Variant,
    candidates: Vec<Case>,
    kind: &(bool, bool, bool),
    deadline: Instant,
) -> Option<Box<Mismatch>> {
    for candidate in candidates {
        if Instant::now() > deadline {
            return None;
        }
        for layout in 0..3_u64 {
            let mut candidate = candidate.clone();
            candidate.seed = candidate.seed.wrapping_add(layout * 7);
            if let Err(mismatch) = judge(variant, &candidate)
                && kind_of(&mismatch) == *kind
            {
                return Some(mismatch);
            }
        }
    }
    None
}

fn tables(data: &Data) -> usize {
    data.scans.len() + data.streams.len()
}

fn table_mut(data: &mut Data, index: usize) -> &mut Vec<Row> {
    let scans = data.scans.len();
    if index < scans {
        &mut data.scans[index]
    } else {
        &mut data.streams[index - scans]
    }
}

/// Without a half, a quarter … one of a table's rows.
fn fewer_rows(case: &Case) -> Vec<Case> {
    let mut cases = Vec::new();
    for index in 0..tables(&case.data) {
        let rows = table_mut(&mut case.data.clone(), index).len();
        let mut chunk = rows.div_ceil(2);
        while chunk > 0 && cases.len() < 300 {
            for start in (0..rows).step_by(chunk).take(64) {
                let mut smaller = case.clone();
                table_mut(&mut smaller.data, index).drain(start..(start + chunk).min(rows));
                cases.push(smaller);
            }
            chunk = if chunk == 1 { 0 } else { chunk.div_ceil(2) };
        }
    }
    cases
}

fn with_graph(case: &Case, change: impl FnOnce(&mut Graph)) -> Case {
    let mut graph = Graph::clone(&case.graph);
    change(&mut graph);
    if let Some(last) = graph.fragments.last() {
        graph.output = last.output.clone();
    }
    Case {
        graph: Arc::new(graph),
        ..case.clone()
    }
}

/// The types of the row after the first `steps` steps.
fn types_after(graph: &Graph, fragment: &Fragment, steps: usize) -> Vec<Type> {
    let of_fields = |fields: &[trireme_device_api::Field]| fields.iter().map(|field| field.data_type.clone()).collect();
    let mut types: Vec<Type> = match fragment.source {
        Source::Scan(index) => of_fields(&graph.scans[index].columns),
        Source::Stream(index) => of_fields(&graph.streams[index]),
        Source::Fragment(id) => of_fields(&graph.fragments[id].output),
    };
    for step in &fragment.steps[..steps] {
        match step {
            Step::Filter(_) => {}
            Step::Project(exprs) => types = exprs.iter().map(|expr| expr.data_type.clone()).collect(),
            Step::Probe(probe) => {
                let build: Vec<Type> = of_fields(&graph.fragments[probe.build].output);
                match probe.kind {
                    JoinKind::Inner | JoinKind::Left | JoinKind::BuildOuter | JoinKind::Full => types.extend(build),
                    JoinKind::Semi | JoinKind::Anti => {}
                    JoinKind::Mark => types.push(Type::Boolean),
                    JoinKind::BuildSemi | JoinKind::BuildAnti => types = build,
                }
            }
        }
    }
    types
}

/// With fewer fragments, steps, keys and aggregates.
fn simpler_graphs(case: &Case) -> Vec<Case> {
    let graph = &case.graph;
    let mut cases = Vec::new();
    if graph.fragments.len() > 1 {
        cases.extend(without_last(case));
        cases.extend(without_unused(case));
    }
    for (id, fragment) in graph.fragments.iter().enumerate() {
        for (index, step) in fragment.steps.iter().enumerate() {
            let removable = match step {
                Step::Filter(_) => true,
                Step::Project(_) => false,
                Step::Probe(probe) => matches!(probe.kind, JoinKind::Semi | JoinKind::Anti),
            };
            if removable {
                cases.push(with_graph(case, |graph| {
                    graph.fragments[id].steps.remove(index);
                }));
            }
            if let Step::Probe(probe) = step
                && probe.residual.is_some()
            {
                cases.push(with_graph(case, |graph| {
                    if let Step::Probe(probe) = &mut graph.fragments[id].steps[index] {
                        probe.residual = None;
                    }
                }));
            }
        }
    }
    cases.extend(simpler_last(case));
    cases
}

/// The last fragment's sink with fewer parts, or as an emit after fewer steps.
fn simpler_last(case: &Case) -> Vec<Case> {
    let mut cases = Vec::new();
    let graph = &case.graph;
    let (Some(last), id) = (graph.fragments.last(), graph.fragments.len().saturating_sub(1)) else {
        return cases;
    };
    for steps in 0..=last.steps.len() {
        let plain = Sink::Emit { limit: None, offset: 0 };
        if steps == last.steps.len() && last.sink == plain {
            continue;
        }
        let types = types_after(graph, last, steps);
        cases.push(with_graph(case, |graph| {
            let last = &mut graph.fragments[id];
            last.steps.truncate(steps);
            last.sink = plain;
            last.output = types
                .into_iter()
                .enumerate()
                .map(|(i, data_type)| field(&format!("o{i}"), data_type))
                .collect();
        }));
    }
    let parts = match &last.sink {
        Sink::Aggregate { groups, aggregates } if groups.len() + aggregates.len() > 1 => {
            groups.len() + aggregates.len()
        }
        Sink::Sort { keys, .. } if keys.len() > 1 => keys.len(),
        _ => 0,
    };
    for part in 0..parts {
        cases.push(with_graph(case, |graph| remove_part(&mut graph.fragments[id], part)));
    }
    cases
}

fn remove_part(fragment: &mut Fragment, part: usize) {
    match &mut fragment.sink {
        Sink::Aggregate { groups, aggregates } => {
            fragment.output.remove(part);
            if part < groups.len() {
                groups.remove(part);
            } else {
                aggregates.remove(part - groups.len());
            }
        }
        Sink::Sort { keys, .. } => {
            keys.remove(part);
        }
        _ => {}
    }
}

/// The graph up to the fragment before the last, if that leaves rows.
fn without_last(case: &Case) -> Option<Case> {
    let before = &case.graph.fragments[case.graph.fragments.len() - 2];
    (!matches!(before.sink, Sink::Build(_))).then(|| {
        with_graph(case, |graph| {
            graph.fragments.pop();
        })
    })
}

/// Without a fragment that none reads.
fn without_unused(case: &Case) -> Option<Case> {
    let fragments = &case.graph.fragments;
    let used: Vec<usize> = fragments.iter().flat_map(Fragment::inputs).collect();
    let unused = (0..fragments.len() - 1).find(|id| !used.contains(id))?;
    Some(with_graph(case, |graph| {
        graph.fragments.remove(unused);
        let renumber = |id: &mut usize| *id -= usize::from(*id > unused);
        for fragment in &mut graph.fragments {
            if let Source::Fragment(id) = &mut fragment.source {
                renumber(id);
            }
            for step in &mut fragment.steps {
                if let Step::Probe(probe) = step {
                    renumber(&mut probe.build);
                }
            }
        }
    }))
}

/// All expressions that stand in a fragment directly.
pub(super) fn roots(fragment: &mut Fragment) -> Vec<&mut Expr> {
    let mut roots: Vec<&mut Expr> = Vec::new();
    for step in &mut fragment.steps {
        match step {
            Step::Filter(predicate) => roots.push(predicate),
            Step::Project(exprs) => roots.extend(exprs),
            Step::Probe(probe) => roots.extend(probe.keys.iter_mut().chain(&mut probe.residual)),
        }
    }
    match &mut fragment.sink {
        Sink::Aggregate { groups, aggregates } => {
            roots.extend(groups);
            for aggregate in aggregates {
                roots.extend(aggregate.argument.iter_mut().chain(&mut aggregate.filter));
            }
        }
        Sink::Build(side) => roots.extend(side.keys.iter_mut().chain(&mut side.payload)),
        Sink::Sort { keys, .. } => roots.extend(keys.iter_mut().map(|key| &mut key.expr)),
        Sink::Emit { .. } => {}
    }
    roots
}

/// Calls `see` with each expression that isn't a leaf, at any depth.
fn visit(expr: &mut Expr, see: &mut dyn FnMut(&mut Expr)) {
    for child in expr.children_mut() {
        visit(child, see);
    }
    if !matches!(expr.node, Node::Column(_) | Node::Literal(_)) {
        see(expr);
    }
}

/// Each with one expression replaced by one of its operands, by NULL or by a plain literal.
fn simpler_expressions(case: &Case) -> Vec<Case> {
    let mut replacements: Vec<(usize, usize, Expr)> = Vec::new();
    let mut graph = Graph::clone(&case.graph);
    for (id, fragment) in graph.fragments.iter_mut().enumerate() {
        let mut position = 0;
        for root in roots(fragment) {
            visit(root, &mut |expr| {
                let operands = expr
                    .children()
                    .into_iter()
                    .filter(|child| child.data_type == expr.data_type);
                let mut simpler: Vec<Expr> = operands.cloned().collect();
                simpler.push(plain(&expr.data_type));
                if let Node::Parameter(index) = expr.node
                    && let Some(value) = case.data.parameters.get(index)
                {
                    simpler = vec![Expr::literal(value.clone(), expr.data_type.clone())];
                }
                replacements.extend(simpler.into_iter().map(|expr| (id, position, expr)));
                position += 1;
            });
        }
    }
    let replace = |(id, wanted, with): (usize, usize, Expr)| {
        with_graph(case, |graph| {
            let mut position = 0;
            for root in roots(&mut graph.fragments[id]) {
                visit(root, &mut |expr| {
                    if position == wanted {
                        *expr = with.clone();
                    }
                    position += 1;
                });
            }
        })
    };
    replacements.into_iter().map(replace).collect()
}

fn plain(data_type: &Type) -> Expr {
    let value = plain_value(data_type);
    Expr::literal(value, data_type.clone())
}

fn plain_value(data_type: &Type) -> Value {
    match data_type {
        Type::Boolean => Value::Boolean(true),
        Type::Float32 | Type::Float64 => Value::Float(1.0),
        Type::Interval(_) | Type::Null => Value::Null,
        bytes if bytes.is_bytes() => Value::Bytes(b"a".as_slice().into()),
        _ => Value::Int(1),
    }
}

/// With one value of a small table replaced by a plain one.
fn simpler_values(case: &Case) -> Vec<Case> {
    let mut cases = Vec::new();
    let graph = &case.graph;
    let fields = graph.scans.iter().map(|source| &source.columns).chain(&graph.streams);
    for (index, fields) in fields.enumerate() {
        let rows = table_mut(&mut case.data.clone(), index).clone();
        for (row, values) in rows.iter().enumerate().take(12) {
            for (column, value) in values.iter().enumerate() {
                let plain = plain_value(&fields[column].data_type);
                if *value != plain && *value != Value::Null && plain != Value::Null && cases.len() < 200 {
                    let mut simpler = case.clone();
                    table_mut(&mut simpler.data, index)[row][column] = plain;
                    cases.push(simpler);
                }
            }
        }
    }
    cases
}
