//! Documents that people find their way in.

use std::collections::BTreeSet;

use super::markdown::{Document, all, repository};

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    let mut looked_at = 0;
    for document in all() {
        for link in document.links() {
            if link.target.contains("://") {
                continue;
            }
            looked_at += 1;
            let path = document.resolve(&link.target);
            if !repository().join(&path).exists() {
                wrong.push(format!("{}: {} is not there", document.name, link.target));
            } else if let Some(anchor) = link.anchor
                && !Document::read(&path).anchors().contains(&anchor)
            {
                wrong.push(format!("{}: no heading of {path} is #{anchor}", document.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(looked_at > 50, "{looked_at} links");
}

#[test]
fn every_document_is_reached_from_the_readme() {
    let mut reached = BTreeSet::new();
    let mut next = vec!["README.md".to_owned()];
    while let Some(name) = next.pop() {
        if name.ends_with(".md") && reached.insert(name.clone()) {
            let document = Document::read(&name);
            let inside = document.links().into_iter().filter(|link| !link.target.contains("://"));
            next.extend(inside.map(|link| document.resolve(&link.target)));
        }
    }
    let orphans: Vec<_> = all().into_iter().map(|document| document.name).filter(|n| !reached.contains(n)).collect();
    assert!(orphans.is_empty(), "no document that README.md leads to links to {}", orphans.join(", "));
}

/// Who is new reads all of it.
#[test]
fn the_readmes_are_short() {
    for name in ["README.md", "README.zh.md"] {
        let lines = Document::read(name).text.lines().count();
        assert!(lines <= 250, "{name} has {lines} lines: what operators look up belongs into docs");
    }
}

#[test]
fn anchors_are_made_as_github_makes_them() {
    let text = "# What /health says\n## `config show`, twice\n```bash\n# no heading\n```\n## 消息缺失时\n\
                ## Rollback\n## Rollback\n[a](b.md#c) `[no](link)` [d](#e)\n";
    let document = Document { name: "docs/x.md".into(), text: text.into() };
    let wanted = ["config-show-twice", "rollback", "rollback-1", "what-health-says", "消息缺失时"];
    assert_eq!(document.anchors().into_iter().collect::<Vec<_>>(), wanted);
    let links: Vec<_> = document.links().iter().map(|link| document.resolve(&link.target)).collect();
    assert_eq!(links, ["docs/b.md", "docs/x.md"]);
    assert_eq!(document.resolve("../README.md"), "README.md");
}
