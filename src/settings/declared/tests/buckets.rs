//! Key-value and object buckets.

use super::*;

#[test]
fn key_value_buckets_are_streams_that_clients_know() {
    let streams = good(
        "key_value:\n  SYMBOLS: {history: 5, ttl: 24h, max_value_size: 1KB}\n  COPY: {mirror: {name: SYMBOLS}}\n  \
         ALL: {sources: [{name: SYMBOLS}], limit_marker_ttl: 1m}\n",
    );
    let names: Vec<_> = streams.iter().map(|stream| stream.name.as_str()).collect();
    assert_eq!(names, ["KV_SYMBOLS", "KV_COPY", "KV_ALL"]);
    assert_eq!(
        Value::Object(streams[0].config.clone()),
        json!({
            "max_msgs_per_subject": 5, "max_age": 86_400_000_000_000_i64, "max_msg_size": 1024, "discard": "new",
            "allow_direct": true, "allow_rollup_hdrs": true, "deny_delete": true, "subjects": ["$KV.SYMBOLS.>"],
        })
    );
    let copy = &streams[1].config;
    assert_eq!(copy["mirror"]["name"], "KV_SYMBOLS");
    assert!(!copy.contains_key("subjects") && copy["mirror_direct"] == true);
    let all = &streams[2].config;
    assert_eq!(all["sources"][0]["subject_transforms"][0]["dest"], "$KV.ALL.>");
    assert_eq!((&all["allow_msg_ttl"], &all["subject_delete_marker_ttl"]), (&json!(true), &json!(60_000_000_000_i64)));
    let source = |bucket: &str| good(&format!("key_value: {{K6: {bucket}}}"))[0].config.clone();
    for (source, src, dest) in [
        (source("{sources: [{name: K1}]}"), "$KV.K1.>", "$KV.K6.>"),
        (source("{sources: [{name: K1, filter_subject: $KV.K1.a.>}]}"), "$KV.K1.a.>", "$KV.K6.a.>"),
        (source("{sources: [{name: KV_K1, filter_subject: a.>}]}"), "$KV.K1.a.>", "$KV.K6.a.>"),
        (source("{sources: [{name: K1, filter_subject: $KV.K0.a}]}"), "$KV.K0.a", "$KV.K6.a"),
        (
            source("{sources: [{name: K1, filter_subject: '$KV.K1.*.x.*'}]}"),
            "$KV.K1.*.x.*",
            "$KV.K6.{{wildcard(1)}}.x.{{wildcard(2)}}",
        ),
        (source("{sources: [{name: K1, external: {api: $JS.hub.API}}]}"), "$KV.K1.>", "$KV.K6.>"),
        (source("{sources: [{name: K1, subject_transforms: [{src: a, dest: b}]}]}"), "a", "b"),
    ] {
        let source = &source["sources"][0];
        assert_eq!(source["name"], "KV_K1");
        assert_eq!(source["subject_transforms"], json!([{ "src": src, "dest": dest }]));
        assert!(source.get("filter_subject").is_none(), "{source}");
    }
    let mirror = source("{mirror: {name: K1, filter_subject: $KV.K1.a.>}}");
    assert_eq!(mirror["mirror"]["subject_transforms"][0]["dest"], "$KV.K6.a.>");
    let elsewhere = source("{mirror: {name: K1, external: {api: $JS.hub.API}, filter_subject: $KV.K1.a}}");
    assert_eq!(
        elsewhere["mirror"],
        json!({ "name": "KV_K1", "external": { "api": "$JS.hub.API" }, "filter_subject": "$KV.K1.a" }),
        "clients look there for the keys of the origin"
    );
    let same = source("{sources: [{name: K6, external: {api: $JS.hub.API}, filter_subject: $KV.K6.a}]}");
    assert_eq!(same["sources"][0]["filter_subject"], "$KV.K6.a");
    assert!(bad("key_value: {X: {sources: [{name: X}]}}")[0].contains("must not be the stream itself"));
    let both = "{name: Y, filter_subject: a, subject_transforms: [{src: a, dest: b}]}";
    assert!(bad(&format!("key_value: {{X: {{sources: [{both}]}}}}"))[0].contains("beside subject_transforms"));
    assert!(bad("key_value: {X: {history: 65}}")[0].contains("must be a whole number from 1 to 64"));
    assert!(bad("key_value: {X: {subjects: [a]}}")[0].contains("is not a key that may stand here"));
    assert!(bad("key_value: {X: {ttl: 50ms}}")[0].contains("must be at least 100ms"));
    assert!(bad("key_value: {X: {ttl: 1m, max_age: 1m}}")[0].contains("under another name"));
}

#[test]
fn a_bucket_and_a_stream_do_not_share_a_name() {
    let problems = bad("streams: {KV_X: {subjects: [x]}}\nkey_value: {X: {}}\n");
    assert!(problems[0].contains("KV_X: is declared in line 1 already"), "{problems:?}");
}

#[test]
fn object_buckets_are_streams_that_clients_know() {
    let streams = good("object_store:\n  MODELS: {max_bytes: 1GB}\n");
    assert_eq!(streams[0].name.as_str(), "OBJ_MODELS");
    assert_eq!(
        Value::Object(streams[0].config.clone()),
        json!({
            "max_bytes": 1_073_741_824, "subjects": ["$O.MODELS.C.>", "$O.MODELS.M.>"], "discard": "new",
            "allow_direct": true, "allow_rollup_hdrs": true,
        })
    );
}
