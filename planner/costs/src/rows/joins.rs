//! How many rows joins give, and how many groups there are.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use trireme_device_api::{Aggregate, AggregateFunction, Expr, JoinKind, Node};

use super::sample::Part;
use super::sketch::Common;
use super::{ColumnEstimate, Estimate, Rules, column_of, kept_distinct};

const COUNTS_PER_ROW: f64 = 4.0;

/// What a join joins by.
#[derive(Debug, Clone, Copy)]
pub struct Pairing<'a> {
    /// What is left of the pairs.
    pub kind: JoinKind,
    /// Over the probing rows.
    pub probe_keys: &'a [Expr],
    /// Over the build rows.
    pub build_keys: &'a [Expr],
    /// Over pairs.
    pub residual: Option<&'a Expr>,
}

impl Rules<'_> {
    /// What a join gives: both sides' columns, or those of the side that is kept.
    pub fn joined(&self, join: &Pairing<'_>, probe: &Estimate, build: &Estimate) -> Estimate {
        let keys = || join.probe_keys.iter().zip(join.build_keys);
        let mut inner = match_rows(probe.into(), build.into(), keys(), None);
        let parts: Arc<[Part]> = probe.parts.iter().chain(&*build.parts).cloned().collect();
        let both = || {
            let moved = build.columns.iter().map(|column| column.moved(probe.parts.len()));
            probe.columns.iter().copied().chain(moved)
        };
        if let Some(residual) = join.residual {
            let pair = Estimate {
                rows: inner,
                columns: both().collect(),
                parts: Arc::clone(&parts),
            };
            inner = self.filtered(&pair, std::slice::from_ref(residual)).rows;
        }
        let sure = join.residual.map_or(1.0, |_| 0.8);
        let found = |own: &Estimate, other: &Estimate, swap: bool| {
            let sides = |swap: bool| keys().map(move |(probe, build)| if swap { build } else { probe });
            let domain = Side::from(own)
                .domain(sides(swap))
                .min(Side::from(other).domain(sides(!swap)));
            let values: f64 = sides(!swap).map(|key| other.distinct(key)).product();
            (values.min(other.rows) / domain.max(1.0)).min(1.0) * sure
        };
        let (rows, columns): (f64, Vec<_>) = match join.kind {
            JoinKind::Inner => (inner, both().collect()),
            JoinKind::Left => (inner.max(probe.rows), both().collect()),
            JoinKind::BuildOuter => (inner.max(build.rows), both().collect()),
            JoinKind::Full => (inner.max(probe.rows).max(build.rows), both().collect()),
            JoinKind::Semi => {
                let mut kept = probe.scaled(found(probe, build, false));
                for (left, right) in keys() {
                    if let Some(column) = column_of(left).and_then(|index| kept.columns.get_mut(index)) {
                        column.distinct = column.distinct.min(build.distinct(right));
                    }
                }
                return kept;
            }
            JoinKind::Anti => return probe.scaled((1.0 - found(probe, build, false)).max(0.1)),
            JoinKind::BuildSemi => return build.scaled(found(build, probe, true)),
            JoinKind::BuildAnti => return build.scaled((1.0 - found(build, probe, true)).max(0.1)),
            JoinKind::Mark => {
                let mark = [ColumnEstimate::made(2.0, probe.rows)];
                (probe.rows, probe.columns.iter().copied().chain(mark).collect())
            }
        };
        let columns = columns.into_iter().map(|column| ColumnEstimate {
            distinct: column.distinct.min(rows.max(1.0)),
            // Outer joins make NULLs, inner ones take them away.
            nulls: None,
            ..column
        });
        let mut joined = Estimate {
            rows: rows.max(1.0),
            columns: columns.collect(),
            parts,
        };
        if join.kind == JoinKind::Inner {
            for (left, right) in keys() {
                let most = probe.distinct(left).min(build.distinct(right));
                let right = column_of(right).map(|index| probe.columns.len() + index);
                for index in column_of(left).into_iter().chain(right) {
                    if let Some(column) = joined.columns.get_mut(index) {
                        column.distinct = column.distinct.min(most);
                    }
                }
            }
        }
        joined
    }
}

/// Chances that rows meet, by the columns of both sides' samples.
pub type Meets = RefCell<HashMap<[Option<(u16, u16)>; 2], Option<f64>>>;

/// Pairs with equal keys. One side's keys are among the other's, as foreign keys are: the smaller domain is that of the
/// primary key, whose distinct values are known best. `meets` keeps what was made out of samples, which are the same in all
/// estimates that it is used for.
pub fn match_rows<'e>(
    left: Side<'_>,
    right: Side<'_>,
    keys: impl Iterator<Item = (&'e Expr, &'e Expr)> + Clone,
    meets: Option<&Meets>,
) -> f64 {
    let on_left = left.domain(keys.clone().map(|(left, _)| left));
    let on_right = right.domain(keys.clone().map(|(_, right)| right));
    let mut domain = on_left.min(on_right).max(1.0);
    let mut pairs = keys;
    if let (Some((a, b)), None) = (pairs.next(), pairs.next())
        && let (Some(a), Some(b)) = (left.estimate.column(a), right.estimate.column(b))
        && a.counted
        && b.counted
    {
        // Of two columns that were counted the one with fewer values may lack some of the other's.
        domain = on_left.max(on_right).max(1.0);
        let found = || skew((left.estimate, a), (right.estimate, b));
        let meet = match meets {
            Some(meets) => *meets.borrow_mut().entry([a.sampled, b.sampled]).or_insert_with(found),
            None => found(),
        };
        if let Some(meet) = meet {
            return (left.rows * right.rows * meet).max(1.0);
        }
    }
    (left.rows * right.rows / domain).max(1.0)
}

/// One of two sets of rows that are joined.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// Its columns, and maybe others.
    pub estimate: &'a Estimate,
    /// Its rows, whatever the estimate says.
    pub rows: f64,
}

impl<'a> From<&'a Estimate> for Side<'a> {
    fn from(estimate: &'a Estimate) -> Self {
        Self {
            estimate,
            rows: estimate.rows,
        }
    }
}

impl Side<'_> {
    /// Distinct values of the whole columns that keys come from.
    fn domain<'e>(&self, keys: impl Iterator<Item = &'e Expr>) -> f64 {
        let (mut values, mut rows) = (1.0, 1.0_f64);
        for key in keys {
            match self.estimate.column(key) {
                Some(column) => {
                    values *= column.domain;
                    rows = rows.max(column.base_rows);
                }
                None => {
                    values *= self.estimate.distinct(key).min(self.rows).max(1.0);
                    rows = rows.max(self.rows);
                }
            }
        }
        // Keys of several columns go together: there are no more of them than rows.
        values.min(rows)
    }
}

/// Rows of a table that was sampled whole, of which so few are left that each is looked at.
const LOOKED_AT: usize = 500;

/// How a column's values are spread: the common ones of the whole column, or all where few rows of a whole table are left.
fn spread<'p>(of: &'p Estimate, column: &ColumnEstimate) -> Option<Cow<'p, Common>> {
    let (part, at) = column.sampled?;
    let (part, at) = (of.parts.get(usize::from(part))?, usize::from(at));
    let few = part
        .kept
        .as_ref()
        .filter(|kept| part.is_whole() && (1..=LOOKED_AT).contains(&kept.count));
    match few {
        Some(kept) => {
            let codes = part.sketch.codes(at)?;
            Some(Cow::Owned(Common::of_rows(codes, kept.rows.iter(), kept.count)))
        }
        None => part.sketch.common(at).map(Cow::Borrowed),
    }
}

/// The chance that two rows have equal keys, when common values are known: theirs count by how often they are there.
fn skew((left, a): (&Estimate, &ColumnEstimate), (right, b): (&Estimate, &ColumnEstimate)) -> Option<f64> {
    let (on_left, on_right) = (spread(left, a)?, spread(right, b)?);
    if on_left.shares.is_empty() && on_right.shares.is_empty() {
        return None;
    }
    let others = |common: &Common, domain: f64| (domain - common.shares.len() as f64).max(1.0);
    let (left_others, right_others) = (others(&on_left, a.domain), others(&on_right, b.domain));
    let (left_each, right_each) = (on_left.rest / left_others, on_right.rest / right_others);
    let mut meet = 0.0;
    for (key, share) in &on_left.shares {
        meet += share * on_right.shares.get(key).copied().unwrap_or(right_each);
    }
    for (key, share) in &on_right.shares {
        if !on_left.shares.contains_key(key) {
            meet += share * left_each;
        }
    }
    Some(meet + on_left.rest * on_right.rest / left_others.max(right_others))
}

impl Rules<'_> {
    /// How many combinations of values expressions have. Those over one table together, as its sample has them.
    fn combinations(&self, input: &Estimate, groups: &[Expr]) -> f64 {
        let mut by_part: Vec<(Option<u16>, Vec<&Expr>)> = Vec::new();
        for group in groups {
            let part = input.part_of(group);
            match by_part.iter_mut().find(|(known, _)| part.is_some() && *known == part) {
                Some((_, exprs)) => exprs.push(group),
                None => by_part.push((part, vec![group])),
            }
        }
        let mut values = 1.0;
        let factors = by_part.len();
        for (part, exprs) in by_part {
            let product: f64 = exprs.iter().map(|expr| input.distinct(expr)).product();
            let plain = exprs.len() == 1 && column_of(exprs[0]).is_some();
            let part = part.filter(|_| !plain).map(|part| &input.parts[usize::from(part)]);
            let column = |index: usize| Some(usize::from(input.columns.get(index)?.sampled?.1));
            let reader = self.reader(&column);
            let sampled = part.and_then(|part| Some((part.distinct(&exprs, &reader)?, part.rows)));
            values *= match sampled {
                Some((distinct, rows)) => kept_distinct(distinct, rows, input.rows),
                None => product,
            };
        }
        if factors > 1 && !input.parts.is_empty() {
            // Not every combination is met by so many rows.
            values *= -(-input.rows / values.max(1.0)).exp_m1();
        }
        values.min(input.rows).max(1.0)
    }

    /// Groups, and what is aggregated of them.
    pub fn grouped(&self, input: &Estimate, groups: &[Expr], aggregates: &[Aggregate]) -> Estimate {
        let rows = if groups.is_empty() {
            1.0
        } else {
            self.combinations(input, groups)
        };
        let keys = groups.iter().map(|group| match &group.node {
            Node::Column(index) => ColumnEstimate {
                distinct: input.columns[*index].distinct.min(rows),
                ..input.columns[*index]
            },
            _ => ColumnEstimate::made(input.distinct(group).min(rows), rows),
        });
        // Counts of groups are about as large as groups are.
        let counts = (COUNTS_PER_ROW * input.rows / rows).clamp(1.0, rows);
        let made = aggregates.iter().map(|aggregate| match aggregate.function {
            AggregateFunction::Count => ColumnEstimate::made(counts, rows),
            _ => ColumnEstimate::made(rows, rows),
        });
        let columns = keys.chain(made).map(|column| ColumnEstimate {
            sampled: None,
            nulls: None,
            ..column
        });
        Estimate {
            rows,
            columns: columns.collect(),
            parts: Arc::default(),
        }
    }
}
