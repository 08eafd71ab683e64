//! `carrack link`: ways to files and folders for whoever has them.

use crate::connection::Session;
use crate::failure::Failure;
use crate::place::Place;
use crate::text::{self, plain, seconds};
use carrack_api::{CreateLink, Link};
use clap::{Args, Subcommand};
use std::io::{self, Write as _};
use std::path::PathBuf;

/// What to do with links.
#[derive(Args)]
pub(crate) struct LinkArgs {
    #[command(subcommand)]
    command: LinkCommand,
}

#[derive(Subcommand)]
enum LinkCommand {
    /// Make a link to a file as it is now, or to a ZIP of a folder as it is now, and print its URL.
    New(NewArgs),
    /// List your links.
    Ls(LsArgs),
    /// Revoke links, at once.
    Rm {
        /// Ids of links, as `ls` shows them.
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

#[derive(Args)]
struct NewArgs {
    /// BUCKET/KEY, or BUCKET/PREFIX/ for everything below it as one ZIP.
    source: String,
    /// How long it is good, such as 90s, 15m, 12h or 7d.
    #[arg(long, short, value_name = "TIME", default_value = "7d", value_parser = seconds)]
    expires: u64,
    /// How many downloads it is good for; any number when absent. One that is resumed is one.
    #[arg(long, short, value_name = "N")]
    downloads: Option<u64>,
    /// A file with the password that has to be known. As an option it would show in the list of processes.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The only address, or range of addresses such as 10.0.0.0/8, that it is good from.
    #[arg(long, value_name = "ADDRESS")]
    from: Option<String>,
    /// The name that the download is saved under.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Bytes per second, over all connections.
    #[arg(long, value_name = "BYTES")]
    rate: Option<u64>,
}

#[derive(Args)]
struct LsArgs {
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(session: &Session, args: LinkArgs) -> Result<(), Failure> {
    match args.command {
        LinkCommand::New(args) => new(session, args).await,
        LinkCommand::Ls(args) => list(session, &args).await,
        LinkCommand::Rm { ids } => {
            for id in &ids {
                session.client.revoke_link(id).await?;
            }
            Ok(())
        }
    }
}

async fn new(session: &Session, args: NewArgs) -> Result<(), Failure> {
    let place = Place::parse(&args.source)?;
    let password = args.password_file.as_deref().map(text::first_line).transpose()?;
    let (file, archive) = if place.is_folder() {
        let archive = session.client.create_archive(&place.bucket, &place.rest, args.expires).await?;
        (None, Some(archive.id))
    } else {
        (Some((place.bucket, place.rest)), None)
    };
    let (bucket, key) = file.unzip();
    let wish = CreateLink {
        bucket,
        key,
        archive,
        expires_in: args.expires,
        max_downloads: args.downloads,
        not_before: None,
        ip: args.from,
        password,
        filename: args.name,
        rate_limit: args.rate,
    };
    let link = session.client.create_link(&wish).await?;
    writeln!(io::stdout(), "{}", plain(&link.url))?;
    Ok(())
}

async fn list(session: &Session, args: &LsArgs) -> Result<(), Failure> {
    let links = session.client.links().await?;
    let mut out = io::stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &links).map_err(io::Error::from)?;
        writeln!(out)?;
        return Ok(());
    }
    for link in &links {
        writeln!(out, "{}", plain(&line(link)))?;
    }
    Ok(())
}

/// A link as people read it.
fn line(link: &Link) -> String {
    let to = match (&link.bucket, &link.key, &link.archive) {
        (Some(bucket), Some(key), _) => format!("{bucket}/{key}"),
        (_, _, archive) => format!("archive {}", archive.as_deref().unwrap_or("-")),
    };
    let uses = match link.max_downloads {
        Some(most) => format!("{}/{most}", link.uses),
        None => link.uses.to_string(),
    };
    let state = if link.revoked_at.is_some() { "revoked" } else { "until" };
    format!("{}  {uses:>9}  {state:<7} {}  {to}", link.id, link.expires_at)
}
