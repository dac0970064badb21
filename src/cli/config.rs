use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use super::args::{OutputFlags, Reference, Render};
use super::exit::Code;
use super::{Flags, loaded_or_printed};
use crate::files::write_atomically;
use crate::nats_conf::{self, RenderContext, RenderError, Secrets};
use crate::preflight::host_name;
use crate::settings::{Loaded, Problem, Problems, ProcessEnvironment, Purpose, Settings, reference, variables};
use crate::supervisor::{Executable, Reaper};

fn rendered(settings: &Settings, secrets: Secrets) -> Result<String, RenderError> {
    nats_conf::render(settings, &RenderContext { host_name: host_name(), ..RenderContext::default() }, secrets)
}

/// Like [`rendered`]; what is wrong is printed.
fn rendered_or_printed(settings: &Settings, secrets: Secrets) -> Result<String, Code> {
    rendered(settings, secrets).map_err(|error| match error.as_problem() {
        Some(problem) => {
            complain!("{}", Problems::from(vec![problem]));
            Code::Settings
        }
        None => {
            complain!("{:#}", anyhow::Error::from(error));
            Code::Internal
        }
    })
}

/// Like [`loaded_or_printed`]; so is what is doubtful, and what this user may not touch.
fn loaded_with_warnings(purpose: Purpose, flags: &Flags) -> Result<Loaded, Code> {
    let mut loaded = loaded_or_printed(purpose, flags)?;
    loaded.warnings.extend(nats_conf::warnings(&loaded.settings));
    for warning in &loaded.warnings {
        complain!("warning: {warning}");
    }
    for denied in &loaded.denied {
        complain!("warning: for this user, who may be another than the broker's: {denied}");
    }
    Ok(loaded)
}

/// What nats.conf names and does not hold.
static NAMED_ALONE: [&variables::Variable; 3] =
    [&variables::JETSTREAM_STORE_DIR, &variables::NATS_CONFIG_FILE, &variables::NATS_LOG_FILE];

pub fn render(flags: &Flags, arguments: &Render) -> Code {
    let result = || -> Result<(), Code> {
        // What is written is for a broker; what is shown is for whoever looks.
        let purpose = if arguments.output.is_some() { Purpose::Run } else { Purpose::Show };
        let Loaded { settings, denied, .. } = loaded_with_warnings(purpose, flags)?;
        if denied.iter().any(|problem| !NAMED_ALONE.iter().any(|variable| variable.name == problem.variable)) {
            complain!(
                "cannot show nats.conf to this user: what those files say is a part of it; run this as the broker's user"
            );
            return Err(Code::Settings);
        }
        if settings.external.is_some() {
            complain!("there is no nats.conf with NATS_MODE=external: others configure that server");
            return Err(Code::Failed);
        }
        let Some(path) = &arguments.output else {
            let text = rendered_or_printed(&settings, Secrets::Redacted)?;
            match arguments.json {
                true => say!("{:#}", json!({ "nats_conf": text })),
                false => say_raw!("{text}"),
            }
            return Ok(());
        };
        let text = rendered_or_printed(&settings, Secrets::Written)?;
        write_atomically(path, text.as_bytes()).map_err(|error| {
            complain!("cannot write {}: {error}; name a path in a directory that you may write", path.display());
            Code::Failed
        })?;
        if arguments.json {
            say!("{:#}", json!({ "written": path }));
        }
        Ok(())
    };
    result().map_or_else(|code| code, |()| Code::Success)
}

pub fn show(flags: &Flags, arguments: &OutputFlags) -> Code {
    let loaded = match loaded_with_warnings(Purpose::Show, flags) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    if arguments.json {
        say!("{:#}", json!(loaded.effective));
        return Code::Success;
    }
    for entry in &loaded.effective {
        let value = entry.value.as_deref().unwrap_or("–");
        say!("{:<30} {value:<40} {}", entry.name, entry.origin);
    }
    Code::Success
}

pub fn reference(arguments: &Reference) -> Code {
    if arguments.json {
        let entries: Vec<_> = variables::ALL
            .iter()
            .map(|v| {
                json!({
                    "name": v.name, "section": v.section, "default": v.default.fixed(),
                    "allowed": v.allowed(), "doc": v.doc, "secret": v.secret, "reloads": v.reloads.describe(),
                })
            })
            .collect();
        say!("{:#}", json!(entries));
    } else if arguments.env {
        say_raw!("{}", reference::env_file());
    } else {
        say_raw!("{}", reference::markdown());
    }
    Code::Success
}

/// What `config validate` found.
struct Validation {
    problems: Vec<Problem>,
    warnings: Vec<String>,
    /// What nats-server said about nats.conf; [`None`] when it was not asked.
    server: Option<Result<String, String>>,
    code: Code,
}

pub fn validate(flags: &Flags, arguments: &OutputFlags) -> Code {
    let verdict = judge(flags);
    if arguments.json {
        let problems: Vec<_> = verdict
            .problems
            .iter()
            .map(|p| json!({ "variable": p.variable, "found": p.found, "rule": p.rule, "remedy": p.remedy }))
            .collect();
        let server = verdict.server.as_ref().map(|said| match said {
            Ok(text) | Err(text) => json!({ "accepted": said.is_ok(), "answer": text }),
        });
        let result = json!({
            "valid": verdict.code == Code::Success,
            "problems": problems,
            "warnings": verdict.warnings,
            "nats_server": server,
        });
        say!("{result:#}");
        return verdict.code;
    }
    for warning in &verdict.warnings {
        say!("warning: {warning}");
    }
    if !verdict.problems.is_empty() {
        say!("{}", Problems::from(verdict.problems));
    }
    match verdict.server {
        Some(Ok(text)) => say!("valid; {text}"),
        Some(Err(text)) => say!("{text}"),
        None if verdict.code == Code::Success => say!("valid; others run the server"),
        None => {}
    }
    verdict.code
}

fn judge(flags: &Flags) -> Validation {
    let refused =
        |problems: Vec<Problem>, warnings| Validation { problems, warnings, server: None, code: Code::Settings };
    let loaded = match Settings::load(&ProcessEnvironment, flags) {
        Ok(loaded) => loaded,
        Err(problems) => return refused(problems.list, problems.warnings),
    };
    let mut warnings = loaded.warnings;
    warnings.extend(nats_conf::warnings(&loaded.settings));
    if loaded.settings.external.is_some() {
        return Validation { problems: vec![], warnings, server: None, code: Code::Success };
    }
    let text = match rendered(&loaded.settings, Secrets::Written) {
        Ok(text) => text,
        Err(error) => match error.as_problem() {
            Some(problem) => return refused(vec![problem], warnings),
            None => {
                let server = Some(Err(format!("{:#}", anyhow::Error::from(error))));
                return Validation { problems: vec![], warnings, server, code: Code::Internal };
            }
        },
    };
    let search_path = std::env::var("PATH").unwrap_or_default();
    let (server, code) = match Executable::find(&loaded.settings.server.executable, &search_path, &Reaper::default()) {
        Err(error) => (Err(error.to_string()), Code::Unavailable),
        Ok(executable) => match ask_server(&executable, &text, &loaded.settings) {
            Ok(answer) => (Ok(answer), Code::Success),
            Err(answer) => (Err(answer), Code::Settings),
        },
    };
    Validation { problems: vec![], warnings, server: Some(server), code }
}

/// Has nats-server read the file (`-t`); the answer is its own.
fn ask_server(executable: &Executable, text: &str, settings: &Settings) -> Result<String, String> {
    let file =
        TemporaryFile::create(text).map_err(|error| format!("cannot write a file for nats-server -t: {error}"))?;
    let output = Command::new(&executable.path)
        .args(["-t", "--config"])
        .arg(&file.0)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run {}: {error}", executable.path.display()))?;
    let answer = String::from_utf8_lossy(if output.stderr.is_empty() { &output.stdout } else { &output.stderr });
    let answer = nats_conf::located(answer.trim(), &file.0.to_string_lossy(), "nats.conf", text, settings);
    let answer = format!("nats-server {}: {answer}", executable.version);
    if output.status.success() || nats_conf::are_warnings(&answer) { Ok(answer) } else { Err(answer) }
}

struct TemporaryFile(PathBuf);

impl TemporaryFile {
    /// In the first directory that can be written: a read-only container has few.
    fn create(text: &str) -> std::io::Result<Self> {
        let name = format!("unified-nats-{}-{:016x}.conf", std::process::id(), fastrand::u64(..));
        let mut result = Err(std::io::ErrorKind::NotFound.into());
        for directory in [std::env::temp_dir().as_path(), Path::new("/dev/shm"), Path::new("/run/unified-nats")] {
            let path = directory.join(&name);
            result = write_atomically(&path, text.as_bytes()).map(|()| Self(path));
            if result.is_ok() {
                break;
            }
        }
        result
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
