//! D1 to D3: where an upload stands.

use super::{NEWEST, append, ask, create, look, standing};
use crate::server::Server;
use crate::tus;

#[test]
fn d1_head_and_get_tell_where_an_upload_stands() {
    let server = Server::start();
    let url = create(&server, "d1", &[]);
    assert_eq!(append(&server, &url, 0, false, b"hello").status(), 204);
    for method in ["HEAD", "GET"] {
        let answer = ask(&server, &format!("{method} {url}"), &[NEWEST], b"");
        assert_eq!(answer.status(), 204);
        assert_eq!((answer.field("upload-offset"), answer.field("upload-complete")), ("5", "?0"));
        assert!(answer.head.header("upload-length").is_none(), "nobody said");
        assert!(answer.field("upload-limit").contains("max-age="));
        assert_eq!(answer.field("cache-control"), "no-store");
    }
    assert_eq!(append(&server, &url, 5, true, b"").status(), 201);
    let answer = look(&server, &url);
    assert_eq!((answer.field("upload-offset"), answer.field("upload-complete")), ("5", "?1"));
    assert_eq!(answer.field("upload-length"), "5");
}

#[tokio::test]
async fn an_upload_goes_on_where_it_began() {
    let server = Server::start();
    let ours = create(&server, "ours", &[]);
    let theirs =
        tus::create(&server, &[("Upload-Length", "5"), ("Upload-Metadata", &tus::key("theirs"))]).await;
    let as_theirs = ours.replace("/v1/resumable/", "/v1/tus/");
    assert_eq!(tus::offset(&server, &as_theirs).await, Err(404));
    assert_eq!(tus::patch(&server, &as_theirs, 0, b"hello").send().await.unwrap().status(), 403);
    let as_ours = theirs.replace("/v1/tus/", "/v1/resumable/");
    assert_eq!(look(&server, &as_ours).status(), 404);
    assert_eq!(append(&server, &as_ours, 0, true, b"hello").status(), 409);
    assert_eq!(standing(&server, &ours), (0, false));
    assert_eq!(look(&server, &server.url("/v1/resumable/none")).status(), 404);
}
