//! What Trireme needs of an object store, case by case.
//!
//! The list is written over `object_store`'s trait, so it holds a store *and* its client to the same words: a client's own
//! gap (Azure's has no suffix ranges) shows as well as a server's. A case fails with a text, never with a panic, and what a
//! server is known not to do stands in a table ([`Known`]) by name. An entry that does not fail any more is a failure too, so
//! the table stays true.

mod conditions;
mod listing;
mod multipart;
mod reads;
mod writes;

use std::fmt::{self, Debug};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use object_store::list::PaginatedListStore;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

/// A case that takes longer hangs.
const CASE_TIME_MAX: Duration = Duration::from_secs(60);

/// Characters of a failure that are shown.
const TEXT_MAX: usize = 1500;

/// Characters of a failure that is known.
const KNOWN_MAX: usize = 160;

/// A store to be held to the list.
pub(crate) struct Subject {
    /// The program behind it; words of [`Known::whose`].
    pub(crate) server: &'static str,
    /// The client's dialect: s3, gcs, azure, or the name of a store without a protocol.
    pub(crate) dialect: &'static str,
    pub(crate) store: Arc<dyn ObjectStore>,
    /// The same store, page by page.
    pub(crate) pages: Option<Arc<dyn PaginatedListStore>>,
    /// The same server, but a bucket that it does not have.
    pub(crate) elsewhere: Option<Arc<dyn ObjectStore>>,
    /// Every key of a run is below this one.
    pub(crate) root: Path,
    /// How many keys the server lists in one page at most; 0 where so many would take too long.
    pub(crate) page_keys: usize,
}

/// What a server or a client is known not to do.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    /// A server or a dialect.
    pub(crate) whose: &'static str,
    pub(crate) case: &'static str,
    /// False where it goes well at times: a race that a server loses now and then.
    pub(crate) always: bool,
    pub(crate) what: &'static str,
}

/// Where one case works: nothing of another case is below `root`.
#[derive(Clone)]
struct Place {
    subject: Arc<Subject>,
    store: Arc<dyn ObjectStore>,
    root: Path,
}

impl Place {
    fn key(&self, name: &str) -> Path {
        name.split('/').fold(self.root.clone(), |path, part| path.join(part))
    }

    /// Stores an object; its entity tag.
    async fn put(&self, name: &str, bytes: impl Into<Bytes>) -> Result<String, Failure> {
        let done = self.store.put(&self.key(name), bytes.into().into()).await?;
        done.e_tag.ok_or_else(|| Failure::new("a put gives no entity tag"))
    }

    async fn get(&self, name: &str) -> Result<Bytes, Failure> {
        Ok(self.store.get(&self.key(name)).await?.bytes().await?)
    }
}

/// Why a case fails.
#[derive(Debug)]
struct Failure(String);

impl Failure {
    fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    /// Long enough to see what is wrong.
    fn short(&self) -> String {
        self.0.chars().take(TEXT_MAX).collect()
    }
}

impl From<object_store::Error> for Failure {
    fn from(error: object_store::Error) -> Self {
        Self(format!("unexpected error: {error}"))
    }
}

type Outcome = Result<(), Failure>;
type Run = fn(Place) -> Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// One line of the list.
struct Case {
    name: &'static str,
    run: Run,
}

/// The cases of a module, named after their functions.
macro_rules! cases {
    ($($name:ident)*) => {
        pub(super) const CASES: &[super::Case] = &[$(super::Case {
            name: stringify!($name),
            run: |place| Box::pin($name(place)),
        }),*];
    };
}
use cases;

/// Fails the case with a text unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::list::Failure(format!($($text)+)));
        }
    };
}
use ensure;

fn same<T: PartialEq + Debug>(what: &str, got: T, wanted: T) -> Outcome {
    if got == wanted {
        return Ok(());
    }
    let short = |value: &T| {
        let text: String = format!("{value:?}").chars().take(300).collect();
        text
    };
    Err(Failure(format!("{what}: {}, not {}", short(&got), short(&wanted))))
}

/// The kinds of errors that callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    NotFound,
    AlreadyExists,
    Precondition,
    NotModified,
    Unsupported,
    Other,
}

fn kind(error: &object_store::Error) -> Kind {
    use object_store::Error;
    match error {
        Error::NotFound { .. } => Kind::NotFound,
        Error::AlreadyExists { .. } => Kind::AlreadyExists,
        Error::Precondition { .. } => Kind::Precondition,
        Error::NotModified { .. } => Kind::NotModified,
        Error::NotSupported { .. } | Error::NotImplemented { .. } => Kind::Unsupported,
        _ => Kind::Other,
    }
}

/// The operation must fail in this way.
fn fails<T>(what: &str, result: object_store::Result<T>, wanted: Kind) -> Outcome {
    match result {
        Ok(_) => Err(Failure(format!("{what}: succeeds, should be {wanted:?}"))),
        Err(error) if kind(&error) == wanted => Ok(()),
        Err(error) => Err(Failure(format!(
            "{what}: {:?} ({error}), should be {wanted:?}",
            kind(&error)
        ))),
    }
}

/// Bytes that tell by themselves where in the object they are from.
fn pattern(length: usize) -> Bytes {
    (0..length)
        .map(|at| (at % 251) as u8 ^ (at / 251 % 256) as u8)
        .collect::<Vec<u8>>()
        .into()
}

/// What came of a run.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) held: usize,
    /// Names of known gaps that showed.
    pub(crate) known: Vec<String>,
    pub(crate) failures: Vec<String>,
    times: Vec<(Duration, &'static str)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} hold, {} known not to, {} fail",
            self.held,
            self.known.len(),
            self.failures.len()
        )?;
        self.known.iter().try_for_each(|each| write!(f, "\n  known: {each}"))?;
        self.failures
            .iter()
            .try_for_each(|each| write!(f, "\n  FAILS: {each}"))?;
        let slowest = self.times.iter().max();
        slowest.map_or(Ok(()), |(time, name)| write!(f, "\n  slowest: {name}, {time:.1?}"))
    }
}

/// Names of all cases, in order.
pub(crate) fn names() -> Vec<&'static str> {
    all().map(|case| case.name).collect()
}

fn all() -> impl Iterator<Item = &'static Case> {
    let parts = [
        reads::CASES,
        listing::CASES,
        writes::CASES,
        conditions::CASES,
        multipart::CASES,
    ];
    parts.into_iter().flatten()
}

/// Holds a store to the whole list, one case after the other. `CASE` in the environment runs only what contains its words.
pub(crate) async fn hold(subject: Subject, table: &[Known]) -> Report {
    let subject = Arc::new(subject);
    let only = std::env::var("CASE").unwrap_or_default();
    let mut report = Report::default();
    for case in all().filter(|case| case.name.contains(&only)) {
        let place = Place {
            store: Arc::clone(&subject.store),
            root: subject.root.clone().join(case.name),
            subject: Arc::clone(&subject),
        };
        let begin = Instant::now();
        let outcome = match tokio::time::timeout(CASE_TIME_MAX, (case.run)(place)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure(format!("no end after {CASE_TIME_MAX:?}"))),
        };
        report.times.push((begin.elapsed(), case.name));
        let known = table
            .iter()
            .find(|known| known.case == case.name && [subject.server, subject.dialect].contains(&known.whose));
        match (outcome, known) {
            (Ok(()), Some(known)) if known.always => report.failures.push(format!(
                "{}: holds, though the table says that {} {}",
                case.name, known.whose, known.what
            )),
            (Ok(()), _) => report.held += 1,
            (Err(why), Some(known)) => {
                let why: String = why
                    .0
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .chars()
                    .take(KNOWN_MAX)
                    .collect();
                let line = format!("{}: {} {}; here: {why}", case.name, known.whose, known.what);
                report.known.push(line);
            }
            (Err(why), None) => report.failures.push(format!("{}: {}", case.name, why.short())),
        }
    }
    report
}
