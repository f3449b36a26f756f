//! The class `Runs`.

use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::engine::Engine;
use super::run;
use crate::engine::Engine as Core;
use crate::identity;

/// A run to be placed when all it has is durable.
#[pyclass(frozen, module = "ammeter._native")]
pub struct DraftRun(Mutex<identity::DraftRun>);

/// An engine's files of identities.
#[pyclass(frozen, module = "ammeter._native")]
pub struct Runs(Arc<Core>);

#[pymethods]
impl Runs {
    #[new]
    fn new(engine: &Bound<'_, Engine>) -> Self {
        Self(Arc::clone(&engine.get().0))
    }

    fn stored<'py>(&self, py: Python<'py>, tenant: u32) -> PyResult<Vec<(u64, u64, Bound<'py, PyBytes>)>> {
        let tags = run(py, || self.0.stored_runs(tenant))?;
        let tag = |tag: identity::RunTag| (tag.to, tag.position, PyBytes::new(py, &tag.digest));
        Ok(tags.into_iter().map(tag).collect())
    }

    fn load(&self, py: Python<'_>, tenant: u32, trusted: usize, after: u64, now_us: i64) -> PyResult<u64> {
        run(py, || self.0.load_runs(tenant, trusted, after, now_us))
    }

    fn save(&self, py: Python<'_>, tenant: u32, least: usize) -> PyResult<Option<DraftRun>> {
        let draft = run(py, || self.0.save_identities(tenant, least))?;
        Ok(draft.map(|draft| DraftRun(Mutex::new(draft))))
    }

    fn place(&self, py: Python<'_>, draft: &Bound<'_, DraftRun>) -> PyResult<bool> {
        let draft = &draft.get().0;
        run(py, || self.0.place_run(&mut draft.lock()))
    }

    fn give_up(&self, py: Python<'_>, draft: &Bound<'_, DraftRun>) -> PyResult<()> {
        let draft = &draft.get().0;
        run(py, || self.0.give_up_run(&draft.lock()))
    }

    fn move_out(&self, py: Python<'_>, tenant: u32, now_us: i64) -> PyResult<usize> {
        run(py, || self.0.move_out_identities(tenant, now_us))
    }

    fn merge(&self, py: Python<'_>, tenant: u32, now_us: i64) -> PyResult<bool> {
        run(py, || self.0.merge_runs(tenant, now_us))
    }

    fn expire(&self, py: Python<'_>, tenant: u32, now_us: i64) -> PyResult<usize> {
        run(py, || self.0.expire_runs(tenant, now_us))
    }
}
