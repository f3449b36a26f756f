//! Rows of the segments table, and packs of them.

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use super::run;
use crate::error::EngineError as Error;
use crate::pack::{self, Row};
use crate::segment::Header;

/// The columns of a row, in the order of `StoredSegment`.
#[derive(FromPyObject)]
pub struct StoredRow(
    u64,
    u8,
    PyBackedBytes,
    u32,
    u32,
    i64,
    PyBackedBytes,
    Option<PyBackedBytes>,
);

impl StoredRow {
    pub fn borrow(&self, tenant: u32) -> Result<Row<'_>, Error> {
        let Self(position, codec, payload, raw_bytes, event_count, recorded_us, digest, parts) = self;
        Ok(Row {
            header: Header {
                tenant,
                position: *position,
                event_count: *event_count,
                recorded_us: *recorded_us,
                raw_bytes: *raw_bytes,
            },
            codec: *codec,
            payload,
            digest: super::digest(digest)?,
            parts: parts.as_deref().unwrap_or_default(),
        })
    }
}

/// Several neighbouring segments, to be stored as one row.
#[pyclass(frozen, module = "ammeter._native")]
pub struct Pack(pack::Pack);

#[pymethods]
impl Pack {
    #[getter]
    fn position(&self) -> u64 {
        self.0.header.position
    }
    #[getter]
    fn event_count(&self) -> u32 {
        self.0.header.event_count
    }
    #[getter]
    fn recorded_us(&self) -> i64 {
        self.0.header.recorded_us
    }
    #[getter]
    fn codec(&self) -> u8 {
        self.0.codec
    }
    #[getter]
    fn raw_bytes(&self) -> u32 {
        self.0.header.raw_bytes
    }
    #[getter]
    fn digest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.digest)
    }
    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.payload)
    }
    #[getter]
    fn parts<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.parts)
    }
}

/// Makes a pack of neighbours, proving each on the way.
#[pyfunction]
pub fn pack_segments(
    py: Python<'_>,
    previous_digest: &[u8],
    tenant: u32,
    rows: Vec<StoredRow>,
) -> PyResult<Pack> {
    run(py, || {
        let rows: Vec<Row<'_>> = rows
            .iter()
            .map(|row| row.borrow(tenant))
            .collect::<Result<_, _>>()?;
        pack::pack(&super::digest(previous_digest)?, &rows).map(Pack)
    })
}

/// Reads a stored row again; gives the digests that the chain should have for
/// the segments in it.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "the columns of a row")]
pub fn verify_segment<'py>(
    py: Python<'py>,
    previous_digest: &[u8],
    tenant: u32,
    position: u64,
    event_count: u32,
    min_time_us: i64,
    max_time_us: i64,
    recorded_us: i64,
    codec: u8,
    raw_bytes: u32,
    digest: &[u8],
    payload: &[u8],
    parts: Option<&[u8]>,
) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    let digests = run(py, || {
        let row = Row {
            header: Header {
                tenant,
                position,
                event_count,
                recorded_us,
                raw_bytes,
            },
            codec,
            payload,
            digest: super::digest(digest)?,
            parts: parts.unwrap_or_default(),
        };
        row.verify(&super::digest(previous_digest)?, min_time_us, max_time_us)
    })?;
    Ok(digests.iter().map(|digest| PyBytes::new(py, digest)).collect())
}
