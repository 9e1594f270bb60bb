//! The files of a Delta table's version, as a set that is read like any other.
//!
//! The table's own reader does the same and more, behind an operator whose fields are its crate's secret: nothing above it
//! sees files, partition values or row counts. So what plain Parquet files can express is read as such, and only the rest by
//! that reader.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use chrono::DateTime;
use datafusion::common::ScalarValue;
use datafusion::config::TableParquetOptions;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::table_schema::TableSchemaBuilder;
use datafusion::execution::SessionState;
use deltalake::kernel::EagerSnapshot;
use deltalake::kernel::LogicalFileView;
use object_store::ObjectMeta;
use object_store::path::Path;
use trireme_exec::io::version_from_log;

use super::statistics::LogStatistics;
use crate::fileset::{Bounds, FileBounds, with_partitions};

/// Where a mapped column's name in the files is found.
const PHYSICAL_NAME: &str = "delta.columnMapping.physicalName";

/// The columns of a version, split as files have them.
pub(super) struct Columns {
    /// As statements see them.
    pub(super) schema: SchemaRef,
    /// In the files, under the files' names.
    stored: Vec<FieldRef>,
    /// The same under the names that statements use.
    stored_names: Vec<String>,
    partitions: Vec<FieldRef>,
    /// The keys of partition columns in the log.
    partition_keys: Vec<String>,
    /// Where each column of `schema` is among the stored and then the partition columns.
    pub(super) positions: Vec<usize>,
}

/// All files of a version.
pub(super) struct Files {
    pub(super) files: Vec<PartitionedFile>,
    pub(super) bounds: Bounds,
    /// Rows of the files that have deletion vectors.
    pub(super) with_deletions: HashMap<Path, u64>,
}

impl Columns {
    /// The columns, or why plain readers can't read them.
    pub(super) fn new(snapshot: &EagerSnapshot, schema: SchemaRef) -> Result<Self, String> {
        let metadata = snapshot.metadata();
        let mode = metadata.configuration().get("delta.columnMapping.mode");
        let mapped = match mode.map_or("none", String::as_str) {
            "none" => false,
            "name" => true,
            other => return Err(format!("columns are mapped by {other}")),
        };
        let logged = snapshot.arrow_schema();
        let physical = |field: &Field| match logged.field_with_name(field.name()) {
            Ok(logged) if mapped => logged
                .metadata()
                .get(PHYSICAL_NAME)
                .cloned()
                .ok_or_else(|| format!("column {} has no name in the files", field.name())),
            _ => Ok(field.name().clone()),
        };
        let by = metadata.partition_columns();
        let (mut stored, mut stored_names) = (Vec::new(), Vec::new());
        let (mut partitions, mut partition_keys) = (Vec::new(), Vec::new());
        for name in by {
            let field = schema.field_with_name(name).map_err(|error| error.to_string())?;
            if field.data_type().is_nested() || is_binary(field.data_type()) {
                return Err(format!("partition column {name} is {}", field.data_type()));
            }
            partition_keys.push(physical(field)?);
            partitions.push(Arc::new(Field::new(
                name,
                field.data_type().clone(),
                field.is_nullable(),
            )));
        }
        for field in schema.fields().iter().filter(|field| !by.contains(field.name())) {
            if mapped && field.data_type().is_nested() {
                return Err(format!("column {} is nested and mapped", field.name()));
            }
            stored.push(Arc::new(field.as_ref().clone().with_name(physical(field)?)));
            stored_names.push(field.name().clone());
        }
        let place = |field: &FieldRef| {
            let partition = by.iter().position(|name| name == field.name());
            let among = stored_names.iter().position(|name| name == field.name());
            partition
                .map(|index| stored.len() + index)
                .or(among)
                .unwrap_or_default()
        };
        Ok(Self {
            positions: schema.fields().iter().map(place).collect(),
            schema,
            stored,
            stored_names,
            partitions,
            partition_keys,
        })
    }

    pub(super) fn table(&self) -> datafusion::datasource::table_schema::TableSchema {
        let stored = Schema::new(Fields::from(self.stored.clone()));
        TableSchemaBuilder::new(Arc::new(stored))
            .with_table_partition_cols(self.partitions.clone())
            .build()
    }

    /// The files that the log names, or why plain readers can't read them. `root` is the table's folder in its store.
    pub(super) fn files(&self, snapshot: &EagerSnapshot, root: &Path) -> Result<Files, String> {
        let mut found = Files {
            files: Vec::new(),
            bounds: Bounds::new(Vec::new()),
            with_deletions: HashMap::new(),
        };
        let mut rows = Vec::new();
        let mut bounds: Vec<Vec<FileBounds>> = vec![Vec::new(); self.stored.len()];
        for view in snapshot.log_data().iter() {
            let log = LogStatistics::parse(view.stats().as_deref());
            let mut file = PartitionedFile::new_from_meta(object(&view, root)?);
            file.partition_values = self.partition_values(&view)?;
            let deleted = match view.deletion_vector_descriptor() {
                None => 0,
                Some(vector) => {
                    let rows = log.num_records.ok_or("a file with deleted rows has no row count")?;
                    found.with_deletions.insert(file.object_meta.location.clone(), rows);
                    u64::try_from(vector.cardinality).map_err(|error| error.to_string())?
                }
            };
            rows.push(log.num_records);
            let of = |field: &FieldRef| log.bounds(field);
            let known: Vec<FileBounds> = self.stored.iter().map(of).collect();
            bounds
                .iter_mut()
                .zip(&known)
                .for_each(|(all, one)| all.push(one.clone()));
            let columns: Vec<_> = self.stored.iter().map(AsRef::as_ref).zip(known).collect();
            let statistics = log.statistics(deleted, file.object_meta.size, &columns);
            file.statistics = Some(with_partitions(statistics, &file));
            found.files.push(file);
        }
        found.bounds = self.bounds(rows, bounds, &found.files);
        Ok(found)
    }

    fn bounds(&self, rows: Vec<Option<u64>>, stored: Vec<Vec<FileBounds>>, files: &[PartitionedFile]) -> Bounds {
        let mut all = Bounds::new(rows);
        let null = |field: &FieldRef| ScalarValue::try_from(field.data_type()).ok();
        for ((name, field), bounds) in self.stored_names.iter().zip(&self.stored).zip(&stored) {
            if let Some(null) = null(field) {
                all.insert(name, &null, bounds);
            }
        }
        for (index, field) in self.partitions.iter().enumerate() {
            let value = |file: &PartitionedFile| {
                let value = Some(file.partition_values[index].clone()).filter(|value| !value.is_null());
                FileBounds {
                    min: value.clone(),
                    max: value,
                    nulls: None,
                }
            };
            let bounds: Vec<FileBounds> = files.iter().map(value).collect();
            if let Some(null) = null(field) {
                all.insert(field.name(), &null, &bounds);
            }
        }
        all
    }

    fn partition_values(&self, view: &LogicalFileView) -> Result<Vec<ScalarValue>, String> {
        let logged = view.partition_values_map();
        let value = |(key, field): (&String, &FieldRef)| {
            let data_type = field.data_type();
            // An empty string stands for NULL, as the protocol says.
            let text = logged.get(key).cloned().flatten().filter(|text| !text.is_empty());
            let value = match text {
                None => ScalarValue::try_from(data_type),
                Some(text) => ScalarValue::try_from_string(text, data_type),
            };
            value.map_err(|error| format!("a value of partition column {}: {error}", field.name()))
        };
        self.partition_keys.iter().zip(&self.partitions).map(value).collect()
    }
}

fn is_binary(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)
    )
}

fn object(view: &LogicalFileView, root: &Path) -> Result<ObjectMeta, String> {
    if view.path().contains("://") {
        return Err("some files are not in its folder".to_owned());
    }
    let below = view.object_store_path();
    let last_modified = DateTime::from_timestamp_millis(view.modification_time()).unwrap_or_default();
    let size = u64::try_from(view.size()).map_err(|error| error.to_string())?;
    Ok(ObjectMeta {
        location: root.parts().chain(below.parts()).collect(),
        last_modified,
        size,
        e_tag: None,
        version: Some(version_from_log(last_modified, size)),
    })
}

/// How the files are read: INT96 timestamps, which some writers still make, reach further in microseconds.
pub(super) fn reader(state: &SessionState) -> ParquetFormat {
    let mut options = TableParquetOptions {
        global: state.config_options().execution.parquet.clone(),
        ..TableParquetOptions::default()
    };
    options.global.coerce_int96 = Some("us".to_owned());
    ParquetFormat::default().with_options(options)
}
