//! A simulated object store: S3, GCS and Azure dialects over in-memory and synthetic objects, with latency, bandwidth and
//! faults.
//!
//! ```text
//!  connection ── request ──▶ fate (latency, fault) ──▶ dialect ──▶ model (objects, conditions, uploads)
//!                                                         │
//!       lanes (connection, total) ◀── body, in pieces ◀───┘
//! ```
//!
//! [`SimStore`] is one in this process, on threads of its own: tests read through it with real HTTP clients, change its
//! [`Profile`] as they go, script faults, and look at what it counted. The program `simstore` is the same behind a command
//! line; `/_sim/…` does there what the methods do here.
//!
//! It owns what a client can see of a store. It does not check signatures, keep versions, or speak TLS.

mod admin;
mod azure;
mod body;
mod config;
mod content;
mod counters;
mod draw;
mod folder;
mod model;
mod pace;
mod query;
mod reply;
mod s3;
mod server;
mod xml;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

pub use config::{Access, Config, Faults, Profile};
pub use content::synthetic_bytes;
pub use counters::{Counters, Kind, RequestRecord, Tally};
pub use draw::{Fault, Script};

use content::Content;
use model::Condition;
use server::State;

/// A running store; it stops when this is dropped.
#[derive(Debug)]
pub struct SimStore {
    addr: SocketAddr,
    state: Arc<State>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl SimStore {
    /// Starts a store. It serves on threads of its own, so this may be called anywhere.
    ///
    /// # Errors
    /// The address can't be listened on, or threads can't be started.
    pub fn start(config: Config) -> std::io::Result<Self> {
        let listener = std::net::TcpListener::bind((config.host.as_str(), config.port))?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.threads.max(1))
            .thread_name(counters::THREAD_NAME)
            .enable_all()
            .build()?;
        let state = Arc::new(State::new(config));
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        runtime.spawn(server::accept(listener, Arc::clone(&state)));
        Ok(Self {
            addr,
            state,
            runtime: Some(runtime),
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its endpoint: of S3 and GCS as it is, of Azure followed by an account.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What it has served.
    pub fn counters(&self) -> Counters {
        self.state.ledger.read()
    }

    /// Counts from zero again, and forgets the last requests.
    pub fn reset_counters(&self) {
        self.state.ledger.reset();
    }

    /// The last requests, by their ends.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.state.ledger.log()
    }

    /// Speed and faults from now on.
    pub fn set_profile(&self, profile: Profile) {
        *self.state.profile.write() = Arc::new(profile);
    }

    /// Speed and faults now.
    pub fn profile(&self) -> Profile {
        Profile::clone(&self.state.profile.read())
    }

    /// Who may come in from now on.
    pub fn set_access(&self, access: Access) {
        *self.state.access.write() = access;
    }

    /// Faults for the next requests that fit; scripts are tried in order.
    pub fn script(&self, script: Script) {
        self.state.scripts.lock().push(script);
    }

    /// Writes an object, in place of an older one, into a bucket, which is made if it is not there; its entity tag.
    ///
    /// # Errors
    /// The bucket is a folder.
    pub fn put(&self, bucket: &str, key: &str, data: impl Into<Bytes>) -> std::io::Result<String> {
        self.put_content(bucket, key, Content::pieces([data.into()]))
    }

    /// [`SimStore::put`] of pieces, which are not copied: one that stands there a thousand times takes its memory once.
    ///
    /// # Errors
    /// As [`SimStore::put`].
    pub fn put_pieces(&self, bucket: &str, key: &str, pieces: Vec<Bytes>) -> std::io::Result<String> {
        self.put_content(bucket, key, Content::pieces(pieces))
    }

    /// [`SimStore::put`] of so many bytes of [`synthetic_bytes`], which take no memory.
    ///
    /// # Errors
    /// As [`SimStore::put`].
    pub fn put_synthetic(&self, bucket: &str, key: &str, size_bytes: u64, seed: u64) -> std::io::Result<String> {
        self.put_content(bucket, key, Content::synthetic(seed, size_bytes))
    }

    fn put_content(&self, bucket: &str, key: &str, content: Content) -> std::io::Result<String> {
        let model = &self.state.model;
        let _exists = model.create_bucket(bucket);
        let object = model.put(bucket, key, content, Vec::new(), &Condition::default());
        let object = object.map_err(|refusal| std::io::Error::other(format!("{refusal:?}")))?;
        Ok(format!("\"{}\"", object.e_tag))
    }

    /// The bytes of an object.
    pub fn get(&self, bucket: &str, key: &str) -> Option<Bytes> {
        let object = self.state.model.get(bucket, key).ok()?;
        object.content.range(0..object.content.size()).ok()
    }

    /// Takes an object away; true when it was there.
    pub fn remove(&self, bucket: &str, key: &str) -> bool {
        self.state.model.delete(bucket, key, &Condition::default()) == Ok(true)
    }

    /// Keys of a bucket that begin with a prefix.
    pub fn keys(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let query = model::ListQuery {
            prefix: prefix.to_owned(),
            keys_max: usize::MAX,
            ..model::ListQuery::default()
        };
        let listed = self.state.model.list(bucket, &query).unwrap_or_default();
        listed.objects.into_iter().map(|(key, _)| key).collect()
    }

    /// Uploads in parts that were begun and neither completed nor aborted.
    pub fn uploads(&self, bucket: &str) -> usize {
        self.state.model.uploads(bucket).map_or(0, |uploads| uploads.len())
    }

    /// Serves a folder of local files as a bucket, read-only.
    pub fn mount(&self, bucket: &str, folder: &Path) {
        self.state.model.mount(bucket, folder.to_owned());
    }

    /// Serves until the process ends.
    pub fn serve_forever(&self) {
        loop {
            std::thread::park();
        }
    }
}

impl Drop for SimStore {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
