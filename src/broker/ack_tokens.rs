//! What lets a client acknowledge one delivery and nothing else.
//!
//! A token names a consumer, when that was made, the delivery, and how long it is waited for, under a MAC
//! whose key lives as long as the program. So the subject that an acknowledgement goes to is always one that
//! nats-server has given for that very consumer, whatever a client sends.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::SystemRandom;
use serde::{Deserialize, Serialize};

/// Where deliveries come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerId {
    pub stream: String,
    pub consumer: String,
    /// When it was made: another one of the same name is another one.
    pub created: String,
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("this is no token that the broker has given since it was started")]
    Forged,
    #[error("the token is one of another consumer")]
    Foreign,
    #[error("the token has expired: the message is delivered again, or has been")]
    Expired,
}

/// Gives tokens and reads them.
pub struct AckTokens {
    key: hmac::Key,
    started: Instant,
}

/// What a token holds.
#[derive(Serialize, Deserialize)]
struct Content<'a>(Cow<'a, str>, Cow<'a, str>, Cow<'a, str>, Cow<'a, str>, u64);

/// Bytes of the MAC that stand before the content.
const MAC: usize = 32;
/// The longest token, with names and subjects at their bounds.
const LONGEST: usize = 4_096;

impl AckTokens {
    /// With a key of its own.
    pub fn new() -> std::io::Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.map_err(|_| std::io::Error::other("the system gives no random numbers"))?;
        Ok(Self { key, started: Instant::now() })
    }

    /// A token for the delivery that is acknowledged on `reply`, for so long.
    pub fn give(&self, of: &ConsumerId, reply: &str, valid: Duration) -> String {
        let until = self.started.elapsed().saturating_add(valid).as_millis();
        let until = u64::try_from(until).unwrap_or(u64::MAX);
        let [stream, consumer, created] = [&of.stream, &of.consumer, &of.created].map(Cow::from);
        let content = Content(stream, consumer, created, reply.into(), until);
        // Texts and a number: there is nothing that cannot be written.
        let content = serde_json::to_vec(&content).unwrap_or_default();
        let mut token = hmac::sign(&self.key, &content).as_ref().to_vec();
        token.extend(content);
        BASE64_URL_SAFE_NO_PAD.encode(token)
    }

    /// The subject that acknowledges the delivery.
    pub fn read(&self, token: &str, of: &ConsumerId) -> Result<String, TokenError> {
        if token.len() > LONGEST {
            return Err(TokenError::Forged);
        }
        let token = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| TokenError::Forged)?;
        let (mac, content) = token.split_at_checked(MAC).ok_or(TokenError::Forged)?;
        hmac::verify(&self.key, content, mac).map_err(|_| TokenError::Forged)?;
        let content = serde_json::from_slice(content).map_err(|_| TokenError::Forged)?;
        let Content(stream, consumer, created, reply, until) = content;
        if (&*stream, &*consumer, &*created) != (&of.stream, &of.consumer, &of.created) {
            return Err(TokenError::Foreign);
        }
        match self.started.elapsed().as_millis() < u128::from(until) {
            true => Ok(reply.into_owned()),
            false => Err(TokenError::Expired),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REPLY: &str = "$JS.ACK.S.C.1.2.3.1700000000000000000.0";

    fn id(stream: &str, consumer: &str) -> ConsumerId {
        ConsumerId { stream: stream.into(), consumer: consumer.into(), created: "2026-01-01T00:00:00Z".into() }
    }

    #[test]
    fn a_token_is_good_for_its_delivery_alone() {
        let tokens = AckTokens::new().unwrap();
        let (ours, minute) = (id("S", "C"), Duration::from_secs(60));
        let token = tokens.give(&ours, REPLY, minute);
        assert_eq!(tokens.read(&token, &ours).as_deref(), Ok(REPLY));
        for other in [id("S", "D"), id("T", "C"), ConsumerId { created: "later".into(), ..ours.clone() }] {
            assert_eq!(tokens.read(&token, &other), Err(TokenError::Foreign));
        }
        let late = tokens.give(&ours, REPLY, Duration::ZERO);
        assert_eq!(tokens.read(&late, &ours), Err(TokenError::Expired));
        let of_another_start = AckTokens::new().unwrap();
        assert_eq!(of_another_start.read(&token, &ours), Err(TokenError::Forged));
        for forged in ["", "x", "!", &token[1..], &token[..token.len() - 1], &"A".repeat(10_000), REPLY] {
            assert_eq!(tokens.read(forged, &ours), Err(TokenError::Forged), "{forged}");
        }
        let quoted = id("S\"\\", "C\n");
        assert_eq!(tokens.read(&tokens.give(&quoted, "a\"b", minute), &quoted).as_deref(), Ok("a\"b"));
        let for_ever = tokens.give(&ours, REPLY, Duration::MAX);
        assert!(tokens.read(&for_ever, &ours).is_ok());
    }

    proptest! {
        #[test]
        fn whatever_changes_in_a_token_it_is_refused(at in 0usize..200, with in any::<u8>()) {
            let tokens = AckTokens::new().unwrap();
            let ours = id("S", "C");
            let token = tokens.give(&ours, REPLY, Duration::from_secs(60));
            let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(&token).unwrap();
            let at = at % bytes.len();
            prop_assume!(bytes[at] != with);
            bytes[at] = with;
            let changed = BASE64_URL_SAFE_NO_PAD.encode(bytes);
            prop_assert_eq!(tokens.read(&changed, &ours), Err(TokenError::Forged));
        }

        #[test]
        fn no_text_is_taken_for_a_token(text in ".{0,80}") {
            let tokens = AckTokens::new().unwrap();
            prop_assert_eq!(tokens.read(&text, &id("S", "C")), Err(TokenError::Forged));
        }
    }
}
