//! The classes `Checks` and `Endings`.

use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::engine::Engine;
use super::values::raise;
use super::{guard, run};
use crate::checks::{self, Answers, Known, Source};
use crate::engine::Engine as Core;
use crate::error::EngineError as Error;
use crate::meter::Quantity;
use crate::windows::Windows;

/// How answers end.
#[pyclass(frozen, module = "ammeter._native")]
pub struct Endings(Arc<checks::Endings>);

#[pymethods]
impl Endings {
    #[new]
    fn new(allowed: Vec<u8>, over: Vec<u8>, reached: Vec<u8>) -> Self {
        Self(Arc::new(checks::Endings {
            allowed,
            over,
            reached,
        }))
    }
}

/// Questions that an engine can answer by itself.
#[pyclass(frozen, module = "ammeter._native")]
pub struct Checks {
    engine: Arc<Core>,
    /// Taken after the engine's, never the other way round.
    known: Mutex<checks::Checks>,
}

/// Answers; the position; how many were allowed, over a soft limit, at a limit; what is missing.
type Answered<'py> = (Bound<'py, PyBytes>, u64, u32, u32, u32, Vec<(u32, usize)>);

#[pymethods]
#[expect(
    clippy::too_many_arguments,
    reason = "rows and requests cross the bridge as columns"
)]
impl Checks {
    #[new]
    fn new(engine: &Bound<'_, Engine>) -> Self {
        Self {
            engine: Arc::clone(&engine.get().0),
            known: Mutex::default(),
        }
    }

    fn answer<'py>(
        &self,
        py: Python<'py>,
        tenant: u32,
        request: &[u8],
        minute: i32,
    ) -> PyResult<Option<Answered<'py>>> {
        let question = |windows: &Windows| {
            let answers = self.known.lock().answer(windows, tenant, request, minute);
            Ok::<Option<Answers>, Error>(answers)
        };
        let answers = match guard(|| Ok(self.engine.try_ask(tenant, question))) {
            Ok(Some(answered)) => answered.map_err(|error| raise(py, &error))?,
            Ok(None) => run(py, || self.engine.ask(tenant, question))?,
            Err(panic) => return Err(raise(py, &panic)),
        };
        Ok(answers.map(|one| {
            let body = PyBytes::new(py, &one.body);
            (
                body,
                one.position,
                one.allowed,
                one.over,
                one.reached,
                one.missing,
            )
        }))
    }

    #[getter]
    fn version(&self) -> u64 {
        self.known.lock().version()
    }

    fn learn_metered(
        &self,
        version: u64,
        tenant: u32,
        check: &[u8],
        customer: u64,
        from_minute: i32,
        to_minute: i32,
        counter: u64,
        allowance: Quantity,
        amount: Option<Quantity>,
        soft_limit: bool,
        endings: &Bound<'_, Endings>,
    ) {
        let source = Source::Metered {
            counter,
            allowance,
            amount,
            soft_limit,
            endings: Arc::clone(&endings.get().0),
        };
        let known = Known {
            customer,
            from_minute,
            to_minute,
            source,
        };
        self.known.lock().learn(version, tenant, check, known);
    }

    fn learn_fixed(
        &self,
        version: u64,
        tenant: u32,
        check: &[u8],
        customer: u64,
        from_minute: i32,
        to_minute: i32,
        access: &[u8],
    ) {
        let source = Source::Fixed(access.into());
        let known = Known {
            customer,
            from_minute,
            to_minute,
            source,
        };
        self.known.lock().learn(version, tenant, check, known);
    }

    fn forget(&self, tenant: u32, customers: Vec<u64>) {
        self.known.lock().forget(tenant, &customers);
    }

    fn forget_all(&self) {
        self.known.lock().forget_all();
    }

    fn set_aside(&self, tenant: u32, customer: u64, aside: bool) {
        self.known.lock().set_aside(tenant, customer, aside);
    }
}
