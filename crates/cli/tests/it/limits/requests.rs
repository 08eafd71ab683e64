//! Requests per second, failed logins, guesses of passwords.

use crate::access::Caller;
use crate::contract::answers::{header, json, refused, store, until};
use crate::server::{Server, Setup};
use reqwest::{Method, Response};
use serde_json::json as value;
use std::time::Duration;

fn setup(settings: &[(&str, &str)]) -> Setup {
    let set =
        |setup: Setup, (name, value): &(&str, &str)| setup.set(&format!("CARRACK_LIMITS__{name}"), value);
    settings.iter().fold(Setup::new(), set)
}

/// The parameters of a field: `"requests";r=3;t=1` as `r` and `t`.
fn number(answer: &Response, field: &str, name: &str) -> u64 {
    let text = header(answer, field);
    let found =
        text.strip_prefix("\"requests\";").unwrap().split(';').find_map(|pair| pair.strip_prefix(name));
    found
        .and_then(|value| value.strip_prefix('='))
        .unwrap_or_else(|| panic!("{field}: {text}"))
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_burst_passes_and_what_is_more_is_told_when_to_come_again() {
    // One in two minutes: however slow the machine is, none comes back meanwhile.
    let server = setup(&[("REQUESTS_PER_SECOND", "1"), ("BURST", "200")]).start();
    let alice = Caller::user(&server, "alice").await;
    let mut admitted = 0;
    let refusal = loop {
        let answer = alice.get("/v1/me").await;
        assert_eq!(
            (number(&answer, "ratelimit-policy", "q"), number(&answer, "ratelimit-policy", "w")),
            (200, 200)
        );
        let left = number(&answer, "ratelimit", "r");
        if answer.status() != 200 {
            break answer;
        }
        admitted += 1;
        assert!(left < 200 && admitted < 400, "{left}");
    };
    assert!(admitted >= 200, "{admitted}");
    assert_eq!(header(&refusal, "retry-after"), "1");
    assert_eq!(number(&refusal, "ratelimit", "r"), 0);
    refused(refusal, 429, "rate_limited").await;
    let bob = Caller::user(&server, "bob").await;
    assert_eq!(bob.get("/v1/me").await.status(), 200, "others are not concerned");
    for _ in 0..50 {
        assert_eq!(Caller::nobody(&server).get("/livez").await.status(), 200, "a probe is not counted");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(alice.get("/v1/me").await.status(), 200, "one has come back");
}

#[tokio::test]
async fn guests_count_by_address_and_roles_have_limits_of_their_own() {
    let settings = [("ROLES__GUEST__REQUESTS_PER_SECOND", "1"), ("ROLES__GUEST__BURST", "3")];
    let setup = setup(&settings).set("CARRACK_SERVER__TRUSTED_PROXIES", "[\"127.0.0.1\"]");
    let server = setup.set("CARRACK_AUTH__ANONYMOUS_READ", "true").start();
    store(&server, "/v1/files/default/f", b"bytes").await;
    let nobody = Caller::nobody(&server);
    let from = async |address: &str| {
        let request = nobody.request(Method::HEAD, "/v1/files/default/f").header("x-forwarded-for", address);
        request.send().await.unwrap().status().as_u16()
    };
    let admitted = async |address: &str| {
        let mut count = 0;
        while from(address).await == 200 && count < 100 {
            count += 1;
        }
        count
    };
    assert!((3..20).contains(&admitted("10.0.0.1").await));
    assert!(admitted("10.0.0.2").await >= 3, "another address");
    assert!((3..20).contains(&admitted("2001:db8:1:2::1").await));
    assert!(admitted("2001:db8:1:2:ffff::9").await < 3, "the same customer");
    assert!(admitted("2001:db8:1:3::1").await >= 3, "another customer");
    for _ in 0..30 {
        assert_eq!(
            server.get("/v1/me").send().await.unwrap().status(),
            200,
            "administrators are not limited"
        );
    }
    let answer = server.get("/v1/me").send().await.unwrap();
    assert!(answer.headers().get("ratelimit").is_none());
}

#[tokio::test]
async fn an_address_that_brings_bad_credentials_waits_with_good_ones() {
    let server = setup(&[("FAILED_LOGINS_PER_MINUTE", "5")]).start();
    let stranger = Caller::with(&server, "guessed");
    for _ in 0..5 {
        refused(stranger.get("/v1/me").await, 401, "invalid_token").await;
    }
    let refusal = stranger.get("/v1/me").await;
    let seconds: u64 = header(&refusal, "retry-after").parse().unwrap();
    assert!((1..=12).contains(&seconds), "{seconds}");
    refused(refusal, 429, "rate_limited").await;
    refused(server.get("/v1/me").send().await.unwrap(), 429, "rate_limited").await;
    let body = value!({"token": "guessed"});
    refused(Caller::nobody(&server).post("/v1/session", body).await, 429, "rate_limited").await;
    assert_eq!(Caller::nobody(&server).get("/livez").await.status(), 200);
}

#[tokio::test]
async fn passwords_of_links_are_guessed_so_often_and_no_more() {
    let server = setup(&[("PASSWORD_GUESSES_PER_MINUTE", "3")]).start();
    store(&server, "/v1/files/default/f", b"bytes").await;
    let wish = value!({"bucket": "default", "key": "f", "expires_in": 60, "password": "secret"});
    let link = json(server.post("/v1/links").json(&wish).send().await.unwrap(), 201).await;
    let url = link["url"].as_str().unwrap();
    let nobody = Caller::nobody(&server);
    let guess = async |password: &str| {
        nobody.request(Method::POST, url).body(format!("password={password}")).send().await.unwrap()
    };
    for _ in 0..3 {
        refused(guess("wrong").await, 403, "wrong_password").await;
    }
    let refusal = guess("secret").await;
    assert!(!header(&refusal, "retry-after").is_empty());
    refused(refusal, 429, "rate_limited").await;
}

#[tokio::test]
async fn sighup_reads_the_limits_again_and_keeps_them_when_the_new_are_no_good() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("carrack.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("");
    let server = Setup::new().set("CARRACK_CONFIG", file.to_str().unwrap()).start();
    let me = async || json(server.get("/v1/me").send().await.unwrap(), 200).await["limits"].clone();
    let limits = me().await;
    for name in ["requests_per_second", "transfers", "bandwidth", "bandwidth_per_connection", "quota"] {
        assert!(limits[name].is_null(), "{name}: {limits}");
    }
    let reload = async |said: &str| {
        let before = server.log().matches(said).count();
        server.signal("HUP");
        until(said, || server.log().matches(said).count() > before).await;
    };
    write(
        "[limits]\nrequests_per_second = 70\ntransfers_per_user = 5\nbandwidth_per_user = \"3MB\"\nquota_per_user = \"1GB\"\n\
           [limits.roles.admin]\ntransfers_per_user = 9\nbandwidth_per_connection = 1000000\n",
    );
    reload("limits and the signing keys were read again").await;
    let limits = me().await;
    let expected = value!({"max_size": limits["max_size"], "buckets": null, "requests_per_second": 70, "transfers": 9,
        "bandwidth": 3_000_000, "bandwidth_per_connection": 1_000_000, "quota": 1_000_000_000});
    assert_eq!(limits, expected);
    write("[limits]\nrequests_per_second = -1\n");
    reload("limits or signing keys are no good").await;
    assert_eq!(me().await, expected);
}

#[tokio::test]
async fn what_is_refused_is_measured() {
    let server = setup(&[("ROLES__GUEST__REQUESTS_PER_SECOND", "1")]).start();
    let nobody = Caller::nobody(&server);
    for _ in 0..10 {
        nobody.get("/openapi.json").await;
    }
    let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("carrack_limit_refusals_total{limit=\"requests\"}"), "{metrics}");
}

/// A server whose limits are those of a default one refuses nobody.
#[tokio::test]
async fn nothing_is_limited_by_default() {
    let server = Server::start();
    for _ in 0..300 {
        let answer = server.get("/v1/me").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.headers().get("ratelimit-policy").is_none());
    }
}
