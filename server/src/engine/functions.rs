//! Function names by the kinds that Flight SQL's SqlInfo lists.

use std::collections::BTreeSet;

use datafusion::execution::SessionState;

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
