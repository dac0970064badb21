//! Server-sent events as a client reads them.

use std::time::Duration;

use serde_json::Value;

/// One event, as `EventSource` would give it.
#[derive(Clone, Debug, PartialEq)]
pub struct SseEvent {
    pub kind: String,
    pub data: Value,
    pub id: String,
}

/// An answer that goes on.
pub struct Sse {
    answer: reqwest::Response,
    text: Vec<u8>,
    /// That of the last event that had one.
    pub last_id: String,
}

impl Sse {
    /// Status and body where it is not 200.
    pub async fn open(url: &str, last_id: Option<&str>) -> Result<Self, (u16, Value)> {
        let mut request = super::support::http_client().get(url);
        if let Some(id) = last_id {
            request = request.header("Last-Event-ID", id);
        }
        Self::of(request).await
    }

    #[allow(dead_code, reason = "not everybody who has this file asks as somebody")]
    pub async fn open_as(url: &str, token: &str) -> Result<Self, (u16, Value)> {
        Self::of(super::support::http_client().get(url).bearer_auth(token)).await
    }

    #[allow(dead_code, reason = "not everybody who has this file asks as somebody")]
    pub async fn open_as_user(url: &str, name: &str, password: &str) -> Result<Self, (u16, Value)> {
        Self::of(super::support::http_client().get(url).basic_auth(name, Some(password))).await
    }

    async fn of(request: reqwest::RequestBuilder) -> Result<Self, (u16, Value)> {
        let answer = request.send().await.map_err(|error| (0, Value::String(error.to_string())))?;
        if answer.status() != 200 {
            let status = answer.status().as_u16();
            let text = answer.text().await.unwrap_or_default();
            return Err((status, serde_json::from_str(&text).unwrap_or(Value::String(text))));
        }
        Ok(Self { answer, text: vec![], last_id: String::new() })
    }

    /// The next event; [`None`] at the end, or when none comes in time.
    pub async fn next_within(&mut self, patience: Duration) -> Option<SseEvent> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            while let Some(end) = self.text.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.text.drain(..end + 2).collect();
                if let Some(event) = self.event(std::str::from_utf8(&block).unwrap()) {
                    return Some(event);
                }
            }
            match tokio::time::timeout_at(deadline, self.answer.chunk()).await {
                Ok(Ok(Some(chunk))) => self.text.extend_from_slice(&chunk),
                Ok(Ok(None) | Err(_)) | Err(_) => return None,
            }
        }
    }

    pub async fn next(&mut self) -> SseEvent {
        self.next_within(super::support::PATIENCE).await.expect("an event comes")
    }

    /// So many events, which all are messages.
    pub async fn messages(&mut self, count: usize) -> Vec<Value> {
        let mut messages = vec![];
        while messages.len() < count {
            let event = self.next().await;
            assert_eq!(event.kind, "message", "{event:?}");
            messages.push(event.data);
        }
        messages
    }

    fn event(&mut self, block: &str) -> Option<SseEvent> {
        let mut event = SseEvent { kind: "message".into(), data: Value::Null, id: self.last_id.clone() };
        for line in block.lines() {
            match line.split_once(": ") {
                Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
                Some(("event", kind)) => event.kind = kind.into(),
                Some(("id", id)) => event.id = id.into(),
                Some(("retry" | "", _)) => {}
                None if line.is_empty() => {}
                _ => panic!("{line:?}"),
            }
        }
        self.last_id.clone_from(&event.id);
        (!event.data.is_null()).then_some(event)
    }
}
