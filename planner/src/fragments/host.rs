//! Scalar functions that stay DataFusion's: evaluated on the host over Arrow arrays.
//!
//! A physical expression becomes a function of its leaves by replacing them with columns of a batch of arguments. Only
//! functions of their arguments alone qualify: nothing volatile, nothing of the session that isn't folded yet.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::parameter::PARAMETER_FUNCTION;
use crate::semantics::canonical_floats;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::Volatility;
use datafusion::physical_expr::expressions::{CastExpr, Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use trireme_device_api::{Expr, HostFunction, HostFunctionRef, Node, Type};

/// A physical expression over a batch of arguments.
struct Evaluated {
    expr: Arc<dyn PhysicalExpr>,
    arguments: SchemaRef,
    result: DataType,
}

impl HostFunction for Evaluated {
    fn evaluate(&self, args: &[ArrayRef], rows: usize) -> Result<ArrayRef, String> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.arguments), args.to_vec(), &options)
            .map_err(|error| error.to_string())?;
        let value = self
            .expr
            .evaluate(&batch)
            .and_then(|value| value.into_array(rows))
            .map_err(|error| error.strip_backtrace())?;
        if value.data_type() != &self.result {
            return Err(format!(
                "{} gave {} instead of {}",
                self.expr,
                value.data_type(),
                self.result
            ));
        }
        Ok(value)
    }
}

/// A call of `expr` whose children were lowered to `args`; constant children stay inside.
pub(super) fn call(expr: &Arc<dyn PhysicalExpr>, args: Vec<Option<Expr>>, data_type: Type) -> Result<Expr, String> {
    let mut fields = Vec::new();
    let mut passed = Vec::new();
    let mut children = Vec::new();
    for (child, arg) in expr.children().into_iter().zip(args) {
        match arg {
            None => children.push(Arc::clone(child)),
            Some(arg) => {
                children.push(argument(&mut fields, &arg.data_type));
                passed.push(arg);
            }
        }
    }
    if expr.downcast_ref::<ScalarFunctionExpr>().is_some_and(is_extreme) {
        // Fragments don't tell NaNs and zeros apart, so their arguments were stripped of what makes them one.
        children = canonical_floats(children, &Schema::new(fields.clone())).map_err(|error| error.strip_backtrace())?;
    }
    let expr = Arc::clone(expr)
        .with_new_children(children)
        .map_err(|error| error.strip_backtrace())?;
    Ok(finish(expr, fields, passed, data_type))
}

/// Functions that compare their arguments.
pub(super) fn is_extreme(call: &ScalarFunctionExpr) -> bool {
    matches!(call.fun().name(), "greatest" | "least")
}

/// `expr` as one function of the columns it reads, whatever it does with them.
pub(super) fn whole(
    expr: &Arc<dyn PhysicalExpr>,
    data_type: Type,
    column: &dyn Fn(&Column) -> Result<Expr, String>,
) -> Result<Expr, String> {
    pure(expr)?;
    let mut fields = Vec::new();
    let mut passed: Vec<Expr> = Vec::new();
    let mut refused = None;
    let expr = Arc::clone(expr)
        .transform_down(|node| {
            let Some(leaf) = node.downcast_ref::<Column>() else {
                return Ok(Transformed::no(node));
            };
            match column(leaf) {
                Err(reason) => {
                    refused = Some(reason);
                    Ok(Transformed::no(node))
                }
                Ok(arg) => {
                    let known = passed.iter().position(|other| *other == arg);
                    let new = match known {
                        Some(position) => Arc::new(Column::new(&format!("${position}"), position)) as _,
                        None => {
                            let new = argument(&mut fields, &arg.data_type);
                            passed.push(arg);
                            new
                        }
                    };
                    Ok(Transformed::new(new, true, TreeNodeRecursion::Jump))
                }
            }
        })
        .data()
        .map_err(|error| error.strip_backtrace())?;
    match refused {
        Some(reason) => Err(reason),
        None => Ok(finish(expr, fields, passed, data_type)),
    }
}

fn argument(fields: &mut Vec<Field>, data_type: &Type) -> Arc<dyn PhysicalExpr> {
    let position = fields.len();
    let name = format!("${position}");
    fields.push(Field::new(&name, data_type.to_arrow(), true));
    Arc::new(Column::new(&name, position))
}

fn finish(expr: Arc<dyn PhysicalExpr>, fields: Vec<Field>, args: Vec<Expr>, data_type: Type) -> Expr {
    let name = name(&expr, &fields);
    let function = Evaluated {
        expr,
        arguments: Arc::new(Schema::new(fields)),
        result: data_type.to_arrow(),
    };
    Expr {
        node: Node::Host {
            function: HostFunctionRef {
                name,
                implementation: Some(Arc::new(function)),
            },
            args,
        },
        data_type,
    }
}

/// What is evaluated, and what its text doesn't tell, types and where constants end: the identity of the function.
fn name(expr: &Arc<dyn PhysicalExpr>, fields: &[Field]) -> String {
    let mut types: Vec<_> = fields.iter().map(|field| field.data_type().to_string()).collect();
    visit(expr, &mut |node| {
        if let Some(literal) = node.downcast_ref::<Literal>() {
            types.push(literal_text(literal.value()));
        } else if let Some(cast) = node.downcast_ref::<CastExpr>() {
            types.push(cast.cast_type().to_string());
        } else if let Some(call) = node.downcast_ref::<ScalarFunctionExpr>()
            && let Some(zone) = &call.config_options().execution.time_zone
        {
            types.push(zone.clone());
        }
    });
    format!("{expr} [{}]", types.join(", "))
}

/// A constant's type and value, of which no two have the same.
fn literal_text(value: &ScalarValue) -> String {
    let data_type = value.data_type();
    match value.try_as_str() {
        Some(text) => format!("{data_type} {text:?}"),
        None if data_type.is_nested() => {
            let mut hasher = DefaultHasher::new();
            value.hash(&mut hasher);
            format!("{data_type} {:016x}", hasher.finish())
        }
        None => format!("{value:?}"),
    }
}

/// Refuses what depends on more than its columns.
pub(super) fn pure(expr: &Arc<dyn PhysicalExpr>) -> Result<(), String> {
    let mut refused = None;
    visit(expr, &mut |node| {
        if let Some(call) = node.downcast_ref::<ScalarFunctionExpr>() {
            refused = refused.take().or_else(|| pure_function(call).err());
        } else if node.is_volatile_node() || !known(node) {
            refused = Some(format!("{node} is not fused"));
        }
    });
    refused.map_or(Ok(()), Err)
}

/// Refuses functions of time, chance and session.
pub(super) fn pure_function(call: &ScalarFunctionExpr) -> Result<(), String> {
    if call.fun().name() == PARAMETER_FUNCTION {
        return Err("a parameter stands here".to_owned());
    }
    match call.fun().signature().volatility {
        Volatility::Immutable => Ok(()),
        Volatility::Stable => Err(format!("{} depends on the session", call.name())),
        Volatility::Volatile => Err(format!("{} is volatile", call.name())),
    }
}

/// Expressions whose value comes from their children alone.
fn known(expr: &Arc<dyn PhysicalExpr>) -> bool {
    use datafusion::physical_expr::expressions::{
        BinaryExpr, CaseExpr, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, NegativeExpr, NotExpr, TryCastExpr,
    };
    expr.is::<Column>()
        || expr.is::<Literal>()
        || expr.is::<BinaryExpr>()
        || expr.is::<CaseExpr>()
        || expr.is::<CastExpr>()
        || expr.is::<TryCastExpr>()
        || expr.is::<InListExpr>()
        || expr.is::<LikeExpr>()
        || expr.is::<NegativeExpr>()
        || expr.is::<NotExpr>()
        || expr.is::<IsNullExpr>()
        || expr.is::<IsNotNullExpr>()
}

fn visit(expr: &Arc<dyn PhysicalExpr>, see: &mut dyn FnMut(&Arc<dyn PhysicalExpr>)) {
    see(expr);
    for child in expr.children() {
        visit(child, see);
    }
}
