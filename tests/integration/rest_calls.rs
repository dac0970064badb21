//! Calls of the REST API, as tests make them.

use std::time::Duration;

use serde_json::Value;

use super::support::{Broker, block_on, http_client};

/// The API of a broker.
pub struct Api(String);

/// What it answered: the status, and the body as JSON.
pub type Answer = (u16, Value);

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
            (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {status} {text:?}: {error}")))
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
