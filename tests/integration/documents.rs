//! Documents that cannot drift from the code.

mod commands;
mod links;
mod markdown;
mod mirrors;
mod rest;

use std::collections::BTreeSet;

use unified_nats::settings::variables::{self, ALL, COMPOSE_ONLY};
use unified_nats::settings::{Settings, reference};

fn repository(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn env_unified_is_what_the_code_generates() {
    assert!(
        repository(".env.unified") == reference::env_file(),
        ".env.unified differs: run `cargo run -- config reference --env > .env.unified`"
    );
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

#[test]
fn every_line_of_env_unified_is_valid_and_raises_no_warning() {
    let text = repository(".env.unified");
    let pairs: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix('#')?.split_once('='))
        .filter(|(name, _)| is_name(name))
        .collect();
    assert!(pairs.len() > 100);
    let loaded = Settings::load(&pairs.as_slice(), &[]).unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn the_settings_document_holds_the_reference() {
    let name = "docs/settings.md";
    let document = repository(name);
    let between = document.split("<!-- variables -->").nth(1).unwrap_or_else(|| panic!("{name} has no markers"));
    assert!(
        between.trim() == reference::markdown().trim(),
        "{name} differs: put the output of `cargo run -- config reference` between its markers"
    );
}

#[test]
fn compose_passes_every_variable_through() {
    let compose = repository("docker-compose.unified.yml");
    let passed: BTreeSet<_> = compose
        .lines()
        .filter_map(|line| line.strip_prefix("      ")?.split_once(": ${"))
        .filter(|(name, value)| value.starts_with(name))
        .map(|(name, _)| name.to_owned())
        .collect();
    let mut wanted: BTreeSet<_> = ALL.iter().map(|v| v.name.to_owned()).collect();
    wanted.extend(ALL.iter().filter(|v| v.secret).map(|v| format!("{}_FILE", v.name)));
    wanted.extend(variables::ALIASES.map(|(old, _)| old.to_owned()));
    let missing: Vec<_> = wanted.difference(&passed).collect();
    assert!(missing.is_empty(), "docker-compose.unified.yml does not pass through {missing:?}");
    for (name, default) in COMPOSE_ONLY {
        assert!(compose.contains(&format!("${{{name}:-{default}}}")) || name == "VCS_REF", "{name}:-{default}");
    }
}
