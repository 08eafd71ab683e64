//! Tokens that a fuzzer makes up, signed or not, against a plain statement of what is taken.

use super::{OWN, Tokens};
use crate::keys::{KeyRing, Secret};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use carrack_domain::{Clock, Role, Timestamp};
use futures_util::FutureExt;
use serde_json::{Map, Value, json};
use std::sync::Arc;

const NOW: i64 = 1_700_000_000;

struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(NOW * 1000)
    }
}

/// Choices out of bytes; the first when they are used up.
struct Dice<'a>(&'a [u8]);

impl Dice<'_> {
    /// A value, or none, and whether it is one that is taken.
    fn pick(&mut self, of: &[(Option<Value>, bool)]) -> (Option<Value>, bool) {
        let byte = match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                usize::from(*byte)
            }
            None => 0,
        };
        of[byte % of.len()].clone()
    }
}

/// Members of a header or of claims that were picked, and whether all of them are taken.
struct Members {
    all: Map<String, Value>,
    sound: bool,
}

impl Members {
    fn add(&mut self, name: &str, dice: &mut Dice<'_>, of: &[(Option<Value>, bool)]) {
        let (value, sound) = dice.pick(of);
        self.sound &= sound;
        if let Some(value) = value {
            self.all.insert(name.to_owned(), value);
        }
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.all.get(name)?.as_i64()
    }
}

fn good(value: impl Into<Value>) -> (Option<Value>, bool) {
    (Some(value.into()), true)
}

fn bad(value: impl Into<Value>) -> (Option<Value>, bool) {
    (Some(value.into()), false)
}

const ABSENT: (Option<Value>, bool) = (None, true);
const MISSING: (Option<Value>, bool) = (None, false);

fn header(dice: &mut Dice<'_>) -> Members {
    let mut header = Members { all: Map::new(), sound: true };
    header.add(
        "alg",
        dice,
        &[good("HS256"), good("HS256"), bad("HS512"), bad("none"), bad("RS256"), bad("hs256"), MISSING],
    );
    header.add("kid", dice, &[good("k"), ABSENT, bad("other"), bad(5), bad("")]);
    header.add("typ", dice, &[ABSENT, good("JWT"), good("jwt"), good("at+JWT"), bad("JOSE"), bad(7)]);
    header.add("x", dice, &[ABSENT, good(1)]);
    for name in super::NOT_TAKEN {
        header.add(name, dice, &[ABSENT, ABSENT, ABSENT, ABSENT, bad(json!(["exp"]))]);
    }
    header
}

fn claims(dice: &mut Dice<'_>) -> Members {
    let mut claims = Members { all: Map::new(), sound: true };
    claims.add("iss", dice, &[good(OWN), good(OWN), bad("other"), MISSING, bad(1)]);
    let audiences = [good(OWN), good(json!(["x", OWN])), bad("other"), bad(json!([])), MISSING, bad(5)];
    claims.add("aud", dice, &audiences);
    let long = "x".repeat(1 << 12);
    let subjects = [
        good("alice"),
        good("a b"),
        bad("root"),
        bad("guest"),
        bad(""),
        bad(" a"),
        bad("a\n"),
        bad(long),
        MISSING,
    ];
    claims.add("sub", dice, &subjects);
    claims.add(
        "exp",
        dice,
        &[
            good(NOW + 600),
            good(NOW + 1),
            good(i64::MAX),
            bad(NOW),
            bad(NOW - 1),
            bad("9"),
            bad(1.5),
            MISSING,
        ],
    );
    claims.add("iat", dice, &[good(NOW), good(NOW + 60), good(0), bad(NOW + 61), bad(i64::MAX), MISSING]);
    claims.add("nbf", dice, &[ABSENT, good(NOW), good(NOW + 60), bad(NOW + 61), bad("x")]);
    claims.add("role", dice, &[ABSENT, good("user"), good("admin"), good("guest"), bad("king"), bad(1)]);
    claims.add(
        "buckets",
        dice,
        &[ABSENT, good(json!(["default"])), good(json!([])), bad(json!(["X"])), bad("default")],
    );
    claims.add("jti", dice, &[ABSENT, good("j"), bad(1)]);
    if let (Some(iat), Some(exp)) = (claims.number("iat"), claims.number("exp")) {
        claims.sound &= iat <= exp;
    }
    claims
}

/// What is wrong with how the token that these bytes say is judged.
pub fn check(data: &[u8]) -> Result<(), String> {
    let secret = |kid: &str, letter: &str| Secret { kid: kid.to_owned(), secret: letter.repeat(64) };
    let ring = KeyRing::new(&[secret("k", "a")])?;
    let tokens = Tokens::new(Vec::new(), Arc::new(Still));
    let verify = |token: &str| tokens.verify(&ring, token).now_or_never();
    if let Ok(text) = std::str::from_utf8(data)
        && !matches!(verify(text), Some(Err(_)))
    {
        return Err("what nobody signed is taken".to_owned());
    }
    let dice = &mut Dice(data);
    let (signed, sound) = dice.pick(&[good(0), good(0), good(0), bad(1), bad(2), bad(3)]);
    let (header, claims) = (header(dice), claims(dice));
    let part = |members: &Members| URL_SAFE_NO_PAD.encode(Value::Object(members.all.clone()).to_string());
    let message = format!("{}.{}", part(&header), part(&claims));
    let key = if signed == Some(json!(1)) { Some([7; 32]) } else { ring.jwt(None) };
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key.ok_or("the ring has no key")?);
    let mut mac = hmac::sign(&key, message.as_bytes()).as_ref().to_vec();
    match signed.and_then(|how| how.as_u64()) {
        Some(2) => mac[31] ^= 1,
        Some(3) => mac.truncate(usize::from(*data.last().unwrap_or(&0)) % 32),
        _ => {}
    }
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac));
    let expected = sound && header.sound && claims.sound;
    let found = verify(&token).ok_or("an issuer was asked")?;
    match (&found, expected) {
        (Err(_), false) => return Ok(()),
        (Ok(_), true) => {}
        _ => {
            return Err(format!(
                "taken: {}, expected: {expected}: {:?} {:?}",
                found.is_ok(),
                header.all,
                claims.all
            ));
        }
    }
    let identity = found.map_err(|error| error.chain())?;
    let role = claims.all.get("role").and_then(Value::as_str).map_or(Some(Role::User), Role::parse);
    let buckets = claims.all.get("buckets").map(|names| names.as_array().map_or(0, Vec::len));
    let same = Some(identity.subject.as_str()) == claims.all["sub"].as_str()
        && Some(identity.role) == role
        && identity.buckets.as_ref().map(Vec::len) == buckets
        && identity.foreign.is_some() == claims.all.contains_key("jti");
    if same { Ok(()) } else { Err(format!("another identity: {identity:?} of {:?}", claims.all)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tokens_are_judged_as_stated(data in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(check(&data), Ok(()));
        }

        #[test]
        fn also_those_that_are_nearly_sound(at in 0usize..22, value in any::<u8>()) {
            let mut data = [0; 22];
            data[at] = value;
            prop_assert_eq!(check(&data), Ok(()));
        }
    }
}
