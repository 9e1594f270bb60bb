//! The objects: buckets, conditions, lists and uploads in parts, the same for all dialects.
//!
//! One lock guards all of it, and is held for a lookup or a change, never for a transfer: of writers that race with a
//! condition, one wins.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;

use crate::content::Content;
use crate::draw::mix;
use crate::folder;

/// Headers that a writer gave and a reader gets.
pub(crate) type Attributes = Vec<(HeaderName, HeaderValue)>;

/// One version of an object.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) content: Content,
    /// Without quotes.
    pub(crate) e_tag: String,
    pub(crate) generation: u64,
    pub(crate) modified: DateTime<Utc>,
    pub(crate) attributes: Attributes,
    /// Azure's committed blocks.
    pub(crate) blocks: Vec<(String, Bytes)>,
}

/// What must hold for a write.
#[derive(Debug, Clone, Default)]
pub(crate) struct Condition {
    /// `If-None-Match: *`, or generation 0.
    pub(crate) absent: bool,
    /// `If-Match`.
    pub(crate) e_tag: Option<String>,
    /// `x-goog-if-generation-match`.
    pub(crate) generation: Option<u64>,
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NoBucket,
    NoKey,
    NoUpload,
    BucketExists,
    BucketNotEmpty,
    ReadOnly,
    /// The object is there, and must not be.
    Exists,
    /// The object is not as the condition says.
    Changed,
    InvalidPart,
    InvalidPartOrder,
    PartTooSmall,
}

/// What is uploaded and not yet an object.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    pub(crate) key: String,
    attributes: Attributes,
    pub(crate) started: DateTime<Utc>,
    pub(crate) parts: BTreeMap<u32, (String, Bytes)>,
}

#[derive(Debug, Default)]
struct Bucket {
    objects: BTreeMap<String, Arc<Object>>,
    uploads: BTreeMap<String, Upload>,
    /// Azure's blocks that are not committed, by blob.
    blocks: BTreeMap<String, BTreeMap<String, Bytes>>,
    folder: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Inner {
    buckets: BTreeMap<String, Bucket>,
    generation: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Model {
    inner: Mutex<Inner>,
}

/// A list that is asked for.
#[derive(Debug, Default)]
pub(crate) struct ListQuery {
    pub(crate) prefix: String,
    pub(crate) delimiter: String,
    /// Only keys after this one; with `after_inclusive` this one too.
    pub(crate) after: String,
    pub(crate) after_inclusive: bool,
    pub(crate) keys_max: usize,
}

/// Its answer.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    pub(crate) objects: Vec<(String, Arc<Object>)>,
    pub(crate) prefixes: Vec<String>,
    /// `after` of the next page.
    pub(crate) next: Option<String>,
}

impl Inner {
    fn bucket(&mut self, name: &str) -> Result<&mut Bucket, Refusal> {
        self.buckets.get_mut(name).ok_or(Refusal::NoBucket)
    }

    fn writable(&mut self, name: &str) -> Result<&mut Bucket, Refusal> {
        let bucket = self.bucket(name)?;
        if bucket.folder.is_some() {
            return Err(Refusal::ReadOnly);
        }
        Ok(bucket)
    }

    fn object(&mut self, content: Content, attributes: Attributes, blocks: Vec<(String, Bytes)>) -> Arc<Object> {
        self.generation += 1;
        Arc::new(Object {
            e_tag: e_tag(&content, self.generation),
            generation: self.generation,
            content,
            modified: Utc::now(),
            attributes,
            blocks,
        })
    }

    fn write(
        &mut self,
        bucket: &str,
        key: &str,
        when: &Condition,
        object: Arc<Object>,
    ) -> Result<Arc<Object>, Refusal> {
        let bucket = self.writable(bucket)?;
        when.check(bucket.objects.get(key).map(AsRef::as_ref))?;
        bucket.objects.insert(key.to_owned(), Arc::clone(&object));
        Ok(object)
    }
}

impl Condition {
    fn check(&self, old: Option<&Object>) -> Result<(), Refusal> {
        if self.absent && old.is_some() {
            return Err(Refusal::Exists);
        }
        if let Some(e_tag) = &self.e_tag {
            let old = old.ok_or(Refusal::NoKey)?;
            if e_tag != "*" && *e_tag != old.e_tag {
                return Err(Refusal::Changed);
            }
        }
        if let Some(generation) = self.generation
            && old.is_none_or(|old| old.generation != generation)
        {
            return Err(Refusal::Changed);
        }
        Ok(())
    }
}

/// 32 hexadecimal digits that differ for every write, and are the same when a store is filled in the same order again.
fn e_tag(content: &Content, generation: u64) -> String {
    let size = content.size();
    let mut hash = mix(size ^ mix(generation));
    for range in [0..size.min(4096), size.saturating_sub(4096)..size] {
        for word in content.range(range).unwrap_or_default().chunks(8) {
            let mut bytes = [0; 8];
            bytes[..word.len()].copy_from_slice(word);
            hash = mix(hash ^ u64::from_le_bytes(bytes));
        }
    }
    format!("{hash:016x}{:016x}", mix(hash ^ generation))
}

impl Model {
    pub(crate) fn create_bucket(&self, name: &str) -> Result<(), Refusal> {
        let mut inner = self.inner.lock();
        if inner.buckets.contains_key(name) {
            return Err(Refusal::BucketExists);
        }
        inner.buckets.insert(name.to_owned(), Bucket::default());
        Ok(())
    }

    pub(crate) fn mount(&self, name: &str, folder: PathBuf) {
        let bucket = Bucket {
            folder: Some(folder),
            ..Bucket::default()
        };
        self.inner.lock().buckets.insert(name.to_owned(), bucket);
    }

    pub(crate) fn drop_bucket(&self, name: &str) -> Result<(), Refusal> {
        let mut inner = self.inner.lock();
        let bucket = inner.bucket(name)?;
        if bucket.folder.is_none() && !bucket.objects.is_empty() {
            return Err(Refusal::BucketNotEmpty);
        }
        inner.buckets.remove(name);
        Ok(())
    }

    pub(crate) fn buckets(&self) -> Vec<String> {
        self.inner.lock().buckets.keys().cloned().collect()
    }

    pub(crate) fn has_bucket(&self, name: &str) -> bool {
        self.inner.lock().buckets.contains_key(name)
    }

    pub(crate) fn get(&self, bucket: &str, key: &str) -> Result<Arc<Object>, Refusal> {
        let mut inner = self.inner.lock();
        let bucket = inner.bucket(bucket)?;
        if let Some(folder) = &bucket.folder {
            folder::refresh(folder, key, &mut bucket.objects);
        }
        bucket.objects.get(key).cloned().ok_or(Refusal::NoKey)
    }

    pub(crate) fn put(
        &self,
        bucket: &str,
        key: &str,
        content: Content,
        attributes: Attributes,
        when: &Condition,
    ) -> Result<Arc<Object>, Refusal> {
        let mut inner = self.inner.lock();
        let object = inner.object(content, attributes, Vec::new());
        inner.write(bucket, key, when, object)
    }

    /// True when there was one.
    pub(crate) fn delete(&self, bucket: &str, key: &str, when: &Condition) -> Result<bool, Refusal> {
        let mut inner = self.inner.lock();
        let bucket = inner.writable(bucket)?;
        when.check(bucket.objects.get(key).map(AsRef::as_ref))?;
        Ok(bucket.objects.remove(key).is_some())
    }

    pub(crate) fn list(&self, bucket: &str, query: &ListQuery) -> Result<Listed, Refusal> {
        let mut inner = self.inner.lock();
        let bucket = inner.bucket(bucket)?;
        if let Some(folder) = &bucket.folder {
            folder::refresh_all(folder, &mut bucket.objects);
        }
        Ok(list(&bucket.objects, query))
    }
}

/// Keys in order; what lies below a delimiter is one prefix. A page ends after `keys_max` of both together.
fn list(objects: &BTreeMap<String, Arc<Object>>, query: &ListQuery) -> Listed {
    use std::ops::Bound;
    let mut listed = Listed::default();
    let after = query.after.as_str();
    let mut start = if after.is_empty() || after < query.prefix.as_str() {
        Bound::Included(query.prefix.clone())
    } else if !query.delimiter.is_empty() && after.ends_with(&query.delimiter) && after != query.prefix {
        // A page that ended with a prefix goes on behind all of it.
        Bound::Excluded(behind(after))
    } else if query.after_inclusive {
        Bound::Included(after.to_owned())
    } else {
        Bound::Excluded(after.to_owned())
    };
    let mut last = String::new();
    loop {
        let next = objects.range::<String, _>((start.clone(), Bound::Unbounded)).next();
        let Some((key, object)) = next.filter(|(key, _)| key.starts_with(&query.prefix)) else {
            return listed;
        };
        if listed.objects.len() + listed.prefixes.len() == query.keys_max {
            listed.next = Some(last);
            return listed;
        }
        let rest = &key[query.prefix.len()..];
        let folder = (!query.delimiter.is_empty())
            .then(|| rest.find(&query.delimiter))
            .flatten();
        if let Some(at) = folder {
            let prefix = key[..query.prefix.len() + at + query.delimiter.len()].to_owned();
            start = Bound::Excluded(behind(&prefix));
            last.clone_from(&prefix);
            listed.prefixes.push(prefix);
        } else {
            start = Bound::Excluded(key.clone());
            last.clone_from(key);
            listed.objects.push((key.clone(), Arc::clone(object)));
        }
    }
}

/// A string after all keys that begin with this prefix.
fn behind(prefix: &str) -> String {
    format!("{prefix}{}", char::MAX)
}

/// Uploads in parts.
impl Model {
    pub(crate) fn create_upload(&self, bucket: &str, key: &str, attributes: Attributes) -> Result<String, Refusal> {
        let mut inner = self.inner.lock();
        inner.generation += 1;
        let id = format!("{:016x}", mix(inner.generation ^ 0x75_706c_6f61_6464));
        let upload = Upload {
            key: key.to_owned(),
            attributes,
            started: Utc::now(),
            parts: BTreeMap::new(),
        };
        inner.writable(bucket)?.uploads.insert(id.clone(), upload);
        Ok(id)
    }

    /// The part's entity tag.
    pub(crate) fn put_part(
        &self,
        bucket: &str,
        key: &str,
        id: &str,
        number: u32,
        data: Bytes,
    ) -> Result<String, Refusal> {
        let mut inner = self.inner.lock();
        inner.generation += 1;
        let e_tag = e_tag(&Content::pieces([data.clone()]), inner.generation);
        let upload = inner.bucket(bucket)?.uploads.get_mut(id);
        let upload = upload.filter(|upload| upload.key == key).ok_or(Refusal::NoUpload)?;
        upload.parts.insert(number, (e_tag.clone(), data));
        Ok(e_tag)
    }

    pub(crate) fn complete(
        &self,
        bucket: &str,
        key: &str,
        id: &str,
        parts: &[(u32, String)],
        part_bytes_min: u64,
        when: &Condition,
    ) -> Result<Arc<Object>, Refusal> {
        let mut inner = self.inner.lock();
        let upload = inner.bucket(bucket)?.uploads.get(id);
        let upload = upload.filter(|upload| upload.key == key).ok_or(Refusal::NoUpload)?;
        if parts.is_empty() {
            return Err(Refusal::InvalidPart);
        }
        if !parts.is_sorted_by(|left, right| left.0 < right.0) {
            return Err(Refusal::InvalidPartOrder);
        }
        let mut pieces = Vec::with_capacity(parts.len());
        for (index, (number, e_tag)) in parts.iter().enumerate() {
            let (known, data) = upload.parts.get(number).ok_or(Refusal::InvalidPart)?;
            if known != e_tag {
                return Err(Refusal::InvalidPart);
            }
            if index + 1 < parts.len() && (data.len() as u64) < part_bytes_min {
                return Err(Refusal::PartTooSmall);
            }
            pieces.push(data.clone());
        }
        let attributes = upload.attributes.clone();
        let object = inner.object(Content::pieces(pieces), attributes, Vec::new());
        let object = inner.write(bucket, key, when, object)?;
        inner.bucket(bucket)?.uploads.remove(id);
        Ok(object)
    }

    pub(crate) fn abort(&self, bucket: &str, key: &str, id: &str) -> Result<(), Refusal> {
        let mut inner = self.inner.lock();
        let uploads = &mut inner.bucket(bucket)?.uploads;
        if uploads.get(id).is_none_or(|upload| upload.key != key) {
            return Err(Refusal::NoUpload);
        }
        uploads.remove(id);
        Ok(())
    }

    /// Uploads under way, by id.
    pub(crate) fn uploads(&self, bucket: &str) -> Result<Vec<(String, Upload)>, Refusal> {
        let mut inner = self.inner.lock();
        let uploads = &inner.bucket(bucket)?.uploads;
        Ok(uploads
            .iter()
            .map(|(id, upload)| (id.clone(), upload.clone()))
            .collect())
    }

    pub(crate) fn put_block(&self, bucket: &str, key: &str, id: &str, data: Bytes) -> Result<(), Refusal> {
        let mut inner = self.inner.lock();
        let blocks = inner.writable(bucket)?.blocks.entry(key.to_owned()).or_default();
        blocks.insert(id.to_owned(), data);
        Ok(())
    }

    /// Commits blocks: of each whether it may be one that was committed before, one that was not, and its id.
    pub(crate) fn put_block_list(
        &self,
        bucket: &str,
        key: &str,
        list: &[(bool, bool, String)],
        attributes: Attributes,
        when: &Condition,
    ) -> Result<Arc<Object>, Refusal> {
        let mut inner = self.inner.lock();
        let from = inner.writable(bucket)?;
        let old = from.objects.get(key).cloned();
        let fresh = from.blocks.get(key);
        let mut blocks = Vec::with_capacity(list.len());
        for (committed, uncommitted, id) in list {
            let fresh = fresh.and_then(|fresh| fresh.get(id)).filter(|_| *uncommitted);
            let kept = || {
                let kept = old.as_ref()?.blocks.iter().find(|(known, _)| known == id);
                kept.filter(|_| *committed).map(|(_, data)| data)
            };
            let data = fresh.or_else(kept).ok_or(Refusal::InvalidPart)?;
            blocks.push((id.clone(), data.clone()));
        }
        let content = Content::pieces(blocks.iter().map(|(_, data)| data.clone()));
        let object = inner.object(content, attributes, blocks);
        let object = inner.write(bucket, key, when, object)?;
        inner.bucket(bucket)?.blocks.remove(key);
        Ok(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(keys: &[&str]) -> Model {
        let model = Model::default();
        model.create_bucket("b").unwrap();
        for key in keys {
            model
                .put(
                    "b",
                    key,
                    Content::pieces([Bytes::from_static(b"x")]),
                    Vec::new(),
                    &Condition::default(),
                )
                .unwrap();
        }
        model
    }

    /// Keys and prefixes of all pages.
    fn pages(model: &Model, prefix: &str, delimiter: &str, keys_max: usize) -> Vec<Vec<String>> {
        let mut query = ListQuery {
            prefix: prefix.to_owned(),
            delimiter: delimiter.to_owned(),
            keys_max,
            ..ListQuery::default()
        };
        let mut pages = Vec::new();
        loop {
            let listed = model.list("b", &query).unwrap();
            let keys = listed.objects.into_iter().map(|(key, _)| key);
            pages.push(keys.chain(listed.prefixes).collect());
            match listed.next {
                Some(next) => query.after = next,
                None => return pages,
            }
        }
    }

    #[test]
    fn lists_fold_folders_and_go_on_behind_them() {
        let model = model(&["a", "b/1", "b/2", "b/c/3", "b0", "d/4"]);
        assert_eq!(pages(&model, "", "/", 100), [["a", "b0", "b/", "d/"]]);
        assert_eq!(pages(&model, "", "/", 1), [["a"], ["b/"], ["b0"], ["d/"]]);
        assert_eq!(pages(&model, "b/", "/", 2), [vec!["b/1", "b/2"], vec!["b/c/"]]);
        assert_eq!(pages(&model, "b", "", 3), [vec!["b/1", "b/2", "b/c/3"], vec!["b0"]]);
        assert_eq!(pages(&model, "e", "", 3), [Vec::<String>::new()]);
    }

    #[test]
    fn conditions_hold() {
        let model = model(&["a"]);
        let old = model.get("b", "a").unwrap();
        let put = |when: &Condition| model.put("b", "a", Content::pieces([]), Vec::new(), when).map(|_| ());
        let absent = Condition {
            absent: true,
            ..Condition::default()
        };
        assert_eq!(put(&absent), Err(Refusal::Exists));
        let same = Condition {
            e_tag: Some(old.e_tag.clone()),
            ..Condition::default()
        };
        assert_eq!(put(&same), Ok(()));
        assert_eq!(put(&same), Err(Refusal::Changed));
        let generation = Condition {
            generation: Some(old.generation),
            ..Condition::default()
        };
        assert_eq!(put(&generation), Err(Refusal::Changed));
        assert!(model.delete("b", "a", &Condition::default()).unwrap());
        assert_eq!(put(&same), Err(Refusal::NoKey));
        assert_eq!(put(&absent), Ok(()));
    }
}
