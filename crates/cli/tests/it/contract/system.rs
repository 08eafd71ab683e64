//! Health, documentation, metrics and the log.

use super::answers::{eventually, header, json, refused, store, until};
use super::uploads::Upload;
use super::wire::{Wire, head};
use crate::server::{Server, Setup, TOKEN, content};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[tokio::test]
async fn a_running_server_is_alive_and_ready() {
    let server = Server::start();
    for path in ["/livez", "/readyz"] {
        let answer = server.get(path).send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), header(&answer, "content-type")),
            (200, "text/plain; charset=utf-8")
        );
        assert_eq!(header(&answer, "x-request-id").len(), 32);
        assert_eq!(server.head(path).send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_stopping_server_is_alive_and_not_ready_until_its_transfers_are_done() {
    let mut server = Server::start();
    // More than is gathered in memory, so that the stage shows it has begun.
    let body = "hello ".repeat(10_000);
    let begun = head("PUT", "/v1/files/default/a", "Content-Length: 60000\r\n") + &body[..5];
    let mut upload = Wire::with(&server, begun).await;
    let mut probe = Wire::with(&server, head("GET", "/readyz", "")).await;
    assert_eq!(probe.answer().await.unwrap().status, 200);
    until("the body is being stored", || super::answers::stages(&server).len() == 1).await;
    server.signal("TERM");
    until("the server is stopping", || server.log().contains("\"stopping\"")).await;
    upload.send(&body[5..]).await;
    assert_eq!(upload.answer().await.unwrap().status, 201);
    assert!(server.wait(Duration::from_secs(40)).success());
    let server = Setup::new().data(&server.data).start();
    assert_eq!(super::answers::fetch(&server, "/v1/files/default/a").await, body.as_bytes());
}

#[tokio::test]
async fn the_documentation_needs_no_other_host() {
    let server = Server::start();
    let page = server.get("/docs").send().await.unwrap();
    assert_eq!((page.status().as_u16(), page.url().path()), (200, "/docs/"));
    assert!(header(&page, "content-type").starts_with("text/html"));
    let policy = header(&page, "content-security-policy").to_owned();
    assert!(policy.contains("default-src 'self'") && !policy.contains("http"), "{policy}");
    let html = page.text().await.unwrap();
    let mut assets = Vec::new();
    for attribute in ["src=\"", "href=\""] {
        assets.extend(html.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
    }
    assert!(assets.len() >= 3, "{html}");
    for asset in assets {
        assert!(!asset.contains("//"), "{asset}");
        let path = format!("/docs/{}", asset.trim_start_matches("./"));
        assert_eq!(server.get(&path).send().await.unwrap().status(), 200, "{path}");
    }
    refused(server.get("/docs/none.js").send().await.unwrap(), 404, "not_found").await;
}

#[tokio::test]
async fn the_document_describes_itself_and_its_problems() {
    let server = Server::start();
    let document = json(server.get("/openapi.json").send().await.unwrap(), 200).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    assert_eq!(document["info"]["title"], "Carrack");
    assert!(document["components"]["securitySchemes"]["bearer"].is_object());
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let mut references = BTreeSet::new();
    collect(&document, &mut references);
    for reference in references {
        let name = reference.strip_prefix("#/components/schemas/").unwrap();
        assert!(schemas.contains_key(name), "{reference}");
    }
    let mut ids = BTreeSet::new();
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            if let Some(id) = operation["operationId"].as_str() {
                assert!(ids.insert(id.to_owned()), "operation id {id} twice");
            }
        }
    }
}

fn collect(value: &Value, references: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            references.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|member| collect(member, references));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        _ => {}
    }
}

/// A sample's name and labels, and its value.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, number)| (name.to_owned(), number.parse().unwrap_or_else(|_| panic!("{name} {number}"))))
        .collect()
}

#[tokio::test]
async fn the_metrics_are_well_formed_and_named_by_the_rules() {
    let server = Server::start();
    store(&server, "/v1/files/default/a", &content(1000, 1)).await;
    super::answers::fetch(&server, "/v1/files/default/a").await;
    Upload::begin(&server, "k", 5, serde_json::json!({})).await.send_all(b"hello").await;
    refused(server.get("/v1/files/default/none").send().await.unwrap(), 404, "file_not_found").await;
    let answer = server.get("/metrics").send().await.unwrap();
    assert!(header(&answer, "content-type").starts_with("text/plain; version=0.0.4"));
    let text = answer.text().await.unwrap();
    let mut kinds = BTreeMap::new();
    let mut helped = BTreeSet::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} has two types");
        } else if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' '))
        {
            assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
        }
    }
    for (name, kind) in &kinds {
        assert!(name.starts_with("carrack_") || name.starts_with("process_"), "{name}");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        assert!(helped.contains(name), "{name} has no help");
        assert!(matches!(kind.as_str(), "counter" | "gauge" | "histogram"), "{name} is a {kind}");
    }
    for sample in samples(&text).keys() {
        let name = sample.split('{').next().unwrap();
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let histogram =
            family.is_some_and(|family| kinds.get(family).is_some_and(|kind| kind == "histogram"));
        assert!(histogram || kinds.contains_key(name), "{sample} has no type");
        assert!(!sample.contains("none") && !sample.contains("default/a"), "a key is no label: {sample}");
    }
    for known in [
        "carrack_build_info",
        "carrack_uploads_total",
        "carrack_uploads_in_progress",
        "carrack_upload_parts_total",
        "carrack_upload_bytes_total",
        "carrack_downloads_total",
        "carrack_download_bytes_total",
        "carrack_http_connections",
        "carrack_http_server_active_requests",
        "carrack_http_server_request_duration_seconds",
        "carrack_network_received_bytes_total",
        "carrack_network_sent_bytes_total",
        "carrack_catalog_operation_duration_seconds",
        "carrack_storage_operation_duration_seconds",
        "process_resident_memory_bytes",
        "process_open_fds",
        "carrack_storage_free_bytes",
        "carrack_uploads_open",
    ] {
        assert!(kinds.contains_key(known), "{known}");
    }
}

#[tokio::test]
async fn the_metrics_count_what_happened() {
    let server = Server::start();
    store(&server, "/v1/files/default/a", &content(1000, 1)).await;
    super::answers::fetch(&server, "/v1/files/default/a").await;
    let range = server.get("/v1/files/default/a").header("range", "bytes=0-9").send().await.unwrap();
    assert_eq!(range.bytes().await.unwrap().len(), 10);
    let counted = async || samples(&server.get("/metrics").send().await.unwrap().text().await.unwrap());
    // An answer is counted when its body is dropped, which may be after the client has read it.
    eventually("the range is counted", async || {
        counted().await.get("carrack_downloads_total{kind=\"range\",result=\"completed\"}") == Some(&1.0)
    })
    .await;
    let metrics = counted().await;
    for (sample, number) in [
        ("carrack_uploads_total{kind=\"put\",result=\"completed\"}", 1.0),
        ("carrack_upload_bytes_total", 1000.0),
        ("carrack_downloads_total{kind=\"full\",result=\"completed\"}", 1.0),
        ("carrack_download_bytes_total{kind=\"full\"}", 1000.0),
        ("carrack_download_bytes_total{kind=\"range\"}", 10.0),
        ("carrack_uploads_in_progress", 0.0),
    ] {
        assert_eq!(metrics.get(sample), Some(&number), "{sample}");
    }
}

#[tokio::test]
async fn the_log_names_a_failed_request_and_no_secret() {
    let server = Setup::new().set("CARRACK_TELEMETRY__LOG", "debug").start();
    let answer = server.get("/v1/files/default/none").send().await.unwrap();
    let trace = header(&answer, "x-request-id").to_owned();
    refused(answer, 404, "file_not_found").await;
    let wrong = reqwest::Client::builder().no_proxy().build().unwrap();
    let wrong =
        wrong.get(server.url("/v1/buckets")).bearer_auth("another-secret-token").send().await.unwrap();
    refused(wrong, 401, "invalid_token").await;
    until("the line is there", || server.log().contains(&trace)).await;
    let mut found = false;
    for line in server.log().lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
        if line["trace_id"] == trace.as_str() && line["code"] == "file_not_found" {
            assert_eq!(
                (line["status"].as_u64(), line["route"].as_str()),
                (Some(404), Some("/v1/files/{bucket}/{*key}"))
            );
            found = true;
        }
    }
    assert!(found, "{}", server.log());
    assert!(!server.log().contains(TOKEN) && !server.log().contains("another-secret-token"));
}

#[tokio::test]
async fn what_no_route_takes_is_in_the_log_too() {
    let server = Server::start();
    for (method, path, code) in [("GET", "/nowhere", "not_found"), ("PATCH", "/livez", "method_not_allowed")]
    {
        let answer = server.request(method.parse().unwrap(), path).send().await.unwrap();
        let trace = header(&answer, "x-request-id").to_owned();
        until("the line is there", || server.log().contains(&trace)).await;
        let log = server.log();
        let line: Value =
            serde_json::from_str(log.lines().find(|line| line.contains(&trace)).unwrap()).unwrap();
        assert_eq!((line["code"].as_str(), line["method"].as_str()), (Some(code), Some(method)));
    }
}

#[tokio::test]
async fn every_answer_has_a_trace_id_of_its_own() {
    let server = Server::start();
    let mut seen = BTreeSet::new();
    for path in
        ["/livez", "/livez", "/nowhere", "/v1/buckets", "/v1/files/default/none", "/v1/files/default/.."]
    {
        let answer = server.get(path).send().await.unwrap();
        let trace = header(&answer, "x-request-id").to_owned();
        assert!(trace.len() == 32 && trace.bytes().all(|b| b.is_ascii_hexdigit()), "{path}: {trace}");
        assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
        assert!(seen.insert(trace), "{path}");
    }
}
