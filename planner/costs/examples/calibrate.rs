//! Measures this machine's processor and prints its profile: `calibrate [full]`; with `rates`, what the micro-kernels reach.

use std::time::{Duration, Instant};

use trireme_costs::calibrate::{Effort, HostProbe, MICROS, Machine, Probe, processor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let argument = std::env::args().nth(1).unwrap_or_default();
    let machine = Machine::this();
    if argument == "rates" {
        let mut probe = HostProbe::new(machine.workers);
        for micro in MICROS {
            if let Some(rate) = probe.rate(micro, Duration::from_millis(300)) {
                println!("{micro:?} = {rate:.3e} /s");
            }
        }
        return Ok(());
    }
    let effort = if argument == "full" {
        Effort::Full
    } else {
        Effort::Quick
    };
    let start = Instant::now();
    let profile = processor(&machine, None, effort);
    eprintln!("measured in {:.2} s", start.elapsed().as_secs_f64());
    print!("{}", profile.to_json()?);
    Ok(())
}
