//! Puts, deletes, copies.

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{CopyMode, CopyOptions, ObjectStoreExt};

use super::{Kind, Outcome, Place, cases, ensure, fails, kind, pattern, same};

cases! {
    put_replaces
    put_of_the_same_bytes
    delete
    bulk_delete
    bulk_delete_of_missing
    copy
    copy_of_missing
    copy_if_absent
    rename
}

async fn put_replaces(place: Place) -> Outcome {
    let first = place.put("a", pattern(1000)).await?;
    let second = place.put("a", pattern(10)).await?;
    ensure!(first != second, "two contents have one entity tag");
    same("bytes", place.get("a").await?, pattern(10))?;
    same("size", place.store.head(&place.key("a")).await?.size, 10)
}

/// The tag may stay or change; the object must be readable with the one that the last put gave.
async fn put_of_the_same_bytes(place: Place) -> Outcome {
    place.put("a", pattern(10)).await?;
    let second = place.put("a", pattern(10)).await?;
    same(
        "entity tag",
        place.store.head(&place.key("a")).await?.e_tag,
        Some(second),
    )
}

async fn delete(place: Place) -> Outcome {
    place.put("a", "x").await?;
    place.store.delete(&place.key("a")).await?;
    fails("get", place.store.get(&place.key("a")).await, Kind::NotFound)?;
    // Vendors differ; nothing else may come of it.
    match place.store.delete(&place.key("a")).await {
        Ok(()) => Ok(()),
        Err(error) if kind(&error) == Kind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn bulk_delete(place: Place) -> Outcome {
    let names: Vec<String> = (0..30).map(|i| format!("k={i} &+%/f")).collect();
    for name in &names {
        place.put(name, "x").await?;
    }
    place.put("stays", "x").await?;
    let all: Vec<_> = names.iter().map(|name| Ok(place.key(name))).collect();
    let deleted: Vec<Path> = place
        .store
        .delete_stream(stream::iter(all).boxed())
        .try_collect()
        .await?;
    same("deleted", deleted.len(), names.len())?;
    let left: Vec<_> = place.store.list(Some(&place.root)).try_collect().await?;
    same("left", left.len(), 1)
}

/// One that is missing does not keep the others.
async fn bulk_delete_of_missing(place: Place) -> Outcome {
    place.put("a", "x").await?;
    place.put("c", "x").await?;
    let all = ["a", "b", "c"].map(|name| Ok(place.key(name)));
    let results: Vec<_> = place.store.delete_stream(stream::iter(all).boxed()).collect().await;
    for result in results {
        match result {
            Err(error) if kind(&error) != Kind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    let left: Vec<_> = place.store.list(Some(&place.root)).try_collect().await?;
    same("left", left.len(), 0)
}

async fn copy(place: Place) -> Outcome {
    place.put("a", pattern(1000)).await?;
    place.put("c", "old").await?;
    for target in ["b", "c", "far/away"] {
        place.store.copy(&place.key("a"), &place.key(target)).await?;
        same(target, place.get(target).await?, pattern(1000))?;
    }
    same("the source", place.get("a").await?, pattern(1000))
}

async fn copy_of_missing(place: Place) -> Outcome {
    let done = place.store.copy(&place.key("nothing"), &place.key("b")).await;
    fails("copy", done, Kind::NotFound)?;
    fails("the target", place.store.head(&place.key("b")).await, Kind::NotFound)
}

async fn copy_if_absent(place: Place) -> Outcome {
    place.put("a", "new").await?;
    let create = || CopyOptions::new().with_mode(CopyMode::Create);
    place
        .store
        .copy_opts(&place.key("a"), &place.key("b"), create())
        .await?;
    same("bytes", place.get("b").await?.as_ref(), b"new".as_slice())?;
    place.put("b", "kept").await?;
    let done = place.store.copy_opts(&place.key("a"), &place.key("b"), create()).await;
    fails("onto an object", done, Kind::AlreadyExists)?;
    same("bytes", place.get("b").await?.as_ref(), b"kept".as_slice())
}

async fn rename(place: Place) -> Outcome {
    place.put("a", "x").await?;
    place.store.rename(&place.key("a"), &place.key("b")).await?;
    same("bytes", place.get("b").await?.as_ref(), b"x".as_slice())?;
    fails("the old name", place.store.get(&place.key("a")).await, Kind::NotFound)
}
