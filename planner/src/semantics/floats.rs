//! Floats as SQL orders them: NaN equals NaN and is the greatest, −0.0 equals 0.0.
//!
//! DataFusion orders by IEEE's total order with zeros joined, so a NaN whose sign is set (what x86 gives for `0.0 / 0.0`) is the
//! smallest and equals no other NaN; and it prunes files by statistics that leave NaN out. So
//!
//! - a comparison with a constant keeps its prunable form and says beside it what holds for NaN: `x < 5 AND NOT isnan(x)`;
//! - other comparisons, and keys of groups, joins, sorts and windows, get operands in [`canonical`] form: one NaN, one zero.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float16Type, Float32Type, Float64Type, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DFSchema, Result, ScalarValue, exec_err};
use datafusion::functions::math::expr_fn::isnan;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

/// Name of the function that makes floats canonical.
pub(super) const CANONICAL: &str = "canonical_float";

/// The value with one NaN and one zero; what is no float stays as it is.
///
/// # Errors
/// An expression that does not type.
pub(super) fn canonical(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    if !expr.get_type(schema)?.is_floating() || is_canonical(&expr) {
        return Ok(expr);
    }
    Ok(canonical_function().call(vec![expr]))
}

fn canonical_function() -> &'static ScalarUDF {
    static FUNCTION: LazyLock<ScalarUDF> = LazyLock::new(|| ScalarUDF::new_from_impl(Canonical::new()));
    &FUNCTION
}

/// Physical expressions with one NaN and one zero, as [`canonical`] makes logical ones.
///
/// # Errors
/// An expression that does not type.
pub fn canonical_floats(exprs: Vec<Arc<dyn PhysicalExpr>>, schema: &Schema) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
    let make = |expr: Arc<dyn PhysicalExpr>| {
        if !expr.data_type(schema)?.is_floating() {
            return Ok(expr);
        }
        let function = Arc::new(canonical_function().clone());
        let config = Arc::new(ConfigOptions::default());
        let call = ScalarFunctionExpr::try_new(function, vec![expr], schema, config)?;
        Ok(Arc::new(call) as Arc<dyn PhysicalExpr>)
    };
    exprs.into_iter().map(make).collect()
}

fn is_canonical(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(ScalarValue::Float64(value), _) => value.is_none_or(|value| !value.is_nan() && value != 0.0),
        Expr::Literal(ScalarValue::Float32(value), _) => value.is_none_or(|value| !value.is_nan() && value != 0.0),
        Expr::ScalarFunction(call) => call.func.inner().is::<Canonical>(),
        Expr::Alias(alias) => is_canonical(&alias.expr),
        // A float of an integer.
        _ => false,
    }
}

/// Whether the expression compares floats in a way that needs [`compared`].
///
/// # Errors
/// An expression that does not type.
pub(super) fn compares_floats(binary: &BinaryExpr, schema: &DFSchema) -> Result<bool> {
    Ok(is_comparison(binary.op)
        && binary.left.get_type(schema)?.is_floating()
        && binary.right.get_type(schema)?.is_floating())
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(
        op,
        Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom
    )
}

/// The comparison, right for NaN too.
///
/// # Errors
/// An expression that does not type.
pub(super) fn compared(binary: BinaryExpr, schema: &DFSchema) -> Result<Expr> {
    let BinaryExpr { left, op, right } = binary;
    let (x, op, constant) = match (is_constant(&left), is_constant(&right), op.swap()) {
        (false, true, _) => (*left, op, *right),
        (true, false, Some(swapped)) => (*right, swapped, *left),
        _ => return Ok(operation(canonical(*left, schema)?, op, canonical(*right, schema)?)),
    };
    let nan = isnan(x.clone());
    let constant_nan = isnan(constant.clone());
    let comparison = |op| operation(x.clone(), op, constant.clone());
    let known = matches!(&constant, Expr::Literal(value, _) if !value.is_null());
    // Beside a constant that is not NaN, what holds for `constant_nan` folds away.
    Ok(match op {
        Operator::Lt if known => comparison(op).and(negated(nan)),
        Operator::Lt => comparison(op).and(negated(nan).or(constant.clone().is_null())),
        Operator::LtEq | Operator::Eq => comparison(op).and(negated(nan.clone())).or(nan.and(constant_nan)),
        Operator::Gt => comparison(op).or(nan.and(negated(constant_nan))),
        Operator::GtEq if known => comparison(op).or(nan),
        Operator::GtEq => comparison(op).or(nan.and(constant.clone().is_not_null())),
        Operator::NotEq => comparison(op).or(nan.clone()).and(negated(nan.and(constant_nan))),
        _ => operation(canonical(x, schema)?, op, canonical(constant, schema)?),
    })
}

/// `x IN (…)` over floats.
///
/// # Errors
/// An expression that does not type.
pub(super) fn in_list(list: InList, schema: &DFSchema) -> Result<Expr> {
    let InList { expr, list, negated } = list;
    let elements = list
        .into_iter()
        .map(|element| canonical(element, schema))
        .collect::<Result<_>>()?;
    Ok(Expr::InList(InList {
        expr: Box::new(canonical(*expr, schema)?),
        list: elements,
        negated,
    }))
}

fn negated(expr: Expr) -> Expr {
    Expr::Not(Box::new(expr))
}

fn operation(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr {
        left: Box::new(left),
        op,
        right: Box::new(right),
    })
}

fn is_constant(expr: &Expr) -> bool {
    expr.column_refs().is_empty() && !expr.is_volatile() && !expr.contains_outer() && !has_placeholder_or_subquery(expr)
}

fn has_placeholder_or_subquery(expr: &Expr) -> bool {
    use datafusion::common::tree_node::TreeNode;
    expr.exists(|expr| {
        Ok(matches!(
            expr,
            Expr::ScalarSubquery(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::AggregateFunction(_)
                | Expr::WindowFunction(_)
        ))
    })
    .unwrap_or(true)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Canonical {
    signature: Signature,
}

impl Canonical {
    fn new() -> Self {
        Self {
            signature: Signature::any(1, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Canonical {
    fn name(&self) -> &str {
        CANONICAL
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [data_type] => Ok(data_type.clone()),
            _ => exec_err!("canonical_float has one argument"),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        match args.arg_fields {
            [field] => Ok(Arc::new(Field::new(
                self.name(),
                field.data_type().clone(),
                field.is_nullable(),
            ))),
            _ => exec_err!("canonical_float has one argument"),
        }
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.as_slice() {
            [ColumnarValue::Array(array)] => Ok(ColumnarValue::Array(canonical_array(array.as_ref())?)),
            [ColumnarValue::Scalar(scalar)] => {
                let array = canonical_array(scalar.to_array()?.as_ref())?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
            }
            _ => exec_err!("canonical_float has one argument"),
        }
    }
}

fn canonical_array(array: &dyn Array) -> Result<arrow::array::ArrayRef> {
    // Adding 0.0 makes −0.0 positive and changes nothing else.
    Ok(match array.data_type() {
        DataType::Float64 => Arc::new(
            array
                .as_primitive::<Float64Type>()
                .unary::<_, Float64Type>(|value| if value.is_nan() { f64::NAN } else { value + 0.0 }),
        ),
        DataType::Float32 => Arc::new(
            array
                .as_primitive::<Float32Type>()
                .unary::<_, Float32Type>(|value| if value.is_nan() { f32::NAN } else { value + 0.0 }),
        ),
        DataType::Float16 => {
            use arrow::array::ArrowNativeTypeOp;
            let zero = <Float16Type as arrow::datatypes::ArrowPrimitiveType>::Native::default();
            let nan = zero.div_wrapping(zero);
            Arc::new(
                array
                    .as_primitive::<Float16Type>()
                    .unary::<_, Float16Type>(|value| if value.is_nan() { nan } else { value.add_wrapping(zero) }),
            )
        }
        other => return exec_err!("canonical_float of {other}"),
    })
}
