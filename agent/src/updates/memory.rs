//! How much memory a second model may take, as the kernel says.

use crate::board::Memory;
use crate::config::file::UpdateSwap;
use crate::reload::Fit;
use crate::root::Root;

/// Whether a model that takes so many bytes fits beside what runs.
#[must_use]
pub(super) fn fit(swap: UpdateSwap, needs: u64) -> Fit {
    match swap {
        UpdateSwap::Hot => Fit::Both,
        UpdateSwap::Serial => Fit::One,
        UpdateSwap::Auto if Memory::read(&Root::machine()).holds(needs) => Fit::Both,
        UpdateSwap::Auto => Fit::One,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_is_larger_than_what_is_free_goes_one_at_a_time() {
        assert_eq!((fit(UpdateSwap::Auto, 1 << 60), fit(UpdateSwap::Hot, 1 << 60)), (Fit::One, Fit::Both));
        assert_eq!((fit(UpdateSwap::Auto, 0), fit(UpdateSwap::Serial, 0)), (Fit::Both, Fit::One));
    }
}
