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
    certificates: Vec<PathBuf>,
}

impl Places {
    pub fn of(settings: &Settings) -> Self {
        let has_store = settings.jetstream.enabled && settings.external.is_none();
        let store = has_store.then(|| settings.jetstream.store_dir.clone());
        let own = settings.tls.as_ref().map(|tls| tls.cert.clone());
        let shown = settings.external.as_ref().and_then(|external| external.certificate.as_ref());
        let certificates = own.into_iter().chain(shown.map(|shown| shown.cert.clone())).collect();
        Self { store, certificates }
    }

    /// `at` is the time of day that certificates are judged by.
    pub fn look(&self, at: SystemTime) -> (Option<DiskSpace>, Vec<CertificateEnd>) {
        let ends = self.certificates.iter().filter_map(|file| {
            let end = end_of(file)?;
            Some(CertificateEnd {
                file: file.clone(),
                left: end.duration_since(at).ok().filter(|left| !left.is_zero()),
            })
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

/// When the first certificate of a file ends. What cannot be read is refused elsewhere.
fn end_of(file: &Path) -> Option<SystemTime> {
    let bytes = std::fs::read(file).ok()?;
    let der = CertificateDer::pem_slice_iter(&bytes).next()?.ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
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
        let end = end_of(&file).unwrap();
        let places = Places { store: Some(directory.path().into()), certificates: vec![file.clone()] };
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
    fn the_clock_goes_on() {
        let clock = Clock::start();
        let (now, at) = (clock.now(), clock.at());
        assert!(clock.now() >= now && clock.at() >= at);
    }
}
