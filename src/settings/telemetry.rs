//! OpenTelemetry: where traces and metrics are sent, by the names and forms that its standard has.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::reader::Reader;
use super::url::Url;
use super::values::{listed, percent_decoded};
use super::variables::*;
use crate::domain::{Ratio, Secret};

#[derive(Clone, Debug)]
pub struct TelemetrySettings {
    /// [`None`]: nothing is sent.
    pub export: Option<OtlpExport>,
    /// The name of this service is the first of them.
    pub resource_attributes: Vec<(String, String)>,
    pub sampler: TraceSampler,
}

/// How traces and metrics reach the collector.
#[derive(Clone, Debug)]
pub struct OtlpExport {
    /// [`None`]: no traces are sent.
    pub traces: Option<Url>,
    /// [`None`]: no metrics are sent.
    pub metrics: Option<Url>,
    pub protocol: OtlpProtocol,
    /// They carry credentials.
    pub headers: Vec<(String, Secret)>,
    pub timeout: Duration,
    /// With gzip.
    pub compressed: bool,
    /// Who vouches for the collector; [`None`]: those whom browsers and the system trust.
    pub authorities: Option<PathBuf>,
    pub metric_interval: Duration,
    pub spans: SpanQueue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    HttpProtobuf,
    HttpJson,
}

/// How spans wait for the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanQueue {
    /// So many at most.
    pub most: usize,
    /// So many are sent at a time.
    pub batch: usize,
    /// So long for others to come.
    pub delay: Duration,
}

/// Which traces are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TraceSampler {
    /// Who began a trace elsewhere has decided.
    pub parent_based: bool,
    /// This part of all others; 0 and 1 are none and all.
    pub ratio: Ratio,
}

#[derive(Clone, Copy)]
enum Part {
    All,
    None,
    Argument,
}

const SERVICE_NAME: &str = "service.name";

impl TelemetrySettings {
    pub fn read(reader: &mut Reader) -> Self {
        let disabled = reader.bool(&OTEL_SDK_DISABLED);
        let export = OtlpExport::read(reader, disabled);
        let mut resource_attributes = reader.optional(&OTEL_RESOURCE_ATTRIBUTES, parse_pairs).unwrap_or_default();
        let name = reader.text(&OTEL_SERVICE_NAME).unwrap_or_default();
        let named = resource_attributes.iter().position(|(key, _)| key == SERVICE_NAME);
        let name = match named.map(|at| resource_attributes.remove(at)) {
            Some(named) if !reader.is_set(&OTEL_SERVICE_NAME) => named,
            _ => (SERVICE_NAME.to_owned(), name),
        };
        resource_attributes.insert(0, name);
        Self { export, resource_attributes, sampler: TraceSampler::read(reader) }
    }
}

impl OtlpExport {
    fn read(reader: &mut Reader, disabled: bool) -> Option<Self> {
        let base = reader.optional(&OTEL_EXPORTER_OTLP_ENDPOINT, |text| match text.contains(['?', '#']) {
            true => Err("it has a query: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and …_METRICS_ENDPOINT may".into()),
            false => Url::parse(text, &["http", "https"]),
        });
        let mut signal = |own: &Variable, exporter: &Variable, path: &str| {
            let url = reader.url(own, &["http", "https"]).or_else(|| Some(base.as_ref()?.below(path)));
            let is_wanted = reader.choice(exporter, &[("otlp", true), ("none", false)]);
            url.filter(|_| is_wanted && !disabled)
        };
        let traces = signal(&OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, &OTEL_TRACES_EXPORTER, "/v1/traces");
        let metrics = signal(&OTEL_EXPORTER_OTLP_METRICS_ENDPOINT, &OTEL_METRICS_EXPORTER, "/v1/metrics");
        let is_sent = traces.is_some() || metrics.is_some();
        let headers = reader.optional(&OTEL_EXPORTER_OTLP_HEADERS, parse_headers).unwrap_or_default();
        let export = Self {
            protocol: read_protocol(reader, is_sent),
            headers: headers.into_iter().map(|(name, value)| (name, Secret::new(value))).collect(),
            timeout: milliseconds(reader, &OTEL_EXPORTER_OTLP_TIMEOUT),
            compressed: reader.choice(&OTEL_EXPORTER_OTLP_COMPRESSION, &[("none", false), ("gzip", true)]),
            authorities: read_authorities(reader),
            metric_interval: milliseconds(reader, &OTEL_METRIC_EXPORT_INTERVAL),
            spans: SpanQueue::read(reader),
            traces,
            metrics,
        };
        if is_sent {
            export.warn_of_grpc_s_port(reader);
        }
        is_sent.then_some(export)
    }

    /// By convention it is that of gRPC, and whoever listens there understands no HTTP/1.1.
    fn warn_of_grpc_s_port(&self, reader: &mut Reader) {
        let is_grpc_s = |url: &Url| {
            let address = url.as_str().split("://").nth(1).and_then(|rest| rest.split('/').next());
            address.is_some_and(|address| address.ends_with(":4317"))
        };
        if self.traces.iter().chain(&self.metrics).any(is_grpc_s) {
            let warning = "the OpenTelemetry collector is at port 4317, where collectors speak gRPC: OTLP over HTTP is \
                           at port 4318 as a rule";
            reader.warnings.push(warning.into());
        }
    }
}

/// gRPC is refused only where something would be sent: all programs of a machine may share the variable.
fn read_protocol(reader: &mut Reader, is_sent: bool) -> OtlpProtocol {
    let http = OtlpProtocol::HttpProtobuf;
    if reader.set(&OTEL_EXPORTER_OTLP_PROTOCOL).is_some_and(|protocol| protocol.eq_ignore_ascii_case("grpc")) {
        if is_sent {
            let reason = "this version speaks no gRPC; collectors take http/protobuf at port 4318 as a rule";
            reader.refuse(&OTEL_EXPORTER_OTLP_PROTOCOL, reason);
        }
        return http;
    }
    reader.choice(&OTEL_EXPORTER_OTLP_PROTOCOL, &[("http/protobuf", http), ("http/json", OtlpProtocol::HttpJson)])
}

fn read_authorities(reader: &mut Reader) -> Option<PathBuf> {
    let path = reader.readable_file(&OTEL_EXPORTER_OTLP_CERTIFICATE)?;
    let read = CertificateDer::pem_file_iter(&path).and_then(|found| found.collect::<Result<Vec<_>, _>>());
    match read {
        Ok(found) if !found.is_empty() => Some(path),
        _ => {
            reader.refuse(&OTEL_EXPORTER_OTLP_CERTIFICATE, "it holds no certificate");
            None
        }
    }
}

impl SpanQueue {
    fn read(reader: &mut Reader) -> Self {
        let mut count = |variable| usize::try_from(reader.number(variable)).unwrap_or(usize::MAX);
        let (most, batch) = (count(&OTEL_BSP_MAX_QUEUE_SIZE), count(&OTEL_BSP_MAX_EXPORT_BATCH_SIZE));
        // The default goes down with a queue that is shorter.
        if batch > most && reader.is_set(&OTEL_BSP_MAX_EXPORT_BATCH_SIZE) {
            reader.refuse(&OTEL_BSP_MAX_EXPORT_BATCH_SIZE, "");
        }
        Self { most, batch: batch.min(most), delay: milliseconds(reader, &OTEL_BSP_SCHEDULE_DELAY) }
    }
}

impl TraceSampler {
    fn read(reader: &mut Reader) -> Self {
        let (parent_based, part) = reader.choice(
            &OTEL_TRACES_SAMPLER,
            &[
                ("always_on", (false, Part::All)),
                ("always_off", (false, Part::None)),
                ("traceidratio", (false, Part::Argument)),
                ("parentbased_always_on", (true, Part::All)),
                ("parentbased_always_off", (true, Part::None)),
                ("parentbased_traceidratio", (true, Part::Argument)),
            ],
        );
        let argument = reader.ratio(&OTEL_TRACES_SAMPLER_ARG);
        let ratio = match part {
            Part::All => Ratio::ALL,
            Part::None => Ratio::NONE,
            Part::Argument => argument,
        };
        Self { parent_based, ratio }
    }
}

/// The standard has milliseconds without a unit.
fn milliseconds(reader: &mut Reader, variable: &Variable) -> Duration {
    Duration::from_millis(reader.number(variable).unsigned_abs())
}

/// `key=value,key=value`, the values percent-encoded. No reason shows what was there: it may be a credential.
fn parse_pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    listed(text, |entry| {
        let (key, value) = entry.split_once('=').ok_or("an entry has no =")?;
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() {
            return Err("an entry has no key before its =".into());
        }
        let value = percent_decoded(value).ok_or("a value is not percent-encoded UTF-8")?;
        if key.chars().chain(value.chars()).any(char::is_control) {
            return Err("an entry holds a control character".into());
        }
        Ok((key.to_owned(), value))
    })
}

/// The same as headers of HTTP, without those that say how a request is framed.
fn parse_headers(text: &str) -> Result<Vec<(String, String)>, String> {
    const OURS: [&str; 5] = ["connection", "content-encoding", "content-length", "host", "transfer-encoding"];
    let pairs = parse_pairs(text)?;
    for (name, value) in &pairs {
        let name: HeaderName = name.parse().map_err(|_| "a key is no name of a header")?;
        if OURS.contains(&name.as_str()) {
            return Err(format!("the header {name} is not for others to set"));
        }
        let is_visible = value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if !is_visible || value.parse::<HeaderValue>().is_err() {
            return Err("a value is not of visible ASCII characters".into());
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests;
