//! S3 away: what needs its bytes is refused and may be sent again, facts and small files go on, and nothing acknowledged is
//! lost. An S3 that is full, that does not know us, that has no such bucket.

use super::cells::{Cell, RECOVERY, When, each, every, start, within};
use super::proxy::Mode;
use super::traffic::{Need, before, during, heal};
use crate::cluster::s3::{begin_parts, complete, part, setup_at};
use crate::contract::answers::json;
use crate::server::{Server, Setup, content};
use carrack_engines::Garage;
use std::sync::Arc;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

const NEED: Need =
    Need { refuses: true, leaves_facts: true, breaks: true, bound: Duration::from_secs(45), bytes: 20 * MIB };

fn port(garage: &Garage) -> u16 {
    garage.endpoint(0).rsplit(':').next().unwrap().parse().unwrap()
}

fn node(garage: &Garage, cell: &Cell) -> Setup {
    setup_at(garage, &format!("http://127.0.0.1:{}", cell.proxy.port()))
        .set("CARRACK_STORAGE__S3__PREFIX", &format!("{}/", cell.name))
}

async fn cell(garage: Arc<Garage>, cell: Cell) {
    let server = start(node(&garage, &cell));
    match cell.when {
        When::Before => {
            completion_is_not_lost(&cell, &server).await;
            before(&cell, &server, NEED).await;
        }
        When::During => {
            let ledger = during(&cell, &server, NEED).await;
            assert!(ledger.refused > 0 || !cell.is_cut_off(), "nothing was away");
        }
    }
}

/// All parts are there when S3 goes: the completion is refused in time, and succeeds when S3 is back.
async fn completion_is_not_lost(cell: &Cell, server: &Server) {
    let whole = content(12 * MIB, 6);
    let upload = begin_parts(server, "parts", whole.len(), 8 * MIB).await;
    for number in [1, 2] {
        assert_eq!(part(server, &upload, &whole, number).await.status(), 200);
    }
    cell.fail();
    let begun = Instant::now();
    let asked = tokio::time::timeout(NEED.bound, complete(server, &upload, &serde_json::json!({}))).await;
    let status = asked.expect("no answer").status();
    assert!(status.is_success() || status == 503, "{status} after {:?}", begun.elapsed());
    heal(cell, server).await;
    within(RECOVERY, "the upload is completed", server, async || {
        complete(server, &upload, &serde_json::json!({})).await.status().is_success()
    })
    .await;
    let got = server.get("/v1/files/default/parts").send().await.unwrap();
    assert!(got.bytes().await.unwrap() == whole);
}

#[test]
fn s3_away_in_every_way() {
    let folder = tempfile::tempdir().unwrap();
    let garage = Arc::new(Garage::start(folder.path()).unwrap());
    every(port(&garage), 100_000, |one| cell(garage.clone(), one));
}

#[test]
fn a_node_does_not_start_without_its_bucket_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let garage = Arc::new(Garage::start(folder.path()).unwrap());
    each(port(&garage), 100, When::Before, |cell| {
        let garage = garage.clone();
        async move {
            cell.fail();
            let setup = node(&garage, &cell);
            if cell.mode == Mode::Late {
                // Each of its questions is answered, late: it starts, the sooner the sooner S3 is well again.
                let (server, ()) = tokio::join!(tokio::task::spawn_blocking(|| setup.start()), async {
                    tokio::time::sleep(Duration::from_secs(12)).await;
                    cell.heal();
                });
                assert_eq!(server.unwrap().get("/readyz").send().await.unwrap().status(), 200);
                return;
            }
            let begun = Instant::now();
            let said = tokio::task::block_in_place(|| setup.refused());
            assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
            let words = ["cannot use the bucket \"carrack\"", "failed with"];
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
        }
    });

    let sound = || setup_at(&garage, &garage.endpoint(0));
    let secret = "c892c0665f0ada8a4755dae98baa3b133590e11dae3bcc1f9d769d67f16c3835";
    for (setup, words) in [
        (sound().set("CARRACK_STORAGE__S3__SECRET_ACCESS_KEY", secret), "storage.s3.access_key_id"),
        (
            sound().set("CARRACK_STORAGE__S3__ACCESS_KEY_ID", "GK000000000000000000000000"),
            "storage.s3.access_key_id",
        ),
        (sound().set("CARRACK_STORAGE__S3__BUCKET", "none"), "storage.s3.bucket"),
    ] {
        let said = setup.refused();
        assert!(said.contains(words) && !said.contains(&secret[1..]), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_s3_that_is_full_is_told_in_words_and_goes_on_with_room() {
    let folder = tempfile::tempdir().unwrap();
    let garage = Garage::start(folder.path()).unwrap();
    let server = start(setup_at(&garage, &garage.endpoint(0)));
    let (kept, whole) = (content(9 * MIB, 1), content(24 * MIB, 2));
    let put = async |key: &str, bytes: &[u8]| {
        server.put(&format!("/v1/files/default/{key}")).body(bytes.to_vec()).send().await.unwrap()
    };
    assert_eq!(put("kept", &kept).await.status(), 201);
    let upload = begin_parts(&server, "parts", whole.len(), 8 * MIB).await;
    assert_eq!(part(&server, &upload, &whole, 1).await.status(), 200);
    let quota = |size: &str| {
        garage.run(&["bucket", "set-quotas", garage.bucket(), "--max-size", size]).unwrap();
    };
    quota("10MiB");
    let refused = json(put("more", &whole).await, 507).await;
    assert!(refused["detail"].as_str().unwrap().contains("storage is full"), "{refused}");
    let part_2 = part(&server, &upload, &whole, 2).await.status();
    assert!(part_2 == 507 || part_2 == 200, "parts may not count before their completion: {part_2}");
    assert!(server.log().contains("raise its quota"), "the operator is told");
    let got = server.get("/v1/files/default/kept").send().await.unwrap();
    assert!(got.bytes().await.unwrap() == kept, "what is there can be read");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(server.get("/readyz").send().await.unwrap().status(), 200, "reads can be served");
    quota("none");
    within(RECOVERY, "there is room", &server, async || put("more", &whole).await.status().is_success())
        .await;
    for number in [2, 3] {
        assert_eq!(part(&server, &upload, &whole, number).await.status(), 200);
    }
    assert!(complete(&server, &upload, &serde_json::json!({})).await.status().is_success());
    let got = server.get("/v1/files/default/parts").send().await.unwrap();
    assert!(got.bytes().await.unwrap() == whole);
}
