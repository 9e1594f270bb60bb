//! Ratios carry over; the host can be measured.

use super::*;
use crate::catalogue::catalogue;

/// Everything at a rate of its own.
struct Fixed(fn(Micro) -> Option<f64>);

impl Probe for Fixed {
    fn rate(&mut self, micro: Micro, _budget: Duration) -> Option<f64> {
        let base = catalogue()
            .unwrap()
            .into_iter()
            .find(|device| device.id == "gpu-h200")
            .unwrap();
        self.0(micro).and_then(|factor| Some(own(micro, &base)? * factor))
    }
}

fn near(a: f64, b: f64) {
    assert!((a / b - 1.0).abs() < 1e-9, "{a} is not {b}");
}

#[test]
fn what_is_measured_replaces_the_base() {
    let base = catalogue()
        .unwrap()
        .into_iter()
        .find(|device| device.id == "gpu-h200")
        .unwrap();
    let same = calibrate(&mut Fixed(|_| Some(1.0)), &base, Effort::Quick);
    near(same.operations.hashes_per_second, base.operations.hashes_per_second);
    assert_eq!(same.provenance, Provenance::Measured);
    let unknown = calibrate(&mut Fixed(|_| None), &base, Effort::Quick);
    assert_eq!(unknown, base);
    let half = calibrate(
        &mut Fixed(|micro| matches!(micro, Micro::Upload(_)).then_some(0.5)),
        &base,
        Effort::Quick,
    );
    let at = |link: &Option<Link>| link.as_ref().unwrap().bytes_per_second_by_bytes.at(1e7);
    near(at(&half.upload), at(&base.upload) / 2.0);
    near(at(&half.download), at(&base.download));
    near(half.memory_bytes_per_second_max, base.memory_bytes_per_second_max);
    let slow_far = Fixed(|micro| match micro {
        Micro::Random(kib) => Some(if kib > 1 << 10 { 0.1 } else { 1.0 }),
        _ => None,
    });
    let mut slow_far = slow_far;
    let slow_far = calibrate(&mut slow_far, &base, Effort::Quick);
    let rates = |profile: &Profile| profile.random_accesses_per_second_by_footprint_bytes.at(1e11);
    near(rates(&slow_far), rates(&base) / 10.0);
}

#[test]
fn the_host_can_be_measured() {
    let mut probe = HostProbe::new(2);
    for micro in MICROS {
        let rate = probe.rate(micro, Duration::from_millis(1));
        let is_copy = matches!(micro, Micro::Upload(_) | Micro::Download(_));
        assert_eq!(rate.is_none(), is_copy, "{micro:?}");
        assert!(
            rate.is_none_or(|rate| rate.is_finite() && rate > 1e3),
            "{micro:?}: {rate:?}"
        );
        assert_eq!(probe.reference(micro, &reference()).is_none(), is_copy, "{micro:?}");
    }
}

#[test]
fn a_machine_is_a_sound_profile() {
    let machine = Machine::this();
    let base = machine.base();
    base.check().unwrap();
    assert!(base.holds_for("cpu0", &machine.name, env!("CARGO_PKG_VERSION")));
    assert_eq!(base.power.provenance, Provenance::Modelled);
    let told = Machine {
        watts: Some((100.0, 20.0)),
        ..machine
    };
    assert_eq!(told.base().power.provenance, Provenance::Measured);
}

#[test]
fn a_machine_like_the_reference_has_its_rates() {
    struct Same;
    impl Probe for Same {
        fn rate(&mut self, micro: Micro, _budget: Duration) -> Option<f64> {
            HostProbe::new(1).reference(micro, &reference())
        }
        fn reference(&self, micro: Micro, base: &Profile) -> Option<f64> {
            HostProbe::new(1).reference(micro, base)
        }
    }
    let measured = calibrate(&mut Same, &reference(), Effort::Full);
    assert_eq!(measured.operations, reference().operations);
    near(
        measured.memory_bytes_per_second_max,
        reference().memory_bytes_per_second_max,
    );
    near(
        measured.random_accesses_per_second_by_footprint_bytes.at(1e7),
        reference().random_accesses_per_second_by_footprint_bytes.at(1e7),
    );
}
