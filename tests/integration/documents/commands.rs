//! Every command that the documents tell to type, run as far as a machine without Docker can.
//!
//! Each block of bash runs in a directory that looks like the repository, with programs of others
//! replaced by one that notes how it was called; the calls are judged afterwards.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;
use unified_nats::settings::Settings;
use unified_nats::settings::variables::{ALL, COMPOSE_ONLY};

use super::markdown::{Block, Document, all, repository};
use crate::support::{Broker, PROGRAM, http_get};

const CONTAINER: &str = "marketprism-nats-unified";
/// Those of the image, and what else starts the program there.
const OUR_NAMES: [&str; 7] = [
    "unified-nats",
    "python3",
    "health_check",
    "health_check.sh",
    "config_renderer",
    "check_streams",
    "enhanced_jetstream_init",
];
/// What begins with one of these in a sentence is a command of ours without its name.
const OUR_COMMANDS: [&str; 7] = ["run", "health-check", "selftest", "config", "streams", "alerts", "top"];

/// Notes its name and arguments, and makes what the next line of a block needs.
const STAND_IN: &str = r#"#!/bin/sh
{
    printf '%s' "${0##*/}"
    for argument; do printf '\037%s' "$argument"; done
    printf '\036'
} >> "$CALLS"
case "${0##*/} $*" in
    # Who writes to it must not find nobody there.
    "curl "*"@-"*) cat > /dev/null ;;
esac
case "${0##*/} $1" in
    "cargo new") mkdir -p "$2" ;;
    "python3 -m") mkdir -p "$3/bin" && ln -s "$0" "$3/bin/pip" ;;
esac
"#;

/// A directory in which the blocks of one document run.
struct Sandbox(TempDir);

impl Sandbox {
    fn new() -> Self {
        let sandbox = Self(tempfile::tempdir().unwrap());
        let path = |name: &str| sandbox.0.path().join(name);
        for directory in ["bin", "scripts", "deploy/compose"] {
            fs::create_dir_all(path(directory)).unwrap();
        }
        for file in [".env.unified", "docker-compose.unified.yml"] {
            fs::copy(repository().join(file), path(file)).unwrap();
        }
        for entry in fs::read_dir(repository().join("deploy/compose")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), path("deploy/compose").join(entry.file_name())).unwrap();
        }
        let stand_in = path("stand-in");
        fs::write(&stand_in, STAND_IN).unwrap();
        fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["cargo", "curl", "docker", "npm", "python3", "sudo"] {
            symlink(&stand_in, path("bin").join(name)).unwrap();
        }
        for entry in fs::read_dir(repository().join("scripts")).unwrap() {
            let name = entry.unwrap().file_name();
            if Path::new(&name).extension().is_some_and(|extension| extension == "sh") {
                symlink(&stand_in, path("scripts").join(name)).unwrap();
            }
        }
        sandbox
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    /// Runs a block and gives the calls that it made.
    fn run(&self, block: &str) -> Vec<Vec<String>> {
        let calls = self.path("calls");
        let _ = fs::remove_file(&calls);
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", block])
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()))
            .env("HOME", self.0.path())
            .env("CALLS", &calls)
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{block}\n{}", String::from_utf8_lossy(&output.stderr));
        let calls = fs::read_to_string(calls).unwrap_or_default();
        let words = |call: &str| call.split('\u{1f}').map(str::to_owned).collect();
        calls.split_terminator('\u{1e}').map(words).collect()
    }
}

/// What is wrong with a call of the program under one of its names.
fn ours(words: &[&str]) -> Result<(), String> {
    let name = words[0].rsplit('/').next().unwrap_or_default();
    if !OUR_NAMES.contains(&name) {
        return Err(format!("{} is not in the image", words[0]));
    }
    let mut program = Command::new(PROGRAM);
    let output = program.arg0(name).args(&words[1..]).arg("--help").output().unwrap();
    let told = || format!("{}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(()) } else { Err(told()) }
}

/// What is wrong with a call of a script.
fn script(words: &[&str]) -> Result<(), String> {
    let output = Command::new(repository().join(words[0])).arg("--help").stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("{}: {e}", words[0]))?;
    if !output.status.success() {
        return Err(format!("{} --help ends with {}", words[0], output.status));
    }
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    let is_unknown = |word: &&&str| word.starts_with('-') && **word != "--help" && !help.contains(**word);
    let unknown = words[1..].iter().find(is_unknown);
    unknown.map_or(Ok(()), |option| Err(format!("{} does not know {option}", words[0])))
}

fn services(files: &[String]) -> Vec<String> {
    let service = |line: &str| {
        let name = line.strip_prefix("  ")?.strip_suffix(':')?;
        name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-').then(|| name.to_owned())
    };
    let of_file = |text: &String| -> Vec<String> {
        let lines = text.lines().skip_while(|line| *line != "services:").skip(1);
        lines.take_while(|line| line.is_empty() || line.starts_with([' ', '#'])).filter_map(service).collect()
    };
    files.iter().flat_map(of_file).collect()
}

/// What follows the options; `with_value` are those that take one.
fn after_options<'a>(mut words: &'a [&'a str], with_value: &[&str]) -> &'a [&'a str] {
    while let [option, rest @ ..] = words
        && option.starts_with('-')
    {
        words = if with_value.contains(option) { &rest[1..] } else { rest };
    }
    words
}

fn compose(sandbox: &Sandbox, words: &[&str]) -> Result<(), String> {
    let mut files = Vec::new();
    for pair in words.windows(2).filter(|pair| pair[0] == "-f") {
        files.push(fs::read_to_string(sandbox.path(pair[1])).map_err(|e| format!("{}: {e}", pair[1]))?);
    }
    let words = after_options(words, &["-f", "-p"]);
    let known = |service: &str| {
        let is_known = services(&files).iter().any(|other| other == service);
        if is_known { Ok(()) } else { Err(format!("no service {service} in the files")) }
    };
    match words[0] {
        "exec" => {
            let rest = after_options(&words[1..], &[]);
            known(rest[0])?;
            ours(&rest[1..])
        }
        "run" => {
            let rest = after_options(&words[1..], &[]);
            known(rest[0])?;
            ours(&[&["unified-nats"], &rest[1..]].concat())
        }
        "up" => after_options(&words[1..], &[]).iter().try_for_each(|service| known(service)),
        "build" | "config" | "down" => Ok(()),
        other => Err(format!("docker compose {other}: say here what it needs")),
    }
}

fn docker(sandbox: &Sandbox, words: &[&str]) -> Result<(), String> {
    let of_the_container = |container: &str| {
        let is_ours = container.split(':').next() == Some(CONTAINER);
        if is_ours { Ok(()) } else { Err(format!("the container is called {CONTAINER}, not {container}")) }
    };
    match words[0] {
        "compose" => compose(sandbox, &words[1..]),
        "exec" => {
            let rest = after_options(&words[1..], &[]);
            of_the_container(rest[0])?;
            ours(&rest[1..])
        }
        "kill" => of_the_container(after_options(&words[1..], &["--signal"])[0]),
        "logs" => of_the_container(after_options(&words[1..], &[])[0]),
        "cp" => of_the_container(words[1]),
        // Of the old set-up, or what only a Docker Engine can judge; what its shell runs is shell.
        "inspect" | "volume" | "stack" | "service" | "run" => {
            let inner = words.iter().position(|word| *word == "-c").map(|at| words[at + 1]);
            let good = |text| Command::new("sh").args(["-n", "-c", text]).status().unwrap().success();
            if inner.is_none_or(good) { Ok(()) } else { Err(format!("no shell reads {}", inner.unwrap_or_default())) }
        }
        other => Err(format!("docker {other}: say here what it needs")),
    }
}

/// Each block of bash and what it called.
fn judge_blocks(document: &Document, wrong: &mut Vec<String>) -> usize {
    let sandbox = Sandbox::new();
    let blocks: Vec<_> = document.blocks().into_iter().filter(|block| block.language == "bash").collect();
    for block in &blocks {
        for call in sandbox.run(&block.text) {
            let words: Vec<_> = call.iter().map(String::as_str).collect();
            let name = format!("scripts/{}", words[0]);
            let found = match words[0] {
                "docker" => docker(&sandbox, &words[1..]),
                "cargo" | "curl" | "npm" | "pip" | "python3" | "sudo" => Ok(()),
                _ => script(&[&[name.as_str()], &words[1..]].concat()),
            };
            wrong.extend(found.err().map(|why| format!("{}: {why}", document.name)));
        }
        // Settings as they stand in .env.
        for (name, _) in block.text.lines().filter_map(|line| line.split_once('=')) {
            let is_name = name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
            if is_name && !is_a_variable(name) {
                wrong.push(format!("{}: {name} is no variable", document.name));
            }
        }
    }
    blocks.len()
}

fn is_a_variable(name: &str) -> bool {
    let plain = |name: &str| ALL.iter().any(|variable| variable.name == name);
    let secret = |name: &str| ALL.iter().any(|variable| variable.secret && variable.name == name);
    plain(name)
        || name.strip_suffix("_FILE").is_some_and(secret)
        || COMPOSE_ONLY.iter().any(|(other, _)| *other == name)
}

#[test]
fn every_block_runs() {
    let mut wrong = Vec::new();
    let blocks: usize = all().iter().map(|document| judge_blocks(document, &mut wrong)).sum();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(blocks > 40, "{blocks} blocks");
}

/// A block that nothing tries goes stale.
#[test]
fn every_block_is_tried_by_a_test() {
    for document in all() {
        for Block { language, .. } in document.blocks() {
            let is_tried = match language.as_str() {
                "bash" | "yaml" => true,
                "json" => ["operations.md", "rest.md"].iter().any(|name| document.name.ends_with(name)),
                // The container tests run the first two of README.md.
                "python" | "javascript" => document.name.starts_with("README") || document.name.ends_with("rest.md"),
                "rust" => document.name.starts_with("README"),
                // Drawings and figures.
                other => other == "text",
            };
            assert!(is_tried, "{}: no test tries its block of {language:?}", document.name);
        }
    }
}

/// The commands that `text` stands for: without what is in brackets, with each of these, and with
/// each of the words that bars separate.
fn meant(text: &str) -> Vec<String> {
    let plain: String = text
        .split('[')
        .enumerate()
        .map(|(n, part)| if n == 0 { part } else { part.split(']').nth(1).unwrap_or_default() })
        .collect();
    let optional = text.split('[').skip(1).filter_map(|part| part.split(']').next());
    let all = std::iter::once(plain.clone()).chain(optional.map(|option| format!("{plain} {option}")));
    all.flat_map(|line| match line.split_whitespace().find(|word| word.contains('|')) {
        Some(choice) => choice.split('|').map(|one| line.replace(choice, one)).collect(),
        None => vec![line],
    })
    .collect()
}

/// What is wrong with what stands in code within a sentence, where it is a command that we know.
fn judge_span(span: &str) -> Option<Result<(), String>> {
    let words: Vec<_> = span.split_whitespace().collect();
    let first = *words.first()?;
    let text = match words[..] {
        ["docker", "exec", "C", name, ..] if OUR_NAMES.contains(&name.rsplit('/').next()?) => words[3..].join(" "),
        _ if OUR_COMMANDS.contains(&first) => format!("unified-nats {span}"),
        [_, _, ..] if ["unified-nats", "health_check"].contains(&first) => span.into(),
        _ if first.starts_with("scripts/") && first.ends_with(".sh") => return Some(script(&words)),
        _ => return None,
    };
    Some(meant(&text).iter().try_for_each(|line| ours(&line.split_whitespace().collect::<Vec<_>>())))
}

#[test]
fn commands_in_sentences_are_ours() {
    let of_operators = |document: &Document| document.name.starts_with("README") || document.name.starts_with("docs/");
    let mut judged = 0;
    let mut wrong = Vec::new();
    for document in all().into_iter().filter(of_operators) {
        for found in document.spans().iter().filter_map(|span| judge_span(span)) {
            judged += 1;
            wrong.extend(found.err().map(|why| format!("{}: {why}", document.name)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(judged > 60, "{judged} commands");
}

#[test]
fn what_curl_asks_is_answered() {
    let mut broker = Broker::new();
    broker.start();
    let ports = [("8086", broker.ports.api), ("8222", broker.ports.http)];
    let sandbox = Sandbox::new();
    let blocks = Document::read("README.md").blocks();
    let calls = blocks.iter().filter(|block| block.text.contains("curl ")).flat_map(|block| sandbox.run(&block.text));
    let urls: Vec<_> = calls.filter(|call| call[0] == "curl").map(|call| call[2].clone()).collect();
    assert_eq!(urls.len(), 3, "{urls:?}");
    for url in urls {
        let here = ports.iter().fold(url, |url, (port, ours)| url.replace(port, &ours.to_string()));
        let (status, body) = http_get(&here);
        assert_eq!(status, 200, "{here}: {body}");
    }
    assert_eq!(broker.stop(), Some(0));
}

/// Loads settings of one variable that names a file.
fn load(variable: &str, file: &Path) {
    let pairs = [("NATS_AUTH_ENABLED", "true"), (variable, file.to_str().unwrap())];
    let pairs = if variable == "NATS_USERS_FILE" { &pairs[..] } else { &pairs[1..] };
    let loaded = Settings::load(&pairs, &[]).unwrap_or_else(|problems| panic!("{variable}: {problems}"));
    assert_eq!(loaded.warnings, Vec::<String>::new(), "{variable}");
}

#[test]
fn every_file_that_is_shown_can_be_used() {
    let mut files = 0;
    for document in all() {
        let sandbox = Sandbox::new();
        for block in document.blocks().into_iter().filter(|block| block.language == "yaml") {
            let variable = if block.text.starts_with("users:") { "NATS_USERS_FILE" } else { "CONFIG_FILE" };
            let file = sandbox.path("shown.yml");
            fs::write(&file, &block.text).unwrap();
            load(variable, &file);
            files += 1;
        }
        for block in document.blocks().into_iter().filter(|block| block.text.contains("> streams/streams.yml")) {
            sandbox.run(&block.text);
            load("STREAMS_FILE", &sandbox.path("streams/streams.yml"));
            files += 1;
        }
    }
    assert_eq!(files, 6, "settings, users and streams, each in two languages");
}

/// What it does needs a client with JetStream, which the program does without.
#[test]
fn the_rust_example_is_rust() {
    let blocks = Document::read("README.md").blocks();
    let shown = blocks.iter().find(|block| block.language == "rust").expect("README.md shows Rust");
    syn::parse_file(&shown.text).unwrap_or_else(|e| panic!("{e}"));
}

/// The keys of `shown` that `real` does not have.
fn unknown_keys(shown: &serde_json::Value, real: &serde_json::Value, at: &str, unknown: &mut Vec<String>) {
    use serde_json::Value::{Array, Object};
    match (shown, real) {
        (Object(shown), Object(real)) => {
            for (key, value) in shown {
                match real.get(key) {
                    Some(other) => unknown_keys(value, other, &format!("{at}.{key}"), unknown),
                    // Only there where something is wrong.
                    None if key == "reason" || key == "why" => {}
                    None => unknown.push(format!("{at}.{key}")),
                }
            }
        }
        (Array(shown), Array(real)) => {
            let first = real.first().unwrap_or(&serde_json::Value::Null);
            shown.iter().for_each(|value| unknown_keys(value, first, &format!("{at}[]"), unknown));
        }
        _ => {}
    }
}

#[test]
fn health_is_what_operations_shows() {
    let mut broker = Broker::new();
    broker.set("HEALTH_CHECK_INTERVAL", "100ms").start();
    let real = crate::support::wait_for("a whole answer", || {
        Some(broker.health()).filter(|health| !health["observed"]["server"].is_null())
    });
    assert_eq!(broker.stop(), Some(0));
    let document = Document::read("docs/operations.md");
    let blocks = document.blocks();
    let shown = blocks.iter().find(|block| block.language == "json").expect("docs/operations.md shows JSON");
    let shown: serde_json::Value = serde_json::from_str(&shown.text).unwrap();

    let mut unknown = Vec::new();
    unknown_keys(&shown, &real, "", &mut unknown);
    assert!(unknown.is_empty(), "/health has no {}", unknown.join(", "));
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    for (shown, real) in [
        (&shown, &real),
        (&shown["counters"], &real["counters"]),
        (&shown["observed"], &real["observed"]),
        (&shown["observed"]["server"], &real["observed"]["server"]),
        (&shown["observed"]["streams"][0], &real["observed"]["streams"][0]),
    ] {
        assert_eq!(keys(shown), keys(real), "docs/operations.md shows all of it");
    }
    let explained: Vec<String> = document.rows().iter().flat_map(|row| super::markdown::spans(&row[0])).collect();
    for condition in real["conditions"].as_array().unwrap() {
        let kind = condition["type"].as_str().unwrap();
        assert!(explained.iter().any(|word| word == kind), "docs/operations.md does not explain {kind}");
    }
}
