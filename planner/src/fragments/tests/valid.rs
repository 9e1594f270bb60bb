//! Checks a graph against its own rules: positions in range, types that fit, fragments that read only earlier ones.

use arrow::datatypes::Schema;
use trireme_device_api::{
    BinaryOperator, Expr, Field, Fragment, Graph, JoinKind, Node, Sink, SortKey, Source, Step, Type,
};

/// Panics at the first rule that is broken.
pub(super) fn check(graph: &Graph, schema: &Schema) {
    let mut read = vec![false; graph.fragments.len()];
    for (id, fragment) in graph.fragments.iter().enumerate() {
        for input in fragment.inputs() {
            assert!(input < id, "fragment {id} reads {input}");
            read[input] = true;
        }
        fragment_is_valid(graph, fragment);
    }
    let last = read.pop();
    assert_eq!(last, Some(false));
    assert!(read.iter().all(|read| *read), "a fragment that nobody reads");
    let last = graph.fragments.last().unwrap();
    assert!(!matches!(last.sink, Sink::Build(_)));
    assert_eq!(graph.output.len(), schema.fields().len());
    // Columns that were only sorted by may stand behind.
    let sorted = matches!(last.sink, Sink::Sort { .. });
    assert!(last.output.len() == graph.output.len() || sorted && last.output.len() > graph.output.len());
    for ((given, promised), field) in last.output.iter().zip(&graph.output).zip(schema.fields()) {
        assert_eq!(given.data_type, promised.data_type);
        assert_eq!(&promised.data_type.to_arrow(), field.data_type());
        assert_eq!(&promised.name, field.name());
    }
}

fn types(fields: &[Field]) -> Vec<Type> {
    fields.iter().map(|field| field.data_type.clone()).collect()
}

fn fragment_is_valid(graph: &Graph, fragment: &Fragment) {
    let mut row = match &fragment.source {
        Source::Scan(scan) => types(&graph.scans[*scan].columns),
        Source::Stream(stream) => types(&graph.streams[*stream]),
        Source::Fragment(id) => {
            assert!(!matches!(graph.fragments[*id].sink, Sink::Build(_)));
            types(&graph.fragments[*id].output)
        }
    };
    for step in &fragment.steps {
        match step {
            Step::Filter(predicate) => boolean(predicate, &row),
            Step::Project(exprs) => row = exprs.iter().map(|expr| typed(expr, &row)).collect(),
            Step::Probe(probe) => {
                let build = &graph.fragments[probe.build];
                let Sink::Build(side) = &build.sink else {
                    panic!("probe of rows")
                };
                assert_eq!(probe.keys.len(), side.keys.len());
                for (left, right) in probe.keys.iter().zip(&side.keys) {
                    assert_eq!(typed(left, &row), right.data_type);
                }
                let payload = types(&build.output);
                let both: Vec<_> = row.iter().chain(&payload).cloned().collect();
                if let Some(residual) = &probe.residual {
                    boolean(residual, &both);
                }
                row = match probe.kind {
                    JoinKind::Inner | JoinKind::Left | JoinKind::BuildOuter | JoinKind::Full => both,
                    JoinKind::Semi | JoinKind::Anti => row,
                    JoinKind::Mark => row.into_iter().chain([Type::Boolean]).collect(),
                    JoinKind::BuildSemi | JoinKind::BuildAnti => payload,
                };
            }
        }
    }
    let output = match &fragment.sink {
        Sink::Aggregate { groups, aggregates } => {
            for aggregate in aggregates {
                if let Some(filter) = &aggregate.filter {
                    boolean(filter, &row);
                }
                keys(&aggregate.order, &row);
            }
            let of_groups = groups.iter().map(|expr| typed(expr, &row));
            let arguments = aggregates.iter().map(|aggregate| {
                if let Some(argument) = &aggregate.argument {
                    typed(argument, &row);
                }
                aggregate.data_type.clone()
            });
            of_groups.chain(arguments).collect()
        }
        Sink::Build(side) => {
            side.keys.iter().for_each(|key| drop(typed(key, &row)));
            side.payload.iter().map(|expr| typed(expr, &row)).collect()
        }
        Sink::Sort { keys: order, .. } => {
            keys(order, &row);
            row
        }
        Sink::Emit { .. } => row,
    };
    assert_eq!(output, types(&fragment.output));
}

fn keys(keys: &[SortKey], row: &[Type]) {
    for key in keys {
        typed(&key.expr, row);
    }
}

fn boolean(expr: &Expr, row: &[Type]) {
    assert_eq!(typed(expr, row), Type::Boolean);
}

/// The expression's type, after checking all of it.
fn typed(expr: &Expr, row: &[Type]) -> Type {
    let below: Vec<_> = expr.children().into_iter().map(|child| typed(child, row)).collect();
    let own = &expr.data_type;
    match &expr.node {
        Node::Column(index) => assert_eq!(&row[*index], own),
        Node::Binary { op, .. } => match op {
            BinaryOperator::And | BinaryOperator::Or => assert!(below.iter().all(|child| *child == Type::Boolean)),
            BinaryOperator::Equal
            | BinaryOperator::NotEqual
            | BinaryOperator::Less
            | BinaryOperator::LessOrEqual
            | BinaryOperator::Greater
            | BinaryOperator::GreaterOrEqual
            | BinaryOperator::Distinct
            | BinaryOperator::NotDistinct => {
                assert_eq!(*own, Type::Boolean);
                assert_eq!(below[0].is_text(), below[1].is_text());
            }
            _ => {}
        },
        Node::Not(_) | Node::IsNull(_) | Node::IsNotNull(_) | Node::InList { .. } | Node::Like { .. } => {
            assert_eq!(*own, Type::Boolean);
        }
        Node::Case { branches, otherwise } => {
            for (when, then) in branches {
                assert_eq!(when.data_type, Type::Boolean);
                assert!(then.data_type == *own || then.data_type == Type::Null, "{expr:?}");
            }
            if let Some(otherwise) = otherwise {
                assert!(otherwise.data_type == *own || otherwise.data_type == Type::Null);
            }
        }
        Node::Host { function, .. } => assert!(function.implementation.is_some()),
        _ => {}
    }
    own.clone()
}
