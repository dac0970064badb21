//! The environment, read as `run` reads it. Must answer, never panic, whatever is set.
//!
//! Records are separated by NUL. One that begins with a capital letter is `NAME=value`; in any
//! other the first byte chooses one of the names that the program knows, and the rest is the value.
//!
//! Nothing outside a directory of our own is opened: where a variable names a file that is read,
//! the value is the file's content, unless it says that the file is one of [`stand_in`]'s.

#![no_main]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use unified_nats::nats_conf::{RenderContext, Secrets, render};
use unified_nats::settings::variables::{ALIASES, ALL, COMPOSE_ONLY, RETIRED};
use unified_nats::settings::{Loaded, Settings, Source};

struct World {
    /// Every name that means something, the `*_FILE` names of secrets included.
    names: Vec<String>,
    /// Names whose value is the path of a file that is read.
    files: Vec<String>,
    directory: TempDir,
}

static WORLD: LazyLock<World> = LazyLock::new(World::new);

impl World {
    fn new() -> Self {
        let secret_files = ALL.iter().filter(|v| v.secret).map(|v| format!("{}_FILE", v.name));
        let read = ALL.iter().filter(|v| v.allowed().contains("the path of a")).map(|v| v.name.to_owned());
        let files: Vec<_> = secret_files.clone().chain(read).collect();
        let mut names: Vec<_> = ALL.iter().map(|v| v.name.to_owned()).chain(secret_files).collect();
        names.extend(ALIASES.iter().map(|(old, _)| (*old).to_owned()));
        names.extend(COMPOSE_ONLY.iter().map(|(name, _)| (*name).to_owned()));
        names.extend(RETIRED.iter().map(|name| (*name).to_owned()));
        // One byte has to reach each of them; capitals begin a name that is written out.
        assert!(names.len() <= 256 - 26, "{}", names.len());

        let directory = tempfile::tempdir().expect("a temporary directory");
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        std::fs::write(directory.path().join("certificate"), pair.cert.pem()).expect("a file");
        std::fs::write(directory.path().join("key"), pair.signing_key.serialize_pem()).expect("a file");
        Self { names, files, directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The files that a value can ask for: a matching pair, what is no file, what is not there.
    fn stand_in(&self, value: &[u8]) -> Option<PathBuf> {
        match value {
            b"certificate" | b"key" => Some(self.path(std::str::from_utf8(value).ok()?)),
            b"directory" => Some(self.directory.path().to_owned()),
            b"missing" => Some(self.path("missing")),
            _ => None,
        }
    }

    fn pair(&self, record: &[u8]) -> Option<(OsString, OsString)> {
        let (first, rest) = record.split_first()?;
        let (name, value) = if first.is_ascii_uppercase() {
            let end = record.iter().position(|b| *b == b'=')?;
            (OsStr::from_bytes(&record[..end]).to_owned(), &record[end + 1..])
        } else {
            let rank = if *first < b'A' { *first } else { *first - 26 };
            (OsString::from(&self.names[usize::from(rank) % self.names.len()]), rest)
        };
        let text = name.to_str().unwrap_or_default();
        let path = if self.files.iter().any(|file| file == text) && !value.is_empty() {
            let path = self.stand_in(value).unwrap_or_else(|| {
                let path = self.path(text);
                std::fs::write(&path, value).expect("a file");
                path
            });
            Some(path)
        } else if text == "JETSTREAM_STORE_DIR" {
            // It is looked at, too, and never opened.
            Some(self.stand_in(value).unwrap_or_else(|| self.directory.path().to_owned()))
        } else {
            None
        };
        Some((name, path.map_or_else(|| OsStr::from_bytes(value).to_owned(), PathBuf::into_os_string)))
    }
}

struct Environment(BTreeMap<OsString, OsString>);

impl Source for Environment {
    fn variables(&self) -> Vec<(OsString, OsString)> {
        self.0.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

fuzz_target!(|input: &[u8]| {
    // The store's default lies outside of our directory.
    let store = ("JETSTREAM_STORE_DIR".into(), WORLD.directory.path().into());
    let records = input.split(|b| *b == 0).filter_map(|record| WORLD.pair(record));
    let environment = Environment([store].into_iter().chain(records).collect());
    match Settings::load(&environment, &[]) {
        Ok(Loaded { settings, .. }) => {
            // Only a fragment can still be wrong. Laying out takes longer than all the rest, so that
            // not every input pays for it.
            if input.len().is_multiple_of(8)
                && let Err(error) = render(&settings, &RenderContext::default(), Secrets::Redacted)
            {
                assert!(error.as_problem().is_some(), "{error}");
            }
        }
        Err(problems) => assert!(!problems.list.is_empty() && !problems.to_string().is_empty()),
    }
});
