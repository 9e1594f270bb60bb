//! The start of remote locations: scheme, host or bucket, and leading path components; and Azure's ways to write an account.
//!
//! ```text
//!  abfss://container@account.dfs.core.windows.net/path  ┐
//!  az://account.blob.core.windows.net/container/path    ├─▶ az://container.account.blob.core.windows.net/path
//!  az://container/path (the account is the server's)    ┘   az://container/path
//! ```
//!
//! Container names have no dots, so the form on the right means one place only; everything behind this file sees no other.

use url::Url;

use super::{LocationError, invalid};

/// Hosts of Azure's clouds, behind `account.blob.` or `account.dfs.`.
const AZURE_CLOUDS: [&str; 4] = [
    "core.windows.net",
    "core.chinacloudapi.cn",
    "core.usgovcloudapi.net",
    "fabric.microsoft.com",
];

/// `scheme://host[:port]` and the decoded path components that must lead a location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemotePrefix {
    scheme: &'static str,
    /// `None` stands for every host or bucket.
    authority: Option<String>,
    components: Vec<String>,
}

impl RemotePrefix {
    /// Of a location as a user writes it.
    pub(crate) fn parse(location: &str) -> Result<Self, LocationError> {
        match super::parse(location)? {
            super::Parsed::Remote(url) => Self::of_url(&url),
            super::Parsed::Local(_) => Err(invalid(location, "it is not remote")),
        }
    }

    /// Of a location that was parsed.
    pub(crate) fn of_url(url: &Url) -> Result<Self, LocationError> {
        let scheme = known_scheme(url.scheme()).ok_or_else(|| invalid(url.as_str(), "the scheme is not supported"))?;
        let authority = url[url::Position::BeforeHost..url::Position::AfterPort].to_ascii_lowercase();
        let path = decoded(url.path());
        let components: Vec<String> = path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect();
        if components.iter().any(|part| part == "." || part == "..") {
            return Err(invalid(url.as_str(), "it contains . or .."));
        }
        Ok(Self {
            scheme,
            authority: Some(authority),
            components,
        })
    }

    /// Everything of a scheme.
    pub(crate) fn of_scheme(scheme: &str) -> Option<Self> {
        Some(Self {
            scheme: known_scheme(scheme)?,
            authority: None,
            components: Vec::new(),
        })
    }

    pub(crate) fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// True when the other location is at or below this one.
    pub(crate) fn covers(&self, wanted: &Self) -> bool {
        match &self.authority {
            None => self.scheme == wanted.scheme,
            Some(_) => self.same_authority(wanted) && wanted.components.starts_with(&self.components),
        }
    }

    /// True when both are on one host or in one bucket.
    pub(crate) fn same_authority(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.authority == other.authority
    }

    /// A location at its start.
    pub(crate) fn url(&self) -> Option<Url> {
        let authority = self.authority.as_deref()?;
        let path = self.components.join("/");
        Url::parse(&format!("{}://{authority}/{path}", self.scheme)).ok()
    }

    /// How much it names: more is closer.
    pub(crate) fn length(&self) -> usize {
        match self.authority {
            None => 1,
            Some(_) => 2 + self.components.len(),
        }
    }
}

/// Aliases of a vendor's scheme are one scheme to the list.
pub(super) fn known_scheme(scheme: &str) -> Option<&'static str> {
    Some(match scheme {
        "file" => "file",
        "s3" | "s3a" => "s3",
        "gs" | "gcs" => "gs",
        "az" | "azure" | "adl" | "abfs" | "abfss" => "az",
        "http" => "http",
        "https" => "https",
        _ => return None,
    })
}

/// A container and the account that it is in, if the location says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AzurePlace<'a> {
    pub(crate) container: &'a str,
    pub(crate) account: Option<&'a str>,
    /// Of the account's host: one of [`AZURE_CLOUDS`].
    pub(crate) cloud: Option<&'a str>,
}

impl<'a> AzurePlace<'a> {
    /// Of the host of a location in its one form.
    pub(crate) fn of_host(host: &'a str) -> Self {
        let own = |container| Self {
            container,
            account: None,
            cloud: None,
        };
        let Some((container, rest)) = host.split_once('.') else {
            return own(host);
        };
        match account_host(rest) {
            Some((account, cloud)) => Self {
                container,
                account: Some(account),
                cloud: Some(cloud),
            },
            None => own(host),
        }
    }
}

/// Account and cloud of `account.blob.core.windows.net`.
fn account_host(host: &str) -> Option<(&str, &str)> {
    let (account, rest) = host.split_once('.')?;
    let (service, cloud) = rest.split_once('.')?;
    let known = matches!(service, "blob" | "dfs") && AZURE_CLOUDS.contains(&cloud);
    let named = !account.is_empty() && account.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (known && named).then_some((account, cloud))
}

/// Writes an Azure location that names its account in the one form; others come back as they are.
pub(super) fn azure_form(location: &str, url: Url) -> Result<Url, LocationError> {
    let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
    let user = url.username().to_owned();
    let (container, path) = if !user.is_empty() {
        if url.password().is_some() || account_host(&host).is_none() {
            return Err(invalid(
                location,
                "write container@account.dfs.core.windows.net, or the container alone",
            ));
        }
        (user, url.path().to_owned())
    } else if account_host(&host).is_some() {
        let path = url.path().trim_start_matches('/');
        let (container, rest) = path.split_once('/').unwrap_or((path, ""));
        (container.to_owned(), format!("/{rest}"))
    } else {
        return Ok(url);
    };
    let container = container.to_ascii_lowercase();
    let named = container
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'$');
    let (Some((account, cloud)), true, false) = (account_host(&host), named, container.is_empty()) else {
        return Err(invalid(location, "the container is missing or no container's name"));
    };
    // Built anew: a URL keeps its user and password when its host is changed.
    Url::parse(&format!("az://{container}.{account}.blob.{cloud}{path}"))
        .map_err(|error| invalid(location, &error.to_string()))
}

pub(super) fn decoded(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| path.get(at + 1..at + 3)).flatten();
        match hex.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
