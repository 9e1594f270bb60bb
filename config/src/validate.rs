//! Rules between settings. Each refusal is one line that names the settings to change.

use crate::{Config, ConfigError};
use std::net::SocketAddr;

impl Config {
    /// Checks what no single row can: addresses beyond loopback, and settings that need one another.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let server = &self.server;
        match (&server.tls_certificate_file, &server.tls_key_file) {
            (Some(_), None) => {
                return conflict("`server.tls_certificate_file` is set but `server.tls_key_file` is not; set both");
            }
            (None, Some(_)) => {
                return conflict("`server.tls_key_file` is set but `server.tls_certificate_file` is not; set both");
            }
            _ => {}
        }
        self.check_reach("server.listen", server.listen)?;
        self.check_reach("server.http_listen", server.http_listen)?;
        if server.listen == server.http_listen && server.listen.port() != 0 {
            return conflict(format!(
                "`server.listen` and `server.http_listen` are both {}; give them different ports",
                server.listen
            ));
        }
        self.costs.prices().map_err(ConfigError::Conflict)?;
        self.costs.watts().map_err(ConfigError::Conflict)?;
        if self.limits.max_send_batch_bytes > self.limits.max_message_bytes {
            return conflict(format!(
                "`limits.max_send_batch_bytes` ({}) is more than `limits.max_message_bytes` ({})",
                self.limits.max_send_batch_bytes, self.limits.max_message_bytes
            ));
        }
        Ok(())
    }

    /// Whether clients speak TLS.
    pub fn has_tls(&self) -> bool {
        self.server.tls_certificate_file.is_some() && self.server.tls_key_file.is_some()
    }

    /// An address that others can reach needs both a secret line and names: each without the other gives the data to
    /// whoever listens or asks.
    fn check_reach(&self, key: &str, address: SocketAddr) -> Result<(), ConfigError> {
        let mut missing = Vec::new();
        if self.server.tls_certificate_file.is_none() {
            missing.push("`server.tls_certificate_file`");
        }
        if self.server.tls_key_file.is_none() {
            missing.push("`server.tls_key_file`");
        }
        if self.server.users_file.is_none() {
            missing.push("`server.users_file`");
        }
        if address.ip().to_canonical().is_loopback() || missing.is_empty() {
            return Ok(());
        }
        conflict(format!(
            "`{key}` = {address} ({}) can be reached from other machines, which needs TLS and users: set {}, \
             or listen on 127.0.0.1",
            self.source(key),
            missing.join(", "),
        ))
    }
}

fn conflict(text: impl Into<String>) -> Result<(), ConfigError> {
    Err(ConfigError::Conflict(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(flags: &[(&str, &str)]) -> Result<Config, String> {
        let flags: Vec<_> = flags
            .iter()
            .map(|(key, value)| ((*key).to_string(), (*value).to_string()))
            .collect();
        Config::load(None, [], &flags).map_err(|error| error.to_string())
    }

    const TLS: [(&str, &str); 2] = [
        ("server.tls_certificate_file", "c.pem"),
        ("server.tls_key_file", "k.pem"),
    ];

    #[test]
    fn beyond_loopback_needs_tls_and_users() {
        assert_eq!(
            load(&[("server.listen", "0.0.0.0:7433")]).unwrap_err(),
            "`server.listen` = 0.0.0.0:7433 (command line) can be reached from other machines, which needs TLS and \
             users: set `server.tls_certificate_file`, `server.tls_key_file`, `server.users_file`, or listen on \
             127.0.0.1"
        );
        let [certificate, key] = TLS;
        let open = ("server.http_listen", "[::]:7480");
        assert!(
            load(&[open, certificate, key])
                .unwrap_err()
                .contains("users: set `server.users_file`, or")
        );
        assert!(
            load(&[open, ("server.users_file", "u")])
                .unwrap_err()
                .contains("`server.tls_key_file`")
        );
        load(&[open, certificate, key, ("server.users_file", "u")]).unwrap();
        load(&[("server.listen", "[::1]:7433")]).unwrap();
        load(&[("server.listen", "127.0.0.2:7433")]).unwrap();
        load(&[("server.listen", "[::ffff:127.0.0.1]:7433")]).unwrap();
    }

    #[test]
    fn settings_that_need_one_another() {
        assert!(load(&[TLS[0]]).unwrap_err().contains("`server.tls_key_file` is not"));
        assert!(
            load(&[TLS[1]])
                .unwrap_err()
                .contains("`server.tls_certificate_file` is not")
        );
        assert!(load(&TLS).unwrap().has_tls());
        let same = [("server.listen", "127.0.0.1:1"), ("server.http_listen", "127.0.0.1:1")];
        assert!(load(&same).unwrap_err().contains("different ports"));
        load(&[("server.listen", "127.0.0.1:0"), ("server.http_listen", "127.0.0.1:0")]).unwrap();
    }
}
