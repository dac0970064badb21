//! Settings → nats.conf. What to write is decided here; the template only lays it out.

mod authorization;
mod extra;
pub mod fragment;
mod quote;
mod refusal;

use std::fmt::Write;
use std::path::PathBuf;

use serde::Serialize;
use tera::{Context, Tera};

pub use extra::{are_warnings, located, warnings};
pub use quote::quote;
pub use refusal::RenderError;

use crate::domain::format_span;
use crate::settings::{ClusterSettings, REDACTED, Settings, SyncInterval, User};
use authorization::{Authorization, authorize};
use fragment::Fragment;

const TEMPLATE: &str = include_str!("../../templates/nats.conf.tera");

/// What the file depends on besides the settings.
#[derive(Clone, Debug, Default)]
pub struct RenderContext {
    /// Appended to the default server name in a cluster.
    pub host_name: String,
    /// Stands in for NATS_TLS_CA: the operator's authorities and the one that signed our own
    /// client certificate.
    pub ca_bundle: Option<PathBuf>,
    /// Users of our own, who come after those of the settings where users are asked for.
    pub service_users: Vec<User>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    Written,
    /// For output that people look at.
    Redacted,
}

/// The problem in NATS_EXTRA_CONFIG, if there is one. Nothing outside the settings is needed to tell.
pub fn check_fragment(settings: &Settings) -> Result<(), RenderError> {
    match settings.server.extra_config {
        Some(_) => render(settings, &RenderContext::default(), Secrets::Redacted).map(drop),
        None => Ok(()),
    }
}

/// The whole text of nats.conf.
pub fn render(settings: &Settings, surroundings: &RenderContext, secrets: Secrets) -> Result<String, RenderError> {
    let model = Model::new(settings, surroundings, secrets)?;
    let Some(extra) = &settings.server.extra_config else {
        return lay_out(&model);
    };
    let fragment = Fragment::read(&extra.text)?;
    extra::refuse_ports_taken_twice(settings, &fragment)?;
    if settings.api.strict && settings.authentication.is_open() && fragment.opens_a_listener() {
        return Err(RenderError::Listener);
    }
    lay_out(&Model { extra: Some(fragment.write(secrets)), ..model })
}

fn lay_out(model: &Model) -> Result<String, RenderError> {
    Ok(Tera::one_off(TEMPLATE, &Context::from_serialize(model)?, false)?)
}

/// The file's content; every text is a finished literal.
#[derive(Serialize)]
struct Model {
    server_name: String,
    host: String,
    port: u16,
    http: Option<String>,
    logtime: bool,
    debug: bool,
    trace: bool,
    limits: Limits,
    lame_duck_duration: String,
    lame_duck_grace_period: String,
    jetstream: Option<JetStream>,
    authorization: Option<Authorization>,
    tls: Option<Tls>,
    cluster: Option<Cluster>,
    extra: Option<String>,
}

#[derive(Serialize)]
struct Limits {
    max_connections: i64,
    max_subscriptions: i64,
    max_control_line: u64,
    max_payload: u64,
    max_pending: u64,
    write_deadline: String,
    ping_interval: String,
    ping_max: i64,
}

#[derive(Serialize)]
struct JetStream {
    store_dir: String,
    max_memory_store: u64,
    max_file_store: u64,
    sync_interval: String,
    domain: Option<String>,
}

#[derive(Serialize)]
struct Tls {
    cert_file: String,
    key_file: String,
    ca_file: Option<String>,
    verify: bool,
}

#[derive(Serialize)]
struct Cluster {
    name: String,
    listen: String,
    routes: Vec<String>,
    advertise: Option<String>,
    user: Option<String>,
    password: Option<String>,
}

impl Model {
    fn new(settings: &Settings, surroundings: &RenderContext, secrets: Secrets) -> Result<Self, RenderError> {
        let server = &settings.server;
        let limits = &server.limits;
        let jetstream = &settings.jetstream;
        let path = |path: &PathBuf| quote(path.as_os_str().as_encoded_bytes());
        Ok(Self {
            server_name: quote(settings.server_name(&surroundings.host_name)),
            host: quote(server.host.to_bind()),
            port: server.port.get(),
            http: server.monitoring.as_ref().map(|m| quote(address(&m.host.to_bind(), m.port.get()))),
            logtime: settings.logs.server_log_time,
            debug: server.debug,
            trace: server.trace,
            limits: Limits {
                max_connections: limits.max_connections,
                max_subscriptions: limits.max_subscriptions,
                max_control_line: limits.max_control_line.bytes(),
                max_payload: limits.max_payload.bytes(),
                max_pending: limits.max_pending.bytes(),
                write_deadline: quote(format_span(limits.write_deadline)),
                ping_interval: quote(format_span(limits.ping_interval)),
                ping_max: limits.ping_max,
            },
            lame_duck_duration: quote(format_span(server.lame_duck_duration)),
            lame_duck_grace_period: quote(format_span(server.lame_duck_grace)),
            jetstream: jetstream.enabled.then(|| JetStream {
                store_dir: path(&jetstream.store_dir),
                max_memory_store: jetstream.max_memory.bytes(),
                max_file_store: jetstream.max_file.bytes(),
                sync_interval: match jetstream.sync_interval {
                    SyncInterval::Always => quote("always"),
                    SyncInterval::Every(span) => quote(format_span(span)),
                },
                domain: jetstream.domain.as_ref().map(|domain| quote(domain.as_str())),
            }),
            authorization: authorize(&settings.authentication, &surroundings.service_users, secrets)?,
            tls: settings.tls.as_ref().map(|tls| Tls {
                cert_file: path(&tls.cert),
                key_file: path(&tls.key),
                ca_file: surroundings.ca_bundle.as_ref().or(tls.ca.as_ref()).map(path),
                verify: tls.verify,
            }),
            cluster: settings.cluster.as_ref().map(|cluster| Cluster {
                name: quote(cluster.name.as_str()),
                listen: quote(address(&cluster.host.to_bind(), cluster.port.get())),
                routes: cluster.routes.iter().map(|route| quote(route_url(route, cluster, secrets))).collect(),
                advertise: cluster.advertise.as_ref().map(quote),
                user: cluster.credentials.as_ref().map(|(user, _)| quote(user)),
                // Routes are dialled with it, too, so it is never hashed.
                password: cluster.credentials.as_ref().map(|(_, password)| match secrets {
                    Secrets::Written => quote(password.expose()),
                    Secrets::Redacted => quote(REDACTED),
                }),
            }),
            extra: None,
        })
    }
}

/// A route with the credentials that the other node asks for. nats-server takes those in
/// `authorization` for connections it accepts only, not for routes it dials.
fn route_url(route: &str, cluster: &ClusterSettings, secrets: Secrets) -> String {
    let Some((scheme, rest)) = route.split_once("://") else { return route.to_owned() };
    let (userinfo, address) = match (rest.rsplit_once('@'), &cluster.credentials) {
        (Some((userinfo, address)), _) => (userinfo.to_owned(), address),
        (None, Some((user, password))) => {
            (format!("{}:{}", percent_encoded(user), percent_encoded(password.expose())), rest)
        }
        (None, None) => return route.to_owned(),
    };
    match secrets {
        Secrets::Written => format!("{scheme}://{userinfo}@{address}"),
        Secrets::Redacted => format!("{scheme}://{REDACTED}@{address}"),
    }
}

/// For the user part of a URL: everything but unreserved characters (RFC 3986) as %HH.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte as char),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

/// `host:port` with brackets where the host is an IPv6 address.
fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(pairs: &[(&str, &str)]) -> String {
        let settings = Settings::load(&pairs, &[]).unwrap_or_else(|p| panic!("{p}")).settings;
        let surroundings = RenderContext { host_name: "node1".into(), ..RenderContext::default() };
        render(&settings, &surroundings, Secrets::Written).unwrap()
    }

    #[test]
    fn warnings_of_nats_server_are_told_from_errors() {
        let warning = "nats-server: n.conf:36:4: invalid use of field \"reconnect\": reconnect should be converted";
        let error = "nats-server: n.conf:3:1: unknown field \"x\"";
        assert!(are_warnings(warning) && are_warnings(&format!("{warning}\n\n{warning}\n")));
        for answer in ["", "\n", error, &format!("{warning}\n{error}")] {
            assert!(!are_warnings(answer), "{answer}");
        }
    }

    #[test]
    fn defaults() {
        insta::assert_snapshot!(conf(&[]));
    }

    #[test]
    fn production() {
        insta::assert_snapshot!(conf(&[
            ("NATS_HOST", "::"),
            ("NATS_HTTP_HOST", "127.0.0.1"),
            ("JETSTREAM_MAX_MEMORY", "4GB"),
            ("JETSTREAM_MAX_FILE", "50GB"),
            ("JETSTREAM_DOMAIN", "hub"),
            ("JETSTREAM_SYNC_INTERVAL", "always"),
            ("NATS_AUTH_ENABLED", "true"),
            ("NATS_AUTH_USERNAME", "marketprism"),
            ("NATS_AUTH_PASSWORD", "quote\" dollar$ brace} new\nline"),
            ("NATS_MAX_PAYLOAD", "4MB"),
            ("NATS_PING_INTERVAL", "90s"),
            ("NATS_DEBUG", "true"),
        ]));
    }

    #[test]
    fn cluster_with_token_and_without_monitoring() {
        insta::assert_snapshot!(conf(&[
            ("NATS_AUTH_ENABLED", "true"),
            ("NATS_AUTH_TOKEN", "12345"),
            ("MONITORING_ENABLED", "false"),
            ("NATS_CLUSTER_ENABLED", "true"),
            ("NATS_CLUSTER_ROUTES", "nats-route://node2:6222,nats://u:p%40@node3:6222"),
            ("NATS_CLUSTER_ADVERTISE", "node1:6222"),
            ("NATS_CLUSTER_USERNAME", "route"),
            ("NATS_CLUSTER_PASSWORD", "$SECRET"),
        ]));
    }

    #[test]
    fn tls_with_our_own_authority_in_the_bundle() {
        let mut settings = Settings::load(&[], &[]).unwrap().settings;
        settings.tls = Some(crate::settings::TlsSettings {
            cert: "/app/certs/server.crt".into(),
            key: "/app/certs/key \"1\".pem".into(),
            ca: Some("/app/certs/ca.crt".into()),
            verify: true,
            leaf: vec![].into(),
        });
        let ca_bundle = Some("/run/unified-nats/client-ca.pem".into());
        let surroundings = RenderContext { host_name: "node1".into(), ca_bundle, service_users: vec![] };
        insta::assert_snapshot!(render(&settings, &surroundings, Secrets::Written).unwrap());
    }

    #[test]
    fn without_jetstream() {
        insta::assert_snapshot!(conf(&[("JETSTREAM_ENABLED", "false")]));
    }

    fn users_and_us(secrets: Secrets) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users.yml");
        let users = "
users:
  - {user: tell-all, password: tell-nobody}
  - user: reader
    password: $2a$04$tell.nobody.tell.nobody.tell.nobody.tell.nobody.tell.
    permissions: {publish: {deny: [\"admin.>\"]}, subscribe: [\"trade.>\", \"$JS.\\\"x\\\".>\"]}
  - {user: mute, password: tell-nobody, permissions: {publish: [], allow_responses: yes}}
";
        std::fs::write(&path, users).unwrap();
        let pairs = [("NATS_AUTH_ENABLED", "true"), ("NATS_USERS_FILE", path.to_str().unwrap())];
        let settings = Settings::load(&&pairs[..], &[]).unwrap_or_else(|p| panic!("{p}")).settings;
        let only = |subject: &str| {
            let grant = crate::settings::Grant { subject: subject.parse().unwrap(), queue: None };
            crate::settings::Rule { allow: Some(vec![grant]), deny: vec![] }
        };
        let (publish, subscribe) = (only("$JS.API.>"), only("_INBOX.ours.>"));
        let ours = User {
            name: "_unified_nats".into(),
            password: crate::settings::Password::Plain(crate::domain::Secret::new("tell-nobody".into())),
            permissions: Some(crate::settings::Permissions { publish, subscribe, allow_responses: None }),
        };
        render(&settings, &RenderContext { service_users: vec![ours], ..RenderContext::default() }, secrets).unwrap()
    }

    #[test]
    fn users_with_their_rights_and_ours() {
        insta::assert_snapshot!(users_and_us(Secrets::Written));
        let redacted = users_and_us(Secrets::Redacted);
        assert!(!redacted.contains("nobody"), "{redacted}");
    }

    #[test]
    fn redaction_leaves_no_secret() {
        let pairs = [
            ("NATS_AUTH_ENABLED", "true"),
            ("NATS_AUTH_TOKEN", "tell-nobody"),
            ("NATS_CLUSTER_ENABLED", "true"),
            ("NATS_CLUSTER_ROUTES", "nats://u:tell-nobody@node3:6222,nats://node2:6222"),
            ("NATS_CLUSTER_USERNAME", "route"),
            ("NATS_CLUSTER_PASSWORD", "tell-nobody"),
        ];
        assert_eq!(conf(&pairs).matches("tell-nobody").count(), 4);
        let settings = Settings::load(&pairs, &[]).unwrap().settings;
        let shown = render(&settings, &RenderContext::default(), Secrets::Redacted).unwrap();
        assert!(!shown.contains("tell-nobody"), "{shown}");
    }

    #[test]
    fn a_password_that_looks_like_a_hash_is_hashed() {
        let password = "$2a$10$notreallyahash";
        let conf =
            conf(&[("NATS_AUTH_ENABLED", "true"), ("NATS_AUTH_USERNAME", "u"), ("NATS_AUTH_PASSWORD", password)]);
        let line = conf.lines().find(|l| l.contains("password:")).unwrap();
        let written = line.split('"').nth(1).unwrap();
        assert!(!conf.contains(password));
        assert!(bcrypt::verify(password, written).unwrap());
    }

    #[test]
    fn a_strict_broker_opens_no_port_where_nobody_is_asked_for_credentials() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("extra.conf");
        std::fs::write(&path, "ws { port: 8443, no_tls: true }").unwrap();
        let path = path.to_str().unwrap();
        // On loopback nothing else is open.
        let base = [
            ("NATS_EXTRA_CONFIG", path),
            ("NATS_HOST", "127.0.0.1"),
            ("NATS_HTTP_HOST", "127.0.0.1"),
            ("API_HOST", "127.0.0.1"),
        ];
        let render_with = |more: &[(&str, &str)]| {
            let pairs = [&base[..], more].concat();
            let settings = Settings::load(&&pairs[..], &[]).unwrap_or_else(|p| panic!("{p}")).settings;
            render(&settings, &RenderContext::default(), Secrets::Written)
        };
        let users = [("NATS_AUTH_ENABLED", "true"), ("NATS_AUTH_USERNAME", "u"), ("NATS_AUTH_PASSWORD", "p")];
        assert!(render_with(&[]).is_ok());
        assert!(render_with(&[&users[..], &[("SECURITY_STRICT", "true")]].concat()).is_ok());
        let refused = render_with(&[("SECURITY_STRICT", "true")]).unwrap_err().as_problem().unwrap().to_string();
        assert!(refused.contains("SECURITY_STRICT") && refused.contains("NATS_AUTH_ENABLED"), "{refused}");
    }

    #[test]
    fn a_fragment_is_added_and_a_clash_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("extra.conf");
        let render_with = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let pairs = [("NATS_EXTRA_CONFIG", path.to_str().unwrap())];
            let settings = Settings::load(&pairs, &[]).unwrap().settings;
            render(&settings, &RenderContext::default(), Secrets::Written)
        };
        let conf = render_with("mqtt { port 1883 } # x").unwrap();
        assert!(conf.ends_with("# From NATS_EXTRA_CONFIG:\n\"mqtt\": {\n  \"port\": 1883\n}\n"), "{conf}");
        let error = render_with("max_conn: 5").unwrap_err().as_problem().unwrap().to_string();
        assert!(error.contains("max_conn") && error.contains("NATS_MAX_CONNECTIONS"), "{error}");
    }
}
