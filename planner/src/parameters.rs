//! Parameters of prepared statements: which there are, of which type, and binding rows of values to a plan.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan};
use trireme_exec::QueryError;

use crate::output::advertised_schema;

/// One field per placeholder, in order. A type the planner can't infer is given as Utf8, which every client can bind; the
/// value's own type counts when it is bound.
///
/// # Errors
/// When placeholders are not `$1`, `$2`, … without gaps.
pub fn parameter_schema(plan: &LogicalPlan) -> Result<SchemaRef, QueryError> {
    let mut fields = BTreeMap::new();
    for (name, inferred) in inferred_types(plan)? {
        let data_type = inferred.unwrap_or(DataType::Utf8);
        fields.insert(ordinal(&name)?, Field::new(name, data_type, true));
    }
    if let Some((position, (&number, _))) = fields
        .iter()
        .enumerate()
        .find(|(position, (number, _))| position + 1 != **number)
    {
        return Err(QueryError::invalid(format!(
            "parameter ${} is missing: ${number} follows it",
            position + 1
        )));
    }
    Ok(advertised_schema(
        &Schema::new(fields.into_values().collect::<Vec<_>>()),
        false,
    ))
}

/// The type of each placeholder, where the statement says it: by what it is compared with or inserted into (DataFusion's
/// inference), or by a CAST right around it.
fn inferred_types(plan: &LogicalPlan) -> Result<HashMap<String, Option<DataType>>, QueryError> {
    let known = |field: &Option<arrow::datatypes::FieldRef>| {
        field
            .as_ref()
            .map(|field| field.data_type().clone())
            .filter(|data_type| data_type != &DataType::Null)
    };
    let mut types: HashMap<_, _> = plan
        .get_parameter_fields()?
        .iter()
        .map(|(name, field)| (name.clone(), known(field)))
        .collect();
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|inner| {
                if let Expr::Cast(cast) = inner
                    && let Expr::Placeholder(placeholder) = cast.expr.as_ref()
                    && let Some(unknown @ None) = types.get_mut(&placeholder.id)
                {
                    *unknown = Some(cast.field.data_type().clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(types)
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
    parameters
        .columns()
        .iter()
        .map(|column| Ok(plain_value(ScalarValue::try_from_array(column, row)?)))
        .collect()
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
    let mut plans = bind_all(plan, vec![values])?;
    plans.pop().ok_or_else(|| QueryError::internal("no row was bound"))
}

/// All rows of a parameter are bound in one type: the one that the statement expects, or, where that can't hold each of them, their
/// own. Then they are what literals of it would be, and `a < 3.5` is not `a < 3`.
fn bind_all(plan: &LogicalPlan, mut rows: Vec<Vec<ScalarValue>>) -> Result<Vec<LogicalPlan>, QueryError> {
    let names = plan.get_parameter_names()?.len();
    if let Some(row) = rows.iter().find(|row| row.len() != names) {
        return Err(QueryError::invalid(format!(
            "the statement has {names} parameters, but {} were bound",
            row.len()
        )));
    }
    let expected = inferred_types(plan)?;
    for index in 0..names {
        let Some(Some(wanted)) = expected.get(&format!("${}", index + 1)) else {
            continue;
        };
        let cast = rows.iter().map(|row| fitting(&row[index], wanted, index + 1));
        let cast: Option<Vec<_>> = cast.collect::<Result<_, _>>()?;
        for (row, value) in rows.iter_mut().zip(cast.into_iter().flatten()) {
            row[index] = value;
        }
    }
    let bound = |row| Ok(plan.clone().with_param_values(ParamValues::from(row))?);
    rows.into_iter().map(bound).collect()
}

/// A value in another type; none where that can't hold it. Texts are read as the other type.
fn fitting(value: &ScalarValue, wanted: &DataType, number: usize) -> Result<Option<ScalarValue>, QueryError> {
    let own = value.data_type();
    if own == *wanted {
        return Ok(Some(value.clone()));
    }
    match value.cast_to(wanted) {
        Ok(cast) if value.is_null() || own.is_string() => Ok(Some(cast)),
        Ok(cast) if cast.cast_to(&own).is_ok_and(|back| back == *value) => Ok(Some(cast)),
        Err(_) if !(own.is_numeric() && wanted.is_numeric()) => Err(QueryError::invalid(format!(
            "parameter ${number} can't be read as {wanted}"
        ))
        .with_detail(format!("the bound value is of type {own}"))),
        _ => Ok(None),
    }
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
    Err(
        QueryError::invalid(format!("the parameters {} have no values", names.join(", ")))
            .with_hint("prepare the statement and bind them"),
    )
}

/// The rows of several bound batches as one list of plans.
///
/// # Errors
/// As [`bind_row`].
pub fn bind_rows(plan: &LogicalPlan, batches: &[RecordBatch]) -> Result<Vec<LogicalPlan>, QueryError> {
    let rows = batches
        .iter()
        .flat_map(|batch| (0..batch.num_rows()).map(|row| row_values(batch, row)));
    bind_all(plan, rows.collect::<Result<_, _>>()?)
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
    Ok(LogicalPlan::Union(
        datafusion::logical_expr::Union::try_new_with_loose_types(inputs)?,
    ))
}
