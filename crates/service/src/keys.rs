//! The key ring: what the server signs with. The first key signs, every key verifies, so that a new one can be added,
//! put first, and the old one removed once nothing it signed is good any more.
//!
//! *Separation.* A key's secret signs nothing itself: for each [`Purpose`] a key of its own is derived from it
//! (HKDF-SHA-256, RFC 5869, no salt, `carrack/v1/PURPOSE` as info, 32 bytes), so that nothing signed for one purpose is
//! good for another. *Form.* A sealed text is `cs1.KID.PAYLOAD.MAC`: payload and MAC are base64url without padding, the
//! MAC is HMAC-SHA-256 over the purpose, the key's id, the context and the payload as they were received. *Checkpoints* of
//! the audit log are signed with Ed25519, so that others can check them: the key derived for that purpose is the seed.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use aws_lc_rs::{hkdf, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use carrack_domain::audit::checkpoint::{Checkpoint, Signature};
use carrack_domain::{Code, Error, Result};
use std::sync::{Arc, PoisonError, RwLock};

/// What a sealed text begins with.
pub const SEALED: &str = "cs1.";
/// The least bytes of a secret: as many as HMAC-SHA-256 has of strength.
pub const SECRET_BYTES_MIN: usize = 32;
/// The most keys: each is in memory for every purpose.
const KEYS_MAX: usize = 16;
/// The longest id of a key.
const KID_BYTES_MAX: usize = 32;
/// The longest sealed text.
const SEALED_BYTES_MAX: usize = 4096;

/// What something is signed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// One part of one upload.
    Part,
    /// One method on one file.
    File,
    /// A link.
    Link,
    /// That a link's password was given.
    Unlock,
    /// Tokens of others that know the derived key.
    Jwt,
    /// Checkpoints of the audit log.
    Audit,
}

impl Purpose {
    const ALL: [Purpose; 6] =
        [Purpose::Part, Purpose::File, Purpose::Link, Purpose::Unlock, Purpose::Jwt, Purpose::Audit];

    /// Its name in the derivation.
    const fn name(self) -> &'static str {
        match self {
            Purpose::Part => "part",
            Purpose::File => "file",
            Purpose::Link => "link",
            Purpose::Unlock => "unlock",
            Purpose::Jwt => "jwt",
            Purpose::Audit => "audit",
        }
    }
}

/// A key as the operator gave it. It has no `Debug`: nothing of it may reach a log.
#[derive(Clone)]
pub struct Secret {
    /// What names it, in everything it signs.
    pub kid: String,
    /// At least [`SECRET_BYTES_MIN`] bytes.
    pub secret: String,
}

/// A key of the ring, derived for each purpose.
struct Key {
    kid: String,
    macs: [hmac::Key; Purpose::ALL.len()],
    jwt: [u8; 32],
    audit: Ed25519KeyPair,
}

/// See the module's documentation.
pub struct KeyRing {
    keys: RwLock<Arc<Vec<Key>>>,
}

impl KeyRing {
    /// A ring of these keys; the first signs. The sentence says what is wrong with them, and shows no secret.
    pub fn new(secrets: &[Secret]) -> Result<KeyRing, String> {
        Ok(KeyRing { keys: RwLock::new(Arc::new(derive_all(secrets)?)) })
    }

    /// Takes these keys instead, from the next signature on. When they are no good nothing has changed.
    pub fn replace(&self, secrets: &[Secret]) -> Result<(), String> {
        let keys = Arc::new(derive_all(secrets)?);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    fn keys(&self) -> Arc<Vec<Key>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Seals `payload` for `purpose`, good only together with `context`.
    pub fn seal(&self, purpose: Purpose, context: &[&[u8]], payload: &[u8]) -> Result<String> {
        let keys = self.keys();
        let key = keys.first().ok_or_else(|| Error::broken("a ring without keys"))?;
        let payload = URL_SAFE_NO_PAD.encode(payload);
        let mac = hmac::sign(&key.macs[purpose as usize], &message(purpose, &key.kid, context, &payload));
        Ok(format!("{SEALED}{}.{payload}.{}", key.kid, URL_SAFE_NO_PAD.encode(mac)))
    }

    /// The payload of what [`KeyRing::seal`] made; `invalid_signature` for anything else, whatever is wrong with it.
    pub fn open(&self, purpose: Purpose, context: &[&[u8]], sealed: &str) -> Result<Vec<u8>> {
        self.try_open(purpose, context, sealed).ok_or_else(invalid_signature)
    }

    fn try_open(&self, purpose: Purpose, context: &[&[u8]], sealed: &str) -> Option<Vec<u8>> {
        let fields = Some(sealed).filter(|text| text.len() <= SEALED_BYTES_MAX)?.strip_prefix(SEALED)?;
        let (kid, rest) = fields.split_once('.')?;
        let (payload, mac) = rest.split_once('.')?;
        let keys = self.keys();
        let known = keys.iter().find(|key| key.kid == kid);
        // An unknown key takes as long as a wrong signature.
        let key = known.or(keys.first())?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        hmac::verify(&key.macs[purpose as usize], &message(purpose, kid, context, payload), &mac).ok()?;
        known?;
        URL_SAFE_NO_PAD.decode(payload).ok()
    }

    /// The derived key for `HS256` tokens of the key with this id; of the first without one.
    pub fn jwt(&self, kid: Option<&str>) -> Option<[u8; 32]> {
        let keys = self.keys();
        let key = match kid {
            Some(kid) => keys.iter().find(|key| key.kid == kid),
            None => keys.first(),
        };
        key.map(|key| key.jwt)
    }

    /// The id of the key that signs, and its signature of what `prepare` makes with that id.
    pub fn sign_checkpoint(&self, prepare: impl FnOnce(String) -> Checkpoint) -> Result<Checkpoint> {
        let keys = self.keys();
        let key = keys.first().ok_or_else(|| Error::broken("a ring without keys"))?;
        let mut checkpoint = prepare(key.kid.clone());
        let signature = key.audit.sign(&checkpoint.message());
        let bytes = signature.as_ref().try_into().map_err(|_| Error::broken("an odd signature"))?;
        checkpoint.signature = Signature(bytes);
        Ok(checkpoint)
    }

    /// What others check checkpoints with: the id and the Ed25519 public key of each key.
    pub fn audit_keys(&self) -> Vec<(String, [u8; 32])> {
        let public = |key: &Key| Some((key.kid.clone(), key.audit.public_key().as_ref().try_into().ok()?));
        self.keys().iter().filter_map(public).collect()
    }
}

/// Whether a checkpoint was signed by the key that this is the public half of.
pub fn is_signed_by(checkpoint: &Checkpoint, public: &[u8; 32]) -> bool {
    UnparsedPublicKey::new(&ED25519, public).verify(&checkpoint.message(), &checkpoint.signature.0).is_ok()
}

/// The id of the key that a sealed text names.
pub fn kid(sealed: &str) -> &str {
    sealed.strip_prefix(SEALED).and_then(|rest| rest.split('.').next()).unwrap_or("")
}

/// What is said of every signature that is not ours, whatever is wrong with it.
pub fn invalid_signature() -> Error {
    Error::new(
        Code::InvalidSignature,
        "The signature is not valid for this request: use the URL exactly as it was given, with the method it was made for.",
    )
}

/// What is signed. Every field has its length before it, so that no two lists of fields are the same bytes.
fn message(purpose: Purpose, kid: &str, context: &[&[u8]], payload: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(128 + payload.len());
    message.extend_from_slice(b"carrack/v1\0");
    let fields = [purpose.name().as_bytes(), kid.as_bytes()];
    for field in fields.iter().chain(context).chain([&payload.as_bytes()]) {
        message.extend_from_slice(&(field.len() as u64).to_be_bytes());
        message.extend_from_slice(field);
    }
    message
}

fn derive_all(secrets: &[Secret]) -> Result<Vec<Key>, String> {
    if secrets.is_empty() || secrets.len() > KEYS_MAX {
        return Err(format!("found {} keys, expected 1 to {KEYS_MAX}", secrets.len()));
    }
    let mut keys: Vec<Key> = Vec::new();
    for secret in secrets {
        let kid = &secret.kid;
        let plain = kid.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if kid.is_empty() || kid.len() > KID_BYTES_MAX || !plain {
            return Err(format!("found kid {kid:?}, expected 1 to {KID_BYTES_MAX} of a-z A-Z 0-9 - _"));
        }
        if keys.iter().any(|key| key.kid == *kid) {
            return Err(format!("found kid {kid:?} twice, expected each once"));
        }
        let length = secret.secret.len();
        if length < SECRET_BYTES_MIN {
            return Err(format!(
                "the secret of key {kid:?} has {length} bytes, expected at least {SECRET_BYTES_MIN}, such as 'openssl rand -hex 32' makes"
            ));
        }
        keys.push(derive(secret).ok_or_else(|| format!("the key {kid:?} cannot be derived"))?);
    }
    Ok(keys)
}

fn derive(secret: &Secret) -> Option<Key> {
    let pseudorandom = hkdf::Salt::new(hkdf::HKDF_SHA256, b"").extract(secret.secret.as_bytes());
    let of = |purpose: Purpose| {
        let info = format!("carrack/v1/{}", purpose.name());
        let mut bytes = [0; 32];
        pseudorandom.expand(&[info.as_bytes()], hkdf::HKDF_SHA256).ok()?.fill(&mut bytes).ok()?;
        Some(bytes)
    };
    let mut derived = [[0; 32]; Purpose::ALL.len()];
    for purpose in Purpose::ALL {
        derived[purpose as usize] = of(purpose)?;
    }
    let macs = derived.map(|bytes| hmac::Key::new(hmac::HMAC_SHA256, &bytes));
    let audit = Ed25519KeyPair::from_seed_unchecked(&derived[Purpose::Audit as usize]).ok()?;
    Some(Key { kid: secret.kid.clone(), macs, jwt: derived[Purpose::Jwt as usize], audit })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(kid: &str, letter: char) -> Secret {
        Secret { kid: kid.to_owned(), secret: letter.to_string().repeat(SECRET_BYTES_MIN) }
    }

    fn code(result: Result<Vec<u8>>) -> Code {
        result.unwrap_err().code()
    }

    #[test]
    fn what_was_sealed_opens_for_the_same_purpose_in_the_same_context() {
        let ring = KeyRing::new(&[secret("a", 'x')]).unwrap();
        let sealed = ring.seal(Purpose::Part, &[b"PUT", b"/x"], b"payload").unwrap();
        assert_eq!(ring.open(Purpose::Part, &[b"PUT", b"/x"], &sealed).unwrap(), b"payload");
        assert_eq!(code(ring.open(Purpose::File, &[b"PUT", b"/x"], &sealed)), Code::InvalidSignature);
        for context in
            [&[b"PUT", b"/y".as_slice()][..], &[b"PUT/x"], &[b"PU", b"T/x"], &[], &[b"PUT", b"/x", b""]]
        {
            assert_eq!(code(ring.open(Purpose::Part, context, &sealed)), Code::InvalidSignature);
        }
    }

    #[test]
    fn no_byte_can_be_changed_added_or_left_out() {
        let ring = KeyRing::new(&[secret("a", 'x')]).unwrap();
        let sealed = ring.seal(Purpose::File, &[b"c"], b"some payload of no round length").unwrap();
        for at in 0..sealed.len() {
            for bit in 0..7 {
                let mut bytes = sealed.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let altered = String::from_utf8(bytes).unwrap();
                assert_eq!(
                    code(ring.open(Purpose::File, &[b"c"], &altered)),
                    Code::InvalidSignature,
                    "{altered}"
                );
            }
            let cut = format!("{}{}", &sealed[..at], &sealed[at + 1..]);
            assert_eq!(code(ring.open(Purpose::File, &[b"c"], &cut)), Code::InvalidSignature);
        }
        for more in ["=", "A", ".", " ", "\0"] {
            assert!(ring.open(Purpose::File, &[b"c"], &format!("{sealed}{more}")).is_err());
        }
        assert!(ring.open(Purpose::File, &[b"c"], &"a.".repeat(1 << 20)).is_err());
    }

    #[test]
    fn a_rotation_fails_nothing_that_is_good() {
        let (old, new) = (secret("old", 'x'), secret("new", 'y'));
        let ring = KeyRing::new(std::slice::from_ref(&old)).unwrap();
        let first = ring.seal(Purpose::File, &[], b"1").unwrap();
        ring.replace(&[old.clone(), new.clone()]).unwrap();
        assert!(ring.seal(Purpose::File, &[], b"").unwrap().starts_with("cs1.old."));
        ring.replace(&[new.clone(), old]).unwrap();
        let second = ring.seal(Purpose::File, &[], b"2").unwrap();
        assert!(second.starts_with("cs1.new."));
        assert!(
            ring.open(Purpose::File, &[], &first).is_ok() && ring.open(Purpose::File, &[], &second).is_ok()
        );
        ring.replace(&[new]).unwrap();
        assert_eq!(code(ring.open(Purpose::File, &[], &first)), Code::InvalidSignature);
        assert!(ring.open(Purpose::File, &[], &second).is_ok());
        assert!(ring.replace(&[]).is_err());
        assert!(ring.open(Purpose::File, &[], &second).is_ok(), "a bad ring changes nothing");
    }

    #[test]
    fn bad_rings_say_why_and_show_no_secret() {
        let short = Secret { kid: "k".into(), secret: "too-short".into() };
        for (secrets, expected) in [
            (vec![], "expected 1 to 16"),
            (vec![secret("", 'x')], "kid"),
            (vec![secret("a.b", 'x')], "a.b"),
            (vec![secret("a", 'x'), secret("a", 'y')], "twice"),
            (vec![short], "at least 32"),
        ] {
            let said = KeyRing::new(&secrets).err().unwrap();
            assert!(
                said.contains(expected) && !said.contains("xxx") && !said.contains("too-short"),
                "{said}"
            );
        }
    }

    /// So that others can derive the key for their tokens.
    #[test]
    fn derivation_is_as_documented() {
        let ring = KeyRing::new(&[secret("a", 'x')]).unwrap();
        let prk = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[0; 32]), &[b'x'; 32]);
        let okm = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, prk.as_ref()), b"carrack/v1/jwt\x01");
        assert_eq!(ring.jwt(None).unwrap(), okm.as_ref());
        assert_eq!(ring.jwt(Some("a")), ring.jwt(None));
        assert_eq!(ring.jwt(Some("b")), None);
    }
}
