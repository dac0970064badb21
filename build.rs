//! Puts the revision that is built into the program: UNIFIED_NATS_REVISION where it is set (an
//! image is built without the repository), else what git says.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=UNIFIED_NATS_REVISION");
    for path in [".git/HEAD", ".git/refs/heads", ".git/packed-refs"] {
        if std::path::Path::new(path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    let given = std::env::var("UNIFIED_NATS_REVISION").ok().filter(|revision| !revision.is_empty());
    let revision = given.or_else(ask_git).unwrap_or_else(|| "unknown".into());
    println!("cargo:rustc-env=UNIFIED_NATS_REVISION={revision}");
}

fn ask_git() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let revision = String::from_utf8(output.stdout).ok()?;
    (output.status.success()).then(|| revision.trim().to_owned())
}
