//! The house rules as a program: the arrows between crates, what may come in from outside, and what a file must keep to.
//!
//! Everything is read from `cargo metadata` and from the text of the tree, so a rule fails in seconds and names the crate or
//! the line. `ARCHITECTURE.md` says why each arrow is as it is; `deny.toml` holds the lists of licences and bans, and
//! cargo-deny, where it is installed, checks the same lists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;

/// Longest file that a reader holds in the head.
const FILE_LINES_MAX: usize = 600;

/// Which of our crates a crate may name, by folder. A new crate gets its line here, and a word in `ARCHITECTURE.md`.
const ARROWS: [(&str, &[&str]); 13] = [
    ("config", &[]),
    ("devices/api", &[]),
    // A part of exec, apart because it must build without datafusion.
    ("exec/columns", &["devices/api", "exec/lake", "tests/simstore"]),
    // A part of exec too; its tests read from a simulated store.
    ("exec/lake", &["tests/simstore"]),
    (
        "exec",
        &[
            "config",
            "devices/api",
            "exec/columns",
            "exec/lake",
            "planner/costs",
            "tests/simstore",
        ],
    ),
    // The test kit: graphs that planner makes are run by its interpreter.
    (
        "planner",
        &["config", "devices/api", "devices/testkit", "exec", "planner/costs"],
    ),
    // A part of planner, apart because it must build without datafusion.
    ("planner/costs", &["devices/api"]),
    // A part of the server, apart only because the Delta crates under it take long to compile.
    ("server/catalog", &["config", "devices/api", "exec", "planner"]),
    (
        "server",
        &[
            "config",
            "devices/*",
            "exec",
            "exec/columns",
            "exec/lake",
            "planner",
            "planner/costs",
            "server/catalog",
        ],
    ),
    ("clients/cli", &[]),
    ("tests", &["config", "devices/*", "exec", "planner"]),
    ("tests/simstore", &[]),
    (
        "benchmarks",
        &["config", "devices/*", "exec", "exec/columns", "planner"],
    ),
];

/// What every device crate but the contract itself may name.
const DEVICE_ARROWS: [&str; 4] = ["devices/api", "devices/codegen", "devices/runtime", "devices/testkit"];

/// Flight, gRPC, HTTP servers and TLS: rule 1.
const WIRE: [&str; 13] = [
    "arrow-flight",
    "axum",
    "h2",
    "hyper",
    "hyper-util",
    "native-tls",
    "openssl",
    "prost",
    "rustls",
    "tokio-rustls",
    "tonic",
    "tonic-health",
    "tower",
];

/// Crates of which two versions would be two worlds in one process: rule 6.
const ONE_VERSION: [&str; 10] = [
    "arrow",
    "arrow-array",
    "arrow-flight",
    "arrow-schema",
    "datafusion",
    "object_store",
    "parquet",
    "prost",
    "sqlparser",
    "tonic",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned()
}

/// One of our crates: its folder, relative to the root, and what it names.
struct Crate {
    folder: String,
    dependencies: Vec<String>,
}

struct Workspace {
    metadata: Value,
    ours: Vec<Crate>,
    /// Folder of each of our crates by package name.
    folders: BTreeMap<String, String>,
}

impl Workspace {
    /// As cargo resolves it for this machine, so that nothing is fetched that the build did not need; asked once.
    fn get() -> &'static Self {
        static WORKSPACE: LazyLock<Workspace> = LazyLock::new(Workspace::read);
        &WORKSPACE
    }

    fn read() -> Self {
        let rustc = Command::new("rustc").arg("-vV").output().expect("rustc");
        let version = String::from_utf8(rustc.stdout).expect("text");
        let host = version
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .expect("a host")
            .to_owned();
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--filter-platform", &host])
            .current_dir(root())
            .output()
            .expect("cargo metadata");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");

        let mut ours = Vec::new();
        let mut folders = BTreeMap::new();
        for package in packages(&metadata).filter(|package| package["source"].is_null()) {
            let manifest = Path::new(text(package, "manifest_path"));
            let folder = manifest
                .parent()
                .and_then(|folder| folder.strip_prefix(root()).ok())
                .expect("inside the tree");
            let folder = folder.to_str().expect("UTF-8").to_owned();
            let dependencies = package["dependencies"].as_array().expect("dependencies");
            folders.insert(text(package, "name").to_owned(), folder.clone());
            ours.push(Crate {
                folder,
                dependencies: dependencies
                    .iter()
                    .filter(|each| !is_host_of_tests(each))
                    .map(|each| text(each, "name").to_owned())
                    .collect(),
            });
        }
        Self {
            metadata,
            ours,
            folders,
        }
    }

    /// Names and versions of everything that is built for this machine.
    fn resolved(&self) -> impl Iterator<Item = &Value> {
        let nodes = self.metadata["resolve"]["nodes"].as_array().expect("nodes");
        let used: BTreeSet<&str> = nodes.iter().map(|node| text(node, "id")).collect();
        packages(&self.metadata).filter(move |package| used.contains(text(package, "id")))
    }
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().expect("packages").iter()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn is_device(folder: &str) -> bool {
    folder.starts_with("devices/") && folder != "devices/api"
}

/// The processor's variant evaluates for accelerators what only it can; in their tests too.
fn is_host_of_tests(dependency: &Value) -> bool {
    text(dependency, "kind") == "dev" && text(dependency, "name") == "trireme-device-cpu"
}

fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn arrows_between_our_crates() {
    let workspace = Workspace::get();
    let mut wrong = Vec::new();
    for each in &workspace.ours {
        let allowed: &[&str] = match ARROWS.iter().find(|(folder, _)| *folder == each.folder) {
            Some((_, allowed)) => allowed,
            None if is_device(&each.folder) => &DEVICE_ARROWS,
            None => panic!(
                "{} is a new room: give it a line in ARROWS and in ARCHITECTURE.md",
                each.folder
            ),
        };
        for target in each.dependencies.iter().filter_map(|name| workspace.folders.get(name)) {
            let pattern = if target.starts_with("devices/") {
                "devices/*"
            } else {
                target
            };
            if !allowed.contains(&target.as_str()) && !allowed.contains(&pattern) {
                wrong.push(format!("{} names {target}", each.folder));
            }
        }
    }
    assert_none("arrows that the house does not have", &wrong);
}

#[test]
fn only_the_front_speaks_to_the_network() {
    let front = ["server", "clients/", "tests", "benchmarks"];
    let mut wrong = Vec::new();
    for each in &Workspace::get().ours {
        let allowed = each.folder != "server/catalog" && front.iter().any(|room| each.folder.starts_with(room));
        if !allowed {
            let named = each.dependencies.iter().filter(|name| WIRE.contains(&name.as_str()));
            wrong.extend(named.map(|name| format!("{} names {name}", each.folder)));
        }
    }
    assert_none("Flight, gRPC or TLS outside the server", &wrong);
}

#[test]
fn devices_never_see_datafusion() {
    let mut wrong = Vec::new();
    for each in Workspace::get()
        .ours
        .iter()
        .filter(|each| each.folder.starts_with("devices/"))
    {
        let named = each.dependencies.iter().filter(|name| name.starts_with("datafusion"));
        wrong.extend(named.map(|name| format!("{} names {name}", each.folder)));
    }
    assert_none("device crates that see datafusion", &wrong);
}

#[test]
fn only_exec_io_names_a_store_vendor() {
    let words = [
        "AmazonS3",
        "MicrosoftAzure",
        "GoogleCloudStorage",
        "object_store::aws",
        "object_store::azure",
        "object_store::gcp",
    ];
    let mut wrong = Vec::new();
    // The conformance list holds the vendors' own clients to what we need of them; other tests read from a simulated store.
    let allowed = [
        "exec/src/io/",
        "exec/columns/src/tests/",
        "exec/lake/examples/",
        "exec/lake/tests/",
        "tests/simstore/tests/",
    ];
    for file in
        sources(&["rs"]).filter(|file| !allowed.iter().any(|room| file.path.starts_with(room)) && !file.is_this())
    {
        wrong.extend(file.lines_with(|line| words.iter().any(|word| code(line).contains(word))));
    }
    // The features stand once, in the workspace; a crate that adds its own would be a second place.
    for file in sources(&["toml"]).filter(|file| file.path.ends_with("/Cargo.toml") && !file.path.starts_with("exec/"))
    {
        wrong.extend(file.lines_with(|line| line.starts_with("object_store") && line.contains("features")));
    }
    assert_none("object-store vendors outside exec/src/io", &wrong);
}

#[test]
fn only_devices_hold_unsafe_code() {
    let words = [concat!("un", "safe"), concat!("extern ", "\"C\"")];
    let mut wrong = Vec::new();
    for file in sources(&["rs"]).filter(|file| !file.path.starts_with("devices/") && !file.is_this()) {
        wrong.extend(file.lines_with(|line| words.iter().any(|word| has_word(code(line), word))));
    }
    assert_none("code outside devices/ that the compiler can't check", &wrong);
}

#[test]
fn one_version_of_what_must_fit_together() {
    let workspace = Workspace::get();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in workspace.resolved() {
        versions
            .entry(text(package, "name"))
            .or_default()
            .insert(text(package, "version"));
    }
    let denied = fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    let mut wrong = Vec::new();
    for name in ONE_VERSION {
        let found = versions
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not used any more; take it out of ONE_VERSION"));
        if found.len() > 1 {
            wrong.push(format!("{name}: {found:?}"));
        }
    }
    for name in banned(&denied).filter(|name| versions.contains_key(name)) {
        wrong.push(format!("{name} is banned by deny.toml"));
    }
    assert_none("crates that the house does not hold", &wrong);
}

/// Crates that `deny.toml` bans altogether, not only their second version.
fn banned(deny: &str) -> impl Iterator<Item = &str> {
    let section = deny
        .split("[bans]")
        .nth(1)
        .and_then(|rest| rest.split("\n[").next())
        .expect("a section [bans]");
    section
        .lines()
        .filter(|line| line.contains("crate = ") && !line.contains("deny-multiple-versions"))
        .filter_map(|line| line.split('"').nth(1))
}

#[test]
fn licences_and_sources_are_allowed() {
    let workspace = Workspace::get();
    let deny = fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    let (allowed, exceptions) = licences(&deny);
    assert!(
        allowed.contains("Apache-2.0") && !exceptions.is_empty(),
        "deny.toml is not written as this test reads it"
    );
    let none = BTreeSet::new();
    let mut wrong = Vec::new();
    for package in workspace.resolved() {
        let (name, licence, source) = (text(package, "name"), text(package, "license"), text(package, "source"));
        let more = exceptions.get(name).unwrap_or(&none);
        if !Expression::new(licence).holds(&|one| allowed.contains(one) || more.contains(one)) {
            wrong.push(format!("{name}: licence {licence:?}"));
        }
        if !source.is_empty() && !source.starts_with("registry+https://github.com/rust-lang/") {
            wrong.push(format!("{name}: from {source}"));
        }
    }
    assert_none("crates whose licence or source deny.toml does not allow", &wrong);
}

/// The allowed licences, and those of single crates.
fn licences(deny: &str) -> (BTreeSet<&str>, BTreeMap<&str, BTreeSet<&str>>) {
    let section = deny
        .split("[licenses]")
        .nth(1)
        .and_then(|rest| rest.split("\n[").next())
        .expect("a section [licenses]");
    let (allow, exceptions) = section.split_once("exceptions = [").expect("a list of exceptions");
    let quoted = |text| str::split(text, '"').skip(1).step_by(2);
    let allow = allow
        .split_once("allow = [")
        .and_then(|(_, rest)| rest.split_once(']'))
        .expect("a list allow")
        .0;
    let exceptions = exceptions.lines().filter(|line| line.contains("crate = ")).map(|line| {
        let mut words = quoted(line);
        (words.next().expect("a name"), words.collect())
    });
    (quoted(allow).collect(), exceptions.collect())
}

/// An SPDX expression: `A OR B`, `A AND (B OR C)`, `A WITH exception`; `/` is an old way to write OR.
struct Expression {
    words: Vec<String>,
    at: usize,
}

impl Expression {
    fn new(licence: &str) -> Self {
        let spaced = licence.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
        Self {
            words: spaced.split_whitespace().map(str::to_owned).collect(),
            at: 0,
        }
    }

    fn holds(mut self, allowed: &dyn Fn(&str) -> bool) -> bool {
        let holds = self.either(allowed);
        holds && self.at == self.words.len()
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.words.get(self.at).is_some_and(|next| next == word);
        self.at += usize::from(found);
        found
    }

    fn either(&mut self, allowed: &dyn Fn(&str) -> bool) -> bool {
        let mut holds = self.both(allowed);
        while self.take("OR") {
            holds |= self.both(allowed);
        }
        holds
    }

    fn both(&mut self, allowed: &dyn Fn(&str) -> bool) -> bool {
        let mut holds = self.one(allowed);
        while self.take("AND") {
            holds &= self.one(allowed);
        }
        holds
    }

    fn one(&mut self, allowed: &dyn Fn(&str) -> bool) -> bool {
        if self.take("(") {
            let holds = self.either(allowed);
            return self.take(")") && holds;
        }
        let Some(mut name) = self.words.get(self.at).cloned() else {
            return false;
        };
        self.at += 1;
        if self.take("WITH") {
            name = format!("{name} WITH {}", self.words.get(self.at).map_or("", String::as_str));
            self.at += 1;
        }
        allowed(&name)
    }
}

#[test]
fn licence_expressions_are_understood() {
    let holds = |licence: &str| Expression::new(licence).holds(&|one| ["A", "B", "A WITH x"].contains(&one));
    for licence in ["A", "C OR A", "C/B", "A AND (C OR B)", "A WITH x", "(A OR C) AND B"] {
        assert!(holds(licence), "{licence}");
    }
    for licence in ["", "C", "A AND C", "B WITH x", "(A OR C) AND C", "A A"] {
        assert!(!holds(licence), "{licence}");
    }
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    let manifests = sources(&["toml"]).filter(|file| file.path.ends_with("/Cargo.toml"));
    let lacking = manifests
        .filter(|file| !file.text.contains("[lints]\nworkspace = true\n"))
        .map(|file| file.path)
        .collect::<Vec<_>>();
    assert_none("crates without `[lints] workspace = true`", &lacking);
}

#[test]
fn files_say_what_they_own_and_stay_short() {
    let mut wrong = Vec::new();
    for file in sources(&["rs"]).filter(|file| !file.text.starts_with("//!")) {
        wrong.push(format!("{}: no `//!` that says what it owns and why", file.path));
    }
    for file in sources(&["rs", "py", "java", "js", "sh"]) {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!(
                "{}: {lines} lines (at most {FILE_LINES_MAX}; split it by idea)",
                file.path
            ));
        }
    }
    assert_none("files that are hard to read", &wrong);
}

#[test]
fn nothing_is_left_to_be_done() {
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let mut wrong = Vec::new();
    for file in sources(&["rs", "py", "java", "js", "sh", "toml", "sql", "slt"]) {
        wrong.extend(file.lines_with(|line| words.iter().any(|word| has_word(line, word))));
    }
    assert_none("open ends: do it, or open an issue", &wrong);
}

/// A text file of the tree.
struct Source {
    /// Relative to the root.
    path: String,
    text: String,
}

impl Source {
    /// This file names the words that it forbids.
    fn is_this(&self) -> bool {
        self.path == "tests/src/tidy.rs"
    }

    fn lines_with(&self, wrong: impl Fn(&str) -> bool) -> Vec<String> {
        let numbered = self.text.lines().enumerate().filter(|(_, line)| wrong(line));
        numbered
            .map(|(index, line)| format!("{}:{}: {}", self.path, index + 1, line.trim()))
            .collect()
    }
}

/// The tree's files with one of these extensions, without what tools and builds put there.
fn sources(extensions: &[&str]) -> impl Iterator<Item = Source> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let foreign = ["target", "node_modules", "__pycache__"].contains(&name) || name.starts_with("trireme-data");
            if foreign || name.starts_with('.') {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .and_then(|extension| extension.to_str())
                .is_some_and(|extension| extensions.contains(&extension))
            {
                let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                let path = path
                    .strip_prefix(root())
                    .expect("inside the tree")
                    .to_str()
                    .expect("UTF-8")
                    .to_owned();
                found.push(Source { path, text });
            }
        }
    }
    assert!(!found.is_empty(), "no files of {extensions:?}");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found.into_iter()
}

/// The line without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

fn has_word(line: &str, word: &str) -> bool {
    let part_of_a_name = |next: Option<char>| next.is_some_and(|next| next.is_alphanumeric() || next == '_');
    line.match_indices(word).any(|(at, _)| {
        !part_of_a_name(line[..at].chars().next_back()) && !part_of_a_name(line[at + word.len()..].chars().next())
    })
}
