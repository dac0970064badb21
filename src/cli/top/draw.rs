//! Draws a picture. Pure.

use ratatui::buffer::Buffer;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table, Widget};

use super::picture::{Consumer, Event, Family, Mood, Picture, Stream};
use crate::figures::{bytes, count, rate, short_span as span};

/// Lines of problems that are shown at most.
const PROBLEMS: usize = 6;
/// The names of the columns, and eight families.
const FAMILIES: u16 = 9;
/// How wide the table of families is.
const FAMILIES_WIDE: u16 = 48;
/// A terminal with fewer columns shows no events, and fewer columns of families.
const NARROW: u16 = 60;
/// One with fewer lines shows the state, what is wrong, and families.
const LOW: u16 = 20;
/// Lines that say how the broker, its server and its store are.
const HEAD: u16 = 4;
/// Consumers that are late for longer than that stand out, in seconds.
const LATE: f64 = 300.0;
/// Streams that are fuller than that stand out.
const FULL: f64 = 0.9;

/// Lines of a table with its names, and a word where it is empty.
fn lines_of(rows: usize) -> u16 {
    1 + u16::try_from(rows.max(1)).unwrap_or(u16::MAX).min(u16::MAX / 4)
}

/// The height at which everything is seen.
pub fn height(picture: &Picture, width: u16) -> u16 {
    let problems = problem_lines(&picture.problems, width).len() as u16;
    let lists = lines_of(picture.streams.len()) + lines_of(picture.consumers.len());
    HEAD + problems + FAMILIES + 3 + lists
}

/// The problems, broken between words where they are longer than a line.
fn problem_lines(problems: &[String], width: u16) -> Vec<String> {
    let mut lines = vec![];
    for problem in problems {
        let mut line = "!".to_owned();
        for word in problem.split_whitespace() {
            let is_first = line.trim_start().len() < 2;
            if !is_first && Line::from(format!("{line} {word}")).width() > usize::from(width) {
                lines.push(std::mem::replace(&mut line, " ".to_owned()));
            }
            line.push(' ');
            line.push_str(word);
        }
        lines.push(line);
    }
    lines.truncate(PROBLEMS);
    lines
}

/// How many lines the first list gets of those that there are for both: what it wants, unless the second
/// then has less than half and wants more.
fn share(lines: u16, first: u16, second: u16) -> u16 {
    first.min((lines / 2).max(lines.saturating_sub(second)))
}

/// Draws the picture into that area of the buffer. `help` is the last line, where there is one.
pub fn draw(picture: &Picture, help: Option<&str>, area: Rect, buffer: &mut Buffer) {
    // What is small has room for the state, for what is wrong, and for the families.
    let is_low = area.height < LOW;
    let mut problems = problem_lines(&picture.problems, area.width);
    if is_low {
        problems.truncate(usize::from(area.height / 3));
    }
    let trouble = problems.len() as u16;
    let (lines, gap, help) = if is_low { (1, 0, None) } else { (HEAD, 1, help) };
    let fixed = lines + trouble + FAMILIES + 3 * gap + u16::from(help.is_some());
    let families = FAMILIES.min(area.height.saturating_sub(lines + trouble));
    let [streams, consumers] = [picture.streams.len(), picture.consumers.len()].map(lines_of);
    let streams = share(area.height.saturating_sub(fixed), streams, consumers);
    let [head, trouble, _, upper, _, streams, _, consumers, last] = Layout::vertical([
        Constraint::Length(lines),
        Constraint::Length(trouble),
        Constraint::Length(gap),
        Constraint::Length(families),
        Constraint::Length(gap),
        Constraint::Length(streams),
        Constraint::Length(gap),
        Constraint::Fill(1),
        Constraint::Length(u16::from(help.is_some())),
    ])
    .areas(area);
    Paragraph::new(vec![title(picture, area.width), traffic(picture), process(picture), store(picture)])
        .render(head, buffer);
    let lines: Vec<_> = problems.into_iter().map(|line| Line::from(line).red()).collect();
    Paragraph::new(lines).render(trouble, buffer);
    let [wide, between] = if area.width < NARROW { [area.width, 0] } else { [FAMILIES_WIDE, 2] };
    let [families, _, events] =
        Layout::horizontal([Constraint::Length(wide), Constraint::Length(between), Constraint::Fill(1)]).areas(upper);
    draw_families(&picture.families, families, buffer);
    draw_events(&picture.events, events, buffer);
    draw_streams(&picture.streams, streams, buffer);
    draw_consumers(&picture.consumers, consumers, buffer);
    if let Some(help) = help {
        Paragraph::new(Line::from(help.to_owned()).dim()).render(last, buffer);
    }
}

fn style_of(mood: Mood) -> Style {
    let style = Style::new().add_modifier(Modifier::BOLD);
    match mood {
        Mood::Well => style.fg(Color::Green),
        Mood::Doubtful => style.fg(Color::Yellow),
        Mood::Bad => style.fg(Color::Red),
    }
}

/// What is not known is left out.
fn part(name: &str, value: Option<String>) -> Option<String> {
    value.map(|value| format!("{name} {value}"))
}

fn joined(parts: impl IntoIterator<Item = Option<String>>) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join("  ")
}

fn title(picture: &Picture, width: u16) -> Line<'static> {
    let by = picture.restarts_by.iter().map(|(reason, times)| format!("{reason} {}", count(*times)));
    let by = by.collect::<Vec<_>>().join(", ");
    let restarts = picture.restarts.map(|restarts| match by.is_empty() {
        true => count(restarts),
        false => format!("{} ({by})", count(restarts)),
    });
    let rest = joined([
        picture.state_for.map(|seconds| format!("for {}", span(seconds))),
        part("restarts", restarts),
        picture.restarts_left.map(|left| format!("{} left", count(left))),
    ]);
    let name = if width < NARROW { String::new() } else { format!("unified-nats {}   ", picture.version) };
    Line::from(vec![
        Span::from(name).bold(),
        Span::styled(picture.state.clone(), style_of(picture.mood)),
        Span::from(format!(" {rest}")),
    ])
}

fn traffic(picture: &Picture) -> Line<'static> {
    let server = &picture.server;
    let flow = |messages: Option<f64>, data: Option<f64>| Some(format!("{} {}/s", rate(messages), bytes(data?)));
    Line::from(joined([
        part("nats-server up", server.uptime.map(span)),
        part("connections", server.connections.map(count)),
        part("in", flow(server.in_msgs, server.in_bytes)),
        part("out", flow(server.out_msgs, server.out_bytes)),
    ]))
}

fn process(picture: &Picture) -> Line<'static> {
    let server = &picture.server;
    Line::from(joined([
        part("memory", server.memory.map(bytes)),
        part("cpu", server.cpu.map(|percent| format!("{percent:.0}%"))),
        part("slow clients", server.slow_consumers.filter(|times| *times > 0.0).map(count)),
    ]))
}

fn store(picture: &Picture) -> Line<'static> {
    let store = &picture.store;
    let used = store.used.map(|used| match store.most.filter(|most| *most > 0.0) {
        Some(most) => format!("{} of {}", bytes(used), bytes(most)),
        None => bytes(used),
    });
    Line::from(joined([
        part("store", used),
        part("disk free", store.free.map(bytes)),
        part("full in", store.full_in.map(span)),
    ]))
}

fn right(text: impl Into<String>) -> Cell<'static> {
    Cell::from(Line::from(text.into()).alignment(Alignment::Right))
}

/// A column: its name, how wide it is, and whether it holds numbers.
type Column = (&'static str, Constraint, bool);

/// A table under its names. What has no room is counted in its last row.
fn draw_table(columns: &[Column], mut rows: Vec<Row<'static>>, none: &str, area: Rect, buffer: &mut Buffer) {
    let room = usize::from(area.height.saturating_sub(1));
    let mut note = None;
    if rows.is_empty() {
        note = Some(none.to_owned());
    } else if rows.len() > room && room > 0 {
        note = Some(format!("and {} more", rows.len() - (room - 1)));
        rows.truncate(room - 1);
    }
    let behind = Rect { y: area.y.saturating_add(1 + rows.len() as u16), height: 1, ..area }.intersection(area);
    let names = columns.iter().map(|(name, _, is_number)| if *is_number { right(*name) } else { Cell::from(*name) });
    let header = Row::new(names).style(Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED));
    let table = Table::new(rows, columns.iter().map(|(_, width, _)| *width)).header(header).column_spacing(1);
    Widget::render(table, area, buffer);
    if let Some(note) = note {
        Paragraph::new(Line::from(note).dim()).render(behind, buffer);
    }
}

fn draw_families(families: &[Family], area: Rect, buffer: &mut Buffer) {
    let all: [Column; 4] = [
        ("family", Constraint::Fill(1), false),
        ("rate", Constraint::Length(9), true),
        ("messages", Constraint::Length(9), true),
        ("last", Constraint::Length(9), true),
    ];
    // The name and how long ago the last one came say most.
    let shown: &[usize] = match area.width {
        0..28 => &[0, 3],
        28..FAMILIES_WIDE => &[0, 1, 3],
        _ => &[0, 1, 2, 3],
    };
    let columns: Vec<_> = shown.iter().map(|at| all[*at]).collect();
    let row = |family: &Family| {
        let cells = [
            Cell::from(family.name),
            right(rate(family.rate)),
            right(family.messages.map_or("–".into(), count)),
            right(family.age.map_or("–".into(), span)),
        ];
        Row::new(shown.iter().map(|at| cells[*at].clone()))
    };
    draw_table(&columns, families.iter().map(row).collect(), "", area, buffer);
}

fn draw_events(events: &[Event], area: Rect, buffer: &mut Buffer) {
    let columns: [Column; 2] = [("events", Constraint::Length(8), false), ("", Constraint::Fill(1), false)];
    let row = |event: &Event| {
        let why = event.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        Row::new([event.at.clone(), format!("{}{why}", event.what)])
    };
    // The newest are enough.
    let room = usize::from(area.height.saturating_sub(1));
    draw_table(&columns, events.iter().take(room).map(row).collect(), "none", area, buffer);
}

/// As a bar of ten that is full only where nothing is left, with the share in numbers.
fn gauge(share: f64) -> String {
    let full = (share.clamp(0.0, 1.0) * 10.0) as usize;
    format!("{}{} {:>3.0}%", "█".repeat(full), "░".repeat(10 - full), share * 100.0)
}

fn draw_streams(streams: &[Stream], area: Rect, buffer: &mut Buffer) {
    let columns: [Column; 6] = [
        ("stream", Constraint::Fill(1), false),
        ("rate", Constraint::Length(9), true),
        ("messages", Constraint::Length(9), true),
        ("bytes", Constraint::Length(9), true),
        ("in use", Constraint::Length(25), false),
        ("full in", Constraint::Length(9), true),
    ];
    let row = |stream: &Stream| {
        let usage =
            stream.usage.as_ref().map_or("no limits".into(), |(share, limit)| format!("{} {limit}", gauge(*share)));
        let is_full = stream.usage.as_ref().is_some_and(|(share, _)| *share > FULL);
        Row::new([
            Cell::from(stream.name.clone()),
            right(rate(stream.rate)),
            right(count(stream.messages)),
            right(bytes(stream.bytes)),
            if is_full { Cell::from(usage).red() } else { Cell::from(usage) },
            right(stream.full_in.map_or("–".into(), span)),
        ])
    };
    draw_table(&columns, streams.iter().map(row).collect(), "none, or not known", area, buffer);
}

fn draw_consumers(consumers: &[Consumer], area: Rect, buffer: &mut Buffer) {
    let columns: [Column; 6] = [
        ("consumer", Constraint::Fill(1), false),
        ("of stream", Constraint::Fill(1), false),
        ("waiting", Constraint::Length(9), true),
        ("unacked", Constraint::Length(9), true),
        ("late by", Constraint::Length(9), true),
        ("lost", Constraint::Length(9), true),
    ];
    let row = |consumer: &Consumer| {
        let late = right(consumer.late.map_or("–".into(), span));
        let lost = right(consumer.lost.map_or("–".into(), count));
        Row::new([
            Cell::from(if consumer.name == "*" { "(without durable name)".to_owned() } else { consumer.name.clone() }),
            Cell::from(consumer.stream.clone()),
            right(count(consumer.waiting)),
            right(count(consumer.unacknowledged)),
            if consumer.late.is_some_and(|late| late > LATE) { late.yellow() } else { late },
            if consumer.lost.is_some_and(|lost| lost > 0.0) { lost.red() } else { lost },
        ])
    };
    draw_table(&columns, consumers.iter().map(row).collect(), "none, or not known", area, buffer);
}

/// The picture as lines of text.
pub fn as_text(picture: &Picture, width: u16) -> String {
    let area = Rect::new(0, 0, width, height(picture, width));
    let mut buffer = Buffer::empty(area);
    draw(picture, None, area, &mut buffer);
    let line = |y: u16| {
        let (mut line, mut x) = (String::new(), 0);
        while let Some(cell) = buffer.cell((x, y)).filter(|_| x < area.width) {
            line.push_str(cell.symbol());
            // What is wide stands in its first cell.
            x += (Line::from(cell.symbol()).width() as u16).max(1);
        }
        line.trim_end().to_owned()
    };
    (0..area.height).map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests;
