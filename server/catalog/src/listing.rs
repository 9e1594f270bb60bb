//! A table's files as they are now: one walk that gives the list, what kind of files they are, and a signature that
//! changes when any of them does.

use std::fs::Metadata;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use object_store::ObjectMeta;
use serde::{Deserialize, Serialize};
use trireme_exec::io::Locations;

use crate::error::CatalogError;
use crate::formats::{FileKind, data_file};

/// Folders below folders that a table's files may be in.
const DEPTH_MAX: usize = 32;

/// What tells two states of a set of files apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signature {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Over every path, size and modification time.
    hash: u64,
}

/// One data file.
#[derive(Debug, Clone)]
pub(crate) struct FoundFile {
    /// Relative to the table's folder; the file's name when the table is one file.
    pub(crate) path: String,
    /// As its store describes it.
    pub(crate) meta: ObjectMeta,
}

/// All data files of one table.
#[derive(Debug, Clone)]
pub(crate) struct Listing {
    pub(crate) files: Vec<FoundFile>,
    pub(crate) signature: Signature,
}

impl Listing {
    fn new(mut files: Vec<FoundFile>) -> Self {
        files.sort_by(|left, right| left.path.cmp(&right.path));
        let mut hasher = DefaultHasher::new();
        for FoundFile { path, meta } in &files {
            let modified_ns = meta.last_modified.timestamp_nanos_opt().unwrap_or_default();
            (path, meta.size, u128::from(modified_ns.unsigned_abs())).hash(&mut hasher);
            if let Some(tag) = &meta.e_tag {
                tag.hash(&mut hasher);
            }
        }
        let bytes = files.iter().map(|file| file.meta.size).sum();
        Self {
            signature: Signature {
                files: files.len() as u64,
                bytes,
                hash: hasher.finish(),
            },
            files,
        }
    }

    /// From what an object store listed: the path below the table's folder, and the object.
    pub(crate) fn from_objects(objects: impl Iterator<Item = (String, ObjectMeta)>) -> Self {
        Self::new(objects.map(|(path, meta)| FoundFile { path, meta }).collect())
    }

    /// Of a table whose files only its log knows: the log's state.
    pub(crate) fn of_state(state: ObjectMeta) -> Self {
        Self::from_objects(std::iter::once((String::new(), state)))
    }

    /// A table of one file.
    pub(crate) fn of_file(path: &Path) -> Result<Self, CatalogError> {
        let metadata = std::fs::metadata(path).map_err(CatalogError::io(path))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self::new(vec![found(path, name, &metadata)?]))
    }

    /// A table of all data files below a folder.
    pub(crate) fn of_folder(locations: &Locations, folder: &Path) -> Result<Self, CatalogError> {
        let mut files = Vec::new();
        walk(locations, folder, "", 0, &|name| data_file(name).is_some(), &mut files)?;
        Ok(Self::new(files))
    }

    /// The state of a Delta table: its log's newest entries are its only truth.
    pub(crate) fn of_delta_log(locations: &Locations, folder: &Path) -> Result<Self, CatalogError> {
        let mut files = Vec::new();
        walk(
            locations,
            &folder.join(DELTA_LOG),
            "",
            DEPTH_MAX - 1,
            &|_| true,
            &mut files,
        )?;
        Ok(Self::new(files))
    }

    /// The one kind of all files; files of two kinds can't be one table.
    pub(crate) fn kind(&self) -> Result<FileKind, CatalogError> {
        if self.files.iter().any(|file| is_iceberg(&file.path)) {
            return Err(CatalogError::invalid_hint(
                trireme_planner::ddl_sql::ICEBERG,
                "CREATE EXTERNAL TABLE … STORED AS PARQUET reads the files below it, deleted rows and all",
            ));
        }
        let mut first: Option<(&str, FileKind)> = None;
        for file in &self.files {
            let name = file.path.rsplit('/').next().unwrap_or(&file.path);
            let Some((_, kind)) = data_file(name) else { continue };
            match &first {
                None => first = Some((&file.path, kind)),
                Some((_, known)) if *known == kind => {}
                Some((other, _)) => {
                    return Err(CatalogError::invalid_hint(
                        format!("the folder holds files of different formats: {other} and {}", file.path),
                        "keep one format per folder",
                    ));
                }
            }
        }
        first
            .map(|(_, kind)| kind)
            .ok_or_else(|| CatalogError::invalid("the folder holds no data files"))
    }
}

/// Only an Iceberg table has such files.
pub(crate) fn is_iceberg(path: &str) -> bool {
    path.starts_with("metadata/") && path.ends_with(".metadata.json")
}

/// The folder that makes a folder a Delta table.
pub(crate) const DELTA_LOG: &str = "_delta_log";

fn found(file: &Path, path: String, metadata: &Metadata) -> Result<FoundFile, CatalogError> {
    let location = object_store::path::Path::from_absolute_path(file)
        .map_err(|error| CatalogError::invalid(format!("the name {} can't be used: {error}", file.display())))?;
    let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
    let meta = ObjectMeta {
        location,
        last_modified: modified.into(),
        size: metadata.len(),
        e_tag: None,
        version: None,
    };
    Ok(FoundFile { path, meta })
}

/// Names that writers use for what is not data.
pub(crate) fn is_hidden(name: &str) -> bool {
    name.starts_with(['.', '_'])
}

fn walk(
    locations: &Locations,
    folder: &Path,
    prefix: &str,
    depth: usize,
    wanted: &dyn Fn(&str) -> bool,
    files: &mut Vec<FoundFile>,
) -> Result<(), CatalogError> {
    for entry in std::fs::read_dir(folder).map_err(CatalogError::io(folder))? {
        let entry = entry.map_err(CatalogError::io(folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_hidden(&name) {
            continue;
        }
        let path = entry.path();
        // A file that vanished between the listing and this is simply not there.
        let Some(metadata) = followed(locations, &entry)? else {
            continue;
        };
        let relative = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}/{name}")
        };
        if metadata.is_dir() && depth < DEPTH_MAX {
            walk(locations, &path, &relative, depth + 1, wanted, files)?;
        } else if metadata.is_file() && wanted(&name) {
            files.push(found(&path, relative, &metadata)?);
        }
    }
    Ok(())
}

/// Metadata behind symbolic links; a link out of the allow-list is an error, because silence would look like missing rows.
fn followed(locations: &Locations, entry: &std::fs::DirEntry) -> Result<Option<Metadata>, CatalogError> {
    let path = entry.path();
    if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
        let Ok(target) = std::fs::canonicalize(&path) else {
            return Ok(None);
        };
        locations.check_path(&target, &path.display().to_string())?;
    }
    Ok(std::fs::metadata(&path).ok())
}

/// The canonical path of a discovered entry, refused when a link leads out of the allow-list.
pub(crate) fn checked(locations: &Locations, path: &Path) -> Result<PathBuf, CatalogError> {
    let target = std::fs::canonicalize(path).map_err(CatalogError::io(path))?;
    locations.check_path(&target, &path.display().to_string())?;
    Ok(target)
}
