//! What is shown in the place of secrets.

use super::problem::quote;
use super::variables::Variable;

pub const REDACTED: &str = "(redacted)";

/// Passwords inside URLs (`nats://user:password@host`) are secrets, too, also where the scheme is
/// forgotten or what should be percent-encoded is not.
pub fn redact_urls(value: &str) -> String {
    let redact_one = |url: &String| {
        let Some((before, address)) = url.rsplit_once('@') else { return url.clone() };
        let is_scheme = |text: &str| text.trim().bytes().all(|byte| byte.is_ascii_alphanumeric());
        match before.split_once("://") {
            Some((scheme, _)) if is_scheme(scheme) => format!("{scheme}://{REDACTED}@{address}"),
            // An address of mail has no colon.
            None if !url.contains(':') => url.clone(),
            _ => format!("{REDACTED}@{address}"),
        }
    };
    let mut urls: Vec<String> = vec![];
    for piece in value.split(',') {
        match urls.last_mut() {
            // The comma may be a part of a password.
            Some(url) if !piece.contains("://") => *url = format!("{url},{piece}"),
            _ => urls.push(piece.to_owned()),
        }
    }
    urls.iter().map(redact_one).collect::<Vec<_>>().join(",")
}

/// A value without the secrets that may be in it: passwords of URLs, and keys that somebody took for the name of
/// their file.
pub fn redact(value: &str) -> String {
    let is_key = value.contains("-----BEGIN ") || value.to_ascii_uppercase().contains("AGE-SECRET-KEY-");
    if is_key { REDACTED.into() } else { redact_urls(value) }
}

/// What a password-like value looks like in messages.
pub fn quote_redacted(variable: &Variable, value: &str) -> String {
    match variable {
        Variable { secret: true, .. } => REDACTED.into(),
        Variable { names_secret: true, .. } => quote_path_of_secret(value),
        _ => quote(&redact(value)),
    }
}

/// The name of a file that holds a secret. What does not look like a path may be the secret itself.
pub fn quote_path_of_secret(path: &str) -> String {
    if path.starts_with(['/', '.']) {
        quote(&redact(path))
    } else {
        format!("{REDACTED}, which may be the secret itself")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_not_shown_whatever_they_were_taken_for() {
        for key in ["-----BEGIN PRIVATE KEY-----\ntell", "AGE-SECRET-KEY-1TELL", "age1x,age-secret-key-1tell"] {
            assert_eq!(redact(key), REDACTED);
        }
        assert_eq!(redact("/etc/age-keys/key.pem"), "/etc/age-keys/key.pem");
    }

    #[test]
    fn nothing_of_a_password_in_a_url_is_shown_however_the_url_is_written() {
        for (value, expected) in [
            ("nats://u:tell@h:1,nats://tell@[::1]:2", "nats://(redacted)@h:1,nats://(redacted)@[::1]:2"),
            ("nats://u:te,ll@h:1, tls://u:tell@i:2", "nats://(redacted)@h:1, tls://(redacted)@i:2"),
            ("nats://u:te@ll/te?ll#@h:1", "nats://(redacted)@h:1"),
            ("u:tell@h:1", "(redacted)@h:1"),
            ("tell@h:1", "(redacted)@h:1"),
            ("u:te://ll@h:1", "(redacted)@h:1"),
            ("nats://h:1,u:tell@i:2", "nats://(redacted)@i:2"),
            ("nats://h:1,nats://i:2", "nats://h:1,nats://i:2"),
            ("a@example.org,b@example.org", "a@example.org,b@example.org"),
        ] {
            assert_eq!(redact_urls(value), expected);
        }
    }
}
