use super::*;
use crate::Finish;
use carrack_domain::file::File;
use tokio::task::JoinSet;

const TASKS: u64 = 64;

/// Runs `task` for each number at the same time.
async fn together<T, F>(task: impl Fn(u64) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut set = JoinSet::new();
    for number in 0..TASKS {
        set.spawn(task(number));
    }
    set.join_all().await
}

pub(super) async fn one_creator_wins(catalog: Arc<dyn Catalog>) {
    let name = bucket_name("race");
    put_bucket(&*catalog, &name, None).await;
    let results: Vec<Result<File>> = together(|number| {
        let catalog = Arc::clone(&catalog);
        let mut file = new_file(&name, &key("k"), blob(number, number + 1));
        file.precondition = Precondition::Absent;
        async move { catalog.commit_file(file).await.map(|committed| committed.file) }
    })
    .await;
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1, "exactly one creates");
    assert!(lost.into_iter().all(|lost| lost.unwrap_err().code() == Code::PreconditionFailed));
    let file = catalog.file(&name, &key("k")).await.unwrap();
    assert_eq!(Some(&file), won[0].as_ref().ok());
    assert_eq!(account(&*catalog, &name).await, (file.blob.size, 0, 1));
    assert_eq!(catalog.unreferenced_blobs(&[], 99).await.unwrap(), [], "the losers left nothing");

    // Without a condition all win, one after another.
    let before = catalog.generation(&name).await.unwrap();
    let results = together(|number| {
        let catalog = Arc::clone(&catalog);
        let file = new_file(&name, &key("k"), blob(100 + number, 5));
        async move { catalog.commit_file(file).await.is_ok() }
    })
    .await;
    assert!(results.into_iter().all(|won| won));
    assert_eq!(account(&*catalog, &name).await, (5, 0, 1));
    assert!(catalog.generation(&name).await.unwrap() >= before + TASKS);
    assert_eq!(catalog.unreferenced_blobs(&[], 999).await.unwrap().len() as u64, TASKS);
    assert_eq!(catalog.blobs(None, 999).await.unwrap().len(), 1);
}

pub(super) async fn one_of_many_appends_wins(catalog: Arc<dyn Catalog>) {
    let name = bucket_name("race");
    put_bucket(&*catalog, &name, None).await;
    catalog.create_upload(&append_upload(1, &name, "k", Some(10_000))).await.unwrap();
    let won = together(|number| {
        let catalog = Arc::clone(&catalog);
        async move {
            let taken = catalog.take_over(&upload_id(1), None).await.unwrap();
            let line = extent(taken.offset, number + 1, number as u8);
            match catalog.append(&upload_id(1), taken.epoch, &line.piece, &Receipt::new(), later(1)).await {
                Ok(()) => number + 1,
                Err(error) if matches!(error.code(), Code::Superseded | Code::OffsetMismatch) => 0,
                Err(error) => panic!("{error:?}"),
            }
        }
    })
    .await;
    let stored = catalog.take_over(&upload_id(1), None).await.unwrap().offset;
    assert_eq!(stored, won.iter().sum::<u64>(), "what was acknowledged is what is there");
    assert!(stored > 0, "the newest of all was displaced by nobody");
}

pub(super) async fn one_finisher_begins(catalog: Arc<dyn Catalog>) {
    let name = bucket_name("race");
    put_bucket(&*catalog, &name, None).await;
    let up = upload(1, &name, "k", 10);
    catalog.create_upload(&up).await.unwrap();
    fill(&*catalog, &up).await;
    let results = together(|number| {
        let catalog = Arc::clone(&catalog);
        async move { (number, catalog.begin_finish(&upload_id(1), blob_id(number)).await.unwrap()) }
    })
    .await;
    let begun: Vec<u64> =
        results.iter().filter(|(_, finish)| *finish == Finish::Begun).map(|(number, _)| *number).collect();
    let [winner] = begun[..] else { panic!("exactly one begins, not {begun:?}") };
    let rest = results.iter().filter(|(number, _)| *number != winner);
    assert!(rest.into_iter().all(|(_, finish)| *finish == Finish::Underway(blob_id(winner))));

    let results = together(|_| {
        let catalog = Arc::clone(&catalog);
        let file = finished_file(&up, winner);
        async move { catalog.commit_file(file).await.map(|committed| committed.file) }
    })
    .await;
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1, "exactly one completes");
    assert!(lost.into_iter().all(|lost| lost.unwrap_err().code() == Code::UploadNotFound));
    assert_eq!(account(&*catalog, &name).await, (10, 0, 1));
}

pub(super) async fn extents_side_by_side(catalog: Arc<dyn Catalog>) {
    let name = bucket_name("race");
    put_bucket(&*catalog, &name, None).await;
    let up = upload(1, &name, "k", TASKS * 100);
    catalog.create_upload(&up).await.unwrap();
    let results = together(|number| {
        let catalog = Arc::clone(&catalog);
        async move {
            let line = extent(number * 100, 100, number as u8);
            catalog.record_extent(&upload_id(1), &line, later(number)).await?;
            // What was acknowledged is there at once, for everybody.
            Ok::<_, carrack_domain::Error>(catalog.extent(&upload_id(1), number * 100).await? == Some(line))
        }
    })
    .await;
    assert!(results.into_iter().all(|seen| seen.unwrap()), "read your own writes");
    let expected: Vec<_> = (0..TASKS).map(|number| extent(number * 100, 100, number as u8)).collect();
    assert_eq!(catalog.extents(&up.id).await.unwrap(), expected);
    assert_eq!(catalog.begin_finish(&up.id, blob_id(1)).await.unwrap(), Finish::Begun);
}

pub(super) async fn reservations_share_one_quota(catalog: Arc<dyn Catalog>) {
    let name = bucket_name("race");
    put_bucket(&*catalog, &name, Some(105)).await;
    let results = together(|number| {
        let catalog = Arc::clone(&catalog);
        let up = upload(number, &name, "k", 10);
        async move { catalog.create_upload(&up).await }
    })
    .await;
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 10);
    assert!(lost.into_iter().all(|lost| lost.unwrap_err().code() == Code::QuotaExceeded));
    assert_eq!(account(&*catalog, &name).await, (0, 100, 0));
}
