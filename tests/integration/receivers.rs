//! Receivers of alerts: a small server for HTTP and one for SMTP, with faults on demand.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::support::wait_for;

/// What a receiver does with a request.
#[derive(Clone, Debug)]
pub enum Answer {
    Status(u16),
    /// Sends it elsewhere.
    Redirect(String),
    /// Says nothing, and keeps the connection.
    Silence,
}

#[derive(Default)]
struct Heard {
    bodies: Vec<serde_json::Value>,
    raw: String,
    answers: VecDeque<Answer>,
    /// Connections that wait for an answer for ever.
    kept: Vec<Box<dyn std::any::Any + Send>>,
}

/// Takes JSON over HTTP.
pub struct Webhook {
    pub port: u16,
    scheme: &'static str,
    heard: Arc<Mutex<Heard>>,
}

impl Webhook {
    pub fn start() -> Self {
        Self::serving(None)
    }

    /// Over TLS, with a certificate that nobody vouches for; gives that as PEM.
    pub fn with_tls() -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into(), "localhost".into()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(unified_nats::signatures::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(made.cert.der().to_vec())], key)
            .unwrap();
        (Self::serving(Some(Arc::new(config))), made.cert.pem())
    }

    fn serving(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, heard) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Heard>>::default());
        let (kept, scheme) = (heard.clone(), if tls.is_some() { "https" } else { "http" });
        // They end with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (heard, tls) = (kept.clone(), tls.clone());
                std::thread::spawn(move || match tls {
                    None => serve(stream, &heard),
                    Some(config) => {
                        serve(StreamOwned::new(ServerConnection::new(config).unwrap(), stream), &heard);
                    }
                });
            }
        });
        Self { port, scheme, heard }
    }

    /// Its address, with a token that nobody may see.
    pub fn url(&self, token: &str) -> String {
        format!("{}://127.0.0.1:{}/hooks/{token}", self.scheme, self.port)
    }

    /// What it answers next, one after the other; 200 once there is nothing left.
    pub fn will(&self, answers: impl IntoIterator<Item = Answer>) -> &Self {
        self.heard.lock().unwrap().answers.extend(answers);
        self
    }

    /// What was sent to it, whether it took it or not.
    pub fn bodies(&self) -> Vec<serde_json::Value> {
        self.heard.lock().unwrap().bodies.clone()
    }

    /// Everything that came, but for the line with the path.
    pub fn raw(&self) -> String {
        self.heard.lock().unwrap().raw.clone()
    }

    /// `kind` and `of` of what was sent to it.
    pub fn kinds(&self) -> Vec<(String, String)> {
        let text = |body: &serde_json::Value, key: &str| body[key].as_str().unwrap_or_default().to_owned();
        self.bodies().iter().map(|body| (text(body, "kind"), text(body, "of"))).collect()
    }

    pub fn wait_for_kind(&self, kind: &str, of: &str) -> serde_json::Value {
        wait_for(&format!("{kind} of {of}"), || {
            self.bodies().into_iter().find(|body| body["kind"] == kind && body["of"] == of)
        })
    }
}

fn serve(stream: impl Read + Write + Send + 'static, heard: &Mutex<Heard>) {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or_default() == 0 {
            return;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
        if !line.starts_with("POST ") {
            head.push_str(&line);
        }
    }
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let mut stream = reader.into_inner();
    let answer = {
        let mut heard = heard.lock().unwrap();
        heard.raw.push_str(&head);
        heard.raw.push_str(&String::from_utf8_lossy(&body));
        heard.bodies.push(serde_json::from_slice(&body).unwrap_or_default());
        heard.answers.pop_front().unwrap_or(Answer::Status(200))
    };
    let text = match answer {
        Answer::Status(code) => format!("HTTP/1.1 {code} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
        Answer::Redirect(to) => {
            format!("HTTP/1.1 307 x\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        }
        Answer::Silence => {
            heard.lock().unwrap().kept.push(Box::new(stream));
            return;
        }
    };
    let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
}

/// Takes mail.
pub struct MailServer {
    pub port: u16,
    mails: Arc<Mutex<Vec<String>>>,
    refuses: Arc<Mutex<bool>>,
}

impl MailServer {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Self { port, mails: Arc::default(), refuses: Arc::default() };
        let (mails, refuses) = (server.mails.clone(), server.refuses.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (mails, refuses) = (mails.clone(), refuses.clone());
                std::thread::spawn(move || converse(stream, &mails, &refuses));
            }
        });
        server
    }

    pub fn url(&self, credentials: &str) -> String {
        format!("smtp://{credentials}127.0.0.1:{}", self.port)
    }

    /// Whether it refuses receivers from now on.
    pub fn refuse(&self, refuses: bool) {
        *self.refuses.lock().unwrap() = refuses;
    }

    /// What it took: head and body.
    pub fn mails(&self) -> Vec<String> {
        self.mails.lock().unwrap().clone()
    }
}

fn converse(stream: TcpStream, mails: &Mutex<Vec<String>>, refuses: &Mutex<bool>) {
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let mut say = move |text: &str| writer.write_all(format!("{text}\r\n").as_bytes()).is_ok();
    if !say("220 test") {
        return;
    }
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    while let Some(line) = lines.next() {
        let command = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        let went = match command.as_str() {
            "EHLO" => say("250-test\r\n250 AUTH PLAIN LOGIN"),
            "AUTH" => say("235 welcome"),
            "RCPT" if *refuses.lock().unwrap() => say("550 5.1.1 nobody of that name"),
            "DATA" => {
                say("354 go on");
                let mail: Vec<_> = lines.by_ref().take_while(|line| line != ".").collect();
                mails.lock().unwrap().push(mail.join("\n"));
                say("250 taken")
            }
            "QUIT" => {
                say("221 bye");
                return;
            }
            _ => say("250 fine"),
        };
        if !went {
            return;
        }
    }
}
