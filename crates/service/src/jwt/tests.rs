use super::*;
use crate::keys::Secret;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use carrack_domain::Code;
use serde_json::{Value, json};
use std::sync::Mutex as Plain;
use std::sync::atomic::AtomicI64;

const NOW: i64 = 1_700_000_000;

/// A clock that is moved by hand, in seconds.
struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed) * 1000)
    }
}

/// A source that counts how often it is asked.
#[derive(Clone, Default)]
struct Counted(Arc<(Plain<Option<Value>>, AtomicU64)>);

#[async_trait]
impl KeySource for Counted {
    async fn fetch(&self) -> Result<Vec<u8>, String> {
        self.0.1.fetch_add(1, Ordering::Relaxed);
        let set = self.0.0.lock().unwrap();
        set.as_ref().map(|set| set.to_string().into_bytes()).ok_or_else(|| "no answer".to_owned())
    }
}

/// Somebody who signs.
enum Signer {
    Ed(Ed25519KeyPair),
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Signer::Ed(key) => key.sign(message).as_ref().to_vec(),
            Signer::Ec(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Signer::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }

    fn alg(&self) -> &'static str {
        match self {
            Signer::Ed(_) => "EdDSA",
            Signer::Ec(_) => "ES256",
            Signer::Rsa(_) => "RS256",
        }
    }

    fn jwk(&self, kid: &str) -> Value {
        match self {
            Signer::Ed(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "use": "sig", "x": b64(key.public_key())})
            }
            Signer::Ec(key) => {
                let point = key.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": b64(&point[1..33]), "y": b64(&point[33..])})
            }
            Signer::Rsa(key) => {
                let public = key.public_key();
                let modulus = public.modulus();
                let exponent = public.exponent();
                json!({"kty": "RSA", "alg": "RS256", "kid": kid,
                       "n": b64(modulus.big_endian_without_leading_zero()),
                       "e": b64(exponent.big_endian_without_leading_zero())})
            }
        }
    }

    fn token(&self, kid: &str, claims: &Value) -> String {
        self.with_header(&json!({"alg": self.alg(), "kid": kid, "typ": "JWT"}), &claims.to_string())
    }

    fn with_header(&self, header: &Value, claims: &str) -> String {
        let message = format!("{}.{}", b64(header.to_string()), b64(claims));
        format!("{message}.{}", b64(self.sign(message.as_bytes())))
    }
}

fn signers() -> [Signer; 3] {
    [
        Signer::Ed(Ed25519KeyPair::generate().unwrap()),
        Signer::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()),
        Signer::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
    ]
}

fn claims() -> Value {
    json!({"iss": "https://id", "aud": "carrack", "sub": "alice", "exp": NOW + 60, "iat": NOW})
}

struct World {
    tokens: Tokens,
    ring: KeyRing,
    clock: Arc<Hand>,
    source: Counted,
}

impl World {
    fn new(algorithms: &[Signing]) -> World {
        let (clock, source) = (Arc::new(Hand(AtomicI64::new(NOW))), Counted::default());
        let issuer = Issuer {
            issuer: "https://id".into(),
            audience: "carrack".into(),
            algorithms: algorithms.to_vec(),
            source: Box::new(source.clone()),
        };
        let secret = Secret { kid: "ring".into(), secret: "s".repeat(32) };
        let ring = KeyRing::new(&[secret]).unwrap();
        World { tokens: Tokens::new(vec![issuer], clock.clone()), ring, clock, source }
    }

    fn all() -> World {
        World::new(&[Signing::Rs256, Signing::Es256, Signing::EdDsa])
    }

    fn publish(&self, keys: &[Value]) {
        *self.source.0.0.lock().unwrap() = Some(json!({ "keys": keys }));
    }

    fn asked(&self) -> u64 {
        self.source.0.1.load(Ordering::Relaxed)
    }

    async fn who(&self, token: &str) -> Option<Identity> {
        match self.tokens.verify(&self.ring, token).await {
            Ok(identity) => Some(identity),
            Err(error) => {
                assert_eq!(error.code(), Code::InvalidToken);
                None
            }
        }
    }

    fn own(&self, claims: &Value) -> String {
        let header = b64(json!({"alg": "HS256", "typ": "JWT"}).to_string());
        let message = format!("{header}.{}", b64(claims.to_string()));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &self.ring.jwt(None).unwrap());
        format!("{message}.{}", b64(aws_lc_rs::hmac::sign(&key, message.as_bytes())))
    }
}

fn with(mut claims: Value, more: Value) -> Value {
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    claims
}

fn without(mut claims: Value, name: &str) -> Value {
    claims.as_object_mut().unwrap().remove(name);
    claims
}

#[tokio::test]
async fn tokens_of_a_trusted_issuer_say_who_it_is() {
    let world = World::all();
    let signers = signers();
    let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk(signer.alg())).collect();
    world.publish(&keys);
    for signer in &signers {
        let identity = world.who(&signer.token(signer.alg(), &claims())).await.unwrap();
        assert_eq!((identity.subject.as_str(), identity.role), ("alice", Role::User));
        assert_eq!(identity.expires_at.unwrap().as_secs(), NOW + 60);
        let more = json!({"role": "admin", "buckets": ["one-bucket"], "aud": ["x", "carrack"], "jti": "1", "nbf": NOW});
        let identity = world.who(&signer.token(signer.alg(), &with(claims(), more))).await.unwrap();
        assert_eq!((identity.role, identity.buckets.unwrap().len()), (Role::Admin, 1));
        let nameless = json!({"alg": signer.alg()});
        assert!(world.who(&signer.with_header(&nameless, &claims().to_string())).await.is_some());
    }
    assert_eq!(world.asked(), 1, "the keys are kept");
}

#[tokio::test]
async fn claims_have_to_be_there_and_of_their_type() {
    let world = World::all();
    let [signer, ..] = signers();
    world.publish(&[signer.jwk("k")]);
    for name in ["iss", "aud", "sub", "exp", "iat"] {
        assert!(world.who(&signer.token("k", &without(claims(), name))).await.is_none(), "without {name}");
    }
    for bad in [
        json!({"exp": NOW}),
        json!({"exp": NOW - 1}),
        json!({"exp": -1}),
        json!({"exp": (NOW + 60).to_string()}),
        json!({"exp": 1e308}),
        json!({"exp": NOW as f64 + 60.5}),
        json!({"exp": null}),
        json!({"exp": [NOW + 60]}),
        json!({"nbf": NOW + 61}),
        json!({"nbf": "0"}),
        json!({"iat": NOW + 61}),
        json!({"iat": NOW + 30, "exp": NOW + 20}),
        json!({"aud": "other"}),
        json!({"aud": []}),
        json!({"aud": ["other"]}),
        json!({"aud": ""}),
        json!({"aud": {"carrack": 1}}),
        json!({"iss": "https://other"}),
        json!({"iss": ["https://id"]}),
        json!({"sub": ""}),
        json!({"sub": "root"}),
        json!({"sub": "guest"}),
        json!({"sub": 7}),
        json!({"sub": "x".repeat(300)}),
        json!({"role": "boss"}),
        json!({"role": ["admin"]}),
        json!({"buckets": [".."]}),
        json!({"buckets": "default"}),
    ] {
        assert!(world.who(&signer.token("k", &with(claims(), bad.clone()))).await.is_none(), "{bad}");
    }
    let header = json!({"alg": "EdDSA", "kid": "k"});
    let twice = claims().to_string().replacen('{', "{\"exp\": 99999999999, ", 1);
    let deep = format!("{{\"a\": {}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    for bad in [twice.as_str(), "", "[]", "null", "{", "\"x\"", &deep] {
        assert!(world.who(&signer.with_header(&header, bad)).await.is_none(), "{bad:.40}");
    }
}

#[tokio::test]
async fn the_algorithm_is_that_of_the_key_and_headers_bring_none_of_their_own() {
    let world = World::all();
    let [ed, ec, rsa] = signers();
    world.publish(&[ed.jwk("ed"), ec.jwk("ec"), rsa.jwk("rsa")]);
    let text = claims().to_string();
    for (signer, alg, kid) in [
        (&ed, "none", "ed"),
        (&ed, "ES256", "ed"),
        (&ed, "RS256", "rsa"),
        (&ec, "EdDSA", "ec"),
        (&rsa, "RS384", "rsa"),
        (&rsa, "PS256", "rsa"),
        (&rsa, "HS256", "rsa"),
        (&ed, "eddsa", "ed"),
        (&ed, "", "ed"),
        (&ed, "EdDSA", "unknown"),
    ] {
        let header = json!({"alg": alg, "kid": kid});
        assert!(world.who(&signer.with_header(&header, &text)).await.is_none(), "{header}");
    }
    for more in [
        json!({"crit": ["exp"]}),
        json!({"jwk": ed.jwk("ed")}),
        json!({"jku": "https://evil"}),
        json!({"x5u": "https://evil"}),
        json!({"x5c": []}),
        json!({"zip": "DEF"}),
        json!({"b64": false}),
        json!({"typ": "share"}),
        json!({"typ": "refresh"}),
        json!({"kid": 7}),
    ] {
        let header = with(json!({"alg": "EdDSA", "kid": "ed"}), more);
        assert!(world.who(&ed.with_header(&header, &text)).await.is_none(), "{header}");
    }
    // A public key is no secret to sign with.
    let Signer::Rsa(pair) = &rsa else { unreachable!() };
    let message = format!("{}.{}", b64(json!({"alg": "HS256", "kid": "rsa"}).to_string()), b64(&text));
    for secret in [pair.public_key().as_ref().to_vec(), b64(pair.public_key()).into_bytes(), Vec::new()] {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
        let mac = aws_lc_rs::hmac::sign(&key, message.as_bytes());
        assert!(world.who(&format!("{message}.{}", b64(mac))).await.is_none());
    }
    let good = ed.token("ed", &claims());
    assert!(world.who(&good).await.is_some());
    let (unsigned, _) = good.rsplit_once('.').unwrap();
    for bad in [
        format!("{unsigned}."),
        unsigned.to_owned(),
        format!("{good}="),
        format!("{good}.x"),
        good[..good.len() - 1].to_owned(),
    ] {
        assert!(world.who(&bad).await.is_none(), "{bad}");
    }
    let only_rsa = World::new(&[Signing::Rs256]);
    only_rsa.publish(&[ed.jwk("ed"), rsa.jwk("rsa")]);
    assert!(only_rsa.who(&good).await.is_none(), "not taken from this issuer");
    assert!(only_rsa.who(&rsa.token("rsa", &claims())).await.is_some());
}

#[tokio::test]
async fn what_the_ring_has_signed_is_for_this_server_alone() {
    let world = World::all();
    let good = with(claims(), json!({"iss": OWN, "aud": OWN}));
    assert_eq!(world.who(&world.own(&good)).await.unwrap().subject, "alice");
    for bad in [json!({"iss": "https://id"}), json!({"aud": "other"}), json!({"exp": NOW})] {
        assert!(world.who(&world.own(&with(good.clone(), bad.clone()))).await.is_none(), "{bad}");
    }
    assert_eq!(world.asked(), 0, "nobody is asked");
    let other = World::all();
    other.ring.replace(&[Secret { kid: "ring".into(), secret: "t".repeat(32) }]).unwrap();
    assert!(other.who(&world.own(&good)).await.is_none());
}

#[tokio::test]
async fn keys_are_asked_for_seldom_however_many_unknown_ones_are_named() {
    let world = World::all();
    let [ed, ec, _] = signers();
    world.publish(&[ed.jwk("old")]);
    assert!(world.who(&ed.token("old", &claims())).await.is_some());
    let first = world.tokens.generation();
    for number in 0..100 {
        assert!(world.who(&ed.token(&format!("unknown-{number}"), &claims())).await.is_none());
    }
    assert_eq!(world.asked(), 1, "within half a minute nobody makes us ask again");
    world.publish(&[ec.jwk("new")]);
    world.clock.0.fetch_add(30, Ordering::Relaxed);
    assert!(world.who(&ec.token("new", &claims())).await.is_some(), "a new key is found");
    assert_eq!(world.asked(), 2);
    assert!(world.tokens.generation() > first, "what was verified before is verified again");
    assert!(world.who(&ed.token("old", &claims())).await.is_none(), "and one that is gone is gone");
}

#[tokio::test]
async fn keys_outlast_an_issuer_that_is_away_by_an_hour() {
    let world = World::all();
    let [ed, ..] = signers();
    let long = with(claims(), json!({"exp": NOW + 100_000}));
    assert!(world.who(&ed.token("k", &long)).await.is_none(), "no keys yet");
    world.publish(&[ed.jwk("k")]);
    world.clock.0.fetch_add(30, Ordering::Relaxed);
    assert!(world.who(&ed.token("k", &long)).await.is_some());
    *world.source.0.0.lock().unwrap() = None;
    world.clock.0.fetch_add(3599, Ordering::Relaxed);
    assert!(world.who(&ed.token("k", &long)).await.is_some());
    world.clock.0.fetch_add(1, Ordering::Relaxed);
    assert!(world.who(&ed.token("k", &long)).await.is_none(), "a key may have been withdrawn in an hour");
}

#[test]
fn sets_are_bounded_and_what_is_of_no_use_is_left_out() {
    let [ed, ec, rsa] = signers();
    let read = |set: Value| key_set(set.to_string().into_bytes(), Timestamp::from_millis(0));
    let of = |keys: Vec<Value>| read(json!({ "keys": keys })).map(|set| set.keys.len());
    assert_eq!(of(vec![ed.jwk("a"), ec.jwk("b"), rsa.jwk("c")]), Ok(3));
    let wrong_use = with(ed.jwk("a"), json!({"use": "enc"}));
    let wrong_algorithm = with(rsa.jwk("a"), json!({"alg": "RS512"}));
    let secret = json!({"kty": "oct", "k": b64("secret"), "kid": "a"});
    assert_eq!(of(vec![wrong_use, wrong_algorithm, secret]), Ok(0));
    assert!(of(vec![ed.jwk("a"); 101]).is_err());
    assert!(read(json!({"keys": "x"})).is_err() && read(json!([])).is_err());
    assert!(key_set(vec![b' '; KEY_SET_BYTES_MAX + 1], Timestamp::from_millis(0)).is_err());
}
