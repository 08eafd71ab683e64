//! `carrack audit`: the log of a data folder, with or without a server.

use crate::text;
use carrack_domain::Timestamp;
use carrack_server::{AuditLog, ExportQuery, Flags, Report};
use clap::{Args, Subcommand};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// What to do with the log.
#[derive(Subcommand)]
pub(crate) enum AuditCommand {
    /// Prove that nothing in it was changed, taken out, put in or cut off. Ends with 1 when something was.
    Verify(VerifyArgs),
    /// Write it as lines of JSON. All of it can be verified elsewhere; a selection cannot.
    Export(ExportArgs),
    /// Print the public keys that checkpoints are checked with, for those who verify elsewhere.
    Keys(Place),
}

/// Which log.
#[derive(Args)]
pub(crate) struct Place {
    /// Where files and facts are kept.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The settings file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Place {
    fn flags(&self) -> Flags {
        Flags { listen: None, data: self.data.clone(), config: self.config.clone() }
    }
}

/// What to prove, and with what.
#[derive(Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    place: Place,
    /// An export instead of the log in the data folder.
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// The file of checkpoints, instead of the one in the settings; given again for each further node that has one of its own.
    #[arg(long, value_name = "FILE")]
    checkpoints: Vec<PathBuf>,
    /// A public key, as 'carrack audit keys' prints it: one that has been removed, or that of another server.
    #[arg(long = "key", value_name = "KID=HEX")]
    keys: Vec<String>,
}

/// What to write, and where to.
#[derive(Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    place: Place,
    /// Records not older than this, such as 2026-11-21T18:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Records older than this.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    /// Records of this subject.
    #[arg(long)]
    subject: Option<String>,
    /// Records about this bucket.
    #[arg(long)]
    bucket: Option<String>,
    /// Records about this key.
    #[arg(long)]
    key: Option<String>,
    /// Records of this action, such as file.read, or of all of a kind, such as file.
    #[arg(long)]
    action: Option<String>,
    /// The file to write instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).ok_or_else(|| "expected a time such as 2026-11-21T18:00:00Z".to_owned())
}

pub(crate) fn run(command: AuditCommand) -> ExitCode {
    let done = match command {
        AuditCommand::Verify(args) => verify(&args),
        AuditCommand::Export(args) => export(args).map(|()| ExitCode::SUCCESS),
        AuditCommand::Keys(place) => keys(&place).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|message| {
        text::complain(&message);
        ExitCode::FAILURE
    })
}

fn say(text: &str) -> Result<(), String> {
    writeln!(io::stdout(), "{text}").map_err(|error| format!("cannot write: {error}"))
}

fn verify(args: &VerifyArgs) -> Result<ExitCode, String> {
    let log = AuditLog::new(&args.place.flags(), args.export.clone(), args.checkpoints.clone(), &args.keys)?;
    let report = log.verify()?;
    for finding in &report.findings {
        text::complain(&finding.to_string());
    }
    say(&summary(&report))?;
    Ok(if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn summary(report: &Report) -> String {
    let verdict = if report.findings.is_empty() { "whole" } else { "NOT WHOLE" };
    let Some((first, last)) = report.blocks else { return format!("{verdict}: the log is empty") };
    let Report { records, checkpoints, vouched, .. } = report;
    let until = report.at.map(|at| at.to_string()).unwrap_or_default();
    format!(
        "{verdict}: {records} records in blocks {first} to {last}, until {until}; {checkpoints} checkpoints, the last good \
         one of block {vouched}"
    )
}

fn export(args: ExportArgs) -> Result<(), String> {
    let log = AuditLog::new(&args.place.flags(), None, Vec::new(), &[])?;
    let ExportArgs { since, until, subject, bucket, key, action, out, .. } = args;
    let query = ExportQuery { since, until, subject, bucket, key, action };
    match out {
        None => log.export(&query, &mut BufWriter::new(io::stdout().lock())),
        Some(path) => {
            let failed = |error: io::Error| format!("cannot write {}: {error}", path.display());
            let file = File::create(&path).map_err(failed)?;
            let records = log.export(&query, &mut BufWriter::new(&file))?;
            file.sync_all().map_err(failed)?;
            Ok(records)
        }
    }
    .map(drop)
}

fn keys(place: &Place) -> Result<(), String> {
    let log = AuditLog::new(&place.flags(), None, Vec::new(), &[])?;
    log.keys().iter().try_for_each(|(kid, key)| say(&format!("{kid}={key}")))
}
