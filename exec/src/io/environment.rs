//! The server's environment, as far as stores read it: the operator's word on credentials and endpoints.
//!
//! Taken once, when the server starts, so that a test can give another one. Values are never shown.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Variables that stores may read.
const PREFIXES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];
/// Others, in full.
const NAMES: [&str; 3] = ["HOME", "SERVICE_ACCOUNT", "IDENTITY_ENDPOINT"];

/// See the module.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

impl Environment {
    /// That of this process.
    pub fn of_process() -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
            let ours = PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || NAMES.contains(&name.as_str());
            ours.then_some((name, value))
        });
        Self {
            variables: variables.collect(),
        }
    }

    /// One with these variables only.
    pub fn of(variables: &[(&str, &str)]) -> Self {
        Self {
            variables: variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    /// One variable; an empty one is none.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// The variables whose names start so, lower-cased.
    pub(crate) fn with_prefix(&self, prefix: &'static str) -> impl Iterator<Item = (String, &str)> {
        let fitting = self.variables.iter().filter(move |(name, _)| name.starts_with(prefix));
        fitting.map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
    }

    /// A path below the home folder.
    pub(crate) fn at_home(&self, path: &str) -> Option<PathBuf> {
        Some(PathBuf::from(self.get("HOME")?).join(path))
    }
}
