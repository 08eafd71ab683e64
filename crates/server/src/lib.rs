//! Configuration, telemetry, lifecycle, wiring: the one room that knows all the others.

mod audit;
mod checkpoints;
mod clock;
mod cluster;
mod config;
mod copy;
mod data;
mod discovery;
mod events;
mod jwks;
mod lifecycle;
mod migrate;
mod recorder;
mod reload;
mod rooms;
mod system;
mod telemetry;
mod tls;

pub use audit::{AuditLog, ExportQuery};
pub use carrack_domain::audit::verify::Report;
pub use config::{Config, ConfigError, DEFAULTS, Flags};
pub use copy::CopyOptions;
use std::process::ExitCode;

/// Runs the server until it is told to stop: 0 after a clean stop, 1 when it could not start or a room failed.
pub fn run(flags: Flags) -> ExitCode {
    let outcome = config::load(&flags).map_err(|error| error.to_string()).and_then(|config| {
        telemetry::start_logging(&config.telemetry);
        lifecycle::run(config, flags)
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            telemetry::complain(&message);
            ExitCode::FAILURE
        }
    }
}

/// Applies what this version changes in the tables of a catalog in PostgreSQL, and says what it did.
pub fn migrate(flags: Flags) -> ExitCode {
    let outcome = config::load(&flags).map_err(|error| error.to_string()).and_then(|config| {
        telemetry::start_logging(&config.telemetry);
        migrate::run(&config.catalog.url)
    });
    match outcome {
        Ok(done) => {
            telemetry::say(&done);
            ExitCode::SUCCESS
        }
        Err(message) => {
            telemetry::complain(&message);
            ExitCode::FAILURE
        }
    }
}

/// Copies one installation to another: 0 when all of it is at the target, else 1, with the reason on standard error.
pub fn copy(options: &CopyOptions) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime
        .map_err(|error| format!("cannot start threads: {error}"))
        .and_then(|runtime| runtime.block_on(copy::run(options)));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            telemetry::complain(&message);
            ExitCode::FAILURE
        }
    }
}

/// Prints every setting with its documentation and default; 1 when the present settings are invalid.
pub fn print_config(flags: Flags) -> ExitCode {
    telemetry::say(DEFAULTS);
    match config::load(&flags) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}
