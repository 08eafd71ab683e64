//! Tokens that others have signed.

use super::Caller;
use crate::contract::answers::{eventually, json, refused};
use crate::server::{Server, Setup, tool, without_variables};
use serde_json::{Value, json as value};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

/// What `openssl` answers to these words, given these bytes.
pub(super) fn openssl(words: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = tool("openssl", "openssl")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {words:?}");
    output.stdout
}

fn b64(bytes: &[u8]) -> String {
    let text = crate::contract::answers::base64(bytes);
    text.replace('+', "-").replace('/', "_").replace('=', "")
}

#[expect(clippy::disallowed_methods, reason = "tokens are compared with the real clock of the server")]
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", b64(header.to_string().as_bytes()), b64(claims.to_string().as_bytes()))
}

/// A token that an RSA key has signed.
pub(super) fn rs256(key: &Path, kid: &str, claims: &Value) -> String {
    let message = unsigned(&value!({"alg": "RS256", "kid": kid}), claims);
    let signature = openssl(&["dgst", "-sha256", "-sign", key.to_str().unwrap()], message.as_bytes());
    format!("{message}.{}", b64(&signature))
}

/// The public half of an RSA key.
pub(super) fn jwk(key: &Path, kid: &str) -> Value {
    let text = String::from_utf8(openssl(&["rsa", "-in", key.to_str().unwrap(), "-noout", "-modulus"], b""))
        .unwrap();
    let digits = text.trim().strip_prefix("Modulus=").unwrap().to_owned();
    let bytes: Vec<u8> = (0..digits.len() / 2)
        .map(|at| u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).unwrap())
        .collect();
    value!({"kty": "RSA", "kid": kid, "n": b64(&bytes), "e": "AQAB"})
}

pub(super) fn claims(more: Value) -> Value {
    let mut claims = value!({"iss": "https://id.example", "aud": "carrack", "sub": "alice", "exp": now() + 600, "iat": now()});
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    claims
}

#[tokio::test]
async fn an_issuer_whose_keys_are_in_a_file_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let (key, other, set) =
        (folder.path().join("key"), folder.path().join("other"), folder.path().join("set"));
    for key in [&key, &other] {
        openssl(&["genrsa", "-out", key.to_str().unwrap(), "2048"], b"");
    }
    std::fs::write(&set, value!({"keys": [jwk(&key, "k")]}).to_string()).unwrap();
    let setting =
        format!("[{{issuer=\"https://id.example\",audience=\"carrack\",file={:?}}}]", set.to_str().unwrap());
    let server = Setup::new().set("CARRACK_AUTH__JWKS", &setting).start();
    let alice = Caller::with(&server, &rs256(&key, "k", &claims(value!({}))));
    for _ in 0..2 {
        let me = json(alice.get("/v1/me").await, 200).await;
        assert_eq!((&me["subject"], &me["role"]), (&value!("alice"), &value!("user")));
    }
    assert_eq!(json(alice.put("/v1/files/default/f", b"x").await, 201).await["created_by"], "alice");
    let admin = Caller::with(&server, &rs256(&key, "k", &claims(value!({"role": "admin"}))));
    json(admin.get("/v1/tokens").await, 200).await;
    for bad in [
        rs256(&other, "k", &claims(value!({}))),
        rs256(&key, "other", &claims(value!({}))),
        rs256(&key, "k", &claims(value!({"aud": "other"}))),
        rs256(&key, "k", &claims(value!({"iss": "https://other.example"}))),
        rs256(&key, "k", &claims(value!({"exp": now() - 1}))),
        rs256(&key, "k", &claims(value!({"sub": "root"}))),
        format!("{}.", unsigned(&value!({"alg": "none"}), &claims(value!({})))),
    ] {
        refused(Caller::with(&server, &bad).get("/v1/me").await, 401, "invalid_token").await;
    }
    let brief = Caller::with(&server, &rs256(&key, "k", &claims(value!({"exp": now() + 2}))));
    json(brief.get("/v1/me").await, 200).await;
    eventually("it ends although it was seen", async || brief.get("/v1/me").await.status() == 401).await;
}

#[tokio::test]
async fn whoever_has_the_rings_derived_key_signs_for_this_server() {
    let server = Server::start();
    let text = std::fs::read_to_string(server.data.join("signing-keys")).unwrap();
    let (kid, secret) = text.trim().split_once(' ').unwrap();
    // As the documentation says: HKDF-SHA-256, no salt, info carrack/v1/jwt.
    let secret = format!("key:{secret}");
    let derived = openssl(
        &[
            "kdf",
            "-binary",
            "-keylen",
            "32",
            "-kdfopt",
            "digest:SHA256",
            "-kdfopt",
            &secret,
            "-kdfopt",
            "info:carrack/v1/jwt",
            "HKDF",
        ],
        b"",
    );
    let sign = |message: &str| {
        let key = format!("hexkey:{}", crate::contract::answers::hex(&derived));
        b64(&openssl(&["dgst", "-sha256", "-mac", "HMAC", "-macopt", &key, "-binary"], message.as_bytes()))
    };
    let own = claims(value!({"iss": "carrack"}));
    let message = unsigned(&value!({"alg": "HS256", "kid": kid}), &own);
    let token = format!("{message}.{}", sign(&message));
    assert_eq!(json(Caller::with(&server, &token).get("/v1/me").await, 200).await["subject"], "alice");
    let message = unsigned(&value!({"alg": "HS256", "kid": "other"}), &own);
    let token = format!("{message}.{}", sign(&message));
    refused(Caller::with(&server, &token).get("/v1/me").await, 401, "invalid_token").await;
    for huge in [100_000, 10_000] {
        let long = format!("ey{}.{}.x", "A".repeat(huge), "B".repeat(huge));
        let status = Caller::with(&server, &long).get("/v1/me").await.status().as_u16();
        assert!(matches!(status, 401 | 431), "{status}");
    }
}

#[test]
fn issuers_that_make_no_sense_stop_the_start() {
    let folder = tempfile::tempdir().unwrap();
    for (jwks, expected) in [
        ("{issuer = \"i\", audience = \"a\"}", "either url or file"),
        ("{issuer = \"i\", audience = \"a\", url = \"https://x/\", file = \"f\"}", "either url or file"),
        ("{issuer = \"i\", audience = \"a\", url = \"http://id.example/\"}", "expected https"),
        ("{issuer = \"i\", audience = \"a\", url = \"x\"}", "which is none"),
        ("{issuer = \"\", audience = \"a\", file = \"f\"}", "not empty"),
        (
            "{issuer = \"i\", audience = \"a\", file = \"f\", algorithms = [\"HS256\"]}",
            "RS256, ES256 and EdDSA",
        ),
        ("{issuer = \"i\", audience = \"a\", file = \"f\", algorithms = []}", "RS256, ES256 and EdDSA"),
        ("{issuer = \"i\", audience = \"a\", file = \"f\", more = 1}", "more"),
    ] {
        std::fs::write(folder.path().join("carrack.toml"), format!("[auth]\njwks = [{jwks}]\n")).unwrap();
        let output = without_variables(env!("CARGO_BIN_EXE_carrack"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data", "data"])
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("auth.jwks") && said.contains(expected), "{expected}: {said}");
    }
}
