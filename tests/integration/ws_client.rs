//! A WebSocket as a client has it.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::support::PATIENCE;

pub struct Ws(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// What comes from the broker.
#[derive(Debug, PartialEq)]
pub enum Got {
    Frame(Value),
    Closed(u16, String),
    Nothing,
}

impl Ws {
    pub async fn open(port: u16) -> Self {
        Self(connect_async(format!("ws://127.0.0.1:{port}/api/v1/broker/ws")).await.unwrap().0)
    }

    pub async fn open_as(port: u16, token: &str) -> Self {
        use tokio_tungstenite::tungstenite::client::IntoClientRequest;
        let mut request = format!("ws://127.0.0.1:{port}/api/v1/broker/ws").into_client_request().unwrap();
        request.headers_mut().insert("Authorization", format!("Bearer {token}").parse().unwrap());
        Self(connect_async(request).await.unwrap().0)
    }

    pub async fn send(&mut self, frame: Value) {
        self.send_text(&frame.to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    /// The connection may break on the way.
    pub async fn try_send_text(&mut self, text: String) -> bool {
        self.0.send(Message::text(text)).await.is_ok()
    }

    pub async fn close(&mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: code.into(), reason: reason.to_owned().into() };
        self.0.close(Some(frame)).await.unwrap();
    }

    pub async fn next_within(&mut self, patience: Duration) -> Got {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            match tokio::time::timeout_at(deadline, self.0.next()).await {
                Ok(Some(Ok(Message::Text(text)))) => return Got::Frame(serde_json::from_str(&text).unwrap()),
                Ok(Some(Ok(Message::Close(frame)))) => {
                    let frame = frame.map(|frame| (u16::from(frame.code), frame.reason.to_string()));
                    let (code, reason) = frame.unwrap_or_default();
                    return Got::Closed(code, reason);
                }
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(_)) | None) => return Got::Closed(0, String::new()),
                Err(_) => return Got::Nothing,
            }
        }
    }

    pub async fn frame(&mut self) -> Value {
        match self.next_within(PATIENCE).await {
            Got::Frame(frame) => frame,
            other => panic!("{other:?}"),
        }
    }

    /// The next frame, which is of that type.
    pub async fn expect(&mut self, kind: &str) -> Value {
        let frame = self.frame().await;
        assert_eq!(frame["type"], kind, "{frame}");
        frame
    }

    /// The sequences of so many messages.
    pub async fn sequences(&mut self, count: usize) -> Vec<u64> {
        let mut sequences = vec![];
        while sequences.len() < count {
            sequences.push(self.expect("message").await["sequence"].as_u64().unwrap());
        }
        sequences
    }
}
