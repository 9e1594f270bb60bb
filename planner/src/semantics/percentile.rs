//! `percentile_cont` between the exact values: DataFusion cuts the place between two of them off at a millionth.
//!
//! DataFusion's accumulators collect the values, and what they hand on between stages is a list of them. From that list the
//! result is computed here, in doubles: the value at place `p × (n − 1)` of the sorted list, by a straight line between its
//! neighbours. NaN sorts last, as everywhere. `DISTINCT` is DataFusion's.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, ListArray, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Float64Type, Schema};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::percentile_cont::PercentileCont;
use datafusion::logical_expr::function::{AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, Documentation, EmitTo, GroupsAccumulator, Signature,
};

/// The aggregate function that stands for DataFusion's `percentile_cont`.
pub(crate) fn percentile_cont() -> AggregateUDF {
    AggregateUDF::new_from_impl(Percentile {
        stock: PercentileCont::new(),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Percentile {
    stock: PercentileCont,
}

impl AggregateUDFImpl for Percentile {
    fn name(&self) -> &str {
        self.stock.name()
    }

    fn aliases(&self) -> &[String] {
        self.stock.aliases()
    }

    fn signature(&self) -> &Signature {
        self.stock.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.stock.return_type(types)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.stock.state_fields(args)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct || args.expr_fields[0].data_type().is_null() {
            return self.stock.accumulator(args);
        }
        let place = place(&args)?;
        let values = self.stock.accumulator(args)?;
        Ok(Box::new(Values { values, place }))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.stock.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let place = place(&args)?;
        let values = self.stock.create_groups_accumulator(args)?;
        Ok(Box::new(Values { values, place }))
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        self.stock.simplify()
    }

    fn supports_within_group_clause(&self) -> bool {
        self.stock.supports_within_group_clause()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.stock.documentation()
    }
}

/// Which of the sorted values is asked for.
#[derive(Debug, Clone, Copy)]
struct Place {
    percentile: f64,
    is_descending: bool,
}

/// What is wrong with it the stock function says.
fn place(args: &AccumulatorArgs) -> Result<Place> {
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Schema::empty().into(), vec![], &options)?;
    let percentile = match args.exprs[1].evaluate(&row) {
        Ok(ColumnarValue::Scalar(value)) => value.cast_to(&DataType::Float64)?,
        _ => ScalarValue::Float64(None),
    };
    Ok(Place {
        percentile: match percentile {
            ScalarValue::Float64(Some(percentile)) => percentile,
            _ => f64::NAN,
        },
        is_descending: args.order_bys.first().is_some_and(|by| by.options.descending),
    })
}

/// The stock accumulator of values, and what is asked of them.
#[derive(Debug)]
struct Values<A: ?Sized> {
    place: Place,
    values: Box<A>,
}

impl Accumulator for Values<dyn Accumulator> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let state = self.values.state()?;
        let lists = state[0].to_array()?;
        let result = percentiles(lists.as_list(), self.place)?;
        // A window asks again.
        self.values.merge_batch(&[lists])?;
        ScalarValue::try_from_array(&result, 0)
    }

    fn size(&self) -> usize {
        self.values.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.values.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        // The stock accumulator takes the first list alone.
        (0..states[0].len()).try_for_each(|at| self.values.merge_batch(&[states[0].slice(at, 1)]))
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.values.supports_retract_batch()
    }
}

impl GroupsAccumulator for Values<dyn GroupsAccumulator> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.values.update_batch(values, groups, filter, total)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let state = self.values.state(emit_to)?;
        percentiles(state[0].as_list(), self.place)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.values.state(emit_to)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.values.merge_batch(states, groups, total)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        // The stock accumulator takes the values alone here.
        self.values.convert_to_state(&values[..1], filter)
    }

    fn size(&self) -> usize {
        self.values.size()
    }
}

/// A percentile of each list, in the type of the lists' values.
fn percentiles(lists: &ListArray, place: Place) -> Result<ArrayRef> {
    let doubles = cast(lists.values(), &DataType::Float64)?;
    let doubles = doubles.as_primitive::<Float64Type>();
    let of_list = |bounds: &[i32]| {
        let slice = doubles.slice(bounds[0] as usize, (bounds[1] - bounds[0]) as usize);
        percentile(&mut slice.values().to_vec(), place)
    };
    let results: Float64Array = lists.offsets().windows(2).map(of_list).collect();
    Ok(cast(&results, &lists.value_type())?)
}

fn percentile(values: &mut [f64], place: Place) -> Option<f64> {
    let last = values.len().checked_sub(1)?;
    let order = |a: &f64, b: &f64| {
        let ascending = a.is_nan().cmp(&b.is_nan()).then_with(|| a.total_cmp(b));
        if place.is_descending {
            ascending.reverse()
        } else {
            ascending
        }
    };
    let at = place.percentile * last as f64;
    #[expect(clippy::cast_possible_truncation, reason = "a place in the list")]
    let before = (at.floor() as usize).min(last);
    let (_, &mut one, behind) = values.select_nth_unstable_by(before, order);
    let part = at - before as f64;
    match behind.iter().copied().min_by(order) {
        Some(next) if part > 0.0 && one != next => {
            let gap = next - one;
            Some(match gap.is_finite() {
                true => one + gap * part,
                false => one * (1.0 - part) + next * part,
            })
        }
        _ => Some(one),
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, percentile};

    fn of(values: &[f64], percentile_of: f64) -> Option<f64> {
        let place = Place {
            percentile: percentile_of,
            is_descending: false,
        };
        percentile(&mut values.to_vec(), place)
    }

    #[test]
    fn places_are_exact() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(of(&[], 0.5), None);
        assert_eq!(of(&[3.0], 0.9), Some(3.0));
        assert_eq!(of(&[4.0, 1.0, 3.0, 2.0], 0.5), Some(2.5));
        assert!((of(&hundred, 0.9).expect("some") - 90.1).abs() < 1e-12);
        assert_eq!(of(&hundred, 1.0), Some(100.0));
    }

    #[test]
    fn ends_may_be_infinite_or_no_numbers() {
        let inf = f64::INFINITY;
        assert_eq!(of(&[inf, inf, 1.0], 0.75), Some(inf));
        assert_eq!(of(&[-f64::NAN, 2.0, 1.0], 0.25), Some(1.5));
        assert!(of(&[-f64::NAN, 2.0, 1.0], 1.0).expect("some").is_nan());
    }
}
