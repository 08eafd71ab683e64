//! Q1 to Q10, Z1, Y1, Y2: how an upload goes on and ends.

use super::{
    Answer, COMPLETED, INCONSISTENT, MISMATCH, NEWEST, PARTIAL, append, append_with, ask, create, fetch,
    head_of, look, standing,
};
use crate::operations::wait::until;
use crate::operations::wire::Wire;
use crate::server::{Server, Setup, content};
use std::time::Instant;

#[test]
fn q1_bytes_at_an_offset_have_a_media_type() {
    let server = Server::start();
    let url = create(&server, "q1", &[]);
    for kind in ["application/octet-stream", "application/offset+octet-stream"] {
        let kind = format!("content-type: {kind}");
        let fields = [NEWEST, "upload-offset: 0", "upload-complete: ?0", &kind];
        assert_eq!(ask(&server, &format!("PATCH {url}"), &fields, b"hello").status(), 415);
    }
    assert_eq!(standing(&server, &url), (0, false));
}

#[test]
fn q2_offset_and_completeness_are_said() {
    let server = Server::start();
    let url = create(&server, "q2", &[]);
    let line = format!("PATCH {url}");
    for fields in [
        vec!["upload-offset: 0"],
        vec!["upload-complete: ?1"],
        vec!["upload-offset: 0", "upload-complete: yes"],
        vec!["upload-offset: -1", "upload-complete: ?1"],
        vec!["upload-offset: 0", "upload-offset: 0", "upload-complete: ?1"],
    ] {
        let answer = ask(&server, &line, &[&[NEWEST, PARTIAL], &fields[..]].concat(), b"hello");
        assert_eq!((answer.status(), answer.field("upload-complete")), (400, "?0"), "{answer:?}");
    }
    assert_eq!(standing(&server, &url), (0, false));
}

#[test]
fn q3_the_right_offset_is_told() {
    let server = Server::start();
    let url = create(&server, "q3", &["upload-length: 10"]);
    assert_eq!(append(&server, &url, 0, false, b"hello").status(), 204);
    for (given, last) in [(0, false), (4, false), (6, false), (10, true), (4, true), (0, true)] {
        let answer = append(&server, &url, given, last, b"world");
        let problem = answer.refused(409, MISMATCH);
        assert_eq!((answer.field("upload-offset"), answer.field("upload-complete")), ("5", "?0"));
        assert_eq!((&problem["expected-offset"], &problem["provided-offset"]), (&5.into(), &given.into()));
        assert_eq!(problem["code"], "offset_mismatch");
    }
    assert_eq!(append(&server, &url, 5, true, b"world").status(), 201);
    assert_eq!(fetch(&server, "q3").body, b"helloworld");
}

#[test]
fn q4_to_q6_the_last_word_is_the_clients() {
    let server = Server::start();
    let url = create(&server, "q5", &["upload-length: 10"]);
    let answer = append(&server, &url, 0, false, b"hello");
    assert_eq!((answer.status(), answer.field("upload-complete")), (204, "?0"), "Q4 {answer:?}");
    assert!(answer.head.header("location").is_none());
    let answer = append(&server, &url, 5, false, b"world");
    assert_eq!((answer.status(), answer.field("upload-complete")), (204, "?0"));
    assert_eq!(standing(&server, &url), (10, false), "it has all its bytes and has not ended");
    assert_eq!(fetch(&server, "q5").status(), 404);
    let answer = append(&server, &url, 10, true, b"");
    assert_eq!((answer.status(), answer.field("upload-complete")), (201, "?1"), "Q6 {answer:?}");
    assert_eq!(answer.json()["key"], "q5", "Q5: the target's own answer");
    assert_eq!(fetch(&server, "q5").body, b"helloworld");
    let url = create(&server, "q5", &[]);
    assert_eq!(append(&server, &url, 0, true, b"replaced").status(), 200, "as of a PUT that replaces");
}

#[test]
fn q7_beyond_its_length_an_upload_is_void() {
    let server = Server::start();
    for (last, announced) in [(false, true), (true, true), (false, false)] {
        let url = create(&server, "q7", &["upload-length: 8"]);
        assert_eq!(append(&server, &url, 0, false, b"hello").status(), 204);
        let answer = if announced {
            append(&server, &url, 5, last, b"world")
        } else {
            let mut wire = Wire::connect(&server);
            let fields =
                [NEWEST, PARTIAL, "upload-offset: 5", "upload-complete: ?0", "transfer-encoding: chunked"];
            wire.request(&format!("PATCH {}", url.replace(&server.base, "")), &fields);
            wire.chunk(b"world").unwrap();
            wire.chunk(b"").unwrap();
            Answer::read(&mut wire, "PATCH")
        };
        answer.refused(400, INCONSISTENT);
        assert_eq!(look(&server, &url).status(), if last { 204 } else { 404 }, "{last} {announced}");
    }
    let open = ask(&server, "GET /v1/uploads", &[], b"").json();
    assert_eq!(open["uploads"].as_array().unwrap().len(), 1, "nothing is left of the void ones");
}

#[test]
fn lengths_of_several_requests_agree() {
    let server = Server::start();
    let url = create(&server, "lengths", &["upload-length: 8"]);
    append_with(&server, &url, 0, false, &["upload-length: 9"], b"hello").refused(400, INCONSISTENT);
    append(&server, &url, 0, true, b"hello").refused(400, INCONSISTENT);
    assert_eq!(standing(&server, &url), (0, false), "nothing came of it");
    let later = create(&server, "later", &[]);
    assert_eq!(append_with(&server, &later, 0, false, &["upload-length: 8"], b"hello").status(), 204);
    assert_eq!(look(&server, &later).field("upload-length"), "8");
    append_with(&server, &later, 5, false, &["upload-length: 9"], b"").refused(400, INCONSISTENT);
}

#[test]
fn q9_an_answer_that_was_lost_is_given_again() {
    let server = Server::start();
    assert_eq!(ask(&server, "PUT /v1/files/default/q9", &[], b"old").status(), 201);
    let url = create(&server, "q9", &[]);
    let first = append(&server, &url, 0, true, b"hello");
    assert_eq!(first.status(), 200);
    assert_eq!(standing(&server, &url), (5, true));
    let again = append(&server, &url, 5, true, b"");
    assert_eq!((again.status(), again.field("upload-complete")), (200, "?1"), "{again:?}");
    assert_eq!(again.body, first.body);
    append(&server, &url, 0, true, b"hello").refused(409, MISMATCH);
    append(&server, &url, 5, true, b"more").refused(400, INCONSISTENT);
    append(&server, &url, 5, false, b"more").refused(400, INCONSISTENT);
    append(&server, &url, 5, false, b"").refused(409, COMPLETED);
    assert_eq!(fetch(&server, "q9").body, b"hello");
}

#[test]
fn q10_an_upload_that_is_gone_stays_so() {
    let server = Setup::new().set("CARRACK_UPLOADS__TTL", "1s").start();
    let url = create(&server, "q10", &[]);
    until("it has expired", || look(&server, &url).status() != 204);
    assert!(matches!(look(&server, &url).status(), 404 | 410));
    assert!(matches!(append(&server, &url, 0, true, b"hello").status(), 404 | 410));
}

#[test]
fn z1_an_upload_that_is_given_up_is_dead_and_so_is_who_writes_to_it() {
    let server = Server::start();
    let url = create(&server, "z1", &["upload-length: 10"]);
    let mut writing = begin(&server, &url, 0, 10, b"hello");
    assert_eq!(ask(&server, &format!("DELETE {url}"), &[NEWEST], b"").status(), 204);
    let cut = Answer::read(&mut writing, "PATCH");
    assert!(cut.status() >= 400, "{cut:?}");
    assert_eq!(look(&server, &url).status(), 404);
    assert_eq!(append(&server, &url, 0, true, b"hello").status(), 404);
}

/// Begins to append, and stands still.
fn begin(server: &Server, url: &str, offset: usize, length: usize, bytes: &[u8]) -> Wire {
    let mut wire = Wire::connect(server);
    let offset = format!("upload-offset: {offset}");
    let fields = [NEWEST, PARTIAL, &offset, "upload-complete: ?1"];
    wire.send(head_of(server, &format!("PATCH {url}"), &fields, length).as_bytes()).unwrap();
    wire.send(bytes).unwrap();
    wire
}

#[test]
fn y1_whoever_is_newer_displaces_who_stands_still() {
    let server = Server::start();
    let whole = content(3 << 20, 1);
    let url = create(&server, "y1", &[]);
    let (mut at, mut took) = (0, Vec::new());
    for round in 1..=20 {
        let end = (whole.len() - 1000) * round / 20;
        let mut stalled = begin(&server, &url, at, whole.len() - at, &whole[at..end]);
        let before = at;
        until("its bytes have arrived", || {
            let begun = Instant::now();
            at = standing(&server, &url).0;
            took.push(begun.elapsed());
            if at == before {
                stalled = begin(&server, &url, at, whole.len() - at, &whole[at..end]);
            }
            at > before
        });
        let displaced = Answer::read(&mut stalled, "PATCH");
        assert_eq!((displaced.status(), displaced.field("upload-complete")), (409, "?0"), "{displaced:?}");
    }
    took.sort();
    println!(
        "HEAD beside a stalled PATCH: median {:?}, max {:?}",
        took[took.len() / 2],
        took[took.len() - 1]
    );
    let mut stalled = begin(&server, &url, at, whole.len() - at, &whole[at..at + 1]);
    until("it is being served", || {
        let metrics = ask(&server, "GET /metrics", &[], b"").body;
        String::from_utf8(metrics).unwrap().lines().any(|line| line == "carrack_uploads_in_progress 1")
    });
    assert_eq!(append(&server, &url, at, true, &whole[at..]).status(), 201, "a PATCH displaces it as well");
    assert_eq!(Answer::read(&mut stalled, "PATCH").status(), 409);
    assert!(fetch(&server, "y1").body == whole);
}

#[test]
fn y2_of_many_writers_one_wins() {
    let server = Server::start();
    let whole = content(200_000, 2);
    let url = create(&server, "y2", &[]);
    let won = std::thread::scope(|scope| {
        let writers: Vec<_> =
            (0..8).map(|_| scope.spawn(|| append(&server, &url, 0, false, &whole).status())).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).filter(|status| *status == 204).count()
    });
    assert!(won <= 1, "{won} writers were told that theirs are the bytes");
    let at = standing(&server, &url).0;
    assert_eq!(append(&server, &url, at, true, &whole[at..]).status(), 201);
    assert!(fetch(&server, "y2").body == whole);
}
