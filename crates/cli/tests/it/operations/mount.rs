//! A small disk of its own, to be filled up or made read-only. Needs root.

use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// A tmpfs that is unmounted when this is dropped, also by a failing test.
pub(crate) struct Mount {
    folder: TempDir,
}

impl Mount {
    /// A disk of so many MiB.
    pub(crate) fn tmpfs(mib: u32) -> Mount {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "carrack-test"])
            .arg(folder.path())
            .status()
            .unwrap();
        assert!(mounted.success(), "this test mounts a tmpfs and so has to run as root");
        Mount { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Changes how it is mounted: `ro`, `rw`.
    pub(crate) fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        let done = Command::new("mount").args(["-o", &options]).arg(self.path()).status().unwrap();
        assert!(done.success());
    }

    /// Bytes that are free, as the system counts them.
    pub(crate) fn free(&self) -> u64 {
        let output = Command::new("df").args(["-B1", "--output=avail"]).arg(self.path()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().last().unwrap().trim().parse().unwrap()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a server that a failing test leaves running may still have files open.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
