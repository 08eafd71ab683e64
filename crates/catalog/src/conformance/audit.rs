use super::*;
use crate::audit::within;
use crate::{AuditQuery, Position};
use carrack_domain::audit::chain::Hash;
use carrack_domain::audit::verify::{Signed, Verifier};
use carrack_domain::audit::{Context, Kind, Lines, Record, Via};
use carrack_domain::link::{Link, Target};
use carrack_domain::{Identity, LinkId, Role, TokenId, TraceId};
use std::collections::BTreeSet;

fn context() -> Arc<Context> {
    let context = Context::new(TraceId::from_bytes([9; 16]), "192.0.2.1".parse().ok(), NOW);
    let identity = Identity { token: Some(TokenId::from_bytes([4; 16])), ..Identity::new("ann", Role::User) };
    context.acts(Arc::new(identity), Via::Token);
    Arc::new(context)
}

/// All records, once the chain was proven whole.
async fn records(catalog: &dyn Catalog) -> Vec<serde_json::Value> {
    let mut verifier = Verifier::new([[].into_iter()], |_| Signed::Good);
    let (mut after, mut records) = (0, Vec::new());
    loop {
        let blocks = catalog.audit_blocks(after).await.unwrap();
        let Some(last) = blocks.last() else { break };
        after = last.header.block;
        for block in blocks {
            let text = block.text.unwrap();
            verifier.block(&block.header, &text);
            let lines = String::from_utf8(text).unwrap();
            records
                .extend(lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()));
        }
    }
    let report = verifier.finish();
    assert_eq!(report.findings, []);
    let head = catalog.audit_head().await.unwrap();
    assert_eq!(
        (report.blocks.map_or(0, |(_, last)| last), report.records),
        (head.block, records.len() as u64)
    );
    records
}

async fn actions(catalog: &dyn Catalog) -> Vec<String> {
    records(catalog).await.iter().map(|record| record["action"].as_str().unwrap().to_owned()).collect()
}

/// What is changed for somebody is recorded as theirs, what fails is not, and what nobody asked for is the server's.
pub(super) async fn changes(catalog: &dyn Catalog) {
    let (bucket, key) = (bucket_name("one"), Key::parse("k").unwrap());
    let by_ann = within(context(), async {
        put_bucket(catalog, &bucket, None).await;
        let file = new_file(&bucket, &key, blob(1, 10));
        catalog.commit_file(file.clone()).await.unwrap();
        let taken = NewFile { precondition: Precondition::Absent, ..new_file(&bucket, &key, blob(2, 10)) };
        assert_code(catalog.commit_file(taken).await, Code::PreconditionFailed, "a file that is there");
        let link = Link {
            id: LinkId::from_bytes([5; 16]),
            owner: "ann".to_owned(),
            role: Role::User,
            target: Target::File(catalog.file(&bucket, &key).await.unwrap()),
            expires_at: later(60),
            not_before: None,
            max_downloads: None,
            uses: 0,
            ip: None,
            password: None,
            filename: None,
            rate_limit: None,
            created_at: NOW,
            revoked_at: None,
            last_used_at: None,
        };
        catalog.create_link(&link).await.unwrap();
        catalog.use_link(&link.id, None, NOW).await.unwrap();
        catalog.revoke_link(&link.id, NOW).await.unwrap();
        catalog.delete_file(&bucket, &key, &Precondition::None).await.unwrap();
        assert_code(
            catalog.delete_file(&bucket, &key, &Precondition::None).await,
            Code::FileNotFound,
            "a file that is gone",
        );
    });
    by_ann.await;
    catalog.delete_bucket(&bucket).await.unwrap();
    let expected =
        ["bucket.put", "file.put", "link.create", "link.use", "link.revoke", "file.delete", "bucket.delete"];
    assert_eq!(actions(catalog).await, expected);
    let all = records(catalog).await;
    let put = &all[1];
    assert_eq!(
        [&put["kind"], &put["subject"], &put["role"], &put["auth"], &put["ip"], &put["bucket"], &put["key"]],
        ["change", "ann", "user", "token", "192.0.2.1", "one", "k"]
    );
    assert_eq!((put["bytes"].as_u64(), put["trace"].as_str()), (Some(10), Some("09".repeat(16).as_str())));
    assert_eq!(put["token"].as_str(), Some("04".repeat(16).as_str()));
    let last = all.last().unwrap();
    assert_eq!((last["auth"].as_str(), last.get("subject")), (Some("system"), None));
}

fn lines(from: u64, count: u64) -> Arc<Lines> {
    let mut lines = Lines::default();
    for number in from..from + count {
        let subject = format!("s{}", number % 2);
        let mut record =
            Record::new(Kind::End, later(number), if number.is_multiple_of(3) { "a.x" } else { "ab.y" });
        record.subject = Some(&subject);
        record.count = Some(number);
        lines.push(&record);
    }
    Arc::new(lines)
}

/// Which numbers a query selects.
type Wanted = fn(u64) -> bool;

/// What is asked for comes in order, each once, however small the pages.
pub(super) async fn pages(catalog: &dyn Catalog) {
    catalog.append_audit(Arc::default()).await.unwrap();
    assert_eq!(catalog.audit_head().await.unwrap().block, 0, "nothing is no block");
    for block in 0..10 {
        catalog.append_audit(lines(block * 7, 7)).await.unwrap();
    }
    let query =
        |since: Option<u64>, until: Option<u64>, subject: Option<&str>, action: Option<&str>| AuditQuery {
            since: since.map(later),
            until: until.map(later),
            subject: subject.map(str::to_owned),
            action: action.map(str::to_owned),
            ..AuditQuery::default()
        };
    let cases: [(AuditQuery, Wanted); 7] = [
        (query(None, None, None, None), |_| true),
        (query(Some(20), None, None, None), |n| n >= 20),
        (query(None, Some(20), None, None), |n| n < 20),
        (query(Some(9), Some(33), Some("s1"), None), |n| (9..33).contains(&n) && n % 2 == 1),
        (query(None, None, None, Some("a")), |n| n % 3 == 0),
        (query(None, None, None, Some("ab.y")), |n| n % 3 != 0),
        (query(Some(1000), None, None, None), |_| false),
    ];
    for (query, wanted) in cases {
        for limit in [1, 3, 1000] {
            let (mut from, mut found): (Option<Position>, Vec<u64>) = (None, Vec::new());
            loop {
                let page = catalog.audit_page(&query, from, limit).await.unwrap();
                assert!(page.records.len() <= limit);
                for (_, line) in &page.records {
                    let line: serde_json::Value = serde_json::from_str(line).unwrap();
                    found.push(line["count"].as_u64().unwrap());
                }
                from = page.next;
                if from.is_none() {
                    break;
                }
            }
            assert_eq!(found, (0..70).filter(|n| wanted(*n)).collect::<Vec<_>>(), "{query:?} by {limit}");
        }
    }
    assert_eq!(records(catalog).await.len(), 70);
}

/// Old blocks go from the front, and the rest still hangs together; the last one always stays.
pub(super) async fn retention(catalog: &dyn Catalog) {
    assert_eq!(catalog.audit_older(later(1000)).await.unwrap(), None);
    for block in 0..10 {
        catalog.append_audit(lines(block * 7, 7)).await.unwrap();
    }
    assert_eq!(
        catalog.audit_older(later(6)).await.unwrap(),
        None,
        "the first block has a record of that time"
    );
    let older = catalog.audit_older(later(28)).await.unwrap().unwrap();
    assert_eq!(older.block, 4);
    assert_eq!(catalog.drop_audit(older.block).await.unwrap(), 4);
    let left = catalog.audit_blocks(0).await.unwrap();
    assert_eq!(left.iter().map(|block| block.header.block).collect::<Vec<_>>(), (5..=10).collect::<Vec<_>>());
    assert_eq!(left[0].header.prev, older.hash);
    let text = left[0].text.as_ref().unwrap();
    assert_eq!(left[0].header.content, Hash::of(text));
    assert_eq!(catalog.audit_older(later(100_000)).await.unwrap().unwrap().block, 9);
    assert_eq!(catalog.drop_audit(1000).await.unwrap(), 5);
    assert_eq!(catalog.audit_blocks(0).await.unwrap().len(), 1);
    catalog.append_audit(lines(70, 1)).await.unwrap();
    assert_eq!(catalog.audit_head().await.unwrap().block, 11, "numbers are never used again");
}

/// Uploads and tokens, and what a deleted token takes with it.
pub(super) async fn other_changes(catalog: &dyn Catalog) {
    let bucket = bucket_name("one");
    put_bucket(catalog, &bucket, None).await;
    let parts = upload(1, &bucket, "u", 30);
    catalog.create_upload(&parts).await.unwrap();
    fill(catalog, &parts).await;
    catalog.delete_upload(&parts.id).await.unwrap();
    catalog.create_upload(&Upload { expires_at: NOW, ..upload(2, &bucket, "v", 30) }).await.unwrap();
    catalog.expire_uploads(later(1), 10).await.unwrap();
    let token = super::tokens::token(1, None);
    catalog.create_token(&token).await.unwrap();
    catalog.create_token(&super::tokens::session(2, 1)).await.unwrap();
    catalog.delete_token(&token.id).await.unwrap();
    let mut actions = actions(catalog).await;
    actions.dedup();
    actions[8..].sort();
    let expected = [
        "bucket.put",
        "upload.create",
        "upload.part",
        "upload.delete",
        "upload.create",
        "upload.expire",
        "token.create",
        "session.create",
        "session.delete",
        "token.delete",
    ];
    assert_eq!(actions, expected);
}

/// As many at once as there are: each record is there once, in one chain.
pub(super) async fn at_once(catalog: Arc<dyn Catalog>) {
    let tasks = (0..40_u64).map(|number| {
        let catalog = catalog.clone();
        async move {
            if number.is_multiple_of(2) {
                catalog.append_audit(lines(number * 10, 10)).await.unwrap();
            } else {
                put_bucket(&*catalog, &bucket_name(&format!("bucket-{number}")), None).await;
            }
        }
    });
    let mut set = tokio::task::JoinSet::new();
    for task in tasks {
        set.spawn(task);
    }
    set.join_all().await;
    let records = records(&*catalog).await;
    assert_eq!(records.len(), 20 * 10 + 20);
    let distinct: BTreeSet<String> =
        records.iter().map(|record| format!("{}{}", record["count"], record["bucket"])).collect();
    assert_eq!(distinct.len(), records.len());
}
