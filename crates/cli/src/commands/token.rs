//! `carrack token`: access tokens, for administrators.

use crate::connection::Session;
use crate::failure::Failure;
use crate::text::{plain, seconds};
use carrack_api::{CreateToken, Token};
use clap::{Args, Subcommand, ValueEnum};
use std::io::{self, Write as _};

/// What to do with tokens.
#[derive(Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Make a token for somebody and print it; it is shown this once.
    New(NewArgs),
    /// List the tokens there are, never their secrets.
    Ls {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Revoke tokens, at once.
    Rm {
        /// Ids of tokens, as `ls` shows them.
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

#[derive(Args)]
struct NewArgs {
    /// Whose it is: the name that files, uploads and links of theirs bear.
    subject: String,
    /// What its bearer may do by default.
    #[arg(long, value_enum, default_value_t = Role::User)]
    role: Role,
    /// How long it is good, such as 12h or 90d; until it is revoked when absent.
    #[arg(long, short, value_name = "TIME", value_parser = seconds)]
    expires: Option<u64>,
    /// The only buckets that it is good for; all when absent.
    #[arg(long = "bucket", value_name = "BUCKET")]
    buckets: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    Guest,
    User,
    Admin,
}

pub(crate) async fn run(session: &Session, args: TokenArgs) -> Result<(), Failure> {
    match args.command {
        TokenCommand::New(args) => {
            let role = match args.role {
                Role::Guest => "guest",
                Role::User => "user",
                Role::Admin => "admin",
            };
            let wish = CreateToken {
                subject: args.subject,
                role: role.to_owned(),
                expires_in: args.expires,
                buckets: (!args.buckets.is_empty()).then_some(args.buckets),
            };
            let made = session.client.create_token(&wish).await?;
            writeln!(io::stdout(), "{}", plain(&made.token))?;
        }
        TokenCommand::Ls { json } => list(&session.client.tokens().await?, json)?,
        TokenCommand::Rm { ids } => {
            for id in &ids {
                session.client.revoke_token(id).await?;
            }
        }
    }
    Ok(())
}

fn list(tokens: &[Token], json: bool) -> io::Result<()> {
    let mut out = io::stdout();
    if json {
        serde_json::to_writer_pretty(&mut out, tokens)?;
        return writeln!(out);
    }
    for token in tokens {
        let end = token.expires_at.as_deref().unwrap_or("-");
        let buckets = token.buckets.as_ref().map_or(String::new(), |names| format!("  {}", names.join(",")));
        let line = format!("{}  {:<5}  {end:<24}  {}{buckets}", token.id, token.role, token.subject);
        writeln!(out, "{}", plain(&line))?;
    }
    Ok(())
}
