//! A broker for one test, and waiting for conditions.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_unified-nats");
/// The version that the product ships with.
pub const CURRENT: &str = "2.15.1";
/// Long enough for a machine that is busy with other tests; no test waits it out when all is well.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The nats-server of that version that scripts/test.sh has installed.
pub fn nats_server(version: &str) -> PathBuf {
    let servers = std::env::var_os("UNIFIED_NATS_TEST_SERVERS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/nats-server"), PathBuf::from);
    let path = servers.join(version).join("nats-server");
    assert!(path.is_file(), "{} is missing: run scripts/test.sh, which installs it", path.display());
    path
}

/// What a test needs that not every machine gives. Under CI it must be there.
pub fn cannot_run(test: &str, reason: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{test} cannot run here: {reason}");
    eprintln!("SKIPPED {test}: {reason}");
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Waits until `look` gives something.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        // A poll, not a guess: the condition decides.
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub struct Ports {
    pub nats: u16,
    pub http: u16,
    pub api: u16,
    pub cluster: u16,
}

impl Ports {
    /// Free ones. The listeners are held until all are known, so that they differ; other tests run
    /// in processes of their own, so each process draws from a range of its own. What was drawn before is
    /// not drawn again, also where nobody listens there yet.
    pub fn free() -> Self {
        static LAST: Mutex<Option<u16>> = Mutex::new(None);
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held = Vec::new();
        let mut candidate = last.unwrap_or_else(|| 10_000 + (std::process::id() as u16).wrapping_mul(37) % 20_000);
        while held.len() < 4 {
            candidate = 10_000 + (candidate - 9_999) % 20_000;
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", candidate)) {
                held.push((candidate, listener));
            }
        }
        *last = Some(candidate);
        Self { nats: held[0].0, http: held[1].0, api: held[2].0, cluster: held[3].0 }
    }
}

/// Settings of one broker, and the broker while it runs.
pub struct Broker {
    pub directory: TempDir,
    pub ports: Ports,
    settings: Vec<(String, String)>,
    child: Option<Child>,
}

impl Broker {
    /// Not started yet.
    pub fn new() -> Self {
        Self::with_server(CURRENT)
    }

    pub fn with_server(version: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ports = Ports::free();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let settings = [
            ("NATS_SERVER_BIN", nats_server(version).to_str().unwrap().to_owned()),
            ("JETSTREAM_STORE_DIR", path("store")),
            ("NATS_CONFIG_FILE", path("run/nats.conf")),
            ("NATS_HOST", "127.0.0.1".into()),
            ("API_HOST", "127.0.0.1".into()),
            ("NATS_PORT", ports.nats.to_string()),
            ("NATS_HTTP_PORT", ports.http.to_string()),
            ("API_PORT", ports.api.to_string()),
            ("LOG_FORMAT", "json".into()),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Self { directory, ports, settings, child: None }
    }

    /// Sets a variable; set again it gets another value.
    pub fn set(&mut self, name: &str, value: impl ToString) -> &mut Self {
        self.settings.retain(|(other, _)| other != name);
        self.settings.push((name.into(), value.to_string()));
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// Our program with the settings and nothing else in its environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(PROGRAM, arguments)
    }

    /// Another program with the same environment.
    pub fn command_of(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(self.settings.iter().map(|(n, v)| (n, v)));
        command.current_dir(self.directory.path()).stdin(Stdio::null());
        command
    }

    /// Our program in namespaces of its own, as the arguments of `unshare` say; needs root.
    pub fn unshared(&self, arguments: &[&str]) -> Command {
        let mut unshare = self.command_of("unshare", arguments);
        unshare.args([PROGRAM, "run"]).env("PATH", "/usr/bin:/bin");
        unshare
    }

    /// Its settings as the program reads them.
    pub fn loaded(&self) -> unified_nats::settings::Settings {
        let pairs: Vec<_> = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let loaded = unified_nats::settings::Settings::load(&pairs.as_slice(), &[]);
        loaded.unwrap_or_else(|problems| panic!("{problems}")).settings
    }

    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Starts without waiting; standard output and error go to files.
    pub fn launch(&mut self) -> &mut Self {
        let mut command = self.command(&["run"]);
        let child = self.spawn(&mut command);
        self.child = Some(child);
        self
    }

    pub fn launch_as(&mut self, mut command: Command) {
        let child = self.spawn(&mut command);
        self.child = Some(child);
    }

    fn spawn(&self, command: &mut Command) -> Child {
        assert!(self.child.is_none(), "it runs already");
        let file = |name| fs::OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap();
        command.stdout(file("stdout")).stderr(file("stderr")).spawn().unwrap()
    }

    pub fn start(&mut self) -> &mut Self {
        self.launch();
        self.wait_until_ready();
        self
    }

    pub fn wait_until_ready(&mut self) {
        self.wait_until_ready_within(PATIENCE);
    }

    pub fn wait_until_ready_within(&mut self, patience: Duration) {
        let url = self.api("/readyz");
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("the broker ended with {status}\n{}", self.log());
            }
            let (status, body) = http_get(&url);
            if status == 200 {
                return;
            }
            assert!(Instant::now() < deadline, "{url}: {status} {body}, not 200 within {patience:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.as_ref().expect("it runs").id() as i32)
    }

    /// The nats-server below us.
    pub fn server_pid(&self) -> Pid {
        wait_for("nats-server runs", || self.servers().first().copied())
    }

    /// Those that were launched to serve. One that is only asked for its version is none of them, and
    /// may be there for a moment after it has answered.
    pub fn servers(&self) -> Vec<Pid> {
        let serves = |pid: &Pid| {
            let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            comm(*pid) == "nats-server" && arguments.contains("--config")
        };
        children_of(self.pid()).into_iter().filter(serves).collect()
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().expect("it runs").try_wait().unwrap().is_some()
    }

    /// Waits for its end; gives the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("it runs");
        let status = wait_for("the broker ends", || child.try_wait().unwrap());
        status.code()
    }

    pub fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    pub fn url(&self) -> String {
        format!("127.0.0.1:{}", self.ports.nats)
    }

    pub fn api(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports.api)
    }

    pub fn health(&self) -> serde_json::Value {
        serde_json::from_str(&http_get(&self.api("/health")).1).unwrap_or_default()
    }

    pub fn state(&self) -> String {
        self.health()["checks"]["nats_server"]["state"].as_str().unwrap_or_default().to_owned()
    }

    pub fn restarts(&self) -> Option<u64> {
        self.health()["checks"]["nats_server"]["restarts"].as_u64()
    }

    /// The files of MARKET_DATA.
    pub fn stream_directory(&self) -> PathBuf {
        self.store().join("jetstream/$G/streams/MARKET_DATA")
    }

    /// Everything it printed.
    pub fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.path(name)).unwrap_or_default();
        format!("{}{}", read("stdout"), read("stderr"))
    }

    pub async fn client(&self) -> async_nats::Client {
        async_nats::connect(self.url()).await.unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // nats-server follows: its death is tied to its parent's.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn http_client() -> reqwest::Client {
    unified_nats::nats::direct_client()
}

/// Status and body; 0 where nobody answers.
pub fn http_get(url: &str) -> (u16, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let answer = http_client().get(url).timeout(Duration::from_secs(5)).send().await;
        match answer {
            Ok(answer) => (answer.status().as_u16(), answer.text().await.unwrap_or_default()),
            Err(_) => (0, String::new()),
        }
    })
}

pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

pub fn children_of(parent: Pid) -> Vec<Pid> {
    let text = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}

pub fn comm(pid: Pid) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

pub fn is_alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Stops a process, and waits until none of its threads runs any more.
pub fn freeze(pid: Pid) {
    kill(pid, Signal::SIGSTOP).unwrap();
    let is_stopped = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
    };
    wait_for("it has stopped", || {
        let mut tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        tasks.all(is_stopped).then_some(())
    });
}

/// One subject of each family, as collectors use them.
pub const SUBJECTS: [&str; 8] = [
    "orderbook-data.binance_spot.spot.BTCUSDT",
    "trade-data.okx_derivatives.perpetual.BTC-USDT-SWAP",
    "funding-rate-data.binance_derivatives.perpetual.ETHUSDT",
    "open-interest-data.okx_derivatives.perpetual.BTC-USDT",
    "lsr-top-position-data.binance_derivatives.perpetual.BTCUSDT",
    "lsr-all-account-data.okx_derivatives.perpetual.BTC-USDT",
    "volatility_index-data.deribit_derivatives.options.BTC",
    "liquidation-data.binance_derivatives.perpetual.ETHUSDT",
];

/// JetStream as a client sees it, through the plain API.
pub struct JetStream(pub async_nats::Client);

impl JetStream {
    pub async fn ask(&self, subject: &str, request: serde_json::Value) -> serde_json::Value {
        let payload = if request.is_null() { Vec::new() } else { request.to_string().into_bytes() };
        let answer = self.0.request(subject.to_owned(), payload.into()).await;
        serde_json::from_slice(&answer.unwrap_or_else(|e| panic!("{subject}: {e}")).payload).unwrap()
    }

    /// Publishes; the sequence, or why it was not acknowledged.
    pub async fn try_publish(&self, subject: &str, payload: Vec<u8>) -> Result<u64, String> {
        let request = self.0.request(subject.to_owned(), payload.into());
        let answer = tokio::time::timeout(Duration::from_secs(2), request).await.map_err(|e| e.to_string())?;
        let answer = answer.map_err(|e| e.to_string())?;
        let answer: serde_json::Value = serde_json::from_slice(&answer.payload).map_err(|e| e.to_string())?;
        answer["seq"].as_u64().filter(|_| answer["error"].is_null()).ok_or_else(|| answer.to_string())
    }

    /// Publishes and waits for the acknowledgement; gives the sequence.
    pub async fn publish(&self, subject: &str, payload: &str) -> u64 {
        let answer = self.0.request(subject.to_owned(), payload.to_owned().into()).await;
        let answer: serde_json::Value = serde_json::from_slice(&answer.unwrap().payload).unwrap();
        answer["seq"].as_u64().unwrap_or_else(|| panic!("not acknowledged: {answer}"))
    }

    pub async fn info(&self, stream: &str) -> serde_json::Value {
        self.ask(&format!("$JS.API.STREAM.INFO.{stream}"), serde_json::Value::Null).await
    }

    /// What a snapshot holds: configuration and state, and its chunks.
    pub async fn snapshot(&self, stream: &str) -> (serde_json::Value, Vec<Vec<u8>>) {
        let inbox = self.0.new_inbox();
        let mut chunks = self.0.subscribe(inbox.clone()).await.unwrap();
        let request = serde_json::json!({ "deliver_subject": inbox, "chunk_size": 1024, "no_consumers": false });
        let taken = self.ask(&format!("$JS.API.STREAM.SNAPSHOT.{stream}"), request).await;
        assert!(taken["error"].is_null(), "{taken}");
        let mut archive = vec![];
        loop {
            let chunk = tokio::time::timeout(PATIENCE, chunks.next()).await.unwrap().unwrap();
            if chunk.payload.is_empty() {
                return (serde_json::json!({ "config": taken["config"], "state": taken["state"] }), archive);
            }
            archive.push(chunk.payload.to_vec());
            if let Some(reply) = chunk.reply {
                assert!(reply.starts_with("$JS.SNAPSHOT.ACK."), "{reply}");
                self.0.publish(reply, "".into()).await.unwrap();
            }
        }
    }

    /// Makes a stream of a snapshot; gives what the server answers at the end.
    pub async fn restore(&self, stream: &str, snapshot: &(serde_json::Value, Vec<Vec<u8>>)) -> serde_json::Value {
        let begun = self.ask(&format!("$JS.API.STREAM.RESTORE.{stream}"), snapshot.0.clone()).await;
        let subject = begun["deliver_subject"].as_str().unwrap_or_else(|| panic!("{begun}")).to_owned();
        assert!(subject.starts_with("$JS.SNAPSHOT.RESTORE."), "{subject}");
        for chunk in &snapshot.1 {
            self.0.request(subject.clone(), chunk.clone().into()).await.unwrap();
        }
        self.ask(&subject, serde_json::Value::Null).await
    }

    /// The subject of the message with that sequence.
    pub async fn subject_of(&self, stream: &str, seq: u64) -> String {
        let answer = self.ask(&format!("$JS.API.STREAM.MSG.GET.{stream}"), serde_json::json!({ "seq": seq })).await;
        answer["message"]["subject"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }
}

/// A file system of a test, gone with it.
pub struct Mounted(PathBuf);

impl Mounted {
    pub fn tmpfs(at: PathBuf, size: &str) -> Self {
        fs::create_dir_all(&at).unwrap();
        let mut mount = Command::new("mount");
        let status = mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&at).status();
        assert!(status.unwrap().success());
        Self(at)
    }

    pub fn fill(&self) {
        use std::io::Write;
        let mut file = fs::File::create(self.0.join("ballast")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    /// The directory mounted onto itself, so that it can be made read-only with files open in it.
    pub fn bind(at: &Path) -> Self {
        assert!(Command::new("mount").arg("--bind").args([at, at]).status().unwrap().success());
        Self(at.to_owned())
    }

    /// Takes room away, to be given back by [`Self::make_room`].
    pub fn ballast(&self, size: &str) {
        let mut fallocate = Command::new("fallocate");
        assert!(fallocate.args(["-l", size]).arg(self.0.join("ballast")).status().unwrap().success());
    }

    pub fn remount(&self, options: &str) {
        let mut mount = Command::new("mount");
        let status = mount.args(["-o", &format!("remount,{options}")]).arg(&self.0).status();
        assert!(status.unwrap().success());
    }

    pub fn make_room(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: the broker of the test may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
