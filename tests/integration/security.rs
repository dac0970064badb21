//! Who gets in, and what is told to nobody.

use std::path::Path;

use async_nats::ConnectOptions;

use crate::support::*;

const PASSWORD: &str = "correct horse \"battery\" $staple}";

/// Whether a client gets in.
pub fn admits(broker: &Broker, options: ConnectOptions) -> bool {
    block_on(async { options.connect(broker.url()).await.is_ok() })
}

pub fn is_healthy(broker: &Broker) {
    for kind in ["quick", "full"] {
        let output = broker.output(&["health-check", kind]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn a_password_lets_in_who_knows_it() {
    let mut broker = Broker::new();
    broker.set("NATS_AUTH_ENABLED", "true").set("NATS_AUTH_USERNAME", "market").set("NATS_AUTH_PASSWORD", PASSWORD);
    broker.start();
    let user = |password: &str| ConnectOptions::with_user_and_password("market".into(), password.into());
    assert!(admits(&broker, user(PASSWORD)));
    assert!(!admits(&broker, user("correct")));
    assert!(!admits(&broker, ConnectOptions::new()));
    is_healthy(&broker);
}

#[test]
fn a_password_that_looks_like_a_hash_is_a_password() {
    // The hash of "secret": nats-server alone would admit "secret" and not the text itself.
    let hash = "$2a$04$ZsHR3dPYwBhYz0ZyXDbIheQQf0.nkJXmMxOJZJUjHaV3o5xVDxZ9u";
    let mut broker = Broker::new();
    broker.set("NATS_AUTH_ENABLED", "true").set("NATS_AUTH_TOKEN", hash).start();
    assert!(admits(&broker, ConnectOptions::with_token(hash.into())));
    assert!(!admits(&broker, ConnectOptions::with_token("secret".into())));
    is_healthy(&broker);
}

#[test]
fn a_token_from_a_file_lets_in_who_knows_it() {
    let mut broker = Broker::new();
    let file = broker.path("token");
    std::fs::write(&file, "12345\n").unwrap();
    broker.set("NATS_AUTH_ENABLED", "true").set("NATS_AUTH_TOKEN_FILE", file.display()).start();
    assert!(admits(&broker, ConnectOptions::with_token("12345".into())));
    assert!(!admits(&broker, ConnectOptions::with_token("12346".into())));
    is_healthy(&broker);
}

#[test]
fn secrets_appear_nowhere() {
    let secret = "tell-nobody-7341";
    let mut broker = Broker::new();
    broker.set("NATS_AUTH_ENABLED", "true").set("NATS_AUTH_USERNAME", "u").set("NATS_AUTH_PASSWORD", secret);
    broker.set("API_TOKEN", secret).set("NATS_DEBUG", "true").start();
    let server = broker.server_pid();
    for name in ["cmdline", "environ"] {
        let text = std::fs::read(format!("/proc/{server}/{name}")).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains(secret), "{name}");
    }
    for arguments in [
        &["config", "show"][..],
        &["config", "show", "--json"],
        &["config", "render"],
        &["config", "validate", "--json"],
        &["health-check", "full", "--json"],
    ] {
        let output = broker.output(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        let text = [output.stdout, output.stderr].concat();
        assert!(!String::from_utf8_lossy(&text).contains(secret), "{arguments:?}");
    }
    assert!(!broker.health().to_string().contains(secret));
    assert_eq!(broker.stop(), Some(0));
    assert!(!broker.log().contains(secret));
}

#[test]
fn the_child_gets_no_environment_but_what_is_meant_for_it() {
    let mut broker = Broker::new();
    broker.set("GOMEMLIMIT", "800MiB").set("HOME", "/nonexistent").start();
    let environ = std::fs::read(format!("/proc/{}/environ", broker.server_pid())).unwrap();
    assert_eq!(String::from_utf8(environ).unwrap(), "GOMEMLIMIT=800MiB\0");
}

#[test]
fn nats_conf_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let mut broker = Broker::new();
    broker.start();
    let mode = std::fs::metadata(broker.path("run/nats.conf")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// A certificate authority and what it signed, as PEM files.
pub struct Authority {
    params: rcgen::CertificateParams,
    key: rcgen::KeyPair,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self { params, key: rcgen::KeyPair::generate().unwrap() }
    }

    pub fn write(&self, directory: &Path, name: &str) -> std::path::PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, self.params.self_signed(&self.key).unwrap().pem()).unwrap();
        path
    }

    /// Writes FILE.crt and FILE.key, made out to `name`, for that use only, valid until `days` from now.
    pub fn issue(&self, directory: &Path, file: &str, name: &str, usage: rcgen::ExtendedKeyUsagePurpose, days: u64) {
        let mut params = rcgen::CertificateParams::new(vec![name.into()]).unwrap();
        params.extended_key_usages = vec![usage];
        let until = std::time::SystemTime::now() + std::time::Duration::from_secs(days * 86400);
        let since = until - std::time::Duration::from_secs(30 * 86400);
        (params.not_before, params.not_after) = (since.into(), until.into());
        let key = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::Issuer::from_params(&self.params, &self.key);
        let cert = params.signed_by(&key, &issuer).unwrap();
        std::fs::write(directory.join(format!("{file}.crt")), cert.pem()).unwrap();
        std::fs::write(directory.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }
}

pub fn with_tls(name: &str, days: u64) -> (Broker, Authority) {
    let mut broker = Broker::new();
    let authority = Authority::new();
    authority.issue(broker.directory.path(), "server", name, rcgen::ExtendedKeyUsagePurpose::ServerAuth, days);
    let (cert, key) = (broker.path("server.crt"), broker.path("server.key"));
    broker.set("NATS_TLS_ENABLED", "true").set("NATS_TLS_CERT", cert.display()).set("NATS_TLS_KEY", key.display());
    (broker, authority)
}

#[test]
fn tls_lets_in_who_speaks_it() {
    let (mut broker, authority) = with_tls("127.0.0.1", 29);
    let ca = authority.write(broker.directory.path(), "ca.pem");
    broker.start();
    is_healthy(&broker);
    let trusting = || ConnectOptions::new().require_tls(true).add_root_certificates(ca.clone());
    assert!(admits(&broker, trusting()));
    assert!(!admits(&broker, ConnectOptions::new().require_tls(true)), "a client that does not trust the authority");
    let plain = block_on(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(broker.url()).await.unwrap();
        stream.write_all(b"CONNECT {}\r\nPING\r\n").await.unwrap();
        let mut answer = Vec::new();
        // The server hangs up; that may reset the connection.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    });
    assert!(!plain.contains("PONG"), "a client without TLS: {plain}");
}

#[test]
fn our_own_connection_knows_a_certificate_made_out_to_another_name() {
    let (mut broker, _) = with_tls("nats.example.org", 29);
    broker.start();
    is_healthy(&broker);
}

#[test]
fn a_renewed_certificate_is_served_and_trusted_after_a_restart_of_the_server() {
    let (mut broker, authority) = with_tls("127.0.0.1", 29);
    broker.start();
    authority.issue(broker.directory.path(), "server", "127.0.0.1", rcgen::ExtendedKeyUsagePurpose::ServerAuth, 29);
    nix::sys::signal::kill(broker.server_pid(), nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_for("ready again", || {
        let health = broker.health();
        let server = &health["checks"]["nats_server"];
        (server["restarts"] == 1 && server["state"] == "ready").then_some(())
    });
    is_healthy(&broker);
}

#[test]
fn client_certificates_are_asked_for_and_our_own_is_accepted() {
    let (mut broker, authority) = with_tls("127.0.0.1", 29);
    let ca = authority.write(broker.directory.path(), "ca.pem");
    broker.set("NATS_TLS_CA", ca.display()).set("NATS_TLS_VERIFY", "true").start();
    is_healthy(&broker);
    let client_auth = rcgen::ExtendedKeyUsagePurpose::ClientAuth;
    authority.issue(broker.directory.path(), "client", "collector", client_auth.clone(), 29);
    Authority::new().issue(broker.directory.path(), "stranger", "collector", client_auth, 29);
    let trusting = || ConnectOptions::new().require_tls(true).add_root_certificates(ca.clone());
    let with = |name: &str| {
        let [cert, key] = ["crt", "key"].map(|ending| broker.path(&format!("{name}.{ending}")));
        trusting().add_client_certificate(cert, key)
    };
    assert!(admits(&broker, with("client")));
    assert!(!admits(&broker, with("stranger")));
    assert!(!admits(&broker, trusting()));
}

#[test]
fn certificates_that_cannot_work_are_refused() {
    let (mut expired, _) = with_tls("nats.example.org", 0);
    expired.set("NATS_TLS_VERIFY", "true");
    let output = expired.output(&["run"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains("expired at") && text.contains("NATS_TLS_CA is not set"), "{text}");

    let (mut foreign_key, authority) = with_tls("nats.example.org", 29);
    authority.issue(foreign_key.directory.path(), "other", "x", rcgen::ExtendedKeyUsagePurpose::ServerAuth, 29);
    let other = foreign_key.path("other.key");
    foreign_key.set("NATS_TLS_KEY", other.display());
    let output = foreign_key.output(&["run"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("does not belong to the certificate"), "{text}");

    let (mut no_pem, _) = with_tls("nats.example.org", 29);
    no_pem.set("NATS_TLS_CERT", "/etc/hostname");
    let text = String::from_utf8(no_pem.output(&["run"]).stderr).unwrap();
    assert!(text.contains("holds no certificate"), "{text}");
}

#[test]
fn a_certificate_that_expires_soon_is_a_warning() {
    let (broker, _) = with_tls("nats.example.org", 10);
    let output = broker.output(&["config", "validate"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("expires in 9 days"), "{text}");
}

#[test]
fn the_health_check_fails_with_other_credentials() {
    let mut broker = Broker::new();
    broker.set("NATS_AUTH_ENABLED", "true").set("NATS_AUTH_TOKEN", "right").start();
    broker.set("NATS_AUTH_TOKEN", "wrong");
    assert_eq!(broker.output(&["health-check", "connectivity"]).status.code(), Some(1));
}
