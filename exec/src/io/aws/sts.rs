//! Roles: Amazon's token service, `AssumeRole`, <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use object_store::aws::{AwsAuthorizer, AwsCredential, AwsCredentialProvider};
use object_store::client::{HttpClient, HttpRequest};
use url::form_urlencoded;

use super::renewed::Fetch;
use crate::error::{ErrorClass, QueryError};

/// How long the credentials of a role hold, unless it says otherwise.
const DURATION_SECONDS: u64 = 3_600;
/// What the service allows.
const DURATION_SECONDS_MIN: u64 = 900;
const DURATION_SECONDS_MAX: u64 = 43_200;
/// Tries of a request that the service or the network failed.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// Who to become.
#[derive(Debug, Clone)]
pub(super) struct Role {
    pub(super) arn: String,
    pub(super) session_name: Option<String>,
    pub(super) external_id: Option<String>,
    pub(super) duration_seconds: Option<u64>,
    /// The service, where a statement names it.
    pub(super) endpoint: Option<String>,
}

/// See the module.
pub(super) struct AssumeRole {
    client: HttpClient,
    endpoint: String,
    region: String,
    role: Role,
    base: AwsCredentialProvider,
}

impl fmt::Debug for AssumeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AssumeRole({})", self.role.arn)
    }
}

impl AssumeRole {
    pub(super) fn new(
        client: HttpClient,
        endpoint: String,
        region: String,
        role: Role,
        base: AwsCredentialProvider,
    ) -> Self {
        Self {
            client,
            endpoint,
            region,
            role,
            base,
        }
    }

    fn duration_seconds(&self) -> u64 {
        let asked = self.role.duration_seconds.unwrap_or(DURATION_SECONDS);
        asked.clamp(DURATION_SECONDS_MIN, DURATION_SECONDS_MAX)
    }

    fn body(&self) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("Action", "AssumeRole")
            .append_pair("Version", "2011-06-15")
            .append_pair("RoleArn", &self.role.arn)
            .append_pair(
                "RoleSessionName",
                self.role.session_name.as_deref().unwrap_or("trireme"),
            )
            .append_pair("DurationSeconds", &self.duration_seconds().to_string());
        if let Some(id) = &self.role.external_id {
            form.append_pair("ExternalId", id);
        }
        form.finish()
    }

    /// Status and text of the answer.
    async fn ask(&self) -> Result<(u16, String), QueryError> {
        let unreachable = || {
            QueryError::new(
                ErrorClass::Unavailable,
                format!("the token service can't be reached for role {}", self.role.arn),
            )
        };
        let base = self.base.get_credential().await;
        let base = base.map_err(|error| QueryError::of_store(&error).unwrap_or_else(|| self.denied(None)))?;
        let mut request = http::Request::post(self.endpoint.as_str())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(self.body().into())
            .map_err(|_| unreachable())?;
        sign(&mut request, &base, &self.region);
        let response = self.client.execute(request).await.map_err(|_| unreachable())?;
        let status = response.status().as_u16();
        let bytes = response.into_body().bytes().await.map_err(|_| unreachable())?;
        Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn denied(&self, code: Option<&str>) -> QueryError {
        let error = QueryError::new(
            ErrorClass::PermissionDenied,
            format!("the role {} can't be taken on", self.role.arn),
        )
        .with_hint("check the credentials that take it on, and the role's trust policy");
        match code {
            Some(code) => error.with_detail(format!("the token service answered {code}")),
            None => error,
        }
    }
}

fn sign(request: &mut HttpRequest, credential: &AwsCredential, region: &str) {
    AwsAuthorizer::new(credential, "sts", region).authorize(request, None);
}

#[async_trait]
impl Fetch for AssumeRole {
    async fn fetch(&self) -> Result<(AwsCredential, Duration), QueryError> {
        let mut attempt = 1;
        let (status, text) = loop {
            match self.ask().await {
                Ok((status, _)) if status >= 500 && attempt < ATTEMPTS => {}
                Err(error) if error.class == ErrorClass::Unavailable && attempt < ATTEMPTS => {}
                other => break other?,
            }
            tokio::time::sleep(PAUSE * attempt).await;
            attempt += 1;
        };
        let found = (
            element(&text, "AccessKeyId"),
            element(&text, "SecretAccessKey"),
            element(&text, "SessionToken"),
        );
        match found {
            (Some(key_id), Some(secret_key), Some(token)) if status == 200 => {
                let credential = AwsCredential {
                    key_id,
                    secret_key,
                    token: Some(token),
                };
                Ok((credential, Duration::from_secs(self.duration_seconds())))
            }
            _ => Err(self.denied(element(&text, "Code").filter(|code| is_word(code)).as_deref())),
        }
    }
}

fn is_word(code: &str) -> bool {
    code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The text of the first element of this name; the service's values hold no markup but escapes.
pub(super) fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (value, _) = rest.split_once(&format!("</{name}>"))?;
    let value = value.trim();
    let plain = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&amp;", "&"),
    ]
    .iter()
    .fold(value.to_owned(), |text, (escape, plain)| text.replace(escape, plain));
    (!plain.is_empty()).then_some(plain)
}
