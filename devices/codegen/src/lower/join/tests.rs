//! Joins of random tables by every table and kind, under drawn schedules, against all pairs.

use std::collections::BTreeMap;

use trireme_device_api::{
    BinaryOperator, BuildSide, Expr, Field, Fragment, Graph, JoinKind, Probe, Sink, Source, Step, Type, Value,
};

use super::uses::{appends, has_pass};
use crate::interpreter::Random;
use crate::lower::Target;
use crate::lower::rig::{self, Ran, Rows, Table};

const KINDS: [JoinKind; 9] = [
    JoinKind::Inner,
    JoinKind::Left,
    JoinKind::Semi,
    JoinKind::Anti,
    JoinKind::Mark,
    JoinKind::BuildOuter,
    JoinKind::Full,
    JoinKind::BuildSemi,
    JoinKind::BuildAnti,
];

/// A join of two tables of (keys, a value) each.
#[derive(Debug, Clone)]
struct Case {
    kind: JoinKind,
    keys: usize,
    residual: bool,
    null_equals_null: bool,
    null_aware: bool,
    build: Table,
    row: Table,
    /// The build side is filtered: its last column is above this.
    above: Option<i64>,
    /// The probe is followed by another of the same build side.
    again: Option<JoinKind>,
    seed: u64,
}

/// Values of `rows` rows of key columns: from few or many, near each other or far apart, NULL now and then.
fn table(random: &mut Random, columns: usize, spread: i64, distinct: usize, nulls: usize) -> Table {
    let count = [0, 1, 3, 20, 60][random.below(5)];
    let value = |random: &mut Random| {
        let is_null = nulls > 0 && random.below(nulls) == 0;
        (!is_null).then(|| (i64::try_from(random.below(distinct)).unwrap() - 4) * spread)
    };
    let rows: Rows = (0..count)
        .map(|_| (0..columns).map(|_| value(random)).collect())
        .collect();
    Table { columns, rows }
}

fn case(seed: u64) -> Case {
    let mut random = Random::new(seed);
    let keys = [0, 1, 1, 1, 2, 3][random.below(6)];
    let spread = [1, 7, 1 << 40][random.below(3)];
    let distinct = [1, 5, 30, 100][random.below(4)];
    let nulls = [0, 0, 4][random.below(3)];
    let build = table(&mut random, keys + 1, spread, distinct, nulls);
    let nulls = [0, 4][random.below(2)];
    let row = table(&mut random, keys + 1, spread, distinct + 3, nulls);
    let kind = KINDS[random.below(KINDS.len())];
    let null_aware = kind == JoinKind::Anti && keys == 1 && random.below(2) == 0;
    Case {
        kind,
        keys,
        residual: !null_aware && random.below(3) == 0,
        null_equals_null: !null_aware && keys > 0 && random.below(4) == 0,
        null_aware,
        build,
        row,
        above: (random.below(3) == 0).then_some(-3),
        again: (random.below(4) == 0).then(|| KINDS[random.below(KINDS.len())]),
        seed,
    }
}

fn int(column: usize) -> Expr {
    Expr::column(column, Type::Int64)
}

fn fields(columns: usize) -> Vec<Field> {
    let field = |column: usize| Field {
        name: format!("c{column}"),
        data_type: Type::Int64,
        nullable: true,
    };
    (0..columns).map(field).collect()
}

fn width_after(kind: JoinKind, row: usize, build: usize) -> usize {
    match kind {
        kind if appends(kind) => row + build,
        kind if has_pass(kind) => build,
        JoinKind::Mark => row + 1,
        _ => row,
    }
}

impl Case {
    fn probe(&self, kind: JoinKind, width: usize, first: bool) -> Probe {
        // The row's last column before the probe, and the build row's last.
        let residual = Expr::binary(
            BinaryOperator::LessOrEqual,
            int(0),
            int(width + self.build.columns - 1),
            Type::Boolean,
        );
        Probe {
            build: 0,
            kind,
            keys: (0..self.keys).map(|key| int(key % width)).collect(),
            residual: (self.residual && first).then_some(residual),
            null_equals_null: self.null_equals_null && first,
            null_aware: self.null_aware && first,
        }
    }

    fn probes(&self) -> Vec<(Probe, usize)> {
        let width = self.row.columns;
        let mut probes = vec![(self.probe(self.kind, width, true), width)];
        if let Some(kind) = self.again {
            let width = width_after(self.kind, width, self.build.columns);
            probes.push((self.probe(kind, width, false), width));
        }
        probes
    }

    fn graph(&self) -> Graph {
        let mut graph = rig::graph(&[self.build.clone(), self.row.clone()]);
        let above = |bound: i64| {
            let bound = Expr::literal(Value::Int(bound.into()), Type::Int64);
            let last = int(self.build.columns - 1);
            Expr::binary(BinaryOperator::Greater, last, bound, Type::Boolean)
        };
        graph.fragments.push(Fragment {
            source: Source::Scan(0),
            steps: self.above.map(|bound| Step::Filter(above(bound))).into_iter().collect(),
            sink: Sink::Build(BuildSide {
                keys: (0..self.keys).map(int).collect(),
                payload: (0..self.build.columns).map(int).collect(),
            }),
            output: fields(self.build.columns),
        });
        graph.fragments.push(Fragment {
            source: Source::Scan(1),
            steps: self.probes().into_iter().map(|(probe, _)| Step::Probe(probe)).collect(),
            sink: Sink::Emit { limit: None, offset: 0 },
            output: Vec::new(),
        });
        graph
    }

    fn expected(&self) -> Rows {
        let mut rows = self.row.rows.clone();
        let mut build = self.build.clone();
        if let Some(bound) = self.above {
            build
                .rows
                .retain(|row| row.last().is_some_and(|last| *last > Some(bound)));
        }
        for (probe, width) in self.probes() {
            rows = joined(&probe, &rows, width, &build);
        }
        rows
    }
}

fn is_match(probe: &Probe, row: &[Option<i64>], build: &[Option<i64>]) -> bool {
    let mut keys = probe.keys.iter().zip(build).map(|(key, build)| {
        let row = row[key.columns()[0]];
        row == *build && (row.is_some() || probe.null_equals_null)
    });
    let residual = || match (probe.residual.is_some(), row[0], build[build.len() - 1]) {
        (true, Some(first), Some(last)) => first <= last,
        (true, _, _) => false,
        (false, _, _) => true,
    };
    keys.all(|equal| equal) && residual()
}

fn joined(probe: &Probe, rows: &Rows, width: usize, build: &Table) -> Rows {
    let mut matched = vec![false; build.rows.len()];
    let mut result = Rows::new();
    let null_key = build.rows.iter().any(|row| row[..probe.keys.len()].contains(&None));
    for row in rows {
        let mut found = 0;
        for (other, matched) in build.rows.iter().zip(&mut matched) {
            if is_match(probe, row, other) {
                found += 1;
                *matched = true;
                if appends(probe.kind) {
                    result.push([row.as_slice(), other].concat());
                }
            }
        }
        let blocked = probe.null_aware
            && !build.rows.is_empty()
            && (null_key || probe.keys.iter().any(|key| row[key.columns()[0]].is_none()));
        match probe.kind {
            JoinKind::Left | JoinKind::Full if found == 0 => {
                result.push([row.as_slice(), &vec![None; build.columns]].concat());
            }
            JoinKind::Semi if found > 0 => result.push(row.clone()),
            JoinKind::Anti if found == 0 && !blocked => result.push(row.clone()),
            JoinKind::Mark => result.push([row.as_slice(), &[Some(i64::from(found > 0))]].concat()),
            _ => {}
        }
    }
    for (other, matched) in build.rows.iter().zip(matched) {
        match probe.kind {
            JoinKind::BuildOuter | JoinKind::Full if !matched => {
                result.push([vec![None; width].as_slice(), other].concat());
            }
            JoinKind::BuildSemi if matched => result.push(other.clone()),
            JoinKind::BuildAnti if !matched => result.push(other.clone()),
            _ => {}
        }
    }
    result
}

/// Marks can't be keys of integers, nor compared with them.
fn is_typed(case: &Case) -> bool {
    case.kind != JoinKind::Mark || case.again.is_none()
}

fn check(case: &Case, target: Target) -> Ran {
    let ran = rig::run(
        &case.graph(),
        &[case.build.clone(), case.row.clone()],
        target,
        case.seed,
    );
    let (mut found, mut expected) = (ran.rows.clone(), case.expected());
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "{case:?}");
    ran
}

/// From so many cases on, each kind of table is met under a hundred schedules and more.
const ALL_SEEDS: u64 = 1_300;

/// Of `TRIREME_JOIN_SEEDS` cases instead of the usual few.
#[test]
fn joins_are_those_of_all_pairs() {
    let seeds = std::env::var("TRIREME_JOIN_SEEDS").ok();
    let seeds = seeds.and_then(|seeds| seeds.parse().ok()).unwrap_or(120);
    let (mut tables, mut anew, mut blooms, mut large) = (BTreeMap::new(), 0, 0, 0);
    for seed in 0..seeds {
        let case = case(seed);
        if !is_typed(&case) {
            continue;
        }
        let target = Target {
            group: 8,
            items: 1 + u32::try_from(seed % 2).unwrap(),
            work_items: 64,
            local_bytes: 16 << 10,
            wide: seed % 3 == 0,
            large_bytes: Some(256),
        };
        let ran = check(&case, target);
        anew += u32::from(ran.runs > 2);
        large += ran.large;
        assert!(
            ran.ordered == 0 || ran.large == 0,
            "seed {seed}: in order, and it says that it should be"
        );
        blooms += u32::from(matches!(&ran.builds[0].table, super::table::Table::Hash(hash) if hash.bloom.is_some()));
        let table = match ran.builds[0].table {
            super::table::Table::Every => "every",
            super::table::Table::Bits(_) => "bits",
            super::table::Table::Dense { bits: Some(_), .. } => "bits before dense",
            super::table::Table::Dense { .. } => "dense",
            super::table::Table::Hash(_) if ran.ordered > 1 => "hash, both sides in order",
            super::table::Table::Hash(_) => "hash",
        };
        *tables.entry(table).or_insert(0) += ran.schedules;
    }
    let known = [
        "bits",
        "bits before dense",
        "dense",
        "every",
        "hash",
        "hash, both sides in order",
    ];
    assert_eq!(tables.keys().copied().collect::<Vec<_>>(), known);
    println!("schedules by kind of table: {tables:?}");
    if seeds >= ALL_SEEDS {
        assert!(tables.values().all(|schedules| *schedules >= 100), "{tables:?}");
    }
    assert!(large > 0, "no table was large");
    assert!(blooms > 0, "no Bloom filter");
    assert!(anew > 0, "no join had more rows than were guessed");
}
