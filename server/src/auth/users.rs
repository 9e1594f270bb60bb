//! The users file: a line `name:hash` for each user, the hash in the PHC form of argon2.

use argon2::password_hash::{PasswordHashString, SaltString, rand_core::OsRng};
use argon2::{Argon2, PasswordHasher};
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

const NAME_BYTES_MAX: usize = 128;
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Looking at the file for each call would cost a system call each time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What is wrong with the users file or with a change of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsersError {
    /// The file cannot be read or written.
    #[error("cannot {action} the users file {}: {reason}; check `server.users_file`", path.display())]
    Io {
        /// read or write.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        reason: String,
    },
    /// A line of another form.
    #[error("{}:{line}: {reason}; `trireme user add` writes lines of the right form", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A name that cannot be a user's.
    #[error("`{name}` cannot be a user name: {reason}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// A user that is not there.
    #[error("there is no user `{name}` in {}", path.display())]
    NoSuchUser {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// An empty password.
    #[error("the password is empty; give at least one character")]
    EmptyPassword,
    /// The hash could not be made.
    #[error("cannot hash the password: {0}")]
    Hash(String),
}

/// The users, and how the file looked when they were read.
pub(super) struct UsersFile {
    path: PathBuf,
    users: HashMap<String, PasswordHashString>,
    seen: Option<(SystemTime, u64)>,
    looked: Option<Instant>,
}

impl UsersFile {
    pub(super) fn open(path: &Path) -> Result<Self, UsersError> {
        let seen = look(path)?;
        let users = read(path)?.into_iter().map(|line| (line.name, line.hash)).collect();
        Ok(Self {
            path: path.to_path_buf(),
            users,
            seen,
            looked: None,
        })
    }

    pub(super) fn get(&self, user: &str) -> Option<PasswordHashString> {
        self.users.get(user).cloned()
    }

    /// Reads a changed file; the result names the users that left or have another password now.
    pub(super) fn refresh(&mut self, now: Instant) -> Result<Vec<String>, UsersError> {
        if self
            .looked
            .is_some_and(|last| now.saturating_duration_since(last) < LOOK_AGAIN)
        {
            return Ok(Vec::new());
        }
        self.looked = Some(now);
        let seen = look(&self.path)?;
        if seen == self.seen {
            return Ok(Vec::new());
        }
        let fresh: HashMap<_, _> = read(&self.path)?
            .into_iter()
            .map(|line| (line.name, line.hash))
            .collect();
        self.seen = seen;
        let before = std::mem::replace(&mut self.users, fresh);
        Ok(before
            .into_iter()
            .filter(|(name, hash)| self.users.get(name) != Some(hash))
            .map(|(name, _)| name)
            .collect())
    }

    #[cfg(test)]
    pub(super) fn look_again_now(&mut self) {
        self.looked = None;
        self.seen = None;
    }
}

struct Line {
    name: String,
    hash: PasswordHashString,
}

/// Adds a user, or gives it a new password. The file is replaced as a whole, and only its owner may read it.
///
/// # Errors
/// Unusable names and passwords; a file that cannot be read or written. True when the user is new.
pub fn add_user(path: &Path, name: &str, password: &str) -> Result<bool, UsersError> {
    check_name(name)?;
    if password.is_empty() {
        return Err(UsersError::EmptyPassword);
    }
    let mut lines = if path.exists() { read(path)? } else { Vec::new() };
    let hash = hash_password(password)?;
    let known = lines.iter_mut().find(|line| line.name == name);
    let is_new = known.is_none();
    match known {
        Some(line) => line.hash = hash,
        None => lines.push(Line {
            name: name.to_string(),
            hash,
        }),
    }
    write(path, &lines)?;
    Ok(is_new)
}

/// Removes a user.
///
/// # Errors
/// A user that is not there; a file that cannot be read or written.
pub fn remove_user(path: &Path, name: &str) -> Result<(), UsersError> {
    let mut lines = read(path)?;
    let before = lines.len();
    lines.retain(|line| line.name != name);
    if lines.len() == before {
        return Err(UsersError::NoSuchUser {
            path: path.to_path_buf(),
            name: name.to_string(),
        });
    }
    write(path, &lines)
}

/// A hash of no password, with the parameters that [`hash_password`] gives, so that checking it takes as long.
const DECOY: &str = concat!(
    "$argon2id$v=19$m=19456,t=2,p=1$",
    "AAAAAAAAAAAAAAAAAAAAAA$",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
);

pub(super) fn decoy() -> Result<PasswordHashString, UsersError> {
    PasswordHashString::new(DECOY).map_err(|error| UsersError::Hash(error.to_string()))
}

fn hash_password(password: &str) -> Result<PasswordHashString, UsersError> {
    let salt = SaltString::generate(&mut OsRng);
    Argon2::default()
        .hash_password(password.as_bytes(), &salt)
        .map(|hash| hash.serialize())
        .map_err(|error| UsersError::Hash(error.to_string()))
}

fn check_name(name: &str) -> Result<(), UsersError> {
    let reason = if name.is_empty() || name.len() > NAME_BYTES_MAX {
        "it must have from 1 to 128 bytes"
    } else if name == super::TOKEN_USER {
        "it is what clients send together with a token"
    } else if name.starts_with('#') || name.contains(':') || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        "it must not hold a colon, white space or control characters, or start with #"
    } else {
        return Ok(());
    };
    Err(UsersError::Name {
        name: name.to_string(),
        reason,
    })
}

fn look(path: &Path) -> Result<Option<(SystemTime, u64)>, UsersError> {
    let metadata = std::fs::metadata(path).map_err(|error| io_error("read", path, &error))?;
    if metadata.len() > FILE_BYTES_MAX {
        return Err(UsersError::Io {
            action: "read",
            path: path.to_path_buf(),
            reason: "it is over 16 MiB".into(),
        });
    }
    Ok(metadata.modified().ok().map(|time| (time, metadata.len())))
}

fn read(path: &Path) -> Result<Vec<Line>, UsersError> {
    let text = std::fs::read_to_string(path).map_err(|error| io_error("read", path, &error))?;
    let mut lines: Vec<Line> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |reason| UsersError::Line {
            path: path.to_path_buf(),
            line: number + 1,
            reason,
        };
        let (name, hash) = line.split_once(':').ok_or_else(|| wrong("not of the form name:hash"))?;
        check_name(name).map_err(|_| wrong("not a user name"))?;
        let hash = PasswordHashString::new(hash).map_err(|_| wrong("the hash is not in the PHC form"))?;
        if hash.algorithm().as_str() != argon2::ARGON2ID_IDENT.as_str() {
            return Err(wrong("the hash is not argon2id"));
        }
        if lines.iter().any(|line| line.name == name) {
            return Err(wrong("the user stands there twice"));
        }
        lines.push(Line {
            name: name.to_string(),
            hash,
        });
    }
    Ok(lines)
}

fn write(path: &Path, lines: &[Line]) -> Result<(), UsersError> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let save = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".users").tempfile_in(folder)?;
        for Line { name, hash } in lines {
            writeln!(file, "{name}:{}", hash.as_str())?;
        }
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    save().map_err(|error| io_error("write", path, &error))
}

fn io_error(action: &'static str, path: &Path, error: &std::io::Error) -> UsersError {
    UsersError::Io {
        action,
        path: path.to_path_buf(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn add_change_remove() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        assert!(add_user(&file, "ada", "one").unwrap());
        assert!(add_user(&file, "bob", "two").unwrap());
        let before = std::fs::read_to_string(&file).unwrap();
        assert!(!add_user(&file, "ada", "three").unwrap());
        assert_ne!(std::fs::read_to_string(&file).unwrap(), before);
        assert!(before.starts_with("ada:$argon2id$"));
        remove_user(&file, "ada").unwrap();
        assert_eq!(read(&file).unwrap().len(), 1);
        assert!(
            remove_user(&file, "ada")
                .unwrap_err()
                .to_string()
                .contains("no user `ada`")
        );
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o077, 0);
        }
    }

    #[test]
    fn the_decoy_takes_as_long_as_a_user() {
        let parameters = |hash: &PasswordHashString| hash.as_str().split('$').nth(3).unwrap().to_string();
        assert_eq!(parameters(&decoy().unwrap()), parameters(&hash_password("x").unwrap()));
    }

    #[test]
    fn refusals_name_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        let error = |text: &str| {
            std::fs::write(&file, text).unwrap();
            read(&file).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert!(error("# users\n\nada").contains("users:3: not of the form"));
        assert!(error("ada:plain").contains("users:1: the hash"));
        assert!(
            error("ada:$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E")
                .contains("argon2id")
        );
        for name in ["", "a:b", "a b", "token", "#a"] {
            assert!(add_user(&file, name, "x").is_err(), "{name}");
        }
        assert!(matches!(
            add_user(&folder.path().join("u"), "ada", ""),
            Err(UsersError::EmptyPassword)
        ));
        assert!(
            UsersFile::open(Path::new("/absent/users"))
                .err()
                .unwrap()
                .to_string()
                .contains("server.users_file")
        );
    }
}
