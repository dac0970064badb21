//! Who gets in: users with their rights, or a token.

use serde::Serialize;

use super::quote::quote;
use super::{RenderError, Secrets};
use crate::domain::{Secret, format_span};
use crate::settings::{Authentication, Grant, Password, Permissions, REDACTED, Responses, Rule, User};

#[derive(Default, Serialize)]
pub struct Authorization {
    users: Vec<UserEntry>,
    token: Option<String>,
}

#[derive(Serialize)]
struct UserEntry {
    user: String,
    /// None where the user is an nkey.
    password: Option<String>,
    permissions: Option<PermissionsEntry>,
}

#[derive(Default, Serialize)]
struct PermissionsEntry {
    publish: RuleEntry,
    subscribe: RuleEntry,
    allow_responses: Option<String>,
}

/// Lists in the syntax of nats.conf.
#[derive(Default, Serialize)]
struct RuleEntry {
    allow: Option<String>,
    deny: Option<String>,
}

/// [`None`] where anybody may come.
pub fn authorize(
    authentication: &Authentication,
    service_users: &[User],
    secrets: Secrets,
) -> Result<Option<Authorization>, RenderError> {
    Ok(match authentication {
        Authentication::Open => None,
        Authentication::Users(users) => {
            let users = users.iter().chain(service_users).map(|user| user_entry(user, secrets));
            Some(Authorization { users: users.collect::<Result<_, _>>()?, token: None })
        }
        Authentication::Token(token) => {
            Some(Authorization { token: Some(credential(token, secrets)?), ..Authorization::default() })
        }
    })
}

fn user_entry(user: &User, secrets: Secrets) -> Result<UserEntry, RenderError> {
    let password = match &user.password {
        Password::Plain(password) => Some(credential(password, secrets)?),
        Password::Hash(_) if secrets == Secrets::Redacted => Some(quote(REDACTED)),
        Password::Hash(hash) => Some(quote(hash.expose())),
        Password::Nkey => None,
    };
    Ok(UserEntry { user: quote(&user.name), password, permissions: user.permissions.as_ref().map(permissions_entry) })
}

fn permissions_entry(permissions: &Permissions) -> PermissionsEntry {
    PermissionsEntry {
        publish: rule_entry(&permissions.publish),
        subscribe: rule_entry(&permissions.subscribe),
        allow_responses: permissions.allow_responses.map(responses),
    }
}

fn rule_entry(rule: &Rule) -> RuleEntry {
    let texts = |grants: &[Grant]| -> Vec<_> { grants.iter().map(Grant::to_string).collect() };
    match &rule.allow {
        // nats-server takes an empty list of what is allowed for everything.
        Some(allow) if allow.is_empty() => RuleEntry { allow: None, deny: Some(list(&[">".to_owned()])) },
        allow => RuleEntry {
            allow: allow.as_ref().map(|allow| list(&texts(allow))),
            deny: (!rule.deny.is_empty()).then(|| list(&texts(&rule.deny))),
        },
    }
}

fn responses(Responses { max, expires }: Responses) -> String {
    let max = max.map(|max| format!("max: {max}"));
    let expires = expires.map(|span| format!("expires: {}", quote(format_span(span))));
    let bounds: Vec<_> = [max, expires].into_iter().flatten().collect();
    if bounds.is_empty() { "true".into() } else { format!("{{ {} }}", bounds.join(", ")) }
}

fn list(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(quote).collect::<Vec<_>>().join(", "))
}

fn credential(secret: &Secret, secrets: Secrets) -> Result<String, RenderError> {
    /// nats-server's own default is 11; a plain text would be no hash at all.
    const COST: u32 = 10;
    Ok(match secrets {
        Secrets::Redacted => quote(REDACTED),
        // nats-server would take such a text for a hash and let in whoever knows its pre-image.
        Secrets::Written if secret.expose().starts_with("$2") => quote(bcrypt::hash(secret.expose(), COST)?),
        Secrets::Written => quote(secret.expose()),
    })
}
