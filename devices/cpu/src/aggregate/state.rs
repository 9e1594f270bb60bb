//! States of primitives: one array by group each, so that an update is one loop over a tile.
//!
//! A sum starts in 64-bit words and widens, all groups at once, when the rows seen so far could overflow them: first to 128
//! bits, then to two words of 128. So no row pays for a check and no sum is ever wrong.

use std::borrow::Cow;

use crate::aggregate::column::Whole;
use crate::aggregate::distinct::Distinct;
use crate::aggregate::input::{Input, Lanes, Pick, integers};
use crate::aggregate::primitive::{Operation, Primitive};

/// Exact sums by group.
#[derive(Debug)]
pub(super) struct Sum {
    largest: u128,
    rows: u128,
    level: Level,
}

#[derive(Debug)]
enum Level {
    Narrow(Vec<i64>),
    Wide(Vec<i128>),
    /// `high · 2^64 + low`.
    Huge(Vec<(i128, i128)>),
}

const LOW_BITS: i128 = 0xFFFF_FFFF_FFFF_FFFF;

fn halves(value: i128) -> (i128, i128) {
    (value >> 64, value & LOW_BITS)
}

impl Sum {
    pub(super) fn new(largest: u128) -> Self {
        Self {
            largest,
            rows: 0,
            level: Level::Narrow(Vec::new()),
        }
    }

    /// For `groups` groups of any values.
    pub(super) fn exact(groups: usize) -> Self {
        Self {
            largest: u128::MAX,
            rows: 1,
            level: Level::Huge(vec![(0, 0); groups]),
        }
    }

    /// Adds a value of any size to a group of an exact sum.
    pub(super) fn add_wide(&mut self, group: usize, value: i128) {
        if let Level::Huge(sums) = &mut self.level {
            add_halves(&mut sums[group], value);
        }
    }

    /// Widens if `rows` more could overflow.
    fn make_room(&mut self, rows: usize) {
        self.rows += rows as u128;
        let bound = self.largest.checked_mul(self.rows);
        let below = |limit: i128| bound.is_some_and(|bound| bound <= limit.unsigned_abs());
        if let Level::Narrow(sums) = &self.level
            && !below(i64::MAX.into())
        {
            self.level = Level::Wide(sums.iter().map(|&sum| sum.into()).collect());
        }
        if let Level::Wide(sums) = &self.level
            && !below(i128::MAX)
        {
            self.level = Level::Huge(sums.iter().map(|&sum| halves(sum)).collect());
        }
    }

    /// True when `rows` values add up within 64 bits.
    pub(super) fn fits_word(largest: u128, rows: usize) -> bool {
        largest
            .checked_mul(rows as u128)
            .is_some_and(|bound| bound <= i64::MAX.unsigned_abs().into())
    }

    fn grow(&mut self, groups: usize) {
        match &mut self.level {
            Level::Narrow(sums) => sums.resize(groups, 0),
            Level::Wide(sums) => sums.resize(groups, 0),
            Level::Huge(sums) => sums.resize(groups, (0, 0)),
        }
    }

    fn bytes_per_group(&self) -> usize {
        match self.level {
            Level::Narrow(_) => 8,
            Level::Wide(_) => 16,
            Level::Huge(_) => 32,
        }
    }

    /// Adds to the first groups the sums of `counted` rows in all.
    pub(super) fn add_each(&mut self, parts: &[i64], counted: usize) {
        self.make_room(counted);
        match &mut self.level {
            Level::Narrow(sums) => sums.iter_mut().zip(parts).for_each(|(sum, &part)| *sum += part),
            Level::Wide(sums) => sums
                .iter_mut()
                .zip(parts)
                .for_each(|(sum, &part)| *sum += i128::from(part)),
            Level::Huge(sums) => sums
                .iter_mut()
                .zip(parts)
                .for_each(|(sum, &part)| add_halves(sum, part.into())),
        }
    }

    /// `counted`: rows that the values stand for.
    fn update(&mut self, pick: Pick, lanes: &Lanes, counted: usize) {
        self.make_room(counted);
        match &mut self.level {
            Level::Narrow(sums) => integers!(lanes, i64, |values, widen| {
                pick.each(|id, row| sums[id] = sums[id].wrapping_add(widen(values[row])));
            }, else ()),
            Level::Wide(sums) => integers!(lanes, i128, |values, widen| {
                pick.each(|id, row| sums[id] = sums[id].wrapping_add(widen(values[row])));
            }, else ()),
            Level::Huge(sums) => integers!(lanes, i128, |values, widen| {
                pick.each(|id, row| add_halves(&mut sums[id], widen(values[row])));
            }, else ()),
        }
    }

    fn merge(&mut self, other: &Sum, from: &[u32], to: &[u32]) {
        self.make_room(usize::try_from(other.rows).unwrap_or(usize::MAX));
        for (&from, &to) in from.iter().zip(to) {
            let (from, to) = (from as usize, to as usize);
            match (&mut self.level, &other.level) {
                (Level::Narrow(sums), Level::Narrow(others)) => sums[to] = sums[to].wrapping_add(others[from]),
                (Level::Wide(sums), Level::Narrow(others)) => sums[to] += i128::from(others[from]),
                (Level::Wide(sums), Level::Wide(others)) => sums[to] = sums[to].wrapping_add(others[from]),
                (Level::Huge(sums), Level::Narrow(others)) => add_halves(&mut sums[to], others[from].into()),
                (Level::Huge(sums), Level::Wide(others)) => add_halves(&mut sums[to], others[from]),
                (Level::Huge(sums), Level::Huge(others)) => {
                    sums[to].0 += others[from].0;
                    sums[to].1 += others[from].1;
                }
                // Room for the other's rows makes this level at least as wide as the other's.
                _ => {}
            }
        }
    }

    /// The sum of a group; none when it doesn't fit 128 bits.
    pub(super) fn get(&self, group: usize) -> Option<i128> {
        match &self.level {
            Level::Narrow(sums) => Some(sums[group].into()),
            Level::Wide(sums) => Some(sums[group]),
            Level::Huge(sums) => {
                let (high, low) = sums[group];
                let high = i64::try_from(high + (low >> 64)).ok()?;
                Some(i128::from(high) << 64 | low & LOW_BITS)
            }
        }
    }

    /// The sums of groups; none when one doesn't fit 128 bits.
    pub(super) fn gather(&self, groups: &[u32]) -> Option<Whole<'_>> {
        if let Level::Narrow(sums) = &self.level {
            return Some(Whole::Words(gather(sums, groups)));
        }
        let groups = groups.iter().map(|&group| group as usize);
        Some(match &self.level {
            Level::Narrow(_) => return None,
            Level::Wide(sums) => Whole::Wide(groups.map(|group| sums[group]).collect()),
            Level::Huge(_) => Whole::Wide(groups.map(|group| self.get(group)).collect::<Option<_>>()?),
        })
    }

    /// The sum of a group as a float, whatever its width.
    pub(super) fn float(&self, group: usize) -> f64 {
        match (&self.level, self.get(group)) {
            (_, Some(sum)) => sum as f64,
            (Level::Huge(sums), None) => sums[group].0 as f64 * 2_f64.powi(64) + sums[group].1 as f64,
            _ => 0.0,
        }
    }

    /// `sum · factor / count`, truncated; none when it doesn't fit 128 bits.
    pub(super) fn average(&self, group: usize, count: i64, factor: i128) -> Option<i128> {
        if let Level::Narrow(sums) = &self.level
            && let Ok(factor) = i64::try_from(factor)
            && let Some(scaled) = sums[group].checked_mul(factor)
        {
            return Some((scaled / count).into());
        }
        let count = i128::from(count);
        let (mut quotient, mut rest) = match &self.level {
            Level::Huge(sums) => {
                // Schoolbook division of (high, low) by count; the remainder keeps the sign of high's.
                let (high, low) = (sums[group].0 + (sums[group].1 >> 64), sums[group].1 & LOW_BITS);
                let negative = high < 0;
                let (high, low) = if negative {
                    negate_halves(high, low)
                } else {
                    (high, low)
                };
                let upper = high / count;
                let middle = (high % count) << 64 | low;
                let quotient = i64::try_from(upper).ok()?;
                let quotient = (i128::from(quotient) << 64).checked_add(middle / count)?;
                let sign = if negative { -1 } else { 1 };
                (quotient * sign, (middle % count) * sign)
            }
            _ => {
                let sum = self.get(group)?;
                (sum / count, sum % count)
            }
        };
        quotient = quotient.checked_mul(factor)?;
        rest = rest.checked_mul(factor)?;
        quotient.checked_add(rest / count)
    }
}

/// The words of groups, which ascend.
pub(super) fn gather<'a>(words: &'a [i64], groups: &[u32]) -> Cow<'a, [i64]> {
    if let (Some(&first), Some(&last)) = (groups.first(), groups.last())
        && (last - first) as usize == groups.len() - 1
    {
        return Cow::Borrowed(&words[first as usize..=last as usize]);
    }
    groups.iter().map(|&group| words[group as usize]).collect()
}

fn negate_halves(high: i128, low: i128) -> (i128, i128) {
    if low == 0 {
        (-high, 0)
    } else {
        (-high - 1, (1 << 64) - low)
    }
}

fn add_halves(sum: &mut (i128, i128), value: i128) {
    let (high, low) = halves(value);
    sum.0 += high;
    sum.1 += low;
}

/// Count, mean, sum of squared distances: by group (Chan, Golub, LeVeque 1979 for merging).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moment {
    pub(super) count: f64,
    pub(super) mean: f64,
    pub(super) squares: f64,
}

impl Moment {
    #[inline(always)]
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let distance = value - self.mean;
        self.mean += distance / self.count;
        self.squares += distance * (value - self.mean);
    }

    fn merge(&mut self, other: &Moment) {
        if other.count == 0.0 {
            return;
        }
        // Not as a sum: the square of a large mean overflows, and nothing times that is no number.
        if self.count == 0.0 {
            *self = *other;
            return;
        }
        let count = self.count + other.count;
        let distance = other.mean - self.mean;
        self.squares += other.squares + distance * distance * self.count * other.count / count;
        self.mean += distance * other.count / count;
        self.count = count;
    }
}

/// The state of one primitive for all groups of a table.
#[derive(Debug)]
pub(super) enum State {
    Count(Vec<i64>),
    Sum(Sum),
    SumFloat(Vec<f64>),
    Extreme {
        max: bool,
        values: Vec<i64>,
    },
    ExtremeWide {
        max: bool,
        values: Vec<i128>,
    },
    ExtremeBytes {
        max: bool,
        values: Vec<Option<Box<[u8]>>>,
        held_bytes: usize,
    },
    Moments {
        divisor: f64,
        moments: Vec<Moment>,
    },
    Distinct(Distinct),
}

impl State {
    pub(super) fn new(primitive: &Primitive) -> Self {
        match primitive.operation {
            Operation::Rows | Operation::Valid => State::Count(Vec::new()),
            Operation::Sum { largest } => State::Sum(Sum::new(largest)),
            Operation::SumFloat => State::SumFloat(Vec::new()),
            Operation::Extreme { max } => State::Extreme {
                max,
                values: Vec::new(),
            },
            Operation::ExtremeWide { max } => State::ExtremeWide {
                max,
                values: Vec::new(),
            },
            Operation::ExtremeBytes { max } => State::ExtremeBytes {
                max,
                values: Vec::new(),
                held_bytes: 0,
            },
            Operation::Moments { divisor } => State::Moments {
                divisor,
                moments: Vec::new(),
            },
            Operation::Distinct { kind } => State::Distinct(Distinct::new(kind)),
        }
    }

    /// Makes room for `groups` groups in all; new ones are empty.
    pub(super) fn grow(&mut self, groups: usize) {
        match self {
            State::Count(counts) => counts.resize(groups, 0),
            State::Sum(sum) => sum.grow(groups),
            State::SumFloat(sums) => sums.resize(groups, 0.0),
            State::Extreme { max, values } => values.resize(groups, if *max { i64::MIN } else { i64::MAX }),
            State::ExtremeWide { max, values } => values.resize(groups, if *max { i128::MIN } else { i128::MAX }),
            State::ExtremeBytes { values, .. } => values.resize(groups, None),
            State::Moments { moments, .. } => moments.resize(groups, Moment::default()),
            State::Distinct(distinct) => distinct.grow(groups),
        }
    }

    pub(super) fn bytes_per_group(&self) -> usize {
        match self {
            State::Count(_) | State::SumFloat(_) | State::Extreme { .. } | State::Distinct(_) => 8,
            State::Sum(sum) => sum.bytes_per_group(),
            State::ExtremeWide { .. } | State::ExtremeBytes { .. } => 16,
            State::Moments { .. } => 24,
        }
    }

    /// Memory beside the arrays by group, after `rows` more rows.
    pub(super) fn extra_bytes_with(&self, rows: usize) -> usize {
        match self {
            State::ExtremeBytes { held_bytes, .. } => *held_bytes + rows * 32,
            State::Distinct(distinct) => distinct.size_bytes_with(rows),
            _ => 0,
        }
    }

    /// Folds the rows of `pick` into their groups. `counted` is how many rows of the source they stand for.
    pub(super) fn update(&mut self, pick: Pick, input: &Input, counted: usize) {
        if let Some(pass) = &input.pass {
            let mut ids = Vec::with_capacity(pick.ids.len());
            let mut rows = Vec::with_capacity(pick.ids.len());
            pick.each(|id, row| {
                if pass[row] != 0 {
                    ids.push(id as u32);
                    rows.push(row as u32);
                }
            });
            let pick = Pick::new(&ids, Some(&rows));
            self.fold(pick, &input.lanes, counted);
        } else {
            self.fold(pick, &input.lanes, counted);
        }
    }

    /// As update, for rows that all count.
    pub(super) fn fold(&mut self, pick: Pick, lanes: &Lanes, counted: usize) {
        match self {
            State::Count(counts) => match lanes {
                Lanes::I64(weights) => pick.each(|id, row| counts[id] += weights[row]),
                _ => pick.each(|id, _| counts[id] += 1),
            },
            State::Sum(sum) => sum.update(pick, lanes, counted),
            State::SumFloat(sums) => match lanes {
                Lanes::F32(values) => pick.each(|id, row| sums[id] += f64::from(values[row])),
                Lanes::F64(values) => pick.each(|id, row| sums[id] += values[row]),
                _ => {}
            },
            State::Extreme {
                max: true,
                values: best,
            } => integers!(lanes, i64, |values, widen| {
                pick.each(|id, row| best[id] = best[id].max(widen(values[row])));
            }, else ()),
            State::Extreme {
                max: false,
                values: best,
            } => integers!(lanes, i64, |values, widen| {
                pick.each(|id, row| best[id] = best[id].min(widen(values[row])));
            }, else ()),
            State::ExtremeWide { max, values: best } => integers!(lanes, i128, |values, widen| {
                pick.each(|id, row| {
                    let value = widen(values[row]);
                    best[id] = if *max { best[id].max(value) } else { best[id].min(value) };
                });
            }, else ()),
            State::ExtremeBytes {
                max,
                values: best,
                held_bytes,
            } => {
                if let Lanes::Bytes(values) = lanes {
                    pick.each(|id, row| keep_bytes(&mut best[id], values[row], *max, held_bytes));
                }
            }
            State::Moments { divisor, moments } => update_moments(moments, *divisor, pick, lanes),
            State::Distinct(distinct) => distinct.update(pick, lanes),
        }
    }

    /// Folds groups `from` of `other` into groups `to` of this state.
    pub(super) fn merge(&mut self, other: &State, from: &[u32], to: &[u32]) {
        let pairs = from.iter().zip(to).map(|(&from, &to)| (from as usize, to as usize));
        match (self, other) {
            (State::Count(counts), State::Count(others)) => pairs.for_each(|(from, to)| counts[to] += others[from]),
            (State::Sum(sum), State::Sum(other)) => sum.merge(other, from, to),
            (State::SumFloat(sums), State::SumFloat(others)) => pairs.for_each(|(from, to)| sums[to] += others[from]),
            (State::Extreme { max, values }, State::Extreme { values: others, .. }) => pairs.for_each(|(from, to)| {
                let value = others[from];
                values[to] = if *max {
                    values[to].max(value)
                } else {
                    values[to].min(value)
                };
            }),
            (State::ExtremeWide { max, values }, State::ExtremeWide { values: others, .. }) => {
                pairs.for_each(|(from, to)| {
                    let value = others[from];
                    values[to] = if *max {
                        values[to].max(value)
                    } else {
                        values[to].min(value)
                    };
                });
            }
            (
                State::ExtremeBytes {
                    max,
                    values,
                    held_bytes,
                },
                State::ExtremeBytes { values: others, .. },
            ) => pairs.for_each(|(from, to)| {
                if let Some(value) = &others[from] {
                    keep_bytes(&mut values[to], value, *max, held_bytes);
                }
            }),
            (State::Moments { moments, .. }, State::Moments { moments: others, .. }) => {
                pairs.for_each(|(from, to)| moments[to].merge(&others[from]));
            }
            (State::Distinct(distinct), State::Distinct(other)) => distinct.merge(other, from, to),
            _ => {}
        }
    }
}

fn keep_bytes(best: &mut Option<Box<[u8]>>, value: &[u8], max: bool, held_bytes: &mut usize) {
    let better = match best {
        None => true,
        Some(best) if max => *value > **best,
        Some(best) => *value < **best,
    };
    if better {
        *held_bytes += value.len();
        *held_bytes -= best.as_ref().map_or(0, |best| best.len());
        *best = Some(value.into());
    }
}

fn update_moments(moments: &mut [Moment], divisor: f64, pick: Pick, lanes: &Lanes) {
    match lanes {
        Lanes::F32(values) => pick.each(|id, row| moments[id].add(values[row].into())),
        Lanes::F64(values) => pick.each(|id, row| moments[id].add(values[row])),
        lanes => integers!(lanes, f64, |values, widen| {
            pick.each(|id, row| moments[id].add(widen(values[row]) / divisor));
        }, else ()),
    }
}
