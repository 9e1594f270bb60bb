//! The server's private folder: its lock, its format version, and how files in it are replaced whole.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use trireme_exec::io::locations::{MANAGED_FOLDER, PRIVATE_FOLDER};

use crate::definitions::Definitions;
use crate::error::CatalogError;

/// The layout that this server writes, and the newest that it reads.
pub const FORMAT_VERSION: u64 = 1;

const FORMAT_FILE: &str = "format.json";
const CATALOG_FILE: &str = "catalog.json";
const LOCK_FILE: &str = "lock";
const STATISTICS_FOLDER: &str = "statistics";

#[derive(Serialize, Deserialize)]
struct Format {
    format_version: u64,
}

/// An opened, locked private folder; dropping it gives the lock back.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    _lock: File,
}

impl Folder {
    /// Locks the folder, checks its version, loads the definitions and removes what a crash left.
    pub(crate) fn open(data_dir: &Path) -> Result<(Self, Definitions), CatalogError> {
        let root = data_dir.join(PRIVATE_FOLDER);
        create_private_dir(&root)?;
        let lock = lock(data_dir, &root.join(LOCK_FILE))?;
        let folder = Self { root, _lock: lock };
        folder.check_format()?;
        for name in [MANAGED_FOLDER, STATISTICS_FOLDER] {
            create_private_dir(&folder.root.join(name))?;
        }
        let definitions: Definitions = read_json(&folder.root.join(CATALOG_FILE))?.unwrap_or_default();
        folder.remove_orphans(&definitions);
        Ok((folder, definitions))
    }

    /// Replaces the stored definitions; after a crash the file is the old one or the new one.
    pub(crate) fn commit(&self, definitions: &Definitions) -> Result<(), CatalogError> {
        write_json(&self.root.join(CATALOG_FILE), definitions)
    }

    /// Where a managed table's files are.
    pub(crate) fn table(&self, folder: &str) -> PathBuf {
        self.root.join(MANAGED_FOLDER).join(folder)
    }

    /// Where secrets are kept.
    pub(crate) fn secrets_file(&self) -> PathBuf {
        self.root.join("secrets.json")
    }

    pub(crate) fn statistics_file(&self) -> PathBuf {
        self.root.join(STATISTICS_FOLDER).join("tables.json")
    }

    /// The sample of a table's files in a version.
    pub(crate) fn sample_file(&self, version: u64) -> PathBuf {
        let name = format!("{version:016x}{SAMPLE_SUFFIX}");
        self.root.join(STATISTICS_FOLDER).join(name)
    }

    /// Removes all samples but these. Failing to costs only space.
    pub(crate) fn keep_samples(&self, versions: &HashSet<u64>) {
        for entry in entries(&self.root.join(STATISTICS_FOLDER)) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let version = name.strip_suffix(SAMPLE_SUFFIX);
            let version = version.and_then(|version| u64::from_str_radix(version, 16).ok());
            if version.is_some_and(|version| !versions.contains(&version)) {
                report(&entry.path(), fs::remove_file(entry.path()));
            }
        }
    }

    fn check_format(&self) -> Result<(), CatalogError> {
        let path = self.root.join(FORMAT_FILE);
        match read_json::<Format>(&path)? {
            Some(Format { format_version }) if format_version > FORMAT_VERSION => Err(CatalogError::FormatVersion {
                found: format_version,
                supported: FORMAT_VERSION,
            }),
            Some(_) => Ok(()),
            None => write_json(
                &path,
                &Format {
                    format_version: FORMAT_VERSION,
                },
            ),
        }
    }

    /// Tables that no definition names were being written, or dropped, when the server died. Failing to remove them
    /// costs only space.
    fn remove_orphans(&self, definitions: &Definitions) {
        let known = definitions.managed_folders();
        for entry in entries(&self.root.join(MANAGED_FOLDER)) {
            if !known.contains(&entry.file_name().to_string_lossy().into_owned()) {
                report(&entry.path(), fs::remove_dir_all(entry.path()));
            }
        }
        for entry in entries(&self.root).chain(entries(&self.root.join(STATISTICS_FOLDER))) {
            if entry.file_name().to_string_lossy().ends_with(TEMPORARY_SUFFIX) {
                report(&entry.path(), fs::remove_file(entry.path()));
            }
        }
    }
}

const TEMPORARY_SUFFIX: &str = ".new";
const SAMPLE_SUFFIX: &str = ".arrow";

/// Reads a file of ours; `None` when there is none.
pub(crate) fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, CatalogError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(CatalogError::io(path)(error)),
    };
    let broken = |error: serde_json::Error| CatalogError::Corrupt {
        file: path.display().to_string(),
        reason: error.to_string(),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(broken)
}

/// Replaces a file of ours: new file, fsync, rename, fsync of the folder.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), CatalogError> {
    let temporary = path.with_extension(format!("json{TEMPORARY_SUFFIX}"));
    let bytes = serde_json::to_vec_pretty(value).map_err(|error| CatalogError::invalid(error.to_string()))?;
    let write = || -> std::io::Result<()> {
        let mut file = private_file(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        match path.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(CatalogError::io(path))
}

fn lock(data_dir: &Path, path: &Path) -> Result<File, CatalogError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(CatalogError::io(path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(CatalogError::Locked {
            folder: data_dir.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(CatalogError::io(path)(error)),
    }
}

fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn create_private_dir(path: &Path) -> Result<(), CatalogError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(CatalogError::io(path))
}

fn entries(folder: &Path) -> impl Iterator<Item = fs::DirEntry> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten()
}

fn report(path: &Path, removed: std::io::Result<()>) {
    match removed {
        Ok(()) => tracing::info!(path = %path.display(), "removed what an interrupted statement left"),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "an interrupted statement's rest can't be removed")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_version_is_refused_with_both_numbers() {
        let data = tempfile::tempdir().unwrap();
        drop(Folder::open(data.path()).unwrap());
        fs::write(data.path().join(".trireme/format.json"), r#"{"format_version":7}"#).unwrap();
        let error = Folder::open(data.path()).unwrap_err().to_string();
        assert!(
            error.contains('7') && error.contains(&FORMAT_VERSION.to_string()),
            "{error}"
        );
    }

    #[test]
    fn one_server_at_a_time() {
        let data = tempfile::tempdir().unwrap();
        let first = Folder::open(data.path()).unwrap();
        assert!(matches!(Folder::open(data.path()), Err(CatalogError::Locked { .. })));
        drop(first);
        assert!(Folder::open(data.path()).is_ok());
    }

    #[test]
    fn a_crash_leaves_the_old_definitions_and_its_rest_is_removed() {
        let data = tempfile::tempdir().unwrap();
        let (folder, mut definitions) = Folder::open(data.path()).unwrap();
        definitions.schemas.insert("sales".to_owned());
        folder.commit(&definitions).unwrap();
        drop(folder);
        let private = data.path().join(".trireme");
        fs::write(private.join("catalog.json.new"), r#"{"schemas":["sa"#).unwrap();
        fs::create_dir_all(private.join("tables/half/_delta_log")).unwrap();
        let (_folder, definitions) = Folder::open(data.path()).unwrap();
        assert!(definitions.schemas.contains("sales"));
        assert!(!private.join("catalog.json.new").exists());
        assert!(!private.join("tables/half").exists());
    }
}
