//! Tables of plain files: their columns, from declarations, folders' names and the files.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::datasource::file_format::FileFormat as Reader;
use datafusion::datasource::listing::{ListingTableUrl, PartitionedFile};
use datafusion::datasource::table_schema::TableSchemaBuilder;
use futures::{FutureExt, TryStreamExt};
use glob::{MatchOptions, Pattern};
use object_store::{ObjectMeta, ObjectStore};
use trireme_exec::io::parquet_reader::forget_replaced;
use trireme_exec::io::{Access, PinnedStore, ResolvedLocation, StoreOptions, StoreRegistry};
use trireme_planner::ddl::{FileFormat, TableName};
use trireme_planner::redact::redacted;
use url::Url;

use crate::catalog::Catalog;
use crate::definitions::External;
use crate::describe::TableKind;
use crate::discover::{Found, FoundKind};
use crate::error::CatalogError;
use crate::fileset::{self, FileSet, Known};
use crate::formats::{FileKind, data_file};
use crate::listing::{self, FoundFile, Listing};
use crate::partitions::{self, PartitionColumn};
use crate::table::CatalogTable;

/// `*` stays within a folder's name, and hidden files are named in full or not at all.
const GLOB: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// Files that are tried one by one to name the damaged one.
const BLAMED_FILES_MAX: usize = 1000;

/// A set of files and how to read them.
struct FileTable<'a> {
    /// In whose store they are.
    url: Url,
    files: Vec<&'a FoundFile>,
    kind: FileKind,
    options: &'a BTreeMap<String, String>,
    declared: Option<SchemaRef>,
    partitions: Vec<PartitionColumn>,
    definition: Option<String>,
}

impl Catalog {
    pub(crate) fn discovered_listing(&self, found: &Found) -> Result<Listing, CatalogError> {
        let path = listing::checked(&self.locations, &found.path)?;
        match found.kind {
            FoundKind::File => Listing::of_file(&path),
            FoundKind::Folder => Listing::of_folder(&self.locations, &path),
            FoundKind::Delta => Listing::of_delta_log(&self.locations, &path),
        }
    }

    pub(crate) async fn discovered_table(
        &self,
        name: &TableName,
        found: &Found,
        listing: &Listing,
    ) -> Result<Arc<dyn TableProvider>, CatalogError> {
        let path = listing::checked(&self.locations, &found.path)?;
        let folder = found.kind == FoundKind::Folder;
        // A link's name may say another format than its target's; the name in the data folder counts.
        let named = found.path.file_name().unwrap_or_default().to_string_lossy();
        let kind = match data_file(&named) {
            Some((_, kind)) if !folder => FileKind {
                suffix: String::new(),
                ..kind
            },
            _ => listing.kind()?,
        };
        let partitions = if folder {
            partitions::infer(listing.files.iter().map(|file| file.path.as_str()))?
        } else {
            Vec::new()
        };
        let table = FileTable {
            url: file_url(&path, folder)?,
            files: listing.files.iter().collect(),
            kind,
            options: &BTreeMap::new(),
            declared: None,
            partitions,
            definition: None,
        };
        self.open_files(name, TableKind::Discovered, table).await
    }

    pub(crate) async fn external_listing(
        &self,
        name: &TableName,
        external: &External,
    ) -> Result<Listing, CatalogError> {
        let location = self.locations.resolve(&external.location, Access::Read)?;
        if external.format == FileFormat::Delta {
            return match &location.path {
                Some(path) => Listing::of_delta_log(&self.locations, path),
                None => self.external_delta_state(name, external).await.map(Listing::of_state),
            };
        }
        let (url, glob) = self.listing_url(&location, external)?;
        let store = self.session.runtime_env().object_store(&url)?;
        let objects: Vec<_> = url
            .list_all_files(self.session.as_ref(), store.as_ref(), "")
            .await?
            .try_collect()
            .await?;
        let below = |object: &object_store::path::Path| -> String {
            let parts: Vec<&str> = url.strip_prefix(object).into_iter().flatten().collect();
            if parts.is_empty() {
                object.filename().unwrap_or_default().to_owned()
            } else {
                parts.join("/")
            }
        };
        let objects = objects.into_iter().map(|object| (below(&object.location), object));
        let wanted = objects.filter(|(path, _)| glob.as_ref().is_none_or(|glob| glob.matches_with(path, GLOB)));
        Ok(Listing::from_objects(wanted))
    }

    pub(crate) async fn external_table(
        &self,
        name: &TableName,
        external: &External,
        listing: &Listing,
    ) -> Result<Arc<dyn TableProvider>, CatalogError> {
        if external.format == FileFormat::Delta {
            return self.external_delta(name, external).await;
        }
        let location = self.locations.resolve(&external.location, Access::Read)?;
        let declared = external
            .columns
            .as_ref()
            .map(crate::definitions::StoredSchema::decode)
            .transpose()?;
        let (files, kind) = files_of_format(
            external.format,
            listing,
            location.is_folder() && location.glob.is_none(),
        )?;
        if files.is_empty() && declared.is_none() {
            return Err(CatalogError::invalid_hint(
                format!(
                    "there are no files at {} to tell the columns of {name} from",
                    external.location
                ),
                "put files there first, or declare the columns",
            ));
        }
        let inferred = partitions::infer(files.iter().map(|file| file.path.as_str()))?;
        let (url, _) = self.listing_url(&location, external)?;
        let table = FileTable {
            url: url.get_url().clone(),
            files,
            kind,
            options: &external.options,
            partitions: declared_partitions(&external.partition_columns, inferred, declared.as_ref())?,
            declared,
            definition: Some(redacted(&external.sql).into_owned()),
        };
        self.open_files(name, TableKind::External, table).await
    }

    /// The folder or file of a location, and the pattern below it.
    fn listing_url(
        &self,
        location: &ResolvedLocation,
        external: &External,
    ) -> Result<(ListingTableUrl, Option<Pattern>), CatalogError> {
        let options = StoreOptions::from_options(location.url.scheme(), &external.options)?;
        let url = ListingTableUrl::try_new(self.stores.bind(&location.url, &options)?, None)?;
        let invalid = |error: glob::PatternError| {
            CatalogError::invalid(format!("the pattern of {} is not valid: {error}", external.location))
        };
        let glob = location
            .glob
            .as_deref()
            .map(Pattern::new)
            .transpose()
            .map_err(invalid)?;
        Ok((url, glob))
    }

    async fn open_files(
        &self,
        name: &TableName,
        kind: TableKind,
        table: FileTable<'_>,
    ) -> Result<Arc<dyn TableProvider>, CatalogError> {
        let reader = table.kind.reader(&self.session, table.options)?;
        let found: Vec<&FoundFile> = table.files.into_iter().filter(|file| file.meta.size > 0).collect();
        let metas: Vec<ObjectMeta> = found.iter().map(|file| file.meta.clone()).collect();
        let whole = match table.declared {
            Some(schema) => schema,
            None => self.infer(&table.url, &reader, metas).await?,
        };
        let mut files = Vec::with_capacity(found.len());
        let mut null = vec![false; table.partitions.len()];
        for file in found {
            let values = partitions::values(&file.path, &table.partitions)?;
            null.iter_mut()
                .zip(&values)
                .for_each(|(null, value)| *null |= value.is_null());
            files.push(PartitionedFile::new_from_meta(file.meta.clone()).with_partition_values(values));
        }
        let fields = table.partitions.iter().zip(null);
        let fields = fields.map(|(column, null)| Arc::new(Field::new(&column.name, column.data_type.clone(), null)));
        let columns = TableSchemaBuilder::new(without(&whole, &table.partitions))
            .with_table_partition_cols(fields.collect::<Vec<_>>())
            .build();
        let (schema, positions) = fileset::columns_in_order(&columns);
        let provider = FileSet {
            store: table.url,
            stores: Arc::clone(&self.stores),
            files,
            table: columns,
            schema,
            positions,
            reader,
            known: match table.kind.format {
                FileFormat::Parquet => Known::Footers,
                _ => Known::Nothing,
            },
            definition: table.definition,
        };
        Ok(Arc::new(CatalogTable::files(self, name, kind, Arc::new(provider))))
    }

    /// The columns of all files together.
    async fn infer(
        &self,
        url: &Url,
        reader: &Arc<dyn Reader>,
        objects: Vec<ObjectMeta>,
    ) -> Result<SchemaRef, CatalogError> {
        let store = self.session.runtime_env().object_store_registry.get_store(url)?;
        let lake = self.stores.lake().store(&StoreRegistry::key(url));
        let footers = self.session.runtime_env().cache_manager.get_file_metadata_cache();
        objects.iter().for_each(|object| forget_replaced(&footers, object));
        // Of a stream of bytes the Arrow reader understands only files without padding: it gets the file itself, whose version
        // is checked when it is scanned.
        let store = match reader.get_ext() == "arrow" && url.scheme() == "file" {
            true => store,
            false => Arc::new(PinnedStore::new(store, lake, objects.iter())) as Arc<dyn ObjectStore>,
        };
        let whole = self.infer_files(reader, &store, &objects).await;
        let Err(error) = whole else { return whole };
        // The readers' own errors often don't name the file.
        for object in objects.into_iter().take(BLAMED_FILES_MAX) {
            let file = self.shown(&object.location);
            if let Err(cause) = self.infer_files(reader, &store, &[object]).await {
                return Err(CatalogError::Corrupt {
                    file,
                    reason: cause.to_string(),
                });
            }
        }
        Err(error)
    }

    /// A reader may panic over a damaged file; that must cost the statement only.
    async fn infer_files(
        &self,
        reader: &Arc<dyn Reader>,
        store: &Arc<dyn ObjectStore>,
        files: &[ObjectMeta],
    ) -> Result<SchemaRef, CatalogError> {
        let inference = reader.infer_schema(self.session.as_ref(), store, files);
        match AssertUnwindSafe(inference).catch_unwind().await {
            Ok(Ok(schema)) => Ok(one_time_of_day(schema)),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(CatalogError::invalid("the reader can't make sense of it")),
        }
    }

    /// A local object's path relative to the data folder, where it is in it.
    fn shown(&self, object: &object_store::path::Path) -> String {
        let absolute = Path::new("/").join(object.as_ref());
        absolute
            .strip_prefix(self.data_dir())
            .map_or_else(|_| object.to_string(), |inside| inside.display().to_string())
    }
}

/// The columns with times of day in nanoseconds, as TIME is everywhere else: DataFusion compares no two units.
fn one_time_of_day(schema: SchemaRef) -> SchemaRef {
    let other =
        |data_type: &DataType| matches!(data_type, DataType::Time32(_) | DataType::Time64(TimeUnit::Microsecond));
    if !schema.fields().iter().any(|field| other(field.data_type())) {
        return schema;
    }
    let field = |field: &FieldRef| {
        if other(field.data_type()) {
            let time = DataType::Time64(TimeUnit::Nanosecond);
            return Arc::new(field.as_ref().clone().with_data_type(time));
        }
        Arc::clone(field)
    };
    let fields: Vec<FieldRef> = schema.fields().iter().map(field).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

pub(crate) fn file_url(path: &Path, folder: bool) -> Result<Url, CatalogError> {
    let url = if folder {
        Url::from_directory_path(path)
    } else {
        Url::from_file_path(path)
    };
    url.map_err(|()| CatalogError::invalid(format!("the path {} can't be written as a URL", path.display())))
}

/// The files of an external table. In a folder those with other names than the format's are left out, unless none has one.
fn files_of_format(
    format: FileFormat,
    listing: &Listing,
    folder: bool,
) -> Result<(Vec<&FoundFile>, FileKind), CatalogError> {
    let all: Vec<&FoundFile> = listing.files.iter().collect();
    let kind_of = |path: &str| data_file(path.rsplit('/').next().unwrap_or(path)).map(|(_, kind)| kind);
    let mut kinds: Vec<FileKind> = all
        .iter()
        .filter_map(|file| kind_of(&file.path))
        .filter(|kind| kind.format == format)
        .collect();
    kinds.dedup();
    let Some(first) = kinds.first() else {
        return Ok((all, FileKind::declared(format, None, String::new())));
    };
    if let Some(other) = kinds.iter().find(|kind| {
        if folder {
            *kind != first
        } else {
            kind.compression != first.compression
        }
    }) {
        return Err(CatalogError::invalid_hint(
            format!("the files end both in {} and in {}", first.suffix, other.suffix),
            "use one ending per table, or a pattern that selects one",
        ));
    }
    if !folder {
        return Ok((all, FileKind::declared(format, Some(first), String::new())));
    }
    let suffix = first.suffix.clone();
    Ok((
        all.into_iter().filter(|file| file.path.ends_with(&suffix)).collect(),
        FileKind::declared(format, Some(first), suffix),
    ))
}

/// The declared partition columns, typed by their declaration, else by their values; without a declaration, the folders'.
fn declared_partitions(
    names: &[String],
    inferred: Vec<PartitionColumn>,
    declared: Option<&SchemaRef>,
) -> Result<Vec<PartitionColumn>, CatalogError> {
    if names.is_empty() {
        return Ok(inferred);
    }
    let found: Vec<&str> = inferred.iter().map(|column| column.name.as_str()).collect();
    if !inferred.is_empty() && !found.starts_with(&names.iter().map(String::as_str).collect::<Vec<_>>()) {
        return Err(CatalogError::invalid(format!(
            "the folders are partitioned by {}, not by {}",
            found.join(", "),
            names.join(", ")
        )));
    }
    let typed = names.iter().enumerate().map(|(index, name)| {
        let declared_type = declared
            .and_then(|schema| schema.field_with_name(name).ok())
            .map(|field| field.data_type().clone());
        let seen = inferred.get(index);
        let data_type = declared_type
            .or_else(|| seen.map(|column| column.data_type.clone()))
            .unwrap_or(DataType::Utf8);
        PartitionColumn {
            name: name.clone(),
            data_type,
        }
    });
    Ok(typed.collect())
}

/// Columns that come from folders are not read from the files as well.
fn without(schema: &SchemaRef, partitions: &[PartitionColumn]) -> SchemaRef {
    let kept: Vec<_> = schema
        .fields()
        .iter()
        .filter(|field| !partitions.iter().any(|column| column.name == *field.name()))
        .cloned()
        .collect();
    Arc::new(Schema::new_with_metadata(kept, schema.metadata().clone()))
}
