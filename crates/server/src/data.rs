//! The data folder: made, locked against a second server, with the first administrator's token and the signing keys.

use carrack_domain::Entropy;
use carrack_domain::id::{hex, unhex};
use carrack_service::keys::Secret;
use rustix::fs::FlockOperation;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The data folder, locked as long as this lives.
pub(crate) struct DataFolder {
    pub(crate) path: PathBuf,
    _lock: File,
}

/// Makes the folder if it is not there and locks it: against everybody, or, when it is `shared`, against those who do not
/// share it. The error is a sentence for the operator.
pub(crate) fn open(path: &Path, shared: bool) -> Result<DataFolder, String> {
    let shown = path.display();
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
        let kind = error.kind();
        if matches!(kind, io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory) {
            format!("the data folder {shown} is not a folder. Name another one with --data.")
        } else {
            format!("cannot make the data folder {shown}: {error}. Name another one with --data.")
        }
    })?;
    let file = path.join("lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&file).map_err(|e| match e.kind() {
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            format!("the data folder {shown} cannot be written to: {e}. Name another one with --data, or change its owner or mode.")
        }
        _ => format!("cannot open {}: {e}", file.display()),
    })?;
    let operation =
        if shared { FlockOperation::NonBlockingLockShared } else { FlockOperation::NonBlockingLockExclusive };
    rustix::fs::flock(&lock, operation).map_err(|errno| match errno {
        rustix::io::Errno::WOULDBLOCK => {
            format!("the data folder {shown} is in use by another carrack: stop that one first, or name another folder with --data.")
        }
        _ => format!("cannot lock {}: {errno}", file.display()),
    })?;
    Ok(DataFolder { path: path.to_owned(), _lock: lock })
}

/// What the stored files of this folder are called, all of them together: a random id that its first start makes. Another
/// node that makes it at the same time finds the first one's.
pub(crate) fn store_id(folder: &DataFolder, entropy: &dyn Entropy) -> Result<[u8; 16], String> {
    let path = folder.path.join("store-id");
    let failed = |error: io::Error| format!("cannot read or write {}: {error}", path.display());
    let parsed = |text: String| {
        unhex(text.trim()).ok_or_else(|| format!("{} is damaged: restore it from a backup", path.display()))
    };
    if let Some(text) = read(&path).map_err(failed)? {
        return parsed(text);
    }
    let mut id = [0; 16];
    entropy.fill(&mut id);
    let aside = folder.path.join(format!("store-id.{}", hex(&id)));
    let written = || {
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&aside)?;
        writeln!(file, "{}", hex(&id))?;
        file.sync_all()?;
        // A link, since that does not replace what another node has made.
        match std::fs::hard_link(&aside, &path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        std::fs::remove_file(&aside)?;
        File::open(&folder.path)?.sync_all()
    };
    written().map_err(failed)?;
    parsed(read(&path).map_err(failed)?.unwrap_or_default())
}

/// The first administrator's token: from the environment, from the file, or a new one that is written there.
pub(crate) fn root_token(folder: &DataFolder, entropy: &dyn Entropy) -> Result<String, String> {
    if let Some(token) = std::env::var_os("CARRACK_ROOT_TOKEN") {
        let token = token.into_string().unwrap_or_default();
        let plain = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
        return if plain {
            Ok(token)
        } else {
            Err("CARRACK_ROOT_TOKEN must be visible ASCII characters without spaces, at least one."
                .to_owned())
        };
    }
    let path = folder.path.join(ROOT_TOKEN);
    let shown = path.display().to_string();
    match read_token(&path) {
        Ok(Some(token)) => {
            tracing::info!(path = shown, "the root token is in this file");
            return Ok(token);
        }
        Ok(None) => {}
        Err(error) => return Err(format!("cannot read the root token {shown}: {error}")),
    }
    let mut bytes = [0; 32];
    entropy.fill(&mut bytes);
    let token = hex(&bytes);
    write_secret(&folder.path, ROOT_TOKEN, &token)
        .map_err(|error| format!("cannot write the root token {shown}: {error}"))?;
    tracing::info!(path = shown, "made a root token; it is in this file");
    Ok(token)
}

fn read_token(path: &Path) -> io::Result<Option<String>> {
    let Some(text) = read(path)? else { return Ok(None) };
    let token = text.trim();
    if token.is_empty() {
        return Err(io::Error::other("the file is empty: delete it, and the next start makes a new token"));
    }
    Ok(Some(token.to_owned()))
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Written aside and renamed, so that a crash leaves no half of it.
pub(crate) fn write_secret(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    let aside = folder.join(format!("{name}.new"));
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    std::fs::rename(&aside, folder.join(name))?;
    File::open(folder)?.sync_all()
}

/// Files of the folder.
pub(crate) const SIGNING_KEYS: &str = "signing-keys";
pub(crate) const ROOT_TOKEN: &str = "root-token";

/// The keys that the folder has, for where the settings have none: read from its file, which the first start makes.
pub(crate) fn signing_keys(folder: &Path, entropy: &dyn Entropy) -> Result<Vec<Secret>, String> {
    if let Some(keys) = present_signing_keys(folder)? {
        return Ok(keys);
    }
    let path = folder.join(SIGNING_KEYS);
    let shown = path.display();
    let (mut kid, mut secret) = ([0; 4], [0; 32]);
    entropy.fill(&mut kid);
    entropy.fill(&mut secret);
    let made = Secret { kid: hex(&kid), secret: hex(&secret) };
    write_secret(folder, SIGNING_KEYS, &format!("{} {}", made.kid, made.secret))
        .map_err(|error| format!("cannot write the signing keys {shown}: {error}"))?;
    tracing::info!(path = %shown, "made a signing key; it is in this file");
    Ok(vec![made])
}

/// The keys that the folder has; `None` when it has no file of them.
pub(crate) fn present_signing_keys(folder: &Path) -> Result<Option<Vec<Secret>>, String> {
    let path = folder.join(SIGNING_KEYS);
    let shown = path.display();
    let text = read(&path).map_err(|error| format!("cannot read the signing keys {shown}: {error}"))?;
    let Some(text) = text else { return Ok(None) };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys = lines.map(|line| {
        let (kid, secret) = line.split_once(' ')?;
        Some(Secret { kid: kid.to_owned(), secret: secret.trim().to_owned() })
    });
    let keys = keys.collect::<Option<Vec<_>>>();
    keys.map(Some).ok_or_else(|| format!("the signing keys {shown} have a line that is not \"KID SECRET\""))
}
