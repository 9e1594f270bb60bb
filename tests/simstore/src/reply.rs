//! Answers, before latency, lanes and faults come to them; ranges and conditions of reads, which all dialects share.

use std::ops::Range;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode};

use crate::body::SimBody;
use crate::model::Object;
use crate::query::header;

pub(crate) type Reply = Response<SimBody>;

/// A status and nothing else.
pub(crate) fn status(status: StatusCode) -> Reply {
    let mut reply = Response::new(SimBody::of(""));
    *reply.status_mut() = status;
    reply
}

/// A 200 with XML.
pub(crate) fn xml(text: String) -> Reply {
    let mut reply = Response::new(SimBody::of(text));
    set(&mut reply, "content-type", "application/xml");
    reply
}

/// Sets a header; values that can't be one are left out.
pub(crate) fn set(reply: &mut Reply, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(HeaderName::from_static(name), value);
    }
}

pub(crate) fn quoted(e_tag: &str) -> String {
    format!("\"{e_tag}\"")
}

pub(crate) fn http_date(time: DateTime<Utc>) -> String {
    time.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

pub(crate) fn iso_date(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Without quotes and weakness.
pub(crate) fn bare(e_tag: &str) -> String {
    let e_tag = e_tag.trim();
    e_tag.strip_prefix("W/").unwrap_or(e_tag).trim_matches('"').to_owned()
}

fn names(list: &str, e_tag: &str) -> bool {
    list.split(',').any(|each| each.trim() == "*" || bare(each) == e_tag)
}

/// What a range header asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    All,
    Part(Range<u64>),
    Unsatisfiable,
}

/// Reads a range header; what is not understood, or asks for several, means all, as HTTP says.
pub(crate) fn asked(text: &str, size: u64) -> Asked {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Asked::All;
    };
    let range = match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Ok(first), Err(_)) if last.is_empty() => first..size,
        (Err(_), Ok(suffix)) if first.is_empty() => size.saturating_sub(suffix)..size,
        _ => return Asked::All,
    };
    if range.is_empty() {
        return Asked::Unsatisfiable;
    }
    Asked::Part(range)
}

/// What the conditions of a read say: 304, 412, or go on.
pub(crate) fn precondition(parts: &Parts, object: &Object) -> Option<StatusCode> {
    let if_match = header(parts, "if-match");
    let if_none_match = header(parts, "if-none-match");
    let before = |name: &str| {
        let time = DateTime::parse_from_rfc2822(header(parts, name)).ok()?;
        Some(object.modified.timestamp() <= time.timestamp())
    };
    if !if_match.is_empty() {
        if !names(if_match, &object.e_tag) {
            return Some(StatusCode::PRECONDITION_FAILED);
        }
    } else if before("if-unmodified-since") == Some(false) {
        return Some(StatusCode::PRECONDITION_FAILED);
    }
    if !if_none_match.is_empty() {
        return names(if_none_match, &object.e_tag).then_some(StatusCode::NOT_MODIFIED);
    }
    (before("if-modified-since") == Some(true)).then_some(StatusCode::NOT_MODIFIED)
}

/// The object, or a part of it: 200, 206, 304, 412 or 416, the last three without a body that a dialect may give them.
pub(crate) fn object(parts: &Parts, object: &Arc<Object>, range: &str) -> Reply {
    let size = object.content.size();
    let mut reply = if let Some(stop) = precondition(parts, object) {
        status(stop)
    } else {
        match asked(range, size) {
            Asked::All => Response::new(SimBody::new(object.content.clone(), 0, size)),
            Asked::Part(range) => {
                let mut reply = Response::new(SimBody::new(object.content.clone(), range.start, range.end));
                *reply.status_mut() = StatusCode::PARTIAL_CONTENT;
                let value = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                set(&mut reply, "content-range", &value);
                reply
            }
            Asked::Unsatisfiable => {
                let mut reply = status(StatusCode::RANGE_NOT_SATISFIABLE);
                set(&mut reply, "content-range", &format!("bytes */{size}"));
                reply
            }
        }
    };
    describe(&mut reply, object);
    set(&mut reply, "accept-ranges", "bytes");
    for (name, value) in &object.attributes {
        reply.headers_mut().insert(name.clone(), value.clone());
    }
    reply
}

/// Entity tag, time and generation.
pub(crate) fn describe(reply: &mut Reply, object: &Object) {
    set(reply, "etag", &quoted(&object.e_tag));
    set(reply, "last-modified", &http_date(object.modified));
    set(reply, "x-goog-generation", &object.generation.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_says() {
        assert_eq!(asked("bytes=0-9", 100), Asked::Part(0..10));
        assert_eq!(asked("bytes=90-200", 100), Asked::Part(90..100));
        assert_eq!(asked("bytes=90-", 100), Asked::Part(90..100));
        assert_eq!(asked("bytes=-30", 100), Asked::Part(70..100));
        assert_eq!(asked("bytes=-300", 100), Asked::Part(0..100));
        assert_eq!(asked("bytes=100-", 100), Asked::Unsatisfiable);
        assert_eq!(asked("bytes=100-120", 100), Asked::Unsatisfiable);
        assert_eq!(asked("bytes=-0", 100), Asked::Unsatisfiable);
        assert_eq!(asked("bytes=0-0", 0), Asked::Unsatisfiable);
        assert_eq!(asked("", 100), Asked::All);
        assert_eq!(asked("bytes=5-2", 100), Asked::All);
        assert_eq!(asked("bytes=0-1,5-6", 100), Asked::All);
    }
}
