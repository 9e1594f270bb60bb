//! `CREATE FUNCTION` and `DROP FUNCTION`: what is checked, and the commit. The planner has checked the body.

use trireme_planner::ddl::{FunctionDefinition, IfExists, TableName};

use crate::catalog::{Applied, Catalog, INFORMATION_SCHEMA, SYSTEM_SCHEMA};
use crate::ddl::DONE;
use crate::error::CatalogError;
use crate::names::nearest;

/// Functions of one catalog: each statement of a new session is planned with all of them.
const FUNCTIONS_MAX: usize = 1_000;

impl Catalog {
    pub(crate) async fn create_function(
        &self,
        name: &TableName,
        definition: FunctionDefinition,
        if_exists: IfExists,
    ) -> Result<Applied, CatalogError> {
        if [INFORMATION_SCHEMA, SYSTEM_SCHEMA].contains(&name.schema.as_str()) {
            return Err(CatalogError::ReadOnly {
                name: format!("schema {}", name.schema),
                reason: "it is a part of the server",
            });
        }
        let _changing = self.changing.lock().await;
        if !self.schema_exists(&name.schema) {
            return Err(self.no_schema(&name.schema));
        }
        let mut definitions = (*self.snapshot()).clone();
        match (definitions.function(name), if_exists) {
            (Some(_), IfExists::Fail) => {
                return Err(CatalogError::AlreadyExists {
                    what: "function",
                    name: name.to_string(),
                });
            }
            (Some(_), IfExists::Keep) => return Ok(DONE),
            (None, _) => {
                let known: usize = definitions.functions.values().map(|functions| functions.len()).sum();
                if known >= FUNCTIONS_MAX {
                    return Err(CatalogError::invalid(format!(
                        "there are {known} functions already; at most {FUNCTIONS_MAX} are allowed"
                    )));
                }
            }
            (Some(_), IfExists::Replace) => {}
        }
        let functions = definitions.functions.entry(name.schema.clone()).or_default();
        functions.insert(name.table.clone(), definition);
        self.commit_functions(definitions)
    }

    pub(crate) async fn drop_function(&self, name: &TableName, missing_ok: bool) -> Result<Applied, CatalogError> {
        let _changing = self.changing.lock().await;
        let mut definitions = (*self.snapshot()).clone();
        let functions = definitions.functions.get_mut(&name.schema);
        let Some(functions) = functions.filter(|functions| functions.contains_key(&name.table)) else {
            if missing_ok {
                return Ok(DONE);
            }
            let known = self.snapshot();
            let names = known
                .functions
                .iter()
                .flat_map(|(schema, functions)| functions.keys().map(move |name| format!("{schema}.{name}")));
            return Err(CatalogError::NotFound {
                what: "function",
                name: name.to_string(),
                candidates: nearest(&name.to_string(), names),
            });
        };
        functions.remove(&name.table);
        if functions.is_empty() {
            definitions.functions.remove(&name.schema);
        }
        self.commit_functions(definitions)
    }

    fn commit_functions(&self, definitions: crate::definitions::Definitions) -> Result<Applied, CatalogError> {
        // No table is touched: its name is none's.
        let touched = TableName {
            schema: String::new(),
            table: String::new(),
        };
        self.commit(definitions, &touched)?;
        Ok(DONE)
    }
}

/// So many functions, in words.
pub(crate) fn count(functions: usize) -> String {
    if functions == 1 {
        "one function".to_owned()
    } else {
        format!("{functions} functions")
    }
}
