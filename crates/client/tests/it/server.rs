//! Files, uploads in parts, ranges, listings and one archive, as the contract says, in memory.

use crate::faults::{Fault, Faults};
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use carrack_domain::id::hex;
use carrack_domain::upload::{PartPlan, ranges};
use futures_util::stream;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use tokio::task::JoinSet;

struct Upload {
    bucket: String,
    key: String,
    plan: PartPlan,
    parts: BTreeMap<u64, Bytes>,
    complete: bool,
}

#[derive(Default)]
pub(crate) struct Store {
    pub(crate) files: Mutex<BTreeMap<String, Bytes>>,
    /// Keys that a listing names besides those of the files.
    pub(crate) hostile: Mutex<Vec<String>>,
    uploads: Mutex<HashMap<String, Upload>>,
    pub(crate) faults: Faults,
    /// `METHOD path?query range`, in order.
    log: Mutex<Vec<String>>,
}

pub(crate) struct Server {
    url: String,
    pub(crate) store: Arc<Store>,
    _serving: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start() -> Server {
        let store = Arc::new(Store::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(handle).with_state(Arc::clone(&store));
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Server { url, store, _serving: serving }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        self.store.files.lock().unwrap().insert(name.to_owned(), Bytes::copy_from_slice(bytes));
    }

    pub(crate) fn get(&self, name: &str) -> Option<Bytes> {
        self.store.files.lock().unwrap().get(name).cloned()
    }

    /// How many requests there were of `method` whose path contains `path`.
    pub(crate) fn seen(&self, method: &str, path: &str) -> usize {
        let log = self.store.log.lock().unwrap();
        log.iter().filter(|line| line.starts_with(&format!("{method} ")) && line.contains(path)).count()
    }

    pub(crate) fn forget_log(&self) {
        self.store.log.lock().unwrap().clear();
    }

    pub(crate) fn drop_uploads(&self) {
        self.store.uploads.lock().unwrap().clear();
    }

    pub(crate) fn open_uploads(&self) -> usize {
        self.store.uploads.lock().unwrap().values().filter(|upload| !upload.complete).count()
    }
}

async fn handle(State(store): State<Arc<Store>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let method = parts.method.as_str().to_owned();
    let path = parts.uri.path_and_query().unwrap().as_str().to_owned();
    let range = parts.headers.get("range").map_or("", |range| range.to_str().unwrap());
    store.log.lock().unwrap().push(format!("{method} {path} {range}"));
    let fault = store.faults.next(&method, &path);
    match &fault {
        Some(Fault::Status(status)) => {
            return (StatusCode::from_u16(*status).unwrap(), [("retry-after", "0")], "busy").into_response();
        }
        Some(Fault::Replace(bytes)) => {
            store.files.lock().unwrap().insert("default/k".into(), bytes.clone().into());
        }
        Some(Fault::CutAfter(_) | Fault::Damage) | None => {}
    }
    let Ok(body) = to_bytes(body, 1 << 30).await else { return problem(400, "cut", None) };
    let response = route(&store, &method, &path, &parts.headers, body);
    match fault {
        Some(Fault::CutAfter(bytes)) => cut(response, bytes).await,
        Some(Fault::Damage) => damage(response).await,
        _ => response,
    }
}

fn route(store: &Store, method: &str, path: &str, headers: &HeaderMap, body: Bytes) -> Response {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let segments: Vec<&str> = path.trim_start_matches("/v1/").splitn(3, '/').collect();
    match (method, &segments[..]) {
        ("GET", ["files", bucket]) => list(store, bucket, query),
        (_, ["files", bucket, key]) => {
            let name = format!("{bucket}/{}", percent_decode_str(key).decode_utf8().unwrap());
            file(store, method, &name, query, headers, body)
        }
        ("POST", ["uploads"]) => create_upload(store, &body),
        (_, ["uploads", id, rest @ ..]) => {
            upload(store, method, id, rest.first().copied().unwrap_or(""), body)
        }
        ("GET", ["zip", _]) => ranged(&store.files.lock().unwrap()["zip"], headers),
        _ => problem(404, "not_found", None),
    }
}

fn file(store: &Store, method: &str, name: &str, query: &str, headers: &HeaderMap, body: Bytes) -> Response {
    let mut files = store.files.lock().unwrap();
    if method == "PUT" {
        files.insert(name.to_owned(), body.clone());
        return (StatusCode::CREATED, file_json(name, &body).to_string()).into_response();
    }
    let Some(bytes) = files.get(name) else { return problem(404, "file_not_found", None) };
    match method {
        "DELETE" => {
            files.remove(name);
            StatusCode::NO_CONTENT.into_response()
        }
        _ if query == "meta" => file_json(name, bytes).to_string().into_response(),
        _ => ranged(bytes, headers),
    }
}

fn list(store: &Store, bucket: &str, query: &str) -> Response {
    let value = |wanted: &str| {
        let pair = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == wanted);
        pair.map_or(String::new(), |(_, value)| percent_decode_str(value).decode_utf8().unwrap().into_owned())
    };
    let (prefix, cursor) = (value("prefix"), value("cursor"));
    let files = store.files.lock().unwrap();
    let real = files.iter().filter_map(|(name, bytes)| {
        let key = name.strip_prefix(&format!("{bucket}/"))?;
        (key.starts_with(&prefix) && key > cursor.as_str()).then(|| file_json(name, bytes))
    });
    // Two a page, and all the lies on the first.
    let mut page: Vec<Value> = real.take(2).collect();
    let next_cursor = if page.len() == 2 { page[1]["key"].clone() } else { Value::Null };
    if cursor.is_empty() {
        for key in store.hostile.lock().unwrap().iter() {
            let mut lie = file_json("default/x", &Bytes::from_static(b"x"));
            lie["key"] = Value::from(key.as_str());
            page.push(lie);
        }
    }
    json!({"files": page, "prefixes": [], "next_cursor": next_cursor}).to_string().into_response()
}

fn create_upload(store: &Store, body: &[u8]) -> Response {
    let create: Value = serde_json::from_slice(body).unwrap();
    let size = create["size"].as_u64().unwrap();
    let plan = PartPlan::new(size, create["part_size"].as_u64(), NonZeroU64::new(8 << 20).unwrap()).unwrap();
    let mut uploads = store.uploads.lock().unwrap();
    let id = format!("{:032x}", uploads.len() + 1);
    let text = |name: &str| create[name].as_str().unwrap().to_owned();
    let upload =
        Upload { bucket: text("bucket"), key: text("key"), plan, parts: BTreeMap::new(), complete: false };
    uploads.insert(id.clone(), upload);
    let created = json!({"upload_id": id, "part_size": plan.part_size(), "part_count": plan.count(),
        "expires_at": "2030-01-01T00:00:00.000Z", "url": format!("/v1/uploads/{id}")});
    (StatusCode::CREATED, created.to_string()).into_response()
}

fn upload(store: &Store, method: &str, id: &str, rest: &str, body: Bytes) -> Response {
    let mut uploads = store.uploads.lock().unwrap();
    let Some(upload) = uploads.get_mut(id) else { return problem(404, "upload_not_found", None) };
    match (method, rest.split_once('/').unwrap_or((rest, ""))) {
        ("GET", ("", _)) => upload_json(id, upload).to_string().into_response(),
        ("DELETE", _) => {
            uploads.remove(id);
            StatusCode::NO_CONTENT.into_response()
        }
        ("PUT", ("parts", number)) => {
            let number: u64 = number.parse().unwrap();
            let (_, len) = upload.plan.extent(number).unwrap();
            if body.len() as u64 != len {
                return problem(400, "wrong_part_size", None);
            }
            let part =
                json!({"part": number, "size": len, "crc32": crc32(&body), "blake3": blake3_hex(&body)});
            upload.parts.insert(number, body);
            part.to_string().into_response()
        }
        ("POST", ("complete", _)) => complete(store, upload, &body),
        _ => problem(404, "not_found", None),
    }
}

fn complete(store: &Store, upload: &mut Upload, body: &[u8]) -> Response {
    if upload.parts.len() as u64 != upload.plan.count() {
        return problem(409, "parts_missing", Some("some"));
    }
    let whole: Bytes = upload.parts.values().flat_map(|part| part.iter().copied()).collect();
    let demanded: Value = serde_json::from_slice(body).unwrap();
    if demanded["digest"]["blake3"] != blake3_hex(&whole) {
        return problem(422, "digest_mismatch", None);
    }
    let name = format!("{}/{}", upload.bucket, upload.key);
    upload.complete = true;
    store.files.lock().unwrap().insert(name.clone(), whole.clone());
    (StatusCode::CREATED, file_json(&name, &whole).to_string()).into_response()
}

/// `If-Match` and one `Range` of the forms `a-b` and `a-`.
fn ranged(bytes: &Bytes, headers: &HeaderMap) -> Response {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
    let etag = etag(bytes);
    if header("if-match").is_some_and(|wanted| wanted != etag) {
        return problem(412, "precondition_failed", None);
    }
    let Some(range) = header("range") else { return ([("etag", etag)], bytes.clone()).into_response() };
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let first: usize = first.parse().unwrap();
    let end = last.parse::<usize>().map_or(bytes.len(), |last| last + 1).min(bytes.len());
    let range = format!("bytes {first}-{}/{}", end - 1, bytes.len());
    let headers = [("etag", etag), ("content-range", range)];
    (StatusCode::PARTIAL_CONTENT, headers, bytes.slice(first..end)).into_response()
}

/// The same answer with its length, and a connection that ends before it.
async fn cut(response: Response, after: usize) -> Response {
    let (mut parts, body) = response.into_parts();
    let bytes = to_bytes(body, 1 << 30).await.unwrap();
    parts.headers.insert("content-length", bytes.len().into());
    // In two steps, so that what comes before the cut is really sent.
    let chunks = stream::unfold((bytes, 0), move |(bytes, step)| async move {
        match step {
            0 => Some((Ok(bytes.slice(..after.min(bytes.len()))), (bytes, 1))),
            1 => {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                Some((Err(io::Error::other("cut")), (bytes, 2)))
            }
            _ => None,
        }
    });
    Response::from_parts(parts, Body::from_stream(chunks))
}

async fn damage(response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let mut bytes = to_bytes(body, 1 << 30).await.unwrap().to_vec();
    // In a JSON answer the last digit of the last digest, elsewhere some byte.
    let at = bytes.len().saturating_sub(3);
    bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
    Response::from_parts(parts, Body::from(bytes))
}

fn problem(status: u16, code: &str, missing: Option<&str>) -> Response {
    let mut problem = json!({"type": "/docs", "title": "x", "status": status, "detail": "Do otherwise.",
        "code": code, "trace_id": "0"});
    if let Some(missing) = missing {
        problem["missing"] = missing.into();
    }
    (StatusCode::from_u16(status).unwrap(), problem.to_string()).into_response()
}

fn file_json(name: &str, bytes: &Bytes) -> Value {
    let (bucket, key) = name.split_once('/').unwrap_or(("", name));
    json!({"bucket": bucket, "key": key, "size": bytes.len(), "content_type": "text/plain",
        "etag": etag(bytes), "blake3": blake3_hex(bytes), "crc32": crc32(bytes),
        "created_at": "2026-01-01T00:00:00.000Z", "created_by": "me", "metadata": {}})
}

fn upload_json(id: &str, upload: &Upload) -> Value {
    let state = if upload.complete { "complete" } else { "open" };
    json!({"upload_id": id, "bucket": upload.bucket, "key": upload.key, "state": state,
        "size": upload.plan.size(), "part_size": upload.plan.part_size(), "part_count": upload.plan.count(),
        "received": ranges(upload.parts.keys().copied()), "received_bytes": 0,
        "created_at": "2026-01-01T00:00:00.000Z", "expires_at": "2030-01-01T00:00:00.000Z"})
}

fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", &blake3_hex(bytes)[..16])
}

fn blake3_hex(bytes: &[u8]) -> String {
    hex(blake3::hash(bytes).as_bytes())
}

fn crc32(bytes: &[u8]) -> String {
    let mut hasher = carrack_domain::digest::PieceHasher::new(0);
    hasher.update(bytes);
    hex(&hasher.finish().crc32.to_be_bytes())
}
