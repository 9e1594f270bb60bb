//! Planning with the files of a remote table that were seen last, while the store is asked whether they are still all.
//!
//! ```text
//!  planning ──▶ reading ──▶ first batch ──┬─ unchanged ─▶ handed out
//!     └─ list ──────────────────────────▶─┴─ changed ───▶ thrown away, planned and run again
//! ```
//!
//! The answer is that of a list taken for the statement, as without; a round trip is saved. Nothing is handed out before
//! [`Checks::hold`] has said so. A table whose files were found changed is looked at before it is used, until a list finds
//! nothing new.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use datafusion::catalog::TableProvider;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use trireme_exec::io::{Access, in_one_look};
use trireme_planner::ddl::TableName;

use crate::catalog::Catalog;
use crate::discover::{Seen, entries};
use crate::listing::Signature;
use crate::resolve::Source;

tokio::task_local! {
    static STATEMENT: Arc<Statement>;
}

/// The statement that a task plans.
#[derive(Debug)]
struct Statement {
    began: Instant,
    ahead: bool,
    checks: Mutex<HashMap<TableName, JoinHandle<bool>>>,
    /// What was in the data folder when it was first asked for.
    seen: OnceLock<Arc<Vec<Seen>>>,
}

impl Statement {
    fn new(ahead: bool) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            ahead,
            checks: Mutex::default(),
            seen: OnceLock::new(),
        })
    }
}

/// Plans one statement: each table's files are looked at once for it, however often it is asked for.
pub async fn in_statement<T>(planning: impl Future<Output = T>) -> T {
    STATEMENT.scope(Statement::new(false), in_one_look(planning)).await
}

/// As [`in_statement`], for a query whose rows wait for the checks.
pub async fn ahead_of_checks<T>(planning: impl Future<Output = T>) -> (T, Checks) {
    let statement = Statement::new(true);
    let planned = STATEMENT.scope(Arc::clone(&statement), in_one_look(planning)).await;
    let checks = std::mem::take(&mut *statement.checks.lock());
    (planned, Checks(checks.into_values().collect()))
}

/// When the planning of the task's statement began.
pub(crate) fn statement_began() -> Option<Instant> {
    STATEMENT.try_with(|statement| statement.began).ok()
}

/// What is in the data folder: read once for a statement, however many tables it names.
pub(crate) fn seen(data: &Path) -> Arc<Vec<Seen>> {
    let now = || Arc::new(entries(data));
    let of_statement = STATEMENT.try_with(|statement| Arc::clone(statement.seen.get_or_init(now)));
    of_statement.unwrap_or_else(|_| now())
}

/// Whether the files are still those that the statement was planned with.
#[derive(Debug, Default)]
pub struct Checks(Vec<JoinHandle<bool>>);

impl Checks {
    /// Nothing was planned ahead.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits for the stores' answers; false when any table's files are others, or could not be listed.
    pub async fn hold(self) -> bool {
        for check in self.0 {
            if !check.await.unwrap_or(false) {
                return false;
            }
        }
        true
    }
}

impl Catalog {
    /// The table as it was seen last, if the statement may be ahead of the check, which begins.
    pub(crate) fn ahead_of_check(
        &self,
        name: &TableName,
        source: &Source,
        origin: &str,
    ) -> Option<(Arc<dyn TableProvider>, Signature)> {
        let Source::External(external) = source else {
            return None;
        };
        if !self.plan_ahead {
            return None;
        }
        let statement = STATEMENT
            .try_with(Arc::clone)
            .ok()
            .filter(|statement| statement.ahead)?;
        let location = self.locations.resolve(&external.location, Access::Read).ok()?;
        if location.path.is_some() {
            return None;
        }
        let (provider, signature) = {
            let tables = self.tables.lock();
            let cached = tables.get(name)?;
            let usable = cached.origin == origin && cached.steady;
            usable.then(|| cached.known())?
        };
        let catalog = self.this.upgrade()?;
        statement.checks.lock().entry(name.clone()).or_insert_with(|| {
            let (name, source, origin) = (name.clone(), source.clone(), origin.to_owned());
            let signature = signature.clone();
            tokio::spawn(async move { catalog.unchanged(&name, &source, &origin, &signature).await })
        });
        Some((provider, signature))
    }

    async fn unchanged(&self, name: &TableName, source: &Source, origin: &str, signature: &Signature) -> bool {
        let checked = Instant::now();
        let listing = self.listing(name, source).await;
        let same = listing.is_ok_and(|listing| listing.signature == *signature);
        if let Some(cached) = self.tables.lock().get_mut(name)
            && cached.origin == origin
            && cached.signature == *signature
        {
            if same {
                cached.checked = checked;
            } else {
                cached.steady = false;
            }
        }
        if !same {
            self.changed_ahead.fetch_add(1, Ordering::Relaxed);
        }
        same
    }

    /// Tables that were found changed after a query over them had started, so far.
    pub fn changed_ahead(&self) -> u64 {
        self.changed_ahead.load(Ordering::Relaxed)
    }
}
