//! `carrack rm`: removing files.

use crate::connection::Session;
use crate::failure::Failure;
use crate::place::Place;
use carrack_client::{ClientError, FileName};
use clap::Args;
use futures_util::stream::{self, StreamExt as _};

/// What to remove.
#[derive(Args)]
pub(crate) struct RmArgs {
    /// BUCKET/KEY, or with -r BUCKET/PREFIX/.
    #[arg(required = true)]
    names: Vec<String>,
    /// Everything below the prefixes.
    #[arg(long, short)]
    recursive: bool,
}

pub(crate) async fn run(session: &Session, args: RmArgs) -> Result<(), Failure> {
    let places = args.names.iter().map(|name| Place::parse(name)).collect::<Result<Vec<_>, _>>()?;
    let mut failed = 0;
    if args.recursive {
        if let Some(bare) = places.iter().find(|place| !place.slash) {
            let name = &bare.bucket;
            return Err(Failure::Usage(format!(
                "{name} is a bucket: write {name}/ to remove all files in it"
            )));
        }
        for place in &places {
            failed += remove_folder(session, place).await?;
        }
    } else {
        let names = places.iter().map(Place::file).collect::<Result<Vec<_>, _>>()?;
        failed += remove(session, names.into_iter().map(Ok)).await;
    }
    if failed == 0 { Ok(()) } else { Err(Failure::Several(failed)) }
}

/// Removes everything below a prefix, a page of the listing at a time.
async fn remove_folder(session: &Session, place: &Place) -> Result<u64, Failure> {
    let mut listing = session.client.list(&place.bucket, &place.folder(), None)?;
    let (mut failed, mut found) = (0, false);
    while let Some(page) = listing.next_page().await? {
        found |= !page.files.is_empty();
        failed +=
            remove(session, page.files.iter().map(|file| FileName::new(&place.bucket, &file.key))).await;
    }
    if found { Ok(failed) } else { Err(Failure::Nothing(format!("{}/{}", place.bucket, place.folder()))) }
}

/// Removes files and reports each; how many failed.
async fn remove(session: &Session, names: impl Iterator<Item = Result<FileName, ClientError>>) -> u64 {
    let mut outcomes = stream::iter(names)
        .map(|name| async move {
            match name {
                Ok(name) => session.client.delete(&name).await.map_err(|error| format!("{name}: {error}")),
                Err(error) => Err(error.to_string()),
            }
        })
        .buffer_unordered(session.parallel);
    let mut failed = 0;
    while let Some(outcome) = outcomes.next().await {
        if let Err(message) = outcome {
            failed += 1;
            session.bars.complain(&message);
        }
    }
    failed
}
