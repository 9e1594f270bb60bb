//! `system.devices`, `system.fragments` and `system.resteers`: what there is to run on, what ran there, and what moved meanwhile.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use arrow::array::{ArrayRef, BooleanArray, Float64Array, RecordBatch};
use datafusion::error::Result;
use trireme_costs::residual::Model;
use trireme_costs::{Profile, Provenance};
use trireme_device_api::{DeviceInfo, DeviceState, Vitals};
use trireme_exec::costs::{CostModel, Judged};
use trireme_exec::fused::FragmentRuntime;
use trireme_exec::history::{FragmentRun, Resteer};
use trireme_exec::operators::Expected;
use trireme_exec::statistics::Counted;

use super::{batch, instant, number, text, text_opt};

/// Size of the table of `lookups_per_second`.
const LOOKED_UP_BYTES: f64 = 1_048_576.0;
/// Groups of `groups_per_second`.
const GROUPS: f64 = 1_000.0;

/// A device, or a backend that has none.
pub(super) struct DeviceRow {
    id: String,
    kind: Option<&'static str>,
    name: Option<String>,
    state: String,
    reason: Option<String>,
    info: Option<(DeviceInfo, Vitals)>,
    /// The rates that placements are made with.
    profile: Option<Profile>,
}

/// The processor, what the backends found, and why some found nothing.
pub(super) fn all_devices(processor: &DeviceInfo, runtime: &FragmentRuntime) -> Vec<DeviceRow> {
    let present = |info: DeviceInfo, vitals: Vitals| DeviceRow {
        id: info.id.clone(),
        kind: Some(info.kind.name()),
        name: Some(info.name.clone()),
        state: info.state.name().to_owned(),
        reason: match &info.state {
            DeviceState::Off(reason) => Some(reason.clone()),
            _ => None,
        },
        profile: runtime.costs().profile_in_use(&info, &vitals),
        info: Some((info, vitals)),
    };
    let absent = |backend: &str, state: &str, reason: Option<String>| DeviceRow {
        id: backend.to_owned(),
        kind: None,
        name: None,
        state: state.to_owned(),
        reason,
        info: None,
        profile: None,
    };
    let mut rows = vec![present(processor.clone(), Vitals::default())];
    match runtime.devices().known() {
        Some(found) => {
            rows.extend(
                found
                    .devices
                    .iter()
                    .map(|device| present(device.info(), device.vitals())),
            );
            rows.extend(
                found
                    .absent
                    .iter()
                    .map(|(backend, reason)| absent(backend, "absent", Some(reason.clone()))),
            );
        }
        None => rows.push(absent(
            "others",
            "starting",
            Some("their drivers are being started".to_owned()),
        )),
    }
    rows
}

fn float<T>(rows: &[T], value: impl Fn(&T) -> Option<f64>) -> ArrayRef {
    Arc::new(rows.iter().map(value).collect::<Float64Array>())
}

/// What the cost model takes a device to be: rates of the whole device, and where they come from.
fn rates(rows: &[DeviceRow]) -> Vec<(&'static str, ArrayRef)> {
    let of = |of: fn(&Profile) -> f64| float(rows, move |row| row.profile.as_ref().map(of));
    let from = |of: fn(&Profile) -> Provenance| {
        text_opt(rows, move |row| {
            row.profile.as_ref().map(|profile| of(profile).name().to_owned())
        })
    };
    let all = |profile: &Profile| 1.0 + (f64::from(profile.workers) - 1.0) * profile.worker_efficiency;
    let measured_at = |row: &DeviceRow| {
        let seconds = row.profile.as_ref()?.measured_unix_s?;
        Some(UNIX_EPOCH + Duration::from_secs(seconds))
    };
    vec![
        ("rates", from(|profile| profile.provenance)),
        ("measured_at", instant(rows, measured_at)),
        (
            "measured_with",
            text_opt(rows, |row| row.profile.as_ref().map(|profile| profile.driver.clone())),
        ),
        (
            "start_ms",
            of(|profile| profile.start_ms + profile.launches * profile.launch_ms + profile.sync_ms),
        ),
        (
            "scan_bytes_per_second",
            float(rows, move |row| {
                let profile = row.profile.as_ref()?;
                let each = profile.stream_bytes_per_second_by_carrier_bytes.at(4.0);
                Some((each * all(profile)).min(profile.memory_bytes_per_second_max))
            }),
        ),
        (
            "lookups_per_second",
            float(rows, move |row| {
                let profile = row.profile.as_ref()?;
                Some(
                    profile
                        .random_accesses_per_second_by_footprint_bytes
                        .at(LOOKED_UP_BYTES)
                        * all(profile),
                )
            }),
        ),
        (
            "groups_per_second",
            float(rows, move |row| {
                let profile = row.profile.as_ref()?;
                Some(profile.group_updates_per_second_by_groups.at(GROUPS) * all(profile))
            }),
        ),
        ("active_watts", of(|profile| profile.power.active_watts)),
        ("idle_watts", of(|profile| profile.power.idle_watts)),
        ("watts_from", from(|profile| profile.power.provenance)),
        ("price_usd_per_hour", of(|profile| profile.price_usd_per_hour)),
    ]
}

pub(super) fn devices(rows: &[DeviceRow]) -> Result<RecordBatch> {
    let info = |row: &DeviceRow| row.info.as_ref().map(|(info, _)| info.clone());
    let count = |of: fn(&Vitals) -> u64| number(rows, move |row| row.info.as_ref().map(|(_, vitals)| of(vitals)));
    let rate = |of: fn(&Vitals) -> Option<f64>| float(rows, move |row| row.info.as_ref().and_then(|(_, v)| of(v)));
    let mut columns = vec![
        ("device", text(rows, |row| &row.id)),
        ("kind", text_opt(rows, |row| row.kind.map(ToOwned::to_owned))),
        ("name", text_opt(rows, |row| row.name.clone())),
        ("state", text(rows, |row| &row.state)),
        ("reason", text_opt(rows, |row| row.reason.clone())),
        ("cores", number(rows, |row| info(row).map(|info| u64::from(info.cores)))),
        (
            "memory_bytes",
            number(rows, |row| info(row).map(|info| info.memory_bytes)),
        ),
        ("used_bytes", count(|vitals| vitals.used_bytes)),
        ("columns_bytes", count(|vitals| vitals.columns_bytes)),
        ("watts", rate(|vitals| vitals.watts)),
        ("utilisation", rate(|vitals| vitals.utilisation)),
        ("upload_bytes_per_second", rate(|vitals| vitals.upload_bytes_per_second)),
        ("read_bytes_per_second", rate(|vitals| vitals.read_bytes_per_second)),
        ("fragments", count(|vitals| vitals.fragments)),
        ("launches", count(|vitals| vitals.launches)),
        ("syncs", count(|vitals| vitals.syncs)),
        ("uploaded_bytes", count(|vitals| vitals.uploaded_bytes)),
        ("downloaded_bytes", count(|vitals| vitals.downloaded_bytes)),
        ("kernels_compiled", count(|vitals| vitals.compiled)),
        ("kernels_cached", count(|vitals| vitals.cached)),
        ("evictions", count(|vitals| vitals.evictions)),
        ("swaps", count(|vitals| vitals.swaps)),
        (
            "features",
            text_opt(rows, |row| info(row).map(|info| info.features.join(" "))),
        ),
    ];
    columns.extend(rates(rows));
    batch(columns)
}

pub(super) fn resteers(rows: &[Resteer]) -> Result<RecordBatch> {
    let list = |of: fn(&Resteer) -> &[String]| text_opt(rows, move |row| Some(of(row).join(", ")));
    batch(vec![
        ("run", number(rows, |row| Some(row.run))),
        ("at", instant(rows, |row| Some(row.at))),
        ("after_ms", float(rows, |row| Some(row.since.as_secs_f64() * 1e3))),
        ("trigger", text(rows, |row| &row.trigger)),
        (
            "moved",
            Arc::new(rows.iter().map(|row| Some(row.moved)).collect::<BooleanArray>()) as ArrayRef,
        ),
        ("moves", text_opt(rows, |row| Some(row.moves()))),
        ("before", list(|row| &row.before)),
        ("after", list(|row| &row.after)),
        ("stay_ms", float(rows, |row| row.stay_ms)),
        ("go_ms", float(rows, |row| row.go_ms)),
        ("fallback", text_opt(rows, |row| row.fallback.clone())),
    ])
}

/// What ran it on a device: kernels of its own, or the one that runs any program as data. None on the processor.
fn tier(row: &FragmentRun) -> Option<&'static str> {
    let words = ["compiled", "interpreted"];
    (row.report.launches > 0).then_some(words[usize::from(row.report.interpreted)])
}

/// What its expected rows were estimated by.
fn expected_by(row: &FragmentRun) -> Option<String> {
    Some(row.expected.as_ref()?.provenance.name().to_owned())
}

/// Columns of segments that the device could have decoded and the host did, by reason; none where there are none.
fn decoded_on_host(row: &FragmentRun) -> Option<String> {
    let reasons = &row.report.host_decoded;
    let reasons: Vec<_> = reasons
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    (!reasons.is_empty()).then(|| reasons.join(", "))
}

/// With what the cost model predicted, where it could judge.
pub(super) fn fragments(rows: &[FragmentRun], costs: Option<&CostModel>) -> Result<RecordBatch> {
    let judged = |of: fn(&Judged) -> f64| {
        float(rows, move |row| {
            costs
                .and_then(|costs| costs.judged(row.run, row.fragment))
                .map(|found| of(&found))
        })
    };
    let expected = |of: fn(&Expected) -> f64| float(rows, move |row| row.expected.as_ref().map(of));
    let millis = |of: fn(&FragmentRun) -> u64| float(rows, move |row| Some(of(row) as f64 / 1e6));
    let bytes = |of: fn(&FragmentRun) -> u64| number(rows, move |row| Some(of(row)));
    batch(vec![
        ("run", number(rows, |row| Some(row.run))),
        ("finished_at", instant(rows, |row| Some(row.at))),
        ("fragment", number(rows, |row| Some(row.fragment as u64))),
        ("text", text(rows, |row| &row.text)),
        ("device", text(rows, |row| &row.device)),
        ("variant", text(rows, |row| row.variant)),
        (
            "input_rows",
            number(rows, |row| Some(row.report.input_rows).filter(|rows| *rows > 0)),
        ),
        ("sink_rows", number(rows, |row| row.report.sink_rows)),
        ("output_rows", number(rows, |row| row.report.output_rows)),
        ("expected_sink_rows", expected(Expected::sink_rows)),
        ("expected_output_rows", expected(|expected| expected.output_rows)),
        ("expected_by", text_opt(rows, expected_by)),
        ("uploaded_bytes", bytes(|row| row.report.uploaded_bytes)),
        ("encoded_bytes", bytes(|row| row.report.encoded_bytes)),
        ("decoded_bytes", bytes(|row| row.report.decoded_bytes)),
        ("decoded_on_host", text_opt(rows, decoded_on_host)),
        ("downloaded_bytes", bytes(|row| row.report.downloaded_bytes)),
        ("restored_bytes", bytes(|row| row.report.restored_bytes)),
        ("launches", number(rows, |row| Some(row.report.launches.into()))),
        ("syncs", number(rows, |row| Some(row.report.syncs.into()))),
        ("retries", number(rows, |row| Some(row.report.retries.into()))),
        (
            "shared_with",
            text_opt(rows, |row| Some(row.report.shared.as_ref()?.device.clone())),
        ),
        (
            "shared_rows",
            number(rows, |row| row.report.shared.as_ref().map(|shared| shared.rows)),
        ),
        (
            "shared_chunks",
            number(rows, |row| {
                row.report.shared.as_ref().map(|shared| shared.chunks.into())
            }),
        ),
        (
            "left_because",
            text_opt(rows, |row| row.report.shared.as_ref()?.left.clone()),
        ),
        ("tier", text_opt(rows, |row| tier(row).map(str::to_owned))),
        ("compiled", number(rows, |row| Some(row.report.compiled.into()))),
        ("compile_ms", millis(|row| row.report.compile_ns)),
        ("kernel_ms", millis(|row| row.report.kernel_ns)),
        ("copy_ms", millis(|row| row.report.copy_ns)),
        (
            "total_ms",
            millis(|row| u64::try_from(row.time.as_nanos()).unwrap_or(u64::MAX)),
        ),
        ("own_ms", judged(|judged| judged.own_ms)),
        ("predicted_ms", judged(|judged| judged.bare_ms)),
        ("corrected_ms", judged(|judged| judged.corrected_ms)),
        ("expected_ms", judged(|judged| judged.expected_ms)),
        ("fallback", text_opt(rows, |row| row.fallback.clone())),
    ])
}

/// `system.feedback`: rows that sub-plans had when they last ran.
pub(super) fn feedback(rows: &[(u64, Counted)]) -> Result<RecordBatch> {
    batch(vec![
        ("fingerprint", text_opt(rows, |row| Some(format!("{:016x}", row.0)))),
        ("text", text(rows, |row| &row.1.text)),
        ("rows", float(rows, |row| Some(row.1.rows))),
        ("expected_rows", float(rows, |row| Some(row.1.expected))),
        ("runs", number(rows, |row| Some(row.1.runs))),
        ("uses", number(rows, |row| Some(row.1.uses))),
        ("counted_at", instant(rows, |row| Some(row.1.at))),
    ])
}

/// `system.models`: what was learned of each device's variant and kind of sink.
pub(super) fn models(rows: &[(String, Model)]) -> Result<RecordBatch> {
    let unused = |row: &(String, Model)| row.1.unused();
    batch(vec![
        ("model", text(rows, |row| &row.0)),
        ("runs", number(rows, |row| Some(row.1.runs.into()))),
        ("bare_error", float(rows, |row| Some(row.1.bare_error))),
        ("corrected_error", float(rows, |row| Some(row.1.corrected_error))),
        (
            "used",
            Arc::new(
                rows.iter()
                    .map(|row| Some(unused(row).is_none()))
                    .collect::<BooleanArray>(),
            ),
        ),
        ("why_not", text_opt(rows, unused)),
    ])
}
