//! Starts that are refused: the exit code, the message, and nothing done.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::support::*;

/// The exit code and everything printed by a start that ends by itself.
fn refused(broker: &Broker) -> (Option<i32>, String) {
    let output = broker.output(&["run", "--log-format", "text"]);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// What a start would leave behind.
fn left_behind(broker: &Broker) -> Vec<String> {
    let entries = std::fs::read_dir(broker.directory.path()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn invalid_settings_are_all_told_and_nothing_is_written() {
    let mut broker = Broker::new();
    broker.set("NATS_PORT", "99999").set("JETSTREAM_MAX_FILE", "10 bananas").set("NATS_AUTH_ENABLED", "true");
    broker.set("NATS_AUTH_TOKEN", "to\0ken".replace('\0', "\u{1}")).set("NATS_AUTH_USERNAME", "u");
    let (code, text) = refused(&broker);
    assert_eq!(code, Some(78), "{text}");
    for part in ["3 problems", "NATS_PORT", "10 bananas", "NATS_AUTH_TOKEN, NATS_AUTH_USERNAME"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(left_behind(&broker), Vec::<String>::new());
}

#[test]
fn a_server_that_cannot_be_run_is_69() {
    let mut broker = Broker::new();
    let script = broker.path("old-server");
    std::fs::write(&script, "#!/bin/sh\necho nats-server: v2.9.25\n").unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let elf = broker.path("other-machine");
    std::fs::write(&elf, b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xf3\0").unwrap();
    std::fs::set_permissions(&elf, PermissionsExt::from_mode(0o755)).unwrap();
    let plain = broker.path("plain-file");
    std::fs::write(&plain, "").unwrap();
    std::fs::set_permissions(&plain, PermissionsExt::from_mode(0o644)).unwrap();
    for (bin, expected) in [
        ("/nonexistent/nats-server", "No such file"),
        ("no-such-nats-server", "cannot find \"no-such-nats-server\" in PATH"),
        (plain.to_str().unwrap(), "not executable (mode 0644)"),
        (elf.to_str().unwrap(), "not a program for this machine"),
        (script.to_str().unwrap(), "version 2.9.25"),
    ] {
        broker.set("NATS_SERVER_BIN", bin);
        let (code, text) = refused(&broker);
        assert_eq!(code, Some(69), "{bin}: {text}");
        assert!(text.contains(expected) && text.contains("NATS_SERVER_BIN"), "{text}");
        assert!(!broker.path("run/nats.conf").exists(), "nothing is rendered for a server that is not there");
    }
}

#[test]
fn a_taken_port_is_69_and_names_the_process() {
    let mut broker = Broker::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let free = [broker.ports.nats, broker.ports.http, broker.ports.api];
    let variables = ["NATS_PORT", "NATS_HTTP_PORT", "API_PORT"];
    for (variable, free) in variables.into_iter().zip(free) {
        broker.set(variable, port);
        let (code, text) = refused(&broker);
        broker.set(variable, free);
        assert_eq!(code, Some(69), "{text}");
        let owner = format!("process {} (", std::process::id());
        for part in [variable, &port.to_string(), &owner] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

#[test]
fn a_store_that_cannot_be_used_is_78() {
    let mut broker = Broker::new();
    let file = broker.path("file");
    std::fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        broker.set("JETSTREAM_STORE_DIR", path.display());
        let (code, text) = refused(&broker);
        assert_eq!(code, Some(78), "{text}");
        assert!(text.contains("JETSTREAM_STORE_DIR"), "{text}");
    }
}

#[test]
fn a_store_that_cannot_be_written_tells_owner_mode_and_user() {
    if is_root() {
        // Root may write anywhere but on a read-only file system.
        let mut broker = Broker::new();
        broker.set("JETSTREAM_STORE_DIR", "/proc/sys");
        let (code, text) = refused(&broker);
        assert_eq!(code, Some(78), "{text}");
        assert!(text.contains("/proc/sys"), "{text}");
        return as_nobody();
    }
    let mut broker = Broker::new();
    broker.set("JETSTREAM_STORE_DIR", "/etc");
    let (code, text) = refused(&broker);
    assert_eq!(code, Some(78), "{text}");
    assert!(text.contains("belongs to 0:0 with mode 0755"), "{text}");
}

fn as_nobody() {
    use std::os::unix::process::CommandExt;
    let mut broker = Broker::new();
    std::fs::set_permissions(broker.directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    broker.set("JETSTREAM_STORE_DIR", "/etc").set("NATS_CONFIG_FILE", "");
    // The program may lie where only root can go, so a copy is run.
    let program = broker.path("unified-nats");
    std::fs::copy(PROGRAM, &program).unwrap();
    let mut command = broker.command_of(&program, &[]);
    let output = command.uid(65534).gid(65534).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains("/etc is not writable") && text.contains("runs as 65534:65534"), "{text}");

    // What an incomplete chown leaves: the top belongs to us, the rest does not.
    let store = broker.store();
    std::fs::create_dir_all(store.join("jetstream")).unwrap();
    std::fs::set_permissions(store.join("jetstream"), PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(&store, Some(65534), Some(65534)).unwrap();
    command.env("JETSTREAM_STORE_DIR", &store);
    let output = command.uid(65534).gid(65534).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains("store/jetstream is not writable") && text.contains("belongs to 0:0"), "{text}");
}

#[test]
fn a_cluster_over_a_standalone_store_is_78_and_nothing_is_touched() {
    let mut broker = Broker::new();
    broker.start();
    block_on(async { JetStream(broker.client().await).publish(SUBJECTS[0], "precious").await });
    assert_eq!(broker.stop(), Some(0));

    broker.set("NATS_CLUSTER_ENABLED", "true").set("NATS_CLUSTER_ROUTES", "nats-route://127.0.0.1:1");
    let (code, text) = refused(&broker);
    assert_eq!(code, Some(78), "{text}");
    assert!(text.contains("MARKET_DATA") && text.contains("NATS_CLUSTER_ENABLED=false"), "{text}");

    broker.set("NATS_CLUSTER_ENABLED", "false").start();
    let subject = block_on(async { JetStream(broker.client().await).subject_of("MARKET_DATA", 1).await });
    assert_eq!(subject, SUBJECTS[0]);
}

#[test]
fn a_wrong_command_line_is_64() {
    let broker = Broker::new();
    for arguments in
        [&["fly"][..], &["health-check", "everything"], &["run", "--fast"], &["health-check", "--timeout", "x"]]
    {
        assert_eq!(broker.output(arguments).status.code(), Some(64), "{arguments:?}");
    }
}

#[test]
fn a_store_that_another_broker_has_is_refused() {
    let mut first = Broker::new();
    first.start();
    let mut second = Broker::new();
    second.set("JETSTREAM_STORE_DIR", first.store().display());
    let output = second.output(&["run"]);
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(69), "{text}");
    assert!(text.contains("another broker has it"), "{text}");
    for pid in [first.pid(), first.server_pid()] {
        assert!(text.contains(&format!("process {pid}, ")), "{pid}: {text}");
    }
    assert_eq!(first.state(), "ready");
    assert_eq!(first.stop(), Some(0));
}

#[test]
fn a_process_that_a_killed_broker_has_left_behind_is_named() {
    let mut broker = Broker::new();
    let (script, left) = (broker.path("server.sh"), broker.path("pid"));
    // It hangs after its version, and what it has started outlives it.
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && exec {0} --version\n[ \"$1\" = -v ] && exec {0} -v\nsleep 600 &\necho $! > {1}\nwait\n",
        nats_server(CURRENT).display(),
        left.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    broker.set("NATS_SERVER_BIN", script.display()).launch();
    let pid = wait_for("it is started", || std::fs::read_to_string(&left).ok()?.trim().parse::<i32>().ok());
    let pid = nix::unistd::Pid::from_raw(pid);
    broker.signal(nix::sys::signal::Signal::SIGKILL);
    broker.wait();
    let output = broker.output(&["run"]);
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(output.status.code(), Some(69), "{text}");
    assert!(text.contains(&format!("process {pid}, sleep")) && text.contains("end that process"), "{text}");
    broker.set("NATS_SERVER_BIN", nats_server(CURRENT).display()).start();
    assert_eq!(broker.stop(), Some(0));
}
