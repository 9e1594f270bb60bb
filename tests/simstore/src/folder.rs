//! A folder of local files as a bucket: read-only, and looked at again whenever it is asked.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::path::{Component, Path};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::content::Content;
use crate::draw::mix;
use crate::model::Object;

type Objects = BTreeMap<String, Arc<Object>>;

/// Brings one key up to date.
pub(crate) fn refresh(folder: &Path, key: &str, objects: &mut Objects) {
    // Nothing outside of the folder.
    if Path::new(key)
        .components()
        .any(|part| !matches!(part, Component::Normal(_)))
    {
        return;
    }
    let path = folder.join(key);
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => keep(&path, key, &metadata, objects),
        _ => {
            objects.remove(key);
        }
    }
}

/// Brings all keys up to date.
pub(crate) fn refresh_all(folder: &Path, objects: &mut Objects) {
    let mut found = Objects::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(each) = folders.pop() {
        for entry in std::fs::read_dir(&each).into_iter().flatten().flatten() {
            let path = entry.path();
            // Follows links: data folders are often made of them.
            let Ok(metadata) = std::fs::metadata(&path) else {
                continue;
            };
            if metadata.is_dir() {
                folders.push(path);
            } else if let Some(key) = path.strip_prefix(folder).ok().and_then(Path::to_str) {
                keep(&path, key, &metadata, objects);
                if let Some(object) = objects.get(key) {
                    found.insert(key.to_owned(), Arc::clone(object));
                }
            }
        }
    }
    *objects = found;
}

/// A file that has not changed stays the object that it is.
fn keep(path: &Path, key: &str, metadata: &Metadata, objects: &mut Objects) {
    let modified: DateTime<Utc> = metadata.modified().map_or_else(|_| Utc::now(), DateTime::from);
    let size = metadata.len();
    if objects
        .get(key)
        .is_some_and(|old| old.modified == modified && old.content.size() == size)
    {
        return;
    }
    let Ok(file) = File::open(path) else {
        objects.remove(key);
        return;
    };
    let stamp = mix(modified.timestamp_micros().unsigned_abs() ^ mix(size));
    let object = Object {
        content: Content::File {
            file: Arc::new(file),
            size,
        },
        e_tag: format!("{stamp:016x}{size:016x}"),
        generation: stamp >> 1,
        modified,
        attributes: Vec::new(),
        blocks: Vec::new(),
    };
    objects.insert(key.to_owned(), Arc::new(object));
}
