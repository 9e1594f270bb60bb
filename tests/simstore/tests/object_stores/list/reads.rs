//! Whole objects and ranges of them; reads that hold only for the object that was meant.

use std::ops::Range;

use bytes::Bytes;
use futures::future::try_join_all;
use object_store::{GetOptions, GetRange, ObjectStoreExt};

use super::{Failure, Kind, Outcome, Place, cases, ensure, fails, pattern, same};

cases! {
    whole_object
    head_and_get_agree
    bounded_ranges
    range_over_the_end
    range_past_the_end
    offset_ranges
    suffix_ranges
    many_ranges
    parallel_ranges
    empty_object
    large_object
    missing_object
    missing_bucket
    if_match
    if_match_with_range
    if_match_on_head
    if_match_of_a_listed_tag
    if_none_match
}

/// Length of the object that most cases read.
const LENGTH: usize = 1000;

/// How far two clocks may be apart.
const CLOCK_SKEW_MAX_S: i64 = 300;

async fn ranged(place: &Place, name: &str, range: GetRange) -> object_store::Result<(Range<u64>, u64, Bytes)> {
    let options = GetOptions::new().with_range(Some(range));
    let result = place.store.get_opts(&place.key(name), options).await?;
    let (range, size) = (result.range.clone(), result.meta.size);
    Ok((range, size, result.bytes().await?))
}

async fn whole_object(place: Place) -> Outcome {
    let tag = place.put("a.bin", pattern(LENGTH)).await?;
    let result = place.store.get(&place.key("a.bin")).await?;
    same("location", &result.meta.location, &place.key("a.bin"))?;
    same("size", result.meta.size, LENGTH as u64)?;
    same("range", result.range.clone(), 0..LENGTH as u64)?;
    same("entity tag", result.meta.e_tag.as_deref(), Some(tag.as_str()))?;
    let age = (chrono::Utc::now() - result.meta.last_modified).num_seconds();
    ensure!(age.abs() < CLOCK_SKEW_MAX_S, "last modified {age} s ago");
    same("bytes", result.bytes().await?, pattern(LENGTH))
}

async fn head_and_get_agree(place: Place) -> Outcome {
    let tag = place.put("a.bin", pattern(LENGTH)).await?;
    let head = place.store.head(&place.key("a.bin")).await?;
    same("entity tag", head.e_tag.as_deref(), Some(tag.as_str()))?;
    let get = place.store.get(&place.key("a.bin")).await?.meta;
    same("size", head.size, get.size)?;
    same("last modified", head.last_modified, get.last_modified)?;
    same("version", head.version, get.version)
}

async fn bounded_ranges(place: Place) -> Outcome {
    place.put("a.bin", pattern(LENGTH)).await?;
    for range in [0..1, 0..LENGTH, 17..400, LENGTH - 1..LENGTH] {
        let wanted = pattern(LENGTH).slice(range.clone());
        let asked = range.start as u64..range.end as u64;
        let (got, size, bytes) = ranged(&place, "a.bin", GetRange::Bounded(asked.clone())).await?;
        same("range", got, asked.clone())?;
        same("size", size, LENGTH as u64)?;
        same(&format!("bytes of {range:?}"), bytes, wanted)?;
    }
    Ok(())
}

async fn range_over_the_end(place: Place) -> Outcome {
    place.put("a.bin", pattern(LENGTH)).await?;
    let (got, _, bytes) = ranged(&place, "a.bin", GetRange::Bounded(990..5000)).await?;
    same("range", got, 990..1000)?;
    same("bytes", bytes, pattern(LENGTH).slice(990..))
}

/// An error, and not one that says the object is missing or replaced.
async fn range_past_the_end(place: Place) -> Outcome {
    place.put("a.bin", pattern(LENGTH)).await?;
    for range in [
        GetRange::Bounded(1000..1001),
        GetRange::Bounded(7000..8000),
        GetRange::Offset(1000),
    ] {
        fails(&format!("{range:?}"), ranged(&place, "a.bin", range).await, Kind::Other)?;
    }
    Ok(())
}

async fn offset_ranges(place: Place) -> Outcome {
    place.put("a.bin", pattern(LENGTH)).await?;
    for offset in [0, 1, 999] {
        let (got, _, bytes) = ranged(&place, "a.bin", GetRange::Offset(offset as u64)).await?;
        same("range", got, offset as u64..1000)?;
        same(&format!("bytes from {offset}"), bytes, pattern(LENGTH).slice(offset..))?;
    }
    Ok(())
}

async fn suffix_ranges(place: Place) -> Outcome {
    place.put("a.bin", pattern(LENGTH)).await?;
    for length in [1, 8, 1000] {
        let (got, _, bytes) = ranged(&place, "a.bin", GetRange::Suffix(length as u64)).await?;
        same("range", got, (LENGTH - length) as u64..1000)?;
        same(
            &format!("last {length} bytes"),
            bytes,
            pattern(LENGTH).slice(LENGTH - length..),
        )?;
    }
    let (got, _, _) = ranged(&place, "a.bin", GetRange::Suffix(9999)).await?;
    same("range of more than there is", got, 0..1000)
}

/// Out of order, overlapping, adjacent, twice.
async fn many_ranges(place: Place) -> Outcome {
    place.put("a.bin", pattern(LENGTH)).await?;
    let ranges = [900..1000, 0..10, 10..20, 5..15, 500..501, 0..10, 0..1000];
    let got = place.store.get_ranges(&place.key("a.bin"), &ranges).await?;
    same("how many", got.len(), ranges.len())?;
    for (range, bytes) in ranges.into_iter().zip(got) {
        let wanted = pattern(LENGTH).slice(range.start as usize..range.end as usize);
        same(&format!("bytes of {range:?}"), bytes, wanted)?;
    }
    Ok(())
}

async fn parallel_ranges(place: Place) -> Outcome {
    const PART: usize = 4096;
    let whole = pattern(32 * PART);
    place.put("a.bin", whole.clone()).await?;
    let key = place.key("a.bin");
    let reads = (0..32).map(|part| {
        place
            .store
            .get_range(&key, part * PART as u64..(part + 1) * PART as u64)
    });
    let parts = try_join_all(reads).await?;
    same("bytes", parts.concat(), whole.to_vec())
}

async fn empty_object(place: Place) -> Outcome {
    place.put("empty", Bytes::new()).await?;
    same("head's size", place.store.head(&place.key("empty")).await?.size, 0)?;
    let result = place.store.get(&place.key("empty")).await?;
    same("range", result.range.clone(), 0..0)?;
    same("bytes", result.bytes().await?.len(), 0)?;
    fails(
        "a range of nothing",
        ranged(&place, "empty", GetRange::Bounded(0..1)).await,
        Kind::Other,
    )
}

async fn large_object(place: Place) -> Outcome {
    let whole = pattern(3 * 1024 * 1024 + 1);
    place.put("large.bin", whole.clone()).await?;
    ensure!(place.get("large.bin").await? == whole, "bytes differ");
    Ok(())
}

async fn missing_object(place: Place) -> Outcome {
    let key = place.key("nothing");
    fails("get", place.store.get(&key).await, Kind::NotFound)?;
    fails("head", place.store.head(&key).await, Kind::NotFound)?;
    fails("a range", place.store.get_range(&key, 0..10).await, Kind::NotFound)?;
    place.put("folder/file", "x").await?;
    fails("a folder", place.store.head(&place.key("folder")).await, Kind::NotFound)
}

/// An error, not an empty table.
async fn missing_bucket(place: Place) -> Outcome {
    use futures::TryStreamExt;
    let Some(elsewhere) = &place.subject.elsewhere else {
        return Ok(());
    };
    fails("get", elsewhere.get(&place.key("a")).await, Kind::NotFound)?;
    let listed: object_store::Result<Vec<_>> = elsewhere.list(Some(&place.root)).try_collect().await;
    // The clients keep no kind for a failed listing.
    ensure!(listed.is_err(), "a listing is empty, not an error");
    Ok(())
}

fn only(tag: &str) -> GetOptions {
    GetOptions::new().with_if_match(Some(tag.to_owned()))
}

async fn if_match(place: Place) -> Outcome {
    let key = place.key("a.bin");
    let first = place.put("a.bin", pattern(100)).await?;
    let bytes = place.store.get_opts(&key, only(&first)).await?.bytes().await?;
    same("bytes", bytes, pattern(100))?;
    let second = place.put("a.bin", pattern(101)).await?;
    ensure!(first != second, "two contents have one entity tag, {first}");
    fails(
        "the old tag",
        place.store.get_opts(&key, only(&first)).await,
        Kind::Precondition,
    )?;
    place.store.get_opts(&key, only(&second)).await?;
    place.store.delete(&key).await?;
    match place.store.get_opts(&key, only(&second)).await {
        Ok(_) => Err(Failure::new("a deleted object is read")),
        Err(object_store::Error::NotFound { .. } | object_store::Error::Precondition { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A range of the new object must not pass for one of the old.
async fn if_match_with_range(place: Place) -> Outcome {
    let key = place.key("a.bin");
    let first = place.put("a.bin", pattern(LENGTH)).await?;
    let part = |tag: &str| only(tag).with_range(Some(GetRange::Bounded(10..20)));
    let bytes = place.store.get_opts(&key, part(&first)).await?.bytes().await?;
    same("bytes", bytes, pattern(LENGTH).slice(10..20))?;
    place.put("a.bin", pattern(2 * LENGTH)).await?;
    fails(
        "a longer object",
        place.store.get_opts(&key, part(&first)).await,
        Kind::Precondition,
    )?;
    // Shorter than the range's start: the range is wrong too, but that is not what is wrong.
    place.put("a.bin", pattern(5)).await?;
    fails(
        "a shorter object",
        place.store.get_opts(&key, part(&first)).await,
        Kind::Precondition,
    )
}

async fn if_match_on_head(place: Place) -> Outcome {
    let key = place.key("a.bin");
    let first = place.put("a.bin", pattern(10)).await?;
    place.store.get_opts(&key, only(&first).with_head(true)).await?;
    place.put("a.bin", pattern(11)).await?;
    fails(
        "the old tag",
        place.store.get_opts(&key, only(&first).with_head(true)).await,
        Kind::Precondition,
    )
}

/// Scans know objects from listings only.
async fn if_match_of_a_listed_tag(place: Place) -> Outcome {
    use futures::TryStreamExt;
    place.put("a.bin", pattern(LENGTH)).await?;
    let listed: Vec<_> = place.store.list(Some(&place.root)).try_collect().await?;
    same("objects", listed.len(), 1)?;
    let tag = listed[0].e_tag.clone().ok_or_else(|| Failure::new("no entity tag"))?;
    place.store.get_opts(&place.key("a.bin"), only(&tag)).await?;
    place.put("a.bin", pattern(7)).await?;
    fails(
        "the old tag",
        place.store.get_opts(&place.key("a.bin"), only(&tag)).await,
        Kind::Precondition,
    )
}

async fn if_none_match(place: Place) -> Outcome {
    let key = place.key("a.bin");
    let first = place.put("a.bin", pattern(10)).await?;
    let options = || GetOptions::new().with_if_none_match(Some(first.clone()));
    fails(
        "the same object",
        place.store.get_opts(&key, options()).await,
        Kind::NotModified,
    )?;
    place.put("a.bin", pattern(11)).await?;
    let bytes = place.store.get_opts(&key, options()).await?.bytes().await?;
    same("bytes of another", bytes, pattern(11))
}
