//! What lies in a data folder.

use crate::server::tool;
use std::path::{Path, PathBuf};

/// Every blob that is stored as a file.
pub(crate) fn blobs(data: &Path) -> Vec<PathBuf> {
    let shards = std::fs::read_dir(data.join("blobs")).unwrap();
    shards
        .flat_map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap())
        .map(|blob| blob.unwrap().path())
        .collect()
}

/// The numbers of the contents that the catalog keeps with its records.
pub(crate) fn contents(data: &Path) -> Vec<String> {
    let catalog = data.join("catalog.sqlite");
    let list = "import sqlite3, sys\n\
        c = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True, timeout=30)\n\
        for row in c.execute('SELECT id FROM content'): print(row[0])";
    let listed = tool("python3", "python3").args(["-c", list]).arg(catalog).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// The names of all stages, sorted. (`probe` is made and removed by each look at readiness.)
pub(crate) fn stages(data: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(data.join("staging")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "probe")
        .collect();
    names.sort();
    names
}

/// Descriptors that a process has open.
pub(crate) fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}
