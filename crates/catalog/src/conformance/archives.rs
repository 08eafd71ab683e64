use super::*;
use crate::{Claim, ENCODING_ROW_BYTES, Encoding, NewPack};
use bytes::Bytes;
use carrack_domain::access::{FileRef, PrefixRef};
use carrack_domain::archive::{Archive, Compression, Content, Origin, RENAMED_MAX, Renamed};
use carrack_domain::job::{JobFailure, JobState, JobWish, Progress};
use carrack_domain::{ArchiveId, BucketName, EncodingId, KeyPrefix};

/// Long enough for a test that is not about leases ending.
const LEASE: Duration = Duration::from_secs(600);
const WORKER: [u8; 16] = [1; 16];

fn archive_id(number: u64) -> ArchiveId {
    ArchiveId::from_bytes(*blob_id(number).as_bytes())
}

fn encoding_id(number: u64) -> EncodingId {
    EncodingId::from_bytes(*blob_id(number).as_bytes())
}

fn archive_of(number: u64, state: JobState) -> Archive {
    Archive {
        id: archive_id(number),
        owner: "ann".to_owned(),
        name: "a \"name\"".to_owned(),
        compression: Compression::Auto,
        entries: 3,
        bytes: 1 << 40,
        renamed: vec![Renamed { key: "k\n".to_owned(), name: "ключ".to_owned() }],
        renamed_total: 1,
        origins: origins(),
        manifest: (blob_id(1000 + number), 77),
        content: None,
        state,
        progress: Progress::default(),
        failure: None,
        created_at: later(number),
        expires_at: later(1000 + number),
    }
}

fn content() -> Content {
    Content { size: 1 << 41, etag: "z1-tag".to_owned(), modified: later(5) }
}

fn origins() -> Vec<Origin> {
    let bucket = BucketName::parse("linked").expect("a name");
    let prefix = KeyPrefix::parse("a\"/").expect("a prefix");
    vec![
        Origin::File(FileRef { bucket: bucket.clone(), key: key("k") }),
        Origin::Below(PrefixRef { bucket, prefix }),
    ]
}

/// Makes an archive that holds these blobs.
async fn make(catalog: &dyn Catalog, number: u64, state: JobState, holds: &[BlobId]) -> Archive {
    let archive = archive_of(number, state);
    catalog.prepare_archive(&archive.id, holds.len(), NOW).await.expect("prepare_archive");
    for some in holds.chunks(300) {
        catalog.hold_blobs(&archive.id, some).await.expect("hold_blobs");
    }
    catalog.commit_archive(&archive).await.expect("commit_archive");
    archive
}

async fn claim(catalog: &dyn Catalog) -> Claim {
    catalog.claim_job(WORKER, LEASE).await.expect("claim_job").expect("a job is due")
}

fn failure(entry: Option<&str>) -> JobFailure {
    JobFailure { code: "internal".to_owned(), detail: "\"why\"".to_owned(), entry: entry.map(str::to_owned) }
}

pub(super) async fn life(catalog: &dyn Catalog) {
    let unknown = archive_id(9);
    assert_code(catalog.archive(&unknown).await, Code::ArchiveNotFound, "archive");
    assert_code(catalog.delete_archive(&unknown).await, Code::ArchiveNotFound, "delete_archive");
    assert_code(catalog.move_archive(&unknown, JobWish::Pause).await, Code::ArchiveNotFound, "move_archive");
    let stray = archive_of(9, JobState::Waiting);
    assert_code(catalog.commit_archive(&stray).await, Code::ArchiveNotFound, "commit without preparation");
    catalog.prepare_archive(&unknown, 0, NOW).await.unwrap();
    assert_code(catalog.archive(&unknown).await, Code::ArchiveNotFound, "unseen while it is prepared");
    assert_eq!(catalog.archives("ann", NOW, None, 9).await.unwrap(), []);

    let mut all = Vec::new();
    for number in 1..=5 {
        all.push(make(catalog, number, JobState::Waiting, &[]).await);
    }
    all.reverse();
    assert_eq!(catalog.archive(&all[4].id).await.unwrap(), all[4]);
    assert_eq!(catalog.archives("ann", NOW, None, 9).await.unwrap(), all, "newest first");
    assert_eq!(catalog.archives("ann", NOW, None, 2).await.unwrap(), all[..2]);
    let after = Some((all[1].created_at, all[1].id));
    assert_eq!(catalog.archives("ann", NOW, after, 9).await.unwrap(), all[2..]);
    let late = catalog.archives("ann", later(1004), None, 9).await.unwrap();
    assert_eq!(late, all[..2], "not those that have expired");
    assert_eq!(catalog.archives("bob", NOW, None, 9).await.unwrap(), []);
    assert!(catalog.is_archived(&all[0].manifest.0).await.unwrap());
    assert!(!catalog.is_archived(&blob_id(1)).await.unwrap());
    assert_eq!(catalog.delete_archive(&all[0].id).await.unwrap(), all[0].manifest.0);
    assert!(!catalog.is_archived(&all[0].manifest.0).await.unwrap());
    assert_code(catalog.archive(&all[0].id).await, Code::ArchiveNotFound, "deleted");

    let expired = catalog.expire_archives(later(1003), 9).await.unwrap();
    assert_eq!(expired.len(), 2, "those before that moment, not those in preparation");
    assert_eq!(catalog.archives("ann", NOW, None, 9).await.unwrap(), all[1..3]);
    assert_eq!(catalog.expire_archives(later(5000), 1).await.unwrap().len(), 1);
    assert_eq!(catalog.forget_prepared(NOW).await.unwrap(), 0);
    assert_eq!(catalog.forget_prepared(later(1)).await.unwrap(), 1);

    let mut ready = archive_of(20, JobState::Completed);
    ready.content = Some(content());
    ready.progress = Progress { entries: 3, bytes: 1 << 40 };
    ready.renamed = vec![ready.renamed[0].clone(); RENAMED_MAX];
    catalog.prepare_archive(&ready.id, 0, NOW).await.unwrap();
    catalog.commit_archive(&ready).await.unwrap();
    assert_eq!(catalog.archive(&ready.id).await.unwrap(), ready);
    assert_code(catalog.commit_archive(&ready).await, Code::ArchiveNotFound, "twice");
}

pub(super) async fn holds(catalog: &dyn Catalog) {
    let name = bucket_name("held");
    put_bucket(catalog, &name, None).await;
    for number in 0..20 {
        put_file(catalog, &name, &format!("{number}"), number, 5).await;
    }
    let mut kept = new_file(&name, &key("kept"), blob(50, 5));
    kept.content = Some(Bytes::from_static(b"bytes"));
    catalog.commit_file(kept).await.unwrap();
    // Of a few, and of so many that they are kept in another way.
    let few: Vec<BlobId> = (0..3).map(blob_id).collect();
    let many: Vec<BlobId> = (2..6).chain(100..5000).map(blob_id).collect();
    let one = make(catalog, 1, JobState::Waiting, &few).await;
    let two = make(catalog, 2, JobState::Waiting, &many).await;
    for number in 0..20 {
        catalog.delete_file(&name, &key(&format!("{number}")), &Precondition::None).await.unwrap();
    }
    let held = async || {
        let mut held = Vec::new();
        for number in (0..30).chain([99, 100, 101, 4998, 4999, 5000, 5001]) {
            if catalog.is_held(&blob_id(number)).await.unwrap() {
                held.push(number);
            }
        }
        held
    };
    let gone = async || {
        let mut gone = catalog.unreferenced_blobs(&[], 99).await.unwrap();
        gone.sort();
        gone
    };
    assert_eq!(held().await, [0, 1, 2, 3, 4, 5, 100, 101, 4998, 4999]);
    assert_eq!(gone().await, (6..20).map(blob_id).collect::<Vec<_>>());
    catalog.delete_archive(&one.id).await.unwrap();
    assert_eq!(held().await, [2, 3, 4, 5, 100, 101, 4998, 4999]);
    catalog.move_archive(&two.id, JobWish::Cancel).await.unwrap();
    assert_eq!(held().await, [] as [u64; 0], "a cancelled one holds nothing");
    assert_eq!(gone().await.len(), 20);
    let in_preparation = archive_id(3);
    catalog.prepare_archive(&in_preparation, 1, NOW).await.unwrap();
    catalog.hold_blobs(&in_preparation, &few[..1]).await.unwrap();
    assert_eq!(held().await, [0], "from the moment it is said");
    catalog.hold_blobs(&in_preparation, &[blob_id(50)]).await.unwrap();
    catalog.delete_file(&name, &key("kept"), &Precondition::None).await.unwrap();
    assert_eq!(catalog.forget_contents(&[blob_id(50)]).await.unwrap(), [blob_id(50)], "held");
    assert!(catalog.contents(&[blob_id(50)]).await.unwrap()[0].is_some());
    catalog.forget_prepared(NOW.after(Duration::from_secs(365 * 24 * 3600))).await.unwrap();
    assert_eq!(catalog.forget_contents(&[blob_id(50)]).await.unwrap(), []);
}

pub(super) async fn jobs(catalog: &dyn Catalog) {
    assert_eq!(catalog.claim_job(WORKER, LEASE).await.unwrap(), None);
    let archive = make(catalog, 1, JobState::Waiting, &[]).await;
    let first = claim(catalog).await;
    assert_eq!((first.job, first.attempts), (archive.id, 0));
    assert_eq!(catalog.archive(&archive.id).await.unwrap().state, JobState::Running);
    assert_eq!(catalog.claim_job(WORKER, LEASE).await.unwrap(), None, "one has it");
    let progress = Progress { entries: 2, bytes: 1 << 33 };
    catalog.renew_job(&first, LEASE, progress).await.unwrap();
    assert_eq!(catalog.archive(&archive.id).await.unwrap().progress, progress);

    // Paused: whoever had it has it no more, and nobody takes it.
    let paused = catalog.move_archive(&archive.id, JobWish::Pause).await.unwrap();
    assert_eq!((paused.state, paused.progress), (JobState::Paused, progress));
    assert_code(catalog.renew_job(&first, LEASE, progress).await, Code::Superseded, "renew");
    assert_code(catalog.fail_job(&first, &failure(None)).await, Code::Superseded, "fail");
    let manifest = (blob_id(5), 5);
    assert_code(catalog.complete_archive(&first, &content(), manifest).await, Code::Superseded, "complete");
    catalog.release_job(&first, progress).await.expect("of a job that is another's: nothing");
    assert_eq!(catalog.claim_job(WORKER, LEASE).await.unwrap(), None);
    let again = catalog.move_archive(&archive.id, JobWish::Pause).await;
    assert_code(again, Code::InvalidTransition, "pause twice");
    catalog.move_archive(&archive.id, JobWish::Resume).await.unwrap();

    // A passing fault: later, and not before.
    let second = claim(catalog).await;
    assert!(second.fence > first.fence);
    catalog.retry_job(&second, 1, Duration::from_secs(600), &failure(Some("e"))).await.unwrap();
    let waiting = catalog.archive(&archive.id).await.unwrap();
    assert_eq!((waiting.state, waiting.failure), (JobState::Waiting, Some(failure(Some("e")))));
    assert_eq!(catalog.claim_job(WORKER, LEASE).await.unwrap(), None, "not due");
    catalog.move_archive(&archive.id, JobWish::Pause).await.unwrap();
    catalog.move_archive(&archive.id, JobWish::Resume).await.unwrap();
    let third = claim(catalog).await;
    catalog.retry_job(&third, 4, Duration::ZERO, &failure(None)).await.unwrap();
    let fourth = claim(catalog).await;
    assert_eq!(fourth.attempts, 4);
    catalog.release_job(&fourth, progress).await.unwrap();
    let fifth = claim(catalog).await;
    let plan = catalog.complete_archive(&fifth, &content(), manifest).await.unwrap();
    assert_eq!(plan, archive.manifest.0);
    let done = catalog.archive(&archive.id).await.unwrap();
    assert_eq!((done.state, done.content, done.manifest), (JobState::Completed, Some(content()), manifest));
    assert_eq!(done.progress, Progress { entries: archive.entries, bytes: archive.bytes });
    assert_eq!(done.failure, None);
    for wish in [JobWish::Pause, JobWish::Resume, JobWish::Cancel] {
        let moved = catalog.move_archive(&archive.id, wish).await;
        assert_code(moved, Code::InvalidTransition, "of what is completed");
    }
    let failing = make(catalog, 2, JobState::Waiting, &[blob_id(7)]).await;
    let claim = self::claim(catalog).await;
    catalog.fail_job(&claim, &failure(Some("x"))).await.unwrap();
    let failed = catalog.archive(&failing.id).await.unwrap();
    assert_eq!((failed.state, failed.failure), (JobState::Failed, Some(failure(Some("x")))));
    assert!(!catalog.is_held(&blob_id(7)).await.unwrap(), "a failed one holds nothing");
}

pub(super) async fn leases_end(catalog: &dyn Catalog) {
    make(catalog, 1, JobState::Waiting, &[]).await;
    let short = Duration::from_millis(50);
    let dead = catalog.claim_job(WORKER, short).await.unwrap().expect("due");
    let mut taken = None;
    for _ in 0..1000 {
        taken = catalog.claim_job([2; 16], LEASE).await.unwrap();
        if taken.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let taken = taken.expect("taken over once the lease has ended");
    assert_eq!(taken.job, dead.job);
    assert!(taken.fence > dead.fence);
    let pack = NewPack { id: blob_id(1), size: 1, encodings: Vec::new() };
    assert_code(catalog.put_pack(&dead, &pack, NOW).await, Code::Superseded, "put_pack");
    assert_code(catalog.use_packs(&dead, &[blob_id(1)], NOW).await, Code::Superseded, "use_packs");
    catalog.put_pack(&taken, &pack, NOW).await.expect("the living may");
}

pub(super) async fn packs(catalog: &dyn Catalog) {
    let archive = make(catalog, 1, JobState::Waiting, &[]).await;
    let claim = self::claim(catalog).await;
    let ids: Vec<EncodingId> = (0..4).map(encoding_id).collect();
    assert_eq!(catalog.encodings(&ids).await.unwrap(), [None; 4]);
    let pack = |number: u64, encodings: Vec<(EncodingId, Option<(u64, u64)>)>| NewPack {
        id: blob_id(number),
        size: 1000,
        encodings,
    };
    let one = pack(1, vec![(ids[0], Some((0, 400))), (ids[1], None), (ids[2], Some((400, 600)))]);
    catalog.put_pack(&claim, &one, later(1)).await.unwrap();
    let deflated =
        |pack, offset, size| Some(Encoding::Deflated { pack: blob_id(pack), pack_size: 1000, offset, size });
    let known =
        [deflated(1, 0, 400), Some(Encoding::Stored { pack: blob_id(1) }), deflated(1, 400, 600), None];
    assert_eq!(catalog.encodings(&ids).await.unwrap(), known);
    let two = pack(2, vec![(ids[0], Some((0, 400))), (ids[3], Some((0, 1000)))]);
    catalog.put_pack(&claim, &two, later(2)).await.unwrap();
    let known = [known[0], known[1], known[2], deflated(2, 0, 1000)];
    assert_eq!(catalog.encodings(&ids).await.unwrap(), known, "what is known stays");
    assert!(catalog.is_archived(&blob_id(2)).await.unwrap());
    let runs = [(blob_id(1), 1000), (blob_id(2), 1000), archive.manifest];
    assert_eq!(catalog.archived_runs(None, 9).await.unwrap(), runs);
    assert_eq!(catalog.archived_runs(Some(blob_id(1)), 1).await.unwrap(), runs[1..2]);
    let charged = 2000 + 5 * ENCODING_ROW_BYTES;
    assert_eq!(catalog.pack_bytes().await.unwrap(), charged);

    assert_eq!(catalog.evict_packs(0, &[], 9).await.unwrap(), [], "an archive needs them");
    catalog.complete_archive(&claim, &content(), (blob_id(50), 1)).await.unwrap();
    assert_eq!(catalog.evict_packs(0, &[], 9).await.unwrap(), [], "also when it is completed");
    catalog.delete_archive(&archive.id).await.unwrap();
    assert_eq!(catalog.evict_packs(charged, &[], 9).await.unwrap(), [], "within the quota");
    assert_eq!(catalog.evict_packs(0, &[blob_id(1), blob_id(2)], 9).await.unwrap(), []);
    catalog.touch_packs(&[blob_id(1)], later(9)).await.unwrap();
    assert_eq!(catalog.evict_packs(charged - 1, &[], 9).await.unwrap(), [blob_id(2)], "not used for longest");
    assert_eq!(catalog.encodings(&ids).await.unwrap(), [known[0], known[1], known[2], None]);

    make(catalog, 2, JobState::Waiting, &[]).await;
    let claim = self::claim(catalog).await;
    let gone = catalog.use_packs(&claim, &[blob_id(1), blob_id(2)], later(10)).await.unwrap();
    assert_eq!(gone, [blob_id(2)]);
    assert_eq!(catalog.evict_packs(0, &[], 9).await.unwrap(), [], "in use again");
    catalog.move_archive(&archive_id(2), JobWish::Cancel).await.unwrap();
    assert_eq!(catalog.evict_packs(0, &[], 9).await.unwrap(), [blob_id(1)]);
    assert_eq!(
        (catalog.pack_bytes().await.unwrap(), catalog.encodings(&ids).await.unwrap()),
        (0, vec![None; 4])
    );
}

/// Of many who ask at once, each job has one taker.
pub(super) async fn one_taker_each(catalog: Arc<dyn Catalog>) {
    for number in 0..20 {
        make(&*catalog, number, JobState::Waiting, &[]).await;
    }
    let mut asking = tokio::task::JoinSet::new();
    for worker in 0..60_u8 {
        let catalog = catalog.clone();
        asking.spawn(async move { catalog.claim_job([worker; 16], LEASE).await.unwrap() });
    }
    let mut taken: Vec<ArchiveId> =
        asking.join_all().await.into_iter().flatten().map(|claim| claim.job).collect();
    taken.sort();
    taken.dedup();
    assert_eq!(taken.len(), 20);
}

/// Bytes of the packs and manifests of [`every_kind`].
pub(super) const BYTES: u64 = 1000 + 1 + 77;

/// A completed archive with a pack, a large one that waits, and what each of them holds.
pub(super) async fn every_kind(catalog: &dyn Catalog) {
    make(catalog, 1, JobState::Waiting, &[blob_id(1), blob_id(2)]).await;
    let claim = claim(catalog).await;
    let encodings = vec![(encoding_id(1), Some((0, 1000))), (encoding_id(2), None)];
    let pack = NewPack { id: blob_id(500), size: 1000, encodings };
    catalog.put_pack(&claim, &pack, later(1)).await.unwrap();
    catalog.complete_archive(&claim, &content(), (blob_id(501), 1)).await.unwrap();
    let many: Vec<BlobId> = (3000..6000).map(blob_id).collect();
    make(catalog, 2, JobState::Waiting, &many).await;
}
