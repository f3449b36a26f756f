//! All tenants' state, behind one lock that is held for short and counted work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::error::{EngineError, Reason};
use crate::group::{State, Tenant};
use crate::hash::Hasher;
use crate::identity::{Cold, Day, History, IdentityTable, RunFiles};
use crate::meter::{MeterSpec, Quantity};
use crate::observe::MeterSet;
use crate::response::{EventReason, Rejection};
use crate::segment::Digest;
use crate::windows::{Answers, CounterRequest, QueryRequest, QueryResult, Span, SurveyRequest, Windows};

const DAY_US: i64 = 86_400_000_000;

/// What does not change while an engine lives.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How far behind now an event may lie.
    pub horizon_past_us: i64,
    /// How far ahead of now an event may lie.
    pub horizon_future_us: i64,
    /// Bytes admitted and not folded, beyond which nothing is admitted.
    pub max_pending_bytes: u64,
    /// Of new segments.
    pub codec: u8,
    /// Where older identities go; None: all stay in memory.
    pub run_files: Option<RunFiles>,
}

impl Settings {
    /// Gives the time back if it is acceptable.
    pub(crate) fn check_horizon(&self, time_us: i64, now_us: i64) -> Result<i64, Rejection> {
        if time_us < now_us.saturating_sub(self.horizon_past_us) {
            let limit = span(self.horizon_past_us);
            let message =
                format!("the time is more than {limit} before the server's: it is too late to send it");
            return Err(Rejection::new(EventReason::TooOld, "time", message));
        }
        if time_us > now_us.saturating_add(self.horizon_future_us) {
            let limit = span(self.horizon_future_us);
            let message = format!(
                "the time is more than {limit} ahead of the server's: set the clock or send it later"
            );
            return Err(Rejection::new(EventReason::InFuture, "time", message));
        }
        Ok(time_us)
    }

    /// What was last acceptable on an earlier day is so no more: an event can
    /// come back for `past` after its time, which may lie `future` ahead of its
    /// admission; and one day more, because days are coarse.
    fn oldest_identity(&self, now_us: i64) -> Day {
        let span = self
            .horizon_past_us
            .saturating_add(self.horizon_future_us)
            .saturating_add(DAY_US);
        Day::of(now_us.saturating_sub(span))
    }
}

fn span(micros: i64) -> String {
    match micros / 1_000_000 {
        seconds if seconds % 86_400 == 0 => format!("{} days", seconds / 86_400),
        seconds if seconds % 60 == 0 => format!("{} minutes", seconds / 60),
        seconds => format!("{seconds} seconds"),
    }
}

/// Numbers about the engine's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Identities remembered.
    pub identities: usize,
    /// Memory they take.
    pub identity_bytes: usize,
    /// Of them, those that are in no run yet.
    pub unsaved_identities: usize,
    /// Identities in runs that are looked into.
    pub old_identities: u64,
    /// Memory that their filters and fences take.
    pub old_identity_bytes: u64,
    /// Files of identities.
    pub identity_runs: usize,
    /// Times that a filter sent a look-up to the disk.
    pub run_lookups: u64,
    /// And in vain.
    pub filter_mistakes: u64,
    /// Interned groups.
    pub groups: usize,
    /// Partials in memory, not frozen.
    pub open_rows: usize,
    /// Partials frozen, not discarded.
    pub frozen_rows: usize,
    /// Counters kept.
    pub counters: usize,
    /// Subjects with owners.
    pub subjects: usize,
    /// Bytes admitted and not folded.
    pub pending_bytes: u64,
}

/// What admission looks at without the lock.
#[derive(Clone, Debug)]
pub struct View {
    /// Never changed, only replaced.
    pub meters: Arc<MeterSet>,
    /// Never changed, only replaced.
    pub cold: Arc<Cold>,
}

/// Identities, groups under way, partials and counters of all tenants.
pub struct Engine {
    pub(crate) settings: Settings,
    pub(crate) hasher: Hasher,
    pub(crate) state: Mutex<State>,
    /// Something to seal has come.
    pub(crate) filled: Condvar,
    /// One seal at a time.
    pub(crate) sealing: Mutex<()>,
    /// Bytes admitted and not folded.
    pub(crate) pending: AtomicU64,
    /// While somebody copies keys of groups, they keep their numbers.
    pub(crate) numbered: Mutex<()>,
}

impl Engine {
    /// An engine that knows no tenant.
    ///
    /// # Errors
    /// `INVALID_DEFINITION` for an unknown codec or a negative horizon.
    pub fn new(hash_key: &[u8; 16], settings: Settings) -> Result<Self, EngineError> {
        crate::segment::compress(settings.codec, &[])?;
        if settings.horizon_past_us < 0 || settings.horizon_future_us < 0 {
            return Err(EngineError::invalid_definition("a horizon cannot be negative"));
        }
        Ok(Self {
            settings,
            hasher: Hasher::new(hash_key),
            state: Mutex::new(State::new()),
            filled: Condvar::new(),
            sealing: Mutex::new(()),
            pending: AtomicU64::new(0),
            numbered: Mutex::new(()),
        })
    }

    /// Makes a tenant known; one that is known stays as it is.
    pub fn open_tenant(&self, tenant: u32, position: u64, digest: Digest) {
        self.state.lock().tenants.entry(tenant).or_insert_with(|| {
            let mut windows = Windows::new(tenant);
            windows.set_position(position);
            Tenant {
                head: position,
                digest,
                pending: 0,
                identities: IdentityTable::default(),
                history: History::default(),
                windows,
                meters: Arc::default(),
            }
        });
    }

    /// Puts a known tenant's windows back to where its blocks reach: partials
    /// and counters are forgotten; identities, meters and owners are kept.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT`, and `POSITION_GAP` while events wait to be folded.
    pub fn rewind(&self, tenant: u32, position: u64, digest: Digest) -> Result<(), EngineError> {
        let _numbered = self.numbered.lock();
        let mut state = self.state.lock();
        let tenant = state.tenant(tenant)?;
        if tenant.pending > 0 {
            let message = format!("cannot go back to position {position} while events wait to be folded");
            return Err(EngineError::new(Reason::PositionGap, message));
        }
        tenant.windows.rewind(position);
        tenant.head = position;
        tenant.digest = digest;
        Ok(())
    }

    /// Starts counting for a meter; returns the last position that it does
    /// not count.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT`.
    pub fn put_meter(&self, tenant: u32, spec: Arc<MeterSpec>) -> Result<u64, EngineError> {
        let mut state = self.state.lock();
        state.tenant(tenant)?;
        state.close_open_group();
        let tenant = state.tenant(tenant)?;
        tenant.meters = Arc::new(tenant.meters.with(Arc::clone(&spec)));
        tenant.windows.put_meter(spec);
        Ok(tenant.head + tenant.pending)
    }

    /// Stops counting for a meter.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT`.
    pub fn drop_meter(&self, tenant: u32, meter: u32) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        let tenant = state.tenant(tenant)?;
        tenant.meters = Arc::new(tenant.meters.without(meter));
        tenant.windows.drop_meter(meter);
        Ok(())
    }

    /// Bytes admitted and not yet folded.
    #[must_use]
    pub fn pending_bytes(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    /// Forgets identities that no acceptable event can have.
    #[must_use]
    pub fn expire_identities(&self, now_us: i64) -> usize {
        let oldest = self.oldest_identity(now_us);
        let mut state = self.state.lock();
        let tenants: Vec<u32> = state.tenants.keys().copied().collect();
        let mut expired = 0;
        for tenant in tenants {
            for shard in 0.. {
                let table = state
                    .tenants
                    .get_mut(&tenant)
                    .map(|tenant| &mut tenant.identities);
                let Some(count) = table.and_then(|table| table.expire_shard(shard, oldest)) else {
                    break;
                };
                expired += count;
                MutexGuard::bump(&mut state);
            }
        }
        expired
    }

    pub(crate) fn oldest_identity(&self, now_us: i64) -> Day {
        self.settings.oldest_identity(now_us)
    }

    /// Last folded position.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT`.
    pub fn position(&self, tenant: u32) -> Result<u64, EngineError> {
        Ok(self.state.lock().tenant(tenant)?.windows.position())
    }

    /// Merges blocks with memory.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT` and those of `Windows::query`.
    pub fn query(
        &self,
        tenant: u32,
        request: &QueryRequest,
        blocks: &[&[u8]],
        checkpoint: u64,
    ) -> Result<QueryResult, EngineError> {
        let mut query = self.begin_query(tenant, request.clone(), checkpoint)?;
        // Blocks are most of the work, and nobody has to wait for it.
        query.add_blocks(blocks)?;
        query.finish()
    }

    /// Begins a query with the partials in memory; blocks are added to it.
    ///
    /// # Errors
    /// As `query`.
    pub fn begin_query(
        &self,
        tenant: u32,
        request: QueryRequest,
        checkpoint: u64,
    ) -> Result<crate::windows::Query, EngineError> {
        let mut state = self.state.lock();
        state.tenant(tenant)?.windows.begin(request, checkpoint)
    }

    /// Answers many questions about customers' usage of a meter.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT` and those of `Windows::survey`.
    pub fn survey(
        &self,
        tenant: u32,
        request: &SurveyRequest,
        blocks: &[&[u8]],
        checkpoint: u64,
    ) -> Result<Answers, EngineError> {
        self.state
            .lock()
            .tenant(tenant)?
            .windows
            .survey(request, blocks, checkpoint)
    }

    /// Sets who owns a subject.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT`.
    pub fn set_subject(&self, tenant: u32, subject: &str, spans: Vec<Span>) -> Result<(), EngineError> {
        self.state
            .lock()
            .tenant(tenant)?
            .windows
            .set_subject(subject, spans);
        Ok(())
    }

    /// Keeps a counter from now on.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT` and those of `Windows::put_counter`.
    pub fn put_counter(
        &self,
        tenant: u32,
        request: CounterRequest,
        blocks: &[&[u8]],
        checkpoint: u64,
    ) -> Result<(), EngineError> {
        self.state
            .lock()
            .tenant(tenant)?
            .windows
            .put_counter(request, blocks, checkpoint)
    }

    /// Keeps it no more.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT`.
    pub fn drop_counter(&self, tenant: u32, counter: u64) -> Result<(), EngineError> {
        self.state.lock().tenant(tenant)?.windows.drop_counter(counter);
        Ok(())
    }

    /// Quantity and span of a counter around a minute.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT` and those of `Windows::usage`.
    pub fn usage(&self, tenant: u32, counter: u64, minute: i32) -> Result<(Quantity, i32, i32), EngineError> {
        self.state.lock().tenant(tenant)?.windows.usage(counter, minute)
    }

    /// The tenant's current meters, and the runs with what memory lacks.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT`.
    pub fn view(&self, tenant: u32) -> Result<View, EngineError> {
        Ok(self.state.lock().tenant(tenant)?.view())
    }

    /// Numbers about the state.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let guard = self.state.lock();
        let mut stats = Stats {
            pending_bytes: self.pending_bytes(),
            ..Stats::default()
        };
        for tenant in guard.tenants.values() {
            stats.identities += tenant.identities.len();
            stats.identity_bytes += tenant.identities.bytes();
            stats.unsaved_identities += tenant.identities.unsaved();
            stats.identity_runs += tenant.history.stored.len();
            let [old, bytes, lookups, mistakes] = tenant.history.cold.figures();
            stats.old_identities += old;
            stats.old_identity_bytes += bytes;
            stats.run_lookups += lookups;
            stats.filter_mistakes += mistakes;
            stats.groups += tenant.windows.group_count();
            stats.open_rows += tenant.windows.open_rows();
            stats.frozen_rows += tenant.windows.frozen_rows();
            stats.counters += tenant.windows.counter_count();
            stats.subjects += tenant.windows.subject_count();
        }
        stats
    }
}

impl State {
    pub(crate) fn tenant(&mut self, tenant: u32) -> Result<&mut Tenant, EngineError> {
        self.tenants
            .get_mut(&tenant)
            .ok_or_else(|| unknown_tenant(tenant))
    }
}

pub(crate) fn unknown_tenant(tenant: u32) -> EngineError {
    EngineError::new(Reason::UnknownTenant, format!("tenant {tenant} was not opened"))
}
