//! As much of Markdown as the documents use.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// One document of the repository.
pub struct Document {
    /// From the root of the repository.
    pub name: String,
    pub text: String,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    pub language: String,
    pub text: String,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Link {
    /// Empty for a place in the same document.
    pub target: String,
    pub anchor: Option<String>,
}

enum Part<'a> {
    Prose(&'a str),
    Block(Block),
}

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document: those beside README.md, and all below docs.
pub fn all() -> Vec<Document> {
    let mut found = BTreeSet::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(repository().join(&directory)).unwrap() {
            let path = directory.join(entry.unwrap().file_name());
            if path.extension().is_some_and(|extension| extension == "md") {
                found.insert(path);
            } else if path.starts_with("docs") && repository().join(&path).is_dir() {
                directories.push(path);
            }
        }
    }
    let found: Vec<_> = found.into_iter().map(|path| Document::read(path.to_str().unwrap())).collect();
    assert!(found.len() > 15, "{} documents", found.len());
    found
}

impl Document {
    pub fn read(name: &str) -> Self {
        let text = fs::read_to_string(repository().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        Self { name: name.into(), text }
    }

    fn parts(&self) -> Vec<Part<'_>> {
        let mut parts = Vec::new();
        let mut open: Option<Block> = None;
        for line in self.text.lines() {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(language)) => open = Some(Block { language: language.into(), text: String::new() }),
                (None, None) => parts.push(Part::Prose(line)),
                (Some(_), Some(_)) => parts.extend(open.take().map(Part::Block)),
                (Some(block), None) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
            }
        }
        assert!(open.is_none(), "{}: a code block has no end", self.name);
        parts
    }

    pub fn prose(&self) -> Vec<&str> {
        let prose = |part| if let Part::Prose(line) = part { Some(line) } else { None };
        self.parts().into_iter().filter_map(prose).collect()
    }

    pub fn blocks(&self) -> Vec<Block> {
        let block = |part| if let Part::Block(block) = part { Some(block) } else { None };
        self.parts().into_iter().filter_map(block).collect()
    }

    /// Level and words of each heading.
    pub fn headings(&self) -> Vec<(usize, &str)> {
        let heading = |line: &'_ str| {
            let level = line.bytes().take_while(|byte| *byte == b'#').count();
            (level > 0).then_some(level).filter(|level| line[*level..].starts_with(' '))
        };
        self.prose().into_iter().filter_map(|line| heading(line).map(|level| (level, line[level..].trim()))).collect()
    }

    /// The names under which GitHub links to the headings.
    pub fn anchors(&self) -> BTreeSet<String> {
        let mut seen = BTreeMap::new();
        let mut anchors = BTreeSet::new();
        for (_, words) in self.headings() {
            let kept = words.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
            let slug: String = kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect();
            let before = seen.entry(slug.clone()).or_insert(0);
            anchors.insert(if *before == 0 { slug } else { format!("{slug}-{before}") });
            *before += 1;
        }
        anchors
    }

    pub fn links(&self) -> Vec<Link> {
        let mut links = Vec::new();
        for line in self.prose() {
            // What stands in code is no link.
            let plain: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
            for rest in plain.split("](").skip(1) {
                let target = rest.split(')').next().unwrap_or_default();
                let (target, anchor) = target.split_once('#').map_or((target, None), |(t, a)| (t, Some(a.to_owned())));
                links.push(Link { target: target.into(), anchor });
            }
        }
        links
    }

    /// The path from the root of the repository that a link of this document means.
    pub fn resolve(&self, target: &str) -> String {
        if target.is_empty() {
            return self.name.clone();
        }
        let mut path: Vec<_> = self.name.split('/').collect();
        path.pop();
        for step in target.split('/') {
            match step {
                "." => {}
                ".." => _ = path.pop().unwrap_or_else(|| panic!("{}: {target} leaves the repository", self.name)),
                step => path.push(step),
            }
        }
        path.join("/")
    }

    /// The cells of each row of each table.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let row = |line: &str| {
            let inner = line.strip_prefix('|')?.strip_suffix('|')?;
            let cells = inner.replace("\\|", "\0");
            Some(cells.split('|').map(|cell| cell.trim().replace('\0', "|")).collect())
        };
        self.prose().into_iter().filter_map(row).collect()
    }

    /// What stands in code within sentences and tables.
    pub fn spans(&self) -> Vec<String> {
        self.prose().into_iter().flat_map(spans).map(|span| span.replace("\\|", "|")).collect()
    }
}

/// What stands in code in a line.
pub fn spans(line: &str) -> Vec<String> {
    line.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}
