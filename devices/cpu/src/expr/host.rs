//! Functions of Arrow arrays: host functions, and whatever of casts and date arithmetic has no loop of its own.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::kernels::numeric;
use arrow::compute::{CastOptions, cast_with_options};
use trireme_device_api::{BinaryOperator, DeviceError, HostFunction, HostFunctionRef, Type};

use super::arrow::{from_array, to_array};
use super::{Compiled, Input, Node};
use crate::vector::{Shape, Vector};

/// Builds a call of a host function.
pub(super) fn function(
    function: &HostFunctionRef,
    args: Vec<Compiled>,
    data_type: &Type,
) -> Result<Compiled, DeviceError> {
    let Some(implementation) = &function.implementation else {
        return Err(DeviceError::Unsupported(format!(
            "the function {} is not known here",
            function.name
        )));
    };
    Ok(build(
        Remote::Function(Arc::clone(implementation)),
        args,
        data_type,
        true,
    ))
}

/// Builds a CAST that arrow-cast does.
pub(super) fn cast(operand: Compiled, data_type: &Type, safe: bool) -> Compiled {
    let nullable = safe || operand.shape.nullable;
    build(
        Remote::Cast(data_type.clone(), safe),
        vec![operand],
        data_type,
        nullable,
    )
}

/// Builds arithmetic of dates and intervals that arrow-arith does.
pub(super) fn arithmetic(operator: BinaryOperator, left: Compiled, right: Compiled, data_type: &Type) -> Compiled {
    let nullable = left.shape.nullable || right.shape.nullable;
    build(Remote::Arithmetic(operator), vec![left, right], data_type, nullable)
}

fn build(remote: Remote, args: Vec<Compiled>, data_type: &Type, nullable: bool) -> Compiled {
    let shape = Shape::of_type(data_type.clone(), nullable);
    let node = Call {
        remote,
        args,
        shape: shape.clone(),
    };
    Compiled::new(node, shape, true, true)
}

enum Remote {
    Function(Arc<dyn HostFunction>),
    /// To a type; safe.
    Cast(Type, bool),
    Arithmetic(BinaryOperator),
}

struct Call {
    remote: Remote,
    args: Vec<Compiled>,
    shape: Shape,
}

impl Node for Call {
    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        let array = |arg: &Compiled| to_array(&arg.eval(input)?, &arg.shape.data_type, input.isa);
        let args = self.args.iter().map(array).collect::<Result<Vec<_>, _>>()?;
        let result = self.remote.call(&args, input.rows).map_err(DeviceError::Arithmetic)?;
        from_array(&result, &self.shape, input.rows)
    }
}

impl Remote {
    fn call(&self, args: &[ArrayRef], rows: usize) -> Result<ArrayRef, String> {
        let result = match (self, args) {
            (Remote::Function(function), args) => return function.evaluate(args, rows),
            (Remote::Cast(to, safe), [operand]) => {
                let options = CastOptions {
                    safe: *safe,
                    ..CastOptions::default()
                };
                cast_with_options(operand, &to.to_arrow(), &options)
            }
            (Remote::Arithmetic(BinaryOperator::Add), [left, right]) => numeric::add(left, right),
            (Remote::Arithmetic(BinaryOperator::Subtract), [left, right]) => numeric::sub(left, right),
            _ => return Err("a call with the wrong arguments".to_owned()),
        };
        result.map_err(|error| error.to_string())
    }
}
