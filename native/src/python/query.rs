//! The classes `Query` and `QueryResult`.

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;

use super::engine::Engine;
use super::run;
use crate::error::EngineError as Error;
use crate::windows::{self, Page, QueryRequest};

/// Window and group values of the last row before a page, and its size.
type RawPage = (Option<(u32, Vec<String>)>, usize);

/// Columns of a query's answer.
#[pyclass(frozen, module = "ammeter._native")]
pub struct QueryResult(pub windows::QueryResult);

#[pymethods]
impl QueryResult {
    #[getter]
    fn windows(&self) -> Vec<u32> {
        self.0.windows.clone()
    }
    #[getter]
    fn groups(&self) -> Vec<Vec<String>> {
        self.0.groups.clone()
    }
    #[getter]
    fn values(&self) -> Vec<i128> {
        self.0.values.clone()
    }
    #[getter]
    fn event_counts(&self) -> Vec<u64> {
        self.0.event_counts.clone()
    }
    #[getter]
    fn position(&self) -> u64 {
        self.0.position
    }
}

/// A page under way; None when it is finished.
#[pyclass(frozen, module = "ammeter._native")]
pub struct Query(Mutex<Option<windows::Query>>);

#[pymethods]
#[expect(
    clippy::too_many_arguments,
    reason = "rows and requests cross the bridge as columns"
)]
impl Query {
    #[new]
    fn new(
        py: Python<'_>,
        engine: &Bound<'_, Engine>,
        tenant: u32,
        meter: u32,
        checkpoint: u64,
        boundaries: Vec<i32>,
        group_by: Vec<String>,
        filters: Vec<(String, Vec<String>)>,
        subjects: Vec<String>,
        customers: Vec<u64>,
        page: RawPage,
    ) -> PyResult<Self> {
        let (after, limit) = page;
        let request = QueryRequest {
            meter,
            boundaries,
            group_by,
            filters,
            subjects,
            customers,
            page: Some(Page { after, limit }),
        };
        let core = &engine.get().0;
        run(py, || core.begin_query(tenant, request, checkpoint)).map(|query| Self(Mutex::new(Some(query))))
    }

    fn add(&self, py: Python<'_>, blocks: Vec<PyBackedBytes>) -> PyResult<bool> {
        let blocks: Vec<&[u8]> = blocks.iter().map(|block| &**block).collect();
        run(py, || match &mut *self.0.lock() {
            Some(query) => query.add_in_order(&blocks),
            None => Err(finished()),
        })
    }

    fn finish(&self, py: Python<'_>) -> PyResult<QueryResult> {
        run(py, || self.0.lock().take().ok_or_else(finished)?.finish()).map(QueryResult)
    }
}

fn finished() -> Error {
    Error::invalid_definition("the page is finished")
}
