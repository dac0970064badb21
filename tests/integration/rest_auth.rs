//! Who may ask the REST API for what.

use async_nats::ConnectOptions;
use nix::sys::signal::{Signal, kill};
use reqwest::Method;
use serde_json::{Value, json};

use crate::rest_calls::kill_until_it_pauses;
use crate::sse::Sse;
use crate::support::*;

const VERSIONS: [&str; 2] = [CURRENT, "2.10.26"];

/// What a request shows.
#[derive(Clone, Copy, Debug)]
enum Shows<'a> {
    Nothing,
    Token(&'a str),
    User(&'a str, &'a str),
}
use Shows::{Nothing, Token, User};

/// An answer; its body where it is JSON.
struct Answer {
    status: u16,
    body: Value,
}

impl Answer {
    fn code(&self) -> &str {
        self.body["error_code"].as_str().unwrap_or_default()
    }
}

async fn ask(broker: &Broker, shows: Shows<'_>, method: Method, path: &str, body: Option<Value>) -> Answer {
    let mut request = http_client().request(method, broker.api(path)).timeout(PATIENCE);
    request = match shows {
        Nothing => request,
        Token(token) => request.bearer_auth(token),
        User(name, password) => request.basic_auth(name, Some(password)),
    };
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.unwrap_or_else(|error| panic!("{path}: {error:?}"));
    let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap_or_default());
    Answer { status, body: serde_json::from_str(&text).unwrap_or_default() }
}

async fn reads(broker: &Broker, shows: Shows<'_>) -> u16 {
    ask(broker, shows, Method::GET, "/api/v1/status", None).await.status
}

async fn publish(broker: &Broker, shows: Shows<'_>, subject: &str) -> Answer {
    let body = json!({ "subject": subject, "message": { "price": 1 } });
    ask(broker, shows, Method::POST, "/api/v1/broker/publish", Some(body)).await
}

/// What reading and publishing come to for each.
async fn check(broker: &Broker, cases: &[(Shows<'_>, u16, u16)]) {
    for (shows, reading, publishing) in cases {
        assert_eq!(reads(broker, *shows).await, *reading, "{shows:?} reads");
        let published = publish(broker, *shows, SUBJECTS[1]).await;
        assert_eq!(published.status, *publishing, "{shows:?} publishes: {}", published.body);
        let unknown = ask(broker, *shows, Method::GET, "/api/v1/nowhere", None).await.status;
        assert_eq!(unknown, if *reading == 200 { 404 } else { *reading }, "{shows:?}");
    }
    for path in ["/livez", "/readyz", "/startupz", "/health", "/"] {
        assert_eq!(ask(broker, Nothing, Method::GET, path, None).await.status, 200, "{path}");
        assert_eq!(ask(broker, Token("wrong"), Method::GET, path, None).await.status, 200, "{path}");
    }
}

const USERS: &str = r#"
users:
  - {user: all, password: "all:pass"}
  - user: producer
    password: producer_pass
    permissions: {publish: ["trade-data.>"], subscribe: ["_INBOX.>"]}
  - user: reader
    password: reader_pass
    permissions: {publish: ["$JS.API.STREAM.*", "$JS.API.STREAM.INFO.>", "$JS.API.CONSUMER.LIST.>", "$JS.API.INFO"], subscribe: ["_INBOX.>"]}
  - user: follower
    password: follower_pass
    permissions:
      publish: ["$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.>", "$JS.API.CONSUMER.CREATE.>", "$JS.API.CONSUMER.DELETE.>"]
      subscribe: ["_INBOX.>"]
  - {user: deaf, password: deaf_pass, permissions: {publish: [">"], subscribe: ["trade-data.>"]}}
"#;

fn with_users(version: &str) -> Broker {
    let mut broker = Broker::with_server(version);
    let file = broker.path("users.yml");
    std::fs::write(&file, USERS).unwrap();
    broker.set("NATS_AUTH_ENABLED", "true").set("NATS_USERS_FILE", file.display());
    broker
}

#[test]
fn without_anything_set_everybody_may_do_everything() {
    for version in VERSIONS {
        let mut broker = Broker::with_server(version);
        broker.start();
        block_on(check(&broker, &[(Nothing, 200, 200), (Token("x"), 200, 200), (User("x", "y"), 200, 200)]));
    }
}

#[test]
fn tokens_open_everything_or_reading_alone() {
    for version in VERSIONS {
        let mut broker = Broker::with_server(version);
        broker.set("API_TOKEN", "tell-all").set("API_READ_TOKEN", "tell-some").set("LOG_LEVEL", "debug").start();
        let cases = [
            (Nothing, 401, 401),
            (Token("tell-all"), 200, 200),
            (Token("tell-some"), 200, 403),
            (Token("tell-al"), 401, 401),
            (User("x", "tell-all"), 401, 401),
        ];
        block_on(check(&broker, &cases));
        assert_eq!(broker.stop(), Some(0));
        let log = broker.log();
        assert!(log.contains("/api/v1/broker/publish"), "there is an access log: {log}");
        for secret in ["tell-", "dGVsb", SUBJECTS[1]] {
            assert!(!log.contains(secret), "{secret}");
        }
    }
}

#[test]
fn a_token_for_reading_alone_leaves_nobody_who_writes() {
    let mut broker = Broker::new();
    broker.set("API_READ_TOKEN", "tell-some").start();
    block_on(check(&broker, &[(Nothing, 401, 401), (Token("tell-some"), 200, 403)]));
}

#[test]
fn the_token_of_nats_opens_the_api_where_it_has_none() {
    for version in VERSIONS {
        let mut broker = Broker::with_server(version);
        broker.set("NATS_AUTH_ENABLED", "true").set("NATS_AUTH_TOKEN", "nats token").start();
        let cases = [(Nothing, 401, 401), (Token("nats token"), 200, 200), (Token("nats"), 401, 401)];
        block_on(check(&broker, &cases));
    }
    let mut broker = Broker::new();
    broker.set("NATS_AUTH_ENABLED", "true").set("NATS_AUTH_TOKEN", "nats").set("API_TOKEN", "api").start();
    block_on(check(&broker, &[(Token("nats"), 401, 401), (Token("api"), 200, 200)]));
}

#[test]
fn users_act_with_their_own_permissions() {
    for version in VERSIONS {
        let mut broker = with_users(version);
        broker.set("API_TOKEN", "tell-all").set("API_READ_TOKEN", "tell-some").start();
        block_on(async {
            let cases = [
                (Nothing, 401, 401),
                (Token("tell-all"), 200, 200),
                (Token("tell-some"), 200, 403),
                (User("all", "all:pass"), 200, 200),
                (User("all", "all"), 401, 401),
                (User("nobody", "x"), 401, 401),
                (User("_unified_nats", "x"), 401, 401),
                (User("reader", "reader_pass"), 200, 403),
            ];
            check(&broker, &cases).await;
            let started = std::time::Instant::now();
            let producer = User("producer", "producer_pass");
            assert_eq!(publish(&broker, producer, SUBJECTS[1]).await.status, 200);
            let refused = publish(&broker, producer, SUBJECTS[0]).await;
            assert_eq!((refused.status, refused.code()), (403, "FORBIDDEN"), "{}", refused.body);
            assert_eq!(refused.body["details"]["subject"], SUBJECTS[0]);
            let unknown = publish(&broker, producer, "trade-data").await;
            assert_eq!(unknown.status, 403, "{}", unknown.body);
            let refused = ask(&broker, producer, Method::GET, "/api/v1/broker/streams", None).await;
            assert_eq!((refused.status, refused.code()), (403, "FORBIDDEN"), "{}", refused.body);
            let subject = refused.body["details"]["subject"].as_str().unwrap();
            assert!(subject.starts_with("$JS.API.STREAM."), "{subject}");
            let entries: Vec<_> = [1, 0, 0].map(|which| json!({ "subject": SUBJECTS[which], "message": 1 })).into();
            let batch =
                ask(&broker, producer, Method::POST, "/api/v1/broker/publish/batch", Some(json!(entries))).await;
            assert_eq!(batch.status, 207, "{}", batch.body);
            let results = &batch.body["data"]["results"];
            assert_eq!(
                (&results[0]["status"], &results[2]["http_status"]),
                (&json!("success"), &json!(403)),
                "{results}"
            );
            assert_eq!(results[1]["details"]["subject"], SUBJECTS[0]);
            let deaf = publish(&broker, User("deaf", "deaf_pass"), SUBJECTS[1]).await;
            assert_eq!((deaf.status, deaf.code()), (403, "FORBIDDEN"), "{}", deaf.body);
            assert_eq!(deaf.body["details"]["subject"], "_INBOX.>");
            assert!(started.elapsed() < std::time::Duration::from_secs(8), "at once, and not by the deadline");
            // The deaf one stored nothing though it may publish.
            let all = ConnectOptions::with_user_and_password("all".into(), "all:pass".into());
            let client = all.connect(broker.url()).await.unwrap();
            assert_eq!(JetStream(client).info("MARKET_DATA").await["state"]["messages"], 4);
        });
        assert_eq!(broker.stop(), Some(0));
        for secret in ["all:pass", "producer_pass", "tell-all"] {
            assert!(!broker.log().contains(secret), "{secret}");
        }
    }
}

/// Whoever may make a consumer and not ask it for messages would wait for them for ever.
#[test]
fn who_may_not_ask_for_messages_hears_so_before_the_answer_begins() {
    for version in VERSIONS {
        let mut broker = with_users(version);
        broker.start();
        let subject = format!("subject={}", SUBJECTS[1]);
        let forbidden = |answer: Answer, begins: &str| {
            assert_eq!((answer.status, answer.code()), (403, "FORBIDDEN"), "{}", answer.body);
            let subject = answer.body["details"]["subject"].as_str().unwrap().to_owned();
            assert!(subject.starts_with(begins), "{subject}");
        };
        block_on(async {
            assert_eq!(publish(&broker, User("all", "all:pass"), SUBJECTS[1]).await.status, 200);
            let paths = ["tail?", "tail?from=1&", "tail?snapshot=last&", "replay?", "replay?from=1&"];
            for path in paths {
                let path = format!("/api/v1/broker/{path}{subject}");
                let answer = ask(&broker, User("follower", "follower_pass"), Method::GET, &path, None).await;
                forbidden(answer, "$JS.API.CONSUMER.MSG.NEXT.MARKET_DATA.unified-nats-");
                let answer = ask(&broker, User("reader", "reader_pass"), Method::GET, &path, None).await;
                forbidden(answer, "$JS.API.CONSUMER.CREATE.MARKET_DATA.unified-nats-");
            }
        });
    }
}

#[test]
fn who_may_ask_no_longer_hears_so_where_it_follows() {
    let mut broker = with_users(CURRENT);
    let file = broker.path("users.yml");
    let granted = USERS
        .replace("\"$JS.API.CONSUMER.DELETE.>\"]", "\"$JS.API.CONSUMER.DELETE.>\", \"$JS.API.CONSUMER.MSG.NEXT.>\"]");
    std::fs::write(&file, granted).unwrap();
    broker.start();
    let url = broker.api(&format!("/api/v1/broker/tail?subject={}", SUBJECTS[1]));
    block_on(async {
        let mut tail = Sse::open_as_user(&url, "follower", "follower_pass").await.unwrap();
        assert_eq!(publish(&broker, User("all", "all:pass"), SUBJECTS[1]).await.status, 200);
        assert_eq!(tail.messages(1).await[0]["sequence"], 1);
        std::fs::write(&file, USERS).unwrap();
        broker.signal(Signal::SIGHUP);
        let end = tail.next().await;
        assert_eq!((end.kind.as_str(), &end.data["reason"]), ("end", &json!("failed")), "{end:?}");
        let words = end.data["message"].as_str().unwrap();
        assert!(words.contains("publish to $JS.API.CONSUMER.MSG.NEXT.MARKET_DATA."), "{words}");
    });
}

#[test]
fn users_come_by_themselves_where_the_api_has_no_tokens() {
    for version in VERSIONS {
        let mut broker = Broker::with_server(version);
        let hash = bcrypt::hash("secret", 4).unwrap();
        let file = broker.path("users.yml");
        std::fs::write(&file, format!("users: [{{user: hashed, password: \"{hash}\"}}]")).unwrap();
        broker.set("NATS_AUTH_ENABLED", "true").set("NATS_USERS_FILE", file.display());
        broker.set("NATS_AUTH_USERNAME", "ü b").set("NATS_AUTH_PASSWORD", "p:ö w").start();
        let cases = [
            (Nothing, 401, 401),
            (Token("secret"), 401, 401),
            (User("hashed", "secret"), 200, 200),
            (User("ü b", "p:ö w"), 200, 200),
            (User("hashed", &hash), 401, 401),
        ];
        block_on(check(&broker, &cases));
    }
}

#[test]
fn nobody_guesses_fast_and_who_is_in_stays_in() {
    let mut broker = with_users(CURRENT);
    broker.start();
    block_on(async {
        let all = User("all", "all:pass");
        assert_eq!(reads(&broker, all).await, 200);
        let mut outcomes = vec![];
        for guess in 0..40 {
            outcomes.push(reads(&broker, User("all", &format!("guess {guess}"))).await);
        }
        let refused = outcomes.iter().filter(|status| **status == 401).count();
        assert!((5..20).contains(&refused), "{outcomes:?}");
        assert_eq!(outcomes.last(), Some(&429));
        let answer = ask(&broker, User("all", "guess"), Method::GET, "/api/v1/status", None).await;
        assert_eq!((answer.status, answer.code()), (429, "RATE_LIMITED"));
        assert_eq!(reads(&broker, all).await, 200);
        assert_eq!(reads(&broker, User("producer", "producer_pass")).await, 200, "nobody guessed its");
    });
}

#[test]
fn many_users_share_a_bounded_number_of_connections() {
    const MANY: usize = 140;
    let mut broker = Broker::new();
    let users: String =
        (0..MANY).map(|number| format!("  - {{user: user{number}, password: pass{number}}}\n")).collect();
    let file = broker.path("users.yml");
    std::fs::write(&file, format!("users:\n{users}")).unwrap();
    broker.set("NATS_AUTH_ENABLED", "true").set("NATS_USERS_FILE", file.display()).start();
    block_on(async {
        for number in 0..MANY {
            let (name, password) = (format!("user{number}"), format!("pass{number}"));
            let published = publish(&broker, User(&name, &password), SUBJECTS[1]).await;
            assert_eq!(published.status, 200, "{name}: {}", published.body);
        }
        let varz = http_client().get(format!("http://127.0.0.1:{}/varz", broker.ports.http)).send().await.unwrap();
        let varz: Value = serde_json::from_str(&varz.text().await.unwrap()).unwrap();
        let connections = varz["connections"].as_u64().unwrap();
        assert!((128..MANY as u64).contains(&connections), "{connections}");
    });
}

#[test]
fn a_reload_ends_what_a_user_had() {
    let mut broker = with_users(CURRENT);
    broker.start();
    block_on(async {
        let (all, producer) = (User("all", "all:pass"), User("producer", "producer_pass"));
        for user in [all, producer] {
            assert_eq!(publish(&broker, user, SUBJECTS[1]).await.status, 200);
        }
        let changed =
            USERS.replace("all:pass", "changed").replace("trade-data.>\"], sub", "funding-rate-data.>\"], sub");
        std::fs::write(broker.path("users.yml"), changed.replace("user: reader", "user: other")).unwrap();
        broker.signal(Signal::SIGHUP);
        wait_for("the reload", || broker.log().contains("reloaded;").then_some(()));
        assert_eq!(publish(&broker, all, SUBJECTS[1]).await.status, 401);
        assert_eq!(publish(&broker, User("all", "changed"), SUBJECTS[1]).await.status, 200);
        assert_eq!(publish(&broker, producer, SUBJECTS[1]).await.status, 403);
        assert_eq!(publish(&broker, producer, SUBJECTS[2]).await.status, 200);
        assert_eq!(publish(&broker, User("reader", "reader_pass"), SUBJECTS[2]).await.status, 401);
    });
}

#[test]
fn a_server_that_is_away_is_no_refusal() {
    let mut broker = with_users(CURRENT);
    broker.set("API_REQUEST_TIMEOUT", "300ms").set("RESTART_BACKOFF_MIN", "30s").set("RESTART_BACKOFF_MAX", "30s");
    broker.start();
    let all = User("all", "all:pass");
    // On a machine that is busy a first login takes longer than the time for a request here.
    wait_for("the user is let in", || {
        block_on(async { (publish(&broker, all, SUBJECTS[1]).await.status == 200).then_some(()) })
    });
    kill_until_it_pauses(&broker);
    block_on(async {
        for user in [all, User("producer", "producer_pass"), User("x", "y")] {
            let answer = publish(&broker, user, SUBJECTS[1]).await;
            assert_eq!((answer.status, answer.code()), (503, "NATS_CONNECTION_ERROR"), "{user:?}");
        }
    });
}

#[test]
fn users_come_back_after_the_server_has() {
    let mut broker = with_users(CURRENT);
    broker.start();
    let producer = User("producer", "producer_pass");
    block_on(async { assert_eq!(publish(&broker, producer, SUBJECTS[1]).await.status, 200) });
    kill(broker.server_pid(), Signal::SIGKILL).unwrap();
    wait_for("another server", || (broker.restarts() == Some(1)).then_some(()));
    block_on(async { assert_eq!(publish(&broker, producer, SUBJECTS[1]).await.status, 200) });
}

#[test]
fn two_authorization_headers_are_refused() {
    let mut broker = Broker::new();
    broker.set("API_TOKEN", "tell-all").start();
    block_on(async {
        let request = http_client().get(broker.api("/api/v1/status")).bearer_auth("tell-all").bearer_auth("x");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 400);
        let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!(body["error_code"], "INVALID_PARAMETERS");
        let answer = http_client().get(broker.api("/api/v1/status")).send().await.unwrap();
        assert!(answer.headers().contains_key("www-authenticate"));
    });
}
