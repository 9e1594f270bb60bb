//! MIN and MAX of floats, in which NaN is the greatest.
//!
//! Each value becomes a 64-bit integer of the same order, on which DataFusion's own accumulators run, and back. The names of
//! the functions differ from `min` and `max`, so that DataFusion neither answers from statistics nor prunes by running
//! extremes: files' statistics leave NaN out.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::functions_aggregate::min_max::{Max, Min};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature, Volatility,
};

/// The function for floats that stands for DataFusion's `min` or `max`; `None` if it is neither, or the type no float of 32 or
/// 64 bits.
pub(super) fn extreme(function: &AggregateUDF, argument: &DataType) -> Option<Arc<AggregateUDF>> {
    static FUNCTIONS: LazyLock<(Arc<AggregateUDF>, Arc<AggregateUDF>)> = LazyLock::new(|| {
        (
            Arc::new(AggregateUDF::new_from_impl(Extreme::new(
                "float_min",
                Min::new().into(),
            ))),
            Arc::new(AggregateUDF::new_from_impl(Extreme::new(
                "float_max",
                Max::new().into(),
            ))),
        )
    });
    if !matches!(argument, DataType::Float32 | DataType::Float64) {
        return None;
    }
    if function.inner().is::<Min>() {
        return Some(Arc::clone(&FUNCTIONS.0));
    }
    function.inner().is::<Max>().then(|| Arc::clone(&FUNCTIONS.1))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Extreme {
    name: &'static str,
    signature: Signature,
    /// DataFusion's, to run on keys.
    stock: AggregateUDF,
}

impl Extreme {
    fn new(name: &'static str, stock: AggregateUDF) -> Self {
        Self {
            name,
            signature: Signature::any(1, Volatility::Immutable),
            stock,
        }
    }
}

fn key_field() -> FieldRef {
    static FIELD: LazyLock<FieldRef> = LazyLock::new(|| Arc::new(Field::new("key", DataType::Int64, true)));
    Arc::clone(&FIELD)
}

/// Runs `$make` with the arguments of an accumulator of keys.
macro_rules! of_keys {
    ($args:expr, $make:expr) => {{
        let args = $args;
        let fields = vec![key_field(); args.expr_fields.len()];
        $make(AccumulatorArgs {
            return_field: key_field(),
            expr_fields: &fields,
            ..args
        })
    }};
}

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [data_type] => Ok(data_type.clone()),
            _ => exec_err!("{} has one argument", self.name),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let data_type = args.return_field.data_type().clone();
        let keys = of_keys!(args, |args| self.stock.accumulator(args))?;
        Ok(Box::new(Keyed { data_type, keys }))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let data_type = args.return_field.data_type().clone();
        let keys = of_keys!(args, |args| self.stock.create_sliding_accumulator(args))?;
        Ok(Box::new(Keyed { data_type, keys }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.stock.state_fields(StateFieldsArgs {
            return_field: key_field(),
            ..args
        })
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let data_type = args.return_field.data_type().clone();
        let keys = of_keys!(args, |args| self.stock.create_groups_accumulator(args))?;
        Ok(Box::new(KeyedGroups { data_type, keys }))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

#[derive(Debug)]
struct Keyed {
    data_type: DataType,
    keys: Box<dyn Accumulator>,
}

impl Accumulator for Keyed {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.keys.update_batch(&keys(values)?)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.keys.retract_batch(&keys(values)?)
    }

    fn supports_retract_batch(&self) -> bool {
        self.keys.supports_retract_batch()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.keys.merge_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.keys.state()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let key = self.keys.evaluate()?.to_array()?;
        ScalarValue::try_from_array(&floats(&key, &self.data_type)?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.keys.size()
    }
}

struct KeyedGroups {
    data_type: DataType,
    keys: Box<dyn GroupsAccumulator>,
}

impl GroupsAccumulator for KeyedGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        groups: usize,
    ) -> Result<()> {
        self.keys.update_batch(&keys(values)?, group_indices, filter, groups)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], groups: usize) -> Result<()> {
        self.keys.merge_batch(states, group_indices, groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        floats(&self.keys.evaluate(emit_to)?, &self.data_type)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.keys.state(emit_to)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.keys.convert_to_state(&keys(values)?, filter)
    }

    fn size(&self) -> usize {
        self.keys.size()
    }
}

/// Integers of the order of the floats.
fn keys(values: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    let [values] = values else {
        return exec_err!("one argument");
    };
    let keys: Int64Array = match values.data_type() {
        DataType::Float64 => values.as_primitive::<Float64Type>().unary(key),
        DataType::Float32 => values
            .as_primitive::<Float32Type>()
            .unary(|value| key(f64::from(value))),
        other => return exec_err!("the order of {other}"),
    };
    Ok(vec![Arc::new(keys)])
}

fn floats(keys: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    let keys = keys.as_primitive::<Int64Type>();
    Ok(match data_type {
        DataType::Float64 => Arc::new(keys.unary::<_, Float64Type>(value)),
        #[expect(clippy::cast_possible_truncation, reason = "it was a float of 32 bits")]
        DataType::Float32 => Arc::new(keys.unary::<_, Float32Type>(|key| value(key) as f32)),
        other => return exec_err!("the order of {other}"),
    })
}

fn key(value: f64) -> i64 {
    let canonical = if value.is_nan() { f64::NAN } else { value + 0.0 };
    flipped(canonical.to_bits().cast_signed())
}

fn value(key: i64) -> f64 {
    f64::from_bits(flipped(key).cast_unsigned())
}

/// Negative floats are ordered the other way round; its own inverse.
fn flipped(bits: i64) -> i64 {
    bits ^ ((bits >> 63) & i64::MAX)
}
