//! TLS and users: the handshake that ADBC and JDBC make, and what each wrong credential gets.

use std::path::Path;
use std::process::{Command, Stdio};

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{HandshakeRequest, HandshakeResponse};
use futures::TryStreamExt;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use crate::client::Client;
use crate::server::{Server, command};

struct Secured {
    folder: tempfile::TempDir,
    server: Server,
}

/// A server with TLS and two users: `alice` with the password `open sesame`, `bob` with `close sesame`.
fn secured() -> Secured {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    make_certificate(folder.path());
    add_user(&at("users"), "alice", "open sesame");
    add_user(&at("users"), "bob", "close sesame");
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let config = format!(
        "[server]\ntls_certificate_file = \"{}\"\ntls_key_file = \"{}\"\nusers_file = \"{}\"\n",
        at("cert.pem"),
        at("key.pem"),
        at("users"),
    );
    std::fs::write(folder.path().join("t.toml"), config).unwrap();
    let server = Server::start_tls(&data, &["--config", &at("t.toml")]);
    Secured { folder, server }
}

fn make_certificate(folder: &Path) {
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .args([folder.join("key.pem"), "-out".into(), folder.join("cert.pem")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("openssl makes the test's certificate");
    assert!(made.success());
}

fn add_user(file: &str, name: &str, password: &str) {
    use std::io::Write;
    let mut child = command()
        .args(["user", "add", "--users-file", file, name])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(format!("{password}\n").as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let written = std::fs::read_to_string(file).unwrap();
    assert!(!written.contains(password), "the password itself is stored");
}

impl Secured {
    fn endpoint(&self) -> Endpoint {
        let pem = std::fs::read(self.folder.path().join("cert.pem")).unwrap();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(pem))
            .domain_name("localhost");
        Endpoint::from_shared(format!("https://{}", self.server.flight))
            .unwrap()
            .tls_config(tls)
            .unwrap()
    }

    async fn client(&self) -> Client {
        Client::over(self.endpoint()).await
    }
}

fn basic(user: &str, password: &str) -> String {
    // RFC 4648, enough for a header of a test.
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("Basic ");
    for chunk in format!("{user}:{password}").as_bytes().chunks(3) {
        let bits = chunk
            .iter()
            .enumerate()
            .fold(0_u32, |bits, (i, byte)| bits | u32::from(*byte) << (16 - 8 * i));
        for i in 0..4 {
            let symbol = ALPHABET[(bits >> (18 - 6 * i)) as usize & 63] as char;
            text.push(if i <= chunk.len() { symbol } else { '=' });
        }
    }
    text
}

/// The bearer header that a handshake gives, as ADBC reads it: from the response's headers.
async fn handshake(
    raw: &mut FlightServiceClient<Channel>,
    header: &str,
) -> Result<(String, Vec<HandshakeResponse>), Status> {
    let mut request = Request::new(futures::stream::iter([HandshakeRequest::default()]));
    request.metadata_mut().insert("authorization", header.parse().unwrap());
    let response = raw.handshake(request).await?;
    let given = response
        .metadata()
        .get("authorization")
        .map(|value| value.to_str().unwrap().to_owned());
    let messages = response.into_inner().try_collect().await?;
    Ok((given.expect("an authorization header on the response"), messages))
}

#[tokio::test]
async fn a_handshake_gives_a_token() {
    let secured = secured();
    let mut client = secured.client().await;
    let status = client.query("SELECT 1").await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    let (bearer, _) = handshake(&mut client.raw, &basic("alice", "open sesame"))
        .await
        .unwrap();
    assert!(bearer.starts_with("Bearer "), "{bearer}");
    client.authorization = Some(bearer.clone());
    assert_eq!(client.number("SELECT 1").await, 1);
    // The token is the session: over another connection it is the same one.
    client.query("SET trireme.batch_rows = 321").await.unwrap();
    let mut other = secured.client().await;
    other.authorization = Some(bearer.clone());
    let rows = other.query("SHOW trireme.batch_rows").await.unwrap().rows();
    assert_eq!(rows[0].last().unwrap(), "321");
    // Tokens as passwords: BI tools with two fields only; JDBC's `token` makes a handshake as well.
    let token = bearer.strip_prefix("Bearer ").unwrap();
    let (again, _) = handshake(&mut client.raw, &bearer).await.unwrap();
    assert!(again.starts_with("Bearer "));
    let (again, _) = handshake(&mut client.raw, &basic("token", token)).await.unwrap();
    client.authorization = Some(again);
    assert_eq!(client.number("SELECT 1").await, 1);
}

#[tokio::test]
async fn basic_credentials_work_without_a_handshake() {
    let secured = secured();
    let mut client = secured.client().await;
    let header = basic("alice", "open sesame");
    assert!(header.ends_with('='), "the case below needs padding");
    // arrow-go, and so ADBC, leaves the padding out.
    for header in [header.as_str(), header.trim_end_matches('=')] {
        client.authorization = Some(header.to_owned());
        assert_eq!(client.number("SELECT 1").await, 1);
        assert!(
            handshake(&mut client.raw, header)
                .await
                .unwrap()
                .0
                .starts_with("Bearer ")
        );
    }
}

#[tokio::test]
async fn wrong_credentials_are_unauthenticated() {
    let secured = secured();
    let mut client = secured.client().await;
    for header in [
        basic("alice", "wrong"),
        basic("alice", ""),
        basic("nobody", "open sesame"),
        basic("", ""),
        "Basic not-base64!".to_owned(),
        "Bearer nothing".to_owned(),
        "Bearer ".to_owned(),
        "Negotiate abc".to_owned(),
    ] {
        let status = handshake(&mut client.raw, &header).await.expect_err(&header);
        assert_eq!(status.code(), Code::Unauthenticated, "{header}: {status}");
        assert!(!status.message().contains("sesame"), "{status}");
        client.authorization = Some(header.clone());
        let status = client.query("SELECT 1").await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{header}: {status}");
        let status = client.action("MakeCoffee", vec![]).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{header}: {status}");
    }
}

#[tokio::test]
async fn a_session_is_closed_by_its_user_alone() {
    let secured = secured();
    let mut alice = secured.client().await;
    alice.authorization = Some(basic("alice", "open sesame"));
    alice.query("SET trireme.batch_rows = 321").await.unwrap();
    let mut bob = secured.client().await;
    bob.authorization = Some(basic("bob", "close sesame"));
    let sessions = "SELECT session_id FROM system.sessions WHERE \"user\" = 'alice'";
    let sessions = bob.query(sessions).await.unwrap().rows();
    let mut request = bob.request(arrow_flight::Action::new("CloseSession", ""));
    let cookie = format!("trireme_session={}", sessions[0][0]);
    request.metadata_mut().insert("cookie", cookie.parse().unwrap());
    let _ = bob.raw.do_action(request).await;
    let rows = alice.query("SHOW trireme.batch_rows").await.unwrap().rows();
    assert_eq!(rows[0].last().unwrap(), "321");
}

#[tokio::test]
async fn plain_text_gets_nothing_from_a_tls_port() {
    let secured = secured();
    let plain = Endpoint::from_shared(format!("http://{}", secured.server.flight)).unwrap();
    if let Ok(channel) = plain.connect().await {
        let mut raw = FlightServiceClient::new(channel);
        assert!(raw.list_actions(arrow_flight::Empty {}).await.is_err());
    }
    let mut client = secured.client().await;
    client.authorization = Some(basic("alice", "open sesame"));
    assert_eq!(client.number("SELECT 1").await, 1);
}
