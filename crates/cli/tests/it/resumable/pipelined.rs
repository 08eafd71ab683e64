//! 104 on connections on which requests follow each other without waiting: no message is cut in two by another.

use super::{Answer, NEWEST, head_of};
use crate::operations::wire::Wire;
use crate::server::{Server, content};

#[test]
fn behind_an_answer_that_its_client_has_not_read() {
    let server = Server::start();
    let whole = content(8 << 20, 1);
    let mut wire = Wire::connect(&server);
    let stored = super::ask(&server, "PUT /v1/files/default/large", &[], &whole);
    assert_eq!(stored.status(), 201);
    let mut all = Vec::new();
    for round in 0..5 {
        all.extend(head_of(&server, "GET /v1/files/default/large", &[], 0).into_bytes());
        let line = format!("PUT /v1/files/default/{round}");
        all.extend(head_of(&server, &line, &[NEWEST, "upload-complete: ?1"], 5).into_bytes());
        all.extend(b"hello");
    }
    wire.send(&all).unwrap();
    for round in 0..5 {
        let answer = Answer::read(&mut wire, "GET");
        assert!(answer.interims.is_empty() && answer.status() == 200, "{round}");
        assert!(answer.body == whole, "{round}: other bytes");
        let answer = Answer::read(&mut wire, "PUT");
        assert_eq!(answer.status(), 201, "{round} {answer:?}");
        assert!(answer.interims.iter().all(|interim| interim.status == 104));
    }
}

#[test]
fn each_answer_follows_its_own_interim_response() {
    let server = Server::start();
    let mut wire = Wire::connect(&server);
    let mut all = Vec::new();
    for round in 0..30 {
        let line = format!("POST /v1/files/default/{round}");
        let complete = format!("upload-complete: ?{}", round % 2);
        all.extend(head_of(&server, &line, &[NEWEST, &complete], 5).into_bytes());
        all.extend(b"hello");
    }
    wire.send(&all).unwrap();
    for round in 0..30 {
        let answer = Answer::read(&mut wire, "POST");
        assert_eq!(answer.status(), 201, "{round} {answer:?}");
        assert_eq!(answer.interims.len(), 1, "{round}");
        if round % 2 == 0 {
            assert_eq!(answer.interims[0].header("location"), Some(answer.field("location")), "{round}");
        }
    }
}
