//! Probes: what happens to a row for its matches, and to build rows afterwards.
//!
//! The remaining steps are written once, whatever the kind: a row without a match is one more turn of the loop over matches.

use trireme_device_api::{JoinKind, Probe, Type};

use super::super::{Key, Lowered, Lowering, Pass, Row, Shape, Sink, Slot, Unsupported, Value};
use super::BuildShape;
use super::rows;
use super::table::{Table, Tally, Walk, either};
use super::uses::{appends, has_pass};
use crate::build::{bool, place, u32, u64};
use crate::ir::{Atomic, Elem, Expr as Ir, Scalar, Stmt, Target, Var};
use crate::program::{Fill, Lifetime, Region};
use crate::shape::{RegionRef, ResidentColumn};

/// The probe at step `index`: for each match the remaining steps ([`Lowering::steps`] from `index + 1`).
pub(crate) fn probe(
    l: &mut Lowering<'_>,
    index: usize,
    probe: &Probe,
    row: &mut Row,
    sink: &mut dyn Sink,
) -> Lowered<()> {
    let join = Join::new(l, index, probe, row)?;
    if has_pass(probe.kind) {
        for slot in &mut row.slots {
            *slot = nullable(slot.clone());
        }
    }
    let mut keys = Vec::new();
    for key in &probe.keys {
        keys.push(l.expr(row, key)?);
    }
    let key = join.key(l, &keys)?;
    match probe.kind {
        JoinKind::BuildSemi | JoinKind::BuildAnti => join.mark_build_rows(l, &key, row),
        JoinKind::Semi | JoinKind::Anti | JoinKind::Mark => {
            let found = join.exists(l, &key, row)?;
            join.by_existence(l, &keys, found, row, sink)
        }
        _ if join.build.matches_max() <= 1 => join.one(l, &key, row, sink),
        _ => join.several(l, &key, row, sink),
    }
}

/// U64: the hash that the probe looks a row up by.
pub(crate) fn probe_hash(l: &mut Lowering<'_>, probe: &Probe, row: &mut Row) -> Lowered<Ir> {
    let Some(build) = l.build_shape(probe).cloned() else {
        return Err(Unsupported("its build side is elsewhere".to_owned()));
    };
    let keys: Vec<Value> = probe.keys.iter().map(|key| l.expr(row, key)).collect::<Lowered<_>>()?;
    let key = l.key(&build.key, &keys)?;
    Ok(l.hash(&key).into())
}

/// A column that other rows have NULLs in: those that a pass gives.
fn nullable(slot: Slot) -> Slot {
    let with = |mut value: Value| {
        value.null = Some(value.null.unwrap_or(bool(false)));
        value
    };
    match slot {
        Slot::Value(value) => Slot::Value(with(value)),
        Slot::Load(load) => super::super::steps::lazy(move |l| load(l).map(with)),
    }
}

/// A probe in the making.
struct Join<'p> {
    index: usize,
    probe: &'p Probe,
    build: BuildShape,
    /// Types and places of the payload.
    payload: Vec<(Type, Option<ResidentColumn>)>,
    /// A bit per build row, of kinds with a pass: it has a match.
    matched: Option<RegionRef>,
}

impl<'p> Join<'p> {
    fn new(l: &mut Lowering<'_>, index: usize, probe: &'p Probe, row: &Row) -> Lowered<Self> {
        let build = match l.build_shape(probe) {
            Some(build) => build.clone(),
            None => return Err(Unsupported("its build side is elsewhere".to_owned())),
        };
        let payload = payload(l, &build, probe);
        let mut matched = None;
        if has_pass(probe.kind) {
            let pass = l.pass(index, |l| {
                Ok(Pass {
                    step: index,
                    count: build.count,
                    bound: build.bound,
                    matched: l.region(Region {
                        name: format!("matched {index}"),
                        bytes: build.bound.div_ceil(32) * 4,
                        fill: Fill::Byte(0),
                        lifetime: Lifetime::Scratch,
                    }),
                    row: if appends(probe.kind) {
                        shapes(l, row)?
                    } else {
                        Vec::new()
                    },
                })
            })?;
            matched = Some(pass.matched);
        }
        Ok(Self {
            index,
            probe,
            build,
            payload,
            matched,
        })
    }

    /// The row's key, and where nothing matches it.
    fn key(&self, l: &mut Lowering<'_>, keys: &[Value]) -> Lowered<(Key, Option<Ir>)> {
        if keys.is_empty() {
            let key = Key {
                words: Vec::new(),
                null: None,
                impossible: None,
            };
            return Ok((key, None));
        }
        if !keys.iter().map(scale).eq(self.build.scales.iter().copied()) {
            return Err(Unsupported("join keys of different scales".to_owned()));
        }
        let key = l.key(&self.build.key, keys)?;
        let mut absent = either(key.null.clone(), key.impossible.clone());
        if self.build.nulls_equal && !self.probe.null_equals_null {
            absent = either(absent, any_null(l, keys));
        }
        let absent = absent.map(|absent| l.b.set(Scalar::Bool, absent).into());
        Ok((key, absent))
    }

    /// Whether a build row is a match, its key being equal: statements of the condition are appended.
    fn residual(&self, l: &mut Lowering<'_>, row: &mut Row) -> Lowered<Option<Ir>> {
        match &self.probe.residual {
            Some(residual) => l.condition(row, residual).map(Some),
            None => Ok(None),
        }
    }

    /// The row ++ the build row's columns; NULLs where `absent`.
    fn joined(&self, row: &Row, at: &Ir, absent: Option<&Ir>) -> Row {
        let mut joined = row.clone();
        joined.slots.extend(rows::slots(&self.payload, at, absent));
        joined
    }

    /// Notes that a build row has a match.
    fn note(&self, l: &mut Lowering<'_>, at: &Ir) -> Lowered<()> {
        let Some(matched) = self.matched else {
            return Ok(());
        };
        let base = l.base(matched);
        let target = Target::Arena(place(Elem::U32, base, at.clone().shr(u32(5))));
        let bit = l.b.set(Scalar::U32, u32(1).shl(at.clone().and(u32(31))));
        let known = l.b.fetch(Scalar::U32, target.clone(), Atomic::Load);
        l.when(Ir::from(known).and(bit.into()).eq(u32(0)), |l| {
            l.b.atomic(target, Atomic::Or(bit.into()));
            Ok(())
        })
    }

    /// `inside` for each match, with the joined row and the build row's number.
    fn matches(
        &self,
        l: &mut Lowering<'_>,
        (key, absent): &(Key, Option<Ir>),
        row: &Row,
        inside: &mut dyn FnMut(&mut Lowering<'_>, Ir, &mut Row) -> Lowered<()>,
    ) -> Lowered<()> {
        let walk = l.join_walk(&self.build, key, absent.clone())?;
        l.join_each(&self.build, key, &walk, &mut |l, at| {
            let mut joined = self.joined(row, &at, None);
            match self.residual(l, &mut joined)? {
                Some(condition) => l.when(condition, |l| inside(l, at, &mut joined)),
                None => inside(l, at, &mut joined),
            }
        })
    }

    /// Kinds that give build rows only: each match is noted.
    fn mark_build_rows(&self, l: &mut Lowering<'_>, key: &(Key, Option<Ir>), row: &Row) -> Lowered<()> {
        self.matches(l, key, row, &mut |l, at, _| self.note(l, &at))
    }

    /// Bool: whether there is a match.
    fn exists(&self, l: &mut Lowering<'_>, key: &(Key, Option<Ir>), row: &Row) -> Lowered<Ir> {
        match self.build.table {
            Table::Bits(bits) => return l.join_bit(bits, &key.0, key.1.clone()).map(Ir::from),
            Table::Dense { bits: Some(bits), .. } if self.probe.residual.is_none() => {
                return l.join_bit(bits, &key.0, key.1.clone()).map(Ir::from);
            }
            _ => {}
        }
        Ok(self.first(l, key, row)?.0.into())
    }

    /// The first match: whether there is one (Bool), and the build row's number (U32), 0 where there is none.
    fn first(&self, l: &mut Lowering<'_>, key: &(Key, Option<Ir>), row: &Row) -> Lowered<(Var, Var)> {
        let found = l.b.set(Scalar::Bool, bool(false));
        let first = l.b.set(Scalar::U32, u32(0));
        self.matches(l, key, row, &mut |l, at, _| {
            l.b.assign(found, bool(true));
            l.b.assign(first, at);
            l.b.push(Stmt::Break);
            Ok(())
        })?;
        Ok((found, first))
    }

    fn by_existence(
        &self,
        l: &mut Lowering<'_>,
        keys: &[Value],
        found: Ir,
        row: &mut Row,
        sink: &mut dyn Sink,
    ) -> Lowered<()> {
        let mut row = row.clone();
        let passes = match self.probe.kind {
            JoinKind::Semi => found,
            JoinKind::Mark => {
                row.slots.push(Slot::Value(Value {
                    ir: found,
                    null: None,
                    shape: Shape {
                        data_type: Type::Boolean,
                        kind: super::super::Kind::Boolean,
                        range: None,
                    },
                }));
                return l.steps(self.index + 1, &mut row, sink);
            }
            _ if self.probe.null_aware => {
                let empty = load(l, self.build.count, 0).eq(u64(0));
                let null_key = load(l, self.build.tally, Tally::NullKey as usize).ne(u64(0));
                let blocked = either(Some(found.or(null_key)), any_null(l, keys)).unwrap_or(bool(false));
                l.b.set(Scalar::Bool, empty.or(blocked.not())).into()
            }
            _ => found.not(),
        };
        l.when(passes, |l| l.steps(self.index + 1, &mut row, sink))
    }

    /// Where a row has one match at most.
    fn one(&self, l: &mut Lowering<'_>, key: &(Key, Option<Ir>), row: &Row, sink: &mut dyn Sink) -> Lowered<()> {
        let (found, at) = self.first(l, key, row)?;
        let (found, at) = (Ir::from(found), Ir::from(at));
        if self.matched.is_some() {
            l.when(found.clone(), |l| self.note(l, &at))?;
        }
        if matches!(self.probe.kind, JoinKind::Left | JoinKind::Full) {
            let absent = l.b.set(Scalar::Bool, found.not());
            let mut joined = self.joined(row, &at, Some(&absent.into()));
            return l.steps(self.index + 1, &mut joined, sink);
        }
        let mut joined = self.joined(row, &at, None);
        l.when(found, |l| l.steps(self.index + 1, &mut joined, sink))
    }

    /// Where a row may have several matches: the remaining steps stand in the loop.
    fn several(&self, l: &mut Lowering<'_>, key: &(Key, Option<Ir>), row: &Row, sink: &mut dyn Sink) -> Lowered<()> {
        if !matches!(self.probe.kind, JoinKind::Left | JoinKind::Full) {
            return self.matches(l, key, row, &mut |l, at, joined| {
                self.note(l, &at)?;
                l.steps(self.index + 1, joined, sink)
            });
        }
        let walk = l.join_walk(&self.build, &key.0, key.1.clone())?;
        let settled = l.b.set(Scalar::Bool, bool(false));
        l.repeat(|l| {
            let at = l.b.set(Scalar::U32, u32(0));
            let absent = l.b.set(Scalar::Bool, bool(false));
            let passes = l.b.set(Scalar::Bool, bool(false));
            let last = Ir::from(walk.head).eq(u32(0));
            l.either(
                last,
                |l| {
                    l.b.when(settled.into(), |b| b.push(Stmt::Break));
                    for var in [settled, absent, passes] {
                        l.b.assign(var, bool(true));
                    }
                    Ok(())
                },
                |l| self.candidate(l, &key.0, &walk, row, (at, settled, passes)),
            )?;
            let mut joined = self.joined(row, &at.into(), Some(&absent.into()));
            l.when(passes.into(), |l| l.steps(self.index + 1, &mut joined, sink))
        })
    }

    /// One candidate of an outer probe: notes it when it is a match.
    fn candidate(
        &self,
        l: &mut Lowering<'_>,
        key: &Key,
        walk: &Walk,
        row: &Row,
        (at, settled, passes): (Var, Var, Var),
    ) -> Lowered<()> {
        l.join_candidate(&self.build, key, walk, &mut |l, candidate| {
            let mut joined = self.joined(row, &candidate, None);
            let is_match = self.residual(l, &mut joined)?;
            l.unless(is_match.map(Ir::not), |l| {
                l.b.assign(at, candidate.clone());
                l.b.assign(settled, bool(true));
                l.b.assign(passes, bool(true));
                self.note(l, &candidate)
            })
        })
    }
}

/// Types and places of a build side's payload.
fn payload(l: &Lowering<'_>, build: &BuildShape, probe: &Probe) -> Vec<(Type, Option<ResidentColumn>)> {
    let fields = l
        .graph
        .fragments
        .get(probe.build)
        .map_or(&[][..], |fragment| &fragment.output);
    let types = fields.iter().map(|field| field.data_type.clone());
    types.zip(build.columns.iter().cloned()).collect()
}

/// Digits after the point.
pub(super) fn scale(value: &Value) -> i8 {
    match value.shape.data_type {
        Type::Decimal { scale, .. } => scale,
        _ => 0,
    }
}

/// Bool: some value is NULL.
pub(super) fn any_null(l: &mut Lowering<'_>, values: &[Value]) -> Option<Ir> {
    let nulls = values.iter().filter_map(|value| value.null.clone());
    let any = nulls.reduce(Ir::or)?;
    Some(l.b.set(Scalar::Bool, any).into())
}

/// Shapes of a row's columns. Columns are loaded aside to know them.
fn shapes(l: &mut Lowering<'_>, row: &Row) -> Lowered<Vec<Shape>> {
    let mut aside = row.clone();
    let mut shapes = Vec::new();
    l.block(|l| {
        for column in 0..aside.slots.len() {
            shapes.push(aside.column(l, column)?.shape);
        }
        Ok(())
    })?;
    Ok(shapes)
}

/// A word of 64 bits that nothing writes meanwhile.
pub(super) fn load(l: &mut Lowering<'_>, region: RegionRef, index: usize) -> Ir {
    let base = l.base(region);
    l.b.load(place(Elem::U64, base, u64(index as u64))).into()
}

/// Build row number `build_row` (U32, below the pass's count) in the kernel of a pass: the remaining steps, if it is to pass.
pub(crate) fn pass_row(l: &mut Lowering<'_>, pass: &Pass, build_row: &Ir, sink: &mut dyn Sink) -> Lowered<()> {
    let fragment = l.fragment();
    let Some(trireme_device_api::Step::Probe(probe)) = fragment.steps.get(pass.step) else {
        return Err(Unsupported("a pass of no probe".to_owned()));
    };
    let Some(build) = l.build_shape(probe).cloned() else {
        return Err(Unsupported("its build side is elsewhere".to_owned()));
    };
    let payload = payload(l, &build, probe);
    let base = l.base(pass.matched);
    let word = l.b.load(place(Elem::U32, base, build_row.clone().shr(u32(5))));
    let bit = Ir::from(word).shr(build_row.clone().and(u32(31))).and(u32(1));
    let wanted = u32(u32::from(probe.kind == JoinKind::BuildSemi));
    let mut slots: Vec<Slot> = pass
        .row
        .iter()
        .map(|shape| Slot::Value(rows::null_of(l, shape)))
        .collect();
    slots.extend(rows::slots(&payload, build_row, None));
    l.when(bit.eq(wanted), |l| l.steps(pass.step + 1, &mut Row { slots }, sink))
}
