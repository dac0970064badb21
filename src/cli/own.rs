use crate::nats::{Own, OwnCertificate, ServiceUser};
use crate::preflight::config_file_candidates;
use crate::settings::Settings;

/// What the running broker is known by to its server, as far as we may read it.
pub fn own(settings: &Settings) -> Own {
    let configured = settings.server.config_file.clone();
    let candidates = configured.map_or_else(config_file_candidates, |path| vec![path]);
    let directories = || candidates.iter().filter_map(|path| path.parent());
    let asks_for_certificates = settings.tls.as_ref().is_some_and(|tls| tls.verify);
    Own {
        certificate: directories()
            .map(|directory| OwnCertificate::beside(directory, settings.server.port))
            .find(|own| own.cert.is_file())
            .filter(|_| asks_for_certificates),
        user: directories().find_map(|directory| ServiceUser::beside(directory, settings.server.port)),
    }
}
