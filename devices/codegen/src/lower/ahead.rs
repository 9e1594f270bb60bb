//! Columns that are loaded ahead: those that every row of the source needs, for all rows that a work-item takes of a tile.
//!
//! ```text
//!  row 0, row 1, row 2, row 3:  load, load, load, load        in flight together
//!  for k in 0 … 4:              if filter(value of row k) …   loads of the rest, where the row is still there
//! ```
//!
//! One load after another would leave the memory of a GPU idle: columns are narrow, and the work-items too few.

use trireme_device_api::{Expr, Node, Sink as SinkPlan, Step};

use super::steps::lazy;
use super::{Kind, Lowered, Lowering, Row, Slot, Value};
use crate::build;
use crate::ir::{Expr as Ir, Scalar};

/// 32-bit registers that may hold values ahead.
const REGISTERS_MAX: u32 = 48;

/// A column's values in the rows of a tile.
pub(super) struct Ahead {
    column: usize,
    values: Vec<Value>,
}

/// Columns of the row, by position in the source's; none for what is computed.
type Origins = Vec<Option<usize>>;

fn add(columns: &mut Vec<usize>, origins: &Origins, expr: &Expr) {
    for index in expr.columns() {
        if let Some(Some(column)) = origins.get(index)
            && !columns.contains(column)
        {
            columns.push(*column);
        }
    }
}

fn sink_exprs(sink: &SinkPlan) -> Vec<&Expr> {
    match sink {
        SinkPlan::Aggregate { groups, aggregates } => {
            let arguments = aggregates.iter().flat_map(|aggregate| &aggregate.argument);
            groups.iter().chain(arguments).collect()
        }
        SinkPlan::Build(side) => side.keys.iter().chain(&side.payload).collect(),
        SinkPlan::Sort { keys, .. } => keys.iter().map(|key| &key.expr).collect(),
        SinkPlan::Emit { .. } => Vec::new(),
    }
}

impl Lowering<'_> {
    /// Source columns that every row needs, most needed first.
    fn needed(&self, columns: usize) -> Vec<usize> {
        let mut origins: Origins = (0..columns).map(Some).collect();
        let mut needed = Vec::new();
        let mut filtered = false;
        let fragment = self.fragment();
        for step in &fragment.steps[self.own_steps()] {
            match step {
                Step::Filter(predicate) => {
                    add(&mut needed, &origins, predicate);
                    filtered = true;
                }
                _ if filtered => return needed,
                Step::Project(exprs) => {
                    let mut next = Vec::with_capacity(exprs.len());
                    for expr in exprs {
                        next.push(match expr.node {
                            Node::Column(index) => origins.get(index).copied().flatten(),
                            _ => {
                                add(&mut needed, &origins, expr);
                                None
                            }
                        });
                    }
                    origins = next;
                }
                Step::Probe(probe) => {
                    probe.keys.iter().for_each(|key| add(&mut needed, &origins, key));
                    return needed;
                }
            }
        }
        if !filtered && self.until.is_none() {
            sink_exprs(&fragment.sink)
                .into_iter()
                .for_each(|expr| add(&mut needed, &origins, expr));
            if matches!(fragment.sink, SinkPlan::Emit { .. }) {
                origins.into_iter().flatten().for_each(|column| {
                    if !needed.contains(&column) {
                        needed.push(column);
                    }
                });
            }
        }
        needed
    }

    /// Loads what every row needs of so many columns, in each of the rows `rows`.
    pub(super) fn load_ahead(
        &mut self,
        columns: usize,
        rows: &[Ir],
        load: &mut dyn FnMut(&mut Self, usize, &Ir) -> Lowered<Value>,
    ) -> Lowered<Vec<Ahead>> {
        let mut registers = 0;
        let mut ahead = Vec::new();
        for column in self.needed(columns) {
            self.b.begin();
            let values = rows
                .iter()
                .map(|row| load(self, column, row))
                .collect::<Lowered<Vec<Value>>>();
            let stmts = self.b.end();
            let values = values?;
            registers += values.iter().map(registers_of).sum::<u32>();
            if registers > REGISTERS_MAX {
                break;
            }
            stmts.into_iter().for_each(|stmt| self.b.push(stmt));
            ahead.push(Ahead { column, values });
        }
        Ok(ahead)
    }
}

/// Puts the values of row number `k` (U32) of a tile into its row.
pub(super) fn put(ahead: &[Ahead], k: &Ir, row: &mut Row) {
    for Ahead { column, values } in ahead {
        row.slots[*column] = of_row(values.clone(), k);
    }
}

fn of_row(values: Vec<Value>, k: &Ir) -> Slot {
    let k = k.clone();
    lazy(move |l| {
        let pick = |l: &mut Lowering<'_>, scalar: Scalar, of: &dyn Fn(&Value) -> Ir| {
            let mut number = u32::try_from(values.len()).unwrap_or(u32::MAX);
            let chosen = values.iter().rev().fold(None, |rest: Option<Ir>, value| {
                number -= 1;
                Some(match rest {
                    Some(rest) => k.clone().eq(build::u32(number)).select(of(value), rest),
                    None => of(value),
                })
            });
            chosen.map(|chosen| Ir::from(l.b.set(scalar, chosen)))
        };
        let Some(first) = values.first() else {
            return Err(super::Unsupported("a tile without rows".to_owned()));
        };
        let ir = pick(l, scalar_of(first), &|value| value.ir.clone());
        let null = match &first.null {
            Some(_) => pick(l, Scalar::Bool, &|value| {
                value.null.clone().unwrap_or(build::bool(false))
            }),
            None => None,
        };
        Ok(Value {
            ir: ir.unwrap_or_else(|| first.ir.clone()),
            null,
            shape: first.shape.clone(),
        })
    })
}

fn scalar_of(value: &Value) -> Scalar {
    match value.shape.kind {
        Kind::Boolean | Kind::Null => Scalar::Bool,
        Kind::Integer(lane) => lane,
        Kind::Float32 => Scalar::F32,
        Kind::Float64 => Scalar::F64,
        Kind::Code(_) => Scalar::U32,
        Kind::Text => Scalar::U64,
    }
}

fn registers_of(value: &Value) -> u32 {
    let words = match scalar_of(value) {
        Scalar::Bool | Scalar::I32 | Scalar::U32 | Scalar::F32 => 1,
        Scalar::I64 | Scalar::U64 | Scalar::F64 => 2,
        Scalar::I128 => 4,
    };
    words + u32::from(value.null.is_some())
}
