//! Which files a filter can't have rows in, told before any is opened.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{FieldRef, Fields, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue, plan_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::listing::helpers::expr_applicable_for_cols;
use datafusion::error::Result;
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::expr_rewriter::unnormalize_col;
use datafusion::logical_expr::{Expr, Operator};
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use trireme_planner::plan_cache::shape::PARAMETER;

use super::Bounds;

/// With more files a plan that holds for all values of its constants reads too many footers.
const UNPRUNED_FILES_MAX: usize = 64;

/// True for a filter that partition values alone decide. It is evaluated with those of all files, and none may be an error: that
/// could be of a file that another filter takes away, or of which no row comes so far. With parameters the plan can't be kept, and
/// evaluating it says so.
pub(super) fn by_partition(files: &[PartitionedFile], columns: &Fields, filter: &Expr) -> bool {
    let names: Vec<&str> = columns.iter().map(|field| field.name().as_str()).collect();
    !names.is_empty()
        && !filter.column_refs().is_empty()
        && expr_applicable_for_cols(&names, filter)
        && (!may_fail(filter)
            || has_parameter(filter).unwrap_or(true)
            || partitions(
                files,
                columns,
                &[&unnormalize_col(filter.clone())],
                &mut vec![true; files.len()],
            )
            .is_ok())
}

/// Comparisons, and what combines them, give no error for any value.
fn may_fail(filter: &Expr) -> bool {
    let fails = |expr: &Expr| {
        Ok(match expr {
            Expr::BinaryExpr(binary) => {
                use Operator::{And, Eq, Gt, GtEq, Lt, LtEq, NotEq, Or};
                !matches!(binary.op, And | Or | Eq | NotEq | Lt | LtEq | Gt | GtEq)
            }
            Expr::Column(_) | Expr::Literal(..) | Expr::Not(_) | Expr::IsNull(_) | Expr::IsNotNull(_) => false,
            Expr::InList(_) | Expr::Between(_) | Expr::Like(_) => false,
            _ => true,
        })
    };
    filter.exists(fails).unwrap_or(true)
}

/// Takes away the files whose partition values make a filter false or unknown.
///
/// # Errors
/// What is wrong with a value.
pub(super) fn partitions(
    files: &[PartitionedFile],
    columns: &Fields,
    filters: &[&Expr],
    kept: &mut [bool],
) -> Result<()> {
    if filters.is_empty() || files.is_empty() {
        return Ok(());
    }
    let nullable = |field: &FieldRef| field.as_ref().clone().with_nullable(true);
    let schema = Arc::new(Schema::new(columns.iter().map(nullable).collect::<Vec<_>>()));
    let column = |index: usize| {
        let values = files.iter().map(|file| file.partition_values[index].clone());
        ScalarValue::iter_to_array(values)
    };
    let arrays = (0..columns.len()).map(column).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(files.len()));
    let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), arrays, &options)?;
    let schema = DFSchema::try_from(schema)?;
    for filter in filters {
        let expr = create_physical_expr(filter, &schema, &ExecutionProps::new(), &Default::default())?;
        let held = expr.evaluate(&batch)?.into_array(files.len())?;
        let held = held.as_boolean();
        for (index, kept) in kept.iter_mut().enumerate() {
            *kept &= held.is_valid(index) && held.value(index);
        }
    }
    Ok(())
}

/// Takes away the files whose bounds make a filter false for every row.
pub(super) fn bounds(
    bounds: &Bounds,
    schema: &SchemaRef,
    state: &dyn Session,
    filters: &[&Expr],
    kept: &mut [bool],
) -> Result<()> {
    let known = DFSchema::try_from(Arc::clone(schema))?;
    for filter in filters {
        if kept.len() > UNPRUNED_FILES_MAX && has_parameter(filter)? {
            return plan_err!("which of its many files are read depends on its constants");
        }
        // What has no bounds, or is a subquery, prunes nothing.
        let Ok(expr) = state.create_physical_expr((*filter).clone(), &known) else {
            continue;
        };
        let made = PruningPredicateBuilder::new().with_file_schema(Arc::clone(schema));
        let Some(predicate) = made.build(expr) else {
            continue;
        };
        let Ok(held) = predicate.prune(bounds) else { continue };
        kept.iter_mut().zip(held).for_each(|(kept, held)| *kept &= held);
    }
    Ok(())
}

fn has_parameter(filter: &Expr) -> Result<bool> {
    let mut found = false;
    filter.apply(|expr| {
        found |= matches!(expr, Expr::ScalarFunction(call) if call.name() == PARAMETER);
        Ok(if found {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    })?;
    Ok(found)
}
