//! Which mix of devices is cheapest for a recorded workload: `fleet WORKLOAD.json [FACTOR [LONGEST_MS]]`, or where a query's
//! fragments would run on a described machine: `fleet WORKLOAD.json FACTOR QUERY DEVICES.toml`.

use trireme_costs::Objective;
use trireme_costs::fleet::{Wanted, Warmth, fleet, plan_text, report};
use trireme_costs::recorded::Workload;

/// Mixes that are printed.
const PRINTED: usize = 12;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let path = arguments
        .first()
        .ok_or("usage: fleet WORKLOAD.json [FACTOR [LONGEST_MS | QUERY DEVICES.toml]]")?;
    let workload = Workload::from_json(&std::fs::read_to_string(path)?)?;
    let factor = arguments.get(1).map_or(Ok(1.0), |text| text.parse())?;
    if let [_, _, name, devices] = arguments.as_slice() {
        let query = workload
            .queries
            .iter()
            .find(|query| query.name == *name)
            .ok_or("there is no such query")?;
        let run = query.runs.last().ok_or("the query has no runs")?.grown(factor);
        let devices = std::fs::read_to_string(devices)?;
        print!(
            "{}",
            plan_text(query, &run, &devices, Warmth::default(), &Objective::default())?
        );
        return Ok(());
    }
    let wanted = Wanted {
        longest_ms_max: arguments.get(2).map(|text| text.parse()).transpose()?,
        ..Wanted::default()
    };
    let mixes = fleet(&workload, factor, Warmth::default(), wanted)?;
    println!(
        "{}, {factor} × its last recorded size, columns in the host's memory",
        workload.name
    );
    print!("{}", report(&mixes[..mixes.len().min(PRINTED)]));
    Ok(())
}
