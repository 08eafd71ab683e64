//! `carrack`: the server, and the commands that move files to and from one.

mod bars;
mod commands;
mod connection;
mod failure;
mod place;
mod text;
mod walk;

use clap::{Parser, Subcommand};
use commands::{audit, cluster, copy, get, link, ls, put, rm, serve, token, zip};
use connection::{Connection, Session};
use failure::Failure;
use std::process::ExitCode;

/// Gives memory back within a second of its last use, see `.cargo/config.toml`, and is quicker than the C library's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A self-hosted file-transfer server, and its client.
#[derive(Parser)]
#[command(name = "carrack", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server.
    Serve(serve::ServeArgs),
    /// Print every setting with its documentation and default, and check those in force.
    Config(serve::ServeArgs),
    /// Apply what this version changes in the tables of a catalog in PostgreSQL, before the first server of it starts.
    Migrate(serve::ServeArgs),
    /// Prove the audit log of a data folder whole, or export it.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Copy one installation to another, say from SQLite and a disk to PostgreSQL and S3. Run again after an interruption, it
    /// continues.
    Copy(copy::CopyArgs),
    /// Start several nodes with PostgreSQL, Redis, RabbitMQ, Garage and nginx on this machine, to try them.
    Cluster(cluster::ClusterArgs),
    /// Upload files and folders. Run again after an interruption, it continues.
    Put(put::PutArgs),
    /// Download a file, or with -r everything below a prefix. Run again after an interruption, it continues.
    Get(get::GetArgs),
    /// List files, or buckets when none is named.
    Ls(ls::LsArgs),
    /// Download everything below a prefix as one ZIP.
    Zip(zip::ZipArgs),
    /// Remove files, or with -r everything below a prefix.
    Rm(rm::RmArgs),
    /// Make, list and revoke links to files and folders.
    Link(link::LinkArgs),
    /// Make, list and revoke access tokens.
    Token(token::TokenArgs),
}

fn main() -> ExitCode {
    let Cli { connection, command } = Cli::parse();
    match command {
        Command::Serve(args) => serve::run(args),
        Command::Config(args) => serve::print_config(args),
        Command::Migrate(args) => serve::migrate(args),
        Command::Audit(command) => audit::run(command),
        Command::Copy(args) => copy::run(args, usize::from(connection.parallel)),
        Command::Cluster(args) => cluster::run(args),
        Command::Put(args) => client(&connection, async |session| put::run(session, args).await),
        Command::Get(args) => client(&connection, async |session| get::run(session, args).await),
        Command::Ls(args) => client(&connection, async |session| ls::run(session, args).await),
        Command::Zip(args) => client(&connection, async |session| zip::run(session, args).await),
        Command::Rm(args) => client(&connection, async |session| rm::run(session, args).await),
        Command::Link(args) => client(&connection, async |session| link::run(session, args).await),
        Command::Token(args) => client(&connection, async |session| token::run(session, args).await),
    }
}

/// Runs a command against a server, on a runtime of its own.
fn client(connection: &Connection, command: impl AsyncFnOnce(&Session) -> Result<(), Failure>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(32).build();
    let outcome = runtime.map_err(Failure::Output).and_then(|runtime| {
        let session = connection.open()?;
        let outcome = runtime.block_on(command(&session));
        session.bars.close();
        // Standard input may still be waited for by a thread that nothing can wake.
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_stand_before_or_behind_the_command() {
        assert!(Cli::try_parse_from("carrack put a --no-clobber b c/".split(' ')).is_ok());
        for line in ["carrack --server http://x ls -l default", "carrack ls -l default --server http://x"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.connection.server, "http://x");
        }
        for line in ["carrack", "carrack put", "carrack put --token x a b", "carrack ls --parallel 0"] {
            assert_eq!(Cli::try_parse_from(line.split(' ')).err().unwrap().exit_code(), 2, "{line}");
        }
    }
}
