use super::*;

const SERVER: &str = "server_id=\"s\",account=\"$G\",stream_name=\"S\"";

fn samples(trades: u64, last_seq: u64) -> Samples {
    Samples::parse(&format!(
        "unified_nats_family_messages_total{{data_type=\"trade\"}} {trades}\n\
         unified_nats_family_last_message_age_seconds{{data_type=\"trade\"}} 1.5\n\
         unified_nats_child_restarts_total{{reason=\"hung\"}} 1\n\
         unified_nats_child_restarts_total{{reason=\"exited\"}} 0\n\
         nats_stream_total_messages{{{SERVER}}} 40\n\
         nats_stream_total_messages{{account=\"B\",stream_name=\"S\"}} 41\n\
         nats_stream_total_bytes{{{SERVER}}} 4000\n\
         nats_stream_last_seq{{{SERVER}}} {last_seq}\n\
         unified_nats_stream_usage_ratio{{account=\"$G\",stream=\"S\",limit=\"messages\"}} 0.4\n\
         unified_nats_stream_usage_ratio{{account=\"$G\",stream=\"S\",limit=\"bytes\"}} 0.7\n\
         nats_consumer_num_pending{{{SERVER},consumer_name=\"quick\"}} 9\n\
         nats_consumer_num_pending{{{SERVER},consumer_name=\"late\"}} 2\n\
         unified_nats_consumer_lag_seconds{{stream=\"S\",consumer=\"late\"}} 60\n"
    ))
}

fn seen(at: f64, samples: Samples) -> Seen {
    Seen { at, health: Err("http://h:1/health cannot be reached".into()), samples: Ok(samples) }
}

fn trade(picture: &Picture) -> &Family {
    picture.families.iter().find(|family| family.name == "trade").unwrap()
}

#[test]
fn rates_are_those_of_the_last_ten_seconds() {
    let mut history = History::new(Some("nats".into()));
    history.add(seen(0.0, samples(100, 7)));
    let picture = Picture::of(&history);
    assert_eq!((trade(&picture).rate, trade(&picture).messages, trade(&picture).age), (None, Some(100.0), Some(1.5)));
    for second in 1..=30_u64 {
        history
            .add(seen(second as f64, samples(100 + if second > 20 { (second - 20) * 5 } else { 0 }, 7 + second * 2)));
    }
    let picture = Picture::of(&history);
    assert_eq!(trade(&picture).rate, Some(5.0));
    assert_eq!(picture.streams[0].rate, Some(2.0));
    // A counter that began anew says nothing until it is known twice.
    history.add(seen(31.0, samples(3, 1)));
    assert_eq!(trade(&Picture::of(&history)).rate, None);
}

#[test]
fn streams_and_consumers_are_in_order_of_urgency() {
    let mut history = History::new(Some("nats".into()));
    history.add(seen(0.0, samples(1, 1)));
    let picture = Picture::of(&history);
    let streams: Vec<_> = picture.streams.iter().map(|stream| (stream.messages, stream.usage.clone())).collect();
    assert_eq!(streams, [(40.0, Some((0.7, "bytes".to_owned()))), (41.0, None)]);
    let consumers: Vec<_> = picture.consumers.iter().map(|consumer| (consumer.name.as_str(), consumer.late)).collect();
    assert_eq!(consumers, [("late", Some(60.0)), ("quick", None)]);
    assert_eq!(picture.restarts_by, [("hung".to_owned(), 1.0)]);
}

#[test]
fn what_is_old_is_said_to_be() {
    let mut history = History::new(None);
    assert!(history.failure().is_none());
    let silent = |at| Seen { at, health: Err("nobody".into()), samples: Err("nobody either".into()) };
    history.add(silent(0.0));
    assert_eq!(history.failure(), Some("nobody"));
    history.add(seen(1.0, samples(1, 1)));
    history.add(silent(5.0));
    let picture = Picture::of(&history);
    assert!(history.failure().is_none());
    assert_eq!((picture.mood, picture.state.as_str()), (Mood::Bad, "no answer"));
    assert_eq!(picture.problems, ["nobody", "the numbers below are 4 s old"]);
    assert_eq!(trade(&picture).messages, Some(1.0));
}

#[test]
fn times_that_are_none_are_left_out() {
    assert_eq!(seconds_between("2026-01-01T00:00:00Z", "2026-01-01T00:01:15.5Z"), Some(75.5));
    assert_eq!(seconds_between("2026-01-01T00:00:01Z", "2026-01-01T00:00:00Z"), Some(0.0));
    assert_eq!(seconds_between("soon", "2026-01-01T00:00:00Z"), None);
}
