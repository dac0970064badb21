use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::*;

const DAY: Duration = Duration::from_secs(86400);

/// What a certificate is made of.
struct Made {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

/// `from` and `until` are days from now.
fn make(name: &str, is_authority: bool, from: i64, until: i64, issuer: Option<&Made>) -> Made {
    make_with(KeyPair::generate().unwrap(), name, is_authority, from, until, issuer)
}

fn make_with(key: KeyPair, name: &str, is_authority: bool, from: i64, until: i64, issuer: Option<&Made>) -> Made {
    let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    if is_authority {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let at = |days: i64| time::OffsetDateTime::now_utc() + time::Duration::days(days) + time::Duration::hours(1);
    (params.not_before, params.not_after) = (at(from), at(until));
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, &Issuer::from_params(&issuer.params, &issuer.key)),
        None => params.self_signed(&key),
    };
    Made { pem: certificate.unwrap().pem(), params, key }
}

/// A root with the same name and key, and other dates.
fn copy(root: &Made, from: i64, until: i64) -> Made {
    make_with(KeyPair::try_from(root.key.serialize_der()).unwrap(), "root", true, from, until, None)
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// What a chain of these and the first one's key come to.
    fn pair(&self, chain: &[&Made]) -> Result<Vec<String>, (Part, String)> {
        let pem: String = chain.iter().map(|made| made.pem.as_str()).collect();
        let cert = self.write("chain.crt", &pem);
        let key = self.write("chain.key", &chain[0].key.serialize_pem());
        pair(&cert, &key, Role::Server, SystemTime::now()).map(|chain| chain.warnings)
    }
}

#[test]
fn every_certificate_of_a_chain_has_its_dates_looked_at() {
    let files = Files::new();
    let root = make("root", true, -99, 99, None);
    let old_root = make("root", true, -99, -1, None);
    let good = make("middle", true, -9, 99, Some(&root));
    let expired = make_with(KeyPair::try_from(good.key.serialize_der()).unwrap(), "middle", true, -99, -1, Some(&root));
    let leaf = make("leaf", false, -9, 99, Some(&good));
    for (chain, told) in [
        (&[&leaf, &good][..], ""),
        (&[&leaf, &good, &root], ""),
        // The same key with two certificates, and any order: a client finds the way.
        (&[&leaf, &root, &good], ""),
        (&[&leaf, &expired, &good], "expired at"),
        // The client has a root of its own.
        (&[&leaf, &good, &old_root], "expired at"),
        // The same root as the file has it from long ago.
        (&[&leaf, &good, &copy(&root, -99, -1)], "(\"CN=root\") expired at"),
        (&[&leaf, &good, &copy(&root, -99, 5)], "(\"CN=root\") expires in 5 days"),
        (&[&leaf, &good, &root, &make("stranger", true, -9, 5, None)], "(\"CN=stranger\") expires in 5 days"),
        (&[&make("leaf", false, -9, 10, Some(&good)), &good], "expires in 10 days"),
        (
            &[
                &leaf,
                &make_with(KeyPair::try_from(good.key.serialize_der()).unwrap(), "middle", true, -9, 5, Some(&root)),
            ],
            "expires in 5 days",
        ),
        (&[&leaf, &good, &make("stranger", true, -9, -1, None)], "expired at"),
    ] {
        let warnings = files.pair(chain).unwrap().join("\n");
        assert_eq!(warnings.is_empty(), told.is_empty(), "{warnings}");
        assert!(warnings.contains(told), "{warnings}");
    }
    for (chain, told) in [
        (&[&leaf, &expired][..], "its intermediate certificate \"CN=middle\" expired at"),
        (&[&make("leaf", false, -9, -1, None)], "its certificate expired at"),
        (&[&make("leaf", false, 1, 9, None)], "its certificate is not valid before"),
        (
            &[&leaf, &make("middle", true, 1, 9, Some(&root))],
            "is not signed by the certificate that it names, \"CN=middle\"",
        ),
    ] {
        let (part, reason) = files.pair(chain).unwrap_err();
        assert_eq!(part, Part::Certificate);
        assert!(reason.contains(told), "{reason}");
    }
}

#[test]
fn one_good_authority_is_enough() {
    let files = Files::new();
    let [good, soon, expired, future] =
        [(-9, 99), (-9, 3), (-9, -1), (1, 9)].map(|(from, until)| make("authority", true, from, until, None).pem);
    let told = |pems: &[&String]| {
        let text: String = pems.iter().map(|pem| pem.as_str()).collect();
        authorities(&files.write("ca.pem", &text), SystemTime::now()).map(|warnings| warnings.join("\n"))
    };
    assert_eq!(told(&[&good]), Ok(String::new()));
    assert!(told(&[&good, &expired]).unwrap().contains("expired at"));
    assert!(told(&[&future, &good]).unwrap().contains("is not valid before"));
    assert!(told(&[&soon]).unwrap().contains("expires in 3 days"));
    assert!(told(&[&expired]).unwrap_err().contains("expired at"));
    assert!(told(&[&expired, &future]).unwrap_err().starts_with("none of its 2 certificates is valid now"));
    assert!(authorities(Path::new("/etc/hostname"), SystemTime::now()).unwrap_err().contains("holds no certificate"));
}

#[test]
fn the_warning_begins_fourteen_days_before_the_end() {
    let made = make("leaf", false, -9, 30, None);
    let files = Files::new();
    let path = files.write("c.crt", &made.pem);
    let at = |days: u32| authorities(&path, SystemTime::now() + DAY * days).map(|warnings| warnings.len());
    assert_eq!((at(0), at(15), at(17), at(29)), (Ok(0), Ok(0), Ok(1), Ok(1)));
    assert!(at(31).is_err());
}

#[test]
fn keys_are_refused_for_their_true_reason() {
    let files = Files::new();
    let made = make("leaf", false, -9, 99, None);
    let cert = files.write("a.crt", &made.pem);
    for (key, told) in [
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", "is encrypted"),
        (
            "x\n-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
            "is encrypted",
        ),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "holds no private key"),
        ("", "holds no private key"),
        (&KeyPair::generate().unwrap().serialize_pem(), "does not belong to the certificate"),
        (&KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem(), "does not belong to the certificate"),
    ] {
        let (part, reason) = pair(&cert, &files.write("a.key", key), Role::Server, SystemTime::now()).unwrap_err();
        assert_eq!(part, Part::Key);
        assert!(reason.contains(told), "{reason}");
    }
}

#[test]
fn what_others_refuse_a_certificate_for_is_told() {
    use rcgen::{ExtendedKeyUsagePurpose as Usage, KeyUsagePurpose};
    let files = Files::new();
    let told = |role, change: &dyn Fn(&mut CertificateParams)| {
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = files.write("u.crt", &params.self_signed(&key).unwrap().pem());
        let key = files.write("u.key", &key.serialize_pem());
        pair(&cert, &key, role, SystemTime::now()).unwrap().warnings.join("\n")
    };
    let uses =
        |usages: &'static [Usage]| move |params: &mut CertificateParams| params.extended_key_usages = usages.to_vec();
    for (role, usages, part) in [
        (Role::Server, &[][..], ""),
        (Role::Server, &[Usage::ServerAuth, Usage::ClientAuth], ""),
        (Role::Server, &[Usage::Any], ""),
        (Role::Server, &[Usage::ClientAuth], "without serverAuth, and clients refuse a server"),
        (Role::Server, &[Usage::CodeSigning], "make it anew with serverAuth, or without extendedKeyUsage"),
        (Role::Client, &[], ""),
        (Role::Client, &[Usage::ClientAuth], ""),
        (Role::Client, &[Usage::ServerAuth], "without clientAuth, and servers refuse a client"),
    ] {
        let warnings = told(role, &uses(usages));
        assert_eq!(warnings.is_empty(), part.is_empty(), "{role:?} {usages:?}: {warnings}");
        assert!(warnings.contains(part), "{role:?} {usages:?}: {warnings}");
    }
    let nameless = |params: &mut CertificateParams| params.subject_alt_names.clear();
    assert!(told(Role::Server, &nameless).contains("has no subjectAltName"), "{}", told(Role::Server, &nameless));
    assert_eq!(told(Role::Client, &nameless), "");
    let mail = |params: &mut CertificateParams| {
        params.subject_alt_names = vec![rcgen::SanType::Rfc822Name("a@example.org".try_into().unwrap())];
    };
    assert!(told(Role::Server, &mail).contains("has no subjectAltName"));
    let only_signs_others = |params: &mut CertificateParams| params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    assert!(told(Role::Server, &only_signs_others).contains("without digitalSignature"));
}
