//! The allow-list of locations.
//!
//! A statement may name any path or URL; this list decides which of them the server touches. The data folder is always
//! allowed except its private part; everything else only under a prefix that the operator configured. Prefixes match by
//! whole path components (`/data` doesn't allow `/database`), after symbolic links and `..` are resolved.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Component, Path, PathBuf};

use url::{Host, Url};

use crate::error::{ErrorClass, QueryError};

mod remote;

pub(crate) use remote::{AzurePlace, RemotePrefix};
use remote::{azure_form, decoded, known_scheme};

/// The private folder inside the data folder: no statement may name it.
pub const PRIVATE_FOLDER: &str = ".trireme";

/// The part of the private folder that holds the managed tables' files.
pub const MANAGED_FOLDER: &str = "tables";

/// The setting that widens the list; every refusal names it.
pub const SETTING: &str = "io.allowed_locations";

/// What a statement wants to do with a location.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read existing files.
    Read,
    /// Write files that may not exist yet.
    Write,
}

/// Why a location is refused. No variant carries the user-info part of a URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Neither in the data folder nor under a configured prefix.
    #[error("location {location} is not allowed")]
    NotAllowed {
        /// The location, without credentials.
        location: String,
    },
    /// The server's own state.
    #[error("location {location} is private to the server")]
    Private {
        /// The location.
        location: String,
    },
    /// A link-local or metadata address.
    #[error("host {host} is refused: it is a link-local or metadata address")]
    RefusedHost {
        /// The host.
        host: String,
    },
    /// Nothing is there.
    #[error("location {location} does not exist")]
    NotFound {
        /// The location.
        location: String,
    },
    /// Not a path or URL that the server understands.
    #[error("location {location} is not valid: {reason}")]
    Invalid {
        /// The location, without credentials.
        location: String,
        /// What is wrong.
        reason: String,
    },
    /// The file system refused to look.
    #[error("location {location} can't be read: {reason}")]
    Unreadable {
        /// The location.
        location: String,
        /// What the file system said.
        reason: String,
    },
}

impl LocationError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotAllowed { .. } => Some(format!(
                "move the files into the data folder, or add their folder or URL prefix to the setting {SETTING}"
            )),
            Self::Private { .. } => Some("name a folder of your own".to_owned()),
            Self::RefusedHost { .. } => Some(format!(
                "such addresses are refused even when {SETTING} would allow them"
            )),
            Self::NotFound { .. } => Some("check the spelling; relative paths start in the data folder".to_owned()),
            Self::Invalid { .. } | Self::Unreadable { .. } => None,
        }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::NotAllowed { .. } | Self::Private { .. } | Self::RefusedHost { .. } => ErrorClass::PermissionDenied,
            Self::NotFound { .. } => ErrorClass::NotFound,
            Self::Invalid { .. } => ErrorClass::Invalid,
            Self::Unreadable { .. } => ErrorClass::PermissionDenied,
        }
    }
}

impl From<LocationError> for QueryError {
    fn from(error: LocationError) -> Self {
        let converted = QueryError::new(error.class(), error.to_string());
        match error.hint() {
            Some(hint) => converted.with_hint(hint),
            None => converted,
        }
    }
}

/// A location that passed the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedLocation {
    /// Where: a file, or a folder when it ends with `/`.
    pub url: Url,
    /// Pattern of the files below `url`, when the location had one.
    pub glob: Option<String>,
    /// The canonical local path, when it is local.
    pub path: Option<PathBuf>,
}

impl ResolvedLocation {
    /// True when the location stands for every file below it.
    pub fn is_folder(&self) -> bool {
        self.url.path().ends_with('/')
    }
}

/// The allow-list; see the module.
#[derive(Debug)]
pub struct Locations {
    data_folder: PathBuf,
    folders: Vec<PathBuf>,
    prefixes: Vec<RemotePrefix>,
}

impl Locations {
    /// The list for this data folder (which must exist) and these configured prefixes.
    pub fn new(data_folder: &Path, allowed: &[String]) -> Result<Self, LocationError> {
        let data_folder = canonical(data_folder)?;
        let mut list = Self {
            data_folder,
            folders: Vec::new(),
            prefixes: Vec::new(),
        };
        for entry in allowed {
            match parse(entry)? {
                Parsed::Local(path) if path.is_absolute() => list.folders.push(canonical(&path).unwrap_or(path)),
                Parsed::Local(_) => return Err(invalid(entry, &format!("{SETTING} takes absolute paths and URLs"))),
                Parsed::Remote(url) => list.prefixes.push(RemotePrefix::of_url(&url)?),
            }
        }
        Ok(list)
    }

    /// The canonical data folder.
    pub fn data_folder(&self) -> &Path {
        &self.data_folder
    }

    /// Checks what a statement named; relative paths start in the data folder.
    pub fn resolve(&self, location: &str, access: Access) -> Result<ResolvedLocation, LocationError> {
        if location.trim().is_empty() {
            return Err(invalid(location, "it is empty"));
        }
        match parse(location)? {
            Parsed::Local(path) => self.resolve_local(location, &path, access),
            Parsed::Remote(url) => self.resolve_remote(location, url, access),
        }
    }

    /// Checks a canonical local path; `display` is what an error shows.
    pub fn check_path(&self, path: &Path, display: &str) -> Result<(), LocationError> {
        if path.starts_with(self.private_folder()) {
            return Err(LocationError::Private {
                location: display.to_owned(),
            });
        }
        let allowed = path.starts_with(&self.data_folder) || self.folders.iter().any(|folder| path.starts_with(folder));
        if allowed {
            Ok(())
        } else {
            Err(LocationError::NotAllowed {
                location: display.to_owned(),
            })
        }
    }

    /// Checks a canonical local path that a store is about to open. Managed tables live in the private folder and are read
    /// through the same store, so their part of it is open to reads here; statements can't name it (see [`Self::resolve`]).
    pub(crate) fn check_open(&self, path: &Path, access: Access) -> Result<(), LocationError> {
        if access == Access::Read && path.starts_with(self.private_folder().join(MANAGED_FOLDER)) {
            return Ok(());
        }
        self.check_path(path, &path.display().to_string())
    }

    /// Checks a URL of an object store or web server, as the registry sees it.
    pub fn check_url(&self, url: &Url) -> Result<(), LocationError> {
        refuse_host(url)?;
        let wanted = RemotePrefix::of_url(url)?;
        if self.prefixes.iter().any(|prefix| prefix.covers(&wanted)) {
            return Ok(());
        }
        Err(LocationError::NotAllowed {
            location: redacted(url.as_str()),
        })
    }

    /// Checks that some configured prefix is on this host or bucket, for requests that carry no path yet.
    pub fn check_authority(&self, url: &Url) -> Result<(), LocationError> {
        refuse_host(url)?;
        let wanted = RemotePrefix::of_url(url)?;
        if self.prefixes.iter().any(|prefix| prefix.same_authority(&wanted)) {
            return Ok(());
        }
        Err(LocationError::NotAllowed {
            location: redacted(url.as_str()),
        })
    }

    /// The folder of the server's own state.
    pub fn private_folder(&self) -> PathBuf {
        self.data_folder.join(PRIVATE_FOLDER)
    }

    fn resolve_local(&self, location: &str, path: &Path, access: Access) -> Result<ResolvedLocation, LocationError> {
        let absolute = self.data_folder.join(path);
        let (base, glob) = if absolute.exists() {
            (absolute, None)
        } else {
            split_glob(&absolute)
        };
        let resolved = match access {
            Access::Read => std::fs::canonicalize(&base).map_err(|error| self.unresolved(location, &base, &error))?,
            Access::Write if glob.is_some() => return Err(invalid(location, "a target can't contain *, ? or [")),
            Access::Write => canonical_target(location, &base)?,
        };
        self.check_path(&resolved, location)?;
        let folder = resolved.is_dir() || glob.is_some() || (access == Access::Write && location.ends_with('/'));
        let url = if folder {
            Url::from_directory_path(&resolved)
        } else {
            Url::from_file_path(&resolved)
        };
        let url = url.map_err(|()| invalid(location, "it can't be written as a URL"))?;
        Ok(ResolvedLocation {
            url,
            glob,
            path: Some(resolved),
        })
    }

    /// A missing path outside the list must look like any other refused one, or the error would tell which files exist.
    fn unresolved(&self, location: &str, base: &Path, error: &std::io::Error) -> LocationError {
        let guess = canonical_target(location, base).unwrap_or_else(|_| base.to_owned());
        if let Err(refusal) = self.check_path(&guess, location) {
            return refusal;
        }
        io_error(location, error)
    }

    fn resolve_remote(&self, location: &str, mut url: Url, access: Access) -> Result<ResolvedLocation, LocationError> {
        if matches!(url.scheme(), "http" | "https") {
            check_web(location, &url, access)?;
        }
        let (path, glob) = match split_glob_text(url.path()) {
            Some((path, glob)) => (path.to_owned(), Some(glob.to_owned())),
            None => (url.path().to_owned(), None),
        };
        url.set_path(&path);
        self.check_url(&url)?;
        Ok(ResolvedLocation {
            url,
            glob: glob.map(|text| decoded(&text)),
            path: None,
        })
    }
}

enum Parsed {
    Local(PathBuf),
    Remote(Url),
}

fn parse(location: &str) -> Result<Parsed, LocationError> {
    let Some((scheme, _)) = location.split_once("://") else {
        return Ok(Parsed::Local(PathBuf::from(location)));
    };
    if known_scheme(&scheme.to_ascii_lowercase()).is_none() {
        return Err(invalid(
            location,
            "the scheme is not one of file, s3, gs, az, http, https",
        ));
    }
    // `*`, `?` and `[` are pattern characters here, where a URL's grammar would start a query at `?`.
    let url = Url::parse(&location.replace('?', "%3F")).map_err(|error| invalid(location, &error.to_string()))?;
    if scheme.eq_ignore_ascii_case("file") {
        return url
            .to_file_path()
            .map(Parsed::Local)
            .map_err(|()| invalid(location, "it is not a local path"));
    }
    let url = match known_scheme(url.scheme()) {
        Some("az") => azure_form(location, url)?,
        _ => url,
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid(
            location,
            "credentials don't belong into a location; use CREATE SECRET",
        ));
    }
    if url.fragment().is_some() || (location.contains('?') && matches!(url.scheme(), "http" | "https")) {
        return Err(invalid(location, "a query string or fragment is not supported"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(invalid(location, "the host or bucket is missing"));
    }
    Ok(Parsed::Remote(url))
}

/// The web has single files, to read.
fn check_web(location: &str, url: &Url, access: Access) -> Result<(), LocationError> {
    let reason = if access == Access::Write {
        "web servers are only read; write into the data folder or an object store"
    } else if split_glob_text(url.path()).is_some() {
        "patterns need a store that can list files; name one file"
    } else if url.path().ends_with('/') {
        "a web server can't list the files of a folder; name one file"
    } else {
        return Ok(());
    };
    Err(invalid(location, reason))
}

/// True for addresses that no statement may reach: link-local ones serve machine metadata and credentials.
pub fn is_refused_address(address: IpAddr) -> bool {
    const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
    match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_unspecified() || METADATA_V4.contains(&v4),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_refused_address(IpAddr::V4(v4)),
            None => v6.is_unicast_link_local() || v6.is_unspecified() || v6 == METADATA_V6,
        },
    }
}

/// Refuses hosts that are written as a refused address; names are checked again when they are looked up.
pub(crate) fn refuse_host(url: &Url) -> Result<(), LocationError> {
    if !matches!(url.scheme(), "http" | "https") {
        return Ok(());
    }
    let refused = match url.host() {
        Some(Host::Ipv4(address)) => is_refused_address(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => is_refused_address(IpAddr::V6(address)),
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            name == "metadata.google.internal" || name == "metadata" || name == "instance-data"
        }
        None => false,
    };
    if refused {
        Err(LocationError::RefusedHost {
            host: url.host_str().unwrap_or_default().to_owned(),
        })
    } else {
        Ok(())
    }
}

/// Splits before the first path component with a pattern character.
fn split_glob(path: &Path) -> (PathBuf, Option<String>) {
    let text = path.to_string_lossy();
    match split_glob_text(&text) {
        Some((base, glob)) => (PathBuf::from(base), Some(glob.to_owned())),
        None => (path.to_owned(), None),
    }
}

fn split_glob_text(path: &str) -> Option<(&str, &str)> {
    let first = path.find(['*', '[', '?']).into_iter().chain(path.find("%3F")).min()?;
    let cut = path[..first].rfind('/').map_or(0, |slash| slash + 1);
    Some(path.split_at(cut))
}

fn canonical(path: &Path) -> Result<PathBuf, LocationError> {
    std::fs::canonicalize(path).map_err(|error| io_error(&path.display().to_string(), &error))
}

/// Canonicalises the nearest existing ancestor and appends the rest, which must not climb.
pub(crate) fn canonical_target(location: &str, path: &Path) -> Result<PathBuf, LocationError> {
    let mut missing = Vec::new();
    let mut existing = path;
    loop {
        match std::fs::canonicalize(existing) {
            Ok(mut resolved) => {
                resolved.extend(missing.iter().rev());
                return Ok(resolved);
            }
            // A dangling link would be followed by whoever creates the file.
            Err(_) if existing.is_symlink() => return Err(invalid(location, "it is a symbolic link to nothing")),
            Err(_) => {}
        }
        let (Some(Component::Normal(name)), Some(parent)) = (existing.components().next_back(), existing.parent())
        else {
            return Err(invalid(location, "it contains .. below a folder that does not exist"));
        };
        missing.push(name.to_owned());
        existing = parent;
    }
}

fn io_error(location: &str, error: &std::io::Error) -> LocationError {
    let location = location.to_owned();
    match error.kind() {
        std::io::ErrorKind::NotFound => LocationError::NotFound { location },
        _ => LocationError::Unreadable {
            location,
            reason: error.to_string(),
        },
    }
}

fn invalid(location: &str, reason: &str) -> LocationError {
    LocationError::Invalid {
        location: redacted(location),
        reason: reason.to_owned(),
    }
}

/// The location without user-info, query and fragment, whether or not it parses as a URL.
pub(crate) fn redacted(location: &str) -> String {
    let Some((scheme, rest)) = location.split_once("://") else {
        return location.to_owned();
    };
    let visible = rest.split(['#']).next().unwrap_or_default();
    let (authority, path) = visible.split_at(visible.find('/').unwrap_or(visible.len()));
    // A secret may itself contain a slash: everything before the last `@` of the whole rest is dropped.
    match visible.rsplit_once('@') {
        Some((_, after)) => format!("{scheme}://…@{after}"),
        None => format!("{scheme}://{authority}{path}"),
    }
}

#[cfg(test)]
mod tests;
