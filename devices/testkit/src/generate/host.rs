//! Two host functions: what a string function of DataFusion looks like to a variant.

use std::sync::Arc;

use arrow::array::ArrayRef;
use trireme_device_api::{Expr, HostFunction, HostFunctionRef, Node, Type, Value};

use crate::arrays::{array_of, value_at};
use crate::values::text;

/// A function of one string.
struct OfString {
    argument: Type,
    result: Type,
    apply: fn(&str) -> Result<Value, String>,
}

impl HostFunction for OfString {
    fn evaluate(&self, args: &[ArrayRef], rows: usize) -> Result<ArrayRef, String> {
        let [array] = args else {
            return Err(format!("{} arguments where one is due", args.len()));
        };
        if array.len() != rows {
            return Err(format!("an array of {} values for {rows} rows", array.len()));
        }
        let mut values = Vec::with_capacity(rows);
        for row in 0..rows {
            let value = value_at(array, row, &self.argument).map_err(|error| error.to_string())?;
            values.push(match &value {
                Value::Bytes(bytes) => (self.apply)(std::str::from_utf8(bytes).map_err(|error| error.to_string())?)?,
                _ => Value::Null,
            });
        }
        array_of(&values, &self.result).map_err(|error| error.to_string())
    }
}

fn call(name: &str, argument: Expr, result: Type, apply: fn(&str) -> Result<Value, String>) -> Expr {
    let implementation = OfString {
        argument: argument.data_type.clone(),
        result: result.clone(),
        apply,
    };
    Expr {
        node: Node::Host {
            function: HostFunctionRef {
                name: name.to_owned(),
                implementation: Some(Arc::new(implementation)),
            },
            args: vec![argument],
        },
        data_type: result,
    }
}

/// `upper(string)`, of the string's type.
pub(super) fn upper(argument: Expr) -> Expr {
    let result = argument.data_type.clone();
    call("upper", argument, result, |string| Ok(text(&string.to_uppercase())))
}

/// `character_length(string)`; fails for a string that holds a backslash, as functions may.
pub(super) fn length(argument: Expr) -> Expr {
    call("length", argument, Type::Int32, |string| match string.contains('\\') {
        true => Err("a backslash has no length".to_owned()),
        false => Ok(Value::Int(i128::try_from(string.chars().count()).unwrap_or_default())),
    })
}
