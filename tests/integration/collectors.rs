//! An OpenTelemetry collector that says what it was sent, as the types of OpenTelemetry read it, with faults on
//! demand.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use async_compression::tokio::bufread::GzipDecoder;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tokio::io::AsyncReadExt;

use super::support::{block_on, wait_for};

/// What it does with a request.
#[derive(Clone, Debug)]
pub enum Answer {
    Status(u16),
    /// 503, and to come back after so many seconds.
    Later(u64),
    Redirect(String),
    /// Says nothing, and keeps the connection.
    Silence,
}

#[derive(Default)]
struct Heard {
    /// What it took.
    traces: Vec<ExportTraceServiceRequest>,
    metrics: Vec<ExportMetricsServiceRequest>,
    /// When requests came, taken or not.
    times: Vec<Instant>,
    heads: String,
    answers: VecDeque<Answer>,
    /// Once there are no more answers; 200 where there is none.
    always: Option<Answer>,
    kept: Vec<Box<dyn std::any::Any + Send>>,
}

pub struct Collector {
    pub port: u16,
    scheme: &'static str,
    heard: Arc<Mutex<Heard>>,
}

impl Collector {
    pub fn start() -> Self {
        Self::at(0)
    }

    /// One at that port, where nobody was before.
    pub fn at(port: u16) -> Self {
        Self::serving(port, None)
    }

    /// Over TLS, with a certificate that vouches for itself; gives that as PEM.
    pub fn with_tls() -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into(), "localhost".into()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(unified_nats::signatures::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(made.cert.der().to_vec())], key)
            .unwrap();
        (Self::serving(0, Some(Arc::new(config))), made.cert.pem())
    }

    fn serving(port: u16, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let (port, heard) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Heard>>::default());
        let (kept, scheme) = (heard.clone(), if tls.is_some() { "https" } else { "http" });
        // They end with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (heard, tls) = (kept.clone(), tls.clone());
                std::thread::spawn(move || match tls {
                    None => serve(stream, &heard),
                    Some(config) => serve(StreamOwned::new(ServerConnection::new(config).unwrap(), stream), &heard),
                });
            }
        });
        Self { port, scheme, heard }
    }

    pub fn endpoint(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    /// What it answers next, one after the other.
    pub fn will(&self, answers: impl IntoIterator<Item = Answer>) -> &Self {
        self.heard.lock().unwrap().answers.extend(answers);
        self
    }

    /// What it answers from now on; [`None`]: it takes everything.
    pub fn always(&self, answer: Option<Answer>) -> &Self {
        self.heard.lock().unwrap().always = answer;
        self
    }

    /// The spans that it took.
    pub fn spans(&self) -> Vec<Span> {
        let traces = self.heard.lock().unwrap().traces.clone();
        let of_resources = traces.into_iter().flat_map(|request| request.resource_spans);
        of_resources.flat_map(|of_resource| of_resource.scope_spans).flat_map(|of_scope| of_scope.spans).collect()
    }

    pub fn wait_for_span(&self, what: &str, is_it: impl Fn(&Span) -> bool) -> Span {
        wait_for(what, || self.spans().into_iter().find(&is_it))
    }

    /// What the last export of traces says of the service.
    pub fn resource(&self) -> Vec<KeyValue> {
        let heard = self.heard.lock().unwrap();
        heard.traces.last().unwrap().resource_spans[0].resource.clone().unwrap().attributes
    }

    /// Requests with metrics that it took.
    pub fn metric_exports(&self) -> usize {
        self.heard.lock().unwrap().metrics.len()
    }

    /// The metrics of the last such request.
    pub fn last_metrics(&self) -> Vec<Metric> {
        let last = self.heard.lock().unwrap().metrics.last().cloned().unwrap();
        let of_resources = last.resource_metrics.into_iter();
        of_resources.flat_map(|of_resource| of_resource.scope_metrics).flat_map(|of_scope| of_scope.metrics).collect()
    }

    /// When requests came, taken or not.
    pub fn times(&self) -> Vec<Instant> {
        self.heard.lock().unwrap().times.clone()
    }

    /// The heads of all requests.
    pub fn heads(&self) -> String {
        self.heard.lock().unwrap().heads.clone()
    }
}

/// The text or number of an attribute.
pub fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let value = attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?;
    Some(match value.value? {
        any_value::Value::StringValue(text) => text,
        any_value::Value::IntValue(number) => number.to_string(),
        any_value::Value::BoolValue(is_so) => is_so.to_string(),
        other => panic!("{key}: {other:?}"),
    })
}

fn serve(stream: impl Read + Write + Send + 'static, heard: &Mutex<Heard>) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or_default() == 0 {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let answer = {
            let mut heard = heard.lock().unwrap();
            heard.times.push(Instant::now());
            heard.heads.push_str(&head);
            let answer = heard.answers.pop_front().or_else(|| heard.always.clone()).unwrap_or(Answer::Status(200));
            if let Answer::Status(200) = answer {
                take(&head, body, &mut heard);
            }
            answer
        };
        let text = match answer {
            Answer::Status(code) => format!("HTTP/1.1 {code} x\r\ncontent-length: 0\r\n\r\n"),
            Answer::Later(seconds) => {
                format!("HTTP/1.1 503 x\r\nretry-after: {seconds}\r\ncontent-length: 0\r\n\r\n")
            }
            Answer::Redirect(to) => format!("HTTP/1.1 307 x\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"),
            Answer::Silence => {
                heard.lock().unwrap().kept.push(Box::new(reader));
                return;
            }
        };
        let stream = reader.get_mut();
        if stream.write_all(text.as_bytes()).and_then(|()| stream.flush()).is_err() {
            return;
        }
    }
}

/// Reads what came by what its head says of it; anything that is not as OTLP has it fails the test's thread.
fn take(head: &str, body: Vec<u8>, heard: &mut Heard) {
    let lower = head.to_ascii_lowercase();
    let body = match lower.contains("content-encoding: gzip") {
        true => block_on(async {
            let mut text = vec![];
            GzipDecoder::new(body.as_slice()).read_to_end(&mut text).await.unwrap();
            text
        }),
        false => body,
    };
    let is_json = lower.contains("content-type: application/json");
    assert!(is_json || lower.contains("content-type: application/x-protobuf"), "{head}");
    let path = head.split(' ').nth(1).unwrap_or_default();
    match path.rsplit('/').next() {
        Some("traces") if is_json => heard.traces.push(serde_json::from_slice(&body).unwrap()),
        Some("traces") => heard.traces.push(ExportTraceServiceRequest::decode(body.as_slice()).unwrap()),
        Some("metrics") if is_json => heard.metrics.push(serde_json::from_slice(&body).unwrap()),
        Some("metrics") => heard.metrics.push(ExportMetricsServiceRequest::decode(body.as_slice()).unwrap()),
        _ => panic!("{head}"),
    }
}
