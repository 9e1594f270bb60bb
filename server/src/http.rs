//! The HTTP address: metrics for Prometheus, and the two questions of an orchestrator.
//!
//! `/healthz` says whether the process lives, `/readyz` whether it should get work. Both are open, since orchestrators
//! ask without credentials and learn one word. `/metrics` asks for credentials as soon as there is a users file.

use crate::auth::{AuthError, Authenticator};
use crate::telemetry::Metrics;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use rustls::ServerConfig;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// Handshakes at the same time; a stranger who connects and stays silent holds one for [`HANDSHAKE`] at most.
const HANDSHAKES_MAX: usize = 64;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long after an error of the listener (no more files, say) it tries again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether the server should get work. Clones share the state.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicU8>);

/// The states of a server, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It reads what it needs.
    Starting,
    /// It answers.
    Ready,
    /// It finishes what runs and takes nothing new.
    Draining,
}

impl Readiness {
    /// A server that starts.
    pub fn new() -> Self {
        Self::default()
    }

    /// The server answers from now on, unless it drains already.
    pub fn set_ready(&self) {
        let _ = self.0.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The server takes nothing new from now on. There is no way back.
    pub fn set_draining(&self) {
        self.0.store(2, Ordering::Release);
    }

    /// The state now.
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }
}

/// What the handlers see.
#[derive(Clone)]
pub struct HttpState {
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// What `/readyz` says.
    pub readiness: Readiness,
    /// Who may see metrics; everybody without it.
    pub authenticator: Option<Arc<Authenticator>>,
}

/// The routes.
pub fn router(state: HttpState) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(not_found)
        .with_state(state)
}

/// Answers on `listener` until `stop`, then finishes what runs.
///
/// # Errors
/// A listener that cannot tell its address.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    stop: CancellationToken,
) -> io::Result<()> {
    let stopped = stop.clone().cancelled_owned();
    match tls {
        None => axum::serve(listener, router).with_graceful_shutdown(stopped).await,
        Some(config) => {
            let listener = TlsListener::start(listener, config, stop)?;
            axum::serve(listener, router).with_graceful_shutdown(stopped).await
        }
    }
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(state): State<HttpState>) -> (StatusCode, &'static str) {
    match state.readiness.phase() {
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Phase::Ready => (StatusCode::OK, "ready\n"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

async fn metrics(State(state): State<HttpState>, headers: HeaderMap) -> Response {
    if let Some(authenticator) = &state.authenticator {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if let Err(error) = authenticator.authorize(given).await {
            state
                .metrics
                .auth_failures_total
                .with_label_values(&[error.reason()])
                .inc();
            return refusal(error);
        }
    }
    match state.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            (StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written\n").into_response()
        }
    }
}

fn refusal(error: AuthError) -> Response {
    let status = match error {
        AuthError::Busy | AuthError::Failed => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::UNAUTHORIZED,
    };
    let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"trireme\", Bearer")];
    (status, challenge, format!("{error}\nhint: {}\n", error.hint())).into_response()
}

async fn not_found() -> (StatusCode, &'static str) {
    (
        StatusCode::NOT_FOUND,
        "not found; there are /metrics, /healthz and /readyz\n",
    )
}

/// Gives out connections whose TLS handshake is done. Handshakes run beside one another, so that a slow client does not
/// keep the others out.
struct TlsListener {
    done: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl TlsListener {
    fn start(listener: TcpListener, config: Arc<ServerConfig>, stop: CancellationToken) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (to_server, done) = mpsc::channel(HANDSHAKES_MAX);
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = accept_all(listener, TlsAcceptor::from(config), to_server) => {}
            }
        });
        Ok(Self { done, address })
    }
}

async fn accept_all(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    to_server: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let turns = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else {
            return;
        };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "http: a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, to_server) = (acceptor.clone(), to_server.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let _ = to_server.send((stream, peer)).await;
                }
                Ok(Err(error)) => tracing::debug!(%peer, %error, "http: a TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "http: a TLS handshake took too long"),
            }
            drop(turn);
        });
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.done.recv().await {
            Some(accepted) => accepted,
            // The server stops: the graceful shutdown beside this call ends the wait.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{TokenLimits, add_user};
    use axum::body::Body;
    use axum::http::Request;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tower::ServiceExt;

    fn state() -> HttpState {
        HttpState {
            metrics: Metrics::new().unwrap(),
            readiness: Readiness::new(),
            authenticator: None,
        }
    }

    async fn ask(state: &HttpState, path: &str, authorization: Option<&str>) -> (u16, String) {
        let mut request = Request::get(path);
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let response = router(state.clone())
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_follows_the_phases() {
        let state = state();
        assert_eq!(ask(&state, "/healthz", None).await, (200, "ok\n".into()));
        assert_eq!(ask(&state, "/readyz", None).await, (503, "starting\n".into()));
        state.readiness.set_ready();
        assert_eq!(ask(&state, "/readyz", None).await, (200, "ready\n".into()));
        state.readiness.set_draining();
        state.readiness.set_ready();
        assert_eq!(ask(&state, "/readyz", None).await, (503, "draining\n".into()));
        assert_eq!(ask(&state, "/x", None).await.0, 404);
    }

    #[tokio::test]
    async fn metrics_ask_for_credentials_when_there_are_users() {
        let mut state = state();
        let (status, text) = ask(&state, "/metrics", None).await;
        assert_eq!(status, 200);
        assert!(text.contains("# HELP trireme_sessions Open sessions."));

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        add_user(&file, "ada", "s3cret").unwrap();
        let limits = TokenLimits {
            idle: Duration::from_secs(60),
            per_user_max: 2,
        };
        state.authenticator = Some(Arc::new(Authenticator::open(&file, limits).unwrap()));
        assert_eq!(ask(&state, "/metrics", None).await.0, 401);
        assert_eq!(ask(&state, "/metrics", Some("Basic YWRhOndyb25n")).await.0, 401);
        let (status, text) = ask(&state, "/metrics", Some("Basic YWRhOnMzY3JldA==")).await;
        assert_eq!(status, 200);
        assert!(text.contains("trireme_auth_failures_total{reason=\"wrong\"} 1"));
        assert_eq!(ask(&state, "/healthz", None).await.0, 200);
    }

    #[tokio::test]
    async fn plain_http_answers_and_stops() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, None, router(state()), stop.clone()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"),
            "{answer}"
        );
        stop.cancel();
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn tls_refuses_plain_text_and_stops() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
        std::fs::write(&certificate, crate::tls::tests::CERTIFICATE_PEM).unwrap();
        std::fs::write(&key, crate::tls::tests::KEY_PEM).unwrap();
        let tls = crate::tls::load(&certificate, &key, crate::tls::ALPN_HTTP).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, Some(tls), router(state()), stop.clone()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"));
        stop.cancel();
        server.await.unwrap().unwrap();
    }
}
