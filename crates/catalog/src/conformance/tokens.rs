use super::*;
use carrack_domain::access::Identity;
use carrack_domain::token::{Carrier, Denial, Token};
use carrack_domain::{ForeignTokenId, Role, TokenId};

fn token_id(number: u8) -> TokenId {
    TokenId::from_bytes([number; 16])
}

pub(super) fn token(number: u8, expires_at: Option<Timestamp>) -> Token {
    let id = token_id(number);
    Token {
        hash: [number; 32],
        id,
        parent: None,
        carrier: Carrier::Bearer,
        identity: Identity {
            subject: format!("\u{e4}nn {number}"),
            role: Role::User,
            buckets: Some(vec![bucket_name("one"), bucket_name("two")]),
            token: Some(id),
            foreign: None,
            expires_at,
        },
        created_at: later(u64::from(number)),
        created_by: "root".to_owned(),
    }
}

pub(super) fn session(number: u8, parent: u8) -> Token {
    let mut session =
        Token { parent: Some(token_id(parent)), carrier: Carrier::Cookie, ..token(number, None) };
    session.identity.foreign = Some(ForeignTokenId::of("https://id.example", "1"));
    session
}

pub(super) async fn life(catalog: &dyn Catalog) {
    assert_code(catalog.token(&token_id(1)).await, Code::TokenNotFound, "token");
    assert_code(catalog.token_by_hash(&[1; 32]).await, Code::TokenNotFound, "token_by_hash");
    assert_code(catalog.delete_token(&token_id(1)).await, Code::TokenNotFound, "delete_token");
    let mut everywhere = token(1, None);
    everywhere.identity.buckets = None;
    everywhere.identity.role = Role::Admin;
    for token in [&token(2, Some(later(60))), &everywhere] {
        catalog.create_token(token).await.unwrap();
        assert_eq!(&catalog.token(&token.id).await.unwrap(), token);
        assert_eq!(&catalog.token_by_hash(&token.hash).await.unwrap(), token);
    }
    let mut nowhere = token(3, None);
    nowhere.identity.buckets = Some(Vec::new());
    catalog.create_token(&nowhere).await.unwrap();
    assert_eq!(catalog.token(&nowhere.id).await.unwrap(), nowhere, "no bucket is not all of them");
    let listed = catalog.tokens(9).await.unwrap();
    assert_eq!(listed.iter().map(|token| token.id).collect::<Vec<_>>(), [1, 2, 3].map(token_id));
    assert_eq!(catalog.tokens(2).await.unwrap().len(), 2);
    assert_eq!(catalog.delete_token(&token_id(2)).await.unwrap(), [token(2, Some(later(60)))]);
    assert_code(catalog.token(&token_id(2)).await, Code::TokenNotFound, "a deleted token");
    assert_eq!(catalog.tokens(9).await.unwrap().len(), 2);
}

pub(super) async fn what_was_made_with_one_ends_with_it(catalog: &dyn Catalog) {
    assert_code(catalog.create_token(&session(9, 1)).await, Code::TokenNotFound, "a session of no token");
    for token in [token(1, None), token(2, None), session(3, 1), session(4, 1), session(5, 2)] {
        catalog.create_token(&token).await.unwrap();
    }
    assert_eq!(catalog.tokens(9).await.unwrap().len(), 2, "sessions are not listed");
    assert_eq!(catalog.delete_token(&token_id(3)).await.unwrap(), [session(3, 1)]);
    assert_eq!(catalog.delete_token(&token_id(1)).await.unwrap(), [token(1, None), session(4, 1)]);
    assert_code(catalog.token(&token_id(4)).await, Code::TokenNotFound, "a session of a deleted token");
    assert_eq!(catalog.token(&token_id(5)).await.unwrap(), session(5, 2));
}

pub(super) async fn expiry(catalog: &dyn Catalog) {
    for token in [token(1, None), token(2, Some(later(10))), token(3, Some(later(20)))] {
        catalog.create_token(&token).await.unwrap();
    }
    assert_eq!(catalog.expire_tokens(later(9)).await.unwrap(), 0);
    assert_eq!(catalog.expire_tokens(later(10)).await.unwrap(), 1);
    assert_code(catalog.token(&token_id(2)).await, Code::TokenNotFound, "an expired token");
    assert_eq!(catalog.expire_tokens(later(99)).await.unwrap(), 1);
    assert_eq!(catalog.tokens(9).await.unwrap().len(), 1, "what has no end stays");
}

pub(super) async fn denials(catalog: &dyn Catalog) {
    let denial = |number: u8, until| Denial {
        issuer: format!("https://id{}.example", number % 2),
        jti: format!("j\u{e4}{number}"),
        until,
        denied_at: later(u64::from(number)),
        denied_by: "root".to_owned(),
    };
    let (one, two, three) = (denial(1, Some(later(10))), denial(2, None), denial(3, Some(later(20))));
    for denial in [&two, &one, &three, &one] {
        catalog.deny_token(denial).await.unwrap();
    }
    assert_eq!(catalog.denied_tokens(9).await.unwrap(), [one.clone(), two.clone(), three.clone()]);
    assert_eq!(catalog.denied_tokens(1).await.unwrap(), std::slice::from_ref(&one));
    let longer = Denial { until: Some(later(30)), ..one.clone() };
    let again = Denial { denied_at: later(50), denied_by: "else".to_owned(), ..longer.clone() };
    catalog.deny_token(&again).await.unwrap();
    assert_eq!(catalog.expire_tokens(later(20)).await.unwrap(), 0, "no token is gone");
    assert_eq!(catalog.denied_tokens(9).await.unwrap(), [longer, two], "what has ended is forgotten");
}
