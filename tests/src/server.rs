//! A server process for one test: free ports, its own data folder, its log kept for the failure message.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::client::Client;

/// How long a server of the test profile may take to get ready on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// The server binary under test.
pub(crate) fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("TRIREME_BIN") {
        return PathBuf::from(path);
    }
    // target/<profile>/deps/integration-… → target/<profile>/trireme
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("trireme");
    assert!(
        path.exists(),
        "{} is not built; build it or set TRIREME_BIN",
        path.display()
    );
    path
}

/// A port that was free a moment ago on loopback, and that no other test was given: its server would answer for this one's.
pub(crate) fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}

/// `trireme` with a clean environment: no `TRIREME_*` of the caller reaches it.
pub(crate) fn command() -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TRIREME_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Runs `trireme serve` with `args` that should make it end at once; kills it when it goes on.
pub(crate) fn serve_and_wait(args: &[&str]) -> Output {
    let mut command = command();
    command
        .arg("serve")
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + READY_LIMIT;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!("the server kept running: {}", String::from_utf8_lossy(&output.stderr));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

/// A running `trireme serve`; killed when dropped.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
    pub(crate) flight: SocketAddr,
    pub(crate) http: SocketAddr,
    // Last: removed after the process is gone.
    _scratch: tempfile::TempDir,
}

impl Server {
    /// A server over `data` on free ports, ready for calls.
    pub(crate) fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    /// The same with further arguments of `serve`.
    pub(crate) fn start_with(data: &Path, args: &[&str]) -> Self {
        Self::start_when(data, args, |server| {
            server.get("/readyz").is_some_and(|(status, _)| status == 200)
        })
    }

    /// A server whose HTTP speaks TLS as well: ready when both addresses take connections.
    pub(crate) fn start_tls(data: &Path, args: &[&str]) -> Self {
        Self::start_when(data, args, |server| {
            TcpStream::connect(server.flight).is_ok() && TcpStream::connect(server.http).is_ok()
        })
    }

    fn start_when(data: &Path, args: &[&str], ready: fn(&Self) -> bool) -> Self {
        // A port found free may be taken before the server binds it: then try another.
        for _ in 0..5 {
            if let Some(server) = Self::try_start(data, args, ready) {
                return server;
            }
        }
        panic!("no free port after five attempts");
    }

    fn try_start(data: &Path, args: &[&str], ready: fn(&Self) -> bool) -> Option<Self> {
        let scratch = tempfile::tempdir().unwrap();
        let log = scratch.path().join("server.log");
        let flight = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let http = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = command();
        command.arg("serve").arg("--data").arg(data);
        command
            .args(["--listen", &flight.to_string(), "--http", &http.to_string()])
            .args(args);
        command
            .stdout(File::create(&log).unwrap())
            .stderr(File::options().append(true).open(&log).unwrap());
        let child = command.spawn().unwrap();
        let mut server = Self {
            child,
            log,
            flight,
            http,
            _scratch: scratch,
        };
        let deadline = Instant::now() + READY_LIMIT;
        while !ready(&server) {
            if let Some(status) = server.child.try_wait().unwrap() {
                let log = server.log();
                // Another test was given the port meanwhile, or both addresses got one.
                let taken = log.contains("in use") || log.contains("give them different ports");
                assert!(taken, "the server ended with {status}:\n{log}");
                return None;
            }
            assert!(Instant::now() < deadline, "the server is not ready:\n{}", server.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(server)
    }

    /// What the server wrote so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Status and body of a plain HTTP GET; `None` when nobody answers.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.http, Duration::from_secs(10)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.http
        )
        .ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    /// A new connection without credentials.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.flight).await
    }

    /// Ends the process at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the process to drain (SIGTERM).
    pub(crate) fn terminate(&self) {
        let sent = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the server did not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone when a test killed it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- server log ---\n{}", self.log());
        }
    }
}
