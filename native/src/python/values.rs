//! Values that cross the bridge, and the exception.

use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyType};

use super::run;
use crate::builder;
use crate::error::EngineError as Error;
use crate::meter::{Aggregation, MeterSpec as Spec};
use crate::observe::{RawFilter, compile};
use crate::pack::Stored;
use crate::{SealedGroup as Sealed, freeze, response, scan, segment, windows};

/// The class is made of Python source: a native class cannot extend
/// `Exception` under the stable ABI of 3.11.
const EXCEPTION: &std::ffi::CStr = c"
class EngineError(Exception):
    '''The only exception raised here; args are (reason, message).'''

    @property
    def reason(self) -> str:
        return self.args[0]

    @property
    def message(self) -> str:
        return self.args[1]

    def __str__(self) -> str:
        return ': '.join(self.args)
";

/// The class `EngineError`.
pub fn exception(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = CLASS.get_or_try_init(py, || {
        let module = PyModule::from_code(py, EXCEPTION, c"_native.py", c"ammeter._native")?;
        Ok::<_, PyErr>(module.getattr("EngineError")?.cast_into::<PyType>()?.unbind())
    })?;
    Ok(class.bind(py))
}

/// An error as the exception.
pub fn raise(py: Python<'_>, error: &Error) -> PyErr {
    match exception(py) {
        Ok(class) => PyErr::from_type(class.clone(), (error.reason.word(), error.message.clone())),
        Err(_) => PyException::new_err(error.to_string()),
    }
}

/// One meter revision, compiled.
#[pyclass(frozen, module = "ammeter._native")]
pub struct MeterSpec(pub Arc<Spec>);

#[pymethods]
impl MeterSpec {
    #[new]
    #[expect(clippy::too_many_arguments, reason = "the fields of the definition")]
    fn new(
        py: Python<'_>,
        meter: u32,
        key: String,
        event_type: String,
        aggregation: &str,
        value_property: String,
        dimensions: Vec<String>,
        filters: Vec<RawFilter>,
    ) -> PyResult<Self> {
        run(py, || {
            let aggregation = Aggregation::parse(aggregation)?;
            let spec = Spec {
                id: meter,
                key,
                event_type,
                aggregation,
                value_property,
                dimensions,
                filters: vec![],
            };
            Ok(Self(Arc::new(compile(spec, filters)?)))
        })
    }
}

/// What became of one request.
#[pyclass(frozen, module = "ammeter._native")]
pub struct Receipt(pub response::Receipt);

#[pymethods]
impl Receipt {
    #[getter]
    fn group(&self) -> u64 {
        self.0.group
    }
    #[getter]
    fn sequence(&self) -> i64 {
        self.0.sequence
    }
    #[getter]
    fn accepted(&self) -> u32 {
        self.0.accepted
    }
    #[getter]
    fn duplicates(&self) -> u32 {
        self.0.duplicates
    }
    #[getter]
    fn conflicts(&self) -> u32 {
        self.0.conflicts
    }
    #[getter]
    fn rejected(&self) -> u32 {
        self.0.rejected
    }
    #[getter]
    fn rejections(&self) -> Vec<(&'static str, u32)> {
        self.0
            .rejections
            .iter()
            .map(|(reason, count)| (reason.word(), *count))
            .collect()
    }
    fn encode<'py>(&self, py: Python<'py>, position: u64) -> PyResult<Bound<'py, PyBytes>> {
        run(py, || Ok(self.0.encode(position))).map(|bytes| PyBytes::new(py, &bytes))
    }
}

/// One row of the segments table.
#[pyclass(frozen, module = "ammeter._native")]
pub struct Segment(Arc<segment::Segment>);

#[pymethods]
impl Segment {
    #[getter]
    fn tenant(&self) -> u32 {
        self.0.header.tenant
    }
    #[getter]
    fn position(&self) -> u64 {
        self.0.header.position
    }
    #[getter]
    fn event_count(&self) -> u32 {
        self.0.header.event_count
    }
    #[getter]
    fn min_time_us(&self) -> i64 {
        self.0.min_time_us
    }
    #[getter]
    fn max_time_us(&self) -> i64 {
        self.0.max_time_us
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
    fn payload<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.payload)
    }
    #[getter]
    fn previous_digest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.previous_digest)
    }
    #[getter]
    fn digest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.digest)
    }
}

/// The events of one commit.
#[pyclass(frozen, module = "ammeter._native")]
pub struct SealedGroup(pub Arc<Sealed>);

#[pymethods]
impl SealedGroup {
    #[getter]
    fn number(&self) -> u64 {
        self.0.number
    }
    #[getter]
    fn segments(&self) -> Vec<Segment> {
        self.0.segments.iter().cloned().map(Segment).collect()
    }
    #[getter]
    fn event_count(&self) -> u64 {
        self.0.event_count()
    }
}

/// Partials of one meter and UTC day.
#[pyclass(frozen, module = "ammeter._native")]
pub struct Block(Arc<windows::Block>);

impl Block {
    /// Wraps blocks.
    pub fn wrap(blocks: Vec<windows::Block>) -> Vec<Self> {
        blocks.into_iter().map(|block| Self(Arc::new(block))).collect()
    }
}

#[pymethods]
impl Block {
    #[getter]
    fn tenant(&self) -> u32 {
        self.0.tenant
    }
    #[getter]
    fn meter(&self) -> u32 {
        self.0.meter
    }
    #[getter]
    fn day(&self) -> i32 {
        self.0.day
    }
    #[getter]
    fn subject_min<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.subject_min)
    }
    #[getter]
    fn subject_max<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.subject_max)
    }
    #[getter]
    fn row_count(&self) -> u32 {
        self.0.row_count
    }
    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.payload)
    }
}

/// Partials on their way to the database.
#[pyclass(frozen, module = "ammeter._native")]
pub struct Frozen(pub freeze::Frozen);

#[pymethods]
impl Frozen {
    #[getter]
    fn positions(&self) -> Vec<(u32, u64)> {
        self.0.positions.clone()
    }
    #[getter]
    fn blocks(&self) -> Vec<Block> {
        self.0.blocks.iter().cloned().map(Block).collect()
    }
    #[getter]
    fn row_count(&self) -> u64 {
        self.0.row_count()
    }
}

/// Columns of stored events.
#[pyclass(frozen, module = "ammeter._native")]
pub struct StoredEvents(pub scan::StoredEvents);

#[pymethods]
impl StoredEvents {
    #[getter]
    fn positions(&self) -> Vec<u64> {
        self.0.positions.clone()
    }
    #[getter]
    fn recorded_us(&self) -> Vec<i64> {
        self.0.recorded_us.clone()
    }
    #[getter]
    fn indexes(&self) -> Vec<u32> {
        self.0.indexes.clone()
    }
    #[getter]
    fn events<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.0
            .events
            .iter()
            .map(|event| PyBytes::new(py, event))
            .collect()
    }
    #[getter]
    fn times_us(&self) -> Vec<i64> {
        self.0.times_us.clone()
    }
    #[getter]
    fn digests(&self) -> Vec<String> {
        self.0.digests.clone()
    }
    #[getter]
    fn meters(&self) -> Vec<Vec<u32>> {
        self.0.meters.clone()
    }
}

/// Builds one meter's blocks from history.
#[pyclass(frozen, module = "ammeter._native")]
pub struct MeterBuilder(Mutex<builder::MeterBuilder>);

#[pymethods]
impl MeterBuilder {
    #[new]
    fn new(py: Python<'_>, hash_key: &[u8], tenant: u32, spec: &Bound<'_, MeterSpec>) -> PyResult<Self> {
        let spec = Arc::clone(&spec.get().0);
        run(py, || {
            Ok(Self(Mutex::new(builder::MeterBuilder::new(
                &super::hash_key(hash_key)?,
                tenant,
                spec,
            ))))
        })
    }
    #[expect(clippy::too_many_arguments, reason = "the columns of a row")]
    #[pyo3(signature = (position, codec, payload, raw_bytes, parts = None, upto = u64::MAX))]
    fn add(
        &self,
        py: Python<'_>,
        position: u64,
        codec: u8,
        payload: &[u8],
        raw_bytes: usize,
        parts: Option<&[u8]>,
        upto: u64,
    ) -> PyResult<()> {
        let row = Stored {
            position,
            codec,
            payload,
            raw_bytes,
            parts: parts.unwrap_or_default(),
        };
        run(py, || self.0.lock().add(&row, upto))
    }
    #[getter]
    fn skipped_count(&self, py: Python<'_>) -> PyResult<u64> {
        run(py, || Ok(self.0.lock().skipped_count()))
    }
    #[getter]
    fn skipped_events(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        run(py, || Ok(self.0.lock().skipped_events().to_vec()))
    }
    #[getter]
    fn row_count(&self, py: Python<'_>) -> PyResult<usize> {
        run(py, || Ok(self.0.lock().row_count()))
    }
    fn take_blocks(&self, py: Python<'_>) -> PyResult<Vec<Block>> {
        run(py, || Ok(Block::wrap(self.0.lock().take_blocks())))
    }
}
