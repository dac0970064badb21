//! Holds the source to the map in ARCHITECTURE.md: who knows whom, and no circle of files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// The names of a module from the root of the crate on.
type Module = Vec<String>;

/// The files of the crate, by module; `src/main.rs` is a door and no room.
fn modules() -> BTreeMap<Module, PathBuf> {
    fn collect(directory: &Path, module: &Module, found: &mut BTreeMap<Module, PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let inner = || module.iter().cloned().chain([name.clone()]).collect::<Module>();
            if path.is_dir() {
                collect(&path, &inner(), found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                match name.as_str() {
                    "main" if module.is_empty() => {}
                    "mod" | "lib" => _ = found.insert(module.clone(), path),
                    _ => _ = found.insert(inner(), path),
                }
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(&source(), &vec![], &mut found);
    // Tests may know everybody.
    found.retain(|module, _| !module.iter().any(|name| name == "tests"));
    found
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Paths that a file names from the crate, its parents or itself on.
struct Named<'a> {
    module: &'a Module,
    paths: Vec<Module>,
}

impl Named<'_> {
    fn note(&mut self, path: &[String]) {
        let mut words = path.iter().peekable();
        let mut base = match words.peek().map(|word| word.as_str()) {
            Some("crate") => vec![],
            Some("self" | "super") => self.module.clone(),
            _ => return,
        };
        for word in words {
            match word.as_str() {
                "crate" | "self" => {}
                "super" => _ = base.pop(),
                _ => base.push(word.clone()),
            }
        }
        self.paths.push(base);
    }

    fn note_tree(&mut self, tree: &syn::UseTree, before: &[String]) {
        let with = |name: &syn::Ident| before.iter().cloned().chain([name.to_string()]).collect::<Vec<_>>();
        match tree {
            syn::UseTree::Path(path) => self.note_tree(&path.tree, &with(&path.ident)),
            syn::UseTree::Name(name) => self.note(&with(&name.ident)),
            syn::UseTree::Rename(name) => self.note(&with(&name.ident)),
            syn::UseTree::Glob(_) => self.note(before),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.note_tree(tree, before)),
        }
    }
}

impl<'ast> Visit<'ast> for Named<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let is_test = |attribute: &syn::Attribute| {
            attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
        };
        if !module.attrs.iter().any(is_test) {
            visit::visit_item_mod(self, module);
        }
    }

    /// Who may see a thing is nobody whom it knows.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.note_tree(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.note(&path.segments.iter().map(|segment| segment.ident.to_string()).collect::<Vec<_>>());
        visit::visit_path(self, path);
    }
}

/// For each file the files that it names. What a module takes from its own parts is no edge: it is made
/// of them.
fn edges() -> BTreeMap<Module, BTreeSet<Module>> {
    let modules = modules();
    let mut edges = BTreeMap::new();
    for (module, path) in &modules {
        let file = syn::parse_file(&fs::read_to_string(path).unwrap()).unwrap();
        let mut named = Named { module, paths: vec![] };
        named.visit_file(&file);
        let place = |mut path: Module| {
            while !modules.contains_key(&path) {
                path.pop();
            }
            path
        };
        let known: BTreeSet<_> =
            named.paths.into_iter().map(place).filter(|other| !other.starts_with(module)).collect();
        edges.insert(module.clone(), known);
    }
    edges
}

/// In the place of names: all rooms but those that say it further down.
const EVERYONE: &str = "everyone below";

/// The rooms that a room knows.
enum Knows {
    These(BTreeSet<String>),
    NoneBut(BTreeSet<String>),
}

/// Whom each room knows, as the table says.
fn table() -> BTreeMap<String, Knows> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with("| room |")).skip(2);
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
    let (mut table, mut high) = (BTreeMap::new(), vec![]);
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cells: Vec<_> = row.trim_matches('|').split('|').collect();
        for room in names(cells[0]) {
            if cells[2].trim() == EVERYONE {
                high.push(room.clone());
            }
            table.insert(room, Knows::These(names(cells[2])));
        }
    }
    for (at, room) in high.iter().enumerate() {
        let known = table.keys().filter(|other| !high[at..].contains(other)).cloned().collect();
        table.insert(room.clone(), Knows::NoneBut(known));
    }
    table
}

#[test]
fn who_knows_whom_is_as_the_map_says() {
    let (table, mut known) = (table(), BTreeMap::<String, BTreeSet<String>>::new());
    for (module, others) in edges() {
        let Some(room) = module.first() else { continue };
        let others = others.into_iter().filter_map(|other| other.first().cloned()).filter(|other| other != room);
        known.entry(room.clone()).or_default().extend(others);
    }
    let rooms: BTreeSet<_> = known.keys().collect();
    assert_eq!(rooms, table.keys().collect(), "each room of src stands in the table of ARCHITECTURE.md");
    let is_as_said = |room: &str, others: &BTreeSet<String>| match &table[room] {
        Knows::These(these) => others == these,
        Knows::NoneBut(those) => others.is_subset(those),
    };
    let differing: Vec<_> = known.iter().filter(|(room, others)| !is_as_said(room, others)).collect();
    assert!(differing.is_empty(), "the table says something else than: {differing:#?}");
}

#[test]
fn no_files_name_each_other_in_a_circle() {
    let mut edges = edges();
    // A file that names nobody, or only those, is in no circle.
    loop {
        let before = edges.len();
        let left: BTreeSet<_> = edges.keys().cloned().collect();
        edges.retain(|_, others| others.iter().any(|other| left.contains(other)));
        if edges.len() == before {
            break;
        }
    }
    // What is left is a circle, or leads to one.
    let names = |module: &Module| module.join("::");
    let circle: Vec<_> = edges
        .iter()
        .map(|(module, others)| {
            let others = others.iter().filter(|other| edges.contains_key(*other)).map(names);
            format!("{} → {}", names(module), others.collect::<Vec<_>>().join(", "))
        })
        .collect();
    assert!(circle.is_empty(), "a circle, and who leads to it:\n{}", circle.join("\n"));
}

#[test]
fn paths_are_found_however_they_are_written() {
    let text = "use crate::{a::{self, B}, c as d}; use super::e; pub(super) fn f() { crate::g::h(); } #[cfg(test)] mod tests { use crate::x; }";
    let module: Module = vec!["m".into(), "n".into()];
    let mut named = Named { module: &module, paths: vec![] };
    named.visit_file(&syn::parse_file(text).unwrap());
    let found: Vec<_> = named.paths.iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["a", "a::B", "c", "m::e", "g::h"]);
}
