//! How a figure is printed, and what is printed of many values.

pub(crate) fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Of ascending values.
pub(crate) fn percentile(values: &[f64], share: f64) -> f64 {
    let last = values.len().saturating_sub(1);
    let rank = (0..=last)
        .rev()
        .find(|rank| *rank as f64 <= share * values.len() as f64);
    values.get(rank.unwrap_or(0)).copied().unwrap_or(f64::NAN)
}

pub(crate) fn figure(name: &str, value: f64, unit: &str, at_most: Option<f64>) {
    print(name, value, unit, at_most.map(|most| ("≤", most, value <= most)));
}

pub(crate) fn at_least(name: &str, value: f64, unit: &str, least: Option<f64>) {
    print(name, value, unit, least.map(|least| ("≥", least, value >= least)));
}

fn print(name: &str, value: f64, unit: &str, target: Option<(&str, f64, bool)>) {
    let target = target.map_or_else(String::new, |(sign, bound, holds)| {
        format!(" (target {sign} {bound}) {}", if holds { "ok" } else { "short" })
    });
    println!("{name} = {value:.4} {unit}{target}");
}
