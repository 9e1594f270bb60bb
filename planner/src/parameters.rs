//! Parameters of prepared statements: which there are, of which type, and binding rows of values to a plan.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::logical_expr::LogicalPlan;
use trireme_exec::QueryError;

use crate::output::advertised_schema;

/// One field per placeholder, in order. A type the planner can't infer is given as Utf8, which every client can bind; the
/// value's own type counts when it is bound.
///
/// # Errors
/// When placeholders are not `$1`, `$2`, … without gaps.
pub fn parameter_schema(plan: &LogicalPlan) -> Result<SchemaRef, QueryError> {
    let mut fields = BTreeMap::new();
    for (name, inferred) in plan.get_parameter_fields()? {
        let data_type = inferred.map_or(DataType::Utf8, |field| match field.data_type() {
            DataType::Null => DataType::Utf8,
            known => known.clone(),
        });
        fields.insert(ordinal(&name)?, Field::new(name, data_type, true));
    }
    if let Some((position, (&number, _))) = fields.iter().enumerate().find(|(position, (number, _))| position + 1 != **number) {
        return Err(QueryError::invalid(format!("parameter ${} is missing: ${number} follows it", position + 1)));
    }
    Ok(advertised_schema(&Schema::new(fields.into_values().collect::<Vec<_>>()), false))
}

fn ordinal(name: &str) -> Result<usize, QueryError> {
    name.strip_prefix('$')
        .and_then(|digits| digits.parse().ok())
        .filter(|number| *number > 0)
        .ok_or_else(|| QueryError::invalid(format!("{name} is not a parameter")).with_hint("write $1, $2, … or ?"))
}

/// The values of one row of bound parameters.
///
/// # Errors
/// When a value can't be read.
pub fn row_values(parameters: &RecordBatch, row: usize) -> Result<Vec<ScalarValue>, QueryError> {
    parameters.columns().iter().map(|column| Ok(plain_value(ScalarValue::try_from_array(column, row)?))).collect()
}

/// Validation tools bind dictionaries and unions; the planner wants the value inside.
fn plain_value(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Dictionary(_, inner) => plain_value(*inner),
        ScalarValue::Union(inner, _, _) => inner.map_or(ScalarValue::Null, |(_, inner)| plain_value(*inner)),
        other => other,
    }
}

/// Replaces the placeholders by one row's values.
///
/// # Errors
/// When there are too few or too many values, or a type doesn't fit.
pub fn bind_row(plan: &LogicalPlan, values: Vec<ScalarValue>) -> Result<LogicalPlan, QueryError> {
    let wanted = plan.get_parameter_names()?.len();
    if values.len() != wanted {
        return Err(QueryError::invalid(format!("the statement has {wanted} parameters, but {} were bound", values.len())));
    }
    let expected = plan.get_parameter_fields()?;
    let values = values
        .into_iter()
        .enumerate()
        .map(|(index, value)| match expected.get(&format!("${}", index + 1)) {
            Some(Some(field)) if field.data_type() != &value.data_type() && field.data_type() != &DataType::Null => value
                .cast_to(field.data_type())
                .map_err(|_| {
                    QueryError::invalid(format!("parameter ${} can't be read as {}", index + 1, field.data_type()))
                        .with_detail(format!("the bound value is of type {}", value.data_type()))
                }),
            _ => Ok(value),
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(plan.clone().with_param_values(ParamValues::from(values))?)
}

/// Fails with a helpful text when a statement with placeholders is run without values.
///
/// # Errors
/// When the plan still holds placeholders.
pub fn require_bound(plan: &LogicalPlan) -> Result<(), QueryError> {
    let names = plan.get_parameter_names()?;
    if names.is_empty() {
        return Ok(());
    }
    let mut names: Vec<_> = names.into_iter().collect();
    names.sort();
    Err(QueryError::invalid(format!("the parameters {} have no values", names.join(", ")))
        .with_hint("prepare the statement and bind them"))
}

/// The rows of several bound batches as one list of plans.
///
/// # Errors
/// As [`bind_row`].
pub fn bind_rows(plan: &LogicalPlan, batches: &[RecordBatch]) -> Result<Vec<LogicalPlan>, QueryError> {
    let mut plans = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            plans.push(bind_row(plan, row_values(batch, row)?)?);
        }
    }
    Ok(plans)
}

/// One plan that yields the rows of all `plans`, in order of binding.
///
/// # Errors
/// When the plans' schemas don't agree.
pub fn union(mut plans: Vec<LogicalPlan>) -> Result<LogicalPlan, QueryError> {
    if plans.len() == 1 {
        return Ok(plans.remove(0));
    }
    let inputs = plans.into_iter().map(Arc::new).collect();
    Ok(LogicalPlan::Union(datafusion::logical_expr::Union::try_new_with_loose_types(inputs)?))
}
