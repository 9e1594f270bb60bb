//! Reads settings from a file, from the environment and from flags, in this order, and refuses what no row declares.

use crate::nearest::nearest;
use crate::value::Raw;
use crate::{Config, ConfigError, ConfigRow, SECTIONS};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// Every variable that starts so is a setting, except [`EXEMPT`].
pub(crate) const PREFIX: &str = "TRIREME_";

/// Variables with a meaning of their own: the configuration file, the log filter in `tracing` syntax, and the two that
/// point `make test` to its binary and its tools, which may stand in the same shell.
const EXEMPT: [&str; 4] = ["TRIREME_CONFIG", "TRIREME_LOG", "TRIREME_BIN", "TRIREME_TOOLS"];

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// A line of the configuration file.
    File {
        /// The file as the user named it.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// An environment variable, by name.
    Environment(String),
    /// The command line.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag => f.write_str("command line"),
        }
    }
}

impl Config {
    /// Reads and validates the settings.
    ///
    /// `environment` is what [`std::env::vars_os`] gives; `flags` are (dotted key, value) pairs from the command line.
    /// Without `file`, the one that `TRIREME_CONFIG` names is read, if any. Paths in values are relative to the working
    /// directory of the process.
    ///
    /// # Errors
    /// The first thing that is wrong, in one line.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &[(String, String)],
    ) -> Result<Self, ConfigError> {
        let variables: Vec<_> = environment
            .into_iter()
            .map(|(name, value)| {
                (
                    name.to_string_lossy().into_owned(),
                    value.to_string_lossy().into_owned(),
                )
            })
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        let named = variables
            .iter()
            .find(|(name, value)| name == EXEMPT[0] && !value.is_empty());
        let file = file
            .map(Path::to_path_buf)
            .or_else(|| named.map(|(_, value)| PathBuf::from(value)));

        let rows = Self::rows();
        let mut config = Self::default();
        if let Some(path) = file {
            let text = std::fs::read_to_string(&path).map_err(|error| ConfigError::Unreadable {
                path: path.clone(),
                reason: error.to_string(),
            })?;
            config.read_file(&rows, &path, &text)?;
        }
        for (name, value) in variables {
            if !EXEMPT.contains(&name.as_str()) {
                config.read_variable(&rows, name, value)?;
            }
        }
        for (key, value) in flags {
            config.read_key(&rows, key, &Raw::Untyped(value.clone()), Source::Flag)?;
        }
        config.validate()?;
        Ok(config)
    }

    fn read_variable(&mut self, rows: &[ConfigRow], name: String, value: String) -> Result<(), ConfigError> {
        let Some(row) = rows.iter().find(|row| row.variable() == name) else {
            let known: Vec<_> = rows.iter().map(ConfigRow::key).collect();
            let meant = name[PREFIX.len()..].to_lowercase().replacen('_', ".", 1);
            let nearest = nearest(&meant, known.iter().map(String::as_str));
            let nearest = rows
                .iter()
                .find(|row| Some(row.key()) == nearest)
                .map(ConfigRow::variable);
            return Err(ConfigError::UnknownKey {
                source_of: Source::Environment(name.clone()),
                name,
                nearest,
            });
        };
        self.set(row, &Raw::Untyped(value), Source::Environment(name))
    }

    fn read_file(&mut self, rows: &[ConfigRow], path: &Path, text: &str) -> Result<(), ConfigError> {
        let line_of = |offset: usize| text[..offset.min(text.len())].matches('\n').count() + 1;
        let at = |offset: usize| Source::File {
            path: path.to_path_buf(),
            line: line_of(offset),
        };
        let document = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            path: path.to_path_buf(),
            line: error.span().map_or(1, |span| line_of(span.start)),
            reason: error.message().lines().next().unwrap_or_default().to_string(),
        })?;
        for (section, value) in document.get_ref() {
            let source = at(section.span().start);
            let DeValue::Table(table) = value.get_ref() else {
                return self.read_key(rows, section.get_ref(), &raw(value.get_ref()), source);
            };
            if !SECTIONS.iter().any(|(name, _)| *name == section.get_ref().as_ref()) && table.is_empty() {
                return Err(unknown(rows, section.get_ref(), source));
            }
            for (key, value) in table {
                let name = format!("{}.{}", section.get_ref(), key.get_ref());
                self.read_key(rows, &name, &raw(value.get_ref()), at(key.span().start))?;
            }
        }
        Ok(())
    }

    fn read_key(&mut self, rows: &[ConfigRow], key: &str, raw: &Raw, source: Source) -> Result<(), ConfigError> {
        match rows.iter().find(|row| row.key() == key) {
            Some(row) => self.set(row, raw, source),
            None => Err(unknown(rows, key, source)),
        }
    }

    fn set(&mut self, row: &ConfigRow, raw: &Raw, source: Source) -> Result<(), ConfigError> {
        let key = row.key();
        row.row.read(self, raw).map_err(|expected| ConfigError::BadValue {
            key: key.clone(),
            value: raw.to_string(),
            source_of: source.clone(),
            expected,
        })?;
        self.sources.insert(key, source);
        Ok(())
    }

    /// Where the setting `key` (dotted) got its value.
    pub fn source(&self, key: &str) -> Source {
        self.sources.get(key).cloned().unwrap_or(Source::Default)
    }
}

fn unknown(rows: &[ConfigRow], key: &str, source_of: Source) -> ConfigError {
    let known: Vec<_> = rows.iter().map(ConfigRow::key).collect();
    let sections = SECTIONS.iter().map(|(name, _)| *name);
    let candidates = known.iter().map(String::as_str);
    let nearest = if key.contains('.') {
        nearest(key, candidates)
    } else {
        nearest(key, candidates.chain(sections))
    };
    ConfigError::UnknownKey {
        name: key.to_string(),
        source_of,
        nearest,
    }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Raw::Integer(number),
            Err(_) => Raw::Other(number.to_string()),
        },
        DeValue::Float(number) => Raw::Other(number.to_string()),
        DeValue::Boolean(flag) => Raw::Boolean(*flag),
        DeValue::Datetime(time) => Raw::Other(time.to_string()),
        DeValue::Array(items) => Raw::List(items.iter().map(|item| raw(item.get_ref())).collect()),
        DeValue::Table(_) => Raw::Other("a table".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn load(file: Option<&str>, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, String> {
        let mut on_disk = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        on_disk.write_all(file.unwrap_or_default().as_bytes()).unwrap();
        let path = file.map(|_| on_disk.path());
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        let flags: Vec<_> = flags
            .iter()
            .map(|(key, value)| ((*key).to_string(), (*value).to_string()))
            .collect();
        let folder = format!("{}/", on_disk.path().parent().unwrap().display());
        let name = on_disk.path().file_name().unwrap().to_str().unwrap().to_string();
        Config::load(path, environment, &flags)
            .map_err(|error| error.to_string().replace(&folder, "").replace(&name, "t.toml"))
    }

    #[test]
    fn later_sources_win() {
        let file = "[exec]\nbatch_rows = 1000\nmemory_bytes = \"1GiB\"\ntarget_partitions = 3\n";
        let environment = [
            ("TRIREME_EXEC_BATCH_ROWS", "2000"),
            ("TRIREME_EXEC_TARGET_PARTITIONS", "4"),
        ];
        let config = load(Some(file), &environment, &[("exec.target_partitions", "5")]).unwrap();
        assert_eq!(config.exec.memory_bytes, 1 << 30);
        assert_eq!(config.exec.batch_rows, 2000);
        assert_eq!(config.exec.target_partitions, 5);
        assert!(matches!(
            config.source("exec.memory_bytes"),
            Source::File { line: 3, .. }
        ));
        assert_eq!(
            config.source("exec.batch_rows"),
            Source::Environment("TRIREME_EXEC_BATCH_ROWS".into())
        );
        assert_eq!(config.source("exec.target_partitions"), Source::Flag);
        assert_eq!(config.source("exec.spill_dir"), Source::Default);
    }

    #[test]
    fn nothing_set_is_the_default() {
        let environment = [("TRIREME_LOG", "debug"), ("PATH", "/bin"), ("TRIREME_CONFIG", "")];
        assert_eq!(load(None, &environment, &[]).unwrap(), Config::default());
    }

    #[test]
    fn unknown_keys_name_the_place_and_the_nearest() {
        let error = |file| load(Some(file), &[], &[]).unwrap_err();
        assert_eq!(
            error("\n[server]\nlisen = \"127.0.0.1:1\"\n"),
            "unknown setting `server.lisen` (t.toml:3); did you mean `server.listen`?"
        );
        assert_eq!(
            error("listen = 1"),
            "unknown setting `listen` (t.toml:1); did you mean `server.listen`?"
        );
        assert_eq!(
            error("[sever]\n"),
            "unknown setting `sever` (t.toml:1); did you mean `server`?"
        );
        assert_eq!(
            error("[exec]\nqqq = 1"),
            "unknown setting `exec.qqq` (t.toml:2); `trireme settings` lists all settings"
        );
        assert_eq!(
            load(None, &[("TRIREME_SERVER_LISTN", "x")], &[]).unwrap_err(),
            "unknown setting `TRIREME_SERVER_LISTN` (environment variable TRIREME_SERVER_LISTN); \
             did you mean `TRIREME_SERVER_LISTEN`?"
        );
        assert!(
            load(None, &[], &[("server.lisen", "x")])
                .unwrap_err()
                .contains("(command line)")
        );
    }

    #[test]
    fn bad_values_name_key_value_and_what_is_allowed() {
        let error = |file| load(Some(file), &[], &[]).unwrap_err();
        assert_eq!(
            error("[exec]\nbatch_rows = -1"),
            "`exec.batch_rows` cannot be -1 (t.toml:2); allowed: a number of rows, from 1 to 1048576"
        );
        assert_eq!(
            error("[limits]\nmax_message_bytes = \"64Mib/s\""),
            "`limits.max_message_bytes` cannot be \"64Mib/s\" (t.toml:2); allowed: a size in bytes, or with a unit \
             such as \"64MiB\", from 64KiB to 2147483647"
        );
        assert!(error("[server]\nlog_format = \"xml\"").ends_with("allowed: text, json"));
        assert!(error("[server]\nlog_format = 3").contains("cannot be 3"));
        assert!(error("[server]\nlisten = \"everywhere\"").contains("allowed: an IP address and a port"));
        assert!(error("[server]\ndata_dir = \"\"").contains("allowed: a path"));
        assert!(error("[io]\nallowed_locations = [1]").contains("cannot be [1]"));
        assert!(error("[exec]\nbatch_rows = 1.5").contains("cannot be 1.5"));
        assert!(error("[exec.batch_rows]\nx = 1").contains("cannot be a table"));
        assert_eq!(
            load(None, &[("TRIREME_LIMITS_DRAIN_SECONDS", "soon")], &[]).unwrap_err(),
            "unknown setting `TRIREME_LIMITS_DRAIN_SECONDS` (environment variable TRIREME_LIMITS_DRAIN_SECONDS); \
             did you mean `TRIREME_SERVER_DRAIN_SECONDS`?"
        );
    }

    #[test]
    fn files_that_cannot_be_read_end_in_one_line() {
        assert!(
            load(Some("[server\n"), &[], &[])
                .unwrap_err()
                .starts_with("t.toml:1: not valid TOML: ")
        );
        let error = Config::load(Some(Path::new("/absent/t.toml")), [], &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("cannot read the configuration file /absent/t.toml: "),
            "{error}"
        );
        let environment = [("TRIREME_CONFIG", "/absent/named.toml")];
        assert!(
            load(None, &environment, &[])
                .unwrap_err()
                .contains("/absent/named.toml")
        );
    }

    #[test]
    fn lists_come_from_arrays_and_commas() {
        let config = load(Some("[io]\nallowed_locations = [\"/a\", \"s3://b\"]"), &[], &[]).unwrap();
        assert_eq!(config.io.allowed_locations, ["/a", "s3://b"]);
        let config = load(None, &[("TRIREME_IO_ALLOWED_LOCATIONS", "/a, s3://b,")], &[]).unwrap();
        assert_eq!(config.io.allowed_locations, ["/a", "s3://b"]);
    }
}
