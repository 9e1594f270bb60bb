//! How large tables of groups are made.

use trireme_device_api::{
    Aggregate, AggregateFunction, Expr, Field, Fragment, GRAPH_VERSION, Graph, ScanSource, Sink, Source, Type,
};

use crate::ir::Elem;
use crate::lower::rig::NoHost;
use crate::lower::{Bound, Hints, Target, lower};
use crate::program::Word;
use crate::shape::{ColumnShape, ScanShape, Storage};

const ROWS: u64 = 300_000;

fn field(name: &str) -> Field {
    Field {
        name: name.to_owned(),
        data_type: Type::Int64,
        nullable: false,
    }
}

/// Counts rows by a key.
fn graph() -> Graph {
    let output = vec![field("key"), field("count")];
    let count = Aggregate {
        function: AggregateFunction::Count,
        argument: None,
        distinct: false,
        filter: None,
        order: Vec::new(),
        data_type: Type::Int64,
    };
    Graph {
        version: GRAPH_VERSION,
        scans: vec![ScanSource {
            name: "t".to_owned(),
            columns: vec![field("key")],
        }],
        streams: Vec::new(),
        fragments: vec![Fragment {
            source: Source::Scan(0),
            steps: Vec::new(),
            sink: Sink::Aggregate {
                groups: vec![Expr::column(0, Type::Int64)],
                aggregates: vec![count],
            },
            output: output.clone(),
        }],
        parameters: Vec::new(),
        output,
    }
}

/// Numbers that kernels get, where an earlier run counted so many groups.
fn numbers(groups: Option<u64>) -> Vec<u64> {
    let key = ColumnShape {
        data_type: Type::Int64,
        storage: Storage::Integer(Elem::I64),
        nullable: false,
        range: Some((0, 1 << 40)),
        dictionary: None,
        clustered: false,
    };
    let bound = Bound {
        scans: &[ScanShape {
            columns: vec![key],
            rows: ROWS,
            segments: u64::MAX,
        }],
        streams: &[],
        outputs: &[],
        parameters: &[],
        host: &NoHost,
        hints: Hints {
            groups,
            ..Hints::default()
        },
    };
    let target = Target {
        group: 8,
        items: 1,
        work_items: 64,
        local_bytes: 16 << 10,
        wide: true,
        large_bytes: None,
    };
    let program = lower(&graph(), 0, &bound, target).unwrap();
    let number = |word: &Word| match word {
        Word::Value(number) => Some(*number),
        _ => None,
    };
    program.words.iter().filter_map(number).collect()
}

#[test]
fn a_table_that_was_too_small_for_counted_groups_is_made_as_if_there_were_no_count() {
    let guessed = ROWS / 2;
    assert!(numbers(None).contains(&(4 * guessed)));
    assert!(numbers(Some(1)).contains(&guessed));
}
