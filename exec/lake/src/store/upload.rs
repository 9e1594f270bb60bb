//! Multipart uploads: their parts take slots as reads do, behind all of them, and their end makes the old object unknown.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::FutureExt;
use object_store::path::Path;
use object_store::{MultipartUpload, PutPayload, PutResult, Result, UploadPart};

use super::Shared;
use crate::controller::{Turn, Urgency};
use crate::read::ReadClass;

/// See the module.
pub(super) struct Upload {
    inner: Box<dyn MultipartUpload>,
    shared: Arc<Shared>,
    location: Path,
}

impl Upload {
    pub(super) fn new(inner: Box<dyn MultipartUpload>, shared: &Arc<Shared>, location: &Path) -> Self {
        Self {
            inner,
            shared: Arc::clone(shared),
            location: location.clone(),
        }
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upload({})", self.location)
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let part = self.inner.put_part(data);
        let controller = Arc::clone(self.shared.requests.controller());
        async move {
            let _slot = controller
                .acquire(&Urgency::new(ReadClass::Upload), &mut Turn::default())
                .await;
            part.await
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.inner.complete().await;
        self.shared.forget(&self.location);
        result
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
