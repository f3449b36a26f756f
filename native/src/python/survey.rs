//! Surveys and statistics, as Python sees them.

use std::sync::atomic::Ordering;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::engine::Stats;
use crate::windows::{self, Form, SurveyRequest};

/// Boundaries, what to group by, filters.
pub type NewForm = (Vec<i32>, Vec<String>, Vec<(String, Vec<String>)>);

/// Puts a request together.
pub fn survey_request(meter: u32, forms: Vec<NewForm>, asked: Vec<(u64, u32)>) -> SurveyRequest {
    let form = |(boundaries, group_by, filters)| Form {
        boundaries,
        group_by,
        filters,
    };
    let forms = forms.into_iter().map(form).collect();
    SurveyRequest { meter, forms, asked }
}

/// Columns of the answers to many questions.
#[pyclass(frozen, module = "ammeter._native")]
pub struct Answers(pub windows::Answers);

#[pymethods]
impl Answers {
    #[getter]
    fn questions(&self) -> Vec<u32> {
        self.0.questions.clone()
    }
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

/// Numbers about the state, by name.
pub fn stats<'py>(py: Python<'py>, stats: &Stats) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("identities", stats.identities)?;
    dict.set_item("identity_bytes", stats.identity_bytes)?;
    dict.set_item("unsaved_identities", stats.unsaved_identities)?;
    dict.set_item("old_identities", stats.old_identities)?;
    dict.set_item("old_identity_bytes", stats.old_identity_bytes)?;
    dict.set_item("identity_runs", stats.identity_runs)?;
    dict.set_item("run_lookups", stats.run_lookups)?;
    dict.set_item("filter_mistakes", stats.filter_mistakes)?;
    dict.set_item("groups", stats.groups)?;
    dict.set_item("open_rows", stats.open_rows)?;
    dict.set_item("frozen_rows", stats.frozen_rows)?;
    dict.set_item("counters", stats.counters)?;
    dict.set_item("subjects", stats.subjects)?;
    dict.set_item("pending_bytes", stats.pending_bytes)?;
    dict.set_item("panics", super::PANICS.load(Ordering::Relaxed))?;
    Ok(dict)
}
