//! Secrets: kept as they are, never shown, warned of where they were hardly meant.

use super::*;

#[test]
fn secrets_never_appear_in_problems_or_effective_values() {
    let token = "tell-nobody-\u{0}";
    let found = problems(&[("NATS_AUTH_ENABLED", "true"), ("NATS_AUTH_TOKEN", token), ("API_TOKEN", "tell nobody")]);
    assert_eq!(found.len(), 2);
    assert!(!Problems::from(found).to_string().contains("nobody"));

    let urls = problems(&[
        ("NATS_CLUSTER_ROUTES", "nats://u:tell-nobody@node:99999"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:tell-nobody@h:0"),
    ]);
    assert_eq!(urls.len(), 2);
    assert!(!Problems::from(urls).to_string().contains("nobody"));

    let loaded = load(&[
        ("NATS_CLUSTER_ENABLED", "true"),
        ("NATS_CLUSTER_ROUTES", "nats://u:tell-nobody@node:6222"),
        ("NATS_AUTH_ENABLED", "true"),
        ("NATS_AUTH_USERNAME", "u"),
        ("NATS_AUTH_PASSWORD", "tell-nobody"),
        ("NATS_URL", "nats://u:tell-nobody@remote:4222"),
    ])
    .unwrap();
    let everything = format!("{loaded:?}");
    assert!(!everything.contains("tell-nobody"), "{everything}");
}

#[test]
fn white_space_in_secrets_is_kept() {
    let loaded =
        load(&[("NATS_AUTH_ENABLED", "yes"), ("NATS_AUTH_USERNAME", "u"), ("NATS_AUTH_PASSWORD", "  p \t")]).unwrap();
    match loaded.settings.authentication {
        Authentication::Users(users) => match &users[0].password {
            Password::Plain(password) => assert_eq!(password.expose(), "  p \t"),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn secrets_that_were_hardly_meant_are_warned_of_and_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let file = |text: &str| {
        let path = directory.path().join("secret");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let hash = format!("$2a$04${}", "a".repeat(53));
    for (text, told) in [
        ("tell-nobody\r", "ends with a carriage return"),
        ("tell-nobody ", "white space"),
        ("\u{a0}tell-nobody", "white space"),
        ("\"tell-nobody\"", "is in quotes"),
        ("'tell-nobody'", "is in quotes"),
        ("\u{feff}tell-nobody", "byte order mark"),
        (&hash, "looks like a bcrypt hash and is taken as the secret itself"),
        ("tell \"nobody", ""),
        ("tell's-nobody", ""),
        ("\"", "a quote that has no other"),
        ("'", "a quote that has no other"),
        ("“tell-nobody”", "is in quotes"),
        ("‘tell-nobody’", "is in quotes"),
        ("tell-nobody\u{200b}", "holds an invisible character (U+200B)"),
    ] {
        for variable in ["NATS_AUTH_PASSWORD", "NATS_AUTH_TOKEN", "NATS_CLUSTER_PASSWORD"] {
            // nats-server would take it for a hash, there, so it is refused.
            if variable == "NATS_CLUSTER_PASSWORD" && text == hash {
                continue;
            }
            for from_file in [false, true] {
                let (name, value) = match from_file {
                    // One line end is the file's own.
                    true => (
                        format!("{variable}_FILE"),
                        file(&format!("{text}\n\n").replace("\r\n\n", "\r\r\n").replace("\n\n", "\n")),
                    ),
                    false => (variable.to_owned(), text.to_owned()),
                };
                let mut pairs = vec![(name.as_str(), value.as_str())];
                match variable {
                    "NATS_AUTH_PASSWORD" => pairs.extend([("NATS_AUTH_ENABLED", "true"), ("NATS_AUTH_USERNAME", "u")]),
                    "NATS_AUTH_TOKEN" => pairs.push(("NATS_AUTH_ENABLED", "true")),
                    "NATS_CLUSTER_PASSWORD" => pairs.extend([
                        ("NATS_CLUSTER_ENABLED", "true"),
                        ("NATS_CLUSTER_USERNAME", "u"),
                        ("NATS_CLUSTER_ROUTES", "nats://127.0.0.1:1"),
                    ]),
                    _ => {}
                }
                let warnings = load(&pairs).unwrap_or_else(|problems| panic!("{problems}")).warnings.join("\n");
                let about = warnings.lines().find(|line| line.starts_with(variable)).unwrap_or_default();
                assert_eq!(about.is_empty(), told.is_empty(), "{text:?}: {warnings}");
                assert!(
                    about.contains(told) && !warnings.contains("nobody") && !warnings.contains("aaa"),
                    "{warnings}"
                );
            }
        }
    }
    let path = file("users: [{user: \"'a'\", password: \"tell-nobody\\r\"}]");
    let pairs = [("NATS_AUTH_ENABLED", "true"), ("NATS_USERS_FILE", path.as_str())];
    let warnings = load(&pairs).unwrap_or_else(|problems| panic!("{problems}")).warnings.join("\n");
    assert!(warnings.contains("the name of the user \"'a'\" is in quotes"), "{warnings}");
    assert!(warnings.contains("the password of the user \"'a'\" ends with a carriage return"), "{warnings}");
    assert!(!warnings.contains("nobody"), "{warnings}");
}

#[test]
fn texts_of_any_variable_that_were_hardly_meant_are_warned_of() {
    let directory = tempfile::tempdir().unwrap();
    let quoted = directory.path().join("'store'");
    for (variable, value, told) in [
        ("API_TOKEN", "\"tell-nobody\"", "API_TOKEN is in quotes"),
        ("API_READ_TOKEN", "'tell-nobody", "API_READ_TOKEN begins or ends with a quote"),
        ("AWS_SECRET_ACCESS_KEY", "“tell-nobody”", "AWS_SECRET_ACCESS_KEY is in quotes"),
        ("JETSTREAM_STORE_DIR", "\"/data/jetstream\"", "JETSTREAM_STORE_DIR is in quotes"),
        ("JETSTREAM_STORE_DIR", "/data/jet\u{200b}stream", "JETSTREAM_STORE_DIR holds an invisible character"),
        ("JETSTREAM_STORE_DIR", quoted.to_str().unwrap(), "JETSTREAM_STORE_DIR begins or ends with a quote"),
        ("NATS_CLUSTER_USERNAME", "‘u’", "NATS_CLUSTER_USERNAME is in quotes"),
    ] {
        let mut pairs = vec![(variable, value)];
        if variable.starts_with("AWS") {
            pairs.push(("AWS_ACCESS_KEY_ID", "x"));
        }
        let warnings = load(&pairs).unwrap_or_else(|problems| panic!("{problems}")).warnings.join("\n");
        assert_eq!(warnings.matches(told).count(), 1, "{value}: {warnings}");
        assert!(!warnings.contains("nobody\"") && !warnings.contains("tell-"), "{warnings}");
    }
}
