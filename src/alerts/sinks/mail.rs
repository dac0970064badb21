use std::error::Error;
use std::time::{Duration, SystemTime};

use lettre::message::Mailbox;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use percent_encoding::percent_decode_str;
use reqwest::Url;
use rustls::pki_types::CertificateDer;

use super::payload::mail;
use super::{SendError, without_secrets};
use crate::alerts::alert::Notification;
use crate::settings::{AlertMail, MailAddress};

/// Time for one step of the conversation.
const STEP: Duration = Duration::from_secs(8);

/// A mailbox, by way of a mail server.
pub struct MailSink {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Mailbox,
    secrets: Vec<String>,
}

/// Where the mail server is, and how it is spoken to.
struct Server {
    host: String,
    port: u16,
    /// TLS from the first byte on.
    wrapped: bool,
    credentials: Option<(String, String)>,
}

impl Server {
    fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|_| "the address of the mail server is no URL".to_owned())?;
        let host = url.host_str().ok_or("the address of the mail server has no host")?;
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let credentials = url.password().map(|password| (decoded(url.username()), decoded(password)));
        let wrapped = url.scheme() == "smtps";
        // With credentials it is the port for submission.
        let usual = match (wrapped, &credentials) {
            (true, _) => 465,
            (false, Some(_)) => 587,
            (false, None) => 25,
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port: url.port().unwrap_or(usual), wrapped, credentials })
    }

    fn is_here(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    }

    /// A password is never said without TLS to another machine; else TLS is used where it is offered.
    fn tls(&self, parameters: TlsParameters) -> Tls {
        match (self.wrapped, &self.credentials) {
            (true, _) => Tls::Wrapper(parameters),
            (false, Some(_)) if !self.is_here() => Tls::Required(parameters),
            (false, _) => Tls::Opportunistic(parameters),
        }
    }
}

impl MailSink {
    pub fn new(settings: &AlertMail, authorities: &[CertificateDer<'static>]) -> Result<Self, String> {
        let server = Server::parse(settings.server.expose())?;
        let mut tls = TlsParameters::builder(server.host.clone()).certificate_store(CertificateStore::WebpkiRoots);
        for authority in authorities {
            // One that cannot be read vouches for nobody.
            if let Ok(certificate) = Certificate::from_der(authority.to_vec()) {
                tls = tls.add_root_certificate(certificate);
            }
        }
        let tls = tls.build_rustls().map_err(|error| format!("TLS cannot be set up: {error}"))?;
        let name = super::super::host_name();
        let hello = if name.is_empty() { ClientId::default() } else { ClientId::Domain(name) };
        let transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(server.host.as_str());
        let transport = transport.port(server.port).tls(server.tls(tls)).timeout(Some(STEP)).hello_name(hello);
        let (transport, secrets) = match &server.credentials {
            Some((user, password)) => (
                transport.credentials(Credentials::new(user.clone(), password.clone())),
                vec![settings.server.expose().to_owned(), password.clone()],
            ),
            None => (transport, vec![settings.server.expose().to_owned()]),
        };
        let [from, to] = [&settings.from, &settings.to].map(mailbox);
        Ok(Self { transport: transport.build(), from: from?, to: to?, secrets })
    }

    pub async fn send(&self, notification: &Notification) -> Result<(), SendError> {
        let message = self.message(notification).map_err(|error| SendError::Refused(error.to_string()))?;
        let sent = self.transport.send(message).await;
        sent.map(drop).map_err(|error| {
            let reason = self.explain(&error);
            if error.is_permanent() { SendError::Refused(reason) } else { SendError::Failed(reason) }
        })
    }

    fn message(&self, notification: &Notification) -> Result<Message, lettre::error::Error> {
        let (subject, body) = mail(notification);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let id = format!("<{}.{now}@unified-nats>", notification.alert.fingerprint);
        // Nobody's answering machine answers it.
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        Message::builder()
            .from(self.from.clone())
            .to(self.to.clone())
            .message_id(Some(id))
            .subject(subject)
            .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()))
            .header(ContentType::TEXT_PLAIN)
            .body(body)
    }

    fn explain(&self, error: &lettre::transport::smtp::Error) -> String {
        let mut cause: &dyn Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let cause: String = cause.to_string().chars().filter(|c| !c.is_control()).take(300).collect();
        let text = match error.status() {
            Some(code) => format!("the mail server answers {code}: {cause}"),
            None if error.is_timeout() => "the mail server does not answer in time".to_owned(),
            None => format!("the mail server cannot be reached: {cause}"),
        };
        without_secrets(&text, &self.secrets)
    }
}

fn mailbox(address: &MailAddress) -> Result<Mailbox, String> {
    let parsed = address.as_str().parse();
    parsed
        .map(|email| Mailbox::new(None, email))
        .map_err(|_| format!("{address} is no address that mail can be sent to"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_mail_servers() {
        let parsed = |text: &str| {
            let server = Server::parse(text).unwrap();
            (server.host, server.port, server.wrapped, server.credentials)
        };
        let credentials = || Some(("u@x".to_owned(), "p:w".to_owned()));
        assert_eq!(parsed("smtp://mail"), ("mail".into(), 25, false, None));
        assert_eq!(parsed("smtps://u%40x:p%3Aw@mail"), ("mail".into(), 465, true, credentials()));
        assert_eq!(parsed("smtp://u%40x:p%3Aw@mail"), ("mail".into(), 587, false, credentials()));
        assert_eq!(parsed("smtp://[::1]:2525"), ("::1".into(), 2525, false, None));
    }

    #[test]
    fn a_password_needs_tls_unless_it_stays_on_this_machine() {
        let tls = |text: &str| {
            let server = Server::parse(text).unwrap();
            let parameters = TlsParameters::builder(server.host.clone());
            server.tls(parameters.certificate_store(CertificateStore::WebpkiRoots).build_rustls().unwrap())
        };
        assert!(matches!(tls("smtp://u:p@mail"), Tls::Required(_)));
        assert!(matches!(tls("smtp://u:p@127.0.0.1"), Tls::Opportunistic(_)));
        assert!(matches!(tls("smtp://mail"), Tls::Opportunistic(_)));
        assert!(matches!(tls("smtps://mail"), Tls::Wrapper(_)));
    }
}
