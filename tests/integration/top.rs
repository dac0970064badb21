//! `top` in a terminal, and without one.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::Pid;
use serde_json::json;

use crate::support::*;

/// A program in a terminal of its own.
struct InTerminal {
    child: Child,
    master: std::fs::File,
    slave: std::os::fd::OwnedFd,
    before: Termios,
    written: Arc<Mutex<Vec<u8>>>,
}

impl InTerminal {
    fn start(broker: &Broker, arguments: &[&str]) -> Self {
        Self::start_with(broker.command(arguments))
    }

    fn start_with(mut command: std::process::Command) -> Self {
        let size = Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let before = tcgetattr(pty.slave.as_fd()).unwrap();
        let end = || pty.slave.try_clone().unwrap();
        // In a group of its own, as a shell starts it.
        let child = command.stdin(end()).stdout(end()).stderr(end()).process_group(0).spawn().unwrap();
        let master = std::fs::File::from(pty.master);
        let written = Arc::new(Mutex::new(vec![]));
        let (mut reading, heard) = (master.try_clone().unwrap(), written.clone());
        // It ends with the terminal, or with the test.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = reading.read(&mut buffer) {
                heard.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        Self { child, master, slave: pty.slave, before, written }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    /// What stands on the screen. Only what has changed is written, to where it belongs.
    fn screen(&self) -> String {
        let text = self.text();
        let mut lines = vec![vec![' '; 120]; 40];
        let (mut y, mut x) = (0, 0);
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            if character != '\u{1b}' {
                if let Some(cell) = lines.get_mut(y).and_then(|line| line.get_mut(x)) {
                    *cell = character;
                }
                x += 1;
            } else if characters.next_if_eq(&'[').is_some() {
                let mut numbers = String::new();
                while let Some(number) = characters.next_if(|next| !next.is_ascii_alphabetic()) {
                    numbers.push(number);
                }
                match characters.next() {
                    Some('H') => {
                        let place: Vec<usize> = numbers.split(';').filter_map(|number| number.parse().ok()).collect();
                        (y, x) = (place.first().map_or(0, |y| y - 1), place.get(1).map_or(0, |x| x - 1));
                    }
                    Some('J') => lines = vec![vec![' '; 120]; 40],
                    _ => {}
                }
            }
        }
        lines.into_iter().map(|line| line.into_iter().collect::<String>()).collect::<Vec<_>>().join("\n")
    }

    fn wait_for_text(&self, text: &str) {
        wait_for(text, || self.screen().contains(text).then_some(()));
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    fn wait_until_stopped(&self) {
        let stat = format!("/proc/{}/stat", self.child.id());
        wait_for("it is stopped", || {
            let stat = std::fs::read_to_string(&stat).unwrap();
            stat.rsplit(')').next().unwrap().trim_start().starts_with('T').then_some(())
        });
    }

    fn is_ours(&self) -> bool {
        !tcgetattr(self.slave.as_fd()).unwrap().local_flags.contains(LocalFlags::ECHO)
    }

    /// Waits until it has the terminal and has drawn since the last `earlier` bytes.
    fn wait_until_drawn_after(&self, earlier: usize) {
        wait_for("it is drawn again", || {
            let later = String::from_utf8_lossy(&self.written.lock().unwrap()[earlier..]).into_owned();
            let entered = later.find("\u{1b}[?1049h")?;
            (self.is_ours() && later[entered..].contains("MARKET_DATA")).then_some(())
        });
    }

    fn type_in(&mut self, keys: &[u8]) {
        self.master.write_all(keys).unwrap();
    }

    /// Waits for its end; the terminal must be as it was.
    fn ended(mut self) -> ExitStatus {
        let status = wait_for("it ends", || self.child.try_wait().unwrap());
        let text = self.text();
        let after = tcgetattr(self.slave.as_fd()).unwrap();
        assert_eq!(after.local_flags, self.before.local_flags, "{text}");
        assert!(after.local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO));
        wait_for("the picture is gone", || {
            let text = self.text();
            let (left, drawn) = (text.rfind("\u{1b}[?1049l"), text.rfind("quits"));
            (left > drawn && text.rfind("\u{1b}[?25h") > text.rfind("\u{1b}[?25l")).then_some(())
        });
        status
    }
}

impl Drop for InTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn create_stream(broker: &Broker, name: &str) {
    let jetstream = JetStream(broker.client().await);
    let made =
        jetstream.ask(&format!("$JS.API.STREAM.CREATE.{name}"), json!({ "name": name, "subjects": [name] })).await;
    assert!(made["error"].is_null(), "{made}");
}

#[test]
fn it_follows_the_broker_and_quits() {
    let mut broker = Broker::new();
    broker.start();
    block_on(async { JetStream(broker.client().await).publish(SUBJECTS[1], "x").await });
    let mut top = InTerminal::start(&broker, &["top"]);
    for text in ["MARKET_DATA", "volatility_index", "nats-server up", "restarts 0", "q quits"] {
        top.wait_for_text(text);
    }
    assert!(!tcgetattr(top.slave.as_fd()).unwrap().local_flags.contains(LocalFlags::ECHO));
    block_on(create_stream(&broker, "THIS_CAME_LATER"));
    top.wait_for_text("THIS_CAME_LATER");
    // A broker that goes and comes back is followed.
    assert_eq!(broker.stop(), Some(0));
    top.wait_for_text("no answer");
    broker.start();
    top.wait_for_text("   ready for ");
    top.type_in(b"xq");
    assert_eq!(top.ended().code(), Some(0));
}

#[test]
fn ctrl_c_and_signals_give_the_terminal_back() {
    let mut broker = Broker::new();
    broker.start();
    let mut top = InTerminal::start(&broker, &["top"]);
    top.wait_for_text("MARKET_DATA");
    top.type_in(b"\x03");
    assert_eq!(top.ended().code(), Some(0));
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let top = InTerminal::start(&broker, &["top"]);
        top.wait_for_text("MARKET_DATA");
        kill(Pid::from_raw(top.child.id() as i32), signal).unwrap();
        assert_eq!(top.ended().signal(), Some(signal as i32));
    }
}

#[test]
fn ctrl_z_gives_the_terminal_back_until_it_goes_on() {
    let mut broker = Broker::new();
    broker.start();
    let mut top = InTerminal::start(&broker, &["top"]);
    top.wait_for_text("MARKET_DATA");
    top.type_in(b"\x1a");
    top.wait_until_stopped();
    assert!(!top.is_ours());
    wait_for("the picture is gone", || {
        let text = top.text();
        (text.rfind("\u{1b}[?1049l") > text.rfind("\u{1b}[?1049h")).then_some(())
    });
    let earlier = top.written.lock().unwrap().len();
    top.signal(Signal::SIGCONT);
    top.wait_until_drawn_after(earlier);
    // A shell sets the terminal as it likes it when others stop what it runs.
    top.signal(Signal::SIGSTOP);
    top.wait_until_stopped();
    tcsetattr(top.slave.as_fd(), SetArg::TCSANOW, &top.before).unwrap();
    let earlier = top.written.lock().unwrap().len();
    top.signal(Signal::SIGCONT);
    top.wait_until_drawn_after(earlier);
    top.type_in(b"q");
    assert_eq!(top.ended().code(), Some(0));
}

#[test]
fn terminals_that_can_less_are_given_less() {
    let mut broker = Broker::new();
    broker.start();
    let started = |name: &str, value: Option<&str>| {
        let mut command = broker.command(&["top"]);
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
        InTerminal::start_with(command)
    };
    let has_colours = |text: &str| text.contains("\u{1b}[38;5;") || text.contains(";38;5;");
    for (name, value, is_coloured) in [("NO_COLOR", Some("1"), false), ("TERM", None, true)] {
        let mut top = started(name, value);
        top.wait_for_text("ready for");
        assert_eq!(has_colours(&top.text()), is_coloured, "{name} {:?}", top.text());
        top.type_in(b"q");
        assert_eq!(top.ended().code(), Some(0));
    }
    let mut dumb = started("TERM", Some("dumb"));
    let status = wait_for("it ends", || dumb.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(64));
    wait_for("it says why", || dumb.text().contains("TERM=dumb").then_some(()));
    assert!(!dumb.text().contains('\u{1b}'), "{}", dumb.text());
}

#[test]
fn a_broker_that_hangs_keeps_nobody_from_quitting() {
    let mut broker = Broker::new();
    broker.start();
    let mut top = InTerminal::start(&broker, &["top", "--timeout", "60"]);
    top.wait_for_text("MARKET_DATA");
    broker.signal(Signal::SIGSTOP);
    top.type_in(b"q");
    assert_eq!(top.ended().code(), Some(0));
    broker.signal(Signal::SIGCONT);
}

/// One picture as text that has all of it: one of a busy machine lacks what took too long to find out.
fn picture(broker: &Broker, has_all: impl Fn(&str) -> bool) -> String {
    let mut last = String::new();
    let deadline = std::time::Instant::now() + PATIENCE;
    while !has_all(&last) {
        assert!(std::time::Instant::now() < deadline, "something is missing:\n{last}");
        let output = broker.output(&["top", "--once"]);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        last = String::from_utf8(output.stdout).unwrap();
    }
    last
}

#[test]
fn one_picture_is_text() {
    let mut broker = Broker::new();
    broker.start();
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        for _ in 0..3 {
            jetstream.publish(SUBJECTS[1], "x").await;
        }
        let request =
            json!({ "stream_name": "MARKET_DATA", "config": { "durable_name": "reader", "ack_policy": "explicit" } });
        jetstream.ask("$JS.API.CONSUMER.DURABLE.CREATE.MARKET_DATA.reader", request).await;
    });
    let says = |text: &str, begins: &str, at: usize, word: &str| {
        let line = text.lines().find(|line| line.starts_with(begins)).unwrap_or_default();
        line.split_whitespace().nth(at) == Some(word)
    };
    let text = picture(&broker, |text| {
        [("trade", 2, "3"), ("MARKET_DATA", 2, "3"), ("reader", 1, "MARKET_DATA"), ("reader", 2, "3")]
            .into_iter()
            .all(|(begins, at, word)| says(text, begins, at, word))
    });
    assert!(!text.contains('\u{1b}'), "{text}");
    assert!(text.lines().any(|line| line.starts_with("unified-nats") && line.contains(" ready ")), "{text}");
}

#[test]
fn it_is_let_in_where_somebody_has_to_be() {
    let token: &[(&str, &str)] = &[("API_TOKEN", "full-token-of-the-api")];
    let reading: &[(&str, &str)] = &[("API_TOKEN", "full-token-of-the-api"), ("API_READ_TOKEN", "token-for-reading")];
    let users: &[(&str, &str)] = &[
        ("NATS_AUTH_ENABLED", "true"),
        ("NATS_AUTH_USERNAME", "tester"),
        ("NATS_AUTH_PASSWORD", "a-long-password-of-a-test"),
    ];
    let nats_token: &[(&str, &str)] = &[("NATS_AUTH_ENABLED", "true"), ("NATS_AUTH_TOKEN", "a-long-token-of-a-test")];
    for settings in [token, reading, users, nats_token] {
        let mut broker = Broker::new();
        for (name, value) in settings {
            broker.set(name, value);
        }
        broker.start();
        let text = picture(&broker, |text| text.contains("\nMARKET_DATA"));
        assert!(!text.contains("\n! "), "{settings:?} {text}");
        for (_, secret) in settings {
            assert!(*secret == "true" || !text.contains(secret), "{text}");
        }
    }
}

#[test]
fn it_says_whom_it_cannot_log_in_as() {
    let mut broker = Broker::new();
    let users = broker.path("users.yml");
    let hash = "$2a$04$ZsHR3dPYwBhYz0ZyXDbIheQQf0.nkJXmMxOJZJUjHaV3o5xVDxZ9u";
    std::fs::write(&users, json!({ "users": [{ "user": "tester", "password": hash }] }).to_string()).unwrap();
    broker.set("NATS_AUTH_ENABLED", "true").set("NATS_USERS_FILE", users.display()).start();
    let output = broker.output(&["top", "--once"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\n! cannot log in to the API: ") && text.contains("API_READ_TOKEN"), "{text}");
    assert!(text.contains("ready for"), "{text}");
}

#[test]
fn it_says_what_it_cannot() {
    let broker = Broker::new();
    let output = broker.output(&["top"]);
    assert_eq!(output.status.code(), Some(64));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(
        words.contains("no terminal") && words.contains("docker exec -it") && words.contains("top --once"),
        "{words}"
    );
    let output = broker.output(&["top", "--once"]);
    assert_eq!(output.status.code(), Some(69));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.starts_with("cannot show the broker: cannot reach http://127.0.0.1:"), "{words}");
}

#[test]
fn it_ends_with_a_terminal_that_is_closed() {
    let mut broker = Broker::new();
    broker.start();
    let pty = openpty(&Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 }, None).unwrap();
    // Who has both ends keeps the terminal open.
    for fd in [&pty.master, &pty.slave] {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    }
    let end = || pty.slave.try_clone().unwrap();
    let mut child = broker.command(&["top"]).stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    let mut screen = std::fs::File::from(pty.master);
    let (mut text, mut buffer) = (vec![], [0; 4096]);
    while !String::from_utf8_lossy(&text).contains("MARKET_DATA") {
        let length = screen.read(&mut buffer).unwrap();
        text.extend_from_slice(&buffer[..length]);
    }
    drop((screen, pty.slave));
    let status = wait_for("it ends", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(1), "{status}");
}

#[test]
fn who_is_no_broker_is_none() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut broker = Broker::new();
    broker.set("API_PORT", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let _ = connection.read(&mut [0; 4096]);
            let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nup 1");
        }
    });
    let output = broker.output(&["top", "--once"]);
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(69), 0), "{words}");
    assert!(words.starts_with("cannot show the broker: http://127.0.0.1:"), "{words}");
}

#[test]
fn without_the_api_the_port_for_metrics_is_asked() {
    let mut broker = Broker::new();
    let port = broker.ports.cluster;
    broker.set("API_ENABLED", "false").set("PROMETHEUS_ENABLED", "true").set("PROMETHEUS_HOST", "127.0.0.1");
    broker.set("PROMETHEUS_PORT", port).set("PROMETHEUS_PREFIX", "nats").start();
    picture(&broker, |text| text.contains("\nMARKET_DATA") && text.contains("connections"));
    assert_eq!(broker.stop(), Some(0));
    let mut neither = Broker::new();
    neither.set("API_ENABLED", "false").start();
    let output = neither.output(&["top", "--once"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("set API_ENABLED or PROMETHEUS_ENABLED to true"), "{text}");
}
