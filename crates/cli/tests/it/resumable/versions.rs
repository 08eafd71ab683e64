//! V1 to V3: which iterations of the draft are spoken, and how they differ.

use super::{Answer, PARTIAL, ask, fetch, head_of};
use crate::operations::wire::Wire;
use crate::server::Server;

#[test]
fn v1_without_a_version_in_common_there_is_no_104() {
    let server = Server::start();
    for version in [None, Some("2"), Some("9"), Some("eight"), Some("8.0")] {
        let version = version.map(|version| format!("upload-draft-interop-version: {version}"));
        for complete in ["upload-complete: ?1", "upload-complete: ?0"] {
            let fields: Vec<&str> = [complete].into_iter().chain(version.as_deref()).collect();
            let answer = ask(&server, "POST /v1/files/default/v1", &fields, b"hello");
            assert!(answer.interims.is_empty(), "{answer:?}");
            assert!(matches!(answer.status(), 200 | 201));
            assert_eq!(answer.head.header("upload-complete"), complete.split(' ').nth(1));
        }
    }
}

#[test]
fn v1_http_1_0_gets_no_interim_response() {
    let server = Server::start();
    let mut wire = Wire::connect(&server);
    let head = head_of(&server, "POST /v1/files/default/v1", &[super::NEWEST, "upload-complete: ?1"], 5);
    wire.send(head.replace("HTTP/1.1", "HTTP/1.0").as_bytes()).unwrap();
    wire.send(b"hello").unwrap();
    let answer = Answer::read(&mut wire, "POST");
    assert!(answer.interims.is_empty() && answer.status() == 201, "{answer:?}");
}

/// An upload in three requests, as each version has it.
#[test]
fn v3_every_version_in_the_field() {
    let server = Server::start();
    for version in 3..=8 {
        let named = format!("upload-draft-interop-version: {version}");
        let complete = |complete: bool| match version {
            3 => format!("upload-incomplete: ?{}", u8::from(!complete)),
            _ => format!("upload-complete: ?{}", u8::from(complete)),
        };
        let told = |answer: &Answer| match version {
            3 => answer.field("upload-incomplete") == "?0",
            _ => answer.field("upload-complete") == "?1",
        };
        let line = format!("POST /v1/files/default/v{version}");
        let created = ask(&server, &line, &[&named, &complete(false)], b"hello");
        assert_eq!((created.status(), told(&created)), (201, false), "{created:?}");
        assert_eq!(created.interims.len(), 1);
        let interim = &created.interims[0];
        assert_eq!(interim.header("upload-draft-interop-version"), Some(version.to_string().as_str()));
        assert_eq!(interim.header("upload-limit").is_some(), version >= 6);
        assert_eq!(created.field("upload-offset"), "5");
        let url = created.field("location").to_owned();
        if let Some(limit) = interim.header("upload-limit") {
            assert_eq!((limit.contains("expires="), limit.contains("max-age=")), (version == 6, version > 6));
        }

        let kind = if version >= 6 { PARTIAL } else { "content-type: application/octet-stream" };
        let patch = |offset: usize, more: &[&str], bytes: &[u8]| {
            let offset = format!("upload-offset: {offset}");
            ask(&server, &format!("PATCH {url}"), &[&[named.as_str(), kind, &offset], more].concat(), bytes)
        };
        let appended = patch(5, &[&complete(false)], b", ");
        assert_eq!(appended.status(), if version < 7 { 201 } else { 204 }, "{appended:?}");
        assert_eq!((appended.field("upload-offset"), told(&appended)), ("7", false));
        let looked = ask(&server, &format!("HEAD {url}"), &[&named], b"");
        assert_eq!((looked.status(), looked.field("upload-offset"), told(&looked)), (204, "7", false));
        let state = ask(&server, &format!("HEAD {url}"), &[&named, "upload-offset: 7"], b"");
        assert_eq!(state.status(), if version < 7 { 400 } else { 204 });
        assert_eq!(patch(0, &[&complete(false)], b"no").status(), 409);

        let ended = patch(7, &[&complete(true)], b"world");
        assert_eq!(
            (ended.status(), told(&ended), ended.field("upload-offset")),
            (201, true, "12"),
            "{ended:?}"
        );
        let (here, there) = (ended.field("location"), ended.head.header("content-location"));
        let file = format!("/v1/files/default/v{version}");
        let expected = if version < 7 { (url.as_str(), Some(file.as_str())) } else { (file.as_str(), None) };
        assert_eq!((here, there), expected);
        assert_eq!(fetch(&server, &format!("v{version}")).body, b"hello, world");
        assert_eq!(ask(&server, &format!("DELETE {url}"), &[&named], b"").status(), 204);
        assert_eq!(ask(&server, &format!("HEAD {url}"), &[&named], b"").status(), 404);
    }
}

#[test]
fn v3_what_an_append_leaves_unsaid() {
    let server = Server::start();
    for (version, complete, status) in
        [(3, true, 201), (5, false, 201), (6, false, 201), (7, false, 400), (8, false, 400)]
    {
        let named = format!("upload-draft-interop-version: {version}");
        let begun = if version == 3 { "upload-incomplete: ?1" } else { "upload-complete: ?0" };
        let created = ask(&server, "POST /v1/files/default/unsaid", &[&named, begun], b"");
        let url = created.field("location").to_owned();
        let answer = ask(&server, &format!("PATCH {url}"), &[&named, PARTIAL, "upload-offset: 0"], b"hello");
        assert_eq!(answer.status(), status, "{version} {answer:?}");
        let looked = ask(&server, &format!("HEAD {url}"), &["upload-draft-interop-version: 8"], b"");
        assert_eq!(looked.field("upload-complete") == "?1", complete, "{version}");
        let file = ask(&server, "DELETE /v1/files/default/unsaid", &[], b"");
        assert_eq!(file.status(), if complete { 204 } else { 404 });
    }
}
