//! Result rows: groups decoded, aggregates finished, as device columns.

use std::sync::Arc;

use trireme_device_api::{DeviceColumn, DeviceError, Rows, Type};

use crate::aggregate::column::{Valid, Whole, ascending, booleans, coded, floats, integers, nulls, overflow, strings};
use crate::aggregate::hash::Keys;
use crate::aggregate::input::float_of;
use crate::aggregate::keys::{CodeKind, KeyColumn, KeyPlan, value_width};
use crate::aggregate::primitive::{Finish, Order, Recipe};
use crate::aggregate::state::{State, Sum, gather};
use crate::aggregate::table::Table;

/// Rows of a segment at most.
const SEGMENT_ROWS: usize = 1 << 20;

/// One segment: rows and columns.
pub(crate) type Segment = (usize, Vec<Arc<DeviceColumn>>);

/// The rows of a table; `base` is the slot of its first direct slot.
///
/// # Errors
/// A result outside its type.
pub(super) fn segments(
    keys: &KeyPlan,
    recipe: &Recipe,
    table: &Table,
    base: usize,
) -> Result<Vec<Segment>, DeviceError> {
    let present = if keys.columns.is_empty() {
        vec![0]
    } else {
        table.present()
    };
    let groups = present.chunks(SEGMENT_ROWS);
    groups
        .map(|groups| segment(keys, recipe, table, base, groups))
        .collect()
}

/// The rows of some groups of a table, as [`segments`].
///
/// # Errors
/// A result outside its type.
pub(super) fn segment(
    keys: &KeyPlan,
    recipe: &Recipe,
    table: &Table,
    base: usize,
    groups: &[u32],
) -> Result<Segment, DeviceError> {
    let mut columns = group_columns(keys, table, base, groups)?;
    for (finish, data_type) in &recipe.finishes {
        let results = Results {
            data_type,
            states: &table.states,
            groups,
        };
        columns.push(results.finish(finish)?);
    }
    Ok((groups.len(), columns.into_iter().map(Arc::new).collect()))
}

/// Distinct values of the only key column, NULL left out.
pub(super) fn values(keys: &KeyPlan, table: &Table, base: usize) -> usize {
    let nullable = keys.columns.iter().any(|column| column.nullable);
    let null = match table.index.as_ref().map(|index| &index.keys) {
        Some(Keys::U64(keys)) => keys.contains(&0),
        Some(Keys::U128(keys)) => keys.contains(&0),
        Some(Keys::Bytes(arena)) => (0..arena.len()).any(|key| arena.get(key).first() == Some(&1)),
        None => base == 0 && table.present().first() == Some(&0),
    };
    table.present().len() - usize::from(nullable && null)
}

/// One row with the same count for each aggregate.
pub(super) fn count(recipe: &Recipe, values: usize) -> Rows {
    let column = |(_, data_type): &(Finish, Type)| {
        let column = integers(data_type, Whole::words(vec![values as i64]), None, "count");
        column.map(Arc::new).ok()
    };
    let columns = recipe.finishes.iter().filter_map(column).collect();
    Rows {
        segments: vec![(1, columns)],
        held: Vec::new(),
    }
}

fn group_columns(keys: &KeyPlan, table: &Table, base: usize, groups: &[u32]) -> Result<Vec<DeviceColumn>, DeviceError> {
    let each = |column: &KeyColumn| match table.index.as_ref().map(|index| &index.keys) {
        Some(Keys::U64(slots)) if keys.direct() => {
            let slots = groups.iter().map(|&group| slots[group as usize] as u32);
            narrow_column(column, codes_of(keys, column, slots))
        }
        Some(Keys::U64(keys)) => {
            let (shift, mask) = (
                column.shift.min(63),
                u64::MAX.checked_shr(64 - column.bits.min(64)).unwrap_or(0),
            );
            let code = |&group: &u32| keys[group as usize] >> shift & mask;
            narrow_column(column, groups.iter().map(code).collect())
        }
        Some(Keys::U128(keys)) => {
            let (shift, mask) = (
                column.shift.min(127),
                u128::MAX.checked_shr(128 - column.bits.min(128)).unwrap_or(0),
            );
            let codes = groups.iter().map(|&group| keys[group as usize] >> shift & mask);
            if column.bits <= 64 {
                narrow_column(column, codes.map(|code| code as u64).collect())
            } else {
                let null = u128::from(column.nullable);
                wide_column(column, codes.map(|code| code.checked_sub(null)).collect())
            }
        }
        _ => {
            if let Some(start) = first_key(keys, column, base) {
                return Ok(ascending(&column.shape.data_type, start, groups));
            }
            let slots = groups.iter().map(|&group| base as u32 + group);
            narrow_column(column, codes_of(keys, column, slots))
        }
    };
    match table.index.as_ref().map(|index| &index.keys) {
        Some(Keys::Bytes(arena)) => decoded_columns(keys, arena, groups),
        _ => keys.columns.iter().map(each).collect(),
    }
}

/// A column's codes in direct slots.
fn codes_of(keys: &KeyPlan, column: &KeyColumn, slots: impl Iterator<Item = u32>) -> Vec<u64> {
    let (stride, count) = (column.stride.max(1), (column.cardinality as u32).max(1));
    if keys.columns.len() == 1 {
        slots.map(u64::from).collect()
    } else {
        slots.map(|slot| u64::from(slot / stride % count)).collect()
    }
}

/// The key of a part's first slot, where slots are a single column's integers.
fn first_key(keys: &KeyPlan, column: &KeyColumn, base: usize) -> Option<i64> {
    let plain = column.kind == CodeKind::Integral && column.shape.dictionary.is_none();
    if keys.columns.len() != 1 || !plain || column.nullable || column.shape.data_type == Type::Boolean {
        return None;
    }
    i64::try_from(column.low.checked_add(keys.slots as i128)?).ok()?;
    i64::try_from(column.low + base as i128).ok()
}

/// A group column from codes of at most 64 bits.
fn narrow_column(column: &KeyColumn, mut codes: Vec<u64>) -> Result<DeviceColumn, DeviceError> {
    let data_type = &column.shape.data_type;
    let valid: Valid = column.nullable.then(|| codes.iter().map(|&code| code != 0).collect());
    if column.nullable {
        codes.iter_mut().for_each(|code| *code = code.saturating_sub(1));
    }
    let words = codes.iter().copied();
    Ok(match (column.kind, &column.shape.dictionary) {
        (CodeKind::Null, _) => nulls(data_type, codes.len()),
        (CodeKind::Float32, _) => floats(
            data_type,
            words.map(|code| f32::from_bits(code as u32).into()).collect(),
            valid,
        ),
        (CodeKind::Float64, _) => floats(data_type, words.map(f64::from_bits).collect(), valid),
        (_, Some(dictionary)) => coded(data_type, dictionary, words.map(|code| code as u32).collect(), valid),
        _ if *data_type == Type::Boolean => booleans(data_type, words.map(|code| code == 1).collect(), valid),
        _ => {
            let low = column.low;
            let high = low.saturating_add((column.cardinality.max(1) - 1).cast_signed().max(0));
            let whole = if i64::try_from(low).is_ok() && i64::try_from(high).is_ok() {
                Whole::words(
                    words
                        .map(|code| (low as i64).wrapping_add(code.cast_signed()))
                        .collect(),
                )
            } else {
                Whole::Wide(words.map(|code| low + i128::from(code)).collect())
            };
            integers(data_type, whole, valid, "GROUP BY")?
        }
    })
}

/// A group column from codes without the place for NULL.
fn wide_column(column: &KeyColumn, codes: Vec<Option<u128>>) -> Result<DeviceColumn, DeviceError> {
    let valid: Valid = column.nullable.then(|| codes.iter().map(Option::is_some).collect());
    let words = codes.iter().map(|code| code.unwrap_or(0));
    let data_type = &column.shape.data_type;
    Ok(match column.kind {
        CodeKind::Null => nulls(data_type, codes.len()),
        CodeKind::Float32 => floats(
            data_type,
            words.map(|code| f32::from_bits(code as u32).into()).collect(),
            valid,
        ),
        CodeKind::Float64 => floats(
            data_type,
            words.map(|code| f64::from_bits(code as u64)).collect(),
            valid,
        ),
        _ => match &column.shape.dictionary {
            Some(dictionary) => coded(data_type, dictionary, words.map(|code| code as u32).collect(), valid),
            None if *data_type == Type::Boolean => booleans(data_type, words.map(|code| code == 1).collect(), valid),
            None => {
                let values = words.map(|code| code.cast_signed().wrapping_add(column.low));
                integers(data_type, Whole::Wide(values.collect()), valid, "GROUP BY")?
            }
        },
    })
}

fn decoded_columns(
    keys: &KeyPlan,
    arena: &crate::aggregate::hash::Arena,
    groups: &[u32],
) -> Result<Vec<DeviceColumn>, DeviceError> {
    let mut places = vec![0_usize; groups.len()];
    let mut columns = Vec::with_capacity(keys.columns.len());
    for column in &keys.columns {
        let mut values: Vec<Option<&[u8]>> = Vec::with_capacity(groups.len());
        for (place, &group) in places.iter_mut().zip(groups) {
            let rest = &arena.get(group as usize)[*place..];
            let flag = usize::from(column.nullable || column.kind == CodeKind::Null);
            if flag == 1 && rest[0] == 1 {
                values.push(None);
                *place += 1;
                continue;
            }
            let rest = &rest[flag..];
            let (start, width) = if column.kind == CodeKind::Bytes {
                (4, u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize)
            } else {
                (0, value_width(column))
            };
            values.push(Some(&rest[start..start + width]));
            *place += flag + start + width;
        }
        columns.push(if column.kind == CodeKind::Bytes {
            strings(&column.shape.data_type, &values)?
        } else {
            let code = |bytes: &[u8]| {
                let mut word = [0_u8; 16];
                word[..bytes.len()].copy_from_slice(bytes);
                u128::from_le_bytes(word)
            };
            wide_column(column, values.iter().map(|value| value.map(code)).collect())?
        });
    }
    Ok(columns)
}

/// What a column of results is made from.
struct Results<'a> {
    data_type: &'a Type,
    states: &'a [State],
    groups: &'a [u32],
}

impl Results<'_> {
    fn finish(&self, finish: &Finish) -> Result<DeviceColumn, DeviceError> {
        match finish {
            Finish::Count(state) | Finish::CountDistinct(state) => {
                let counts = gather(self.counts(*state), self.groups);
                integers(self.data_type, Whole::Words(counts), None, "count")
            }
            Finish::Sum { sum, count } => match &self.states[*sum] {
                State::Sum(sum) => {
                    let sums = sum.gather(self.groups).ok_or_else(|| overflow(self.data_type, "sum"))?;
                    integers(self.data_type, sums, self.filled(*count), "sum")
                }
                State::SumFloat(sums) => {
                    let sums = self.each().map(|group| sums[group]).collect();
                    Ok(floats(self.data_type, sums, self.filled(*count)))
                }
                _ => Err(misplaced()),
            },
            Finish::AverageDecimal { sum, count, factor } => {
                let (State::Sum(sum), counts) = (&self.states[*sum], self.counts(*count)) else {
                    return Err(misplaced());
                };
                self.averages(sum, counts, *factor)
            }
            Finish::AverageFloat { sum, count, divisor } => self.float_averages(*sum, *count, *divisor),
            Finish::Extreme { .. } | Finish::ExtremeWide { .. } | Finish::ExtremeBytes(_) => self.extremes(finish),
            Finish::Variance { moments, sample, root } => {
                let State::Moments { moments, .. } = &self.states[*moments] else {
                    return Err(misplaced());
                };
                let less = if *sample { 1.0 } else { 0.0 };
                let value = |group: usize| {
                    let variance = moments[group].squares / (moments[group].count - less);
                    if *root { variance.sqrt() } else { variance }
                };
                let valid = self.each().map(|group| moments[group].count > less).collect();
                Ok(floats(self.data_type, self.each().map(value).collect(), Some(valid)))
            }
            Finish::SumDistinct(state) => self.distinct(*state, None),
            Finish::AverageDistinct { state, divisor, factor } => self.distinct(*state, Some((*divisor, *factor))),
        }
    }

    fn each(&self) -> impl Iterator<Item = usize> {
        self.groups.iter().map(|&group| group as usize)
    }

    fn counts(&self, state: usize) -> &[i64] {
        match self.states.get(state) {
            Some(State::Count(counts)) => counts,
            Some(State::Distinct(distinct)) => &distinct.counts,
            _ => &[],
        }
    }

    /// Groups that have a value; all without a count.
    fn filled(&self, count: Option<usize>) -> Valid {
        let counts = self.counts(count?);
        Some(self.each().map(|group| counts[group] > 0).collect())
    }

    fn averages(&self, sum: &Sum, counts: &[i64], factor: i128) -> Result<DeviceColumn, DeviceError> {
        let value = |group: usize| match counts[group] {
            0 => Ok(0),
            count => sum
                .average(group, count, factor)
                .ok_or_else(|| overflow(self.data_type, "avg")),
        };
        let values = self.each().map(value).collect::<Result<_, _>>()?;
        let valid = self.each().map(|group| counts[group] > 0).collect();
        integers(self.data_type, Whole::Wide(values), Some(valid), "avg")
    }

    fn float_averages(&self, sum: usize, count: usize, divisor: f64) -> Result<DeviceColumn, DeviceError> {
        let counts = self.counts(count);
        let total = |group: usize| match &self.states[sum] {
            State::Sum(sum) => sum.float(group) / divisor,
            State::SumFloat(sums) => sums[group],
            _ => 0.0,
        };
        let value = |group: usize| total(group) / counts[group] as f64;
        let valid = self.each().map(|group| counts[group] > 0).collect();
        Ok(floats(self.data_type, self.each().map(value).collect(), Some(valid)))
    }

    fn extremes(&self, finish: &Finish) -> Result<DeviceColumn, DeviceError> {
        let data_type = self.data_type;
        match finish {
            Finish::Extreme { state, count, order } => {
                let State::Extreme { values, .. } = &self.states[*state] else {
                    return Err(misplaced());
                };
                let values = self.each().map(|group| values[group]);
                let valid = self.filled(*count);
                Ok(match order {
                    Order::Integer => return integers(data_type, Whole::words(values.collect()), valid, "MIN or MAX"),
                    Order::Float => floats(data_type, values.map(float_of).collect(), valid),
                    Order::Boolean => booleans(data_type, values.map(|value| value == 1).collect(), valid),
                    Order::Rank(dictionary) => {
                        let mut by_rank = vec![0_u32; dictionary.len()];
                        for (code, &rank) in (0_u32..).zip(dictionary.ranks().iter()) {
                            by_rank[rank as usize] = code;
                        }
                        let code = |rank: i64| usize::try_from(rank).ok().and_then(|rank| by_rank.get(rank));
                        let codes = values.map(|rank| code(rank).copied().unwrap_or(0)).collect();
                        coded(data_type, dictionary, codes, valid)
                    }
                })
            }
            Finish::ExtremeWide { state, count } => {
                let State::ExtremeWide { values, .. } = &self.states[*state] else {
                    return Err(misplaced());
                };
                let values = self.each().map(|group| values[group]).collect();
                integers(data_type, Whole::Wide(values), self.filled(*count), "MIN or MAX")
            }
            Finish::ExtremeBytes(state) => {
                let State::ExtremeBytes { values, .. } = &self.states[*state] else {
                    return Err(misplaced());
                };
                let values: Vec<Option<&[u8]>> = self.each().map(|group| values[group].as_deref()).collect();
                strings(data_type, &values)
            }
            _ => Err(misplaced()),
        }
    }

    /// SUM(DISTINCT), or AVG(DISTINCT) given the divisor and factor of an average.
    fn distinct(&self, state: usize, average: Option<(f64, Option<i128>)>) -> Result<DeviceColumn, DeviceError> {
        let State::Distinct(distinct) = &self.states[state] else {
            return Err(misplaced());
        };
        let counts = &distinct.counts;
        let mut real = vec![0.0_f64; counts.len()];
        distinct.floats(|group, value| real[group] += value);
        let mut whole = Sum::exact(counts.len());
        distinct.integers(|group, value| whole.add_wide(group, value));
        if !self.data_type.is_integral() {
            let value = |group: usize| {
                let divisor = average.map_or(1.0, |(divisor, _)| divisor * counts[group] as f64);
                (real[group] + whole.float(group)) / divisor
            };
            let valid = self.each().map(|group| counts[group] > 0).collect();
            return Ok(floats(self.data_type, self.each().map(value).collect(), Some(valid)));
        }
        if let Some((_, factor)) = average {
            return self.averages(&whole, counts, factor.unwrap_or(1));
        }
        let sums = whole
            .gather(self.groups)
            .ok_or_else(|| overflow(self.data_type, "sum"))?;
        integers(self.data_type, sums, self.filled(Some(state)), "sum")
    }
}

fn misplaced() -> DeviceError {
    DeviceError::Internal("an aggregate has another state than it needs".into())
}
