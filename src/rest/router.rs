//! Which path is answered by whom, and what surrounds all of them.

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tower_http::CompressionLevel;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::admission::{Admission, admit};
use super::state::Api;
use super::{
    batch, consumers, cors, deliveries, home, live, messages, metrics, openapi as pages, probes, publish, raw, replay,
    status, streams, tail, ws,
};
use crate::http::body::{MaxBody, bound_compressed};
use crate::http::envelope::{Code, Problem};
use crate::http::{Routes, decompress, exchange};
use crate::settings::variables::{API_MAX_BODY, NATS_MAX_PAYLOAD};

#[derive(OpenApi)]
#[openapi(info(
    title = "unified-nats",
    description = "Market data over HTTP: streams, messages and the broker itself."
))]
struct Document;

/// Every resource, each with its part of the OpenAPI document.
fn resources() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(status::routes())
        .merge(live::routes())
        .merge(metrics::routes())
        .merge(publish::routes())
        .merge(batch::routes())
        .merge(raw::routes())
        .merge(streams::routes())
        .merge(messages::routes())
        .merge(consumers::routes())
        .merge(deliveries::routes())
        .merge(tail::routes())
        .merge(replay::routes())
        .merge(ws::routes())
}

/// The API as OpenAPI 3.1 describes it.
pub fn document() -> serde_json::Value {
    pages::document(&resources().into_openapi())
}

pub fn routes(api: Api) -> Routes {
    let settings = api.settings();
    let (patience, traffic) = (settings.api.request_timeout, api.traffic.clone());
    let around = move |request: Request, next: Next| exchange(patience, traffic.clone(), request, next);
    let probes = probes::routes(api.views.clone()).method_not_allowed_fallback(wrong_method);
    let probes = probes.layer(from_fn(around.clone()));
    if !settings.api.enabled {
        let nothing = Router::new().fallback(not_enabled);
        let nothing = nothing.layer(from_fn(around));
        return Routes { all: probes.clone().merge(nothing), probes, probe_paths: probes::PROBES };
    }
    let bytes = usize::try_from(settings.api.max_body.bytes()).unwrap_or(usize::MAX);
    let most = MaxBody { bytes, variable: API_MAX_BODY.name };
    // What comes compressed may be for a path that takes more.
    let payload = usize::try_from(settings.server.limits.max_payload.bytes()).unwrap_or(usize::MAX);
    let compressed = match payload > bytes {
        true => MaxBody { bytes: payload, variable: NATS_MAX_PAYLOAD.name },
        false => most,
    };
    let admission = Arc::new(Admission::new(api.clone()));
    let (router, _) = resources().split_for_parts();
    let all = router
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(admission, admit))
        .layer(from_fn(decompress))
        .layer(from_fn(move |mut request: Request, next: Next| {
            request.extensions_mut().insert(most);
            async move { Ok::<_, Problem>(next.run(bound_compressed(request, compressed)?).await) }
        }))
        .merge(home::routes(&api).merge(pages::routes(document)).method_not_allowed_fallback(wrong_method))
        .layer(compression());
    let all: Router = match cors::of(&settings.api.cors) {
        Some(cors) => all.layer(cors),
        None => all,
    }
    .layer(CatchPanicLayer::custom(panicked))
    .layer(from_fn(around))
    .with_state(api);
    Routes { all: probes.clone().merge(all), probes, probe_paths: probes::PROBES }
}

/// Not for what is sent as it happens, and not where it saves nothing.
fn compression() -> CompressionLayer<impl Predicate> {
    let worth_it = SizeAbove::new(1024).and(NotForContentType::SSE);
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(worth_it)
}

async fn not_enabled(request: Request) -> Problem {
    let message = format!("there is nothing at {}: API_ENABLED is false", request.uri().path());
    Problem::new(StatusCode::NOT_FOUND, Code::NotFound, message)
}

async fn unknown_path(request: Request) -> Problem {
    let message = format!("there is nothing at {}; /docs tells what there is", request.uri().path());
    Problem::new(StatusCode::NOT_FOUND, Code::NotFound, message)
}

async fn wrong_method(request: Request) -> Problem {
    let message = format!("{} is not for {}", request.method(), request.uri().path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, Code::MethodNotAllowed, message)
}

/// A panic costs the request and no more; its words are in the log.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    let message = "the request failed inside the broker; its log says where";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, Code::InternalError, message).into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::docs;
    use super::*;
    use crate::http::traffic::Traffic;
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use tower::ServiceExt;

    async fn panics() -> &'static str {
        panic!("in a handler")
    }

    #[tokio::test]
    async fn a_panic_is_an_error_like_others() {
        let patience = std::time::Duration::from_secs(20);
        let router: Router = Router::new()
            .route("/", get(panics))
            .layer(CatchPanicLayer::custom(panicked))
            .layer(from_fn(move |request: Request, next: Next| exchange(patience, Traffic::default(), request, next)));
        let response = router.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = to_bytes(response.into_body(), 1 << 16).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error_code"], "INTERNAL_ERROR");
        assert!(!body.to_string().contains("in a handler"), "{body}");
    }

    #[test]
    fn the_document_is_the_one_that_was_agreed_on() {
        let mut document = document();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        document["info"]["version"] = json!("[version]");
        insta::assert_snapshot!(outline(&document));
    }

    /// All of it, one line for each operation and each thing that operations share.
    fn outline(document: &Value) -> String {
        let mut lines = vec![];
        for (key, value) in document.as_object().unwrap() {
            if !matches!(key.as_str(), "paths" | "components") {
                lines.push(format!("{key}: {value}"));
                continue;
            }
            for (kind, parts) in value.as_object().unwrap() {
                let one = |(name, part): (&String, &Value)| format!("{kind} {name}: {part}");
                lines.extend(parts.as_object().unwrap().iter().map(one));
            }
        }
        lines.join("\n")
    }

    #[test]
    fn every_reference_leads_somewhere_and_nothing_is_said_by_default() {
        let document = document();
        let mut open = vec![&document];
        while let Some(value) = open.pop() {
            match value {
                Value::Object(object) => {
                    if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
                        assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
                    }
                    assert!(!object.contains_key("default") || !object.contains_key("200"), "{object:?}");
                    open.extend(object.values());
                }
                Value::Array(array) => open.extend(array),
                _ => {}
            }
        }
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                assert!(operation["summary"].is_string(), "{method} {path} says what it does");
                assert!(operation["responses"].get("503").is_some(), "{method} {path}");
                for parameter in operation["parameters"].as_array().into_iter().flatten() {
                    let (name, place) = (parameter["name"].as_str().unwrap(), &parameter["in"]);
                    let is_in_path = path.contains(&format!("{{{name}}}"));
                    assert_eq!(place == "path", is_in_path, "{method} {path}: {name} stands in the {place}");
                }
            }
        }
    }

    #[test]
    fn the_page_lists_every_operation_and_loads_nothing() {
        let document = document();
        let page = docs::page(&document);
        for path in document["paths"].as_object().unwrap().keys() {
            assert!(page.contains(&docs::escaped(path)), "{path}");
        }
        for foreign in ["http://", "https://", "<script", "<link", "<img", "src=", "@import", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }
}
