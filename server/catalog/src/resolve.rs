//! From a name to a table: the definition or the discovered files, and the cached provider while they are unchanged.

use std::sync::Arc;
use std::time::Instant;

use datafusion::catalog::TableProvider;
use trireme_planner::ddl::{TableName, TableVersionRef};

use crate::ahead::{seen, statement_began};
use crate::catalog::{Catalog, DEFAULT_SCHEMA};
use crate::definitions::{Definition, External, View};
use crate::describe::TableKind;
use crate::discover::{self, Found, FoundKind, Lookup};
use crate::error::CatalogError;
use crate::listing::{Listing, Signature};
use crate::names::nearest;

/// Where a table comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Managed(String),
    External(External),
    Discovered(Found),
    View(View),
}

impl Source {
    pub(crate) fn kind(&self) -> TableKind {
        match self {
            Self::Managed(_) => TableKind::Managed,
            Self::External(_) => TableKind::External,
            Self::Discovered(_) => TableKind::Discovered,
            Self::View(_) => TableKind::View,
        }
    }

    /// What an error calls it.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Self::View(_) => "view",
            _ => "table",
        }
    }

    /// Differs whenever the same name means other files.
    fn origin(&self) -> String {
        match self {
            Self::Managed(folder) => format!("managed {folder}"),
            Self::External(external) => format!("external {} {}", external.location, external.sql),
            Self::Discovered(found) => format!("{:?} {}", found.kind, found.path.display()),
            Self::View(_) => "view".to_owned(),
        }
    }
}

/// A provider and the state of the files that it was made from.
#[derive(Debug)]
pub(crate) struct Cached {
    pub(crate) origin: String,
    pub(crate) signature: Signature,
    pub(crate) provider: Arc<dyn TableProvider>,
    pub(crate) checked: Instant,
    /// The last list had nothing new.
    pub(crate) steady: bool,
    /// Looking once for a statement is enough.
    once: bool,
}

impl Cached {
    pub(crate) fn known(&self) -> (Arc<dyn TableProvider>, Signature) {
        (Arc::clone(&self.provider), self.signature.clone())
    }
}

impl Catalog {
    /// The table of this name, or `None`.
    pub(crate) async fn table(
        &self,
        name: &TableName,
        version: Option<&TableVersionRef>,
    ) -> Result<Option<Arc<dyn TableProvider>>, CatalogError> {
        if version.is_none()
            && let Some(provider) = self.looked_at(name)
        {
            return Ok(Some(provider));
        }
        let Some(source) = self.source(name)? else {
            return Ok(None);
        };
        if let Source::View(view) = &source {
            return match version {
                None => self.view(name, view).await.map(Some),
                Some(_) => Err(no_versions(name, "a view")),
            };
        }
        let name = canonical(name, &source);
        match version {
            Some(version) => self.table_version(&name, &source, version).await.map(Some),
            None => self.current(&name, &source).await.map(|(provider, _)| Some(provider)),
        }
    }

    /// What was found under this name for the same statement. Managed tables are always looked for.
    fn looked_at(&self, name: &TableName) -> Option<Arc<dyn TableProvider>> {
        let began = statement_began()?;
        let tables = self.tables.lock();
        let cached = tables.get(name)?;
        (cached.once && cached.checked >= began).then(|| Arc::clone(&cached.provider))
    }

    /// Looks at the files of these tables at the same time, so that a statement over remote ones waits once. What is wrong with
    /// them is told when the statement asks for them.
    pub async fn look_at(&self, names: &[TableName]) {
        futures::future::join_all(names.iter().map(|name| self.table(name, None))).await;
    }

    /// What the name stands for, without opening it.
    pub(crate) fn source(&self, name: &TableName) -> Result<Option<Source>, CatalogError> {
        if let Some(definition) = self.snapshot().table(name) {
            return Ok(Some(match definition {
                Definition::Managed { folder } => Source::Managed(folder.clone()),
                Definition::External(external) => Source::External(external.clone()),
                Definition::View(view) => Source::View(view.clone()),
            }));
        }
        match discover::lookup(&seen(self.data_dir()), &name.schema, &name.table) {
            Lookup::None => Ok(None),
            Lookup::One(found) => Ok(Some(Source::Discovered(found))),
            Lookup::Clash(found) => Err(self.clash(name, &found)),
        }
    }

    /// Makes the next use of every table look at its files, whatever the refresh interval: for statements that write files.
    pub fn refresh(&self) {
        self.tables.lock().clear();
    }

    /// Candidates for a table name that does not exist, best first.
    pub fn candidates(&self, name: &TableName) -> Vec<String> {
        let mut known = Vec::new();
        for schema in self.schemas() {
            for table in self.table_names(&schema) {
                known.push(if schema == DEFAULT_SCHEMA && name.schema == DEFAULT_SCHEMA {
                    table
                } else {
                    format!("{schema}.{table}")
                });
            }
        }
        let wanted = if name.schema == DEFAULT_SCHEMA {
            name.table.clone()
        } else {
            name.to_string()
        };
        nearest(&wanted, known)
    }

    /// Names of a schema's tables and views, sorted.
    pub(crate) fn table_names(&self, schema: &str) -> Vec<String> {
        let mut names: Vec<String> = discover::tables(self.data_dir(), schema)
            .into_iter()
            .map(|found| found.name)
            .collect();
        if let Some(defined) = self.snapshot().tables.get(schema) {
            names.extend(defined.keys().cloned());
        }
        names.sort();
        names.dedup();
        names
    }

    pub(crate) fn not_found(&self, what: &'static str, name: &TableName) -> CatalogError {
        CatalogError::NotFound {
            what,
            name: name.to_string(),
            candidates: self.candidates(name),
        }
    }

    /// The state of the files behind a table.
    pub(crate) async fn listing(&self, name: &TableName, source: &Source) -> Result<Listing, CatalogError> {
        match source {
            Source::Managed(folder) => {
                Listing::of_delta_log(&self.locations, &self.folder.table(folder)).map_err(|error| missing(name, error))
            }
            Source::Discovered(found) => self.discovered_listing(found),
            Source::External(external) => self.external_listing(name, external).await,
            Source::View(_) => Err(CatalogError::invalid(format!("{name} is a view; it has no files"))),
        }
    }

    /// The table, and the state of the files that it reads.
    pub(crate) async fn current(
        &self,
        name: &TableName,
        source: &Source,
    ) -> Result<(Arc<dyn TableProvider>, Signature), CatalogError> {
        let origin = source.origin();
        // A managed table's log is one small folder, and a session must see its own writes.
        let may_wait = !matches!(source, Source::Managed(_));
        let began = statement_began();
        let recent = |cached: &&Cached| {
            let for_this = began.is_some_and(|began| cached.checked >= began);
            may_wait && cached.origin == origin && (for_this || cached.checked.elapsed() < self.refresh_interval)
        };
        if let Some(cached) = self.tables.lock().get(name).filter(recent) {
            return Ok(cached.known());
        }
        if let Some(known) = self.ahead_of_check(name, source, &origin) {
            return Ok(known);
        }
        let checked = Instant::now();
        let listing = self.listing(name, source).await?;
        let mut steady = true;
        if let Some(cached) = self.tables.lock().get_mut(name)
            && cached.origin == origin
        {
            if cached.signature == listing.signature {
                (cached.checked, cached.steady) = (checked, true);
                return Ok(cached.known());
            }
            steady = false;
        }
        let provider = match source {
            Source::Managed(folder) => self.managed_table(name, folder).await?,
            Source::Discovered(found) if found.kind == FoundKind::Delta => self.discovered_delta(name, found).await?,
            Source::Discovered(found) => self.discovered_table(name, found, &listing).await?,
            Source::External(external) => self.external_table(name, external, &listing).await?,
            Source::View(_) => return Err(CatalogError::invalid(format!("{name} is a view"))),
        };
        let cached = Cached {
            origin,
            signature: listing.signature,
            provider,
            checked,
            steady,
            once: may_wait,
        };
        let known = cached.known();
        self.tables.lock().insert(name.clone(), cached);
        Ok(known)
    }

    fn clash(&self, name: &TableName, found: &[Found]) -> CatalogError {
        let shown: Vec<String> = found
            .iter()
            .map(|entry| {
                entry
                    .path
                    .strip_prefix(self.data_dir())
                    .unwrap_or(&entry.path)
                    .display()
                    .to_string()
            })
            .collect();
        CatalogError::invalid_hint(
            format!("the name {name} stands for several files: {}", shown.join(" and ")),
            "rename one of them, or quote the name when they differ in upper and lower case",
        )
    }
}

/// The name as the files spell it: keys and statistics are stored by it, however a statement wrote it.
pub(crate) fn canonical(name: &TableName, source: &Source) -> TableName {
    let Source::Discovered(found) = source else {
        return name.clone();
    };
    let folder = found
        .path
        .parent()
        .and_then(|parent| parent.file_name())
        .map(|folder| folder.to_string_lossy().into_owned());
    let schema = if name.schema == DEFAULT_SCHEMA { None } else { folder };
    TableName {
        schema: schema.unwrap_or_else(|| name.schema.clone()),
        table: found.name.clone(),
    }
}

fn missing(name: &TableName, error: CatalogError) -> CatalogError {
    match error {
        CatalogError::Io { path, source } if source.kind() == std::io::ErrorKind::NotFound => CatalogError::Corrupt {
            file: path.display().to_string(),
            reason: format!("the files of table {name} are gone"),
        },
        other => other,
    }
}

pub(crate) fn no_versions(name: &TableName, what: &str) -> CatalogError {
    CatalogError::invalid_hint(
        format!("{name} is {what} and keeps no versions"),
        "VERSION AS OF and TIMESTAMP AS OF need a Delta table, as CREATE TABLE makes them",
    )
}
