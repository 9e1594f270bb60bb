//! Graphs as queries have them, over tables like an order book's: filters, joins, groups, sorts and searches together.
//!
//! A rate alone is seen by a graph that does little else ([`super::graphs`]); what several rates come to, with cold caches and
//! workers that have to be woken, is seen by these, and [`super::fit`] tells the rates from their times.

use std::sync::Arc;

use trireme_device_api::{
    Aggregate, AggregateFunction, BinaryOperator, Expr, Fragment, FragmentId, Graph, Inputs, ScanInput, Sink, SortKey,
    Source, Step,
};

use super::graphs::{
    Bound, Fill, Made, Table, aggregate, binary, build_of, column, emit, fragment, graph_of, nothing_bound, number,
    probe, searched, sum,
};
use crate::facts::{Facts, Known, ScanFacts};

/// Keys of the middle table.
const PARTS: usize = 20_011;
/// Keys of the large table.
const ORDERS: usize = 262_144;
/// Rows of the table of strings.
const TEXTS: usize = 1 << 16;
/// Rows of the smallest table.
const NATIONS: usize = 25;
/// Days.
const DAYS: u64 = 2_503;

/// Columns of the table that queries scan first: their numbers share no factors, so that filters don't know of each other.
const FACT: [Fill; 9] = [
    Fill::Random(DAYS, 2),
    Fill::Random(11, 1),
    Fill::Random(47, 1),
    Fill::Random(9_999_991, 4),
    Fill::Random(ORDERS as u64, 4),
    Fill::Random(PARTS as u64, 2),
    Fill::Random(3, 1),
    Fill::Random(2, 1),
    Fill::Wide(1 << 18),
];
/// By table.
const COLUMNS: [&[Fill]; 5] = [
    &FACT,
    &[Fill::Row, Fill::Random(97, 1), Fill::Random(7, 1)],
    &[Fill::Row, Fill::Random(DAYS, 2), Fill::Random(5, 1)],
    &[Fill::Row, Fill::Random(5, 1)],
    &[Fill::Text],
];
const DAY: usize = 0;
const DISCOUNT: usize = 1;
const QUANTITY: usize = 2;
const PRICE: usize = 3;
const ORDER: usize = 4;
const PART: usize = 5;
const FLAG: usize = 6;
const STATUS: usize = 7;
const WIDE: usize = 8;

/// A graph, and what it scans: positions of tables.
pub(super) struct Query {
    pub(super) graph: Arc<Graph>,
    tables: Vec<usize>,
}

impl Query {
    /// It takes longer when the first table has more rows.
    pub(super) fn grows(&self) -> bool {
        self.tables.contains(&0)
    }
}

/// Tables that all queries share: the first is large, the others are looked up in.
pub(super) struct Tables(Vec<(Table, Arc<Made>)>);

impl Tables {
    /// With so many rows in the first.
    pub(super) fn new(rows: usize) -> Self {
        let sizes = [rows, PARTS, ORDERS, NATIONS, TEXTS];
        let tables = sizes.into_iter().zip(COLUMNS).map(|(rows, columns)| {
            let table = Table::of_rows(rows, columns);
            let made = Arc::new(Made::new(&table, 1));
            (table, made)
        });
        Self(tables.collect())
    }

    /// The same dimensions beside another first table.
    pub(super) fn resized(&self, rows: usize) -> Self {
        let mut tables = self.0.clone();
        let fact = Table::of_rows(rows, &FACT);
        tables[0] = (fact.clone(), Arc::new(Made::new(&fact, 1)));
        Self(tables)
    }

    /// A query over them.
    pub(super) fn bound(&self, query: &Query) -> Bound {
        let scans = query
            .tables
            .iter()
            .map(|at| Arc::clone(&self.0[*at].1) as Arc<dyn ScanInput>);
        let facts: Vec<ScanFacts> = query.tables.iter().map(|at| self.0[*at].0.facts(1)).collect();
        Bound {
            facts: Facts::of(&query.graph, &facts, &[], &[], &Known::default()),
            inputs: Inputs {
                scans: scans.collect(),
                ..nothing_bound()
            },
        }
    }
}

fn below(index: usize, most: u64) -> Step {
    Step::Filter(binary(BinaryOperator::Less, column(index), number(most.into())))
}

fn total(of: Expr) -> Aggregate {
    aggregate(AggregateFunction::Sum, Some(of))
}

fn times(left: Expr, right: Expr) -> Expr {
    binary(BinaryOperator::Multiply, left, right)
}

/// `price × (100 − discount)`.
fn revenue() -> Expr {
    times(
        column(PRICE),
        binary(BinaryOperator::Subtract, number(100), column(DISCOUNT)),
    )
}

fn grouped(source: Source, steps: Vec<Step>, groups: Vec<Expr>, aggregates: Vec<Aggregate>) -> Fragment {
    let columns = groups.len() + aggregates.len();
    fragment(source, steps, Sink::Aggregate { groups, aggregates }, columns)
}

/// The first rows by a column, of those that a fragment left.
fn first(of: FragmentId, by: usize, columns: usize, limit: Option<usize>) -> Fragment {
    let key = SortKey {
        expr: column(by),
        descending: true,
        nulls_first: false,
    };
    let sink = Sink::Sort {
        keys: vec![key],
        limit,
        offset: 0,
    };
    fragment(Source::Fragment(of), Vec::new(), sink, columns)
}

/// A join table of a scan by its first column, with another column beside it.
fn side(scan: usize, steps: Vec<Step>, payload: usize) -> Fragment {
    build_of(Source::Scan(scan), steps, 0, &[payload])
}

fn query(fragments: Vec<Fragment>, tables: &[usize]) -> Query {
    Query {
        graph: graph_of(fragments, tables.iter().map(|at| COLUMNS[*at])),
        tables: tables.to_vec(),
    }
}

/// What is run.
pub(super) fn queries() -> Vec<Query> {
    [scans(), groups(), joins()].into_iter().flatten().collect()
}

fn scans() -> Vec<Query> {
    let fact = || Source::Scan(0);
    let count = vec![aggregate(AggregateFunction::Count, None)];
    vec![
        // A selective filter over three columns, of what is left a product.
        query(
            vec![sum(
                fact(),
                vec![below(DAY, DAYS / 7), below(DISCOUNT, 3), below(QUANTITY, 24)],
                Vec::new(),
                times(column(PRICE), column(DISCOUNT)),
            )],
            &[0],
        ),
        // Rows for the client.
        query(vec![emit_of(vec![below(DAY, DAYS / 50)])], &[0]),
        // A search.
        query(vec![grouped(fact(), vec![searched(0)], Vec::new(), count)], &[4]),
        // All that a filter leaves, in order.
        query(vec![sorted_by(PRICE, vec![below(DAY, DAYS / 5)])], &[0]),
    ]
}

fn groups() -> Vec<Query> {
    let fact = || Source::Scan(0);
    let count = || aggregate(AggregateFunction::Count, None);
    let taxed = times(revenue(), binary(BinaryOperator::Add, number(100), column(STATUS)));
    let sums = [column(QUANTITY), column(PRICE), revenue(), taxed].map(total);
    let few = grouped(
        fact(),
        vec![below(DAY, DAYS * 9 / 10)],
        vec![column(FLAG), column(STATUS)],
        sums.into_iter().chain([count()]).collect(),
    );
    let hashed = sum(fact(), Vec::new(), vec![column(WIDE)], column(QUANTITY));
    let numbered = grouped(fact(), Vec::new(), vec![column(PART)], vec![count()]);
    let many = sum(fact(), Vec::new(), vec![column(ORDER)], column(QUANTITY));
    vec![
        query(vec![few, first(0, 0, 7, None)], &[0]),
        query(vec![hashed, first(0, 1, 2, Some(10))], &[0]),
        query(vec![numbered, first(0, 1, 2, Some(10))], &[0]),
        query(vec![many], &[0]),
    ]
}

fn joins() -> Vec<Query> {
    let fact = || Source::Scan(0);
    let later = vec![below(DAY, DAYS / 2), probe(0, ORDER)];
    let star = vec![probe(0, PART), probe(1, ORDER), probe(2, DISCOUNT)];
    let joined = FACT.len();
    vec![
        // A filtered join table, many groups of what meets it, the largest ten.
        query(
            vec![
                side(1, vec![below(1, DAYS / 2)], 2),
                sum(fact(), later, vec![column(ORDER)], revenue()),
                first(1, 1, 2, Some(10)),
            ],
            &[0, 2],
        ),
        // A star: three join tables, groups of their columns.
        query(
            vec![
                side(1, vec![below(1, 40)], 2),
                side(2, vec![below(1, DAYS / 2)], 2),
                side(3, Vec::new(), 1),
                sum(fact(), star, vec![column(joined), column(joined + 1)], column(PRICE)),
                first(3, 0, 3, None),
            ],
            &[0, 1, 2, 3],
        ),
        // What a dimension's rows match.
        query(
            vec![
                build_of(fact(), vec![below(QUANTITY, 24)], ORDER, &[]),
                sum(Source::Scan(1), vec![probe(0, 0)], Vec::new(), column(2)),
            ],
            &[0, 2],
        ),
        // Nothing but starts.
        query(
            vec![
                side(0, vec![below(1, 3)], 1),
                sum(Source::Scan(0), vec![probe(0, 0)], vec![column(1)], column(2)),
                emit(Source::Fragment(1), 2),
            ],
            &[3],
        ),
    ]
}

/// Some columns of the rows that are left.
fn emit_of(mut steps: Vec<Step>) -> Fragment {
    steps.push(Step::Project([DAY, PRICE, ORDER, QUANTITY].map(column).to_vec()));
    let sink = Sink::Emit { limit: None, offset: 0 };
    fragment(Source::Scan(0), steps, sink, 4)
}

fn sorted_by(key: usize, mut steps: Vec<Step>) -> Fragment {
    let keys = vec![SortKey {
        expr: column(0),
        descending: false,
        nulls_first: false,
    }];
    let sink = Sink::Sort {
        keys,
        limit: None,
        offset: 0,
    };
    steps.push(Step::Project([key, DAY].map(column).to_vec()));
    fragment(Source::Scan(0), steps, sink, 2)
}
