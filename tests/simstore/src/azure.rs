//! Azure Blob Storage's language: containers of block blobs.

use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::config::Access;
use crate::content::Content;
use crate::counters::Kind;
use crate::model::{Attributes, Condition, ListQuery, Object, Refusal};
use crate::query::{Target, blob_of, header};
use crate::reply::{self, Reply, bare, set, status};
use crate::server::State;
use crate::xml::{element, escape, leaves};

/// What a request is.
pub(crate) fn kind(parts: &Parts, target: &Target) -> Kind {
    let command = target.query.get("comp").unwrap_or_default();
    match (&parts.method, command) {
        (&Method::GET, "list") => Kind::List,
        (&Method::POST, "batch") => Kind::Delete,
        (&Method::PUT, "block") => Kind::Part,
        (&Method::PUT, "blocklist") => Kind::Complete,
        _ if !command.is_empty() || target.key.is_empty() => Kind::Other,
        (&Method::GET, _) => Kind::Get,
        (&Method::HEAD, _) => Kind::Head,
        (&Method::PUT, _) if parts.headers.contains_key("x-ms-copy-source") => Kind::Copy,
        (&Method::PUT, _) => Kind::Put,
        (&Method::DELETE, _) => Kind::Delete,
        _ => Kind::Other,
    }
}

/// An error that was drawn or scripted.
pub(crate) fn fault(status: StatusCode) -> Reply {
    match status.as_u16() {
        503 => error(
            status,
            "ServerBusy",
            "The server is currently unable to receive requests.",
        ),
        429 => error(status, "TooManyRequests", "Please reduce your request rate."),
        _ => error(status, "InternalError", "The server encountered an internal error."),
    }
}

fn document(inner: &str) -> String {
    format!("<?xml version=\"1.0\" encoding=\"utf-8\"?>{inner}")
}

fn error(status: StatusCode, code: &str, message: &str) -> Reply {
    let inner = element("Code", code) + &element("Message", message);
    let mut reply = reply::xml(document(&format!("<Error>{inner}</Error>")));
    *reply.status_mut() = status;
    set(&mut reply, "x-ms-error-code", code);
    reply
}

fn refused(refusal: Refusal) -> Reply {
    use StatusCode as S;
    let (status, code, message) = match refusal {
        Refusal::NoBucket => (
            S::NOT_FOUND,
            "ContainerNotFound",
            "The specified container does not exist.",
        ),
        Refusal::NoKey | Refusal::NoUpload => (S::NOT_FOUND, "BlobNotFound", "The specified blob does not exist."),
        Refusal::BucketExists => (S::CONFLICT, "ContainerAlreadyExists", "The container exists already."),
        Refusal::BucketNotEmpty => (S::CONFLICT, "ContainerBeingDeleted", "The container is not empty."),
        Refusal::ReadOnly => (
            S::FORBIDDEN,
            "AuthorizationPermissionMismatch",
            "The container can only be read.",
        ),
        Refusal::Exists => (S::CONFLICT, "BlobAlreadyExists", "The specified blob already exists."),
        Refusal::Changed => (
            S::PRECONDITION_FAILED,
            "ConditionNotMet",
            "The condition specified was not met.",
        ),
        Refusal::InvalidPart | Refusal::InvalidPartOrder | Refusal::PartTooSmall => (
            S::BAD_REQUEST,
            "InvalidBlockList",
            "The specified block list is invalid.",
        ),
    };
    error(status, code, message)
}

fn bad(message: &str) -> Reply {
    error(StatusCode::BAD_REQUEST, "InvalidInput", message)
}

/// Who asks is checked first, then it is done.
pub(crate) fn answer(state: &State, parts: &Parts, target: &Target, body: &Bytes, kind: Kind) -> Reply {
    let done = match denied(&state.access.read(), parts, target) {
        Some(refused) => Ok(refused),
        None if target.bucket.is_empty() => Ok(list_containers(state, target)),
        None if target.key.is_empty() => of_container(state, parts, target, body),
        None => of_blob(state, parts, target, body, kind),
    };
    let mut reply = done.unwrap_or_else(refused);
    set(&mut reply, "x-ms-version", "2023-11-03");
    reply
}

fn denied(access: &Access, parts: &Parts, target: &Target) -> Option<Reply> {
    if access.keys.is_empty() {
        return None;
    }
    let authorization = header(parts, "authorization");
    let shared = authorization
        .strip_prefix("SharedKey ")
        .and_then(|rest| rest.split(':').next());
    let signed = target.query.has("sig").then_some(target.account.as_str());
    let credential = shared.or(authorization.strip_prefix("Bearer ")).or(signed);
    if credential.is_some_and(|credential| access.keys.iter().any(|each| each == credential)) {
        return None;
    }
    Some(match credential {
        Some(_) => error(
            StatusCode::FORBIDDEN,
            "AuthenticationFailed",
            "Server failed to authenticate the request.",
        ),
        None => error(
            StatusCode::UNAUTHORIZED,
            "NoAuthenticationInformation",
            "Authentication information is missing.",
        ),
    })
}

fn list_containers(state: &State, target: &Target) -> Reply {
    if target.query.get("comp") != Some("list") {
        return bad("This is not understood.");
    }
    let container = |name: &String| format!("<Container>{}</Container>", element("Name", name));
    let containers: String = state.model.buckets().iter().map(container).collect();
    let inner = format!("<EnumerationResults><Containers>{containers}</Containers><NextMarker /></EnumerationResults>");
    reply::xml(document(&inner))
}

fn of_container(state: &State, parts: &Parts, target: &Target, body: &Bytes) -> Result<Reply, Refusal> {
    let container = target.bucket.as_str();
    match (&parts.method, target.query.get("comp").unwrap_or_default()) {
        (&Method::PUT, "") => {
            state.model.create_bucket(container)?;
            Ok(status(StatusCode::CREATED))
        }
        (&Method::DELETE, "") => {
            state.model.drop_bucket(container)?;
            Ok(status(StatusCode::ACCEPTED))
        }
        _ if !state.model.has_bucket(container) => Err(Refusal::NoBucket),
        (&Method::GET, "list") => list(state, target),
        (&Method::POST, "batch") => Ok(batch(state, parts, body)),
        (&Method::GET | &Method::HEAD, _) => Ok(status(StatusCode::OK)),
        _ => Ok(bad("This is not understood.")),
    }
}

fn list(state: &State, target: &Target) -> Result<Reply, Refusal> {
    let query = &target.query;
    let marker = query.text("marker");
    let keys_max = query
        .get("maxresults")
        .and_then(|text| text.parse().ok())
        .unwrap_or(5000)
        .clamp(1, 5000);
    let asked = ListQuery {
        prefix: query.text("prefix"),
        delimiter: query.text("delimiter"),
        after_inclusive: marker.is_empty(),
        after: if marker.is_empty() {
            query.text("startFrom")
        } else {
            marker
        },
        keys_max,
    };
    let listed = state.model.list(&target.bucket, &asked)?;
    let mut blobs = String::new();
    for (name, object) in &listed.objects {
        let content_type = attribute(object, "content-type").unwrap_or("application/octet-stream");
        let pairs = [
            ("Last-Modified", reply::http_date(object.modified)),
            // Without the quotes that headers have, as the service lists it: readers must know both for one.
            ("Etag", object.e_tag.clone()),
            ("Content-Length", object.content.size().to_string()),
            ("Content-Type", content_type.to_owned()),
            ("BlobType", "BlockBlob".to_owned()),
        ];
        let pairs: String = pairs.iter().map(|(name, value)| element(name, value)).collect();
        let _infallible = write!(
            blobs,
            "<Blob>{}<Properties>{pairs}</Properties></Blob>",
            element("Name", name)
        );
    }
    for prefix in &listed.prefixes {
        let _infallible = write!(blobs, "<BlobPrefix>{}</BlobPrefix>", element("Name", prefix));
    }
    let next = element("NextMarker", listed.next.as_deref().unwrap_or_default());
    let inner = element("Prefix", &asked.prefix) + &element("MaxResults", &keys_max.to_string());
    let name = escape(&target.bucket);
    Ok(reply::xml(document(&format!(
        "<EnumerationResults ContainerName=\"{name}\">{inner}<Blobs>{blobs}</Blobs>{next}</EnumerationResults>"
    ))))
}

fn attribute<'a>(object: &'a Object, wanted: &str) -> Option<&'a str> {
    let given = object.attributes.iter().find(|(name, _)| name.as_str() == wanted);
    given.and_then(|(_, value)| value.to_str().ok())
}

/// Deletes of many blobs: requests as parts of a body, answers as parts of another.
fn batch(state: &State, parts: &Parts, body: &Bytes) -> Reply {
    let Some((_, boundary)) = header(parts, "content-type").split_once("boundary=") else {
        return bad("A boundary is needed.");
    };
    let text = String::from_utf8_lossy(body);
    let mut answers = String::new();
    for part in text.split(&format!("--{boundary}\r\n")).skip(1) {
        let id = part
            .lines()
            .find_map(|line| line.strip_prefix("Content-ID: "))
            .unwrap_or("0");
        let address = part.lines().find_map(|line| line.strip_prefix("DELETE "));
        let address = address.and_then(|line| line.split(' ').next()).unwrap_or_default();
        let done = blob_of(address, &state.config)
            .ok_or(Refusal::NoKey)
            .and_then(|(container, blob)| state.model.delete(&container, &blob, &Condition::default()))
            .and_then(|was| if was { Ok(()) } else { Err(Refusal::NoKey) });
        let line = match done {
            Ok(()) => "202 Accepted",
            Err(Refusal::NoKey) => "404 The specified blob does not exist.",
            Err(_) => "403 Forbidden",
        };
        let _infallible = write!(
            answers,
            "--batchresponse_1\r\nContent-Type: application/http\r\nContent-ID: {id}\r\n\r\n\
             HTTP/1.1 {line}\r\nx-ms-version: 2023-11-03\r\n\r\n\r\n"
        );
    }
    answers.push_str("--batchresponse_1--\r\n");
    let mut reply = reply::xml(answers);
    set(&mut reply, "content-type", "multipart/mixed; boundary=batchresponse_1");
    *reply.status_mut() = StatusCode::ACCEPTED;
    reply
}

fn of_blob(state: &State, parts: &Parts, target: &Target, body: &Bytes, kind: Kind) -> Result<Reply, Refusal> {
    let model = &state.model;
    let (container, blob) = (target.bucket.as_str(), target.key.as_str());
    match kind {
        Kind::Get | Kind::Head => read(state, parts, target),
        Kind::Put if header(parts, "x-ms-blob-type") != "BlockBlob" => Ok(bad("Only block blobs are understood.")),
        Kind::Put => {
            let content = Content::pieces([body.clone()]);
            let object = model.put(container, blob, content, attributes(parts), &condition(parts));
            let object = object.map_err(absent_is_changed)?;
            Ok(created(&object))
        }
        Kind::Copy => {
            let source = blob_of(header(parts, "x-ms-copy-source"), &state.config).ok_or(Refusal::NoKey)?;
            let from = model.get(&source.0, &source.1)?;
            let (content, kept) = (from.content.clone(), from.attributes.clone());
            let object = model.put(container, blob, content, kept, &condition(parts))?;
            let mut reply = created(&object);
            *reply.status_mut() = StatusCode::ACCEPTED;
            set(&mut reply, "x-ms-copy-id", &object.e_tag);
            set(&mut reply, "x-ms-copy-status", "success");
            Ok(reply)
        }
        Kind::Delete => {
            let was = model.delete(container, blob, &condition(parts))?;
            if was {
                Ok(status(StatusCode::ACCEPTED))
            } else {
                Err(Refusal::NoKey)
            }
        }
        Kind::Part => {
            let id = target.query.text("blockid");
            if BASE64_STANDARD.decode(&id).is_err() {
                return Ok(bad("The id of a block must be Base64."));
            }
            model.put_block(container, blob, &id, body.clone())?;
            Ok(status(StatusCode::CREATED))
        }
        Kind::Complete => {
            let Some(leaves) = leaves(body) else {
                return Ok(bad("The body is not XML."));
            };
            let list: Vec<(bool, bool, String)> = leaves
                .into_iter()
                // A list of nothing is a leaf itself.
                .filter(|(name, _)| name != "BlockList")
                .map(|(name, id)| (name != "Uncommitted", name != "Committed", id.trim().to_owned()))
                .collect();
            let object = model.put_block_list(container, blob, &list, attributes(parts), &condition(parts));
            let object = object.map_err(absent_is_changed)?;
            Ok(created(&object))
        }
        Kind::List | Kind::Create | Kind::Abort | Kind::Other => Ok(bad("This is not understood.")),
    }
}

/// A write with a condition on a blob that is not there.
fn absent_is_changed(refusal: Refusal) -> Refusal {
    if refusal == Refusal::NoKey {
        Refusal::Changed
    } else {
        refusal
    }
}

fn read(state: &State, parts: &Parts, target: &Target) -> Result<Reply, Refusal> {
    let object = state.model.get(&target.bucket, &target.key)?;
    let own = header(parts, "x-ms-range");
    let range = if own.is_empty() { header(parts, "range") } else { own };
    if range.starts_with("bytes=-") {
        return Ok(error(
            StatusCode::BAD_REQUEST,
            "InvalidHeaderValue",
            "Ranges must have a first byte.",
        ));
    }
    let mut reply = reply::object(parts, &object, range);
    reply = match reply.status() {
        StatusCode::PRECONDITION_FAILED => refused(Refusal::Changed),
        StatusCode::RANGE_NOT_SATISFIABLE => error(reply.status(), "InvalidRange", "The range specified is invalid."),
        _ => reply,
    };
    set(&mut reply, "x-ms-blob-type", "BlockBlob");
    set(&mut reply, "x-ms-server-encrypted", "true");
    Ok(reply)
}

/// What a writer says about a blob, under the names that readers are told.
fn attributes(parts: &Parts) -> Attributes {
    let told = |name: &HeaderName, value: &HeaderValue| {
        let name = name.as_str();
        let told = name
            .strip_prefix("x-ms-blob-")
            .filter(|rest| rest.starts_with("content-") || *rest == "cache-control");
        let told = told.or(name.starts_with("x-ms-meta-").then_some(name))?;
        let told = HeaderName::from_bytes(told.as_bytes()).ok()?;
        Some((told, value.clone()))
    };
    parts
        .headers
        .iter()
        .filter_map(|(name, value)| told(name, value))
        .collect()
}

fn condition(parts: &Parts) -> Condition {
    let if_match = header(parts, "if-match");
    Condition {
        absent: header(parts, "if-none-match") == "*",
        e_tag: (!if_match.is_empty()).then(|| bare(if_match)),
        generation: None,
    }
}

/// 201 with what the writer is told.
fn created(object: &Object) -> Reply {
    let mut reply = status(StatusCode::CREATED);
    reply::describe(&mut reply, object);
    set(&mut reply, "x-ms-request-server-encrypted", "true");
    reply
}
