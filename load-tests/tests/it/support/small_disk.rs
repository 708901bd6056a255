//! A disk of four MiB, to be filled.

use std::path::PathBuf;
use std::process::Command;

use super::system;

/// A tmpfs, unmounted with the test.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it on a folder, which is made; needs root.
    #[track_caller]
    pub(crate) fn mount(path: PathBuf) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        system("mount", &["-t", "tmpfs", "-o", "size=4m,mode=700", "muster-it", path.to_str().unwrap()]);
        Self(path)
    }

    /// Takes all but `left` bytes.
    #[track_caller]
    pub(crate) fn fill(&self, left: u64) {
        let said = system("df", &["-B1", "--output=avail", self.0.to_str().unwrap()]);
        let free: u64 = said.lines()[1].trim().parse().unwrap();
        let taken = usize::try_from(free.saturating_sub(left)).unwrap();
        // A process that writes here at the same time may leave less than that: what fits is written.
        drop(std::fs::write(self.filler(), vec![1_u8; taken]));
    }

    /// Gives it back.
    #[track_caller]
    pub(crate) fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).output());
    }
}
