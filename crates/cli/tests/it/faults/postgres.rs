//! PostgreSQL away: what needs a fact is refused and may be sent again, what is under way on the disk goes on, nothing
//! acknowledged is lost, and the audit log is whole.

use super::cells::{Cell, RECOVERY, When, each, every, start, within};
use super::traffic::{Need, before, during};
use crate::server::{Setup, without_variables};
use carrack_engines::Postgres;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A server of PostgreSQL.
pub(super) struct Database {
    pub(super) postgres: Postgres,
    pub(super) folder: TempDir,
}

impl Database {
    pub(super) fn start() -> Database {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join("postgres")).unwrap();
        // Whoever the server runs as must find its way.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        Database { postgres: Postgres::start(&folder.path().join("postgres")).unwrap(), folder }
    }

    /// A node on a new database, by a port.
    pub(super) fn node(&self, database: &str, port: u16) -> Setup {
        self.postgres.database(database).unwrap();
        self.another(database, port).data(&self.folder.path().join(database))
    }

    /// Another one on the same database, with a folder of its own.
    pub(super) fn another(&self, database: &str, port: u16) -> Setup {
        let url = self.postgres.url(database);
        let url = url.replace(&format!(":{}/", self.postgres.port()), &format!(":{port}/"));
        Setup::new().set("CARRACK_CATALOG__URL", &url)
    }

    /// `carrack audit verify`, past any proxy.
    fn verify(&self, database: &str) {
        let output = without_variables(env!("CARGO_BIN_EXE_carrack"))
            .args(["audit", "verify", "--data"])
            .arg(self.folder.path().join(database))
            .current_dir(self.folder.path())
            .env("CARRACK_CATALOG__URL", self.postgres.url(database))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.starts_with("whole: "), "{said}{}", String::from_utf8_lossy(&output.stderr));
    }
}

const NEED: Need = Need {
    refuses: true,
    leaves_facts: false,
    breaks: false,
    bound: Duration::from_secs(12),
    bytes: 12 << 20,
};

async fn cell(database: Arc<Database>, cell: Cell) {
    let server = start(database.node(&cell.name, cell.proxy.port()));
    let ledger = match cell.when {
        When::Before => before(&cell, &server, NEED).await,
        When::During => during(&cell, &server, NEED).await,
    };
    assert!(cell.when == When::Before || ledger.refused > 0 || !cell.is_cut_off(), "nothing was away");
    Arc::into_inner(server).unwrap().stop();
    database.verify(&cell.name);
}

#[test]
fn postgres_away_in_every_way() {
    let database = Arc::new(Database::start());
    // More than logging in takes, less than a minute of work.
    every(database.postgres.port(), 2000, |one| cell(database.clone(), one));
}

#[test]
fn a_node_does_not_start_without_its_database_and_says_so() {
    let database = Arc::new(Database::start());
    each(database.postgres.port(), 100, When::Before, |cell| {
        let database = database.clone();
        async move {
            cell.fail();
            let setup = database.node(&cell.name, cell.proxy.port());
            let begun = Instant::now();
            let said = tokio::task::block_in_place(|| setup.refused());
            assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
            assert!(said.contains("cannot be reached") && said.contains("catalog.url"), "{said}");
            assert!(!said.contains("engine"), "no password: {said}");
        }
    });
}

/// What a node meets in the middle of a failover: its server is a standby for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_read_only_for_a_while_refuses_changes_and_loses_none() {
    let database = Database::start();
    let server = start(database.node("failover", database.postgres.port()));
    let put = async |key: &str| {
        let answer = server.put(&format!("/v1/files/default/{key}")).body("kept").send().await.unwrap();
        (answer.status().as_u16(), answer.headers().contains_key("retry-after"))
    };
    assert_eq!(put("a").await.0, 201);
    let all = "ALTER DATABASE failover SET default_transaction_read_only";
    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'failover' AND pid <> pg_backend_pid()";
    database.postgres.run("postgres", &format!("{all} = on")).unwrap();
    database.postgres.run("postgres", others).unwrap();
    assert_eq!(put("b").await, (503, true), "25006 is a passing fault");
    assert_eq!(server.get("/v1/files/default/a").send().await.unwrap().text().await.unwrap(), "kept");
    within(RECOVERY, "it is not ready", &server, async || {
        server.get("/readyz").send().await.unwrap().status() == 503
    })
    .await;
    let begun = Instant::now();
    let said =
        tokio::task::block_in_place(|| database.another("failover", database.postgres.port()).refused());
    assert!(said.contains("takes no changes") && said.contains("target_session_attrs=read-write"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(30));
    database.postgres.run("postgres", &format!("{all} = off")).unwrap();
    // Sessions that were opened meanwhile stay read-only: the node has to give them up by itself.
    within(RECOVERY, "changes are taken again", &server, async || put("c").await.0 == 201).await;
    for key in ["a", "c"] {
        let got = server.get(&format!("/v1/files/default/{key}")).send().await.unwrap();
        assert_eq!(got.text().await.unwrap(), "kept");
    }
}
