//! Downloads that end in the middle, and clients that end their side: nothing stays behind, nothing is missing.

use super::{assert_whole, get, store};
use crate::operations::disk::descriptors;
use crate::operations::wait::until;
use crate::operations::wire::Wire;
use crate::server::{Server, content};

const CLOSES: usize = 50;
const LEN: usize = 64 << 20;

/// Mappings of blobs that a process has, those of deleted ones included.
fn mapped_blobs(server: &Server) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", server.pid())).unwrap();
    maps.lines().filter(|line| line.contains("/blobs/")).count()
}

/// Descriptors of blobs, those of deleted ones included.
fn open_blobs(server: &Server) -> usize {
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    // One that is closed meanwhile has no name any more.
    let names = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    names.filter(|name| name.to_string_lossy().contains("/blobs/")).count()
}

#[tokio::test]
async fn fifty_clients_that_go_away_somewhere_leave_no_descriptor_and_no_mapping() {
    let server = Server::start();
    let bytes = content(LEN, 3);
    store(&server, "big", &bytes).await;
    let mut wire = Wire::connect(&server);
    wire.request(&get("big"), &[]);
    assert_whole(&mut wire, &bytes);
    drop(wire);
    assert_eq!((mapped_blobs(&server), open_blobs(&server)), (1, 1), "the cache keeps it for the next");
    let before = descriptors(server.pid());
    let dice = content(CLOSES * 4, 4);
    for (number, dice) in dice.chunks(4).enumerate() {
        // Most of them early, some anywhere.
        let point = u32::from_le_bytes(dice.try_into().unwrap()) as usize % (LEN >> (number % 6));
        let mut wire = Wire::connect(&server);
        // From another byte each, so that runs begin and end elsewhere.
        let first = if number % 3 == 0 { number } else { 0 };
        wire.request(&get("big"), &[&format!("range: bytes={first}-")]);
        assert_eq!(wire.head().status, 206);
        let len = point.min(LEN - first);
        assert!(wire.body(len) == bytes[first..first + len]);
        // With bytes that were not read, the kernel resets the connection; both ends of that are tried.
        if number % 2 == 0 { wire.abort() } else { drop(wire) }
    }
    until("descriptors are back", || descriptors(server.pid()) <= before);
    assert_eq!((mapped_blobs(&server), open_blobs(&server)), (1, 1));
    assert_eq!(server.delete("/v1/files/default/big").send().await.unwrap().status(), 204);
    until("the last mapping is gone", || (mapped_blobs(&server), open_blobs(&server)) == (0, 0));
}

#[tokio::test]
async fn a_deleted_file_is_let_go_of_by_its_last_reader() {
    const READERS: usize = 5;
    let server = Server::start();
    let bytes = content(LEN, 3);
    store(&server, "big", &bytes).await;
    let mut readers: Vec<Wire> = (0..READERS).map(|_| Wire::connect(&server)).collect();
    for wire in &mut readers {
        wire.request(&get("big"), &[]);
        assert_eq!(wire.head().status, 200);
        assert!(wire.body(10_000) == bytes[..10_000]);
    }
    assert_eq!(server.delete("/v1/files/default/big").send().await.unwrap().status(), 204);
    assert_eq!((mapped_blobs(&server), open_blobs(&server)), (1, 1), "one for all of them");
    let mut last = readers.pop().unwrap();
    readers.into_iter().for_each(Wire::abort);
    assert!(last.body(LEN - 10_000) == bytes[10_000..]);
    until("the last mapping is gone", || (mapped_blobs(&server), open_blobs(&server)) == (0, 0));
}

#[tokio::test]
async fn a_client_that_ends_its_side_after_a_request_gets_the_whole() {
    let server = Server::start();
    for len in [900, 16 << 20] {
        let bytes = content(len, 6);
        store(&server, &len.to_string(), &bytes).await;
        let mut wire = Wire::connect(&server);
        wire.request(&get(&len.to_string()), &[]);
        wire.finish_sending();
        // Long enough for the server to have seen the end before most of the answer has left.
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_whole(&mut wire, &bytes);
        assert!(wire.is_at_end());
    }
}
