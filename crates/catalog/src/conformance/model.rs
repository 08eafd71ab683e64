use super::*;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    Finishing,
    Complete,
}

/// What a catalog of one bucket is meant to be.
#[derive(Default)]
struct Model {
    quota: Option<u64>,
    /// Key to blob number and size.
    files: BTreeMap<String, (u64, u64)>,
    /// Upload number to key, size and stage.
    uploads: BTreeMap<u64, (String, u64, Stage)>,
    /// Every blob committed and not forgotten.
    blobs: BTreeSet<u64>,
}

impl Model {
    fn used(&self) -> u64 {
        self.files.values().map(|(_, size)| size).sum()
    }

    fn reserved(&self) -> u64 {
        let held = self.uploads.values().filter(|(_, _, stage)| *stage != Stage::Complete);
        held.map(|(_, size, _)| size).sum()
    }

    fn fits(&self, bytes: u64, freed: u64) -> bool {
        self.quota.is_none_or(|quota| self.used() + self.reserved() + bytes <= quota + freed)
    }

    fn size_of(&self, name: &str) -> u64 {
        self.files.get(name).map_or(0, |(_, size)| *size)
    }

    fn unreferenced(&self) -> BTreeSet<u64> {
        let referenced: BTreeSet<u64> = self.files.values().map(|(number, _)| *number).collect();
        self.blobs.difference(&referenced).copied().collect()
    }

    fn upload_in(&self, stage: Stage, random: &mut Random) -> Option<(u64, String, u64)> {
        let all: Vec<_> = self.uploads.iter().filter(|(_, upload)| upload.2 == stage).collect();
        if all.is_empty() {
            return None;
        }
        let (number, (name, size, _)) = random.pick(&all);
        Some((**number, name.clone(), *size))
    }
}

struct Walk<'c> {
    catalog: &'c dyn Catalog,
    bucket: BucketName,
    model: Model,
    random: Random,
    next: u64,
}

/// Random operations, many of which fail; after each, every sum is what the model says.
pub(super) async fn accounts_never_drift(catalog: &dyn Catalog) {
    let bucket = bucket_name("model");
    put_bucket(catalog, &bucket, None).await;
    let mut walk = Walk { catalog, bucket, model: Model::default(), random: Random(7), next: 0 };
    for step in 0..1500 {
        match walk.random.below(11) {
            0 => walk.change_quota().await,
            1..=3 => walk.commit().await,
            4 => walk.delete().await,
            5 | 6 => walk.create_upload().await,
            7 => walk.begin_or_abandon().await,
            8 => walk.complete().await,
            9 => walk.delete_upload().await,
            _ => walk.sweep().await,
        }
        walk.compare(step).await;
    }
}

impl Walk<'_> {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn name(&mut self) -> String {
        format!("k{}", self.random.below(8))
    }

    async fn change_quota(&mut self) {
        let quota = (self.random.below(4) > 0).then(|| 200 + self.random.below(800));
        put_bucket(self.catalog, &self.bucket, quota).await;
        self.model.quota = quota;
    }

    async fn commit(&mut self) {
        let (name, number, size) = (self.name(), self.number(), self.random.below(150));
        let mut file = new_file(&self.bucket, &key(&name), blob(number, size));
        let mut allowed = true;
        if self.random.below(3) == 0 {
            file.precondition = Precondition::Absent;
            allowed = !self.model.files.contains_key(&name);
        }
        let fits = self.model.fits(size, self.model.size_of(&name));
        let checked = self.catalog.check_quota(&self.bucket, &key(&name), size).await;
        assert_eq!(checked.is_ok(), fits, "check_quota");
        match (self.catalog.commit_file(file).await, allowed, fits) {
            (Ok(_), true, true) => {
                self.model.files.insert(name, (number, size));
                self.model.blobs.insert(number);
            }
            (Err(error), false, _) if error.code() == Code::PreconditionFailed => {}
            (Err(error), true, false) if error.code() == Code::QuotaExceeded => {}
            (result, ..) => panic!("commit_file: allowed {allowed}, fits {fits}, but {result:?}"),
        }
    }

    async fn delete(&mut self) {
        let name = self.name();
        let result = self.catalog.delete_file(&self.bucket, &key(&name), &Precondition::None).await;
        match self.model.files.remove(&name) {
            Some((number, _)) => assert_eq!(result.unwrap(), Some(blob_id(number))),
            None => assert_code(result, Code::FileNotFound, "delete_file"),
        }
    }

    async fn create_upload(&mut self) {
        let (name, number, size) = (self.name(), self.number(), self.random.below(150));
        let up = upload(number, &self.bucket, &name, size);
        let result = self.catalog.create_upload(&up).await;
        if self.model.fits(size, 0) {
            result.unwrap();
            self.model.uploads.insert(number, (name, size, Stage::Open));
        } else {
            assert_code(result, Code::QuotaExceeded, "create_upload");
        }
    }

    async fn begin_or_abandon(&mut self) {
        let (from, to) =
            *self.random.pick(&[(Stage::Open, Stage::Finishing), (Stage::Finishing, Stage::Open)]);
        let Some((number, name, size)) = self.model.upload_in(from, &mut self.random) else { return };
        let id = upload_id(number);
        if to == Stage::Open {
            self.catalog.abandon_finish(&id, blob_id(number)).await.unwrap();
        } else {
            if size > 0 {
                self.catalog.record_extent(&id, &extent(0, size, 1), later(1)).await.unwrap();
            }
            assert_eq!(self.catalog.begin_finish(&id, blob_id(number)).await.unwrap(), crate::Finish::Begun);
        }
        self.model.uploads.insert(number, (name, size, to));
    }

    async fn complete(&mut self) {
        let Some((number, name, size)) = self.model.upload_in(Stage::Finishing, &mut self.random) else {
            return;
        };
        let up = upload(number, &self.bucket, &name, size);
        let fits = self.model.fits(size, self.model.size_of(&name) + size);
        let result = self.catalog.commit_file(finished_file(&up, number)).await;
        if fits {
            result.unwrap();
            self.model.files.insert(name.clone(), (number, size));
            self.model.blobs.insert(number);
            self.model.uploads.insert(number, (name, size, Stage::Complete));
        } else {
            assert_code(result, Code::QuotaExceeded, "commit_file of an upload");
        }
    }

    async fn delete_upload(&mut self) {
        let stage = *self.random.pick(&[Stage::Open, Stage::Finishing, Stage::Complete]);
        let Some((number, ..)) = self.model.upload_in(stage, &mut self.random) else { return };
        let result = self.catalog.delete_upload(&upload_id(number)).await;
        if stage == Stage::Finishing {
            assert_code(result, Code::UploadFinished, "delete_upload");
        } else {
            result.unwrap();
            self.model.uploads.remove(&number);
        }
    }

    async fn sweep(&mut self) {
        for id in self.catalog.unreferenced_blobs(&[], 2).await.unwrap() {
            self.catalog.forget_blob(&id).await.unwrap();
            self.model.blobs.retain(|number| blob_id(*number) != id);
        }
    }

    async fn compare(&self, step: u32) {
        let model = &self.model;
        let found = self.catalog.bucket(&self.bucket).await.unwrap();
        assert_eq!(
            (found.settings.quota_bytes, found.used_bytes, found.reserved_bytes, found.file_count),
            (model.quota, model.used(), model.reserved(), model.files.len() as u64),
            "after step {step}"
        );
        let unreferenced = self.catalog.unreferenced_blobs(&[], 9999).await.unwrap();
        let expected: BTreeSet<BlobId> = model.unreferenced().into_iter().map(blob_id).collect();
        assert_eq!(unreferenced.into_iter().collect::<BTreeSet<_>>(), expected, "after step {step}");
    }
}
