//! Calls of the REST API, as tests make them.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use unified_nats::json::Plain;

use super::support::{Broker, block_on, http_client, is_alive, wait_for};

/// The API of a broker.
pub struct Api(String);

/// What it answered: the status, and the body as JSON.
pub type Answer = (u16, Value);

/// The whole of an answer.
pub struct Whole {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Whole {
    pub fn answer(&self) -> Answer {
        let body = serde_json::from_str(&self.text);
        (self.status, body.unwrap_or_else(|error| panic!("{} {:?}: {error}", self.status, self.text)))
    }

    /// One value for each line.
    pub fn lines(&self) -> Vec<Value> {
        let line = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        self.text.lines().map(line).collect()
    }
}

impl Api {
    pub fn of(broker: &Broker) -> Self {
        Self(broker.api(""))
    }

    fn send(&self, method: reqwest::Method, path: &str, body: Option<&str>) -> Answer {
        block_on(async {
            let mut request =
                http_client().request(method, format!("{}{path}", self.0)).timeout(Duration::from_secs(30));
            if let Some(body) = body {
                request = request.header("content-type", "application/json").body(body.to_owned());
            }
            let answer = request.send().await.unwrap_or_else(|error| panic!("{path}: {error}"));
            let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
            (
                status,
                serde_json::from_str(&text)
                    .map(|Plain(answer)| answer)
                    .unwrap_or_else(|error| panic!("{path}: {status} {text:?}: {error}")),
            )
        })
    }

    /// Posts bytes with headers of one's own.
    pub fn post_with(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Whole {
        block_on(async {
            let mut request = http_client().post(format!("{}{path}", self.0)).timeout(Duration::from_secs(60));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let answer = request.body(body.into()).send().await.unwrap_or_else(|error| panic!("{path}: {error}"));
            let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
            Whole { status, headers, text: answer.text().await.unwrap() }
        })
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send(reqwest::Method::GET, path, None)
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.send(reqwest::Method::DELETE, path, None)
    }

    pub fn post(&self, path: &str, body: impl ToString) -> Answer {
        self.send(reqwest::Method::POST, path, Some(&body.to_string()))
    }

    pub fn put(&self, path: &str, body: impl ToString) -> Answer {
        self.send(reqwest::Method::PUT, path, Some(&body.to_string()))
    }

    /// The data of a success.
    pub fn data(&self, (status, answer): Answer) -> Value {
        assert_eq!((status, &answer["status"]), (200, &"success".into()), "{answer}");
        answer["data"].clone()
    }

    /// Stores messages, one after the other.
    pub fn publish(&self, subject: &str, messages: impl IntoIterator<Item = Value>) {
        for message in messages {
            let body = serde_json::json!({ "subject": subject, "message": message });
            self.data(self.post("/api/v1/broker/publish", body));
        }
    }
}

/// That it is an error of that status and code, in the envelope; gives its message.
pub fn refused((status, answer): Answer, expected: u16, code: &str) -> String {
    assert_eq!((status, answer["error_code"].as_str()), (expected, Some(code)), "{answer}");
    assert_eq!((&answer["status"], &answer["data"]), (&"error".into(), &Value::Null), "{answer}");
    assert!(answer["timestamp"].as_str().is_some_and(|at| at.ends_with('Z')), "{answer}");
    answer["message"].as_str().unwrap().to_owned()
}

/// Kills servers until the broker pauses for RESTART_BACKOFF_MIN before it launches another: one that
/// had settled, as it does on a slow machine, is replaced at once. Gives when the last one was gone.
pub fn kill_until_it_pauses(broker: &Broker) -> Instant {
    loop {
        let server = broker.server_pid();
        kill(server, Signal::SIGKILL).unwrap();
        wait_for("it is gone", || (!is_alive(server)).then_some(()));
        let gone = Instant::now();
        let pauses = wait_for("it pauses, or another server runs", || {
            let told = &broker.health()["checks"]["nats_server"];
            // Before a launch that follows at once no server runs either.
            let pauses = told["state"] == "restarting" && told["pid"].is_null();
            let another = told["pid"].as_i64().is_some_and(|pid| pid != i64::from(server.as_raw()));
            (pauses || another).then_some(pauses)
        });
        if pauses {
            return gone;
        }
    }
}
