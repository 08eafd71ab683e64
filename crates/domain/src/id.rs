//! Typed ids: 128 random bits, written as 32 lower-case hex digits. One kind cannot be passed for another.

use crate::clock::Entropy;
use std::fmt;

/// Renders bytes as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Parses exactly `N` bytes of hex, either case; `None` for anything else.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(bytes)
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 16]);

        impl $name {
            /// A fresh, unguessable id.
            pub fn generate(entropy: &dyn Entropy) -> $name {
                let mut bytes = [0; 16];
                entropy.fill(&mut bytes);
                $name(bytes)
            }

            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> $name {
                $name(bytes)
            }

            /// The id's bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// Parses 32 lower-case hex digits; `None` for anything else, so an id has one spelling.
            pub fn parse(text: &str) -> Option<$name> {
                if text.bytes().any(|b| b.is_ascii_uppercase()) {
                    return None;
                }
                unhex(text).map($name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    )*};
}

ids! {
    /// Names immutable bytes: written once, never naming other bytes.
    BlobId;
    /// Names an upload session and the stage that holds its bytes.
    UploadId;
    /// Names an access token; it is not the token.
    TokenId;
    /// Names a token that somebody else has signed: it follows from its issuer and its `jti`.
    ForeignTokenId;
    /// Names a link; it is not the link.
    LinkId;
    /// Names one use of a counted link, and is the way to it.
    ClaimId;
    /// Names the deflated form of a content: it follows from the content and the compressor, so it is the same everywhere.
    EncodingId;
    /// Names an archive, and the job that makes it.
    ArchiveId;
    /// Ties together what one request did, in logs, problems and the `X-Request-Id` header.
    TraceId;
}

impl UploadId {
    /// The name of the blob that the stage of this name becomes: the same, so that bytes can be put under their final
    /// name before they are published, and need not be moved then.
    pub const fn blob(&self) -> BlobId {
        BlobId(self.0)
    }
}

impl BlobId {
    /// The name of the stage that it was.
    pub const fn stage(&self) -> UploadId {
        UploadId(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_only() {
        let id = BlobId::from_bytes([0xab; 16]);
        assert_eq!(BlobId::parse(&id.to_string()), Some(id));
        for bad in ["", "ab", &"AB".repeat(16), &"ab".repeat(17), &"zz".repeat(16), &"é".repeat(16)] {
            assert_eq!(BlobId::parse(bad), None, "{bad}");
        }
    }
}
