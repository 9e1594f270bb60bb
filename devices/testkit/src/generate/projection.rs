//! One fragment that projects many expressions: for devices that take long to compile, however little.

use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use trireme_device_api::{
    Expr, Fragment, Function, GRAPH_VERSION, Graph, Node, ScanSource, Sink, Source, Step, Type, Value,
};

use super::data::{Flavor, Nulls, all_types, column};
use super::expr::expression;
use super::{Case, Column, field};
use crate::inputs::Segmentation;
use crate::interpreter::{Data, evaluate};
use crate::values::Row;

/// Expressions that are drawn, for each that is wanted, before there are too few.
const DRAWS: usize = 20;

/// Whether devices that can't make strings take an expression (if they take its operators at all) whether or not its strings
/// have dictionaries.
pub fn needs_no_dictionary(expr: &Expr) -> bool {
    let mut plain = true;
    expr.visit(&mut |expr| {
        plain &= match &expr.node {
            Node::Host { .. }
            | Node::Like {
                case_insensitive: true, ..
            } => false,
            Node::Cast { expr: operand, .. } => operand.data_type.is_bytes() == expr.data_type.is_bytes(),
            Node::Function { function, args } => match function {
                Function::Upper | Function::Lower | Function::Concat | Function::Append => false,
                _ => args[1..].iter().all(|arg| matches!(arg.node, Node::Literal(_))),
            },
            _ => true,
        };
    });
    plain
}

/// A table, and `count` expressions over it that `fits` takes and that fail for no row.
pub fn projection(seed: u64, count: usize, fits: &dyn Fn(&Expr) -> bool) -> Case {
    let mut rng = SmallRng::seed_from_u64(seed);
    let types: Vec<Type> = all_types()
        .into_iter()
        .filter(|data_type| !matches!(data_type, Type::Interval(_) | Type::Null))
        .collect();
    let rows = rng.random_range(20..80);
    let mut columns = Vec::new();
    let mut values = Vec::new();
    for _ in 0..8 {
        let data_type = types[rng.random_range(0..types.len())].clone();
        let nulls = Nulls::ALL[rng.random_range(0..3)];
        values.push(column(&data_type, rows, nulls, Flavor::draw(&mut rng), &mut rng));
        columns.push(Column::new("c", data_type));
    }
    let table: Vec<Row> = (0..rows)
        .map(|row| values.iter().map(|column| column[row].clone()).collect())
        .collect();
    let mut parameters: Vec<(Type, Value)> = Vec::new();
    let mut exprs: Vec<Expr> = Vec::new();
    for _ in 0..count * DRAWS {
        let known = parameters.len();
        let depth = rng.random_range(1..4);
        let expr = expression(None, &columns, depth, &mut parameters, &mut rng);
        let constants: Vec<Value> = parameters.iter().map(|(_, value)| value.clone()).collect();
        let usual = !matches!(expr.data_type, Type::Interval(_) | Type::Null);
        if usual && fits(&expr) && table.iter().all(|row| evaluate(&expr, row, &constants).is_ok()) {
            exprs.push(expr);
        } else {
            parameters.truncate(known);
        }
        if exprs.len() == count {
            break;
        }
    }
    let output: Vec<_> = exprs.iter().map(|expr| field("e", expr.data_type.clone())).collect();
    let graph = Graph {
        version: GRAPH_VERSION,
        fragments: vec![Fragment {
            source: Source::Scan(0),
            steps: vec![Step::Project(exprs)],
            sink: Sink::Emit { limit: None, offset: 0 },
            output: output.clone(),
        }],
        scans: vec![ScanSource {
            name: "t".to_owned(),
            columns: columns.iter().map(|column| column.field.clone()).collect(),
        }],
        streams: Vec::new(),
        parameters: parameters.iter().map(|(data_type, _)| data_type.clone()).collect(),
        output,
    };
    Case {
        name: format!("{count} expressions"),
        graph: Arc::new(graph),
        data: Data {
            scans: vec![table],
            streams: Vec::new(),
            parameters: parameters.into_iter().map(|(_, value)| value).collect(),
        },
        segmentation: Segmentation::Random,
        seed,
        alike: false,
    }
}
