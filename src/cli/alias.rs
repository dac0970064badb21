//! The names of the scripts that this binary replaces. Runbooks call them with their options.

use std::ffi::OsString;
use std::path::Path;

/// Turns a call under an old name into a call of ours; the error is a message for the operator.
pub fn translate(arguments: Vec<OsString>) -> Result<Vec<OsString>, String> {
    let name = base_name(arguments.first());
    match name.as_str() {
        "python3" | "python" => match script(&base_name(arguments.get(1))) {
            Some(script) => script(&arguments[2..]),
            None => Err(format!(
                "cannot run {:?}: this is unified-nats under the name {name}, which runs only the scripts it replaces \
                 ({}); see `unified-nats --help`",
                arguments.get(1).map(|a| a.to_string_lossy()).unwrap_or_default(),
                SCRIPTS.map(|(script, _)| script).join(", "),
            )),
        },
        name => match script(name) {
            Some(script) => script(&arguments[1..]),
            None => Ok(arguments),
        },
    }
}

type Script = fn(&[OsString]) -> Result<Vec<OsString>, String>;

const SCRIPTS: [(&str, Script); 5] = [
    ("health_check.sh", health_check),
    ("config_renderer.py", config_renderer),
    ("check_streams.py", check_streams),
    ("enhanced_jetstream_init.py", jetstream_init),
    ("test_unified_deployment.py", selftest),
];

/// The script of that name, with or without its ending.
fn script(name: &str) -> Option<Script> {
    let matches = |script: &str| script == name || script.rsplit_once('.').is_some_and(|(stem, _)| stem == name);
    SCRIPTS.iter().find(|(script, _)| matches(script)).map(|(_, script)| *script)
}

fn base_name(argument: Option<&OsString>) -> String {
    let name = argument.and_then(|a| Path::new(a).file_name());
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn health_check(options: &[OsString]) -> Result<Vec<OsString>, String> {
    Ok(ours(&["health-check"], options))
}

/// `--output F`, `--validate` or `--summary`; without one of them it rendered.
fn config_renderer(options: &[OsString]) -> Result<Vec<OsString>, String> {
    let is = |wanted: &str| options.iter().any(|option| option == wanted);
    let rest: Vec<_> =
        options.iter().filter(|option| *option != "--validate" && *option != "--summary").cloned().collect();
    match (is("--validate"), is("--summary")) {
        (true, true) => Err("cannot use --validate and --summary together: choose one".into()),
        (true, false) => Ok(ours(&["config", "validate"], &rest)),
        (false, true) => Ok(ours(&["config", "show"], &rest)),
        (false, false) => Ok(ours(&["config", "render"], &rest)),
    }
}

fn check_streams(options: &[OsString]) -> Result<Vec<OsString>, String> {
    Ok(ours(&["streams", "check"], options))
}

fn selftest(options: &[OsString]) -> Result<Vec<OsString>, String> {
    Ok(ours(&["selftest"], options))
}

/// `--health-check` and `--stats` looked; without one of them it created.
fn jetstream_init(options: &[OsString]) -> Result<Vec<OsString>, String> {
    let is = |wanted: &str| options.iter().any(|option| option == wanted);
    let without = |dropped: &str| options.iter().filter(|option| *option != dropped).cloned().collect::<Vec<_>>();
    match (is("--health-check"), is("--stats")) {
        (true, true) => Err("cannot use --health-check and --stats together: choose one".into()),
        (true, false) => Ok(ours(&["health-check", "jetstream"], &without("--health-check"))),
        (false, true) => Ok(ours(&["streams", "check"], options)),
        (false, false) => Ok(ours(&["streams", "apply"], options)),
    }
}

fn ours(command: &[&str], options: &[OsString]) -> Vec<OsString> {
    let words = ["unified-nats"].iter().chain(command).map(OsString::from);
    words.chain(options.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(line: &str) -> Result<String, String> {
        let words = translate(line.split(' ').map(OsString::from).collect())?;
        Ok(words.iter().map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn old_names_become_commands() {
        for (old, new) in [
            ("/app/scripts/health_check.sh full", "unified-nats health-check full"),
            ("health_check", "unified-nats health-check"),
            ("python3 /app/scripts/config_renderer.py --validate", "unified-nats config validate"),
            ("config_renderer --output /tmp/x", "unified-nats config render --output /tmp/x"),
            ("python3 config_renderer.py --summary --json", "unified-nats config show --json"),
            ("python3 /app/scripts/check_streams.py --detailed", "unified-nats streams check --detailed"),
            ("check_streams --stats --json", "unified-nats streams check --stats --json"),
            ("enhanced_jetstream_init.py --wait --timeout 60", "unified-nats streams apply --wait --timeout 60"),
            ("enhanced_jetstream_init --health-check", "unified-nats health-check jetstream"),
            ("python3 test_unified_deployment.py --quiet", "unified-nats selftest --quiet"),
            ("enhanced_jetstream_init --stats", "unified-nats streams check --stats"),
            ("/usr/local/bin/unified-nats run", "/usr/local/bin/unified-nats run"),
        ] {
            assert_eq!(translated(old).as_deref(), Ok(new));
        }
    }

    #[test]
    fn python_runs_nothing_else() {
        for line in ["python3", "python3 -c print(1)", "python3 /etc/passwd", "python3 unified-nats"] {
            assert!(translated(line).is_err(), "{line}");
        }
    }
}
