//! What there are for functions: by the kinds that Flight SQL's SqlInfo lists, and for `information_schema`.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::execution::{SessionState, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::streaming::StreamingTableExec;
use trireme_planner::functions;

use super::FunctionNames;

/// Sorts the engine's functions by the section of their own documentation.
pub fn function_names(state: &SessionState) -> FunctionNames {
    let mut names = [const { BTreeSet::new() }; 4];
    let scalar = state.scalar_functions().values().map(|function| {
        let section = function.documentation().map_or("", |doc| doc.doc_section.label);
        (function.name().to_owned(), section)
    });
    let aggregate = state
        .aggregate_functions()
        .keys()
        .map(|name| (name.clone(), "Aggregate"));
    let window = state.window_functions().keys().map(|name| (name.clone(), "Window"));
    for (name, section) in scalar.chain(aggregate).chain(window) {
        let kind = match section {
            "Math Functions" => 0,
            "String Functions" | "Regular Expression Functions" | "Binary String Functions" => 1,
            "Time and Date Functions" => 2,
            _ => 3,
        };
        names[kind].insert(name);
    }
    let [numeric, string, datetime, system] = names.map(|set| set.into_iter().collect());
    FunctionNames {
        numeric,
        string,
        datetime,
        system,
    }
}

/// True for plans that read `information_schema.routines` or `.parameters` (`SHOW FUNCTIONS`): they ask the context of the
/// task for the functions.
pub(super) fn lists_functions(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let is_listing = plan
        .downcast_ref::<StreamingTableExec>()
        .is_some_and(|table| table.partition_schema().field_with_name("specific_name").is_ok());
    is_listing || plan.children().into_iter().any(lists_functions)
}

/// A context that knows the state's functions, with those that users defined as a listing shows them.
pub(super) fn with_functions(context: &TaskContext, state: &SessionState) -> Arc<TaskContext> {
    let mut scalar = state.scalar_functions().clone();
    if let Some(defined) = functions::of_state(state) {
        scalar.retain(|_, function| !functions::is_user_function(function));
        scalar.extend(defined.listed(&state.config_options().catalog.default_schema));
    }
    Arc::new(TaskContext::new(
        context.task_id(),
        context.session_id(),
        context.session_config().clone(),
        scalar,
        state.higher_order_functions().clone(),
        state.aggregate_functions().clone(),
        state.window_functions().clone(),
        context.runtime_env(),
    ))
}
