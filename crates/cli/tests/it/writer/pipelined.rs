//! Many requests in one write: answered in their order, each with its own bytes.

use super::{assert_whole, get, multipart, store, with_small_window};
use crate::operations::wire::Wire;
use crate::server::{Server, TOKEN, content};
use std::fmt::Write;

const REQUESTS: usize = 51;

/// Content of the files, by name.
type Files = Vec<(&'static str, Vec<u8>)>;

async fn with_files() -> (Server, Files) {
    let server = Server::start();
    let sizes = [("empty", 0), ("small", 900), ("medium", 200_000), ("large", (1 << 20) + 5)];
    let files: Files = sizes.into_iter().map(|(name, len)| (name, content(len, len as u64))).collect();
    for (name, bytes) in &files {
        store(&server, name, bytes).await;
    }
    (server, files)
}

/// One kind of request: its line, a header, and what has to come back.
fn request(number: usize, files: &Files) -> (String, &'static str) {
    let (name, _) = &files[(number / 3) % files.len()];
    match number % 8 {
        0 | 1 => (get(name), "accept: */*"),
        2 => (get(name).replace("GET", "HEAD"), "accept: */*"),
        3 => (get("absent"), "accept: */*"),
        4 => (get(name), "if-none-match: *"),
        5 => (get("medium"), "range: bytes=1000-150000"),
        6 => (get("large"), "range: bytes=0-9,20000-900000,-1"),
        _ => (get(name), "range: bytes=9999999-"),
    }
}

fn check(wire: &mut Wire, number: usize, files: &Files) {
    let (name, bytes) = &files[(number / 3) % files.len()];
    let named = format!("request {number}, {name}");
    if number % 8 < 2 {
        return assert_whole(wire, bytes);
    }
    let head = wire.head();
    match number % 8 {
        2 => assert_eq!((head.status, head.length()), (200, bytes.len()), "{named}"),
        3 => {
            assert_eq!(head.status, 404, "{named}");
            assert!(String::from_utf8(wire.body(head.length())).unwrap().contains("\"file_not_found\""));
        }
        4 => assert_eq!(head.status, 304, "{named}"),
        5 => {
            assert_eq!((head.status, head.length()), (206, 149_001), "{named}");
            assert!(wire.body(149_001) == files[2].1[1000..=150_000], "{named}");
        }
        6 => {
            let large = &files[3].1;
            let end = large.len() - 1;
            assert_eq!(head.status, 206, "{named}");
            let body = wire.body(head.length());
            assert!(body == multipart(&head, &[(0, 9), (20_000, 900_000), (end, end)], large), "{named}");
        }
        _ => {
            assert_eq!(head.status, 416, "{named}");
            wire.body(head.length());
        }
    }
}

fn all(files: &Files) -> String {
    (0..REQUESTS).fold(String::new(), |mut text, number| {
        let (line, header) = request(number, files);
        let end = if number + 1 == REQUESTS { "connection: close\r\n" } else { "" };
        write!(
            text,
            "{line} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {TOKEN}\r\n{header}\r\n{end}\r\n"
        )
        .unwrap();
        text
    })
}

#[tokio::test]
async fn fifty_one_requests_in_one_write_are_answered_in_their_order() {
    let (server, files) = with_files().await;
    for small_window in [false, true] {
        let mut wire = if small_window { with_small_window(&server).await } else { Wire::connect(&server) };
        wire.send(all(&files).as_bytes()).unwrap();
        (0..REQUESTS).for_each(|number| check(&mut wire, number, &files));
        assert!(wire.is_at_end());
    }
}

#[tokio::test]
async fn a_client_that_ends_its_side_after_the_last_of_many_requests_gets_all_answers() {
    let (server, files) = with_files().await;
    let mut wire = Wire::connect(&server);
    wire.send(all(&files).replace("connection: close\r\n", "").as_bytes()).unwrap();
    wire.finish_sending();
    (0..REQUESTS).for_each(|number| check(&mut wire, number, &files));
    assert!(wire.is_at_end());
}

#[tokio::test]
async fn requests_that_come_in_small_pieces_are_answered_as_if_they_came_whole() {
    let (server, files) = with_files().await;
    let mut wire = Wire::connect(&server);
    for piece in all(&files).as_bytes().chunks(7) {
        wire.send(piece).unwrap();
    }
    (0..REQUESTS).for_each(|number| check(&mut wire, number, &files));
    assert!(wire.is_at_end());
}
