//! OpenTelemetry: where traces and metrics are sent, by the names and forms that its standard has.

use std::time::Duration;

use super::reader::Reader;
use super::url::Url;
use super::values::{listed, percent_decoded};
use super::variables::*;
use crate::domain::{Ratio, Secret};

#[derive(Clone, Debug)]
pub struct TelemetrySettings {
    /// [`None`]: nothing is sent.
    pub collector: Option<OtlpCollector>,
    pub service_name: String,
    pub resource_attributes: Vec<(String, String)>,
    pub metric_interval: Duration,
    pub sampler: TraceSampler,
}

#[derive(Clone, Debug)]
pub struct OtlpCollector {
    pub endpoint: Url,
    pub protocol: OtlpProtocol,
    /// They carry credentials.
    pub headers: Vec<(String, Secret)>,
    pub timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    Grpc,
    HttpProtobuf,
    HttpJson,
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

impl TelemetrySettings {
    pub fn read(reader: &mut Reader) -> Self {
        let disabled = reader.bool(&OTEL_SDK_DISABLED);
        let collector = OtlpCollector::read(reader);
        Self {
            collector: collector.filter(|_| !disabled),
            service_name: reader.text(&OTEL_SERVICE_NAME).unwrap_or_else(|| "unified-nats".into()),
            resource_attributes: reader.optional(&OTEL_RESOURCE_ATTRIBUTES, parse_pairs).unwrap_or_default(),
            metric_interval: milliseconds(reader, &OTEL_METRIC_EXPORT_INTERVAL),
            sampler: TraceSampler::read(reader),
        }
    }
}

impl OtlpCollector {
    fn read(reader: &mut Reader) -> Option<Self> {
        let endpoint = reader.url(&OTEL_EXPORTER_OTLP_ENDPOINT, &["http", "https"]);
        let protocol = reader.choice(
            &OTEL_EXPORTER_OTLP_PROTOCOL,
            &[
                ("grpc", OtlpProtocol::Grpc),
                ("http/protobuf", OtlpProtocol::HttpProtobuf),
                ("http/json", OtlpProtocol::HttpJson),
            ],
        );
        let headers = reader.optional(&OTEL_EXPORTER_OTLP_HEADERS, parse_pairs).unwrap_or_default();
        let headers = headers.into_iter().map(|(name, value)| (name, Secret::new(value))).collect();
        let timeout = milliseconds(reader, &OTEL_EXPORTER_OTLP_TIMEOUT);
        Some(Self { endpoint: endpoint?, protocol, headers, timeout })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::load;

    fn telemetry(pairs: &[(&str, &str)]) -> TelemetrySettings {
        load(pairs).unwrap_or_else(|problems| panic!("{problems}")).settings.telemetry
    }

    #[test]
    fn nothing_is_sent_by_default_or_when_it_is_disabled() {
        let defaults = telemetry(&[]);
        assert!(defaults.collector.is_none() && defaults.resource_attributes.is_empty());
        assert_eq!((defaults.service_name.as_str(), defaults.metric_interval.as_secs()), ("unified-nats", 60));
        assert_eq!(defaults.sampler, TraceSampler { parent_based: true, ratio: Ratio::ALL });
        let disabled = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4318"), ("OTEL_SDK_DISABLED", "true")];
        assert!(telemetry(&disabled).collector.is_none());
    }

    #[test]
    fn a_collector_has_what_the_standard_says_and_its_credentials_are_not_printed() {
        let telemetry = telemetry(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://u:tell-nobody@otel:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20tell-nobody, x-scope = a"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=prod,team=a%2Cb"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ]);
        assert!(!format!("{telemetry:?}").contains("tell-nobody"), "{telemetry:?}");
        assert_eq!(telemetry.resource_attributes[1], ("team".to_owned(), "a,b".to_owned()));
        assert_eq!(telemetry.sampler, TraceSampler { parent_based: false, ratio: Ratio::new(0.25).unwrap() });
        let collector = telemetry.collector.unwrap();
        assert_eq!((collector.protocol, collector.timeout.as_millis()), (OtlpProtocol::Grpc, 2500));
        let headers: Vec<_> = collector.headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        assert_eq!(headers, [("authorization", "Bearer tell-nobody"), ("x-scope", "a")]);
    }

    #[test]
    fn headers_that_cannot_be_read_are_refused_without_their_text() {
        for text in ["tell-nobody", "=tell-nobody", "a=tell-nobody%zz", "a=tell-nobody%ff", "a=tell-nobody,"] {
            let problems = load(&[("OTEL_EXPORTER_OTLP_HEADERS", text)]).unwrap_err();
            assert_eq!(problems.list.len(), 1, "{text}: {problems}");
            assert!(!problems.to_string().contains("tell-nobody"), "{problems}");
        }
    }
}
