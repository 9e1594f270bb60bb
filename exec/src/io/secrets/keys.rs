//! The keys of `CREATE SECRET`: DuckDB's spelling where DuckDB has one, and what each becomes in a store's own words.

use std::collections::BTreeMap;

use url::Url;

use super::{SecretKind, SecretProvider};
use crate::error::QueryError;

/// SQL key, the store's option, and the form of its values.
type Key = (&'static str, &'static str, Form);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Flag,
}

const S3: &[Key] = &[
    ("key_id", "access_key_id", Form::Text),
    ("secret", "secret_access_key", Form::Text),
    ("session_token", "session_token", Form::Text),
    ("region", "region", Form::Text),
    ("endpoint", "endpoint", Form::Text),
    ("url_style", "url_style", Form::Text),
    ("use_ssl", "use_ssl", Form::Flag),
    ("anonymous", "skip_signature", Form::Flag),
    ("requester_pays", "request_payer", Form::Flag),
    ("profile", "profile", Form::Text),
    ("role_arn", "role_arn", Form::Text),
    ("assume_role_arn", "role_arn", Form::Text),
    ("external_id", "external_id", Form::Text),
    ("role_session_name", "role_session_name", Form::Text),
    ("sts_endpoint", "sts_endpoint", Form::Text),
    ("sse", "server_side_encryption", Form::Text),
    ("sse_kms_key_id", "sse_kms_key_id", Form::Text),
    ("kms_key_id", "sse_kms_key_id", Form::Text),
    ("sse_bucket_key_enabled", "sse_bucket_key_enabled", Form::Flag),
    ("sse_customer_key", "sse_customer_key_base64", Form::Text),
    ("checksum", "checksum_algorithm", Form::Text),
    ("unsigned_payload", "unsigned_payload", Form::Flag),
];

const GCS: &[Key] = &[
    ("service_account_key", "service_account_key", Form::Text),
    ("bearer_token", "bearer_token", Form::Text),
    ("key_id", "access_key_id", Form::Text),
    ("secret", "secret_access_key", Form::Text),
    ("endpoint", "base_url", Form::Text),
    ("use_ssl", "use_ssl", Form::Flag),
    ("anonymous", "skip_signature", Form::Flag),
];

const AZURE: &[Key] = &[
    ("connection_string", "connection_string", Form::Text),
    ("account_name", "storage_account_name", Form::Text),
    ("account_key", "storage_account_key", Form::Text),
    ("sas_token", "storage_sas_key", Form::Text),
    ("tenant_id", "storage_tenant_id", Form::Text),
    ("client_id", "storage_client_id", Form::Text),
    ("client_secret", "storage_client_secret", Form::Text),
    ("endpoint", "endpoint", Form::Text),
    ("use_ssl", "use_ssl", Form::Flag),
    ("anonymous", "skip_signature", Form::Flag),
    ("use_emulator", "use_emulator", Form::Flag),
];

const HTTP: &[Key] = &[("bearer_token", "bearer_token", Form::Text)];

/// What the keys of a statement say together.
pub(super) struct Checked {
    pub(super) provider: SecretProvider,
    pub(super) scopes: Vec<String>,
    pub(super) options: BTreeMap<String, String>,
}

pub(super) fn checked(kind: SecretKind, given: &[(String, String)]) -> Result<Checked, QueryError> {
    let known = keys(kind);
    let mut provider = None;
    let mut scopes = Vec::new();
    let mut options = BTreeMap::new();
    for (number, (key, value)) in given.iter().enumerate() {
        let key = key.to_ascii_lowercase();
        match key.as_str() {
            "scope" if !value.is_empty() => scopes.push(value.clone()),
            "scope" => {}
            "provider" => provider = Some(provider_of(kind, value)?),
            key => {
                let Some((name, option, form)) = known.iter().find(|(name, ..)| *name == key) else {
                    return Err(unknown(kind, key, number + 1));
                };
                if value.is_empty() || value.chars().any(char::is_control) && *option != "service_account_key" {
                    return Err(wrong(name, "is empty or holds control characters"));
                }
                let value = match form {
                    Form::Text => value.clone(),
                    Form::Flag => flag(name, value)?.to_string(),
                };
                if options.insert((*option).to_owned(), value).is_some() {
                    return Err(wrong(name, "is given twice"));
                }
            }
        }
    }
    let provider = provider.unwrap_or(SecretProvider::Config);
    match kind {
        SecretKind::S3 => s3(&mut options)?,
        SecretKind::Gcs => gcs(&mut options)?,
        SecretKind::Azure => azure(&mut options)?,
        SecretKind::Http => http(&scopes)?,
    }
    identity(kind, provider, &options)?;
    Ok(Checked {
        provider,
        scopes,
        options,
    })
}

fn keys(kind: SecretKind) -> &'static [Key] {
    match kind {
        SecretKind::S3 => S3,
        SecretKind::Gcs => GCS,
        SecretKind::Azure => AZURE,
        SecretKind::Http => HTTP,
    }
}

/// A key that isn't known may be a value that slipped: it is shown only where it is nearly a known one.
fn unknown(kind: SecretKind, key: &str, number: usize) -> QueryError {
    let names = || keys(kind).iter().map(|(name, ..)| *name).chain(["scope", "provider"]);
    let near = names()
        .map(|name| (strsim::damerau_levenshtein(name, key), name))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= 2);
    let list = || names().map(str::to_uppercase).collect::<Vec<_>>().join(", ");
    match near {
        Some((_, name)) => QueryError::invalid(format!(
            "a secret of type {} has no option {}",
            kind.as_str(),
            key.to_uppercase()
        ))
        .with_hint(format!("did you mean {}?", name.to_uppercase())),
        None => QueryError::invalid(format!(
            "option {number} after TYPE is not known to secrets of type {}",
            kind.as_str()
        ))
        .with_hint(format!("options are {}", list())),
    }
}

fn wrong(key: &str, what: &str) -> QueryError {
    QueryError::invalid(format!("the secret's {} {what}", key.to_uppercase()))
}

fn provider_of(kind: SecretKind, value: &str) -> Result<SecretProvider, QueryError> {
    match (value.to_ascii_lowercase().as_str(), kind) {
        ("config", _) => Ok(SecretProvider::Config),
        ("credential_chain", SecretKind::S3 | SecretKind::Gcs | SecretKind::Azure) => {
            Ok(SecretProvider::CredentialChain)
        }
        ("service_principal", SecretKind::Azure) => Ok(SecretProvider::Config),
        ("managed_identity", SecretKind::Azure) => Ok(SecretProvider::CredentialChain),
        _ => Err(
            QueryError::invalid(format!("secrets of type {} don't have this PROVIDER", kind.as_str())).with_hint(
                "providers are config (what the statement gives) and credential_chain (the server's environment); \
                 azure has service_principal and managed_identity as well",
            ),
        ),
    }
}

fn flag(key: &str, value: &str) -> Result<bool, QueryError> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(wrong(key, "takes true or false")),
    }
}

fn s3(options: &mut BTreeMap<String, String>) -> Result<(), QueryError> {
    endpoint(options, "endpoint")?;
    endpoint(options, "sts_endpoint")?;
    options.remove("use_ssl");
    if let Some(style) = options.remove("url_style") {
        let hosted = match style.to_ascii_lowercase().as_str() {
            "vhost" | "virtual" => "true",
            "path" => "false",
            _ => return Err(wrong("url_style", "takes 'path' or 'vhost'")),
        };
        options.insert("virtual_hosted_style_request".to_owned(), hosted.to_owned());
    }
    let kind = match options
        .get("server_side_encryption")
        .map(|kind| kind.to_ascii_lowercase())
    {
        None if options.contains_key("sse_customer_key_base64") => Some("sse-c"),
        None if options.contains_key("sse_kms_key_id") => Some("aws:kms"),
        None => None,
        Some(kind) => Some(match kind.as_str() {
            "sse-s3" | "aes256" => "AES256",
            "sse-kms" | "aws:kms" => "aws:kms",
            "dsse" | "dsse-kms" | "aws:kms:dsse" => "aws:kms:dsse",
            "sse-c" => "sse-c",
            _ => return Err(wrong("sse", "takes 'sse-s3', 'sse-kms', 'dsse' or 'sse-c'")),
        }),
    };
    if let Some(kind) = kind {
        if (kind == "sse-c") != options.contains_key("sse_customer_key_base64") {
            return Err(wrong("sse", "'sse-c' and SSE_CUSTOMER_KEY go together"));
        }
        options.insert("server_side_encryption".to_owned(), kind.to_owned());
    }
    Ok(())
}

fn gcs(options: &mut BTreeMap<String, String>) -> Result<(), QueryError> {
    endpoint(options, "base_url")?;
    options.remove("use_ssl");
    Ok(())
}

fn azure(options: &mut BTreeMap<String, String>) -> Result<(), QueryError> {
    if let Some(text) = options.remove("connection_string") {
        connection_string(&text, options)?;
    }
    endpoint(options, "endpoint")?;
    options.remove("use_ssl");
    Ok(())
}

/// `AccountName=…;AccountKey=…;…`, as Azure's portal shows it.
fn connection_string(text: &str, options: &mut BTreeMap<String, String>) -> Result<(), QueryError> {
    let mut suffix = None;
    for part in text.split(';').filter(|part| !part.trim().is_empty()) {
        let Some((name, value)) = part.split_once('=') else {
            return Err(wrong("connection_string", "is not of the form Name=value;Name=value"));
        };
        let option = match name.trim().to_ascii_lowercase().as_str() {
            "accountname" => "storage_account_name",
            "accountkey" => "storage_account_key",
            "sharedaccesssignature" => "storage_sas_key",
            "blobendpoint" => "endpoint",
            "usedevelopmentstorage" => "use_emulator",
            "endpointsuffix" => {
                suffix = Some(value.trim().to_owned());
                continue;
            }
            _ => continue,
        };
        options.insert(option.to_owned(), value.trim().to_owned());
    }
    if let (Some(suffix), Some(account), false) = (
        suffix,
        options.get("storage_account_name"),
        options.contains_key("endpoint"),
    ) && suffix != "core.windows.net"
    {
        let endpoint = format!("https://{account}.blob.{suffix}");
        options.insert("endpoint".to_owned(), endpoint);
    }
    Ok(())
}

/// A token goes to every host in the scope, so there must be one.
fn http(scopes: &[String]) -> Result<(), QueryError> {
    if scopes.is_empty() || scopes.iter().any(|scope| scope.ends_with("://")) {
        return Err(
            QueryError::invalid("a secret of type http needs a SCOPE: its token is sent to the hosts in it")
                .with_hint("for example SCOPE 'https://example.org/data'"),
        );
    }
    Ok(())
}

/// A host with or without `http://`; without, `USE_SSL` decides.
fn endpoint(options: &mut BTreeMap<String, String>, option: &str) -> Result<(), QueryError> {
    let Some(text) = options.get(option) else {
        return Ok(());
    };
    let ssl = options.get("use_ssl").map(String::as_str);
    let text = match text.split_once("://") {
        Some(_) => text.clone(),
        None if ssl == Some("false") => format!("http://{text}"),
        None => format!("https://{text}"),
    };
    let not_one = || wrong("endpoint", "is not a host or an http(s) URL");
    let url = Url::parse(&text).map_err(|_| not_one())?;
    let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if !matches!(url.scheme(), "http" | "https") || !plain || url.host_str().is_none() {
        return Err(not_one());
    }
    if url.scheme() == "http" {
        options.insert("allow_http".to_owned(), "true".to_owned());
    }
    options.insert(option.to_owned(), text.trim_end_matches('/').to_owned());
    Ok(())
}

/// What proves who asks: exactly one way.
fn identity(kind: SecretKind, provider: SecretProvider, options: &BTreeMap<String, String>) -> Result<(), QueryError> {
    let has = |option: &str| options.contains_key(option);
    let anonymous = options.get("skip_signature").is_some_and(|value| value == "true");
    let ways: &[(bool, &str)] = match kind {
        SecretKind::S3 => &[(has("access_key_id") || has("secret_access_key"), "KEY_ID and SECRET")],
        SecretKind::Gcs => &[
            (has("service_account_key"), "SERVICE_ACCOUNT_KEY"),
            (has("bearer_token"), "BEARER_TOKEN"),
            (has("access_key_id") || has("secret_access_key"), "KEY_ID and SECRET"),
        ],
        SecretKind::Azure => &[
            (has("storage_account_key"), "ACCOUNT_KEY"),
            (has("storage_sas_key"), "SAS_TOKEN"),
            (has("storage_client_secret"), "TENANT_ID, CLIENT_ID and CLIENT_SECRET"),
            (
                options.get("use_emulator").is_some_and(|value| value == "true"),
                "USE_EMULATOR",
            ),
        ],
        SecretKind::Http => &[(has("bearer_token"), "BEARER_TOKEN")],
    };
    let given = ways.iter().filter(|(given, _)| *given).count();
    let chain = provider == SecretProvider::CredentialChain;
    let emulated = given == 2 && options.get("use_emulator").is_some_and(|value| value == "true");
    let total = given + usize::from(anonymous) + usize::from(chain);
    if total != 1 && !(emulated && total == 2) {
        let mut all: Vec<&str> = ways.iter().map(|(_, way)| *way).collect();
        if kind != SecretKind::Http {
            all.extend(["ANONYMOUS true", "PROVIDER credential_chain"]);
        }
        let what = if total == 0 { "no way" } else { "several ways" };
        return Err(QueryError::invalid(format!("the secret has {what} to prove who asks"))
            .with_hint(format!("give exactly one of: {}", all.join("; "))));
    }
    pairs(provider, options)
}

/// Options that mean nothing alone.
fn pairs(provider: SecretProvider, options: &BTreeMap<String, String>) -> Result<(), QueryError> {
    let has = |option: &str| options.contains_key(option);
    let together: &[(&str, &str, &str)] = &[
        ("access_key_id", "secret_access_key", "KEY_ID and SECRET go together"),
        ("secret_access_key", "access_key_id", "KEY_ID and SECRET go together"),
        (
            "session_token",
            "access_key_id",
            "SESSION_TOKEN needs KEY_ID and SECRET",
        ),
        ("external_id", "role_arn", "EXTERNAL_ID needs ROLE_ARN"),
        ("role_session_name", "role_arn", "ROLE_SESSION_NAME needs ROLE_ARN"),
        ("sts_endpoint", "role_arn", "STS_ENDPOINT needs ROLE_ARN"),
        (
            "storage_client_secret",
            "storage_tenant_id",
            "TENANT_ID, CLIENT_ID and CLIENT_SECRET go together",
        ),
        (
            "storage_client_secret",
            "storage_client_id",
            "TENANT_ID, CLIENT_ID and CLIENT_SECRET go together",
        ),
    ];
    if let Some((.., rule)) = together.iter().find(|(one, other, _)| has(one) && !has(other)) {
        return Err(QueryError::invalid(format!("the secret is incomplete: {rule}")));
    }
    if has("profile") && provider == SecretProvider::Config {
        return Err(wrong(
            "profile",
            "needs PROVIDER credential_chain: it names a profile of the server's",
        ));
    }
    if has("role_arn") && options.get("skip_signature").is_some_and(|value| value == "true") {
        return Err(wrong("role_arn", "can't be taken on anonymously"));
    }
    Ok(())
}
