//! One connection to a Flight SQL server.
//!
//! Owns the calls a SQL client needs, over a single HTTP/2 connection: a server may tie the session to it. It uses the plain
//! Flight client and builds the commands itself, since the headers of answers (tokens, cookies) and the FlightInfo as a whole
//! (its app_metadata, and itself for a cancel) are needed. It knows nothing of printing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};
use arrow_flight::{Action, CancelFlightInfoRequest, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest};
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use prost::Message;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::error::{Failure, innermost};
use crate::identity::Identity;
use crate::tls;
use crate::uri::{Secret, Target, UriError};

const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
/// Wide enough that a fast local network is never idle between window updates.
const WINDOW_BYTES: u32 = 8 << 20;
/// Error texts travel in headers; the default of 16 KiB would turn a long one into a broken connection.
const HEADER_BYTES_MAX: u32 = 1 << 20;
/// The location that means: over this connection.
const REUSE_CONNECTION: &str = "arrow-flight-reuse-connection:";

#[derive(Debug, Clone)]
pub(crate) struct ConnectOptions {
    pub(crate) target: Target,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) token: Option<Secret>,
    pub(crate) tls_ca: Option<PathBuf>,
    pub(crate) insecure: bool,
    pub(crate) connect_timeout: Duration,
    pub(crate) message_bytes_max: usize,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("cannot connect to {target}: {reason}")]
    Unreachable { target: String, reason: String },
    #[error("cannot log in to {target}: {reason}")]
    Refused { target: String, reason: String },
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    #[error("the certificate of {target} is not trusted: {reason}")]
    Certificate { target: String, reason: String },
    #[error("will not send a password or token to {0} without TLS")]
    PlainCredentials(String),
    #[error("--insecure leaves the server's certificate unchecked, so --tls-ca means nothing beside it")]
    InsecureWithCa,
    #[error(transparent)]
    Uri(#[from] UriError),
}

impl ConnectError {
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => {
                "check the host and port, and that the server runs; grpc+tls:// if it speaks TLS"
            }
            Self::Refused { .. } => "check the user and password, or the token",
            Self::Tls(_) | Self::Certificate { .. } => {
                "name the certificate to trust with --tls-ca FILE, or accept any with --insecure"
            }
            Self::PlainCredentials(_) => "use grpc+tls://, or accept the risk with --insecure",
            Self::InsecureWithCa => "leave one of them out",
            Self::Uri(_) => "write it as grpc://HOST:PORT, grpc+tls://HOST:PORT or HOST:PORT",
        }
    }
}

/// Cheap to clone; clones share the connection and the identity.
#[derive(Clone)]
pub(crate) struct Connection {
    client: FlightServiceClient<Channel>,
    identity: Arc<Mutex<Identity>>,
    options: Arc<ConnectOptions>,
}

impl Connection {
    pub(crate) async fn open(options: ConnectOptions) -> Result<Self, ConnectError> {
        let has_secret = options.password.is_some() || options.token.is_some();
        if has_secret && !options.target.tls && !options.target.is_loopback() && !options.insecure {
            return Err(ConnectError::PlainCredentials(options.target.to_string()));
        }
        if options.insecure && options.tls_ca.is_some() {
            return Err(ConnectError::InsecureWithCa);
        }
        let channel = connect(&options.target, &options).await?;
        let identity = match (&options.token, &options.user) {
            (Some(token), _) => Identity::with_token(token),
            (None, Some(user)) => {
                let empty = Secret::new("");
                Identity::with_password(user, options.password.as_ref().unwrap_or(&empty))
            }
            (None, None) => Identity::default(),
        };
        let connection = Self {
            client: flight_client(channel, options.message_bytes_max),
            identity: Arc::new(Mutex::new(identity)),
            options: Arc::new(options),
        };
        if connection.options.user.is_some() && connection.options.token.is_none() {
            connection.log_in().await?;
        }
        Ok(connection)
    }

    pub(crate) fn options(&self) -> &ConnectOptions {
        &self.options
    }

    /// Asks for a statement's result. A statement that changes something has run when this returns.
    pub(crate) async fn statement(&self, sql: &str) -> Result<FlightInfo, Status> {
        self.command(&CommandStatementQuery {
            query: sql.to_owned(),
            transaction_id: None,
        })
        .await
    }

    pub(crate) async fn command<C: ProstMessageExt>(&self, command: &C) -> Result<FlightInfo, Status> {
        let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        let ask = || async {
            let request = self.signed(descriptor.clone());
            let answer = self.client.clone().get_flight_info(request).await;
            self.learned(answer)
        };
        match ask().await {
            // The token has expired, or the server was started again: nothing has run.
            Err(status) if status.code() == Code::Unauthenticated && self.log_in_again().await => ask().await,
            answer => answer,
        }
    }

    /// True if there is a new token.
    async fn log_in_again(&self) -> bool {
        let (None, Some(user)) = (&self.options.token, &self.options.user) else {
            return false;
        };
        let empty = Secret::new("");
        let password = self.options.password.as_ref().unwrap_or(&empty);
        *self.identity.lock() = Identity::with_password(user, password);
        self.log_in().await.is_ok()
    }

    /// Runs a command and collects its rows: for the small results of metadata commands only.
    pub(crate) async fn fetch<C: ProstMessageExt>(&self, command: &C) -> Result<Vec<RecordBatch>, Failure> {
        let info = self.command(command).await?;
        let mut rows = ResultStream::new(self.clone(), info);
        let mut batches = Vec::new();
        while let Some(batch) = rows.next().await? {
            batches.push(batch);
        }
        Ok(batches)
    }

    /// Stops a statement on the server. The answer does not matter much: the statement may just have ended.
    pub(crate) async fn cancel(&self, info: FlightInfo) -> Result<(), Status> {
        let body = CancelFlightInfoRequest::new(info).encode_to_vec();
        tokio::time::timeout(CANCEL_TIMEOUT, self.act("CancelFlightInfo", body))
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("the server did not answer the cancel")))
    }

    /// Ends the session, which the server would keep for others of its kind; not one that belongs to a token we were given,
    /// which others may use. A server that knows no sessions, or is gone, is as good.
    pub(crate) async fn close(&self) {
        if self.options.token.is_none() {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.act("CloseSession", Vec::new())).await;
        }
    }

    async fn act(&self, name: &str, body: Vec<u8>) -> Result<(), Status> {
        let request = self.signed(Action::new(name, body));
        let mut answers = self.client.clone().do_action(request).await?.into_inner();
        while answers.message().await?.is_some() {}
        Ok(())
    }

    async fn endpoint(&self, endpoint: &FlightEndpoint) -> Result<FlightRecordBatchStream, Failure> {
        let ticket = endpoint
            .ticket
            .clone()
            .ok_or_else(|| Failure::new("the server sent a result without a ticket"))?;
        let mut client = self.client_for(endpoint).await?;
        let answer = client.do_get(self.signed(ticket)).await;
        let frames = self.learned(answer)?;
        Ok(FlightRecordBatchStream::new_from_flight_data(
            frames.map_err(FlightError::from),
        ))
    }

    /// A server may keep parts of a result elsewhere. No location, or the special one, means this connection.
    async fn client_for(&self, endpoint: &FlightEndpoint) -> Result<FlightServiceClient<Channel>, Failure> {
        let is_here = |uri: &str| uri.is_empty() || uri.starts_with(REUSE_CONNECTION);
        if endpoint.location.is_empty() || endpoint.location.iter().any(|l| is_here(&l.uri)) {
            return Ok(self.client.clone());
        }
        let mut reason = String::new();
        for location in &endpoint.location {
            let connected = match Target::parse(&location.uri) {
                Ok(target) if same_server(&target, &self.options.target) => return Ok(self.client.clone()),
                Ok(target) if !target.tls && self.options.target.tls => {
                    reason = format!("{target} has no TLS although the server has");
                    continue;
                }
                Ok(target) => connect(&target, &self.options).await,
                Err(error) => Err(error.into()),
            };
            match connected {
                Ok(channel) => return Ok(flight_client(channel, self.options.message_bytes_max)),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(Failure::new(format!(
            "cannot reach the place where the server keeps this result: {reason}"
        )))
    }

    async fn log_in(&self) -> Result<(), ConnectError> {
        let hello = HandshakeRequest::default();
        let request = self.signed(stream::iter([hello]));
        let answer = self.client.clone().handshake(request).await;
        let refused = |status: &Status| ConnectError::Refused {
            target: self.options.target.to_string(),
            reason: reason(status),
        };
        match self.learned(answer) {
            // The stream has to be read to its end, or the call counts as cancelled.
            Ok(mut answers) => {
                while answers.message().await.map_err(|status| refused(&status))?.is_some() {}
                Ok(())
            }
            // Without a handshake the basic header goes with every call, which such servers expect.
            Err(status) if status.code() == Code::Unimplemented => Ok(()),
            Err(status) => Err(refused(&status)),
        }
    }

    fn signed<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        self.identity.lock().sign(request.metadata_mut());
        request
    }

    fn learned<T>(&self, answer: Result<tonic::Response<T>, Status>) -> Result<T, Status> {
        match answer {
            Ok(response) => {
                self.identity.lock().learn(response.metadata());
                Ok(response.into_inner())
            }
            Err(status) => {
                self.identity.lock().learn(status.metadata());
                Err(status)
            }
        }
    }
}

/// A result's batches, endpoint after endpoint.
pub(crate) struct ResultStream {
    connection: Connection,
    info: FlightInfo,
    next_endpoint: usize,
    current: Option<FlightRecordBatchStream>,
    schema: Option<SchemaRef>,
}

impl ResultStream {
    pub(crate) fn new(connection: Connection, info: FlightInfo) -> Self {
        Self {
            connection,
            info,
            next_endpoint: 0,
            current: None,
            schema: None,
        }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>, Failure> {
        loop {
            if let Some(current) = &mut self.current {
                let batch = current.next().await;
                if self.schema.is_none() {
                    self.schema = current.schema().cloned();
                }
                match batch {
                    Some(batch) => return Ok(Some(batch?)),
                    None => self.current = None,
                }
            }
            let Some(endpoint) = self.info.endpoint.get(self.next_endpoint) else {
                return Ok(None);
            };
            self.next_endpoint += 1;
            self.current = Some(self.connection.endpoint(endpoint).await?);
        }
    }

    /// The stream's schema once a batch or the end has been seen; else what was announced.
    pub(crate) fn schema(&self) -> Option<SchemaRef> {
        self.schema.clone().or_else(|| {
            let announced = self.info.clone().try_decode_schema();
            announced.ok().map(Arc::new)
        })
    }
}

async fn connect(target: &Target, options: &ConnectOptions) -> Result<Channel, ConnectError> {
    let unreachable = |error: tonic::transport::Error| connect_error(target, &innermost(&error));
    let mut endpoint = Endpoint::from_shared(target.http_uri())
        .and_then(|endpoint| endpoint.user_agent(concat!("trisql/", env!("CARGO_PKG_VERSION"))))
        .map_err(unreachable)?
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(TCP_KEEPALIVE))
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(2 * WINDOW_BYTES)
        .http2_max_header_list_size(HEADER_BYTES_MAX);
    if target.tls {
        endpoint = tls::secure(endpoint, options.tls_ca.as_deref(), options.insecure)?;
    }
    endpoint.connect().await.map_err(unreachable)
}

fn connect_error(target: &Target, reason: &str) -> ConnectError {
    let target = target.to_string();
    match reason.split_once("invalid peer certificate: ") {
        Some((_, reason)) => ConnectError::Certificate {
            target,
            // The rest of the text is a dump of identifiers.
            reason: reason.split(['{', '(']).next().unwrap_or_default().trim().to_owned(),
        },
        None => ConnectError::Unreachable {
            target,
            reason: reason.to_owned(),
        },
    }
}

fn flight_client(channel: Channel, message_bytes_max: usize) -> FlightServiceClient<Channel> {
    FlightServiceClient::new(channel)
        .max_decoding_message_size(message_bytes_max)
        .max_encoding_message_size(message_bytes_max)
}

fn same_server(a: &Target, b: &Target) -> bool {
    a.tls == b.tls && a.port == b.port && a.host.eq_ignore_ascii_case(&b.host)
}

fn reason(status: &Status) -> String {
    use std::error::Error as _;
    match status.source() {
        Some(source) => innermost(source),
        None if status.message().is_empty() => status.code().description().to_lowercase(),
        None => status.message().lines().next().unwrap_or_default().to_owned(),
    }
}
