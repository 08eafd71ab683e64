//! What is refused leaves its record too, but nobody can fill the disk with it.

use super::{of_kind, records};
use crate::access::Caller;
use crate::server::{Server, Setup};
use reqwest::Method;
use serde_json::Value;

fn ends(records: &[Value]) -> Vec<(Option<&str>, u64, &str)> {
    let of = |end: &&Value| end["status"].as_u64().unwrap();
    let code = |end: &Value| end["code"].as_str().unwrap_or("").to_owned();
    let ends = of_kind(records, "end");
    ends.iter()
        .map(|end| (end["subject"].as_str(), of(end), code(end)))
        .map(|(s, n, c)| (s, n, &*c.leak()))
        .collect()
}

#[tokio::test]
async fn whoever_is_known_is_recorded_each_time() {
    let server = Server::start();
    let alice = Caller::user(&server, "alice").await;
    for _ in 0..3 {
        assert_eq!(alice.get("/v1/files/default/none").await.status(), 404);
        assert_eq!(alice.put("/v1/buckets/mine", b"{}").await.status(), 403);
    }
    let all = records(&server, "subject=alice").await;
    let expected = [(Some("alice"), 404, "file_not_found"), (Some("alice"), 403, "forbidden")].repeat(3);
    assert_eq!(ends(&all), expected);
    assert!(all.iter().all(|record| record["result"] == "denied" && record["ip"] == "127.0.0.1"));
    assert_eq!(records(&server, "subject=alice&bucket=mine").await.len(), 3);
}

#[tokio::test]
async fn whoever_is_not_known_is_recorded_once_and_then_counted() {
    let mut server = Server::start();
    let nobody = Caller::nobody(&server);
    for number in 0..40 {
        assert_eq!(nobody.get(&format!("/v1/files/default/{number}")).await.status(), 401);
    }
    let wrong = Caller::with(&server, "carrack_wrong-canary");
    assert_eq!(wrong.delete("/v1/files/default/x").await.status(), 401);
    let all = records(&server, "").await;
    let refused: Vec<&Value> = all.iter().filter(|record| record["result"] == "denied").collect();
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert_eq!([&refused[0]["auth"], &refused[0]["key"]], ["none", "0"]);
    assert_eq!(
        [&refused[1]["auth"], &refused[1]["action"], &refused[1]["code"]],
        ["refused", "file.delete", "invalid_token"]
    );
    server.stop();
    let text = String::from_utf8(super::audit("export", &server.data, &[]).stdout).unwrap();
    assert!(!text.contains("canary"));
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let repeated = of_kind(&lines, "repeated");
    assert_eq!(repeated.len(), 1, "{repeated:?}");
    assert_eq!((repeated[0]["count"].as_u64(), repeated[0]["status"].as_u64()), (Some(39), Some(401)));
    assert_eq!((&repeated[0]["action"], &repeated[0]["ip"]), (&"file.read".into(), &"127.0.0.1".into()));
}

#[tokio::test]
async fn only_a_proxy_of_ours_is_believed_where_a_request_comes_from() {
    for (trusted, expected) in [("[]", "127.0.0.1"), (r#"["127.0.0.1"]"#, "198.51.100.7")] {
        let server = Setup::new().set("CARRACK_SERVER__TRUSTED_PROXIES", trusted).start();
        let alice = Caller::user(&server, "alice").await;
        let request =
            alice.request(Method::GET, "/v1/files/default").header("x-forwarded-for", "198.51.100.7");
        assert_eq!(request.send().await.unwrap().status(), 200);
        let all = records(&server, "subject=alice").await;
        assert_eq!(all[0]["ip"], expected, "{trusted}");
    }
}
