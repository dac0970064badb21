//! Files of streams of every kind damaged while nothing ran, after a clean stop and after a kill of
//! everything: told of each kind where messages are gone, and not where none are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fastrand::Rng;
use nix::sys::signal::Signal;

use crate::harness::kinds::{KINDS, Kind, MESSAGES, fill, wait_until_seen};
use crate::harness::{Run, dose, is_full, wait_within};
use crate::support::{Broker, block_on, wait_for};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    FlipInTheMiddle,
    FlipAtTheEnd,
    /// Where the length of a message stands.
    FlipALength,
    /// Where its sequence stands, with the bit that marks a message as erased.
    FlipASequence,
    /// As a disk leaves it that has not written everything.
    ZeroAPage,
    /// Over some messages at the end.
    Scribble,
    CutTheFirst,
    CutTheLast,
    RemoveTheFirst,
    RemoveTheMiddle,
    RemoveTheLast,
    RemoveAll,
    RemoveTheStream,
    RestoreAnOlderCopy,
    /// A copy that does not preserve times.
    Touch,
}

/// What becomes of the index besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Index {
    Kept,
    Removed,
    Damaged,
}

use Damage::*;

const DAMAGES: [Damage; 15] = [
    FlipInTheMiddle,
    FlipAtTheEnd,
    FlipALength,
    FlipASequence,
    ZeroAPage,
    Scribble,
    CutTheFirst,
    CutTheLast,
    RemoveTheFirst,
    RemoveTheMiddle,
    RemoveTheLast,
    RemoveAll,
    RemoveTheStream,
    RestoreAnOlderCopy,
    Touch,
];

const INDEXES: [Index; 3] = [Index::Kept, Index::Removed, Index::Damaged];

impl Damage {
    fn costs_nothing(self) -> bool {
        self == Touch
    }

    /// Whether it must be told. After a kill nobody has written down what was left: of a stream that
    /// dwindles by itself only an end that goes backwards, or its absence, shows then.
    fn is_told(self, kind: &Kind, index: Index, killed: bool) -> bool {
        let is_at_the_end = matches!(
            self,
            FlipAtTheEnd | CutTheLast | RemoveTheLast | RemoveAll | RemoveTheStream | RestoreAnOlderCopy
        );
        // An older copy bears its own times, and 2.10 may forget an end by itself.
        if self == RestoreAnOlderCopy && killed && kind.dwindles && crate::harness::server().starts_with("2.10.") {
            return false;
        }
        // A consumer has the server read the block before anybody looks, and the index has no say any more.
        if self == FlipASequence && index == Index::Kept && kind.has_consumer() {
            return false;
        }
        // What a server has left in order is known of every kind.
        !self.costs_nothing() && (!killed || is_at_the_end || !kind.dwindles)
    }

    fn inflict(self, index: Index, choices: &mut Rng, directory: &Path, older: &Path) {
        let messages = directory.join("msgs");
        let blocks = blocks(&messages);
        let (first, middle, last) = (&blocks[0], &blocks[blocks.len() / 2], &blocks[blocks.len() - 1]);
        let cut = |path: &Path| {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        };
        match self {
            // A place in the payload of a message.
            FlipInTheMiddle => flip(first, fs::metadata(first).unwrap().len() / 2),
            FlipAtTheEnd => flip(last, fs::metadata(last).unwrap().len() - 500),
            FlipALength => flip(middle, record(middle, 20)),
            // A number of eight bytes whose highest comes last.
            FlipASequence => flip_bits(middle, record(middle, 20) + 4 + 7, 0x80),
            ZeroAPage => zero(middle, 8 << 10, 4 << 10),
            Scribble => scribble(last, choices),
            CutTheFirst => cut(first),
            CutTheLast => cut(last),
            RemoveTheFirst => fs::remove_file(first).unwrap(),
            RemoveTheMiddle => fs::remove_file(middle).unwrap(),
            RemoveTheLast => fs::remove_file(last).unwrap(),
            RemoveAll => blocks.iter().for_each(|block| fs::remove_file(block).unwrap()),
            RemoveTheStream => fs::remove_dir_all(directory).unwrap(),
            RestoreAnOlderCopy => {
                fs::remove_dir_all(directory).unwrap();
                copy(older, directory);
            }
            Touch => blocks.iter().for_each(|block| fs::write(block, fs::read(block).unwrap()).unwrap()),
        }
        // A server that was killed may not have written one yet, and a stream may be gone.
        let path = messages.join("index.db");
        match index {
            Index::Damaged if path.exists() => flip(&path, fs::metadata(&path).unwrap().len() / 2),
            Index::Removed => _ = fs::remove_file(path),
            _ => {}
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
    flip_bits(path, at, 0x55);
}

fn flip_bits(path: &Path, at: u64, bits: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at as usize] ^= bits;
    fs::write(path, bytes).unwrap();
}

/// Writes other bytes over two messages at least, behind those that are gone.
fn scribble(path: &Path, choices: &mut Rng) {
    const LENGTH: usize = 6_000;
    let mut bytes = fs::read(path).unwrap();
    let from = choices.usize(bytes.len() / 2..bytes.len() - LENGTH);
    bytes[from..][..LENGTH].fill_with(|| choices.u8(..));
    fs::write(path, bytes).unwrap();
}

fn zero(path: &Path, from: usize, length: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[from..][..length].fill(0);
    fs::write(path, bytes).unwrap();
}

/// Where a message begins, counted from the beginning of the block: each one begins with its length.
fn record(block: &Path, number: usize) -> u64 {
    let bytes = fs::read(block).unwrap();
    let length = |at: usize| u32::from_le_bytes(bytes[at..][..4].try_into().unwrap()) as usize;
    (0..number).fold(0, |at, _| at + length(at)) as u64
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("--archive").args([from, to]).status().unwrap().success());
}

#[test]
fn damages_of_every_kind() {
    let mut run = Run::of("damages_of_every_kind");
    run.broker.set("HEALTH_PROBE_INTERVAL", "200ms").set("HEALTH_CHECK_INTERVAL", "500ms");
    let sound = Sound::make(&mut run);
    let ends = [false, true].into_iter().flat_map(|killed| INDEXES.map(|index| (index, killed)));
    let mut cases: Vec<_> = ends.flat_map(|(index, killed)| DAMAGES.map(|damage| (damage, index, killed))).collect();
    let all = cases.len();
    if !is_full() {
        run.choices.shuffle(&mut cases);
    }
    for (damage, index, killed) in cases.into_iter().cycle().take(dose(12, all)) {
        sound.put_in_place(&run.broker, killed);
        for kind in &KINDS {
            let older = sound.older.join("jetstream/$G/streams").join(kind.stream);
            damage.inflict(index, &mut run.choices, &kind.directory(&run.broker), &older);
        }
        run.injected();
        run.broker.launch();
        let case = format!("{damage:?}, index {index:?}, {}", if killed { "killed" } else { "stopped" });
        judge(&mut run, &case, damage, index, killed);
        let code = run.broker.stop();
        run.require(code == Some(0), || format!("{case}: the stop ended with {code:?}"));
    }
    run.finish_stopped();
}

/// What is wrong, once every stream is told that must be, or all is told to be well.
fn judge(run: &mut Run, case: &str, damage: Damage, index: Index, killed: bool) {
    let told = |broker: &Broker, kind: &Kind| {
        let detail = broker.health()["checks"]["integrity"]["detail"].as_str().unwrap_or_default().to_owned();
        detail.contains(&format!("stream {}: ", kind.stream))
    };
    let expected: Vec<_> = KINDS.iter().filter(|kind| damage.is_told(kind, index, killed)).collect();
    let began = Instant::now();
    if expected.is_empty() {
        let healthy =
            wait_within(Duration::from_secs(30), || (run.broker.health()["status"] == "healthy").then_some(()));
        run.require(healthy.is_some(), || format!("{case}: not healthy"));
    }
    let all_told = |broker: &Broker| expected.iter().all(|kind| told(broker, kind));
    // Each is looked at afterwards.
    let _ = wait_within(Duration::from_secs(30), || all_told(&run.broker).then_some(()));
    let health = run.broker.health();
    for kind in &expected {
        let is_told = told(&run.broker, kind);
        run.require(is_told, || format!("{case}: {} is not told; {health}", kind.stream));
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
        // Before the others come: who damages the record of a deletion costs no message.
        block_on(async {
            let client = run.broker.client().await;
            for kind in KINDS.iter().filter(|kind| kind.has_consumer()) {
                kind.acknowledge(&client, MESSAGES / 10).await.expect("a consumer with messages");
            }
        });
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
        let from = if killed { &self.killed } else { &self.stopped };
        if killed {
            // Damage within a second of the last sign of life cannot be told from the server's own end.
            let alive = from.join(".unified-nats-alive").metadata().unwrap().modified().unwrap();
            let is_old = || alive.elapsed().is_ok_and(|age| age > Duration::from_secs(1));
            wait_for("the last sign of life is old", || is_old().then_some(()));
        }
        copy(from, &broker.store());
    }
}
