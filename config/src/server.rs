//! Settings of the front: where it listens, who may come in, what it holds at most, and the catalog.

use crate::value::words;
use std::net::SocketAddr;
use std::path::PathBuf;

words! {
    /// The form of log lines.
    pub enum LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line, for collectors.
        Json = "json",
    }
}

words! {
    /// The least severe log lines that are written.
    pub enum LogLevel {
        /// Only what needs somebody now.
        Error = "error",
        /// And what will.
        Warn = "warn",
        /// And starts, stops and changes.
        Info = "info",
        /// And every query.
        Debug = "debug",
        /// And every step.
        Trace = "trace",
    }
}

settings! {
    /// Where the server keeps its data, where it listens, and who may come in.
    pub struct Server = "server" {
        /// Folder of the lake: every file and folder in it is a table; `.trireme` in it is the server's own.
        data_dir: PathBuf = PathBuf::from("./trireme-data"), Plain;
        /// Address of Arrow Flight SQL. Beyond loopback it needs TLS and users. Port 0 takes a free one.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7433)), Plain;
        /// Address of HTTP (/metrics, /healthz, /readyz). Beyond loopback it needs TLS and users.
        http_listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7480)), Plain;
        /// PEM file with the certificate chain, the server's own first. With it, both addresses speak TLS only.
        tls_certificate_file: Option<PathBuf> = None, Plain;
        /// PEM file with the private key of the certificate.
        tls_key_file: Option<PathBuf> = None, Plain;
        /// File of users, a line `name:hash` each; `trireme user add` writes it. Without it everybody may come in.
        users_file: Option<PathBuf> = None, Plain;
        /// Form of the log lines on standard error.
        log_format: LogFormat = LogFormat::Text, Plain;
        /// The least severe log lines that are written.
        log_level: LogLevel = LogLevel::Info, Plain;
        /// How long running queries may go on after SIGTERM before they are cancelled.
        drain_seconds: u64 = 30, Seconds, 0..=3_600;
    }
}

settings! {
    /// The most of everything that clients can make the server hold.
    pub struct Limits = "limits" {
        /// Largest message from a client: a batch of a bulk insert is one message.
        max_message_bytes: usize = 64 << 20, Bytes, 64 << 10..=i32::MAX as u64;
        /// Largest part of a result in one message; larger batches are split.
        max_send_batch_bytes: usize = 2 << 20, Bytes, 16 << 10..=1 << 30;
        /// All headers of a request together; some drivers send their URL's parameters, cookies and tokens there.
        max_header_bytes: usize = 64 << 10, Bytes, 4 << 10..=16 << 20;
        /// Longest text of one statement.
        max_statement_bytes: usize = 16 << 20, Bytes, 1 << 10..=1 << 30;
        /// Open connections; further ones are closed at once.
        max_connections: usize = 1_024, Count("connections"), 1..=1_000_000;
        /// Open sessions.
        max_sessions: usize = 4_096, Count("sessions"), 1..=1_000_000;
        /// Open sessions, and live tokens, of one user.
        max_sessions_per_user: usize = 1_024, Count("sessions"), 1..=1_000_000;
        /// A session that nobody uses for so long is closed.
        session_idle_seconds: u64 = 3_600, Seconds, 1..=31_536_000;
        /// A token that nobody uses for so long is no longer valid.
        token_ttl_seconds: u64 = 43_200, Seconds, 1..=31_536_000;
        /// Prepared statements that one session may hold.
        prepared_statements_per_session_max: usize = 1_000, Count("statements"), 1..=1_000_000;
        /// Finished queries that `system.queries` remembers.
        queries_history_max: usize = 10_000, Count("queries"), 0..=10_000_000;
        /// A result that nobody fetches for so long is dropped.
        ticket_ttl_seconds: u64 = 600, Seconds, 1..=31_536_000;
        /// Results that wait to be fetched.
        tickets_max: usize = 10_000, Count("tickets"), 1..=10_000_000;
        /// Queries that run at the same time; 0 means max(8, 4 × cores).
        max_running: usize = 0, Count("queries"), 0..=100_000;
        /// A query begins to run when it is planned, if more than half of the turns are free and its timeout is none or ten times
        /// this; if it is not fetched for so long, it gives its turn back and runs anew when it is fetched. 0: no query runs
        /// before that.
        start_ahead_ms: u64 = 1_000, Milliseconds, 0..=60_000;
        /// Queries that wait for their turn; further ones are refused.
        max_queued: usize = 1_024, Count("queries"), 0..=1_000_000;
        /// A query that waits longer for its turn is refused.
        queue_wait_seconds: u64 = 60, Seconds, 0..=86_400;
        /// Metadata requests that run at the same time.
        metadata_concurrency_max: usize = 16, Count("requests"), 1..=10_000;
        /// Idle time after which the server asks whether a client is still there; 0 never asks.
        http2_keepalive_seconds: u64 = 30, Seconds, 0..=86_400;
    }
}

settings! {
    /// How tables are found in the data folder.
    pub struct Catalog = "catalog" {
        /// How long the list of files may be used before the folder is looked at again; 0 looks at every statement.
        refresh_interval_ms: u64 = 0, Milliseconds, 0..=86_400_000;
        /// Whether queries start with the files of a remote table that were seen last, while the store is asked whether they
        /// are still all; no row is handed out before, and what was planned with others runs again.
        plan_ahead: bool = true, Plain;
        /// Whether changes of the catalog's own tables are on the disk before they are answered, so that a power cut takes none.
        sync_writes: bool = true, Plain;
        /// Rows of a CSV or JSON file that are read to infer its column types.
        infer_max_records: usize = 10_000, Count("rows"), 1..=100_000_000;
        /// Files of one folder that are listed at most.
        discovered_files_max: usize = 100_000, Count("files"), 1..=100_000_000;
    }
}
