//! Chinese documents that say what the English ones say.

use super::markdown::{Block, Document, all, spans};

/// Each English document that has a Chinese one, and that.
fn pairs() -> Vec<(Document, Document)> {
    let chinese_of = |name: &str| match name.strip_prefix("docs/") {
        Some(rest) => format!("docs/zh/{rest}"),
        None => "README.zh.md".into(),
    };
    let of_both = |name: &str| name == "README.md" || name.starts_with("docs/") && !name.starts_with("docs/zh/");
    let english = all().into_iter().filter(|document| of_both(&document.name));
    let pairs: Vec<_> = english.map(|document| (Document::read(&chinese_of(&document.name)), document)).collect();
    let chinese = all().into_iter().filter(|document| document.name.contains("zh")).count();
    assert_eq!(chinese, pairs.len(), "each Chinese document has an English one");
    pairs.into_iter().map(|(chinese, english)| (without_the_reference(english), chinese)).collect()
}

/// The generated tables stand in one place.
fn without_the_reference(document: Document) -> Document {
    let text = document.text.split("<!-- variables -->").step_by(2).collect();
    Document { text, ..document }
}

fn without_comments(blocks: Vec<Block>) -> Vec<Block> {
    let code = |line: &str| line.split("  # ").next().unwrap_or_default().trim_end().to_owned();
    let is_code = |line: &String| !line.is_empty() && !line.trim_start().starts_with("# ");
    let plain = |text: &str| text.lines().map(code).filter(is_code).collect::<Vec<_>>().join("\n");
    blocks.into_iter().map(|block| Block { text: plain(&block.text), ..block }).collect()
}

#[test]
fn the_chinese_documents_have_the_same_headings_and_commands() {
    let mut compared = 0;
    for (english, chinese) in pairs() {
        let levels = |document: &Document| document.headings().iter().map(|(level, _)| *level).collect::<Vec<_>>();
        assert_eq!(levels(&english), levels(&chinese), "the headings of {} differ", chinese.name);
        let (blocks, theirs) = (without_comments(english.blocks()), without_comments(chinese.blocks()));
        compared += blocks.len();
        for (block, its) in blocks.iter().zip(&theirs) {
            assert_eq!(block, its, "a code block of {} differs", chinese.name);
        }
        assert_eq!(blocks.len(), theirs.len(), "{} has more or fewer code blocks", chinese.name);
    }
    assert!(compared > 30, "{compared} blocks");
}

/// A message that one of them explains the other explains as well.
#[test]
fn the_chinese_documents_have_the_same_rows() {
    let mut compared = 0;
    for (english, chinese) in pairs() {
        let first_cells =
            |document: &Document| -> Vec<_> { document.rows().iter().map(|row| (row.len(), spans(&row[0]))).collect() };
        let (rows, theirs) = (first_cells(&english), first_cells(&chinese));
        compared += rows.len();
        for (row, its) in rows.iter().zip(&theirs) {
            assert_eq!(row, its, "a row of {} differs", chinese.name);
        }
        assert_eq!(rows.len(), theirs.len(), "{} has more or fewer rows", chinese.name);
    }
    assert!(compared > 120, "{compared} rows");
}
