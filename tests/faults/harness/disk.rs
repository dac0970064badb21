//! Disks of a test, gone with it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).status().is_ok_and(|status| status.success())
}

/// A file system in memory that can be filled.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    pub fn mount(at: &Path, megabytes: u64) -> Self {
        fs::create_dir_all(at).unwrap();
        let size = format!("size={megabytes}m");
        assert!(succeeds("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", at.to_str().unwrap()]), "mount");
        Self(at.to_owned())
    }

    pub fn resize(&self, megabytes: u64) {
        let options = format!("remount,size={megabytes}m");
        assert!(succeeds("mount", &["-o", &options, self.0.to_str().unwrap()]), "remount");
    }

    pub fn free_bytes(&self) -> u64 {
        let stat = nix::sys::statvfs::statvfs(&self.0).unwrap();
        stat.blocks_available() as u64 * stat.fragment_size() as u64
    }

    /// Leaves at most `free` bytes.
    pub fn fill_up_to(&self, free: u64) {
        let mut ballast = fs::OpenOptions::new().create(true).append(true).open(self.ballast()).unwrap();
        let page = [0u8; 4096];
        while self.free_bytes() > free && ballast.write_all(&page).is_ok() {}
    }

    pub fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the broker of the test may still have files open.
        succeeds("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

/// A file system in a file that can be made to stall: whoever writes to it waits.
pub struct StallingDisk(PathBuf);

impl StallingDisk {
    /// [`None`] where this machine has no loop devices.
    pub fn mount(at: &Path, image: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        fs::File::create(image).unwrap().set_len(32 << 20).unwrap();
        let (at_text, image) = (at.to_str().unwrap(), image.to_str().unwrap());
        let mounted = succeeds("mkfs.ext4", &["-q", "-F", image]) && succeeds("mount", &["-o", "loop", image, at_text]);
        mounted.then(|| Self(at.to_owned()))
    }

    pub fn stall(&self) {
        assert!(succeeds("fsfreeze", &["--freeze", self.0.to_str().unwrap()]));
    }

    pub fn go_on(&self) {
        assert!(succeeds("fsfreeze", &["--unfreeze", self.0.to_str().unwrap()]));
    }
}

impl Drop for StallingDisk {
    fn drop(&mut self) {
        let at = self.0.to_str().unwrap();
        if std::thread::panicking() {
            // A process that waits for a disk that stalls cannot even be killed.
            succeeds("fsfreeze", &["--unfreeze", at]);
        }
        succeeds("umount", &["-l", at]);
    }
}
