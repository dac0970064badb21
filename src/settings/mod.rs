//! Text in, typed settings out. After [`Settings::load`] no text means a port, a size, a span of
//! time or a path any more, and everything that contradicts something else has been refused.

mod alerts;
mod api;
mod auth;
mod backup;
mod certificates;
mod cluster;
pub mod declared;
mod document;
mod external;
mod file;
mod grpc;
mod host;
mod jetstream;
mod jwt;
mod logs;
mod market_data;
mod metrics;
mod names;
mod oddity;
mod origin;
mod permissions;
mod planned;
mod problem;
mod range;
mod reader;
mod redaction;
pub mod reference;
mod refined;
mod reservations;
mod secret_file;
mod server;
mod source;
mod stream_checks;
mod streams;
mod supervision;
mod telemetry;
mod tls;
mod together;
mod url;
mod users;
mod values;
pub mod variables;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

pub use alerts::{AlertMail, AlertSettings, MailAddress};
pub use api::{ApiKeys, ApiSettings, CorsOrigins, WebOrigin};
pub use auth::{Authentication, Credentials};
pub use backup::{BackupSettings, S3Credentials, S3Target};
pub use cluster::ClusterSettings;
pub use external::{ClientCertificate, ExternalServer};
pub use file::{ReadFile, read_streams};
pub use grpc::{GrpcSettings, GrpcTls};
pub use host::Host;
pub use jetstream::{Capacity, JetStreamSettings, SyncInterval, describe_unwritable};
pub use jwt::{JwtAlgorithm, JwtKey, JwtSettings};
pub use logs::{LogFormat, LogSettings, ServerLog};
pub use market_data::{Compression, Discard, MarketDataSettings, Retention, Storage};
pub use metrics::{MetricsSettings, ServerIdLabel};
pub use origin::Origin;
pub use permissions::{Grant, Permissions, Responses, Rule};
pub(crate) use problem::quote;
pub use problem::{Problem, Problems};
use reader::Reader;
use redaction::redact;
pub use redaction::{REDACTED, redact_urls};
pub use server::{ExtraConfig, Limits, MemoryLimit, Monitoring, ServerSettings};
pub use source::{ProcessEnvironment, Source};
pub use streams::StreamsSettings;
pub use supervision::{HealthSettings, SupervisionSettings};
pub use telemetry::{OtlpExport, OtlpProtocol, SpanQueue, TelemetrySettings, TraceSampler};
pub use tls::TlsSettings;
pub use url::Url;
pub use users::{Password, User};

use crate::domain::{ServerName, Subject};

/// Everything the program acts on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// External mode: a server that others run. Then nothing counts that describes one of our own.
    pub external: Option<ExternalServer>,
    pub server: ServerSettings,
    pub jetstream: JetStreamSettings,
    pub market_data: MarketDataSettings,
    pub streams: StreamsSettings,
    pub authentication: Authentication,
    /// What is shown to a server that others run.
    pub credentials: Option<Credentials>,
    pub tls: Option<TlsSettings>,
    pub cluster: Option<ClusterSettings>,
    pub supervision: SupervisionSettings,
    pub health: HealthSettings,
    pub logs: LogSettings,
    pub api: ApiSettings,
    pub grpc: GrpcSettings,
    pub metrics: MetricsSettings,
    pub alerts: AlertSettings,
    pub telemetry: TelemetrySettings,
    pub backup: BackupSettings,
    /// What listens without asking for credentials on an address that is not loopback.
    pub unauthenticated_listeners: Vec<UnauthenticatedListener>,
}

/// What settings are wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Running a broker, or saying whether one could run.
    Run,
    /// Talking to a broker that runs.
    Talk,
    /// Showing what is set to whoever asks, who may have fewer rights than the broker.
    Show,
}

/// Files and directories that only a broker touches. Who talks to it may be somebody who has no rights there.
static OF_THE_BROKER: [&variables::Variable; 4] = [
    &variables::JETSTREAM_STORE_DIR,
    &variables::NATS_CONFIG_FILE,
    &variables::NATS_EXTRA_CONFIG,
    &variables::NATS_LOG_FILE,
];

/// Settings together with what the operator should hear about them.
#[derive(Debug)]
pub struct Loaded {
    pub settings: Settings,
    pub warnings: Vec<String>,
    pub effective: Vec<Effective>,
    /// For [`Purpose::Show`]: what whoever asks may not read or write. What files say is missing then.
    pub denied: Vec<Problem>,
}

/// One variable as it is in force.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Effective {
    pub name: &'static str,
    /// Redacted if secret; [`None`] when nothing is set and there is no default.
    pub value: Option<String>,
    pub origin: String,
    /// Tells values apart that are not shown.
    #[serde(skip)]
    fingerprint: u64,
}

impl Effective {
    /// Whether the same variable has another value, secret or not.
    pub fn differs_from(&self, other: &Self) -> bool {
        self.fingerprint != other.fingerprint
    }
}

fn fingerprint(value: Option<&str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Something that is open to everybody who reaches the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnauthenticatedListener {
    Nats,
    Monitoring,
    Api,
    Metrics,
}

impl UnauthenticatedListener {
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Nats => {
                "NATS accepts anybody on an address that is not loopback; set NATS_AUTH_ENABLED=true (without containers NATS_HOST=127.0.0.1 will do)"
            }
            Self::Monitoring => {
                "NATS monitoring answers anybody on an address that is not loopback; set NATS_HTTP_HOST=127.0.0.1 (in a container it then answers inside only)"
            }
            Self::Api => {
                "the REST API serves anybody on an address that is not loopback; set API_TOKEN, or NATS_AUTH_ENABLED=true (without containers API_HOST=127.0.0.1 will do)"
            }
            Self::Metrics => {
                "the port for metrics answers anybody on an address that is not loopback; set PROMETHEUS_HOST=127.0.0.1, or PROMETHEUS_ENABLED=false and scrape /metrics on the API port with a token"
            }
        }
    }
}

impl Settings {
    /// Reads and validates everything; all problems come back at once.
    pub fn load(source: &dyn Source, flags: &[(&'static str, String)]) -> Result<Loaded, Problems> {
        Self::load_for(Purpose::Run, source, flags)
    }

    /// The same for that purpose.
    pub fn load_for(
        purpose: Purpose,
        source: &dyn Source,
        flags: &[(&'static str, String)],
    ) -> Result<Loaded, Problems> {
        let mut problems = Problems::default();
        let mut collected = source::collect(source, flags, &mut problems);
        let mut warnings = std::mem::take(&mut collected.warnings);
        let environment = &collected.environment;
        let mut reader = Reader { environment, problems: &mut problems, warnings: &mut warnings };

        let external = ExternalServer::read(&mut reader);
        let jetstream_enabled = reader.bool(&variables::JETSTREAM_ENABLED);
        // What describes a server of our own is nobody's problem where there is none.
        let mut ignored = (Problems::default(), vec![]);
        let mut own = match &external {
            None => reader.again(),
            Some(_) => Reader { environment, problems: &mut ignored.0, warnings: &mut ignored.1 },
        };
        let server = ServerSettings::read(&mut own);
        let cluster = ClusterSettings::read(&mut own, &server.host).filter(|_| external.is_none());
        let jetstream = JetStreamSettings::read(&mut own, jetstream_enabled);
        let tls = TlsSettings::read(&mut own, purpose).filter(|_| external.is_none());
        let capacity = external.is_none().then(|| jetstream.capacity(cluster.is_some()));
        let market_data = MarketDataSettings::read(&mut reader, capacity.as_ref());
        let mut file = std::mem::take(&mut collected.file);
        let users = std::mem::take(&mut file.users);
        let streams = StreamsSettings::read(&mut reader, file, &market_data, capacity);
        stream_checks::check(&streams, &market_data, &mut reader);
        let (authentication, credentials) = match &external {
            None => (Authentication::read(&mut reader, users), None),
            Some(external) => (Authentication::Open, Credentials::read(&mut reader, external)),
        };
        let supervision = SupervisionSettings::read(&mut reader);
        let health = HealthSettings::read(&mut reader);
        let logs = LogSettings::read(&mut reader);
        let api = ApiSettings::read(&mut reader);
        let grpc = GrpcSettings::read(&mut reader, purpose);
        let metrics = MetricsSettings::read(&mut reader);
        let alerts = AlertSettings::read(&mut reader);
        let telemetry = TelemetrySettings::read(&mut reader);
        let backup = BackupSettings::read(&mut reader);
        let mut settings = Self {
            unauthenticated_listeners: Vec::new(),
            external,
            server,
            jetstream,
            market_data,
            streams,
            authentication,
            credentials,
            tls,
            cluster,
            supervision,
            health,
            logs,
            api,
            grpc,
            metrics,
            alerts,
            telemetry,
            backup,
        };
        settings.check_ports(&mut reader);
        settings.find_open_doors(&mut reader);
        if settings.external.is_none() {
            settings.check_connect_line(&mut reader);
        }
        reader.warn_of_odd_texts();
        if purpose == Purpose::Talk {
            problems.list.retain(|problem| !OF_THE_BROKER.iter().any(|variable| variable.name == problem.variable));
        }
        let denied = match purpose {
            Purpose::Show => problems.list.extract_if(.., |problem| problem.is_of_rights()).collect(),
            Purpose::Run | Purpose::Talk => vec![],
        };
        if !problems.is_empty() {
            problems.name_files(&collected.origins);
            return Err(Problems { warnings, ..problems });
        }
        warnings.extend(planned::warning(&collected));
        let effective = effective(&collected.environment, &collected.origins);
        Ok(Loaded { settings, warnings, effective, denied })
    }

    /// The subjects that streams are to capture, each with its stream; none without JetStream.
    pub fn captured_subjects(&self) -> Vec<(String, Subject)> {
        match self.jetstream.enabled {
            true => together::captured(&self.streams, &self.market_data),
            false => vec![],
        }
    }

    /// Whether what streams hold is compared with what they held. Of a server that others run we do not
    /// know what they did to it.
    pub fn looks_after_messages(&self) -> bool {
        self.jetstream.enabled && self.external.is_none()
    }

    /// Whether JetStream runs on several nodes, of which ours is one.
    pub fn clusters_jetstream(&self) -> bool {
        self.jetstream.enabled && self.cluster.is_some()
    }

    /// Whether the server may be one of several, of which some may be away.
    pub fn may_be_clustered(&self) -> bool {
        self.cluster.is_some() || self.external.is_some()
    }

    /// Every port in use, with the variable that sets it.
    fn ports(&self) -> impl Iterator<Item = (&'static str, u16)> {
        let grpc = self.grpc.enabled.then_some((variables::GRPC_PORT.name, self.grpc.port.get()));
        self.own_ports().chain(grpc)
    }

    /// The same of what this version has.
    pub fn own_ports(&self) -> impl Iterator<Item = (&'static str, u16)> {
        let own = self.external.is_none();
        let monitoring = self.server.monitoring.as_ref().filter(|_| own).map(|monitoring| monitoring.port.get());
        [
            (variables::NATS_PORT.name, own.then_some(self.server.port.get())),
            (variables::API_PORT.name, Some(self.api.port.get())),
            (variables::NATS_HTTP_PORT.name, monitoring),
            (variables::PROMETHEUS_PORT.name, self.metrics.enabled.then_some(self.metrics.port.get())),
            (
                variables::NATS_CLUSTER_PORT.name,
                self.cluster.as_ref().filter(|_| own).map(|cluster| cluster.port.get()),
            ),
        ]
        .into_iter()
        .filter_map(|(name, port)| Some((name, port?)))
    }

    fn check_ports(&self, reader: &mut Reader) {
        let mut seen: BTreeMap<u16, &str> = BTreeMap::new();
        let wrong: Vec<_> = reader.problems.list.iter().map(|problem| problem.variable.clone()).collect();
        // The default that stands in for a value that cannot be used clashes with nothing.
        for (variable, port) in self.ports().filter(|(name, _)| !wrong.contains(&(*name).into())) {
            if let Some(other) = seen.insert(port, variable) {
                reader.problems.add(
                    format!("{other}, {variable}"),
                    format!("port {port} twice"),
                    "all ports in use must be distinct",
                    "give one of them another port",
                );
            }
        }
    }

    /// Clients send their credentials in one JSON line, which nats-server bounds.
    fn check_connect_line(&self, reader: &mut Reader) {
        /// What client libraries send besides.
        const REST: usize = 512;
        let escaped = |text: &str| serde_json::to_string(text).map_or(text.len(), |json| json.len());
        let of_user = |user: &User| match &user.password {
            Password::Plain(password) => escaped(&user.name) + escaped(password.expose()),
            // bcrypt looks at 72 bytes.
            Password::Hash(_) => escaped(&user.name) + 72,
            // And a signature.
            Password::Nkey => escaped(&user.name) + 90,
        };
        let credentials = match &self.authentication {
            Authentication::Open => 0,
            Authentication::Users(users) => users.iter().map(of_user).max().unwrap_or_default(),
            Authentication::Token(token) => escaped(token.expose()),
        };
        let line = self.server.limits.max_control_line;
        if credentials > 0 && (credentials + REST) as u64 > line.bytes() {
            reader.problems.add(
                "NATS_MAX_CONTROL_LINE",
                format!("{} bytes with credentials that take {credentials} bytes in JSON", line.bytes()),
                "clients could never log in: their CONNECT line would be longer",
                "raise NATS_MAX_CONTROL_LINE, or shorten the credentials",
            );
        }
    }

    fn find_open_doors(&mut self, reader: &mut Reader) {
        // Those of a server that others run are theirs.
        let own = self.external.is_none();
        // Client certificates keep strangers out as well as passwords do.
        let certificates = self.tls.as_ref().is_some_and(|tls| tls.verify);
        if own && self.authentication.is_open() && !certificates && !self.server.host.is_loopback() {
            self.unauthenticated_listeners.push(UnauthenticatedListener::Nats);
        }
        if own && self.server.monitoring.as_ref().is_some_and(|m| !m.host.is_loopback()) {
            self.unauthenticated_listeners.push(UnauthenticatedListener::Monitoring);
        }
        if self.api.enabled && self.api_keys().is_open() && !self.api.host.is_loopback() {
            self.unauthenticated_listeners.push(UnauthenticatedListener::Api);
        }
        if self.metrics.enabled && !self.metrics.host.is_loopback() {
            self.unauthenticated_listeners.push(UnauthenticatedListener::Metrics);
        }
        if self.api.strict {
            for door in &self.unauthenticated_listeners {
                reader.problems.add("SECURITY_STRICT", "\"true\"", door.describe(), "or set SECURITY_STRICT=false");
            }
        }
    }

    /// The name nats-server gives itself. In a cluster every node needs a name of its own, so the
    /// host name follows the default.
    pub fn server_name(&self, host_name: &str) -> String {
        let default = variables::NATS_SERVER_NAME.default.fixed().unwrap_or_default();
        match (&self.server.name, &self.cluster) {
            (Some(name), _) => name.to_string(),
            (None, None) => default.to_owned(),
            (None, Some(_)) => {
                let with_host = format!("{default}-{host_name}");
                with_host.parse::<ServerName>().map_or_else(|_| default.to_owned(), |name| name.to_string())
            }
        }
    }
}

fn effective(environment: &variables::Environment, origins: &BTreeMap<&'static str, Origin>) -> Vec<Effective> {
    variables::ALL
        .iter()
        .map(|variable| {
            let set = (variable.value)(environment);
            let value = match (set, variable.default) {
                (Some(_), _) if variable.secret => Some(REDACTED.to_owned()),
                (Some(value), _) => Some(redact(value)),
                (None, variables::DefaultValue::Fixed(value)) => Some(value.to_owned()),
                (None, variables::DefaultValue::Derived(words)) => Some(format!("({words})")),
                (None, variables::DefaultValue::Unset) => None,
            };
            let origin = origins.get(variable.name).unwrap_or(&Origin::Default).to_string();
            Effective { name: variable.name, value, origin, fingerprint: fingerprint(set) }
        })
        .collect()
}

#[cfg(test)]
mod tests;
