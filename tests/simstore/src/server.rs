//! Connections and requests: what each meets on its way to a dialect and back.

use std::collections::HashMap;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::{Mutex, RwLock};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::body::{Flow, SimBody, Turn};
use crate::config::{Access, Config, Profile};
use crate::counters::{Kind, Ledger, Running};
use crate::draw::{Fate, Fault, Script, fate};
use crate::model::Model;
use crate::pace::{Gate, Lane};
use crate::query::{Dialect, Target};
use crate::reply::{self, Reply};
use crate::{admin, azure, s3};

/// All of a running store.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) profile: RwLock<Arc<Profile>>,
    pub(crate) access: RwLock<Access>,
    pub(crate) scripts: Mutex<Vec<Script>>,
    pub(crate) model: Model,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) lane: Lane,
    gates: Mutex<HashMap<String, Gate>>,
    requests: AtomicU64,
}

impl State {
    pub(crate) fn new(config: Config) -> Self {
        let model = Model::default();
        for bucket in &config.buckets {
            let _exists = model.create_bucket(bucket);
        }
        for (bucket, folder) in &config.folders {
            model.mount(bucket, folder.clone());
        }
        Self {
            profile: RwLock::new(Arc::new(config.profile.clone())),
            access: RwLock::new(config.access.clone()),
            scripts: Mutex::default(),
            model,
            ledger: Arc::new(Ledger::new(config.log_requests)),
            lane: Lane::new(),
            gates: Mutex::default(),
            requests: AtomicU64::new(0),
            config,
        }
    }

    /// The fault that a script has for this request.
    fn scripted(&self, kind: Kind, key: &str) -> Option<Fault> {
        let mut scripts = self.scripts.lock();
        let fits = |script: &Script| script.kind.is_none_or(|each| each == kind) && key.contains(&script.key_contains);
        let index = scripts.iter().position(fits)?;
        let script = &mut scripts[index];
        if script.skip > 0 {
            script.skip -= 1;
            return None;
        }
        let fault = (script.times > 0).then_some(script.fault);
        script.times = script.times.saturating_sub(1);
        if script.times == 0 {
            scripts.remove(index);
        }
        fault
    }

    /// False when the prefix has had too many requests lately.
    fn passes(&self, target: &Target, per_second: u32) -> bool {
        if per_second == 0 {
            return true;
        }
        let folder = target.key.split_once('/').map_or("", |(folder, _)| folder);
        let prefix = format!("{}/{folder}", target.bucket);
        let mut gates = self.gates.lock();
        let gate = gates.entry(prefix).or_insert_with(|| Gate::new(per_second));
        gate.pass(per_second)
    }
}

/// One connection of a client.
#[derive(Debug)]
pub(crate) struct Connection {
    number: u64,
    pub(crate) lane: Lane,
    reset: AtomicBool,
}

impl Connection {
    /// When it closes, it closes with a reset.
    pub(crate) fn reset(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }
}

/// Serves whoever comes.
pub(crate) async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Too many open files, as a rule.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _slower = stream.set_nodelay(true);
        tokio::spawn(connection(stream, Arc::clone(&state)));
    }
}

async fn connection(stream: TcpStream, state: Arc<State>) {
    let connection = Arc::new(Connection {
        number: state.ledger.connected(),
        lane: Lane::new(),
        reset: AtomicBool::new(false),
    });
    let io = TokioIo::new(Wire {
        stream,
        connection: Arc::clone(&connection),
    });
    let ledger = Arc::clone(&state.ledger);
    let service = service_fn(move |request| serve(Arc::clone(&state), Arc::clone(&connection), request));
    let served = hyper::server::conn::http1::Builder::new()
        .writev(true)
        .serve_connection(io, service)
        .await;
    // Clients go away, and faults cut connections: nothing to tell.
    let _gone = served;
    ledger.disconnected();
}

/// One request. An error closes the connection without an answer.
async fn serve(
    state: Arc<State>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Reply, std::io::Error> {
    let (parts, body) = request.into_parts();
    if parts.uri.path().starts_with("/_sim/") {
        let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        return Ok(admin::serve(&state, &parts, body));
    }
    let target = Target::new(&parts, &state.config);
    let kind = match target.dialect {
        Dialect::Azure => azure::kind(&parts, &target),
        Dialect::S3 | Dialect::Gcs => s3::kind(&parts, &target),
    };
    let number = state.requests.fetch_add(1, Ordering::Relaxed);
    let key = if kind == Kind::List {
        target.query.text("prefix")
    } else {
        target.key.clone()
    };
    let mut running = state
        .ledger
        .begin(number, kind, &target.bucket, &key, connection.number);
    let profile = state.profile.read().clone();
    let scripted = state.scripted(kind, &key);
    let fate = fate(&profile, state.config.seed, number, kind, scripted);
    let body = receive(&state, &connection, &running, body, profile.connection_bytes_per_second).await?;
    let due = Instant::now() + fate.first_byte;

    if let Some(fault) = fate.fault {
        running.fault(fault.name());
    }
    let reply = answer(&state, &parts, &target, body, kind, &profile, &fate);
    if fate.first_byte > Duration::ZERO {
        tokio::time::sleep_until(due).await;
    }
    match (reply, fate.fault) {
        (Some(reply), fault) if fault != Some(Fault::ResetAfter) => {
            Ok(finish(reply, &parts, running, state, connection, &fate))
        }
        _ => {
            connection.reset();
            Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
        }
    }
}

/// The body of a request, at the pace of the lanes.
async fn receive(
    state: &State,
    connection: &Connection,
    running: &Running,
    mut body: Incoming,
    bytes_per_second: u64,
) -> Result<Bytes, std::io::Error> {
    let mut whole = BytesMut::new();
    connection.lane.begin();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(std::io::Error::other)?.into_data() else {
            continue;
        };
        let bytes = data.len() as u64;
        running.received(bytes);
        whole.extend_from_slice(&data);
        let total = state.profile.read().total_bytes_per_second;
        let own = connection.lane.carry(bytes, bytes_per_second);
        if let Some(when) = own.max(state.lane.carry(bytes, total)) {
            tokio::time::sleep_until(when).await;
        }
    }
    Ok(whole.freeze())
}

/// What the store says; none when nothing comes back and nothing has happened.
fn answer(
    state: &State,
    parts: &Parts,
    target: &Target,
    body: Bytes,
    kind: Kind,
    profile: &Profile,
    fate: &Fate,
) -> Option<Reply> {
    let refuse = |status: u16| {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        match target.dialect {
            Dialect::Azure => azure::fault(status),
            Dialect::S3 | Dialect::Gcs => s3::fault(status),
        }
    };
    match fate.fault {
        Some(Fault::Error(status)) => return Some(refuse(status)),
        Some(Fault::ResetBefore) => return None,
        Some(Fault::ErrorIn200) => {
            let mut reply = refuse(500);
            *reply.status_mut() = StatusCode::OK;
            return Some(reply);
        }
        _ => {}
    }
    if !state.passes(target, profile.prefix_requests_per_second) {
        return Some(refuse(503));
    }
    Some(match target.dialect {
        Dialect::Azure => azure::answer(state, parts, target, &body, kind),
        Dialect::S3 | Dialect::Gcs => s3::answer(state, parts, target, body, kind),
    })
}

/// The reply, through lanes and counters.
fn finish(
    mut reply: Reply,
    parts: &Parts,
    mut running: Running,
    state: Arc<State>,
    connection: Arc<Connection>,
    fate: &Fate,
) -> Reply {
    let id = format!("{:016X}", running.record.number);
    reply::set(&mut reply, "x-amz-request-id", &id);
    reply::set(&mut reply, "date", &reply::http_date(chrono::Utc::now()));
    running.answered(reply.status().as_u16());
    if parts.method == Method::HEAD {
        // The length is the object's; nothing is sent.
        let bytes = reply.body().len().to_string();
        reply::set(&mut reply, "content-length", &bytes);
        *reply.body_mut() = SimBody::of("");
    } else if reply.status().is_success() && running.record.kind == Kind::Get {
        running.record.range = Some(reply.body().range());
    }
    let turn = match fate.fault {
        Some(Fault::Stall(time)) => Some(Turn::Stall(time)),
        Some(Fault::ResetBody) => Some(Turn::Reset),
        Some(Fault::Truncate) => Some(Turn::Truncate),
        _ => None,
    };
    let flow = Flow {
        state,
        connection,
        running,
    };
    reply.map(|body| body.through(flow, turn, fate.place))
}

/// A stream that is reset when it closes, if its connection says so.
struct Wire {
    stream: TcpStream,
    connection: Arc<Connection>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.connection.reset.load(Ordering::Relaxed) {
            let _closes_normally = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if self.connection.reset.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
