//! Every kind of join on every type of key.

use trireme_device_api::{BinaryOperator, BuildSide, Expr, JoinKind, Probe, Sink, Step, Type, Value};

use super::{EMIT, Extent, Pipeline, Table, Take, case};
use crate::conformance::{Mismatch, type_name};
use crate::generate::{Case, Flavor, Nulls, all_types};
use crate::inputs::Segmentation;

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

/// What the keys are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Plain,
    NullsEqual,
    NullAware,
    Residual,
}

/// One join: a build side of (keys, Int32), a probe side of (keys, Int64).
struct Join {
    kind: JoinKind,
    mode: Mode,
    keys: Vec<Type>,
    flavor: Flavor,
    build: (usize, Nulls),
    probe: (usize, Nulls),
    seed: u64,
}

impl Join {
    /// The build side and the probe side, with keys in common.
    fn tables(&self) -> (Table, Table) {
        let table = |(rows, nulls): (usize, Nulls), payload: Type, seed: u64| {
            let mut columns: Vec<_> = self.keys.iter().map(|key| (key.clone(), nulls, self.flavor)).collect();
            columns.push((payload, Nulls::Some, Flavor::Small));
            Table::new(&columns, rows, seed)
        };
        let count = self.keys.len();
        let mut build = table(self.build, Type::Int32, self.seed);
        let probe = table(self.probe, Type::Int64, self.seed + 1);
        // Wide keys would never match.
        for (row, other) in build.rows.iter_mut().zip(&probe.rows).step_by(2) {
            let both_null = |column: usize| other[column] == Value::Null && self.build.1 == Nulls::None;
            if !(0..count).any(both_null) {
                row[..count].clone_from_slice(&other[..count]);
            }
        }
        for (column, field) in build.fields.iter_mut().enumerate() {
            field.nullable = build.rows.iter().any(|row| row[column] == Value::Null);
        }
        (build, probe)
    }

    fn case(&self) -> Case {
        let keys = || {
            let columns = self.keys.iter().enumerate();
            let columns = columns.map(|(index, key)| Expr::column(index, key.clone()));
            columns.collect::<Vec<_>>()
        };
        let count = self.keys.len();
        let (build, probe) = self.tables();
        let payload = vec![
            Expr::column(count, Type::Int32),
            Expr::column(0, build.fields[0].data_type.clone()),
        ];
        let payload_types: Vec<Type> = payload.iter().map(|expr| expr.data_type.clone()).collect();
        let row_types: Vec<Type> = probe.fields.iter().map(|field| field.data_type.clone()).collect();
        let output = match self.kind {
            JoinKind::Inner | JoinKind::Left | JoinKind::BuildOuter | JoinKind::Full => {
                [row_types, payload_types.clone()].concat()
            }
            JoinKind::Semi | JoinKind::Anti => row_types,
            JoinKind::Mark => [row_types, vec![Type::Boolean]].concat(),
            JoinKind::BuildSemi | JoinKind::BuildAnti => payload_types.clone(),
        };
        let small = Expr::binary(
            BinaryOperator::Greater,
            Expr::column(count + 1, Type::Int32),
            Expr::literal(Value::Int(2), Type::Int32),
            Type::Boolean,
        );
        let step = Step::Probe(Probe {
            build: 0,
            kind: self.kind,
            keys: keys(),
            residual: (self.mode == Mode::Residual).then_some(small),
            null_equals_null: self.mode == Mode::NullsEqual,
            null_aware: self.mode == Mode::NullAware,
        });
        let names: Vec<String> = self.keys.iter().map(type_name).collect();
        let name = format!(
            "{:?} {:?} join on {} ({:?})",
            self.kind,
            self.mode,
            names.join(", "),
            self.flavor
        );
        let pipelines = vec![
            Pipeline {
                table: build,
                steps: Vec::new(),
                sink: Sink::Build(BuildSide { keys: keys(), payload }),
                output: payload_types,
            },
            Pipeline {
                table: probe,
                steps: vec![step],
                sink: EMIT,
                output,
            },
        ];
        case(name, Segmentation::Random, self.seed, pipelines)
    }
}

/// Spreads the types that a quick matrix leaves out over the kinds.
fn place_of(kind: JoinKind) -> usize {
    KINDS.iter().position(|other| *other == kind).unwrap_or_default()
}

/// Makes joins with seeds of their own.
struct Joins<'a, 'b> {
    extent: Extent,
    take: &'a mut Take<'b>,
    seed: u64,
    kind: JoinKind,
    mode: Mode,
}

/// Every kind, mode and key type; several keys; none; empty sides; many duplicates.
pub(super) fn joins(extent: Extent, take: &mut Take<'_>) -> Result<(), Box<Mismatch>> {
    let types = all_types()
        .into_iter()
        .filter(|data_type| !matches!(data_type, Type::Null | Type::Interval(_)));
    let types: Vec<Type> = types.collect();
    let mut joins = Joins {
        extent,
        take,
        seed: 40_000,
        kind: JoinKind::Inner,
        mode: Mode::Plain,
    };
    for kind in KINDS {
        for mode in [Mode::Plain, Mode::NullsEqual, Mode::NullAware, Mode::Residual] {
            (joins.kind, joins.mode) = (kind, mode);
            joins.of_types(&types)?;
            joins.of_sizes()?;
        }
    }
    Ok(())
}

impl Joins<'_, '_> {
    fn one(
        &mut self,
        keys: &[Type],
        flavor: Flavor,
        build: (usize, Nulls),
        probe: (usize, Nulls),
    ) -> Result<(), Box<Mismatch>> {
        self.seed += 2;
        let (kind, mode) = (self.kind, self.mode);
        let null_aware_elsewhere = mode == Mode::NullAware && (kind != JoinKind::Anti || keys.len() != 1);
        if null_aware_elsewhere || (mode == Mode::NullsEqual && keys.is_empty()) {
            return Ok(());
        }
        let join = Join {
            kind,
            mode,
            keys: keys.to_vec(),
            flavor,
            build,
            probe,
            seed: self.seed,
        };
        (self.take)(join.case())
    }

    fn of_types(&mut self, types: &[Type]) -> Result<(), Box<Mismatch>> {
        for (index, data_type) in types.iter().enumerate() {
            let usual = matches!(data_type, Type::Int32 | Type::Int64 | Type::Utf8 | Type::Float64);
            if self.extent == Extent::Quick && !usual && !(index + place_of(self.kind)).is_multiple_of(4) {
                continue;
            }
            let key = std::slice::from_ref(data_type);
            self.one(key, Flavor::Small, (20, Nulls::Some), (50, Nulls::Some))?;
            if self.extent == Extent::Full {
                self.one(key, Flavor::Wide, (200, Nulls::None), (300, Nulls::Some))?;
                self.one(key, Flavor::Skewed, (60, Nulls::Runs), (60, Nulls::None))?;
                self.one(key, Flavor::Extreme, (10, Nulls::None), (20, Nulls::None))?;
                self.one(key, Flavor::Sorted, (300, Nulls::None), (300, Nulls::All))?;
            }
        }
        Ok(())
    }

    fn of_sizes(&mut self) -> Result<(), Box<Mismatch>> {
        let several = [
            vec![],
            vec![Type::Int32, Type::Utf8],
            vec![Type::Int64, Type::Date32, Type::Int8],
        ];
        for keys in &several {
            for (build, probe) in [(0, 10), (10, 0), (1, 40), (30, 30)] {
                self.one(keys, Flavor::Small, (build, Nulls::Some), (probe, Nulls::Some))?;
            }
        }
        for (build, probe) in [(0, 20), (20, 0), (1, 1)] {
            self.one(
                &[Type::Int32],
                Flavor::Small,
                (build, Nulls::None),
                (probe, Nulls::Some),
            )?;
            self.one(
                &[Type::Utf8View],
                Flavor::Small,
                (build, Nulls::All),
                (probe, Nulls::None),
            )?;
        }
        let (build, probe) = if self.extent == Extent::Full {
            (3_000, 5_000)
        } else {
            (300, 2_100)
        };
        self.one(&[Type::Int64], Flavor::Wide, (build, Nulls::None), (probe, Nulls::Some))
    }
}
