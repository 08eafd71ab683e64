//! Settings: flag over variable over file over `defaults.toml`, which is also what `carrack config` prints. There is
//! no second list of defaults that could drift.

mod limits;
mod rooms;
mod units;

use crate::system::SystemClock;
use carrack_domain::Clock;
use carrack_domain::policy::AddressRange;
use carrack_service::keys::{KeyRing, Secret};
use carrack_storage::Durability;
use carrack_transport::OldestVersion;
use figment::providers::{Env, Format, Serialized, Toml};
use figment::value::{Dict, UncasedStr, Value};
use figment::{Figment, Source};
use serde::Deserialize;
use serde::de::{Error as _, Unexpected};
use std::fmt;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::targets::Targets;

pub(crate) use rooms::{Catalog, CatalogUrl, Storage, StorageKind};

/// The documented defaults.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// The file that is read when none is named and it is there.
const FILE: &str = "carrack.toml";
/// What variables begin with.
const PREFIX: &str = "CARRACK_";
/// What variables of one side of a copy have after it: see [`load_side`].
const SIDES: [&str; 2] = ["from_", "to_"];
/// Variables with our prefix that are no settings: the first administrator's token, what the client commands read,
/// and what the benchmark harness sets.
const NOT_SETTINGS: &[&str] = &["root_token", "url", "token", "config", "ca_cert", "bin", "extra"];

/// Bytes of the name of a node, and of what keys begin with.
const NAME_BYTES_MAX: usize = 100;

/// The most workers: each takes some MiB.
const WORKERS_MAX: usize = 1024;

/// What the command line may say.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--listen`.
    pub listen: Option<String>,
    /// `--data`.
    pub data: Option<PathBuf>,
    /// `--config`.
    pub config: Option<PathBuf>,
}

/// All settings. Among them are secrets, so none of it can be printed.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The data folder.
    pub data: PathBuf,
    /// Sockets.
    pub server: Server,
    /// Encryption.
    pub tls: Tls,
    /// The facts.
    pub catalog: Catalog,
    /// The bytes.
    pub storage: Storage,
    /// What nodes share for a short time.
    pub state: State,
    /// The node among others.
    pub cluster: Cluster,
    /// Who is told where it is.
    pub discovery: Discovery,
    /// Whose credentials are good.
    pub auth: Auth,
    /// What comes in.
    pub uploads: Uploads,
    /// Many files as one.
    pub archives: Archives,
    /// How much one may have.
    pub limits: limits::Limits,
    /// Who did what.
    pub audit: Audit,
    /// Who is told of it.
    pub events: Events,
    /// What is told of it all.
    pub telemetry: Telemetry,
}

/// `[server]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    pub listen: String,
    pub public_url: String,
    pub cors_origins: Vec<String>,
    pub trusted_proxies: Vec<String>,
    #[serde(deserialize_with = "units::duration")]
    pub shutdown_grace: Duration,
    #[serde(deserialize_with = "units::duration")]
    pub header_timeout: Duration,
    #[serde(deserialize_with = "units::duration")]
    pub idle_timeout: Duration,
    #[serde(deserialize_with = "units::bytes")]
    pub min_rate: u64,
    pub max_connections: usize,
}

/// `[tls]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    pub cert: PathBuf,
    pub key: PathBuf,
    #[serde(deserialize_with = "oldest_version")]
    pub min_version: OldestVersion,
    #[serde(deserialize_with = "units::duration")]
    pub hsts: Duration,
}

impl Tls {
    /// Whether HTTPS is spoken.
    pub fn is_on(&self) -> bool {
        !self.cert.as_os_str().is_empty()
    }
}

/// `[state]`: the URL may have a password in it.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    pub url: String,
    pub prefix: String,
}

impl State {
    /// The URL of what is shared with other nodes, if anything is.
    pub fn shared(&self) -> Option<&str> {
        (self.url != "memory").then_some(self.url.as_str())
    }
}

/// `[cluster]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    pub node_id: String,
}

/// `[discovery]`: it has a token in it.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Discovery {
    pub consul_url: String,
    pub service: String,
    pub token: String,
    pub address: String,
}

/// `[auth]`
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    pub keys: Vec<SigningKey>,
    pub jwks: Vec<Jwks>,
    pub anonymous_read: bool,
}

/// One of `auth.jwks`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jwks {
    pub issuer: String,
    pub audience: String,
    #[serde(default)]
    pub url: String,
    #[serde(default)]
    pub file: PathBuf,
    #[serde(default = "all_algorithms")]
    pub algorithms: Vec<String>,
}

fn all_algorithms() -> Vec<String> {
    ["RS256", "ES256", "EdDSA"].map(str::to_owned).to_vec()
}

/// One of `auth.keys`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigningKey {
    pub kid: String,
    pub secret: String,
}

/// `[uploads]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uploads {
    #[serde(deserialize_with = "units::duration")]
    pub ttl: Duration,
    #[serde(deserialize_with = "units::bytes")]
    pub max_size: u64,
    #[serde(deserialize_with = "units::some_bytes")]
    pub part_size: NonZeroU64,
    #[serde(deserialize_with = "durability")]
    pub durability: Durability,
}

/// `[archives]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archives {
    pub max_entries: usize,
    #[serde(deserialize_with = "units::bytes")]
    pub max_bytes: u64,
    #[serde(deserialize_with = "units::duration")]
    pub ttl: Duration,
    pub workers: usize,
    #[serde(deserialize_with = "units::bytes")]
    pub encodings_quota: u64,
}

/// `[audit]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    pub enabled: bool,
    #[serde(deserialize_with = "units::duration")]
    pub keep: Duration,
    pub checkpoints: PathBuf,
    #[serde(deserialize_with = "units::duration")]
    pub checkpoint_every: Duration,
}

impl Audit {
    /// The file of checkpoints.
    pub fn file(&self, data: &Path) -> PathBuf {
        let set = !self.checkpoints.as_os_str().is_empty();
        if set { self.checkpoints.clone() } else { data.join("audit-checkpoints") }
    }
}

/// `[events]`: URLs may have passwords in them.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    pub amqp_url: String,
    pub exchange: String,
    pub webhooks: Vec<Hook>,
    pub allow_addresses: Vec<String>,
    #[serde(deserialize_with = "units::duration")]
    pub give_up_after: Duration,
}

/// One of `events.webhooks`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    pub url: String,
    pub secret: String,
    #[serde(default)]
    pub types: Vec<String>,
}

impl Events {
    /// Whether anybody is told.
    pub fn are_kept(&self) -> bool {
        !self.amqp_url.is_empty() || !self.webhooks.is_empty()
    }
}

/// `[telemetry]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    pub log: String,
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text.
    Text,
    /// One JSON object per line.
    Json,
}

fn durability<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Durability, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        Power,
        Process,
    }
    Ok(match Word::deserialize(deserializer)? {
        Word::Power => Durability::Power,
        Word::Process => Durability::Process,
    })
}

/// A variable's `1.2` arrives as a number, the file's `"1.2"` as text.
fn oldest_version<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<OldestVersion, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Version {
        Number(f64),
        Text(String),
    }
    let text = match Version::deserialize(deserializer)? {
        Version::Number(number) => number.to_string(),
        Version::Text(text) => text,
    };
    match text.as_str() {
        "1.2" => Ok(OldestVersion::Tls12),
        "1.3" => Ok(OldestVersion::Tls13),
        other => Err(D::Error::invalid_value(Unexpected::Str(other), &"\"1.2\" or \"1.3\"")),
    }
}

/// Everything that is wrong with the settings, at once.
#[derive(Debug)]
pub struct ConfigError(Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// Reads the settings; an unknown key or a bad value is an error with the key's name.
pub(crate) fn load(flags: &Flags) -> Result<Config, ConfigError> {
    let file = file(flags)?;
    let environment = environment(PREFIX);
    let mut figment = Figment::from(Toml::string(DEFAULTS));
    if let Some(file) = file {
        figment = figment.merge(Toml::file_exact(file));
    }
    figment = figment.merge(environment);
    if let Some(listen) = &flags.listen {
        figment = figment.merge(Serialized::default("server.listen", listen));
    }
    if let Some(data) = &flags.data {
        figment = figment.merge(Serialized::default("data", data));
    }
    extract(&figment, PREFIX)
}

/// The settings of one side of a copy, `from` or `to`: of a file, or of a data folder that was served with the defaults.
/// Variables come from `CARRACK_FROM_...` and `CARRACK_TO_...`, since those of servers would be of both sides.
pub(crate) fn load_side(place: &Path, side: &str) -> Result<Config, ConfigError> {
    let prefix = format!("{PREFIX}{}_", side.to_uppercase());
    let figment = Figment::from(Toml::string(DEFAULTS));
    let figment = if place.is_file() {
        figment.merge(Toml::file_exact(place))
    } else if side == "to" || place.is_dir() {
        if place.extension().is_some_and(|extension| extension == "toml") {
            return Err(ConfigError(vec![format!(
                "the configuration file {} does not exist",
                place.display()
            )]));
        }
        figment.merge(Serialized::default("data", place))
    } else {
        let shown = place.display();
        return Err(ConfigError(vec![format!("{shown} is neither a configuration file nor a data folder")]));
    };
    extract(&figment.merge(environment(&prefix)), &prefix)
}

fn environment(prefix: &str) -> Env {
    let of_side = prefix != PREFIX;
    let is_setting = move |key: &UncasedStr| {
        !NOT_SETTINGS.iter().any(|name| key == name)
            && (of_side || !SIDES.iter().any(|side| key.as_str().to_ascii_lowercase().starts_with(side)))
    };
    Env::prefixed(prefix).filter(is_setting).map(|key| {
        if key == "listen" { "server.listen".into() } else { key.as_str().replace("__", ".").into() }
    })
}

fn extract(figment: &Figment, prefix: &str) -> Result<Config, ConfigError> {
    let config: Config = figment.extract().map_err(|error| ConfigError(all_wrong(figment, error, prefix)))?;
    check(&config)?;
    Ok(config)
}

/// The file to read: the one named, which must be there, or `carrack.toml` if it is.
fn file(flags: &Flags) -> Result<Option<PathBuf>, ConfigError> {
    let named = flags.config.clone().or_else(|| std::env::var_os("CARRACK_CONFIG").map(PathBuf::from));
    match named {
        Some(path) if path.is_file() => Ok(Some(path)),
        Some(path) => {
            Err(ConfigError(vec![format!("the configuration file {} does not exist", path.display())]))
        }
        None => Ok(Path::new(FILE).is_file().then(|| PathBuf::from(FILE))),
    }
}

/// Every setting that is wrong. Reading them together ends at the first, so each is tried by itself over the defaults.
fn all_wrong(figment: &Figment, first: figment::Error, prefix: &str) -> Vec<String> {
    let Ok(settings) = figment.extract::<Dict>() else {
        return first.into_iter().map(unreadable).collect();
    };
    let mut leaves = Vec::new();
    collect_leaves("", &settings, &mut leaves);
    let mut wrong = Vec::new();
    for (key, value) in leaves {
        let alone = Figment::from(Toml::string(DEFAULTS)).merge(Serialized::default(&key, value));
        if let Err(error) = alone.extract::<Config>() {
            let kind = error.kind.to_string().replace('\n', " ");
            wrong.push(format!("setting {key}: {kind} ({})", origin(figment, &key, prefix)));
        }
    }
    // Wrong only together: no such settings are known, but silence would be worse than one bare message.
    if wrong.is_empty() { first.into_iter().map(unreadable).collect() } else { wrong }
}

/// Keys that have a value, with their path.
fn collect_leaves<'a>(above: &str, settings: &'a Dict, leaves: &mut Vec<(String, &'a Value)>) {
    for (name, value) in settings {
        let key = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        match value {
            Value::Dict(_, below) => collect_leaves(&key, below, leaves),
            _ => leaves.push((key, value)),
        }
    }
}

/// Where a setting's value comes from: what to change.
fn origin(figment: &Figment, key: &str, prefix: &str) -> String {
    match figment.find_metadata(key).map(|metadata| &metadata.source) {
        Some(Some(Source::File(path))) => path.display().to_string(),
        Some(Some(_)) => "command line".to_owned(),
        Some(None) | None => {
            let name = format!("{prefix}{}", key.replace('.', "__").to_uppercase());
            let alias = key == "server.listen" && std::env::var_os(&name).is_none();
            if alias { "CARRACK_LISTEN".to_owned() } else { name }
        }
    }
}

/// A file that is no TOML, in one line: the excerpt that the parser draws takes several.
fn unreadable(error: figment::Error) -> String {
    let text = error.kind.to_string();
    let lines: Vec<&str> =
        text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.contains('|')).collect();
    let file = match error.metadata.as_ref().and_then(|metadata| metadata.source.as_ref()) {
        Some(Source::File(path)) => path.display().to_string(),
        _ => "the settings".to_owned(),
    };
    format!("cannot read {file}: {}", lines.join(", "))
}

/// What is to be signed with; `None` where the data folder has it.
pub(crate) fn signing_keys(auth: &Auth) -> Option<Vec<Secret>> {
    let of = |key: &SigningKey| Secret { kid: key.kid.clone(), secret: key.secret.clone() };
    (!auth.keys.is_empty()).then(|| auth.keys.iter().map(of).collect())
}

/// What types cannot say of what nodes share, and tell each other and the world.
fn wrong_about_nodes(config: &Config) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Some(Err(problem)) = config.state.shared().map(carrack_state::check_url) {
        wrong.push(format!("setting state.url: {problem}"));
    }
    let consul = &config.discovery.consul_url;
    if !consul.is_empty() && !["http://", "https://"].iter().any(|scheme| consul.starts_with(scheme)) {
        wrong.push(format!(
            "setting discovery.consul_url: found {consul:?}, expected http://... or https://..."
        ));
    }
    let names = [
        ("state.prefix", &config.state.prefix),
        ("cluster.node_id", &config.cluster.node_id),
        ("discovery.service", &config.discovery.service),
    ];
    for (key, found) in names {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if found.len() > NAME_BYTES_MAX || !found.bytes().all(plain) {
            wrong.push(format!(
                "setting {key}: found {found:?}, expected at most {NAME_BYTES_MAX} of a-z A-Z 0-9 - _ . :"
            ));
        }
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    if let Err(problem) = crate::events::sinks(&config.events, &clock) {
        wrong.push(problem);
    }
    wrong
}

/// What types cannot say.
fn check(config: &Config) -> Result<(), ConfigError> {
    let mut wrong = Vec::new();
    if config.data.as_os_str().is_empty() {
        wrong.push("setting data: found \"\", expected the path of a folder".to_owned());
    }
    wrong.extend(rooms::wrong_about_rooms(config));
    if config.archives.max_entries == 0 {
        wrong.push("setting archives.max_entries: found 0, expected at least 1".to_owned());
    }
    if config.archives.ttl.is_zero() || config.archives.ttl > carrack_service::archive::LIFE_MAX {
        let found = config.archives.ttl.as_secs();
        wrong.push(format!("setting archives.ttl: found {found}s, expected 1s to 365d"));
    }
    if config.archives.workers > WORKERS_MAX {
        let found = config.archives.workers;
        wrong.push(format!("setting archives.workers: found {found}, expected 0 to {WORKERS_MAX}"));
    }
    if config.audit.checkpoint_every.is_zero() {
        wrong.push("setting audit.checkpoint_every: found 0s, expected at least 1s".to_owned());
    }
    if config.server.max_connections == 0 {
        wrong.push("setting server.max_connections: found 0, expected at least 1".to_owned());
    }
    wrong.extend(wrong_about_nodes(config));
    if let Err(problem) = signing_keys(&config.auth).map_or(Ok(()), |keys| KeyRing::new(&keys).map(drop)) {
        wrong.push(format!("setting auth.keys: {problem}"));
    }
    wrong.extend(config.auth.jwks.iter().filter_map(|jwks| crate::jwks::issuer(jwks).err()));
    for range in config.server.trusted_proxies.iter().filter(|range| AddressRange::parse(range).is_none()) {
        wrong.push(format!(
            "setting server.trusted_proxies: found {range:?}, expected addresses, or ranges such as \"10.0.0.0/8\""
        ));
    }
    match (config.tls.is_on(), !config.tls.key.as_os_str().is_empty()) {
        (true, false) => wrong.push(
            "setting tls.key: found \"\", expected the file of the key that belongs to tls.cert".to_owned(),
        ),
        (false, true) => wrong.push(
            "setting tls.cert: found \"\", expected the file of the certificate that tls.key belongs to"
                .to_owned(),
        ),
        (true, true) | (false, false) => {}
    }
    let url = &config.server.public_url;
    let absolute = ["http://", "https://"].iter().any(|scheme| url.starts_with(scheme));
    if !url.is_empty() && !absolute {
        wrong.push(format!("setting server.public_url: found {url:?}, expected http://... or https://..."));
    }
    for origin in config.server.cors_origins.iter().filter(|origin| *origin != "*") {
        let host = ["http://", "https://"].iter().find_map(|scheme| origin.strip_prefix(scheme));
        if host.is_none_or(|host| host.is_empty() || host.contains('/')) {
            wrong.push(format!(
                "setting server.cors_origins: found {origin:?}, expected \"*\", or origins such as \"https://app.example.org\""
            ));
        }
    }
    let log = &config.telemetry.log;
    if log.parse::<Targets>().is_err() || !log.split(',').all(names_a_level) {
        wrong.push(format!(
            "setting telemetry.log: found {log:?}, expected a level such as \"info\", or \"info,carrack_http=debug\""
        ));
    }
    if wrong.is_empty() { Ok(()) } else { Err(ConfigError(wrong)) }
}

/// A word alone would be taken for a room by the filter, which then lets nothing else through.
fn names_a_level(directive: &str) -> bool {
    directive.contains('=') || directive.trim().parse::<LevelFilter>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_complete_and_valid() {
        let config: Config = Figment::from(Toml::string(DEFAULTS)).extract().unwrap();
        check(&config).unwrap();
        assert_eq!(config.uploads.part_size.get(), 8 << 20);
        assert_eq!(config.server.shutdown_grace, Duration::from_secs(30));
    }

    #[test]
    fn every_key_is_documented() {
        let mut documented = false;
        for line in DEFAULTS.lines() {
            if line.contains(" = ") && !line.starts_with('#') {
                assert!(documented, "no comment above: {line}");
            }
            documented = line.starts_with('#');
        }
    }

    #[test]
    fn unknown_keys_and_bad_values_are_named() {
        let of = |toml: &str| {
            let figment = Figment::from(Toml::string(DEFAULTS)).merge(Toml::string(toml));
            let first = figment.extract::<Config>().err().unwrap();
            all_wrong(&figment, first, PREFIX).join("\n")
        };
        assert!(of("[server]\nlistne = 1").contains("listne"));
        assert!(of("lisen = 1").contains("lisen"));
        let bad = of("[uploads]\npart_size = \"8 parsecs\"");
        assert!(bad.contains("uploads.part_size") && bad.contains("8 parsecs"), "{bad}");
        let bad = of("[uploads]\nttl = 10");
        assert!(bad.contains("uploads.ttl") && bad.contains("`10`") && bad.contains("24h"), "{bad}");
        let bad = of("[uploads]\ndurability = \"maybe\"");
        assert!(
            bad.contains("uploads.durability") && bad.contains("maybe") && bad.contains("power"),
            "{bad}"
        );
        assert_eq!(of("[server]\nlistne = 1\nlistnr = 2\n[uploads]\nttl = 10").lines().count(), 3);
        assert_eq!(of("server = 1").lines().count(), 1);
        assert_eq!(of("[server\n").lines().count(), 1);
    }
}
