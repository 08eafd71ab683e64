//! J1 to J3: digests of a request and of the whole.

use super::{NEWEST, append, append_with, ask, create, fetch, head_of, look, standing};
use crate::operations::wait::until;
use crate::operations::wire::Wire;
use crate::server::{Server, content};
use crate::tus::base64;
use sha2::{Digest, Sha256};

fn digest(name: &str, bytes: &[u8]) -> String {
    format!("{name}: sha-256=:{}:", base64(&Sha256::digest(bytes)))
}

#[test]
fn j1_bytes_without_their_digest_are_not_appended() {
    let server = Server::start();
    let url = create(&server, "j1", &[]);
    let (right, wrong) = (digest("content-digest", b"hello"), digest("content-digest", b"other"));
    for last in [false, true] {
        let before = standing(&server, &url);
        let at = before.0;
        if last && at == 0 {
            continue;
        }
        let answer = append_with(&server, &url, at, last, &[&wrong], b"hello");
        assert_eq!((answer.status(), answer.field("upload-complete")), (422, "?0"), "{answer:?}");
        assert_eq!(standing(&server, &url), before);
        let answer = append_with(&server, &url, at, last, &[&right], b"hello");
        assert_eq!(answer.status(), if last { 201 } else { 204 }, "{answer:?}");
    }
    assert_eq!(standing(&server, &url), (10, true));
    let fields = [NEWEST, "upload-complete: ?0", &wrong];
    assert_eq!(ask(&server, "POST /v1/files/default/j1", &fields, b"hello").status(), 422);
    let two = format!("{right}, sha-512=:{}:", base64(&[0; 64]));
    let fields = [NEWEST, "upload-complete: ?0", &two];
    assert_eq!(ask(&server, "POST /v1/files/default/j1", &fields, b"hello").status(), 422, "each counts");
}

#[test]
fn j1_a_digest_of_all_bytes_does_not_forbid_to_resume() {
    let server = Server::start();
    let whole = content(300_000, 3);
    for (name, damaged) in [("kept", false), ("refused", true)] {
        let mut wire = Wire::connect(&server);
        let right = digest("content-digest", &whole);
        let fields = [NEWEST, "upload-complete: ?1", &right];
        let line = format!("PUT /v1/files/default/{name}");
        wire.send(head_of(&server, &line, &fields, whole.len()).as_bytes()).unwrap();
        wire.send(&whole[..100_000]).unwrap();
        let url = wire.head().header("location").unwrap().to_owned();
        wire.finish_sending();
        until("the bytes that were sent are kept", || standing(&server, &url).0 == 100_000);
        let mut rest = whole[100_000..].to_vec();
        rest[7] ^= u8::from(damaged);
        let answer = append(&server, &url, 100_000, true, &rest);
        let expected = if damaged { 422 } else { 201 };
        assert_eq!((answer.status(), answer.field("upload-complete")), (expected, "?1"), "{answer:?}");
        assert_eq!(fetch(&server, name).status(), if damaged { 404 } else { 200 });
    }
}

#[test]
fn j2_a_whole_without_its_digest_has_failed() {
    let server = Server::start();
    let url = create(&server, "j2", &[&digest("repr-digest", b"helloworld")]);
    assert_eq!(append(&server, &url, 0, false, b"hello").status(), 204);
    assert_eq!(append(&server, &url, 5, true, b"world").status(), 201);
    for wrong_at_the_end in [false, true] {
        let said = if wrong_at_the_end { "any" } else { "helloother" };
        let (first, last) = (digest("repr-digest", said.as_bytes()), digest("repr-digest", b"another"));
        let url =
            if wrong_at_the_end { create(&server, "j2", &[]) } else { create(&server, "j2", &[&first]) };
        assert_eq!(append(&server, &url, 0, false, b"hello").status(), 204);
        let more: &[&str] = if wrong_at_the_end { &[&last] } else { &[] };
        let answer = append_with(&server, &url, 5, true, more, b"world");
        assert_eq!((answer.status(), answer.field("upload-complete")), (422, "?1"), "{answer:?}");
        assert_eq!(answer.json()["code"], "digest_mismatch");
        assert_eq!(look(&server, &url).status(), 404, "there is nothing to go on with");
    }
    assert_eq!(fetch(&server, "j2").body, b"helloworld", "what was there before stays");
}

#[test]
fn j3_the_digest_of_the_whole_is_told_to_whoever_wants_it() {
    let server = Server::start();
    let want = "want-repr-digest: sha-256=5";
    let right = digest("repr-digest", b"helloworld");
    let url = create(&server, "j3", &[want]);
    assert_eq!(append(&server, &url, 0, false, b"hello").status(), 204);
    let told = digest("repr-digest", b"helloworld").to_lowercase();
    for (offset, bytes) in [(5, b"world".as_slice()), (10, b"")] {
        let answer = append(&server, &url, offset, true, bytes);
        assert_eq!(format!("repr-digest: {}", answer.field("repr-digest")), told);
    }
    let answer =
        ask(&server, "PUT /v1/files/default/j3", &[NEWEST, "upload-complete: ?1", want], b"helloworld");
    assert_eq!(format!("repr-digest: {}", answer.field("repr-digest")), told, "{right}");
    let answer = ask(&server, "PUT /v1/files/default/j3", &["upload-complete: ?1", want], b"helloworld");
    assert_eq!(
        format!("repr-digest: {}", answer.field("repr-digest")),
        told,
        "without an upload of its own too"
    );
    let url = create(&server, "j3", &[]);
    assert!(append(&server, &url, 0, true, b"helloworld").head.header("repr-digest").is_none());
}
