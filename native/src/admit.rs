//! Admission in two phases: judge the events of a request without any lock,
//! then, under the lock, keep those not seen before. Only the first can fail.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::Ordering;

use crate::engine::{Engine, View, unknown_tenant};
use crate::error::{EngineError, Reason};
use crate::event::put_received_time;
use crate::find::{Finder, Observed};
use crate::group::{Draft, Intake, Tenant};
use crate::hash::Content;
use crate::identity::{Cold, Day, IdentityTable, Seen};
use crate::judge::{Batch, Judge, Judged};
use crate::meter::Point;
use crate::response::{Receipt, Verdict};
use crate::segment::put_event;
use crate::windows::Windows;

/// Events of one request.
pub const MAX_EVENTS: usize = 50_000;

impl Engine {
    /// Judges the events of a request and puts the accepted ones into the
    /// open group.
    ///
    /// # Errors
    /// `MALFORMED_REQUEST`, `LIMIT_EXCEEDED`, `BACK_PRESSURE` or
    /// `UNKNOWN_TENANT`; then nothing has changed.
    /// And `DAMAGED_RUN`: a new engine is needed. May wait for the disk.
    pub fn admit(&self, tenant: u32, body: &[u8], now_us: i64) -> Result<Receipt, EngineError> {
        match self.admit_from(tenant, body, now_us, true)? {
            Some(receipt) => Ok(receipt),
            None => Err(EngineError::new(
                Reason::Panic,
                "a patient admission gave no receipt",
            )),
        }
    }

    /// As `admit`, but never waits for the disk: None if that is needed, and
    /// nothing has changed then.
    ///
    /// # Errors
    /// As `admit`.
    pub fn try_admit(&self, tenant: u32, body: &[u8], now_us: i64) -> Result<Option<Receipt>, EngineError> {
        self.admit_from(tenant, body, now_us, false)
    }

    fn admit_from(
        &self,
        tenant: u32,
        body: &[u8],
        now_us: i64,
        patient: bool,
    ) -> Result<Option<Receipt>, EngineError> {
        let pending = self.pending_bytes();
        if pending >= self.settings.max_pending_bytes {
            let message = format!("{pending} bytes wait for durability: send again later");
            return Err(EngineError::new(Reason::BackPressure, message));
        }
        let mut batch = SCRATCH.take();
        let receipt = self.admit_batch(tenant, body, now_us, patient, &mut batch);
        batch.clear();
        SCRATCH.set(batch.recycled());
        receipt
    }

    fn admit_batch<'a>(
        &self,
        tenant: u32,
        body: &'a [u8],
        now_us: i64,
        patient: bool,
        batch: &mut Batch<'a>,
    ) -> Result<Option<Receipt>, EngineError> {
        let mut view = self.view(tenant)?;
        loop {
            batch.clear();
            let judge = Judge {
                now_us,
                meters: &view.meters,
                settings: &self.settings,
                hasher: self.hasher.clone(),
                of_type: (Vec::new(), &[]),
            };
            batch.judge(body, judge)?;
            if !view.cold.is_empty() && !batch.tell_old(&view.cold, self.oldest_identity(now_us), patient)? {
                return Ok(None);
            }
            match self.keep(tenant, batch, &view, now_us)? {
                Kept::InGroup(group) => return Ok(Some(batch.receipt(group))),
                // A meter was put or dropped meanwhile, or identities were
                // moved out of memory: look again.
                Kept::ViewChanged(changed) => view = changed,
            }
        }
    }

    /// The second phase.
    fn keep(&self, id: u32, batch: &mut Batch<'_>, view: &View, now_us: i64) -> Result<Kept, EngineError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let tenant = state.tenants.get_mut(&id).ok_or_else(|| unknown_tenant(id))?;
        if !tenant.is_seen_by(view) {
            return Ok(Kept::ViewChanged(tenant.view()));
        }
        let was_empty = state.open.is_empty();
        let mut intake = Intake {
            tenant: id,
            group: &mut state.open,
            spare: &mut state.spare,
        };
        let bytes = batch.keep(now_us, tenant, &mut intake);
        self.pending.fetch_add(bytes, Ordering::Relaxed);
        let group = state.youngest_group();
        drop(guard);
        if was_empty && bytes > 0 {
            self.filled.notify_all();
        }
        Ok(Kept::InGroup(group))
    }
}

/// How the second phase ended.
enum Kept {
    InGroup(u64),
    ViewChanged(View),
}

thread_local! {
    /// Memory for a request's judgements, kept from one to the next.
    static SCRATCH: Cell<Batch<'static>> = Cell::default();
}

/// Events that are looked up together.
const CHUNK: usize = 64;

impl Batch<'_> {
    /// Says of what runs have what it is; false if the disk would have to be
    /// read for that, and the caller has no time.
    fn tell_old(&mut self, cold: &Cold, oldest: Day, patient: bool) -> Result<bool, EngineError> {
        for judged in &mut self.judged {
            if judged.verdict != Verdict::Accepted || !cold.may_hold(judged.identity) {
                continue;
            }
            if !patient {
                return Ok(false);
            }
            if let Some(content) = cold.find(judged.identity, oldest)? {
                judged.verdict = known(judged, content);
            }
        }
        Ok(true)
    }

    /// Keeps what was not seen before; returns how many bytes that were.
    fn keep(&mut self, now_us: i64, tenant: &mut Tenant, intake: &mut Intake<'_>) -> u64 {
        let mut bytes = 0;
        let mut groups = Finder::new(&self.keys);
        let mut received_time = Vec::new();
        put_received_time(&mut received_time, now_us);
        let mut begin = 0;
        for chunk in self.judged.chunks_mut(CHUNK) {
            tell_known(chunk, now_us, &mut tenant.identities);
            find_groups(chunk, begin, &mut self.observed, &mut groups, &tenant.windows);
            for judged in &*chunk {
                let observed = &self.observed[begin..judged.observed_end];
                begin = judged.observed_end;
                if judged.verdict == Verdict::Accepted {
                    let extra = if judged.stamped { &received_time[..] } else { &[] };
                    let draft = intake.draft(&mut tenant.pending);
                    bytes += draft.take(judged, observed, extra, &mut groups, &mut tenant.windows);
                }
            }
        }
        bytes
    }

    fn receipt(&self, youngest_group: u64) -> Receipt {
        let mut receipt = Receipt::new(self.sequence);
        for (index, judged) in self.judged.iter().enumerate() {
            receipt.add(index, &judged.verdict, judged.id);
        }
        // A duplicate may repeat an event that is not durable yet: it waits
        // for all of them. A rejection waits for nothing.
        if receipt.accepted + receipt.duplicates + receipt.conflicts > 0 {
            receipt.group = youngest_group;
        }
        receipt
    }
}

/// Remembers what is new and says of the rest what it is.
fn tell_known(chunk: &mut [Judged<'_>], now_us: i64, identities: &mut IdentityTable) {
    // Each place is a cache miss in a table of millions: take the chunk's
    // misses at the same time, not one after the other.
    let touched = chunk.iter().map(|judged| identities.touch(judged.identity));
    black_box(touched.fold(0, u64::wrapping_add));
    for judged in chunk {
        if judged.verdict != Verdict::Accepted {
            continue;
        }
        let day = Day::of(judged.time_us.max(now_us));
        match identities.insert(judged.identity, judged.content, day) {
            Seen::New => {}
            Seen::Before(content) => judged.verdict = known(judged, content),
        }
    }
}

/// Gives each observation of a chunk's new events its group if it was met before; they begin at `begin`.
fn find_groups(
    chunk: &[Judged<'_>],
    begin: usize,
    observed: &mut [Observed],
    groups: &mut Finder<'_>,
    windows: &Windows,
) {
    let mut end = begin;
    for judged in chunk {
        let start = std::mem::replace(&mut end, judged.observed_end);
        if judged.verdict == Verdict::Accepted {
            for one in &mut observed[start..end] {
                groups.ask(one, windows);
            }
        }
    }
    groups.answer(&mut observed[begin..end], windows);
}

/// What an event is whose identity was first seen with a content.
fn known(judged: &Judged<'_>, first: Content) -> Verdict {
    if first == judged.content {
        Verdict::Duplicate
    } else {
        Verdict::Conflict(first)
    }
}

impl Draft {
    fn take(
        &mut self,
        judged: &Judged<'_>,
        observed: &[Observed],
        extra: &[u8],
        groups: &mut Finder<'_>,
        windows: &mut Windows,
    ) -> u64 {
        let before = self.raw.len();
        put_event(&mut self.raw, judged.bytes, extra);
        for one in observed {
            let point = Point {
                value: one.value,
                time_us: judged.time_us,
                group: groups.group(one, windows),
                index: self.event_count,
            };
            self.points.push(point);
        }
        self.event_count += 1;
        self.min_time_us = self.min_time_us.min(judged.time_us);
        self.max_time_us = self.max_time_us.max(judged.time_us);
        (self.raw.len() - before) as u64
    }
}
