//! Values of settings: how each type is read from TOML, from a variable or a flag, and written back.
//!
//! Sizes are read as plain bytes or as `64MiB`, times as a plain number in the unit of the name or as `30s`, so that
//! a file stays readable while the fields stay plain numbers with their unit in the name.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Not a number.
    Plain,
    Bytes,
    Milliseconds,
    Seconds,
    /// Things, named in the plural.
    Count(&'static str),
}

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bytes => "bytes",
            Self::Milliseconds => "ms",
            Self::Seconds => "seconds",
            Self::Count(things) => things,
        }
    }
}

/// The part of a declaration that reading depends on.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) unit: Unit,
    pub(crate) range: Option<RangeInclusive<u64>>,
}

/// A value before its type is known to fit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Raw {
    /// From a variable, a flag or `SET`: any type may be meant.
    Untyped(String),
    Text(String),
    Integer(i128),
    Boolean(bool),
    List(Vec<Raw>),
    /// A TOML value that no setting takes, as text.
    Other(String),
}

impl Raw {
    /// The text of a value that may be read as text.
    fn text(&self) -> Option<&str> {
        match self {
            Self::Untyped(text) | Self::Text(text) => Some(text.trim()),
            _ => None,
        }
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untyped(text) | Self::Text(text) => write!(f, "{}", quoted(text)),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Boolean(flag) => write!(f, "{flag}"),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", items.join(", "))
            }
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// A value of a known type, to be written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    Text(String),
    Number(u64),
    Boolean(bool),
    List(Vec<String>),
}

impl Literal {
    /// For `system.settings` and `SHOW`: no quotes, numbers in the unit of the name.
    pub(crate) fn plain(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Boolean(flag) => flag.to_string(),
            Self::List(items) => items.join(","),
        }
    }

    /// For TOML; sizes are written the way people say them.
    pub(crate) fn toml(&self, unit: Unit) -> String {
        match self {
            Self::Text(text) => quoted(text),
            Self::Number(number) => match readable_bytes(*number) {
                Some(size) if unit == Unit::Bytes => quoted(&size),
                _ => number.to_string(),
            },
            Self::Boolean(flag) => flag.to_string(),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(|item| quoted(item)).collect();
                format!("[{}]", items.join(", "))
            }
        }
    }
}

/// A Rust type that a setting can have.
pub(crate) trait SettingType: Sized + 'static {
    /// `None` when the value does not fit the type or the rule.
    fn read(raw: &Raw, rule: &Rule) -> Option<Self>;
    fn write(&self) -> Literal;
    /// The accepted form in words.
    fn expected(rule: &Rule) -> String;
}

impl SettingType for u64 {
    fn read(raw: &Raw, rule: &Rule) -> Option<Self> {
        let number = match raw {
            Raw::Integer(number) => Self::try_from(*number).ok()?,
            _ => quantity(raw.text()?, rule.unit)?,
        };
        let fits = rule.range.as_ref().is_none_or(|range| range.contains(&number));
        fits.then_some(number)
    }

    fn write(&self) -> Literal {
        Literal::Number(*self)
    }

    fn expected(rule: &Rule) -> String {
        let form = match rule.unit {
            Unit::Bytes => "a size in bytes, or with a unit such as \"64MiB\"".to_string(),
            Unit::Milliseconds => "a time in ms, or with a unit such as \"500ms\" or \"30s\"".to_string(),
            Unit::Seconds => "a time in seconds, or with a unit such as \"30s\" or \"10m\"".to_string(),
            Unit::Count(things) => format!("a number of {things}"),
            Unit::Plain => "a number".to_string(),
        };
        match &rule.range {
            Some(range) => format!(
                "{form}, from {} to {}",
                bound(*range.start(), rule),
                bound(*range.end(), rule)
            ),
            None => form,
        }
    }
}

fn bound(number: u64, rule: &Rule) -> String {
    match readable_bytes(number) {
        Some(size) if rule.unit == Unit::Bytes => size,
        _ => number.to_string(),
    }
}

impl SettingType for usize {
    fn read(raw: &Raw, rule: &Rule) -> Option<Self> {
        u64::read(raw, rule).and_then(|number| Self::try_from(number).ok())
    }

    fn write(&self) -> Literal {
        Literal::Number(*self as u64)
    }

    fn expected(rule: &Rule) -> String {
        u64::expected(rule)
    }
}

impl SettingType for bool {
    fn read(raw: &Raw, _: &Rule) -> Option<Self> {
        match raw {
            Raw::Boolean(flag) => Some(*flag),
            Raw::Untyped(text) => match text.trim().to_lowercase().as_str() {
                "true" | "on" | "yes" | "1" => Some(true),
                "false" | "off" | "no" | "0" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    fn write(&self) -> Literal {
        Literal::Boolean(*self)
    }

    fn expected(_: &Rule) -> String {
        "true or false".to_string()
    }
}

impl SettingType for PathBuf {
    fn read(raw: &Raw, _: &Rule) -> Option<Self> {
        raw.text().filter(|text| !text.is_empty()).map(Self::from)
    }

    fn write(&self) -> Literal {
        Literal::Text(self.display().to_string())
    }

    fn expected(_: &Rule) -> String {
        "a path".to_string()
    }
}

impl SettingType for String {
    fn read(raw: &Raw, _: &Rule) -> Option<Self> {
        raw.text().map(Self::from)
    }

    fn write(&self) -> Literal {
        Literal::Text(self.clone())
    }

    fn expected(_: &Rule) -> String {
        "a text".to_owned()
    }
}

impl SettingType for Option<PathBuf> {
    fn read(raw: &Raw, _: &Rule) -> Option<Self> {
        let text = raw.text()?;
        Some((!text.is_empty()).then(|| PathBuf::from(text)))
    }

    fn write(&self) -> Literal {
        Literal::Text(self.as_ref().map(|path| path.display().to_string()).unwrap_or_default())
    }

    fn expected(_: &Rule) -> String {
        "a path, or \"\" for none".to_string()
    }
}

impl SettingType for SocketAddr {
    fn read(raw: &Raw, _: &Rule) -> Option<Self> {
        let text = raw.text()?;
        match text.strip_prefix("localhost:") {
            Some(port) => Some(Self::from(([127, 0, 0, 1], port.parse().ok()?))),
            None => text.parse().ok(),
        }
    }

    fn write(&self) -> Literal {
        Literal::Text(self.to_string())
    }

    fn expected(_: &Rule) -> String {
        "an IP address and a port such as \"127.0.0.1:7433\" or \"[::1]:7433\"".to_string()
    }
}

impl SettingType for Vec<String> {
    fn read(raw: &Raw, _: &Rule) -> Option<Self> {
        match raw {
            Raw::List(items) => items
                .iter()
                .map(|item| item.text().filter(|text| !text.is_empty()).map(String::from))
                .collect(),
            Raw::Untyped(text) => Some(
                text.split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(String::from)
                    .collect(),
            ),
            _ => None,
        }
    }

    fn write(&self) -> Literal {
        Literal::List(self.clone())
    }

    fn expected(_: &Rule) -> String {
        "a list of texts (separated by commas in a variable)".to_string()
    }
}

/// A bound on something measured: a decimal number, 0 for none.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bound(pub f64);

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl SettingType for Bound {
    fn read(raw: &Raw, rule: &Rule) -> Option<Self> {
        let text = raw.to_string();
        let text = text.trim_matches('"').trim();
        let number = text.parse::<f64>().ok();
        let number = number.or_else(|| quantity(text, rule.unit).and_then(|number| number.to_string().parse().ok()))?;
        (number.is_finite() && number >= 0.0).then_some(Self(number))
    }

    fn write(&self) -> Literal {
        Literal::Text(self.to_string())
    }

    fn expected(rule: &Rule) -> String {
        match rule.unit {
            Unit::Milliseconds => "a time in ms, or with a unit such as \"30s\"; 0 is no bound".to_owned(),
            _ => "a decimal number; 0 is no bound".to_owned(),
        }
    }
}

/// An enum whose values are words: declares the type and how it is read and written.
macro_rules! words {
    ($(#[$about:meta])* pub enum $Type:ident { $($(#[$help:meta])* $Variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $Type { $($(#[$help])* $Variant),+ }

        impl $Type {
            /// Every word, in order.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word that a file or a flag has for this value.
            pub fn word(self) -> &'static str {
                match self { $(Self::$Variant => $word),+ }
            }
        }

        impl $crate::value::SettingType for $Type {
            fn read(raw: &$crate::value::Raw, _: &$crate::value::Rule) -> Option<Self> {
                match raw {
                    $crate::value::Raw::Untyped(text) | $crate::value::Raw::Text(text) => {
                        match text.trim().to_lowercase().as_str() {
                            $($word => Some(Self::$Variant),)+
                            _ => None,
                        }
                    }
                    _ => None,
                }
            }

            fn write(&self) -> $crate::value::Literal {
                $crate::value::Literal::Text(self.word().to_string())
            }

            fn expected(_: &$crate::value::Rule) -> String {
                Self::WORDS.join(", ")
            }
        }
    };
}
pub(crate) use words;

/// A TOML basic string.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

const BYTE_UNITS: [(&str, u64); 10] = [
    ("b", 1),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("bytes", 1),
];

const TIME_UNITS_MS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// The size in the largest binary unit that divides it, from 1 KiB on.
fn readable_bytes(bytes: u64) -> Option<String> {
    [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)]
        .into_iter()
        .find(|(_, shift)| bytes != 0 && bytes.is_multiple_of(1 << shift))
        .map(|(name, shift)| format!("{}{name}", bytes >> shift))
}

/// Reads `64MiB`, `30s` or a plain number in `unit`.
fn quantity(text: &str, unit: Unit) -> Option<u64> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    let (digits, suffix) = text.split_at(split);
    if digits.starts_with('_') {
        return None;
    }
    let number: u64 = digits.replace('_', "").parse().ok()?;
    let suffix = suffix.trim().to_lowercase();
    if suffix.is_empty() {
        return Some(number);
    }
    let factor = |table: &[(&str, u64)]| {
        table
            .iter()
            .find(|(name, _)| *name == suffix)
            .map(|(_, factor)| *factor)
    };
    match unit {
        Unit::Bytes => number.checked_mul(factor(&BYTE_UNITS)?),
        Unit::Milliseconds => number.checked_mul(factor(&TIME_UNITS_MS)?),
        Unit::Seconds => {
            let ms = number.checked_mul(factor(&TIME_UNITS_MS)?)?;
            ms.is_multiple_of(1_000).then_some(ms / 1_000)
        }
        Unit::Plain | Unit::Count(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_take_their_units_only() {
        assert_eq!(quantity("64MiB", Unit::Bytes), Some(64 << 20));
        assert_eq!(quantity("64 mib", Unit::Bytes), Some(64 << 20));
        assert_eq!(quantity("1GB", Unit::Bytes), Some(1_000_000_000));
        assert_eq!(quantity("1_024", Unit::Bytes), Some(1024));
        assert_eq!(quantity("30s", Unit::Milliseconds), Some(30_000));
        assert_eq!(quantity("500ms", Unit::Milliseconds), Some(500));
        assert_eq!(quantity("10m", Unit::Seconds), Some(600));
        assert_eq!(quantity("500ms", Unit::Seconds), None);
        assert_eq!(quantity("30s", Unit::Bytes), None);
        assert_eq!(quantity("8k", Unit::Count("rows")), None);
        assert_eq!(quantity("-1", Unit::Count("rows")), None);
        assert_eq!(quantity("", Unit::Bytes), None);
        assert_eq!(quantity("99999999999TiB", Unit::Bytes), None);
    }

    #[test]
    fn sizes_are_written_as_people_say_them() {
        assert_eq!(Literal::Number(64 << 20).toml(Unit::Bytes), "\"64MiB\"");
        assert_eq!(Literal::Number(1_000).toml(Unit::Bytes), "1000");
        assert_eq!(Literal::Number(0).toml(Unit::Bytes), "0");
        assert_eq!(Literal::Number(1024).toml(Unit::Count("rows")), "1024");
    }

    #[test]
    fn addresses_take_localhost() {
        let rule = Rule {
            unit: Unit::Plain,
            range: None,
        };
        let read = |text: &str| SocketAddr::read(&Raw::Untyped(text.into()), &rule);
        assert_eq!(read("localhost:1").unwrap().to_string(), "127.0.0.1:1");
        assert_eq!(read("[::1]:1").unwrap().to_string(), "[::1]:1");
        assert_eq!(read("7433"), None);
    }
}
