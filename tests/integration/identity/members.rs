//! A connection as one of our roles, and the work of each.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use unified_nats::domain::{Role, Secret};
use unified_nats::identity::login_as_operator;
use unified_nats::nats::{Connection, Connector};
use unified_nats::settings::{ClientCertificate, Credentials};

use crate::support::*;

pub const MARKET_DATA: &str = "MARKET_DATA";

pub fn conf(broker: &Broker) -> String {
    std::fs::read_to_string(broker.path("run/nats.conf")).unwrap()
}

/// The password in nats.conf; none where it holds no such user.
pub fn password(broker: &Broker, role: Role) -> Option<String> {
    let conf = conf(broker);
    let (_, after) = conf.split_once(&format!("user: \"{}\"\n", role.user()))?;
    Some(after.split('"').nth(1).unwrap().to_owned())
}

/// How that role reaches the server of the broker: with its password in nats.conf, else as the settings say.
pub fn connector(broker: &Broker, role: Role) -> Connector {
    let settings = broker.loaded();
    let mut login = login_as_operator(&settings);
    if let Some(password) = password(broker, role) {
        login.credentials = Some(Credentials::User { name: role.user().to_owned(), password: Secret::new(password) });
        role.inbox().clone_into(&mut login.inbox);
    }
    let [cert, key] = ["crt", "key"].map(|kind| broker.path(&format!("run/client-{}.{kind}", broker.ports.nats)));
    login.certificate = cert.is_file().then_some(ClientCertificate { cert, key });
    Connector::new(&settings, login)
}

/// A connection of one role.
pub struct Member {
    role: Role,
    pub connection: Connection,
}

impl Member {
    pub async fn connect(broker: &Broker, role: Role) -> Self {
        let connection = connector(broker, role).connect(PATIENCE).await;
        Self { role, connection: connection.unwrap_or_else(|error| panic!("{role:?}: {error}")) }
    }

    /// What is answered to a request that the role may make.
    pub async fn ask(&self, subject: &str, request: Value) -> Value {
        let jetstream = JetStream(self.connection.client.clone());
        let answer = tokio::time::timeout(PATIENCE, jetstream.ask(subject, request));
        let answer = answer.await.unwrap_or_else(|_| panic!("{:?}: {subject}: {:?}", self.role, self.refused()));
        assert!(answer["error"].is_null(), "{:?}: {subject}: {answer}", self.role);
        assert_eq!(self.refused(), None, "{:?}: {subject}", self.role);
        answer
    }

    /// What the server has refused since this was asked last.
    pub fn refused(&self) -> Option<String> {
        self.connection.refused().take_words()
    }

    /// Lets the connection hear what the server says, until it has refused that subject.
    pub async fn is_refused(&self, subject: &str) {
        let (role, subject) = (self.role, subject.to_lowercase());
        let heard = async {
            loop {
                if let Some(words) = self.refused() {
                    return words;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let words = tokio::time::timeout(PATIENCE, heard).await;
        let words = words.unwrap_or_else(|_| panic!("{role:?} is not refused {subject}")).to_lowercase();
        assert!(words.contains(&format!("\"{subject}\"")), "{role:?}: {subject}: {words}");
    }

    pub async fn may_not_publish(&self, subjects: &[&str]) {
        for subject in subjects {
            let client = &self.connection.client;
            client.publish((*subject).to_owned(), "{}".into()).await.unwrap();
            client.flush().await.unwrap();
            self.is_refused(subject).await;
        }
    }

    pub async fn may_not_subscribe(&self, subjects: &[&str]) {
        for subject in subjects {
            let client = &self.connection.client;
            let _subscriber = client.subscribe((*subject).to_owned()).await.unwrap();
            client.flush().await.unwrap();
            self.is_refused(subject).await;
        }
    }
}

pub fn with_user(version: &str) -> Broker {
    let mut broker = Broker::with_server(version);
    broker.set("NATS_AUTH_ENABLED", "true").set("NATS_AUTH_USERNAME", "u").set("NATS_AUTH_PASSWORD", "p");
    broker.start();
    broker
}

pub async fn messages(member: &Member, stream: &str) -> u64 {
    let info = member.ask(&format!("$JS.API.STREAM.INFO.{stream}"), Value::Null).await;
    info["state"]["messages"].as_u64().unwrap()
}

/// Publishes, and consumes with an acknowledgement that the server has taken.
pub async fn publishes_and_consumes(data: &Member) {
    let client = &data.connection.client;
    let sequence = JetStream(client.clone()).publish(SUBJECTS[1], "x").await;
    let config = json!({ "durable_name": "c", "ack_policy": "explicit", "deliver_policy": "all" });
    let request = json!({ "stream_name": MARKET_DATA, "config": config });
    data.ask("$JS.API.CONSUMER.DURABLE.CREATE.MARKET_DATA.c", request).await;
    // Messages bear their own subjects, by which requests that share a subscription cannot tell them apart.
    let inbox = client.new_inbox();
    let mut delivered = client.subscribe(inbox.clone()).await.unwrap();
    client.publish_with_reply("$JS.API.CONSUMER.MSG.NEXT.MARKET_DATA.c", inbox, "1".into()).await.unwrap();
    let next = tokio::time::timeout(PATIENCE, delivered.next()).await.unwrap().unwrap();
    assert_eq!((next.subject.as_str(), &next.payload[..]), (SUBJECTS[1], &b"x"[..]));
    // Answered once the server has taken it.
    client.request(next.reply.unwrap(), "+ACK".into()).await.unwrap();
    let info = data.ask("$JS.API.CONSUMER.INFO.MARKET_DATA.c", Value::Null).await;
    assert_eq!(info["ack_floor"]["stream_seq"], sequence);
}

pub async fn snapshot(backup: &Member, stream: &str) -> (Value, Vec<Vec<u8>>) {
    let taken = JetStream(backup.connection.client.clone()).snapshot(stream).await;
    assert_eq!(backup.refused(), None);
    taken
}

pub async fn restore(backup: &Member, stream: &str, snapshot: &(Value, Vec<Vec<u8>>)) -> Value {
    JetStream(backup.connection.client.clone()).restore(stream, snapshot).await
}
