//! Who a client is: the users file, and the tokens that a login gives out.
//!
//! ```text
//!  Handshake or Basic ─ user + password ─▶ argon2 (blocking pool, bounded) ─▶ token ─▶ client
//!  every later call  ─ Bearer token ─────▶ SHA-256 ─▶ table of live tokens ─▶ Identity
//! ```
//!
//! Only hashes of tokens are kept, so that a dump of memory or a log line gives nobody a way in, and so that a lookup
//! does not tell by its time how much of a token is right. A token lives as long as it is used within its idle time.
//! The users file is read again when it changes; users that left or changed their password lose their tokens.

mod tokens;
mod users;

pub use tokens::Token;
pub use users::{UsersError, add_user, remove_user};

use argon2::password_hash::PasswordHashString;
use argon2::{Argon2, PasswordVerifier};
use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use parking_lot::Mutex;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokens::Tokens;
use tokio::sync::Semaphore;
use users::UsersFile;

/// ADBC leaves the padding out, others write it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A user name of clients that have two fields to fill in and a token to send.
pub const TOKEN_USER: &str = "token";

/// One check takes about 19 MiB and tens of milliseconds; more at a time would let strangers take the cores.
const CHECKS_AT_A_TIME: usize = 4;
/// Checks that wait; further logins are refused until the rush is over.
const CHECKS_WAITING: usize = 256;

/// A user whose identity was checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Name in the users file.
    pub user: Arc<str>,
}

/// Why somebody may not come in. The texts tell a stranger nothing about which users exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// No credentials where they are needed.
    #[error("authentication is required")]
    Missing,
    /// Credentials that are not of a known form.
    #[error("the authorization header is malformed")]
    Malformed,
    /// Unknown user or wrong password.
    #[error("wrong user name or password")]
    Wrong,
    /// Unknown or expired token.
    #[error("the token is not valid or has expired")]
    Expired,
    /// Too many logins at a time.
    #[error("too many logins at the same time")]
    Busy,
    /// The check could not run.
    #[error("the login could not be checked")]
    Failed,
}

impl AuthError {
    /// What the user can do about it.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Missing => "give a user name and a password, or a bearer token",
            Self::Malformed => "send \"Basic\" with user:password in base64, or \"Bearer\" with a token",
            Self::Wrong => "check both; the administrator adds users with `trireme user add`",
            Self::Expired => "log in again",
            Self::Busy | Self::Failed => "try again in a few seconds",
        }
    }

    /// The label of `trireme_auth_failures_total`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Wrong => "wrong",
            Self::Expired => "expired",
            Self::Busy => "busy",
            Self::Failed => "failed",
        }
    }
}

/// The limits of an [`Authenticator`].
#[derive(Debug, Clone, Copy)]
pub struct TokenLimits {
    /// A token that is not used for so long is no longer valid.
    pub idle: Duration,
    /// Live tokens of one user; a further one replaces the one that was unused for longest.
    pub per_user_max: usize,
}

/// Checks credentials and gives out tokens.
pub struct Authenticator {
    users: Mutex<UsersFile>,
    tokens: Mutex<Tokens>,
    /// Checked for unknown users, so that they take as long as known ones.
    decoy: PasswordHashString,
    checks: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").finish_non_exhaustive()
    }
}

impl Authenticator {
    /// Reads the users file.
    ///
    /// # Errors
    /// A file that cannot be read or has a wrong line.
    pub fn open(users_file: &Path, limits: TokenLimits) -> Result<Self, UsersError> {
        Ok(Self {
            users: Mutex::new(UsersFile::open(users_file)?),
            tokens: Mutex::new(Tokens::new(limits)),
            decoy: users::decoy()?,
            checks: Arc::new(Semaphore::new(CHECKS_AT_A_TIME)),
            waiting: Arc::new(Semaphore::new(CHECKS_WAITING)),
        })
    }

    /// Checks a password, or a token in its place, which BI tools with two fields send.
    ///
    /// # Errors
    /// Wrong credentials, or too many logins at a time.
    pub async fn verify(&self, user: &str, password: &str) -> Result<Identity, AuthError> {
        if let Ok(identity) = self.verify_token(password) {
            if user == TOKEN_USER || user.is_empty() || *identity.user == *user {
                return Ok(identity);
            }
            return Err(AuthError::Wrong);
        }
        if user == TOKEN_USER {
            return Err(AuthError::Expired);
        }
        self.refresh_users();
        let known = self.users.lock().get(user);
        let is_known = known.is_some();
        let hash = known.unwrap_or_else(|| self.decoy.clone());
        let fits = self.check_password(hash, password.to_string()).await?;
        if is_known && fits {
            Ok(Identity { user: Arc::from(user) })
        } else {
            Err(AuthError::Wrong)
        }
    }

    /// Checks the token of a later call and keeps it alive.
    ///
    /// # Errors
    /// Unknown or expired tokens.
    pub fn verify_token(&self, token: &str) -> Result<Identity, AuthError> {
        if !Token::has_form(token) {
            return Err(AuthError::Expired);
        }
        self.refresh_users();
        self.tokens
            .lock()
            .touch(token, Instant::now())
            .map(|user| Identity { user })
            .ok_or(AuthError::Expired)
    }

    /// Gives a new token to a user that was checked.
    pub fn issue(&self, identity: &Identity) -> Token {
        self.tokens.lock().issue(&identity.user, Instant::now())
    }

    /// Ends a token before its time.
    pub fn revoke(&self, token: &str) {
        self.tokens.lock().revoke(token);
    }

    /// Tokens that are alive.
    pub fn live_tokens(&self) -> usize {
        self.tokens.lock().live(Instant::now())
    }

    /// Checks an `authorization` header of either kind.
    ///
    /// # Errors
    /// As [`Self::verify`] and [`Self::verify_token`], and headers of no known form.
    pub async fn authorize(&self, header: Option<&str>) -> Result<Identity, AuthError> {
        match Credentials::parse(header.ok_or(AuthError::Missing)?)? {
            Credentials::Basic { user, password } => self.verify(&user, &password).await,
            Credentials::Bearer(token) => self.verify_token(&token),
        }
    }

    async fn check_password(&self, hash: PasswordHashString, password: String) -> Result<bool, AuthError> {
        let waiting = Arc::clone(&self.waiting);
        let waiting = waiting.try_acquire_owned().map_err(|_| AuthError::Busy)?;
        let checks = Arc::clone(&self.checks);
        let turn = checks.acquire_owned().await.map_err(|_| AuthError::Failed)?;
        let check = move || {
            // Until it is done, also where the client has gone away.
            let _held = (waiting, turn);
            Argon2::default()
                .verify_password(password.as_bytes(), &hash.password_hash())
                .is_ok()
        };
        tokio::task::spawn_blocking(check).await.map_err(|_| AuthError::Failed)
    }

    /// Takes over a changed users file. One that became unreadable keeps the users as they were: a half-written file
    /// must not lock everybody out.
    fn refresh_users(&self) {
        let changed = match self.users.lock().refresh(Instant::now()) {
            Ok(changed) => changed,
            Err(error) => {
                tracing::warn!(%error, "the users file cannot be read again; the users stay as they were");
                return;
            }
        };
        if !changed.is_empty() {
            self.tokens.lock().revoke_users(&changed);
            tracing::info!(users = changed.len(), "users changed; their tokens have ended");
        }
    }
}

/// What an `authorization` header holds.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User and password.
    Basic {
        /// User name.
        user: String,
        /// Password, or a token.
        password: String,
    },
    /// A token.
    Bearer(String),
}

/// Shows the kind only: credentials must not reach a log through `Debug`.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic(…)",
            Self::Bearer(_) => "Bearer(…)",
        })
    }
}

impl Credentials {
    /// Reads the value of an `authorization` header.
    ///
    /// # Errors
    /// Other schemes, and text that is not base64 of `user:password`.
    pub fn parse(header: &str) -> Result<Self, AuthError> {
        let (scheme, rest) = header.trim().split_once(' ').ok_or(AuthError::Malformed)?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Ok(Self::Bearer(rest.to_string()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(AuthError::Malformed);
        }
        let bytes = BASE64.decode(rest).map_err(|_| AuthError::Malformed)?;
        let text = String::from_utf8(bytes).map_err(|_| AuthError::Malformed)?;
        let (user, password) = text.split_once(':').ok_or(AuthError::Malformed)?;
        Ok(Self::Basic {
            user: user.to_string(),
            password: password.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TokenLimits = TokenLimits {
        idle: Duration::from_secs(60),
        per_user_max: 2,
    };

    fn with_ada() -> (tempfile::TempDir, Authenticator) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        add_user(&file, "ada", "s3cret").unwrap();
        let authenticator = Authenticator::open(&file, LIMITS).unwrap();
        (folder, authenticator)
    }

    #[tokio::test]
    async fn passwords_then_tokens() {
        let (_folder, auth) = with_ada();
        let identity = auth.verify("ada", "s3cret").await.unwrap();
        assert_eq!(auth.verify("ada", "wrong").await, Err(AuthError::Wrong));
        assert_eq!(auth.verify("eve", "s3cret").await, Err(AuthError::Wrong));
        assert_eq!(auth.verify("", "").await, Err(AuthError::Wrong));

        let token = auth.issue(&identity);
        assert_eq!(auth.verify_token(token.expose()).unwrap(), identity);
        assert_eq!(auth.verify(TOKEN_USER, token.expose()).await.unwrap(), identity);
        assert_eq!(auth.verify("ada", token.expose()).await.unwrap(), identity);
        assert_eq!(auth.verify("eve", token.expose()).await, Err(AuthError::Wrong));
        assert!(!format!("{token:?}").contains(token.expose()));
        auth.revoke(token.expose());
        assert_eq!(auth.verify_token(token.expose()), Err(AuthError::Expired));
        assert_eq!(auth.verify(TOKEN_USER, token.expose()).await, Err(AuthError::Expired));
    }

    #[tokio::test]
    async fn headers_of_both_kinds() {
        let (_folder, auth) = with_ada();
        let basic = format!("Basic {}", BASE64.encode("ada:s3cret"));
        let identity = auth.authorize(Some(&basic)).await.unwrap();
        let bearer = format!("bearer {}", auth.issue(&identity).expose());
        assert_eq!(auth.authorize(Some(&bearer)).await.unwrap(), identity);
        assert_eq!(auth.authorize(None).await, Err(AuthError::Missing));
        for bad in ["", "Basic", "Basic ???", "Digest x", "Basic YWRh"] {
            assert_eq!(auth.authorize(Some(bad)).await, Err(AuthError::Malformed), "{bad}");
        }
        assert_eq!(format!("{:?}", Credentials::parse(&basic).unwrap()), "Basic(…)");
    }

    #[tokio::test]
    async fn users_that_leave_lose_their_tokens() {
        let (folder, auth) = with_ada();
        let token = auth.issue(&auth.verify("ada", "s3cret").await.unwrap());
        let file = folder.path().join("users");
        add_user(&file, "bob", "b").unwrap();
        remove_user(&file, "ada").unwrap();
        auth.users.lock().look_again_now();
        assert_eq!(auth.verify_token(token.expose()), Err(AuthError::Expired));
        assert_eq!(auth.verify("ada", "s3cret").await, Err(AuthError::Wrong));
        auth.verify("bob", "b").await.unwrap();
        std::fs::write(&file, "not a line").unwrap();
        auth.users.lock().look_again_now();
        auth.verify("bob", "b").await.unwrap();
    }
}
