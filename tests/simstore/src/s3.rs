//! S3's language, and GCS's XML one, which is S3's with generations.

use std::fmt::Write;

use bytes::Bytes;
use chrono::Utc;
use http::request::Parts;
use http::{HeaderName, Method, StatusCode};

use crate::config::Access;
use crate::content::Content;
use crate::counters::Kind;
use crate::model::{Attributes, Condition, ListQuery, Object, Refusal};
use crate::query::{Dialect, Target, decode, encode, header};
use crate::reply::{self, Reply, bare, quoted, set, status};
use crate::server::State;
use crate::xml::{document, element, leaves};

/// What a request is.
pub(crate) fn kind(parts: &Parts, target: &Target) -> Kind {
    let query = &target.query;
    let copies = !copy_source(parts).is_empty();
    match (&parts.method, target.key.is_empty()) {
        _ if query.has("tagging") || query.has("acl") => Kind::Other,
        (&Method::GET, true) if target.bucket.is_empty() => Kind::Other,
        (&Method::GET, true)
            if ["location", "uploads", "versioning", "session"]
                .iter()
                .any(|name| query.has(name)) =>
        {
            Kind::Other
        }
        (&Method::GET, true) => Kind::List,
        (&Method::POST, true) if query.has("delete") => Kind::Delete,
        (_, true) => Kind::Other,
        (&Method::GET, _) if query.has("uploadId") => Kind::Other,
        (&Method::GET, _) => Kind::Get,
        (&Method::HEAD, _) => Kind::Head,
        (&Method::PUT, _) if query.has("uploadId") => Kind::Part,
        (&Method::PUT, _) if copies => Kind::Copy,
        (&Method::PUT, _) => Kind::Put,
        (&Method::POST, _) if query.has("uploads") => Kind::Create,
        (&Method::POST, _) if query.has("uploadId") => Kind::Complete,
        (&Method::DELETE, _) if query.has("uploadId") => Kind::Abort,
        (&Method::DELETE, _) => Kind::Delete,
        _ => Kind::Other,
    }
}

/// An error that was drawn or scripted.
pub(crate) fn fault(status: StatusCode) -> Reply {
    match status.as_u16() {
        503 => error(status, "SlowDown", "Please reduce your request rate."),
        429 => error(status, "TooManyRequests", "Please reduce your request rate."),
        _ => error(
            status,
            "InternalError",
            "We encountered an internal error. Please try again.",
        ),
    }
}

fn error(status: StatusCode, code: &str, message: &str) -> Reply {
    let inner = format!("{}{}", element("Code", code), element("Message", message));
    let mut reply = reply::xml(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>{inner}</Error>"
    ));
    *reply.status_mut() = status;
    reply
}

fn refused(refusal: Refusal) -> Reply {
    use StatusCode as S;
    let (status, code, message) = match refusal {
        Refusal::NoBucket => (S::NOT_FOUND, "NoSuchBucket", "The specified bucket does not exist"),
        Refusal::NoKey => (S::NOT_FOUND, "NoSuchKey", "The specified key does not exist."),
        Refusal::NoUpload => (S::NOT_FOUND, "NoSuchUpload", "The specified upload does not exist."),
        Refusal::BucketExists => (S::CONFLICT, "BucketAlreadyOwnedByYou", "The bucket exists already."),
        Refusal::BucketNotEmpty => (S::CONFLICT, "BucketNotEmpty", "The bucket is not empty."),
        Refusal::ReadOnly => (S::FORBIDDEN, "AccessDenied", "The bucket can only be read."),
        Refusal::Exists | Refusal::Changed => (
            S::PRECONDITION_FAILED,
            "PreconditionFailed",
            "At least one of the pre-conditions you specified did not hold",
        ),
        Refusal::InvalidPart => (
            S::BAD_REQUEST,
            "InvalidPart",
            "A part was not found, or its entity tag differs.",
        ),
        Refusal::InvalidPartOrder => (
            S::BAD_REQUEST,
            "InvalidPartOrder",
            "The parts are not in ascending order.",
        ),
        Refusal::PartTooSmall => (
            S::BAD_REQUEST,
            "EntityTooSmall",
            "A part but the last is smaller than allowed.",
        ),
    };
    error(status, code, message)
}

fn bad(message: &str) -> Reply {
    error(StatusCode::BAD_REQUEST, "InvalidRequest", message)
}

/// Who asks is checked first, then it is done.
pub(crate) fn answer(state: &State, parts: &Parts, target: &Target, body: Bytes, kind: Kind) -> Reply {
    if let Some(refused) = denied(&state.access.read(), parts, target) {
        return refused;
    }
    let body = if header(parts, "x-amz-content-sha256").starts_with("STREAMING-")
        || header(parts, "content-encoding").contains("aws-chunked")
    {
        match unchunked(&body) {
            Some(body) => body,
            None => return bad("The chunks of the body can't be read."),
        }
    } else {
        body
    };
    let done = if target.bucket.is_empty() {
        Ok(list_buckets(state))
    } else if target.key.is_empty() {
        of_bucket(state, parts, target, &body)
    } else {
        of_object(state, parts, target, body, kind)
    };
    done.unwrap_or_else(refused)
}

fn denied(access: &Access, parts: &Parts, target: &Target) -> Option<Reply> {
    let query = &target.query;
    if !access.keys.is_empty() {
        let authorization = header(parts, "authorization");
        let presigned = query.get("X-Amz-Credential").or(query.get("X-Goog-Credential"));
        let credential = authorization
            .split_once("Credential=")
            .map(|(_, rest)| rest)
            .or(presigned)
            .map(|rest| rest.split('/').next().unwrap_or_default())
            .or(authorization.strip_prefix("Bearer "));
        let known = credential.is_some_and(|key| access.keys.iter().any(|each| each == key));
        if !known {
            return Some(match (target.dialect, credential) {
                (Dialect::Gcs, _) => error(
                    StatusCode::UNAUTHORIZED,
                    "AuthenticationRequired",
                    "Authentication required.",
                ),
                (_, Some(_)) => error(
                    StatusCode::FORBIDDEN,
                    "InvalidAccessKeyId",
                    "The access key id does not exist.",
                ),
                (_, None) => error(StatusCode::FORBIDDEN, "AccessDenied", "Access Denied"),
            });
        }
    }
    if let Some(token) = &access.session_token {
        let given = query
            .get("X-Amz-Security-Token")
            .unwrap_or(header(parts, "x-amz-security-token"));
        if given != token && target.dialect == Dialect::S3 {
            return Some(error(
                StatusCode::FORBIDDEN,
                "InvalidToken",
                "The provided token is not valid.",
            ));
        }
    }
    let pays =
        header(parts, "x-amz-request-payer") == "requester" || query.get("x-amz-request-payer") == Some("requester");
    if access.request_payer && !pays && target.dialect == Dialect::S3 {
        return Some(error(StatusCode::FORBIDDEN, "AccessDenied", "The requester must pay."));
    }
    None
}

/// `<length in hex>;chunk-signature=…`, a line break, the data, a line break; the last is empty, trailers may follow it.
fn unchunked(body: &Bytes) -> Option<Bytes> {
    let mut whole = Vec::with_capacity(body.len());
    let mut rest: &[u8] = body;
    loop {
        let line = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let (head, tail) = rest.split_at(line);
        let size = std::str::from_utf8(head).ok()?.split(';').next()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(Bytes::from(whole));
        }
        let data = tail.get(2..)?;
        whole.extend_from_slice(data.get(..size)?);
        rest = data.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

fn list_buckets(state: &State) -> Reply {
    let bucket = |name: &String| format!("<Bucket>{}</Bucket>", element("Name", name));
    let buckets: String = state.model.buckets().iter().map(bucket).collect();
    reply::xml(document(
        "ListAllMyBucketsResult",
        &format!("<Buckets>{buckets}</Buckets>"),
    ))
}

fn of_bucket(state: &State, parts: &Parts, target: &Target, body: &Bytes) -> Result<Reply, Refusal> {
    let model = &state.model;
    let query = &target.query;
    let bucket = target.bucket.as_str();
    match parts.method {
        Method::PUT => {
            model.create_bucket(bucket)?;
            return Ok(status(StatusCode::OK));
        }
        Method::DELETE => {
            model.drop_bucket(bucket)?;
            return Ok(status(StatusCode::NO_CONTENT));
        }
        _ if !model.has_bucket(bucket) => return Err(Refusal::NoBucket),
        Method::POST if query.has("delete") => return delete_objects(state, bucket, body),
        Method::HEAD => {
            let mut reply = status(StatusCode::OK);
            set(&mut reply, "x-amz-bucket-region", "us-east-1");
            return Ok(reply);
        }
        Method::GET => {}
        _ => return Ok(bad("This is not understood.")),
    }
    if query.has("location") {
        return Ok(reply::xml(document("LocationConstraint", "us-east-1")));
    }
    if query.has("versioning") {
        return Ok(reply::xml(document("VersioningConfiguration", "")));
    }
    if query.has("session") {
        let expires = reply::iso_date(Utc::now() + chrono::TimeDelta::minutes(5));
        let pairs = [
            ("SessionToken", "session"),
            ("SecretAccessKey", "session"),
            ("AccessKeyId", "session"),
            ("Expiration", expires.as_str()),
        ];
        let inner: String = pairs.iter().map(|(name, value)| element(name, value)).collect();
        let inner = format!("<Credentials>{inner}</Credentials>");
        return Ok(reply::xml(document("CreateSessionResult", &inner)));
    }
    if query.has("uploads") {
        return list_uploads(state, target);
    }
    list(state, target)
}

fn list_uploads(state: &State, target: &Target) -> Result<Reply, Refusal> {
    let mut inner = element("Bucket", &target.bucket) + &element("IsTruncated", "false");
    let prefix = target.query.text("prefix");
    for (id, upload) in state.model.uploads(&target.bucket)? {
        if upload.key.starts_with(&prefix) {
            let key = element("Key", &upload.key) + &element("UploadId", &id);
            let started = element("Initiated", &reply::iso_date(upload.started));
            let _infallible = write!(inner, "<Upload>{key}{started}</Upload>");
        }
    }
    Ok(reply::xml(document("ListMultipartUploadsResult", &inner)))
}

/// Version 2, and version 1 for old clients.
fn list(state: &State, target: &Target) -> Result<Reply, Refusal> {
    let query = &target.query;
    let second = query.get("list-type") == Some("2");
    let token = if second {
        query.text("continuation-token")
    } else {
        query.text("marker")
    };
    let after = if token.is_empty() {
        query.text("start-after")
    } else {
        decode(&token)
    };
    let keys_max = query
        .get("max-keys")
        .and_then(|text| text.parse().ok())
        .unwrap_or(1000)
        .min(1000);
    let asked = ListQuery {
        prefix: query.text("prefix"),
        delimiter: query.text("delimiter"),
        after,
        after_inclusive: false,
        keys_max,
    };
    let listed = if keys_max == 0 {
        Default::default()
    } else {
        state.model.list(&target.bucket, &asked)?
    };

    let coded = query.get("encoding-type") == Some("url");
    let name = |text: &str| if coded { encode(text) } else { text.to_owned() };
    let mut inner = element("Name", &target.bucket) + &element("Prefix", &name(&asked.prefix));
    inner += &element("MaxKeys", &keys_max.to_string());
    if !asked.delimiter.is_empty() {
        inner += &element("Delimiter", &name(&asked.delimiter));
    }
    if coded {
        inner += &element("EncodingType", "url");
    }
    inner += &element("KeyCount", &(listed.objects.len() + listed.prefixes.len()).to_string());
    inner += &element("IsTruncated", if listed.next.is_some() { "true" } else { "false" });
    if let Some(next) = &listed.next {
        let tag = if second { "NextContinuationToken" } else { "NextMarker" };
        inner += &element(tag, &encode(next));
    }
    for (key, object) in &listed.objects {
        let modified = reply::iso_date(object.modified);
        let pairs = [
            ("Key", name(key)),
            ("LastModified", modified),
            ("ETag", quoted(&object.e_tag)),
            ("Size", object.content.size().to_string()),
            ("StorageClass", "STANDARD".to_owned()),
        ];
        let pairs: String = pairs.iter().map(|(name, value)| element(name, value)).collect();
        let _infallible = write!(inner, "<Contents>{pairs}</Contents>");
    }
    for prefix in &listed.prefixes {
        let _infallible = write!(
            inner,
            "<CommonPrefixes>{}</CommonPrefixes>",
            element("Prefix", &name(prefix))
        );
    }
    Ok(reply::xml(document("ListBucketResult", &inner)))
}

fn delete_objects(state: &State, bucket: &str, body: &Bytes) -> Result<Reply, Refusal> {
    let Some(leaves) = leaves(body) else {
        return Ok(error(StatusCode::BAD_REQUEST, "MalformedXML", "The body is not XML."));
    };
    let mut inner = String::new();
    for (_, key) in leaves.iter().filter(|(name, _)| name == "Key") {
        state.model.delete(bucket, key, &Condition::default())?;
        let _infallible = write!(inner, "<Deleted>{}</Deleted>", element("Key", key));
    }
    Ok(reply::xml(document("DeleteResult", &inner)))
}

fn of_object(state: &State, parts: &Parts, target: &Target, body: Bytes, kind: Kind) -> Result<Reply, Refusal> {
    let model = &state.model;
    let (bucket, key) = (target.bucket.as_str(), target.key.as_str());
    let upload = target.query.text("uploadId");
    match kind {
        Kind::Get | Kind::Head => read(state, parts, target),
        Kind::Put => {
            let content = Content::pieces([body]);
            let object = model.put(bucket, key, content, attributes(parts), &condition(parts))?;
            Ok(written(parts, &object))
        }
        Kind::Copy => copy(state, parts, target),
        Kind::Delete => {
            let was = model.delete(bucket, key, &condition(parts))?;
            if !was && target.dialect == Dialect::Gcs {
                return Err(Refusal::NoKey);
            }
            Ok(status(StatusCode::NO_CONTENT))
        }
        Kind::Create => {
            let id = model.create_upload(bucket, key, attributes(parts))?;
            let inner = element("Bucket", bucket) + &element("Key", key) + &element("UploadId", &id);
            Ok(reply::xml(document("InitiateMultipartUploadResult", &inner)))
        }
        Kind::Part => put_part(state, parts, target, body),
        Kind::Complete => complete(state, parts, target, &body),
        Kind::Abort => {
            model.abort(bucket, key, &upload)?;
            Ok(status(StatusCode::NO_CONTENT))
        }
        Kind::Other if !upload.is_empty() => list_parts(state, target, &upload),
        Kind::Other if target.query.has("tagging") && parts.method == Method::GET => {
            model.get(bucket, key)?;
            Ok(reply::xml(document("Tagging", "<TagSet></TagSet>")))
        }
        Kind::Other | Kind::List => Ok(bad("This is not understood.")),
    }
}

fn read(state: &State, parts: &Parts, target: &Target) -> Result<Reply, Refusal> {
    let object = state.model.get(&target.bucket, &target.key)?;
    let generation = target.query.get("generation").or(target.query.get("versionId"));
    if generation.is_some_and(|generation| generation != object.generation.to_string() && generation != "null") {
        return Err(Refusal::NoKey);
    }
    if let Some(name) = customer_key(&object)
        && header(parts, CUSTOMER_KEY) != name
    {
        return Ok(bad("The object was stored using a form of Server Side Encryption."));
    }
    let reply = reply::object(parts, &object, header(parts, "range"));
    Ok(match reply.status() {
        StatusCode::PRECONDITION_FAILED => refused(Refusal::Changed),
        StatusCode::RANGE_NOT_SATISFIABLE => {
            let text = error(reply.status(), "InvalidRange", "The requested range is not satisfiable");
            reply.map(|_| text.into_body())
        }
        _ => reply,
    })
}

const CUSTOMER_KEY: &str = "x-amz-server-side-encryption-customer-key-md5";

/// The key that an object was encrypted with by its writer.
fn customer_key(object: &Object) -> Option<&str> {
    let given = object.attributes.iter().find(|(name, _)| name.as_str() == CUSTOMER_KEY);
    given.and_then(|(_, value)| value.to_str().ok())
}

/// What a writer says about an object, and readers are told.
fn attributes(parts: &Parts) -> Attributes {
    let kept = |name: &HeaderName| {
        let name = name.as_str();
        let plain = [
            "content-type",
            "cache-control",
            "content-disposition",
            "content-language",
            "x-amz-storage-class",
        ];
        let encrypted = name.starts_with("x-amz-server-side-encryption") && !name.ends_with("customer-key");
        plain.contains(&name) || encrypted || name.starts_with("x-amz-meta-") || name.starts_with("x-goog-meta-")
    };
    let given = parts.headers.iter().filter(|(name, _)| kept(name));
    let mut attributes: Attributes = given.map(|(name, value)| (name.clone(), value.clone())).collect();
    let coding = header(parts, "content-encoding");
    if !coding.is_empty()
        && !coding.contains("aws-chunked")
        && let Some(value) = parts.headers.get("content-encoding")
    {
        attributes.push((http::header::CONTENT_ENCODING, value.clone()));
    }
    attributes
}

fn condition(parts: &Parts) -> Condition {
    let generation = header(parts, "x-goog-if-generation-match").parse::<u64>().ok();
    let if_match = header(parts, "if-match");
    let none = header(parts, "if-none-match") == "*" || header(parts, "cf-copy-destination-if-none-match") == "*";
    Condition {
        absent: none || generation == Some(0),
        e_tag: (!if_match.is_empty()).then(|| bare(if_match)),
        generation: generation.filter(|generation| *generation > 0),
    }
}

/// 200 with what the writer is told.
fn written(parts: &Parts, object: &Object) -> Reply {
    let mut reply = status(StatusCode::OK);
    set(&mut reply, "etag", &quoted(&object.e_tag));
    set(&mut reply, "x-goog-generation", &object.generation.to_string());
    for (name, value) in attributes(parts) {
        if name.as_str().starts_with("x-amz-server-side-encryption") {
            reply.headers_mut().insert(name, value);
        }
    }
    reply
}

fn copy_source(parts: &Parts) -> String {
    let amazon = header(parts, "x-amz-copy-source");
    let source = if amazon.is_empty() {
        header(parts, "x-goog-copy-source")
    } else {
        amazon
    };
    // A version follows behind a plain `?`; one of the key is encoded.
    let source = source.split('?').next().unwrap_or_default();
    decode(source.trim_start_matches('/'))
}

/// The object that a request copies, if its conditions hold.
fn copied(state: &State, parts: &Parts) -> Result<std::sync::Arc<Object>, Refusal> {
    let source = copy_source(parts);
    let (bucket, key) = source.split_once('/').ok_or(Refusal::NoKey)?;
    let object = state.model.get(bucket, key)?;
    let wanted = header(parts, "x-amz-copy-source-if-match");
    if !wanted.is_empty() && bare(wanted) != object.e_tag {
        return Err(Refusal::Changed);
    }
    Ok(object)
}

fn copy(state: &State, parts: &Parts, target: &Target) -> Result<Reply, Refusal> {
    let from = copied(state, parts)?;
    let replaces = header(parts, "x-amz-metadata-directive") == "REPLACE";
    let attributes = if replaces {
        attributes(parts)
    } else {
        from.attributes.clone()
    };
    let to = state.model.put(
        &target.bucket,
        &target.key,
        from.content.clone(),
        attributes,
        &condition(parts),
    )?;
    let inner = element("LastModified", &reply::iso_date(to.modified)) + &element("ETag", &quoted(&to.e_tag));
    Ok(reply::xml(document("CopyObjectResult", &inner)))
}

fn put_part(state: &State, parts: &Parts, target: &Target, body: Bytes) -> Result<Reply, Refusal> {
    let id = target.query.text("uploadId");
    let number = target.query.get("partNumber").and_then(|text| text.parse::<u32>().ok());
    let Some(number) = number.filter(|number| (1..=10_000).contains(number)) else {
        return Ok(bad("The part number must be between 1 and 10000."));
    };
    if copy_source(parts).is_empty() {
        let e_tag = state.model.put_part(&target.bucket, &target.key, &id, number, body)?;
        let mut reply = status(StatusCode::OK);
        set(&mut reply, "etag", &quoted(&e_tag));
        return Ok(reply);
    }
    let from = copied(state, parts)?;
    let size = from.content.size();
    let range = match reply::asked(header(parts, "x-amz-copy-source-range"), size) {
        reply::Asked::Part(range) => range,
        _ => 0..size,
    };
    let Ok(data) = from.content.range(range) else {
        return Ok(fault(StatusCode::INTERNAL_SERVER_ERROR));
    };
    let e_tag = state.model.put_part(&target.bucket, &target.key, &id, number, data)?;
    let inner = element("LastModified", &reply::iso_date(Utc::now())) + &element("ETag", &quoted(&e_tag));
    Ok(reply::xml(document("CopyPartResult", &inner)))
}

fn complete(state: &State, parts: &Parts, target: &Target, body: &Bytes) -> Result<Reply, Refusal> {
    let Some(leaves) = leaves(body) else {
        return Ok(error(StatusCode::BAD_REQUEST, "MalformedXML", "The body is not XML."));
    };
    let of = |wanted: &'static str| {
        leaves
            .iter()
            .filter(move |(name, _)| name == wanted)
            .map(|(_, value)| value)
    };
    let numbers = of("PartNumber").map(|text| text.trim().parse::<u32>().unwrap_or(0));
    let listed: Vec<(u32, String)> = numbers.zip(of("ETag").map(|e_tag| bare(e_tag))).collect();
    let id = target.query.text("uploadId");
    let (bucket, key) = (target.bucket.as_str(), target.key.as_str());
    let least = state.config.part_bytes_min;
    let object = state
        .model
        .complete(bucket, key, &id, &listed, least, &condition(parts))?;
    let inner = element("Bucket", bucket) + &element("Key", key) + &element("ETag", &quoted(&object.e_tag));
    let mut reply = reply::xml(document("CompleteMultipartUploadResult", &inner));
    set(&mut reply, "x-goog-generation", &object.generation.to_string());
    Ok(reply)
}

fn list_parts(state: &State, target: &Target, id: &str) -> Result<Reply, Refusal> {
    let uploads = state.model.uploads(&target.bucket)?;
    let (_, upload) = uploads
        .into_iter()
        .find(|(known, _)| known == id)
        .ok_or(Refusal::NoUpload)?;
    let mut inner = element("Key", &upload.key) + &element("UploadId", id) + &element("IsTruncated", "false");
    for (number, (e_tag, data)) in &upload.parts {
        let part = element("PartNumber", &number.to_string()) + &element("ETag", &quoted(e_tag));
        let _infallible = write!(inner, "<Part>{part}{}</Part>", element("Size", &data.len().to_string()));
    }
    Ok(reply::xml(document("ListPartsResult", &inner)))
}
