//! Metrics as OTLP has them: the names and labels of `/metrics`, and its numbers. Pure.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use super::spans::{attribute, nanos, scope};
use super::wire::{Field, Message};
use crate::metrics::{Distribution, Family, Kind, Labels, Value};
use crate::spans;

/// Data points of one request at most: collectors bound what they read.
const MOST_POINTS: usize = 5000;

/// What is away for longer is forgotten, so that counters of what is gone do not pile up.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Since when each counter has counted. One that falls has begun anew, as those of nats-server do with each
/// server, and mostly while there was none; who reads a sum that falls without saying so would take it for a mistake.
#[derive(Debug)]
pub struct Starts {
    first: SystemTime,
    /// [`None`]: there was none.
    last_export: Option<SystemTime>,
    known: HashMap<(String, Labels), Followed>,
}

/// A counter: its value, since when it has counted, and when it was there last.
#[derive(Clone, Copy, Debug)]
struct Followed {
    value: f64,
    start: SystemTime,
    seen: SystemTime,
}

impl Starts {
    /// `first` is when the program started.
    pub fn new(first: SystemTime) -> Self {
        Self { first, last_export: None, known: HashMap::new() }
    }

    /// Follows the counters of these families.
    fn follow(&mut self, families: &[Family], now: SystemTime) {
        // Of one that is new nothing had been counted when the export before was made.
        let anew = self.last_export.unwrap_or(self.first);
        for family in families.iter().filter(|family| family.kind != Kind::Gauge) {
            for (labels, value) in family.samples() {
                let value = match value {
                    Value::Number(number) => *number,
                    Value::Distribution(distribution) => distribution.count as f64,
                };
                let known = self.known.entry((family.name.to_string(), labels.clone()));
                let followed = known.or_insert(Followed { value, start: anew, seen: now });
                let start = if value < followed.value { anew } else { followed.start };
                *followed = Followed { value, start, seen: now };
            }
        }
        self.last_export = Some(now);
        self.known.retain(|_, followed| now.duration_since(followed.seen).is_ok_and(|away| away <= REMEMBERED));
    }

    /// Since when a counter that was followed has counted.
    fn of(&self, name: &str, labels: &Labels) -> Option<SystemTime> {
        self.known.get(&(name.to_owned(), labels.clone())).map(|followed| followed.start)
    }
}

/// The requests that carry them: each an `ExportMetricsServiceRequest`.
pub fn requests(resource: &Message, families: &[Family], starts: &mut Starts, now: SystemTime) -> Vec<Message> {
    starts.follow(families, now);
    let (mut requests, mut metrics, mut count) = (vec![], vec![], 0);
    for family in families {
        let samples: Vec<_> = family.samples().collect();
        for samples in samples.chunks(MOST_POINTS) {
            if count + samples.len() > MOST_POINTS && count > 0 {
                requests.push(request(resource, std::mem::take(&mut metrics)));
                count = 0;
            }
            count += samples.len();
            metrics.push(metric(family, samples, starts, now));
        }
    }
    if !metrics.is_empty() {
        requests.push(request(resource, metrics));
    }
    requests
}

fn request(resource: &Message, metrics: Vec<Message>) -> Message {
    let of_scope = Message::default().message((1, "scope"), scope()).messages((2, "metrics"), metrics);
    let of_resource =
        Message::default().message((1, "resource"), resource.clone()).messages((2, "scopeMetrics"), vec![of_scope]);
    Message::default().messages((1, "resourceMetrics"), vec![of_resource])
}

/// As UCUM writes the unit that stands at the end of a name.
fn unit(name: &str) -> Option<&'static str> {
    let name = name.strip_suffix("_total").unwrap_or(name);
    [("_seconds", "s"), ("_bytes", "By"), ("_ratio", "1")].iter().find(|(end, _)| name.ends_with(end)).map(|(_, u)| *u)
}

fn metric(family: &Family, samples: &[(&Labels, &Value)], starts: &Starts, now: SystemTime) -> Message {
    let (name, help) = (family.name.clone(), family.help.clone());
    let mut metric = Message::default().text((1, "name"), name).text((2, "description"), help);
    if let Some(unit) = unit(&family.name) {
        metric = metric.text((3, "unit"), unit);
    }
    let points = samples.iter().map(|(labels, value)| {
        let start = starts.of(&family.name, labels).map(nanos);
        point(labels, value, start, nanos(now))
    });
    let data = Message::default().messages((1, "dataPoints"), points.collect());
    /// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
    const CUMULATIVE: Field = Field::Small(2);
    match family.kind {
        Kind::Gauge => metric.message((5, "gauge"), data),
        Kind::Counter | Kind::OtherCounter => {
            let sum = data.with((2, "aggregationTemporality"), CUMULATIVE);
            metric.message((7, "sum"), sum.with((3, "isMonotonic"), Field::Bool(true)))
        }
        Kind::Histogram => metric.message((9, "histogram"), data.with((2, "aggregationTemporality"), CUMULATIVE)),
    }
}

/// `NumberDataPoint` or `HistogramDataPoint`, which number their fields differently.
fn point(labels: &Labels, value: &Value, start: Option<u64>, now: u64) -> Message {
    let attributes = labels.pairs().into_iter();
    let attributes = attributes.map(|(name, value)| attribute(name, &spans::Value::from(value))).collect();
    let mut times = Message::default();
    if let Some(start) = start {
        times = times.with((2, "startTimeUnixNano"), Field::Fixed(start));
    }
    let times = times.with((3, "timeUnixNano"), Field::Fixed(now));
    match value {
        Value::Number(number) => {
            times.with((4, "asDouble"), Field::Double(*number)).messages((7, "attributes"), attributes)
        }
        Value::Distribution(Distribution { cumulative, count, sum }) => {
            let (mut below, mut counts) = (0, vec![]);
            for (_, so_far) in cumulative {
                counts.push(so_far.saturating_sub(below));
                below = *so_far;
            }
            counts.push(count.saturating_sub(below));
            let bounds = cumulative.iter().map(|(bound, _)| *bound).collect();
            times
                .with((4, "count"), Field::Fixed(*count))
                .with((5, "sum"), Field::Double(*sum))
                .with((6, "bucketCounts"), Field::FixedList(counts))
                .with((7, "explicitBounds"), Field::DoubleList(bounds))
                .messages((9, "attributes"), attributes)
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
    use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data};
    use prost::Message as _;

    use super::*;
    use crate::metrics::Families;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn families(samples: &[(&'static str, Kind, &str, f64)]) -> Vec<Family> {
        let mut families = Families::default();
        for (name, kind, label, value) in samples {
            families.metric(*name, *kind, "help").add(&Labels::none().with("l", label), *value);
        }
        families.with_samples().cloned().collect()
    }

    /// As the types of OpenTelemetry read it, which must be the same in both encodings.
    fn read(request: &Message) -> Vec<Metric> {
        let read = ExportMetricsServiceRequest::decode(request.protobuf().as_slice()).unwrap();
        let json = request.json();
        // The mapping of protobuf to JSON has a text for what is no number, which these types do not read.
        if !String::from_utf8_lossy(&json).contains("\"asDouble\":\"Infinity\"") {
            assert_eq!(serde_json::from_slice::<ExportMetricsServiceRequest>(&json).unwrap(), read);
        }
        read.resource_metrics[0].scope_metrics[0].metrics.clone()
    }

    fn starts_of(metric: &Metric) -> Vec<u64> {
        let Some(Data::Sum(sum)) = &metric.data else { panic!("{metric:?}") };
        sum.data_points.iter().map(|point| point.start_time_unix_nano / 1_000_000_000).collect()
    }

    #[test]
    fn a_counter_that_falls_has_begun_after_the_export_before() {
        let mut starts = Starts::new(at(1));
        let mut export = |now, one, other| {
            let families = families(&[("a", Kind::OtherCounter, "x", one), ("a", Kind::OtherCounter, "y", other)]);
            starts_of(&read(&requests(&Message::default(), &families, &mut starts, at(now))[0])[0])
        };
        assert_eq!(export(10, 5.0, 5.0), [1, 1]);
        assert_eq!(export(20, 6.0, 2.0), [1, 10]);
        assert_eq!(export(30, 6.0, 3.0), [1, 10]);
        assert_eq!(export(40, 0.0, 3.0), [30, 10]);
    }

    #[test]
    fn a_counter_that_was_away_goes_on_or_has_begun_after_the_export_before() {
        let mut starts = Starts::new(at(1));
        let mut export = |now, values: &[(&str, f64)]| {
            let samples: Vec<_> =
                values.iter().map(|(label, value)| ("a", Kind::OtherCounter, *label, *value)).collect();
            let families = [families(&samples), families(&[("b", Kind::Gauge, "x", 1.0)])].concat();
            starts_of(&read(&requests(&Message::default(), &families, &mut starts, at(now))[0])[0])
        };
        assert_eq!(export(10, &[("x", 5.0), ("y", 5.0)]), [1, 1]);
        assert_eq!(export(20, &[("y", 5.0)]), [1]);
        assert_eq!(export(30, &[("x", 6.0), ("y", 5.0)]), [1, 1], "it goes on");
        assert_eq!(export(40, &[("y", 5.0)]), [1]);
        assert_eq!(export(50, &[("x", 2.0), ("y", 5.0)]), [40, 1], "a server was started meanwhile");
        assert_eq!(export(60, &[("x", 3.0), ("y", 5.0), ("z", 7.0)]), [40, 1, 50], "one that is new");
        assert_eq!(export(660, &[("y", 5.0)]), [1]);
        assert_eq!(export(670, &[("x", 4.0), ("y", 5.0)]), [40, 1]);
        assert_eq!(export(1271, &[("y", 5.0)]), [1]);
        assert_eq!(export(1280, &[("x", 5.0), ("y", 5.0)]), [1271, 1], "nobody remembers it");
    }

    #[test]
    fn what_is_too_much_for_a_request_comes_in_several() {
        let mut many = Families::default();
        for number in 0..MOST_POINTS + 1 {
            let labels = Labels::none().with("n", &number.to_string());
            many.metric("a", Kind::Gauge, "").add(&labels, 1.0);
            many.metric("b", Kind::Gauge, "").add(&labels, 2.0);
        }
        let many: Vec<_> = many.with_samples().cloned().collect();
        let requests = requests(&Message::default(), &many, &mut Starts::new(at(0)), at(1));
        let points = |metric: &Metric| match &metric.data {
            Some(Data::Gauge(gauge)) => gauge.data_points.len(),
            other => panic!("{other:?}"),
        };
        let counts: Vec<usize> = requests.iter().map(|request| read(request).iter().map(points).sum()).collect();
        assert_eq!(counts, [MOST_POINTS, 1, MOST_POINTS, 1]);
    }

    #[test]
    fn numbers_and_labels_are_what_they_were() {
        for value in [0.0, -1.5, 1e300, f64::INFINITY] {
            let families = families(&[("x_bytes_total", Kind::Counter, "a\"\\\n,b=\"", value)]);
            let metrics = read(&requests(&Message::default(), &families, &mut Starts::new(at(0)), at(1))[0]);
            let Some(Data::Sum(sum)) = &metrics[0].data else { panic!("{metrics:?}") };
            assert_eq!(sum.data_points[0].value, Some(Number::AsDouble(value)));
            let label = format!("{:?}", sum.data_points[0].attributes);
            assert!(label.contains(r#""a\"\\\n,b=\"""#), "{label}");
            assert_eq!((metrics[0].unit.as_str(), metrics[0].name.as_str()), ("By", "x_bytes_total"));
        }
    }
}
