//! `carrack copy`: one installation to another; the server's own room does the work.

use carrack_server::CopyOptions;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// What to copy, and where to. The source's servers must be stopped.
#[derive(Args)]
pub(crate) struct CopyArgs {
    /// The installation to copy: its settings file, or its data folder when it is served with the default settings. Variables
    /// such as `CARRACK_FROM_CATALOG__URL` count for it, and no others.
    #[arg(long, value_name = "FILE|DIR")]
    from: PathBuf,
    /// The one to fill, which must be empty: the same. Variables: `CARRACK_TO_...`.
    #[arg(long, value_name = "FILE|DIR")]
    to: PathBuf,
    /// Only say what there is to be copied, and what stands in the way.
    #[arg(long)]
    dry_run: bool,
    /// Leave uploads that are not complete behind, instead of refusing while there are any.
    #[arg(long)]
    leave_uploads: bool,
    /// Leave the target unfinished: for a first run from a backup of the source, while that goes on being served.
    #[arg(long)]
    preliminary: bool,
}

/// Copies as many contents at the same time as clients send parts: `--parallel`.
pub(crate) fn run(args: CopyArgs, at_once: usize) -> ExitCode {
    carrack_server::copy(&CopyOptions {
        from: args.from,
        to: args.to,
        dry_run: args.dry_run,
        at_once,
        leave_uploads: args.leave_uploads,
        preliminary: args.preliminary,
    })
}
