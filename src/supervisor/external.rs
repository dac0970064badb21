use std::io;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::sync::oneshot;

use super::child::{Launch, Launched};
use super::preparation::{Hindrance, Work};
use super::reaper::Exit;
use crate::files::FileContent;

/// A server that others run. What is launched is our attachment to it, which any signal that would
/// end a server of our own lets go of; the server itself hears nothing.
#[derive(Debug, Default)]
pub struct External(Option<oneshot::Sender<Exit>>);

impl Launch for External {
    fn preparation(&mut self) -> Option<Work<(), Hindrance>> {
        None
    }

    fn launch(&mut self) -> io::Result<Launched> {
        let (attachment, exit) = oneshot::channel();
        self.0 = Some(attachment);
        Ok(Launched { pid: None, exit, output: None })
    }

    fn signal(&mut self, _: Option<Pid>, signal: Signal) {
        let ends = matches!(signal, Signal::SIGINT | Signal::SIGTERM | Signal::SIGKILL | Signal::SIGUSR2);
        if let Some(attachment) = self.0.take_if(|_| ends) {
            // Who waits for it may be gone.
            let _ = attachment.send(Exit::Code(0));
        }
    }

    fn installation(&mut self, _: Vec<FileContent>) -> Work<(), io::Error> {
        Box::new(|| Err(io::ErrorKind::Unsupported.into()))
    }
}
