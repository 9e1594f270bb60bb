//! `trireme serve` on the command line: what it refuses ends with one line that says what to do, and exit code 2.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::recovery::one_line;
use crate::server::{Server, command, serve_and_wait};

const LISTEN: [&str; 4] = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];

/// Runs `serve` over a fresh folder; the one line it ends with.
fn refused(args: &[&str], what: &str) -> String {
    let data = tempfile::tempdir().unwrap();
    let mut all = vec!["--data", data.path().to_str().unwrap()];
    all.extend(args);
    let output = serve_and_wait(&all);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
    one_line(&output.stderr, what)
}

#[test]
fn ports_in_use() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let line = refused(&["--listen", &address, "--http", "127.0.0.1:0"], &address);
    assert!(line.contains("in use"), "{line}");
    let line = refused(&["--listen", "127.0.0.1:0", "--http", &address], &address);
    assert!(line.contains("in use"), "{line}");
    refused(&["--listen", &address, "--http", &address], "http_listen");
}

#[test]
fn beyond_loopback_needs_tls_and_users() {
    for args in [
        ["--listen", "0.0.0.0:0", "--http", "127.0.0.1:0"],
        ["--listen", "127.0.0.1:0", "--http", "0.0.0.0:0"],
        ["--listen", "[::]:0", "--http", "127.0.0.1:0"],
    ] {
        let line = refused(&args, "tls_certificate_file");
        assert!(line.contains("users_file"), "{line}");
    }
}

#[test]
fn bad_settings() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("t.toml");
    let path = config.to_str().unwrap();
    for (text, what) in [
        ("[server]\nlisten_adress = \"127.0.0.1:0\"\n", "listen"),
        ("[exec]\nbatch_rows = \"many\"\n", "exec.batch_rows"),
        ("[exec]\nbatch_rows = 0\n", "exec.batch_rows"),
        ("[server\n", "t.toml"),
        ("nonsense = 1\n", "nonsense"),
    ] {
        std::fs::write(&config, text).unwrap();
        refused(&["--config", path], what);
    }
    refused(&["--config", "/nowhere/at/all.toml"], "/nowhere/at/all.toml");
    refused(&["--listen", "nonsense"], "nonsense");
    let output = command().args(["serve", "--no-such-flag"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let output = command()
        .args(["serve"])
        .args(LISTEN)
        .env("TRIREME_EXEC_BATCH_ROW", "5")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    one_line(&output.stderr, "TRIREME_EXEC_BATCH_ROWS");
}

#[test]
fn folders_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let file = file.to_str().unwrap();
    let output = serve_and_wait(&[&["--data", file][..], &LISTEN].concat());
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    one_line(&output.stderr, file);
    // A folder below a file can't be made, whoever we are.
    let below = format!("{file}/data");
    let output = serve_and_wait(&[&["--data", &below][..], &LISTEN].concat());
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    one_line(&output.stderr, &below);
    // Permissions bind everyone but root, as which containers often run.
    let locked = folder.path().join("locked");
    std::fs::create_dir(&locked).unwrap();
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::read_dir(&locked).is_err() {
        let locked = locked.to_str().unwrap();
        let output = serve_and_wait(&[&["--data", locked][..], &LISTEN].concat());
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        one_line(&output.stderr, locked);
    }
}

#[tokio::test]
async fn http_tells_its_state() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    assert_eq!(server.get("/healthz").unwrap().0, 200);
    assert_eq!(server.get("/readyz").unwrap().0, 200);
    assert_eq!(server.get("/nothing").unwrap().0, 404);
    let mut client = server.client().await;
    client.query("SELECT 1").await.unwrap();
    let _ = client.query("SELECT nonsense FROM nowhere").await;
    let (status, body) = server.get("/metrics").unwrap();
    assert_eq!(status, 200);
    let samples = body.lines().filter(|line| line.starts_with("trireme_")).count();
    assert!(samples > 0, "no trireme_ metric in:\n{body}");
    for line in body.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let value = line.rsplit(' ').next().unwrap();
        assert!(value.parse::<f64>().is_ok(), "not a sample: {line}");
    }
}

#[tokio::test]
async fn logs_are_json_when_asked() {
    let data = tempfile::tempdir().unwrap();
    let config = data.path().join("t.toml");
    let folder = data.path().join("data");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(&config, "[server]\nlog_format = \"json\"\n").unwrap();
    let server = Server::start_with(&folder, &["--config", config.to_str().unwrap()]);
    server.client().await.query("SELECT 1").await.unwrap();
    let log = server.log();
    // What follows the last line's end is being written.
    let (log, _) = log.rsplit_once('\n').expect("the start is logged");
    for line in log.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}
