//! Admission in two phases: judge the events of a request without any lock,
//! then, under the lock, keep those not seen before. Only the first can fail.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::engine::{Engine, Settings, unknown_tenant};
use crate::error::{EngineError, Reason};
use crate::event::{Event, property_field, put_received_time};
use crate::group::{Draft, Intake, Tenant};
use crate::hash::{Content, Hasher, Identity};
use crate::identity::{Day, Seen};
use crate::meter::Point;
use crate::observe::{Member, MeterSet, Observation, push_key};
use crate::response::{EventReason, Receipt, Rejection, Verdict};
use crate::segment::put_event;
use crate::windows::Windows;
use crate::wire::{Reader, Value};

/// Events of one request.
pub const MAX_EVENTS: usize = 50_000;

impl Engine {
    /// Judges the events of a request and puts the accepted ones into the
    /// open group.
    ///
    /// # Errors
    /// `MALFORMED_REQUEST`, `LIMIT_EXCEEDED`, `BACK_PRESSURE` or
    /// `UNKNOWN_TENANT`; then nothing has changed.
    pub fn admit(&self, tenant: u32, body: &[u8], now_us: i64) -> Result<Receipt, EngineError> {
        let pending = self.pending_bytes();
        if pending >= self.settings.max_pending_bytes {
            let message = format!("{pending} bytes wait for durability: send again later");
            return Err(EngineError::new(Reason::BackPressure, message));
        }
        let mut batch = SCRATCH.take();
        let receipt = self.admit_batch(tenant, body, now_us, &mut batch);
        batch.clear();
        SCRATCH.set(batch.recycled());
        receipt
    }

    fn admit_batch<'a>(
        &self,
        tenant: u32,
        body: &'a [u8],
        now_us: i64,
        batch: &mut Batch<'a>,
    ) -> Result<Receipt, EngineError> {
        let mut meters = self.meters(tenant)?;
        loop {
            batch.clear();
            let judge = Judge {
                now_us,
                meters: &meters,
                settings: &self.settings,
                hasher: self.hasher.clone(),
                of_type: (Vec::new(), &[]),
            };
            batch.judge(body, judge)?;
            match self.keep(tenant, batch, &meters, now_us)? {
                Kept::InGroup(group) => return Ok(batch.receipt(group)),
                // A meter was put or dropped meanwhile: look again.
                Kept::MetersChanged(changed) => meters = changed,
            }
        }
    }

    /// The second phase.
    fn keep(
        &self,
        id: u32,
        batch: &mut Batch<'_>,
        meters: &Arc<MeterSet>,
        now_us: i64,
    ) -> Result<Kept, EngineError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let tenant = state.tenants.get_mut(&id).ok_or_else(|| unknown_tenant(id))?;
        if !Arc::ptr_eq(&tenant.meters, meters) {
            return Ok(Kept::MetersChanged(Arc::clone(&tenant.meters)));
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
    MetersChanged(Arc<MeterSet>),
}

thread_local! {
    /// Memory for a request's judgements, kept from one to the next.
    static SCRATCH: Cell<Batch<'static>> = Cell::default();
}

/// Never called: there is nothing in what it is mapped over.
fn retype<'b>(_: Judged<'_>) -> Judged<'b> {
    Judged::default()
}

/// Events whose identities are looked up together.
const CHUNK: usize = 64;
/// More events than this leave no memory behind.
const MAX_SCRATCH: usize = 10_000;

/// An event of the request and what is known about it.
#[derive(Default)]
struct Judged<'a> {
    bytes: &'a [u8],
    id: &'a [u8],
    identity: Identity,
    content: Content,
    time_us: i64,
    /// Came without a time and is stamped with this one.
    stamped: bool,
    /// Where its observations end; they begin where those before end.
    observed_end: usize,
    verdict: Verdict,
}

/// What one event adds to one meter; the group is still a key.
struct Observed {
    meter: u32,
    key_start: usize,
    key_end: usize,
    value: i128,
}

/// A request, judged.
#[derive(Default)]
struct Batch<'a> {
    judged: Vec<Judged<'a>>,
    observed: Vec<Observed>,
    keys: Vec<u8>,
    sequence: i64,
}

/// What judging one event needs besides the event.
struct Judge<'s> {
    now_us: i64,
    meters: &'s MeterSet,
    settings: &'s Settings,
    hasher: Hasher,
    /// The last type met and its meters: neighbours mostly share it.
    of_type: (Vec<u8>, &'s [Member]),
}

impl<'s> Judge<'s> {
    fn members(&mut self, event_type: &[u8]) -> &'s [Member] {
        if self.of_type.0 != event_type {
            self.of_type = (event_type.to_vec(), self.meters.of_type(event_type));
        }
        self.of_type.1
    }
}

impl<'a> Batch<'a> {
    fn clear(&mut self) {
        self.judged.clear();
        self.observed.clear();
        self.keys.clear();
        self.sequence = 0;
    }

    /// The same memory for another request's lifetime.
    fn recycled<'b>(self) -> Batch<'b> {
        if self.judged.capacity() > MAX_SCRATCH {
            return Batch::default();
        }
        // Empty: collecting in place only changes the type.
        let judged = self.judged.into_iter().map(retype).collect();
        Batch {
            judged,
            observed: self.observed,
            keys: self.keys,
            sequence: 0,
        }
    }

    fn judge(&mut self, body: &'a [u8], mut judge: Judge<'_>) -> Result<(), EngineError> {
        let mut event = Event::default();
        let mut reader = Reader::new(body);
        while let Some((number, value)) = reader.field().map_err(malformed)? {
            match (number, value) {
                (1, Value::Bytes(_)) if self.judged.len() == MAX_EVENTS => {
                    let message = format!("more than {MAX_EVENTS} events: send them in several requests");
                    return Err(EngineError::new(Reason::LimitExceeded, message));
                }
                (1, Value::Bytes(bytes)) => self.add(bytes, &mut event, &mut judge),
                (2, Value::Varint(sequence)) => self.sequence = sequence.cast_signed(),
                _ => {}
            }
        }
        Ok(())
    }

    fn add(&mut self, bytes: &'a [u8], event: &mut Event<'a>, judge: &mut Judge<'_>) {
        let mut judged = Judged {
            bytes,
            time_us: judge.now_us,
            ..Judged::default()
        };
        let begin = self.observed.len();
        if let Err(rejection) = self.judge_event(&mut judged, event, judge) {
            self.observed.truncate(begin);
            judged.verdict = Verdict::Rejected(Box::new(rejection));
        }
        judged.id = event.id;
        judged.observed_end = self.observed.len();
        self.judged.push(judged);
    }

    fn judge_event(
        &mut self,
        judged: &mut Judged<'a>,
        event: &mut Event<'a>,
        judge: &mut Judge<'_>,
    ) -> Result<(), Rejection> {
        event.read(judged.bytes).map_err(|error| {
            let message = format!(
                "not a UsageEvent: {} at byte {} of the event",
                error.what, error.offset
            );
            Rejection::new(EventReason::Malformed, "", message)
        })?;
        event.check()?;
        match event.time_us() {
            Some(time_us) => judged.time_us = judge.settings.check_horizon(time_us, judge.now_us)?,
            None => judged.stamped = true,
        }
        self.observe(event, judge)?;
        judged.identity = judge.hasher.identity(event);
        judged.content = judge.hasher.content(event);
        Ok(())
    }

    fn observe(&mut self, event: &Event<'a>, judge: &mut Judge<'_>) -> Result<(), Rejection> {
        let (mut shape, mut key_start) = (usize::MAX, self.keys.len());
        for member in judge.members(event.kind) {
            let value = match member.observe(event, &mut judge.hasher) {
                Observation::None => continue,
                Observation::Value(value) => value,
                Observation::Invalid => return Err(invalid_value(member)),
            };
            // Members of one shape stand together and share the key.
            if member.key_shape != shape {
                shape = member.key_shape;
                key_start = self.keys.len();
                push_key(&mut self.keys, &member.spec, event);
            }
            self.observed.push(Observed {
                meter: member.spec.id,
                key_start,
                key_end: self.keys.len(),
                value,
            });
        }
        Ok(())
    }

    /// Keeps what was not seen before; returns how many bytes that were.
    fn keep(&mut self, now_us: i64, tenant: &mut Tenant, intake: &mut Intake<'_>) -> u64 {
        let mut bytes = 0;
        let mut groups = GroupCache {
            keys: &self.keys,
            last: Vec::new(),
        };
        let mut received_time = Vec::new();
        put_received_time(&mut received_time, now_us);
        let mut begin = 0;
        for chunk in self.judged.chunks_mut(CHUNK) {
            // Each place is a cache miss in a table of millions: take the
            // chunk's misses at the same time, not one after the other.
            let touched = chunk
                .iter()
                .map(|judged| tenant.identities.touch(judged.identity));
            black_box(touched.fold(0, u64::wrapping_add));
            for judged in chunk {
                let observed = &self.observed[begin..judged.observed_end];
                begin = judged.observed_end;
                if judged.verdict != Verdict::Accepted {
                    continue;
                }
                let day = Day::of(judged.time_us.max(now_us));
                match tenant.identities.insert(judged.identity, judged.content, day) {
                    Seen::Before(content) if content == judged.content => judged.verdict = Verdict::Duplicate,
                    Seen::Before(content) => judged.verdict = Verdict::Conflict(content),
                    Seen::New => {
                        let extra = if judged.stamped { &received_time[..] } else { &[] };
                        let draft = intake.draft(&mut tenant.pending);
                        bytes += draft.take(judged, observed, extra, &mut groups, &mut tenant.windows);
                    }
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

impl Draft {
    fn take(
        &mut self,
        judged: &Judged<'_>,
        observed: &[Observed],
        extra: &[u8],
        groups: &mut GroupCache<'_>,
        windows: &mut Windows,
    ) -> u64 {
        let before = self.raw.len();
        put_event(&mut self.raw, judged.bytes, extra);
        for one in observed {
            let group = groups.group(one, windows);
            let point = Point {
                value: one.value,
                time_us: judged.time_us,
                group,
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

/// Neighbours in a request often are of one group: remembers each meter's last.
struct GroupCache<'k> {
    keys: &'k [u8],
    last: Vec<(u32, &'k [u8], u32)>,
}

impl GroupCache<'_> {
    #[inline]
    fn group(&mut self, one: &Observed, windows: &mut Windows) -> u32 {
        let key = &self.keys[one.key_start..one.key_end];
        match self.last.iter_mut().find(|(meter, ..)| *meter == one.meter) {
            Some((_, last_key, group)) if *last_key == key => *group,
            Some((meter, last_key, group)) => {
                *last_key = key;
                *group = windows.group(*meter, key);
                *group
            }
            None => {
                let group = windows.group(one.meter, key);
                self.last.push((one.meter, key, group));
                group
            }
        }
    }
}

fn invalid_value(member: &Member) -> Rejection {
    let spec = &member.spec;
    let message = format!(
        "meter {:?} reads this as its value and it is no decimal number: \
         send digits with at most 26 before and 12 after the point, or leave it out",
        spec.key
    );
    Rejection::new(
        EventReason::InvalidValue,
        property_field(&spec.value_property),
        message,
    )
}

fn malformed(error: crate::wire::WireError) -> EngineError {
    let message = format!("not a protobuf message: {} at byte {}", error.what, error.offset);
    EngineError::new(Reason::MalformedRequest, message)
}
