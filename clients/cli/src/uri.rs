//! Where to connect: the server's address out of a URI, a bare `host:port`, or nothing.
//!
//! A password may arrive inside a URI; it is held in [`Secret`], which never prints, and no error text repeats the URI.

use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

pub(crate) const DEFAULT_HOST: &str = "127.0.0.1";
pub(crate) const DEFAULT_PORT: u16 = 7433;

/// A password or token. Its Debug form hides it so that no message can show it by accident.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// An address to connect to, and the credentials that its URI carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// A name or an address; IPv6 without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum UriError {
    #[error("cannot read the server address: {0}")]
    Malformed(&'static str),
    #[error("unknown scheme \"{0}\" in the server address; use grpc, grpc+tls, flightsql or flightsql+tls")]
    Scheme(String),
    #[error("unknown parameter \"{0}\" in the server address; only tls=true or tls=false is known")]
    Parameter(String),
}

impl Default for Target {
    fn default() -> Self {
        Self {
            host: DEFAULT_HOST.to_owned(),
            port: DEFAULT_PORT,
            tls: false,
            user: None,
            password: None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "grpc+tls" } else { "grpc" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl Target {
    /// Reads `scheme://[user[:password]@]host[:port][?tls=…]`, `host:port` or `host`.
    pub(crate) fn parse(text: &str) -> Result<Self, UriError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(UriError::Malformed("it is empty"));
        }
        let full = if text.contains("://") {
            text.to_owned()
        } else {
            format!("grpc://{text}")
        };
        let url = Url::parse(&full).map_err(|error| UriError::Malformed(reason(error)))?;
        let mut target = Self {
            tls: scheme_uses_tls(url.scheme())?,
            ..Self::default()
        };
        if let Some(host) = url.host() {
            target.host = host_text(&host)?;
        }
        target.port = url.port().unwrap_or(DEFAULT_PORT);
        if !url.username().is_empty() {
            target.user = Some(percent_decoded(url.username())?);
        }
        if let Some(password) = url.password() {
            target.password = Some(Secret::new(percent_decoded(password)?));
        }
        if !matches!(url.path(), "" | "/") {
            return Err(UriError::Malformed("a path after the port means nothing here"));
        }
        for (key, value) in url.query_pairs() {
            target.set(&key, &value)?;
        }
        Ok(target)
    }

    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// What tonic connects to: it knows only the schemes of HTTP.
    pub(crate) fn http_uri(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.authority())
    }

    pub(crate) fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), UriError> {
        let on = match value.to_ascii_lowercase().as_str() {
            "true" | "1" | "on" | "enabled" | "require" => true,
            "false" | "0" | "off" | "disabled" => false,
            _ => return Err(UriError::Malformed("tls takes true or false")),
        };
        match key {
            // useEncryption is the JDBC driver's name of the same switch.
            "tls" | "useEncryption" => self.tls = on,
            _ => return Err(UriError::Parameter(key.to_owned())),
        }
        Ok(())
    }
}

fn scheme_uses_tls(scheme: &str) -> Result<bool, UriError> {
    match scheme {
        "grpc" | "grpc+tcp" | "flightsql" => Ok(false),
        "grpc+tls" | "grpcs" | "flightsql+tls" => Ok(true),
        other => Err(UriError::Scheme(other.to_owned())),
    }
}

fn host_text(host: &Host<&str>) -> Result<String, UriError> {
    Ok(match host {
        Host::Domain(name) => percent_decoded(name)?,
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    })
}

fn reason(error: url::ParseError) -> &'static str {
    match error {
        url::ParseError::InvalidPort => "the port is not a number from 0 to 65535",
        url::ParseError::EmptyHost => "the host is missing",
        url::ParseError::InvalidIpv6Address | url::ParseError::InvalidIpv4Address => "the host is not an address",
        _ => "it is not a URI such as grpc://127.0.0.1:7433",
    }
}

fn percent_decoded(text: &str) -> Result<String, UriError> {
    let bad = UriError::Malformed("a % stands before something that is not two hexadecimal digits");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16));
        let value = match (digit(rest.next()), digit(rest.next())) {
            (Some(high), Some(low)) => u8::try_from(high * 16 + low).ok(),
            _ => None,
        };
        match value {
            Some(value) => bytes.push(value),
            None => return Err(bad),
        }
    }
    String::from_utf8(bytes).map_err(|_| UriError::Malformed("it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Target {
        Target::parse(text).unwrap()
    }

    #[test]
    fn schemes_and_defaults() {
        assert_eq!(parsed("grpc://127.0.0.1:7433"), Target::default());
        assert_eq!(parsed("localhost").to_string(), "grpc://localhost:7433");
        assert_eq!(parsed("db.example:1234").to_string(), "grpc://db.example:1234");
        assert_eq!(parsed("127.0.0.1:99").port, 99);
        assert!(parsed("grpc+tls://h").tls);
        assert!(parsed("flightsql://h:1?tls=true").tls);
        assert!(parsed("flightsql://h:1/?useEncryption=1").tls);
        assert!(!parsed("flightsql://h:1").tls);
    }

    #[test]
    fn addresses_of_version_six() {
        let target = parsed("grpc://[::1]:7000");
        assert_eq!(target.host, "::1");
        assert_eq!(target.http_uri(), "http://[::1]:7000");
        assert!(target.is_loopback());
        assert!(!parsed("grpc://10.0.0.1").is_loopback());
        assert!(parsed("grpc://127.3.2.1").is_loopback());
    }

    #[test]
    fn credentials_are_decoded_and_never_printed() {
        let target = parsed("grpc://ann:p%40ss%3Aword@h:1");
        assert_eq!(target.user.as_deref(), Some("ann"));
        assert_eq!(target.password.as_ref().unwrap().reveal(), "p@ss:word");
        assert!(!format!("{target:?} {target}").contains("p@ss"));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_uri() {
        for bad in [
            "",
            "mysql://h",
            "grpc://h:99999",
            "grpc://h/path",
            "grpc://h?x=1",
            "grpc://h?tls=maybe",
            "grpc://a:%zz@h",
        ] {
            let text = Target::parse(bad).unwrap_err().to_string();
            assert!(!text.contains("%zz"), "{text}");
        }
    }
}
