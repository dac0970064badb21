//! Certificates of every kind that nats-server serves, made by OpenSSL: the broker takes them, and its
//! own connection works with them, on the oldest and the newest nats-server.

use std::process::Command;

use crate::security::admits;
use crate::support::*;

/// Runs openssl in the broker's directory; false where there is none.
fn openssl(broker: &Broker, arguments: &str) -> bool {
    let Ok(output) =
        Command::new("openssl").args(arguments.split_whitespace()).current_dir(broker.directory.path()).output()
    else {
        return false;
    };
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    true
}

const SAN: &str = "-addext subjectAltName=IP:127.0.0.1";

/// A broker with the certificate that these commands make: server.crt and server.key.
fn with_certificate(version: &str, commands: &[&str]) -> Option<Broker> {
    let mut broker = Broker::with_server(version);
    for command in commands {
        if !openssl(&broker, &command.replace("SAN", SAN)) {
            cannot_run("certificates", "there is no openssl");
            return None;
        }
    }
    let (cert, key) = (broker.path("server.crt"), broker.path("server.key"));
    broker.set("NATS_TLS_ENABLED", "true").set("NATS_TLS_CERT", cert.display()).set("NATS_TLS_KEY", key.display());
    Some(broker)
}

/// What config validate says.
fn verdict(broker: &Broker) -> (Option<i32>, String) {
    let output = broker.output(&["config", "validate"]);
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn serves(version: &str, commands: &[&str], warns: Option<&str>) {
    let Some(mut broker) = with_certificate(version, commands) else { return };
    let (code, told) = verdict(&broker);
    assert_eq!(code, Some(0), "{told}");
    match warns {
        Some(warning) => assert!(told.contains(warning), "{told}"),
        None => assert!(!told.contains("the certificate in"), "{told}"),
    }
    broker.start();
    wait_for("healthy", || broker.output(&["health-check", "full"]).status.success().then_some(()));
    // Nobody gets in without TLS, so that it was TLS that our own connection spoke.
    assert!(!admits(&broker, async_nats::ConnectOptions::new().require_tls(false)));
    assert_eq!(broker.stop(), Some(0));
}

const REQUEST: &str = "req -x509 -nodes -days 30 -subj /CN=localhost SAN -keyout server.key -out server.crt";

macro_rules! kinds {
    ($($name:ident: [$($version:literal)*] = $commands:expr, $warns:expr;)*) => {$(
        #[test]
        fn $name() {
            for version in [$($version),*] {
                serves(version, &$commands, $warns);
            }
        }
    )*};
}

kinds! {
    p521: ["2.10.26" "2.11.11" "2.12.8" "2.14.6" "2.15.1"] =
        [&format!("{REQUEST} -newkey ec -pkeyopt ec_paramgen_curve:P-521")[..]], None;
    p521_with_sha256: ["2.10.26" "2.15.1"] =
        [&format!("{REQUEST} -newkey ec -pkeyopt ec_paramgen_curve:P-521 -sha256")[..]], None;
    p384_with_sha512: ["2.10.26" "2.15.1"] =
        [&format!("{REQUEST} -newkey ec -pkeyopt ec_paramgen_curve:P-384 -sha512")[..]], None;
    p256_with_sha512: ["2.10.26" "2.15.1"] =
        [&format!("{REQUEST} -newkey ec -pkeyopt ec_paramgen_curve:P-256 -sha512")[..]], None;
    rsa_3000: ["2.10.26" "2.15.1"] = [&format!("{REQUEST} -newkey rsa:3000")[..]], None;
    // Above what ring can load; 8192 bits would take long to make.
    rsa_4608: ["2.15.1"] = [&format!("{REQUEST} -newkey rsa:4608 -sha384")[..]], None;
    ed25519: ["2.10.26" "2.15.1"] = [&format!("{REQUEST} -newkey ed25519")[..]], None;
    // PKCS#1 and SEC1, the older forms of keys.
    rsa_in_pkcs1: ["2.15.1"] =
        [&format!("{REQUEST} -newkey rsa:3000")[..], "rsa -traditional -in server.key -out server.key"], None;
    ec_in_sec1: ["2.15.1"] = [
        "ecparam -name secp521r1 -genkey -out server.key",
        "req -x509 -key server.key -days 30 -subj /CN=localhost SAN -out server.crt",
    ], None;
    x509_version_1: ["2.10.26" "2.15.1"] = [
        "req -nodes -new -newkey rsa:2048 -subj /CN=localhost -keyout server.key -out server.csr",
        "x509 -req -in server.csr -signkey server.key -days 30 -out server.crt",
    ], Some("has no subjectAltName");
    // The key does not say whose it is, and ring does not know the curve.
    p521_without_its_public_half: ["2.10.26" "2.15.1"] = [
        &format!("{REQUEST} -newkey ec -pkeyopt ec_paramgen_curve:P-521")[..],
        "ec -no_public -in server.key -out server.key",
    ], Some("cannot be told for its kind");
    // Signed by an algorithm that we cannot check.
    chain_with_sha512: ["2.10.26" "2.15.1"] = [
        "req -x509 -nodes -days 90 -subj /CN=root -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout root.key -out root.crt",
        "req -nodes -new -subj /CN=middle -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout middle.key -out middle.csr",
        "x509 -req -in middle.csr -CA root.crt -CAkey root.key -days 60 -out middle.crt",
        "req -nodes -new -subj /CN=localhost -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout server.key -out leaf.csr",
        "x509 -req -in leaf.csr -CA middle.crt -CAkey middle.key -days 30 -sha512 -out leaf.crt",
        "crl2pkcs7 -nocrl -certfile leaf.crt -certfile middle.crt -out chain.p7",
        "pkcs7 -print_certs -in chain.p7 -out server.crt",
    ], Some("cannot be checked here, because of its algorithm");
}

/// nats-server serves these, and our own connection to it cannot check what they sign.
#[test]
fn keys_that_we_cannot_check_are_refused_before_a_start() {
    for (kind, told) in [
        ("rsa:1024", "the certificate has an RSA key of 1024 bits: it can with ECDSA on P-256"),
        ("rsa:1536", "an RSA key of 1536 bits"),
        ("rsa:2040", "an RSA key of 2040 bits"),
        ("ec -pkeyopt ec_paramgen_curve:secp224r1", "a key on the curve P-224"),
        ("ec -pkeyopt ec_paramgen_curve:secp256k1", "a key on the curve 1.3.132.0.10"),
        ("ec -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit", "a key on a curve without a name"),
        ("ed448", "a key of the kind 1.3.101.113"),
    ] {
        let Some(broker) = with_certificate(CURRENT, &[&format!("{REQUEST} -newkey {kind}")]) else { return };
        let (code, said) = verdict(&broker);
        assert_eq!(code, Some(78), "{kind}: {said}");
        assert!(
            said.contains("NATS_TLS_CERT") && said.contains("could not check its own connection"),
            "{kind}: {said}"
        );
        assert!(said.contains(told), "{kind}: {said}");
    }
}

/// As an authority such a certificate is for others to check, unless we are the client.
#[test]
fn an_authority_elsewhere_that_we_cannot_check_is_told() {
    let Some(mut broker) = with_certificate(CURRENT, &[&format!("{REQUEST} -newkey rsa:1024")]) else { return };
    let cert = broker.path("server.crt");
    for name in ["NATS_TLS_CERT", "NATS_TLS_KEY"] {
        broker.set(name, "");
    }
    broker.set("NATS_MODE", "external").set("NATS_URL", "tls://127.0.0.1:4222").set("NATS_TLS_CA", cert.display());
    let (code, told) = verdict(&broker);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("vouches for nobody here") && told.contains("an RSA key of 1024 bits"), "{told}");
}

#[test]
fn a_signature_with_sha1_is_told() {
    let Some(broker) = with_certificate(
        CURRENT,
        &[
            "req -x509 -nodes -days 90 -subj /CN=root -newkey rsa:2048 -keyout root.key -out root.crt",
            "req -nodes -new -subj /CN=localhost -newkey rsa:2048 -keyout server.key -out leaf.csr",
            "x509 -req -in leaf.csr -CA root.crt -CAkey root.key -days 30 -sha1 -out server.crt",
        ],
    ) else {
        return;
    };
    let (_, told) = verdict(&broker);
    assert!(told.contains("is signed with SHA-1, which clients refuse"), "{told}");
}

#[test]
fn an_encrypted_key_is_called_so() {
    for encrypt in [
        "pkcs8 -topk8 -in plain.key -out server.key -passout pass:x",
        "rsa -traditional -aes128 -in plain.key -out server.key -passout pass:x",
    ] {
        let request = REQUEST.replace("server.key", "plain.key") + " -newkey rsa:2048";
        let Some(broker) = with_certificate(CURRENT, &[&request, encrypt]) else { return };
        let (code, told) = verdict(&broker);
        assert_eq!(code, Some(78), "{told}");
        assert!(told.contains("NATS_TLS_KEY") && told.contains("is encrypted"), "{told}");
    }
}

/// In external mode we are the client: what we cannot use is refused before anything is connected to.
#[test]
fn client_certificates_and_authorities_elsewhere_are_looked_at() {
    let p521 = format!("{REQUEST} -newkey ec -pkeyopt ec_paramgen_curve:P-521");
    let Some(mut broker) = with_certificate(CURRENT, &[&p521]) else { return };
    let (cert, key) = (broker.path("server.crt"), broker.path("server.key"));
    broker.set("NATS_MODE", "external").set("NATS_TLS_CA", cert.display());
    broker.set("NATS_TLS_CLIENT_CERT", cert.display()).set("NATS_TLS_CLIENT_KEY", key.display());
    let (code, told) = verdict(&broker);
    assert_eq!(code, Some(78), "{told}");
    assert!(told.contains("NATS_TLS_CLIENT_KEY") && told.contains("cannot sign with a key of its kind"), "{told}");
    assert!(!told.contains("NATS_TLS_CA"), "{told}");

    let authority = crate::security::Authority::new();
    let usage = rcgen::ExtendedKeyUsagePurpose::ClientAuth;
    authority.issue(broker.directory.path(), "client", "x", usage, 0);
    let [cert, key] = ["crt", "key"].map(|ending| broker.path(&format!("client.{ending}")));
    broker.set("NATS_TLS_CLIENT_CERT", cert.display()).set("NATS_TLS_CLIENT_KEY", key.display());
    broker.set("NATS_TLS_CA", cert.display());
    let (code, told) = verdict(&broker);
    assert_eq!(code, Some(78), "{told}");
    for variable in ["NATS_TLS_CLIENT_CERT", "NATS_TLS_CA"] {
        assert!(told.lines().any(|line| line.contains(variable) && line.contains("expired at")), "{variable}: {told}");
    }
}
