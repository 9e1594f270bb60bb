//! Objects in parts: whole and in order, or not there at all.

use bytes::Bytes;
use futures::future::try_join_all;
use object_store::buffered::BufWriter;
use object_store::{GetOptions, ObjectStoreExt};
use tokio::io::AsyncWriteExt;

use super::{Failure, Kind, Outcome, Place, cases, ensure, fails, pattern, same};

cases! {
    parts_in_order
    invisible_until_complete
    abort
    completion_after_abort
    last_completion_wins
    no_parts
    buffered_writer
    tag_of_parts
}

/// The smallest part that S3 and GCS take, but for the last.
const PART_BYTES: usize = 5 * 1024 * 1024;

fn part(digit: u8, length: usize) -> Bytes {
    vec![digit; length].into()
}

/// Sent and finished out of order.
async fn parts_in_order(place: Place) -> Outcome {
    let key = place.key("a");
    let mut upload = place.store.put_multipart(&key).await?;
    let first = upload.put_part(part(b'1', PART_BYTES).into());
    let second = upload.put_part(part(b'2', PART_BYTES).into());
    let third = upload.put_part(part(b'3', 7).into());
    third.await?;
    second.await?;
    first.await?;
    upload.complete().await?;
    let wanted = [part(b'1', PART_BYTES), part(b'2', PART_BYTES), part(b'3', 7)].concat();
    let got = place.get("a").await?;
    same("size", got.len(), wanted.len())?;
    ensure!(got == wanted, "parts are out of order");
    let seam = PART_BYTES as u64;
    same(
        "over a seam",
        place.store.get_range(&key, seam - 1..seam + 1).await?.as_ref(),
        b"12".as_slice(),
    )
}

async fn invisible_until_complete(place: Place) -> Outcome {
    use futures::TryStreamExt;
    place.put("old", "old").await?;
    for name in ["new", "old"] {
        let mut upload = place.store.put_multipart(&place.key(name)).await?;
        upload.put_part(part(b'x', 10).into()).await?;
        let listed: Vec<_> = place.store.list(Some(&place.root)).try_collect().await?;
        if name == "new" {
            fails(
                "an unfinished object",
                place.store.head(&place.key(name)).await,
                Kind::NotFound,
            )?;
            same("listed", listed.len(), 1)?;
        } else {
            same("the old object", place.get("old").await?.as_ref(), b"old".as_slice())?;
        }
        upload.complete().await?;
        same("bytes", place.get(name).await?, part(b'x', 10))?;
    }
    Ok(())
}

async fn abort(place: Place) -> Outcome {
    place.put("old", "old").await?;
    for name in ["new", "old"] {
        let mut upload = place.store.put_multipart(&place.key(name)).await?;
        upload.put_part(part(b'x', 10).into()).await?;
        upload.abort().await?;
    }
    fails("the object", place.store.head(&place.key("new")).await, Kind::NotFound)?;
    same("the old object", place.get("old").await?.as_ref(), b"old".as_slice())
}

/// It brings nothing back.
async fn completion_after_abort(place: Place) -> Outcome {
    let mut upload = place.store.put_multipart(&place.key("a")).await?;
    upload.put_part(part(b'x', 10).into()).await?;
    upload.abort().await?;
    ensure!(upload.complete().await.is_err(), "an aborted upload completes");
    fails("the object", place.store.head(&place.key("a")).await, Kind::NotFound)
}

async fn last_completion_wins(place: Place) -> Outcome {
    let key = place.key("a");
    let (mut one, mut two) = (
        place.store.put_multipart(&key).await?,
        place.store.put_multipart(&key).await?,
    );
    two.put_part(part(b'2', 20).into()).await?;
    one.put_part(part(b'1', 10).into()).await?;
    two.complete().await?;
    one.complete().await?;
    same("bytes", place.get("a").await?, part(b'1', 10))
}

async fn no_parts(place: Place) -> Outcome {
    let mut upload = place.store.put_multipart(&place.key("a")).await?;
    upload.complete().await?;
    same("bytes", place.get("a").await?.len(), 0)
}

/// As files of tables are written: small pieces into a writer that uploads parts behind.
async fn buffered_writer(place: Place) -> Outcome {
    let whole = pattern(2 * PART_BYTES + 12_345);
    for (name, length) in [("small", 1000), ("large", whole.len())] {
        let mut writer = BufWriter::with_capacity(std::sync::Arc::clone(&place.store), place.key(name), PART_BYTES);
        for piece in whole[..length].chunks(700_001) {
            writer
                .write_all(piece)
                .await
                .map_err(|error| Failure(error.to_string()))?;
        }
        writer.shutdown().await.map_err(|error| Failure(error.to_string()))?;
        ensure!(
            place.get(name).await? == whole[..length],
            "bytes of the {name} object differ"
        );
    }
    Ok(())
}

/// Parts' objects have tags of another form; they must work in conditions as well.
async fn tag_of_parts(place: Place) -> Outcome {
    let key = place.key("a");
    let mut upload = place.store.put_multipart(&key).await?;
    try_join_all([
        upload.put_part(part(b'1', PART_BYTES).into()),
        upload.put_part(part(b'2', 3).into()),
    ])
    .await?;
    let done = upload.complete().await?;
    let head = place.store.head(&key).await?;
    let tag = head.e_tag.clone().ok_or_else(|| Failure::new("no entity tag"))?;
    same("the completion's tag", done.e_tag.as_deref(), Some(tag.as_str()))?;
    let only = |tag: &str| GetOptions::new().with_if_match(Some(tag.to_owned())).with_head(true);
    place.store.get_opts(&key, only(&tag)).await?;
    place.put("a", "replaced").await?;
    fails(
        "the old tag",
        place.store.get_opts(&key, only(&tag)).await,
        Kind::Precondition,
    )
}
