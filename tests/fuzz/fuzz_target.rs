//! One fuzz target; which one, its name says (see `targets`).
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kinewatch_fuzz::run(env!("CARGO_BIN_NAME"), data));
