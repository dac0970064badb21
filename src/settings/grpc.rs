//! The gRPC message bus: its port, who is let in, and when subscriptions end.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use super::Purpose;
use super::certificates::Role;
use super::host::Host;
use super::jwt::JwtSettings;
use super::reader::Reader;
use super::tls::check_pair;
use super::values::parse_bool;
use super::variables::*;
use crate::domain::ByteSize;

#[derive(Clone, Debug)]
pub struct GrpcSettings {
    pub enabled: bool,
    pub host: Host,
    pub port: NonZeroU16,
    pub max_message_size: ByteSize,
    /// [`None`]: calls are not encrypted.
    pub tls: Option<GrpcTls>,
    /// [`None`]: anybody may call.
    pub jwt: Option<JwtSettings>,
    /// After so long without a caller the subscriptions go that nobody has named; [`None`]: never.
    pub subscription_idle: Option<Duration>,
}

/// The files of a gRPC port that speaks TLS.
#[derive(Clone, Debug)]
pub struct GrpcTls {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Callers must show a certificate of an authority in this file.
    pub client_ca: Option<PathBuf>,
}

impl GrpcSettings {
    /// Who only talks to the broker, or shows settings, needs neither its keys nor its secrets.
    pub fn read(reader: &mut Reader, purpose: Purpose) -> Self {
        let enabled = reader.bool(&GRPC_ENABLED);
        let idle = reader.span(&GRPC_SUBSCRIPTION_IDLE);
        let settings = Self {
            enabled,
            host: reader.host(&GRPC_HOST, None),
            port: reader.port(&GRPC_PORT),
            max_message_size: reader.size(&GRPC_MAX_MESSAGE_SIZE),
            tls: GrpcTls::read(reader, purpose, enabled),
            jwt: JwtSettings::read(reader, purpose),
            subscription_idle: (!idle.is_zero()).then_some(idle),
        };
        settings.check_old_switch(reader);
        settings
    }

    /// Authentication that is asked for by its old name must not be off without a word.
    fn check_old_switch(&self, reader: &mut Reader) {
        let asked = reader.optional(&MB_ENABLE_AUTH, parse_bool);
        let has_key = reader.is_set(&GRPC_JWT_PUBLIC_KEY_FILE) || reader.is_set(&GRPC_JWT_SECRET_FILE);
        match asked {
            Some(true) if self.enabled && !has_key => reader.problems.add(
                "MB_ENABLE_AUTH",
                "true without a key for tokens",
                "authentication is on when GRPC_JWT_PUBLIC_KEY_FILE or GRPC_JWT_SECRET_FILE is set",
                "set one of the two, or unset MB_ENABLE_AUTH",
            ),
            Some(false) if has_key => reader.warnings.push(
                "MB_ENABLE_AUTH is false, but there is a key for tokens, so callers need one; unset \
                 GRPC_JWT_PUBLIC_KEY_FILE and GRPC_JWT_SECRET_FILE to let anybody in"
                    .into(),
            ),
            _ => {}
        }
    }
}

impl GrpcTls {
    fn read(reader: &mut Reader, purpose: Purpose, enabled: bool) -> Option<Self> {
        let [cert, key, client_ca] =
            [&GRPC_TLS_CERT, &GRPC_TLS_KEY, &GRPC_TLS_CLIENT_CA].map(|variable| match purpose {
                Purpose::Run => reader.readable_file(variable),
                Purpose::Talk | Purpose::Show => reader.path(variable),
            });
        if reader.is_set(&GRPC_TLS_CERT) != reader.is_set(&GRPC_TLS_KEY) {
            reader.refuse_half(&GRPC_TLS_CERT, &GRPC_TLS_KEY);
        } else if client_ca.is_some() && !reader.is_set(&GRPC_TLS_CERT) {
            reader.refuse(&GRPC_TLS_CLIENT_CA, "GRPC_TLS_CERT is not set, so no caller is asked for a certificate");
        }
        let (cert, key) = (cert?, key?);
        if enabled && purpose == Purpose::Run {
            check_pair(reader, [&GRPC_TLS_CERT, &GRPC_TLS_KEY], &cert, &key, Role::Server);
        }
        Some(Self { cert, key, client_ca })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::load;

    #[test]
    fn defaults_are_off_and_open_as_the_old_bus_was() {
        let grpc = load(&[]).unwrap().settings.grpc;
        assert!(!grpc.enabled && grpc.tls.is_none() && grpc.jwt.is_none());
        assert_eq!((grpc.host.as_str(), grpc.port.get()), ("0.0.0.0", 50051));
        assert_eq!((grpc.max_message_size.bytes(), grpc.subscription_idle), (4 << 20, Some(Duration::from_secs(600))));
        let never = load(&[("GRPC_SUBSCRIPTION_IDLE", "0")]).unwrap().settings.grpc;
        assert_eq!(never.subscription_idle, None);
    }

    #[test]
    fn authentication_that_was_asked_for_is_not_off_without_a_word() {
        let refused = load(&[("GRPC_ENABLED", "true"), ("MB_ENABLE_AUTH", "true")]).unwrap_err();
        assert_eq!(refused.list.len(), 1, "{refused}");
        assert!(refused.to_string().contains("MB_ENABLE_AUTH: cannot use true without a key"), "{refused}");
        // An old file may name it where there is no bus.
        load(&[("MB_ENABLE_AUTH", "true")]).unwrap();
        load(&[("GRPC_ENABLED", "true"), ("MB_ENABLE_AUTH", "false")]).unwrap();
    }

    #[test]
    fn a_certificate_of_callers_is_asked_for_over_tls_only() {
        let refused = load(&[("GRPC_TLS_CLIENT_CA", "/etc/hostname")]).unwrap_err();
        assert!(refused.list.len() == 1 && refused.to_string().contains("GRPC_TLS_CERT is not set"), "{refused}");
        let pair = [("GRPC_TLS_CERT", "/etc/hostname"), ("GRPC_TLS_KEY", "/etc/hostname")];
        assert!(load(&pair).unwrap().settings.grpc.tls.is_some(), "it is read once the bus is on");
        let refused = load(&[pair[0], pair[1], ("GRPC_ENABLED", "true")]).unwrap_err();
        assert!(refused.list.len() == 1 && refused.list[0].variable == "GRPC_TLS_CERT", "{refused}");
    }
}
