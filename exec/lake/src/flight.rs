//! Reads that are under way, so that one range of one version is fetched once however many want it.
//!
//! A flight is a task of its own: it goes on while its readers do other things. Whoever wants bytes that a flight will bring
//! joins it, and makes it as urgent as itself; when the last reader has left, it is cancelled.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{Error, Result};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::controller::{Controller, Urgency};
use crate::errors::share;
use crate::read::{ObjectRef, ReadClass};
use crate::request::errors::Broken;

type Outcome = Option<Result<Bytes, Arc<Error>>>;
type Key = (Path, String);

#[derive(Debug)]
struct Flight {
    range: Range<u64>,
    urgency: Arc<Urgency>,
    readers: AtomicUsize,
    outcome: watch::Receiver<Outcome>,
    task: Mutex<Option<AbortHandle>>,
}

/// The flights of one store.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    by_object: Mutex<HashMap<Key, Vec<Arc<Flight>>>>,
}

/// Being one of a flight's readers; dropping it leaves.
pub(crate) struct Seat {
    flights: Arc<Flights>,
    key: Key,
    flight: Arc<Flight>,
}

impl Flights {
    /// The bytes of `range`: from a flight that will bring them, or from a new one that runs `fetch`.
    pub(crate) async fn join(
        self: &Arc<Self>,
        controller: &Arc<Controller>,
        object: &Arc<ObjectRef>,
        range: &Range<u64>,
        class: ReadClass,
        fetch: impl FnOnce(Arc<Urgency>) -> BoxFuture<'static, Result<Bytes>>,
    ) -> Result<Bytes> {
        let seat = self.seat(controller, object, range, class, fetch)?;
        let mut outcome = seat.flight.outcome.clone();
        let outcome = match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone(),
            Err(_) => None,
        };
        match outcome {
            Some(Ok(bytes)) => {
                let offset = |byte: u64| usize::try_from(byte - seat.flight.range.start).unwrap_or(usize::MAX);
                Ok(bytes.slice(offset(range.start)..offset(range.end)))
            }
            Some(Err(error)) => Err(share(error)),
            None => Err(Broken::Ended.into_error()),
        }
    }

    /// Makes the flight that will bring `range`, if there is one, at least this urgent.
    pub(crate) fn raise(&self, controller: &Controller, object: &ObjectRef, range: &Range<u64>, class: ReadClass) {
        let flights = self.by_object.lock();
        if let Some(flight) = flights.get(&key(object)).and_then(|flights| find(flights, range)) {
            controller.raise(&flight.urgency, class);
        }
    }

    /// Flights under way.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.by_object.lock().values().map(Vec::len).sum()
    }

    fn seat(
        self: &Arc<Self>,
        controller: &Arc<Controller>,
        object: &Arc<ObjectRef>,
        range: &Range<u64>,
        class: ReadClass,
        fetch: impl FnOnce(Arc<Urgency>) -> BoxFuture<'static, Result<Bytes>>,
    ) -> Result<Seat> {
        let runtime = Handle::try_current().map_err(|_| Broken::NoRuntime.into_error())?;
        let key = key(object);
        let mut by_object = self.by_object.lock();
        let flights = by_object.entry(key.clone()).or_default();
        if let Some(flight) = find(flights, range) {
            flight.readers.fetch_add(1, Ordering::Relaxed);
            controller.raise(&flight.urgency, class);
            return Ok(Seat {
                flights: Arc::clone(self),
                flight: Arc::clone(flight),
                key,
            });
        }
        let urgency = Urgency::new(class);
        let (sender, outcome) = watch::channel(None);
        let flight = Arc::new(Flight {
            range: range.clone(),
            urgency: Arc::clone(&urgency),
            readers: AtomicUsize::new(1),
            outcome,
            task: Mutex::new(None),
        });
        let (fetched, all) = (fetch(urgency), Arc::clone(self));
        let (landed, landed_key) = (Arc::clone(&flight), key.clone());
        let task = runtime.spawn(async move {
            let outcome = fetched.await;
            all.remove(&landed_key, &landed);
            let _ = sender.send(Some(outcome.map_err(Arc::new)));
        });
        *flight.task.lock() = Some(task.abort_handle());
        flights.push(Arc::clone(&flight));
        Ok(Seat {
            flights: Arc::clone(self),
            flight,
            key,
        })
    }

    fn remove(&self, key: &Key, flight: &Arc<Flight>) {
        let mut by_object = self.by_object.lock();
        if let Some(flights) = by_object.get_mut(key) {
            flights.retain(|other| !Arc::ptr_eq(other, flight));
            if flights.is_empty() {
                by_object.remove(key);
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut by_object = self.flights.by_object.lock();
        if self.flight.readers.fetch_sub(1, Ordering::Relaxed) > 1 {
            return;
        }
        // Under the lock: nobody can have joined since.
        if let Some(flights) = by_object.get_mut(&self.key) {
            flights.retain(|other| !Arc::ptr_eq(other, &self.flight));
            if flights.is_empty() {
                by_object.remove(&self.key);
            }
        }
        drop(by_object);
        if let Some(task) = self.flight.task.lock().take() {
            task.abort();
        }
    }
}

fn key(object: &ObjectRef) -> Key {
    (object.location.clone(), object.version.clone())
}

fn find<'a>(flights: &'a [Arc<Flight>], range: &Range<u64>) -> Option<&'a Arc<Flight>> {
    (flights.iter()).find(|flight| flight.range.start <= range.start && range.end <= flight.range.end)
}
