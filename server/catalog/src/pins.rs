//! `PIN PLACEMENT` and `UNPIN PLACEMENT`: statements that run where a user says, until they are unpinned.

use trireme_planner::ddl::{PinnedStatement, TableName};

use crate::catalog::{Applied, Catalog};
use crate::ddl::DONE;
use crate::definitions::Definitions;
use crate::error::CatalogError;

/// Pinned statements of one catalog.
const PINS_MAX: usize = 1_000;

impl Catalog {
    /// The pinned statement of a shape; none when it isn't pinned.
    pub fn pinned(&self, schema: &str, shape: &str) -> Option<PinnedStatement> {
        self.definitions.read().pins.get(schema)?.get(shape).cloned()
    }

    /// Whether any statement is pinned.
    pub fn has_pins(&self) -> bool {
        !self.definitions.read().pins.is_empty()
    }

    /// All pinned statements, with their schemas.
    pub fn pins(&self) -> Vec<(String, PinnedStatement)> {
        let known = self.snapshot();
        let all = known.pins.iter();
        all.flat_map(|(schema, pins)| pins.values().map(|pinned| (schema.clone(), pinned.clone())))
            .collect()
    }

    pub(crate) async fn pin(
        &self,
        schema: String,
        shape: String,
        pinned: PinnedStatement,
    ) -> Result<Applied, CatalogError> {
        let _changing = self.changing.lock().await;
        let mut definitions = (*self.snapshot()).clone();
        let known: usize = definitions.pins.values().map(|pins| pins.len()).sum();
        let pins = definitions.pins.entry(schema).or_default();
        if known >= PINS_MAX && !pins.contains_key(&shape) {
            return Err(CatalogError::invalid(format!(
                "there are {known} pinned statements already; at most {PINS_MAX} are allowed"
            )));
        }
        pins.insert(shape, pinned);
        self.commit_pins(definitions)
    }

    pub(crate) async fn unpin(&self, schema: &str, shape: &str) -> Result<Applied, CatalogError> {
        let _changing = self.changing.lock().await;
        let mut definitions = (*self.snapshot()).clone();
        let pins = definitions.pins.get_mut(schema);
        let removed = pins.is_some_and(|pins| pins.remove(shape).is_some());
        if !removed {
            return Err(CatalogError::invalid(
                "this statement's placement is not pinned; system.pins lists those that are",
            ));
        }
        definitions.pins.retain(|_, pins| !pins.is_empty());
        self.commit_pins(definitions)
    }

    fn commit_pins(&self, definitions: Definitions) -> Result<Applied, CatalogError> {
        // No table is touched: its name is none's.
        let touched = TableName {
            schema: String::new(),
            table: String::new(),
        };
        self.commit(definitions, &touched)?;
        Ok(DONE)
    }
}
