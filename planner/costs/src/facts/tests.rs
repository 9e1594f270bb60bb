//! What graphs need, counted by hand.

use trireme_device_api::{
    Aggregate, AggregateFunction, BinaryOperator, BuildSide, Expr, Field, Fragment, GRAPH_VERSION, JoinKind, Probe,
};

use super::*;

fn column(index: usize) -> Expr {
    Expr::column(index, Type::Int32)
}

fn compare(op: BinaryOperator, index: usize, value: i128) -> Expr {
    Expr::binary(
        op,
        column(index),
        Expr::literal(Value::Int(value), Type::Int32),
        Type::Boolean,
    )
}

fn field(name: &str) -> Field {
    Field {
        name: name.to_owned(),
        data_type: Type::Int32,
        nullable: false,
    }
}

fn fragment(source: Source, steps: Vec<Step>, sink: Sink) -> Fragment {
    Fragment {
        source,
        steps,
        sink,
        output: Vec::new(),
    }
}

fn graph(columns: &[usize], fragments: Vec<Fragment>) -> Graph {
    let scan = |(id, columns): (usize, &usize)| ScanSource {
        name: format!("t{id}"),
        columns: (0..*columns).map(|index| field(&format!("c{index}"))).collect(),
    };
    Graph {
        version: GRAPH_VERSION,
        fragments,
        scans: columns.iter().enumerate().map(scan).collect(),
        streams: Vec::new(),
        parameters: Vec::new(),
        output: Vec::new(),
    }
}

fn table(rows: f64, columns: &[(f64, f64, f64)]) -> ScanFacts {
    ScanFacts {
        rows: Rows::exact(rows),
        columns: columns
            .iter()
            .map(|(bytes, low, high)| ColumnFacts {
                carrier_bytes: *bytes,
                encoded_bytes: bytes / 2.0,
                distinct: None,
                range: Some((*low, *high)),
                dictionary_entries: None,
            })
            .collect(),
    }
}

fn count() -> Aggregate {
    Aggregate {
        function: AggregateFunction::Count,
        argument: None,
        distinct: false,
        filter: None,
        order: Vec::new(),
        data_type: Type::Int64,
    }
}

fn near(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "{a} is not {b}");
}

#[test]
fn filters_keep_what_bounds_say() {
    let predicate = Expr::binary(
        BinaryOperator::And,
        compare(BinaryOperator::GreaterOrEqual, 0, 100),
        compare(BinaryOperator::Less, 0, 200),
        Type::Boolean,
    );
    let sum = Sink::Aggregate {
        groups: Vec::new(),
        aggregates: vec![count()],
    };
    let graph = graph(
        &[2],
        vec![fragment(Source::Scan(0), vec![Step::Filter(predicate)], sum)],
    );
    let scans = [table(1e6, &[(2.0, 0.0, 999.0), (4.0, 0.0, 999.0)])];
    let facts = Facts::of(&graph, &scans, &[], &[], &Known::default());
    let only = &facts.fragments[0];
    near(only.source_rows.rows, 1e6);
    near(only.step_rows[0].rows, 1e5);
    assert_eq!(only.step_rows[0].from, RowsFrom::Sketch);
    near(only.output_rows.rows, 1.0);
    assert_eq!(only.output_rows.from, RowsFrom::Exact);
    // Column 1 is never read.
    near(only.source_bytes, 2e6);
    near(only.encoded_bytes, 1e6);
    assert_eq!(only.work.streams, [(2.0, 2e6)]);
    // The first comparison meets all rows, the second those that are left, the count those after both.
    near(only.work.simple_operations, 1e6 + 0.9e6 + 1e5);
    assert_eq!(
        (only.sink, only.text.as_str()),
        (SinkKind::Total, "t0 → filter → total")
    );
}

#[test]
fn columns_are_read_by_the_rows_that_are_left() {
    let sum = Aggregate {
        function: AggregateFunction::Sum,
        argument: Some(column(1)),
        ..count()
    };
    let sink = Sink::Aggregate {
        groups: Vec::new(),
        aggregates: vec![sum],
    };
    let few = Step::Filter(compare(BinaryOperator::Less, 0, 1));
    let graph = graph(&[2], vec![fragment(Source::Scan(0), vec![few], sink)]);
    let scans = [table(1e6, &[(4.0, 0.0, 99_999.0), (8.0, 0.0, 999.0)])];
    let facts = Facts::of(&graph, &scans, &[], &[], &Known::default());
    let read = facts.fragments[0].work.streams[1];
    // 10 rows are left, each in another line of 64 bytes.
    assert!(read.1 > 8.0 * 8.0 * 9.9 && read.1 < 8.0 * 8.0 * 10.1, "{read:?}");
    near(facts.fragments[0].source_bytes, 12e6);
}

/// t1's fragment probes t0's by a key that is t0's primary key.
fn join(kind: JoinKind) -> Graph {
    let side = BuildSide {
        keys: vec![column(0)],
        payload: vec![column(1)],
    };
    let few = Step::Filter(compare(BinaryOperator::Less, 1, 100));
    let probe = Step::Probe(Probe {
        build: 0,
        kind,
        keys: vec![column(0)],
        residual: None,
        null_equals_null: false,
        null_aware: false,
    });
    let sink = Sink::Aggregate {
        groups: vec![column(if kind == JoinKind::Inner { 2 } else { 1 })],
        aggregates: vec![count()],
    };
    graph(
        &[2, 2],
        vec![
            fragment(Source::Scan(0), vec![few], Sink::Build(side)),
            fragment(Source::Scan(1), vec![probe], sink),
        ],
    )
}

fn join_tables() -> [ScanFacts; 2] {
    [
        table(1e4, &[(2.0, 1.0, 1e4), (2.0, 0.0, 999.0)]),
        table(1e6, &[(2.0, 1.0, 1e4), (4.0, 0.0, 49.0)]),
    ]
}

#[test]
fn joins_with_keys_of_another_table() {
    let facts = Facts::of(&join(JoinKind::Inner), &join_tables(), &[], &[], &Known::default());
    let [build, probe] = facts.fragments.as_slice() else {
        panic!("two fragments");
    };
    near(build.output_rows.rows, 1e3);
    assert_eq!(build.sink, SinkKind::Build);
    // An array of all keys, 4 bytes each, and a place for NULL.
    let insert = build.work.inserts.unwrap();
    near(insert.accesses, 1e3);
    near(insert.footprint_bytes, 10_001.0 * 4.0);
    near(probe.sink_rows().rows, 1e5);
    assert_eq!(probe.builds, [0]);
    // The index by all rows, then the payload that groups are made of by those that matched.
    let lookups = &probe.work.lookups;
    near(lookups[0].accesses, 1e6);
    near(lookups[0].footprint_bytes, insert.footprint_bytes);
    near(lookups[1].accesses, 1e5);
    near(lookups[1].footprint_bytes, 1e3 * 2.0);
    near(probe.output_rows.rows, 100.0);
    let update = probe.work.updates[0];
    near(update.groups, 100.0);
    near(update.rows, 1e5);
    assert!(!update.hashed);
}

#[test]
fn join_tables_are_arrays_bits_or_hashed() {
    let of = |keys: f64| {
        let mut tables = join_tables();
        tables[0].columns[0].range = Some((1.0, keys));
        let facts = Facts::of(&join(JoinKind::Inner), &tables, &[], &[], &Known::default());
        let insert = facts.fragments[0].work.inserts.unwrap();
        (insert.footprint_bytes, insert.hashed)
    };
    assert_eq!(of(1e5), (100_001.0 * 4.0, false));
    assert_eq!(of(1e6), (1_000_001.0 * 0.1875 + 1e3 * 4.0, false));
    assert_eq!(of(1e9), (1e3 * 2.0 * (8.0 + 2.0), true));
}

#[test]
fn semi_and_anti_joins_share_the_rows() {
    let rows = |kind| {
        Facts::of(&join(kind), &join_tables(), &[], &[], &Known::default()).fragments[1]
            .sink_rows()
            .rows
    };
    near(rows(JoinKind::Semi), 1e5);
    near(rows(JoinKind::Anti), 9e5);
    near(rows(JoinKind::Left), 1e6);
}

#[test]
fn what_is_known_comes_before_estimates() {
    let graph = join(JoinKind::Inner);
    let known = Known {
        steps: [(
            (1, 1),
            Rows {
                rows: 777.0,
                from: RowsFrom::Feedback,
            },
        )]
        .into(),
        outputs: [(1, Rows::exact(7.0))].into(),
    };
    let facts = Facts::of(&graph, &join_tables(), &[], &[], &known);
    assert_eq!(
        facts.fragments[1].sink_rows(),
        Rows {
            rows: 777.0,
            from: RowsFrom::Feedback
        }
    );
    assert_eq!(facts.fragments[1].output_rows, Rows::exact(7.0));
    near(facts.fragments[1].work.lookups[0].accesses, 1e6);
}

#[test]
fn nothing_known_is_a_guess_and_says_so() {
    let facts = Facts::of(&join(JoinKind::Inner), &[], &[], &[], &Known::default());
    assert_eq!(facts.fragments[0].source_rows.from, RowsFrom::Default);
    assert_eq!(facts.fragments[1].output_rows.from, RowsFrom::Default);
    assert!(
        facts
            .fragments
            .iter()
            .all(|needs| needs.output_rows.rows >= 1.0 && needs.source_bytes > 0.0)
    );
}

#[test]
fn a_limit_stops_early() {
    let emit = |limit| {
        let sink = Sink::Emit { limit, offset: 0 };
        let graph = graph(&[1], vec![fragment(Source::Scan(0), Vec::new(), sink)]);
        let facts = Facts::of(&graph, &[table(1e6, &[(4.0, 0.0, 9.0)])], &[], &[], &Known::default());
        facts.fragments[0].clone()
    };
    near(emit(Some(10)).output_rows.rows, 10.0);
    near(emit(Some(10)).work.rows, 10.0);
    near(emit(None).work.rows, 1e6);
}
