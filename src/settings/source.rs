//! From the raw environment to one text per variable, with its origin: names, aliases, `*_FILE`
//! secrets, service links, typing errors.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use super::file::SettingsFile;
use super::origin::Origin;
use super::problem::{Problems, quote};
use super::redaction::quote_path_of_secret;
use super::secret_file;
use super::variables::{self, ALIASES, COMPOSE_ONLY, Environment, GRPC_STANDARD, PREFIXES, RETIRED, Variable};

/// Where variables come from. Tests never touch the real environment.
pub trait Source {
    fn variables(&self) -> Vec<(OsString, OsString)>;
}

/// The environment of this process.
pub struct ProcessEnvironment;

impl Source for ProcessEnvironment {
    fn variables(&self) -> Vec<(OsString, OsString)> {
        std::env::vars_os().collect()
    }
}

impl<const N: usize> Source for [(&str, &str); N] {
    fn variables(&self) -> Vec<(OsString, OsString)> {
        self.as_slice().variables()
    }
}

impl Source for &[(&str, &str)] {
    fn variables(&self) -> Vec<(OsString, OsString)> {
        self.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }
}

/// The variables that are set, by name, with their origins, and what to tell the operator.
#[derive(Default)]
pub struct Collected {
    pub environment: Environment,
    pub origins: BTreeMap<&'static str, Origin>,
    pub warnings: Vec<String>,
    /// What the settings file says besides.
    pub file: SettingsFile,
}

pub fn collect(source: &dyn Source, flags: &[(&'static str, String)], problems: &mut Problems) -> Collected {
    let given: BTreeMap<String, String> = decode(source.variables(), problems);
    let mut values: BTreeMap<&'static str, (String, Origin)> = BTreeMap::new();
    let mut warnings = Vec::new();

    for variable in variables::ALL {
        if let Some(value) = set(&given, variable.name) {
            if variable.name.ends_with("_PORT") && is_service_link(value) {
                warnings.push(format!(
                    "{}={} is a Kubernetes service link, not a port: it is ignored and the default {} holds; \
                     set `enableServiceLinks: false` in the pod, or rename the Service",
                    variable.name,
                    quote(value),
                    variable.default.fixed().unwrap_or("-"),
                ));
            } else {
                values.insert(variable.name, (value.to_owned(), Origin::Environment));
            }
        }
        if variable.secret {
            read_secret_file(variable, &given, &mut values, problems);
        }
    }
    for (old, new) in ALIASES {
        let name = Variable::named(new).map(|v| v.name);
        if let (Some(value), Some(name)) = (set(&given, old).filter(|v| !is_service_link(v)), name) {
            values.entry(name).or_insert_with(|| (value.to_owned(), Origin::Alias(old)));
        }
    }
    for old in ["DEBUG_MODE", "VERBOSE_LOGGING"] {
        if set(&given, old).is_some_and(|v| v.eq_ignore_ascii_case("true")) {
            values.entry("LOG_LEVEL").or_insert_with(|| ("DEBUG".to_owned(), Origin::Alias(old)));
        }
    }
    for (name, value) in flags {
        values.insert(name, (value.clone(), Origin::Flag));
    }
    warn_about_unknown_names(&given, &mut warnings);
    let file = read_settings_file(&mut values, problems);

    let pairs = values.iter().map(|(name, (value, _))| ((*name).to_owned(), value.clone()));
    // Every field is an optional string, so nothing here can fail to deserialise.
    let environment = envy::from_iter(pairs).unwrap_or_default();
    let origins = values.into_iter().map(|(name, (_, origin))| (name, origin)).collect();
    Collected { environment, origins, warnings, file }
}

/// What is set in no other way may stand in the settings file.
fn read_settings_file(values: &mut BTreeMap<&'static str, (String, Origin)>, problems: &mut Problems) -> SettingsFile {
    let Some((path, _)) = values.get(variables::CONFIG_FILE.name).cloned() else { return SettingsFile::default() };
    let mut file = SettingsFile::read(Path::new(&path), &variables::CONFIG_FILE, problems);
    for (name, value, line) in std::mem::take(&mut file.variables) {
        values.entry(name).or_insert_with(|| (value, Origin::Line(format!("{path}:{line}"))));
    }
    file
}

fn set<'a>(given: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    given.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

/// Names that are not UTF-8 cannot be ours; values that are not UTF-8 are problems if the name is.
fn decode(variables: Vec<(OsString, OsString)>, problems: &mut Problems) -> BTreeMap<String, String> {
    let mut given = BTreeMap::new();
    for (name, value) in variables {
        let Ok(name) = name.into_string() else {
            continue;
        };
        match value.into_string() {
            Ok(value) => {
                given.insert(name, value);
            }
            Err(_) if is_known(&name) => {
                problems.add(name, "a value that is not UTF-8", "must be UTF-8 text", "set it to UTF-8 text");
            }
            Err(_) => {}
        }
    }
    given
}

fn read_secret_file(
    variable: &'static Variable,
    given: &BTreeMap<String, String>,
    values: &mut BTreeMap<&'static str, (String, Origin)>,
    problems: &mut Problems,
) {
    let file_variable = format!("{}_FILE", variable.name);
    let Some(path) = set(given, &file_variable) else {
        return;
    };
    if values.contains_key(variable.name) {
        problems.add(
            format!("{}, {file_variable}", variable.name),
            "both",
            "only one of the two may be set",
            format!("unset {} or {file_variable}", variable.name),
        );
        return;
    }
    match secret_file::read(Path::new(path)) {
        Ok(text) if text.is_empty() => problems.add(
            file_variable,
            quote_path_of_secret(path),
            "the file is empty",
            format!("write the value of {} into it, or unset the variable", variable.name),
        ),
        Ok(text) => {
            values.insert(variable.name, (text, Origin::File(path.into())));
        }
        Err(reason) => problems.add(
            file_variable,
            quote_path_of_secret(path),
            format!("the file cannot be read: {reason}"),
            "name a readable UTF-8 file of at most 64 KiB",
        ),
    }
}

/// `tcp://10.0.0.7:4222`, as Kubernetes injects for a Service in the same namespace.
fn is_service_link(value: &str) -> bool {
    ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme))
}

/// The other names that Kubernetes and Docker links inject: `NATS_SERVICE_HOST`,
/// `NATS_PORT_4222_TCP_ADDR`, …
fn is_injected_name(name: &str) -> bool {
    let port_part = name.split_once("_PORT_").map(|(_, rest)| rest).unwrap_or_default();
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (port_part.starts_with(|c: char| c.is_ascii_digit())
            && ["_TCP", "_UDP", "_SCTP"].iter().any(|p| port_part.contains(p)))
}

fn warn_about_unknown_names(given: &BTreeMap<String, String>, warnings: &mut Vec<String>) {
    let mut message_bus_leftovers = Vec::new();
    for (name, value) in given {
        if !PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || is_known(name) || is_injected_name(name) {
            continue;
        }
        if name.starts_with("MB_KAFKA_") || name.starts_with("MB_REDIS_") {
            message_bus_leftovers.push(name.as_str());
            continue;
        }
        if name.ends_with("_PORT") && is_service_link(value) {
            continue;
        }
        let hint = nearest(name).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        warnings.push(format!("{name} is not a variable of this program and is ignored{hint}"));
    }
    if !message_bus_leftovers.is_empty() {
        warnings.push(format!(
            "{} are ignored: messages are kept in JetStream, there is no Kafka or Redis any more",
            message_bus_leftovers.join(", ")
        ));
    }
}

fn is_known(name: &str) -> bool {
    let is_secret_file = || {
        let base = name.strip_suffix("_FILE").and_then(Variable::named);
        base.is_some_and(|variable| variable.secret)
    };
    Variable::named(name).is_some()
        || ALIASES.iter().any(|(old, _)| *old == name)
        || COMPOSE_ONLY.iter().any(|(only, _)| *only == name)
        || RETIRED.contains(&name)
        || GRPC_STANDARD.contains(&name)
        || is_secret_file()
}

/// The known name that a typing error most likely meant.
fn nearest(name: &str) -> Option<&'static str> {
    variables::ALL
        .iter()
        .map(|v| (strsim::damerau_levenshtein(name, v.name), v.name))
        .filter(|(distance, _)| *distance <= 3.max(name.len() / 4))
        .min()
        .map(|(_, near)| near)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(pairs: &[(&str, &str)]) -> (Collected, Problems) {
        let mut problems = Problems::default();
        let collected = collect(&pairs, &[], &mut problems);
        (collected, problems)
    }

    #[test]
    fn typing_errors_are_named_with_the_nearest_variable() {
        let (collected, _) = collected(&[("NATS_PROT", "4222"), ("HOME", "/"), ("STREAM_MAXAGE", "1")]);
        assert_eq!(collected.warnings.len(), 2, "{:?}", collected.warnings);
        assert!(collected.warnings[0].contains("did you mean NATS_PORT?"), "{:?}", collected.warnings);
        assert!(collected.warnings[1].contains("did you mean STREAM_MAX_AGE?"), "{:?}", collected.warnings);
    }

    #[test]
    fn service_links_leave_the_default() {
        let (collected, problems) = collected(&[
            ("NATS_PORT", "tcp://10.0.0.7:4222"),
            ("NATS_SERVICE_HOST", "10.0.0.7"),
            ("NATS_SERVICE_PORT_CLIENT", "4222"),
            ("NATS_PORT_4222_TCP_ADDR", "10.0.0.7"),
            ("NATS_PORT_4222_TCP", "tcp://10.0.0.7:4222"),
            ("MB_SERVER_PORT", "tcp://10.0.0.7:50051"),
        ]);
        assert!(problems.is_empty());
        assert_eq!((variables::NATS_PORT.value)(&collected.environment), None);
        assert_eq!(collected.warnings.len(), 1, "{:?}", collected.warnings);
        assert!(collected.warnings[0].contains("enableServiceLinks: false"));
    }

    #[test]
    fn names_of_compose_old_files_and_aliases_raise_no_warning() {
        let (collected, _) = collected(&[
            ("LOG_MAX_SIZE", "50m"),
            ("NATS_CLIENT_NAME", "x"),
            ("MB_SERVER_PORT", "50052"),
            ("APP_ENV", "production"),
            ("NATS_AUTH_PASSWORD_FILE", ""),
            ("DEBUG_MODE", "true"),
        ]);
        assert_eq!(collected.warnings, Vec::<String>::new());
        assert_eq!((variables::GRPC_PORT.value)(&collected.environment), Some("50052"));
        assert_eq!((variables::LOG_LEVEL.value)(&collected.environment), Some("DEBUG"));
        assert_eq!(collected.origins["ENVIRONMENT"], Origin::Alias("APP_ENV"));
    }

    #[test]
    fn secret_files_lose_one_trailing_newline() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        std::fs::write(&path, " pass word\n\n").unwrap();
        let (collected, problems) = collected(&[("NATS_AUTH_PASSWORD_FILE", path.to_str().unwrap())]);
        assert!(problems.is_empty(), "{problems}");
        assert_eq!((variables::NATS_AUTH_PASSWORD.value)(&collected.environment), Some(" pass word\n"));
    }

    #[test]
    fn bad_secret_files_are_problems() {
        let directory = tempfile::tempdir().unwrap();
        let empty = directory.path().join("empty");
        std::fs::write(&empty, "\n").unwrap();
        let not_text = directory.path().join("not-text");
        std::fs::write(&not_text, [0xff, 0xfe]).unwrap();
        for path in [directory.path(), &empty, &not_text, &directory.path().join("missing")] {
            let (_, problems) = collected(&[("NATS_AUTH_TOKEN_FILE", path.to_str().unwrap())]);
            assert_eq!(problems.list.len(), 1, "{}", path.display());
        }
        let (_, problems) = collected(&[("NATS_AUTH_TOKEN_FILE", "tell-nobody")]);
        assert!(!problems.to_string().contains("tell-nobody"), "it may be the token itself: {problems}");
        let (_, problems) = collected(&[("NATS_AUTH_TOKEN_FILE", "./missing")]);
        assert!(problems.to_string().contains("\"./missing\""), "{problems}");
        let (_, problems) = collected(&[("NATS_AUTH_TOKEN_FILE", "/dev/zero"), ("NATS_AUTH_TOKEN", "x")]);
        assert_eq!(problems.list[0].rule, "only one of the two may be set");
    }
}
