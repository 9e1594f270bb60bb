//! Scans of Parquet files as scans of graphs.
//!
//! DataFusion cuts files into byte ranges, one list per partition; a graph takes each whole file once and cuts it itself.
//! Row selections, as deletion vectors are, become a column of truth values that rows are filtered by. Whatever else a source
//! does per file (access plans, decryption, an adapter of its own) is a reason to leave the scan to DataFusion.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::common::stats::Precision;
use datafusion::common::{ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::DataSourceExec;
use datafusion::datasource::physical_plan::parquet::ParquetRowSelection;
use datafusion::datasource::physical_plan::{FileScanConfig, ParquetSource};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column, lit};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::filter_pushdown::{FilterPushdownPhase, PushedDown};
use trireme_device_api::Type;
use trireme_exec::io::is_from_log;
use trireme_exec::operators::{ColumnSource, ColumnStatistics, FileColumn, FileScan, ScanStatistics};
use trireme_exec::statistics::version;

use super::expr::fused_type;
use super::lower::seen_through;

/// A scan and what DataFusion's source does with its rows besides.
pub(super) struct TableScan {
    pub(super) scan: FileScan,
    /// By column of the scan.
    pub(super) nullable: Vec<bool>,
    /// The table's columns, which expressions below refer to.
    pub(super) table: Arc<Schema>,
    /// Where each of the table's columns is in the scan.
    pub(super) positions: Vec<Option<usize>>,
    /// Result columns; none: the table's, in order.
    pub(super) projection: Option<Vec<Arc<dyn PhysicalExpr>>>,
    /// The scan's column that is true for the rows that are read at all.
    pub(super) kept: Option<usize>,
    /// Applied to every row, when the source filters exactly.
    pub(super) predicate: Option<Arc<dyn PhysicalExpr>>,
    pub(super) limit: Option<usize>,
}

/// The scan that an operator does, or why a graph can't; none for operators that scan nothing.
pub(super) fn table_scan(plan: &dyn ExecutionPlan) -> Option<Result<TableScan, String>> {
    if let Some(source) = plan.downcast_ref::<DataSourceExec>() {
        return Some(source_scan(source, None));
    }
    (plan.name() == "DeltaScanExec").then(|| delta_scan(plan))
}

/// Parquet files of a Delta table whose columns are the files' own. The operator's fields are its crate's secret, so what it
/// does is asked through DataFusion's interface.
fn delta_scan(plan: &dyn ExecutionPlan) -> Result<TableScan, String> {
    let mut child = *plan.children().first().ok_or("a Delta scan without files")?;
    while let Some(below) = seen_through(child.as_ref()) {
        child = below;
    }
    let source = child
        .downcast_ref::<DataSourceExec>()
        .ok_or_else(|| format!("its files are read by {}", child.name()))?;
    if !matches!(plan.cardinality_effect(), CardinalityEffect::Equal) {
        return Err("deletion vectors are not fused".to_owned());
    }
    // A table with mapped columns takes no filter at all.
    let probe = lit(true);
    let taken = plan
        .gather_filters_for_pushdown(FilterPushdownPhase::Pre, vec![probe], &ConfigOptions::default())
        .map_err(|error| error.strip_backtrace())?
        .parent_filters();
    if !taken
        .iter()
        .flatten()
        .all(|filter| matches!(filter.discriminant, PushedDown::Yes))
    {
        return Err("mapped columns of a Delta table are not fused".to_owned());
    }
    let (schema, stored) = (plan.schema(), child.schema());
    let mut wanted = Vec::new();
    for field in schema.fields() {
        let index = stored
            .index_of(field.name())
            .map_err(|_| format!("column {} is not in the Delta table's files", field.name()))?;
        wanted.push((index, field.data_type().clone()));
    }
    source_scan(source, Some(wanted))
}

/// The result columns of a source; with `wanted` only some, and of these types. Strings and binary values are read in the
/// layout that is wanted (`types`, by column of the table), since their layouts hold the same values; others are cast.
fn result_columns(
    source: &DataSourceExec,
    projection: Option<Vec<Arc<dyn PhysicalExpr>>>,
    wanted: Option<Vec<(usize, DataType)>>,
    types: &mut HashMap<usize, DataType>,
) -> Option<Vec<Arc<dyn PhysicalExpr>>> {
    let Some(wanted) = wanted else {
        return projection;
    };
    let schema = ExecutionPlan::schema(source);
    let columns = wanted.into_iter().map(|(index, data_type)| {
        let field = schema.field(index);
        let column: Arc<dyn PhysicalExpr> = match &projection {
            Some(projection) => Arc::clone(&projection[index]),
            None => Arc::new(Column::new(field.name(), index)),
        };
        if *field.data_type() == data_type {
            return column;
        }
        match column.downcast_ref::<Column>() {
            Some(of_table) if same_values(field.data_type(), &data_type) => {
                types.insert(of_table.index(), data_type);
                column
            }
            _ => Arc::new(CastExpr::new(column, data_type, None)),
        }
    });
    Some(columns.collect())
}

fn same_values(left: &DataType, right: &DataType) -> bool {
    match (fused_type(left), fused_type(right)) {
        (Ok(left), Ok(right)) => left.is_bytes() && right.is_bytes() && left.is_text() == right.is_text(),
        _ => false,
    }
}

fn source_scan(source: &DataSourceExec, wanted: Option<Vec<(usize, DataType)>>) -> Result<TableScan, String> {
    let Some((config, parquet)) = source.downcast_to_file_source::<ParquetSource>() else {
        return Err("its source is not Parquet files".to_owned());
    };
    if parquet.table_parquet_options().crypto != Default::default() {
        return Err("encrypted files are not fused".to_owned());
    }
    let schema = config.file_source().table_schema();
    if !schema.virtual_columns().is_empty() {
        return Err("virtual columns are not fused".to_owned());
    }
    let table = Arc::clone(schema.table_schema());
    let projection = config.file_source().projection();
    let projection = projection.map(|projection| projection.expr_iter().collect());
    let mut types = HashMap::new();
    let projection = result_columns(source, projection, wanted, &mut types);
    let exact = parquet.table_parquet_options().global.pushdown_filters;
    let predicate = config.file_source().filter().filter(|_| exact);
    let mut needed = vec![projection.is_none(); table.fields().len()];
    for expr in projection.iter().flatten().chain(&predicate) {
        for column in collect_columns(expr) {
            *needed.get_mut(column.index()).ok_or("a column outside the table")? = true;
        }
    }
    let file_columns = schema.file_schema().fields().len();
    let (mut columns, mut nullable) = (Vec::new(), Vec::new());
    let files = whole_files(config)?;
    let known: Option<Vec<_>> = files.iter().map(|file| file.statistics.as_deref()).collect();
    let known = known.unwrap_or_default();
    let mut statistics = ScanStatistics {
        rows: known_rows(&known),
        version: Some(version(config.object_store_url.as_str(), files.iter())),
        ..ScanStatistics::default()
    };
    let mut positions = vec![None; needed.len()];
    for (index, field) in table.fields().iter().enumerate().filter(|(index, _)| needed[*index]) {
        positions[index] = Some(columns.len());
        nullable.push(field.is_nullable());
        statistics.columns.push(column_statistics(&known, index));
        columns.push(FileColumn {
            name: field.name().clone(),
            data_type: fused_type(types.get(&index).unwrap_or_else(|| field.data_type()))?,
            source: match index.checked_sub(file_columns) {
                None => ColumnSource::File,
                Some(position) => ColumnSource::Partition(position),
            },
        });
    }
    let kept = files
        .iter()
        .any(|file| !file.extensions.is_empty())
        .then(|| add_kept(&mut columns, &mut nullable, &mut statistics));
    Ok(TableScan {
        kept,
        scan: FileScan {
            store: config.object_store_url.clone(),
            name: table_name(&files),
            files,
            columns,
            file_schema: Arc::clone(schema.file_schema()),
            statistics,
        },
        nullable,
        table,
        positions,
        projection,
        predicate,
        limit: config.limit,
    })
}

/// The column that says which rows are read at all.
fn add_kept(columns: &mut Vec<FileColumn>, nullable: &mut Vec<bool>, statistics: &mut ScanStatistics) -> usize {
    nullable.push(false);
    statistics.columns.resize(columns.len(), ColumnStatistics::default());
    // Rows that were deleted are not counted anywhere else either.
    statistics.columns.push(ColumnStatistics {
        distinct: Some(1.0),
        ..ColumnStatistics::default()
    });
    columns.push(FileColumn {
        name: "kept rows".to_owned(),
        data_type: Type::Boolean,
        source: ColumnSource::Kept,
    });
    columns.len() - 1
}

/// What the files say of their rows, all together.
fn known_rows(known: &[&Statistics]) -> Option<f64> {
    let rows = known
        .iter()
        .map(|file| file.num_rows.get_value().map(|rows| *rows as f64));
    rows.sum::<Option<f64>>().filter(|_| !known.is_empty())
}

/// What files' footers, or a table's log, say of a column.
fn column_statistics(files: &[&Statistics], index: usize) -> ColumnStatistics {
    let ranges = files.iter().map(|file| {
        let column = file.column_statistics.get(index)?;
        number(&column.min_value).zip(number(&column.max_value))
    });
    let both = |a: (f64, f64), b: (f64, f64)| (a.0.min(b.0), a.1.max(b.1));
    let range = ranges.reduce(|a, b| a.zip(b).map(|(a, b)| both(a, b)));
    let distinct = match files {
        [file] => file.column_statistics.get(index),
        _ => None,
    };
    ColumnStatistics {
        distinct: distinct.and_then(|column| column.distinct_count.get_value().map(|count| *count as f64)),
        range: range.flatten(),
        nulls: null_share(files, index),
        cached: false,
    }
}

/// The part of the rows in which a column is NULL.
fn null_share(files: &[&Statistics], index: usize) -> Option<f64> {
    let (mut nulls, mut rows) = (0.0, 0.0);
    for file in files {
        nulls += *file.column_statistics.get(index)?.null_count.get_value()? as f64;
        rows += *file.num_rows.get_value()? as f64;
    }
    (rows > 0.0).then(|| (nulls / rows).min(1.0))
}

fn number(value: &Precision<ScalarValue>) -> Option<f64> {
    match value.get_value()? {
        ScalarValue::Decimal128(value, ..) => value.map(|value| value as f64),
        ScalarValue::Date32(value) => value.map(f64::from),
        ScalarValue::TimestampSecond(value, _)
        | ScalarValue::TimestampMillisecond(value, _)
        | ScalarValue::TimestampMicrosecond(value, _)
        | ScalarValue::TimestampNanosecond(value, _) => value.map(|value| value as f64),
        value if value.data_type().is_integer() => match value.cast_to(&DataType::Int64).ok()? {
            ScalarValue::Int64(value) => value.map(|value| value as f64),
            _ => None,
        },
        _ => None,
    }
}

/// Each file once, whole.
fn whole_files(config: &FileScanConfig) -> Result<Vec<PartitionedFile>, String> {
    let mut files: Vec<PartitionedFile> = Vec::new();
    let mut ranges: Vec<Vec<(u64, u64)>> = Vec::new();
    let mut known = HashMap::new();
    for file in config.file_groups.iter().flat_map(|group| group.files()) {
        let meta = &file.object_meta;
        if meta.e_tag.is_none() && !is_from_log(meta) && !config.object_store_url.as_str().starts_with("file:") {
            return Err(format!("{} has no entity tag to be known by", meta.location));
        }
        let selected = usize::from(file.extension::<ParquetRowSelection>().is_some());
        if file.extensions.len() > selected {
            return Err(format!("{} is read by an access plan", file.object_meta.location));
        }
        let position = *known.entry(file.object_meta.location.clone()).or_insert_with(|| {
            files.push(PartitionedFile {
                range: None,
                ..file.clone()
            });
            ranges.push(Vec::new());
            files.len() - 1
        });
        if files[position].partition_values != file.partition_values {
            return Err(format!("{} stands in two partitions", file.object_meta.location));
        }
        ranges[position].push(file.range());
    }
    for (file, ranges) in files.iter().zip(&mut ranges) {
        ranges.sort_unstable();
        let mut covered = 0;
        for (start, end) in ranges {
            if *start != covered {
                return Err(format!("{} is not read once and whole", file.object_meta.location));
            }
            covered = *end;
        }
        if covered < file.object_meta.size {
            return Err(format!("{} is not read whole", file.object_meta.location));
        }
    }
    Ok(files)
}

/// The table's name for people: as planned, else the folder or file.
fn table_name(files: &[PartitionedFile]) -> String {
    let Some(file) = files.first() else {
        return "no files".to_owned();
    };
    if let Some(table) = &file.table_reference {
        return table.table().to_owned();
    }
    let path = file.object_meta.location.as_ref();
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    if files.len() == 1 {
        return name.trim_end_matches(".parquet").to_owned();
    }
    folder
        .rsplit('/')
        .find(|part| !part.contains('='))
        .unwrap_or(folder)
        .to_owned()
}
