//! The `system` schema: what the server knows of itself, as tables. Rows are made at each scan.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{MemorySchemaProvider, SchemaProvider, Session, TableProvider};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use datafusion::prelude::SessionConfig;
use trireme_catalog::{Catalog, ColumnStatisticsEntry, DescribeFilter, TableStatistics};
use trireme_config::{Config, SessionSettings, SettingRow};
use trireme_device_api::DeviceInfo;
use trireme_exec::fused::FragmentRuntime;
use trireme_lake::Lake;
use trireme_planner::ddl::{FunctionDefinition, Functions, PinnedStatement};
use trireme_planner::plan_cache::PlanCache;

mod fragments;
mod lake;
mod secrets;

use super::SessionSpec;
use crate::query::QueryRegistry;
use crate::session::Sessions;

/// What the tables read.
pub struct SystemSources {
    /// Queries.
    pub queries: Arc<QueryRegistry>,
    /// Sessions.
    pub sessions: Arc<Sessions>,
    /// Server settings.
    pub settings: Vec<SettingRow>,
    /// The processor.
    pub processor: DeviceInfo,
    /// What runs fragments, with the column cache.
    pub fragments: Arc<FragmentRuntime>,
    /// The plan cache.
    pub plans: Arc<PlanCache>,
    /// What is kept of object stores.
    pub lake: Arc<Lake>,
    /// The catalog.
    pub catalog: std::sync::Weak<Catalog>,
    /// Configuration, for session defaults.
    pub config: Arc<Config>,
}

/// The schema `system`.
///
/// # Errors
/// When a table can't be made (its empty form is built once to learn its columns).
pub fn system_schema(sources: SystemSources) -> Result<Arc<dyn SchemaProvider>> {
    let sources = Arc::new(sources);
    let schema = MemorySchemaProvider::new();
    for kind in [
        Kind::Queries,
        Kind::Sessions,
        Kind::Settings,
        Kind::Devices,
        Kind::Fragments,
        Kind::Resteers,
        Kind::Feedback,
        Kind::Tables,
        Kind::Statistics,
        Kind::Columns,
        Kind::Cache,
        Kind::Stores,
        Kind::Models,
        Kind::Plans,
        Kind::Functions,
        Kind::Secrets,
        Kind::Pins,
    ] {
        let empty = kind.empty()?;
        let table = SystemTable {
            kind,
            schema: empty.schema(),
            sources: Arc::clone(&sources),
        };
        schema.register_table(kind.name().to_owned(), Arc::new(table))?;
    }
    Ok(Arc::new(schema))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Queries,
    Sessions,
    Settings,
    Devices,
    Fragments,
    Resteers,
    Feedback,
    Tables,
    Statistics,
    Columns,
    Cache,
    Stores,
    Models,
    Plans,
    Functions,
    Secrets,
    Pins,
}

struct SystemTable {
    kind: Kind,
    schema: SchemaRef,
    sources: Arc<SystemSources>,
}

impl std::fmt::Debug for SystemTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "system.{}", self.kind.name())
    }
}

#[async_trait]
impl TableProvider for SystemTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = Rows {
            kind: self.kind,
            schema: Arc::clone(&self.schema),
            sources: Arc::clone(&self.sources),
        };
        let plan = StreamingTableExec::try_new(
            Arc::clone(&self.schema),
            vec![Arc::new(rows)],
            projection,
            [],
            false,
            limit,
        )?;
        Ok(Arc::new(plan))
    }
}

/// Makes the rows when the plan runs, not when it is planned.
struct Rows {
    kind: Kind,
    schema: SchemaRef,
    sources: Arc<SystemSources>,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "system.{}", self.kind.name())
    }
}

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (kind, sources) = (self.kind, Arc::clone(&self.sources));
        let rows = futures::stream::once(async move { kind.rows(&sources, context.session_config()).await });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Queries => "queries",
            Kind::Sessions => "sessions",
            Kind::Settings => "settings",
            Kind::Devices => "devices",
            Kind::Fragments => "fragments",
            Kind::Resteers => "resteers",
            Kind::Feedback => "feedback",
            Kind::Tables => "tables",
            Kind::Statistics => "statistics",
            Kind::Columns => "columns",
            Kind::Cache => "cache",
            Kind::Stores => "stores",
            Kind::Models => "models",
            Kind::Plans => "plans",
            Kind::Functions => "functions",
            Kind::Secrets => "secrets",
            Kind::Pins => "pins",
        }
    }

    fn empty(self) -> Result<RecordBatch> {
        match self {
            Kind::Queries => queries(&[]),
            Kind::Sessions => sessions(&[]),
            Kind::Settings => settings(&[]),
            Kind::Devices => fragments::devices(&[]),
            Kind::Fragments => fragments::fragments(&[], None),
            Kind::Resteers => fragments::resteers(&[]),
            Kind::Feedback => fragments::feedback(&[]),
            Kind::Tables => tables(&[]),
            Kind::Statistics => statistics(&[]),
            Kind::Columns => columns(&[]),
            Kind::Cache => lake::cache(&[]),
            Kind::Stores => lake::stores(&[]),
            Kind::Models => fragments::models(&[]),
            Kind::Plans => plans(&[]),
            Kind::Functions => functions(&[]),
            Kind::Secrets => secrets::secrets(&[]),
            Kind::Pins => pins(&[]),
        }
    }

    async fn rows(self, sources: &SystemSources, session: &SessionConfig) -> Result<RecordBatch> {
        match self {
            Kind::Queries => queries(&sources.queries.snapshots()),
            Kind::Sessions => sessions(&sources.sessions.list()),
            Kind::Settings => settings(&all_settings(sources, session)),
            Kind::Devices => fragments::devices(&fragments::all_devices(&sources.processor, &sources.fragments)),
            Kind::Fragments => {
                fragments::fragments(&sources.fragments.history().latest(), Some(sources.fragments.costs()))
            }
            Kind::Resteers => fragments::resteers(&sources.fragments.history().resteers()),
            Kind::Feedback => fragments::feedback(&sources.fragments.statistics().feedback.all()),
            Kind::Columns => columns(&sources.fragments.columns().snapshot()),
            Kind::Cache => lake::cache(&sources.lake.cache_rows()),
            Kind::Stores => lake::stores(&sources.lake.metrics().stores),
            Kind::Models => fragments::models(&sources.fragments.costs().models()),
            Kind::Plans => plans(&sources.plans.rows()),
            Kind::Secrets => match sources.catalog.upgrade() {
                Some(catalog) => secrets::secrets(&catalog.secrets()),
                None => self.empty(),
            },
            Kind::Pins => match sources.catalog.upgrade() {
                Some(catalog) => pins(&catalog.pins()),
                None => self.empty(),
            },
            Kind::Functions => match sources.catalog.upgrade() {
                Some(catalog) => functions(&defined_functions(&catalog.functions())),
                None => self.empty(),
            },
            Kind::Tables => match sources.catalog.upgrade() {
                Some(catalog) => tables(
                    &catalog
                        .describe(&DescribeFilter {
                            with_sizes: true,
                            ..DescribeFilter::default()
                        })
                        .await,
                ),
                None => self.empty(),
            },
            Kind::Statistics => match sources.catalog.upgrade() {
                Some(catalog) => statistics(&column_statistics(catalog.statistics().await)),
                None => self.empty(),
            },
        }
    }
}

fn text<T>(rows: &[T], value: impl Fn(&T) -> &str) -> ArrayRef {
    Arc::new(rows.iter().map(|row| Some(value(row))).collect::<StringArray>())
}

fn text_opt<T>(rows: &[T], value: impl Fn(&T) -> Option<String>) -> ArrayRef {
    Arc::new(rows.iter().map(value).collect::<StringArray>())
}

fn number<T>(rows: &[T], value: impl Fn(&T) -> Option<u64>) -> ArrayRef {
    Arc::new(
        rows.iter()
            .map(|row| value(row).and_then(|number| i64::try_from(number).ok()))
            .collect::<Int64Array>(),
    )
}

fn instant<T>(rows: &[T], value: impl Fn(&T) -> Option<SystemTime>) -> ArrayRef {
    let micros = |time: SystemTime| {
        time.duration_since(UNIX_EPOCH)
            .ok()
            .and_then(|since| i64::try_from(since.as_micros()).ok())
    };
    let times: TimestampMicrosecondArray = rows.iter().map(|row| value(row).and_then(micros)).collect();
    Arc::new(times.with_timezone("UTC"))
}

/// All columns are nullable, so that an empty table promises the same as a full one.
fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    Ok(RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, column)| (name, column, true)),
    )?)
}

fn queries(rows: &[crate::query::QueryRecord]) -> Result<RecordBatch> {
    batch(vec![
        ("query_id", text(rows, |row| &row.id)),
        ("session_id", text(rows, |row| &row.session_id)),
        ("user", text(rows, |row| &row.user)),
        ("command", text(rows, |row| &row.command)),
        ("state", text(rows, |row| row.state.name())),
        ("sql", text(rows, |row| &row.sql)),
        ("created_at", instant(rows, |row| Some(row.created))),
        ("started_at", instant(rows, |row| row.started)),
        ("finished_at", instant(rows, |row| row.finished)),
        ("rows", number(rows, |row| Some(row.rows))),
        ("bytes", number(rows, |row| Some(row.bytes))),
        ("error", text_opt(rows, |row| row.error.clone())),
    ])
}

fn sessions(rows: &[crate::session::SessionRow]) -> Result<RecordBatch> {
    batch(vec![
        ("session_id", text(rows, |row| &row.id)),
        ("user", text(rows, |row| &row.user)),
        ("schema", text(rows, |row| &row.schema)),
        ("idle_seconds", number(rows, |row| Some(row.idle_seconds))),
        ("prepared_statements", number(rows, |row| Some(row.prepared_statements))),
    ])
}

/// One row of `system.settings`.
struct Setting {
    name: String,
    value: String,
    default: String,
    unit: String,
    scope: &'static str,
    source: String,
    help: String,
}

fn all_settings(sources: &SystemSources, session: &SessionConfig) -> Vec<Setting> {
    let server = sources.settings.iter().map(|row| Setting {
        name: row.key.clone(),
        value: row.value.clone(),
        default: row.default.clone(),
        unit: row.unit.clone(),
        scope: "server",
        source: row.source.clone(),
        help: row.help.clone(),
    });
    let spec = session.get_extension::<SessionSpec>().unwrap_or_default();
    let fresh = SessionSettings::for_server(&sources.config);
    let own = fresh.describe().into_iter().map(|row| {
        let value = spec.setting(&row.name).unwrap_or_else(|| row.value.clone());
        let source = if value == row.value { "default" } else { "session" };
        Setting {
            name: row.name,
            value,
            default: row.value,
            unit: String::new(),
            scope: "session",
            source: source.into(),
            help: row.help,
        }
    });
    let engine = session
        .options()
        .entries()
        .into_iter()
        .filter(|entry| entry.key.starts_with("datafusion."))
        .map(|entry| {
            let source = if spec.settings.contains_key(&entry.key) {
                "session"
            } else {
                "default"
            };
            Setting {
                value: entry.value.unwrap_or_default(),
                default: String::new(),
                unit: String::new(),
                scope: "session",
                source: source.into(),
                help: entry.description.to_owned(),
                name: entry.key,
            }
        });
    let mut rows: Vec<_> = server.chain(own).collect();
    for setting in engine {
        if !rows.iter().any(|row| row.name == setting.name) {
            rows.push(setting);
        }
    }
    rows
}

fn settings(rows: &[Setting]) -> Result<RecordBatch> {
    batch(vec![
        ("name", text(rows, |row| &row.name)),
        ("value", text(rows, |row| &row.value)),
        ("default", text(rows, |row| &row.default)),
        ("unit", text(rows, |row| &row.unit)),
        ("scope", text(rows, |row| row.scope)),
        ("source", text(rows, |row| &row.source)),
        ("help", text(rows, |row| &row.help)),
    ])
}

fn tables(rows: &[trireme_catalog::TableEntry]) -> Result<RecordBatch> {
    batch(vec![
        ("schema", text(rows, |row| &row.name.schema)),
        ("name", text(rows, |row| &row.name.table)),
        ("kind", text(rows, |row| row.kind.as_str())),
        ("format", text_opt(rows, |row| row.format.map(ToOwned::to_owned))),
        ("location", text_opt(rows, |row| row.location.clone())),
        ("rows", number(rows, |row| row.rows)),
        ("bytes", number(rows, |row| row.bytes)),
        ("error", text_opt(rows, |row| row.error.clone())),
    ])
}

/// One row of `system.statistics`.
type ColumnRow = (TableStatistics, ColumnStatisticsEntry);

fn column_statistics(tables: Vec<TableStatistics>) -> Vec<ColumnRow> {
    let columns = |mut table: TableStatistics| {
        let columns = std::mem::take(&mut table.columns);
        columns
            .into_iter()
            .map(move |column| (table.clone(), column))
            .collect::<Vec<_>>()
    };
    tables.into_iter().flat_map(columns).collect()
}

fn statistics(rows: &[ColumnRow]) -> Result<RecordBatch> {
    batch(vec![
        ("schema", text(rows, |row| &row.0.table.schema)),
        ("table", text(rows, |row| &row.0.table.table)),
        ("column", text(rows, |row| &row.1.column)),
        ("rows", number(rows, |row| Some(row.0.rows))),
        ("null_count", number(rows, |row| Some(row.1.null_count))),
        ("distinct_estimate", number(rows, |row| row.1.distinct)),
        ("min", text_opt(rows, |row| row.1.min.clone())),
        ("max", text_opt(rows, |row| row.1.max.clone())),
        ("most_common", text_opt(rows, |row| row.1.common.clone())),
        ("histogram", text_opt(rows, |row| row.1.histogram.clone())),
        ("sampled_rows", number(rows, |row| Some(row.0.sampled))),
        ("analyzed_at", text(rows, |row| &row.0.analyzed_at)),
        (
            "stale",
            Arc::new(rows.iter().map(|row| Some(row.0.stale)).collect::<BooleanArray>()),
        ),
    ])
}

fn columns(rows: &[trireme_columns::ColumnRow]) -> Result<RecordBatch> {
    batch(vec![
        ("table", text(rows, |row| &row.table)),
        ("column", text(rows, |row| &row.column)),
        ("file", text(rows, |row| &row.file)),
        ("first_row", number(rows, |row| Some(row.first_row))),
        ("rows", number(rows, |row| Some(row.rows))),
        ("type", text(rows, |row| &row.data_type)),
        ("carrier", text(rows, |row| row.carrier)),
        ("bytes", number(rows, |row| Some(row.bytes))),
        ("null_count", number(rows, |row| Some(row.null_count))),
        ("hits", number(rows, |row| Some(row.hits))),
        ("decode_ns", number(rows, |row| Some(row.decode_ns))),
        (
            "pinned",
            Arc::new(rows.iter().map(|row| Some(row.pinned)).collect::<BooleanArray>()),
        ),
    ])
}

/// One row of `system.functions`: schema, name, definition.
type FunctionRow = (String, String, FunctionDefinition);

fn defined_functions(defined: &Functions) -> Vec<FunctionRow> {
    let in_schema = |(schema, functions): (&String, &BTreeMap<String, FunctionDefinition>)| {
        let row =
            |(name, definition): (&String, &FunctionDefinition)| (schema.clone(), name.clone(), definition.clone());
        functions.iter().map(row).collect::<Vec<_>>()
    };
    defined.definitions.iter().flat_map(in_schema).collect()
}

fn functions(rows: &[FunctionRow]) -> Result<RecordBatch> {
    batch(vec![
        ("schema", text(rows, |row| &row.0)),
        ("name", text(rows, |row| &row.1)),
        ("arguments", text_opt(rows, |row| Some(row.2.arguments()))),
        ("returns", text(rows, |row| &row.2.returns)),
        (
            "strict",
            Arc::new(rows.iter().map(|row| Some(row.2.strict)).collect::<BooleanArray>()),
        ),
        ("body", text(rows, |row| &row.2.body)),
    ])
}

fn pins(rows: &[(String, PinnedStatement)]) -> Result<RecordBatch> {
    batch(vec![
        ("schema", text(rows, |row| &row.0)),
        ("statement", text(rows, |row| &row.1.sql)),
        ("placement", text(rows, |row| &row.1.pins)),
    ])
}

fn plans(rows: &[trireme_planner::plan_cache::PlanRow]) -> Result<RecordBatch> {
    batch(vec![
        ("shape", text(rows, |row| &row.shape)),
        ("state", text(rows, |row| &row.state)),
        ("hits", number(rows, |row| Some(row.hits))),
        ("made_anew", number(rows, |row| Some(row.made_anew))),
    ])
}
