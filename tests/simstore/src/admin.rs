//! `/_sim/…`: counters, profile, scripts and objects of a running store, outside of the simulation.
//!
//! ```text
//!  GET    /_sim/counters            numbers               POST   /_sim/reset      count from zero
//!  GET    /_sim/requests            the last requests     POST   /_sim/script     faults for requests to come
//!  GET    /_sim/profile             speed and faults      POST   /_sim/profile    {"name": "near"}, or any field of it
//!  POST   /_sim/access              who may come in
//!  PUT    /_sim/object/BUCKET/KEY   write or replace      DELETE /_sim/object/…   take away
//!  POST   /_sim/synthetic/BUCKET/KEY?size=…&seed=…        POST   /_sim/mount?bucket=…&folder=…
//!  POST   /_sim/compose/BUCKET/KEY  an object of ranges of others, each so many times: [{"bucket": …, "key": …,
//!                                   "start": 0, "end": 9, "times": 1000}], without copying any
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{Access, Profile};
use crate::content::Content;
use crate::counters::Kind;
use crate::draw::{Fault, Script};
use crate::model::Condition;
use crate::query::{Query, decode};
use crate::reply::{self, Reply, set};
use crate::server::State;

/// A part of an object that is composed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Piece {
    bucket: String,
    key: String,
    start: u64,
    end: u64,
    #[serde(default = "one")]
    times: u32,
}

/// A script as JSON: `{"fault": "stall", "ms": 500, "kind": "get", "key": "part-1", "times": 2}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scripted {
    /// `error`, `slow`, `stall`, `reset_before`, `reset_after`, `reset_body`, `truncate` or `error_in_200`.
    fault: String,
    #[serde(default = "service_unavailable")]
    status: u16,
    #[serde(default = "ten")]
    factor: f64,
    #[serde(default = "thousand")]
    ms: u64,
    kind: Option<Kind>,
    #[serde(default)]
    key: String,
    #[serde(default)]
    skip: u32,
    #[serde(default = "one")]
    times: u32,
}

fn service_unavailable() -> u16 {
    503
}

fn ten() -> f64 {
    10.0
}

fn thousand() -> u64 {
    1000
}

fn one() -> u32 {
    1
}

impl Scripted {
    fn script(self) -> Option<Script> {
        let fault = match self.fault.as_str() {
            "error" => Fault::Error(self.status),
            "slow" => Fault::Slow(self.factor),
            "stall" => Fault::Stall(Duration::from_millis(self.ms)),
            "reset_before" => Fault::ResetBefore,
            "reset_after" => Fault::ResetAfter,
            "reset_body" => Fault::ResetBody,
            "truncate" => Fault::Truncate,
            "error_in_200" => Fault::ErrorIn200,
            _ => return None,
        };
        Some(Script {
            kind: self.kind,
            key_contains: self.key,
            skip: self.skip,
            times: self.times,
            fault,
        })
    }
}

/// Answers at once, and is not counted.
pub(crate) fn serve(state: &State, parts: &Parts, body: Bytes) -> Reply {
    let path = parts.uri.path().trim_start_matches("/_sim/");
    let query = Query::new(parts.uri.query().unwrap_or_default());
    let (command, rest) = path.split_once('/').unwrap_or((path, ""));
    let done = match (&parts.method, command) {
        (&Method::GET, "counters") => json(&state.ledger.read()),
        (&Method::GET, "requests") => json(&state.ledger.log()),
        (&Method::GET, "profile") => json(&Profile::clone(&state.profile.read())),
        (&Method::POST, "reset") => {
            state.ledger.reset();
            Ok(reply::status(StatusCode::NO_CONTENT))
        }
        (&Method::POST, "profile") => set_profile(state, &body),
        (&Method::POST, "access") => serde_json::from_slice::<Access>(&body)
            .map_err(|error| error.to_string())
            .map(|access| {
                *state.access.write() = access;
                reply::status(StatusCode::NO_CONTENT)
            }),
        (&Method::POST, "script") => add_script(state, &body),
        (_, "object" | "synthetic" | "compose") => change_object(state, parts, command, rest, &query, body),
        (&Method::POST, "mount") => {
            state.model.mount(&query.text("bucket"), query.text("folder").into());
            Ok(reply::status(StatusCode::NO_CONTENT))
        }
        _ => Err("no such command".to_owned()),
    };
    done.unwrap_or_else(|message| {
        let mut reply = reply::xml(message);
        set(&mut reply, "content-type", "text/plain");
        *reply.status_mut() = StatusCode::BAD_REQUEST;
        reply
    })
}

fn json(value: &impl Serialize) -> Result<Reply, String> {
    let mut reply = reply::xml(serde_json::to_string(value).map_err(|error| error.to_string())?);
    set(&mut reply, "content-type", "application/json");
    Ok(reply)
}

/// A name starts from that profile; other fields change what is there.
fn set_profile(state: &State, body: &Bytes) -> Result<Reply, String> {
    let change: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let named = change.get("name").and_then(Value::as_str).and_then(Profile::named);
    let base = named.unwrap_or_else(|| Profile::clone(&state.profile.read()));
    let mut whole = serde_json::to_value(base).map_err(|error| error.to_string())?;
    merge(&mut whole, &change)?;
    let profile = serde_json::from_value(whole).map_err(|error| error.to_string())?;
    *state.profile.write() = Arc::new(profile);
    Ok(reply::status(StatusCode::NO_CONTENT))
}

fn merge(into: &mut Value, change: &Value) -> Result<(), String> {
    let (Value::Object(into), Value::Object(change)) = (into, change) else {
        return Err("not an object".to_owned());
    };
    for (name, value) in change {
        match into.get_mut(name) {
            Some(old @ Value::Object(_)) => merge(old, value)?,
            Some(old) => *old = value.clone(),
            None => return Err(format!("no such field: {name}")),
        }
    }
    Ok(())
}

fn add_script(state: &State, body: &Bytes) -> Result<Reply, String> {
    let scripted: Scripted = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let script = scripted.script().ok_or("no such fault")?;
    state.scripts.lock().push(script);
    Ok(reply::status(StatusCode::NO_CONTENT))
}

fn change_object(
    state: &State,
    parts: &Parts,
    command: &str,
    path: &str,
    query: &Query,
    body: Bytes,
) -> Result<Reply, String> {
    let path = decode(path);
    let (bucket, key) = path.split_once('/').ok_or("a bucket and a key are needed")?;
    let when = Condition::default();
    if parts.method == Method::DELETE {
        let done = state.model.delete(bucket, key, &when);
        done.map_err(|refusal| format!("{refusal:?}"))?;
        return Ok(reply::status(StatusCode::NO_CONTENT));
    }
    let number = |name: &str| query.get(name).and_then(|text| text.parse::<u64>().ok());
    let content = match command {
        "synthetic" => Content::synthetic(number("seed").unwrap_or(1), number("size").ok_or("size is needed")?),
        "compose" => composed(state, &body)?,
        _ => Content::pieces([body]),
    };
    let _exists = state.model.create_bucket(bucket);
    let object = state.model.put(bucket, key, content, Vec::new(), &when);
    let object = object.map_err(|refusal| format!("{refusal:?}"))?;
    json(&serde_json::json!({ "e_tag": object.e_tag }))
}

fn composed(state: &State, body: &Bytes) -> Result<Content, String> {
    let pieces: Vec<Piece> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let mut whole = Vec::new();
    for piece in pieces {
        let object = state.model.get(&piece.bucket, &piece.key);
        let content = &object.map_err(|refusal| format!("{}: {refusal:?}", piece.key))?.content;
        if piece.end > content.size() {
            return Err(format!("{} is shorter than {}", piece.key, piece.end));
        }
        let range = content
            .range(piece.start..piece.end)
            .map_err(|error| error.to_string())?;
        whole.extend(std::iter::repeat_n(range, index(piece.times)));
    }
    Ok(Content::pieces(whole))
}

fn index(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
