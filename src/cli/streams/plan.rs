use std::fmt::Write;
use std::io::IsTerminal;

use serde_json::{Value, json};

use super::with_session;
use crate::cli::Flags;
use crate::cli::args::PlanStreams;
use crate::cli::exit::Code;
use crate::settings::declared::options::readable;
use crate::streams::plan::{Action, Change, Conflict, ConsumerAction, ConsumerPlan};
use crate::streams::{Existing, Plan, StreamPlan, plan as make_plan};

/// Prints what would change.
pub fn plan(flags: &Flags, arguments: &PlanStreams) -> Code {
    with_session(flags, None, arguments.timeout, async |session| {
        let existing = match Existing::read(&session.jetstream, &session.desired).await {
            Ok(existing) => existing,
            Err(error) => {
                complain!("cannot read the streams: {error}");
                return Code::Failed;
            }
        };
        let plan = make_plan(&session.desired, &existing);
        if arguments.output.json {
            say!("{:#}", as_json(&plan));
        } else {
            let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            say_raw!("{}", as_text(&plan, coloured));
        }
        match () {
            () if plan.has_conflicts() => Code::Failed,
            () if arguments.exit_code && !plan.is_nothing() => Code::Pending,
            () => Code::Success,
        }
    })
}

/// What a plan comes to.
#[derive(Default)]
struct Summary {
    create: usize,
    update: usize,
    delete: usize,
    conflicts: usize,
    unchanged: usize,
}

impl Summary {
    /// Streams and consumers count alike.
    fn of(plan: &Plan) -> Self {
        let mut summary = Self::default();
        for stream in &plan.streams {
            match stream.action {
                Action::Create(_) => summary.create += 1,
                Action::Update { .. } => summary.update += 1,
                Action::Prune { .. } => summary.delete += 1,
                Action::Nothing if stream.conflicts.is_empty() => summary.unchanged += 1,
                Action::Nothing | Action::Blocked | Action::Unknown => {}
            }
            for consumer in &stream.consumers {
                match consumer.action {
                    ConsumerAction::Create(_) => summary.create += 1,
                    ConsumerAction::Update { .. } => summary.update += 1,
                    ConsumerAction::Nothing | ConsumerAction::Blocked => {}
                }
            }
            summary.conflicts += stream.conflicts().count();
        }
        summary
    }

    fn sentence(&self) -> String {
        let delete = if self.delete > 0 { format!("{} to delete, ", self.delete) } else { String::new() };
        let plural = if self.conflicts == 1 { "conflict" } else { "conflicts" };
        format!("{} to create, {} to update, {delete}{} {plural}", self.create, self.update, self.conflicts)
    }
}

/// The plan like a diff.
fn as_text(plan: &Plan, coloured: bool) -> String {
    let mut page = Page { text: String::new(), coloured };
    for stream in plan.streams.iter().filter(|stream| !is_quiet(stream)) {
        page.stream(stream);
    }
    let summary = Summary::of(plan);
    if summary.unchanged > 0 {
        let _ = writeln!(page.text, "  {} unchanged", summary.unchanged);
    }
    if !plan.extra.is_empty() {
        let _ = writeln!(page.text, "  not declared, and left alone: {}", plan.extra.join(", "));
    }
    let _ = writeln!(page.text, "{}", summary.sentence());
    page.text
}

fn is_quiet(stream: &StreamPlan) -> bool {
    stream.is_nothing() && stream.action == Action::Nothing && stream.remarks().is_empty()
}

struct Page {
    text: String,
    coloured: bool,
}

impl Page {
    fn line(&mut self, mark: char, indent: usize, words: &str) {
        let colour = match mark {
            '+' => "32",
            '~' => "33",
            '-' | '!' => "31",
            _ => "0",
        };
        let indent = " ".repeat(indent);
        let _ = match self.coloured {
            true => writeln!(self.text, "\x1b[{colour}m{mark} {indent}{words}\x1b[0m"),
            false => writeln!(self.text, "{mark} {indent}{words}"),
        };
    }

    fn stream(&mut self, stream: &StreamPlan) {
        let name = &stream.name;
        match &stream.action {
            Action::Create(config) => {
                self.line('+', 0, &format!("stream {name}"));
                for (field, value) in config.iter().filter(|(field, _)| !matches!(field.as_str(), "name" | "metadata"))
                {
                    self.line('+', 4, &format!("{field}: {}", readable(field, value)));
                }
            }
            Action::Update { changes, .. } => {
                self.line('~', 0, &format!("stream {name}"));
                self.changes(4, changes);
            }
            Action::Prune { messages } => {
                self.line('-', 0, &format!("stream {name}, with its {messages} messages: it is not declared any more"));
            }
            Action::Nothing => self.line(' ', 0, &format!("stream {name}")),
            Action::Blocked => self.line('!', 0, &format!("stream {name} cannot be created")),
            Action::Unknown => self.line('!', 0, &format!("stream {name} does not answer, and is left alone")),
        }
        self.conflicts(4, &stream.conflicts);
        for change in &stream.kept {
            self.line(' ', 4, &change.why_kept());
        }
        for consumer in &stream.consumers {
            self.consumer(consumer);
        }
    }

    fn consumer(&mut self, consumer: &ConsumerPlan) {
        let name = &consumer.name;
        match &consumer.action {
            ConsumerAction::Create(_) => self.line('+', 4, &format!("consumer {name}")),
            ConsumerAction::Update { changes, .. } => {
                self.line('~', 4, &format!("consumer {name}"));
                self.changes(8, changes);
            }
            ConsumerAction::Nothing if consumer.conflicts.is_empty() => {}
            ConsumerAction::Nothing | ConsumerAction::Blocked => self.line(' ', 4, &format!("consumer {name}")),
        }
        self.conflicts(8, &consumer.conflicts);
    }

    fn changes(&mut self, indent: usize, changes: &[Change]) {
        for change in changes {
            self.line('~', indent, &change.to_string());
        }
    }

    fn conflicts(&mut self, indent: usize, conflicts: &[Conflict]) {
        for conflict in conflicts {
            self.line('!', indent, &format!("conflict: {conflict}"));
        }
    }
}

fn as_json(plan: &Plan) -> Value {
    let summary = Summary::of(plan);
    json!({
        "streams": plan.streams.iter().map(stream_as_json).collect::<Vec<_>>(),
        "extra": plan.extra,
        "summary": {
            "create": summary.create, "update": summary.update, "delete": summary.delete,
            "unchanged": summary.unchanged, "conflicts": summary.conflicts,
        },
    })
}

fn stream_as_json(stream: &StreamPlan) -> Value {
    let none: &[Change] = &[];
    let (action, changes) = match &stream.action {
        Action::Create(_) => ("create", none),
        Action::Update { changes, .. } => ("update", changes.as_slice()),
        Action::Nothing if stream.conflicts.is_empty() => ("unchanged", none),
        Action::Prune { .. } => ("prune", none),
        Action::Nothing | Action::Blocked => ("conflict", none),
        Action::Unknown => ("unknown", none),
    };
    let config = match &stream.action {
        Action::Create(config) | Action::Update { config, .. } => Value::Object(config.clone()),
        _ => Value::Null,
    };
    let texts = |conflicts: &[Conflict]| conflicts.iter().map(Conflict::to_string).collect::<Vec<_>>();
    let consumers: Vec<_> = stream
        .consumers
        .iter()
        .map(|consumer| {
            let (action, changes) = match &consumer.action {
                ConsumerAction::Create(_) => ("create", none),
                ConsumerAction::Update { changes, .. } => ("update", changes.as_slice()),
                ConsumerAction::Nothing if consumer.conflicts.is_empty() => ("unchanged", none),
                ConsumerAction::Nothing | ConsumerAction::Blocked => ("conflict", none),
            };
            json!({
                "name": consumer.name, "action": action, "changes": changes_as_json(changes),
                "conflicts": texts(&consumer.conflicts),
            })
        })
        .collect();
    json!({
        "name": stream.name, "action": action, "changes": changes_as_json(changes), "config": config,
        "conflicts": texts(&stream.conflicts),
        "kept": stream.kept.iter().map(Change::why_kept).collect::<Vec<_>>(),
        "consumers": consumers,
    })
}

fn changes_as_json(changes: &[Change]) -> Vec<Value> {
    let one = |change: &Change| {
        json!({
            "field": change.field, "now": change.now, "wanted": change.wanted, "by": change.by.to_string(),
            "effect": change.effect,
        })
    };
    changes.iter().map(one).collect()
}
