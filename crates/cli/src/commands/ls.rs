//! `carrack ls`: what is on the server.

use crate::connection::Session;
use crate::failure::Failure;
use crate::place::Place;
use crate::text::plain;
use carrack_api::{Bucket, BucketList, FileList};
use clap::Args;
use serde::Serialize;
use std::io::{self, Write};

/// What to list and how.
#[derive(Args)]
pub(crate) struct LsArgs {
    /// BUCKET or BUCKET/PREFIX; the buckets when absent.
    place: Option<String>,
    /// Everything below the prefix, not only its own level.
    #[arg(long, short)]
    recursive: bool,
    /// Sizes and times too.
    #[arg(long, short)]
    long: bool,
    /// One JSON document.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(session: &Session, args: LsArgs) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match &args.place {
        None => buckets(&mut out, session.client.buckets().await?, &args)?,
        Some(place) => files(&mut out, session, &Place::parse(place)?, &args).await?,
    }
    Ok(out.flush()?)
}

fn buckets(out: &mut impl Write, buckets: Vec<Bucket>, args: &LsArgs) -> io::Result<()> {
    if args.json {
        return json(out, &BucketList { buckets });
    }
    for Bucket { name, used_bytes, created_at, .. } in &buckets {
        line(out, args.long, Some(*used_bytes), created_at, name)?;
    }
    Ok(())
}

async fn files(out: &mut impl Write, session: &Session, place: &Place, args: &LsArgs) -> Result<(), Failure> {
    let delimiter = (!args.recursive).then_some('/');
    let mut listing = session.client.list(&place.bucket, &place.rest, delimiter)?;
    let mut whole = FileList { files: Vec::new(), prefixes: Vec::new(), next_cursor: None };
    while let Some(page) = listing.next_page().await? {
        if args.json {
            whole.files.extend(page.files);
            whole.prefixes.extend(page.prefixes);
            continue;
        }
        for prefix in &page.prefixes {
            line(out, args.long, None, "", prefix)?;
        }
        for file in &page.files {
            line(out, args.long, Some(file.size), &file.created_at, &file.key)?;
        }
    }
    if args.json {
        json(out, &whole)?;
    }
    Ok(())
}

fn line(out: &mut impl Write, long: bool, size: Option<u64>, time: &str, name: &str) -> io::Result<()> {
    if long {
        let size = size.map_or("-".to_owned(), |size| size.to_string());
        write!(out, "{size:>15}  {:24}  ", plain(time))?;
    }
    writeln!(out, "{}", plain(name))
}

fn json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let mut out = Vec::new();
        line(&mut out, false, Some(1), "2026-01-01T00:00:00.000Z", "a\u{7}b").unwrap();
        line(&mut out, true, Some(1234), "2026-01-01T00:00:00.000Z", "a").unwrap();
        line(&mut out, true, None, "", "d/").unwrap();
        let long = "           1234  2026-01-01T00:00:00.000Z  a\n";
        let folder = "              -                            d/\n";
        assert_eq!(String::from_utf8(out).unwrap(), format!("a\u{fffd}b\n{long}{folder}"));
    }
}
