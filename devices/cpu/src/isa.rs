//! Instruction sets, chosen at run time, and the macro that compiles a loop once for each.
//!
//! A primitive is a plain loop over slices. [`primitive!`] makes three copies of it, which LLVM vectorises with what each
//! instruction set has; an [`Isa`] picks one. There are no hand-written intrinsics except where LLVM finds no loop
//! (compaction, in `compact.rs`).

/// An instruction set that the processor at hand has: values other than `Baseline` come only from the functions below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Isa {
    /// What every processor of the target has.
    Baseline,
    /// AVX2 with BMI.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
}

impl Isa {
    /// The best there is.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("lzcnt")
                && is_x86_feature_detected!("popcnt");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx2 && avx512 {
                return Isa::Avx512;
            }
            if avx2 {
                return Isa::Avx2;
            }
        }
        Isa::Baseline
    }

    /// All there are, the best last.
    pub(crate) fn all_available() -> Vec<Self> {
        let best = Self::detect();
        [Isa::Baseline, Isa::Avx2, Isa::Avx512]
            .into_iter()
            .filter(|isa| *isa <= best)
            .collect()
    }

    /// By its name, if the processor has it: `avx512`, `avx2`, `baseline`.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::all_available().into_iter().find(|isa| isa.name() == name)
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Isa::Baseline => "baseline",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }
}

/// Defines a function with a leading `isa: Isa` argument whose body is compiled for each instruction set.
///
/// Generics stand in brackets: `primitive! { fn add[T: Number](a: &[T], b: &[T]) -> Vec<T> { … } }`.
macro_rules! primitive {
    ($(#[$meta:meta])* fn $name:ident[$($generics:tt)*]($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::inline_always, reason = "the body must take on the features of its caller")]
        pub(crate) fn $name<$($generics)*>(isa: $crate::isa::Isa, $($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            fn body<$($generics)*>($($arg: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,bmi1,bmi2,lzcnt,popcnt")]
            fn avx512<$($generics)*>($($arg: $type),*) $(-> $result)? {
                body($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
            fn avx2<$($generics)*>($($arg: $type),*) $(-> $result)? {
                body($($arg),*)
            }

            match isa {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: this value exists only where `Isa::detect` found the features.
                $crate::isa::Isa::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                $crate::isa::Isa::Avx2 => unsafe { avx2($($arg),*) },
                _ => body($($arg),*),
            }
        }
    };
}

pub(crate) use primitive;
