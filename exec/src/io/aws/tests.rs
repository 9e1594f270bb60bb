//! Who asks, from profiles and roles, without a service.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use object_store::CredentialProvider;

use super::renewed::{Fetch, Renewed};
use super::sts::element;
use super::*;

const CONFIG: &str = "
# the operator's
[default]
region = eu-central-1

[profile work]
region = eu-west-1 # near
aws_access_key_id = CONFIGID
s3 =
    addressing_style = path
role_arn = arn:aws:iam::1:role/reader
source_profile = base
external_id = x1

[profile circle]
role_arn = arn:aws:iam::1:role/a
source_profile = circle2
[profile circle2]
role_arn = arn:aws:iam::1:role/b
source_profile = circle

[profile own]
role_arn = arn:aws:iam::1:role/own
source_profile = own
[profile sso]
sso_session = corp
[profile web]
role_arn = arn:aws:iam::1:role/web
web_identity_token_file = /var/token
[profile half]
aws_access_key_id = x
[sso-session corp]
sso_region = x
";
const CREDENTIALS: &str = "
[base]
aws_access_key_id = BASEID
aws_secret_access_key = hunter2
[own]
aws_access_key_id=OWNID
aws_secret_access_key=hunter2=
aws_session_token = tok
";

fn profiles() -> Profiles {
    let mut all = Profiles::default();
    all.add(CONFIG, true);
    all.add(CREDENTIALS, false);
    all
}

#[test]
fn profiles_and_whom_they_take_their_credentials_from() {
    let all = profiles();
    let work = all.profile("work").unwrap();
    assert_eq!(work.region.as_deref(), Some("eu-west-1"));
    let Source::Role { role, base } = work.source else {
        panic!("a role");
    };
    assert_eq!(
        (role.arn.as_str(), role.external_id.as_deref()),
        ("arn:aws:iam::1:role/reader", Some("x1"))
    );
    assert!(matches!(*base, Source::Keys { key_id, .. } if key_id == "BASEID"));
    let Source::Role { base, .. } = all.profile("own").unwrap().source else {
        panic!("a role");
    };
    assert!(matches!(*base, Source::Keys { secret, token: Some(_), .. } if secret == "hunter2="));
    assert!(matches!(all.profile("default").unwrap().source, Source::Client));
    assert!(matches!(all.profile("web").unwrap().source, Source::WebIdentity { .. }));
}

#[test]
fn what_cannot_be_followed_says_why() {
    let all = profiles();
    for (name, said) in [
        ("gone", "no AWS profile gone"),
        ("circle", "from itself"),
        ("sso", "single sign-on"),
        ("half", "half a key"),
    ] {
        let error = all.profile(name).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(said) && !error.contains("hunter2"), "{name}: {error}");
    }
}

#[test]
fn answers_of_the_token_service() {
    let text =
        "<R><Credentials><AccessKeyId>AK</AccessKeyId><SessionToken> a&amp;lt;b </SessionToken></Credentials></R>";
    assert_eq!(element(text, "AccessKeyId").as_deref(), Some("AK"));
    assert_eq!(element(text, "SessionToken").as_deref(), Some("a&lt;b"));
    assert_eq!(element(text, "SecretAccessKey"), None);
}

/// Gives credentials that hold for a while, and then none.
#[derive(Debug)]
struct Given {
    asked: Arc<AtomicUsize>,
    ttl: Duration,
}

#[async_trait]
impl Fetch for Given {
    async fn fetch(&self) -> Result<(AwsCredential, Duration), QueryError> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        if number > 0 && self.ttl > Duration::from_secs(1) {
            return Err(QueryError::internal("not again"));
        }
        let credential = AwsCredential {
            key_id: number.to_string(),
            secret_key: String::new(),
            token: None,
        };
        Ok((credential, self.ttl))
    }
}

#[tokio::test]
async fn credentials_are_kept_until_they_nearly_end() {
    let asked = Arc::new(AtomicUsize::new(0));
    let lasting = Renewed::new(Given {
        asked: Arc::clone(&asked),
        ttl: Duration::from_secs(3_600),
    });
    for _ in 0..3 {
        assert_eq!(lasting.get_credential().await.unwrap().key_id, "0");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let ended = Renewed::new(Given {
        asked: Arc::new(AtomicUsize::new(0)),
        ttl: Duration::ZERO,
    });
    assert_eq!(ended.get_credential().await.unwrap().key_id, "0");
    assert_eq!(ended.get_credential().await.unwrap().key_id, "1");
}

#[tokio::test]
async fn a_process_prints_credentials() {
    let print = "printf '{\"Version\":1,\"AccessKeyId\":\"PID\",\"SecretAccessKey\":\"hunter2\"}'";
    let process = Renewed::new(super::renewed::Process::new("p", print.to_owned()));
    assert_eq!(process.get_credential().await.unwrap().key_id, "PID");
    let broken = Renewed::new(super::renewed::Process::new("p", "echo hunter2".to_owned()));
    let error = broken.get_credential().await.unwrap_err();
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}
