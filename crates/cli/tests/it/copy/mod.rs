//! `carrack copy`: everything that one server answered, the other answers too.

mod filled;
mod interrupted;
mod moved;

use crate::server::{Setup, without_variables};
use carrack_engines::{Garage, Postgres};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// PostgreSQL and Garage, in a folder that goes with them.
struct Ground {
    postgres: Postgres,
    garage: Garage,
    folder: TempDir,
}

impl Ground {
    fn new() -> Ground {
        let folder = TempDir::new().unwrap();
        // Whoever the engines run as must find their way.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let make = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let postgres = Postgres::start(&make("postgres")).unwrap();
        let garage = Garage::start(&make("garage")).unwrap();
        Ground { postgres, garage, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The settings file of an installation with PostgreSQL and, if wished, S3, and the keys of the data folder `keys`.
    fn settings(&self, name: &str, in_s3: bool, keys: &Path) -> PathBuf {
        let url = self.postgres.database(name).unwrap();
        let mut text = format!("data = {:?}\n[catalog]\nurl = {url:?}\n", self.path(&format!("{name}-data")));
        let found = std::fs::read_to_string(keys.join("signing-keys")).unwrap();
        for line in found.lines() {
            let (kid, secret) = line.split_once(' ').unwrap();
            text += &format!("[[auth.keys]]\nkid = {kid:?}\nsecret = {secret:?}\n");
        }
        if in_s3 {
            let garage = &self.garage;
            text += &format!(
                "[storage]\nkind = \"s3\"\n[storage.s3]\nendpoint = {:?}\nregion = {:?}\nbucket = {:?}\nprefix = \"{name}/\"\n\
                 access_key_id = {:?}\nsecret_access_key = {:?}\nmemory = \"64MiB\"\n",
                garage.endpoint(0),
                garage.region(),
                garage.bucket(),
                garage.access_key_id(),
                garage.secret_access_key()
            );
        }
        let path = self.path(&format!("{name}.toml"));
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// A server with these settings, which name its data folder.
fn serve(settings: &Path) -> Setup {
    let text = std::fs::read_to_string(settings).unwrap();
    let data: PathBuf = text.lines().next().unwrap().trim_start_matches("data = ").trim_matches('"').into();
    Setup::new().data(&data).set("CARRACK_CONFIG", settings.to_str().unwrap())
}

fn command(from: &Path, to: &Path, more: &[&str]) -> Command {
    let mut command = without_variables(env!("CARGO_BIN_EXE_carrack"));
    command.arg("copy").arg("--from").arg(from).arg("--to").arg(to).args(more);
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Copies, which must succeed; what was said.
fn copy(from: &Path, to: &Path, more: &[&str]) -> String {
    let output = command(from, to, more).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    said(&output)
}

/// Copies, which must fail; what was said.
fn refused(from: &Path, to: &Path, more: &[&str]) -> String {
    let output = command(from, to, more).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    said(&output)
}
