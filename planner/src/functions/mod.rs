//! Functions that users define: `CREATE FUNCTION … RETURN <expression>`.
//!
//! ```text
//!  definitions (text) ─compile─▶ FunctionSet ─register─▶ names in a session's state
//!                                     └─ body as an expression ─inline─▶ the plan of each statement that calls it
//! ```
//!
//! A call is replaced by the function's body right after a statement is planned, so that whatever comes later (coercion,
//! checked arithmetic, fragments) sees plain expressions only. Calls whose argument is volatile and used more than once, and
//! calls that would grow too large, stay calls: [`call`] evaluates them. Bodies name other functions by text, as views name
//! tables, and follow them when they change.

mod body;
mod call;
mod definition;
mod inline;

use body::check;
#[cfg(test)]
pub(crate) use body::selected as selected_expression;
pub use definition::{create_function, drop_function};
pub use inline::{query_to_plan, statement_to_plan};

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use arrow::datatypes::DataType;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::ScalarUDF;
use trireme_exec::QueryError;

use crate::ddl::{FunctionDefinition, Functions, TableName};
use crate::session::session_state;
use body::{Body, Compiler};
use call::Call;

/// Characters of a body.
const BODY_MAX: usize = 65_536;

/// Functions in functions.
const DEPTH_MAX: usize = 32;

/// Nodes of an expression that a call may become; larger ones stay calls.
const INLINE_NODES_MAX: usize = 500;

/// A function, with its types known and its body planned.
pub(crate) struct UserFunction {
    name: TableName,
    definition: FunctionDefinition,
    parameters: Vec<DataType>,
    returns: DataType,
    body: OnceLock<Result<Body, QueryError>>,
}

impl std::fmt::Debug for UserFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({})", self.name, self.definition.arguments())
    }
}

impl UserFunction {
    /// The body, or why there is none.
    fn body(&self) -> Result<&Body, QueryError> {
        match self.body.get() {
            Some(Ok(body)) => Ok(body),
            Some(Err(error)) => Err(error.clone()),
            None => Err(QueryError::internal(format!("function {} was not planned", self.name))),
        }
    }

    /// What argument `index` is called in the plan of the body.
    fn parameter_name(&self, index: usize) -> String {
        let name = self.definition.parameters.get(index).and_then(|one| one.name.clone());
        name.unwrap_or_else(|| format!("${}", index + 1))
    }
}

/// All functions, planned: what a session's state is given.
#[derive(Debug, Default)]
pub struct FunctionSet {
    version: u64,
    functions: BTreeMap<String, BTreeMap<String, Registered>>,
}

/// One function under its two names.
#[derive(Debug)]
struct Registered {
    function: Arc<UserFunction>,
    plain: Arc<ScalarUDF>,
    qualified: Arc<ScalarUDF>,
}

impl FunctionSet {
    /// Plans every function. One that can't be planned (it calls another that is gone) says so where it is called.
    pub fn compile(base: &SessionState, functions: &Functions) -> Self {
        let mut set = Self {
            version: functions.version,
            functions: BTreeMap::new(),
        };
        let mut types = HashMap::new();
        for (schema, definitions) in &functions.definitions {
            for (name, definition) in definitions {
                let name = TableName {
                    schema: schema.clone(),
                    table: name.clone(),
                };
                let function = Arc::new(definition::typed(base, name, definition, &mut types));
                set.add(&function);
            }
        }
        let mut compiler = Compiler::new(base, &set);
        for registered in set.all() {
            compiler.compile(&registered.function);
        }
        // Once more, now that it is known whose values are the same each time.
        let functions: Vec<_> = set.all().map(|one| Arc::clone(&one.function)).collect();
        functions.iter().for_each(|function| set.add(function));
        set
    }

    fn add(&mut self, function: &Arc<UserFunction>) {
        let udf = |shown: String| {
            let call = Call::new(shown, Arc::clone(function), false);
            Arc::new(ScalarUDF::new_from_impl(call))
        };
        let registered = Registered {
            function: Arc::clone(function),
            plain: udf(function.name.table.clone()),
            qualified: udf(function.name.to_string()),
        };
        self.functions
            .entry(function.name.schema.clone())
            .or_default()
            .insert(function.name.table.clone(), registered);
    }

    fn all(&self) -> impl Iterator<Item = &Registered> {
        self.functions.values().flat_map(BTreeMap::values)
    }

    fn get(&self, name: &TableName) -> Option<&Arc<UserFunction>> {
        Some(&self.functions.get(&name.schema)?.get(&name.table)?.function)
    }

    /// Which state of the definitions it was made from.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Makes the functions known to a session's state: by their full names, and those of the session's schema by their plain
    /// names too. The engine's own functions come first.
    ///
    /// # Errors
    /// When the state refuses a function.
    pub fn register(self: &Arc<Self>, state: &mut SessionState) -> Result<(), QueryError> {
        let schema = state.config_options().catalog.default_schema.clone();
        for registered in self.all() {
            state.register_udf(Arc::clone(&registered.qualified))?;
            let name = &registered.function.name;
            if name.schema == schema && !is_builtin(state, &name.table) {
                state.register_udf(Arc::clone(&registered.plain))?;
            }
        }
        state.config_mut().set_extension(Arc::clone(self));
        Ok(())
    }

    /// The functions as a listing wants them, with the types of their arguments: those of `schema` by plain names.
    pub fn listed(&self, schema: &str) -> Vec<(String, Arc<ScalarUDF>)> {
        self.all()
            .map(|registered| {
                let name = &registered.function.name;
                let shown = if name.schema == schema {
                    name.table.clone()
                } else {
                    name.to_string()
                };
                let call = Call::new(shown.clone(), Arc::clone(&registered.function), true);
                (shown, Arc::new(ScalarUDF::new_from_impl(call)))
            })
            .collect()
    }
}

/// The functions that a state was given.
pub fn of_state(state: &SessionState) -> Option<Arc<FunctionSet>> {
    state.config().get_extension::<FunctionSet>()
}

/// True for a function that a user defined.
pub fn is_user_function(function: &ScalarUDF) -> bool {
    call::user_function(function).is_some()
}

/// True for a function of the engine itself.
fn is_builtin(state: &SessionState, name: &str) -> bool {
    state
        .scalar_functions()
        .get(name)
        .is_some_and(|function| !is_user_function(function))
        || state.aggregate_functions().contains_key(name)
        || state.window_functions().contains_key(name)
        || state.higher_order_functions().contains_key(name)
        || state.table_functions().contains_key(name)
}

/// A session's state with these functions.
fn state_with(base: &SessionState, schema: &str, set: &FunctionSet) -> Result<SessionState, QueryError> {
    let mut state = session_state(base, schema, &BTreeMap::new())?;
    let old = state.scalar_functions().iter();
    let old: Vec<_> = old
        .filter(|(_, function)| is_user_function(function))
        .map(|(name, _)| name.clone())
        .collect();
    for name in old {
        state.deregister_udf(&name)?;
    }
    for registered in set.all() {
        let name = &registered.function.name;
        state.register_udf(Arc::clone(&registered.qualified))?;
        if name.schema == schema && !is_builtin(&state, &name.table) {
            state.register_udf(Arc::clone(&registered.plain))?;
        }
    }
    Ok(state)
}
