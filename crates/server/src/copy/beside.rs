//! What stands beside the catalog: keys, the root token, the checkpoints of the audit log.

use crate::config::{self, Config};
use crate::data;
use carrack_service::keys::Secret;
use std::path::Path;

/// The keys that the source signs with, all of which the target must have: what was signed ends without.
pub(super) fn keys(from: &Config, to: &Config) -> Result<Vec<Secret>, String> {
    let of = |config: &Config| match config::signing_keys(&config.auth) {
        Some(keys) => Ok(Some(keys)),
        None => data::present_signing_keys(&config.data),
    };
    let keys = of(from).map_err(|error| format!("--from: {error}"))?.unwrap_or_default();
    let Some(there) = of(to).map_err(|error| format!("--to: {error}"))? else { return Ok(keys) };
    for key in &keys {
        if there.iter().any(|other| other.kid == key.kid && other.secret == key.secret) {
            continue;
        }
        if config::signing_keys(&to.auth).is_none() {
            return Err(format!(
                "--to: the data folder {} has signing keys of its own, since it was served before: name an empty folder",
                to.data.display()
            ));
        }
        let source = match config::signing_keys(&from.auth) {
            Some(_) => "auth.keys of the source".to_owned(),
            None => format!("{}", from.data.join(data::SIGNING_KEYS).display()),
        };
        return Err(format!(
            "--to: auth.keys lacks the key {} of the source, without which everything that was signed with it ends: signed URLs, \
             and what proves the audit log whole. Add it, as it is in {source}.",
            key.kid
        ));
    }
    Ok(keys)
}

/// Copies the files that the target has not.
pub(super) fn take_along(from: &Config, to: &Config, keys: &[Secret]) -> Result<(), String> {
    let is_set = config::signing_keys(&to.auth).is_some();
    if !is_set && !keys.is_empty() && data::present_signing_keys(&to.data)?.is_none() {
        let lines: Vec<String> = keys.iter().map(|key| format!("{} {}", key.kid, key.secret)).collect();
        put(&to.data, data::SIGNING_KEYS, &lines.join("\n"))?;
    }
    let token = from.data.join(data::ROOT_TOKEN);
    if !to.data.join(data::ROOT_TOKEN).exists() && token.exists() {
        let token = std::fs::read_to_string(&token).map_err(|error| unreadable(&token, &error))?;
        put(&to.data, data::ROOT_TOKEN, token.trim())?;
    }
    checkpoints(&from.audit.file(&from.data), &to.audit.file(&to.data))
}

fn put(folder: &Path, name: &str, text: &str) -> Result<(), String> {
    data::write_secret(folder, name, text)
        .map_err(|error| format!("cannot write {}: {error}", folder.join(name).display()))
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}

/// The log is one chain there and here: so are its checkpoints. Those of an earlier run are what these begin with.
fn checkpoints(from: &Path, to: &Path) -> Result<(), String> {
    let read = |path: &Path| match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(unreadable(path, &error)),
    };
    let (ours, theirs) = (read(from)?, read(to)?);
    if ours.trim_end() == theirs.trim_end() {
        return Ok(());
    }
    if !ours.starts_with(theirs.trim_end()) {
        return Err(format!(
            "{} has other checkpoints of an audit log than {}: move it away, or name another file in audit.checkpoints of the target",
            to.display(),
            from.display()
        ));
    }
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = to.file_name().and_then(|name| name.to_str()).unwrap_or("audit-checkpoints");
    put(folder, name, ours.trim_end())
}
