use super::*;
use crate::Outcome;
use carrack_domain::policy::{Actions, Effect, Party, Policy, Rule};

pub(super) async fn life(catalog: &dyn Catalog) {
    let (a, b) = (bucket_name("alpha"), bucket_name("beta"));
    assert_code(catalog.bucket(&a).await, Code::BucketNotFound, "bucket");
    assert_code(catalog.generation(&a).await, Code::BucketNotFound, "generation");
    assert_code(catalog.delete_bucket(&a).await, Code::BucketNotFound, "delete_bucket");
    assert_code(catalog.check_quota(&a, &key("k"), 1).await, Code::BucketNotFound, "check_quota");
    assert!(catalog.buckets().await.unwrap().is_empty());

    put_bucket(catalog, &b, None).await;
    let (made, outcome) = catalog.put_bucket(&a, &BucketSettings::of_quota(Some(10)), NOW).await.unwrap();
    assert_eq!((outcome, made.settings.quota_bytes, made.created_at), (Outcome::Created, Some(10), NOW));
    assert_eq!((made.used_bytes, made.reserved_bytes, made.file_count), (0, 0, 0));
    assert_eq!(catalog.bucket(&a).await.unwrap(), made);
    let (changed, outcome) = catalog.put_bucket(&a, &BucketSettings::of_quota(None), later(5)).await.unwrap();
    assert_eq!((outcome, changed.settings.quota_bytes, changed.created_at), (Outcome::Replaced, None, NOW));
    let (changed, _) = catalog.put_bucket(&a, &BucketSettings::of_quota(Some(0)), later(5)).await.unwrap();
    assert_eq!(changed.settings.quota_bytes, Some(0), "a quota of nothing is not no quota");
    let names: Vec<_> = catalog.buckets().await.unwrap().into_iter().map(|bucket| bucket.name).collect();
    assert_eq!(names, [a.clone(), b.clone()], "by name");

    put_file(catalog, &b, "k", 1, 3).await;
    assert_code(catalog.delete_bucket(&b).await, Code::BucketNotEmpty, "a bucket with a file");
    catalog.delete_file(&b, &key("k"), &Precondition::None).await.unwrap();
    catalog.create_upload(&upload(1, &b, "k", 0)).await.unwrap();
    assert_code(catalog.delete_bucket(&b).await, Code::BucketNotEmpty, "a bucket with an open upload");
    catalog.begin_finish(&upload_id(1), blob_id(9)).await.unwrap();
    assert_code(catalog.delete_bucket(&b).await, Code::BucketNotEmpty, "a bucket with a finishing upload");
    catalog.commit_file(finished_file(&upload(1, &b, "k", 0), 9)).await.unwrap();
    catalog.delete_file(&b, &key("k"), &Precondition::None).await.unwrap();
    catalog.delete_bucket(&b).await.expect("a complete upload does not keep its bucket");
    assert_code(catalog.bucket(&b).await, Code::BucketNotFound, "a deleted bucket");
    assert!(catalog.has_upload(&upload_id(1)).await.unwrap());
    catalog.delete_upload(&upload_id(1)).await.expect("a complete upload whose bucket is gone");
}

pub(super) async fn generations_never_repeat(catalog: &dyn Catalog) {
    let (name, other) = (bucket_name("again"), bucket_name("other"));
    put_bucket(catalog, &other, None).await;
    let elsewhere = catalog.generation(&other).await.unwrap();
    let mut last = None;
    for round in 0..3 {
        put_bucket(catalog, &name, None).await;
        let fresh = catalog.generation(&name).await.unwrap();
        assert!(last < Some(fresh), "a bucket made again repeats a generation");
        last = Some(fresh);
        put_bucket(catalog, &name, Some(99)).await;
        assert_eq!(catalog.generation(&name).await.unwrap(), fresh, "a quota is no change of files");
        put_file(catalog, &name, "k", round * 2, 1).await;
        let created = catalog.generation(&name).await.unwrap();
        put_file(catalog, &name, "k", round * 2 + 1, 1).await;
        let replaced = catalog.generation(&name).await.unwrap();
        catalog.delete_file(&name, &key("k"), &Precondition::None).await.unwrap();
        let deleted = catalog.generation(&name).await.unwrap();
        assert!(fresh < created && created < replaced && replaced < deleted, "every change counts");
        last = last.max(Some(deleted));
        catalog.delete_bucket(&name).await.unwrap();
    }
    assert_eq!(catalog.generation(&other).await.unwrap(), elsewhere, "another bucket's changes do not count");
}

/// No number wraps: what is beyond 2^63-1 is refused, and sums are not trusted either.
pub(super) async fn numbers_beyond_i64(catalog: &dyn Catalog) {
    let name = bucket_name("large");
    let most = i64::MAX as u64;
    assert_code(
        catalog.put_bucket(&name, &BucketSettings::of_quota(Some(u64::MAX)), NOW).await,
        Code::InvalidRequest,
        "a quota of u64::MAX",
    );
    assert_code(catalog.bucket(&name).await, Code::BucketNotFound, "refused");
    put_bucket(catalog, &name, Some(most)).await;
    assert_eq!(catalog.bucket(&name).await.unwrap().settings.quota_bytes, Some(most));
    for quota in [Some(most), None] {
        put_bucket(catalog, &name, quota).await;
        for size in [most + 1, u64::MAX] {
            assert_code(
                catalog.check_quota(&name, &key("k"), size).await,
                Code::QuotaExceeded,
                "check_quota",
            );
            let file = new_file(&name, &key("k"), blob(1, size));
            assert_code(catalog.commit_file(file).await, Code::QuotaExceeded, "commit_file");
            let mut vast = upload(1, &name, "k", 1);
            vast.shape = Shape::Parts(PartPlan::new(size, None, NonZeroU64::MIN).unwrap());
            assert_code(catalog.create_upload(&vast).await, Code::QuotaExceeded, "create_upload");
        }
        put_file(catalog, &name, "k", 2 + u64::from(quota.is_none()), most - 1).await;
        assert_eq!(catalog.file(&name, &key("k")).await.unwrap().blob.size, most - 1);
        catalog.check_quota(&name, &key("k"), most).await.expect("in place of the present file");
        catalog.check_quota(&name, &key("l"), 1).await.expect("fits to the byte");
        assert_code(
            catalog.check_quota(&name, &key("l"), 2).await,
            Code::QuotaExceeded,
            "a sum beyond 2^63-1",
        );
        catalog.delete_file(&name, &key("k"), &Precondition::None).await.unwrap();
    }
    assert_eq!(account(catalog, &name).await, (0, 0, 0));
    assert_eq!(catalog.extent(&upload_id(1), u64::MAX).await.unwrap(), None);
}

pub(super) async fn settings(catalog: &dyn Catalog) {
    let name = bucket_name("settings");
    let rule = Rule {
        effect: Effect::Allow,
        actions: Actions::ALL,
        prefix: "a/\"".to_owned(),
        to: vec![Party::Everyone, Party::User("ann".to_owned())],
        when: None,
    };
    let settings = BucketSettings {
        quota_bytes: Some(7),
        retention_seconds: Some(9),
        policy: Some(Policy::new(vec![rule]).unwrap()),
    };
    let (made, _) = catalog.put_bucket(&name, &settings, NOW).await.unwrap();
    assert_eq!(made.settings, settings);
    assert_eq!(catalog.bucket(&name).await.unwrap().settings, settings);
    assert_eq!(catalog.buckets().await.unwrap()[0].settings, settings);
    for bad in [0, u64::MAX] {
        let bad = BucketSettings { retention_seconds: Some(bad), ..settings.clone() };
        assert_code(catalog.put_bucket(&name, &bad, NOW).await, Code::InvalidRequest, "a retention");
    }
    assert_eq!(catalog.bucket(&name).await.unwrap().settings, settings, "a refused change changes nothing");
    let empty = BucketSettings { policy: Some(Policy::default()), ..BucketSettings::default() };
    catalog.put_bucket(&name, &empty, NOW).await.unwrap();
    assert_eq!(catalog.bucket(&name).await.unwrap().settings, empty, "an empty policy is not none");
    catalog.put_bucket(&name, &BucketSettings::default(), NOW).await.unwrap();
    assert_eq!(catalog.bucket(&name).await.unwrap().settings, BucketSettings::default());
}
