use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::cli::top::picture::{Server, Store};
use crate::domain::DataType;

fn picture() -> Picture {
    let family = |name: &'static str| Family { name, ..Family::default() };
    let mut families = DataType::ALL.map(|family_of| family(family_of.name())).to_vec();
    families[0] = Family { name: "orderbook", rate: Some(1234.5), messages: Some(9_876_543.0), age: Some(0.04) };
    families[1] = Family { name: "trade", rate: Some(0.0), messages: Some(12.0), age: Some(4000.0) };
    let stream = |name: &str, share: f64, limit: &str| Stream {
        name: name.to_owned(),
        messages: 52_300.0,
        bytes: 3e9,
        rate: Some(812.0),
        usage: Some((share, limit.to_owned())),
        full_in: Some(7200.0),
    };
    let consumer = |name: &str, late: f64, lost: f64| Consumer {
        stream: "MARKET_DATA".into(),
        name: name.into(),
        waiting: 512.0,
        unacknowledged: 3.0,
        late: Some(late),
        lost: Some(lost),
    };
    Picture {
        version: "0.1.0".into(),
        state: "degraded".into(),
        mood: Mood::Doubtful,
        state_for: Some(75.0),
        restarts: Some(2.0),
        restarts_by: vec![("exited".into(), 1.0), ("hung".into(), 1.0)],
        restarts_left: Some(8.0),
        server: Server {
            uptime: Some(93_600.0),
            connections: Some(17.0),
            in_msgs: Some(1300.0),
            out_msgs: Some(5200.0),
            in_bytes: Some(250_000.0),
            out_bytes: Some(1e6),
            memory: Some(5e7),
            cpu: Some(12.0),
            slow_consumers: Some(1.0),
        },
        store: Store { used: Some(3e9), most: Some(1e10), free: Some(4e10), full_in: Some(90_000.0) },
        problems: vec!["integrity: messages are missing".into()],
        families,
        streams: vec![
            stream("MARKET_DATA", 0.95, "bytes"),
            stream("行情", 0.5, "messages"),
            Stream { name: "EMPTY".into(), ..Stream::default() },
        ],
        consumers: vec![consumer("slow", 400.0, 12.0), consumer("*", 0.5, 0.0)],
        events: vec![
            Event { at: "02:10:03".into(), what: "degraded".into(), why: Some("messages are missing".into()) },
            Event { at: "02:09:58".into(), what: "ready".into(), why: None },
        ],
    }
}

fn drawn(picture: &Picture, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(picture, Some("q quits"), frame.area(), frame.buffer_mut())).unwrap();
    terminal
}

#[test]
fn a_picture_fits_a_wide_terminal() {
    insta::assert_snapshot!(drawn(&picture(), 120, 32).backend());
}

#[test]
fn a_picture_fits_a_small_terminal() {
    insta::assert_snapshot!(drawn(&picture(), 80, 24).backend());
}

#[test]
fn a_tiny_terminal_shows_the_state_what_is_wrong_and_families() {
    insta::assert_snapshot!(drawn(&picture(), 20, 5).backend());
    insta::assert_snapshot!(drawn(&picture(), 40, 12).backend());
}

#[test]
fn nothing_is_known_at_first() {
    let picture = Picture {
        state: "no answer".into(),
        problems: vec!["http://h:1/health cannot be reached".into()],
        ..Picture::default()
    };
    insta::assert_snapshot!(drawn(&picture, 80, 24).backend());
}

#[test]
fn it_is_printed_as_text() {
    insta::assert_snapshot!(as_text(&picture(), 100));
}

#[test]
fn long_problems_are_broken_between_words() {
    let problems = ["one two three".to_owned(), "four".to_owned(), "x".repeat(20)];
    assert_eq!(problem_lines(&problems, 9), ["! one two", "  three", "! four", &format!("! {}", "x".repeat(20))]);
    let many = vec!["a b c".to_owned(); 9];
    assert_eq!(problem_lines(&many, 4).len(), PROBLEMS);
}

#[test]
fn what_has_no_room_is_counted() {
    let mut picture = picture();
    picture.streams = (0..20).map(|at| Stream { name: format!("S{at}"), ..Stream::default() }).collect();
    let text = drawn(&picture, 80, 24).backend().to_string();
    assert!(text.contains("S0") && !text.contains("S9 ") && text.contains(" more"), "{text}");
    assert!(!as_text(&picture, 80).contains(" more"));
}

#[test]
fn any_size_can_be_drawn() {
    for (width, height) in [(0, 0), (1, 1), (5, 3), (10, 50), (300, 2), (49, 12)] {
        drawn(&picture(), width, height);
    }
}

#[test]
fn what_others_name_draws_nothing_else() {
    let mut picture = picture();
    picture.streams[0].name = "evil\u{1b}[2J\r\nname".into();
    picture.problems = vec!["a\u{1b}]0;title\u{7}b\nc".into()];
    for text in [as_text(&picture, 100), drawn(&picture, 100, 30).backend().to_string()] {
        assert!(!text.contains(['\u{1b}', '\r', '\u{7}']), "{text:?}");
    }
}
