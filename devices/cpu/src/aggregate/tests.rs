//! Every rung, aggregate and type against lists of values by group; seeds are printed by a failure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trireme_device_api::{
    Aggregate, AggregateFunction, DeviceColumn, DeviceError, DevicePool, Dictionary, Expr, Rows, Strings, Type,
    Unlimited, Value, Values,
};

use crate::aggregate::AggregatePlan;
use crate::aggregate::keys::{KeyPlan, Rung};
use crate::aggregate::tests_model::{expected, sort_key, text};
use crate::isa::Isa;
use crate::vector::{Data, Lane, Shape, Vector};

/// A column of a whole input.
pub(super) struct Column {
    pub(super) shape: Shape,
    pub(super) values: Vec<Value>,
}

impl Column {
    /// Rows `start..end` as a vector; NULL rows get `junk`.
    pub(super) fn vector(&self, start: usize, end: usize) -> Vector<'_> {
        let values = &self.values[start..end];
        let valid: Vec<u8> = values.iter().map(|value| u8::from(*value != Value::Null)).collect();
        let junk = |row: usize| (row as i128 * 77) % 120;
        let int = |row: usize, value: &Value| match value {
            Value::Int(value) => *value,
            Value::Boolean(value) => i128::from(*value),
            _ => junk(row),
        };
        let float = |value: &Value| match value {
            Value::Float(value) => *value,
            _ => 1.5,
        };
        macro_rules! lane {
            ($variant:ident, $t:ty) => {
                Data::$variant(Cow::Owned(
                    values
                        .iter()
                        .enumerate()
                        .map(|(row, value)| int(row, value) as $t)
                        .collect(),
                ))
            };
        }
        let data = if let Some(dictionary) = &self.shape.dictionary {
            let codes = values.iter().map(|value| code_of(dictionary, value)).collect();
            Data::Codes(Cow::Owned(codes), Arc::clone(dictionary))
        } else {
            match &self.shape.data_type {
                Type::Null => Data::Null(values.len()),
                Type::Boolean => Data::Bool(Cow::Owned(values.iter().map(|value| int(0, value) as u8 & 1).collect())),
                Type::Float32 => Data::F32(Cow::Owned(values.iter().map(|value| float(value) as f32).collect())),
                Type::Float64 => Data::F64(Cow::Owned(values.iter().map(float).collect())),
                data_type if data_type.is_bytes() => Data::Bytes(
                    values
                        .iter()
                        .map(|value| match value {
                            Value::Bytes(bytes) => &bytes[..],
                            _ => b"junk",
                        })
                        .collect(),
                ),
                _ => {
                    let (low, high) = self.shape.range.expect("integral columns have a range");
                    match Lane::of_range(low, high) {
                        Lane::I8 => lane!(I8, i8),
                        Lane::I16 => lane!(I16, i16),
                        Lane::I32 => lane!(I32, i32),
                        Lane::I64 => lane!(I64, i64),
                        Lane::I128 => lane!(I128, i128),
                    }
                }
            }
        };
        let valid = (self.shape.nullable && valid.contains(&0)).then_some(Cow::Owned(valid));
        Vector { data, valid }
    }
}

fn code_of(dictionary: &Dictionary, value: &Value) -> u32 {
    match value {
        Value::Bytes(bytes) => (0..dictionary.len() as u32)
            .find(|code| dictionary.get(*code) == &bytes[..])
            .expect("in the dictionary"),
        _ => 0,
    }
}

/// What a column looks like.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Int { data_type: Type, low: i128, high: i128 },
    Boolean,
    Float { narrow: bool },
    Codes(u32),
    Bytes,
    Null,
}

pub(super) fn column(kind: &Kind, rows: usize, nulls: f64, random: &mut StdRng) -> Column {
    let word = |index: u32| -> Arc<[u8]> {
        format!("w{}", index.wrapping_mul(2_654_435_761) % 1000)
            .as_bytes()
            .into()
    };
    let dictionary = match kind {
        Kind::Codes(count) => {
            let mut words: Vec<_> = (0..*count).map(word).collect();
            words.dedup();
            Some(Arc::new(Dictionary::new(Strings::from_values(
                words.iter().map(|word| &word[..]),
            ))))
        }
        _ => None,
    };
    let specials = [
        f64::NAN,
        -f64::NAN,
        0.0,
        -0.0,
        f64::INFINITY,
        -1.5,
        2.25,
        f64::NEG_INFINITY,
    ];
    let values = (0..rows)
        .map(|_| {
            if nulls > 0.0 && random.random_bool(nulls) {
                return Value::Null;
            }
            match kind {
                Kind::Int { low, high, .. } => Value::Int(random.random_range(*low..=*high)),
                Kind::Boolean => Value::Boolean(random.random()),
                Kind::Float { .. } => Value::Float(specials[random.random_range(0..specials.len())]),
                Kind::Codes(count) => Value::Bytes(word(random.random_range(0..*count))),
                Kind::Bytes => Value::Bytes(vec![b'a'; random.random_range(0..12)].into()),
                Kind::Null => Value::Null,
            }
        })
        .collect();
    let (data_type, range) = match kind {
        Kind::Int { data_type, low, high } => (data_type.clone(), Some((*low, *high))),
        Kind::Boolean => (Type::Boolean, None),
        Kind::Float { narrow: true } => (Type::Float32, None),
        Kind::Float { narrow: false } => (Type::Float64, None),
        Kind::Codes(_) | Kind::Bytes => (Type::Utf8, None),
        Kind::Null => (Type::Null, None),
    };
    let shape = Shape {
        data_type,
        range,
        nullable: nulls > 0.0 || matches!(kind, Kind::Null),
        dictionary,
        distinct: None,
    };
    Column { shape, values }
}

/// All of one input: keys, arguments with their aggregates, filters, mask.
pub(super) struct Case {
    pub(super) groups: Vec<Column>,
    pub(super) aggregates: Vec<(Aggregate, Option<Column>)>,
    pub(super) filters: Vec<Option<Vec<u8>>>,
    pub(super) mask: Option<Vec<u8>>,
    pub(super) rows: usize,
}

impl Case {
    pub(super) fn shapes(&self) -> (Vec<Shape>, Vec<(Aggregate, Option<Shape>)>) {
        let groups = self.groups.iter().map(|group| group.shape.clone()).collect();
        let aggregates = self.aggregates.iter();
        let shape = |column: &Option<Column>| column.as_ref().map(|column| column.shape.clone());
        let aggregates = aggregates.map(|(aggregate, column)| (aggregate.clone(), shape(column)));
        (groups, aggregates.collect())
    }

    /// `local_groups`: groups of a worker's own table at most; 0 also makes partitions few, so that they fill.
    pub(super) fn run(
        &self,
        rung: Option<Rung>,
        workers: usize,
        isa: Isa,
        tile: usize,
        local_groups: usize,
    ) -> Result<Rows, DeviceError> {
        let (groups, aggregates) = self.shapes();
        let pool: Arc<dyn DevicePool> = Arc::new(Unlimited);
        let mut plan = AggregatePlan::with_rung(&groups, &aggregates, workers, isa, &pool, self.rows, rung)?;
        plan.local_groups = local_groups;
        if local_groups == 0 {
            plan = plan.with_two_partitions();
        }
        let mut locals: Vec<_> = (0..workers).map(|_| plan.local()).collect();
        for (turn, start) in (0..self.rows).step_by(tile).enumerate() {
            let end = (start + tile).min(self.rows);
            let groups: Vec<_> = self.groups.iter().map(|group| group.vector(start, end)).collect();
            let arguments: Vec<_> = self
                .aggregates
                .iter()
                .enumerate()
                .map(|(index, (_, column))| {
                    let read = plan.reads_argument(index);
                    column.as_ref().filter(|_| read).map(|column| column.vector(start, end))
                })
                .collect();
            let cut = |flags: &Vec<u8>| flags[start..end].to_vec();
            let filters: Vec<_> = self.filters.iter().map(|filter| filter.as_ref().map(cut)).collect();
            let mask = self.mask.as_ref().map(|mask| &mask[start..end]);
            let local = &mut locals[turn % workers];
            plan.update(local, &groups, &arguments, &filters, mask, end - start)?;
        }
        let merge = plan.start_merge(locals);
        (0..merge.tasks()).try_for_each(|task| plan.merge(&merge, task))?;
        Ok(plan.output(merge))
    }

    /// Results by group, the simple way; none when a result is outside its type.
    fn expected(&self) -> Option<BTreeMap<String, Vec<Value>>> {
        let mut rows_of: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        if self.groups.is_empty() {
            rows_of.insert(String::new(), Vec::new());
        }
        for row in 0..self.rows {
            if self.mask.as_ref().is_none_or(|mask| mask[row] == 1) {
                let key = self
                    .groups
                    .iter()
                    .map(|group| text(&group.values[row]))
                    .collect::<String>();
                rows_of.entry(key).or_default().push(row);
            }
        }
        let mut results = BTreeMap::new();
        for (key, rows) in rows_of {
            let mut values = Vec::new();
            for ((aggregate, column), filter) in self.aggregates.iter().zip(&self.filters) {
                let passing = rows
                    .iter()
                    .filter(|row| filter.as_ref().is_none_or(|filter| filter[**row] == 1));
                let found = passing.map(|&row| {
                    column
                        .as_ref()
                        .map_or(Value::Boolean(true), |column| column.values[row].clone())
                });
                let scale = match column.as_ref().map(|column| &column.shape.data_type) {
                    Some(Type::Decimal { scale, .. }) => *scale,
                    _ => 0,
                };
                let found: Vec<_> = found.filter(|value| *value != Value::Null).collect();
                values.push(expected(aggregate, scale, found)?);
            }
            results.insert(key, values);
        }
        Some(results)
    }
}

fn value_of(column: &DeviceColumn, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match &column.values {
        Values::Integers { carrier, base } => {
            let value = i128::from(carrier.get(row) + base);
            let (low, high) = column.zone.range.expect("a value is in a range");
            assert!((low..=high).contains(&value), "the zone map holds all values");
            Value::Int(value)
        }
        Values::Wide(values) => Value::Int(values[row]),
        Values::Float32(values) => Value::Float(values[row].into()),
        Values::Float64(values) => Value::Float(values[row]),
        Values::Booleans(values) => Value::Boolean(values.value(row)),
        Values::Codes { codes, dictionary } => Value::Bytes(dictionary.get(codes.get(row)).into()),
        Values::Strings(strings) => Value::Bytes(strings.get(row).into()),
        _ => Value::Null,
    }
}

fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Float(left), Value::Float(right)) => {
            left.is_nan() && right.is_nan()
                || left == right
                || (left - right).abs() <= 1e-9 * left.abs().max(right.abs()).max(1e-3)
        }
        (left, right) => left == right,
    }
}

pub(super) fn check(case: &Case, got: Result<Rows, DeviceError>, what: &str) {
    let Some(mut expected) = case.expected() else {
        assert!(
            matches!(got, Err(DeviceError::Arithmetic(_))),
            "{what}: an overflow is an error"
        );
        return;
    };
    let rows = got.unwrap_or_else(|error| panic!("{what}: {error}"));
    for (count, columns) in &rows.segments {
        assert_eq!(
            columns.len(),
            case.groups.len() + case.aggregates.len(),
            "{what}: columns"
        );
        for row in 0..*count {
            let values: Vec<_> = columns.iter().map(|column| value_of(column, row)).collect();
            let (groups, results) = values.split_at(case.groups.len());
            let key = groups.iter().map(text).collect::<String>();
            let wanted = expected
                .remove(&key)
                .unwrap_or_else(|| panic!("{what}: group {key} twice or unknown"));
            for (index, (got, wanted)) in results.iter().zip(&wanted).enumerate() {
                let aggregate = &case.aggregates[index].0;
                assert!(
                    same(got, wanted),
                    "{what}: group {key} {aggregate:?}: {got:?}, not {wanted:?}"
                );
            }
        }
    }
    assert!(
        expected.is_empty(),
        "{what}: groups missing: {:?}",
        expected.keys().take(3).collect::<Vec<_>>()
    );
}

pub(super) fn decimal(precision: u8, scale: i8) -> Type {
    Type::Decimal { precision, scale }
}

pub(super) fn aggregate(function: AggregateFunction, argument: Option<(usize, Type)>, data_type: Type) -> Aggregate {
    Aggregate {
        function,
        argument: argument.map(|(column, data_type)| Expr::column(column, data_type)),
        distinct: false,
        filter: None,
        order: Vec::new(),
        data_type,
    }
}

fn kinds() -> Vec<Kind> {
    let int = |data_type: Type, low: i128, high: i128| Kind::Int { data_type, low, high };
    let most = 10_i128.pow(38) - 1;
    vec![
        int(Type::Int8, -128, 127),
        int(Type::Int16, -300, 20),
        int(Type::Int32, 0, 3),
        int(Type::Int64, i64::MIN.into(), i64::MAX.into()),
        int(Type::Int64, 1, 70_000),
        int(Type::UInt64, 0, u64::MAX.into()),
        int(Type::Date32, 8000, 8010),
        int(decimal(15, 2), -99_999_999, 100_000_000),
        int(decimal(38, 3), -most, most),
        int(decimal(38, 2), 0, most / 2000),
        int(decimal(30, 0), 10_i128.pow(25), 10_i128.pow(25) + 5),
        Kind::Boolean,
        Kind::Float { narrow: true },
        Kind::Float { narrow: false },
        Kind::Codes(1),
        Kind::Codes(5),
        Kind::Bytes,
        Kind::Null,
    ]
}

fn aggregates_of(kind: &Kind, argument: usize, random: &mut StdRng) -> Aggregate {
    use AggregateFunction as F;
    let data_type = match kind {
        Kind::Int { data_type, .. } => data_type.clone(),
        Kind::Boolean => Type::Boolean,
        Kind::Float { narrow: true } => Type::Float32,
        Kind::Float { narrow: false } => Type::Float64,
        Kind::Codes(_) | Kind::Bytes => Type::Utf8,
        Kind::Null => Type::Null,
    };
    let mut choices = vec![(F::Count, Type::Int64)];
    if !matches!(kind, Kind::Null) {
        choices.extend([(F::Min, data_type.clone()), (F::Max, data_type.clone())]);
    }
    let sum = match &data_type {
        Type::Decimal { precision, scale } => Some((
            decimal((precision + 10).min(38), *scale),
            decimal((precision + 4).min(38), scale + 4),
        )),
        Type::UInt64 => Some((Type::UInt64, Type::Float64)),
        data_type if data_type.is_integer() => Some((Type::Int64, Type::Float64)),
        data_type if data_type.is_float() => Some((Type::Float64, Type::Float64)),
        _ => None,
    };
    if let Some((sum, average)) = sum {
        choices.extend([(F::Sum, sum.clone()), (F::Sum, sum), (F::Average, average)]);
        // Far from zero the two ways to compute a variance differ by more than a hair; of infinities there is none.
        if !data_type.is_float() && !matches!(kind, Kind::Int { low, .. } if *low > 1000) {
            choices.extend(
                [
                    F::VarianceSample,
                    F::VariancePopulation,
                    F::StddevSample,
                    F::StddevPopulation,
                ]
                .map(|function| (function, Type::Float64)),
            );
        }
    }
    if data_type == Type::Boolean {
        choices.extend([(F::BoolAnd, Type::Boolean), (F::BoolOr, Type::Boolean)]);
    }
    let (function, result) = choices.swap_remove(random.random_range(0..choices.len()));
    let mut aggregate = aggregate(function, Some((argument, data_type.clone())), result);
    let countable = matches!(function, F::Count | F::Sum | F::Average) && data_type != Type::Null;
    aggregate.distinct = countable && random.random_bool(0.3);
    aggregate
}

fn random_case(random: &mut StdRng) -> Case {
    let kinds = kinds();
    let rows = [0, 1, 31, 33, 200, 1000, 3000][random.random_range(0..7)];
    let nulls = |random: &mut StdRng| [0.0, 0.0, 0.3, 1.0][random.random_range(0..4)];
    let sorted = random.random_bool(0.4);
    let mut groups = Vec::new();
    for _ in 0..random.random_range(0..4_usize) {
        let kind = &kinds[random.random_range(0..kinds.len())];
        let share = nulls(random);
        let mut group = column(kind, rows, share, random);
        if sorted && random.random_bool(0.8) {
            group.values.sort_by_key(sort_key);
        }
        groups.push(group);
    }
    let mut aggregates = Vec::new();
    let mut filters = Vec::new();
    for index in 0..random.random_range(0..5_usize) {
        let kind = &kinds[random.random_range(0..kinds.len())];
        let share = nulls(random);
        let filtered = random.random_bool(0.2);
        filters.push(filtered.then(|| (0..rows).map(|_| random.random_range(0..2)).collect()));
        let filter = filtered.then(|| Expr::column(100 + index, Type::Boolean));
        if random.random_bool(0.15) {
            let mut count = aggregate(AggregateFunction::Count, None, Type::Int64);
            count.filter = filter;
            aggregates.push((count, None));
            continue;
        }
        let argument = column(kind, rows, share, random);
        let mut wanted = aggregates_of(kind, index, random);
        wanted.filter = filter;
        aggregates.push((wanted, Some(argument)));
    }
    if random.random_bool(0.1)
        && !filters.is_empty()
        && aggregates[0]
            .1
            .as_ref()
            .is_some_and(|column| column.shape.data_type != Type::Null)
    {
        groups.clear();
        aggregates.truncate(1);
        filters = vec![None];
        let argument = aggregates[0].0.argument.take();
        aggregates[0].0 = aggregate(AggregateFunction::Count, None, Type::Int64);
        aggregates[0].0.argument = argument;
        aggregates[0].0.distinct = true;
    }
    let mask = random.random_bool(0.4).then(|| {
        let share = [0.0, 0.05, 0.5, 1.0][random.random_range(0..4)];
        (0..rows).map(|_| u8::from(random.random_bool(share))).collect()
    });
    Case {
        groups,
        aggregates,
        filters,
        mask,
        rows,
    }
}

/// The rungs that can hold a case's keys.
fn rungs(case: &Case) -> Vec<Option<Rung>> {
    let (groups, _) = case.shapes();
    let fitting = KeyPlan::new(&groups, case.rows, None);
    if groups.is_empty() {
        return vec![None];
    }
    let bits: u32 = fitting.columns.iter().map(|column| column.bits).sum();
    let mut rungs = vec![fitting.rung, Rung::Bytes];
    if bits <= 128 {
        rungs.push(Rung::Packed128);
    }
    if bits <= 64 {
        rungs.push(Rung::Packed64);
    }
    if fitting.rung == Rung::Tiny {
        rungs.push(Rung::Direct);
    }
    if fitting.direct() {
        rungs.push(Rung::DirectShared);
    }
    rungs.into_iter().map(Some).collect()
}

#[test]
fn all_rungs_agree_with_lists() {
    let seed: u64 = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random);
    let rounds = std::env::var("ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(150);
    for round in 0..rounds {
        let seed = seed.wrapping_add(round);
        let mut random = StdRng::seed_from_u64(seed);
        let case = random_case(&mut random);
        for rung in rungs(&case) {
            for isa in [Isa::detect(), Isa::Baseline] {
                let workers = random.random_range(1..4);
                let tile = [7, 64, 1000, 2048][random.random_range(0..4)];
                let most = [1, 50, 100_000][random.random_range(0..3)];
                let what = format!("SEED={seed} {rung:?} {isa:?} workers {workers} tile {tile} local groups {most}");
                check(&case, case.run(rung, workers, isa, tile, most), &what);
            }
        }
    }
}
