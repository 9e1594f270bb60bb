//! Puts that hold only when the key is free, or when the object is still the one that was read.

use bytes::Bytes;
use futures::future::join_all;
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutResult, UpdateVersion};

use super::{Failure, Kind, Outcome, Place, cases, ensure, fails, kind, same};

cases! {
    create
    create_after_delete
    create_race
    update
    update_of_missing
    update_race
}

/// As many as want to commit at once.
const RACERS: usize = 24;

async fn put(place: &Place, name: &str, bytes: impl Into<Bytes>, mode: PutMode) -> object_store::Result<PutResult> {
    let options = PutOptions::from(mode);
    place
        .store
        .put_opts(&place.key(name), bytes.into().into(), options)
        .await
}

fn version(of: &PutResult) -> UpdateVersion {
    UpdateVersion {
        e_tag: of.e_tag.clone(),
        version: of.version.clone(),
    }
}

async fn create(place: Place) -> Outcome {
    put(&place, "a", "first", PutMode::Create).await?;
    fails(
        "again",
        put(&place, "a", "second", PutMode::Create).await,
        Kind::AlreadyExists,
    )?;
    same("bytes", place.get("a").await?.as_ref(), b"first".as_slice())
}

async fn create_after_delete(place: Place) -> Outcome {
    put(&place, "a", "first", PutMode::Create).await?;
    place.store.delete(&place.key("a")).await?;
    put(&place, "a", "second", PutMode::Create).await?;
    same("bytes", place.get("a").await?.as_ref(), b"second".as_slice())
}

/// Runs one put per racer at once: how many won, and what the last winner wrote. Losers must be of this kind.
async fn race(place: &Place, name: &str, mode: &PutMode, losers: Kind) -> Result<(usize, Bytes), Failure> {
    let tasks = (0..RACERS).map(|racer| {
        let (place, name, mode) = (place.clone(), name.to_owned(), mode.clone());
        let bytes = Bytes::from(format!("racer {racer}"));
        tokio::spawn(async move { (bytes.clone(), put(&place, &name, bytes, mode).await) })
    });
    let (mut winners, mut last) = (0, Bytes::new());
    for done in join_all(tasks).await {
        let (bytes, result) = done.map_err(|error| Failure(error.to_string()))?;
        match result {
            Ok(_) => {
                winners += 1;
                last = bytes;
            }
            Err(error) if kind(&error) == losers => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok((winners, last))
}

async fn create_race(place: Place) -> Outcome {
    for round in 0..3 {
        let name = format!("a{round}");
        let (winners, bytes) = race(&place, &name, &PutMode::Create, Kind::AlreadyExists).await?;
        same("winners", winners, 1)?;
        same("the winner's bytes", place.get(&name).await?, bytes)?;
    }
    Ok(())
}

async fn update(place: Place) -> Outcome {
    let first = put(&place, "a", "first", PutMode::Overwrite).await?;
    let second = put(&place, "a", "second", PutMode::Update(version(&first))).await?;
    same("bytes", place.get("a").await?.as_ref(), b"second".as_slice())?;
    let stale = put(&place, "a", "third", PutMode::Update(version(&first))).await;
    fails("the old version", stale, Kind::Precondition)?;
    same("bytes", place.get("a").await?.as_ref(), b"second".as_slice())?;
    put(&place, "a", "third", PutMode::Update(version(&second))).await?;
    same("bytes", place.get("a").await?.as_ref(), b"third".as_slice())
}

async fn update_of_missing(place: Place) -> Outcome {
    let first = put(&place, "a", "first", PutMode::Overwrite).await?;
    place.store.delete(&place.key("a")).await?;
    let done = put(&place, "a", "second", PutMode::Update(version(&first))).await;
    fails("update", done, Kind::Precondition)?;
    fails("the object", place.store.head(&place.key("a")).await, Kind::NotFound)
}

async fn update_race(place: Place) -> Outcome {
    let first = put(&place, "a", "first", PutMode::Overwrite).await?;
    let (winners, bytes) = race(&place, "a", &PutMode::Update(version(&first)), Kind::Precondition).await?;
    ensure!(winners == 1, "{winners} winners");
    same("the winner's bytes", place.get("a").await?, bytes)
}
