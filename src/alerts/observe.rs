//! Looks at what the status does not say: room on the disk, how long certificates hold. It reads files, so
//! that it runs on a thread that may wait.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::sys::statvfs::statvfs;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::geteuid;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::rules::{CertificateEnd, DiskSpace, Moment};
use crate::settings::Settings;

/// The clock that nobody sets, and the time of day as it was when the program started and has gone on
/// since.
pub struct Clock {
    started: Moment,
    started_at: SystemTime,
    /// Which run of the machine that clock belongs to.
    pub boot: String,
}

impl Clock {
    /// Reads a file of the kernel, which does not wait for a disk.
    pub fn start() -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self { started: now(), started_at: SystemTime::now(), boot: boot.trim().to_owned() }
    }

    pub fn now(&self) -> Moment {
        now()
    }

    /// The time of day, whatever somebody has set it to since.
    pub fn at(&self) -> SystemTime {
        self.started_at + now().saturating_sub(self.started)
    }
}

fn now() -> Moment {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// The name of this machine.
pub fn host_name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// What to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// [`None`] where there is no store of ours.
    store: Option<PathBuf>,
    certificates: Certificates,
}

/// The files with certificates that are in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificates {
    /// The one that our server shows. Its file may hold another by now, which was refused.
    own: Option<(PathBuf, CertificateDer<'static>)>,
    /// What we show to others: of several in a file the first is ours.
    shown: Vec<PathBuf>,
    /// Who vouches for others.
    authorities: Vec<PathBuf>,
}

impl Certificates {
    /// Those of our server, or those that a server wants to see that others run.
    pub fn of(settings: &Settings) -> Self {
        let (own, external) = (settings.tls.as_ref(), settings.external.as_ref());
        let own = own.filter(|_| external.is_none());
        let shown = external.and_then(|external| external.certificate.as_ref()).map(|shown| &shown.cert);
        let authorities = external.and_then(|external| external.authorities.as_ref());
        Self {
            own: own.map(|tls| (tls.cert.clone(), tls.leaf.clone())),
            shown: shown.cloned().into_iter().collect(),
            authorities: own.and_then(|tls| tls.ca.as_ref()).into_iter().chain(authorities).cloned().collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.own.is_none() && self.shown.is_empty() && self.authorities.is_empty()
    }

    /// When each file ends, in the order of the files; reads them. What cannot be read is refused elsewhere. Of
    /// several authorities that which ends next counts, and the last one once all have ended.
    pub fn ends(&self, at: SystemTime) -> Vec<(PathBuf, SystemTime)> {
        let next = |ends: &[SystemTime]| {
            let still = ends.iter().filter(|end| **end > at).min();
            still.or_else(|| ends.iter().max()).copied()
        };
        let own = self.own.iter().map(|(file, certificate)| (file, end_of(certificate)));
        let shown = self.shown.iter().map(|file| (file, ends_in(file).first().copied()));
        let authorities = self.authorities.iter().map(|file| (file, next(&ends_in(file))));
        own.chain(shown).chain(authorities).filter_map(|(file, end)| Some((file.clone(), end?))).collect()
    }
}

impl Places {
    pub fn of(settings: &Settings) -> Self {
        let has_store = settings.jetstream.enabled && settings.external.is_none();
        let store = has_store.then(|| settings.jetstream.store_dir.clone());
        Self { store, certificates: Certificates::of(settings) }
    }

    /// `at` is the time of day that certificates are judged by.
    pub fn look(&self, at: SystemTime) -> (Option<DiskSpace>, Vec<CertificateEnd>) {
        let ends = self.certificates.ends(at).into_iter().map(|(file, end)| {
            let left = end.duration_since(at).ok().filter(|left| !left.is_zero());
            CertificateEnd { file, left }
        });
        (self.store.as_deref().and_then(space), ends.collect())
    }
}

fn space(directory: &Path) -> Option<DiskSpace> {
    let space = statvfs(directory).ok()?;
    // The kernel keeps a reserve for root.
    let blocks = if geteuid().is_root() { space.blocks_free() } else { space.blocks_available() };
    Some(DiskSpace { free: blocks * space.fragment_size(), total: space.blocks() * space.fragment_size() })
}

/// When the certificates of a file end.
fn ends_in(file: &Path) -> Vec<SystemTime> {
    let bytes = std::fs::read(file).unwrap_or_default();
    let certificates = CertificateDer::pem_slice_iter(&bytes).map_while(Result::ok);
    certificates.filter_map(|certificate| end_of(&certificate)).collect()
}

fn end_of(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_how_long_a_certificate_holds_and_how_much_room_there_is() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cert.pem");
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        std::fs::write(&file, made.cert.pem()).unwrap();
        let end = ends_in(&file)[0];
        let certificates = Certificates { shown: vec![file.clone()], ..Certificates::default() };
        let places = Places { store: Some(directory.path().into()), certificates };
        let day = Duration::from_secs(24 * 3600);
        let (space, ends) = places.look(end - day);
        assert!(space.is_some_and(|space| space.total > 0 && space.free <= space.total));
        assert_eq!(ends, [CertificateEnd { file: file.clone(), left: Some(day) }]);
        for at in [end, end + day] {
            assert_eq!(places.look(at).1, [CertificateEnd { file: file.clone(), left: None }]);
        }
        std::fs::write(&file, "nothing").unwrap();
        assert_eq!(places.look(end).1, []);
    }

    #[test]
    fn of_authorities_the_one_counts_that_ends_next() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        let at = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * 86_400 + days * 86_400);
        let pem = |days: u64| {
            let mut params = rcgen::CertificateParams::new(vec!["a".into()]).unwrap();
            (params.not_before, params.not_after) = (at(0).into(), at(days).into());
            params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
        };
        std::fs::write(&file, [pem(30), pem(10), pem(20)].concat()).unwrap();
        let certificates = Certificates { authorities: vec![file.clone()], ..Certificates::default() };
        for (now, ends) in [(5, 10), (10, 20), (29, 30), (40, 30)] {
            assert_eq!(certificates.ends(at(now)), [(file.clone(), at(ends))], "on day {now}");
        }
        let shown = Certificates { shown: vec![file.clone()], ..Certificates::default() };
        assert_eq!(shown.ends(at(5)), [(file, at(30))], "the first is ours");
    }

    /// One that was refused lies in the file, and the server goes on to show the one before.
    #[test]
    fn the_certificate_of_the_server_counts_until_another_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cert.pem");
        let at = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400);
        let made = |days: u64| {
            let mut params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
            params.not_after = at(days).into();
            params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap()
        };
        let (used, refused) = (made(40_000), made(50_000));
        std::fs::write(&file, refused.pem()).unwrap();
        let none: [(&str, &str); 0] = [];
        let mut settings = Settings::load(&none, &[]).unwrap().settings;
        settings.tls = Some(crate::settings::TlsSettings {
            cert: file.clone(),
            key: directory.path().join("key.pem"),
            ca: None,
            verify: false,
            leaf: used.der().clone(),
        });
        let certificates = Certificates::of(&settings);
        assert_eq!(certificates.ends(at(0)), [(file, at(40_000))]);
        assert!(!certificates.is_empty());
    }

    #[test]
    fn the_clock_goes_on() {
        let clock = Clock::start();
        let (now, at) = (clock.now(), clock.at());
        assert!(clock.now() >= now && clock.at() >= at);
    }
}
