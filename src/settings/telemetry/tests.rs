use super::*;
use crate::settings::Loaded;
use crate::settings::tests::load;

fn loaded(pairs: &[(&str, &str)]) -> Loaded {
    load(pairs).unwrap_or_else(|problems| panic!("{problems}"))
}

fn telemetry(pairs: &[(&str, &str)]) -> TelemetrySettings {
    loaded(pairs).settings.telemetry
}

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4318");

#[test]
fn nothing_is_sent_by_default_or_when_it_is_disabled() {
    let defaults = telemetry(&[]);
    assert!(defaults.export.is_none());
    assert_eq!(defaults.resource_attributes, [("service.name".to_owned(), "unified-nats".to_owned())]);
    assert_eq!(defaults.sampler, TraceSampler { parent_based: true, ratio: Ratio::ALL });
    for off in [
        &[ENDPOINT, ("OTEL_SDK_DISABLED", "true")][..],
        &[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none"), ("OTEL_METRICS_EXPORTER", "none")],
        &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_EXPORTER_OTLP_HEADERS", "a=b")],
    ] {
        let loaded = loaded(off);
        assert!(loaded.settings.telemetry.export.is_none(), "{off:?}");
        assert_eq!(loaded.warnings, Vec::<String>::new(), "{off:?}");
    }
}

#[test]
fn signals_have_addresses_of_their_own() {
    let urls = |pairs: &[(&str, &str)]| {
        let export = telemetry(pairs).export.unwrap();
        [export.traces, export.metrics].map(|url| url.map_or("-".to_owned(), |url| url.as_str().to_owned()))
    };
    assert_eq!(urls(&[ENDPOINT]), ["http://otel:4318/v1/traces", "http://otel:4318/v1/metrics"]);
    let below = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://otel/in/");
    let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://tempo/x?y=1");
    assert_eq!(urls(&[below, own]), ["http://tempo/x?y=1", "https://otel/in/v1/metrics"]);
    assert_eq!(urls(&[own]), ["http://tempo/x?y=1", "-"]);
    assert_eq!(urls(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]), ["-", "http://otel:4318/v1/metrics"]);
    let prometheus = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://prometheus/api/v1/otlp/v1/metrics");
    assert_eq!(urls(&[prometheus]), ["-", "http://prometheus/api/v1/otlp/v1/metrics"]);
}

#[test]
fn a_collector_has_what_the_standard_says_and_its_credentials_are_not_printed() {
    let telemetry = telemetry(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://u:tell-nobody@otel:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20tell-nobody, x-scope = a"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod,team=a%2Cb"),
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
    ]);
    assert!(!format!("{telemetry:?}").contains("tell-nobody"), "{telemetry:?}");
    assert_eq!(telemetry.resource_attributes[2], ("team".to_owned(), "a,b".to_owned()));
    assert_eq!(telemetry.sampler, TraceSampler { parent_based: false, ratio: Ratio::new(0.25).unwrap() });
    let export = telemetry.export.unwrap();
    assert_eq!((export.protocol, export.timeout.as_millis()), (OtlpProtocol::HttpJson, 2500));
    assert!(export.compressed && export.authorities.is_none());
    assert_eq!((export.spans.most, export.spans.batch, export.spans.delay.as_secs()), (100, 100, 5));
    let headers: Vec<_> = export.headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(headers, [("authorization", "Bearer tell-nobody"), ("x-scope", "a")]);
}

#[test]
fn the_service_is_named_by_its_variable_first() {
    let name = |pairs: &[(&str, &str)]| telemetry(pairs).resource_attributes.remove(0).1;
    let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "team=a,service.name=theirs");
    assert_eq!(name(&[attributes]), "theirs");
    assert_eq!(name(&[attributes, ("OTEL_SERVICE_NAME", "mine")]), "mine");
}

#[test]
fn grpc_is_refused_with_the_way_out_and_its_port_is_warned_of() {
    let problems = load(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).unwrap_err();
    assert_eq!(problems.list.len(), 1, "{problems}");
    let words = problems.to_string();
    assert!(words.contains("no gRPC") && words.contains("http/protobuf at port 4318"), "{words}");
    let warnings = loaded(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4317/")]).warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("4318"), "{warnings:?}");
}

#[test]
fn what_the_standard_has_beyond_that_is_warned_of_without_its_value() {
    let warnings =
        loaded(&[("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=tell-nobody"), ("OTEL_LOGS_EXPORTER", "x")]).warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings.iter().all(|warning| warning.contains("is ignored") && !warning.contains("tell-nobody")));
}

#[test]
fn headers_that_cannot_be_read_are_refused_without_their_text() {
    for text in
        ["tell-nobody", "=tell-nobody", "a=tell-nobody%zz", "a=tell-nobody%ff", "a=tell-nobody,", "tell nobody=x"]
    {
        let problems = load(&[("OTEL_EXPORTER_OTLP_HEADERS", text)]).unwrap_err();
        assert_eq!(problems.list.len(), 1, "{text}: {problems}");
        assert!(!problems.to_string().contains("nobody"), "{problems}");
    }
}
