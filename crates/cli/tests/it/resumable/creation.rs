//! A1 to A10, L1 to L3, F1: how an upload begins.

use super::{Answer, INCONSISTENT, NEWEST, append, ask, create, fetch, head_of, look, standing};
use crate::operations::wait::until;
use crate::operations::wire::Wire;
use crate::server::{Server, Setup, content};

const COMPLETE: &str = "upload-complete: ?1";
const INCOMPLETE: &str = "upload-complete: ?0";

#[test]
fn a1_the_upload_is_named_before_a_byte_of_the_body_is_there() {
    let server = Server::start();
    for method in ["POST", "PUT"] {
        let mut wire = Wire::connect(&server);
        let line = format!("{method} /v1/files/default/a1");
        wire.send(head_of(&server, &line, &[NEWEST, COMPLETE], 5).as_bytes()).unwrap();
        let named = wire.head();
        assert_eq!(named.status, 104);
        assert_eq!(named.header("upload-draft-interop-version"), Some("8"), "V2");
        let url = named.header("location").unwrap();
        assert!(url.starts_with(&server.url("/v1/resumable/")), "{url}");
        assert!(named.header("upload-limit").unwrap().contains("max-age="));
        assert_eq!(named.header("upload-offset"), Some("0"));
        wire.send(b"hello").unwrap();
        let answer = Answer::read(&mut wire, method);
        assert!(matches!(answer.status(), 200 | 201), "{answer:?}");
        assert_eq!(answer.field("upload-complete"), "?1");
        assert_eq!(answer.field("location"), "/v1/files/default/a1", "A3: the target's own answer");
        assert_eq!(answer.json()["size"], 5);
        assert_eq!(standing(&server, url), (5, true));
    }
    assert_eq!(fetch(&server, "a1").body, b"hello");
}

#[test]
fn a2_what_is_not_all_of_it_begins_an_upload() {
    let server = Server::start();
    let fields = [NEWEST, INCOMPLETE, "upload-length: 10"];
    let answer = ask(&server, "POST /v1/files/default/a2", &fields, b"hello");
    assert_eq!((answer.status(), answer.field("upload-complete")), (201, "?0"), "{answer:?}");
    assert_eq!(answer.interims.len(), 1, "{answer:?}");
    assert_eq!(answer.interims[0].header("location"), Some(answer.field("location")), "identical");
    assert!(answer.field("upload-limit").contains("max-size="));
    let url = answer.field("location").to_owned();
    assert_eq!(standing(&server, &url), (5, false));
    assert_eq!(fetch(&server, "a2").status(), 404, "nothing is there yet");
    assert_eq!(append(&server, &url, 5, true, b"world").status(), 201);
    assert_eq!(fetch(&server, "a2").body, b"helloworld");
}

#[test]
fn a3_the_answer_is_that_of_the_target() {
    let server = Server::start();
    let plain = ask(&server, "PUT /v1/files/default/plain", &[], b"hello");
    let resumable = ask(&server, "PUT /v1/files/default/a3", &[NEWEST, COMPLETE], b"hello");
    assert_eq!((plain.status(), resumable.status()), (201, 201));
    assert_eq!(plain.field("etag"), resumable.field("etag"));
    assert_eq!(plain.json()["blake3"], resumable.json()["blake3"]);
    assert_eq!(ask(&server, "PUT /v1/files/default/a3", &[NEWEST, COMPLETE], b"again").status(), 200);
    assert!(
        plain.interims.is_empty() && plain.head.header("upload-complete").is_none(),
        "a plain PUT stays one"
    );
    assert_eq!(ask(&server, "POST /v1/files/default/a3", &[], b"again").status(), 405, "and a plain POST");
}

#[test]
fn a4_lengths_agree_or_are_refused() {
    let server = Server::start();
    let file = "POST /v1/files/default/a4";
    for (complete, length) in [(COMPLETE, 6), (COMPLETE, 4), (INCOMPLETE, 4)] {
        let length = format!("upload-length: {length}");
        let answer = ask(&server, file, &[NEWEST, complete, &length], b"hello");
        answer.refused(400, INCONSISTENT);
        assert!(answer.interims.is_empty());
    }
    assert_eq!(fetch(&server, "a4").status(), 404);
    let answer = ask(&server, file, &[NEWEST, COMPLETE, "upload-length: 5"], b"hello");
    assert_eq!(answer.status(), 201);
    let url = create(&server, "a4", &["upload-length: 7"]);
    assert_eq!(look(&server, &url).field("upload-length"), "7");
}

#[test]
fn a4_a_body_without_a_length_may_have_any() {
    let server = Server::start();
    let mut wire = Wire::connect(&server);
    wire.request("POST /v1/files/default/a4c", &[NEWEST, COMPLETE, "transfer-encoding: chunked"]);
    let url = wire.head().header("location").unwrap().to_owned();
    wire.chunk(b"hello").unwrap();
    assert_eq!(ask(&server, "GET /v1/files/default/a4c", &[], b"").status(), 404);
    wire.chunk(b"").unwrap();
    assert_eq!(Answer::read(&mut wire, "POST").status(), 201);
    assert_eq!(look(&server, &url).field("upload-length"), "5");

    let mut wire = Wire::connect(&server);
    let fields = [NEWEST, COMPLETE, "upload-length: 9", "transfer-encoding: chunked"];
    wire.request("POST /v1/files/default/short", &fields);
    let url = wire.head().header("location").unwrap().to_owned();
    wire.chunk(b"hello").unwrap();
    wire.chunk(b"").unwrap();
    Answer::read(&mut wire, "POST").refused(400, INCONSISTENT);
    assert_eq!(standing(&server, &url), (5, false), "its bytes are kept");
}

#[test]
fn a5_the_client_is_told_to_continue_all_the_same() {
    let server = Server::start();
    for (version, expected) in [(Some(NEWEST), [104, 100].as_slice()), (None, [100].as_slice())] {
        let mut wire = Wire::connect(&server);
        let fields: Vec<&str> = [COMPLETE, "expect: 100-continue"].into_iter().chain(version).collect();
        wire.send(head_of(&server, "POST /v1/files/default/a5", &fields, 5).as_bytes()).unwrap();
        let said: Vec<u16> = expected.iter().map(|_| wire.head().status).collect();
        assert_eq!(said, expected);
        wire.send(b"hello").unwrap();
        assert!(matches!(Answer::read(&mut wire, "POST").status(), 200 | 201));
    }
}

#[test]
fn a6_an_empty_body_is_a_careful_beginning_or_an_empty_file() {
    let server = Server::start();
    let answer = ask(&server, "POST /v1/files/default/careful", &[NEWEST, INCOMPLETE], b"");
    assert_eq!((answer.status(), answer.interims.len()), (201, 1), "{answer:?}");
    let url = answer.field("location");
    assert_eq!(standing(&server, url), (0, false));
    assert_eq!(append(&server, url, 0, true, b"all of it").status(), 201);
    assert_eq!(fetch(&server, "careful").body, b"all of it");
    let answer = ask(&server, "POST /v1/files/default/empty", &[NEWEST, COMPLETE], b"");
    assert_eq!((answer.status(), answer.field("upload-complete")), (201, "?1"), "{answer:?}");
    assert_eq!(fetch(&server, "empty").body, b"");
}

#[test]
fn a7_what_came_before_a_cut_is_kept() {
    let server = Server::start();
    let whole = content(300_000, 7);
    for sent in [1, 1000, 299_999] {
        let mut wire = Wire::connect(&server);
        wire.send(head_of(&server, "PUT /v1/files/default/a7", &[NEWEST, COMPLETE], whole.len()).as_bytes())
            .unwrap();
        wire.send(&whole[..sent]).unwrap();
        let url = wire.head().header("location").unwrap().to_owned();
        wire.finish_sending();
        until("the bytes that were sent are kept", || standing(&server, &url) == (sent, false));
        assert_eq!(fetch(&server, "a7").status(), 404, "not complete");
        let answer = append(&server, &url, sent, true, &whole[sent..]);
        assert_eq!((answer.status(), answer.field("upload-complete")), (201, "?1"), "{answer:?}");
        assert!(fetch(&server, "a7").body == whole);
        assert_eq!(ask(&server, "DELETE /v1/files/default/a7", &[], b"").status(), 204);
    }
}

#[test]
fn a8_what_describes_the_file_is_kept() {
    let server = Server::start();
    let described = ["content-type: text/x-test", "carrack-meta-colour: blue"];
    let url = create(&server, "a8", &described);
    assert_eq!(append(&server, &url, 0, true, b"hello").status(), 201);
    let file = ask(&server, "GET /v1/files/default/a8?meta", &[], b"").json();
    assert_eq!((&file["content_type"], &file["metadata"]["colour"]), (&"text/x-test".into(), &"blue".into()));
    let encoded = [NEWEST, INCOMPLETE, "content-encoding: gzip"];
    let answer = ask(&server, "POST /v1/files/default/a8", &encoded, b"");
    assert_eq!(answer.status(), 415, "as of a plain PUT");
}

#[test]
fn a9_what_is_too_large_is_refused_before_its_body() {
    let server = Setup::new().set("CARRACK_UPLOADS__MAX_SIZE", "1000").start();
    for fields in [
        vec![NEWEST, COMPLETE, "expect: 100-continue"],
        vec![NEWEST, INCOMPLETE, "upload-length: 1001", "expect: 100-continue"],
    ] {
        let mut wire = Wire::connect(&server);
        wire.send(head_of(&server, "POST /v1/files/default/a9", &fields, 1001).as_bytes()).unwrap();
        let answer = Answer::read(&mut wire, "POST");
        assert_eq!(answer.status(), 413, "{answer:?}");
        assert!(answer.interims.is_empty());
        assert!(answer.field("upload-limit").contains("max-size=1000"), "{answer:?}");
        assert_eq!(answer.field("upload-complete"), "?1", "there is nothing to go on with");
    }
    let mut wire = Wire::connect(&server);
    wire.request("POST /v1/files/default/a9", &[NEWEST, COMPLETE, "transfer-encoding: chunked"]);
    let url = wire.head().header("location").unwrap().to_owned();
    wire.chunk(&[7; 1001]).unwrap();
    assert_eq!(Answer::read(&mut wire, "POST").status(), 413);
    assert_eq!(look(&server, &url).status(), 404);
}

#[test]
fn a9_a_quota_is_that_of_a_plain_put() {
    let server = Server::start();
    let bucket = ask(&server, "PUT /v1/buckets/tight", &[], br#"{"quota_bytes": 10}"#);
    assert_eq!(bucket.status(), 201);
    let answer = ask(&server, "POST /v1/files/tight/k", &[NEWEST, INCOMPLETE, "upload-length: 11"], b"");
    assert_eq!((answer.status(), &answer.json()["code"]), (413, &"quota_exceeded".into()));
}

#[test]
fn a10_uploads_have_unguessable_names_and_need_credentials() {
    let server = Server::start();
    let (one, two) = (create(&server, "a10", &[]), create(&server, "a10", &[]));
    let name = |url: &str| url.rsplit('/').next().unwrap().to_owned();
    assert_ne!(name(&one), name(&two));
    assert_eq!(name(&one).len(), 32, "128 bits");
    let path = one.replace(&server.base, "");
    let mut wire = Wire::connect(&server);
    wire.send(format!("HEAD {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).unwrap();
    assert_eq!(wire.head().status, 401);
}

#[test]
fn conditions_hold_at_the_beginning_and_at_the_end() {
    let server = Server::start();
    let tag = ask(&server, "PUT /v1/files/default/c", &[], b"old").field("etag").to_owned();
    let fields = |condition: &'static str| [NEWEST, COMPLETE, condition];
    let answer = ask(&server, "POST /v1/files/default/c", &fields("if-none-match: *"), b"new");
    assert_eq!((answer.status(), answer.field("upload-complete")), (412, "?1"), "{answer:?}");
    assert!(answer.interims.is_empty());
    let matching = format!("if-match: {tag}");
    let url = create(&server, "c", &[&matching]);
    assert_eq!(ask(&server, "PUT /v1/files/default/c", &[], b"newer").status(), 200);
    let answer = append(&server, &url, 0, true, b"new");
    assert_eq!((answer.status(), answer.field("upload-complete")), (412, "?1"), "{answer:?}");
    assert_eq!(look(&server, &url).status(), 404, "it cannot be continued");
    assert_eq!(fetch(&server, "c").body, b"newer");

    let url = create(&server, "d", &["if-none-match: *"]);
    assert_eq!(append(&server, &url, 0, true, b"first").status(), 201);
    let url = create(&server, "e", &["if-none-match: *"]);
    assert_eq!(ask(&server, "PUT /v1/files/default/e", &[], b"faster").status(), 201);
    assert_eq!(append(&server, &url, 0, true, b"slower").status(), 412);
    assert_eq!(fetch(&server, "e").body, b"faster");
}

#[test]
fn l1_limits_are_told_to_whoever_asks() {
    let server =
        Setup::new().set("CARRACK_UPLOADS__MAX_SIZE", "1000").set("CARRACK_UPLOADS__TTL", "1h").start();
    let url = create(&server, "l", &[]);
    for target in ["/v1/files/default/any", &url] {
        let answer = ask(&server, &format!("OPTIONS {target}"), &[], b"");
        assert_eq!(answer.status(), 204);
        assert_eq!(answer.field("upload-limit"), "max-size=1000, min-size=0, max-age=3600");
        assert_eq!(answer.field("accept-patch"), "application/partial-upload", "L2");
    }
    let limit = look(&server, &url).field("upload-limit").to_owned();
    let age: u64 = limit.rsplit_once("max-age=").unwrap().1.parse().unwrap();
    assert!((3500..=3600).contains(&age), "{limit}");
}

#[test]
fn f1_a_field_of_another_type_is_not_there() {
    let server = Server::start();
    for bad in
        ["upload-complete: true", "upload-complete: 1", "upload-complete: ?2", "upload-complete: \"?1\""]
    {
        let answer = ask(&server, "PUT /v1/files/default/f1", &[NEWEST, bad], b"hello");
        assert!(matches!(answer.status(), 200 | 201), "{answer:?}");
        assert!(
            answer.interims.is_empty() && answer.head.header("upload-complete").is_none(),
            "a plain PUT: {bad}"
        );
    }
    let answer = ask(
        &server,
        "PUT /v1/files/default/f1",
        &[NEWEST, "upload-complete: ?1; a=b", "upload-length: -5"],
        b"hello",
    );
    assert_eq!((answer.status(), answer.field("upload-complete")), (200, "?1"), "{answer:?}");
}
