//! Joins against a naive nested loop: every table × key types × NULLs × duplicates. The seed is printed.

mod memory;
mod order;

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trireme_device_api::{DevicePool, Dictionary, Interval, JoinKind, Strings, Type, Unlimited};

use super::build::Ladder;
use super::probe::{PAIRS, ProbeKind, Prober, Scratch};
use super::{BuildLocal, BuildPlan, BuildTable, BuildUse, Building};
use crate::isa::Isa;
use crate::tile::NO_ROW;
use crate::vector::{Data, Lane, Shape, Vector};

/// A key's value as the naive join compares it.
#[derive(Debug, Clone, PartialEq)]
enum Plain {
    Null,
    Number(i128),
    Float(f64),
    Text(Vec<u8>),
    Span(Interval),
}

fn same(left: &Plain, right: &Plain, nulls_equal: bool) -> bool {
    match (left, right) {
        (Plain::Null, Plain::Null) => nulls_equal,
        (Plain::Float(left), Plain::Float(right)) => left == right || (left.is_nan() && right.is_nan()),
        (left, right) => left == right && *left != Plain::Null,
    }
}

/// What a side's key column is.
#[derive(Debug, Clone)]
enum Side {
    Null,
    Bool,
    /// Integers of a range.
    Int(i128, i128),
    F32,
    F64,
    Codes(Arc<Dictionary>),
    Bytes,
    Interval,
}

impl Side {
    fn shape(&self) -> Shape {
        let (data_type, range, dictionary) = match self {
            Side::Null => (Type::Null, None, None),
            Side::Bool => (Type::Boolean, None, None),
            Side::Int(low, high) => (
                Type::Decimal {
                    precision: 38,
                    scale: 0,
                },
                Some((*low, *high)),
                None,
            ),
            Side::F32 => (Type::Float32, None, None),
            Side::F64 => (Type::Float64, None, None),
            Side::Codes(dictionary) => (Type::Utf8, None, Some(Arc::clone(dictionary))),
            Side::Bytes => (Type::Utf8, None, None),
            Side::Interval => (
                Type::Interval(trireme_device_api::IntervalKind::MonthDayNano),
                None,
                None,
            ),
        };
        Shape {
            data_type,
            range,
            nullable: true,
            dictionary,
            distinct: None,
        }
    }

    fn random(&self, random: &mut StdRng, nulls: bool) -> Plain {
        if nulls && random.random_ratio(1, 5) {
            return Plain::Null;
        }
        match self {
            Side::Null => Plain::Null,
            Side::Bool => Plain::Number(random.random_range(0..2)),
            Side::Int(low, high) => {
                let near = low + random.random_range(0..=(high - low).min(40));
                Plain::Number(if random.random_ratio(1, 8) { *high } else { near })
            }
            Side::F32 | Side::F64 => {
                Plain::Float([f64::NAN, -f64::NAN, 0.0, -0.0, 1.5, -1.5, f64::INFINITY, 3.0][random.random_range(0..8)])
            }
            Side::Codes(dictionary) => {
                let code = random.random_range(0..dictionary.len());
                Plain::Text(dictionary.get(code as u32).to_vec())
            }
            Side::Bytes => Plain::Text(word(random.random_range(0..40))),
            Side::Interval => Plain::Span(Interval {
                months: random.random_range(0..3),
                days: random.random_range(-2..2),
                nanoseconds: random.random_range(0..2),
            }),
        }
    }

    fn vector(&self, values: &[Plain]) -> Vector<'static> {
        let number = |value: &Plain| match value {
            Plain::Number(number) => *number,
            _ => 0,
        };
        let float = |value: &Plain| match value {
            Plain::Float(float) => *float,
            _ => 0.0,
        };
        let text = |value: &Plain| match value {
            Plain::Text(text) => text.clone(),
            _ => Vec::new(),
        };
        let data = match self {
            Side::Null => Data::Null(values.len()),
            Side::Bool => Data::Bool(values.iter().map(|value| number(value) as u8).collect()),
            Side::Int(low, high) => match Lane::of_range(*low, *high) {
                Lane::I8 => Data::I8(values.iter().map(|value| number(value) as i8).collect()),
                Lane::I16 => Data::I16(values.iter().map(|value| number(value) as i16).collect()),
                Lane::I32 => Data::I32(values.iter().map(|value| number(value) as i32).collect()),
                Lane::I64 => Data::I64(values.iter().map(|value| number(value) as i64).collect()),
                Lane::I128 => Data::I128(values.iter().map(number).collect()),
            },
            Side::F32 => Data::F32(values.iter().map(|value| float(value) as f32).collect()),
            Side::F64 => Data::F64(values.iter().map(float).collect()),
            Side::Codes(dictionary) => {
                let code = |value: &Plain| {
                    let text = text(value);
                    (0..dictionary.len() as u32)
                        .find(|code| dictionary.get(*code) == text)
                        .unwrap_or(0)
                };
                Data::Codes(values.iter().map(code).collect(), Arc::clone(dictionary))
            }
            Side::Bytes => {
                let texts: Vec<_> = values.iter().map(text).collect();
                Data::Strings(Strings::from_values(texts.iter().map(Vec::as_slice)))
            }
            Side::Interval => {
                let span = |value: &Plain| match value {
                    Plain::Span(span) => *span,
                    _ => Interval::default(),
                };
                Data::Interval(values.iter().map(span).collect())
            }
        };
        let valid: Vec<u8> = values.iter().map(|value| u8::from(*value != Plain::Null)).collect();
        let valid = valid.contains(&0).then(|| valid.into());
        Vector { data, valid }
    }
}

fn word(number: usize) -> Vec<u8> {
    format!("{}{number}", "long-enough-".repeat(number % 4)).into_bytes()
}

fn dictionary(words: impl Iterator<Item = usize>) -> Side {
    let words: Vec<_> = words.map(word).collect();
    Side::Codes(Arc::new(Dictionary::new(Strings::from_values(
        words.iter().map(Vec::as_slice),
    ))))
}

/// One join of one table: rows as columns of plain values.
struct Case {
    build: Vec<Side>,
    probe: Vec<Side>,
    build_rows: Vec<Vec<Plain>>,
    probe_rows: Vec<Vec<Plain>>,
    isa: Isa,
}

impl Case {
    fn random(random: &mut StdRng, sides: &[(Side, Side)], rows: (usize, usize), nulls: bool) -> Self {
        let (build, probe): (Vec<_>, Vec<_>) = sides.iter().cloned().unzip();
        let mut draw = |sides: &[Side], rows: usize| -> Vec<Vec<Plain>> {
            (0..rows)
                .map(|_| sides.iter().map(|side| side.random(random, nulls)).collect())
                .collect()
        };
        let isas = Isa::all_available();
        let build_rows = draw(&build, rows.0);
        let probe_rows = draw(&probe, rows.1);
        Self {
            build,
            probe,
            build_rows,
            probe_rows,
            isa: isas[random.random_range(0..isas.len())],
        }
    }

    fn vectors(sides: &[Side], rows: &[Vec<Plain>]) -> Vec<Vector<'static>> {
        let column = |key: usize| rows.iter().map(|row| row[key].clone()).collect::<Vec<_>>();
        sides
            .iter()
            .enumerate()
            .map(|(key, side)| side.vector(&column(key)))
            .collect()
    }

    fn table(&self, ladder: Ladder, bloom: bool, uses: BuildUse, workers: usize) -> Arc<BuildTable> {
        let pool: Arc<dyn DevicePool> = Arc::new(Unlimited);
        let shapes: Vec<_> = self.build.iter().map(Side::shape).collect();
        let number = Side::Int(0, 1 << 20);
        let plan = BuildPlan::new(&shapes, &[number.shape()], uses, &pool, self.isa).forced(ladder, bloom);
        let plan = Arc::new(plan);
        let mut locals: Vec<_> = (0..workers).map(|_| BuildLocal::new(&plan)).collect();
        let share = self.build_rows.len().div_ceil(workers).max(1);
        for (worker, rows) in self.build_rows.chunks(share).enumerate() {
            let first = worker * share;
            for (tile, rows) in rows.chunks(30).enumerate() {
                let ids: Vec<_> = (0..rows.len())
                    .map(|row| Plain::Number((first + tile * 30 + row) as i128))
                    .collect();
                let keys = Self::vectors(&self.build, rows);
                locals[worker].push(&keys, &[number.vector(&ids)], rows.len()).unwrap();
            }
        }
        let building = Building::new(&plan, locals).unwrap();
        std::thread::scope(|scope| {
            for worker in 0..workers {
                let building = &building;
                scope.spawn(move || {
                    for task in (worker..building.tasks()).step_by(workers) {
                        building.run_task(task).unwrap();
                    }
                });
            }
        });
        Arc::new(building.finish().unwrap())
    }

    fn naive(&self, nulls_equal: bool) -> Vec<Vec<u32>> {
        let equal = |left: &[Plain], right: &[Plain]| left.iter().zip(right).all(|(l, r)| same(l, r, nulls_equal));
        let matches = |row: &Vec<Plain>| {
            let found = |(_, build): &(u32, &Vec<Plain>)| equal(row, build);
            (0..).zip(&self.build_rows).filter(found).map(|(at, _)| at).collect()
        };
        self.probe_rows.iter().map(matches).collect()
    }
}

impl Case {
    fn prober(&self, table: &Arc<BuildTable>, how: ProbeKind) -> Prober {
        let pool: Arc<dyn DevicePool> = Arc::new(Unlimited);
        let shapes: Vec<_> = self.probe.iter().map(Side::shape).collect();
        Prober::new(table, &shapes, how, &pool, self.isa).unwrap()
    }

    /// Build rows by row of the probe, sorted; a build row counts as its place before the build.
    fn pairs(&self, prober: &Prober) -> Vec<Vec<u32>> {
        let ids = ids(prober.table());
        let mut scratch = Scratch::default();
        let mut found = vec![Vec::new(); self.probe_rows.len()];
        for (tile, rows) in self.probe_rows.chunks(50).enumerate() {
            prober.start(&mut scratch, &Self::vectors(&self.probe, rows), rows.len());
            let mut last = 0;
            while prober.next(&mut scratch) {
                assert!(scratch.rows.len() <= PAIRS);
                assert_eq!(scratch.rows.len(), scratch.build.len());
                prober.mark(&scratch.build);
                for (row, build) in scratch.rows.iter().zip(&scratch.build) {
                    assert!(*row >= last, "pairs come in row order");
                    last = *row;
                    found[tile * 50 + *row as usize].push(ids.get(*build as usize).copied().unwrap_or(NO_ROW));
                }
            }
        }
        found.iter_mut().for_each(|rows| rows.sort_unstable());
        found
    }

    fn check_pairs(&self, table: &Arc<BuildTable>, naive: &[Vec<u32>], nulls_equal: bool) {
        let mut held = vec![false; self.build_rows.len()];
        naive.iter().flatten().for_each(|row| held[*row as usize] = true);
        let matched = |wanted: bool| -> Vec<u32> {
            (0..)
                .zip(&held)
                .filter(|(_, held)| **held == wanted)
                .map(|(row, _)| row)
                .collect()
        };
        let unique = naive.iter().all(|rows| rows.len() < 2);
        assert!(unique || !table.is_unique());
        for kind in [JoinKind::Inner, JoinKind::Left, JoinKind::BuildOuter, JoinKind::Full] {
            let prober = self.prober(table, how(kind, nulls_equal));
            let mut expected = naive.to_vec();
            if matches!(kind, JoinKind::Left | JoinKind::Full) {
                expected
                    .iter_mut()
                    .filter(|rows| rows.is_empty())
                    .for_each(|rows| rows.push(NO_ROW));
            }
            assert_eq!(self.pairs(&prober), expected, "{kind:?}");
            if matches!(kind, JoinKind::BuildOuter | JoinKind::Full) {
                assert_eq!(all_build_rows(&prober, false), matched(false), "{kind:?}");
            }
        }
        let prober = self.prober(table, how(JoinKind::BuildSemi, nulls_equal));
        let mut scratch = Scratch::default();
        for rows in self.probe_rows.chunks(50) {
            prober.start(&mut scratch, &Self::vectors(&self.probe, rows), rows.len());
            prober.mark_found(&scratch);
        }
        assert_eq!(all_build_rows(&prober, true), matched(true));
        assert_eq!(all_build_rows(&prober, false), matched(false));
    }

    fn check_exists(&self, table: &Arc<BuildTable>, naive: &[Vec<u32>], nulls_equal: bool) {
        let some: Vec<u8> = naive.iter().map(|rows| u8::from(!rows.is_empty())).collect();
        let none: Vec<u8> = some.iter().map(|some| 1 - some).collect();
        for kind in [JoinKind::Semi, JoinKind::Mark, JoinKind::Anti] {
            let prober = self.prober(table, how(kind, nulls_equal));
            let expected = if kind == JoinKind::Anti { &none } else { &some };
            assert_eq!(self.kept(&prober), *expected, "{kind:?}");
        }
        if self.build.len() != 1 || nulls_equal {
            return;
        }
        let mut not_in = how(JoinKind::Anti, false);
        not_in.null_aware = true;
        let null_build = self.build_rows.iter().any(|row| row[0] == Plain::Null);
        assert_eq!(null_build, table.has_null_keys());
        let expected: Vec<u8> = self
            .probe_rows
            .iter()
            .zip(&none)
            .map(|(row, none)| {
                let passes = self.build_rows.is_empty() || (!null_build && row[0] != Plain::Null && *none == 1);
                u8::from(passes)
            })
            .collect();
        assert_eq!(self.kept(&self.prober(table, not_in)), expected, "NOT IN");
    }

    fn kept(&self, prober: &Prober) -> Vec<u8> {
        let mut all = Vec::new();
        for rows in self.probe_rows.chunks(50) {
            let (mut scratch, mut keep) = (Scratch::default(), Vec::new());
            let keys = Self::vectors(&self.probe, rows);
            prober.start(&mut scratch, &keys, rows.len());
            prober.exists(&scratch, &mut keep);
            prober.decide(&keys, &mut keep);
            all.extend_from_slice(&keep);
        }
        all
    }

    fn check(&self, ladder: Ladder, bloom: bool, workers: usize) {
        for table_nulls_equal in [false, true] {
            for rows in [true, false] {
                let uses = BuildUse {
                    rows,
                    nulls_equal: table_nulls_equal,
                };
                if rows && ladder == Ladder::Bitmap {
                    continue;
                }
                let table = self.table(ladder, bloom, uses, workers);
                assert_eq!(table.rows(), self.build_rows.len());
                for nulls_equal in [false, true] {
                    if nulls_equal && !table_nulls_equal {
                        continue;
                    }
                    let naive = self.naive(nulls_equal);
                    self.check_exists(&table, &naive, nulls_equal);
                    if rows {
                        self.check_pairs(&table, &naive, nulls_equal);
                        let mut ids = ids(&table);
                        ids.sort_unstable();
                        assert!(ids.into_iter().eq(0..table.rows() as u32));
                    }
                }
            }
        }
    }
}

fn how(kind: JoinKind, nulls_equal: bool) -> ProbeKind {
    ProbeKind {
        kind,
        nulls_equal,
        null_aware: false,
        residual: false,
    }
}

/// The places that build rows had before the build, which are their payload.
fn ids(table: &BuildTable) -> Vec<u32> {
    match table.payload().first().map(|column| (&column.values, column.rows)) {
        Some((trireme_device_api::Values::Integers { carrier, base }, rows)) => {
            (0..rows).map(|row| (base + carrier.get(row)) as u32).collect()
        }
        _ => (0..table.rows() as u32).collect(),
    }
}

fn all_build_rows(prober: &Prober, matched: bool) -> Vec<u32> {
    let end = prober.table().rows();
    let (mut rows, mut at) = (Vec::new(), 0);
    while at < end {
        let before = rows.len();
        at = prober.build_rows(matched, (at, end), 7, &mut rows);
        assert!(rows.len() - before <= 7);
    }
    let ids = ids(prober.table());
    let mut rows: Vec<_> = rows.into_iter().map(|row| ids[row as usize]).collect();
    rows.sort_unstable();
    rows
}

/// Pairs of key columns, and whether the packed tables take them.
fn sides(random: &mut StdRng) -> Vec<(Vec<(Side, Side)>, bool)> {
    let low = dictionary(0..20);
    let high = dictionary((10..300).rev());
    let small = Side::Int(-50, 50);
    let base: i128 = random.random_range(-1000..1000);
    let mid = Side::Int(base, base + 300);
    let int = Side::Int(-100_000, 2_000_000);
    let big = Side::Int(base, 1 << 40);
    let huge = Side::Int(-(10_i128.pow(37)), 10_i128.pow(37));
    let unsigned = Side::Int(0, u64::MAX.into());
    let one = |left: &Side, right: &Side| vec![(left.clone(), right.clone())];
    vec![
        (one(&mid, &mid), true),
        (one(&mid, &small), true),
        (one(&small, &int), true),
        (one(&int, &small), false),
        (one(&big, &mid), false),
        (one(&mid, &big), true),
        (one(&unsigned, &unsigned), false),
        (one(&mid, &huge), true),
        (one(&huge, &huge), false),
        (one(&Side::Bool, &Side::Bool), true),
        (one(&Side::Null, &mid), true),
        (one(&mid, &Side::Null), true),
        (one(&Side::Null, &Side::Bytes), true),
        (one(&Side::F32, &Side::F32), false),
        (one(&Side::F64, &Side::F64), false),
        (one(&low, &low), true),
        (one(&low, &high), true),
        (one(&high, &low), true),
        (one(&low, &Side::Bytes), true),
        (one(&Side::Bytes, &low), false),
        (one(&Side::Bytes, &Side::Bytes), false),
        (one(&Side::Interval, &Side::Interval), false),
        (vec![(small.clone(), mid.clone()), (low.clone(), high.clone())], true),
        (
            vec![
                (small.clone(), small.clone()),
                (Side::Bool, Side::Bool),
                (Side::Bool, Side::Bool),
            ],
            true,
        ),
        (vec![(big.clone(), big.clone()), (big, mid.clone())], false),
        (
            vec![
                (huge.clone(), huge.clone()),
                (huge.clone(), huge),
                (Side::F64, Side::F64),
            ],
            false,
        ),
        (vec![(Side::Bytes, Side::Bytes), (mid.clone(), small)], false),
        (vec![(Side::Bytes, high), (low, Side::Bytes), (mid.clone(), mid)], false),
    ]
}

#[test]
fn every_table_joins_as_a_nested_loop_does() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for (keys, close) in sides(&mut random) {
        for (rows, nulls) in [
            ((0, 20), true),
            ((1, 33), false),
            ((60, 70), true),
            ((130, 80), random.random()),
        ] {
            let case = Case::random(&mut random, &keys, rows, nulls);
            let workers = random.random_range(1..4);
            println!("keys {keys:?} rows {rows:?} nulls {nulls} workers {workers}");
            case.check(Ladder::Auto, random.random(), workers);
            for ladder in [Ladder::Hash, Ladder::Compared, Ladder::Wide, Ladder::Encoded] {
                case.check(ladder, random.random(), workers);
            }
            if close {
                case.check(Ladder::Dense, false, workers);
                case.check(Ladder::Ranked, false, workers);
                case.check(Ladder::Bitmap, false, workers);
            }
        }
    }
}

#[test]
fn without_keys_every_build_row_is_a_candidate() {
    let mut random = StdRng::seed_from_u64(1);
    for rows in [(0, 10), (1, 10), (3000, 7), (5000, 0), (2048, 3), (7, 900)] {
        let case = Case::random(&mut random, &[], rows, false);
        let uses = BuildUse {
            rows: true,
            nulls_equal: false,
        };
        let table = case.table(Ladder::Auto, false, uses, 2);
        let naive = case.naive(false);
        case.check_pairs(&table, &naive, false);
        case.check_exists(&table, &naive, false);
    }
}

#[test]
fn chains_of_any_length_are_given_in_pieces() {
    let mut random = StdRng::seed_from_u64(2);
    let few = Side::Int(0, 6);
    for build_rows in [7, 60, 63, 800, 4000] {
        let case = Case::random(&mut random, &[(few.clone(), few.clone())], (build_rows, 90), true);
        for ladder in [Ladder::Dense, Ladder::Ranked, Ladder::Hash] {
            let uses = BuildUse {
                rows: true,
                nulls_equal: true,
            };
            let table = case.table(ladder, false, uses, 2);
            case.check_pairs(&table, &case.naive(false), false);
            case.check_pairs(&table, &case.naive(true), true);
        }
    }
}

#[test]
fn keys_far_apart_that_come_twice_may_only_be_asked_for() {
    let mut random = StdRng::seed_from_u64(3);
    let wide = Side::Int(0, 24_000_000);
    let mut case = Case::random(&mut random, &[(wide.clone(), wide)], (0, 60), true);
    case.build_rows = (0..24_000).map(|row| vec![Plain::Number(row / 2 * 2000)]).collect();
    for (row, probe) in case.probe_rows.iter_mut().enumerate() {
        *probe = vec![Plain::Number(row as i128 * 1000)];
    }
    let uses = BuildUse {
        rows: false,
        nulls_equal: false,
    };
    let table = case.table(Ladder::Auto, false, uses, 2);
    assert_eq!(table.index_name(), "ranked");
    assert!(!table.is_unique());
    case.check_exists(&table, &case.naive(false), false);
}
