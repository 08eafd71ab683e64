//! What an operator does with the audit log in a data folder: proves it whole, takes it elsewhere, gives others what they need
//! to do the same. None of it needs a server, nor minds one that runs.

use crate::config::{self, CatalogUrl, Config, Flags};
use crate::data;
use crate::migrate::runtime;
use carrack_catalog::{AuditBlock, AuditDatabase, AuditFile, AuditQuery};
use carrack_domain::audit::chain::Header;
use carrack_domain::audit::checkpoint::Checkpoint;
use carrack_domain::audit::verify::{Report, Signed, Verifier};
use carrack_domain::id::{hex, unhex};
use carrack_service::keys::{KeyRing, is_signed_by};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

pub use carrack_catalog::AuditQuery as ExportQuery;

/// Where a log is, and what its checkpoints are checked with.
pub struct AuditLog {
    config: Config,
    export: Option<PathBuf>,
    checkpoints: Vec<PathBuf>,
    keys: HashMap<String, [u8; 32]>,
}

impl AuditLog {
    /// The log of the data folder that the settings name; or an `export` of one. `checkpoints` instead of the settings' file, one for each node,
    /// `keys` (`KID=HEX`) besides those of the settings or the folder. The error is a sentence for the operator.
    pub fn new(
        flags: &Flags,
        export: Option<PathBuf>,
        checkpoints: Vec<PathBuf>,
        keys: &[String],
    ) -> Result<AuditLog, String> {
        let config = config::load(flags).map_err(|error| error.to_string())?;
        let checkpoints =
            if checkpoints.is_empty() { vec![config.audit.file(&config.data)] } else { checkpoints };
        let mut known: HashMap<String, [u8; 32]> = own_keys(&config)?.into_iter().collect();
        for key in keys {
            let parsed = key.split_once('=').and_then(|(kid, public)| Some((kid.to_owned(), unhex(public)?)));
            let (kid, public) = parsed.ok_or_else(|| {
                format!("--key {key}: expected KID=HEX, as 'carrack audit keys' prints them")
            })?;
            known.insert(kid, public);
        }
        Ok(AuditLog { config, export, checkpoints, keys: known })
    }

    /// The public halves of the keys that sign checkpoints: their ids, and the keys in hex.
    pub fn keys(&self) -> Vec<(String, String)> {
        let mut keys: Vec<_> = self.keys.iter().map(|(kid, key)| (kid.clone(), hex(key))).collect();
        keys.sort();
        keys
    }

    /// Looks through all of it.
    pub fn verify(&self) -> Result<Report, String> {
        let read = |path: &PathBuf| match std::fs::read_to_string(path) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(format!("cannot read the checkpoints {}: {error}", path.display())),
        };
        let texts = self.checkpoints.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let signed = |checkpoint: &Checkpoint| match self.keys.get(&checkpoint.kid) {
            Some(public) if is_signed_by(checkpoint, public) => Signed::Good,
            Some(_) => Signed::Bad,
            None => Signed::Unknown,
        };
        let mut verifier = Verifier::new(texts.iter().map(|text| text.lines()), signed);
        match &self.export {
            Some(export) => read_export(export, |header, text| verifier.block(header, text))?,
            None => self.read(|header, text| {
                verifier.block(header, text.unwrap_or_default());
                Ok(())
            })?,
        }
        Ok(verifier.finish())
    }

    fn read(&self, each: impl FnMut(&Header, Option<&[u8]>) -> Result<(), String>) -> Result<(), String> {
        match &self.config.catalog.url {
            CatalogUrl::Sqlite => {
                let path = self.config.data.join("catalog.sqlite");
                let file = AuditFile::open(&path).map_err(|error| error.to_string())?;
                show(|after| file.blocks(after), each)
            }
            CatalogUrl::Postgres(url) => {
                let runtime = runtime()?;
                let log = runtime.block_on(AuditDatabase::open(url)).map_err(|error| error.to_string())?;
                show(|after| runtime.block_on(log.blocks(after)), each)
            }
        }
    }

    /// Writes the log: without anything to select by with the line of each block before its own, so that it can be verified;
    /// else the records that are wanted. How many records were written.
    pub fn export(&self, query: &AuditQuery, out: &mut dyn Write) -> Result<u64, String> {
        let whole = *query == AuditQuery::default();
        let mut records = 0;
        let failed = |error: io::Error| format!("cannot write the export: {error}");
        self.read(|header, text| {
            let text = text.ok_or_else(|| format!("block {} cannot be read", header.block))?;
            if whole {
                out.write_all(header.line().as_bytes()).map_err(failed)?;
            }
            for line in text.split_inclusive(|byte| *byte == b'\n').filter(|line| query.matches(line)) {
                out.write_all(line).map_err(failed)?;
                records += 1;
            }
            Ok(())
        })?;
        out.flush().map_err(failed)?;
        Ok(records)
    }
}

/// Shows every block of a log.
fn show(
    blocks: impl Fn(u64) -> carrack_domain::Result<Vec<AuditBlock>>,
    mut each: impl FnMut(&Header, Option<&[u8]>) -> Result<(), String>,
) -> Result<(), String> {
    let mut after = 0;
    loop {
        let blocks = blocks(after).map_err(|error| error.chain())?;
        let Some(last) = blocks.last() else { return Ok(()) };
        after = last.header.block;
        for block in &blocks {
            each(&block.header, block.text.as_deref())?;
        }
    }
}

/// The keys of the settings, or of the data folder if there is one.
fn own_keys(config: &Config) -> Result<Vec<(String, [u8; 32])>, String> {
    let secrets = match config::signing_keys(&config.auth) {
        Some(secrets) => Some(secrets),
        None => data::present_signing_keys(&config.data)?,
    };
    let ring = secrets.map(|secrets| KeyRing::new(&secrets)).transpose();
    let ring = ring.map_err(|problem| format!("the signing keys are no good: {problem}"))?;
    Ok(ring.map_or(Vec::new(), |ring| ring.audit_keys()))
}

/// Shows each block of an export: the line that begins it, and the lines that follow.
fn read_export(path: &Path, mut each: impl FnMut(&Header, &[u8])) -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot read the export {}: {error}", path.display());
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    let mut block: Option<Header> = None;
    let (mut text, mut line) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        let ended = file.read_until(b'\n', &mut line).map_err(failed)? == 0;
        let next = Header::parse(&line);
        if ended || next.is_some() {
            if let Some(header) = &block {
                each(header, &text);
            }
            text.clear();
        }
        match (ended, next, &block) {
            (true, ..) => return Ok(()),
            (false, Some(header), _) => block = Some(header),
            (false, None, Some(_)) => text.extend_from_slice(&line),
            (false, None, None) => {
                return Err(format!(
                    "{} is no export of a whole log: it does not begin with the line of a block",
                    path.display()
                ));
            }
        }
    }
}
