//! A table's files as they are now: one walk that gives the list, what kind of files they are, and a signature that
//! changes when any of them does.

use std::fs::Metadata;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FoundFile {
    /// Relative to the table's folder; the file's name when the table is one file.
    pub(crate) path: String,
    size_bytes: u64,
    modified_ns: u128,
}

/// All data files of one table.
#[derive(Debug, Clone)]
pub(crate) struct Listing {
    pub(crate) files: Vec<FoundFile>,
    pub(crate) signature: Signature,
}

impl Listing {
    fn new(mut files: Vec<FoundFile>) -> Self {
        files.sort();
        let mut hasher = DefaultHasher::new();
        files
            .iter()
            .for_each(|file| (&file.path, file.size_bytes, file.modified_ns).hash(&mut hasher));
        let bytes = files.iter().map(|file| file.size_bytes).sum();
        Self {
            signature: Signature {
                files: files.len() as u64,
                bytes,
                hash: hasher.finish(),
            },
            files,
        }
    }

    /// From what an object store listed: path, size, and a number that changes with the object.
    pub(crate) fn from_objects(objects: impl Iterator<Item = (String, u64, u128)>) -> Self {
        Self::new(
            objects
                .map(|(path, size_bytes, modified_ns)| FoundFile {
                    path,
                    size_bytes,
                    modified_ns,
                })
                .collect(),
        )
    }

    /// A table of one file.
    pub(crate) fn of_file(path: &Path) -> Result<Self, CatalogError> {
        let metadata = std::fs::metadata(path).map_err(CatalogError::io(path))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self::new(vec![found(name, &metadata)]))
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

/// The folder that makes a folder a Delta table.
pub(crate) const DELTA_LOG: &str = "_delta_log";

fn found(path: String, metadata: &Metadata) -> FoundFile {
    let modified = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    FoundFile {
        path,
        size_bytes: metadata.len(),
        modified_ns: modified.map_or(0, |time| time.as_nanos()),
    }
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
            files.push(found(relative, &metadata));
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
