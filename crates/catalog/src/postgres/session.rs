//! Sessions with the server, and the bounded pool of those that read.

use super::error::{Done, Failed, Kind, PostgresError, code, said, unavailable};
use carrack_domain::{Code, Error, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

/// The oldest server with everything that is asked of one.
pub(super) const VERSION_LEAST: u32 = 14;
/// How long the server has for an answer: beyond it the session is given up.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long a new session may take, logging in included.
const CONNECT_MAX: Duration = Duration::from_secs(4);
/// After a connection that failed nobody tries for so long: who comes meanwhile gets the same answer at once.
const CONNECT_PAUSE: Duration = Duration::from_millis(200);
/// How long a read waits for a session.
const LEASE_MAX: Duration = Duration::from_secs(5);
/// A session that left somebody without an answer for so long, who then went away, is not used again: it may be dead.
const DOUBTFUL_AFTER: Duration = Duration::from_millis(400);

/// What every session begins with. The server gives up before we do, so that it says why; and it ends the transaction of
/// a node that stands still, which others may be waiting for.
const SETTINGS: &str = "SET synchronous_commit = on; SET statement_timeout = '4s'; SET lock_timeout = '4s'; \
     SET idle_in_transaction_session_timeout = '3s'; SET client_connection_check_interval = '1s'; \
     SET default_transaction_isolation = 'read committed'; SET client_min_messages = warning";

/// Values for the placeholders of a statement.
macro_rules! params {
    ($($value:expr),* $(,)?) => { &[$(&$value as &(dyn tokio_postgres::types::ToSql + Sync)),*] };
}
pub(super) use params;

/// Where the catalog is.
pub(super) struct Server {
    config: Config,
    tls: MakeRustlsConnect,
    /// When connecting failed the last time, and why.
    failed: Mutex<Option<(Instant, String)>>,
}

impl Server {
    pub(super) fn new(url: &str) -> Result<Server, PostgresError> {
        // The library's words do not repeat the URL, which has the password in it.
        let mut config: Config = url.parse().map_err(|error| PostgresError::Url { reason: said(&error) })?;
        let reason = |text: &str| Err(PostgresError::Url { reason: text.to_owned() });
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return reason("it names no host");
        }
        if config.get_dbname().is_none() {
            return reason("it names no database");
        }
        config.connect_timeout(Duration::from_secs(2));
        config.keepalives_idle(Duration::from_secs(10));
        config.tcp_user_timeout(ANSWER_MAX);
        if config.get_application_name().is_none() {
            config.application_name("carrack");
        }
        Ok(Server { config, tls: tls()?, failed: Mutex::default() })
    }

    /// Hosts and ports, for messages.
    pub(super) fn at(&self) -> String {
        let hosts = self.config.get_hosts().iter().map(|host| match host {
            tokio_postgres::config::Host::Tcp(name) => name.clone(),
            tokio_postgres::config::Host::Unix(path) => path.display().to_string(),
        });
        let ports = self.config.get_ports();
        let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        hosts.enumerate().map(|(at, host)| format!("{host}:{}", port(at))).collect::<Vec<_>>().join(",")
    }

    /// A new session, with what is wrong in words for the operator.
    pub(super) async fn open(&self) -> Result<Session, PostgresError> {
        let at = self.at();
        let connect = self.config.connect(self.tls.clone());
        let (client, connection) = match timeout(CONNECT_MAX, connect).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return Err(refused(at, &error)),
            Err(_) => {
                return Err(PostgresError::Unreachable { at, reason: "no answer in time".to_owned() });
            }
        };
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = said(&error), "a session with the catalog ended");
            }
        });
        let session = Session {
            client,
            statements: Mutex::default(),
            given_up: AtomicBool::new(false),
            in_transaction: AtomicBool::new(false),
            _driver: driver,
        };
        session.begin().await.map_err(|failed| match failed {
            Failed::Postgres(error) => refused(at, &error),
            Failed::Rule(error) => PostgresError::Unreachable { at, reason: error.chain() },
            Failed::Silent => PostgresError::Unreachable { at, reason: "no answer in time".to_owned() },
        })?;
        Ok(session)
    }

    /// A new session, for work under way.
    pub(super) async fn connect(&self) -> Result<Session> {
        let lately = self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((when, reason)) = lately
            && when.elapsed() < CONNECT_PAUSE
        {
            return Err(unavailable(reason));
        }
        let opened = self.open().await;
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        match opened {
            Ok(session) => {
                if failed.take().is_some() {
                    tracing::info!("the catalog can be reached again");
                }
                Ok(session)
            }
            Err(error) => {
                let reason = error.to_string();
                if failed.is_none() {
                    tracing::error!(error = reason, "the catalog cannot be reached");
                }
                *failed = Some((Instant::now(), reason.clone()));
                Err(unavailable(reason))
            }
        }
    }
}

/// Certificates are believed when the system believes them (`SSL_CERT_FILE` names others), for the host's name.
fn tls() -> Result<MakeRustlsConnect, PostgresError> {
    use rustls_platform_verifier::BuilderVerifierExt;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_platform_verifier())
        .map_err(|error| PostgresError::Url { reason: format!("no TLS: {error}") })?
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

fn refused(at: String, error: &tokio_postgres::Error) -> PostgresError {
    let reason = said(error);
    match code(error) {
        "28P01" | "28000" => PostgresError::Credentials { at, reason },
        "3D000" => PostgresError::NoDatabase { at, reason },
        // The server does not know a setting that every session begins with.
        "42704" => PostgresError::TooOld { at, found: reason, least: VERSION_LEAST },
        _ if reason.contains("does not allow writes") => PostgresError::ReadOnly { at },
        _ => PostgresError::Unreachable { at, reason },
    }
}

/// A session: statements are prepared once, and every answer has its time.
pub(super) struct Session {
    client: Client,
    statements: Mutex<HashMap<String, Statement>>,
    given_up: AtomicBool,
    in_transaction: AtomicBool,
    /// Moves the bytes; ends with the session.
    _driver: JoinSet<()>,
}

impl Session {
    async fn begin(&self) -> Done<()> {
        self.batch(SETTINGS).await
    }

    /// Whether another statement can be sent.
    pub(super) fn is_good(&self) -> bool {
        !self.client.is_closed() && !self.given_up.load(Ordering::Relaxed)
    }

    async fn answer<T>(&self, work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Done<T> {
        let mut waiting = Waiting { session: self, since: Instant::now(), is_over: false };
        let answered = timeout(ANSWER_MAX, work).await;
        waiting.is_over = true;
        let failed = match answered {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => Failed::Postgres(error),
            Err(_) => Failed::Silent,
        };
        if failed.kind() == Kind::Gone {
            self.given_up.store(true, Ordering::Relaxed);
        }
        Err(failed)
    }

    async fn statement(&self, sql: &str) -> Result<Statement, tokio_postgres::Error> {
        let known = self.statements.lock().unwrap_or_else(PoisonError::into_inner).get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.client.prepare(sql).await?;
        let mut statements = self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        // Bounded by the number of statements in this room.
        statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Sees to it that running this statement is one message to the server.
    pub(super) async fn prepare(&self, sql: &str) -> Done<()> {
        self.answer(self.statement(sql)).await.map(drop)
    }

    /// Runs a statement; how many rows it changed.
    pub(super) async fn execute(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Done<u64> {
        self.answer(async { self.client.execute(&self.statement(sql).await?, params).await }).await
    }

    /// All rows of a statement.
    pub(super) async fn rows(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Done<Vec<Row>> {
        self.answer(async { self.client.query(&self.statement(sql).await?, params).await }).await
    }

    /// The first row of a statement.
    pub(super) async fn row(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Done<Option<Row>> {
        Ok(self.rows(sql, params).await?.into_iter().next())
    }

    /// Statements without values, in one go.
    pub(super) async fn batch(&self, sql: &str) -> Done<()> {
        self.answer(self.client.batch_execute(sql)).await
    }

    /// As [`Session::batch`], however long it takes.
    pub(super) async fn batch_slowly(&self, sql: &str) -> Done<()> {
        Ok(self.client.batch_execute(sql).await?)
    }

    /// Everything until [`Session::end_reading`] sees the same.
    pub(super) async fn begin_reading(&self) -> Done<()> {
        self.in_transaction.store(true, Ordering::Relaxed);
        self.batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }

    pub(super) async fn end_reading(&self) -> Done<()> {
        self.batch("COMMIT").await?;
        self.in_transaction.store(false, Ordering::Relaxed);
        Ok(())
    }
}

/// Somebody waits for an answer; dropped when they go away before it is there.
struct Waiting<'s> {
    session: &'s Session,
    since: Instant,
    is_over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // What asks whether we are ready waits for less than a session is given, and would be given the same one for ever.
        if !self.is_over && self.since.elapsed() > DOUBTFUL_AFTER {
            self.session.given_up.store(true, Ordering::Relaxed);
        }
    }
}

/// Sessions for what needs no turn: reads, and changes that are one statement.
pub(super) struct Pool {
    server: Arc<Server>,
    permits: Arc<Semaphore>,
    size: usize,
    /// The last one used is the next: its statements are prepared.
    idle: Mutex<Vec<Session>>,
    used: AtomicUsize,
}

impl Pool {
    pub(super) fn new(server: Arc<Server>, size: usize, first: Session) -> Arc<Pool> {
        let size = size.clamp(1, Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(size));
        Arc::new(Pool { server, permits, size, idle: Mutex::new(vec![first]), used: AtomicUsize::new(0) })
    }

    pub(super) async fn lease(self: &Arc<Pool>) -> Result<Lease> {
        let begun = Instant::now();
        let permit = timeout(LEASE_MAX, Arc::clone(&self.permits).acquire_owned()).await;
        metrics::histogram!("carrack_catalog_pool_wait_seconds").record(begun.elapsed().as_secs_f64());
        let busy =
            || Error::new(Code::Overloaded, "The server's catalog is busy. Send the request again later.");
        let permit = permit.map_err(|_| busy())?.map_err(|_| stopping())?;
        self.used.fetch_add(1, Ordering::Relaxed);
        let mut lease = Lease { session: None, pool: Arc::clone(self), _permit: permit };
        let idle = loop {
            let session = self.idle().pop();
            if session.as_ref().is_none_or(Session::is_good) {
                break session;
            }
        };
        self.count();
        lease.session = Some(match idle {
            Some(session) => session,
            None => self.server.connect().await?,
        });
        Ok(lease)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) {
        let idle = self.idle().len() as f64;
        let used = self.used.load(Ordering::Relaxed) as f64;
        metrics::gauge!("carrack_catalog_pool_connections", "state" => "idle").set(idle);
        metrics::gauge!("carrack_catalog_pool_connections", "state" => "used").set(used);
    }

    /// Waits until no session is in use, then ends them all.
    pub(super) async fn close(&self) {
        let all = self.permits.acquire_many(u32::try_from(self.size).unwrap_or(u32::MAX)).await;
        self.permits.close();
        self.idle().clear();
        drop(all);
    }
}

/// A session in use; goes back to its pool, before its permit does, unless it is of no more use.
pub(super) struct Lease {
    session: Option<Session>,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    /// The session; `unavailable` when there is none.
    pub(super) fn session(&self) -> Result<&Session> {
        self.session.as_ref().ok_or_else(|| unavailable("no session"))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            if !session.is_good() {
                // The others are of the same server, and most likely as dead: not one request each is to find that out.
                self.pool.idle().clear();
            } else if !session.in_transaction.load(Ordering::Relaxed) {
                self.pool.idle().push(session);
            }
        }
        self.pool.used.fetch_sub(1, Ordering::Relaxed);
        self.pool.count();
    }
}

pub(super) fn stopping() -> Error {
    Error::new(Code::ShuttingDown, "The server is stopping. Send the request again later.")
}
