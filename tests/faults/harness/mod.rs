//! What all faults have in common: a broker, producers with a ledger, the invariants, the report.

mod agreement;
pub mod cluster;
pub mod container;
pub mod disk;
mod dose;
mod invariants;
pub mod kinds;
mod ledger;
mod message;
mod processes;
mod producers;
mod progress;
mod readback;
mod report;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use fastrand::Rng;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use agreement::Watch;
pub use agreement::{Newcomers, Told};
pub use dose::{dose, is_full, millis, server};
pub use invariants::{Contents, Findings};
pub use ledger::Acknowledged;
pub use processes::{open_descriptors, resident_kilobytes, servers_of, strangers_below};
pub use producers::{Load, Records, Shape};
pub use readback::{read_each, read_from, read_stream, try_read_stream};

use crate::support::{Broker, http_get};

pub const STREAM: &str = "MARKET_DATA";

/// Descriptors that a supervisor may open later than its first readiness and keep: three idle connections to
/// the monitoring port, and the one to NATS that counts advisories (measured: four, and fewer after ten kills).
/// One that leaks with every fault exceeds it soon.
const LATE_DESCRIPTORS: usize = 4;

/// More acknowledgements than can have been on their way when a fault was injected.
const ACKNOWLEDGES: u64 = 50;

const SEARCH_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Waits until `look` gives something, for `patience`; [`None`] when that is over.
pub fn wait_within<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        // A poll, not a guess: the condition decides.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One test: a broker under a fault that is injected again and again.
pub struct Run {
    pub broker: Broker,
    pub newcomers: Newcomers,
    /// Every choice is drawn from here, so that the seed makes the same ones again.
    pub choices: Rng,
    name: &'static str,
    seed: u64,
    started: Instant,
    injected: usize,
    load: Option<(Load, Option<Watch>)>,
    loads: usize,
    descriptors: usize,
    totals: Findings,
    notes: BTreeMap<String, Value>,
    reported: bool,
}

impl Run {
    pub fn of(name: &'static str) -> Self {
        let seed = dose::seed();
        println!("{name}: UNIFIED_NATS_SEED={seed} makes the same choices again");
        let version = dose::server();
        let mut broker = Broker::with_server(&version);
        // Limits that take messages away would look like losses.
        broker.set("STREAM_MAX_AGE", 0).set("STREAM_MAX_MSGS", -1).set("STREAM_MAX_BYTES", "9GB");
        // Faults come more often than a crash loop may.
        broker.set("RESTART_MAX", 1_000_000);
        Self {
            broker,
            newcomers: Newcomers::default(),
            choices: dose::choices(seed, name),
            name,
            seed,
            started: Instant::now(),
            injected: 0,
            load: None,
            loads: 0,
            descriptors: 0,
            totals: Findings::default(),
            notes: BTreeMap::new(),
            reported: false,
        }
    }

    /// Starts the broker and waits until it is ready.
    pub fn start(&mut self) -> &mut Self {
        self.broker.start();
        self.remember_descriptors();
        self
    }

    pub fn remember_descriptors(&mut self) {
        self.descriptors = open_descriptors(self.broker.pid());
    }

    /// Launches the program through another one that execs it or starts it, such as prlimit.
    pub fn launch_through(&mut self, program: &str, arguments: &[&str]) {
        let run = self.broker.command(&["run"]);
        let mut command = Command::new(program);
        command.args(arguments).arg(run.get_program()).args(run.get_args()).env_clear();
        command.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("PATH", SEARCH_PATH);
        command.current_dir(self.broker.directory.path());
        self.broker.launch_as(command);
    }

    /// Lets producers loose and watches whether the supervisor says what they see.
    pub fn load(&mut self, shape: Shape) -> &mut Self {
        self.loads += 1;
        let ledger = self.broker.path(&format!("ledger-{}", self.loads));
        let load = Load::start(vec![self.broker.url()], shape, self.choices.u64(..), ledger);
        let watch = Watch::start(self.broker.api("/health"), load.progress.clone(), self.newcomers);
        self.load = Some((load, Some(watch)));
        self.wait_for_acknowledged(1);
        self
    }

    /// The same on a cluster; each node has a health of its own, which the test looks after.
    pub fn load_on(&mut self, servers: Vec<String>, shape: Shape) {
        let ledger = self.broker.path("ledger");
        let load = Load::start(servers, shape, self.choices.u64(..), ledger);
        self.load = Some((load, None));
        self.wait_for_acknowledged(1);
    }

    /// Waits for `more` messages to be acknowledged from now on.
    pub fn wait_for_acknowledged(&mut self, more: u64) -> bool {
        let progress = self.load.as_ref().expect("there is load").0.progress.clone();
        let wanted = progress.count() + more;
        let served = wait_within(Duration::from_secs(60), || (progress.count() >= wanted).then_some(()));
        if served.is_none() {
            self.violation(format!("{more} more messages were not acknowledged within a minute; {}", self.told()));
        }
        served.is_some()
    }

    /// Whether messages are acknowledged, and not only those that were on their way.
    pub fn acknowledges_within(&self, patience: Duration) -> bool {
        let progress = self.load.as_ref().expect("there is load").0.progress.clone();
        let wanted = progress.count() + ACKNOWLEDGES;
        wait_within(patience, || (progress.count() >= wanted).then_some(())).is_some()
    }

    /// Whether nothing has been acknowledged for a while although producers wait.
    pub fn is_blocked_for(&self, time: Duration) -> bool {
        let view = self.load.as_ref().expect("there is load").0.progress.view();
        view.blocked_since.is_some_and(|since| since.elapsed() > time)
    }

    /// Lets time pass under load: part of the dose, not a wait for anything.
    pub fn pause(&mut self, range: std::ops::RangeInclusive<u64>) {
        std::thread::sleep(millis(&mut self.choices, range));
    }

    /// Counts a fault.
    pub fn injected(&mut self) {
        self.injected += 1;
    }

    pub fn note(&mut self, name: &str, value: impl Into<Value>) {
        self.notes.insert(name.into(), value.into());
    }

    /// Counts something in the notes.
    pub fn count(&mut self, name: &str) {
        let counted = self.notes.get(name).and_then(Value::as_u64).unwrap_or_default();
        self.note(name, counted + 1);
    }

    /// Notes the longest of several times.
    pub fn note_longest(&mut self, name: &str, time: Duration) {
        let millis = time.as_millis() as u64;
        let longest = self.notes.get(name).and_then(Value::as_u64).unwrap_or_default().max(millis);
        self.note(name, longest);
    }

    pub fn violation(&mut self, text: impl Into<String>) {
        let text = format!("after fault {}: {}", self.injected, text.into());
        eprintln!("VIOLATION {}: {text}", self.name);
        self.totals.violations.push(text);
    }

    pub fn require(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.violation(otherwise());
        }
    }

    pub fn told(&self) -> String {
        format!("/health tells {:?}", Told::by(&self.broker.health()))
    }

    pub fn is_ready(&self) -> bool {
        http_get(&self.broker.api("/readyz")).0 == 200
    }

    pub fn restarts(&self) -> u64 {
        self.broker.health()["checks"]["nats_server"]["restarts"].as_u64().unwrap_or_default()
    }

    /// Waits until the broker is ready; a violation when it is not within `patience`.
    pub fn wait_until_ready(&mut self, patience: Duration) -> bool {
        let ready = wait_within(patience, || self.is_ready().then_some(())).is_some();
        if !ready {
            self.violation(format!("not ready within {patience:?}; {}", self.told()));
        }
        ready
    }

    /// Kills nats-server and waits until another one is ready; false when none is, and another kill
    /// would show nothing new.
    pub fn kill_server(&mut self) -> bool {
        let killed = self.broker.server_pid();
        kill(killed, Signal::SIGKILL).unwrap();
        self.wait_for_another_server(killed, Duration::from_secs(60))
    }

    pub fn wait_for_another_server(&mut self, gone: Pid, patience: Duration) -> bool {
        let back = wait_within(patience, || {
            let health = self.broker.health();
            let server = &health["checks"]["nats_server"];
            let another = server["pid"].as_i64().is_some_and(|pid| pid != i64::from(gone.as_raw()));
            (another && server["state"] == "ready").then_some(())
        });
        if back.is_none() {
            self.violation(format!("no other nats-server was ready within {patience:?}; {}", self.told()));
        }
        back.is_some()
    }

    /// Ends the load; gives what was acknowledged.
    pub fn stop_load(&mut self) -> Vec<Acknowledged> {
        let (load, watch) = self.load.take().expect("there is load");
        self.totals.violations.extend(watch.into_iter().flat_map(Watch::stop));
        self.note_longest("longest_gap_ms", load.progress.longest_gap());
        self.totals.violations.extend(load.progress.violations());
        load.stop()
    }

    /// Ends the load, reads everything back and judges.
    pub fn settle(&mut self) {
        let ledger = self.stop_load();
        self.wait_until_ready(Duration::from_secs(60));
        // Reading may work where writing does not.
        match try_read_stream(&self.broker) {
            Ok(contents) => _ = self.judge(&ledger, &contents),
            Err(error) => self.violation(format!("{} acknowledged messages cannot be read: {error}", ledger.len())),
        }
    }

    /// Compares the ledger with what was read; gives what was found this time.
    pub fn judge(&mut self, ledger: &[Acknowledged], contents: &Contents) -> Findings {
        let found = Findings::of(ledger, contents);
        self.totals.acknowledged += found.acknowledged;
        self.totals.stored += found.stored;
        self.totals.lost += found.lost;
        self.totals.duplicates += found.duplicates;
        self.totals.out_of_order += found.out_of_order;
        self.totals.sequences_taken_back += found.sequences_taken_back;
        for violation in &found.violations {
            self.violation(violation.clone());
        }
        found
    }

    /// Takes what a test has counted by itself.
    pub fn counted(&mut self, acknowledged: usize, stored: usize, lost: usize, duplicates: usize) {
        self.totals.acknowledged += acknowledged;
        self.totals.stored += stored;
        self.totals.lost += lost;
        self.totals.duplicates += duplicates;
    }

    /// The supervisor holds no more descriptors than at first, and nobody is below it but a server.
    pub fn check_processes(&mut self) {
        let supervisor = self.broker.pid();
        let most = self.descriptors + LATE_DESCRIPTORS;
        let flat = wait_within(Duration::from_secs(10), || (open_descriptors(supervisor) <= most).then_some(()));
        if flat.is_none() {
            let now = open_descriptors(supervisor);
            self.violation(format!("the supervisor has {now} descriptors open, {} at first", self.descriptors));
        }
        let buried = wait_within(Duration::from_secs(10), || strangers_below(supervisor).is_empty().then_some(()));
        if buried.is_none() {
            self.violation(format!("below the supervisor there are {:?}", strangers_below(supervisor)));
        }
    }

    /// Judges what is left to judge, stops the broker, and passes only without a violation.
    pub fn finish(mut self) {
        if self.load.is_some() {
            self.settle();
        }
        self.check_processes();
        let code = self.broker.stop();
        self.require(code == Some(0), || format!("the stop ended with {code:?}"));
        self.finish_stopped();
    }

    /// The same where the broker has ended already.
    pub fn finish_stopped(mut self) {
        let directory = self.broker.directory.path().to_owned();
        let gone = wait_within(Duration::from_secs(10), || servers_of(&directory).is_empty().then_some(()));
        if gone.is_none() {
            self.violation(format!("orphans are left: {:?}", servers_of(&directory)));
        }
        self.report();
        let violations = &self.totals.violations;
        assert!(
            violations.is_empty(),
            "{}, replay with UNIFIED_NATS_SEED={}:\n{}\n{}",
            self.name,
            self.seed,
            violations.join("\n"),
            last_lines(&self.broker.log()),
        );
    }

    fn report(&mut self) {
        self.reported = true;
        let line = json!({
            "fault": self.name,
            "dose": dose::name_of_dose(),
            "faults": self.injected,
            "seed": self.seed,
            "acknowledged": self.totals.acknowledged,
            "stored": self.totals.stored,
            "lost": self.totals.lost,
            "duplicates": self.totals.duplicates,
            "out_of_order": self.totals.out_of_order,
            "sequences_taken_back": self.totals.sequences_taken_back,
            "violations": self.totals.violations,
            "notes": self.notes,
            "seconds": self.started.elapsed().as_secs(),
            "nats_server": dose::server(),
        });
        println!("{line}");
        report::append(&line);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.reported && std::thread::panicking() {
            self.violation("the test itself broke off");
            self.report();
            eprintln!("{}: replay with UNIFIED_NATS_SEED={}", self.name, self.seed);
        }
    }
}

/// The end of the log, after the last of what the broker itself has said, which explains it.
fn last_lines(log: &str) -> String {
    const SOME: usize = 40;
    let lines: Vec<_> = log.lines().collect();
    let (earlier, last) = lines.split_at(lines.len().saturating_sub(SOME));
    let own: Vec<_> = earlier.iter().filter(|line| !line.contains(r#""logger":"nats-server""#)).copied().collect();
    [&own[own.len().saturating_sub(SOME)..], last].concat().join("\n")
}
