//! The pages of `/docs`: the OpenAPI document as people read it, in one file that loads nothing.

use std::fmt::Write;

use serde_json::Value;

const HEAD: &str = "<!doctype html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<title>unified-nats: REST API</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }
code, pre { font: 14px/1.4 ui-monospace, monospace }
summary { cursor: pointer; padding: .3rem 0 }
details { border-bottom: 1px solid #ddd }
table { border-collapse: collapse; margin: .5rem 0 }
td, th { text-align: left; vertical-align: top; padding: .15rem .8rem .15rem 0 }
pre { background: #f4f4f4; padding: .5rem; overflow: auto }
.method { display: inline-block; min-width: 4.5rem; font-weight: bold }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818 } pre { background: #262626 } a { color: #8ab4f8 } details { border-color: #444 } }
</style>
</head>
<body>
";

/// Text as it may stand in a page.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Lists every operation of the document, by what it is about.
pub fn page(document: &Value) -> String {
    let mut page = HEAD.to_owned();
    let info = &document["info"];
    let _ = writeln!(
        page,
        "<h1>{} {}</h1>\n<p>{} <a href=\"/openapi.json\">/openapi.json</a> says the same to programs.</p>",
        escaped(text(info, "title")),
        escaped(text(info, "version")),
        escaped(text(info, "description")),
    );
    let empty = serde_json::Map::new();
    let paths = document["paths"].as_object().unwrap_or(&empty);
    let operations: Vec<_> = paths
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().into_iter().flatten().map(move |(method, operation)| (path, method, operation))
        })
        .collect();
    let mut tags: Vec<_> =
        operations.iter().map(|(_, _, operation)| operation["tags"][0].as_str().unwrap_or("others")).collect();
    tags.dedup();
    let mut seen = vec![];
    for tag in tags {
        if seen.contains(&tag) {
            continue;
        }
        seen.push(tag);
        let _ = writeln!(page, "<h2>{}</h2>", escaped(tag));
        for (path, method, operation) in &operations {
            if operation["tags"][0].as_str().unwrap_or("others") == tag {
                describe(&mut page, document, method, path, operation);
            }
        }
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn describe(page: &mut String, document: &Value, method: &str, path: &str, operation: &Value) {
    let _ = writeln!(
        page,
        "<details><summary><span class=\"method\">{}</span> <code>{}</code> {}</summary>",
        method.to_uppercase(),
        escaped(path),
        escaped(text(operation, "summary")),
    );
    for paragraph in text(operation, "description").split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        let _ = writeln!(page, "<p>{}</p>", escaped(paragraph));
    }
    if let Some(parameters) = operation["parameters"].as_array() {
        page.push_str("<table><tr><th>parameter</th><th>in</th><th></th></tr>\n");
        for parameter in parameters {
            let must = if parameter["required"] == true { "required. " } else { "" };
            let cells = [text(parameter, "name"), text(parameter, "in")].map(escaped);
            let words = escaped(text(parameter, "description"));
            let _ = writeln!(
                page,
                "<tr><td><code>{}</code></td><td>{}</td><td>{must}{words}</td></tr>",
                cells[0], cells[1]
            );
        }
        page.push_str("</table>\n");
    }
    for (kind, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
        let _ = writeln!(page, "<p>Body: <code>{}</code></p>", escaped(kind));
        fields(page, document, &content["schema"]);
    }
    page.push_str("<table><tr><th>status</th><th></th></tr>\n");
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let response = resolved(document, response);
        let words = escaped(text(response, "description"));
        let _ = writeln!(page, "<tr><td>{}</td><td>{words}</td></tr>", escaped(status));
    }
    page.push_str("</table></details>\n");
}

fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let reference = value["$ref"].as_str().and_then(|reference| document.pointer(reference.trim_start_matches('#')));
    reference.unwrap_or(value)
}

/// The fields of a body, where it is an object or a list of objects.
fn fields(page: &mut String, document: &Value, schema: &Value) {
    let schema = resolved(document, schema);
    let schema = if schema["items"].is_object() { resolved(document, &schema["items"]) } else { schema };
    let Some(properties) = schema["properties"].as_object() else { return };
    page.push_str("<table><tr><th>field</th><th></th></tr>\n");
    for (name, property) in properties {
        let is_required = schema["required"].as_array().is_some_and(|required| required.iter().any(|one| one == name));
        let must = if is_required { "required. " } else { "" };
        let words = escaped(text(property, "description"));
        let _ = writeln!(page, "<tr><td><code>{}</code></td><td>{must}{words}</td></tr>", escaped(name));
    }
    page.push_str("</table>\n");
}
