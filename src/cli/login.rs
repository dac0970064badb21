use std::path::Path;

use crate::identity;
use crate::nats::Login;
use crate::preflight::config_file_candidates;
use crate::settings::Settings;

/// What a command shows to the server of the running broker.
pub fn login(settings: &Settings) -> Login {
    let configured = settings.server.config_file.clone();
    let candidates = configured.map_or_else(config_file_candidates, |path| vec![path]);
    let directories: Vec<&Path> = candidates.iter().filter_map(|path| path.parent()).collect();
    identity::login_of_commands(settings, &directories)
}
