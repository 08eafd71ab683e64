//! Prints what it costs to know who is calling and what they may do: `cargo bench -p carrack-service --bench authorize`.
//!
//! A bearer brings a token that others have signed; the bucket's policy has 100 rules, of which the last one decides. Each line
//! is the whole of it, credentials to grant: for a token that is seen for the first time, and for one that was seen.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use carrack_catalog::{Catalog, SqliteCatalog, SqliteOptions};
use carrack_domain::access::{FileRef, ReadFile, authorize};
use carrack_domain::file::BucketSettings;
use carrack_domain::policy::{Circumstances, Policy};
use carrack_domain::{BucketName, Clock, Entropy, Key, Timestamp};
use carrack_service::access::{Access, Credentials, Options};
use carrack_service::coherence::Coherence;
use carrack_service::contents::Contents;
use carrack_service::facts::Facts;
use carrack_service::jwt::{Issuer, KeySource, Signing};
use carrack_service::keys::{KeyRing, Secret};
use carrack_service::{Core, Limits};
use carrack_state::MemoryState;
use carrack_storage::{Durability, LocalOptions, LocalStore};
use serde_json::{Value, json};
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::task::TaskTracker;

const TOKENS: usize = 5_000;
const RULES: usize = 100;
const NOW: i64 = 1_700_000_000;

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Stands still.
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(NOW * 1000)
    }
}

impl Entropy for Still {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

/// The keys of the issuer.
struct Set(Value);

#[async_trait::async_trait]
impl KeySource for Set {
    async fn fetch(&self) -> Result<Vec<u8>, String> {
        Ok(self.0.to_string().into_bytes())
    }
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Signs in one way; its public key, and the algorithm's name.
type Sign = Box<dyn Fn(&[u8]) -> Outcome<Vec<u8>>>;

fn signers() -> Outcome<Vec<(&'static str, Value, Sign)>> {
    let ed = Ed25519KeyPair::generate()?;
    let ed_key = json!({"kty": "OKP", "crv": "Ed25519", "kid": "EdDSA", "x": b64(ed.public_key())});
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
    let point = ec.public_key().as_ref();
    let ec_key =
        json!({"kty": "EC", "crv": "P-256", "kid": "ES256", "x": b64(&point[1..33]), "y": b64(&point[33..])});
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048)?;
    let public = rsa.public_key();
    let (n, e) = (public.modulus(), public.exponent());
    let rsa_key = json!({"kty": "RSA", "alg": "RS256", "kid": "RS256",
        "n": b64(n.big_endian_without_leading_zero()), "e": b64(e.big_endian_without_leading_zero())});
    Ok(vec![
        (
            "RS256",
            rsa_key,
            Box::new(move |message| {
                let mut signature = vec![0; rsa.public_modulus_len()];
                rsa.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)?;
                Ok(signature)
            }),
        ),
        (
            "ES256",
            ec_key,
            Box::new(move |message| Ok(ec.sign(&SystemRandom::new(), message)?.as_ref().to_vec())),
        ),
        ("EdDSA", ed_key, Box::new(move |message| Ok(ed.sign(message).as_ref().to_vec()))),
    ])
}

fn token(alg: &str, number: usize, sign: &Sign) -> Outcome<String> {
    let header = json!({"alg": alg, "kid": alg, "typ": "JWT"});
    let claims = json!({"iss": "https://id.example", "aud": "carrack", "sub": format!("user-{number}"),
        "iat": NOW - 10, "exp": NOW + 3600, "jti": format!("{number:032}"), "role": "user"});
    let message = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
    let signature = b64(sign(message.as_bytes())?);
    Ok(format!("{message}.{signature}"))
}

/// Rules that do not fit, each for another reason, before the one that does.
fn policy() -> Outcome<Policy> {
    let rule = |effect: &str, to: String, prefix: String, when: Value| json!({"effect": effect, "actions": ["read"], "to": [to], "prefix": prefix, "when": when});
    let mut rules: Vec<Value> = (0..RULES - 1)
        .map(|number| match number % 3 {
            0 => rule("allow", format!("user:somebody-{number}"), String::new(), json!({})),
            1 => rule("deny", "everyone".to_owned(), format!("private/{number}/"), json!({})),
            _ => rule(
                "deny",
                "role:user".to_owned(),
                String::new(),
                json!({"ip": [format!("10.{number}.0.0/16")]}),
            ),
        })
        .collect();
    rules.push(rule("allow", "role:user".to_owned(), "public/".to_owned(), json!({})));
    Ok(serde_json::from_value(json!({ "rules": rules }))?)
}

async fn access(folder: &Path, keys: Vec<Value>) -> Outcome<Access> {
    let path = folder.join("catalog.sqlite");
    let catalog: Arc<dyn Catalog> = Arc::new(SqliteCatalog::open(SqliteOptions {
        path,
        readers: 1,
        queue: 16,
        audit: None,
        events: None,
    })?);
    let settings = BucketSettings { policy: Some(policy()?), ..BucketSettings::default() };
    catalog.put_bucket(&BucketName::parse("default")?, &settings, Still.now()).await?;
    let storage = Arc::new(LocalStore::open(LocalOptions {
        folder: folder.to_owned(),
        durability: Durability::Process,
        reserve_bytes: 0,
        open_blobs_max: 16,
    })?);
    let state = Arc::new(MemoryState::new("one".to_owned()));
    let coherence = Arc::new(Coherence::new(state.clone(), &Still));
    let core = Core {
        writers: carrack_service::upload::writers::Writers::default(),
        facts: Facts::new(catalog.clone(), coherence.clone()),
        coherence,
        events: None,
        contents: Contents::new(catalog.clone(), storage.clone()),
        catalog,
        storage,
        state,
        clock: Arc::new(Still),
        entropy: Arc::new(Still),
        limits: Limits {
            file_size_max: 1 << 30,
            part_size: NonZeroU64::MIN,
            upload_ttl: Duration::from_secs(60),
            archive_entries_max: 10,
            archive_bytes_max: 1 << 30,
            archive_ttl: Duration::from_secs(60),
            archive_workers: 1,
            encodings_quota: 0,
        },
        is_alone: true,
        tasks: TaskTracker::new(),
    };
    let issuer = Issuer {
        issuer: "https://id.example".to_owned(),
        audience: "carrack".to_owned(),
        algorithms: vec![Signing::Rs256, Signing::Es256, Signing::EdDsa],
        source: Box::new(Set(json!({ "keys": keys }))),
    };
    let ring = KeyRing::new(&[Secret { kid: "k".to_owned(), secret: "s".repeat(32) }])?;
    let options =
        Options { root_token: "root".to_owned(), keys: ring, anonymous_read: false, issuers: vec![issuer] };
    let access = Access::new(Arc::new(core), options);
    access.read_policies().await?;
    Ok(access)
}

#[expect(clippy::print_stdout, reason = "a benchmark prints what it has measured")]
fn report(what: &str, mut nanos: Vec<u128>) {
    nanos.sort_unstable();
    let at = |share: f64| nanos[(nanos.len() as f64 * share) as usize] as f64 / 1000.0;
    println!("{what:<44} median {:>8.2} us   p99 {:>8.2} us   (bound of p99: 20)", at(0.5), at(0.99));
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let folder = tempfile::tempdir()?;
    let signers = signers()?;
    let access = access(folder.path(), signers.iter().map(|(_, key, _)| key.clone()).collect()).await?;
    let place = FileRef { bucket: BucketName::parse("default")?, key: Key::parse("public/a/file.bin")? };
    let here = Circumstances { address: Some("192.0.2.1".parse()?), tls: true, now: Still.now() };
    for (alg, _, sign) in &signers {
        let tokens: Vec<String> =
            (0..TOKENS).map(|number| token(alg, number, sign)).collect::<Outcome<_>>()?;
        for seen in ["first", "again"] {
            let mut nanos = Vec::with_capacity(TOKENS);
            for token in &tokens {
                let begun = Instant::now();
                let principal = access.authenticate(Credentials::Bearer(token), here).await?;
                let grant = authorize::<ReadFile>(&principal, place.clone())?;
                nanos.push(begun.elapsed().as_nanos());
                drop(grant);
            }
            report(&format!("{alg} and {RULES} rules, token seen {seen}"), nanos);
        }
    }
    Ok(())
}
