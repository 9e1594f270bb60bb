//! [`TieredStore`] as an [`ObjectStore`]: gets by [`super::gets`], writes behind all reads, and nothing remembered of what
//! this process changes.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use super::upload::Upload;
use super::{Shared, TieredStore};
use crate::controller::{Slot, Turn, Urgency};
use crate::look;
use crate::read::ReadClass;

impl Shared {
    async fn upload_slot(&self) -> Slot {
        let urgency = Urgency::new(ReadClass::Upload);
        self.requests.controller().acquire(&urgency, &mut Turn::default()).await
    }

    fn remembering(
        self: &Arc<Self>,
        listed: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let shared = Arc::clone(self);
        listed
            .inspect(move |meta| {
                if let Ok(meta) = meta {
                    shared.known.remember(meta);
                }
            })
            .boxed()
    }
}

#[async_trait]
impl ObjectStore for TieredStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let shared = &self.shared;
        let _slot = shared.upload_slot().await;
        let result = shared.other.put_opts(location, payload, options).await;
        shared.forget(location);
        result
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.shared.other.put_multipart_opts(location, options).await?;
        Ok(Box::new(Upload::new(inner, &self.shared, location)))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if !self.shared.options.enabled {
            return self.shared.other.get_opts(location, options).await;
        }
        let Some(looks) = look::current().filter(|_| look::asks_head(&options)) else {
            return self.shared.get(location, options).await;
        };
        let place = self.shared.place();
        if let Some(meta) = looks.head(&place, location) {
            return Ok(look::head_result(meta));
        }
        let result = self.shared.get(location, options).await?;
        looks.keep_head(place, result.meta.clone());
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if !self.shared.options.enabled {
            return self.shared.other.get_ranges(location, ranges).await;
        }
        self.shared.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (before, after) = (Arc::clone(&self.shared), Arc::clone(&self.shared));
        let forget = |shared: Arc<Shared>| {
            move |location: &Result<Path>| {
                if let Ok(location) = location {
                    shared.forget(location);
                }
            }
        };
        // Before, too: a deletion that fails half way may have happened.
        let locations = locations.inspect(forget(before)).boxed();
        self.shared
            .other
            .delete_stream(locations)
            .inspect(forget(after))
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let list = || self.shared.remembering(self.shared.other.list(prefix));
        match look::current().filter(|_| self.shared.options.enabled) {
            Some(looks) => looks.list(self.shared.place(), prefix.cloned().unwrap_or_default(), list),
            None => list(),
        }
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.shared
            .remembering(self.shared.other.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let listed = self.shared.other.list_with_delimiter(prefix).await?;
        for meta in &listed.objects {
            self.shared.known.remember(meta);
        }
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let result = self.shared.other.copy_opts(from, to, options).await;
        self.shared.forget(to);
        result
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let result = self.shared.other.rename_opts(from, to, options).await;
        self.shared.forget(from);
        self.shared.forget(to);
        result
    }
}
