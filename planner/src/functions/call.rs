//! A function as DataFusion's planner sees it: a name with types, and a way to evaluate calls that were not inlined.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, DocSection, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::UserFunction;
use super::inline::external;

/// A function under one of its names.
#[derive(Debug)]
pub(super) struct Call {
    shown: String,
    function: Arc<UserFunction>,
    signature: Signature,
    documentation: Documentation,
}

impl Call {
    /// `listed`: the signature says the types of the arguments; otherwise they are left to be checked where a call is inlined,
    /// which knows literals from columns.
    pub(super) fn new(shown: String, function: Arc<UserFunction>, listed: bool) -> Self {
        let volatility = match function.body.get() {
            Some(Ok(body)) => body.volatility,
            _ => Volatility::Volatile,
        };
        let definition = &function.definition;
        let documentation = Documentation {
            doc_section: DocSection {
                include: true,
                label: "User-Defined Functions",
                description: None,
            },
            description: format!("RETURN {}", definition.body),
            syntax_example: format!("{shown}({})", definition.arguments()),
            sql_example: None,
            arguments: Some(
                (0..function.parameters.len())
                    .map(|index| (function.parameter_name(index), String::new()))
                    .collect(),
            ),
            alternative_syntax: None,
            related_udfs: None,
        };
        let signature = match function.parameters.as_slice() {
            [] if listed => Signature::nullary(volatility),
            types if listed => Signature::exact(types.to_vec(), volatility),
            _ => Signature::user_defined(volatility),
        };
        let names: Option<Vec<String>> = definition.parameters.iter().map(|one| one.name.clone()).collect();
        let signature = match names {
            Some(names) if !listed && !names.is_empty() => {
                let plain = signature.clone();
                signature.with_parameter_names(names).unwrap_or(plain)
            }
            _ => signature,
        };
        Self {
            shown,
            function,
            signature,
            documentation,
        }
    }
}

/// The user-defined function behind a function of a plan.
pub(super) fn user_function(function: &ScalarUDF) -> Option<&Arc<UserFunction>> {
    function.inner().downcast_ref::<Call>().map(|call| &call.function)
}

impl PartialEq for Call {
    fn eq(&self, other: &Self) -> bool {
        self.shown == other.shown && Arc::ptr_eq(&self.function, &other.function)
    }
}

impl Eq for Call {}

impl Hash for Call {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.shown.hash(state);
    }
}

impl ScalarUDFImpl for Call {
    fn name(&self) -> &str {
        &self.shown
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(self.function.returns.clone())
    }

    /// A wrong number of arguments is told where the call is inlined.
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if types.len() == self.function.parameters.len() {
            return Ok(self.function.parameters.clone());
        }
        Ok(types.to_vec())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let function = &self.function;
        let body = function.body().map_err(external)?;
        if args.args.len() != function.parameters.len() {
            return exec_err!(
                "function {} takes {} arguments",
                function.name,
                function.parameters.len()
            );
        }
        let mut columns = Vec::with_capacity(args.args.len());
        for (value, data_type) in args.args.into_iter().zip(&function.parameters) {
            let column = value.into_array(args.number_rows)?;
            columns.push(if column.data_type() == data_type {
                column
            } else {
                cast(&column, data_type)?
            });
        }
        let schema: Arc<Schema> = Arc::clone(body.schema.inner());
        let options = RecordBatchOptions::new().with_row_count(Some(args.number_rows));
        let rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
        body.physical(&function.name, &args.config_options)?.evaluate(&rows)
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}
