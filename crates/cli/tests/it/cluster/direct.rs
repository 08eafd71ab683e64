//! Bytes that go between clients and S3 without passing the server, which says where to, and looks at what came of it.

use super::s3::{begin_parts, complete, fetch, garage, objects, ok, operations, part, setup, upload_path};
use crate::contract::answers::{base64, json, refused};
use crate::server::{Server, Setup, content, tool};
use carrack_engines::{Garage, Postgres};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json as value};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

const MIB: usize = 1 << 20;
const PART: usize = 8 * MIB;

fn direct(garage: &Garage) -> Setup {
    setup(garage).set("CARRACK_STORAGE__S3__DIRECT_PARTS", "true")
}

fn piece(whole: &[u8], number: usize) -> &[u8] {
    &whole[(number - 1) * PART..whole.len().min(number * PART)]
}

fn crc32(bytes: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(bytes))
}

/// The URLs of these parts, as one gets them who names their CRC-32.
async fn urls(
    server: &Server,
    upload: &Value,
    whole: &[u8],
    numbers: &[usize],
    expires_in: u64,
) -> Vec<Value> {
    let names: Vec<String> = numbers.iter().map(usize::to_string).collect();
    let crc32s: serde_json::Map<_, _> =
        numbers.iter().map(|number| (number.to_string(), value!(crc32(piece(whole, *number))))).collect();
    let wish = value!({"parts": names.join(","), "crc32": crc32s, "expires_in": expires_in});
    let path = format!("{}/part-urls", upload_path(upload));
    let signed = json(server.post(&path).json(&wish).send().await.unwrap(), 200).await;
    signed["urls"].as_array().unwrap().clone()
}

/// Sends bytes as anybody may who has the URL.
async fn send(signed: &Value, bytes: &[u8]) -> Response {
    request(signed["url"].as_str().unwrap(), signed, bytes).send().await.unwrap()
}

fn request(url: &str, signed: &Value, bytes: &[u8]) -> RequestBuilder {
    let client = Client::builder().no_proxy().build().unwrap();
    let headers = signed["headers"].as_object().unwrap().iter();
    let request = client.put(url).body(bytes.to_vec());
    headers.fold(request, |request, (name, text)| request.header(name, text.as_str().unwrap()))
}

/// Whether S3 refuses it: with an answer, or, where it does not wait for the body, by closing the connection.
async fn is_refused(url: &str, signed: &Value, bytes: &[u8]) -> bool {
    request(url, signed, bytes).send().await.map_or(true, |answer| answer.status().is_client_error())
}

async fn received(server: &Server, upload: &Value) -> (String, u64) {
    let status = json(server.get(&upload_path(upload)).send().await.unwrap(), 200).await;
    (status["received"].as_str().unwrap().to_owned(), status["received_bytes"].as_u64().unwrap())
}

/// Bytes of bodies that have come to the server.
async fn upload_bytes(server: &Server) -> f64 {
    let text = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("carrack_upload_bytes_total "));
    line.map_or(0.0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn parts_go_to_s3_and_become_a_file_like_any_other() {
    let (garage, _folder) = garage();
    let mut server = direct(&garage).start();
    let whole = content(2 * PART + 5, 1);
    let upload = begin_parts(&server, "f", whole.len(), PART).await;
    let signed = urls(&server, &upload, &whole, &[1, 2, 3], 604_800).await;
    let now = crate::access::jwt::now();
    for (signed, number) in signed.iter().zip(1..) {
        assert!(signed["url"].as_str().unwrap().starts_with(&garage.endpoint(0)), "{signed}");
        assert_eq!((&signed["direct"], &signed["part"]), (&value!(true), &value!(number)));
        assert_eq!(signed["size"], piece(&whole, number).len());
        assert!(signed["headers"]["x-amz-checksum-crc32"].is_string(), "{signed}");
        let ends = signed["expires_at"].as_str().unwrap();
        let ends = seconds_of(ends);
        assert!(ends > now && ends <= now + 901, "a quarter of an hour at most: {ends} {now}");
    }
    assert_eq!(received(&server, &upload).await, (String::new(), 0));
    let missing = refused(complete(&server, &upload, &value!({})).await, 409, "parts_missing").await;
    assert_eq!(missing["missing"], "1-3", "{missing}");
    for (number, text, bytes) in [(3, "3", 5), (1, "1,3", PART + 5), (2, "1-3", 2 * PART + 5)] {
        assert_eq!(send(&signed[number - 1], piece(&whole, number)).await.status(), 200);
        assert_eq!(received(&server, &upload).await, (text.to_owned(), bytes as u64), "what S3 has");
    }
    let file = json(complete(&server, &upload, &value!({})).await, 201).await;
    assert_eq!((&file["crc32"], &file["size"]), (&value!(crc32(&whole)), &value!(whole.len())));
    assert!(file["blake3"].is_null(), "nobody here has read it: {file}");
    assert_eq!(upload_bytes(&server).await, 0.0, "no byte of it came to the server");
    assert!(!operations(&server).await.contains_key("write_part"), "nor went through it");
    let again = json(complete(&server, &upload, &value!({})).await, 201).await;
    assert_eq!(again["etag"], file["etag"]);
    assert!(
        is_refused(signed[0]["url"].as_str().unwrap(), &signed[0], piece(&whole, 1)).await,
        "it ends with the upload"
    );

    assert!(fetch(&server, "f").await == whole);
    let meta = json(server.get("/v1/files/default/f?meta").send().await.unwrap(), 200).await;
    assert_eq!(meta["blake3"], blake3::hash(&whole).to_hex().as_str(), "computed when it is asked for");
    assert_eq!(meta["etag"], file["etag"]);
    let zip = server.get("/v1/zip/default?prefix=").send().await.unwrap().bytes().await.unwrap();
    let path = server.folder().join("x.zip");
    std::fs::write(&path, &zip).unwrap();
    assert!(tool("unzip", "unzip").arg("-tqq").arg(&path).status().unwrap().success(), "its CRC-32 is right");
    let audit = server.get("/v1/audit?action=upload&limit=1000").send().await.unwrap().text().await.unwrap();
    assert_eq!(audit.matches("sent to the storage directly").count(), 3, "{audit}");
    assert!(audit.contains("upload.direct") && audit.contains("parts 1-3, good until "), "{audit}");
    assert!(!audit.contains("X-Amz-Signature") && !server.log().contains("X-Amz-Signature"));
    assert_eq!(objects(&garage), 1);
    ok(server.delete("/v1/files/default/f").send().await.unwrap()).await;
    assert_eq!(objects(&garage), 0, "deleted like any other");
    server.stop();
}

/// Seconds since 1970.
fn seconds_of(text: &str) -> u64 {
    let seconds = tool("date", "coreutils").args(["-u", "-d", text, "+%s"]).output().unwrap().stdout;
    String::from_utf8(seconds).unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn what_is_signed_cannot_be_altered() {
    let (garage, _folder) = garage();
    let server = direct(&garage).start();
    let whole = content(3 * PART, 2);
    let upload = begin_parts(&server, "f", whole.len(), PART).await;
    let other = begin_parts(&server, "g", whole.len(), PART).await;
    let signed = &urls(&server, &upload, &whole, &[1], 900).await[0];
    let foreign = &urls(&server, &other, &whole, &[1], 900).await[0];
    let url = signed["url"].as_str().unwrap();
    let parameter = |url: &str, name: &str| {
        let query = url.split_once('?').unwrap().1.to_owned();
        query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}="))).unwrap().to_owned()
    };
    let id = |url: &str| parameter(url, "uploadId");
    let (bytes, longer) = (piece(&whole, 1), &whole[..PART + 1]);
    for (altered, body) in [
        (url.replace("partNumber=1", "partNumber=2"), bytes),
        (url.replace(&format!("partNumber={}", parameter(url, "partNumber")), "partNumber=9999"), bytes),
        (url.replace(&id(url), &id(foreign["url"].as_str().unwrap())), bytes),
        (url.replace("X-Amz-Expires=900", "X-Amz-Expires=9000"), bytes),
        (url.to_owned(), longer),
        (url.to_owned(), &bytes[1..]),
        (url.to_owned(), piece(&whole, 2)),
    ] {
        assert!(is_refused(&altered, signed, body).await, "{altered}");
    }
    let mut unsaid = signed.clone();
    unsaid["headers"] = value!({});
    assert!(is_refused(url, &unsaid, bytes).await, "the checksum has to be said");
    let client = Client::builder().no_proxy().build().unwrap();
    for method in [Method::GET, Method::DELETE, Method::POST] {
        let answer = client.request(method.clone(), url).send().await.unwrap();
        assert!(answer.status().is_client_error(), "{method}: {}", answer.status());
    }
    let short = &urls(&server, &upload, &whole, &[1], 1).await[0];
    tokio::time::sleep(Duration::from_millis(3100)).await;
    assert!(is_refused(short["url"].as_str().unwrap(), short, bytes).await, "it has ended");
    assert_eq!(received(&server, &upload).await, (String::new(), 0), "nothing of that came in");
    assert_eq!(send(signed, bytes).await.status(), 200);

    let path = upload_path(&upload);
    for (crc32s, code) in [
        (value!({"1": "xyz"}), "invalid_digest"),
        (value!({"1": "+1234567"}), "invalid_digest"),
        (value!({"3": "00000000"}), "invalid_request"),
    ] {
        let wish = value!({"parts": "1-2", "crc32": crc32s});
        refused(server.post(&format!("{path}/part-urls")).json(&wish).send().await.unwrap(), 400, code).await;
    }
    // One part by itself; without its CRC-32 the bytes pass the server.
    let one = format!("{path}/parts/2/url?crc32={}", crc32(piece(&whole, 2)));
    let one = json(server.get(&one).send().await.unwrap(), 200).await;
    assert_eq!((&one["direct"], send(&one, piece(&whole, 2)).await.status().as_u16()), (&value!(true), 200));
    let own = json(server.get(&format!("{path}/parts/3/url")).send().await.unwrap(), 200).await;
    assert!(own["url"].as_str().unwrap().starts_with(&server.base), "{own}");
    assert_eq!((&own["direct"], &own["headers"]), (&value!(false), &value!({})));
    assert_eq!(send(&own, piece(&whole, 3)).await.status(), 200);
    json(complete(&server, &upload, &value!({})).await, 201).await;
    assert!(fetch(&server, "f").await == whole);
}

#[tokio::test]
async fn where_bytes_have_to_pass_the_server_they_do() {
    let (garage, _folder) = garage();
    let whole = content(12 * MIB, 3);
    let cases = [
        (setup(&garage), PART),
        (direct(&garage).set("CARRACK_LIMITS__ROLES__ADMIN__BANDWIDTH_PER_USER", "1GB"), PART),
        // Longer than a part may be here: the upload is told another size, which S3 takes as it is.
        (direct(&garage).set("CARRACK_STORAGE__S3__MEMORY", "20MiB"), 5 * MIB + 1),
    ];
    for (round, (setup, part_size)) in cases.into_iter().enumerate() {
        let server = setup.set("CARRACK_STORAGE__S3__PREFIX", &format!("{round}/")).start();
        let upload = begin_parts(&server, "f", whole.len(), part_size).await;
        let signed = &urls(&server, &upload, &whole, &[1], 900).await[0];
        let is_own = signed["url"].as_str().unwrap().starts_with(&server.base);
        assert_eq!(is_own, part_size == PART, "{signed} {upload}");
        assert_eq!(signed["direct"], !is_own);
    }
}

/// Puts a part into S3 that nobody was given a URL for, as somebody can who has the keys.
fn smuggle(garage: &Garage, signed: &Value, bytes: &[u8]) {
    let url = signed["url"].as_str().unwrap();
    let (path, query) = url.split_once('?').unwrap();
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| pair.starts_with("partNumber=") || pair.starts_with("uploadId="))
        .collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let checksum = base64(&crc32fast::hash(bytes).to_be_bytes());
    let output = tool("curl", "curl")
        .args(["--silent", "--show-error", "--fail-with-body", "--noproxy", "*", "--request", "PUT"])
        .args(["--aws-sigv4", &format!("aws:amz:{}:s3", garage.region())])
        .args(["--user", &format!("{}:{}", garage.access_key_id(), garage.secret_access_key())])
        .args(["--header", &format!("x-amz-checksum-crc32: {checksum}")])
        .args(["--header", &format!("x-amz-content-sha256: {}", sha256(bytes))])
        .arg("--data-binary")
        .arg(format!("@{}", file.path().display()))
        .arg(format!("{path}?{}", kept.join("&")))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn what_has_come_wrong_is_found_and_can_be_mended() {
    let (garage, _folder) = garage();
    let server = direct(&garage).start();
    let whole = content(2 * PART + 100, 4);
    let upload = begin_parts(&server, "f", whole.len(), PART).await;
    let signed = urls(&server, &upload, &whole, &[1, 2, 3], 900).await;
    for number in [1, 3] {
        assert_eq!(send(&signed[number - 1], piece(&whole, number)).await.status(), 200);
    }
    smuggle(&garage, &signed[1], &whole[..PART - 1]);
    assert_eq!(received(&server, &upload).await, ("1,3".to_owned(), PART as u64 + 100));
    let problem = refused(complete(&server, &upload, &value!({})).await, 409, "parts_missing").await;
    assert_eq!(problem["missing"], "2");
    assert!(problem["detail"].as_str().unwrap().contains("2 came with another length"), "{problem}");
    assert_eq!(server.get("/v1/files/default/f").send().await.unwrap().status(), 404);
    // Of the right length, but other bytes: the whole's digest says so.
    let other = content(PART, 99);
    smuggle(&garage, &signed[1], &other);
    let wish = value!({"digest": {"crc32": crc32(&whole)}});
    refused(complete(&server, &upload, &wish).await, 422, "digest_mismatch").await;
    assert_eq!(server.get("/v1/files/default/f").send().await.unwrap().status(), 404, "nothing is visible");
    assert_eq!(send(&signed[1], piece(&whole, 2)).await.status(), 200, "sent again it is right");
    let blake3 = blake3::hash(&whole).to_hex().to_string();
    let wish = value!({"digest": {"crc32": crc32(&whole), "blake3": blake3, "sha-256": sha256(&whole)}});
    let file = json(complete(&server, &upload, &wish).await, 201).await;
    assert_eq!(file["sha256"], sha256(&whole), "{file}");
    assert_eq!(file["blake3"], blake3, "who announced it had it computed");
    assert!(fetch(&server, "f").await == whole);

    // Digests that S3 does not know are computed from what it has, before anything is visible.
    for digest in ["blake3", "sha-256"] {
        let upload = begin_parts(&server, "g", whole.len(), PART).await;
        let signed = urls(&server, &upload, &whole, &[1, 2, 3], 900).await;
        for number in [1, 2, 3] {
            assert_eq!(send(&signed[number - 1], piece(&whole, number)).await.status(), 200);
        }
        let wish = value!({"digest": {digest: "00".repeat(32)}});
        refused(complete(&server, &upload, &wish).await, 422, "digest_mismatch").await;
        assert_eq!(server.get("/v1/files/default/g").send().await.unwrap().status(), 404);
        assert_eq!(received(&server, &upload).await, ("1-3".to_owned(), whole.len() as u64));
        ok(server.delete(&upload_path(&upload)).send().await.unwrap()).await;
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn an_upload_that_is_given_up_takes_its_parts_with_it() {
    let (garage, _folder) = garage();
    let server = direct(&garage).start();
    for size in [2 * PART, 1000] {
        let whole = content(size, 5);
        let upload = begin_parts(&server, "f", size, PART).await;
        let signed = urls(&server, &upload, &whole, &[1], 900).await;
        assert_eq!(send(&signed[0], piece(&whole, 1)).await.status(), 200);
        ok(server.delete(&upload_path(&upload)).send().await.unwrap()).await;
        assert!(is_refused(signed[0]["url"].as_str().unwrap(), &signed[0], piece(&whole, 1)).await);
        assert_eq!(objects(&garage), 0);
    }
    // A single part may be shorter than S3's least.
    let upload = begin_parts(&server, "small", 1000, PART).await;
    let whole = content(1000, 6);
    let signed = urls(&server, &upload, &whole, &[1], 900).await;
    assert_eq!(signed[0]["direct"], true);
    assert_eq!(send(&signed[0], &whole).await.status(), 200);
    json(complete(&server, &upload, &value!({})).await, 201).await;
    assert!(fetch(&server, "small").await == whole);
}

#[tokio::test]
async fn two_nodes_a_kill_and_parts_by_every_way_make_one_file() {
    let (garage, _folder) = garage();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("postgres")).unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let postgres = Postgres::start(&folder.path().join("postgres")).unwrap();
    let url = postgres.database("carrack").unwrap();
    let node = || {
        let keys = format!("[{{kid=\"k\",secret=\"{}\"}}]", "5e".repeat(32));
        direct(&garage).set("CARRACK_CATALOG__URL", &url).set("CARRACK_AUTH__KEYS", &keys).start()
    };
    let (mut one, two) = (node(), node());
    let whole = content(4 * PART + 9, 7);
    let upload = begin_parts(&one, "f", whole.len(), PART).await;
    let by_one = urls(&one, &upload, &whole, &[1, 2, 3], 900).await;
    let by_two = urls(&two, &upload, &whole, &[3, 5], 900).await;
    assert_eq!(send(&by_one[0], piece(&whole, 1)).await.status(), 200);
    assert_eq!(send(&by_two[0], piece(&whole, 3)).await.status(), 200);
    ok(part(&one, &upload, &whole, 4).await).await;
    // Directly and by a node: what a node has acknowledged is not touched by what comes directly, however late.
    ok(part(&two, &upload, &whole, 3).await).await;
    smuggle(&garage, &by_one[2], &content(PART, 70));
    assert_eq!(received(&two, &upload).await.0, "1,3-4");
    one.kill();
    assert_eq!(send(&by_one[1], piece(&whole, 2)).await.status(), 200, "the node is not needed for its URLs");
    assert_eq!(received(&two, &upload).await.0, "1-4");
    assert_eq!(send(&by_two[1], piece(&whole, 5)).await.status(), 200);
    let file = json(complete(&two, &upload, &value!({})).await, 201).await;
    assert_eq!(file["crc32"], crc32(&whole));
    assert!(fetch(&two, "f").await == whole);
    let one = node();
    assert!(fetch(&one, "f").await == whole);
    assert_eq!(objects(&garage), 1);
}

#[tokio::test]
async fn a_file_is_fetched_from_s3_by_who_wishes_so() {
    let (garage, _folder) = garage();
    let server = setup(&garage).set("CARRACK_STORAGE__S3__DIRECT_DOWNLOADS", "true").start();
    let whole = content(PART + 3, 8);
    ok(server.put("/v1/files/default/f").body(whole.clone()).send().await.unwrap()).await;
    ok(server.put("/v1/files/default/small").body("in the catalog").send().await.unwrap()).await;
    let sign = async |wish: Value| server.post("/v1/sign").json(&wish).send().await.unwrap();
    let wish = value!({"method": "GET", "path": "/v1/files/default/f", "direct": true, "filename": "ü x.bin", "expires_in": 9000});
    let signed = json(sign(wish).await, 200).await;
    let url = signed["url"].as_str().unwrap();
    assert!(url.starts_with(&garage.endpoint(0)) && url.contains("X-Amz-Expires=900&"), "{url}");
    assert_eq!(signed["direct"], true);
    let curl = |arguments: &[&str], url: &str| {
        let output = tool("curl", "curl")
            .args(["--silent", "--noproxy", "*", "--include"])
            .args(arguments)
            .arg(url)
            .output()
            .unwrap();
        let head = output.stdout.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        (String::from_utf8_lossy(&output.stdout[..head]).to_lowercase(), output.stdout[head + 4..].to_vec())
    };
    let (head, bytes) = curl(&[], url);
    assert!(head.contains(" 200 ") && bytes == whole, "{head}");
    assert!(
        head.contains(
            "content-disposition: attachment; filename=\"_ x.bin\"; filename*=utf-8''%c3%bc%20x.bin"
        ),
        "{head}"
    );
    let (head, bytes) = curl(&["--range", "5-8388609"], url);
    assert!(head.contains(" 206 ") && bytes == whole[5..=8_388_609], "{head}");
    let (head, _) = curl(&[], &url.replace("x.bin", "y.bin"));
    assert!(head.contains(" 403 ") || head.contains(" 400 "), "{head}");
    // What the server has to see to passes it.
    let small =
        json(sign(value!({"method": "GET", "path": "/v1/files/default/small", "direct": true})).await, 200)
            .await;
    assert!(small["url"].as_str().unwrap().starts_with(&server.base) && small["direct"] == false);
    let plain = json(sign(value!({"method": "GET", "path": "/v1/files/default/f"})).await, 200).await;
    assert!(plain["url"].as_str().unwrap().starts_with(&server.base) && plain["direct"] == false);
    for more in [value!({"method": "PUT"}), value!({"ip": "10.0.0.0/8"}), value!({"rate_limit": 5000})] {
        let mut wish = value!({"method": "GET", "path": "/v1/files/default/f", "direct": true});
        wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        refused(sign(wish).await, 400, "invalid_request").await;
    }
    // It is on the disk a moment later.
    tokio::time::sleep(Duration::from_millis(800)).await;
    let audit = server.get("/v1/audit?action=file.direct").send().await.unwrap().text().await.unwrap();
    assert!(audit.contains("good until") && audit.contains("\"key\":\"f\""), "{audit}");
    let off = setup(&garage).set("CARRACK_STORAGE__S3__PREFIX", "off/").start();
    ok(off.put("/v1/files/default/f").body(whole.clone()).send().await.unwrap()).await;
    let wish = value!({"method": "GET", "path": "/v1/files/default/f", "direct": true});
    let signed = json(off.post("/v1/sign").json(&wish).send().await.unwrap(), 200).await;
    assert_eq!(signed["direct"], false, "only where the operator allows it");
}
