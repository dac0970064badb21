use crate::app::config_file_candidates;
use crate::nats::OwnCertificate;
use crate::settings::Settings;

/// The client certificate that the running broker made, where it asks for one.
pub fn own_certificate(settings: &Settings) -> Option<OwnCertificate> {
    if !settings.tls.as_ref().is_some_and(|tls| tls.verify) {
        return None;
    }
    let configured = settings.server.config_file.clone();
    let candidates = configured.map_or_else(config_file_candidates, |path| vec![path]);
    let beside = candidates.iter().filter_map(|path| Some(OwnCertificate::beside(path.parent()?)));
    beside.into_iter().find(|own| own.cert.is_file())
}
