//! All of TPC-H: one graph each, without streams.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::{plan, shown, tables};

fn texts() -> Vec<(String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/tpch");
    (1..=22)
        .map(|number| {
            let name = format!("q{number:02}");
            let text = std::fs::read_to_string(folder.join(format!("{name}.sql"))).unwrap();
            (name, text)
        })
        .collect()
}

#[tokio::test]
async fn each_query_is_one_graph() {
    let (_folder, context) = tables::session().await;
    let mut all = String::new();
    for (name, sql) in texts() {
        let plan = plan(&context, &sql).await;
        let text = shown(&plan);
        assert!(!text.contains("refused:"), "{name}: {text}");
        assert!(!text.contains("stream "), "{name}: {text}");
        let _ = writeln!(all, "{name}\n{text}\n");
    }
    let expected = include_str!("tpch.txt");
    if all != expected {
        let path = std::env::temp_dir().join("tpch-fragments.txt");
        std::fs::write(&path, &all).unwrap();
        let (line, (was, is)) = expected
            .lines()
            .chain(std::iter::repeat("(end)"))
            .zip(all.lines().chain(["(end)"]))
            .enumerate()
            .find(|(_, (was, is))| was != is)
            .unwrap();
        panic!(
            "line {} of tpch.txt changed; all is in {}\nwas {was}\nis  {is}",
            line + 1,
            path.display()
        );
    }
}
