//! What Python sees; `service/ammeter/_native.pyi` is the manual. Nothing
//! outside this file knows Python.

#![expect(
    clippy::needless_pass_by_value,
    reason = "Python's sequences are extracted into vectors"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::prelude::*;

use crate::error::{EngineError as Error, Reason};
use crate::segment::{Digest, corrupt};

mod checks;
mod engine;
mod query;
mod rows;
mod runs;
mod survey;
mod values;

/// Panics caught since the process started.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// Runs without the GIL; a panic becomes an error.
fn run<T: Send>(py: Python<'_>, work: impl Send + FnOnce() -> Result<T, Error>) -> PyResult<T> {
    py.detach(|| guard(work))
        .map_err(|error| values::raise(py, &error))
}

fn guard<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // Nothing fallible runs while state is half changed, so what is left
    // behind by an unwinding is whole.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text
            .or(panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(Error::new(Reason::Panic, format!("defect in the engine: {text}")))
    })
}

fn hash_key(bytes: &[u8]) -> Result<[u8; 16], Error> {
    let wrong = |_| Error::invalid_definition(format!("a hash key has 16 bytes, not {}", bytes.len()));
    bytes.try_into().map_err(wrong)
}

fn digest(bytes: &[u8]) -> Result<Digest, Error> {
    bytes
        .try_into()
        .map_err(|_| corrupt(format!("a digest has 32 bytes, not {}", bytes.len())))
}

/// The Rust core: decoding, identity, windows, counters.
#[pymodule]
mod _native {
    use pyo3::prelude::*;
    use pyo3::pybacked::PyBackedBytes;
    use pyo3::types::PyBytes;

    use super::run;
    use crate::segment::Header;

    #[pymodule_export]
    use super::checks::{Checks, Endings};
    #[pymodule_export]
    use super::engine::Engine;
    #[pymodule_export]
    use super::query::{Query, QueryResult};
    #[pymodule_export]
    use super::rows::{Pack, pack_segments, verify_segment};
    #[pymodule_export]
    use super::runs::{DraftRun, Runs};
    #[pymodule_export]
    use super::survey::Answers;
    #[pymodule_export]
    use super::values::{
        Block, Frozen, MeterBuilder, MeterSpec, Receipt, SealedGroup, Segment, StoredEvents,
    };

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("EngineError", super::values::exception(module.py())?)?;
        module.add("QUANTITY_SCALE", crate::decimal::SCALE)?;
        module.add("MAX_EVENTS_PER_REQUEST", crate::MAX_EVENTS)
    }

    /// Merges blocks of one meter and day.
    #[pyfunction]
    fn merge_blocks(
        py: Python<'_>,
        tenant: u32,
        meter: u32,
        day: i32,
        payloads: Vec<PyBackedBytes>,
    ) -> PyResult<Vec<Block>> {
        let payloads: Vec<&[u8]> = payloads.iter().map(|payload| &**payload).collect();
        run(py, || {
            crate::windows::merge_blocks(tenant, meter, day, &payloads).map(Block::wrap)
        })
    }

    /// SHA-256 over the previous digest, the header and the payload, decompressed.
    #[pyfunction]
    #[expect(clippy::too_many_arguments, reason = "the columns that the digest covers")]
    fn segment_digest<'py>(
        py: Python<'py>,
        previous_digest: &[u8],
        tenant: u32,
        position: u64,
        event_count: u32,
        recorded_us: i64,
        raw_bytes: u32,
        raw: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        let header = Header {
            tenant,
            position,
            event_count,
            recorded_us,
            raw_bytes,
        };
        let digest = run(py, || Ok(header.digest(&super::digest(previous_digest)?, raw)))?;
        Ok(PyBytes::new(py, &digest))
    }

    /// `StreamUsageRequest.sequence`.
    #[pyfunction]
    fn message_sequence(py: Python<'_>, body: &[u8]) -> PyResult<i64> {
        run(py, || crate::judge::sequence(body))
    }

    /// Compresses with a segment's codec.
    #[pyfunction]
    fn compress<'py>(py: Python<'py>, codec: u8, raw: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let payload = run(py, || crate::segment::compress(codec, raw))?;
        Ok(PyBytes::new(py, &payload))
    }

    /// The inverse of compress.
    #[pyfunction]
    fn decompress<'py>(
        py: Python<'py>,
        codec: u8,
        payload: &[u8],
        raw_bytes: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let raw = run(py, || crate::segment::decompress(codec, payload, raw_bytes))?;
        Ok(PyBytes::new(py, &raw))
    }

    /// The scaled quantity of a decimal text; None if it is none.
    #[pyfunction]
    fn parse_quantity(text: &str) -> Option<i128> {
        crate::decimal::parse(text.as_bytes())
    }

    /// Proves that a panic becomes an error.
    #[pyfunction]
    #[expect(clippy::panic, reason = "panicking is what it is for")]
    fn panic_for_test(py: Python<'_>) -> PyResult<()> {
        run(py, || panic!("panic_for_test was called"))
    }
}
