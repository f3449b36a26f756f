#![no_main]

#[allow(dead_code, reason = "the other targets' parts")]
#[path = "../../tests/mutation/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::row(data));
