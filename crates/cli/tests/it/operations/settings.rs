//! Where settings come from, and which one wins; the first administrator's token.

use crate::server::{Server, Setup, TOKEN, without_variables};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A server that says where it listens, with nothing set but what the test sets.
struct Bare {
    child: Child,
    base: String,
    folder: std::path::PathBuf,
}

impl Bare {
    fn start(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> Bare {
        let mut child = without_variables(env!("CARGO_BIN_EXE_carrack"))
            .arg("serve")
            .args(args)
            .current_dir(folder)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let log = std::fs::read_to_string(folder.join("stderr")).unwrap();
        let base = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{log}")).to_owned();
        Bare { child, base, folder: folder.to_owned() }
    }

    fn port(&self) -> u16 {
        self.base.rsplit(':').next().unwrap().parse().unwrap()
    }

    async fn status(&self, token: &str) -> u16 {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("{}/v1/buckets", self.base);
        client.get(url).bearer_auth(token).send().await.unwrap().status().as_u16()
    }

    /// Stops it; everything it wrote.
    fn stop(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
        let mut written = std::fs::read_to_string(self.folder.join("stderr")).unwrap();
        self.child.stdout.take().unwrap().read_to_string(&mut written).unwrap();
        written
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free just now.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let at = |port: u16| format!("127.0.0.1:{port}");
    let [of_file, of_variable, of_flag] = [free_port(), free_port(), free_port()];
    let toml = format!("data = \"of-file\"\n[server]\nlisten = \"{}\"\n", at(of_file));
    std::fs::write(folder.path().join("carrack.toml"), toml).unwrap();
    let bare = Bare::start(folder.path(), &[], &[]);
    assert_eq!(bare.port(), of_file);
    bare.stop();
    let (listen, nested) = (at(of_variable), ("CARRACK_SERVER__LISTEN", at(of_variable)));
    for (name, value) in [("CARRACK_LISTEN", listen.as_str()), (nested.0, nested.1.as_str())] {
        let bare = Bare::start(folder.path(), &[], &[(name, value), ("CARRACK_DATA", "of-variable")]);
        assert_eq!(bare.port(), of_variable, "{name}");
        bare.stop();
    }
    let flags = ["--listen", &at(of_flag), "--data", "of-flag"];
    let variables = [("CARRACK_LISTEN", listen.as_str()), ("CARRACK_DATA", "not-made")];
    let bare = Bare::start(folder.path(), &flags, &variables);
    assert_eq!(bare.port(), of_flag);
    bare.stop();
    for (data, made) in [("of-file", true), ("of-variable", true), ("of-flag", true), ("not-made", false)] {
        assert_eq!(folder.path().join(data).join("catalog.sqlite").exists(), made, "{data}");
    }
}

#[test]
fn the_data_folder_is_beside_where_it_runs_unless_told_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let bare = Bare::start(folder.path(), &["--listen", "127.0.0.1:0"], &[]);
    assert!(folder.path().join("carrack-data/catalog.sqlite").exists());
    bare.stop();
}

#[tokio::test]
async fn nested_variables_and_a_named_file_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.toml");
    std::fs::write(&file, "[uploads]\npart_size = \"64KiB\"\nmax_size = 1000000\n").unwrap();
    let server = Setup::new()
        .set("CARRACK_CONFIG", file.to_str().unwrap())
        .set("CARRACK_UPLOADS__PART_SIZE", "128KiB")
        .start();
    let create = r#"{"bucket": "default", "key": "k", "size": 1000000}"#;
    let made: Value = server.post("/v1/uploads").body(create).send().await.unwrap().json().await.unwrap();
    assert_eq!(made["part_size"], 128 << 10, "the variable wins over the file");
    let create = r#"{"bucket": "default", "key": "k", "size": 1000001}"#;
    let refused = server.post("/v1/uploads").body(create).send().await.unwrap();
    assert_eq!(refused.status(), 413, "the file wins over the default");
}

#[test]
fn config_prints_every_key_with_its_documentation_as_a_valid_file() {
    let folder = tempfile::tempdir().unwrap();
    let config = |args: &[&str]| {
        let mut command = without_variables(env!("CARGO_BIN_EXE_carrack"));
        command.arg("config").args(args).current_dir(folder.path()).output().unwrap()
    };
    let printed = config(&[]);
    assert!(printed.status.success());
    let text = String::from_utf8(printed.stdout).unwrap();
    let mut keys = 0;
    for (above, line) in text.lines().zip(text.lines().skip(1)) {
        if line.contains(" = ") && !line.starts_with('#') {
            assert!(above.starts_with("# "), "no documentation above: {line}");
            keys += 1;
        }
    }
    assert!(keys > 10, "{text}");
    std::fs::write(folder.path().join("carrack.toml"), &text).unwrap();
    assert!(config(&[]).status.success(), "what it prints is valid");
    let bare = Bare::start(folder.path(), &["--listen", "127.0.0.1:0"], &[]);
    bare.stop();
    std::fs::write(folder.path().join("carrack.toml"), format!("unheard = 1\n{text}")).unwrap();
    let wrong = config(&[]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("unheard"));
}

#[tokio::test]
async fn the_root_token_is_made_once_kept_secret_and_works() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--listen", "127.0.0.1:0", "--data", "data"];
    let chatty = [("CARRACK_TELEMETRY__LOG", "trace")];
    let file = folder.path().join("data/root-token");
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let bare = Bare::start(folder.path(), &flags, &chatty);
        let text = std::fs::read_to_string(&file).unwrap();
        let token = text.trim_end().to_owned();
        assert!(token.len() == 64 && token.bytes().all(|b| b.is_ascii_hexdigit()), "64 hex digits");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(bare.status(&token).await, 200);
        assert_eq!(bare.status("wrong").await, 401);
        let written = bare.stop();
        assert!(written.contains("data/root-token"), "it says where the token is");
        assert!(!written.contains(&token), "but not what it is");
        tokens.push(token);
    }
    assert_eq!(tokens[0], tokens[1], "kept across restarts");
    let variables = [("CARRACK_ROOT_TOKEN", "of-the-environment"), chatty[0]];
    let bare = Bare::start(folder.path(), &flags, &variables);
    assert_eq!(bare.status("of-the-environment").await, 200);
    assert_eq!(bare.status(&tokens[0]).await, 401, "the variable wins over the file");
    assert!(!bare.stop().contains("of-the-environment"));
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim_end(), tokens[0], "the file stays as it was");
}

#[tokio::test]
async fn without_a_file_a_token_of_the_environment_is_written_nowhere() {
    let server = Server::start();
    assert_eq!(server.get("/v1/buckets").send().await.unwrap().status(), 200);
    assert!(!server.data.join("root-token").exists());
    assert!(!server.log().contains(TOKEN));
}
