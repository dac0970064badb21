use super::*;
use crate::domain::Secret;

fn settings(pairs: &[(&str, &str)]) -> Settings {
    Settings::load(&pairs, &[]).unwrap_or_else(|problems| panic!("{problems}")).settings
}

const USER: [(&str, &str); 3] =
    [("NATS_AUTH_ENABLED", "true"), ("NATS_AUTH_USERNAME", "u"), ("NATS_AUTH_PASSWORD", "p")];
const TOKEN: [(&str, &str); 2] = [("NATS_AUTH_ENABLED", "true"), ("NATS_AUTH_TOKEN", "t")];

/// The user or token, and the password.
fn shown(login: &Login) -> Option<(String, String)> {
    match login.credentials.as_ref()? {
        Credentials::User { name, password } => Some((name.clone(), password.expose().to_owned())),
        Credentials::Token(token) => Some((String::new(), token.expose().to_owned())),
    }
}

fn pair(name: &str, secret: &str) -> Option<(String, String)> {
    Some((name.to_owned(), secret.to_owned()))
}

#[test]
fn each_role_logs_in_as_what_nats_server_can_hold() {
    let directory = Path::new("/run");
    for role in Role::ALL {
        let login = |settings: &Settings| {
            let identity = Identity::default().completed(settings).unwrap();
            let written: Vec<_> = identity.users().unwrap().into_iter().map(|user| user.name).collect();
            (identity.login(role, settings, directory), written)
        };
        let (open, written) = login(&settings(&[]));
        assert!(shown(&open).is_none() && written.is_empty(), "{role:?}");
        let (token, written) = login(&settings(&TOKEN));
        assert!(shown(&token) == pair("", "t") && written.is_empty(), "{role:?}");
        let (user, written) = login(&settings(&USER));
        let (name, password) = shown(&user).unwrap();
        assert_eq!((name.as_str(), written), (role.user(), Role::ALL.map(|role| role.user().to_owned()).to_vec()));
        assert_ne!(password, "p");
        assert_eq!(user.inbox, role.inbox());
        assert!([open, token].iter().all(|login| login.inbox == Role::Control.inbox()), "what operators grant");
    }
}

#[test]
fn a_reload_keeps_the_passwords_and_finds_them_when_users_are_asked_for() {
    let directory = Path::new("/run");
    let [open, token, user] = [settings(&[]), settings(&TOKEN), settings(&USER)];
    let mut identity = Identity::default().completed(&open).unwrap();
    assert!(identity.files(&open, directory).unwrap().is_empty());
    identity = identity.completed(&user).unwrap();
    let before = Role::ALL.map(|role| shown(&identity.login(role, &user, directory)));
    identity = identity.completed(&token).unwrap();
    assert_eq!(shown(&identity.login(Role::Data, &token, directory)), pair("", "t"));
    identity = identity.completed(&user).unwrap();
    assert_eq!(Role::ALL.map(|role| shown(&identity.login(role, &user, directory))), before);
}

#[test]
fn all_roles_show_one_certificate_where_it_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, "the operator's").unwrap();
    let mut settings = settings(&USER);
    settings.tls = Some(crate::settings::TlsSettings {
        cert: "/app/certs/server.crt".into(),
        key: "/app/certs/server.key".into(),
        ca: Some(ca),
        verify: true,
        leaf: rustls::pki_types::CertificateDer::from(vec![]),
    });
    let identity = Identity::default().completed(&settings).unwrap();
    for file in identity.files(&settings, directory.path()).unwrap() {
        file.write().unwrap();
    }
    let bundle = std::fs::read_to_string(identity.ca_bundle(&settings, directory.path()).unwrap()).unwrap();
    assert!(bundle.starts_with("the operator's\n-----BEGIN CERTIFICATE"), "{bundle}");
    for role in Role::ALL {
        let login = identity.login(role, &settings, directory.path());
        assert!(login.certificate.is_some_and(|shown| shown.cert.is_file() && shown.key.is_file()));
        assert_eq!(shown(&identity.login(role, &settings, directory.path())).unwrap().0, role.user());
    }
    let commands = login_of_commands(&settings, &[Path::new("/nowhere"), directory.path()]);
    let control = identity.login(Role::Control, &settings, directory.path());
    assert_eq!((shown(&commands), commands.inbox), (shown(&control), control.inbox));
    assert!(commands.certificate.is_some());
    let elsewhere = login_of_commands(&settings, &[Path::new("/nowhere")]);
    assert_eq!(shown(&elsewhere), pair("u", "p"), "with the operator's user, where we cannot read ours");
}

#[test]
fn the_operator_is_a_user_who_may_do_everything_and_whose_password_is_known() {
    let mut settings = settings(&USER);
    let user = |name: &str, password: Password, permissions| User { name: name.into(), password, permissions };
    let plain = || Password::Plain(Secret::new("p".into()));
    settings.authentication = Authentication::Users(vec![
        user("bounded", plain(), Some(rights::of(Role::Data).unwrap())),
        user("hashed", Password::Hash(Secret::new("$2a$".into())), None),
        user("known", plain(), None),
    ]);
    assert_eq!(shown(&login_as_operator(&settings)), pair("known", "p"));
    settings.authentication = Authentication::Users(vec![user("nkey", Password::Nkey, None)]);
    assert!(shown(&login_as_operator(&settings)).is_none());
}
