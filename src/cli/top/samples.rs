use std::collections::HashMap;

/// One series of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

impl Sample {
    /// The value of a label; nothing where there is none.
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value)
    }
}

/// What one scrape says, by the names of its metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(HashMap<String, Vec<Sample>>);

impl Samples {
    /// What a broker says of itself. On its port somebody else may answer.
    pub fn of_broker(text: &str) -> Result<Self, String> {
        let samples = Self::parse(text);
        let reason = "who answers /metrics is no unified-nats: see to API_PORT, or PROMETHEUS_PORT";
        samples.one("unified_nats_up").map(|_| ()).ok_or(reason)?;
        Ok(samples)
    }

    /// Reads the text format of Prometheus. Lines that are none of it are left out.
    pub fn parse(text: &str) -> Self {
        let mut all: HashMap<String, Vec<Sample>> = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some((name, sample)) = parse_line(line) {
                all.entry(name).or_default().push(sample);
            }
        }
        Self(all)
    }

    /// The series of a metric.
    pub fn all(&self, name: &str) -> &[Sample] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// The value of a metric without labels of interest.
    pub fn one(&self, name: &str) -> Option<f64> {
        self.all(name).first().map(|sample| sample.value)
    }

    /// The value of the series that has these labels among its own.
    pub fn with(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has_all = |sample: &&Sample| labels.iter().all(|(label, value)| sample.label(label) == *value);
        self.all(name).iter().find(has_all).map(|sample| sample.value)
    }
}

/// `name{label="value",…} number`
fn parse_line(line: &str) -> Option<(String, Sample)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = vec![];
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            rest = rest.trim_start_matches(',');
            if let Some(behind) = rest.strip_prefix('}') {
                rest = behind;
                break;
            }
            let (label, value) = rest.split_once("=\"")?;
            let (value, behind) = parse_value(value)?;
            labels.push((label.to_owned(), value));
            rest = behind;
        }
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some((name.to_owned(), Sample { labels, value }))
}

/// A text up to its closing quote, and what follows that.
fn parse_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn series_are_read() {
        let text = "# HELP a what\n# TYPE a gauge\na 1.5\nb{x=\"1\",y=\"say \\\"hi\\\"\\nto C:\\\\\"} 2\nb{x=\"2\",} NaN\nc{x=\"1\nd{} 7 1700000000\ne\n";
        let samples = Samples::parse(text);
        assert_eq!(
            (samples.one("a"), samples.one("d"), samples.one("c"), samples.one("e")),
            (Some(1.5), Some(7.0), None, None)
        );
        assert_eq!(samples.all("b").len(), 2);
        assert_eq!(samples.all("b")[0].label("y"), "say \"hi\"\nto C:\\");
        assert_eq!(samples.with("b", &[("x", "1")]), Some(2.0));
        assert!(samples.with("b", &[("x", "2")]).is_some_and(f64::is_nan));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "([a-c]\\{?[ -~\\n]{0,40}|.{0,60}\n)*") {
            Samples::parse(&text);
        }
    }
}
