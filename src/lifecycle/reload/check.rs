//! Having nats-server look at a configuration before it is put in place.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use super::{EmbeddedServer, Refusal, ReloadFiles};
use crate::files::FileContent;
use crate::nats_conf::{self, are_warnings};
use crate::preflight::candidate;
use crate::settings::Settings;

/// Time for nats-server to check a file.
const CHECK_DEADLINE: Duration = Duration::from_secs(10);
/// What is read at most of what it says about the file.
const MAX_ANSWER: u64 = 64 * 1024;

impl EmbeddedServer {
    /// Has nats-server check a configuration (`-t`); gives the digest it computes, which 2.10 does not.
    pub(super) async fn check(
        &self,
        files: &[FileContent],
        settings: &Settings,
        disk: &mut ReloadFiles,
    ) -> Result<Option<String>, Refusal> {
        let candidate = candidate(&self.config_file);
        // What nats.conf names has to be in its place for that.
        let Some((conf, beside)) = files.split_last() else { return Ok(None) };
        let text = String::from_utf8_lossy(&conf.content);
        let name = candidate.display().to_string();
        let conf = FileContent::new(candidate.clone(), conf.content.as_slice());
        let to_write: Vec<_> = beside.iter().cloned().chain([conf]).collect();
        disk.write(move || to_write.iter().try_for_each(FileContent::put)).await.map_err(Refusal::Check)?;
        let answer = timeout(CHECK_DEADLINE, self.ask_about(&candidate)).await;
        // Nothing is lost with a file that cannot be removed: the next check writes it anew.
        let _ = disk.write(move || fs::remove_file(&candidate)).await;
        let answer = answer.unwrap_or_else(|_| {
            let words =
                format!("{} -t does not answer within {} s", self.executable.display(), CHECK_DEADLINE.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, words))
        });
        let (valid, words) = answer.map_err(Refusal::Check)?;
        if !valid && !are_warnings(&words) {
            let words = nats_conf::located(words.trim(), &name, "nats.conf", &text, settings);
            return Err(Refusal::Invalid(words));
        }
        let digest = words.rsplit_once("(sha256:").and_then(|(_, rest)| rest.split_once(')'));
        Ok(digest.map(|(digest, _)| format!("sha256:{digest}")))
    }

    async fn ask_about(&self, config: &Path) -> io::Result<(bool, String)> {
        let (reader, writer) = io::pipe()?;
        let mut command = Command::new(&self.executable);
        command.args(["-t", "--config"]).arg(config).env_clear().stdin(Stdio::null());
        command.stdout(writer.try_clone()?).stderr(writer);
        let (_, exit) = self.reaper.spawn(&mut command).map_err(|error| {
            let words =
                format!("cannot run {}: {error}; put it back, or restart the broker", self.executable.display());
            io::Error::new(error.kind(), words)
        })?;
        // The command holds the pipe's other end.
        drop(command);
        let mut words = Vec::new();
        pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?.take(MAX_ANSWER).read_to_end(&mut words).await?;
        let valid = matches!(exit.await, Ok(crate::supervisor::Exit::Code(0)));
        Ok((valid, String::from_utf8_lossy(&words).into_owned()))
    }
}
