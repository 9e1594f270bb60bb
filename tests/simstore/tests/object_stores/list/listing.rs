//! Listings: which keys, in which pages and order, and that every key that can be stored can be listed and read.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::list::PaginatedListOptions;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use super::{Failure, Outcome, Place, cases, ensure, same};

cases! {
    prefix_is_a_folder
    nothing_below
    folders_and_files
    sorted_by_key
    small_pages
    more_than_a_page
    from_an_offset
    listed_metadata
    changes_show_at_once
    file_and_folder_of_one_name
    unusual_keys
    unusual_folders
    backslash_in_a_key
}

/// Keys as writers make them, hive partitions among them, and keys that a protocol's encodings stumble over. None contains a
/// character that `object_store` would encode by itself, so that the key on the wire is this one, but where `%` is part of it.
const UNUSUAL: &[&str] = &[
    "with space.bin",
    "two  spaces",
    " leading space",
    "trailing space ",
    "plus+plus",
    "a%20b",
    "percent%",
    "100%25",
    "%2F",
    "day=2024-01-01 00%3A00%3A00",
    "country=München",
    "名前=東京",
    "e\u{301}=combining",
    "emoji-😀",
    "a&b=c",
    "question?mark",
    "hash#tag",
    "semi;colon",
    "comma,",
    "colon:colon",
    "at@at",
    "$dollar",
    "quote'",
    "double\"quote",
    "exclamation!",
    "(round)",
    "[square]",
    "{curly}",
    "star*",
    "tilde~",
    "pipe|pipe",
    "caret^",
    "back`tick",
    "<xml>&amp;",
    "_underscore",
    "dot.dot",
    ".hidden",
    "__HIVE_DEFAULT_PARTITION__",
    "UPPER and lower",
];

async fn keys(place: &Place, prefix: &Path) -> Result<BTreeSet<String>, Failure> {
    let listed: Vec<ObjectMeta> = place.store.list(Some(prefix)).try_collect().await?;
    let count = listed.len();
    let keys: BTreeSet<String> = listed
        .into_iter()
        .map(|meta| below(&meta.location, &place.root))
        .collect();
    same("each key once", keys.len(), count)?;
    Ok(keys)
}

/// The key without the case's own folder.
fn below(key: &Path, root: &Path) -> String {
    let whole = key.as_ref();
    let rest = whole.strip_prefix(root.as_ref());
    rest.map_or(whole, |rest| rest.trim_start_matches('/')).to_owned()
}

fn set(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

fn owned(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

async fn put_all(place: &Place, names: Vec<String>) -> Outcome {
    let puts = names.into_iter().map(|name| {
        let place = place.clone();
        async move { place.put(&name, "x").await }
    });
    stream::iter(puts)
        .buffer_unordered(16)
        .try_for_each(|_| async { Ok(()) })
        .await
}

/// `t` does not stand for `table2`.
async fn prefix_is_a_folder(place: Place) -> Outcome {
    put_all(&place, owned(&["t/a", "t/b/c", "t2/a", "ta"])).await?;
    same("keys", keys(&place, &place.key("t")).await?, set(&["t/a", "t/b/c"]))?;
    same("keys", keys(&place, &place.key("t/b")).await?, set(&["t/b/c"]))?;
    same(
        "keys",
        keys(&place, &place.root).await?,
        set(&["t/a", "t/b/c", "t2/a", "ta"]),
    )
}

async fn nothing_below(place: Place) -> Outcome {
    same("keys", keys(&place, &place.key("nothing")).await?, BTreeSet::new())?;
    let listed = place.store.list_with_delimiter(Some(&place.key("nothing"))).await?;
    same("objects", listed.objects.len(), 0)?;
    same("folders", listed.common_prefixes.len(), 0)
}

async fn folders_and_files(place: Place) -> Outcome {
    let names = ["a", "b", "x/1", "x/2", "x/y/3", "z=1/4"];
    put_all(&place, owned(&names)).await?;
    let listed = place.store.list_with_delimiter(Some(&place.root)).await?;
    let names = |paths: Vec<&Path>| -> BTreeSet<String> { paths.iter().map(|path| below(path, &place.root)).collect() };
    let objects = listed.objects.iter().map(|meta| &meta.location).collect();
    same("objects", names(objects), set(&["a", "b"]))?;
    same(
        "folders",
        names(listed.common_prefixes.iter().collect()),
        set(&["x", "z=1"]),
    )
}

/// By bytes of UTF-8, as the readers of Delta's log rely on.
async fn sorted_by_key(place: Place) -> Outcome {
    let names = [
        "b", "a/b", "a", "B", "a-", "a0", "a/a", "é", "z", "10", "9", "😀", "\u{ff5e}",
    ];
    let names: Vec<&str> = match place.subject.dialect {
        // A file can't be a folder there.
        "local" => names.into_iter().filter(|name| *name != "a").collect(),
        _ => names.to_vec(),
    };
    for name in &names {
        place.store.put(&verbatim(&place, name)?, "x".into()).await?;
    }
    let listed: Vec<ObjectMeta> = place.store.list(Some(&place.root)).try_collect().await?;
    let got: Vec<String> = listed.iter().map(|meta| below(&meta.location, &place.root)).collect();
    let mut wanted = owned(&names);
    wanted.sort();
    same("order", got, wanted)
}

async fn small_pages(place: Place) -> Outcome {
    let Some(store) = &place.subject.pages else {
        return Ok(());
    };
    let names: Vec<String> = (0..23).map(|i| format!("p/k={i:02} +&/f")).collect();
    put_all(&place, names.clone()).await?;
    for delimiter in [None, Some("/".into())] {
        let (mut got, mut token, mut pages) = (Vec::new(), None, 0);
        loop {
            let options = PaginatedListOptions {
                delimiter: delimiter.clone(),
                max_keys: Some(5),
                page_token: token,
                ..PaginatedListOptions::default()
            };
            let prefix = format!("{}/", place.key("p"));
            let page = store.list_paginated(Some(&prefix), options).await?;
            let items = page.result.objects.len() + page.result.common_prefixes.len();
            ensure!(items <= 5, "a page of {items}");
            got.extend(
                page.result
                    .objects
                    .iter()
                    .map(|meta| below(&meta.location, &place.root)),
            );
            got.extend(
                page.result
                    .common_prefixes
                    .iter()
                    .map(|path| format!("{}/f", below(path, &place.root))),
            );
            pages += 1;
            token = page.page_token;
            if token.is_none() || pages > 30 {
                break;
            }
        }
        same("keys of all pages", &got, &names)?;
        ensure!((5..=6).contains(&pages), "{pages} pages of 5 for 23 keys");
    }
    Ok(())
}

/// As many keys as make the client ask twice; they go in one bulk delete of more than one request.
async fn more_than_a_page(place: Place) -> Outcome {
    let count = place.subject.page_keys + 3;
    if count == 3 {
        return Ok(());
    }
    put_all(&place, (0..count).map(|i| format!("k{i:05}")).collect()).await?;
    let listed = keys(&place, &place.root).await?;
    same("how many", listed.len(), count)?;
    ensure!(
        listed.contains(&format!("k{:05}", count - 1)),
        "the last key is missing"
    );
    let all: Vec<_> = listed.iter().map(|name| Ok(place.key(name))).collect();
    let deleted: Vec<Path> = place
        .store
        .delete_stream(stream::iter(all).boxed())
        .try_collect()
        .await?;
    same("deleted", deleted.len(), count)?;
    same("left", keys(&place, &place.root).await?.len(), 0)
}

async fn from_an_offset(place: Place) -> Outcome {
    put_all(&place, owned(&["a", "b", "c", "d"])).await?;
    for (offset, wanted) in [
        ("b", ["c", "d"].as_slice()),
        ("bb", &["c", "d"]),
        ("d", &[]),
        ("", &["a", "b", "c", "d"]),
    ] {
        let from = if offset.is_empty() {
            place.root.clone()
        } else {
            place.key(offset)
        };
        let listed = place.store.list_with_offset(Some(&place.root), &from);
        let listed: Vec<ObjectMeta> = listed.try_collect().await?;
        let got: BTreeSet<String> = listed.iter().map(|meta| below(&meta.location, &place.root)).collect();
        same(&format!("keys after {offset:?}"), got, set(wanted))?;
    }
    Ok(())
}

async fn listed_metadata(place: Place) -> Outcome {
    place.put("a.bin", vec![7; 123]).await?;
    let listed: Vec<ObjectMeta> = place.store.list(Some(&place.root)).try_collect().await?;
    let head = place.store.head(&place.key("a.bin")).await?;
    same("objects", listed.len(), 1)?;
    same("location", &listed[0].location, &head.location)?;
    same("size", listed[0].size, 123)?;
    let apart = (listed[0].last_modified - head.last_modified).num_milliseconds().abs();
    ensure!(apart < 1000, "last modified differs by {apart} ms");
    same("entity tag", &listed[0].e_tag, &head.e_tag)
}

async fn changes_show_at_once(place: Place) -> Outcome {
    for round in 0..5 {
        let name = format!("k{round}");
        place.put(&name, vec![0; round + 1]).await?;
        ensure!(
            keys(&place, &place.root).await?.contains(&name),
            "a new object is not listed"
        );
        place.put(&name, vec![0; 100 + round]).await?;
        same("size after a replacement", place.get(&name).await?.len(), 100 + round)?;
        place.store.delete(&place.key(&name)).await?;
        same("keys after a delete", keys(&place, &place.root).await?, BTreeSet::new())?;
    }
    Ok(())
}

async fn file_and_folder_of_one_name(place: Place) -> Outcome {
    place.put("x", "file").await?;
    place.put("x/y", "below").await?;
    same("keys", keys(&place, &place.root).await?, set(&["x", "x/y"]))?;
    same("the file", place.get("x").await?.as_ref(), b"file".as_slice())?;
    let listed = place.store.list_with_delimiter(Some(&place.root)).await?;
    same("objects", listed.objects.len(), 1)?;
    same("folders", listed.common_prefixes.len(), 1)
}

/// The key as it stands, without `object_store`'s own encoding of some characters.
fn verbatim(place: &Place, name: &str) -> Result<Path, Failure> {
    Path::parse(format!("{}/{name}", place.root)).map_err(|error| Failure(format!("{name:?}: {error}")))
}

async fn unusual_keys(place: Place) -> Outcome {
    let mut wrong = Vec::new();
    for (at, name) in UNUSUAL.iter().enumerate() {
        if let Err(Failure(why)) = one_unusual(&place, &format!("{at}/{name}")).await {
            wrong.push(format!("{name:?}: {why}"));
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} of {}: {}",
        wrong.len(),
        UNUSUAL.len(),
        wrong.join("; ")
    );
    same("keys left", keys(&place, &place.root).await?, BTreeSet::new())
}

/// Windows' separator is a character like any other.
async fn backslash_in_a_key(place: Place) -> Outcome {
    one_unusual(&place, "0/back\\slash").await
}

async fn one_unusual(place: &Place, name: &str) -> Outcome {
    let (key, copy) = (verbatim(place, name)?, verbatim(place, &format!("{name}.copy"))?);
    place.store.put(&key, name.to_owned().into()).await?;
    let bytes = place.store.get(&key).await?.bytes().await?;
    same("bytes", bytes.as_ref(), name.as_bytes())?;
    place.store.get_range(&key, 0..1).await?;
    same("size", place.store.head(&key).await?.size, name.len() as u64)?;
    let folder = name.split('/').next().unwrap_or_default();
    same("listed", keys(place, &place.key(folder)).await?, set(&[name]))?;
    place.store.copy(&key, &copy).await?;
    let both = [Ok(key), Ok(copy)];
    let deleted: Vec<Path> = place
        .store
        .delete_stream(stream::iter(both).boxed())
        .try_collect()
        .await?;
    same("deleted", deleted.len(), 2)
}

/// The same as folders: prefixes travel in queries, not in paths.
async fn unusual_folders(place: Place) -> Outcome {
    let mut wrong = Vec::new();
    for (at, name) in UNUSUAL.iter().enumerate() {
        if let Err(Failure(why)) = one_unusual_folder(&place, at, name).await {
            wrong.push(format!("{name:?}: {why}"));
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} of {}: {}",
        wrong.len(),
        UNUSUAL.len(),
        wrong.join("; ")
    );
    Ok(())
}

async fn one_unusual_folder(place: &Place, at: usize, name: &str) -> Outcome {
    let parent = place.key(&at.to_string());
    let (folder, key) = (
        verbatim(place, &format!("{at}/{name}"))?,
        verbatim(place, &format!("{at}/{name}/f"))?,
    );
    place.store.put(&key, "x".into()).await?;
    same(
        "keys below",
        keys(place, &folder).await?,
        set(&[&format!("{at}/{name}/f")]),
    )?;
    let listed = place.store.list_with_delimiter(Some(&parent)).await?;
    let folders: Vec<String> = listed.common_prefixes.iter().map(|path| below(path, &parent)).collect();
    same("folders", folders, vec![name.to_owned()])
}
