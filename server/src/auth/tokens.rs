//! Bearer tokens: 256 random bits, kept as SHA-256, with an idle time and a cap for each user.

use super::TokenLimits;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

const TOKEN_BYTES: usize = 32;
/// Makes a token recognisable to scanners for leaked secrets, and tells it from a password.
const TOKEN_PREFIX: &str = "trireme_";
const TOKEN_CHARS: usize = TOKEN_PREFIX.len() + TOKEN_BYTES.div_ceil(3) * 4 - 1;

/// A token as the client gets it. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    fn random() -> Self {
        let bytes: [u8; TOKEN_BYTES] = rand::random();
        Self(format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// The secret itself, for the header that gives it to its owner and for nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether a text can be a token at all.
    pub(super) fn has_form(text: &str) -> bool {
        text.len() == TOKEN_CHARS && text.starts_with(TOKEN_PREFIX)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

type Hash = [u8; 32];

struct Entry {
    user: Arc<str>,
    used: Instant,
}

/// The table of live tokens.
///
/// Invariant: `by_user` holds exactly the keys of `entries`, and no more than `per_user_max` for each user.
pub(super) struct Tokens {
    limits: TokenLimits,
    entries: HashMap<Hash, Entry>,
    by_user: HashMap<Arc<str>, HashSet<Hash>>,
    swept: Option<Instant>,
}

impl Tokens {
    pub(super) fn new(limits: TokenLimits) -> Self {
        Self {
            limits,
            entries: HashMap::new(),
            by_user: HashMap::new(),
            swept: None,
        }
    }

    pub(super) fn issue(&mut self, user: &Arc<str>, now: Instant) -> Token {
        self.sweep(now);
        while self
            .by_user
            .get(user)
            .is_some_and(|hashes| hashes.len() >= self.limits.per_user_max.max(1))
        {
            let idlest = self.by_user.get(user).and_then(|hashes| {
                hashes
                    .iter()
                    .min_by_key(|hash| self.entries.get(*hash).map(|entry| entry.used))
                    .copied()
            });
            match idlest {
                Some(hash) => self.remove(&hash),
                None => break,
            }
        }
        let token = Token::random();
        let hash = hash(token.expose());
        self.entries.insert(
            hash,
            Entry {
                user: Arc::clone(user),
                used: now,
            },
        );
        self.by_user.entry(Arc::clone(user)).or_default().insert(hash);
        token
    }

    /// The user of a live token, whose idle time starts anew.
    pub(super) fn touch(&mut self, token: &str, now: Instant) -> Option<Arc<str>> {
        let hash = hash(token);
        let entry = self.entries.get_mut(&hash)?;
        if now.saturating_duration_since(entry.used) > self.limits.idle {
            self.remove(&hash);
            return None;
        }
        entry.used = now;
        Some(Arc::clone(&entry.user))
    }

    pub(super) fn revoke(&mut self, token: &str) {
        self.remove(&hash(token));
    }

    pub(super) fn revoke_users(&mut self, users: &[String]) {
        for user in users {
            for hash in self.by_user.remove(user.as_str()).unwrap_or_default() {
                self.entries.remove(&hash);
            }
        }
    }

    pub(super) fn live(&mut self, now: Instant) -> usize {
        self.swept = None;
        self.sweep(now);
        self.entries.len()
    }

    fn remove(&mut self, hash: &Hash) {
        let Some(entry) = self.entries.remove(hash) else { return };
        if let Some(hashes) = self.by_user.get_mut(&entry.user) {
            hashes.remove(hash);
            if hashes.is_empty() {
                self.by_user.remove(&entry.user);
            }
        }
    }

    /// Drops expired tokens, at most once in a tenth of the idle time: a sweep looks at all of them.
    fn sweep(&mut self, now: Instant) {
        if self
            .swept
            .is_some_and(|last| now.saturating_duration_since(last) < self.limits.idle / 10)
        {
            return;
        }
        self.swept = Some(now);
        let idle = self.limits.idle;
        let expired: Vec<Hash> = self
            .entries
            .iter()
            .filter(|(_, entry)| now.saturating_duration_since(entry.used) > idle)
            .map(|(hash, _)| *hash)
            .collect();
        for hash in expired {
            self.remove(&hash);
        }
    }
}

fn hash(token: &str) -> Hash {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn tokens() -> (Tokens, Arc<str>, Instant) {
        let limits = TokenLimits {
            idle: Duration::from_secs(60),
            per_user_max: 2,
        };
        (Tokens::new(limits), Arc::from("ada"), Instant::now())
    }

    #[test]
    fn idle_tokens_expire_and_used_ones_slide() {
        let (mut tokens, ada, start) = tokens();
        let after = |seconds| start + Duration::from_secs(seconds);
        let token = tokens.issue(&ada, start);
        assert!(Token::has_form(token.expose()));
        assert_eq!(tokens.touch(token.expose(), after(50)).as_deref(), Some("ada"));
        assert_eq!(tokens.touch(token.expose(), after(100)).as_deref(), Some("ada"));
        assert_eq!(tokens.touch(token.expose(), after(161)), None);
        assert_eq!(tokens.live(after(161)), 0);
        assert!(tokens.by_user.is_empty());
    }

    #[test]
    fn the_cap_takes_the_one_unused_for_longest() {
        let (mut tokens, ada, start) = tokens();
        let after = |seconds| start + Duration::from_secs(seconds);
        let first = tokens.issue(&ada, start);
        let second = tokens.issue(&ada, after(1));
        assert!(tokens.touch(first.expose(), after(2)).is_some());
        let bobs = tokens.issue(&Arc::from("bob"), after(3));
        let third = tokens.issue(&ada, after(3));
        assert!(tokens.touch(second.expose(), after(4)).is_none());
        for alive in [&first, &third, &bobs] {
            assert!(tokens.touch(alive.expose(), after(4)).is_some());
        }
        assert_eq!(tokens.live(after(4)), 3);
    }

    #[test]
    fn sweeping_removes_what_nobody_asks_for() {
        let (mut tokens, ada, start) = tokens();
        tokens.issue(&ada, start);
        tokens.issue(&Arc::from("bob"), start + Duration::from_secs(100));
        assert_eq!(tokens.entries.len(), 1);
    }
}
