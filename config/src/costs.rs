//! Settings of the cost model.

use std::collections::BTreeMap;
use std::path::PathBuf;

settings! {
    /// What running on each device is expected to cost.
    pub struct Costs = "costs" {
        /// Folder for measured profiles of devices and for what was learned; "" means `.trireme/costs` in the data folder.
        dir: Option<PathBuf> = None, Plain;
        /// Whether predictions are corrected by what runs took.
        learn: bool = true, Plain;
        /// Whether devices that nobody measured with this driver are measured when the server has started, in the background, up to 3 s each.
        calibrate: bool = true, Plain;
        /// Rents of devices in USD per hour: "cpu0=0.10"; others have the catalogue's.
        prices: Vec<String> = Vec::new(), Plain;
        /// Power of devices in watts, working and waiting: "cpu0=65/20"; others are measured, where they tell (RAPL, NVML), or modelled.
        watts: Vec<String> = Vec::new(), Plain;
        /// Whether running queries are placed anew when they run otherwise than expected; sessions may turn it off for themselves.
        resteer: bool = true, Plain;
        /// Whether the processor and a device may run parts of one fragment at the same time, where that is expected to end sooner; sessions may turn it off for themselves.
        co_execution: bool = true, Plain;
    }
}

impl Costs {
    /// USD per hour, by device.
    ///
    /// # Errors
    /// The text that is of another form.
    pub fn prices(&self) -> Result<BTreeMap<String, f64>, String> {
        let price = |text: &String| {
            let (id, price) = text.split_once('=')?;
            Some((id.trim().to_owned(), number(price)?))
        };
        let all = self.prices.iter();
        all.map(|text| price(text).ok_or_else(|| format!("`costs.prices`: \"{text}\" is not of the form cpu0=0.10")))
            .collect()
    }

    /// Watts while working and while waiting, by device.
    ///
    /// # Errors
    /// The text that is of another form.
    pub fn watts(&self) -> Result<BTreeMap<String, (f64, f64)>, String> {
        let watts = |text: &String| {
            let (id, watts) = text.split_once('=')?;
            let (active, idle) = watts.split_once('/')?;
            let (active, idle) = (number(active)?, number(idle)?);
            (idle <= active).then(|| (id.trim().to_owned(), (active, idle)))
        };
        let form = |text: &String| {
            format!("`costs.watts`: \"{text}\" is not of the form cpu0=65/20, working and waiting, not more waiting")
        };
        let all = self.watts.iter();
        all.map(|text| watts(text).ok_or_else(|| form(text))).collect()
    }
}

fn number(text: &str) -> Option<f64> {
    let number = text.trim().parse::<f64>().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_and_watts_are_read_or_refused() {
        let costs = Costs {
            prices: vec!["cpu0=0.10".to_owned(), "cuda0 = 3.5".to_owned()],
            watts: vec!["cpu0=65/20".to_owned()],
            ..Costs::default()
        };
        assert_eq!(costs.prices().unwrap().get("cuda0"), Some(&3.5));
        assert_eq!(costs.watts().unwrap().get("cpu0"), Some(&(65.0, 20.0)));
        for wrong in ["cpu0", "cpu0=x", "cpu0=-1", "cpu0=inf"] {
            let costs = Costs {
                prices: vec![wrong.to_owned()],
                ..Costs::default()
            };
            assert!(costs.prices().unwrap_err().contains(wrong));
        }
        for wrong in ["cpu0=65", "cpu0=20/65"] {
            let costs = Costs {
                watts: vec![wrong.to_owned()],
                ..Costs::default()
            };
            assert!(costs.watts().unwrap_err().contains(wrong));
        }
    }
}
