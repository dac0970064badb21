use std::time::Duration;

use super::*;
use crate::settings::tests::load;
use crate::settings::{Authentication, Grant, Problem, Problems, Responses};

const NKEY: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

fn users_of(pairs: &[(&str, &str)], file: &str) -> Result<Vec<User>, Vec<Problem>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users.yml");
    std::fs::write(&path, file).unwrap();
    let mut pairs = pairs.to_vec();
    pairs.extend([("NATS_AUTH_ENABLED", "true"), ("NATS_USERS_FILE", path.to_str().unwrap())]);
    let loaded = load(&pairs).map_err(|problems| problems.list)?;
    assert_eq!(loaded.warnings, Vec::<String>::new());
    match loaded.settings.authentication {
        Authentication::Users(users) => Ok(users),
        other => panic!("{other:?}"),
    }
}

#[test]
fn users_with_permissions_come_from_a_file() {
    let hash = format!("$2a$04${}", "a".repeat(53));
    let file = format!(
        "
nats:
  users:
    - user: producer
      password: 12345
      permissions: {{publish: [\"market.>\"], subscribe: {{allow: _INBOX.>, deny: [secret.*]}}}}
    - {{username: reader, pass: \"{hash}\", permissions: {{publish: [], allow_responses: true}}}}
"
    );
    let users = users_of(&[("NATS_AUTH_USERNAME", "admin"), ("NATS_AUTH_PASSWORD", "p")], &file).unwrap();
    assert_eq!(users.iter().map(|user| user.name.as_str()).collect::<Vec<_>>(), ["admin", "producer", "reader"]);
    assert!(users[0].permissions.is_none());
    let Password::Plain(password) = &users[1].password else { panic!("a plain password") };
    assert_eq!(password.expose(), "12345");
    let permissions = users[1].permissions.as_ref().unwrap();
    assert_eq!(permissions.publish.allow.as_ref().unwrap()[0].to_string(), "market.>");
    assert_eq!(permissions.subscribe.allow.as_ref().unwrap()[0].to_string(), "_INBOX.>");
    assert_eq!(permissions.subscribe.deny[0].to_string(), "secret.*");
    assert!(matches!(&users[2].password, Password::Hash(kept) if kept.expose() == hash));
    let permissions = users[2].permissions.as_ref().unwrap();
    assert_eq!(
        (permissions.publish.allow.as_ref().map(Vec::len), permissions.allow_responses),
        (Some(0), Some(Responses::default()))
    );
}

#[test]
fn nkeys_queue_groups_and_bounded_answers_are_taken() {
    let file = format!(
        "
users:
  - nkey: {NKEY}
    permissions:
      subscribe: {{allow: [\"orders.> workers\", plain], deny: [\"orders.>  *.dev\"]}}
      allow_responses: {{max: -1, expires: 90s}}
"
    );
    let users = users_of(&[], &file).unwrap();
    assert!(users[0].name == NKEY && matches!(users[0].password, Password::Nkey));
    let permissions = users[0].permissions.as_ref().unwrap();
    let shown: Vec<_> = permissions.subscribe.allow.as_ref().unwrap().iter().map(Grant::to_string).collect();
    assert_eq!(shown, ["orders.> workers", "plain"]);
    assert_eq!(permissions.subscribe.deny[0].to_string(), "orders.> *.dev");
    let bounds = Responses { max: Some(-1), expires: Some(Duration::from_secs(90)) };
    assert_eq!(permissions.allow_responses, Some(bounds));
}

#[test]
fn users_that_cannot_be_meant_are_refused_without_their_passwords() {
    let cases = [
        ("users: {a: b}", "must be a list of users"),
        ("users: []", "it declares no user"),
        ("users: [{user: a}]", "must have a password"),
        ("users: [{password: tell-nobody}]", "must have a user"),
        ("users: [{user: _unified_nats, password: tell-nobody}]", "other than _unified_nats"),
        ("users: [{user: _unified_nats_data, password: tell-nobody}]", "_unified_nats_data"),
        ("users: [{user: _unified_nats_backup, password: tell-nobody}]", "_unified_nats_backup"),
        ("users: [{user: a, password: $2a$10$tell-nobody}]", "is none"),
        ("users: [{user: a, password: [tell-nobody]}]", "must be one text"),
        ("users: [{user: a, password: \"\"}]", "1 to 1024 bytes"),
        ("users: [{user: a, password: tell-nobody, premissions: {}}]", "did you mean permissions?"),
        ("users: [{user: a, password: tell-nobody, permissions: {publish: [a..b]}}]", "it has an empty token"),
        ("users: [{user: a, password: tell-nobody, permissions: {publish: }}]", "must be a subject"),
        ("users: [{user: a, password: tell-nobody, permissions: }]", "must say what is open or closed"),
        ("users: [{user: a, password: tell-nobody, permissions: {}}]", "must say what is open or closed"),
        ("users: [{user: a, password: tell-nobody, permissions: {subscribe: {}}}]", "must say what is open or closed"),
        ("users: [{user: a, password: tell-nobody, permissions: {publish: {alow: x}}}]", "did you mean allow?"),
        ("users: [{user: a, password: tell-nobody}, {user: a, password: x}]", "twice"),
        ("users: [{nkey: tell-nobody}]", "the public nkey of a user"),
        ("users: [{nkey: SUtell-nobody}]", "what looks like a seed (not shown)"),
        ("users: [{nkey: [a]}]", "the public nkey of a user"),
        (&format!("users: [{{nkey: {NKEY}, user: a}}]"), "one way to log in"),
        (&format!("users: [{{nkey: {NKEY}}}, {{nkey: {NKEY}}}]"), "twice"),
        ("users: [{user: a, password: tell-nobody, permissions: {publish: [\"a q\"]}}]", "below subscribe only"),
        ("users: [{user: a, password: tell-nobody, permissions: {subscribe: [\"a q r\"]}}]", "must be a subject"),
        ("users: [{user: a, password: tell-nobody, permissions: {subscribe: [\"a q..r\"]}}]", "it has an empty token"),
        ("users: [{user: a, password: tell-nobody, permissions: {allow_responses: 5}}]", "must be true or false"),
        ("users: [{user: a, password: tell-nobody, permissions: {allow_responses: {}}}]", "must say what is open"),
        ("users: [{user: a, password: tell-nobody, permissions: {allow_responses: {max: 0}}}]", "from 1, or -1"),
        (
            "users: [{user: a, password: tell-nobody, permissions: {allow_responses: {expires: 0s}}}]",
            "a time such as 2m",
        ),
        ("users: [{user: a, password: tell-nobody, permissions: {allow_responses: {maxx: 1}}}]", "did you mean max"),
    ];
    for (file, part) in cases {
        let problems = users_of(&[], file).expect_err(file);
        assert_eq!(problems.len(), 1, "{file}: {problems:?}");
        let told = Problems::from(problems).to_string();
        assert!(told.contains(part) && !told.contains("nobody"), "{file}: {told}");
    }
    let beside_a_token = users_of(&[("NATS_AUTH_TOKEN", "t")], "users: [{user: a, password: b}]");
    assert_eq!(beside_a_token.unwrap_err().len(), 1);
}
