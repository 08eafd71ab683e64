//! What lies in a data folder.

use std::path::{Path, PathBuf};

/// Every blob there is.
pub(crate) fn blobs(data: &Path) -> Vec<PathBuf> {
    let shards = std::fs::read_dir(data.join("blobs")).unwrap();
    shards
        .flat_map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap())
        .map(|blob| blob.unwrap().path())
        .collect()
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
