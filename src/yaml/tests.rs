use super::*;

/// A short form: scalars as they are, quoted ones in quotes.
fn short(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".into(),
        Value::Scalar { text, quoted: true } => format!("{text:?}"),
        Value::Scalar { text, quoted: false } => text.clone(),
        Value::List(nodes) => format!("[{}]", nodes.iter().map(short).collect::<Vec<_>>().join(" ")),
        Value::Map(entries) => {
            let entries = entries.iter().map(|entry| format!("{}={}", entry.key, short(&entry.value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(" "))
        }
    }
}

fn read(text: &str) -> String {
    match parse(text).unwrap().as_slice() {
        [] => "nothing".into(),
        documents => documents.iter().map(short).collect::<Vec<_>>().join(" | "),
    }
}

fn faults(text: &str) -> Vec<String> {
    parse(text).unwrap_err().into_iter().map(|fault| format!("{} {}", fault.at, fault.what)).collect()
}

#[test]
fn scalars_lists_and_maps() {
    assert_eq!(read("a: 1\nb: [x, 'y', \"2\"]\nc:\n  - d: ~\n  -\n"), r#"{a=1 b=[x "y" "2"] c=[{d=null} null]}"#);
    assert_eq!(read("a: |\n  two\n  lines\n"), r#"{a="two\nlines\n"}"#);
    for empty in
        ["", "# only a comment\n", "---\n", "null", "~", "---\n---\n", "---\n# a\n---\n...\n", "{}", "[]", "\"\""]
    {
        assert_eq!(read(empty), "nothing", "{empty:?}");
    }
}

#[test]
fn empty_documents_are_passed_over() {
    let text = "a: &x 1\nb: *x\n";
    for before in [
        "",
        "---\n",
        "# a comment\n---\n",
        "---\n# nothing\n---\n",
        "---\n~\n---\n",
        "%YAML 1.2\n---\n",
        "{}\n---\n",
        "[]\n---\n",
    ] {
        for behind in [
            "",
            "---\n",
            "---",
            "...\n",
            "---\n# nothing",
            "---\nnull\n---\n---\n",
            "...\n---\n",
            "---\n{}\n",
            "---\n''\n",
        ] {
            assert_eq!(read(&format!("{before}{text}{behind}")), "{a=1 b=1}", "{before:?} {behind:?}");
        }
    }
}

#[test]
fn several_documents_come_one_by_one() {
    assert_eq!(read("a: 1\n---\nb: 2\n---\n- 1\n...\n"), "{a=1} | {b=2} | [1]");
    for between in ["", " ", "\n", "\n\n", "\r\n"] {
        let text = format!("{{\"a\": 1}}{between}{{}}[]{between}[2]{between}");
        assert_eq!(read(&text), "{a=1} | [2]", "{between:?}");
    }
    let text = "{\"a\":\n 1} {\"é\": 2}{\n\"c\": [3]}";
    let at: Vec<_> = parse(text).unwrap().iter().map(|node| node.at.to_string()).collect();
    assert_eq!(at, ["1:1", "2:5", "2:13"]);
    let Value::Map(entries) = &parse(text).unwrap()[2].value else { panic!() };
    assert_eq!((entries[0].at.to_string(), entries[0].value.at.to_string()), ("3:1".into(), "3:6".into()));
    assert_eq!(faults("{\"a\": 1}\n{\"b\": 1, \"b\": 2}"), ["2:10 the key \"b\" stands in line 2 already"]);
    assert!(faults("{\"a\": 1}\n{\"b\": ")[0].starts_with("2:1 "), "{:?}", faults("{\"a\": 1}\n{\"b\": "));
}

#[test]
fn nodes_know_where_they_stand() {
    let root = parse("a: 1\nb:\n  c: [x,\n    y]\n").unwrap().remove(0);
    let Value::Map(entries) = &root.value else { panic!("{root:?}") };
    assert_eq!(entries[1].at, Place { line: 2, column: 1 });
    let Value::Map(inner) = &entries[1].value.value else { panic!("{root:?}") };
    assert_eq!(inner[0].at, Place { line: 3, column: 3 });
    let Value::List(items) = &inner[0].value.value else { panic!("{root:?}") };
    assert_eq!(items[1].at, Place { line: 4, column: 5 });
}

#[test]
fn anchors_and_merge_keys() {
    let text = "base: &b {x: 1, y: 2}\nother: &o {z: 3, x: 9}\nc: *b\nd:\n  <<: *b\n  y: 5\ne: {<<: [*b, *o]}\n";
    let expected = "{base={x=1 y=2} other={z=3 x=9} c={x=1 y=2} d={y=5 x=1} e={x=1 y=2 z=3}}";
    assert_eq!(read(text), expected);
    assert_eq!(faults("a: {<<: 5}"), ["1:5 << takes a map or a list of maps"]);
}

#[test]
fn every_key_that_stands_twice_is_named() {
    assert_eq!(
        faults("a: 1\nb: {c: 1, c: 2}\na: 3\n"),
        ["2:11 the key \"c\" stands in line 2 already", "3:1 the key \"a\" stands in line 1 already"]
    );
}

#[test]
fn what_is_not_supported_is_refused() {
    assert_eq!(
        faults("a: !!str 5"),
        ["1:4 the tag !!str; tags are not supported, and a text that begins with ! stands in quotes"]
    );
    assert!(faults("a: 1\n---\nb: [\n")[0].starts_with("4:1 "), "it is read, too");
    assert_eq!(faults("? [a]\n: 1\n"), ["1:3 a list or a map as a key"]);
    assert_eq!(faults("? &x a\n: &y {b: *y}\n"), ["2:10 an alias for something that contains it"]);
    assert_eq!(faults(": 1"), ["1:1 an empty key"]);
}

#[test]
fn malformed_text_is_a_fault_with_its_place() {
    for bad in ["a: [1", "a: 'x", "a:\n\tb: 1", "a: b: c", "a: *nobody", "- a\nb: 1"] {
        let faults = faults(bad);
        assert_eq!(faults.len(), 1, "{bad:?}: {faults:?}");
    }
    assert!(faults("x: 1\nstreams:\n  A: [\n")[0].starts_with("4:1 "), "{:?}", faults("x: 1\nstreams:\n  A: [\n"));
}

#[test]
fn what_grows_without_end_is_refused() {
    let deep = "[".repeat(40) + &"]".repeat(40);
    assert!(faults(&deep)[0].contains("more than 32 lists and maps"));
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..10 {
        let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
        laughs += &format!("a{i}: &a{i} [{aliases}]\n");
    }
    assert!(faults(&laughs)[0].contains("more values than can be held"), "{:?}", faults(&laughs));
    let many = "- 1\n".repeat(MOST_WEIGHT + 1);
    assert!(faults(&many)[0].contains("more values than can be held"));
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(65_536), "*a, ".repeat(10_000));
    assert!(faults(&long)[0].contains("more values than can be held"));
}

#[test]
fn faults_are_bounded() {
    let many = "a: 1\n".repeat(1_000);
    assert_eq!(faults(&many).len(), MOST_FAULTS);
}
