//! The stream of the eight families where variables and a file say something about it together.

use serde_json::{Map, Value};

use super::declared::DeclaredStream;
use super::declared::contradictions::{Contradiction, Servers, contradictions};
use super::market_data::MarketDataSettings;
use super::reader::Reader;
use super::variables::*;

/// What every nats-server refuses of the two; each by itself has been looked at.
pub(super) fn check(settings: &MarketDataSettings, file: &DeclaredStream, reader: &mut Reader) {
    let nanoseconds = |span: std::time::Duration| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
    let of_variables: [(&str, &Variable, Value); 7] = [
        ("retention", &RETENTION_POLICY, settings.retention.word().into()),
        ("discard", &DISCARD_POLICY, settings.discard.word().into()),
        ("storage", &STORAGE_TYPE, settings.storage.word().into()),
        ("max_consumers", &STREAM_MAX_CONSUMERS, settings.max_consumers.unwrap_or(-1).into()),
        ("max_msgs_per_subject", &STREAM_MAX_MSGS_PER_SUBJECT, settings.max_msgs_per_subject.unwrap_or(-1).into()),
        ("max_age", &STREAM_MAX_AGE, settings.max_age.map_or(0, nanoseconds).into()),
        ("num_replicas", &STREAM_REPLICAS, settings.replicas.unwrap_or(1).into()),
    ];
    let mut config: Map<String, Value> = file.config.clone();
    let mut by_variable = vec![];
    for (field, variable, value) in of_variables {
        // A variable that is set wins over the file, the file over defaults.
        if settings.declared.contains(&variable.name) || !config.contains_key(field) {
            config.insert(field.into(), value);
            by_variable.push((field, variable.name));
        }
    }
    let consumers: Vec<_> = file.consumers.iter().map(|consumer| (consumer.name.as_str(), &consumer.config)).collect();
    let found = contradictions(file.name.as_str(), &config, &consumers);
    for Contradiction { consumer, field, found, rule, remedy, .. } in
        found.into_iter().filter(|contradiction| contradiction.servers == Servers::All)
    {
        let variable = by_variable.iter().find(|(of, _)| *of == field).filter(|_| consumer.is_none());
        let consumer = file.consumers.iter().find(|known| Some(known.name.as_str()) == consumer.as_deref());
        let place = match (variable, consumer) {
            (Some((_, variable)), _) => (*variable).to_owned(),
            (None, Some(consumer)) => {
                let line = consumer.lines.get(field).unwrap_or(&consumer.line);
                format!("{}:{line}: {}.consumers.{}.{field}", file.file, file.name, consumer.name)
            }
            (None, None) => {
                let line = file.lines.get(field).unwrap_or(&file.line);
                format!("{}:{line}: {}.{field}", file.file, file.name)
            }
        };
        reader.problems.add(place, found, rule, remedy);
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::tests::load;

    #[test]
    fn variables_and_the_file_do_not_contradict_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.yml");
        let problems = |consumers: &str, pair: (&str, &str)| {
            std::fs::write(&path, format!("streams: {{MARKET_DATA: {{consumers: {{{consumers}}}}}}}")).unwrap();
            let problems = load(&[("STREAMS_FILE", path.to_str().unwrap()), pair]).err();
            problems.map(|problems| problems.to_string()).unwrap_or_default()
        };
        let two = "a: {}, b: {}";
        let told = problems(two, ("STREAM_MAX_CONSUMERS", "1"));
        assert!(
            told.contains("STREAM_MAX_CONSUMERS: cannot use 1: must not be below the number of declared"),
            "{told}"
        );
        let told = problems(two, ("RETENTION_POLICY", "workqueue"));
        assert!(told.contains("s.yml:1: MARKET_DATA.consumers.b.filter_subjects: cannot use no filter"), "{told}");
        let told = problems("a: {ack_policy: none}", ("RETENTION_POLICY", "workqueue"));
        assert!(told.contains("must be explicit in a stream with retention: workqueue"), "{told}");
        for pair in [("STREAM_MAX_CONSUMERS", "2"), ("STREAM_MAX_CONSUMERS", "-1"), ("RETENTION_POLICY", "interest")] {
            assert_eq!(problems(two, pair), "", "{pair:?}");
        }
    }
}
