//! The sealed form of the secrets' file: AES-256-GCM under a key of the operator's.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::error::CatalogError;

/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// Binds what is sealed to what it is for.
const PURPOSE: &[u8] = b"trireme secrets 1";

/// A key that was read from a file; it is never shown.
#[derive(Clone)]
pub struct SecretKey(LessSafeKey);

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

impl SecretKey {
    /// Reads 32 bytes, written in base64 (`openssl rand -base64 32`).
    ///
    /// # Errors
    /// A file that can't be read, or holds something else.
    pub fn read(path: &Path) -> Result<Self, CatalogError> {
        let text = std::fs::read_to_string(path).map_err(CatalogError::io(path))?;
        let wrong = || {
            CatalogError::invalid_hint(
                format!("{} holds no key of {KEY_BYTES} bytes in base64", path.display()),
                "make one with: openssl rand -base64 32",
            )
        };
        let bytes = STANDARD.decode(text.trim()).map_err(|_| wrong())?;
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| wrong())?;
        Ok(Self(LessSafeKey::new(key)))
    }
}

/// Sealed bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Sealed {
    algorithm: String,
    nonce: String,
    data: String,
}

/// As written into the file.
const ALGORITHM: &str = "AES-256-GCM";

impl Sealed {
    /// Seals under a nonce drawn by chance; `None` when the system gives none.
    pub(super) fn new(key: &SecretKey, mut bytes: Vec<u8>) -> Option<Self> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let sealing = Nonce::assume_unique_for_key(nonce);
        key.0
            .seal_in_place_append_tag(sealing, Aad::from(PURPOSE), &mut bytes)
            .ok()?;
        Some(Self {
            algorithm: ALGORITHM.to_owned(),
            nonce: STANDARD.encode(nonce),
            data: STANDARD.encode(bytes),
        })
    }

    /// What was sealed; `None` for another key, or damage.
    pub(super) fn opened(&self, key: &SecretKey) -> Option<Vec<u8>> {
        if self.algorithm != ALGORITHM {
            return None;
        }
        let nonce = STANDARD.decode(&self.nonce).ok()?;
        let nonce = Nonce::try_assume_unique_for_key(&nonce).ok()?;
        let mut bytes = STANDARD.decode(&self.data).ok()?;
        let opened = key.0.open_in_place(nonce, Aad::from(PURPOSE), &mut bytes).ok()?;
        Some(opened.to_vec())
    }
}
