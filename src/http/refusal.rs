//! What clients hear whose connection is not served, in the envelope like everything else.

use std::time::Duration;

use axum::http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::envelope::{Code, Problem};
use super::head::{self, Fault};

/// Time for the client to take it.
const PATIENCE: Duration = Duration::from_millis(100);
/// Time for the client to close its side, after it has been told, and what it may send meanwhile.
pub const LINGER: Duration = Duration::from_millis(500);
pub const MOST_DRAINED: usize = 1 << 20;

/// For a client for whose request no place became free in time.
pub fn busy() -> Problem {
    let message = "every connection that the API port serves is in use (API_MAX_CONNECTIONS)";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, Code::ServiceUnavailable, message).retry_after(1)
}

/// For a client whose head has no end within what is read of one.
pub fn too_long() -> Problem {
    let message = format!("the head of the request is longer than {} bytes", head::LONGEST);
    Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Code::InvalidParameters, message)
}

/// For a client whose head is none that is served.
pub fn faulty(fault: Fault) -> Problem {
    match fault {
        Fault::NoUrl => no_url(),
        Fault::TooManyLines => {
            let message = format!("the request has more than {} header lines", head::MOST_LINES);
            Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Code::InvalidParameters, message)
        }
        Fault::TooLong => too_long(),
        Fault::Coding(coding) => {
            let message = format!(
                "the body comes in the transfer coding {coding:?}, which is not read here: send it in chunks alone, and \
                 name what compresses it in Content-Encoding"
            );
            Problem::new(StatusCode::NOT_IMPLEMENTED, Code::InvalidParameters, message)
        }
        Fault::NotHttp(reason) => {
            let message = format!("that is no request of HTTP/1.1: {reason}");
            Problem::new(StatusCode::BAD_REQUEST, Code::InvalidParameters, message)
        }
    }
}

fn no_url() -> Problem {
    let message = "the URL holds a character that HTTP does not let stand there: write > as %3E and a space as %20";
    Problem::new(StatusCode::BAD_REQUEST, Code::InvalidParameters, message)
}

/// Says that the request is not served.
pub async fn refuse(mut stream: TcpStream, problem: Problem) {
    // So little fits into the socket at once, and a client that has gone needs no answer.
    let told = timeout(PATIENCE, stream.write_all(problem.into_last_answer().as_bytes())).await;
    if told.is_ok_and(|told| told.is_ok()) && stream.shutdown().await.is_ok() {
        let _ = timeout(LINGER, drain(&mut stream)).await;
    }
}

/// Takes what the client still sends: a connection that is closed over it is reset, and the client loses the
/// answer that it has not read yet.
async fn drain(stream: &mut TcpStream) {
    // On the heap: every connection has room for its refusal.
    let (mut piece, mut left) = (vec![0; 4096], MOST_DRAINED);
    while let Ok(count @ 1..) = stream.read(&mut piece).await {
        left = left.saturating_sub(count);
        if left == 0 {
            return;
        }
    }
}
