//! `carrack put`: files, folders and standard input to the server.

use crate::connection::Session;
use crate::failure::Failure;
use crate::place::Place;
use crate::walk::{Found, Walk};
use carrack_client::{FileName, Progress, UploadOptions};
use clap::Args;
use futures_util::stream::{self, StreamExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files and where they go.
#[derive(Args)]
pub(crate) struct PutArgs {
    /// Files and folders, or - for standard input, and last the target: BUCKET/KEY for one file, or BUCKET/PREFIX/ to
    /// keep the names.
    #[arg(required = true, value_name = "FILE... BUCKET/PREFIX")]
    paths: Vec<PathBuf>,
    /// Folders go with all that is in them; this is so without the option too.
    #[arg(long, short)]
    recursive: bool,
    /// The media type of the files.
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Never replace a file that is there.
    #[arg(long)]
    no_clobber: bool,
}

/// One file to send, or why it cannot be.
type Job = Result<(PathBuf, String), (PathBuf, std::io::Error)>;

pub(crate) async fn run(session: &Session, args: PutArgs) -> Result<(), Failure> {
    let Some((target, sources @ [_, ..])) = args.paths.split_last() else {
        return Err(Failure::Usage("name at least one file, and last the target BUCKET/PREFIX".into()));
    };
    let target = target.to_str().ok_or_else(|| Failure::Usage("the target is not UTF-8".into()))?;
    let target = Place::parse(target)?;
    let options = UploadOptions {
        content_type: args.content_type,
        only_create: args.no_clobber,
        ..UploadOptions::default()
    };
    if sources.iter().any(|source| source.as_os_str() == "-") {
        return put_stdin(session, sources, &target, &options).await;
    }
    let jobs = sources.iter().map(|source| jobs(source, &target, sources.len() > 1));
    let jobs = jobs.collect::<Result<Vec<_>, Failure>>()?.into_iter().flatten();
    let mut outcomes = stream::iter(jobs)
        .map(|job| put_file(session, &target.bucket, job, &options))
        .buffer_unordered(session.parallel);
    let (mut done, mut failed) = (0u64, 0u64);
    while let Some(outcome) = outcomes.next().await {
        match outcome {
            Ok(()) => done += 1,
            Err((path, failure)) => {
                failed += 1;
                session.bars.complain(&format!("{}: {failure}", path.display()));
            }
        }
    }
    match (done, failed) {
        (0, 0) => Err(Failure::Usage("there is no file to upload".into())),
        (_, 0) => Ok(()),
        _ => Err(Failure::Several(failed)),
    }
}

/// The files that `source` stands for, with their keys.
fn jobs(source: &Path, target: &Place, several: bool) -> Result<Box<dyn Iterator<Item = Job>>, Failure> {
    let appended = several || target.is_folder();
    let name = match source.file_name() {
        _ if !appended => "",
        // `.` and `..` have no name: what is in them goes directly below the target.
        None => "",
        Some(name) => name.to_str().ok_or_else(|| {
            Failure::Usage(format!("{}: its name is not UTF-8: name the key", source.display()))
        })?,
    };
    let base = if appended { target.folder() + name } else { target.rest.clone() };
    if !source.is_dir() {
        return Ok(Box::new(std::iter::once(Ok((source.to_owned(), base)))));
    }
    let base = if base.is_empty() || base.ends_with('/') { base } else { base + "/" };
    Ok(Box::new(
        Walk::new(source)
            .map(move |found| found.map(|Found { path, relative }| (path, format!("{base}{relative}")))),
    ))
}

async fn put_file(
    session: &Session,
    bucket: &str,
    job: Job,
    options: &UploadOptions,
) -> Result<(), (PathBuf, String)> {
    let (path, key) = job.map_err(|(path, error)| (path, error.to_string()))?;
    let failed = |error: carrack_client::ClientError| (path.clone(), without_path(&path, &error.to_string()));
    let name = FileName::new(bucket, &key).map_err(failed)?;
    let transfer = session.bars.transfer();
    let watch: Arc<dyn Progress> = transfer.clone();
    session.client.upload_file(&path, &name, options, watch).await.map_err(failed)?;
    transfer.summary(&format!("{} -> {name}", path.display()));
    Ok(())
}

/// Local errors begin with the path already.
fn without_path(path: &Path, message: &str) -> String {
    let prefix = format!("{}: ", path.display());
    message.strip_prefix(&prefix).unwrap_or(message).to_owned()
}

async fn put_stdin(
    session: &Session,
    sources: &[PathBuf],
    target: &Place,
    options: &UploadOptions,
) -> Result<(), Failure> {
    if sources.len() > 1 || target.is_folder() {
        return Err(Failure::Usage("standard input goes alone, to a target that names the key".into()));
    }
    let name = target.file()?;
    let transfer = session.bars.transfer();
    let watch: Arc<dyn Progress> = transfer.clone();
    session.client.upload_stream(tokio::io::stdin(), &name, options, watch).await?;
    transfer.summary(&format!("- -> {name}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(source: &Path, target: &str, several: bool) -> Vec<String> {
        let target = Place::parse(target).unwrap();
        jobs(source, &target, several).unwrap().map(|job| job.unwrap().1).collect()
    }

    #[test]
    fn targets_and_names() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        std::fs::create_dir_all(tree.join("s")).unwrap();
        std::fs::write(tree.join("s/1"), "").unwrap();
        std::fs::write(tree.join("2"), "").unwrap();
        let file = tree.join("2");
        for (target, key) in [("b", "2"), ("b/", "2"), ("b/x", "x"), ("b/x/", "x/2"), ("b/x/y", "x/y")] {
            assert_eq!(keys(&file, target, false), [key], "{target}");
        }
        assert_eq!(keys(&file, "b/x", true), ["x/2"]);
        assert_eq!(keys(&tree, "b", false), ["tree/2", "tree/s/1"]);
        assert_eq!(keys(&tree, "b/x/", false), ["x/tree/2", "x/tree/s/1"]);
        assert_eq!(keys(&tree, "b/x", false), ["x/2", "x/s/1"]);
        assert_eq!(keys(&tree, "b/x", true), ["x/tree/2", "x/tree/s/1"]);
        assert_eq!(keys(&tree.join("s/.."), "b/x/", false), ["x/2", "x/s/1"]);
    }
}
