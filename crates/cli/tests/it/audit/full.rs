//! What cannot be recorded is not done.

use super::{audit, whole};
use crate::operations::mount::Mount;
use crate::server::Setup;
use serde_json::Value;
use std::fs::File;
use std::io::Write;

#[tokio::test]
async fn a_full_disk_refuses_changes_and_loses_no_record() {
    let mount = Mount::tmpfs(48);
    let data = mount.path().join("data");
    let mut server = Setup::new().data(&data).start();
    assert_eq!(server.put("/v1/files/default/a").body("a").send().await.unwrap().status(), 201);
    let filler = mount.path().join("filler");
    let mut full = File::create(&filler).unwrap();
    while full.write(&[1; 4096]).is_ok_and(|written| written > 0) {}
    let mut refused = 0;
    for number in 0..400 {
        let made = server.put(&format!("/v1/buckets/bucket-{number}")).body("{}").send().await.unwrap();
        let status = made.status().as_u16();
        let answer: Value = made.json().await.unwrap();
        assert!(status == 201 || (status == 507 && answer["code"] == "storage_full"), "{status} {answer}");
        refused += usize::from(status == 507);
    }
    assert!(refused > 0, "the disk was never full");
    for _ in 0..5 {
        assert_eq!(server.get("/v1/files/default/a").send().await.unwrap().status(), 200);
    }
    // As long as it is open it takes its space.
    drop(full);
    std::fs::remove_file(&filler).unwrap();
    server.stop();
    whole(&data, &[]);
    let text = String::from_utf8(audit("export", &data, &[]).stdout).unwrap();
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count = |kind: &str, action: &str| {
        records.iter().filter(|record| record["kind"] == kind && record["action"] == action).count()
    };
    // The bucket "default" was made by the server itself.
    assert_eq!(count("change", "bucket.put"), 400 - refused + 1);
    assert_eq!(count("end", "bucket.put"), 400);
    assert_eq!(count("end", "file.read"), 5);
}
