use std::future;
use std::io;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

use super::child::{Launch, Launched};
use super::conditions::Conditions;
use super::disk_work::{Installing, PREPARATION, end_of, late, written};
use super::events::{Action, Cause, Event, Failure};
use super::handle::{Handle, Installed, Message, Snapshot, Transition};
use super::log_file::LogFile;
use super::policy::RestartPolicy;
use super::preparation::Hindrance;
use super::reaper::Exit;
use super::restarts::Restarts;
use super::server_output::ServerOutput;
use super::state::State;
use super::state_log::log_change;
use super::transitions::TransitionContext;
use super::wake_ups::WakeUps;
use crate::domain::Generation;
use crate::files::FileContent;
use crate::logging::Log;

/// Times that the supervisor keeps.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub drain_delay: Duration,
    /// What is under way over the API when a stop begins may take so long.
    pub close: Duration,
    /// From the request to stop until the server is killed.
    pub kill_after: Duration,
    /// What lame duck mode takes at most.
    pub lame_duck: Duration,
    /// Of a node in a cluster: what handing over to the other nodes takes at most.
    pub hand_over: Option<Duration>,
}

/// How supervision ended.
#[derive(Debug)]
pub enum Ending {
    Stopped,
    Failed {
        failure: Failure,
        /// The last lines that nats-server printed.
        last_lines: Vec<String>,
    },
}

/// The one owner of the server.
pub struct Supervisor<L> {
    launcher: L,
    policy: RestartPolicy,
    timing: Timing,
    messages: mpsc::Receiver<Message>,
    snapshots: watch::Sender<Snapshot>,
    transitions: broadcast::Sender<Transition>,
    restarts_by: Restarts,
    state: State,
    conditions: Conditions,
    /// What comes before a launch, while it is done.
    preparing: Option<JoinHandle<Result<(), Hindrance>>>,
    /// Another configuration, while it is written.
    installing: Option<Installing>,
    child: Option<Child>,
    output: ServerOutput,
    ever_ready: bool,
    wake_ups: WakeUps,
}

struct Child {
    pid: Option<Pid>,
    exit: oneshot::Receiver<Exit>,
}

/// What a server that is stopping has left when somebody asks again.
const HURRY: Duration = Duration::from_secs(1);

/// What a server that hangs gets between SIGTERM and SIGKILL.
const PATIENCE: Duration = Duration::from_secs(5);

/// Notices that wait for a reader at most; one that falls behind loses the oldest.
const NOTICES: usize = 512;

impl<L: Launch> Supervisor<L> {
    pub fn new(
        launcher: L,
        policy: RestartPolicy,
        timing: Timing,
        log: Log,
        log_file: Option<LogFile>,
    ) -> (Self, Handle) {
        let (sender, messages) = mpsc::channel(64);
        let state = State::Preparing { next: Generation(1), hindrance: None };
        let (snapshots, watched) = watch::channel(Snapshot {
            state: state.clone(),
            running: false,
            pid: None,
            restarts: 0,
            restarts_by: Restarts::default(),
            recent_restarts: vec![],
            conditions: Conditions::default(),
            ever_ready: false,
        });
        let (notices, _) = broadcast::channel(NOTICES);
        let (transitions, _) = broadcast::channel(NOTICES);
        let handle =
            Handle { messages: sender, snapshots: watched, notices: notices.clone(), transitions: transitions.clone() };
        let supervisor = Self {
            launcher,
            policy,
            timing,
            messages,
            snapshots,
            transitions,
            restarts_by: Restarts::default(),
            state,
            conditions: Conditions::default(),
            preparing: None,
            installing: None,
            child: None,
            output: ServerOutput::new(log, log_file, notices),
            ever_ready: false,
            wake_ups: WakeUps::default(),
        };
        (supervisor, handle)
    }

    /// Launches the server and keeps it running until it is asked to stop or the policy gives up.
    pub async fn run(mut self) -> Ending {
        self.act(vec![Action::Prepare]);
        while !self.state.is_final() {
            let event = self.next_event().await;
            self.handle(event);
        }
        self.output.flush().await;
        match self.state {
            State::Failed(failure) => Ending::Failed { failure, last_lines: self.output.last_lines() },
            _ => Ending::Stopped,
        }
    }

    async fn next_event(&mut self) -> Event {
        loop {
            let mut chunk = [0u8; 4096];
            let exit = tokio::select! {
                biased;
                exit = exit_of(&mut self.child) => exit,
                Some(message) = self.messages.recv() => match message {
                    Message::Event(event) => return event,
                    Message::Install { files, done } => {
                        self.begin_to_install(files, done);
                        continue;
                    }
                    Message::ReopenLogs => {
                        self.output.reopen_logs();
                        continue;
                    }
                },
                prepared = end_of(&mut self.preparing) => return self.prepared(prepared),
                written = written(&mut self.installing) => {
                    self.installed(written);
                    continue;
                }
                event = self.wake_ups.next() => return event,
                // Last, because a server that floods must not keep the others waiting.
                count = self.output.read(&mut chunk) => {
                    self.output.take(count, &chunk);
                    continue;
                }
            };
            self.output.take_rest();
            self.child = None;
            let cause = match exit {
                _ if self.output.names_taken_port() => Cause::PortTaken,
                Exit::Code(1) if !self.output.is_announced() => Cause::Configuration,
                _ => Cause::Other,
            };
            return Event::Exited { exit, cause };
        }
    }

    fn handle(&mut self, event: Event) {
        match &event {
            Event::Exited { exit, .. } if matches!(self.state, State::Restarting { .. }) => {
                tracing::info!("nats-server ended with {exit} and is started again");
            }
            Event::Exited { exit, .. } if !self.state.is_stopping() => {
                tracing::error!(state = self.state.name(), "nats-server ended with {exit}");
            }
            _ => {}
        }
        let mut context = TransitionContext {
            now: Instant::now(),
            drain_delay: self.timing.drain_delay,
            clustered: self.timing.hand_over.is_some(),
            policy: &mut self.policy,
            conditions: &mut self.conditions,
            jitter: fastrand::f64(),
            ever_ready: self.ever_ready,
        };
        let (next, actions) = self.state.clone().after(event.clone(), &mut context);
        self.restarts_by.count(&self.state, &event, &next);
        self.announce(&next, &event);
        self.enter(next);
        self.act(actions);
    }

    /// Says that another state is entered, and why: what has happened where the state itself gives no
    /// reason.
    fn announce(&self, next: &State, event: &Event) {
        if next.name() == self.state.name() {
            return;
        }
        let ended = || match event {
            Event::Exited { exit, .. } => Some(format!("nats-server ended with {exit}")),
            Event::LaunchFailed(reason) => Some(reason.clone()),
            _ => None,
        };
        let reason = next.reason().map(str::to_owned).or_else(ended);
        // Nobody may listen.
        let generation = next.generation().or(match next {
            State::Preparing { next, .. } => Some(*next),
            State::BackingOff { last, .. } => Some(*last),
            _ => None,
        });
        let _ = self.transitions.send(Transition { at: SystemTime::now(), state: next.name(), reason, generation });
    }

    fn enter(&mut self, next: State) {
        if next != self.state {
            log_change(&self.state, &next);
        }
        self.ever_ready |= next.is_ready();
        self.state = next;
        self.publish();
    }

    fn publish(&self) {
        // Of the last server that was launched.
        let generation = self.state.generation().or(match self.state {
            State::BackingOff { last, .. } => Some(last),
            State::Preparing { next, .. } => Some(Generation(next.0.saturating_sub(1).max(1))),
            _ => None,
        });
        self.snapshots.send_modify(|snapshot| {
            snapshot.state = self.state.clone();
            snapshot.ever_ready = self.ever_ready;
            snapshot.conditions = self.conditions.clone();
            snapshot.restarts_by = self.restarts_by;
            snapshot.recent_restarts = self.policy.recent();
            snapshot.running = self.child.is_some();
            snapshot.pid = self.child.as_ref().and_then(|child| child.pid);
            snapshot.restarts = generation.map_or(snapshot.restarts, |g| g.0 - 1);
        });
    }

    fn act(&mut self, actions: Vec<Action>) {
        let now = Instant::now();
        for action in actions {
            match action {
                Action::Prepare => {
                    if !self.begin_to_prepare(now) {
                        self.handle(Event::Prepared);
                    }
                }
                Action::Launch => {
                    if let Err(error) = self.launch() {
                        let reason = format!("cannot start nats-server: {error}");
                        tracing::error!("{reason}");
                        // Not handled at once: a stop must get its turn between failing launches.
                        self.wake_ups.set(now, Event::LaunchFailed(reason));
                    }
                }
                Action::Backoff(wait) => {
                    tracing::info!("nats-server is started again in {} ms", wait.as_millis());
                    self.wake_ups.set(now + wait, Event::BackoffOver);
                }
                Action::Drain => self.wake_ups.set(now + self.timing.drain_delay, Event::DrainOver),
                Action::Close => self.wake_ups.set(now + self.timing.close, Event::Closed),
                Action::Deadline => self.wake_ups.advance(now + self.timing.kill_after, Event::Deadline),
                Action::Hurry => self.wake_ups.advance(now + HURRY, Event::Deadline),
                Action::Patience => self.wake_ups.advance(now + PATIENCE, Event::Deadline),
                Action::LameDuckDeadline => self.wake_ups.set(now + self.timing.lame_duck, Event::Deadline),
                // Lame duck mode begins with giving up what the server leads.
                Action::HandOver => {
                    if let State::HandingOver { generation } = self.state {
                        let patience = self.timing.hand_over.unwrap_or_default();
                        self.wake_ups.set(now + patience, Event::HandedOver(generation));
                    }
                    self.signal(Signal::SIGUSR2);
                }
                Action::EnterLameDuck => self.signal(Signal::SIGUSR2),
                Action::Terminate => self.signal(Signal::SIGTERM),
                // SIGINT, because 2.10 answers SIGTERM with exit code 1 and lame duck mode ignores it.
                Action::Interrupt => self.signal(Signal::SIGINT),
                Action::Kill => {
                    tracing::warn!("nats-server did not stop in time and is killed");
                    self.signal(Signal::SIGKILL);
                }
            }
        }
    }

    fn launch(&mut self) -> io::Result<()> {
        self.output.forget();
        // The deadline of the server before.
        self.wake_ups.cancel(&Event::Deadline);
        let Launched { pid, exit, output } = self.launcher.launch()?;
        tracing::debug!(pid = pid.map(Pid::as_raw), "launched");
        self.child = Some(Child { pid, exit });
        self.output.begin(output);
        self.publish();
        Ok(())
    }

    /// False where there is nothing to prepare.
    fn begin_to_prepare(&mut self, now: Instant) -> bool {
        if self.preparing.is_none() {
            let Some(work) = self.launcher.preparation() else { return false };
            self.preparing = Some(spawn_blocking(work));
        }
        self.wake_ups.set(now + PREPARATION, late());
        true
    }

    fn prepared(&mut self, result: Result<(), Hindrance>) -> Event {
        self.wake_ups.cancel(&late());
        match result {
            Ok(()) => Event::Prepared,
            Err(Hindrance::Passing(reason)) => Event::Hindered(reason),
            Err(Hindrance::Failed(error)) => {
                let reason = format!("cannot start nats-server: {error}");
                tracing::error!("{reason}");
                Event::LaunchFailed(reason)
            }
        }
    }

    /// Begins to put a configuration in place.
    fn begin_to_install(&mut self, files: Vec<FileContent>, done: oneshot::Sender<io::Result<Installed>>) {
        if self.installing.is_some() {
            let busy = io::Error::new(io::ErrorKind::ResourceBusy, "another configuration is being written");
            // Who asked may have lost patience.
            let _ = done.send(Err(busy));
            return;
        }
        let writing = spawn_blocking(self.launcher.installation(files));
        self.installing = Some(Installing { writing, done });
    }

    /// Asks a server that runs to reload what is in place now. One that is just starting would be ended
    /// by that signal.
    fn installed(&mut self, (written, done): (io::Result<()>, oneshot::Sender<io::Result<Installed>>)) {
        let installed = written.map(|()| match self.state {
            State::Provisioning { generation }
            | State::Ready { generation, .. }
            | State::Degraded { generation, .. }
                if self.output.is_announced() =>
            {
                self.signal(Signal::SIGHUP);
                Installed::Signalled(generation)
            }
            _ => Installed::ForTheNextLaunch,
        });
        let _ = done.send(installed);
    }

    fn signal(&mut self, signal: Signal) {
        if let Some(child) = &self.child {
            self.launcher.signal(child.pid, signal);
        }
    }
}

async fn exit_of(child: &mut Option<Child>) -> Exit {
    match child {
        // The reaper keeps the sending half until the process has ended.
        Some(child) => match (&mut child.exit).await {
            Ok(exit) => exit,
            Err(_) => future::pending().await,
        },
        None => future::pending().await,
    }
}

#[cfg(test)]
mod tests;
