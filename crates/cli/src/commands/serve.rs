//! `carrack serve`, `carrack config` and `carrack migrate`: the server's own room does the work.

use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// The everyday settings. All others stand in the file or the environment.
#[derive(Args)]
pub(crate) struct ServeArgs {
    /// Where to listen, such as 127.0.0.1:8080; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where files and facts are kept.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The settings file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ServeArgs {
    fn flags(self) -> carrack_server::Flags {
        carrack_server::Flags { listen: self.listen, data: self.data, config: self.config }
    }
}

pub(crate) fn run(args: ServeArgs) -> ExitCode {
    carrack_server::run(args.flags())
}

pub(crate) fn print_config(args: ServeArgs) -> ExitCode {
    carrack_server::print_config(args.flags())
}

pub(crate) fn migrate(args: ServeArgs) -> ExitCode {
    carrack_server::migrate(args.flags())
}
