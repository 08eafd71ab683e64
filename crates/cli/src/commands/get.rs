//! `carrack get`: files from the server.

use crate::connection::Session;
use crate::failure::Failure;
use crate::place::Place;
use carrack_client::{Downloaded, FileName, Progress, Result, local_path};
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What to download and where to.
#[derive(Args)]
pub(crate) struct GetArgs {
    /// BUCKET/KEY, or with -r BUCKET/PREFIX/.
    source: String,
    /// The file, the folder, or - for standard output. With -r the folder that takes what is below the prefix; a new
    /// one called as the prefix's last segment when absent.
    #[arg(long, short, value_name = "FILE|DIR|-")]
    output: Option<PathBuf>,
    /// Everything below the prefix.
    #[arg(long, short)]
    recursive: bool,
}

pub(crate) async fn run(session: &Session, args: GetArgs) -> std::result::Result<(), Failure> {
    let source = Place::parse(&args.source)?;
    if args.recursive {
        return get_folder(session, &source, args.output).await;
    }
    if source.is_folder() {
        return Err(Failure::Usage(format!("{} is a folder: add -r to download all of it", args.source)));
    }
    let name = source.file()?;
    let transfer = session.bars.transfer();
    let watch: Arc<dyn Progress> = transfer.clone();
    if args.output.as_deref() == Some(Path::new("-")) {
        session.client.download_stream(&name, &mut tokio::io::stdout(), watch).await?;
        transfer.summary(&format!("{name} -> -"));
        return Ok(());
    }
    let destination = destination(&name, args.output)?;
    session.client.download_file(&name, &destination, watch).await?;
    transfer.summary(&format!("{name} -> {}", destination.display()));
    Ok(())
}

/// The output itself, or the key's last segment in it when it is a folder.
fn destination(name: &FileName, output: Option<PathBuf>) -> Result<PathBuf> {
    let folder = match output {
        None => PathBuf::new(),
        Some(output) if output.is_dir() || output.as_os_str().as_encoded_bytes().ends_with(b"/") => output,
        Some(output) => return Ok(output),
    };
    local_path(&folder, name.key.file_name())
}

async fn get_folder(
    session: &Session,
    source: &Place,
    output: Option<PathBuf>,
) -> std::result::Result<(), Failure> {
    if output.as_deref() == Some(Path::new("-")) {
        return Err(Failure::Usage("several files cannot go to standard output: use `carrack zip`".into()));
    }
    let folder = match output {
        Some(folder) => folder,
        None => local_path(Path::new(""), source.last())?,
    };
    let mut failed = 0;
    let each = |key: &str, outcome: Result<(PathBuf, Downloaded)>| match outcome {
        Ok((path, downloaded)) => {
            let size = crate::text::size(downloaded.file.size);
            session.bars.line(&format!("{}/{key} -> {}  {size}", source.bucket, path.display()));
        }
        Err(error) => {
            failed += 1;
            session.bars.complain(&format!("{}/{key}: {error}", source.bucket));
        }
    };
    let transfer = session.bars.transfer();
    let watch: Arc<dyn Progress> = transfer.clone();
    let prefix = source.folder();
    let done = session.client.download_folder(&source.bucket, &prefix, &folder, watch, each).await?;
    match (done, failed) {
        (0, 0) => Err(Failure::Nothing(format!("{}/{prefix}", source.bucket))),
        (_, 0) => {
            transfer.summary(&format!("{done} files"));
            Ok(())
        }
        _ => Err(Failure::Several(failed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let folder = tempfile::tempdir().unwrap();
        let name = FileName::parse("default/a/b.txt").unwrap();
        let to = |output: Option<PathBuf>| destination(&name, output).unwrap();
        assert_eq!(to(None), Path::new("b.txt"));
        assert_eq!(to(Some("x".into())), Path::new("x"));
        assert_eq!(to(Some("none/".into())), Path::new("none/b.txt"));
        assert_eq!(to(Some(folder.path().into())), folder.path().join("b.txt"));
        let hostile = FileName::parse("default/a\\..\\b").unwrap();
        assert!(destination(&hostile, None).is_err());
        assert!(destination(&hostile, Some("chosen".into())).is_ok());
    }
}
