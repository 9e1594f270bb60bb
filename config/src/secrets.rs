//! Settings of named secrets.

use std::path::PathBuf;

settings! {
    /// Credentials of stores that SQL names: CREATE SECRET.
    pub struct Secrets = "secrets" {
        /// Users who may create and drop secrets; "" means every user. They also may use the server's own profiles and roles.
        administrators: Vec<String> = Vec::new(), Plain;
        /// File with 32 bytes in base64 that seal `.trireme/secrets.json`; "" keeps it as plain text, for the server's user only.
        key_file: Option<PathBuf> = None, Plain;
    }
}
