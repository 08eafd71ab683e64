//! Versions, protocols, resumption, and who is turned away.

use super::{authority, curl, https, s_client, text};
use crate::server::{Server, TOKEN, tool};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn versions_below_the_oldest_are_refused_and_the_others_spoken() {
    let refused = |server: &Server, version: &str| {
        let said = text(&s_client(server, &[version, "-cipher", "DEFAULT@SECLEVEL=0"]));
        let alerts = ["alert protocol version", "alert handshake failure"];
        assert!(
            alerts.iter().any(|alert| said.contains(alert)) && said.contains("Cipher is (NONE)"),
            "{said}"
        );
    };
    let spoken = |server: &Server, version: &str, name: &str| {
        let said = text(&s_client(server, &[version]));
        assert!(said.contains(name) && said.contains("Verify return code: 0 (ok)"), "{said}");
    };
    let server = https().start();
    assert!(server.base.starts_with("https://127.0.0.1:"), "{}", server.base);
    refused(&server, "-tls1");
    refused(&server, "-tls1_1");
    spoken(&server, "-tls1_2", "New, TLSv1.2");
    spoken(&server, "-tls1_3", "New, TLSv1.3");
    let server = https().set("CARRACK_TLS__MIN_VERSION", "1.3").start();
    refused(&server, "-tls1_2");
    spoken(&server, "-tls1_3", "New, TLSv1.3");
}

#[test]
fn only_suites_with_forward_secrecy_and_authenticated_encryption_are_spoken() {
    let server = https().start();
    for cipher in ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA", "AES256-SHA"] {
        let said = text(&s_client(&server, &["-tls1_2", "-cipher", &format!("{cipher}@SECLEVEL=0")]));
        assert!(said.contains("Cipher is (NONE)"), "{cipher}: {said}");
    }
    for cipher in ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"] {
        let said = text(&s_client(&server, &["-tls1_2", "-cipher", cipher]));
        assert!(said.contains(&format!("Cipher is {cipher}")), "{said}");
    }
}

#[test]
fn the_protocol_is_agreed_on() {
    let server = https().start();
    for (offered, agreed) in [("h2,http/1.1", "h2"), ("http/1.1", "http/1.1"), ("http/1.1,h2", "h2")] {
        let said = text(&s_client(&server, &["-alpn", offered]));
        assert!(said.contains(&format!("ALPN protocol: {agreed}")), "{offered}: {said}");
    }
    let said = text(&s_client(&server, &["-alpn", "spdy/3"]));
    assert!(said.contains("no application protocol"), "{said}");
    // Without the extension it is HTTP/1.1 (RFC 9113 §3.3).
    let output = curl("--http1.1")
        .args(["--no-alpn", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", &server.url("/readyz")])
        .output()
        .unwrap();
    assert_eq!(text(&output), "1.1 200");
}

#[tokio::test]
async fn sessions_are_resumed() {
    let server = https().start();
    let session = server.folder().join("session");
    let session = session.to_str().unwrap();
    let mut versions =
        vec![("-tls1_2", vec!["-tls1_2"]), ("-tls1_2 without tickets", vec!["-tls1_2", "-no_ticket"])];
    versions.push(("-tls1_3", vec!["-tls1_3"]));
    for (name, options) in versions {
        for (file, expected) in [("-sess_out", "New, "), ("-sess_in", "Reused, ")] {
            let said = converse(&server, &[&options[..], &[file, session]].concat());
            assert!(said.contains(expected) && said.contains("ready"), "{name} {file}: {said}");
        }
    }
    let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    let count = |version: &str, result: &str| {
        let line = format!("carrack_tls_handshakes_total{{version=\"{version}\",result=\"{result}\"}} ");
        metrics.lines().find_map(|l| l.strip_prefix(&line)).map_or(0, |n| n.parse::<u64>().unwrap())
    };
    assert_eq!(
        (count("1.2", "full"), count("1.2", "resumed"), count("1.3", "resumed")),
        (2, 2, 1),
        "{metrics}"
    );
    assert!(count("1.3", "full") >= 1, "{metrics}");
}

/// Asks one thing through `openssl s_client`, which reads until the server closes: tickets of TLS 1.3 come late.
fn converse(server: &Server, options: &[&str]) -> String {
    let mut child = tool("openssl", "openssl")
        .args(["s_client", "-connect", server.address(), "-ign_eof", "-CAfile"])
        .arg(&authority().cert)
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let request = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    child.stdin.as_mut().unwrap().write_all(request.as_bytes()).unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    said
}

#[tokio::test]
async fn plain_http_is_told_to_come_back_with_tls() {
    let server = https().start();
    for path in ["/readyz", "/v1/files/default/x"] {
        let plain = server.base.replace("https://", "http://");
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.get(plain + path).bearer_auth(TOKEN).send().await.unwrap();
        assert_eq!(answer.status(), 400);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let problem: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(problem["code"], "https_required");
        assert!(problem["detail"].as_str().unwrap().contains("https://"), "{problem}");
    }
    // Something that is neither is closed, with an alert.
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(b"\0\0\0\0\0\0\0\0\0\0").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.first(), Some(&21), "an alert record: {answer:?}");
    let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    for line in [
        "carrack_tls_handshakes_total{version=\"none\",result=\"plain_http\"} 2",
        "carrack_tls_handshakes_total{version=\"none\",result=\"failed\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn a_handshake_that_is_not_finished_ends() {
    let server = https().set("CARRACK_SERVER__HEADER_TIMEOUT", "1s").start();
    // Nothing at all, and the beginning of a record that never ends.
    for bytes in [&b""[..], &[22, 3, 1, 2, 0, 1]] {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(bytes).unwrap();
        let began = Instant::now();
        let ended = stream.read_to_end(&mut Vec::new());
        assert!(matches!(ended, Ok(0)), "{ended:?} after {:?}", began.elapsed());
    }
    // The same for a client that shakes hands and then says nothing, whatever it agreed on.
    for options in [&["-alpn", "h2"][..], &["-alpn", "http/1.1"], &[]] {
        let mut child = tool("openssl", "openssl")
            .args(["s_client", "-connect", server.address(), "-quiet"])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "{options:?}: still connected");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(
        metrics.contains("carrack_tls_handshakes_total{version=\"none\",result=\"timed_out\"} 2"),
        "{metrics}"
    );
}
