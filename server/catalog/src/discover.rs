//! Tables without DDL: which files and folders of the data folder are tables, and which folders are schemas.
//!
//! | in the data folder                                   | is                          |
//! | ---------------------------------------------------- | --------------------------- |
//! | `orders.parquet`, `orders.csv.gz`                    | `public.orders`             |
//! | `events/` with data files or `key=value` folders     | `public.events`             |
//! | `events/` with `_delta_log`                          | `public.events` (Delta)     |
//! | `sales/` with only folders                           | schema `sales`              |
//! | `public/`                                            | more of schema `public`     |
//!
//! Only names are looked at here, and a folder only until its first data file; a table's own files are listed when it is
//! used. Hidden names (`.` or `_` first) are never tables.

use std::fs::DirEntry;
use std::path::{Path, PathBuf};

use crate::catalog::DEFAULT_SCHEMA;
use crate::formats::data_file;
use crate::listing::{DELTA_LOG, is_hidden, is_iceberg};

/// Folders that are looked into for a first data file.
const DEPTH_MAX: usize = 8;

/// A discovered table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The file's stem or the folder's name, as written.
    pub(crate) name: String,
    /// File or folder.
    pub(crate) path: PathBuf,
    pub(crate) kind: FoundKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FoundKind {
    File,
    Folder,
    Delta,
}

/// A discovered name: one entry, or several that clash.
#[derive(Debug, Clone)]
pub(crate) enum Lookup {
    None,
    One(Found),
    Clash(Vec<Found>),
}

/// An entry of a folder.
#[derive(Debug)]
pub(crate) struct Seen {
    name: String,
    path: PathBuf,
    folder: bool,
}

enum Class {
    Table(FoundKind),
    Schema,
    Nothing,
}

/// Names of the folders that are schemas, without the default one.
pub(crate) fn schemas(data: &Path) -> Vec<String> {
    let mut names: Vec<String> = entries(data)
        .into_iter()
        .filter(|seen| seen.folder && seen.name != DEFAULT_SCHEMA && matches!(classify(&seen.path), Class::Schema))
        .map(|seen| seen.name)
        .collect();
    names.sort();
    names
}

/// The folder schema of this name; an unquoted name finds any spelling.
pub(crate) fn schema_folder(data: &Path, schema: &str) -> Option<PathBuf> {
    schema_among(&entries(data), schema)
}

fn schema_among(data: &[Seen], schema: &str) -> Option<PathBuf> {
    let folded = is_folded(schema);
    let spelled = |name: &str| name == schema || (folded && name.to_lowercase() == schema);
    let mut matching: Vec<&Seen> = data.iter().filter(|seen| seen.folder && spelled(&seen.name)).collect();
    matching.sort_by_key(|seen| seen.name != schema);
    let path = &matching.first()?.path;
    (schema == DEFAULT_SCHEMA || matches!(classify(path), Class::Schema)).then(|| path.clone())
}

/// All tables of a schema, by name; clashing ones are all in the list.
pub(crate) fn tables(data: &Path, schema: &str) -> Vec<Found> {
    let data = entries(data);
    let mut found = Vec::new();
    if schema == DEFAULT_SCHEMA {
        found.extend(tables_in(&data, true, |_| true));
    }
    if let Some(folder) = schema_among(&data, schema) {
        found.extend(tables_in(&entries(&folder), false, |_| true));
    }
    found.sort_by(|left, right| (&left.name, &left.path).cmp(&(&right.name, &right.path)));
    found
}

/// The table of this name, by the entries of the data folder. A quoted name finds its exact spelling; an unquoted one, which
/// arrives in lower case, any.
pub(crate) fn lookup(data: &[Seen], schema: &str, table: &str) -> Lookup {
    let folded = is_folded(table);
    let wanted = |name: &str| name == table || (folded && name.to_lowercase() == table);
    let mut found = Vec::new();
    if schema == DEFAULT_SCHEMA {
        found.extend(tables_in(data, true, wanted));
    }
    if let Some(folder) = schema_among(data, schema) {
        found.extend(tables_in(&entries(&folder), false, wanted));
    }
    if found.iter().any(|entry| entry.name == table) {
        found.retain(|entry| entry.name == table);
    }
    found.sort_by(|left, right| left.path.cmp(&right.path));
    match found.len() {
        0 => Lookup::None,
        1 => found.pop().map_or(Lookup::None, Lookup::One),
        _ => Lookup::Clash(found),
    }
}

fn is_folded(name: &str) -> bool {
    name.to_lowercase() == name
}

/// Tables among a folder's entries. In the data folder itself, folders of folders are schemas; deeper they are tables.
fn tables_in(folder: &[Seen], schemas_below: bool, wanted: impl Fn(&str) -> bool) -> Vec<Found> {
    let mut found = Vec::new();
    for Seen { name, path, folder } in folder {
        let mut add = |name: &str, kind| {
            found.push(Found {
                name: name.to_owned(),
                path: path.clone(),
                kind,
            });
        };
        if *folder {
            if !wanted(name) || (schemas_below && name == DEFAULT_SCHEMA) {
                continue;
            }
            match classify(path) {
                Class::Table(kind) => add(name, kind),
                Class::Schema if !schemas_below => add(name, FoundKind::Folder),
                Class::Schema | Class::Nothing => {}
            }
        } else if let Some((stem, _)) = data_file(name).filter(|(stem, _)| wanted(stem)) {
            add(stem, FoundKind::File);
        }
    }
    found
}

fn classify(folder: &Path) -> Class {
    if folder.join(DELTA_LOG).is_dir() {
        return Class::Table(FoundKind::Delta);
    }
    // A table as well, so that whoever names it is told that it can't be read.
    let iceberg = |entry: DirEntry| is_iceberg(&format!("metadata/{}", entry.file_name().to_string_lossy()));
    if visible(&folder.join("metadata")).any(iceberg) {
        return Class::Table(FoundKind::Folder);
    }
    let mut below = Vec::new();
    for entry in visible(folder) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        if !is_folder(&entry) {
            if data_file(&name).is_some() {
                return Class::Table(FoundKind::Folder);
            }
        } else if name.contains('=') {
            return Class::Table(FoundKind::Folder);
        } else {
            below.push(path);
        }
    }
    if below.iter().any(|path| has_data(path, 1)) {
        Class::Schema
    } else {
        Class::Nothing
    }
}

fn has_data(folder: &Path, depth: usize) -> bool {
    if folder.join(DELTA_LOG).is_dir() {
        return true;
    }
    let mut below = Vec::new();
    for entry in visible(folder) {
        let path = entry.path();
        if is_folder(&entry) {
            below.push(path);
        } else if data_file(&entry.file_name().to_string_lossy()).is_some() {
            return true;
        }
    }
    depth < DEPTH_MAX && below.iter().any(|path| has_data(path, depth + 1))
}

/// What is in a folder now.
pub(crate) fn entries(folder: &Path) -> Vec<Seen> {
    let seen = |entry: DirEntry| Seen {
        name: entry.file_name().to_string_lossy().into_owned(),
        path: entry.path(),
        folder: is_folder(&entry),
    };
    visible(folder).map(seen).collect()
}

/// Asks the file system again for symbolic links only: a lookup passes every entry of the data folder.
fn is_folder(entry: &DirEntry) -> bool {
    match entry.file_type() {
        Ok(kind) if kind.is_symlink() => entry.path().is_dir(),
        Ok(kind) => kind.is_dir(),
        Err(_) => false,
    }
}

/// A folder that can't be read has no tables; using a table in it by name says why.
fn visible(folder: &Path) -> impl Iterator<Item = DirEntry> + use<> {
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| !is_hidden(&entry.file_name().to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(files: &[&str]) -> tempfile::TempDir {
        let data = tempfile::tempdir().unwrap();
        for file in files {
            let path = data.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x\n1\n").unwrap();
        }
        data
    }

    fn names(data: &Path, schema: &str) -> Vec<String> {
        tables(data, schema).into_iter().map(|found| found.name).collect()
    }

    #[test]
    fn files_folders_and_schemas() {
        let data = data(&[
            "Orders.csv",
            "events/a.json",
            "hive/y=1/m=2/a.csv",
            "lake/_delta_log/0.json",
            "sales/items/a.csv",
            "sales/deep/2024/01/a.csv",
            "public/extra.csv",
            "empty/readme.txt",
            ".trireme/tables/x/a.csv",
            "_tmp/a.csv",
            ".hidden.csv",
            "notes.txt",
        ]);
        assert_eq!(
            names(data.path(), "public"),
            ["Orders", "events", "extra", "hive", "lake"]
        );
        assert_eq!(schemas(data.path()), ["sales"]);
        assert_eq!(names(data.path(), "sales"), ["deep", "items"]);
        assert!(matches!(
            lookup(&entries(data.path()), "public", "orders"),
            Lookup::One(_)
        ));
        assert!(matches!(
            lookup(&entries(data.path()), "public", "Orders"),
            Lookup::One(_)
        ));
        assert!(matches!(
            lookup(&entries(data.path()), "public", "oRDERS"),
            Lookup::None
        ));
        assert!(matches!(
            lookup(&entries(data.path()), "public", "lake"),
            Lookup::One(Found {
                kind: FoundKind::Delta,
                ..
            })
        ));
        assert!(matches!(lookup(&entries(data.path()), "sales", "deep"), Lookup::One(_)));
    }

    #[test]
    fn one_name_for_two_files_clashes() {
        let data = data(&["a.csv", "a.json", "B.csv", "b.csv"]);
        assert!(matches!(lookup(&entries(data.path()), "public", "a"), Lookup::Clash(_)));
        assert!(matches!(lookup(&entries(data.path()), "public", "b"), Lookup::One(_)));
        assert!(matches!(lookup(&entries(data.path()), "public", "B"), Lookup::One(_)));
    }
}
