//! Who is calling. Credentials become a principal here, once, before any handler runs.

use carrack_domain::{Code, Error, Principal, Result, Role};

/// The subject of the root token.
const ROOT: &str = "root";

/// Verifies credentials.
pub struct Access {
    /// Only the hash is kept: a memory dump does not contain the token.
    root: blake3::Hash,
}

impl Access {
    /// Accepts `root_token` as the first administrator's.
    pub fn new(root_token: &str) -> Access {
        Access { root: blake3::hash(root_token.as_bytes()) }
    }

    /// The principal behind a bearer token; without one, a guest. `invalid_token` for an unknown token.
    pub fn authenticate(&self, bearer: Option<&str>) -> Result<Principal> {
        match bearer {
            None => Ok(Principal::new("guest", Role::Guest)),
            // `blake3::Hash` compares in constant time.
            Some(token) if blake3::hash(token.as_bytes()) == self.root => {
                Ok(Principal::new(ROOT, Role::Admin))
            }
            Some(_) => Err(Error::new(Code::InvalidToken, "The bearer token is not valid here (any more).")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let access = Access::new("secret");
        assert_eq!(access.authenticate(Some("secret")).unwrap().role(), Role::Admin);
        assert_eq!(access.authenticate(None).unwrap().role(), Role::Guest);
        for bad in ["", "Secret", "secret ", "secretsecret"] {
            assert_eq!(access.authenticate(Some(bad)).unwrap_err().code(), Code::InvalidToken);
        }
    }
}
