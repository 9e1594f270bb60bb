//! The three accumulators of an exact sum: of one group (windows too), of many groups, of distinct values.

use std::collections::HashMap;
use std::fmt::Debug;
use std::mem::{size_of, size_of_val};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, AsArray, BooleanArray, Int32Array, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Int32Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::accumulate::NullState;

use super::carry::{Exact, Summand, finished, overflow};

/// The sum of one group, or of a sliding frame.
pub(super) struct RunningSum<T: Exact> {
    data_type: DataType,
    low: T::Native,
    carry: i64,
    /// Values in it that are not NULL; between stages, a partial sum counts as one.
    values: u64,
}

impl<T: Exact> RunningSum<T> {
    pub(super) fn new(data_type: DataType) -> Self {
        Self {
            data_type,
            low: T::Native::ZERO,
            carry: 0,
            values: 0,
        }
    }

    fn low(&self) -> PrimitiveArray<T> {
        PrimitiveArray::from_iter([(self.values > 0).then_some(self.low)])
    }
}

impl<T: Exact> Debug for RunningSum<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RunningSum({})", self.data_type)
    }
}

impl<T: Exact> Accumulator for RunningSum<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = one(values)?.as_primitive::<T>();
        let (low, carry) = T::Native::total(values.values(), nulls(values));
        self.carry += carry + self.low.add_carrying(low);
        self.values += (values.len() - values.null_count()) as u64;
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = one(values)?.as_primitive::<T>();
        let (low, carry) = T::Native::total(values.values(), nulls(values));
        self.carry += self.low.subtract_carrying(low) - carry;
        self.values -= (values.len() - values.null_count()) as u64;
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [low, carries] = states else {
            return exec_err!("a partial sum has two columns");
        };
        self.update_batch(std::slice::from_ref(low))?;
        self.carry += carries
            .as_primitive::<Int32Type>()
            .values()
            .iter()
            .map(|carry| i64::from(*carry))
            .sum::<i64>();
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let low = self.low().with_data_type(self.data_type.clone());
        Ok(vec![
            ScalarValue::try_from_array(&low, 0)?,
            ScalarValue::Int32(Some(stored(self.carry, &self.data_type)?)),
        ])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.carry != 0 {
            return overflow(&self.data_type);
        }
        ScalarValue::try_from_array(&finished(self.low(), &self.data_type)?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// The sums of many groups.
pub(super) struct GroupsSum<T: Exact> {
    data_type: DataType,
    low: Vec<T::Native>,
    /// Of the groups whose sum left the native type: most often none.
    carries: HashMap<usize, i64>,
    null_state: NullState,
}

impl<T: Exact> GroupsSum<T> {
    pub(super) fn new(data_type: DataType) -> Self {
        Self {
            data_type,
            low: Vec::new(),
            carries: HashMap::new(),
            null_state: NullState::new(),
        }
    }

    /// Takes the carries of the groups that are emitted, and renumbers the others.
    fn take_carries(&mut self, emit_to: EmitTo) -> HashMap<usize, i64> {
        let all = std::mem::take(&mut self.carries);
        let EmitTo::First(groups) = emit_to else { return all };
        let (taken, kept): (HashMap<_, _>, HashMap<_, _>) = all.into_iter().partition(|(group, _)| *group < groups);
        self.carries = kept.into_iter().map(|(group, carry)| (group - groups, carry)).collect();
        taken
    }

    fn take_low(&mut self, emit_to: EmitTo) -> Result<PrimitiveArray<T>> {
        let low = emit_to.take_needed(&mut self.low);
        let nulls = self.null_state.build(emit_to);
        Ok(PrimitiveArray::<T>::try_new(low.into(), nulls)?)
    }
}

impl<T: Exact> Debug for GroupsSum<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GroupsSum({})", self.data_type)
    }
}

impl<T: Exact> GroupsAccumulator for GroupsSum<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        groups: usize,
    ) -> Result<()> {
        let values = one(values)?.as_primitive::<T>();
        self.low.resize(groups, T::Native::ZERO);
        let (low, carries) = (&mut self.low, &mut self.carries);
        self.null_state
            .accumulate(group_indices, values, filter, groups, |group, value| {
                let carry = low[group].add_carrying(value);
                if carry != 0 {
                    *carries.entry(group).or_default() += carry;
                }
            });
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], groups: usize) -> Result<()> {
        let [low, carries] = states else {
            return exec_err!("a partial sum has two columns");
        };
        self.update_batch(std::slice::from_ref(low), group_indices, None, groups)?;
        let carries = carries.as_primitive::<Int32Type>().values();
        if carries.iter().fold(0, |any, carry| any | carry) != 0 {
            for (group, carry) in group_indices.iter().zip(carries) {
                *self.carries.entry(*group).or_default() += i64::from(*carry);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        if self.take_carries(emit_to).values().any(|carry| *carry != 0) {
            return overflow(&self.data_type);
        }
        let low = self.take_low(emit_to)?;
        Ok(Arc::new(finished(low, &self.data_type)?))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let sparse = self.take_carries(emit_to);
        let low = self.take_low(emit_to)?.with_data_type(self.data_type.clone());
        let mut carries = vec![0; low.len()];
        for (group, carry) in sparse {
            carries[group] = stored(carry, &self.data_type)?;
        }
        Ok(vec![Arc::new(low), Arc::new(Int32Array::from(carries))])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = one(values)?.as_primitive::<T>();
        let kept = filter.map(|filter| {
            let (kept, nulls) = filter.clone().into_parts();
            NullBuffer::new(match nulls {
                Some(nulls) => nulls.inner() & &kept,
                None => kept,
            })
        });
        let nulls = NullBuffer::union(values.nulls(), kept.as_ref());
        let low = PrimitiveArray::<T>::try_new(values.values().clone(), nulls)?.with_data_type(self.data_type.clone());
        let carries = Int32Array::from(vec![0; low.len()]);
        Ok(vec![Arc::new(low), Arc::new(carries)])
    }

    fn size(&self) -> usize {
        self.low.capacity() * size_of::<T::Native>()
            + self.carries.capacity() * size_of::<(usize, i64)>()
            + self.null_state.size()
    }
}

/// The sum of the distinct values of one group, or of a sliding frame.
pub(super) struct DistinctSum<T: Exact> {
    data_type: DataType,
    /// How often each value occurs.
    values: HashMap<T::Native, u64>,
}

impl<T: Exact> DistinctSum<T> {
    pub(super) fn new(data_type: DataType) -> Self {
        Self {
            data_type,
            values: HashMap::new(),
        }
    }
}

impl<T: Exact> Debug for DistinctSum<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DistinctSum({})", self.data_type)
    }
}

impl<T: Exact> Accumulator for DistinctSum<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in one(values)?.as_primitive::<T>().iter().flatten() {
            *self.values.entry(value).or_default() += 1;
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in one(values)?.as_primitive::<T>().iter().flatten() {
            let Some(times) = self.values.get_mut(&value) else {
                continue;
            };
            *times -= 1;
            if *times == 0 {
                self.values.remove(&value);
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for values in one(states)?.as_list::<i32>().iter().flatten() {
            self.update_batch(&[values])?;
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values =
            PrimitiveArray::<T>::from_iter_values(self.values.keys().copied()).with_data_type(self.data_type.clone());
        let list = datafusion::common::utils::SingleRowListArrayBuilder::new(Arc::new(values)).build_list_scalar();
        Ok(vec![list])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let values: Vec<_> = self.values.keys().copied().collect();
        let (low, carry) = T::Native::total(&values, None);
        if carry != 0 {
            return overflow(&self.data_type);
        }
        let sum = PrimitiveArray::<T>::from_iter([(!values.is_empty()).then_some(low)]);
        ScalarValue::try_from_array(&finished(sum, &self.data_type)?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<(T::Native, u64)>()
    }
}

fn one(arrays: &[ArrayRef]) -> Result<&ArrayRef> {
    match arrays {
        [array] => Ok(array),
        _ => exec_err!("a sum has one argument"),
    }
}

fn nulls<T: Exact>(values: &PrimitiveArray<T>) -> Option<&NullBuffer> {
    values.nulls().filter(|nulls| nulls.null_count() > 0)
}

/// A carry as a partial sum stores it. Beyond that no later row brings the sum back.
fn stored(carry: i64, data_type: &DataType) -> Result<i32> {
    i32::try_from(carry).or_else(|_| overflow(data_type))
}
