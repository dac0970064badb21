//! What clients hear whose connection is not served, in the envelope like everything else.

use std::time::Duration;

use axum::http::StatusCode;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::envelope::{Code, Problem};
use super::head::{self, Fault};

/// Time for the client to take it.
const PATIENCE: Duration = Duration::from_millis(100);

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
    let _ = tokio::time::timeout(PATIENCE, stream.write_all(problem.into_last_answer().as_bytes())).await;
}
