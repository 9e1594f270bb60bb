//! Secrets on disk: kept, sealed, refused when they are not what was written.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn secret(name: &str, value: &str) -> SecretDefinition {
    let given = [("KEY_ID", "id"), ("SECRET", value)].map(|(key, value)| (key.to_owned(), value.to_owned()));
    SecretDefinition::new(name, "s3", &given, 7).unwrap()
}

fn key(folder: &Path, byte: u8) -> SecretKey {
    use base64::Engine;
    let path = folder.join(format!("key{byte}"));
    std::fs::write(
        &path,
        base64::engine::general_purpose::STANDARD.encode([byte; 32]) + "\n",
    )
    .unwrap();
    SecretKey::read(&path).unwrap()
}

#[test]
fn kept_for_the_servers_user_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secrets.json");
    let file = SecretsFile {
        secrets: vec![secret("a", "hunter2")],
        key: None,
    };
    file.write(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(SecretsFile::open(&path, None).unwrap().secrets, file.secrets);
}

#[test]
fn sealed_when_there_is_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secrets.json");
    let plain = SecretsFile {
        secrets: vec![secret("a", "hunter2")],
        key: None,
    };
    plain.write(&path).unwrap();
    let text = || std::fs::read_to_string(&path).unwrap();
    assert!(text().contains("hunter2"));
    // The first start with a key seals what was there.
    let sealed = SecretsFile::open(&path, Some(key(folder.path(), 1))).unwrap();
    assert_eq!(sealed.secrets, plain.secrets);
    assert!(!text().contains("hunter2") && !text().contains("key_id"), "{}", text());
    let again = SecretsFile::open(&path, Some(key(folder.path(), 1))).unwrap();
    assert_eq!(again.secrets, plain.secrets);
    for wrong in [None, Some(key(folder.path(), 2))] {
        let error = SecretsFile::open(&path, wrong).unwrap_err().to_string();
        assert!(error.contains("secrets.key_file"), "{error}");
    }
}

#[test]
fn a_key_has_its_length() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("short");
    std::fs::write(&path, "c2hvcnQ=").unwrap();
    let error = SecretKey::read(&path).unwrap_err();
    assert!(error.hint().unwrap().contains("openssl rand"), "{error}");
}
