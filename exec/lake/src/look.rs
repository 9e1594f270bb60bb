//! One look per statement: what planning lists, or asks the head of, a second time is answered by the first.
//!
//! A planner asks for the same files again and again (what is the schema, which files are there, how large are they), one
//! question after the other, and every question is a round trip. Within [`in_one_look`] the store is asked once. What this
//! process writes meanwhile, or what is older than [`AGE_MAX`], is asked again. Nothing outlives the statement.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::ready;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{Attributes, GetOptions, GetResult, GetResultPayload, ObjectMeta, Result};
use parking_lot::Mutex;

/// Long statements look again.
const AGE_MAX: Duration = Duration::from_secs(5);
/// Longer lists are not kept.
const OBJECTS_MAX: usize = 50_000;
/// More answers are not kept.
const ANSWERS_MAX: usize = 1_000;

tokio::task_local! {
    static LOOKS: Arc<Looks>;
}

/// Plans one statement: stores are asked once for what they hold.
pub async fn in_one_look<T>(planning: impl Future<Output = T>) -> T {
    LOOKS.scope(Arc::default(), planning).await
}

/// The looks of the statement that this task plans.
pub(crate) fn current() -> Option<Arc<Looks>> {
    LOOKS.try_with(Arc::clone).ok()
}

/// What a statement has seen.
#[derive(Debug, Default)]
pub(crate) struct Looks(Mutex<Vec<Look>>);

/// Of which store, and in which state of it: what this process has changed there so far.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) store: Arc<str>,
    pub(crate) changes: u64,
}

#[derive(Debug)]
struct Look {
    place: Place,
    at: Instant,
    seen: Seen,
}

#[derive(Debug)]
enum Seen {
    Head(ObjectMeta),
    List(Path, Vec<ObjectMeta>),
}

impl Look {
    fn holds(&self, place: &Place) -> bool {
        self.place.store == place.store && self.place.changes == place.changes && self.at.elapsed() < AGE_MAX
    }
}

/// Strictly below: a prefix is a folder.
fn is_below(location: &Path, folder: &Path) -> bool {
    location
        .prefix_match(folder)
        .is_some_and(|mut rest| rest.next().is_some())
}

impl Looks {
    fn keep(&self, place: Place, seen: Seen) {
        let mut looks = self.0.lock();
        if looks.len() < ANSWERS_MAX {
            looks.push(Look {
                place,
                at: Instant::now(),
                seen,
            });
        }
    }

    /// The head of an object that was seen.
    pub(crate) fn head(&self, place: &Place, location: &Path) -> Option<ObjectMeta> {
        let looks = self.0.lock();
        looks
            .iter()
            .filter(|look| look.holds(place))
            .find_map(|look| match &look.seen {
                Seen::Head(meta) => (meta.location == *location).then(|| meta.clone()),
                Seen::List(folder, objects) if is_below(location, folder) => {
                    objects.iter().find(|meta| meta.location == *location).cloned()
                }
                Seen::List(..) => None,
            })
    }

    pub(crate) fn keep_head(&self, place: Place, meta: ObjectMeta) {
        self.keep(place, Seen::Head(meta));
    }

    fn listed(&self, place: &Place, folder: &Path) -> Option<Vec<ObjectMeta>> {
        let looks = self.0.lock();
        looks
            .iter()
            .filter(|look| look.holds(place))
            .find_map(|look| match &look.seen {
                Seen::List(known, objects) if folder.prefix_matches(known) => {
                    let below = objects.iter().filter(|meta| is_below(&meta.location, folder));
                    Some(below.cloned().collect())
                }
                _ => None,
            })
    }

    /// What is below a folder: as it was seen, or by `list`, whose answer is kept when it has come to its end.
    pub(crate) fn list(
        self: Arc<Self>,
        place: Place,
        folder: Path,
        list: impl FnOnce() -> BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        if let Some(objects) = self.listed(&place, &folder) {
            return stream::iter(objects.into_iter().map(Ok)).boxed();
        }
        let mut kept = Some((place, folder, Vec::new()));
        list()
            .map(Some)
            .chain(stream::once(ready(None)))
            .filter_map(move |item| {
                match &item {
                    Some(Ok(meta)) => {
                        kept = kept.take().filter(|(_, _, objects)| objects.len() < OBJECTS_MAX);
                        if let Some((_, _, objects)) = &mut kept {
                            objects.push(meta.clone());
                        }
                    }
                    Some(Err(_)) => kept = None,
                    None => {
                        if let Some((place, folder, objects)) = kept.take() {
                            self.keep(place, Seen::List(folder, objects));
                        }
                    }
                }
                ready(item)
            })
            .boxed()
    }
}

/// Whether a get asks for the head of what is there now, and nothing else.
pub(crate) fn asks_head(options: &GetOptions) -> bool {
    let conditions = [&options.if_match, &options.if_none_match, &options.version];
    let times = [&options.if_modified_since, &options.if_unmodified_since];
    options.head
        && options.range.is_none()
        && conditions.iter().all(|each| each.is_none())
        && times.iter().all(|each| each.is_none())
}

/// The answer of such a get.
pub(crate) fn head_result(meta: ObjectMeta) -> GetResult {
    GetResult {
        range: 0..meta.size,
        payload: GetResultPayload::Stream(stream::empty().boxed()),
        attributes: Attributes::default(),
        meta,
    }
}
