//! Request bodies that come compressed.

use std::io;

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::TryStreamExt;
use tokio_util::io::{ReaderStream, StreamReader};

enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

/// Has the body read as what it was before it was compressed, as gzip or zstd; 415 for anything else.
///
/// A body may be several members (gzip) or frames (zstd) one after the other, as files are that were
/// appended to. What follows them and is none makes the body unreadable.
pub async fn decompress(request: Request, next: Next) -> Response {
    let Some(encoding) = encoding(&request) else {
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, [(header::ACCEPT_ENCODING, "gzip, zstd")]).into_response();
    };
    let (mut parts, body) = request.into_parts();
    let body = match encoding {
        Encoding::Identity => body,
        Encoding::Gzip => {
            let mut decoder = GzipDecoder::new(reader(body));
            decoder.multiple_members(true);
            Body::from_stream(ReaderStream::new(decoder))
        }
        Encoding::Zstd => {
            let mut decoder = ZstdDecoder::new(reader(body));
            decoder.multiple_members(true);
            Body::from_stream(ReaderStream::new(decoder))
        }
    };
    if !matches!(encoding, Encoding::Identity) {
        parts.headers.remove(header::CONTENT_ENCODING);
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    next.run(Request::from_parts(parts, body)).await
}

/// [`None`] for one that is not read here.
fn encoding(request: &Request) -> Option<Encoding> {
    let mut given = request.headers().get_all(header::CONTENT_ENCODING).iter();
    let Some(first) = given.next() else { return Some(Encoding::Identity) };
    if given.next().is_some() {
        return None;
    }
    match first.as_bytes().trim_ascii().to_ascii_lowercase().as_slice() {
        b"identity" => Some(Encoding::Identity),
        b"gzip" | b"x-gzip" => Some(Encoding::Gzip),
        b"zstd" => Some(Encoding::Zstd),
        _ => None,
    }
}

type Pieces = futures_util::stream::MapErr<BodyDataStream, fn(axum::Error) -> io::Error>;

fn reader(body: Body) -> StreamReader<Pieces, Bytes> {
    StreamReader::new(body.into_data_stream().map_err(io::Error::other as fn(axum::Error) -> io::Error))
}
