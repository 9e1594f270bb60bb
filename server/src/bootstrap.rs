//! Builds the server from its configuration, runs it, and stops it in order.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_flight::flight_service_server::FlightServiceServer;
use datafusion::catalog::{CatalogProviderList, MemoryCatalogProviderList};
use datafusion::execution::SessionState;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime as Threads};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic_health::ServingStatus;
use trireme_catalog::{Catalog, CatalogError, CatalogOptions, SecretKey, SketchOptions};
use trireme_columns::{ColumnCache, Limits};
use trireme_config::{Config, SessionSettings};
use trireme_device_api::Device;
use trireme_device_runtime::yields_to_others;
use trireme_exec::costs::{CostModel, Told};
use trireme_exec::devices::Devices;
use trireme_exec::fused::{FragmentRuntime, Known};
use trireme_exec::io::{Environment, Locations, StoreLimits, StoreRegistry};
use trireme_exec::pool::WorkerPool;
use trireme_exec::runtime::{Runtime, RuntimeLimits};
use trireme_exec::statistics::{Feedback, Statistics};
use trireme_lake::{Lake, LakeOptions};
use trireme_planner::names::CATALOG;
use trireme_planner::plan_cache::PlanCache;
use trireme_planner::session::{PlannerDefaults, base_state};

use crate::admission::{Admission, AdmissionLimits};
use crate::auth::{Authenticator, TokenLimits};
use crate::connection;
use crate::devices::Processor;
use crate::engine::ddl::SecretPolicy;
use crate::engine::local::{LocalEngine, LocalHandle};
use crate::engine::system::{SystemSources, system_schema};
use crate::flight::direct::DirectService;
use crate::flight::front::{Front, FrontLimits};
use crate::flight::service::TriremeService;
use crate::http::{HttpState, Readiness, router};
use crate::query::QueryRegistry;
use crate::session::{InjectPolicy, SessionLimits, Sessions};
use crate::telemetry::Metrics;
use crate::{devices, shutdown, tls};

/// At least so many threads move bytes; statements are planned and run on the engine's. One is best on small machines: with
/// two, each small statement would wake the other.
const NETWORK_THREADS_MIN: usize = 1;
/// Planning recurses over expressions; the limits of `planner::bind` and `planner::parse` fit these stacks. Only what is
/// used takes memory.
const STACK_BYTES: usize = 64 << 20;
/// How often expired things are swept and gauges are set.
const SWEEP: Duration = Duration::from_secs(1);
/// How often what was learned of runs is written.
const SAVE: Duration = Duration::from_secs(30);
/// Tables are analysed unasked so much later than they are used: what a process is started for comes first.
const SKETCH_AFTER: Duration = Duration::from_secs(3);
/// After the drain deadline: time for cancelled statements to tell their clients.
const CANCEL_GRACE: Duration = Duration::from_secs(2);

/// Why the server can't start; its text is the one line a user sees.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is taken or not ours.
    #[error("can't listen on {address} ({setting}): {source}")]
    Listen {
        /// Address.
        address: SocketAddr,
        /// Its setting.
        setting: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The data folder can't be used.
    #[error("{0}")]
    Data(String),
    /// Certificate, users, or another part of the configuration.
    #[error("{0}")]
    Configuration(String),
    /// Threads, signals: the system refuses.
    #[error("the system refuses what a server needs: {0}")]
    System(#[from] std::io::Error),
}

/// Runs the server until a signal stops it.
///
/// # Errors
/// When it can't start.
pub fn serve(config: Config, began: Instant) -> Result<(), StartError> {
    // Several libraries bring TLS; without a choice rustls would refuse to start.
    let _ = rustls::crypto::ring::default_provider().install_default();
    trireme_device_cpu::keep_freed_memory(Duration::from_millis(config.exec.memory_return_ms));
    let resolved = config.resolved();
    let engine = Builder::new_multi_thread()
        .worker_threads(resolved.target_partitions.max(1))
        .thread_name("engine")
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()?;
    let network = Builder::new_multi_thread()
        .worker_threads(NETWORK_THREADS_MIN.max(resolved.target_partitions / 2))
        .thread_name("network")
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()?;
    let outcome = network.block_on(run(Arc::new(config), &engine, began));
    engine.shutdown_background();
    network.shutdown_timeout(CANCEL_GRACE);
    outcome
}

async fn run(config: Arc<Config>, threads: &Threads, began: Instant) -> Result<(), StartError> {
    let metrics = Metrics::new().map_err(|error| StartError::Configuration(error.to_string()))?;
    metrics.mark_start();
    let readiness = Readiness::new();
    let flight = listen(config.server.listen, "server.listen").await?;
    let http = listen(config.server.http_listen, "server.http_listen").await?;
    let addresses = (flight.local_addr()?, http.local_addr()?);
    let authenticator = authenticator(&config)?;
    let mut signals = shutdown::Signals::listen()?;
    let front = assemble(&config, threads, &metrics, authenticator.clone()).await?;

    let stop = CancellationToken::new();
    let state = HttpState {
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        authenticator,
    };
    let http_tls = http_tls(&config)?;
    let http_server = tokio::spawn(crate::http::serve(http, http_tls, router(state), stop.clone()));
    let (health, health_service) = tonic_health::server::health_reporter();
    let (closed, closures) = mpsc::unbounded_channel();
    tokio::spawn(sweep(Arc::clone(&front), closures));
    let mut server = flight_server(&config)?;
    let incoming = connection::accept(flight, config.limits.max_connections, metrics.clone(), closed);
    let service = TriremeService::new(Arc::clone(&front));
    let codec = FlightServiceServer::new(service.clone())
        .max_decoding_message_size(config.limits.max_message_bytes)
        .max_encoding_message_size(usize::MAX);
    let service = DirectService::new(codec, service);
    let stopped = stop.clone();
    let router = server.add_service(service).add_service(health_service);
    let flight_server =
        tokio::spawn(router.serve_with_incoming_shutdown(incoming, async move { stopped.cancelled().await }));

    for service in ["", "arrow.flight.protocol.FlightService"] {
        health.set_service_status(service, ServingStatus::Serving).await;
    }
    readiness.set_ready();
    metrics.startup_duration_seconds.set(began.elapsed().as_secs_f64());
    tracing::info!(
        flight = %addresses.0,
        http = %addresses.1,
        data = %config.server.data_dir.display(),
        tls = config.has_tls(),
        took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        "ready"
    );
    front.engine.measure();

    let name = signals.asked().await;
    tracing::info!(signal = name, drain_seconds = config.server.drain_seconds, "draining");
    readiness.set_draining();
    for service in ["", "arrow.flight.protocol.FlightService"] {
        health.set_service_status(service, ServingStatus::NotServing).await;
    }
    drain(&config, &front, stop, flight_server).await;
    http_server.abort();
    front.engine.save();
    tracing::info!("stopped");
    Ok(())
}

async fn listen(address: SocketAddr, setting: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen {
        address,
        setting,
        source,
    })
}

/// Lets running statements finish until the deadline, then cancels them.
async fn drain(
    config: &Config,
    front: &Arc<Front>,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
) {
    stop.cancel();
    front.admission.close();
    let deadline = Duration::from_secs(config.server.drain_seconds);
    let mut server = server;
    if tokio::time::timeout(deadline, &mut server).await.is_ok() {
        return;
    }
    let live: Vec<_> = front
        .queries
        .snapshots()
        .into_iter()
        .filter(|record| !record.state.is_terminal())
        .collect();
    tracing::warn!(
        statements = live.len(),
        "the drain deadline passed; what still runs is cancelled"
    );
    for record in live {
        front.cancel(&record.id);
    }
    if tokio::time::timeout(CANCEL_GRACE, &mut server).await.is_err() {
        server.abort();
    }
}

fn authenticator(config: &Config) -> Result<Option<Arc<Authenticator>>, StartError> {
    let Some(file) = &config.server.users_file else {
        return Ok(None);
    };
    let limits = TokenLimits {
        idle: Duration::from_secs(config.limits.token_ttl_seconds),
        per_user_max: config.limits.max_sessions_per_user,
    };
    let opened = Authenticator::open(file, limits).map_err(|error| StartError::Configuration(error.to_string()))?;
    Ok(Some(Arc::new(opened)))
}

fn http_tls(config: &Config) -> Result<Option<Arc<rustls::ServerConfig>>, StartError> {
    match (&config.server.tls_certificate_file, &config.server.tls_key_file) {
        (Some(certificate), Some(key)) => tls::load(certificate, key, &[b"http/1.1"])
            .map(Some)
            .map_err(|error| StartError::Configuration(error.to_string())),
        _ => Ok(None),
    }
}

fn flight_server(config: &Config) -> Result<Server, StartError> {
    let keepalive = config.limits.http2_keepalive_seconds;
    let mut server = Server::builder()
        .http2_max_header_list_size(u32::try_from(config.limits.max_header_bytes).unwrap_or(u32::MAX))
        .http2_keepalive_interval((keepalive > 0).then(|| Duration::from_secs(keepalive)));
    if let (Some(certificate), Some(key)) = (&config.server.tls_certificate_file, &config.server.tls_key_file) {
        // Checked by `http_tls` already, with texts that name the file.
        let identity = Identity::from_pem(read(certificate)?, read(key)?);
        server = server
            .tls_config(ServerTlsConfig::new().identity(identity))
            .map_err(|error| StartError::Configuration(format!("the TLS certificate can't be used: {error}")))?;
    }
    Ok(server)
}

fn read(path: &Path) -> Result<Vec<u8>, StartError> {
    std::fs::read(path).map_err(|error| StartError::Configuration(format!("{} can't be read: {error}", path.display())))
}

fn create_folder(data_dir: &Path) -> Result<(), StartError> {
    std::fs::create_dir_all(data_dir)
        .and_then(|()| std::fs::read_dir(data_dir).map(|_| ()))
        .map_err(|error| {
            StartError::Data(format!(
                "the data folder {} can't be used (server.data_dir): {error}",
                data_dir.display()
            ))
        })
}

/// Catalog, engine, sessions, admission: everything behind the ports.
async fn assemble(
    config: &Arc<Config>,
    threads: &Threads,
    metrics: &Metrics,
    authenticator: Option<Arc<Authenticator>>,
) -> Result<Arc<Front>, StartError> {
    let data_dir = &config.server.data_dir;
    create_folder(data_dir)?;
    let data = |error: &dyn std::fmt::Display| StartError::Data(error.to_string());
    let locations = Arc::new(Locations::new(data_dir, &config.io.allowed_locations).map_err(|error| data(&error))?);
    let stores = store_registry(config, &locations);
    let runtime = Runtime::new(&runtime_limits(config), Arc::clone(&stores) as _).map_err(|error| data(&error))?;
    metrics
        .memory_limit_bytes
        .set(i64::try_from(config.resolved().memory_bytes).unwrap_or(i64::MAX));

    let catalogs: Arc<dyn CatalogProviderList> = Arc::new(MemoryCatalogProviderList::new());
    let base = |fragments| {
        base_state(
            &planner_defaults(config),
            Arc::clone(runtime.env()),
            Arc::clone(&catalogs),
            fragments,
        )
    };
    // Before drivers are loaded: a process that ends while one starts is aborted by its library.
    let catalog = open_catalog(config, &runtime, &base(None), locations, &stores).await?;
    let (processor, fragments) = fragments(config, stores.lake())?;
    let base = base(Some(Arc::clone(&fragments)));
    catalog.share_sketches(SketchOptions {
        sketches: Arc::clone(&fragments.statistics().sketches),
        sample_rows: config.statistics.sample_rows,
        sketch_below_bytes: config.statistics.sketch_below_bytes,
        sketch_on_use: config.statistics.sketch_on_use,
        yields: after_first_statements,
    });
    catalogs.register_catalog(CATALOG.to_owned(), catalog.provider());

    let queries = QueryRegistry::new(config.limits.queries_history_max);
    let settings = SessionSettings::for_server(config);
    let sessions = Sessions::new(session_limits(config), settings, metrics.clone());
    let sessions = Arc::new(sessions.with_inject(InjectPolicy::new(config)));
    let plans = Arc::new(PlanCache::new(config.exec.plan_cache_shapes as u64));
    let sources = SystemSources {
        queries: Arc::clone(&queries),
        sessions: Arc::clone(&sessions),
        settings: config.describe(),
        processor: processor.info(),
        fragments: Arc::clone(&fragments),
        plans: Arc::clone(&plans),
        lake: Arc::clone(stores.lake()),
        catalog: Arc::downgrade(&catalog),
        config: Arc::clone(config),
    };
    catalog.register_system(system_schema(sources).map_err(|error| data(&error))?);
    let engine = LocalEngine::new(
        runtime,
        threads.handle().clone(),
        catalog,
        base,
        plans,
        fragments,
        SecretPolicy::new(config),
    );
    let admission = Admission::new(admission_limits(config), metrics.clone());
    Ok(Front::new(
        Arc::new(LocalHandle(engine)),
        sessions,
        queries,
        admission,
        authenticator,
        metrics.clone(),
        front_limits(config),
    ))
}

fn runtime_limits(config: &Config) -> RuntimeLimits {
    let resolved = config.resolved();
    RuntimeLimits {
        memory_bytes: resolved.memory_bytes,
        query_memory_bytes: resolved.query_memory_bytes,
        spill_folder: resolved.spill_dir,
        spill_bytes_max: config.exec.spill_max_bytes,
        metadata_cache_bytes: config.io.metadata_cache_bytes,
    }
}

fn planner_defaults(config: &Config) -> PlannerDefaults {
    PlannerDefaults {
        target_partitions: config.resolved().target_partitions,
        batch_rows: config.exec.batch_rows,
    }
}

/// The catalog over the data folder.
/// What the thread that analyses tables unasked does first.
fn after_first_statements() {
    std::thread::sleep(SKETCH_AFTER);
    yields_to_others();
}

async fn open_catalog(
    config: &Config,
    runtime: &Runtime,
    base: &SessionState,
    locations: Arc<Locations>,
    stores: &Arc<StoreRegistry>,
) -> Result<Arc<Catalog>, StartError> {
    let key_file = config.secrets.key_file.as_deref();
    let secrets_key = key_file.map(SecretKey::read).transpose().map_err(unusable)?;
    let options = CatalogOptions {
        data_dir: config.server.data_dir.clone(),
        refresh_interval: Duration::from_millis(config.catalog.refresh_interval_ms),
        plan_ahead: config.catalog.plan_ahead,
        sync_writes: config.catalog.sync_writes,
        locations,
        stores: Arc::clone(stores),
        runtime: Arc::clone(runtime.env()),
        secrets_key,
        session_config: base.config().clone(),
    };
    Catalog::open(options).await.map_err(unusable)
}

fn unusable(error: CatalogError) -> StartError {
    match error.hint() {
        Some(hint) => StartError::Data(format!("{error}: {hint}")),
        None => StartError::Data(error.to_string()),
    }
}

/// The stores, as the process's environment and the settings say.
fn store_registry(config: &Config, locations: &Arc<Locations>) -> Arc<StoreRegistry> {
    let limits = StoreLimits {
        request_timeout: Duration::from_millis(config.io.request_timeout_ms),
        connect_timeout: Duration::from_millis(config.io.connect_timeout_ms),
    };
    let lake = Lake::new(lake_options(config));
    let registry = StoreRegistry::with(Arc::clone(locations), lake, Environment::of_process(), limits);
    Arc::new(registry)
}

fn lake_options(config: &Config) -> LakeOptions {
    let (lake, io) = (&config.lake, &config.io);
    let disk_dir = lake.disk_dir.clone();
    let disk_dir = disk_dir.unwrap_or_else(|| config.server.data_dir.join(".trireme/cache"));
    LakeOptions {
        enabled: lake.enabled,
        memory_bytes: lake.memory_bytes,
        disk_dir: Some(disk_dir).filter(|_| lake.disk_bytes > 0),
        disk_bytes: lake.disk_bytes,
        in_flight_start: lake.in_flight_start,
        in_flight_max: lake.in_flight_max,
        hedge_percent: u32::try_from(lake.hedge_percent).unwrap_or(u32::MAX),
        attempts_max: u32::try_from(lake.attempts_max).unwrap_or(u32::MAX),
        attempt_timeout: Duration::from_millis(io.request_timeout_ms),
        window_bytes: lake.window_bytes,
        ..LakeOptions::default()
    }
}

/// Where profiles of devices and what was learned are kept.
pub(crate) fn costs_dir(config: &Config) -> PathBuf {
    let dir = config.costs.dir.clone();
    dir.unwrap_or_else(|| config.server.data_dir.join(".trireme/costs"))
}

/// The machine's cost model.
pub(crate) fn cost_model(config: &Config, processor: &Processor) -> CostModel {
    let workers = config.resolved().target_partitions;
    let told = Told {
        // Both were checked with the configuration.
        prices: config.costs.prices().unwrap_or_default(),
        watts: config.costs.watts().unwrap_or_default(),
        // What a simulated device takes says nothing, and its faults are counted from its first launch.
        unasked_never: !config.costs.calibrate || !config.devices.simulated.is_empty(),
    };
    CostModel::open(Some(costs_dir(config)), &processor.info(), workers, config.costs.learn)
        .with_host(processor.variant())
        .with_told(told)
        .with_resteer(config.costs.resteer)
        .with_co_execution(config.costs.co_execution)
}

/// What runs fragments: worker threads, the processor's fused variant, and the column cache.
fn fragments(config: &Config, lake: &Arc<Lake>) -> Result<(Processor, Arc<FragmentRuntime>), StartError> {
    let processor = Processor::new();
    let resolved = config.resolved();
    let columns = ColumnCache::new(Limits {
        budget_bytes: resolved.column_cache_bytes,
        footer_bytes: config.io.metadata_cache_bytes,
        enabled: config.exec.column_cache,
        ..Limits::default()
    });
    let pool = WorkerPool::new(resolved.target_partitions)?;
    let costs = cost_model(config, &processor);
    let statistics = Arc::new(Statistics {
        feedback: Feedback::new(config.statistics.feedback_max),
        sketches: Arc::default(),
        sample_values_max: config.statistics.sample_values_max,
    });
    let backends = devices::backends(config, &processor.variant());
    let devices = Devices::probe(backends, config.devices.rows_min)?;
    let runtime = FragmentRuntime::new(
        pool,
        processor.variant(),
        Arc::new(columns),
        Arc::clone(lake),
        devices,
        Known { costs, statistics },
        config.exec.graph_dir.clone(),
    );
    Ok((processor, runtime))
}

fn session_limits(config: &Config) -> SessionLimits {
    SessionLimits {
        sessions_max: config.limits.max_sessions,
        sessions_per_user_max: config.limits.max_sessions_per_user,
        idle: Duration::from_secs(config.limits.session_idle_seconds),
        prepared_max: config.limits.prepared_statements_per_session_max,
    }
}

fn admission_limits(config: &Config) -> AdmissionLimits {
    AdmissionLimits {
        running_max: config.resolved().max_running,
        queued_max: config.limits.max_queued,
        wait: Duration::from_secs(config.limits.queue_wait_seconds),
    }
}

fn front_limits(config: &Config) -> FrontLimits {
    FrontLimits {
        statement_bytes_max: config.limits.max_statement_bytes,
        batch_bytes_max: config.limits.max_send_batch_bytes,
        parameter_bytes_max: config.limits.max_message_bytes,
        tickets_max: config.limits.tickets_max,
        ticket_ttl: Duration::from_secs(config.limits.ticket_ttl_seconds),
        start_ahead: Duration::from_millis(config.limits.start_ahead_ms),
        metadata_max: config.limits.metadata_concurrency_max,
    }
}

/// Ends what expired and what closed connections left; keeps the gauges, and what was learned.
async fn sweep(front: Arc<Front>, mut closures: mpsc::UnboundedReceiver<u64>) {
    let mut ticks = tokio::time::interval(SWEEP);
    let mut saves = tokio::time::interval(SAVE);
    loop {
        tokio::select! {
            closed = closures.recv() => match closed {
                Some(connection) => front.connection_closed(connection),
                None => return,
            },
            _ = saves.tick() => {
                let engine = Arc::clone(&front.engine);
                tokio::task::spawn_blocking(move || engine.save());
            }
            _ = ticks.tick() => {
                front.expire();
                front.metrics.memory_reserved_bytes.set(i64::try_from(front.engine.reserved_bytes()).unwrap_or(i64::MAX));
                front.metrics.engine_counts(&front.engine.counts());
            }
        }
    }
}
