use super::*;
use carrack_domain::access::FileRef;

pub(super) async fn quotas(catalog: &dyn Catalog) {
    let name = bucket_name("owned");
    put_bucket(catalog, &name, None).await;
    let file = |text: &str, number: u64, size: u64, owner: &str| NewFile {
        created_by: owner.to_owned(),
        ..new_file(&name, &key(text), blob(number, size))
    };
    let fits = async |text: &str, owner: &str, bytes: u64| {
        let place = FileRef { bucket: name.clone(), key: key(text) };
        match catalog.check_owner_quota(owner, &place, bytes).await {
            Ok(()) => true,
            Err(error) => {
                assert_eq!(error.code(), Code::QuotaExceeded);
                false
            }
        }
    };
    assert!(fits("a", "alice", u64::MAX).await, "nobody said how much");
    catalog.set_owner_quota("alice", Some(100)).await.unwrap();
    assert!(fits("a", "alice", 100).await && !fits("a", "alice", 101).await && fits("a", "bob", 101).await);
    catalog.commit_file(file("a", 1, 60, "alice")).await.unwrap();
    assert!(fits("b", "alice", 40).await && !fits("b", "alice", 41).await);
    assert!(fits("a", "alice", 100).await, "in place of what is there");
    assert_code(catalog.commit_file(file("b", 2, 41, "alice")).await, Code::QuotaExceeded, "commit_file");
    assert_code(catalog.file(&name, &key("b")).await, Code::FileNotFound, "nothing was changed");
    catalog.commit_file(file("b", 2, 41, "bob")).await.unwrap();
    catalog.commit_file(file("a", 3, 100, "alice")).await.unwrap();
    assert!(!fits("c", "alice", 1).await && fits("c", "alice", 0).await);
    catalog.set_owner_quota("alice", Some(50)).await.unwrap();
    catalog.commit_file(file("a", 4, 70, "alice")).await.expect("less than before, though too much");
    catalog.commit_file(file("a", 5, 10, "bob")).await.unwrap();
    assert!(fits("c", "alice", 50).await, "replaced by others, it is theirs");
    let upload = Upload { owner: "alice".to_owned(), ..upload(1, &name, "u", 50) };
    catalog.create_upload(&upload).await.unwrap();
    assert!(!fits("c", "alice", 1).await, "reserved");
    let another = Upload { owner: "alice".to_owned(), ..super::upload(2, &name, "v", 1) };
    assert_code(catalog.create_upload(&another).await, Code::QuotaExceeded, "create_upload");
    catalog.delete_upload(&upload.id).await.unwrap();
    assert!(fits("c", "alice", 50).await, "given back");
    catalog.forget_owner_quotas().await.unwrap();
    assert!(fits("c", "alice", 51).await);
    catalog.set_owner_quota("bob", Some(51)).await.unwrap();
    assert!(!fits("c", "bob", 1).await, "what is had stays known");
    catalog.delete_file(&name, &key("b"), &Precondition::None).await.unwrap();
    assert!(fits("c", "bob", 41).await && !fits("c", "bob", 42).await);
}
