//! Which file a program is, so that its version need not be asked for at each start.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::supervisor::{Executable, ExecutableError, Reaper, Version};

/// A longer path is not kept: a marker is a small file.
const LONGEST_PATH: usize = 1024;
/// A file that has changed since may have changed again at what looks like the same time: the clocks of
/// file systems are coarse.
const SETTLED: Duration = Duration::from_secs(1);

/// What tells the file of a program from every other one, and from itself before it was written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ProgramFile {
    path: String,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds, as everywhere.
    modified: (i64, i64),
    /// When anything of it was changed, which nobody can set back.
    changed: (i64, i64),
}

impl ProgramFile {
    /// [`None`] for a script, which runs other programs, and those may be exchanged behind it; and for a
    /// program of another machine.
    fn of(path: &Path) -> Option<Self> {
        let mut file = File::open(path).ok()?;
        let machine = read_machine(&mut file).filter(|machine| OUR_MACHINE.as_ref() == Some(machine));
        let metadata = file.metadata().ok()?;
        let path = path.to_str().filter(|path| path.len() <= LONGEST_PATH)?.to_owned();
        machine.map(|_| Self {
            path,
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    fn is_settled(&self) -> bool {
        let since = u64::try_from(self.changed.0).map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let age = since.ok().and_then(|since| SystemTime::now().duration_since(since).ok());
        // The fraction of the second is left out.
        age.is_some_and(|age| age > SETTLED * 2)
    }
}

/// Of an executable: its format, the order of its bytes, and the kind of processor.
type Machine = (u8, u8, [u8; 2]);

static OUR_MACHINE: LazyLock<Option<Machine>> = LazyLock::new(|| read_machine(&mut File::open("/proc/self/exe").ok()?));

fn read_machine(program: &mut impl Read) -> Option<Machine> {
    let mut head = [0; 20];
    program.read_exact(&mut head).ok()?;
    head.starts_with(b"\x7fELF").then(|| (head[4], head[5], [head[18], head[19]]))
}

/// A program whose version is known as long as its file stays the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    file: ProgramFile,
    version: Version,
}

/// A nats-server whose version is known.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: PathBuf,
    pub version: Version,
    /// [`None`] where the version may be another one the next time.
    pub program: Option<Program>,
}

/// Asks that file for its version.
pub fn ask(path: &Path, reaper: &Reaper) -> Result<Asked, ExecutableError> {
    let before = ProgramFile::of(path).filter(ProgramFile::is_settled);
    let Executable { path, version } = Executable::at(path, reaper)?;
    // Somebody may have exchanged it meanwhile.
    let file = before.filter(|before| ProgramFile::of(&path).as_ref() == Some(before));
    Ok(Asked { program: file.map(|file| Program { file, version }), path, version })
}

/// Whether that is a program of this machine, and no script.
pub fn is_program(path: &Path) -> bool {
    ProgramFile::of(path).is_some()
}

impl Program {
    /// The same as asking, if that file is the one that was asked.
    pub fn remembered(&self, path: &Path) -> Option<Asked> {
        let same = ProgramFile::of(path).is_some_and(|file| file == self.file);
        same.then(|| Asked { path: path.to_owned(), version: self.version, program: Some(self.clone()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Instant;

    /// Begins as a program of this machine does.
    fn like_a_program(end: &str) -> Vec<u8> {
        let mut bytes = vec![0; 20];
        File::open("/proc/self/exe").unwrap().read_exact(&mut bytes).unwrap();
        bytes.extend(end.as_bytes());
        bytes
    }

    fn known(path: &Path) -> Program {
        Program { file: ProgramFile::of(path).unwrap(), version: Version(2, 15, 1) }
    }

    #[test]
    fn a_file_that_is_the_same_is_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("program"), directory.path().join("other"));
        fs::write(&path, like_a_program("a")).unwrap();
        let program = known(&path);
        assert_eq!(program.remembered(&path).unwrap().version, Version(2, 15, 1));
        fs::copy(&path, &other).unwrap();
        assert!(program.remembered(&other).is_none(), "another file");
        fs::rename(&other, &path).unwrap();
        assert!(program.remembered(&path).is_none(), "another one in its place");
        fs::remove_file(&path).unwrap();
        assert!(program.remembered(&path).is_none());
    }

    #[test]
    fn a_file_that_was_written_to_is_another_though_its_size_and_its_time_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        fs::write(&path, like_a_program("a")).unwrap();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let program = known(&path);
        let deadline = Instant::now() + Duration::from_secs(20);
        // The clock of the file system may be a little behind, which is why a file has to settle.
        while program.remembered(&path).is_some() {
            assert!(Instant::now() < deadline);
            fs::write(&path, like_a_program("b")).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        }
        let now = ProgramFile::of(&path).unwrap();
        assert_eq!((now.inode, now.size, now.modified), {
            let before = program.file;
            (before.inode, before.size, before.modified)
        });
    }

    #[test]
    fn what_may_change_unseen_is_not_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        fs::write(&path, "#!/bin/sh\nexec nats-server\n").unwrap();
        assert!(ProgramFile::of(&path).is_none(), "a script");
        let mut foreign = like_a_program("");
        foreign[18] ^= 1;
        fs::write(&path, foreign).unwrap();
        assert!(ProgramFile::of(&path).is_none(), "of another machine");
        fs::write(&path, like_a_program("")).unwrap();
        let fresh = ProgramFile::of(&path).unwrap();
        assert!(!fresh.is_settled());
        assert!(ProgramFile { changed: (fresh.changed.0 - 5, 0), ..fresh.clone() }.is_settled());
        assert!(!ProgramFile { changed: (fresh.changed.0 + 3600, 0), ..fresh }.is_settled(), "by another clock");
    }
}
