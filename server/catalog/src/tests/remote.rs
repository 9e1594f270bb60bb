//! Files on web servers and S3, served by a few lines of our own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use trireme_planner::ddl::{Ddl, FileFormat, IfExists};

use super::{Lake, external};
use crate::SketchOptions;

/// Serves files by path; a path ending in `→ URL` redirects; `?list-type=2` lists a bucket as S3 does.
fn serve(files: &[(&str, &str)]) -> u16 {
    serve_counted(files).0
}

/// The same, counting listings.
fn serve_counted(files: &[(&str, &str)]) -> (u16, Arc<AtomicUsize>) {
    let lists = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&lists);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let files: BTreeMap<String, String> = files
        .iter()
        .map(|(path, content)| ((*path).to_owned(), (*content).to_owned()))
        .collect();
    let files = Arc::new(files);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (files, lists) = (Arc::clone(&files), Arc::clone(&counted));
            std::thread::spawn(move || answer(&stream, &files, &lists));
        }
    });
    (port, lists)
}

fn answer(stream: &TcpStream, files: &BTreeMap<String, String>, lists: &AtomicUsize) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    loop {
        let request = lines.next()?.ok()?;
        let mut range = None;
        for header in lines.by_ref() {
            let header = header.ok()?.to_lowercase();
            if header.is_empty() {
                break;
            }
            range = header.strip_prefix("range: bytes=").map(str::to_owned).or(range);
        }
        let mut words = request.split(' ');
        let (method, target) = (words.next()?, words.next()?);
        let target = target.replace("%3D", "=");
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        lists.fetch_add(usize::from(query.contains("list-type=2")), Ordering::Relaxed);
        let (status, content, extra) = match files.get(path) {
            _ if query.contains("list-type=2") => ("200 OK", listing(path, query, files), String::new()),
            None => ("404 Not Found", String::new(), String::new()),
            Some(content) => match content.strip_prefix("→ ") {
                Some(elsewhere) => ("302 Found", String::new(), format!("Location: {elsewhere}\r\n")),
                None => match &range {
                    Some(range) => {
                        let (from, to) = range.split_once('-')?;
                        let (from, to) = (
                            from.parse::<usize>().ok()?,
                            to.parse::<usize>().unwrap_or(content.len() - 1).min(content.len() - 1),
                        );
                        (
                            "206 Partial Content",
                            content[from..=to].to_owned(),
                            format!("Content-Range: bytes {from}-{to}/{}\r\n", content.len()),
                        )
                    }
                    None => ("200 OK", content.clone(), String::new()),
                },
            },
        };
        let length = content.len();
        let body = if method == "HEAD" { String::new() } else { content };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\nETag: \"1\"\r\n{extra}\r\n"
        );
        (&*stream).write_all(format!("{head}{body}").as_bytes()).ok()?;
    }
}

fn listing(bucket: &str, query: &str, files: &BTreeMap<String, String>) -> String {
    let prefix = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("prefix="))
        .unwrap_or_default()
        .replace("%2F", "/");
    let bucket = format!("{}/", bucket.trim_end_matches('/'));
    let objects = files
        .iter()
        .filter_map(|(path, content)| Some((path.strip_prefix(&bucket)?, content.len())));
    let contents: Vec<String> = objects
        .filter(|(key, _)| key.starts_with(&prefix))
        .map(|(key, size)| {
            format!("<Contents><Key>{key}</Key><LastModified>2015-10-21T07:28:00.000Z</LastModified><ETag>\"1\"</ETag><Size>{size}</Size></Contents>")
        })
        .collect();
    format!(
        "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated>{}</ListBucketResult>",
        contents.concat()
    )
}

fn define(table: &str, location: &str, options: &[(&str, &str)]) -> Ddl {
    Ddl::CreateExternalTable {
        table: external(table, FileFormat::Csv, location, options),
        if_exists: IfExists::Fail,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn web_files_are_read_and_redirects_stay_in_the_list() {
    let port = serve(&[
        ("/d/a.csv", "x\n1\n2\n"),
        ("/d/moved.csv", "→ /d/a.csv"),
        ("/d/metadata.csv", "→ http://169.254.169.254/latest"),
        ("/d/outside.csv", "→ /secret/b.csv"),
        ("/secret/b.csv", "x\n5\n"),
    ]);
    let host = format!("http://127.0.0.1:{port}");
    let mut lake = Lake::allowing(&[&format!("{host}/d")]).await;
    lake.apply(define("a", &format!("{host}/d/a.csv"), &[])).await.unwrap();
    lake.apply(define("moved", &format!("{host}/d/moved.csv"), &[]))
        .await
        .unwrap();
    lake.restart().await;
    assert_eq!(
        lake.sql("SELECT a.x, count(*) FROM a, moved GROUP BY 1 ORDER BY 1")
            .await,
        "1 2\n2 2"
    );
    for refused in ["/d/metadata.csv", "/d/outside.csv", "/secret/b.csv", "/d/missing.csv"] {
        let error = lake.apply(define("t", &format!("{host}{refused}"), &[])).await;
        assert!(error.is_err(), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_with_its_own_endpoint_and_credentials() {
    let port = serve(&[
        ("/b/t/1.csv", "x\n1\n"),
        ("/b/t/2.csv", "x\n2\n"),
        ("/b/other/3.csv", "x\n3\n"),
        ("/b/t/_tmp/4.csv", "x\n4\n"),
    ]);
    let endpoint = format!("http://127.0.0.1:{port}");
    let mut lake = Lake::allowing(&["s3://b/t", &endpoint]).await;
    let options = [
        ("aws.endpoint", endpoint.as_str()),
        ("aws.allow_http", "true"),
        ("aws.region", "here"),
        ("aws.access_key_id", "me"),
        ("aws.secret_access_key", "hunter2"),
    ];
    lake.apply(define("t", "s3://b/t/", &options)).await.unwrap();
    lake.apply(define("one", "s3://b/t/2*.csv", &options)).await.unwrap();
    assert!(lake.apply(define("o", "s3://b/other/", &options)).await.is_err());
    lake.restart().await;
    assert_eq!(lake.sql("SELECT sum(x) FROM t").await, "3");
    assert_eq!(lake.sql("SELECT sum(x) FROM one").await, "2");
    let explained = lake.sql("EXPLAIN SELECT sum(x) FROM t").await;
    assert!(!explained.contains("hunter2"), "{explained}");
    let shown = format!("{:?}", lake.catalog().describe(&crate::DescribeFilter::default()).await);
    assert!(!shown.contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_listed_once_for_a_statement() {
    let (port, lists) = serve_counted(&[("/b/t/day=1/1.csv", "x\n1\n"), ("/b/t/day=2/2.csv", "x\n2\n")]);
    let endpoint = format!("http://127.0.0.1:{port}");
    let lake = Lake::allowing(&["s3://b/t", &endpoint]).await;
    let options = [
        ("aws.endpoint", endpoint.as_str()),
        ("aws.allow_http", "true"),
        ("aws.region", "here"),
        ("aws.skip_signature", "true"),
    ];
    lake.apply(define("t", "s3://b/t/", &options)).await.unwrap();
    lists.store(0, Ordering::Relaxed);
    let sql =
        "SELECT sum(a.x), sum(b.x), (SELECT max(x) FROM t WHERE day = 1) FROM t a, t b WHERE a.day = 2 AND b.day = 2";
    assert_eq!(crate::in_statement(lake.sql(sql)).await, "2 2 1");
    assert_eq!(lists.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_known_is_listed_while_the_statement_is_planned() {
    let (port, lists) = serve_counted(&[("/b/t/1.csv", "x\n1\n")]);
    let endpoint = format!("http://127.0.0.1:{port}");
    let lake = Lake::allowing(&["s3://b/t", &endpoint]).await;
    let options = [
        ("aws.endpoint", endpoint.as_str()),
        ("aws.allow_http", "true"),
        ("aws.region", "here"),
        ("aws.skip_signature", "true"),
    ];
    lake.apply(define("t", "s3://b/t/", &options)).await.unwrap();
    let sql = "SELECT sum(a.x), sum(b.x) FROM t a, t b";
    assert_eq!(crate::in_statement(lake.sql(sql)).await, "1 1");
    lists.store(0, Ordering::Relaxed);
    let (rows, checks) = crate::ahead_of_checks(lake.sql(sql)).await;
    assert_eq!((rows.as_str(), checks.is_empty()), ("1 1", false));
    assert!(checks.hold().await);
    assert_eq!(lists.load(Ordering::Relaxed), 1);
    assert_eq!(lake.catalog().changed_ahead(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_not_listed_to_be_analysed_unasked() {
    let (port, lists) = serve_counted(&[("/b/t/1.csv", "x\n1\n")]);
    let endpoint = format!("http://127.0.0.1:{port}");
    let lake = Lake::allowing(&["s3://b/t", &endpoint]).await;
    let options = [
        ("aws.endpoint", endpoint.as_str()),
        ("aws.allow_http", "true"),
        ("aws.region", "here"),
        ("aws.skip_signature", "true"),
    ];
    lake.apply(define("t", "s3://b/t/", &options)).await.unwrap();
    lake.catalog().share_sketches(SketchOptions {
        sketches: Arc::default(),
        sample_rows: 10,
        sketch_below_bytes: 1 << 20,
        sketch_on_use: true,
        yields: || {},
    });
    lists.store(0, Ordering::Relaxed);
    assert_eq!(crate::in_statement(lake.sql("SELECT sum(x) FROM t")).await, "1");
    // For a minute: another thread does it.
    for _ in 0..3_000 {
        if lake.catalog().sketch_counts().left > 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(lake.catalog().sketch_counts().left, 1);
    assert_eq!(lists.load(Ordering::Relaxed), 1);
}
