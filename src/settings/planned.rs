//! Variables of parts that this version does not have: validated all the same, so that a file that
//! passes today passes tomorrow, and named in one warning when they are set to something else than
//! their default.

use super::reader::Reader;
use super::source::Collected;
use super::url::parse_url;
use super::values::parse_bool;
use super::variables::{self, *};
use crate::domain::{DataType, parse_span};

pub fn read(reader: &mut Reader) -> EnabledPorts {
    read_alerts(reader);
    read_backup(reader);
    for variable in [&GRPC_TLS_CERT, &GRPC_TLS_KEY, &GRPC_TLS_CLIENT_CA, &GRPC_JWT_PUBLIC_KEY_FILE] {
        reader.readable_file(variable);
    }
    for variable in [&GRPC_JWT_ISSUER, &GRPC_JWT_AUDIENCE] {
        reader.text(variable);
    }
    reader.optional(&MB_ENABLE_AUTH, parse_bool);
    reader.size(&GRPC_MAX_MESSAGE_SIZE);
    reader.url(&OTEL_EXPORTER_OTLP_ENDPOINT, &["http", "https"]);
    reader.host(&GRPC_HOST, None);
    reader.host(&PROMETHEUS_HOST, None);
    if reader.is_set(&GRPC_TLS_CERT) != reader.is_set(&GRPC_TLS_KEY) {
        together(reader, "GRPC_TLS_CERT, GRPC_TLS_KEY");
    }
    EnabledPorts {
        grpc: (reader.bool(&GRPC_ENABLED), reader.port(&GRPC_PORT).get()),
        prometheus: (reader.bool(&PROMETHEUS_ENABLED), reader.port(&PROMETHEUS_PORT).get()),
    }
}

/// Ports of parts to come: whether the part is switched on, and its port.
pub struct EnabledPorts {
    pub grpc: (bool, u16),
    pub prometheus: (bool, u16),
}

fn together(reader: &mut Reader, variables: &str) {
    reader.problems.add(variables, "one without the other", "they go together", "set both or none");
}

fn read_alerts(reader: &mut Reader) {
    reader.optional(&PROMETHEUS_PREFIX, |text| {
        let word = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if word && !text.starts_with(|c: char| c.is_ascii_digit()) { Ok(()) } else { Err(String::new()) }
    });
    reader.optional(&FAMILY_STALE_AFTER, parse_family_spans);
    reader.url(&ALERT_WEBHOOK_URL, &["http", "https"]);
    reader.url(&ALERT_SLACK_WEBHOOK, &["http", "https"]);
    reader.url(&ALERT_SMTP_URL, &["smtp", "smtps"]);
    for variable in [&ALERT_EMAIL, &ALERT_EMAIL_FROM] {
        reader.optional(variable, |text| match text.split_once('@') {
            Some((name, host)) if !name.is_empty() && host.contains('.') && !text.contains(char::is_whitespace) => {
                Ok(())
            }
            _ => Err(String::new()),
        });
    }
    for variable in [&ALERT_MEMORY_RATIO, &ALERT_DISK_RATIO, &ALERT_CONNECTIONS_RATIO, &ALERT_STREAM_RATIO] {
        reader.ratio(variable);
    }
    reader.number(&ALERT_CONSUMER_LAG);
    reader.span(&ALERT_MIN_INTERVAL);
    if reader.is_set(&ALERT_EMAIL) && !reader.is_set(&ALERT_SMTP_URL) {
        reader.warnings.push("ALERT_EMAIL is set without ALERT_SMTP_URL: no mail can be sent".into());
    }
}

fn parse_family_spans(text: &str) -> Result<(), String> {
    text.split(',').try_for_each(|entry| {
        let (family, span) = entry.split_once('=').ok_or("an entry has no =")?;
        if !DataType::ALL.iter().any(|d| d.name() == family) {
            return Err(format!("{family:?} is not a data type"));
        }
        parse_span(span).map(drop)
    })
}

fn read_backup(reader: &mut Reader) {
    reader.bool(&BACKUP_ENABLED);
    reader.span(&BACKUP_INTERVAL);
    reader.number(&BACKUP_RETENTION_DAYS);
    reader.path(&BACKUP_DIR);
    for variable in [&BACKUP_S3_BUCKET, &BACKUP_S3_REGION, &BACKUP_S3_PREFIX] {
        reader.text(variable);
    }
    reader.optional(&BACKUP_S3_ENDPOINT, |text| parse_url(text, &["http", "https"]));
    for variable in [&AWS_ACCESS_KEY_ID, &AWS_SECRET_ACCESS_KEY] {
        reader.secret(variable);
    }
    if reader.is_set(&AWS_ACCESS_KEY_ID) != reader.is_set(&AWS_SECRET_ACCESS_KEY) {
        together(reader, "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY");
    }
}

/// The one warning about variables that are set in vain.
pub fn warning(collected: &Collected) -> Option<String> {
    let in_vain: Vec<_> = variables::ALL
        .iter()
        .filter(|variable| {
            let value = (variable.value)(&collected.environment);
            value.is_some() && value != variable.default.fixed()
        })
        .filter_map(|variable| variable.not_yet_implemented.map(|part| format!("{} ({part})", variable.name)))
        .collect();
    (!in_vain.is_empty())
        .then(|| format!("set, but this version does not have what they control: {}", in_vain.join(", ")))
}
