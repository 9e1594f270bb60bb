//! How much a store serves, without limits or within a profile's:
//! `cargo run --release -p simstore --example throughput [connections] [seconds] [profile]`.
//!
//! A client of plain sockets asks for 8 MiB ranges, so that what is measured is the store and the kernel's loopback; the
//! store's own processor time is told too.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use simstore::{Config, Profile, SimStore};

const PART: u64 = 8 << 20;

/// Reads parts until the end; bytes of bodies.
fn client(store: &SimStore, number: u64, until: Instant, total: &AtomicU64) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(store.addr())?;
    let mut buffer = vec![0; 1 << 20];
    let mut part = number;
    while Instant::now() < until {
        let (first, last) = (part * PART, (part + 1) * PART - 1);
        part += 64;
        let request = format!("GET /lake/a HTTP/1.1\r\nhost: x\r\nrange: bytes={first}-{last}\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut seen = 0;
        let mut head = 0;
        while head == 0 {
            seen += stream.read(&mut buffer[seen..])?;
            let end = buffer[..seen].windows(4).position(|window| window == b"\r\n\r\n");
            head = end.map_or(0, |end| end + 4);
        }
        let mut left = PART - (seen - head) as u64;
        while left > 0 {
            let read = stream.read(&mut buffer)? as u64;
            if read == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
            }
            left -= read;
        }
        total.fetch_add(PART, Ordering::Relaxed);
    }
    Ok(())
}

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse::<u64>().ok());
    let connections = arguments.next().unwrap_or(4);
    let seconds = arguments.next().unwrap_or(3);
    let profile = std::env::args()
        .nth(3)
        .and_then(|name| Profile::named(&name))
        .unwrap_or_default();
    let target = if profile.total_bytes_per_second > 0 {
        1.25 * 0.95
    } else {
        2.0
    };
    let store = SimStore::start(Config::with_profile(profile))?;
    store.put_synthetic("lake", "a", 1 << 40, 1)?;
    let begin = Instant::now();
    let until = begin + Duration::from_secs(seconds);
    let total = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for number in 0..connections {
            let (store, total) = (&store, &total);
            scope.spawn(move || client(store, number, until, total));
        }
    });
    let gigabytes = f64::from(u32::try_from(total.into_inner() / PART).unwrap_or(u32::MAX)) * 8.388_608e-3;
    let rate = gigabytes / begin.elapsed().as_secs_f64();
    let counters = store.counters();
    let verdict = if rate >= target { "ok" } else { "short" };
    println!("simstore.throughput = {rate:.2} GB/s (target >= {target:.2}) {verdict}");
    println!("simstore.cpu = {:.2} s/GB", counters.cpu_seconds / gigabytes);
    Ok(())
}
