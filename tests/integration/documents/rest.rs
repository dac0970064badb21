//! docs/rest.md, which a real broker answers as it is shown, and whose programs do what they are for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::markdown::{Block, Document, repository};
use crate::rest_calls::Api;
use crate::support::{Broker, cannot_run, wait_for};

const SHOWN_PORT: &str = "127.0.0.1:8086";
/// Whose values are the same in every run.
const EXACT: [&str; 9] =
    ["status", "error_code", "message", "detail", "sequence", "published", "failed", "purged", "total"];

fn blocks() -> Vec<Block> {
    Document::read("docs/rest.md").blocks()
}

/// What is shown and is not so.
fn judge(shown: &Value, real: &Value, at: &str, wrong: &mut Vec<String>) {
    match (shown, real) {
        (Value::Object(shown), Value::Object(real)) => {
            for (key, value) in shown {
                let at = format!("{at}.{key}");
                match real.get(key) {
                    None => wrong.push(format!("{at} is not there")),
                    Some(other) if EXACT.contains(&key.as_str()) && value != other => {
                        wrong.push(format!("{at} is {other}, not {value}"));
                    }
                    Some(other) => judge(value, other, &at, wrong),
                }
            }
        }
        (Value::Array(shown), Value::Array(real)) => {
            for (index, value) in shown.iter().enumerate() {
                match real.get(index) {
                    None => wrong.push(format!("{at}[{index}] is not there")),
                    Some(other) => judge(value, other, &format!("{at}[{index}]"), wrong),
                }
            }
        }
        _ if std::mem::discriminant(shown) == std::mem::discriminant(real) => {}
        _ => wrong.push(format!("{at} is {real}, and no such thing as {shown}")),
    }
}

/// The same for text: each line stands in the answer, as far as it is the same in every run.
fn judge_lines(shown: &str, real: &str, wrong: &mut Vec<String>) {
    let parts = |line: &str| -> (String, Value) {
        match line.find('{') {
            Some(at) => (line[..at].to_owned(), serde_json::from_str(&line[at..]).unwrap_or_default()),
            None => (line.split(':').next().unwrap_or_default().to_owned(), Value::Null),
        }
    };
    let real: Vec<_> = real.lines().map(parts).collect();
    for (begin, json) in shown.lines().filter(|line| !line.is_empty()).map(parts) {
        let fits = |(other_begin, other): &(String, Value)| {
            let mut faults = Vec::new();
            judge(&json, other, "", &mut faults);
            *other_begin == begin && faults.is_empty()
        };
        if !real.iter().any(fits) {
            wrong.push(format!("no line is like {begin:?} and {json}"));
        }
    }
}

#[test]
fn what_curl_asks_the_api_is_answered_as_shown() {
    if !Path::new("/usr/bin/curl").exists() {
        return cannot_run("the examples of docs/rest.md", "curl is not installed");
    }
    let mut broker = Broker::new();
    broker.start();
    wait_for("it is healthy", || (broker.health()["status"] == "healthy").then_some(()));
    let directory = tempfile::tempdir().unwrap();
    let here = format!("127.0.0.1:{}", broker.ports.api);
    let (mut run, mut wrong) = (0, Vec::new());
    let blocks = blocks();
    for pair in blocks.windows(2).filter(|pair| pair[0].language == "bash" && pair[0].text.contains("curl ")) {
        let [call, shown] = pair else { unreachable!() };
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &call.text.replace(SHOWN_PORT, &here)]);
        let output = bash.current_dir(directory.path()).stdin(Stdio::null()).output().unwrap();
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut faults = Vec::new();
        match shown.language.as_str() {
            _ if !output.status.success() => faults.push(format!("{}", output.status)),
            "json" => match serde_json::from_str(&answer) {
                Ok(real) => judge(&serde_json::from_str(&shown.text).unwrap(), &real, "", &mut faults),
                Err(error) => faults.push(error.to_string()),
            },
            "text" => judge_lines(&shown.text, &answer, &mut faults),
            other => faults.push(format!("its answer is shown as {other:?}")),
        }
        if !faults.is_empty() {
            wrong.push(format!("{}{}\n{answer}\n", call.text, faults.join("\n")));
        }
        run += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(run > 30, "{run} calls");
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_difference_is_found() {
    let mut wrong = Vec::new();
    let real = json!({ "status": "success", "data": { "sequence": 2, "stream": "S", "list": [] } });
    judge(&json!({ "status": "success", "data": { "sequence": 2, "stream": "OTHER" } }), &real, "", &mut wrong);
    judge_lines("id: a\n\ndata: {\"a\":1}\n", "data: {\"a\":2}\nid: b\n", &mut wrong);
    assert!(wrong.is_empty(), "{wrong:?}");
    for other in [
        json!({ "status": "error" }),
        json!({ "data": { "sequence": 3 } }),
        json!({ "data": { "stream": 1 } }),
        json!({ "data": { "gone": 1 } }),
        json!({ "data": { "list": [1] } }),
        json!({ "data": null }),
    ] {
        let mut wrong = Vec::new();
        judge(&other, &real, "", &mut wrong);
        assert_eq!(wrong.len(), 1, "{other}");
    }
    judge_lines("event: gap\n", "data: {}\n", &mut wrong);
    assert_eq!(wrong.len(), 1, "{wrong:?}");
}

/// What can be asked, with which parameters, and what the answer may say.
#[test]
fn the_whole_api_is_told_and_nothing_else() {
    let api = unified_nats::rest::document();
    let document = Document::read("docs/rest.md");
    let spans = document.spans();
    let is_told = |words: &str| spans.iter().any(|span| span == words);
    let mut wrong = Vec::new();
    let mut calls = vec![];
    for (path, methods) in api["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let call = format!("{} {path}", method.to_uppercase());
            if !is_told(&call) {
                wrong.push(format!("{call} is not told"));
            }
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().unwrap();
                let is_named = |span: &String| span == name || span.starts_with(&format!("{name}="));
                if parameter["in"] == "query" && !spans.iter().any(is_named) {
                    wrong.push(format!("the parameter {name} of {call} is not told"));
                }
            }
            calls.push(call);
        }
    }
    for code in api["components"]["schemas"]["Code"]["enum"].as_array().unwrap() {
        let code = code.as_str().unwrap();
        if !document.rows().iter().any(|row| row[0].contains(&format!("`{code}`"))) {
            wrong.push(format!("no row says what {code} means"));
        }
    }
    for span in spans.iter().filter(|span| span.starts_with("GET /") || span.starts_with("POST /")) {
        let is_probe = ["GET /livez", "GET /readyz", "GET /startupz", "GET /health"].contains(&span.as_str());
        if !is_probe && !calls.contains(span) {
            wrong.push(format!("there is no {span}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(calls.len() > 25, "{calls:?}");
}

/// Where scripts/test.sh puts what tests need.
fn cache() -> PathBuf {
    let servers = std::env::var_os("UNIFIED_NATS_TEST_SERVERS").map(PathBuf::from);
    servers.and_then(|path| path.parent().map(Path::to_owned)).unwrap_or_else(|| repository().join(".cache"))
}

/// A program of the document while it runs.
struct Program {
    directory: TempDir,
    child: Child,
}

impl Program {
    /// That block of the language, against this broker; [`None`] where the machine cannot run it.
    fn launch(language: &str, at: usize, broker: &Broker) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let modules = cache().join("node/node_modules");
        let (mut command, name) = match language {
            "python" => (Command::new(cache().join("venv/bin/python")), "example.py"),
            _ => (Command::new("node"), "example.mjs"),
        };
        let is_there = match language {
            "python" => {
                let mut python = Command::new(cache().join("venv/bin/python"));
                python.args(["-c", "import httpx"]).output().is_ok_and(|output| output.status.success())
            }
            _ => {
                let mut node = Command::new("node");
                let has_node = node.arg("--version").output().is_ok_and(|output| output.status.success());
                has_node && ["eventsource", "ws"].iter().all(|package| modules.join(package).is_dir())
            }
        };
        if !is_there {
            cannot_run("a program of docs/rest.md", &format!("what its {language} needs: run scripts/test.sh"));
            return None;
        }
        let block = blocks().into_iter().filter(|block| block.language == language).nth(at);
        let text = block.expect("the document has it").text;
        assert!(text.contains(SHOWN_PORT), "{text}");
        let file = directory.path().join(name);
        fs::write(&file, text.replace(SHOWN_PORT, &format!("127.0.0.1:{}", broker.ports.api))).unwrap();
        std::os::unix::fs::symlink(modules, directory.path().join("node_modules")).unwrap();
        let output = |name| fs::File::create(directory.path().join(name)).unwrap();
        command.arg(file).current_dir(directory.path()).env("PYTHONUNBUFFERED", "1").stdin(Stdio::null());
        let child = command.stdout(output("stdout")).stderr(output("stderr")).spawn().unwrap();
        Some(Self { directory, child })
    }

    fn printed(&self) -> String {
        let read = |name| fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
        format!("{}{}", read("stdout"), read("stderr"))
    }

    fn wait_for(&self, words: &str) {
        let deadline = std::time::Instant::now() + crate::support::PATIENCE;
        while !self.printed().contains(words) {
            assert!(std::time::Instant::now() < deadline, "it does not print {words:?}:\n{}", self.printed());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// What it has printed when it ends well.
    fn finish(mut self) -> String {
        let status = wait_for("the program ends", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}: {}", self.printed());
        self.printed()
    }

    /// The sequences of the messages that it has printed.
    fn sequences(&self) -> Vec<u64> {
        self.printed().lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// It is started before the broker.
fn publishes(language: &str, stored: u64) {
    let mut broker = Broker::new();
    let Some(program) = Program::launch(language, 0, &broker) else { return };
    program.wait_for("no answer");
    broker.start();
    let printed = program.finish();
    assert!(printed.contains("stored as MARKET_DATA 1\n"), "{printed}");
    let api = Api::of(&broker);
    assert_eq!(api.data(api.get("/api/v1/broker/streams/MARKET_DATA"))["last_seq"], stored, "{printed}");
    let last = api.data(api.get("/api/v1/broker/streams/MARKET_DATA/messages?last=true"));
    assert!(last["headers"]["Nats-Msg-Id"].is_string(), "{last}");
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn the_python_publisher_stores_each_message_once() {
    publishes("python", 3);
}

#[test]
fn the_javascript_publisher_stores_each_message_once() {
    publishes("javascript", 1);
}

/// Nothing is missing and nothing comes twice while the broker restarts.
fn follows(language: &str) {
    let mut broker = Broker::new();
    broker.start();
    let api = Api::of(&broker);
    let publish =
        |symbol: &str| api.publish(&format!("trade-data.binance_spot.spot.{symbol}"), [json!({ "price": 1 })]);
    publish("BTCUSDT");
    publish("ETHUSDT");
    let Some(program) = Program::launch(language, 1, &broker) else { return };
    program.wait_for("2 trade-data.binance_spot.spot.ETHUSDT");
    publish("BTCUSDT");
    program.wait_for("3 trade-data");
    assert_eq!(broker.stop(), Some(0));
    program.wait_for("shutting_down");
    if language == "javascript" {
        // An error ends an EventSource for good.
        broker.set("API_ENABLED", false).start();
        program.wait_for("beginning anew");
        assert_eq!(broker.stop(), Some(0));
        broker.set("API_ENABLED", true);
    }
    broker.start();
    publish("ETHUSDT");
    publish("BTCUSDT");
    program.wait_for("5 trade-data");
    assert_eq!(program.sequences(), [1, 2, 3, 4, 5], "{}", program.printed());
    assert!(!program.printed().contains("gap"), "{}", program.printed());
    drop(program);
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn the_python_reader_goes_on_after_a_restart() {
    follows("python");
}

#[test]
fn the_javascript_reader_goes_on_after_a_restart() {
    follows("javascript");
}

#[test]
fn the_worker_acknowledges_over_a_websocket() {
    let mut broker = Broker::new();
    broker.start();
    let api = Api::of(&broker);
    api.publish("trade-data.binance_spot.spot.BTCUSDT", [json!(1), json!(2)]);
    let Some(program) = Program::launch("javascript", 2, &broker) else { return };
    program.wait_for("message 2 trade-data.binance_spot.spot.BTCUSDT 2");
    wait_for("both are acknowledged", || {
        let consumer = api.data(api.get("/api/v1/broker/streams/MARKET_DATA/consumers/worker"));
        (consumer["ack_floor"]["stream_seq"] == 2).then_some(())
    });
    assert_eq!(broker.stop(), Some(0));
    program.wait_for("closed 1001");
}
