//! kill -9 in the middle of an upload: no offset that was told goes back, and the upload goes on.

use super::{Answer, NEWEST, append, fetch, head_of, look, standing};
use crate::operations::wire::Wire;
use crate::server::{Setup, content};
use std::time::Duration;

#[test]
fn an_upload_goes_on_after_kill_9() {
    let data = tempfile::tempdir().unwrap();
    let whole = content(150 << 20, 9);
    let mut server = Setup::new().data(data.path()).start();
    let mut wire = Wire::connect(&server);
    let fields = [NEWEST, "upload-complete: ?1"];
    wire.send(head_of(&server, "PUT /v1/files/default/crash", &fields, whole.len()).as_bytes()).unwrap();
    let url = wire.head().header("location").unwrap().to_owned();
    let path = url.replace(&server.base, "");
    wire.send(&whole[..whole.len() - 1]).unwrap();
    let told = wire.head();
    let told: usize = told.header("upload-offset").unwrap().parse().unwrap();
    assert!(told > 0);
    server.kill();

    let mut at = 0;
    for round in 0..5 {
        let mut server = Setup::new().data(data.path()).start();
        let now = standing(&server, &path).0;
        assert!(now >= told.max(at), "the offset went back from {} to {now}", told.max(at));
        at = now;
        if round < 4 {
            // What is answered is stored; what is being sent when the process dies is nobody's promise.
            let end = at + 100_000;
            assert_eq!(append(&server, &path, at, false, &whole[at..end]).status(), 204);
            at = end;
            let mut wire = Wire::connect(&server);
            let offset = format!("upload-offset: {at}");
            let fields = [NEWEST, super::PARTIAL, "upload-complete: ?1", &offset];
            wire.send(head_of(&server, &format!("PATCH {path}"), &fields, whole.len() - at).as_bytes())
                .unwrap();
            wire.send(&whole[at..at + 50_000]).unwrap();
            std::thread::sleep(Duration::from_millis(7 * round));
            server.kill();
        } else {
            let answer = append(&server, &path, at, true, &whole[at..]);
            assert_eq!((answer.status(), answer.field("upload-complete")), (201, "?1"));
            assert!(fetch(&server, "crash").body == whole);
            server.stop();
        }
    }

    // The upload has ended: that is remembered, and what is told of it.
    let server = Setup::new().data(data.path()).start();
    assert_eq!(look(&server, &path).field("upload-complete"), "?1");
    let again: Answer = append(&server, &path, whole.len(), true, b"");
    assert_eq!((again.status(), again.json()["size"].as_u64()), (201, Some(whole.len() as u64)));
}
