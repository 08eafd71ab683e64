//! Signed URLs and links: what was sealed opens as it was, for its purpose and context alone; nothing else opens at all.

#![no_main]

use carrack_service::keys::{KeyRing, Purpose, Secret};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static RING: LazyLock<KeyRing> = LazyLock::new(|| {
    let secret = |kid: &str, letter: &str| Secret { kid: kid.to_owned(), secret: letter.repeat(64) };
    KeyRing::new(&[secret("k1", "a"), secret("k2", "b")]).unwrap()
});
const PURPOSES: [Purpose; 4] = [Purpose::Part, Purpose::File, Purpose::Link, Purpose::Unlock];

fuzz_target!(|data: &[u8]| {
    let Some(([which, at, flip, cut], rest)) = data.split_first_chunk::<4>() else { return };
    if let Ok(text) = std::str::from_utf8(data) {
        for purpose in PURPOSES {
            assert!(RING.open(purpose, &[b"/path"], text).is_err(), "nobody sealed {text:?}");
        }
    }
    let (context, payload) = rest.split_at(rest.len().min(usize::from(*cut)));
    if payload.len() > 2000 {
        return;
    }
    let purpose = PURPOSES[usize::from(*which) % PURPOSES.len()];
    let sealed = RING.seal(purpose, &[context], payload).unwrap();
    assert_eq!(RING.open(purpose, &[context], &sealed).unwrap(), payload);
    for other in PURPOSES.into_iter().filter(|other| *other != purpose) {
        assert!(RING.open(other, &[context], &sealed).is_err());
    }
    assert!(RING.open(purpose, &[context, b""], &sealed).is_err(), "another context");
    if let Some((_, shorter)) = context.split_first() {
        assert!(RING.open(purpose, &[shorter], &sealed).is_err(), "another context");
        assert!(RING.open(purpose, &[&context[..1], shorter], &sealed).is_err(), "the same bytes, cut otherwise");
    }
    let mut altered = sealed.clone().into_bytes();
    let at = (usize::from(*at) | usize::from(*cut) << 8) % altered.len();
    altered[at] ^= flip;
    match String::from_utf8(altered) {
        Ok(text) if text != sealed => assert!(RING.open(purpose, &[context], &text).is_err(), "{text} for {sealed}"),
        _ => {}
    }
    for text in [sealed[..at].to_owned(), format!("{sealed}="), format!(" {sealed}")] {
        assert!(RING.open(purpose, &[context], &text).is_err(), "{text}");
    }
});
