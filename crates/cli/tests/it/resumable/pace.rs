//! `server.min_rate`: bodies that trickle are given up whatever they are for, and what can be kept of them is.

use super::{Answer, NEWEST, PARTIAL, append, ask, create, fetch, head_of, standing};
use crate::operations::wire::Wire;
use crate::server::{Server, Setup, content};
use std::time::{Duration, Instant};

const LENGTH: usize = 100_000;
const STEP: Duration = Duration::from_millis(20);

/// At most a second behind 5,000 bytes per second.
fn server() -> Server {
    Setup::new().set("CARRACK_SERVER__IDLE_TIMEOUT", "1s").set("CARRACK_SERVER__MIN_RATE", "5000").start()
}

/// Sends a body in steps of so many bytes until there is an answer; how many bytes were sent.
fn trickle(server: &Server, line: &str, fields: &[&str], bytes: &[u8], step: usize) -> (Answer, usize) {
    let mut wire = Wire::connect(server);
    wire.send(head_of(server, line, fields, bytes.len()).as_bytes()).unwrap();
    let (begun, mut sent) = (Instant::now(), 0);
    let method = line.split(' ').next().unwrap();
    // What is said before a body has come is no answer to it.
    let named = fields.contains(&NEWEST) && method == "PUT";
    let interims: Vec<_> = named.then(|| wire.head()).into_iter().collect();
    while sent < bytes.len() && !wire.answered() {
        let end = bytes.len().min(sent + step);
        if wire.send(&bytes[sent..end]).is_err() {
            break;
        }
        sent = end;
        std::thread::sleep(STEP);
        assert!(begun.elapsed() < Duration::from_secs(60), "it is never given up");
    }
    let mut answer = Answer::read(&mut wire, method);
    answer.interims.splice(0..0, interims);
    (answer, sent)
}

#[test]
fn a_body_that_trickles_is_given_up_and_its_bytes_are_kept() {
    let server = server();
    let whole = content(LENGTH, 1);
    let fields = [NEWEST, "upload-complete: ?1"];
    let (answer, sent) = trickle(&server, "PUT /v1/files/default/slow", &fields, &whole, 20);
    assert_eq!((answer.status(), answer.field("upload-complete")), (408, "?0"), "{answer:?}");
    assert_eq!(answer.json()["code"], "request_timeout");
    assert!(answer.head.header("retry-after").is_some());
    let url = answer.interims[0].header("location").unwrap().to_owned();
    let (at, _) = standing(&server, &url);
    assert!(at > 0 && at <= sent, "{at} of {sent}");

    let patch = [NEWEST, PARTIAL, "upload-complete: ?1", &format!("upload-offset: {at}")];
    let (answer, _) = trickle(&server, &format!("PATCH {url}"), &patch, &whole[at..], 20);
    assert_eq!(answer.status(), 408);
    let (now, _) = standing(&server, &url);
    assert!(now > at, "{now} after {at}");
    assert_eq!(append(&server, &url, now, true, &whole[now..]).status(), 201);
    assert!(fetch(&server, "slow").body == whole);
}

#[test]
fn so_is_one_of_tus_of_a_part_and_of_a_plain_put() {
    let server = server();
    let whole = content(LENGTH, 2);
    let tus = ["tus-resumable: 1.0.0", &format!("upload-length: {LENGTH}")];
    let url = ask(&server, "POST /v1/tus", &tus, b"").field("location").to_owned();
    let fields =
        ["tus-resumable: 1.0.0", "upload-offset: 0", "content-type: application/offset+octet-stream"];
    let (answer, _) = trickle(&server, &format!("PATCH {url}"), &fields, &whole, 20);
    assert_eq!(answer.status(), 408, "{answer:?}");
    let offset = ask(&server, &format!("HEAD {url}"), &["tus-resumable: 1.0.0"], b"");
    assert_ne!(offset.field("upload-offset"), "0");

    let new = format!(r#"{{"bucket": "default", "key": "parts", "size": {LENGTH}}}"#);
    let upload = ask(&server, "POST /v1/uploads", &[], new.as_bytes()).json();
    let part = format!("PUT /v1/uploads/{}/parts/1", upload["upload_id"].as_str().unwrap());
    assert_eq!(trickle(&server, &part, &[], &whole, 20).0.status(), 408);
    assert_eq!(ask(&server, &part, &[], &whole).status(), 200, "again, and faster");

    assert_eq!(trickle(&server, "PUT /v1/files/default/plain", &[], &whole, 20).0.status(), 408);
    assert_eq!(fetch(&server, "plain").status(), 404, "nobody could go on with it");
}

#[test]
fn one_that_is_slow_and_fast_enough_is_not() {
    let server = server();
    let whole = content(20_000, 3);
    // 20,000 bytes per second and less, as far as the clock of the test is right: four times what is asked for.
    let (answer, sent) = trickle(&server, "PUT /v1/files/default/steady", &[], &whole, 400);
    assert_eq!((answer.status(), sent), (201, whole.len()), "{answer:?}");
    let url = create(&server, "pause", &[]);
    let mut wire = Wire::connect(&server);
    let fields = [NEWEST, PARTIAL, "upload-complete: ?1", "upload-offset: 0"];
    wire.send(head_of(&server, &format!("PATCH {url}"), &fields, whole.len()).as_bytes()).unwrap();
    for part in whole.chunks(10_000) {
        wire.send(part).unwrap();
        // Not a wait for something: a client that has nothing to send for a while.
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(Answer::read(&mut wire, "PATCH").status(), 201);
}
