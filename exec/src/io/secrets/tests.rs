//! Secrets: what is taken, which is chosen, what is never shown.

use super::*;

const HIDDEN: &str = "hunter2hunter2";

/// Type, keys with values, what is said.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

fn secret(name: &str, kind: &str, given: &[(&str, &str)]) -> Result<SecretDefinition, QueryError> {
    let given: Vec<_> = given
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    SecretDefinition::new(name, kind, &given, 1)
}

fn s3(name: &str, scope: &str) -> SecretDefinition {
    let given = [("KEY_ID", "id"), ("SECRET", HIDDEN), ("SCOPE", scope)];
    secret(name, "s3", &given).unwrap()
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

#[test]
fn duckdbs_spelling_becomes_the_stores() {
    let made = secret(
        "x",
        "S3",
        &[
            ("key_id", "id"),
            ("SECRET", HIDDEN),
            ("ENDPOINT", "minio:9000"),
            ("USE_SSL", "false"),
            ("URL_STYLE", "vhost"),
            ("REGION", "eu-west-1"),
        ],
    )
    .unwrap();
    assert_eq!(made.options["endpoint"], "http://minio:9000");
    assert_eq!(made.options["allow_http"], "true");
    assert_eq!(made.options["virtual_hosted_style_request"], "true");
    assert!(!made.options.contains_key("use_ssl"));
    assert!(!format!("{made:?}").contains("hunter2"));
    let text = "DefaultEndpointsProtocol=https;AccountName=me;AccountKey=aGkK==;EndpointSuffix=core.chinacloudapi.cn";
    let made = secret("x", "azure", &[("CONNECTION_STRING", text)]).unwrap();
    assert_eq!(made.options["storage_account_key"], "aGkK==");
    assert_eq!(made.options["endpoint"], "https://me.blob.core.chinacloudapi.cn");
    let made = secret("x", "s3", &[("KEY_ID", "i"), ("SECRET", "s"), ("KMS_KEY_ID", "k")]).unwrap();
    assert_eq!(made.options["server_side_encryption"], "aws:kms");
}

#[test]
fn what_is_wrong_is_said_without_values() {
    let id = ("KEY_ID", "hunter2-id");
    let key = ("SECRET", HIDDEN);
    let cases: &[Case<'_>] = &[
        ("oracle", &[id, key], "TYPE"),
        ("s3", &[id], "KEY_ID and SECRET"),
        ("s3", &[], "no way"),
        ("s3", &[id, key, ("ANONYMOUS", "true")], "several ways"),
        ("s3", &[id, key, ("PROVIDER", "credential_chain")], "several ways"),
        ("s3", &[id, key, ("PROVIDER", HIDDEN)], "PROVIDER"),
        ("s3", &[id, key, ("REGOIN", "x")], "REGION"),
        ("s3", &[id, key, ("hunter2hunter2", "x")], "option 3"),
        ("s3", &[id, key, ("USE_SSL", HIDDEN)], "true or false"),
        ("s3", &[id, key, ("ENDPOINT", "ftp://hunter2")], "ENDPOINT"),
        ("s3", &[id, key, ("ENDPOINT", "https://u:hunter2@h")], "ENDPOINT"),
        ("s3", &[id, key, ("URL_STYLE", HIDDEN)], "URL_STYLE"),
        ("s3", &[id, key, ("SSE", "sse-c")], "SSE_CUSTOMER_KEY"),
        ("s3", &[id, key, ("PROFILE", "work")], "credential_chain"),
        ("s3", &[id, key, ("SCOPE", "gs://b")], "SCOPE"),
        ("s3", &[id, key, ("SCOPE", "nonsense")], "SCOPE"),
        ("s3", &[id, key, key], "twice"),
        ("s3", &[id, key, ("SESSION_TOKEN", "")], "empty"),
        ("azure", &[("CONNECTION_STRING", HIDDEN)], "Name=value"),
        ("azure", &[("CLIENT_SECRET", HIDDEN)], "go together"),
        ("gcs", &[("KEY_ID", "hunter2-id")], "go together"),
        ("http", &[("BEARER_TOKEN", HIDDEN)], "SCOPE"),
    ];
    for (kind, given, said) in cases {
        let error = secret("x", kind, given).unwrap_err().to_string();
        assert!(error.contains(said), "{kind} {given:?}: {error}");
        assert!(!error.contains("hunter2"), "{kind} {given:?}: {error}");
    }
}

#[test]
fn the_closest_scope_wins_by_whole_components() {
    let secrets = Secrets::default();
    secrets.replace(&[
        s3("all", "s3://"),
        s3("bucket", "s3://lake"),
        s3("raw", "s3://lake/raw"),
        secret("gcs", "gcs", &[("BEARER_TOKEN", HIDDEN)]).unwrap(),
    ]);
    let best = |text: &str| {
        let best = secrets.best(&url(text)).unwrap();
        best.map(|secret| secret.definition.name().to_owned())
    };
    assert_eq!(best("s3://other/raw/x").as_deref(), Some("all"));
    assert_eq!(best("s3a://lake/rawer/x").as_deref(), Some("bucket"));
    assert_eq!(best("s3://lake/raw/x").as_deref(), Some("raw"));
    assert_eq!(best("gs://lake/raw/x").as_deref(), Some("gcs"));
    assert_eq!(best("az://lake/raw/x"), None);
    assert_eq!(best("file:///lake"), None);
}

#[test]
fn two_that_fit_alike_are_an_error() {
    let secrets = Secrets::default();
    secrets.replace(&[s3("one", "s3://lake/raw"), s3("two", "s3a://lake/raw/")]);
    let error = secrets.best(&url("s3://lake/raw/x")).unwrap_err().to_string();
    assert!(error.contains("one and two"), "{error}");
    assert!(secrets.best(&url("s3://lake/x")).unwrap().is_none());
}

#[test]
fn a_named_secret_is_for_its_scope_only() {
    let secrets = Secrets::default();
    secrets.replace(&[s3("raw", "s3://lake/raw")]);
    assert!(secrets.named("raw", &url("s3://lake/raw/x")).is_ok());
    assert!(secrets.named("RAW", &url("s3://lake/raw/x")).is_ok());
    for (name, location, said) in [
        ("raw", "s3://lake/other", "is for s3://lake/raw only"),
        ("raw", "gs://lake/raw", "of type s3"),
        ("gone", "s3://lake/raw", "does not exist"),
    ] {
        let error = secrets.named(name, &url(location)).unwrap_err();
        assert_eq!(error.class, ErrorClass::PermissionDenied);
        assert!(error.message.contains(said), "{error}");
    }
}

#[test]
fn only_changed_secrets_get_a_new_generation() {
    let secrets = Secrets::default();
    assert!(secrets.replace(&[s3("a", "s3://a"), s3("b", "s3://b")]).is_empty());
    let generation = |name: &str| secrets.live.read().by_name[name].generation;
    let (a, b) = (generation("a"), generation("b"));
    assert_eq!(secrets.replace(&[s3("a", "s3://a"), s3("b", "s3://other")]), [b]);
    assert_eq!(generation("a"), a);
    assert_eq!(secrets.replace(&[s3("a", "s3://a")]).len(), 1);
}
