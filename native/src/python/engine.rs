//! The class `Engine`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyDict;

use super::query::QueryResult;
use super::rows::StoredRow;
use super::survey::{Answers, NewForm, survey_request};
use super::values::{Frozen, MeterSpec, Receipt, SealedGroup, StoredEvents, raise};
use super::{guard, run};
use crate::engine::{Engine as Core, Settings};
use crate::error::EngineError as Error;
use crate::identity::RunFiles;
use crate::pack::{Row, Stored};
use crate::replay::Replay;
use crate::scan::Search;
use crate::windows::{CounterColumns, CounterRequest, QueryRequest, Span, Windows};

/// All tenants' state: identities, open groups, partials, counters.
#[pyclass(frozen, module = "ammeter._native")]
pub struct Engine(pub(super) Arc<Core>);

impl Engine {
    /// Asks what takes less time than letting go of the GIL: keeps it, unless the lock is taken.
    fn ask<T: Send>(
        &self,
        py: Python<'_>,
        tenant: u32,
        question: impl Send + Sync + Copy + Fn(&Windows) -> Result<T, Error>,
    ) -> PyResult<T> {
        match guard(|| Ok(self.0.try_ask(tenant, question))) {
            Ok(Some(answer)) => answer.map_err(|error| raise(py, &error)),
            Ok(None) => run(py, || self.0.ask(tenant, question)),
            Err(panic) => Err(raise(py, &panic)),
        }
    }
}

#[pymethods]
#[expect(
    clippy::too_many_arguments,
    reason = "rows and requests cross the bridge as columns"
)]
impl Engine {
    #[new]
    #[pyo3(signature = (*, hash_key, horizon_past_seconds, horizon_future_seconds, max_pending_bytes, codec = 1, run_directory = None, hot_seconds = 0))]
    fn new(
        py: Python<'_>,
        hash_key: &[u8],
        horizon_past_seconds: i64,
        horizon_future_seconds: i64,
        max_pending_bytes: u64,
        codec: u8,
        run_directory: Option<PathBuf>,
        hot_seconds: i64,
    ) -> PyResult<Self> {
        let run_files = run_directory.map(|directory| RunFiles {
            directory,
            hot_us: hot_seconds.saturating_mul(1_000_000),
            sync: true,
        });
        let settings = Settings {
            horizon_past_us: horizon_past_seconds.saturating_mul(1_000_000),
            horizon_future_us: horizon_future_seconds.saturating_mul(1_000_000),
            max_pending_bytes,
            codec,
            run_files,
        };
        run(py, || {
            Ok(Self(Arc::new(Core::new(&super::hash_key(hash_key)?, settings)?)))
        })
    }

    fn open_tenant(&self, py: Python<'_>, tenant: u32, position: u64, digest: &[u8]) -> PyResult<()> {
        run(py, || {
            self.0.open_tenant(tenant, position, super::digest(digest)?);
            Ok(())
        })
    }

    fn knows(&self, py: Python<'_>, tenant: u32) -> PyResult<bool> {
        run(py, || Ok(self.0.view(tenant).is_ok()))
    }

    fn rewind(&self, py: Python<'_>, tenant: u32, position: u64, digest: &[u8]) -> PyResult<()> {
        run(py, || self.0.rewind(tenant, position, super::digest(digest)?))
    }

    fn put_meter(&self, py: Python<'_>, tenant: u32, spec: &Bound<'_, MeterSpec>) -> PyResult<u64> {
        let spec = Arc::clone(&spec.get().0);
        run(py, || self.0.put_meter(tenant, spec))
    }

    fn drop_meter(&self, py: Python<'_>, tenant: u32, meter: u32) -> PyResult<()> {
        run(py, || self.0.drop_meter(tenant, meter))
    }

    fn admit(&self, py: Python<'_>, tenant: u32, body: &[u8], now_us: i64) -> PyResult<Receipt> {
        run(py, || self.0.admit(tenant, body, now_us).map(Receipt))
    }

    fn try_admit(&self, py: Python<'_>, tenant: u32, body: &[u8], now_us: i64) -> PyResult<Option<Receipt>> {
        run(py, || Ok(self.0.try_admit(tenant, body, now_us)?.map(Receipt)))
    }

    #[getter]
    fn pending_bytes(&self) -> u64 {
        self.0.pending_bytes()
    }

    fn wait(&self, py: Python<'_>, timeout_ms: u64) -> PyResult<bool> {
        run(py, || Ok(self.0.wait(Duration::from_millis(timeout_ms))))
    }

    fn seal(&self, py: Python<'_>, now_us: i64) -> PyResult<Option<SealedGroup>> {
        run(py, || Ok(self.0.seal(now_us)?.map(SealedGroup)))
    }

    fn fold(&self, py: Python<'_>, group: &Bound<'_, SealedGroup>) -> PyResult<()> {
        let group = &group.get().0;
        run(py, || self.0.fold(group))
    }

    fn replay(
        &self,
        py: Python<'_>,
        tenant: u32,
        rows: Vec<StoredRow>,
        upto: u64,
        known: u64,
        fold: bool,
        now_us: i64,
    ) -> PyResult<u64> {
        run(py, || {
            let rows: Vec<Row<'_>> = rows
                .iter()
                .map(|row| row.borrow(tenant))
                .collect::<Result<_, _>>()?;
            self.0.replay(&Replay {
                tenant,
                rows: &rows,
                upto,
                known,
                fold,
                now_us,
            })
        })
    }

    fn settle_identities(&self, py: Python<'_>, tenant: u32) -> PyResult<()> {
        run(py, || self.0.settle_identities(tenant))
    }

    fn expire_identities(&self, py: Python<'_>, now_us: i64) -> PyResult<usize> {
        run(py, || Ok(self.0.expire_identities(now_us)))
    }

    fn position(&self, py: Python<'_>, tenant: u32) -> PyResult<u64> {
        self.ask(py, tenant, |windows| Ok(windows.position()))
    }

    #[getter]
    fn open_rows(&self, py: Python<'_>) -> PyResult<usize> {
        run(py, || Ok(self.0.stats().open_rows))
    }

    fn freeze(&self, py: Python<'_>) -> PyResult<Frozen> {
        run(py, || Ok(Frozen(self.0.freeze())))
    }

    fn discard(&self, py: Python<'_>, frozen: &Bound<'_, Frozen>) -> PyResult<()> {
        let frozen = &frozen.get().0;
        run(py, || {
            self.0.discard(frozen);
            Ok(())
        })
    }

    fn query(
        &self,
        py: Python<'_>,
        tenant: u32,
        meter: u32,
        blocks: Vec<PyBackedBytes>,
        checkpoint: u64,
        boundaries: Vec<i32>,
        group_by: Vec<String>,
        filters: Vec<(String, Vec<String>)>,
        subjects: Vec<String>,
        customers: Vec<u64>,
    ) -> PyResult<QueryResult> {
        let blocks: Vec<&[u8]> = blocks.iter().map(|block| &**block).collect();
        let request = QueryRequest {
            meter,
            boundaries,
            group_by,
            filters,
            subjects,
            customers,
            page: None,
        };
        run(py, || {
            self.0
                .query(tenant, &request, &blocks, checkpoint)
                .map(QueryResult)
        })
    }

    fn survey(
        &self,
        py: Python<'_>,
        tenant: u32,
        meter: u32,
        blocks: Vec<PyBackedBytes>,
        checkpoint: u64,
        forms: Vec<NewForm>,
        asked: Vec<(u64, u32)>,
    ) -> PyResult<Answers> {
        let blocks: Vec<&[u8]> = blocks.iter().map(|block| &**block).collect();
        let request = survey_request(meter, forms, asked);
        run(py, || self.0.survey(tenant, &request, &blocks, checkpoint)).map(Answers)
    }

    fn set_subject(
        &self,
        py: Python<'_>,
        tenant: u32,
        subject: &str,
        spans: Vec<(i32, i32, u64)>,
    ) -> PyResult<()> {
        let span = |(from_minute, to_minute, customer)| Span {
            from_minute,
            to_minute,
            customer,
        };
        run(py, || {
            self.0
                .set_subject(tenant, subject, spans.into_iter().map(span).collect())
        })
    }

    fn spans(&self, py: Python<'_>, tenant: u32, subject: &str) -> PyResult<Vec<(i32, i32, u64)>> {
        let plain = |span: &Span| (span.from_minute, span.to_minute, span.customer);
        self.ask(py, tenant, |windows| {
            Ok(windows.spans(subject).iter().map(plain).collect())
        })
    }

    fn put_counter(
        &self,
        py: Python<'_>,
        tenant: u32,
        counter: u64,
        meter: u32,
        customer: u64,
        filters: Vec<(String, Vec<String>)>,
        boundaries: Vec<i32>,
        blocks: Vec<PyBackedBytes>,
        checkpoint: u64,
    ) -> PyResult<()> {
        let blocks: Vec<&[u8]> = blocks.iter().map(|block| &**block).collect();
        let request = CounterRequest {
            counter,
            meter,
            customer,
            filters,
            boundaries,
        };
        run(py, || self.0.put_counter(tenant, request, &blocks, checkpoint))
    }

    fn put_counters(
        &self,
        py: Python<'_>,
        tenant: u32,
        meter: u32,
        counters: Vec<u64>,
        customers: Vec<u64>,
        filter_of: Vec<u32>,
        course_of: Vec<u32>,
        filters: Vec<Vec<(String, Vec<String>)>>,
        boundaries: Vec<Vec<i32>>,
        blocks: Vec<PyBackedBytes>,
        checkpoint: u64,
    ) -> PyResult<()> {
        let blocks: Vec<&[u8]> = blocks.iter().map(|block| &**block).collect();
        let columns = CounterColumns {
            meter,
            counters,
            customers,
            filter_of,
            course_of,
            filters,
            boundaries,
        };
        run(py, || self.0.put_counters(tenant, &columns, &blocks, checkpoint))
    }

    fn watch_counters(&self, py: Python<'_>, tenant: u32, counters: Vec<u64>, watched: bool) -> PyResult<()> {
        run(py, || self.0.watch_counters(tenant, &counters, watched))
    }

    fn take_touched(&self, py: Python<'_>) -> PyResult<Vec<(u32, Vec<u64>)>> {
        run(py, || Ok(self.0.take_touched()))
    }

    fn usages(
        &self,
        py: Python<'_>,
        tenant: u32,
        counters: Vec<u64>,
        minute: i32,
    ) -> PyResult<Vec<Option<(i128, i32, i32)>>> {
        self.ask(py, tenant, |windows| Ok(windows.usages(&counters, minute)))
    }

    fn drop_counter(&self, py: Python<'_>, tenant: u32, counter: u64) -> PyResult<()> {
        run(py, || self.0.drop_counter(tenant, counter))
    }

    fn usage(&self, py: Python<'_>, tenant: u32, counter: u64, minute: i32) -> PyResult<(i128, i32, i32)> {
        self.ask(py, tenant, |windows| windows.usage(counter, minute))
    }

    fn usage_since(
        &self,
        py: Python<'_>,
        tenant: u32,
        counter: u64,
        since: i32,
        minute: i32,
    ) -> PyResult<(i128, i32, i32, u128)> {
        let found = self.ask(py, tenant, |windows| windows.usage_since(counter, since, minute))?;
        let stamp = u128::from(found.put) << 64 | u128::from(found.events_before);
        Ok((found.quantity, found.from_minute, found.to_minute, stamp))
    }

    fn running(
        &self,
        py: Python<'_>,
        tenant: u32,
        counter: u64,
        restarts: Vec<i32>,
    ) -> PyResult<(Vec<i32>, Vec<i128>)> {
        run(py, || {
            self.0.ask(tenant, |windows| windows.running(counter, &restarts))
        })
    }

    fn scan(
        &self,
        py: Python<'_>,
        tenant: u32,
        position: u64,
        codec: u8,
        payload: &[u8],
        raw_bytes: usize,
        parts: Option<&[u8]>,
        from_us: i64,
        to_us: i64,
        event_type: &str,
        subject: &str,
        event_id: &str,
        source: &str,
        before: (u64, usize),
        limit: usize,
    ) -> PyResult<StoredEvents> {
        let row = Stored {
            position,
            codec,
            payload,
            raw_bytes,
            parts: parts.unwrap_or_default(),
        };
        let search = Search {
            from_us,
            to_us,
            event_type,
            subject,
            event_id,
            source,
            before,
            limit,
        };
        run(py, || self.0.scan(tenant, &row, &search).map(StoredEvents))
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = run(py, || Ok(self.0.stats()))?;
        super::survey::stats(py, &stats)
    }
}
