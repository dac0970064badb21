//! Files of streams of every kind damaged while nothing ran, after a clean stop and after a kill of
//! everything: told of each kind where messages are gone, and not where none are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::kinds::{KINDS, Kind, MESSAGES, fill, wait_until_seen};
use crate::harness::{Run, dose, is_full, wait_within};
use crate::support::Broker;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    FlipInTheMiddle,
    FlipAtTheEnd,
    CutTheFirst,
    CutTheLast,
    RemoveTheFirst,
    RemoveTheMiddle,
    RemoveTheLast,
    RemoveAll,
    RemoveTheIndex,
    RemoveTheStream,
    RestoreAnOlderCopy,
    FlipWithoutIndex,
}

use Damage::*;

const DAMAGES: [Damage; 12] = [
    FlipInTheMiddle,
    FlipAtTheEnd,
    CutTheFirst,
    CutTheLast,
    RemoveTheFirst,
    RemoveTheMiddle,
    RemoveTheLast,
    RemoveAll,
    RemoveTheIndex,
    RemoveTheStream,
    RestoreAnOlderCopy,
    FlipWithoutIndex,
];

impl Damage {
    fn costs_nothing(self) -> bool {
        self == RemoveTheIndex
    }

    /// Whether it must be told. After a kill nobody has written down what was left: of a stream that
    /// dwindles by itself only an end that goes backwards, or its absence, shows then.
    fn is_told(self, kind: &Kind, killed: bool) -> bool {
        let is_at_the_end = matches!(
            self,
            FlipAtTheEnd | CutTheLast | RemoveTheLast | RemoveAll | RemoveTheStream | RestoreAnOlderCopy
        );
        // An older copy bears its own times, and 2.10 may forget an end by itself.
        if self == RestoreAnOlderCopy && killed && kind.dwindles && crate::harness::server().starts_with("2.10.") {
            return false;
        }
        let rebuilt = killed || self == FlipWithoutIndex;
        !self.costs_nothing() && (is_at_the_end || !(rebuilt && kind.dwindles))
            || (kind.dwindles && !killed && !matches!(self, FlipWithoutIndex | RemoveTheIndex))
    }

    fn inflict(self, directory: &Path, older: &Path) {
        let messages = directory.join("msgs");
        let blocks = blocks(&messages);
        let (first, last) = (&blocks[0], &blocks[blocks.len() - 1]);
        let cut = |path: &Path| {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        };
        match self {
            // A place in the payload of a message.
            FlipInTheMiddle => flip(first, fs::metadata(first).unwrap().len() / 2),
            FlipAtTheEnd => flip(last, fs::metadata(last).unwrap().len() - 500),
            CutTheFirst => cut(first),
            CutTheLast => cut(last),
            RemoveTheFirst => fs::remove_file(first).unwrap(),
            RemoveTheMiddle => fs::remove_file(&blocks[blocks.len() / 2]).unwrap(),
            RemoveTheLast => fs::remove_file(last).unwrap(),
            RemoveAll => blocks.iter().for_each(|block| fs::remove_file(block).unwrap()),
            // A server that was killed may not have written one yet.
            RemoveTheIndex => _ = fs::remove_file(messages.join("index.db")),
            RemoveTheStream => fs::remove_dir_all(directory).unwrap(),
            RestoreAnOlderCopy => {
                fs::remove_dir_all(directory).unwrap();
                copy(older, directory);
            }
            FlipWithoutIndex => {
                flip(first, fs::metadata(first).unwrap().len() / 2);
                let _ = fs::remove_file(messages.join("index.db"));
            }
        }
    }
}

fn blocks(messages: &Path) -> Vec<PathBuf> {
    let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
    let entries = fs::read_dir(messages).unwrap().flatten().map(|entry| entry.path());
    let mut blocks: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "blk")).collect();
    blocks.sort_by_key(number);
    blocks
}

fn flip(path: &Path, at: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at as usize] ^= 0x55;
    fs::write(path, bytes).unwrap();
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("--archive").args([from, to]).status().unwrap().success());
}

#[test]
fn damages_of_every_kind() {
    let mut run = Run::of("damages_of_every_kind");
    run.broker.set("HEALTH_PROBE_INTERVAL", "200ms").set("HEALTH_CHECK_INTERVAL", "500ms");
    let sound = Sound::make(&mut run);
    let mut cases: Vec<_> = DAMAGES.iter().flat_map(|damage| [(*damage, false), (*damage, true)]).collect();
    if !is_full() {
        run.choices.shuffle(&mut cases);
    }
    for (damage, killed) in cases.into_iter().cycle().take(dose(9, 2 * DAMAGES.len())) {
        sound.put_in_place(&run.broker, killed);
        for kind in &KINDS {
            let older = sound.older.join("jetstream/$G/streams").join(kind.stream);
            damage.inflict(&kind.directory(&run.broker), &older);
        }
        run.injected();
        run.broker.launch();
        let case = format!("{damage:?}, {}", if killed { "killed" } else { "stopped" });
        judge(&mut run, &case, damage, killed);
        let code = run.broker.stop();
        run.require(code == Some(0), || format!("{case}: the stop ended with {code:?}"));
    }
    run.finish_stopped();
}

/// What is wrong, once every stream is told that must be, or all is told to be well.
fn judge(run: &mut Run, case: &str, damage: Damage, killed: bool) {
    let told = |broker: &Broker, kind: &Kind| {
        let detail = broker.health()["checks"]["integrity"]["detail"].as_str().unwrap_or_default().to_owned();
        detail.contains(&format!("stream {}: ", kind.stream))
    };
    let expected: Vec<_> = KINDS.iter().filter(|kind| damage.is_told(kind, killed)).collect();
    let began = Instant::now();
    if expected.is_empty() {
        let healthy =
            wait_within(Duration::from_secs(30), || (run.broker.health()["status"] == "healthy").then_some(()));
        run.require(healthy.is_some(), || format!("{case}: not healthy"));
    }
    for kind in expected {
        let found = wait_within(Duration::from_secs(30), || told(&run.broker, kind).then_some(()));
        let health = run.broker.health();
        run.require(found.is_some(), || format!("{case}: {} is not told; {health}", kind.stream));
    }
    run.note_longest("longest_until_told_ms", began.elapsed());
    if damage.costs_nothing() {
        for kind in &KINDS {
            let is_told = told(&run.broker, kind);
            run.require(!is_told, || format!("{case}: {} is told, and nothing is missing", kind.stream));
        }
    }
}

/// Stores at rest.
struct Sound {
    /// With half of the messages.
    older: PathBuf,
    stopped: PathBuf,
    killed: PathBuf,
}

impl Sound {
    fn make(run: &mut Run) -> Self {
        let path = |name| run.broker.path(name);
        let sound = Self { older: path("older"), stopped: path("stopped"), killed: path("killed") };
        run.start();
        fill(&run.broker, 0..MESSAGES / 2);
        assert_eq!(run.broker.stop(), Some(0));
        copy(&run.broker.store(), &sound.older);
        run.start();
        fill(&run.broker, MESSAGES / 2..MESSAGES);
        wait_until_seen(&run.broker);
        run.broker.signal(Signal::SIGKILL);
        run.broker.wait();
        copy(&run.broker.store(), &sound.killed);
        run.start();
        assert_eq!(run.broker.stop(), Some(0));
        copy(&run.broker.store(), &sound.stopped);
        sound
    }

    fn put_in_place(&self, broker: &Broker, killed: bool) {
        fs::remove_dir_all(broker.store()).unwrap();
        copy(if killed { &self.killed } else { &self.stopped }, &broker.store());
    }
}
