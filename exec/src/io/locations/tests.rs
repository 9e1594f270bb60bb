//! What a statement may name as a location, and what it is refused for.

use super::*;

fn list(folder: &Path, allowed: &[&str]) -> Locations {
    Locations::new(
        folder,
        &allowed.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(),
    )
    .unwrap()
}

#[test]
fn the_data_folder_is_allowed_and_its_private_part_is_not() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.csv"), "x\n").unwrap();
    std::fs::create_dir_all(folder.path().join(".trireme/tables")).unwrap();
    let list = list(folder.path(), &[]);
    assert!(
        list.resolve("a.csv", Access::Read)
            .unwrap()
            .path
            .unwrap()
            .ends_with("a.csv")
    );
    assert!(matches!(
        list.resolve(".trireme", Access::Read),
        Err(LocationError::Private { .. })
    ));
    assert!(list.resolve("x/../.trireme/tables", Access::Read).is_err());
    assert!(matches!(
        list.resolve(".trireme/new.csv", Access::Write),
        Err(LocationError::Private { .. })
    ));
    assert!(matches!(
        list.resolve("/etc/passwd", Access::Read),
        Err(LocationError::NotAllowed { .. })
    ));
    assert!(matches!(
        list.resolve("/etc/no-such-file", Access::Read),
        Err(LocationError::NotAllowed { .. })
    ));
    assert!(matches!(
        list.resolve("file:///etc/passwd", Access::Read),
        Err(LocationError::NotAllowed { .. })
    ));
    assert!(matches!(
        list.resolve("../../../../../../etc/passwd", Access::Read),
        Err(LocationError::NotAllowed { .. })
    ));
    assert!(matches!(
        list.resolve("b.csv", Access::Read),
        Err(LocationError::NotFound { .. })
    ));
}

#[test]
fn links_out_of_the_folder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret.csv"), "x\n").unwrap();
    std::os::unix::fs::symlink(outside.path(), folder.path().join("link")).unwrap();
    std::os::unix::fs::symlink("/no/such/place", folder.path().join("dangling")).unwrap();
    let list = list(folder.path(), &[]);
    assert!(matches!(
        list.resolve("link/secret.csv", Access::Read),
        Err(LocationError::NotAllowed { .. })
    ));
    assert!(matches!(
        list.resolve("link/new.csv", Access::Write),
        Err(LocationError::NotAllowed { .. })
    ));
    assert!(matches!(
        list.resolve("dangling", Access::Write),
        Err(LocationError::Invalid { .. })
    ));
}

#[test]
fn prefixes_match_whole_components() {
    let parent = tempfile::tempdir().unwrap();
    for name in ["data", "lake", "lakeside"] {
        std::fs::create_dir(parent.path().join(name)).unwrap();
    }
    let lake = parent.path().join("lake");
    let list = list(
        &parent.path().join("data"),
        &[lake.to_str().unwrap(), "s3://bucket/pre", "https://example.org/d"],
    );
    assert!(list.resolve(lake.to_str().unwrap(), Access::Read).unwrap().is_folder());
    assert!(
        list.resolve(parent.path().join("lakeside").to_str().unwrap(), Access::Read)
            .is_err()
    );
    assert!(
        list.resolve("s3://bucket/pre/x/*.parquet", Access::Read)
            .unwrap()
            .glob
            .as_deref()
            == Some("*.parquet")
    );
    assert!(list.resolve("s3://bucket/prefix/x", Access::Read).is_err());
    assert!(list.resolve("s3://bucket2/pre/x", Access::Read).is_err());
    assert!(list.resolve("https://example.org/d/a.csv", Access::Read).is_ok());
    assert!(list.resolve("https://example.org/d/../e.csv", Access::Read).is_err());
    assert!(
        list.resolve("https://example.org/d/%2e%2e/e.csv", Access::Read)
            .is_err()
    );
    assert!(
        list.resolve("https://example.org/d%2F..%2Fe.csv", Access::Read)
            .is_err()
    );
    for (location, access, said) in [
        ("https://example.org/d/*.csv", Access::Read, "patterns"),
        ("https://example.org/d/", Access::Read, "name one file"),
        ("https://example.org/d/a.csv", Access::Write, "only read"),
    ] {
        let error = list.resolve(location, access).unwrap_err().to_string();
        assert!(error.contains(said), "{location}: {error}");
    }
    assert!(list.resolve("https://example.org:444/d/a.csv", Access::Read).is_err());
}

#[test]
fn local_patterns_split_before_the_first_pattern_component() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("logs")).unwrap();
    let list = list(folder.path(), &[]);
    let resolved = list.resolve("logs/2024-*/*.csv", Access::Read).unwrap();
    assert_eq!(resolved.glob.as_deref(), Some("2024-*/*.csv"));
    assert!(resolved.path.unwrap().ends_with("logs"));
}

#[test]
fn metadata_hosts_are_refused_even_when_configured() {
    let folder = tempfile::tempdir().unwrap();
    let hosts = [
        "http://169.254.169.254/latest",
        "http://[fd00:ec2::254]/x",
        "http://[fe80::1]/x",
        "http://metadata.google.internal/x",
    ];
    let list = list(folder.path(), &hosts);
    for host in hosts
        .iter()
        .chain(["http://0xA9FEA9FE/x", "http://[::ffff:169.254.169.254]/x"].iter())
    {
        assert!(
            matches!(list.resolve(host, Access::Read), Err(LocationError::RefusedHost { .. })),
            "{host}"
        );
    }
}

#[test]
fn credentials_are_refused_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let list = list(folder.path(), &["s3://bucket"]);
    for location in [
        "s3://user:hunter2@bucket/x",
        "s3://user:hunter2/more@bucket/x",
        "ftp://user:hunter2@host/x",
    ] {
        let error = list.resolve(location, Access::Read).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
