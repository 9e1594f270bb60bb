//! A server's own folder among the spill files: what a killed server left is removed by the next that starts.
//!
//! ```text
//!  <exec.spill_dir>/.lock          held while servers claim and clean
//!                   server-…/.lock held as long as its server lives; a folder whose lock is free was left
//!                   server-…/…     the spill files
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::time::{SystemTime, UNIX_EPOCH};

const LOCK_FILE: &str = ".lock";
const PREFIX: &str = "server-";

/// The folder of this process, removed with it.
#[derive(Debug)]
pub(crate) struct SpillFolder {
    path: PathBuf,
    _lock: File,
}

impl SpillFolder {
    /// Makes the folder, and removes those of servers that are gone.
    ///
    /// # Errors
    /// When `root` can't be written.
    pub(crate) fn claim(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let claiming = File::create(root.join(LOCK_FILE))?;
        claiming.lock()?;
        for entry in fs::read_dir(root)?.flatten() {
            if is_servers(&entry.file_name().to_string_lossy())
                && let Err(error) = remove_left(&entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "spill files of a server that is gone can't be removed");
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let path = root.join(format!("{PREFIX}{}-{:x}", process::id(), now.as_nanos()));
        fs::create_dir(&path)?;
        let lock = File::create(path.join(LOCK_FILE))?;
        lock.try_lock()?;
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SpillFolder {
    fn drop(&mut self) {
        // The next server removes what can't be removed now.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Whether the name is one that [`SpillFolder::claim`] gives: other folders are somebody else's.
fn is_servers(name: &str) -> bool {
    let parts = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
    let all = |text: &str, is_digit: fn(&u8) -> bool| !text.is_empty() && text.as_bytes().iter().all(is_digit);
    parts.is_some_and(|(process, time)| all(process, u8::is_ascii_digit) && all(time, u8::is_ascii_hexdigit))
}

/// Removes the folder unless its server lives.
fn remove_left(folder: &Path) -> io::Result<()> {
    match File::open(folder.join(LOCK_FILE)) {
        Ok(lock) if lock.try_lock().is_ok() => fs::remove_dir_all(folder),
        Ok(_) => Ok(()),
        // It died before it had one, and so before it had files.
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::remove_dir(folder),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_servers_files_go_and_a_living_ones_stay() {
        let root = tempfile::tempdir().unwrap();
        let living = SpillFolder::claim(root.path()).unwrap();
        let dead = root.path().join("server-1-2");
        fs::create_dir_all(dead.join("datafusion-x")).unwrap();
        fs::write(dead.join(LOCK_FILE), "").unwrap();
        fs::write(dead.join("datafusion-x").join("y"), "rows").unwrap();
        let strange = root.path().join("server-backups");
        fs::create_dir(&strange).unwrap();
        let unlocked = root.path().join("server-3-4");
        fs::create_dir(&unlocked).unwrap();
        fs::write(unlocked.join("x"), "somebody else's").unwrap();
        let second = SpillFolder::claim(root.path()).unwrap();
        assert!(
            !dead.exists()
                && strange.exists()
                && unlocked.exists()
                && living.path().exists()
                && second.path() != living.path()
        );
        let path = second.path().to_owned();
        drop(second);
        assert!(!path.exists() && living.path().exists());
    }
}
