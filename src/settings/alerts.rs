//! Alerts: what raises them, and who hears of them.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use super::range::SOME_TIME;
use super::reader::Reader;
use super::url::parse_url;
use super::values::listed;
use super::variables::*;
use crate::domain::{DataType, Ratio, Secret, parse_span};

/// A threshold that is [`None`] raises nothing.
#[derive(Clone, Debug)]
pub struct AlertSettings {
    /// The address is the credential.
    pub webhook: Option<Secret>,
    pub slack: Option<Secret>,
    pub mail: Option<AlertMail>,
    pub memory: Option<Ratio>,
    pub disk: Option<Ratio>,
    pub connections: Option<Ratio>,
    pub stream: Option<Ratio>,
    /// Messages that a consumer is behind.
    pub consumer_lag: Option<NonZeroU64>,
    /// Between two of the same alert.
    pub min_interval: Duration,
    /// How long each family may be silent; one that is not there may be for ever.
    pub stale_after: BTreeMap<DataType, Duration>,
}

/// Alerts by mail.
#[derive(Clone, Debug)]
pub struct AlertMail {
    pub to: MailAddress,
    pub from: MailAddress,
    /// `smtp://user:password@host:port`, or `smtps://…`.
    pub server: Secret,
}

/// `name@host`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailAddress(String);

impl MailAddress {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for MailAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('@') {
            Some((name, host)) if !name.is_empty() && host.contains('.') && !host.contains('@') => {
                let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | '<' | '>');
                if text.contains(odd) { Err("it is not one plain address".into()) } else { Ok(Self(text.to_owned())) }
            }
            _ => Err(String::new()),
        }
    }
}

impl AlertSettings {
    pub fn read(reader: &mut Reader) -> Self {
        let ratio = |reader: &mut Reader, variable| reader.ratio(variable).unless_zero();
        Self {
            webhook: read_address(reader, &ALERT_WEBHOOK_URL, &["http", "https"]),
            slack: read_address(reader, &ALERT_SLACK_WEBHOOK, &["http", "https"]),
            mail: AlertMail::read(reader),
            memory: ratio(reader, &ALERT_MEMORY_RATIO),
            disk: ratio(reader, &ALERT_DISK_RATIO),
            connections: ratio(reader, &ALERT_CONNECTIONS_RATIO),
            stream: ratio(reader, &ALERT_STREAM_RATIO),
            consumer_lag: NonZeroU64::new(reader.number(&ALERT_CONSUMER_LAG).unsigned_abs()),
            min_interval: reader.span(&ALERT_MIN_INTERVAL),
            stale_after: reader.optional(&FAMILY_STALE_AFTER, parse_family_spans).unwrap_or_default(),
        }
    }
}

impl AlertSettings {
    /// Whether anybody hears of alerts.
    pub const fn has_sinks(&self) -> bool {
        self.webhook.is_some() || self.slack.is_some() || self.mail.is_some()
    }

    /// Whether somebody hears of consumers that are behind.
    pub const fn wants_consumers(&self) -> bool {
        self.consumer_lag.is_some() && self.has_sinks()
    }
}

impl AlertMail {
    fn read(reader: &mut Reader) -> Option<Self> {
        let [to, from] = [&ALERT_EMAIL, &ALERT_EMAIL_FROM].map(|variable| reader.optional(variable, str::parse));
        let server = read_address(reader, &ALERT_SMTP_URL, &["smtp", "smtps"]);
        for (one, other) in [(&ALERT_EMAIL, &ALERT_SMTP_URL), (&ALERT_SMTP_URL, &ALERT_EMAIL)] {
            if reader.is_set(one) && !reader.is_set(other) {
                reader.warnings.push(format!("{} is set without {}: no mail can be sent", one.name, other.name));
            }
        }
        let to: MailAddress = to?;
        Some(Self { from: from.unwrap_or_else(|| to.clone()), to, server: server? })
    }
}

/// An address that is a credential.
fn read_address(reader: &mut Reader, variable: &Variable, schemes: &[&str]) -> Option<Secret> {
    reader.optional(variable, |text| parse_url(text, schemes).map(Secret::new))
}

fn parse_family_spans(text: &str) -> Result<BTreeMap<DataType, Duration>, String> {
    let mut spans = BTreeMap::new();
    let entries = listed(text, |entry| {
        let (family, span) = entry.split_once('=').ok_or("an entry has no =")?;
        let data_type = DataType::ALL.into_iter().find(|data_type| data_type.name() == family);
        let data_type = data_type.ok_or_else(|| format!("{family:?} is not a data type"))?;
        match parse_span(span)? {
            span if span < SOME_TIME => Err(format!("{family} would always be silent")),
            span => Ok((data_type, span)),
        }
    })?;
    for (family, span) in entries {
        if spans.insert(family, span).is_some() {
            return Err(format!("{} is there twice", family.name()));
        }
    }
    Ok(spans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Loaded;
    use crate::settings::tests::load;

    fn loaded(pairs: &[(&str, &str)]) -> Loaded {
        load(pairs).unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn defaults_have_thresholds_and_nobody_to_hear_of_them() {
        let alerts = loaded(&[]).settings.alerts;
        assert!(alerts.webhook.is_none() && alerts.slack.is_none() && alerts.mail.is_none());
        let thresholds = [alerts.memory, alerts.disk, alerts.connections, alerts.stream];
        assert_eq!(thresholds.map(|ratio| ratio.map(Ratio::get)), [Some(0.8), Some(0.9), Some(0.9), Some(0.9)]);
        assert_eq!(alerts.consumer_lag.map(NonZeroU64::get), Some(100_000));
        assert_eq!((alerts.min_interval.as_secs(), alerts.stale_after.len()), (300, 0));
    }

    #[test]
    fn zero_switches_a_threshold_off() {
        let alerts = loaded(&[("ALERT_DISK_RATIO", "0"), ("ALERT_CONSUMER_LAG", "0")]).settings.alerts;
        assert_eq!((alerts.disk, alerts.consumer_lag), (None, None));
    }

    #[test]
    fn addresses_of_sinks_are_not_printed() {
        let loaded = loaded(&[
            ("ALERT_WEBHOOK_URL", "https://h/tell-nobody"),
            ("ALERT_SLACK_WEBHOOK", "https://s/tell-nobody"),
            ("ALERT_EMAIL", "ops@example.org"),
            ("ALERT_SMTP_URL", "smtps://u:tell-nobody@mail:465"),
        ]);
        assert!(!format!("{loaded:?}").contains("tell-nobody"), "{loaded:?}");
        let alerts = loaded.settings.alerts;
        assert_eq!(alerts.webhook.as_ref().map(Secret::expose), Some("https://h/tell-nobody"));
        let mail = alerts.mail.unwrap();
        assert_eq!((mail.to.as_str(), mail.from.as_str()), ("ops@example.org", "ops@example.org"));
        assert_eq!(mail.server.expose(), "smtps://u:tell-nobody@mail:465");
    }

    #[test]
    fn mail_needs_a_server_and_a_receiver() {
        for (pair, without) in [
            (("ALERT_EMAIL", "ops@example.org"), "ALERT_EMAIL is set without ALERT_SMTP_URL"),
            (("ALERT_SMTP_URL", "smtp://mail"), "ALERT_SMTP_URL is set without ALERT_EMAIL"),
        ] {
            let loaded = loaded(&[pair]);
            assert!(loaded.settings.alerts.mail.is_none());
            assert!(loaded.warnings.iter().any(|warning| warning.contains(without)), "{:?}", loaded.warnings);
        }
    }

    #[test]
    fn each_family_has_one_span() {
        let text = "trade=30s, orderbook=45,funding_rate=9h";
        let spans = loaded(&[("FAMILY_STALE_AFTER", text)]).settings.alerts.stale_after;
        let seconds: Vec<_> = spans.iter().map(|(family, span)| (family.name(), span.as_secs())).collect();
        assert_eq!(seconds, [("orderbook", 45), ("trade", 30), ("funding_rate", 32_400)]);
        for text in ["trade=30s,trade=31s", "trade=0", "trade=30s,", "=30s"] {
            let problems = load(&[("FAMILY_STALE_AFTER", text)]).unwrap_err();
            assert_eq!(problems.list.len(), 1, "{text}: {problems}");
        }
    }
}
