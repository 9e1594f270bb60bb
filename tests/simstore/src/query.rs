//! What a request asks for: its dialect, bucket and key, and its query.

use http::request::Parts;

use crate::config::Config;

/// Whose language a request speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    S3,
    Gcs,
    Azure,
}

/// Where a request goes.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) dialect: Dialect,
    /// Empty: the service.
    pub(crate) bucket: String,
    /// Empty: the bucket.
    pub(crate) key: String,
    /// Azure's account.
    pub(crate) account: String,
    pub(crate) query: Query,
}

/// Pairs of a query, decoded.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn new(text: &str) -> Self {
        let pairs = url::form_urlencoded::parse(text.as_bytes());
        Self(
            pairs
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default().to_owned()
    }
}

/// A header as text; empty when it is not there.
pub(crate) fn header<'a>(parts: &'a Parts, name: &str) -> &'a str {
    let value = parts.headers.get(name);
    value.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

impl Target {
    /// Reads the path, and the host where it names the bucket (`bucket.localhost`, `bucket.s3.…`) or the account
    /// (`account.blob.…`).
    pub(crate) fn new(parts: &Parts, config: &Config) -> Self {
        let query = Query::new(parts.uri.query().unwrap_or_default());
        let host = header(parts, "host");
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
        let (account, path) = account_of(host, parts.uri.path(), config);
        let dialect = if !account.is_empty() {
            Dialect::Azure
        } else if is_google(parts) {
            Dialect::Gcs
        } else {
            Dialect::S3
        };
        let by_host = if dialect == Dialect::Azure {
            None
        } else {
            bucket_of(host)
        };
        let (bucket, key) = match by_host {
            Some(bucket) => (bucket, path),
            None => path.split_once('/').unwrap_or((path, "")),
        };
        Self {
            dialect,
            bucket: decode(bucket),
            key: decode(key),
            account: account.to_owned(),
            query,
        }
    }
}

/// Azure's account, which the host or the first part of the path names, and the rest of the path.
fn account_of<'a>(host: &'a str, path: &'a str, config: &Config) -> (&'a str, &'a str) {
    let path = path.trim_start_matches('/');
    let first = path.split('/').next().unwrap_or_default();
    if let Some((name, _)) = host.split_once(".blob.") {
        (name, path)
    } else if config.azure_accounts.iter().any(|known| known == first) {
        (first, path[first.len()..].trim_start_matches('/'))
    } else {
        ("", path)
    }
}

/// Container and blob of an address in Azure's dialect, or of a path there.
pub(crate) fn blob_of(address: &str, config: &Config) -> Option<(String, String)> {
    let base = url::Url::parse("http://none/").ok()?;
    let url = base.join(address).ok()?;
    let (_, path) = account_of(url.host_str().unwrap_or_default(), url.path(), config);
    let (container, blob) = path.split_once('/')?;
    Some((decode(container), decode(blob)))
}

fn is_google(parts: &Parts) -> bool {
    let google = |name: &str| name.starts_with("x-goog-");
    header(parts, "authorization").starts_with("Bearer ") || parts.headers.keys().any(|name| google(name.as_str()))
}

/// The bucket that a host names.
fn bucket_of(host: &str) -> Option<&str> {
    let service = [".s3.", ".s3-", ".storage.googleapis."];
    let by_service = service
        .iter()
        .find_map(|mark| host.split_once(mark).map(|(bucket, _)| bucket));
    by_service.or_else(|| host.strip_suffix(".localhost"))
}

/// Percent signs resolved.
pub(crate) fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if let ([high, low, tail @ ..], b'%') = (tail, first)
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            bytes.push(high * 16 + low);
            rest = tail;
            continue;
        }
        bytes.push(*first);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// All but letters, digits, `-._~` and `/` as percent signs.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(uri: &str, host: &str) -> Target {
        let request = http::Request::builder().uri(uri).header("host", host).body(()).unwrap();
        Target::new(&request.into_parts().0, &Config::default())
    }

    #[test]
    fn a_bucket_is_named_by_the_path_or_by_the_host() {
        let at = |uri, host| {
            let target = target(uri, host);
            (target.dialect, target.bucket, target.key)
        };
        let lake = |dialect, key: &str| (dialect, "lake".to_owned(), key.to_owned());
        assert_eq!(at("/lake/a%20b/c?x=1", "127.0.0.1:9"), lake(Dialect::S3, "a b/c"));
        assert_eq!(at("/lake", "127.0.0.1:9"), lake(Dialect::S3, ""));
        assert_eq!(at("/a/c", "lake.localhost:9"), lake(Dialect::S3, "a/c"));
        assert_eq!(at("/a/c", "lake.s3.eu-west-1.localhost"), lake(Dialect::S3, "a/c"));
        assert_eq!(at("/lake/a", "localhost"), lake(Dialect::S3, "a"));
        assert_eq!(at("/devstoreaccount1/lake/a", "127.0.0.1"), lake(Dialect::Azure, "a"));
        assert_eq!(at("/lake/a", "me.blob.localhost"), lake(Dialect::Azure, "a"));
        assert_eq!(decode(&encode("ü%/+ =")), "ü%/+ =");
    }
}
