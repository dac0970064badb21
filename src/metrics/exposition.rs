//! The text that Prometheus reads: its format 0.0.4, and OpenMetrics 1.0 for who asks for it. Pure.
//!
//! Written by hand, because libraries rename counters: `gnatsd_connz_in_bytes` is a counter without
//! `_total`, and dashboards ask for it by that name.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 0.0.4.
    Text,
    /// 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What somebody gets who sends that as `Accept`.
    pub fn wanted(accept: &str) -> Self {
        let (mut open, mut text) = (0.0_f32, 0.0_f32);
        for part in accept.split(',') {
            let mut words = part.split(';').map(str::trim);
            let kind = words.next().unwrap_or_default().to_ascii_lowercase();
            let parameters: Vec<_> = words.filter_map(|word| word.split_once('=')).collect();
            let of = |name: &str| parameters.iter().find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim());
            let weight = of("q").map_or(1.0, |q| q.parse().unwrap_or(0.0));
            match kind.as_str() {
                "application/openmetrics-text" if matches!(of("version"), None | Some("1.0.0" | "0.0.1")) => {
                    open = open.max(weight);
                }
                "text/plain" => text = text.max(weight),
                _ => {}
            }
        }
        if open > 0.0 && open >= text { Self::OpenMetrics } else { Self::Text }
    }

    /// What stands at the end of a text.
    pub const fn end(self) -> &'static str {
        match self {
            Self::Text => "",
            Self::OpenMetrics => "# EOF\n",
        }
    }

    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Gauge,
    /// Its name ends in `_total`.
    Counter,
    /// One that others have named, without `_total`. OpenMetrics knows no such counter.
    OtherCounter,
    Histogram,
}

impl Kind {
    const fn word(self, format: Format) -> &'static str {
        match (self, format) {
            (Self::Gauge, _) => "gauge",
            (Self::Counter, _) | (Self::OtherCounter, Format::Text) => "counter",
            (Self::OtherCounter, Format::OpenMetrics) => "unknown",
            (Self::Histogram, _) => "histogram",
        }
    }
}

/// The labels of a series, as they are written. Samples of one thing share them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels(Arc<str>);

impl Labels {
    pub fn none() -> Self {
        Self::default()
    }

    /// These and one more; `name` is one that Prometheus accepts.
    pub fn with(&self, name: &str, value: &str) -> Self {
        self.and([(name, value)])
    }

    pub fn and<'a>(&self, more: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut text = self.0.to_string();
        for (name, value) in more {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(name);
            text.push_str("=\"");
            escape_value(value, &mut text);
            text.push('"');
        }
        Self(text.into())
    }

    /// Each name with its value, as they were given.
    pub fn pairs(&self) -> Vec<(String, String)> {
        let (mut pairs, mut rest) = (vec![], &*self.0);
        while let Some((name, quoted)) = rest.split_once("=\"") {
            let (mut value, mut end, mut escaped) = (String::new(), quoted.len(), false);
            for (at, c) in quoted.char_indices() {
                match c {
                    _ if escaped => value.push(if c == 'n' { '\n' } else { c }),
                    '\\' => {}
                    '"' => {
                        end = at + 1;
                        break;
                    }
                    c => value.push(c),
                }
                escaped = !escaped && c == '\\';
            }
            pairs.push((name.trim_start_matches(',').to_owned(), value));
            rest = &quoted[end..];
        }
        pairs
    }
}

/// Both formats escape the same.
fn escape_value(value: &str, text: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            // Prometheus takes it for the end of everything.
            '\0' => text.push('\u{fffd}'),
            c => text.push(c),
        }
    }
}

fn escape_help(help: &str, format: Format, text: &mut String) {
    for c in help.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if format == Format::OpenMetrics => text.push_str("\\\""),
            c => text.push(c),
        }
    }
}

/// How often values fell under each bound.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// The bounds, rising, and how many values were at most that much.
    pub cumulative: Vec<(f64, u64)>,
    pub count: u64,
    pub sum: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Number(f64),
    Distribution(Distribution),
}

/// A metric with its samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// As samples bear it.
    pub name: Cow<'static, str>,
    pub help: Cow<'static, str>,
    pub kind: Kind,
    samples: Vec<(Labels, Value)>,
}

/// Samples by the name of their metric, in the order in which the names came.
#[derive(Clone, Debug, Default)]
pub struct Families {
    families: Vec<Family>,
    by_name: HashMap<Cow<'static, str>, usize>,
}

impl Families {
    /// A metric: its name as samples bear it (a counter's with `_total`), and what it means. The first one of a
    /// name says what it is.
    pub fn metric(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        kind: Kind,
        help: impl Into<Cow<'static, str>>,
    ) -> Metric<'_> {
        let name = name.into();
        let at = match self.by_name.get(&name) {
            Some(at) => *at,
            None => {
                self.by_name.insert(name.clone(), self.families.len());
                self.families.push(Family { name, help: help.into(), kind, samples: vec![] });
                self.families.len() - 1
            }
        };
        Metric(&mut self.families[at])
    }

    /// The text, without what stands at its end.
    pub fn write(&self, format: Format) -> String {
        let mut text = String::new();
        for family in self.with_samples() {
            family.write(format, &mut text);
        }
        text
    }

    /// All of them but those without samples: Prometheus would refuse all of it otherwise.
    pub fn with_samples(&self) -> impl Iterator<Item = &Family> {
        self.families.iter().filter(|family| !family.samples.is_empty())
    }
}

/// Takes the samples of one metric.
pub struct Metric<'a>(&'a mut Family);

impl Metric<'_> {
    pub fn add(&mut self, labels: &Labels, value: f64) -> &mut Self {
        self.0.samples.push((labels.clone(), Value::Number(value)));
        self
    }

    pub fn add_distribution(&mut self, labels: &Labels, distribution: Distribution) -> &mut Self {
        self.0.samples.push((labels.clone(), Value::Distribution(distribution)));
        self
    }
}

impl Family {
    /// A series that comes twice is there once: Prometheus would refuse all of it otherwise.
    pub fn samples(&self) -> impl Iterator<Item = (&Labels, &Value)> {
        let mut seen = HashSet::new();
        self.samples.iter().filter(move |(labels, _)| seen.insert(labels)).map(|(labels, value)| (labels, value))
    }

    fn write(&self, format: Format, text: &mut String) {
        // In OpenMetrics a family's name has no suffix.
        let name = match (self.kind, format) {
            (Kind::Counter, Format::OpenMetrics) => self.name.strip_suffix("_total").unwrap_or(&self.name),
            _ => &self.name,
        };
        let _ = write!(text, "# HELP {name} ");
        escape_help(&self.help, format, text);
        let _ = writeln!(text, "\n# TYPE {name} {}", self.kind.word(format));
        for (labels, value) in self.samples() {
            match value {
                Value::Number(number) => sample(text, &self.name, "", &labels.0, *number),
                Value::Distribution(distribution) => self.write_distribution(&labels.0, distribution, text),
            }
        }
    }

    fn write_distribution(&self, labels: &str, distribution: &Distribution, text: &mut String) {
        let comma = if labels.is_empty() { "" } else { "," };
        let bucket = |bound: f64| format!("{labels}{comma}le=\"{}\"", Bound(bound));
        for (bound, count) in &distribution.cumulative {
            sample(text, &self.name, "_bucket", &bucket(*bound), *count as f64);
        }
        let count = distribution.count as f64;
        sample(text, &self.name, "_bucket", &bucket(f64::INFINITY), count);
        sample(text, &self.name, "_sum", labels, distribution.sum);
        sample(text, &self.name, "_count", labels, count);
    }
}

fn sample(text: &mut String, name: &str, suffix: &str, labels: &str, value: f64) {
    let value = Number(value);
    let _ = match labels.is_empty() {
        true => writeln!(text, "{name}{suffix} {value}"),
        false => writeln!(text, "{name}{suffix}{{{labels}}} {value}"),
    };
}

struct Number(f64);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            number if number.is_nan() => f.write_str("NaN"),
            f64::INFINITY => f.write_str("+Inf"),
            f64::NEG_INFINITY => f.write_str("-Inf"),
            number => write!(f, "{number}"),
        }
    }
}

/// The same bound in the same words in both formats: OpenMetrics asks for a point in it.
struct Bound(f64);

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.fract() == 0.0 {
            true => write!(f, "{:.1}", self.0),
            false => Number(self.0).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample_families() -> Families {
        let mut families = Families::default();
        let of_stream = Labels::none().with("stream", "A");
        families.metric("up", Kind::Gauge, "Whether \"it\"\nanswers \\").add(&Labels::none(), 1.0);
        families.metric("restarts_total", Kind::Counter, "Restarts").add(&of_stream, 3.0);
        families.metric("in_bytes", Kind::OtherCounter, "in_bytes").add(&Labels::none(), 2.5);
        families.metric("empty", Kind::Gauge, "Nothing");
        let distribution = Distribution { cumulative: vec![(0.5, 1), (1.0, 2)], count: 3, sum: 9.25 };
        families.metric("took_seconds", Kind::Histogram, "Time").add_distribution(&of_stream, distribution);
        families.metric("restarts_total", Kind::Gauge, "Another").add(&of_stream.with("b", "1"), f64::INFINITY);
        families.metric("restarts_total", Kind::Counter, "Restarts").add(&of_stream, 4.0);
        families
    }

    #[test]
    fn the_text_format_is_as_prometheus_reads_it() {
        let expected = "# HELP up Whether \"it\"\\nanswers \\\\\n# TYPE up gauge\nup 1\n\
            # HELP restarts_total Restarts\n# TYPE restarts_total counter\n\
            restarts_total{stream=\"A\"} 3\nrestarts_total{stream=\"A\",b=\"1\"} +Inf\n\
            # HELP in_bytes in_bytes\n# TYPE in_bytes counter\nin_bytes 2.5\n\
            # HELP took_seconds Time\n# TYPE took_seconds histogram\n\
            took_seconds_bucket{stream=\"A\",le=\"0.5\"} 1\ntook_seconds_bucket{stream=\"A\",le=\"1.0\"} 2\n\
            took_seconds_bucket{stream=\"A\",le=\"+Inf\"} 3\ntook_seconds_sum{stream=\"A\"} 9.25\n\
            took_seconds_count{stream=\"A\"} 3\n";
        assert_eq!(sample_families().write(Format::Text), expected);
    }

    #[test]
    fn openmetrics_names_counters_without_their_suffix_and_has_an_end() {
        let text = sample_families().write(Format::OpenMetrics);
        for line in [
            "# HELP up Whether \\\"it\\\"\\nanswers \\\\\n",
            "# TYPE restarts counter\nrestarts_total{stream=\"A\"} 3\n",
            "# TYPE in_bytes unknown\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert_eq!((Format::OpenMetrics.end(), Format::Text.end()), ("# EOF\n", ""));
        assert_eq!(text.matches("# TYPE").count(), 4);
    }

    #[test]
    fn who_asks_for_openmetrics_gets_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
            application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for (accept, format) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/plain", Format::Text),
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("application/openmetrics-text; version=2.0.0", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=0.1,text/plain;q=0.9", Format::Text),
            (";;q=,=", Format::Text),
        ] {
            assert_eq!(Format::wanted(accept), format, "{accept}");
        }
    }

    /// The value as Prometheus reads it back.
    fn unescaped(text: &str) -> String {
        let (mut value, mut chars) = (String::new(), text.chars());
        while let Some(c) = chars.next() {
            value.push(match c {
                '\\' => match chars.next().expect("something follows a backslash") {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    other => panic!("{other:?} needs no backslash"),
                },
                c => c,
            });
        }
        value
    }

    proptest! {
        #[test]
        fn labels_are_given_back_as_they_were(values in proptest::collection::vec("[^\0]{0,12}", 0..4)) {
            let names = ["a", "bb", "c_c", "d"];
            let pairs: Vec<_> = names.iter().copied().zip(values.iter().map(String::as_str)).collect();
            let back = Labels::none().and(pairs.iter().copied()).pairs();
            let back: Vec<_> = back.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            prop_assert_eq!(back, pairs);
        }

        #[test]
        fn every_value_comes_back_as_it_was(value in any::<String>()) {
            let mut families = Families::default();
            families.metric("m", Kind::Gauge, "m").add(&Labels::none().with("l", &value), 0.5);
            let text = families.write(Format::OpenMetrics);
            let line = text.lines().nth(2).unwrap();
            let inner = line.strip_prefix("m{l=\"").and_then(|rest| rest.strip_suffix("\"} 0.5"));
            // One line, with no quote that is not escaped.
            let inner = inner.unwrap_or_else(|| panic!("{line}"));
            prop_assert_eq!(text.split('\n').count(), 4);
            prop_assert_eq!(unescaped(inner), value.replace('\0', "\u{fffd}"));
        }

        #[test]
        fn any_accept_header_is_answered(accept in any::<String>()) {
            Format::wanted(&accept);
        }
    }
}
