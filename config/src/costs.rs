//! Settings of the cost model.

use std::path::PathBuf;

settings! {
    /// What running on each device is expected to cost.
    pub struct Costs = "costs" {
        /// Folder for measured profiles of devices and for what was learned; "" means `.trireme/costs` in the data folder.
        dir: Option<PathBuf> = None, Plain;
        /// Whether predictions are corrected by what runs took.
        learn: bool = true, Plain;
    }
}
