//! Our own settings among DataFusion's options, where planner's rules read them.

use datafusion::common::config::ConfigExtension;
use datafusion::common::extensions_options;

extensions_options! {
    /// Settings `trireme.…` of a session that planning depends on; names and values were checked when they were SET.
    pub struct TriremeOptions {
        /// `auto`, `datafusion` or `fused`.
        pub cpu_variant: String, default = "auto".to_owned()
        /// `auto`, `off`, `require` or `verify`.
        pub device_mode: String, default = "auto".to_owned()
        /// Ids of devices, or `auto`.
        pub devices: String, default = "auto".to_owned()
        /// Fused pipelines join in the order of the least estimated cost.
        pub reorder_joins: bool, default = true

        /// `cost` or `rule`: what decides where fragments run.
        pub placement: String, default = "cost".to_owned()

        /// `latency`, `cost`, `energy` or `balanced`.
        pub objective: String, default = "latency".to_owned()

        /// At most so many milliseconds; 0 is no bound.
        pub max_ms: String, default = "0".to_owned()

        /// At most so many dollars; 0 is no bound.
        pub max_usd: String, default = "0".to_owned()

        /// At most so many joules; 0 is no bound.
        pub max_joules: String, default = "0".to_owned()

        /// Devices of fragments, as JSON; empty pins none.
        pub pinned: String, default = String::new()

        /// Running graphs are placed anew when they run otherwise than expected.
        pub resteer: bool, default = true

        /// `auto`, `off` or `always`: whether the processor and a device share a fragment.
        pub co_execution: String, default = "auto".to_owned()

        /// What is planted, for tests.
        pub inject: String, default = String::new()
    }
}

impl ConfigExtension for TriremeOptions {
    const PREFIX: &'static str = "trireme";
}
