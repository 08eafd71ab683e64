//! `carrack zip`: everything below a prefix as one archive.

use crate::connection::Session;
use crate::failure::Failure;
use crate::place::Place;
use carrack_client::{ArchiveRequest, Progress, local_path};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What to pack and where to.
#[derive(Args)]
pub(crate) struct ZipArgs {
    /// BUCKET or BUCKET/PREFIX: all files whose keys begin with the prefix.
    source: String,
    /// The archive, or - for standard output; the prefix's last segment with .zip when absent.
    #[arg(long, short, value_name = "FILE.zip|-")]
    output: Option<PathBuf>,
    /// How the files are to lie in it. `auto` deflates what looks worth it. What is not `store` is made by the server first.
    #[arg(long, short, value_enum, default_value_t = Compression::Store)]
    compression: Compression,
}

/// How files lie in an archive.
#[derive(Clone, Copy, ValueEnum)]
enum Compression {
    Store,
    Deflate,
    Auto,
}

pub(crate) async fn run(session: &Session, args: ZipArgs) -> Result<(), Failure> {
    let source = Place::parse(&args.source)?;
    let compression = match args.compression {
        Compression::Store => None,
        Compression::Deflate => Some("deflate".to_owned()),
        Compression::Auto => Some("auto".to_owned()),
    };
    let request = ArchiveRequest { bucket: source.bucket.clone(), prefix: source.rest.clone(), compression };
    let transfer = session.bars.transfer();
    let watch: Arc<dyn Progress> = transfer.clone();
    if args.output.as_deref() == Some(Path::new("-")) {
        session.client.stream_archive(&request, &mut tokio::io::stdout(), watch).await?;
        transfer.summary(&format!("{} -> -", args.source));
        return Ok(());
    }
    let name = format!("{}.zip", source.last());
    let destination = match args.output {
        None => local_path(Path::new(""), &name)?,
        Some(output) if output.is_dir() => local_path(&output, &name)?,
        Some(output) => output,
    };
    session.client.download_archive(&request, &destination, watch).await?;
    transfer.summary(&format!("{} -> {}", args.source, destination.display()));
    Ok(())
}
