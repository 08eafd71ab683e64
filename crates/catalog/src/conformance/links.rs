use super::*;
use carrack_domain::file::File;
use carrack_domain::link::{Link, LinkClaim, LinkedArchive, Target};
use carrack_domain::policy::AddressRange;
use carrack_domain::{ArchiveId, ClaimId, ETag, LinkId, Role};

fn link_id(number: u8) -> LinkId {
    LinkId::from_bytes([number; 16])
}

fn claim_id(number: u8) -> ClaimId {
    ClaimId::from_bytes([number; 16])
}

fn link(number: u8, owner: &str, max_downloads: Option<u64>) -> Link {
    let file = new_file(&bucket_name("linked"), &key("k"), blob(7, 30));
    Link {
        id: link_id(number),
        owner: owner.to_owned(),
        role: Role::User,
        target: Target::File(File {
            bucket: file.target.bucket,
            key: file.target.key,
            blob: file.blob,
            content_type: file.target.content_type,
            metadata: file.target.metadata,
            created_at: file.created_at,
            created_by: file.created_by,
        }),
        expires_at: later(100),
        not_before: Some(later(1)),
        max_downloads,
        uses: 0,
        ip: AddressRange::parse("10.0.0.0/8"),
        password: Some("$argon2".to_owned()),
        filename: Some("n\u{e4}me".to_owned()),
        rate_limit: NonZeroU64::new(4096),
        created_at: later(u64::from(number)),
        revoked_at: None,
        last_used_at: None,
    }
}

fn claim(number: u8, link: u8) -> LinkClaim {
    LinkClaim::new(claim_id(number), link_id(link), "10.0.0.1".parse().ok(), later(u64::from(number)))
}

pub(super) async fn life(catalog: &dyn Catalog) {
    assert_code(catalog.link(&link_id(1)).await, Code::LinkNotFound, "link");
    assert_code(catalog.revoke_link(&link_id(1), NOW).await, Code::LinkNotFound, "revoke_link");
    assert_code(catalog.use_link(&link_id(1), None, NOW).await, Code::LinkNotFound, "use_link");
    let bare = Link {
        not_before: None,
        ip: None,
        password: None,
        filename: None,
        rate_limit: None,
        ..link(2, "ann", None)
    };
    let archive = LinkedArchive {
        id: ArchiveId::from_bytes([9; 16]),
        name: "all \"of it\".zip".to_owned(),
        size: 1 << 41,
        etag: ETag::new("z1-tag").expect("a tag"),
    };
    let to_archive = Link { target: Target::Archive(archive), ..link(4, "cid", Some(1)) };
    for link in [&link(1, "ann", Some(2)), &bare, &link(3, "bob", None), &to_archive] {
        catalog.create_link(link).await.unwrap();
        assert_eq!(&catalog.link(&link.id).await.unwrap(), link);
    }
    let listed = catalog.links("ann", 9).await.unwrap();
    assert_eq!(listed.iter().map(|link| link.id).collect::<Vec<_>>(), [2, 1].map(link_id), "newest first");
    assert_eq!(catalog.links("ann", 1).await.unwrap().len(), 1);
    assert_eq!(catalog.links("nobody", 9).await.unwrap(), []);
    catalog.use_link(&link_id(1), Some(&claim(1, 1)), later(5)).await.unwrap();
    catalog.revoke_link(&link_id(1), later(6)).await.unwrap();
    catalog.revoke_link(&link_id(1), later(7)).await.unwrap();
    let revoked = catalog.link(&link_id(1)).await.unwrap();
    assert_eq!((revoked.revoked_at, revoked.uses), (Some(later(6)), 1));
    assert_code(catalog.use_link(&link_id(1), None, later(8)).await, Code::LinkRevoked, "a revoked link");
    assert_code(catalog.claim(&link_id(1), &claim_id(1)).await, Code::LinkUsed, "its claims");
}

pub(super) async fn uses(catalog: &dyn Catalog) {
    catalog.create_link(&link(1, "ann", Some(2))).await.unwrap();
    catalog.create_link(&link(2, "ann", None)).await.unwrap();
    assert_code(catalog.claim(&link_id(1), &claim_id(1)).await, Code::LinkUsed, "claim");
    for number in [1, 2] {
        catalog.use_link(&link_id(1), Some(&claim(number, 1)), later(u64::from(number))).await.unwrap();
        assert_eq!(catalog.claim(&link_id(1), &claim_id(number)).await.unwrap(), claim(number, 1));
    }
    let again = catalog.use_link(&link_id(1), Some(&claim(3, 1)), later(3)).await;
    assert_code(again, Code::LinkUsed, "a third use of two");
    let used = catalog.link(&link_id(1)).await.unwrap();
    assert_eq!((used.uses, used.last_used_at), (2, Some(later(2))));
    let claims = catalog.claims(&link_id(1), 9).await.unwrap();
    assert_eq!(claims, [claim(2, 1), claim(1, 1)], "a refused use leaves no claim");
    assert_eq!(catalog.claims(&link_id(1), 1).await.unwrap().len(), 1);
    assert_code(catalog.claim(&link_id(2), &claim_id(1)).await, Code::LinkUsed, "a claim of another link");
    let mut further = claim(1, 1);
    further.ended(5, 25, 30, true, later(9));
    further.ended(0, 5, 30, true, later(9));
    further.sent = 40;
    catalog.save_claim(&further).await.unwrap();
    assert_eq!(catalog.claim(&link_id(1), &claim_id(1)).await.unwrap(), further);
    catalog.save_claim(&claim(9, 1)).await.expect("one that is gone is none's trouble");
    for _ in 0..3 {
        catalog.use_link(&link_id(2), None, later(4)).await.unwrap();
    }
    assert_eq!(catalog.link(&link_id(2)).await.unwrap().uses, 3);
    let late = catalog.use_link(&link_id(2), None, later(100)).await;
    assert_code(late, Code::LinkExpired, "an expired link");
}

pub(super) async fn expiry(catalog: &dyn Catalog) {
    catalog.create_link(&link(1, "ann", Some(9))).await.unwrap();
    catalog.use_link(&link_id(1), Some(&claim(1, 1)), later(5)).await.unwrap();
    let deadline = claim(1, 1).deadline;
    catalog.expire_links(later(200), later(100)).await.unwrap();
    assert!(
        catalog.claim(&link_id(1), &claim_id(1)).await.is_ok() && catalog.link(&link_id(1)).await.is_ok()
    );
    catalog.expire_links(deadline, later(100)).await.unwrap();
    assert_code(catalog.claim(&link_id(1), &claim_id(1)).await, Code::LinkUsed, "a claim past its deadline");
    catalog.expire_links(deadline, later(101)).await.unwrap();
    assert_code(catalog.link(&link_id(1)).await, Code::LinkNotFound, "a link long expired");
}

pub(super) async fn as_many_as_there_are(catalog: Arc<dyn Catalog>) {
    catalog.create_link(&link(1, "ann", Some(5))).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..50 {
        let catalog = catalog.clone();
        tasks.spawn(
            async move { catalog.use_link(&link_id(1), Some(&claim(number, 1)), later(5)).await.is_ok() },
        );
    }
    let taken = tasks.join_all().await.into_iter().filter(|taken| *taken).count();
    assert_eq!((taken, catalog.claims(&link_id(1), 99).await.unwrap().len()), (5, 5));
}

/// A link of which one of two uses is claimed, and not at its end.
pub(super) async fn used_once_of_two(catalog: &dyn Catalog) {
    catalog.create_link(&link(1, "ann", Some(2))).await.unwrap();
    catalog.use_link(&link_id(1), Some(&claim(1, 1)), later(2)).await.unwrap();
    let link = catalog.link(&link_id(1)).await.unwrap();
    assert_eq!(link.uses, 1);
}
