mod modes;
mod refusals;
mod secrets;

use super::*;

pub fn load(pairs: &[(&str, &str)]) -> Result<Loaded, Problems> {
    Settings::load(&pairs, &[])
}

fn problems(pairs: &[(&str, &str)]) -> Vec<Problem> {
    load(pairs).expect_err("these settings should be refused").list
}

#[test]
fn defaults_are_valid() {
    let loaded = load(&[]).unwrap();
    let settings = loaded.settings;
    assert_eq!(settings.server.port.get(), 4222);
    assert_eq!(settings.market_data.max_bytes, Some(1 << 30));
    assert_eq!(settings.supervision.shutdown_timeout.as_secs(), 25);
    assert!(settings.tls.is_none() && settings.cluster.is_none() && settings.authentication.is_open());
    assert_eq!(
        settings.unauthenticated_listeners,
        [UnauthenticatedListener::Nats, UnauthenticatedListener::Monitoring, UnauthenticatedListener::Api]
    );
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn every_default_obeys_its_own_rule_when_set() {
    let pairs: Vec<_> = variables::ALL.iter().filter_map(|v| Some((v.name, v.default.fixed()?))).collect();
    let loaded = load(&pairs).unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn empty_means_unset_for_every_variable() {
    let pairs: Vec<_> = variables::ALL.iter().map(|v| (v.name, "")).collect();
    let loaded = load(&pairs).unwrap_or_else(|p| panic!("{p}"));
    assert!(loaded.effective.iter().all(|e| e.origin == "default"));
}

#[test]
fn what_awaits_its_part_is_named_in_one_warning() {
    let loaded = load(&[("GRPC_ENABLED", "true"), ("BACKUP_ENABLED", "true"), ("API_MAX_BODY", "2MB")]).unwrap();
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].contains("GRPC_ENABLED (the gRPC message bus), BACKUP_ENABLED (backup)"));
}
