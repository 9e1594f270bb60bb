//! What SQL can't say: kernels and accumulators against a wide reference, on random values near the edges.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, PrimitiveArray, UInt64Array};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, Int8Type, Int64Type, Schema, UInt64Type};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{ColumnarValue, EmitTo, GroupsAccumulator};

use super::arithmetic::CheckedOperator::{self, Add, Multiply, Subtract};
use super::kernels;
use super::sum::exact_sum;

/// A small generator, so that failures repeat: the seed is in every message.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 ^ (self.0 >> 29)
    }

    /// Often near an edge of the type.
    fn i64(&mut self) -> i64 {
        let small = i64::try_from(self.next() % 7).unwrap();
        match self.next() % 5 {
            0 => i64::MAX - small,
            1 => i64::MIN + small,
            2 => small - 3,
            3 => self.next().cast_signed() >> 32,
            _ => self.next().cast_signed(),
        }
    }
}

fn exact(operator: CheckedOperator, left: i128, right: i128) -> Option<i128> {
    match operator {
        Add => left.checked_add(right),
        Subtract => left.checked_sub(right),
        _ => left.checked_mul(right),
    }
}

/// One row at a time and all at once, as arrays and as constants, give the exact result or an error.
fn check<T>(operator: CheckedOperator, left: T::Native, right: T::Native, seed: u64)
where
    T: ArrowPrimitiveType<Native: Into<i128> + TryFrom<i128> + Copy>,
{
    let wanted = exact(operator, left.into(), right.into()).and_then(|value| T::Native::try_from(value).ok());
    let array = |value| ColumnarValue::Array(Arc::new(PrimitiveArray::<T>::from_iter_values([value])) as ArrayRef);
    let scalar = |value| ColumnarValue::Scalar(ScalarValue::new_primitive::<T>(Some(value), &T::DATA_TYPE).unwrap());
    for (l, r) in [
        (array(left), array(right)),
        (array(left), scalar(right)),
        (scalar(left), array(right)),
        (scalar(left), scalar(right)),
    ] {
        let found = kernels::binary(operator, &l, &r, &T::DATA_TYPE, 1).ok();
        let found = found.map(|value| value.into_array(1).unwrap().as_primitive::<T>().value(0));
        assert_eq!(found, wanted, "seed {seed}: {left:?} {operator:?} {right:?}");
    }
}

#[test]
fn arithmetic_is_exact_or_fails() {
    let seed = 7;
    let mut random = Random(seed);
    for operator in [Add, Subtract, Multiply] {
        for left in i8::MIN..=i8::MAX {
            for right in [i8::MIN, -100, -2, -1, 0, 1, 2, 12, 100, i8::MAX] {
                check::<Int8Type>(operator, left, right, seed);
            }
        }
        for _ in 0..2000 {
            check::<Int64Type>(operator, random.i64(), random.i64(), seed);
            check::<UInt64Type>(
                operator,
                random.i64().cast_unsigned(),
                random.i64().cast_unsigned(),
                seed,
            );
        }
    }
}

#[test]
fn slots_of_nulls_do_not_overflow() {
    let values: ArrayRef = Arc::new(Int64Array::new(
        vec![i64::MAX, 1, 2].into(),
        Some(vec![false, true, true].into()),
    ));
    let one = ColumnarValue::Scalar(ScalarValue::Int64(Some(1)));
    for operator in [Add, Multiply] {
        let two = ColumnarValue::Scalar(ScalarValue::Int64(Some(2)));
        let right = if operator == Add { &one } else { &two };
        let sum = kernels::binary(
            operator,
            &ColumnarValue::Array(Arc::clone(&values)),
            right,
            &DataType::Int64,
            3,
        );
        let sum = sum.unwrap().into_array(3).unwrap();
        assert_eq!(sum.null_count(), 1);
    }
}

fn groups(data_type: &DataType) -> Box<dyn GroupsAccumulator> {
    let field = Arc::new(Field::new("x", data_type.clone(), true));
    let schema = Schema::new(vec![Arc::clone(&field)]);
    exact_sum()
        .create_groups_accumulator(AccumulatorArgs {
            return_field: Arc::clone(&field),
            schema: &schema,
            ignore_nulls: false,
            order_bys: &[],
            is_reversed: false,
            name: "sum",
            is_distinct: false,
            exprs: &[],
            expr_fields: &[field],
        })
        .unwrap()
}

/// Through states of two stages, with some groups emitted early.
#[test]
fn grouped_sums_are_exact_through_stages() {
    let seed = 11;
    let mut random = Random(seed);
    for _ in 0..50 {
        let rows = 200;
        let values: Vec<_> = (0..rows).map(|_| random.i64()).collect();
        let valid: Vec<_> = (0..rows).map(|_| !random.next().is_multiple_of(5)).collect();
        let kept: BooleanArray = (0..rows).map(|_| Some(!random.next().is_multiple_of(7))).collect();
        let group: Vec<_> = (0..rows).map(|_| usize::try_from(random.next() % 6).unwrap()).collect();
        let mut totals = [0_i128; 6];
        let mut seen = [false; 6];
        for row in 0..rows {
            if valid[row] && kept.value(row) {
                totals[group[row]] += i128::from(values[row]);
                seen[group[row]] = true;
            }
        }
        let array: ArrayRef = Arc::new(Int64Array::new(values.clone().into(), Some(valid.clone().into())));
        let mut partial = groups(&DataType::Int64);
        partial
            .update_batch(&[Arc::clone(&array)], &group, Some(&kept), 6)
            .unwrap();
        let mut last = groups(&DataType::Int64);
        let first = partial.state(EmitTo::First(2)).unwrap();
        last.merge_batch(&first, &[0, 1], 2).unwrap();
        let rest = partial.state(EmitTo::All).unwrap();
        last.merge_batch(&rest, &[2, 3, 4, 5], 6).unwrap();
        for (number, total) in totals.iter().enumerate() {
            let wanted = i64::try_from(*total).ok();
            let found = last.evaluate(EmitTo::First(1)).ok();
            let found = found.map(|array| {
                let array = array.as_primitive::<Int64Type>();
                array.is_valid(0).then(|| array.value(0))
            });
            let wanted = if seen[number] { wanted.map(Some) } else { Some(None) };
            assert_eq!(found, wanted, "seed {seed}: group {number} of {totals:?}");
            if found.is_none() {
                break;
            }
        }
    }
}

#[test]
fn rows_pass_as_states() {
    let values: ArrayRef = Arc::new(UInt64Array::from(vec![Some(u64::MAX), None, Some(1), Some(5)]));
    let kept = BooleanArray::from(vec![Some(true), Some(true), Some(true), None]);
    let states = groups(&DataType::UInt64)
        .convert_to_state(&[values], Some(&kept))
        .unwrap();
    let mut last = groups(&DataType::UInt64);
    last.merge_batch(&states, &[0, 0, 1, 1], 2).unwrap();
    let sums = last.evaluate(EmitTo::All).unwrap();
    assert_eq!(sums.as_primitive::<UInt64Type>().values().as_ref(), &[u64::MAX, 1]);
}

/// What the rules do to expressions is undone for lowering.
#[test]
fn plain_operators_come_back() {
    use datafusion::logical_expr::Operator;
    use datafusion::physical_expr::PhysicalExpr;
    use datafusion::physical_expr::expressions::{BinaryExpr, CaseExpr, col, lit};

    let schema = Schema::new(vec![
        Field::new("b", DataType::Boolean, true),
        Field::new("c", DataType::Boolean, true),
    ]);
    let (b, c) = (col("b", &schema).unwrap(), col("c", &schema).unwrap());
    for (op, decided) in [(Operator::And, false), (Operator::Or, true)] {
        let wanted: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(Arc::clone(&b), op, Arc::clone(&c)));
        let unknown = BinaryExpr::new(lit(ScalarValue::Boolean(None)), op, Arc::clone(&c));
        let branches = vec![(lit(!decided), Arc::clone(&c)), (lit(decided), lit(decided))];
        let case = CaseExpr::try_new(Some(Arc::clone(&b)), branches, Some(Arc::new(unknown))).unwrap();
        let case: Arc<dyn PhysicalExpr> = Arc::new(case);
        assert_eq!(&super::plain(&case).unwrap(), &wanted);
    }
}

#[test]
fn comparisons_of_floats_come_back() {
    use datafusion::common::DFSchema;
    use datafusion::logical_expr::{self as logical, Operator};
    use datafusion::physical_expr::PhysicalExpr;
    use datafusion::physical_expr::expressions::{BinaryExpr, col, lit};
    use datafusion::prelude::SessionContext;

    let schema = Schema::new(vec![Field::new("x", DataType::Float64, true)]);
    let names = DFSchema::try_from(schema.clone()).unwrap();
    for op in [
        Operator::Lt,
        Operator::LtEq,
        Operator::Eq,
        Operator::Gt,
        Operator::GtEq,
        Operator::NotEq,
    ] {
        let comparison = logical::BinaryExpr {
            left: Box::new(logical::col("x")),
            op,
            right: Box::new(logical::lit(5.0)),
        };
        let right = super::floats::compared(comparison, &names).unwrap();
        let physical = SessionContext::new().create_physical_expr(right, &names).unwrap();
        let wanted: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(col("x", &schema).unwrap(), op, lit(5.0)));
        assert_eq!(&super::plain(&physical).unwrap(), &wanted, "{physical}");
    }
}
