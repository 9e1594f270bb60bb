//! ANALYZE: row count, nulls, range and distinct values of every column and a sample of rows, kept until the files change and
//! shown as stale then.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use arrow::util::display::array_value_to_string;
use chrono::Utc;
use datafusion::catalog::TableProvider;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, ScalarValue, Statistics};
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionState;
use datafusion::functions_aggregate::expr_fn::{approx_distinct, count, max, min};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, lit};
use datafusion::physical_plan::{collect, execute_stream};
use serde::{Deserialize, Serialize};
use trireme_exec::statistics::sketches::Load;
use trireme_exec::statistics::{Sketches, TableSketch, version_of};
use trireme_planner::ddl::TableName;

use crate::ahead::in_statement;
use crate::catalog::{Applied, Catalog};
use crate::error::CatalogError;
use crate::folder::{Folder, read_json, write_json};
use crate::listing::Signature;
use crate::resolve::{Source, canonical};
use crate::samples;

/// What ANALYZE found about a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableStatistics {
    /// The table.
    pub table: TableName,
    /// Rows then.
    pub rows: u64,
    /// When, as RFC 3339.
    pub analyzed_at: String,
    /// True when the table's files changed since.
    pub stale: bool,
    /// By column.
    pub columns: Vec<ColumnStatisticsEntry>,
    /// Rows of the sample.
    pub sampled: u64,
}

/// What ANALYZE found about a column; `None` where the column's type has no order or no hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnStatisticsEntry {
    /// The column.
    pub column: String,
    /// Nulls.
    pub null_count: u64,
    /// Smallest value, as text.
    pub min: Option<String>,
    /// Largest value, as text.
    pub max: Option<String>,
    /// Distinct values, about.
    pub distinct: Option<u64>,
    /// The most common values of the sample, each with its part of the rows.
    #[serde(default)]
    pub common: Option<String>,
    /// Bounds of ten equal parts of the sample.
    #[serde(default)]
    pub histogram: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stored {
    rows: u64,
    analyzed_at: String,
    signature: Signature,
    columns: Vec<ColumnStatisticsEntry>,
    /// Of the files that were sampled, as plans name them.
    #[serde(default)]
    version: Option<u64>,
    #[serde(default)]
    sampled: u64,
}

/// How tables are sampled, and where plans look for it.
#[derive(Debug)]
pub struct SketchOptions {
    /// Where plans look for what was found.
    pub sketches: Arc<Sketches>,
    /// Rows of a sample.
    pub sample_rows: usize,
    /// Bytes of files up to which a table is analysed unasked; 0: never.
    pub sketch_below_bytes: u64,
    /// Not only when it is registered, also when a statement uses it.
    pub sketch_on_use: bool,
    /// Makes the calling thread yield to all others: it is called before the first of waiting tables.
    pub yields: fn(),
}

/// All statistics, by schema and table, as they are on disk.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct StatisticsFile {
    tables: BTreeMap<String, BTreeMap<String, Stored>>,
}

impl StatisticsFile {
    /// Statistics are only advice: a damaged file is set aside, not an error.
    pub(crate) fn load(folder: &Folder) -> Result<Self, CatalogError> {
        match read_json(&folder.statistics_file()) {
            Ok(stored) => Ok(stored.unwrap_or_default()),
            Err(CatalogError::Corrupt { file, reason }) => {
                tracing::warn!(
                    file,
                    reason,
                    "the statistics are damaged and start anew; run ANALYZE again"
                );
                Ok(Self::default())
            }
            Err(other) => Err(other),
        }
    }

    fn get(&self, name: &TableName) -> Option<&Stored> {
        self.tables.get(&name.schema)?.get(&name.table)
    }

    fn len(&self) -> usize {
        self.tables.values().map(BTreeMap::len).sum()
    }

    /// Whether a table is among so many, or can be.
    pub(crate) fn has_room(&self, name: &TableName, most: usize) -> bool {
        self.get(name).is_some() || self.len() < most
    }

    /// True when any was there.
    fn remove(&mut self, gone: impl Fn(&TableName) -> bool) -> bool {
        let before = self.len();
        for (schema, tables) in &mut self.tables {
            tables.retain(|table, _| {
                let (schema, table) = (schema.clone(), table.clone());
                !gone(&TableName { schema, table })
            });
        }
        self.tables.retain(|_, tables| !tables.is_empty());
        self.len() < before
    }
}

impl Catalog {
    /// Statistics of all tables that still exist.
    pub async fn statistics(&self) -> Vec<TableStatistics> {
        let stored = self.statistics.read().clone();
        let mut all = Vec::new();
        for (schema, tables) in stored.tables {
            for (table, stored) in tables {
                let name = TableName {
                    schema: schema.clone(),
                    table,
                };
                let Ok(Some(source)) = self.source(&name) else { continue };
                let stale = self
                    .listing(&name, &source)
                    .await
                    .map_or(true, |listing| listing.signature != stored.signature);
                all.push(TableStatistics {
                    table: name,
                    rows: stored.rows,
                    analyzed_at: stored.analyzed_at,
                    stale,
                    columns: stored.columns,
                    sampled: stored.sampled,
                });
            }
        }
        all
    }

    /// What the planner may take for granted: estimates all, because nothing checks the files here.
    pub(crate) fn plan_statistics(&self, name: &TableName, schema: &Schema) -> Option<Statistics> {
        let file = self.statistics.read();
        let stored = file.get(name)?;
        // The provider was made from the files of this signature.
        if self
            .tables
            .lock()
            .get(name)
            .is_none_or(|cached| cached.signature != stored.signature)
        {
            return None;
        }
        let column_statistics = schema
            .fields()
            .iter()
            .map(
                |field| match stored.columns.iter().find(|entry| entry.column == *field.name()) {
                    Some(entry) => column_statistics(entry, field.data_type()),
                    None => ColumnStatistics::new_unknown(),
                },
            )
            .collect();
        let num_rows = Precision::Inexact(usize::try_from(stored.rows).ok()?);
        Some(Statistics {
            num_rows,
            total_byte_size: Precision::Absent,
            column_statistics,
        })
    }

    pub(crate) async fn analyze(&self, session: &SessionState, name: &TableName) -> Result<Applied, CatalogError> {
        let Some(source) = self.source(name)? else {
            return Err(self.not_found("table", name));
        };
        if matches!(source, Source::View(_)) {
            return Err(CatalogError::invalid_hint(
                format!("{name} is a view"),
                "analyze the tables that it selects from",
            ));
        }
        let name = canonical(name, &source);
        self.sketching.began(&name);
        // Of the files that are read, which may not be the newest: a change makes the statistics stale, never wrong unnoticed.
        let (table, signature) = self.current(&name, &source).await?;
        let schema = table.schema();
        let aggregates = schema
            .fields()
            .iter()
            .flat_map(|field| aggregates(field.name(), field.data_type()));
        let aggregates: Vec<Expr> = std::iter::once(count(lit(1_i64))).chain(aggregates).collect();
        let aliased: Vec<Expr> = aggregates
            .into_iter()
            .enumerate()
            .map(|(index, expr)| expr.alias(format!("a{index}")))
            .collect();
        let plan = LogicalPlanBuilder::scan("analyzed", provider_as_source(Arc::clone(&table)), None)?
            .aggregate(Vec::<Expr>::new(), aliased)?
            .build()?;
        let physical = session.create_physical_plan(&plan).await?;
        let batches = collect(physical, session.task_ctx()).await?;
        let (rows, mut columns) = read_result(&schema, &batches)?;
        let (sample, version) = self.sample(session, &table, rows).await?;
        if let Some(sample) = &sample {
            describe(sample, rows, &mut columns);
        }
        let stored = Stored {
            rows,
            analyzed_at: Utc::now().to_rfc3339(),
            signature,
            columns,
            version,
            sampled: sample.as_ref().map_or(0, |sample| sample.num_rows() as u64),
        };
        self.keep(&name, stored, sample.as_ref()).await?;
        if let (Some(options), Some(version)) = (self.sketches.get(), version)
            && let Some(sketch) = options.sketches.get(version)
        {
            sketch.warm();
        }
        Ok(Applied { rows: Some(rows) })
    }

    /// Keeps what was found of a table that is still there.
    async fn keep(&self, name: &TableName, stored: Stored, sample: Option<&RecordBatch>) -> Result<(), CatalogError> {
        let _changing = self.changing.lock().await;
        if self.is_gone(name) {
            return Err(self.not_found("table", name));
        }
        if let (Some(sample), Some(version)) = (sample, stored.version) {
            samples::write(&self.folder.sample_file(version), sample)?;
        }
        let mut file = self.statistics.read().clone();
        file.tables
            .entry(name.schema.clone())
            .or_default()
            .insert(name.table.clone(), stored);
        write_json(&self.folder.statistics_file(), &file)?;
        *self.statistics.write() = file;
        self.offer_sketches();
        Ok(())
    }

    /// Whether no table has this name. Where that can't be told, it may have one.
    fn is_gone(&self, name: &TableName) -> bool {
        matches!(self.source(name), Ok(None | Some(Source::View(_))))
    }

    /// Forgets tables that are no longer there: files of the data folder vanish without a statement.
    pub(crate) async fn prune_statistics(&self) {
        let _changing = self.changing.lock().await;
        in_statement(async { self.forget_statistics(|name| self.is_gone(name)) }).await;
    }

    /// Forgets tables and their samples. The caller holds `changing`. Failing to costs only space.
    pub(crate) fn forget_statistics(&self, gone: impl Fn(&TableName) -> bool) {
        let mut file = self.statistics.read().clone();
        if !file.remove(gone) {
            return;
        }
        if let Err(error) = write_json(&self.folder.statistics_file(), &file) {
            tracing::warn!(%error, "statistics of dropped tables can't be removed; the next start will try again");
        }
        *self.statistics.write() = file;
        self.offer_sketches();
    }

    /// Where plans look for what ANALYZE found, and how much it samples.
    pub fn share_sketches(&self, options: SketchOptions) {
        let sketches = Arc::clone(&options.sketches);
        let _ = self.sketches.set(options);
        self.offer_sketches();
        // A plan that comes first loads what it needs itself.
        let started = std::thread::Builder::new()
            .name("sketches".to_owned())
            .spawn(move || sketches.warm());
        if let Err(error) = started {
            tracing::debug!(%error, "samples are loaded when plans ask for them");
        }
    }

    /// Whether what is known of a table is of these files.
    pub(crate) fn is_fresh(&self, name: &TableName, signature: &Signature) -> bool {
        fresh_rows(self, name, signature).is_some()
    }

    /// Offers all samples that are kept; those of tables that were analysed anew are removed.
    fn offer_sketches(&self) {
        let Some(SketchOptions { sketches, .. }) = self.sketches.get() else {
            return;
        };
        let file = self.statistics.read();
        let stored = file.tables.values().flat_map(BTreeMap::values);
        let sampled: Vec<_> = stored
            .filter(|stored| stored.sampled > 0)
            .filter_map(|stored| Some((stored.version?, stored.clone())))
            .collect();
        self.folder
            .keep_samples(&sampled.iter().map(|(version, _)| *version).collect());
        sketches.set(sampled.into_iter().map(|(version, stored)| {
            let path = self.folder.sample_file(version);
            let load = move || samples::sketch(&path, &stored.columns, stored.rows);
            (version, Box::new(load) as Load)
        }));
    }

    /// Rows of a table taken at equal distances, and the version of its files; none of tables without rows or files.
    async fn sample(
        &self,
        session: &SessionState,
        table: &Arc<dyn TableProvider>,
        rows: u64,
    ) -> Result<(Option<RecordBatch>, Option<u64>), CatalogError> {
        let wanted = self.sketches.get().map_or(0, |options| options.sample_rows);
        // Not by the session's plan: fragments don't say which files they read.
        let plan = table.scan(session, None, &[], None).await?;
        let version = version_of(&plan);
        if wanted == 0 || rows == 0 || version.is_none() {
            return Ok((None, None));
        }
        let stream = execute_stream(plan, session.task_ctx())?;
        Ok((samples::take(stream, rows, wanted).await?, version))
    }
}

/// Values that are shown of a column.
const COMMON_SHOWN: usize = 10;
const BUCKETS: usize = 10;

/// Adds what a sample says to what was counted.
fn describe(sample: &RecordBatch, rows: u64, columns: &mut [ColumnStatisticsEntry]) {
    let sketch = TableSketch::new(rows as f64, sample, &|_| None);
    for (at, entry) in columns.iter_mut().enumerate() {
        entry.common = sketch.common_text(at, COMMON_SHOWN).filter(|common| !common.is_empty());
        entry.histogram = sketch.columns[at].histogram(BUCKETS).map(|bounds| bounds.join(" "));
    }
}

fn is_ordered(data_type: &DataType) -> bool {
    !data_type.is_nested()
        && !matches!(
            data_type,
            DataType::Interval(_) | DataType::Null | DataType::Union(_, _)
        )
}

fn has_distinct(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(
            data_type,
            DataType::Boolean
                | DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Utf8View
                | DataType::Date32
                | DataType::Date64
                | DataType::Timestamp(_, _)
                | DataType::Decimal128(_, _)
        )
}

fn aggregates(column: &str, data_type: &DataType) -> Vec<Expr> {
    let value = || Expr::Column(Column::new(Some("analyzed"), column));
    let mut all = vec![count(value())];
    if is_ordered(data_type) {
        all.extend([min(value()), max(value())]);
    }
    if has_distinct(data_type) {
        all.push(approx_distinct(value()));
    }
    all
}

fn read_result(schema: &Schema, batches: &[RecordBatch]) -> Result<(u64, Vec<ColumnStatisticsEntry>), CatalogError> {
    let batch = batches
        .iter()
        .find(|batch| batch.num_rows() == 1)
        .ok_or_else(|| CatalogError::invalid("ANALYZE counted nothing"))?;
    let mut values = batch.columns().iter();
    let mut next = || {
        values
            .next()
            .ok_or_else(|| CatalogError::invalid("ANALYZE counted too little"))
    };
    let rows = number(next()?);
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let present = number(next()?);
        let (min, max) = if is_ordered(field.data_type()) {
            (text(next()?)?, text(next()?)?)
        } else {
            (None, None)
        };
        let distinct = if has_distinct(field.data_type()) {
            Some(number(next()?))
        } else {
            None
        };
        columns.push(ColumnStatisticsEntry {
            column: field.name().clone(),
            null_count: rows.saturating_sub(present),
            min,
            max,
            distinct,
            common: None,
            histogram: None,
        });
    }
    Ok((rows, columns))
}

fn number(value: &ArrayRef) -> u64 {
    use arrow::array::AsArray;
    use arrow::datatypes::UInt64Type;
    match cast(value, &DataType::UInt64) {
        Ok(value) if !value.is_null(0) => value.as_primitive::<UInt64Type>().value(0),
        _ => 0,
    }
}

fn text(value: &ArrayRef) -> Result<Option<String>, CatalogError> {
    if value.is_null(0) {
        return Ok(None);
    }
    let text = array_value_to_string(value, 0).map_err(datafusion::error::DataFusionError::from)?;
    Ok(Some(text))
}

fn column_statistics(entry: &ColumnStatisticsEntry, data_type: &DataType) -> ColumnStatistics {
    let value = |text: &Option<String>| match text
        .as_ref()
        .map(|text| ScalarValue::try_from_string(text.clone(), data_type))
    {
        Some(Ok(value)) => Precision::Inexact(value),
        _ => Precision::Absent,
    };
    let count = |number: u64| usize::try_from(number).map_or(Precision::Absent, Precision::Inexact);
    let mut statistics = ColumnStatistics::new_unknown();
    statistics.null_count = count(entry.null_count);
    statistics.min_value = value(&entry.min);
    statistics.max_value = value(&entry.max);
    statistics.distinct_count = entry.distinct.map_or(Precision::Absent, count);
    statistics
}

/// Used by listings: rows where ANALYZE's count still holds.
pub(crate) fn fresh_rows(catalog: &Catalog, name: &TableName, signature: &Signature) -> Option<u64> {
    let file = catalog.statistics.read();
    file.get(name)
        .filter(|stored| stored.signature == *signature)
        .map(|stored| stored.rows)
}
