//! Files of dropped tables stay while a statement that may read them runs or waits to be fetched.
//!
//! ```text
//!  statements ─▶ Age 0 ─next─▶ Age 1 ─next─▶ Age 2 ◀─ statements from now on
//!                 │ folders      │ folders
//!                 └ removed once nobody holds this age or an older one
//! ```
//!
//! A drop leaves its folder to the present age and begins the next one. A statement holds the age that it began in, and an
//! age holds the next: it ends when all statements that began before its end have ended.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::catalog::Catalog;

impl Catalog {
    /// For a statement that is about to be planned.
    pub fn reading(&self) -> Reading {
        self.leases.reading()
    }
}

/// Held from before a statement is planned until its last row is there: no file that it may read is removed meanwhile.
#[derive(Debug, Clone)]
pub struct Reading {
    _age: Arc<Age>,
}

/// The present age.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    now: Mutex<Arc<Age>>,
}

impl Leases {
    pub(crate) fn reading(&self) -> Reading {
        Reading {
            _age: Arc::clone(&self.now.lock()),
        }
    }

    /// Removes the folder of a dropped table as soon as nobody can be reading it, which may be at once.
    pub(crate) fn remove(&self, folder: PathBuf) {
        let next = Arc::default();
        let over = std::mem::replace(&mut *self.now.lock(), Arc::clone(&next));
        // It is no longer the present one: nobody else ends it.
        let _ = over.end.set(End { folder, next });
    }
}

#[derive(Debug, Default)]
struct Age {
    end: OnceLock<End>,
}

/// What ended an age, and the age after it.
#[derive(Debug)]
struct End {
    folder: PathBuf,
    next: Arc<Age>,
}

impl Drop for Age {
    /// A loop: as many ages may end with one statement as there were drops while it ran.
    fn drop(&mut self) {
        let mut end = self.end.take();
        while let Some(End { folder, next }) = end {
            remove(&folder);
            end = Arc::into_inner(next).and_then(|mut age| age.end.take());
        }
    }
}

/// The next start removes what can't be removed now.
fn remove(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder) {
        tracing::warn!(path = %folder.display(), %error, "a dropped table's files can't be removed; the next start will try again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(at: &Path, name: &str) -> PathBuf {
        let path = at.join(name);
        std::fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn a_folder_goes_with_the_last_statement_that_began_before_its_drop() {
        let place = tempfile::tempdir().unwrap();
        let leases = Leases::default();
        let unread = folder(place.path(), "unread");
        leases.remove(unread.clone());
        assert!(!unread.exists());
        let (a, b) = (folder(place.path(), "a"), folder(place.path(), "b"));
        let first = leases.reading();
        leases.remove(a.clone());
        let second = leases.reading();
        leases.remove(b.clone());
        let third = leases.reading();
        drop(second);
        assert!(a.exists() && b.exists(), "the first may read both");
        drop(first.clone());
        assert!(a.exists() && b.exists(), "another of its parts is there");
        drop(first);
        assert!(!a.exists() && !b.exists());
        let c = folder(place.path(), "c");
        leases.remove(c.clone());
        assert!(c.exists());
        drop(leases);
        drop(third);
        assert!(!c.exists());
    }

    #[test]
    fn many_drops_under_one_statement_end_with_it() {
        let place = tempfile::tempdir().unwrap();
        let leases = Leases::default();
        let reading = leases.reading();
        // Folders that are gone already are no fault of anyone.
        for at in 0..100_000 {
            leases.remove(place.path().join(at.to_string()));
        }
        drop(reading);
    }
}
