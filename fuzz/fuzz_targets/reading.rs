//! Where clients say they are and what they want to read: ids to resume from, points of a range, speeds, and
//! messages as they are written for them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use unified_nats::broker::{Nanos, Point, Position, Range, Record, Speed};

fuzz_target!(|input: &[u8]| {
    let Some((whose, rest)) = input.split_first() else { return };
    if *whose == b'm' {
        return write(rest);
    }
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match whose {
        b'i' => {
            if let Ok(position) = text.parse::<Position>() {
                assert_eq!(position.to_string(), text, "each has one spelling");
            }
        }
        b'r' => {
            let (from, to) = text.split_once('&').unwrap_or((text, ""));
            let (from, to) = (from.parse::<Point>().ok(), to.parse::<Point>().ok());
            if let (Some(Point::Time(time)), _) = (from, to) {
                assert_eq!(time.to_string().parse(), Ok(Point::Time(time)));
            }
            let _ = Range::new(from, to);
        }
        _ => {
            if let Ok(Speed::Times(times)) = text.parse::<Speed>() {
                assert!(times.is_finite() && times > 0.0);
            }
        }
    }
});

/// Whatever a payload holds, it is one line of JSON.
fn write(payload: &[u8]) {
    let payload = payload.to_vec().into();
    let record = Record { subject: "a.b".into(), payload, headers: None, sequence: 1, time: Nanos(1) };
    let mut line = vec![];
    record.write(&mut line, "S");
    assert!(!line.contains(&b'\n'));
    let read = match unified_nats::json::object_of(&line) {
        Ok(read) => read,
        // Numbers that no float holds are JSON all the same.
        Err(error) => return assert!(error.to_string().contains("number out of range"), "{error}"),
    };
    assert_eq!(read["sequence"], 1);
}
